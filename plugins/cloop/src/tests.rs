//! The plugin as a whole: what opens, what does not, and what is mapped.

use instar_core::testkit::{self, check_format, extents, open, probe};
use instar_core::{Confidence, ErrorKind, MemoryStorage, Status};
use pretty_assertions::assert_eq;

use crate::Cloop;
use crate::samples::{self, PREAMBLE, image, sample, with_offsets};

fn map(bytes: Vec<u8>) -> Vec<(u64, Status)> {
    extents(open(&Cloop, MemoryStorage::from_bytes(bytes)).unwrap().as_mut()).unwrap()
}

/// The refusal, with its kind.
fn refusal(bytes: Vec<u8>) -> (ErrorKind, String) {
    testkit::refusal(&Cloop, MemoryStorage::from_bytes(bytes))
}

/// The warnings of opening and mapping `bytes`.
fn warnings(bytes: Vec<u8>) -> Vec<String> {
    testkit::warnings(&Cloop, MemoryStorage::from_bytes(bytes))
}

/// `bytes` with `piece` at `at`.
fn patched(mut bytes: Vec<u8>, at: usize, piece: &[u8]) -> Vec<u8> {
    bytes[at..at + piece.len()].copy_from_slice(piece);
    bytes
}

#[test]
fn a_disk_is_one_extent() {
    assert_eq!(map(sample()), [(3 * 65536, Status::Opaque)]);
    assert_eq!(map(image(512, &[])), []);
    assert_eq!(map(image(1536, &[9; 1000])), [(1_536_000, Status::Opaque)]);
    // More blocks than one window of the table has.
    assert_eq!(map(image(64 << 20, &[0; 300_000])), [(300_000 << 26, Status::Opaque)]);
    // Other commands, or no script at all: the driver goes by four letters.
    let other = patched(sample(), 23, b"exec /usr/bin/true $0 || exit 1\n");
    assert_eq!(map(other), [(3 * 65536, Status::Opaque)]);
    assert_eq!(map(patched(sample(), 0, &[0; 11])), [(3 * 65536, Status::Opaque)]);
}

#[test]
fn laws_hold_for_every_sample() {
    assert_eq!(check_format(&Cloop, &samples::all()).samples, 4);
}

#[test]
fn each_refusal_names_field_and_value() {
    let be = |number: u32| number.to_be_bytes();
    let mut cut = sample();
    cut.truncate(136 + 8 * 4 - 1);
    let mut late = vec![1 << 20; 200_001];
    late[200_000] = (1 << 20) - 1;
    for (bytes, kind, text) in [
        (
            Vec::new(),
            ErrorKind::WrongFormat,
            "cloop: header is cut short: the file has 0 bytes, at least 15 are needed (at file \
             offset 0x0)",
        ),
        (
            patched(sample(), 14, b"1"),
            ErrorKind::WrongFormat,
            "cloop: no preamble: 'V2.0' is not at byte 11 of the file (at file offset 0xb)",
        ),
        (
            patched(sample(), 12, b"4"),
            ErrorKind::Unsupported,
            "cloop: the format is V4.0, only V2.0 is supported (at file offset 0xb)",
        ),
        (
            patched(sample(), 128, &be(513)),
            ErrorKind::Corrupt,
            "cloop: block size is 513, expected a multiple of 512 from 512 to 67108864 \
             (at file offset 0x80)",
        ),
        (
            patched(sample(), 128, &be(0)),
            ErrorKind::Corrupt,
            "cloop: block size is 0, expected a multiple of 512 from 512 to 67108864 \
             (at file offset 0x80)",
        ),
        (
            patched(sample(), 128, &be((64 << 20) + 512)),
            ErrorKind::Corrupt,
            "cloop: block size is 67109376, expected a multiple of 512 from 512 to 67108864 \
             (at file offset 0x80)",
        ),
        (
            patched(sample(), 132, &be(1 << 26)),
            ErrorKind::Limit,
            "cloop: number of blocks is 67108864, at most 67108863 are allowed \
             (at file offset 0x84)",
        ),
        (
            patched(sample(), 132, &be((1 << 26) - 1)),
            ErrorKind::Corrupt,
            "cloop: table of offsets (67108864 entries at 0x88) is outside the file of 958 bytes \
             (at file offset 0x88)",
        ),
        (
            cut,
            ErrorKind::Corrupt,
            "cloop: table of offsets (4 entries at 0x88) is outside the file of 167 bytes \
             (at file offset 0x88)",
        ),
        (
            with_offsets(512, &[200, 199]),
            ErrorKind::Corrupt,
            "cloop: offset 1 is 0xc7, less than the one before it, 0xc8 (at file offset 0x90)",
        ),
        (
            with_offsets(512, &late),
            ErrorKind::Corrupt,
            "cloop: offset 200000 is 0xfffff, less than the one before it, 0x100000 \
             (at file offset 0x186a88)",
        ),
        (
            with_offsets(512, &[200, 300, 301 + (128 << 20)]),
            ErrorKind::Corrupt,
            "cloop: compressed block 1 has 134217729 bytes, at most 134217728 are allowed \
             (at file offset 0x98)",
        ),
        (
            with_offsets(512, &[0, u64::MAX]),
            ErrorKind::Corrupt,
            "cloop: compressed block 0 has 18446744073709551615 bytes, at most 134217728 are \
             allowed (at file offset 0x90)",
        ),
    ] {
        assert_eq!(refusal(bytes), (kind, text.to_owned()));
    }
}

/// A table in a hole is not read: it is zeros, whatever its size.
#[test]
fn a_table_that_is_a_hole() {
    let with_blocks = |blocks: u32, last: Option<u64>| {
        let mut head = sample();
        head.truncate(136);
        head[132..].copy_from_slice(&blocks.to_be_bytes());
        let table = 136 + 8 * (u64::from(blocks) + 1);
        let mut storage = MemoryStorage::new(table).with_data(0, head);
        if let Some(last) = last {
            storage = storage.with_data(table - 8, last.to_be_bytes());
        }
        storage
    };
    let most = (1 << 26) - 1;
    let size = |blocks: u32| u64::from(blocks) << 16;
    for last in [None, Some(0), Some(1 << 27)] {
        let mut source = open(&Cloop, with_blocks(most, last)).unwrap();
        assert_eq!(extents(source.as_mut()).unwrap(), [(size(most), Status::Opaque)]);
    }
    let error = open(&Cloop, with_blocks(most, Some((1 << 27) + 1))).err().unwrap();
    assert!(error.to_string().contains("compressed block 67108862 has 134217729 bytes"), "{error}");
    // Zeros behind an offset that is not.
    let mut head = with_offsets(512, &[200]);
    head[132..136].copy_from_slice(&70_000_u32.to_be_bytes());
    let storage = MemoryStorage::new(136 + 8 * 70_001).with_data(0, head);
    let error = open(&Cloop, storage).err().unwrap().to_string();
    assert!(error.contains("offset 1 is 0x0, less than the one before it, 0xc8"), "{error}");
}

#[test]
fn blocks_outside_the_file_are_warned_about() {
    assert_eq!(warnings(sample()), [""; 0]);
    let mut cut = sample();
    cut.pop();
    let line = "the last compressed block ends at 0x3be, behind the end of the file of 957 bytes";
    assert_eq!(warnings(cut), [line]);
    // The offsets themselves may be anything, as long as they go up.
    assert_eq!(warnings(with_offsets(512, &[u64::MAX, u64::MAX])).len(), 1);
    assert_eq!(warnings(with_offsets(512, &[0, 0, 0])), [""; 0]);
}

#[test]
fn probing() {
    let answer = |bytes: Vec<u8>| probe(&Cloop, &MemoryStorage::from_bytes(bytes));
    assert_eq!(answer(sample()), Confidence::Verified);
    assert_eq!(answer(patched(sample(), 23, b"true")), Confidence::Verified);
    assert_eq!(answer(PREAMBLE.to_vec()), Confidence::Magic);
    assert_eq!(answer(sample()[..136].to_vec()), Confidence::Verified);
    assert_eq!(answer(sample()[..135].to_vec()), Confidence::Magic);
    let uzip = b"#!/bin/sh\n#V2.0 Format\n(kldstat -m g_uzip||kldload geom_uzip)>&-&&mount\n";
    assert_eq!(answer(patched(sample(), 0, uzip)), Confidence::No);
    assert_eq!(answer(patched(sample(), 150, b"geom_uzip")), Confidence::Verified);
    assert_eq!(answer(patched(sample(), 12, b"4")), Confidence::Magic);
    assert_eq!(answer(patched(sample(), 12, b"1")), Confidence::No);
    assert_eq!(answer(patched(sample(), 16, b"f")), Confidence::No);
    assert_eq!(answer(patched(sample(), 0, b"%")), Confidence::No);
    assert_eq!(answer(b"#!/bin/sh\n".to_vec()), Confidence::No);
    assert_eq!(answer(Vec::new()), Confidence::No);
}
