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
//! and only if that lies below an allowed directory is it opened: from the handle of that
//! directory, component by component, following no symbolic link. Whoever swaps a component
//! between the two steps gets an error, not another file. Only regular files are opened;
//! anything else is recognised before it is opened. Names that look like a protocol are never
//! interpreted.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

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

/// A directory below which files may be opened. Held open, so that it stays the same one.
#[derive(Debug)]
struct Directory {
    handle: OwnedFd,
    /// Absolute, without symbolic links and `..`.
    canonical: PathBuf,
}

impl Directory {
    fn open(path: &Path) -> io::Result<Self> {
        let canonical = path.canonicalize()?;
        let handle = rustix::fs::open(&canonical, directory_flags(), Mode::empty())?;
        Ok(Self { handle, canonical })
    }
}

/// Flags for a directory that is only walked through.
fn directory_flags() -> OFlags {
    let walk = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Where there are handles without the right to read, search permission is enough.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return walk | OFlags::PATH;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return walk | OFlags::RDONLY;
}

/// Where an image is: the starting point of the names that it stores.
#[derive(Debug)]
pub struct Location {
    path: PathBuf,
    /// Opened when a name is followed, for most images never.
    directory: OnceCell<Directory>,
}

impl Location {
    /// The location of the image at `path`, which the user typed.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), directory: OnceCell::new() }
    }

    /// The image's name, as typed or as named by another image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path up to and including the last slash; empty if there is none.
    fn prefix(&self) -> &OsStr {
        let bytes = self.path.as_os_str().as_bytes();
        let length = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        OsStr::from_bytes(bytes.get(..length).unwrap_or_default())
    }

    fn directory(&self) -> Result<&Directory> {
        if let Some(directory) = self.directory.get() {
            return Ok(directory);
        }
        let prefix = Path::new(self.prefix());
        let path = if prefix.as_os_str().is_empty() { Path::new(".") } else { prefix };
        let opened = Directory::open(path)
            .map_err(|error| Error::io("cannot open the directory of the image", error))?;
        Ok(self.directory.get_or_init(|| opened))
    }

    /// The path that `name`, stored in the image, stands for. Nothing is normalised, as in
    /// qemu's File column.
    fn beside(&self, name: &OsStr) -> PathBuf {
        if name.as_bytes().starts_with(b"/") {
            return name.into();
        }
        let mut path = self.prefix().to_owned();
        path.push(name);
        path.into()
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
        Ok(Self { policy, read_unit: None })
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
        let beside = Location::new(image);
        let beside = beside.directory().ok();
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
                .map(|name| ImageFile { name: from.beside(name), storage: None })
                .collect()),
            Policy::Follow(allowed) => references
                .iter()
                .map(|reference| {
                    let found = self.open(allowed, from, reference.role, &reference.name)?;
                    Ok(ImageFile { name: found.location.path, storage: Some(found.storage) })
                })
                .collect(),
        }
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
            self.open(allowed, from, backing.role, &here)
        })))
    }

    /// Opens one file if it lies below the image's directory or an allowed one.
    fn open(
        &self,
        allowed: &[Directory],
        from: &Location,
        role: Role,
        name: &OsStr,
    ) -> Result<Found> {
        let denied = |reason| {
            let (noun, name) = (role.noun(), name.to_owned());
            let advice = match reason {
                Reason::Outside { .. } => Advice::AllowDirectory,
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
        let path = from.beside(name);
        let failed =
            |error| Error::io(format!("cannot open the {} {}", role.noun(), Shown(name)), error);
        let canonical = path.canonicalize().map_err(failed)?;
        let beside = from.directory()?;
        let (root, rest) = std::iter::once(beside)
            .chain(allowed)
            .find_map(|root| Some((root, canonical.strip_prefix(&root.canonical).ok()?)))
            .ok_or_else(|| denied(Reason::Outside { directory: beside.canonical.clone() }))?;
        let (file, handle) = match open_beneath(root, rest) {
            Ok(Opened::File(file, handle)) => (file, handle),
            Ok(Opened::Other(what)) => return Err(denied(Reason::NotAFile { what })),
            Err(error) => return Err(failed(error)),
        };
        let mut storage = FileStorage::from_file(file)?;
        if let Some(unit) = self.read_unit {
            storage = storage.with_read_unit(unit);
        }
        let parent = canonical.parent().unwrap_or(Path::new("/")).to_owned();
        let directory = OnceCell::from(Directory { handle, canonical: parent });
        Ok(Found { storage: Arc::new(storage), location: Location { path, directory } })
    }
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
    let names: Vec<String> = names.map(|name| Shown(name).to_string()).collect();
    let mut list = names.get(..LISTED).unwrap_or(&names).join(between);
    if let Some(more) = names.len().checked_sub(LISTED).filter(|more| *more > 0) {
        list.push_str(&format!(" and {more} more"));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn extents(names: &[&str]) -> Vec<Reference> {
        names.iter().map(|name| Reference { role: Role::Extent, name: name.into() }).collect()
    }

    fn follow(allow_under: &[&Path]) -> Opener {
        let allow_under = allow_under.iter().map(|path| path.to_path_buf()).collect();
        Opener::new(ExternalPolicy::Follow { allow_under }).unwrap()
    }

    fn outcome(
        opener: &Opener,
        image: &Path,
        name: &str,
    ) -> std::result::Result<PathBuf, (String, Option<Advice>)> {
        let files = opener.members(&Location::new(image), &extents(&[name]));
        let said = |error: Error| (error.to_string(), error.advice());
        files.map(|files| files[0].name.clone()).map_err(said)
    }

    #[test]
    fn refusing_names_every_reference() {
        let opener = Opener::default();
        let image = Location::new(Path::new(".//dir/x.vmdk"));
        let error = opener.members(&image, &extents(&["a\n.vmdk", "b.vmdk"])).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::External);
        assert_eq!(
            error.to_string(),
            "the image names another file (extent file \"a\\n.vmdk\", \"b.vmdk\"), which is not \
             opened"
        );
        assert_eq!(error.advice(), Some(Advice::ChooseExternalPolicy));
        let many: Vec<String> = (0..10).map(|i| i.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let error = opener.members(&image, &extents(&many)).err().unwrap();
        assert!(error.to_string().contains("\"7\" and 2 more"));
        assert!(opener.members(&image, &[]).unwrap().is_empty());
    }

    #[test]
    fn ignoring_opens_nothing_and_names_files_beside_the_image() {
        let opener = Opener::new(ExternalPolicy::Ignore).unwrap();
        for (image, name, path) in [
            (".//dir/x.vmdk", "../a", ".//dir/../a"),
            ("x.vmdk", "a", "a"),
            ("dir/x.vmdk", "/a", "/a"),
        ] {
            let files = opener.members(&Location::new(Path::new(image)), &extents(&[name]));
            let files = files.unwrap();
            assert!(files[0].storage.is_none());
            assert_eq!(files[0].name.to_str(), Some(path));
        }
    }

    #[test]
    fn following_stays_below_the_directories() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        std::fs::create_dir_all(at("vm/sub")).unwrap();
        std::fs::create_dir(at("other")).unwrap();
        for file in ["vm/base", "vm/sub/deep", "other/secret"] {
            std::fs::write(at(file), b"x").unwrap();
        }
        std::os::unix::fs::symlink("sub/deep", at("vm/inside")).unwrap();
        std::os::unix::fs::symlink("../other/secret", at("vm/escape")).unwrap();
        std::os::unix::fs::symlink(at("vm/sub"), at("vm/absolute")).unwrap();
        let image = at("vm/top.qcow2");

        let opener = follow(&[]);
        let absolute = at("vm/base");
        for name in ["base", "sub/deep", "sub/../base", "inside", "absolute/deep", "./base"] {
            assert_eq!(outcome(&opener, &image, name), Ok(at("vm").join(name)), "{name}");
        }
        assert_eq!(outcome(&opener, &image, absolute.to_str().unwrap()), Ok(absolute));
        for name in ["../other/secret", "escape", "/etc/passwd", "sub/../../other/secret"] {
            let (error, advice) = outcome(&opener, &image, name).unwrap_err();
            assert_eq!(advice, Some(Advice::AllowDirectory), "{name}: {error}");
            assert!(error.contains("is not below the image's directory"), "{name}: {error}");
            assert!(error.contains(name), "{name}: {error}");
        }
        let wider = follow(&[&at("other")]);
        for name in ["../other/secret", "escape"] {
            assert!(outcome(&wider, &image, name).is_ok(), "{name}");
        }
        assert!(outcome(&wider, &image, "/etc/passwd").is_err());
    }

    #[test]
    fn only_regular_files_are_followed_and_protocols_never() {
        let top = tempfile::tempdir().unwrap();
        let image = top.path().join("image");
        rustix::fs::mkfifoat(rustix::fs::CWD, top.path().join("fifo"), Mode::RUSR).unwrap();
        let opener = follow(&[Path::new("/dev")]);
        for (name, text) in [
            ("fifo", "which is a FIFO"),
            (".", "which is a directory"),
            ("/dev/null", "which is a device"),
            ("nbd://host/x", "looks like a protocol"),
            ("json:{\"driver\":\"file\"}", "looks like a protocol"),
            ("fd:3", "looks like a protocol"),
            ("file:fifo", "looks like a protocol"),
            ("", "which is not a file name"),
            ("a\0b", "which is not a file name"),
            ("nope", "cannot open the extent file \"nope\""),
        ] {
            let (error, advice) = outcome(&opener, &image, name).unwrap_err();
            assert!(error.contains(text), "{name}: {error}");
            let expected = (name != "nope").then_some(Advice::IgnoreExternal);
            assert_eq!(advice, expected, "{name}: {error}");
        }
    }

    #[test]
    fn windows_names() {
        for (stored, here) in [
            (".\\base.vhd", "base.vhd"),
            ("..\\dir\\base.vhd", "../dir/base.vhd"),
            ("base.vhd", "base.vhd"),
            ("C:\\vm\\base.vhd", "base.vhd"),
            ("\\\\server\\share\\base.vhd", "base.vhd"),
            ("\\\\?\\Volume{1234}\\vm\\base.vhd", "base.vhd"),
            ("file://localhost/vm/base.vhd", "base.vhd"),
            ("/vm/base.vhd", "/vm/base.vhd"),
        ] {
            assert_eq!(from_windows(OsStr::new(stored)), here, "{stored}");
        }
    }
}
