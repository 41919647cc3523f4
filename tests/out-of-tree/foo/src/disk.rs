//! What lies on disk, decoded and checked by itself.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStringExt;

use instar_core::{Fields, Result, SECTOR};

use crate::error::Error;

/// Bytes in the header.
pub(crate) const HEADER: usize = 512;
/// Bytes in a table entry.
pub(crate) const ENTRY: u64 = 8;

const MAGIC: [u8; 8] = *b"FOODISK1";
const BLOCK_BITS: RangeInclusive<u32> = 9..=24;
const MAX_NAME: u32 = 255;

/// Bits of an entry: kind and file offset.
const KIND: u64 = 0x3;
const OFFSET: u64 = !0x1ff;

/// The header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) block_bits: u32,
    pub(crate) disk_size: u64,
    pub(crate) table_offset: u64,
    pub(crate) backing_name: Option<OsString>,
}

impl Header {
    pub(crate) fn has_magic(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Takes the fields out of the header, in their order.
    pub(crate) fn decode(fields: Fields<'_>) -> Result<Self> {
        let magic = fields.array(0)?;
        if magic != MAGIC {
            return Err(Error::Magic { found: magic }.into());
        }
        let sum = sum_of_words(&fields.array(0)?);
        if sum != 0 {
            return Err(at(Error::Checksum { sum }, 8));
        }
        let block_bits = fields.le32(12)?;
        if !BLOCK_BITS.contains(&block_bits) {
            return Err(at(Error::BlockBits { bits: block_bits }, 12));
        }
        let disk_size = fields.le64(16)?;
        if disk_size % SECTOR != 0 {
            return Err(at(Error::DiskSize { size: disk_size }, 16));
        }
        let name_length = fields.le32(32)?;
        if name_length > MAX_NAME {
            return Err(at(Error::NameLength { length: name_length }, 32));
        }
        let name = fields.slice(36, name_length as usize)?;
        Ok(Self {
            block_bits,
            disk_size,
            table_offset: fields.le64(24)?,
            backing_name: (!name.is_empty()).then(|| OsString::from_vec(name.to_vec())),
        })
    }

    /// Bytes in a block.
    pub(crate) fn block(&self) -> u64 {
        1 << self.block_bits
    }

    /// Bytes in the table: at most 2^58, as a block has 2^9 bytes or more.
    pub(crate) fn table_size(&self) -> u64 {
        self.disk_size.div_ceil(self.block()) * ENTRY
    }
}

/// The sum modulo 2^32 of all words of the header; 0 if the checksum is right.
pub(crate) fn sum_of_words(header: &[u8; HEADER]) -> u32 {
    header
        .chunks_exact(4)
        .filter_map(|word| word.first_chunk())
        .fold(0, |sum, word| sum.wrapping_add(u32::from_le_bytes(*word)))
}

fn at(error: Error, offset: u64) -> instar_core::Error {
    instar_core::Error::from(error).at(offset)
}

/// A table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Absent,
    Zeros,
    /// At this file offset.
    Data(u64),
    Compressed,
}

impl Entry {
    /// Decodes the entry of block number `block`.
    pub(crate) fn decode(raw: u64, block: u64) -> Result<Self> {
        if raw & !(KIND | OFFSET) != 0 {
            return Err(Error::ReservedBits { block, raw }.into());
        }
        Ok(match raw & KIND {
            0 => Self::Absent,
            1 => Self::Zeros,
            2 => Self::Data(raw & OFFSET),
            _ => Self::Compressed,
        })
    }
}
