//! Geometry of the disk: where in the BAT the entry of a block is, and where a block may be.

use instar_core::{Result, SECTOR};

use crate::disk::{
    BAT_OFFSET_MASK, BAT_STATE_MASK, MIB, Region, SB_BLOCK_PRESENT, SB_BLOCK_SECTORS_LOG2,
    SB_BLOCK_SIZE,
};
use crate::error::{Checked, Error};
use crate::metadata::Metadata;
use crate::regions::{Occupied, Regions};

/// The largest virtual disk, in bytes (§2.6.2.2).
pub(crate) const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// Bytes of a BAT entry (§2.5.1).
pub(crate) const BAT_ENTRY_SIZE: u64 = 8;

/// What is needed to walk the BAT. All sizes have been checked, so that no sum or product of
/// them overflows: the disk has at most 2^46 bytes, the BAT fewer than 2^27 entries.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Bytes of the disk.
    pub(crate) virtual_size: u64,
    /// Bytes of a payload block, as a power of two: 20 to 28.
    pub(crate) block_bits: u32,
    /// Bytes of a logical sector, as a power of two: 9 or 12.
    pub(crate) sector_bits: u32,
    /// Payload blocks of a chunk (the chunk ratio), as a power of two: 4 to 15.
    pub(crate) chunk_bits: u32,
    /// Whether there is a parent.
    pub(crate) differencing: bool,
    /// File offset of the BAT.
    bat_offset: u64,
    /// Length of the file, rounded up to a sector.
    file_end: u64,
    occupied: Occupied,
}

impl Layout {
    /// Checks that the BAT is long enough for the disk and inside the file.
    pub(crate) fn new(metadata: &Metadata, regions: Regions, file_length: u64) -> Result<Self> {
        let block_bits = metadata.block_size.ilog2();
        let sector_bits = metadata.logical_sector_size.ilog2();
        let Region { offset, length, entry_at, .. } = regions.bat;
        let layout = Self {
            virtual_size: metadata.virtual_size,
            block_bits,
            sector_bits,
            // 23 + 9 - 28 is not negative.
            chunk_bits: SB_BLOCK_SECTORS_LOG2 + sector_bits - block_bits,
            differencing: metadata.parent.is_some(),
            bat_offset: offset,
            file_end: file_length.next_multiple_of(SECTOR),
            occupied: regions.occupied,
        };
        let needed = layout.entries(layout.virtual_size) * BAT_ENTRY_SIZE;
        if needed > u64::from(length) {
            return Err(Error::BatTooShort { at: entry_at + 24, length, needed }.into());
        }
        if offset.checked_add(needed).is_none_or(|end| end > layout.file_end) {
            let file = layout.file_end;
            return Err(Error::BatOutsideFile { offset, needed, file }.into());
        }
        Ok(layout)
    }

    /// Bytes of a payload block.
    #[inline]
    pub(crate) fn block_size(&self) -> u64 {
        1 << self.block_bits
    }

    /// Payload blocks of a chunk: the chunk ratio of §2.4.
    #[inline]
    pub(crate) fn chunk_ratio(&self) -> u64 {
        1 << self.chunk_bits
    }

    /// How many BAT entries describe the first `bytes` of the disk (§2.5).
    ///
    /// The entry of a chunk's sector bitmap follows those of its payload blocks. Without a
    /// parent, the table ends with the last payload block.
    pub(crate) fn entries(&self, bytes: u64) -> u64 {
        let blocks = bytes.div_ceil(self.block_size());
        if self.differencing {
            blocks.div_ceil(self.chunk_ratio()) * (self.chunk_ratio() + 1)
        } else {
            blocks + (blocks.saturating_sub(1) >> self.chunk_bits)
        }
    }

    /// File offset of the BAT entry with this index.
    #[inline]
    pub(crate) fn entry_at(&self, index: u64) -> u64 {
        self.bat_offset.saturating_add(index.saturating_mul(BAT_ENTRY_SIZE))
    }

    /// Whether all of `count` payload blocks, which lie one after the other from `offset` on in
    /// the file, are where blocks may be. Of a block that is cut by the end of the file, only
    /// [`Layout::blocks_fit`] knows.
    #[inline]
    pub(crate) fn run_fits(&self, offset: u64, count: u64) -> bool {
        match offset.checked_add(count << self.block_bits) {
            Some(end) => {
                offset >= MIB && end <= self.file_end && self.occupied.hit(offset, end).is_none()
            }
            None => false,
        }
    }

    /// How many of the blocks of a run are where blocks may be, one by one. BAT entry `index`
    /// points to the first of them, which starts at guest offset `start`.
    ///
    /// # Errors
    /// What is wrong with the first, if it is not one of them.
    #[cold]
    pub(crate) fn blocks_fit(
        &self,
        index: u64,
        start: u64,
        offset: u64,
        count: u64,
    ) -> Checked<u64> {
        self.block_fits(index, start, offset)?;
        let fits = |ahead: &u64| {
            let skip = ahead << self.block_bits;
            let offset = offset.checked_add(skip);
            offset.is_some_and(|at| self.block_fits(index + ahead, start + skip, at).is_ok())
        };
        Ok((0..count).take_while(fits).count() as u64)
    }

    /// Whether one payload block is where blocks may be. Of the disk's last block, only the part
    /// that is used must be inside the file.
    fn block_fits(&self, index: u64, start: u64, offset: u64) -> Checked<()> {
        let used = self.virtual_size.saturating_sub(start).min(self.block_size());
        self.fits(index, offset, self.block_size(), used)
    }

    /// The file offset of the sector bitmap block that BAT entry `index` points to, which the
    /// partially present block of BAT entry `block` needs.
    pub(crate) fn bitmap_at(&self, index: u64, entry: u64, block: u64) -> Checked<u64> {
        let state = entry & BAT_STATE_MASK;
        if state != SB_BLOCK_PRESENT {
            return Err(Error::BitmapState { at: self.entry_at(index), index, block, state });
        }
        let offset = entry & BAT_OFFSET_MASK;
        self.fits(index, offset, SB_BLOCK_SIZE, SB_BLOCK_SIZE)?;
        Ok(offset)
    }

    /// Checks that `length` bytes at `offset` are clear of everything else, and the first `used`
    /// of them inside the file.
    fn fits(&self, index: u64, offset: u64, length: u64, used: u64) -> Checked<()> {
        let at = self.entry_at(index);
        if offset < MIB {
            return Err(Error::EntryInHeader { at, index, offset });
        }
        if offset.checked_add(used).is_none_or(|end| end > self.file_end) {
            let file = self.file_end;
            return Err(Error::EntryOutsideFile { at, index, offset, length: used, file });
        }
        match self.occupied.hit(offset, offset.saturating_add(length)) {
            None => Ok(()),
            Some(part) => Err(Error::EntryOverlaps { at, index, offset, length, name: part.name }),
        }
    }
}
