//! The table as extents.

use std::sync::Arc;

use instar_core::{
    Backing, Batch, Error as CoreError, ExtentSource, Fields, Flow, Image, ImageFile, Place,
    Result, Role, SECTOR, Status, TableReader, read_padded,
};

use crate::disk::{ENTRY, Entry, HEADER, Header};
use crate::error::Error;

/// Entries of the table that are read at a time.
const WINDOW: u64 = 8192;

/// An open foo image.
pub(crate) struct FooSource {
    header: Header,
    table: TableReader,
    files: [ImageFile; 1],
    backing: Option<Backing>,
}

impl FooSource {
    pub(crate) fn open(image: &Image<'_>) -> Result<Self> {
        let mut bytes = [0; HEADER];
        read_padded(image.storage.as_ref(), 0, &mut bytes)
            .map_err(|error| CoreError::io("cannot read the header", error).at(0))?;
        let file = image.storage.len();
        let header = Fields::decode("header", 0, &bytes, file, Header::decode)?;
        check_table(&header, file)?;
        let backing = header.backing_name.clone().map(|name| Backing {
            role: Role::Backing,
            names: vec![name],
            format: None,
            identifiers: Vec::new(),
        });
        let storage = Arc::clone(&image.storage);
        Ok(Self {
            header,
            table: TableReader::new("table", storage, &image.context.limits),
            files: [image.file()],
            backing,
        })
    }
}

/// The table is in the file: after this, its size is no more than the file's, whatever the
/// header says.
fn check_table(header: &Header, file: u64) -> Result<()> {
    let (offset, size) = (header.table_offset, header.table_size());
    let end = offset.checked_add(size);
    if end.is_none_or(|end| end > file.next_multiple_of(SECTOR)) {
        let outside = Error::TableOutside { offset, size, file };
        return Err(CoreError::from(outside).at(24));
    }
    Ok(())
}

impl ExtentSource for FooSource {
    fn virtual_size(&self) -> u64 {
        self.header.disk_size
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    fn buffered(&self) -> u64 {
        self.table.buffered()
    }

    fn release(&mut self) {
        self.table.release();
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        let block = self.header.block();
        while out.cursor() < out.end() {
            let first = out.cursor() / block;
            let count = (out.end().div_ceil(block) - first).min(WINDOW);
            // In the file, so there is no overflow; and 64 KiB at most.
            let at = self.header.table_offset + first * ENTRY;
            let length = usize::try_from(count * ENTRY).unwrap_or(0);
            for raw in self.table.bytes(at, length)?.chunks_exact(8) {
                let raw = raw.first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw));
                // The question may start in the middle of a block.
                let inside = out.cursor() % block;
                let status = status(Entry::decode(raw, out.cursor() / block)?);
                if out.push(block - inside, status.advanced(inside)) == Flow::Stop {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// What an entry says about its block.
fn status(entry: Entry) -> Status {
    match entry {
        Entry::Absent => Status::Absent,
        Entry::Zeros => Status::Zero,
        Entry::Data(offset) => Status::Data(Place::at(offset)),
        Entry::Compressed => Status::Compressed,
    }
}
