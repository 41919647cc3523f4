//! The plugin as a whole: what opens, what does not, and what is mapped.

use instar_core::testkit::{
    self, check_format, check_hostile, check_source, data, extents, open, open_with, probe, strict,
};
use instar_core::{Confidence, ErrorKind, MemoryStorage, Place, Role, Status};
use pretty_assertions::assert_eq;

use crate::Vdi;
use crate::disk::FREE;
use crate::samples::{self, BLOCK, DATA, Disk, MAP, dynamic, fixed, put, with_extra_data};

fn memory(disk: &Disk) -> MemoryStorage {
    MemoryStorage::from_bytes(disk.bytes())
}

fn map(disk: &Disk) -> Vec<(u64, Status)> {
    extents(open(&Vdi, memory(disk)).unwrap().as_mut()).unwrap()
}

/// The refusal, with its kind.
fn refusal(bytes: Vec<u8>) -> (ErrorKind, String) {
    testkit::refusal(&Vdi, MemoryStorage::from_bytes(bytes))
}

/// The warnings of opening and mapping `disk`.
fn warnings(disk: &Disk) -> Vec<String> {
    testkit::warnings(&Vdi, memory(disk))
}

/// Where the block with this entry is, in most samples.
fn at(entry: u64) -> u64 {
    u64::from(DATA) + entry * BLOCK
}

#[test]
fn laws_hold_for_every_sample() {
    assert_eq!(check_format(&Vdi, &samples::all()).samples, 4);
}

#[test]
fn a_dynamic_disk_has_data_where_blocks_are_and_zeros_elsewhere() {
    assert_eq!(
        map(&dynamic()),
        [
            (BLOCK, Status::Zero),
            (2 * BLOCK, data(at(1))),
            (BLOCK, data(at(0))),
            (2 * BLOCK, Status::Zero),
            (1024, data(at(4))),
        ]
    );
}

#[test]
fn holes_of_the_file_are_looked_for_in_a_static_disk() {
    assert_eq!(map(&fixed()), [(4 * BLOCK, Status::DataOverHoles(Place::at(at(0))))]);
    // What is not stored, which no writer does, is zero here as well.
    let disk = Disk { image_type: 2, ..dynamic() };
    assert_eq!(map(&disk).first(), Some(&(BLOCK, Status::Zero)));
}

#[test]
fn extra_data_in_front_of_a_block_is_not_the_guests() {
    assert_eq!(
        map(&with_extra_data()),
        [
            (BLOCK, data(u64::from(DATA) + 512)),
            (BLOCK, data(u64::from(DATA) + 4608 + 512)),
            (BLOCK, Status::Zero),
        ]
    );
}

#[test]
fn blocks_may_have_any_size_that_is_a_power_of_two() {
    for block_size in [512, 1 << 16, 1 << 20, 1 << 25] {
        let size = u64::from(block_size);
        let mut disk = Disk { block_size, ..Disk::new(2 * size, &[FREE, 0]) };
        disk.data_offset = 1 << 20;
        assert_eq!(map(&disk), [(size, Status::Zero), (size, data(1 << 20))]);
    }
    let disk = Disk { block_size: 1 << 31, ..Disk::new(2 << 31, &[FREE, FREE]) };
    assert_eq!(map(&disk), [(2 << 31, Status::Zero)]);
}

#[test]
fn the_size_of_the_disk_is_rounded_up_to_sectors() {
    for (size, rounded) in [(0, 0), (1, 512), (511, 512), (4096, 4096), (4097, 4608)] {
        let source = open(&Vdi, memory(&Disk::new(size, &[0, FREE]))).unwrap();
        assert_eq!(source.virtual_size(), rounded);
    }
}

#[test]
fn a_map_larger_than_a_window_is_walked_to_its_end() {
    const ENTRIES: usize = 600_000;
    let mut table = vec![FREE; ENTRIES];
    // The window's border lies between 262143 and 262144.
    for (count, block) in (0..).zip([3, 262_143, 262_144, 524_287, ENTRIES - 1]) {
        table[block] = count;
    }
    let mut disk = Disk::new(BLOCK * ENTRIES as u64, &table);
    disk.data_offset = 4 << 20;
    let stored = |count: u64, blocks: u64| (BLOCK * blocks, data((4 << 20) + count * BLOCK));
    let free = |blocks: u64| (BLOCK * blocks, Status::Zero);
    assert_eq!(
        map(&disk),
        [
            free(3),
            stored(0, 1),
            free(262_139),
            stored(1, 2),
            free(262_142),
            stored(3, 1),
            free(75_711),
            stored(4, 1),
        ]
    );
    assert_eq!(check_source(|| open(&Vdi, memory(&disk))), 8);
}

#[test]
fn other_types_are_read_as_dynamic() {
    for image_type in [0, 3, 4, 99] {
        let disk = Disk { image_type, ..dynamic() };
        assert_eq!(map(&disk), map(&dynamic()));
        assert_eq!(
            warnings(&disk),
            [format!(
                "image type is {image_type}, neither 1 (dynamic) nor 2 (static); read as dynamic"
            )]
        );
    }
    assert_eq!(warnings(&dynamic()), [""; 0]);
    assert_eq!(warnings(&fixed()), [""; 0]);
}

#[test]
fn probing() {
    let mut other = dynamic().bytes();
    other[0x43] ^= 1;
    let mut unknown_version = dynamic().bytes();
    unknown_version[0x44] = 7;
    for (bytes, confidence) in [
        (Vec::new(), Confidence::No),
        (vec![0; 5000], Confidence::No),
        (dynamic().bytes(), Confidence::Verified),
        (fixed().bytes(), Confidence::Verified),
        (dynamic().bytes()[..0x44].to_vec(), Confidence::Magic),
        (dynamic().bytes()[..0x43].to_vec(), Confidence::No),
        (dynamic().bytes()[..0x1c8].to_vec(), Confidence::Verified),
        (dynamic().bytes()[..0x183].to_vec(), Confidence::Magic),
        (other, Confidence::No),
        (unknown_version, Confidence::Magic),
    ] {
        let length = bytes.len();
        assert_eq!(probe(&Vdi, &MemoryStorage::from_bytes(bytes)), confidence, "{length} bytes");
    }
}

#[test]
fn what_is_no_vdi_is_refused() {
    let text = "vdi: header is cut short: the file has 0 bytes, at least 68 are needed (at file \
                offset 0x40)";
    assert_eq!(refusal(Vec::new()), (ErrorKind::WrongFormat, text.into()));
    let text = "vdi: signature is 0x01010101, expected 0xbeda107f (at file offset 0x40)";
    assert_eq!(refusal(vec![1; 1000]), (ErrorKind::WrongFormat, text.into()));
}

#[test]
fn broken_headers_are_refused() {
    type Break = fn(&mut Disk);
    let cases: [(Break, ErrorKind, &str); 10] = [
        (
            |disk| disk.version = 0x0001_0002,
            ErrorKind::Unsupported,
            "version is 1.2, supported is 1.1 (at file offset 0x44)",
        ),
        (
            |disk| disk.map_offset = 0x201,
            ErrorKind::Corrupt,
            "block map offset is 0x201, expected a multiple of 512 (at file offset 0x154)",
        ),
        (
            |disk| disk.data_offset = 0x1001,
            ErrorKind::Corrupt,
            "data offset is 0x1001, expected a multiple of 512 (at file offset 0x158)",
        ),
        (
            |disk| disk.sector_size = 4096,
            ErrorKind::Corrupt,
            "sector size is 4096, expected 512 (at file offset 0x168)",
        ),
        (
            |disk| disk.disk_size = 8 * BLOCK + 1,
            ErrorKind::Corrupt,
            "disk size is 32769, but the block map has room for 32768 bytes (at file offset 0x170)",
        ),
        (
            |disk| disk.disk_size = u64::MAX,
            ErrorKind::Corrupt,
            "disk size is 18446744073709551615, but the block map has room for 32768 bytes (at \
             file offset 0x170)",
        ),
        (
            |disk| (disk.map, disk.block_size) = (vec![FREE; 99], 0x0030_0000),
            ErrorKind::Corrupt,
            "block size is 3145728, expected a power of two from 512 (at file offset 0x178)",
        ),
        (
            |disk| (disk.map, disk.block_size) = (vec![FREE; 99], 256),
            ErrorKind::Corrupt,
            "block size is 256, expected a power of two from 512 (at file offset 0x178)",
        ),
        (
            |disk| disk.block_extra = 513,
            ErrorKind::Corrupt,
            "extra data of a block is 513 bytes, expected 0 or a power of two (at file offset \
             0x17c)",
        ),
        (
            |disk| disk.blocks = Some(0x1fff_ff81),
            ErrorKind::Limit,
            "block map has 536870785 entries, at most 536870784 are allowed (at file offset 0x180)",
        ),
    ];
    for (damage, kind, text) in cases {
        let mut disk = dynamic();
        damage(&mut disk);
        assert_eq!(refusal(disk.bytes()), (kind, format!("vdi: {text}")));
    }
}

#[test]
fn a_differencing_image_has_a_parent_without_a_name() {
    let mut disk = samples::differencing();
    let source = open(&Vdi, memory(&disk)).unwrap();
    assert_eq!(source.identifier(), Some(*b"the image itself"));
    let parent = source.backing().unwrap();
    assert_eq!((parent.role, parent.names.len()), (Role::Parent, 0));
    assert_eq!(parent.identifiers, [*b"id of the parent"]);
    assert_eq!(warnings(&disk), [""; 0]);
    // Any of the two will do, as for qemu-img, which refuses both.
    (disk.link, disk.parent) = ([0; 16], [1; 16]);
    assert!(open(&Vdi, memory(&disk)).unwrap().backing().is_some());
    // Without either the type is odd, and all blocks are the image's own.
    disk.parent = [0; 16];
    assert!(open(&Vdi, memory(&disk)).unwrap().backing().is_none());
    assert_eq!(warnings(&disk).len(), 1);
}

#[test]
fn a_map_outside_the_file_is_refused() {
    // A started sector counts as a whole one.
    let mut bytes = Disk::new(BLOCK, &[FREE; 128]).bytes();
    assert_eq!(bytes.len(), 1024);
    bytes.truncate(513);
    assert!(open(&Vdi, MemoryStorage::from_bytes(bytes.clone())).is_ok());
    bytes.truncate(512);
    assert_eq!(
        refusal(bytes),
        (
            ErrorKind::Corrupt,
            "vdi: block map (128 entries at 0x200) is outside the file of 512 bytes (at file \
             offset 0x154)"
                .into()
        )
    );
    // What is behind the end of the disk counts as well.
    let most = Disk { blocks: Some(0x1fff_ff80), ..dynamic() };
    assert!(refusal(most.bytes()).1.contains("block map (536870784 entries at 0x200) is outside"));
    let mut far = dynamic().bytes();
    put(&mut far, 0x154, &0xffff_fe00_u32.to_le_bytes());
    assert!(refusal(far).1.contains("block map (8 entries at 0xfffffe00) is outside"));
}

#[test]
fn spare_entries_are_not_examined() {
    for entry in [0, 1, 42 << 20, FREE - 2, FREE - 1] {
        let mut bytes = dynamic().bytes();
        // The disk has seven blocks, the map eight entries.
        put(&mut bytes, MAP as usize + 28, &u32::to_le_bytes(entry));
        let mut source = open_with(&Vdi, MemoryStorage::from_bytes(bytes), &strict()).unwrap();
        assert_eq!(extents(source.as_mut()).unwrap(), map(&dynamic()), "{entry:#x}");
    }
}
#[test]
fn blocks_outside_the_file_are_where_the_map_says() {
    let mut bytes = Disk::new(2 * BLOCK, &[FREE, FREE]).bytes();
    put(&mut bytes, MAP as usize, &0xffff_fffd_u32.to_le_bytes());
    let mut source = open(&Vdi, MemoryStorage::from_bytes(bytes)).unwrap();
    assert_eq!(
        extents(source.as_mut()).unwrap(),
        [(BLOCK, data(at(0xffff_fffd))), (BLOCK, Status::Zero)]
    );
}

#[test]
fn damaged_images_are_mapped_or_refused() {
    for disk in [dynamic(), fixed(), with_extra_data()] {
        assert!(check_hostile(&Vdi, &disk.bytes(), 4000) > 4000);
    }
}
