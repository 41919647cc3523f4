//! Sector bitmaps: one bit per sector of a block, most significant bit first.

use std::sync::Arc;

use instar_core::{Context, References, Result, Storage, TableReader};

/// Bits looked at together.
const WORD: usize = u64::BITS as usize;

/// The bitmaps of one image.
pub(crate) struct Bitmaps {
    reader: TableReader,
    references: References,
    context: Arc<Context>,
}

impl Bitmaps {
    /// The bitmaps, of `length` bytes each, in this file.
    pub(crate) fn new(storage: Arc<dyn Storage>, length: u64, context: Arc<Context>) -> Self {
        let references = References::new("sector bitmaps", storage.len(), length);
        let reader = TableReader::new("sector bitmap", storage, &context.limits);
        Self { reader, references, context }
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
    pub(crate) fn at(&mut self, block: u64, at: u64, length: u64) -> Result<Option<&[u8]>> {
        self.references.count(block, &self.context.notices)?;
        if self.reader.unstored(at, length)? == length {
            return Ok(None);
        }
        // At most 512 KiB: the largest block has 2^31 bytes.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.reader.bytes(at, length).map(Some)
    }
}

/// The value of the bit `from`, and how many bits from there on share it, at most `limit`.
///
/// Bits that are not in `bitmap` count as clear.
pub(crate) fn run(bitmap: &[u8], from: usize, limit: usize) -> (bool, usize) {
    let words = bitmap.chunks_exact(WORD / 8).skip(from / WORD);
    let mut words = words.filter_map(|word| Some(u64::from_be_bytes(*word.first_chunk()?)));
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

#[cfg(test)]
mod tests {
    use instar_core::MemoryStorage;
    use instar_core::testkit::Random;
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn bitmaps_in_holes_are_not_read_and_others_are() {
        let storage = MemoryStorage::new(8192).with_data(1000, [0xff; 1000]);
        let mut bitmaps = Bitmaps::new(Arc::new(storage), 512, Arc::default());
        let mut set =
            |at| bitmaps.at(0, at, 512).unwrap().map(|bytes| bytes.iter().any(|b| *b > 0));
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
    fn plain(bitmap: &[u8], from: usize, limit: usize) -> (bool, usize) {
        let bit = |at: usize| bitmap[at / 8] >> (7 - at % 8) & 1 == 1;
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
                let limit = 1 + random.below(512 - from);
                assert_eq!(run(&bitmap, from, limit), plain(&bitmap, from, limit), "{bitmap:?}");
                let rest = 512 - from;
                assert_eq!(run(&bitmap, from, rest), plain(&bitmap, from, rest), "{bitmap:?}");
            }
        }
    }

    #[test]
    fn the_first_bit_is_the_most_significant() {
        assert_eq!(run(&[0x80, 0, 0, 0, 0, 0, 0, 1], 0, 64), (true, 1));
        assert_eq!(run(&[0x80, 0, 0, 0, 0, 0, 0, 1], 1, 63), (false, 62));
        assert_eq!(run(&[0x80, 0, 0, 0, 0, 0, 0, 1], 63, 1), (true, 1));
    }
}
