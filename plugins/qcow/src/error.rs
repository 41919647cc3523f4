//! Why a qcow image is refused.

use instar_core::ErrorKind;

/// One reason each; all offsets and sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("not a qcow image: the magic is {found:02x?}, expected [51, 46, 49, fb]")]
    Magic { found: [u8; 4] },
    #[error("version {version} is not supported, only 1 is (2 and 3 are qcow2)")]
    Version { version: u32 },
    #[error("the virtual size is {size} bytes, at least 2 are needed")]
    TooSmall { size: u64 },
    #[error("cluster_bits is {bits}, allowed are 9 to 16")]
    ClusterBits { bits: u8 },
    #[error("l2_bits is {bits}, allowed are 6 to 13")]
    L2Bits { bits: u8 },
    #[error("crypt_method is {method}, known are 0 (none) and 1 (AES)")]
    CryptMethod { method: u32 },
    #[error(
        "the virtual size is {size} bytes, which needs an L1 table of {entries} entries; at most \
         {allowed} are allowed"
    )]
    TooLarge { size: u64, entries: u64, allowed: u64 },
    #[error("the backing file name has {length} bytes, at most {allowed} are allowed")]
    BackingLength { length: u32, allowed: u32 },
    #[error("the L1 table ({size} bytes at {offset:#x}) is outside the file of {file} bytes")]
    L1Outside { offset: u64, size: u64, file: u64 },
}

impl Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Magic { .. } => ErrorKind::WrongFormat,
            Self::Version { .. } | Self::CryptMethod { .. } => ErrorKind::Unsupported,
            Self::TooLarge { .. } => ErrorKind::Limit,
            Self::TooSmall { .. }
            | Self::ClusterBits { .. }
            | Self::L2Bits { .. }
            | Self::BackingLength { .. }
            | Self::L1Outside { .. } => ErrorKind::Corrupt,
        }
    }
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}
