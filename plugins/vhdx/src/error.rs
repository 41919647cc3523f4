//! Why a file cannot be read as VHDX.

use instar_core::{ErrorKind, quoted};

use crate::disk::{KIB, LOG_VERSION, MAX_ENTRIES, MIB, VERSION};
use crate::guid::Guid;
use crate::layout::MAX_VIRTUAL_SIZE;

/// The result of a check that does no I/O.
pub(crate) type Checked<T> = std::result::Result<T, Error>;

/// Every way in which a file can be wrong, or more than this plugin reads. Fields called `at`
/// are file offsets, in bytes, of what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("the file does not start with the signature `vhdxfile`")]
    NoSignature,

    #[error("header section is cut short: the file has {file} bytes, at least {needed} are needed")]
    HeadersCut { at: u64, file: u64, needed: u64 },
    #[error("neither header has a right signature and checksum")]
    NoValidHeader,
    #[error("both headers are valid and have sequence number {sequence_number}, but differ")]
    HeadersDiffer { sequence_number: u64 },
    #[error("the header's version is {version}, only {VERSION} is supported")]
    Version { at: u64, version: u16 },

    #[error("the log's version is {version}, only {LOG_VERSION} is supported")]
    LogVersion { at: u64, version: u16 },
    #[error(
        "the log of {length} bytes at {offset:#x} is misplaced: both must be multiples of \
         {MIB}, the offset at least that"
    )]
    LogPlacement { at: u64, offset: u64, length: u32 },
    #[error("the log has {length} bytes, at most {allowed} are replayed")]
    LogTooLong { at: u64, length: u32, allowed: u64 },
    #[error("the header names log {guid}, but the log has no valid sequence of such entries")]
    LogWithoutSequence { at: u64, guid: Guid },
    #[error("the file has {file} bytes, but had {flushed} when its log was written")]
    LogTruncatedFile { at: u64, file: u64, flushed: u64 },
    #[error("the log has {count} updates to replay, at most {allowed} are replayed")]
    LogTooManyUpdates { at: u64, count: u64, allowed: u64 },

    #[error("the region table has no signature `regi`")]
    RegionTableSignature { at: u64 },
    #[error("the region table's checksum is {stored:#010x}, expected {computed:#010x}")]
    RegionTableChecksum { at: u64, stored: u32, computed: u32 },
    #[error("the {table} has {count} entries, at most {MAX_ENTRIES} are allowed")]
    TooManyEntries { table: &'static str, at: u64, count: u32 },
    #[error(
        "region {guid} of {length} bytes at {offset:#x} is misplaced: both must be multiples of \
         {MIB}, the offset at least that"
    )]
    RegionPlacement { at: u64, guid: Guid, offset: u64, length: u32 },
    #[error("region {guid} is in the region table twice")]
    RegionTwice { at: u64, guid: Guid },
    #[error("region {guid} is marked as required, but is not known")]
    RegionUnknown { at: u64, guid: Guid },
    #[error("{name} is not in the region table")]
    RegionMissing { name: &'static str },
    #[error("{second} at {start:#x} overlaps {first}, which ends at {end:#x}")]
    RegionsOverlap { first: &'static str, end: u64, second: &'static str, start: u64 },

    #[error("the metadata table has no signature `metadata`")]
    MetadataSignature { at: u64 },
    #[error("metadata item {guid} is in the metadata table twice")]
    ItemTwice { at: u64, guid: Guid },
    #[error("metadata item {guid} is marked as required, but is not known")]
    ItemUnknown { at: u64, guid: Guid },
    #[error("the {name} is not in the metadata table")]
    ItemMissing { name: &'static str },
    #[error(
        "the {name} ({length} bytes at {offset:#x} of the metadata region) is misplaced: it must \
         lie from {} on, have at most {MIB} bytes, and end at or before {region}",
        64 * KIB
    )]
    ItemPlacement { at: u64, name: &'static str, offset: u32, length: u32, region: u32 },
    #[error("the block size is {block_size}, expected a power of two from 1 MiB to 256 MiB")]
    BlockSize { at: u64, block_size: u32 },
    #[error("the logical sector size is {size}, expected 512 or 4096")]
    LogicalSectorSize { at: u64, size: u32 },
    #[error("the virtual size is {size}, at most {MAX_VIRTUAL_SIZE} bytes (64 TiB) are allowed")]
    VirtualSize { at: u64, size: u64 },

    #[error("the disk has a parent, but there is no parent locator")]
    LocatorMissing,
    #[error("the parent locator is of type {guid}, which is not known")]
    LocatorType { at: u64, guid: Guid },
    #[error("entry {index} of the parent locator has a key or value without bytes")]
    LocatorEmptyText { at: u64, index: usize },
    #[error("the parent locator has two entries {key}")]
    LocatorKeyTwice { at: u64, key: &'static str },
    #[error("the parent locator's {key} is not UTF-16 text without a NUL")]
    LocatorText { at: u64, key: &'static str },
    #[error("the parent locator's {key} is {}, expected a GUID", quoted(.text))]
    LocatorGuid { at: u64, key: &'static str, text: String },
    #[error("the parent locator has no parent_linkage")]
    LocatorWithoutLinkage { at: u64 },

    #[error("the BAT region has {length} bytes, the disk needs {needed}")]
    BatTooShort { at: u64, length: u32, needed: u64 },
    #[error("the BAT ({needed} bytes at {offset:#x}) runs past the end of the file ({file} bytes)")]
    BatOutsideFile { offset: u64, needed: u64, file: u64 },

    #[error("BAT entry {index} has the reserved state {state}")]
    EntryState { at: u64, index: u64, state: u64 },
    #[error("BAT entry {index} is partially present, but the disk has no parent")]
    EntryWithoutParent { at: u64, index: u64 },
    #[error("BAT entry {index} points to {offset:#x}, inside the header section of {MIB} bytes")]
    EntryInHeader { at: u64, index: u64, offset: u64 },
    #[error(
        "BAT entry {index} points to {offset:#x}, where {length} bytes run past the end of the \
         file ({file} bytes)"
    )]
    EntryOutsideFile { at: u64, index: u64, offset: u64, length: u64, file: u64 },
    #[error("BAT entry {index} points to {offset:#x}, where {length} bytes overlap {name}")]
    EntryOverlaps { at: u64, index: u64, offset: u64, length: u64, name: &'static str },
    #[error(
        "BAT entry {index}, the sector bitmap of the partially present block at BAT entry \
         {block}, has state {state}, expected 6 (present)"
    )]
    BitmapState { at: u64, index: u64, block: u64, state: u64 },
    #[error("the bits of a block are not where they were read")]
    BitmapWindow { at: u64 },
}

impl Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSignature => ErrorKind::WrongFormat,
            Self::Version { .. }
            | Self::LogVersion { .. }
            | Self::RegionUnknown { .. }
            | Self::ItemUnknown { .. }
            | Self::LocatorType { .. } => ErrorKind::Unsupported,
            Self::LogTooLong { .. } | Self::LogTooManyUpdates { .. } => ErrorKind::Limit,
            Self::BitmapWindow { .. } => ErrorKind::Bug,
            _ => ErrorKind::Corrupt,
        }
    }

    fn at(&self) -> Option<u64> {
        match self {
            Self::HeadersCut { at, .. }
            | Self::Version { at, .. }
            | Self::LogVersion { at, .. }
            | Self::LogPlacement { at, .. }
            | Self::LogTooLong { at, .. }
            | Self::LogWithoutSequence { at, .. }
            | Self::LogTruncatedFile { at, .. }
            | Self::LogTooManyUpdates { at, .. }
            | Self::RegionTableSignature { at }
            | Self::RegionTableChecksum { at, .. }
            | Self::TooManyEntries { at, .. }
            | Self::RegionPlacement { at, .. }
            | Self::RegionTwice { at, .. }
            | Self::RegionUnknown { at, .. }
            | Self::MetadataSignature { at }
            | Self::ItemTwice { at, .. }
            | Self::ItemUnknown { at, .. }
            | Self::ItemPlacement { at, .. }
            | Self::BlockSize { at, .. }
            | Self::LogicalSectorSize { at, .. }
            | Self::VirtualSize { at, .. }
            | Self::LocatorType { at, .. }
            | Self::LocatorEmptyText { at, .. }
            | Self::LocatorKeyTwice { at, .. }
            | Self::LocatorText { at, .. }
            | Self::LocatorGuid { at, .. }
            | Self::LocatorWithoutLinkage { at }
            | Self::BatTooShort { at, .. }
            | Self::EntryState { at, .. }
            | Self::EntryWithoutParent { at, .. }
            | Self::EntryInHeader { at, .. }
            | Self::EntryOutsideFile { at, .. }
            | Self::EntryOverlaps { at, .. }
            | Self::BitmapState { at, .. }
            | Self::BitmapWindow { at } => Some(*at),
            Self::NoSignature
            | Self::NoValidHeader
            | Self::HeadersDiffer { .. }
            | Self::RegionMissing { .. }
            | Self::RegionsOverlap { .. }
            | Self::ItemMissing { .. }
            | Self::LocatorMissing
            | Self::BatOutsideFile { .. } => None,
        }
    }
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        let (kind, at) = (error.kind(), error.at());
        let error = Self::new(kind, error);
        match at {
            Some(at) => error.at(at),
            None => error,
        }
    }
}
