//! What a format is: the two traits that a plugin implements.

use std::collections::HashSet;
use std::sync::Arc;

use crate::{
    Backing, Batch, Confidence, FileName, Held, Limits, Location, Memory, Notices, Opener, Probe,
    QemuVersion, Reference, Result, Storage, check_length,
};

/// What holds for every file of one map.
#[derive(Debug, Default)]
pub struct Context {
    /// Bounds on what an image may cost.
    pub limits: Limits,
    /// Whose behaviour is reproduced where versions of qemu differ.
    pub qemu: QemuVersion,
    /// The gate to other files.
    pub opener: Opener,
    /// Where warnings go.
    pub notices: Notices,
    /// What the layers hold in memory.
    pub memory: Memory,
}

impl Context {
    /// Counts `bytes` that a layer is about to hold in memory for as long as it is open, for what
    /// is called `what`, until the answer is dropped. Buffers that
    /// [`ExtentSource::release`] gives back are not counted here.
    ///
    /// The core counts the names that a source has in [`ExtentSource::files`] and
    /// [`ExtentSource::backing`]. What else grows with the image, the source has to count.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`](crate::ErrorKind::Limit) if all layers together would hold more than
    /// [`Limits::held`].
    pub fn hold(&self, what: &'static str, bytes: u64) -> Result<Held> {
        self.memory.hold(what, bytes, self.limits.held)
    }
}

/// A file to be opened as an image.
#[derive(Clone)]
pub struct Image<'a> {
    /// Its bytes.
    pub storage: Arc<dyn Storage>,
    /// Its name, for messages and the File column, and where the names that it stores start.
    pub location: &'a Location,
    /// What holds for the whole map. Shared: a source may keep it.
    pub context: &'a Arc<Context>,
}

impl Image<'_> {
    /// Opens the files that the image needs to map its own layer, if the user's policy allows;
    /// the answers are in the order of `references`.
    ///
    /// # Errors
    /// As [`Opener::members`].
    pub fn members(&self, references: &[Reference]) -> Result<Vec<ImageFile>> {
        // Counted again when they are part of a layer.
        let _held = self.context.hold(FILES, references.iter().map(reference_bytes).sum())?;
        self.context.opener.members(self.location, references)
    }

    /// The image's own file, as most formats give it in [`ExtentSource::files`].
    pub fn file(&self) -> ImageFile {
        let name = self.location.name().clone();
        ImageFile { name, storage: Some(Arc::clone(&self.storage)) }
    }
}

/// A file in which a layer's data lies.
#[derive(Clone)]
pub struct ImageFile {
    /// The name for the File column.
    pub name: FileName,
    /// Its bytes; `None` for a file that was not opened ([`ExternalPolicy::Ignore`]).
    ///
    /// [`ExternalPolicy::Ignore`]: crate::ExternalPolicy::Ignore
    pub storage: Option<Arc<dyn Storage>>,
}

/// What is counted for the files of a layer.
const FILES: &str = "the list of the files that the image names";

/// Bytes of memory that the name of a file takes besides its text: in the lists of the source and of
/// the chain, and while names are looked up.
const NAME_BYTES: u64 = 2 * size_of::<ImageFile>() as u64 + 96;

/// Bytes of memory that an open file takes.
const FILE_BYTES: u64 = 128;

fn reference_bytes(reference: &Reference) -> u64 {
    NAME_BYTES.saturating_add(reference.name.len() as u64)
}

/// Counts what the core knows a layer to hold: the files of `source` and the names of what is
/// below.
pub(crate) fn hold_names(context: &Context, source: &dyn ExtentSource) -> Result<Held> {
    let files = source.files();
    let names = files.iter().map(|file| NAME_BYTES.saturating_add(file.name.own_bytes()));
    let storages = files.iter().filter_map(|file| file.storage.as_ref());
    let open: HashSet<*const ()> = storages.map(|file| Arc::as_ptr(file).cast()).collect();
    let open = (open.len() as u64).saturating_mul(FILE_BYTES);
    let backing = source.backing().map_or(0, |backing| {
        let names = backing.names.iter().map(|name| name.len() as u64);
        let format = backing.format.as_ref().map_or(0, String::len) as u64;
        names.sum::<u64>().saturating_add(format)
    });
    context.hold(FILES, names.sum::<u64>().saturating_add(open).saturating_add(backing))
}

/// An image format: knows whether a file is in it, and opens such a file.
///
/// Implement it on a public unit struct and hand that to [`register!`](crate::register!).
pub trait ImageFormat: Sync {
    /// Short lower-case name, as given to `--format`.
    fn name(&self) -> &'static str;

    /// Other names for `--format`, for example those of other tools.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// One line on what is covered.
    fn about(&self) -> &'static str;

    /// How names of such files usually end: lower case, without the dot, the most usual first.
    ///
    /// To tell people; detection looks at what is in a file, never at its name.
    fn extensions(&self) -> &'static [&'static str] {
        &[]
    }

    /// What is on purpose not as in qemu-img for this format, as short names sorted.
    ///
    /// They should be headings of the plugin's documentation. For the formats that come with
    /// instar that is `docs/quirks.md`.
    fn divergences(&self) -> &'static [&'static str] {
        &[]
    }

    /// How sure the format is that the file is in it. Pure: looks at the slices, does no I/O.
    fn probe(&self, probe: &Probe<'_>) -> Confidence;

    /// What a file seems to hold that the format takes only because no other claims it: a few
    /// words such as "gzip data", or `None` if nothing is recognised. Pure, like [`Self::probe`].
    ///
    /// Asked if the format has won with [`Confidence::Fallback`]. Users then get a note: the map
    /// is likely not what they want.
    fn resembles(&self, _probe: &Probe<'_>) -> Option<&'static str> {
        None
    }

    /// Reads and checks the image's header.
    ///
    /// Must not open any file but through [`Image::members`].
    ///
    /// # Errors
    /// A typed error of the plugin's own, converted; the core adds format and file.
    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>>;
}

/// One layer of one open image, as a map of its guest disk.
pub trait ExtentSource: Send {
    /// Length of the guest disk, in bytes. At most [`MAX_LENGTH`](crate::MAX_LENGTH).
    fn virtual_size(&self) -> u64;

    /// The files that [`Place::file`](crate::Place::file) counts.
    fn files(&self) -> &[ImageFile];

    /// The layer below, if the image names one. The core decides whether to open it.
    fn backing(&self) -> Option<&Backing> {
        None
    }

    /// The identifier by which a differencing disk knows its parent, if the format has one.
    fn identifier(&self) -> Option<[u8; 16]> {
        None
    }

    /// Bytes in which the image takes space in its files, such as a cluster.
    ///
    /// Space that holds no data ([`Status::ZeroAt`](crate::Status::ZeroAt),
    /// [`Status::AbsentAt`](crate::Status::AbsentAt)) need not have been written to, so a file may
    /// end within its last unit; core warns of such space past that.
    fn allocation_unit(&self) -> u64 {
        crate::SECTOR
    }

    /// Bytes of memory that the source holds for no other reason than to save time, such as
    /// windows of tables.
    fn buffered(&self) -> u64 {
        0
    }

    /// Gives these bytes back. What was in them is read again when it is needed.
    ///
    /// The core asks for it in long chains, whose layers would hold too much together.
    fn release(&mut self) {}

    /// Appends extents of this layer from [`Batch::cursor`] on, until a push answers
    /// [`Flow::Stop`](crate::Flow::Stop).
    ///
    /// The cursor may stand anywhere, also in the middle of a cluster; the question ends at or
    /// before the virtual size. Either something is appended or an error returned.
    ///
    /// # Errors
    /// When metadata at the cursor cannot be read or is wrong. What was appended before counts.
    fn extents(&mut self, out: &mut Batch) -> Result<()>;
}

/// Opens `image` in `format` and adds format and file to any error.
///
/// # Errors
/// The format's, and [`ErrorKind::Limit`](crate::ErrorKind::Limit) for a virtual size over
/// [`MAX_LENGTH`](crate::MAX_LENGTH).
pub fn open_layer(format: &dyn ImageFormat, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
    let path = image.location.path();
    image.context.notices.concern(path);
    check_length(image.storage.as_ref())
        .and_then(|()| format.open(image))
        .and_then(|source| {
            Limits::check("the virtual size in bytes", source.virtual_size(), crate::MAX_LENGTH)?;
            Ok(source)
        })
        .map_err(|error| error.in_format(format.name()).in_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;
    use crate::testkit::ListSource;
    use pretty_assertions::assert_eq;

    #[test]
    fn the_files_of_a_layer_are_counted_for_as_long_as_it_is_there() {
        let mut context = Context::default();
        context.limits.held = 1000;
        let open: Arc<dyn Storage> = Arc::new(MemoryStorage::new(1));
        for (name, storage, bytes) in [
            ("name", None, NAME_BYTES + 4),
            // The directory is shared.
            ("dir/name", None, NAME_BYTES + 4),
            ("name", Some(open), NAME_BYTES + 4 + FILE_BYTES),
        ] {
            let source = ListSource::new(Vec::new(), name, storage);
            let held = hold_names(&context, &source).unwrap();
            assert_eq!(context.memory.total(), bytes);
            drop(held);
            assert_eq!(context.memory.total(), 0);
        }
        let long = ListSource::new(Vec::new(), &"x".repeat(1000), None);
        let error = hold_names(&context, &long).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Limit);
        assert!(error.to_string().starts_with("the list of the files that the image names would"));
    }
}
