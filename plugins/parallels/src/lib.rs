//! The expanding disk image of Parallels.
//!
//! Read are both kinds, after *Parallels Expandable Image File Format* ("the specification" below),
//! which is among qemu's documents (`docs/interop/parallels`). What is accepted, and which entries
//! count, follows qemu's driver; `docs/formats/parallels.md` lists the rules. All integers of the
//! format are little-endian.
//!
//! ```text
//! header | block allocation table | cluster* , one of which may be a format extension
//! ```

mod disk;
mod error;
mod extension;
#[cfg(any(test, feature = "testkit"))]
mod samples;
#[cfg(any(test, feature = "testkit"))]
mod seal;
mod source;
#[cfg(test)]
mod tests;

use instar_core::{Confidence, ExtentSource, Fields, Image, ImageFormat, Probe, Result};

use disk::Header;
use source::ParallelsSource;

/// The Parallels format.
pub struct Parallels;

instar_core::register!(Parallels);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Parallels, samples::all);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_seal!(Parallels, seal::seal);

impl ImageFormat for Parallels {
    fn name(&self) -> &'static str {
        "parallels"
    }

    fn about(&self) -> &'static str {
        "Parallels disks: expanding, both kinds"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["hds", "hdd"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &[
            "magic-cut",
            "metadata-outside-file",
            "parallels-entry-outside",
            "parallels-odd-clusters",
            "qemu-crash",
        ]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        // Opening will say that the header is cut short.
        if Header::is_cut_at(probe.head()) {
            return Confidence::Magic;
        }
        if !Header::STARTS.iter().any(|start| probe.has_magic(0, start)) {
            return Confidence::No;
        }
        match Header::decode(Fields::new("header", 0, probe.head())) {
            Ok(header) if header.covers_disk() => Confidence::Verified,
            _ => Confidence::Magic,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(ParallelsSource::open(&image)?))
    }
}
