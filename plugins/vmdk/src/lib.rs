//! The VMDK format: sparse extents, and descriptors of disks that are made of several files.
//!
//! Read after VMware's technical note *Virtual Disk Format 5.0*: hosted sparse extents (`KDMV`:
//! monolithicSparse, streamOptimized and the parts of split disks), ESX sparse extents (`COWD`)
//! and text descriptors. seSparse extents are not in that note and read as other software reads
//! them. `docs/formats/vmdk.md` has the table of entries and what they become.
//!
//! A descriptor's extents are other files: whether they are opened is for the core's opener to
//! decide.

mod descriptor;
mod disk;
mod error;
mod grains;
mod open;
mod probe;
#[cfg(any(test, feature = "testkit"))]
mod samples;
mod sesparse;
mod source;
mod sparse;
#[cfg(test)]
mod tests;

use instar_core::{Confidence, ExtentSource, Image, ImageFormat, Probe, Result};

/// The VMDK format.
pub struct Vmdk;

instar_core::register!(Vmdk);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Vmdk, samples::all);

impl ImageFormat for Vmdk {
    fn name(&self) -> &'static str {
        "vmdk"
    }

    fn about(&self) -> &'static str {
        "VMware disks: sparse, stream-optimized, ESX sparse, seSparse; split and flat by descriptor"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["vmdk"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &[
            "broken-parts-skipped",
            "external-refused",
            "metadata-outside-file",
            "qemu-crash",
            "vmdk-blank-lines",
            "vmdk-split",
        ]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        probe::probe(probe)
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(open::open(&image)?))
    }
}
