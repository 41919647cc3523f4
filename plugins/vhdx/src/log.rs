//! The log: which updates were written to it and perhaps nowhere else (§2.3).
//!
//! The log is a ring of 4 KiB sectors. Every entry that is valid by itself is found in one pass
//! over the ring; the entries that follow each other make sequences; the newest sequence that is
//! complete is the active one, and its updates are to be replayed.
//!
//! A valid entry has its signature at the start of one sector only, and all its other sectors
//! start with other signatures. So entries never overlap, a doubtful entry is read no further
//! than to the start of the next one, and the pass takes time proportional to the log's length,
//! whatever the log holds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use instar_core::{Fields, Limits, MAX_LENGTH, Result, Storage, TableReader};

use crate::disk::{ENTRY_SIZE, Header, MIB};
use crate::error::Error;
use crate::guid::Guid;

/// Bytes of a sector of the log (§2.3.1).
pub(crate) const LOG_SECTOR: u64 = 4096;
/// The same, for slices.
pub(crate) const LOG_SECTOR_SIZE: usize = 4096;
const SECTORS_PER_MIB: u64 = MIB / LOG_SECTOR;

pub(crate) const ENTRY_SIGNATURE: &[u8; 4] = b"loge";
const ZERO_SIGNATURE: &[u8; 4] = b"zero";
const DATA_SIGNATURE: &[u8; 4] = b"desc";
const DATA_SECTOR_SIGNATURE: &[u8; 4] = b"data";
/// Bytes of an entry's header, before the descriptors of its first sector.
const ENTRY_HEADER_SIZE: usize = 64;

/// Updates that are replayed at most: our own bound on memory. A log of 64 MiB holds no more
/// than a quarter as many sectors of data; ranges to be zeroed are few in sound logs.
const MAX_UPDATES: u64 = 1 << 16;

/// A valid entry of the log (§2.3.1.1), without its updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Number of its first sector.
    start: u64,
    /// Sectors, the first included.
    sectors: u64,
    /// Sectors with descriptors, the first included.
    descriptor_sectors: u64,
    /// Number of the first sector of the oldest entry that was not yet written back.
    tail: u64,
    sequence_number: u64,
    descriptors: u64,
    /// What the file's length was at least, in bytes.
    flushed_file_offset: u64,
    /// What the file's length must be at least after the replay, in bytes.
    last_file_offset: u64,
}

/// One update that the log holds (§2.3.1.2, §2.3.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Update {
    /// Bytes that become zero.
    Zero { offset: u64, length: u64 },
    /// A sector that is replaced by the one at `log_at`, but for its first and last bytes.
    Data { offset: u64, log_at: u64, leading: [u8; 8], trailing: [u8; 4] },
}

/// What is to be replayed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// In the order in which they must be done: later ones win.
    pub(crate) updates: Vec<Update>,
    /// What the file's length must be at least, in bytes.
    pub(crate) file_length: u64,
}

/// Finds the active sequence of the log that the header (at file offset `header_at`) names.
///
/// # Errors
/// As §2.3.3 demands, if there is none, or if the file is shorter than it was.
pub(crate) fn pending(
    storage: &Arc<dyn Storage>,
    header: &Header,
    header_at: u64,
    limits: &Limits,
) -> Result<Pending> {
    let mut ring = Ring {
        reader: TableReader::new("log", Arc::clone(storage), limits),
        start: header.log_offset,
        sectors: u64::from(header.log_length) / LOG_SECTOR,
        guid: header.log_guid,
    };
    let sequence = ring.active_sequence()?;
    let at = header_at.saturating_add(48);
    let Some(head) = sequence.last() else {
        return Err(Error::LogWithoutSequence { at, guid: header.log_guid }.into());
    };
    let at = ring.sector_at(head.start);
    let (file, flushed) = (storage.len(), head.flushed_file_offset);
    if file < flushed {
        return Err(Error::LogTruncatedFile { at: at.saturating_add(48), file, flushed }.into());
    }
    let count = sequence.iter().map(|entry| entry.descriptors).sum();
    if count > MAX_UPDATES {
        return Err(Error::LogTooManyUpdates { at, count, allowed: MAX_UPDATES }.into());
    }
    // No more than allowed.
    let mut updates = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    for entry in &sequence {
        ring.updates(entry, &mut updates)?;
    }
    Ok(Pending { updates, file_length: head.last_file_offset })
}

/// The log's sectors, counted from 0, in a ring.
struct Ring {
    reader: TableReader,
    start: u64,
    sectors: u64,
    guid: Guid,
}

/// A descriptor, decoded (§2.3.1.2, §2.3.1.3).
enum Descriptor {
    Zero { offset: u64, length: u64 },
    Data { offset: u64, leading: [u8; 8], trailing: [u8; 4] },
}

impl Ring {
    /// File offset of a sector; numbers beyond the end go on at the start.
    fn sector_at(&self, number: u64) -> u64 {
        let number = number.checked_rem(self.sectors).unwrap_or(0);
        self.start.saturating_add(number.saturating_mul(LOG_SECTOR))
    }

    /// The bytes of a sector. They are read one MiB at a time, of which a log has a whole number.
    fn sector(&mut self, number: u64) -> Result<Fields<'_>> {
        let at = self.sector_at(number);
        let number = number.checked_rem(self.sectors).unwrap_or(0);
        let window = self.sector_at(number - number % SECTORS_PER_MIB);
        let bytes = self.reader.bytes(window, 1 << 20)?;
        let skip = usize::try_from(at.saturating_sub(window)).unwrap_or(usize::MAX);
        let bytes = Fields::new("log", window, bytes).slice(skip, LOG_SECTOR_SIZE)?;
        Ok(Fields::new("log sector", at, bytes))
    }

    /// The entries to be replayed, oldest first; empty if no sequence is complete.
    fn active_sequence(&mut self) -> Result<Vec<Entry>> {
        let mut entries = BTreeMap::new();
        for number in 0..self.sectors {
            if let Some(entry) = self.entry(number)? {
                entries.insert(number, entry);
            }
        }
        let sectors = self.sectors;
        let next = |entry: &Entry| {
            let start = entry.start.saturating_add(entry.sectors).checked_rem(sectors)?;
            let number = entry.sequence_number.checked_add(1)?;
            entries.get(&start).filter(|next| next.sequence_number == number)
        };
        // Newest first, so that an entry comes after the one that continues it.
        let mut newest: Vec<&Entry> = entries.values().collect();
        newest.sort_unstable_by_key(|entry| (Reverse(entry.sequence_number), entry.start));
        // Where the sequence that goes through an entry ends.
        let mut heads: HashMap<u64, u64> = HashMap::new();
        for entry in &newest {
            let head = next(entry).and_then(|next| heads.get(&next.start).copied());
            heads.insert(entry.start, head.unwrap_or(entry.start));
        }
        let complete = |entry: &&&Entry| {
            heads.get(&entry.start) == Some(&entry.start)
                && heads.get(&entry.tail) == Some(&entry.start)
        };
        let head = newest.iter().find(complete);
        let tail = head.and_then(|head| entries.get(&head.tail));
        Ok(std::iter::successors(tail, |entry| next(entry)).copied().collect())
    }

    /// The entry that starts at a sector, if a valid one does: all fields, all descriptors, all
    /// data sectors and the checksum are right.
    fn entry(&mut self, start: u64) -> Result<Option<Entry>> {
        let log_bytes = self.sectors.saturating_mul(LOG_SECTOR);
        let guid = self.guid;
        let first = self.sector(start)?;
        if first.slice(0, 4)? != ENTRY_SIGNATURE {
            return Ok(None);
        }
        let stored = first.le32(4)?;
        let length = u64::from(first.le32(8)?);
        let tail = u64::from(first.le32(12)?);
        let sequence_number = first.le64(16)?;
        let descriptors = u64::from(first.le32(24)?);
        let last_file_offset = first.le64(56)?;
        // At most 2^32 descriptors of 2^5 bytes.
        let descriptor_bytes = ENTRY_HEADER_SIZE as u64 + descriptors * ENTRY_SIZE as u64;
        if length == 0
            || length % LOG_SECTOR != 0
            || length > log_bytes
            || tail % LOG_SECTOR != 0
            || tail >= log_bytes
            || sequence_number == 0
            || Guid::from_bytes(first.array(32)?) != guid
            || descriptor_bytes > length
            || last_file_offset > MAX_LENGTH
        {
            return Ok(None);
        }
        let entry = Entry {
            start,
            sectors: length / LOG_SECTOR,
            descriptor_sectors: descriptor_bytes.div_ceil(LOG_SECTOR),
            tail: tail / LOG_SECTOR,
            sequence_number,
            descriptors,
            flushed_file_offset: first.le64(48)?,
            last_file_offset,
        };

        let mut checksum = crate::disk::checksum(first.bytes());
        let mut data_sectors = 0;
        for number in 0..entry.descriptor_sectors {
            let sector = self.sector(start.saturating_add(number))?;
            if number > 0 {
                checksum = crc32c::crc32c_append(checksum, sector.bytes());
            }
            for at in entry.descriptors_in(number) {
                match descriptor(&sector, at, sequence_number)? {
                    Some(Descriptor::Data { .. }) => data_sectors += 1,
                    Some(Descriptor::Zero { .. }) => {}
                    None => return Ok(None),
                }
            }
        }
        if entry.descriptor_sectors + data_sectors != entry.sectors {
            return Ok(None);
        }
        for number in entry.descriptor_sectors..entry.sectors {
            let sector = self.sector(start.saturating_add(number))?;
            let (high, low) = (sector.le32(4)?, sector.le32(LOG_SECTOR_SIZE - 4)?);
            let number = u64::from(high) << 32 | u64::from(low);
            if sector.slice(0, 4)? != DATA_SECTOR_SIGNATURE || number != sequence_number {
                return Ok(None);
            }
            checksum = crc32c::crc32c_append(checksum, sector.bytes());
        }
        Ok((checksum == stored).then_some(entry))
    }

    /// Appends the updates of a valid entry.
    fn updates(&mut self, entry: &Entry, updates: &mut Vec<Update>) -> Result<()> {
        let mut data_sector = entry.start.saturating_add(entry.descriptor_sectors);
        for number in 0..entry.descriptor_sectors {
            for at in entry.descriptors_in(number) {
                let sector = self.sector(entry.start.saturating_add(number))?;
                let update = match descriptor(&sector, at, entry.sequence_number)? {
                    Some(Descriptor::Zero { offset, length }) => Update::Zero { offset, length },
                    Some(Descriptor::Data { offset, leading, trailing }) => {
                        let log_at = self.sector_at(data_sector);
                        data_sector = data_sector.saturating_add(1);
                        Update::Data { offset, log_at, leading, trailing }
                    }
                    // The file has changed since the entry was found valid.
                    None => continue,
                };
                updates.push(update);
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Where in the entry's descriptor sector `number` descriptors are. The first sector has room
    /// for 126 behind the header, the others for 128.
    fn descriptors_in(&self, number: u64) -> impl Iterator<Item = usize> + use<> {
        const PER_SECTOR: u64 = LOG_SECTOR / ENTRY_SIZE as u64;
        const HEADERS: u64 = (ENTRY_HEADER_SIZE / ENTRY_SIZE) as u64;
        let first = if number == 0 { HEADERS } else { 0 };
        let all = self.descriptors.saturating_add(HEADERS);
        let end = all.saturating_sub(number.saturating_mul(PER_SECTOR)).min(PER_SECTOR);
        // At most 128.
        let slot = |slot| usize::try_from(slot).unwrap_or(usize::MAX).saturating_mul(ENTRY_SIZE);
        (first..end).map(slot)
    }
}

/// The descriptor at `at` of a sector, if it is a valid one of the entry with this number.
fn descriptor(sector: &Fields<'_>, at: usize, sequence_number: u64) -> Result<Option<Descriptor>> {
    let fields = Fields::new("log descriptor", sector.offset_of(at), sector.slice(at, ENTRY_SIZE)?);
    let signature = fields.array::<4>(0)?;
    let offset = fields.le64(16)?;
    let (length, descriptor) = match &signature {
        ZERO_SIGNATURE => {
            let length = fields.le64(8)?;
            (length, Descriptor::Zero { offset, length })
        }
        DATA_SIGNATURE => {
            let (trailing, leading) = (fields.array(4)?, fields.array(8)?);
            (LOG_SECTOR, Descriptor::Data { offset, leading, trailing })
        }
        _ => return Ok(None),
    };
    let end = offset.checked_add(length);
    let sound = fields.le64(24)? == sequence_number
        && offset % LOG_SECTOR == 0
        && length % LOG_SECTOR == 0
        && end.is_some_and(|end| end <= MAX_LENGTH);
    Ok(sound.then_some(descriptor))
}
