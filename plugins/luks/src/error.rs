//! What can be wrong with a LUKS volume.

use instar_core::{ErrorKind, quoted, shortened};

/// One reason to refuse an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no LUKS header: the magic is missing")]
    NoHeader { at: u64 },
    #[error("version is {version}, supported are 1 and 2")]
    Version { version: u16 },
    #[error("the payload offset is 0: a detached header, the data is in another file")]
    DetachedHeader { at: u64 },
    #[error("the payload starts at sector {sector}, in the header; expected {least} or more")]
    PayloadInHeader { sector: u32, least: u32, at: u64 },
    #[error("the payload starts at {offset:#x}, outside the file of {file} bytes")]
    PayloadOutside { offset: u64, file: u64 },
    #[error("key slot {slot} is in state {state:#x}, expected 0xac71f3 (on) or 0xdead (off)")]
    KeySlotState { slot: usize, state: u32, at: u64 },
    #[error(
        "the key material of slot {slot}, from sector {offset} to {end}, is not between the \
         header's end at sector {first} and the payload at sector {payload}"
    )]
    KeyMaterial { slot: usize, offset: u32, end: u64, first: u32, payload: u32, at: u64 },
    #[error("header size is {size}, expected a power of two from 0x4000 to 0x400000")]
    HeaderSize { size: u64, at: u64 },
    #[error("header says that it is at {stored:#x} and of {size} bytes, but it is at {at:#x}")]
    HeaderOffset { stored: u64, at: u64, size: u64, field: u64 },
    #[error("the header is checked by {name}, supported are sha256 and sha512")]
    Algorithm { name: String, at: u64 },
    #[error("header is cut short: the file has {file} bytes, {needed} are needed")]
    HeaderCut { file: u64, needed: u64, at: u64 },
    #[error("the header's checksum is wrong")]
    Checksum { at: u64 },
    #[error("the metadata is no JSON as specified: {}", shortened(.reason))]
    Json { reason: String, at: u64 },
    #[error("the volume requires {}, which is not supported", quoted(.name))]
    Requirement { name: String, at: u64 },
    #[error("the metadata has no segment")]
    NoSegment { at: u64 },
    #[error("the metadata has {count} segments, at most {allowed} are allowed")]
    Segments { count: usize, allowed: usize, at: u64 },
    #[error("segment {id} is missing")]
    SegmentMissing { id: u32, at: u64 },
    #[error("{name} of segment {id} is {}, expected a number of bytes, whole sectors", quoted(.value))]
    SegmentNumber { id: u32, name: &'static str, value: String, at: u64 },
    #[error(
        "segment {id} starts at {offset:#x}, in the headers, which end at {headers:#x}: broken, or \
         a detached header, the data is in another file"
    )]
    SegmentInHeader { id: u32, offset: u64, headers: u64, at: u64 },
    #[error("segment {id} starts at {offset:#x}, outside the file of {file} bytes")]
    SegmentOutside { id: u32, offset: u64, file: u64, at: u64 },
    #[error("segment {id} of {size} bytes at {offset:#x} ends behind all addresses")]
    SegmentSize { id: u32, offset: u64, size: u64, at: u64 },
    #[error("size of segment {id} is 'dynamic', which only the last one may be")]
    SegmentDynamic { id: u32, at: u64 },
    #[error("type of segment {id} is {}, supported are crypt and linear", quoted(.kind))]
    SegmentType { id: u32, kind: String, at: u64 },
    #[error("segment {id} has integrity protection: its size is in dm-integrity's own metadata")]
    Integrity { id: u32, at: u64 },
}

impl From<Error> for instar_core::Error {
    fn from(error: Error) -> Self {
        let (kind, at) = match error {
            Error::NoHeader { at } => (ErrorKind::WrongFormat, at),
            Error::Version { .. } => (ErrorKind::Unsupported, 6),
            Error::DetachedHeader { at }
            | Error::Algorithm { at, .. }
            | Error::Requirement { at, .. }
            | Error::NoSegment { at }
            | Error::SegmentType { at, .. }
            | Error::Integrity { at, .. } => (ErrorKind::Unsupported, at),
            Error::Segments { at, .. } => (ErrorKind::Limit, at),
            Error::PayloadOutside { .. } => (ErrorKind::Corrupt, 104),
            Error::HeaderOffset { field, .. } => (ErrorKind::Corrupt, field),
            Error::PayloadInHeader { at, .. }
            | Error::KeySlotState { at, .. }
            | Error::KeyMaterial { at, .. }
            | Error::HeaderSize { at, .. }
            | Error::HeaderCut { at, .. }
            | Error::Checksum { at }
            | Error::Json { at, .. }
            | Error::SegmentMissing { at, .. }
            | Error::SegmentNumber { at, .. }
            | Error::SegmentInHeader { at, .. }
            | Error::SegmentOutside { at, .. }
            | Error::SegmentSize { at, .. }
            | Error::SegmentDynamic { at, .. } => (ErrorKind::Corrupt, at),
        };
        Self::new(kind, error).at(at)
    }
}
