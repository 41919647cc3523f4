"""Broken VMDK images: one for each check, tiny, byte by byte."""

from .common import Image, le32, le64, write_file
from .vmdk_image import GD_AT_END, SECTOR, Cowd, SeSparse, Sparse, descriptor


def _case(name, exercises, make, **more):
    return Image(id="vmdk-bad-" + name, name="vmdk-bad-%s.vmdk" % name, format="vmdk",
                 exercises=exercises, kind="hostile", build=lambda path: make().write(path), **more)


def _fields(name, exercises, **fields):
    return _case(name, exercises, lambda: Sparse().data(0, 3).set(**fields))


class _Bytes:
    """A file of these bytes."""

    def __init__(self, data):
        self.data = data

    def write(self, path):
        write_file(path, len(self.data), [(0, self.data)])


def _text(name, exercises, kind="vmfs", lines=(), text=None, **more):
    data = descriptor(kind, lines) if text is None else text
    return _case("text-" + name, exercises, lambda: _Bytes(data), **more)


def _embedded(name, exercises, text, **more):
    return _case("embedded-" + name, exercises, lambda: Sparse(text=text).data(0), **more)


def _footer(name, exercises, at, data):
    def make():
        sparse = Sparse().data(0, 3).with_footer()
        begin = sparse.footer_at()
        return sparse.finish().put(begin + at, data)
    return _case("footer-" + name, exercises, make)


def _se(name, exercises, fields):
    """The extent, and the descriptor through which qemu reads it."""
    ident = "se-" + name
    yield _case(ident, exercises, lambda: SeSparse(fields=fields).data(0),
                variants=[["-f", "vmdk"]])
    yield from _se_descriptor(ident, exercises)


def _se_descriptor(ident, exercises):
    yield _text(ident, "descriptor of: " + exercises, "seSparse",
                ['RW 98304 SESPARSE "vmdk-bad-%s.vmdk"' % ident],
                companions=["vmdk-bad-" + ident])


def hostile_images():
    yield from _headers()
    yield from _embedded_descriptors()
    yield from _walks()
    yield from _esx()
    yield from _se_sparse()
    yield from _texts()


def _headers():
    yield _fields("version-4", "version above the highest", version=4)
    yield _fields("entries-513", "one entry per table more than the limit", entries=513)
    yield _fields("entries-0", "no entries per table", entries=0)
    yield _fields("grain-0", "grain of no size", grain=0)
    yield _fields("grain-large", "grain above 1 GiB", grain=0x200001)
    yield _fields("grain-2-32", "grain of 2^32 sectors", grain=1 << 32)
    yield _fields("overhead", "first grain behind the end of the file", overhead=1 << 20)
    yield _fields("directory-large", "a directory entry more than the limit",
                  capacity=(1 << 37) + 1)
    yield _fields("capacity-2-54", "capacity of 2^63 bytes", capacity=1 << 54, grain=1 << 21)
    yield _fields("capacity-max", "capacity of 2^64 - 1 sectors", capacity=2**64 - 1)
    yield _fields("directory-outside", "directory behind the end of the file: empty for qemu",
                  directory=1 << 30)
    yield _fields("directory-2-54", "directory beyond what a file can hold", directory=1 << 54)
    yield _fields("redundant-2-54", "redundant directory beyond what a file can hold",
                  redundant=1 << 54)
    yield _fields("redundant-2-55", "the same, but qemu drops the upper bits",
                  redundant=(1 << 55) + 21)
    yield _case("capacity-0", "capacity of 0: the descriptor decides",
                lambda: Sparse(capacity=0).set(descriptor=1))
    yield _case("capacity-0-composed", "capacity of 0 with the descriptor of a composed disk",
                lambda: Sparse(capacity=0, text=descriptor(
                    "vmfs", ['RW 8 VMFS "vmdk-flat-f002.raw"'])), companions=["vmdk-flat-f002"])
    yield _case("capacity-0-alone", "capacity of 0 without a descriptor",
                lambda: Sparse(capacity=0, with_descriptor=False))
    yield _case("magic-only", "four bytes of magic and nothing else", lambda: _Bytes(b"KDMV"))
    yield _case("header-only", "a header and nothing else",
                lambda: _Bytes(Sparse().header()))
    yield _case("no-room-for-footer", "directory in the footer of a file of two sectors",
                lambda: _Bytes(Sparse().set(directory=GD_AT_END).header() + bytes(SECTOR)))
    yield _footer("type", "footer marker of another type", 12, le32(2))
    yield _footer("size", "footer marker with a size", 8, le32(1))
    yield _footer("magic", "copy of the header without magic", SECTOR, b"KDMW")
    yield _footer("end-value", "end-of-stream marker with a value", 2 * SECTOR, le64(1))
    yield _footer("end-size", "end-of-stream marker with a size", 2 * SECTOR + 8, le32(1))
    yield _footer("end-type", "end-of-stream marker of another type", 2 * SECTOR + 12, le32(1))
    yield _footer("version", "copy of the header with version 4", SECTOR + 4, le32(4))
    yield _footer("again", "copy of the header that refers to a footer", SECTOR + 56,
                  le64(GD_AT_END))
    yield _footer("trailing-byte", "one byte behind the end-of-stream marker", 3 * SECTOR, b"x")


def _embedded_descriptors():
    yield _embedded("empty", "no text where the descriptor should be", b"")
    yield _embedded("no-parent-cid", "descriptor without parentCID", b"CID=1\n")
    yield _embedded("cid-no-number", "CID that is no number", b"CID=xyz\nparentCID=ffffffff\n")
    yield _embedded("parent-cid-no-number", "parentCID that is no number",
                    b"CID=1\nparentCID=\"\"\n")
    yield _embedded("hint-open", "parentFileNameHint without a closing quote",
                    b"CID=1\nparentCID=2\nparentFileNameHint=\"vmdk-base.vmdk\n")
    yield _embedded("blanks", "blanks around the equals signs, as in the disk data base",
                    b"CID = 1\nparentCID = ffffffff\n")
    yield _case("embedded-far", "descriptor where the header says, but not at 512",
                lambda: Sparse(text=b"", data_at=72).data(0)
                .put(40 * SECTOR, descriptor()).set(descriptor=40))
    for name, hint in (("missing", "no-such-file.vmdk"), ("control-characters", "no\n\x1b[31mfile"),
                       ("parent-folder", "../no-such-file.vmdk"), ("protocol", "nosuch:name")):
        yield _embedded("hint-" + name, "a parent's name: " + name.replace("-", " "),
                        descriptor(hint=hint, parent_cid=2))
    for name, hint in (("raw", "vmdk-flat-f002.raw"), ("broken", "vmdk-bad-version-4.vmdk")):
        yield _embedded("hint-" + name, "a parent that is %s" % name,
                        descriptor(hint=hint, parent_cid=2), companions=[hint.rsplit(".", 1)[0]])
    yield _embedded("hint-self", "an image that is its own parent",
                    descriptor(hint="vmdk-bad-embedded-hint-self.vmdk", parent_cid=1),
                    skip_versions={"*": "opened until file descriptors run out"})


def _walks():
    yield _case("table-outside", "grain table behind the end of the file: empty for qemu",
                lambda: Sparse(capacity=3 * 4096).data(0).put(21 * SECTOR + 4, le32(1 << 30)),
                windows=[["-l", "2097152"], ["-l", "2097153"], ["-s", "4194304"]])
    yield _case("table-far", "grain table at the highest sector that an entry can hold",
                lambda: Sparse().data(0).put(21 * SECTOR, le32(0xffffffff)))
    yield _case("table-cut", "file that ends inside its grain table",
                lambda: _cut(Sparse(overhead=0).data(0), 22 * SECTOR + 8))
    yield _case("table-is-directory", "directory that is its own grain table",
                lambda: Sparse().data(0).put(21 * SECTOR, le32(21)))
    yield _case("table-shared", "one grain table for the whole disk",
                lambda: Sparse(capacity=3 * 4096).data(0, 2).put(21 * SECTOR + 4, le32(22) * 2))
    yield _case("grain-outside", "grains behind the end of the file: mapped as usual",
                lambda: Sparse().data(0).entry(1, 1 << 20).entry(2, 0xffffffff)
                .entry(3, 0xfffffff8))
    yield _case("grain-on-metadata", "grains that are the header and the tables",
                lambda: Sparse().entry(0, 1).entry(1, 9).entry(2, 21).entry(4, 22))


def _cut(sparse, size):
    sparse.finish().size = size
    return sparse


def _esx():
    text = dict(text=descriptor("vmfsSparse"))
    yield _case("cowd-grain-0", "ESX sparse extent with a grain of no size: qemu divides by it",
                lambda: Cowd(grain=0, **text))
    yield _case("cowd-grain-large", "ESX sparse extent with a grain above 1 GiB",
                lambda: Cowd(grain=0x200001, **text))
    yield _case("cowd-directory-short", "ESX sparse extent with too few directory entries",
                lambda: Cowd(entries=1, **text).data(0, 5),
                windows=[["-l", "2097152"], ["-l", "2097153"], ["-s", "2097152"]])
    yield _case("cowd-directory-large", "ESX sparse extent with 2^25 + 1 directory entries",
                lambda: Cowd(entries=(1 << 25) + 1, **text).data(0))
    yield _case("cowd-directory-outside", "ESX sparse directory behind the end of the file",
                lambda: Cowd(**text).put(20, le32(1 << 20)))
    yield _case("cowd-magic-only", "four bytes of magic and nothing else", lambda: _Bytes(b"COWD"))


def _se_sparse():
    for name, exercises, fields in (
            ("version", "seSparse of another version", {1: 0x200000002}),
            ("grain", "seSparse with another grain size", {3: 16}),
            ("table", "seSparse with another table size", {4: 128}),
            ("flags", "seSparse with a flag", {5: 1}),
            ("reserved", "seSparse with a reserved field that is not 0", {8: 1}),
            ("padding", "seSparse with padding that is not 0", {63: 1}),
            ("volatile", "seSparse without the magic of the volatile header", {64: 1}),
            ("volatile-outside", "seSparse, volatile header behind the end", {10: 1 << 30}),
            ("journal", "seSparse with a journal to replay", {67: 1}),
            ("volatile-padding", "seSparse with padding of the volatile header", {68: 1}),
            ("directory", "seSparse with a directory of no size", {17: 0}),
            ("directory-large", "seSparse with 2^25 + 64 directory entries", {17: (1 << 19) + 1}),
            ("capacity", "seSparse of 2^54 sectors", {2: 1 << 54})):
        yield from _se(name, exercises, fields)
    for name, exercises, make in (
            ("directory-entry", "seSparse directory entry of no known type",
             lambda: SeSparse().data(0).put(2 * SECTOR + 8, le64(2 << 60))),
            ("entry-low-bits", "seSparse unallocated entry with other bits",
             lambda: SeSparse().data(0).entry(2, 5)),
            ("entry-type", "seSparse entry of type 4",
             lambda: SeSparse().data(0).entry(2, 4 << 60))):
        windows = [["-l", "8192"], ["-l", "8193"], ["-l", "16777216"]]
        yield _case("se-" + name, exercises, make, variants=[["-f", "vmdk"]], windows=windows)
        yield _text("se-" + name, "descriptor of: " + exercises, "seSparse",
                    ['RW 98304 SESPARSE "vmdk-bad-se-%s.vmdk"' % name],
                    companions=["vmdk-bad-se-" + name], windows=windows)


def _texts():
    flat = dict(companions=["vmdk-flat-f002"])
    name = '"vmdk-flat-f002.raw"'
    for kind in ("custom", "fullDevice", "monolithicSparse", "vmfsRDM", "VMFS", "nonsense"):
        yield _text("kind-" + kind.lower() + ("-capitals" if kind == "VMFS" else ""),
                    "createType " + kind, kind, ['RW 8 FLAT %s 0' % name], **flat)
    for kind in ("vmfsThin", "vmfsPreallocated", "2GbMaxExtentFlat"):
        yield _text("kind-" + kind.lower(), "createType %s, which qemu does not know" % kind,
                    kind, ['RW 8 FLAT %s 0' % name], **flat)
    yield _text("no-kind", "no createType", text=b"version=1\nCID=1\nparentCID=ffffffff\n")
    yield _text("kind-open", "createType without a closing quote",
                text=b"version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfs\n")
    yield _text("no-cid", "no CID", text=b"version=1\ncreateType=\"vmfs\"\nRW 8 ZERO\n")
    yield _text("no-version", "a descriptor without the version line: raw, unless told",
                text=descriptor("vmfs").replace(b"version=1\n", b""), variants=[["-f", "vmdk"], []])
    for case, line in (("flat-no-offset", "RW 8 FLAT %s"), ("flat-negative", "RW 8 FLAT %s -1"),
                       ("vmfs-offset", "RW 8 VMFS %s 0"), ("sparse-offset", "RW 8 SPARSE %s 0"),
                       ("flat-far", "RW 8 FLAT %s 18014398509481984"),
                       ("flat-huge", "RW 18014398509481984 FLAT %s 0")):
        yield _text(case, "extent line " + line % '""', lines=[line % name], **flat)
    yield _text("name-open", "extent line without a closing quote",
                lines=['RW 8 FLAT "vmdk-flat-f002.raw'])
    yield _text("missing-file", "an extent file that does not exist",
                lines=['RW 8 VMFS "no-such-file.raw"'])
    yield _text("protocol", "an extent file with an unknown protocol", lines=['RW 8 VMFS "nosuch:x"'])
    yield _text("control-characters", "an extent file with an escape in its name",
                lines=['RW 8 VMFS "no\x1b[31mfile"'])
    yield _text("device", "an extent of a type for devices", lines=['RW 8 VMFSRDM ' + name], **flat)
    yield _text("lower-case", "extent lines in lower case, which count as none",
                lines=['rw 8 FLAT %s 0' % name], **flat)
    yield _text("sparse-is-raw", "an extent said to be sparse that is not",
                lines=['RW 8 SPARSE ' + name], **flat)
    yield _text("extent-is-self", "a descriptor that is its own extent", "vmfs",
                ['RW 8 VMFS "vmdk-bad-text-extent-is-self.vmdk"'])
