//! Names of files as they are shown.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of a file for the File column: the directory of the image that names it, which all
/// names in that image share, and the name that is stored there.
///
/// A disk may have tens of thousands of files in a directory with a path of 4 KiB, so the two are
/// only joined where they are printed. Two names of one image that read the same are equal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FileName {
    /// Empty, or ends with a slash.
    directory: Arc<OsStr>,
    name: Arc<OsStr>,
}

impl FileName {
    /// `path` in two: up to its last slash, and what comes after it.
    pub(crate) fn split(path: &Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        let length = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (directory, name) = bytes.split_at_checked(length).unwrap_or((&[], bytes));
        Self {
            directory: OsStr::from_bytes(directory).into(),
            name: OsStr::from_bytes(name).into(),
        }
    }

    /// What `name`, stored in the file of this name, stands for. Nothing is normalised, as in
    /// qemu's File column.
    pub(crate) fn beside(&self, name: &OsStr) -> Self {
        let bytes = name.as_bytes();
        let own = match bytes.strip_prefix(self.directory.as_bytes()) {
            // The directory, written out.
            Some(rest) if !self.directory.is_empty() && bytes.starts_with(b"/") => rest,
            _ if bytes.starts_with(b"/") => {
                return Self { directory: OsStr::new("").into(), name: name.into() };
            }
            _ => bytes,
        };
        Self { directory: Arc::clone(&self.directory), name: OsStr::from_bytes(own).into() }
    }

    /// The directory, empty or with a slash at the end, and the name: the whole name is one after
    /// the other.
    pub fn parts(&self) -> [&OsStr; 2] {
        [&self.directory, &self.name]
    }

    /// The directory alone.
    pub(crate) fn directory(&self) -> &OsStr {
        &self.directory
    }

    /// The whole name.
    pub fn to_path(&self) -> PathBuf {
        let mut path = self.directory.to_os_string();
        path.push(&self.name);
        path.into()
    }

    /// Bytes of the whole name.
    pub(crate) fn len(&self) -> usize {
        self.directory.len().saturating_add(self.name.len())
    }

    /// Bytes of memory that this name does not share with others.
    pub(crate) fn own_bytes(&self) -> u64 {
        self.name.len() as u64
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for FileName {
    fn from(path: &P) -> Self {
        Self::split(path.as_ref())
    }
}

/// The whole name, bytes that are not UTF-8 replaced.
impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No character is in both: the first part ends with a slash.
        self.parts().iter().try_for_each(|part| write!(f, "{}", Path::new(part).display()))
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_path(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn names_are_joined_as_texts() {
        for (image, name, path) in [
            (".//dir/x.vmdk", "../a", ".//dir/../a"),
            ("x.vmdk", "a", "a"),
            ("x.vmdk", "/a", "/a"),
            ("dir/x.vmdk", "/a", "/a"),
            ("/x.vmdk", "/a", "/a"),
            ("/dir/x.vmdk", "/dir/a", "/dir/a"),
            ("/dir/x.vmdk", "/dir//a", "/dir//a"),
            ("/dir/x.vmdk", "/directory/a", "/directory/a"),
            ("dir/x.vmdk", "dir/a", "dir/dir/a"),
            ("dir/x.vmdk", "", "dir/"),
        ] {
            let found = FileName::from(image).beside(OsStr::new(name));
            assert_eq!(found.to_path().as_os_str(), path, "{image} {name}");
            assert_eq!(found.to_string(), path);
            assert_eq!(format!("{found:?}"), format!("{path:?}"));
        }
    }

    #[test]
    fn names_of_one_image_that_read_the_same_are_equal() {
        let image = FileName::from("/dir/x");
        let beside = |name: &str| image.beside(OsStr::new(name));
        assert_eq!(beside("a"), beside("/dir/a"));
        assert_eq!(beside("x"), image);
        assert_ne!(beside("a"), beside("./a"));
        // The directory is the same memory.
        assert!(Arc::ptr_eq(&beside("a").directory, &beside("/dir/b").directory));
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_and_shown_replaced() {
        let image = FileName::from(OsStr::from_bytes(b"d\xff/x"));
        let found = image.beside(OsStr::from_bytes(b"a\xfe"));
        assert_eq!(found.to_path().as_os_str().as_bytes(), b"d\xff/a\xfe");
        assert_eq!(found.to_string(), "d\u{fffd}/a\u{fffd}");
    }
}
