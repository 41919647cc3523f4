//! LUKS, the disk encryption of Linux: volumes of version 1 and 2, mapped without the key.
//!
//! Read is what says where the encrypted data is: the header of *LUKS1 On-Disk Format
//! Specification* 1.2.3, and binary header and segments of *LUKS2 On-Disk Format Specification*
//! 1.1.4. Keys, digests and tokens are not looked at. Integers are big-endian.
//!
//! ```text
//! version 1:  header | key material | payload
//! version 2:  (binary header | JSON area) twice | key slots area | segments
//! ```
//!
//! What is encrypted is [`Opaque`](instar_core::Status::Opaque): the bytes in the file are not
//! the disk's, so an offset would not help.

mod disk;
mod error;
mod metadata;
#[cfg(any(test, feature = "testkit"))]
mod samples;
mod source;
#[cfg(test)]
mod tests;
mod version1;
mod version2;

use instar_core::{Confidence, ExtentSource, Image, ImageFormat, Probe, Result};

use disk::Magic;
use source::LuksSource;

/// The LUKS format.
pub struct Luks;

instar_core::register!(Luks);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Luks, samples::all);

impl ImageFormat for Luks {
    fn name(&self) -> &'static str {
        "luks"
    }

    fn about(&self) -> &'static str {
        "encrypted volumes of version 1 and 2, mapped without the key"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["luks", "img"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &["luks-version-2", "luks-without-key"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        // Never more: nothing in a volume says where it ends, so a container that has it as its
        // disk is as good an answer, and a better one if a checksum of its own agrees. The second
        // header of version 2 is none: it outlives what was put in the place of the volume.
        match probe.has_magic(0, Magic::BYTES) {
            true => Confidence::Magic,
            false => Confidence::No,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(LuksSource::open(&image)?))
    }
}
