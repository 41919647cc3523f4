//! The on-disk structures, decoded into native types.

use std::ops::RangeInclusive;

use instar_core::{Fields, Result, SECTOR};

use crate::error::Error;

/// Bytes of the header; the block allocation table follows it.
pub(crate) const HEADER_BYTES: usize = 64;

/// Bytes of an entry of the block allocation table.
pub(crate) const ENTRY: usize = 4;

/// The largest cluster that qemu opens, in sectors.
const MAX_CLUSTER: u32 = 4_186_127;

/// The most entries that qemu opens: a table just below 2 GiB.
const MAX_ENTRIES: u32 = 0x1fff_ffff;

/// Which of the two kinds it is (specification, "Header": magic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `WithoutFreeSpace`: entries and the disk's size are sectors, in 32 bits.
    Old,
    /// `WithouFreSpacExt`: entries are clusters, the disk's size has 64 bits.
    Extended,
}

impl Kind {
    const OLD: [u8; 16] = *b"WithoutFreeSpace";
    const EXTENDED: [u8; 16] = *b"WithouFreSpacExt";

    fn of(magic: [u8; 16]) -> Option<Self> {
        match magic {
            Self::OLD => Some(Self::Old),
            Self::EXTENDED => Some(Self::Extended),
            _ => None,
        }
    }
}

/// The header (specification, "Header").
///
/// Not kept: heads, cylinders and flags, which change nothing about the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Which kind it is.
    pub(crate) kind: Kind,
    /// Sectors of a cluster: 1 to 4186127.
    pub(crate) cluster_sectors: u32,
    /// Entries of the block allocation table.
    pub(crate) entries: u32,
    /// Sectors of the disk.
    pub(crate) sectors: u64,
    /// Whether the image was not closed by whoever wrote it last.
    pub(crate) is_in_use: bool,
    /// The sector of the file where data starts; 0 if it is to be computed.
    pub(crate) data_start: u32,
    /// The sector of the file where the format extension is; 0 if there is none.
    pub(crate) extension: u64,
}

impl Header {
    const VERSION: u32 = 2;
    /// Where the version ends, in bytes.
    const VERSION_END: usize = 20;
    /// What "in use" is while the image is open for writing.
    const IN_USE: u32 = 0x746f_6e59;

    /// How files of this format start: a magic with version 2, without which qemu takes them for
    /// raw.
    pub(crate) const STARTS: [&[u8]; 2] =
        [b"WithoutFreeSpace\x02\0\0\0", b"WithouFreSpacExt\x02\0\0\0"];

    /// Whether a file that starts with `head` has a magic, but ends before its version does.
    pub(crate) fn is_cut_at(head: &[u8]) -> bool {
        head.len() < Self::VERSION_END
            && head.first_chunk().is_some_and(|magic| Kind::of(*magic).is_some())
    }

    /// Decodes the header and checks what needs no look elsewhere.
    pub(crate) fn decode(fields: Fields<'_>) -> Result<Self> {
        let magic = fields.array(0)?;
        let kind = Kind::of(magic).ok_or(Error::Magic { found: magic })?;
        let version = fields.le32(16)?;
        if version != Self::VERSION {
            return Err(Error::Version { version }.into());
        }
        fields.require(HEADER_BYTES)?;
        let cluster_sectors = fields.le32(28)?;
        if !(1..=MAX_CLUSTER).contains(&cluster_sectors) {
            return Err(Error::Cluster { sectors: cluster_sectors, allowed: MAX_CLUSTER }.into());
        }
        let entries = fields.le32(32)?;
        if entries > MAX_ENTRIES {
            return Err(Error::TableTooLarge { entries, allowed: MAX_ENTRIES }.into());
        }
        let sectors = match kind {
            Kind::Old => fields.le32(36)?.into(),
            Kind::Extended => fields.le64(36)?,
        };
        Ok(Self {
            kind,
            cluster_sectors,
            entries,
            sectors,
            is_in_use: fields.le32(44)? == Self::IN_USE,
            data_start: fields.le32(48)?,
            extension: fields.le64(56)?,
        })
    }

    /// Bytes of a cluster: below 2^31.
    pub(crate) fn cluster(&self) -> u64 {
        u64::from(self.cluster_sectors) * SECTOR
    }

    /// File offset just behind the block allocation table: at most 2^31 + 60.
    pub(crate) fn table_end(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.entries) * ENTRY as u64
    }

    /// Entries that the disk needs.
    pub(crate) fn needed_entries(&self) -> u64 {
        self.sectors.div_ceil(self.cluster_sectors.into())
    }

    /// Whether the table has an entry for each cluster of the disk.
    pub(crate) fn covers_disk(&self) -> bool {
        u64::from(self.entries) >= self.needed_entries()
    }

    /// Sectors that an entry counts in.
    fn entry_sectors(&self) -> u64 {
        match self.kind {
            Kind::Old => 1,
            Kind::Extended => self.cluster_sectors.into(),
        }
    }

    /// The sector where data starts in a file of `file` sectors: what the header says, if that is
    /// in the file and behind the table; else the first that may hold data.
    fn first_data_sector(&self, file: u64) -> u64 {
        // Clusters of the extended kind are aligned in the file.
        let first = self.table_end().div_ceil(SECTOR).next_multiple_of(self.entry_sectors());
        let said = u64::from(self.data_start);
        if (first..=file).contains(&said) { said } else { first }
    }

    /// The entries that lead to a whole cluster inside the data of a file of `file` sectors.
    pub(crate) fn entries_inside(&self, file: u64) -> RangeInclusive<u32> {
        let unit = self.entry_sectors();
        let first = self.first_data_sector(file).div_ceil(unit).max(1);
        let last = file.checked_sub(self.cluster_sectors.into()).map_or(0, |last| last / unit);
        // Where data starts is a number of 32 bits, or behind a table of less than 2^23 sectors;
        // where it ends need not be.
        let entry = |number| u32::try_from(number).unwrap_or(u32::MAX);
        entry(first)..=entry(last)
    }

    /// How entries are to be read if those in `stored` lead to a cluster.
    pub(crate) fn clusters(&self, stored: RangeInclusive<u32>) -> Clusters {
        let step = match self.kind {
            Kind::Old => self.cluster_sectors,
            Kind::Extended => 1,
        };
        Clusters { size: self.cluster(), unit: self.entry_sectors() * SECTOR, step, stored }
    }
}

/// Every entry but 0, which always is a cluster that is not stored.
pub(crate) const ALL: RangeInclusive<u32> = 1..=u32::MAX;

/// Where the clusters of the disk are in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clusters {
    /// Bytes of a cluster, below 2^31.
    pub(crate) size: u64,
    /// Bytes that an entry counts in: a sector or a cluster.
    unit: u64,
    /// How much larger the entry of the next cluster in the file is.
    pub(crate) step: u32,
    /// The entries of clusters that are in the file.
    stored: RangeInclusive<u32>,
}

impl Clusters {
    /// Whether an entry leads to a cluster.
    #[inline]
    pub(crate) fn is_stored(&self, entry: u32) -> bool {
        self.stored.contains(&entry)
    }

    /// File offset, in bytes, of the end of entry number `index`.
    #[cold]
    pub(crate) fn entry_end(&self, index: u64) -> u64 {
        (HEADER_BYTES as u64).saturating_add(index.saturating_add(1).saturating_mul(ENTRY as u64))
    }

    /// The error for entry number `index`, which is `entry` and leads to no cluster of the file.
    #[cold]
    pub(crate) fn outside(&self, index: u64, entry: u32) -> Error {
        let at = (HEADER_BYTES as u64).saturating_add(index.saturating_mul(ENTRY as u64));
        let (first, last) = (*self.stored.start(), *self.stored.end());
        Error::EntryOutside { index, entry, first, last, at }
    }

    /// File offset, in bytes, of the cluster that an entry leads to: below 2^63.
    #[inline]
    pub(crate) fn data_at(&self, entry: u32) -> u64 {
        u64::from(entry) * self.unit
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn header(kind: Kind, data_start: u32) -> Header {
        Header {
            kind,
            cluster_sectors: 8,
            entries: 300,
            sectors: 2400,
            is_in_use: false,
            data_start,
            extension: 0,
        }
    }

    #[test]
    fn data_starts_where_the_header_says_or_behind_the_table() {
        // The table ends at byte 1264, in the third sector.
        for (kind, said, start) in [
            (Kind::Old, 0, 3),
            (Kind::Old, 2, 3),
            (Kind::Old, 3, 3),
            (Kind::Old, 9, 9),
            (Kind::Old, 100, 100),
            (Kind::Old, 101, 3),
            (Kind::Extended, 0, 8),
            (Kind::Extended, 7, 8),
            (Kind::Extended, 9, 9),
            (Kind::Extended, 101, 8),
        ] {
            assert_eq!(header(kind, said).first_data_sector(100), start, "{kind:?} {said}");
        }
    }

    #[test]
    fn an_entry_counts_if_its_whole_cluster_is_inside() {
        for (kind, said, file, inside) in [
            (Kind::Old, 0, 100, (3, 92)),
            (Kind::Old, 9, 100, (9, 92)),
            (Kind::Extended, 0, 103, (1, 11)),
            (Kind::Extended, 0, 104, (1, 12)),
            (Kind::Extended, 9, 104, (2, 12)),
            // None.
            (Kind::Old, 0, 7, (3, 0)),
        ] {
            let found = header(kind, said).entries_inside(file).into_inner();
            assert_eq!(found, inside, "{kind:?} {said} {file}");
        }
        let all = header(Kind::Old, 0).entries_inside(1 << 40);
        assert_eq!(all, 3..=u32::MAX);
        let late = header(Kind::Old, u32::MAX).entries_inside(1 << 40);
        assert_eq!(late, u32::MAX..=u32::MAX);
    }

    #[test]
    fn the_largest_entry_of_the_largest_cluster_fits() {
        let largest = Header { cluster_sectors: MAX_CLUSTER, ..header(Kind::Extended, 0) };
        assert!(largest.clusters(ALL).data_at(u32::MAX) < 1 << 63);
    }
}
