//! What can be wrong with a Bochs image.

use instar_core::ErrorKind;

/// One reason to refuse an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the file does not start with 'Bochs Virtual HD Image'")]
    Magic,
    #[error("image type is {found}, only \"Redolog\" is supported")]
    Type { found: String, at: u64 },
    #[error("image subtype is {found}, only \"Growing\" is supported")]
    Subtype { found: String, at: u64 },
    #[error("version is {version:#x}, supported are 0x10000 and 0x20000")]
    Version { version: u32, at: u64 },
    #[error("catalog has {entries} entries, at most {allowed} are allowed")]
    CatalogTooLarge { entries: u32, allowed: u32, at: u64 },
    #[error("catalog has {entries} entries, the disk needs {needed}")]
    CatalogTooSmall { entries: u32, needed: u64, at: u64 },
    #[error("catalog ({entries} entries at {offset:#x}) is outside the file of {file} bytes")]
    CatalogOutside { entries: u32, offset: u64, file: u64 },
    #[error("extent size is {size}, expected a power of two from 512 to {allowed}")]
    Extent { size: u32, allowed: u32, at: u64 },
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        let (kind, at) = match error {
            Error::Magic => (ErrorKind::WrongFormat, 0),
            Error::Type { at, .. } | Error::Subtype { at, .. } | Error::Version { at, .. } => {
                (ErrorKind::Unsupported, at)
            }
            Error::CatalogTooLarge { at, .. } => (ErrorKind::Limit, at),
            Error::CatalogTooSmall { at, .. } | Error::Extent { at, .. } => {
                (ErrorKind::Corrupt, at)
            }
            Error::CatalogOutside { offset, .. } => (ErrorKind::Corrupt, offset),
        };
        Self::new(kind, error).at(at)
    }
}
