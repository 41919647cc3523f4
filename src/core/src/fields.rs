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
    /// Length of the file, if it ends with the structure or before.
    cut: Option<u64>,
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
        Self { what, base, bytes, cut: None }
    }

    /// As [`Fields::new`] in a file of `file` bytes, without what `bytes` have past its end. A field
    /// that is not wholly in the file is then an error that says that the structure is cut short.
    pub fn stored(what: &'static str, base: u64, bytes: &'a [u8], file: u64) -> Self {
        let there = usize::try_from(file.saturating_sub(base)).unwrap_or(usize::MAX);
        match bytes.get(..there) {
            Some(stored) => Self { what, base, bytes: stored, cut: Some(file) },
            None => Self::new(what, base, bytes),
        }
    }

    /// Decodes the structure called `what` at byte `base` of a file of `file` bytes from `bytes`,
    /// which are zeros past the end of the file.
    ///
    /// As in every other tool, a structure that is sound with these zeros is as good as one that has
    /// them in the file. If it is not, `decode` is called once more with what is in the file
    /// ([`Fields::stored`]), so that the error is never about a field that is not there. It stays
    /// [`ErrorKind::WrongFormat`] if it was that.
    ///
    /// # Errors
    /// Those of `decode`.
    pub fn decode<T>(
        what: &'static str,
        base: u64,
        bytes: &'a [u8],
        file: u64,
        decode: impl Fn(Self) -> Result<T>,
    ) -> Result<T> {
        use ErrorKind::{Corrupt, Limit, Unsupported, WrongFormat};
        let error = match decode(Self::new(what, base, bytes)) {
            Ok(decoded) => return Ok(decoded),
            Err(error) => error,
        };
        let stored = Self::stored(what, base, bytes, file);
        let is_about_fields = matches!(error.kind(), Corrupt | Limit | Unsupported | WrongFormat);
        if !stored.is_cut() || !is_about_fields {
            return Err(error);
        }
        match decode(stored) {
            Err(cut) if error.kind() == WrongFormat => Err(cut.of_kind(WrongFormat)),
            Err(cut) => Err(cut),
            Ok(_) => Err(error),
        }
    }

    /// Whether the file ends with these bytes, which may be less than the structure.
    pub fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Checks that the structure has `length` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is shorter.
    pub fn require(&self, length: usize) -> Result<()> {
        self.slice(0, length).map(|_| ())
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
        let text = match self.cut {
            None => {
                format!("{what} is too short: {need} bytes at {at} do not fit in {}", bytes.len())
            }
            Some(file) => {
                let needed = self.offset_of(at).saturating_add(need as u64);
                format!(
                    "{what} is cut short: the file has {file} bytes, at least {needed} are needed"
                )
            }
        };
        Error::new(ErrorKind::Corrupt, text).at(self.offset_of(at))
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

    #[test]
    fn only_what_is_in_the_file_is_to_blame() {
        let decode = |bytes: &[u8], base, file| {
            let decoded = Fields::decode("header", base, bytes, file, |fields| {
                fields.require(8)?;
                let (one, two) = (fields.be32(0)?, fields.be32(4)?);
                match (one, two) {
                    (1, 0..=9) => Ok(two),
                    _ => Err(Error::new(ErrorKind::Unsupported, format!("{one} and {two}")).at(4)),
                }
            });
            decoded.map_err(|error| error.to_string())
        };
        let (sound, broken) = ([0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 2, 0, 0, 0, 0]);
        // Zeros past the end are as good as others.
        for file in 100..=110 {
            assert_eq!(decode(&sound, 100, file), Ok(0), "{file}");
        }
        for file in [108, 109, u64::MAX] {
            let text = "2 and 0 (at file offset 0x4)".to_owned();
            assert_eq!(decode(&broken, 100, file), Err(text), "{file}");
        }
        for file in [0, 99, 100, 103, 107] {
            let text = format!(
                "header is cut short: the file has {file} bytes, at least 108 are needed (at file \
                 offset 0x64)"
            );
            assert_eq!(decode(&broken, 100, file), Err(text), "{file}");
        }
        let stored = Fields::stored("header", 100, &sound, 105);
        assert_eq!((stored.bytes(), stored.is_cut()), (&sound[..5], true));
        let stored = Fields::stored("header", 100, &sound, 108);
        assert_eq!((stored.bytes(), stored.is_cut()), (&sound[..], true));
        let stored = Fields::stored("header", 100, &sound, 109);
        assert_eq!((stored.bytes(), stored.is_cut()), (&sound[..], false));
    }

    #[test]
    fn an_error_that_is_not_about_fields_stays() {
        for kind in [ErrorKind::Io, ErrorKind::Strict, ErrorKind::External, ErrorKind::Bug] {
            let decoded = Fields::decode("header", 0, &[0; 8], 4, |fields| {
                assert!(!fields.is_cut(), "it is not decoded again");
                Err::<(), _>(Error::new(kind, "odd"))
            });
            assert_eq!(decoded.unwrap_err().to_string(), "odd");
        }
    }
}
