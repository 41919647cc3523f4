//! Sound images that a format brings along, for its own tests and those of the program it is in.

use crate::{ImageFormat, MemoryStorage};

/// A sound image of a format, built in code.
#[derive(Debug, Clone)]
pub struct Sample {
    name: &'static str,
    image: MemoryStorage,
    extents: usize,
    detected: bool,
}

impl Sample {
    /// An image with a name that says what is special about it, and into how many extents
    /// (neighbours of equal status merged) the format divides its disk.
    pub fn new(name: &'static str, image: impl Into<MemoryStorage>, extents: usize) -> Self {
        Self { name, image: image.into(), extents, detected: true }
    }

    /// Says that the format is not found by looking at the file: it has to be named.
    #[must_use]
    pub fn not_detected(mut self) -> Self {
        self.detected = false;
        self
    }

    /// Whether the format is found by looking at the file.
    pub fn is_detected(&self) -> bool {
        self.detected
    }

    /// What is special about it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its bytes and holes.
    pub fn image(&self) -> &MemoryStorage {
        &self.image
    }

    /// The number of extents of its disk.
    pub fn extents(&self) -> usize {
        self.extents
    }
}

/// What a plugin submits with [`register_samples!`](crate::register_samples!).
pub struct SampleRegistration {
    /// The format that the samples are in.
    pub format: &'static dyn ImageFormat,
    /// Name of the package that registers them.
    pub package: &'static str,
    /// Builds them.
    pub samples: fn() -> Vec<Sample>,
}

inventory::collect!(SampleRegistration);

/// Registers the samples of a format, so that the tests of any program that the format is linked
/// into find them: `register_samples!(Qcow2, samples::all);` in the plugin's `lib.rs`, with the
/// format and a function that returns a `Vec` of [`Sample`](crate::testkit::Sample)s.
///
/// Only with the feature `testkit`, which no program has outside of its tests. A plugin passes
/// it on: its own feature `testkit` is `["instar-core/testkit"]`, and samples are compiled
/// under `#[cfg(any(test, feature = "testkit"))]`.
#[macro_export]
macro_rules! register_samples {
    ($format:expr, $samples:expr) => {
        $crate::__inventory::submit! {
            $crate::testkit::SampleRegistration {
                format: &$format,
                package: env!("CARGO_PKG_NAME"),
                samples: $samples,
            }
        }
    };
}

/// The registered samples of the format with this name, in the order in which they were given.
pub fn registered_samples(format: &str) -> Vec<Sample> {
    let mut found: Vec<&SampleRegistration> = inventory::iter::<SampleRegistration>
        .into_iter()
        .filter(|registration| registration.format.name() == format)
        .collect();
    // Link order means nothing.
    found.sort_by_key(|registration| registration.package);
    found.iter().flat_map(|registration| (registration.samples)()).collect()
}
