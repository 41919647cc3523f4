//! Images altered the way structures break: word by word, and by what is elsewhere in the image.

use crate::{MemoryStorage, Storage};

use super::Random;

/// Alters images. The same seed alters the same image in the same way.
#[derive(Debug, Clone)]
pub struct Mutator {
    random: Random,
}

/// What a number from a table is counted in, as powers of two.
const UNITS: [u32; 5] = [0, 9, 12, 16, 20];

impl Mutator {
    /// A mutator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed) }
    }

    /// Alters the image in one to four places, mostly where it holds something; rarely its
    /// length.
    pub fn mutate(&mut self, image: &mut MemoryStorage) {
        let places: Vec<(u64, usize)> =
            image.pieces().map(|(at, piece)| (at, piece.len())).collect();
        for _ in 0..=self.random.below(4) {
            if self.random.below(32) == 0 || places.is_empty() {
                self.resize(image, &places);
            } else {
                self.alter(image, &places);
            }
        }
    }

    /// A length at, or near, the border of a piece, or any other.
    fn resize(&mut self, image: &mut MemoryStorage, places: &[(u64, usize)]) {
        let (start, length) = self.pick(places).unwrap_or((0, 0));
        let length = match self.random.below(6) {
            0 => start,
            1 => start.saturating_add(length as u64),
            2 => start.saturating_add(self.random.below(length.max(1)) as u64),
            3 => image.len().saturating_sub(1 << self.random.below(17)),
            4 => image.len().saturating_add(1 << self.random.below(40)),
            _ => image.len() >> self.random.below(8),
        };
        image.set_len(length.min(1 << 62));
    }

    /// Alters a word, a few bytes or a stretch of one piece.
    fn alter(&mut self, image: &mut MemoryStorage, places: &[(u64, usize)]) {
        let Some((at, width)) = self.place(image, places) else { return };
        let is_big_endian = self.random.below(2) == 0;
        let old = read(image, at, width, is_big_endian);
        match self.random.below(16) {
            0..=5 => {
                let new = self.word(image, places, old);
                write(image, at, width, is_big_endian, new);
            }
            6..=8 => {
                let bit = self.random.below(8 * width);
                write(image, at, width, is_big_endian, old ^ (1 << bit));
            }
            9 | 10 => {
                let step = 1_u64 << self.random.below(24);
                let new = match self.random.below(2) {
                    0 => old.wrapping_add(step),
                    _ => old.wrapping_sub(step),
                };
                write(image, at, width, is_big_endian, new);
            }
            11 => image.patch(at, &[self.random.next().to_le_bytes()[0]]),
            12 | 13 => {
                // As it stands somewhere else.
                let Some((other, _)) = self.place(image, places) else { return };
                let count = match self.random.below(3) {
                    0 => 512,
                    _ => width,
                };
                let copy = bytes(image, other, count);
                image.patch(at, &copy);
            }
            14 => {
                // The same word again and again.
                let word = bytes(image, at, width);
                image.patch(at, &word.repeat(1 + self.random.below(64)));
            }
            _ => self.shift(image, at),
        }
    }

    /// Moves what follows by a few bytes, or puts digits where digits are: texts.
    fn shift(&mut self, image: &mut MemoryStorage, at: u64) {
        let line = bytes(image, at, 256);
        match line.iter().position(u8::is_ascii_digit) {
            Some(digit) if self.random.below(2) == 0 => {
                let end = line.get(digit..).unwrap_or_default();
                let digits = end.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let number = (self.random.next() >> self.random.below(64)).to_string();
                let text: Vec<u8> = number.bytes().cycle().take(digits).collect();
                image.patch(at.saturating_add(digit as u64), &text);
            }
            _ => {
                let by = 1 + self.random.below(40);
                let moved = bytes(image, at.saturating_add(by as u64), 256);
                match self.random.below(2) {
                    0 => image.patch(at, &moved),
                    _ => image.patch(at.saturating_add(by as u64), &line),
                }
            }
        }
    }

    /// A number that means something: a limit, the file's length, the place of another piece.
    fn word(&mut self, image: &MemoryStorage, places: &[(u64, usize)], old: u64) -> u64 {
        let unit = UNITS.get(self.random.below(UNITS.len())).copied().unwrap_or(0);
        match self.random.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => (1_u64 << self.random.below(64)).wrapping_sub(self.random.below(2) as u64),
            3 => image.len() >> unit,
            4 => (image.len() >> unit).wrapping_sub(1).wrapping_add(self.random.below(3) as u64),
            5 => self.random.next() >> self.random.below(64),
            _ => {
                let (start, length) = self.pick(places).unwrap_or((0, 0));
                let end = start.saturating_add(length as u64);
                let target = if self.random.below(4) == 0 { end } else { start };
                // Entries have marks in their lowest or highest bits.
                let marks = match self.random.below(3) {
                    0 => 0,
                    1 => old & 0x1ff,
                    _ => old & 0xe000_0000_0000_01ff,
                };
                target >> unit | marks
            }
        }
    }

    /// A place in the image and the width of a word there, in bytes.
    fn place(&mut self, image: &MemoryStorage, places: &[(u64, usize)]) -> Option<(u64, usize)> {
        let width = 1_usize << self.random.below(4);
        let mut found = None;
        // Rather where something is.
        for _ in 0..4 {
            let (start, length) = self.pick(places)?;
            let length = match self.random.below(2) {
                // Structures are mostly at the start of their piece.
                0 => length.min(512),
                _ => length,
            };
            let skip = self.random.below(length) / width * width;
            let at = start.saturating_add(skip as u64);
            found = Some((at, width));
            if read(image, at, width, true) != 0 {
                break;
            }
        }
        found
    }

    /// One of the pieces: any of them, or any byte's.
    fn pick(&mut self, places: &[(u64, usize)]) -> Option<(u64, usize)> {
        if self.random.below(2) == 0 {
            return places.get(self.random.below(places.len())).copied();
        }
        let sectors = |length: usize| length.div_ceil(512);
        let all: usize = places.iter().map(|(_, length)| sectors(*length)).sum();
        let mut nth = self.random.below(all);
        for (start, length) in places {
            if nth < sectors(*length) {
                // From that sector on.
                let skip = nth * 512;
                return Some((start.saturating_add(skip as u64), length - skip));
            }
            nth -= sectors(*length);
        }
        None
    }
}

/// Bytes of the image; zeros in holes and behind the end.
fn bytes(image: &MemoryStorage, at: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    // Memory is always read.
    let _ = crate::read_padded(image, at, &mut bytes);
    bytes
}

fn read(image: &MemoryStorage, at: u64, width: usize, is_big_endian: bool) -> u64 {
    let stored = bytes(image, at, width);
    let fold = |word: u64, byte: &u8| word << 8 | u64::from(*byte);
    match is_big_endian {
        true => stored.iter().fold(0, fold),
        false => stored.iter().rev().fold(0, fold),
    }
}

fn write(image: &mut MemoryStorage, at: u64, width: usize, is_big_endian: bool, word: u64) {
    match is_big_endian {
        true => image.patch(at, word.to_be_bytes().get(8 - width..).unwrap_or_default()),
        false => image.patch(at, word.to_le_bytes().get(..width).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::encode;
    use pretty_assertions::assert_eq;

    #[test]
    fn the_same_seed_alters_alike_and_most_seeds_alter() {
        let mut text = b"RW 2048 SPARSE \"disk.vmdk\"\n".repeat(20);
        text.resize(3 * 512, 0);
        let image = MemoryStorage::new(1 << 30).with_data(0, [7; 600]).with_data(1 << 20, text);
        let alter = |seed| {
            let mut mutant = image.clone();
            Mutator::new(seed).mutate(&mut mutant);
            encode(&mutant, true)
        };
        let mutants: std::collections::BTreeSet<Vec<u8>> = (0..1000).map(alter).collect();
        assert!(mutants.len() > 900, "{} different mutants", mutants.len());
        for seed in 0..50 {
            assert_eq!(alter(seed), alter(seed));
        }
    }

    #[test]
    fn an_empty_image_only_changes_its_length() {
        let mut image = MemoryStorage::new(0);
        Mutator::new(1).mutate(&mut image);
        assert_eq!(image.pieces().count(), 0);
    }
}
