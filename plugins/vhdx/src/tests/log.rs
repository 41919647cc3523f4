//! Which updates of a log are replayed, and which logs are refused.

use instar_core::testkit::data;
use instar_core::{ErrorKind, Status};
use pretty_assertions::assert_eq;

use super::{map, refusal, warnings};
use crate::disk::MIB;
use crate::samples::{BAT, LogEntry, Sample, full, le, le32, pending_log, seal};

#[test]
fn a_log_is_replayed_before_anything_else_is_read() {
    let sample = pending_log();
    let expected = [(MIB, data(4 * MIB)), (MIB, Status::Zero), (MIB, data(6 * MIB))];
    assert_eq!(map(&sample), expected);
    assert_eq!(
        warnings(&sample),
        ["the log was not written back; mapped as the file is with its updates (4)"]
    );
    // Without it, the BAT is nonsense.
    let (kind, text) = refusal(&sample.with(|s| s.log.clear()));
    assert_eq!(kind, ErrorKind::Corrupt);
    assert_eq!(text, "BAT entry 0 has the reserved state 4 (at file offset 0x300000)");
}

/// A disk of one block, whose BAT entry is `bat` after the replay of the log.
pub(super) fn logged(entries: &[(usize, LogEntry)]) -> Sample {
    let mut log = vec![0; 1 << 20];
    for (sector, entry) in entries {
        // Entries go on at the start.
        for (index, byte) in entry.bytes().into_iter().enumerate() {
            log[(sector * 4096 + index) % (1 << 20)] = byte;
        }
    }
    Sample::new(1, &[4]).with(|s| {
        s.log = log;
        s.length = 7 * MIB;
    })
}

pub(super) fn entry(sequence: u64, tail_sector: u32, mib: u64) -> LogEntry {
    let mut bat = le(&[full(mib)]);
    bat.resize(4096, 0);
    LogEntry::new(sequence, tail_sector * 4096, vec![(BAT, Some(bat))])
}

#[test]
fn the_newest_complete_sequence_is_replayed() {
    let replayed = |entries: &[(usize, LogEntry)]| map(&logged(entries))[0].1;
    // Later entries win.
    assert_eq!(replayed(&[(0, entry(1, 0, 4)), (2, entry(2, 0, 5))]), data(5 * MIB));
    // The sequence goes on at the start of the ring, in the middle of an entry too.
    assert_eq!(replayed(&[(254, entry(1, 254, 4)), (0, entry(2, 254, 5))]), data(5 * MIB));
    assert_eq!(replayed(&[(253, entry(1, 253, 4)), (255, entry(2, 253, 5))]), data(5 * MIB));
    // Of two sequences, the newer one, wherever it is.
    assert_eq!(replayed(&[(0, entry(9, 0, 5)), (8, entry(3, 8, 4))]), data(5 * MIB));
    assert_eq!(replayed(&[(0, entry(3, 0, 4)), (8, entry(9, 8, 5))]), data(5 * MIB));
    // A newer entry whose tail is missing, or not followed by it, does not count.
    assert_eq!(replayed(&[(0, entry(3, 0, 4)), (8, entry(9, 6, 5))]), data(4 * MIB));
    assert_eq!(replayed(&[(0, entry(3, 0, 4)), (2, entry(9, 0, 5))]), data(4 * MIB));
    // What was written back before the tail is left alone.
    assert_eq!(replayed(&[(0, entry(3, 0, 4)), (2, entry(4, 2, 5))]), data(5 * MIB));
    // An entry without updates is a sequence as well: nothing to do.
    let nothing = LogEntry::new(1, 0, Vec::new());
    let sample = logged(&[(0, nothing)]).with(|s| s.bat = vec![2]);
    assert_eq!(map(&sample)[0].1, Status::Zero);
    // Each data descriptor has its own sector.
    let mut bat = le(&[2, full(5)]);
    bat.resize(4096, 0);
    let two = vec![(BAT + 4096, Some(vec![1; 4096])), (BAT, Some(bat))];
    let sample = logged(&[(0, LogEntry::new(1, 0, two))]).with(|s| s.size = 2 * MIB);
    assert_eq!(map(&sample), [(MIB, Status::Zero), (MIB, data(5 * MIB))]);
    // More descriptors than fit in the first sector.
    let mut many = entry(1, 0, 5);
    many.updates.splice(..0, (0..300).map(|i| (MIB * 6 + i * 4096, None)));
    let sample = logged(&[(100, LogEntry { tail: 100 * 4096, ..many })]);
    assert_eq!(map(&sample)[0].1, data(5 * MIB));
    assert!(warnings(&sample)[0].ends_with("(301)"));
}

#[test]
fn an_entry_that_is_not_valid_breaks_its_sequence() {
    let none = |entries: &[(usize, LogEntry)]| {
        assert!(refusal(&logged(entries)).1.contains("no valid sequence"));
    };
    none(&[(0, entry(1, 512, 4)), (2, entry(2, 0, 5))]);
    none(&[(0, entry(0, 0, 4)), (2, entry(1, 0, 5))]);
    none(&[(0, entry(0, 0, 4))]);
    // One data sector more than descriptors.
    let mut bytes = entry(1, 0, 5).bytes();
    bytes.extend_from_within(4096..);
    bytes[9] += 0x10;
    seal(&mut bytes);
    let sample = logged(&[]).with(|s| s.log = bytes);
    assert!(refusal(&sample).1.contains("no valid sequence"));
}

#[test]
fn a_log_with_a_broken_entry_has_no_sequence() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change); 16] = [
        ("signature", |e| e[0] = b'L'),
        ("length 0", |e| e[8..12].fill(0)),
        ("length", |e| e[8] = 1),
        ("long", |e| e[8..12].copy_from_slice(&(2_u32 << 20).to_le_bytes())),
        ("more sectors than described", |e| {
            e[9] += 0x10;
        }),
        ("tail", |e| e[12] = 1),
        ("tail beyond the log", |e| e[14] = 0x10),
        ("sequence number 0", |e| e[16..24].fill(0)),
        ("descriptor count", |e| e[24..28].fill(0xff)),
        ("guid", |e| e[32] ^= 1),
        ("last file offset", |e| e[56..64].fill(0xff)),
        ("descriptor signature", |e| e[64] ^= 1),
        ("descriptor offset", |e| e[64 + 16] = 1),
        ("descriptor offset overflow", |e| e[64 + 17..64 + 24].fill(0xff)),
        ("descriptor sequence number", |e| e[64 + 24] ^= 1),
        ("data sequence number", |e| e[8191] ^= 1),
    ];
    let text = "vhdx: the header names log 10c010c0-10c0-10c0-10c0-10c010c010c0, but the log has \
                no valid sequence of such entries (at file offset 0x20030)";
    for (name, change) in cases {
        let mut bytes = entry(1, 0, 5).bytes();
        change(&mut bytes);
        seal(&mut bytes);
        let sample = logged(&[]).with(|s| s.log = bytes);
        assert_eq!(refusal(&sample), (ErrorKind::Corrupt, text.to_owned()), "{name}");
    }
    let mut bytes = entry(1, 0, 5).bytes();
    bytes[5000] ^= 1;
    let sample = logged(&[]).with(|s| s.log = bytes);
    assert_eq!(refusal(&sample).1, text, "checksum");
    let no_room = logged(&[]).with(|s| s.headers[1] = vec![(68, le32(&[0]))]);
    assert_eq!(refusal(&no_room).1, text, "no log at all");
}

#[test]
fn what_a_log_may_cost_is_limited() {
    let sample = pending_log().with(|s| s.headers[1] = vec![(68, le32(&[128 << 20]))]);
    let (kind, text) = refusal(&sample);
    assert_eq!(kind, ErrorKind::Limit);
    assert_eq!(
        text,
        "vhdx: the log has 134217728 bytes, at most 67108864 are replayed (at file offset 0x20044)"
    );
    // Without a log to replay, its room does not matter.
    let unused = sample.with(|s| {
        s.log.clear();
        s.bat = vec![0; 3];
        s.headers[1].push((72, le(&[1 << 40])));
    });
    assert_eq!(map(&unused), [(3 * MIB, Status::Absent)]);

    let zeros = vec![(BAT, None); 1 << 15];
    let log = [LogEntry::new(1, 0, zeros.clone()), LogEntry::new(2, 0, zeros.clone())];
    let mut bytes: Vec<u8> = log.iter().flat_map(LogEntry::bytes).collect();
    bytes.extend(LogEntry::new(3, 0, vec![(BAT, None)]).bytes());
    let sample = Sample::new(1, &[]).with(|s| {
        s.log = bytes;
        // The log is longer than usual and lies behind everything else.
        s.headers[1] = vec![(68, le32(&[3 << 20])), (72, le(&[4 * MIB]))];
        s.raw.push((4 * MIB, std::mem::replace(&mut s.log, vec![1])));
        s.length = 7 * MIB;
    });
    let (kind, text) = refusal(&sample);
    assert_eq!(kind, ErrorKind::Limit);
    let expected = "vhdx: the log has 65537 updates to replay, at most 65536 are replayed";
    assert!(text.starts_with(expected), "{text}");
}
