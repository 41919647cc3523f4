//! Maps of whole images, refusals, and the laws.

use std::sync::{Arc, Mutex};

use instar_core::testkit::{check_hostile, check_source, context, data, extents, open, open_with};
use instar_core::{
    Context, ErrorKind, ExtentSource, ImageFile, Limits, MemoryStorage, Notices, Opener, Place,
    Role, Status,
};
use pretty_assertions::assert_eq;

use crate::Vmdk;
use crate::descriptor::Descriptor;
use crate::samples::{self, Cowd, Hosted, SeSparse, WITH_PARENT, text};
use crate::source::VmdkSource;

const K: u64 = 1024;

fn map(bytes: Vec<u8>) -> Vec<(u64, Status)> {
    let mut source = open(&Vmdk, MemoryStorage::from_bytes(bytes)).unwrap();
    extents(source.as_mut()).unwrap()
}

fn refusal(bytes: Vec<u8>) -> String {
    open(&Vmdk, MemoryStorage::from_bytes(bytes)).err().expect("is refused").to_string()
}

/// What was appended, in bytes, before an error, and that error.
fn walk_error(bytes: Vec<u8>) -> (u64, String) {
    let mut source = open(&Vmdk, MemoryStorage::from_bytes(bytes)).unwrap();
    let mut batch = instar_core::Batch::default();
    batch.ask(0, source.virtual_size());
    let error = source.extents(&mut batch).unwrap_err();
    (batch.cursor(), error.to_string())
}

/// The warnings that opening gives.
fn warnings(bytes: Vec<u8>) -> Vec<String> {
    let list: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&list);
    let notices = Notices::new(false, move |notice| sink.lock().unwrap().push(notice.text.clone()));
    let context = Context {
        opener: Opener::new(instar_core::ExternalPolicy::Ignore).unwrap(),
        notices,
        ..Context::default()
    };
    open_with(&Vmdk, MemoryStorage::from_bytes(bytes), &Arc::new(context)).unwrap();
    let list = list.lock().unwrap();
    list.clone()
}

#[test]
fn laws_hold_for_every_sample() {
    let samples = samples::all();
    assert_eq!(samples.len(), 15);
    for (name, bytes, count) in samples {
        let opened = || open(&Vmdk, MemoryStorage::from_bytes(bytes.clone()));
        assert_eq!(check_source(opened), count, "{name}");
    }
}

#[test]
fn damage_to_any_sample_is_survived() {
    for (_, bytes, _) in samples::all() {
        assert!(check_hostile(&Vmdk, &bytes, 3000) > 3000);
    }
}

#[test]
fn contiguous_grains_are_one_extent_and_the_last_is_cut() {
    let expected = [
        (8 * K, data(16 * K)),
        (8 * K, Status::Absent),
        (4 * K, data(28 * K)),
        (4 * K, data(24 * K)),
        (24 * K, Status::Absent),
        (2 * K, data(32 * K)),
    ];
    assert_eq!(map(Hosted::default().build()), expected);
    assert_eq!(map(Hosted::default().build_with_footer()), expected);
}

#[test]
fn entry_1_is_zero_with_the_flag_and_data_without() {
    let entries = vec![1, 0, 1, 1];
    let hosted = |flags, compression| {
        let tables = vec![Some(entries.clone())];
        let capacity = 32;
        map(Hosted { flags, compression, tables, capacity, ..Default::default() }.build())
    };
    let g = 4 * K;
    let with = [(g, Status::Zero), (g, Status::Absent), (2 * g, Status::Zero)];
    assert_eq!(hosted(4, 0), with);
    assert_eq!(hosted(4, 1), with);
    let without = [(g, data(512)), (g, Status::Absent), (g, data(512)), (g, data(512))];
    assert_eq!(hosted(3, 0), without);
    let compressed = [(g, Status::Compressed), (g, Status::Absent), (2 * g, Status::Compressed)];
    assert_eq!(hosted(3, 1), compressed);
    // Only algorithm 1 counts: not the flags, not another algorithm.
    assert_eq!(hosted(3 | 1 << 16 | 1 << 17, 0), without);
    assert_eq!(hosted(3, 2), without);
}

#[test]
fn runs_go_on_from_table_to_table_and_missing_tables_are_skipped() {
    let (_, bytes, _) = samples::all().swap_remove(3);
    let g = 4 * K;
    assert_eq!(
        map(bytes),
        [
            (5 * g, Status::Absent),
            (6 * g, data(40 * 512)),
            (18 * g, Status::Absent),
            (2 * g, data(96 * 512)),
            (8 * g, Status::Absent),
            (5 * 512, data(112 * 512)),
        ]
    );
}

#[test]
fn only_a_grain_that_follows_directly_continues_a_run() {
    let tables = vec![Some(vec![32, 41, 49, 56, 56])];
    let bytes = Hosted { capacity: 40, tables, ..Default::default() }.build();
    let at = |sector: u64| data(sector * 512);
    let g = 4 * K;
    assert_eq!(map(bytes), [(g, at(32)), (2 * g, at(41)), (g, at(56)), (g, at(56))]);
}

#[test]
fn a_directory_of_several_windows() {
    // One grain per table, four tables behind the directory.
    let tables = 150_000_usize;
    let head = Hosted { capacity: 8 * tables as u64, table_entries: 1, ..Default::default() };
    let mut bytes = Hosted { tables: Vec::new(), ..head }.build();
    bytes.resize(21 * 512 + tables * 4, 0);
    let end = u32::try_from(bytes.len().div_ceil(512)).unwrap();
    for (index, sector) in [(65_535, 0), (65_536, 1), (131_072, 2), (149_999, 3)] {
        let at = 21 * 512 + index * 4;
        bytes[at..at + 4].copy_from_slice(&(end + sector).to_le_bytes());
    }
    for sector in 0..4_usize {
        let at = (end as usize + sector) * 512;
        bytes.resize(at + 512, 0);
        bytes[at..at + 4].copy_from_slice(&(32 + 8 * sector).to_le_bytes()[..4]);
    }
    let g = 4 * K;
    assert_eq!(
        map(bytes),
        [
            (65_535 * g, Status::Absent),
            (2 * g, data(32 * 512)),
            (65_535 * g, Status::Absent),
            (g, data(48 * 512)),
            (18_926 * g, Status::Absent),
            (g, data(56 * 512)),
        ]
    );
}

#[test]
fn esx_sparse_has_no_zeroed_grains_and_4096_entries() {
    let s = 512;
    assert_eq!(
        map(Cowd::default().build()),
        [
            (2 * s, data(60 * s)),
            (s, data(s)),
            (4092 * s, Status::Absent),
            (s, data(62 * s)),
            (904 * s, Status::Absent),
        ]
    );
}

#[test]
fn sesparse_entries() {
    let g = 4 * K;
    let at = |grain| data(132 * 512 + grain * g);
    assert_eq!(
        map(SeSparse::default().build()),
        [
            (4097 * g, Status::Absent),
            (2 * g, at(0)),
            (g, at(3)),
            (2 * g, Status::Zero),
            (2 * g, Status::Absent),
            (g, at(2)),
            ((3 * 4096 - 4105) * g, Status::Absent),
        ]
    );
}

#[test]
fn a_parent_is_named_and_is_a_vmdk() {
    let backing = |descriptor| {
        let bytes = Hosted { descriptor, ..Default::default() }.build();
        let source = open(&Vmdk, MemoryStorage::from_bytes(bytes)).unwrap();
        source.backing().cloned()
    };
    let named = backing(WITH_PARENT).unwrap();
    assert_eq!(named.role, Role::Backing);
    assert_eq!(named.names, ["base.vmdk"]);
    assert_eq!(named.format.as_deref(), Some("vmdk"));
    assert_eq!(backing(samples::EMBEDDED), None);
    assert_eq!(backing("CID=1\nparentCID=ffffffff\nparentFileNameHint=\"\"\n"), None);
}

#[test]
fn content_identifiers_that_contradict_the_hint_are_worth_a_warning() {
    let of = |descriptor| warnings(Hosted { descriptor, ..Default::default() }.build());
    assert_eq!(of(WITH_PARENT), [""; 0]);
    assert_eq!(of(samples::EMBEDDED), [""; 0]);
    assert_eq!(
        of("CID=1\nparentCID=ffffffff\nparentFileNameHint=\"b\"\n"),
        ["parentCID says that there is no parent, but parentFileNameHint names \"b\""]
    );
    assert_eq!(
        of("CID=1\nparentCID=2\n"),
        ["parentCID is 00000002, but there is no parentFileNameHint: mapped without a parent"]
    );
}

#[test]
fn the_descriptor_is_found_at_512_or_where_the_header_says() {
    let elsewhere = |descriptor_sector, descriptor_sectors| Hosted {
        descriptor: WITH_PARENT,
        descriptor_sector,
        descriptor_sectors,
        ..Default::default()
    };
    for (sector, sectors) in [(80, 20), (80, 0), (80, 1), (1, 1)] {
        let bytes = elsewhere(sector, sectors).build();
        let source = open(&Vmdk, MemoryStorage::from_bytes(bytes)).unwrap();
        assert!(source.backing().is_some(), "{sector} {sectors}");
    }
    // An extent of a split disk has none: it is mapped alone.
    let without = Hosted { descriptor: "", descriptor_sector: 0, ..Default::default() };
    assert_eq!(map(without.build()).len(), 6);
    let expected = "the file is one extent without a descriptor: mapped alone, without the rest \
                    of its disk or a parent";
    assert_eq!(warnings(without.build()), [expected]);
    assert_eq!(warnings(Cowd::default().build()), [expected]);
    assert_eq!(warnings(SeSparse::default().build()), [expected]);
}

#[test]
fn esx_sparse_with_a_descriptor_at_512_may_have_a_parent() {
    let bytes = Cowd { text: WITH_PARENT, ..Default::default() }.build();
    let source = open(&Vmdk, MemoryStorage::from_bytes(bytes)).unwrap();
    assert_eq!(source.backing().unwrap().names, ["base.vmdk"]);
}

#[test]
fn a_text_descriptor_alone_decides_when_files_are_ignored() {
    let (_, bytes, _) = samples::all().swap_remove(13);
    let mut source = open(&Vmdk, MemoryStorage::from_bytes(bytes)).unwrap();
    assert_eq!(
        extents(source.as_mut()).unwrap(),
        [
            (8 * 512, Status::DataOverHoles(Place::in_file(0, 0))),
            (16 * 512, Status::Zero),
            (6 * 512, Status::Absent),
        ]
    );
    let names: Vec<_> = source.files().iter().map(|file| file.name.to_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c", "e"]);
}

#[test]
fn a_text_descriptor_is_refused_with_its_files_by_default() {
    let bytes = text("monolithicFlat", "RW 8 FLAT \"a-flat.vmdk\" 0\nRW 8 FLAT \"b\" 0\n");
    let storage = MemoryStorage::from_bytes(bytes);
    let error = open_with(&Vmdk, storage, &Arc::new(Context::default())).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::External);
    assert!(error.to_string().contains("extent file \"a-flat.vmdk\", \"b\""), "{error}");
    // Without a file there is nothing to refuse.
    let zero = MemoryStorage::from_bytes(text("vmfs", "RW 8 ZERO\n"));
    let mut source = open_with(&Vmdk, zero, &Arc::new(Context::default())).unwrap();
    assert_eq!(extents(source.as_mut()).unwrap(), [(8 * 512, Status::Zero)]);
}

/// A disk of these lines with these files, opened.
fn composed(lines: &str, files: Vec<Vec<u8>>) -> instar_core::Result<VmdkSource> {
    let descriptor = Descriptor::parse(&text("vmfs", lines), 0)?;
    let files = files.into_iter().enumerate().map(|(index, bytes)| ImageFile {
        name: index.to_string().into(),
        storage: Some(Arc::new(MemoryStorage::from_bytes(bytes))),
    });
    VmdkSource::composed(&descriptor.extents, files.collect(), None, &context().limits)
}

#[test]
fn grains_of_opened_extents_are_cut_at_the_end_of_their_extent() {
    let lines = "RW 100 SPARSE \"0\"\nRW 8 ZERO\nRW 20 FLAT \"1\" 1\nRW 7 SPARSE \"2\"\n";
    let files = || {
        let sparse = Hosted { descriptor: "", descriptor_sector: 0, ..Default::default() }.build();
        vec![sparse, vec![1; 21 * 512], Cowd::default().build()]
    };
    let open = || Ok(Box::new(composed(lines, files())?) as Box<dyn ExtentSource>);
    let list = extents(open().unwrap().as_mut()).unwrap();
    let in_file = |file, sector: u64| Place::in_file(file, sector * 512);
    assert_eq!(
        list[5..9],
        [
            (2 * K, Status::Data(in_file(0, 64))),
            (4 * K, Status::Zero),
            (10 * K, Status::DataOverHoles(in_file(1, 1))),
            (K, Status::Data(in_file(2, 60))),
        ]
    );
    // The sparse file's own size counts, not its line's.
    let size = (100 + 8 + 20 + 5000) * 512;
    assert_eq!(list.iter().map(|(length, _)| length).sum::<u64>(), size);
    assert_eq!(check_source(open), 13);
}

#[test]
fn an_opened_extent_must_be_sparse_if_it_is_said_to_be() {
    let error = composed("RW 8 SPARSE \"0\"\n", vec![vec![0; 512]]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "extent file of type SPARSE is not a sparse extent: its magic is unknown"
    );
    assert!(composed("RW 8 SPARSE \"0\"\n", vec![vec![]]).is_err());
}

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
