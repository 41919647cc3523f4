//! Each refusal: kind, text and file offset.

use instar_core::ErrorKind;
use instar_core::testkit::open;
use pretty_assertions::assert_eq;

use super::log::{entry, logged};
use super::refusal;
use crate::Vhdx;
use crate::disk::{MIB, PARENT_LOCATOR};
use crate::samples::{
    LINKAGE, LogEntry, Sample, UNKNOWN, VHDX_LOCATOR, chunked, full, le, le32, locator, partial,
    pending_log, region, stored,
};

/// A sample that is refused: its name, the kind of the error and its text.
type Refused = (&'static str, Sample, ErrorKind, &'static str);

/// Everything that is refused on opening, but for headers and logs.
fn refused_on_opening() -> Vec<Refused> {
    use ErrorKind::{Corrupt, Limit, Unsupported, WrongFormat};
    let one = || Sample::new(1, &[0]);
    let regions = |at: usize, bytes: Vec<u8>| {
        one().with(|s| s.regions = [vec![(at, bytes.clone())], vec![(at, bytes)]])
    };
    let child = |item: Vec<u8>| {
        Sample::child(1, &chunked(4096, &[(&[0], 0)])).with(|s| s.items[0].2 = item)
    };
    let link = ("parent_linkage", LINKAGE);
    let path = ("relative_path", "a");
    let metadata = |at: usize, bytes: Vec<u8>| one().with(|s| s.metadata = vec![(at, bytes)]);
    vec![
        (
            "signature",
            one().with(|s| s.raw.push((0, vec![b'V']))),
            WrongFormat,
            "the file does not start with the signature `vhdxfile`",
        ),
        (
            "version",
            one().with(|s| s.headers[1] = vec![(66, vec![2])]),
            Unsupported,
            "the header's version is 2, only 1 is supported (at file offset 0x20042)",
        ),
        (
            "log version",
            pending_log().with(|s| s.headers[1] = vec![(64, vec![1])]),
            Unsupported,
            "the log's version is 1, only 0 is supported (at file offset 0x20040)",
        ),
        (
            "log at an odd place",
            one().with(|s| s.headers[1] = vec![(73, vec![1])]),
            Corrupt,
            "the log of 1048576 bytes at 0x100100 is misplaced: both must be multiples of 1048576, \
          the offset at least that (at file offset 0x20044)",
        ),
        (
            "log in the header",
            one().with(|s| s.headers[1] = vec![(72, le(&[0]))]),
            Corrupt,
            "the log of 1048576 bytes at 0x0 is misplaced: both must be multiples of 1048576, \
          the offset at least that (at file offset 0x20044)",
        ),
        (
            "log length",
            one().with(|s| s.headers[1] = vec![(68, vec![1])]),
            Corrupt,
            "the log of 1048577 bytes at 0x100000 is misplaced: both must be multiples of 1048576, \
          the offset at least that (at file offset 0x20044)",
        ),
        (
            "log outside the file",
            pending_log().with(|s| s.headers[1] = vec![(72, le(&[64 * MIB]))]),
            Corrupt,
            "log (1048576 bytes at 0x4000000) is outside the file of 5242880 bytes",
        ),
        (
            "file cut since the log was written",
            logged(&[(0, LogEntry { flushed: 9 * MIB, ..entry(1, 0, 4) })]),
            Corrupt,
            "the file has 7340032 bytes, but had 9437184 when its log was written \
          (at file offset 0x100030)",
        ),
        (
            "region count",
            regions(8, le32(&[2048])),
            Corrupt,
            "the region table has 2048 entries, at most 2047 are allowed (at file offset 0x30000)",
        ),
        (
            "region in the header",
            regions(32, le(&[0])),
            Corrupt,
            "region 2dc27766-f623-4200-9d64-115e9bfd4a08 of 1048576 bytes at 0x0 is misplaced: both \
          must be multiples of 1048576, the offset at least that (at file offset 0x30010)",
        ),
        (
            "region at an odd place",
            regions(32, le(&[3 * MIB + 4096])),
            Corrupt,
            "region 2dc27766-f623-4200-9d64-115e9bfd4a08 of 1048576 bytes at 0x301000 is misplaced: \
          both must be multiples of 1048576, the offset at least that (at file offset 0x30010)",
        ),
        (
            "region length",
            regions(40, le32(&[4096])),
            Corrupt,
            "region 2dc27766-f623-4200-9d64-115e9bfd4a08 of 4096 bytes at 0x300000 is misplaced: \
          both must be multiples of 1048576, the offset at least that (at file offset 0x30010)",
        ),
        (
            "region twice",
            one().with(|s| s.more_regions = vec![region(UNKNOWN, 8 * MIB, 0, 0); 2]),
            Corrupt,
            "region 0bad0bad-0bad-0bad-0bad-0bad0bad0bad is in the region table twice \
          (at file offset 0x30070)",
        ),
        (
            "unknown region",
            one().with(|s| s.more_regions = vec![region(UNKNOWN, 8 * MIB, 0, 1)]),
            Unsupported,
            "region 0bad0bad-0bad-0bad-0bad-0bad0bad0bad is marked as required, but is not known \
          (at file offset 0x30050)",
        ),
        (
            "no bat",
            regions(16, stored(UNKNOWN)).with(|s| {
                s.regions.iter_mut().for_each(|p| p.push((44, vec![0])));
            }),
            Corrupt,
            "the BAT is not in the region table",
        ),
        (
            "no metadata",
            regions(8, le32(&[1])),
            Corrupt,
            "the metadata region is not in the region table",
        ),
        (
            "overlap",
            regions(32, le(&[2 * MIB])),
            Corrupt,
            "the metadata region at 0x200000 overlaps the BAT, which ends at 0x300000",
        ),
        (
            "overlap of the log",
            regions(32, le(&[MIB])),
            Corrupt,
            "the BAT at 0x100000 overlaps the log, which ends at 0x200000",
        ),
        (
            "overlap of unknown",
            one().with(|s| {
                s.more_regions = vec![region(UNKNOWN, 3 * MIB, 9 << 20, 0)];
            }),
            Corrupt,
            "an unknown region at 0x300000 overlaps the BAT, which ends at 0x400000",
        ),
        (
            "metadata outside the file",
            regions(64, le(&[64 * MIB])),
            Corrupt,
            "metadata (65536 bytes at 0x4000000) is outside the file of 4194304 bytes",
        ),
        (
            "metadata signature",
            metadata(0, vec![b'M']),
            Corrupt,
            "the metadata table has no signature `metadata` (at file offset 0x200000)",
        ),
        (
            "metadata count",
            metadata(10, vec![0, 8]),
            Corrupt,
            "the metadata table has 2048 entries, at most 2047 are allowed (at file offset 0x200000)",
        ),
        (
            "item twice",
            one().with(|s| s.items = vec![(UNKNOWN, 1, vec![1]); 2]),
            Corrupt,
            "metadata item 0bad0bad-0bad-0bad-0bad-0bad0bad0bad is in the metadata table twice \
          (at file offset 0x2000e0)",
        ),
        (
            "unknown item",
            one().with(|s| s.items = vec![(UNKNOWN, 4, vec![1])]),
            Unsupported,
            "metadata item 0bad0bad-0bad-0bad-0bad-0bad0bad0bad is marked as required, but is not \
          known (at file offset 0x2000c0)",
        ),
        (
            "required item of the user",
            one().with(|s| s.items = vec![(PARENT_LOCATOR, 5, vec![1])]),
            Unsupported,
            "metadata item a8d35f2d-b30b-454d-abf7-d3d84834ab0c is marked as required, but is not \
             known (at file offset 0x2000c0)",
        ),
        (
            "item missing",
            metadata(10, vec![4]),
            Corrupt,
            "the physical sector size is not in the metadata table",
        ),
        (
            "item in the table",
            metadata(48, le32(&[65535])),
            Corrupt,
            "the file parameters (8 bytes at 0xffff of the metadata region) is misplaced: it must \
          lie from 65536 on, have at most 1048576 bytes, and end at or before 1048576 \
          (at file offset 0x200030)",
        ),
        (
            "item short",
            metadata(52, le32(&[7])),
            Corrupt,
            "the file parameters (7 bytes at 0x10000 of the metadata region) is misplaced: it must \
          lie from 65536 on, have at most 1048576 bytes, and end at or before 1048576 \
          (at file offset 0x200030)",
        ),
        (
            "item behind its region",
            metadata(80, le32(&[(1 << 20) - 7])),
            Corrupt,
            "the virtual size (8 bytes at 0xffff9 of the metadata region) is misplaced: it must \
          lie from 65536 on, have at most 1048576 bytes, and end at or before 1048576 \
          (at file offset 0x200050)",
        ),
        (
            "block size 0",
            one().with(|s| s.block_size = 0),
            Corrupt,
            "the block size is 0, expected a power of two from 1 MiB to 256 MiB \
          (at file offset 0x210000)",
        ),
        (
            "block size small",
            one().with(|s| s.block_size = 1 << 19),
            Corrupt,
            "the block size is 524288, expected a power of two from 1 MiB to 256 MiB \
          (at file offset 0x210000)",
        ),
        (
            "block size odd",
            one().with(|s| s.block_size = 3 << 20),
            Corrupt,
            "the block size is 3145728, expected a power of two from 1 MiB to 256 MiB \
          (at file offset 0x210000)",
        ),
        (
            "block size large",
            one().with(|s| s.block_size = 1 << 29),
            Corrupt,
            "the block size is 536870912, expected a power of two from 1 MiB to 256 MiB \
          (at file offset 0x210000)",
        ),
        (
            "sector size",
            one().with(|s| s.sector_size = 1024),
            Corrupt,
            "the logical sector size is 1024, expected 512 or 4096 (at file offset 0x210020)",
        ),
        (
            "virtual size",
            one().with(|s| s.size = (64 << 40) + 512),
            Corrupt,
            "the virtual size is 70368744178176, at most 70368744177664 bytes (64 TiB) are allowed \
          (at file offset 0x210008)",
        ),
        (
            "no locator",
            one().with(|s| s.flags = 2),
            Corrupt,
            "the disk has a parent, but there is no parent locator",
        ),
        (
            "locator long",
            child(vec![0; (1 << 20) + 1]),
            Limit,
            "the parent locator in bytes is 1048577, at most 1048576 is allowed",
        ),
        (
            "locator short",
            child(vec![0; 10]),
            Corrupt,
            "parent locator is too short: 16 bytes at 0 do not fit in 10 (at file offset 0x210028)",
        ),
        (
            "locator type",
            child(locator(UNKNOWN, &[link, path])),
            Unsupported,
            "the parent locator is of type 0bad0bad-0bad-0bad-0bad-0bad0bad0bad, which is not known \
          (at file offset 0x210028)",
        ),
        (
            "locator text outside",
            child({
                let mut item = locator(VHDX_LOCATOR, &[link, path]);
                item[20] = 255;
                item
            }),
            Corrupt,
            "parent locator is too short: 28 bytes at 255 do not fit in 176 \
          (at file offset 0x210127)",
        ),
        (
            "locator empty text",
            child(locator(VHDX_LOCATOR, &[link, ("relative_path", "")])),
            Corrupt,
            "entry 1 of the parent locator has a key or value without bytes \
          (at file offset 0x210048)",
        ),
        (
            "locator key twice",
            child(locator(VHDX_LOCATOR, &[link, path, path])),
            Corrupt,
            "the parent locator has two entries relative_path (at file offset 0x2100fe)",
        ),
        (
            "locator no guid",
            child(locator(VHDX_LOCATOR, &[("parent_linkage", "x\n"), path])),
            Corrupt,
            "the parent locator's parent_linkage is \"x\\n\", expected a GUID \
          (at file offset 0x210070)",
        ),
        (
            "locator without linkage",
            child(locator(VHDX_LOCATOR, &[path])),
            Corrupt,
            "the parent locator has no parent_linkage (at file offset 0x210028)",
        ),
        (
            "bat short",
            Sample::new((1 << 17) - 30, &[]),
            Corrupt,
            "the BAT region has 1048576 bytes, the disk needs 1048584 (at file offset 0x30028)",
        ),
        (
            "bat short for a parent",
            Sample::child(1, &[]).with(|s| s.bat_length = 0),
            Corrupt,
            "the BAT region has 0 bytes, the disk needs 32776 (at file offset 0x30028)",
        ),
        (
            "bat outside the file",
            one().with(|s| s.length = 3 * MIB),
            Corrupt,
            "the BAT (8 bytes at 0x300000) runs past the end of the file (3145728 bytes)",
        ),
    ]
}

/// Everything that is refused when its BAT entry is reached.
fn refused_on_mapping() -> Vec<Refused> {
    use ErrorKind::Corrupt;
    let second = |entry: u64| Sample::new(2, &[2, entry]).with(|s| s.length = 6 * MIB);
    let child = |payload: u64, bitmap: u64| {
        Sample::child(2, &chunked(4096, &[(&[0, payload], bitmap)])).with(|s| s.length = 6 * MIB)
    };
    vec![
        (
            "state 4",
            second(4),
            Corrupt,
            "BAT entry 1 has the reserved state 4 (at file offset 0x300008)",
        ),
        (
            "state 4 in the second chunk",
            Sample::new(0, &chunked(16, &[(&[0; 16], 0), (&[0, 4], 0)])).with(|s| {
                s.block_size = 256 << 20;
                s.size = 18 * 256 * MIB;
            }),
            Corrupt,
            "BAT entry 18 has the reserved state 4 (at file offset 0x300090)",
        ),
        (
            "partial without parent",
            second(partial(4)),
            Corrupt,
            "BAT entry 1 is partially present, but the disk has no parent (at file offset 0x300008)",
        ),
        (
            "offset 0",
            second(6),
            Corrupt,
            "BAT entry 1 points to 0x0, inside the header section of 1048576 bytes \
          (at file offset 0x300008)",
        ),
        (
            "offset in the log",
            second(full(1)),
            Corrupt,
            "BAT entry 1 points to 0x100000, where 1048576 bytes overlap the log \
          (at file offset 0x300008)",
        ),
        (
            "offset in the metadata",
            second(full(2)),
            Corrupt,
            "BAT entry 1 points to 0x200000, where 1048576 bytes overlap the metadata region \
          (at file offset 0x300008)",
        ),
        (
            "offset in the bat",
            second(full(3)),
            Corrupt,
            "BAT entry 1 points to 0x300000, where 1048576 bytes overlap the BAT \
          (at file offset 0x300008)",
        ),
        (
            "offset in an unknown region",
            second(full(5)).with(|s| {
                s.more_regions = vec![region(UNKNOWN, 5 * MIB, 1 << 20, 0)];
            }),
            Corrupt,
            "BAT entry 1 points to 0x500000, where 1048576 bytes overlap an unknown region \
          (at file offset 0x300008)",
        ),
        (
            "offset behind the file",
            second(full(6)),
            Corrupt,
            "BAT entry 1 points to 0x600000, where 1048576 bytes run past the end of the file \
          (6291456 bytes) (at file offset 0x300008)",
        ),
        (
            "end behind the file",
            second(full(5)).with(|s| s.length = 6 * MIB - 512),
            Corrupt,
            "BAT entry 1 points to 0x500000, where 1048576 bytes run past the end of the file \
          (6290944 bytes) (at file offset 0x300008)",
        ),
        (
            "offset near 2^64",
            second(u64::MAX - 1),
            Corrupt,
            "BAT entry 1 points to 0xfffffffffff00000, where 1048576 bytes run past the end of the \
          file (6291456 bytes) (at file offset 0x300008)",
        ),
        (
            "third of a run",
            Sample::new(3, &[full(4), full(5), full(6)]).with(|s| {
                s.length = 6 * MIB;
            }),
            Corrupt,
            "BAT entry 2 points to 0x600000, where 1048576 bytes run past the end of the file \
          (6291456 bytes) (at file offset 0x300010)",
        ),
        (
            "partial offset",
            child(partial(0), full(4)),
            Corrupt,
            "BAT entry 1 points to 0x0, inside the header section of 1048576 bytes \
          (at file offset 0x300008)",
        ),
        (
            "no bitmap",
            child(partial(5), 0),
            Corrupt,
            "BAT entry 4096, the sector bitmap of the partially present block at BAT entry 1, has \
          state 0, expected 6 (present) (at file offset 0x308000)",
        ),
        (
            "bitmap state",
            child(partial(5), 7),
            Corrupt,
            "BAT entry 4096, the sector bitmap of the partially present block at BAT entry 1, has \
          state 7, expected 6 (present) (at file offset 0x308000)",
        ),
        (
            "bitmap in the bat",
            child(partial(5), full(3)),
            Corrupt,
            "BAT entry 4096 points to 0x300000, where 1048576 bytes overlap the BAT \
          (at file offset 0x308000)",
        ),
        (
            "bitmap behind the file",
            child(partial(5), full(6)),
            Corrupt,
            "BAT entry 4096 points to 0x600000, where 1048576 bytes run past the end of the file \
          (6291456 bytes) (at file offset 0x308000)",
        ),
        (
            "child state 4",
            child(4, 0),
            Corrupt,
            "BAT entry 1 has the reserved state 4 (at file offset 0x300008)",
        ),
    ]
}

#[test]
fn each_refusal_says_what_is_wrong_and_where() {
    let opening = refused_on_opening();
    assert_eq!(opening.len(), 47);
    for (name, sample, kind, text) in opening {
        let error = open(&Vhdx, sample.storage()).err().unwrap_or_else(|| panic!("{name} opens"));
        assert_eq!((error.kind(), error.to_string()), (kind, format!("vhdx: {text}")), "{name}");
    }
    let mapping = refused_on_mapping();
    assert_eq!(mapping.len(), 18);
    for (name, sample, kind, text) in mapping {
        open(&Vhdx, sample.storage()).map(drop).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(refusal(&sample), (kind, text.to_owned()), "{name}");
    }
}

#[test]
fn the_start_of_a_long_text_is_shown() {
    let long = "x".repeat(5000);
    let link = ("parent_linkage", long.as_str());
    let item = locator(VHDX_LOCATOR, &[link, ("relative_path", "a")]);
    let sample = Sample::child(1, &chunked(4096, &[(&[0], 0)])).with(|s| s.items[0].2 = item);
    assert_eq!(
        open(&Vhdx, sample.storage()).err().unwrap().to_string(),
        format!(
            "vhdx: the parent locator's parent_linkage is \"{}\"... (5000 bytes), expected a GUID \
             (at file offset 0x210070)",
            "x".repeat(256)
        )
    );
}
