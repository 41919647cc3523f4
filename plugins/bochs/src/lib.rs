//! The growing disk images of the Bochs emulator, which qemu calls `bochs`.
//!
//! Read are headers of version 1 and 2 as Bochs' `hdimage.h` defines them. All integers are
//! little-endian.
//!
//! ```text
//! header | catalog | (bitmap | extent)*
//! ```
//!
//! qemu-img says one range of data without an offset for any such image, and so does the map
//! here. The catalog is read all the same: an image whose catalog is cut off is an error, and an
//! extent that is not in the file is warned about.

mod catalog;
mod disk;
mod error;
#[cfg(any(test, feature = "testkit"))]
mod samples;
mod source;
#[cfg(test)]
mod tests;

use instar_core::{Confidence, ExtentSource, Fields, Image, ImageFormat, Probe, Result};

use disk::Header;
use source::BochsSource;

/// The Bochs format.
pub struct Bochs;

instar_core::register!(Bochs);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Bochs, samples::all);

impl ImageFormat for Bochs {
    fn name(&self) -> &'static str {
        "bochs"
    }

    fn about(&self) -> &'static str {
        "growing disks of Bochs, as one range without an offset, like qemu-img"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["img"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &["bochs-detected", "metadata-outside-file"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        if !probe.has_magic(0, Header::MAGIC) {
            return Confidence::No;
        }
        match Header::decode(Fields::new("header", 0, probe.head())) {
            Ok(_) => Confidence::Verified,
            // Opening will say what is wrong.
            Err(_) => Confidence::Magic,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(BochsSource::open(&image)?))
    }
}
