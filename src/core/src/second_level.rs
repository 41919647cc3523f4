//! Walking the tables that an upper table names, each of them perhaps many times.

use std::sync::Arc;

use crate::long_runs::{Class, Known, LONG, LongRuns};
use crate::work::Work;
use crate::{Batch, Flow, Limits, Result, Status, Storage, TableReader};

/// Bytes of a table that are decoded together, at most: a batch that is full in the middle of a table
/// costs no more to take up again.
const WINDOW: u64 = 64 << 10;

/// Bytes of a table that take longer to read than a seek that finds a hole.
const WORTH_A_SEEK: u64 = 4096;

/// Entries that could be walked in the time that it takes to come to a table.
const PER_TABLE: u64 = 16;

/// The tables of the second level of one image, and what is remembered of them.
///
/// One table may be named millions of times, and tables may overlap. The time for each name must not
/// go with the length of the table, so once more entries were walked than the file can hold, long
/// runs of them are remembered. What that does not help against ends with an error
/// ([`ErrorKind::Limit`](crate::ErrorKind::Limit)): more than a fixed number of entries for each byte
/// that the host stores of the file and each extent that they come to.
pub struct SecondLevel {
    reader: TableReader,
    /// Bytes of an entry (a power of two), and guest bytes that it describes.
    width: u64,
    unit: u64,
    has_fixed_places: bool,
    holes_from: u64,
    runs: LongRuns,
    work: Work,
}

/// What of a table is asked for: from the entry of the cursor on.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// File offset of the entry that describes the guest byte at the cursor.
    pub at: u64,
    /// Entries from there on, at least one.
    pub entries: u64,
    /// Bytes of what the first of them describes that are before the cursor.
    pub skip: u64,
    /// Guest offset at which the last one is cut, if it is.
    pub end: u64,
    /// The layer's file in which all places are.
    pub file: u32,
    /// Entries that mean something else than others have another number here.
    pub variant: u32,
}

/// Entries to be decoded, which start at the cursor.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    /// File offset of the first of them.
    pub at: u64,
    /// The entries.
    pub bytes: &'a [u8],
    /// Whether all may be appended. Otherwise, what is said of the last ones may wait until it is
    /// known what follows them: they are handed over again, with more of them.
    pub is_last: bool,
}

impl SecondLevel {
    /// The tables called `what` in errors, with entries of `width` bytes, 1 to 256 and a power of
    /// two, of which each describes `unit` guest bytes.
    pub fn new(
        what: &'static str,
        storage: &Arc<dyn Storage>,
        limits: &Limits,
        width: u64,
        unit: u64,
    ) -> Self {
        Self {
            reader: TableReader::new(what, Arc::clone(storage), limits),
            width,
            unit: unit.max(1),
            has_fixed_places: true,
            holes_from: u64::MAX,
            runs: LongRuns::default(),
            work: Work::new(storage.as_ref(), width, unit.max(1)),
        }
    }

    /// Says that whether an entry's place is right depends on more than the entry.
    #[must_use]
    pub fn with_checked_places(mut self) -> Self {
        self.has_fixed_places = false;
        self
    }

    /// Looks for holes of the file in parts of tables of so many bytes or more. Entries there are
    /// zero, which must mean absent.
    #[must_use]
    pub fn with_holes_from(mut self, bytes: u64) -> Self {
        self.holes_from = bytes;
        self
    }

    /// Bytes that are held in memory, for [`ExtentSource::buffered`](crate::ExtentSource::buffered).
    pub fn buffered(&self) -> u64 {
        self.reader.buffered().saturating_add(self.remembered())
    }

    /// How many of them are there to remember runs.
    pub fn remembered(&self) -> u64 {
        self.runs.buffered()
    }

    /// Gives back what is not there to remember runs.
    pub fn rest(&mut self) {
        self.reader.release();
    }

    /// Gives them back, for [`ExtentSource::release`](crate::ExtentSource::release).
    pub fn release(&mut self) {
        self.reader.release();
        self.runs.release();
    }

    /// Appends what `part` says. `decode` appends what the entries say that it is given, from the
    /// cursor on; it must say the same of the same entries anywhere on the disk, places included
    /// (but see [`SecondLevel::with_checked_places`]), and `Absent` of an entry of zeros.
    ///
    /// # Errors
    /// As [`TableReader::bytes`]; what `decode` returns; [`ErrorKind::Limit`] for too much work.
    ///
    /// [`ErrorKind::Limit`]: crate::ErrorKind::Limit
    pub fn walk(
        &mut self,
        part: Part,
        out: &mut Batch,
        mut decode: impl FnMut(Entries<'_>, &mut Batch) -> Result<Flow>,
    ) -> Result<Flow> {
        let Self { width, unit, .. } = *self;
        let class = Class { width, unit, variant: part.variant };
        let Part { mut at, entries: mut left, mut skip, end, file, .. } = part;
        self.work.ask(out.cursor());
        if self.work.repeats() {
            self.charge(PER_TABLE)?;
        }
        let mut window = WINDOW;
        while left > 0 {
            let cursor = out.cursor();
            let border = (at | (window - 1)).saturating_add(1);
            let mut count = left.min(border.saturating_sub(at).div_ceil(width).max(1));
            if count < left {
                // All of it is in the file, or none of it counts.
                self.reader.check_inside(at, left.saturating_mul(width))?;
            }
            let mut is_last = count == left;
            let repeats = self.work.repeats();
            if repeats || left.saturating_mul(width) >= self.holes_from {
                let known = match self.known(class, at, left, repeats)? {
                    Known::Run(status, run_end) => Some((status, (run_end - at) / width)),
                    Known::Unknown(start) => {
                        let unknown = start.saturating_sub(at) / width;
                        is_last |= unknown <= count;
                        count = count.min(unknown.max(1));
                        None
                    }
                };
                if let Some((status, known)) = known {
                    let known = known.min(left);
                    let to = (cursor - skip).saturating_add(known.saturating_mul(unit)).min(end);
                    let status = status.in_file(file).advanced(skip);
                    if out.push(to - cursor, status) == Flow::Stop {
                        return Ok(Flow::Stop);
                    }
                    at = at.saturating_add(known * width);
                    (left, skip) = (left - known, 0);
                    continue;
                }
            }
            let before = out.extents().len();
            let length = usize::try_from(count.saturating_mul(width)).unwrap_or(usize::MAX);
            let bytes = self.reader.bytes(at, length)?;
            let flow = decode(Entries { at, bytes, is_last }, out)?;
            let walked = out.cursor() - cursor;
            self.work.add(walked, out.extents().len() - before);
            if repeats {
                self.learn(class, at, cursor, cursor - skip, out);
                self.work.check(self.reader.storage().as_ref())?;
            }
            if flow == Flow::Stop {
                return Ok(Flow::Stop);
            }
            let to = (cursor - skip).saturating_add(count.saturating_mul(unit)).min(end);
            if out.cursor() >= to {
                at = at.saturating_add(count * width);
                (left, skip) = (left - count, 0);
                window = WINDOW;
            } else if walked > 0 {
                let done = (skip + walked) / unit;
                at = at.saturating_add(done * width);
                (left, skip) = (left.saturating_sub(done), skip + walked - done * unit);
                window = WINDOW;
            } else if is_last {
                // Not possible; the core says so instead of waiting for ever.
                return Ok(Flow::Stop);
            } else {
                window = window.saturating_mul(2);
            }
        }
        Ok(Flow::More)
    }

    /// Counts entries of an upper table that were walked, for sources that walk it more than once.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`](crate::ErrorKind::Limit) for too much work.
    pub fn charge(&mut self, entries: u64) -> Result<()> {
        self.work.add(entries.saturating_mul(self.unit), 0);
        match self.work.repeats() {
            true => self.work.check(self.reader.storage().as_ref()),
            false => Ok(()),
        }
    }

    /// Guest bytes that the entries that were walked describe.
    #[cfg(test)]
    fn work_done(&self) -> u64 {
        self.work.walked()
    }

    /// What is known of the entry at file offset `at` without decoding it; `left` entries are asked
    /// for. If tables repeat, of what was remembered too.
    fn known(&mut self, class: Class, at: u64, left: u64, repeats: bool) -> Result<Known> {
        let found = match repeats {
            true => self.runs.find(class, at),
            false => Known::Unknown(u64::MAX),
        };
        let bytes = left.saturating_mul(self.width);
        let worth = if repeats { WORTH_A_SEEK.min(self.holes_from) } else { self.holes_from };
        if bytes < worth || matches!(found, Known::Run(..)) {
            return Ok(found);
        }
        if self.reader.unstored(at, bytes)? < self.width {
            return Ok(found);
        }
        let hole = self.reader.known_hole(at) / self.width * self.width;
        let end = at.saturating_add(hole);
        if repeats {
            self.runs.learn(class, at, end, Status::Absent);
        }
        Ok(Known::Run(Status::Absent, end))
    }

    /// Remembers the long runs among what was appended from guest offset `from` on, which the
    /// entries from file offset `at` on describe, the first of them from guest offset `start` on.
    // By itself: seldom needed.
    #[cold]
    fn learn(&mut self, class: Class, at: u64, from: u64, start: u64, out: &Batch) {
        let Self { width, unit, has_fixed_places, .. } = *self;
        let mut end = out.cursor();
        for extent in out.extents().iter().rev() {
            if end <= from {
                break;
            }
            let extent_start = end - extent.length;
            let status = extent.status();
            let is_at_border = end == out.cursor() || extent_start <= from;
            let is_long = extent.length / unit >= LONG;
            if (is_at_border || is_long) && (has_fixed_places || status.place().is_none()) {
                // Whole entries only.
                let first = (extent_start.max(from) - start).div_ceil(unit);
                let last = (end - start) / unit;
                if first < last {
                    let advanced = status.advanced(start + first * unit - extent_start);
                    let place = |entry: u64| at.saturating_add(entry * width);
                    self.runs.learn(class, place(first), place(last), advanced.in_file(0));
                }
            }
            end = extent_start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{Random, served};
    use crate::{ErrorKind, MemoryStorage, Place};
    use pretty_assertions::assert_eq;

    /// Guest bytes of an entry.
    const UNIT: u64 = 1000;

    /// 0 is absent, 1 and 2 are zero, 3 is an error, anything else is the place, in thousands.
    fn status(entry: u32) -> Result<Status> {
        Ok(match entry {
            0 => Status::Absent,
            1 | 2 => Status::Zero,
            3 => return Err(crate::Error::new(ErrorKind::Corrupt, "an entry of 3")),
            at => Status::Data(Place::in_file(7, u64::from(at) * UNIT)),
        })
    }

    fn decode(entries: Entries<'_>, out: &mut Batch) -> Result<Flow> {
        for entry in entries.bytes.chunks_exact(4) {
            let skip = out.cursor() % UNIT;
            let status = status(u32::from_le_bytes(*entry.first_chunk().unwrap()))?;
            if out.push(UNIT - skip, status.advanced(skip)) == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::More)
    }

    /// A disk of tables of so many entries at these file offsets.
    struct Disk {
        tables: Vec<u64>,
        entries: u64,
        storage: Arc<dyn Storage>,
    }

    impl Disk {
        fn size(&self) -> u64 {
            self.tables.len() as u64 * self.entries * UNIT
        }

        fn level(&self) -> SecondLevel {
            SecondLevel::new("table", &self.storage, &Limits::default(), 4, UNIT)
        }

        /// What there is from `start` on, through batches of `capacity`, merged; and the error.
        fn map(
            &self,
            level: &mut SecondLevel,
            start: u64,
            capacity: usize,
        ) -> (Vec<(u64, Status)>, Option<String>) {
            let mut merged = Batch::with_capacity(usize::MAX);
            merged.ask(start, self.size());
            let mut batch = Batch::with_capacity(capacity);
            let mut error = None;
            while merged.cursor() < self.size() && error.is_none() {
                batch.ask(merged.cursor(), self.size());
                error = self.fill(level, &mut batch).err().map(|error| error.to_string());
                for extent in batch.extents() {
                    let _: Flow = merged.push(extent.length, extent.status());
                }
            }
            (merged.extents().iter().map(|e| (e.length, e.status())).collect(), error)
        }

        fn fill(&self, level: &mut SecondLevel, out: &mut Batch) -> Result<()> {
            while out.cursor() < out.end() {
                let entry = out.cursor() / UNIT;
                let table = self.tables[usize::try_from(entry / self.entries).unwrap()];
                let first = entry % self.entries;
                let part = Part {
                    at: table + first * 4,
                    entries: self.entries - first,
                    skip: out.cursor() % UNIT,
                    end: u64::MAX,
                    file: 7,
                    variant: 0,
                };
                if level.walk(part, out, decode)? == Flow::Stop {
                    break;
                }
            }
            Ok(())
        }

        /// The same, entry by entry.
        fn plain(&self) -> (Vec<(u64, Status)>, Option<String>) {
            let mut merged = Batch::with_capacity(usize::MAX);
            merged.ask(0, self.size());
            let mut error = None;
            'tables: for table in &self.tables {
                for index in 0..self.entries {
                    let mut entry = [0; 4];
                    crate::read_padded(self.storage.as_ref(), table + index * 4, &mut entry)
                        .unwrap();
                    match status(u32::from_le_bytes(entry)) {
                        Ok(status) => _ = merged.push(UNIT, status),
                        Err(other) => {
                            error = Some(other.to_string());
                            break 'tables;
                        }
                    }
                }
            }
            (merged.extents().iter().map(|e| (e.length, e.status())).collect(), error)
        }
    }

    /// Entries in runs of many lengths.
    fn entries(random: &mut Random, count: usize) -> Vec<u8> {
        let mut entries = Vec::new();
        while entries.len() < count {
            let most = 1 << random.below(10);
            let length = 1 + random.below(most);
            let kind = random.below(5);
            let first = 10 + u32::try_from(random.below(100_000)).unwrap();
            entries.extend((first..).take(length).map(|next| match kind {
                0 | 1 => 0,
                2 => 1 + next % 2,
                3 => next,
                _ => first,
            }));
        }
        entries.truncate(count);
        entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
    }

    #[test]
    fn what_is_remembered_is_what_is_there() {
        let mut random = Random::new(1);
        let mut known = 0;
        for round in 0..60 {
            let count = 4000;
            let mut bytes = entries(&mut random, count);
            if round % 4 == 3 {
                let at = random.below(count) * 4;
                bytes[at..at + 4].copy_from_slice(&3_u32.to_le_bytes());
            }
            // Bytes around and a hole, which is a part of some tables.
            let storage = MemoryStorage::new(40_000).with_data(3000, bytes).with_allocated(2000);
            let per_table = [1, 50, 700, 3000][random.below(4)];
            // Anywhere, at multiples of an entry, or of a table.
            let step = [1, 4, 4 * per_table][random.below(3)];
            let last = 40_000 - per_table * 4;
            let table = |_| {
                let places = usize::try_from(last / step).unwrap() + 1;
                random.below(places) as u64 * step
            };
            let tables: Vec<u64> = (0..60).map(table).collect();
            let disk = Disk { tables, entries: per_table, storage: Arc::new(storage) };
            let plain = disk.plain();
            for capacity in [1, 3, 4096] {
                let mut level = disk.level();
                assert_eq!(disk.map(&mut level, 0, capacity), plain, "{round}: {capacity}");
                known += level.remembered();
                // Again, with what is remembered, and from the middle of an entry.
                assert_eq!(disk.map(&mut level, 0, capacity), plain, "{round}: {capacity} again");
                if plain.1.is_none() {
                    let from = disk.size() / 2 + 77;
                    let (found, _) = disk.map(&mut level, from, capacity);
                    let length: u64 = found.iter().map(|(length, _)| length).sum();
                    assert_eq!(length, disk.size() - from);
                }
                level.release();
                assert_eq!(level.buffered(), 0);
                assert_eq!(disk.map(&mut level, 0, capacity), plain, "{round}: given back");
            }
        }
        assert!(known > 64 * 1000, "{known} bytes for what is remembered");
    }

    /// Tables of one run, of a few runs, in rotation, overlapping, in a hole.
    #[test]
    fn a_table_that_is_named_again_costs_no_more_than_what_it_comes_to() {
        let zeros = |count: u32| (0..count).flat_map(|index| (1 + index % 2).to_le_bytes());
        let halves = |count: u32| zeros(count / 2).chain((0..count / 2).flat_map(|_| [0; 4]));
        let bytes: Vec<u8> = zeros(20_000).chain(halves(20_000)).collect();
        let storage: Arc<dyn Storage> =
            Arc::new(MemoryStorage::new(1 << 30).with_data(0, bytes.clone()));
        let stored = bytes.len() as u64;
        for (what, tables, rows) in [
            ("one", vec![0; 3000], 1),
            ("two halves", vec![80_000; 3000], 6000),
            ("rotation", (0..3000).map(|index| index % 4 * 20_000).collect(), 1),
            ("overlapping", (0..3000).map(|index| index * 4).collect(), 1),
            ("overlapping from the end", (0..3000).rev().map(|index| index * 4).collect(), 1),
            ("in a hole", (1..3001).map(|index| index * 4096 + stored).collect(), 1),
        ] {
            let entries = if what == "rotation" { 5000 } else { 20_000 };
            let disk = Disk { tables, entries, storage: Arc::clone(&storage) };
            let before = served();
            let (map, error) = disk.map(&mut disk.level(), 0, 4096);
            assert_eq!((map.len(), error), (rows, None), "{what}");
            // Every byte twice, two short pieces of each table, and a window for each batch.
            let walked = served() - before;
            let most = 2 * stored + 3000 * 2 * LONG * 4 + (rows as u64 / 4096 + 2) * WINDOW;
            assert!(walked <= most, "{what}: {walked} bytes of entries and not {most}");
        }
    }

    #[test]
    fn more_tables_than_can_be_remembered_are_an_error_at_last() {
        let bytes: Vec<u8> = (0..128_u32 << 10).flat_map(|at| (1 + at % 2).to_le_bytes()).collect();
        let storage = MemoryStorage::new(0).with_data(0, bytes).with_allocated(1 << 10);
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let mut level = SecondLevel::new("table", &storage, &Limits::default(), 4, UNIT);
        let mut out = Batch::default();
        out.ask(0, u64::MAX);
        let mut failed = None;
        for index in 0..10_000_u64 {
            // Each time with another meaning: nothing is ever known.
            let variant = u32::try_from(index).unwrap();
            let part = Part { at: 0, entries: 100_000, skip: 0, end: u64::MAX, file: 7, variant };
            let before = level.work_done();
            let push = |entries: Entries<'_>, out: &mut Batch| {
                Ok(out.push(entries.bytes.len() as u64 / 4 * UNIT, Status::Zero))
            };
            if let Err(error) = level.walk(part, &mut out, push) {
                failed = Some((error.kind(), before));
                break;
            }
        }
        let (kind, walked) = failed.unwrap();
        assert_eq!(kind, ErrorKind::Limit);
        let allowed = (16 << 20) + (512 << 10) * 256 / 4 + 1024;
        assert!(walked / UNIT <= allowed && walked / UNIT + 200_000 > allowed, "{walked}");
    }
}
