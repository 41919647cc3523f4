//! Images for tests, built byte by byte. The defaults are sound; a test changes what it is about.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::testkit::Sample;

/// A descriptor without a parent, as it is embedded in a monolithicSparse disk.
pub(crate) const EMBEDDED: &str = "# Disk DescriptorFile\nversion=1\nCID=12345678\n\
    parentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 100 SPARSE \"image\"\n";

/// The same of a disk of no size.
const OF_NOTHING: &str = "version=1\nCID=12345678\nparentCID=ffffffff\n\
    createType=\"monolithicSparse\"\nRW 0 SPARSE \"image\"\n";

/// The same of a disk with a parent.
pub(crate) const WITH_PARENT: &str = "version=1\nCID=12345679\nparentCID=12345678\n\
    createType=\"monolithicSparse\"\nparentFileNameHint=\"base.vmdk\"\n";

/// Where builders put the descriptor, the directory and the first table, in sectors.
const DESCRIPTOR: usize = 1;
const DIRECTORY: usize = 21;
const TABLES: usize = 22;

/// Bytes at offsets; what is between them is zero.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        let end = at + bytes.len();
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        self.0[at..end].copy_from_slice(bytes);
        self
    }

    fn le32(&mut self, at: usize, value: u32) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    fn le64(&mut self, at: usize, value: u64) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }
}

/// A hosted sparse extent. Sizes are in sectors.
#[derive(Clone)]
pub(crate) struct Hosted {
    pub(crate) version: u32,
    pub(crate) flags: u32,
    pub(crate) capacity: u64,
    pub(crate) grain: u64,
    pub(crate) descriptor: &'static str,
    /// Where the header says that the descriptor is; it is at sector 1 unless this is more.
    pub(crate) descriptor_sector: u64,
    pub(crate) descriptor_sectors: u64,
    pub(crate) table_entries: u32,
    pub(crate) redundant: u64,
    pub(crate) directory: u64,
    pub(crate) overhead: u64,
    pub(crate) line_ends: [u8; 4],
    pub(crate) compression: u16,
    /// Entries of each grain table; `None`: no table.
    pub(crate) tables: Vec<Option<Vec<u32>>>,
    /// Length of the file.
    pub(crate) sectors: usize,
}

impl Default for Hosted {
    /// 13 grains of 4 KiB, the last of which is cut in half: two in a row, a hole, two that
    /// are not in a row, a hole, and the last one.
    fn default() -> Self {
        let mut entries = vec![0; 13];
        entries[..7].copy_from_slice(&[32, 40, 0, 0, 56, 48, 0]);
        entries[12] = 64;
        Self {
            version: 1,
            flags: 3,
            capacity: 100,
            grain: 8,
            descriptor: EMBEDDED,
            descriptor_sector: DESCRIPTOR as u64,
            descriptor_sectors: 20,
            table_entries: 512,
            redundant: DIRECTORY as u64,
            directory: DIRECTORY as u64,
            overhead: 32,
            line_ends: *b"\n \r\n",
            compression: 0,
            tables: vec![Some(entries)],
            sectors: 72,
        }
    }
}

impl Hosted {
    fn header(&self, directory: u64) -> Vec<u8> {
        let mut bytes = Bytes(vec![0; 512]);
        bytes.put(0, b"KDMV").le32(4, self.version).le32(8, self.flags);
        bytes.le64(12, self.capacity).le64(20, self.grain);
        bytes.le64(28, self.descriptor_sector).le64(36, self.descriptor_sectors);
        bytes.le32(44, self.table_entries).le64(48, self.redundant).le64(56, directory);
        bytes.le64(64, self.overhead).put(73, &self.line_ends);
        bytes.put(77, &self.compression.to_le_bytes());
        bytes.0
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut bytes = Bytes::default();
        bytes.put(0, &self.header(self.directory));
        let descriptor = usize::try_from(self.descriptor_sector).unwrap().clamp(DESCRIPTOR, 1000);
        bytes.put(descriptor * 512, self.descriptor.as_bytes());
        let mut table_sector = TABLES;
        for (index, table) in self.tables.iter().enumerate() {
            let Some(entries) = table else { continue };
            let sector = u32::try_from(table_sector).unwrap();
            bytes.le32(DIRECTORY * 512 + index * 4, sector);
            for (index, entry) in entries.iter().enumerate() {
                bytes.le32(table_sector * 512 + index * 4, *entry);
            }
            table_sector += (entries.len() * 4).div_ceil(512);
        }
        if bytes.0.len() < self.sectors * 512 {
            bytes.0.resize(self.sectors * 512, 0);
        }
        bytes.0
    }

    /// The same with the directory's place in a footer only.
    pub(crate) fn build_with_footer(&self) -> Vec<u8> {
        let mut bytes = Self { directory: u64::MAX, ..self.clone() }.build();
        let end = bytes.len().next_multiple_of(512);
        let mut bytes = Bytes(std::mem::take(&mut bytes));
        bytes.put(end, &[0; 3 * 512]).le64(end, 1).le32(end + 12, 3);
        let copy = self.header(self.directory);
        bytes.put(end + 512, &copy);
        bytes.0
    }
}

/// An ESX sparse extent. Sizes are in sectors.
#[derive(Clone)]
pub(crate) struct Cowd {
    pub(crate) capacity: u32,
    pub(crate) grain: u32,
    pub(crate) directory: u32,
    pub(crate) directory_entries: u32,
    pub(crate) text: &'static str,
}

impl Default for Cowd {
    /// Two tables of grains of one sector: the first has three, the second's is missing.
    fn default() -> Self {
        Self { capacity: 5000, grain: 1, directory: 21, directory_entries: 2, text: "" }
    }
}

impl Cowd {
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut bytes = Bytes::default();
        bytes.put(0, b"COWD").le32(4, 1).le32(8, 3).le32(12, self.capacity).le32(16, self.grain);
        bytes.le32(20, self.directory).le32(24, self.directory_entries);
        bytes.put(512, self.text.as_bytes());
        bytes.le32(DIRECTORY * 512, 22);
        // 1 has no special meaning here.
        for (grain, sector) in [(0, 60), (1, 61), (2, 1), (4095, 62)] {
            bytes.le32(TABLES * 512 + grain * 4, sector);
        }
        bytes.put(63 * 512 - 1, &[0]);
        bytes.0
    }
}

/// A seSparse extent: directory at sector 2, tables from 3, grains from 132.
#[derive(Clone)]
pub(crate) struct SeSparse {
    /// Overwrites these 64-bit fields, by index.
    pub(crate) fields: Vec<(usize, u64)>,
    pub(crate) directory: Vec<u64>,
    pub(crate) entries: Vec<u64>,
}

impl Default for SeSparse {
    /// Three tables of 4096 grains of 4 KiB; of the second there are nine entries, all kinds.
    fn default() -> Self {
        Self {
            fields: Vec::new(),
            directory: vec![0, 0x1000_0000_0000_0001, 0],
            entries: vec![
                0,
                0x3000_0000_0000_0000,
                0x3001_0000_0000_0000,
                0x3003_0000_0000_0000,
                0x1000_0000_0000_0000,
                0x2abc_0000_0000_0001,
                0,
                0,
                0x3002_0000_0000_0000,
            ],
        }
    }
}

impl SeSparse {
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut bytes = Bytes::default();
        let header: [(usize, u64); 10] = [
            (0, 0xcafe_babe),
            (1, 0x2_0000_0001),
            (2, 3 * 4096 * 8),
            (3, 8),
            (4, 64),
            (10, 1),
            (16, 2),
            (17, 1),
            (18, 3),
            (24, 132),
        ];
        bytes.le64(512, 0xcafe_cafe).le64(520, 7);
        for (field, value) in header.iter().chain(&self.fields) {
            bytes.le64(field * 8, *value);
        }
        for (index, entry) in self.directory.iter().enumerate() {
            bytes.le64(2 * 512 + index * 8, *entry);
        }
        for (index, entry) in self.entries.iter().enumerate() {
            bytes.le64((3 + 64) * 512 + index * 8, *entry);
        }
        bytes.put(164 * 512 - 1, &[0]);
        bytes.0
    }
}

/// Directory entries that name the same tables again and again, of runs of all lengths, and some
/// tables that overlap.
pub(crate) fn shared() -> Vec<u8> {
    let run = |index: u32| match index {
        0..200 => 1,
        200..300 => 200 + index * 8,
        300..320 => 200 + index % 3 * 8,
        _ => 0,
    };
    let tables =
        [vec![1; 512], (0..512).map(run).collect(), (0..512).map(|i| 200 + i * 8).collect()];
    let mut bytes = Hosted {
        flags: 7,
        version: 2,
        capacity: 1000 * 512 * 8 - 3,
        directory: 100,
        redundant: 100,
        tables: tables.into_iter().map(Some).collect(),
        sectors: 200 + 512 * 8,
        ..Default::default()
    }
    .build();
    for index in 0..1000 {
        let step = [0, 0, 4, 8, index % 9][index % 5];
        let sector = u32::try_from(TABLES + step).unwrap();
        bytes[51_200 + index * 4..][..4].copy_from_slice(&sector.to_le_bytes());
    }
    bytes
}

/// The descriptor of a split disk with these extent lines.
pub(crate) fn text(create_type: &str, lines: &str) -> Vec<u8> {
    format!(
        "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=12345678\n\
         parentCID=ffffffff\ncreateType=\"{create_type}\"\n\n# Extent description\n{lines}\n\
         #DDB\nddb.adapterType = \"ide\"\n"
    )
    .into_bytes()
}

/// The sound images for the tests of programs that the format is in.
pub(crate) fn all() -> Vec<Sample> {
    let registered = |(name, bytes, count)| match Sample::new(name, bytes, count) {
        // Found by its descriptor only.
        extent if name == "seSparse" => extent.not_detected(),
        sample => sample,
    };
    sound().into_iter().map(registered).collect()
}

/// Every sound image, what is special about it, and the number of its extents.
pub(crate) fn sound() -> Vec<(&'static str, Vec<u8>, usize)> {
    let many = Hosted {
        capacity: 8 * 40 - 3,
        table_entries: 5,
        tables: vec![
            None,
            Some(vec![40, 48, 56, 64, 72]),
            Some(vec![80, 0, 0, 0, 0]),
            None,
            None,
            Some(vec![0, 0, 0, 0, 96]),
            Some(vec![104, 0, 0, 0, 0]),
            Some(vec![0, 0, 0, 0, 112]),
        ],
        sectors: 120,
        overhead: 40,
        ..Default::default()
    };
    let zeroed = |flags, compression| {
        let tables = vec![Some(vec![1, 32, 40, 1, 0, 1, 48, 49, 0, 1, 1, 0, 0])];
        Hosted { version: 2, flags, compression, tables, ..Default::default() }
    };
    let odd_grain = Hosted {
        grain: 3,
        capacity: 31,
        tables: vec![Some(vec![0, 32, 35, 0, 0, 41, 38, 0, 0, 0, 44])],
        ..Default::default()
    };
    vec![
        ("monolithicSparse", Hosted::default().build(), 6),
        ("grain directory in the footer", Hosted::default().build_with_footer(), 6),
        (
            "footer behind a partial sector",
            {
                let mut bytes = Hosted::default().build_with_footer();
                bytes.truncate(bytes.len() - 100);
                bytes
            },
            6,
        ),
        ("many small tables, some missing", many.build(), 6),
        ("zeroed grains", zeroed(7, 0).build(), 10),
        ("zeroed grains without their flag", zeroed(3, 0).build(), 11),
        ("compressed grains, some zeroed", zeroed(7 | 3 << 16, 1).build(), 9),
        ("grain of three sectors", odd_grain.build(), 7),
        ("with a parent", Hosted { descriptor: WITH_PARENT, ..Default::default() }.build(), 6),
        (
            "no size",
            Hosted { capacity: 0, descriptor: OF_NOTHING, ..Default::default() }.build(),
            0,
        ),
        ("ESX sparse", Cowd::default().build(), 5),
        ("seSparse", SeSparse::default().build(), 7),
        ("flat extents", text("twoGbMaxExtentFlat", "RW 10 FLAT \"a\" 3\nRW 5 FLAT \"b\" 0\n"), 2),
        (
            "all types of extents",
            text(
                "vmfs",
                "RW 8 VMFS \"a\"\nRDONLY 16 ZERO\nNOACCESS 3 SPARSE \"b\"\n\
            RW 2 SESPARSE \"c\"\nRW 0 FLAT \"d\" 0\nRW 1 VMFSSPARSE \"e\"\n",
            ),
            3,
        ),
        ("no extents", text("vmfs", ""), 0),
        ("tables that are named many times and overlap", shared(), 3223),
    ]
}
