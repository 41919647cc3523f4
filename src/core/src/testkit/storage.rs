//! Storage that is not as it should be.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use positioned_io::ReadAt;

use crate::{Run, Storage};

/// An image that can no longer be read after a number of calls, with reads of another unit.
pub(super) struct Failing {
    pub(super) image: Arc<dyn Storage>,
    /// Calls that still succeed.
    calls: AtomicU64,
    unit: u64,
}

impl Failing {
    /// The first so many `calls` succeed; reads are in units of `unit` bytes.
    pub(super) fn new(image: Arc<dyn Storage>, calls: u64, unit: u64) -> Self {
        Self { image, calls: AtomicU64::new(calls), unit }
    }

    /// How many calls would still succeed; `None` if one has failed.
    pub(super) fn left(&self) -> Option<u64> {
        // The count goes below 0 with the first failure.
        Some(self.calls.load(Ordering::Relaxed)).filter(|calls| *calls <= u64::MAX / 2)
    }

    fn call(&self) -> io::Result<()> {
        match self.calls.fetch_sub(1, Ordering::Relaxed) {
            1..=0x7fff_ffff_ffff_ffff => Ok(()),
            _ => Err(io::Error::other("a fault on purpose")),
        }
    }
}

impl ReadAt for Failing {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.call()?;
        self.image.read_at(at, buffer)
    }
}

impl Storage for Failing {
    fn len(&self) -> u64 {
        self.image.len()
    }

    fn run_at(&self, at: u64) -> io::Result<Run> {
        self.call()?;
        self.image.run_at(at)
    }

    fn allocated(&self) -> u64 {
        self.image.allocated()
    }

    fn read_unit(&self) -> u64 {
        self.unit
    }
}

/// What a storage says that is odd, in one of its calls or in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oddity {
    /// Every read gives one byte less than half of what was asked for, which is legal.
    ShortReads,
    /// Read number so many gives one byte, which is legal.
    ShortRead(u64),
    /// Read number so many gives no byte.
    EmptyRead(u64),
    /// Read number so many claims more bytes than were asked for.
    LongRead(u64),
    /// Question number so many about holes is answered with an empty run.
    EmptyRun(u64),
    /// Reads are to be in units of so many bytes, which may be no power of two.
    Unit(u64),
    /// The host claims to have allocated so many bytes.
    Allocated(u64),
    /// The storage claims to be so long.
    Length(u64),
}

/// An image whose storage is odd.
pub(super) struct Odd {
    image: Arc<dyn Storage>,
    oddity: Oddity,
    calls: AtomicU64,
}

impl Odd {
    pub(super) fn new(image: Arc<dyn Storage>, oddity: Oddity) -> Self {
        Self { image, oddity, calls: AtomicU64::new(0) }
    }

    /// How many calls of the kind that the oddity counts were made.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn count(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }
}

impl ReadAt for Odd {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let short = match self.oddity {
            Oddity::ShortReads => Some(buffer.len().div_ceil(2).saturating_sub(1).max(1)),
            Oddity::ShortRead(call) => (self.count() == call).then_some(1),
            Oddity::EmptyRead(call) => (self.count() == call).then_some(0),
            Oddity::LongRead(call) if self.count() == call => return Ok(buffer.len() + 1),
            _ => None,
        };
        let count = short.unwrap_or(buffer.len()).min(buffer.len());
        self.image.read_at(at, buffer.get_mut(..count).unwrap_or_default())
    }
}

impl Storage for Odd {
    fn len(&self) -> u64 {
        match self.oddity {
            Oddity::Length(length) => length,
            _ => self.image.len(),
        }
    }

    fn run_at(&self, at: u64) -> io::Result<Run> {
        let run = self.image.run_at(at)?;
        match self.oddity {
            Oddity::EmptyRun(call) if self.count() == call => Ok(Run { end: at, ..run }),
            _ => Ok(run),
        }
    }

    fn allocated(&self) -> u64 {
        match self.oddity {
            Oddity::Allocated(bytes) => bytes,
            _ => self.image.allocated(),
        }
    }

    fn read_unit(&self) -> u64 {
        match self.oddity {
            Oddity::Unit(unit) => unit,
            _ => self.image.read_unit(),
        }
    }
}
