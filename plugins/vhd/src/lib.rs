//! The VHD format of Virtual PC and Hyper-V, which qemu calls `vpc`.
//!
//! Read are dynamic, differencing and fixed disks, after Microsoft's *Virtual Hard Disk Image
//! Format Specification*, version 1.0 ("the specification" below). What is accepted, and how
//! large the disk is, follows qemu's driver where the two differ; `docs/formats/vhd.md` lists
//! the rules. All integers of the format are big-endian.
//!
//! ```text
//! dynamic:  footer copy | dynamic header | block allocation table | (bitmap | block)* | footer
//! fixed:    the disk's bytes | footer
//! ```

mod bat;
mod bitmap;
mod disk;
mod error;
mod open;
mod parent;
#[cfg(any(test, feature = "testkit"))]
mod samples;
#[cfg(any(test, feature = "testkit"))]
mod seal;
mod size;
mod source;
#[cfg(test)]
mod tests;

use instar_core::{Confidence, ExtentSource, Fields, Image, ImageFormat, Probe, Result, SECTOR};

use disk::{DiskType, FOOTER_BYTES, Footer};
use source::VhdSource;

/// The VHD format.
pub struct Vhd;

instar_core::register!(Vhd);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Vhd, samples::all);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_seal!(Vhd, seal::seal);

impl ImageFormat for Vhd {
    fn name(&self) -> &'static str {
        "vhd"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["vpc"]
    }

    fn about(&self) -> &'static str {
        "Virtual PC and Hyper-V disks: dynamic, fixed and differencing"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["vhd", "avhd"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &[
            "external-refused",
            "metadata-outside-file",
            "qemu-crash",
            "vhd-differencing",
            "vhd-fixed-detected",
            "vhd-fixed-large",
            "vhd-spare-entries",
        ]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        let footer = |bytes: &[u8]| Footer::decode(Fields::new("footer", 0, bytes));
        let last = probe.len().next_multiple_of(SECTOR).saturating_sub(SECTOR);
        let is_behind_disk = |footer: &Footer| size::ends_at(footer, last);
        let head = probe.head();
        if Footer::is_at(head) {
            return match head.first_chunk::<FOOTER_BYTES>().map(|bytes| footer(bytes)) {
                Some(Ok(_)) => Confidence::Verified,
                _ => Confidence::Magic,
            };
        }
        match Footer::in_last_sector(probe.last_sector()).map(|bytes| footer(&bytes)) {
            None => Confidence::No,
            // One that is about a disk of another size may be the guest's, in a raw disk.
            Some(Ok(footer)) if footer.disk_type == DiskType::Fixed => {
                if is_behind_disk(&footer) {
                    Confidence::Verified
                } else {
                    Confidence::Fallback
                }
            }
            // Damaged, or a dynamic disk without its head: to be explained (or mapped) by
            // `open`, not taken for raw, but not against a format that knows the file.
            Some(_) => Confidence::Hint,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(VhdSource::open(&image)?))
    }
}
