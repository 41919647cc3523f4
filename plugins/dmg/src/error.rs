//! What can be wrong with a UDIF image.

use instar_core::ErrorKind;

/// One reason to refuse an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no trailer: 'koly' is not in the last two sectors of the file")]
    NoTrailer,
    #[error("the file of {file} bytes ends in the trailer, which has 512 bytes")]
    TrailerCut { file: u64, at: u64 },
    #[error("the image is encrypted as a whole, so that its tables cannot be read")]
    Encrypted,
    #[error("the trailer is at the start of the file, not at its end, which is not supported")]
    TrailerInFront,
    #[error("the image is split into {segments} files, which is not supported")]
    Segments { segments: u32, at: u64 },
    #[error("data fork starts at {offset:#x}, behind the trailer at {end:#x}")]
    DataForkOutside { offset: u64, end: u64, at: u64 },
    #[error("{name} ({length} bytes at {offset:#x}) is not in front of the trailer at {end:#x}")]
    AreaOutside { name: &'static str, offset: u64, length: u64, end: u64, at: u64 },
    #[error("disk size is {sectors} sectors, at most {allowed} are allowed")]
    Size { sectors: u64, allowed: u64, at: u64 },
    #[error(
        "neither resource fork nor property list, and the data fork of {length} bytes is not the \
         disk of {size} bytes in front of the trailer"
    )]
    NoTables { length: u64, size: u64 },
    #[error("no block table has a chunk")]
    NoChunks,
    #[error(
        "resource data ({length} bytes at {offset:#x}) is outside the resource fork of {fork} bytes"
    )]
    ResourceData { offset: u32, length: u32, fork: u64, at: u64 },
    #[error("resource of {length} bytes runs past the end of the resource data at {end:#x}")]
    Resource { length: u32, end: u64, at: u64 },
    #[error("property list is {encoding}, only XML in UTF-8 is supported")]
    ListEncoding { encoding: &'static str, at: u64 },
    #[error("property list is not well-formed: {error}")]
    Xml { error: quick_xml::Error, at: u64 },
    #[error("property list has a tag, comment or instruction of more than {allowed} bytes")]
    Markup { allowed: u64, at: u64 },
    #[error("property list has more than {allowed} tags, references and comments")]
    Tokens { allowed: u64, at: u64 },
    #[error("property list nests too deep: open elements have names of more than {allowed} bytes")]
    Depth { allowed: usize, at: u64 },
    #[error("property list has an end tag that is not that of the innermost open element")]
    EndTag { at: u64 },
    #[error("property list ends before its elements do")]
    ListCut { at: u64 },
    #[error("property list has an element inside the data of a block table")]
    ElementInData { at: u64 },
    #[error("a block table is no valid base64")]
    Base64 { at: u64 },
    #[error("there are more block tables than {allowed}")]
    Tables { allowed: usize, at: u64 },
    #[error("block table should have {stated} chunks, but ends after {chunks}")]
    TableCut { stated: u32, chunks: usize, at: u64 },
    #[error("data offset of a block table is {offset:#x}, behind all addresses")]
    TableOffset { offset: u64, at: u64 },
    #[error(
        "chunk of {count} sectors from sector {sector} of the block table at sector {table} ends \
         behind all addresses"
    )]
    Sectors { table: u64, sector: u64, count: u64, at: u64 },
    #[error("chunk of {length} bytes at {table:#x} + {offset:#x} ends behind all addresses")]
    Offset { table: u64, offset: u64, length: u64, at: u64 },
    #[error("plain chunk at sector {sector} has {length} bytes for {count} sectors")]
    RawLength { sector: u64, length: u64, count: u64, at: u64 },
    #[error(
        "chunk at byte {start:#x} of the disk comes before the end, {end:#x}, of another one: \
         chunks overlap or are out of order"
    )]
    Order { start: u64, end: u64, at: u64 },
    #[error("the chunks at byte {at:#x} of the disk have changed since they were checked")]
    Changed { at: u64 },
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        let (kind, at) = match error {
            Error::NoTrailer => (ErrorKind::WrongFormat, None),
            Error::NoTables { .. } | Error::NoChunks | Error::Changed { .. } => {
                (ErrorKind::Corrupt, None)
            }
            Error::Encrypted | Error::TrailerInFront => (ErrorKind::Unsupported, None),
            Error::Segments { at, .. } | Error::ListEncoding { at, .. } => {
                (ErrorKind::Unsupported, Some(at))
            }
            Error::Size { at, .. }
            | Error::Tables { at, .. }
            | Error::Markup { at, .. }
            | Error::Tokens { at, .. }
            | Error::Depth { at, .. } => (ErrorKind::Limit, Some(at)),
            Error::DataForkOutside { at, .. }
            | Error::AreaOutside { at, .. }
            | Error::TrailerCut { at, .. }
            | Error::ResourceData { at, .. }
            | Error::Resource { at, .. }
            | Error::Xml { at, .. }
            | Error::EndTag { at }
            | Error::ListCut { at }
            | Error::ElementInData { at }
            | Error::Base64 { at }
            | Error::TableCut { at, .. }
            | Error::TableOffset { at, .. }
            | Error::Sectors { at, .. }
            | Error::Offset { at, .. }
            | Error::RawLength { at, .. }
            | Error::Order { at, .. } => (ErrorKind::Corrupt, Some(at)),
        };
        let error = Self::new(kind, error);
        match at {
            Some(at) => error.at(at),
            None => error,
        }
    }
}
