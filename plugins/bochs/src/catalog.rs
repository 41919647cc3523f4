//! The catalog: for every extent of the disk, which one of the stored extents it is.

use instar_core::{Image, Result, TableReader};

use crate::disk::{Header, UNALLOCATED};
use crate::error::Error;

/// Bytes of one entry: a little-endian number.
const ENTRY: usize = 4;

/// Bytes of the catalog in memory at a time (instar's own limit).
const WINDOW: u64 = 256 << 10;

/// Reads the catalog as far as the disk needs it, and warns of the first extent that is not
/// wholly in the file.
///
/// # Errors
/// If the catalog is not wholly in the file.
pub(crate) fn check(header: &Header, image: &Image<'_>) -> Result<()> {
    let file = image.storage.len();
    let start = u64::from(header.catalog_offset);
    let end = start.saturating_add(u64::from(header.catalog).saturating_mul(ENTRY as u64));
    if end > file {
        let entries = header.catalog;
        return Err(Error::CatalogOutside { entries, offset: start, file }.into());
    }
    let limits = &image.context.limits;
    let storage = std::sync::Arc::clone(&image.storage);
    let mut reader = TableReader::new("catalog", storage, limits);
    let window = (WINDOW.min(limits.table_window) / ENTRY as u64).max(1);
    let mut extent = 0;
    while extent < header.extents() {
        let count = window.min(header.extents() - extent);
        // No more than a window.
        let length = usize::try_from(count).unwrap_or(0).saturating_mul(ENTRY);
        let at = start.saturating_add(extent.saturating_mul(ENTRY as u64));
        let entries = reader.bytes(at, length)?.chunks_exact(ENTRY);
        let entries = entries.filter_map(|entry| Some(u32::from_le_bytes(*entry.first_chunk()?)));
        let outside = |entry: u32| entry != UNALLOCATED && header.end_of(entry) > file;
        if let Some((extent, entry)) = (extent..).zip(entries).find(|(_, entry)| outside(*entry)) {
            let end = header.end_of(entry);
            return image.context.notices.warn(format!(
                "extent {extent} (catalog entry {entry:#x}) ends at {end:#x}, behind the end of \
                 the file of {file} bytes"
            ));
        }
        extent = extent.saturating_add(count);
    }
    Ok(())
}
