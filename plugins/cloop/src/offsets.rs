//! The table of offsets: where in the file each compressed block starts, and the last one ends.

use std::sync::Arc;

use instar_core::{Image, Result, TableReader};

use crate::disk::{ENTRY, Header, TABLE};
use crate::error::Error;

/// Bytes of the table in memory at a time (instar's own limit).
const WINDOW: u64 = 1 << 20;

/// The largest compressed block that qemu reads, in bytes: twice its largest block.
const MAX_COMPRESSED: u64 = 128 << 20;

/// Reads the table once, as qemu does, and warns if the last block ends behind the file.
///
/// # Errors
/// If the table is not wholly in the file, if offsets go down, or if a block is too large.
pub(crate) fn check(header: Header, image: &Image<'_>) -> Result<()> {
    let file = image.storage.len();
    let entries = header.entries();
    if TABLE + entries * ENTRY > file {
        return Err(Error::TableOutside { entries, file }.into());
    }
    let limits = &image.context.limits;
    let mut reader = TableReader::new("table of offsets", Arc::clone(&image.storage), limits);
    let window = (WINDOW.min(limits.table_window) / ENTRY).max(1);
    let mut first = 0;
    let mut order = Order { previous: None };
    while first < entries {
        let (at, count) = (TABLE + first * ENTRY, window.min(entries - first));
        // Half a GiB of hole is no time to read.
        let unstored = reader.unstored(at, (entries - first) * ENTRY)? / ENTRY;
        if unstored > 0 {
            order.check(first, 0)?;
            first += unstored;
            continue;
        }
        // No more than a window.
        let length = usize::try_from(count * ENTRY).unwrap_or(0);
        for (index, entry) in (first..).zip(reader.bytes(at, length)?.chunks_exact(8)) {
            order
                .check(index, entry.first_chunk().map_or(0, |entry| u64::from_be_bytes(*entry)))?;
        }
        first += count;
    }
    match order.previous {
        Some(end) if end > file => image.context.notices.warn(format!(
            "the last compressed block ends at {end:#x}, behind the end of the file of {file} bytes"
        )),
        _ => Ok(()),
    }
}

/// Checks that offsets go up, and not too far.
struct Order {
    previous: Option<u64>,
}

impl Order {
    /// Checks entry number `index` against the one before it.
    #[inline]
    fn check(&mut self, index: u64, offset: u64) -> Result<()> {
        let previous = self.previous.replace(offset).unwrap_or(offset);
        let at = TABLE + index * ENTRY;
        match offset.checked_sub(previous) {
            None => Err(Error::Order { index, offset, previous, at }.into()),
            Some(length) if length > MAX_COMPRESSED => {
                let (block, allowed) = (index - 1, MAX_COMPRESSED);
                Err(Error::BlockTooLarge { block, length, allowed, at }.into())
            }
            Some(_) => Ok(()),
        }
    }
}
