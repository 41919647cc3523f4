//! Checksums made right after an image was altered, so that what lies behind them is reached.

use crate::{ImageFormat, MemoryStorage};

/// What a plugin submits with [`register_seal!`](crate::register_seal!).
pub struct Seal {
    /// The format of which the checksums are.
    pub format: &'static dyn ImageFormat,
    /// Makes the checksums of an image right, wherever it can find what they are of.
    pub seal: fn(&mut MemoryStorage),
}

inventory::collect!(Seal);

/// Registers how the checksums of a format are made right, so that damage behind them is reached:
/// `register_seal!(Vhd, seal::seal);` in the plugin's `lib.rs`, with the format and a function
/// `fn(&mut MemoryStorage)`.
///
/// Only with the feature `testkit`, as [`register_samples!`](crate::register_samples!). A format
/// without checksums has no need of it.
#[macro_export]
macro_rules! register_seal {
    ($format:expr, $seal:expr) => {
        $crate::__inventory::submit! {
            $crate::testkit::Seal { format: &$format, seal: $seal }
        }
    };
}

/// Makes the checksums of an image right, if any are known for the format of this name.
pub fn seal(format: &str, image: &mut MemoryStorage) {
    for known in inventory::iter::<Seal>.into_iter().filter(|seal| seal.format.name() == format) {
        (known.seal)(image);
    }
}
