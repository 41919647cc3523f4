//! The plugin as a whole: what opens, what does not, and what is mapped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use instar_core::testkit::{self, check_format, check_source, data, extents, open, probe};
use instar_core::{Confidence, ErrorKind, MemoryStorage, Place, Status};
use pretty_assertions::assert_eq;

mod list;

use crate::Dmg;
use crate::samples::{self, Disk, END, IGNORE, Kept, RAW, Table, ZERO, ZLIB, long, mixed, put};

fn map_bytes(bytes: Vec<u8>) -> Vec<(u64, Status)> {
    extents(open(&Dmg, MemoryStorage::from_bytes(bytes)).unwrap().as_mut()).unwrap()
}

fn map(disk: &Disk) -> Vec<(u64, Status)> {
    map_bytes(disk.bytes())
}

/// The refusal, with its kind.
fn refusal(bytes: Vec<u8>) -> (ErrorKind, String) {
    testkit::refusal(&Dmg, MemoryStorage::from_bytes(bytes))
}

/// The warnings of opening and mapping `bytes`.
fn warnings(bytes: Vec<u8>) -> Vec<String> {
    testkit::warnings(&Dmg, MemoryStorage::from_bytes(bytes))
}

const S: u64 = 512;

#[test]
fn every_kind_of_chunk() {
    let expected = [
        (S, data(0)),
        (16 * S, Status::Compressed),
        (16 * S, Status::Zero),
        (8 * S, data(912)),
        (3 * S, Status::Zero),
        (1000, data(6000)),
        (24, Status::Zero),
        (4 * S, Status::Compressed),
        // What no chunk speaks of.
        (S, Status::Absent),
    ];
    assert_eq!(map(&mixed()), expected);
    assert_eq!(map(&Disk { kept: Kept::Fork, ..mixed() }), expected);
    assert_eq!(
        warnings(mixed().bytes()),
        ["no chunk speaks of some sectors of the disk, which are taken for zeros"]
    );
}

#[test]
fn offsets_count_from_data_fork_and_table() {
    let chunks = [(RAW, 0, 1, 10, 512), (ZERO, 1, 1, 0, 0), (RAW, 2, 1, 20, 512)];
    let mut disk = Disk { front: 1000, ..Disk::new(3, &[Table::new(0, &chunks)]) };
    assert_eq!(map(&disk), [(S, data(1010)), (S, Status::Zero), (S, data(1020))]);
    disk.tables[0].data_offset = 100;
    assert_eq!(map(&disk), [(S, data(1110)), (S, Status::Zero), (S, data(1120))]);
}

#[test]
fn tables_come_in_any_order_and_may_leave_gaps() {
    let tables = [
        Table::new(100, &[(RAW, 0, 1, 0, 512)]),
        Table::new(0, &[(RAW, 2, 1, 1000, 512), (ZLIB, 5, 1, 0, 9)]),
        Table::new(50, &[]),
        Table::new(40, &[(END, 0, 0, 0, 0)]),
    ];
    let expected = [
        (2 * S, Status::Absent),
        (S, data(1000)),
        (2 * S, Status::Absent),
        (S, Status::Compressed),
        (94 * S, Status::Absent),
        (S, data(0)),
    ];
    for kept in [Kept::Fork, Kept::List] {
        let disk = Disk { kept, ..Disk::new(101, &tables) };
        assert_eq!(map(&disk), expected);
        assert_eq!(check_source(|| open(&Dmg, MemoryStorage::from_bytes(disk.bytes()))), 6);
        // A chunk behind the disk's end does not count.
        assert_eq!(map(&Disk { sectors: 100, ..disk }).len(), 5);
    }
}

#[test]
fn without_tables_the_data_fork_is_the_disk() {
    let disk = Disk { kept: Kept::Nowhere, front: 1024, ..Disk::new(100, &[]) };
    assert_eq!(map(&disk), [(100 * S, Status::DataOverHoles(Place::at(1024)))]);
    assert_eq!(check_source(|| open(&Dmg, MemoryStorage::from_bytes(disk.bytes()))), 1);
    let (kind, text) = refusal(Disk { data: 100 * 512 - 1, ..disk }.bytes());
    assert_eq!(kind, ErrorKind::Corrupt);
    assert_eq!(
        text,
        "dmg: neither resource fork nor property list, and the data fork of 51199 bytes is not \
         the disk of 51200 bytes in front of the trailer"
    );
    // A trailer of somebody else's, in the last sector of a disk.
    let mut bytes = vec![1; 100 * 512 + 512];
    bytes.extend(Disk { kept: Kept::Nowhere, data: 100 * 512, ..Disk::new(100, &[]) }.bytes());
    assert_eq!(probe(&Dmg, &MemoryStorage::from_bytes(bytes.clone())), Confidence::Fallback);
    assert_eq!(refusal(bytes).0, ErrorKind::Corrupt);
    let long = Disk { kept: Kept::Nowhere, ..Disk::new(100, &[]) };
    assert_eq!(
        warnings(long.bytes()),
        ["the data fork of 65536 bytes is longer than the disk of 51200 bytes"]
    );
}

#[test]
fn tables_of_many_windows() {
    for kept in [Kept::List, Kept::Fork] {
        let disk = Disk { kept, ..long(5000) };
        let list = map(&disk);
        assert_eq!(list.len(), 5000);
        for (n, extent) in (0..).zip(&list) {
            let status = if n % 2 == 0 { Status::Compressed } else { data(n % 100 * 600) };
            assert_eq!(*extent, (S, status), "{n}");
        }
        let bytes = disk.bytes();
        let source = || open(&Dmg, MemoryStorage::from_bytes(bytes.clone()));
        assert_eq!(check_source(source), 5000);
    }
    // What is given back is read again.
    let mut source = open(&Dmg, MemoryStorage::from_bytes(long(5000).bytes())).unwrap();
    let whole = extents(source.as_mut()).unwrap();
    assert!(source.buffered() > 64 << 10, "{}", source.buffered());
    source.release();
    assert_eq!(source.buffered(), 0);
    assert_eq!(extents(source.as_mut()).unwrap(), whole);
    // The last window may be whole, or nearly so.
    for count in [1637, 1638, 1639, 3276, 3277] {
        assert_eq!(map(&long(count)).len() as u64, count);
    }
}

#[test]
fn laws_hold_for_every_sample() {
    assert_eq!(check_format(&Dmg, &samples::all()).samples, 7);
}

/// Base64 digits changed for others: the laws mostly make what is no base64 at all.
#[test]
fn damaged_tables_are_a_map_or_an_error() {
    for kept in [Kept::List, Kept::OtherList, Kept::Fork] {
        let disk = Disk { kept, ..mixed() };
        let bytes = disk.bytes();
        let mut random = testkit::Random::new(3);
        let mut mapped = 0;
        for _ in 0..3000 {
            let mut mutant = bytes.clone();
            for _ in 0..=random.below(3) {
                let at = 65536 + random.below(bytes.len() - 65536);
                let digit = b"AAAAAAB/8mz0"[random.below(12)];
                mutant[at] = if random.below(2) == 0 { digit } else { 0xff };
            }
            if let Ok(mut source) = open(&Dmg, MemoryStorage::from_bytes(mutant)) {
                let _ = extents(source.as_mut());
                mapped += 1;
            }
        }
        assert!((100..2900).contains(&mapped), "{mapped}");
    }
}

#[test]
fn other_resources_are_skipped() {
    let chunks = [(RAW, 0, 1, 0, 512)];
    // A table that would overlap the other one, if it were read.
    let other = STANDARD.encode(Table::new(0, &chunks).bytes());
    let tables = format!("<array><dict><key>Data</key><data>{other}</data></dict></array>");
    for prologue in [
        "",
        "<data></data>",
        "<data>no base64 at all!</data><data>bWl</data>",
        &format!("<key>x</key><data>{other}</data>"),
        &format!("<key>Data</key><data>{other}</data>"),
        // In other places.
        &tables,
        &format!("<key>Blkx</key>{tables}"),
        &format!("<key>blkx</key><key/>{tables}"),
        &format!("<key>blkx</key><true/>{tables}"),
        &format!("<key>resource-fork </key><dict><key>blkx</key>{tables}</dict>"),
        &format!("<key>x</key><dict><key>blkx</key>{tables}</dict>"),
        &format!("<key>resource-fork</key><dict><key>blkx</key></dict>{tables}"),
        &format!("<key>blkx</key><array>{tables}<data>{other}</data></array>"),
        &format!("<key>blkx</key><array><dict><key>data</key><data>{other}</data></dict></array>"),
        &format!("<key>blkx</key><array><dict><key>Data</key><a>{other}</a></dict></array>"),
        // Other resources there.
        "<key>blkx</key><array><dict><key>Data</key><data>AAAAAAAA</data></dict></array>",
        "<key>blkx</key><array><dict><key>Data</key><data/></dict></array>",
    ] {
        let disk =
            Disk { prologue: prologue.to_owned(), ..Disk::new(1, &[Table::new(0, &chunks)]) };
        assert_eq!(map(&disk), [(S, data(0))], "{prologue:.80}");
    }
    // Some lists have no dictionary of resources.
    for prologue in [
        format!("<key>blkx</key>{tables}"),
        format!("<key>resource-fork</key><dict><key>blkx</key>{tables}</dict>"),
    ] {
        let disk = Disk { prologue, ..Disk::new(1, &[]) };
        assert_eq!(map(&disk), [(S, data(0))]);
    }
}

#[test]
fn white_space_and_padding_of_base64() {
    let table = Table::new(0, &[(RAW, 0, 1, 0, 512), (END, 1, 0, 0, 0)]);
    let bytes = Disk::new(1, &[table]).bytes();
    let at = bytes.windows(5).position(|part| part == b"bWlza").unwrap();
    // White space makes the list longer than the trailer says: the element is what counts.
    let mut spaced = bytes[..at].to_vec();
    spaced.extend(b"b W\r\n\tl \x0c z");
    spaced.extend(&bytes[at + 4..]);
    let trailer = spaced.len() - 512;
    let length = u64::from_be_bytes(*spaced[trailer + 224..].first_chunk().unwrap());
    put(&mut spaced, trailer + 224, &(length + 7).to_be_bytes());
    assert_eq!(map_bytes(spaced), [(S, data(0))]);
    for (wrong, behind) in
        [(b'=', 4), (b'!', 4), (0, 4), (b'=', 100), (b'=', 281), (b'!', 9), (b'*', 300)]
    {
        let mut bytes = bytes.clone();
        put(&mut bytes, at + behind, &[wrong]);
        let (kind, text) = refusal(bytes);
        assert_eq!(kind, ErrorKind::Corrupt);
        assert!(
            text.starts_with("dmg: a block table is no valid base64 (at file offset "),
            "{text}"
        );
    }
}

#[test]
fn each_refusal_of_a_trailer_names_field_and_value() {
    let at = mixed().bytes().len() - 512;
    let patched = |offset: usize, piece: &[u8]| {
        let mut bytes = mixed().bytes();
        put(&mut bytes, at + offset, piece);
        bytes
    };
    let be = |number: u64| number.to_be_bytes();
    let field = |offset: usize| format!(" (at file offset {:#x})", at + offset);
    let missing = "no trailer: 'koly' is not in the last two sectors of the file".to_owned();
    for (bytes, kind, text) in [
        (Vec::new(), ErrorKind::WrongFormat, missing.clone()),
        (patched(0, b"K"), ErrorKind::WrongFormat, missing),
        (
            patched(60, &[0, 0, 0, 3]),
            ErrorKind::Unsupported,
            format!("the image is split into 3 files, which is not supported{}", field(60)),
        ),
        (
            patched(24, &be(at as u64 + 1)),
            ErrorKind::Corrupt,
            format!(
                "data fork starts at {:#x}, behind the trailer at {at:#x}{}",
                at + 1,
                field(24)
            ),
        ),
        (
            patched(48, &be(1 << 40)),
            ErrorKind::Corrupt,
            format!(
                "resource fork (1099511627776 bytes at 0x0) is not in front of the trailer at \
                 {at:#x}{}",
                field(40)
            ),
        ),
        (
            patched(216, &be(u64::MAX)),
            ErrorKind::Corrupt,
            format!(
                "property list ({} bytes at 0xffffffffffffffff) is not in front of the trailer at \
                 {at:#x}{}",
                at - 65536,
                field(216)
            ),
        ),
        (
            patched(492, &be(1 << 55)),
            ErrorKind::Limit,
            format!(
                "disk size is 36028797018963968 sectors, at most 18014398507384832 are allowed{}",
                field(492)
            ),
        ),
    ] {
        assert_eq!(refusal(bytes), (kind, format!("dmg: {text}")));
    }
}

#[test]
fn each_refusal_of_resources_names_field_and_value() {
    let fork = Disk { kept: Kept::Fork, ..Disk::new(1, &[Table::new(0, &[(ZERO, 0, 1, 0, 0)])]) };
    let patched = |at: usize, piece: &[u8]| {
        let mut bytes = fork.bytes();
        put(&mut bytes, 65536 + at, piece);
        bytes
    };
    for (bytes, text) in [
        (
            patched(0, &[0, 0, 2, 0]),
            "resource data (259 bytes at 0x200) is outside the resource fork of 531 bytes (at file \
             offset 0x10000)",
        ),
        (
            patched(256, &[0, 0, 1, 0]),
            "resource of 256 bytes runs past the end of the resource data at 0x10203 (at file \
             offset 0x10100)",
        ),
        (
            patched(8, &[0, 0, 0, 2]),
            "resource of 3 bytes runs past the end of the resource data at 0x10102 (at file offset \
             0x10100)",
        ),
    ] {
        assert_eq!(refusal(bytes), (ErrorKind::Corrupt, format!("dmg: {text}")));
    }
    let many = vec![Table::new(0, &[]); 4097];
    assert_eq!(
        refusal(Disk { kept: Kept::Fork, ..Disk::new(1, &many) }.bytes()),
        (
            ErrorKind::Limit,
            "dmg: there are more block tables than 4096 (at file offset 0xe010f)".to_owned()
        )
    );
}

#[test]
fn each_refusal_of_a_table_names_field_and_value() {
    let one = |entry| Disk::new(100, &[Table::new(7, &[entry])]);
    let two = |one, other| Disk::new(100, &[Table::new(7, &[one, other])]);
    let with = |change: fn(&mut Table)| {
        let mut disk = one((ZLIB, 0, 8, 0, 100));
        change(&mut disk.tables[0]);
        disk
    };
    for (disk, text) in [
        (Disk::new(100, &[]), "no block table has a chunk"),
        (Disk::new(100, &[Table::new(0, &[(END, 0, 0, 0, 0)])]), "no block table has a chunk"),
        (
            with(|table| table.stated = Some(2)),
            "block table should have 2 chunks, but ends after 1 (at file offset 0x1007e)",
        ),
        (
            Disk { front: 1, ..with(|table| table.data_offset = u64::MAX) },
            "data offset of a block table is 0xffffffffffffffff, behind all addresses (at file \
             offset 0x1007f)",
        ),
        (
            one((ZERO, u64::MAX - 7, 1, 0, 0)),
            "chunk of 1 sectors from sector 18446744073709551608 of the block table at sector 7 \
             ends behind all addresses (at file offset 0x1019a)",
        ),
        (
            one((ZERO, 0, 1 << 55, 0, 0)),
            "chunk of 36028797018963968 sectors from sector 0 of the block table at sector 7 ends \
             behind all addresses (at file offset 0x1019a)",
        ),
        (
            one((ZLIB, 0, 1, u64::MAX, 1)),
            "chunk of 1 bytes at 0x0 + 0xffffffffffffffff ends behind all addresses (at file \
             offset 0x1019a)",
        ),
        (
            one((RAW, 0, 8, 0, 3584)),
            "plain chunk at sector 7 has 3584 bytes for 8 sectors (at file offset 0x1019a)",
        ),
        (
            one((RAW, 0, 8, 0, 4097)),
            "plain chunk at sector 7 has 4097 bytes for 8 sectors (at file offset 0x1019a)",
        ),
        (
            two((ZERO, 0, 2, 0, 0), (ZERO, 1, 2, 0, 0)),
            "chunk at byte 0x1000 of the disk comes before the end, 0x1200, of another one: chunks \
             overlap or are out of order (at file offset 0x1019a)",
        ),
        (
            two((ZERO, 4, 1, 0, 0), (ZERO, 1, 1, 0, 0)),
            "chunk at byte 0x1000 of the disk comes before the end, 0x1800, of another one: chunks \
             overlap or are out of order (at file offset 0x1019a)",
        ),
    ] {
        assert_eq!(refusal(disk.bytes()), (ErrorKind::Corrupt, format!("dmg: {text}")));
    }
    // Of two tables.
    let tables = [Table::new(4, &[(ZERO, 0, 4, 0, 0)]), Table::new(0, &[(IGNORE, 0, 5, 0, 0)])];
    let (_, text) = refusal(Disk::new(8, &tables).bytes());
    assert!(
        text.starts_with(
            "dmg: chunk at byte 0x800 of the disk comes before the end, 0xa00, of another one"
        ),
        "{text}"
    );
}

#[test]
fn what_is_odd_is_warned_about() {
    let one = |entry| Disk::new(8, &[Table::new(0, &[entry])]);
    let unknown = one((3, 0, 8, 0, 100));
    assert_eq!(map(&unknown), [(4096, Status::Opaque)]);
    assert_eq!(
        warnings(unknown.bytes()),
        ["chunks of the unknown type 0x3 are taken for data without an offset"]
    );
    let far = one((ZLIB, 0, 8, 70_000, 100));
    assert_eq!(map(&far), [(4096, Status::Compressed)]);
    assert_eq!(
        warnings(far.bytes()),
        [
            "the chunk at byte 0x0 of the disk is stored up to 0x111d4, behind the end of the file of \
          66564 bytes"
        ]
    );
}

#[test]
fn a_padded_file_has_its_trailer_elsewhere() {
    for behind in [0, 1, 100, 511] {
        let disk = Disk { behind, ..mixed() };
        let bytes = disk.bytes();
        // Where qemu looks: in the last 1023 bytes of the file rounded up to a sector.
        let padded = bytes.len().next_multiple_of(512);
        let is_near = padded - (bytes.len() - behind - 512) <= 1023;
        let answer = probe(&Dmg, &MemoryStorage::from_bytes(bytes.clone()));
        assert_eq!(answer == Confidence::Verified, is_near, "{behind}");
        if is_near {
            assert_eq!(map_bytes(bytes), map(&mixed()));
        }
    }
}

#[test]
fn a_trailer_that_the_file_ends_in_is_not_made_up() {
    let whole = mixed().bytes();
    let lone = [b"koly\0\0\0\x04\0\0\x02\0".as_slice(), &[0; 500]].concat();
    let missing = "dmg: no trailer: 'koly' is not in the last two sectors of the file".to_owned();
    for cut in 1..=512 {
        // What is left reads as the trailer, filled up with zeros.
        let bytes = whole[..whole.len() - cut].to_vec();
        let answer = probe(&Dmg, &MemoryStorage::from_bytes(bytes.clone()));
        let (file, at) = (bytes.len(), whole.len() - 512);
        // The first 12 bytes are the same in all.
        let (confidence, expected) = match cut {
            ..=500 => (
                Confidence::Hint,
                (
                    ErrorKind::Corrupt,
                    format!(
                        "dmg: the file of {file} bytes ends in the trailer, which has 512 bytes \
                         (at file offset {at:#x})"
                    ),
                ),
            ),
            _ => (Confidence::No, (ErrorKind::WrongFormat, missing.clone())),
        };
        assert_eq!(answer, confidence, "{cut}");
        assert_eq!(refusal(bytes), expected, "{cut}");
        // Nothing of an image is in front of this one.
        let bytes = lone[..512 - cut].to_vec();
        let answer = probe(&Dmg, &MemoryStorage::from_bytes(bytes.clone()));
        assert_eq!(answer, Confidence::No, "{cut}");
        assert_eq!(refusal(bytes), (ErrorKind::WrongFormat, missing.clone()), "{cut}");
    }
    // A trailer alone: of an image whose start is lost.
    assert_eq!(probe(&Dmg, &MemoryStorage::from_bytes(lone.clone())), Confidence::Fallback);
    assert_eq!(
        refusal(lone),
        (
            ErrorKind::Corrupt,
            "dmg: neither resource fork nor property list, and the data fork of 0 bytes is not the \
             disk of 0 bytes in front of the trailer"
                .to_owned()
        )
    );
}

#[test]
fn probing() {
    let answer = |bytes: Vec<u8>| probe(&Dmg, &MemoryStorage::from_bytes(bytes));
    let bytes = mixed().bytes();
    assert_eq!(answer(bytes.clone()), Confidence::Verified);
    let at = bytes.len() - 512;
    // Version and length are not looked at by qemu: what is there can be opened.
    for unusual in [7, 10] {
        let mut other = bytes.clone();
        put(&mut other, at + unusual, &[1]);
        assert_eq!(answer(other.clone()), Confidence::No);
        assert_eq!(map_bytes(other), map(&mixed()));
    }
    let mut other = bytes.clone();
    put(&mut other, at + 63, &[2]);
    assert_eq!(answer(other), Confidence::Hint);
    let mut other = bytes.clone();
    put(&mut other, at, b"K");
    assert_eq!(answer(other), Confidence::No);
    let mut other = bytes;
    other.resize(other.len() + 1024, 0);
    assert_eq!(answer(other), Confidence::No);
    assert_eq!(answer(Vec::new()), Confidence::No);
    assert_eq!(answer(vec![b'k'; 100]), Confidence::No);
}

#[test]
fn what_the_trailer_names_ends_at_the_trailer() {
    let answer = |bytes: &[u8]| probe(&Dmg, &MemoryStorage::from_bytes(bytes.to_vec()));
    let bytes = Disk::new(8, &[Table::new(0, &[(RAW, 0, 8, 0, 4096)])]).bytes();
    let at = bytes.len() - 512;
    // 128 bytes in front, as of MacBinary: every offset is wrong by as much.
    let shifted = [vec![0; 128], bytes.clone()].concat();
    assert_eq!(answer(&shifted), Confidence::Fallback);
    let (kind, text) = refusal(shifted);
    assert_eq!(kind, ErrorKind::Corrupt, "{text}");
    // Between property list and trailer there may be a signature of the image.
    let mut signed = [bytes[..at].to_vec(), vec![7; 1000], bytes[at..].to_vec()].concat();
    assert_eq!(answer(&signed), Confidence::Fallback);
    let text = format!(
        "what the trailer at {:#x} speaks of ends at {at:#x}: something has been added to the file \
         or is missing",
        at + 1000
    );
    assert_eq!(warnings(signed.clone()), [text]);
    let area = [at as u64, 1000].map(u64::to_be_bytes).concat();
    put(&mut signed, at + 1000 + 296, &area);
    assert_eq!(answer(&signed), Confidence::Verified);
    assert_eq!(warnings(signed), [""; 0]);
    // Old images have anything there.
    let mut old = bytes;
    put(&mut old, at + 296, &[0xee; 16]);
    assert_eq!(answer(&old), Confidence::Verified);
}

#[test]
fn other_images_of_macos_are_told_from_disks() {
    let mut in_front = mixed().bytes();
    let trailer = in_front.split_off(in_front.len() - 512);
    for (head, says) in [
        (b"encrcdsa\0\0\0\x02".to_vec(), "the image is encrypted as a whole"),
        (trailer.clone(), "the trailer is at the start of the file"),
    ] {
        let bytes = [head, in_front.clone()].concat();
        assert_eq!(probe(&Dmg, &MemoryStorage::from_bytes(bytes.clone())), Confidence::Magic);
        let (kind, text) = refusal(bytes);
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(text.starts_with(&format!("dmg: {says}")), "{text}");
    }
    let other = [b"koly\0\0\0\x05".to_vec(), in_front].concat();
    assert_eq!(probe(&Dmg, &MemoryStorage::from_bytes(other)), Confidence::No);
}
