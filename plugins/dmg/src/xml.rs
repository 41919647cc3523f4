//! XML, read a window of the file at a time: in constant memory, and from any place of a text on.

use std::ops::Range;
use std::sync::Arc;

use instar_core::{Limits, Result, Storage, TableReader};
use quick_xml::Reader;
use quick_xml::errors::{Error as XmlError, SyntaxError};
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, Event};

use crate::error::Error;

/// Bytes of one tag, comment, instruction or document type (instar's own limit): a window.
const MAX_MARKUP: u64 = 64 << 10;

/// Tags, references, comments and the like in one property list (instar's own limit). A list of
/// 256 MiB with a reference in each line of base64 has half as many.
const MAX_TOKENS: u64 = 8 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const CDATA: &[u8] = b"<![CDATA[";
const CDATA_END: &[u8] = b"]]>";

/// A place in an XML document, from which it can be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// File offset of what comes next.
    pub(crate) at: u64,
    /// File offset where the document ends.
    pub(crate) end: u64,
    /// Whether that is in a CDATA section.
    in_cdata: bool,
}

impl Cursor {
    /// The start of the document from file offset `at` to `end`.
    pub(crate) fn new(at: u64, end: u64) -> Self {
        Self { at, end, in_cdata: false }
    }

    fn remaining(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }
}

/// The smallest part of a document that has a meaning of its own, or part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A start tag with the name of its element.
    Start(&'a [u8]),
    /// A tag of an element without content.
    Empty(&'a [u8]),
    /// An end tag.
    End(&'a [u8]),
    /// Part of a text, without references.
    Text(&'a [u8]),
    /// A reference to a character.
    Character(char),
    /// A reference to anything else. Entities are not expanded.
    Entity,
    /// A comment, an instruction, a declaration, the start or end of a CDATA section.
    Other,
}

/// A token by its length and place, which does not borrow what it was found in.
struct Found {
    kind: Kind,
    /// Bytes that it takes.
    length: usize,
}

enum Kind {
    /// With where the name is.
    Start(Range<usize>),
    Empty(Range<usize>),
    End(Range<usize>),
    Text,
    Reference(Option<char>),
    StartOfCdata,
    EndOfCdata,
    Other,
}

/// Reads the tokens of documents.
pub(crate) struct XmlReader {
    table: TableReader,
    /// How many tokens other than text may still come.
    allowed: u64,
}

impl XmlReader {
    pub(crate) fn new(storage: Arc<dyn Storage>, limits: &Limits) -> Self {
        Self { table: TableReader::new("resource", storage, limits), allowed: MAX_TOKENS }
    }

    /// The reader of the file's bytes.
    pub(crate) fn table(&mut self) -> &mut TableReader {
        &mut self.table
    }

    /// Bytes that are held in memory.
    pub(crate) fn buffered(&self) -> u64 {
        self.table.buffered()
    }

    /// Gives them back.
    pub(crate) fn release(&mut self) {
        self.table.release();
    }

    /// From now on only what was read before is read again, so tokens are not counted any more.
    pub(crate) fn stop_counting(&mut self) {
        self.allowed = u64::MAX;
    }

    /// The next token, and `cursor` after it; none at the end of the document.
    pub(crate) fn next(&mut self, cursor: &mut Cursor) -> Result<Option<Token<'_>>> {
        let at = cursor.at;
        if cursor.remaining() == 0 {
            return Ok(None);
        }
        let found = self.find(cursor)?;
        if !matches!(found.kind, Kind::Text) {
            self.allowed =
                self.allowed.checked_sub(1).ok_or(Error::Tokens { allowed: MAX_TOKENS, at })?;
        }
        cursor.at = at.saturating_add(found.length as u64);
        match found.kind {
            Kind::StartOfCdata => cursor.in_cdata = true,
            Kind::EndOfCdata => cursor.in_cdata = false,
            _ => {}
        }
        let bytes = self.table.bytes(at, found.length)?;
        let name = |range: Range<usize>| bytes.get(range).unwrap_or_default();
        Ok(Some(match found.kind {
            Kind::Start(range) => Token::Start(name(range)),
            Kind::Empty(range) => Token::Empty(name(range)),
            Kind::End(range) => Token::End(name(range)),
            Kind::Text => Token::Text(bytes),
            Kind::Reference(Some(character)) => Token::Character(character),
            Kind::Reference(None) => Token::Entity,
            Kind::StartOfCdata | Kind::EndOfCdata | Kind::Other => Token::Other,
        }))
    }

    /// Finds the token at `cursor`.
    fn find(&mut self, cursor: &Cursor) -> Result<Found> {
        let at = cursor.at;
        let longest = cursor.remaining().min(MAX_MARKUP);
        // Windows end at fixed places, so that each of them is read once.
        let mut length = longest.min(MAX_MARKUP - at % MAX_MARKUP);
        loop {
            // No more than a window.
            let bytes = self.table.bytes(at, usize::try_from(length).unwrap_or(0))?;
            let found = if cursor.in_cdata { find_in_cdata(bytes) } else { find(bytes) };
            let error = match found {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            // It may be cut off by the end of the window.
            if length < longest {
                length = longest;
            } else if matches!(error, XmlError::Syntax(_)) && longest < cursor.remaining() {
                return Err(Error::Markup { allowed: MAX_MARKUP, at }.into());
            } else {
                return Err(Error::Xml { error, at }.into());
            }
        }
    }
}

/// The token that `bytes` start with, outside of CDATA sections.
fn find(bytes: &[u8]) -> std::result::Result<Found, XmlError> {
    // The library would skip one, wherever a window starts.
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return Ok(Found { kind: Kind::Text, length: BYTE_ORDER_MARK.len() });
    }
    // Sections may be longer than a window.
    if bytes.starts_with(CDATA) {
        return Ok(Found { kind: Kind::StartOfCdata, length: CDATA.len() });
    }
    let mut reader = Reader::from_reader(bytes);
    let config = reader.config_mut();
    // Only one token is looked at.
    config.allow_unmatched_ends = true;
    let named = |start: usize, name: &[u8]| start..start.saturating_add(name.len());
    let kind = match reader.read_event()? {
        Event::Start(tag) => Kind::Start(named(1, tag.name().as_ref())),
        Event::Empty(tag) => Kind::Empty(named(1, tag.name().as_ref())),
        Event::End(tag) => Kind::End(named(2, tag.name().as_ref())),
        Event::Text(_) => Kind::Text,
        Event::GeneralRef(reference) => Kind::Reference(resolve(&reference)),
        _ => Kind::Other,
    };
    // Within `bytes`.
    Ok(Found { kind, length: usize::try_from(reader.buffer_position()).unwrap_or(bytes.len()) })
}

/// The character that a reference stands for.
fn resolve(reference: &BytesRef<'_>) -> Option<char> {
    if reference.is_char_ref() {
        return reference.resolve_char_ref().ok()?;
    }
    let name = reference.decode().ok()?;
    resolve_xml_entity(&name)?.chars().next()
}

/// The token that `bytes` start with, in a CDATA section.
fn find_in_cdata(bytes: &[u8]) -> std::result::Result<Found, XmlError> {
    if bytes.starts_with(CDATA_END) {
        return Ok(Found { kind: Kind::EndOfCdata, length: CDATA_END.len() });
    }
    let end = bytes.windows(CDATA_END.len()).position(|part| part == CDATA_END);
    // The end of the section may start in the last bytes.
    let length = end.unwrap_or(bytes.len().saturating_sub(CDATA_END.len() - 1));
    if length == 0 {
        return Err(XmlError::Syntax(SyntaxError::UnclosedCData));
    }
    Ok(Found { kind: Kind::Text, length })
}

#[cfg(test)]
mod tests {
    use instar_core::{ErrorKind, MemoryStorage};
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn tokens_other_than_text_are_counted() {
        let list = b"<a>text&amp;<!-- --><b/>more</a>";
        let storage = Arc::new(MemoryStorage::from_bytes(list.to_vec()));
        let mut reader = XmlReader::new(storage, &Limits::default());
        assert_eq!(reader.allowed, 8_388_608);
        let mut all = |allowed| {
            reader.allowed = allowed;
            let mut cursor = Cursor::new(0, list.len() as u64);
            let mut count = 0;
            while reader.next(&mut cursor)?.is_some() {
                count += 1;
            }
            Result::Ok(count)
        };
        assert_eq!(all(5).unwrap(), 7);
        let error = all(4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert_eq!(
            error.to_string(),
            "property list has more than 8388608 tags, references and comments (at file offset \
             0x1c)"
        );
    }
}
