//! The block tables: checked once, at open, and indexed, so that a map can start anywhere.

use std::sync::Arc;

use instar_core::{Fields, Image, Result};

use crate::blob::{BlobReader, Position};
use crate::disk::{Chunk, Kind, TableHeader};
use crate::error::Error;
use crate::xml::XmlReader;

/// Chunks that are in memory at a time (instar's own limit): 64 KiB of a table. A multiple of
/// three, so that base64 can be read on from each window.
const WINDOW: usize = 1638;

/// At most so many block tables (instar's own limit). An image has one for each partition.
const MAX_TABLES: usize = 4096;

/// A run of chunks of one table, in the order of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// First byte on the disk.
    pub(crate) start: u64,
    /// The byte behind the last one.
    pub(crate) end: u64,
    position: Position,
    header: TableHeader,
}

/// The block tables of an image while they are found.
pub(crate) struct Tables<'a> {
    image: &'a Image<'a>,
    reader: BlobReader,
    data_fork: u64,
    count: usize,
    buffer: Vec<u8>,
    windows: Vec<Window>,
    /// Whether a chunk that ends behind the file was warned about.
    has_warned: bool,
}

impl<'a> Tables<'a> {
    /// No tables yet; `data_fork` is the file offset from which chunks count theirs.
    pub(crate) fn new(image: &'a Image<'a>, data_fork: u64) -> Self {
        Self {
            image,
            reader: BlobReader::new(Arc::clone(&image.storage), &image.context.limits),
            data_fork,
            count: 0,
            buffer: Vec::new(),
            windows: Vec::new(),
            has_warned: false,
        }
    }

    /// The reader of property lists.
    pub(crate) fn xml(&mut self) -> &mut XmlReader {
        self.reader.xml()
    }

    /// Whether no table so far has a chunk.
    pub(crate) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Reads the resource at `position`, if it is a block table, to its end. Others are known by
    /// the magic, and left where they start.
    pub(crate) fn read(&mut self, position: &mut Position) -> Result<()> {
        const HEAD: usize = 6;
        let before = *position;
        let start = before.at();
        self.reader.read(position, HEAD, &mut self.buffer)?;
        if !self.buffer.starts_with(TableHeader::MAGIC) {
            *position = before;
            return Ok(());
        }
        let mut head = self.buffer.clone();
        self.reader.read(position, TableHeader::LENGTH - HEAD, &mut self.buffer)?;
        head.extend_from_slice(&self.buffer);
        let header = TableHeader::decode(Fields::new("block table", start, &head), self.data_fork)?;
        self.count = self.count.saturating_add(1);
        if self.count > MAX_TABLES {
            return Err(Error::Tables { allowed: MAX_TABLES, at: start }.into());
        }
        let mut chunks = 0_usize;
        let mut previous = 0;
        loop {
            let at = *position;
            self.reader.read(position, WINDOW * Chunk::LENGTH, &mut self.buffer)?;
            let bytes = std::mem::take(&mut self.buffer);
            let window = self.check(&bytes, at, &header, &mut previous)?;
            self.windows.extend(window);
            chunks = chunks.saturating_add(bytes.len() / Chunk::LENGTH);
            let is_last = bytes.len() < WINDOW * Chunk::LENGTH;
            self.buffer = bytes;
            if is_last {
                break;
            }
        }
        if usize::try_from(header.chunks).is_ok_and(|stated| stated > chunks) {
            let stated = header.chunks;
            return Err(Error::TableCut { stated, chunks, at: start }.into());
        }
        Ok(())
    }

    /// Checks the chunks in `bytes`, read from `position`; the window that they make, if any is
    /// about a sector. `previous` is where the chunk before them ended.
    fn check(
        &mut self,
        bytes: &[u8],
        position: Position,
        header: &TableHeader,
        previous: &mut u64,
    ) -> Result<Option<Window>> {
        let at = position.at();
        let mut window: Option<Window> = None;
        for chunk in decode(bytes, header, at) {
            let chunk = chunk?;
            if chunk.start < *previous {
                let (start, end) = (chunk.start, *previous);
                return Err(Error::Order { start, end, at }.into());
            }
            *previous = chunk.end;
            self.warn_about(&chunk)?;
            match &mut window {
                Some(window) => window.end = chunk.end,
                None => {
                    let Chunk { start, end, .. } = chunk;
                    window = Some(Window { start, end, position, header: *header });
                }
            }
        }
        Ok(window)
    }

    fn warn_about(&mut self, chunk: &Chunk) -> Result<()> {
        let notices = &self.image.context.notices;
        if let Kind::Unknown(kind) = chunk.kind {
            notices.warn(format!(
                "chunks of the unknown type {kind:#x} are taken for data without an offset"
            ))?;
        }
        // Data that has an offset is warned about when the map reaches it.
        let (end, file) = (chunk.stored.end(), self.image.storage.len());
        if end > file && chunk.kind != Kind::Raw && !self.has_warned {
            self.has_warned = true;
            let start = chunk.start;
            notices.warn(format!(
                "the chunk at byte {start:#x} of the disk is stored up to {end:#x}, behind the \
                 end of the file of {file} bytes"
            ))?;
        }
        Ok(())
    }

    /// All windows in the order of the disk, and what reads them.
    ///
    /// # Errors
    /// If two of them overlap, or if there are none.
    pub(crate) fn finish(mut self) -> Result<WindowReader> {
        // Tables are mostly in the order of the disk already, but nothing says that they must.
        self.windows.sort_by_key(|window| window.start);
        for (one, next) in self.windows.iter().zip(self.windows.iter().skip(1)) {
            if next.start < one.end {
                let (start, end, at) = (next.start, one.end, next.position.at());
                return Err(Error::Order { start, end, at }.into());
            }
        }
        if self.windows.is_empty() {
            return Err(Error::NoChunks.into());
        }
        let Self { mut reader, windows, buffer, .. } = self;
        reader.xml().stop_counting();
        Ok(WindowReader { reader, windows, buffer, chunks: Vec::new(), loaded: None })
    }
}

/// The windows of an image, one of them in memory.
pub(crate) struct WindowReader {
    reader: BlobReader,
    windows: Vec<Window>,
    buffer: Vec<u8>,
    /// The chunks of the window `loaded`.
    chunks: Vec<Chunk>,
    loaded: Option<usize>,
}

impl WindowReader {
    /// Bytes that are held in memory; the index is not among them, it cannot be made again.
    pub(crate) fn buffered(&self) -> u64 {
        let chunks = self.chunks.capacity().saturating_mul(size_of::<Chunk>());
        let own = self.buffer.capacity().saturating_add(chunks);
        self.reader.buffered().saturating_add(own as u64)
    }

    /// Gives them back.
    pub(crate) fn release(&mut self) {
        self.reader.release();
        self.buffer = Vec::new();
        self.chunks = Vec::new();
        self.loaded = None;
    }

    /// Chunks in the order of the disk, of which the first is the first one that ends behind byte
    /// `at`. None if there is no such chunk.
    pub(crate) fn chunks_from(&mut self, at: u64) -> Result<&[Chunk]> {
        let index = self.windows.partition_point(|window| window.end <= at);
        let Some(window) = self.windows.get(index) else {
            return Ok(&[]);
        };
        if self.loaded != Some(index) {
            self.loaded = None;
            self.chunks.clear();
            let mut position = window.position;
            self.reader.read(&mut position, WINDOW * Chunk::LENGTH, &mut self.buffer)?;
            for chunk in decode(&self.buffer, &window.header, window.position.at()) {
                self.chunks.push(chunk?);
            }
            self.loaded = Some(index);
        }
        let first = self.chunks.partition_point(|chunk| chunk.end <= at);
        match self.chunks.get(first..) {
            Some(rest) if !rest.is_empty() => Ok(rest),
            // It was there when the window was checked.
            _ => Err(Error::Changed { at }.into()),
        }
    }
}

/// The chunks in `bytes` that are about sectors; `at` is where in the file they start.
fn decode(bytes: &[u8], header: &TableHeader, at: u64) -> impl Iterator<Item = Result<Chunk>> {
    let entries = bytes.chunks_exact(Chunk::LENGTH).filter_map(|entry| entry.first_chunk());
    entries.filter_map(move |entry| Chunk::decode(entry, header, at).transpose())
}
