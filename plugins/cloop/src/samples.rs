//! Images built byte by byte. What the blocks hold does not matter to the map.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::testkit::Sample;

/// The preamble that `create_compressed_fs` writes, by which qemu knows an image.
pub(crate) const PREAMBLE: &[u8] =
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

/// An image whose blocks have these compressed lengths.
pub(crate) fn image(block_size: u32, lengths: &[u64]) -> Vec<u8> {
    let first = 136 + 8 * (lengths.len() as u64 + 1);
    let mut offsets = vec![first];
    for length in lengths {
        offsets.push(offsets.last().unwrap() + length);
    }
    let mut bytes = with_offsets(block_size, &offsets);
    bytes.resize(usize::try_from(*offsets.last().unwrap()).unwrap(), 0x5a);
    bytes
}

/// The head of an image with these offsets, which count its blocks.
pub(crate) fn with_offsets(block_size: u32, offsets: &[u64]) -> Vec<u8> {
    let blocks = u32::try_from(offsets.len() - 1).unwrap();
    let mut bytes = PREAMBLE.to_vec();
    bytes.resize(128, 0);
    bytes.extend(block_size.to_be_bytes());
    bytes.extend(blocks.to_be_bytes());
    bytes.extend(offsets.iter().flat_map(|offset| offset.to_be_bytes()));
    bytes
}

/// Three blocks, one of them empty.
pub(crate) fn sample() -> Vec<u8> {
    image(65536, &[700, 0, 90])
}

/// All kinds of sound images.
pub(crate) fn all() -> Vec<Sample> {
    let mut no_script = sample();
    no_script[..11].fill(b'x');
    vec![
        Sample::new("three blocks", sample(), 1),
        Sample::new("many blocks", image(512, &[9; 5000]), 1),
        Sample::new("no blocks", image(4096, &[]), 0),
        Sample::new("another kind of script in front", no_script, 1).not_detected(),
    ]
}
