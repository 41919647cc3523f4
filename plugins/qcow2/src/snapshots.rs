//! The snapshot table (spec, "Snapshots"). Snapshots do not change the map of the active disk;
//! the table must merely be readable.

use std::sync::Arc;

use instar_core::{Fields, Limits, Result, Storage, TableReader};

use crate::error::Error;

/// Bytes of an entry before its extra data, id and name.
pub(crate) const ENTRY: usize = 40;
/// qemu's limits, in bytes: extra data of an entry, and the whole table.
const MAX_EXTRA: u32 = 1024;
const MAX_TABLE: u64 = 64 << 20;

/// Checks the `count` entries of the snapshot table at byte `offset`.
pub(crate) fn check(
    (offset, count): (u64, u32),
    storage: &Arc<dyn Storage>,
    limits: &Limits,
) -> Result<()> {
    let mut table = TableReader::new("snapshot table", Arc::clone(storage), limits);
    let mut at = offset;
    for index in 0..count {
        let length = |entry: Fields<'_>| {
            let (id, name) = (entry.be16(12)?, entry.be16(14)?);
            let extra = entry.be32(36)?;
            if extra > MAX_EXTRA {
                return Err(instar_core::Error::from(Error::SnapshotExtra { index, extra }).at(at));
            }
            Ok(ENTRY as u64 + u64::from(extra) + u64::from(id) + u64::from(name))
        };
        let length = table.decode(at, ENTRY, length)?;
        at = at.saturating_add(length.next_multiple_of(8));
        if at.saturating_sub(offset) > MAX_TABLE {
            return Err(Error::SnapshotTable { index }.into());
        }
    }
    Ok(())
}
