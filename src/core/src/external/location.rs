//! Where an image is, and so where the names that it stores start.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::walk::{Directory, MAX_LINKS};
use crate::{Error, FileName, Result};

/// Where devices and descriptors are. A file there is not in a directory in any useful sense:
/// what is beside it has nothing to do with it.
const NO_PLACES: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Regular files in memory, although below `/dev`.
const SHARED_MEMORY: &str = "/dev/shm";

/// Where an image is: the starting point of the names that it stores.
///
/// An image that the user gave as a descriptor or device, such as `/dev/stdin`, `/proc/self/fd/3`
/// or a symbolic link to one, has no such point: names in it lead nowhere, unless they are absolute
/// and the user allows the directory.
#[derive(Debug)]
pub struct Location {
    path: Arc<Path>,
    pub(super) name: FileName,
    /// Opened when a name is followed, for most images never.
    place: OnceCell<Place>,
}

/// What names in an image may lead to, and from where.
#[derive(Debug)]
pub(super) enum Place {
    Directory {
        /// Below this one, files may be opened.
        beside: Directory,
        /// Here relative names start, if that is another: they start from the image's name as it is
        /// written, which may be a symbolic link.
        start: Option<Directory>,
    },
    /// Nowhere: the image is in this directory of devices or descriptors.
    Nowhere(PathBuf),
}

impl Place {
    /// Of the image at `path`, which the user typed.
    fn of(path: &Path) -> io::Result<Self> {
        let mut at = path.to_owned();
        for _ in 0..=MAX_LINKS {
            let name = FileName::from(&at);
            let directory = match Path::new(name.directory()) {
                here if here.as_os_str().is_empty() => Path::new("."),
                directory => directory,
            };
            let canonical = match directory.canonicalize() {
                Ok(canonical) => canonical,
                // The target of a link, which is not where names start.
                Err(_) if at != path => break,
                Err(error) => return Err(error),
            };
            let is_below = |place: &&str| canonical.starts_with(place);
            if NO_PLACES.iter().any(is_below) && !is_below(&SHARED_MEMORY) {
                return Ok(Self::Nowhere(canonical));
            }
            match std::fs::read_link(&at) {
                Ok(target) => at = directory.join(target),
                Err(_) => break,
            }
        }
        let name = FileName::from(path);
        let directory = name.directory();
        let directory = if directory.is_empty() { OsStr::new(".") } else { directory };
        Ok(Self::Directory { beside: Directory::open(Path::new(directory))?, start: None })
    }

    /// Below which directory files may be opened.
    pub(super) fn beside(&self) -> Option<&Directory> {
        match self {
            Self::Directory { beside, .. } => Some(beside),
            Self::Nowhere(_) => None,
        }
    }
}

impl Location {
    /// The location of the image at `path`, which the user typed.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), name: FileName::from(path), place: OnceCell::new() }
    }

    /// The location of a file that an image calls by this name.
    pub(super) fn named(name: &FileName, place: Place) -> Self {
        let path = name.to_path();
        // Names in that file start where its own name leads, which may have directories in it.
        Self { name: FileName::from(&path), path: path.into(), place: OnceCell::from(place) }
    }

    /// The image's name, as typed or as named by another image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same, for layers that keep it.
    pub(crate) fn shared_path(&self) -> Arc<Path> {
        Arc::clone(&self.path)
    }

    /// The same, as the File column shows it.
    pub(crate) fn name(&self) -> &FileName {
        &self.name
    }

    pub(super) fn place(&self) -> Result<&Place> {
        if let Some(place) = self.place.get() {
            return Ok(place);
        }
        let found = Place::of(&self.path)
            .map_err(|error| Error::io("cannot open the directory of the image", error))?;
        Ok(self.place.get_or_init(|| found))
    }
}
