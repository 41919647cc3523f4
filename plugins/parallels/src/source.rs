//! The block allocation table as extents.

use std::sync::Arc;

use instar_core::{
    Batch, Context, Error as CoreError, ExtentSource, Fields, Flow, Image, ImageFile, Place,
    QemuVersion, Result, SECTOR, Status, TableReader, read_padded,
};

use crate::disk::{ALL, Clusters, ENTRY, HEADER_BYTES, Header};
use crate::error::Error;
use crate::extension;

/// Entries of the table in memory at a time (instar's own limit): 1 MiB.
const WINDOW: u64 = 1 << 18;

/// From this version on (nothing between 10.0 and 11.1 was looked at), qemu refuses tables that are
/// too small for the disk and takes entries that lead out of the data for empty ones. The latter are
/// an error here: a truncated image is not an empty disk.
const CHECKS_ENTRIES: QemuVersion = QemuVersion::new(11, 1);

/// An open Parallels image as a map of its disk.
pub(crate) struct ParallelsSource {
    header: Header,
    clusters: Clusters,
    table: TableReader,
    /// Entries of one window.
    window: u64,
    files: [ImageFile; 1],
}

impl ParallelsSource {
    /// Reads and checks header and format extension.
    pub(crate) fn open(image: &Image<'_>) -> Result<Self> {
        let storage = &image.storage;
        let mut bytes = [0; HEADER_BYTES];
        read_padded(storage.as_ref(), 0, &mut bytes)
            .map_err(|error| CoreError::io("cannot read the header", error).at(0))?;
        let header = Fields::decode("header", 0, &bytes, storage.len(), Header::decode)?;
        let Context { qemu, limits, notices, .. } = image.context.as_ref();
        let checks_entries = *qemu >= CHECKS_ENTRIES;
        let (entries, needed) = (header.entries, header.needed_entries());
        if checks_entries && !header.covers_disk() {
            return Err(Error::TableTooSmall { entries, needed }.into());
        }
        let file = storage.len();
        let file_sectors = file.div_ceil(SECTOR);
        if header.table_end().div_ceil(SECTOR) > file_sectors {
            return Err(Error::TableOutside { entries, file }.into());
        }
        if header.extension != 0 {
            extension::check(&header, storage, limits)?;
        }
        if header.is_in_use {
            notices
                .warn("the image is marked as in use: it was not closed, or is being written to")?;
        }
        let stored = if checks_entries { header.entries_inside(file_sectors) } else { ALL };
        Ok(Self {
            clusters: header.clusters(stored),
            header,
            table: TableReader::new("block allocation table", Arc::clone(storage), limits),
            window: WINDOW.min(limits.table_window / ENTRY as u64).max(1),
            files: [image.file()],
        })
    }
}

impl ExtentSource for ParallelsSource {
    fn virtual_size(&self) -> u64 {
        self.header.sectors.saturating_mul(SECTOR)
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn buffered(&self) -> u64 {
        self.table.buffered()
    }

    fn release(&mut self) {
        self.table.release();
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let cluster = self.clusters.size;
        while out.cursor() < out.end() {
            let first = out.cursor() / cluster;
            // Up to a border of windows, not a window's worth: what is left of it when the batch
            // is full is then still at hand for the next one.
            let border = (first / self.window + 1) * self.window;
            let last = out.end().div_ceil(cluster).min(border).min(self.header.entries.into());
            let Some(count) = last.checked_sub(first).filter(|count| *count > 0) else {
                // A table that is too small for the disk.
                let _: Flow = out.push(out.end() - out.cursor(), Status::Absent);
                break;
            };
            // In the file, so there is no overflow; and not more than a window.
            let at = HEADER_BYTES as u64 + first * ENTRY as u64;
            let length = usize::try_from(count * ENTRY as u64).unwrap_or(0);
            match append(&self.clusters, self.table.bytes(at, length)?, out) {
                Ok(Flow::More) => {}
                Ok(Flow::Stop) => break,
                Err(entry) => {
                    let index = out.cursor() / cluster;
                    let file = self.table.storage().len();
                    // What is not in the file is not blamed.
                    return Err(match self.clusters.entry_end(index) <= file {
                        true => self.clusters.outside(index, entry).into(),
                        false => {
                            let entries = self.header.entries;
                            Error::TableOutside { entries, file }.into()
                        }
                    });
                }
            }
        }
        Ok(())
    }
}

/// Appends the clusters that these entries describe; the cursor is in the first one. Stops before
/// an entry that leads out of the data, which it returns as the error.
// By itself, so that what the loop needs stays in registers.
#[inline(never)]
fn append(clusters: &Clusters, entries: &[u8], out: &mut Batch) -> std::result::Result<Flow, u32> {
    let size = clusters.size;
    // Only the first cluster may have to be left out in part.
    let mut inside = out.cursor() % size;
    let mut out = out.tail();
    let mut entries = entries.chunks_exact(ENTRY).map(decode);
    let mut next = entries.next();
    while let Some(entry) = next {
        let mut run = 1;
        // At most a window of clusters below 2^31 bytes.
        let length = |run: u64| run * size - inside;
        let flow = if clusters.is_stored(entry) {
            let mut expected = entry.checked_add(clusters.step);
            next = loop {
                match entries.next() {
                    Some(entry) if Some(entry) == expected && clusters.is_stored(entry) => {
                        run += 1;
                        expected = entry.checked_add(clusters.step);
                    }
                    other => break other,
                }
            };
            let place = Place::at(clusters.data_at(entry) + inside);
            out.push(length(run), Status::Data(place))
        } else if entry == 0 {
            next = loop {
                match entries.next() {
                    Some(0) => run += 1,
                    other => break other,
                }
            };
            out.push(length(run), Status::Absent)
        } else {
            return Err(entry);
        };
        if flow == Flow::Stop {
            return Ok(Flow::Stop);
        }
        inside = 0;
    }
    Ok(Flow::More)
}

/// One entry.
#[inline]
fn decode(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
