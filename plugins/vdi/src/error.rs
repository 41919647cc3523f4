//! What can be wrong with a VDI.

use instar_core::ErrorKind;

/// One reason to refuse an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("signature is {found:#010x}, expected 0xbeda107f")]
    Signature { found: u32 },
    #[error("version is {major}.{minor}, supported is 1.1")]
    Version { major: u32, minor: u32 },
    #[error("block map offset is {offset:#x}, expected a multiple of 512")]
    MapUnaligned { offset: u64 },
    #[error("data offset is {offset:#x}, expected a multiple of 512")]
    DataUnaligned { offset: u64 },
    #[error("sector size is {size}, expected 512")]
    SectorSize { size: u32 },
    #[error("block size is {size}, expected a power of two from 512")]
    BlockSize { size: u32 },
    #[error("extra data of a block is {size} bytes, expected 0 or a power of two")]
    BlockExtra { size: u32 },
    #[error("block map has {count} entries, at most {allowed} are allowed")]
    TooManyBlocks { count: u32, allowed: u32 },
    #[error("disk size is {size}, but the block map has room for {room} bytes")]
    DiskSize { size: u64, room: u64 },
    #[error("block map ({count} entries at {offset:#x}) is outside the file of {file} bytes")]
    MapOutside { count: u32, offset: u64, file: u64 },
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        use ErrorKind::{Corrupt, Limit, Unsupported, WrongFormat};
        let (kind, at) = match error {
            Error::Signature { .. } => (WrongFormat, 0x40),
            Error::Version { .. } => (Unsupported, 0x44),
            Error::MapUnaligned { .. } | Error::MapOutside { .. } => (Corrupt, 0x154),
            Error::DataUnaligned { .. } => (Corrupt, 0x158),
            Error::SectorSize { .. } => (Corrupt, 0x168),
            Error::DiskSize { .. } => (Corrupt, 0x170),
            Error::BlockSize { .. } => (Corrupt, 0x178),
            Error::BlockExtra { .. } => (Corrupt, 0x17c),
            Error::TooManyBlocks { .. } => (Limit, 0x180),
        };
        Self::new(kind, error).at(at)
    }
}
