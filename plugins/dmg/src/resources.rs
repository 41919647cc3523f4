//! The resources: where each one is, in a resource fork or a property list.

use std::sync::Arc;

use instar_core::{Fields, Image, Limits, Result, TableReader};

use crate::blob::Position;
use crate::disk::Area;
use crate::error::Error;
use crate::outline::{Outline, Step};
use crate::tables::Tables;
use crate::xml::Cursor;

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
        tables.read(&mut Position::Plain { at: start, end })?;
        at = end;
    }
    Ok(())
}

/// Reads every block table of a property list: the data under the key `Data` of each dictionary in
/// the array `blkx`, which is in the dictionary `resource-fork`.
///
/// What comes after the root element does not matter.
pub(crate) fn of_list(list: Area, tables: &mut Tables<'_>) -> Result<()> {
    Limits::check("the length of the property list", list.length, MAX_RESOURCES)?;
    check_encoding(list, tables)?;
    let mut cursor = Cursor::new(list.offset, list.end());
    let mut outline = Outline::default();
    loop {
        let at = cursor.at;
        let Some(token) = tables.xml().next(&mut cursor)? else {
            break;
        };
        match outline.take(token, at)? {
            Step::On => {}
            Step::Table => {
                let mut position = Position::Base64(cursor);
                tables.read(&mut position)?;
                if let Position::Base64(after) = position {
                    cursor = after;
                }
            }
            Step::Over => return Ok(()),
        }
    }
    if outline.is_open() {
        return Err(Error::ListCut { at: list.end() }.into());
    }
    Ok(())
}

/// Refuses a list that is not in UTF-8, or in an encoding that has ASCII where UTF-8 has it.
fn check_encoding(list: Area, tables: &mut Tables<'_>) -> Result<()> {
    let length = usize::try_from(list.length).unwrap_or(8).min(8);
    let encoding = match tables.xml().table().bytes(list.offset, length)? {
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] | [0, b'<', ..] | [b'<', 0, ..] => "in UTF-16",
        [b'b', b'p', b'l', b'i', b's', b't', ..] => "a binary one",
        _ => return Ok(()),
    };
    Err(Error::ListEncoding { encoding, at: list.offset }.into())
}
