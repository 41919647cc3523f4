//! Images built byte by byte.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::MemoryStorage;
use instar_core::testkit::Sample;

use crate::disk;

/// The smallest clusters, in bytes.
pub(crate) const K4: u64 = 4096;

/// An image: a header of one cluster, the L1 table, then L2 tables one behind the other, then the
/// rest of the file, of which nobody asks what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    header: [u8; disk::HEADER],
    name: Vec<u8>,
    cluster: u64,
    table: u64,
    l1: Vec<u64>,
    l2: Vec<Vec<u64>>,
    /// Bytes of the file.
    length: u64,
}

/// Where the backing file's name is.
pub(crate) const NAME_AT: u64 = disk::HEADER as u64;

impl Builder {
    /// An image with tables of this many clusters, in a file of 64 clusters and 4 tables.
    pub(crate) fn new(cluster: u32, table: u32, size: u64) -> Self {
        let (cluster_size, table_size) = (cluster.to_le_bytes(), table.to_le_bytes());
        let (cluster, table) = (u64::from(cluster), u64::from(table));
        let length = (64 + 4 * table) * cluster;
        let (name, l1, l2) = (Vec::new(), Vec::new(), Vec::new());
        let builder = Self { header: [0; 64], name, cluster, table, l1, l2, length };
        builder
            .with(0, &disk::MAGIC)
            .with(4, &cluster_size)
            .with(8, &table_size)
            .with(12, &1_u32.to_le_bytes())
            .with(40, &cluster.to_le_bytes())
            .with(48, &size.to_le_bytes())
    }

    /// Overwrites bytes of the header.
    pub(crate) fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The header alone.
    pub(crate) fn head(&self) -> [u8; disk::HEADER] {
        self.header
    }

    pub(crate) fn features(self, bits: u64) -> Self {
        self.with(16, &bits.to_le_bytes())
    }

    /// Puts a name behind the header's fields and says where it is.
    pub(crate) fn over(self, name: &[u8]) -> Self {
        let length = u32::try_from(name.len()).unwrap();
        let builder = Self { name: name.to_vec(), ..self };
        builder.with(56, &64_u32.to_le_bytes()).with(60, &length.to_le_bytes()).features(1)
    }

    /// The byte offset of an L2 table.
    pub(crate) fn table_at(&self, number: u64) -> u64 {
        self.cluster * (1 + self.table * (1 + number))
    }

    /// Adds an L1 entry with an L2 table that starts with these entries.
    pub(crate) fn table(mut self, entries: &[u64]) -> Self {
        let at = self.table_at(self.l2.len() as u64);
        self.l2.push(entries.to_vec());
        self.l1_entry(at)
    }

    /// Adds an L1 entry as it is.
    pub(crate) fn l1_entry(mut self, entry: u64) -> Self {
        self.l1.push(entry);
        self
    }

    /// Gives the file another length.
    pub(crate) fn cut(self, length: u64) -> Self {
        Self { length, ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let size = |bytes: u64| usize::try_from(bytes).unwrap();
        let mut bytes = vec![0; size(self.length.max(self.table_at(4)))];
        bytes[..disk::HEADER].copy_from_slice(&self.header);
        bytes[disk::HEADER..disk::HEADER + self.name.len()].copy_from_slice(&self.name);
        let mut words = |at: u64, words: &[u64]| {
            for (i, word) in words.iter().enumerate() {
                bytes[size(at) + i * 8..][..8].copy_from_slice(&word.to_le_bytes());
            }
        };
        words(self.cluster, &self.l1);
        for (number, table) in (0..).zip(&self.l2) {
            words(self.table_at(number), table);
        }
        bytes.truncate(size(self.length));
        bytes
    }

    pub(crate) fn storage(&self) -> MemoryStorage {
        MemoryStorage::from_bytes(self.bytes())
    }
}

/// Every kind of entry. Tables of 2 clusters are for 4 MiB, and the last cluster is cut.
pub(crate) fn mixed() -> Builder {
    let h = |cluster: u64| cluster * K4;
    Builder::new(4096, 2, (4 << 20) + 9 * K4 + 512)
        .table(&[h(16), 1, 1, 0, h(20), h(21), h(22), h(30), h(29)])
        .table(&[0, h(40), h(41), 1, h(42), h(43), h(20), h(21), h(24), h(25), h(26)])
}

/// The smallest tables, for 2 MiB each, of which some are missing.
pub(crate) fn small() -> Builder {
    let from = |first: u64| (first..first + 48).map(|i| i * K4).collect::<Vec<_>>();
    Builder::new(4096, 1, 14 << 20)
        .l1_entry(0)
        .table(&from(10))
        .l1_entry(0)
        .l1_entry(0)
        .table(&[1; 512])
        .table(&[1; 3])
        .l1_entry(0)
}

/// A table for 8 GiB, of which all but the first cluster is absent.
pub(crate) fn long_run() -> Builder {
    Builder::new(65536, 16, 8 << 30).table(&[1])
}

/// L1 entries that name the same three tables again and again, of runs of all lengths.
pub(crate) fn shared() -> MemoryStorage {
    const COUNT: u64 = 512;
    let table = |entry: &dyn Fn(u64) -> u64| (0..COUNT).map(entry).collect::<Vec<_>>();
    let mut builder = Builder::new(4096, 1, 512 * COUNT * K4)
        .table(&table(&|_| 1))
        .table(&table(&|index| match index {
            0..100 => (index + 20) * K4,
            100..300 => 1,
            300..320 => (index % 3 + 20) * K4,
            _ => 0,
        }))
        .table(&table(&|index| (index + 20) * K4));
    let named = builder.l1.clone();
    builder.l1 = (0..512).map(|index| named[[0, 0, 1, 2, 0][index % 5]]).collect();
    let bytes = builder.cut((20 + COUNT) * K4).bytes();
    MemoryStorage::new(bytes.len() as u64).with_data(0, &bytes[..5 * 4096])
}

/// All kinds of sound images.
pub(crate) fn all() -> Vec<Sample> {
    vec![
        Sample::new("every kind of entry", mixed().storage(), 12),
        Sample::new("over a backing file", mixed().over(b"base.raw").storage(), 12),
        Sample::new("tables of one cluster, some absent", small().storage(), 5),
        Sample::new("a run of more than 4 GiB", long_run().storage(), 2),
        Sample::new("tables that are named many times", shared(), 1225),
    ]
}
