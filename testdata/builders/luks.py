"""LUKS volumes of version 1 and 2, and what is wrong with each field."""

from .common import KIB, MIB, TIB, Image, fill
from .luks_image import PAYLOAD_SECTOR, Volume, Volume2, segment

START = PAYLOAD_SECTOR * 512       # of the payload in version 1
DATA = 16 * MIB                    # where cryptsetup puts the segment of version 2


def _image(name, exercises, volume, with_key, **more):
    ident = "luks-" + name
    file = ident + ".luks"
    if with_key:
        more["qemu"] = {"args": [
            "--object", "secret,id=s0,data=instar",
            "--image-opts", "driver=luks,file.filename=%s,key-secret=s0" % file]}
    return Image(id=ident, name=file, format="luks", exercises=exercises, build=volume.write, **more)


def _one(name, exercises, *args, with_key=True, more=None, **fields):
    return _image(name, exercises, Volume(*args, **fields), with_key, **(more or {}))


def _broken(name, exercises, with_key=True, **fields):
    """A small volume of version 1 in which something is wrong."""
    volume = Volume(**{"length": 64 * KIB, "pieces": [(0, fill(4 * KIB, 0x33))], **fields})
    return _image("bad-" + name, exercises, volume, with_key, kind="hostile")


def _two(name, exercises, segments, kind="safe", **fields):
    """A volume of version 2, which qemu-img takes for raw."""
    volume = Volume2(**{"segments": segments, "total": DATA + 64 * KIB,
                        "pieces": [(DATA, fill(4 * KIB, 0x44))], **fields})
    return _image(name, exercises, volume, False, kind=kind)


def version_1():
    data = [(0, fill(4 * KIB, 1)), (64 * KIB, fill(4 * KIB, 2))]
    yield _one("payload", "a volume as usual", MIB, pieces=data)
    yield _one("no-key", "the same; qemu-img has no key", MIB, pieces=data, with_key=False)
    yield _one("empty", "a payload of no bytes", 0)
    yield _one("one-sector", "the smallest payload", 512, pieces=[(0, fill(512, 3))])
    yield _one("odd-length", "a file that is no whole number of sectors", 64 * KIB + 1,
               pieces=[(64 * KIB, b"\x04")])
    yield _one("slots", "key slots 2 and 7 in use", 64 * KIB, slots=(2, 7))
    yield _one("sha1", "another hash function", 64 * KIB, digest="sha1")
    yield _one("payload-apart", "a payload that starts behind a gap", 64 * KIB,
               payload_sector=4 * MIB // 512, pieces=[(0, fill(4 * KIB, 5))])
    yield _one("large", "5 TiB, most of it a hole", 5 * TIB, pieces=[(TIB, fill(4 * KIB, 6))])


def version_2():
    yield _two("2-dynamic", "version 2, as cryptsetup writes it", [segment(DATA)])
    yield _two("2-fixed", "a segment that ends before the file does", [segment(DATA, 32 * KIB)])
    yield _two("2-empty", "a segment of no bytes at the end of the file", [segment(DATA)],
               total=DATA, pieces=[])
    yield _two("2-large-header", "headers of 4 MiB, checked by sha512", [segment(DATA)],
               size=4 * MIB, algorithm="sha512")
    yield _two("2-re-encryption", "a volume that is being encrypted in place", [
        segment(DATA, 16 * KIB), segment(DATA + 16 * KIB, 8 * KIB, "linear",
                                         flags=["in-reencryption"]),
        segment(DATA + 32 * KIB, "dynamic", "linear"),
        segment(DATA, "dynamic", "linear", flags=["backup-previous"]),
        segment(DATA, "dynamic", flags=["backup-final"])],
        requirements=["online-reencrypt-v2"],
        pieces=[(DATA, fill(16 * KIB, 7)), (DATA + 48 * KIB, fill(8 * KIB, 8))])
    yield _two("2-newer-second", "a second header that is newer than the first", [segment(DATA)],
               second=[segment(DATA, 4 * KIB)], sequence=(5, 6))
    yield _two("2-older-second", "a second header that is older than the first", [segment(DATA)],
               second=[segment(DATA, 4 * KIB)], sequence=(5, 4))
    yield _two("2-spoiled-first", "a first header with a wrong checksum", [segment(DATA)],
               spoiled=(0,))
    yield _two("2-spoiled-second", "a second header with a wrong checksum", [segment(DATA)],
               spoiled=(1,))
    yield _two("bad-2-lost-first", "a first header of zeros", [segment(DATA)], lost=(0,),
               kind="hostile")


def hostile_1():
    yield _broken("magic", "a wrong magic", magic=b"LUKS\xba\xbf")
    yield _broken("version-3", "a version that is not specified", version=3)
    yield _broken("version-3-probed", "the same without being told that it is LUKS: raw to "
                  "qemu-img", with_key=False, version=3)
    yield _broken("payload-zero", "a detached header", claimed_payload=0)
    yield _broken("payload-in-header", "a payload that overlaps the header", claimed_payload=7)
    yield _broken("payload-in-keys", "a payload that overlaps the key material in use",
                  claimed_payload=100)
    yield _broken("payload-far", "a payload behind the end of the file", claimed_payload=2 ** 32 - 1)
    yield _broken("payload-cut", "a file that ends before the payload", total=START - 512)
    yield _broken("header-cut", "a file that ends in the header", total=300)
    yield _broken("slot-state", "a key slot that is neither on nor off",
                  slot_fields={(1, 0): 0xdeae})
    yield _broken("slot-stripes", "a key slot without stripes", slot_fields={(0, 44): 0})
    yield _broken("slot-stripes-odd", "a key slot with another number of stripes, which the map "
                  "does not need to know", slot_fields={(0, 44): 3999})
    yield _broken("slot-in-header", "key material that overlaps the header",
                  slot_fields={(0, 40): 4})
    yield _broken("slot-in-payload", "key material that overlaps the payload",
                  slot_fields={(0, 40): PAYLOAD_SECTOR - 100})
    yield _broken("slots-overlap", "key material of two slots at one place",
                  slots=(0, 1), slot_fields={(1, 40): 8})
    yield _broken("digest", "no password fits: a map needs none", master_key_digest=bytes(20))


def hostile_2():
    sound = [segment(DATA)]
    yield _image("bad-2-as-luks", "version 2, and qemu-img is told that it is LUKS",
                 Volume2(sound, DATA + 64 * KIB), True, kind="hostile")

    def bad(name, exercises, segments, **fields):
        return _two("bad-2-" + name, exercises, segments, kind="hostile", **fields)

    yield bad("checksums", "two headers with wrong checksums", sound, spoiled=(0, 1))
    yield bad("size", "a header size that is not allowed", sound, size=0x5000)
    yield bad("cut", "a file that ends in the JSON area", sound, total=0x1800, pieces=[],
              lost=(1,))
    yield bad("json", "metadata that is no JSON", sound, text=b'{"segments":')
    yield bad("deep", "arrays in arrays", sound, text=b"[" * 12000)
    yield bad("no-segments", "metadata without segments", [])
    yield bad("only-backups", "segments that are of no use now",
              [segment(DATA, flags=["backup-final"])])
    yield bad("requirement", "an unknown requirement", sound, requirements=["time-travel"])
    yield bad("type", "a segment of an unknown type", [segment(DATA, kind="hw-opal")])
    yield bad("integrity", "a segment with integrity protection",
              [segment(DATA, integrity={"type": "hmac(sha256)"})])
    yield bad("offset-odd", "a segment that does not start at a sector", [segment(DATA + 1)])
    yield bad("offset-text", "an offset that is no number", [segment("0x1000000")])
    yield bad("offset-zero", "a detached header", [segment(0)])
    yield bad("offset-far", "a segment behind the end of the file", [segment(2 ** 62)])
    yield bad("size-far", "a segment that ends behind the end of the file",
              [segment(DATA, 2 ** 40)])
    yield bad("size-wraps", "a segment that ends behind 2^64", [segment(DATA, 2 ** 64 - 512)])
    yield bad("linear-far", "plain data behind the end of the file",
              [segment(DATA, 128 * KIB, "linear")])
    yield bad("dynamic-twice", "two segments to the end of the file", [segment(DATA), segment(DATA)])


def images():
    yield from version_1()
    yield from version_2()
    yield from hostile_1()
    yield from hostile_2()
