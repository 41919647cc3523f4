//! What the format makes of the samples.

use std::path::{Path, PathBuf};

use instar_core::testkit::{check_format, data, extents, open, probe};
use instar_core::{Confidence, MemoryStorage, Result, Status};
use pretty_assertions::assert_eq;

use crate::Foo;
use crate::samples::{BLOCK, BLOCKS, all, mixed, overlay, seal};

fn map(bytes: Vec<u8>) -> Result<Vec<(u64, Status)>> {
    extents(open(&Foo, MemoryStorage::from_bytes(bytes))?.as_mut())
}

#[test]
fn each_kind_of_entry_has_its_status() {
    assert_eq!(
        map(mixed()).unwrap(),
        [
            (BLOCK, data(BLOCKS)),
            (BLOCK, Status::Zero),
            (2 * BLOCK, Status::Absent),
            (BLOCK, Status::Compressed),
            (BLOCK, data(BLOCKS + BLOCK)),
        ]
    );
}

#[test]
fn every_law_holds() {
    let checked = check_format(&Foo, &all());
    assert_eq!(checked.samples, 4);
}

#[test]
fn magic_and_checksum_are_probed() {
    let answer = |bytes: Vec<u8>| probe(&Foo, &MemoryStorage::from_bytes(bytes));
    let mut damaged = mixed();
    damaged[16] += 1;
    assert_eq!(answer(mixed()), Confidence::Verified);
    assert_eq!(answer(damaged), Confidence::Magic);
    assert_eq!(answer(vec![]), Confidence::No);
    assert_eq!(answer(vec![0; 4096]), Confidence::No);
}

#[test]
fn the_backing_file_is_reported() {
    let source = open(&Foo, MemoryStorage::from_bytes(overlay())).unwrap();
    assert_eq!(source.backing().unwrap().names, ["sample.foo"]);
    let source = open(&Foo, MemoryStorage::from_bytes(mixed())).unwrap();
    assert!(source.backing().is_none());
}

#[test]
fn each_refusal_names_field_and_value() {
    let with = |at: usize, value: u8| {
        let mut bytes = mixed();
        bytes[at] = value;
        seal(&mut bytes);
        bytes
    };
    let mut checksum = mixed();
    checksum[8] ^= 1;
    let cases = [
        (with(7, b'2'), "the magic is [46, 4f, 4f, 44, 49, 53, 4b, 32]"),
        (checksum, "add up to"),
        (with(12, 25), "block_bits is 25, allowed are 9 to 24 (at file offset 0xc)"),
        (with(16, 1), "the disk size is 3073, which"),
        (with(33, 1), "name has 256 bytes, at most 255"),
        (with(20, 1), "outside the file of 2048 bytes (at file offset 0x18)"),
        (with(25, 8), "the table (48 bytes at 0x800) is outside"),
        (with(520, 5), "the entry of block 1 is 0x5, where"),
    ];
    for (bytes, text) in &cases {
        let message = map(bytes.clone()).unwrap_err().to_string();
        assert!(message.contains(text), "{message:?} should contain {text:?}");
    }
    assert_eq!(cases.len(), 8);
}

/// The shipped files, and what builds them. After a change to the format:
/// `cargo test -p instar-plugin-foo -- --ignored`
fn shipped() -> [(PathBuf, Vec<u8>); 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    [(folder.join("sample.foo"), mixed()), (folder.join("overlay.foo"), overlay())]
}

#[test]
fn the_shipped_files_are_as_they_are_built() {
    for (path, bytes) in shipped() {
        assert_eq!(std::fs::read(path).unwrap(), bytes);
    }
}

#[test]
#[ignore = "writes the files"]
fn write_the_files() {
    for (path, bytes) in shipped() {
        std::fs::write(path, bytes).unwrap();
    }
}
