//! UDIF, the disk images of macOS, which qemu calls `dmg`.
//!
//! Apple has not published the format; read is what its images have and several independent
//! descriptions of it agree on, with the names of Apple's structures. All integers are big-endian.
//!
//! ```text
//! data fork: the chunks | resource fork or property list: block tables | trailer, 512 bytes
//! ```
//!
//! A block table lists chunks of the disk, one behind the other: compressed, stored as they are, or
//! zeros. qemu-img says one range of data without an offset for any image; here every chunk is told
//! as what it is.

mod blob;
mod disk;
mod error;
mod outline;
mod resources;
#[cfg(any(test, feature = "testkit"))]
mod samples;
mod source;
mod tables;
#[cfg(test)]
mod tests;
mod trailer;
mod xml;

use instar_core::{Confidence, ExtentSource, Image, ImageFormat, Probe, Result};

use source::DmgSource;
use trailer::{Found, Head, Trailer};

/// The UDIF format.
pub struct Dmg;

instar_core::register!(Dmg);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Dmg, samples::all);

impl ImageFormat for Dmg {
    fn name(&self) -> &'static str {
        "dmg"
    }

    fn about(&self) -> &'static str {
        "UDIF disk images of macOS: compressed, plain and empty chunks"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["dmg"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &["dmg-chunks", "dmg-detected"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        let found = Trailer::find(probe.tail(), probe.len());
        match found.filter(Found::is_usual).map(Found::decode) {
            // One that speaks of another file may be the guest's, in a raw disk.
            Some(Ok(trailer)) if trailer.is_in_place() => Confidence::Verified,
            Some(Ok(_)) => Confidence::Fallback,
            // To be mapped or explained by `open`, but not against a format that knows the file.
            Some(_) => Confidence::Hint,
            // Opening will say what it is instead.
            None if Head::of(probe.head()).is_some() => Confidence::Magic,
            None if Trailer::find_cut(probe.tail(), probe.len()).is_some() => Confidence::Hint,
            None => Confidence::No,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(DmgSource::open(&image)?))
    }
}
