"""LUKS headers, byte by byte, which qemu-img can unlock.

Key material looks random, and an image must not be large here. So it is chosen backwards: all
of it but the last stripe is zeros in the file, which decrypts to something; the last stripe is
what the rest then asks for.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Optional

from .common import be16, be32, be64, write_file

PASSWORD = b"instar"
MASTER_KEY = bytes(range(0x20, 0x30))
STRIPES = 4000
ITERATIONS = 1000
SALT = bytes(range(0x80, 0xa0))
ENABLED, DISABLED = 0x00ac71f3, 0x0000dead
UUID = b"12345678-9abc-def0-1234-56789abcdef0"

HEADER_SECTORS = 8
SLOT_SECTORS = 128                     # 4000 stripes of 16 bytes, to the next 4 KiB
PAYLOAD_SECTOR = HEADER_SECTORS + 8 * SLOT_SECTORS


# ------------------------------------------------------------------ AES-128

def _field_times(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11b if a & 0x80 else 0)
        b >>= 1
    return product


def _substitutions():
    box = []
    for value in range(256):
        inverse = next((i for i in range(256) if _field_times(value, i) == 1), 0)
        out = 0x63
        for shift in range(5):
            out ^= (inverse << shift | inverse >> (8 - shift)) & 0xff
        box.append(out)
    return box


BOX = _substitutions()
UNBOX = [BOX.index(value) for value in range(256)]
TIMES = {by: [_field_times(value, by) for value in range(256)] for by in (1, 2, 3, 9, 11, 13, 14)}


def _round_keys(key):
    words = [key[i:i + 4] for i in range(0, 16, 4)]
    constant = 1
    for i in range(4, 44):
        word = words[-1]
        if i % 4 == 0:
            word = bytes(BOX[b] for b in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = TIMES[2][constant]
        words.append(bytes(a ^ b for a, b in zip(words[-4], word)))
    return [b"".join(words[i:i + 4]) for i in range(0, 44, 4)]


def _mixed(state, factors):
    out = bytearray(16)
    for column in range(0, 16, 4):
        for row in range(4):
            for i in range(4):
                out[column + row] ^= TIMES[factors[(i - row) % 4]][state[column + i]]
    return out


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def encrypted(key, block):
    keys = _round_keys(key)
    state = xor(block, keys[0])
    for number in range(1, 11):
        state = [BOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if number < 10:
            state = _mixed(state, (2, 3, 1, 1))
        state = xor(state, keys[number])
    return state


def decrypted(key, block):
    keys = _round_keys(key)
    state = block
    for number in range(10, 0, -1):
        state = xor(state, keys[number])
        if number < 10:
            state = _mixed(state, (14, 11, 13, 9))
        state = [UNBOX[state[(i - 4 * (i % 4)) % 16]] for i in range(16)]
    return xor(state, keys[0])


# ---------------------------------------------------------------- version 1

def _last_stripe(slot_key, digest):
    """The last 16 bytes of a slot's key material; all before them are zeros."""
    zeros = decrypted(slot_key, bytes(16))
    merged = bytes(16)
    for stripe in range(STRIPES - 1):
        plain = zeros
        if stripe % 32 == 0:           # the first block of a sector: its number is the IV
            plain = xor(zeros, (stripe // 32).to_bytes(16, "little"))
        merged = hashlib.new(digest, be32(0) + xor(merged, plain)).digest()[:16]
    return encrypted(slot_key, xor(merged, MASTER_KEY))


@dataclass
class Volume:
    """Version 1, AES-128 in CBC mode with 64-bit sector numbers as IV."""
    length: int                        # of the payload in bytes
    payload_sector: int = PAYLOAD_SECTOR
    claimed_payload: Optional[int] = None
    pieces: list = field(default_factory=list)      # (offset in the payload, bytes)
    slots: tuple = (0,)
    digest: str = "sha256"
    magic: bytes = b"LUKS\xba\xbe"
    version: int = 1
    master_key_digest: Optional[bytes] = None
    slot_fields: dict = field(default_factory=dict)  # (slot, offset in it): 32-bit number
    total: Optional[int] = None        # cut the file to this

    def write(self, path):
        made = hashlib.pbkdf2_hmac(self.digest, MASTER_KEY, SALT, ITERATIONS, 20)
        payload = self.payload_sector if self.claimed_payload is None else self.claimed_payload
        head = (self.magic + be16(self.version) + b"aes".ljust(32, b"\0")
                + b"cbc-plain64".ljust(32, b"\0") + self.digest.encode().ljust(32, b"\0")
                + be32(payload) + be32(16) + (self.master_key_digest or made)
                + SALT + be32(ITERATIONS) + UUID.ljust(40, b"\0"))
        pieces = []
        for slot in range(8):
            offset = HEADER_SECTORS + slot * SLOT_SECTORS
            salt = bytes(b ^ slot for b in SALT)
            used = slot in self.slots
            fields = [ENABLED if used else DISABLED, ITERATIONS if used else 0]
            entry = bytearray(be32(fields[0]) + be32(fields[1]) + (salt if used else bytes(32))
                              + be32(offset) + be32(STRIPES))
            for (which, at), number in self.slot_fields.items():
                if which == slot:
                    entry[at:at + 4] = be32(number)
            head += bytes(entry)
            if used:
                key = hashlib.pbkdf2_hmac(self.digest, PASSWORD, salt, ITERATIONS, 16)
                end = offset * 512 + STRIPES * 16
                pieces.append((end - 16, _last_stripe(key, self.digest)))
        start = self.payload_sector * 512
        pieces += [(start + at, data) for at, data in self.pieces]
        total = start + self.length if self.total is None else self.total
        pieces = [(at, data) for at, data in pieces if at < total]
        write_file(path, total, [(0, head[:total])] + pieces)


# ---------------------------------------------------------------- version 2

def segment(offset, size="dynamic", kind="crypt", **more):
    return {"type": kind, "offset": str(offset), "size": str(size), "iv_tweak": "0",
            "encryption": "aes-xts-plain64", "sector_size": 512, **more}


@dataclass
class Volume2:
    """Version 2. What is missing for unlocking it is not looked at by a map without a key."""
    segments: list                     # of both headers
    total: int                         # bytes of the file
    size: int = 0x4000                 # of one header
    second: Optional[list] = None      # segments of the second header, if others
    sequence: tuple = (5, 5)
    algorithm: str = "sha256"
    text: Optional[bytes] = None       # instead of the JSON text
    requirements: list = field(default_factory=list)
    pieces: list = field(default_factory=list)
    spoiled: tuple = ()                # which headers get a wrong checksum
    lost: tuple = ()                   # which headers are zeros

    def json(self, segments):
        config = {"json_size": str(self.size - 4096), "keyslots_size": "16744448"}
        if self.requirements:
            config["requirements"] = {"mandatory": self.requirements}
        return json.dumps({
            "keyslots": {"0": {"type": "luks2", "key_size": 64, "area": {
                "type": "raw", "offset": str(2 * self.size), "size": "258048"}}},
            "tokens": {},
            "segments": {str(i): one for i, one in enumerate(segments)},
            "digests": {"0": {"type": "pbkdf2", "keyslots": ["0"], "segments": ["0"]}},
            "config": config}).encode()

    def header(self, index):
        second = self.segments if self.second is None else self.second
        text = self.text
        if text is None:
            text = self.json(second if index else self.segments)
        magic = b"SKUL\xba\xbe" if index else b"LUKS\xba\xbe"
        head = (magic + be16(2) + be64(self.size) + be64(self.sequence[index]) + bytes(48)
                + self.algorithm.encode().ljust(32, b"\0") + SALT * 2 + UUID.ljust(40, b"\0")
                + bytes(48) + be64(index * self.size) + bytes(184))
        whole = head.ljust(4096, b"\0") + text.ljust(self.size - 4096, b"\0")
        digest = hashlib.new(self.algorithm, whole).digest()
        if index in self.spoiled:
            digest = digest[::-1]
        return [(index * self.size, head + digest), (index * self.size + 4096, text)]

    def write(self, path):
        pieces = [piece for i in (0, 1) if i not in self.lost for piece in self.header(i)]
        pieces = [(at, data) for at, data in pieces + self.pieces if data]
        write_file(path, self.total, pieces)
