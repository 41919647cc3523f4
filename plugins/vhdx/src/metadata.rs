//! The metadata region: what kind of disk the file holds.

use std::sync::Arc;

use instar_core::{Context, Fields, Limits, Result, SECTOR, Storage, TableReader};

use crate::disk::{
    FILE_PARAMETERS, FileParameters, Item, LOGICAL_SECTOR_SIZE, MAX_ITEM, METADATA_TABLE_SIZE,
    PARENT_LOCATOR, PHYSICAL_SECTOR_SIZE, Region, VIRTUAL_DISK_ID, VIRTUAL_DISK_SIZE,
    metadata_table,
};
use crate::error::Error;
use crate::guid::Guid;
use crate::layout::MAX_VIRTUAL_SIZE;
use crate::locator::ParentLocator;

/// The items of §2.6.2, checked.
#[derive(Debug)]
pub(crate) struct Metadata {
    /// Bytes of a payload block: a power of two from 1 MiB to 256 MiB.
    pub(crate) block_size: u32,
    /// Bytes of a sector that a sector bitmap counts: 512 or 4096.
    pub(crate) logical_sector_size: u32,
    /// Bytes of the disk, a whole number of 512-byte sectors, at most 64 TiB.
    pub(crate) virtual_size: u64,
    /// The identity of the disk. It stays when the disk is forked or moved.
    pub(crate) virtual_disk_id: Guid,
    /// Where the parent is, if the disk is a differencing one.
    pub(crate) parent: Option<ParentLocator>,
}

impl Metadata {
    /// Reads the table and the items.
    pub(crate) fn read(
        storage: &Arc<dyn Storage>,
        region: &Region,
        context: &Context,
    ) -> Result<Self> {
        let mut items = Items::read(storage, region, context)?;

        let FileParameters { block_size, has_parent } =
            items.decode(FILE_PARAMETERS, "file parameters", 8, FileParameters::decode)?;

        let logical_sector_size = |fields: Fields<'_>| {
            let (at, size) = (fields.offset_of(0), fields.le32(0)?);
            match is_sector_size(size) {
                true => Ok(size),
                false => Err(Error::LogicalSectorSize { at, size }.into()),
            }
        };
        let logical_sector_size =
            items.decode(LOGICAL_SECTOR_SIZE, "logical sector size", 4, logical_sector_size)?;

        let physical = |fields: Fields<'_>| fields.le32(0);
        let physical = items.decode(PHYSICAL_SECTOR_SIZE, "physical sector size", 4, physical)?;
        if !is_sector_size(physical) {
            // A hint to the guest; nothing in the map depends on it.
            let text = format!("the physical sector size is {physical}, not 512 or 4096");
            context.notices.warn(text)?;
        }

        let id = |fields: Fields<'_>| Ok(Guid::from_bytes(fields.array(0)?));
        let virtual_disk_id = items.decode(VIRTUAL_DISK_ID, "virtual disk id", 16, id)?;

        let size = |fields: Fields<'_>| {
            let (at, size) = (fields.offset_of(0), fields.le64(0)?);
            match size {
                0..=MAX_VIRTUAL_SIZE => Ok(size),
                _ => Err(Error::VirtualSize { at, size }.into()),
            }
        };
        let size = items.decode(VIRTUAL_DISK_SIZE, "virtual size", 8, size)?;
        if size % u64::from(logical_sector_size) != 0 {
            let text = format!(
                "the virtual size of {size} bytes is not a multiple of the logical sector \
                 size of {logical_sector_size}"
            );
            context.notices.warn(text)?;
        }
        // As qemu has it: what does not fill a sector is not part of the disk.
        let virtual_size = size - size % SECTOR;

        let parent = match (has_parent, items.find(PARENT_LOCATOR)) {
            (false, None) => None,
            (false, Some(_)) => {
                let text = "there is a parent locator, but the disk has no parent";
                context.notices.warn(text)?;
                None
            }
            (true, None) => return Err(Error::LocatorMissing.into()),
            (true, Some(item)) => {
                let what = "the parent locator in bytes";
                Limits::check(what, item.length.into(), context.limits.description)?;
                let locator = |fields: Fields<'_>| {
                    fields.require(item.length.try_into().unwrap_or(usize::MAX))?;
                    ParentLocator::decode(fields, &context.notices)
                };
                Some(items.decode(PARENT_LOCATOR, "parent locator", 0, locator)?)
            }
        };
        Ok(Self { block_size, logical_sector_size, virtual_size, virtual_disk_id, parent })
    }
}

/// Whether the specification allows a sector of `size` bytes (§2.6.2.4, §2.6.2.5).
fn is_sector_size(size: u32) -> bool {
    matches!(size, 512 | 4096)
}

/// The metadata table, and the bytes that it points to.
struct Items {
    reader: TableReader,
    region: Region,
    table: Vec<Item>,
}

impl Items {
    fn read(storage: &Arc<dyn Storage>, region: &Region, context: &Context) -> Result<Self> {
        let mut reader = TableReader::new("metadata", Arc::clone(storage), &context.limits);
        let table = reader.decode(region.offset, METADATA_TABLE_SIZE, metadata_table)?;
        let mut keys: Vec<_> = table.iter().map(|i| (i.guid, i.is_user, i.entry_at)).collect();
        keys.sort_unstable();
        for (one, next) in keys.iter().zip(keys.iter().skip(1)) {
            if (one.0, one.1) == (next.0, next.1) {
                return Err(Error::ItemTwice { at: next.2, guid: next.0 }.into());
            }
        }
        for item in &table {
            if item.is_required && !is_known(item) {
                return Err(Error::ItemUnknown { at: item.entry_at, guid: item.guid }.into());
            }
        }
        Ok(Self { reader, region: *region, table })
    }

    fn find(&self, guid: Guid) -> Option<Item> {
        self.table.iter().find(|item| item.guid == guid && !item.is_user).copied()
    }

    /// Decodes an item, of which there must be at least `least` bytes.
    fn decode<T>(
        &mut self,
        guid: Guid,
        name: &'static str,
        least: u32,
        decode: impl Fn(Fields<'_>) -> Result<T>,
    ) -> Result<T> {
        let item = self.find(guid).ok_or(Error::ItemMissing { name })?;
        let Item { offset, length, entry_at, .. } = item;
        let Region { offset: start, length: region, .. } = self.region;
        let inside = offset.checked_add(length).is_some_and(|end| end <= region);
        let behind_table = u64::from(offset) >= METADATA_TABLE_SIZE as u64;
        if !inside || !behind_table || u64::from(length) > MAX_ITEM || length < least {
            let at = entry_at.saturating_add(16);
            return Err(Error::ItemPlacement { at, name, offset, length, region }.into());
        }
        let at = start.saturating_add(offset.into());
        let file = self.reader.storage().len();
        let bytes = self.reader.bytes(at, usize::try_from(length).unwrap_or(usize::MAX))?;
        Fields::decode(name, at, bytes, file, decode)
    }
}

/// Whether this plugin knows what an item means. All known ones are system metadata.
fn is_known(item: &Item) -> bool {
    let known = [
        FILE_PARAMETERS,
        VIRTUAL_DISK_SIZE,
        VIRTUAL_DISK_ID,
        LOGICAL_SECTOR_SIZE,
        PHYSICAL_SECTOR_SIZE,
        PARENT_LOCATOR,
    ];
    !item.is_user && known.contains(&item.guid)
}
