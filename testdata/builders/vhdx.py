"""VHDX images: dynamic, fixed and differencing, logs, and what is wrong with each field.

qemu-img prints one extent for any VHDX that it opens, and opens neither differencing disks nor
files with a pending log; those are sound images nevertheless.
"""

import struct

from .common import GIB, KIB, MIB, TIB, Image, fill, le16, le32, le64, patch, punch, qemu_img, \
    qemu_io, read_at
from .vhdx_image import (BAT, BAT_AT, LINKAGE, LOGICAL_SECTOR_SIZE, METADATA_AT, PAGE, PARENT,
                         PARENT_LOCATOR, PATH, UNKNOWN, Disk, bitmap, chunks, full,
                         guid, locator, log_entry, partial, region, ring, sealed)

BIG = 256 * MIB            # the largest block: 16 of them are a chunk


def _image(name, exercises, build, **more):
    return Image(id="vhdx-" + name, name="vhdx-%s.vhdx" % name, format="vhdx",
                 exercises=exercises, build=build, **more)


def _disk(name, exercises, *args, kind="safe", companions=(), qemu=None, skip_versions=None,
          **fields):
    return _image(name, exercises, lambda path: Disk(*args, **fields).write(path), kind=kind,
                  companions=list(companions), qemu=qemu, skip_versions=skip_versions)


def _broken(name, exercises, *args, **fields):
    return _disk(name, exercises, *(args or (MIB, [0])), kind="hostile", **fields)


def block(mib, tag, at=0, length=8 * KIB):
    """Data in the block that lies at this MiB of the file."""
    return mib * MIB + at, fill(length, tag)


# ------------------------------------------------------------------ by qemu-img

def _pin(path):
    """Replaces what qemu-img makes up: sequence numbers and GUIDs, also those in old log entries,
    which mean nothing any more."""
    length, start = struct.unpack("<IQ", read_at(path, 64 * KIB + 68, 12))
    punch(path, start, length)
    for number, at in enumerate((64 * KIB, 128 * KIB)):
        header = bytearray(read_at(path, at, PAGE))
        header[8:16] = le64(number + 1)
        header[16:32] = guid("11111111-2222-3333-4444-555555555555")
        header[32:48] = guid("83ed0ec3-24c8-49a6-a959-5e4bf1288bfb")
        patch(path, at, sealed(header))
    entries = {read_at(path, 192 * KIB + 16 + 32 * i, 16): 192 * KIB + 32 + 32 * i for i in (0, 1)}
    metadata = [at for ident, at in entries.items() if ident != BAT][0]
    start = int.from_bytes(read_at(path, metadata, 8), "little")
    patch(path, start + 64 * KIB + 16, guid("77777777-7777-7777-7777-777777777777"))


def _by_qemu(subformat, size, *writes, **options):
    def build(path):
        options_text = ",".join("%s=%s" % pair for pair in
                                {"subformat": subformat, **options}.items())
        qemu_img("create", "-f", "vhdx", "-o", options_text, path, size)
        if writes:
            qemu_io(path, *writes)
        _pin(path)
    return build


def by_qemu():
    yield _image("qemu-dynamic", "dynamic disk by qemu-img, some blocks written",
                 _by_qemu("dynamic", "20M", "write -P 0x11 1M 64k", "write -P 0x12 9M 2M",
                          "write -P 0x13 20479k 1k", block_size="1M"))
    yield _image("qemu-dynamic-absent", "as above, new blocks are not present instead of zero",
                 _by_qemu("dynamic", "20M", "write -P 0x11 3M 64k", block_size="1M",
                          block_state_zero="off"))
    yield _image("qemu-dynamic-large", "largest blocks, a short last block, a log of 2 MiB",
                 _by_qemu("dynamic", "1000M", "write -P 0x11 999M 64k", block_size="256M",
                          log_size="2M"))
    yield _image("qemu-fixed", "fixed disk by qemu-img",
                 _by_qemu("fixed", "4M", "write -P 0x11 1M 64k", block_size="1M"))
    yield _image("qemu-empty-100g", "dynamic disk by qemu-img, never written",
                 _by_qemu("dynamic", "100G"))
    yield _image("qemu-size-0", "a disk without a byte, with the BAT that qemu-img gives it",
                 _by_qemu("dynamic", "0", block_size="1M"))


# ------------------------------------------------------------------ dynamic, fixed

def dynamic():
    yield _disk("size-0", "a disk without a byte and without a BAT entry", 0)
    yield _disk("every-state", "every valid state of a payload block, reserved bits set", 9 * MIB,
                [0, 5 * MIB | 1, 2 | 0xfff00, 3, 5, full(4) | 0x800, full(5), full(9) & ~7,
                 full(7)],
                data=[block(4, 1), block(5, 2), block(7, 3)], length=8 * MIB)
    yield _disk("out-of-order", "blocks in the file in reverse order", 4 * MIB,
                [full(7), full(6), full(5), full(4)],
                data=[block(4, 1), block(5, 2), block(6, 3), block(7, 4)], length=8 * MIB)
    yield _disk("last-block-cut", "the file ends where the used part of the last block does",
                MIB + 512, [full(4), full(5)], data=[block(4, 1), block(5, 2, 0, 512)],
                length=5 * MIB + 512)
    yield _disk("fixed", "fixed disk with all blocks present", 3 * MIB,
                [full(4), full(5), full(6)], flags=1, data=[block(5, 1)], length=7 * MIB)
    yield _disk("fixed-with-gaps", "fixed disk with blocks that are not present and zero",
                4 * MIB, [full(4), 0, 2, full(5)], flags=1, data=[block(5, 1)], length=6 * MIB)
    yield _disk("junk-bitmap-entries", "junk where the entries of sector bitmaps would be",
                34 * BIG, chunks(16, ([0] * 16, 2 ** 64 - 1), ([2] * 16, partial(1)), ([0], 0)),
                block_size=BIG)
    yield _disk("across-chunks", "data that goes on over the ends of chunks, a last block cut",
                34 * BIG - 512,
                chunks(16, ([full(1024 + 256 * i) for i in range(16)], 0),
                       ([full(1024 + 256 * i) for i in range(16, 32)], 0), ([0, full(512)], 0)),
                block_size=BIG, data=[block(1024, 1), block(512, 2)], length=10 * GIB)
    yield _disk("bat-behind-blocks", "block 0 lies before the BAT, block 1 behind it", 2 * MIB,
                table1=[(32, le64(5 * MIB))], table2=[(32, le64(5 * MIB))],
                data=[(5 * MIB, le64(full(4)) + le64(full(6))), block(4, 1), block(6, 2)],
                length=7 * MIB)
    yield _disk("bat-exact", "the file ends with the BAT entry of the last payload block",
                49 * 16 * BIG, block_size=BIG, length=BAT_AT + 8 * (49 * 17 - 1))
    yield _disk("largest", "64 TiB in blocks of 1 MiB, the BAT a hole but for a few entries",
                64 * TIB, bat_length=513 * MIB,
                data=[(BAT_AT + 8 * 4096, le64(partial(999))),         # a bitmap's place
                      (BAT_AT + 8 * (4097 * 5 + 3), le64(full(600))),
                      (BAT_AT + 8 * (4097 * 16384 - 2), le64(full(601))),
                      block(600, 1), block(601, 2)],
                length=602 * MIB)
    yield _disk("sectors-4096", "logical sectors of 4096 bytes", 3 * MIB, [0, full(4), 2],
                sector_size=4096, data=[block(4, 1)], length=5 * MIB)
    yield _disk("odd-size", "a virtual size that is rounded down to a sector", 1000, [full(4)],
                data=[block(4, 1, 0, 4096)], length=5 * MIB)


def variations():
    """What differs only outside the BAT."""
    good = {"data": [block(4, 1)], "length": 5 * MIB}
    fine = (2 * MIB, [full(4), 2])
    broken = [(0, b"HEAD")]
    yield _disk("header-1-only", "header 2 is broken", *fine, header2=broken, **good)
    yield _disk("header-2-only", "header 1 is broken", *fine, header1=broken, **good)
    yield _disk("header-1-newer", "header 1 has the higher sequence number, header 2 a log",
                *fine, header1=[(8, le64(9))], header2=[(48, b"x" * 16)], **good)
    yield _disk("headers-equal", "both headers are the same, as Disk2vhd writes them",
                *fine, header2=[(8, le64(1))], **good)
    yield _disk("no-log", "neither log nor log version matter without a log's GUID",
                *fine, log_place=(0, 0), header2=[(64, le16(7))], **good)
    yield _disk("unknown-parts", "an unknown region and unknown items, none of them required",
                *fine, regions=[region(UNKNOWN, 9 * MIB, MIB, 0)],
                items=[(UNKNOWN, 2, b"x")], **good)
    yield _disk("user-items", "user metadata with the GUIDs of system metadata",
                *fine, items=[(UNKNOWN, 2, b"x"), (UNKNOWN, 1, b"y"),
                              (LOGICAL_SECTOR_SIZE, 1, b"z")], **good)
    yield _disk("region-table-2", "copy 1 of the region table has a wrong checksum",
                *fine, length=5 * MIB, data=[block(4, 1), (192 * KIB + 5000, b"x")])
    yield _disk("physical-520", "an impossible physical sector size", *fine, physical_size=520,
                **good)
    yield _disk("locator-unused", "a parent locator although the disk has no parent",
                *fine, items=[(PARENT_LOCATOR, 4, PARENT)], **good)


# ------------------------------------------------------------------ differencing

def _child(name, exercises, *args, item=PARENT, **fields):
    return _disk(name, exercises, *args, flags=2, items=[(PARENT_LOCATOR, 4, item)],
                 companions=["vhdx-base"], **fields)


def differencing():
    yield _disk("base", "the parent of the differencing disks", 8 * MIB,
                [full(4), full(5), 0, 2, full(6), full(7), 0, full(8)],
                data=[block(4, 0x41), block(5, 0x42), block(6, 0x43), block(7, 0x44, 0, MIB),
                      block(8, 0x45, 512 * KIB)], length=9 * MIB)
    yield _child("child", "differencing disk with every state and bits of all kinds", 8 * MIB,
                 chunks(4096, ([0, 1, 2, 3, full(5), partial(6), partial(7), partial(8),
                                full(99)], full(4))),
                 data=[(4 * MIB, bitmap([(4 * 2048 + 1, 4 * 2048 + 9), (5 * 2048, 5 * 2048 + 1),
                                         (5 * 2048 + 100, 6 * 2048), (6 * 2048, 6 * 2048 + 64),
                                         (7 * 2048 + 63, 7 * 2048 + 65)])),
                       block(5, 0x51), block(6, 0x52, 0, MIB), block(7, 0x53, 0, 32 * KIB),
                       block(8, 0x54, 0, 64 * KIB)], length=9 * MIB)
    yield _child("child-empty", "differencing disk in which nothing was written", 8 * MIB,
                 chunks(4096, ([0] * 8, 0)))
    yield _child("child-alternating", "every other sector of a block is present", 2 * MIB,
                 chunks(4096, ([partial(5), 0], full(4))),
                 data=[(4 * MIB, b"\x55" * 256), block(5, 0x51, 0, MIB)], length=6 * MIB)
    yield _child("child-all-bits", "partially present blocks of which all sectors are present",
                 2 * MIB, chunks(4096, ([partial(5), partial(6)], full(4))),
                 data=[(4 * MIB, b"\xff" * 512), block(5, 0x51), block(6, 0x52)],
                 length=7 * MIB)
    yield _child("child-second-chunk", "the sector bitmap of the second chunk, large blocks",
                 18 * BIG, chunks(16, ([0] * 16, 0), ([0, partial(256)], full(4))),
                 block_size=BIG,
                 data=[(4 * MIB + 65536, b"\x07"), (4 * MIB + 2 * 65536 - 1, b"\x80"),
                       block(256, 0x51), block(511, 0x52, MIB - 4096, 4096)], length=512 * MIB)
    yield _child("child-sectors-4096", "a sector bitmap of sectors of 4096 bytes", 3 * MIB,
                 chunks(2 ** 15, ([partial(6), 0, full(7)], full(4))), sector_size=4096,
                 data=[(4 * MIB, bitmap([(1, 3), (255, 256), (512, 600)])),
                       block(6, 0x51, 0, 32 * KIB), block(7, 0x52)], length=8 * MIB)
    yield _child("child-names", "a locator with a NUL, a second linkage and an unknown key", MIB,
                 chunks(4096, ([0], 0)),
                 item=locator([LINKAGE, ("parent_linkage2", LINKAGE[1]), ("x", "y"),
                               ("relative_path", "vhdx-base.vhdx\0")]))


# ------------------------------------------------------------------ logs

def _bat(*entries):
    return BAT_AT, b"".join(map(le64, entries))


def _logged(name, exercises, *entries, **fields):
    """Without its log, the disk's one block has a reserved state."""
    fields = {"data": [block(4, 1), block(5, 2)], "length": 6 * MIB, **fields}
    return _disk(name, exercises, fields.pop("size", MIB), [4], log=ring(entries), **fields)


def logs():
    yield _logged("log", "a log of one entry that makes the block present",
                  (0, log_entry(1, 0, [_bat(full(4))])))
    yield _logged("log-two-entries", "two entries, of which the second wins",
                  (0, log_entry(1, 0, [_bat(full(4))])), (2, log_entry(2, 0, [_bat(full(5))])))
    yield _logged("log-two-sectors", "one entry with two sectors of data",
                  (0, log_entry(1, 0, [(BAT_AT + PAGE, fill(PAGE, 9)), _bat(2, full(5))])),
                  size=2 * MIB)
    yield _logged("log-around", "a sequence that goes on at the start of the ring",
                  (253, log_entry(1, 253, [_bat(full(4))])),
                  (255, log_entry(2, 253, [_bat(full(5))])))
    yield _logged("log-two-sequences", "two sequences: the one with the higher number is active",
                  (0, log_entry(9, 0, [_bat(full(5))])), (8, log_entry(3, 8, [_bat(full(4))])))
    yield _logged("log-incomplete", "a newer sequence without its tail, and one of another log",
                  (0, log_entry(3, 0, [_bat(full(4))])), (8, log_entry(9, 6, [_bat(full(5))])),
                  (16, log_entry(20, 16, [_bat(full(5))], ident=UNKNOWN)))
    yield _logged("log-torn", "the newest entry was not written to its end",
                  (0, log_entry(1, 0, [_bat(full(5))])),
                  (2, log_entry(2, 0, [_bat(full(4))])[:PAGE]))
    yield _logged("log-written-back", "the tail of the newest entry is that entry itself",
                  (0, log_entry(1, 0, [_bat(4)])), (2, log_entry(2, 2, [_bat(full(5))])))
    yield _logged("log-nothing", "an entry without updates", (0, log_entry(1, 0, [])),
                  data=[(BAT_AT, le64(full(4))), block(4, 1)])
    # qemu-img refuses entries with descriptors in more than one sector.
    yield _logged("log-300-updates", "descriptors in three sectors, zeros and data",
                  (5, log_entry(1 << 33, 5, [(BAT_AT + PAGE * (1 + i % 4), PAGE)
                                             for i in range(299)] + [_bat(full(5))])))
    yield _disk("log-grows-file", "after the replay the file is longer and the BAT partly zero",
                3 * MIB, [4, 4, 4],
                log=ring([(0, log_entry(7, 0, [_bat(4, 2, 4)])),
                          (2, log_entry(8, 0, [(BAT_AT, PAGE), _bat(full(4), 2, full(6)),
                                               (5 * MIB, MIB)], last=7 * MIB))]),
                data=[block(4, 1)], length=5 * MIB)
    yield _disk("log-region-table", "the region table itself is in the log", 2 * MIB, [full(4), 2],
                log=ring([(0, log_entry(1, 0, [
                    (192 * KIB, Disk(0)._regions([])[:PAGE])]))]),
                data=[block(4, 1), (192 * KIB, bytes(PAGE)), (256 * KIB, bytes(PAGE))],
                length=5 * MIB)


# No version of qemu-img is done with such a log within the time limit of `record`.
SLOW = {"*": "qemu-img searches the log for longer than the time limit"}


def broken_logs():
    fine = [_bat(full(5))]
    broken = {
        "signature": (0, b"LOGE"), "length-0": (8, le32(0)), "length-odd": (8, le32(8193)),
        "length-long": (8, le32(2 * MIB)), "length-more": (8, le32(12288)),
        "tail-odd": (12, le32(1)), "tail-outside": (12, le32(MIB)), "sequence-0": (16, le64(0)),
        "descriptors": (24, le32(2 ** 32 - 1)), "guid": (32, b"x"),
        "last-offset": (56, le64(2 ** 64 - 1)), "descriptor": (64, b"DESC"),
        "descriptor-offset": (80, le64(2 ** 64 - PAGE)), "descriptor-odd": (80, le64(BAT_AT + 1)),
        "descriptor-sequence": (88, le64(2)), "data": (PAGE, b"DATA"),
        "data-sequence": (2 * PAGE - 4, le32(2)),
    }
    for name, change in broken.items():
        yield _logged("log-bad-" + name, "the only entry of the log is not valid: " + name,
                      (0, log_entry(1, 0, fine, patches=[change])), kind="hostile")
    yield _logged("log-bad-checksum", "the only entry of the log has a wrong checksum",
                  (0, log_entry(1, 0, fine)[:-9] + b"x" + log_entry(1, 0, fine)[-8:]),
                  kind="hostile")
    yield _broken("log-bad-empty", "a log's GUID, but no entry at all",
                  header2=[(48, b"x" * 16)])
    yield _broken("log-bad-no-room", "a log's GUID, but no log",
                  header2=[(48, b"x" * 16)], log_place=(MIB, 0))
    yield _logged("log-file-cut", "the file is shorter than when its log was written",
                  (0, log_entry(1, 0, fine, flushed=9 * MIB)), kind="hostile")
    yield _logged("log-version", "an unknown version of the log",
                  (0, log_entry(1, 0, fine)), header2=[(64, le16(1))], kind="hostile")
    yield _logged("log-outside", "the log lies behind the end of the file",
                  (0, log_entry(1, 0, fine)), header2=[(72, le64(64 * MIB))], kind="hostile")
    yield _logged("log-too-long", "a log of 128 MiB",
                  (0, log_entry(1, 0, fine)), header2=[(68, le32(128 * MIB)), (72, le64(8 * MIB))],
                  kind="hostile", length=140 * MIB)
    # Every sector starts an entry that claims all the others.
    claims = [log_entry(n + 1, 0, [], patches=[(8, le32(MIB))]) for n in range(256)]
    yield _logged("log-all-claims", "every sector of the log claims all of it",
                  *enumerate(claims), kind="hostile", skip_versions=SLOW)
    chain = [log_entry(n + 1, 255, []) for n in range(255)]
    yield _logged("log-endless", "entries that follow each other, but never reach their tail",
                  *enumerate(chain), kind="hostile", skip_versions=SLOW)


# ------------------------------------------------------------------ hostile

def broken_files():
    yield _disk("bad-signature", "another signature", MIB, [0], data=[(0, b"VHDXFILE")],
                kind="hostile", qemu={"format": "vhdx"})
    yield _broken("bad-headers", "neither header is valid", header1=[(0, b"x")],
                  header2=[(0, b"x")])
    yield _broken("bad-header-checksums", "neither header's checksum is right",
                  data=[(64 * KIB + 200, b"x"), (128 * KIB + 200, b"x")])
    yield _broken("headers-differ", "two headers with one sequence number that differ",
                  header2=[(8, le64(1)), (16, b"x")])
    yield _broken("version", "a later version of the format", header2=[(66, le16(2))])
    yield _broken("log-place-odd", "a log that is not on a MiB", log_place=(MIB + 4096, MIB))
    yield _broken("log-place-header", "a log in the header section", log_place=(0, MIB))
    yield _broken("log-length-odd", "a log that is not a whole number of MiB",
                  log_place=(MIB, 4096))
    yield _broken("cut-in-header", "the file ends in its header section", length=100 * KIB)
    yield _broken("cut-before-bat", "the file ends before the BAT", length=3 * MIB)


def _region_change(name, exercises, at, data, **fields):
    return _broken(name, exercises, table1=[(at, data)], table2=[(at, data)], **fields)


def broken_regions():
    yield _broken("region-tables", "both copies of the region table are broken",
                  data=[(192 * KIB, b"REGI"), (256 * KIB, b"REGI")])
    yield _region_change("region-count", "more regions than a table has room for", 8, le32(2048))
    yield _region_change("region-in-header", "the BAT in the header section", 32, le64(0))
    yield _region_change("region-odd", "the BAT is not on a MiB", 32, le64(BAT_AT + 4096))
    yield _region_change("region-length", "the BAT's length is not whole MiB", 40, le32(4096))
    yield _region_change("region-far", "the metadata region is behind the file's end", 64,
                         le64(2 ** 63))
    yield _region_change("region-overflow", "a region that ends behind 2^64", 64,
                         le64(2 ** 64 - MIB))
    yield _broken("region-twice", "an unknown region twice",
                  regions=[region(UNKNOWN, 8 * MIB, 0, 0)] * 2)
    yield _broken("region-bat-twice", "two BATs", regions=[region(BAT, 8 * MIB, MIB)])
    yield _broken("region-unknown", "an unknown region that is required",
                  regions=[region(UNKNOWN, 8 * MIB, MIB, 1)])
    yield _region_change("region-no-bat", "no BAT", 16, UNKNOWN,)
    yield _region_change("region-no-metadata", "no metadata region", 8, le32(1))
    yield _region_change("region-overlap", "the BAT in the metadata region", 32, le64(METADATA_AT))
    yield _region_change("region-overlap-log", "the BAT in the log", 32, le64(MIB))
    yield _broken("region-overlap-unknown", "an unknown region over the BAT",
                  regions=[region(UNKNOWN, BAT_AT, 9 * MIB, 0)])


def broken_metadata():
    yield _broken("metadata-signature", "another signature of the metadata table",
                  metadata=[(0, b"METADATA")])
    yield _broken("metadata-count", "more items than a table has room for",
                  metadata=[(10, le16(2048))])
    yield _broken("item-twice", "an unknown item twice", items=[(UNKNOWN, 1, b"x")] * 2)
    yield _broken("item-known-twice", "two logical sector sizes",
                  items=[(LOGICAL_SECTOR_SIZE, 6, le32(512))])
    yield _broken("item-unknown", "an unknown item that is required", items=[(UNKNOWN, 4, b"x")])
    yield _broken("item-of-user", "user metadata that is required, with a known item's GUID",
                  items=[(PARENT_LOCATOR, 5, b"x")])
    yield _broken("item-missing", "no physical sector size", metadata=[(10, le16(4))])
    yield _broken("item-in-table", "an item in the metadata table", metadata=[(48, le32(1000))])
    yield _broken("item-short", "file parameters of 4 bytes", metadata=[(52, le32(4))])
    yield _broken("item-outside", "an item that runs past its region",
                  metadata=[(80, le32(MIB - 4))])
    yield _broken("item-overflow", "an item that ends behind 2^32",
                  metadata=[(80, le32(2 ** 32 - 4))])
    for size in (0, 512 * KIB, 3 * MIB, 512 * MIB):
        yield _broken("block-size-%d" % size, "a block size of %d" % size, block_size=size)
    for size in (0, 1024, 8192):
        yield _broken("sector-size-%d" % size, "a logical sector size of %d" % size,
                      sector_size=size)
    yield _broken("size-over-64t", "one sector more than 64 TiB", 64 * TIB + 512,
                  bat_length=514 * MIB, length=600 * MIB)
    yield _broken("size-2-64", "the largest number as virtual size", 2 ** 64 - 1)
    yield _broken("bat-short", "a BAT of one entry less than needed", (2 ** 17 - 30) * MIB)


def broken_locators():
    def child(name, exercises, item):
        return _child("locator-" + name, exercises, MIB, chunks(4096, ([0], 0)), item=item,
                      kind="hostile")
    cut = locator([LINKAGE, PATH])
    yield _broken("locator-missing", "a parent, but no locator", flags=2)
    yield child("long", "a locator of more than 1 MiB", cut.ljust(MIB + 1, b"\0"))
    yield child("short", "a locator of 10 bytes", cut[:10])
    yield child("type", "an unknown type of locator", locator([LINKAGE, PATH], UNKNOWN))
    yield child("count", "more entries than there are", cut[:18] + le16(65535) + cut[20:])
    yield child("outside", "a key outside the locator", cut[:20] + le32(2 ** 32 - 1) + cut[24:])
    yield child("empty", "a value without bytes", locator([LINKAGE, ("relative_path", "")]))
    yield child("twice", "two relative paths", locator([LINKAGE, PATH, PATH]))
    yield child("nul", "a name with a NUL inside",
                locator([LINKAGE, ("relative_path", "a\0b")]))
    yield child("surrogate", "a name that is not UTF-16", cut[:-1] + b"\xd8")
    yield child("guid", "a linkage that is no GUID", locator([("parent_linkage", "x\n"), PATH]))
    yield child("no-linkage", "no linkage", locator([PATH]))
    yield child("no-path", "no path", locator([LINKAGE]))


def broken_entries():
    def entry(name, exercises, value, length=6 * MIB, **fields):
        return _broken("entry-" + name, exercises, 2 * MIB, [2, value], length=length, **fields)

    def child(name, exercises, payload, bits):
        return _child("entry-" + name, exercises, 2 * MIB,
                      chunks(4096, ([0, payload], bits)), length=6 * MIB, kind="hostile")
    yield entry("state-4", "the reserved state 4", 4)
    yield entry("partial", "partially present without a parent", partial(4))
    yield entry("offset-0", "a block at offset 0", full(0))
    yield entry("in-log", "a block in the log", full(1))
    yield entry("in-metadata", "a block in the metadata region", full(2))
    yield entry("in-bat", "a block in the BAT", full(3))
    yield entry("in-unknown", "a block in an unknown region", full(5),
                regions=[region(UNKNOWN, 5 * MIB, MIB, 0)])
    yield entry("behind-file", "a block behind the end of the file", full(6))
    yield entry("end-behind-file", "a block that runs past the end of the file", full(5),
                6 * MIB - 512)
    yield entry("offset-2-64", "a block that ends behind 2^64", 2 ** 64 - 2)
    yield _broken("entry-third-of-run", "a run of which the third block is outside", 3 * MIB,
                  [full(4), full(5), full(6)], length=6 * MIB)
    yield child("child-offset-0", "a partially present block at offset 0", partial(0), full(4))
    yield child("child-state-4", "the reserved state 4 with a parent", 4, 0)
    yield child("no-bitmap", "partially present, but no sector bitmap", partial(5), 0)
    yield child("bitmap-state", "a sector bitmap with a state of payload", partial(5), partial(4))
    yield child("bitmap-in-bat", "a sector bitmap in the BAT", partial(5), full(3))
    yield child("bitmap-behind-file", "a sector bitmap behind the file's end", partial(5), full(6))


def images():
    for part in (by_qemu, dynamic, variations, differencing, logs, broken_logs, broken_files,
                 broken_regions, broken_metadata, broken_locators, broken_entries):
        yield from part()
