//! The on-disk structures, decoded into native types.

use instar_core::{Fields, Result, SECTOR};

use crate::error::Error;

/// Bytes of one entry of the table of offsets.
pub(crate) const ENTRY: u64 = 8;

/// File offset of the table of offsets, just behind the header (`struct cloop_head`).
pub(crate) const TABLE: u64 = 136;

/// The largest block that qemu reads, in bytes.
const MAX_BLOCK: u32 = 64 << 20;

/// The largest table that qemu reads has 512 MiB: one entry more than there are blocks.
const MAX_BLOCKS: u32 = (512 << 20) / 8 - 1;

/// What the commands in front of an image of `mkuzip` name: the module that reads it.
const UZIP: &[u8] = b"geom_uzip";

/// Which version the text at the start of the file speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preamble {
    /// `V2.0`, the format that is read here.
    Version2,
    /// `V4.0`, in which the table may be at the end of the file, and compressed itself.
    Version4,
}

impl Preamble {
    /// What the preamble at the start of `head` says: the driver goes by four letters at byte 11
    /// (`CLOOP2_SIGNATURE_OFFSET`), and so does this.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        match head.get(11..15)? {
            b"V2.0" => Some(Self::Version2),
            b"V4.0" => Some(Self::Version4),
            _ => None,
        }
    }

    /// Whether `head` is in front of an image and not of some text that happens to have these
    /// letters there: a shell script that mounts the image itself. What commands it has is up to
    /// whoever made the image, but for those of `mkuzip`: what FreeBSD calls uzip starts like
    /// cloop, and may name a block in several places.
    pub(crate) fn is_script(head: &[u8]) -> bool {
        let text = head.get(..Header::BLOCK_SIZE).unwrap_or(head);
        let version = text.strip_prefix(b"#!/bin/sh\n#").and_then(|rest| rest.get(4..));
        let commands = version.and_then(|rest| rest.strip_prefix(b" Format\n"));
        commands.is_some_and(|rest| !rest.windows(UZIP.len()).any(|word| word == UZIP))
            && Self::of(head).is_some()
    }
}

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Guest bytes of one block: a multiple of 512, 512 to 2^26.
    pub(crate) block_size: u32,
    /// Blocks of the disk, below 2^26.
    pub(crate) blocks: u32,
}

impl Header {
    /// Bytes of the preamble's space and the two fields behind it.
    pub(crate) const LENGTH: usize = 136;

    const BLOCK_SIZE: usize = 128;
    const BLOCKS: usize = 132;

    /// Decodes a header and checks what needs no look elsewhere.
    pub(crate) fn decode(fields: Fields<'_>) -> Result<Self> {
        // The version, of four letters.
        fields.require(15)?;
        match Preamble::of(fields.bytes()) {
            Some(Preamble::Version2) => {}
            Some(Preamble::Version4) => return Err(Error::Version.into()),
            None => return Err(Error::NoPreamble.into()),
        }
        fields.require(Self::LENGTH)?;
        let block_size = fields.be32(Self::BLOCK_SIZE)?;
        if block_size == 0 || u64::from(block_size) % SECTOR != 0 || block_size > MAX_BLOCK {
            let (size, allowed) = (block_size, MAX_BLOCK);
            let at = fields.offset_of(Self::BLOCK_SIZE);
            return Err(Error::BlockSize { size, allowed, at }.into());
        }
        let blocks = fields.be32(Self::BLOCKS)?;
        if blocks > MAX_BLOCKS {
            let at = fields.offset_of(Self::BLOCKS);
            return Err(Error::TooManyBlocks { blocks, allowed: MAX_BLOCKS, at }.into());
        }
        Ok(Self { block_size, blocks })
    }

    /// Size of the disk in bytes: below 2^52.
    pub(crate) fn size(self) -> u64 {
        u64::from(self.block_size) * u64::from(self.blocks)
    }

    /// Entries of the table of offsets: where each block starts, and where the last one ends.
    pub(crate) fn entries(self) -> u64 {
        u64::from(self.blocks) + 1
    }
}
