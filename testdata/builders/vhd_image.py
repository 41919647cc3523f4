"""VHD structures, byte by byte (Microsoft's specification, version 1.0)."""

from dataclasses import dataclass, field
from typing import Optional

from .common import be16, be32, be64, write_file

SECTOR = 512
UNUSED = 0xffffffff
TABLE = 1536       # where the table usually is: behind the footer's copy and the header

FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4

UUID = bytes(range(0x10, 0x20))
PARENT_UUID = bytes(range(0x40, 0x50))
TIME = 0x2b1f7a60


def up(n, unit):
    return -(-n // unit) * unit


def sealed(structure, at):
    """The structure with the right checksum at `at`."""
    structure = bytearray(structure)
    structure[at:at + 4] = bytes(4)
    structure[at:at + 4] = be32(~sum(structure))
    return bytes(structure)


def footer(size, kind=DYNAMIC, creator=b"win ", geometry=(0, 0, 0), header_offset=None,
           checksum=None, uuid=UUID):
    if header_offset is None:
        header_offset = 2 ** 64 - 1 if kind == FIXED else 512
    cylinders, heads, sectors = geometry
    out = (b"conectix" + be32(2) + be32(0x10000) + be64(header_offset) + be32(TIME)
           + creator + be32(0x00060001) + b"Wi2k" + be64(size) + be64(size)
           + be16(cylinders) + bytes([heads, sectors]) + be32(kind) + bytes(4) + uuid)
    out = sealed(out.ljust(512, b"\0"), 64)
    return out if checksum is None else out[:64] + be32(checksum) + out[68:]


@dataclass
class Disk:
    """A dynamic or differencing disk. `blocks` maps block numbers to what is stored."""
    size: int
    block_size: int = 2 << 20
    blocks: dict = field(default_factory=dict)    # number -> Block
    kind: int = DYNAMIC
    creator: bytes = b"win "
    geometry: tuple = (0, 0, 0)
    entries: Optional[int] = None                 # of the table, if not as the disk needs
    claimed_entries: Optional[int] = None         # what the header says instead
    table_offset: int = TABLE
    claimed_table_offset: Optional[int] = None
    header_offset: Optional[int] = None           # as the footer says; the header is at 512
    header_cookie: bytes = b"cxsparse"
    header_checksum: Optional[int] = None
    footer_checksum: Optional[int] = None
    leading_footer: bool = True
    trailing_footer: bool = True
    uuid: bytes = UUID
    parent_name: str = ""
    locators: list = field(default_factory=list)  # (platform, bytes[, length[, offset]])
    length: Optional[int] = None                  # cut the file to this

    def header(self, locators_at):
        entries = self.claimed_entries
        if entries is None:
            entries = self.table_entries()
        table = self.table_offset if self.claimed_table_offset is None \
            else self.claimed_table_offset
        parent = self.kind == DIFFERENCING
        out = (self.header_cookie + be64(2 ** 64 - 1) + be64(table) + be32(0x10000)
               + be32(entries) + be32(self.block_size) + bytes(4)
               + (PARENT_UUID if parent else bytes(16)) + be32(TIME if parent else 0) + bytes(4)
               + self.parent_name.encode("utf-16-be").ljust(512, b"\0"))
        for index, (platform, name, *wrong) in enumerate(self.locators):
            length = wrong[0] if wrong else len(name)
            offset = wrong[1] if wrong[1:] else locators_at + index * SECTOR
            out += platform + be32(1) + be32(length) + bytes(4) + be64(offset)
        out = sealed(out.ljust(1024, b"\0"), 36)
        wrong = self.header_checksum
        return out if wrong is None else out[:36] + be32(wrong) + out[40:]

    def table_entries(self):
        return -(-self.size // self.block_size) if self.entries is None else self.entries

    def write(self, path):
        entries = self.table_entries()
        table = [self.blocks[i].sector if i in self.blocks else UNUSED for i in range(entries)]
        table_end = up(self.table_offset + 4 * entries, SECTOR)
        bitmap = up(self.block_size // 4096, SECTOR)
        pieces = [(512, self.header(table_end)),
                  (self.table_offset, b"".join(map(be32, table)).ljust(
                      table_end - self.table_offset, b"\xff"))]
        for index, (_, name, *_) in enumerate(self.locators):
            pieces.append((table_end + index * SECTOR, name))
        end = table_end + len(self.locators) * SECTOR
        foot = footer(self.size, self.kind, self.creator, self.geometry,
                      self.header_offset or 512, self.footer_checksum, self.uuid)
        if self.leading_footer:
            pieces.append((0, foot))
        for block in self.blocks.values():
            at = block.sector * SECTOR
            if block.bitmap is not None:
                pieces.append((at, block.bitmap))
            elif bitmap:
                pieces.append((at, b"\xff" * bitmap))
            for offset, data in block.data:
                pieces.append((at + bitmap + offset, data))
            if block.whole:
                end = max(end, at + bitmap + self.block_size)
        if self.trailing_footer:
            pieces.append((up(end, SECTOR), foot))
            end = up(end, SECTOR) + 512
        write_file(path, end if self.length is None else self.length,
                   [p for p in pieces if p[1]])
        return end


@dataclass
class Block:
    """A stored block: the sector of its bitmap, and pieces of data within the block."""
    sector: int
    data: list = field(default_factory=list)
    bitmap: Optional[bytes] = None   # default: all ones
    whole: bool = True               # the file is long enough for it
