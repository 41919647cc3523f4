//! Laws that every format obeys, to be called from a format's tests.
//!
//! A broken law is a panic that says which one, as in any test.
#![allow(clippy::panic, clippy::indexing_slicing)]

mod answers;
mod cut;
mod format;
mod hostile;
mod input;
mod meter;
mod mutate;
mod random;
mod samples;
mod seal;
mod storage;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use crate::{
    Backing, Batch, Confidence, Context, Extent, ExtentSource, ExternalPolicy, Flow, Image,
    ImageFile, ImageFormat, Limits, Location, MemoryStorage, Notices, Opener, Place, Probe,
    QemuVersion, Result, RunKind, SECTOR, Status, Storage, open_layer, read_padded,
};

pub use answers::{Heard, listening, refusal, warnings};
pub use format::{Checked, check_format, check_registry};
pub use hostile::{Budget, Outcome, check_chain, check_hostile, check_image, check_rows, metadata};
pub use input::{decode, encode, join, split};
pub(crate) use meter::serve;
pub use meter::{Meter, served};
pub use mutate::Mutator;
pub use random::Random;
pub use samples::{Sample, SampleRegistration, registered_samples};
pub use seal::{Seal, seal};

/// A context for tests: other files are ignored, warnings dropped.
pub fn context() -> Arc<Context> {
    Arc::new(ignoring())
}

fn ignoring() -> Context {
    Context {
        limits: Limits::default(),
        qemu: QemuVersion::NEWEST,
        opener: Opener::new(ExternalPolicy::Ignore).expect("ignoring opens nothing"),
        notices: Notices::default(),
        ..Context::default()
    }
}

/// The same, but warnings are errors.
pub fn strict() -> Arc<Context> {
    Arc::new(Context { notices: Notices::new(true, |_| {}), ..ignoring() })
}

/// Opens an image in memory under the name `image`.
///
/// # Errors
/// The format's.
pub fn open(format: &dyn ImageFormat, storage: MemoryStorage) -> Result<Box<dyn ExtentSource>> {
    open_with(format, storage, &context())
}

/// Opens an image in memory under the name `image`, in this context.
///
/// # Errors
/// The format's.
pub fn open_with(
    format: &dyn ImageFormat,
    storage: MemoryStorage,
    context: &Arc<Context>,
) -> Result<Box<dyn ExtentSource>> {
    open_storage(format, Arc::new(storage), context)
}

/// Opens an image in any storage under the name `image`.
///
/// # Errors
/// The format's.
pub fn open_storage(
    format: &dyn ImageFormat,
    storage: Arc<dyn Storage>,
    context: &Arc<Context>,
) -> Result<Box<dyn ExtentSource>> {
    let location = Location::new(Path::new("image"));
    open_layer(format, Image { storage, location: &location, context })
}

/// What the format answers to a probe of an image in memory.
pub fn probe(format: &dyn ImageFormat, storage: &dyn Storage) -> Confidence {
    with_probe(storage, |probe| format.probe(probe))
}

/// What the format says that an image in memory seems to hold.
pub fn resembles(format: &dyn ImageFormat, storage: &dyn Storage) -> Option<&'static str> {
    with_probe(storage, |probe| format.resembles(probe))
}

fn with_probe<T>(storage: &dyn Storage, ask: impl FnOnce(&Probe<'_>) -> T) -> T {
    let padded = storage.len().next_multiple_of(SECTOR);
    let read = |start: u64, end: u64| {
        let mut bytes = vec![0; usize::try_from(end - start).expect("a small image")];
        read_padded(storage, start, &mut bytes).expect("memory can be read");
        bytes
    };
    let head = read(0, padded.min(128 << 10));
    let tail = read(padded.saturating_sub(4096), padded);
    ask(&Probe::new(&head, &tail, storage.len()))
}

/// The whole map of one layer as (length, status), neighbours merged.
///
/// # Errors
/// The format's.
pub fn extents(source: &mut dyn ExtentSource) -> Result<Vec<(u64, Status)>> {
    let size = source.virtual_size();
    let list = scan(source, 0, size, 4096)?;
    Ok(list.into_iter().map(|extent| (extent.length, extent.status())).collect())
}

/// Bytes of tables that are decoded for the whole map of an image in memory.
///
/// # Errors
/// The format's.
pub fn decoded(format: &dyn ImageFormat, storage: MemoryStorage) -> Result<u64> {
    let before = served();
    extents(open(format, storage)?.as_mut())?;
    Ok(served().wrapping_sub(before))
}

/// Checks a source opened by `open` against the laws: tiling, the same answer for any batch
/// size, from any start, for any end, twice, and without its buffers; data inside its file.
/// Returns the number of extents.
pub fn check_source(open: impl Fn() -> Result<Box<dyn ExtentSource>>) -> usize {
    let mut source = open().expect("the sample opens");
    let size = source.virtual_size();
    let whole = scan(source.as_mut(), 0, size, 4096).expect("the sample maps");
    assert_eq!(total(&whole), size, "the extents tile the disk");
    let again = scan(open().expect("opens twice").as_mut(), 0, size, 4096).expect("maps twice");
    assert_eq!(again, whole, "two scans agree");
    for capacity in [1, 2, 3, 17] {
        let list = scan(source.as_mut(), 0, size, capacity).expect("maps in small batches");
        assert_eq!(list, whole, "batches of {capacity} agree");
    }
    let list = scan_released(source.as_mut(), size).expect("maps with its buffers taken away");
    assert_eq!(list, whole, "nothing but time depends on buffers");
    for (start, end) in cuts(&whole, size) {
        let list = scan(source.as_mut(), start, end, 3).expect("maps in part");
        assert_eq!(list, part(&whole, start, end), "from {start} to {end} agrees");
    }
    for extent in &whole {
        check_place(source.as_ref(), extent);
    }
    whole.len()
}

/// Checks that a map does not depend on whether the host stores the zeros in tables: every eight
/// zero bytes of the image are made a hole. Not for formats that show holes of the host. Returns
/// the number of extents.
pub fn check_holes(format: &dyn ImageFormat, storage: &MemoryStorage) -> usize {
    let length = storage.len();
    let mut sparse = MemoryStorage::new(length);
    let mut at = 0;
    while at < length {
        let run = storage.run_at(at).expect("memory has runs");
        let end = run.end.min(length);
        if run.kind == RunKind::Data {
            let mut bytes = vec![0; usize::try_from(end - at).expect("a small image")];
            read_padded(storage, at, &mut bytes).expect("memory can be read");
            for (start, word) in (at..).step_by(8).zip(bytes.chunks(8)) {
                if word.iter().any(|byte| *byte != 0) {
                    sparse = sparse.with_data(start, word);
                }
            }
        }
        at = end;
    }
    let map = |storage: MemoryStorage| {
        let source = open(format, storage.with_allocated(length));
        extents(source.expect("the sample opens").as_mut()).expect("the sample maps")
    };
    let dense = map(storage.clone());
    assert_eq!(map(sparse), dense, "zeros that are not stored are zeros");
    dense.len()
}

/// All extents from `start` to `end`, through batches of `capacity`.
fn scan(
    source: &mut dyn ExtentSource,
    start: u64,
    end: u64,
    capacity: usize,
) -> Result<Vec<Extent>> {
    let mut merged = Batch::with_capacity(usize::MAX);
    merged.ask(start, end);
    let mut batch = Batch::with_capacity(capacity);
    while merged.cursor() < end {
        batch.ask(merged.cursor(), end);
        source.extents(&mut batch)?;
        assert!(batch.cursor() > merged.cursor(), "progress at {}", merged.cursor());
        for extent in batch.extents() {
            let _: Flow = merged.push(extent.length, extent.status());
        }
    }
    Ok(merged.extents().to_vec())
}

/// The same in batches of two, with all buffers given back before each.
fn scan_released(source: &mut dyn ExtentSource, size: u64) -> Result<Vec<Extent>> {
    let mut merged = Batch::with_capacity(usize::MAX);
    merged.ask(0, size);
    let mut batch = Batch::with_capacity(2);
    while merged.cursor() < size {
        source.release();
        assert_eq!(source.buffered(), 0, "what is given back is not held");
        batch.ask(merged.cursor(), size);
        source.extents(&mut batch)?;
        for extent in batch.extents() {
            let _: Flow = merged.push(extent.length, extent.status());
        }
    }
    Ok(merged.extents().to_vec())
}

fn total(list: &[Extent]) -> u64 {
    list.iter().map(|extent| extent.length).sum()
}

/// The part of `list` from `start` to `end`.
fn part(list: &[Extent], start: u64, end: u64) -> Vec<Extent> {
    let mut out = Batch::with_capacity(usize::MAX);
    out.ask(start, end);
    let mut at = 0;
    for extent in list {
        let next = at + extent.length;
        let (from, to) = (at.max(start), next.min(end));
        if from < to {
            let _: Flow = out.push(to - from, extent.status().advanced(from - at));
        }
        at = next;
    }
    out.extents().to_vec()
}

/// Ranges to ask about: around the borders of (at most 200) extents, and random ones.
fn cuts(list: &[Extent], size: u64) -> Vec<(u64, u64)> {
    let mut random = Random::new(size);
    let mut points = vec![0, size];
    let mut at = 0;
    for extent in list.iter().take(200) {
        at += extent.length;
        points.extend([at.saturating_sub(1), at, at + 1]);
    }
    points.extend((0..50).map(|_| random.next() % size.max(1)));
    let pairs = points
        .iter()
        .map(|start| (*start, size))
        .chain(points.iter().zip(points.iter().skip(3)).map(|(a, b)| (*a, *b)));
    pairs.filter(|(start, end)| start < end && *end <= size).collect()
}

fn check_place(source: &dyn ExtentSource, extent: &Extent) {
    let (Status::Data(place) | Status::DataOverHoles(place)) = extent.status() else {
        return;
    };
    let index = usize::try_from(place.file).expect("a file number");
    let file: &ImageFile = &source.files()[index];
    if let Some(storage) = &file.storage {
        let end = place.offset.checked_add(extent.length).expect("an end below 2^64");
        let padded = storage.len().next_multiple_of(SECTOR);
        assert!(end <= padded, "{extent:?} ends inside the file of {padded} bytes");
    }
}

/// A layer made of a list, for tests of what uses layers.
pub struct ListSource {
    list: Vec<(u64, Status)>,
    files: Vec<ImageFile>,
    backing: Option<Backing>,
}

impl ListSource {
    /// A layer with these extents (length in bytes, status), whose one file has this name and
    /// these bytes.
    pub fn new(list: Vec<(u64, Status)>, name: &str, storage: Option<Arc<dyn Storage>>) -> Self {
        Self { list, files: vec![ImageFile { name: name.into(), storage }], backing: None }
    }
}

impl ExtentSource for ListSource {
    fn virtual_size(&self) -> u64 {
        self.list.iter().map(|(length, _)| length).sum()
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let mut start = 0;
        for (length, status) in &self.list {
            let end = start + length;
            let at = out.cursor();
            if at < end && out.push(end - at, status.advanced(at - start)) == Flow::Stop {
                return Ok(());
            }
            start = end;
        }
        Ok(())
    }
}

/// Data at `offset` of the layer's first file, for brevity in expectations.
pub fn data(offset: u64) -> Status {
    Status::Data(Place::at(offset))
}
