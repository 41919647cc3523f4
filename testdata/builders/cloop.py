"""cloop images ("V2.0 Format"), byte by byte, and what is wrong with each field."""

import zlib
from dataclasses import dataclass, field
from typing import Optional

from .common import KIB, MIB, Image, be32, be64, fill, write_file

# What create_compressed_fs writes and qemu-img looks for.
PREAMBLE = (b"#!/bin/sh\n#V2.0 Format\n"
            b"modprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n")
# The driver itself only looks at the second line.
OTHER_PREAMBLE = b"#!/bin/sh\n#V2.0 Format\nexec mount -o loop \"$0\" \"$1\"\n"

TABLE = 136
BY_NAME = [["-f", "cloop"]]
BY_NAME_AND_PROBED = [["-f", "cloop"], []]


@dataclass
class Disk:
    """`blocks` is the disk's content, one item for each block."""
    blocks: list = field(default_factory=list)
    block_size: int = 16 * KIB
    preamble: bytes = PREAMBLE
    claimed_block_size: Optional[int] = None
    claimed_blocks: Optional[int] = None
    offsets: dict = field(default_factory=dict)     # entries of the table, if not the right ones
    length: Optional[int] = None                    # cut the file to this
    table_is_hole: bool = False

    def write(self, path):
        packed = [zlib.compress(block, 9) for block in self.blocks]
        at = TABLE + 8 * (len(packed) + 1)
        offsets, pieces = [at], []
        for data in packed:
            pieces.append((at, data))
            at += len(data)
            offsets.append(at)
        for index, offset in self.offsets.items():
            offsets[index] = offset
        size = self.block_size if self.claimed_block_size is None else self.claimed_block_size
        count = len(packed) if self.claimed_blocks is None else self.claimed_blocks
        head = self.preamble.ljust(128, b"\0") + be32(size) + be32(count)
        pieces.append((0, head))
        if not self.table_is_hole:
            pieces.append((TABLE, b"".join(map(be64, offsets))))
        write_file(path, at if self.length is None else self.length, pieces)


def _content(count, size=16 * KIB):
    """Blocks of which every third is zeros."""
    return [bytes(size) if i % 3 == 2 else fill(size, 1 + i % 255) for i in range(count)]


def _disk(name, exercises, *args, **fields):
    more = {key: fields.pop(key) for key in ("kind", "variants") if key in fields}
    return Image(id="cloop-" + name, name="cloop-%s.cloop" % name, format="cloop",
                 exercises=exercises, build=lambda path: Disk(*args, **fields).write(path), **more)


def _broken(name, exercises, **fields):
    """Four blocks and something wrong with them."""
    return _disk("bad-" + name, exercises, kind="hostile",
                 **{"blocks": _content(4), **fields})


def disks():
    yield _disk("blocks", "blocks of data and of zeros, all compressed", _content(6))
    yield _disk("one-block", "a single block", _content(1))
    yield _disk("no-blocks", "a disk of no bytes", [])
    yield _disk("smallest-blocks", "blocks of one sector", _content(100, 512), 512)
    yield _disk("odd-blocks", "blocks of three sectors", _content(50, 1536), 1536)
    yield _disk("largest-blocks", "a block of 64 MiB, the largest", [bytes(64 * MIB)], 64 * MIB)
    yield _disk("knoppix", "blocks of 64 KiB, as on Knoppix", _content(20, 64 * KIB), 64 * KIB)
    yield _disk("long-table", "a table of offsets that takes more than one window",
                table_is_hole=True, block_size=512, claimed_blocks=200000,
                length=TABLE + 8 * 200001)
    yield _disk("empty-blocks", "compressed blocks of no bytes, which cannot be read",
                table_is_hole=True, claimed_blocks=7, length=TABLE + 8 * 8)
    yield _disk("other-preamble", "another shell script in front", _content(3),
                preamble=OTHER_PREAMBLE, variants=BY_NAME_AND_PROBED)
    yield _disk("random-data", "blocks that zlib makes larger",
                [bytes((j * j * 31 + j * 7 + i) * 2654435761 >> 13 & 255 for j in range(4 * KIB))
                 for i in range(3)], 4 * KIB)


def over_2_tib():
    # 32768 blocks of 64 MiB are 2^32 sectors.
    yield _disk("3-tib", "more sectors than 32 bits can count: 5.2 and 7.2 cut it",
                table_is_hole=True, block_size=64 * MIB, claimed_blocks=49152,
                length=TABLE + 8 * 49153)


def hostile():
    yield _broken("block-size-odd", "blocks that are no whole sectors", claimed_block_size=513)
    yield _broken("block-size-zero", "blocks of no bytes", claimed_block_size=0)
    yield _broken("block-size-huge", "blocks over 64 MiB", claimed_block_size=64 * MIB + 512)
    yield _broken("blocks-2-29", "more blocks than 32-bit sizes can hold", claimed_blocks=2 ** 29)
    yield _broken("blocks-wrap", "so many blocks that the table's size wraps",
                  claimed_blocks=2 ** 29 - 1)
    yield _broken("blocks-2-26", "a table of more than 512 MiB", claimed_blocks=2 ** 26)
    yield _broken("order", "an offset below the one before it", offsets={1: TABLE})
    yield _broken("order-last", "the last offset below the one before it", offsets={4: 0})
    yield _broken("block-too-large", "a compressed block over 128 MiB",
                  offsets={2: 2 ** 28, 3: 2 ** 28, 4: 2 ** 28})
    yield _broken("offset-all-ones", "the largest offset", offsets={4: 2 ** 64 - 1})
    yield _broken("no-preamble", "nothing in front: qemu-img maps it if it is told to",
                  preamble=b"", variants=BY_NAME)
    yield _broken("version-4", "the format V4.0: raw to qemu-img",
                  preamble=b"#!/bin/sh\n#V4.0 Format\n", claimed_block_size=0,
                  variants=BY_NAME_AND_PROBED)
    yield _broken("other-preamble-size", "another shell script and a wrong block size",
                  preamble=OTHER_PREAMBLE, claimed_block_size=513, variants=BY_NAME_AND_PROBED)
    yield _broken("table-cut", "the file ends in the table of offsets", length=TABLE + 39)
    yield _broken("table-far", "a table that is mostly behind the end of the file, all zeros",
                  blocks=[], table_is_hole=True, claimed_blocks=10 ** 6, length=64 * KIB)
    yield _broken("header-cut", "the file ends in the header", length=130)
    yield _broken("data-cut", "the file ends in a compressed block", length=TABLE + 8 * 5 + 40)


def images():
    yield from disks()
    yield from over_2_tib()
    yield from hostile()
