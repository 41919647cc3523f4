//! On-disk tables, read in windows.

use std::ops::Range;
use std::sync::Arc;

use crate::{
    Error, ErrorKind, Fields, Limits, Result, RunKind, SECTOR, Storage, read_padded, read_unit,
    run_from,
};

/// Reads parts of tables into one reused buffer, aligned as the storage wants it.
///
/// A part that is in the buffer already is not read again, and where parts follow each other in
/// the file, more than was asked for is read: small tables side by side cost few reads, and
/// scattered ones no more than themselves. A part outside the file is an error: what a table says
/// is never made up. Only the file's last sector is filled up with zeros, as every other tool does.
pub struct TableReader {
    storage: Arc<dyn Storage>,
    what: &'static str,
    buffer: Vec<u8>,
    /// File offset of the buffer's first byte.
    start: u64,
    /// Bytes that are read beyond what was asked for, since the reads follow each other.
    ahead: u64,
    limit: u64,
    /// What the host was last found to have: whether this range of the file is a hole.
    known: Range<u64>,
    known_is_hole: bool,
    /// The entry of an upper table up to which lower tables were announced.
    told: u64,
}

/// The most bytes that are read beyond what was asked for: enough for small tables that lie side
/// by side. More than is asked for costs as much as it would gain.
const AHEAD: u64 = 64 << 10;

/// Bytes of an upper table that are looked at together.
const UPPER_WINDOW: u64 = 64 << 10;

/// The most tables, and bytes of tables, that a slow storage is told of ahead.
const ANNOUNCED: u64 = 64;
const ANNOUNCED_BYTES: u64 = 4 << 20;

/// A table whose entries of `N` bytes name lower tables.
#[derive(Debug, Clone, Copy)]
pub struct Upper<const N: usize> {
    /// File offset of its first entry, in bytes.
    pub at: u64,
    /// Bytes of a lower table.
    pub lower: u64,
    /// The file offset of the lower table that an entry names; 0 is none.
    pub place: fn([u8; N]) -> u64,
}

/// What an upper table says from one of its entries on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// So many lower tables do not exist.
    Absent(u64),
    /// There is one, at this file offset.
    Table(u64),
}

impl std::fmt::Debug for TableReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableReader").field("what", &self.what).finish_non_exhaustive()
    }
}

impl TableReader {
    /// A reader of the table called `what` in errors, which holds at most
    /// [`Limits::table_window`] bytes at a time.
    pub fn new(what: &'static str, storage: Arc<dyn Storage>, limits: &Limits) -> Self {
        Self {
            storage,
            what,
            buffer: Vec::new(),
            start: 0,
            ahead: 0,
            limit: limits.table_window,
            known: 0..0,
            known_is_hole: false,
            told: 0,
        }
    }

    /// The storage that is read from.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The `length` bytes at file offset `at`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if they are not all inside the file (its length rounded up to a
    /// sector), [`ErrorKind::Limit`] if they are more than one window, [`ErrorKind::Io`].
    #[inline]
    pub fn bytes(&mut self, at: u64, length: usize) -> Result<&[u8]> {
        #[cfg(any(test, feature = "testkit"))]
        crate::testkit::serve(length);
        self.window(at, length)
    }

    /// The same, for who looks at the first entries of it only.
    ///
    /// # Errors
    /// As [`TableReader::bytes`].
    #[inline]
    pub fn window(&mut self, at: u64, length: usize) -> Result<&[u8]> {
        let in_buffer = at
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .and_then(|skip| Some((skip, skip.checked_add(length)?)))
            .filter(|(_, end)| *end <= self.buffer.len());
        let (from, to) = match in_buffer {
            Some(found) => found,
            None => self.load(at, length)?,
        };
        Ok(self.buffer.get(from..to).unwrap_or_default())
    }

    /// Decodes the structure of `length` bytes at file offset `at` as [`Fields::decode`] does.
    ///
    /// # Errors
    /// As [`TableReader::bytes`], and those of `decode`.
    pub fn decode<T>(
        &mut self,
        at: u64,
        length: usize,
        decode: impl Fn(Fields<'_>) -> Result<T>,
    ) -> Result<T> {
        let (what, file) = (self.what, self.storage.len());
        Fields::decode(what, at, self.bytes(at, length)?, file, decode)
    }

    /// How many of the `length` bytes at file offset `at`, from the first on, are zeros because
    /// the host stores nothing there: they need not be read. 0 for what is all in memory already and
    /// for what is not all inside the file.
    ///
    /// A large table with few entries is mostly a hole, if its writer left it to the host. Asking
    /// costs a seek for each border of a hole, so it is for tables of many pages.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn unstored(&mut self, at: u64, length: u64) -> Result<u64> {
        let end = at.checked_add(length).filter(|end| *end <= self.file_end());
        let Some(end) = end else { return Ok(0) };
        if at >= self.start && end <= self.start.saturating_add(self.buffer.len() as u64) {
            return Ok(0);
        }
        if !self.known.contains(&at) {
            let run = run_from(self.storage.as_ref(), at);
            let run =
                run.map_err(|error| Error::io("cannot look for holes in the file", error).at(at))?;
            self.known = at..run.end;
            self.known_is_hole = run.kind == RunKind::Hole;
        }
        Ok(if self.known_is_hole { self.known.end.min(end) - at } else { 0 })
    }

    /// Bytes from file offset `at` to the end of the hole in which [`TableReader::unstored`] has just
    /// found it, or of the file.
    pub(crate) fn known_hole(&self, at: u64) -> u64 {
        self.known.end.min(self.file_end()).saturating_sub(at)
    }

    /// Checks that the `length` bytes at file offset `at` are all inside the file.
    ///
    /// # Errors
    /// As [`TableReader::bytes`], if they are not.
    pub(crate) fn check_inside(&self, at: u64, length: u64) -> Result<()> {
        match at.checked_add(length).filter(|end| *end <= self.file_end()) {
            Some(_) => Ok(()),
            None => Err(self.outside(at, length)),
        }
    }

    /// What entry `index` of an upper table says, and how many entries from there on, `wanted` at
    /// most, are zero like it.
    ///
    /// If reads have had to wait lately, the storage is told where the next lower tables are.
    ///
    /// # Errors
    /// As [`TableReader::bytes`] and [`TableReader::unstored`].
    pub fn stretch<const N: usize>(
        &mut self,
        upper: &Upper<N>,
        index: u64,
        wanted: u64,
    ) -> Result<Stretch> {
        let width = N as u64;
        // What saturates is outside any file.
        let at = upper.at.saturating_add(index.saturating_mul(width));
        let unstored = self.unstored(at, wanted.saturating_mul(width))? / width;
        if unstored > 0 {
            return Ok(Stretch::Absent(unstored));
        }
        // Windows start at fixed places, so that a walk reads each of them once.
        let window = UPPER_WINDOW / width;
        let count = wanted.min(window - index % window);
        // No more than a window.
        let entries = self.window(at, usize::try_from(count * width).unwrap_or(0))?;
        let table = match (zero_entries::<N>(entries), entries.first_chunk()) {
            (0, Some(entry)) => (upper.place)(*entry),
            (zeros, _) => return Ok(Stretch::Absent(zeros as u64)),
        };
        if table == 0 {
            return Ok(Stretch::Absent(1));
        }
        if self.storage.is_slow() {
            self.announce(upper, index, wanted);
        }
        Ok(Stretch::Table(table))
    }

    /// Tells the storage where the lower tables are that entry `index` and those behind it name,
    /// `wanted` at most and as far as they are in memory. Wrong places do no harm.
    fn announce<const N: usize>(&mut self, upper: &Upper<N>, index: u64, wanted: u64) {
        let most = (ANNOUNCED_BYTES / upper.lower.max(1)).clamp(1, ANNOUNCED);
        let told =
            if self.told > index.saturating_add(most) { index } else { self.told.max(index) };
        // Not one by one: a medium answers many questions as fast as one.
        if told.saturating_sub(index) > most / 2 {
            return;
        }
        let from = upper.at.saturating_add(told.saturating_mul(N as u64));
        let skip = from.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let entries = skip.and_then(|skip| self.buffer.get(skip..)).unwrap_or_default();
        let until = index.saturating_add(wanted.min(most));
        let count = usize::try_from(until.saturating_sub(told)).unwrap_or(0);
        for entry in entries.chunks_exact(N).filter_map(<[u8]>::first_chunk).take(count) {
            match (upper.place)(*entry) {
                0 => {}
                at => self.storage.will_need(at, upper.lower),
            }
        }
        self.told = until;
    }

    /// Bytes that are held in memory, for [`ExtentSource::buffered`](crate::ExtentSource::buffered).
    pub fn buffered(&self) -> u64 {
        self.buffer.capacity() as u64
    }

    /// Gives them back, for [`ExtentSource::release`](crate::ExtentSource::release).
    pub fn release(&mut self) {
        self.buffer = Vec::new();
    }

    /// Where the file ends, its last sector filled up.
    fn file_end(&self) -> u64 {
        self.storage.len().next_multiple_of(SECTOR)
    }

    /// Fills the buffer and returns where in it the part lies.
    fn load(&mut self, at: u64, length: usize) -> Result<(usize, usize)> {
        Limits::check(self.what, length as u64, self.limit)?;
        let end = at
            .checked_add(length as u64)
            .filter(|end| *end <= self.file_end())
            .ok_or_else(|| self.outside(at, length as u64))?;
        let unit = read_unit(self.storage.as_ref());
        let first = at - at % unit;
        let read_up_to = self.start.saturating_add(self.buffer.len() as u64);
        // An entry may straddle the end of what was read.
        let follows = !self.buffer.is_empty() && (self.start..=read_up_to).contains(&first);
        let more = (self.ahead * 2).max(length as u64).min(AHEAD).max(unit);
        self.ahead = if follows { more } else { 0 };
        let last = (end + self.ahead).min(self.file_end()).max(end).next_multiple_of(unit);
        // `length` is bounded above, so the difference fits.
        let span = usize::try_from(last - first).map_err(|_| self.outside(at, length as u64))?;
        self.buffer.resize(span, 0);
        self.start = first;
        if let Err(error) = read_padded(self.storage.as_ref(), first, &mut self.buffer) {
            self.buffer.clear();
            return Err(Error::io(format!("cannot read the {}", self.what), error).at(at));
        }
        let skip = usize::try_from(at - first).map_err(|_| self.outside(at, length as u64))?;
        Ok((skip, skip.saturating_add(length)))
    }

    #[cold]
    fn outside(&self, at: u64, length: u64) -> Error {
        let (what, file) = (self.what, self.storage.len());
        Error::new(
            ErrorKind::Corrupt,
            format!("{what} ({length} bytes at {at:#x}) is outside the file of {file} bytes"),
        )
    }
}

/// How many of the `N`-byte entries that `table` consists of are zero, from the first on: in most
/// formats those of a stretch that does not exist, and there may be millions.
#[inline(always)]
pub fn zero_entries<const N: usize>(table: &[u8]) -> usize {
    match table.split_first_chunk() {
        // A call for a run only.
        Some((first, rest)) if *first == [0; N] => match rest.first_chunk() {
            Some(second) if *second == [0; N] => 1 + zero_run::<N>(rest),
            _ => 1,
        },
        _ => 0,
    }
}

#[inline(never)]
fn zero_run<const N: usize>(table: &[u8]) -> usize {
    let mut rest = table;
    // A whole line is one comparison.
    while let Some((line, next)) = rest.split_first_chunk() {
        if *line != [0; 64] {
            break;
        }
        rest = next;
    }
    while let Some((entry, next)) = rest.split_first_chunk() {
        if *entry != [0; N] {
            break;
        }
        rest = next;
    }
    (table.len() - rest.len()) / N
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;
    use crate::testkit::Meter;
    use pretty_assertions::assert_eq;

    #[test]
    fn zero_entries_are_counted_up_to_the_first_other() {
        for count in [0, 1, 7, 8, 9, 15, 16, 17, 100] {
            let mut table = vec![0; count * 8];
            assert_eq!(zero_entries::<8>(&table), count);
            assert_eq!(zero_entries::<4>(&table), count * 2);
            table.extend([0, 0, 0, 1]);
            table.extend([0; 200]);
            assert_eq!(zero_entries::<8>(&table), count);
            assert_eq!(zero_entries::<4>(&table), count * 2);
        }
    }

    /// Entries of 40 bytes once cost a read for each sector.
    #[test]
    fn entries_that_straddle_sectors_are_read_ahead() {
        let storage = Arc::new(MemoryStorage::new(1 << 20));
        let meter = Arc::new(Meter::new(storage, u64::MAX));
        let mut table = TableReader::new("snapshot table", meter.clone(), &Limits::default());
        for at in (0..1 << 20).step_by(40) {
            let length = usize::try_from(40.min((1 << 20) - at)).unwrap();
            table.bytes(at, length).unwrap();
        }
        assert!(meter.calls() < 32, "{} reads", meter.calls());
    }

    #[test]
    fn parts_inside_are_served_and_others_refused() {
        let bytes: Vec<u8> = (0..1500_u32).map(|i| i.to_le_bytes()[0]).collect();
        let storage = Arc::new(MemoryStorage::from_bytes(bytes.clone()));
        let mut table = TableReader::new("L1 table", storage, &Limits::default());
        assert_eq!(table.bytes(3, 8).unwrap(), &bytes[3..11]);
        assert_eq!(table.bytes(510, 8).unwrap(), &bytes[510..518]);
        assert_eq!(table.bytes(0, 0).unwrap(), &[0_u8; 0]);
        // The last sector is padded.
        assert_eq!(table.bytes(1498, 4).unwrap(), &[bytes[1498], bytes[1499], 0, 0]);
        for (at, length) in [(1536, 1), (1530, 8), (u64::MAX, 8), (u64::MAX - 8, 8)] {
            let error = table.bytes(at, length).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{at}");
        }
        assert_eq!(table.bytes(0, 5 << 20).unwrap_err().kind(), ErrorKind::Limit);
        assert_eq!(table.bytes(0, 4).unwrap(), &bytes[..4]);
    }

    #[test]
    fn stretches_of_an_upper_table() {
        let mut bytes = vec![0; 100_000];
        bytes[8 * 9000..8 * 9000 + 8].copy_from_slice(&7_u64.to_be_bytes());
        bytes[8 * 9100] = 0x80;
        let storage = MemoryStorage::new(300_000).with_data(96, bytes);
        let mut table = TableReader::new("L1 table", Arc::new(storage), &Limits::default());
        let place = |entry| u64::from_be_bytes(entry) & 0xff;
        let upper = Upper { at: 96, lower: 512, place };
        for (index, wanted, stretch) in [
            // To the end of the window, or of what is wanted.
            (0, 20_000, Stretch::Absent(8192)),
            (8192, 20_000, Stretch::Absent(808)),
            (8999, 5, Stretch::Absent(1)),
            (9000, 20_000, Stretch::Table(7)),
            (9001, 3, Stretch::Absent(3)),
            // An entry that is not zero and names no table.
            (9100, 3, Stretch::Absent(1)),
            // A hole, as far as it goes.
            (12_500, 20_000, Stretch::Absent(20_000)),
        ] {
            assert_eq!(table.stretch(&upper, index, wanted).unwrap(), stretch, "{index}");
        }
        assert_eq!(table.stretch(&upper, 40_000, 1).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(table.stretch(&upper, u64::MAX, 1).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_slow_storage_is_told_of_the_next_tables_once() {
        // Entry i names the table at 1000 * i; entry 0 and every tenth name none.
        let entry = |i: u64| if i % 10 == 0 { 0 } else { 1000 * i };
        let bytes: Vec<u8> = (0..9000).flat_map(|i| entry(i).to_le_bytes()).collect();
        let storage = Arc::new(Meter::new(Arc::new(MemoryStorage::from_bytes(bytes)), u64::MAX));
        let mut table = TableReader::new("L1 table", storage.clone(), &Limits::default());
        let mut told = |index: u64, lower: u64, is_slow: bool| {
            storage.set_slow(is_slow);
            let upper = Upper { at: 0, lower, place: u64::from_le_bytes };
            assert_eq!(
                table.stretch(&upper, index, 9000 - index).unwrap(),
                Stretch::Table(entry(index))
            );
            storage.take_announced()
        };
        let tables = |indices: Range<u64>, length: u64| -> Vec<_> {
            indices.map(entry).filter(|at| *at != 0).map(|at| (at, length)).collect()
        };
        assert_eq!(told(1, 512, false), []);
        assert_eq!(told(1, 512, true), tables(1..65, 512));
        assert_eq!(told(1, 512, true), []);
        assert_eq!(told(2, 512, true), []);
        // Half of them are used up.
        assert_eq!(told(33, 512, true), tables(65..97, 512));
        assert_eq!(told(34, 512, true), []);
        // From elsewhere, and back.
        assert_eq!(told(5001, 512, true), tables(5001..5065, 512));
        assert_eq!(told(7, 512, true), tables(7..71, 512));
        // At most 4 MiB, and at least one.
        assert_eq!(told(3001, 1 << 20, true), tables(3001..3005, 1 << 20));
        assert_eq!(told(4001, 8 << 20, true), tables(4001..4002, 8 << 20));
        // As far as the table goes, and what of it is in memory.
        assert_eq!(told(8991, 512, true), tables(8991..9000, 512));
        assert_eq!(told(8181, 512, true), tables(8181..8192, 512));
    }

    #[test]
    fn holes_need_not_be_read() {
        let storage = MemoryStorage::new(10_000).with_data(4096, [1; 1000]).with_data(9000, [1; 9]);
        let mut table = TableReader::new("table", Arc::new(storage), &Limits::default());
        for (at, length, unstored) in [
            (0, 100, 100),
            (0, 4096, 4096),
            (0, 5000, 4096),
            (4095, 2, 1),
            (4096, 10, 0),
            (5095, 10, 0),
            (5096, 10, 10),
            (9500, 740, 740),
            (9500, 741, 0),
            (u64::MAX, 2, 0),
        ] {
            assert_eq!(table.unstored(at, length).unwrap(), unstored, "{length} at {at}");
        }
        // What is in memory is not asked for; what was given back is.
        assert_eq!(table.bytes(6000, 8).unwrap(), &[0; 8]);
        assert!(table.buffered() >= 8);
        assert_eq!(table.unstored(6000, 8).unwrap(), 0);
        table.release();
        assert_eq!((table.buffered(), table.unstored(6000, 8).unwrap()), (0, 8));
        assert_eq!(table.bytes(4096, 2).unwrap(), &[1; 2]);
    }
}
