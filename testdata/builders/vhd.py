"""VHD images: dynamic, fixed and differencing, and what is wrong with each field."""

from .common import GIB, KIB, MIB, Image, fill, patch, qemu_img, qemu_io, read_at, write_file
from .luks_image import Volume2, segment
from .vhd_image import (DIFFERENCING, DYNAMIC, FIXED, PARENT_UUID, SECTOR, TABLE, Block, Disk, footer,
                        sealed)

# qemu does not recognise a fixed disk: by name it is one, by probing it is raw.
BY_NAME_AND_PROBED = [["-f", "vpc"], []]
BY_NAME = [["-f", "vpc"]]

BLOCK = 2 * MIB
STRIDE = (BLOCK + SECTOR) // SECTOR      # sectors of a block and its bitmap


def _image(name, exercises, build, **more):
    return Image(id="vhd-" + name, name="vhd-%s.vhd" % name, format="vhd", exercises=exercises,
                 build=build, **more)


def _disk(name, exercises, *args, **fields):
    more = {key: fields.pop(key) for key in ("kind_of_image", "variants", "companions")
            if key in fields}
    if "kind_of_image" in more:
        more["kind"] = more.pop("kind_of_image")
    return _image(name, exercises, lambda path: Disk(*args, **fields).write(path), **more)


def _fixed(name, exercises, length, pieces, foot, **more):
    """A file of `length` bytes of disk and a footer."""
    more.setdefault("variants", BY_NAME_AND_PROBED)
    return _image(name, exercises, lambda path: write_file(
        path, length + len(foot), [*pieces, (length, foot)]), **more)


def _broken(name, exercises, **fields):
    """A small dynamic disk with one block in which something is wrong."""
    fields = {"size": 4 * 64 * KIB, "block_size": 64 * KIB,
              "blocks": {1: Block(8, [(0, fill(4 * KIB, 0x66))])}, **fields}
    return _disk(name, exercises, kind_of_image="hostile", **fields)


# --------------------------------------------------------------------- fixed

def fixed_disks():
    pieces = [(0, fill(4 * KIB, 1)), (64 * KIB, fill(8 * KIB, 2)), (252 * KIB, fill(4 * KIB, 3))]
    size = 256 * KIB
    yield _fixed("fixed", "fixed disk with holes, the footer in a file system block of its own",
                 size, pieces, footer(size, FIXED))
    yield _fixed("fixed-shared-block", "the footer shares a file system block with a hole",
                 128 * KIB + 512, [(64 * KIB, fill(4 * KIB, 4))], footer(128 * KIB + 512, FIXED))
    yield _fixed("fixed-511", "footer of 511 bytes, as written before Virtual PC 2004",
                 size, pieces, footer(size, FIXED)[:511])
    # 2 x 4 x 17 sectors are 69632 bytes.
    small = (2, 4, 17)
    yield _fixed("fixed-geometry", "creator 'vpc ': the geometry counts, not the current size",
                 size, pieces, footer(size, FIXED, b"vpc ", small))
    yield _fixed("fixed-virtualbox", "creator 'vbox': geometry before 10.0, current size after",
                 size, pieces, footer(size, FIXED, b"vbox", small))
    yield _fixed("fixed-azure", "creator 'wa': geometry before 10.0, current size after",
                 size, pieces, footer(size, FIXED, b"wa\0\0", small))
    yield _fixed("fixed-disk2vhd", "creator 'd2v ': always the current size",
                 size, pieces, footer(size, FIXED, b"d2v ", small))
    yield _fixed("fixed-xen", "creator 'tap': always the current size",
                 size, pieces, footer(size, FIXED, b"tap\0", small))
    yield _fixed("fixed-largest-geometry", "the largest geometry: the current size counts",
                 size, pieces, footer(size, FIXED, b"qemu", (65535, 16, 255)))
    yield _fixed("fixed-odd-size", "a current size that is rounded down to a sector",
                 size, pieces, footer(size - 1, FIXED), variants=BY_NAME)
    yield _fixed("fixed-smaller", "the disk ends before the footer begins",
                 size, pieces, footer(70 * KIB, FIXED), variants=BY_NAME)
    yield _fixed("fixed-larger", "the disk runs over the footer and the end of the file",
                 size, pieces, footer(2 * size, FIXED), variants=BY_NAME)
    yield _fixed("fixed-luks", "a disk that is encrypted as a whole, as version 2 of LUKS has it",
                 size, [(0, Volume2([segment(128 * KIB)], size).header(0)[0][1]), *pieces[1:]],
                 footer(size, FIXED))
    large = 0xff000000 * 512 + MIB
    yield _fixed("large-fixed", "more than 2040 GiB, as Azure has them", large,
                 [(0, fill(4 * KIB, 6)), (large - 64 * KIB, fill(4 * KIB, 7))],
                 footer(large, FIXED, b"wa\0\0", (65535, 16, 255)))
    yield _disk("fixed-with-header", "a fixed disk's type in front of a whole dynamic disk",
                4 * 64 * KIB, 64 * KIB, {2: Block(16, [(0, fill(4 * KIB, 5))])}, kind=FIXED)


# ------------------------------------------------------------------- dynamic

def _by_qemu(path):
    qemu_img("create", "-f", "vpc", "-o", "subformat=dynamic", path, "16M")
    qemu_io(path, "write -P 0x11 2M 64k", "write -P 0x12 9M 64k", "write -P 0x13 15M 512",
            options=("-f", "vpc"))
    # The time and the id are new every time; both footers hold them.
    foot = bytearray(read_at(path, 0, 512))
    foot[24:28], foot[68:84] = bytes(4), bytes(16)
    foot = sealed(foot, 64)
    with open(path, "rb") as source:
        end = source.seek(0, 2)
    patch(path, 0, foot)
    patch(path, end - 512, foot)


def dynamic_disks():
    yield _image("dynamic-by-qemu", "a dynamic disk as qemu-img writes it", _by_qemu)
    yield _disk("dynamic", "first and last block unused, holes inside a stored block", 10 * MIB,
                blocks={1: Block(4, [(0, fill(4 * KIB, 0x21)), (MIB, fill(4 * KIB, 0x22))]),
                        2: Block(4 + STRIDE, [(0, fill(512, 0x23))])})
    yield _disk("dynamic-order", "blocks stored in reverse, the last one cut by the disk's end",
                5 * MIB + 512,
                blocks={2: Block(4, [(0, fill(4 * KIB, 0x24))]),
                        1: Block(4 + STRIDE, [(0, fill(4 * KIB, 0x25))]),
                        0: Block(4 + 2 * STRIDE, [(0, fill(4 * KIB, 0x26))])})
    yield _disk("dynamic-empty", "no block at all", 20 * GIB)
    yield _disk("dynamic-no-size", "a disk of no bytes", 0, entries=1)
    yield _disk("dynamic-largest", "2040 GiB, a few blocks, a table of more than one window",
                0xff000000 * 512, blocks={
                    0: Block(8256, [(0, fill(512, 0x27))]),
                    262143: Block(8256 + STRIDE, [(0, fill(512, 0x28))]),
                    262144: Block(8256 + 2 * STRIDE, [(0, fill(512, 0x29))]),
                    1044479: Block(8256 + 3 * STRIDE, [(0, fill(512, 0x2a))])})
    # A sector that is not in the bitmap is zero in the block as well.
    yield _disk("dynamic-bitmap", "bitmaps that are not all ones, which are not asked", 6 * MIB,
                blocks={0: Block(4, [(0, fill(4 * KIB, 0x2b))], bitmap=b"\xff" + bytes(511)),
                        1: Block(4 + STRIDE, [], bitmap=bytes(512))})
    yield _disk("dynamic-4m-blocks", "a bitmap of two sectors", 16 * MIB, 4 * MIB,
                {1: Block(4, [(0, fill(4 * KIB, 0x2c))]),
                 2: Block(4 + 8194, [(0, fill(4 * KIB, 0x2d))])})
    yield _disk("dynamic-16m-blocks", "a bitmap of eight sectors", 40 * MIB, 16 * MIB,
                {0: Block(4, [(0, fill(4 * KIB, 0x2e))]), 2: Block(4 + 32776, [])})
    yield _disk("dynamic-4k-blocks", "the smallest blocks with a bitmap", 32 * KIB, 4 * KIB,
                {0: Block(16, [(0, fill(4 * KIB, 0x2f))]),
                 1: Block(25, [(0, fill(4 * KIB, 0x30))]),
                 7: Block(34, [(0, fill(4 * KIB, 0x31))])})
    yield _disk("dynamic-2k-blocks", "blocks too small for a bitmap: neighbours merge",
                32 * KIB, 2 * KIB,
                {1: Block(16, [(0, fill(2 * KIB, 0x32))]),
                 2: Block(20, [(0, fill(2 * KIB, 0x33))]),
                 3: Block(12, [(0, fill(2 * KIB, 0x34))])})
    yield _disk("dynamic-512-blocks", "blocks of one sector", 4 * KIB, 512,
                {i: Block(16 + i - (i > 4), [(0, fill(512, 0x35))]) for i in (0, 1, 2, 4, 5, 6)})
    yield _disk("dynamic-table-unaligned", "a table at an odd offset, behind the blocks",
                512 * KIB, 64 * KIB,
                {1: Block(8, [(0, fill(4 * KIB, 0x36))]), 7: Block(140, [])},
                table_offset=140 * 512 + 512 + 64 * KIB + 7)
    yield _disk("dynamic-entry-zero", "a block in sector 0, over the headers", 256 * KIB, 64 * KIB,
                {1: Block(0, bitmap=b"")})
    yield _disk("dynamic-spare-entries", "a table larger than the disk", 64 * KIB, 64 * KIB,
                {0: Block(8, [(0, fill(4 * KIB, 0x37))]), 200: Block(140, [])}, entries=300)
    yield _disk("dynamic-no-last-footer", "the footer at the end is missing", 256 * KIB, 64 * KIB,
                {3: Block(8, [(0, fill(4 * KIB, 0x38))])}, trailing_footer=False)
    yield _disk("dynamic-geometry", "creator 'qemu': the geometry counts, not the current size",
                4 * MIB, 64 * KIB, {0: Block(8, [(0, fill(4 * KIB, 0x39))])},
                creator=b"qemu", geometry=(2, 4, 17))
    yield _disk("dynamic-virtualbox", "creator 'vbox': geometry before 10.0, current size after",
                4 * MIB, 64 * KIB, {0: Block(8, [(0, fill(4 * KIB, 0x3a))])},
                creator=b"vbox", geometry=(2, 4, 17))
    yield _disk("dynamic-last-sector", "the last block ends with the file, in a started sector",
                64 * KIB, 64 * KIB, {0: Block(8, [(0, fill(64 * KIB - 512, 0x3b))])},
                trailing_footer=False, length=8 * 512 + 512 + 64 * KIB - 100)


# -------------------------------------------------------------- differencing

def _names(parent):
    return {"parent_name": parent, "locators": [
        (b"W2ku", ("D:\\disks\\" + parent).encode("utf-16-le")),
        (b"W2ru", (".\\" + parent).encode("utf-16-le"))]}


def differencing_disks():
    base = "differencing-base"
    yield _disk(base, "the parent of a differencing disk", 512 * KIB, 64 * KIB,
                {i: Block(8 + 129 * i, [(0, fill(64 * KIB, 0x40 + i))]) for i in (0, 1, 3, 6)},
                uuid=PARENT_UUID)
    bits = b"\xf0\x01" + bytes(6) + b"\x80\x00\x0f\xff" + bytes(3) + b"\x01"
    yield _disk("differencing", "sectors of a block from the file and from the parent",
                512 * KIB, 64 * KIB,
                {1: Block(16, [(0, fill(64 * KIB, 0x50))], bitmap=bits.ljust(512, b"\0")),
                 2: Block(16 + 129, [(0, fill(64 * KIB, 0x51))]),
                 3: Block(16 + 258, [], bitmap=bytes(512)),
                 7: Block(16 + 387, [(0, fill(4 * KIB, 0x52))],
                          bitmap=(b"\xff" + bytes(511)))},
                kind=DIFFERENCING, companions=["vhd-" + base], **_names("vhd-%s.vhd" % base))
    yield _disk("differencing-2m-blocks", "blocks of the usual size, bits far apart",
                6 * MIB + 512,
                blocks={1: Block(16, [(0, fill(512, 0x53)), (BLOCK - 512, fill(512, 0x54))],
                                 bitmap=b"\x80" + bytes(510) + b"\x01"),
                        3: Block(16 + STRIDE, [(0, fill(512, 0x55))])},
                kind=DIFFERENCING, companions=["vhd-" + base], **_names("vhd-%s.vhd" % base))
    yield _disk("differencing-missing-parent", "a parent that is not there, named by a file URL",
                512 * KIB, 64 * KIB, {0: Block(16, [(0, fill(64 * KIB, 0x56))])},
                kind=DIFFERENCING, locators=[(b"MacX", b"file:///nowhere/base%20disk.vhd")])


# ------------------------------------------------------------------- hostile

def _polyglot(path):
    qemu_img("create", "-f", "qcow2", path, "1M")
    with open(path, "rb") as source:
        end = source.seek(0, 2)
    end = -(-end // 4096) * 4096
    with open(path, "r+b") as out:
        out.seek(end)
        out.write(footer(end, FIXED))


def hostile_footers():
    def raw(name, exercises, length, pieces, **more):
        return _image(name, exercises, lambda path: write_file(path, length, pieces),
                      kind="hostile", **more)

    yield raw("hostile-empty", "no byte at all", 0, [], variants=BY_NAME)
    yield raw("hostile-no-footer", "no cookie anywhere", 4096, [(0, fill(4096, 0x60))],
              variants=BY_NAME)
    yield raw("hostile-only-cookie", "the cookie and nothing else", 8, [(0, b"conectix")])
    yield raw("hostile-short-footer", "the file ends in its leading footer", 200,
              [(0, footer(64 * KIB)[:200])])
    yield raw("hostile-no-header", "a leading footer and nothing else", 512,
              [(0, footer(64 * KIB))])
    yield _fixed("hostile-fixed-checksum", "a wrong checksum in the only footer",
                 64 * KIB, [(0, fill(4096, 0x61))], footer(64 * KIB, FIXED, checksum=1),
                 kind="hostile")
    yield _fixed("hostile-fixed-type", "a reserved type in the only footer",
                 64 * KIB, [(0, fill(4096, 0x62))], footer(64 * KIB, 5), kind="hostile")
    yield _fixed("hostile-fixed-other-size", "a raw disk whose last sector is the footer of a "
                 "smaller one", 256 * KIB, [(0, fill(4 * KIB, 0x64))], footer(64 * KIB, FIXED),
                 kind="hostile")
    yield _fixed("hostile-fixed-too-large", "one sector more than 2040 GiB, fixed",
                 4 * KIB, [], footer(0xff000001 * 512, FIXED), kind="hostile")
    yield _fixed("hostile-fixed-size-all-ones", "a size of 2^64 - 1 bytes, fixed",
                 4 * KIB, [], footer(2 ** 64 - 1, FIXED), kind="hostile")
    yield _fixed("hostile-fixed-empty", "a disk of no bytes, whose footer is in front as well",
                 0, [], footer(0, FIXED), kind="hostile")
    yield raw("hostile-fixed-in-front", "a fixed disk's footer at the start only", 4096,
              [(0, footer(2048, FIXED))])
    yield _image("hostile-polyglot", "a qcow2 image with a fixed disk's footer behind it",
                 _polyglot, kind="hostile", variants=BY_NAME_AND_PROBED)
    yield _broken("hostile-checksum", "a wrong checksum in the leading footer",
                  footer_checksum=0)
    yield _broken("hostile-too-large", "one sector more than 2040 GiB", size=0xff000001 * 512,
                  entries=4)
    for number in (0, 1, 5, 0xffffffff):
        yield _broken("hostile-type-%x" % number,
                      "type %#x, which is read as dynamic" % number, kind=number)
    for kind, name in ((DYNAMIC, "dynamic"), (DIFFERENCING, "differencing")):
        names = _names("vhd-differencing-base.vhd") if kind == DIFFERENCING else {}
        yield _broken("hostile-headless-" + name, "the footer is at the end only, " + name,
                      kind=kind, leading_footer=False, variants=BY_NAME_AND_PROBED, **names)


def _cut_header(path):
    disk = Disk(4 * 64 * KIB, 64 * KIB, table_offset=512)
    write_file(path, 1536, [(0, footer(disk.size, header_offset=1024)), (512, b"\xff" * 512),
                            (1024, disk.header(2048)[:512])])


def hostile_headers():
    yield _image("hostile-header-cut", "the file ends in the dynamic header", _cut_header,
                 kind="hostile")
    for name, offset in (("2-63", 2 ** 63), ("all-ones", 2 ** 64 - 1), ("outside", 2 ** 40),
                         ("elsewhere", TABLE)):
        yield _broken("hostile-header-offset-" + name, "the dynamic header's offset is wrong: "
                      + name, header_offset=offset)
    yield _broken("hostile-header-cookie", "a wrong cookie of the dynamic header",
                  header_cookie=b"cxsparsE")
    yield _broken("hostile-header-checksum", "a wrong checksum of the dynamic header, which "
                  "qemu does not look at", header_checksum=0)
    for size in (0, 256, 513, 3 * MIB):
        yield _broken("hostile-block-size-%d" % size, "a block size of %d bytes" % size,
                      block_size=size, entries=4)
    yield _broken("hostile-table-small", "one entry less than the disk needs", entries=3)
    yield _broken("hostile-table-none", "a table of no entries", entries=0)
    yield _broken("hostile-table-large", "one entry more than qemu allows",
                  claimed_entries=0x20000000)
    yield _broken("hostile-table-unreadable", "a table too large for one read of qemu",
                  claimed_entries=0x1fffffff)
    yield _broken("hostile-table-past-end", "a table that runs past the end of the file",
                  claimed_entries=0x100000)
    for name, offset in (("2-63", 2 ** 63), ("all-ones", 2 ** 64 - 1), ("outside", 2 ** 40)):
        yield _broken("hostile-table-offset-" + name, "the table's offset is wrong: " + name,
                      claimed_table_offset=offset)


def hostile_tables():
    yield _broken("hostile-block-outside", "a block that begins behind the end of the file",
                  blocks={2: Block(1 << 24, bitmap=b"", whole=False)})
    yield _broken("hostile-block-all-but-unused", "the largest sector number",
                  blocks={2: Block(0xfffffffe, bitmap=b"", whole=False)})
    yield _broken("hostile-spare-block-outside", "a block behind the disk's and the file's end",
                  entries=9, blocks={8: Block(1 << 24, bitmap=b"", whole=False)})
    yield _broken("hostile-truncated", "the file ends one sector before its last block",
                  trailing_footer=False, length=8 * 512 + 64 * KIB)
    yield _broken("hostile-truncated-early", "the file ends with its table",
                  trailing_footer=False, length=2048)
    yield _broken("hostile-same-block", "two entries of the same block, one that overlaps it",
                  blocks={0: Block(8, [(0, fill(4 * KIB, 0x63))]), 1: Block(8),
                          2: Block(9, bitmap=b"")})
    yield _broken("hostile-largest-block", "a block of 2 GiB in a small file", size=2 * GIB,
                  block_size=2 * GIB, blocks={0: Block(8, bitmap=b"", whole=False)})
    yield _broken("hostile-largest-block-unused", "blocks of 2 GiB, none stored", size=6 * GIB,
                  block_size=2 * GIB, blocks={})


def hostile_parents():
    def broken(name, exercises, **fields):
        return _broken("hostile-parent-" + name, exercises, kind=DIFFERENCING, **fields)

    yield broken("unnamed", "a differencing disk that names no parent")
    yield broken("outside", "a parent locator outside the file",
                 locators=[(b"W2ru", b"x\0", 2, 2 ** 63)])
    yield broken("long", "a parent locator of 2 GiB",
                 locators=[(b"W2ru", b"x\0", 2 ** 31 - 1)])
    yield broken("not-text", "a parent locator with half a surrogate pair",
                 locators=[(b"W2ru", b"\x00\xd8")])
    yield broken("device", "a parent that is a device and a protocol", locators=[
        (b"W2ru", "/dev/zero".encode("utf-16-le")), (b"MacX", b"nbd:localhost:10809")])
    yield broken("other", "a parent of another id than the one that is named",
                 companions=["vhd-dynamic-geometry"], **_names("vhd-dynamic-geometry.vhd"))
    yield broken("self", "a disk that is its own parent", uuid=PARENT_UUID,
                 **_names("vhd-hostile-parent-self.vhd"))


def images():
    yield from fixed_disks()
    yield from dynamic_disks()
    yield from differencing_disks()
    yield from hostile_footers()
    yield from hostile_headers()
    yield from hostile_tables()
    yield from hostile_parents()
