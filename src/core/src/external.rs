//! Other files that an image names: the whole trust decision.
//!
//! Nothing an image says opens a file by itself. A format hands the stored names to the
//! [`Opener`], whose policy the *user* sets; no other code opens a file because of an image.
//!
//! - [`ExternalPolicy::Refuse`], the default: an image that names another file is an error.
//! - [`ExternalPolicy::Ignore`]: the image is mapped alone, nothing is opened.
//! - [`ExternalPolicy::Follow`]: files are opened below the directory of the file that names
//!   them and below the directories that the user allows, and nowhere else.
//!
//! How following is made safe: the name is resolved to a path without symbolic links and `..`,
//! in a bounded number of steps, and only if that lies below an allowed directory is it opened:
//! from the handle of that directory, component by component, following no symbolic link. If a
//! component is swapped between the two, the result is an error, not another file. Only regular
//! files are opened; anything else is recognised before it is opened. Names that look like a
//! protocol are never interpreted.
//!
//! An image that was given as a descriptor or a device has no directory of its own: see
//! [`Location`].

mod location;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

pub use self::location::Location;
use self::location::Place;
use self::walk::{Directory, Lost, MAX_PATH, Steps, directory_flags, resolve, too_far};
use crate::{Advice, Error, ErrorKind, FileStorage, ImageFile, Result, Storage, quoted};

/// What to do about other files that an image names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExternalPolicy {
    /// Such an image is an error.
    #[default]
    Refuse,
    /// The image is mapped alone; nothing is opened.
    Ignore,
    /// Open them, if they lie below the directory of the file that names them or below one of
    /// these directories.
    Follow {
        /// Directories below which any image of the chain may name files.
        allow_under: Vec<PathBuf>,
    },
}

/// In which way an image refers to another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Holds what this layer does not.
    Backing,
    /// The same, in the terms of VHD and VHDX, whose names are Windows paths.
    Parent,
    /// Holds the guest data of this layer.
    DataFile,
    /// One of the pieces of which the disk is made.
    Extent,
}

impl Role {
    fn noun(self) -> &'static str {
        match self {
            Self::Backing => "backing file",
            Self::Parent => "parent",
            Self::DataFile => "external data file",
            Self::Extent => "extent file",
        }
    }
}

/// A file name as it is stored in an image. Hostile: only the [`Opener`] may act on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// In which way the file is used.
    pub role: Role,
    /// The stored name, undecoded.
    pub name: OsString,
}

/// The layer below an image, as the image names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// [`Role::Backing`] or [`Role::Parent`].
    pub role: Role,
    /// The stored names, best first; VHD and VHDX may hold several for one parent, of which the
    /// first counts that leads to a file with one of the `identifiers`. None if what is stored is
    /// no name of a file.
    pub names: Vec<OsString>,
    /// The stored name of the layer's format, if any.
    pub format: Option<String>,
    /// Identifiers of which the layer must have one (see
    /// [`ExtentSource::identifier`](crate::ExtentSource::identifier)); none: any will do.
    pub identifiers: Vec<[u8; 16]>,
}

/// A name from an image, made safe to print: quoted, escaped, and only the start of it if long.
struct Shown<'a>(&'a OsStr);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        quoted(self.0.as_bytes()).fmt(f)
    }
}

/// A file that was opened because an image names it.
pub struct Found {
    /// Its bytes.
    pub storage: Arc<dyn Storage>,
    /// Where it is.
    pub location: Location,
}

/// The gate to other files.
#[derive(Debug, Default)]
pub struct Opener {
    policy: Policy,
    read_unit: Option<u64>,
    steps: Steps,
}

#[derive(Debug, Default)]
enum Policy {
    #[default]
    Refuse,
    Ignore,
    Follow(Vec<Directory>),
}

impl Opener {
    /// A gate with this policy. Directories that the user allows are opened now.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if one of them cannot be opened.
    pub fn new(policy: ExternalPolicy) -> Result<Self> {
        let open = |path: PathBuf| {
            Directory::open(&path).map_err(|error| {
                Error::io("cannot open the allowed directory", error).in_file(&path)
            })
        };
        let policy = match policy {
            ExternalPolicy::Refuse => Policy::Refuse,
            ExternalPolicy::Ignore => Policy::Ignore,
            ExternalPolicy::Follow { allow_under } => {
                Policy::Follow(allow_under.into_iter().map(open).collect::<Result<_>>()?)
            }
        };
        Ok(Self { policy, read_unit: None, steps: Steps::default() })
    }

    /// Opens files with this [`Storage::read_unit`].
    #[must_use]
    pub fn with_read_unit(mut self, bytes: u64) -> Self {
        self.read_unit = Some(bytes);
        self
    }

    /// Handles of the directories below which files may be opened for the image at `image` and
    /// for the layers below it; `None` if no file will be opened at all.
    ///
    /// For whoever confines a process. A handle gives no right to read where the system has such
    /// handles. A directory that cannot be opened is left out: nothing below it could be either.
    pub fn directories(&self, image: &Path) -> Option<Vec<OwnedFd>> {
        let Policy::Follow(allowed) = &self.policy else { return None };
        // A layer lies below one of these, and so does its own directory.
        let image = Location::new(image);
        let beside = image.place().ok().and_then(Place::beside);
        let all = beside.into_iter().chain(allowed);
        Some(all.filter_map(|directory| directory.handle.try_clone().ok()).collect())
    }

    /// Opens the files that an image at `from` needs to map its own layer, in the order of
    /// `references`. A file that was ignored has no storage.
    ///
    /// # Errors
    /// [`ErrorKind::External`] if the policy forbids one; [`ErrorKind::Io`].
    pub fn members(&self, from: &Location, references: &[Reference]) -> Result<Vec<ImageFile>> {
        let Some(first) = references.first() else { return Ok(Vec::new()) };
        let names = || references.iter().map(|reference| reference.name.as_os_str());
        match &self.policy {
            Policy::Refuse => Err(refusal(first.role, names())),
            Policy::Ignore => Ok(names()
                .map(|name| ImageFile { name: from.name.beside(name), storage: None })
                .collect()),
            Policy::Follow(allowed) => self.follow(allowed, from, references),
        }
    }

    /// Opens each file once, however often and under however many names it is named.
    fn follow(
        &self,
        allowed: &[Directory],
        from: &Location,
        references: &[Reference],
    ) -> Result<Vec<ImageFile>> {
        let mut files: Vec<ImageFile> = Vec::with_capacity(references.len());
        let mut by_name: HashMap<&OsStr, usize> = HashMap::new();
        let mut by_identity: HashMap<(u64, u64), Arc<dyn Storage>> = HashMap::new();
        let mut open = |Reference { role, name }: &Reference| {
            let mut storage: Arc<dyn Storage> = self.open(allowed, from, *role, name)?.storage;
            if let Some(identity) = storage.identity() {
                storage = Arc::clone(by_identity.entry(identity).or_insert(storage));
            }
            Ok(ImageFile { name: from.name.beside(name), storage: Some(storage) })
        };
        for reference in references {
            let known = by_name.get(reference.name.as_os_str()).and_then(|index| files.get(*index));
            let file = match known {
                Some(file) => file.clone(),
                None => {
                    by_name.insert(&reference.name, files.len());
                    open(reference)?
                }
            };
            files.push(file);
        }
        Ok(files)
    }

    /// Opens, one after the other, what may be the layer below the image at `from`, best name
    /// first; `None` if it is ignored. An item is why a name led to no file.
    ///
    /// # Errors
    /// [`ErrorKind::External`] if the policy forbids it or there is no name to go by.
    pub fn backing<'a>(
        &'a self,
        from: &'a Location,
        backing: &'a Backing,
    ) -> Result<Option<impl Iterator<Item = Result<Found>> + 'a>> {
        let allowed = match &self.policy {
            Policy::Ignore => return Ok(None),
            _ if backing.names.is_empty() => return Err(nameless(backing.role)),
            Policy::Refuse => {
                return Err(refusal(backing.role, backing.names.iter().map(OsString::as_os_str)));
            }
            Policy::Follow(allowed) => allowed,
        };
        Ok(Some(backing.names.iter().map(move |name| {
            let here = match backing.role {
                Role::Parent => from_windows(name),
                _ => name.clone(),
            };
            let found = self.open(allowed, from, backing.role, &here)?;
            let name = from.name.beside(&here);
            // Names in that file start from its own name, not from where that leads.
            let place = Place::Directory { beside: found.beside, start: Some(found.start) };
            let location = Location::named(&name, place);
            Ok(Found { storage: found.storage, location })
        })))
    }

    /// Opens one file if it lies below the image's directory or an allowed one.
    fn open(
        &self,
        allowed: &[Directory],
        from: &Location,
        role: Role,
        name: &OsStr,
    ) -> Result<OpenFile> {
        let denied = |reason| {
            let (noun, name) = (role.noun(), name.to_owned());
            let advice = match reason {
                Reason::Outside { .. } => Advice::AllowDirectory,
                Reason::Nowhere { .. } => Advice::AllowDirectoryForAbsolute,
                _ => Advice::IgnoreExternal,
            };
            Error::new(ErrorKind::External, Denied { noun, name, reason }).with_advice(advice)
        };
        if name.is_empty() || name.as_bytes().contains(&0) {
            return Err(denied(Reason::NoName));
        }
        if has_protocol(name) {
            return Err(denied(Reason::Protocol));
        }
        let failed =
            |error| Error::io(format!("cannot open the {} {}", role.noun(), Shown(name)), error);
        let lost = |lost| match lost {
            Lost::Io(error) => failed(error),
            Lost::TooFar => too_far(),
        };
        let place = from.place()?;
        let start = match (place, allowed.first()) {
            (Place::Directory { beside, start }, _) => start.as_ref().unwrap_or(beside),
            // An absolute name starts at the root, whatever directory is asked.
            (Place::Nowhere(_), Some(any)) if name.as_bytes().starts_with(b"/") => any,
            (Place::Nowhere(directory), _) => {
                return Err(denied(Reason::Nowhere { directory: directory.clone() }));
            }
        };
        // What the file itself names starts from the directory in its name; the rest of the name
        // may be a symbolic link.
        let whole = name.as_bytes();
        let last = whole.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let mut links = 0;
        let (directory, own) = whole.split_at_checked(last).unwrap_or((&[], whole));
        if from.name.beside(name).len() > MAX_PATH {
            return Err(failed(rustix::io::Errno::NAMETOOLONG.into()));
        }
        let mut resolved = |from: &Directory, part: &[u8]| {
            resolve(from, OsStr::from_bytes(part), &mut links, &self.steps).map_err(lost)
        };
        let start = resolved(start, directory)?.directory;
        let found = resolved(&start, own)?;
        let canonical = found.canonical();
        let (root, rest) = place
            .beside()
            .into_iter()
            .chain(allowed)
            .find_map(|root| Some((root, canonical.strip_prefix(&root.canonical).ok()?)))
            .ok_or_else(|| {
                denied(match place {
                    Place::Directory { beside, .. } => {
                        Reason::Outside { directory: beside.canonical.clone() }
                    }
                    Place::Nowhere(directory) => Reason::Nowhere { directory: directory.clone() },
                })
            })?;
        self.steps.take(rest.components().count() as u64).map_err(lost)?;
        let (file, handle) = match open_beneath(root, rest) {
            Ok(Opened::File(file, handle)) => (file, handle),
            Ok(Opened::Other(what)) => return Err(denied(Reason::NotAFile { what })),
            Err(error) => return Err(failed(error)),
        };
        let mut storage = FileStorage::from_file(file)?;
        if let Some(unit) = self.read_unit {
            storage = storage.with_read_unit(unit);
        }
        let beside = Directory { handle, canonical: found.directory.canonical };
        Ok(OpenFile { storage: Arc::new(storage), beside, start })
    }
}

/// A file that a name led to.
struct OpenFile {
    storage: Arc<dyn Storage>,
    /// The directory that it is in.
    beside: Directory,
    /// The directory in its name.
    start: Directory,
}

enum Opened {
    /// The file, and the directory it is in.
    File(File, OwnedFd),
    /// What is there instead; it was not opened.
    Other(&'static str),
}

/// Opens the regular file `rest` below `root`, following no symbolic link on the way.
fn open_beneath(root: &Directory, rest: &Path) -> io::Result<Opened> {
    let mut names = rest.components().map(|component| match component {
        Component::Normal(name) => Ok(name),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    });
    let Some(mut last) = names.next().transpose()? else {
        return Ok(Opened::Other("a directory"));
    };
    let mut directory = root.handle.try_clone()?;
    for name in names {
        directory = rustix::fs::openat(&directory, last, directory_flags(), Mode::empty())?;
        last = name?;
    }
    let stat = rustix::fs::statat(&directory, last, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Ok(Opened::Other("a directory")),
        FileType::Fifo => return Ok(Opened::Other("a FIFO")),
        FileType::BlockDevice | FileType::CharacterDevice => return Ok(Opened::Other("a device")),
        FileType::Symlink => return Err(rustix::io::Errno::LOOP.into()),
        _ => return Ok(Opened::Other("no file")),
    }
    // NONBLOCK: should it have been swapped for a FIFO, opening must not hang.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat(&directory, last, flags | OFlags::CLOEXEC, Mode::empty())?;
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Ok(Opened::Other("no file any more"));
    }
    Ok(Opened::File(file, directory))
}

/// Whether qemu would take the name for a protocol: a `:` before any `/`.
fn has_protocol(name: &OsStr) -> bool {
    let end = name.as_bytes().iter().find(|byte| matches!(byte, b':' | b'/'));
    end == Some(&b':')
}

/// A Windows path as a name on this system. Of a path with a drive, server, volume or URL, which
/// mean nothing here, only the file's own name is kept: parents mostly lie beside their children.
fn from_windows(name: &OsStr) -> OsString {
    let slashes: Vec<u8> =
        name.as_bytes().iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
    let name = OsString::from_vec(slashes);
    let elsewhere = has_protocol(&name) || name.as_bytes().starts_with(b"//");
    let own = name.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    match name.as_bytes().strip_prefix(b"./") {
        _ if elsewhere => OsStr::from_bytes(own).to_owned(),
        Some(rest) => OsStr::from_bytes(rest).to_owned(),
        None => name,
    }
}

/// Why a name is not followed.
#[derive(Debug, thiserror::Error)]
#[error("the image names another file ({noun} {}), {reason}", Shown(.name))]
struct Denied {
    noun: &'static str,
    name: OsString,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    NoName,
    Protocol,
    Outside { directory: PathBuf },
    Nowhere { directory: PathBuf },
    NotAFile { what: &'static str },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => f.write_str("which is not a file name"),
            Self::Protocol => f.write_str("which looks like a protocol and is never followed"),
            Self::NotAFile { what } => {
                write!(f, "which is {what}: only regular files are followed")
            }
            Self::Outside { directory } => {
                let directory = Shown(directory.as_os_str());
                write!(f, "which is not below the image's directory {directory}")
            }
            Self::Nowhere { directory } => {
                let directory = Shown(directory.as_os_str());
                write!(f, "which is not followed from a descriptor or device in {directory}")
            }
        }
    }
}

/// Names listed in a message; the rest is counted (instar's own limit).
const LISTED: usize = 8;

fn refusal<'a>(role: Role, names: impl Iterator<Item = &'a OsStr>) -> Error {
    let list = listed(names, ", ");
    let noun = role.noun();
    let text = format!("the image names another file ({noun} {list}), which is not opened");
    Error::new(ErrorKind::External, text).with_advice(Advice::ChooseExternalPolicy)
}

fn nameless(role: Role) -> Error {
    let noun = role.noun();
    let text = format!("the image has a {noun} but no name for it");
    Error::new(ErrorKind::External, text).with_advice(Advice::IgnoreExternal)
}

/// Names for a message, quoted and not too many.
pub(crate) fn listed<'a>(names: impl Iterator<Item = &'a OsStr>, between: &str) -> String {
    let mut list = String::new();
    let mut more: usize = 0;
    for (index, name) in names.enumerate() {
        match index {
            0 => list.push_str(&Shown(name).to_string()),
            _ if index < LISTED => list.push_str(&format!("{between}{}", Shown(name))),
            _ => more = more.saturating_add(1),
        }
    }
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    list
}
