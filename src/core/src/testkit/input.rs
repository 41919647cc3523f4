//! Sparse images as a string of bytes: what fuzzers keep and alter.
//!
//! ```text
//! flags   1  bit 0: the checksums are left as they are
//! length  8  of the image in bytes
//! pieces  8  file offset
//!         4  bytes of the piece, cut to what follows
//!         …  the bytes
//! ```
//!
//! All integers are little-endian. Every string of bytes is an image: what is missing is zero, and
//! a piece that would overlap one before it is left out.

use crate::{MemoryStorage, Storage};

/// Offsets and lengths are below this, as those of any file.
const MAX_OFFSET: u64 = 1 << 62;

/// An image, and whether its checksums are to be made right, as bytes.
pub fn encode(image: &MemoryStorage, is_sealed: bool) -> Vec<u8> {
    let mut bytes = vec![u8::from(!is_sealed)];
    bytes.extend(image.len().to_le_bytes());
    for (at, piece) in image.pieces() {
        bytes.extend(at.to_le_bytes());
        bytes.extend(u32::try_from(piece.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(piece);
    }
    bytes
}

/// The image that these bytes stand for, and whether its checksums are to be made right.
pub fn decode(bytes: &[u8]) -> (MemoryStorage, bool) {
    let (flags, mut rest) = take::<1>(bytes);
    let (length, after) = take::<8>(rest);
    rest = after;
    let length = u64::from_le_bytes(length) % MAX_OFFSET;
    let mut image = MemoryStorage::new(length);
    while !rest.is_empty() {
        let (at, after) = take::<8>(rest);
        let (size, after) = take::<4>(after);
        let at = u64::from_le_bytes(at) % MAX_OFFSET;
        let size = usize::try_from(u32::from_le_bytes(size)).unwrap_or(usize::MAX);
        let (piece, after) = after.split_at_checked(size).unwrap_or((after, &[]));
        rest = after;
        let end = at.saturating_add(piece.len() as u64);
        if !image.has_data(at, end) {
            image = image.with_data(at, piece);
        }
    }
    (image, flags[0] & 1 == 0)
}

/// Several inputs as one: each with its length in front.
pub fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(part);
    }
    bytes
}

/// The inputs that were made one; the last is cut to what there is.
pub fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (length, after) = take::<4>(rest);
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        let (part, after) = after.split_at_checked(length).unwrap_or((after, &[]));
        parts.push(part);
        rest = after;
    }
    parts
}

/// The first `N` bytes, filled up with zeros, and what follows.
fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    match bytes.split_first_chunk::<N>() {
        Some((head, rest)) => (*head, rest),
        None => {
            let mut head = [0; N];
            for (h, b) in head.iter_mut().zip(bytes) {
                *h = *b;
            }
            (head, &[])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn an_image_survives_and_any_bytes_are_one() {
        let image = MemoryStorage::new(1 << 40).with_data(7, [1; 9]).with_data(1 << 30, [2; 3]);
        let bytes = encode(&image, false);
        let (again, is_sealed) = decode(&bytes);
        assert_eq!(again.pieces().collect::<Vec<_>>(), image.pieces().collect::<Vec<_>>());
        assert_eq!((again.len(), is_sealed), (1 << 40, false));
        assert_eq!(encode(&again, false), bytes);
        for length in 0..bytes.len() {
            let (cut, _) = decode(&bytes[..length]);
            assert!(cut.pieces().count() <= 2);
        }
        // The same piece once more, and one that overlaps it.
        let twice = [bytes.as_slice(), &bytes[9..], &[0; 8], &[20, 0, 0, 0], &[5; 20]].concat();
        assert_eq!(encode(&decode(&twice).0, false), bytes);
        let parts = [bytes.clone(), Vec::new(), vec![1, 2]];
        assert_eq!(split(&join(&parts)), parts);
    }
}
