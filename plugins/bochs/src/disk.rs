//! The on-disk structures, decoded into native types.

use instar_core::{Fields, Result, SECTOR, quoted};

use crate::error::Error;

/// A catalog entry of an extent that is not in the file (`REDOLOG_PAGE_NOT_ALLOCATED`).
pub(crate) const UNALLOCATED: u32 = u32::MAX;

/// The largest catalog that qemu reads, in entries.
const MAX_CATALOG: u32 = 0x10_0000;

/// The largest extent that qemu reads, in bytes.
const MAX_EXTENT: u32 = 0x80_0000;

/// The header (`standard_header_t` and `redolog_specific_header_t` in Bochs' `hdimage.h`).
///
/// Not kept: the time stamp of version 2, which changes nothing about the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// File offset of the catalog: the header's length, in bytes.
    pub(crate) catalog_offset: u32,
    /// Entries in the catalog, at most 2^20 and enough for the disk.
    pub(crate) catalog: u32,
    /// Length of the bitmap in front of each stored extent, in bytes.
    pub(crate) bitmap: u32,
    /// Guest bytes of one extent: a power of two, 512 to 2^23.
    pub(crate) extent: u32,
    /// Size of the disk in bytes, whole sectors.
    pub(crate) size: u64,
}

impl Header {
    /// Bytes of the fields that are read, in the version that has more of them.
    pub(crate) const LENGTH: usize = 96;

    /// The same in version 1.
    const LENGTH_1: usize = 92;

    /// How a file starts.
    pub(crate) const MAGIC: &[u8] = b"Bochs Virtual HD Image\0";
    const TYPE: &[u8] = b"Redolog\0";
    const SUBTYPE: &[u8] = b"Growing\0";

    const VERSION_1: u32 = 0x1_0000;
    const VERSION_2: u32 = 0x2_0000;

    /// Decodes a header and checks what needs no look elsewhere.
    pub(crate) fn decode(fields: Fields<'_>) -> Result<Self> {
        if !fields.bytes().starts_with(Self::MAGIC) {
            if !fields.bytes().is_empty() && Self::MAGIC.starts_with(fields.bytes()) {
                fields.require(Self::LENGTH_1)?;
            }
            return Err(Error::Magic.into());
        }
        fields.require(Self::LENGTH_1)?;
        let (kind, subtype) = (fields.array::<16>(32)?, fields.array::<16>(48)?);
        if !kind.starts_with(Self::TYPE) {
            return Err(Error::Type { found: text(&kind), at: fields.offset_of(32) }.into());
        }
        if !subtype.starts_with(Self::SUBTYPE) {
            return Err(Error::Subtype { found: text(&subtype), at: fields.offset_of(48) }.into());
        }
        let disk_at = match fields.le32(64)? {
            Self::VERSION_1 => 84,
            Self::VERSION_2 => 88,
            version => {
                return Err(Error::Version { version, at: fields.offset_of(64) }.into());
            }
        };
        let catalog = fields.le32(72)?;
        if catalog > MAX_CATALOG {
            let (allowed, at) = (MAX_CATALOG, fields.offset_of(72));
            return Err(Error::CatalogTooLarge { entries: catalog, allowed, at }.into());
        }
        let extent = fields.le32(80)?;
        if !extent.is_power_of_two() || u64::from(extent) < SECTOR || extent > MAX_EXTENT {
            let at = fields.offset_of(80);
            return Err(Error::Extent { size: extent, allowed: MAX_EXTENT, at }.into());
        }
        let disk = fields.le64(disk_at)?;
        let size = disk - disk % SECTOR;
        let needed = size.div_ceil(extent.into());
        if u64::from(catalog) < needed {
            let at = fields.offset_of(72);
            return Err(Error::CatalogTooSmall { entries: catalog, needed, at }.into());
        }
        Ok(Self {
            catalog_offset: fields.le32(68)?,
            catalog,
            bitmap: fields.le32(76)?,
            extent,
            size,
        })
    }

    /// Extents that the disk consists of: at most [`Header::catalog`].
    pub(crate) fn extents(&self) -> u64 {
        self.size.div_ceil(self.extent.into())
    }

    /// File offset just behind the stored extent whose catalog entry is `entry`.
    ///
    /// Stored extents lie behind the catalog, each with its bitmap in front; both are padded to
    /// sectors (Bochs, `redolog_t::set_position`).
    pub(crate) fn end_of(&self, entry: u32) -> u64 {
        let catalog = u64::from(self.catalog).saturating_mul(4);
        let first = u64::from(self.catalog_offset).saturating_add(catalog);
        let stored =
            u64::from(self.bitmap).next_multiple_of(SECTOR).saturating_add(self.extent.into());
        u64::from(entry).saturating_add(1).saturating_mul(stored).saturating_add(first)
    }
}

/// A text field up to its first NUL, quoted for messages.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    quoted(field.get(..end).unwrap_or_default()).to_string()
}
