//! The trailer: where it is, and what it says.

use instar_core::{Fields, MAX_LENGTH, Result, SECTOR};

use crate::disk::Area;
use crate::error::Error;

/// The trailer (Apple's `UDIFResourceFile`), 512 bytes at the end of the file.
///
/// Not kept: flags, checksums, segment number and id, image variant, code signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// The bytes of the chunks; their offsets count from its start.
    pub(crate) data_fork: Area,
    /// Where the block tables are: the resource fork, if there is one.
    pub(crate) resource_fork: Area,
    /// Or else the property list.
    pub(crate) property_list: Area,
    /// Size of the disk in bytes, whole sectors.
    pub(crate) size: u64,
    /// Where the last of what it names ends, in bytes; in a sound image, at the trailer.
    pub(crate) reached: u64,
    /// Where the trailer is, in bytes.
    pub(crate) at: u64,
}

/// A trailer that was found, not decoded yet.
pub(crate) struct Found<'a>(Fields<'a>);

impl Found<'_> {
    /// Whether version and length of the trailer are those of every known image.
    pub(crate) fn is_usual(&self) -> bool {
        self.0.bytes().starts_with(USUAL)
    }

    /// What the trailer says.
    pub(crate) fn decode(self) -> Result<Trailer> {
        Trailer::decode(self.0)
    }
}

/// What images have that start in another way than with the data fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// It is encrypted as a whole (version 2 of `encrcdsa`).
    Encrypted,
    /// The trailer is in front, as in images of the first systems that had the format.
    Trailer,
}

impl Head {
    /// What the file that starts with `head` is instead. A trailer that the file ends in is not
    /// one.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"encrcdsa") {
            return Some(Self::Encrypted);
        }
        let has_trailer = head.starts_with(USUAL) && head.len() >= Trailer::LENGTH;
        has_trailer.then_some(Self::Trailer)
    }
}

/// How trailers start: magic, version 4, length 512.
const USUAL: &[u8] = b"koly\0\0\0\x04\0\0\x02\0";

impl Trailer {
    /// Bytes of a trailer.
    pub(crate) const LENGTH: usize = 512;

    /// Bytes before the file's end, its length rounded up to a sector, in which a trailer may
    /// start.
    pub(crate) const REACH: usize = 1023;

    const MAGIC: &[u8; 4] = b"koly";

    /// Looks for the trailer in `tail`, the last bytes of a file of `length` bytes.
    ///
    /// It belongs 512 bytes before the end of the file. If it is not there, the first magic in the
    /// bytes that qemu looks through counts: a file may have been padded. All of the trailer must
    /// be in the file; qemu takes zeros for what is missing of it.
    pub(crate) fn find(tail: &[u8], length: u64) -> Option<Found<'_>> {
        let start = length.checked_sub(tail.len() as u64)?;
        let is_at = |at: usize| tail.get(at..).is_some_and(|rest| rest.starts_with(Self::MAGIC));
        let proper = tail.len().checked_sub(Self::LENGTH)?;
        let padding = length.next_multiple_of(SECTOR).saturating_sub(length);
        let reach = Self::REACH.saturating_sub(usize::try_from(padding).unwrap_or(0));
        let first = tail.len().saturating_sub(reach);
        let at = std::iter::once(proper).chain(first..=proper).find(|at| is_at(*at))?;
        let bytes = tail.get(at..)?.first_chunk::<{ Self::LENGTH }>()?;
        let at = start.saturating_add(at as u64);
        Some(Found(Fields::new("trailer", at, bytes)))
    }

    /// File offset of a usual trailer that the file ends in, if something is in front of it. `tail`
    /// and `length` as of [`Self::find`].
    pub(crate) fn find_cut(tail: &[u8], length: u64) -> Option<u64> {
        let first = tail.len().saturating_sub(Self::LENGTH - 1);
        let rest = tail.get(first..)?;
        let found = rest.windows(USUAL.len()).position(|bytes| bytes == USUAL)?;
        let start = length.checked_sub(rest.len() as u64)?;
        Some(start.saturating_add(found as u64)).filter(|at| *at > 0)
    }

    /// Decodes a trailer whose magic is known to be there.
    fn decode(fields: Fields<'_>) -> Result<Self> {
        let segments = fields.be32(60)?;
        if segments > 1 {
            return Err(Error::Segments { segments, at: fields.offset_of(60) }.into());
        }
        // Everything else is in front of the trailer.
        let end = fields.offset_of(0);
        let area = |name: &'static str, at: usize| -> Result<Area> {
            let (offset, length) = (fields.be64(at)?, fields.be64(at + 8)?);
            if length > 0 && offset.checked_add(length).is_none_or(|stop| stop > end) {
                let at = fields.offset_of(at);
                return Err(Error::AreaOutside { name, offset, length, end, at }.into());
            }
            Ok(Area { offset, length })
        };
        let data_fork = Area { offset: fields.be64(24)?, length: fields.be64(32)? };
        if data_fork.offset > end {
            let (offset, at) = (data_fork.offset, fields.offset_of(24));
            return Err(Error::DataForkOutside { offset, end, at }.into());
        }
        let resource_fork = area("resource fork", 40)?;
        let property_list = area("property list", 216)?;
        let sectors = fields.be64(492)?;
        let size = sectors.checked_mul(SECTOR).filter(|size| *size <= MAX_LENGTH);
        let size = size.ok_or_else(|| {
            let allowed = MAX_LENGTH / SECTOR;
            Error::Size { sectors, allowed, at: fields.offset_of(492) }
        })?;
        // Old images have anything in the place of the signature.
        let signature = Area { offset: fields.be64(296)?, length: fields.be64(304)? };
        let end_of = |area: Area| area.offset.saturating_add(area.length);
        let areas = [data_fork, resource_fork, property_list, signature];
        let in_front = areas.into_iter().filter(|area| area.length > 0).map(end_of);
        let reached = in_front.filter(|stop| *stop <= end).max().unwrap_or(0);
        Ok(Self { data_fork, resource_fork, property_list, size, reached, at: end })
    }

    /// Whether what it names ends where it starts. If not, it may be in a file of the disk that
    /// is mapped. A trailer with nothing in front of it is not in place either: its image is lost.
    pub(crate) fn is_in_place(&self) -> bool {
        self.reached == self.at && self.at > 0
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    /// The size that the trailer found in a file of `length` bytes says, whose magics are here.
    fn found(length: usize, magics: &[usize]) -> Option<u64> {
        let mut bytes = vec![0; length.next_multiple_of(512) + 512];
        for at in magics {
            bytes[*at..*at + 4].copy_from_slice(b"koly");
            // Each with another number of sectors, as far as they do not overlap.
            bytes[*at + 499] = u8::try_from(at % 251).unwrap();
        }
        bytes.truncate(length);
        let tail = length.saturating_sub(4096);
        let trailer = Trailer::find(&bytes[tail..], length as u64)?;
        Some(trailer.decode().unwrap().size / 512)
    }

    #[test]
    fn where_a_trailer_is_found() {
        let size = |at: usize| Some((at % 251) as u64);
        for length in [512, 1024, 5120, 5121, 9999] {
            // Where it belongs, whatever comes before it.
            assert_eq!(found(length, &[length - 512]), size(length - 512), "{length}");
            let padded = length.next_multiple_of(512);
            assert_eq!(found(length, &[padded - 511]), None, "{length}");
            if length > 1024 && length == padded {
                let both = [padded - 1023, length - 512];
                assert_eq!(found(length, &both), size(length - 512), "{length}");
                // Elsewhere, the first one.
                assert_eq!(found(length, &[padded - 1023]), size(padded - 1023), "{length}");
                assert_eq!(found(length, &[padded - 1024]), None, "{length}");
                let two = [padded - 900, padded - 800];
                assert_eq!(found(length, &two), size(padded - 900), "{length}");
            }
        }
        // Not all of it is in the file.
        for length in [0, 11, 400, 511] {
            assert_eq!(found(length, &[0]), None, "{length}");
        }
        for (length, at) in [(5119, 4608), (5000, 4608), (1023, 512), (9999, 9488)] {
            assert_eq!(found(length, &[at]), None, "{length}");
        }
    }
}
