//! The raw format: the file's bytes are the disk's bytes.
//!
//! There is no metadata, so the map shows the host's: data and holes of the file, as
//! `SEEK_DATA` and `SEEK_HOLE` tell. The disk's size is the file's, rounded up to a sector.

mod foreign;
mod resemblance;
#[cfg(any(test, feature = "testkit"))]
mod samples;
mod source;

use instar_core::{Confidence, ExtentSource, Image, ImageFormat, Probe, Result};

use source::RawSource;

/// The raw format.
pub struct Raw;

instar_core::register!(Raw);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Raw, samples::all);

impl ImageFormat for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    // What qemu calls a file that is not looked into.
    fn aliases(&self) -> &'static [&'static str] {
        &["file"]
    }

    fn about(&self) -> &'static str {
        "any file or block device as it is; holes by SEEK_HOLE"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["raw", "img"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        if foreign::is_foreign(probe) { Confidence::No } else { Confidence::Fallback }
    }

    fn resembles(&self, probe: &Probe<'_>) -> Option<&'static str> {
        resemblance::resembles(probe)
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(RawSource::new(&image)))
    }
}
