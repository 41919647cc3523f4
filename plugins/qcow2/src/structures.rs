//! Where the structures are that the header points to, to notice what lies in the same place.
//!
//! Two structures cannot share bytes in a sound image, but each may still be readable, and qemu
//! reads them without a word: a warning, not an error.

use instar_core::{Notices, Result};

use crate::bitmaps::Directory;
use crate::disk::Header;
use crate::snapshots;

/// A part of the file that one structure has for itself.
#[derive(Debug, Clone, Copy)]
struct Part {
    name: &'static str,
    start: u64,
    /// Exclusive.
    end: u64,
}

impl Part {
    fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// The structures that there is one of.
#[derive(Debug)]
pub(crate) struct Structures {
    /// Without those that are empty.
    parts: Vec<Part>,
    cluster: u64,
}

impl Structures {
    pub(crate) fn new(header: &Header, bitmaps: Option<Directory>) -> Self {
        let (refcounts, refcounts_length) = header.refcount_table;
        let (table, count) = header.snapshots;
        let (directory, directory_length) = bitmaps.map_or((0, 0), |bitmaps| bitmaps.place());
        let parts = [
            ("header", 0, header.cluster()),
            ("L1 table", header.l1_offset, header.l1_entries.saturating_mul(8)),
            ("refcount table", refcounts, refcounts_length),
            // The entries are at least as long.
            ("snapshot table", table, u64::from(count).saturating_mul(snapshots::ENTRY as u64)),
            ("bitmap directory", directory, directory_length),
        ];
        let parts = parts.into_iter().map(|(name, start, length)| {
            let end = start.saturating_add(length);
            Part { name, start, end }
        });
        Self { parts: parts.filter(|p| p.start < p.end).collect(), cluster: header.cluster() }
    }

    /// Warns if two of them overlap.
    pub(crate) fn check(&self, notices: &Notices) -> Result<()> {
        for (index, one) in self.parts.iter().enumerate() {
            for other in self.parts.iter().skip(index + 1) {
                if one.overlaps(other) {
                    notices.warn(format!(
                        "the {} at {:#x} and the {} at {:#x} overlap",
                        one.name, one.start, other.name, other.start
                    ))?;
                }
            }
        }
        Ok(())
    }

    /// Warns if the L2 table at `offset`, which L1 entry `index` names, overlaps one of them.
    pub(crate) fn check_table(&self, index: u64, offset: u64, notices: &Notices) -> Result<()> {
        let end = offset.saturating_add(self.cluster);
        let table = Part { name: "L2 table", start: offset, end };
        match self.parts.iter().find(|part| part.overlaps(&table)) {
            None => Ok(()),
            Some(part) => notices.warn(format!(
                "the L2 table at L1 index {index} lies at {offset:#x}, in the {} at {:#x}",
                part.name, part.start
            )),
        }
    }
}
