//! Images for tests, made byte by byte.
//!
//! Every sample has its parts at the same places: log at 1 MiB, metadata at 2 MiB, BAT at 3 MiB,
//! blocks from 4 MiB on.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use instar_core::MemoryStorage;
use instar_core::testkit;

use crate::disk::{
    BAT_REGION, FILE_PARAMETERS, LOGICAL_SECTOR_SIZE, METADATA_REGION, MIB, PARENT_LOCATOR,
    PHYSICAL_SECTOR_SIZE, VIRTUAL_DISK_ID, VIRTUAL_DISK_SIZE, checksum,
};
use crate::guid::Guid;

pub(crate) const LOG: u64 = MIB;
pub(crate) const METADATA: u64 = 2 * MIB;
pub(crate) const BAT: u64 = 3 * MIB;
pub(crate) const BLOCKS: u64 = 4 * MIB;

pub(crate) const LOG_GUID: Guid = Guid::new(0x10c0_10c0_10c0_10c0_10c0_10c0_10c0_10c0);
pub(crate) const LINKAGE: &str = "{83ed0ec3-24c8-49a6-a959-5e4bf1288bfb}";
pub(crate) const UNKNOWN: Guid = Guid::new(0x0bad_0bad_0bad_0bad_0bad_0bad_0bad_0bad);
pub(crate) const VHDX_LOCATOR: Guid = Guid::new(0xB04AEFB7_D19E_4A81_B789_25B8E9445913);

/// Bytes of a GUID as they are stored.
pub(crate) fn stored(guid: Guid) -> Vec<u8> {
    let text = guid.to_string().replace('-', "");
    let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap();
    [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(byte).to_vec()
}

pub(crate) fn le(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

pub(crate) fn le32(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// An entry of the region table.
pub(crate) fn region(guid: Guid, offset: u64, length: u32, required: u32) -> Vec<u8> {
    [stored(guid), le(&[offset]), le32(&[length, required])].concat()
}

/// A parent locator with these keys and values.
pub(crate) fn locator(guid: Guid, entries: &[(&str, &str)]) -> Vec<u8> {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let small = |n: usize| u16::try_from(n).unwrap().to_le_bytes();
    let mut head = [stored(guid), small(0).to_vec(), small(entries.len()).to_vec()].concat();
    let mut texts = Vec::new();
    let start = head.len() + 12 * entries.len();
    for (key, value) in entries {
        let (key, value) = (utf16(key), utf16(value));
        let at = u32::try_from(start + texts.len()).unwrap();
        let key_length = u32::try_from(key.len()).unwrap();
        head.extend(le32(&[at, at + key_length]));
        head.extend([small(key.len()), small(value.len())].concat());
        texts.extend([key, value].concat());
    }
    [head, texts].concat()
}

/// A parent locator as Hyper-V writes it.
pub(crate) fn hyper_v_locator() -> Vec<u8> {
    locator(
        VHDX_LOCATOR,
        &[
            ("parent_linkage", LINKAGE),
            ("volume_path", r"\\?\Volume{26a21bda}\base.vhdx"),
            ("relative_path", r"..\base.vhdx"),
            ("absolute_win32_path", r"C:\disks\base.vhdx"),
        ],
    )
}

/// A log entry; `updates` are (file offset, Some(bytes of a sector) or None to zero 4 KiB).
pub(crate) struct LogEntry {
    pub(crate) sequence: u64,
    /// Byte offset in the log.
    pub(crate) tail: u32,
    pub(crate) flushed: u64,
    pub(crate) last: u64,
    pub(crate) updates: Vec<(u64, Option<Vec<u8>>)>,
}

impl LogEntry {
    pub(crate) fn new(sequence: u64, tail: u32, updates: Vec<(u64, Option<Vec<u8>>)>) -> Self {
        Self { sequence, tail, flushed: MIB, last: MIB, updates }
    }

    /// The entry's sectors, with a right checksum.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = b"loge".to_vec();
        head.extend(le32(&[0, 0, self.tail]));
        head.extend(le(&[self.sequence]));
        head.extend(le32(&[u32::try_from(self.updates.len()).unwrap(), 0]));
        head.extend(stored(LOG_GUID));
        head.extend(le(&[self.flushed, self.last]));
        let mut data = Vec::new();
        let (low, high) = (self.sequence & 0xffff_ffff, self.sequence >> 32);
        let [low, high] = [low, high].map(|half| u32::try_from(half).unwrap().to_le_bytes());
        for (offset, update) in &self.updates {
            match update {
                None => {
                    head.extend(b"zero\0\0\0\0");
                    head.extend(le(&[4096]));
                }
                Some(bytes) => {
                    head.extend([b"desc", &bytes[4092..]].concat());
                    head.extend(&bytes[..8]);
                    data.extend(b"data");
                    data.extend(high);
                    data.extend(&bytes[8..4092]);
                    data.extend(low);
                }
            }
            head.extend(le(&[*offset, self.sequence]));
        }
        head.resize(head.len().next_multiple_of(4096), 0);
        let mut bytes = [head, data].concat();
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        seal(&mut bytes);
        bytes
    }
}

/// Writes the right checksum.
pub(crate) fn seal(bytes: &mut [u8]) {
    let sum = checksum(bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// Bytes to be laid over a structure, at an offset in it.
pub(crate) type Patches = Vec<(usize, Vec<u8>)>;

/// An image, with everything about it to be changed.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) size: u64,
    pub(crate) block_size: u32,
    pub(crate) sector_size: u32,
    pub(crate) physical: u32,
    /// Bit 0: fixed, bit 1: has a parent.
    pub(crate) flags: u32,
    pub(crate) bat_length: u32,
    pub(crate) bat: Vec<u64>,
    /// More metadata items, with their flags.
    pub(crate) items: Vec<(Guid, u32, Vec<u8>)>,
    pub(crate) more_regions: Vec<Vec<u8>>,
    /// Sectors from the start of the log on; there is a log if there are any.
    pub(crate) log: Vec<u8>,
    /// Laid over the structures before their checksums are made.
    pub(crate) headers: [Patches; 2],
    pub(crate) regions: [Patches; 2],
    pub(crate) metadata: Patches,
    /// Laid over the file, behind the BAT too.
    pub(crate) raw: Vec<(u64, Vec<u8>)>,
    /// Bytes of the file.
    pub(crate) length: u64,
}

impl Sample {
    /// A dynamic disk of blocks of 1 MiB.
    pub(crate) fn new(blocks: u64, bat: &[u64]) -> Self {
        Self {
            size: blocks * MIB,
            block_size: 1 << 20,
            sector_size: 512,
            physical: 4096,
            flags: 0,
            bat_length: 1 << 20,
            bat: bat.to_vec(),
            items: Vec::new(),
            more_regions: Vec::new(),
            log: Vec::new(),
            headers: [Vec::new(), Vec::new()],
            regions: [Vec::new(), Vec::new()],
            metadata: Vec::new(),
            raw: Vec::new(),
            length: BLOCKS,
        }
    }

    /// A differencing disk of blocks of 1 MiB.
    pub(crate) fn child(blocks: u64, bat: &[u64]) -> Self {
        let mut sample = Self::new(blocks, bat);
        sample.flags = 2;
        sample.items.push((PARENT_LOCATOR, 4, hyper_v_locator()));
        sample
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn header(&self, index: usize) -> Vec<u8> {
        let mut bytes = b"head\0\0\0\0".to_vec();
        bytes.extend(le(&[index as u64 + 1]));
        bytes.extend([1; 16]);
        bytes.extend(stored(Guid::new(0x0203_0405)));
        bytes.extend(stored(if self.log.is_empty() { Guid::ZERO } else { LOG_GUID }));
        bytes.extend([0, 0, 1, 0]);
        bytes.extend(le32(&[1 << 20]));
        bytes.extend(le(&[LOG]));
        sealed(bytes, 4096, &self.headers[index])
    }

    fn region_table(&self, index: usize) -> Vec<u8> {
        let mut entries = vec![
            region(BAT_REGION, BAT, self.bat_length, 1),
            region(METADATA_REGION, METADATA, 1 << 20, 1),
        ];
        entries.extend(self.more_regions.iter().cloned());
        let count = u32::try_from(entries.len()).unwrap();
        let bytes = [b"regi\0\0\0\0".to_vec(), le32(&[count, 0]), entries.concat()].concat();
        sealed(bytes, 65536, &self.regions[index])
    }

    fn metadata(&self) -> Vec<u8> {
        let mut items = vec![
            (FILE_PARAMETERS, 4, le32(&[self.block_size, self.flags])),
            (VIRTUAL_DISK_SIZE, 6, le(&[self.size])),
            (VIRTUAL_DISK_ID, 6, vec![7; 16]),
            (LOGICAL_SECTOR_SIZE, 6, le32(&[self.sector_size])),
            (PHYSICAL_SECTOR_SIZE, 6, le32(&[self.physical])),
        ];
        items.extend(self.items.iter().cloned());
        let mut table = b"metadata\0\0".to_vec();
        table.extend(u16::try_from(items.len()).unwrap().to_le_bytes());
        table.resize(32, 0);
        let mut contents = Vec::new();
        for (guid, flags, content) in items {
            let at = u32::try_from(65536 + contents.len()).unwrap();
            let length = u32::try_from(content.len()).unwrap();
            table.extend(stored(guid));
            table.extend(le32(&[at, length, flags, 0]));
            contents.extend(content);
        }
        table.resize(65536, 0);
        let mut bytes = [table, contents].concat();
        for (at, patch) in &self.metadata {
            bytes[*at..at + patch.len()].copy_from_slice(patch);
        }
        bytes
    }

    /// The pieces of which the file consists.
    fn pieces(&self) -> Vec<(u64, Vec<u8>)> {
        let mut pieces = vec![
            (0, b"vhdxfile".to_vec()),
            (64 << 10, self.header(0)),
            (128 << 10, self.header(1)),
            (192 << 10, self.region_table(0)),
            (256 << 10, self.region_table(1)),
            (LOG, self.log.clone()),
            (METADATA, self.metadata()),
            (BAT, le(&self.bat)),
        ];
        pieces.extend(self.raw.iter().cloned());
        pieces
    }

    /// The file's first bytes, 8 MiB at most, as far as it goes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.length.min(8 * MIB)).unwrap()];
        for (at, piece) in self.pieces() {
            let at = usize::try_from(at).unwrap();
            for (target, source) in bytes.iter_mut().skip(at).zip(piece) {
                *target = source;
            }
        }
        bytes
    }

    /// The file; what lies behind its first 8 MiB is a hole.
    pub(crate) fn storage(&self) -> MemoryStorage {
        MemoryStorage::new(self.length).with_data(0, self.bytes())
    }
}

fn sealed(mut bytes: Vec<u8>, length: usize, patches: &Patches) -> Vec<u8> {
    bytes.resize(length, 0);
    for (at, patch) in patches {
        bytes[*at..at + patch.len()].copy_from_slice(patch);
    }
    seal(&mut bytes);
    bytes
}

/// A sector bitmap block in which these sectors are present.
pub(crate) fn bitmap(sectors: impl IntoIterator<Item = std::ops::Range<usize>>) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    for sector in sectors.into_iter().flatten() {
        bytes[sector / 8] |= 1 << (sector % 8);
    }
    bytes
}

/// BAT entries.
pub(crate) fn full(mib: u64) -> u64 {
    (mib * MIB) | 6
}

pub(crate) fn partial(mib: u64) -> u64 {
    (mib * MIB) | 7
}

/// A BAT of whole chunks with this chunk ratio: the bitmap's entry follows the payload's.
pub(crate) fn chunked(ratio: usize, chunks: &[(&[u64], u64)]) -> Vec<u64> {
    let mut bat = Vec::new();
    for (payload, bitmap) in chunks {
        let end = bat.len() + ratio;
        bat.extend(*payload);
        bat.resize(end, 0);
        bat.push(*bitmap);
    }
    bat
}

/// All kinds of sound images, by name.
pub(crate) fn sound() -> Vec<(&'static str, Sample, usize)> {
    let blocks = |first: u64, count: u64| (first..first + count).map(full).collect::<Vec<_>>();
    let ratio_16 = |sample: &mut Sample| {
        sample.block_size = 256 << 20;
        sample.length = 64 << 30;
    };
    vec![
        ("size-0", Sample::new(0, &[]), 0),
        ("dynamic-empty", Sample::new(100, &[]), 1),
        (
            "dynamic-every-state",
            Sample::new(9, &[0, 1, 2, 3, 5, full(4), full(5), 0, full(7)])
                .with(|s| s.length = 8 * MIB),
            // absent, zero, data, absent, data
            5,
        ),
        (
            "dynamic-blocks-out-of-order",
            Sample::new(4, &[full(7), full(6), full(5), full(4)]).with(|s| s.length = 8 * MIB),
            4,
        ),
        (
            "dynamic-last-block-cut-short",
            Sample::new(2, &[full(4), full(5)]).with(|s| {
                s.size = MIB + 512;
                s.length = 5 * MIB + 512;
            }),
            1,
        ),
        (
            "fixed",
            Sample::new(4, &blocks(4, 4)).with(|s| {
                s.flags = 1;
                s.length = 8 * MIB;
            }),
            1,
        ),
        (
            "dynamic-junk-where-sector-bitmaps-would-be",
            Sample::new(0, &chunked(16, &[(&[0; 16], u64::MAX), (&[2; 16], u64::MAX)]))
                .with(ratio_16)
                .with(|s| s.size = 32 * 256 * MIB),
            2,
        ),
        (
            "dynamic-data-across-chunks",
            Sample::new(
                0,
                &chunked(
                    16,
                    &[
                        (&(0..16).map(|i| full(1024 + 256 * i)).collect::<Vec<_>>(), 0),
                        (&(16..32).map(|i| full(1024 + 256 * i)).collect::<Vec<_>>(), 0),
                        (&[0, full(512)], 0),
                    ],
                ),
            )
            .with(ratio_16)
            .with(|s| s.size = 34 * 256 * MIB - 512),
            3,
        ),
        (
            "sectors-of-4096",
            Sample::child(3, &chunked(1 << 15, &[(&[partial(6), 0, full(7)], full(4))])).with(
                |s| {
                    s.sector_size = 4096;
                    s.raw.push((4 * MIB, bitmap([1..3, 255..256, 512..600])));
                    s.length = 8 * MIB;
                },
            ),
            // absent, data, absent, data, absent (block 1), data
            6,
        ),
        (
            "differencing-every-state",
            Sample::child(
                8,
                &chunked(
                    4096,
                    &[(
                        &[0, 1, 2, 3, full(5), partial(6), partial(7), partial(8), full(99)],
                        full(4),
                    )],
                ),
            )
            .with(|s| {
                // Block 4 has bits too, which mean nothing: it is fully present.
                let (five, six, seven) = (5 * 2048, 6 * 2048, 7 * 2048);
                let sectors = [
                    4 * 2048 + 1..4 * 2048 + 9,
                    five..five + 1,
                    five + 100..six,
                    six..six + 64,
                    seven + 63..seven + 65,
                ];
                s.raw.push((4 * MIB, bitmap(sectors)));
                s.length = 9 * MIB;
            }),
            // absent, zero, data 4 and sector 0 of 5, absent, data rest of 5 to 6, absent, data,
            // absent
            8,
        ),
        (
            "differencing-second-chunk",
            Sample::child(0, &chunked(16, &[(&[0; 16], 0), (&[0, partial(1024)], full(4))]))
                .with(ratio_16)
                .with(|s| {
                    s.size = 18 * 256 * MIB;
                    s.raw.push((4 * MIB, bitmap(std::iter::once(1 << 19..(1 << 19) + 3))));
                }),
            // absent, three sectors of data, absent
            3,
        ),
        (
            "differencing-all-bits-set",
            Sample::child(2, &chunked(4096, &[(&[partial(5), partial(6)], full(4))])).with(|s| {
                s.raw.push((4 * MIB, vec![0xff; 1 << 20]));
                s.length = 8 * MIB;
            }),
            1,
        ),
        ("pending-log", pending_log(), 3),
        ("bat-at-the-end-of-the-file", bat_at_the_end(), 2),
        (
            // 49 chunks of 16 blocks: no sector bitmap's entry follows the last payload entry,
            // and that one ends a sector.
            "file-ends-with-the-last-payload-entry",
            Sample::new(0, &[]).with(|s| {
                s.block_size = 256 << 20;
                s.size = 49 * 16 * 256 * MIB;
                s.length = BAT + (49 * 17 - 1) * 8;
            }),
            1,
        ),
    ]
}

/// The same for the tests of programs that the format is in.
pub(crate) fn all() -> Vec<testkit::Sample> {
    let registered =
        |(name, sample, count): (_, Sample, _)| testkit::Sample::new(name, sample.storage(), count);
    sound().into_iter().map(registered).collect()
}

/// The BAT and the length of the file are right only after the log's replay: the entry before
/// the last makes block 1 zero, the last one adds block 0 and zeros what follows the BAT.
pub(crate) fn pending_log() -> Sample {
    let mut bat = le(&[full(4), 2, full(6)]);
    bat.resize(4096, 0);
    let mut old = le(&[0, 2]);
    old.resize(4096, 0);
    let first = LogEntry::new(7, 0, vec![(BAT, Some(old))]);
    let mut second =
        LogEntry::new(8, 0, vec![(BAT + 4096, None), (BAT, Some(bat)), (MIB * 5, None)]);
    second.last = 7 * MIB;
    Sample::new(3, &[4, 4, 4]).with(|s| {
        s.log = [first.bytes(), second.bytes()].concat();
        s.length = 5 * MIB;
    })
}

/// Block 0 lies before the BAT, block 1 behind it.
fn bat_at_the_end() -> Sample {
    let mut regions = region(BAT_REGION, 5 * MIB, 1 << 20, 1);
    regions.extend(region(METADATA_REGION, METADATA, 1 << 20, 1));
    Sample::new(2, &[]).with(|s| {
        s.regions = [vec![(16, regions.clone())], vec![(16, regions)]];
        s.raw.push((5 * MIB, le(&[full(4), full(6)])));
        s.length = 7 * MIB;
    })
}
