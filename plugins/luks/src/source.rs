//! The disk as the pieces that the header speaks of.

use instar_core::{
    Batch, Error as CoreError, ExtentSource, Fields, Flow, Image, ImageFile, Result, SECTOR,
    Status, read_padded,
};

use crate::disk::Magic;
use crate::error::Error;
use crate::version1::PartitionHeader;
use crate::{metadata, version2};

/// An open LUKS volume as a map of its own layer.
pub(crate) struct LuksSource {
    files: [ImageFile; 1],
    /// In order. One for version 1; one for each segment of version 2, so a bounded number.
    pieces: Vec<Piece>,
}

/// A part of the disk: from the end of the one before it, or 0, to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it ends on the disk, in bytes.
    pub(crate) end: u64,
    pub(crate) status: Status,
}

impl LuksSource {
    /// Reads and checks the header.
    pub(crate) fn open(image: &Image<'_>) -> Result<Self> {
        let mut head = [0; PartitionHeader::LENGTH];
        read_padded(image.storage.as_ref(), 0, &mut head)
            .map_err(|error| CoreError::io("cannot read the header", error).at(0))?;
        let file = image.storage.len();
        let pieces = match Magic::of(&head) {
            Some(Magic::Version1) => {
                let header = Fields::decode("header", 0, &head, file, PartitionHeader::decode)?;
                vec![payload(&header, image)?]
            }
            // Without a magic the first header may be lost, and its copy still there.
            magic @ (Some(Magic::Version2) | None) => {
                let copy = version2::read(magic.is_some(), image)?;
                metadata::pieces(&copy, image)?
            }
            Some(Magic::Other(version)) => {
                Fields::stored("header", 0, &head, file).require(Magic::LENGTH)?;
                return Err(Error::Version { version }.into());
            }
        };
        Ok(Self { files: [image.file()], pieces })
    }
}

/// The payload of version 1: all that is behind its offset.
fn payload(header: &PartitionHeader, image: &Image<'_>) -> Result<Piece> {
    let file = image.storage.len();
    let offset = header.payload;
    match file.next_multiple_of(SECTOR).checked_sub(offset) {
        Some(end) => Ok(Piece { end, status: Status::Opaque }),
        None => Err(Error::PayloadOutside { offset, file }.into()),
    }
}

impl ExtentSource for LuksSource {
    fn virtual_size(&self) -> u64 {
        self.pieces.last().map_or(0, |piece| piece.end)
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let mut start = 0;
        for Piece { end, status } in &self.pieces {
            let at = out.cursor();
            if at < *end {
                let status = status.advanced(at.saturating_sub(start));
                if out.push(end.saturating_sub(at), status) == Flow::Stop {
                    return Ok(());
                }
            }
            start = *end;
        }
        Ok(())
    }
}
