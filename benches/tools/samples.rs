//! Images in memory whose tables are large and whose data is a hole.

use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

use instar_core::{FileStorage, MemoryStorage, Storage};

/// How many clusters, grains or blocks each image has; data pieces, for `raw`.
pub(crate) const UNITS: u64 = 64 << 10;
pub(crate) const RAW_PIECES: u64 = 2048;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// More than any sample uses.
const FILE: u64 = 1 << 44;

/// An image and the name of its format.
pub(crate) struct Sample {
    pub(crate) format: &'static str,
    pub(crate) storage: Arc<dyn Storage>,
}

impl Sample {
    /// The samples have these names.
    pub(crate) const NAMES: [&str; 11] = [
        "qcow2-frag",
        "qcow2-perm",
        "qcow2-contig",
        "qcow2-zero",
        "qcow2-extended",
        "vmdk-frag",
        "vmdk-contig",
        "vhd-frag",
        "vhdx-frag",
        "vhdx-contig",
        "raw-frag",
    ];

    /// The sample of this name.
    pub(crate) fn named(name: &str) -> Self {
        let half = |unit| if unit % 2 == 0 { Some(unit) } else { None };
        // 40503 is odd, so this is each number below 2^16 once.
        let permuted = |unit| Some((unit * 40503) % UNITS);
        match name {
            "qcow2-frag" => qcow2(false, |unit| [half(unit).map_or(0, cluster), 0]),
            "qcow2-perm" => qcow2(false, |unit| [permuted(unit).map_or(0, cluster), 0]),
            "qcow2-contig" => qcow2(false, |unit| [cluster(unit), 0]),
            "qcow2-zero" => qcow2(false, |unit| [half(unit).map_or(1, cluster), 0]),
            "qcow2-extended" => qcow2(true, |unit| [cluster(unit), 0x5555_5555]),
            "vmdk-frag" => vmdk(half),
            "vmdk-contig" => vmdk(Some),
            "vhd-frag" => vhd(half),
            "vhdx-frag" => vhdx(half),
            "vhdx-contig" => vhdx(Some),
            "raw-frag" => raw(),
            _ => unreachable!("no sample is called {name}"),
        }
    }
}

fn cluster(unit: u64) -> u64 {
    (1 << 63) | (1 << 32) | (unit << 16)
}

fn sample(format: &'static str, pieces: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Sample {
    let storage = pieces
        .into_iter()
        .fold(MemoryStorage::new(FILE), |storage, (at, bytes)| storage.with_data(at, bytes));
    Sample { format, storage: Arc::new(storage.with_allocated(FILE)) }
}

/// Bytes with fields put into them.
struct Fields(Vec<u8>);

impl Fields {
    fn new(size: u64) -> Self {
        Self(vec![0; usize::try_from(size).expect("a small structure")])
    }

    fn put(mut self, at: usize, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let room = self.0.get_mut(at..at + bytes.len()).expect("a field inside the structure");
        room.copy_from_slice(bytes);
        self
    }
}

/// Clusters of 64 KiB; `entry` gives an entry and its bitmap.
fn qcow2(extended: bool, entry: impl Fn(u64) -> [u64; 2]) -> Sample {
    let (table_at, l1_at, refcounts_at) = (4 * 64 * KIB, 64 * KIB, 2 * 64 * KIB);
    let width = if extended { 16 } else { 8 };
    let tables = UNITS * width / (64 * KIB);
    let header = Fields::new(512)
        .put(0, b"QFI\xfb")
        .put(4, 3_u32.to_be_bytes())
        .put(20, 16_u32.to_be_bytes())
        .put(24, (UNITS * 64 * KIB).to_be_bytes())
        .put(36, u32::try_from(tables).expect("few tables").to_be_bytes())
        .put(40, l1_at.to_be_bytes())
        .put(48, refcounts_at.to_be_bytes())
        .put(56, 1_u32.to_be_bytes())
        .put(72, if extended { 16_u64 } else { 0 }.to_be_bytes())
        .put(96, 4_u32.to_be_bytes())
        .put(100, 104_u32.to_be_bytes());
    let l1 = (0..tables).flat_map(|i| ((1 << 63) | (table_at + i * 64 * KIB)).to_be_bytes());
    let words = if extended { 2 } else { 1 };
    let l2 = (0..UNITS).flat_map(|unit| entry(unit).into_iter().take(words));
    let l2 = l2.flat_map(u64::to_be_bytes);
    sample("qcow2", [(0, header.0), (l1_at, l1.collect()), (table_at, l2.collect())])
}

/// Grains of 64 KiB. `place` says where the data of a grain is, here and below, in the grain's
/// unit.
fn vmdk(place: impl Fn(u64) -> Option<u64>) -> Sample {
    let (grain, per_table) = (128, 512);
    let (directory, tables_at) = (64 * KIB, MIB);
    let header = Fields::new(512)
        .put(0, b"KDMV")
        .put(4, 1_u32.to_le_bytes())
        .put(8, 1_u32.to_le_bytes())
        .put(12, (UNITS * grain).to_le_bytes())
        .put(20, grain.to_le_bytes())
        .put(28, 1_u64.to_le_bytes())
        .put(36, 20_u64.to_le_bytes())
        .put(44, 512_u32.to_le_bytes())
        .put(56, (directory / 512).to_le_bytes())
        .put(64, (4 * MIB / 512).to_le_bytes())
        .put(73, b"\n \r\n");
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
         createType=\"monolithicSparse\"\nRW {} SPARSE \"image\"\n",
        UNITS * grain
    );
    let word = |value: u64| u32::try_from(value).expect("a short image").to_le_bytes();
    let directory_entries =
        (0..UNITS / per_table).flat_map(|i| word(tables_at / 512 + i * per_table * 4 / 512));
    let grains = (0..UNITS)
        .flat_map(|unit| word(place(unit).map_or(0, |place| 4 * MIB / 512 + place * grain)));
    sample(
        "vmdk",
        [
            (0, header.0),
            (512, text.into_bytes()),
            (directory, directory_entries.collect()),
            (tables_at, grains.collect()),
        ],
    )
}

/// Blocks of 2 MiB, of which as many as the format allows for.
fn vhd(place: impl Fn(u64) -> Option<u64>) -> Sample {
    let blocks = UNITS / 2;
    let sectors = 4097;
    let size = blocks * 2 * MIB;
    let checksum = |fields: Fields, at| {
        let sum = fields.0.iter().fold(0_u32, |sum, byte| sum.wrapping_add((*byte).into()));
        fields.put(at, (!sum).to_be_bytes()).0
    };
    let footer = Fields::new(512)
        .put(0, b"conectix")
        .put(8, 2_u32.to_be_bytes())
        .put(12, 0x1_0000_u32.to_be_bytes())
        .put(16, 512_u64.to_be_bytes())
        .put(28, b"qem2")
        .put(40, size.to_be_bytes())
        .put(48, size.to_be_bytes())
        .put(56, [0xff, 0xff, 16, 255])
        .put(60, 3_u32.to_be_bytes());
    let header = Fields::new(1024)
        .put(0, b"cxsparse")
        .put(8, u64::MAX.to_be_bytes())
        .put(16, 1536_u64.to_be_bytes())
        .put(24, 0x1_0000_u32.to_be_bytes())
        .put(28, u32::try_from(blocks).expect("few blocks").to_be_bytes())
        .put(32, 0x20_0000_u32.to_be_bytes());
    let first = MIB / 512;
    let entry = |unit| place(unit).map_or(u64::from(u32::MAX), |place| first + place * sectors);
    let bat = (0..blocks)
        .flat_map(|unit| u32::try_from(entry(unit)).expect("a short image").to_be_bytes());
    let footer = checksum(footer, 64);
    sample(
        "vhd",
        [
            (0, footer.clone()),
            (512, checksum(header, 36)),
            (1536, bat.collect()),
            (FILE - 512, footer),
        ],
    )
}

/// Blocks of 1 MiB.
fn vhdx(place: impl Fn(u64) -> Option<u64>) -> Sample {
    let per_chunk = 4096;
    let (metadata_at, bat_at) = (2 * MIB, 3 * MIB);
    let checksum = |fields: Fields| {
        let sum = crc32c::crc32c(&fields.0);
        fields.put(4, sum.to_le_bytes()).0
    };
    let header = |sequence: u64| {
        checksum(
            Fields::new(4096)
                .put(0, b"head")
                .put(8, sequence.to_le_bytes())
                .put(66, 1_u16.to_le_bytes())
                .put(68, 0x10_0000_u32.to_le_bytes())
                .put(72, MIB.to_le_bytes()),
        )
    };
    let bat_guid = 0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08;
    let metadata_guid = 0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e;
    let regions = checksum(
        Fields::new(64 * KIB)
            .put(0, b"regi")
            .put(8, 2_u32.to_le_bytes())
            .put(16, guid(bat_guid))
            .put(32, bat_at.to_le_bytes())
            .put(40, 0x10_0000_u32.to_le_bytes())
            .put(44, 1_u32.to_le_bytes())
            .put(48, guid(metadata_guid))
            .put(64, metadata_at.to_le_bytes())
            .put(72, 0x10_0000_u32.to_le_bytes())
            .put(76, 1_u32.to_le_bytes()),
    );
    let items: [(u128, u64, u32, u32); 5] = [
        (0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b, MIB, 8, 4),
        (0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8, UNITS * MIB, 8, 6),
        (0xbeca_12ab_b2e6_4523_93ef_c309_e000_c746, 1, 16, 6),
        (0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f, 512, 4, 6),
        (0xcda3_48c7_445d_4471_9cc9_e988_5251_c556, 4096, 4, 6),
    ];
    let mut metadata = Fields::new(65 * KIB).put(0, b"metadata").put(10, 5_u16.to_le_bytes());
    let (mut at, mut slot) = (64 << 10, 32);
    for (name, value, length, flags) in items {
        metadata = metadata
            .put(slot, guid(name))
            .put(slot + 16, u32::try_from(at).expect("a small table").to_le_bytes())
            .put(slot + 20, length.to_le_bytes())
            .put(slot + 24, flags.to_le_bytes())
            .put(at, value.to_le_bytes());
        at += 16;
        slot += 32;
    }
    let entry = |unit| place(unit).map_or(0, |place| ((4 + place) * MIB) | 6);
    // The bitmap of a chunk follows its blocks; nobody needs it here.
    let chunk = |chunk: u64| {
        let units = chunk * per_chunk..(chunk + 1) * per_chunk;
        units.map(entry).chain([0])
    };
    let bat = (0..UNITS / per_chunk).flat_map(chunk).flat_map(u64::to_le_bytes);
    sample(
        "vhdx",
        [
            (0, b"vhdxfile".to_vec()),
            (64 * KIB, header(1)),
            (128 * KIB, header(2)),
            (192 * KIB, regions.clone()),
            (256 * KIB, regions),
            (metadata_at, metadata.0),
            (bat_at, bat.collect()),
        ],
    )
}

/// A GUID as Microsoft stores it: the first three groups are little-endian.
fn guid(text: u128) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = text.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

/// A file: only a file system knows its own holes at its own speed.
fn raw() -> Sample {
    let mut file = tempfile::tempfile().expect("a temporary file");
    for piece in 0..RAW_PIECES {
        file.seek(SeekFrom::Start(piece * 64 * KIB)).expect("seeks");
        file.write_all(&[1; 4096]).expect("room for 8 MiB");
    }
    file.sync_all().expect("syncs");
    let storage = FileStorage::from_file(file).expect("a regular file");
    Sample { format: "raw", storage: Arc::new(storage) }
}
