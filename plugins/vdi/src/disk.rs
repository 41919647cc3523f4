//! The on-disk structures, decoded into native types.

use instar_core::{Fields, Result, SECTOR};

use crate::error::Error;

/// Bytes in which the header is found: what VirtualBox writes of it ends at 0x1d8.
pub(crate) const HEADER_BYTES: usize = 512;

/// Bytes of a block map entry: a block's number in the file.
pub(crate) const ENTRY: usize = 4;

/// The smallest entry of a block that is not in the file: one that was discarded and is zero
/// (specification, `VDI_IMAGE_BLOCK_ZERO`).
pub(crate) const NOT_STORED: u32 = 0xffff_fffe;

/// The entry of a block that was never written (`VDI_IMAGE_BLOCK_FREE`): zero, or in the parent.
pub(crate) const FREE: u32 = 0xffff_ffff;

/// The most blocks that qemu opens: a map of 2^31 − 512 bytes.
const MAX_BLOCKS: u32 = 0x1fff_ff80;

/// How the image was made (specification, `VDIIMAGETYPE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageType {
    /// 1: blocks are added when they are first written.
    Dynamic,
    /// 2: every block has its place from the start.
    Static,
    /// 3 and 4: undo and differencing, over another image; anything else: unknown.
    Other(u32),
}

impl From<u32> for ImageType {
    fn from(number: u32) -> Self {
        match number {
            1 => Self::Dynamic,
            2 => Self::Static,
            other => Self::Other(other),
        }
    }
}

/// Where the blocks of the disk are in the file. All numbers but the last are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// Guest bytes of one block: a power of two, 512 to 2^31.
    pub(crate) size: u64,
    /// What lies in front of each stored block: nothing, or a power of two.
    pub(crate) extra: u64,
    /// File offset of the first stored block with its extra data.
    pub(crate) offset: u64,
    /// Entries of the block map.
    pub(crate) count: u32,
}

impl Blocks {
    /// File offset of the first guest byte of the block whose map entry is `entry`.
    pub(crate) fn data_at(self, entry: u32) -> u64 {
        // A block with its extra data is at most 2^32 bytes, and `offset` is below that: there
        // is no overflow, as a stored block's entry is at most 2^32 − 3.
        self.offset + u64::from(entry) * (self.size + self.extra) + self.extra
    }
}

/// Signature, version and header (specification, `VDIPREHEADER` and `VDIHEADER1PLUS`).
///
/// Not kept: the texts, flags, both geometries, the number of blocks in use, and when the image
/// was modified, which change nothing about the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// How the image was made.
    pub(crate) image_type: ImageType,
    /// File offset of the block map, in bytes.
    pub(crate) map_offset: u64,
    /// Size of the disk in bytes, rounded up to sectors.
    pub(crate) disk_size: u64,
    /// Where the blocks are.
    pub(crate) blocks: Blocks,
    /// UUID of the image (`uuidCreate`).
    pub(crate) uuid: [u8; 16],
    /// UUIDs of the image's parent and of the state that it was in (`uuidLinkage`,
    /// `uuidParentModify`); both zero: there is none.
    pub(crate) parent: [[u8; 16]; 2],
}

impl Header {
    /// Bytes up to the end of the last field that is read.
    const LENGTH: usize = 0x1c8;
    const SIGNATURE_AT: usize = 0x40;
    const SIGNATURE: [u8; 4] = 0xbeda_107f_u32.to_le_bytes();
    const VERSION: u32 = 0x0001_0001;

    /// Whether a file that starts with `head` has the format's signature.
    pub(crate) fn is_at(head: &[u8]) -> bool {
        head.get(Self::SIGNATURE_AT..).is_some_and(|bytes| bytes.starts_with(&Self::SIGNATURE))
    }

    /// Decodes the header and checks what needs no look elsewhere.
    pub(crate) fn decode(fields: Fields<'_>) -> Result<Self> {
        if !Self::is_at(fields.bytes()) {
            return Err(Error::Signature { found: fields.le32(Self::SIGNATURE_AT)? }.into());
        }
        let version = fields.le32(0x44)?;
        if version != Self::VERSION {
            let (major, minor) = (version >> 16, version & 0xffff);
            return Err(Error::Version { major, minor }.into());
        }
        fields.require(Self::LENGTH)?;
        let map_offset = u64::from(fields.le32(0x154)?);
        if map_offset % SECTOR != 0 {
            return Err(Error::MapUnaligned { offset: map_offset }.into());
        }
        let blocks = Self::blocks(&fields)?;
        let disk_size = fields.le64(0x170)?;
        let room = u64::from(blocks.count) * blocks.size;
        let Some(rounded) = disk_size.checked_next_multiple_of(SECTOR).filter(|s| *s <= room)
        else {
            return Err(Error::DiskSize { size: disk_size, room }.into());
        };
        Ok(Self {
            image_type: fields.le32(0x4c)?.into(),
            map_offset,
            disk_size: rounded,
            blocks,
            uuid: fields.array(0x188)?,
            parent: [fields.array(0x1a8)?, fields.array(0x1b8)?],
        })
    }

    /// Whether another image has what this one does not.
    pub(crate) fn has_parent(&self) -> bool {
        self.parent.iter().flatten().any(|byte| *byte != 0)
    }

    fn blocks(fields: &Fields<'_>) -> Result<Blocks> {
        let offset = u64::from(fields.le32(0x158)?);
        if offset % SECTOR != 0 {
            return Err(Error::DataUnaligned { offset }.into());
        }
        let sector_size = fields.le32(0x168)?;
        if u64::from(sector_size) != SECTOR {
            return Err(Error::SectorSize { size: sector_size }.into());
        }
        let size = fields.le32(0x178)?;
        if !size.is_power_of_two() || u64::from(size) < SECTOR {
            return Err(Error::BlockSize { size }.into());
        }
        let extra = fields.le32(0x17c)?;
        if extra != 0 && !extra.is_power_of_two() {
            return Err(Error::BlockExtra { size: extra }.into());
        }
        let count = fields.le32(0x180)?;
        if count > MAX_BLOCKS {
            return Err(Error::TooManyBlocks { count, allowed: MAX_BLOCKS }.into());
        }
        Ok(Blocks { size: size.into(), extra: extra.into(), offset, count })
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn extra_data_lies_in_front_of_each_block() {
        let blocks = Blocks { size: 1 << 20, extra: 0, offset: 1024, count: 9 };
        assert_eq!(blocks.data_at(3), 1024 + (3 << 20));
        let blocks = Blocks { size: 1 << 20, extra: 512, offset: 1024, count: 9 };
        assert_eq!(blocks.data_at(3), 1024 + 3 * ((1 << 20) + 512) + 512);
        let most = Blocks { size: 1 << 31, extra: 1 << 31, offset: 0xffff_fe00, count: 9 };
        assert_eq!(most.data_at(NOT_STORED - 1), 0xffff_fffd_ffff_fe00 + (1 << 31));
    }
}
