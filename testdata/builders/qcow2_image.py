"""Writes qcow2 images byte by byte, sound ones by default, with a knob for every field."""

import zlib

from .common import be16, be32, be64, fill, write_file

COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = 1, 2, 4, 8, 16

# name: (offset, width in bytes)
FIELDS = {
    "magic": (0, 4), "version": (4, 4), "backing_offset": (8, 8), "backing_size": (16, 4),
    "cluster_bits": (20, 4), "size": (24, 8), "crypt": (32, 4), "l1_entries": (36, 4),
    "l1_offset": (40, 8), "reftable_offset": (48, 8), "reftable_clusters": (56, 4),
    "snapshots": (60, 4), "snapshot_offset": (64, 8),
    "incompatible": (72, 8), "compatible": (80, 8), "autoclear": (88, 8),
    "refcount_order": (96, 4), "header_length": (100, 4), "compression_type": (104, 1),
}


class Qcow2:
    """Clusters in the file: header, refcount table, refcount block, L1 table; what is
    allocated later follows in that order. An L2 table is allocated when its first entry is
    set.

    Metadata clusters are written in full, so that a file without deliberate holes is far
    from looking preallocated (format-qcow2 spec, heuristic on allocated bytes);
    `solid=False` leaves the rest of each metadata cluster a hole.
    """

    def __init__(self, size, bits=16, version=3, refcount_order=4, l1_entries=None,
                 extended=False, solid=True):
        self.bits, self.cluster = bits, 1 << bits
        self.version, self.extended, self.solid = version, extended, solid
        self.refcount_order = refcount_order
        self.entry_size = 16 if extended else 8
        self.l2_entries = self.cluster // self.entry_size
        if l1_entries is None:
            l1_entries = -(-size // (self.cluster * self.l2_entries))
        self.pieces = {}        # host offset: bytes
        self.refcounts = {}     # cluster number: count
        self.l2_offsets = {}    # L1 index: host offset
        self.l1_flags = {}      # L1 index: bits to add to the entry
        self.l2 = {}            # L1 index: {L2 index: (entry, bitmap)}
        self.extensions = []    # (type, data)
        self.backing = None
        self.next_cluster = 0
        self.cut = None         # file size, if not the end of the last cluster

        self.alloc()
        self.reftable = self.alloc()
        self.refblocks = [self.alloc()]
        self.l1_entries = l1_entries
        self.l1 = self.alloc(max(1, -(-l1_entries * 8 // self.cluster)))
        self.header = {
            "magic": 0x514649fb, "version": version, "cluster_bits": bits, "size": size,
            "l1_entries": l1_entries, "l1_offset": self.l1, "reftable_offset": self.reftable,
            "reftable_clusters": 1,
        }
        if version >= 3:
            self.header.update(incompatible=EXTENDED_L2 if extended else 0,
                               refcount_order=refcount_order, header_length=112)

    # Space in the file

    def alloc(self, clusters=1, refcount=1):
        """The host offset of so many new clusters in a row."""
        first = self.next_cluster
        self.next_cluster += clusters
        for cluster in range(first, self.next_cluster):
            self.refcounts[cluster] = refcount
        return first * self.cluster

    def put(self, host, data):
        self.pieces[host] = data
        return self

    # Guest clusters

    def entry(self, guest, entry, bitmap=0):
        """Sets the L2 entry of guest cluster `guest` to exactly these bits."""
        l1, l2 = divmod(guest, self.l2_entries)
        if l1 not in self.l2_offsets:
            self.l2_offsets[l1] = self.alloc()
        self.l2.setdefault(l1, {})[l2] = (entry, bitmap)
        return self

    def data(self, guest, tag, clusters=1, bitmap=0xffffffff, flags=COPIED, content=None):
        """Allocated clusters with data. `content` is what of them is written; b"" nothing."""
        for i in range(clusters):
            self.entry(guest + i, 0)  # an L2 table must not come to lie in between
        host = self.alloc(clusters)
        for i in range(clusters):
            self.entry(guest + i, host + i * self.cluster | flags, bitmap)
        if content is None:
            content = fill(self.cluster * clusters, tag)
        if content:
            self.put(host, content)
        return host

    def zero(self, guest, clusters=1):
        for i in range(clusters):
            self.entry(guest + i, ZERO)
        return self

    def zero_at(self, guest, tag, clusters=1):
        return self.data(guest, tag, clusters, flags=COPIED | ZERO)

    def compressed(self, guest, tag, packed=None, bitmap=0, clusters=1):
        """Compressed clusters one behind the other, not aligned to anything."""
        if packed is None:
            squeeze = zlib.compressobj(9, zlib.DEFLATED, -12)
            packed = squeeze.compress(bytes([tag]) * self.cluster) + squeeze.flush()
        self.entry(guest, 0)
        host = self.alloc() + 16
        content = bytes(16) + packed * clusters
        assert len(content) <= self.cluster
        if self.solid:
            content += bytes(self.cluster - len(content))
        self.put(host - 16, content)
        shift = 62 - (self.bits - 8)
        for i in range(clusters):
            at = host + i * len(packed)
            sectors = (at % 512 + len(packed) - 1) // 512
            self.entry(guest + i, COMPRESSED | sectors << shift | at, bitmap)
        self.refcounts[host // self.cluster] = clusters
        return host

    # Header

    def set(self, **fields):
        self.header.update(fields)
        return self

    def extension(self, kind, data):
        self.extensions.append((kind, data))
        return self

    def backed_by(self, name, backing_format=None):
        self.backing = name.encode()
        if backing_format:
            self.extension(0xe2792aca, backing_format.encode())
        return self

    def data_file(self, name, raw=False):
        self.header["incompatible"] |= DATA_FILE
        if raw:
            self.header["autoclear"] = 2
        return self.extension(0x44415441, name.encode())

    def snapshot_table(self, entries):
        """Adds a snapshot table; each entry is (id, name, L1 offset, L1 entries)."""
        table = b""
        for ident, name, l1_offset, l1_entries in entries:
            table += self.snapshot_entry(ident, name, l1_offset, l1_entries)
        host = self.alloc()
        self.put(host, table + bytes(-len(table) % self.cluster))
        return self.set(snapshots=len(entries), snapshot_offset=host)

    def snapshot_entry(self, ident, name, l1_offset, l1_entries, extra=None):
        if extra is None:
            extra = be64(0) + be64(self.header["size"])
        ident, name = ident.encode(), name.encode()
        entry = (be64(l1_offset) + be32(l1_entries) + be16(len(ident)) + be16(len(name))
                 + be32(1000000000) + be32(0) + be64(0) + be32(0) + be32(len(extra))
                 + extra + ident + name)
        return entry + bytes(-len(entry) % 8)

    # Output

    def write(self, path):
        self._write_l2_tables()
        self._write_refcounts()
        l1 = bytearray(max(self.l1_entries, 1) * 8)
        for index, host in self.l2_offsets.items():
            l1[index * 8:index * 8 + 8] = be64(host | self.l1_flags.get(index, COPIED))
        self._metadata(self.l1, bytes(l1))
        self._metadata(0, self._header())
        end = self.next_cluster * self.cluster
        size = end if self.cut is None else self.cut
        pieces = [(at, data[:max(0, size - at)]) for at, data in sorted(self.pieces.items())]
        write_file(path, size, [p for p in pieces if p[1]])

    def _metadata(self, host, data):
        if self.solid:
            data += bytes(-len(data) % self.cluster)
        self.pieces.setdefault(host, data)

    def _write_l2_tables(self):
        for index, table in self.l2.items():
            out = bytearray(self.cluster)
            for i, (entry, bitmap) in table.items():
                packed = be64(entry) + (be64(bitmap) if self.extended else b"")
                out[i * self.entry_size:(i + 1) * self.entry_size] = packed
            used = (max(table) + 1) * self.entry_size
            self._metadata(self.l2_offsets[index], bytes(out[:used]))

    def _write_refcounts(self):
        width = 1 << self.refcount_order
        per_block = self.cluster * 8 // width
        while len(self.refblocks) * per_block < self.next_cluster:
            self.refblocks.append(self.alloc())
        table = b"".join(be64(host) for host in self.refblocks)
        self._metadata(self.reftable, table)
        for number, host in enumerate(self.refblocks):
            block = bytearray(self.cluster)
            for i in range(per_block):
                count = self.refcounts.get(number * per_block + i, 0)
                if width < 8:
                    block[i * width // 8] |= count << (i * width % 8)
                elif count:
                    block[i * width // 8:(i + 1) * width // 8] = count.to_bytes(width // 8, "big")
            self._metadata(host, bytes(block) if self.solid else bytes(block).rstrip(b"\0"))

    def _header(self):
        length = {2: 72}.get(self.version, self.header.get("header_length", 112))
        out = bytearray(max(72 if self.version == 2 else 112, min(length, self.cluster)))
        for kind, data in self.extensions:
            out += be32(kind) + be32(len(data)) + data + bytes(-len(data) % 8)
        if self.extensions:
            out += bytes(8)
        if self.backing is not None:
            self.header.setdefault("backing_offset", len(out))
            self.header.setdefault("backing_size", len(self.backing))
            out += self.backing
        for name, value in self.header.items():
            offset, width = FIELDS[name]
            out[offset:offset + width] = value.to_bytes(width, "big")
        assert len(out) <= self.cluster, "header does not fit: %d bytes" % len(out)
        return bytes(out)
