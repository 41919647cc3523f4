//! The disk as one extent.

use instar_core::{
    Batch, Error as CoreError, ExtentSource, Fields, Flow, Image, ImageFile, Result, Status,
    read_padded,
};

use crate::disk::Header;
use crate::offsets;

/// An open cloop image as a map of its own layer.
pub(crate) struct CloopSource {
    size: u64,
    files: [ImageFile; 1],
}

impl CloopSource {
    /// Reads and checks header and offsets.
    pub(crate) fn open(image: &Image<'_>) -> Result<Self> {
        let mut head = [0; Header::LENGTH];
        read_padded(image.storage.as_ref(), 0, &mut head)
            .map_err(|error| CoreError::io("cannot read the header", error).at(0))?;
        let file = image.storage.len();
        let header = Fields::decode("header", 0, &head, file, Header::decode)?;
        offsets::check(header, image)?;
        Ok(Self { size: header.size(), files: [image.file()] })
    }
}

impl ExtentSource for CloopSource {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        // All of it is compressed; but qemu's driver has no function that tells, so its map
        // does not.
        let _: Flow = out.push(self.size.saturating_sub(out.cursor()), Status::Opaque);
        Ok(())
    }
}
