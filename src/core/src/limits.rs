//! Bounds on what an image may make instar allocate or walk. All of them are instar's own.

use crate::{Error, ErrorKind, Result};

/// Named bounds; every size that comes from an image is checked against one of them (or against
/// one that the format's specification states) before it is allocated or looped over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Layers in one chain, the image itself not counted.
    pub depth: usize,
    /// Bytes of one table that are in memory at a time.
    pub table_window: u64,
    /// Bytes of a text descriptor, locator, or list of extensions.
    pub description: u64,
    /// Bytes of a log that is replayed in memory.
    pub log: u64,
    /// Bytes of memory that the layers of a chain hold for as long as they are open: lists of
    /// extents and of files, names, the updates of logs. Buffers, which can be given back, have a
    /// bound of their own.
    pub held: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 200,
            table_window: 4 << 20,
            description: 1 << 20,
            log: 64 << 20,
            held: 16 << 20,
        }
    }
}

impl Limits {
    /// Refuses a `value` over `allowed`; `what` names the field, both numbers are bytes unless
    /// `what` says otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`], with both numbers in the text.
    pub fn check(what: &'static str, value: u64, allowed: u64) -> Result<()> {
        if value > allowed {
            return Err(Error::new(ErrorKind::Limit, OverLimit { what, value, allowed }));
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{what} is {value}, at most {allowed} is allowed")]
struct OverLimit {
    what: &'static str,
    value: u64,
    allowed: u64,
}
