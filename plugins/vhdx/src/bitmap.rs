//! Sector bitmaps (§2.4): where they are read, and runs of equal bits in them.

use std::sync::Arc;

use instar_core::{Context, References, Result, Storage, TableReader};

use crate::disk::SB_BLOCK_SIZE;

const WORD: usize = 64;

/// The sector bitmap blocks of one file.
pub(crate) struct Bitmaps {
    reader: TableReader,
    references: References,
    context: Arc<Context>,
}

impl Bitmaps {
    pub(crate) fn new(storage: &Arc<dyn Storage>, context: &Arc<Context>) -> Self {
        let reader = TableReader::new("sector bitmap", Arc::clone(storage), &context.limits);
        let references = References::new("sector bitmap blocks", storage.len(), SB_BLOCK_SIZE);
        Self { reader, references, context: Arc::clone(context) }
    }

    /// As [`TableReader::buffered`].
    pub(crate) fn buffered(&self) -> u64 {
        self.reader.buffered()
    }

    /// As [`TableReader::release`].
    pub(crate) fn release(&mut self) {
        self.reader.release();
    }

    /// The `length` bytes at file offset `at`, in the sector bitmap block of chunk `chunk`.
    pub(crate) fn bytes(&mut self, chunk: u64, at: u64, length: usize) -> Result<&[u8]> {
        self.references.count(chunk, &self.context.notices)?;
        self.reader.bytes(at, length)
    }
}

/// Whether bit `from` is set, and how many bits from there on are equal to it.
///
/// Bit 0 is the least significant of byte 0. The bitmap is a whole number of 64-bit words; of a
/// bit behind its end, the answer is a run of 0.
#[inline]
pub(crate) fn run(bits: &[u8], from: usize) -> (bool, usize) {
    let words = bits.get(from / WORD * (WORD / 8)..).unwrap_or_default();
    let mut words = words.chunks_exact(8).filter_map(|bytes| bytes.first_chunk());
    let Some(first) = words.next() else { return (false, 0) };
    let first = u64::from_le_bytes(*first) >> (from % WORD);
    let set = first & 1 != 0;
    // What continues the run becomes zeros, to be counted.
    let flip = if set { u64::MAX } else { 0 };
    let room = WORD - from % WORD;
    let mut length = trailing_zeros(first ^ flip).min(room);
    if length == room {
        for word in words {
            let same = trailing_zeros(u64::from_le_bytes(*word) ^ flip);
            length += same;
            if same < WORD {
                break;
            }
        }
    }
    (set, length)
}

#[inline]
fn trailing_zeros(word: u64) -> usize {
    // At most 64.
    usize::try_from(word.trailing_zeros()).unwrap_or(WORD)
}

#[cfg(test)]
mod tests {
    use instar_core::testkit::Random;
    use pretty_assertions::assert_eq;

    use super::*;

    fn run_by_bits(bits: &[u8], from: usize) -> (bool, usize) {
        let bit = |i: usize| bits.get(i / 8).map(|byte| byte >> (i % 8) & 1 != 0);
        let Some(set) = bit(from) else { return (false, 0) };
        (set, (from..).take_while(|i| bit(*i) == Some(set)).count())
    }

    #[test]
    fn words_and_bits_agree() {
        let mut random = Random::new(1);
        for density in [0, 1, 8, 60, 64] {
            let bits: Vec<u8> = (0..64)
                .map(|_| match random.below(64) {
                    n if n < density => 0xff,
                    n if n == density => random.next().to_le_bytes()[0],
                    _ => 0,
                })
                .collect();
            for from in 0..520 {
                assert_eq!(run(&bits, from), run_by_bits(&bits, from), "{density}: {from}");
            }
        }
    }

    #[test]
    fn bit_0_of_byte_0_comes_first() {
        let mut bits = [0; 8];
        bits[0] = 0b0000_0111;
        assert_eq!(run(&bits, 0), (true, 3));
        assert_eq!(run(&bits, 2), (true, 1));
        assert_eq!(run(&bits, 3), (false, 61));
    }
}
