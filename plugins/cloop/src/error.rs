//! What can be wrong with a cloop image.

use instar_core::ErrorKind;

/// One reason to refuse an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no preamble: 'V2.0' is not at byte 11 of the file")]
    NoPreamble,
    #[error("the format is V4.0, only V2.0 is supported")]
    Version,
    #[error("block size is {size}, expected a multiple of 512 from 512 to {allowed}")]
    BlockSize { size: u32, allowed: u32, at: u64 },
    #[error("number of blocks is {blocks}, at most {allowed} are allowed")]
    TooManyBlocks { blocks: u32, allowed: u32, at: u64 },
    #[error("table of offsets ({entries} entries at 0x88) is outside the file of {file} bytes")]
    TableOutside { entries: u64, file: u64 },
    #[error("offset {index} is {offset:#x}, less than the one before it, {previous:#x}")]
    Order { index: u64, offset: u64, previous: u64, at: u64 },
    #[error("compressed block {block} has {length} bytes, at most {allowed} are allowed")]
    BlockTooLarge { block: u64, length: u64, allowed: u64, at: u64 },
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        let (kind, at) = match error {
            Error::NoPreamble => (ErrorKind::WrongFormat, 11),
            Error::Version => (ErrorKind::Unsupported, 11),
            Error::TooManyBlocks { at, .. } => (ErrorKind::Limit, at),
            Error::BlockSize { at, .. }
            | Error::Order { at, .. }
            | Error::BlockTooLarge { at, .. } => (ErrorKind::Corrupt, at),
            Error::TableOutside { .. } => (ErrorKind::Corrupt, crate::disk::TABLE),
        };
        Self::new(kind, error).at(at)
    }
}
