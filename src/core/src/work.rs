//! A bound on the table entries that are walked for what a map comes to.

use crate::{Error, Limits, Result, RunKind, Storage, run_from};

/// Entries that any map may walk (instar's own limit).
const WALKED_FREE: u64 = 16 << 20;

/// Bytes of tables that may be walked for each byte that the host stores of the file, and entries
/// for each extent that they come to (instar's own limits). A sound image names each table once, and
/// needs one byte for each.
const WALKED_PER_BYTE: u64 = 256;
const WALKED_PER_EXTENT: u64 = 1024;

/// What the walk of one source has cost since it was last started from further back.
#[derive(Debug)]
pub(crate) struct Work {
    /// Bytes of an entry, and guest bytes that it describes.
    width: u64,
    unit: u64,
    /// Bytes of the file that are thought to be stored, and the guest bytes that as many bytes of
    /// entries describe.
    stored: u64,
    stored_unit: u64,
    /// Whether `stored` was found out by looking for holes.
    is_exact: bool,
    /// Guest bytes that walked entries describe.
    walked: u64,
    extents: u64,
    /// Guest offset of the last question.
    asked: u64,
}

impl Work {
    pub(crate) fn new(storage: &dyn Storage, width: u64, unit: u64) -> Self {
        // A host may not know; one that compresses says less.
        let stored = match storage.allocated() {
            0 => storage.len(),
            allocated => allocated.min(storage.len()),
        };
        let stored_unit = (stored / width).saturating_mul(unit);
        let (is_exact, walked, extents, asked) = (false, 0, 0, 0);
        Self { width, unit, stored, stored_unit, is_exact, walked, extents, asked }
    }

    /// Starts again if guest offset `at` is before the last one.
    pub(crate) fn ask(&mut self, at: u64) {
        if at < self.asked {
            (self.walked, self.extents) = (0, 0);
        }
        self.asked = at;
    }

    /// Counts the entries that describe so many guest bytes, and the extents that they came to.
    pub(crate) fn add(&mut self, walked: u64, extents: usize) {
        self.walked = self.walked.saturating_add(walked);
        self.extents = self.extents.saturating_add(extents as u64);
    }

    /// Whether more entries were walked than are thought to be stored: some of them twice.
    pub(crate) fn repeats(&self) -> bool {
        self.walked > self.stored_unit
    }

    /// Refuses to walk more entries than the limits allow.
    pub(crate) fn check(&mut self, storage: &dyn Storage) -> Result<()> {
        let walked = self.walked / self.unit;
        if walked <= self.allowed() {
            return Ok(());
        }
        if !self.is_exact {
            // Costs far less than what has been walked since: each run takes a block of the host.
            self.stored = self.stored.max(stored(storage)?);
            self.is_exact = true;
        }
        Limits::check(
            "the number of table entries walked, many of them more than once,",
            walked,
            self.allowed(),
        )
    }

    #[cfg(test)]
    pub(crate) fn walked(&self) -> u64 {
        self.walked
    }

    fn allowed(&self) -> u64 {
        let for_bytes = self.stored.saturating_mul(WALKED_PER_BYTE) / self.width;
        let for_extents = self.extents.saturating_mul(WALKED_PER_EXTENT);
        WALKED_FREE.saturating_add(for_bytes).saturating_add(for_extents)
    }
}

/// Bytes of the file that are not holes.
fn stored(storage: &dyn Storage) -> Result<u64> {
    let (mut at, mut stored) = (0, 0_u64);
    while at < storage.len() {
        let run = run_from(storage, at)
            .map_err(|error| Error::io("cannot look for holes in the file", error).at(at))?;
        let end = run.end.min(storage.len());
        if run.kind == RunKind::Data {
            stored = stored.saturating_add(end.saturating_sub(at));
        }
        at = run.end;
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, MemoryStorage};
    use pretty_assertions::assert_eq;

    #[test]
    fn what_may_be_walked_goes_with_bytes_and_extents() {
        let storage = MemoryStorage::new(1 << 60).with_data(1 << 50, vec![1; 8000]);
        let mut work = Work::new(&storage, 8, 512);
        let walked = |work: &Work| work.walked / 512;
        work.add(1000 * 512, 1);
        assert!(!work.repeats());
        work.add(512, 0);
        assert!(work.repeats());
        let most = WALKED_FREE + 8000 / 8 * WALKED_PER_BYTE + WALKED_PER_EXTENT;
        work.add((most - walked(&work)) * 512, 0);
        work.check(&storage).unwrap();
        work.add(512, 0);
        let error = work.check(&storage).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert_eq!(
            error.to_string(),
            format!(
                "the number of table entries walked, many of them more than once, is {}, at most \
                 {most} is allowed",
                most + 1
            )
        );
        work.add(0, 1);
        work.check(&storage).unwrap();
        // From the same place on, and from further back.
        work.ask(5000);
        work.ask(5000);
        assert_eq!(walked(&work), most + 1);
        work.ask(4999);
        assert_eq!((work.walked, work.extents), (0, 0));
    }

    #[test]
    fn what_the_host_says_of_a_compressed_file_is_not_held_against_it() {
        let storage = MemoryStorage::new(0).with_data(0, vec![1; 1 << 20]).with_allocated(512);
        let mut work = Work::new(&storage, 8, 1);
        let most = WALKED_FREE + (1 << 20) / 8 * WALKED_PER_BYTE;
        work.add(most, 0);
        assert!(work.repeats());
        work.check(&storage).unwrap();
        work.add(1, 0);
        assert_eq!(work.check(&storage).unwrap_err().kind(), ErrorKind::Limit);
        // Some hosts do not know at all.
        let unknown = Work::new(&storage.with_allocated(0), 8, 1);
        assert_eq!(unknown.stored, 1 << 20);
    }
}
