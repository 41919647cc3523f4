//! Rows of the map: what qemu would print, as values.

use std::borrow::BorrowMut;

use crate::{Chain, Error, Place, Result, Shape, Status};

/// How many rows are handed over at a time.
const ROWS: usize = 4096;

/// qemu's columns for a range, as a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u8);

impl Flags {
    /// No column at all: the row of an empty window.
    pub const NONE: Self = Self(0);
    const PRESENT: u8 = 1;
    const ZERO: u8 = 2;
    const DATA: u8 = 4;
    const COMPRESSED: u8 = 8;
    const OFFSET: u8 = 16;
    /// How many different values [`Flags::bits`] can have.
    pub const VALUES: usize = 32;

    /// The columns for a status.
    #[inline]
    pub fn of(status: Status) -> Self {
        Columns::of(status).0.flags()
    }

    /// The flags with these bits; others are ignored.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 31)
    }

    /// A number below [`Flags::VALUES`], for tables.
    #[inline]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// A layer of the chain decides about the range (qemu's `present`).
    #[inline]
    pub fn present(self) -> bool {
        self.0 & Self::PRESENT != 0
    }

    /// The range reads as zeros.
    #[inline]
    pub fn zero(self) -> bool {
        self.0 & Self::ZERO != 0
    }

    /// The layer stores something for the range.
    #[inline]
    pub fn data(self) -> bool {
        self.0 & Self::DATA != 0
    }

    /// What is stored is compressed.
    #[inline]
    pub fn compressed(self) -> bool {
        self.0 & Self::COMPRESSED != 0
    }

    /// The range has a place in a file.
    #[inline]
    pub fn has_offset(self) -> bool {
        self.0 & Self::OFFSET != 0
    }

    /// The name of the [`Status`] that has these columns, in lower case with hyphens; `none` for
    /// [`Flags::NONE`].
    pub fn state(self) -> &'static str {
        match (self.present(), self.zero(), self.data(), self.has_offset()) {
            (true, false, true, true) => "data",
            (true, true, true, _) => "data-in-hole",
            (true, false, true, false) if self.compressed() => "compressed",
            (true, false, true, false) => "opaque",
            (true, true, false, false) => "zero",
            (true, true, false, true) => "zero-at",
            (false, true, _, false) => "absent",
            (false, true, _, true) => "absent-at",
            _ => "none",
        }
    }

    /// The bits that a version of this shape knows, and so merges by.
    fn known_to(shape: Shape) -> u8 {
        match shape {
            Shape::WithoutPresent => !(Self::PRESENT | Self::COMPRESSED),
            Shape::WithPresent => !Self::COMPRESSED,
            Shape::WithCompressed => !0,
        }
    }
}

/// A status without its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Columns(u8);

impl Columns {
    /// Holes of the host are to be looked for.
    const OVER_HOLES: u8 = 32;

    #[inline(always)]
    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The columns for a status, and its place, if it has one, else 0: the only code where the
    /// one becomes the other.
    #[inline(always)]
    pub(crate) fn of(status: Status) -> (Self, Place) {
        let nowhere = Place::at(0);
        let data = Flags::PRESENT | Flags::DATA;
        let (bits, place) = match status {
            Status::Data(place) => (data | Flags::OFFSET, place),
            Status::DataOverHoles(place) => (data | Flags::OFFSET | Self::OVER_HOLES, place),
            Status::DataInHole(place) => (data | Flags::ZERO | Flags::OFFSET, place),
            Status::Opaque => (data, nowhere),
            Status::Compressed => (data | Flags::COMPRESSED, nowhere),
            Status::Zero => (Flags::PRESENT | Flags::ZERO, nowhere),
            Status::ZeroAt(place) => (Flags::PRESENT | Flags::ZERO | Flags::OFFSET, place),
            Status::Absent => (Flags::ZERO, nowhere),
            Status::AbsentAt(place) => (Flags::ZERO | Flags::OFFSET, place),
        };
        (Self(bits), place)
    }

    /// The status that has these columns and this place.
    #[inline]
    pub(crate) fn status(self, place: Place) -> Status {
        let flags = self.flags();
        match (flags.present(), flags.zero(), flags.data(), flags.has_offset()) {
            _ if self.is_over_holes() => Status::DataOverHoles(place),
            (_, false, _, true) => Status::Data(place),
            (_, true, true, _) => Status::DataInHole(place),
            (_, false, _, false) if flags.compressed() => Status::Compressed,
            (_, false, _, false) => Status::Opaque,
            (true, true, false, false) => Status::Zero,
            (true, true, false, true) => Status::ZeroAt(place),
            (false, true, false, false) => Status::Absent,
            (false, true, false, true) => Status::AbsentAt(place),
        }
    }

    /// qemu's columns.
    #[inline]
    pub(crate) fn flags(self) -> Flags {
        Flags(self.0 & !Self::OVER_HOLES)
    }

    /// Whether holes of the host are to be looked for.
    #[inline]
    pub(crate) fn is_over_holes(self) -> bool {
        self.0 & Self::OVER_HOLES != 0
    }

    /// Whether neither the host nor, if this layer is not the last, the one below is to be asked.
    #[inline]
    pub(crate) fn is_decided(self, is_last: bool) -> bool {
        let asked = Self::OVER_HOLES | if is_last { 0 } else { Flags::PRESENT };
        (self.0 ^ Flags::PRESENT) & asked == 0
    }

    /// The offset `by` bytes further on; 0 without a place.
    #[inline(always)]
    pub(crate) fn advanced(self, offset: u64, by: u64) -> u64 {
        // Wrapping: a place near 2^64 is nonsense from a hostile image, printed as such.
        if self.0 & Flags::OFFSET != 0 { offset.wrapping_add(by) } else { 0 }
    }
}

/// One row of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Guest offset in bytes.
    pub start: u64,
    /// Length in bytes; 0 only in the one row of an empty window.
    pub length: u64,
    /// Byte offset in the file, if [`Flags::has_offset`]; else 0.
    pub offset: u64,
    /// Index into the files of all layers ([`Chain::files`]; in a program that uses the library,
    /// `Image::files`), if [`Flags::has_offset`]. Else it is 0 and says nothing: not that the range
    /// is in the first file.
    pub file: u32,
    /// Which layer decided; 0 is the top.
    pub depth: u32,
    /// The columns.
    pub flags: Flags,
}

impl Row {
    /// The byte offset in the file, if there is one.
    pub fn offset(&self) -> Option<u64> {
        self.flags.has_offset().then_some(self.offset)
    }
}

/// The part of the disk to be mapped, in bytes; both numbers at most 2^63 − 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// First guest byte.
    pub start: u64,
    /// At most this many bytes.
    pub length: Option<u64>,
}

impl Window {
    /// Where the window ends on a disk of `size` bytes; at or before the start if it is empty.
    ///
    /// A sum over 2^63 − 1 is an empty window, as qemu's signed addition has it.
    pub fn end(self, size: u64) -> u64 {
        match self.length {
            None => size,
            Some(length) => match self.start.checked_add(length) {
                Some(end) if i64::try_from(end).is_ok() => end.min(size),
                _ => 0,
            },
        }
    }
}

/// Rows in the making: neighbours are merged as qemu merges them, so the last may still grow.
pub(crate) struct Rows {
    list: Vec<Row>,
    mask: u8,
}

impl Rows {
    #[inline]
    pub(crate) fn append(&mut self, row: Row) {
        match self.list.last_mut() {
            Some(last) if merges(last, &row, self.mask) => last.length += row.length,
            _ => self.list.push(row),
        }
    }

    /// How many rows there is room for.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        (ROWS + 1).saturating_sub(self.list.len())
    }

    /// Forgets all rows but the last, which may still grow.
    fn keep_last(&mut self) {
        let last = self.list.last().copied();
        self.list.clear();
        self.list.extend(last);
    }
}

/// Reads a chain as rows, neighbours merged as qemu merges them.
///
/// Memory is constant: a bounded number of rows at a time. The chain is taken or borrowed.
pub struct RowReader<C = Chain> {
    chain: C,
    at: u64,
    end: u64,
    rows: Rows,
    /// How many of `rows` were handed over.
    given: usize,
    failed: Option<Error>,
    /// Whether the end of the map was reached and what had to be said there was said.
    is_finished: bool,
}

impl<C: BorrowMut<Chain>> RowReader<C> {
    /// The rows of `window`, merged as a qemu of this `shape` does.
    pub fn new(chain: C, window: Window, shape: Shape) -> Self {
        let end = window.end(chain.borrow().virtual_size());
        let mut list = Vec::with_capacity(ROWS + 1);
        if window.start >= end {
            let (start, flags) = (window.start, Flags::NONE);
            list.push(Row { start, length: 0, offset: 0, file: 0, depth: 0, flags });
        }
        let rows = Rows { list, mask: Flags::known_to(shape) };
        Self { chain, at: window.start, end, rows, given: 0, failed: None, is_finished: false }
    }

    /// The chain that is read.
    pub fn chain(&self) -> &Chain {
        self.chain.borrow()
    }

    /// The next rows; none at the end.
    ///
    /// # Errors
    /// What a format met at the point that the rows have reached. All rows before it have been
    /// handed over, but for the last: it was not known to be complete, and qemu loses it too.
    /// After the last row, what [`Chain::finish`] says.
    pub fn next_rows(&mut self) -> Result<&[Row]> {
        if let Some(error) = self.failed.take() {
            self.rows.list.clear();
            self.at = self.end;
            self.is_finished = true;
            return Err(error);
        }
        if self.given == self.rows.list.len() {
            self.rows.list.clear();
        } else {
            self.rows.keep_last();
        }
        self.given = 0;
        while self.at < self.end && self.rows.room() > 0 {
            match self.chain.borrow_mut().fill(self.at, self.end, &mut self.rows) {
                Ok(at) => self.at = at,
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        let complete = self.at >= self.end && self.failed.is_none();
        let pending = usize::from(!complete).min(self.rows.list.len());
        self.given = self.rows.list.len() - pending;
        if self.given == 0 && self.failed.is_some() {
            return self.next_rows();
        }
        if complete && self.given == 0 && !self.is_finished {
            self.is_finished = true;
            self.chain.borrow_mut().finish()?;
        }
        Ok(self.rows.list.get(..self.given).unwrap_or_default())
    }
}

/// Whether `row` continues `last` for a qemu that knows the flags in `mask`.
#[inline]
fn merges(last: &Row, row: &Row, mask: u8) -> bool {
    (last.flags.bits() ^ row.flags.bits()) & mask == 0
        && last.depth == row.depth
        && (!row.flags.has_offset()
            || (last.file == row.file && last.offset.wrapping_add(last.length) == row.offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn every_status_has_its_columns_and_its_name() {
        let place = Place::at(1);
        let columns = |status| {
            let flags = Flags::of(status);
            let all = [flags.present(), flags.zero(), flags.data(), flags.compressed()];
            (all, flags.has_offset(), flags.state())
        };
        let (yes, no) = (true, false);
        for (status, expected) in [
            (Status::Data(place), ([yes, no, yes, no], yes, "data")),
            (Status::DataOverHoles(place), ([yes, no, yes, no], yes, "data")),
            (Status::DataInHole(place), ([yes, yes, yes, no], yes, "data-in-hole")),
            (Status::Opaque, ([yes, no, yes, no], no, "opaque")),
            (Status::Compressed, ([yes, no, yes, yes], no, "compressed")),
            (Status::Zero, ([yes, yes, no, no], no, "zero")),
            (Status::ZeroAt(place), ([yes, yes, no, no], yes, "zero-at")),
            (Status::Absent, ([no, yes, no, no], no, "absent")),
            (Status::AbsentAt(place), ([no, yes, no, no], yes, "absent-at")),
        ] {
            assert_eq!(columns(status), expected, "{status:?}");
        }
        assert_eq!(Flags::NONE.state(), "none");
    }

    #[test]
    fn windows_end_as_in_qemu() {
        let end = |start, length| Window { start, length }.end(1000);
        assert_eq!(end(5, None), 1000);
        assert_eq!(end(5, Some(10)), 15);
        assert_eq!(end(5, Some(5000)), 1000);
        assert_eq!(end(2000, Some(1)), 1000);
        // The sum is over 2^63 - 1: negative in qemu, hence empty.
        assert_eq!(end(1, Some(i64::MAX.unsigned_abs())), 0);
        assert_eq!(end(0, Some(i64::MAX.unsigned_abs())), 1000);
    }
}
