//! The parent locator: how a differencing disk names its parent (§2.6.2.6).

use std::ffi::OsString;

use instar_core::{Fields, Notices, Result};

use crate::error::{Checked, Error};
use crate::guid::Guid;

/// The only known type of locator: the parent is a VHDX file (§2.6.2.6.3).
const VHDX_LOCATOR: Guid = Guid::new(0xB04AEFB7_D19E_4A81_B789_25B8E9445913);
/// Bytes of the locator's header, and of each entry behind it.
const HEADER_SIZE: usize = 20;
const ENTRY_SIZE: usize = 12;

/// What a differencing disk stores about its parent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ParentLocator {
    /// What the parent's `DataWriteGuid` must be.
    pub parent_linkage: Guid,
    /// What it may be instead, while child data is being merged into the parent.
    pub parent_linkage2: Option<Guid>,
    /// Path of the parent from this file's directory, with backslashes.
    pub relative_path: Option<String>,
    /// Win32 path of the parent that starts with a drive or share, with backslashes.
    pub absolute_win32_path: Option<String>,
    /// Win32 path of the parent that starts with a volume's GUID, with backslashes.
    pub volume_path: Option<String>,
}

impl ParentLocator {
    /// What the parent's `DataWriteGuid` may be.
    pub(crate) fn linkages(&self) -> impl Iterator<Item = Guid> {
        std::iter::once(self.parent_linkage).chain(self.parent_linkage2)
    }

    /// Bytes of the stored paths.
    pub(crate) fn text_bytes(&self) -> u64 {
        let texts = [&self.relative_path, &self.absolute_win32_path, &self.volume_path];
        texts.into_iter().flatten().map(|text| text.len() as u64).sum()
    }

    /// Decodes the item that starts at file offset `at`. A path that is no text, which Windows
    /// allows, is told of and left out: there are others, and none is needed to map the disk
    /// without its parent.
    pub(crate) fn decode(fields: Fields<'_>, notices: &Notices) -> Result<Self> {
        let at = fields.offset_of(0);
        let guid = Guid::from_bytes(fields.array(0)?);
        if guid != VHDX_LOCATOR {
            return Err(Error::LocatorType { at, guid }.into());
        }
        let mut linkage = Text::linkage("parent_linkage");
        let mut linkage2 = Text::linkage("parent_linkage2");
        let mut relative = Text::path("relative_path");
        let mut absolute = Text::path("absolute_win32_path");
        let mut volume = Text::path("volume_path");

        let count = usize::from(fields.le16(18)?);
        let table = fields.slice(HEADER_SIZE, count.saturating_mul(ENTRY_SIZE))?;
        for (index, entry) in table.chunks_exact(ENTRY_SIZE).enumerate() {
            let skip = HEADER_SIZE.saturating_add(index.saturating_mul(ENTRY_SIZE));
            let entry = Fields::new("parent locator entry", fields.offset_of(skip), entry);
            let (key_at, value_at) = (index_of(entry.le32(0)?), index_of(entry.le32(4)?));
            let (key_length, value_length) = (entry.le16(8)?.into(), entry.le16(10)?.into());
            if key_length == 0 || value_length == 0 {
                return Err(Error::LocatorEmptyText { at: entry.offset_of(0), index }.into());
            }
            let key = fields.slice(key_at, key_length)?;
            let known = [&mut linkage, &mut linkage2, &mut relative, &mut absolute, &mut volume];
            // Only values of known keys are decoded: entries may share bytes, and 65535 long
            // texts would be 4 GiB.
            if let Some(text) = known.into_iter().find(|text| text.is_called(key)) {
                let at = fields.offset_of(value_at);
                match text.set(at, fields.slice(value_at, value_length)?) {
                    Err(error @ Error::LocatorText { .. }) if !text.is_linkage => {
                        notices.warn(format!("{error} (at file offset {at:#x}); left out"))?;
                    }
                    other => other?,
                }
            }
        }

        let parent_linkage = linkage.guid()?.ok_or(Error::LocatorWithoutLinkage { at })?;
        Ok(Self {
            parent_linkage,
            parent_linkage2: linkage2.guid()?,
            relative_path: relative.value,
            absolute_win32_path: absolute.value,
            volume_path: volume.value,
        })
    }

    /// The stored paths, best first: one that is relative to the file survives when both are
    /// moved together, and the GUID of a Windows volume is of least use anywhere else.
    pub(crate) fn paths(&self) -> Vec<OsString> {
        [&self.relative_path, &self.absolute_win32_path, &self.volume_path]
            .into_iter()
            .flatten()
            .map(OsString::from)
            .collect()
    }
}

fn index_of(offset: u32) -> usize {
    // Too large for the host is too large for the item as well.
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// The value of one known key.
struct Text {
    key: &'static str,
    is_linkage: bool,
    value: Option<String>,
    at: u64,
}

impl Text {
    fn linkage(key: &'static str) -> Self {
        Self { key, is_linkage: true, value: None, at: 0 }
    }

    fn path(key: &'static str) -> Self {
        Self { key, is_linkage: false, value: None, at: 0 }
    }

    /// Whether these bytes are the key in UTF-16LE. Case counts (§2.6.2.6.2).
    fn is_called(&self, bytes: &[u8]) -> bool {
        self.key.encode_utf16().flat_map(u16::to_le_bytes).eq(bytes.iter().copied())
    }

    /// Decodes the value at file offset `at`.
    fn set(&mut self, at: u64, bytes: &[u8]) -> Checked<()> {
        let key = self.key;
        if self.value.is_some() {
            return Err(Error::LocatorKeyTwice { at, key });
        }
        let wrong = Error::LocatorText { at, key };
        if bytes.len() % 2 != 0 {
            return Err(wrong);
        }
        let units = bytes.chunks_exact(2).filter_map(|pair| pair.first_chunk());
        let units = units.map(|pair| u16::from_le_bytes(*pair));
        let text: std::result::Result<String, _> = char::decode_utf16(units).collect();
        let Ok(text) = text else { return Err(wrong) };
        // The length must not count a trailing NUL (§2.6.2.6.2), but that is an easy mistake.
        let text = text.strip_suffix('\0').unwrap_or(&text);
        if text.is_empty() || text.contains('\0') {
            return Err(wrong);
        }
        self.value = Some(text.to_owned());
        self.at = at;
        Ok(())
    }

    fn guid(self) -> Checked<Option<Guid>> {
        let Self { key, value, at, .. } = self;
        value.map(|text| Guid::parse(&text).ok_or(Error::LocatorGuid { at, key, text })).transpose()
    }
}
