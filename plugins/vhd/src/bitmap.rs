//! Sector bitmaps: one bit per sector of a block.

use std::sync::Arc;

use instar_core::{Context, References, Result, Storage, TableReader};

use crate::disk::BitOrder;

/// Bits looked at together.
const WORD: usize = u64::BITS as usize;

/// The bitmaps of one image.
pub(crate) struct Bitmaps {
    reader: TableReader,
    references: References,
    order: BitOrder,
    context: Arc<Context>,
}

impl Bitmaps {
    /// The bitmaps, of `length` bytes each, in this file.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        length: u64,
        order: BitOrder,
        context: Arc<Context>,
    ) -> Self {
        let references = References::new("sector bitmaps", storage.len(), length);
        let reader = TableReader::new("sector bitmap", storage, &context.limits);
        Self { reader, references, order, context }
    }

    /// As [`TableReader::buffered`].
    pub(crate) fn buffered(&self) -> u64 {
        self.reader.buffered()
    }

    /// As [`TableReader::release`].
    pub(crate) fn release(&mut self) {
        self.reader.release();
    }

    /// The bitmap of `block`, of `length` bytes at file offset `at`; none if it is all zeros because
    /// the host stores nothing there.
    ///
    /// Bitmaps lie far apart, so each costs a read of its own. A sparse file of a few KiB can
    /// have a million of them: those are not read.
    pub(crate) fn at(&mut self, block: u64, at: u64, length: u64) -> Result<Option<Bitmap<'_>>> {
        self.references.count(block, &self.context.notices)?;
        if self.reader.unstored(at, length)? == length {
            return Ok(None);
        }
        // At most 512 KiB: the largest block has 2^31 bytes.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = self.reader.bytes(at, length)?;
        Ok(Some(Bitmap { bytes, order: self.order }))
    }
}

/// The bitmap of one block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bitmap<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) order: BitOrder,
}

impl Bitmap<'_> {
    /// The value of the bit `from`, and how many bits from there on share it, at most `limit`.
    ///
    /// Bits that are not in the bitmap count as clear.
    pub(crate) fn run(self, from: usize, limit: usize) -> (bool, usize) {
        let words = self.bytes.chunks_exact(WORD / 8).skip(from / WORD);
        let mut words = words.filter_map(|word| Some(self.order.word(*word.first_chunk()?)));
        let skip = from % WORD;
        // The bits before `from` are shifted out; what is shifted in is not counted.
        let first = words.next().unwrap_or(0) << skip;
        let set = first.leading_ones() > 0;
        let equal = |word: u64| {
            let zeros = if set { (!word).leading_zeros() } else { word.leading_zeros() };
            zeros as usize
        };
        let mut length = equal(first).min(WORD - skip);
        if length == WORD - skip {
            for word in words {
                let more = equal(word);
                length = length.saturating_add(more);
                if more < WORD || length >= limit {
                    break;
                }
            }
        }
        (set, length.clamp(1, limit.max(1)))
    }
}

impl BitOrder {
    /// Eight bytes of a bitmap, the first sector's bit being the most significant.
    fn word(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::HighestFirst => u64::from_be_bytes(bytes),
            Self::LowestFirst => u64::from_le_bytes(bytes).reverse_bits(),
        }
    }
}

#[cfg(test)]
mod tests {
    use instar_core::MemoryStorage;
    use instar_core::testkit::Random;
    use pretty_assertions::assert_eq;

    use super::*;
    use BitOrder::{HighestFirst, LowestFirst};

    fn run(bytes: &[u8], order: BitOrder, from: usize, limit: usize) -> (bool, usize) {
        Bitmap { bytes, order }.run(from, limit)
    }

    #[test]
    fn bitmaps_in_holes_are_not_read_and_others_are() {
        let storage = MemoryStorage::new(8192).with_data(1000, [0xff; 1000]);
        let mut bitmaps = Bitmaps::new(Arc::new(storage), 512, HighestFirst, Arc::default());
        let mut set = |at| {
            let bitmap = bitmaps.at(0, at, 512).unwrap();
            bitmap.map(|bitmap| bitmap.bytes.iter().any(|byte| *byte > 0))
        };
        for (at, expected) in [
            (0, None),
            (488, None),
            (489, Some(true)),
            (1500, Some(true)),
            (1999, Some(true)),
            // In memory, with the one before.
            (2000, Some(false)),
            (7680, None),
            (0, None),
        ] {
            assert_eq!(set(at), expected, "{at}");
        }
    }

    /// The same, bit by bit.
    fn plain(bitmap: &[u8], order: BitOrder, from: usize, limit: usize) -> (bool, usize) {
        let shift = |at: usize| if order == HighestFirst { 7 - at % 8 } else { at % 8 };
        let bit = |at: usize| bitmap[at / 8] >> shift(at) & 1 == 1;
        let count = (from..bitmap.len() * 8).take(limit).take_while(|at| bit(*at) == bit(from));
        (bit(from), count.count())
    }

    #[test]
    fn runs_agree_with_a_look_at_every_bit() {
        let mut random = Random::new(1);
        for round in 0..500 {
            let mut bitmap = [if round % 2 == 0 { 0 } else { 0xff }; 64];
            for _ in 0..round % 7 {
                bitmap[random.below(64)] ^= 1 << random.below(8);
            }
            for from in 0..512 {
                let rest = 512 - from;
                for (order, limit) in [
                    (HighestFirst, rest),
                    (HighestFirst, 1 + random.below(rest)),
                    (LowestFirst, 1 + random.below(rest)),
                ] {
                    let expected = plain(&bitmap, order, from, limit);
                    assert_eq!(run(&bitmap, order, from, limit), expected, "{bitmap:?}");
                }
            }
        }
    }

    #[test]
    fn which_bit_is_the_first() {
        let bitmap = [0x80, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(run(&bitmap, HighestFirst, 0, 64), (true, 1));
        assert_eq!(run(&bitmap, HighestFirst, 1, 63), (false, 62));
        assert_eq!(run(&bitmap, HighestFirst, 63, 1), (true, 1));
        assert_eq!(run(&bitmap, LowestFirst, 0, 64), (false, 7));
        assert_eq!(run(&bitmap, LowestFirst, 7, 57), (true, 1));
        assert_eq!(run(&bitmap, LowestFirst, 8, 56), (false, 48));
        assert_eq!(run(&bitmap, LowestFirst, 56, 8), (true, 1));
    }
}
