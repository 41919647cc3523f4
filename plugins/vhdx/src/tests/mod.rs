//! Whole images: what they map to, what is refused and why, and the laws of every format.

mod hostile;
mod log;
mod refused;

use std::path::Path;
use std::sync::Arc;

use instar_core::testkit::{
    self, check_format, check_holes, context, data, extents, open, open_with, probe,
};
use instar_core::{
    Batch, Confidence, ErrorKind, ExtentSource, Flow, Image, Location, MemoryStorage, Role, Status,
};
use pretty_assertions::assert_eq;

use crate::disk::{MIB, PARENT_LOCATOR};
use crate::samples::{
    self, BLOCKS, LINKAGE, Sample, UNKNOWN, VHDX_LOCATOR, bitmap, chunked, full, hyper_v_locator,
    le, locator, partial, region, sound,
};
use crate::{Guid, Vhdx};

/// The map of a sample, as (MiB, status) as far as lengths are whole MiB.
fn map(sample: &Sample) -> Vec<(u64, Status)> {
    extents(open(&Vhdx, sample.storage()).expect("opens").as_mut()).expect("maps")
}

/// What opening or mapping a sample says, and of which kind the error is.
fn refusal(sample: &Sample) -> (ErrorKind, String) {
    testkit::refusal(&Vhdx, sample.storage())
}

/// The warnings of opening and mapping a sample.
fn warnings(sample: &Sample) -> Vec<String> {
    testkit::warnings(&Vhdx, sample.storage())
}

#[test]
fn laws_hold_for_every_sound_sample() {
    assert_eq!(check_format(&Vhdx, &samples::all()).samples, 15);
    for (name, sample, _) in sound() {
        assert_eq!(probe(&Vhdx, &sample.storage()), Confidence::Verified, "{name}");
    }
}

#[test]
fn a_dynamic_disk_maps_by_its_bat() {
    let (_, sample, _) = sound().remove(2);
    let expected = [
        (MIB, Status::Absent),
        (4 * MIB, Status::Zero),
        (2 * MIB, data(4 * MIB)),
        (MIB, Status::Absent),
        (MIB, data(7 * MIB)),
    ];
    assert_eq!(map(&sample), expected);
}

#[test]
fn a_differencing_disk_maps_by_its_sector_bitmaps() {
    let (name, sample, _) = sound().remove(9);
    assert_eq!(name, "differencing-every-state");
    let expected = [
        (MIB, Status::Absent),
        (3 * MIB, Status::Zero),
        (MIB + 512, data(5 * MIB)),
        (99 * 512, Status::Absent),
        (MIB - 100 * 512 + 64 * 512, data(6 * MIB + 100 * 512)),
        ((2048 - 64 + 63) * 512, Status::Absent),
        (2 * 512, data(8 * MIB + 63 * 512)),
        ((2048 - 65) * 512, Status::Absent),
    ];
    assert_eq!(map(&sample), expected);
}

#[test]
fn sectors_of_4096_bytes_have_bits_of_their_own() {
    let (name, sample, _) = sound().remove(8);
    assert_eq!(name, "sectors-of-4096");
    let expected = [
        (4096, Status::Absent),
        (2 * 4096, data(6 * MIB + 4096)),
        (252 * 4096, Status::Absent),
        (4096, data(7 * MIB - 4096)),
        (MIB, Status::Absent),
        (MIB, data(7 * MIB)),
    ];
    assert_eq!(map(&sample), expected);
}

#[test]
fn a_parent_is_named_by_its_paths_and_its_linkage() {
    let sample = Sample::child(1, &chunked(4096, &[(&[0], 0)]));
    let storage = Arc::new(sample.storage());
    let context = context();
    let location = Location::new(Path::new("image"));
    let image = Image { storage, location: &location, context: &context };
    let source = Vhdx::open_source(&image).unwrap();
    let backing = source.backing().unwrap();
    assert_eq!(backing.role, Role::Parent);
    assert_eq!(backing.format.as_deref(), Some("vhdx"));
    let names = [r"..\base.vhdx", r"C:\disks\base.vhdx", r"\\?\Volume{26a21bda}\base.vhdx"];
    assert_eq!(backing.names, names);
    let parent = source.parent_locator().unwrap();
    assert_eq!(Some(parent.parent_linkage), Guid::parse(LINKAGE));
    assert_eq!(parent.parent_linkage2, None);
    assert_eq!(backing.identifiers, [Guid::parse(LINKAGE).unwrap().to_bytes()]);
    assert_eq!(source.identifier(), Some(source.data_write_guid().to_bytes()));
    assert_eq!(source.data_write_guid(), Guid::new(0x0203_0405));
    assert_eq!(source.virtual_disk_id(), Guid::from_bytes([7; 16]));
}

#[test]
fn a_name_may_be_stored_with_its_nul() {
    let text = "base\u{e9}\u{1f600}.vhdx";
    let item = locator(
        VHDX_LOCATOR,
        &[
            ("parent_linkage", LINKAGE),
            ("parent_linkage2", LINKAGE),
            ("relative_path", &format!("{text}\0")),
            ("unknown", "?"),
        ],
    );
    let sample = Sample::child(1, &chunked(4096, &[(&[0], 0)])).with(|s| s.items[0].2 = item);
    let source = open(&Vhdx, sample.storage()).unwrap();
    let backing = source.backing().unwrap();
    assert_eq!(backing.names, [text]);
    assert_eq!(backing.identifiers.len(), 2);
}

#[test]
fn of_two_headers_the_later_valid_one_counts() {
    let size = |change: &dyn Fn(&mut Sample)| {
        // Header 2 says that there is a log, which there is not.
        let sample = Sample::new(1, &[]).with(|s| s.headers[1] = vec![(48, vec![1; 16])]);
        open(&Vhdx, sample.with(change).storage()).map(|source| source.virtual_size())
    };
    assert!(size(&|_| {}).is_err());
    assert!(size(&|s| s.headers[1].push((0, b"HEAD".to_vec()))).is_ok());
    assert!(size(&|s| s.raw.push(((128 << 10) + 4000, vec![1]))).is_ok());
    assert!(size(&|s| s.headers[0].push((8, le(&[3])))).is_ok());
    let broken = |s: &mut Sample| {
        s.headers[0].push((0, b"HEAD".to_vec()));
        s.headers[1].push((0, b"HEAD".to_vec()));
    };
    let error = size(&broken).unwrap_err();
    assert_eq!(error.to_string(), "vhdx: neither header has a right signature and checksum");
    let error = size(&|s| s.headers[0].push((8, le(&[2])))).unwrap_err();
    let text = "vhdx: both headers are valid and have sequence number 2, but differ";
    assert_eq!(error.to_string(), text);
    let twins = |s: &mut Sample| {
        s.headers[1].clear();
        s.headers[0].push((8, le(&[2])));
    };
    assert!(size(&twins).is_ok());
}

#[test]
fn the_second_region_table_stands_in_for_the_first() {
    let first_broken = Sample::new(1, &[2]).with(|s| s.raw.push((192 << 10, b"REGI".to_vec())));
    assert_eq!(map(&first_broken), [(MIB, Status::Zero)]);
    let text = "the region table has no signature `regi` (at file offset 0x30000); the \
                second copy is used";
    assert_eq!(warnings(&first_broken), [text]);
    let both = first_broken.with(|s| s.raw.push(((256 << 10) + 100, vec![1])));
    let text = "vhdx: the region table has no signature `regi` (at file offset 0x30000)";
    assert_eq!(refusal(&both), (ErrorKind::Corrupt, text.to_owned()));
}

#[test]
fn oddities_that_change_nothing_are_warned_about() {
    let odd = |change: &dyn Fn(&mut Sample)| warnings(&Sample::new(1, &[2]).with(change));
    assert_eq!(odd(&|s| s.physical = 520), ["the physical sector size is 520, not 512 or 4096"]);
    assert_eq!(
        odd(&|s| s.items.push((PARENT_LOCATOR, 4, hyper_v_locator()))),
        ["there is a parent locator, but the disk has no parent"]
    );
    let size = Sample::new(1, &[2]).with(|s| s.size = 1000);
    let text = "the virtual size of 1000 bytes is not a multiple of the logical sector \
                size of 512";
    assert_eq!(warnings(&size), [text]);
    assert_eq!(map(&size), [(512, Status::Zero)]);
    let unknown = |s: &mut Sample| {
        s.more_regions.push(region(UNKNOWN, 8 * MIB, 0, 0));
        s.items.push((UNKNOWN, 2, vec![1]));
        s.items.push((PARENT_LOCATOR, 1, vec![1]));
        s.headers[1] = vec![(64, vec![1])];
    };
    assert_eq!(odd(&unknown), [""; 0]);
}

#[test]
fn a_path_of_the_parent_that_is_no_text_is_left_out() {
    let link = ("parent_linkage", LINKAGE);
    let whole = [link, ("relative_path", "a"), ("volume_path", "b")];
    let child = |item: Vec<u8>| {
        Sample::child(1, &[]).with(|s| {
            s.items.retain(|item| item.0 != PARENT_LOCATOR);
            s.items.push((PARENT_LOCATOR, 4, item));
        })
    };
    let names = |sample: &Sample| {
        let source = open(&Vhdx, sample.storage()).unwrap();
        source.backing().unwrap().names.clone()
    };
    let sound = child(locator(VHDX_LOCATOR, &whole));
    assert_eq!((names(&sound), warnings(&sound)), (vec!["a".into(), "b".into()], vec![]));
    let mut surrogate = locator(VHDX_LOCATOR, &whole);
    *surrogate.last_mut().unwrap() = 0xd8;
    let nul = locator(VHDX_LOCATOR, &[link, ("relative_path", "a"), ("volume_path", "b\0c")]);
    for item in [surrogate, nul] {
        let sample = child(item);
        assert_eq!(names(&sample), ["a"]);
        let text = "the parent locator's volume_path is not UTF-16 text without a NUL";
        let [warning] = warnings(&sample).try_into().unwrap();
        assert!(warning.starts_with(text) && warning.ends_with("; left out"), "{warning}");
    }
    let nameless = child(locator(VHDX_LOCATOR, &[link]));
    assert_eq!((names(&nameless), warnings(&nameless)), (vec![], vec![]));
}

#[test]
fn what_comes_before_a_broken_entry_is_mapped() {
    let sample = Sample::new(4, &[2, full(4), full(5), full(6)]).with(|s| s.length = 6 * MIB);
    let mut source = open(&Vhdx, sample.storage()).unwrap();
    let mut batch = Batch::default();
    batch.ask(0, 4 * MIB);
    assert!(source.extents(&mut batch).is_err());
    assert_eq!(batch.cursor(), 3 * MIB);
    // Behind it, too: every entry stands for itself.
    let sample = Sample::new(2, &[4, 2]);
    let mut source = open(&Vhdx, sample.storage()).unwrap();
    batch.ask(MIB, 2 * MIB);
    source.extents(&mut batch).unwrap();
    assert_eq!(batch.extents().len(), 1);
}

#[test]
fn the_largest_disk_is_mapped_from_holes() {
    // 64 TiB in blocks of 1 MiB: a BAT of 512 MiB, all of it a hole of the file.
    let mut sample = Sample::new(64 << 20, &[]);
    sample.bat_length = 513 << 20;
    sample.length = 600 << 20;
    let storage = MemoryStorage::new(sample.length).with_data(0, sample.bytes());
    let mut source = open(&Vhdx, storage).unwrap();
    assert_eq!(extents(source.as_mut()).unwrap(), [(64 << 40, Status::Absent)]);
}

#[test]
fn probing_looks_at_signature_and_header_1() {
    let sample = Sample::new(1, &[0]);
    assert_eq!(probe(&Vhdx, &sample.storage()), Confidence::Verified);
    let broken = sample.clone().with(|s| s.raw.push(((64 << 10) + 100, vec![1])));
    assert_eq!(probe(&Vhdx, &broken.storage()), Confidence::Magic);
    let short = MemoryStorage::from_bytes(*b"vhdxfile");
    assert_eq!(probe(&Vhdx, &short), Confidence::Magic);
    let other = sample.with(|s| s.raw.push((7, vec![b'E'])));
    assert_eq!(probe(&Vhdx, &other.storage()), Confidence::No);
    assert_eq!(probe(&Vhdx, &MemoryStorage::new(0)), Confidence::No);
}

#[test]
fn a_disk_of_alternating_sectors_is_walked_in_bounded_batches() {
    let mut bits = bitmap([]);
    bits.fill(0b0101_0101);
    let sample =
        Sample::child(2, &chunked(4096, &[(&[partial(5), partial(6)], full(4))])).with(|s| {
            s.raw.push((BLOCKS, bits));
            s.length = 7 * MIB;
        });
    let mut source = open(&Vhdx, sample.storage()).unwrap();
    let list = extents(source.as_mut()).unwrap();
    assert_eq!(list.len(), 4096);
    assert!(list.iter().all(|(length, _)| *length == 512));
    let mut batch = Batch::with_capacity(2);
    batch.ask(100, 2 * MIB);
    source.extents(&mut batch).unwrap();
    assert_eq!(
        batch.extents().first().map(|e| (e.length, e.status())),
        Some((412, data(5 * MIB + 100)))
    );
    assert_eq!(batch.push(1, Status::Zero), Flow::Stop);
}

/// No writer makes such an image, whose map may be much larger than its file.
#[test]
fn bitmaps_that_are_named_many_times_are_noticed() {
    let many = |chunks: usize, room: u64| {
        let payload = [partial(5)];
        let entries = vec![(payload.as_slice(), full(4)); chunks];
        let sample = Sample::child(0, &chunked(16, &entries)).with(|s| {
            s.block_size = 256 << 20;
            s.size = chunks as u64 * (4 << 30);
            s.length = room * MIB;
        });
        let mut source = open_with(&Vhdx, sample.storage(), &testkit::strict()).unwrap();
        extents(source.as_mut())
    };
    // A block of 256 MiB and what lies in front of it.
    let room = 5 + 256;
    assert_eq!(many(261, room).unwrap(), [(261 * (4 << 30), Status::Absent)]);
    let text = "more sector bitmap blocks are named than the file has room for, 261: some of them \
                many times";
    assert!(many(262, room).unwrap_err().to_string().contains(text));
}

#[test]
fn tables_in_holes_are_empty() {
    for sample in samples::all() {
        assert_eq!(check_holes(&Vhdx, sample.image()), sample.extents(), "{}", sample.name());
    }
}

/// No byte of the disk is in the blocks of entries past its end.
#[test]
fn spare_entries_are_not_examined() {
    let dynamic = Sample::new(2, &[full(4), 0]).with(|s| s.length = 5 * MIB);
    let child = Sample::child(2, &[full(4), 0]).with(|s| s.length = 5 * MIB);
    for sample in [dynamic, child] {
        let expected = map(&sample);
        // Every state, and places that overlap, are outside the file or near 2^64.
        for entry in
            (0..8).flat_map(|state| [0, MIB, 4 * MIB, 99 * MIB, !0 << 20].map(|p| p | state))
        {
            let sample = sample.clone().with(|s| s.bat.resize(100, entry));
            let mut source = open_with(&Vhdx, sample.storage(), &testkit::strict()).unwrap();
            assert_eq!(extents(source.as_mut()).unwrap(), expected, "{entry:#x}");
        }
    }
}
