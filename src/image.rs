//! Images for programs: the same map, as values.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use instar_core::{
    Chain, Context, Error, ErrorKind, ExternalPolicy, FileStorage, ImageFile, ImageFormat, Limits,
    Notice, Notices, Opener, QemuVersion, Registry, Result, Row, RowReader, Shape, Storage, Window,
    open_chain,
};

/// Smallest and largest granularity of reads, in bytes.
pub(crate) const READ_UNITS: std::ops::RangeInclusive<u64> = 512..=2 << 20;

type Sink = Box<dyn Fn(&Notice) + Send + Sync>;

/// How an image is to be opened. The defaults are those of `instar map`.
///
/// ```
/// use instar::{ExternalPolicy, Options, Window};
///
/// let options = Options::new()
///     .external(ExternalPolicy::Follow { allow_under: vec!["/srv/images".into()] })
///     .window(Window { start: 0, length: Some(1 << 20) })
///     .on_notice(|notice| eprintln!("{}", notice.text));
/// # drop(options);
/// ```
#[non_exhaustive]
#[must_use]
#[derive(Default)]
pub struct Options {
    format: Option<String>,
    external: ExternalPolicy,
    limits: Limits,
    qemu: QemuVersion,
    window: Window,
    read_unit: Option<u64>,
    strict: bool,
    sink: Option<Sink>,
}

impl Options {
    /// The defaults: the format is detected, other files are refused, the whole disk is mapped,
    /// warnings and notes are dropped.
    pub fn new() -> Self {
        Self::default()
    }

    /// The format's name or alias, instead of detection.
    pub fn format(mut self, name: impl Into<String>) -> Self {
        self.format = Some(name.into());
        self
    }

    /// What to do about other files that the image names.
    pub fn external(mut self, policy: ExternalPolicy) -> Self {
        self.external = policy;
        self
    }

    /// Bounds on what the image may cost, such as the number of backing files.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whose rules count where versions of qemu differ, such as the size of some VHD images.
    /// Extents always have all their columns.
    pub fn qemu_version(mut self, version: QemuVersion) -> Self {
        self.qemu = version;
        self
    }

    /// The part of the disk that [`Image::extents`] covers.
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// Alignment and granularity of every read, in bytes: a power of two from 512 to 2 MiB; 4 KiB
    /// by default.
    pub fn read_unit(mut self, bytes: u64) -> Self {
        self.read_unit = Some(bytes);
        self
    }

    /// Whether warnings are errors.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Where warnings and notes go: what a user should know about an image that has a map.
    pub fn on_notice(mut self, sink: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        self.sink = Some(Box::new(sink));
        self
    }

    /// The formats that there are, and the one that was chosen.
    fn check(&self) -> Result<(Registry, Option<&'static dyn ImageFormat>)> {
        if let Some(unit) = self.read_unit {
            if !unit.is_power_of_two() || !READ_UNITS.contains(&unit) {
                let text =
                    format!("the unit of reads is {unit}: no power of two from 512 to 2 MiB");
                return Err(Error::new(ErrorKind::Usage, text));
            }
        }
        let registry = crate::registry()?;
        let format = self.format.as_deref().map(|name| registry.find(name)).transpose()?;
        Ok((registry, format))
    }

    /// What holds for the whole map.
    pub(crate) fn into_context(self) -> Result<Context> {
        let mut opener = Opener::new(self.external)?;
        if let Some(unit) = self.read_unit {
            opener = opener.with_read_unit(unit);
        }
        let sink = self.sink.unwrap_or_else(|| Box::new(|_| {}));
        let notices = Notices::new(self.strict, sink);
        let (limits, qemu) = (self.limits, self.qemu);
        Ok(Context { limits, qemu, opener, notices, ..Context::default() })
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("format", &self.format)
            .field("external", &self.external)
            .field("limits", &self.limits)
            .field("qemu", &self.qemu)
            .field("window", &self.window)
            .field("read_unit", &self.read_unit)
            .field("strict", &self.strict)
            .finish_non_exhaustive()
    }
}

/// A disk image with the layers below it, open to be mapped.
///
/// The process is not confined in any way: that is the program's own decision.
pub struct Image {
    chain: Chain,
    window: Window,
}

/// One image of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerSummary {
    /// The file, as it was given or as the layer above names it.
    pub path: PathBuf,
    /// The name of its format.
    pub format: &'static str,
    /// Length of its disk, in bytes.
    pub virtual_size: u64,
}

impl Image {
    /// Opens the image in the regular file or block device `path`, in one of the formats that are
    /// [linked](crate::registry) into the program.
    ///
    /// ```
    /// # #[cfg(feature = "qcow2")] {
    /// use instar::{Image, Options};
    ///
    /// let mut image = Image::open("docs/demo.qcow2", Options::new())?;
    /// let mut stored = 0;
    /// for extent in image.extents() {
    ///     let extent = extent?;
    ///     if extent.flags.data() {
    ///         stored += extent.length;
    ///     }
    /// }
    /// assert_eq!(stored, 28_672);
    /// # }
    /// # Ok::<(), instar::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for options that make no sense; otherwise what is wrong with the file,
    /// or with one of those that it names.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let path = path.as_ref();
        // Wrong options are said before the file is touched.
        let (registry, format) = options.check()?;
        let mut storage = FileStorage::open(path)?;
        if let Some(unit) = options.read_unit {
            storage = storage.with_read_unit(unit);
        }
        Self::compose(&registry, format, Arc::new(storage), path, options)
    }

    /// Opens an image in any storage. `path` is its name, and names that the image stores start
    /// from there.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn from_storage(
        storage: Arc<dyn Storage>,
        path: impl AsRef<Path>,
        options: Options,
    ) -> Result<Self> {
        let (registry, format) = options.check()?;
        Self::compose(&registry, format, storage, path.as_ref(), options)
    }

    fn compose(
        registry: &Registry,
        format: Option<&'static dyn ImageFormat>,
        storage: Arc<dyn Storage>,
        path: &Path,
        options: Options,
    ) -> Result<Self> {
        let window = options.window;
        let context = Arc::new(options.into_context()?);
        let chain = open_chain(registry, format, storage, path, &context)
            .map_err(|error| error.in_file(path))?;
        Ok(Self { chain, window })
    }

    /// Length of the disk, in bytes.
    pub fn virtual_size(&self) -> u64 {
        self.chain.virtual_size()
    }

    /// The image and, if they were followed, the layers below it, top first: `depth` of an extent
    /// counts them.
    pub fn layers(&self) -> Vec<LayerSummary> {
        let summary = |layer: &instar_core::Layer| LayerSummary {
            path: layer.path().to_owned(),
            format: layer.format(),
            virtual_size: layer.source().virtual_size(),
        };
        self.chain.layers().iter().map(summary).collect()
    }

    /// The files in which data lies, with their bytes: `file` of an extent counts them. A file that
    /// was ignored has no bytes.
    pub fn files(&self) -> &[ImageFile] {
        self.chain.files()
    }

    /// The map of the window of the options, from its start to its end.
    pub fn extents(&mut self) -> Extents<'_> {
        self.extents_of(self.window)
    }

    /// The map of another window.
    pub fn extents_of(&mut self, window: Window) -> Extents<'_> {
        Extents {
            rows: RowReader::new(&mut self.chain, window, Shape::WithCompressed),
            batch: Vec::new(),
            given: 0,
            done: false,
        }
    }
}

/// The map of an image, as an iterator or in batches.
///
/// Extents come in order and without gaps, each as long as can be: neighbours of equal columns
/// whose offsets continue are one. Memory does not grow with their number. After an error there is
/// nothing more.
pub struct Extents<'a> {
    rows: RowReader<&'a mut Chain>,
    batch: Vec<Row>,
    /// How many of the batch were handed over.
    given: usize,
    done: bool,
}

impl Extents<'_> {
    /// The next extents, at most some thousand; none at the end. Cheaper than one by one.
    ///
    /// ```
    /// # #[cfg(feature = "qcow2")] {
    /// use instar::{Image, Options, Window};
    ///
    /// let mut image = Image::open("docs/demo.qcow2", Options::new())?;
    /// let mut extents = image.extents_of(Window { start: 4096, length: Some(8192) });
    /// let batch = extents.next_batch()?;
    /// assert_eq!((batch.len(), batch[0].start, batch[0].length), (1, 4096, 8192));
    /// assert_eq!(batch[0].offset(), Some(0x6000));
    /// assert!(extents.next_batch()?.is_empty());
    /// # }
    /// # Ok::<(), instar::Error>(())
    /// ```
    ///
    /// # Errors
    /// What a format met at the point that the extents have reached, the end of the map included. At
    /// the end, if warnings are errors: that a file was written to meanwhile.
    pub fn next_batch(&mut self) -> Result<&[Row]> {
        if self.given >= self.batch.len() {
            self.load()?;
        }
        let from = self.given;
        self.given = self.batch.len();
        Ok(self.batch.get(from..).unwrap_or_default())
    }

    fn load(&mut self) -> Result<()> {
        self.batch.clear();
        self.given = 0;
        if self.done {
            return Ok(());
        }
        // Set back if there is something: after an error, nothing follows.
        self.done = true;
        while self.batch.is_empty() {
            let rows = self.rows.next_rows()?;
            if rows.is_empty() {
                return Ok(());
            }
            // qemu has a row for a window without bytes.
            self.batch.extend(rows.iter().filter(|row| row.length > 0));
        }
        self.done = false;
        Ok(())
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        if self.given >= self.batch.len() {
            if let Err(error) = self.load() {
                return Some(Err(error));
            }
        }
        let row = *self.batch.get(self.given)?;
        self.given += 1;
        Some(Ok(row))
    }
}

impl std::iter::FusedIterator for Extents<'_> {}
