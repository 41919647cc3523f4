//! The on-disk structures, decoded into native types.

use std::ops::Range;

use instar_core::{Fields, Result, SECTOR};

use crate::error::Error;

/// Bytes of a footer: one sector.
pub(crate) const FOOTER_BYTES: usize = 512;

/// A BAT entry of a block that is not in the file (specification, "Block Allocation Table").
pub(crate) const UNUSED: u32 = u32::MAX;

/// Sectors of which one byte of a block's bitmap speaks, in bytes.
const BYTES_PER_BITMAP_BYTE: u64 = 8 * SECTOR;

/// What kind of disk it is (specification, "Hard Disk Footer Format", Disk Type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskType {
    /// 2: the disk's bytes as they are, then the footer.
    Fixed,
    /// 3: blocks, of which unused ones are not stored.
    Dynamic,
    /// 4: as [`DiskType::Dynamic`], over a parent.
    Differencing,
    /// 0, 1, 5, 6: none, reserved or deprecated; anything else: unknown.
    Other(u32),
}

impl From<u32> for DiskType {
    fn from(number: u32) -> Self {
        match number {
            2 => Self::Fixed,
            3 => Self::Dynamic,
            4 => Self::Differencing,
            other => Self::Other(other),
        }
    }
}

/// Which bit of a byte of a sector bitmap speaks of the first sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BitOrder {
    /// The most significant one, as specified ("Block Allocation Table and Data Blocks").
    HighestFirst,
    /// The least significant one.
    LowestFirst,
}

/// Cylinders, heads and sectors per track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) cylinders: u16,
    pub(crate) heads: u8,
    pub(crate) sectors_per_track: u8,
}

impl Geometry {
    /// The largest that the specification can express ("CHS Calculation"); it stands for every
    /// disk from there on.
    pub(crate) const MAX: Self = Self { cylinders: 65535, heads: 16, sectors_per_track: 255 };

    /// All sectors. At most 65535 × 255 × 255, so the product fits.
    pub(crate) const fn sectors(self) -> u64 {
        self.cylinders as u64 * self.heads as u64 * self.sectors_per_track as u64
    }
}

/// The footer, 512 bytes (specification, "Hard Disk Footer Format").
///
/// Not kept: features, version, time stamp, host system, original size and saved state, which
/// change nothing about the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footer {
    /// File offset of the dynamic header, in bytes; all ones in a fixed disk.
    pub(crate) header_offset: u64,
    /// The program that made the disk, such as `win ` or `qemu`.
    pub(crate) creator: [u8; 4],
    /// The version of that program.
    pub(crate) creator_version: u32,
    /// Size of the disk in bytes.
    pub(crate) current_size: u64,
    /// The disk's geometry.
    pub(crate) geometry: Geometry,
    /// What kind of disk it is.
    pub(crate) disk_type: DiskType,
    /// By what a differencing disk knows its parent.
    pub(crate) unique_id: [u8; 16],
}

impl Footer {
    const COOKIE: &[u8; 8] = b"conectix";
    pub(crate) const CHECKSUM: Range<usize> = 64..68;
    const XEN: &[u8; 4] = b"tap\0";

    /// Whether XenServer made the disk.
    pub(crate) fn is_by_xen(&self) -> bool {
        self.creator == *Self::XEN
    }

    /// In which order the bits of the sector bitmaps are. XenServer up to version 1 of its
    /// library has the other one, as one can see by what its tools convert.
    pub(crate) fn bit_order(&self) -> BitOrder {
        match self.is_by_xen() && self.creator_version == 1 {
            true => BitOrder::LowestFirst,
            false => BitOrder::HighestFirst,
        }
    }

    /// Whether `bytes` start as a footer does.
    pub(crate) fn is_at(bytes: &[u8]) -> bool {
        bytes.starts_with(Self::COOKIE)
    }

    /// The footer in the last sector of a file, which has 512 bytes of it, or 511: writers before
    /// Virtual PC 2004 left out the last byte, a zero (specification, "Hard Disk Footer Format").
    /// A footer that is cut off anywhere else is not one.
    pub(crate) fn in_last_sector(sector: &[u8]) -> Option<[u8; FOOTER_BYTES]> {
        let mut footer = [0; FOOTER_BYTES];
        let least = FOOTER_BYTES - 1;
        if !Self::is_at(sector) || sector.len() < least {
            return None;
        }
        footer.get_mut(..sector.len())?.copy_from_slice(sector);
        Some(footer)
    }

    /// Decodes a footer whose cookie is known to be there, and verifies its checksum.
    pub(crate) fn decode(fields: Fields<'_>) -> Result<Self> {
        // The last byte is not in the footers of old writers.
        fields.require(FOOTER_BYTES - 1)?;
        let stored = fields.be32(Self::CHECKSUM.start)?;
        let computed = checksum(fields.bytes(), Self::CHECKSUM);
        if stored != computed {
            let at = fields.offset_of(Self::CHECKSUM.start);
            return Err(Error::FooterChecksum { stored, computed, at }.into());
        }
        Ok(Self {
            header_offset: fields.be64(16)?,
            creator: fields.array(28)?,
            creator_version: fields.be32(32)?,
            current_size: fields.be64(48)?,
            geometry: Geometry {
                cylinders: fields.be16(56)?,
                heads: fields.u8(58)?,
                sectors_per_track: fields.u8(59)?,
            },
            disk_type: fields.be32(60)?.into(),
            unique_id: fields.array(68)?,
        })
    }
}

/// How the blocks of a dynamic or differencing disk are laid out. All numbers are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// Guest bytes of one block: a power of two, 512 to 2^31.
    pub(crate) size: u64,
    /// The sector bitmap in front of each stored block, padded to whole sectors.
    pub(crate) bitmap: u64,
}

impl Blocks {
    /// Blocks of `size` bytes, already known to be valid.
    ///
    /// The bitmap has a bit for every sector and is padded to a sector, so it is never empty. In
    /// blocks of less than 8 sectors qemu has none; such a dynamic disk is read as qemu does. Of
    /// a differencing disk qemu reads no bitmap at all, so there the specification holds.
    pub(crate) fn new(size: u64, disk_type: DiskType) -> Self {
        let bytes = match disk_type {
            DiskType::Differencing => size.div_ceil(BYTES_PER_BITMAP_BYTE),
            _ => size / BYTES_PER_BITMAP_BYTE,
        };
        Self { size, bitmap: bytes.next_multiple_of(SECTOR) }
    }

    /// File offset of the bitmap of the block whose BAT entry is `entry`, in bytes.
    pub(crate) fn bitmap_at(self, entry: u32) -> u64 {
        u64::from(entry).saturating_mul(SECTOR)
    }

    /// File offset of that block's first guest byte.
    pub(crate) fn data_at(self, entry: u32) -> u64 {
        self.bitmap_at(entry).saturating_add(self.bitmap)
    }

    /// File offset just behind that block.
    pub(crate) fn end_of(self, entry: u32) -> u64 {
        self.data_at(entry).saturating_add(self.size)
    }
}

/// Where a name of the parent is stored (specification, "Parent Locator Entries").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Locator {
    /// On which platform, and how, the name is to be understood.
    pub(crate) platform: [u8; 4],
    /// Length of the name in bytes.
    pub(crate) length: u32,
    /// File offset of the name in bytes.
    pub(crate) offset: u64,
}

/// The dynamic header, 1024 bytes (specification, "Dynamic Disk Header Format").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DynamicHeader {
    /// File offset of the block allocation table in bytes; need not be aligned.
    pub(crate) table_offset: u64,
    /// Entries in that table.
    pub(crate) entries: u32,
    /// Guest bytes of one block: a power of two, 512 to 2^31.
    pub(crate) block_size: u64,
    /// Whether the checksum is right. qemu does not look at it.
    pub(crate) checksum_is_right: bool,
    /// [`Footer::unique_id`] of the parent.
    pub(crate) parent_id: [u8; 16],
    /// Name of the parent: UTF-16, big-endian, zeros behind it.
    pub(crate) parent_name: [u8; 512],
    /// More names of the parent.
    pub(crate) locators: [Locator; 8],
}

impl DynamicHeader {
    pub(crate) const LENGTH: usize = 1024;

    pub(crate) const COOKIE: &[u8; 8] = b"cxsparse";
    pub(crate) const CHECKSUM: Range<usize> = 36..40;
    const LOCATORS: usize = 576;
    const LOCATOR_LENGTH: usize = 24;

    /// Decodes a header and checks what needs no look elsewhere.
    pub(crate) fn decode(fields: Fields<'_>) -> Result<Self> {
        if fields.array(0)? != *Self::COOKIE {
            return Err(Error::HeaderCookie { at: fields.offset_of(0) }.into());
        }
        fields.require(Self::LENGTH)?;
        let block_size = fields.be32(32)?;
        if !block_size.is_power_of_two() || u64::from(block_size) < SECTOR {
            return Err(Error::BlockSize { size: block_size, at: fields.offset_of(32) }.into());
        }
        let mut locators = [Locator { platform: [0; 4], length: 0, offset: 0 }; 8];
        let places = (Self::LOCATORS..).step_by(Self::LOCATOR_LENGTH);
        for (locator, at) in locators.iter_mut().zip(places) {
            let entry = Fields::new(
                "parent locator entry",
                fields.offset_of(at),
                fields.slice(at, Self::LOCATOR_LENGTH)?,
            );
            // The space at 4 is in sectors by the specification and in bytes by several
            // writers; the length alone says enough.
            *locator = Locator {
                platform: entry.array(0)?,
                length: entry.be32(8)?,
                offset: entry.be64(16)?,
            };
        }
        Ok(Self {
            table_offset: fields.be64(16)?,
            entries: fields.be32(28)?,
            block_size: block_size.into(),
            checksum_is_right: fields.be32(Self::CHECKSUM.start)?
                == checksum(fields.bytes(), Self::CHECKSUM),
            parent_id: fields.array(40)?,
            parent_name: fields.array(64)?,
            locators,
        })
    }
}

/// The one's complement of the sum of all bytes, those of the checksum itself left out.
pub(crate) fn checksum(bytes: &[u8], field: Range<usize>) -> u32 {
    let counted = bytes.iter().enumerate().filter(|(at, _)| !field.contains(at));
    !counted.fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn the_bitmap_fills_sectors_and_tiny_blocks_have_one_only_in_differencing_disks() {
        for (size, dynamic, differencing) in [
            (512, 0, 512),
            (2048, 0, 512),
            (4096, 512, 512),
            (2 << 20, 512, 512),
            (4 << 20, 1024, 1024),
            (16 << 20, 4096, 4096),
            (1 << 31, 512 << 10, 512 << 10),
        ] {
            assert_eq!(Blocks::new(size, DiskType::Dynamic).bitmap, dynamic, "{size}");
            assert_eq!(Blocks::new(size, DiskType::Differencing).bitmap, differencing, "{size}");
        }
    }

    #[test]
    fn the_largest_geometry_is_just_below_128_gib() {
        assert_eq!(Geometry::MAX.sectors(), 267_382_800);
    }
}
