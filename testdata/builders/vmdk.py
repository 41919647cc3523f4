"""VMDK images: sparse extents of all kinds, and disks that a text descriptor composes."""

from .common import KIB, Image, fill, patch, qemu_img, qemu_io, read_at, write_file
from .vmdk_hostile import hostile_images
from .vmdk_image import COMPRESSED, MARKERS, SECTOR, Cowd, SeSparse, Sparse, descriptor


def _image(name, exercises, make, **more):
    """`make()` gives something with write(path)."""
    return Image(id="vmdk-" + name, name="vmdk-%s.vmdk" % name, format="vmdk",
                 exercises=exercises, build=lambda path: make().write(path), **more)


def _text(name, exercises, kind, lines, **more):
    """A descriptor file."""
    return Image(id="vmdk-" + name, name="vmdk-%s.vmdk" % name, format="vmdk",
                 exercises=exercises, build=_bytes(descriptor(kind, lines)), **more)


def _bytes(data):
    return lambda path: write_file(path, len(data), [(0, data)])


def _raw(name, exercises, size, pieces):
    """A flat extent."""
    return Image(id="vmdk-" + name, name="vmdk-%s.raw" % name, format="raw", exercises=exercises,
                 build=lambda path: write_file(path, size, pieces))


def _pin_content_id(path, cid=0x1d5aa001):
    """Replaces the random content identifier that qemu made up."""
    text = read_at(path, SECTOR, 20 * SECTOR)
    at = text.index(b"CID=") + 4
    patch(path, SECTOR + at, b"%08x" % cid)


def _qemu_sparse(path):
    qemu_img("create", "-q", "-f", "vmdk", path, "4M")
    qemu_io(path, "write -P 0x11 100k 70k", "write -P 0x12 1M 64k", "write -P 0x13 3M 1k",
            options=("-f", "vmdk"))
    _pin_content_id(path)


def _qemu_zeroed(path):
    qemu_img("create", "-q", "-f", "vmdk", "-o", "zeroed_grain=on", path, "4M")
    qemu_io(path, "write -P 0x21 0 192k", "write -z 64k 64k", "write -z 1M 256k",
            "write -P 0x22 1088k 64k", options=("-f", "vmdk"))
    _pin_content_id(path)


def images():
    yield Image(id="vmdk-sparse-qemu", name="vmdk-sparse-qemu.vmdk", format="vmdk",
                exercises="monolithicSparse as qemu writes it", build=_qemu_sparse)
    yield Image(id="vmdk-zeroed-qemu", name="vmdk-zeroed-qemu.vmdk", format="vmdk",
                exercises="zeroed grains as qemu writes them", build=_qemu_zeroed)
    yield from _sparse_images()
    yield from _other_extents()
    yield from _chains()
    yield from _composed()
    yield from hostile_images()


def _sparse_images():
    yield _image("sparse", "two grains in a row, holes, one grain apart",
                 lambda: Sparse().data(0, 1, 5, 15))
    yield _image("backwards", "grains that lie in the opposite order",
                 lambda: Sparse().data(3, 2, 1, 0, 9, 8))
    yield _image("shared-grain", "two entries with one place, then one that continues it",
                 lambda: Sparse(data_at=64).data(0, 2, at=64).data(3, at=72).entry(1, 64))
    yield _image("cut-grain", "capacity that ends inside a grain",
                 lambda: Sparse(capacity=101).data(0, 11, 12))
    yield _image("odd-grain", "grains of three sectors, tables of seven entries",
                 lambda: Sparse(capacity=1000, grain=3, entries=7, data_at=64)
                 .data(0, 1, 6, 7, 8, 20, 21, 333))
    yield _image("one-entry-tables", "a table for each grain",
                 lambda: Sparse(capacity=80, entries=1, data_at=64).data(0, 1, 3, 9))
    yield _image("grain-of-a-sector", "the smallest grain",
                 lambda: Sparse(capacity=1024, grain=1).data(0, 1, 2, 8, 9, 511, 512, 1023))
    yield _image("big-grain", "grains of 1 GiB, all of them behind the end of the file but one",
                 lambda: Sparse(capacity=1 << 23, grain=1 << 21, data_at=64)
                 .entry(0, 64).entry(1, 64 + (1 << 21)).entry(3, 64).pad(64))
    yield _image("missing-tables", "directory entries of 0 between others, runs across tables",
                 lambda: Sparse(capacity=4 * 512 * 8 * 3, data_at=128)
                 .data(511, 512, 513, 4095, 6143))
    yield _image("1t-empty", "1 TiB, nearly all of a directory of 16384 entries is 0",
                 lambda: Sparse(capacity=1 << 31, grain=1 << 13, entries=16, data_at=256)
                 .entry(100000, 256).entry(262143, 256 + (1 << 13)).pad(256))
    for version in (0, 2, 3):
        yield _image("version-%d" % version, "header version %d" % version,
                     lambda version=version: Sparse(version=version).data(1))
    yield _image("zeroed", "zeroed, stored and absent grains in turn",
                 lambda: Sparse(flags=7, version=2).data(1, 2, 7).entry(0, 1).entry(4, 1)
                 .entry(5, 1).entry(8, 1).entry(15, 1))
    yield _image("zeroed-flag-off", "entries of 1 without the flag are sector 1",
                 lambda: Sparse().data(1, 2).entry(0, 1).entry(4, 1).entry(5, 1))
    yield _image("stream", "streamOptimized: compressed grains, directory in the footer",
                 lambda: Sparse(capacity=1024, flags=3 | COMPRESSED | MARKERS, version=3,
                                algorithm=1, text=descriptor("streamOptimized"))
                 .deflated(0, 1, 5, 127).with_footer())
    yield _image("stream-partial-sector", "the file ends inside the end-of-stream marker",
                 lambda: _cut(Sparse(flags=3 | COMPRESSED | MARKERS, version=3, algorithm=1)
                              .deflated(2, 3).with_footer(), 400))
    yield _image("stream-no-footer", "compressed grains, directory in the header",
                 lambda: Sparse(flags=3 | COMPRESSED, algorithm=1).deflated(0, 2, 3))
    yield _image("stream-zeroed", "compressed and zeroed grains",
                 lambda: Sparse(flags=7 | COMPRESSED, version=2, algorithm=1).deflated(0, 2, 3)
                 .entry(1, 1).entry(4, 1).entry(9, 1))
    yield _image("algorithm-only", "compressed by the algorithm alone, without the flags",
                 lambda: Sparse(algorithm=1).deflated(0, 4))
    yield _image("algorithm-2", "an unknown algorithm counts as none",
                 lambda: Sparse(algorithm=2).data(0, 4))
    yield _image("compressed-flags-only", "the flags of compression without the algorithm",
                 lambda: Sparse(flags=3 | COMPRESSED | MARKERS).data(0, 1, 4))
    yield _image("no-line-ends", "line-end check bytes of 0",
                 lambda: Sparse().data(0).set(ends=bytes(4)))
    yield _image("redundant-outside", "redundant directory behind the end, which is not read",
                 lambda: Sparse().data(0, 3).set(redundant=1 << 30))
    yield _image("descriptor-crlf", "descriptor with CR LF",
                 lambda: Sparse(text=descriptor(end="\r\n")).data(3))
    yield _image("descriptor-elsewhere", "the header's offset of the descriptor is not looked at",
                 lambda: Sparse().data(3).set(descriptor=7, descriptor_size=0))
    yield _image("parent-cid-only", "the CID in parentCID stands for the missing CID",
                 lambda: Sparse(text=b"parentCID=ffffffff\n").data(3))
    yield _image("empty-hint", "a parent without a name is none",
                 lambda: Sparse(text=descriptor(hint="", parent_cid=5)).data(3))
    yield _image("parent-cid-no-hint", "a parent's CID, but no name",
                 lambda: Sparse(text=descriptor(parent_cid=5)).data(3))


def _cut(sparse, fewer):
    """Takes the last bytes of the file away."""
    sparse.finish()
    sparse.size = max(sparse.sectors) * SECTOR + SECTOR - fewer
    return sparse


def _other_extents():
    cowd = dict(text=descriptor("vmfsSparse"))
    yield _image("cowd", "ESX sparse extent that happens to have a descriptor at 512",
                 lambda: Cowd(**cowd).data(0, 1, 3, 4095, 4096, 4999).entry(7, 1))
    yield _image("cowd-missing-table", "ESX sparse, first table missing, grains of eight sectors",
                 lambda: Cowd(capacity=3 * 4096 * 8 - 5, grain=8, **cowd)
                 .data(4096, 4098, 3 * 4096 - 1))
    yield _image("cowd-empty", "ESX sparse extent of no size",
                 lambda: Cowd(capacity=0, **cowd))
    yield _image("cowd-parent", "ESX sparse extent with a parent",
                 lambda: Cowd(capacity=128, grain=8,
                              text=descriptor("vmfsSparse", hint="vmdk-base.vmdk", parent_cid=1))
                 .data(2, 9), companions=["vmdk-base"])


def _chains():
    yield _image("base", "a disk that others have as parent",
                 lambda: Sparse(flags=7, version=2).data(0, 1, 2, 3, 12).entry(5, 1))

    def child(hint, **more):
        return Sparse(flags=7, version=2, text=descriptor(hint=hint, parent_cid=0x1d5aa001), **more)

    yield _image("overlay", "a child that hides parts of its parent",
                 lambda: child("vmdk-base.vmdk").data(1, 8).entry(2, 1),
                 companions=["vmdk-base"])
    yield _image("overlay-longer", "a child longer than its parent",
                 lambda: child("vmdk-base.vmdk", capacity=200).data(17),
                 companions=["vmdk-base"])
    yield _image("overlay-shorter", "a child shorter than its parent, which ends inside a grain",
                 lambda: child("vmdk-base.vmdk", capacity=99).data(4),
                 companions=["vmdk-base"])
    yield _image("chain-of-three", "a child of a child",
                 lambda: child("vmdk-overlay.vmdk").data(3).entry(8, 1),
                 companions=["vmdk-overlay"])
    yield _image("hint-without-parent-cid", "parentCID says no parent, the hint names one",
                 lambda: Sparse(text=descriptor(hint="vmdk-base.vmdk")).data(4),
                 companions=["vmdk-base"])


def _extent(name, exercises, make):
    """A sparse extent without a descriptor: part of a disk, refused by qemu as a disk."""
    return _image(name, exercises, make, kind="hostile")


def _composed():
    alone = dict(with_descriptor=False)
    yield _raw("flat-f001", "flat extent: data, holes and an end before the extent's", 96 * KIB + 100,
               [(0, fill(4 * KIB, 31)), (64 * KIB, fill(8 * KIB, 32)),
                (96 * KIB, fill(100, 33))])
    yield _raw("flat-f002", "flat extent, all data", 64 * KIB, [(0, fill(64 * KIB, 34))])
    yield _extent("split-s001", "extent of a split disk that ends inside a grain",
                  lambda: Sparse(capacity=1004, **alone).data(0, 1, 125))
    yield _extent("split-s002", "extent of a split disk, with a zeroed grain",
                  lambda: Sparse(capacity=1048, flags=7, **alone).data(0, 3).entry(5, 1))
    yield _extent("split-even", "extent of a split disk that ends with a grain",
                  lambda: Sparse(capacity=1024, **alone).data(5, 127))
    yield _extent("esx-delta", "ESX sparse extent",
                  lambda: Cowd(capacity=4096 * 8 + 11, grain=8).data(0, 4, 4096))
    yield _image("se-delta", "seSparse extent: every kind of entry",
                 lambda: SeSparse().data(4097, 4098).data(4099, number=5).entry(4101, 1 << 60 | 9)
                 .entry(4102, 2 << 60).data(8191, 3 * 4096 - 1),
                 kind="hostile", variants=[["-f", "vmdk"], []])
    yield _image("se-many", "seSparse extent with a grain number over 4095",
                 lambda: SeSparse(capacity=4096 * 8 - 3, tables=1).data(0, number=4095)
                 .data(1, number=4096).data(4095, number=4097), kind="hostile",
                 variants=[["-f", "vmdk"]])

    flat = ["vmdk-flat-f001", "vmdk-flat-f002"]
    yield _text("flat", "monolithicFlat: one file from an offset on", "monolithicFlat",
                ['RW 224 FLAT "vmdk-flat-f001.raw" 8'], companions=flat[:1])
    yield _text("vmfs", "vmfs: a file from its start, and beyond its end", "vmfs",
                ['RW 400 VMFS "vmdk-flat-f001.raw"'], companions=flat[:1])
    yield _text("flat-two", "two files, one of them twice", "twoGbMaxExtentFlat",
                ['RW 128 FLAT "vmdk-flat-f001.raw" 0', 'RW 100 FLAT "vmdk-flat-f002.raw" 3',
                 'RW 64 FLAT "vmdk-flat-f001.raw" 128'], companions=flat)
    yield _text("flat-joined", "two lines that are one run of one file", "twoGbMaxExtentFlat",
                ['RW 32 FLAT "vmdk-flat-f002.raw" 0', 'RW 32 FLAT "vmdk-flat-f002.raw" 32'],
                companions=flat[1:])
    yield _text("flat-spellings", "one run of one file, whose name is spelled in two ways",
                "twoGbMaxExtentFlat",
                ['RW 32 FLAT "./vmdk-flat-f002.raw" 0', 'RW 32 FLAT ".//vmdk-flat-f002.raw" 32'],
                companions=flat[1:])
    yield _text("flat-behind-blanks", "empty lines and lines of blanks in front of extents",
                "twoGbMaxExtentFlat",
                ['', 'RW 32 FLAT "vmdk-flat-f002.raw" 0', '', ' \t',
                 'RW 32 FLAT "vmdk-flat-f002.raw" 64'], companions=flat[1:])
    yield _text("split-grains", "split disk whose extents are whole grains",
                "twoGbMaxExtentSparse",
                ['RW 1024 SPARSE "vmdk-split-even.vmdk"', 'RW 1048 SPARSE "vmdk-split-s002.vmdk"'],
                companions=["vmdk-split-even", "vmdk-split-s002"])
    yield _text("split-line-size", "split disk, a line with another size than its extent",
                "twoGbMaxExtentSparse",
                ['RW 999 SPARSE "vmdk-split-even.vmdk"', 'RW 1048 SPARSE "vmdk-split-s002.vmdk"'],
                companions=["vmdk-split-even", "vmdk-split-s002"])
    yield _text("split-mid-grain", "split disk whose first extent ends inside a grain",
                "twoGbMaxExtentSparse",
                ['RW 1004 SPARSE "vmdk-split-s001.vmdk"', 'RW 1048 SPARSE "vmdk-split-s002.vmdk"'],
                companions=["vmdk-split-s001", "vmdk-split-s002"])
    yield _text("vmfs-sparse", "ESX snapshot with an ESX sparse extent", "vmfsSparse",
                ['RW 32779 VMFSSPARSE "vmdk-esx-delta.vmdk"'], companions=["vmdk-esx-delta"])
    yield _text("sesparse", "ESX snapshot with a seSparse extent", "seSparse",
                ['RW 98304 SESPARSE "vmdk-se-delta.vmdk"'], companions=["vmdk-se-delta"])
    yield _text("sesparse-many", "grain numbers over 4095 are stored in two parts", "seSparse",
                ['RW 32765 SESPARSE "vmdk-se-many.vmdk"'], companions=["vmdk-se-many"])
    yield _text("mixed", "flat, VMFS and sparse extents in one disk", "vmfs",
                ['RW 16 FLAT "vmdk-flat-f002.raw" 1', 'RW 1024 SPARSE "vmdk-split-even.vmdk"',
                 'RW 8 VMFS "vmdk-flat-f001.raw"'], companions=[*flat, "vmdk-split-even"])
    yield _text("zero-extent", "a ZERO extent between two others", "twoGbMaxExtentFlat",
                ['RW 16 FLAT "vmdk-flat-f002.raw" 0', 'RW 16 ZERO',
                 'RW 16 FLAT "vmdk-flat-f002.raw" 64'], companions=flat[1:])
    yield _text("zero-only", "nothing but a ZERO extent", "monolithicFlat", ['RW 16 ZERO'])
    yield _text("rdonly-extent", "read-only and inaccessible extents hold data too",
                "twoGbMaxExtentFlat",
                ['RDONLY 16 FLAT "vmdk-flat-f002.raw" 8', 'RW 16 FLAT "vmdk-flat-f002.raw" 64',
                 'NOACCESS 8 FLAT "vmdk-flat-f002.raw" 32'], companions=flat[1:])
    yield _text("no-extents", "a descriptor without extents", "vmfs", [])
    yield Image(id="vmdk-text-crlf", name="vmdk-text-crlf.vmdk", format="vmdk",
                exercises="descriptor file with CR LF and lines of blanks in front",
                build=_bytes(b"# x\r\n   \r\n"
                             + descriptor("vmfs", ['RW 128 VMFS "vmdk-flat-f002.raw"'],
                                          end="\r\n")), companions=flat[1:])
    yield Image(id="vmdk-text-child", name="vmdk-text-child.vmdk", format="vmdk",
                exercises="descriptor file with an extent and a parent",
                build=_bytes(descriptor("vmfsSparse", ['RW 32779 VMFSSPARSE "vmdk-esx-delta.vmdk"'],
                                        hint="vmdk-base.vmdk", parent_cid=0x1d5aa001)),
                companions=["vmdk-base", "vmdk-esx-delta"])
