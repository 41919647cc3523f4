"""QED images: what qemu writes, every kind of entry, and what is wrong with each field."""

from .common import GIB, KIB, MIB, Image, fill, le64, qemu_img, qemu_io, write_file

ZERO = 1
FIELDS_END = 64
BACKING, NEED_CHECK, RAW = 1, 2, 4

# name: (offset, width in bytes)
FIELDS = {
    "magic": (0, 4), "cluster_size": (4, 4), "table_size": (8, 4), "header_size": (12, 4),
    "features": (16, 8), "compatible": (24, 8), "autoclear": (32, 8), "l1_offset": (40, 8),
    "size": (48, 8), "name_offset": (56, 4), "name_size": (60, 4),
}


class Qed:
    """Header, L1 table and then whatever is allocated, in clusters. An L2 table is allocated when
    its first entry is set."""

    def __init__(self, size, cluster=4 * KIB, table=2, header=1, **fields):
        self.cluster, self.table_size = cluster, table * cluster
        self.in_table = self.table_size // 8
        self.end = header * cluster
        self.header = {"magic": 0x00444551, "cluster_size": cluster, "table_size": table,
                       "header_size": header, "size": size}
        self.header["l1_offset"] = self.alloc(self.table_size)
        self.header.update(fields)
        self.l1 = {}            # L1 index: entry
        self.l2 = {}            # L1 index: (host offset, {L2 index: entry})
        self.pieces = []
        self.length = None      # of the file, if not up to the end of the last cluster
        self.name = b""

    def alloc(self, length):
        at = self.end
        self.end += length
        return at

    def entry(self, cluster, value, clusters=1):
        """Sets the entries of guest clusters."""
        for one in range(cluster, cluster + clusters):
            index = one // self.in_table
            if index not in self.l2:
                self.l2[index] = self.alloc(self.table_size), {}
            self.l2[index][1][one % self.in_table] = value
        return self

    def table(self, index, entry):
        """Sets an L1 entry."""
        self.l1[index] = entry
        return self

    def data(self, cluster, tag, clusters=1, content=None):
        """Stores clusters, one behind the other; `content` may be less than they are."""
        self.entry(cluster, 0, clusters)    # tables first, so that nothing is in between
        at = self.alloc(clusters * self.cluster)
        self.pieces.append((at, fill(clusters * self.cluster, tag) if content is None else content))
        return self.run(cluster, at, clusters)

    def run(self, cluster, at, clusters):
        """Entries of guest clusters that continue each other from a file offset on."""
        for i in range(clusters):
            self.entry(cluster + i, at + i * self.cluster)
        return self

    def backing(self, name, features=BACKING, at=FIELDS_END):
        self.name = name
        self.header.update(name_offset=at, name_size=len(name), features=features)
        return self

    def longer(self, length):
        self.length = self.end + length
        return self

    def set(self, **fields):
        self.header.update(fields)
        return self

    def cut(self, length):
        self.length = length
        return self

    def write(self, path):
        header = bytearray(FIELDS_END)
        for field, value in self.header.items():
            offset, width = FIELDS[field]
            header[offset:offset + width] = value.to_bytes(width, "little")
        tables = {index: at for index, (at, _) in self.l2.items()}
        tables.update(self.l1)
        pieces = [(0, bytes(header)), (self.header.get("name_offset", 0), self.name)]
        if FIELDS_END <= self.header["l1_offset"] < 1 << 36:
            pieces.append((self.header["l1_offset"], _table(tables)))
        pieces += [(at, _table(entries)) for at, entries in self.l2.values()]
        length = self.end if self.length is None else self.length
        pieces = [(at, data[:max(0, length - at)]) for at, data in pieces + self.pieces]
        write_file(path, length, [piece for piece in pieces if piece[1]])


def _table(entries):
    table = bytearray(8 * (max(entries, default=-1) + 1))
    for index, value in entries.items():
        table[8 * index:8 * index + 8] = le64(value)
    return bytes(table)


def _image(name, exercises, build, **more):
    return Image(id="qed-" + name, name="qed-%s.qed" % name, format="qed", exercises=exercises,
                 build=build, **more)


def _disk(name, exercises, make, **more):
    return _image(name, exercises, lambda path: make().write(path), **more)


# ------------------------------------------------------------------ by qemu

def _plain(path):
    qemu_img("create", "-q", "-f", "qed", path, "4M")
    qemu_io(path, "write -q -P 0x11 0 64k", "write -q -z 128k 128k", "write -q -P 0x12 500k 30k",
            "write -q -P 0x13 4193792 512", options=("-f", "qed"))


def _small(path):
    qemu_img("create", "-q", "-f", "qed", "-o", "cluster_size=4096,table_size=2", path, "10M")
    qemu_io(path, "write -q -P 0x14 4092k 8k", "write -q -z 5M 64k", "write -q -P 0x15 5200k 4k",
            "write -q -P 0x16 0 12k", options=("-f", "qed"))


def _overlay(path):
    qemu_img("create", "-q", "-f", "qed", "-o", "cluster_size=8192", "-b", "raw-base-1m.raw", "-F",
             "raw", path, "1M")
    qemu_io(path, "write -q -P 0x17 1k 512", "write -q -z 512k 16k", "write -q -P 0x18 1023k 1k",
            options=("-f", "qed"))


def by_qemu():
    yield _image("by-qemu", "as qemu-img and qemu-io write it, with zero clusters", _plain)
    yield _image("small-by-qemu", "the smallest clusters and tables, by qemu", _small)
    yield _image("overlay-by-qemu", "over a raw image, which is marked as raw", _overlay,
                 companions=["raw-base-1m"])


# -------------------------------------------------------------- byte by byte

def _mixed():
    disk = Qed(8 * MIB + 3 * 4 * KIB + 512)
    disk.data(0, 0x21).data(2, 0x22, 3).data(9, 0x23).data(8, 0x24).entry(5, ZERO, 2)
    disk.data(1020, 0x25, 8).entry(1030, ZERO, 100)
    first = disk.l2[0][1][0]
    disk.entry(1200, first).entry(1201, first)
    return disk.data(2048, 0x26, 4)


def _no_order():
    """Tables and clusters in the reverse of their order on the disk."""
    disk = Qed(16 * MIB)
    for index in (3, 1, 0):
        disk.entry(1024 * index, 0)
    for cluster in range(20, 0, -1):
        disk.data(cluster, 0x27)
    return disk.data(3500, 0x28).data(1500, 0x29)


def _tables_of(clusters, tag):
    def make():
        disk = Qed(60 * MIB, table=clusters)
        disk.data(1, tag).data(disk.in_table - 1, tag + 1, 2 if clusters < 16 else 1)
        return disk.entry(15000, ZERO, 3)
    return make


def _many_tables():
    """More L1 entries than are looked at together, few of them used."""
    disk = Qed(16000 * 128 * MIB, cluster=8 * KIB, table=16)
    for index in (0, 8191, 8192, 15999):
        disk.data(16384 * index + 16383, 0x3f, content=fill(512, 0x3f))
    return disk


def _long_run():
    """A table for 8 GiB, all of it absent but for one cluster."""
    return Qed(8 * GIB, cluster=64 * KIB, table=16).data(0, 0x2a, content=fill(512, 0x2a))


def _large_clusters():
    disk = Qed(40 * MIB, cluster=4 * MIB)
    disk.data(1, 0x2b, 2, content=fill(4 * KIB, 0x2b)).entry(4, ZERO, 2)
    return disk.data(9, 0x2c, content=fill(512, 0x2c))


def _shared_tables():
    """One L2 table for three places, one cluster in two."""
    disk = Qed(16 * MIB).data(3, 0x2d, 2).data(7, 0x2e).entry(8, ZERO)
    disk.entry(20, disk.l2[0][1][3])
    at = disk.l2[0][0]
    return disk.table(1, at).table(3, at)


def by_hand():
    yield _disk("mixed", "every kind of entry, runs within and across tables, an unaligned end",
                _mixed)
    yield _disk("no-order", "tables and clusters in reverse order", _no_order)
    yield _disk("many-tables", "an L1 table of more than one window", _many_tables)
    for clusters, tag in ((2, 0x31), (4, 0x33), (8, 0x35), (16, 0x37)):
        yield _disk("table-%d" % clusters, "tables of %d clusters" % clusters,
                    _tables_of(clusters, tag))
    yield _disk("large-clusters", "clusters of 4 MiB, holes of the file inside", _large_clusters)
    yield _disk("largest", "a disk of 2^62 bytes, the largest that qemu opens", lambda: Qed(
        1 << 62, cluster=4 * MIB), windows=[["-s", "2E", "-l", "4096"], ["-s", "3E"]])
    yield _disk("full-table", "the largest disk of the smallest tables", lambda: Qed(
        4 * GIB).data(0, 0x3b).data((1 << 20) - 1, 0x3c))
    yield _disk("empty", "1 TiB without any table", lambda: Qed(1 << 40, 64 * KIB, 4))
    yield _disk("empty-tables", "tables without any cluster", lambda: Qed(
        12 * MIB).entry(0, 0).entry(2048, 0))
    yield _disk("no-size", "a disk of no bytes", lambda: Qed(0))
    yield _disk("sector", "a disk of one sector", lambda: Qed(512).data(0, 0x3d))
    yield _disk("shared-tables", "an L2 table in three places, a cluster in several",
                _shared_tables)
    yield _disk("zeros", "nothing but zero clusters", lambda: Qed(8 * MIB).entry(0, ZERO, 2048))
    yield _disk("large-header", "a header of five clusters", lambda: Qed(
        MIB, header=5).data(1, 0x3e))
    yield _disk("huge-header", "the largest header: 4 GiB less a cluster", lambda: Qed(
        MIB, header=(1 << 20) - 1).data(1, 0x39))
    yield _disk("no-header", "a header of no clusters, which qemu takes", lambda: Qed(
        MIB).data(2, 0x3f).set(header_size=0))
    yield _disk("need-check", "an image that was not closed, and features that may be ignored",
                lambda: Qed(MIB, features=NEED_CHECK, compatible=2 ** 64 - 1,
                            autoclear=2 ** 64 - 1).data(5, 0x40))
    yield _disk("partial-end", "a file that ends within a cluster that nothing uses", lambda: Qed(
        MIB).data(5, 0x41).longer(1000))
    yield _disk("long-run", "a run of more than 4 GiB in one table: qemu-img aborts, all versions",
                _long_run, windows=[["-l", "65536"], ["-s", "4095M", "-l", "4095M"], ["-s", "7G"],
                                    ["-s", "65535", "-l", "2"]])


def backed():
    def over(name, exercises, base, make, features=BACKING, **more):
        yield _disk("over-" + name, exercises,
                    lambda: make().backing(base[1].encode(), features), companions=[base[0]], **more)

    raw = ("raw-base-1m", "raw-base-1m.raw")
    yield from over("raw", "a raw base of the same size, detected", raw, lambda: Qed(
        MIB).data(1, 0x42, 2).entry(100, ZERO).data(200, 0x43))
    yield from over("short", "a base that ends before its overlay does", raw, lambda: Qed(
        6 * MIB).data(1, 0x44).entry(300, ZERO).data(1400, 0x45), BACKING | RAW)
    yield from over("long", "a base that is longer", raw, lambda: Qed(
        300 * KIB + 512).data(70, 0x46))
    yield from over("qed", "qed over qed with zero clusters", ("qed-by-qemu", "qed-by-qemu.qed"),
                    lambda: Qed(4 * MIB, 16 * KIB, 4).data(1, 0x47).entry(3, ZERO))
    yield from over("overlay", "three layers, the lower two by qemu",
                    ("qed-overlay-by-qemu", "qed-overlay-by-qemu.qed"), lambda: Qed(
                        MIB).data(1, 0x48).data(40, 0x49, 2).entry(130, ZERO))
    yield from over("qcow2", "qed over qcow2, whose format is detected",
                    ("qcow2-v3-plain", "qcow2-v3-plain.qcow2"), lambda: Qed(
                        2 * MIB).data(20, 0x4a))
    yield from over("qcow2-as-raw", "a base that looks like qcow2 and is raw",
                    ("qcow2-v3-plain", "qcow2-v3-plain.qcow2"), lambda: Qed(
                        2 * MIB).data(20, 0x4b), BACKING | RAW)
    yield _disk("name-with-zero", "a backing file name that a zero ends early", lambda: Qed(
        MIB).data(3, 0x4c).backing(b"raw-base-1m.raw\0.qed"), companions=["raw-base-1m"])
    yield _disk("name-long", "a backing file name of 2015 bytes", lambda: Qed(
        MIB, header=2).data(3, 0x4d).backing(b"./" * 1000 + b"raw-base-1m.raw", at=4000),
        companions=["raw-base-1m"])
    yield _disk("name-empty", "a backing file of no name", lambda: Qed(
        MIB).data(3, 0x4e).backing(b""))
    yield _disk("name-ignored", "a name without the feature bit", lambda: Qed(
        MIB).data(3, 0x4f).backing(b"nowhere", features=RAW))


# ------------------------------------------------------------------- hostile

def _bad(name, exercises, make=None, **more):
    fields = more.pop("fields", {})
    if make is None:
        def make():
            return Qed(64 * KIB).data(1, 0x61).data(3, 0x62).set(**fields)
    return _disk("bad-" + name, exercises, make, kind="hostile", **more)


def hostile_headers():
    def raw(name, exercises, size, pieces, **more):
        return _image("bad-" + name, exercises, lambda path: write_file(path, size, pieces),
                      kind="hostile", **more)

    def numbered(field, what, values):
        for value in values:
            yield _bad("%s-%x" % (what.replace(" ", "-"), value), "a %s of %d" % (what, value),
                       fields={field: value})

    yield raw("empty-file", "no byte at all", 0, [], variants=[["-f", "qed"]])
    yield raw("only-magic", "the magic and nothing else", 4, [(0, b"QED\0")])
    yield _bad("cut-header", "the file ends in the header", lambda: Qed(64 * KIB).cut(60))
    yield _bad("magic", "a wrong magic", fields={"magic": 0x01444551}, variants=[["-f", "qed"]])
    for bits in (8, 0x8000000000000000, 2 ** 64 - 1):
        yield _bad("features-%x" % bits, "features that are not known", fields={"features": bits})
    yield from numbered("cluster_size", "cluster size", (0, 1, 2048, 4097, 12288, 1 << 27, 1 << 31))
    yield from numbered("table_size", "table size", (0, 3, 17, 32, 1 << 31))
    yield from numbered("header_size", "header size", (8, 1 << 19, 1 << 20, 2 ** 32 - 1))
    yield _bad("header-4g", "a header of 4 GiB", lambda: Qed(MIB, header=1 << 20).data(1, 0x63))
    yield from numbered("size", "size", (1, 511, 4 * GIB + 512, 1 << 63, 2 ** 64 - 512, 2 ** 64 - 1))
    yield from numbered("l1_offset", "l1 offset", (
        0, 1, 4097, 2048, 1 << 40, 1 << 63, 2 ** 64 - 4096, 2 ** 64 - 1))
    yield _bad("l1-past-end", "the second cluster of the L1 table is not there", lambda: Qed(
        64 * KIB).cut(2 * 4 * KIB))
    yield _bad("l1-cut", "the second cluster of the L1 table is not whole", lambda: Qed(
        64 * KIB).cut(3 * 4 * KIB - 512))
    yield _bad("table-1", "tables of one cluster: sound, but qemu opens no such image", lambda: Qed(
        10 * MIB, table=1).data(1, 0x63).data(600, 0x64, 2).entry(1500, ZERO))
    yield _bad("table-1-by-qemu", "the same by qemu, which does not open it", lambda: _ByQemu(
        "cluster_size=4096,table_size=1"))
    for cluster, table in ((64 * MIB, 2), (4 * MIB, 4), (2 * MIB, 16)):
        yield _bad("wraps-%d-%d" % (cluster // MIB, table), "sound, but the largest size wraps to 0 "
                   "in qemu", lambda c=cluster, t=table: Qed(c * 3, c, t).data(
                       1, 0x65, content=fill(512, 0x65)))


class _ByQemu:
    def __init__(self, options):
        self.options = options

    def write(self, path):
        qemu_img("create", "-q", "-f", "qed", "-o", self.options, path, "3M")


def hostile_names():
    def bad(name, exercises, offset, size, **fields):
        return _bad("name-" + name, exercises, fields={
            "features": BACKING, "name_offset": offset, "name_size": size, **fields})

    yield bad("past-header", "a backing file name that ends behind the header", FIELDS_END, 4033)
    yield bad("outside", "a backing file name outside the header", 1 << 30, 16)
    yield bad("sum-wraps", "a backing file name whose end wraps at 32 bits", 2 ** 32 - 4, 16)
    yield _bad("name-long", "a backing file name of 4096 bytes", lambda: Qed(
        MIB, header=3).backing(b"./" * 2048))
    yield _bad("backing-missing", "a backing file that is not there", lambda: Qed(
        64 * KIB).backing(b"nowhere.raw"))
    yield _bad("backing-self", "an image that is its own backing file", lambda: Qed(
        64 * KIB).backing(b"qed-bad-backing-self.qed"),
        skip_versions={"*": "opened until file descriptors run out"})


def hostile_tables():
    def l2(name, exercises, entry):
        return _bad("l2-" + name, exercises, lambda: Qed(
            12 * MIB).data(1, 0x66).table(1, entry).data(2049, 0x67))

    # The file has 4 tables and 2 clusters behind its header: 11 clusters.
    yield l2("is-1", "an L1 entry of 1, which has no meaning", 1)
    yield l2("unaligned", "an L2 table that is not on a cluster", 0x3200)
    yield l2("beyond-file", "an L2 table behind the end of the file", 1 << 20)
    yield l2("last-cluster", "an L2 table that starts in the last cluster", 0x8000)
    yield l2("2-63", "an L2 table at 2^63", 1 << 63)
    yield l2("all-ones", "an L2 table at 2^64 - 4096", 2 ** 64 - 4096)
    yield _bad("l2-in-header", "an L2 table in a header of three clusters", lambda: Qed(
        12 * MIB, header=3).data(1, 0x68).table(1, 0x1000))

    def cluster(name, exercises, *entries, length=None):
        def make():
            disk = Qed(64 * KIB).data(1, 0x69, 2)
            for index, entry in enumerate(entries, 4):
                disk.entry(index, entry)
            return disk.cut(length)
        return _bad("cluster-" + name, exercises, make)

    # The file has a header, 2 tables and 2 clusters: it ends at 0x7000.
    yield cluster("is-2", "an L2 entry of 2", 2)
    yield cluster("unaligned", "a cluster that is not aligned", 0x5200)
    yield cluster("in-header", "a cluster over the header", 512)
    yield cluster("is-table", "a cluster over the L1 table, which qemu takes", 0x1000)
    yield cluster("beyond-file", "a cluster that begins where the file ends", 0x7000)
    yield cluster("far", "a cluster at 2^40", 1 << 40)
    yield cluster("2-63", "a cluster at 2^63", 1 << 63)
    yield cluster("all-ones", "a cluster at 2^64 - 4096", 2 ** 64 - 4096)
    yield cluster("run-past-end", "a run that begins in the file and goes on behind its end",
                  0x6000, 0x7000, 0x8000, ZERO)
    yield cluster("run-past-end-broken", "the same, but the run is broken before the last cluster",
                  0x6000, 0x7000, 0, 0x8000)
    yield cluster("last-partial", "a cluster that begins in the last, partial cluster of the file",
                  0x6000, length=0x7000 - 512)
    yield cluster("run-into-partial", "a run that ends in the last, partial cluster", 0x5000, 0x6000,
                  length=0x7000 - 512)
    yield _bad("run-past-end-tables", "a run over the end of the file and of its table, where it is "
               "looked at again", lambda: Qed(8 * MIB).entry(1024, 0).data(1022, 0x6a).run(
                   1022, 0x7000, 4))


def images():
    yield from by_qemu()
    yield from by_hand()
    yield from backed()
    yield from hostile_headers()
    yield from hostile_names()
    yield from hostile_tables()
