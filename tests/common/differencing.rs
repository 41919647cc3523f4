//! Differencing disks, read anew: which sectors they hold themselves, and what the disk is then.
//! As plain as can be, and for sound images only.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SECTOR: u64 = 512;

/// Who has a range of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The file itself, from this offset on.
    Own(u64),
    /// The file below.
    Parent,
    /// Nobody: it is zero.
    Zero,
}

/// A range of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) holder: Holder,
}

/// The disk in parts, equal neighbours as one.
#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn push(&mut self, length: u64, holder: Holder) {
        let start = self.0.last().map_or(0, |part| part.start + part.length);
        if let Some(last) = self.0.last_mut() {
            let next = match last.holder {
                Holder::Own(at) => Holder::Own(at + last.length),
                other => other,
            };
            if next == holder {
                last.length += length;
                return;
            }
        }
        self.0.push(Part { start, length, holder });
    }
}

fn bytes<const N: usize>(file: &File, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).expect("a sound image");
    bytes
}

fn long(file: &File, at: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).expect("a bitmap")];
    file.read_exact_at(&mut bytes, at).expect("a sound image");
    bytes
}

/// A differencing VHD whose size is in its footer.
pub(crate) fn vhd(path: &Path) -> Vec<Part> {
    let file = File::open(path).expect("the image");
    let be32 = |at| u64::from(u32::from_be_bytes(bytes(&file, at)));
    let be64 = |at| u64::from_be_bytes(bytes(&file, at));
    assert_eq!(be32(60), 4, "a differencing disk");
    let (header, size) = (be64(16), be64(48));
    let (table, block) = (be64(header + 16), be32(header + 32));
    let bitmap = (block / SECTOR / 8).next_multiple_of(SECTOR);
    let mut parts = Parts::default();
    for start in (0..size).step_by(usize::try_from(block).expect("a block")) {
        let length = block.min(size - start);
        let entry = be32(table + start / block * 4);
        if entry == 0xffff_ffff {
            parts.push(length, Holder::Parent);
            continue;
        }
        let at = entry * SECTOR;
        let bits = long(&file, at, bitmap);
        for sector in 0..length / SECTOR {
            let byte = bits.get(usize::try_from(sector / 8).expect("small")).expect("a bit");
            let own = Holder::Own(at + bitmap + sector * SECTOR);
            let is_own = byte << (sector % 8) & 0x80 != 0;
            parts.push(SECTOR, if is_own { own } else { Holder::Parent });
        }
    }
    parts.0
}

/// A differencing VHDX without a log.
pub(crate) fn vhdx(path: &Path) -> Vec<Part> {
    const REGIONS: u64 = 192 << 10;
    let file = File::open(path).expect("the image");
    let le32 = |at| u64::from(u32::from_le_bytes(bytes(&file, at)));
    let le64 = |at| u64::from_le_bytes(bytes(&file, at));
    // The first numbers of the GUIDs are enough to tell them apart.
    let found = |table: u64, step: u64, id: u64, field: u64| {
        let entry = (0..16).map(|n| table + n * step).find(|at| le32(*at) == id);
        entry.expect("an entry of the table") + field
    };
    let bat = le64(found(REGIONS + 16, 32, 0x2dc2_7766, 16));
    let metadata = le64(found(REGIONS + 16, 32, 0x8b7c_a206, 16));
    let item = |id| metadata + le32(found(metadata + 32, 32, id, 16));
    let (block, size) = (le32(item(0xcaa1_6737)), le64(item(0x2fa5_4224)));
    let sector = le32(item(0x8141_bf1d));
    let ratio = (sector << 23) / block;
    let mut parts = Parts::default();
    for index in 0..size.div_ceil(block) {
        let length = block.min(size - index * block);
        let chunk = index / ratio;
        let entry = le64(bat + (index + chunk) * 8);
        let at = entry >> 20 << 20;
        match entry & 7 {
            0 => parts.push(length, Holder::Parent),
            6 => parts.push(length, Holder::Own(at)),
            7 => {
                let bits = le64(bat + (chunk * (ratio + 1) + ratio) * 8) >> 20 << 20;
                let first = index % ratio * (block / sector);
                let bits = long(&file, bits + first / 8, block / sector / 8);
                for number in 0..length / sector {
                    let byte = bits.get(usize::try_from(number / 8).expect("small"));
                    let is_own = byte.expect("a bit") >> (number % 8) & 1 != 0;
                    let own = Holder::Own(at + number * sector);
                    parts.push(sector, if is_own { own } else { Holder::Parent });
                }
            }
            _ => parts.push(length, Holder::Zero),
        }
    }
    parts.0
}

/// Writes what a guest would read: the image's parts, and below them `parent`.
pub(crate) fn flatten(image: &Path, parts: &[Part], parent: &File, target: &Path) -> File {
    const CHUNK: u64 = 1 << 20;
    let own = File::open(image).expect("the image");
    let flat = File::options().read(true).write(true).create_new(true).open(target);
    let flat = flat.expect("a file for the disk");
    for part in parts {
        let (from, offset) = match part.holder {
            Holder::Own(offset) => (&own, offset),
            Holder::Parent => (parent, part.start),
            Holder::Zero => continue,
        };
        for done in (0..part.length).step_by(1 << 20) {
            let piece = padded(from, offset + done, CHUNK.min(part.length - done));
            if piece.iter().any(|byte| *byte != 0) {
                flat.write_all_at(&piece, part.start + done).expect("room");
            }
        }
    }
    let end = parts.last().map_or(0, |part| part.start + part.length);
    flat.set_len(end).expect("room");
    flat
}

/// Bytes of a file; behind its end, zeros.
pub(crate) fn padded(file: &File, at: u64, length: u64) -> Vec<u8> {
    let mut buffer = vec![0; usize::try_from(length).expect("a piece")];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + filled as u64).expect("a readable file") {
            0 => break,
            read => filled += read,
        }
    }
    buffer
}
