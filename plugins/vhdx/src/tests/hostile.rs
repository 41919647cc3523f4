//! Damaged images: an answer or an error, never a panic or a walk without end.

use instar_core::testkit::{Random, check_hostile, open};
use instar_core::{Batch, MemoryStorage};

use crate::Vhdx;
use crate::disk::MIB;
use crate::samples::{BAT, LOG, METADATA, seal, sound};

#[test]
fn damaged_images_are_mapped_or_refused() {
    let mut tried = 0;
    for (_, sample, _) in sound() {
        tried += check_hostile(&Vhdx, &sample.bytes(), 60);
    }
    assert!(tried > 15 * 60);
}

/// Damage where it is not caught by a checksum: in the structures, which are then sealed again.
#[test]
fn damaged_and_sealed_images_are_mapped_or_refused() {
    let mut random = Random::new(11);
    let (mut opened, mut refused) = (0, 0);
    for (name, sample, _) in sound() {
        if sample.length > 16 * MIB {
            continue;
        }
        let bytes = sample.bytes();
        for round in 0..1200 {
            match damage(bytes.clone(), &mut random) {
                true => opened += 1,
                false => refused += 1,
            }
            assert!(opened + refused > 0, "{name}: {round}");
        }
    }
    assert!(opened > 2000 && refused > 2000, "{opened} {refused}");
}

/// Changes a few bytes of the structures, makes their checksums right, and maps the image as far
/// as it goes. Returns whether it could be opened.
fn damage(mut bytes: Vec<u8>, random: &mut Random) -> bool {
    let at = |offset: u64| usize::try_from(offset).unwrap();
    let log_entries = usize::from(bytes[at(LOG)] != 0) * 2;
    for _ in 0..=random.below(3) {
        let (start, length) = match random.below(8 + log_entries) {
            0 => ((64 << 10) + 8, 72),
            1 => ((128 << 10) + 8, 72),
            2 => ((192 << 10) + 8, 80),
            3 => (at(METADATA), 32 * 7),
            4 => (at(METADATA) + 65536, 400),
            5 | 6 => (at(BAT), 80),
            7 => (at(BAT) + 4096 * 8, 8),
            _ => (at(LOG), 5 * 4096),
        };
        let target = start + random.below(length);
        let Some(byte) = bytes.get_mut(target) else { continue };
        *byte = match random.below(4) {
            0 => 0,
            1 => 0xff,
            2 => *byte ^ (1 << random.below(8)),
            _ => random.next().to_le_bytes()[0],
        };
    }
    for (start, length) in [(64 << 10, 4096), (128 << 10, 4096), (192 << 10, 65536)] {
        seal(&mut bytes[start..start + length]);
    }
    if log_entries > 0 {
        seal(&mut bytes[at(LOG)..at(LOG) + 2 * 4096]);
        seal(&mut bytes[at(LOG) + 2 * 4096..at(LOG) + 4 * 4096]);
    }
    let Ok(mut source) = open(&Vhdx, MemoryStorage::from_bytes(bytes)) else { return false };
    let size = source.virtual_size();
    let mut batch = Batch::default();
    let mut cursor = 0;
    for _ in 0..200 {
        batch.ask(cursor, size);
        if cursor >= size || source.extents(&mut batch).is_err() {
            break;
        }
        assert!(batch.cursor() > cursor, "progress at {cursor}");
        cursor = batch.cursor();
    }
    true
}
