//! The vocabulary in which formats describe a range of the disk.

/// Where bytes lie: a byte offset in one of the layer's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Byte offset in the file.
    pub offset: u64,
    /// Index into [`ExtentSource::files`](crate::ExtentSource::files).
    pub file: u32,
}

impl Place {
    /// The place at `offset` bytes in the layer's first (usually only) file.
    pub const fn at(offset: u64) -> Self {
        Self { offset, file: 0 }
    }

    /// The place at `offset` bytes in the layer's file number `file`.
    pub const fn in_file(file: u32, offset: u64) -> Self {
        Self { offset, file }
    }
}

/// What one layer says about a range of the disk.
///
/// A format never speaks of `present`, `zero` or `data`: the core turns a status into qemu's
/// columns in [`Flags::of`](crate::Flags::of), and only there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Stored plainly at this place.
    Data(Place),
    /// Stored plainly at this place, and qemu would look there for holes of the host file
    /// (qemu's `BDRV_BLOCK_RECURSE`). The core asks the storage and splits the range.
    DataOverHoles(Place),
    /// Stored plainly at this place, which is a hole of the host file. Made by the core from
    /// [`Status::DataOverHoles`]; formats have no use for it.
    DataInHole(Place),
    /// Stored, but not so that a host offset would help (encrypted).
    Opaque,
    /// Stored compressed.
    Compressed,
    /// Reads as zero by a mark in this layer, without space in the file.
    Zero,
    /// Reads as zero by a mark in this layer (or is a hole of a raw file), and has this space.
    ZeroAt(Place),
    /// Not in this layer: the layer below decides, or, if there is none, zeros.
    Absent,
    /// Not in this layer, although the range has space at this place (an unallocated subcluster
    /// of an allocated cluster). The place only counts if no layer below decides.
    AbsentAt(Place),
}

impl Status {
    /// The status of what lies `by` bytes further on in the same extent.
    #[must_use]
    #[inline]
    pub fn advanced(self, by: u64) -> Self {
        // Wrapping: a place near 2^64 is nonsense from a hostile image, printed as such.
        let further = |place: Place| Place { offset: place.offset.wrapping_add(by), ..place };
        match self {
            Self::Data(place) => Self::Data(further(place)),
            Self::DataOverHoles(place) => Self::DataOverHoles(further(place)),
            Self::DataInHole(place) => Self::DataInHole(further(place)),
            Self::ZeroAt(place) => Self::ZeroAt(further(place)),
            Self::AbsentAt(place) => Self::AbsentAt(further(place)),
            Self::Opaque | Self::Compressed | Self::Zero | Self::Absent => self,
        }
    }

    /// The same status with its place, if it has one, in the layer's file number `file`.
    #[must_use]
    pub(crate) fn in_file(self, file: u32) -> Self {
        let there = |place: Place| Place { file, ..place };
        match self {
            Self::Data(place) => Self::Data(there(place)),
            Self::DataOverHoles(place) => Self::DataOverHoles(there(place)),
            Self::DataInHole(place) => Self::DataInHole(there(place)),
            Self::ZeroAt(place) => Self::ZeroAt(there(place)),
            Self::AbsentAt(place) => Self::AbsentAt(there(place)),
            Self::Opaque | Self::Compressed | Self::Zero | Self::Absent => self,
        }
    }

    /// Whether the layer below decides about such a range.
    #[inline]
    pub fn is_absent(self) -> bool {
        matches!(self, Self::Absent | Self::AbsentAt(_))
    }

    /// The place of the range in the layer's files, if it has one.
    #[inline]
    pub fn place(self) -> Option<Place> {
        match self {
            Self::Data(place)
            | Self::DataOverHoles(place)
            | Self::DataInHole(place)
            | Self::ZeroAt(place)
            | Self::AbsentAt(place) => Some(place),
            Self::Opaque | Self::Compressed | Self::Zero | Self::Absent => None,
        }
    }
}
