"""Broken qcow2 images: one per check that qemu makes, in the order of its checks.

`qcow2.py` yields them; all are tiny (512-byte clusters wherever the check allows it).
"""

from .common import KIB, MIB, be16, be32, be64, fill, write_file
from .qcow2_image import (COMPRESSED, COPIED, DATA_FILE, EXTENDED_L2, ZERO, Qcow2)

CRYPTO, BITMAPS, FEATURE_NAMES = 0x0537be77, 0x23852875, 0x6803f857


def tiny(size=16 * KIB, version=3, **fields):
    """A sound image of 512-byte clusters: two of data, the rest absent."""
    q = Qcow2(size, bits=9, version=version)
    q.data(0, 1, clusters=2)
    return q.set(**fields)


def tiny_extended(entries):
    """16 KiB clusters, the smallest that extended L2 allows; {guest: bitmap}, all with space."""
    q = Qcow2(512 * KIB, bits=14, extended=True, solid=False)
    for guest, bitmap in entries.items():
        q.data(guest, guest + 1, bitmap=bitmap, content=fill(4 * KIB, guest + 1))
    q.refcounts = {}   # or the file, mostly holes, would look preallocated
    return q


def feature_names(*names):
    """A feature name table of (type, bit, name)."""
    return b"".join(bytes([kind, bit]) + name.encode().ljust(46, b"\0")
                    for kind, bit, name in names)


def raw_file(size, pieces):
    """Something with the write(path) of a Qcow2, for files that are hardly one."""
    class Bytes:
        @staticmethod
        def write(path):
            write_file(path, size, pieces)
    return Bytes


def truncated(length, **fields):
    q = tiny(**fields)
    q.cut = length
    return q


# Bitmaps

def bitmaps(count=1, reserved=0, length=None, directory=None, directory_size=None,
            directory_offset=None, size=16 * KIB, extra_bytes=b""):
    q = tiny(size, autoclear=1)
    host = q.alloc(4)
    content = bitmap_entry(q) if directory is None else directory(q)
    q.put(host, content + bytes(-len(content) % q.cluster))
    data = (be32(count) + be32(reserved)
            + be64(len(content) if directory_size is None else directory_size)
            + be64(host if directory_offset is None else directory_offset)) + extra_bytes
    return q.extension(BITMAPS, data if length is None else data[:length])


def bitmap_entry(q, name=b"abc", table=None, entries=1, flags=0, kind=1, granularity=16,
                 name_size=None, extra=0, table_entry=0):
    if table is None:
        table = q.alloc()
        q.put(table, be64(table_entry) + bytes(q.cluster - 8))
    out = (be64(table) + be32(entries) + be32(flags) + bytes([kind, granularity])
           + be16(len(name) if name_size is None else name_size) + be32(extra) + bytes(extra) + name)
    return out + bytes(-len(out) % 8)


def entry_with(**fields):
    return lambda q: bitmap_entry(q, **fields)


def two_entries(q):
    return bitmap_entry(q) + bitmap_entry(q, name=b"def")


BITMAP_CASES = [
    ("ext-short", "bitmaps extension of 16 bytes", dict(length=16)),
    ("ext-long", "bitmaps extension of 32 bytes", dict(extra_bytes=bytes(8))),
    ("reserved", "reserved field of the bitmaps extension", dict(reserved=7)),
    ("count-65536", "one bitmap more than the limit", dict(count=65536)),
    ("count-0", "bitmaps extension without bitmaps", dict(count=0)),
    ("dir-unaligned", "bitmap directory not on a cluster", dict(directory_offset=0x201)),
    ("dir-huge", "bitmap directory of 1 GiB", dict(directory_size=1 << 30)),
    ("dir-empty", "bitmap directory of size 0", dict(directory_size=0)),
    ("dir-more", "more directory entries than the extension says", dict(directory=two_entries)),
    ("dir-fewer", "fewer directory entries than the extension says", dict(count=2)),
    ("dir-broken", "directory entry reaches over the end of the directory",
     dict(directory=entry_with(name_size=500))),
    ("dir-beyond-file", "directory behind the end of the file", dict(directory_offset=1 << 40)),
    ("extra-data", "extra data in a directory entry", dict(directory=entry_with(extra=8))),
    ("table-empty", "bitmap table without entries", dict(directory=entry_with(entries=0))),
    ("table-offset-0", "bitmap table at 0", dict(directory=entry_with(table=0))),
    ("table-unaligned", "bitmap table not on a cluster", dict(directory=entry_with(table=0x1001))),
    ("table-huge", "bitmap table of 2^28 entries", dict(directory=entry_with(entries=1 << 28))),
    ("table-large", "bitmap table whose bitmap would have more than 512 MiB",
     dict(directory=entry_with(entries=(1 << 20) + 1))),
    ("table-small", "bitmap too small for the disk",
     dict(directory=entry_with(granularity=9), size=3 * MIB)),
    ("name-1024", "bitmap name of 1024 bytes", dict(directory=entry_with(name=b"x" * 1024))),
    ("granularity-8", "granularity below the smallest", dict(directory=entry_with(granularity=8))),
    ("granularity-32", "granularity above the largest", dict(directory=entry_with(granularity=32))),
    ("flags", "unknown bitmap flag", dict(directory=entry_with(flags=4))),
    ("type", "unknown bitmap type", dict(directory=entry_with(kind=2))),
    ("table-reserved", "reserved bits in a bitmap table entry",
     dict(directory=entry_with(table_entry=0x1fe))),
]


# Snapshots

def snapshot_extra(count):
    q = tiny()
    entry = q.snapshot_entry("1", "x", q.l1, 1, extra=bytes(count))
    host = q.alloc(-(-len(entry) // q.cluster))
    q.put(host, entry)
    return q.set(snapshots=1, snapshot_offset=host)


# Walking

def with_entries(*entries, size=16 * KIB, version=3, after=True):
    """Two data clusters, then these L2 entries from cluster 2 on, then data again."""
    q = tiny(size, version=version)
    for i, entry in enumerate(entries):
        q.entry(2 + i, entry)
    if after:
        q.data(2 + len(entries) + 2, 2)
    return q


def big_l1(entry, **fields):
    """4 KiB clusters, where an L1 entry can be unaligned; the second entry is the bad one."""
    q = Qcow2(4 * MIB, bits=12)
    q.data(0, 1)
    q.data(3, 2)
    q.l2_offsets[1] = entry
    q.l1_flags[1] = 0
    return q.set(**fields)


def data_file_with(entries):
    q = Qcow2(1 * MIB).data_file("raw-qcow2-data.raw")
    for guest, entry in entries.items():
        q.entry(guest, entry)
    return q


def unaligned(flags=COPIED):
    """Data, then a cluster whose host offset is not on a 4 KiB cluster."""
    q = Qcow2(256 * KIB, bits=12)
    q.data(0, 1, clusters=2)
    host = q.data(3, 2)
    q.entry(3, host + 512 | flags)
    q.data(4, 3)
    return q


def extended_unaligned():
    q = tiny_extended({0: 0xffffffff, 2: 0})
    host = q.alloc()
    return q.entry(2, host + 512 | COPIED, 0)


def refblock_unaligned():
    q = Qcow2(64 * KIB, bits=12)
    q.data(0, 1)
    q.data(1, 2, clusters=8, content=b"")
    q.put(q.reftable, be64(q.refblocks[0] + 512) + bytes(q.cluster - 8))
    return q


def l2_offset_0():
    q = tiny()
    q.l2_offsets = {0: 0}
    q.l2 = {}
    return q


def l2_is_l1():
    q = tiny()
    q.l2_offsets = {0: q.l1}
    q.l2 = {}
    return q


def backing(name, backing_format=None):
    return lambda: tiny().backed_by(name, backing_format)


def images(image):
    for name, exercises, make, more in _all():
        yield image("bad-" + name, exercises, make, kind="hostile", **more)


def _all():
    yield from _header_cases()
    yield from _extension_cases()
    yield from _reference_cases()
    yield from _walk_cases()


def case(name, exercises, make, **more):
    return name, exercises, make, more


def fields(name, exercises, **values):
    """A tiny image with some header fields replaced."""
    return name, exercises, lambda: tiny().set(**values), {}


def _header_cases():
    # Only an explicit format gets these as far as the driver.
    explicit = {"variants": [["-f", "qcow2"], []]}
    yield case("magic", "wrong magic, opened as qcow2 and probed (raw)",
               lambda: tiny().set(magic=0x514649fa), **explicit)
    yield case("empty-file", "file of zero bytes, opened as qcow2 and probed (raw)",
               lambda: raw_file(0, []), **explicit)
    yield case("version-1", "version 1, which is another format's", lambda: tiny().set(version=1),
               variants=[["-f", "qcow2"]])
    yield case("version-4", "version 4", lambda: tiny().set(version=4))
    yield case("magic-only", "four bytes: magic and nothing else, so version 0 and raw",
               lambda: raw_file(4, [(0, b"QFI\xfb")]))
    yield case("version-only", "eight bytes: magic and version",
               lambda: raw_file(8, [(0, b"QFI\xfb" + be32(3))]))
    yield case("header-cut-100", "file ends inside the header", lambda: truncated(100))
    yield fields("cluster-bits-8", "clusters of 256 bytes", cluster_bits=8)
    yield fields("cluster-bits-22", "clusters of 4 MiB", cluster_bits=22)
    yield fields("cluster-bits-max", "2^32 - 1 cluster bits", cluster_bits=0xffffffff)
    yield fields("header-length-96", "version 3 header that is too short", header_length=96)
    yield fields("header-length-cluster", "header longer than a cluster", header_length=520)
    yield fields("header-length-max", "header of 4 GiB", header_length=0xffffffff)
    yield fields("backing-offset", "backing file name behind the first cluster",
                 backing_offset=513, backing_size=4)
    yield fields("compression-type-2", "unknown compression type", compression_type=2,
                 incompatible=8)
    yield fields("compression-type-unneeded", "feature bit set for the default compression",
                 incompatible=8)
    yield fields("compression-type-unflagged", "zstd without its feature bit", compression_type=1)
    yield fields("feature-unknown", "unknown incompatible feature", incompatible=0x20)
    yield fields("feature-top", "highest incompatible feature bit", incompatible=1 << 63)
    yield case("feature-named", "unknown incompatible features, one of them in the name table",
               lambda: tiny(incompatible=0x60).extension(FEATURE_NAMES, feature_names(
                   (0, 0, "dirty bit"), (1, 6, "other kind"), (0, 5, "my feature"))))
    yield case("subcluster-256", "extended L2 with subclusters below 512 bytes",
               lambda: Qcow2(64 * KIB, bits=13).set(incompatible=EXTENDED_L2))
    yield fields("refcount-order-7", "refcounts of 128 bits", refcount_order=7)
    yield fields("refcount-order-max", "refcounts of 2^(2^32 - 1) bits", refcount_order=0xffffffff)
    yield fields("reftable-none", "no refcount table", reftable_clusters=0)
    yield fields("reftable-large", "refcount table above 8 MiB", reftable_clusters=16385)
    yield fields("reftable-max", "refcount table of 2^32 - 1 clusters",
                 reftable_clusters=0xffffffff)
    yield fields("reftable-unaligned", "refcount table not on a cluster", reftable_offset=0x201)
    yield fields("reftable-overflow", "refcount table at the end of 64 bits",
                 reftable_offset=0xfffffffffffffe00)
    yield fields("snapshots-65537", "one snapshot more than the limit", snapshots=65537,
                 snapshot_offset=512)
    yield fields("snapshots-unaligned", "snapshot table not on a cluster, no snapshots",
                 snapshot_offset=0x201)
    yield fields("snapshots-beyond-file", "three snapshots behind the end of the file",
                 snapshots=3, snapshot_offset=1 << 30)
    yield fields("l1-large", "L1 table above 32 MiB", l1_entries=4194305)
    yield fields("l1-max", "2^32 - 1 L1 entries", l1_entries=0xffffffff)
    yield fields("l1-unaligned", "L1 table not on a cluster", l1_offset=0x601)
    yield fields("l1-overflow", "L1 table at the end of 63 bits", l1_offset=0x7ffffffffffffe00,
                 l1_entries=128)
    yield fields("l1-negative", "L1 table above 63 bits", l1_offset=1 << 63)
    yield fields("l1-beyond-file", "L1 table behind the end of the file: maps as empty",
                 l1_offset=1 << 40)
    yield fields("l1-far", "L1 table beyond what a file can hold", l1_offset=0x7fffffff00000000)
    yield fields("l1-none", "no L1 entries for a disk that needs one", l1_entries=0)
    yield fields("l1-short", "one L1 entry for a disk that needs two", size=32 * KIB + 512)
    for name, size in (("2-60", 1 << 60), ("2-63", 1 << 63), ("max", (1 << 64) - 1),
                       ("2-63-less-512", (1 << 63) - 512)):
        yield fields("size-" + name, "virtual size of %d bytes" % size, size=size)
    yield case("size-max-2m", "virtual size of 2^64 - 1 bytes with 2 MiB clusters",
               lambda: Qcow2(2 * MIB, bits=21, solid=False).set(size=(1 << 64) - 1))
    yield fields("crypt-3", "unknown encryption method", crypt=3)
    yield fields("crypt-aes-no-secret", "AES without a secret", crypt=1)
    yield fields("crypt-luks-no-header", "LUKS without the extension that locates its header",
                 crypt=2)
    yield case("snapshot-extra", "more than 1024 bytes of extra data in a snapshot entry",
               lambda: snapshot_extra(1032))
    yield case("snapshot-extra-max", "1024 bytes of extra data in a snapshot entry: just allowed",
               lambda: snapshot_extra(1024))


def _extension_cases():
    yield case("ext-too-large", "header extension longer than the cluster",
               lambda: _extension_length(0x1000))
    yield case("ext-length-max", "header extension of 2^32 - 1 bytes",
               lambda: _extension_length(0xffffffff))
    yield case("ext-over-backing", "header extension that reaches into the backing file name",
               _extension_over_backing)
    yield case("ext-backing-format-16", "backing format name of 16 bytes",
               lambda: tiny().extension(0xe2792aca, b"x" * 16))
    yield case("ext-crypto-plain", "LUKS extension in an image without encryption",
               lambda: tiny().extension(CRYPTO, be64(0) + be64(0)))
    yield case("ext-crypto-size", "LUKS extension of 8 bytes",
               lambda: tiny(crypt=2).extension(CRYPTO, be64(0)))
    yield case("ext-crypto-unaligned", "LUKS header not on a cluster",
               lambda: tiny(crypt=2).extension(CRYPTO, be64(0x201) + be64(512)))
    yield case("ext-crypto-huge", "LUKS header of 2^63 bytes",
               lambda: tiny(crypt=2).extension(CRYPTO, be64(512) + be64(1 << 63)))
    yield case("data-file-unnamed", "external data file without a name",
               lambda: tiny(incompatible=DATA_FILE))
    yield case("data-file-empty-name", "external data file with an empty name",
               lambda: tiny().data_file(""))
    yield case("data-file-missing", "external data file that does not exist",
               lambda: tiny().data_file("no-such-file.raw"))
    yield case("data-file-raw-unflagged", "data-file-raw without a data file",
               lambda: tiny(autoclear=2))
    yield case("data-file-self", "the image as its own data file",
               lambda: tiny().data_file("qcow2-bad-data-file-self.qcow2"))
    yield case("data-file-json", "data file name that is an option string",
               lambda: tiny().data_file('json:{"driver":"null-co","size":65536}'))
    for name, exercises, values in BITMAP_CASES:
        yield case("bitmap-" + name, exercises, lambda values=values: bitmaps(**values))


def _extension_length(length):
    q = tiny()
    q.extension(0x12345678, bytes(8))
    header = bytearray(q._header())
    header[116:120] = be32(length)
    q.put(0, bytes(header) + bytes(q.cluster - len(header)))
    return q


def _extension_over_backing():
    q = tiny().backed_by("raw-base-1m.raw")
    q.extension(0x12345678, bytes(8))
    header = bytearray(q._header())
    header[116:120] = be32(24)
    q.put(0, bytes(header) + bytes(q.cluster - len(header)))
    return q


def _reference_cases():
    yield case("backing-long-name", "backing file name that reaches over the cluster",
               lambda: tiny(backing_offset=400, backing_size=113))
    yield case("backing-name-1024", "backing file name of 1024 bytes",
               lambda: Qcow2(64 * KIB, bits=12).backed_by("x" * 1024))
    yield case("backing-missing", "backing file that does not exist",
               backing("no-such-file.raw", "raw"))
    yield case("backing-unknown-format", "backing file of an unknown format",
               backing("raw-base-1m.raw", "bogus"), companions=["raw-base-1m"])
    yield case("backing-wrong-format", "raw backing file that is called qcow2",
               backing("raw-base-1m.raw", "qcow2"), companions=["raw-base-1m"])
    yield case("backing-broken", "backing file with a bad header",
               backing("qcow2-bad-version-4.qcow2", "qcow2"), companions=["qcow2-bad-version-4"])
    yield case("backing-self", "an image that is its own backing file",
               backing("qcow2-bad-backing-self.qcow2", "qcow2"),
               skip_versions={"*": "opened until file descriptors run out"})
    for one, other in (("a", "b"), ("b", "a")):
        yield case("backing-loop-" + one, "two images that are each other's backing file",
                   backing("qcow2-bad-backing-loop-%s.qcow2" % other, "qcow2"),
                   companions=["qcow2-bad-backing-loop-" + other],
                   skip_versions={"*": "opened until file descriptors run out"})
    yield case("backing-device", "backing file that is a device", backing("/dev/zero", "raw"))
    yield case("backing-parent-folder", "backing file in the parent folder, missing",
               backing("../no-such-file.raw", "raw"))
    yield case("backing-json", "backing file name that is an option string: qemu obeys it",
               backing('json:{"driver":"null-co","size":16384}'))
    yield case("backing-protocol", "backing file name with an unknown protocol",
               backing("nosuch:name"))
    yield case("backing-control-characters", "backing file name with a line feed and an escape",
               backing("no\nsuch\x1b[31mfile", "raw"))


def _walk_cases():
    # Windows that stop in front of the broken entry, and one that starts behind it.
    small = [["-l", "1024"], ["-l", "1025"], ["-s", "2048"]]
    wide = [["-l", "12288"], ["-l", "12289"], ["-s", "16384"]]
    yield case("l2-unaligned", "L2 table not on a cluster",
               lambda: big_l1(0x40200), windows=[["-l", "2097152"], ["-l", "2097153"]])
    yield case("l2-beyond-file", "L2 table behind the end of the file: reads as empty",
               lambda: big_l1(1 << 40))
    yield case("l2-far", "L2 table at the highest offset an entry can hold",
               lambda: big_l1(0x00fffffffffff000))
    yield case("l2-offset-0", "L1 entry with the copied bit but offset 0: empty, not the header",
               l2_offset_0)
    yield case("l2-is-l1", "L1 table that is its own L2 table", l2_is_l1)
    yield case("cluster-unaligned", "data cluster not on a cluster", unaligned, windows=wide)
    yield case("zero-unaligned", "zero cluster with space not on a cluster",
               lambda: unaligned(COPIED | ZERO), windows=wide)
    yield case("ext-l2-unaligned", "unallocated subclusters in an unaligned cluster",
               extended_unaligned)
    yield case("l2-is-refcounts", "an L2 table of refcounts: zero clusters with space far past the "
               "end of the file", lambda: with_entries(*[0x0001000100010001] * 20))
    yield case("zero-in-v2", "zero cluster in a version 2 image",
               lambda: with_entries(ZERO, version=2), windows=small)
    yield case("zero-in-v2-later", "zero cluster in a version 2 image behind a hole, which is "
               "lost", lambda: with_entries(0, ZERO, version=2), windows=[["-l", "1536"]])
    yield case("compressed-data-file", "compressed cluster with an external data file",
               lambda: data_file_with({0: COPIED, 1: COMPRESSED | 0x50000}),
               companions=["raw-qcow2-data"], windows=[["-l", "65536"]])
    yield case("data-file-mismatch", "host offset differs from the guest's with a data file",
               lambda: data_file_with({0: COPIED, 1: 0x20000 | COPIED}),
               companions=["raw-qcow2-data"], windows=[["-l", "65536"]])
    yield case("ext-l2-both", "subcluster both allocated and zero, with space",
               lambda: tiny_extended({0: 0xffffffff, 2: 1 | 1 << 32}),
               windows=[["-l", "16384"], ["-l", "32768"], ["-l", "32769"]])
    yield case("ext-l2-no-space", "subcluster allocated in a cluster without space",
               lambda: tiny_extended({0: 0xffffffff}).entry(3, 0, 2),
               windows=[["-l", "49152"], ["-l", "49153"], ["-s", "65536"]])
    yield case("ext-l2-look-ahead", "an invalid entry fails the run in front of it",
               lambda: tiny_extended({0: 0xffffffff}).entry(4, 0, 1),
               windows=[["-l", "65536"], ["-l", "65537"], ["-l", "16384"]])
    yield case("ext-l2-shielded", "a partly used cluster in front of an invalid entry",
               lambda: tiny_extended({0: 0xffffffff, 1: 0x0000ffff}).entry(2, 0, 1),
               windows=[["-l", "24576"], ["-l", "32768"], ["-l", "32769"]])
    yield case("refblock-unaligned", "refcount block not on a cluster: complaint, then a map",
               refblock_unaligned)
    yield case("cut-before-l1", "file that ends before its L1 table: maps as empty",
               lambda: truncated(1536))
    yield case("cut-in-l2", "file that ends inside its L2 table",
               lambda: truncated(2048 + 8))
    yield case("cut-before-data", "file that ends before its data: maps as usual",
               lambda: truncated(2560))
    yield case("data-on-metadata", "data clusters that are the header and the tables",
               lambda: with_entries(0x200 | COPIED, 0x400, 0x600, COPIED | 0x800))
    yield case("cluster-far", "data at the highest offset an entry can hold",
               lambda: with_entries(0x00fffffffffffe00 | COPIED), windows=small)
    yield case("compressed-far", "compressed cluster behind the end of the file",
               lambda: with_entries(COMPRESSED | 0x3fffffffffffffff), windows=small)
