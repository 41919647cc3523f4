"""Raw images: holes, odd sizes, and files that nearly look like another format."""

from .common import GIB, KIB, MIB, TIB, Image, be32, be64, fill, write_file
from .luks_image import Volume2, segment


def _image(name, exercises, size, pieces, **more):
    return Image(id="raw-" + name, name="raw-%s.raw" % name, format="raw", exercises=exercises,
                 build=lambda path: write_file(path, size, pieces), **more)


def images():
    yield _image("data-and-holes", "two pieces of data, a hole between and a trailing hole",
                 1 * MIB, [(0, fill(4 * KIB, 1)), (64 * KIB, fill(8 * KIB, 2))],
                 # The sum of start and length overflows: an empty window from 7.2 on.
                 windows=[["-s", "65536", "-l", "4096"], ["-s", "65535", "-l", "2"],
                          ["-s", "4097", "-l", "61440"], ["-s", "73728"],
                          ["-s", "1048576", "-l", "1"], ["-l", "0"],
                          ["-s", "1", "-l", "9223372036854775807"],
                          ["-s", "64k", "-l", "1E"], ["-s", "0x1000", "-l", "0x1001"]])
    yield _image("all-data", "no hole at all", 64 * KIB, [(0, fill(64 * KIB, 3))])
    yield _image("all-hole", "no data at all, a whole number of sectors", 1 * MIB, [])
    yield _image("empty", "a file of zero bytes, which is never probed", 0, [])
    yield _image("tail-data-1000", "data up to an unaligned end: 24 bytes of zeros follow it",
                 1000, [(0, fill(1000, 4))])
    yield _image("tail-hole-1000", "a hole up to an unaligned end: rounded up, one extent",
                 1000, [])
    yield _image("tail-513", "one byte in the second sector", 513, [(0, fill(513, 5))])
    yield _image("tail-data-after-hole", "unaligned end in data behind a hole",
                 64 * KIB + 700, [(64 * KIB, fill(700, 6))])
    yield _image("tail-hole-after-data", "unaligned end in a hole behind data",
                 64 * KIB + 700, [(0, fill(4 * KIB, 7))])
    yield _image("leading-hole", "hole first, data to the very end",
                 256 * KIB, [(192 * KIB, fill(64 * KIB, 8))])
    yield _image("many-extents", "thirty pieces of 4 KiB with holes of 4 KiB between them",
                 240 * KIB, [(i * 8 * KIB, fill(4 * KIB, i + 1)) for i in range(30)])
    yield _image("huge-sparse", "1 TiB of hole with data at 0, in the middle and at the end",
                 1 * TIB, [(0, fill(4 * KIB, 9)), (300 * GIB, fill(8 * KIB, 10)),
                           (1 * TIB - 4 * KIB, fill(4 * KIB, 11))])
    odd = _image("odd-name", "a file name with spaces, quotes, a comma and letters beyond ASCII",
                 64 * KIB, [(0, fill(4 * KIB, 25))])
    odd.name = "raw odd \"näme\", 100%.raw"
    yield odd
    # Signatures that nearly fit: every one of these is raw.
    yield _image("near-vhdx", "begins with vhdxfilX", 128 * KIB,
                 [(0, b"vhdxfilX" + fill(4 * KIB - 8, 12))])
    yield _image("near-qcow2", "qcow2 magic with version 0", 128 * KIB,
                 [(0, b"QFI\xfb" + bytes(4) + fill(4 * KIB - 8, 13))])
    yield _image("near-vmdk", "vmdk magic in the wrong letter case", 128 * KIB,
                 [(0, b"kdmv" + fill(4 * KIB - 4, 14))])
    yield _image("near-vpc", "VHD cookie at 1 instead of 0", 128 * KIB,
                 [(0, b"\0conectix" + fill(4 * KIB - 9, 15))])
    yield _image("near-qcow2-short", "three bytes of the qcow2 magic and nothing else",
                 3, [(0, b"QFI")])
    yield _image("near-dmg", "a text with the letters koly where a trailer may be", 8 * KIB,
                 [(0, (b"x" * 7450 + b"koly" + b"a" * 8192)[:8 * KIB])])
    yield _image("near-cloop", "what FreeBSD calls uzip, which starts as cloop does", 8 * KIB,
                 [(0, (b"#!/bin/sh\n#V2.0 Format\n(kldstat -qm g_uzip||kldload geom_uzip)>&-&&"
                       b"mount_cd9660 /dev/`mdconfig -af $0`.uzip $1\nexit $?\n").ljust(128, b"\0")
                   + be32(4096) + be32(2) + be64(160) + be64(560) + be64(160) + fill(400, 26))])
    yield _image("after-luks", "a partition table over the first header of a LUKS volume, whose "
                 "second one is left", 1 * MIB,
                 [(0, bytes(446) + bytes([0, 0, 2, 0, 0x83, 0, 0, 0, 8, 0, 0, 0, 0, 7, 0, 0])
                   + bytes(48) + b"\x55\xaa"), *Volume2([segment(64 * KIB)], MIB).header(1)],
                 kind="hostile")
    # Companions of qcow2 overlays, and images in their own right.
    yield _image("base-short", "backing file that ends, unaligned, before its overlay",
                 300 * KIB + 1000, [(0, fill(64 * KIB, 16)), (300 * KIB, fill(1000, 17))])
    yield _image("base-1m", "backing file of 1 MiB with holes",
                 1 * MIB, [(64 * KIB, fill(64 * KIB, 18)), (512 * KIB, fill(100 * KIB, 19))])
    yield _image("base-long", "backing file that is longer than its overlay",
                 3 * MIB, [(960 * KIB, fill(128 * KIB, 20)), (2 * MIB, fill(64 * KIB, 21))])
    yield _image("qcow2-data", "data file of a qcow2 image; has holes inside mapped clusters",
                 1 * MIB, [(0, fill(64 * KIB, 22)), (128 * KIB, fill(4 * KIB, 23)),
                           (512 * KIB, fill(128 * KIB, 24))])
