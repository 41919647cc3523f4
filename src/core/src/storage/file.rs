//! A file or device of the host.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use positioned_io::ReadAt;
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::patience::Patience;
use super::{Run, RunKind, Storage};
use crate::{Error, ErrorKind, MAX_LENGTH, Result};

/// Default of [`Storage::read_unit`] for files, in bytes: a page, so that a small table costs no
/// more than itself.
const READ_UNIT: u64 = 4 << 10;

/// `st_blocks` counts these, whatever the file system's block size (POSIX `stat`, as all
/// Linux file systems have it).
const STAT_BLOCK: u64 = 512;

/// A regular file, block device or (as qemu: of length 0) character device that the user named.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    length: u64,
    allocated: u64,
    identity: (u64, u64),
    stamp: Stamp,
    /// Whether SEEK_DATA and SEEK_HOLE mean anything: only for regular files.
    has_holes: bool,
    /// Where the last hole that was found ends: data, which need not be looked for again.
    data_at: AtomicU64,
    patience: Patience,
    unit: u64,
}

impl FileStorage {
    /// Opens `path` for reading. A FIFO is refused without waiting for a writer.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] as the system says; [`ErrorKind::Unsupported`] for a directory, FIFO or
    /// socket; [`ErrorKind::Limit`] for a length over [`MAX_LENGTH`].
    pub fn open(path: &Path) -> Result<Self> {
        // NONBLOCK: opening a FIFO must not hang. It has no effect on files and disks.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| Error::io("cannot open the file", errno.into()))
            .and_then(|fd| Self::from_file(File::from(fd)))
            .map_err(|error| error.in_file(path))
    }

    /// Takes an open file.
    ///
    /// # Errors
    /// As [`FileStorage::open`].
    pub fn from_file(file: File) -> Result<Self> {
        let meta = file.metadata().map_err(|e| Error::io("cannot examine the file", e))?;
        let kind = meta.file_type();
        let refused = |what| Err(Error::new(ErrorKind::Unsupported, NotAFile { what }));
        let length = if kind.is_file() {
            meta.len()
        } else if kind.is_block_device() || kind.is_char_device() {
            device_length(&file)
        } else if kind.is_dir() {
            return refused("a directory");
        } else if kind.is_fifo() {
            return refused("a FIFO");
        } else {
            return refused("a socket or something else that is no file");
        };
        crate::Limits::check("the file's length in bytes", length, MAX_LENGTH)?;
        Ok(Self {
            allocated: meta.blocks().saturating_mul(STAT_BLOCK),
            identity: (meta.dev(), meta.ino()),
            stamp: Stamp::new(meta.len(), meta.mtime(), meta.mtime_nsec()),
            has_holes: kind.is_file(),
            data_at: AtomicU64::new(u64::MAX),
            patience: Patience::default(),
            file,
            length,
            unit: READ_UNIT,
        })
    }

    /// Makes every read aligned to, and a multiple of, `unit` bytes.
    ///
    /// # Panics
    /// If `unit` is not a power of two.
    #[must_use]
    pub fn with_read_unit(mut self, unit: u64) -> Self {
        assert!(unit.is_power_of_two(), "a read unit is a power of two");
        self.unit = unit;
        self
    }

    fn read_file(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.patience.read_at(&self.file, buffer, at, self.length)
    }

    /// Reads the aligned surroundings of `buffer` and copies its part.
    fn read_around(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let start = at - at % self.unit;
        let end = at.saturating_add(buffer.len() as u64).next_multiple_of(self.unit);
        let too_large = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let mut around = vec![0; usize::try_from(end - start).map_err(too_large)?];
        let mut filled = 0;
        while let Some(rest) = around.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let read = self.read_file(rest, start + filled as u64)?;
            filled += read;
            // A short read in the middle of the file is not its end: the rest is asked for.
            if read == 0 || start.saturating_add(filled as u64) >= self.length {
                break;
            }
        }
        let skip = usize::try_from(at - start).map_err(too_large)?;
        let found = around.get(skip..filled).unwrap_or(&[]);
        let count = found.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), found.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}

/// Bytes of a block device; 0 for a character device, as to qemu.
fn device_length(file: &File) -> u64 {
    rustix::fs::seek(file, SeekFrom::End(0)).unwrap_or(0)
}

/// What changes when a file is written to: length, and time of modification in seconds and
/// nanoseconds.
#[derive(Debug, PartialEq, Eq)]
struct Stamp([i64; 3]);

impl Stamp {
    /// The widths of these differ between systems; all are far below 2^63.
    fn new(length: impl Into<i128>, time: impl Into<i128>, nanos: impl Into<i128>) -> Self {
        let narrow = |number: i128| i64::try_from(number).unwrap_or(i64::MAX);
        Self([length.into(), time.into(), nanos.into()].map(narrow))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("is {what}, expected a regular file or a block device")]
struct NotAFile {
    what: &'static str,
}

impl ReadAt for FileStorage {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if at % self.unit == 0 && buffer.len() as u64 % self.unit == 0 {
            self.read_file(buffer, at)
        } else {
            self.read_around(at, buffer)
        }
    }
}

impl Storage for FileStorage {
    fn len(&self) -> u64 {
        self.length
    }

    fn run_at(&self, at: u64) -> io::Result<Run> {
        let unknown = Run { kind: RunKind::Data, end: u64::MAX };
        if at >= self.length {
            return Ok(Run { kind: RunKind::Hole, end: u64::MAX });
        }
        if !self.has_holes {
            return Ok(Run { end: self.length, ..unknown });
        }
        let data = if self.data_at.load(Ordering::Relaxed) == at {
            Ok(at)
        } else {
            rustix::fs::seek(&self.file, SeekFrom::Data(at))
        };
        Ok(match data {
            Err(Errno::NXIO) => Run { kind: RunKind::Hole, end: u64::MAX },
            Ok(data) if data > at => {
                self.data_at.store(data, Ordering::Relaxed);
                Run { kind: RunKind::Hole, end: data }
            }
            Ok(data) if data == at => match rustix::fs::seek(&self.file, SeekFrom::Hole(at)) {
                Ok(hole) if hole > at => Run { kind: RunKind::Data, end: hole },
                _ => unknown,
            },
            _ => unknown,
        })
    }

    fn allocated(&self) -> u64 {
        self.allocated
    }

    fn identity(&self) -> Option<(u64, u64)> {
        Some(self.identity)
    }

    fn has_changed(&self) -> io::Result<bool> {
        // Not the standard library's call, which takes a path: a confined process may not have it.
        let stat = rustix::fs::fstat(&self.file)?;
        if Stamp::new(stat.st_size, stat.st_mtime, stat.st_mtime_nsec) != self.stamp {
            return Ok(true);
        }
        // `stat` knows no size of a device: one that was shrunk or grown shows here only.
        Ok(!self.has_holes && device_length(&self.file) != self.length)
    }

    fn read_unit(&self) -> u64 {
        self.unit
    }

    fn is_slow(&self) -> bool {
        self.patience.was_needed()
    }

    fn will_need(&self, at: u64, length: u64) {
        // Not for ever, if nothing comes of it.
        self.patience.forget();
        if self.run_at(at).is_ok_and(|run| run.kind == RunKind::Data) {
            self.patience.announce(&self.file, at, length);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;
    use crate::read_padded;
    use pretty_assertions::assert_eq;

    fn file_with(parts: &[(u64, &[u8])], length: u64) -> FileStorage {
        let mut file = tempfile::tempfile().unwrap();
        for (at, bytes) in parts {
            file.seek(std::io::SeekFrom::Start(*at)).unwrap();
            file.write_all(bytes).unwrap();
        }
        file.set_len(length).unwrap();
        file.sync_all().unwrap();
        FileStorage::from_file(file).unwrap()
    }

    #[test]
    fn unaligned_reads_give_the_same_bytes_as_aligned_ones() {
        let bytes: Vec<u8> =
            (0..9000_u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        let storage = file_with(&[(0, &bytes)], 9000).with_read_unit(4096);
        for (at, length) in [(0, 9000), (1, 3), (4095, 2), (4096, 4096), (8999, 1), (8190, 810)] {
            let mut buffer = vec![0; length];
            assert_eq!(storage.read_at(at as u64, &mut buffer).unwrap(), length, "{at}+{length}");
            assert_eq!(buffer, bytes[at..at + length]);
        }
        let mut buffer = [1; 20];
        assert_eq!(storage.read_at(8995, &mut buffer).unwrap(), 5);
        read_padded(&storage, 8995, &mut buffer).unwrap();
        assert_eq!(buffer[..5], bytes[8995..]);
        assert_eq!(buffer[5..], [0; 15]);
        assert_eq!(storage.read_at(20000, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn holes_are_seen_and_the_end_is_one() {
        let storage = file_with(&[(1 << 20, &[1; 4096])], 2 << 20);
        let hole = |end| Run { kind: RunKind::Hole, end };
        assert_eq!(storage.run_at(0).unwrap(), hole(1 << 20));
        assert_eq!(storage.run_at(4096).unwrap(), hole(1 << 20));
        assert_eq!(
            storage.run_at(1 << 20).unwrap(),
            Run { kind: RunKind::Data, end: (1 << 20) + 4096 }
        );
        assert_eq!(storage.run_at((1 << 20) + 4096).unwrap(), hole(u64::MAX));
        assert_eq!(storage.run_at(3 << 20).unwrap(), hole(u64::MAX));
    }

    #[test]
    fn a_write_is_noticed() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1000).unwrap();
        let mut writer = file.try_clone().unwrap();
        let storage = FileStorage::from_file(file).unwrap();
        assert!(!storage.has_changed().unwrap());
        // The clock of a file system may be coarse; a longer file shows in any case.
        writer.seek(std::io::SeekFrom::End(0)).unwrap();
        writer.write_all(b"x").unwrap();
        assert!(storage.has_changed().unwrap());
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = FileStorage::open(directory.path()).unwrap_err();
        assert_eq!(error.to_string(), "is a directory, expected a regular file or a block device");
        let error = FileStorage::open(&directory.path().join("nope")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.path().is_some());
    }
}
