//! Rows of the map: what qemu would print, as values.

use crate::{Chain, Error, Result, Shape, Status};

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

    /// The columns for a status: the only place where the one becomes the other.
    #[inline]
    pub fn of(status: Status) -> Self {
        Self(match status {
            Status::Data(_) | Status::DataOverHoles(_) => Self::PRESENT | Self::DATA | Self::OFFSET,
            Status::DataInHole(_) => Self::PRESENT | Self::ZERO | Self::DATA | Self::OFFSET,
            Status::Opaque => Self::PRESENT | Self::DATA,
            Status::Compressed => Self::PRESENT | Self::DATA | Self::COMPRESSED,
            Status::Zero => Self::PRESENT | Self::ZERO,
            Status::ZeroAt(_) => Self::PRESENT | Self::ZERO | Self::OFFSET,
            Status::Absent => Self::ZERO,
            Status::AbsentAt(_) => Self::ZERO | Self::OFFSET,
        })
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

    /// The bits that a version of this shape knows, and so merges by.
    fn known_to(shape: Shape) -> u8 {
        match shape {
            Shape::WithoutPresent => !(Self::PRESENT | Self::COMPRESSED),
            Shape::WithPresent => !Self::COMPRESSED,
            Shape::WithCompressed => !0,
        }
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
    /// Index into [`Chain::files`], if [`Flags::has_offset`]; else 0.
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

/// Reads a chain as rows, neighbours merged as qemu merges them.
///
/// Memory is constant: a bounded number of rows at a time.
pub struct RowReader {
    chain: Chain,
    at: u64,
    end: u64,
    mask: u8,
    rows: Vec<Row>,
    /// Waits for a row that it does not merge with. Lost if an error comes first, as in qemu.
    pending: Option<Row>,
    failed: Option<Error>,
}

impl RowReader {
    /// The rows of `window`, merged as a qemu of this `shape` does.
    pub fn new(chain: Chain, window: Window, shape: Shape) -> Self {
        let end = window.end(chain.virtual_size());
        let empty = window.start >= end;
        let nothing = Row {
            start: window.start,
            length: 0,
            offset: 0,
            file: 0,
            depth: 0,
            flags: Flags::NONE,
        };
        Self {
            chain,
            at: window.start,
            end,
            mask: Flags::known_to(shape),
            rows: Vec::with_capacity(ROWS),
            pending: empty.then_some(nothing),
            failed: None,
        }
    }

    /// The chain that is read.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The next rows; none at the end.
    ///
    /// # Errors
    /// What a format met at the point that the rows have reached. All rows before it have been
    /// handed over, but for the one that was not known to be complete.
    pub fn next_rows(&mut self) -> Result<&[Row]> {
        self.rows.clear();
        if let Some(error) = self.failed.take() {
            self.at = self.end;
            self.pending = None;
            return Err(error);
        }
        while self.rows.len() < ROWS {
            if self.at >= self.end {
                self.rows.extend(self.pending.take());
                break;
            }
            match self.chain.piece(self.at, self.end) {
                Ok(piece) => {
                    let flags = Flags::of(piece.status);
                    let row = Row {
                        start: self.at,
                        length: piece.end - self.at,
                        offset: piece.status.place().map_or(0, |place| place.offset),
                        file: piece.file,
                        depth: piece.depth,
                        flags,
                    };
                    self.at = piece.end;
                    self.append(row);
                }
                Err(error) => {
                    if self.rows.is_empty() {
                        self.at = self.end;
                        self.pending = None;
                        return Err(error);
                    }
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok(&self.rows)
    }

    #[inline]
    fn append(&mut self, row: Row) {
        match &mut self.pending {
            Some(last) if merges(last, &row, self.mask) => last.length += row.length,
            pending => self.rows.extend(pending.replace(row)),
        }
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
