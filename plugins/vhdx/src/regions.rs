//! Where the parts of the file are: the region table, and what payload must not overlap.

use std::sync::Arc;

use instar_core::{Context, Limits, Result, Storage, TableReader};

use crate::disk::{
    BAT_REGION, Header, METADATA_REGION, MIB, REGION_TABLE_OFFSETS, REGION_TABLE_SIZE, Region,
    region_table,
};
use crate::error::{Checked, Error};

/// The regions of a file.
#[derive(Debug)]
pub(crate) struct Regions {
    pub(crate) bat: Region,
    pub(crate) metadata: Region,
    pub(crate) occupied: Occupied,
}

impl Regions {
    /// Reads the region table and checks it.
    pub(crate) fn read(
        storage: &Arc<dyn Storage>,
        header: &Header,
        context: &Context,
    ) -> Result<Self> {
        let table = read_table(storage, context)?;
        let mut guids: Vec<_> = table.iter().map(|region| (region.guid, region.entry_at)).collect();
        guids.sort_unstable();
        for (one, next) in guids.iter().zip(guids.iter().skip(1)) {
            if one.0 == next.0 {
                return Err(Error::RegionTwice { at: next.1, guid: next.0 }.into());
            }
        }
        for region in &table {
            let Region { guid, offset, length, entry_at: at, .. } = *region;
            if offset < MIB || offset % MIB != 0 || u64::from(length) % MIB != 0 {
                return Err(Error::RegionPlacement { at, guid, offset, length }.into());
            }
            if region.required && guid != BAT_REGION && guid != METADATA_REGION {
                return Err(Error::RegionUnknown { at, guid }.into());
            }
        }
        let find = |guid, name| {
            let found = table.iter().find(|region| region.guid == guid).copied();
            found.ok_or(Error::RegionMissing { name })
        };
        let bat = find(BAT_REGION, "the BAT")?;
        let metadata = find(METADATA_REGION, "the metadata region")?;

        let log = Part::new("the log", header.log_offset, header.log_length.into());
        let parts = table.iter().map(|r| Part::new(r.name(), r.offset, r.length.into()));
        let occupied = Occupied::new([log].into_iter().chain(parts).collect())?;
        Ok(Self { bat, metadata, occupied })
    }
}

/// Reads copy 1 of the region table, or copy 2 if copy 1 is broken.
///
/// The specification has two equal copies and does not say what the second is for, but nothing
/// else would be. qemu never looks at it.
fn read_table(storage: &Arc<dyn Storage>, context: &Context) -> Result<Vec<Region>> {
    let [first, second] = REGION_TABLE_OFFSETS;
    let mut reader = TableReader::new("region table", Arc::clone(storage), &context.limits);
    let mut read = |at| reader.decode(at, REGION_TABLE_SIZE, region_table);
    let error = match read(first) {
        Ok(table) => return Ok(table),
        Err(error) => error,
    };
    let Ok(table) = read(second) else { return Err(error) };
    context.notices.warn(format!("{error}; the second copy is used"))?;
    Ok(table)
}

/// A part of the file that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    start: u64,
    /// Exclusive.
    end: u64,
}

impl Part {
    pub(crate) fn new(name: &'static str, start: u64, length: u64) -> Self {
        Self { name, start, end: start.saturating_add(length) }
    }
}

/// The log and the regions: what payload and sector bitmap blocks must not overlap (§2.5.1).
#[derive(Debug)]
pub(crate) struct Occupied {
    /// Sorted, disjoint, none of them empty.
    parts: Vec<Part>,
    /// Where the last one ends. In most files, all blocks are behind it.
    end: u64,
}

impl Occupied {
    /// The parts, which must not overlap each other (§2.2.3.2). Empty ones are left out.
    pub(crate) fn new(mut parts: Vec<Part>) -> Checked<Self> {
        parts.retain(|part| part.start < part.end);
        parts.sort_by_key(|part| part.start);
        for (one, next) in parts.iter().zip(parts.iter().skip(1)) {
            if next.start < one.end {
                return Err(Error::RegionsOverlap {
                    first: one.name,
                    end: one.end,
                    second: next.name,
                    start: next.start,
                });
            }
        }
        let end = parts.last().map_or(0, |part| part.end);
        Ok(Self { parts, end })
    }

    /// The first part, if any, that overlaps the bytes from `start` up to `end`.
    #[inline]
    pub(crate) fn hit(&self, start: u64, end: u64) -> Option<&Part> {
        if start >= self.end {
            return None;
        }
        let index = self.parts.partition_point(|part| part.end <= start);
        self.parts.get(index).filter(|part| part.start < end)
    }
}

/// Checks where the header says the log is (§2.2.2), if there is one.
pub(crate) fn check_log(header: &Header, header_at: u64, limits: &Limits) -> Checked<()> {
    let Header { log_offset: offset, log_length: length, .. } = *header;
    let at = header_at.saturating_add(68);
    if length != 0 && (offset < MIB || offset % MIB != 0 || u64::from(length) % MIB != 0) {
        return Err(Error::LogPlacement { at, offset, length });
    }
    if header.has_log() && u64::from(length) > limits.log {
        return Err(Error::LogTooLong { at, length, allowed: limits.log });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn only_what_overlaps_is_hit() {
        let parts = vec![Part::new("b", 40, 10), Part::new("none", 45, 0), Part::new("a", 10, 10)];
        let occupied = Occupied::new(parts).unwrap();
        let hit = |start, end| occupied.hit(start, end).map(|part| part.name);
        for (start, end, expected) in [
            (0, 10, None),
            (0, 11, Some("a")),
            (19, 20, Some("a")),
            (20, 40, None),
            (20, 41, Some("b")),
            (0, 100, Some("a")),
            (49, 50, Some("b")),
            (50, 60, None),
            (u64::MAX, u64::MAX, None),
        ] {
            assert_eq!(hit(start, end), expected, "{start}..{end}");
        }
        assert!(Occupied::new(vec![Part::new("a", 10, 10), Part::new("b", 19, 10)]).is_err());
    }
}
