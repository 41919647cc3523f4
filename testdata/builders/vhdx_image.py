"""A VHDX file, written byte by byte, with everything about it to be changed."""

import struct
import uuid

from .common import MIB, le16, le32, le64, write_file

KIB = 1024
PAGE = 4096

LOG_AT, METADATA_AT, BAT_AT, BLOCKS_AT = MIB, 2 * MIB, 3 * MIB, 4 * MIB


def guid(text):
    return uuid.UUID(text).bytes_le


BAT = guid("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA = guid("8B7CA206-4790-4B9A-B8FE-575F050F886E")
FILE_PARAMETERS = guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
VIRTUAL_DISK_SIZE = guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
VIRTUAL_DISK_ID = guid("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR_SIZE = guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR_SIZE = guid("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR = guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
VHDX_LOCATOR = guid("B04AEFB7-D19E-4A81-B789-25B8E9445913")

UNKNOWN = guid("0bad0bad-0bad-0bad-0bad-0bad0bad0bad")
LOG_GUID = guid("10c010c0-10c0-10c0-10c0-10c010c010c0")
DATA_WRITE = "83ed0ec3-24c8-49a6-a959-5e4bf1288bfb"


def _crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xffffffff


def sealed(data, length=None):
    """`data`, filled up to `length`, with its checksum at 4."""
    data = bytearray(data.ljust(length or 0, b"\0"))
    data[4:8] = bytes(4)
    data[4:8] = le32(crc32c(data))
    return bytes(data)


def patched(data, patches):
    data = bytearray(data)
    for at, new in patches:
        data[at:at + len(new)] = new
    return bytes(data)


def region(ident, offset, length, required=1):
    return ident + le64(offset) + le32(length) + le32(required)


def locator(pairs, kind=VHDX_LOCATOR):
    """A parent locator with these keys and values."""
    head, texts = kind + le16(0) + le16(len(pairs)), b""
    start = len(head) + 12 * len(pairs)
    for key, value in pairs:
        key, value = (text.encode("utf-16-le") for text in (key, value))
        at = start + len(texts)
        head += le32(at) + le32(at + len(key)) + le16(len(key)) + le16(len(value))
        texts += key + value
    return head + texts


LINKAGE = ("parent_linkage", "{%s}" % DATA_WRITE)
PATH = ("relative_path", "vhdx-base.vhdx")
PARENT = locator([LINKAGE, PATH, ("absolute_win32_path", "\\\\?\\C:\\disks\\vhdx-base.vhdx"),
                  ("volume_path", "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\base.vhdx")])


def log_entry(sequence, tail, updates, flushed=MIB, last=MIB, ident=LOG_GUID, patches=()):
    """An entry of the log: `updates` are (file offset, 4096 bytes), or (file offset, n) for n
    bytes of zeros; `tail` is in sectors. `patches` come before the checksum."""
    head, data = b"", b""
    for offset, new in updates:
        if isinstance(new, int):
            head += b"zero" + le32(0) + le64(new)
        else:
            new = new.ljust(PAGE, b"\0")
            head += b"desc" + new[-4:] + new[:8]
            data += b"data" + le32(sequence >> 32) + new[8:-4] + le32(sequence)
        head += le64(offset) + le64(sequence)
    size = -(-(64 + len(head)) // PAGE) * PAGE
    head = (b"loge" + le32(0) + le32(size + len(data)) + le32(tail * PAGE) + le64(sequence)
            + le32(len(updates)) + le32(0) + ident + le64(flushed) + le64(last) + head)
    return sealed(patched(head.ljust(size, b"\0") + data, patches))


def ring(entries, length=MIB):
    """A log with entries at these sectors; they go on at the start."""
    log = bytearray(length)
    for sector, entry in entries:
        for at in range(0, len(entry), PAGE):
            to = (sector * PAGE + at) % length
            log[to:to + PAGE] = entry[at:at + PAGE]
    return bytes(log)


def bitmap(ranges):
    """A sector bitmap block in which these sectors are present."""
    bits = bytearray(MIB)
    for start, end in ranges:
        for sector in range(start, end):
            bits[sector // 8] |= 1 << sector % 8
    return bytes(bits)


def full(mib):
    return mib * MIB | 6


def partial(mib):
    return mib * MIB | 7


def chunks(ratio, *pairs):
    """A BAT of chunks: (entries of payload blocks, entry of the sector bitmap)."""
    table = []
    for payload, bits in pairs:
        table += list(payload) + [0] * (ratio - len(payload)) + [bits]
    return table


class Disk:
    """Log at 1 MiB, metadata at 2 MiB, BAT at 3 MiB, blocks from 4 MiB on."""

    def __init__(self, size, bat=(), **fields):
        self.size, self.bat = size, list(bat)
        self.block_size, self.sector_size, self.physical_size = MIB, 512, 4096
        self.flags = 0                 # bit 0: fixed, bit 1: has a parent
        self.bat_length = MIB
        self.items = []                # more metadata items: (GUID, flags, bytes)
        self.regions = []              # more regions
        self.log = b""
        self.log_place = (LOG_AT, MIB)
        # Changes before the checksums are made: (offset in the structure, bytes).
        self.header1, self.header2 = [], []
        self.table1, self.table2 = [], []
        self.metadata = []
        self.data = []                 # (file offset, bytes), over everything else
        self.length = BLOCKS_AT
        for name, value in fields.items():
            assert hasattr(self, name), name
            setattr(self, name, value)

    def _header(self, sequence, patches):
        head = (b"head" + bytes(4) + le64(sequence) + guid("11111111-2222-3333-4444-555555555555")
                + guid(DATA_WRITE) + (LOG_GUID if self.log else bytes(16)) + le16(0) + le16(1)
                + le32(self.log_place[1]) + le64(self.log_place[0]))
        return sealed(patched(head.ljust(PAGE, b"\0"), patches))

    def _regions(self, patches):
        entries = [region(BAT, BAT_AT, self.bat_length), region(METADATA, METADATA_AT, MIB),
                   *self.regions]
        table = b"regi" + bytes(4) + le32(len(entries)) + bytes(4) + b"".join(entries)
        return sealed(patched(table.ljust(64 * KIB, b"\0"), patches))

    def _metadata(self):
        items = [(FILE_PARAMETERS, 4, le32(self.block_size) + le32(self.flags)),
                 (VIRTUAL_DISK_SIZE, 6, le64(self.size)),
                 (VIRTUAL_DISK_ID, 6, guid("77777777-7777-7777-7777-777777777777")),
                 (LOGICAL_SECTOR_SIZE, 6, le32(self.sector_size)),
                 (PHYSICAL_SECTOR_SIZE, 6, le32(self.physical_size)), *self.items]
        table, content = b"metadata" + bytes(2) + le16(len(items)) + bytes(20), b""
        for ident, flags, data in items:
            at = 64 * KIB + len(content)
            table += ident + le32(at) + le32(len(data)) + le32(flags) + le32(0)
            content += data
        return patched(table.ljust(64 * KIB, b"\0") + content, self.metadata)

    def pages(self):
        """{file offset: 4096 bytes}: what is not a hole."""
        entries = struct.pack("<%dQ" % len(self.bat), *self.bat)
        pieces = [(0, b"vhdxfile" + "instar tests".encode("utf-16-le")),
                  (64 * KIB, self._header(1, self.header1)),
                  (128 * KIB, self._header(2, self.header2)),
                  (192 * KIB, self._regions(self.table1)),
                  (256 * KIB, self._regions(self.table2)),
                  (self.log_place[0], self.log), (METADATA_AT, self._metadata()),
                  (BAT_AT, entries), *self.data]
        pages = {}
        for at, data in pieces:
            for page in range(at // PAGE * PAGE, at + len(data), PAGE):
                skip = max(0, at - page)
                part = data[max(0, page - at):page + PAGE - at]
                # A page of zeros is left as a hole, unless something is there already.
                if page in pages or any(part):
                    target = pages.setdefault(page, bytearray(PAGE))
                    target[skip:skip + len(part)] = part
        return pages

    def write(self, path):
        pages = self.pages()
        write_file(path, self.length, [(at, bytes(pages[at][:max(0, self.length - at)]))
                                       for at in sorted(pages) if at < self.length])
