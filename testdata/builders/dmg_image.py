"""UDIF structures, byte by byte: chunks, block tables, resource fork or property list, trailer."""

import base64
import bz2
import lzma
import zlib
from dataclasses import dataclass, field
from typing import Optional

from .common import be32, be64, write_file

SECTOR = 512

ZERO, RAW, IGNORE = 0, 1, 2
ADC, ZLIB, BZIP2, LZFSE, LZMA = range(0x80000004, 0x80000009)
COMMENT, END = 0x7ffffffe, 0xffffffff


def _adc(data):
    """ADC as literals only: a length in 7 bits, then the bytes."""
    pieces = [data[i:i + 128] for i in range(0, len(data), 128)]
    return b"".join(bytes([0x80 | len(piece) - 1]) + piece for piece in pieces)


def _lzfse(data):
    """LZFSE as one block that is not compressed."""
    return b"bvx-" + len(data).to_bytes(4, "little") + data + b"bvx$"


PACK = {
    ZERO: lambda data: b"", IGNORE: lambda data: b"", RAW: lambda data: data,
    COMMENT: lambda data: b"", END: lambda data: b"",
    ADC: _adc, LZFSE: _lzfse,
    ZLIB: lambda data: zlib.compress(data, 9),
    BZIP2: lambda data: bz2.compress(data, 9),
    LZMA: lambda data: lzma.compress(data, lzma.FORMAT_XZ, preset=6),
}


@dataclass
class Chunk:
    """`count` sectors of `data`. What is given besides takes the place of what would be right."""
    kind: int
    count: int = 0
    data: bytes = b""
    sector: Optional[int] = None
    stored_at: Optional[int] = None
    length: Optional[int] = None


@dataclass
class Table:
    """A block table: chunks that follow each other from `sector` on."""
    chunks: list
    sector: int = 0
    data_offset: int = 0
    stated: Optional[int] = None       # number of chunks
    magic: bytes = b"mish"
    terminated: bool = True

    def sectors(self):
        return sum(chunk.count for chunk in self.chunks)

    def bytes(self, place):
        """The table; `place(data)` stores data and says where in the data fork it is."""
        chunks = list(self.chunks) + ([Chunk(END)] if self.terminated else [])
        entries, sector = [], 0
        for chunk in chunks:
            packed = PACK.get(chunk.kind, PACK[RAW])(chunk.data)
            at = place(packed) - self.data_offset
            entries.append(be32(chunk.kind) + bytes(4) + be64(_or(chunk.sector, sector))
                           + be64(chunk.count) + be64(_or(chunk.stored_at, at))
                           + be64(_or(chunk.length, len(packed))))
            sector = _or(chunk.sector, sector) + chunk.count
        head = (self.magic + be32(1) + be64(self.sector) + be64(self.sectors())
                + be64(self.data_offset) + be32(2056) + be32(0) + bytes(24)
                + be32(2) + be32(32) + bytes(128) + be32(_or(self.stated, len(chunks))))
        return head + b"".join(entries)


def _or(value, other):
    return other if value is None else value


@dataclass
class Disk:
    tables: list
    fork: bool = False                 # a resource fork instead of a property list
    listed: bool = True                # whether there is either
    sectors: Optional[int] = None
    front: bytes = b""                 # in front of the data fork
    plain: bytes = b""                 # at the start of the data fork
    prologue: str = ""                 # in front of the tables of the property list
    spoil: tuple = ()                  # (from, to): replaced in the property list or fork
    align: int = 1                     # of stored data
    trailer: dict = field(default_factory=dict)    # offset: bytes
    magic: bytes = b"koly"
    behind: bytes = b""                # behind the trailer

    def write(self, path):
        store = bytearray(self.plain)

        def place(data):
            store.extend(bytes(-len(store) % self.align if data else 0))
            at = len(store)
            store.extend(data)
            return at

        tables = [table.bytes(place) for table in self.tables]
        resources = b""
        if self.listed:
            resources = _fork(tables) if self.fork else _list(tables, self.prologue)
        if self.spoil:
            assert self.spoil[0] in resources
            resources = resources.replace(*self.spoil)
        sectors = max([t.sector + t.sectors() for t in self.tables], default=0)
        at = len(self.front) + len(store)
        area = be64(at) + be64(len(resources))
        none = bytes(16)
        kept = self.listed and self.fork
        end = (self.magic + be32(4) + be32(512) + be32(1) + be64(0)
               + be64(len(self.front)) + be64(len(store)) + (area if kept else none)
               + be32(1) + be32(1) + bytes(range(16)) + bytes(136)
               + (area if self.listed and not self.fork else none)).ljust(488, b"\0")
        end = bytearray(end + be32(1) + be64(_or(self.sectors, sectors)) + bytes(12))
        for offset, value in self.trailer.items():
            end[offset:offset + len(value)] = value
        whole = self.front + bytes(store) + resources + bytes(end) + self.behind
        write_file(path, len(whole), [(0, whole)])


def _list(tables, prologue):
    """A property list as macOS writes it."""
    out = ('<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0">\n<dict>\n'
           "\t<key>resource-fork</key>\n\t<dict>\n" + prologue + "\t\t<key>blkx</key>\n\t\t<array>\n")
    for index, table in enumerate(tables):
        text = base64.b64encode(table).decode()
        lines = "".join("\t\t\t\t%s\n" % text[i:i + 52] for i in range(0, len(text), 52))
        out += ("\t\t\t<dict>\n\t\t\t\t<key>Attributes</key>\n\t\t\t\t<string>0x0050</string>\n"
                "\t\t\t\t<key>Data</key>\n\t\t\t\t<data>\n%s\t\t\t\t</data>\n"
                "\t\t\t\t<key>ID</key>\n\t\t\t\t<string>%d</string>\n\t\t\t</dict>\n"
                % (lines, index - 1))
    return (out + "\t\t</array>\n\t\t<key>plst</key>\n\t\t<array>\n\t\t\t<dict>\n\t\t\t\t<data>\n"
            "\t\t\t\tAAAAAAAAAAAAAAAAAAAAAAAA\n\t\t\t\t</data>\n\t\t\t</dict>\n\t\t</array>\n"
            "\t</dict>\n</dict>\n</plist>\n").encode()


def _fork(tables):
    """A resource fork: header, data, and a map that nobody reads."""
    data = b"".join(be32(len(item)) + item for item in [b"plst or so", *tables])
    head = be32(256) + be32(256 + len(data)) + be32(len(data)) + be32(50)
    return head.ljust(256, b"\0") + data + bytes(50)
