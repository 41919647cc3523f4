//! Version 1: one header, eight key slots, and the payload to the end of the file.

use instar_core::{Fields, Result, SECTOR};

use crate::error::Error;

/// Sectors of the header and of what it is padded to, in front of the first key material
/// (specification, `LUKS_ALIGN_KEYSLOTS`: 4096 bytes).
const HEADER_SECTORS: u32 = 8;

/// The header (specification, "phdr").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionHeader {
    /// File offset of the payload in bytes.
    pub(crate) payload: u64,
}

impl PartitionHeader {
    /// Bytes of the header.
    pub(crate) const LENGTH: usize = 592;

    const PAYLOAD_OFFSET: usize = 104;
    const KEY_BYTES: usize = 108;
    const KEY_SLOTS: usize = 208;
    const KEY_SLOT_LENGTH: usize = 48;
    const KEY_SLOT_COUNT: usize = 8;

    /// Decodes a header whose magic and version are known to be right, and checks that its parts
    /// do not overlap.
    pub(crate) fn decode(fields: Fields<'_>) -> Result<Self> {
        fields.require(Self::LENGTH)?;
        let sector = fields.be32(Self::PAYLOAD_OFFSET)?;
        let at = fields.offset_of(Self::PAYLOAD_OFFSET);
        if sector == 0 {
            return Err(Error::DetachedHeader { at }.into());
        }
        if sector < HEADER_SECTORS {
            let least = HEADER_SECTORS;
            return Err(Error::PayloadInHeader { sector, least, at }.into());
        }
        let key_bytes = fields.be32(Self::KEY_BYTES)?;
        for slot in 0..Self::KEY_SLOT_COUNT {
            let start = Self::KEY_SLOTS + slot * Self::KEY_SLOT_LENGTH;
            let bytes = fields.slice(start, Self::KEY_SLOT_LENGTH)?;
            let fields = Fields::new("key slot", fields.offset_of(start), bytes);
            check_key_slot(fields, slot, key_bytes, sector)?;
        }
        Ok(Self { payload: u64::from(sector) * SECTOR })
    }
}

/// Checks that the key material of an active slot is between header and payload (specification,
/// "key slot").
fn check_key_slot(fields: Fields<'_>, slot: usize, key_bytes: u32, payload: u32) -> Result<()> {
    const ENABLED: u32 = 0x00ac_71f3;
    const DISABLED: u32 = 0x0000_dead;
    match fields.be32(0)? {
        DISABLED => return Ok(()),
        ENABLED => {}
        state => return Err(Error::KeySlotState { slot, state, at: fields.offset_of(0) }.into()),
    }
    let (offset, stripes) = (fields.be32(40)?, fields.be32(44)?);
    // Both factors have 32 bits.
    let bytes = u64::from(key_bytes) * u64::from(stripes);
    let end = u64::from(offset) + bytes.div_ceil(SECTOR);
    if bytes == 0 || offset < HEADER_SECTORS || end > payload.into() {
        let (first, at) = (HEADER_SECTORS, fields.offset_of(40));
        return Err(Error::KeyMaterial { slot, offset, end, first, payload, at }.into());
    }
    Ok(())
}
