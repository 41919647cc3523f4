//! Extents as a format hands them over: lengths with a status, in order, without gaps.

use crate::rows::Columns;
use crate::{Place, Status};

/// How many extents a [`Batch`] holds unless told otherwise.
const CAPACITY: usize = 4096;

/// Whether a format should go on appending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// There is room: append what follows.
    More,
    /// The batch is full or complete. The extent just pushed may have been refused, so the next
    /// one starts at [`Batch::cursor`], wherever that is.
    Stop,
}

/// A run of equal status.
// The columns are worked out when the extent is made, where the status is mostly a constant, and
// not again for the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes, never 0.
    pub length: u64,
    /// The place; 0 if there is none.
    pub(crate) offset: u64,
    pub(crate) file: u32,
    pub(crate) columns: Columns,
}

impl Extent {
    /// What the layer says about it.
    #[inline]
    pub fn status(&self) -> Status {
        self.columns.status(Place::in_file(self.file, self.offset))
    }
}

/// A bounded list of extents for the range that core asks about.
///
/// A format appends lengths; the batch supplies the starts, clips to what was asked, merges
/// neighbours and bounds the count. Gaps, overlaps and wrong order cannot be written.
#[derive(Debug)]
pub struct Batch {
    extents: Vec<Extent>,
    capacity: usize,
    start: u64,
    cursor: u64,
    end: u64,
}

impl Default for Batch {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl Batch {
    /// An empty batch that holds at most `capacity` extents (at least one).
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            extents: Vec::with_capacity(capacity.min(CAPACITY)),
            capacity,
            start: 0,
            cursor: 0,
            end: 0,
        }
    }

    /// Empties the batch and asks about the guest bytes from `start` up to `end`.
    pub fn ask(&mut self, start: u64, end: u64) {
        self.extents.clear();
        self.start = start;
        self.cursor = start;
        self.end = end.max(start);
    }

    /// The guest offset, in bytes, of what is to be appended next.
    #[inline]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The guest offset, in bytes, where the question ends.
    #[inline]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Where the question, and so the first extent, starts.
    #[inline]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// What has been appended.
    #[inline]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Appends `length` bytes of `status` at the cursor.
    ///
    /// A length beyond the end of the question is clipped, a length of 0 appends nothing.
    // Called for every run of every table: the status is best known where it is called.
    #[inline(always)]
    pub fn push(&mut self, length: u64, status: Status) -> Flow {
        let room = self.end - self.cursor;
        let length = length.min(room);
        if length == 0 {
            return if room == 0 { Flow::Stop } else { Flow::More };
        }
        let (columns, place) = Columns::of(status);
        let continues = |last: &Extent| {
            let next = last.columns.advanced(last.offset, last.length);
            last.columns == columns && last.file == place.file && next == place.offset
        };
        match self.extents.last_mut() {
            Some(last) if continues(last) => last.length += length,
            _ => {
                if self.extents.len() >= self.capacity {
                    return Flow::Stop;
                }
                let Place { offset, file } = place;
                self.extents.push(Extent { length, offset, file, columns });
            }
        }
        self.cursor += length;
        if length == room { Flow::Stop } else { Flow::More }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn neighbours_that_continue_merge_and_others_do_not() {
        let mut batch = Batch::default();
        batch.ask(100, 1000);
        assert_eq!(batch.push(50, Status::Data(Place::at(7))), Flow::More);
        assert_eq!(batch.push(50, Status::Data(Place::at(57))), Flow::More);
        assert_eq!(batch.push(50, Status::Data(Place::at(57))), Flow::More);
        assert_eq!(batch.push(50, Status::Data(Place::in_file(1, 107))), Flow::More);
        assert_eq!(batch.push(0, Status::Absent), Flow::More);
        assert_eq!(batch.push(9999, Status::Absent), Flow::Stop);
        assert_eq!(
            batch.extents().iter().map(|e| e.length).collect::<Vec<_>>(),
            [100, 50, 50, 700]
        );
        assert_eq!(batch.cursor(), 1000);
        assert_eq!(batch.push(1, Status::Absent), Flow::Stop);
    }

    #[test]
    fn a_full_batch_refuses_and_keeps_its_cursor() {
        let mut batch = Batch::with_capacity(1);
        batch.ask(0, 100);
        assert_eq!(batch.push(10, Status::Zero), Flow::More);
        assert_eq!(batch.push(10, Status::Absent), Flow::Stop);
        assert_eq!(batch.cursor(), 10);
        assert_eq!(batch.push(10, Status::Zero), Flow::More);
        assert_eq!(batch.cursor(), 20);
    }
}
