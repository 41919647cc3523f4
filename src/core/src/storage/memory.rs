//! Bytes in memory, with holes: for tests, fuzzing and whoever has an image in memory.

use std::collections::BTreeMap;
use std::io;

use positioned_io::ReadAt;

use super::{Run, RunKind, Storage};

/// An image in memory: pieces of bytes at offsets, holes between them.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    pieces: BTreeMap<u64, Vec<u8>>,
    length: u64,
    allocated: Option<u64>,
}

impl MemoryStorage {
    /// `length` bytes of hole.
    pub fn new(length: u64) -> Self {
        Self { length, ..Self::default() }
    }

    /// These bytes, all of them data.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::new(0).with_data(0, bytes)
    }

    /// Puts data at `at`, lengthening the storage if need be.
    ///
    /// # Panics
    /// If the piece overlaps one that is there or reaches beyond 2^64: a mistake in the test.
    #[must_use]
    pub fn with_data(mut self, at: u64, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let end = at.checked_add(bytes.len() as u64).expect("a piece ends below 2^64");
        assert!(!self.has_data(at, end), "pieces do not overlap");
        if !bytes.is_empty() {
            self.pieces.insert(at, bytes);
        }
        self.length = self.length.max(end);
        self
    }

    /// The pieces of data, as offset and bytes, in order.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().map(|(start, bytes)| (*start, bytes.as_slice()))
    }

    /// Overwrites what is data from `at` on; what would fall into a hole is dropped.
    pub fn patch(&mut self, at: u64, bytes: &[u8]) {
        let end = at.saturating_add(bytes.len() as u64);
        let first = self.piece_before(at).map_or(at, |(start, _)| start);
        for (start, piece) in self.pieces.range_mut(first..end.max(first)) {
            let from = usize::try_from(start.saturating_sub(at)).unwrap_or(usize::MAX);
            let to = usize::try_from(at.saturating_sub(*start)).unwrap_or(usize::MAX);
            if let (Some(source), Some(target)) = (bytes.get(from..), piece.get_mut(to..)) {
                for (t, s) in target.iter_mut().zip(source) {
                    *t = *s;
                }
            }
        }
    }

    /// Sets the length; what lies behind it is dropped.
    pub fn set_len(&mut self, length: u64) {
        self.length = length;
        self.pieces.split_off(&length);
        if let Some(mut last) = self.pieces.last_entry() {
            let room = usize::try_from(length - *last.key()).unwrap_or(usize::MAX);
            last.get_mut().truncate(room);
        }
    }

    /// Sets what [`Storage::allocated`] answers; by default, the sum of the pieces.
    #[must_use]
    pub fn with_allocated(mut self, bytes: u64) -> Self {
        self.allocated = Some(bytes);
        self
    }

    /// Whether there is data from `start` to `end`.
    pub(crate) fn has_data(&self, start: u64, end: u64) -> bool {
        let last = self.pieces.range(..end).next_back();
        last.is_some_and(|(at, piece)| at + piece.len() as u64 > start)
    }

    /// The start and bytes of the piece at `at`, or of the last one before it.
    fn piece_before(&self, at: u64) -> Option<(u64, &[u8])> {
        self.pieces.range(..=at).next_back().map(|(start, bytes)| (*start, bytes.as_slice()))
    }
}

impl From<Vec<u8>> for MemoryStorage {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_bytes(bytes)
    }
}

impl ReadAt for MemoryStorage {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let count = buffer.len().min(room);
        let buffer = buffer.get_mut(..count).unwrap_or_default();
        buffer.fill(0);
        let end = at.saturating_add(count as u64);
        let first = self.piece_before(at).map_or(at, |(start, _)| start);
        for (start, bytes) in self.pieces.range(first..end) {
            let from = usize::try_from(at.saturating_sub(*start)).unwrap_or(usize::MAX);
            let to = usize::try_from(start.saturating_sub(at)).unwrap_or(usize::MAX);
            if let (Some(source), Some(target)) = (bytes.get(from..), buffer.get_mut(to..)) {
                for (t, s) in target.iter_mut().zip(source) {
                    *t = *s;
                }
            }
        }
        Ok(count)
    }
}

impl Storage for MemoryStorage {
    fn len(&self) -> u64 {
        self.length
    }

    fn run_at(&self, at: u64) -> io::Result<Run> {
        if let Some((start, bytes)) = self.piece_before(at) {
            let mut end = start.saturating_add(bytes.len() as u64);
            if at < end {
                while let Some(next) = self.pieces.get(&end) {
                    end = end.saturating_add(next.len() as u64);
                }
                return Ok(Run { kind: RunKind::Data, end });
            }
        }
        let next = self.pieces.range(at..).next().map_or(u64::MAX, |(start, _)| *start);
        Ok(Run { kind: RunKind::Hole, end: next })
    }

    fn allocated(&self) -> u64 {
        self.allocated.unwrap_or_else(|| self.pieces.values().map(|p| p.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn only_data_is_patched_and_what_is_cut_off_is_gone() {
        let mut storage =
            MemoryStorage::new(100).with_data(10, [1; 10]).with_data(20, [2; 5]).with_data(50, [3]);
        storage.patch(8, &[9; 4]);
        storage.patch(19, &[8; 2]);
        storage.patch(24, &[7; 99]);
        let mut expected = [0; 100];
        expected[10..20].fill(1);
        expected[20..25].fill(2);
        expected[10..12].fill(9);
        expected[19..21].fill(8);
        expected[24] = 7;
        expected[50] = 7;
        let mut buffer = [9; 100];
        assert_eq!(storage.read_at(0, &mut buffer).unwrap(), 100);
        assert_eq!(buffer, expected);
        storage.set_len(12);
        storage.set_len(30);
        let pieces: Vec<_> = storage.pieces().collect();
        assert_eq!(pieces, [(10, [9_u8; 2].as_slice())]);
        assert_eq!(storage.len(), 30);
    }

    #[test]
    fn pieces_and_holes() {
        let storage = MemoryStorage::new(100)
            .with_data(10, [1; 10])
            .with_data(20, [2; 5])
            .with_data(50, [3; 1]);
        let mut buffer = [9; 100];
        assert_eq!(storage.read_at(0, &mut buffer).unwrap(), 100);
        let mut expected = [0; 100];
        expected[10..20].fill(1);
        expected[20..25].fill(2);
        expected[50] = 3;
        assert_eq!(buffer, expected);
        assert_eq!(storage.read_at(15, &mut buffer[..10]).unwrap(), 10);
        assert_eq!(buffer[..10], expected[15..25]);
        assert_eq!(storage.run_at(0).unwrap(), Run { kind: RunKind::Hole, end: 10 });
        assert_eq!(storage.run_at(12).unwrap(), Run { kind: RunKind::Data, end: 25 });
        assert_eq!(storage.run_at(51).unwrap(), Run { kind: RunKind::Hole, end: u64::MAX });
        assert_eq!(storage.allocated(), 16);
    }
}
