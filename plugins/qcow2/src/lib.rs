//! The qcow2 format, versions 2 and 3.
//!
//! Read are the header with its extensions, the active L1 table and the L2 tables it names,
//! with standard or extended entries; internal snapshots and bitmaps only as far as needed to
//! know that they are sound. The specification is `docs/interop/qcow2` of the QEMU project;
//! "spec" in this crate means that text.

mod bitmaps;
mod disk;
mod entry;
mod error;
mod extensions;
mod refcounts;
#[cfg(any(test, feature = "testkit"))]
mod samples;
mod snapshots;
mod source;
mod structures;
#[cfg(test)]
mod tests;

use instar_core::{Confidence, ExtentSource, Fields, Image, ImageFormat, Probe, Result};

use source::Qcow2Source;

/// The qcow2 format.
pub struct Qcow2;

instar_core::register!(Qcow2);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Qcow2, samples::all);

impl ImageFormat for Qcow2 {
    fn name(&self) -> &'static str {
        "qcow2"
    }

    fn about(&self) -> &'static str {
        "versions 2 and 3, subclusters, compression, encryption, external data files"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["qcow2"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &[
            "data-file-folder",
            "external-refused",
            "magic-cut",
            "metadata-outside-file",
            "qemu-crash",
        ]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        let header = Fields::new("header", 0, probe.head());
        let Ok(disk::MAGIC) = header.array(0) else {
            return Confidence::No;
        };
        let Ok(version) = header.be32(disk::VERSION_AT) else {
            // Opening will say that the header is cut short.
            return Confidence::Magic;
        };
        let bits = header.be32(disk::CLUSTER_BITS_AT);
        let has_sound_bits = bits.is_ok_and(|bits| disk::CLUSTER_BITS.contains(&bits));
        match disk::least_header(version) {
            // The same magic with version 1 is qcow, another format; with 0 it is nothing, and raw
            // to qemu too.
            _ if version < 2 => Confidence::No,
            Some(length) if has_sound_bits && header.slice(0, length).is_ok() => {
                Confidence::Verified
            }
            _ => Confidence::Magic,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(Qcow2Source::open(&image)?))
    }
}
