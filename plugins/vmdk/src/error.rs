//! What can be wrong with an image.

use instar_core::ErrorKind;

/// The result of a check within the plugin.
pub(crate) type Checked<T> = Result<T, Error>;

/// Why an image was refused or its map ends early. `at` is the file offset, in bytes, of the
/// field at fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "neither a sparse extent (KDMV, COWD, seSparse) nor a text descriptor: there is no \
         createType"
    )]
    NotVmdk,

    // Sparse extents.
    #[error("version is {version}, at most {allowed} is supported")]
    Version { version: u32, allowed: u32, at: u64 },
    #[error("entries per grain table is {entries}, 1 to {allowed} is allowed")]
    TableEntries { entries: u32, allowed: u32, at: u64 },
    #[error("grain size is {sectors} sectors, 1 to {allowed} is allowed")]
    GrainSize { sectors: u64, allowed: u64, at: u64 },
    #[error("capacity is {sectors} sectors, at most 2^54 − 2^21 is allowed")]
    Capacity { sectors: u64, at: u64 },
    #[error("the capacity needs {entries} grain directory entries, at most {allowed} is allowed")]
    DirectoryEntries { entries: u64, allowed: u64, at: u64 },
    #[error("the grain directory has {entries} entries, at most {allowed} is allowed")]
    DirectorySize { entries: u64, allowed: u64, at: u64 },
    #[error(
        "the file is truncated: it has {length} bytes, but the first {overhead} sectors hold \
         metadata"
    )]
    Truncated { length: u64, overhead: u64, at: u64 },
    #[error(
        "grain directory ({length} bytes at sector {sector}) is outside the file of {file} bytes"
    )]
    DirectoryOutside { sector: u64, length: u64, file: u64, at: u64 },
    #[error("redundant grain directory at sector {sector} cannot be inside any file")]
    RedundantDirectory { sector: u64, at: u64 },
    #[error("the grain directory has {entries} entries, entry {index} is needed")]
    DirectoryTooShort { entries: u64, index: u64 },

    // Footer.
    #[error(
        "the grain directory is in the footer, but the file of {length} bytes has no room for one"
    )]
    NoFooter { length: u64, at: u64 },
    #[error("footer marker has size {size} and type {kind}, 0 and 3 are expected")]
    FooterMarker { size: u32, kind: u32, at: u64 },
    #[error("the footer does not hold a copy of the header: magic is not KDMV")]
    FooterMagic { at: u64 },
    #[error(
        "end-of-stream marker has value {value}, size {size} and type {kind}, all 0 is expected"
    )]
    EndOfStream { value: u64, size: u32, kind: u32, at: u64 },
    #[error("the header copy in the footer refers to a footer for the grain directory again")]
    FooterInFooter { at: u64 },

    // seSparse.
    #[error("seSparse version is {version:#x}, only {expected:#x} is supported")]
    SeVersion { version: u64, expected: u64, at: u64 },
    #[error("seSparse grain size is {sectors} sectors, only {expected} is supported")]
    SeGrainSize { sectors: u64, expected: u64, at: u64 },
    #[error("seSparse grain table size is {sectors} sectors, only {expected} is supported")]
    SeTableSize { sectors: u64, expected: u64, at: u64 },
    #[error("seSparse flags are {flags:#x}, none is supported")]
    SeFlags { flags: u64, at: u64 },
    #[error("seSparse {what} is not zero: written by a newer version")]
    SeReserved { what: &'static str, at: u64 },
    #[error("seSparse volatile header has magic {magic:#x}, {expected:#x} is expected")]
    SeVolatileMagic { magic: u64, expected: u64, at: u64 },
    #[error("the journal has not been replayed: let the software that wrote the image close it")]
    SeJournal { at: u64 },
    #[error("seSparse volatile header at sector {sector} cannot be inside any file")]
    SeVolatilePlace { sector: u64, at: u64 },
    #[error("grain directory entry {entry:#x} is neither 0 nor marked as allocated (0x1 on top)")]
    SeDirectoryEntry { entry: u64, at: u64 },
    #[error(
        "grain table entry {entry:#x} is neither unallocated, unmapped, zero nor data below 2^63 \
         bytes"
    )]
    SeTableEntry { entry: u64, at: u64 },

    // Descriptors.
    #[error("the descriptor is longer than {allowed} bytes")]
    DescriptorSize { allowed: u64 },
    #[error("the descriptor of {sectors} sectors is longer than {allowed} bytes")]
    EmbeddedSize { sectors: u64, allowed: u64, at: u64 },
    #[error("embedded descriptor is cut short: the file has {file} bytes, {needed} are needed")]
    DescriptorCut { file: u64, needed: u64, at: u64 },
    #[error("the descriptor at sector {sector} cannot be inside any file")]
    EmbeddedPlace { sector: u64, at: u64 },
    #[error("createType is that of a disk in one file, but this is a text descriptor")]
    SingleFileText,
    #[error("{key} has no closing quote")]
    Unterminated { key: &'static str, at: u64 },
    #[error("the descriptor has no {key} with a hexadecimal number")]
    NoContentId { key: &'static str, at: u64 },
    #[error("createType {name} is {why}")]
    CreateType { name: String, why: &'static str },
    #[error("extent line {line} is not valid: {why}")]
    ExtentLine { line: String, why: &'static str },
    #[error("extent type {kind} is {why}")]
    ExtentType { kind: String, why: &'static str },
    #[error("more than {allowed} extents")]
    TooManyExtents { allowed: usize },
    #[error("the extents are together longer than 2^63 − 2^30 bytes")]
    TotalLength,
    #[error("extent file of type {kind} is not a sparse extent: its magic is unknown")]
    ExtentMagic { kind: &'static str },
    #[error(
        "extent file of type {kind} has no capacity, its line in the descriptor has {length} bytes"
    )]
    ExtentEmpty { kind: &'static str, length: u64 },
    #[error("capacity is 0 sectors, but the descriptor has an extent")]
    NoCapacity { at: u64 },
}

impl Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotVmdk => ErrorKind::WrongFormat,
            Self::Version { .. }
            | Self::SeVersion { .. }
            | Self::SeGrainSize { .. }
            | Self::SeTableSize { .. }
            | Self::SeFlags { .. }
            | Self::SeReserved { .. }
            | Self::SeJournal { .. }
            | Self::SingleFileText
            | Self::CreateType { .. }
            | Self::ExtentType { .. } => ErrorKind::Unsupported,
            Self::Capacity { .. }
            | Self::DirectoryEntries { .. }
            | Self::DirectorySize { .. }
            | Self::DescriptorSize { .. }
            | Self::EmbeddedSize { .. }
            | Self::TooManyExtents { .. }
            | Self::TotalLength => ErrorKind::Limit,
            _ => ErrorKind::Corrupt,
        }
    }

    fn offset(&self) -> Option<u64> {
        match self {
            Self::Version { at, .. }
            | Self::TableEntries { at, .. }
            | Self::GrainSize { at, .. }
            | Self::Capacity { at, .. }
            | Self::NoCapacity { at }
            | Self::DirectoryEntries { at, .. }
            | Self::DirectorySize { at, .. }
            | Self::Truncated { at, .. }
            | Self::DirectoryOutside { at, .. }
            | Self::RedundantDirectory { at, .. }
            | Self::NoFooter { at, .. }
            | Self::FooterMarker { at, .. }
            | Self::FooterMagic { at }
            | Self::EndOfStream { at, .. }
            | Self::FooterInFooter { at }
            | Self::SeVersion { at, .. }
            | Self::SeGrainSize { at, .. }
            | Self::SeTableSize { at, .. }
            | Self::SeFlags { at, .. }
            | Self::SeReserved { at, .. }
            | Self::SeVolatileMagic { at, .. }
            | Self::SeJournal { at }
            | Self::SeVolatilePlace { at, .. }
            | Self::SeDirectoryEntry { at, .. }
            | Self::SeTableEntry { at, .. }
            | Self::EmbeddedSize { at, .. }
            | Self::EmbeddedPlace { at, .. }
            | Self::DescriptorCut { at, .. }
            | Self::Unterminated { at, .. }
            | Self::NoContentId { at, .. } => Some(*at),
            Self::NotVmdk
            | Self::DirectoryTooShort { .. }
            | Self::DescriptorSize { .. }
            | Self::SingleFileText
            | Self::CreateType { .. }
            | Self::ExtentLine { .. }
            | Self::ExtentType { .. }
            | Self::TooManyExtents { .. }
            | Self::TotalLength
            | Self::ExtentMagic { .. }
            | Self::ExtentEmpty { .. } => None,
        }
    }
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        let (kind, offset) = (error.kind(), error.offset());
        let error = Self::new(kind, error);
        match offset {
            Some(at) => error.at(at),
            None => error,
        }
    }
}
