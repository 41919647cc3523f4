//! The metadata of the manifest's images: what mutation tests and fuzzers start from.

use std::sync::Arc;

use instar::core::{ImageFormat, MemoryStorage, testkit};

use super::lab::packed;
use super::manifest::{Entry, manifest};

/// Images with more metadata than this are left out: they would only slow the others down.
const LARGEST: usize = 128 << 10;

/// An image without what is not read to map it.
pub(crate) struct Seed {
    pub(crate) id: String,
    /// Nothing is wrong in the image.
    pub(crate) safe: bool,
    pub(crate) image: MemoryStorage,
}

/// The seeds of a format.
pub(crate) fn seeds(format: &dyn ImageFormat) -> Vec<Seed> {
    let images = manifest().iter().filter(|entry| entry.format == format.name());
    let seeds = images.filter_map(|entry| {
        let image = testkit::metadata(format, Arc::new(whole(entry))).expect("memory is read");
        let size: usize = image.pieces().map(|(_, piece)| piece.len()).sum();
        (size <= LARGEST).then(|| Seed { id: entry.id.clone(), safe: entry.safe, image })
    });
    seeds.collect()
}

/// An image of the manifest in memory.
fn whole(entry: &Entry) -> MemoryStorage {
    let bytes = packed(entry);
    let mut rest = bytes.as_slice();
    let mut image = MemoryStorage::new(entry.size);
    for (offset, length) in &entry.runs {
        let length = usize::try_from(*length).expect("a small run");
        let (run, after) = rest.split_at_checked(length).expect("as many bytes as runs say");
        image = image.with_data(*offset, run);
        rest = after;
    }
    image
}
