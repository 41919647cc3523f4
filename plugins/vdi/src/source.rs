//! The block map as extents.

use std::sync::Arc;

use instar_core::{
    Backing, Batch, Error as CoreError, ExtentSource, Fields, Flow, Image, ImageFile, Place,
    Result, Role, SECTOR, Status, TableReader, read_padded,
};

use crate::disk::{Blocks, ENTRY, FREE, HEADER_BYTES, Header, ImageType, NOT_STORED};
use crate::error::Error;

/// Entries of the map in memory at a time (instar's own limit): 1 MiB.
const WINDOW: u64 = 1 << 18;

/// An open VDI as a map of its disk.
pub(crate) struct VdiSource {
    header: Header,
    map: TableReader,
    /// Entries of one window.
    window: u64,
    files: [ImageFile; 1],
    parent: Option<Backing>,
}

impl VdiSource {
    /// Reads and checks the header.
    pub(crate) fn open(image: &Image<'_>) -> Result<Self> {
        let storage = &image.storage;
        let mut bytes = [0; HEADER_BYTES];
        read_padded(storage.as_ref(), 0, &mut bytes)
            .map_err(|error| CoreError::io("cannot read the header", error).at(0))?;
        let header = Fields::decode("header", 0, &bytes, storage.len(), Header::decode)?;
        check_map(&header, storage.len())?;
        // Such an image is known by the UUIDs, whatever its type.
        let has_parent = header.has_parent();
        if let (ImageType::Other(image_type), false) = (header.image_type, has_parent) {
            image.context.notices.warn(format!(
                "image type is {image_type}, neither 1 (dynamic) nor 2 (static); read as dynamic"
            ))?;
        }
        let limits = &image.context.limits;
        let [parent, _] = header.parent;
        // VirtualBox looks the UUID up among the media that it knows: no name is stored.
        let parent = has_parent.then(|| Backing {
            role: Role::Parent,
            names: Vec::new(),
            format: Some("vdi".to_owned()),
            identifiers: vec![parent],
        });
        Ok(Self {
            header,
            parent,
            map: TableReader::new("block map", Arc::clone(storage), limits),
            window: WINDOW.min(limits.table_window / ENTRY as u64).max(1),
            files: [image.file()],
        })
    }
}

/// The whole map is in the file, also what of it is behind the end of the disk: else the image
/// has been truncated, which must show before a map is begun.
fn check_map(header: &Header, file: u64) -> Result<()> {
    let (offset, count) = (header.map_offset, header.blocks.count);
    // Below 2^32 and at most 2^31.
    let end = offset + u64::from(count) * ENTRY as u64;
    if end > file.next_multiple_of(SECTOR) {
        return Err(Error::MapOutside { count, offset, file }.into());
    }
    Ok(())
}

impl ExtentSource for VdiSource {
    fn virtual_size(&self) -> u64 {
        self.header.disk_size
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn backing(&self) -> Option<&Backing> {
        self.parent.as_ref()
    }

    fn identifier(&self) -> Option<[u8; 16]> {
        Some(self.header.uuid)
    }

    fn buffered(&self) -> u64 {
        self.map.buffered()
    }

    fn release(&mut self) {
        self.map.release();
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let Header { blocks, map_offset, .. } = self.header;
        // Holes of the file are looked for in images whose blocks all have their place from the
        // start, as by qemu.
        let over_holes = self.header.image_type == ImageType::Static;
        let free = if self.parent.is_some() { Status::Absent } else { Status::Zero };
        while out.cursor() < out.end() {
            let first = out.cursor() / blocks.size;
            // Up to a border of windows, not a window's worth: what is left of it when the batch
            // is full is then still at hand for the next one.
            let border = (first / self.window + 1) * self.window;
            let count = out.end().div_ceil(blocks.size).min(border) - first;
            // In the file, so there is no overflow; and not more than a window.
            let at = map_offset + first * ENTRY as u64;
            let length = usize::try_from(count * ENTRY as u64).unwrap_or(0);
            if append(blocks, over_holes, free, self.map.bytes(at, length)?, out) == Flow::Stop {
                break;
            }
        }
        Ok(())
    }
}

/// Appends the blocks that these entries describe; the cursor is in the first one. Free blocks are
/// `free`.
// By itself, so that what the loop needs stays in registers.
#[inline(never)]
fn append(blocks: Blocks, over_holes: bool, free: Status, entries: &[u8], out: &mut Batch) -> Flow {
    // Extra data is between any two stored blocks.
    let may_join = blocks.extra == 0;
    // Only the first block may have to be left out in part.
    let mut inside = out.cursor() % blocks.size;
    let mut out = out.tail();
    let mut entries = entries.chunks_exact(ENTRY).map(decode);
    let mut next = entries.next();
    while let Some(entry) = next {
        let mut run = 1;
        // At most a window of blocks of 2^31 bytes.
        let length = |run: u64| run * blocks.size - inside;
        let flow = if entry < NOT_STORED {
            let mut expected = entry;
            next = loop {
                // At most NOT_STORED.
                expected += 1;
                match entries.next() {
                    Some(entry) if entry == expected && entry < NOT_STORED && may_join => run += 1,
                    other => break other,
                }
            };
            let place = Place::at(blocks.data_at(entry) + inside);
            if over_holes {
                out.push(length(run), Status::DataOverHoles(place))
            } else {
                out.push(length(run), Status::Data(place))
            }
        } else {
            let status = if entry == FREE { free } else { Status::Zero };
            next = loop {
                match entries.next() {
                    Some(other @ NOT_STORED..) if other == entry || free == Status::Zero => {
                        run += 1
                    }
                    other => break other,
                }
            };
            out.push(length(run), status)
        };
        if flow == Flow::Stop {
            return Flow::Stop;
        }
        inside = 0;
    }
    Flow::More
}

/// One entry.
#[inline]
fn decode(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(NOT_STORED, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use instar_core::testkit::data;
    use pretty_assertions::assert_eq;

    use super::*;

    /// What the entries are from guest byte `from` on.
    fn list(blocks: Blocks, entries: &[u32], from: u64) -> Vec<(u64, Status)> {
        list_over(Status::Zero, blocks, entries, from)
    }

    /// The same where free blocks are `free`.
    fn list_over(free: Status, blocks: Blocks, entries: &[u32], from: u64) -> Vec<(u64, Status)> {
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let mut out = Batch::default();
        out.ask(from, entries.len() as u64 * blocks.size);
        assert_eq!(append(blocks, false, free, &bytes, &mut out), Flow::Stop);
        out.extents().iter().map(|extent| (extent.length, extent.status())).collect()
    }

    #[test]
    fn entries() {
        let blocks = Blocks { size: 4096, extra: 0, offset: 1024, count: 9 };
        let at = |entry: u64| data(1024 + 4096 * entry);
        let entries = [u32::MAX, NOT_STORED, u32::MAX, 5, 6, 7, 7, 0, NOT_STORED];
        assert_eq!(
            list(blocks, &entries, 0),
            [
                (3 * 4096, Status::Zero),
                (3 * 4096, at(5)),
                (4096, at(7)),
                (4096, at(0)),
                (4096, Status::Zero),
            ]
        );
        assert_eq!(
            list(blocks, &[3, 4, u32::MAX], 1),
            [(8191, at(3).advanced(1)), (4096, Status::Zero)]
        );
    }

    #[test]
    fn free_blocks_are_the_parents_and_discarded_ones_zero() {
        let blocks = Blocks { size: 4096, extra: 0, offset: 1024, count: 6 };
        assert_eq!(
            list_over(Status::Absent, blocks, &[FREE, FREE, NOT_STORED, NOT_STORED, FREE, 0], 1),
            [
                (2 * 4096 - 1, Status::Absent),
                (2 * 4096, Status::Zero),
                (4096, Status::Absent),
                (4096, data(1024)),
            ]
        );
    }

    #[test]
    fn the_largest_entry_does_not_run_on_into_the_marks() {
        let blocks = Blocks { size: 512, extra: 0, offset: 0, count: 3 };
        assert_eq!(
            list(blocks, &[NOT_STORED - 1, NOT_STORED, u32::MAX, 0], 0),
            [(512, data(u64::from(NOT_STORED - 1) * 512)), (1024, Status::Zero), (512, data(0)),]
        );
    }

    #[test]
    fn blocks_with_extra_data_do_not_join() {
        let blocks = Blocks { size: 4096, extra: 512, offset: 1024, count: 2 };
        assert_eq!(
            list(blocks, &[0, 1], 7),
            [(4089, data(1024 + 512 + 7)), (4096, data(1024 + 4608 + 512))]
        );
    }
}
