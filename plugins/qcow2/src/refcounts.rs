//! qemu's guess whether an image has only its metadata preallocated.
//!
//! If so, qemu asks the host for holes beneath every data cluster; if not, a data cluster is
//! data. The guess compares the clusters that have a refcount with the space that the host has
//! allocated, and every tool that wants to print the same map must make the same one.

use std::sync::Arc;

use instar_core::{Context, Result, SECTOR, Storage, TableReader};

use crate::disk::Header;

/// The offset bits of a refcount table entry (spec, "Refcount table").
const REFBLOCK_OFFSET: u64 = !0x1ff;

/// Whether qemu looks for host holes beneath the data clusters of this image.
pub(crate) fn looks_metadata_preallocated(
    header: &Header,
    storage: &Arc<dyn Storage>,
    context: &Context,
) -> Result<bool> {
    let cluster = header.cluster();
    let clusters = storage.len().next_multiple_of(SECTOR).div_ceil(cluster);
    let allocated = storage.allocated() / cluster;
    let threshold = (allocated.saturating_mul(10) / 9).max(allocated.saturating_add(2));
    if clusters < threshold {
        return Ok(false);
    }
    Counter::new(header, storage, context).reaches(threshold, clusters)
}

struct Counter<'a> {
    header: &'a Header,
    context: &'a Context,
    table: TableReader,
    block: TableReader,
    file_end: u64,
}

impl<'a> Counter<'a> {
    fn new(header: &'a Header, storage: &Arc<dyn Storage>, context: &'a Context) -> Self {
        let reader = |what| TableReader::new(what, Arc::clone(storage), &context.limits);
        Self {
            header,
            context,
            table: reader("refcount table"),
            block: reader("refcount block"),
            file_end: storage.len().next_multiple_of(SECTOR),
        }
    }

    /// Whether at least `threshold` of the first `clusters` clusters have a refcount.
    fn reaches(&mut self, threshold: u64, clusters: u64) -> Result<bool> {
        let cluster = self.header.cluster();
        let per_block = 1 << (self.header.cluster_bits + 3 - self.header.refcount_order);
        let (table_offset, table_size) = self.header.refcount_table;
        // As far as the table and the file go: there may be a million of them.
        let blocks = clusters.div_ceil(per_block).min(table_size / 8);
        let stored = blocks.min(self.file_end.saturating_sub(table_offset) / 8);
        let mut counted = 0;
        for index in 0..stored {
            let wanted = per_block.min(clusters - index * per_block);
            let entry = self.table.bytes(table_offset + index * 8, 8)?;
            let offset =
                entry.first_chunk().map_or(0, |e| u64::from_be_bytes(*e)) & REFBLOCK_OFFSET;
            if offset == 0 {
                continue;
            }
            if offset % cluster != 0 {
                self.context.notices.warn(format!(
                    "the refcount block at {offset:#x} is not aligned to the cluster size {cluster}"
                ))?;
                return Ok(false);
            }
            let bytes = (wanted << self.header.refcount_order).div_ceil(8);
            if offset.saturating_add(bytes) > self.file_end {
                self.outside("refcount block", offset)?;
                continue;
            }
            // Not more than a cluster.
            let block = self.block.bytes(offset, usize::try_from(bytes).unwrap_or(0))?;
            counted += count_used(block, self.header.refcount_order, wanted);
            if counted >= threshold {
                return Ok(true);
            }
        }
        if stored < blocks {
            self.outside("refcount table", table_offset)?;
        }
        Ok(false)
    }

    /// What is outside the file counts as unused, as in qemu, but not silently.
    fn outside(&self, what: &str, at: u64) -> Result<()> {
        self.context.notices.warn(format!("the {what} at {at:#x} is outside the file"))
    }
}

/// How many of the first `wanted` refcounts in `block`, each 2^`order` bits wide, are not 0.
fn count_used(block: &[u8], order: u32, wanted: u64) -> u64 {
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let count = |width: usize| {
        block.chunks_exact(width).take(wanted).filter(|c| c.iter().any(|b| *b != 0)).count() as u64
    };
    match order {
        3 => count(1),
        4 => {
            // The usual width, and up to a million of them: this form is vectorised.
            let pairs = block.chunks_exact(2).take(wanted);
            pairs.map(|pair| u64::from(pair != [0, 0])).sum()
        }
        5 => count(4),
        6 => count(8),
        // Below a byte: the first cluster is in the least significant bits.
        _ => {
            let width = 1_u32 << order;
            let per_byte = 8 >> order;
            let mask = (1_u16 << width) - 1;
            (0..wanted)
                .filter(|i| {
                    let byte = block.get(i / per_byte).copied().unwrap_or(0);
                    let shift = (i % per_byte) << order;
                    (u16::from(byte) >> shift) & mask != 0
                })
                .count() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn every_width_is_counted_and_only_what_is_wanted() {
        for (order, block, wanted, used) in [
            (0, &[0b1000_0001_u8, 0xff][..], 8, 2),
            (0, &[0b1000_0001, 0xff], 9, 3),
            (1, &[0b1100_0001], 4, 2),
            (1, &[0b1100_0001], 3, 1),
            (2, &[0xf0, 0x0f], 4, 2),
            (2, &[0xf0, 0x0f], 1, 0),
            (3, &[1, 0, 2], 3, 2),
            (4, &[0, 1, 0, 0, 1, 0], 3, 2),
            (4, &[0, 1, 0, 0, 1, 0], 2, 1),
            (5, &[0, 0, 0, 1, 0, 0, 0, 0], 2, 1),
            (6, &[1, 0, 0, 0, 0, 0, 0, 0], 1, 1),
        ] {
            assert_eq!(count_used(block, order, wanted), used, "order {order}, {wanted}");
        }
    }
}
