//! Disks built byte by byte.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::MemoryStorage;
use instar_core::testkit::Sample;

use crate::disk::UNUSED;

/// Bytes of one block in most samples: small, and with a bitmap of one sector as usual.
pub(crate) const BLOCK: u64 = 4096;

/// Where the builder puts the table: behind the footer's copy and the dynamic header.
pub(crate) const TABLE: u64 = 1536;

/// Sectors of one stored block of [`BLOCK`] bytes with its bitmap.
pub(crate) const STRIDE: u32 = 9;

/// A footer; `bytes` makes it right.
#[derive(Clone)]
pub(crate) struct Footer {
    pub(crate) disk_type: u32,
    pub(crate) current_size: u64,
    pub(crate) creator: [u8; 4],
    pub(crate) creator_version: u32,
    pub(crate) geometry: (u16, u8, u8),
    pub(crate) header_offset: u64,
}

impl Footer {
    pub(crate) fn new(disk_type: u32, current_size: u64) -> Self {
        let header_offset = if disk_type == 2 { u64::MAX } else { 512 };
        Self {
            disk_type,
            current_size,
            creator: *b"win ",
            creator_version: 0x000a_0000,
            geometry: (0, 0, 0),
            header_offset,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        put(&mut bytes, 0, b"conectix");
        put(&mut bytes, 8, &[0, 0, 0, 2, 0, 1, 0, 0]);
        put(&mut bytes, 16, &self.header_offset.to_be_bytes());
        put(&mut bytes, 28, &self.creator);
        put(&mut bytes, 32, &self.creator_version.to_be_bytes());
        put(&mut bytes, 48, &self.current_size.to_be_bytes());
        put(&mut bytes, 56, &self.geometry.0.to_be_bytes());
        put(&mut bytes, 58, &[self.geometry.1, self.geometry.2]);
        put(&mut bytes, 60, &self.disk_type.to_be_bytes());
        put(&mut bytes, 68, b"sixteen bytes id");
        seal(&mut bytes, 64);
        bytes
    }
}

/// A dynamic or differencing disk.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) footer: Footer,
    pub(crate) block_size: u32,
    pub(crate) table_offset: u64,
    /// What the header says; by default as many as there are.
    pub(crate) entries: Option<u32>,
    pub(crate) table: Vec<u32>,
    /// Pieces anywhere in the file.
    pub(crate) pieces: Vec<(u64, Vec<u8>)>,
    /// Names of the parent: platform, bytes. They are stored behind the table.
    pub(crate) locators: Vec<([u8; 4], Vec<u8>)>,
    pub(crate) parent_name: Vec<u8>,
    /// Without the footer's copy in front.
    pub(crate) headless: bool,
}

impl Disk {
    pub(crate) fn new(disk_type: u32, size: u64, table: &[u32]) -> Self {
        Self {
            footer: Footer::new(disk_type, size),
            block_size: 4096,
            table_offset: TABLE,
            entries: None,
            table: table.to_vec(),
            pieces: Vec::new(),
            locators: Vec::new(),
            parent_name: Vec::new(),
            headless: false,
        }
    }

    pub(crate) fn header(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        let entries = self.entries.unwrap_or(u32::try_from(self.table.len()).unwrap());
        put(&mut bytes, 0, b"cxsparse");
        put(&mut bytes, 8, &[0xff; 8]);
        put(&mut bytes, 16, &self.table_offset.to_be_bytes());
        put(&mut bytes, 24, &0x0001_0000_u32.to_be_bytes());
        put(&mut bytes, 28, &entries.to_be_bytes());
        put(&mut bytes, 32, &self.block_size.to_be_bytes());
        put(&mut bytes, 40, b"id of the parent");
        put(&mut bytes, 64, &self.parent_name);
        let mut offset = self.locators_at();
        for (index, (platform, name)) in self.locators.iter().enumerate() {
            let at = 576 + 24 * index;
            put(&mut bytes, at, platform);
            put(&mut bytes, at + 4, &1_u32.to_be_bytes());
            put(&mut bytes, at + 8, &u32::try_from(name.len()).unwrap().to_be_bytes());
            put(&mut bytes, at + 16, &offset.to_be_bytes());
            offset += 512;
        }
        seal(&mut bytes, 36);
        bytes
    }

    fn locators_at(&self) -> u64 {
        (self.table_offset + 4 * self.table.len() as u64).next_multiple_of(512)
    }

    /// The file: what is described above, blocks filled with their number, a footer at the end.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let bitmap = u64::from(self.block_size / 4096).next_multiple_of(512);
        let bitmap = if self.footer.disk_type == 4 { bitmap.max(512) } else { bitmap };
        let mut file = Vec::new();
        if !self.headless {
            put(&mut file, 0, &self.footer.bytes());
        }
        let stored = self.table.iter().enumerate().filter(|(_, entry)| **entry != UNUSED);
        for (block, entry) in stored {
            let at = usize::try_from(u64::from(*entry) * 512).unwrap();
            let fill = block.to_le_bytes()[0];
            put(&mut file, at, &vec![fill; usize::try_from(bitmap).unwrap()]);
            let data = at + usize::try_from(bitmap).unwrap();
            put(&mut file, data, &vec![fill; usize::try_from(self.block_size).unwrap()]);
        }
        if let Ok(at) = usize::try_from(self.footer.header_offset) {
            put(&mut file, at, &self.header());
        }
        let table: Vec<u8> = self.table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        put(&mut file, usize::try_from(self.table_offset).unwrap(), &table);
        let mut at = usize::try_from(self.locators_at()).unwrap();
        for (_, name) in &self.locators {
            put(&mut file, at, name);
            at += 512;
        }
        for (at, bytes) in &self.pieces {
            put(&mut file, usize::try_from(*at).unwrap(), bytes);
        }
        let end = file.len().next_multiple_of(512);
        put(&mut file, end, &self.footer.bytes());
        file
    }
}

/// Puts `piece` at `at`, lengthening `bytes` if need be.
pub(crate) fn put(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = at + piece.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[at..end].copy_from_slice(piece);
}

/// Sets the checksum at `at` over `bytes`.
pub(crate) fn seal(bytes: &mut Vec<u8>, at: usize) {
    put(bytes, at, &[0; 4]);
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    put(bytes, at, &(!sum).to_be_bytes());
}

/// First block unused, the next three stored, one before the other and one apart, two unused, the
/// last one stored and cut by the end of the disk; a spare entry behind it.
pub(crate) fn dynamic() -> Disk {
    let table = [UNUSED, 4 + STRIDE, 4, 4 + 4 * STRIDE, UNUSED, UNUSED, 4 + 2 * STRIDE, UNUSED];
    Disk::new(3, 6 * BLOCK + 1024, &table)
}

/// Blocks of one sector, which have no bitmap, so that neighbours merge.
pub(crate) fn dynamic_tiny_blocks() -> Disk {
    Disk { block_size: 512, ..Disk::new(3, 6 * 512, &[8, 9, UNUSED, 11, 10, 9]) }
}

/// Block 1 has the bits of sectors 0, 1, 4 and 7; block 3 all, block 4 none.
pub(crate) fn differencing() -> Disk {
    let relative: Vec<u8> = ".\\base.vhd".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let absolute: Vec<u8> = "D:\\base.vhd".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let name: Vec<u8> = "base.vhd".encode_utf16().flat_map(u16::to_be_bytes).collect();
    let at = |entry: u32| u64::from(entry) * 512;
    Disk {
        locators: vec![
            (*b"W2ku", absolute),
            (*b"Mac ", b"no text".to_vec()),
            (*b"W2ru", relative),
            (*b"MacX", b"file:///srv/base.vhd".to_vec()),
            (*b"Wi2k", b"base.vhd".to_vec()),
        ],
        parent_name: name,
        pieces: vec![
            (at(16), vec![0b1100_1001]),
            (at(16 + STRIDE), vec![0xff]),
            (at(16 + 2 * STRIDE), vec![0]),
        ],
        ..Disk::new(4, 6 * BLOCK, &[UNUSED, 16, UNUSED, 16 + STRIDE, 16 + 2 * STRIDE, UNUSED])
    }
}

/// Data, hole, data; the footer behind it.
pub(crate) fn fixed() -> MemoryStorage {
    MemoryStorage::new(0)
        .with_data(0, [1; 4096])
        .with_data(12288, [2; 4096])
        .with_data(16384, Footer::new(2, 16384).bytes())
}

/// All kinds of sound images.
pub(crate) fn all() -> Vec<Sample> {
    vec![
        Sample::new("dynamic", dynamic().bytes(), 6),
        Sample::new("dynamic, blocks without bitmap", dynamic_tiny_blocks().bytes(), 5),
        Sample::new("differencing", differencing().bytes(), 9),
        Sample::new("fixed", fixed(), 1),
    ]
}
