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
