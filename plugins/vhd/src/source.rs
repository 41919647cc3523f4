//! The walk over a disk's blocks.

use instar_core::{Backing, Batch, ExtentSource, Flow, ImageFile, Place, Result, SECTOR, Status};

use crate::bat::{self, Bat, ENTRY};
use crate::bitmap::{Bitmap, Bitmaps};
use crate::disk::{Blocks, UNUSED};

/// An open VHD as a map of its own layer.
pub(crate) struct VhdSource {
    pub(crate) size: u64,
    pub(crate) files: [ImageFile; 1],
    /// Where the disk's bytes are; none in a fixed disk, where they are at their own offsets.
    pub(crate) map: Option<BlockMap>,
    pub(crate) unique_id: [u8; 16],
    pub(crate) parent: Option<Backing>,
}

/// The blocks of a dynamic or differencing disk.
pub(crate) struct BlockMap {
    pub(crate) bat: Bat,
    pub(crate) blocks: Blocks,
    /// Which sectors of a block count; none if all do, as in a dynamic disk.
    pub(crate) bitmaps: Option<Bitmaps>,
}

impl ExtentSource for VhdSource {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn backing(&self) -> Option<&Backing> {
        self.parent.as_ref()
    }

    fn identifier(&self) -> Option<[u8; 16]> {
        Some(self.unique_id)
    }

    fn buffered(&self) -> u64 {
        self.map
            .as_ref()
            .map_or(0, |map| map.bat.buffered() + map.bitmaps.as_ref().map_or(0, Bitmaps::buffered))
    }

    fn release(&mut self) {
        if let Some(map) = &mut self.map {
            map.bat.release();
            if let Some(bitmaps) = &mut map.bitmaps {
                bitmaps.release();
            }
        }
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        if let Some(map) = &mut self.map {
            return map.extents(out);
        }
        let at = out.cursor();
        let rest = self.size.saturating_sub(at);
        let _: Flow = out.push(rest, Status::DataOverHoles(Place::at(at)));
        Ok(())
    }
}

impl BlockMap {
    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let blocks = self.blocks;
        // Without a parent, what is not stored is zero.
        let unused = match self.bitmaps {
            Some(_) => Status::Absent,
            None => Status::Zero,
        };
        while out.cursor() < out.end() {
            let mut inside = out.cursor() % blocks.size;
            let mut rest = self.bat.entries_from(out.cursor() / blocks.size)?;
            if rest.is_empty() {
                break;
            }
            while let Some((entry, others)) = rest.split_first_chunk() {
                let entry = bat::decode_one(entry);
                let mut more = 0;
                let flow = match &mut self.bitmaps {
                    Some(bitmaps) if entry != UNUSED => {
                        let block = out.cursor() / blocks.size;
                        match bitmaps.at(block, blocks.bitmap_at(entry), blocks.bitmap)? {
                            Some(bitmap) => sectors(bitmap, entry, blocks, inside, out),
                            None => out.push(blocks.size.saturating_sub(inside), unused),
                        }
                    }
                    _ => {
                        if entry == UNUSED {
                            more = bat::unused(others);
                        }
                        let length = blocks.size.saturating_mul((more as u64).saturating_add(1));
                        let status = classify(entry, unused, blocks, inside);
                        out.push(length.saturating_sub(inside), status)
                    }
                };
                if flow == Flow::Stop {
                    return Ok(());
                }
                inside = 0;
                rest = others.get(more.saturating_mul(ENTRY)..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// What the BAT entry of a block says about the block from byte `inside` on; `unused` is the
/// status of blocks that are not stored.
///
/// The bitmap of a dynamic disk is not asked: qemu does not either, and a sector whose bit is
/// clear is zero in the block as well.
#[inline]
fn classify(entry: u32, unused: Status, blocks: Blocks, inside: u64) -> Status {
    match entry {
        UNUSED => unused,
        _ => Status::Data(Place::at(blocks.data_at(entry).saturating_add(inside))),
    }
}

/// The extents of one stored block of a differencing disk, from its byte `inside` on: sectors
/// whose bit is set are in the block, the others in the parent.
fn sectors(
    bitmap: Bitmap<'_>,
    entry: u32,
    blocks: Blocks,
    mut inside: u64,
    out: &mut Batch,
) -> Flow {
    while inside < blocks.size {
        // Sectors of a block are at most 2^22.
        let at = usize::try_from(inside / SECTOR).unwrap_or(0);
        let left = usize::try_from(blocks.size / SECTOR).unwrap_or(0).saturating_sub(at);
        let (set, count) = bitmap.run(at, left);
        let end = (at as u64).saturating_add(count as u64).saturating_mul(SECTOR);
        let sector = if set { entry } else { UNUSED };
        let status = classify(sector, Status::Absent, blocks, inside);
        if out.push(end.saturating_sub(inside), status) == Flow::Stop {
            return Flow::Stop;
        }
        inside = end;
    }
    Flow::More
}

#[cfg(test)]
mod tests {
    use instar_core::testkit::data;
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::disk::{BitOrder, DiskType};

    #[test]
    fn entries() {
        let blocks = Blocks::new(2 << 20, DiskType::Dynamic);
        for (entry, inside, status) in [
            (UNUSED, 0, Status::Zero),
            (UNUSED, 77, Status::Zero),
            (4, 0, data(2048 + 512)),
            (4, 77, data(2048 + 512 + 77)),
            // Over the footer's copy, but that is where the table says it is.
            (0, 0, data(512)),
            (UNUSED - 1, 511, data(0xffff_fffe * 512 + 512 + 511)),
        ] {
            assert_eq!(
                classify(entry, Status::Zero, blocks, inside),
                status,
                "{entry:#x} {inside}"
            );
        }
    }

    #[test]
    fn sectors_follow_the_bits() {
        let blocks = Blocks::new(4096, DiskType::Differencing);
        let mut bitmap = [0; 512];
        bitmap[0] = 0b0011_0001;
        let bitmap = Bitmap { bytes: &bitmap, order: BitOrder::HighestFirst };
        let from = |inside| {
            let mut out = Batch::default();
            out.ask(inside, 4096);
            let _: Flow = sectors(bitmap, 8, blocks, inside, &mut out);
            out.extents().iter().map(|e| (e.length, e.status())).collect::<Vec<_>>()
        };
        let base = 8 * 512 + 512;
        assert_eq!(
            from(0),
            [
                (1024, Status::Absent),
                (1024, data(base + 1024)),
                (1536, Status::Absent),
                (512, data(base + 3584)),
            ]
        );
        assert_eq!(
            from(1025),
            [(1023, data(base + 1025)), (1536, Status::Absent), (512, data(base + 3584))]
        );
    }
}
