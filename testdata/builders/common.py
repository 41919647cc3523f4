"""What every image builder uses, and how to write one.

A builder module (`builders/<format>.py`) has one function:

    from .common import Image, write_file, fill, qemu_img, qemu_io, patch

    def images():
        yield Image(
            id="vhd-dynamic-holes",            # lower case, starts with the builder's name
            name="vhd-dynamic-holes.vhd",      # file name as unpacked (no folders)
            format="vhd",                      # instar's name
            exercises="dynamic disk, first and last block absent",   # one sentence
            build=_dynamic_holes)              # build(path) writes the file at path

        yield Image(id="vhd-fixed", ..., variants=[["-f", "vpc"], []])
        yield Image(id="vmdk-two-extents", ..., companions=["vmdk-two-extents-s001"])
        yield Image(id="vhdx-bad-magic", ..., kind="hostile", build=...)

Fields beyond these five:

* `kind`       "safe" (default: a sound image; qemu-img maps it) or "hostile" (some
               field is broken; the tool must answer with an error or, where qemu does
               so, with a map; never crash).
* `companions` ids of the images that must lie beside this one, under their own
               `name` (backing files, data files, VMDK extents). Each of them is an
               image of its own with its own entry; an extent that is no image by
               itself has format "raw" and still an id of its builder
               ("vmdk-two-extents-flat"). Companions of companions come along. They
               are already in the folder of `path` when build() runs.
* `qemu`       {"format": "vpc"}: qemu cannot probe it, record with `-f vpc` only;
               {"args": [...]}: replaces the FILE argument altogether (secrets,
               --image-opts).
* `variants`   list of argument lists, each recorded in turn, e.g. [["-f", "vpc"], []].
               Default [[]], or [["-f", FMT]] with qemu={"format": FMT}.
* `windows`    list of window arguments ([["-s", "65536", "-l", "1"], ...]) instead of
               the ones `make` picks from qemu's answer. Use [] for "none".
* `skip_versions`  {"5.2": "why nothing is recorded"}; the key "*" means all versions.
* `needs_blocks`   what stat must say about the number of 512-byte blocks, for images whose
               map depends on it; `make` checks it, tests skip the image elsewhere.

Rules for build(path):

* Write the file at `path` and nothing else. The current directory is the folder of
  `path`, so names stored inside images should be the bare file names.
* Same bytes every time. What qemu-img makes up (VMDK CID, VHD uuid and time stamp,
  VHDX GUIDs and the checksums over them, bitmap names) is patched after creation with
  `patch`, or the image is written byte by byte with `write_file`.
* What is a hole and what is data is part of the image. `write_file` leaves a hole
  wherever no piece is given; it never writes zeros by itself. Keep pieces on multiples
  of 4096 where holes matter: that is the granularity of the file systems in use.
* Keep images small (a few KiB packed; `fill` compresses well) and with few runs. Big
  virtual sizes are fine, big files made of holes too (below 16 TiB).
* Data should not be zeros and should differ from place to place, so that a wrong offset
  shows: use `fill(length, tag)` with a different tag for each piece.

Run `testdata/make --only vhd` (or an id) while working; see `testdata/README.md`.
"""

import os
import struct
import subprocess
from dataclasses import dataclass, field
from typing import Callable, Optional

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB


@dataclass
class Image:
    id: str
    name: str
    format: str
    exercises: str
    build: Callable[[str], None]
    kind: str = "safe"
    companions: list = field(default_factory=list)
    qemu: Optional[dict] = None
    variants: Optional[list] = None
    windows: Optional[list] = None
    skip_versions: Optional[dict] = None
    needs_blocks: Optional[int] = None

    def __post_init__(self):
        assert self.id == self.id.lower() and " " not in self.id, self.id
        assert "/" not in self.name, self.name
        assert self.kind in ("safe", "hostile"), self.id
        assert not self.exercises.endswith("."), self.id
        if self.variants is None and self.qemu and "format" in self.qemu:
            self.variants = [["-f", self.qemu["format"]]]


def run(*command):
    """Runs a tool and fails loudly, with what it said."""
    done = subprocess.run(command, capture_output=True, text=True,
                          env=dict(os.environ, LC_ALL="C"))
    if done.returncode != 0:
        raise RuntimeError("%s\n%s%s" % (" ".join(command), done.stdout, done.stderr))
    return done.stdout


def qemu_img(*args):
    """`qemu-img ARGS...`, the one on PATH: qemu_img("create", "-f", "vpc", path, "1M")."""
    return run("qemu-img", *map(str, args))


def qemu_io(path, *commands, options=()):
    """`qemu-io`: qemu_io(path, "write -P 0x11 0 64k", "discard 1M 64k").

    `options` go in front of the file name, e.g. ("-f", "vpc")."""
    args = []
    for command in commands:
        args += ["-c", command]
    out = run("qemu-io", *options, *args, str(path))
    # qemu-io ends with status 0 after a failed command; its complaints are on stdout.
    for line in out.splitlines():
        if "failed" in line or "Invalid" in line or "invalid" in line:
            raise RuntimeError("qemu-io %s: %s" % (path, out))


def fill(length, tag):
    """`length` bytes of recognisable, well compressible data without a zero byte.

    Every sector starts with its own number within the piece, so a shifted offset shows."""
    assert 1 <= tag <= 255
    out = bytearray()
    sector = 0
    while len(out) < length:
        mark = (b"%02x.%06x|" % (tag, sector))
        out += mark + bytes([tag]) * (512 - len(mark))
        sector += 1
    return bytes(out[:length])


def write_file(path, size, pieces):
    """A file of `size` bytes with `pieces` = [(offset, bytes), ...]; the rest is holes."""
    with open(path, "wb") as out:
        for offset, data in pieces:
            out.seek(offset)
            out.write(data)
        out.truncate(size)


def patch(path, offset, data):
    """Overwrites bytes of an existing file."""
    with open(path, "r+b") as out:
        out.seek(offset)
        out.write(data)


def read_at(path, offset, length):
    with open(path, "rb") as source:
        source.seek(offset)
        return source.read(length)


def punch(path, offset, length):
    """Turns a range of a file into a hole (both ends on multiples of 4096).

    The standard library has no fallocate with flags, so the file is written anew."""
    with open(path, "rb") as source:
        size = os.fstat(source.fileno()).st_size
        pieces = []
        for start, count in data_runs(source.fileno(), size):
            source.seek(start)
            pieces.append((start, source.read(count)))
    kept = []
    for start, data in pieces:
        end = start + len(data)
        if start < offset:
            kept.append((start, data[:max(0, offset - start)]))
        if end > offset + length:
            skip = max(0, offset + length - start)
            kept.append((start + skip, data[skip:]))
    write_file(path, size, [p for p in kept if p[1]])


def data_runs(fd, size):
    """[(offset, length), ...] of the data in a file, from SEEK_DATA and SEEK_HOLE."""
    runs, at = [], 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break  # nothing but a hole up to the end
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        runs.append((start, at - start))
    return runs


def be16(n): return struct.pack(">H", n)
def be32(n): return struct.pack(">I", n & 0xffffffff)
def be64(n): return struct.pack(">Q", n & (2**64 - 1))
def le16(n): return struct.pack("<H", n)
def le32(n): return struct.pack("<I", n & 0xffffffff)
def le64(n): return struct.pack("<Q", n & (2**64 - 1))
