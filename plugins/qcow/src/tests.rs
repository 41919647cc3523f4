//! The plugin as a whole: what opens, what does not, and what is mapped.

use std::ffi::OsString;
use std::sync::Arc;

use instar_core::testkit::{
    self, Meter, check_format, check_hostile, check_source, context, data, extents, open,
    open_storage, open_with, probe, strict,
};
use instar_core::{
    Batch, Confidence, ErrorKind, ExtentSource, MemoryStorage, Result, Role, Status,
};
use pretty_assertions::assert_eq;

use crate::Qcow;
use crate::disk::L2Entry;
use crate::samples::{self, Builder, COMPRESSED, K4, L1_AT, L2_AT, NAME_AT, mixed, small};

fn map(builder: &Builder) -> Result<Vec<(u64, Status)>> {
    extents(open(&Qcow, builder.storage())?.as_mut())
}

/// The refusal, at open or while mapping, with its kind.
fn refusal(builder: &Builder) -> (ErrorKind, String) {
    testkit::refusal(&Qcow, builder.storage())
}

#[test]
fn laws_hold_for_every_sample() {
    assert_eq!(check_format(&Qcow, &samples::all()).samples, 5);
}

#[test]
fn entries() {
    for (raw, entry) in [
        (0, L2Entry::Absent),
        (1, L2Entry::Stored(1)),
        (COMPRESSED - 1, L2Entry::Stored(COMPRESSED - 1)),
        (COMPRESSED, L2Entry::Compressed),
        (u64::MAX, L2Entry::Compressed),
    ] {
        assert_eq!(L2Entry::decode(raw), entry, "{raw:#x}");
    }
}

#[test]
fn every_kind_of_entry_has_its_status() {
    assert_eq!(
        map(&mixed()).unwrap(),
        [
            (K4, data(16 * K4)),
            (K4, Status::Absent),
            (2 * K4, Status::Compressed),
            (3 * K4, data(20 * K4)),
            (K4, data(30 * K4)),
            (2 * K4, Status::Absent),
            // The disk ends in the middle of a cluster.
            (2 * K4 + 2048, data(31 * K4)),
        ]
    );
}

#[test]
fn runs_go_on_from_table_to_table() {
    let mut expected = Vec::new();
    for i in (0..64).step_by(2) {
        expected.extend([(512, data(512 * (100 + i))), (512, Status::Absent)]);
    }
    expected.pop();
    expected.extend([
        (512 + 2 * 32768, Status::Absent),
        (2 * 32768, data(512 * 200)),
        (32768, Status::Absent),
        (32768 + 512, Status::Compressed),
    ]);
    assert_eq!(map(&small()).unwrap(), expected);
}

#[test]
fn encrypted_images_are_opaque_without_a_key() {
    assert_eq!(
        map(&mixed().encrypted()).unwrap(),
        [
            (K4, Status::Opaque),
            (K4, Status::Absent),
            (2 * K4, Status::Compressed),
            (4 * K4, Status::Opaque),
            (2 * K4, Status::Absent),
            (2 * K4 + 2048, Status::Opaque),
        ]
    );
}

/// A run of data ends where the next entry would be one of a compressed cluster.
#[test]
fn an_offset_that_runs_into_the_compressed_bit_is_no_run() {
    let last = COMPRESSED - K4;
    let builder = Builder::new(12, 9, 2 * K4).table(&[last, COMPRESSED]);
    assert_eq!(map(&builder).unwrap(), [(K4, data(last)), (K4, Status::Compressed)]);
}

/// Within the cluster one counts on from where its entry says, as qemu does when it reads.
#[test]
fn an_entry_that_is_not_aligned_is_where_it_says() {
    let builder = Builder::new(12, 9, 2 * K4).table(&[0x4_0200, 0x4_1200]);
    assert_eq!(map(&builder).unwrap(), [(2 * K4, data(0x4_0200))]);
    assert_eq!(check_source(|| open(&Qcow, builder.storage())), 1);
}

#[test]
fn sizes_are_rounded_down_to_sectors() {
    for (size, rounded) in [(2, 0), (511, 0), (512, 512), (1023, 512), (1_000_000, 999_936)] {
        let source = open(&Qcow, Builder::new(12, 9, size).storage()).unwrap();
        assert_eq!(source.virtual_size(), rounded, "{size}");
    }
}

#[test]
fn the_largest_disk_opens_and_what_has_no_tables_is_one_extent() {
    let size = 0x0fff_ffff << 29;
    let l1 = 0x0fff_ffff * 8 + L1_AT as u64;
    let header = Builder::new(16, 13, size).bytes();
    let sparse = MemoryStorage::new(l1).with_data(0, &header[..48]);
    // Nothing of its table of 2 GiB is read.
    assert_eq!(extents(open(&Qcow, sparse).unwrap().as_mut()).unwrap(), [(size, Status::Absent)]);
}

/// As many large L2 tables as the L1 table can name, all in a hole of the file.
#[test]
fn tables_in_holes_are_not_read() {
    const TABLES: u64 = 1 << 16;
    let header = Builder::new(16, 13, TABLES << 29).bytes();
    let l1: Vec<u8> = (0..TABLES).flat_map(|i| ((1 << 20) + (i << 16)).to_be_bytes()).collect();
    let storage = MemoryStorage::new((1 << 20) + (TABLES << 16))
        .with_data(0, &header[..48])
        .with_data(L1_AT as u64, l1);
    let (mut source, meter) = counted(storage);
    assert_eq!(extents(source.as_mut()).unwrap(), [(TABLES << 29, Status::Absent)]);
    assert!(meter.calls() < 50);
}

/// No writer makes such an image, whose map may be much larger than its file.
#[test]
fn tables_that_are_named_many_times_are_noticed() {
    let many = |tables: u64| {
        let mut builder = Builder::new(12, 9, tables << 21).cut(64 << 10);
        for _ in 0..tables {
            builder = builder.l1_entry(L2_AT);
        }
        let mut source = open_with(&Qcow, builder.storage(), &testkit::strict()).unwrap();
        extents(source.as_mut())
    };
    assert_eq!(many(16).unwrap(), [(16 << 21, Status::Absent)]);
    let text = "more L2 tables are named than the file has room for, 16: some of them many times";
    assert_eq!(many(17).unwrap_err().to_string(), text);
}

#[test]
fn probing() {
    use Confidence::{Magic, No, Verified};
    let version = |version: u32| mixed().with(4, &version.to_be_bytes()).bytes();
    for (bytes, confidence) in [
        (Vec::new(), No),
        (vec![0; 5000], No),
        (mixed().bytes(), Verified),
        (mixed().encrypted().bytes(), Verified),
        (version(0), No),
        (version(2), No),
        (version(3), No),
        (b"QFI\xfb\0\0\0\x01".to_vec(), Magic),
        (b"QFI\xfb".to_vec(), No),
        (mixed().bytes()[..48].to_vec(), Verified),
        (mixed().bytes()[..47].to_vec(), Magic),
        (mixed().with(32, &[8]).bytes(), Magic),
    ] {
        let length = bytes.len();
        assert_eq!(probe(&Qcow, &MemoryStorage::from_bytes(bytes)), confidence, "{length} bytes");
    }
}

#[test]
fn broken_headers_are_refused() {
    let be32 = |n: u32| n.to_be_bytes().to_vec();
    let be64 = |n: u64| n.to_be_bytes().to_vec();
    let version = "is not supported, only 1 is (2 and 3 are qcow2) (at file offset 0x4)";
    let too_large = "at most 268435455 are allowed (at file offset 0x18)";
    let cases: [(usize, Vec<u8>, ErrorKind, String); 14] = [
        (
            0,
            b"QFI!".to_vec(),
            ErrorKind::WrongFormat,
            "not a qcow image: the magic is [51, 46, 49, 21], expected [51, 46, 49, fb]".into(),
        ),
        (4, be32(0), ErrorKind::Unsupported, format!("version 0 {version}")),
        (4, be32(2), ErrorKind::Unsupported, format!("version 2 {version}")),
        (4, be32(4), ErrorKind::Unsupported, format!("version 4 {version}")),
        (
            24,
            be64(1),
            ErrorKind::Corrupt,
            "the virtual size is 1 bytes, at least 2 are needed (at file offset 0x18)".into(),
        ),
        (
            32,
            vec![8],
            ErrorKind::Corrupt,
            "cluster_bits is 8, allowed are 9 to 16 (at file offset 0x20)".into(),
        ),
        (
            32,
            vec![17],
            ErrorKind::Corrupt,
            "cluster_bits is 17, allowed are 9 to 16 (at file offset 0x20)".into(),
        ),
        (
            33,
            vec![5],
            ErrorKind::Corrupt,
            "l2_bits is 5, allowed are 6 to 13 (at file offset 0x21)".into(),
        ),
        (
            33,
            vec![14],
            ErrorKind::Corrupt,
            "l2_bits is 14, allowed are 6 to 13 (at file offset 0x21)".into(),
        ),
        (
            36,
            be32(2),
            ErrorKind::Unsupported,
            "crypt_method is 2, known are 0 (none) and 1 (AES) (at file offset 0x24)".into(),
        ),
        (
            24,
            be64(u64::MAX),
            ErrorKind::Limit,
            format!(
                "the virtual size is {} bytes, which needs an L1 table of 8796093022208 entries; \
                 {too_large}",
                u64::MAX
            ),
        ),
        (
            24,
            be64((0x0fff_ffff << 21) + 1),
            ErrorKind::Limit,
            format!(
                "the virtual size is 562949951324161 bytes, which needs an L1 table of 268435456 \
                 entries; {too_large}"
            ),
        ),
        (
            40,
            be64(u64::MAX - 7),
            ErrorKind::Corrupt,
            "the L1 table (8 bytes at 0xfffffffffffffff8) is outside the file of 1048576 bytes \
             (at file offset 0x28)"
                .into(),
        ),
        (
            40,
            be64((1 << 20) - 7),
            ErrorKind::Corrupt,
            "the L1 table (8 bytes at 0xffff9) is outside the file of 1048576 bytes \
             (at file offset 0x28)"
                .into(),
        ),
    ];
    for (at, bytes, kind, text) in cases {
        assert_eq!(refusal(&mixed().with(at, &bytes)), (kind, format!("qcow: {text}")));
    }
}

#[test]
fn a_header_that_is_cut_off_is_refused() {
    for length in 0..48 {
        let (kind, text) = refusal(&mixed().cut(length));
        assert_eq!(kind, ErrorKind::Corrupt);
        let start = format!("qcow: header is cut short: the file has {length} bytes, at least ");
        assert!(text.starts_with(&start), "{text}");
    }
}

/// qemu reads zeros there, so the disk looks empty.
#[test]
fn tables_outside_the_file_are_refused() {
    assert!(map(&small().cut(L1_AT + 8 * 8)).is_err());
    let cut = refusal(&small().cut(512).with(24, &(512_u64 << 15).to_be_bytes()));
    let text = "qcow: the L1 table (4096 bytes at 0x40) is outside the file of 512 bytes \
                (at file offset 0x28)";
    assert_eq!(cut, (ErrorKind::Corrupt, text.into()));
    for (at, shown) in [
        (1 << 20, "0x100000"),
        ((1 << 20) - 100, "0xfff9c"),
        (1 << 63, "0x8000000000000000"),
        (u64::MAX, "0xffffffffffffffff"),
    ] {
        let text = format!("L2 table (104 bytes at {shown}) is outside the file of 1048576 bytes");
        let builder = Builder::new(12, 9, 13 * K4).l1_entry(at);
        assert_eq!(refusal(&builder), (ErrorKind::Corrupt, text));
    }
    // What the disk does not need may be missing.
    let builder = Builder::new(12, 9, 13 * K4).l1_entry((1 << 20) - 104);
    assert_eq!(map(&builder).unwrap(), [(13 * K4, Status::Absent)]);
    // A started sector counts as a whole one.
    let builder = Builder::new(12, 9, 13 * K4).l1_entry(L2_AT);
    let length = usize::try_from(L2_AT).unwrap() + 50;
    assert_eq!(map(&builder.cut(length)).unwrap(), [(13 * K4, Status::Absent)]);
}

/// What was found before the fault is told.
#[test]
fn extents_before_a_fault_count() {
    let builder = Builder::new(12, 9, 4 << 20).table(&[16 * K4]).l1_entry(1 << 40);
    let mut source = open(&Qcow, builder.storage()).unwrap();
    let mut batch = Batch::default();
    batch.ask(0, source.virtual_size());
    assert!(source.extents(&mut batch).is_err());
    let found: Vec<_> = batch.extents().iter().map(|e| (e.length, e.status())).collect();
    assert_eq!(found, [(K4, data(16 * K4)), ((2 << 20) - K4, Status::Absent)]);
    batch.ask(3 << 20, source.virtual_size());
    assert!(source.extents(&mut batch).is_err());
}

fn over(offset: u64, length: u32, name: &[u8]) -> MemoryStorage {
    let builder = mixed().with(8, &offset.to_be_bytes()).with(16, &length.to_be_bytes());
    let mut bytes = builder.bytes();
    bytes[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
    MemoryStorage::from_bytes(bytes)
}

#[test]
fn the_backing_file_has_a_name_and_no_format() {
    let at = NAME_AT as u64;
    for (length, stored, name) in
        [(8, "base.raw", "base.raw"), (4, "base.raw", "base"), (12, "base.raw\0rest", "base.raw")]
    {
        let source = open(&Qcow, over(at, length, stored.as_bytes())).unwrap();
        let backing = source.backing().expect("a backing file");
        assert_eq!(backing.role, Role::Backing);
        assert_eq!(backing.names, [OsString::from(name)]);
        assert_eq!(backing.format, None);
        assert!(backing.identifiers.is_empty());
    }
    for (offset, length) in [(0, 8), (at, 0), (NAME_AT as u64 + 9, 4)] {
        let source = open(&Qcow, over(offset, length, b"base.raw")).unwrap();
        assert!(source.backing().is_none(), "{length} bytes at {offset}");
    }
    assert!(open(&Qcow, over(at, 1023, b"x")).is_ok());
}

#[test]
fn broken_names_of_the_backing_file_are_refused() {
    for (offset, length, text) in [
        (
            NAME_AT as u64,
            1024,
            "qcow: the backing file name has 1024 bytes, at most 1023 are allowed \
             (at file offset 0x10)",
        ),
        (
            (1 << 20) - 4,
            5,
            "qcow: backing file name (5 bytes at 0xffffc) is outside the file of 1048576 bytes",
        ),
        (
            u64::MAX,
            5,
            "qcow: backing file name (5 bytes at 0xffffffffffffffff) is outside the file of \
             1048576 bytes",
        ),
    ] {
        let error = open(&Qcow, over(offset, length, b"base.raw")).err().expect("is refused");
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Corrupt, text));
    }
}

#[test]
fn damaged_images_are_mapped_or_refused() {
    for builder in [mixed().cut(128 << 10), small().cut(64 << 10), mixed().encrypted()] {
        assert!(check_hostile(&Qcow, &builder.bytes(), 3000) > 3000);
    }
}

/// An image, and how often its bytes are read, in units as files are by default.
fn counted(inner: MemoryStorage) -> (Box<dyn ExtentSource>, Arc<Meter>) {
    let meter = Arc::new(Meter::new(Arc::new(inner), u64::MAX).with_unit(4096));
    (open_storage(&Qcow, meter.clone(), &context()).unwrap(), meter)
}

#[test]
fn a_slow_storage_is_told_of_the_next_tables() {
    let builder = Builder::new(12, 9, 4 << 21).table(&[1]).l1_entry(0).table(&[2]).table(&[3]);
    let (mut source, meter) = counted(builder.storage());
    meter.set_slow(true);
    extents(source.as_mut()).unwrap();
    assert_eq!(meter.take_announced(), [0, 1, 2].map(|table| (L2_AT + table * K4, K4)));
}

#[test]
fn tables_are_read_in_long_stretches() {
    const TABLES: u64 = 20_000;
    const L2_AT: u64 = 1 << 20;
    let mut header = Builder::new(9, 6, TABLES << 15).bytes();
    header.truncate(L1_AT);
    // Every other L2 table is there, one behind the other, each with its last cluster.
    let l1 = (0..TABLES).map(|i| (i % 2) * (L2_AT + (i - i % 2) * 256));
    let l1: Vec<u8> = l1.flat_map(u64::to_be_bytes).collect();
    let mut l2 = vec![0; usize::try_from(TABLES).unwrap() * 256];
    for table in l2.chunks_exact_mut(512) {
        table[504..].copy_from_slice(&512_u64.to_be_bytes());
    }
    let windows = (l1.len() + l2.len()).div_ceil(64 << 10);
    let inner = MemoryStorage::new(L2_AT)
        .with_data(0, header)
        .with_data(L1_AT as u64, l1)
        .with_data(L2_AT, l2);
    let (mut source, meter) = counted(inner);
    let found = extents(source.as_mut()).unwrap();
    assert_eq!(found.len(), usize::try_from(TABLES).unwrap());
    let reads = meter.calls();
    assert!(reads <= 2 * windows as u64, "{reads} reads of {windows} windows");
}

/// No byte of the disk is in the clusters of entries past its end.
#[test]
fn spare_entries_are_not_examined() {
    let image = || Builder::new(12, 9, 2 * K4 + 512);
    let entries = [16 * K4, 0, 17 * K4];
    let expected = map(&image().table(&entries)).unwrap();
    for entry in [1, 513, COMPRESSED - 1, COMPRESSED | 5, !0] {
        let mut table = entries.to_vec();
        table.resize(512, entry);
        let image = image().table(&table);
        let mut source = open_with(&Qcow, image.storage(), &strict()).unwrap();
        assert_eq!(extents(source.as_mut()).unwrap(), expected, "{entry:#x}");
    }
}

/// Without what is remembered, each name of a table would cost all of it.
#[test]
fn a_table_that_is_named_again_is_not_decoded_again() {
    assert_eq!(testkit::decoded(&Qcow, samples::shared()).unwrap(), 72_456);
}
