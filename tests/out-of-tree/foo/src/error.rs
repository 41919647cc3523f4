//! What can be wrong with a foo image.

use instar_core::ErrorKind;

/// One reason to refuse an image; all offsets and sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("not a foo image: the magic is {found:02x?}")]
    Magic { found: [u8; 8] },
    #[error("the words of the header add up to {sum:#x}, expected 0")]
    Checksum { sum: u32 },
    #[error("block_bits is {bits}, allowed are 9 to 24")]
    BlockBits { bits: u32 },
    #[error("the disk size is {size}, which is no multiple of 512")]
    DiskSize { size: u64 },
    #[error("the backing file name has {length} bytes, at most 255 are allowed")]
    NameLength { length: u32 },
    #[error("the table ({size} bytes at {offset:#x}) is outside the file of {file} bytes")]
    TableOutside { offset: u64, size: u64, file: u64 },
    #[error("the entry of block {block} is {raw:#x}, where bits 2 to 8 must be 0")]
    ReservedBits { block: u64, raw: u64 },
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Magic { .. } => ErrorKind::WrongFormat,
            _ => ErrorKind::Corrupt,
        };
        Self::new(kind, error)
    }
}
