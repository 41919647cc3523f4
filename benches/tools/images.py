"""Large images that are cheap to make: sparse files in which only the metadata is written.

A run of `../compare` makes what it needs. Nothing random: the same images every time.

Most qcow2 images have an empty refcount table, so that they map like images whose data was
really written. With complete refcounts and holes in place of data, qemu-img (and instar) take an
image for one with preallocated metadata and ask the file system about every cluster: those are
the workloads whose names end in `-pre`.
"""

import os
import struct
import sys
import uuid
from array import array
from random import Random

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
COPIED = 1 << 63


class File:
    """A sparse file and the ranges in it that a reader of its map has to read."""

    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.ranges = []

    def put(self, offset, data, is_read=True):
        """Writes bytes, or an array of integers as they are in memory."""
        view = memoryview(data).cast("B")
        if is_read:
            self.ranges.append((offset, len(view)))
        while view:
            done = os.pwrite(self.fd, view, offset)
            view, offset = view[done:], offset + done

    def close(self, size):
        os.ftruncate(self.fd, size)
        os.close(self.fd)
        return [(self.path, self.ranges)]


def big_endian(numbers):
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def little_endian(numbers):
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def blocks(size, block):
    return -(-size // block)


# qcow2 ---------------------------------------------------------------------------------------

def qcow2(path, size, tables, bits=16, extended=False, refcounts=False, apart=False, backing=""):
    """Writes an image of these L2 tables.

    A table is None, or (clusters, entries): how many clusters of data it has, and a function
    that makes its entries, given where that data starts. The data follows its table, or, with
    `apart`, all tables come first.
    """
    file = File(path)
    cluster = 1 << bits
    # An empty refcount table takes the cluster between.
    l1_at = cluster if refcounts else 2 * cluster
    at = l1_at + blocks(len(tables) * 8, cluster) * cluster
    present = [table for table in tables if table]
    data_at = at + len(present) * cluster
    l1 = array("Q")
    for table in tables:
        if not table:
            l1.append(0)
            continue
        clusters, entries = table
        l1.append(at | COPIED)
        if apart:
            file.put(at, big_endian(entries(data_at)))
            at += cluster
            data_at += clusters * cluster
        else:
            file.put(at, big_endian(entries(at + cluster)))
            at += (1 + clusters) * cluster
    end = max(at, data_at) if apart else at
    file.put(l1_at, big_endian(l1))

    table_clusters = 1
    if refcounts:
        # Blocks for everything up to their own end, and a table behind them.
        per_block = cluster * 8 // 16
        count, total = 0, end // cluster
        while count < blocks(total, per_block):
            count = blocks(total, per_block)
            table_clusters = blocks(count * 8, cluster)
            total = end // cluster + count + table_clusters
        starts = range(end, end + count * cluster, cluster)
        table_at = end + count * cluster
        file.put(end, big_endian(array("H", [1]) * total))
        file.put(table_at, big_endian(array("Q", starts)))
        end = total * cluster
    else:
        table_at = cluster
    name = backing.encode()
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 112 if name else 0, len(name), bits,
                         size, 0, len(l1), l1_at, table_at, table_clusters, 0, 0)
    header += struct.pack(">QQQII", 0x10 if extended else 0, 0, 0, 4, 104) + bytes(8) + name
    file.put(0, header)
    return file.close(end)


def in_order(entries, clusters, step, cluster):
    """Every `step`-th entry is data, one cluster behind the other."""
    def make(base):
        numbers = array("Q", bytes(8 * entries))
        stop = base + clusters * cluster
        numbers[::step] = array("Q", range(base | COPIED, stop | COPIED, cluster))
        return numbers
    return clusters, make


def regular(path, size, step, bits=16, **options):
    cluster = 1 << bits
    entries = cluster // 8
    table = in_order(entries, entries // step, step, cluster)
    tables = [table] * (size // cluster // entries)
    return qcow2(path, size, tables, bits, apart=step == 1, **options)


def permuted(path, size):
    """All clusters are data, in an order that is far from theirs."""
    cluster, entries = 64 * KIB, 8192
    mask = size // cluster - 1

    def table(number):
        def make(base):
            start = base - number * entries * cluster
            numbers = array("Q")
            for i in range(number * entries, (number + 1) * entries):
                # Odd factors and shifts: each step maps the clusters one to one.
                i = i * 0x2545F5 & mask
                i = (i ^ i >> 7) * 0x1B873593 & mask
                numbers.append(start + i * cluster | COPIED)
            return numbers
        return entries, make
    tables = [table(number) for number in range(size // cluster // entries)]
    return qcow2(path, size, tables, apart=True)


def sparse(path, size, part, seed, **options):
    """One cluster in `part`, at random."""
    cluster, entries = 64 * KIB, 8192
    count = size // cluster
    chosen = sorted(Random(seed).sample(range(count), count // part))
    groups = [[] for _ in range(count // entries)]
    for number in chosen:
        groups[number // entries].append(number % entries)

    def table(group):
        def make(base):
            numbers = array("Q", bytes(8 * entries))
            for place, index in enumerate(group):
                numbers[index] = base + place * cluster | COPIED
            return numbers
        return (len(group), make) if group else None
    return qcow2(path, size, [table(group) for group in groups], **options)


def subclusters(path, size):
    """Extended L2 entries; every other subcluster of every cluster is data."""
    cluster, entries = 64 * KIB, 4096

    def make(base):
        numbers = array("Q", [0x5555_5555]) * (2 * entries)
        numbers[::2] = array("Q", range(base | COPIED, base + entries * cluster | COPIED, cluster))
        return numbers
    return qcow2(path, size, [(entries, make)] * (size // cluster // entries), extended=True)


def chain(path, size):
    """Six layers, each with a twentieth of the clusters; the last one is the top."""
    ranges, under = [], ""
    for layer in range(6):
        name = path if layer == 5 else f"{path}.{layer}"
        ranges += sparse(name, size, 20, 100 + layer, backing=under)
        under = os.path.basename(name)
    return ranges


# the other formats ---------------------------------------------------------------------------

def vmdk(path, size, step):
    """A sparse extent with grains of 64 KiB, every `step`-th of them present."""
    file = File(path)
    sectors, grain, per_table = size // 512, 128, 512
    tables = blocks(sectors, grain * per_table)
    descriptor = (f'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n'
                  f'createType="monolithicSparse"\nRW {sectors} SPARSE '
                  f'"{os.path.basename(path)}"\nddb.adapterType = "ide"\n').encode()
    directory = 32
    first = directory + blocks(tables * 4, 512)
    data = blocks(first + tables * 4, grain) * grain
    header = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", 1, 1, sectors, grain, 1, 20, per_table, 0,
                         directory, data, 0, b"\n \r\n", 0)
    file.put(0, header.ljust(512, b"\0") + descriptor.ljust(20 * 512, b"\0"))
    file.put(directory * 512, little_endian(array("I", range(first, first + tables * 4, 4))))
    grains = sectors // grain
    entries = array("I", bytes(4 * tables * per_table))
    end = data + grains // step * grain
    entries[:grains:step] = array("I", range(data, end, grain))
    file.put(first * 512, little_endian(entries))
    return file.close(end * 512)


def vhd(path, size):
    """A dynamic disk, every other block present."""
    file = File(path)
    block = 2 * MIB
    count = size // block

    def summed(data, at):
        struct.pack_into(">I", data, at, ~sum(data) & 0xFFFF_FFFF)
        return bytes(data)
    footer = bytearray(512)
    struct.pack_into(">8sIIQI4sI4sQQHBBI", footer, 0, b"conectix", 2, 0x1_0000, 512, 0, b"qem2",
                     0x5_0003, b"Wi2k", size, size, 65535, 16, 255, 3)
    footer[68:84] = uuid.UUID(int=4).bytes
    footer = summed(footer, 64)
    header = bytearray(1024)
    struct.pack_into(">8sQQIII", header, 0, b"cxsparse", (1 << 64) - 1, 1536, 0x1_0000, count,
                     block)
    data = 1536 + blocks(count * 4, 512) * 512
    table = array("I", b"\xff" * (data - 1536))
    sectors = (block + 512) // 512
    stop = data // 512 + blocks(count, 2) * sectors
    table[:count:2] = array("I", range(data // 512, stop, sectors))
    file.put(0, footer + summed(header, 36))
    file.put(1536, big_endian(table))
    file.put(stop * 512, footer)
    return file.close(stop * 512 + 512)


def crc32c(data):
    crc = 0xFFFF_FFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F6_3B78 if crc & 1 else 0)
    return crc ^ 0xFFFF_FFFF


def vhdx(path, size):
    """A dynamic disk with blocks of 1 MiB, every other block present."""
    file = File(path)
    block, sector = MIB, 512
    count = size // block
    per_chunk = (sector << 23) // block
    entries = count + (count - 1) // per_chunk
    table_at = 3 * MIB
    table_size = blocks(entries * 8, MIB) * MIB

    def summed(data):
        struct.pack_into("<I", data, 4, crc32c(bytes(data)))
        return bytes(data)
    file.put(0, b"vhdxfile")
    for sequence in (1, 2):
        header = bytearray(4096)
        struct.pack_into("<4sIQ16s16s16sHHIQ", header, 0, b"head", 0, sequence, b"f" * 16,
                         b"d" * 16, bytes(16), 0, 1, MIB, MIB)
        file.put(sequence * 64 * KIB, summed(header))
    regions = bytearray(64 * KIB)
    struct.pack_into("<4sIII", regions, 0, b"regi", 0, 2, 0)
    for index, (name, at, length) in enumerate((
            ("2DC27766-F623-4200-9D64-115E9BFD4A08", table_at, table_size),
            ("8B7CA206-4790-4B9A-B8FE-575F050F886E", 2 * MIB, MIB))):
        struct.pack_into("<16sQII", regions, 16 + 32 * index, uuid.UUID(name).bytes_le, at,
                         length, 1)
    file.put(192 * KIB, summed(regions))
    file.put(256 * KIB, regions, is_read=False)
    items = (("CAA16737-FA36-4D43-B3B6-33F0AA44E76B", struct.pack("<II", block, 0), 4),
             ("2FA54224-CD1B-4876-B211-5DBED83BF4B8", struct.pack("<Q", size), 6),
             ("BECA12AB-B2E6-4523-93EF-C309E000C746", b"p" * 16, 6),
             ("8141BF1D-A96F-4709-BA47-F233A8FAAB5F", struct.pack("<I", sector), 6),
             ("CDA348C7-445D-4471-9CC9-E9885251C556", struct.pack("<I", 4096), 6))
    metadata = bytearray(64 * KIB)
    struct.pack_into("<8sHH", metadata, 0, b"metadata", 0, len(items))
    for index, (name, value, flags) in enumerate(items):
        struct.pack_into("<16sIIII", metadata, 32 + 32 * index, uuid.UUID(name).bytes_le,
                         len(metadata), len(value), flags, 0)
        metadata += value
    file.put(2 * MIB, metadata)
    data_at = table_at + table_size
    table = array("Q", bytes(8 * entries))
    for chunk in range(blocks(count, per_chunk)):
        here = chunk * per_chunk
        first, last = here + chunk, min(here + per_chunk, count) + chunk
        # 6: fully present. Behind each chunk is the entry of a bitmap, which only children need.
        start, stop = data_at + here // 2 * block, data_at + (last - chunk) // 2 * block
        table[first:last:2] = array("Q", range(start | 6, stop | 6, block))
    file.put(table_at, little_endian(table))
    return file.close(data_at + count // 2 * block)


def raw(path, size, pieces):
    """A file with `pieces` blocks of 4 KiB in it, far apart. These take space on the disk."""
    file = File(path)
    block = bytes(range(256)) * 16
    for at in range(0, size, size // pieces):
        os.pwrite(file.fd, block, at)
    os.fsync(file.fd)
    return file.close(size)


# ---------------------------------------------------------------------------------------------

class Workload:
    """What is measured: an image, what it is, and how many times faster instar has to be."""

    def __init__(self, name, fmt, size, small, make, what, cpu, wall, memory=8, rows=None):
        self.name, self.format, self.what = name, fmt, what
        self.sizes = {"full": size, "small": small}
        self.make = make
        self.cpu, self.wall, self.memory = cpu, wall, memory
        # Only where qemu-img does not tell: from the size, what instar has to print.
        self.rows = rows


WORKLOADS = [
    Workload("qcow2-frag", "qcow2", TIB, 16 * GIB, lambda p, s: regular(p, s, 2),
             "every other cluster", 40, 18),
    Workload("qcow2-perm", "qcow2", TIB, 16 * GIB, permuted,
             "all clusters, at permuted places", 50, 20),
    Workload("qcow2-contig", "qcow2", TIB, 16 * GIB, lambda p, s: regular(p, s, 1),
             "all clusters, in order", 20, 20),
    Workload("qcow2-contig-pre", "qcow2", TIB, 16 * GIB,
             lambda p, s: regular(p, s, 1, refcounts=True), "the same, with refcounts", 20, 20),
    Workload("qcow2-1pc", "qcow2", TIB, 16 * GIB, lambda p, s: sparse(p, s, 100, 1),
             "one cluster in a hundred, at random", 45, 40),
    Workload("qcow2-4k", "qcow2", 64 * GIB, GIB, lambda p, s: regular(p, s, 2, bits=12),
             "clusters of 4 KiB, every other one", 40, 18),
    Workload("qcow2-extl2", "qcow2", 64 * GIB, GIB, subclusters,
             "extended L2, every other subcluster", 35, 18),
    Workload("qcow2-frag-pre", "qcow2", TIB, 16 * GIB,
             lambda p, s: regular(p, s, 2, refcounts=True),
             "qcow2-frag with refcounts: holes asked from the host", 35, 15),
    Workload("qcow2-chain", "qcow2", 256 * GIB, 4 * GIB, chain,
             "base and five overlays, a twentieth of the clusters each", 20, 15, memory=12),
    Workload("vmdk-frag", "vmdk", TIB, 16 * GIB, lambda p, s: vmdk(p, s, 2),
             "every other grain", 30, 15),
    Workload("vmdk-contig", "vmdk", TIB, 16 * GIB, lambda p, s: vmdk(p, s, 1),
             "all grains, in order", 200, 200),
    Workload("vhd-frag", "vpc", 2040 * GIB, 32 * GIB, vhd, "every other block of 2 MiB", 15, 8),
    Workload("vhdx-frag", "vhdx", 16 * TIB, 256 * GIB, vhdx,
             "every other block of 1 MiB; qemu-img prints one row for any VHDX", None, None,
             rows=lambda size: size // MIB),
    Workload("raw-frag", "raw", 128 * GIB, 4 * GIB,
             lambda p, s: raw(p, s, s // (256 * KIB)), "4 KiB of data every 256 KiB", 3, 2.5),
]

TINY = Workload("tiny", "qcow2", MIB, MIB, lambda p, s: qcow2(p, s, [None]),
                "1 MiB, nothing allocated", None, None)
