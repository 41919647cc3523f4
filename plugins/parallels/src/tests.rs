//! The plugin as a whole: what opens, what does not, and what is mapped.

use std::sync::Arc;

use instar_core::testkit::{
    self, check_format, check_hostile, check_source, data, extents, open, probe,
};
use instar_core::{
    Batch, Confidence, Context, ErrorKind, ExternalPolicy, MemoryStorage, Opener, QemuVersion,
    Status,
};
use pretty_assertions::assert_eq;

use crate::Parallels;
use crate::samples::{
    self, CLUSTER, DATA, DIRTY_BITMAP, Disk, EXTENDED, OLD, bitmap, extended, extension, feature,
    old, put, seal, with_bitmaps,
};

const BEFORE: QemuVersion = QemuVersion::new(10, 0);

fn memory(disk: &Disk) -> MemoryStorage {
    MemoryStorage::from_bytes(disk.bytes())
}

fn map(disk: &Disk) -> Vec<(u64, Status)> {
    extents(open(&Parallels, memory(disk)).unwrap().as_mut()).unwrap()
}

/// The map that this version of qemu has, and the warnings.
fn map_of(qemu: QemuVersion, bytes: Vec<u8>) -> (Vec<(u64, Status)>, Vec<String>) {
    let opener = Opener::new(ExternalPolicy::Ignore).unwrap();
    let (context, heard) = testkit::listening(Context { qemu, opener, ..Context::default() });
    let storage = MemoryStorage::from_bytes(bytes);
    let mut source = testkit::open_with(&Parallels, storage, &context).unwrap();
    let list = extents(source.as_mut()).unwrap();
    (list, heard.take())
}

/// The refusal, with its kind.
fn refusal(bytes: Vec<u8>) -> (ErrorKind, String) {
    testkit::refusal(&Parallels, MemoryStorage::from_bytes(bytes))
}

/// Where cluster `number` of the file is, that of header and table not counted.
fn at(number: u64) -> Status {
    data(DATA + number * CLUSTER)
}

#[test]
fn laws_hold_for_every_sample() {
    assert_eq!(check_format(&Parallels, &samples::all()).samples, 3);
}

#[test]
fn entries_of_the_extended_kind_are_clusters() {
    let list = [
        (CLUSTER, Status::Absent),
        (2 * CLUSTER, at(1)),
        (CLUSTER, at(0)),
        (2 * CLUSTER, Status::Absent),
        (1024, at(3)),
    ];
    assert_eq!(map(&extended()), list);
    assert_eq!(map_of(BEFORE, extended().bytes()), (list.to_vec(), Vec::new()));
}

#[test]
fn entries_of_the_old_kind_are_sectors() {
    let list = [
        (CLUSTER, Status::Absent),
        (2 * CLUSTER, at(1)),
        (CLUSTER, at(0)),
        (2 * CLUSTER, Status::Absent),
        (1024, at(3).advanced(512)),
    ];
    assert_eq!(map(&old()), list);
    assert_eq!(map_of(BEFORE, old().bytes()), (list.to_vec(), Vec::new()));
}

#[test]
fn a_table_larger_than_a_window_is_walked_to_its_end() {
    const ENTRIES: u32 = 600_000;
    let first = (64 + 4 * ENTRIES).div_ceil(4096);
    let mut table = vec![0; ENTRIES as usize];
    // The window's border lies between 262143 and 262144.
    for (count, cluster) in (0..).zip([3, 262_143, 262_144, 524_287, 599_999]) {
        table[cluster] = first + count;
    }
    let mut disk = Disk::new(EXTENDED, 8 * u64::from(ENTRIES), &table, 0);
    disk.data_start = first * 8;
    disk.pieces = vec![(u64::from(first + 5) * CLUSTER - 1, vec![0])];
    let stored =
        |count: u32, clusters: u64| (CLUSTER * clusters, data(u64::from(first + count) * CLUSTER));
    let empty = |clusters: u64| (CLUSTER * clusters, Status::Absent);
    let list = [
        empty(3),
        stored(0, 1),
        empty(262_139),
        stored(1, 2),
        empty(262_142),
        stored(3, 1),
        empty(75_711),
        stored(4, 1),
    ];
    assert_eq!(map(&disk), list);
    assert_eq!(check_source(|| open(&Parallels, memory(&disk))), 8);
}

#[test]
fn the_size_of_an_old_disk_has_32_bits() {
    let disk = Disk { sectors: 7 << 32 | 50, ..old() };
    assert_eq!(map(&disk), map(&old()));
    let disk = Disk { sectors: 0, ..extended() };
    assert_eq!(map(&disk), []);
}

/// The rows before the first entry that leads out of the data, and the error about it.
fn refused_after(disk: &Disk, bytes: Vec<u8>) -> (u64, String) {
    let mut source = open(&Parallels, MemoryStorage::from_bytes(bytes)).unwrap();
    let mut batch = Batch::default();
    batch.ask(0, disk.sectors * 512);
    let error = source.extents(&mut batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    (batch.cursor() / CLUSTER, error.to_string())
}

#[test]
fn entries_that_lead_out_of_the_data_are_errors_unless_an_older_qemu_is_asked_for() {
    // Sector 8 to the last whole cluster are inside; 5 begins with the file's end.
    let table = [1, 0, 4, 5, 0, 6, 7, 0];
    let disk = Disk { table: table.to_vec(), ..Disk::new(EXTENDED, 64, &table, 4) };
    let text = |index: u32, entry: u32, last: u32| {
        format!(
            "entry {index} of the block allocation table is {entry}, which is outside the file's \
             data: allowed are 0 and 1 to {last} (at file offset {:#x})",
            64 + index * 4
        )
    };
    assert_eq!(refused_after(&disk, disk.bytes()), (3, text(3, 5, 4)));
    for (entry, first) in [(5, 0), (u32::MAX, 0)] {
        let table = [entry, 1];
        let disk = Disk { table: table.to_vec(), ..Disk::new(EXTENDED, 16, &table, 4) };
        assert_eq!(refused_after(&disk, disk.bytes()), (first, text(0, entry, 4)));
    }

    let (list, warnings) = map_of(BEFORE, disk.bytes());
    let empty = |clusters| (clusters * CLUSTER, Status::Absent);
    let before = [
        (CLUSTER, at(0)),
        empty(1),
        (2 * CLUSTER, at(3)),
        empty(1),
        (2 * CLUSTER, at(5)),
        empty(1),
    ];
    assert_eq!(list, before);
    assert_eq!(warnings, [""; 0]);

    // The last cluster must be there as a whole; a started sector counts.
    let mut bytes = disk.bytes();
    bytes.pop();
    assert_eq!(refused_after(&disk, bytes.clone()), (3, text(3, 5, 4)));
    bytes.truncate(bytes.len() - 511);
    assert_eq!(refused_after(&disk, bytes), (2, text(2, 4, 3)));
    // What comes before the data is not data.
    let late = Disk { data_start: 16, ..disk };
    let (before, error) = refused_after(&late, late.bytes());
    assert_eq!(before, 0);
    assert!(error.contains("entry 0 of") && error.contains("0 and 2 to 4"), "{error}");
    // Nor does a run of clusters go on past it.
    let running = Disk::new(EXTENDED, 32, &[3, 4, 5, 6], 4);
    assert_eq!(refused_after(&running, running.bytes()), (2, text(2, 5, 4)));
    // Nobody asks about entries past the end of the disk.
    let spare = Disk::new(EXTENDED, 24, &[1, 0, 4, 5], 4);
    assert_eq!(map(&spare), [(CLUSTER, at(0)), empty(1), (CLUSTER, at(3))]);
}

/// A file that was cut after its table is not an empty disk.
#[test]
fn a_file_cut_after_its_table_is_an_error() {
    let disk = Disk::new(EXTENDED, 32, &[1, 0, 2, 0], 2);
    let mut bytes = disk.bytes();
    bytes.truncate(usize::try_from(CLUSTER).unwrap());
    assert_eq!(refused_after(&disk, bytes).0, 0);
}

#[test]
fn the_largest_entries_do_not_run_on() {
    let disk = Disk::new(OLD, 24, &[u32::MAX - 8, u32::MAX, 7], 1);
    let sector = |entry: u32| data(u64::from(entry) * 512);
    assert_eq!(
        map_of(BEFORE, disk.bytes()).0,
        [(2 * CLUSTER, sector(u32::MAX - 8)), (CLUSTER, sector(7))]
    );
}

#[test]
fn a_table_too_small_for_the_disk_is_refused_from_11_1_on() {
    let disk = Disk { entries: Some(3), ..extended() };
    assert_eq!(
        refusal(disk.bytes()),
        (
            ErrorKind::Corrupt,
            "parallels: block allocation table has 3 entries, the disk needs 7 (at file offset \
             0x20)"
                .into()
        )
    );
    let rest = 4 * CLUSTER - 3072;
    assert_eq!(
        map_of(BEFORE, disk.bytes()).0,
        [(CLUSTER, Status::Absent), (2 * CLUSTER, at(1)), (rest, Status::Absent)]
    );
    let none = Disk { entries: Some(0), ..extended() };
    assert_eq!(map_of(BEFORE, none.bytes()).0, [(50 * 512, Status::Absent)]);
}

#[test]
fn an_image_in_use_is_warned_about() {
    let disk = Disk { in_use: 0x746f_6e59, ..extended() };
    let (list, warnings) = map_of(QemuVersion::NEWEST, disk.bytes());
    assert_eq!(list, map(&extended()));
    assert_eq!(
        warnings,
        ["the image is marked as in use: it was not closed, or is being written to"]
    );
}

#[test]
fn probing() {
    use Confidence::{Magic, No, Verified};
    let small = Disk { entries: Some(3), ..extended() };
    let broken = Disk { cluster_sectors: 0, ..extended() };
    let other_version = Disk { version: 1, ..extended() };
    for (bytes, confidence) in [
        (Vec::new(), No),
        (vec![0; 5000], No),
        (extended().bytes(), Verified),
        (old().bytes(), Verified),
        (small.bytes(), Magic),
        (broken.bytes(), Magic),
        (other_version.bytes(), No),
        (EXTENDED[..15].to_vec(), No),
        (EXTENDED.to_vec(), Magic),
        ([EXTENDED.as_slice(), &[2]].concat(), Magic),
        // The last field of the header, zeros, is not made up.
        (extended().bytes()[..64].to_vec(), Verified),
        (extended().bytes()[..63].to_vec(), Magic),
    ] {
        let length = bytes.len();
        let answer = probe(&Parallels, &MemoryStorage::from_bytes(bytes));
        assert_eq!(answer, confidence, "{length} bytes");
    }
}

#[test]
fn broken_headers_are_refused() {
    type Break = fn(&mut Disk);
    let cases: [(Break, ErrorKind, &str); 7] = [
        (
            |disk| disk.magic = *b"WithoutFreeSpacE",
            ErrorKind::WrongFormat,
            "the magic is [57, 69, 74, 68, 6f, 75, 74, 46, 72, 65, 65, 53, 70, 61, 63, 45], \
             expected 'WithoutFreeSpace' or 'WithouFreSpacExt' (at file offset 0x0)",
        ),
        (
            |disk| disk.version = 3,
            ErrorKind::Unsupported,
            "version is 3, supported is 2 (at file offset 0x10)",
        ),
        (
            |disk| disk.cluster_sectors = 0,
            ErrorKind::Corrupt,
            "cluster size is 0 sectors, allowed are 1 to 4186127 (at file offset 0x1c)",
        ),
        (
            |disk| disk.cluster_sectors = 4_186_128,
            ErrorKind::Corrupt,
            "cluster size is 4186128 sectors, allowed are 1 to 4186127 (at file offset 0x1c)",
        ),
        (
            |disk| disk.entries = Some(0x2000_0000),
            ErrorKind::Limit,
            "block allocation table has 536870912 entries, at most 536870911 are allowed (at file \
             offset 0x20)",
        ),
        (
            |disk| disk.entries = Some(0x1fff_ffff),
            ErrorKind::Corrupt,
            "block allocation table (536870911 entries) is outside the file of 24576 bytes (at \
             file offset 0x20)",
        ),
        (
            |disk| disk.sectors = u64::MAX,
            ErrorKind::Corrupt,
            "block allocation table has 8 entries, the disk needs 2305843009213693952 (at file \
             offset 0x20)",
        ),
    ];
    for (damage, kind, text) in cases {
        let mut disk = extended();
        damage(&mut disk);
        assert_eq!(refusal(disk.bytes()), (kind, format!("parallels: {text}")));
    }
    assert_eq!(refusal(Vec::new()).0, ErrorKind::WrongFormat);
    // Where no table has to be as large as the disk, a limit on disks is left.
    let endless = Disk { sectors: u64::MAX, ..extended() };
    let context = Arc::new(Context { qemu: BEFORE, ..Context::default() });
    let opened = testkit::open_with(&Parallels, memory(&endless), &context);
    assert_eq!(opened.err().unwrap().kind(), ErrorKind::Limit);
}

#[test]
fn a_table_may_end_with_the_file_but_not_later() {
    let disk = Disk::new(EXTENDED, 8 * 112, &[0; 112], 0);
    let mut bytes = disk.bytes();
    assert_eq!(bytes.len(), 512);
    // A started sector counts as a whole one.
    bytes.truncate(100);
    assert!(open(&Parallels, MemoryStorage::from_bytes(bytes)).is_ok());
    let mut bytes = Disk::new(EXTENDED, 8 * 113, &[0; 113], 0).bytes();
    bytes.truncate(512);
    assert!(refusal(bytes).1.contains("block allocation table (113 entries) is outside the file"));
}

#[test]
fn a_sound_extension_changes_nothing() {
    // 50 sectors in granules of 2 are 25 bits.
    let one = feature(DIRTY_BITMAP, 0, &bitmap(50, 2, &[1]));
    for features in [vec![], vec![one.clone()], vec![one.clone(), one]] {
        let disk = extended().with_extension(extension(&features));
        assert_eq!(map(&disk), map(&extended()));
        let old = old().with_extension(extension(&features));
        assert_eq!(map(&old).len(), 5);
    }
}

#[test]
fn broken_extensions_are_refused() {
    let at = usize::try_from(DATA + 5 * CLUSTER).unwrap();
    let of = |features: &[Vec<u8>]| extension(features);
    let sound = bitmap(50, 2, &[0]);
    let broken_bitmap = |data: &[u8]| extension(&[feature(DIRTY_BITMAP, 0, data)]);
    let mut wrong_magic = of(&[]);
    wrong_magic[7] = 0;
    let mut wrong_sum = of(&[]);
    put(&mut wrong_sum, 8, &[0; 16]);
    let mut wrong_content = of(&[]);
    wrong_content[4095] = 1;
    let mut too_large = of(&[feature(DIRTY_BITMAP, 0, &sound)]);
    put(&mut too_large, 24 + 16, &4049_u32.to_le_bytes());
    seal(&mut too_large);
    // Up to the last eight bytes of the cluster.
    let endless = of(&[feature(DIRTY_BITMAP, 0, &[sound.as_slice(), &[0; 4000]].concat())]);
    let mut table_over_end = sound.clone();
    put(&mut table_over_end, 28, &2_u32.to_le_bytes());
    // The next feature is at a multiple of eight bytes.
    let odd = feature(DIRTY_BITMAP, 0, &[sound.as_slice(), &[0]].concat());
    let cases: [(Vec<u8>, ErrorKind, &str); 17] = [
        (
            wrong_magic,
            ErrorKind::Corrupt,
            "format extension has the magic 0x00234cef23dcea87, expected 0xab234cef23dcea87 (at \
             file offset 0x6000)",
        ),
        (wrong_sum, ErrorKind::Corrupt, "format extension has the checksum [00, 00, "),
        (wrong_content, ErrorKind::Corrupt, "format extension has the checksum ["),
        (
            of(&[feature(0, 1, &[])]),
            ErrorKind::Unsupported,
            "feature 0x0 has flags 0x1, none are supported (at file offset 0x6018)",
        ),
        (
            of(&[feature(DIRTY_BITMAP, 2, &sound)]),
            ErrorKind::Unsupported,
            "feature 0x20385fae252cb34a has flags 0x2, none are supported (at file offset 0x6018)",
        ),
        (
            of(&[feature(0x1234, 0, &[])]),
            ErrorKind::Unsupported,
            "feature 0x1234 of the format extension is unknown (at file offset 0x6018)",
        ),
        (
            of(&[feature(DIRTY_BITMAP, 0, &sound), feature(0x1234, 0, &[])]),
            ErrorKind::Unsupported,
            "feature 0x1234 of the format extension is unknown (at file offset 0x6058)",
        ),
        (
            of(&[odd, feature(0x1234, 0, &[])]),
            ErrorKind::Unsupported,
            "feature 0x1234 of the format extension is unknown (at file offset 0x6060)",
        ),
        (
            too_large,
            ErrorKind::Corrupt,
            "feature 0x20385fae252cb34a has 4049 bytes of data, its cluster has room for 4048 (at \
             file offset 0x6018)",
        ),
        (
            endless,
            ErrorKind::Corrupt,
            "features of the format extension do not end inside its cluster (at file offset \
             0x6ff8)",
        ),
        (
            broken_bitmap(&sound[..31]),
            ErrorKind::Corrupt,
            "dirty bitmap has 31 bytes of data, it needs 32 (at file offset 0x6030)",
        ),
        (
            broken_bitmap(&bitmap(51, 2, &[0])),
            ErrorKind::Corrupt,
            "dirty bitmap is of 51 sectors, the disk has 50 (at file offset 0x6030)",
        ),
        (
            broken_bitmap(&bitmap(50, 3, &[0])),
            ErrorKind::Corrupt,
            "granularity of the dirty bitmap is 3 sectors, expected a power of two up to 4194304 \
             (at file offset 0x6030)",
        ),
        (
            broken_bitmap(&bitmap(50, 1 << 23, &[0])),
            ErrorKind::Corrupt,
            "granularity of the dirty bitmap is 8388608 sectors, expected a power of two up to \
             4194304 (at file offset 0x6030)",
        ),
        (
            broken_bitmap(&table_over_end),
            ErrorKind::Corrupt,
            "dirty bitmap has 40 bytes of data, it needs 48 (at file offset 0x6030)",
        ),
        (
            broken_bitmap(&bitmap(50, 2, &[0, 0])),
            ErrorKind::Corrupt,
            "table of the dirty bitmap has 2 entries, expected 1 (at file offset 0x6030)",
        ),
        (
            broken_bitmap(&bitmap(50, 2, &[])),
            ErrorKind::Corrupt,
            "table of the dirty bitmap has 0 entries, expected 1 (at file offset 0x6030)",
        ),
    ];
    for (cluster, kind, text) in cases {
        let disk = extended().with_extension(cluster);
        assert_eq!(disk.pieces[0].0, at as u64, "the texts name the place");
        let (found, said) = refusal(disk.bytes());
        assert_eq!(found, kind, "{said}");
        assert!(said.starts_with(&format!("parallels: {text}")), "{said}");
    }
}

#[test]
fn the_checksum_is_over_all_of_a_large_cluster() {
    let cluster: usize = 3 << 20;
    let mut bytes: Vec<u8> = (0..cluster).map(|i| (i / 4096).to_le_bytes()[0]).collect();
    put(&mut bytes, 24, &[0; 24]);
    seal(&mut bytes);
    let at = cluster as u64;
    let mut disk = Disk::new(EXTENDED, 6144, &[0], 0);
    (disk.cluster_sectors, disk.data_start, disk.extension) = (6144, 6144, at / 512);
    disk.pieces = vec![(at, bytes.clone())];
    assert_eq!(map(&disk), [(at, Status::Absent)]);
    for flipped in [1 << 20, (2 << 20) + 24, cluster - 1] {
        let mut bytes = bytes.clone();
        bytes[flipped] ^= 1;
        disk.pieces = vec![(at, bytes)];
        assert!(refusal(disk.bytes()).1.contains("format extension has the checksum"));
    }
}

#[test]
fn the_bitmaps_table_fits_the_disk() {
    // 1024 clusters of 4096 bytes: an entry for each 32768 sectors, if a bit is for one.
    let sectors = 3 * 32768 - 8;
    let table = vec![0; usize::try_from(sectors / 8).unwrap()];
    for (granularity, entries) in [(1, 3), (2, 2), (4, 1), (1 << 22, 1)] {
        let mut disk = Disk::new(EXTENDED, sectors, &table, 12);
        for count in 1..=4 {
            let data = bitmap(sectors, granularity, &vec![0; count]);
            disk = disk.with_extension(extension(&[feature(DIRTY_BITMAP, 0, &data)]));
            let opened = open(&Parallels, memory(&disk));
            assert_eq!(opened.is_ok(), count == entries, "{granularity} {count}");
        }
    }
}

#[test]
fn an_extension_outside_the_file_is_refused() {
    for sector in [48, u64::MAX, 1 << 55, (1 << 54) - 1] {
        let disk = Disk { extension: sector, ..extended() };
        assert_eq!(
            refusal(disk.bytes()),
            (
                ErrorKind::Corrupt,
                format!(
                    "parallels: format extension is in sector {sector}, outside the file of 24576 \
                     bytes (at file offset 0x38)"
                )
            )
        );
    }
    // Cut within its cluster, behind its last feature.
    let mut bytes = extended().with_extension(extension(&[])).bytes();
    bytes.truncate(bytes.len() - 512);
    assert!(refusal(bytes).1.contains("format extension is in sector 48, outside the file"));
    let huge = Disk { cluster_sectors: 131_073, ..extended().with_extension(extension(&[])) };
    assert_eq!(refusal(huge.bytes()).0, ErrorKind::Limit);
}

#[test]
fn damaged_images_are_mapped_or_refused() {
    for disk in [extended(), old(), with_bitmaps()] {
        assert!(check_hostile(&Parallels, &disk.bytes(), 4000) > 4000);
    }
}

/// A damaged extension rarely gets past its checksum; here it does.
#[test]
fn damaged_extensions_with_a_right_checksum_are_sound_or_refused() {
    let mut random = testkit::Random::new(7);
    let data = bitmap(50, 2, &[1]);
    let sound = extension(&[feature(DIRTY_BITMAP, 0, &data), feature(DIRTY_BITMAP, 0, &data)]);
    let mut opened = 0;
    for _ in 0..4000 {
        let mut mutant = sound.clone();
        for _ in 0..=random.below(3) {
            mutant[24 + random.below(160)] = random.next().to_le_bytes()[0];
        }
        seal(&mut mutant);
        let disk = extended().with_extension(mutant);
        if open(&Parallels, memory(&disk)).is_ok() {
            assert_eq!(map(&disk), map(&extended()));
            opened += 1;
        }
    }
    assert!((100..3900).contains(&opened), "{opened}");
}

/// No byte of the disk is in the clusters of entries past its end.
#[test]
fn spare_entries_are_not_examined() {
    for disk in [extended(), old()] {
        for entry in [1, 7, 42 << 20, u32::MAX] {
            let mut bytes = disk.bytes();
            // The disk has seven clusters, the table eight entries.
            put(&mut bytes, 64 + 28, &u32::to_le_bytes(entry));
            for qemu in [BEFORE, QemuVersion::NEWEST] {
                let found = map_of(qemu, bytes.clone());
                assert_eq!(found, (map(&disk), Vec::new()), "{entry:#x}");
            }
        }
    }
}
