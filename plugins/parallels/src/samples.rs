//! Images built byte by byte.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::testkit::Sample;

/// Bytes of one cluster in the samples.
pub(crate) const CLUSTER: u64 = 4096;

/// Where clusters start: behind header and table.
pub(crate) const DATA: u64 = 4096;

pub(crate) const OLD: &[u8; 16] = b"WithoutFreeSpace";
pub(crate) const EXTENDED: &[u8; 16] = b"WithouFreSpacExt";

/// The magic of the only known feature.
pub(crate) const DIRTY_BITMAP: u64 = 0x2038_5fae_252c_b34a;

/// An image; the fields are those of the header.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) magic: [u8; 16],
    pub(crate) version: u32,
    pub(crate) cluster_sectors: u32,
    /// As many as there are, unless this says otherwise.
    pub(crate) entries: Option<u32>,
    pub(crate) sectors: u64,
    pub(crate) in_use: u32,
    pub(crate) data_start: u32,
    pub(crate) extension: u64,
    pub(crate) table: Vec<u32>,
    /// Clusters of the file, the one with header and table not counted.
    pub(crate) stored: usize,
    /// Pieces anywhere in the file.
    pub(crate) pieces: Vec<(u64, Vec<u8>)>,
}

impl Disk {
    pub(crate) fn new(magic: &[u8; 16], sectors: u64, table: &[u32], stored: usize) -> Self {
        Self {
            magic: *magic,
            version: 2,
            cluster_sectors: 8,
            entries: None,
            sectors,
            in_use: 0x312e_3276,
            data_start: 8,
            extension: 0,
            table: table.to_vec(),
            stored,
            pieces: Vec::new(),
        }
    }

    /// The same with this format extension in a cluster behind the others.
    pub(crate) fn with_extension(&self, extension: Vec<u8>) -> Self {
        let at = DATA + self.stored as u64 * CLUSTER;
        Self { extension: at / 512, pieces: vec![(at, extension)], ..self.clone() }
    }

    /// The file: what is described above, clusters filled with their number.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let cluster = usize::try_from(CLUSTER).unwrap();
        for number in 0..self.stored {
            let fill = vec![number.to_le_bytes()[0]; cluster];
            put(&mut file, usize::try_from(DATA).unwrap() + number * cluster, &fill);
        }
        let table: Vec<u8> = self.table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        put(&mut file, 64, &table);
        put(&mut file, 0, &self.magic);
        let entries = self.entries.unwrap_or(u32::try_from(self.table.len()).unwrap());
        for (at, value) in [
            (16, self.version),
            (20, 16),
            (24, 1),
            (28, self.cluster_sectors),
            (32, entries),
            (44, self.in_use),
            (48, self.data_start),
        ] {
            put(&mut file, at, &u32::to_le_bytes(value));
        }
        put(&mut file, 36, &self.sectors.to_le_bytes());
        put(&mut file, 56, &self.extension.to_le_bytes());
        for (at, bytes) in &self.pieces {
            put(&mut file, usize::try_from(*at).unwrap(), bytes);
        }
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

/// An empty cluster, two stored one behind the other, one in front of them, two empty ones, and
/// one that is cut by the end of the disk; a spare entry behind it.
pub(crate) fn extended() -> Disk {
    Disk::new(EXTENDED, 6 * 8 + 2, &[0, 2, 3, 1, 0, 0, 4, 0], 5)
}

/// The same disk, with entries in sectors; one cluster is not on a cluster's border of the file.
pub(crate) fn old() -> Disk {
    let mut disk = Disk::new(OLD, 6 * 8 + 2, &[0, 16, 24, 8, 0, 0, 33, 0], 5);
    disk.data_start = 0;
    disk
}

/// The extended one with two dirty bitmaps.
pub(crate) fn with_bitmaps() -> Disk {
    // 50 sectors in granules of 2 are 25 bits.
    let one = feature(DIRTY_BITMAP, 0, &bitmap(50, 2, &[1]));
    extended().with_extension(extension(&[one.clone(), one]))
}

/// All kinds of sound images.
pub(crate) fn all() -> Vec<Sample> {
    vec![
        Sample::new("extended", extended().bytes(), 5),
        Sample::new("old", old().bytes(), 5),
        Sample::new("dirty bitmaps", with_bitmaps().bytes(), 5),
    ]
}

/// The cluster of an extension with these features, and the right checksum.
pub(crate) fn extension(features: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    bytes.extend(features.concat());
    bytes.resize(usize::try_from(CLUSTER).unwrap(), 0);
    seal(&mut bytes);
    bytes
}

/// Sets magic and checksum of an extension.
pub(crate) fn seal(bytes: &mut Vec<u8>) {
    let sum = md5::compute(&bytes[24..]);
    put(bytes, 0, &0xab23_4cef_23dc_ea87_u64.to_le_bytes());
    put(bytes, 8, &sum.0);
}

pub(crate) fn feature(magic: u64, flags: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, 0, &magic.to_le_bytes());
    put(&mut bytes, 8, &flags.to_le_bytes());
    put(&mut bytes, 16, &u32::try_from(data.len()).unwrap().to_le_bytes());
    put(&mut bytes, 24, data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// The data of a dirty bitmap.
pub(crate) fn bitmap(sectors: u64, granularity: u32, table: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, 0, &sectors.to_le_bytes());
    put(&mut bytes, 8, b"sixteen bytes id");
    put(&mut bytes, 24, &granularity.to_le_bytes());
    put(&mut bytes, 28, &u32::try_from(table.len()).unwrap().to_le_bytes());
    let table: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    put(&mut bytes, 32, &table);
    bytes
}
