//! Warnings: what is odd about an image without stopping its map.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::{Error, ErrorKind, Result};

/// At most this many different warnings are passed on (instar's own limit): a hostile image
/// must not fill a log.
const MAX_NOTICES: usize = 20;

/// One warning.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notice {
    /// What is odd, in one line without a full stop.
    pub text: String,
}

type Sink = Box<dyn Fn(&Notice) + Send + Sync>;

/// Where warnings go, and whether they are errors.
pub struct Notices {
    strict: bool,
    seen: Mutex<HashSet<String>>,
    sink: Sink,
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notices").field("strict", &self.strict).finish_non_exhaustive()
    }
}

impl Default for Notices {
    /// Warnings are dropped.
    fn default() -> Self {
        Self::new(false, |_| {})
    }
}

impl Notices {
    /// Passes every new warning to `sink`, or makes each an error if `strict`.
    pub fn new(strict: bool, sink: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        Self { strict, seen: Mutex::default(), sink: Box::new(sink) }
    }

    /// Warns once about `text`.
    ///
    /// # Errors
    /// [`ErrorKind::Strict`] if warnings are errors.
    pub fn warn(&self, text: impl Into<String>) -> Result<()> {
        let text = text.into();
        if self.strict {
            return Err(Error::new(ErrorKind::Strict, text));
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < MAX_NOTICES && seen.insert(text.clone()) {
            (self.sink)(&Notice { text });
        }
        Ok(())
    }
}
