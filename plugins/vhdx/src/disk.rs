//! The structures of a VHDX file that do not belong to its log.
//!
//! Names and section numbers are those of [MS-VHDX]. All integers are little-endian. Decoding
//! checks what one structure says about itself; what structures say about each other is checked
//! in [`layout`](crate::layout).

use instar_core::{Fields, Result};

use crate::error::Error;
use crate::guid::Guid;

pub(crate) const KIB: u64 = 1 << 10;
/// Every object is aligned to this (§2.1).
pub(crate) const MIB: u64 = 1 << 20;

/// Signature of the file type identifier, at offset 0 (§2.2.1).
pub(crate) const FILE_SIGNATURE: &[u8; 8] = b"vhdxfile";

/// File offsets of the two headers (§2.2.2).
pub(crate) const HEADER_OFFSETS: [u64; 2] = [64 * KIB, 128 * KIB];
/// Bytes of a header, all of them under its checksum.
pub(crate) const HEADER_SIZE: usize = 4096;
pub(crate) const HEADER_SIGNATURE: &[u8; 4] = b"head";
/// The only version of the format there is (§1.6).
pub(crate) const VERSION: u16 = 1;
/// The only version of the log there is (§2.2.2).
pub(crate) const LOG_VERSION: u16 = 0;

/// File offsets of the two copies of the region table (§2.2.3).
pub(crate) const REGION_TABLE_OFFSETS: [u64; 2] = [192 * KIB, 256 * KIB];
/// Bytes of a region table, all of them under its checksum.
pub(crate) const REGION_TABLE_SIZE: usize = 64 << 10;
pub(crate) const REGION_TABLE_SIGNATURE: &[u8; 4] = b"regi";
/// Most entries of a region table (§2.2.3.1) and of a metadata table (§2.6.1.1).
pub(crate) const MAX_ENTRIES: u32 = 2047;
/// Bytes of an entry of the region table, the metadata table, and of a log descriptor.
pub(crate) const ENTRY_SIZE: usize = 32;

/// Known regions (§2.2.3.2).
pub(crate) const BAT_REGION: Guid = Guid::new(0x2DC27766_F623_4200_9D64_115E9BFD4A08);
pub(crate) const METADATA_REGION: Guid = Guid::new(0x8B7CA206_4790_4B9A_B8FE_575F050F886E);

/// Bytes of the metadata table, at the start of its region (§2.6).
pub(crate) const METADATA_TABLE_SIZE: usize = 64 << 10;
const METADATA_SIGNATURE: &[u8; 8] = b"metadata";
/// Most bytes of a metadata item (§2.6.1.2).
pub(crate) const MAX_ITEM: u64 = MIB;

/// Known metadata items (§2.6.2).
pub(crate) const FILE_PARAMETERS: Guid = Guid::new(0xCAA16737_FA36_4D43_B3B6_33F0AA44E76B);
pub(crate) const VIRTUAL_DISK_SIZE: Guid = Guid::new(0x2FA54224_CD1B_4876_B211_5DBED83BF4B8);
pub(crate) const VIRTUAL_DISK_ID: Guid = Guid::new(0xBECA12AB_B2E6_4523_93EF_C309E000C746);
pub(crate) const LOGICAL_SECTOR_SIZE: Guid = Guid::new(0x8141BF1D_A96F_4709_BA47_F233A8FAAB5F);
pub(crate) const PHYSICAL_SECTOR_SIZE: Guid = Guid::new(0xCDA348C7_445D_4471_9CC9_E9885251C556);
pub(crate) const PARENT_LOCATOR: Guid = Guid::new(0xA8D35F2D_B30B_454D_ABF7_D3D84834AB0C);

/// CRC-32C over `bytes`, with the checksum field (4 bytes at 4, in every structure that has one)
/// taken as zero.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let before = bytes.get(..4).unwrap_or(bytes);
    let after = bytes.get(8..).unwrap_or_default();
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]), after)
}

/// One of the two headers (§2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) sequence_number: u64,
    pub(crate) file_write_guid: Guid,
    pub(crate) data_write_guid: Guid,
    /// Zero if there is no log to replay.
    pub(crate) log_guid: Guid,
    pub(crate) log_version: u16,
    pub(crate) version: u16,
    /// Bytes, a multiple of 1 MiB.
    pub(crate) log_length: u32,
    /// File offset, a multiple of 1 MiB.
    pub(crate) log_offset: u64,
}

impl Header {
    /// Whether there is a log that must be replayed before anything else is read (§2.3.3).
    pub(crate) fn has_log(&self) -> bool {
        self.log_guid != Guid::ZERO
    }

    /// Decodes the header whose first [`HEADER_SIZE`] bytes these are; `None` if its signature or
    /// checksum is wrong, which is no error as long as the other header is valid.
    pub(crate) fn decode(at: u64, bytes: &[u8]) -> Result<Option<Self>> {
        let fields = Fields::new("header", at, bytes);
        if fields.slice(0, 4)? != HEADER_SIGNATURE || fields.le32(4)? != checksum(bytes) {
            return Ok(None);
        }
        Ok(Some(Self {
            sequence_number: fields.le64(8)?,
            file_write_guid: Guid::from_bytes(fields.array(16)?),
            data_write_guid: Guid::from_bytes(fields.array(32)?),
            log_guid: Guid::from_bytes(fields.array(48)?),
            log_version: fields.le16(64)?,
            version: fields.le16(66)?,
            log_length: fields.le32(68)?,
            log_offset: fields.le64(72)?,
        }))
    }
}

/// An entry of the region table (§2.2.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) guid: Guid,
    /// File offset, a multiple of 1 MiB, at least 1 MiB.
    pub(crate) offset: u64,
    /// Bytes, a multiple of 1 MiB.
    pub(crate) length: u32,
    /// Whether a file with this region may not be opened by who does not know it.
    pub(crate) required: bool,
    /// File offset of the entry itself.
    pub(crate) entry_at: u64,
}

impl Region {
    /// What errors call it.
    pub(crate) fn name(&self) -> &'static str {
        match self.guid {
            BAT_REGION => "the BAT",
            METADATA_REGION => "the metadata region",
            _ => "an unknown region",
        }
    }
}

/// Decodes a copy of the region table (§2.2.3): its regions, in the order of the table.
pub(crate) fn region_table(fields: Fields<'_>) -> Result<Vec<Region>> {
    let (at, bytes) = (fields.offset_of(0), fields.bytes());
    if fields.slice(0, 4)? != REGION_TABLE_SIGNATURE {
        return Err(Error::RegionTableSignature { at }.into());
    }
    fields.require(REGION_TABLE_SIZE)?;
    let (stored, computed) = (fields.le32(4)?, checksum(bytes));
    if stored != computed {
        return Err(Error::RegionTableChecksum { at, stored, computed }.into());
    }
    let count = fields.le32(8)?;
    if count > MAX_ENTRIES {
        return Err(Error::TooManyEntries { table: "region table", at, count }.into());
    }
    let entry = |(index, bytes): (usize, &[u8])| {
        let entry_at = fields.offset_of(16_usize.saturating_add(index.saturating_mul(ENTRY_SIZE)));
        let fields = Fields::new("region table entry", entry_at, bytes);
        Ok(Region {
            guid: Guid::from_bytes(fields.array(0)?),
            offset: fields.le64(16)?,
            length: fields.le32(24)?,
            required: fields.le32(28)? & 1 != 0,
            entry_at,
        })
    };
    entries(&fields, 16, count)?.enumerate().map(entry).collect()
}

/// The bytes of `count` entries from `at` on.
fn entries<'a>(
    fields: &Fields<'a>,
    at: usize,
    count: u32,
) -> Result<std::slice::ChunksExact<'a, u8>> {
    let length = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(ENTRY_SIZE);
    Ok(fields.slice(at, length)?.chunks_exact(ENTRY_SIZE))
}

/// An entry of the metadata table (§2.6.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) guid: Guid,
    /// Bytes from the start of the metadata region, at least 64 KiB unless the item is empty.
    pub(crate) offset: u32,
    /// Bytes, at most 1 MiB.
    pub(crate) length: u32,
    /// Whether it belongs to the user of the disk. A GUID may be used once by each side.
    pub(crate) is_user: bool,
    /// Whether a file with this item may not be opened by who does not know it.
    pub(crate) is_required: bool,
    /// File offset of the entry itself.
    pub(crate) entry_at: u64,
}

/// Decodes the metadata table (§2.6.1): its items, in the order of the table.
pub(crate) fn metadata_table(fields: Fields<'_>) -> Result<Vec<Item>> {
    let at = fields.offset_of(0);
    if fields.slice(0, 8)? != METADATA_SIGNATURE {
        return Err(Error::MetadataSignature { at }.into());
    }
    fields.require(METADATA_TABLE_SIZE)?;
    let count = u32::from(fields.le16(10)?);
    if count > MAX_ENTRIES {
        return Err(Error::TooManyEntries { table: "metadata table", at, count }.into());
    }
    let entry = |(index, bytes): (usize, &[u8])| {
        let entry_at = fields.offset_of(32_usize.saturating_add(index.saturating_mul(ENTRY_SIZE)));
        let fields = Fields::new("metadata table entry", entry_at, bytes);
        let flags = fields.le32(24)?;
        Ok(Item {
            guid: Guid::from_bytes(fields.array(0)?),
            offset: fields.le32(16)?,
            length: fields.le32(20)?,
            is_user: flags & 1 != 0,
            is_required: flags & 4 != 0,
            entry_at,
        })
    };
    entries(&fields, 32, count)?.enumerate().map(entry).collect()
}

/// The file parameters item (§2.6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileParameters {
    /// Bytes of a payload block: a power of two from 1 MiB to 256 MiB.
    pub(crate) block_size: u32,
    /// Whether there is a parent, that is, the disk is a differencing one.
    pub(crate) has_parent: bool,
}

impl FileParameters {
    /// Decodes the item. Bit 0 of the flags ("leave block allocated": a fixed disk) is about
    /// writing only.
    pub(crate) fn decode(fields: Fields<'_>) -> Result<Self> {
        let at = fields.offset_of(0);
        let block_size = fields.le32(0)?;
        let size = u64::from(block_size);
        if !(MIB..=256 * MIB).contains(&size) || !size.is_power_of_two() {
            return Err(Error::BlockSize { at, block_size }.into());
        }
        Ok(Self { block_size, has_parent: fields.le32(4)? & 2 != 0 })
    }
}

/// Bits of a BAT entry (§2.5.1): the state, and the offset, which is a multiple of 1 MiB. The
/// bits between are reserved; as in qemu and elsewhere they mean nothing.
pub(crate) const BAT_STATE_MASK: u64 = 7;
pub(crate) const BAT_OFFSET_MASK: u64 = !(MIB - 1);

/// States of a payload block (§2.5.1.1).
pub(crate) const PAYLOAD_BLOCK_NOT_PRESENT: u64 = 0;
pub(crate) const PAYLOAD_BLOCK_UNDEFINED: u64 = 1;
pub(crate) const PAYLOAD_BLOCK_ZERO: u64 = 2;
pub(crate) const PAYLOAD_BLOCK_UNMAPPED: u64 = 3;
/// The value of "unmapped" before version 1.00 of the specification, reserved since. qemu reads
/// it still.
pub(crate) const PAYLOAD_BLOCK_UNMAPPED_V095: u64 = 5;
pub(crate) const PAYLOAD_BLOCK_FULLY_PRESENT: u64 = 6;
pub(crate) const PAYLOAD_BLOCK_PARTIALLY_PRESENT: u64 = 7;

/// State of a sector bitmap block that is there (§2.5.1.2).
pub(crate) const SB_BLOCK_PRESENT: u64 = 6;
/// Bytes of a sector bitmap block (§2.4).
pub(crate) const SB_BLOCK_SIZE: u64 = MIB;
/// Logical sectors that a sector bitmap block describes, as a power of two (§2.4).
pub(crate) const SB_BLOCK_SECTORS_LOG2: u32 = SB_BLOCK_SIZE.ilog2() + 3;
