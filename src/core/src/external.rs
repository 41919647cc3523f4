//! Other files that an image names: the whole trust decision.
//!
//! Nothing an image says opens a file by itself. A format hands the names to the [`Opener`], and
//! the opener's policy, set by the user, decides. No other code opens files for an image.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, ImageFile, Result};

/// What to do about other files that an image names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExternalPolicy {
    /// Such an image is an error.
    #[default]
    Refuse,
    /// The image is mapped alone; nothing is opened.
    Ignore,
}

/// In which way an image refers to another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Holds what this layer does not.
    Backing,
    /// The same, in the terms of VHD and VHDX.
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
    /// The stored names, best first; VHD and VHDX may hold several for one parent.
    pub names: Vec<OsString>,
    /// The stored name of the layer's format, if any.
    pub format: Option<String>,
}

/// A name from an image, made safe to print: quoted, control characters escaped.
struct Shown<'a>(&'a OsStr);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The gate to other files.
#[derive(Debug, Default)]
pub struct Opener {
    policy: ExternalPolicy,
}

impl Opener {
    /// A gate with this policy.
    pub fn new(policy: ExternalPolicy) -> Self {
        Self { policy }
    }

    /// Asks for the files that a format needs to map its own layer, in the order of
    /// `references`; `image` is the file that names them. A file that was not opened has no
    /// storage.
    ///
    /// # Errors
    /// [`ErrorKind::External`], naming every one of them, under [`ExternalPolicy::Refuse`].
    pub fn members(&self, image: &Path, references: &[Reference]) -> Result<Vec<ImageFile>> {
        let Some(first) = references.first() else {
            return Ok(Vec::new());
        };
        self.decide(first.role, references.iter().map(|r| r.name.as_os_str()))?;
        let unopened = |reference: &Reference| ImageFile {
            name: beside(image, &reference.name),
            storage: None,
        };
        Ok(references.iter().map(unopened).collect())
    }

    /// Asks for the layer below.
    ///
    /// # Errors
    /// [`ErrorKind::External`], naming it, under [`ExternalPolicy::Refuse`].
    pub fn backing(&self, backing: &Backing) -> Result<()> {
        self.decide(backing.role, backing.names.iter().map(OsString::as_os_str))
    }

    fn decide<'a>(&self, role: Role, names: impl Iterator<Item = &'a OsStr>) -> Result<()> {
        match self.policy {
            ExternalPolicy::Ignore => Ok(()),
            ExternalPolicy::Refuse => Err(refusal(role, names)),
        }
    }
}

/// The path that `name`, stored in `image`, stands for: relative names start from the image's
/// directory. Nothing is normalised, as in qemu's File column.
fn beside(image: &Path, name: &OsStr) -> PathBuf {
    let bytes = image.as_os_str().as_bytes();
    let directory = match bytes.iter().rposition(|byte| *byte == b'/') {
        Some(slash) if !name.as_bytes().starts_with(b"/") => {
            bytes.get(..=slash).unwrap_or_default()
        }
        _ => &[],
    };
    let mut path = OsStr::from_bytes(directory).to_owned();
    path.push(name);
    path.into()
}

/// Names listed in a refusal; the rest is counted (instar's own limit).
const LISTED: usize = 8;

fn refusal<'a>(role: Role, names: impl Iterator<Item = &'a OsStr>) -> Error {
    let names: Vec<String> = names.map(|name| Shown(name).to_string()).collect();
    let mut list = names.get(..LISTED).unwrap_or(&names).join(", ");
    if let Some(more) = names.len().checked_sub(LISTED).filter(|more| *more > 0) {
        list.push_str(&format!(" and {more} more"));
    }
    let noun = role.noun();
    Error::new(
        ErrorKind::External,
        format!(
            "the image names another file ({noun} {list}), which is not opened; \
             --external=ignore maps this file alone"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn refusing_names_every_reference_and_the_option() {
        let reference = |name: &str| Reference {
            role: Role::Extent,
            name: name.into(),
        };
        let opener = Opener::default();
        let image = Path::new(".//dir/x.vmdk");
        let two = [reference("a\n.vmdk"), reference("b.vmdk")];
        let error = opener.members(image, &two).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::External);
        assert_eq!(
            error.to_string(),
            "the image names another file (extent file \"a\\n.vmdk\", \"b.vmdk\"), which is not \
             opened; --external=ignore maps this file alone"
        );
        let many: Vec<_> = (0..10).map(|i| reference(&i.to_string())).collect();
        let error = opener.members(image, &many).err().unwrap();
        assert!(error.to_string().contains("\"7\" and 2 more"));
        assert!(opener.members(image, &[]).unwrap().is_empty());
    }

    #[test]
    fn ignoring_opens_nothing_and_names_files_beside_the_image() {
        let opener = Opener::new(ExternalPolicy::Ignore);
        let name = |image: &str, name: &str| {
            let reference = Reference {
                role: Role::DataFile,
                name: name.into(),
            };
            let files = opener.members(Path::new(image), &[reference]).unwrap();
            assert!(files[0].storage.is_none());
            files[0].name.to_str().unwrap().to_owned()
        };
        assert_eq!(name(".//dir/x.vmdk", "../a"), ".//dir/../a");
        assert_eq!(name("x.vmdk", "a"), "a");
        assert_eq!(name("dir/x.vmdk", "/a"), "/a");
    }
}
