//! What the format makes of the samples, and what it refuses.

use std::sync::Arc;

use instar_core::testkit::{
    self, Meter, check_format, check_holes, check_hostile, check_source, context, data, extents,
    open, open_storage, open_with, probe,
};
use instar_core::{Confidence, Context, Error, ErrorKind, MemoryStorage, Place, Result, Status};
use pretty_assertions::assert_eq;

use crate::Qcow2;
use crate::samples::*;

fn map(builder: &Builder) -> Result<Vec<(u64, Status)>> {
    extents(open(&Qcow2, builder.storage())?.as_mut())
}

#[test]
fn the_statuses_of_a_mixed_image() {
    assert_eq!(
        map(&mixed()).unwrap(),
        [
            (K64, data(16 * K64)),
            (K64, Status::Zero),
            (K64, Status::ZeroAt(Place::at(17 * K64))),
            (K64, Status::Absent),
            (2 * K64, Status::Compressed),
            (3 * K64, data(20 * K64)),
            (K64, data(30 * K64)),
        ]
    );
}

/// What is warned about while an image is opened and mapped, and the map.
fn warned(bytes: Vec<u8>) -> (Vec<String>, Vec<(u64, Status)>) {
    let (context, heard) = testkit::listening(Context::default());
    let mut source = open_with(&Qcow2, MemoryStorage::from_bytes(bytes), &context).unwrap();
    let map = extents(source.as_mut()).unwrap();
    (heard.take(), map)
}

#[test]
fn probing() {
    use Confidence::{Magic, No, Verified};
    let bytes = mixed().bytes();
    let patched = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        bytes
    };
    let version_2 = patched(7, 2);
    for (bytes, confidence) in [
        (Vec::new(), No),
        (vec![0; 5000], No),
        (bytes.clone(), Verified),
        (patched(0, b'q'), No),
        (patched(7, 0), No),
        (patched(7, 1), No),
        (patched(7, 4), Magic),
        (patched(23, 8), Magic),
        (patched(23, 22), Magic),
        // A header that the file ends in is not made up.
        (bytes[..104].to_vec(), Verified),
        (bytes[..103].to_vec(), Magic),
        (version_2[..72].to_vec(), Verified),
        (version_2[..71].to_vec(), Magic),
        (bytes[..23].to_vec(), Magic),
        (bytes[..8].to_vec(), Magic),
        (bytes[..7].to_vec(), Magic),
        (bytes[..4].to_vec(), Magic),
        (bytes[..3].to_vec(), No),
    ] {
        let length = bytes.len();
        assert_eq!(probe(&Qcow2, &MemoryStorage::from_bytes(bytes)), confidence, "{length} bytes");
    }
}

#[test]
fn structures_in_one_place_are_warned_about() {
    let none = [] as [&str; 0];
    assert_eq!(warned(mixed().bytes()).0, none);
    assert_eq!(warned(small_clusters().bytes()).0, none);
    let at = |clusters: u64| (clusters * K64).to_be_bytes();
    for (field, offset, warning) in [
        (48, 1, "the L1 table at 0x10000 and the refcount table at 0x10000 overlap"),
        (48, 0, "the header at 0x0 and the refcount table at 0x0 overlap"),
        (40, 2, "the L1 table at 0x20000 and the refcount table at 0x20000 overlap"),
    ] {
        let empty = Builder::new(16, 10 * K64).with(field, &at(offset));
        assert_eq!(warned(empty.bytes()).0, [warning], "{field}");
    }
    let snapshot = Builder::new(16, 10 * K64).with(60, &1_u32.to_be_bytes()).with(64, &at(2));
    assert_eq!(
        warned(snapshot.bytes()).0,
        ["the refcount table at 0x20000 and the snapshot table at 0x20000 overlap"]
    );
    let table = Builder::new(16, 10 * K64).l1_entry(2 * K64);
    assert_eq!(
        warned(table.bytes()).0,
        ["the L2 table at L1 index 0 lies at 0x20000, in the refcount table at 0x20000"]
    );
}

/// No byte of the disk is in the clusters of entries past its end, in either table.
#[test]
fn spare_entries_are_not_examined() {
    for (image, words) in [(mixed(), 10), (extended(), 16)] {
        let expected = map(&image).unwrap();
        for word in [1, 512, 513, !0, 0x0001_0001_0001_0001, COMPRESSED | 5, 1 << 63 | 40 << 50] {
            let mut image = image.clone();
            assert_eq!((image.l1.len(), image.l2.len(), image.l2[0].len()), (1, 1, words));
            image.l2[0].resize(8192, word);
            image.l1.resize(8192, word);
            let image = image.with(36, &8192_u32.to_be_bytes());
            let mut source = open_with(&Qcow2, image.storage(), &testkit::strict()).unwrap();
            assert_eq!(extents(source.as_mut()).unwrap(), expected, "{words} words, {word:#x}");
        }
    }
}

/// An L1 entry has flags, which are not of the place.
#[test]
fn a_slow_storage_is_told_of_the_next_tables() {
    let table = 8192 * K64;
    let image = Builder::new(16, 4 * table).table(&[0]).l1_entry(1 << 63).table(&[ZERO]);
    let meter = Arc::new(Meter::new(Arc::new(image.storage()), u64::MAX));
    meter.set_slow(true);
    let mut source = open_storage(&Qcow2, meter.clone(), &context()).unwrap();
    extents(source.as_mut()).unwrap();
    assert_eq!(meter.take_announced(), [(3 * K64, K64), (4 * K64, K64)]);
}

/// Its entries, of which there may be a million, were once told of one by one.
#[test]
fn a_refcount_table_outside_the_file_is_told_of_once_and_mapped() {
    for (offset, clusters) in [(1_u64 << 61, 128_u32), ((1 << 60) - K64, 128), (1 << 61, 1)] {
        let image = Builder::new(16, 10 * K64)
            .table(&[0, ZERO])
            .with(48, &offset.to_be_bytes())
            .with(56, &clusters.to_be_bytes());
        let storage = MemoryStorage::new(1 << 60).with_data(0, image.bytes());
        let text = format!("the refcount table at {offset:#x} is outside the file");
        assert_eq!(testkit::warnings(&Qcow2, storage), [text]);
    }
}

#[test]
fn a_table_that_is_named_many_times_is_noticed_and_mapped() {
    for words in [vec![0; 64], vec![ZERO; 64], vec![COMPRESSED; 64], vec![512 * 20, 0, ZERO]] {
        let count = 40;
        let mut builder = Builder::new(9, count * 32_768).table(&words);
        builder.clusters = 32;
        for _ in 1..count {
            let entry = builder.l1[0];
            builder = builder.l1_entry(entry);
        }
        let bytes = builder.bytes();
        let (warnings, map) = warned(bytes.clone());
        let text =
            "more L2 tables are named than the file has room for, 32: some of them many times";
        assert_eq!(warnings, [text], "{words:?}");
        let uniform = words.iter().all(|word| *word == words[0]);
        assert_eq!(map.len(), if uniform { 1 } else { 4 * 40 }, "{words:?}");
        assert_eq!(map.iter().map(|(length, _)| length).sum::<u64>(), count * 32_768);
        check_source(|| open(&Qcow2, MemoryStorage::from_bytes(bytes.clone())));
    }
}

#[test]
fn the_statuses_of_extended_entries() {
    let sub = K64 / 32;
    let absent = |at| Status::AbsentAt(Place::at(at));
    let base = 16 * K64;
    assert_eq!(
        map(&extended()).unwrap(),
        [
            (5 * sub, absent(base)),
            (3 * sub, data(base + 5 * sub)),
            (12 * sub, absent(base + 8 * sub)),
            (2 * sub, Status::ZeroAt(Place::at(base + 20 * sub))),
            (10 * sub, absent(base + 22 * sub)),
            (K64, Status::Absent),
            (4 * sub, Status::Zero),
            (28 * sub, Status::Absent),
            (K64, Status::Zero),
            (2 * K64 - sub, data(20 * K64)),
            (sub, absent(22 * K64 - sub)),
            (K64, Status::Compressed),
            (K64, absent(22 * K64)),
        ]
    );
}

#[test]
fn small_clusters_and_absent_tables() {
    let map = map(&small_clusters()).unwrap();
    assert_eq!(map.len(), 64 + 2 + 1);
    assert_eq!(map[63], (512 + 2 * 32768, Status::Absent));
    assert_eq!(map[64], (32768, data(512 * 150)));
    assert_eq!(map[65], (32768, Status::Zero));
    assert_eq!(map[66], (32768, Status::Absent));
}

/// The bits behind the offset mean nothing, but once a carry out of it went on with a run.
#[test]
fn a_run_ends_with_the_last_offset() {
    let last = (1 << 56) - K64;
    let builder = Builder::new(16, 4 * K64).table(&[last - K64, last, 1 << 56, K64 | 1 << 56]);
    let expected = [(2 * K64, data(last - K64)), (K64, Status::Absent), (K64, data(K64))];
    assert_eq!(map(&builder).unwrap(), expected);
}

#[test]
fn laws() {
    assert_eq!(check_format(&Qcow2, &all()).samples, 5);
}

#[test]
fn damaged_images_never_panic() {
    for sample in [mixed(), extended(), small_clusters()] {
        assert!(check_hostile(&Qcow2, &sample.bytes(), 2000) > 2000);
    }
}

#[test]
fn holes_of_the_host_show_when_only_metadata_looks_preallocated() {
    // All refcounts are 1, and next to nothing is allocated.
    let refcounts = |builder: Builder| {
        let mut bytes = builder.bytes();
        let table = 2 * 65536;
        let block = 8 * 65536_usize;
        bytes[table..table + 8].copy_from_slice(&(block as u64).to_be_bytes());
        for entry in bytes[block..block + 65536].chunks_exact_mut(2) {
            entry.copy_from_slice(&[0, 1]);
        }
        MemoryStorage::from_bytes(bytes)
    };
    let kind = |allocated: u64| {
        let storage = refcounts(mixed()).with_allocated(allocated);
        extents(open(&Qcow2, storage).unwrap().as_mut()).unwrap()[0].1
    };
    let place = Place::at(16 * K64);
    // 64 clusters in use: 57 allocated ask for 63, 58 for 64, 59 for 65.
    assert_eq!(kind(10 * K64), Status::DataOverHoles(place));
    assert_eq!(kind(58 * K64), Status::DataOverHoles(place));
    assert_eq!(kind(59 * K64), Status::Data(place));
}

fn refused(builder: &Builder) -> String {
    refusal(builder).to_string()
}

fn refusal(builder: &Builder) -> Error {
    map(builder).expect_err("the image is refused")
}

#[test]
fn each_refusal_names_field_and_value() {
    let plain = || Builder::new(16, 4 * K64).table(&[]);
    let be32 = u32::to_be_bytes;
    let be64 = u64::to_be_bytes;
    let extension = |kind: u32, length: u32, data: &[u8]| {
        plain().with(104, &be32(kind)).with(108, &be32(length)).with(112, data)
    };
    let cases: Vec<(Builder, &str)> = vec![
        (plain().with(0, b"QFI0"), "the magic is [51, 46, 49, 30]"),
        (
            plain().with(4, &be32(4)),
            "version 4 is not supported, only 2 and 3 are (at file offset 0x4)",
        ),
        (
            plain().with(20, &be32(22)),
            "cluster_bits is 22, allowed are 9 to 21 (at file offset 0x14)",
        ),
        (plain().with(100, &be32(96)), "header_length is 96, version 3 has at least 104"),
        (plain().with(100, &be32(65537)), "header_length is 65537, more than a cluster of 65536"),
        (
            plain().with(8, &be64(65537)),
            "backing file name lies at 0x10001, outside the first cluster",
        ),
        (
            plain().with(8, &be64(512)).with(16, &be32(1024)),
            "name has 1024 bytes, at most 1023 are",
        ),
        (plain().with(100, &be32(112)).with(104, &[2]), "compression type 2 is unknown"),
        (
            plain().with(100, &be32(112)).with(104, &[1]),
            "type is 1, but incompatible feature bit 3 (compression type) is clear",
        ),
        (
            plain().with(72, &be64(8)),
            "type is 0, but incompatible feature bit 3 (compression type) is set",
        ),
        (plain().with(72, &be64(0x60)), "features are not supported: unknown feature bits 0x60"),
        (Builder::new(13, 8192).extended(), "clusters of at least 16384 bytes, not 8192"),
        (plain().with(96, &be32(7)), "refcount_order is 7"),
        (plain().with(56, &be32(0)), "refcount_table_clusters is 0"),
        (plain().with(56, &be32(129)), "the refcount table has 8454144 bytes, at most 8388608 are"),
        (plain().with(48, &be64(512)), "the refcount table lies at 0x200, which is no multiple"),
        (
            plain().with(48, &be64(i64::MAX as u64 - 0xffff)),
            "the refcount table lies at 0x7fffffffffff0000, and so ends above 2^63 - 1",
        ),
        (plain().with(60, &be32(65537)), "the snapshot table has 65537 entries"),
        (plain().with(64, &be64(1)), "the snapshot table lies at 0x1,"),
        (plain().with(36, &be32(4 << 20 | 1)), "the L1 table has 4194305 entries, at most 4194304"),
        (plain().with(40, &be64(100)), "the L1 table lies at 0x64,"),
        (
            plain().with(40, &be64(1 << 40)),
            "the L1 table (8 bytes at 0x10000000000) is outside the file of 4194304 bytes",
        ),
        (
            plain().with(24, &be64(u64::MAX)).with(36, &be32(1)),
            "the virtual size is 18446744073709551615 bytes",
        ),
        (
            plain().with(24, &be64(1 << 40)).with(36, &be32(1)),
            "L1 table has 1 entries, a disk of 1099511627776 bytes needs 2048",
        ),
        (plain().with(32, &be32(3)), "crypt_method is 3"),
        (plain().with(32, &be32(2)), "there is no encryption header extension"),
        (plain().with(72, &be64(4)), "no external data file is named"),
        (plain().with(88, &be64(2)), "autoclear bit 1 (raw data file) is set without"),
        (
            extension(0xe279_2aca, 16, &[b'x'; 16]),
            "backing file format name has 16 bytes, at most 15",
        ),
        (extension(1, 65536, &[]), "type 0x00000001 has 65536 bytes, only 65424 are left"),
        (extension(0x0537_be77, 16, &[]), "only allowed with crypt_method 2, not 0"),
        (extension(0x2385_2875, 8, &[]), "bitmaps extension: the length is 8, not 24"),
        (
            plain().with(60, &be32(1)).with(64, &be64(1 << 30)),
            "snapshot table (40 bytes at 0x40000000) is outside the file",
        ),
        (Builder::new(16, 4 * K64).l1_entry(0x30200), "L2 table at L1 index 0 lies at 0x30200"),
        (
            Builder::new(16, 4 * K64).l1_entry(1 << 40),
            "L2 table (32 bytes at 0x10000000000) is outside the file",
        ),
    ];

    for (builder, text) in &cases {
        let message = refused(builder);
        assert!(message.contains(text), "{message:?} should contain {text:?}");
    }
    assert_eq!(cases.len(), 35);
}

#[test]
fn a_named_unknown_feature_is_refused_by_name() {
    let mut entry = [0; 96];
    entry[..12].copy_from_slice(b"\0\x06my feature");
    entry[48..56].copy_from_slice(b"\x01\x07compat");
    let builder = Builder::new(16, K64)
        .with(72, &0xe0_u64.to_be_bytes())
        .with(104, &0x6803_f857_u32.to_be_bytes())
        .with(108, &96_u32.to_be_bytes())
        .with(112, &entry);
    let message = refused(&builder);
    assert!(message.contains("not supported: my feature, unknown feature bits 0xa0"), "{message}");
    assert_eq!(refusal(&builder).kind(), ErrorKind::Unsupported);
    // A name is shown, not obeyed.
    let message = refused(&builder.with(112 + 2, b"my\nfeature"));
    assert!(message.contains("not supported: my\\nfeature, unknown"), "{message}");
}

#[test]
fn what_comes_before_a_bad_entry_is_told() {
    let builder = Builder::new(16, 4 * K64).table(&[16 * K64, 0, 0x200]);
    let mut source = open(&Qcow2, builder.storage()).unwrap();
    let mut batch = instar_core::Batch::default();
    batch.ask(0, 4 * K64);
    assert!(source.extents(&mut batch).is_err());
    assert_eq!(batch.cursor(), 2 * K64);
    // An extended run is not told before the entry behind it is known to be sound.
    let builder = Builder::new(16, 4 * K64).extended().table(&[16 * K64, !0 >> 32, 0, 0, 0, 1]);
    let mut source = open(&Qcow2, builder.storage()).unwrap();
    batch.ask(0, 4 * K64);
    assert!(source.extents(&mut batch).is_err());
    assert_eq!(batch.cursor(), K64);
    batch.ask(0, 2 * K64);
    assert!(source.extents(&mut batch).is_ok());
    assert_eq!(batch.cursor(), 2 * K64);
}

#[test]
fn the_backing_file_is_reported_with_its_format() {
    let builder = Builder::new(16, K64)
        .with(8, &200_u64.to_be_bytes())
        .with(16, &8_u32.to_be_bytes())
        .with(104, &0xe279_2aca_u32.to_be_bytes())
        .with(108, &3_u32.to_be_bytes())
        .with(112, b"raw")
        .with(200, b"base.img");
    let source = open(&Qcow2, builder.storage()).unwrap();
    let backing = source.backing().unwrap();
    assert_eq!(backing.names, ["base.img"]);
    assert_eq!(backing.format.as_deref(), Some("raw"));
    // Zeros are not part of the name, and an empty one is none.
    for (length, text, format) in [
        (4_u32, b"raw\0", Some("raw")),
        (8, b"raw\0", Some("raw")),
        (1, b"\0aw\0", None),
        (0, b"\0\0\0\0", None),
    ] {
        let builder = builder.clone().with(108, &length.to_be_bytes()).with(112, text);
        let source = open(&Qcow2, builder.storage()).unwrap();
        assert_eq!(source.backing().unwrap().format.as_deref(), format, "{length}");
    }
}

#[test]
fn tables_in_holes_are_empty() {
    for sample in all() {
        assert_eq!(check_holes(&Qcow2, sample.image()), sample.extents(), "{}", sample.name());
    }
}

/// A panic once: what the granularity says was shifted by before it was checked.
#[test]
fn a_granularity_of_128_bits_is_refused() {
    let be64 = u64::to_be_bytes;
    let directory = 60 * K64;
    let extension = [be64(1 << 32), be64(32), be64(directory)].concat();
    let builder = Builder::new(16, 4 * K64)
        .table(&[])
        .with(88, &be64(1))
        .with(104, &0x2385_2875_u32.to_be_bytes())
        .with(108, &24_u32.to_be_bytes())
        .with(112, &extension);
    for (granularity, text) in
        [(125, "granularity_bits is 125, allowed are 9 to 31"), (31, "type is 0, known is 1")]
    {
        let entry = [&be64(K64), &be64(1 << 32), &be64(granularity << 48 | 1 << 32)].map(|e| *e);
        let mut bytes = builder.bytes();
        let at = usize::try_from(directory).unwrap();
        bytes[at..at + 24].copy_from_slice(&entry.concat());
        let error = open(&Qcow2, MemoryStorage::from_bytes(bytes)).err().unwrap().to_string();
        assert!(error.contains(text), "{error}");
    }
}

/// The header's last sector is filled up with zeros, as qemu does.
#[test]
fn extensions_of_a_file_that_ends_in_the_middle_of_a_sector() {
    let builder = Builder::new(16, 0)
        .with(104, &0x6803_f857_u32.to_be_bytes())
        .with(108, &384_u32.to_be_bytes());
    let mut bytes = builder.bytes();
    bytes.truncate(473);
    let map = |bytes| extents(open(&Qcow2, MemoryStorage::from_bytes(bytes))?.as_mut());
    assert_eq!(map(bytes.clone()).unwrap(), []);
    bytes[110] = 2;
    let message = map(bytes).unwrap_err().to_string();
    assert_eq!(
        message,
        "qcow2: header is cut short: the file has 473 bytes, at least 752 are needed (at file offset \
         0x70)"
    );
}

/// What the file does not have is not what is wrong with it.
#[test]
fn what_is_cut_short_is_called_that() {
    let refusal = |bytes: &[u8], length: usize| {
        let storage = MemoryStorage::from_bytes(&bytes[..length]);
        testkit::refusal(&Qcow2, storage)
    };
    let sound = mixed().bytes();
    let version_2 = mixed().with(4, &2_u32.to_be_bytes()).bytes();
    let luks = mixed().with(32, &2_u32.to_be_bytes()).bytes();
    for (bytes, length, needed, at) in [
        (&sound, 1, 4, 0),
        (&sound, 3, 4, 0),
        (&sound, 4, 8, 4),
        (&sound, 7, 8, 4),
        (&sound, 8, 104, 0),
        (&sound, 100, 104, 0),
        (&sound, 103, 104, 0),
        (&version_2, 8, 72, 0),
        (&version_2, 41, 72, 0),
        (&luks, 104, 112, 104),
        (&luks, 111, 112, 104),
    ] {
        let text = format!(
            "qcow2: header is cut short: the file has {length} bytes, at least {needed} are needed \
             (at file offset {at:#x})"
        );
        let kind = if length < 4 { ErrorKind::WrongFormat } else { ErrorKind::Corrupt };
        assert_eq!(refusal(bytes, length), (kind, text));
    }
    assert!(refusal(&sound, 104).1.contains("the L1 table "));

    // A table whose last field is too large as far as it is there, and ends in zeros if not.
    let cluster = 63 * K64;
    let start = usize::try_from(cluster).unwrap();
    let snapshot = Builder::new(16, 0).with(60, &1_u32.to_be_bytes());
    let mut snapshot = snapshot.with(64, &cluster.to_be_bytes()).bytes();
    snapshot[start + 36] = 1;
    let text = format!(
        "qcow2: snapshot table is cut short: the file has {} bytes, at least {} are needed (at file \
         offset {:#x})",
        start + 37,
        start + 40,
        start + 36
    );
    assert_eq!(refusal(&snapshot, start + 37), (ErrorKind::Corrupt, text));
    assert!(refusal(&snapshot, start + 40).1.contains("has 16777216 bytes of extra data"));
}

/// It was read a sector at a time.
#[test]
fn the_refcount_table_is_read_in_windows() {
    let builder = Builder::new(9, 512)
        .with(48, &(1_u64 << 20).to_be_bytes())
        .with(56, &8192_u32.to_be_bytes())
        .table(&[4096]);
    let image = MemoryStorage::new(1 << 36).with_data(0, builder.bytes());
    let meter = Arc::new(Meter::new(Arc::new(image), u64::MAX));
    let mut source = open_storage(&Qcow2, meter.clone(), &context()).unwrap();
    assert_eq!(extents(source.as_mut()).unwrap(), [(512, data(4096))]);
    assert!(meter.bytes() > 4 << 20, "{} bytes", meter.bytes());
    assert!(meter.calls() < 100, "{} reads", meter.calls());
}

/// Without what is remembered, each name of a table would cost all of it.
#[test]
fn a_table_that_is_named_again_is_not_decoded_again() {
    assert_eq!(testkit::decoded(&Qcow2, shared(false)).unwrap(), 128_952);
    assert_eq!(testkit::decoded(&Qcow2, shared(true)).unwrap(), 587_880);
}
