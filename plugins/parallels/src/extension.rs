//! The format extension (specification, "Parallels Disk Image Format Extension"): a cluster with a
//! list of features. The only known one is a dirty bitmap, which does not change the map; what is
//! checked is that all features are known and sound, as a reader that goes on past an unknown or
//! broken one cannot know what it would have said.

use std::sync::Arc;

use instar_core::{ErrorKind, Fields, Limits, Result, SECTOR, Storage, TableReader};

use crate::disk::Header;
use crate::error::Error;

/// The largest cluster that may hold an extension, in bytes (instar's own limit): all of it is
/// read, for its checksum.
const MAX_CLUSTER: u64 = 64 << 20;

/// Bytes of it that are read at a time.
const WINDOW: u64 = 1 << 20;

pub(crate) const MAGIC: u64 = 0xab23_4cef_23dc_ea87;

/// Bytes of magic and checksum, which is over the rest of the cluster.
pub(crate) const HEAD: usize = 24;

/// Bytes of a feature's header: magic, flags, size of its data, and four without a meaning.
const FEATURE: usize = 24;

/// The magic that ends the list.
const END: u64 = 0;

const DIRTY_BITMAP: u64 = 0x2038_5fae_252c_b34a;

/// Bytes of a bitmap's data before its table: sectors of the disk, id, granularity, entries.
const BITMAP: usize = 32;

/// Bytes of an entry of the bitmap's table.
const TABLE_ENTRY: u64 = 8;

/// The largest granularity in sectors: qemu has it in bytes, as 32 bits.
const MAX_GRANULARITY: u32 = 1 << 22;

/// The cluster with the extension.
struct Extension {
    reader: TableReader,
    /// File offset.
    at: u64,
    /// In bytes.
    length: u64,
}

/// Checks the format extension that `header` has.
pub(crate) fn check(header: &Header, storage: &Arc<dyn Storage>, limits: &Limits) -> Result<()> {
    let (sector, length) = (header.extension, header.cluster());
    Limits::check("the cluster of the format extension in bytes", length, MAX_CLUSTER)?;
    let file = storage.len();
    let at = sector
        .checked_mul(SECTOR)
        .filter(|at| at.checked_add(length).is_some_and(|end| end <= file.next_multiple_of(SECTOR)))
        .ok_or(Error::ExtensionOutside { sector, file })?;
    let reader = TableReader::new("format extension", Arc::clone(storage), limits);
    let mut extension = Extension { reader, at, length };
    extension.check_sum(WINDOW.min(limits.table_window).max(1)).map_err(|error| {
        // The zeros past the end of the file are not the extension's.
        let is_cut = error.kind() == ErrorKind::Corrupt && at.saturating_add(length) > file;
        if is_cut { Error::ExtensionCut { file, needed: at + length, at }.into() } else { error }
    })?;
    extension.check_features(header)
}

impl Extension {
    /// `length` bytes at `skip`, which are inside the file.
    fn fields(&mut self, what: &'static str, skip: u64, length: usize) -> Result<Fields<'_>> {
        let at = self.at + skip;
        Ok(Fields::new(what, at, self.reader.bytes(at, length)?))
    }

    fn check_sum(&mut self, window: u64) -> Result<()> {
        let at = self.at;
        let head = self.fields("format extension", 0, HEAD)?;
        let found = head.le64(0)?;
        if found != MAGIC {
            return Err(Error::ExtensionMagic { found, at }.into());
        }
        let stored = head.array(8)?;
        let mut sum = md5::Context::new();
        let mut skip = HEAD as u64;
        while skip < self.length {
            let count = window.min(self.length - skip);
            // Not more than a window.
            sum.consume(self.reader.bytes(at + skip, usize::try_from(count).unwrap_or(0))?);
            skip += count;
        }
        let computed = sum.finalize().0;
        if stored != computed {
            return Err(Error::ExtensionChecksum { stored, computed, at }.into());
        }
        Ok(())
    }

    /// Goes through the features, each at least as long as its header.
    fn check_features(&mut self, header: &Header) -> Result<()> {
        let mut skip = HEAD as u64;
        loop {
            let at = self.at + skip;
            let data = skip + FEATURE as u64;
            let Some(room) = self.length.checked_sub(data) else {
                return Err(Error::FeaturesEndless { at }.into());
            };
            let feature = self.fields("feature", skip, FEATURE)?;
            let (magic, flags, size) = (feature.le64(0)?, feature.le64(8)?, feature.le32(16)?);
            if flags != 0 {
                return Err(Error::FeatureFlags { magic, flags, at }.into());
            }
            if u64::from(size) > room {
                return Err(Error::FeatureTooLarge { magic, size, room, at }.into());
            }
            match magic {
                END => return Ok(()),
                DIRTY_BITMAP => self.check_bitmap(header, data, size.into())?,
                _ => return Err(Error::FeatureUnknown { magic, at }.into()),
            }
            skip = data + u64::from(size).next_multiple_of(8);
        }
    }

    /// A dirty bitmap, whose `size` bytes of data are at `skip`.
    fn check_bitmap(&mut self, header: &Header, skip: u64, size: u64) -> Result<()> {
        let at = self.at + skip;
        let Some(room) = size.checked_sub(BITMAP as u64) else {
            return Err(Error::BitmapTooSmall { size, needed: BITMAP as u64, at }.into());
        };
        let bitmap = self.fields("dirty bitmap", skip, BITMAP)?;
        let (sectors, disk) = (bitmap.le64(0)?, header.sectors);
        if sectors != disk {
            return Err(Error::BitmapSectors { bitmap: sectors, disk, at }.into());
        }
        let (granularity, entries) = (bitmap.le32(24)?, bitmap.le32(28)?);
        if !granularity.is_power_of_two() || granularity > MAX_GRANULARITY {
            let (sectors, allowed) = (granularity, MAX_GRANULARITY);
            return Err(Error::BitmapGranularity { sectors, allowed, at }.into());
        }
        let needed = u64::from(entries) * TABLE_ENTRY;
        if needed > room {
            let needed = needed + BITMAP as u64;
            return Err(Error::BitmapTooSmall { size, needed, at }.into());
        }
        // One bit for each granule, one entry for each cluster of bits: at most 2^22 × 2^34 sectors.
        let covered = u64::from(granularity) * header.cluster() * 8;
        let expected = disk.div_ceil(covered);
        if u64::from(entries) != expected {
            return Err(Error::BitmapTable { entries, expected, at }.into());
        }
        Ok(())
    }
}
