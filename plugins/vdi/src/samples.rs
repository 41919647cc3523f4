//! Images built byte by byte.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::testkit::Sample;

use crate::disk::{FREE, NOT_STORED};

/// Bytes of one block in most samples.
pub(crate) const BLOCK: u64 = 4096;

/// Where the builder puts the block map and the first stored block.
pub(crate) const MAP: u32 = 512;
pub(crate) const DATA: u32 = 4096;

/// An image; the fields are those of the header.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) version: u32,
    pub(crate) image_type: u32,
    pub(crate) map_offset: u32,
    pub(crate) data_offset: u32,
    pub(crate) sector_size: u32,
    pub(crate) disk_size: u64,
    pub(crate) block_size: u32,
    pub(crate) block_extra: u32,
    /// As many as there are, unless this says otherwise.
    pub(crate) blocks: Option<u32>,
    pub(crate) link: [u8; 16],
    pub(crate) parent: [u8; 16],
    pub(crate) map: Vec<u32>,
}

impl Disk {
    pub(crate) fn new(disk_size: u64, map: &[u32]) -> Self {
        Self {
            version: 0x0001_0001,
            image_type: 1,
            map_offset: MAP,
            data_offset: DATA,
            sector_size: 512,
            disk_size,
            block_size: 4096,
            block_extra: 0,
            blocks: None,
            link: [0; 16],
            parent: [0; 16],
            map: map.to_vec(),
        }
    }

    /// The file: what is described above, blocks filled with their number.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let stride = u64::from(self.block_size) + u64::from(self.block_extra);
        for (block, entry) in self.map.iter().enumerate().filter(|(_, e)| **e < NOT_STORED) {
            let at = u64::from(self.data_offset) + u64::from(*entry) * stride;
            let fill = vec![block.to_le_bytes()[0]; usize::try_from(stride).unwrap()];
            put(&mut file, usize::try_from(at).unwrap(), &fill);
        }
        let map: Vec<u8> = self.map.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        put(&mut file, self.map_offset as usize, &map);
        put(&mut file, 0, b"<<< QEMU VM Virtual Disk Image >>>\n");
        let blocks = self.blocks.unwrap_or(u32::try_from(self.map.len()).unwrap());
        for (at, value) in [
            (0x40, 0xbeda_107f),
            (0x44, self.version),
            (0x48, 400),
            (0x4c, self.image_type),
            (0x154, self.map_offset),
            (0x158, self.data_offset),
            (0x168, self.sector_size),
            (0x178, self.block_size),
            (0x17c, self.block_extra),
            (0x180, blocks),
        ] {
            put(&mut file, at, &u32::to_le_bytes(value));
        }
        put(&mut file, 0x170, &self.disk_size.to_le_bytes());
        put(&mut file, 0x188, b"the image itself");
        put(&mut file, 0x1a8, &self.link);
        put(&mut file, 0x1b8, &self.parent);
        file.resize(file.len().next_multiple_of(512), 0);
        file
    }
}

/// Puts `piece` at `at`, lengthening `bytes` if need be.
pub(crate) fn put(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = at + piece.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[at..end].copy_from_slice(piece);
}

/// A free block, two stored one behind the other, one in front of them, a discarded one and a
/// free one, and one that is cut by the end of the disk; a spare entry behind it.
pub(crate) fn dynamic() -> Disk {
    Disk::new(6 * BLOCK + 1024, &[FREE, 1, 2, 0, NOT_STORED, FREE, 4, 3])
}

/// A few blocks, each with its place from the start.
pub(crate) fn fixed() -> Disk {
    Disk { image_type: 2, ..Disk::new(4 * BLOCK, &[0, 1, 2, 3]) }
}

/// Blocks that do not follow each other, although their entries do.
pub(crate) fn with_extra_data() -> Disk {
    Disk { block_extra: 512, ..Disk::new(3 * BLOCK, &[0, 1, FREE]) }
}

/// A free block, a stored one, a discarded one and a free one.
pub(crate) fn differencing() -> Disk {
    let link = *b"id of the parent";
    Disk { image_type: 4, link, ..Disk::new(4 * BLOCK, &[FREE, 0, NOT_STORED, FREE]) }
}

/// All kinds of sound images.
pub(crate) fn all() -> Vec<Sample> {
    vec![
        Sample::new("dynamic", dynamic().bytes(), 5),
        Sample::new("static", fixed().bytes(), 1),
        Sample::new("differencing", differencing().bytes(), 4),
        Sample::new("extra data in front of blocks", with_extra_data().bytes(), 3),
    ]
}
