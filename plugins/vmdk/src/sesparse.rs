//! seSparse extents: the space-efficient sparse extents of ESX, by their two headers.
//!
//! VMware has not published the format; this follows what is known from its readers. Integers
//! are 64-bit little-endian, places are sectors.

use std::sync::Arc;

use instar_core::{Fields, Limits, MAX_LENGTH, Result, SECTOR, Storage, TableReader};

use crate::disk::{Geometry, HEADER_LENGTH};
use crate::error::{Checked, Error};
use crate::grains::{Grain, GrainMap, Layout};
use crate::sparse::{check_directory_size, directory};

/// The first 8 bytes of the constant header, which is the file's first sector.
pub(crate) const CONST_MAGIC: u64 = 0xcafe_babe;
/// Bytes of the constant header up to the end of the last field that is read.
pub(crate) const CONST_LENGTH: usize = offset::PADDING;
/// The first 8 bytes of the volatile header.
const VOLATILE_MAGIC: u64 = 0xcafe_cafe;
/// The only version there is: 2.1.
const VERSION: u64 = 0x2_0000_0001;
/// The only grain size there is, in sectors.
const GRAIN_SECTORS: u64 = 8;
/// The only size of a grain table there is, in sectors.
const TABLE_SECTORS: u64 = 64;
/// Bytes of a directory or table entry.
const ENTRY_LENGTH: u64 = 8;
/// Entries in one grain table.
const TABLE_ENTRIES: u32 = 4096;

/// The upper half of a directory entry that refers to a table.
const DIRECTORY_ALLOCATED: u64 = 0x1000_0000;

/// Byte offsets in the constant header.
mod offset {
    pub(super) const VERSION: usize = 8;
    pub(super) const CAPACITY: usize = 16;
    pub(super) const GRAIN_SIZE: usize = 24;
    pub(super) const TABLE_SIZE: usize = 32;
    pub(super) const FLAGS: usize = 40;
    /// Four integers.
    pub(super) const RESERVED: usize = 48;
    pub(super) const VOLATILE_HEADER: usize = 80;
    pub(super) const DIRECTORY: usize = 128;
    pub(super) const DIRECTORY_SIZE: usize = 136;
    pub(super) const TABLES: usize = 144;
    pub(super) const GRAINS: usize = 192;
    /// Nothing from here to the end of the sector.
    pub(super) const PADDING: usize = 208;
}

/// Byte offsets in the volatile header.
mod volatile {
    pub(super) const REPLAY_JOURNAL: usize = 24;
    /// Nothing from here to the end of the sector.
    pub(super) const PADDING: usize = 32;
}

/// Opens the extent whose constant header, magic included, is in `fields`.
pub(crate) fn open(
    fields: &Fields<'_>,
    storage: &Arc<dyn Storage>,
    limits: &Limits,
) -> Result<GrainMap<SeLayout>> {
    let field = |offset: usize| fields.offset_of(offset);
    let version = fields.le64(offset::VERSION)?;
    if version != VERSION {
        let at = field(offset::VERSION);
        return Err(Error::SeVersion { version, expected: VERSION, at }.into());
    }
    let sectors = fields.le64(offset::GRAIN_SIZE)?;
    if sectors != GRAIN_SECTORS {
        let at = field(offset::GRAIN_SIZE);
        return Err(Error::SeGrainSize { sectors, expected: GRAIN_SECTORS, at }.into());
    }
    let sectors = fields.le64(offset::TABLE_SIZE)?;
    if sectors != TABLE_SECTORS {
        let at = field(offset::TABLE_SIZE);
        return Err(Error::SeTableSize { sectors, expected: TABLE_SECTORS, at }.into());
    }
    let flags = fields.le64(offset::FLAGS)?;
    if flags != 0 {
        return Err(Error::SeFlags { flags, at: field(offset::FLAGS) }.into());
    }
    if fields.slice(offset::RESERVED, 32)?.iter().any(|byte| *byte != 0) {
        return Err(
            Error::SeReserved { what: "reserved field", at: field(offset::RESERVED) }.into()
        );
    }
    check_padding(fields, offset::PADDING, "constant header padding")?;
    check_volatile(fields, storage, limits)?;

    let geometry = Geometry::new(
        fields.le64(offset::CAPACITY)?,
        GRAIN_SECTORS,
        TABLE_ENTRIES,
        field(offset::CAPACITY),
        field(offset::GRAIN_SIZE),
    )?;
    let per_sector = SECTOR / ENTRY_LENGTH;
    let entries = fields.le64(offset::DIRECTORY_SIZE)?.saturating_mul(per_sector);
    check_directory_size(entries, field(offset::DIRECTORY_SIZE))?;
    let directory = directory::<SeLayout>(
        fields.le64(offset::DIRECTORY)?,
        entries.min(geometry.directory_entries()),
        storage.len(),
        field(offset::DIRECTORY),
    )?;
    let layout = SeLayout {
        tables_sector: fields.le64(offset::TABLES)?,
        grains_sector: fields.le64(offset::GRAINS)?,
    };
    Ok(GrainMap::new(layout, geometry, directory, Arc::clone(storage), limits))
}

/// Refuses a volatile header that says that the rest cannot be trusted.
fn check_volatile(fields: &Fields<'_>, storage: &Arc<dyn Storage>, limits: &Limits) -> Result<()> {
    let sector = fields.le64(offset::VOLATILE_HEADER)?;
    let place = fields.offset_of(offset::VOLATILE_HEADER);
    let at = sector.checked_mul(SECTOR).ok_or(Error::SeVolatilePlace { sector, at: place })?;
    let mut reader = TableReader::new("volatile header", Arc::clone(storage), limits);
    reader.decode(at, HEADER_LENGTH, |fields| {
        let magic = fields.le64(0)?;
        if magic != VOLATILE_MAGIC {
            return Err(Error::SeVolatileMagic { magic, expected: VOLATILE_MAGIC, at }.into());
        }
        if fields.le64(volatile::REPLAY_JOURNAL)? != 0 {
            return Err(Error::SeJournal { at: fields.offset_of(volatile::REPLAY_JOURNAL) }.into());
        }
        check_padding(&fields, volatile::PADDING, "volatile header padding")
    })
}

fn check_padding(fields: &Fields<'_>, start: usize, what: &'static str) -> Result<()> {
    if fields.slice(start, HEADER_LENGTH - start)?.iter().any(|byte| *byte != 0) {
        return Err(Error::SeReserved { what, at: fields.offset_of(start) }.into());
    }
    Ok(())
}

/// Entries of 64 bits with a type in the uppermost bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeLayout {
    /// Where grain table number 0 is.
    tables_sector: u64,
    /// Where grain number 0 is.
    grains_sector: u64,
}

impl Layout for SeLayout {
    const WIDTH: u64 = ENTRY_LENGTH;
    const KIND: u64 = 0xf << 60;

    #[inline]
    fn decode(bytes: &[u8]) -> u64 {
        bytes.first_chunk().map_or(0, |entry| u64::from_le_bytes(*entry))
    }

    fn table(&self, entry: u64, at: u64) -> Checked<u64> {
        let invalid = Error::SeDirectoryEntry { entry, at };
        if entry >> 32 != DIRECTORY_ALLOCATED {
            return Err(invalid);
        }
        let number = entry & 0xffff_ffff;
        self.tables_sector
            .checked_add(number * TABLE_SECTORS)
            .and_then(|sector| sector.checked_mul(SECTOR))
            .ok_or(invalid)
    }

    #[inline]
    fn classify(&self, entry: u64) -> Grain {
        match entry >> 60 {
            0 if entry == 0 => Grain::Absent,
            // Unmapped by the guest, and zero: both read as zeros.
            1 | 2 => Grain::Zero,
            3 => {
                // The number's low 12 bits stand above its other 48.
                let number = entry >> 48 & 0xfff | (entry & 0xffff_ffff_ffff) << 12;
                (number * GRAIN_SECTORS)
                    .checked_add(self.grains_sector)
                    .filter(|sector| *sector <= MAX_LENGTH / SECTOR)
                    .map_or(Grain::Invalid, |sector| Grain::Data(sector * SECTOR))
            }
            _ => Grain::Invalid,
        }
    }

    #[inline]
    fn step(&self, grain: Grain) -> u64 {
        // The low 12 bits of the number; a carry out of them is seen as a new run.
        if let Grain::Data(_) = grain { 1 << 48 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    const LAYOUT: SeLayout = SeLayout { tables_sector: 3, grains_sector: 100 };

    #[test]
    fn grain_table_entries() {
        let data = |number: u64| Grain::Data((100 + 8 * number) * 512);
        let cases = [
            (0, Grain::Absent),
            (1, Grain::Invalid),
            (0x0fff_ffff_ffff_ffff, Grain::Invalid),
            (0x1000_0000_0000_0000, Grain::Zero),
            (0x1234_5678_9abc_def0, Grain::Zero),
            (0x2000_0000_0000_0000, Grain::Zero),
            (0x2fff_ffff_ffff_ffff, Grain::Zero),
            (0x3000_0000_0000_0000, data(0)),
            (0x3001_0000_0000_0000, data(1)),
            (0x3fff_0000_0000_0000, data(4095)),
            (0x3000_0000_0000_0001, data(4096)),
            (0x3abc_0000_0000_0012, data(0x12_abc)),
            // Behind what a file can hold.
            (0x3fff_ffff_ffff_ffff, Grain::Invalid),
            (0x4000_0000_0000_0000, Grain::Invalid),
            (u64::MAX, Grain::Invalid),
        ];
        for (entry, expected) in cases {
            assert_eq!(LAYOUT.classify(entry), expected, "{entry:#x}");
        }
    }

    #[test]
    fn directory_entries() {
        let table = |entry| LAYOUT.table(entry, 0).ok();
        assert_eq!(table(0x1000_0000_0000_0000), Some(3 * 512));
        assert_eq!(table(0x1000_0000_0000_0002), Some((3 + 128) * 512));
        assert_eq!(table(0x1000_0000_ffff_ffff), Some((3 + 64 * 0xffff_ffff) * 512));
        assert_eq!(table(1), None);
        assert_eq!(table(0x1000_0001_0000_0000), None);
        assert_eq!(table(0x3000_0000_0000_0000), None);
        let far = SeLayout { tables_sector: u64::MAX, ..LAYOUT };
        assert!(far.table(0x1000_0000_0000_0001, 0).is_err());
    }
}
