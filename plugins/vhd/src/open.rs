//! Opening: from the file to a checked layout.

use std::sync::Arc;

use instar_core::{
    Error as CoreError, Fields, Image, Limits, Result, SECTOR, Storage, TableReader, read_padded,
};

use crate::bat::Bat;
use crate::bitmap::Bitmaps;
use crate::disk::{Blocks, DiskType, DynamicHeader, FOOTER_BYTES, Footer};
use crate::error::Error;
use crate::parent;
use crate::size::{ends_at, virtual_size};
use crate::source::{BlockMap, VhdSource};

/// A footer, and where it was found.
struct Found {
    footer: Footer,
    at: u64,
}

impl VhdSource {
    /// Reads and checks footer, dynamic header and block allocation table.
    pub(crate) fn open(image: &Image<'_>) -> Result<Self> {
        let storage = &image.storage;
        let Found { footer, at } = find_footer(storage.as_ref())?;
        let size = virtual_size(&footer, at, image.context.qemu)?;
        let source = |map, parent| Self {
            size,
            files: [image.file()],
            map,
            unique_id: footer.unique_id,
            parent,
        };
        if at > 0 {
            match footer.disk_type {
                DiskType::Fixed => {
                    if !ends_at(&footer, at) {
                        image.context.notices.warn(format!(
                            "the disk of {size} bytes does not end where its footer is, at {at:#x}"
                        ))?;
                    }
                    return Ok(source(None, None));
                }
                DiskType::Dynamic | DiskType::Differencing => image.context.notices.warn(
                    "the copy of the footer at the start of the file is missing; going by the \
                     footer at its end",
                )?,
                DiskType::Other(disk_type) => {
                    return Err(Error::DiskType { disk_type, at: at.saturating_add(60) }.into());
                }
            }
        } else if let DiskType::Other(disk_type) = footer.disk_type {
            image.context.notices.warn(format!(
                "disk type is {disk_type}, which is reserved; read as a dynamic disk"
            ))?;
        }

        let limits = &image.context.limits;
        let header_at = footer.header_offset;
        let header = read_header(header_at, storage, limits)?;
        if !header.checksum_is_right {
            image.context.notices.warn("the checksum of the dynamic header is wrong")?;
        }
        let blocks = Blocks::new(header.block_size, footer.disk_type);
        let mut bat = Bat::new(&header, header_at, size, Arc::clone(storage), limits)?;
        bat.check(blocks, metadata_end(header_at, &bat), &image.context.notices)?;
        let (bitmaps, parent) = match footer.disk_type {
            // A fixed disk with a copy of its footer in front, where the disk's first sector
            // should be, is of no known writer. qemu opens it as dynamic and maps it as fixed.
            DiskType::Fixed => return Ok(source(None, None)),
            DiskType::Dynamic | DiskType::Other(_) => (None, None),
            DiskType::Differencing => (
                Some(Bitmaps::new(
                    Arc::clone(storage),
                    blocks.bitmap,
                    footer.bit_order(),
                    Arc::clone(image.context),
                )),
                Some(parent::read(&footer, &header, image)?),
            ),
        };
        Ok(source(Some(BlockMap { bat, blocks, bitmaps }), parent))
    }
}

/// The footer's copy at the start of the file; if there is none, the footer at its end.
///
/// By the specification the one at the end is the original. As in qemu, the copy is used as long
/// as there is one: it is what every dynamic disk is recognised by.
fn find_footer(storage: &dyn Storage) -> Result<Found> {
    // Writers before Virtual PC 2004 made a footer of 511 bytes: it is found by the file's
    // length rounded up, and its last byte reads as zero (specification, "Hard Disk Footer
    // Format").
    let last = storage.len().next_multiple_of(SECTOR).checked_sub(SECTOR).ok_or(Error::Empty)?;
    for at in [0, last] {
        let mut sector = [0; FOOTER_BYTES];
        read_padded(storage, at, &mut sector)
            .map_err(|error| CoreError::io("cannot read the footer", error).at(at))?;
        if Footer::is_at(&sector) {
            let footer = Fields::decode("footer", at, &sector, storage.len(), Footer::decode)?;
            return Ok(Found { footer, at });
        }
    }
    Err(Error::NoFooter.into())
}

/// Up to where the file starts with metadata, in bytes: the copy of the footer, and what lies
/// right behind it of the dynamic header at `header_at` and the block allocation table.
fn metadata_end(header_at: u64, bat: &Bat) -> u64 {
    let header = (header_at, header_at.saturating_add(DynamicHeader::LENGTH as u64));
    let mut parts = [header, (bat.start(), bat.end())];
    parts.sort_unstable();
    parts.iter().fold(FOOTER_BYTES as u64, |reached, (start, end)| {
        if *start <= reached { reached.max(*end) } else { reached }
    })
}

fn read_header(at: u64, storage: &Arc<dyn Storage>, limits: &Limits) -> Result<DynamicHeader> {
    let mut reader = TableReader::new("dynamic header", Arc::clone(storage), limits);
    reader.decode(at, DynamicHeader::LENGTH, DynamicHeader::decode)
}
