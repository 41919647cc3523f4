//! All laws at once: of one format and its samples, and of all formats of a program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::cut::check_cut;
use super::hostile::damage;
use super::samples::SampleRegistration;
use super::storage::{Failing, Odd, Oddity};
use super::{Sample, check_source, context, open, open_storage, probe, registered_samples, scan};
use crate::{
    Batch, Chain, Confidence, Context, Error, ErrorKind, Extent, ExtentSource, Flow, ImageFile,
    ImageFormat, Layer, MAX_LENGTH, MemoryStorage, Opener, Registry, Result, Row, RowReader,
    SECTOR, Shape, Storage, Window, detect,
};

/// How often each sample is damaged.
const DAMAGES: usize = 1_000;
/// Calls to the storage that are made to fail, one sample at a time.
const FAULTS: u64 = 64;
/// Units of reads with which the map must be the same.
const READ_UNITS: [u64; 3] = [512, 4096, 2 << 20];

/// What [`check_format`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Samples that obey the laws.
    pub samples: usize,
    /// Damaged variants of them that are a map or an error.
    pub damaged: usize,
    /// Variants that end early and are a map, or an error that blames nothing that is missing.
    pub cut: usize,
    /// Calls to the storage that were made to fail, and were an error.
    pub faults: usize,
    /// Odd answers of the storage that led to an error.
    pub oddities: usize,
    /// Errors of the source, at one point of the map after the other, that the map ended with.
    pub errors: usize,
}

/// Checks a format against every law, on these samples. The laws:
///
/// - Name and aliases are short and in lower case, and so are the file name endings; none is said
///   twice. There is a description.
/// - Each sample opens, maps to the extents that it says, and obeys what [`check_source`] checks.
/// - The format claims its samples, but no empty file and no zeros. Those it refuses to open, and
///   the longer ones are [`ErrorKind::WrongFormat`].
/// - The answer does not depend on the unit of reads.
/// - If the storage fails, so does opening or mapping, as [`ErrorKind::Io`].
/// - A storage that reads less than it was asked for gives the same map. One that reads nothing
///   before its end, or claims to have read too much, or says that a hole ends where it begins,
///   gives the same map or an error, as does one of an impossible length.
/// - An error of the source is never lost, wherever it comes and whatever was appended before.
/// - What warns is an error if warnings are errors.
/// - Other files are not needed, or asked for through [`Image::members`].
/// - An image that is cut short is a map, or an error that does not blame what is not in the file:
///   one about something past the end of the file says how long the file is, and none depends on
///   the zeros that fill up the last sector. ([`Fields::decode`](crate::Fields::decode) sees to
///   that.)
/// - Every truncated or damaged variant is a map or an error; none panics or goes on without end.
///
/// # Panics
/// If a law is broken, with its statement and the sample.
pub fn check_format(format: &dyn ImageFormat, samples: &[Sample]) -> Checked {
    check_words(format);
    check_nothing(format);
    assert!(!samples.is_empty(), "{} has samples", format.name());
    let names: BTreeSet<&str> = samples.iter().map(Sample::name).collect();
    assert_eq!(names.len(), samples.len(), "every sample has a name of its own: {names:?}");
    let mut checked = Checked::default();
    for sample in samples {
        let about = format!("{}: sample {:?}", format.name(), sample.name());
        // Shown by a test that fails.
        eprintln!("{about}");
        let count = check_source(|| open(format, sample.image().clone()));
        assert_eq!(count, sample.extents(), "{about} has as many extents as it says");
        let claimed = probe(format, sample.image()) != Confidence::No;
        assert_eq!(claimed, sample.is_detected(), "{about} is claimed if it is to be");
        check_read_units(format, sample, &about);
        check_other_files(format, sample, &about);
        checked.faults += check_faults(format, sample, &about);
        checked.oddities += check_oddities(format, sample, &about);
        checked.errors += check_errors(format, sample, &about);
        checked.cut += check_cut(format, sample.image(), &about);
        checked.damaged += check_damaged(format, sample);
        checked.samples += 1;
    }
    checked
}

/// Checks all formats of a program on the samples that are registered for them: [`check_format`]
/// for each, and that they agree with each other. A sample is claimed by its own format surer than
/// by any other, and every other format refuses to open it (but for those that take any file, such
/// as raw). Returns what was checked for each format, by name.
///
/// # Panics
/// If a law is broken, a format has no samples, or samples are registered for a format that is not.
pub fn check_registry(registry: &Registry) -> BTreeMap<&'static str, Checked> {
    let formats: Vec<&dyn ImageFormat> = registry.entries().iter().map(|e| e.format).collect();
    for SampleRegistration { format, package, .. } in inventory::iter::<SampleRegistration> {
        let known = formats.iter().any(|known| known.name() == format.name());
        assert!(known, "{package} has samples of {}, which is not registered", format.name());
    }
    let mut checked = BTreeMap::new();
    for format in &formats {
        let name = format.name();
        let samples = registered_samples(name);
        for sample in &samples {
            let about = format!("{name}: sample {:?}", sample.name());
            let found = detect(registry, sample.image()).expect("memory can be read");
            let winner = found.winner().ok().map(|winner| winner.name());
            assert_eq!(winner == Some(name), sample.is_detected(), "{about} is in {winner:?}");
            for other in formats.iter().filter(|other| other.name() != name) {
                let refused =
                    takes_anything(*other) || open(*other, sample.image().clone()).is_err();
                assert!(refused, "{about} is opened by {} too", other.name());
            }
        }
        checked.insert(name, check_format(*format, &samples));
    }
    checked
}

fn check_words(format: &dyn ImageFormat) {
    let is_word = |word: &str| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        (1..=16).contains(&word.len()) && word.chars().all(allowed) && !word.starts_with(['-', '.'])
    };
    let mut names = BTreeSet::from(["auto"]);
    for name in std::iter::once(format.name()).chain(format.aliases().iter().copied()) {
        assert!(is_word(name), "a name is up to 16 lower-case letters and digits: {name:?}");
        assert!(names.insert(name), "a name is said once, and is not auto: {name}");
    }
    let mut endings = BTreeSet::new();
    for ending in format.extensions() {
        assert!(is_word(ending), "an ending is lower case and has no dot in front: {ending:?}");
        assert!(endings.insert(ending), "an ending is said once: {ending}");
    }
    let about = format.about();
    assert!(!about.trim().is_empty(), "{} says what it covers", format.name());
    assert!(!about.contains(char::is_control), "that is one line: {about:?}");
    for id in format.divergences() {
        let is_heading = !id.is_empty() && !id.contains(char::is_whitespace);
        assert!(is_heading, "a difference has a name without spaces: {id:?}");
    }
}

/// Whether the format opens files of any content.
fn takes_anything(format: &dyn ImageFormat) -> bool {
    probe(format, &MemoryStorage::new(0)) == Confidence::Fallback
}

fn check_nothing(format: &dyn ImageFormat) {
    if takes_anything(format) {
        return;
    }
    for length in [0, 1, 511, 512, 4096, 1 << 20] {
        let zeros = || MemoryStorage::new(length);
        let answer = probe(format, &zeros());
        assert_eq!(answer, Confidence::No, "{length} zeros are in no format");
        let error = open(format, zeros()).err().expect("zeros are not opened");
        // Of a file that is too short for a header, one may say just that.
        let wrong = length < 4096 || error.kind() == ErrorKind::WrongFormat;
        assert!(wrong, "{length} zeros are the wrong format: {:?}: {error}", error.kind());
    }
}

fn check_read_units(format: &dyn ImageFormat, sample: &Sample, about: &str) {
    let map = |unit| {
        let image: Arc<dyn Storage> = Arc::new(sample.image().clone());
        let storage = Arc::new(Failing::new(image, u64::MAX / 2, unit));
        map_all(format, storage, &context()).expect("the sample maps")
    };
    let [first, others @ ..] = READ_UNITS.map(map);
    for (other, unit) in others.iter().zip(&READ_UNITS[1..]) {
        assert_eq!(*other, first, "{about} read in units of {unit} has the same map");
    }
}

fn check_other_files(format: &dyn ImageFormat, sample: &Sample, about: &str) {
    let context = Arc::new(Context { opener: Opener::default(), ..Context::default() });
    if let Err(error) = map_all(format, Arc::new(sample.image().clone()), &context) {
        let kind = error.kind();
        assert_eq!(kind, ErrorKind::External, "{about} with other files refused: {error}");
    }
    let source = open(format, sample.image().clone()).expect("the sample opens");
    if let Some(backing) = source.backing() {
        let named = backing.names.iter().all(|name| !name.is_empty());
        assert!(named, "{about} has no empty name for the layer below");
    }
}

/// Makes the storage fail from its `n`-th call on, for one `n` after the other.
fn check_faults(format: &dyn ImageFormat, sample: &Sample, about: &str) -> usize {
    let mut faults = 0;
    for calls in 0..FAULTS {
        let image: Arc<dyn Storage> = Arc::new(sample.image().clone());
        let storage = Arc::new(Failing::new(image, calls, SECTOR));
        let outcome = map_all(format, Arc::clone(&storage) as Arc<dyn Storage>, &context());
        if storage.left().is_some() {
            break;
        }
        let kind = outcome.err().map(|error| error.kind());
        assert_eq!(kind, Some(ErrorKind::Io), "{about}: call {calls} of the storage fails");
        faults += 1;
    }
    faults
}

/// Makes the storage answer oddly, in one call after the other. Returns how many answers led to an
/// error.
fn check_oddities(format: &dyn ImageFormat, sample: &Sample, about: &str) -> usize {
    let image: Arc<dyn Storage> = Arc::new(sample.image().clone());
    let map = |oddity| {
        let odd = Arc::new(Odd::new(Arc::clone(&image), oddity));
        let storage: Arc<dyn Storage> = odd.clone();
        (rows(format, storage), odd.calls())
    };
    let (sound, _) = map(Oddity::Allocated(image.allocated()));
    let sound = sound.expect("the sample maps");
    let same = |oddity| {
        let found = map(oddity).0.unwrap_or_else(|error| panic!("{about}, {oddity:?}: {error}"));
        assert_eq!(found, sound, "{about}, {oddity:?}: the same map");
    };
    same(Oddity::ShortReads);
    // No power of two, or far too large: not kept to.
    for unit in [0, 3, 1 << 40, u64::MAX] {
        same(Oddity::Unit(unit));
    }
    for length in [u64::MAX, u64::MAX - 511, MAX_LENGTH + 1] {
        let error = map(Oddity::Length(length)).0.expect_err("an impossible length is an error");
        assert_eq!(error.kind(), ErrorKind::Limit, "{about} of {length} bytes: {error}");
    }
    // The map may depend on it, but not fail by it.
    map(Oddity::Allocated(u64::MAX)).0.expect("the sample maps, whatever is allocated");
    let mut errors = 0;
    for call in 0..FAULTS {
        same(Oddity::ShortRead(call));
        for oddity in [Oddity::EmptyRead(call), Oddity::LongRead(call), Oddity::EmptyRun(call)] {
            let (found, calls) = map(oddity);
            match found {
                Ok(found) => assert_eq!(found, sound, "{about}, {oddity:?}: the same map"),
                Err(error) => {
                    assert!(calls > call, "{about} fails without {oddity:?}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Io, "{about}, {oddity:?}: {error}");
                    errors += 1;
                }
            }
        }
    }
    errors
}

/// A source that fails on purpose, at one of its calls, after it has appended.
struct Failed {
    inner: Box<dyn ExtentSource>,
    /// Calls that still succeed.
    calls: u64,
    /// Extents that one call appends at most.
    capacity: usize,
}

const FAILED: &str = "a fault on purpose";

impl ExtentSource for Failed {
    fn virtual_size(&self) -> u64 {
        self.inner.virtual_size()
    }

    fn files(&self) -> &[ImageFile] {
        self.inner.files()
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let mut some = Batch::with_capacity(self.capacity);
        some.ask(out.cursor(), out.end());
        self.inner.extents(&mut some)?;
        for extent in some.extents() {
            let _: Flow = out.push(extent.length, extent.status());
        }
        match self.calls.checked_sub(1) {
            Some(calls) => self.calls = calls,
            None => return Err(Error::new(ErrorKind::Corrupt, FAILED)),
        }
        Ok(())
    }
}

/// Makes the source fail at one call after the other, the last one included. Returns how many
/// errors there were.
fn check_errors(format: &dyn ImageFormat, sample: &Sample, about: &str) -> usize {
    let mut errors = 0;
    for capacity in [1, 3, usize::MAX] {
        for calls in 0..FAULTS {
            let inner = open(format, sample.image().clone()).expect("the sample opens");
            if inner.virtual_size() == 0 {
                return 0;
            }
            let source = Failed { inner, calls, capacity };
            let layer = Layer::new(Box::new(source), Path::new("image"), format.name());
            match layer_rows(layer, &context()) {
                // There were fewer calls.
                Ok(_) => break,
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(FAILED), "{about}, call {calls} fails: {text}");
                    errors += 1;
                }
            }
        }
    }
    // At least the first call, of each of the capacities.
    assert!(errors >= 3, "{about}: {errors} errors were made and not lost");
    errors
}

/// The whole map of one layer as rows, through a chain.
fn rows(format: &dyn ImageFormat, storage: Arc<dyn Storage>) -> Result<Vec<Row>> {
    let context = context();
    let source = open_storage(format, Arc::clone(&storage), &context)?;
    let layer = Layer::new(source, Path::new("image"), format.name()).opened_from(storage);
    layer_rows(layer, &context)
}

fn layer_rows(layer: Layer, context: &Arc<Context>) -> Result<Vec<Row>> {
    let chain = Chain::new(vec![layer], Arc::clone(context))?;
    let mut reader = RowReader::new(chain, Window::default(), Shape::WithCompressed);
    let mut all = Vec::new();
    loop {
        match reader.next_rows()? {
            [] => return Ok(all),
            rows => all.extend_from_slice(rows),
        }
    }
}

fn map_all(
    format: &dyn ImageFormat,
    storage: Arc<dyn Storage>,
    context: &Arc<Context>,
) -> Result<Vec<Extent>> {
    let mut source = open_storage(format, storage, context)?;
    let size = source.virtual_size();
    scan(source.as_mut(), 0, size, 4096)
}

fn check_damaged(format: &dyn ImageFormat, sample: &Sample) -> usize {
    damage(format, sample.image(), DAMAGES)
}
