//! The JSON metadata of version 2: which segments the disk is made of.

use std::collections::BTreeMap;

use instar_core::{Image, Place, Result, SECTOR, Status};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::Error;
use crate::source::Piece;
use crate::version2::Copy;

/// At most so many segments (instar's own limit). A volume has one; while it is being
/// re-encrypted, a handful.
const MAX_SEGMENTS: usize = 1024;

/// The objects of the JSON area that the map depends on (specification, §3). Everything else is
/// skipped without being stored.
#[derive(Debug, Deserialize)]
struct Metadata {
    /// By their numbers: the order in which they make up the disk.
    segments: BTreeMap<u32, Segment>,
    #[serde(default)]
    config: Config,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    requirements: Requirements,
}

/// What a reader has to know of (specification, §3.6, "Requirements").
#[derive(Debug, Default, Deserialize)]
struct Requirements {
    #[serde(default)]
    mandatory: Vec<String>,
}

/// One segment (specification, §3.4). Numbers of 64 bits are texts in LUKS2.
#[derive(Debug, Deserialize)]
struct Segment {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    size: String,
    #[serde(default)]
    flags: Vec<String>,
    integrity: Option<IgnoredAny>,
}

impl Segment {
    /// Whether it only records what was, or what will be, for a re-encryption that is under way.
    fn is_backup(&self) -> bool {
        self.flags.iter().any(|flag| flag.starts_with("backup-"))
    }

    /// Whether it is being re-encrypted: what is where is not known until that is completed or
    /// recovered.
    fn is_in_transit(&self) -> bool {
        self.flags.iter().any(|flag| flag == "in-reencryption")
    }
}

/// The pieces of the disk, as the metadata in `copy` says.
pub(crate) fn pieces(copy: &Copy, image: &Image<'_>) -> Result<Vec<Piece>> {
    let at = copy.json_at;
    let metadata: Metadata = serde_json::from_slice(&copy.json)
        .map_err(|error| Error::Json { reason: error.to_string(), at })?;
    for name in metadata.config.requirements.mandatory {
        // The segments describe any state of a re-encryption by cryptsetup 2.2 and later.
        if !name.starts_with("online-reencrypt") {
            return Err(Error::Requirement { name, at }.into());
        }
    }
    let active = metadata.segments.iter().filter(|(_, segment)| !segment.is_backup());
    let active: Vec<(u32, &Segment)> = active.map(|(id, segment)| (*id, segment)).collect();
    if active.is_empty() {
        return Err(Error::NoSegment { at }.into());
    }
    if active.len() > MAX_SEGMENTS {
        return Err(Error::Segments { count: active.len(), allowed: MAX_SEGMENTS, at }.into());
    }
    let file = image.storage.len().next_multiple_of(SECTOR);
    let headers = copy.header.size.saturating_mul(2);
    let last = active.len() - 1;
    let mut end = 0_u64;
    let mut pieces = Vec::new();
    for (index, (id, segment)) in (0..).zip(active) {
        if id != index {
            return Err(Error::SegmentMissing { id: index, at }.into());
        }
        let number = |name: &'static str, value: &str| {
            value.parse::<u64>().ok().filter(|number| number % SECTOR == 0).ok_or_else(|| {
                let value = value.to_owned();
                Error::SegmentNumber { id, name, value, at }
            })
        };
        let offset = number("offset", &segment.offset)?;
        if offset < headers {
            return Err(Error::SegmentInHeader { id, offset, headers, at }.into());
        }
        let size = match segment.size.as_str() {
            "dynamic" if usize::try_from(id) == Ok(last) => file
                .checked_sub(offset)
                .ok_or(Error::SegmentOutside { id, offset, file: image.storage.len(), at })?,
            "dynamic" => return Err(Error::SegmentDynamic { id, at }.into()),
            size => number("size", size)?,
        };
        let status = status(id, segment, offset, at)?;
        let segment_end = offset.checked_add(size);
        let disk_end = end.checked_add(size);
        let (Some(segment_end), Some(disk_end)) = (segment_end, disk_end) else {
            return Err(Error::SegmentSize { id, offset, size, at }.into());
        };
        // What is stored plainly is warned about when the map reaches it.
        if segment_end > file && status == Status::Opaque {
            image.context.notices.warn(format!(
                "segment {id} ends at {segment_end:#x}, behind the end of the file of {} bytes",
                image.storage.len()
            ))?;
        }
        end = disk_end;
        pieces.push(Piece { end, status });
    }
    Ok(pieces)
}

/// What a segment that starts at file offset `offset` says about its bytes.
fn status(id: u32, segment: &Segment, offset: u64, at: u64) -> Result<Status> {
    if segment.integrity.is_some() {
        return Err(Error::Integrity { id, at }.into());
    }
    match segment.kind.as_str() {
        "crypt" => Ok(Status::Opaque),
        "linear" if segment.is_in_transit() => Ok(Status::Opaque),
        "linear" => Ok(Status::Data(Place::at(offset))),
        kind => Err(Error::SegmentType { id, kind: kind.to_owned(), at }.into()),
    }
}
