//! Images that are refused, at the start or on the way.

use pretty_assertions::assert_eq;

use super::*;

#[test]
fn refusals_of_hosted_sparse_extents() {
    let d = Hosted::default;
    let footer = |at: usize, value: u8| {
        let mut bytes = d().build_with_footer();
        let end = bytes.len() - 1536;
        bytes[end + at] = value;
        bytes
    };
    for (bytes, message) in [
        (
            Hosted { version: 4, ..d() }.build(),
            "vmdk: version is 4, at most 3 is supported (at file offset 0x4)",
        ),
        (
            Hosted { table_entries: 513, ..d() }.build(),
            "vmdk: entries per grain table is 513, 1 to 512 is allowed (at file offset 0x2c)",
        ),
        (
            Hosted { table_entries: 0, ..d() }.build(),
            "vmdk: entries per grain table is 0, 1 to 512 is allowed (at file offset 0x2c)",
        ),
        (
            Hosted { grain: 0, ..d() }.build(),
            "vmdk: grain size is 0 sectors, 1 to 2097152 is allowed (at file offset 0x14)",
        ),
        (
            Hosted { grain: 0x20_0001, ..d() }.build(),
            "vmdk: grain size is 2097153 sectors, 1 to 2097152 is allowed (at file offset 0x14)",
        ),
        (
            Hosted { capacity: 1 << 54, grain: 0x20_0000, ..d() }.build(),
            "vmdk: capacity is 18014398509481984 sectors, at most 2^54 − 2^21 is allowed (at file \
             offset 0xc)",
        ),
        (
            Hosted { capacity: (1 << 37) + 1, ..d() }.build(),
            "vmdk: the capacity needs 33554433 grain directory entries, at most 33554432 is \
             allowed (at file offset 0xc)",
        ),
        (
            Hosted { overhead: 73, ..d() }.build(),
            "vmdk: the file is truncated: it has 36864 bytes, but the first 73 sectors hold \
             metadata (at file offset 0x40)",
        ),
        (
            Hosted { directory: 72, ..d() }.build(),
            "vmdk: grain directory (4 bytes at sector 72) is outside the file of 36864 bytes (at \
             file offset 0x38)",
        ),
        (
            Hosted { directory: 1 << 60, ..d() }.build(),
            "vmdk: grain directory (4 bytes at sector 1152921504606846976) is outside the file \
             of 36864 bytes (at file offset 0x38)",
        ),
        (
            Hosted { redundant: 1 << 54, ..d() }.build(),
            "vmdk: redundant grain directory at sector 18014398509481984 cannot be inside any \
             file (at file offset 0x30)",
        ),
        (
            {
                let mut bytes = Hosted { directory: u64::MAX, ..d() }.build();
                bytes.truncate(1000);
                bytes
            },
            "vmdk: the grain directory is in the footer, but the file of 1000 bytes has no room \
             for one (at file offset 0x38)",
        ),
        (
            footer(12, 4),
            "vmdk: footer marker has size 0 and type 4, 0 and 3 are expected (at file offset \
             0x9000)",
        ),
        (
            footer(8, 1),
            "vmdk: footer marker has size 1 and type 3, 0 and 3 are expected (at file offset \
             0x9000)",
        ),
        (
            footer(512, b'C'),
            "vmdk: the footer does not hold a copy of the header: magic is not KDMV (at file \
             offset 0x9200)",
        ),
        (
            footer(1024, 1),
            "vmdk: end-of-stream marker has value 1, size 0 and type 0, all 0 is expected (at \
             file offset 0x9400)",
        ),
        (footer(516, 4), "vmdk: version is 4, at most 3 is supported (at file offset 0x9204)"),
        (
            Hosted { directory: u64::MAX, ..d() }.build_with_footer(),
            "vmdk: the header copy in the footer refers to a footer for the grain directory \
             again (at file offset 0x9238)",
        ),
    ] {
        assert_eq!(refusal(bytes), message);
    }
    assert_eq!(
        open(&Vmdk, MemoryStorage::from_bytes(Hosted { version: 4, ..d() }.build()))
            .err()
            .map(|error| error.kind()),
        Some(ErrorKind::Unsupported)
    );
}

#[test]
fn refusals_of_embedded_descriptors() {
    let with = |descriptor| Hosted { descriptor, ..Default::default() }.build();
    let empty = |descriptor| Hosted { capacity: 0, descriptor, ..Default::default() }.build();
    let placed = |descriptor_sector, descriptor_sectors| {
        let mut bytes = with("");
        bytes[28..36].copy_from_slice(&u64::to_le_bytes(descriptor_sector));
        bytes[36..44].copy_from_slice(&u64::to_le_bytes(descriptor_sectors));
        bytes
    };
    for (bytes, message) in [
        (with("parentCID=ffffffff"), None),
        (
            with("CID=x\nparentCID=ffffffff\n"),
            Some("the descriptor has no CID with a hexadecimal number (at file offset 0x200)"),
        ),
        (
            with("CID=1\n"),
            Some(
                "the descriptor has no parentCID with a hexadecimal number (at file offset 0x200)",
            ),
        ),
        (
            with("CID=1\nparentCID=1\nparentFileNameHint=\"b\n"),
            Some("parentFileNameHint has no closing quote (at file offset 0x200)"),
        ),
        (
            placed(1 << 60, 20),
            Some(
                "the descriptor at sector 1152921504606846976 cannot be inside any file (at file \
                  offset 0x1c)",
            ),
        ),
        (
            placed(2, 2049),
            Some(
                "the descriptor of 2049 sectors is longer than 1048576 bytes (at file offset 0x1c)",
            ),
        ),
        (
            empty("CID=1\nparentCID=ffffffff\ncreateType=\"fullDevice\"\n"),
            Some("createType \"fullDevice\" is not supported: the extents are devices"),
        ),
        (
            empty("CID=1\nparentCID=ffffffff\n"),
            Some(
                "neither a sparse extent (KDMV, COWD, seSparse) nor a text descriptor: there is \
                  no createType",
            ),
        ),
    ] {
        let refused = open(&Vmdk, MemoryStorage::from_bytes(bytes)).err();
        let expected = message.map(|message| format!("vmdk: {message}"));
        assert_eq!(refused.map(|error| error.to_string()), expected);
    }
}

#[test]
fn an_extent_of_no_size_may_describe_a_split_disk() {
    let descriptor = "CID=1\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"\n\
                      RW 8 SPARSE \"s001\"\nRW 8 ZERO\n";
    let bytes = Hosted { capacity: 0, descriptor, ..Default::default() }.build();
    assert_eq!(map(bytes), [(4 * K, Status::Absent), (4 * K, Status::Zero)]);
}

#[test]
fn a_disk_without_a_capacity_is_empty_only_if_its_descriptor_agrees() {
    let of = |line: &str| {
        let text = format!("CID=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n{line}");
        let descriptor: &'static str = text.leak();
        Hosted { capacity: 0, descriptor, ..Default::default() }.build()
    };
    assert_eq!(map(of("RW 0 SPARSE \"a\"\n")), []);
    let text = "vmdk: capacity is 0 sectors, but the descriptor has an extent (at file offset 0xc)";
    assert_eq!(refusal(of("RW 100 SPARSE \"a\"\n")), text);
    // With the real header at the end, the first one does not count.
    let whole = Hosted::default();
    let bytes = whole.build_with_footer();
    let mut without = bytes.clone();
    without[12..20].fill(0);
    assert_eq!(map(without), map(bytes));
}

#[test]
fn refusals_of_text() {
    for (bytes, message) in [
        (
            b"hello".to_vec(),
            "vmdk: neither a sparse extent (KDMV, COWD, seSparse) nor a text descriptor: there \
             is no createType",
        ),
        (
            Vec::new(),
            "vmdk: neither a sparse extent (KDMV, COWD, seSparse) nor a text descriptor: there \
             is no createType",
        ),
        (text("custom", ""), "vmdk: createType \"custom\" is not supported"),
        (text("VMFS", ""), "vmdk: createType \"VMFS\" is not known"),
        (
            text("vmfsRDM", ""),
            "vmdk: createType \"vmfsRDM\" is not supported: the extents are devices",
        ),
        (
            text("streamOptimized", ""),
            "vmdk: createType is that of a disk in one file, but this is a text descriptor",
        ),
        (
            text("vmfs", &"RW 9007199254740992 ZERO\n".repeat(3)),
            "vmdk: the extents are together longer than 2^63 − 2^30 bytes",
        ),
        (text("vmfs", &"RW 1 ZERO\n".repeat(65_537)), "vmdk: more than 65536 extents"),
        (text("vmfs", &"#".repeat(1 << 20)), "vmdk: the descriptor is longer than 1048576 bytes"),
        (
            b"createType=\"vmfs\"".to_vec(),
            "vmdk: the descriptor has no CID with a hexadecimal number (at file offset 0x0)",
        ),
    ] {
        assert_eq!(refusal(bytes), message);
    }
}

#[test]
fn refusals_of_esx_sparse_extents() {
    let d = Cowd::default;
    for (cowd, message) in [
        (
            Cowd { grain: 0, ..d() },
            "vmdk: grain size is 0 sectors, 1 to 2097152 is allowed (at file offset 0x10)",
        ),
        (
            Cowd { grain: 0x20_0001, ..d() },
            "vmdk: grain size is 2097153 sectors, 1 to 2097152 is allowed (at file offset 0x10)",
        ),
        (
            Cowd { directory_entries: (1 << 25) + 1, ..d() },
            "vmdk: the grain directory has 33554433 entries, at most 33554432 is allowed (at file \
             offset 0x18)",
        ),
        (
            Cowd { directory: 63, ..d() },
            "vmdk: grain directory (8 bytes at sector 63) is outside the file of 32256 bytes (at \
             file offset 0x14)",
        ),
    ] {
        assert_eq!(refusal(cowd.build()), message);
    }
    assert_eq!(
        walk_error(Cowd { directory_entries: 1, ..d() }.build()),
        (4096 * 512, "the grain directory has 1 entries, entry 1 is needed".to_owned())
    );
    assert_eq!(map(Cowd { capacity: 0, directory: u32::MAX, ..d() }.build()), []);
}

#[test]
fn refusals_of_sesparse_extents() {
    for (field, value, message) in [
        (
            1,
            0x2_0000_0002,
            "version is 0x200000002, only 0x200000001 is supported (at file offset 0x8)",
        ),
        (3, 16, "grain size is 16 sectors, only 8 is supported (at file offset 0x18)"),
        (4, 128, "grain table size is 128 sectors, only 64 is supported (at file offset 0x20)"),
        (5, 1, "flags are 0x1, none is supported (at file offset 0x28)"),
        (6, 1, "reserved field is not zero: written by a newer version (at file offset 0x30)"),
        (9, 1, "reserved field is not zero: written by a newer version (at file offset 0x30)"),
        (
            26,
            1,
            "constant header padding is not zero: written by a newer version (at file offset 0xd0)",
        ),
        (
            63,
            1,
            "constant header padding is not zero: written by a newer version (at file offset 0xd0)",
        ),
        (
            10,
            1 << 60,
            "volatile header at sector 1152921504606846976 cannot be inside any file (at \
                       file offset 0x50)",
        ),
        (64, 1, "volatile header has magic 0x1, 0xcafecafe is expected (at file offset 0x200)"),
        (
            68,
            1,
            "volatile header padding is not zero: written by a newer version (at file offset \
                 0x220)",
        ),
    ] {
        let bytes = SeSparse { fields: vec![(field, value)], ..Default::default() }.build();
        assert_eq!(refusal(bytes), format!("vmdk: seSparse {message}"));
    }
    let of = |field, value| SeSparse { fields: vec![(field, value)], ..Default::default() }.build();
    assert_eq!(
        refusal(of(67, 1)),
        "vmdk: the journal has not been replayed: let the software that wrote the image close it \
         (at file offset 0x218)"
    );
    assert_eq!(
        refusal(of(16, 164)),
        "vmdk: grain directory (24 bytes at sector 164) is outside the file of 83968 bytes (at \
         file offset 0x80)"
    );
    assert_eq!(
        refusal(of(17, (1 << 19) + 1)),
        "vmdk: the grain directory has 33554496 entries, at most 33554432 is allowed (at file \
         offset 0x88)"
    );
    assert!(refusal(of(10, 164)).starts_with("vmdk: volatile header (512 bytes at 0x14800)"));
    assert!(refusal(of(2, 1 << 54)).starts_with("vmdk: capacity is 18014398509481984 sectors"));
}

#[test]
fn sesparse_entries_that_mean_nothing_end_the_map() {
    let g = 4 * K;
    let with = |entries| SeSparse { entries, ..Default::default() }.build();
    let third = 0x3fff_ffff_ffff_ffff;
    for entry in [1, 0x4000_0000_0000_0000, u64::MAX, third] {
        assert_eq!(
            walk_error(with(vec![0, 0, entry])),
            (
                4098 * g,
                format!(
                    "grain table entry {entry:#x} is neither unallocated, unmapped, zero nor \
                     data below 2^63 bytes (at file offset {:#x})",
                    67 * 512 + 16
                )
            )
        );
    }
    // What a step from the last of 4096 numbers carries into the type once went on with the run.
    let entry = 0x4000_0000_0000_0000;
    let (at, message) = walk_error(with(vec![0, 0x3fff_0000_0000_0000, entry]));
    assert_eq!(at, 4098 * g);
    assert!(message.starts_with(&format!("grain table entry {entry:#x} is ")), "{message}");
    for entry in [1, 0x2000_0000_0000_0000] {
        let bytes = SeSparse { directory: vec![0, entry], ..Default::default() }.build();
        assert_eq!(
            walk_error(bytes),
            (
                4096 * g,
                format!(
                    "grain directory entry {entry:#x} is neither 0 nor marked as allocated (0x1 \
                     on top) (at file offset 0x408)"
                )
            )
        );
    }
    // Only one sector of directory, 64 entries, for 65 tables.
    let bytes = SeSparse { fields: vec![(2, 65 * 4096 * 8)], ..Default::default() }.build();
    assert_eq!(
        walk_error(bytes),
        (64 * 4096 * g, "the grain directory has 64 entries, entry 64 is needed".to_owned())
    );
}

#[test]
fn a_table_outside_the_file_is_an_error_and_not_a_hole() {
    let mut bytes = Hosted::default().build();
    bytes[21 * 512..21 * 512 + 4].copy_from_slice(&72_u32.to_le_bytes());
    let (at, message) = walk_error(bytes);
    assert_eq!(at, 0);
    assert_eq!(message, "grain table (52 bytes at 0x9000) is outside the file of 36864 bytes");
}

#[test]
fn only_the_entries_that_the_capacity_needs_must_be_inside_the_file() {
    let mut bytes = Hosted { overhead: 22, ..Default::default() }.build();
    bytes.truncate(22 * 512 + 13 * 4);
    assert_eq!(map(bytes).len(), 6);
}

#[test]
fn limits_are_those_of_the_context() {
    let mut limits = Limits::default();
    limits.description = 100;
    let context = Arc::new(Context { limits, ..Context::default() });
    let storage = MemoryStorage::from_bytes(text("vmfs", ""));
    let error = open_with(&Vmdk, storage, &context).err().unwrap();
    assert_eq!(error.to_string(), "vmdk: the descriptor is longer than 100 bytes");
    assert_eq!(error.kind(), ErrorKind::Limit);
}
