"""Parallels images of both kinds, and what is wrong with each field."""

from .common import GIB, KIB, TIB, Image, fill, qemu_img, qemu_io, write_file
from .parallels_image import (DIRTY_BITMAP, EXTENDED, IN_USE, OLD, Disk, bitmap, clusters, extension,
                              feature)

SKIP = {"5.2": "this build has no driver for the format and takes it for raw"}
BY_NAME = [["-f", "parallels"]]


def _image(name, exercises, build, **more):
    more["skip_versions"] = {**SKIP, **more.get("skip_versions", {})}
    return Image(id="parallels-" + name, name="parallels-%s.hds" % name, format="parallels",
                 exercises=exercises, build=build, **more)


def _disk(name, exercises, *args, **fields):
    more = {key: fields.pop(key) for key in ("kind", "variants", "windows", "skip_versions")
            if key in fields}
    return _image(name, exercises, lambda path: Disk(*args, **fields).write(path), **more)


def _broken(name, exercises, **fields):
    """A disk of 32 sectors with two clusters in which something is wrong."""
    fields = {"sectors": 32, "stored": clusters((0, 1), (2, 2), tag=0x66), **fields}
    return _disk("hostile-" + name, exercises, kind="hostile", **fields)


# ---------------------------------------------------------------------- sound

def _by_qemu(*options):
    def build(path):
        qemu_img("create", "-f", "parallels", *options, path, "8M")
        qemu_io(path, "write -P 0x11 1M 64k", "write -P 0x12 5M 64k", "write -P 0x13 3M 512",
                options=("-f", "parallels"))
    return build


def extended_disks():
    yield _image("by-qemu", "a disk as qemu-img writes it", _by_qemu())
    yield _image("by-qemu-4k", "clusters of 4 KiB, as qemu-img writes them",
                 _by_qemu("-o", "cluster_size=4096"))
    yield _disk("extended", "first and last cluster empty, two in a row, one out of order", 48,
                clusters((1, 2), (2, 3), (4, 1), tag=0x21))
    yield _disk("odd-size", "a disk that ends in its last cluster", 45,
                clusters((0, 1), (5, 2), tag=0x25))
    yield _disk("empty", "no cluster at all", 20 * GIB // 512, track=2048)
    yield _disk("no-size", "a disk of no bytes", 0)
    yield _disk("large", "a table of more than one window", 600000 * 8,
                clusters((0, 587), (262143, 588), (262144, 589), (524287, 590), (524289, 591),
                         (599999, 592), tag=0x28, length=512))
    yield _disk("fragmented", "every other cluster, in reverse", 512,
                clusters(*((2 * i, 32 - i) for i in range(32)), tag=0x30, length=512))
    yield _disk("spare-entries", "a table larger than the disk", 12,
                clusters((0, 2), (1, 3), (7, 1), tag=0x50), entries=9)
    yield _disk("data-start-0", "where data starts is to be computed", 32,
                clusters((0, 1), (3, 2), tag=0x53), data_start=0)
    yield _disk("in-use", "the image was not closed", 32, clusters((1, 1), tag=0x55),
                in_use=IN_USE)
    yield _disk("last-sector", "the last cluster ends with the file, in a started sector", 16,
                clusters((1, 1), tag=0x56, length=4 * KIB - 100), length=8 * KIB - 100)
    yield _disk("extended-63", "63 sectors in a cluster, which is no power of two", 113 * 63,
                clusters((0, 1), (112, 2), tag=0x5b), track=63)
    yield _disk("holes", "holes of the file inside a cluster are data", 4 * 128,
                clusters((0, 1), (3, 2), tag=0x57), track=128)
    yield _disk("2-tib", "2^32 sectors, of which qemu-img maps a part only", 2 * TIB // 512,
                clusters((0, 1), (65535, 2), tag=0x59, length=512), track=65536,
                windows=[["-s", "0", "-l", "64M"], ["-s", "2199000000000"]])


def old_disks():
    yield _disk("old", "the old kind, entries are sectors", 48,
                clusters((1, 9), (2, 17), (4, 1), tag=0x61), magic=OLD)
    yield _disk("old-63", "the old kind, 63 sectors in a cluster", 500,
                clusters((0, 65), (1, 2), (2, 128), (3, 191), tag=0x64), magic=OLD, track=63,
                data_start=0)
    yield _disk("old-size", "only 32 bits of the size count in the old kind", 32 | 5 << 32,
                clusters((0, 1), (3, 9), tag=0x68), magic=OLD, entries=4)
    yield _disk("old-overlap", "clusters of the old kind that overlap", 32,
                clusters((0, 8), (1, 12), (2, 20), tag=0x6a, length=2 * KIB), magic=OLD)


def extensions():
    yield _disk("extension", "a format extension without a feature", 32,
                clusters((0, 1), (2, 2), tag=0x70), extension=extension())
    yield _disk("extension-bitmaps", "two dirty bitmaps", 32, clusters((0, 1), (2, 2), tag=0x72),
                extension=extension(feature(DIRTY_BITMAP, bitmap(32)),
                                    feature(DIRTY_BITMAP, bitmap(32, 1, (1,), ident=0x60))))
    yield _disk("extension-old", "a dirty bitmap of the old kind, its bits in a cluster", 32,
                clusters((0, 8), (2, 16), tag=0x74), magic=OLD,
                extension=extension(feature(DIRTY_BITMAP, bitmap(32, 2, (8,)))))


# -------------------------------------------------------------------- hostile

def hostile_headers():
    def raw(name, exercises, length, pieces):
        return _image("hostile-" + name, exercises, lambda path: write_file(path, length, pieces),
                      kind="hostile", variants=BY_NAME)

    yield raw("empty-file", "no byte at all", 0, [])
    yield raw("no-magic", "no magic", 4096, [(0, fill(4096, 0x76))])
    yield raw("only-magic", "the magic and nothing else", 16, [(0, EXTENDED)])
    yield _broken("version", "version 3, which is raw if nobody asks", version=3,
                  variants=BY_NAME + [[]])
    yield _broken("cluster-0", "clusters of no sector", claimed={"track": 0})
    yield _broken("cluster-large", "one sector more in a cluster than qemu allows",
                  claimed={"track": 4186128})
    yield _broken("table-large", "one entry more than qemu allows",
                  claimed={"entries": 0x20000000})
    yield _broken("table-largest", "the largest table, in a small file",
                  claimed={"entries": 0x1fffffff},
                  skip_versions={"11.1": "it reads 2 GiB of zeros, which takes long"})
    yield _broken("table-outside", "a table that runs past the end of the file",
                  claimed={"entries": 0x10000})
    yield _broken("table-cut", "the file ends with the header", length=64, sectors=8000)
    yield _broken("table-small", "one entry less than the disk needs", entries=3)
    yield _broken("table-none", "a table of no entries", stored={}, entries=0)
    yield _broken("sectors-all-ones", "2^64 - 1 sectors", sectors=2 ** 64 - 1, entries=4)
    yield _broken("sectors-2-54", "2^63 bytes", sectors=2 ** 54, entries=4)


def hostile_tables():
    yield _broken("entry-outside", "a cluster behind the end of the file",
                  stored={**clusters((0, 1), (2, 2), tag=0x78), 1: (3, None)})
    yield _broken("entry-all-ones", "the largest entry", stored={
        **clusters((0, 1), tag=0x79), 1: (0xffffffff, None), 2: (0xffffffff, None)})
    yield _broken("entry-old-all-ones", "the largest entries of the old kind", magic=OLD, stored={
        1: (0xfffffff7, None), 2: (0xffffffff, None), 3: (7, None)})
    yield _broken("entry-before-data", "a cluster in front of the data",
                  claimed={"data_start": 16})
    yield _broken("entry-in-table", "a cluster of the old kind over the header", magic=OLD,
                  stored={**clusters((0, 8), tag=0x7a), 1: (0, None), 2: (1, None)},
                  claimed={"data_start": 2})
    yield _broken("data-start-unaligned", "data starts in the middle of a cluster",
                  claimed={"data_start": 9})
    yield _broken("data-start-in-table", "data starts in front of the end of the table",
                  claimed={"data_start": 1})
    yield _broken("data-start-at-end", "data starts where the file ends",
                  claimed={"data_start": 24})
    yield _broken("data-start-outside", "data starts behind the end of the file",
                  claimed={"data_start": 25})
    yield _broken("truncated", "the file ends one sector before its last cluster",
                  length=12 * KIB - 512)
    yield _broken("truncated-early", "the file ends with its first cluster", length=8 * KIB)
    yield _broken("same-cluster", "three entries of the same cluster",
                  stored=clusters((0, 1), (1, 1), (3, 1), tag=0x7b, length=512))


def hostile_extensions():
    def broken(name, exercises, *features, **fields):
        at = {key: fields.pop(key) for key in ("magic", "checksum") if key in fields}
        return _broken("extension-" + name, exercises, extension=extension(*features, **at),
                       **fields)

    def broken_bitmap(name, exercises, data):
        return broken("bitmap-" + name, exercises, feature(DIRTY_BITMAP, data))

    for name, sector in (("2-54", 2 ** 54 - 1), ("2-63", 2 ** 63), ("outside", 1000)):
        yield _broken("extension-" + name, "a format extension far away: " + name,
                      claimed={"extension": sector})
    yield broken("cut", "the file ends in the extension's cluster, behind its features",
                 length=12 * KIB + 512)
    yield broken("magic", "a wrong magic", magic=1)
    yield broken("checksum", "a wrong checksum", checksum=bytes(16))
    yield broken("flags", "a feature with flags", feature(DIRTY_BITMAP, bitmap(32), flags=1))
    yield broken("end-flags", "the end of the list has flags", feature(0, flags=1))
    yield broken("size", "a feature larger than the cluster",
                 feature(DIRTY_BITMAP, bitmap(32), size=5000))
    yield broken("unknown", "an unknown feature", feature(0x1234))
    yield broken("unknown-second", "an unknown feature behind a bitmap",
                 feature(DIRTY_BITMAP, bitmap(32)), feature(0x1234))
    yield broken_bitmap("empty", "a bitmap without data", b"")
    yield broken_bitmap("sectors", "a bitmap of another size than the disk", bitmap(1))
    yield broken_bitmap("granularity", "a granularity of 3 sectors", bitmap(32, 3))
    yield broken_bitmap("granularity-0", "a granularity of nothing", bitmap(32, 0))
    yield broken_bitmap("table-cut", "a table that its data has no room for",
                        bitmap(32, entries=9))
    yield broken_bitmap("table-large", "a table with an entry too many", bitmap(32, table=(0, 0)))
    yield broken_bitmap("table-none", "a table without its entry", bitmap(32, table=()))
    yield broken("bitmap-twice", "two bitmaps with the same id",
                 *2 * [feature(DIRTY_BITMAP, bitmap(32))])


def images():
    yield from extended_disks()
    yield from old_disks()
    yield from extensions()
    yield from hostile_headers()
    yield from hostile_tables()
    yield from hostile_extensions()
