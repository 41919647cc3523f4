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

/// The seeds of a format: its registered samples, and the manifest's images.
pub(crate) fn seeds(format: &dyn ImageFormat) -> Vec<Seed> {
    let reduced = |id: String, safe: bool, image: MemoryStorage| {
        let image = testkit::metadata(format, Arc::new(image)).expect("memory is read");
        let size: usize = image.pieces().map(|(_, piece)| piece.len()).sum();
        (size <= LARGEST).then_some(Seed { id, safe, image })
    };
    let samples = testkit::registered_samples(format.name()).into_iter().map(|sample| {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = sample.name().chars().map(plain).collect();
        let id = format!("{}-{name}", format.name());
        (id, true, sample.image().clone())
    });
    let images = manifest().iter().filter(|entry| entry.format == format.name());
    let images = images.map(|entry| (entry.id.clone(), entry.safe, whole(entry)));
    samples.chain(images).filter_map(|(id, safe, image)| reduced(id, safe, image)).collect()
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
