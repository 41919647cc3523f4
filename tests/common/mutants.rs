//! An image on disk, altered in place and put back, many times.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use instar::core::testkit::{self, Mutator, Random};
use instar::core::{FileStorage, ImageFormat, MemoryStorage, Storage as _};

use super::lab::data_runs;

/// File systems have no longer files than this.
const LONGEST: u64 = 1 << 43;

/// An image and what to know to alter it.
pub(crate) struct Original {
    path: PathBuf,
    format: &'static dyn ImageFormat,
    file: File,
    length: u64,
    /// All of its data, as offset and bytes.
    runs: Vec<(u64, Vec<u8>)>,
    /// What is read to map it.
    metadata: MemoryStorage,
}

impl Original {
    /// The image at `path`, which is in this format.
    pub(crate) fn new(path: &Path, format: &'static dyn ImageFormat) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("the image");
        let length = file.metadata().expect("the image's length").len();
        let read = |(at, length): (u64, u64)| {
            let mut bytes = vec![0; usize::try_from(length).expect("a small run")];
            file.read_exact_at(&mut bytes, at).expect("the image can be read");
            (at, bytes)
        };
        let runs = data_runs(&file, length).into_iter().map(read).collect();
        let storage = FileStorage::open(path).expect("the image opens");
        let metadata = testkit::metadata(format, Arc::new(storage)).expect("it can be read");
        Self { path: path.to_owned(), format, file, length, runs, metadata }
    }

    /// Whether there is anything to alter.
    pub(crate) fn has_metadata(&self) -> bool {
        self.metadata.pieces().next().is_some()
    }

    /// Alters the image, and makes its checksums right in most cases.
    pub(crate) fn alter(&self, random: &mut Random) {
        let mut mutant = self.metadata.clone();
        Mutator::new(random.next()).mutate(&mut mutant);
        if random.below(8) != 0 {
            testkit::seal(self.format.name(), &mut mutant);
        }
        if mutant.len() != self.length {
            self.file.set_len(mutant.len().min(LONGEST)).expect("room for the image");
        }
        for (at, piece) in mutant.pieces() {
            self.write_changes(at, piece);
        }
    }

    /// Writes the sectors of a piece that are not as they were.
    fn write_changes(&self, at: u64, piece: &[u8]) {
        let mut before = vec![0; piece.len()];
        instar::core::read_padded(&self.metadata, at, &mut before).expect("memory is read");
        for (index, (new, old)) in piece.chunks(512).zip(before.chunks(512)).enumerate() {
            if new != old {
                let at = at + 512 * index as u64;
                self.file.write_all_at(new, at).expect("room for the image");
            }
        }
    }

    /// Puts everything back.
    pub(crate) fn restore(&self) {
        if self.len() == self.length {
            for (at, piece) in self.metadata.pieces() {
                let mut now = vec![0; piece.len()];
                self.file.read_exact_at(&mut now, at).expect("the image can be read");
                if now != piece {
                    self.file.write_all_at(piece, at).expect("room for the image");
                }
            }
            return;
        }
        self.file.set_len(0).expect("an empty file");
        for (at, bytes) in &self.runs {
            self.file.write_all_at(bytes, *at).expect("room for the image");
        }
        self.file.set_len(self.length).expect("room for the image");
    }

    /// The image's length as it is now, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.file.metadata().expect("the image's length").len()
    }

    /// The bytes at `at` as they are now, zeros behind the end.
    pub(crate) fn read(&self, at: u64, count: usize) -> Vec<u8> {
        let storage = FileStorage::open(&self.path).expect("the image opens");
        let mut bytes = vec![0; count];
        instar::core::read_padded(&storage, at, &mut bytes).expect("the image can be read");
        bytes
    }

    /// Waits until the host knows what is allocated.
    pub(crate) fn flush(&self) {
        self.file.sync_all().expect("a flush");
    }

    /// Copies the image as it is now, and what lies beside it, to a place where it stays.
    pub(crate) fn keep(&self) -> PathBuf {
        let kept = tempfile::Builder::new().prefix("instar-differential-").tempdir();
        let folder = kept.expect("a folder for the image").keep();
        let here = self.path.parent().expect("a folder");
        for item in std::fs::read_dir(here).expect("the folder can be read") {
            let other = item.expect("the folder can be read").path();
            if other != self.path && other.is_file() {
                let copy = folder.join(other.file_name().expect("a file's name"));
                std::fs::copy(&other, copy).expect("room for a copy");
            }
        }
        let copy = folder.join(self.path.file_name().expect("a file's name"));
        let target = File::create(&copy).expect("room for the image");
        let length = self.len();
        for (at, length) in data_runs(&self.file, length) {
            let mut bytes = vec![0; usize::try_from(length).expect("a small run")];
            self.file.read_exact_at(&mut bytes, at).expect("the image can be read");
            target.write_all_at(&bytes, at).expect("room for the image");
        }
        target.set_len(length).expect("room for the image");
        copy
    }
}
