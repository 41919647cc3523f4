"""Bochs images (`hdimage.h` of Bochs), byte by byte: growing disks, and what is wrong with each
field."""

from dataclasses import dataclass, field
from typing import Optional

from .common import KIB, MIB, Image, fill, le32, le64, write_file

NONE = 0xffffffff
VERSION_1, VERSION_2 = 0x10000, 0x20000

BY_NAME_AND_PROBED = [["-f", "bochs"], []]


@dataclass
class Disk:
    """A growing disk. `extents` maps extents of the disk to (number of the stored extent,
    sectors that its bitmap has)."""
    size: int
    extent: int = 16 * KIB
    extents: dict = field(default_factory=dict)
    dangling: dict = field(default_factory=dict)   # entries without anything behind them
    entries: Optional[int] = None          # of the catalog, if not as the disk needs
    claimed_entries: Optional[int] = None  # what the header says instead
    claimed_extent: Optional[int] = None
    catalog_offset: int = 512
    claimed_catalog_offset: Optional[int] = None
    magic: bytes = b"Bochs Virtual HD Image"
    type: bytes = b"Redolog"
    subtype: bytes = b"Growing"
    version: int = VERSION_2
    catalog_is_hole: bool = False
    length: Optional[int] = None           # cut the file to this

    def write(self, path):
        needed = -(-self.size // self.extent)
        entries = needed if self.entries is None else self.entries
        bitmap = max(1, self.extent // 512 // 8)
        stored = -(-bitmap // 512) * 512 + self.extent
        head = (self.magic.ljust(32, b"\0") + self.type.ljust(16, b"\0")
                + self.subtype.ljust(16, b"\0") + le32(self.version)
                + le32(_or(self.claimed_catalog_offset, self.catalog_offset))
                + le32(_or(self.claimed_entries, entries)) + le32(bitmap)
                + le32(_or(self.claimed_extent, self.extent)))
        head += le64(self.size) if self.version == VERSION_1 else le32(0x2b1f7a60) + le64(self.size)
        catalog = [self.dangling.get(index, NONE) for index in range(entries)]
        first = self.catalog_offset + 4 * entries
        pieces = [(0, head.ljust(512, b"\0"))]
        end = first
        for index, (number, sectors) in self.extents.items():
            catalog[index] = number
            at = first + number * stored
            bits = bytearray(stored - self.extent)
            for sector in sectors:
                bits[sector // 8] |= 1 << sector % 8
                data = fill(512, 1 + (7 * index + sector) % 255)
                pieces.append((at + len(bits) + 512 * sector, data))
            pieces.append((at, bytes(bits)))
            end = max(end, at + stored)
        if entries and not self.catalog_is_hole:
            pieces.append((self.catalog_offset, b"".join(map(le32, catalog))))
        write_file(path, end if self.length is None else self.length, pieces)


def _or(value, other):
    return other if value is None else value


def _disk(name, exercises, *args, **fields):
    more = {key: fields.pop(key) for key in ("kind", "variants") if key in fields}
    return Image(id="bochs-" + name, name="bochs-%s.img" % name, format="bochs",
                 exercises=exercises, build=lambda path: Disk(*args, **fields).write(path), **more)


def _broken(name, exercises, **fields):
    """A small disk with one stored extent in which something is wrong."""
    fields = {"size": 4 * 16 * KIB, "extents": {1: (0, range(8))}, **fields}
    return _disk("bad-" + name, exercises, kind="hostile", **fields)


def disks():
    all_32 = range(32)
    extents = {0: (1, all_32), 2: (0, [0, 3, 4, 31]), 3: (2, [])}
    yield _disk("growing", "extents stored out of order, some sectors of them in use",
                5 * 16 * KIB, extents=extents)
    yield _disk("version-1", "the same in version 1", 5 * 16 * KIB, extents=extents,
                version=VERSION_1)
    yield _disk("empty", "no extent is stored", 10 * MIB)
    yield _disk("full", "every extent is stored, in order", 4 * 16 * KIB,
                extents={i: (i, all_32) for i in range(4)})
    yield _disk("odd-size", "a size that is rounded down to a sector", 3 * 16 * KIB + 1023,
                extents={3: (0, [0, 1])})
    yield _disk("no-size", "a disk of no bytes", 0, entries=512)
    yield _disk("one-sector", "the smallest disk", 512, extents={0: (0, [0])})
    yield _disk("spare-entries", "a catalog longer than the disk needs, its spare entries in use",
                2 * 16 * KIB, entries=512, extents={0: (0, all_32), 300: (1, [5])})
    yield _disk("small-extents", "extents of one sector", 40 * 512, extent=512,
                extents={i: (39 - i, [0]) for i in range(0, 40, 3)})
    yield _disk("large-extents", "extents of 8 MiB, the largest", 20 * MIB, extent=8 * MIB,
                extents={1: (0, [0, 16383])})
    yield _disk("catalog-apart", "a header that is longer than usual", 4 * 16 * KIB,
                catalog_offset=4 * KIB, extents={1: (0, [7])})
    yield _disk("largest", "8 TiB, the largest disk; all its extents are the same stored one",
                2 ** 20 * 8 * MIB, extent=8 * MIB, catalog_is_hole=True,
                length=512 + 4 * 2 ** 20 + 2048 + 8 * MIB)


def hostile():
    yield _broken("type", "not a redolog: raw to qemu-img", type=b"Flat",
                  variants=BY_NAME_AND_PROBED)
    yield _broken("undoable", "a redolog over another disk: raw to qemu-img", subtype=b"Undoable",
                  variants=BY_NAME_AND_PROBED)
    yield _broken("version", "an unknown version: raw to qemu-img", version=0x30000,
                  variants=BY_NAME_AND_PROBED)
    yield _broken("magic", "the magic has a letter more", magic=b"Bochs Virtual HD Images",
                  variants=[["-f", "bochs"]])
    yield _broken("catalog-too-large", "more catalog entries than are allowed",
                  claimed_entries=0x100001)
    yield _broken("catalog-too-small", "fewer catalog entries than the disk needs", entries=3)
    yield _broken("catalog-far", "a catalog behind the end of the file",
                  claimed_catalog_offset=0xfffffe00)
    yield _broken("catalog-cut", "the file ends in the catalog", length=512 + 15)
    yield _broken("extent-zero", "extents of no bytes", claimed_extent=0)
    yield _broken("extent-tiny", "extents of half a sector", claimed_extent=256)
    yield _broken("extent-odd", "extents whose size is no power of two", claimed_extent=513)
    yield _broken("extent-huge", "extents over 8 MiB", claimed_extent=16 * MIB)
    yield _broken("size-all-ones", "the largest size that fits its field", size=2 ** 64 - 1,
                  entries=4)
    yield _broken("extent-outside", "a stored extent behind the end of the file",
                  dangling={2: 0xfffffffe})
    yield _broken("header-cut", "the file ends in the header", length=90)


def images():
    yield from disks()
    yield from hostile()
