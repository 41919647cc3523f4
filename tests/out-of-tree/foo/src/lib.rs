//! The foo format: made up, to show how a format is added.
//!
//! A foo image is a header, a table with one entry for each block of the disk, and the blocks.
//! All integers are little-endian, all offsets and lengths are in bytes.
//!
//! ```text
//! header   0   8  magic "FOODISK1"
//!          8   4  checksum: makes the sum of the header's 128 32-bit words 0 modulo 2^32
//!         12   4  block_bits: a block has 2^block_bits bytes, 9 to 24
//!         16   8  disk_size: a multiple of 512
//!         24   8  table_offset
//!         32   4  backing_length: bytes in the backing file's name, 0 to 255; 0 for none
//!         36 255  backing_name
//!        291 221  zeros, up to byte 512
//! entry  bits 0 to 1   kind: 0 absent, 1 zeros, 2 data, 3 compressed
//!        bits 2 to 8   0
//!        bits 9 to 63  of data: file offset of the block, a multiple of 512
//! ```
//!
//! "spec" in this crate means this text.

mod disk;
mod error;
#[cfg(any(test, feature = "testkit"))]
mod samples;
mod source;
#[cfg(test)]
mod tests;

use instar_core::{Confidence, ExtentSource, Fields, Image, ImageFormat, Probe, Result};

use disk::{HEADER, Header};
use source::FooSource;

/// The foo format.
pub struct Foo;

instar_core::register!(Foo);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Foo, samples::all);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_seal!(Foo, samples::reseal);

impl ImageFormat for Foo {
    fn name(&self) -> &'static str {
        "foo"
    }

    fn about(&self) -> &'static str {
        "made up: data, zeros, compressed blocks, a backing file"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["foo"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        if !Header::has_magic(probe.head()) {
            return Confidence::No;
        }
        let header = probe.head().first_chunk::<HEADER>();
        match header.map(|header| Header::decode(Fields::new("header", 0, header))) {
            Some(Ok(_)) => Confidence::Verified,
            // Broken, or the file ends in it: opening will say what is wrong.
            _ => Confidence::Magic,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(FooSource::open(&image)?))
    }
}
