//! The qcow format, version 1: the predecessor of qcow2.
//!
//! Read are the header, the L1 table and the L2 tables that it names. The format is specified by
//! its writers: `block/qcow` of the QEMU project, and Mark McLoughlin's *The QCOW Image Format*,
//! version 1, which describes it; "spec" in this crate means these two.
//!
//! ```text
//! header | backing file name | L1 table | (L2 table | cluster)*
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
use source::QcowSource;

/// The qcow format, version 1.
pub struct Qcow;

instar_core::register!(Qcow);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Qcow, samples::all);

impl ImageFormat for Qcow {
    fn name(&self) -> &'static str {
        "qcow"
    }

    fn about(&self) -> &'static str {
        "version 1: all cluster sizes, compression, encryption, backing files"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["qcow"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &["external-refused", "metadata-outside-file", "qcow-unaligned"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        let header = Fields::new("header", 0, probe.head());
        // The same magic with a higher version is qcow2, another format.
        match (header.array(0), header.be32(disk::VERSION_AT)) {
            (Ok(disk::MAGIC), Ok(disk::VERSION)) => match Header::parse(&header) {
                Ok(_) => Confidence::Verified,
                // Opening will say what is wrong.
                Err(_) => Confidence::Magic,
            },
            _ => Confidence::No,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(QcowSource::open(&image)?))
    }
}
