//! The block allocation table: for every block, the sector at which it is stored.

use std::sync::Arc;

use instar_core::{Limits, Notices, Result, SECTOR, Storage, TableReader};

use crate::disk::{Blocks, DynamicHeader, UNUSED};
use crate::error::Error;

/// Bytes of one entry: a big-endian sector number.
pub(crate) const ENTRY: usize = 4;

/// Bytes of the table in memory at a time (instar's own limit).
const WINDOW: u64 = 1 << 20;

/// The largest table that qemu reads, in entries: 2^31 − 512 bytes.
const MAX_ENTRIES: u32 = 0x1fff_ff80;

/// The table of one image, read in windows.
#[derive(Debug)]
pub(crate) struct Bat {
    reader: TableReader,
    offset: u64,
    entries: u64,
    /// Entries of the disk's blocks: the first so many. The others are spare.
    needed: u64,
    /// Entries of one window.
    window: u64,
}

impl Bat {
    /// The table that `header`, at file offset `at`, describes: large enough for a disk of
    /// `size` bytes, and inside the file.
    pub(crate) fn new(
        header: &DynamicHeader,
        at: u64,
        size: u64,
        storage: Arc<dyn Storage>,
        limits: &Limits,
    ) -> Result<Self> {
        let DynamicHeader { table_offset: offset, entries, block_size, .. } = *header;
        let needed = size.div_ceil(block_size);
        if u64::from(entries) < needed {
            let at = at.saturating_add(28);
            return Err(Error::TableTooSmall { entries, needed, at }.into());
        }
        if entries > MAX_ENTRIES {
            let (allowed, at) = (MAX_ENTRIES, at.saturating_add(28));
            return Err(Error::TableTooLarge { entries, allowed, at }.into());
        }
        let file = storage.len();
        let end = offset
            .checked_add(u64::from(entries).saturating_mul(ENTRY as u64))
            .and_then(|end| end.checked_next_multiple_of(SECTOR));
        if end.is_none_or(|end| end > file.next_multiple_of(SECTOR)) {
            let at = at.saturating_add(16);
            return Err(Error::TableOutside { entries, offset, file, at }.into());
        }
        Ok(Self {
            reader: TableReader::new("block allocation table", storage, limits),
            offset,
            entries: entries.into(),
            needed,
            window: (WINDOW.min(limits.table_window) / ENTRY as u64).max(1),
        })
    }

    /// As [`TableReader::buffered`].
    pub(crate) fn buffered(&self) -> u64 {
        self.reader.buffered()
    }

    /// As [`TableReader::release`].
    pub(crate) fn release(&mut self) {
        self.reader.release();
    }

    /// Where the table ends in the file, in bytes.
    pub(crate) fn end(&self) -> u64 {
        self.offset_of(self.entries)
    }

    /// File offset of the table, in bytes.
    pub(crate) fn start(&self) -> u64 {
        self.offset
    }

    /// File offset of the entry of block `block`.
    fn offset_of(&self, block: u64) -> u64 {
        self.offset.saturating_add(block.saturating_mul(ENTRY as u64))
    }

    /// The entries, undecoded, from that of `block` to the end of its window. Empty behind the
    /// end of the table.
    pub(crate) fn entries_from(&mut self, block: u64) -> Result<&[u8]> {
        let first = block - block % self.window;
        let count = self.entries.saturating_sub(first).min(self.window);
        // Neither is more than a window.
        let bytes = |entries: u64| usize::try_from(entries).unwrap_or(0).saturating_mul(ENTRY);
        let window = self.reader.bytes(self.offset_of(first), bytes(count))?;
        Ok(window.get(bytes(block - first)..).unwrap_or_default())
    }

    /// Checks that every stored block of the disk is inside the file: else the image has been
    /// truncated, which must show before a map is begun. Warns if one lies over what is at the
    /// start of the file: the bytes up to `metadata_end`.
    ///
    /// Spare entries are not examined: no byte of the disk is in their blocks, and writers fill
    /// them with anything.
    pub(crate) fn check(
        &mut self,
        blocks: Blocks,
        metadata_end: u64,
        notices: &Notices,
    ) -> Result<()> {
        let file = self.reader.storage().len();
        // Every entry below this one is fine.
        let bound = file
            .next_multiple_of(SECTOR)
            .checked_sub(blocks.end_of(0))
            .map_or(0, |room| room / SECTOR + 1);
        // And every entry from this one on.
        let free = metadata_end.div_ceil(SECTOR);
        let mut is_warned = false;
        let mut block = 0;
        while block < self.needed {
            let (at, left) = (self.offset_of(block), self.needed - block);
            // The zeros of a hole all say the same: one of them is looked at.
            let hole = self.reader.unstored(at, left.saturating_mul(ENTRY as u64))? / ENTRY as u64;
            let window = match hole {
                0 => {
                    let window = self.entries_from(block)?;
                    let length = usize::try_from(left).ok().and_then(|n| n.checked_mul(ENTRY));
                    length.and_then(|length| window.get(..length)).unwrap_or(window)
                }
                _ => &[0; ENTRY],
            };
            let count = hole.max((window.len() / ENTRY) as u64).max(1);
            // Without a branch, so that the compiler takes several entries at a time. An unused
            // entry wraps to 0.
            let highest = decode(window).map(|entry| entry.wrapping_add(1)).max().unwrap_or(0);
            let outside = |entry: u32| entry != UNUSED && u64::from(entry) >= bound;
            if u64::from(highest) > bound {
                let found = (block..).zip(decode(window)).find(|(_, entry)| outside(*entry));
                if let Some((index, entry)) = found {
                    let (end, at) = (blocks.end_of(entry), self.offset_of(index));
                    return Err(Error::BlockOutside { block: index, entry, end, file, at }.into());
                }
            }
            let lowest = decode(window).min().unwrap_or(UNUSED);
            if !is_warned && u64::from(lowest) < free {
                let found = (block..).zip(decode(window)).find(|(_, entry)| *entry == lowest);
                let index = found.map_or(block, |(index, _)| index);
                notices.warn(format!(
                    "block {index} lies at sector {lowest}, over the headers and tables at the \
                     start of the file"
                ))?;
                is_warned = true;
            }
            block = block.saturating_add(count);
        }
        Ok(())
    }
}

/// The entries in `bytes`.
fn decode(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(ENTRY).map(|entry| entry.first_chunk().map_or(UNUSED, decode_one))
}

/// One entry.
#[inline]
pub(crate) fn decode_one(bytes: &[u8; ENTRY]) -> u32 {
    u32::from_be_bytes(*bytes)
}

/// How many entries from the start of `bytes` on are unused.
#[inline]
pub(crate) fn unused(bytes: &[u8]) -> usize {
    // Empty stretches are long: many entries are compared at once.
    const MANY: [u8; 256] = [0xff; 256];
    let whole = bytes.chunks_exact(MANY.len()).take_while(|chunk| *chunk == MANY).count();
    let skipped = whole.saturating_mul(MANY.len());
    let rest = bytes.get(skipped..).unwrap_or_default();
    let single = decode(rest).take_while(|entry| *entry == UNUSED).count();
    (skipped / ENTRY).saturating_add(single)
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn unused_entries_are_counted_across_chunks() {
        for count in [0, 1, 63, 64, 65, 127, 128, 200] {
            let mut bytes = vec![0xff; count * ENTRY];
            assert_eq!(unused(&bytes), count);
            bytes.extend([0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff, 0xff]);
            assert_eq!(unused(&bytes), count);
        }
    }
}
