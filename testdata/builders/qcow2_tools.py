"""Sound qcow2 images that qemu-img and qemu-io themselves wrote."""

import gzip
import os

from .common import be32, be64, patch, qemu_img, qemu_io
from .packed import ROOT

SECRET = "instar"


def secret(name):
    """What replaces FILE for an encrypted image."""
    return {"args": ["--object", "secret,id=s0,data=" + SECRET, "--image-opts",
                     "driver=qcow2,file.filename=qcow2-%s.qcow2,encrypt.key-secret=s0" % name]}


def v2_plain(path):
    qemu_img("create", "-q", "-f", "qcow2", "-o", "compat=0.10", path, "1M")
    qemu_io(path, "write -q -P 0x11 0 64k", "write -q -P 0x12 200k 10k", "write -q -P 0x13 960k 64k")


def v3_plain(path):
    qemu_img("create", "-q", "-f", "qcow2", path, "2M")
    qemu_io(path, "write -q -P 0x14 64k 128k", "write -q -z 512k 128k", "write -q -P 0x15 1M 192k",
            "write -q -z 1088k 64k", "write -q -P 0x16 2044k 4k")


def trailer_in_guest(path):
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    qemu_io(path, "write -q -P 0x1f 64k 64k")
    with open(path, "rb") as source:
        end = source.seek(0, 2)
    trailer = b"koly" + be32(4) + be32(512) + bytes(480) + be64(64) + bytes(12)
    patch(path, end - 512, trailer)


def v2_compressed(path):
    qemu_img("create", "-q", "-f", "qcow2", "-o", "compat=0.10", path, "1M")
    qemu_io(path, "write -q -c -P 0x17 64k 64k", "write -q -c -P 0x18 128k 64k",
            "write -q -P 0x19 192k 64k", "write -q -c -P 0x1a 512k 64k")


def extended_qemu(path):
    qemu_img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", path, "1M")
    qemu_io(path, "write -q -P 0x1b 10k 5k", "write -q -z 40k 3k", "write -q -z 128k 64k",
            "write -q -z 200k 8k", "write -q -P 0x1c 256k 192k")


def preallocated(path):
    qemu_img("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, "1M")
    qemu_io(path, "write -q -P 0x1d 128k 64k")


def bitmaps(path):
    qemu_img("create", "-q", "-f", "qcow2", path, "1M")
    qemu_img("bitmap", "--add", path, "first")
    qemu_img("bitmap", "--add", "-g", "4096", path, "second")
    qemu_io(path, "write -q -P 0x1e 128k 64k")


def bitmaps_stale(path):
    bitmaps(path)
    patch(path, 88, be64(0))  # as a program that knows no bitmaps leaves it


def aes(path, size="1M", *options):
    qemu_img("create", "-q", "-f", "qcow2", "--object", "secret,id=s0,data=" + SECRET, "-o",
             ",".join(["encrypt.format=aes,encrypt.key-secret=s0", *options]), path, size)


# Small clusters: encrypted data does not compress.
ENCRYPTED_WRITES = ["write -q -P 0x1f 4k 8k", "write -q -z 16k 4k", "write -q -P 0x20 32k 4k"]


def write_encrypted(path):
    opts = "driver=qcow2,file.filename=%s,encrypt.key-secret=s0" % os.path.basename(path)
    qemu_io(opts, *ENCRYPTED_WRITES,
            options=("--object", "secret,id=s0,data=" + SECRET, "--image-opts"))


def aes_data(path):
    aes(path, "1M", "cluster_size=4k")
    write_encrypted(path)


def aes_long_run(path):
    aes(path, "2G", "cluster_size=128k")


def luks_empty(path):
    """The key material in a LUKS header is random, so the whole fresh image is kept."""
    with gzip.open(ROOT / "parts" / "luks-empty.qcow2.gz") as part, open(path, "wb") as out:
        out.write(part.read())


def luks_data(path):
    luks_empty(path)
    write_encrypted(path)


def images(by_tool):
    yield by_tool("v2-plain", "version 2, written with qemu-io; host holes show (heuristic on, "
                  "48 KiB short of off)", v2_plain)
    yield by_tool("v3-plain", "version 3 with zero clusters, with and without space; host holes "
                  "show (heuristic on, 56 KiB short of off)", v3_plain)
    yield by_tool("trailer-in-guest", "the guest's last stored sector is the trailer of a UDIF "
                  "image", trailer_in_guest, kind="hostile")
    yield by_tool("v2-compressed", "version 2, zlib clusters next to plain ones", v2_compressed)
    yield by_tool("ext-l2-qemu", "extended L2 written with qemu-io", extended_qemu)
    yield by_tool("aes-empty", "AES, no data: an ordinary map without offsets", aes,
                  qemu=secret("aes-empty"))
    yield by_tool("aes-data", "AES with data: no offset anywhere, the table fails", aes_data,
                  qemu=secret("aes-data"))
    yield by_tool("aes-long-run", "AES, a run longer than 2^31 - 1 bytes in one L2 table: qemu-img "
                  "aborts, all versions", aes_long_run, qemu=secret("aes-long-run"), windows=[
                      ["-l", "2147483136"], ["-s", "65536", "-l", "2147418112"]])
    yield by_tool("luks-empty", "LUKS, no data", luks_empty, qemu=secret("luks-empty"))
    yield by_tool("luks-data", "LUKS with data and zero clusters", luks_data,
                  qemu=secret("luks-data"))
    yield by_tool("bitmaps", "two persistent bitmaps", bitmaps)
    yield by_tool("bitmaps-stale", "bitmaps that an older program invalidated: a warning, a map",
                  bitmaps_stale)
    yield by_tool("prealloc-metadata", "preallocation=metadata, then one write: host holes show "
                  "(clear margin)", preallocated)
