//! The walk over the chunks of a disk.

use std::sync::Arc;

use instar_core::{
    Batch, Context, Error as CoreError, ExtentSource, Flow, Image, ImageFile, Place, Result,
    SECTOR, Status, read_padded,
};

use crate::error::Error;
use crate::resources;
use crate::tables::{Tables, WindowReader};
use crate::trailer::{Head, Trailer};

/// An open UDIF image as a map of its own layer.
pub(crate) struct DmgSource {
    size: u64,
    files: [ImageFile; 1],
    content: Content,
    context: Arc<Context>,
}

/// Where the disk's bytes are.
enum Content {
    /// In chunks.
    Chunks(Box<WindowReader>),
    /// All of them, from this file offset on: there are no block tables.
    Plain(u64),
}

impl DmgSource {
    /// Reads and checks trailer and block tables.
    pub(crate) fn open(image: &Image<'_>) -> Result<Self> {
        let trailer = read_trailer(image)?;
        let Trailer { data_fork, resource_fork, property_list, size, reached, at } = trailer;
        if !trailer.is_in_place() {
            image.context.notices.warn(format!(
                "what the trailer at {at:#x} speaks of ends at {reached:#x}: something has been \
                 added to the file or is missing"
            ))?;
        }
        let content = if resource_fork.length == 0 && property_list.length == 0 {
            let length = data_fork.length;
            if length < size || !trailer.is_in_place() {
                return Err(Error::NoTables { length, size }.into());
            }
            if length > size {
                image.context.notices.warn(format!(
                    "the data fork of {length} bytes is longer than the disk of {size} bytes"
                ))?;
            }
            Content::Plain(data_fork.offset)
        } else {
            let mut tables = Tables::new(image, data_fork.offset);
            if resource_fork.length > 0 {
                resources::of_fork(resource_fork, image, &mut tables)?;
            }
            // The fork may hold nothing but resources of other kinds. If both have tables, those
            // of the fork count, as in qemu.
            if tables.is_empty() && property_list.length > 0 {
                resources::of_list(property_list, &mut tables)?;
            }
            Content::Chunks(Box::new(tables.finish()?))
        };
        let context = Arc::clone(image.context);
        Ok(Self { size, files: [image.file()], content, context })
    }
}

fn read_trailer(image: &Image<'_>) -> Result<Trailer> {
    let storage = &image.storage;
    let end = storage.len().next_multiple_of(SECTOR);
    // Two sectors: what a trailer may be in.
    let start = end.saturating_sub(2 * SECTOR);
    let mut tail = [0; 2 * Trailer::LENGTH];
    let length = usize::try_from(end - start).unwrap_or(0);
    let tail = tail.get_mut(..length).unwrap_or_default();
    read_padded(storage.as_ref(), start, tail)
        .map_err(|error| CoreError::io("cannot read the trailer", error).at(start))?;
    // What the file does not have was filled up.
    let length = usize::try_from(storage.len().saturating_sub(start)).unwrap_or(0);
    let tail = tail.get(..length).unwrap_or_default();
    match Trailer::find(tail, storage.len()) {
        Some(found) => found.decode(),
        None => Err(no_trailer(image, tail)?.into()),
    }
}

/// What is wrong with a file that has no trailer where it belongs, in `tail`.
fn no_trailer(image: &Image<'_>, tail: &[u8]) -> Result<Error> {
    let mut head = [0; Trailer::LENGTH];
    read_padded(image.storage.as_ref(), 0, &mut head)
        .map_err(|error| CoreError::io("cannot read the start of the file", error).at(0))?;
    let file = image.storage.len();
    let length = usize::try_from(file).unwrap_or(head.len()).min(head.len());
    Ok(match Head::of(head.get(..length).unwrap_or_default()) {
        None => match Trailer::find_cut(tail, file) {
            Some(at) => Error::TrailerCut { file, at },
            None => Error::NoTrailer,
        },
        Some(Head::Encrypted) => Error::Encrypted,
        Some(Head::Trailer) => Error::TrailerInFront,
    })
}

impl ExtentSource for DmgSource {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn buffered(&self) -> u64 {
        match &self.content {
            Content::Chunks(windows) => windows.buffered(),
            Content::Plain(_) => 0,
        }
    }

    fn release(&mut self) {
        if let Content::Chunks(windows) = &mut self.content {
            windows.release();
        }
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        match &mut self.content {
            Content::Plain(offset) => {
                let at = out.cursor();
                let place = Place::at(offset.saturating_add(at));
                let _: Flow = out.push(self.size.saturating_sub(at), Status::DataOverHoles(place));
                Ok(())
            }
            Content::Chunks(windows) => walk(windows, &self.context, out),
        }
    }
}

/// Appends the chunks from the cursor on.
fn walk(windows: &mut WindowReader, context: &Context, out: &mut Batch) -> Result<()> {
    while out.cursor() < out.end() {
        let chunks = windows.chunks_from(out.cursor())?;
        if chunks.is_empty() {
            return gap(out.end(), context, out).map(|_| ());
        }
        for chunk in chunks {
            if chunk.start > out.cursor() && gap(chunk.start, context, out)? == Flow::Stop {
                return Ok(());
            }
            while out.cursor() < chunk.end {
                let (length, status) = chunk.part(out.cursor().saturating_sub(chunk.start));
                if out.push(length, status) == Flow::Stop {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Appends sectors up to byte `end`, of which no chunk speaks: the image does not have them.
fn gap(end: u64, context: &Context, out: &mut Batch) -> Result<Flow> {
    context
        .notices
        .warn("no chunk speaks of some sectors of the disk, which are taken for zeros")?;
    Ok(out.push(end.saturating_sub(out.cursor()), Status::Absent))
}
