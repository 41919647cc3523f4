//! Why a QED image is refused.

use std::fmt;

use instar_core::ErrorKind;

use crate::disk::Room;

/// One reason each; all offsets and sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("not a QED image: the magic is {found:02x?}, expected [51, 45, 44, 00]")]
    Magic { found: [u8; 4] },
    #[error("feature bits {unknown:#x} are not supported, known are 0x7")]
    Features { unknown: u64 },
    #[error("the cluster size is {size}, allowed are powers of two from 4096 to 67108864")]
    ClusterSize { size: u32 },
    #[error("the table size is {clusters} clusters, allowed are 1, 2, 4, 8 and 16")]
    TableSize { clusters: u32 },
    #[error("the virtual size is {size} bytes, which is no multiple of 512")]
    SizeUnaligned { size: u64 },
    #[error("the virtual size is {size} bytes, the tables have room for {allowed}")]
    SizeTooLarge { size: u64, allowed: u64 },
    #[error(
        "the header size is {clusters} clusters, which is {size} bytes; less than 2^32 are \
             allowed"
    )]
    HeaderSize { clusters: u32, size: u64 },
    #[error(
        "the backing file name ({length} bytes at {offset:#x}) is outside the header of {header} \
         bytes"
    )]
    BackingOutside { offset: u64, length: u32, header: u64 },
    #[error("the backing file name has {length} bytes, at most {allowed} are allowed")]
    BackingLength { length: u32, allowed: u32 },
    #[error("the L1 table is misplaced: {0}")]
    L1(Misplaced),
    #[error("the L2 table of guest offset {guest:#x} is misplaced: {misplaced}")]
    L2 { guest: u64, misplaced: Misplaced },
    #[error(
        "the cluster of guest offset {guest:#x} is misplaced: {offset:#x}, allowed are multiples \
         of {} from the end of the header at {:#x}",
        room.cluster,
        room.start
    )]
    Cluster { guest: u64, offset: u64, room: Room },
}

/// A table that does not lie where it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misplaced {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) room: Room,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, length, room: Room { cluster, start, end } } = self;
        write!(
            f,
            "{length} bytes at {offset:#x}, allowed are whole clusters of {cluster} bytes from \
             the end of the header at {start:#x} to that of the file's last whole cluster at \
             {end:#x}"
        )
    }
}

impl Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Magic { .. } => ErrorKind::WrongFormat,
            Self::Features { .. } => ErrorKind::Unsupported,
            Self::BackingLength { .. } => ErrorKind::Limit,
            Self::ClusterSize { .. }
            | Self::TableSize { .. }
            | Self::SizeUnaligned { .. }
            | Self::SizeTooLarge { .. }
            | Self::HeaderSize { .. }
            | Self::BackingOutside { .. }
            | Self::L1(_)
            | Self::L2 { .. }
            | Self::Cluster { .. } => ErrorKind::Corrupt,
        }
    }
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}
