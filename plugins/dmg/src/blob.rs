//! Reading resources, which are bytes in a resource fork and text in a property list.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use instar_core::{Limits, Result, Storage};

use crate::error::Error;
use crate::xml::{Cursor, Token, XmlReader};

/// A place in a resource, from which it can be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// In bytes as they are, from one file offset to another.
    Plain { at: u64, end: u64 },
    /// In an element of a property list: base64 with white space in it.
    Base64(Cursor),
}

impl Position {
    /// Its file offset.
    pub(crate) fn at(&self) -> u64 {
        match self {
            Self::Plain { at, .. } | Self::Base64(Cursor { at, .. }) => *at,
        }
    }
}

/// Reads resources, a bounded number of bytes at a time.
pub(crate) struct BlobReader {
    xml: XmlReader,
    /// Text without white space.
    text: Vec<u8>,
}

impl BlobReader {
    pub(crate) fn new(storage: Arc<dyn Storage>, limits: &Limits) -> Self {
        Self { xml: XmlReader::new(storage, limits), text: Vec::new() }
    }

    /// The reader of property lists.
    pub(crate) fn xml(&mut self) -> &mut XmlReader {
        &mut self.xml
    }

    /// Bytes that are held in memory.
    pub(crate) fn buffered(&self) -> u64 {
        self.xml.buffered().saturating_add(self.text.capacity() as u64)
    }

    /// Gives them back.
    pub(crate) fn release(&mut self) {
        self.xml.release();
        self.text = Vec::new();
    }

    /// Puts the next `length` bytes of a resource into `out`; fewer if it ends before.
    ///
    /// Base64 is read on only where it was left at a multiple of three bytes.
    pub(crate) fn read(
        &mut self,
        position: &mut Position,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.clear();
        match position {
            Position::Plain { at, end } => {
                let remaining = end.saturating_sub(*at);
                let length = usize::try_from(remaining).unwrap_or(length).min(length);
                out.extend_from_slice(self.xml.table().bytes(*at, length)?);
                *at = at.saturating_add(length as u64);
                Ok(())
            }
            Position::Base64(cursor) => self.read_base64(cursor, length, out),
        }
    }

    fn read_base64(&mut self, cursor: &mut Cursor, length: usize, out: &mut Vec<u8>) -> Result<()> {
        let at = cursor.at;
        let wanted = length.div_ceil(3).saturating_mul(4);
        self.text.clear();
        self.text.reserve_exact(wanted);
        while self.text.len() < wanted && self.read_text(cursor, wanted)? {}
        let decoded = STANDARD.decode_vec(&self.text, out);
        let is_full = self.text.len() == wanted;
        // Padding is at the end of the resource only.
        if decoded.is_err() || (is_full && out.len() < length && !self.is_over(*cursor)?) {
            return Err(Error::Base64 { at }.into());
        }
        out.truncate(length);
        Ok(())
    }

    /// Adds to the text, up to `wanted` digits, what the next token has. False at the element's
    /// end tag, where `cursor` stays.
    fn read_text(&mut self, cursor: &mut Cursor, wanted: usize) -> Result<bool> {
        let start = *cursor;
        match self.xml.next(cursor)? {
            Some(Token::Text(bytes)) => {
                let used = push_digits(&mut self.text, bytes, wanted);
                cursor.at = start.at.saturating_add(used as u64);
            }
            Some(Token::Character(character)) => {
                let mut bytes = [0; 4];
                let bytes = character.encode_utf8(&mut bytes).as_bytes();
                push_digits(&mut self.text, bytes, usize::MAX);
            }
            // Nothing that base64 has.
            Some(Token::Entity) => self.text.push(b'&'),
            Some(Token::Other) => {}
            Some(Token::End(_)) => {
                *cursor = start;
                return Ok(false);
            }
            Some(Token::Start(_) | Token::Empty(_)) => {
                return Err(Error::ElementInData { at: start.at }.into());
            }
            None => return Err(Error::ListCut { at: start.at }.into()),
        }
        Ok(true)
    }

    /// Whether nothing but white space is left of the element.
    fn is_over(&mut self, mut cursor: Cursor) -> Result<bool> {
        self.text.clear();
        while self.text.is_empty() && self.read_text(&mut cursor, 1)? {}
        Ok(self.text.is_empty())
    }
}

/// Adds the bytes that are not white space to `text`, until it has `wanted` of them; how many
/// bytes were used.
fn push_digits(text: &mut Vec<u8>, bytes: &[u8], wanted: usize) -> usize {
    let mut used = 0_usize;
    // Line by line: copying digits one by one takes most of the time that is spent on a list.
    for line in bytes.split_inclusive(u8::is_ascii_whitespace) {
        let digits = match line.split_last() {
            Some((last, digits)) if last.is_ascii_whitespace() => digits,
            _ => line,
        };
        let free = wanted.saturating_sub(text.len());
        if let Some(fitting) = digits.get(..free).filter(|_| digits.len() > free) {
            text.extend_from_slice(fitting);
            return used.saturating_add(free);
        }
        text.extend_from_slice(digits);
        used = used.saturating_add(line.len());
    }
    used
}
