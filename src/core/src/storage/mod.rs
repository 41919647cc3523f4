//! Bytes at offsets, and where the host keeps none.

mod file;
mod memory;
#[cfg_attr(not(target_os = "linux"), path = "impatience.rs")]
mod patience;

use std::io;

use positioned_io::ReadAt;

pub use file::FileStorage;
pub use memory::MemoryStorage;

use crate::SECTOR;

/// Whether the host stores bytes for a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// Bytes are stored, or the host cannot tell.
    Data,
    /// Nothing is stored: the range reads as zeros. Also everything behind the end of a file.
    Hole,
}

/// A range of equal [`RunKind`], from the offset asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// What the host has there.
    pub kind: RunKind,
    /// Where the range ends (exclusive), in bytes; more than the offset asked for. `u64::MAX`
    /// where nothing else follows.
    pub end: u64,
}

/// A file, block device or anything else that holds an image's bytes. Never written to.
pub trait Storage: ReadAt + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether data or a hole is at byte `at`, and where that ends.
    ///
    /// # Errors
    /// Never for a host that merely cannot tell: that is [`RunKind::Data`].
    fn run_at(&self, at: u64) -> io::Result<Run>;

    /// Bytes of space that the host has allocated (`st_blocks`), for formats whose map depends
    /// on it. 0 for a block device.
    fn allocated(&self) -> u64;

    /// Device and inode number, by which a file is known whatever its name.
    fn identity(&self) -> Option<(u64, u64)> {
        None
    }

    /// Whether somebody has written since the storage was opened, as far as the host tells.
    ///
    /// # Errors
    /// The host's.
    fn has_changed(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Alignment and granularity of reads, in bytes, a power of two: a reader that keeps to it
    /// is served without copying.
    fn read_unit(&self) -> u64 {
        SECTOR
    }

    /// Whether reads have had to wait lately, so that it is worth a call to say what will be read.
    fn is_slow(&self) -> bool {
        false
    }

    /// Says that the `length` bytes at `at` will be read soon. A hint: it may be ignored.
    fn will_need(&self, at: u64, length: u64) {
        let _ = (at, length);
    }
}

/// Reads `buffer.len()` bytes at `at`; what lies behind the end of the storage reads as zeros.
///
/// # Errors
/// The storage's own.
pub fn read_padded(storage: &dyn Storage, at: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let position = at.saturating_add(done as u64);
        if position >= storage.len() {
            rest.fill(0);
            break;
        }
        match storage.read_at(position, rest) {
            // The file shrank since its length was taken.
            Ok(0) => {
                rest.fill(0);
                break;
            }
            Ok(read) => done = done.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
