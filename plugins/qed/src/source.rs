//! Walking the L1 table and the L2 tables.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use instar_core::{
    Backing, Batch, Context, ExtentSource, Fields, Flow, Image, ImageFile, Part, Place, References,
    Result, Role, SecondLevel, Status, Storage, Stretch, TableReader, Tail, Upper, read_padded,
};

use crate::disk::{self, ENTRY, HEADER, Header, L2Entry, Room};
use crate::error::{Error, Misplaced};

/// An open QED image.
pub(crate) struct QedSource {
    header: Header,
    room: Room,
    files: [ImageFile; 1],
    backing: Option<Backing>,
    l1: TableReader,
    l2: SecondLevel,
    references: References,
    context: Arc<Context>,
}

impl QedSource {
    pub(crate) fn open(image: &Image<'_>) -> Result<Self> {
        let (storage, limits) = (&image.storage, &image.context.limits);
        let header = read_header(storage.as_ref())?;
        let room = header.room(storage.len());
        let (offset, length) = (header.l1_offset, header.table());
        if !room.has(offset, length) {
            return Err(disk::at(Error::L1(Misplaced { offset, length, room }), 40));
        }
        let mut name = TableReader::new("backing file name", Arc::clone(storage), limits);
        Ok(Self {
            backing: backing(&header, &mut name)?,
            files: [image.file()],
            l1: TableReader::new("L1 table", Arc::clone(storage), limits),
            l2: SecondLevel::new("L2 table", storage, limits, ENTRY, header.cluster())
                .with_holes_from(0),
            room,
            references: References::new("L2 tables", storage.len(), header.table()),
            context: Arc::clone(image.context),
            header,
        })
    }

    /// Appends what the L2 table at file offset `table`, which is that of the cursor, says.
    ///
    /// As in qemu, a run of clusters one behind the other must begin in the file, but may go on
    /// behind its end. Where it is taken up again does not matter: if its first cluster may be where
    /// it is, so may the others.
    fn table(&mut self, table: u64, out: &mut Batch) -> Result<Flow> {
        let room = self.room;
        let length = self.header.table();
        // Only the first cluster may have to be left out in part.
        let inside = out.cursor() & (room.cluster - 1);
        if !room.has(table, length) {
            let misplaced = Misplaced { offset: table, length, room };
            return Err(Error::L2 { guest: out.cursor() - inside, misplaced }.into());
        }
        let in_table = 1 << self.header.table_bits;
        let cluster_index = out.cursor() >> self.header.cluster_bits;
        let index = cluster_index % in_table;
        // The entries of the question, as far as they are in this table.
        let wanted = out.end().div_ceil(room.cluster) - cluster_index;
        let part = Part {
            // The table is in the file.
            at: table + index * ENTRY,
            entries: wanted.min(in_table - index),
            skip: inside,
            end: u64::MAX,
            file: 0,
            variant: 0,
        };
        self.l2.walk(part, out, |entries, out| clusters(entries.bytes, room, out))
    }
}

impl ExtentSource for QedSource {
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
        let upper = Upper { at, lower: self.header.table(), place: u64::from_le_bytes };
        let bits = self.header.l1_bits();
        while out.cursor() < out.end() {
            let first = out.cursor() >> bits;
            let wanted = out.end().div_ceil(1 << bits) - first;
            // The question ends with the disk, for which the table has entries enough, and the
            // table is in the file.
            let flow = match self.l1.stretch(&upper, first, wanted)? {
                Stretch::Absent(count) => {
                    // At most the size of the disk, rounded up to 2^53.
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
fn clusters(entries: &[u8], room: Room, out: &mut Batch) -> Result<Flow> {
    let inside = out.cursor() & (room.cluster - 1);
    let guest = out.cursor() - inside;
    let mut runs = Runs { room, inside, guest, run: None, out: out.tail() };
    let mut entries = entries.chunks_exact(8).map(|raw| L2Entry::decode(le64(raw)));
    let mut next = entries.next();
    while let Some(entry) = next {
        let Some(run) = runs.taking(entry)? else { return Ok(Flow::Stop) };
        next = run.extend(entry, &mut entries, room.cluster);
    }
    Ok(runs.end())
}

/// The runs of a table, appended when they are known to be complete.
struct Runs<'a> {
    room: Room,
    /// Bytes of the first cluster of the current run that are not asked for.
    inside: u64,
    /// The guest offset of that cluster.
    guest: u64,
    run: Option<Run>,
    out: Tail<'a>,
}

impl Runs<'_> {
    /// A run that is to take `entry`: the current one, or another one; none if there is no room
    /// for it.
    #[inline(always)]
    fn taking(&mut self, entry: L2Entry) -> Result<Option<&mut Run>> {
        if self.run.as_ref().is_none_or(|run| run.next != entry) {
            if self.end() == Flow::Stop {
                return Ok(None);
            }
            self.check(entry)?;
        }
        Ok(Some(self.run.get_or_insert(Run { first: entry, clusters: 0, next: entry })))
    }

    /// Refuses a run that would begin with this entry.
    #[inline(always)]
    fn check(&self, entry: L2Entry) -> Result<()> {
        let Self { room, guest, .. } = *self;
        match entry {
            L2Entry::Stored(offset) if !room.has_cluster(offset) => {
                Err(Error::Cluster { guest, offset, room }.into())
            }
            _ => Ok(()),
        }
    }

    /// Appends the current run.
    #[inline(always)]
    fn end(&mut self) -> Flow {
        let Some(Run { first, clusters, .. }) = self.run.take() else { return Flow::More };
        let length = clusters * self.room.cluster;
        let inside = std::mem::take(&mut self.inside);
        self.guest += length;
        self.out.push(length - inside, status(first).advanced(inside))
    }
}

/// Clusters of equal status, the stored ones one behind the other.
struct Run {
    first: L2Entry,
    /// Clusters so far.
    clusters: u64,
    /// The entry with which it would go on.
    next: L2Entry,
}

impl Run {
    /// Takes `entry` and those that follow for as long as they continue the run, and returns the
    /// one behind them.
    #[inline(always)]
    fn extend(
        &mut self,
        entry: L2Entry,
        entries: &mut impl Iterator<Item = L2Entry>,
        cluster: u64,
    ) -> Option<L2Entry> {
        let mut next = Some(entry);
        while next == Some(self.next) {
            self.clusters += 1;
            if let L2Entry::Stored(at) = &mut self.next {
                // Behind the last address there is 0, which is no stored cluster.
                *at = at.wrapping_add(cluster);
            }
            next = entries.next();
        }
        next
    }
}

/// What an entry says about its cluster.
#[inline]
fn status(entry: L2Entry) -> Status {
    match entry {
        L2Entry::Absent => Status::Absent,
        L2Entry::Zero => Status::Zero,
        L2Entry::Stored(at) => Status::Data(Place::at(at)),
    }
}

/// The integer in eight bytes.
#[inline]
fn le64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

fn read_header(storage: &dyn Storage) -> Result<Header> {
    let mut bytes = [0; HEADER];
    read_padded(storage, 0, &mut bytes)
        .map_err(|error| instar_core::Error::io("cannot read the header", error).at(0))?;
    Header::parse(&Fields::stored("header", 0, &bytes, storage.len()))
}

fn backing(header: &Header, reader: &mut TableReader) -> Result<Option<Backing>> {
    let Some(stored) = &header.backing else { return Ok(None) };
    let bytes = reader.bytes(stored.offset, stored.length as usize)?;
    // A zero ends the name early.
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok((!name.is_empty()).then(|| Backing {
        role: Role::Backing,
        names: vec![OsString::from_vec(name.to_vec())],
        format: stored.is_raw.then(|| "raw".to_owned()),
        identifiers: Vec::new(),
    }))
}
