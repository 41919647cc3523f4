//! From a stored name to a path without symbolic links and `..`, in a bounded number of steps.
//!
//! The kernel follows up to 40 links for each lookup, and libraries look up every component by
//! itself, so a few links with long targets make one short name cost minutes. Here each component
//! is one lookup in a directory that is held open, the links of one name are counted together, and
//! so are the steps of all names of a chain.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, ErrorKind};

/// Components of paths that are looked up for the names of one chain (instar's own limit; about
/// a second).
const MAX_STEPS: u64 = 1 << 18;

/// Symbolic links that one name may go through: the kernel's own bound (`MAXSYMLINKS`).
pub(super) const MAX_LINKS: u32 = 40;

/// Bytes of a path: the kernel's bound (`PATH_MAX`), which counts the zero at the end.
pub(super) const MAX_PATH: usize = 4095;

/// A directory below which files may be opened. Held open, so that it stays the same one.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) handle: OwnedFd,
    /// Absolute, without symbolic links and `..`.
    pub(super) canonical: PathBuf,
}

impl Directory {
    /// Opens a directory that the user named.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let canonical = path.canonicalize()?;
        let handle = rustix::fs::open(&canonical, directory_flags(), Mode::empty())?;
        Ok(Self { handle, canonical })
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { handle: self.handle.try_clone()?, canonical: self.canonical.clone() })
    }

    /// The directory `name` in this one; [`Errno::NOTDIR`] or [`Errno::LOOP`] for a link.
    fn enter(&self, name: &OsStr) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.handle, name, directory_flags(), Mode::empty())
    }

    /// The target of the symbolic link `name`; none if it is something else.
    fn link(&self, name: &OsStr) -> Result<Option<Vec<u8>>, Errno> {
        match rustix::fs::readlinkat(&self.handle, name, Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// Flags for a directory that is only walked through.
pub(super) fn directory_flags() -> OFlags {
    let walk = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Where there are handles without the right to read, search permission is enough.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return walk | OFlags::PATH;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return walk | OFlags::RDONLY;
}

/// Why a name leads nowhere.
#[derive(Debug)]
pub(super) enum Lost {
    /// As the system says.
    Io(io::Error),
    /// [`MAX_STEPS`] are used up.
    TooFar,
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Lost {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// The steps that the names of a chain have taken.
#[derive(Debug, Default)]
pub(super) struct Steps {
    taken: AtomicU64,
}

impl Steps {
    /// Counts `count` more.
    pub(super) fn take(&self, count: u64) -> Result<(), Lost> {
        let before = self.taken.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) > MAX_STEPS { Err(Lost::TooFar) } else { Ok(()) }
    }
}

/// The error for names that take too many steps.
pub(super) fn too_far() -> Error {
    let allowed = MAX_STEPS;
    Error::new(ErrorKind::Limit, TooFar { allowed })
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the names of other files lead through too many directories and symbolic links: more than \
     {allowed} in all"
)]
struct TooFar {
    allowed: u64,
}

/// What a path leads to.
pub(super) struct Resolved {
    /// Where it is.
    pub(super) directory: Directory,
    /// Its name there, which is not that of a link; none if it is the directory itself.
    pub(super) name: Option<OsString>,
}

impl Resolved {
    /// The path without symbolic links and `..`.
    pub(super) fn canonical(&self) -> PathBuf {
        match &self.name {
            Some(name) => self.directory.canonical.join(name),
            None => self.directory.canonical.clone(),
        }
    }
}

/// Finds what `path` leads to from `start`. What is there, if anything is, was not opened. `links`
/// counts the symbolic links of one name, which may be resolved in parts.
pub(super) fn resolve(
    start: &Directory,
    path: &OsStr,
    links: &mut u32,
    steps: &Steps,
) -> Result<Resolved, Lost> {
    if path.len() > MAX_PATH {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut at = match path.as_bytes().first() {
        Some(b'/') => Directory::open(Path::new("/"))?,
        _ => start.try_clone()?,
    };
    // What is still to be walked, as text: whether it ends with a slash counts.
    let mut rest: VecDeque<u8> = path.as_bytes().iter().copied().collect();
    loop {
        let Some(component) = next_component(&mut rest) else {
            return Ok(Resolved { directory: at, name: None });
        };
        steps.take(1)?;
        let target = match component.as_bytes() {
            b"." => continue,
            b".." => {
                at.handle = at.enter(&component)?;
                at.canonical.pop();
                continue;
            }
            _ if at.canonical.as_os_str().len() + 1 + component.len() > MAX_PATH => {
                return Err(Errno::NAMETOOLONG.into());
            }
            _ if rest.is_empty() => match at.link(&component)? {
                Some(target) => target,
                None => return Ok(Resolved { directory: at, name: Some(component) }),
            },
            _ => match at.enter(&component) {
                Ok(handle) => {
                    at.handle = handle;
                    at.canonical.push(&component);
                    continue;
                }
                Err(errno @ (Errno::NOTDIR | Errno::LOOP)) => match at.link(&component)? {
                    Some(target) => target,
                    None => return Err(errno.into()),
                },
                Err(errno) => return Err(errno.into()),
            },
        };
        *links += 1;
        if *links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        if target.starts_with(b"/") {
            at = Directory::open(Path::new("/"))?;
        }
        for byte in target.into_iter().rev() {
            rest.push_front(byte);
        }
    }
}

/// Takes a component from the front, and the slashes before it. The slash after it stays.
fn next_component(rest: &mut VecDeque<u8>) -> Option<OsString> {
    let slashes = rest.iter().take_while(|byte| **byte == b'/').count();
    rest.drain(..slashes);
    let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let component: Vec<u8> = rest.drain(..length).collect();
    (!component.is_empty()).then(|| OsString::from_vec(component))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use pretty_assertions::assert_eq;

    /// What a path leads to, or the error's number.
    fn resolved(start: &Directory, path: &str) -> Result<PathBuf, i32> {
        match resolve(start, OsStr::new(path), &mut 0, &Steps::default()) {
            Ok(resolved) => Ok(resolved.canonical()),
            Err(Lost::Io(error)) => Err(error.raw_os_error().unwrap()),
            Err(Lost::TooFar) => Err(0),
        }
    }

    /// The same as the standard library finds it.
    fn canonicalized(start: &Directory, path: &str) -> Result<PathBuf, i32> {
        let path = start.canonical.join(path);
        path.canonicalize().map_err(|error| error.raw_os_error().unwrap())
    }

    #[test]
    fn paths_lead_where_the_system_finds_them() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        std::fs::create_dir_all(at("a/b/c")).unwrap();
        std::fs::write(at("a/file"), b"x").unwrap();
        for (target, name) in [
            ("b", "a/up"),
            ("../file", "a/b/file"),
            ("..", "a/b/c/parent"),
            ("/", "root"),
            ("a/b/", "slashed"),
            ("nowhere", "dangling"),
            ("loop2", "loop1"),
            ("loop1", "loop2"),
            ("a/file", "tofile"),
            ("a/file/", "tofile-slashed"),
            (".", "here"),
        ] {
            symlink(target, at(name)).unwrap();
        }
        symlink(at("a"), at("absolute")).unwrap();
        for number in 0..45 {
            symlink(format!("n{}", number + 1), at(&format!("n{number}"))).unwrap();
        }
        std::fs::write(at("n45"), b"x").unwrap();
        let start = Directory::open(top.path()).unwrap();
        let long = "./".repeat(2000) + "a/file";
        let absolute = at("a/up/file");
        let paths = [
            "a",
            "a/",
            "a/.",
            "a//b",
            "./a/./b/",
            ".",
            "..",
            "../..",
            "/",
            "//",
            "/..",
            "a/file",
            "a/up",
            "a/up/c",
            "a/up/../file",
            "a/b/file",
            "a/b/c/parent",
            "a/b/c/parent/parent/file",
            "root",
            "root/dev",
            "slashed",
            "slashed/c",
            "absolute/b/file",
            "absolute",
            "here/here/here/a",
            "dangling",
            "dangling/x",
            "loop1",
            "loop1/x",
            "nope",
            "nope/..",
            "nope/x",
            "a/file/x",
            "a/file/..",
            "a/file/",
            "a/file/.",
            "tofile",
            "tofile/",
            "tofile-slashed",
            "n5",
            "n4",
            "n6",
            "here/n6",
            "n40/../n10",
            &long,
            absolute.to_str().unwrap(),
            "a/b/c/../../b/../file",
        ];
        for path in paths {
            assert_eq!(resolved(&start, path), canonicalized(&start, path), "{path}");
        }
        // 40 links and no more.
        assert_eq!(resolved(&start, "n5"), Ok(start.canonical.join("n45")));
        assert_eq!(resolved(&start, "n4"), Err(Errno::LOOP.raw_os_error()));
        assert_eq!(resolved(&start, &"x".repeat(256)), Err(Errno::NAMETOOLONG.raw_os_error()));
        let path = "./".repeat(2048);
        assert_eq!(resolved(&start, &path), Err(Errno::NAMETOOLONG.raw_os_error()));
        assert_eq!(resolved(&start, &path[..MAX_PATH]), Ok(start.canonical.clone()));
    }

    #[test]
    fn every_component_of_a_name_and_of_its_links_is_a_step() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("d")).unwrap();
        symlink("d/.././d", top.path().join("link")).unwrap();
        let start = Directory::open(top.path()).unwrap();
        let steps = Steps::default();
        for (path, taken) in [("d", 1), ("d/../d", 3), ("link", 5), ("link/../link/.", 12)] {
            let before = steps.taken.load(Ordering::Relaxed);
            resolve(&start, OsStr::new(path), &mut 0, &steps).ok().unwrap();
            assert_eq!(steps.taken.load(Ordering::Relaxed) - before, taken, "{path}");
        }
    }

    #[test]
    fn steps_end() {
        let steps = Steps::default();
        assert!(steps.take(MAX_STEPS).is_ok());
        assert!(matches!(steps.take(1), Err(Lost::TooFar)));
        assert_eq!(too_far().kind(), ErrorKind::Limit);
    }
}
