//! Opening hosted (`KDMV`) and ESX (`COWD`) sparse extents, and what their entries mean.

use std::sync::Arc;

use instar_core::{
    Batch, Fields, Flow, Limits, MAX_LENGTH, Notices, Result, SECTOR, Storage, TableReader,
};

use crate::disk::{
    COWD_MAGIC, CowdHeader, FLAG_REDUNDANT, FLAG_ZEROED_GRAIN, FOOTER_LENGTH, HEADER_LENGTH,
    MAX_DIRECTORY_ENTRIES, SPARSE_MAGIC, SparseHeader, ZEROED_GRAIN, decode_footer,
};
use crate::error::{Checked, Error};
use crate::grains::{Directory, Grain, GrainMap, Layout};
use crate::sesparse::{self, SeLayout};

/// The kind of sparse extent that a file's first bytes announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hosted,
    Cowd,
    SeSparse,
}

impl Kind {
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(SPARSE_MAGIC) {
            Some(Self::Hosted)
        } else if head.starts_with(COWD_MAGIC) {
            Some(Self::Cowd)
        } else if head.starts_with(&sesparse::CONST_MAGIC.to_le_bytes()) {
            Some(Self::SeSparse)
        } else {
            None
        }
    }

    /// Bytes of the header up to the end of the last field that is read.
    fn header_length(self) -> usize {
        match self {
            Self::Hosted => SparseHeader::LENGTH,
            Self::Cowd => CowdHeader::LENGTH,
            Self::SeSparse => sesparse::CONST_LENGTH,
        }
    }

    /// The header in `head`, the first sector of a file of `file` bytes.
    ///
    /// # Errors
    /// If the file ends before.
    pub(crate) fn header(self, head: &[u8; HEADER_LENGTH], file: u64) -> Result<Fields<'_>> {
        Fields::stored("header", 0, head, file).require(self.header_length())?;
        Ok(Fields::new("header", 0, head))
    }
}

/// An open sparse extent of any kind.
pub(crate) enum Sparse {
    Hosted(GrainMap<HostedLayout>),
    SeSparse(GrainMap<SeLayout>),
}

impl Sparse {
    /// Opens the extent file `storage`; `None` if it has none of the magics.
    pub(crate) fn open(storage: &Arc<dyn Storage>, limits: &Limits) -> Result<Option<Self>> {
        let Some(head) = head(storage, limits)? else {
            return Ok(None);
        };
        let Some(kind) = Kind::of(&head) else {
            return Ok(None);
        };
        let fields = kind.header(&head, storage.len())?;
        Ok(Some(match kind {
            Kind::Hosted => {
                Self::Hosted(open_hosted(&SparseHeader::decode(&fields)?, storage, limits)?)
            }
            Kind::Cowd => Self::Hosted(open_cowd(&CowdHeader::decode(&fields)?, storage, limits)?),
            Kind::SeSparse => Self::SeSparse(sesparse::open(&fields, storage, limits)?),
        }))
    }

    /// Length of the extent in bytes.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Hosted(grains) => grains.length(),
            Self::SeSparse(grains) => grains.length(),
        }
    }

    /// As [`GrainMap::append`].
    pub(crate) fn append(
        &mut self,
        start: u64,
        file: u32,
        out: &mut Batch,
        notices: &Notices,
    ) -> Result<Flow> {
        match self {
            Self::Hosted(grains) => grains.append(start, file, out, notices),
            Self::SeSparse(grains) => grains.append(start, file, out, notices),
        }
    }

    /// As [`GrainMap::buffered`].
    pub(crate) fn buffered(&self) -> u64 {
        match self {
            Self::Hosted(grains) => grains.buffered(),
            Self::SeSparse(grains) => grains.buffered(),
        }
    }

    /// As [`GrainMap::remembered`].
    pub(crate) fn remembered(&self) -> u64 {
        match self {
            Self::Hosted(grains) => grains.remembered(),
            Self::SeSparse(grains) => grains.remembered(),
        }
    }

    /// As [`GrainMap::rest`].
    pub(crate) fn rest(&mut self) {
        match self {
            Self::Hosted(grains) => grains.rest(),
            Self::SeSparse(grains) => grains.rest(),
        }
    }

    /// As [`GrainMap::release`].
    pub(crate) fn release(&mut self) {
        match self {
            Self::Hosted(grains) => grains.release(),
            Self::SeSparse(grains) => grains.release(),
        }
    }
}

/// The file's first sector, unless the file is empty.
pub(crate) fn head(
    storage: &Arc<dyn Storage>,
    limits: &Limits,
) -> Result<Option<[u8; HEADER_LENGTH]>> {
    if storage.is_empty() {
        return Ok(None);
    }
    let mut reader = TableReader::new("header", Arc::clone(storage), limits);
    Ok(reader.bytes(0, HEADER_LENGTH)?.first_chunk().copied())
}

/// Opens a hosted sparse extent whose first sector is `first`.
pub(crate) fn open_hosted(
    first: &SparseHeader,
    storage: &Arc<dyn Storage>,
    limits: &Limits,
) -> Result<GrainMap<HostedLayout>> {
    let footer = match first.directory_sector {
        Some(_) => None,
        None => Some(read_footer(first, storage, limits)?),
    };
    let header = footer.as_ref().unwrap_or(first);
    let geometry = header.geometry()?;
    let field = |offset: u64| header.at.saturating_add(offset);
    let length = storage.len();
    if length.div_ceil(SECTOR) < header.overhead_sectors {
        let overhead = header.overhead_sectors;
        return Err(Error::Truncated { length, overhead, at: field(SparseHeader::OVERHEAD) }.into());
    }
    let Some(directory_sector) = header.directory_sector else {
        return Err(Error::FooterInFooter { at: field(SparseHeader::DIRECTORY) }.into());
    };
    let entries = geometry.directory_entries();
    let at = field(SparseHeader::DIRECTORY);
    let directory = directory::<HostedLayout>(directory_sector, entries, length, at)?;
    let redundant = header.redundant_directory_sector;
    // It is never read. qemu refuses the same ones, after dropping the bits above 2^64.
    if header.flags & FLAG_REDUNDANT != 0 && redundant.wrapping_mul(SECTOR) > MAX_LENGTH {
        let at = field(SparseHeader::REDUNDANT_DIRECTORY);
        return Err(Error::RedundantDirectory { sector: redundant, at }.into());
    }
    let layout = HostedLayout {
        grain_sectors: header.grain_sectors,
        zeroed_grains: header.flags & FLAG_ZEROED_GRAIN != 0,
        compressed: header.compressed,
    };
    Ok(GrainMap::new(layout, geometry, directory, Arc::clone(storage), limits))
}

fn read_footer(
    first: &SparseHeader,
    storage: &Arc<dyn Storage>,
    limits: &Limits,
) -> Result<SparseHeader> {
    let length = storage.len();
    let at = length
        .next_multiple_of(SECTOR)
        .checked_sub(FOOTER_LENGTH as u64)
        .ok_or(Error::NoFooter { length, at: first.at.saturating_add(SparseHeader::DIRECTORY) })?;
    let mut reader = TableReader::new("footer", Arc::clone(storage), limits);
    reader.decode(at, FOOTER_LENGTH, |fields| decode_footer(&fields))
}

/// Opens an ESX sparse extent. Its directory may be too short: an error where that matters.
pub(crate) fn open_cowd(
    header: &CowdHeader,
    storage: &Arc<dyn Storage>,
    limits: &Limits,
) -> Result<GrainMap<HostedLayout>> {
    let geometry = header.geometry()?;
    let entries = header.directory_entries.into();
    check_directory_size(entries, CowdHeader::DIRECTORY_ENTRIES)?;
    let entries = geometry.directory_entries().min(entries);
    let sector = header.directory_sector.into();
    let at = CowdHeader::DIRECTORY;
    let directory = directory::<HostedLayout>(sector, entries, storage.len(), at)?;
    let layout = HostedLayout {
        grain_sectors: header.grain_sectors.into(),
        zeroed_grains: false,
        compressed: false,
    };
    Ok(GrainMap::new(layout, geometry, directory, Arc::clone(storage), limits))
}

/// Refuses a directory that the header, at file offset `at`, says to be larger than any may be.
pub(crate) fn check_directory_size(entries: u64, at: u64) -> Checked<()> {
    if entries > MAX_DIRECTORY_ENTRIES {
        return Err(Error::DirectorySize { entries, allowed: MAX_DIRECTORY_ENTRIES, at });
    }
    Ok(())
}

/// The directory of `entries` entries at `sector`, if all of it is inside the file of `file`
/// bytes. `at` is where the header says so.
pub(crate) fn directory<L: Layout>(
    sector: u64,
    entries: u64,
    file: u64,
    at: u64,
) -> Checked<Directory> {
    // The number of entries is limited: no overflow.
    let length = entries * L::WIDTH;
    let outside = Error::DirectoryOutside { sector, length, file, at };
    let start = sector.checked_mul(SECTOR);
    match start.and_then(|start| Some((start, start.checked_add(length)?))) {
        Some((at, end)) if end <= file.next_multiple_of(SECTOR) => Ok(Directory { at, entries }),
        // Nothing to be read, so wherever it would be is as good as anywhere.
        Some((at, _)) if entries == 0 => Ok(Directory { at, entries }),
        _ => Err(outside),
    }
}

/// Entries of 32 bits that are sector numbers: `KDMV` and `COWD`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostedLayout {
    grain_sectors: u64,
    /// Whether [`ZEROED_GRAIN`] is a mark and not a sector.
    zeroed_grains: bool,
    /// Whether all grains are deflated.
    compressed: bool,
}

impl Layout for HostedLayout {
    const WIDTH: u64 = 4;
    const KIND: u64 = 0;

    #[inline]
    fn decode(bytes: &[u8]) -> u64 {
        bytes.first_chunk().map_or(0, |entry| u32::from_le_bytes(*entry).into())
    }

    fn table(&self, entry: u64, _: u64) -> Checked<u64> {
        // Entries have 32 bits.
        Ok(entry.saturating_mul(SECTOR))
    }

    #[inline]
    fn classify(&self, entry: u64) -> Grain {
        const ZEROED: u64 = ZEROED_GRAIN as u64;
        match entry {
            0 => Grain::Absent,
            ZEROED if self.zeroed_grains => Grain::Zero,
            _ if self.compressed => Grain::Compressed,
            sector => Grain::Data(sector.saturating_mul(SECTOR)),
        }
    }

    #[inline]
    fn step(&self, grain: Grain) -> u64 {
        if let Grain::Data(_) = grain { self.grain_sectors } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn hosted_entries() {
        let cases = [
            // entry, zeroed grains, compressed
            (0, false, false, Grain::Absent),
            (0, true, true, Grain::Absent),
            (1, true, false, Grain::Zero),
            (1, true, true, Grain::Zero),
            (1, false, false, Grain::Data(512)),
            (1, false, true, Grain::Compressed),
            (2, true, false, Grain::Data(1024)),
            (2, true, true, Grain::Compressed),
            (0xffff_ffff, false, false, Grain::Data(0x1ff_ffff_fe00)),
        ];
        for (entry, zeroed_grains, compressed, expected) in cases {
            let layout = HostedLayout { grain_sectors: 8, zeroed_grains, compressed };
            assert_eq!(layout.classify(entry), expected, "{entry} {layout:?}");
        }
        assert_eq!(HostedLayout::decode(&[1, 2, 0, 0x80]), 0x8000_0201);
    }

    #[test]
    fn kinds_by_magic() {
        assert_eq!(Kind::of(b"KDMV\x01"), Some(Kind::Hosted));
        assert_eq!(Kind::of(b"COWD"), Some(Kind::Cowd));
        assert_eq!(Kind::of(b"\xbe\xba\xfe\xca\0\0\0\0"), Some(Kind::SeSparse));
        assert_eq!(Kind::of(b"\xbe\xba\xfe\xca\0\0\0\x01"), None);
        assert_eq!(Kind::of(b"VMDK"), None);
    }
}
