"""VDI structures, byte by byte (the header of version 1.1, as VirtualBox writes it)."""

from dataclasses import dataclass, field
from typing import Optional

from .common import MIB, le32, le64, write_file

FREE, DISCARDED = 0xffffffff, 0xfffffffe
DYNAMIC, STATIC, UNDO, DIFFERENCING = 1, 2, 3, 4
SIGNATURE = 0xbeda107f
UUID = bytes(range(0x10, 0x20))
MODIFIED = bytes(range(0x20, 0x30))


def up(n, unit):
    return -(-n // unit) * unit


@dataclass
class Disk:
    """An image. `stored` maps block numbers to (entry, pieces within the block)."""
    size: int
    stored: dict = field(default_factory=dict)
    kind: int = DYNAMIC
    block_size: int = MIB
    extra: int = 0
    map_offset: int = 512
    data_offset: Optional[int] = None        # default: behind the map
    entries: Optional[int] = None            # of the map, if not as the disk needs
    discarded: tuple = ()                    # blocks with that mark
    signature: int = SIGNATURE
    version: int = 0x00010001
    sector_size: int = 512
    claimed: dict = field(default_factory=dict)   # field of the header -> what it says instead
    link: bytes = bytes(16)
    parent: bytes = bytes(16)
    length: Optional[int] = None             # of the file, if not up to the last block

    def header(self, entries, data_offset):
        says = {"size": self.size, "map_offset": self.map_offset, "data_offset": data_offset,
                "block_size": self.block_size, "entries": entries, **self.claimed}
        head = (b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0")
                + le32(self.signature) + le32(self.version) + le32(400) + le32(self.kind)
                + le32(0) + b"made for a test".ljust(256, b"\0")
                + le32(says["map_offset"]) + le32(says["data_offset"])
                + le32(2) + le32(4) + le32(17) + le32(self.sector_size) + le32(0)
                + le64(says["size"]) + le32(says["block_size"]) + le32(self.extra)
                + le32(says["entries"]) + le32(len(self.stored))
                + UUID + MODIFIED + self.link + self.parent
                + le32(2) + le32(4) + le32(17) + le32(512))
        assert len(head) == 0x1d8
        return head.ljust(512, b"\0")

    def write(self, path):
        entries = self.entries
        if entries is None:
            entries = -(-self.size // self.block_size)
        table = [FREE] * entries
        for block in self.discarded:
            table[block] = DISCARDED
        for block, (entry, _) in self.stored.items():
            table[block] = entry
        table = b"".join(map(le32, table))
        data_offset = self.data_offset
        if data_offset is None:
            data_offset = up(self.map_offset + len(table), 4096)
        pieces = [(0, self.header(entries, data_offset)),
                  (self.map_offset, table.ljust(up(len(table), 512), b"\0"))]
        end = max(data_offset, self.map_offset + up(len(table), 512))
        for entry, inside in self.stored.values():
            at = data_offset + entry * (self.block_size + self.extra)
            if inside is None:
                continue                     # not in the file
            if self.extra:
                pieces.append((at, b"\xee" * self.extra))
            for offset, data in inside:
                pieces.append((at + self.extra + offset, data))
            end = max(end, at + self.extra + self.block_size)
        write_file(path, end if self.length is None else self.length,
                   [p for p in pieces if p[1]])
