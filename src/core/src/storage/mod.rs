//! Bytes at offsets, and where the host keeps none.

mod file;
mod memory;
#[cfg_attr(not(target_os = "linux"), path = "impatience.rs")]
mod patience;

use std::io;

use positioned_io::ReadAt;

pub use file::FileStorage;
pub use memory::MemoryStorage;

use crate::{Limits, MAX_LENGTH, Result, SECTOR};

/// The largest unit of reads, in bytes, that a storage may ask for (our own limit): reads are
/// rounded out to it, so it bounds what a small read may cost.
pub const MAX_READ_UNIT: u64 = 2 << 20;

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

/// Refuses a storage that says it is longer than any file can be: what follows adds to its length.
///
/// # Errors
/// [`ErrorKind::Limit`](crate::ErrorKind::Limit) for a length over [`MAX_LENGTH`].
pub fn check_length(storage: &dyn Storage) -> Result<()> {
    Limits::check("the file's length in bytes", storage.len(), MAX_LENGTH)
}

/// Reads `buffer.len()` bytes at `at`; past the storage's length there are zeros.
///
/// A storage may answer any number of bytes that it likes, as long as there are some.
///
/// # Errors
/// The storage's own; [`io::ErrorKind::UnexpectedEof`] if it has no bytes before its length (a file
/// that shrank, or a file system that lost them): they are not zeros;
/// [`io::ErrorKind::InvalidData`] if it says that it read more than there was room for.
pub fn read_padded(storage: &dyn Storage, at: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let position = at.saturating_add(done as u64);
        let length = storage.len();
        if position >= length {
            rest.fill(0);
            break;
        }
        match storage.read_at(position, rest) {
            Ok(0) => return Err(EndsEarly { position, length }.into()),
            Ok(read) if read > rest.len() => {
                let room = rest.len();
                return Err(ReadsTooMuch { position, room, read }.into());
            }
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What [`Storage::run_at`] answers, checked.
///
/// # Errors
/// The storage's own; [`io::ErrorKind::InvalidData`] for a run that does not reach past `at`.
pub fn run_from(storage: &dyn Storage, at: u64) -> io::Result<Run> {
    let run = storage.run_at(at)?;
    if run.end <= at {
        return Err(EmptyRun { at, end: run.end }.into());
    }
    Ok(run)
}

/// The alignment and granularity of reads that a storage asks for, in bytes: a power of two up to
/// [`MAX_READ_UNIT`], and [`SECTOR`] if it asks for anything else.
pub fn read_unit(storage: &dyn Storage) -> u64 {
    let unit = storage.read_unit();
    if unit.is_power_of_two() && unit <= MAX_READ_UNIT { unit } else { SECTOR }
}

#[derive(Debug, thiserror::Error)]
#[error("no bytes at {position:#x} of a file of {length} bytes: it was cut while it was read")]
struct EndsEarly {
    position: u64,
    length: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the storage says it read {read} bytes at {position:#x}, of {room} asked for")]
struct ReadsTooMuch {
    position: u64,
    room: usize,
    read: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("the storage says that the run at {at:#x} ends at {end:#x}")]
struct EmptyRun {
    at: u64,
    end: u64,
}

impl From<EndsEarly> for io::Error {
    fn from(error: EndsEarly) -> Self {
        Self::new(io::ErrorKind::UnexpectedEof, error)
    }
}

impl From<ReadsTooMuch> for io::Error {
    fn from(error: ReadsTooMuch) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl From<EmptyRun> for io::Error {
    fn from(error: EmptyRun) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    /// Answers every read with so many bytes of value 7, or claims to.
    struct Says {
        length: u64,
        read: usize,
        run_end: u64,
        unit: u64,
    }

    impl ReadAt for Says {
        fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.read.min(buffer.len());
            buffer[..count].fill(7);
            Ok(self.read)
        }
    }

    impl Storage for Says {
        fn len(&self) -> u64 {
            self.length
        }

        fn run_at(&self, _: u64) -> io::Result<Run> {
            Ok(Run { kind: RunKind::Hole, end: self.run_end })
        }

        fn allocated(&self) -> u64 {
            0
        }

        fn read_unit(&self) -> u64 {
            self.unit
        }
    }

    const SOUND: Says = Says { length: 100, read: 1, run_end: 100, unit: 512 };

    #[test]
    fn short_reads_go_on_and_no_bytes_before_the_end_are_an_error() {
        let mut buffer = [1; 8];
        read_padded(&SOUND, 95, &mut buffer).unwrap();
        assert_eq!(buffer, [7, 7, 7, 7, 7, 0, 0, 0]);
        read_padded(&Says { read: 0, ..SOUND }, 100, &mut buffer).unwrap();
        assert_eq!(buffer, [0; 8]);
        let error = read_padded(&Says { read: 0, ..SOUND }, 99, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(
            error.to_string(),
            "no bytes at 0x63 of a file of 100 bytes: it was cut while it was read"
        );
        let error = read_padded(&Says { read: 9, ..SOUND }, 0, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(error.to_string(), "the storage says it read 9 bytes at 0x0, of 8 asked for");
    }

    #[test]
    fn runs_lengths_and_units_without_sense_are_refused_or_not_kept_to() {
        let kind = |storage: &Says, at| run_from(storage, at).map_err(|error| error.kind());
        assert_eq!(kind(&SOUND, 99), Ok(Run { kind: RunKind::Hole, end: 100 }));
        assert_eq!(kind(&SOUND, 100), Err(io::ErrorKind::InvalidData));
        let length = |length| check_length(&Says { length, ..SOUND }).is_ok();
        assert_eq!([MAX_LENGTH, MAX_LENGTH + 1, u64::MAX].map(length), [true, false, false]);
        let unit = |unit| read_unit(&Says { unit, ..SOUND });
        assert_eq!([1, 4096, 2 << 20, 4 << 20, 0, 3].map(unit), [1, 4096, 2 << 20, 512, 512, 512]);
    }
}
