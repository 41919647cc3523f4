//! Images built byte by byte.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::MemoryStorage;
use instar_core::testkit::Sample;

use crate::disk;

/// The bit of an L2 entry that says compressed.
pub(crate) const COMPRESSED: u64 = 1 << 63;
/// The clusters of most samples, in bytes.
pub(crate) const K4: u64 = 4096;

/// An image: header, backing file name, L1 table, then L2 tables, then the rest of the file, of
/// which nobody asks what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    header: [u8; disk::HEADER],
    l1: Vec<u64>,
    l2: Vec<Vec<u64>>,
    /// Bytes of the file.
    length: usize,
}

/// Where the backing file's name is; there is room for 16 bytes.
pub(crate) const NAME_AT: usize = disk::HEADER;
/// Where the L1 table is: as it happens in images by qemu, at no multiple of a sector.
pub(crate) const L1_AT: usize = disk::HEADER + 16;
/// Where the first L2 table is; each has a place of 4096 bytes.
pub(crate) const L2_AT: u64 = 8192;

impl Builder {
    pub(crate) fn new(cluster_bits: u8, l2_bits: u8, size: u64) -> Self {
        let builder = Self { header: [0; 48], l1: vec![], l2: vec![], length: 1 << 20 };
        builder
            .with(0, &disk::MAGIC)
            .with(4, &1_u32.to_be_bytes())
            .with(24, &size.to_be_bytes())
            .with(32, &[cluster_bits, l2_bits])
            .with(40, &(L1_AT as u64).to_be_bytes())
    }

    /// Overwrites bytes of the header.
    pub(crate) fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn encrypted(self) -> Self {
        self.with(36, &1_u32.to_be_bytes())
    }

    /// Adds an L1 entry with an L2 table that starts with these entries.
    pub(crate) fn table(self, entries: &[u64]) -> Self {
        let at = L2_AT + 4096 * self.l2.len() as u64;
        let mut builder = self.l1_entry(at);
        builder.l2.push(entries.to_vec());
        builder
    }

    /// Adds an L1 entry as it is.
    pub(crate) fn l1_entry(mut self, entry: u64) -> Self {
        self.l1.push(entry);
        self
    }

    /// Cuts the file off.
    pub(crate) fn cut(self, length: usize) -> Self {
        Self { length, ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length.max(1 << 20)];
        bytes[..disk::HEADER].copy_from_slice(&self.header);
        let mut words = |at: usize, words: &[u64]| {
            for (i, word) in words.iter().enumerate() {
                bytes[at + i * 8..][..8].copy_from_slice(&word.to_be_bytes());
            }
        };
        words(L1_AT, &self.l1);
        for (i, table) in self.l2.iter().enumerate() {
            words(usize::try_from(L2_AT).unwrap() + 4096 * i, table);
        }
        bytes.truncate(self.length);
        bytes
    }

    pub(crate) fn storage(&self) -> MemoryStorage {
        MemoryStorage::from_bytes(self.bytes())
    }
}

/// Every kind of entry. Tables of 512 entries and clusters of 4 KiB: a table is for 2 MiB.
pub(crate) fn mixed() -> Builder {
    let h = |cluster: u64| cluster * K4;
    Builder::new(12, 9, (10 << 10) + 10 * K4).table(&[
        h(16),
        0,
        COMPRESSED | 12345,
        COMPRESSED,
        h(20),
        h(21),
        h(22),
        h(30),
        0,
        0,
        h(31),
        h(32),
        h(33),
    ])
}

/// The smallest clusters and tables: a table is for 32 KiB.
pub(crate) fn small() -> Builder {
    let alternating: Vec<u64> =
        (0..64).map(|i| if i % 2 == 0 { 512 * (100 + i) } else { 0 }).collect();
    let contiguous = |first: u64| (first..first + 64).map(|i| 512 * i).collect::<Vec<u64>>();
    Builder::new(9, 6, 7 * 32768 + 512)
        .table(&alternating)
        .l1_entry(0)
        .l1_entry(0)
        // A run goes on from table to table.
        .table(&contiguous(200))
        .table(&contiguous(264))
        .l1_entry(0)
        .table(&[COMPRESSED | 1; 64])
        .table(&[COMPRESSED | 2])
}

/// L1 entries that name tables again and again, some of which overlap: runs of all lengths.
pub(crate) fn shared() -> MemoryStorage {
    const COUNT: u64 = 512;
    let h = |cluster: u64| cluster * K4;
    let table = |entry: &dyn Fn(u64) -> u64| (0..COUNT).map(entry).collect::<Vec<_>>();
    let builder = Builder::new(12, 9, 600 * COUNT * K4)
        .table(&table(&|index| COMPRESSED | index))
        .table(&table(&|index| match index {
            0..100 => h(index + 20),
            100..300 => COMPRESSED | index,
            300..320 => h(index % 3 + 20),
            _ => 0,
        }))
        .table(&table(&|index| h(index + 20)));
    let at = |index: u64| match index % 6 {
        0 | 1 => L2_AT,
        2 => L2_AT + 4096,
        3 => L2_AT + 8192,
        // Across two tables.
        4 => L2_AT + index % 512 * 8,
        _ => L2_AT + 4096 + index % 512 * 8,
    };
    let mut builder = (0..600).map(at).fold(builder, Builder::l1_entry);
    builder.l1.drain(..3);
    builder.length = usize::try_from((20 + COUNT) * K4).unwrap();
    let bytes = builder.bytes();
    MemoryStorage::new(bytes.len() as u64).with_data(0, &bytes[..6 * 4096])
}

/// An overlay: of what is not in it, nothing is known.
pub(crate) fn overlay() -> MemoryStorage {
    let at = (NAME_AT as u64).to_be_bytes();
    let mut bytes = mixed().with(8, &at).with(16, &8_u32.to_be_bytes()).bytes();
    bytes[NAME_AT..NAME_AT + 8].copy_from_slice(b"base.raw");
    MemoryStorage::from_bytes(bytes)
}

/// All kinds of sound images.
pub(crate) fn all() -> Vec<Sample> {
    vec![
        Sample::new("every kind of entry", mixed().storage(), 7),
        Sample::new("encrypted", mixed().encrypted().storage(), 6),
        Sample::new("over a backing file", overlay(), 7),
        Sample::new("the smallest clusters and tables, some absent", small().storage(), 67),
        Sample::new("tables that are named many times and overlap", shared(), 2434),
    ]
}
