//! The compressed loop images of the `cloop` driver for Linux, known from Knoppix.
//!
//! Read is the format "V2.0", as the driver's `cloop.h` describes it. All integers are
//! big-endian.
//!
//! ```text
//! preamble, a shell script | block size, number of blocks | offsets | compressed blocks
//! ```
//!
//! qemu-img says one range of data without an offset for any such image, and not that it is
//! compressed; so does the map here. The offsets are read and checked all the same.

mod disk;
mod error;
mod offsets;
#[cfg(any(test, feature = "testkit"))]
mod samples;
mod source;
#[cfg(test)]
mod tests;

use instar_core::{Confidence, ExtentSource, Fields, Image, ImageFormat, Probe, Result};

use disk::{Header, Preamble};
use source::CloopSource;

/// The cloop format.
pub struct Cloop;

instar_core::register!(Cloop);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Cloop, samples::all);

impl ImageFormat for Cloop {
    fn name(&self) -> &'static str {
        "cloop"
    }

    fn about(&self) -> &'static str {
        "compressed loop images, V2.0, as one range without an offset, like qemu-img"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["cloop", "cloop_compressed"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &["cloop-detected", "cloop-over-2-tib", "metadata-outside-file"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        if !Preamble::is_script(probe.head()) {
            return Confidence::No;
        }
        match Header::decode(Fields::new("header", 0, probe.head())) {
            Ok(_) => Confidence::Verified,
            // Opening will say what is wrong.
            Err(_) => Confidence::Magic,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(CloopSource::open(&image)?))
    }
}
