"""UDIF images (dmg): every kind of chunk, in property lists and resource forks, and what is wrong
with each field.

qemu-img goes by the name, `.dmg`, and prints one range of data for whatever it can open."""

from .common import KIB, Image, be32, be64, fill, write_file
from .dmg_image import (ADC, BZIP2, COMMENT, IGNORE, LZFSE, LZMA, RAW, SECTOR, ZERO, ZLIB, Chunk,
                        Disk, Table)


def _image(name, exercises, build, ending="dmg", **more):
    return Image(id="dmg-" + name, name="dmg-%s.%s" % (name, ending),
                 format=more.pop("format", "dmg"), exercises=exercises, build=build, **more)


def _disk(name, exercises, tables, ending="dmg", kind="safe", variants=None, **fields):
    return _image("udif-" + name if kind == "safe" else "bad-" + name, exercises,
                  Disk(tables, **fields).write, ending, kind=kind, variants=variants)


def _data(kind, sectors, tag):
    """A chunk of recognisable data; what does not compress is no less data."""
    return Chunk(kind, sectors, fill(sectors * SECTOR, tag))


def _mixed():
    """A partition map, a file system in all ways that every qemu-img reads, free space."""
    return [
        Table([_data(RAW, 1, 1)]),
        Table([_data(ZLIB, 512, 2), Chunk(COMMENT), _data(ZLIB, 512, 3), Chunk(ZERO, 1000),
               _data(RAW, 8, 4), _data(RAW, 8, 5), Chunk(IGNORE, 40), _data(ZLIB, 3, 6)], sector=1),
        Table([Chunk(IGNORE, 200)], sector=2085),
    ]


def disks():
    yield _disk("mixed", "chunks of all kinds that every qemu-img reads", _mixed())
    yield _disk("fork", "the same with a resource fork", _mixed(), fork=True)
    yield _disk("aligned", "the same with data at multiples of 4 KiB", _mixed(), align=4 * KIB)
    yield _disk("bzip2", "chunks packed by bzip2", [
        Table([_data(BZIP2, 512, 7), Chunk(ZERO, 8), _data(RAW, 2, 8)])])
    yield _disk("lzfse", "chunks packed by LZFSE", [
        Table([_data(LZFSE, 64, 9), _data(RAW, 2, 10)])])
    yield _disk("lzma", "chunks packed by LZMA, which qemu-img does not know", [
        Table([_data(ZLIB, 8, 11), _data(LZMA, 64, 12), _data(RAW, 2, 13)])])
    yield _disk("adc", "chunks packed by ADC, which qemu-img does not know", [
        Table([_data(ADC, 64, 14), _data(ZLIB, 8, 15), _data(RAW, 2, 16)])])
    yield _disk("raw", "chunks that are stored as they are, in order", [
        Table([_data(RAW, 512, 20 + i) for i in range(4)])])
    yield _disk("raw-reversed", "chunks that are stored the other way round", [
        Table([Chunk(RAW, 8, sector=8 * i, stored_at=4096 * (3 - i), length=4096)
               for i in range(4)])], plain=fill(16 * KIB, 30))
    yield _disk("shared", "chunks stored at one place", [
        Table([Chunk(RAW, 8, stored_at=1024, length=4096) for i in range(3)])],
        plain=fill(16 * KIB, 31))
    yield _disk("zeros", "nothing but zeros", [Table([Chunk(ZERO, 100), Chunk(IGNORE, 10 ** 7)])])
    yield _disk("half-sector", "a plain chunk whose last sector is not stored whole", [
        Table([Chunk(RAW, 2, fill(700, 32)), Chunk(ZERO, 3), _data(RAW, 1, 33)])])
    yield _disk("offsets", "a data fork and a table whose offsets do not start at 0", [
        Table([_data(ZLIB, 8, 34), _data(RAW, 8, 35)], data_offset=3000)],
        front=fill(1000, 36), plain=fill(3000, 37))
    yield _disk("tables-reversed", "block tables in the reverse order of the disk", [
        Table([_data(RAW, 8, 38)], sector=100), Table([Chunk(ZERO, 50)], sector=50),
        Table([_data(ZLIB, 8, 39), Chunk(ZERO, 42)])])
    yield _disk("gaps", "sectors of which no table speaks", [
        Table([_data(RAW, 8, 40)], sector=10), Table([_data(ZLIB, 8, 41)], sector=90)], sectors=120)
    yield _disk("beyond", "chunks behind the end of the disk", [
        Table([_data(RAW, 8, 42), Chunk(ZERO, 100)])], sectors=20)
    yield _disk("long-table", "a table of more chunks than one window has", [
        Table([Chunk(RAW, 1, stored_at=i % 64 * 512, length=512) if i % 3 else Chunk(ZERO, 1)
               for i in range(5000)])], plain=fill(32 * KIB, 43))
    yield _disk("unended", "a table without an end chunk", [
        Table([_data(ZLIB, 8, 44), _data(RAW, 1, 45)], terminated=False)])
    yield _disk("other-resources", "data elements that are no block tables", [
        Table([_data(RAW, 8, 46)])],
        prologue="<key>x</key><data></data><data>bWlz</data><data>AAAA</data>\n")
    yield _disk("padded", "a file that was padded behind its trailer", [Table([_data(RAW, 8, 47)])],
                behind=bytes(40))
    yield _disk("plain", "no tables: the data fork is the disk, as of a read-write image", [],
                listed=False, sectors=64, plain=fill(32 * KIB, 48))
    yield _disk("no-size", "a disk of no bytes", [Table([_data(RAW, 1, 49)])], sectors=0)


def named():
    yield _image("named-img", "a name that does not end in .dmg: raw to qemu-img",
                 Disk(_mixed()).write, "img")
    yield _image("named-raw", "a raw disk with the name of a UDIF image",
                 lambda path: write_file(path, 64 * KIB, [(4 * KIB, fill(4 * KIB, 50))]),
                 format="raw", kind="hostile")


def _in_a_disk(path):
    Disk(_mixed()).write(path)
    with open(path, "rb") as source:
        whole = source.read()
    write_file(path, 64 * KIB + len(whole), [(0, fill(4 * KIB, 73)), (64 * KIB, whole)])


def hostile():
    good = [Table([_data(ZLIB, 8, 60), Chunk(ZERO, 8), _data(RAW, 8, 61)])]

    def bad(name, exercises, tables=good, **fields):
        return _disk(name, exercises, tables, kind="hostile", **fields)

    def one(name, exercises, chunk):
        return bad(name, exercises, [Table([_data(ZLIB, 8, 62), chunk])])

    yield bad("no-trailer", "no trailer", magic=b"kolY", variants=[["-f", "dmg"]])
    yield _image("bad-empty", "a file of no bytes", lambda path: write_file(path, 0, []),
                 kind="hostile", variants=[["-f", "dmg"]])
    yield bad("trailer-apart", "a trailer that is too far from the end", behind=bytes(1024),
              variants=[["-f", "dmg"]])
    yield _image("bad-in-a-disk", "a raw disk whose last file is a UDIF image", _in_a_disk, "img",
                 kind="hostile")
    for name, exercises, start in [
            ("encrypted", "an image that is encrypted as a whole", b"encrcdsa" + be32(2)),
            ("trailer-in-front", "a trailer at the start of the file",
             b"koly" + be32(4) + be32(512) + bytes(500))]:
        yield _image(name, exercises, lambda path, start=start: write_file(
            path, 64 * KIB, [(0, start + fill(4 * KIB, 74))]), "img", kind="hostile")
    yield bad("segments", "the first of two files", trailer={60: be32(2)})
    yield bad("data-fork-far", "a data fork behind the trailer", trailer={24: be64(2 ** 40)})
    yield bad("list-far", "a property list behind the trailer", trailer={216: be64(2 ** 40)})
    yield bad("list-long", "a property list that overlaps the trailer", trailer={224: be64(10 ** 5)})
    yield bad("list-wraps", "a property list that ends behind 2^64",
              trailer={216: be64(2 ** 64 - 1)})
    yield bad("fork-far", "a resource fork behind the trailer", fork=True,
              trailer={40: be64(2 ** 40)})
    yield bad("fork-data", "resource data outside the resource fork", fork=True,
              spoil=(be32(256) + be32(256 + 14 + 4 + 204 + 160), be32(2 ** 20) + be32(0)))
    yield bad("fork-resource", "a resource outside the resource data", fork=True,
              spoil=(be32(204 + 160) + b"mish", be32(10 ** 6) + b"mish"))
    yield bad("sectors-negative", "the largest number of sectors", sectors=2 ** 64 - 1)
    yield bad("sectors-2-55", "more sectors than a disk may have", sectors=2 ** 55)
    yield bad("no-tables", "neither resource fork nor property list, and no data", listed=False)
    yield bad("no-chunks", "a property list without block tables", [])
    yield bad("only-ends", "a block table without chunks", [Table([])], sectors=10)
    yield bad("no-end-tag", "a data element without an end", spoil=(b"</data>", b"<-data>"))
    yield bad("base64", "a block table that is no base64", spoil=(b"AAAAAAAAA", b"AAAA&AAAA"))
    yield bad("table-cut", "a block table with fewer chunks than it says",
              [Table([_data(ZLIB, 8, 63)], stated=100)])
    yield bad("table-offset", "a block table whose data offset wraps",
              [Table([_data(ZLIB, 8, 64)], data_offset=2 ** 64 - 1)], front=bytes(10))
    yield one("sectors-many", "a chunk of more sectors than qemu-img reads",
              Chunk(ZLIB, 131073, fill(512, 65)))
    yield one("length-large", "a chunk of more bytes than qemu-img reads",
              Chunk(ZLIB, 8, fill(512, 66), length=67108865))
    yield one("raw-short", "a plain chunk of fewer bytes than its sectors",
              Chunk(RAW, 8, fill(4096, 67), length=3584))
    yield one("raw-long", "a plain chunk of more bytes than its sectors",
              Chunk(RAW, 8, fill(4608, 68)))
    yield one("unknown", "a chunk of an unknown type", Chunk(12345, 8, fill(512, 69)))
    yield one("sector-wraps", "a chunk that starts behind 2^64",
              Chunk(ZERO, 8, sector=2 ** 64 - 4))
    yield one("count-2-55", "a chunk of more sectors than there are addresses",
              Chunk(ZERO, 2 ** 55))
    yield one("offset-wraps", "data that ends behind 2^64",
              Chunk(ZLIB, 8, fill(512, 70), stored_at=2 ** 64 - 1))
    yield one("outside", "packed data behind the end of the file",
              Chunk(ZLIB, 8, fill(512, 71), stored_at=2 ** 40))
    yield one("raw-outside", "plain data behind the end of the file",
              Chunk(RAW, 8, fill(4096, 72), stored_at=2 ** 40))
    yield one("overlap", "a chunk that starts in the one before it", Chunk(ZERO, 8, sector=4))
    yield bad("order", "chunks of a table out of order",
              [Table([Chunk(ZERO, 8, sector=8), Chunk(ZERO, 8, sector=0)])])
    yield bad("tables-overlap", "two block tables about the same sectors", good + good)


def images():
    yield from disks()
    yield from named()
    yield from hostile()
