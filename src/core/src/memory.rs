//! What the layers of a chain must hold in memory for as long as they are open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, ErrorKind, Result};

/// The bytes that the layers of one chain hold together, besides the buffers that they can give
/// back. Shared by all of them, in [`Context`](crate::Context).
#[derive(Debug, Clone, Default)]
pub struct Memory {
    total: Arc<AtomicU64>,
}

/// Bytes that are counted in a [`Memory`] until this is dropped.
#[derive(Debug)]
pub struct Held {
    memory: Memory,
    bytes: u64,
}

impl Memory {
    /// Bytes that are held now.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts `bytes` more, for what is called `what`, if all together are no more than `allowed`.
    pub(crate) fn hold(&self, what: &'static str, bytes: u64, allowed: u64) -> Result<Held> {
        let before = self.total.fetch_add(bytes, Ordering::Relaxed);
        // Gives the bytes back on the way out, if they are too many.
        let held = Held { memory: self.clone(), bytes };
        let total = before.saturating_add(bytes);
        if total > allowed {
            return Err(Error::new(ErrorKind::Limit, TooMuch { what, bytes, total, allowed }));
        }
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{what} would take {bytes} bytes of memory, {total} with what the images above hold; at most \
     {allowed} are allowed"
)]
struct TooMuch {
    what: &'static str,
    bytes: u64,
    total: u64,
    allowed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn what_is_held_is_counted_together_until_it_is_dropped() {
        let memory = Memory::default();
        let hold = |bytes| memory.hold("a list", bytes, 100);
        let first = hold(60).unwrap();
        let second = hold(40).unwrap();
        let error = hold(1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert_eq!(
            error.to_string(),
            "a list would take 1 bytes of memory, 101 with what the images above hold; at most \
             100 are allowed"
        );
        drop(first);
        // What was refused does not count.
        let third = hold(60).unwrap();
        assert!(hold(1).is_err());
        drop((second, third));
        assert_eq!(memory.total(), 0);
        assert!(hold(u64::MAX).is_err());
        assert!(hold(100).is_ok());
    }
}
