//! Reading resources, which are bytes in a resource fork and text in a property list.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use instar_core::{Limits, Result, Storage, TableReader};

use crate::error::Error;

/// Bytes of the file that are looked at together.
const CHUNK: u64 = 64 << 10;

/// How a resource is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is.
    Plain,
    /// As base64 with white space in it, up to the next tag.
    Base64,
}

/// A place in a resource, from which it can be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) encoding: Encoding,
    /// File offset of what comes next.
    pub(crate) at: u64,
    /// File offset where the resource, or else the property list, ends.
    pub(crate) end: u64,
}

/// Reads resources, a bounded number of bytes at a time.
pub(crate) struct BlobReader {
    table: TableReader,
    /// Text without white space.
    text: Vec<u8>,
}

impl BlobReader {
    pub(crate) fn new(storage: Arc<dyn Storage>, limits: &Limits) -> Self {
        Self { table: TableReader::new("resource", storage, limits), text: Vec::new() }
    }

    /// Bytes that are held in memory.
    pub(crate) fn buffered(&self) -> u64 {
        self.table.buffered().saturating_add(self.text.capacity() as u64)
    }

    /// Gives them back.
    pub(crate) fn release(&mut self) {
        self.table.release();
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
        match position.encoding {
            Encoding::Plain => {
                let rest = position.end.saturating_sub(position.at);
                let length = usize::try_from(rest).unwrap_or(length).min(length);
                out.extend_from_slice(self.table.bytes(position.at, length)?);
                position.at = position.at.saturating_add(length as u64);
                Ok(())
            }
            Encoding::Base64 => self.read_base64(position, length, out),
        }
    }

    fn read_base64(
        &mut self,
        position: &mut Position,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let at = position.at;
        let wanted = length.div_ceil(3).saturating_mul(4);
        self.text.clear();
        let mut is_over = false;
        while self.text.len() < wanted && !is_over && position.at < position.end {
            let count = CHUNK.min(position.end.saturating_sub(position.at));
            // No more than a chunk.
            let bytes = self.table.bytes(position.at, usize::try_from(count).unwrap_or(0))?;
            let mut used = 0_u64;
            for byte in bytes {
                is_over = *byte == b'<';
                if is_over || self.text.len() == wanted {
                    break;
                }
                if !byte.is_ascii_whitespace() {
                    self.text.push(*byte);
                }
                used = used.saturating_add(1);
            }
            position.at = position.at.saturating_add(used);
        }
        let decoded = STANDARD.decode_vec(&self.text, out);
        // Padding is at the end of the resource only.
        if decoded.is_err()
            || (self.text.len() == wanted && out.len() < length && !self.is_over(position)?)
        {
            return Err(Error::Base64 { at }.into());
        }
        out.truncate(length);
        Ok(())
    }

    /// Whether nothing but white space is left of a base64 text.
    fn is_over(&mut self, position: &Position) -> Result<bool> {
        let rest = position.end.saturating_sub(position.at).min(CHUNK);
        let bytes = self.table.bytes(position.at, usize::try_from(rest).unwrap_or(0))?;
        Ok(bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|byte| *byte == b'<'))
    }

    /// Where `tag` comes next, from `position` on.
    pub(crate) fn find(&mut self, tag: &[u8], position: &Position) -> Result<Option<u64>> {
        let mut at = position.at;
        while at < position.end {
            let rest = position.end.saturating_sub(at);
            // What the host does not store reads as zeros, which no tag has.
            let unstored = self.table.unstored(at, rest)?;
            if unstored > 0 {
                at = at.saturating_add(unstored);
                continue;
            }
            let bytes = self.table.bytes(at, usize::try_from(rest.min(CHUNK)).unwrap_or(0))?;
            if let Some(found) = bytes.windows(tag.len()).position(|part| part == tag) {
                return Ok(Some(at.saturating_add(found as u64)));
            }
            if rest <= CHUNK {
                break;
            }
            // The tag may start in the last bytes that were looked at.
            at = at.saturating_add(CHUNK).saturating_sub(tag.len() as u64);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use instar_core::MemoryStorage;
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn tags_are_found_across_chunks_and_behind_holes() {
        const MIB: u64 = 1 << 20;
        // A hole that takes a minute if it is read.
        let hole = 1 << 37;
        for at in [0, 1, CHUNK - 6, CHUNK - 5, CHUNK - 1, CHUNK, 2 * CHUNK - 3] {
            let before = vec![b'<'; usize::try_from(at).unwrap()];
            let storage = MemoryStorage::new(hole + 3 * MIB)
                .with_data(0, b"<data".to_vec())
                .with_data(MIB, [before, b"<data>".to_vec()].concat())
                .with_data(hole, b"<data>".to_vec());
            let mut reader = BlobReader::new(Arc::new(storage), &Limits::default());
            let mut find = |from, end| {
                let position = Position { encoding: Encoding::Base64, at: from, end };
                reader.find(b"<data>", &position).unwrap()
            };
            assert_eq!(find(0, hole + MIB), Some(MIB + at));
            assert_eq!(find(MIB + at + 1, hole + MIB), Some(hole));
            assert_eq!(find(hole + 1, hole + MIB), None);
            assert_eq!(find(MIB + at + 1, hole), None);
            assert_eq!(find(MIB, MIB + at + 5), None);
        }
    }
}
