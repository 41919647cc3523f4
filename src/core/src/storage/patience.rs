//! Whether reads have to wait for the medium: on Linux, which can tell.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// For how many reads, or announcements of reads, one that had to wait is remembered.
const MEMORY: u32 = 256;

/// Reads a file and remembers whether that took waiting.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// What is left of the memory of the last read that had to wait.
    left: AtomicU32,
}

impl Patience {
    /// Whether one of the last reads had to wait.
    pub(super) fn was_needed(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    /// Has the kernel read `length` bytes at `at` while others are waited for. A hint: if it comes to
    /// nothing, reads wait as they did.
    pub(super) fn announce(&self, file: &File, at: u64, length: u64) {
        let _ = fadvise(file, at, NonZeroU64::new(length), Advice::WillNeed);
    }

    /// Forgets a little.
    pub(super) fn forget(&self) {
        let left = self.left.load(Ordering::Relaxed);
        // Nothing depends on its being exact.
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
    }

    /// As [`FileExt::read_at`], of a file of `end` bytes: less than asked for is all there is.
    pub(super) fn read_at(
        &self,
        file: &File,
        buffer: &mut [u8],
        at: u64,
        end: u64,
    ) -> io::Result<usize> {
        let wanted = end.saturating_sub(at).min(buffer.len() as u64);
        let parts = &mut [io::IoSliceMut::new(buffer)];
        match preadv2(file, parts, at, ReadWriteFlags::NOWAIT) {
            Ok(count) if count as u64 >= wanted => {
                self.forget();
                return Ok(count);
            }
            // The rest is not in memory. Again from the start: reads are aligned.
            Ok(_) => {}
            Err(Errno::AGAIN) => self.left.store(MEMORY, Ordering::Relaxed),
            // Not on every file system; what is really wrong will be said again.
            Err(_) => {}
        }
        file.read_at(buffer, at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn waiting_is_remembered_for_a_while() {
        let patience = Patience::default();
        assert!(!patience.was_needed());
        patience.forget();
        assert!(!patience.was_needed());
        patience.left.store(MEMORY, Ordering::Relaxed);
        for _ in 0..MEMORY {
            assert!(patience.was_needed());
            patience.forget();
        }
        assert!(!patience.was_needed());
    }

    /// Whether the file system makes one wait or not, and whether it can tell.
    #[test]
    fn bytes_are_the_same_with_and_without_waiting() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        let patience = Patience::default();
        // A read that fails, and one of which a part is in memory.
        for warm in [0, 8192] {
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            let end = bytes.len() as u64;
            assert_eq!(patience.read_at(&file, &mut vec![0; warm], 0, end).unwrap(), warm);
            for _ in 0..2 {
                let mut found = vec![0; bytes.len() + 100];
                assert_eq!(patience.read_at(&file, &mut found, 0, end).unwrap(), bytes.len());
                assert!(found.starts_with(&bytes));
            }
            assert_eq!(patience.read_at(&file, &mut [0; 10], end, end).unwrap(), 0);
            assert_eq!(patience.read_at(&file, &mut [0; 10], end - 4, end).unwrap(), 4);
        }
    }
}
