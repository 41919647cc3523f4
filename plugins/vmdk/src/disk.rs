//! On-disk structures of sparse extents, decoded: `KDMV` (hosted) and `COWD` (ESX).
//!
//! Integers are little-endian. "5.0" in comments is VMware's technical note *Virtual Disk
//! Format 5.0*, with the title of its section. seSparse has a module of its own.

use instar_core::{Fields, Result, SECTOR};

use crate::error::{Checked, Error};

/// `SPARSE_MAGICNUMBER` as it stands in the file (5.0, Hosted Sparse Extents).
pub(crate) const SPARSE_MAGIC: &[u8; 4] = b"KDMV";
/// `COWDISK_MAGIC` as it stands in the file (5.0, ESXi Host Sparse Extents).
pub(crate) const COWD_MAGIC: &[u8; 4] = b"COWD";

/// Bytes of a header, marker or footer: one sector each.
pub(crate) const HEADER_LENGTH: usize = 512;

/// Flag bit 1: there is a redundant grain directory.
pub(crate) const FLAG_REDUNDANT: u32 = 1 << 1;
/// Flag bit 2: grain table entries may be [`ZEROED_GRAIN`].
pub(crate) const FLAG_ZEROED_GRAIN: u32 = 1 << 2;

/// The grain table entry of a grain that is zero and has no space (with bit 2 of the flags).
pub(crate) const ZEROED_GRAIN: u32 = 1;

/// `GD_AT_END`: the grain directory's place is in the footer (5.0, Stream-Optimized).
const GD_AT_END: u64 = u64::MAX;

/// `COMPRESSION_DEFLATE`, the only `compressAlgorithm` there is besides 0, none.
const COMPRESSION_DEFLATE: u16 = 1;

/// `numGTEsPerGT` of hosted sparse extents is 512; less is read as well.
const MAX_TABLE_ENTRIES: u32 = 512;
/// Grain table entries of a `COWD` extent (5.0, ESXi Host Sparse Extents).
const COWD_TABLE_ENTRIES: u32 = 4096;
/// Largest grain in sectors, 1 GiB: qemu's bound. The specification's default is 128.
const MAX_GRAIN: u64 = 0x20_0000;
/// Most entries of a grain directory: qemu's bound, 128 MiB on disk.
pub(crate) const MAX_DIRECTORY_ENTRIES: u64 = 1 << 25;
/// The highest `version` of a `KDMV` header.
const MAX_VERSION: u32 = 3;

/// The header of a hosted sparse extent (`SparseExtentHeader`), or its copy in the footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SparseHeader {
    /// File offset of the header itself, in bytes.
    pub(crate) at: u64,
    pub(crate) version: u32,
    pub(crate) flags: u32,
    /// Size of the extent; may end inside a grain.
    pub(crate) capacity_sectors: u64,
    /// Need not be a power of two.
    pub(crate) grain_sectors: u64,
    /// 0: no embedded descriptor.
    pub(crate) descriptor_sector: u64,
    pub(crate) descriptor_sectors: u64,
    /// `numGTEsPerGT`.
    pub(crate) table_entries: u32,
    /// `rgdOffset`; counts only with [`FLAG_REDUNDANT`].
    pub(crate) redundant_directory_sector: u64,
    /// `gdOffset`; `None` if the footer has it.
    pub(crate) directory_sector: Option<u64>,
    /// `overHead`: the first sector that may hold a grain.
    pub(crate) overhead_sectors: u64,
    /// Whether grains are deflated. Bits 16 and 17 of the flags repeat this and are not read.
    pub(crate) compressed: bool,
}

impl SparseHeader {
    /// Bytes up to the end of the last field that is read.
    pub(crate) const LENGTH: usize = 79;

    /// Byte offsets of fields, for errors.
    pub(crate) const VERSION: u64 = 4;
    pub(crate) const CAPACITY: u64 = 12;
    pub(crate) const GRAIN_SIZE: u64 = 20;
    pub(crate) const DESCRIPTOR: u64 = 28;
    pub(crate) const TABLE_ENTRIES: u64 = 44;
    pub(crate) const REDUNDANT_DIRECTORY: u64 = 48;
    pub(crate) const DIRECTORY: u64 = 56;
    pub(crate) const OVERHEAD: u64 = 64;

    /// Decodes the fields; what they mean together is [`Geometry`]'s to check.
    pub(crate) fn decode(fields: &Fields<'_>) -> Result<Self> {
        let directory = fields.le64(56)?;
        Ok(Self {
            at: fields.offset_of(0),
            version: fields.le32(4)?,
            flags: fields.le32(8)?,
            capacity_sectors: fields.le64(12)?,
            grain_sectors: fields.le64(20)?,
            descriptor_sector: fields.le64(28)?,
            descriptor_sectors: fields.le64(36)?,
            table_entries: fields.le32(44)?,
            redundant_directory_sector: fields.le64(48)?,
            directory_sector: (directory != GD_AT_END).then_some(directory),
            overhead_sectors: fields.le64(64)?,
            compressed: fields.le16(77)? == COMPRESSION_DEFLATE,
        })
    }

    /// The extent's geometry, every field of it checked.
    pub(crate) fn geometry(&self) -> Checked<Geometry> {
        let field = |offset: u64| self.at.saturating_add(offset);
        if self.version > MAX_VERSION {
            let (version, allowed) = (self.version, MAX_VERSION);
            return Err(Error::Version { version, allowed, at: field(Self::VERSION) });
        }
        if !(1..=MAX_TABLE_ENTRIES).contains(&self.table_entries) {
            let (entries, allowed) = (self.table_entries, MAX_TABLE_ENTRIES);
            return Err(Error::TableEntries { entries, allowed, at: field(Self::TABLE_ENTRIES) });
        }
        Geometry::new(
            self.capacity_sectors,
            self.grain_sectors,
            self.table_entries,
            field(Self::CAPACITY),
            field(Self::GRAIN_SIZE),
        )
    }
}

/// Sizes of a sparse extent, checked: products of them cannot overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Size of the extent in bytes, at most [`instar_core::MAX_LENGTH`].
    pub(crate) length: u64,
    /// Bytes in one grain, at most 1 GiB.
    pub(crate) grain: u64,
    /// Entries of one grain table, 1 to 4096.
    pub(crate) table_entries: u64,
}

impl Geometry {
    /// Checks sizes that stand at file offsets `capacity_at` and `grain_at`.
    pub(crate) fn new(
        capacity_sectors: u64,
        grain_sectors: u64,
        table_entries: u32,
        capacity_at: u64,
        grain_at: u64,
    ) -> Checked<Self> {
        if !(1..=MAX_GRAIN).contains(&grain_sectors) {
            let (sectors, allowed) = (grain_sectors, MAX_GRAIN);
            return Err(Error::GrainSize { sectors, allowed, at: grain_at });
        }
        let length = capacity_sectors
            .checked_mul(SECTOR)
            .filter(|length| *length <= instar_core::MAX_LENGTH)
            .ok_or(Error::Capacity { sectors: capacity_sectors, at: capacity_at })?;
        let geometry =
            Self { length, grain: grain_sectors * SECTOR, table_entries: table_entries.into() };
        let entries = geometry.directory_entries();
        if entries > MAX_DIRECTORY_ENTRIES {
            let allowed = MAX_DIRECTORY_ENTRIES;
            return Err(Error::DirectoryEntries { entries, allowed, at: capacity_at });
        }
        Ok(geometry)
    }

    /// Bytes of the disk that one grain table describes.
    pub(crate) fn table_span(&self) -> u64 {
        self.grain * self.table_entries
    }

    /// Entries that a grain directory must have to describe the whole extent.
    pub(crate) fn directory_entries(&self) -> u64 {
        self.length.div_ceil(self.table_span())
    }
}

/// What follows the grains of a stream-optimized extent: footer marker, copy of the header,
/// end-of-stream marker (5.0, Stream-Optimized), three sectors at the end of the file.
pub(crate) const FOOTER_LENGTH: usize = 3 * HEADER_LENGTH;

/// `MARKER_EOS`, the type of the end-of-stream marker.
const MARKER_EOS: u32 = 0;
/// `MARKER_FOOTER`, the type of the footer marker.
const MARKER_FOOTER: u32 = 3;

/// Decodes the last three sectors of a file into the header that replaces the first one.
pub(crate) fn decode_footer(fields: &Fields<'_>) -> Result<SparseHeader> {
    // A marker is: u64 value, u32 size, u32 type.
    let at = fields.offset_of(0);
    let (size, kind) = (fields.le32(8)?, fields.le32(12)?);
    if (size, kind) != (0, MARKER_FOOTER) {
        return Err(Error::FooterMarker { size, kind, at }.into());
    }
    let copy = fields.slice(HEADER_LENGTH, HEADER_LENGTH)?;
    let header_at = fields.offset_of(HEADER_LENGTH);
    if !copy.starts_with(SPARSE_MAGIC) {
        return Err(Error::FooterMagic { at: header_at }.into());
    }
    let eos = 2 * HEADER_LENGTH;
    let (value, size, kind) = (fields.le64(eos)?, fields.le32(eos + 8)?, fields.le32(eos + 12)?);
    if (value, size, kind) != (0, 0, MARKER_EOS) {
        return Err(Error::EndOfStream { value, size, kind, at: fields.offset_of(eos) }.into());
    }
    SparseHeader::decode(&Fields::new("header copy in the footer", header_at, copy))
}

/// The header of an ESX sparse extent (`COWDisk_Header`). Version and flags are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CowdHeader {
    pub(crate) version: u32,
    /// Size of the extent.
    pub(crate) capacity_sectors: u32,
    pub(crate) grain_sectors: u32,
    pub(crate) directory_sector: u32,
    pub(crate) directory_entries: u32,
}

impl CowdHeader {
    /// Bytes up to the end of the last field that is read.
    pub(crate) const LENGTH: usize = 28;

    const CAPACITY: u64 = 12;
    const GRAIN_SIZE: u64 = 16;
    pub(crate) const DIRECTORY: u64 = 20;
    pub(crate) const DIRECTORY_ENTRIES: u64 = 24;

    pub(crate) fn decode(fields: &Fields<'_>) -> Result<Self> {
        Ok(Self {
            version: fields.le32(4)?,
            capacity_sectors: fields.le32(12)?,
            grain_sectors: fields.le32(16)?,
            directory_sector: fields.le32(20)?,
            directory_entries: fields.le32(24)?,
        })
    }

    /// The extent's geometry, every field of it checked.
    pub(crate) fn geometry(&self) -> Checked<Geometry> {
        Geometry::new(
            self.capacity_sectors.into(),
            self.grain_sectors.into(),
            COWD_TABLE_ENTRIES,
            Self::CAPACITY,
            Self::GRAIN_SIZE,
        )
    }
}
