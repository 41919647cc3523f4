//! A folder in which the packed images become files again, holes included.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::manifest::{Entry, testdata, with_companions};

/// A folder for an image and those beside it, or why this host cannot hold it.
type Place = Result<PathBuf, String>;

/// Unpacks each image once, into a folder that holds only it and its companions.
pub(crate) struct Lab {
    root: TempDir,
    places: Mutex<HashMap<String, Arc<OnceLock<Place>>>>,
    fit: AtomicUsize,
    unfit: AtomicUsize,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().expect("a temporary folder"),
            places: Mutex::default(),
            fit: AtomicUsize::new(0),
            unfit: AtomicUsize::new(0),
        }
    }

    /// The folder in which the image is under its name.
    ///
    /// # Errors
    /// Why the file system here cannot hold it with the right holes; printed as well.
    pub(crate) fn unpack(&self, entry: &Entry) -> Place {
        let cell = {
            let mut places = self.places.lock().expect("no test panics with the lock");
            Arc::clone(places.entry(entry.id.clone()).or_default())
        };
        cell.get_or_init(|| {
            let folder = self.root.path().join(&entry.id);
            fs::create_dir(&folder).expect("a folder for the image");
            let place = with_companions(&entry.id)
                .into_iter()
                .try_for_each(|one| unpack(one, &folder.join(&one.name)))
                .map(|()| folder);
            match &place {
                Ok(_) => self.fit.fetch_add(1, Ordering::Relaxed),
                Err(reason) => {
                    eprintln!("skipped: {}: {reason}", entry.id);
                    self.unfit.fetch_add(1, Ordering::Relaxed)
                }
            };
            place
        })
        .clone()
    }

    /// Fails if images were asked for and this host could hold none of them.
    pub(crate) fn check(&self) {
        let (fit, unfit) = (self.fit.load(Ordering::Relaxed), self.unfit.load(Ordering::Relaxed));
        assert!(
            fit > 0 || unfit == 0,
            "none of {unfit} images could be unpacked with its holes: set TMPDIR to a folder \
             on ext4, xfs or tmpfs"
        );
    }
}

/// The bytes of the image's data runs, one behind the other.
pub(crate) fn packed(entry: &Entry) -> Vec<u8> {
    let path = testdata(&format!("images/{}.gz", entry.id));
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    bytes
}

fn unpack(entry: &Entry, path: &Path) -> Result<(), String> {
    let bytes = packed(entry);
    let mut rest = bytes.as_slice();
    let mut file = File::create(path).expect("a file for the image");
    for (offset, length) in &entry.runs {
        let length = usize::try_from(*length).expect("a small run");
        let (run, after) = rest
            .split_at_checked(length)
            .unwrap_or_else(|| panic!("{}: fewer bytes than the runs say", entry.id));
        file.seek(SeekFrom::Start(*offset)).expect("a seek");
        file.write_all(run).expect("room for the image");
        rest = after;
    }
    assert!(rest.is_empty(), "{}: more bytes than the runs say", entry.id);
    file.set_len(entry.size)
        .map_err(|e| format!("cannot be {} bytes long here: {e}", entry.size))?;
    file.sync_all().expect("a flush");
    drop(file);

    let file = File::open(path).expect("the image");
    let found = data_runs(&file, entry.size);
    if found != entry.runs {
        return Err(format!("has data at {found:?} here, not at {:?}", entry.runs));
    }
    let blocks = file.metadata().expect("the image's state").blocks();
    match entry.needs_blocks {
        Some(needed) if needed != blocks => {
            Err(format!("takes {blocks} blocks here, not {needed}"))
        }
        _ => Ok(()),
    }
}

/// Where the file has data, as (offset, length).
pub(crate) fn data_runs(file: &File, size: u64) -> Vec<(u64, u64)> {
    use rustix::fs::{SeekFrom, seek};
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(start) = seek(file, SeekFrom::Data(at)) else {
            break;
        };
        let end = seek(file, SeekFrom::Hole(start)).expect("data ends somewhere");
        runs.push((start, end - start));
        at = end;
    }
    runs
}
