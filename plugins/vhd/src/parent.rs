//! What a differencing disk says of its parent.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use instar_core::{Backing, ErrorKind, Image, Limits, Result, Role, TableReader};

use crate::disk::{DynamicHeader, Footer, Locator};

/// Names of parents are stored without their format: it is this one,
const FORMAT: &str = "vhd";
/// but for disks of XenServer whose parent has no identifier.
const XEN_FORMAT: &str = "raw";

/// Bytes of a stored name that are looked at: the longest path of Windows has 32767 characters of
/// two bytes.
const MAX_NAME: usize = 64 << 10;

/// How a stored name is to be read. In order of usefulness: a relative name still holds after
/// both files have moved, and the deprecated ones only stand in for what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// `W2ru`: relative to the image, UTF-16, little-endian.
    Relative,
    /// `MacX`: a file URL in UTF-8.
    Url,
    /// `W2ku`: absolute, UTF-16, little-endian.
    Absolute,
    /// The name in the dynamic header, UTF-16, big-endian.
    Header,
    /// `Wi2r`: relative, in an unknown code page.
    OldRelative,
    /// `Wi2k`: absolute, in an unknown code page.
    OldAbsolute,
}

impl Kind {
    /// The kind of a parent locator; none if it is unused or means nothing here (`Mac `: an
    /// alias of Mac OS 9).
    fn of(platform: [u8; 4]) -> Option<Self> {
        match &platform {
            b"W2ru" => Some(Self::Relative),
            b"MacX" => Some(Self::Url),
            b"W2ku" => Some(Self::Absolute),
            b"Wi2r" => Some(Self::OldRelative),
            b"Wi2k" => Some(Self::OldAbsolute),
            _ => None,
        }
    }

    /// The name in `bytes` up to the first zero character; none if it is empty or no text.
    /// Names of Windows stay as they are, a URL becomes a path.
    fn decode(self, bytes: &[u8]) -> Option<OsString> {
        let name = match self {
            Self::Relative | Self::Absolute => utf16(bytes, u16::from_le_bytes)?,
            Self::Header => utf16(bytes, u16::from_be_bytes)?,
            Self::Url => url_path(until_zero(bytes)),
            Self::OldRelative | Self::OldAbsolute => until_zero(bytes).to_vec(),
        };
        (!name.is_empty()).then(|| OsString::from_vec(name))
    }
}

/// Collects what `header` and its locators say of the parent. A locator that leads nowhere is
/// told of and left out: there are others, and none is needed to map the disk without its parent.
///
/// The parent's time stamp is left alone: writers disagree about what it is the time of.
pub(crate) fn read(footer: &Footer, header: &DynamicHeader, image: &Image<'_>) -> Result<Backing> {
    let limits = &image.context.limits;
    let mut names = Vec::new();
    let mut add = |kind: Kind, bytes: &[u8]| {
        let bytes = bytes.get(..MAX_NAME).unwrap_or(bytes);
        names.extend(Some(kind).zip(kind.decode(bytes)));
    };
    add(Kind::Header, &header.parent_name);
    let mut reader = TableReader::new("parent locator", Arc::clone(&image.storage), limits);
    for Locator { platform, length, offset } in header.locators {
        let Some(kind) = Kind::of(platform).filter(|_| length > 0) else { continue };
        let stored = Limits::check(
            "the parent locator's length in bytes",
            length.into(),
            limits.description,
        )
        // At most the limit, so it fits.
        .and_then(|()| reader.bytes(offset, usize::try_from(length).unwrap_or(0)));
        match stored {
            Ok(bytes) => add(kind, bytes),
            Err(error) if error.kind() == ErrorKind::Io => return Err(error),
            Err(error) => image.context.notices.warn(format!("{error}; left out"))?,
        }
    }
    names.sort_by_key(|(kind, _)| *kind);
    // There are nine at most.
    let mut different: Vec<OsString> = Vec::new();
    for (_, name) in names {
        if !different.contains(&name) {
            different.push(name);
        }
    }
    let identifier = Some(header.parent_id).filter(|id| *id != [0; 16]);
    let is_raw = identifier.is_none() && footer.is_by_xen();
    Ok(Backing {
        role: Role::Parent,
        names: different,
        format: Some(if is_raw { XEN_FORMAT } else { FORMAT }.to_owned()),
        identifiers: identifier.into_iter().collect(),
    })
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// UTF-16 up to a zero, as UTF-8. None if there are unpaired surrogates: a name that cannot be
/// represented is better left out than turned into another one.
fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<Vec<u8>> {
    let units = bytes.chunks_exact(2).filter_map(|pair| pair.first_chunk().copied()).map(unit);
    let text: Option<String> = char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|decoded| decoded.ok())
        .collect();
    text.map(String::into_bytes)
}

/// The path in a `file://` URL. Some writers make no host and no absolute path of it
/// (`file://./parent.vhd`), nor escapes; what is no escape is left as it is.
fn url_path(url: &[u8]) -> Vec<u8> {
    let rest = url.strip_prefix(b"file://").unwrap_or(url);
    let rest = match rest.strip_prefix(b"localhost") {
        Some(path) if path.starts_with(b"/") => path,
        _ => rest,
    };
    let mut path = Vec::with_capacity(rest.len());
    let mut left = rest;
    while let Some((byte, others)) = left.split_first() {
        let escaped = (*byte == b'%').then(|| others.split_first_chunk()).flatten();
        match escaped.and_then(|(digits, others)| Some((hex(*digits)?, others))) {
            Some((byte, others)) => {
                path.push(byte);
                left = others;
            }
            None => {
                path.push(*byte);
                left = others;
            }
        }
    }
    path
}

fn hex(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high?.checked_mul(16)?.checked_add(low?)?).ok()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn le(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn names_become_paths() {
        let cases: [(Kind, Vec<u8>, Option<&str>); 12] = [
            (Kind::Relative, le(".\\sub\\base.vhd"), Some(".\\sub\\base.vhd")),
            (Kind::Relative, le("grün.vhd\0rest"), Some("grün.vhd")),
            (Kind::Relative, vec![0x00, 0xd8], None),
            (Kind::Absolute, le("C:\\base.vhd"), Some("C:\\base.vhd")),
            (Kind::Header, vec![0, b'a', 0, b'b', 0, 0, 0, b'c'], Some("ab")),
            (Kind::Header, vec![0; 512], None),
            (Kind::Url, b"file:///var/base%20one.vhd\0".to_vec(), Some("/var/base one.vhd")),
            (Kind::Url, b"file://localhost/base.vhd".to_vec(), Some("/base.vhd")),
            (Kind::Url, b"file://./base%zz.vhd%4".to_vec(), Some("./base%zz.vhd%4")),
            (Kind::Url, b"file://".to_vec(), None),
            (Kind::OldRelative, b"..\\base.vhd\0\0".to_vec(), Some("..\\base.vhd")),
            (Kind::OldAbsolute, Vec::new(), None),
        ];
        for (kind, bytes, name) in cases {
            assert_eq!(kind.decode(&bytes), name.map(OsString::from), "{kind:?} {bytes:?}");
        }
    }

    #[test]
    fn unused_and_mac_os_9_locators_are_skipped() {
        for platform in [*b"\0\0\0\0", *b"Mac ", *b"xyz!"] {
            assert_eq!(Kind::of(platform), None);
        }
    }
}
