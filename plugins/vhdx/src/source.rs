//! The BAT and the sector bitmaps as extents.

use std::sync::Arc;

use instar_core::{
    Backing, Batch, Context, ExtentSource, Flow, Held, ImageFile, Place, Result, Role, Status,
    Storage, TableReader, zero_entries,
};

use crate::bitmap::{self, Bitmaps};
use crate::disk::{
    BAT_OFFSET_MASK, BAT_STATE_MASK, Header, PAYLOAD_BLOCK_FULLY_PRESENT,
    PAYLOAD_BLOCK_NOT_PRESENT, PAYLOAD_BLOCK_PARTIALLY_PRESENT, PAYLOAD_BLOCK_UNDEFINED,
    PAYLOAD_BLOCK_UNMAPPED, PAYLOAD_BLOCK_UNMAPPED_V095, PAYLOAD_BLOCK_ZERO,
};
use crate::error::Error;
use crate::guid::Guid;
use crate::layout::{BAT_ENTRY_SIZE, Layout};
use crate::locator::ParentLocator;
use crate::metadata::Metadata;

/// Bytes of the BAT that are read at a time: as many whole chunks as fit, at least one. The
/// largest chunk has 2^15 payload blocks, so no window is much longer.
const BAT_WINDOW: u64 = 256 << 10;
/// Bytes of a sector bitmap block that are read at a time. The bits of one payload block are at
/// most as many, and always in one window: 256 MiB / 512 / 8.
const BITMAP_WINDOW: usize = 64 << 10;

/// An open VHDX file.
pub struct VhdxSource {
    layout: Layout,
    bat: TableReader,
    bitmaps: Bitmaps,
    files: [ImageFile; 1],
    backing: Option<Backing>,
    parent: Option<ParentLocator>,
    virtual_disk_id: Guid,
    data_write_guid: Guid,
    _held: Held,
}

impl VhdxSource {
    pub(crate) fn new(
        layout: Layout,
        metadata: Metadata,
        header: &Header,
        file: ImageFile,
        storage: &Arc<dyn Storage>,
        context: &Arc<Context>,
    ) -> Result<Self> {
        let bytes = metadata.parent.as_ref().map_or(0, ParentLocator::text_bytes);
        let held = context.hold("the parent locator", bytes)?;
        let backing = metadata.parent.as_ref().map(|parent| Backing {
            role: Role::Parent,
            names: parent.paths(),
            // The type of locator says so.
            format: Some("vhdx".to_owned()),
            identifiers: parent.linkages().map(Guid::to_bytes).collect(),
        });
        Ok(Self {
            layout,
            bat: TableReader::new("BAT", Arc::clone(storage), &context.limits),
            bitmaps: Bitmaps::new(storage, context),
            files: [file],
            backing,
            parent: metadata.parent,
            virtual_disk_id: metadata.virtual_disk_id,
            data_write_guid: header.data_write_guid,
            _held: held,
        })
    }

    /// What a differencing disk stores about its parent.
    pub fn parent_locator(&self) -> Option<&ParentLocator> {
        self.parent.as_ref()
    }

    /// What the guest's data is identified by: changes with the first write after each open. A
    /// child's [`ParentLocator::parent_linkage`] must equal it.
    pub fn data_write_guid(&self) -> Guid {
        self.data_write_guid
    }

    /// What the disk is identified by.
    pub fn virtual_disk_id(&self) -> Guid {
        self.virtual_disk_id
    }
}

impl ExtentSource for VhdxSource {
    fn virtual_size(&self) -> u64 {
        self.layout.virtual_size
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    fn identifier(&self) -> Option<[u8; 16]> {
        Some(self.data_write_guid.to_bytes())
    }

    fn buffered(&self) -> u64 {
        self.bat.buffered() + self.bitmaps.buffered()
    }

    fn release(&mut self) {
        self.bat.release();
        self.bitmaps.release();
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let Self { layout, bat, bitmaps, .. } = self;
        let ratio = layout.chunk_ratio();
        let chunk_entries = ratio + 1;
        let group = (BAT_WINDOW / (chunk_entries * BAT_ENTRY_SIZE)).max(1);
        while out.cursor() < out.end() {
            let before = out.cursor();
            match unstored(layout, bat, out)? {
                Some(Flow::Stop) => return Ok(()),
                Some(Flow::More) => continue,
                None => {}
            }
            // The window starts at a multiple of its own length, so that a batch that goes on
            // where the last one was full finds it in memory.
            let chunk = out.cursor() >> layout.block_bits >> layout.chunk_bits;
            let first_chunk = chunk - chunk % group;
            let first = first_chunk * chunk_entries;
            let end = (first + group * chunk_entries).min(layout.entries(out.end()));
            let length = usize_of((end - first) * BAT_ENTRY_SIZE);
            let window = bat.bytes(layout.entry_at(first), length)?;

            let chunk_bytes = usize_of(chunk_entries * BAT_ENTRY_SIZE);
            let skip = usize_of(chunk - first_chunk);
            for (chunk, bytes) in (chunk..).zip(window.chunks(chunk_bytes).skip(skip)) {
                let walk = Chunk { layout, number: chunk, entries: bytes };
                if walk.push(bitmaps, out)? == Flow::Stop {
                    return Ok(());
                }
            }
            if out.cursor() == before {
                // Not possible; the core says so instead of waiting for ever.
                break;
            }
        }
        Ok(())
    }
}

/// Pushes the chunks from the cursor on whose part of the BAT is a hole of the host: all of their
/// blocks are not present. `None` if there is no whole one.
fn unstored(layout: &Layout, bat: &mut TableReader, out: &mut Batch) -> Result<Option<Flow>> {
    let chunk_entries = layout.chunk_ratio() + 1;
    let block = out.cursor() >> layout.block_bits;
    let first = block + (block >> layout.chunk_bits);
    let end = layout.entries(out.end());
    let length = end.saturating_sub(first) * BAT_ENTRY_SIZE;
    let count = bat.unstored(layout.entry_at(first), length)? / BAT_ENTRY_SIZE;
    let until = if first + count == end {
        out.end()
    } else {
        ((first + count) / chunk_entries) << layout.chunk_bits << layout.block_bits
    };
    let length = until.saturating_sub(out.cursor());
    Ok((count > 0 && length > 0).then(|| out.push(length, Status::Absent)))
}

/// What the BAT entry of a payload block says (§2.5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Not in this file: the parent decides, if there is one.
    Absent,
    /// Reads as zeros.
    Zero,
    /// All of it is at this file offset.
    Full(u64),
    /// Some sectors of it are at this file offset, the parent decides about the others.
    Partial(u64),
}

/// Why the BAT entry of a payload block says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    State(u64),
    WithoutParent,
}

#[inline]
fn classify(entry: u64, differencing: bool) -> std::result::Result<Block, Flaw> {
    let offset = entry & BAT_OFFSET_MASK;
    match entry & BAT_STATE_MASK {
        PAYLOAD_BLOCK_NOT_PRESENT => Ok(Block::Absent),
        // For "undefined" and "unmapped", the file may point to what the block was; zeros are
        // always right as well, and are what qemu reads. A parent does not show through.
        PAYLOAD_BLOCK_UNDEFINED
        | PAYLOAD_BLOCK_ZERO
        | PAYLOAD_BLOCK_UNMAPPED
        | PAYLOAD_BLOCK_UNMAPPED_V095 => Ok(Block::Zero),
        PAYLOAD_BLOCK_FULLY_PRESENT => Ok(Block::Full(offset)),
        PAYLOAD_BLOCK_PARTIALLY_PRESENT if differencing => Ok(Block::Partial(offset)),
        PAYLOAD_BLOCK_PARTIALLY_PRESENT => Err(Flaw::WithoutParent),
        reserved => Err(Flaw::State(reserved)),
    }
}

/// The entries of one chunk: those of its payload blocks, then that of its sector bitmap. Only
/// the disk's last chunk may have fewer.
struct Chunk<'a> {
    layout: &'a Layout,
    number: u64,
    entries: &'a [u8],
}

impl Chunk<'_> {
    /// Pushes the chunk's blocks from the cursor on.
    fn push(&self, bitmaps: &mut Bitmaps, out: &mut Batch) -> Result<Flow> {
        let layout = self.layout;
        let ratio = layout.chunk_ratio();
        let block_size = layout.block_size();
        let payload_bytes = usize_of(ratio * BAT_ENTRY_SIZE);
        let payload = self.entries.get(..payload_bytes).unwrap_or(self.entries);
        // From the cursor's block to the last one that is asked for. Behind the disk's last
        // block, a differencing disk has entries that mean nothing.
        let mut block = (out.cursor() >> layout.block_bits) & (ratio - 1);
        let chunk_start = self.number << layout.chunk_bits;
        let blocks = out.end().div_ceil(block_size).saturating_sub(chunk_start).min(ratio);
        let payload = payload.get(..usize_of(blocks * BAT_ENTRY_SIZE)).unwrap_or(payload);
        let mut rest = payload.get(usize_of(block * BAT_ENTRY_SIZE)..).unwrap_or_default();

        loop {
            let left = rest.len();
            match self.plain(&mut rest, out) {
                Flow::More if !rest.is_empty() => {}
                flow => return Ok(flow),
            }
            block += (left - rest.len()) as u64 / BAT_ENTRY_SIZE;
            let Some((first, next)) = rest.split_first_chunk() else {
                return Ok(Flow::More);
            };
            let entry = u64::from_le_bytes(*first);
            let class = classify(entry, layout.differencing).map_err(|f| self.flawed(block, f))?;
            let (count, flow) = match class {
                Block::Partial(offset) => (1, self.push_sectors(block, offset, bitmaps, out)?),
                Block::Full(offset) => {
                    let inside = out.cursor() & (block_size - 1);
                    let run = 1 + contiguous(entry, next, block_size);
                    let count = self.blocks_fit(block, offset, run)?;
                    let status = Status::Data(Place::at(offset + inside));
                    (count, out.push((count << layout.block_bits) - inside, status))
                }
                // Taken by `plain`.
                Block::Absent | Block::Zero => (0, Flow::More),
            };
            if flow == Flow::Stop {
                return Ok(Flow::Stop);
            }
            block += count;
            rest = rest.get(usize_of(count * BAT_ENTRY_SIZE)..).unwrap_or_default();
        }
    }

    /// Pushes blocks for as long as nothing but their entries need be looked at, and takes the
    /// entries from `rest`.
    // By itself, so that what the loop needs stays in registers.
    #[inline(never)]
    fn plain(&self, rest: &mut &[u8], out: &mut Batch) -> Flow {
        let layout = self.layout;
        let block_size = layout.block_size();
        // Only of the first block a part may be in front of the cursor.
        let mut inside = out.cursor() & (block_size - 1);
        let mut out = out.tail();
        while let Some((first, next)) = rest.split_first_chunk() {
            let entry = u64::from_le_bytes(*first);
            if entry == PAYLOAD_BLOCK_NOT_PRESENT {
                let count = zero_entries::<8>(rest);
                let length = ((count as u64) << layout.block_bits) - inside;
                if out.push(length, Status::Absent) == Flow::Stop {
                    return Flow::Stop;
                }
                inside = 0;
                *rest = rest.get(count * 8..).unwrap_or_default();
                continue;
            }
            let (step, status) = match classify(entry, layout.differencing) {
                Ok(Block::Absent) => (0, Status::Absent),
                Ok(Block::Zero) => (0, Status::Zero),
                Ok(Block::Full(offset)) => (block_size, Status::Data(Place::at(offset + inside))),
                Ok(Block::Partial(_)) | Err(_) => break,
            };
            let mut count = 1;
            let mut expected = entry.wrapping_add(step);
            let mut others = next;
            while let Some((next, after)) = others.split_first_chunk() {
                if u64::from_le_bytes(*next) != expected {
                    break;
                }
                count += 1;
                expected = expected.wrapping_add(step);
                others = after;
            }
            if step != 0 && !layout.run_fits(entry & BAT_OFFSET_MASK, count) {
                break;
            }
            if out.push((count << layout.block_bits) - inside, status) == Flow::Stop {
                return Flow::Stop;
            }
            inside = 0;
            *rest = others;
        }
        Flow::More
    }

    /// Pushes the sectors of a partially present block from the cursor on.
    fn push_sectors(
        &self,
        block: u64,
        offset: u64,
        bitmaps: &mut Bitmaps,
        out: &mut Batch,
    ) -> Result<Flow> {
        let layout = self.layout;
        if !self.layout.run_fits(offset, 1) {
            self.blocks_fit(block, offset, 1)?;
        }
        let bitmap_at = self.bitmap_at(block)?;

        // The bits of a block are a power of two of bytes, from 32 to the window's length.
        let length = usize_of(layout.block_size() >> layout.sector_bits) / 8;
        let skip = usize_of(block) * length;
        let window_skip = skip - skip % BITMAP_WINDOW;
        let window_at = bitmap_at + window_skip as u64;
        let window = bitmaps.bytes(self.number, window_at, BITMAP_WINDOW)?;
        let bits = window.get(skip - window_skip..).and_then(|bits| bits.get(..length));
        let bits = bits.ok_or(Error::BitmapWindow { at: bitmap_at })?;

        let mut inside = out.cursor() & (layout.block_size() - 1);
        let mut sector = usize_of(inside >> layout.sector_bits);
        while sector < length * 8 {
            let (present, count) = bitmap::run(bits, sector);
            sector += count;
            let end = (sector as u64) << layout.sector_bits;
            let status = match present {
                true => Status::Data(Place::at(offset + inside)),
                false => Status::Absent,
            };
            if out.push(end - inside, status) == Flow::Stop {
                return Ok(Flow::Stop);
            }
            inside = end;
        }
        Ok(Flow::More)
    }

    /// How many of `count` blocks that continue each other, from `block` at file offset `offset`
    /// on, are where blocks may be: at least one, or the error of the first.
    fn blocks_fit(&self, block: u64, offset: u64, count: u64) -> Result<u64> {
        let start = ((self.number << self.layout.chunk_bits) + block) << self.layout.block_bits;
        Ok(self.layout.blocks_fit(self.index(block), start, offset, count)?)
    }

    /// File offset of the chunk's sector bitmap block, which the payload block needs.
    fn bitmap_at(&self, block: u64) -> Result<u64> {
        let ratio = self.layout.chunk_ratio();
        let entry = self.entries.get(usize_of(ratio * BAT_ENTRY_SIZE)..);
        // The BAT of a differencing disk ends with a sector bitmap's entry.
        let entry = entry.and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        let (index, block) = (self.index(ratio), self.index(block));
        Ok(self.layout.bitmap_at(index, u64::from_le_bytes(entry), block)?)
    }

    /// BAT index of the chunk's entry number `entry`.
    fn index(&self, entry: u64) -> u64 {
        self.number * (self.layout.chunk_ratio() + 1) + entry
    }

    #[cold]
    fn flawed(&self, block: u64, flaw: Flaw) -> Error {
        let index = self.index(block);
        let at = self.layout.entry_at(index);
        match flaw {
            Flaw::State(state) => Error::EntryState { at, index, state },
            Flaw::WithoutParent => Error::EntryWithoutParent { at, index },
        }
    }
}

/// How many of `entries`, from the first on, continue `entry` in state and place.
#[inline]
fn contiguous(entry: u64, entries: &[u8], block_size: u64) -> u64 {
    let mut expected = entry;
    let continues = |bytes: &&[u8]| {
        expected = expected.wrapping_add(block_size);
        **bytes == expected.to_le_bytes()
    };
    entries.chunks_exact(8).take_while(continues).count() as u64
}

/// Counts of entries and bytes within a chunk or window: far below 2^32.
#[inline]
fn usize_of(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn every_state_is_classified() {
        let offset = 5 << 20;
        let entry = |state| offset | 0xf_ff00 | state;
        for differencing in [false, true] {
            let class = |state| classify(entry(state), differencing);
            assert_eq!(class(0), Ok(Block::Absent));
            assert_eq!(class(1), Ok(Block::Zero));
            assert_eq!(class(2), Ok(Block::Zero));
            assert_eq!(class(3), Ok(Block::Zero));
            assert_eq!(class(4), Err(Flaw::State(4)));
            assert_eq!(class(5), Ok(Block::Zero));
            assert_eq!(class(6), Ok(Block::Full(offset)));
        }
        assert_eq!(classify(entry(7), true), Ok(Block::Partial(offset)));
        assert_eq!(classify(entry(7), false), Err(Flaw::WithoutParent));
    }

    #[test]
    fn blocks_continue_each_other_in_state_and_place() {
        let bytes = |entries: &[u64]| entries.iter().flat_map(|e| e.to_le_bytes()).collect();
        let blocks: Vec<u8> = bytes(&[6 | 2 << 20, 6 | 3 << 20, 6 | 5 << 20]);
        assert_eq!(contiguous(6 | 1 << 20, &blocks, 1 << 20), 2);
        let other_state: Vec<u8> = bytes(&[7 | 2 << 20]);
        assert_eq!(contiguous(6 | 1 << 20, &other_state, 1 << 20), 0);
    }
}
