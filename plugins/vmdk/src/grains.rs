//! The two-level table of a sparse extent: a directory of grain tables of grains.
//!
//! All kinds of sparse extent have it; what their entries mean is a [`Layout`].

use std::sync::Arc;

use instar_core::{
    Batch, Flow, Limits, Notices, Part, Place, References, Result, SECTOR, SecondLevel, Status,
    Storage, TableReader,
};

use crate::disk::Geometry;
use crate::error::{Checked, Error};

/// Entries of a grain directory that are read at a time (instar's own choice).
const DIRECTORY_WINDOW: u64 = 16 << 10;

/// What a grain table says about one grain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    /// The parent decides.
    Absent,
    /// Zero, without space.
    Zero,
    /// Deflated.
    Compressed,
    /// Stored plainly at this byte offset, below 2^63.
    Data(u64),
    /// The entry means nothing.
    Invalid,
}

/// What differs between kinds of sparse extents: width and meaning of entries.
///
/// In every kind, a directory entry of 0 means that all grains of the table are absent.
pub(crate) trait Layout: Send {
    /// Bytes of an entry, in the directory and in tables.
    const WIDTH: u64;

    /// The bits of an entry that are the same in all of a run: what steps carry into them is not
    /// what they say.
    const KIND: u64;

    /// The entry in exactly [`Layout::WIDTH`] bytes.
    fn decode(bytes: &[u8]) -> u64;

    /// The byte offset of the table that a directory entry other than 0 refers to. `at` is the
    /// file offset of that entry, for errors.
    fn table(&self, entry: u64, at: u64) -> Checked<u64>;

    /// What a grain table entry means.
    fn classify(&self, entry: u64) -> Grain;

    /// The difference from the entry of `grain` to the one that continues it.
    fn step(&self, grain: Grain) -> u64;
}

/// Where a grain directory is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Directory {
    /// File offset in bytes.
    pub(crate) at: u64,
    /// How many entries it has.
    pub(crate) entries: u64,
}

/// The grains of one sparse extent.
pub(crate) struct GrainMap<L> {
    layout: L,
    geometry: Geometry,
    directory: Directory,
    directory_reader: TableReader,
    /// The first entry of the window of the directory that is at hand.
    window: Option<u64>,
    tables: SecondLevel,
    references: References,
}

/// What the directory says about a stretch of the extent.
enum Stretch {
    /// So many tables, from the one asked about, do not exist.
    Absent(u64),
    /// The table asked about is at this byte offset.
    Table(u64),
}

impl<L: Layout> GrainMap<L> {
    pub(crate) fn new(
        layout: L,
        geometry: Geometry,
        directory: Directory,
        storage: Arc<dyn Storage>,
        limits: &Limits,
    ) -> Self {
        // Entries behind what the capacity needs are never looked at.
        let entries = directory.entries.min(geometry.directory_entries());
        let directory = Directory { entries, ..directory };
        let table = geometry.table_entries * L::WIDTH;
        let references = References::new("grain tables", storage.len(), table);
        let directory_reader = TableReader::new("grain directory", Arc::clone(&storage), limits);
        let tables = SecondLevel::new("grain table", &storage, limits, L::WIDTH, geometry.grain);
        let window = None;
        Self { layout, geometry, directory, directory_reader, window, tables, references }
    }

    /// Length of the extent in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.geometry.length
    }

    /// Bytes that the buffers hold.
    pub(crate) fn buffered(&self) -> u64 {
        self.directory_reader.buffered() + self.tables.buffered()
    }

    /// How many of them are there to remember runs of grains.
    pub(crate) fn remembered(&self) -> u64 {
        self.tables.remembered()
    }

    /// Gives back what is not there to remember runs.
    pub(crate) fn rest(&mut self) {
        self.directory_reader.release();
        self.window = None;
        self.tables.rest();
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        self.directory_reader.release();
        self.window = None;
        self.tables.release();
    }

    /// Appends what the extent, which begins at guest byte `start` and keeps its data in file
    /// number `file`, has from the cursor to its end.
    pub(crate) fn append(
        &mut self,
        start: u64,
        file: u32,
        out: &mut Batch,
        notices: &Notices,
    ) -> Result<Flow> {
        let Geometry { length, grain, table_entries } = self.geometry;
        let span = self.geometry.table_span();
        loop {
            let at = out.cursor().saturating_sub(start);
            if at >= length {
                return Ok(Flow::More);
            }
            let (index, inside) = (at / span, at % span);
            let flow = match self.stretch(index)? {
                Stretch::Absent(tables) => {
                    let stretch = tables.saturating_mul(span).saturating_sub(inside);
                    out.push(stretch.min(length - at), Status::Absent)
                }
                Stretch::Table(table_at) => {
                    if self.references.count(index, notices)? {
                        self.check_place(index, table_at, notices)?;
                    }
                    // The last table may be cut short: only its entries up to the extent's end.
                    let table_start = at - inside;
                    let used = (length - table_start).div_ceil(grain).min(table_entries);
                    let first = inside / grain;
                    let entries_at = table_at.saturating_add(first * L::WIDTH);
                    let part = Part {
                        at: entries_at,
                        entries: used - first,
                        skip: inside % grain,
                        end: start.saturating_add(length),
                        file,
                        variant: 0,
                    };
                    let layout = &self.layout;
                    self.tables.walk(part, out, |entries, out| {
                        let at = out.cursor().saturating_sub(start);
                        let (skip, left) = (at % grain, length.saturating_sub(at));
                        let run = Run { entries_at: entries.at, grain, skip, left, file };
                        run.append(layout, entries.bytes, out)
                    })?
                }
            };
            if flow == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
    }

    /// Warns if the table at byte offset `table_at`, which directory entry `index` names, lies in
    /// the header or in the directory.
    fn check_place(&self, index: u64, table_at: u64, notices: &Notices) -> Result<()> {
        let end = table_at.saturating_add(self.geometry.table_entries * L::WIDTH);
        let Directory { at, entries } = self.directory;
        let parts = [("header", 0, SECTOR), ("grain directory", at, entries * L::WIDTH)];
        let hit = parts
            .into_iter()
            .find(|(_, start, length)| table_at < start.saturating_add(*length) && *start < end);
        match hit {
            None => Ok(()),
            Some((name, start, _)) => notices.warn(format!(
                "the grain table at directory index {index} lies at {table_at:#x}, in the {name} \
                 at {start:#x}"
            )),
        }
    }

    /// Looks up directory entry `index`, and how far a stretch of absent tables goes.
    fn stretch(&mut self, index: u64) -> Result<Stretch> {
        let Directory { at, entries } = self.directory;
        if index >= entries {
            return Err(Error::DirectoryTooShort { entries, index }.into());
        }
        let reader = &mut self.directory_reader;
        // The size of a directory is limited, so the products do not overflow.
        let here = at.saturating_add(index * L::WIDTH);
        let unstored = reader.unstored(here, (entries - index) * L::WIDTH)? / L::WIDTH;
        if unstored > 0 {
            return Ok(Stretch::Absent(unstored));
        }
        let window = index - index % DIRECTORY_WINDOW;
        let window_at = at.saturating_add(window * L::WIDTH);
        let count = (entries - window).min(DIRECTORY_WINDOW);
        if self.window.replace(window) != Some(window) {
            // A descriptor may name this extent many times, and of what is read for one entry
            // most may be holes.
            self.tables.charge(count)?;
        }
        let length = count * L::WIDTH;
        let bytes = reader.window(window_at, usize::try_from(length).unwrap_or(usize::MAX))?;
        let skip = (index - window) * L::WIDTH;
        let rest = bytes.get(usize::try_from(skip).unwrap_or(usize::MAX)..).unwrap_or_default();
        let mut stretch = rest.chunks_exact(width::<L>()).map(L::decode);
        match stretch.next() {
            None => Err(Error::DirectoryTooShort { entries, index }.into()),
            Some(0) => {
                let more = stretch.take_while(|entry| *entry == 0).count() as u64;
                self.tables.charge(more)?;
                Ok(Stretch::Absent(more.saturating_add(1)))
            }
            Some(entry) => {
                Ok(Stretch::Table(self.layout.table(entry, window_at.saturating_add(skip))?))
            }
        }
    }
}

fn width<L: Layout>() -> usize {
    usize::try_from(L::WIDTH).unwrap_or(usize::MAX)
}

/// How the entries of one grain table become extents.
struct Run {
    /// File offset of the first entry, for errors.
    entries_at: u64,
    /// Bytes in one grain.
    grain: u64,
    /// Bytes of the first grain that are in front of the cursor.
    skip: u64,
    /// Bytes from the cursor to the end of the extent, where the last grain is cut.
    left: u64,
    file: u32,
}

impl Run {
    /// One push for each run of entries of which one continues the other.
    // By itself, so that what the loop needs stays in registers.
    #[inline(never)]
    fn append<L: Layout>(self, layout: &L, table: &[u8], out: &mut Batch) -> Result<Flow> {
        let Self { entries_at, grain, mut skip, mut left, file } = self;
        let mut out = out.tail();
        let mut rest = table;
        while let Some((first, next)) = rest.split_at_checked(width::<L>()) {
            let entry = L::decode(first);
            let class = layout.classify(entry);
            // Comparing entries is enough: the batch merges what this does not see.
            let step = layout.step(class);
            let mut expected = entry.wrapping_add(step);
            let mut run = grain;
            let at = rest;
            rest = next;
            while let Some((first, next)) = rest.split_at_checked(width::<L>()) {
                if L::decode(first) != expected || (expected ^ entry) & L::KIND != 0 {
                    break;
                }
                rest = next;
                expected = expected.wrapping_add(step);
                // A table has at most 4096 grains of at most 1 GiB.
                run += grain;
            }
            let status = match class {
                Grain::Data(at) => Status::Data(Place::in_file(file, at.saturating_add(skip))),
                Grain::Absent => Status::Absent,
                Grain::Zero => Status::Zero,
                Grain::Compressed => Status::Compressed,
                Grain::Invalid => {
                    let at = entries_at.saturating_add((table.len() - at.len()) as u64);
                    return Err(Error::SeTableEntry { entry, at }.into());
                }
            };
            let length = (run - skip).min(left);
            if out.push(length, status) == Flow::Stop {
                return Ok(Flow::Stop);
            }
            left -= length;
            skip = 0;
        }
        Ok(Flow::More)
    }
}
