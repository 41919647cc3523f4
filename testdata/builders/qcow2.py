"""Sound qcow2 images, written byte by byte.

Those made by qemu-img are in `qcow2_tools`, the broken ones in `qcow2_hostile`.
"""

from functools import partial

from . import qcow2_hostile, qcow2_tools
from .common import KIB, MIB, TIB, Image, be64, fill
from .qcow2_image import COMPRESSED, COPIED, CORRUPT, DIRTY, ZERO, Qcow2


def by_tool(name, exercises, build, **more):
    """An Image that `build(path)` writes, by means of qemu-img."""
    return Image(id="qcow2-" + name, name="qcow2-%s.qcow2" % name, format="qcow2",
                 exercises=exercises, build=build, **more)


def image(name, exercises, make, **more):
    """An Image that is written byte by byte; `make()` returns the Qcow2."""
    return by_tool(name, exercises, lambda path: make().write(path), **more)


def mix():
    q = Qcow2(1 * MIB)
    q.data(0, 1)
    q.zero(1)
    q.zero_at(2, 2)
    q.compressed(4, 3, clusters=2)
    q.data(6, 4, clusters=2)     # one run of two clusters
    q.data(9, 5)
    q.data(8, 6)                 # neighbours in the guest, swapped in the file
    q.zero_at(10, 7, clusters=2)
    q.zero(12, clusters=2)
    q.compressed(15, 8)
    return q


def small():
    q = Qcow2(64 * KIB, bits=12)
    q.data(2, 1, clusters=2)
    return q


def clusters_512():
    q = Qcow2(1 * MIB, bits=9)
    q.data(0, 1, clusters=3)
    q.zero(5, clusters=2)
    q.compressed(9, 2)
    q.data(62, 3, clusters=4)      # a run across the border of two L2 tables
    q.zero(64 * 5 + 63, clusters=2)
    q.data(64 * 20 + 7, 4)
    q.data(2047, 5)                # the last cluster
    return q


def clusters_4k():
    q = Qcow2(4 * MIB + 4 * KIB, bits=12)
    q.data(1, 1, clusters=5)
    q.zero_at(6, 2)
    q.data(510, 3, clusters=4)     # across the L2 border
    q.data(1024, 4)                # alone in the third table
    return q


def clusters_2m():
    q = Qcow2(64 * MIB, bits=21, solid=False)
    for guest, tag in ((0, 1), (1, 2), (7, 3), (31, 4)):
        q.data(guest, tag, content=fill(8 * KIB, tag))
    q.zero(3)
    q.compressed(9, 5)
    # Nearly all of the file is holes. Without refcounts it still does not look preallocated.
    q.refcounts = {}
    return q


def zstd():
    """Frames of one run-length block: no compressor needed, the same bytes everywhere."""
    def frame(tag, length):
        # Single segment, content size in 4 bytes; last block, type RLE, one byte.
        block = 1 | 1 << 1 | length << 3
        return b"\x28\xb5\x2f\xfd\xa0" + length.to_bytes(4, "little") \
            + block.to_bytes(3, "little") + bytes([tag])
    q = Qcow2(1 * MIB).set(incompatible=8, compression_type=1)
    q.data(0, 1)
    q.compressed(1, 2, packed=frame(2, 64 * KIB), clusters=3)
    q.compressed(8, 3, packed=frame(3, 64 * KIB))
    q.data(9, 4)
    return q


def subclusters(alloc=0, zero=0):
    """An extended L2 bitmap from two masks over the 32 subclusters."""
    return alloc | zero << 32


EVERY = 0xffffffff


def extended_states():
    q = Qcow2(4 * MIB, extended=True)
    q.data(0, 1, bitmap=subclusters(EVERY))                       # all data
    q.data(1, 2, bitmap=subclusters(zero=EVERY))                  # all zero, with space
    q.data(2, 3, bitmap=subclusters(0x55555555, 0))               # data and unallocated by turns
    q.data(3, 4, bitmap=subclusters(0x0000ffff, 0xffff0000))      # half data, half zero
    q.data(4, 5, bitmap=subclusters(0x000000ff, 0x0000ff00))      # data, zero, unallocated
    q.entry(5, 0, subclusters(zero=EVERY))                        # zero without space
    q.entry(6, 0, subclusters(zero=0x0f0f0f0f))                   # zero and unallocated, no space
    q.entry(7, 0, 0)                                              # nothing
    q.data(8, 6, bitmap=0)                                        # space, but nothing in use
    q.data(9, 7, bitmap=subclusters(0x80000001))                  # only first and last
    q.compressed(10, 8, bitmap=subclusters(0x1234, 0x1234))       # bitmap has no meaning
    q.data(11, 9, clusters=3, bitmap=subclusters(EVERY))          # contiguous, full
    q.data(14, 10, clusters=2, bitmap=subclusters(0xfffffff0))    # run cut by each cluster's head
    host = q.data(16, 11, clusters=2, bitmap=0)
    q.entry(16, host | COPIED, subclusters(0xffff0000))           # second half ...
    q.entry(17, host + q.cluster | COPIED, subclusters(0x0000ffff))  # ... and the next first half
    q.entry(18, ZERO, 0)                                          # bit 0 has no meaning here
    q.data(19, 12, bitmap=subclusters(EVERY), flags=COPIED | ZERO)
    q.data(63, 13, bitmap=subclusters(0x3, 0xc))
    return q


def extended_16k():
    q = Qcow2(1 * MIB, bits=14, extended=True)    # subclusters of 512 bytes, the smallest
    q.data(0, 1, bitmap=subclusters(0x0000000f, 0xf0000000))
    q.data(3, 2, clusters=2, bitmap=subclusters(EVERY))
    q.entry(7, 0, subclusters(zero=0x00ffff00))
    q.data(63, 3, bitmap=subclusters(0x80000000))
    return q


def extended_backing():
    q = Qcow2(1 * MIB, extended=True).backed_by("raw-base-1m.raw", "raw")
    q.data(1, 1, bitmap=subclusters(0x000000ff, 0x0000ff00))   # the rest shows the base
    q.entry(8, 0, subclusters(zero=0xf))
    q.data(9, 2, bitmap=0)
    q.data(15, 3, bitmap=subclusters(EVERY))
    return q


def snapshots():
    q = Qcow2(1 * MIB)
    q.data(0, 1)
    shared = q.data(1, 2)
    q.data(4, 3)
    old = q.data(15, 4)
    # The snapshot sees the shared cluster and one that the active layer has since zeroed.
    q.entry(15, ZERO)
    l2 = q.alloc()
    table = bytearray(q.cluster)
    table[8:16] = be64(shared)
    table[15 * 8:16 * 8] = be64(old)
    q.put(l2, bytes(table))
    l1 = q.alloc()
    q.put(l1, be64(l2) + bytes(q.cluster - 8))
    q.entry(1, shared)    # shared, so not "copied"
    q.refcounts.update({shared // q.cluster: 3, old // q.cluster: 2, l2 // q.cluster: 2,
                        l1 // q.cluster: 2})
    return q.snapshot_table([("1", "before", l1, 1), ("2", "naïve", l1, 1)])


def data_file(raw=False, extended=False):
    q = Qcow2(1 * MIB, extended=extended).data_file("raw-qcow2-data.raw", raw=raw)
    full = EVERY if extended else 0
    if raw:
        for guest in range(16):
            q.entry(guest, guest * q.cluster | COPIED, full)
        q.entry(8, (1 if not extended else 0), full << 32)
        return q
    q.entry(0, COPIED, full)                       # offset 0, in use because of bit 63
    q.entry(1, ZERO, full << 32)                   # zero, no space
    q.entry(2, 2 * q.cluster | COPIED, subclusters(0xff, 0xff00))
    q.entry(3, 3 * q.cluster | COPIED | ZERO, full << 32)
    q.entry(8, 8 * q.cluster | COPIED, full)
    q.entry(9, 9 * q.cluster, full)                # the copied bit matters only at offset 0
    return q


def data_file_zero_first():
    q = Qcow2(1 * MIB).data_file("raw-qcow2-data.raw")
    q.entry(0, ZERO)
    q.entry(8, 8 * q.cluster | COPIED)
    return q


def data_file_unused_first():
    q = Qcow2(1 * MIB).data_file("raw-qcow2-data.raw")
    q.entry(0, 0)
    q.entry(9, 9 * q.cluster | COPIED)
    return q


def data_file_sparse():
    """N far above T: the recursion goes into the data file, decided by the qcow2 file."""
    q = Qcow2(1 * MIB, solid=False).data_file("raw-qcow2-data.raw")
    for guest in range(16):
        q.entry(guest, guest * q.cluster | COPIED)
    q.alloc(12)
    return q


def overlay(base, base_format, size=1 * MIB, version=3):
    q = Qcow2(size, version=version).backed_by(base, base_format)
    q.data(2, 1)
    q.data(7, 2)
    if version == 3:
        q.zero(8)
        q.zero_at(4, 3)
    return q


def chain_middle():
    q = Qcow2(2 * MIB).backed_by("raw-base-short.raw", "raw")
    q.data(1, 1)
    q.zero(3)
    q.data(20, 2)
    q.compressed(22, 3)
    return q


def chain_top():
    q = Qcow2(3 * MIB).backed_by("qcow2-chain-middle.qcow2", "qcow2")
    q.data(0, 4)
    q.data(21, 5)
    q.data(40, 6)
    return q


def threshold(extra):
    """4 KiB clusters; `extra` more clusters with a refcount than are stored.

    Header, refcount table, refcount block, L1, L2 and one data cluster are stored in one
    piece: A = 24576, R = 6, T = max(6, 8) = 8 and N = 6 + extra."""
    q = Qcow2(256 * KIB, bits=12)
    q.entry(0, 0)
    q.data(0, 1)
    q.data(1, 2, clusters=extra, content=b"")
    return q


def threshold_large(counted):
    """As above with R = 40, where T = R * 10 / 9 = 44 is the larger of the two."""
    q = Qcow2(1 * MIB, bits=12)
    q.entry(0, 0)
    q.data(0, 1, clusters=35)
    q.data(40, 2, clusters=10, content=b"")
    for cluster in range(counted, q.next_cluster):
        q.refcounts[cluster] = 0
    return q


def host_holes(counted=True):
    q = Qcow2(1 * MIB, solid=False)
    # 64 KiB clusters, of which the file has: a head, a tail, a middle, nothing, everything.
    for guest, at, length in ((0, 0, 4), (1, 60, 4), (2, 16, 20), (3, 0, 0), (4, 0, 64)):
        host = q.data(guest, 0, content=b"")
        if length:
            q.put(host + at * KIB, fill(length * KIB, guest + 1))
    q.data(6, 0, clusters=6, content=b"")
    q.zero_at(13, 7)
    if not counted:
        q.refcounts = {}
    return q


def past_end(counted):
    """Clusters mapped behind the end of the file, and one cut by it."""
    q = Qcow2(1 * MIB, solid=False)
    host = q.data(0, 1, clusters=4)
    q.data(8, 2, clusters=2, content=b"")
    q.cut = host + 136 * KIB - 488   # unaligned, inside the third cluster
    if counted:
        q.put(host, fill(4 * KIB, 1)).put(host + 132 * KIB, fill(4 * KIB, 3))
    else:
        q.refcounts = {}
    return q


def refcount_width(order):
    """N = T exactly, so that one count read wrongly changes the map; counts differ in size."""
    q = threshold(2)
    q.refcount_order = order
    q.set(refcount_order=order)
    largest = (1 << (1 << order)) - 1
    for i, cluster in enumerate(sorted(q.refcounts)):
        q.refcounts[cluster] = [1, largest, max(1, largest // 2 + 1)][i % 3]
    return q


def refcount_many_blocks():
    q = Qcow2(1 * MIB, bits=9)     # one refcount block covers 256 clusters, 128 KiB
    q.data(0, 1, clusters=300)     # so that the count goes beyond the first block
    q.data(400, 2, clusters=600, content=b"")
    return q


def odd_size(size):
    q = Qcow2(size)
    q.data(0, 1)
    q.data(size // q.cluster, 2)   # reaches beyond the end of the disk
    return q


def size_zero(l1_entries):
    return Qcow2(0, l1_entries=l1_entries)


def l1_extra():
    """Entries behind the last one in use, absent ones, and reserved bits everywhere."""
    q = Qcow2(256 * KIB, bits=9, l1_entries=20)   # 8 would do
    q.data(1, 1)
    q.data(64 * 3, 2)
    q.data(64 * 15, 3)                            # behind the virtual size
    q.l1_flags = {0: 0x7f00000000000000 | 0x1ff, 3: 0}
    return q


def l2_reserved_bits():
    q = Qcow2(1 * MIB)
    noise = 0x3f00000000000000 | 0x1fe
    q.data(0, 1, flags=noise)                     # not "copied" either
    q.data(1, 2, flags=COPIED | noise)
    q.entry(2, noise)                             # unallocated
    q.entry(3, noise | ZERO)
    q.zero_at(4, 3)
    q.data(5, 4, flags=noise | ZERO)
    q.entry(7, COPIED)                            # "copied", but nowhere
    return q


def behind_the_disk():
    """Broken entries for clusters that the disk does not have."""
    q = Qcow2(160 * KIB)
    q.data(0, 1)
    q.data(2, 2)
    q.entry(3, 0x123400 | COPIED)
    q.entry(4, COMPRESSED | 0x3fffffffffffffff)
    return q


def feature_bits():
    return mix().set(compatible=0xfffffffffffffffe, autoclear=0x8000000000000000 | 0x10)


def extensions():
    names = b"".join(bytes([kind, bit]) + name.ljust(46, b"\0") for kind, bit, name in (
        (0, 0, b"dirty bit"), (0, 1, b"corrupt bit"), (1, 0, b"lazy refcounts"), (2, 0, b"bitmaps")))
    q = mix()
    q.extension(0x6803f857, names)
    q.extension(0x12345678, b"odd length, so padded")
    q.extension(0x9abcdef0, b"")
    q.extension(0x44415441, b"no-such-file.raw")   # without the feature bit: ignored
    return q


def long_header():
    """A header longer than what is known today; v3 minimum is 104, qemu writes 112."""
    q = mix()
    return q.set(header_length=248).extension(0xe2792aca, b"raw")


def short_header():
    q = mix().set(header_length=104)
    q.header.pop("compression_type", None)
    return q


def v2_noise():
    """Version 2 ends at byte 72; what would be version 3 fields is a header extension."""
    q = Qcow2(1 * MIB, version=2)
    q.extension(0x0000ffff, b"\xff" * 40)
    q.data(3, 1)
    q.compressed(5, 2)
    return q


def shared_l2():
    q = Qcow2(256 * KIB, bits=9)
    q.data(1, 1)
    q.data(4, 2, clusters=2)
    for index in (1, 2, 5):
        q.l2_offsets[index] = q.l2_offsets[0]
        q.l1_flags[index] = 0
    return q


def huge(size, bits=16):
    """The L1 table is a hole of the file."""
    q = Qcow2(size, bits=bits, solid=False)
    q.refcounts = {}
    return q


def huge_used():
    """64 TiB with data at both ends; one L1 entry per 512 MiB makes a table of 1 MiB."""
    q = Qcow2(64 * TIB, solid=False)
    q.data(0, 1)
    q.data(64 * TIB // q.cluster - 1, 2)
    q.refcounts = {}
    return q


def images():
    yield image("mix", "data, zero, zero with space, nothing, compressed, contiguous and swapped "
                "clusters", mix)
    yield image("as-raw", "opened as raw with an explicit format, and probed", small,
                variants=[["-f", "raw"], []])
    yield image("unallocated", "no cluster in use", lambda: Qcow2(1 * MIB))
    yield image("clusters-512", "smallest clusters: many L2 tables, runs across their borders",
                clusters_512)
    yield image("clusters-4k", "4 KiB clusters, three L2 tables", clusters_4k)
    yield image("clusters-2m", "largest clusters, host holes that do not show (no refcounts, so "
                "the preallocation heuristic is off)", clusters_2m)
    yield image("zstd", "zstd clusters", zstd, skip_versions={"5.2": "that build has no zstd"})

    yield image("ext-l2-states", "extended L2: every state of a subcluster, and their neighbours",
                extended_states)
    yield image("ext-l2-16k", "extended L2 with the smallest subclusters, 512 bytes", extended_16k)
    yield image("ext-l2-backing", "extended L2 over a backing file: unallocated subclusters of "
                "allocated clusters show it", extended_backing, companions=["raw-base-1m"])

    yield image("snapshots", "two internal snapshots that share clusters with the disk", snapshots)

    data = {"companions": ["raw-qcow2-data"]}
    yield image("data-file", "external data file; offset 0 in use, zero clusters",
                data_file, **data)
    yield image("data-file-raw", "external data file marked raw: all clusters mapped",
                lambda: data_file(raw=True), **data)
    yield image("data-file-ext-l2", "external data file and extended L2; offset 0 in use",
                lambda: data_file(extended=True), **data)
    yield image("data-file-zero-first", "external data file; zero cluster without space at 0",
                data_file_zero_first, **data)
    yield image("data-file-unused-first", "external data file; offset 0 without bit 63 is "
                "unallocated", data_file_unused_first, **data)
    yield image("data-file-sparse", "external data file and a qcow2 file that looks preallocated "
                "(clear margin): holes of the data file show", data_file_sparse, **data)

    yield image("backing-raw", "raw backing file, format stored",
                lambda: overlay("raw-base-1m.raw", "raw"), companions=["raw-base-1m"])
    yield image("backing-probed", "raw backing file, no format stored",
                lambda: overlay("raw-base-1m.raw", None), companions=["raw-base-1m"])
    yield image("backing-v2", "version 2 over a raw backing file",
                lambda: overlay("raw-base-1m.raw", "raw", version=2), companions=["raw-base-1m"])
    yield image("backing-short", "backing file that ends, unaligned, before the overlay",
                lambda: overlay("raw-base-short.raw", "raw"), companions=["raw-base-short"])
    yield image("backing-long", "backing file that is longer than the overlay",
                lambda: overlay("raw-base-long.raw", "raw"), companions=["raw-base-long"])
    yield image("backing-qcow2", "qcow2 over a qcow2 with zero and compressed clusters",
                lambda: overlay("qcow2-mix.qcow2", "qcow2"), companions=["qcow2-mix"])
    yield image("backing-ext-l2", "qcow2 over extended L2",
                lambda: overlay("qcow2-ext-l2-states.qcow2", "qcow2", size=4 * MIB),
                companions=["qcow2-ext-l2-states"])
    yield image("chain-middle", "middle of a chain of three, longer than its base", chain_middle,
                companions=["raw-base-short"])
    yield image("chain-top", "top of a chain of three, each longer than the one below", chain_top,
                companions=["qcow2-chain-middle"])

    yield image("prealloc-below", "preallocation heuristic one cluster below its threshold: off "
                "(exact)", lambda: threshold(1), needs_blocks=48)
    yield image("prealloc-at", "preallocation heuristic exactly at its threshold: on (exact)",
                lambda: threshold(2), needs_blocks=48)
    yield image("prealloc-large-below", "as prealloc-below where ten ninths count (exact)",
                lambda: threshold_large(43), needs_blocks=320)
    yield image("prealloc-large-at", "as prealloc-at where ten ninths count (exact)",
                lambda: threshold_large(44), needs_blocks=320)
    yield image("prealloc-holes", "heuristic on (clear margin), holes at every place in a cluster",
                host_holes)
    yield image("prealloc-holes-off", "the same file without refcounts: heuristic off, plain data",
                lambda: host_holes(counted=False))
    yield image("past-end", "clusters mapped behind the end of the file, heuristic off: data",
                lambda: past_end(False))
    yield image("past-end-prealloc", "clusters mapped behind the end of the file, heuristic on "
                "(clear margin): zero from the last hole on", lambda: past_end(True))

    for order in range(7):
        yield image("refcount-%d-bit" % (1 << order), "refcounts of %d bit; heuristic on by the "
                    "last one (exact)" % (1 << order), partial(refcount_width, order),
                    windows=[], needs_blocks=48)
    yield image("refcount-blocks", "four refcount blocks, heuristic on by what the second one says "
                "(clear margin)", refcount_many_blocks)

    yield image("size-odd", "size not a multiple of 512: rounded down",
                lambda: odd_size(1 * MIB + 1000))
    yield image("size-part-cluster", "size not a multiple of the cluster",
                lambda: odd_size(1 * MIB - 3 * 512))
    yield image("size-0", "size 0, one L1 entry", lambda: size_zero(1))
    yield image("size-0-no-l1", "size 0, no L1 table at all", lambda: size_zero(0))
    yield image("size-1", "size 1, rounded down to nothing", lambda: Qcow2(1))
    yield image("size-64t", "64 TiB, nothing in use, the L1 table a hole of the file",
                lambda: huge(64 * TIB))
    yield image("size-64t-used", "64 TiB with data at both ends", huge_used)
    yield image("size-1p-2m", "1 PiB with 2 MiB clusters, nothing in use",
                lambda: huge(1024 * TIB, bits=21))
    yield image("l1-extra", "L1 table longer than needed, absent entries, reserved bits", l1_extra)
    yield image("l2-reserved-bits", "all reserved bits of L2 entries set", l2_reserved_bits)
    yield image("l2-shared", "one L2 table for several L1 entries", shared_l2)
    yield image("l2-behind-disk", "broken entries for clusters behind the virtual size",
                behind_the_disk)
    yield image("dirty-corrupt", "dirty and corrupt bits, without effect when reading",
                lambda: mix().set(incompatible=DIRTY | CORRUPT))
    yield image("feature-bits", "unknown compatible and autoclear features", feature_bits)
    yield image("extensions", "feature names, unknown extensions, unused data file name",
                extensions)
    yield image("header-104", "the shortest version 3 header", short_header)
    yield image("header-248", "a header with fields nobody knows", long_header)
    yield image("v2-extension", "version 2 with an extension where version 3 has fields", v2_noise)

    yield from qcow2_tools.images(by_tool)
    yield from qcow2_hostile.images(image)
