//! The plugin as a whole: what opens, what does not, and what is mapped.

mod parents;

use std::sync::Arc;

use instar_core::testkit::{
    self, Random, check_format, check_hostile, check_source, data, extents, open, open_with, probe,
    strict,
};
use instar_core::{Confidence, Context, ErrorKind, MemoryStorage, Place, QemuVersion, Status};
use pretty_assertions::assert_eq;

use crate::Vhd;
use crate::disk::UNUSED;
use crate::samples::{
    self, BLOCK, Disk, Footer, STRIDE, TABLE, differencing, dynamic, dynamic_tiny_blocks, fixed,
    put, seal,
};

fn memory(disk: &Disk) -> MemoryStorage {
    MemoryStorage::from_bytes(disk.bytes())
}

fn map(storage: MemoryStorage) -> Vec<(u64, Status)> {
    extents(open(&Vhd, storage).unwrap().as_mut()).unwrap()
}

/// The refusal, with its kind.
fn refusal(bytes: Vec<u8>) -> (ErrorKind, String) {
    testkit::refusal(&Vhd, MemoryStorage::from_bytes(bytes))
}

/// The warnings of opening and mapping `bytes`.
fn warnings(bytes: Vec<u8>) -> Vec<String> {
    testkit::warnings(&Vhd, MemoryStorage::from_bytes(bytes))
}

fn over_holes(at: u64) -> Status {
    Status::DataOverHoles(Place::at(at))
}

#[test]
fn laws_hold_for_every_sample() {
    assert_eq!(check_format(&Vhd, &samples::all()).samples, 4);
}

#[test]
fn a_dynamic_disk_has_data_where_blocks_are_and_zeros_elsewhere() {
    let at = |entry: u32| data(u64::from(entry) * 512 + 512);
    assert_eq!(
        map(memory(&dynamic())),
        [
            (BLOCK, Status::Zero),
            (BLOCK, at(4 + STRIDE)),
            (BLOCK, at(4)),
            (BLOCK, at(4 + 4 * STRIDE)),
            (2 * BLOCK, Status::Zero),
            (1024, at(4 + 2 * STRIDE)),
        ]
    );
}

#[test]
fn tiny_blocks_have_no_bitmap_and_merge() {
    assert_eq!(
        map(memory(&dynamic_tiny_blocks())),
        [
            (1024, data(8 * 512)),
            (512, Status::Zero),
            (512, data(11 * 512)),
            (512, data(10 * 512)),
            (512, data(9 * 512)),
        ]
    );
}

#[test]
fn a_table_larger_than_a_window_is_walked_to_its_end() {
    const ENTRIES: usize = 600_000;
    let mut table = vec![UNUSED; ENTRIES];
    // The window's border lies between 262143 and 262144.
    let first = u32::try_from((TABLE + 4 * ENTRIES as u64).div_ceil(512)).unwrap();
    for (count, block) in (0..).zip([3, 262_143, 262_144, 524_287, ENTRIES - 1]) {
        table[block] = first + STRIDE * count;
    }
    let disk = Disk::new(3, BLOCK * ENTRIES as u64, &table);
    let at = |count: u32| (BLOCK, data(u64::from(first + STRIDE * count) * 512 + 512));
    let unused = |blocks: u64| (BLOCK * blocks, Status::Zero);
    assert_eq!(
        map(memory(&disk)),
        [
            unused(3),
            at(0),
            unused(262_139),
            at(1),
            at(2),
            unused(262_142),
            at(3),
            unused(75_711),
            at(4),
        ]
    );
    let mut bytes = disk.bytes();
    let count = check_source(|| open(&Vhd, MemoryStorage::from_bytes(bytes.clone())));
    assert_eq!(count, 9);
    // And checked to its end.
    put(&mut bytes, usize::try_from(TABLE).unwrap() + 4 * (ENTRIES - 2), &[1; 4]);
    assert!(refusal(bytes).1.contains("block 599998 (entry 0x1010101)"));
}

#[test]
fn a_disk_of_2040_gib_without_blocks_is_one_extent() {
    let blocks = 1_044_480;
    let mut disk = Disk::new(3, 0xff00_0000 * 512, &vec![UNUSED; blocks]);
    disk.block_size = 2 << 20;
    assert_eq!(map(memory(&disk)), [(0xff00_0000 * 512, Status::Zero)]);
}

#[test]
fn a_differencing_disk_shows_its_own_sectors() {
    let base = |entry: u32| u64::from(entry) * 512 + 512;
    assert_eq!(
        map(memory(&differencing())),
        [
            (BLOCK, Status::Absent),
            (1024, data(base(16))),
            (1024, Status::Absent),
            (512, data(base(16) + 2048)),
            (1024, Status::Absent),
            (512, data(base(16) + 3584)),
            (BLOCK, Status::Absent),
            (BLOCK, data(base(16 + STRIDE))),
            (2 * BLOCK, Status::Absent),
        ]
    );
}

/// No writer makes such an image, whose map may be much larger than its file.
#[test]
fn bitmaps_that_are_named_many_times_are_noticed() {
    let many = |blocks: u32| {
        let size = u64::from(blocks) * BLOCK;
        let mut disk = Disk::new(4, size, &vec![40; blocks as usize]);
        (disk.locators, disk.parent_name) = (differencing().locators, differencing().parent_name);
        let storage = memory(&disk);
        // Up to the block, its bitmap, its data and the footer.
        assert_eq!(disk.bytes().len(), (40 + 1 + 8 + 1) * 512);
        let mut source = open_with(&Vhd, storage, &testkit::strict()).unwrap();
        extents(source.as_mut())
    };
    assert!(many(50).is_ok());
    let text =
        "more sector bitmaps are named than the file has room for, 50: some of them many times";
    assert!(many(51).unwrap_err().to_string().contains(text));
}

#[test]
fn a_block_whose_bitmap_is_a_hole_of_the_file_has_no_sector() {
    let bytes = differencing().bytes();
    let (first, second) = (16 * 512, 16 * 512 + usize::try_from(STRIDE).unwrap() * 512);
    let sparse = || {
        MemoryStorage::new(0)
            .with_data(0, &bytes[..first])
            .with_data(second as u64, &bytes[second..])
    };
    assert_eq!(
        map(sparse()),
        [
            (3 * BLOCK, Status::Absent),
            (BLOCK, data(second as u64 + 512)),
            (2 * BLOCK, Status::Absent),
        ]
    );
    assert_eq!(check_source(|| open(&Vhd, sparse())), 3);
}

#[test]
fn bitmaps_of_large_blocks_take_more_than_a_sector() {
    let size = 8 << 20;
    let mut disk = Disk { block_size: size, ..differencing() };
    disk.footer.current_size = 2 * u64::from(size);
    disk.table = vec![UNUSED, 16];
    // The last sector but one, in the fourth sector of the bitmap, and nothing else.
    disk.pieces = vec![(16 * 512, vec![0; 2048]), (16 * 512 + 2047, vec![0b10])];
    let last = u64::from(size) - 1024;
    assert_eq!(
        map(memory(&disk)),
        [
            (u64::from(size) + last, Status::Absent),
            (512, data(16 * 512 + 2048 + last)),
            (512, Status::Absent),
        ]
    );
}

#[test]
fn a_fixed_disk_is_its_file_without_the_footer() {
    assert_eq!(map(fixed()), [(16384, over_holes(0))]);
}

#[test]
fn a_footer_of_511_bytes_is_found() {
    let mut bytes = vec![7; 4096];
    bytes.extend(Footer::new(2, 4096).bytes());
    bytes.pop();
    assert_eq!(probe(&Vhd, &MemoryStorage::from_bytes(bytes.clone())), Confidence::Verified);
    assert_eq!(map(MemoryStorage::from_bytes(bytes)), [(4096, over_holes(0))]);
}

#[test]
fn the_size_of_a_fixed_disk_is_what_the_footer_says() {
    for size in [0, 512, 1 << 40] {
        let mut bytes = vec![7; 4096];
        bytes.extend(Footer::new(2, size).bytes());
        let source = open(&Vhd, MemoryStorage::from_bytes(bytes)).unwrap();
        assert_eq!(source.virtual_size(), size);
    }
}

#[test]
fn a_fixed_disk_with_a_dynamic_header_is_mapped_as_fixed() {
    let mut disk = dynamic();
    disk.footer = Footer { header_offset: 512, ..Footer::new(2, 8 * BLOCK) };
    assert_eq!(map(memory(&disk)), [(8 * BLOCK, over_holes(0))]);
    // And refused as a dynamic one would be.
    disk.table_offset = 1 << 40;
    let mut bytes = Disk { table_offset: TABLE, ..disk.clone() }.bytes();
    put(&mut bytes, 512, &disk.header());
    assert_eq!(refusal(bytes).0, ErrorKind::Corrupt);
}

#[test]
fn the_size_depends_on_the_version_of_qemu() {
    let mut footer = Footer::new(2, 4096);
    footer.creator = *b"vbox";
    footer.geometry = (1, 2, 3);
    for (minor, size) in [(10, 4096), (9, 6 * 512)] {
        let bytes = [vec![1; 4096], footer.bytes()].concat();
        let qemu = QemuVersion::new(minor, 0);
        let context = Arc::new(Context { qemu, ..Context::default() });
        let source = testkit::open_with(&Vhd, MemoryStorage::from_bytes(bytes), &context).unwrap();
        assert_eq!(source.virtual_size(), size);
    }
}

#[test]
fn reserved_types_are_read_as_dynamic() {
    for disk_type in [0, 1, 5, 6, 99] {
        let mut disk = dynamic();
        disk.footer.disk_type = disk_type;
        assert_eq!(map(memory(&disk)), map(memory(&dynamic())));
        assert_eq!(
            warnings(disk.bytes()),
            [format!("disk type is {disk_type}, which is reserved; read as a dynamic disk")]
        );
    }
}

#[test]
fn without_the_copy_in_front_the_footer_at_the_end_is_used() {
    for disk in [dynamic(), differencing()] {
        let headless = Disk { headless: true, ..disk.clone() };
        assert_eq!(probe(&Vhd, &memory(&headless)), Confidence::Hint);
        assert_eq!(map(memory(&headless)), map(memory(&disk)));
        assert_eq!(
            warnings(headless.bytes()),
            ["the copy of the footer at the start of the file is missing; going by the footer \
              at its end"]
        );
    }
}

#[test]
fn a_block_over_the_metadata_is_a_warning() {
    // The first sectors: footer, header, two of them, and the table.
    for (sector, is_over) in [(0, true), (1, true), (3, true), (4, false)] {
        let mut bytes = dynamic().bytes();
        put(&mut bytes, usize::try_from(TABLE).unwrap() + 4, &u32::to_be_bytes(sector));
        let text = format!(
            "block 1 lies at sector {sector}, over the headers and tables at the start of the file"
        );
        let expected = if is_over { vec![text] } else { vec![] };
        assert_eq!(warnings(bytes.clone()), expected);
        assert_eq!(map(MemoryStorage::from_bytes(bytes))[1].1, data(u64::from(sector + 1) * 512));
    }
}

#[test]
fn a_wrong_header_checksum_is_a_warning() {
    let mut bytes = dynamic().bytes();
    put(&mut bytes, 512 + 700, b"?");
    assert_eq!(warnings(bytes.clone()), ["the checksum of the dynamic header is wrong"]);
    assert_eq!(map(MemoryStorage::from_bytes(bytes)), map(memory(&dynamic())));
    assert_eq!(warnings(dynamic().bytes()), [""; 0]);
}

#[test]
fn probing() {
    use Confidence::{Hint, Magic, No, Verified};
    let mut wrong = dynamic().bytes();
    put(&mut wrong, 9, b"?");
    let tail = |disk_type, damage: usize| {
        let mut footer = Footer::new(disk_type, 4096).bytes();
        footer[9] ^= damage.to_le_bytes()[0];
        [vec![1; 4096], footer].concat()
    };
    for (bytes, confidence) in [
        (Vec::new(), No),
        (vec![0; 5000], No),
        (b"conectix".to_vec(), Magic),
        (b"conecti".to_vec(), No),
        (dynamic().bytes(), Verified),
        (differencing().bytes(), Verified),
        (wrong, Magic),
        (tail(2, 0), Verified),
        (tail(3, 0), Hint),
        (tail(4, 0), Hint),
        (tail(5, 0), Hint),
        (tail(2, 1), Hint),
        ([tail(2, 0), vec![0]].concat(), No),
        // Old writers left out the last byte; more than that is not made up.
        (tail(2, 0)[..4096 + 511].to_vec(), Verified),
        (tail(2, 0)[..4096 + 510].to_vec(), No),
        (tail(2, 0)[..4096 + 90].to_vec(), No),
        (tail(2, 1)[..4096 + 511].to_vec(), Hint),
        (dynamic().bytes()[..511].to_vec(), Magic),
        (dynamic().bytes()[..90].to_vec(), Magic),
    ] {
        let length = bytes.len();
        assert_eq!(probe(&Vhd, &MemoryStorage::from_bytes(bytes)), confidence, "{length} bytes");
    }
}

#[test]
fn what_is_no_vhd_is_refused() {
    assert_eq!(
        refusal(Vec::new()),
        (ErrorKind::WrongFormat, "vhd: the file is empty, a footer needs 512 bytes".into())
    );
    let text = "vhd: no footer: neither the first nor the last sector starts with 'conectix'";
    assert_eq!(refusal(vec![1; 1000]), (ErrorKind::WrongFormat, text.into()));
}

#[test]
fn broken_footers_are_refused() {
    let mut bytes = dynamic().bytes();
    put(&mut bytes, 64, &[1, 2, 3, 4]);
    let (kind, text) = refusal(bytes);
    assert_eq!(kind, ErrorKind::Corrupt);
    assert!(text.starts_with("vhd: footer checksum is 0x01020304, expected 0x"), "{text}");
    assert!(text.ends_with("(at file offset 0x40)"), "{text}");

    let bytes = [vec![1; 512], Footer::new(5, 512).bytes()].concat();
    assert_eq!(
        refusal(bytes),
        (
            ErrorKind::Unsupported,
            "vhd: disk type is 5, allowed without a footer at the start of the file are 2 \
             (fixed), 3 (dynamic) and 4 (differencing) (at file offset 0x23c)"
                .into()
        )
    );
    let bytes = [vec![1; 512], Footer::new(2, 1 << 60).bytes()].concat();
    assert_eq!(
        refusal(bytes),
        (
            ErrorKind::Limit,
            "vhd: disk size is 2251799813685248 sectors, at most 4278190080 are allowed \
             (at file offset 0x230)"
                .into()
        )
    );
}

#[test]
fn broken_headers_are_refused() {
    type Break = fn(&mut Vec<u8>);
    let cases: [(Break, ErrorKind, &str); 9] = [
        (
            |bytes| {
                put(bytes, 16, &u64::MAX.to_be_bytes());
                let mut footer = bytes[..512].to_vec();
                seal(&mut footer, 64);
                put(bytes, 0, &footer);
            },
            ErrorKind::Corrupt,
            "dynamic header (1024 bytes at 0xffffffffffffffff) is outside the file of 25600 bytes",
        ),
        (
            |bytes| put(bytes, 512, b"C"),
            ErrorKind::Corrupt,
            "dynamic header does not start with 'cxsparse' (at file offset 0x200)",
        ),
        (
            |bytes| put(bytes, 512 + 32, &0x0030_0000_u32.to_be_bytes()),
            ErrorKind::Corrupt,
            "block size is 3145728, expected a power of two from 512 (at file offset 0x220)",
        ),
        (
            |bytes| put(bytes, 512 + 32, &256_u32.to_be_bytes()),
            ErrorKind::Corrupt,
            "block size is 256, expected a power of two from 512 (at file offset 0x220)",
        ),
        (
            |bytes| put(bytes, 512 + 28, &6_u32.to_be_bytes()),
            ErrorKind::Corrupt,
            "block allocation table has 6 entries, the disk needs 7 (at file offset 0x21c)",
        ),
        (
            |bytes| put(bytes, 512 + 28, &0x1fff_ff81_u32.to_be_bytes()),
            ErrorKind::Limit,
            "block allocation table has 536870785 entries, at most 536870784 are allowed \
             (at file offset 0x21c)",
        ),
        (
            |bytes| put(bytes, 512 + 16, &(u64::MAX - 3).to_be_bytes()),
            ErrorKind::Corrupt,
            "block allocation table (8 entries at 0xfffffffffffffffc) is outside the file of \
             25600 bytes (at file offset 0x210)",
        ),
        (
            |bytes| put(bytes, 512 + 28, &0x1fff_ff80_u32.to_be_bytes()),
            ErrorKind::Corrupt,
            "block allocation table (536870784 entries at 0x600) is outside the file of \
             25600 bytes (at file offset 0x210)",
        ),
        // The disk's last entry.
        (
            |bytes| put(bytes, 1536 + 24, &42_u32.to_be_bytes()),
            ErrorKind::Corrupt,
            "block 6 (entry 0x2a) ends at 0x6600, outside the file of 25600 bytes: the image \
             has been truncated (at file offset 0x618)",
        ),
    ];
    for (damage, kind, text) in cases {
        let mut bytes = dynamic().bytes();
        assert_eq!(bytes.len(), 25_600, "the texts name the length");
        damage(&mut bytes);
        assert_eq!(refusal(bytes), (kind, format!("vhd: {text}")));
    }
}

/// No byte of the disk is in the blocks of spare entries, so they are neither refused nor warned
/// about.
#[test]
fn spare_entries_are_not_examined() {
    for disk in [dynamic(), differencing()] {
        // A few, and more than one window of the table.
        for more in [3, 300_000] {
            let table = [disk.table.clone(), vec![UNUSED; more]].concat();
            let shift = u32::try_from((4 * more).div_ceil(512)).unwrap();
            let table = table.iter().map(|entry| match *entry {
                UNUSED => UNUSED,
                stored => stored + shift,
            });
            let pieces = disk.pieces.iter().cloned();
            let pieces = pieces.map(|(at, piece)| (at + 512 * u64::from(shift), piece)).collect();
            let disk = Disk { table: table.collect(), pieces, ..disk.clone() };
            let expected = map(memory(&disk));
            let start = usize::try_from(TABLE).unwrap() + 4 * (disk.table.len() - more);
            for entry in [0, 1, 42 << 20, UNUSED - 1] {
                let mut bytes = disk.bytes();
                for index in 0..more {
                    put(&mut bytes, start + 4 * index, &u32::to_be_bytes(entry));
                }
                let mut source = open_with(&Vhd, MemoryStorage::from_bytes(bytes), &strict())
                    .unwrap_or_else(|error| panic!("{more} spare entries {entry:#x}: {error}"));
                assert_eq!(extents(source.as_mut()).unwrap(), expected, "{more} {entry:#x}");
            }
        }
    }
}

#[test]
fn a_block_may_end_with_the_file_but_not_later() {
    let mut bytes = dynamic().bytes();
    let last = u32::try_from(bytes.len() / 512).unwrap() - STRIDE;
    put(&mut bytes, 1536, &last.to_be_bytes());
    assert!(open(&Vhd, MemoryStorage::from_bytes(bytes.clone())).is_ok());
    put(&mut bytes, 1536, &(last + 1).to_be_bytes());
    assert!(refusal(bytes.clone()).1.contains("block 0 "));
    // A started sector counts as a whole one.
    put(&mut bytes, 1536, &last.to_be_bytes());
    bytes.pop();
    assert!(open(&Vhd, MemoryStorage::from_bytes(bytes)).is_ok());
    // So may the table.
    let mut bytes = Disk::new(3, BLOCK, &[UNUSED]).bytes();
    bytes.truncate(2048);
    assert!(open(&Vhd, MemoryStorage::from_bytes(bytes.clone())).is_ok());
    bytes.truncate(1536);
    assert!(refusal(bytes).1.contains("block allocation table (1 entries at 0x600) is outside"));
    // A file too short for any block is fine as long as there is none.
    assert_eq!(map(memory(&Disk::new(3, BLOCK, &[UNUSED]))), [(BLOCK, Status::Zero)]);
    let mut disk = Disk::new(3, 1 << 31, &[UNUSED]);
    disk.block_size = 1 << 31;
    let mut bytes = disk.bytes();
    put(&mut bytes, 1536, &[0; 4]);
    assert!(refusal(bytes).1.contains("block 0 (entry 0x0)"));
}

#[test]
fn old_disks_of_xenserver_have_their_bits_in_the_other_order() {
    let blocks = |creator: &[u8; 4], version: u32| {
        let mut disk = differencing();
        disk.footer.creator = *creator;
        disk.footer.creator_version = version;
        let all = map(memory(&disk));
        // Of block 1, whose bitmap starts with 11001001.
        let mut end = 0;
        let ends = all.iter().map(|(length, status)| {
            end += length;
            (end / 512, *status == Status::Absent)
        });
        ends.filter(|(end, _)| (8..=16).contains(end)).collect::<Vec<_>>()
    };
    let as_specified =
        [(8, true), (10, false), (12, true), (13, false), (15, true), (16, false)].to_vec();
    assert_eq!(blocks(b"win ", 1), as_specified);
    assert_eq!(blocks(b"tap\0", 0x0001_0003), as_specified);
    let reversed = [(9, false), (11, true), (12, false), (14, true), (16, false)];
    assert_eq!(blocks(b"tap\0", 1)[1..], reversed);
}

#[test]
fn a_fixed_disk_that_does_not_end_at_its_footer_is_told_of() {
    let tail = |size| [vec![1; 4096], Footer::new(2, size).bytes()].concat();
    assert_eq!(warnings(tail(4096)), [""; 0]);
    for size in [2048, 4608] {
        let text = format!("the disk of {size} bytes does not end where its footer is, at 0x1000");
        assert_eq!(warnings(tail(size)), [text]);
        assert_eq!(probe(&Vhd, &MemoryStorage::from_bytes(tail(size))), Confidence::Fallback);
    }
}

#[test]
fn damaged_images_are_mapped_or_refused() {
    let small_fixed = [vec![9; 2048], Footer::new(2, 2048).bytes()].concat();
    for bytes in [
        dynamic().bytes(),
        dynamic_tiny_blocks().bytes(),
        differencing().bytes(),
        Disk { headless: true, ..dynamic() }.bytes(),
        small_fixed,
    ] {
        assert!(check_hostile(&Vhd, &bytes, 4000) > 4000);
    }
}

/// A damaged footer rarely gets past its checksum; here it does.
#[test]
fn damaged_footers_with_a_right_checksum_are_mapped_or_refused() {
    let mut random = Random::new(7);
    let mut mapped = 0;
    for disk in [dynamic(), differencing()] {
        let bytes = disk.bytes();
        for _ in 0..4000 {
            let mut mutant = bytes.clone();
            let mut footer = mutant[..512].to_vec();
            for _ in 0..=random.below(3) {
                footer[8 + random.below(56)] = random.next().to_le_bytes()[0];
            }
            seal(&mut footer, 64);
            put(&mut mutant, 0, &footer);
            let Ok(mut source) = open(&Vhd, MemoryStorage::from_bytes(mutant)) else {
                continue;
            };
            let size = source.virtual_size();
            let total: u64 = extents(source.as_mut()).unwrap().iter().map(|e| e.0).sum();
            assert_eq!(total, size);
            mapped += 1;
        }
    }
    assert!(mapped > 100, "{mapped}");
}
