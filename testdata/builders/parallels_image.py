"""Parallels structures, byte by byte (docs/interop/parallels in qemu's sources)."""

import hashlib
from dataclasses import dataclass, field
from typing import Optional

from .common import KIB, fill, le32, le64, write_file

SECTOR = 512
OLD, EXTENDED = b"WithoutFreeSpace", b"WithouFreSpacExt"
CLOSED, IN_USE = 0x312e3276, 0x746f6e59
EXTENSION = 0xab234cef23dcea87
DIRTY_BITMAP = 0x20385fae252cb34a


def up(n, unit):
    return -(-n // unit) * unit


def extension(*features, cluster=4 * KIB, magic=EXTENSION, checksum=None):
    """The cluster of a format extension."""
    body = b"".join(features).ljust(cluster - 24, b"\0")
    return le64(magic) + (checksum or hashlib.md5(body).digest()) + body


def feature(magic, data=b"", flags=0, size=None):
    data = le64(magic) + le64(flags) + le32(len(data) if size is None else size) + bytes(4) + data
    return data.ljust(up(len(data), 8), b"\0")


def bitmap(sectors, granularity=8, table=(0,), entries=None, ident=0x40):
    return (le64(sectors) + bytes(range(ident, ident + 16)) + le32(granularity)
            + le32(len(table) if entries is None else entries) + b"".join(map(le64, table)))


@dataclass
class Disk:
    """An image. `stored` maps cluster numbers to (entry, data at the start of the cluster)."""
    sectors: int
    stored: dict = field(default_factory=dict)
    magic: bytes = EXTENDED
    track: int = 8                           # sectors of a cluster
    entries: Optional[int] = None            # of the table, if not as the disk needs
    data_start: Optional[int] = None         # default: behind the table
    version: int = 2
    in_use: int = CLOSED
    extension: Optional[bytes] = None        # is put behind the clusters
    claimed: dict = field(default_factory=dict)   # field of the header -> what it says instead
    length: Optional[int] = None             # of the file, if not up to the last cluster

    def write(self, path):
        entries = -(-self.sectors // self.track) if self.entries is None else self.entries
        unit = self.track * SECTOR if self.magic == EXTENDED else SECTOR
        first = up(64 + 4 * entries, unit) // SECTOR
        table = [0] * entries
        pieces, end = [], up(64 + 4 * entries, SECTOR)
        for cluster, (entry, data) in self.stored.items():
            table[cluster] = entry
            if data is not None:
                pieces.append((entry * unit, data))
                end = max(end, entry * unit + self.track * SECTOR)
        says = {"track": self.track, "entries": entries, "extension": 0,
                "data_start": first if self.data_start is None else self.data_start}
        if self.extension is not None:
            end = up(end, self.track * SECTOR)
            says["extension"] = end // SECTOR
            pieces.append((end, self.extension))
            end += len(self.extension)
        says.update(self.claimed)
        head = (self.magic + le32(self.version) + le32(16) + le32(1) + le32(says["track"])
                + le32(says["entries"]) + le64(self.sectors) + le32(self.in_use)
                + le32(says["data_start"]) + le32(0) + le64(says["extension"]))
        assert len(head) == 64
        pieces.append((0, head + b"".join(map(le32, table))))
        write_file(path, end if self.length is None else self.length,
                   sorted(p for p in pieces if p[1]))


def clusters(*entries, tag, length=4 * KIB):
    """What is stored: pairs of cluster and entry, each with its own data."""
    return {cluster: (entry, fill(length, tag + i)) for i, (cluster, entry) in enumerate(entries)}
