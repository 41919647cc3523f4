//! The on-disk structures of block tables, decoded into native types.

use instar_core::{Fields, Place, Result, SECTOR, Status};

use crate::error::Error;

/// A part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    /// Byte offset in the file.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) length: u64,
}

impl Area {
    /// Just behind it.
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// The head of a block table (Apple's `BLKXTable`).
///
/// Not kept: the number of sectors, buffers and descriptors, and the checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableHeader {
    /// Sector of the disk from which the sectors of chunks count.
    pub(crate) sector: u64,
    /// File offset from which the offsets of chunks count, in bytes.
    pub(crate) data: u64,
    /// How many chunks the table should have.
    pub(crate) chunks: u32,
}

impl TableHeader {
    pub(crate) const LENGTH: usize = 204;
    pub(crate) const MAGIC: &[u8; 4] = b"mish";

    /// Decodes a header whose magic is known to be there; `data_fork` is where that starts.
    pub(crate) fn decode(fields: Fields<'_>, data_fork: u64) -> Result<Self> {
        let offset = fields.be64(24)?;
        let at = fields.offset_of(0);
        let data = data_fork.checked_add(offset).ok_or(Error::TableOffset { offset, at })?;
        Ok(Self { sector: fields.be64(8)?, data, chunks: fields.be32(200)? })
    }
}

/// How the sectors of a chunk are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 0 or 2: nothing is stored. The sectors are zeros, or free space that reads as zeros.
    Zeros,
    /// 1: as they are.
    Raw,
    /// 0x80000004 to 0x80000008: by ADC, zlib, bzip2, LZFSE or LZMA.
    Compressed,
    /// 0x7ffffffe, a comment, and 0xffffffff, the end of the table: no chunk at all.
    None,
    /// Anything else: stored somehow.
    Unknown(u32),
}

impl From<u32> for Kind {
    fn from(number: u32) -> Self {
        match number {
            0 | 2 => Self::Zeros,
            1 => Self::Raw,
            0x8000_0004..=0x8000_0008 => Self::Compressed,
            0x7fff_fffe | 0xffff_ffff => Self::None,
            other => Self::Unknown(other),
        }
    }
}

/// A range of the disk and how it is stored (Apple's `BLKXChunkEntry`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) kind: Kind,
    /// First byte on the disk; a multiple of 512.
    pub(crate) start: u64,
    /// The byte behind the last one; more than `start`.
    pub(crate) end: u64,
    /// Where it is stored in the file, if it is. Of [`Kind::Raw`], `end - start` bytes rounded up
    /// to a sector.
    pub(crate) stored: Area,
}

impl Chunk {
    /// Bytes of one chunk in a table.
    pub(crate) const LENGTH: usize = 40;

    /// Decodes an entry of the table with this `header`; none if it is not about any sector.
    /// `at` is a file offset near it, for errors.
    pub(crate) fn decode(
        entry: &[u8; Self::LENGTH],
        header: &TableHeader,
        at: u64,
    ) -> Result<Option<Self>> {
        let fields = Fields::new("chunk", at, entry);
        let kind = Kind::from(fields.be32(0)?);
        let (sector, count) = (fields.be64(8)?, fields.be64(16)?);
        if kind == Kind::None || count == 0 {
            return Ok(None);
        }
        let start = header.sector.checked_add(sector);
        let end = start.and_then(|start| start.checked_add(count)?.checked_mul(SECTOR));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(Error::Sectors { table: header.sector, sector, count, at }.into());
        };
        if kind == Kind::Zeros {
            let stored = Area { offset: 0, length: 0 };
            return Ok(Some(Self { kind, start: start * SECTOR, end, stored }));
        }
        let (offset, length) = (fields.be64(24)?, fields.be64(32)?);
        let placed = header.data.checked_add(offset).filter(|o| o.checked_add(length).is_some());
        let Some(placed) = placed else {
            return Err(Error::Offset { table: header.data, offset, length, at }.into());
        };
        if kind == Kind::Raw && length.div_ceil(SECTOR) != count {
            return Err(Error::RawLength { sector: start, length, count, at }.into());
        }
        let stored = Area { offset: placed, length };
        Ok(Some(Self { kind, start: start * SECTOR, end, stored }))
    }

    /// What the bytes of the chunk from `inside` on are, and how many of them.
    pub(crate) fn part(&self, inside: u64) -> (u64, Status) {
        let rest = self.end.saturating_sub(self.start).saturating_sub(inside);
        match self.kind {
            Kind::Zeros | Kind::None => (rest, Status::Zero),
            Kind::Compressed => (rest, Status::Compressed),
            Kind::Unknown(_) => (rest, Status::Opaque),
            Kind::Raw => match self.stored.length.saturating_sub(inside) {
                // The last sector is not stored whole.
                0 => (rest, Status::Zero),
                stored => {
                    let offset = self.stored.offset.saturating_add(inside);
                    (stored, Status::Data(Place::at(offset)))
                }
            },
        }
    }
}
