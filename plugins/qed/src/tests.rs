//! The plugin as a whole: what opens, what does not, and what is mapped.

use std::ffi::OsString;
use std::sync::Arc;

use instar_core::testkit::{
    self, Meter, check_format, check_hostile, context, data, extents, open, open_storage,
    open_with, probe, strict,
};
use instar_core::{Batch, Confidence, ErrorKind, MAX_LENGTH, MemoryStorage, Result, Role, Status};
use pretty_assertions::assert_eq;

use crate::Qed;
use crate::disk::{L2Entry, Room};
use crate::samples::{self, Builder, K4, NAME_AT, long_run, mixed, small};

fn map(builder: &Builder) -> Result<Vec<(u64, Status)>> {
    extents(open(&Qed, builder.storage())?.as_mut())
}

/// The refusal, at open or while mapping, with its kind.
fn refusal(builder: &Builder) -> (ErrorKind, String) {
    testkit::refusal(&Qed, builder.storage())
}

#[test]
fn laws_hold_for_every_sample() {
    assert_eq!(check_format(&Qed, &samples::all()).samples, 5);
}

#[test]
fn entries() {
    for (raw, entry) in [
        (0, L2Entry::Absent),
        (1, L2Entry::Zero),
        (2, L2Entry::Stored(2)),
        (u64::MAX, L2Entry::Stored(u64::MAX)),
    ] {
        assert_eq!(L2Entry::decode(raw), entry, "{raw:#x}");
    }
}

#[test]
fn room() {
    let room = Room { cluster: K4, start: K4, end: 10 * K4 };
    for (offset, length, fits) in [
        (0, K4, false),
        (K4, K4, true),
        (K4 + 512, K4, false),
        (9 * K4, K4, true),
        (10 * K4, K4, false),
        (8 * K4, 2 * K4, true),
        (9 * K4, 2 * K4, false),
        (u64::MAX - 4095, K4, false),
        (u64::MAX - 4095, 2 * K4, false),
    ] {
        assert_eq!(room.has(offset, length), fits, "{length} at {offset:#x}");
    }
}

#[test]
fn every_kind_of_entry_has_its_status() {
    assert_eq!(
        map(&mixed()).unwrap(),
        [
            (K4, data(16 * K4)),
            (2 * K4, Status::Zero),
            (K4, Status::Absent),
            (3 * K4, data(20 * K4)),
            (K4, data(30 * K4)),
            (K4, data(29 * K4)),
            ((4 << 20) - 8 * K4, Status::Absent),
            (2 * K4, data(40 * K4)),
            (K4, Status::Zero),
            (2 * K4, data(42 * K4)),
            (2 * K4, data(20 * K4)),
            (K4 + 512, data(24 * K4)),
        ]
    );
}

/// qemu makes such images and does not open them; the specification allows them.
#[test]
fn tables_of_one_cluster_are_read_as_specified() {
    let m2 = 2 << 20;
    assert_eq!(
        map(&small()).unwrap(),
        [
            (m2, Status::Absent),
            (48 * K4, data(10 * K4)),
            (m2 - 48 * K4 + 2 * m2, Status::Absent),
            (m2 + 3 * K4, Status::Zero),
            (m2 - 3 * K4 + m2, Status::Absent),
        ]
    );
}

/// What is behind the end of the file is a warning, by core, wherever a run or a question begins.
#[test]
fn data_may_lie_behind_the_end_of_the_file() {
    let last = 71 * K4;
    let builder = Builder::new(4096, 2, 4 * K4).table(&[last, last + K4, last + 2 * K4, 1]);
    assert_eq!(map(&builder).unwrap(), [(3 * K4, data(last)), (K4, Status::Zero)]);
    let mut source = open(&Qed, builder.storage()).unwrap();
    let mut batch = Batch::default();
    batch.ask(K4 + 5, 4 * K4);
    source.extents(&mut batch).unwrap();
    let found: Vec<_> = batch.extents().iter().map(|e| (e.length, e.status())).collect();
    assert_eq!(found, [(2 * K4 - 5, data(last + K4 + 5)), (K4, Status::Zero)]);
    let outside = Builder::new(4096, 2, 4 * K4).table(&[0, last + K4, last + 2 * K4, 1]);
    assert_eq!(
        map(&outside).unwrap(),
        [(K4, Status::Absent), (2 * K4, data(last + K4)), (K4, Status::Zero)]
    );
    // The last cluster there is, and what would follow it: 0 is no cluster.
    let far = Builder::new(4096, 2, 3 * K4).table(&[u64::MAX - 2 * K4 + 1, u64::MAX - K4 + 1, 0]);
    assert_eq!(map(&far).unwrap(), [(2 * K4, data(u64::MAX - 2 * K4 + 1)), (K4, Status::Absent)]);
}

/// A run that continues in the next window of its table, and behind the end of the file.
#[test]
fn a_run_is_one_across_windows() {
    const ENTRIES: u64 = 1 << 17;
    let size = ENTRIES * 65536;
    let builder = Builder::new(65536, 16, size);
    let table = builder.table_at(0);
    let mut entries = vec![0; 70_000];
    let first = 100;
    for (entry, cluster) in entries[first..].iter_mut().zip(96_u64..) {
        *entry = cluster * 65536;
    }
    let builder = builder.table(&entries);
    assert_eq!(builder.table_at(1), table + ENTRIES * 8);
    assert_eq!(
        map(&builder).unwrap(),
        [
            (100 * 65536, Status::Absent),
            (69_900 * 65536, data(96 * 65536)),
            (size - 70_000 * 65536, Status::Absent),
        ]
    );
}

/// qemu-img aborts: the length wraps at 32 bits.
#[test]
fn runs_of_4_gib_and_more_are_runs() {
    let size = 8 << 30;
    assert_eq!(map(&long_run()).unwrap(), [(65536, Status::Zero), (size - 65536, Status::Absent)]);
}

/// qemu's own sum wraps to 0 for the larger ones, so it opens none of them.
#[test]
fn the_largest_disks_are_absent_at_once() {
    for (cluster, table, size) in [
        (4096, 2, 1 << 32),
        (1 << 22, 2, 1 << 62),
        (1 << 22, 4, MAX_LENGTH),
        (1 << 20, 16, 1 << 62),
    ] {
        let builder = Builder::new(cluster, table, size);
        // As long as need be, and sparse.
        let storage = MemoryStorage::new(builder.table_at(0)).with_data(0, builder.head());
        let mut source = open(&Qed, storage).unwrap();
        assert_eq!(source.virtual_size(), size);
        assert_eq!(extents(source.as_mut()).unwrap(), [(size, Status::Absent)]);
    }
}

/// 128 MiB each, more than can be read in the time of a test.
#[test]
fn tables_in_holes_are_not_read() {
    const TABLES: u64 = 512;
    const CLUSTER: u64 = 64 << 20;
    let table = 2 * CLUSTER;
    let disk = TABLES * (table / 8) * CLUSTER;
    let builder = Builder::new(1 << 26, 2, disk);
    // But for the last one, in which one cluster is stored.
    let at = |number: u64| CLUSTER + table * (1 + number);
    let l1: Vec<u8> = (0..TABLES).flat_map(|number| at(number).to_le_bytes()).collect();
    let storage = MemoryStorage::new(at(TABLES) + CLUSTER)
        .with_data(0, builder.head())
        .with_data(CLUSTER, l1)
        .with_data(at(TABLES) - 4096, [[0; 4088].as_slice(), &at(TABLES).to_le_bytes()].concat());
    let mut source = open(&Qed, storage).unwrap();
    assert_eq!(
        extents(source.as_mut()).unwrap(),
        [(disk - CLUSTER, Status::Absent), (CLUSTER, data(at(TABLES)))]
    );
}

#[test]
fn a_slow_storage_is_told_of_the_next_tables() {
    let builder = Builder::new(4096, 2, 3 << 22).table(&[1]).l1_entry(0).table(&[1]);
    let meter = Arc::new(Meter::new(Arc::new(builder.storage()), u64::MAX));
    meter.set_slow(true);
    let mut source = open_storage(&Qed, meter.clone(), &context()).unwrap();
    extents(source.as_mut()).unwrap();
    let told = meter.take_announced();
    assert_eq!(told, [builder.table_at(0), builder.table_at(1)].map(|at| (at, 2 * K4)));
}

/// No writer makes such an image, whose map may be much larger than its file.
#[test]
fn tables_that_are_named_many_times_are_noticed() {
    let many = |tables: u64| {
        let mut builder = Builder::new(4096, 2, tables << 22);
        let at = builder.table_at(0);
        for _ in 0..tables {
            builder = builder.l1_entry(at);
        }
        let mut source = open_with(&Qed, builder.storage(), &testkit::strict()).unwrap();
        extents(source.as_mut())
    };
    assert_eq!(many(36).unwrap(), [(36 << 22, Status::Absent)]);
    let text = "more L2 tables are named than the file has room for, 36: some of them many times";
    assert_eq!(many(37).unwrap_err().to_string(), text);
}

#[test]
fn probing() {
    use Confidence::{Magic, No, Verified};
    for (bytes, confidence) in [
        (Vec::new(), No),
        (vec![0; 5000], No),
        (mixed().bytes(), Verified),
        (small().bytes(), Verified),
        (b"QED\0".to_vec(), Magic),
        (b"QED\x01".to_vec(), No),
        (b"QED".to_vec(), Magic),
        (b"QE".to_vec(), No),
        (small().bytes()[..64].to_vec(), Verified),
        (small().bytes()[..55].to_vec(), Magic),
        (mixed().with(4, &[1]).bytes(), Magic),
        (mixed().features(8).bytes(), Magic),
    ] {
        let length = bytes.len();
        assert_eq!(probe(&Qed, &MemoryStorage::from_bytes(bytes)), confidence, "{length} bytes");
    }
}

#[test]
fn broken_headers_are_refused() {
    let le32 = |n: u32| n.to_le_bytes().to_vec();
    let le64 = |n: u64| n.to_le_bytes().to_vec();
    let features = "are not supported, known are 0x7 (at file offset 0x10)";
    let cluster = "allowed are powers of two from 4096 to 67108864 (at file offset 0x4)";
    let table = "allowed are 1, 2, 4, 8 and 16 (at file offset 0x8)";
    let placed = "allowed are whole clusters of 4096 bytes from the end of the header at 0x1000 to \
                  that of the file's last whole cluster at 0x48000 (at file offset 0x28)";
    let l1 = |at: &str| format!("the L1 table is misplaced: 8192 bytes at {at}, {placed}");
    let (corrupt, unsupported) = (ErrorKind::Corrupt, ErrorKind::Unsupported);
    let cases: [(usize, Vec<u8>, ErrorKind, String); 22] = [
        (
            0,
            b"QEDX".to_vec(),
            ErrorKind::WrongFormat,
            "not a QED image: the magic is [51, 45, 44, 58], expected [51, 45, 44, 00]".into(),
        ),
        (16, le64(8), unsupported, format!("feature bits 0x8 {features}")),
        (16, le64(1 << 63 | 7), unsupported, format!("feature bits 0x8000000000000000 {features}")),
        (4, le32(0), corrupt, format!("the cluster size is 0, {cluster}")),
        (4, le32(2048), corrupt, format!("the cluster size is 2048, {cluster}")),
        (4, le32(12288), corrupt, format!("the cluster size is 12288, {cluster}")),
        (4, le32(1 << 27), corrupt, format!("the cluster size is 134217728, {cluster}")),
        (8, le32(0), corrupt, format!("the table size is 0 clusters, {table}")),
        (8, le32(3), corrupt, format!("the table size is 3 clusters, {table}")),
        (8, le32(32), corrupt, format!("the table size is 32 clusters, {table}")),
        (
            48,
            le64(513),
            corrupt,
            "the virtual size is 513 bytes, which is no multiple of 512 (at file offset 0x30)"
                .into(),
        ),
        (
            48,
            le64((1 << 32) + 512),
            corrupt,
            "the virtual size is 4294967808 bytes, the tables have room for 4294967296 \
             (at file offset 0x30)"
                .into(),
        ),
        (
            12,
            le32(1 << 20),
            corrupt,
            "the header size is 1048576 clusters, which is 4294967296 bytes; less than 2^32 are \
             allowed (at file offset 0xc)"
                .into(),
        ),
        (40, le64(0), corrupt, l1("0x0")),
        (40, le64(K4 + 512), corrupt, l1("0x1200")),
        (40, le64(71 * K4), corrupt, l1("0x47000")),
        (40, le64(u64::MAX - 4095), corrupt, l1("0xfffffffffffff000")),
        (40, le64(u64::MAX), corrupt, l1("0xffffffffffffffff")),
        (
            56,
            [le32(64), le32(4033)].concat(),
            corrupt,
            "the backing file name (4033 bytes at 0x40) is outside the header of 4096 bytes \
             (at file offset 0x38)"
                .into(),
        ),
        (
            56,
            [le32(u32::MAX), le32(u32::MAX)].concat(),
            corrupt,
            "the backing file name (4294967295 bytes at 0xffffffff) is outside the header of 4096 \
             bytes (at file offset 0x38)"
                .into(),
        ),
        (
            56,
            [le32(0), le32(4096)].concat(),
            ErrorKind::Limit,
            "the backing file name has 4096 bytes, at most 4095 are allowed (at file offset 0x3c)"
                .into(),
        ),
        (
            12,
            le32(18),
            corrupt,
            "the L1 table is misplaced: 8192 bytes at 0x1000, allowed are whole clusters of 4096 \
             bytes from the end of the header at 0x12000 to that of the file's last whole cluster \
             at 0x48000 (at file offset 0x28)"
                .into(),
        ),
    ];
    for (at, bytes, kind, text) in cases {
        let builder = mixed().over(b"base.raw").with(at, &bytes);
        assert_eq!(refusal(&builder), (kind, format!("qed: {text}")));
    }
}

#[test]
fn a_header_that_is_cut_off_is_refused() {
    for length in 0..64 {
        let (kind, text) = refusal(&mixed().cut(length));
        assert_eq!(kind, ErrorKind::Corrupt);
        let start = format!("qed: header is cut short: the file has {length} bytes, at least ");
        assert!(text.starts_with(&start), "{text}");
    }
    let (kind, text) = refusal(&mixed().cut(3 * K4 - 512));
    assert_eq!(kind, ErrorKind::Corrupt);
    assert!(text.contains("the L1 table is misplaced: 8192 bytes at 0x1000, "), "{text}");
    // A started sector counts as a whole one.
    assert!(open(&Qed, mixed().cut(3 * K4 - 511).storage()).is_ok());
}

#[test]
fn misplaced_tables_and_clusters_are_refused() {
    // The last cluster of the file is cut: it may hold nothing.
    let file = 72 * K4 - 512;
    for entry in [1, 8, 2048, K4 - 1, 70 * K4 + 512, 70 * K4, 71 * K4, 1 << 40, u64::MAX - 4095] {
        let (kind, text) = refusal(&Builder::new(4096, 2, K4).cut(file).l1_entry(entry));
        let start = format!(
            "the L2 table of guest offset 0x0 is misplaced: 8192 bytes at {entry:#x}, allowed are"
        );
        assert_eq!(kind, ErrorKind::Corrupt);
        assert!(text.starts_with(&start), "{text}");
    }
    assert!(map(&Builder::new(4096, 2, K4).cut(file).l1_entry(69 * K4)).is_ok());
    for entry in [2, 512, K4 - 1, K4 + 1, 71 * K4 - 512, (1 << 63) - 1, u64::MAX] {
        let builder = Builder::new(4096, 2, 2 * K4).cut(file).table(&[1, entry]);
        let (kind, text) = refusal(&builder);
        let start = format!(
            "the cluster of guest offset 0x1000 is misplaced: {entry:#x}, allowed are multiples of \
             4096 from the end of the header at 0x1000"
        );
        assert_eq!(kind, ErrorKind::Corrupt);
        assert_eq!(text, start);
    }
    assert!(map(&Builder::new(4096, 2, 2 * K4).cut(file).table(&[1, 70 * K4])).is_ok());
}

/// What was found before the fault is told.
#[test]
fn extents_before_a_fault_count() {
    let builder = Builder::new(4096, 2, 8 << 20).table(&[16 * K4, 1, 5]).l1_entry(16 * K4);
    let mut source = open(&Qed, builder.storage()).unwrap();
    let mut batch = Batch::default();
    batch.ask(512, source.virtual_size());
    let error = source.extents(&mut batch).unwrap_err().to_string();
    assert!(error.contains("the cluster of guest offset 0x2000 is misplaced"), "{error}");
    let found: Vec<_> = batch.extents().iter().map(|e| (e.length, e.status())).collect();
    assert_eq!(found, [(K4 - 512, data(16 * K4 + 512)), (K4, Status::Zero)]);
    batch.ask(4 << 20, source.virtual_size());
    source.extents(&mut batch).unwrap();
    assert_eq!(batch.cursor(), 8 << 20);
}

#[test]
fn the_backing_file_has_a_name_and_may_be_known_to_be_raw() {
    for (stored, features, name, format) in [
        ("base.raw", 1, "base.raw", None),
        ("base.raw", 1 | 2, "base.raw", None),
        ("base.raw", 1 | 4, "base.raw", Some("raw")),
        ("base.raw\0rest", 7, "base.raw", Some("raw")),
    ] {
        let builder = mixed().over(stored.as_bytes()).features(features);
        let source = open(&Qed, builder.storage()).unwrap();
        let backing = source.backing().expect("a backing file");
        assert_eq!(backing.role, Role::Backing);
        assert_eq!(backing.names, [OsString::from(name)]);
        assert_eq!(backing.format.as_deref(), format);
        assert!(backing.identifiers.is_empty());
    }
    // Without its feature bit a name counts as little as without bytes.
    for (stored, features) in
        [("base.raw", 0), ("base.raw", 2), ("base.raw", 4), ("", 1), ("\0", 5)]
    {
        let builder = mixed().over(stored.as_bytes()).features(features);
        assert!(open(&Qed, builder.storage()).unwrap().backing().is_none(), "{stored} {features}");
    }
    let longest = vec![b'x'; usize::try_from(K4 - NAME_AT).unwrap()];
    assert!(open(&Qed, mixed().over(&longest).storage()).unwrap().backing().is_some());
}

#[test]
fn damaged_images_are_mapped_or_refused() {
    for builder in [mixed(), small().cut(80 * K4), mixed().over(b"base.raw").features(7)] {
        assert!(check_hostile(&Qed, &builder.bytes(), 2000) > 2000);
    }
}

/// No byte of the disk is in the clusters of entries past its end, in either table.
#[test]
fn spare_entries_are_not_examined() {
    let image = || Builder::new(4096, 2, 2 * K4 + 512);
    let entries = [16 * K4, 0, 17 * K4];
    let expected = map(&image().table(&entries)).unwrap();
    for entry in [1, 2, 512, K4 - 1, 1 << 62, !0] {
        let mut table = entries.to_vec();
        table.resize(1024, entry);
        let image = (1..1024).fold(image().table(&table), |image, _| image.l1_entry(entry));
        let mut source = open_with(&Qed, image.storage(), &strict()).unwrap();
        assert_eq!(extents(source.as_mut()).unwrap(), expected, "{entry:#x}");
    }
}

/// Without what is remembered, each name of a table would cost all of it.
#[test]
fn a_table_that_is_named_again_is_not_decoded_again() {
    assert_eq!(testkit::decoded(&Qed, samples::shared()).unwrap(), 52_864);
}
