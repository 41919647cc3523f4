//! The VDI format of VirtualBox.
//!
//! Read are dynamic, static and differencing disks with a header of version 1.1, after the
//! structures that VirtualBox documents in `VDICore.h` ("the specification" below). What is
//! accepted follows qemu's driver, but for the sizes of blocks, of which qemu knows one only;
//! `docs/formats/vdi.md` lists the rules. All integers of the format are little-endian.
//!
//! ```text
//! text | signature, version | header | block map | (extra data | block)*
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
use source::VdiSource;

/// The VDI format.
pub struct Vdi;

instar_core::register!(Vdi);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Vdi, samples::all);

impl ImageFormat for Vdi {
    fn name(&self) -> &'static str {
        "vdi"
    }

    fn about(&self) -> &'static str {
        "VirtualBox disks: dynamic, static and differencing"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["vdi"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &["metadata-outside-file", "two-formats", "vdi-blocks"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        if !Header::is_at(probe.head()) {
            return Confidence::No;
        }
        // There is no checksum; the header's numbers agree with each other, or do not.
        match Header::decode(Fields::new("header", 0, probe.head())) {
            Ok(_) => Confidence::Verified,
            Err(_) => Confidence::Magic,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(VdiSource::open(&image)?))
    }
}
