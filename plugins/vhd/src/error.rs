//! What can be wrong with a VHD.

use instar_core::ErrorKind;

/// One reason to refuse an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the file is empty, a footer needs 512 bytes")]
    Empty,
    #[error("no footer: neither the first nor the last sector starts with 'conectix'")]
    NoFooter,
    #[error("footer checksum is {stored:#010x}, expected {computed:#010x}")]
    FooterChecksum { stored: u32, computed: u32, at: u64 },
    #[error(
        "disk type is {disk_type}, allowed without a footer at the start of the file are 2 \
         (fixed), 3 (dynamic) and 4 (differencing)"
    )]
    DiskType { disk_type: u32, at: u64 },
    #[error("disk size is {sectors} sectors, at most {allowed} are allowed")]
    Size { sectors: u64, allowed: u64, at: u64 },
    #[error("dynamic header does not start with 'cxsparse'")]
    HeaderCookie { at: u64 },
    #[error("block size is {size}, expected a power of two from 512")]
    BlockSize { size: u32, at: u64 },
    #[error("block allocation table has {entries} entries, the disk needs {needed}")]
    TableTooSmall { entries: u32, needed: u64, at: u64 },
    #[error("block allocation table has {entries} entries, at most {allowed} are allowed")]
    TableTooLarge { entries: u32, allowed: u32, at: u64 },
    #[error(
        "block allocation table ({entries} entries at {offset:#x}) is outside the file of \
         {file} bytes"
    )]
    TableOutside { entries: u32, offset: u64, file: u64, at: u64 },
    #[error(
        "block {block} (entry {entry:#x}) ends at {end:#x}, outside the file of {file} bytes: \
         the image has been truncated"
    )]
    BlockOutside { block: u64, entry: u32, end: u64, file: u64, at: u64 },
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        let (kind, at) = match error {
            Error::Empty | Error::NoFooter => (ErrorKind::WrongFormat, None),
            Error::DiskType { at, .. } => (ErrorKind::Unsupported, Some(at)),
            Error::Size { at, .. } | Error::TableTooLarge { at, .. } => {
                (ErrorKind::Limit, Some(at))
            }
            Error::FooterChecksum { at, .. }
            | Error::HeaderCookie { at }
            | Error::BlockSize { at, .. }
            | Error::TableTooSmall { at, .. }
            | Error::TableOutside { at, .. }
            | Error::BlockOutside { at, .. } => (ErrorKind::Corrupt, Some(at)),
        };
        let error = Self::new(kind, error);
        match at {
            Some(at) => error.at(at),
            None => error,
        }
    }
}
