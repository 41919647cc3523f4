//! The plugin as a whole: what opens, what does not, and what is mapped.

use instar_core::testkit::{self, check_format, data, extents, open, probe};
use instar_core::{Confidence, ErrorKind, MemoryStorage, Status};
use pretty_assertions::assert_eq;

use crate::Luks;
use crate::samples::{
    self, HEADER, PAYLOAD, Volume, in_transit, put, seal, segment, version_1, version_2,
};

fn map(bytes: Vec<u8>) -> Vec<(u64, Status)> {
    extents(open(&Luks, MemoryStorage::from_bytes(bytes)).unwrap().as_mut()).unwrap()
}

/// The refusal, with its kind.
fn refusal(bytes: Vec<u8>) -> (ErrorKind, String) {
    testkit::refusal(&Luks, MemoryStorage::from_bytes(bytes))
}

/// The warnings of opening and mapping `bytes`.
fn warnings(bytes: Vec<u8>) -> Vec<String> {
    testkit::warnings(&Luks, MemoryStorage::from_bytes(bytes))
}

/// `bytes` with `piece` at `at`.
fn patched(mut bytes: Vec<u8>, at: usize, piece: &[u8]) -> Vec<u8> {
    put(&mut bytes, at, piece);
    bytes
}

/// A volume with these segments.
fn with_segments(segments: &[String]) -> Vec<u8> {
    Volume::new(&segments.join(",")).bytes()
}

#[test]
fn version_1_is_its_payload() {
    assert_eq!(map(version_1(8192)), [(8192, Status::Opaque)]);
    assert_eq!(map(version_1(1)), [(512, Status::Opaque)]);
    assert_eq!(map(version_1(0)), []);
}

#[test]
fn version_2_is_its_segments() {
    assert_eq!(map(version_2().bytes()), [(0x8000, Status::Opaque)]);
    let fixed = |size: &str| with_segments(&[segment(0, "crypt", "33280", size, "")]);
    assert_eq!(map(fixed("1024")), [(1024, Status::Opaque)]);
    assert_eq!(map(fixed("0")), []);
    let sha512 = Volume { algorithm: "sha512", ..version_2() };
    assert_eq!(map(sha512.bytes()), [(0x8000, Status::Opaque)]);
    let large = segment(0, "crypt", "8388608", "dynamic", "");
    let large = Volume { size: 0x40_0000, rest: 4096, ..Volume::new(&large) };
    assert_eq!(map(large.bytes()), [(4096, Status::Opaque)]);
}

#[test]
fn segments_of_a_re_encryption() {
    assert_eq!(
        map(in_transit().bytes()),
        [(4096 + 1024, Status::Opaque), (0x1_0000 - 40960, data(40960))]
    );
    // In the order of their numbers, not of the text.
    let swapped =
        [segment(1, "crypt", "40960", "dynamic", ""), segment(0, "linear", "32768", "1024", "")];
    assert_eq!(
        map(with_segments(&swapped)),
        [(1024, data(32768)), (0x1_0000 - 40960, Status::Opaque)]
    );
}

#[test]
fn laws_hold_for_every_sample() {
    assert_eq!(check_format(&Luks, &samples::all()).samples, 6);
}

/// With the checksum made right again, so that what is behind it is reached.
#[test]
fn damaged_metadata_is_a_map_or_an_error() {
    let mut random = testkit::Random::new(7);
    let mut mapped = 0;
    for _ in 0..1000 {
        let mut bytes = in_transit().bytes();
        let at = 4096 + random.below(in_transit().json.len());
        bytes[at] = random.next().to_le_bytes()[0];
        let mut header = bytes[..HEADER].to_vec();
        seal(&mut header);
        bytes[..HEADER].copy_from_slice(&header);
        if let Ok(mut source) = open(&Luks, MemoryStorage::from_bytes(bytes)) {
            let _ = extents(source.as_mut());
            mapped += 1;
        }
    }
    assert!((100..900).contains(&mapped), "{mapped}");
}

#[test]
fn each_refusal_of_version_1_names_field_and_value() {
    let be = |number: u32| number.to_be_bytes();
    let patched = |at: usize, piece: &[u8]| patched(version_1(512), at, piece);
    let mut cut = version_1(0);
    cut.truncate(cut.len() - 512);
    for (bytes, kind, text) in [
        (
            patched(6, &[0, 3]),
            ErrorKind::Unsupported,
            "luks: version is 3, supported are 1 and 2 (at file offset 0x6)",
        ),
        (
            patched(104, &be(0)),
            ErrorKind::Unsupported,
            "luks: the payload offset is 0: a detached header, the data is in another file \
             (at file offset 0x68)",
        ),
        (
            patched(104, &be(7)),
            ErrorKind::Corrupt,
            "luks: the payload starts at sector 7, in the header; expected 8 or more \
             (at file offset 0x68)",
        ),
        (
            patched(208 + 48, &be(0xdeae)),
            ErrorKind::Corrupt,
            "luks: key slot 1 is in state 0xdeae, expected 0xac71f3 (on) or 0xdead (off) \
             (at file offset 0x100)",
        ),
        (
            patched(208 + 3 * 48 + 44, &be(0)),
            ErrorKind::Corrupt,
            "luks: the key material of slot 3, from sector 29 to 29, is not between the header's \
             end at sector 8 and the payload at sector 64 (at file offset 0x188)",
        ),
        (
            patched(208 + 3 * 48 + 40, &be(7)),
            ErrorKind::Corrupt,
            "luks: the key material of slot 3, from sector 7 to 14, is not between the header's \
             end at sector 8 and the payload at sector 64 (at file offset 0x188)",
        ),
        (
            patched(208 + 3 * 48 + 40, &be(58)),
            ErrorKind::Corrupt,
            "luks: the key material of slot 3, from sector 58 to 65, is not between the header's \
             end at sector 8 and the payload at sector 64 (at file offset 0x188)",
        ),
        (
            patched(108, &be(u32::MAX)),
            ErrorKind::Corrupt,
            "luks: the key material of slot 3, from sector 29 to 838860829, is not between the \
             header's end at sector 8 and the payload at sector 64 (at file offset 0x188)",
        ),
        (
            patched(104, &be(66)),
            ErrorKind::Corrupt,
            "luks: the payload starts at 0x8400, outside the file of 33280 bytes \
             (at file offset 0x68)",
        ),
        (
            cut,
            ErrorKind::Corrupt,
            "luks: the payload starts at 0x8000, outside the file of 32256 bytes \
             (at file offset 0x68)",
        ),
    ] {
        assert_eq!(refusal(bytes), (kind, text.to_owned()));
    }
    // Off: where its key material would be does not matter.
    let at = 208 + 40;
    assert_eq!(map(patched(at, &be(u32::MAX))), [(512, Status::Opaque)]);
    assert_eq!(PAYLOAD, 0x8000);
}

#[test]
fn each_refusal_of_a_binary_header_names_field_and_value() {
    let sample = || version_2().bytes();
    let without_copy =
        |at: usize, piece: &[u8]| patched(patched(sample(), HEADER, &[0]), at, piece);
    for (bytes, kind, text) in [
        (
            Vec::new(),
            ErrorKind::WrongFormat,
            "luks: no LUKS header: the magic is missing (at file offset 0x0)",
        ),
        (
            vec![0x5a; 0x9000],
            ErrorKind::WrongFormat,
            "luks: no LUKS header: the magic is missing (at file offset 0x0)",
        ),
        (
            without_copy(8, &0x4001_u64.to_be_bytes()),
            ErrorKind::Corrupt,
            "luks: header size is 16385, expected a power of two from 0x4000 to 0x400000 \
             (at file offset 0x8)",
        ),
        (
            without_copy(8, &0x40_0000_u64.to_be_bytes()),
            ErrorKind::Corrupt,
            "luks: header (65536 bytes at 0x1000) is outside the file of 65536 bytes",
        ),
        (
            without_copy(256, &0x4000_u64.to_be_bytes()),
            ErrorKind::Corrupt,
            "luks: header says that it is at 0x4000 and of 16384 bytes, but it is at 0x0 \
             (at file offset 0x100)",
        ),
        (
            without_copy(72, b"whirlpool\0"),
            ErrorKind::Unsupported,
            "luks: the header is checked by \"whirlpool\", supported are sha256 and sha512 \
             (at file offset 0x48)",
        ),
        (
            without_copy(5000, b"x"),
            ErrorKind::Corrupt,
            "luks: the header's checksum is wrong (at file offset 0x0)",
        ),
        (
            without_copy(24, b"label"),
            ErrorKind::Corrupt,
            "luks: the header's checksum is wrong (at file offset 0x0)",
        ),
        (
            b"LUKS\xba\xbe\0\x02".to_vec(),
            ErrorKind::Corrupt,
            "luks: header (4096 bytes at 0x0) is outside the file of 8 bytes",
        ),
    ] {
        assert_eq!(refusal(bytes), (kind, text.to_owned()));
    }
}

#[test]
fn each_refusal_of_the_metadata_names_field_and_value() {
    let crypt = |offset: &str, size: &str| with_segments(&[segment(0, "crypt", offset, size, "")]);
    let json = |json: &str| Volume { json: json.to_owned(), ..version_2() }.bytes();
    let one = |kind: &str, more: &str| with_segments(&[segment(0, kind, "32768", "512", more)]);
    let many: Vec<String> = (0..1025).map(|id| segment(id, "crypt", "32768", "0", "")).collect();
    let many = Volume { size: 0x4_0000, ..Volume::new(&many.join(",")) };
    for (bytes, kind, text) in [
        (
            json(""),
            ErrorKind::Corrupt,
            "the metadata is no JSON as specified: EOF while parsing a value at line 1 column 0",
        ),
        (
            json("{}"),
            ErrorKind::Corrupt,
            "the metadata is no JSON as specified: missing field `segments` at line 1 column 2",
        ),
        (
            json(r#"{"segments":{"0":{"type":"crypt"}}}"#),
            ErrorKind::Corrupt,
            "the metadata is no JSON as specified: missing field `offset` at line 1 column 33",
        ),
        (
            json(r#"{"segments":{"x":{}}}"#),
            ErrorKind::Corrupt,
            "the metadata is no JSON as specified: invalid value: expected key to be a number in \
             quotes at line 1 column 14",
        ),
        (json(r#"{"segments":{}}"#), ErrorKind::Unsupported, "the metadata has no segment"),
        (
            one("crypt", r#","flags":["backup-final"]"#),
            ErrorKind::Unsupported,
            "the metadata has no segment",
        ),
        (
            many.bytes(),
            ErrorKind::Limit,
            "the metadata has 1025 segments, at most 1024 are allowed",
        ),
        (
            json(
                r#"{"segments":{},"config":{"requirements":{"mandatory":["offline-reencrypt"]}}}"#,
            ),
            ErrorKind::Unsupported,
            "the volume requires \"offline-reencrypt\", which is not supported",
        ),
        (
            with_segments(&[segment(1, "crypt", "32768", "dynamic", "")]),
            ErrorKind::Corrupt,
            "segment 0 is missing",
        ),
        (
            crypt("-1", "512"),
            ErrorKind::Corrupt,
            "offset of segment 0 is \"-1\", expected a number of bytes, whole sectors",
        ),
        (
            crypt("32768", "513"),
            ErrorKind::Corrupt,
            "size of segment 0 is \"513\", expected a number of bytes, whole sectors",
        ),
        (
            crypt("0", "dynamic"),
            ErrorKind::Corrupt,
            "segment 0 starts at 0x0, in the headers, which end at 0x8000: broken, or a detached \
             header, the data is in another file",
        ),
        (
            crypt("32256", "dynamic"),
            ErrorKind::Corrupt,
            "segment 0 starts at 0x7e00, in the headers, which end at 0x8000: broken, or a detached \
             header, the data is in another file",
        ),
        (
            crypt("66048", "dynamic"),
            ErrorKind::Corrupt,
            "segment 0 starts at 0x10200, outside the file of 65536 bytes",
        ),
        (
            crypt("32768", "18446744073709551104"),
            ErrorKind::Corrupt,
            "segment 0 of 18446744073709551104 bytes at 0x8000 ends behind all addresses",
        ),
        (
            with_segments(&[
                segment(0, "crypt", "32768", "dynamic", ""),
                segment(1, "crypt", "32768", "dynamic", ""),
            ]),
            ErrorKind::Corrupt,
            "size of segment 0 is 'dynamic', which only the last one may be",
        ),
        (
            one("hw-opal", ""),
            ErrorKind::Unsupported,
            "type of segment 0 is \"hw-opal\", supported are crypt and linear",
        ),
        (
            one("crypt", r#","integrity":{"type":"hmac(sha256)"}"#),
            ErrorKind::Unsupported,
            "segment 0 has integrity protection: its size is in dm-integrity's own metadata",
        ),
    ] {
        assert_eq!(refusal(bytes), (kind, format!("luks: {text} (at file offset 0x1000)")));
    }
}

/// What is shown of texts that may be as long as the metadata.
#[test]
fn the_start_of_a_long_text_is_shown() {
    let long = "x".repeat(2000);
    let shown = format!("\"{}\"... (2000 bytes)", "x".repeat(256));
    let json = |json: &str| Volume { json: json.to_owned(), ..version_2() }.bytes();
    let required = format!(r#"{{"requirements":{{"mandatory":["{long}"]}}}}"#);
    for (bytes, text) in [
        (
            with_segments(&[segment(0, &long, "32768", "512", "")]),
            format!("type of segment 0 is {shown}, supported are crypt and linear"),
        ),
        (
            with_segments(&[segment(0, "crypt", &long, "512", "")]),
            format!("offset of segment 0 is {shown}, expected a number of bytes, whole sectors"),
        ),
        (
            json(&format!(r#"{{"segments":{{}},"config":{required}}}"#)),
            format!("the volume requires {shown}, which is not supported"),
        ),
        (
            // The message of the parser: 22 bytes before the text, 39 after it.
            json(&format!(r#"{{"segments":"{long}"}}"#)),
            format!(
                "the metadata is no JSON as specified: invalid type: string \"{}... (2061 bytes)",
                "x".repeat(256 - 22)
            ),
        ),
    ] {
        assert_eq!(refusal(bytes).1, format!("luks: {text} (at file offset 0x1000)"));
    }
}

#[test]
fn a_long_text_is_refused_before_it_is_parsed() {
    let long = Volume { size: 0x20_0000, ..version_2() };
    let long = Volume { json: " ".repeat(1 << 20) + &long.json, ..long };
    let (kind, text) = refusal(long.bytes());
    assert_eq!(kind, ErrorKind::Limit);
    assert!(text.contains("the length of the JSON text is 10"), "{text}");
}

#[test]
fn the_newer_header_that_is_whole_counts() {
    let whole = version_2();
    assert_eq!(warnings(whole.bytes()), [""; 0]);
    // A damaged one gives way to the other; without its magic, too.
    for (at, why) in [
        (5000, "the header's checksum is wrong (at file offset 0x0)"),
        (0, "no LUKS header: the magic is missing (at file offset 0x0)"),
    ] {
        let bytes = patched(whole.bytes(), at, b"x");
        assert_eq!(map(bytes.clone()), map(whole.bytes()));
        let line = format!("{why}; going by the second header at 0x4000");
        assert_eq!(warnings(bytes), [line]);
    }
    assert_eq!(
        warnings(patched(whole.bytes(), HEADER + 5000, b"x")),
        ["the second header is damaged: the header's checksum is wrong (at file offset 0x4000)"]
    );
    // Of two whole ones, the second counts only if it is newer.
    let other = Volume::new(&segment(0, "crypt", "32768", "1024", ""));
    for (sequence, size) in [([3, 2], 0x8000), ([3, 3], 0x8000), ([3, 4], 1024)] {
        let (first, second) =
            (Volume { sequence, ..whole.clone() }, Volume { sequence, ..other.clone() });
        let mut bytes = first.bytes();
        bytes[HEADER..2 * HEADER].copy_from_slice(&second.bytes()[HEADER..2 * HEADER]);
        assert_eq!(map(bytes.clone()), [(size, Status::Opaque)], "{sequence:?}");
        assert_eq!(warnings(bytes).len(), usize::from(sequence[1] > sequence[0]));
    }
}

#[test]
fn segments_outside_the_file_are_warned_about() {
    let long = with_segments(&[segment(0, "crypt", "32768", "33280", "")]);
    assert_eq!(map(long.clone()), [(33280, Status::Opaque)]);
    assert_eq!(
        warnings(long),
        ["segment 0 ends at 0x10200, behind the end of the file of 65536 bytes"]
    );
}

#[test]
fn probing() {
    let answer = |bytes: Vec<u8>| probe(&Luks, &MemoryStorage::from_bytes(bytes));
    for claimed in [
        version_1(512),
        patched(version_1(512), 104, &[0; 4]),
        patched(version_1(512), 7, &[9]),
        b"LUKS\xba\xbe\0\x01".to_vec(),
        b"LUKS\xba\xbe\0".to_vec(),
        version_2().bytes(),
        patched(version_2().bytes(), 8, &[9]),
    ] {
        assert_eq!(answer(claimed), Confidence::Magic);
    }
    let mut moved = vec![0; 512];
    moved.extend(version_2().bytes());
    for other in [
        moved,
        Vec::new(),
        // The second header is left over on disks that were used again.
        patched(version_2().bytes(), 0, b"l"),
        patched(version_2().bytes(), 0, &[0; 4096]),
    ] {
        assert_eq!(answer(other), Confidence::No);
    }
}
