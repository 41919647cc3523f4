//! Extents as a format hands them over: lengths with a status, in order, without gaps.

use std::fmt;

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
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes, never 0.
    pub length: u64,
    /// The place; 0 if there is none.
    pub(crate) offset: u64,
    pub(crate) kind: Kind,
}

/// What an extent has in common with one that continues it: its columns and its file. One number,
/// so that it is compared and stored in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(u64);

impl Kind {
    #[inline(always)]
    fn new(columns: Columns, file: u32) -> Self {
        Self(u64::from(columns.bits()) << 32 | u64::from(file))
    }

    #[inline(always)]
    pub(crate) fn columns(self) -> Columns {
        Columns::from_bits(self.0.to_le_bytes()[4])
    }

    /// The number of the file; 0 if there is no place.
    #[inline(always)]
    pub(crate) fn file(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl Extent {
    /// What nothing continues.
    const NOTHING: Self = Self { length: 0, offset: 0, kind: Kind(u64::MAX) };

    /// What the layer says about it.
    #[inline]
    pub fn status(&self) -> Status {
        self.kind.columns().status(Place::in_file(self.kind.file(), self.offset))
    }
}

/// The status rather than how it is kept: a broken law of the testkit shows extents.
impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extent")
            .field("length", &self.length)
            .field("status", &self.status())
            .finish()
    }
}

/// A bounded list of extents for the range that core asks about.
///
/// A format appends lengths; the batch supplies the starts, clips to what was asked, merges
/// neighbours and bounds the count. Gaps, overlaps and wrong order cannot be written.
#[derive(Debug)]
pub struct Batch {
    /// What was appended, and then room.
    extents: Vec<Extent>,
    count: usize,
    capacity: usize,
    /// How many extents there may be this time.
    most: usize,
    start: u64,
    cursor: u64,
    end: u64,
    /// As [`Batch::below`].
    below: u64,
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
        let most = capacity;
        Self {
            extents: Vec::new(),
            count: 0,
            capacity,
            most,
            start: 0,
            cursor: 0,
            end: 0,
            below: 0,
        }
    }

    /// Makes an unused batch hold at most `capacity` extents, if that is fewer than it holds.
    pub(crate) fn bound(&mut self, capacity: usize) {
        if capacity < self.capacity {
            *self = Self::with_capacity(capacity);
        }
    }

    /// Empties the batch and asks about the guest bytes from `start` up to `end`.
    pub fn ask(&mut self, start: u64, end: u64) {
        self.count = 0;
        self.start = start;
        self.cursor = start;
        self.end = end.max(start);
        self.below = 0;
        self.most = self.capacity;
    }

    /// Has the batch hold at most so many extents until it is asked again.
    pub(crate) fn hold(&mut self, most: usize) {
        self.most = self.capacity.min(most.max(1));
    }

    /// Says that up to guest offset `below` there is a layer below, which decides about what is
    /// absent in the one that is asked.
    pub(crate) fn over(&mut self, below: u64) {
        self.below = below;
    }

    /// The guest offset up to which a layer below decides about what is absent in this one: whether
    /// that has a place does not count there. 0 if there is none.
    #[inline]
    pub fn below(&self) -> u64 {
        self.below
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
        self.extents.get(..self.count).unwrap_or_default()
    }

    /// Appends `length` bytes of `status` at the cursor.
    ///
    /// A length beyond the end of the question is clipped, a length of 0 appends nothing.
    #[inline]
    pub fn push(&mut self, length: u64, status: Status) -> Flow {
        self.tail().push(length, status)
    }

    /// The end of the list, for a loop that pushes much: the same push, with less to look up.
    #[inline(always)]
    pub fn tail(&mut self) -> Tail<'_> {
        if self.count == self.extents.len() {
            self.grow();
        }
        let last = self.extents().last().copied().unwrap_or(Extent::NOTHING);
        let free = self.extents.len().min(self.most);
        Tail {
            kind: last.kind,
            next: last.kind.columns().advanced(last.offset, last.length),
            room: self.end - self.cursor,
            count: self.count,
            extents: self.extents.get_mut(..free).unwrap_or_default(),
            end: self.end,
            batch: (&mut self.count, &mut self.cursor),
        }
    }

    /// Makes room for more extents, if there may be more.
    #[cold]
    fn grow(&mut self) {
        let more = self.extents.len().saturating_mul(2).max(CAPACITY);
        if self.count < self.most {
            self.extents.resize(more.min(self.capacity), Extent::NOTHING);
        }
    }
}

/// The end of a [`Batch`]. What it appends is in the batch when it goes.
// Its fields are in registers while a format walks a table.
#[derive(Debug)]
pub struct Tail<'a> {
    extents: &'a mut [Extent],
    count: usize,
    /// Of the last extent, and the offset of one that continues it.
    kind: Kind,
    next: u64,
    /// Bytes from the cursor to the end of the question.
    room: u64,
    end: u64,
    /// The batch's count and cursor.
    batch: (&'a mut usize, &'a mut u64),
}

impl Tail<'_> {
    /// As [`Batch::push`].
    // Called for every run of every table: the status is best known where it is called.
    #[inline(always)]
    pub fn push(&mut self, length: u64, status: Status) -> Flow {
        let length = length.min(self.room);
        if length == 0 {
            return if self.room == 0 { Flow::Stop } else { Flow::More };
        }
        let (columns, Place { offset, file }) = Columns::of(status);
        let kind = Kind::new(columns, file);
        if self.kind == kind && self.next == offset {
            if let Some(last) = self.extents.get_mut(self.count.wrapping_sub(1)) {
                last.length += length;
            }
        } else {
            let Some(free) = self.extents.get_mut(self.count) else {
                return Flow::Stop;
            };
            *free = Extent { length, offset, kind };
            self.count += 1;
            self.kind = kind;
        }
        self.next = columns.advanced(offset, length);
        self.room -= length;
        if self.room == 0 { Flow::Stop } else { Flow::More }
    }
}

impl Drop for Tail<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.batch.0 = self.count;
        *self.batch.1 = self.end - self.room;
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
    fn an_extent_shows_its_status() {
        let mut batch = Batch::default();
        batch.ask(0, 10);
        let _ = batch.push(10, Status::ZeroAt(Place::at(40)));
        let shown = format!("{:?}", batch.extents());
        assert_eq!(shown, "[Extent { length: 10, status: ZeroAt(Place { offset: 40, file: 0 }) }]");
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
