//! The one error type that leaves the core and every format.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::Advice;

/// The result of everything that can fail in the core or in a format.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something failed, as far as a caller may want to tell cases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system failed to open, read or seek.
    Io,
    /// The file is not in the format that was asked for.
    WrongFormat,
    /// Two formats claim the file with equal right.
    Ambiguous,
    /// The image contradicts its format's specification.
    Corrupt,
    /// The image is legal but uses something that is not supported.
    Unsupported,
    /// A size in the image is over one of the stated limits.
    Limit,
    /// The image names another file that may not be opened.
    External,
    /// A warning that was asked to be an error.
    Strict,
    /// What the caller asked for makes no sense.
    Usage,
    /// A format broke its contract with the core.
    Bug,
}

/// What went wrong, in which format, in which file and where in it.
///
/// Context is added on the way up; what was said first, closest to the cause, stays.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    cause: Box<dyn StdError + Send + Sync>,
    format: Option<&'static str>,
    path: Option<PathBuf>,
    offset: Option<u64>,
    advice: Option<Advice>,
}

impl Error {
    /// An error of this kind; `cause` is a format's own error or a message.
    pub fn new(kind: ErrorKind, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Box::new(Inner {
            kind,
            cause: cause.into(),
            format: None,
            path: None,
            offset: None,
            advice: None,
        }))
    }

    /// A failed system call; `doing` says what was tried.
    pub fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, IoError { doing: doing.into(), source })
    }

    /// The same error of another kind.
    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Adds the file offset, in bytes, of the field at fault.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Adds the format whose rules were applied.
    #[must_use]
    pub fn in_format(mut self, name: &'static str) -> Self {
        self.0.format.get_or_insert(name);
        self
    }

    /// Adds the file at fault.
    #[must_use]
    pub fn in_file(mut self, path: &Path) -> Self {
        self.0.path.get_or_insert_with(|| path.to_owned());
        self
    }

    /// Adds what the caller can do about it.
    #[must_use]
    pub fn with_advice(mut self, advice: Advice) -> Self {
        self.0.advice.get_or_insert(advice);
        self
    }

    /// Which kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file at fault, if known.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The file offset of the field at fault, in bytes, if known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// What the caller can do about it, if that is known. It is not part of the text.
    pub fn advice(&self) -> Option<Advice> {
        self.0.advice
    }

    /// The format whose rules were applied, if any.
    pub fn format(&self) -> Option<&'static str> {
        self.0.format
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(format) = self.0.format {
            write!(f, "{format}: ")?;
        }
        write!(f, "{}", self.0.cause)?;
        if let Some(offset) = self.0.offset {
            write!(f, " (at file offset {offset:#x})")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.source()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
struct IoError {
    doing: String,
    source: std::io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn innermost_context_wins() {
        let error = Error::new(ErrorKind::Corrupt, "bad L1")
            .at(0x28)
            .at(0)
            .in_format("qcow2")
            .in_format("raw");
        assert_eq!(error.to_string(), "qcow2: bad L1 (at file offset 0x28)");
        assert_eq!(error.offset(), Some(0x28));
    }

    #[test]
    fn advice_is_not_part_of_the_text() {
        let error = Error::new(ErrorKind::Ambiguous, "two formats");
        assert_eq!(error.advice(), None);
        let error = error.with_advice(Advice::ChooseFormat).with_advice(Advice::RaiseDepth);
        assert_eq!(error.advice(), Some(Advice::ChooseFormat));
        assert_eq!(error.in_format("raw").to_string(), "raw: two formats");
    }

    #[test]
    fn the_cause_of_an_io_error_is_kept() {
        let error = Error::io("cannot read", std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(error.to_string(), "cannot read");
        assert!(error.source().is_some());
    }
}
