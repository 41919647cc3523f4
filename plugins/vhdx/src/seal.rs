//! Checksums made right, for tests that alter images.

use instar_core::{MemoryStorage, read_padded};

use crate::disk::{
    HEADER_OFFSETS, HEADER_SIGNATURE, HEADER_SIZE, Header, REGION_TABLE_OFFSETS,
    REGION_TABLE_SIGNATURE, REGION_TABLE_SIZE, checksum,
};
use crate::log::{ENTRY_SIGNATURE, LOG_SECTOR, LOG_SECTOR_SIZE};

/// Longest log, and longest entry of one, whose checksums are made right.
const MAX_LOG: u64 = 16 << 20;
const MAX_ENTRY: u64 = 1 << 20;

/// Makes the checksums right: of both headers, both region tables, and of what starts as an entry
/// in the logs that the headers name.
pub(crate) fn seal(image: &mut MemoryStorage) {
    for at in REGION_TABLE_OFFSETS {
        seal_structure(image, at, REGION_TABLE_SIZE, REGION_TABLE_SIGNATURE);
    }
    for at in HEADER_OFFSETS {
        let bytes = seal_structure(image, at, HEADER_SIZE, HEADER_SIGNATURE);
        if let Ok(Some(header)) = Header::decode(at, &bytes) {
            seal_log(image, &header);
        }
    }
}

/// Makes the checksum of a structure right if its signature is there; returns its bytes.
fn seal_structure(
    image: &mut MemoryStorage,
    at: u64,
    length: usize,
    signature: &[u8; 4],
) -> Vec<u8> {
    let mut bytes = read(image, at, length);
    if bytes.starts_with(signature) {
        let sum = checksum(&bytes).to_le_bytes();
        image.patch(at.saturating_add(4), &sum);
        bytes.splice(4..8, sum);
    }
    bytes
}

/// Makes the checksums of a log's entries right. The log is a ring: an entry at its end goes on at
/// its start.
fn seal_log(image: &mut MemoryStorage, header: &Header) {
    let length = u64::from(header.log_length).min(MAX_LOG);
    let log_start = header.log_offset;
    // What is a hole holds no entry.
    let starts: Vec<u64> = image
        .pieces()
        .flat_map(|(at, piece)| {
            let end = at.saturating_add(piece.len() as u64);
            let first = at.max(log_start).saturating_sub(log_start).next_multiple_of(LOG_SECTOR);
            let last = end.saturating_sub(log_start).min(length);
            (first..last).step_by(LOG_SECTOR_SIZE)
        })
        .collect();
    for start in starts {
        let at = log_start.saturating_add(start);
        let first = read(image, at, 16);
        if !first.starts_with(ENTRY_SIGNATURE) {
            continue;
        }
        let stated = first.get(8..).and_then(|rest| rest.first_chunk::<4>());
        let size = u64::from(stated.map_or(0, |bytes| u32::from_le_bytes(*bytes)));
        if size % LOG_SECTOR != 0 || size > MAX_ENTRY.min(length) {
            continue;
        }
        let mut entry = Vec::new();
        for skip in (0..size).step_by(LOG_SECTOR_SIZE) {
            let sector = start.saturating_add(skip) % length.max(1);
            entry.extend(read(image, log_start.saturating_add(sector), LOG_SECTOR_SIZE));
        }
        image.patch(at.saturating_add(4), &checksum(&entry).to_le_bytes());
    }
}

fn read(image: &MemoryStorage, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // Memory is always read.
    let _ = read_padded(image, at, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use instar_core::MemoryStorage;
    use instar_core::testkit;
    use pretty_assertions::assert_eq;

    use crate::disk::{HEADER_OFFSETS, REGION_TABLE_OFFSETS};
    use crate::samples::{LOG, sound};

    /// The seal puts back exactly the checksums that a sound image has.
    #[test]
    fn wiped_checksums_come_back() {
        let mut entries = 0;
        for (name, sample, _) in sound() {
            let whole = sample.bytes();
            let mut image = MemoryStorage::from_bytes(whole.clone());
            for at in HEADER_OFFSETS.into_iter().chain(REGION_TABLE_OFFSETS) {
                image.patch(at + 4, b"????");
            }
            for sector in (LOG..LOG + (1 << 20)).step_by(4096) {
                let at = usize::try_from(sector).unwrap();
                if whole[at..].starts_with(b"loge") {
                    image.patch(sector + 4, b"????");
                    entries += 1;
                }
            }
            testkit::seal("vhdx", &mut image);
            let sealed: Vec<_> = image.pieces().collect();
            assert!(sealed == [(0, whole.as_slice())], "{name}");
        }
        assert_eq!(entries, 2);
    }
}
