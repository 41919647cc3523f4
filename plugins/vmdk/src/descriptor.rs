//! The text that describes a disk: what it is made of, and what lies below it.
//!
//! (5.0, The Descriptor File.) It is a file of its own, which names the files of the extents, or
//! is embedded in a sparse extent. Parsing is a pure function of the text's bytes; names keep
//! theirs, whatever the encoding, and are not copied out of it: there may be many.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use instar_core::{MAX_LENGTH, SECTOR};

use crate::error::Error;

/// Most extents of one disk (instar's own limit; VMware's own split disks have one per 2 GB).
pub(crate) const MAX_EXTENTS: usize = 65_536;

/// `CID_NOPARENT`: what `parentCID` says in a disk that has none.
pub(crate) const CID_NOPARENT: u32 = 0xffff_ffff;

/// A descriptor of its own file, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor<'a> {
    pub(crate) parent: Parent,
    /// In the order of the disk; none is empty.
    pub(crate) extents: Vec<ExtentLine<'a>>,
}

/// What a descriptor says about the layer below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    /// `parentFileNameHint`, if there is one that is not empty.
    pub(crate) hint: Option<OsString>,
    /// `parentCID`, the content identifier that the parent should have.
    pub(crate) cid: u32,
}

/// One line of the extent description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExtentLine<'a> {
    /// Length in bytes, never 0.
    pub(crate) length: u64,
    pub(crate) content: ExtentContent<'a>,
}

/// What an extent consists of. The access (`RW`, `RDONLY`, `NOACCESS`) is for the guest and
/// says nothing about that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExtentContent<'a> {
    /// `FLAT`, `VMFS`: the bytes of a file from this byte offset on.
    Flat { name: &'a OsStr, offset: u64 },
    /// `SPARSE`, `VMFSSPARSE`, `SESPARSE`: a file with grain tables. The file says which kind.
    Sparse { name: &'a OsStr, kind: &'static str },
    /// `ZERO`: no file.
    Zero,
}

/// What a `createType` is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CreateType {
    /// A descriptor file with extents in other files.
    Extents,
    /// One file with the descriptor inside.
    SingleFile,
}

const UNKNOWN: &str = "not known";
const DEVICE: &str = "not supported: the extents are devices";

/// All of the `createType`s that VMware's software is known to write.
const CREATE_TYPES: &[(&str, Result<CreateType, &str>)] = &[
    ("monolithicFlat", Ok(CreateType::Extents)),
    ("twoGbMaxExtentFlat", Ok(CreateType::Extents)),
    ("twoGbMaxExtentSparse", Ok(CreateType::Extents)),
    // How older versions spell the two.
    ("2GbMaxExtentFlat", Ok(CreateType::Extents)),
    ("2GbMaxExtentSparse", Ok(CreateType::Extents)),
    ("vmfs", Ok(CreateType::Extents)),
    ("vmfsSparse", Ok(CreateType::Extents)),
    // These differ from vmfs in how the space of the one flat file came about.
    ("vmfsThin", Ok(CreateType::Extents)),
    ("vmfsPreallocated", Ok(CreateType::Extents)),
    ("vmfsEagerZeroedThick", Ok(CreateType::Extents)),
    ("seSparse", Ok(CreateType::Extents)),
    ("monolithicSparse", Ok(CreateType::SingleFile)),
    ("streamOptimized", Ok(CreateType::SingleFile)),
    ("custom", Err("not supported")),
    ("fullDevice", Err(DEVICE)),
    ("partitionedDevice", Err(DEVICE)),
    ("vmfsRaw", Err(DEVICE)),
    ("vmfsRDM", Err(DEVICE)),
    ("vmfsRDMP", Err(DEVICE)),
    ("vmfsRawDeviceMap", Err(DEVICE)),
    ("vmfsPassthroughRawDeviceMap", Err(DEVICE)),
];

/// `text` up to the first NUL, which ends every descriptor.
pub(crate) fn trimmed(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// What kind of disk the descriptor describes; [`Error::NotVmdk`] if it does not say.
pub(crate) fn create_type(text: &[u8]) -> Result<CreateType, Error> {
    let value = after_key(text, "createType").ok_or(Error::NotVmdk)?;
    let name = quoted(value).unwrap_or_else(|| line_of(value));
    let refused = |why| Error::CreateType { name: shown(name), why };
    let known = CREATE_TYPES.iter().find(|(known, _)| known.as_bytes() == name);
    match known {
        Some((_, Ok(create_type))) => Ok(*create_type),
        Some((_, Err(why))) => Err(refused(why)),
        None => Err(refused(UNKNOWN)),
    }
}

impl<'a> Descriptor<'a> {
    /// Parses a descriptor that starts at file offset `at` and names its extents' files.
    pub(crate) fn parse(text: &'a [u8], at: u64) -> Result<Self, Error> {
        let mut extents = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            let Some(extent) = ExtentLine::parse(line)? else {
                continue;
            };
            if extents.len() >= MAX_EXTENTS {
                return Err(Error::TooManyExtents { allowed: MAX_EXTENTS });
            }
            extents.push(extent);
        }
        Ok(Self { parent: Parent::parse(text, at)?, extents })
    }
}

impl Parent {
    /// Parses the keys about the parent in a descriptor that starts at file offset `at`.
    ///
    /// As in qemu, a key is found wherever it first stands, so the `CID` in `parentCID` will do
    /// for the image's own, which is not used for anything.
    pub(crate) fn parse(text: &[u8], at: u64) -> Result<Self, Error> {
        let number =
            |key| after_key(text, key).and_then(hexadecimal).ok_or(Error::NoContentId { key, at });
        number("CID")?;
        let cid = number("parentCID")?;
        let key = "parentFileNameHint";
        let hint = match after_key(text, key) {
            None => None,
            Some(value) => Some(quoted(value).ok_or(Error::Unterminated { key, at })?),
        };
        let hint = hint.filter(|name| !name.is_empty());
        Ok(Self { hint: hint.map(|name| OsStr::from_bytes(name).to_owned()), cid })
    }
}

impl<'a> ExtentLine<'a> {
    /// The name of the file that the extent is in, if it is in one.
    pub(crate) fn name(&self) -> Option<&'a OsStr> {
        match self.content {
            ExtentContent::Flat { name, .. } | ExtentContent::Sparse { name, .. } => Some(name),
            ExtentContent::Zero => None,
        }
    }

    /// Parses one line, without its line feed; `None` if it describes no extent, or an empty one.
    fn parse(line: &'a [u8]) -> Result<Option<Self>, Error> {
        let (access, rest) = word(line);
        if !matches!(access, b"RW" | b"RDONLY" | b"NOACCESS") {
            return Ok(None);
        }
        let invalid = |why| Error::ExtentLine { line: shown(line), why };
        let (sectors, rest) = word(rest);
        let (kind, rest) = word(rest);
        let sectors = decimal(sectors).ok_or(invalid("the number of sectors is missing"))?;
        let length = sectors
            .checked_mul(SECTOR)
            .filter(|length| *length <= MAX_LENGTH)
            .ok_or(invalid("the extent is longer than 2^63 − 2^30 bytes"))?;
        let content = match kind {
            b"ZERO" => ExtentContent::Zero,
            b"FLAT" | b"VMFS" | b"SPARSE" | b"VMFSSPARSE" | b"SESPARSE" => {
                let (name, rest) =
                    file_name(rest).ok_or(invalid("a file name in double quotes is missing"))?;
                content(kind, name, word(rest).0, length).map_err(invalid)?
            }
            b"VMFSRAW" | b"VMFSRDM" => {
                return Err(Error::ExtentType { kind: shown(kind), why: DEVICE });
            }
            b"" => return Err(invalid("the type is missing")),
            _ => {
                return Err(Error::ExtentType { kind: shown(kind), why: UNKNOWN });
            }
        };
        Ok((length > 0).then_some(Self { length, content }))
    }
}

/// The extent of this type in the file called `name`; `offset` is the word after that.
fn content<'a>(
    kind: &[u8],
    name: &'a OsStr,
    offset: &[u8],
    length: u64,
) -> Result<ExtentContent<'a>, &'static str> {
    // A VMFS extent is flat by nature; some writers say so by an offset.
    if kind == b"FLAT" || (kind == b"VMFS" && !offset.is_empty()) {
        let sectors = decimal(offset).ok_or("a flat extent needs an offset in sectors")?;
        let offset = sectors
            .checked_mul(SECTOR)
            .filter(|offset| length.checked_add(*offset).is_some_and(|end| end <= MAX_LENGTH))
            .ok_or("the extent ends beyond 2^63 − 2^30 bytes of its file")?;
        return Ok(ExtentContent::Flat { name, offset });
    }
    if !offset.is_empty() {
        return Err("only a flat extent has an offset");
    }
    Ok(match kind {
        b"SPARSE" => ExtentContent::Sparse { name, kind: "SPARSE" },
        b"VMFSSPARSE" => ExtentContent::Sparse { name, kind: "VMFSSPARSE" },
        b"SESPARSE" => ExtentContent::Sparse { name, kind: "SESPARSE" },
        _ => ExtentContent::Flat { name, offset: 0 },
    })
}

/// What follows the first `key` and its equals sign, blanks around the sign skipped.
fn after_key<'a>(text: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let at = text.windows(key.len()).position(|window| window == key.as_bytes())?;
    let rest = blanks_skipped(text.get(at.checked_add(key.len())?..)?);
    // Any byte will do for the sign, as in qemu.
    Some(blanks_skipped(rest.get(1..).unwrap_or_default()))
}

fn blanks_skipped(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    text.get(blanks..).unwrap_or_default()
}

/// The text between the double quote that `text` starts with and the next one.
fn quoted(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(b"\"")?;
    rest.get(..rest.iter().position(|byte| *byte == b'"')?)
}

/// The first line of `text`, without blanks around it.
fn line_of(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii()
}

/// The first word of `text`, which blanks end, and what follows it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, &[]))
}

/// The quoted name that `text` starts with, and what follows it.
fn file_name(text: &[u8]) -> Option<(&OsStr, &[u8])> {
    let text = text.trim_ascii_start();
    let name = quoted(text).filter(|name| !name.is_empty())?;
    let rest = text.get(name.len().checked_add(2)?..)?;
    Some((OsStr::from_bytes(name), rest))
}

fn decimal(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// The hexadecimal number that `text` starts with, as C's `%x` reads it: a sign and `0x` are
/// allowed, more than 32 bits are cut off.
fn hexadecimal(text: &[u8]) -> Option<u32> {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    let text = text.strip_prefix(b"0x").or(text.strip_prefix(b"0X")).unwrap_or(text);
    let digits = text.iter().map_while(|byte| char::from(*byte).to_digit(16));
    digits.fold(None, |number, digit| Some(number.unwrap_or(0) << 4 | digit))
}

/// A text of the descriptor, fit for a message.
fn shown(text: &[u8]) -> String {
    instar_core::quoted(text.trim_ascii()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    fn flat(name: &str, offset: u64) -> ExtentContent<'_> {
        ExtentContent::Flat { name: OsStr::new(name), offset }
    }

    fn sparse<'a>(name: &'a str, kind: &'static str) -> ExtentContent<'a> {
        ExtentContent::Sparse { name: OsStr::new(name), kind }
    }

    fn line(text: &str) -> Option<ExtentLine<'_>> {
        ExtentLine::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn extent_lines() {
        for (text, sectors, content) in [
            ("RW 8 FLAT \"a b.vmdk\" 3", 8, flat("a b.vmdk", 1536)),
            ("RW 8 FLAT \"a\" 0\r", 8, flat("a", 0)),
            ("  RW\t8  FLAT\t\"a\"\t1  partition uuid", 8, flat("a", 512)),
            ("RW 8 FLAT \"a\"1", 8, flat("a", 512)),
            ("RDONLY 8 FLAT \"a\" 0", 8, flat("a", 0)),
            ("NOACCESS 8 FLAT \"a\" 0", 8, flat("a", 0)),
            ("RW 1 VMFS \"/a/b\"", 1, flat("/a/b", 0)),
            ("RW 1 VMFS \"a\" 0", 1, flat("a", 0)),
            ("RW 1 VMFS \"a\" 3", 1, flat("a", 1536)),
            ("RW 1 SPARSE \"a\"", 1, sparse("a", "SPARSE")),
            ("RW 1 VMFSSPARSE \"a\"", 1, sparse("a", "VMFSSPARSE")),
            ("RW 1 SESPARSE \"a\"", 1, sparse("a", "SESPARSE")),
            ("RW 7 ZERO", 7, ExtentContent::Zero),
            ("RW 7 ZERO \"\"", 7, ExtentContent::Zero),
        ] {
            assert_eq!(line(text), Some(ExtentLine { length: sectors * 512, content }), "{text}");
        }
    }

    #[test]
    fn lines_that_describe_no_extent() {
        for text in [
            "",
            "\r",
            "# RW 8 ZERO",
            "rw 8 FLAT \"a\" 0",
            "RWX 8 ZERO",
            "version=1",
            "ddb.adapterType = \"ide\"",
            "RW=1",
            "RW 0 FLAT \"a\" 0",
            "RW 0 ZERO",
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }

    #[test]
    fn lines_that_are_refused() {
        for (text, why) in [
            ("RW", "the number of sectors is missing"),
            ("RW x ZERO", "the number of sectors is missing"),
            ("RW -1 ZERO", "the number of sectors is missing"),
            ("RW 18446744073709551616 ZERO", "the number of sectors is missing"),
            ("RW 18014398509481984 ZERO", "the extent is longer than 2^63 − 2^30 bytes"),
            ("RW 8", "the type is missing"),
            ("RW 8 FLAT", "a file name in double quotes is missing"),
            ("RW 8 FLAT a 0", "a file name in double quotes is missing"),
            ("RW 8 FLAT \"\" 0", "a file name in double quotes is missing"),
            ("RW 8 FLAT \"a 0", "a file name in double quotes is missing"),
            ("RW 8 FLAT \"a\"", "a flat extent needs an offset in sectors"),
            ("RW 8 FLAT \"a\" -1", "a flat extent needs an offset in sectors"),
            (
                "RW 8 FLAT \"a\" 18014398509481984",
                "the extent ends beyond 2^63 − 2^30 bytes of its file",
            ),
            ("RW 8 VMFS \"a\" x", "a flat extent needs an offset in sectors"),
            ("RW 8 SPARSE \"a\" 0", "only a flat extent has an offset"),
        ] {
            let error = ExtentLine::parse(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("extent line {text:?} is not valid: {why}"));
        }
        for (text, error) in [
            (
                "RW 8 VMFSRDM \"a\"",
                "extent type \"VMFSRDM\" is not supported: the extents are devices",
            ),
            ("RW 8 flat \"a\" 0", "extent type \"flat\" is not known"),
        ] {
            assert_eq!(ExtentLine::parse(text.as_bytes()).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn a_long_or_binary_line_is_shown_in_part_and_escaped() {
        let mut text = b"RW \x1b[31m\xff".to_vec();
        text.extend([b'x'; 500]);
        let error = ExtentLine::parse(&text).unwrap_err().to_string();
        assert!(error.starts_with("extent line \"RW \\u{1b}[31m\\xffxxx"), "{error}");
        assert!(error.contains("xxx\"... (509 bytes) is not valid: "), "{error}");
        assert!(error.len() < 350, "{error}");
    }

    #[test]
    fn types_of_disks() {
        let of = |value: &str| create_type(format!("x\ncreateType{value}\n").as_bytes());
        for (name, expected) in CREATE_TYPES {
            let found = of(&format!("=\"{name}\""));
            match expected {
                Ok(create_type) => assert_eq!(found.unwrap(), *create_type),
                Err(why) => {
                    let error = found.unwrap_err().to_string();
                    assert_eq!(error, format!("createType {name:?} is {why}"));
                }
            }
        }
        assert_eq!(of(" = \"vmfs\"").unwrap(), CreateType::Extents);
        assert_eq!(of("=vmfs\r").unwrap(), CreateType::Extents);
        assert!(matches!(of("=\"vmfs"), Err(Error::CreateType { .. })));
        assert!(matches!(of("=\"\""), Err(Error::CreateType { .. })));
        assert!(matches!(create_type(b"createtype=\"vmfs\""), Err(Error::NotVmdk)));
        assert!(matches!(create_type(b"createType"), Err(Error::CreateType { .. })));
    }

    #[test]
    fn numbers_about_the_parent() {
        let cid = |text: &str| Parent::parse(text.as_bytes(), 0).map(|parent| parent.cid);
        for (text, expected) in [
            ("CID=1\nparentCID=ffffffff", 0xffff_ffff),
            ("parentCID=FFFFFFFF\r\nCID=0\r\n", 0xffff_ffff),
            ("parentCID=12ab", 0x12ab),
            ("CID = 1\nparentCID = 2", 2),
            ("CID=0x0\nparentCID=0x1g", 1),
            ("CID=+1\nparentCID=-0X12", 0x12),
            ("parentCID=123456789", 0x2345_6789),
        ] {
            assert_eq!(cid(text).ok(), Some(expected), "{text:?}");
        }
        for text in ["", "CID=1", "CID=\nparentCID=1", "CID=1\nparentCID=g", "CID=1\nparentCID"] {
            assert!(cid(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_name_of_the_parent_keeps_its_bytes() {
        let hint = |text: &[u8]| {
            let text = [b"parentCID=1\nparentFileNameHint", text].concat();
            Parent::parse(&text, 0).map(|parent| parent.hint)
        };
        let name = |bytes: &[u8]| Some(OsStr::from_bytes(bytes).to_owned());
        assert_eq!(hint(b"=\"a b\"").unwrap(), name(b"a b"));
        assert_eq!(hint(b" = \"/a/\xe4\xff.vmdk\"\n").unwrap(), name(b"/a/\xe4\xff.vmdk"));
        assert_eq!(hint(b"=\"two\nlines\"").unwrap(), name(b"two\nlines"));
        assert_eq!(hint(b"=\"\"").unwrap(), None);
        assert!(hint(b"=\"a").is_err());
        assert!(hint(b"=a\"").is_err());
        assert!(hint(b"").is_err());
    }

    #[test]
    fn a_nul_ends_the_text() {
        assert_eq!(trimmed(b"ab\0c"), b"ab");
        assert_eq!(trimmed(b"\0c"), b"");
        assert_eq!(trimmed(b"ab"), b"ab");
    }

    /// Sectors, a type, a name and an offset in sectors, of which the type needs some.
    type Parts = (u64, &'static str, String, u64);

    fn parts() -> impl Strategy<Value = Parts> {
        let kinds = vec!["ZERO", "FLAT", "SPARSE", "VMFSSPARSE", "SESPARSE"];
        let kind = prop::sample::select(kinds);
        (1..1_u64 << 40, kind, "[^\"\r\n\0]{1,40}", 0..1_u64 << 40)
    }

    fn extent(parts: &Parts) -> ExtentLine<'_> {
        let (sectors, kind, name, offset) = parts;
        let content = match *kind {
            "ZERO" => ExtentContent::Zero,
            "FLAT" => flat(name, offset * 512),
            kind => sparse(name, kind),
        };
        ExtentLine { length: sectors * 512, content }
    }

    /// The line that a writer makes of an extent.
    fn written(extent: &ExtentLine<'_>, access: &str, end: &str) -> Vec<u8> {
        let sectors = extent.length / 512;
        let rest = match &extent.content {
            ExtentContent::Zero => "ZERO".to_owned(),
            ExtentContent::Flat { name, offset } => {
                format!("FLAT \"{}\" {}", name.to_str().unwrap(), offset / 512)
            }
            ExtentContent::Sparse { name, kind } => {
                format!("{kind} \"{}\"", name.to_str().unwrap())
            }
        };
        format!("{access} {sectors} {rest}{end}").into_bytes()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            parts in prop::collection::vec(parts(), 0..20),
            access in prop::sample::select(vec!["RW", "RDONLY", "NOACCESS"]),
            end in prop::sample::select(vec!["\n", "\r\n", " \n", "\n\n# comment\n"]),
        ) {
            let extents: Vec<_> = parts.iter().map(extent).collect();
            let mut text = b"version=1\nCID=1\nparentCID=ffffffff\n".to_vec();
            for extent in &extents {
                text.extend(written(extent, access, end));
            }
            let parsed = Descriptor::parse(&text, 0).unwrap();
            prop_assert_eq!(parsed.extents, extents);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Descriptor::parse(&bytes, 0);
            let _ = create_type(&bytes);
        }

        #[test]
        fn no_text_is_too_strange(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "RW", "RDONLY", " ", "\n", "1", "-1", "99999999999999999999", "FLAT", "ZERO",
                    "SPARSE", "\"", "\"a\"", "CID", "=", "parentCID=1", "parentFileNameHint=\"",
                    "createType=\"vmfs\"", "\r\n", "\0", "#",
                ]),
                0..40,
            ),
        ) {
            let text = words.concat();
            let _ = Descriptor::parse(text.as_bytes(), 0);
            let _ = create_type(text.as_bytes());
        }
    }
}
