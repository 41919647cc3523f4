//! What can be wrong with a Parallels image.

use instar_core::ErrorKind;

/// One reason to refuse an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the magic is {found:02x?}, expected 'WithoutFreeSpace' or 'WithouFreSpacExt'")]
    Magic { found: [u8; 16] },
    #[error("version is {version}, supported is 2")]
    Version { version: u32 },
    #[error("cluster size is {sectors} sectors, allowed are 1 to {allowed}")]
    Cluster { sectors: u32, allowed: u32 },
    #[error("block allocation table has {entries} entries, at most {allowed} are allowed")]
    TableTooLarge { entries: u32, allowed: u32 },
    #[error("block allocation table has {entries} entries, the disk needs {needed}")]
    TableTooSmall { entries: u32, needed: u64 },
    #[error("block allocation table ({entries} entries) is outside the file of {file} bytes")]
    TableOutside { entries: u32, file: u64 },
    #[error(
        "entry {index} of the block allocation table is {entry}, which is outside the file's data: \
         allowed are 0 and {first} to {last}"
    )]
    EntryOutside { index: u64, entry: u32, first: u32, last: u32, at: u64 },
    #[error("format extension is in sector {sector}, outside the file of {file} bytes")]
    ExtensionOutside { sector: u64, file: u64 },
    #[error("format extension is cut short: the file has {file} bytes, {needed} are needed")]
    ExtensionCut { file: u64, needed: u64, at: u64 },
    #[error("format extension has the magic {found:#018x}, expected 0xab234cef23dcea87")]
    ExtensionMagic { found: u64, at: u64 },
    #[error("format extension has the checksum {stored:02x?}, expected {computed:02x?}")]
    ExtensionChecksum { stored: [u8; 16], computed: [u8; 16], at: u64 },
    #[error("features of the format extension do not end inside its cluster")]
    FeaturesEndless { at: u64 },
    #[error("feature {magic:#x} of the format extension is unknown")]
    FeatureUnknown { magic: u64, at: u64 },
    #[error("feature {magic:#x} has flags {flags:#x}, none are supported")]
    FeatureFlags { magic: u64, flags: u64, at: u64 },
    #[error("feature {magic:#x} has {size} bytes of data, its cluster has room for {room}")]
    FeatureTooLarge { magic: u64, size: u32, room: u64, at: u64 },
    #[error("dirty bitmap has {size} bytes of data, it needs {needed}")]
    BitmapTooSmall { size: u64, needed: u64, at: u64 },
    #[error("dirty bitmap is of {bitmap} sectors, the disk has {disk}")]
    BitmapSectors { bitmap: u64, disk: u64, at: u64 },
    #[error(
        "granularity of the dirty bitmap is {sectors} sectors, expected a power of two up to \
         {allowed}"
    )]
    BitmapGranularity { sectors: u32, allowed: u32, at: u64 },
    #[error("table of the dirty bitmap has {entries} entries, expected {expected}")]
    BitmapTable { entries: u32, expected: u64, at: u64 },
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        use ErrorKind::{Corrupt, Limit, Unsupported, WrongFormat};
        let (kind, at) = match error {
            Error::Magic { .. } => (WrongFormat, 0),
            Error::Version { .. } => (Unsupported, 16),
            Error::Cluster { .. } => (Corrupt, 28),
            Error::TableTooLarge { .. } => (Limit, 32),
            Error::TableTooSmall { .. } | Error::TableOutside { .. } => (Corrupt, 32),
            Error::ExtensionOutside { .. } => (Corrupt, 56),
            Error::FeatureUnknown { at, .. } | Error::FeatureFlags { at, .. } => (Unsupported, at),
            Error::EntryOutside { at, .. }
            | Error::ExtensionCut { at, .. }
            | Error::ExtensionMagic { at, .. }
            | Error::ExtensionChecksum { at, .. }
            | Error::FeaturesEndless { at }
            | Error::FeatureTooLarge { at, .. }
            | Error::BitmapTooSmall { at, .. }
            | Error::BitmapSectors { at, .. }
            | Error::BitmapGranularity { at, .. }
            | Error::BitmapTable { at, .. } => (Corrupt, at),
        };
        Self::new(kind, error).at(at)
    }
}
