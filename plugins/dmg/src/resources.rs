//! The resources: where each one is, in a resource fork or a property list.

use std::sync::Arc;

use instar_core::{Fields, Image, Limits, Result, TableReader};

use crate::blob::{Encoding, Position};
use crate::disk::Area;
use crate::error::Error;
use crate::tables::Tables;

/// At most so many bytes of resources (instar's own limit; qemu reads 16 MiB of a property list).
/// A table of a TiB in the usual chunks of 256 KiB takes about that.
const MAX_RESOURCES: u64 = 256 << 20;

/// Reads every block table of a resource fork.
///
/// Which types its resources have is for the resource map to say, which is not read: a block table
/// is known by its magic, as qemu knows it.
pub(crate) fn of_fork(fork: Area, image: &Image<'_>, tables: &mut Tables<'_>) -> Result<()> {
    Limits::check("the length of the resource fork", fork.length, MAX_RESOURCES)?;
    let limits = &image.context.limits;
    let mut reader = TableReader::new("resource fork", Arc::clone(&image.storage), limits);
    let head = Fields::new("resource fork", fork.offset, reader.bytes(fork.offset, 16)?);
    let (offset, length) = (head.be32(0)?, head.be32(8)?);
    let data = Area { offset: fork.offset.saturating_add(offset.into()), length: length.into() };
    if data.end() > fork.end() {
        let (fork, at) = (fork.length, fork.offset);
        return Err(Error::ResourceData { offset, length, fork, at }.into());
    }
    let mut at = data.offset;
    while at < data.end() {
        let head = Fields::new("resource", at, reader.bytes(at, 4)?);
        let length = head.be32(0)?;
        let start = at.saturating_add(4);
        let end = start.saturating_add(length.into());
        if end > data.end() {
            return Err(Error::Resource { length, end: data.end(), at }.into());
        }
        tables.read(&mut Position { encoding: Encoding::Plain, at: start, end })?;
        at = end;
    }
    Ok(())
}

/// Reads every block table of a property list.
///
/// The list is not parsed: as qemu does, every `<data>` element is looked at, whatever key it is
/// under, and is a block table if it has the magic of one.
pub(crate) fn of_list(list: Area, tables: &mut Tables<'_>) -> Result<()> {
    const START: &[u8] = b"<data>";
    const END: &[u8] = b"</data>";
    Limits::check("the length of the property list", list.length, MAX_RESOURCES)?;
    let mut position = Position { encoding: Encoding::Base64, at: list.offset, end: list.end() };
    while let Some(at) = tables.find(START, &position)? {
        position.at = at.saturating_add(START.len() as u64);
        tables.read(&mut position)?;
        let end = tables.find(END, &position)?.ok_or(Error::NoEndTag { at })?;
        position.at = end.saturating_add(END.len() as u64);
    }
    Ok(())
}
