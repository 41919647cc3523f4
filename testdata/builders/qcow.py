"""qcow images, version 1: what qemu writes, every kind of entry, and what is wrong with each field."""

import os

from .common import GIB, KIB, MIB, Image, be32, be64, fill, qemu_img, qemu_io, write_file

COMPRESSED = 1 << 63
HEADER = 48
SECRET = "instar"

# name: (offset, width in bytes)
FIELDS = {
    "magic": (0, 4), "version": (4, 4), "backing_offset": (8, 8), "backing_size": (16, 4),
    "mtime": (20, 4), "size": (24, 8), "cluster_bits": (32, 1), "l2_bits": (33, 1),
    "crypt": (36, 4), "l1_offset": (40, 8),
}


class Qcow:
    """Header, backing file name, L1 table at byte 4096 and then whatever is allocated, each on a
    multiple of the cluster size. An L2 table is allocated when its first entry is set."""

    def __init__(self, size, bits=12, l2_bits=9, l1_offset=4096, **fields):
        self.cluster, self.in_table = 1 << bits, 1 << l2_bits
        self.header = {"magic": 0x514649fb, "version": 1, "size": size, "cluster_bits": bits,
                       "l2_bits": l2_bits, "l1_offset": l1_offset, **fields}
        self.l1 = [0] * -(-size // (self.cluster * self.in_table))
        self.l2 = {}            # L1 index: (host offset, {L2 index: entry})
        self.pieces = []
        self.end = l1_offset + 8 * len(self.l1)
        self.length = None      # of the file, if not up to the end of the last cluster
        self.name = b""

    def alloc(self, length, align=None):
        align = align or self.cluster
        at = -(-self.end // align) * align
        self.end = at + length
        return at

    def entry(self, cluster, value):
        """Sets the entry of a guest cluster."""
        index = cluster // self.in_table
        if index not in self.l2:
            self.l2[index] = self.alloc(8 * self.in_table), {}
        self.l2[index][1][cluster % self.in_table] = value
        return self

    def table(self, index, entry):
        """Sets an L1 entry."""
        self.l1[index] = entry
        return self

    def data(self, cluster, tag, clusters=1, content=None):
        """Stores clusters, one behind the other; `content` may be less than they are."""
        for i in range(clusters):   # their tables come first, so that nothing is in between
            self.entry(cluster + i, 0)
        at = self.alloc(clusters * self.cluster)
        for i in range(clusters):
            self.entry(cluster + i, at + i * self.cluster)
        whole = fill(clusters * self.cluster, tag) if content is None else content
        self.pieces.append((at, whole))
        return self

    def backing(self, name, at=HEADER):
        self.name = name
        self.header.update(backing_offset=at, backing_size=len(name))
        return self

    def cut(self, length):
        self.length = length
        return self

    def cut_in_table(self, index, entries):
        """Cuts the file off behind so many entries of an L2 table."""
        return self.cut(self.l2[index][0] + 8 * entries)

    def run_on(self, cluster, clusters):
        """Lets entries continue from that of a cluster."""
        first = self.l2[0][1][cluster]
        for i in range(clusters):
            self.entry(cluster + i, first + i * self.cluster)
        return self

    def write(self, path):
        header = bytearray(HEADER)
        for field, value in self.header.items():
            offset, width = FIELDS[field]
            header[offset:offset + width] = value.to_bytes(width, "big")
        for index, (at, _) in self.l2.items():
            self.l1[index] = self.l1[index] or at
        l1_at = self.header["l1_offset"]
        pieces = [(0, bytes(header)), (HEADER, self.name)]
        if any(self.l1) and HEADER <= l1_at < 1 << 40:
            pieces.append((l1_at, b"".join(map(be64, self.l1))))
        for at, entries in self.l2.values():
            table = bytearray(8 * (max(entries) + 1))
            for index, value in entries.items():
                table[8 * index:8 * index + 8] = be64(value)
            pieces.append((at, bytes(table)))
        length = self.end if self.length is None else self.length
        pieces = [(at, data[:max(0, length - at)]) for at, data in pieces + self.pieces]
        write_file(path, length, [piece for piece in pieces if piece[1]])


def _image(name, exercises, build, **more):
    return Image(id="qcow-" + name, name="qcow-%s.qcow" % name, format="qcow",
                 exercises=exercises, build=build, **more)


def _disk(name, exercises, make, **more):
    return _image(name, exercises, lambda path: make().write(path), **more)


# ------------------------------------------------------------------ by qemu

def _plain(path):
    qemu_img("create", "-q", "-f", "qcow", path, "4M")
    qemu_io(path, "write -q -P 0x11 0 64k", "write -q -P 0x12 200k 10k", "write -q -P 0x13 2044k 8k",
            "write -q -P 0x14 4193792 512", options=("-f", "qcow"))


def _compressed(path):
    qemu_img("create", "-q", "-f", "qcow", path, "1M")
    qemu_io(path, "write -q -c -P 0x15 0 4k", "write -q -c -P 0x16 4k 4k", "write -q -P 0x17 8k 4k",
            "write -q -c -P 0x18 64k 4k", "write -q -c -P 0x19 1020k 4k", options=("-f", "qcow"))


def _overlay(base):
    """The clusters of an overlay have 512 bytes, those of others 4 KiB."""
    def build(path):
        qemu_img("create", "-q", "-f", "qcow", "-b", base, "-F", "raw", path, "1M")
        qemu_io(path, "write -q -P 0x1a 1k 512", "write -q -P 0x1b 512k 3k", "write -q -P 0x1c 1023k 1k",
                options=("-f", "qcow"))
    return build


def _secret(name):
    """What replaces FILE for an encrypted image."""
    return {"args": ["--object", "secret,id=s0,data=" + SECRET, "--image-opts",
                     "driver=qcow,file.filename=qcow-%s.qcow,encrypt.key-secret=s0" % name]}


def _aes(*commands):
    def build(path):
        secret = ("--object", "secret,id=s0,data=" + SECRET)
        qemu_img("create", "-q", "-f", "qcow", *secret, "-o",
                 "encrypt.format=aes,encrypt.key-secret=s0", path, "256k")
        if commands:
            qemu_io("driver=qcow,file.filename=%s,encrypt.key-secret=s0" % os.path.basename(path),
                    *commands, options=(*secret, "--image-opts"))
    return build


def by_qemu():
    yield _image("by-qemu", "as qemu-img and qemu-io write it, clusters of 4 KiB", _plain)
    yield _image("compressed", "compressed clusters next to plain ones", _compressed)
    yield _image("overlay-by-qemu", "over a raw image: clusters of 512 bytes",
                 _overlay("raw-base-1m.raw"), companions=["raw-base-1m"])
    yield _image("aes-empty", "AES, no data: an ordinary map", _aes(), qemu=_secret("aes-empty"))
    yield _image("aes-data", "AES with data: no offset anywhere, the table fails",
                 _aes("write -q -P 0x1d 0 8k", "write -q -P 0x1e 64k 4k"), qemu=_secret("aes-data"))
    yield _disk("aes-both", "AES, a compressed cluster between encrypted ones", lambda: Qcow(
        32 * KIB, crypt=1).entry(0, 0x8000).entry(1, COMPRESSED | 0x9000).entry(2, 0x9000),
        qemu=_secret("aes-both"))


# -------------------------------------------------------------- byte by byte

def _mixed():
    disk = Qcow(4 * MIB + 3 * 4 * KIB)
    disk.data(0, 0x21).data(2, 0x22, clusters=3).data(9, 0x23).data(8, 0x24)
    disk.entry(5, COMPRESSED | 0x5123).entry(6, COMPRESSED)
    disk.data(1023, 0x25).data(1024, 0x26, clusters=3)
    return disk


def _small_clusters():
    """Tables of 64 entries, for 32 KiB each, and in the wrong order."""
    disk = Qcow(8 * 32 * KIB, bits=9, l2_bits=6)
    for index in (5, 1, 2):
        disk.entry(64 * index, 0)
    for cluster in range(64, 96, 2):
        disk.data(cluster, 0x27)
    first = disk.alloc(128 * 512)
    disk.pieces.append((first, fill(128 * 512, 0x28)))
    for i in range(128):            # a run over a table's end
        disk.entry(160 + i, first + 512 * i)
    disk.entry(320, COMPRESSED | 1).entry(7 * 64 + 63, COMPRESSED | 2)
    return disk


def _large_clusters():
    return (Qcow(GIB + 64 * KIB, bits=16, l2_bits=13).data(0, 0x29, content=fill(4 * KIB, 0x29))
            .data(8191, 0x2a, content=fill(4 * KIB, 0x2a))
            .data(8192, 0x2b, content=fill(4 * KIB, 0x2b)).data(16384, 0x2c, content=fill(512, 0x2c)))


def _many_tables():
    """More L1 entries than are looked at together, few of them used."""
    disk = Qcow(20000 * 32 * KIB, bits=9, l2_bits=6)
    for index in (0, 8191, 8192, 16383, 16385, 19999):
        disk.data(64 * index + 63, 0x2d)
    return disk


def _shared_tables():
    """One L2 table for three places, one cluster in two."""
    disk = Qcow(4 * 32 * KIB, bits=9, l2_bits=6).data(3, 0x2e, clusters=2).data(7, 0x2f)
    disk.entry(10, disk.l2[0][1][3])
    at = disk.l2[0][0]
    return disk.table(1, at).table(3, at)


def _unaligned_tables():
    """Tables are where they are, on whatever byte; clusters are aligned."""
    disk = Qcow(2 * 32 * KIB, bits=9, l2_bits=6, l1_offset=HEADER + 13)
    disk.l2[0] = disk.alloc(512, 1), {}
    disk.l2[1] = disk.alloc(512, 1), {}
    return disk.data(1, 0x30).data(64, 0x31, clusters=2)


def _host_holes():
    """Nobody looks for holes beneath data."""
    disk = Qcow(MIB, bits=16, l2_bits=6)
    return (disk.data(1, 0x32, content=fill(4 * KIB, 0x32)).data(3, 0x33, content=b"")
            .data(4, 0x34, content=fill(512, 0x34)))


def by_hand():
    yield _disk("mixed", "every kind of entry, runs within and across tables, an unaligned end",
                _mixed)
    yield _disk("small-clusters", "clusters of 512 bytes, the smallest tables, in no order",
                _small_clusters)
    yield _disk("large-clusters", "clusters of 64 KiB and the largest tables", _large_clusters)
    yield _disk("small-tables", "clusters of 64 KiB and the smallest tables", lambda: Qcow(
        20 * MIB, bits=16, l2_bits=6).data(63, 0x35, 2).data(300, 0x36))
    yield _disk("large-tables", "clusters of 512 bytes and the largest tables", lambda: Qcow(
        9 * MIB, bits=9, l2_bits=13).data(0, 0x37).data(8190, 0x38, 4).data(18431, 0x39))
    yield _disk("many-tables", "an L1 table of more than one window", _many_tables)
    yield _disk("empty", "16 GiB without any table", lambda: Qcow(16 * GIB, 16, 13))
    yield _disk("empty-tables", "tables without any cluster", lambda: Qcow(
        6 * MIB).entry(0, 0).entry(600, 0))
    yield _disk("shared-tables", "an L2 table in three places, a cluster in several",
                _shared_tables)
    yield _disk("unaligned-tables", "tables at odd offsets", _unaligned_tables)
    yield _disk("host-holes", "holes of the file inside clusters, which are data", _host_holes)
    yield _disk("odd-size", "a size that is rounded down to a sector", lambda: Qcow(
        1000001).data(0, 0x3a).data(244, 0x3b))
    yield _disk("sector", "a disk of one sector in a cluster of 64 KiB", lambda: Qcow(
        513, 16, 6).data(0, 0x3c))
    yield _disk("no-sector", "a disk of 511 bytes, which has no sector", lambda: Qcow(
        511).data(0, 0x3d))
    yield _disk("needed-part", "the file ends with the part of its last table that the disk needs, in "
                "a started sector", lambda: Qcow(
                    40 * KIB, bits=9, l2_bits=6).data(2, 0x3e).entry(64, 0).cut_in_table(1, 16))


def backed():
    def over(name, exercises, base, make, **more):
        yield _disk("over-" + name, exercises, lambda: make().backing(base[1].encode()),
                    companions=[base[0]], **more)

    raw = ("raw-base-1m", "raw-base-1m.raw")
    yield from over("raw", "a raw base of the same size", raw, lambda: Qcow(MIB).data(
        1, 0x41, 2).data(100, 0x42).entry(200, COMPRESSED | 0x4000))
    yield from over("short", "a base that ends before its overlay does", raw, lambda: Qcow(
        3 * MIB, 9, 12).data(1, 0x43, 2).data(3000, 0x44))
    yield from over("long", "a base that is longer", raw, lambda: Qcow(
        300 * KIB + 512).data(70, 0x45))
    yield from over("qcow", "qcow over qcow with compressed clusters",
                    ("qcow-compressed", "qcow-compressed.qcow"), lambda: Qcow(
                        2 * MIB).data(1, 0x46).data(510, 0x47, 2))
    yield from over("overlay", "three layers, the lower two by qemu",
                    ("qcow-overlay-by-qemu", "qcow-overlay-by-qemu.qcow"), lambda: Qcow(
                        MIB, 14, 7).data(1, 0x48).data(40, 0x49, 2))
    yield from over("qcow2", "qcow over qcow2, whose format is detected",
                    ("qcow2-v3-plain", "qcow2-v3-plain.qcow2"), lambda: Qcow(2 * MIB).data(20, 0x4a))
    yield _disk("name-with-zero", "a backing file name that a zero ends early", lambda: Qcow(
        MIB).data(3, 0x4b).backing(b"raw-base-1m.raw\0.qcow"), companions=["raw-base-1m"])
    yield _disk("name-longest", "a backing file name of 1023 bytes, behind the L1 table",
                lambda: Qcow(MIB, l1_offset=2048).data(3, 0x4c).backing(
                    b"./" * 504 + b"raw-base-1m.raw"), companions=["raw-base-1m"])
    yield _disk("name-empty", "an offset of a backing file name of no bytes", lambda: Qcow(
        MIB, backing_offset=HEADER).data(3, 0x4d))


# ------------------------------------------------------------------- hostile

BY_NAME_AND_PROBED = [["-f", "qcow"], []]


def _bad(name, exercises, make=None, **more):
    fields = more.pop("fields", {})
    if make is None:
        def make():
            disk = Qcow(64 * KIB).data(1, 0x61).data(3, 0x62)
            disk.header.update(fields)
            return disk
    return _disk("bad-" + name, exercises, make, kind="hostile", **more)


def hostile_headers():
    def raw(name, exercises, size, pieces, **more):
        return _image("bad-" + name, exercises, lambda path: write_file(path, size, pieces),
                      kind="hostile", **more)

    yield raw("empty-file", "no byte at all", 0, [], variants=[["-f", "qcow"]])
    yield raw("only-magic", "magic and version and nothing else", 8, [(0, b"QFI\xfb" + be32(1))])
    yield _bad("cut-header", "the file ends in the header, behind its size", lambda: Qcow(
        64 * KIB).cut(40))
    yield _bad("magic", "a wrong magic", fields={"magic": 0x514649fa}, variants=[["-f", "qcow"]])
    for version in (0, 2, 3, 4, 0xffffffff):
        variants = BY_NAME_AND_PROBED if version == 0 else [["-f", "qcow"]]
        yield _bad("version-%x" % version, "version %d" % version, fields={"version": version},
                   variants=variants)
    for size in (0, 1):
        yield _bad("size-%d" % size, "a size of %d bytes" % size, fields={"size": size})
    for bits in (0, 8, 17, 255):
        yield _bad("cluster-bits-%d" % bits, "cluster_bits of %d" % bits,
                   fields={"cluster_bits": bits})
    for bits in (0, 5, 14, 255):
        yield _bad("l2-bits-%d" % bits, "l2_bits of %d" % bits, fields={"l2_bits": bits})
    yield _bad("crypt-no-secret", "AES without a secret", fields={"crypt": 1})
    yield _bad("crypt-2", "an unknown encryption method", fields={"crypt": 2})
    yield _bad("size-all-ones", "a size of 2^64 - 1 bytes", fields={"size": 2 ** 64 - 1})
    yield _bad("size-sum-wraps", "a size that overflows when it is rounded up to tables",
               fields={"size": 2 ** 64 - 2 ** 21})
    yield _bad("l1-entries", "one L1 entry more than allowed",
               fields={"size": (0x0fffffff << 21) + 1})
    for name, offset in (("beyond-file", 1 << 20), ("far", 1 << 40), ("2-63", 1 << 63),
                         ("all-ones", 2 ** 64 - 1)):
        yield _bad("l1-" + name, "the L1 table's offset is wrong: " + name,
                   fields={"l1_offset": offset})
    yield _bad("l1-past-end", "an L1 table that runs past the end of the file", lambda: Qcow(
        64 * MIB, bits=9, l2_bits=6).data(1, 0x63).cut(8 * KIB))
    yield _bad("cut-before-l1", "the file ends before the L1 table", lambda: Qcow(
        64 * KIB).data(1, 0x64).cut(4 * KIB))
    yield _bad("l1-is-header", "the header as L1 table: its magic is an offset",
               fields={"l1_offset": 0})


def hostile_names():
    def bad(name, exercises, offset, size):
        return _bad("name-" + name, exercises,
                    fields={"backing_offset": offset, "backing_size": size})

    yield bad("long", "a backing file name of 1024 bytes", HEADER, 1024)
    yield bad("all-ones", "a backing file name of 2^32 - 1 bytes", HEADER, 2 ** 32 - 1)
    yield bad("outside", "a backing file name behind the end of the file", 1 << 30, 16)
    yield bad("2-63", "a backing file name at 2^63", 1 << 63, 16)
    yield _bad("name-cut", "the file ends in the backing file name", lambda: Qcow(
        64 * KIB, l1_offset=512).backing(b"raw-base-1m.raw" * 50, at=1024).cut(1536))
    yield _bad("backing-missing", "a backing file that is not there", lambda: Qcow(
        64 * KIB).backing(b"nowhere.raw"))
    yield _bad("backing-self", "an image that is its own backing file", lambda: Qcow(
        64 * KIB).backing(b"qcow-bad-backing-self.qcow"),
        skip_versions={"*": "opened until file descriptors run out"})


def hostile_tables():
    def l2(name, exercises, offset):
        return _bad("l2-" + name, exercises, lambda: Qcow(
            6 * MIB).data(1, 0x65).table(1, offset).data(1025, 0x66))

    yield l2("beyond-file", "an L2 table behind the end of the file", 1 << 20)
    yield l2("far", "an L2 table at 2^40", 1 << 40)
    yield l2("2-63", "an L2 table at 2^63", 1 << 63)
    yield l2("all-ones", "an L2 table at 2^64 - 1", 2 ** 64 - 1)
    yield l2("is-header", "an L2 table in the header", 4)
    yield _bad("l2-past-end", "an L2 table that runs past the end of the file", lambda: Qcow(
        2 * MIB).data(1, 0x67).entry(511, 0x4000).cut_in_table(0, 64))
    yield _bad("cluster-beyond-file", "a cluster behind the end of the file, a run over it",
               lambda: Qcow(64 * KIB).entry(0, 1 << 20).data(3, 0x68).run_on(3, 4))
    yield _bad("cluster-2-62", "clusters at the top of what is no compressed one", lambda: Qcow(
        64 * KIB).entry(0, 2 ** 63 - 4096).entry(1, 2 ** 63).entry(2, 2 ** 62).entry(3, 4096))
    yield _bad("cluster-unaligned-512", "clusters that lie on sectors", lambda: Qcow(
        64 * KIB).data(9, 0x69, 4).entry(1, 0x4200).entry(2, 0x5200).entry(4, 0x3e00), windows=[
            ["-s", "4608", "-l", "1024"], ["-s", "5120", "-l", "8192"], ["-s", "16384", "-l", "512"],
            ["-s", "17409"]])
    yield _bad("cluster-unaligned-1", "clusters that lie on odd bytes", lambda: Qcow(
        64 * KIB).data(9, 0x6a, 4).entry(1, 0x4001).entry(2, 0x5001).entry(4, 0x3fff), windows=[
            ["-s", "4609", "-l", "8192"], ["-s", "16385", "-l", "100"], ["-s", "16999"]])
    yield _bad("cluster-is-header", "a cluster over the header", lambda: Qcow(
        64 * KIB).data(1, 0x6b).entry(2, 1))


def images():
    yield from by_qemu()
    yield from by_hand()
    yield from backed()
    yield from hostile_headers()
    yield from hostile_names()
    yield from hostile_tables()
