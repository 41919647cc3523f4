//! Images built byte by byte.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::testkit::Sample;

/// An entry of an extent that is not stored.
pub(crate) const NONE: u32 = u32::MAX;

/// A growing disk.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) version: u32,
    pub(crate) catalog_offset: u32,
    pub(crate) catalog: Vec<u32>,
    /// What the header says; by default as many as there are.
    pub(crate) entries: Option<u32>,
    pub(crate) bitmap: u32,
    pub(crate) extent: u32,
    pub(crate) size: u64,
    /// Stored extents.
    pub(crate) stored: usize,
}

impl Disk {
    /// Extents of 4 KiB with a bitmap of one byte, as Bochs would make it.
    pub(crate) fn new(size: u64, catalog: &[u32]) -> Self {
        let stored = catalog.iter().filter(|entry| **entry != NONE).count();
        Self {
            version: 0x2_0000,
            catalog_offset: 512,
            catalog: catalog.to_vec(),
            entries: None,
            bitmap: 1,
            extent: 4096,
            size,
            stored,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = vec![0; 512];
        put(&mut file, 0, b"Bochs Virtual HD Image");
        put(&mut file, 32, b"Redolog");
        put(&mut file, 48, b"Growing");
        put(&mut file, 64, &self.version.to_le_bytes());
        put(&mut file, 68, &self.catalog_offset.to_le_bytes());
        let entries = self.entries.unwrap_or(u32::try_from(self.catalog.len()).unwrap());
        put(&mut file, 72, &entries.to_le_bytes());
        put(&mut file, 76, &self.bitmap.to_le_bytes());
        put(&mut file, 80, &self.extent.to_le_bytes());
        let disk_at = if self.version == 0x1_0000 { 84 } else { 88 };
        put(&mut file, disk_at, &self.size.to_le_bytes());
        let catalog: Vec<u8> = self.catalog.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        put(&mut file, usize::try_from(self.catalog_offset).unwrap(), &catalog);
        for number in 0..self.stored {
            file.extend([0xff; 512]);
            file.extend(vec![number.to_le_bytes()[0]; usize::try_from(self.extent).unwrap()]);
        }
        file
    }
}

/// Puts `piece` at `at`, lengthening `bytes` if need be.
pub(crate) fn put(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = at + piece.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[at..end].copy_from_slice(piece);
}

/// Two extents stored in reverse, three not at all, the last one of the disk cut; a spare entry.
pub(crate) fn growing() -> Disk {
    Disk::new(4 * 4096 + 1024, &[NONE, 1, NONE, 0, NONE, NONE])
}

/// All kinds of sound images.
pub(crate) fn all() -> Vec<Sample> {
    vec![
        Sample::new("version 2", growing().bytes(), 1),
        Sample::new("version 1", Disk { version: 0x1_0000, ..growing() }.bytes(), 1),
        Sample::new("nothing stored", Disk::new(8 * 4096, &[NONE; 8]).bytes(), 1),
        Sample::new("no disk", Disk::new(0, &[NONE]).bytes(), 0),
    ]
}
