//! Version 2: the binary header, twice, and which of the two counts.

use std::sync::Arc;

use instar_core::{ErrorKind, Fields, Image, Limits, Result, Storage, TableReader};
use sha2::{Digest, Sha256, Sha512};

use crate::disk::{Magic, text};
use crate::error::Error;

/// File offsets at which the second header may be: the sizes that a header may have
/// (specification, §2.1, "Possible LUKS2 secondary header offsets and JSON area size").
const COPIES: [u64; 9] =
    [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];

/// Bytes of a header that are read at a time.
const CHUNK: usize = 64 << 10;

/// The binary header (specification, §2.1, "LUKS2 binary header").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BinaryHeader {
    /// Bytes of binary header and JSON area together: one of [`COPIES`].
    pub(crate) size: u64,
    /// Goes up with every change.
    sequence: u64,
    /// The hash over binary header and JSON area, the hash itself taken as zeros.
    checksum: [u8; 64],
    algorithm: Algorithm,
}

/// The hash functions that a header may be checked with. cryptsetup writes sha256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl BinaryHeader {
    /// Bytes of the binary header; the JSON area is behind it.
    const LENGTH: usize = 4096;

    const MAGIC_OF_COPY: &[u8; 6] = b"SKUL\xba\xbe";
    const CHECKSUM: std::ops::Range<usize> = 448..512;

    /// Decodes the header at the start of the file, or its copy anywhere else. The checksum is not
    /// looked at.
    fn decode(fields: Fields<'_>) -> Result<Self> {
        let at = fields.offset_of(0);
        let is_there = match at {
            0 => Magic::of(fields.bytes()) == Some(Magic::Version2),
            _ => fields.array(0)? == *Self::MAGIC_OF_COPY && fields.be16(6)? == 2,
        };
        if !is_there {
            return Err(Error::NoHeader { at }.into());
        }
        let size = fields.be64(8)?;
        if !COPIES.contains(&size) {
            return Err(Error::HeaderSize { size, at: fields.offset_of(8) }.into());
        }
        let stored = fields.be64(256)?;
        // The copy is just behind the header: where it is says what size both have.
        if stored != at || (at != 0 && at != size) {
            let field = fields.offset_of(256);
            return Err(Error::HeaderOffset { stored, at, size, field }.into());
        }
        let algorithm = match fields.array::<32>(72)? {
            name if name.starts_with(b"sha256\0") => Algorithm::Sha256,
            name if name.starts_with(b"sha512\0") => Algorithm::Sha512,
            name => {
                let name = text(&name);
                return Err(Error::Algorithm { name, at: fields.offset_of(72) }.into());
            }
        };
        let checksum = fields.array(Self::CHECKSUM.start)?;
        Ok(Self { size, sequence: fields.be64(16)?, checksum, algorithm })
    }
}

/// A header that is as it was written, with its JSON text.
pub(crate) struct Copy {
    pub(crate) header: BinaryHeader,
    /// The JSON area up to its first NUL.
    pub(crate) json: Vec<u8>,
    /// File offset of the text.
    pub(crate) json_at: u64,
}

impl Copy {
    /// Reads the header at `at` and verifies its checksum.
    fn read(storage: &Arc<dyn Storage>, at: u64, limits: &Limits) -> Result<Self> {
        let mut reader = TableReader::new("header", Arc::clone(storage), limits);
        let header = reader.decode(at, BinaryHeader::LENGTH, BinaryHeader::decode)?;
        let mut binary = reader.bytes(at, BinaryHeader::LENGTH)?.to_vec();
        binary.get_mut(BinaryHeader::CHECKSUM).unwrap_or_default().fill(0);

        let mut hasher = Hasher::new(header.algorithm);
        hasher.update(&binary);
        let end = at.saturating_add(header.size);
        let json_at = at.saturating_add(BinaryHeader::LENGTH as u64);
        let (mut json, mut is_text) = (Vec::new(), true);
        let mut position = json_at;
        while position < end {
            // No more than a chunk.
            let length = usize::try_from(end - position).unwrap_or(CHUNK).min(CHUNK);
            let bytes = reader.bytes(position, length)?;
            hasher.update(bytes);
            if is_text {
                let part = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
                json.extend_from_slice(part);
                is_text = part.len() == bytes.len();
                Limits::check(
                    "the length of the JSON text",
                    json.len() as u64,
                    limits.description,
                )?;
            }
            position = position.saturating_add(length as u64);
        }
        let file = storage.len();
        if !hasher.gives(&header.checksum) {
            // The zeros past the end of the file are not the header's.
            if end > file {
                return Err(Error::HeaderCut { file, needed: end, at }.into());
            }
            return Err(Error::Checksum { at }.into());
        }
        Ok(Self { header, json, json_at })
    }
}

/// Reads both headers and answers the newer one of those that are as they were written
/// (specification, §2.4, "LUKS2 metadata recovery"). The first one's magic may be missing.
pub(crate) fn read(has_magic: bool, image: &Image<'_>) -> Result<Copy> {
    let (storage, limits) = (&image.storage, &image.context.limits);
    let notices = &image.context.notices;
    let first = match has_magic {
        true => Copy::read(storage, 0, limits),
        false => Err(Error::NoHeader { at: 0 }.into()),
    };
    let first = match first {
        Ok(first) => first,
        // What cannot be read at all may be whole.
        Err(why) if why.kind() == ErrorKind::Io => return Err(why),
        Err(why) => {
            for at in COPIES {
                match Copy::read(storage, at, limits) {
                    Ok(copy) => {
                        notices.warn(format!("{why}; going by the second header at {at:#x}"))?;
                        return Ok(copy);
                    }
                    Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                    Err(_) => {}
                }
            }
            return Err(why);
        }
    };
    match Copy::read(storage, first.header.size, limits) {
        Ok(second) if second.header.sequence > first.header.sequence => {
            notices.warn("the second header is newer than the first; going by the second")?;
            Ok(second)
        }
        Ok(_) => Ok(first),
        Err(why) if why.kind() == ErrorKind::Io => Err(why),
        Err(why) => {
            notices.warn(format!("the second header is damaged: {why}"))?;
            Ok(first)
        }
    }
}

enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Whether the hash is what `stored` starts with; the rest of the field is padding.
    fn gives(self, stored: &[u8; 64]) -> bool {
        match self {
            Self::Sha256(hasher) => stored.starts_with(hasher.finalize().as_slice()),
            Self::Sha512(hasher) => stored.starts_with(hasher.finalize().as_slice()),
        }
    }
}
