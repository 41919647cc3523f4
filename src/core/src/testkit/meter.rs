//! What a format reads.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use positioned_io::ReadAt;

use crate::{MemoryStorage, Result, Run, SECTOR, Storage, read_padded};

thread_local! {
    static SERVED: Cell<u64> = const { Cell::new(0) };
}

/// Bytes of tables that were handed to formats on this thread, from memory or not, each time that
/// they were: what they decode.
pub fn served() -> u64 {
    SERVED.get()
}

/// Counts bytes of a table.
pub(crate) fn serve(length: usize) {
    SERVED.set(SERVED.get().wrapping_add(length as u64));
}

/// A storage that counts what is read from another, and ends it when that is too much.
///
/// Holes are asked for freely.
pub struct Meter {
    inner: Arc<dyn Storage>,
    budget: u64,
    bytes: AtomicU64,
    calls: AtomicU64,
    unit: u64,
    is_slow: AtomicBool,
    announced: Mutex<Vec<(u64, u64)>>,
    /// Ranges that were read, as start and end of whole sectors, disjoint and not touching; not
    /// kept if `None`.
    touched: Option<Mutex<BTreeMap<u64, u64>>>,
}

impl Meter {
    /// Counts; reads fail once `budget` bytes were read.
    pub fn new(inner: Arc<dyn Storage>, budget: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            inner,
            budget,
            bytes: zero(),
            calls: zero(),
            unit: SECTOR,
            is_slow: AtomicBool::new(false),
            announced: Mutex::default(),
            touched: None,
        }
    }

    /// Wants reads in units of `unit` bytes, as files do.
    #[must_use]
    pub fn with_unit(mut self, unit: u64) -> Self {
        self.unit = unit;
        self
    }

    /// Says from now on that reads have to wait, or that they need not.
    pub fn set_slow(&self, is_slow: bool) {
        self.is_slow.store(is_slow, Ordering::Relaxed);
    }

    /// What it was told will be needed, as offset and length, until now; it is forgotten.
    pub fn take_announced(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.announced.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Also keeps which sectors were read.
    #[must_use]
    pub fn with_trace(mut self) -> Self {
        self.touched = Some(Mutex::default());
        self
    }

    /// Bytes read until now.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reads made until now.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whether a read failed because the budget is used up.
    pub fn is_exhausted(&self) -> bool {
        self.bytes() > self.budget
    }

    /// The image without what was not read: the sectors that were read and hold something, and
    /// those next to them that were read too. The rest is a hole.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if they cannot be read again.
    pub fn image(&self) -> Result<MemoryStorage> {
        let mut image = MemoryStorage::new(self.inner.len());
        let touched = match &self.touched {
            Some(touched) => touched.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            None => BTreeMap::new(),
        };
        for (start, end) in touched {
            let mut sectors = Vec::new();
            for at in (start..end.min(self.inner.len())).step_by(512) {
                let length = SECTOR.min(self.inner.len() - at);
                let mut sector = vec![0; usize::try_from(length).unwrap_or(0)];
                read_padded(self.inner.as_ref(), at, &mut sector)
                    .map_err(|error| crate::Error::io("cannot read again", error).at(at))?;
                sectors.push((at, sector));
            }
            let is_used = |index: usize| {
                let sector = sectors.get(index);
                sector.is_some_and(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
            };
            let mut kept: Vec<(u64, Vec<u8>)> = Vec::new();
            for (index, (at, sector)) in sectors.iter().enumerate() {
                if is_used(index) || is_used(index + 1) || index > 0 && is_used(index - 1) {
                    match kept.last_mut() {
                        Some((start, piece)) if *start + piece.len() as u64 == *at => {
                            piece.extend_from_slice(sector);
                        }
                        _ => kept.push((*at, sector.clone())),
                    }
                }
            }
            for (at, piece) in kept {
                image = image.with_data(at, piece);
            }
        }
        Ok(image)
    }

    /// Adds a range to those that were read.
    fn touch(&self, at: u64, length: u64) {
        let Some(touched) = &self.touched else { return };
        let mut ranges = touched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start = at - at % SECTOR;
        let mut end = at.saturating_add(length).next_multiple_of(SECTOR);
        while let Some((from, to)) = ranges.range(..=end).next_back().map(|(f, t)| (*f, *t)) {
            if to < start {
                break;
            }
            ranges.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        ranges.insert(start, end);
    }
}

impl ReadAt for Meter {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len() as u64;
        self.calls.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        if before.saturating_add(length) > self.budget {
            return Err(io::Error::other("the budget for reading is used up"));
        }
        self.touch(at, length);
        self.inner.read_at(at, buffer)
    }
}

impl Storage for Meter {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn run_at(&self, at: u64) -> io::Result<Run> {
        self.inner.run_at(at)
    }

    fn allocated(&self) -> u64 {
        self.inner.allocated()
    }

    fn read_unit(&self) -> u64 {
        self.unit
    }

    fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    fn will_need(&self, at: u64, length: u64) {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).push((at, length));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn what_was_read_is_kept_and_the_rest_is_not() {
        let mut bytes = vec![0; 20 * 512];
        for sector in [0, 5, 9, 15] {
            bytes[sector * 512] = 1;
        }
        let meter = Meter::new(Arc::new(MemoryStorage::from_bytes(bytes)), 1 << 20).with_trace();
        let mut buffer = [0; 512];
        for at in [10, 4 * 512, 8 * 512 + 1, 6 * 512, 5 * 512, 7 * 512] {
            meter.read_at(at, &mut buffer).unwrap();
        }
        let image = meter.image().unwrap();
        let pieces: Vec<_> = image.pieces().map(|(at, piece)| (at / 512, piece.len())).collect();
        // Sectors 0 and 1 were read; 4 to 9 were, of which 5 and 9 hold something.
        assert_eq!(pieces, [(0, 1024), (4, 1536), (8, 1024)]);
        assert_eq!((image.len(), meter.calls(), meter.bytes()), (20 * 512, 6, 3072));
    }

    #[test]
    fn a_spent_budget_ends_reading() {
        let meter = Meter::new(Arc::new(MemoryStorage::new(4096)), 1000);
        assert_eq!(meter.read_at(0, &mut [0; 1000]).unwrap(), 1000);
        assert!(!meter.is_exhausted());
        assert!(meter.read_at(0, &mut [0; 1]).is_err());
        assert!(meter.is_exhausted());
    }
}
