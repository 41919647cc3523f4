//! What holds for any image, however broken: the laws of mutation tests and fuzzers.

use std::path::Path;
use std::sync::Arc;

use crate::{
    Batch, Chain, Context, Error, ErrorKind, Extent, ExtentSource, Flow, ImageFormat, Layer,
    MemoryStorage, Result, Row, RowReader, Shape, Storage, Window,
};

use super::{
    Meter, Mutator, Random, context, ignoring, listening, open_storage, part, probe, seal, served,
    strict,
};

/// What a damaged image may cost before its map is given up.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Bytes read to open it. More is a broken law if the file itself is smaller than half of
    /// that: a table may be checked as a whole, but not again and again.
    pub opening: u64,
    /// Bytes read to map it.
    pub mapping: u64,
    /// Rows of its map.
    pub rows: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { opening: 160 << 20, mapping: 64 << 20, rows: 20_000 }
    }
}

/// How a damaged image fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was not opened.
    Refused,
    /// Its map ended with an error.
    Broken,
    /// It was mapped to its end.
    Mapped,
    /// Its map was sound until the budget was used up.
    Unfinished,
}

/// Smallest batches first: what a format must not depend on.
const CAPACITIES: [usize; 4] = [1, 2, 3, 17];

/// Extents that are compared between batches of different sizes.
const COMPARED: usize = 2_000;

/// Reads that any map may take, whatever its tables hold.
const FREE_CALLS: u64 = 2_000;

/// Bytes of tables that any map may decode, and for each byte that is stored and each row.
const FREE_BYTES: u64 = 1 << 20;
const BYTES_PER_BYTE: u64 = 128;
const BYTES_PER_ROW: u64 = 4096;

/// Opens and maps an image that may be broken in any way, and checks that there is no panic, that
/// rows tile the disk, that errors are proper, that no more is read than its tables explain, and that
/// no more of tables is decoded than what is stored and the rows explain, however often one is named;
/// if `is_thorough`, also that batches of any size and questions from anywhere agree.
///
/// # Panics
/// If a law is broken.
pub fn check_image(
    format: &dyn ImageFormat,
    image: &MemoryStorage,
    budget: Budget,
    is_thorough: bool,
) -> Outcome {
    let image = Arc::new(image.clone());
    let _ = probe(format, image.as_ref());
    let (context, heard) = listening(ignoring());
    let open_in = |context: &Arc<Context>, bytes| {
        let meter = Arc::new(Meter::new(image.clone(), bytes));
        let storage: Arc<dyn Storage> = meter.clone();
        (open_storage(format, storage, context), meter)
    };
    let open = |bytes| open_in(&context, bytes);
    let (opened, opening) = open(budget.opening);
    if opening.is_exhausted() {
        let (read, length) = (opening.bytes(), image.len());
        assert!(length > budget.opening / 2, "opening read {read} bytes of a file of {length}");
        return Outcome::Unfinished;
    }
    let source = match opened {
        Ok(source) => source,
        Err(error) => {
            check_error(&error);
            return Outcome::Refused;
        }
    };
    drop(source);

    let (opened, meter) = open(opening.bytes().saturating_add(budget.mapping));
    let source = opened.expect("what opens once opens twice");
    assert_eq!(meter.bytes(), opening.bytes(), "opening twice reads the same");
    let layer = Layer::new(source, Path::new("image"), format.name());
    let before = served();
    let (outcome, rows) = count_rows(vec![layer], budget, &context, &[&meter]);
    let decoded = served().wrapping_sub(before);
    let stored: u64 = image.pieces().map(|(_, piece)| piece.len() as u64).sum();
    let expected = FREE_BYTES + BYTES_PER_BYTE * stored + BYTES_PER_ROW * rows as u64;
    assert!(
        decoded <= expected,
        "{decoded} bytes of tables decoded for {stored} that are stored and {rows} rows"
    );
    let words: u64 = image.pieces().map(|(_, piece)| piece.len() as u64 / 4).sum();
    let expected = FREE_CALLS + words + meter.bytes() / 4096;
    assert!(
        meter.calls() <= expected,
        "{} reads of {} bytes in all, for {words} words of metadata",
        meter.calls(),
        meter.bytes()
    );
    if !heard.take().is_empty() {
        let strict = strict();
        let (opened, meter) = open_in(&strict, opening.bytes().saturating_add(budget.mapping));
        let outcome = opened.map(|source| {
            let layer = Layer::new(source, Path::new("image"), format.name());
            check_rows(vec![layer], budget, &strict, &[&meter])
        });
        let is_lost = matches!(outcome, Ok(Outcome::Mapped));
        assert!(!is_lost, "what warns is an error if warnings are errors");
    }
    if is_thorough && outcome != Outcome::Unfinished {
        let opened = || open(u64::MAX).0.expect("what opens once opens again");
        check_questions(opened, outcome);
    }
    outcome
}

/// Maps layers, top first, and checks that their rows tile the disk as far as they go.
///
/// # Panics
/// If they do not.
pub fn check_rows(
    layers: Vec<Layer>,
    budget: Budget,
    context: &Arc<Context>,
    meters: &[&Arc<Meter>],
) -> Outcome {
    count_rows(layers, budget, context, meters).0
}

/// The same, and how many rows there were.
fn count_rows(
    layers: Vec<Layer>,
    budget: Budget,
    context: &Arc<Context>,
    meters: &[&Arc<Meter>],
) -> (Outcome, usize) {
    let mut rows = 0;
    let outcome = each_row(layers, context, |_, _| {
        rows += 1;
        rows < budget.rows
    });
    let outcome = match outcome {
        // A budget that is used up fails as a disk does.
        Outcome::Broken if meters.iter().any(|meter| meter.is_exhausted()) => Outcome::Unfinished,
        other => other,
    };
    (outcome, rows)
}

/// Calls `check` with every row, and checks that the rows tile the disk, until the answer is no.
fn each_row(
    layers: Vec<Layer>,
    context: &Arc<Context>,
    mut check: impl FnMut(&Row, &Chain) -> bool,
) -> Outcome {
    let depth = layers.len();
    let chain = match Chain::new(layers, Arc::clone(context)) {
        Ok(chain) => chain,
        Err(error) => {
            check_error(&error);
            return Outcome::Refused;
        }
    };
    let size = chain.virtual_size();
    let mut reader = RowReader::new(chain, Window::default(), Shape::WithCompressed);
    let mut at = 0;
    loop {
        let rows = match reader.next_rows() {
            Ok([]) => break,
            Ok(rows) => rows.to_vec(),
            Err(error) => {
                check_error(&error);
                return Outcome::Broken;
            }
        };
        for row in &rows {
            assert_eq!(row.start, at, "the rows leave no gap: {row:?}");
            assert!(row.length > 0 || size == 0, "no row is empty: {row:?}");
            at = at.checked_add(row.length).expect("a row ends below 2^64");
            assert!(at <= size, "no row ends behind the disk of {size} bytes: {row:?}");
            assert!((row.depth as usize) < depth, "the layer exists: {row:?}");
            assert!(
                !row.flags.has_offset() || (row.file as usize) < reader.chain().files().len(),
                "the file exists: {row:?}"
            );
            assert!(row.flags.state() != "none" || size == 0, "a row has columns: {row:?}");
            if !check(row, reader.chain()) {
                return Outcome::Unfinished;
            }
        }
    }
    assert_eq!(at, size, "the rows tile the disk");
    Outcome::Mapped
}

/// Checks an error that a damaged image led to.
fn check_error(error: &Error) {
    let text = error.to_string();
    assert_ne!(error.kind(), ErrorKind::Bug, "{text}");
    assert!(!text.is_empty() && !text.ends_with('.'), "a proper message: {text:?}");
    assert!(!text.contains('\n'), "one line: {text:?}");
}

/// Checks that batches of any size and questions from anywhere tell the same.
fn check_questions(open: impl Fn() -> Box<dyn ExtentSource>, outcome: Outcome) {
    let size = open().virtual_size();
    let whole = scan(open().as_mut(), 0, size, 4096);
    for capacity in CAPACITIES {
        let other = scan(open().as_mut(), 0, size, capacity);
        same(&other, &whole, &format!("batches of {capacity}"));
    }
    // Behind an error there is nothing to compare with.
    if outcome != Outcome::Mapped || whole.is_cut {
        return;
    }
    let mut random = Random::new(size ^ whole.extents.len() as u64);
    let mut source = open();
    for _ in 0..4 {
        let start = random.next() % size.max(1);
        let end = match random.below(2) {
            0 => size,
            _ => start + random.next() % (size - start).max(1),
        };
        let some = scan(source.as_mut(), start, end, 3);
        let extents = part(&whole.extents, start, end);
        let expected = Scan { extents, error: None, is_cut: false };
        same(&some, &expected, &format!("from {start} to {end}"));
    }
}

/// What a source said until it failed or enough was seen.
#[derive(Debug, PartialEq, Eq)]
struct Scan {
    extents: Vec<Extent>,
    error: Option<String>,
    /// There is more.
    is_cut: bool,
}

#[track_caller]
fn same(found: &Scan, expected: &Scan, asked: &str) {
    let alike = |(a, b): &(&Extent, &Extent)| a == b;
    let index = found.extents.iter().zip(&expected.extents).take_while(alike).count();
    let at: u64 = found.extents.iter().take(index).map(|extent| extent.length).sum();
    assert!(
        found == expected,
        "{asked}: after {at} bytes {:?}, then {:?}; and not {:?}, then {:?}",
        found.extents.get(index),
        found.error,
        expected.extents.get(index),
        expected.error
    );
}

fn scan(source: &mut dyn ExtentSource, start: u64, end: u64, capacity: usize) -> Scan {
    let mut merged = Batch::with_capacity(COMPARED);
    merged.ask(start, end);
    let mut batch = Batch::with_capacity(capacity);
    let mut error = None;
    while merged.cursor() < end && error.is_none() {
        batch.ask(merged.cursor(), end);
        error = source.extents(&mut batch).err().map(|error| {
            check_error(&error);
            error.to_string()
        });
        assert!(
            batch.cursor() > batch.start() || error.is_some(),
            "progress at {}",
            batch.cursor()
        );
        let mut is_full = false;
        for extent in batch.extents() {
            let before = merged.cursor();
            let _: Flow = merged.push(extent.length, extent.status());
            is_full |= merged.cursor() == before;
        }
        if is_full {
            // The last one may go on.
            let mut extents = merged.extents().to_vec();
            extents.pop();
            return Scan { extents, error: None, is_cut: true };
        }
    }
    Scan { extents: merged.extents().to_vec(), error, is_cut: false }
}

/// Composes images as a chain, top first, each in the format that `detect` finds for it, and
/// checks the rows against what each layer alone says.
///
/// # Panics
/// If a law is broken.
pub fn check_chain(
    images: &[MemoryStorage],
    budget: Budget,
    detect: impl Fn(&dyn Storage) -> Result<&'static dyn ImageFormat>,
) -> Outcome {
    let context = context();
    let mut meters = Vec::new();
    let mut layers = Vec::new();
    let mut alone: Vec<(u64, Box<dyn ExtentSource>)> = Vec::new();
    for image in images {
        let storage = Arc::new(image.clone());
        let opened = detect(storage.as_ref()).and_then(|format| {
            let meter = Arc::new(Meter::new(storage.clone(), budget.opening + budget.mapping));
            let source = open_storage(format, meter.clone(), &context)?;
            Ok((source, open_storage(format, storage, &context)?, meter, format.name()))
        });
        match opened {
            Ok((source, again, meter, name)) => {
                meters.push(meter);
                alone.push((again.virtual_size(), again));
                layers.push(Layer::new(source, Path::new("image"), name));
            }
            Err(error) => {
                check_error(&error);
                return Outcome::Refused;
            }
        }
    }
    if layers.is_empty() {
        return Outcome::Refused;
    }
    let mut rows = 0;
    let outcome = each_row(layers, &context, |row, _| {
        rows += 1;
        if rows < 200 || rows % 64 == 0 {
            check_composition(row, &mut alone);
        }
        rows < budget.rows
    });
    match outcome {
        Outcome::Broken if meters.iter().any(|meter| meter.is_exhausted()) => Outcome::Unfinished,
        other => other,
    }
}

/// Checks the ends of a row: the layers above say nothing, the row's own says what is in it.
fn check_composition(row: &Row, layers: &mut [(u64, Box<dyn ExtentSource>)]) {
    for at in [row.start, row.start + row.length.saturating_sub(1)] {
        let depth = usize::try_from(row.depth).unwrap_or(usize::MAX);
        for index in 0..=depth {
            let below = layers.get(index + 1).map(|(size, _)| *size);
            let Some((size, source)) = layers.get_mut(index) else { return };
            if at >= *size {
                return;
            }
            let mut batch = Batch::with_capacity(1);
            batch.ask(at, at + 1);
            // The chain asked for more at a time, and was told before something was found wrong.
            if source.extents(&mut batch).is_err() {
                return;
            }
            let Some(status) = batch.extents().first().map(Extent::status) else { return };
            let is_passed_on = status.is_absent() && below.is_some_and(|size| at < size);
            assert_eq!(is_passed_on, index < depth, "layer {index} says {status:?}: {row:?}");
            if index == depth {
                let known = crate::Flags::of(status);
                let is_same = known.present() == row.flags.present()
                    && known.compressed() == row.flags.compressed()
                    && known.data() == row.flags.data();
                assert!(is_same, "layer {index} says {status:?}: {row:?}");
                let offset = status.place().map(|place| place.offset.wrapping_sub(at - row.start));
                assert_eq!(offset, row.offset(), "layer {index} says {status:?}: {row:?}");
            }
        }
    }
}

/// The part of an image that is read to map it, as far as that goes: what is worth altering.
///
/// # Errors
/// [`ErrorKind::Io`] if the storage cannot be read.
pub fn metadata(format: &dyn ImageFormat, image: Arc<dyn Storage>) -> Result<MemoryStorage> {
    let budget = Budget::default();
    let meter = Arc::new(Meter::new(image, budget.opening + budget.mapping).with_trace());
    let context = context();
    if let Ok(source) = open_storage(format, meter.clone(), &context) {
        let layer = Layer::new(source, Path::new("image"), format.name());
        check_rows(vec![layer], budget, &context, &[&meter]);
    }
    meter.image()
}

/// Truncates and alters an image in memory: every variant opens and maps, or is an error; none
/// panics, goes on without end or breaks another law. Returns how many variants were tried.
///
/// Checksums are made right in most of them if the format has a
/// [`register_seal!`](crate::register_seal!).
pub fn check_hostile(format: &dyn ImageFormat, bytes: &[u8], mutations: usize) -> usize {
    damage(format, &MemoryStorage::from_bytes(bytes), mutations)
}

/// As [`check_hostile`], for an image that may have holes.
pub(super) fn damage(format: &dyn ImageFormat, image: &MemoryStorage, mutations: usize) -> usize {
    let read = metadata(format, Arc::new(image.clone())).expect("memory can be read");
    let image = if read.pieces().next().is_some() { &read } else { image };
    let mut tried = 0;
    let mut try_one = |image: &MemoryStorage| {
        check_image(format, image, Budget::default(), tried % 16 == 0);
        tried += 1;
    };
    let length = image.len();
    let parts = (0..64).map(|part| u128::from(length) * part / 64);
    let parts = parts.map(|cut| u64::try_from(cut).expect("at most the length"));
    for cut in parts.chain([1, 3, 511, 512, 513, length.saturating_sub(1)]) {
        let mut short = image.clone();
        short.set_len(length.min(cut));
        try_one(&short);
    }
    for seed in 0..mutations as u64 {
        let mut mutant = image.clone();
        Mutator::new(seed.wrapping_add(length << 32)).mutate(&mut mutant);
        if seed % 8 != 0 {
            seal(format.name(), &mut mutant);
        }
        try_one(&mutant);
    }
    tried
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{Confidence, Image, ImageFile, Place, Probe, Status, TableReader};
    use pretty_assertions::assert_eq;

    /// A format that breaks one law.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Fault {
        None,
        ReadsMuchToOpen,
        ReadsEntryByEntry,
        DecodesTooMuch,
        DependsOnBatch,
        DependsOnStart,
        StopsWithoutError,
        SaysBug,
    }

    impl ImageFormat for Fault {
        fn name(&self) -> &'static str {
            "fault"
        }

        fn about(&self) -> &'static str {
            "breaks a law"
        }

        fn probe(&self, _: &Probe<'_>) -> Confidence {
            Confidence::No
        }

        fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
            if *self == Self::ReadsMuchToOpen {
                let mut buffer = vec![0; 1 << 20];
                for _ in 0..200 {
                    let read = crate::read_padded(image.storage.as_ref(), 0, &mut buffer);
                    read.map_err(|error| Error::io("cannot read", error))?;
                }
            }
            let table = TableReader::new("table", image.storage.clone(), &image.context.limits);
            Ok(Box::new(Source { fault: *self, file: [image.file()], table, calls: 0 }))
        }
    }

    struct Source {
        fault: Fault,
        file: [ImageFile; 1],
        table: TableReader,
        calls: u64,
    }

    impl ExtentSource for Source {
        fn virtual_size(&self) -> u64 {
            1 << 20
        }

        fn files(&self) -> &[ImageFile] {
            &self.file
        }

        fn extents(&mut self, out: &mut Batch) -> Result<()> {
            self.calls += 1;
            if out.cursor() >= 1 << 19 {
                match self.fault {
                    Fault::StopsWithoutError => return Ok(()),
                    Fault::SaysBug => return Err(Error::new(ErrorKind::Bug, "lost")),
                    _ => {}
                }
            }
            if self.fault == Fault::DependsOnStart && out.cursor() % 512 != 0 {
                let _: Flow = out.push(u64::MAX, Status::Absent);
                return Ok(());
            }
            while out.cursor() < out.end() {
                let at = out.cursor();
                if self.fault == Fault::ReadsEntryByEntry {
                    let storage = self.file[0].storage.as_ref().unwrap();
                    for _ in 0..4 {
                        let read = crate::read_padded(storage.as_ref(), at % 64, &mut [0; 8]);
                        read.map_err(|error| Error::io("cannot read", error))?;
                    }
                }
                if self.fault == Fault::DecodesTooMuch {
                    self.table.bytes(0, 4096)?;
                    self.table.bytes(0, 4096)?;
                }
                let status = match at / 1024 % 3 {
                    0 => Status::Absent,
                    1 => Status::Zero,
                    _ if self.fault == Fault::DependsOnBatch && self.calls > 5 => Status::Opaque,
                    _ => Status::Data(Place::at(at)),
                };
                let inside = at % 1024;
                if out.push(1024 - inside, status) == Flow::Stop {
                    break;
                }
            }
            Ok(())
        }
    }

    /// Each law is seen to be broken by a format that breaks it, and by no other.
    #[test]
    fn broken_laws_are_noticed() {
        let image = MemoryStorage::from_bytes(vec![0; 4096]);
        let check = |format: Fault| {
            let budget = Budget { rows: 1 << 20, ..Budget::default() };
            let checked =
                catch_unwind(AssertUnwindSafe(|| check_image(&format, &image, budget, true)));
            checked.map_err(|panic| match panic.downcast::<String>() {
                Ok(text) => *text,
                Err(_) => "no text".to_owned(),
            })
        };
        assert_eq!(check(Fault::None).ok(), Some(Outcome::Mapped));
        for (fault, text) in [
            (Fault::ReadsMuchToOpen, "opening read"),
            (Fault::ReadsEntryByEntry, "reads of"),
            (Fault::DecodesTooMuch, "8388608 bytes of tables decoded for 4096"),
            (Fault::DependsOnBatch, "batches of 1: after"),
            (Fault::DependsOnStart, "from "),
            (Fault::StopsWithoutError, "progress at 524288"),
            (Fault::SaysBug, "lost"),
        ] {
            let said = check(fault).expect_err(text);
            assert!(said.contains(text), "{said:?} is to say {text:?}");
        }
    }
}
