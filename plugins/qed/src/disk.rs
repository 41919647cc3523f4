//! The header and the table entries as they lie on disk. All integers are little-endian.

use std::ops::RangeInclusive;

use instar_core::{Fields, Result, SECTOR};

use crate::error::Error;

/// "QED\0" (spec, "Header", `magic`).
pub(crate) const MAGIC: [u8; 4] = *b"QED\0";
/// Length of the header's fields, in bytes.
pub(crate) const HEADER: usize = 64;
/// Bytes of an entry of either table.
pub(crate) const ENTRY: u64 = 8;

/// Bytes in a cluster: a power of two, 4 KiB to 64 MiB (spec, "Header", `cluster_size`).
const CLUSTER_SIZES: RangeInclusive<u32> = 1 << 12..=1 << 26;
/// Clusters in a table: a power of two (spec, "Header", `table_size`).
const TABLE_SIZES: RangeInclusive<u32> = 1..=16;
/// Longest backing file name, in bytes (qemu).
const MAX_BACKING_NAME: u32 = 4095;

/// Feature bits (spec, "Feature bits"). Whether the image should be checked does not matter to
/// a reader.
const BACKING_FILE: u64 = 1 << 0;
const NEED_CHECK: u64 = 1 << 1;
const BACKING_FORMAT_NO_PROBE: u64 = 1 << 2;
const KNOWN_FEATURES: u64 = BACKING_FILE | NEED_CHECK | BACKING_FORMAT_NO_PROBE;

/// The header, decoded and checked by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Length of the disk in bytes, a multiple of 512.
    pub(crate) virtual_size: u64,
    /// Log2 of the bytes in a cluster, 12 to 26.
    pub(crate) cluster_bits: u32,
    /// Log2 of the entries in a table, of either kind, 9 to 27.
    pub(crate) table_bits: u32,
    /// Bytes of the header in whole clusters, below 2^32.
    pub(crate) header_size: u64,
    /// Byte offset of the L1 table.
    pub(crate) l1_offset: u64,
    /// The backing file, if there is one.
    pub(crate) backing: Option<BackingName>,
}

/// Where the header has the backing file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackingName {
    /// Byte offset in the file; the name is within the header.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) length: u32,
    /// Whether the file is raw, whatever it looks like.
    pub(crate) is_raw: bool,
}

impl Header {
    /// Decodes the header in `fields`.
    pub(crate) fn parse(fields: &Fields<'_>) -> Result<Self> {
        let found: [u8; 4] = fields.array(0)?;
        if found != MAGIC {
            return Err(Error::Magic { found }.into());
        }
        fields.require(HEADER)?;
        let features = fields.le64(16)?;
        if features & !KNOWN_FEATURES != 0 {
            return Err(at(Error::Features { unknown: features & !KNOWN_FEATURES }, 16));
        }
        let cluster_size = fields.le32(4)?;
        if !cluster_size.is_power_of_two() || !CLUSTER_SIZES.contains(&cluster_size) {
            return Err(at(Error::ClusterSize { size: cluster_size }, 4));
        }
        let table_size = fields.le32(8)?;
        if !table_size.is_power_of_two() || !TABLE_SIZES.contains(&table_size) {
            return Err(at(Error::TableSize { clusters: table_size }, 8));
        }
        let cluster_bits = cluster_size.trailing_zeros();
        let table_bits = cluster_bits + table_size.trailing_zeros() - ENTRY.trailing_zeros();
        let virtual_size = fields.le64(48)?;
        if virtual_size % SECTOR != 0 {
            return Err(at(Error::SizeUnaligned { size: virtual_size }, 48));
        }
        // A disk is one L1 table of L2 tables of clusters. Where that is 2^64 or more, every size
        // fits; qemu's own sum wraps there, so it opens no such image.
        let allowed = 1_u64.checked_shl(2 * table_bits + cluster_bits).unwrap_or(u64::MAX);
        if virtual_size > allowed {
            return Err(at(Error::SizeTooLarge { size: virtual_size, allowed }, 48));
        }
        let clusters = fields.le32(12)?;
        let header_size = u64::from(clusters) * u64::from(cluster_size);
        if header_size > u64::from(u32::MAX) {
            return Err(at(Error::HeaderSize { clusters, size: header_size }, 12));
        }
        Ok(Self {
            virtual_size,
            cluster_bits,
            table_bits,
            header_size,
            l1_offset: fields.le64(40)?,
            backing: backing(fields, features, header_size)?,
        })
    }

    /// Bytes in a cluster.
    pub(crate) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes in a table, at most 2^30.
    pub(crate) fn table(&self) -> u64 {
        ENTRY << self.table_bits
    }

    /// Log2 of the bytes of the disk that one L2 table describes, at most 53.
    pub(crate) fn l1_bits(&self) -> u32 {
        self.cluster_bits + self.table_bits
    }

    /// Where tables and clusters may lie in a file of `file` bytes.
    pub(crate) fn room(&self, file: u64) -> Room {
        let cluster = self.cluster();
        let file = file.next_multiple_of(SECTOR);
        Room { cluster, start: self.header_size, end: file - file % cluster }
    }
}

fn backing(fields: &Fields<'_>, features: u64, header: u64) -> Result<Option<BackingName>> {
    if features & BACKING_FILE == 0 {
        return Ok(None);
    }
    let (offset, length) = (u64::from(fields.le32(56)?), fields.le32(60)?);
    if offset + u64::from(length) > header {
        return Err(at(Error::BackingOutside { offset, length, header }, 56));
    }
    if length > MAX_BACKING_NAME {
        return Err(at(Error::BackingLength { length, allowed: MAX_BACKING_NAME }, 60));
    }
    let is_raw = features & BACKING_FORMAT_NO_PROBE != 0;
    Ok(Some(BackingName { offset, length, is_raw }))
}

pub(crate) fn at(error: Error, offset: u64) -> instar_core::Error {
    instar_core::Error::from(error).at(offset)
}

/// The part of a file in which tables and clusters may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes in a cluster.
    pub(crate) cluster: u64,
    /// Byte offset of the end of the header, a multiple of a cluster.
    pub(crate) start: u64,
    /// Byte offset of the end of the last whole cluster of the file.
    pub(crate) end: u64,
}

impl Room {
    /// Whether a table of `length` bytes, a multiple of a cluster, may lie at `offset`.
    pub(crate) fn has(&self, offset: u64, length: u64) -> bool {
        let end = offset.checked_add(length);
        self.has_cluster(offset) && end.is_some_and(|end| end <= self.end)
    }

    /// Whether a cluster of data may lie at `offset`: behind the end of the file too, of which the
    /// core warns.
    ///
    /// qemu wants the first cluster of a run to be in the file and does not look at those behind
    /// it, so that what it says of a cluster depends on where it was asked to begin.
    pub(crate) fn has_cluster(&self, offset: u64) -> bool {
        offset % self.cluster == 0 && offset >= self.start
    }
}

/// What an L2 entry says about its cluster (spec, "Tables").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum L2Entry {
    /// It is not in this image.
    Absent,
    /// It reads as zeros.
    Zero,
    /// It is stored at this byte offset.
    Stored(u64),
}

impl L2Entry {
    #[inline]
    pub(crate) fn decode(raw: u64) -> Self {
        match raw {
            0 => Self::Absent,
            1 => Self::Zero,
            at => Self::Stored(at),
        }
    }
}
