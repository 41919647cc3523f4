//! The one place where bytes of an image become integers.

use crate::{Error, ErrorKind, Result};

/// A named structure read from a file, from which fields are taken by offset.
///
/// A field outside the bytes at hand is an error that names the structure and the file offset,
/// never a panic.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    what: &'static str,
    base: u64,
    bytes: &'a [u8],
}

macro_rules! integer {
    ($name:ident, $type:ty, $from:ident, $doc:literal) => {
        #[doc = $doc]
        ///
        /// # Errors
        /// [`ErrorKind::Corrupt`] if the structure ends before the field does.
        #[inline]
        pub fn $name(&self, at: usize) -> Result<$type> {
            Ok(<$type>::$from(self.array(at)?))
        }
    };
}

impl<'a> Fields<'a> {
    /// The structure called `what`, which starts at byte `base` of its file.
    pub fn new(what: &'static str, base: u64, bytes: &'a [u8]) -> Self {
        Self { what, base, bytes }
    }

    /// All bytes at hand.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The file offset of the byte at `at`.
    pub fn offset_of(&self, at: usize) -> u64 {
        self.base.saturating_add(at as u64)
    }

    /// `length` bytes at `at`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the structure ends before.
    pub fn slice(&self, at: usize, length: usize) -> Result<&'a [u8]> {
        at.checked_add(length)
            .and_then(|end| self.bytes.get(at..end))
            .ok_or_else(|| self.short(at, length))
    }

    /// The `N` bytes at `at`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the structure ends before.
    #[inline]
    pub fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        self.bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<N>())
            .copied()
            .ok_or_else(|| self.short(at, N))
    }

    /// The byte at `at`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the structure ends before.
    pub fn u8(&self, at: usize) -> Result<u8> {
        self.bytes.get(at).copied().ok_or_else(|| self.short(at, 1))
    }

    integer!(be16, u16, from_be_bytes, "The big-endian 16-bit integer at `at`.");
    integer!(be32, u32, from_be_bytes, "The big-endian 32-bit integer at `at`.");
    integer!(be64, u64, from_be_bytes, "The big-endian 64-bit integer at `at`.");
    integer!(le16, u16, from_le_bytes, "The little-endian 16-bit integer at `at`.");
    integer!(le32, u32, from_le_bytes, "The little-endian 32-bit integer at `at`.");
    integer!(le64, u64, from_le_bytes, "The little-endian 64-bit integer at `at`.");

    #[cold]
    fn short(&self, at: usize, need: usize) -> Error {
        let Self { what, bytes, .. } = *self;
        Error::new(
            ErrorKind::Corrupt,
            format!("{what} is too short: {need} bytes at {at} do not fit in {}", bytes.len()),
        )
        .at(self.offset_of(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn a_field_beyond_the_end_is_an_error_with_the_file_offset() {
        let fields = Fields::new("header", 0x1000, &[1, 2, 3, 4, 5]);
        assert_eq!(fields.be32(1).unwrap(), 0x0203_0405);
        assert_eq!(fields.le16(0).unwrap(), 0x0201);
        assert_eq!(
            fields.be32(2).unwrap_err().to_string(),
            "header is too short: 4 bytes at 2 do not fit in 5 (at file offset 0x1002)"
        );
        assert!(fields.slice(usize::MAX, 2).is_err());
        assert!(fields.u8(5).is_err());
    }
}
