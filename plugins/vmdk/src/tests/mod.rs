//! Maps of whole images, refusals, and the laws.

mod refused;

use std::sync::Arc;

use instar_core::testkit::{
    self, check_format, check_holes, check_hostile, check_source, context, data, extents, open,
    open_with,
};
use instar_core::{
    Context, ErrorKind, ExtentSource, ImageFile, Limits, MemoryStorage, Place, Role, Status,
};
use pretty_assertions::assert_eq;

use crate::Vmdk;
use crate::descriptor::Descriptor;
use crate::samples::{self, Cowd, Hosted, SeSparse, WITH_PARENT, text};
use crate::source::{Named, VmdkSource};

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

/// The warnings that opening and mapping give.
fn warnings(bytes: Vec<u8>) -> Vec<String> {
    testkit::warnings(&Vmdk, MemoryStorage::from_bytes(bytes))
}

#[test]
fn laws_hold_for_every_sample() {
    assert_eq!(check_format(&Vmdk, &samples::all()).samples, 16);
}

#[test]
fn damage_to_any_sample_is_survived() {
    for (_, bytes, _) in samples::sound() {
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
    let (_, bytes, _) = samples::sound().swap_remove(3);
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
    let (_, bytes, _) = samples::sound().swap_remove(13);
    let mut source = open(&Vmdk, MemoryStorage::from_bytes(bytes)).unwrap();
    assert_eq!(
        extents(source.as_mut()).unwrap(),
        [
            (8 * 512, Status::DataOverHoles(Place::in_file(0, 0))),
            (16 * 512, Status::Zero),
            (6 * 512, Status::Absent),
        ]
    );
    let names: Vec<_> = source.files().iter().map(|file| file.name.to_string()).collect();
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
    let text = text("vmfs", lines);
    let descriptor = Descriptor::parse(&text, 0)?;
    let files = files.into_iter().enumerate().map(|(index, bytes)| ImageFile {
        name: index.to_string().as_str().into(),
        storage: Some(Arc::new(MemoryStorage::from_bytes(bytes))),
    });
    let named = Named::of(&descriptor.extents);
    VmdkSource::composed(&descriptor.extents, &named, files.collect(), None, &context())
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
fn extents_in_one_file_share_it_and_its_grain_tables() {
    let lines = "RW 1 SPARSE \"0\"\nRW 8 FLAT \"1\" 1\nRW 9 SPARSE \"0\"\nRW 4 FLAT \"1\" 9\n";
    let sparse = Hosted { descriptor: "", descriptor_sector: 0, ..Default::default() }.build();
    let open = || composed(lines, vec![sparse.clone(), vec![1; 13 * 512]]);
    let mut source = open().unwrap();
    let names: Vec<_> = source.files().iter().map(|file| file.name.to_string()).collect();
    assert_eq!(names, ["0", "1"]);
    assert_eq!(source.opened_tables(), 1);
    let list = extents(&mut source).unwrap();
    let flat = |sector: u64| Status::DataOverHoles(Place::in_file(1, sector * 512));
    let first: Vec<_> = list.iter().take_while(|(_, status)| *status != flat(1)).collect();
    assert!(first.len() > 3, "{first:?}");
    let second: Vec<_> = list.iter().skip(first.len() + 1).take(first.len()).collect();
    assert_eq!(first, second);
    assert_eq!(list.get(2 * first.len() + 1), Some(&(4 * 512, flat(9))));
    check_source(|| open().map(|source| Box::new(source) as Box<dyn ExtentSource>));
}

#[test]
fn lists_that_would_take_too_much_memory_are_refused() {
    let open = |held| {
        let mut context = Context::default();
        context.limits.held = held;
        let storage = MemoryStorage::from_bytes(text("vmfs", &"RW 1 ZERO\n".repeat(100)));
        let opened = open_with(&Vmdk, storage, &Arc::new(context));
        opened.map(|_| ()).map_err(|error| (error.kind(), error.to_string()))
    };
    for (held, what) in
        [(5000, "what the descriptor says"), (8000, "the list of the disk's extents")]
    {
        let (kind, error) = open(held).unwrap_err();
        assert_eq!(kind, ErrorKind::Limit, "{held}");
        assert!(error.starts_with(&format!("vmdk: {what} would take ")), "{error}");
        assert!(error.ends_with(&format!("at most {held} are allowed")), "{error}");
    }
    assert_eq!(open(20_000), Ok(()));
}

#[test]
fn an_opened_extent_without_a_capacity_is_refused() {
    let empty = Hosted { capacity: 0, ..Default::default() }.build();
    let error = composed("RW 8 SPARSE \"0\"\n", vec![empty]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "extent file of type SPARSE has no capacity, its line in the descriptor has 4096 bytes"
    );
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
fn tables_in_other_places_or_named_many_times_are_warned_about() {
    let none = [] as [&str; 0];
    assert_eq!(warnings(Hosted::default().build()), none);
    let directory = |sector: u32, count: usize| {
        let capacity = 512 * 8 * count as u64;
        let mut bytes = Hosted { capacity, ..Hosted::default() }.build();
        for entry in bytes[21 * 512..].chunks_exact_mut(4).take(count) {
            entry.copy_from_slice(&sector.to_le_bytes());
        }
        bytes
    };
    assert_eq!(
        warnings(directory(21, 1)),
        ["the grain table at directory index 0 lies at 0x2a00, in the grain directory at 0x2a00"]
    );
    // The file of 72 sectors has room for 18 tables of 4 sectors.
    assert_eq!(warnings(directory(22, 18)), none);
    assert_eq!(
        warnings(directory(22, 19)),
        ["more grain tables are named than the file has room for, 18: some of them many times"]
    );
}

#[test]
fn tables_in_holes_are_empty() {
    for sample in samples::all() {
        assert_eq!(check_holes(&Vmdk, sample.image()), sample.extents(), "{}", sample.name());
    }
}

/// No byte of the disk is in the grains of entries past its end, in either table.
#[test]
fn spare_entries_are_not_examined() {
    let hosted = Hosted::default();
    let cowd = Cowd { capacity: 3, directory_entries: 100, ..Cowd::default() };
    let whole = "version=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"vmfsSparse\"\n";
    let cowd = Cowd { text: whole, ..cowd };
    // Bytes of the image, and where its directory's and its table's spare entries start.
    let cases = [
        (hosted.build(), [21 * 512 + 4, 22 * 512 + 4 * 13], 22 * 512 + 4 * 512),
        (cowd.build(), [21 * 512 + 4, 22 * 512 + 4 * 3], 22 * 512 + 4 * 4096),
    ];
    for (bytes, [directory, table], end) in cases {
        let expected = map(bytes.clone());
        for entry in [1, 2, 21, 31, 1 << 31, u32::MAX] {
            let mut bytes = bytes.clone();
            for at in (directory..22 * 512).chain(table..end.min(bytes.len())).step_by(4) {
                bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(entry));
            }
            let storage = MemoryStorage::from_bytes(bytes);
            let mut source = open_with(&Vmdk, storage, &testkit::strict()).unwrap();
            assert_eq!(extents(source.as_mut()).unwrap(), expected, "{entry:#x}");
        }
    }
}

/// Without what is remembered, each name of a table would cost all of it.
#[test]
fn a_table_that_is_named_again_is_not_decoded_again() {
    let bytes = samples::shared();
    let length = bytes.len() as u64;
    let storage = MemoryStorage::from_bytes(bytes).with_allocated(64 << 10);
    assert_eq!(length, 2_199_552);
    assert_eq!(instar_core::testkit::decoded(&Vmdk, storage).unwrap(), 92_464);
}
