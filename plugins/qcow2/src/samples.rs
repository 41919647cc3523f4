//! Images built byte by byte, each to show one thing.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::MemoryStorage;
use instar_core::testkit::Sample;

use crate::disk;

/// A version 3 image with an L1 table in cluster 1, a refcount table in cluster 2, and L2 tables
/// from cluster 3 on. Data clusters are wherever the entries say.
#[derive(Clone)]
pub(crate) struct Builder {
    pub(crate) cluster_bits: u32,
    pub(crate) size: u64,
    pub(crate) header: Vec<u8>,
    pub(crate) l1: Vec<u64>,
    pub(crate) l2: Vec<Vec<u64>>,
    pub(crate) clusters: u64,
}

pub(crate) const EXTENDED_L2: u64 = 1 << 4;
pub(crate) const ZERO: u64 = 1;
pub(crate) const COMPRESSED: u64 = 1 << 62;

impl Builder {
    pub(crate) fn new(cluster_bits: u32, size: u64) -> Self {
        let mut header = vec![0; 512];
        header[..4].copy_from_slice(&disk::MAGIC);
        let mut builder = Self { cluster_bits, size, header, l1: vec![], l2: vec![], clusters: 64 };
        let cluster = builder.cluster();
        builder.put(4, &3_u32.to_be_bytes());
        builder.put(20, &cluster_bits.to_be_bytes());
        builder.put(24, &size.to_be_bytes());
        builder.put(40, &cluster.to_be_bytes());
        builder.put(48, &(2 * cluster).to_be_bytes());
        builder.put(56, &1_u32.to_be_bytes());
        builder.put(96, &4_u32.to_be_bytes());
        builder.put(100, &104_u32.to_be_bytes());
        builder
    }

    pub(crate) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Overwrites bytes of the first 512.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self
    }

    pub(crate) fn extended(self) -> Self {
        self.with(72, &EXTENDED_L2.to_be_bytes())
    }

    /// Adds an L1 entry with an L2 table that starts with these words.
    pub(crate) fn table(mut self, words: &[u64]) -> Self {
        let at = (3 + self.l2.len() as u64) * self.cluster();
        self.l1.push(at | 1 << 63);
        self.l2.push(words.to_vec());
        self
    }

    /// Adds an L1 entry as it is.
    pub(crate) fn l1_entry(mut self, entry: u64) -> Self {
        self.l1.push(entry);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let cluster = self.cluster();
        let cluster_bytes = usize::try_from(cluster).unwrap();
        let mut bytes = vec![0; usize::try_from(cluster * self.clusters).unwrap()];
        bytes[..512].copy_from_slice(&self.header);
        let per_table = cluster << (self.cluster_bits - 3 - u32::from(self.header[79] == 16));
        let entries = u32::try_from(self.size.div_ceil(per_table)).unwrap();
        bytes[36..40].copy_from_slice(&entries.to_be_bytes());
        if self.header[36..40] != [0; 4] {
            bytes[36..40].copy_from_slice(&self.header[36..40]);
        }
        let mut words = |at: usize, words: &[u64]| {
            for (i, word) in words.iter().enumerate() {
                bytes[at + i * 8..][..8].copy_from_slice(&word.to_be_bytes());
            }
        };
        words(cluster_bytes, &self.l1);
        for (i, table) in self.l2.iter().enumerate() {
            words((3 + i) * cluster_bytes, table);
        }
        bytes
    }

    pub(crate) fn storage(&self) -> MemoryStorage {
        MemoryStorage::from_bytes(self.bytes())
    }
}

pub(crate) const K64: u64 = 65536;

pub(crate) fn mixed() -> Builder {
    let h = |cluster: u64| cluster * K64;
    Builder::new(16, 10 * K64).table(&[
        h(16),
        ZERO,
        h(17) | ZERO,
        0,
        COMPRESSED | 12345,
        COMPRESSED,
        h(20) | 1 << 63,
        h(21),
        h(22) | 1 << 63,
        h(30),
    ])
}

/// 512-byte clusters: an L2 table covers 32 KiB, so there are many.
pub(crate) fn small_clusters() -> Builder {
    let mut builder = Builder::new(9, 6 * 32768);
    builder.clusters = 256;
    let alternating: Vec<u64> =
        (0..64).map(|i| if i % 2 == 0 { 512 * (100 + i) } else { 0 }).collect();
    let contiguous: Vec<u64> = (0..64).map(|i| 512 * (150 + i)).collect();
    builder
        .table(&alternating)
        .l1_entry(0)
        .l1_entry(0)
        .table(&contiguous)
        .table(&[ZERO; 64])
        .l1_entry(1 << 63)
}

pub(crate) fn extended() -> Builder {
    let h = |cluster: u64| cluster * K64;
    let bits = |allocated: u32, zero: u32| u64::from(zero) << 32 | u64::from(allocated);
    Builder::new(16, 8 * K64).extended().table(&[
        h(16),
        bits(0b1110_0000, 0b11 << 20),
        0,
        0,
        0,
        bits(0, 0b1111),
        0,
        bits(0, !0),
        h(20),
        bits(!0, 0),
        h(21),
        bits(!0 >> 1, 0),
        COMPRESSED,
        bits(7, 7),
        h(22),
        0,
    ])
}

/// L1 entries that name the same four tables again and again, of runs of all lengths: clusters of
/// 4 KiB, or of 16 KiB with subclusters.
pub(crate) fn shared(is_extended: bool) -> MemoryStorage {
    let bits: u32 = if is_extended { 14 } else { 12 };
    let cluster = 1_u64 << bits;
    let count = cluster / if is_extended { 16 } else { 8 };
    let builder = Builder::new(bits, 512 * count * cluster);
    let builder = if is_extended { builder.extended() } else { builder };
    let table = |entry: &dyn Fn(u64) -> [u64; 2]| -> Vec<u64> {
        let width = if is_extended { 2 } else { 1 };
        (0..count).flat_map(|index| entry(index).into_iter().take(width)).collect()
    };
    // Bit 0 of an extended entry has no meaning.
    let zero = |mark: u64| if is_extended { [mark, !0 << 32] } else { [mark | ZERO, 0] };
    let all = u64::from(u32::MAX);
    let mut builder = builder
        .table(&table(&|index| [(index % 2) << 63, 0]))
        .table(&table(&|index| match index {
            0..100 => [(index + 20) * cluster, all],
            100..300 => zero((index % 3) << 60 & COMPRESSED.wrapping_sub(1)),
            300..320 => [COMPRESSED | index, 0],
            _ => [0, 0],
        }))
        .table(&table(&|index| [(index + 20) * cluster, all]))
        .table(&table(&|index| match index % 200 {
            150.. => [(20 + index % 2) * cluster, all],
            _ => [COMPRESSED | index, index],
        }));
    let named = builder.l1.clone();
    builder.l1 = (0..512).map(|index| named[[0, 0, 1, 2, 3, 0][index % 6]]).collect();
    builder.clusters = 20 + count;
    let bytes = builder.bytes();
    let metadata = usize::try_from(7 * cluster).unwrap();
    MemoryStorage::new(bytes.len() as u64).with_data(0, &bytes[..metadata])
}

/// All kinds of sound images.
pub(crate) fn all() -> Vec<Sample> {
    vec![
        Sample::new("every kind of entry", mixed().storage(), 7),
        Sample::new("subclusters", extended().storage(), 13),
        Sample::new(
            "clusters of 512 bytes, tables that are absent",
            small_clusters().storage(),
            67,
        ),
        Sample::new("tables that are named many times", shared(false), 5016),
        Sample::new("the same with subclusters", shared(true), 11646),
    ]
}
