//! The header and the table entries as they lie on disk. All integers are big-endian.

use std::ops::RangeInclusive;

use instar_core::{Fields, Result, SECTOR};

use crate::error::Error;

/// "QFI\xfb" (spec, header, bytes 0 to 3).
pub(crate) const MAGIC: [u8; 4] = [0x51, 0x46, 0x49, 0xfb];
/// Byte offset of the version.
pub(crate) const VERSION_AT: usize = 4;
/// The only version of this format; 2 and 3 are qcow2.
pub(crate) const VERSION: u32 = 1;
/// Length of the header, in bytes.
pub(crate) const HEADER: usize = 48;

/// cluster_bits: clusters of 512 bytes to 64 KiB (qemu).
const CLUSTER_BITS: RangeInclusive<u8> = 9..=16;
/// l2_bits: L2 tables of 512 bytes to 64 KiB (qemu).
const L2_BITS: RangeInclusive<u8> = 6..=13;
/// Entries of the L1 table (qemu): their bytes fit into a signed 32-bit integer.
const MAX_L1_ENTRIES: u64 = 0x0fff_ffff;
/// Longest backing file name, in bytes (spec).
const MAX_BACKING_NAME: u32 = 1023;
/// The smallest disk, in bytes, that qemu takes.
const MIN_SIZE: u64 = 2;

/// Bytes of an entry of either table.
pub(crate) const ENTRY: u64 = 8;
/// The cluster of an L2 entry is compressed; the other bits then say where and how long it is.
const COMPRESSED: u64 = 1 << 63;

/// The header, decoded and checked by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Length of the disk in bytes, a multiple of 512.
    pub(crate) virtual_size: u64,
    /// Log2 of the bytes in a cluster, 9 to 16.
    pub(crate) cluster_bits: u32,
    /// Log2 of the entries in an L2 table, 6 to 13.
    pub(crate) l2_bits: u32,
    /// Whether clusters that are not compressed are encrypted.
    pub(crate) is_encrypted: bool,
    /// Byte offset of the L1 table, anywhere.
    pub(crate) l1_offset: u64,
    /// Entries that the L1 table has: what the disk needs, at most 2^28.
    pub(crate) l1_entries: u64,
    /// Byte offset and length of the backing file's name, if there is one.
    pub(crate) backing_name: Option<(u64, u32)>,
}

impl Header {
    /// Decodes the header in `fields`.
    pub(crate) fn parse(fields: &Fields<'_>) -> Result<Self> {
        let found: [u8; 4] = fields.array(0)?;
        if found != MAGIC {
            return Err(Error::Magic { found }.into());
        }
        let version = fields.be32(VERSION_AT)?;
        if version != VERSION {
            return Err(at(Error::Version { version }, 4));
        }
        fields.require(HEADER)?;
        let size = fields.be64(24)?;
        if size < MIN_SIZE {
            return Err(at(Error::TooSmall { size }, 24));
        }
        let cluster_bits = fields.u8(32)?;
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(at(Error::ClusterBits { bits: cluster_bits }, 32));
        }
        let l2_bits = fields.u8(33)?;
        if !L2_BITS.contains(&l2_bits) {
            return Err(at(Error::L2Bits { bits: l2_bits }, 33));
        }
        let is_encrypted = match fields.be32(36)? {
            0 => false,
            1 => true,
            method => return Err(at(Error::CryptMethod { method }, 36)),
        };
        let (cluster_bits, l2_bits) = (u32::from(cluster_bits), u32::from(l2_bits));
        let l1_entries = size.div_ceil(1 << (cluster_bits + l2_bits));
        if l1_entries > MAX_L1_ENTRIES {
            let (entries, allowed) = (l1_entries, MAX_L1_ENTRIES);
            return Err(at(Error::TooLarge { size, entries, allowed }, 24));
        }
        Ok(Self {
            virtual_size: size - size % SECTOR,
            cluster_bits,
            l2_bits,
            is_encrypted,
            l1_offset: fields.be64(40)?,
            l1_entries,
            backing_name: backing_name(fields)?,
        })
    }

    /// Bytes in a cluster.
    pub(crate) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes in an L2 table.
    pub(crate) fn table(&self) -> u64 {
        ENTRY << self.l2_bits
    }

    /// Log2 of the bytes of the disk that one L2 table describes, at most 29.
    pub(crate) fn table_bits(&self) -> u32 {
        self.cluster_bits + self.l2_bits
    }
}

fn backing_name(fields: &Fields<'_>) -> Result<Option<(u64, u32)>> {
    let (offset, length) = (fields.be64(8)?, fields.be32(16)?);
    if offset == 0 {
        return Ok(None);
    }
    if length > MAX_BACKING_NAME {
        return Err(at(Error::BackingLength { length, allowed: MAX_BACKING_NAME }, 16));
    }
    Ok((length > 0).then_some((offset, length)))
}

fn at(error: Error, offset: u64) -> instar_core::Error {
    instar_core::Error::from(error).at(offset)
}

/// What an L2 entry says about its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum L2Entry {
    /// It is not in this image.
    Absent,
    /// It is compressed.
    Compressed,
    /// It is stored, in an encrypted image encrypted, at this byte offset, which is below 2^63.
    Stored(u64),
}

impl L2Entry {
    #[inline]
    pub(crate) fn decode(raw: u64) -> Self {
        match raw {
            0 => Self::Absent,
            _ if raw & COMPRESSED != 0 => Self::Compressed,
            _ => Self::Stored(raw),
        }
    }
}
