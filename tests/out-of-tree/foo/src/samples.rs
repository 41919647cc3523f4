//! Foo images, built byte by byte.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::testkit::Sample;
use instar_core::{MemoryStorage, read_padded};

use crate::disk::{HEADER, sum_of_words};

/// Bytes in a block of the samples.
pub(crate) const BLOCK: u64 = 1 << 9;

/// Where the blocks of a sample with up to 64 entries start; its table is right behind the header.
pub(crate) const BLOCKS: u64 = 1024;

/// An image with these entries, over this backing file (empty for none), and two blocks at its end.
pub(crate) fn image(entries: &[u64], backing: &str) -> Vec<u8> {
    let table: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    let mut bytes = vec![0; HEADER + table.len().next_multiple_of(512)];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, b"FOODISK1");
    put(12, &9_u32.to_le_bytes());
    put(16, &(BLOCK * entries.len() as u64).to_le_bytes());
    put(24, &512_u64.to_le_bytes());
    put(32, &u32::try_from(backing.len()).unwrap().to_le_bytes());
    put(36, backing.as_bytes());
    put(512, &table);
    bytes.extend([0x55; 512]);
    bytes.extend([0xaa; 512]);
    seal(&mut bytes);
    bytes
}

/// Makes the checksum right.
pub(crate) fn seal(bytes: &mut [u8]) {
    let Some(header) = bytes.first_chunk_mut::<HEADER>() else { return };
    header[8..12].fill(0);
    let checksum = sum_of_words(header).wrapping_neg();
    header[8..12].copy_from_slice(&checksum.to_le_bytes());
}

/// Makes the checksum of an altered sample right.
pub(crate) fn reseal(image: &mut MemoryStorage) {
    let mut header = [0; HEADER];
    read_padded(image, 0, &mut header).unwrap();
    seal(&mut header);
    image.patch(0, &header);
}

/// One block of each kind: data, zeros, absent twice, compressed, data.
pub(crate) fn mixed() -> Vec<u8> {
    image(&[BLOCKS | 2, 1, 0, 0, 3, (BLOCKS + BLOCK) | 2], "")
}

/// The same disk with another block 1 and zeros for block 2.
pub(crate) fn overlay() -> Vec<u8> {
    image(&[0, BLOCKS | 2, 1, 0, 0, 0], "sample.foo")
}

/// A disk whose table is read in more than one piece: the last block is zeros.
fn large() -> Vec<u8> {
    let mut entries = vec![0; 8200];
    entries[8199] = 1;
    image(&entries, "")
}

/// All kinds of sound images.
pub(crate) fn all() -> Vec<Sample> {
    vec![
        Sample::new("every kind of entry", mixed(), 5),
        Sample::new("over a backing file", overlay(), 4),
        Sample::new("a table of two pieces", large(), 2),
        Sample::new("no blocks", image(&[], ""), 0),
    ]
}
