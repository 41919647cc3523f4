//! Why a qcow2 image is refused.

use instar_core::ErrorKind;

/// One reason each; all offsets and sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("not a qcow2 image: the magic is {found:02x?}, expected [51, 46, 49, fb]")]
    Magic { found: [u8; 4] },
    #[error("version {version} is not supported, only 2 and 3 are")]
    Version { version: u32 },
    #[error("cluster_bits is {bits}, allowed are 9 to 21")]
    ClusterBits { bits: u32 },
    #[error("header_length is {length}, version 3 has at least 104")]
    HeaderTooShort { length: u32 },
    #[error("header_length is {length}, more than a cluster of {cluster}")]
    HeaderTooLong { length: u32, cluster: u64 },
    #[error("the backing file name lies at {offset:#x}, outside the first cluster of {cluster}")]
    BackingOffset { offset: u64, cluster: u64 },
    #[error("the backing file name has {length} bytes, at most {allowed} are allowed")]
    BackingLength { length: u32, allowed: u64 },
    #[error("compression type {kind} is unknown, known are 0 (zlib) and 1 (zstd)")]
    CompressionType { kind: u8 },
    #[error(
        "the compression type is {kind}, but incompatible feature bit 3 (compression type) is \
         {}",
        if *.bit { "set" } else { "clear" }
    )]
    CompressionBit { kind: u8, bit: bool },
    #[error("incompatible features are not supported: {names}")]
    Features { names: String },
    #[error("extended L2 entries need clusters of at least 16384 bytes, not {cluster}")]
    SubclusterSize { cluster: u64 },
    #[error("refcount_order is {order}, at most 6 is allowed")]
    RefcountOrder { order: u32 },
    #[error("there is no refcount table: refcount_table_clusters is 0")]
    NoRefcountTable,
    #[error("the {table} has {size} {unit}, at most {allowed} are allowed")]
    TableTooLarge { table: &'static str, size: u64, unit: &'static str, allowed: u64 },
    #[error("the {table} lies at {offset:#x}, which is no multiple of the cluster size {cluster}")]
    TableUnaligned { table: &'static str, offset: u64, cluster: u64 },
    #[error("the {table} lies at {offset:#x}, and so ends above 2^63 - 1")]
    TableBeyond { table: &'static str, offset: u64 },
    #[error("the {table} ({size} bytes at {offset:#x}) is outside the file of {file} bytes")]
    TableOutside { table: &'static str, offset: u64, size: u64, file: u64 },
    #[error("the virtual size is {size} bytes, at most 2^63 - 2^30 are allowed")]
    VirtualSize { size: u64 },
    #[error("the L1 table has {entries} entries, a disk of {size} bytes needs {needed}")]
    L1TooSmall { entries: u32, needed: u64, size: u64 },
    #[error("crypt_method is {method}, known are 0 (none), 1 (AES) and 2 (LUKS)")]
    CryptMethod { method: u32 },
    #[error("a header extension of type {kind:#010x} has {length} bytes, only {room} are left")]
    ExtensionTooLarge { kind: u32, length: u32, room: u64 },
    #[error("the header extension {what} has {length} bytes, {expected}")]
    ExtensionLength { what: &'static str, length: u32, expected: &'static str },
    #[error("an encryption header extension is only allowed with crypt_method 2, not {method}")]
    CryptoExtension { method: u32 },
    #[error("crypt_method is 2 (LUKS), but there is no encryption header extension")]
    NoCryptoExtension,
    #[error("incompatible feature bit 2 is set, but no external data file is named")]
    NoDataFile,
    #[error("autoclear bit 1 (raw data file) is set without an external data file")]
    RawDataFile,
    #[error(
        "snapshot table entry {index} has {extra} bytes of extra data, at most 1024 are allowed"
    )]
    SnapshotExtra { index: u32, extra: u32 },
    #[error("the snapshot table is over 64 MiB at entry {index}")]
    SnapshotTable { index: u32 },
    #[error("bitmaps extension: {what} is {value}, {expected}")]
    Bitmaps { what: &'static str, value: u64, expected: &'static str },
    #[error("bitmap directory: entry {index} is not inside the directory of {size} bytes")]
    BitmapDirectory { index: u64, size: u64 },
    #[error("bitmap directory: entry {index}: {what} is {value}, {expected}")]
    BitmapEntry { index: u64, what: &'static str, value: u64, expected: &'static str },
    #[error(
        "the L2 table at L1 index {index} lies at {offset:#x}, which is no multiple of the \
         cluster size {cluster}"
    )]
    L2Unaligned { index: u64, offset: u64, cluster: u64 },
    #[error(
        "the cluster of guest offset {guest:#x} lies at {offset:#x}, which is no multiple of the \
         cluster size {cluster}"
    )]
    ClusterUnaligned { guest: u64, offset: u64, cluster: u64 },
    #[error("the cluster of guest offset {guest:#x} is marked as zero, which version 2 lacks")]
    ZeroInVersion2 { guest: u64 },
    #[error(
        "the cluster of guest offset {guest:#x} is compressed, which an image with an external \
         data file cannot have"
    )]
    CompressedInDataFile { guest: u64 },
    #[error(
        "the cluster of guest offset {guest:#x} lies at {offset:#x} of the external data file, \
         where both must be equal"
    )]
    DataFileOffset { guest: u64, offset: u64 },
    #[error(
        "the extended L2 entry of guest offset {guest:#x} is invalid: entry {entry:#x}, \
         subcluster bitmap {bitmap:#x}"
    )]
    ExtendedEntry { guest: u64, entry: u64, bitmap: u64 },
}

impl Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Magic { .. } => ErrorKind::WrongFormat,
            Self::Version { .. }
            | Self::CompressionType { .. }
            | Self::Features { .. }
            | Self::CryptMethod { .. } => ErrorKind::Unsupported,
            Self::TableTooLarge { .. }
            | Self::VirtualSize { .. }
            | Self::SnapshotExtra { .. }
            | Self::SnapshotTable { .. } => ErrorKind::Limit,
            _ => ErrorKind::Corrupt,
        }
    }
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}
