//! The VHDX format of Hyper-V.
//!
//! Read as [MS-VHDX] describes it: fixed, dynamic and differencing disks, with logical sectors
//! of 512 or 4096 bytes. The map comes from the block allocation table (BAT) and, for partially
//! present blocks, from the sector bitmaps. A log that was not written back is replayed in
//! memory first, as §2.3.3 demands of whoever reads; the file is never written to.
//!
//! | module | what it knows |
//! |---|---|
//! | `disk` | structures as they are stored |
//! | `log`, `replay` | updates that are still in the log, and the file with them done |
//! | `regions`, `metadata`, `locator` | where the parts are, what disk this is, who its parent is |
//! | `layout` | geometry of BAT, chunks and blocks |
//! | `source`, `bitmap` | the BAT and the sector bitmaps as extents |

mod bitmap;
mod disk;
mod error;
mod guid;
mod layout;
mod locator;
mod log;
mod metadata;
mod regions;
mod replay;
#[cfg(any(test, feature = "testkit"))]
mod samples;
#[cfg(any(test, feature = "testkit"))]
mod seal;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use instar_core::{
    Confidence, ExtentSource, Image, ImageFile, ImageFormat, Probe, Result, Storage, read_padded,
};

pub use guid::Guid;
pub use locator::ParentLocator;
pub use source::VhdxSource;

use disk::{FILE_SIGNATURE, HEADER_OFFSETS, HEADER_SIZE, Header, LOG_VERSION, VERSION};
use error::Error;
use layout::Layout;
use metadata::Metadata;
use regions::Regions;
use replay::Replayed;

/// The VHDX format.
pub struct Vhdx;

instar_core::register!(Vhdx);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_samples!(Vhdx, samples::all);
#[cfg(any(test, feature = "testkit"))]
instar_core::register_seal!(Vhdx, seal::seal);

impl ImageFormat for Vhdx {
    fn name(&self) -> &'static str {
        "vhdx"
    }

    fn about(&self) -> &'static str {
        "Hyper-V: dynamic, fixed and differencing disks, pending logs"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["vhdx", "avhdx"]
    }

    fn divergences(&self) -> &'static [&'static str] {
        &["broken-parts-skipped", "metadata-outside-file", "vhdx-allocation"]
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        let head = probe.head();
        if !head.starts_with(FILE_SIGNATURE) {
            return Confidence::No;
        }
        let [first, _] = HEADER_OFFSETS;
        let header = usize::try_from(first)
            .ok()
            .and_then(|at| head.get(at..at.checked_add(HEADER_SIZE)?))
            .and_then(|bytes| Header::decode(first, bytes).ok()?);
        match header {
            Some(_) => Confidence::Verified,
            None => Confidence::Magic,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        Ok(Box::new(Self::open_source(&image)?))
    }
}

impl Vhdx {
    /// Opens a file as [`ImageFormat::open`] does, for who wants to know more than its map.
    ///
    /// # Errors
    /// What is wrong with the file, or more than is supported.
    pub fn open_source(image: &Image<'_>) -> Result<VhdxSource> {
        let Image { storage: file, context, .. } = image;
        let mut signature = [0; FILE_SIGNATURE.len()];
        read(file, 0, &mut signature)?;
        if signature != *FILE_SIGNATURE {
            return Err(Error::NoSignature.into());
        }
        let (header_at, header) = current_header(file)?;
        if header.version != VERSION {
            let at = header_at.saturating_add(66);
            return Err(Error::Version { at, version: header.version }.into());
        }
        regions::check_log(&header, header_at, &context.limits)?;

        let mut storage = Arc::clone(file);
        if header.has_log() {
            if header.log_version != LOG_VERSION {
                let at = header_at.saturating_add(64);
                return Err(Error::LogVersion { at, version: header.log_version }.into());
            }
            let pending = log::pending(file, &header, header_at, &context.limits)?;
            let count = pending.updates.len();
            context.notices.warn(format!(
                "the log was not written back; mapped as the file is with its updates ({count})"
            ))?;
            storage = Arc::new(Replayed::new(Arc::clone(file), pending, context)?);
        }

        let regions = Regions::read(&storage, &header, context)?;
        let metadata = Metadata::read(&storage, &regions.metadata, context)?;
        let layout = Layout::new(&metadata, regions, storage.len())?;
        let file = ImageFile { storage: Some(Arc::clone(&storage)), ..image.file() };
        VhdxSource::new(layout, metadata, &header, file, &storage, context)
    }
}

/// The header that counts, and its file offset (§2.2.2): the one that is valid, or, of two, the
/// one that was written later.
fn current_header(file: &Arc<dyn Storage>) -> Result<(u64, Header)> {
    let decode = |at| -> Result<_> {
        let mut bytes = [0; HEADER_SIZE];
        read(file, at, &mut bytes)?;
        Ok(Header::decode(at, &bytes)?.map(|header| (at, header)))
    };
    let [first, second] = HEADER_OFFSETS;
    match (decode(first)?, decode(second)?) {
        (None, None) => {
            let (file, needed) = (file.len(), second.saturating_add(HEADER_SIZE as u64));
            if file < needed {
                return Err(Error::HeadersCut { at: second, file, needed }.into());
            }
            Err(Error::NoValidHeader.into())
        }
        (Some(header), None) | (None, Some(header)) => Ok(header),
        (Some(one), Some(two)) => match one.1.sequence_number.cmp(&two.1.sequence_number) {
            std::cmp::Ordering::Greater => Ok(one),
            std::cmp::Ordering::Less => Ok(two),
            // Disk2vhd writes the same header twice.
            std::cmp::Ordering::Equal if one.1 == two.1 => Ok(one),
            std::cmp::Ordering::Equal => {
                let sequence_number = one.1.sequence_number;
                Err(Error::HeadersDiffer { sequence_number }.into())
            }
        },
    }
}

/// Reads the fixed structures at the head of the file. What is behind its end is not valid in
/// any of them, so zeros in its place do no harm.
fn read(file: &Arc<dyn Storage>, at: u64, buffer: &mut [u8]) -> Result<()> {
    read_padded(file.as_ref(), at, buffer)
        .map_err(|error| instar_core::Error::io("cannot read the header section", error).at(at))
}
