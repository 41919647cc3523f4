//! Foo images, built byte by byte.

use crate::disk::{HEADER, sum_of_words};

/// Bytes in a block of the samples.
pub(crate) const BLOCK: u64 = 1 << 9;

/// Where a sample's blocks start; its table is right behind the header.
pub(crate) const BLOCKS: u64 = 1024;

/// An image with these entries, over this backing file (empty for none), with room for two
/// blocks at [`BLOCKS`].
pub(crate) fn image(entries: &[u64], backing: &str) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"FOODISK1");
    put(12, &9_u32.to_le_bytes());
    put(16, &(BLOCK * entries.len() as u64).to_le_bytes());
    put(24, &512_u64.to_le_bytes());
    put(32, &u32::try_from(backing.len()).unwrap().to_le_bytes());
    put(36, backing.as_bytes());
    for (index, entry) in entries.iter().enumerate() {
        put(512 + index * 8, &entry.to_le_bytes());
    }
    bytes.extend([0x55; 512]);
    bytes.extend([0xaa; 512]);
    seal(bytes)
}

/// The image with its checksum made right.
pub(crate) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[8..12].fill(0);
    let header: &[u8; HEADER] = bytes.first_chunk().unwrap();
    let checksum = sum_of_words(header).wrapping_neg();
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// One block of each kind: data, zeros, absent twice, compressed, data.
pub(crate) fn mixed() -> Vec<u8> {
    image(&[BLOCKS | 2, 1, 0, 0, 3, (BLOCKS + BLOCK) | 2], "")
}
