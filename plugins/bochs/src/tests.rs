//! The plugin as a whole: what opens, what does not, and what is mapped.

use instar_core::testkit::{self, check_format, extents, open, probe};
use instar_core::{Confidence, ErrorKind, MemoryStorage, Status};
use pretty_assertions::assert_eq;

use crate::Bochs;
use crate::samples::{self, Disk, NONE, growing, put};

fn map(disk: &Disk) -> Vec<(u64, Status)> {
    let storage = MemoryStorage::from_bytes(disk.bytes());
    extents(open(&Bochs, storage).unwrap().as_mut()).unwrap()
}

/// The refusal, with its kind.
fn refusal(bytes: Vec<u8>) -> (ErrorKind, String) {
    testkit::refusal(&Bochs, MemoryStorage::from_bytes(bytes))
}

/// The warnings of opening and mapping `bytes`.
fn warnings(bytes: Vec<u8>) -> Vec<String> {
    testkit::warnings(&Bochs, MemoryStorage::from_bytes(bytes))
}

#[test]
fn a_disk_is_one_extent_whatever_is_stored() {
    let disk = growing();
    assert_eq!(map(&disk), [(4 * 4096 + 1024, Status::Opaque)]);
    assert_eq!(map(&Disk { version: 0x1_0000, ..disk.clone() }), map(&disk));
    assert_eq!(map(&Disk::new(512, &[NONE])), [(512, Status::Opaque)]);
    assert_eq!(map(&Disk::new(511, &[])), []);
    assert_eq!(map(&Disk::new(4096 + 513, &[0, NONE])), [(4096 + 512, Status::Opaque)]);
}

#[test]
fn laws_hold_for_every_sample() {
    assert_eq!(check_format(&Bochs, &samples::all()).samples, 4);
}

#[test]
fn each_refusal_names_field_and_value() {
    let sample = growing();
    let with = |change: fn(&mut Disk)| {
        let mut disk = sample.clone();
        change(&mut disk);
        disk.bytes()
    };
    let patched = |at: usize, piece: &[u8]| {
        let mut bytes = sample.bytes();
        put(&mut bytes, at, piece);
        bytes
    };
    let mut cut = sample.bytes();
    cut.truncate(512 + 4 * 6 - 1);
    for (bytes, kind, text) in [
        (
            Vec::new(),
            ErrorKind::WrongFormat,
            "bochs: the file does not start with 'Bochs Virtual HD Image' (at file offset 0x0)",
        ),
        (
            sample.bytes()[..22].to_vec(),
            ErrorKind::Corrupt,
            "bochs: header is cut short: the file has 22 bytes, at least 92 are needed (at file \
             offset 0x0)",
        ),
        (
            patched(22, b"s"),
            ErrorKind::WrongFormat,
            "bochs: the file does not start with 'Bochs Virtual HD Image' (at file offset 0x0)",
        ),
        (
            patched(32, b"Flat\0"),
            ErrorKind::Unsupported,
            "bochs: image type is \"Flat\", only \"Redolog\" is supported (at file offset 0x20)",
        ),
        (
            patched(48, b"Undoable\0"),
            ErrorKind::Unsupported,
            "bochs: image subtype is \"Undoable\", only \"Growing\" is supported \
             (at file offset 0x30)",
        ),
        (
            patched(48, b"Growing\x01in full\n"),
            ErrorKind::Unsupported,
            "bochs: image subtype is \"Growing\\u{1}in full\\n\", only \"Growing\" is supported \
             (at file offset 0x30)",
        ),
        (
            with(|disk| disk.version = 0x3_0000),
            ErrorKind::Unsupported,
            "bochs: version is 0x30000, supported are 0x10000 and 0x20000 (at file offset 0x40)",
        ),
        (
            with(|disk| disk.entries = Some(0x10_0001)),
            ErrorKind::Limit,
            "bochs: catalog has 1048577 entries, at most 1048576 are allowed \
             (at file offset 0x48)",
        ),
        (
            with(|disk| disk.extent = 256),
            ErrorKind::Corrupt,
            "bochs: extent size is 256, expected a power of two from 512 to 8388608 \
             (at file offset 0x50)",
        ),
        (
            with(|disk| disk.extent = 4097),
            ErrorKind::Corrupt,
            "bochs: extent size is 4097, expected a power of two from 512 to 8388608 \
             (at file offset 0x50)",
        ),
        (
            patched(80, &0x100_0000_u32.to_le_bytes()),
            ErrorKind::Corrupt,
            "bochs: extent size is 16777216, expected a power of two from 512 to 8388608 \
             (at file offset 0x50)",
        ),
        (
            with(|disk| disk.size = 6 * 4096 + 512),
            ErrorKind::Corrupt,
            "bochs: catalog has 6 entries, the disk needs 7 (at file offset 0x48)",
        ),
        (
            with(|disk| disk.size = u64::MAX),
            ErrorKind::Corrupt,
            "bochs: catalog has 6 entries, the disk needs 4503599627370496 (at file offset 0x48)",
        ),
        (
            cut,
            ErrorKind::Corrupt,
            "bochs: catalog (6 entries at 0x200) is outside the file of 535 bytes \
             (at file offset 0x200)",
        ),
        (
            patched(68, &u32::MAX.to_le_bytes()),
            ErrorKind::Corrupt,
            "bochs: catalog (6 entries at 0xffffffff) is outside the file of 9752 bytes \
             (at file offset 0xffffffff)",
        ),
    ] {
        assert_eq!(refusal(bytes), (kind, text.to_owned()));
    }
}

#[test]
fn extents_outside_the_file_are_warned_about() {
    let disk = growing();
    assert_eq!(warnings(disk.bytes()), [""; 0]);
    let mut cut = disk.bytes();
    cut.pop();
    assert_eq!(
        warnings(cut),
        ["extent 1 (catalog entry 0x1) ends at 0x2618, behind the end of the file of 9751 bytes"]
    );
    let mut far = disk.clone();
    far.catalog[2] = NONE - 1;
    assert_eq!(
        warnings(far.bytes()),
        ["extent 2 (catalog entry 0xfffffffe) ends at 0x11fffffff018, behind the end of the file \
          of 9752 bytes"]
    );
    // Behind the end of the disk: of no concern.
    let mut spare = disk.clone();
    spare.catalog[5] = 77;
    spare.stored = 2;
    assert_eq!(warnings(spare.bytes()), [""; 0]);
    // In the second window of the catalog.
    let mut long = Disk::new(70_000 * 512, &[NONE; 70_000]);
    long.extent = 512;
    long.catalog[69_999] = 9;
    long.stored = 0;
    assert_eq!(warnings(long.bytes()).len(), 1);
    long.catalog[69_999] = NONE;
    assert_eq!(warnings(long.bytes()), [""; 0]);
}

#[test]
fn probing() {
    let answer = |bytes: Vec<u8>| probe(&Bochs, &MemoryStorage::from_bytes(bytes));
    let bytes = growing().bytes();
    assert_eq!(answer(bytes.clone()), Confidence::Verified);
    assert_eq!(answer(bytes[..20].to_vec()), Confidence::No);
    assert_eq!(answer(bytes[..22].to_vec()), Confidence::Magic);
    assert_eq!(answer(bytes[..96].to_vec()), Confidence::Verified);
    assert_eq!(answer(bytes[..87].to_vec()), Confidence::Magic);
    let mut other = bytes.clone();
    put(&mut other, 48, b"Volatile\0");
    assert_eq!(answer(other), Confidence::Magic);
    let mut other = bytes;
    put(&mut other, 0, b"b");
    assert_eq!(answer(other), Confidence::No);
    assert_eq!(answer(Vec::new()), Confidence::No);
}
