//! Walking the L1 table and the L2 tables.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use instar_core::{
    Backing, Batch, Context, ExtentSource, Fields, Flow, Image, ImageFile, Part, Place, References,
    Result, Role, SECTOR, SecondLevel, Status, Storage, Stretch, TableReader, Upper, read_padded,
};

use crate::disk::{ENTRY, HEADER, Header, L2Entry};
use crate::error::Error;

/// Bytes of an L2 table from which on it is asked for whether they lie in a hole of the file: they
/// take longer to read than to seek.
const WORTH_A_SEEK: u64 = 16 << 10;

/// An open qcow image.
pub(crate) struct QcowSource {
    header: Header,
    files: [ImageFile; 1],
    backing: Option<Backing>,
    l1: TableReader,
    l2: SecondLevel,
    references: References,
    context: Arc<Context>,
}

impl QcowSource {
    pub(crate) fn open(image: &Image<'_>) -> Result<Self> {
        let (storage, limits) = (&image.storage, &image.context.limits);
        let header = read_header(storage.as_ref())?;
        check_l1_is_inside(&header, storage.len())?;
        let mut name = TableReader::new("backing file name", Arc::clone(storage), limits);
        Ok(Self {
            backing: backing(&header, &mut name)?,
            files: [image.file()],
            l1: TableReader::new("L1 table", Arc::clone(storage), limits),
            l2: SecondLevel::new("L2 table", storage, limits, ENTRY, header.cluster())
                .with_holes_from(WORTH_A_SEEK),
            references: References::new("L2 tables", storage.len(), header.table()),
            context: Arc::clone(image.context),
            header,
        })
    }

    /// Appends what the L2 table at file offset `table`, which is that of the cursor, says.
    fn table(&mut self, table: u64, out: &mut Batch) -> Result<Flow> {
        let Header { cluster_bits, l2_bits, is_encrypted, .. } = self.header;
        let cluster = self.header.cluster();
        let in_table = 1 << l2_bits;
        let cluster_index = out.cursor() >> cluster_bits;
        let first = cluster_index % in_table;
        // The entries of the question, as far as they are in this table: at most 64 KiB.
        let count = (out.end().div_ceil(cluster) - cluster_index).min(in_table - first);
        let part = Part {
            // What saturates is outside any file.
            at: table.saturating_add(first * ENTRY),
            entries: count,
            skip: out.cursor() & (cluster - 1),
            end: u64::MAX,
            file: 0,
            variant: 0,
        };
        self.l2
            .walk(part, out, |entries, out| Ok(clusters(entries.bytes, cluster, is_encrypted, out)))
    }
}

impl ExtentSource for QcowSource {
    fn virtual_size(&self) -> u64 {
        self.header.virtual_size
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    fn buffered(&self) -> u64 {
        self.l1.buffered() + self.l2.buffered()
    }

    fn release(&mut self) {
        self.l1.release();
        self.l2.release();
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let at = self.header.l1_offset;
        let upper = Upper { at, lower: self.header.table(), place: u64::from_be_bytes };
        let bits = self.header.table_bits();
        while out.cursor() < out.end() {
            let first = out.cursor() >> bits;
            let wanted = out.end().div_ceil(1 << bits) - first;
            // The question ends with the disk, so these are entries of the table, which has been
            // checked to be in the file.
            let flow = match self.l1.stretch(&upper, first, wanted)? {
                Stretch::Absent(count) => {
                    // At most 2^28 tables of 2^29 bytes.
                    let end = (first + count) << bits;
                    out.push(end - out.cursor(), Status::Absent)
                }
                Stretch::Table(table) => {
                    self.references.count(first, &self.context.notices)?;
                    self.table(table, out)?
                }
            };
            if flow == Flow::Stop {
                break;
            }
        }
        Ok(())
    }
}

/// Appends the clusters that these entries describe; the cursor is in the first one.
fn clusters(entries: &[u8], cluster: u64, is_encrypted: bool, out: &mut Batch) -> Flow {
    // Only the first cluster may have to be left out in part.
    let mut inside = out.cursor() & (cluster - 1);
    let mut out = out.tail();
    let mut entries = entries.chunks_exact(8).map(|raw| L2Entry::decode(be64(raw)));
    let mut next = entries.next();
    while let Some(entry) = next {
        let mut run = cluster;
        let status = status(entry, is_encrypted);
        next = match (status, entry) {
            (Status::Data(_), L2Entry::Stored(mut at)) => {
                take(&mut entries, &mut run, cluster, |entry| {
                    // Below 2^63, plus at most 8192 clusters of 64 KiB.
                    at += cluster;
                    entry == L2Entry::Stored(at)
                })
            }
            (Status::Opaque, _) => {
                take(&mut entries, &mut run, cluster, |entry| matches!(entry, L2Entry::Stored(_)))
            }
            _ => take(&mut entries, &mut run, cluster, |other| other == entry),
        };
        if out.push(run - inside, status.advanced(inside)) == Flow::Stop {
            return Flow::Stop;
        }
        inside = 0;
    }
    Flow::More
}

/// Takes entries for as long as they belong to a run, adding a cluster to `run` for each, and
/// returns the one behind them.
#[inline(always)]
fn take(
    entries: &mut impl Iterator<Item = L2Entry>,
    run: &mut u64,
    cluster: u64,
    mut belongs: impl FnMut(L2Entry) -> bool,
) -> Option<L2Entry> {
    loop {
        match entries.next() {
            // At most 8192 clusters of 64 KiB.
            Some(entry) if belongs(entry) => *run += cluster,
            other => return other,
        }
    }
}

/// What an entry says about its cluster. The place of an encrypted cluster is of no use to a
/// reader, so qemu never tells it; a compressed cluster is called that, encrypted or not.
#[inline]
fn status(entry: L2Entry, is_encrypted: bool) -> Status {
    match entry {
        L2Entry::Absent => Status::Absent,
        L2Entry::Compressed => Status::Compressed,
        L2Entry::Stored(_) if is_encrypted => Status::Opaque,
        L2Entry::Stored(at) => Status::Data(Place::at(at)),
    }
}

/// The integer in eight bytes.
#[inline]
fn be64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk))
}

fn read_header(storage: &dyn Storage) -> Result<Header> {
    let mut bytes = [0; HEADER];
    read_padded(storage, 0, &mut bytes)
        .map_err(|error| instar_core::Error::io("cannot read the header", error).at(0))?;
    Header::parse(&Fields::stored("header", 0, &bytes, storage.len()))
}

/// qemu reads what is missing of the table as zeros, so that a truncated image is an empty disk.
fn check_l1_is_inside(header: &Header, file: u64) -> Result<()> {
    let (offset, size) = (header.l1_offset, header.l1_entries * ENTRY);
    let end = offset.checked_add(size);
    if end.is_none_or(|end| end > file.next_multiple_of(SECTOR)) {
        return Err(instar_core::Error::from(Error::L1Outside { offset, size, file }).at(40));
    }
    Ok(())
}

/// The backing file. There is no room for its format, which therefore has to be detected.
fn backing(header: &Header, reader: &mut TableReader) -> Result<Option<Backing>> {
    let Some((offset, length)) = header.backing_name else { return Ok(None) };
    let stored = reader.bytes(offset, length as usize)?;
    // A zero ends the name early.
    let name = stored.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok((!name.is_empty()).then(|| Backing {
        role: Role::Backing,
        names: vec![OsString::from_vec(name.to_vec())],
        format: None,
        identifiers: Vec::new(),
    }))
}
