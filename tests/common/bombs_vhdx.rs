//! VHDX images for `bombs.rs`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{KIB, MIB};

const LOG_AT: u64 = MIB;
const METADATA_AT: u64 = 68 * MIB;
const BAT_AT: u64 = 69 * MIB;

/// A dynamic disk of `size` bytes in blocks of 1 MiB, with this log, and no block.
pub(super) fn vhdx(path: &Path, size: u64, log: &[u8]) -> io::Result<()> {
    let crc = |mut bytes: Vec<u8>| {
        let sum = crc32c::crc32c(&bytes);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    };
    let blocks = size / MIB;
    let bat = ((blocks + blocks / 4096) * 8).next_multiple_of(MIB);
    let mut header = vec![0; 4096];
    let mut put = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
    put(0, b"head");
    put(8, &1_u64.to_le_bytes());
    if !log.is_empty() {
        put(48, &LOG_GUID);
    }
    put(66, &1_u16.to_le_bytes());
    put(68, &u32::try_from(64 * MIB).unwrap_or(0).to_le_bytes());
    put(72, &LOG_AT.to_le_bytes());
    let mut regions = vec![0; 64 << 10];
    let mut put = |at: usize, value: &[u8]| regions[at..at + value.len()].copy_from_slice(value);
    put(0, b"regi");
    put(8, &2_u32.to_le_bytes());
    for (at, name, offset, length) in [
        (16, 0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08, BAT_AT, bat),
        (48, 0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e, METADATA_AT, MIB),
    ] {
        put(at, &guid(name));
        put(at + 16, &offset.to_le_bytes());
        put(at + 24, &u32::try_from(length).unwrap_or(0).to_le_bytes());
        put(at + 28, &1_u32.to_le_bytes());
    }
    let items: [(u128, u64, u32, u32); 5] = [
        (0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b, MIB, 8, 4),
        (0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8, size, 8, 6),
        (0xbeca_12ab_b2e6_4523_93ef_c309_e000_c746, 1, 16, 6),
        (0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f, 512, 4, 6),
        (0xcda3_48c7_445d_4471_9cc9_e988_5251_c556, 4096, 4, 6),
    ];
    let mut metadata = vec![0; 65 << 10];
    let mut put = |at: usize, value: &[u8]| metadata[at..at + value.len()].copy_from_slice(value);
    put(0, b"metadata");
    put(10, &5_u16.to_le_bytes());
    for (index, (name, value, length, flags)) in items.into_iter().enumerate() {
        let (slot, at) = (32 + index * 32, (64 << 10) + index * 16);
        put(slot, &guid(name));
        put(slot + 16, &u32::try_from(at).unwrap_or(0).to_le_bytes());
        put(slot + 20, &length.to_le_bytes());
        put(slot + 24, &flags.to_le_bytes());
        put(at, &value.to_le_bytes());
    }
    let file = File::create(path)?;
    file.set_len(BAT_AT + bat)?;
    let (header, regions) = (crc(header), crc(regions));
    for (at, bytes) in [
        (0, b"vhdxfile".as_slice()),
        (64 * KIB, &header),
        (128 * KIB, &header),
        (192 * KIB, &regions),
        (256 * KIB, &regions),
        (LOG_AT, log),
        (METADATA_AT, &metadata),
    ] {
        file.write_all_at(bytes, at)?;
    }
    Ok(())
}

const LOG_GUID: [u8; 16] = [7; 16];

/// One entry of as many updates as are allowed: every other 4 KiB behind the image become zeros.
pub(super) fn log() -> Vec<u8> {
    const UPDATES: u64 = 1 << 16;
    const SECTOR: u64 = 4096;
    let length = (64 + UPDATES * 32).next_multiple_of(SECTOR);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"loge");
    put(8, &u32::try_from(length).unwrap_or(0).to_le_bytes());
    put(16, &1_u64.to_le_bytes());
    put(24, &u32::try_from(UPDATES).unwrap_or(0).to_le_bytes());
    put(32, &LOG_GUID);
    for index in 0..UPDATES {
        let at = usize::try_from(64 + index * 32).unwrap_or(0);
        put(at, b"zero");
        put(at + 8, &SECTOR.to_le_bytes());
        put(at + 16, &(100 * MIB + index * 2 * SECTOR).to_le_bytes());
        put(at + 24, &1_u64.to_le_bytes());
    }
    let sum = crc32c::crc32c(&bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// A GUID as Microsoft stores it: the first three groups are little-endian.
fn guid(text: u128) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = text.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}
