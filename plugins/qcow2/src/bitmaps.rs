//! Persistent bitmaps (spec, "Bitmaps"). They do not change the map; what is checked is that
//! their directory is sound, as a reader that goes on past a broken one cannot know what else
//! the writer got wrong.

use std::sync::Arc;

use instar_core::{Fields, Limits, Notices, Result, Storage, TableReader};

use crate::disk::Header;
use crate::error::Error;

/// Bytes in the extension.
const EXTENSION: usize = 24;
/// qemu's limits: bitmaps in an image, and bytes of directory for each.
const MAX_BITMAPS: u64 = 65_535;
const MAX_DIRECTORY: u64 = MAX_BITMAPS * 1024;
/// Bytes of a directory entry before its extra data and name.
const ENTRY: usize = 24;
/// Longest name in bytes.
const MAX_NAME: u16 = 1023;
/// qemu's limits for one bitmap: table entries, and bytes of bitmap.
const MAX_TABLE: u64 = 1 << 27;
const MAX_BYTES: u64 = 512 << 20;
/// Log2 of bytes that a bit stands for.
const GRANULARITY: std::ops::RangeInclusive<u8> = 9..=31;
/// In use, auto, extra data compatible: the first two are known to qemu.
const KNOWN_FLAGS: u32 = 3;
const IN_USE: u32 = 1;
/// The only type: dirty tracking.
const DIRTY_TRACKING: u8 = 1;

/// The directory that the extension points to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Directory {
    count: u64,
    size: u64,
    offset: u64,
}

impl Directory {
    /// Decodes the extension; `None` if its content is stale.
    pub(crate) fn parse(
        data: &Fields<'_>,
        header: &Header,
        notices: &Notices,
    ) -> Result<Option<Self>> {
        let at = data.offset_of(0);
        let wrong = |what, value, expected| {
            Err(instar_core::Error::from(Error::Bitmaps { what, value, expected }).at(at))
        };
        let length = data.bytes().len();
        if length != EXTENSION {
            return wrong("the length", length as u64, "not 24");
        }
        if !header.has_valid_bitmaps {
            notices.warn(
                "the bitmaps are inconsistent: a program without support for them has written \
                 to the image",
            )?;
            return Ok(None);
        }
        let count = u64::from(data.be32(0)?);
        let reserved = u64::from(data.be32(4)?);
        let (size, offset) = (data.be64(8)?, data.be64(16)?);
        if reserved != 0 {
            return wrong("the reserved field", reserved, "not 0");
        }
        if count == 0 || count > MAX_BITMAPS {
            return wrong("the number of bitmaps", count, "allowed are 1 to 65535");
        }
        if offset % header.cluster() != 0 {
            return wrong(
                "the directory offset",
                offset,
                "which is no multiple of the cluster size",
            );
        }
        if size == 0 || size > MAX_DIRECTORY {
            return wrong("the directory size", size, "allowed are 1 to 67107840 bytes");
        }
        Ok(Some(Self { count, size, offset }))
    }

    /// Byte offset and length.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.offset, self.size)
    }

    /// Reads the directory and checks its entries.
    pub(crate) fn check(
        &self,
        header: &Header,
        storage: &Arc<dyn Storage>,
        limits: &Limits,
    ) -> Result<()> {
        let mut table = TableReader::new("bitmap directory", Arc::clone(storage), limits);
        let mut at = 0_u64;
        let mut index = 0_u64;
        while at < self.size {
            let outside = || Error::BitmapDirectory { index, size: self.size };
            let room = self.size - at;
            if room < ENTRY as u64 {
                return Err(outside().into());
            }
            let position = self.offset.checked_add(at).ok_or_else(outside)?;
            let parse = |fields: Fields<'_>| {
                fields.require(ENTRY)?;
                let entry = Entry::parse(&fields)?;
                let length = entry.length();
                if length > room {
                    return Err(outside().into());
                }
                match entry.fault(header) {
                    None => Ok(length),
                    Some((what, value, expected)) => {
                        let error = Error::BitmapEntry { index, what, value, expected };
                        Err(instar_core::Error::from(error).at(position))
                    }
                }
            };
            let length = table.decode(position, ENTRY, parse)?;
            index += 1;
            if index > self.count {
                break;
            }
            at = at.saturating_add(length);
        }
        if index != self.count {
            let expected = "which is not what the header extension says";
            let what = "the number of directory entries";
            return Err(Error::Bitmaps { what, value: index, expected }.into());
        }
        Ok(())
    }
}

struct Entry {
    table_offset: u64,
    table_entries: u64,
    flags: u32,
    kind: u8,
    granularity_bits: u8,
    name_length: u16,
    extra_length: u32,
}

type Fault = (&'static str, u64, &'static str);

impl Entry {
    fn parse(fields: &Fields<'_>) -> Result<Self> {
        Ok(Self {
            table_offset: fields.be64(0)?,
            table_entries: fields.be32(8)?.into(),
            flags: fields.be32(12)?,
            kind: fields.u8(16)?,
            granularity_bits: fields.u8(17)?,
            name_length: fields.be16(18)?,
            extra_length: fields.be32(20)?,
        })
    }

    /// Bytes of the whole entry.
    fn length(&self) -> u64 {
        let parts = ENTRY as u64 + u64::from(self.name_length) + u64::from(self.extra_length);
        parts.next_multiple_of(8)
    }

    /// The first field that is not as it must be, with its value.
    fn fault(&self, header: &Header) -> Option<Fault> {
        let cluster = header.cluster();
        let bytes = self.table_entries.saturating_mul(cluster);
        let too_small = || {
            // What is more is a fault of its own; here it must not be too much to shift by.
            let bits = u64::from(self.granularity_bits.min(*GRANULARITY.end())) + 3;
            // A bitmap that covers the disk may be shorter only while it is in use.
            self.flags & IN_USE == 0 && u128::from(bytes) << bits < u128::from(header.virtual_size)
        };
        let rules: [(bool, Fault); 9] = [
            (self.extra_length != 0, ("extra data", self.extra_length.into(), "not supported")),
            (
                self.table_entries == 0 || self.table_entries > MAX_TABLE,
                ("table size", self.table_entries, "allowed are 1 to 2^27 entries"),
            ),
            (
                self.table_offset == 0 || self.table_offset % cluster != 0,
                ("table offset", self.table_offset, "not a multiple of the cluster size over 0"),
            ),
            (
                !GRANULARITY.contains(&self.granularity_bits),
                ("granularity_bits", self.granularity_bits.into(), "allowed are 9 to 31"),
            ),
            (
                self.flags & !KNOWN_FLAGS != 0,
                ("flags", self.flags.into(), "known are bits 0 and 1"),
            ),
            (
                self.name_length > MAX_NAME,
                ("name length", self.name_length.into(), "at most 1023 is allowed"),
            ),
            (self.kind != DIRTY_TRACKING, ("type", self.kind.into(), "known is 1")),
            (bytes > MAX_BYTES, ("bitmap size", bytes, "at most 512 MiB are allowed")),
            (too_small(), ("bitmap size", bytes, "too small for the virtual size")),
        ];
        rules.into_iter().find(|(broken, _)| *broken).map(|(_, fault)| fault)
    }
}
