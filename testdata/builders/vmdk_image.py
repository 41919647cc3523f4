"""VMDK files, byte by byte. Offsets and sizes are in sectors unless a name says bytes."""

import zlib

from .common import fill, le16, le32, le64, write_file

SECTOR = 512
DESCRIPTOR = 1
NO_PARENT = 0xffffffff
GD_AT_END = 2**64 - 1
REDUNDANT, COMPRESSED, MARKERS = 1 << 1, 1 << 16, 1 << 17


def descriptor(kind="monolithicSparse", lines=(), cid=0x1d5aa001, parent_cid=NO_PARENT, hint=None,
               end="\n"):
    """The text of a descriptor."""
    text = ["# Disk DescriptorFile", "version=1", "CID=%08x" % cid,
            "parentCID=%08x" % parent_cid, 'createType="%s"' % kind]
    if hint is not None:
        text.append('parentFileNameHint="%s"' % hint)
    text += ["", "# Extent description", *lines, "", "# The Disk Data Base", "#DDB", "",
             'ddb.virtualHWVersion = "4"', 'ddb.adapterType = "ide"', ""]
    return end.join(text).encode()


class Pieces:
    """A file in pieces of whole sectors; everything else is a hole."""

    def __init__(self):
        self.sectors = {}
        self.size = None     # bytes; default: the end of the last piece

    def put(self, at, data):
        """Writes `data` at byte `at`, over what is there."""
        while data:
            sector, inside = divmod(at, SECTOR)
            part = data[:SECTOR - inside]
            old = self.sectors.get(sector, bytes(SECTOR))
            self.sectors[sector] = old[:inside] + part + old[inside + len(part):]
            at, data = at + len(part), data[len(part):]
        return self

    def write(self, path):
        size = self.size
        if size is None:
            size = max(self.sectors, default=-1) * SECTOR + SECTOR
        pieces = [(sector * SECTOR, data) for sector, data in sorted(self.sectors.items())]
        # A patch may lie behind the end of a file that was cut.
        write_file(path, size, [(at, data[:size - at]) for at, data in pieces if at < size])


class Sparse(Pieces):
    """A hosted sparse extent: KDMV. Flags of 3: line-end check, redundant directory."""

    def __init__(self, capacity=128, grain=8, entries=512, text=None, flags=REDUNDANT | 1,
                 version=1, algorithm=0, overhead=None, data_at=None, file="t.vmdk",
                 with_descriptor=True):
        super().__init__()
        self.capacity, self.grain, self.entries = capacity, grain, entries
        tables = -(-capacity // (grain * entries)) if grain and entries else 1
        self.directory = 21
        # Only what is used of a directory is written.
        self.next_table = self.directory + max(1, -(-tables * 4 // SECTOR))
        self.tables = {}
        if data_at is None:
            data_at = -(-(self.next_table + 8) // 8) * 8
        self.next_data = data_at
        self.fields = dict(
            version=version, flags=flags, capacity=capacity, grain=grain,
            descriptor=DESCRIPTOR if with_descriptor else 0,
            descriptor_size=20 if with_descriptor else 0, entries=entries,
            redundant=self.directory, directory=self.directory,
            overhead=data_at if overhead is None else overhead, ends=b"\n \r\n",
            algorithm=algorithm)
        if with_descriptor:
            line = 'RW %d SPARSE "%s"' % (capacity, file)
            self.put(DESCRIPTOR * SECTOR, descriptor(lines=[line]) if text is None else text)
        self.footer = False

    def set(self, **fields):
        assert set(fields) <= set(self.fields), fields
        self.fields.update(fields)
        return self

    def table(self, index):
        """The sector of grain table `index`, which is made if need be."""
        if index not in self.tables:
            self.tables[index] = self.next_table
            self.put(self.directory * SECTOR + index * 4, le32(self.next_table))
            self.put(self.next_table * SECTOR, bytes(self.entries * 4))
            self.next_table += -(-self.entries * 4 // SECTOR)
            if self.next_table > self.next_data:
                raise ValueError("tables grow into the data; choose a higher data_at")
        return self.tables[index]

    def entry(self, grain, value):
        index, inside = divmod(grain, self.entries)
        self.put(self.table(index) * SECTOR + inside * 4, le32(value))
        return self

    def pad(self, sectors):
        """Makes the file at least so long."""
        self.put((sectors - 1) * SECTOR, bytes(SECTOR))
        return self

    def data(self, *grains, at=None, tag=None):
        """Gives each of the grains the next space, in this order."""
        for grain in grains:
            sector = self.next_data if at is None else at
            self.put(sector * SECTOR, fill(self.grain * SECTOR, (grain % 250 + 1) if tag is None
                                           else tag))
            self.entry(grain, sector)
            self.next_data = max(self.next_data, sector + self.grain)
        return self

    def deflated(self, *grains):
        """The same for compressed grains; level 0 packs alike everywhere."""
        for grain in grains:
            packed = zlib.compress(fill(self.grain * SECTOR, grain % 250 + 1), 0)
            record = le64(grain * self.grain) + le32(len(packed)) + packed
            self.put(self.next_data * SECTOR, record)
            self.entry(grain, self.next_data)
            self.next_data += -(-len(record) // SECTOR)
        return self

    def header(self):
        f = self.fields
        return (b"KDMV" + le32(f["version"]) + le32(f["flags"]) + le64(f["capacity"])
                + le64(f["grain"]) + le64(f["descriptor"]) + le64(f["descriptor_size"])
                + le32(f["entries"]) + le64(f["redundant"]) + le64(f["directory"])
                + le64(f["overhead"]) + b"\0" + f["ends"] + le16(f["algorithm"])).ljust(SECTOR, b"\0")

    def with_footer(self):
        self.footer = True
        return self

    def footer_at(self):
        """The byte where the footer begins."""
        return max([*self.sectors, self.next_data - 1]) * SECTOR + SECTOR

    def finish(self):
        """Puts the header, and the footer if there is one; changes come after this."""
        if self.footer:
            at = self.footer_at()
            self.put(at, le64(1) + le32(0) + le32(3) + bytes(SECTOR - 16))
            self.put(at + SECTOR, self.header())
            self.put(at + 2 * SECTOR, bytes(SECTOR))
            self.set(directory=GD_AT_END)
            self.footer = False
        self.put(0, self.header())
        return self

    def write(self, path):
        if 0 not in self.sectors:
            self.finish()
        super().write(path)


class Cowd(Pieces):
    """An ESX sparse extent: COWD. 4096 entries of a table, grains of one sector by default."""

    def __init__(self, capacity=5000, grain=1, directory=4, entries=None, text=None):
        super().__init__()
        self.grain, self.directory = grain, directory
        tables = -(-capacity // (4096 * grain)) if grain else 1
        entries = tables if entries is None else entries
        self.put(0, (b"COWD" + le32(1) + le32(3) + le32(capacity) + le32(grain)
                     + le32(directory) + le32(entries)).ljust(SECTOR, b"\0"))
        self.put(directory * SECTOR, bytes(SECTOR))
        if text is not None:
            self.put(SECTOR, text)
        self.tables = {}
        self.next_table = directory + 4
        self.next_data = self.next_table + 32 * tables

    def entry(self, grain, value):
        index, inside = divmod(grain, 4096)
        if index not in self.tables:
            self.tables[index] = self.next_table
            self.put(self.directory * SECTOR + index * 4, le32(self.next_table))
            self.put(self.next_table * SECTOR, bytes(32 * SECTOR))
            self.next_table += 32
        self.put(self.tables[index] * SECTOR + inside * 4, le32(value))
        return self

    def data(self, *grains):
        for grain in grains:
            self.put(self.next_data * SECTOR, fill(self.grain * SECTOR, grain % 250 + 1))
            self.entry(grain, self.next_data)
            self.next_data += self.grain
        return self


class SeSparse(Pieces):
    """A seSparse extent: directory at 2, tables at 8, grains behind them."""

    def __init__(self, capacity=3 * 4096 * 8, tables=3, fields=()):
        super().__init__()
        self.grains = 8 + 64 * tables
        header = {0: 0xcafebabe, 1: 0x200000001, 2: capacity, 3: 8, 4: 64, 10: 1, 11: 1, 12: 1,
                  13: 1, 14: 1, 16: 2, 17: 1, 18: 8, 19: 64 * tables, 20: 4, 21: 1, 22: 5, 23: 1,
                  24: self.grains, 25: 64}
        header.update(fields)
        self.put(0, bytes(2 * SECTOR)).put(SECTOR, le64(0xcafecafe))
        for field, value in header.items():
            self.put(field * 8, le64(value))
        self.put(2 * SECTOR, bytes(SECTOR))
        self.made = set()
        self.next_grain = 0

    def entry(self, grain, value):
        index, inside = divmod(grain, 4096)
        if index not in self.made:
            self.made.add(index)
            self.put(2 * SECTOR + index * 8, le64(1 << 60 | index))
            self.put((8 + 64 * index) * SECTOR, bytes(64 * SECTOR))
        self.put((8 + 64 * index) * SECTOR + inside * 8, le64(value))
        return self

    def data(self, *grains, number=None):
        for grain in grains:
            n = self.next_grain if number is None else number
            self.put((self.grains + 8 * n) * SECTOR, fill(4096, grain % 250 + 1))
            self.entry(grain, 3 << 60 | (n & 0xfff) << 48 | n >> 12)
            self.next_grain = max(self.next_grain, n + 1)
        return self
