//! The header as it lies on disk. All integers are big-endian (spec, "Header").

use std::ops::RangeInclusive;

use instar_core::{Fields, MAX_LENGTH, Result};

use crate::error::Error;

/// "QFI\xfb" (spec, "Header", bytes 0 to 3).
pub(crate) const MAGIC: [u8; 4] = [0x51, 0x46, 0x49, 0xfb];
/// Byte offset of the version.
pub(crate) const VERSION_AT: usize = 4;
/// Byte offset of cluster_bits.
pub(crate) const CLUSTER_BITS_AT: usize = 20;
/// cluster_bits: the specification's minimum, and qemu's maximum (2 MiB).
pub(crate) const CLUSTER_BITS: RangeInclusive<u32> = 9..=21;
/// Length of a version 2 header, in bytes.
const V2_HEADER: u32 = 72;
/// Least length of a version 3 header, in bytes.
const V3_HEADER: u32 = 104;
/// Least length in bytes of a header of this version, if it is known.
pub(crate) fn least_header(version: u32) -> Option<usize> {
    let length = match version {
        2 => V2_HEADER,
        3 => V3_HEADER,
        _ => return None,
    };
    usize::try_from(length).ok()
}

/// Byte offset of the compression type, if the header is long enough to have one.
const COMPRESSION_TYPE_AT: u32 = 104;

/// qemu's limits: bytes of the refcount table, entries of the L1 table (32 MiB), snapshots.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
const MAX_L1_ENTRIES: u64 = 4 << 20;
const MAX_SNAPSHOTS: u64 = 65_536;
/// Longest backing file name in bytes (spec, "Header", bytes 16 to 19).
const MAX_BACKING_NAME: u64 = 1023;

/// Incompatible feature bits (spec, "Header", bytes 72 to 79). Dirty and corrupt do not matter
/// to a reader of the active tables.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN_FEATURES: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;
/// Autoclear feature bits (spec, "Header", bytes 88 to 95).
const BITMAPS: u64 = 1 << 0;
const RAW_DATA_FILE: u64 = 1 << 1;

/// Sectors are the granularity of the virtual size in qemu.
const SECTOR: u64 = 512;

/// How the guest's data is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    None,
    Aes,
    Luks,
}

/// The header, decoded and checked by itself.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    /// Length of the disk in bytes, a multiple of 512.
    pub(crate) virtual_size: u64,
    pub(crate) encryption: Encryption,
    /// Byte offset of the active L1 table, a multiple of the cluster size.
    pub(crate) l1_offset: u64,
    /// Entries of the L1 table that the disk needs; not more than there are.
    pub(crate) l1_entries: u64,
    /// Byte offset and length of the refcount table.
    pub(crate) refcount_table: (u64, u64),
    /// Width of a refcount as a power of two of bits, 0 to 6.
    pub(crate) refcount_order: u32,
    /// Byte offset of the snapshot table and how many snapshots it has.
    pub(crate) snapshots: (u64, u32),
    /// Byte offset and length of the backing file's name, if there is one.
    pub(crate) backing_name: Option<(u64, u32)>,
    /// Where the header extensions start and end, in bytes; all within the first cluster.
    pub(crate) extensions: (u64, u64),
    pub(crate) has_data_file: bool,
    pub(crate) has_valid_bitmaps: bool,
    pub(crate) extended_l2: bool,
    /// Incompatible features that are not known.
    pub(crate) unknown_features: u64,
}

impl Header {
    /// Decodes the header in `fields`, which hold the first cluster or what there is of it.
    pub(crate) fn parse(fields: &Fields<'_>) -> Result<Self> {
        let found: [u8; 4] = fields.array(0)?;
        if found != MAGIC {
            return Err(Error::Magic { found }.into());
        }
        let version = fields.be32(VERSION_AT)?;
        if !(2..=3).contains(&version) {
            return Err(at(Error::Version { version }, 4));
        }
        let least = if version == 2 { V2_HEADER } else { V3_HEADER };
        fields.require(least as usize)?;
        let cluster_bits = fields.be32(CLUSTER_BITS_AT)?;
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(at(Error::ClusterBits { bits: cluster_bits }, 20));
        }
        let cluster = 1_u64 << cluster_bits;
        let features = Features::parse(fields, version, cluster)?;
        let backing_offset = fields.be64(8)?;
        if backing_offset > cluster {
            return Err(at(Error::BackingOffset { offset: backing_offset, cluster }, 8));
        }
        let encryption = match fields.be32(32)? {
            0 => Encryption::None,
            1 => Encryption::Aes,
            2 => Encryption::Luks,
            method => return Err(at(Error::CryptMethod { method }, 32)),
        };
        let extensions_end = if backing_offset == 0 { cluster } else { backing_offset };
        let virtual_size = fields.be64(24)?;
        let mut header = Self {
            version,
            cluster_bits,
            virtual_size: virtual_size - virtual_size % SECTOR,
            encryption,
            l1_offset: table_offset("L1 table", fields, 40, cluster)?,
            l1_entries: 0,
            refcount_table: refcount_table(fields, cluster)?,
            refcount_order: features.refcount_order,
            snapshots: (table_offset("snapshot table", fields, 64, cluster)?, fields.be32(60)?),
            backing_name: backing_name(fields, backing_offset, cluster)?,
            extensions: (u64::from(features.header_length), extensions_end),
            has_data_file: features.incompatible & DATA_FILE != 0,
            has_valid_bitmaps: features.autoclear & BITMAPS != 0,
            extended_l2: features.incompatible & EXTENDED_L2 != 0,
            unknown_features: features.incompatible & !KNOWN_FEATURES,
        };
        limit("snapshot table", header.snapshots.1.into(), "entries", MAX_SNAPSHOTS, 60)?;
        header.l1_entries = header.needed_l1_entries(fields.be32(36)?, virtual_size)?;
        Ok(header)
    }

    /// Bytes in a cluster.
    pub(crate) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Log2 of the entries of an L2 table.
    pub(crate) fn l2_bits(&self) -> u32 {
        // An entry has 8 bytes, an extended one 16.
        self.cluster_bits - if self.extended_l2 { 4 } else { 3 }
    }

    fn needed_l1_entries(&self, entries: u32, size: u64) -> Result<u64> {
        limit("L1 table", entries.into(), "entries", MAX_L1_ENTRIES, 36)?;
        if size > MAX_LENGTH {
            return Err(at(Error::VirtualSize { size }, 24));
        }
        let needed = size.div_ceil(1 << (self.cluster_bits + self.l2_bits()));
        if u64::from(entries) < needed {
            return Err(at(Error::L1TooSmall { entries, needed, size }, 36));
        }
        Ok(needed)
    }
}

/// What version 3 added, with version 2's fixed values.
struct Features {
    incompatible: u64,
    autoclear: u64,
    refcount_order: u32,
    header_length: u32,
}

impl Features {
    fn parse(fields: &Fields<'_>, version: u32, cluster: u64) -> Result<Self> {
        if version == 2 {
            let header_length = V2_HEADER;
            return Ok(Self { incompatible: 0, autoclear: 0, refcount_order: 4, header_length });
        }
        let features = Self {
            incompatible: fields.be64(72)?,
            autoclear: fields.be64(88)?,
            refcount_order: fields.be32(96)?,
            header_length: fields.be32(100)?,
        };
        let length = features.header_length;
        if length < V3_HEADER {
            return Err(at(Error::HeaderTooShort { length }, 100));
        }
        if u64::from(length) > cluster {
            return Err(at(Error::HeaderTooLong { length, cluster }, 100));
        }
        // An unknown feature may change the meaning of everything that is checked below.
        if features.incompatible & !KNOWN_FEATURES != 0 {
            return Ok(features);
        }
        let has_type = length > COMPRESSION_TYPE_AT;
        let kind = if has_type { fields.u8(COMPRESSION_TYPE_AT as usize)? } else { 0 };
        if kind > 1 {
            return Err(at(Error::CompressionType { kind }, 104));
        }
        let bit = features.incompatible & COMPRESSION_TYPE != 0;
        if bit != (kind != 0) {
            return Err(at(Error::CompressionBit { kind, bit }, 104));
        }
        if features.incompatible & EXTENDED_L2 != 0 && cluster < 16_384 {
            return Err(at(Error::SubclusterSize { cluster }, 20));
        }
        if features.refcount_order > 6 {
            return Err(at(Error::RefcountOrder { order: features.refcount_order }, 96));
        }
        if features.autoclear & RAW_DATA_FILE != 0 && features.incompatible & DATA_FILE == 0 {
            return Err(at(Error::RawDataFile, 88));
        }
        Ok(features)
    }
}

fn at(error: Error, offset: u64) -> instar_core::Error {
    instar_core::Error::from(error).at(offset)
}

fn limit(
    table: &'static str,
    size: u64,
    unit: &'static str,
    allowed: u64,
    field: u64,
) -> Result<()> {
    if size > allowed {
        return Err(at(Error::TableTooLarge { table, size, unit, allowed }, field));
    }
    Ok(())
}

fn table_offset(
    table: &'static str,
    fields: &Fields<'_>,
    field: usize,
    cluster: u64,
) -> Result<u64> {
    let offset = fields.be64(field)?;
    if offset % cluster != 0 {
        let error = Error::TableUnaligned { table, offset, cluster };
        return Err(at(error, fields.offset_of(field)));
    }
    Ok(offset)
}

fn refcount_table(fields: &Fields<'_>, cluster: u64) -> Result<(u64, u64)> {
    let size = u64::from(fields.be32(56)?).saturating_mul(cluster);
    if size == 0 {
        return Err(at(Error::NoRefcountTable, 56));
    }
    limit("refcount table", size, "bytes", MAX_REFCOUNT_TABLE, 56)?;
    let offset = table_offset("refcount table", fields, 48, cluster)?;
    // Table offsets are signed in qemu.
    if offset.checked_add(size).is_none_or(|end| i64::try_from(end).is_err()) {
        return Err(at(Error::TableBeyond { table: "refcount table", offset }, 48));
    }
    Ok((offset, size))
}

fn backing_name(fields: &Fields<'_>, offset: u64, cluster: u64) -> Result<Option<(u64, u32)>> {
    let length = fields.be32(16)?;
    if offset == 0 {
        return Ok(None);
    }
    let allowed = MAX_BACKING_NAME.min(cluster.saturating_sub(offset));
    if u64::from(length) > allowed {
        return Err(at(Error::BackingLength { length, allowed }, 16));
    }
    Ok((length > 0).then_some((offset, length)))
}
