//! One L2 entry as a status (spec, "L2 table entries" and "Extended L2 entries").

use instar_core::{Place, Status};

use crate::error::Error;

/// The host offset bits of a standard descriptor: 9 to 55.
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The highest of them: a run that starts below it does not reach bit 56, as the clusters of a table
/// have less than 2^40 bytes.
const FAR: u64 = 1 << 55;
/// The refcount of the cluster is exactly one.
const COPIED: u64 = 1 << 63;
/// The cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros.
const ZERO: u64 = 1;

/// Subclusters in a cluster (spec, "Extended L2 entries").
pub(crate) const SUBCLUSTERS: u32 = 32;

/// What is the same for all entries of an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) cluster: u64,
    pub(crate) version: u32,
    pub(crate) has_data_file: bool,
    pub(crate) encrypted: bool,
    /// Whether holes of the host are looked for beneath data.
    pub(crate) over_holes: bool,
    /// Whether it counts that an absent subcluster has a place.
    pub(crate) absent_has_place: bool,
}

/// A compressed cluster: nothing else in its entry matters to a map.
#[inline]
pub(crate) fn is_compressed(entry: u64) -> bool {
    entry & COMPRESSED != 0
}

impl Rules {
    /// The bits of a standard entry that, if one is set, make it more than "data at this offset,
    /// or absent for offset 0".
    pub(crate) fn unusual(&self) -> u64 {
        match self.has_data_file || self.encrypted {
            true => !0,
            false => COMPRESSED | ZERO | FAR | (OFFSET & (self.cluster - 1)),
        }
    }

    /// The same for an extended entry, whose bit 0 has no meaning.
    pub(crate) fn unusual_extended(&self) -> u64 {
        match self.has_data_file || self.encrypted {
            true => !0,
            false => COMPRESSED | (OFFSET & (self.cluster - 1)),
        }
    }

    /// As [`Rules::subcluster`], for an entry that is consistent and not unusual.
    #[inline(always)]
    pub(crate) fn plain_subcluster(&self, entry: u64, bitmap: u64, index: u32) -> (Status, u32) {
        let [allocated, zero] = halves(bitmap);
        let (allocated, zero) = (allocated >> index, zero >> index);
        let place = Place::at(entry & OFFSET);
        let status = match (place.offset != 0, zero & 1 != 0, allocated & 1 != 0) {
            (true, true, _) => Status::ZeroAt(place),
            (true, false, true) if self.over_holes => Status::DataOverHoles(place),
            (true, false, true) => Status::Data(place),
            (true, false, false) if self.absent_has_place => Status::AbsentAt(place),
            (true, false, false) => Status::Absent,
            (false, true, _) => Status::Zero,
            (false, false, _) => Status::Absent,
        };
        let run = match (zero & 1 != 0, allocated & 1 != 0) {
            (true, _) => zero.trailing_ones(),
            (false, true) => allocated.trailing_ones(),
            (false, false) => (allocated | zero).trailing_zeros().min(SUBCLUSTERS - index),
        };
        (status, run)
    }

    /// The status of the cluster at `guest` (a cluster's start) with this standard entry.
    #[inline]
    pub(crate) fn standard(&self, entry: u64, guest: u64) -> Result<Status, Error> {
        let offset = entry & OFFSET;
        if is_compressed(entry) {
            return self.compressed(guest);
        }
        if entry & ZERO != 0 {
            if self.version < 3 {
                return Err(Error::ZeroInVersion2 { guest });
            }
            return match offset {
                0 => Ok(Status::Zero),
                _ => Ok(self.zero_at(self.checked(offset, guest)?)),
            };
        }
        if offset == 0 && !self.is_mapped(entry) {
            return Ok(Status::Absent);
        }
        Ok(self.data(self.checked(offset, guest)?))
    }

    /// The status of subcluster `index` of the cluster at `guest`, whose extended entry is
    /// `entry` and `bitmap`, and how many subclusters from there on share it.
    #[inline]
    pub(crate) fn subcluster(
        &self,
        entry: u64,
        bitmap: u64,
        index: u32,
        guest: u64,
    ) -> Result<(Status, u32), Error> {
        if is_compressed(entry) {
            return Ok((self.compressed(guest)?, SUBCLUSTERS - index));
        }
        let [allocated, zero] = halves(bitmap);
        let (allocated, zero) = (allocated >> index, zero >> index);
        let run = |bits: u32| bits.trailing_ones().min(SUBCLUSTERS - index);
        let mapped = self.is_mapped(entry);
        let here = |rules: &Self| rules.checked(entry & OFFSET, guest);
        Ok(match (mapped, zero & 1 != 0, allocated & 1 != 0) {
            (true, true, _) => (self.zero_at(here(self)?), run(zero)),
            (true, false, true) => (self.data(here(self)?), run(allocated)),
            (true, false, false) => (self.absent_at(here(self)?), run(!(allocated | zero))),
            (false, true, _) => (Status::Zero, run(zero)),
            (false, false, _) => (Status::Absent, run(!zero)),
        })
    }

    /// What is appended of a run of this status.
    pub(crate) fn shown(&self, status: Status) -> Status {
        match status {
            Status::AbsentAt(_) if !self.absent_has_place => Status::Absent,
            other => other,
        }
    }

    /// Refuses an extended entry that contradicts itself.
    #[inline]
    pub(crate) fn check_extended(&self, entry: u64, bitmap: u64, guest: u64) -> Result<(), Error> {
        if is_compressed(entry) {
            return Ok(());
        }
        let [allocated, zero] = halves(bitmap);
        let wrong = if self.is_mapped(entry) { allocated & zero } else { allocated };
        if wrong != 0 { Err(Error::ExtendedEntry { guest, entry, bitmap }) } else { Ok(()) }
    }

    /// Whether the entry gives its cluster a place. Offset 0 is one only in a data file.
    #[inline]
    fn is_mapped(&self, entry: u64) -> bool {
        entry & OFFSET != 0 || (self.has_data_file && entry & COPIED != 0)
    }

    #[inline]
    fn checked(&self, offset: u64, guest: u64) -> Result<Place, Error> {
        if offset & (self.cluster - 1) != 0 {
            return Err(Error::ClusterUnaligned { guest, offset, cluster: self.cluster });
        }
        if self.has_data_file && offset != guest {
            return Err(Error::DataFileOffset { guest, offset });
        }
        Ok(Place::at(offset))
    }

    fn compressed(&self, guest: u64) -> Result<Status, Error> {
        if self.has_data_file {
            return Err(Error::CompressedInDataFile { guest });
        }
        Ok(Status::Compressed)
    }

    // The place of an encrypted cluster is of no use to a reader, so qemu never tells it.

    #[inline]
    fn data(&self, place: Place) -> Status {
        match (self.encrypted, self.over_holes) {
            (true, _) => Status::Opaque,
            (false, true) => Status::DataOverHoles(place),
            (false, false) => Status::Data(place),
        }
    }

    #[inline]
    fn zero_at(&self, place: Place) -> Status {
        if self.encrypted { Status::Zero } else { Status::ZeroAt(place) }
    }

    #[inline]
    fn absent_at(&self, place: Place) -> Status {
        if self.encrypted { Status::Absent } else { Status::AbsentAt(place) }
    }
}

/// Whether an extended entry that is not compressed agrees with its bitmap: no subcluster is both
/// allocated and zero, and none is allocated in a cluster without a place.
#[inline(always)]
pub(crate) fn is_consistent(entry: u64, bitmap: u64) -> bool {
    let [allocated, zero] = halves(bitmap);
    let wrong = if entry & OFFSET != 0 { allocated & zero } else { allocated };
    wrong == 0
}

/// Bits 0 to 31 (subcluster allocated) and 32 to 63 (subcluster reads as zeros).
#[inline]
fn halves(bitmap: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = bitmap.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use instar_core::testkit::data;
    use pretty_assertions::assert_eq;

    const PLAIN: Rules = Rules {
        cluster: 65536,
        version: 3,
        has_data_file: false,
        encrypted: false,
        over_holes: false,
        absent_has_place: true,
    };
    const HOST: u64 = 0x10_0000;
    const GUEST: u64 = 0x2_0000;

    #[test]
    fn standard_entries() {
        let place = Place::at(HOST);
        for (entry, status) in [
            (0, Status::Absent),
            (COPIED, Status::Absent),
            (0x1fe, Status::Absent),
            (ZERO, Status::Zero),
            (ZERO | COPIED, Status::Zero),
            (HOST, data(HOST)),
            (HOST | COPIED | 0x1fe | 0x3f << 56, data(HOST)),
            (HOST | ZERO, Status::ZeroAt(place)),
            (COMPRESSED, Status::Compressed),
            (COMPRESSED | ZERO | 0x12345, Status::Compressed),
        ] {
            assert_eq!(PLAIN.standard(entry, GUEST), Ok(status), "{entry:#x}");
        }
        let unaligned =
            Err(Error::ClusterUnaligned { guest: GUEST, offset: 0x200, cluster: 65536 });
        assert_eq!(PLAIN.standard(0x200, GUEST), unaligned);
        assert_eq!(PLAIN.standard(0x201, GUEST), unaligned);
    }

    #[test]
    fn standard_entries_elsewhere() {
        let v2 = Rules { version: 2, ..PLAIN };
        assert_eq!(v2.standard(ZERO, GUEST), Err(Error::ZeroInVersion2 { guest: GUEST }));
        let holes = Rules { over_holes: true, ..PLAIN };
        assert_eq!(holes.standard(HOST, GUEST), Ok(Status::DataOverHoles(Place::at(HOST))));
        let encrypted = Rules { encrypted: true, over_holes: true, ..PLAIN };
        assert_eq!(encrypted.standard(HOST, GUEST), Ok(Status::Opaque));
        assert_eq!(encrypted.standard(HOST | ZERO, GUEST), Ok(Status::Zero));
        let file = Rules { has_data_file: true, ..PLAIN };
        assert_eq!(file.standard(0, 0), Ok(Status::Absent));
        assert_eq!(file.standard(COPIED, 0), Ok(data(0)));
        assert_eq!(file.standard(COPIED | ZERO, 0), Ok(Status::Zero));
        assert_eq!(file.standard(GUEST, GUEST), Ok(data(GUEST)));
        let elsewhere = Error::DataFileOffset { guest: GUEST, offset: HOST };
        assert_eq!(file.standard(HOST, GUEST), Err(elsewhere));
        let compressed = Error::CompressedInDataFile { guest: GUEST };
        assert_eq!(file.standard(COMPRESSED, GUEST), Err(compressed));
    }

    #[test]
    fn extended_entries() {
        let place = Place::at(HOST);
        let bits = |allocated: u32, zero: u32| u64::from(zero) << 32 | u64::from(allocated);
        for (entry, bitmap, index, status, run) in [
            (0, 0, 0, Status::Absent, 32),
            (0, bits(0, 0xf0), 0, Status::Absent, 4),
            (0, bits(0, 0xf0), 4, Status::Zero, 4),
            (0, bits(0, !0), 31, Status::Zero, 1),
            (HOST, 0, 3, Status::AbsentAt(place), 29),
            (HOST, bits(6, 8), 0, Status::AbsentAt(place), 1),
            (HOST, bits(6, 8), 1, data(HOST), 2),
            (HOST, bits(6, 8), 3, Status::ZeroAt(place), 1),
            (HOST, bits(!0, 0), 0, data(HOST), 32),
            // Bit 0 of the entry has no meaning here.
            (HOST | ZERO, bits(!0, 0), 0, data(HOST), 32),
            (COMPRESSED, bits(!0, !0), 5, Status::Compressed, 27),
        ] {
            assert_eq!(PLAIN.check_extended(entry, bitmap, GUEST), Ok(()));
            let found = PLAIN.subcluster(entry, bitmap, index, GUEST);
            assert_eq!(found, Ok((status, run)), "{entry:#x} {bitmap:#x} {index}");
        }
        let encrypted = Rules { encrypted: true, ..PLAIN };
        assert_eq!(encrypted.subcluster(HOST, 0, 0, GUEST), Ok((Status::Absent, 32)));
        for (entry, bitmap) in [(0, bits(1, 0)), (HOST, bits(4, 4))] {
            let wrong = Error::ExtendedEntry { guest: GUEST, entry, bitmap };
            assert_eq!(PLAIN.check_extended(entry, bitmap, GUEST), Err(wrong));
        }
    }
}
