"""VDI images: dynamic and static, and what is wrong with each field."""

from .common import GIB, KIB, MIB, Image, fill, le32, le64, patch, qemu_img, qemu_io, write_file
from .vdi_image import DIFFERENCING, DISCARDED, STATIC, UNDO, UUID, Disk
from .vhd_image import FIXED, footer


def _image(name, exercises, build, **more):
    return Image(id="vdi-" + name, name="vdi-%s.vdi" % name, format="vdi", exercises=exercises,
                 build=build, **more)


def _disk(name, exercises, *args, **fields):
    more = {key: fields.pop(key) for key in ("kind_of_image", "variants") if key in fields}
    if "kind_of_image" in more:
        more["kind"] = more.pop("kind_of_image")
    return _image(name, exercises, lambda path: Disk(*args, **fields).write(path), **more)


def _broken(name, exercises, **fields):
    """A small disk with one block in which something is wrong."""
    fields = {"size": 4 * MIB, "stored": {1: (0, [(0, fill(4 * KIB, 0x66))])}, **fields}
    return _disk("hostile-" + name, exercises, kind_of_image="hostile", **fields)


# ---------------------------------------------------------------------- sound

def _by_qemu(static):
    def build(path):
        qemu_img("create", "-f", "vdi", "-o", "static=" + ("on" if static else "off"), path, "6M")
        qemu_io(path, "write -P 0x11 1M 64k", "write -P 0x12 3M 64k", "write -P 0x13 5M 512",
                options=("-f", "vdi"))
        patch(path, 0x188, UUID + UUID)      # they are new every time
    return build


def _footer_in_guest(path):
    _by_qemu(False)(path)
    with open(path, "rb") as source:
        end = source.seek(0, 2)
    patch(path, end - 512, footer(64 * KIB, FIXED))


def dynamic_disks():
    yield _image("dynamic-footer-in-guest", "the guest's last stored sector is the footer of a "
                 "fixed VHD disk", _footer_in_guest, kind="hostile")
    yield _image("dynamic-by-qemu", "a dynamic disk as qemu-img writes it", _by_qemu(False))
    yield _disk("dynamic", "first and last block free, holes inside a stored block", 5 * MIB,
                {1: (0, [(0, fill(4 * KIB, 0x21)), (512 * KIB, fill(4 * KIB, 0x22))]),
                 2: (1, [(0, fill(512, 0x23))])})
    yield _disk("dynamic-virtualbox", "map and blocks on borders of 1 MiB", 4 * MIB,
                {0: (0, [(0, fill(4 * KIB, 0x24))]), 3: (1, [(4 * KIB, fill(4 * KIB, 0x25))])},
                map_offset=MIB, data_offset=2 * MIB)
    yield _disk("dynamic-order", "blocks stored in reverse, the last one cut by the disk's end",
                2 * MIB + 512,
                {2: (0, [(0, fill(4 * KIB, 0x26))]), 1: (1, [(0, fill(4 * KIB, 0x27))]),
                 0: (2, [(0, fill(4 * KIB, 0x28))])})
    yield _disk("dynamic-discarded", "discarded and free blocks next to each other", 6 * MIB,
                {0: (0, [(0, fill(4 * KIB, 0x29))]), 5: (1, [(0, fill(4 * KIB, 0x2a))])},
                discarded=(1, 3, 4))
    yield _disk("dynamic-odd-size", "a size that is rounded up to a sector", 2 * MIB + 700,
                {0: (0, [(0, fill(4 * KIB, 0x2b))]), 2: (1, [(0, fill(4 * KIB, 0x2c))])})
    yield _disk("dynamic-empty", "no block at all", 20 * GIB)
    yield _disk("dynamic-no-size", "a disk of no bytes", 0)
    yield _disk("dynamic-large", "a map of more than one window", 600000 * MIB, {
        block: (entry, [(0, fill(512, 0x30 + entry))])
        for entry, block in enumerate((0, 262143, 262144, 524287, 524289, 599999))})
    yield _disk("dynamic-fragmented", "every other block", 64 * MIB,
                {2 * i: (31 - i, [(0, fill(512, 0x40 + i))]) for i in range(32)})
    yield _disk("dynamic-spare-entries", "a map larger than the disk", MIB + 512,
                {0: (1, [(0, fill(4 * KIB, 0x60))]), 1: (2, [(0, fill(4 * KIB, 0x61))]),
                 7: (0, [(0, fill(4 * KIB, 0x62))])}, entries=9)
    yield _disk("dynamic-last-sector", "the last block ends with the file, in a started sector",
                2 * MIB, {1: (0, [(0, fill(MIB - 512, 0x63))])}, length=4096 + MIB - 100)


def static_disks():
    yield _image("static-by-qemu", "a static disk as qemu-img writes it", _by_qemu(True))
    yield _disk("static", "holes at the start, in the middle and at the end of the file", 4 * MIB,
                {0: (0, [(8 * KIB, fill(4 * KIB, 0x71))]), 1: (1, []),
                 2: (2, [(0, fill(8 * KIB, 0x72)), (MIB - 4 * KIB, fill(4 * KIB, 0x73))]),
                 3: (3, [(0, fill(12 * KIB, 0x74))])}, kind=STATIC)
    yield _disk("static-full", "a static disk without a hole", 2 * MIB,
                {0: (0, [(0, fill(MIB, 0x75))]), 1: (1, [(0, fill(MIB, 0x76))])}, kind=STATIC)
    yield _disk("static-order", "static, but blocks are out of order, free and discarded", 5 * MIB,
                {0: (2, [(0, fill(4 * KIB, 0x77))]), 2: (0, [(64 * KIB, fill(4 * KIB, 0x78))]),
                 3: (1, [])}, kind=STATIC, discarded=(1,))


def other_blocks():
    """What VirtualBox reads and qemu does not."""
    yield _disk("blocks-64k", "blocks of 64 KiB", 512 * KIB,
                {1: (0, [(0, fill(4 * KIB, 0x81))]), 2: (1, [(0, fill(64 * KIB, 0x82))]),
                 7: (2, [(0, fill(4 * KIB, 0x83))])}, block_size=64 * KIB)
    yield _disk("blocks-4m", "blocks of 4 MiB", 10 * MIB,
                {0: (1, [(0, fill(4 * KIB, 0x84))]), 2: (0, [(MIB, fill(4 * KIB, 0x85))])},
                block_size=4 * MIB)
    yield _disk("blocks-static", "a static disk with blocks of 64 KiB", 256 * KIB,
                {i: (i, [(4 * KIB * i, fill(4 * KIB, 0x86 + i))]) for i in range(4)},
                kind=STATIC, block_size=64 * KIB)
    yield _disk("blocks-extra", "a sector of extra data in front of each block", 3 * MIB,
                {0: (0, [(0, fill(4 * KIB, 0x8a))]), 1: (1, [(0, fill(4 * KIB, 0x8b))])},
                extra=512)


# -------------------------------------------------------------------- hostile

def hostile_headers():
    def raw(name, exercises, length, pieces, **more):
        return _image("hostile-" + name, exercises,
                      lambda path: write_file(path, length, pieces), kind="hostile", **more)

    by_name = [["-f", "vdi"]]
    yield raw("empty-file", "no byte at all", 0, [], variants=by_name)
    yield raw("no-signature", "no signature", 4096, [(0, fill(4096, 0x67))], variants=by_name)
    yield raw("only-signature", "the signature and nothing else", 0x44,
              [(0x40, le32(0xbeda107f))])
    yield _broken("signature", "a wrong signature", signature=1, variants=by_name)
    yield _broken("version", "version 1.2", version=0x00010002)
    yield _broken("version-0", "version 0.1, which has another header", version=1)
    yield _broken("map-unaligned", "a map that is not on a sector", claimed={"map_offset": 0x201})
    yield _broken("data-unaligned", "blocks that are not on sectors",
                  claimed={"data_offset": 0x401})
    yield _broken("sector-size", "sectors of 4096 bytes", sector_size=4096)
    for size in (0, 256, 3 * MIB):
        yield _broken("block-size-%d" % size, "a block size of %d bytes" % size,
                      claimed={"block_size": size})
    yield _broken("extra", "extra data of 513 bytes", extra=513)
    yield _broken("map-small", "a disk of one byte more than the map has room for",
                  claimed={"size": 4 * MIB + 1})
    yield _broken("too-large", "a disk larger than any map", claimed={"size": 0x1fffff8000001})
    yield _broken("size-all-ones", "a disk of 2^64 - 1 bytes", claimed={"size": 2 ** 64 - 1})
    yield _broken("too-many-blocks", "one entry more than qemu allows",
                  claimed={"entries": 0x1fffff81})
    yield _broken("link", "a differencing image", kind=DIFFERENCING, link=UUID)
    yield _broken("parent", "a base image with a parent's UUID", parent=UUID)
    for number in (0, UNDO, DIFFERENCING, 0xffffffff):
        yield _broken("type-%x" % number, "type %#x, which is read as dynamic" % number,
                      kind=number)


def hostile_maps():
    yield _broken("map-past-end", "a map that runs past the end of the file",
                  claimed={"entries": 0x1000000})
    yield _broken("map-outside", "a map outside the file", claimed={"map_offset": 0xfffffe00})
    yield _broken("truncated-map", "the file ends with the header", length=512)
    yield _broken("block-outside", "a block that begins behind the end of the file",
                  stored={2: (100, None)})
    yield _broken("block-all-but-marks", "the largest block number",
                  stored={1: (DISCARDED - 2, None), 2: (DISCARDED - 1, None)},
                  discarded=(3,))
    yield _broken("truncated", "the file ends one sector before its last block",
                  length=4096 + MIB - 512)
    yield _broken("truncated-static", "the file of a static disk ends in its second block",
                  stored={i: (i, []) for i in range(4)}, kind=STATIC, length=4096 + MIB + 8192)
    yield _broken("same-block", "two entries of the same block",
                  stored={0: (1, [(0, fill(4 * KIB, 0x68))]), 1: (1, []), 3: (0, [])})
    yield _broken("data-over-header", "blocks that begin with the file",
                  claimed={"data_offset": 0})


def _polyglot(path):
    """A qcow2 header whose (unused) snapshot table offset is the signature."""
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10", path, "1M")
    with open(path, "rb") as source:
        end = -(-source.seek(0, 2) // 4096) * 4096
    for at, value in ((0x40, 0xbeda107f), (0x44, 0x00010001), (0x154, end), (0x158, end + 4096),
                      (0x168, 512), (0x178, MIB), (0x180, 1)):
        patch(path, at, le32(value))
    patch(path, 0x170, le64(MIB))
    with open(path, "r+b") as out:
        out.seek(end)
        out.write(le32(0xffffffff).ljust(4096, b"\0"))


def images():
    yield from dynamic_disks()
    yield from static_disks()
    yield from other_blocks()
    yield from hostile_headers()
    yield from hostile_maps()
    yield _image("hostile-polyglot", "a qcow2 image with the signature of a VDI", _polyglot,
                 kind="hostile")
