//! The QED format, QEMU Enhanced Disk.
//!
//! Read are the header, the L1 table and the L2 tables that it names. The specification is
//! `docs/interop/qed_spec` of the QEMU project; "spec" in this crate means that text.
//!
//! ```text
//! header, backing file name | L1 table | (L2 table | cluster)*
//! ```

mod disk;
mod error;
#[cfg(any(test, feature = "testkit"))]
mod samples;
mod source;
#[cfg(test)]
mod tests;

use instar_core::{Confidence, ExtentSource, Fields, Image, ImageFormat, Probe, Result};

use disk::Header;
use source::QedSource;

/// The QED format.
pub struct Qed;

instar_core::register!(Qed);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Qed, samples::all);

impl ImageFormat for Qed {
    fn name(&self) -> &'static str {
        "qed"
    }

    fn about(&self) -> &'static str {
        "all cluster and table sizes, zero clusters, backing files"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["qed"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &["external-refused", "qemu-crash"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        let header = Fields::new("header", 0, probe.head());
        if !probe.has_magic(0, &disk::MAGIC) {
            return Confidence::No;
        }
        match Header::parse(&header) {
            Ok(_) => Confidence::Verified,
            // Opening will say what is wrong.
            Err(_) => Confidence::Magic,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(QedSource::open(&image)?))
    }
}
