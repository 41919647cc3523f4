//! L2 tables that say the same about all of their clusters.
//!
//! An L1 table may name one L2 table four million times, or four million tables in a hole of the
//! file. If nothing is in such a table, what is in it is not looked at again.

use std::collections::HashMap;

use instar_core::{Result, Status, TableReader};

use crate::entry::Rules;

/// Bytes of a standard and of an extended L2 entry.
pub(crate) const STANDARD: u64 = 8;
pub(crate) const EXTENDED: u64 = 16;

/// How many tables are remembered (instar's own limit).
const MOST: usize = 4096;

/// The tables that were seen to be uniform.
#[derive(Debug, Default)]
pub(crate) struct Uniform {
    /// By their file offset.
    known: HashMap<u64, Status>,
}

impl Uniform {
    /// What the whole table of `length` bytes at file offset `at` says, if that is known without
    /// reading it.
    #[inline]
    pub(crate) fn status(
        &self,
        at: u64,
        length: u64,
        reader: &mut TableReader,
    ) -> Result<Option<Status>> {
        // Most images have no such table: not a seek for them.
        if self.known.is_empty() {
            return Ok(None);
        }
        if let Some(status) = self.known.get(&at) {
            return Ok(Some(*status));
        }
        Ok((reader.unstored(at, length)? == length).then_some(Status::Absent))
    }

    /// Bytes of memory that are taken by what is remembered.
    pub(crate) fn buffered(&self) -> u64 {
        self.known.capacity().saturating_mul(size_of::<(u64, Status)>()) as u64
    }

    /// Forgets everything.
    pub(crate) fn release(&mut self) {
        self.known = HashMap::new();
    }

    /// Remembers a whole table, if its `entries` are all alike and have no place.
    #[inline]
    pub(crate) fn learn(&mut self, at: u64, entries: &[u8], rules: &Rules, extended: bool) {
        let size = if extended { EXTENDED } else { STANDARD };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let (first, last) = (entries.get(..size), entries.rchunks(size).next());
        // The last entry differs in nearly every table that is in use.
        if first == last && self.known.len() < MOST {
            if let Some(status) = uniform(entries, rules, size) {
                self.known.insert(at, status);
            }
        }
    }
}

/// What entries of `size` bytes say if they are all alike and have no place.
fn uniform(entries: &[u8], rules: &Rules, size: usize) -> Option<Status> {
    let (first, others) = entries.split_at_checked(size)?;
    if entries.get(..others.len()) != Some(others) {
        return None;
    }
    if first.iter().all(|byte| *byte == 0) {
        return Some(Status::Absent);
    }
    // Of subclusters, some may be absent and others zero.
    let entry = u64::from_be_bytes(first.try_into().ok()?);
    let status = rules.standard(entry, 0).ok()?;
    matches!(status, Status::Absent | Status::Zero | Status::Compressed).then_some(status)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use instar_core::{Limits, MemoryStorage};
    use pretty_assertions::assert_eq;

    use super::*;

    const RULES: Rules = Rules {
        cluster: 4096,
        version: 3,
        has_data_file: false,
        encrypted: false,
        over_holes: false,
    };

    #[test]
    fn only_tables_without_places_are_remembered() {
        let table = |entries: [u64; 4]| entries.map(u64::to_be_bytes).concat();
        for (entries, extended, status) in [
            ([0, 0, 0, 0], false, Some(Status::Absent)),
            ([0, 0, 0, 0], true, Some(Status::Absent)),
            ([1, 1, 1, 1], false, Some(Status::Zero)),
            ([1 << 62 | 5; 4], false, Some(Status::Compressed)),
            ([0, 1, 0, 0], false, None),
            ([0, 0, 0, 1], false, None),
            ([1, 0, 0, 0], false, None),
            ([1 << 63 | 4096; 4], false, None),
            ([1 << 63 | 4097; 4], false, None),
            // Invalid: the walk says so.
            ([512; 4], false, None),
            ([0, 3 << 32, 0, 3 << 32], true, None),
        ] {
            let mut uniform = Uniform::default();
            uniform.learn(8192, &table(entries), &RULES, extended);
            let storage = MemoryStorage::new(1 << 20).with_data(4096, [1; 65536]);
            let mut reader = TableReader::new("L2 table", Arc::new(storage), &Limits::default());
            let mut known = |at| uniform.status(at, 32, &mut reader).unwrap();
            assert_eq!(known(8192), status, "{entries:?}");
            assert_eq!(known(12_288), None);
            // Holes are only looked for where there were such tables.
            assert_eq!(known(1 << 19), status.map(|_| Status::Absent));
        }
    }
}
