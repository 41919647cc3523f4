"""The packed form of an image, and the manifest.

An image is stored as the gzip of its data runs, one after the other; where they belong
is in the manifest. The file system's holes are part of what `map` prints, so an archive
that knows only bytes would not do.
"""

import fcntl
import hashlib
import json
import os
import struct
import zlib
from contextlib import contextmanager
from pathlib import Path

from .common import data_runs

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "manifest.json"
IMAGES = ROOT / "images"
EXPECTED = ROOT / "expected"

# Smallest unit of a hole on ext4, xfs and tmpfs.
GRANULE = 4096


def gzip_bytes(data):
    """gzip with a header that depends on neither clock, file name nor Python version."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = squeeze.compress(data) + squeeze.flush()
    tail = struct.pack("<II", zlib.crc32(data), len(data) & 0xffffffff)
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + body + tail


def gunzip_bytes(packed):
    return zlib.decompress(packed, 31)


def read_runs(path):
    """(size, [[offset, length], ...], the data of the runs) of a file."""
    with open(path, "rb") as source:
        os.fsync(source.fileno())
        size = os.fstat(source.fileno()).st_size
        runs = data_runs(source.fileno(), size)
        data = bytearray()
        for offset, length in runs:
            if offset % GRANULE or (length % GRANULE and offset + length != size):
                raise RuntimeError("%s: holes are not on %d-byte boundaries here; set "
                                   "TMPDIR to a folder on ext4 or tmpfs" % (path, GRANULE))
            source.seek(offset)
            data += source.read(length)
    return size, [list(r) for r in runs], bytes(data)


def unpack(entry, packed, path):
    """Writes the image that `entry` describes; the reverse of `read_runs`."""
    data = memoryview(gunzip_bytes(packed))
    at = 0
    with open(path, "wb") as out:
        for offset, length in entry["runs"]:
            out.seek(offset)
            out.write(data[at:at + length])
            at += length
        out.truncate(entry["size"])
        out.flush()
        os.fsync(out.fileno())
    if at != len(data):
        raise RuntimeError("%s: %d bytes packed, runs say %d" % (entry["id"], len(data), at))


def digest(packed):
    return hashlib.sha256(packed).hexdigest()


def packed_path(ident):
    return IMAGES / (ident + ".gz")


def with_companions(ident, entries):
    """The ids of an image and of everything that lies beside it, the image first."""
    seen, todo = [], [ident]
    while todo:
        one = todo.pop(0)
        if one not in seen:
            seen.append(one)
            todo += entries[one].get("companions", [])
    return seen


def load_manifest():
    if not MANIFEST.exists():
        return {}
    return {e["id"]: e for e in json.loads(MANIFEST.read_text())["images"]}


def save_manifest(entries):
    """One line per image, sorted by id, so that a diff shows which images changed."""
    lines = ",\n".join("  " + json.dumps(entries[i], ensure_ascii=False) for i in sorted(entries))
    text = '{\n "images": [\n%s\n ]\n}\n' % lines
    temporary = MANIFEST.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(MANIFEST)


@contextmanager
def locked():
    """Two runs of `make` at the same time must not lose each other's entries."""
    fd = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def check_holes(folder):
    """Stops with a message if the file system of `folder` has no usable holes."""
    probe = Path(folder) / "hole-probe"
    with open(probe, "wb") as out:
        out.seek(4 * GRANULE)
        out.write(b"x" * GRANULE)
        out.truncate(8 * GRANULE)
    with open(probe, "rb") as source:
        runs = data_runs(source.fileno(), 8 * GRANULE)
    probe.unlink()
    if runs != [(4 * GRANULE, GRANULE)]:
        raise SystemExit("%s: this file system does not report holes in %d-byte units; set "
                         "TMPDIR to a folder on ext4 or tmpfs" % (folder, GRANULE))
