//! How large the disk is: the footer says it twice, and writers disagree about what counts.

use instar_core::{QemuVersion, Result, SECTOR};

use crate::disk::{DiskType, Footer, Geometry};
use crate::error::Error;

/// The largest disk that qemu opens: 2040 GiB, a number that Hyper-V and Virtual PC share. It is
/// what blocks can be of; a fixed disk has none.
const MAX_SECTORS: u64 = 0xff00_0000;

/// From this version on, qemu trusts the current size of unknown creators.
const CURRENT_SIZE_BY_DEFAULT: QemuVersion = QemuVersion::new(10, 0);

/// Virtual PC and qemu itself round the disk to a geometry and go by that.
const BY_GEOMETRY: [&[u8; 4]; 2] = [b"vpc ", b"qemu"];

/// Creators whose current size older versions of qemu trust: Hyper-V, qemu with `force_size`,
/// Disk2vhd, and two of XenServer.
const BY_CURRENT_SIZE: [&[u8; 4]; 5] = [b"win ", b"qem2", b"d2v ", b"CTXS", b"tap\0"];

/// The size of the disk in bytes, as `qemu` takes it; `at` is the footer's file offset.
pub(crate) fn virtual_size(footer: &Footer, at: u64, qemu: QemuVersion) -> Result<u64> {
    let sectors = sectors(footer, qemu);
    let size = sectors.saturating_mul(SECTOR);
    // Azure has fixed disks of up to 64 TiB. One that is not in the file is no such disk.
    let is_stored = footer.disk_type == DiskType::Fixed && size <= at;
    if sectors > MAX_SECTORS && !is_stored {
        let at = at.saturating_add(48);
        return Err(Error::Size { sectors, allowed: MAX_SECTORS, at }.into());
    }
    Ok(size)
}

/// Whether the footer at file offset `at` is right behind the disk, by whichever of its sizes.
pub(crate) fn ends_at(footer: &Footer, at: u64) -> bool {
    [footer.geometry.sectors(), footer.current_size / SECTOR].contains(&(at / SECTOR))
}

fn sectors(footer: &Footer, qemu: QemuVersion) -> u64 {
    let by_geometry = if qemu >= CURRENT_SIZE_BY_DEFAULT {
        BY_GEOMETRY.contains(&&footer.creator)
    } else {
        !BY_CURRENT_SIZE.contains(&&footer.creator)
    };
    let geometry = footer.geometry.sectors();
    // The largest geometry stands for "this or more".
    if by_geometry && geometry != Geometry::MAX.sectors() {
        geometry
    } else {
        footer.current_size / SECTOR
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    const OLD: QemuVersion = QemuVersion::new(9, 2);
    const NEW: QemuVersion = QemuVersion::new(10, 0);
    const SMALL: Geometry = Geometry { cylinders: 2, heads: 4, sectors_per_track: 17 };

    fn footer(creator: &[u8; 4], current_size: u64, geometry: Geometry) -> Footer {
        Footer {
            header_offset: 512,
            creator: *creator,
            current_size,
            geometry,
            disk_type: DiskType::Dynamic,
            unique_id: [0; 16],
            creator_version: 0,
        }
    }

    fn size(creator: &[u8; 4], current_size: u64, geometry: Geometry, qemu: QemuVersion) -> u64 {
        virtual_size(&footer(creator, current_size, geometry), 0, qemu).unwrap()
    }

    #[test]
    fn creator_and_version_decide() {
        let (geometry, current) = (2 * 4 * 17 * 512, 70_144);
        for (creator, old, new) in [
            (b"vpc ", geometry, geometry),
            (b"qemu", geometry, geometry),
            (b"win ", current, current),
            (b"qem2", current, current),
            (b"d2v ", current, current),
            (b"CTXS", current, current),
            (b"tap\0", current, current),
            (b"wa\0\0", geometry, current),
            (b"vbox", geometry, current),
            (b"\0\0\0\0", geometry, current),
        ] {
            assert_eq!(size(creator, 70_144 + 511, SMALL, OLD), old, "{creator:?}");
            assert_eq!(size(creator, 70_144 + 511, SMALL, NEW), new, "{creator:?}");
        }
    }

    #[test]
    fn the_largest_geometry_never_counts() {
        for version in [OLD, NEW] {
            assert_eq!(size(b"qemu", 1 << 40, Geometry::MAX, version), 1 << 40);
        }
        // As many sectors in another shape are the same to qemu.
        let other = Geometry { cylinders: 65535, heads: 255, sectors_per_track: 16 };
        assert_eq!(size(b"qemu", 1 << 40, other, NEW), 1 << 40);
    }

    #[test]
    fn more_than_2040_gib_is_refused() {
        let most = MAX_SECTORS * SECTOR;
        assert_eq!(size(b"win ", most + 511, SMALL, NEW), most);
        let error = virtual_size(&footer(b"win ", most + 512, SMALL), 0, NEW).unwrap_err();
        assert_eq!(
            error.to_string(),
            "disk size is 4278190081 sectors, at most 4278190080 are allowed \
             (at file offset 0x30)"
        );
    }

    #[test]
    fn a_fixed_disk_may_be_as_large_as_its_file() {
        let size = (MAX_SECTORS + 1) * SECTOR;
        let fixed = Footer { disk_type: DiskType::Fixed, ..footer(b"wa\0\0", size, SMALL) };
        assert_eq!(virtual_size(&fixed, size, NEW).unwrap(), size);
        assert!(virtual_size(&fixed, size - SECTOR, NEW).is_err());
        assert!(virtual_size(&footer(b"wa\0\0", size, SMALL), size, NEW).is_err());
    }

    #[test]
    fn a_footer_is_right_behind_the_disk_by_either_size() {
        let (geometry, current) = (2 * 4 * 17 * 512, 70_144);
        let footer = footer(b"any ", current + 100, SMALL);
        for (at, is_behind) in [
            (geometry, true),
            (geometry - 512, false),
            (current, true),
            (current + 512, false),
            (0, false),
        ] {
            assert_eq!(ends_at(&footer, at), is_behind, "{at}");
        }
    }
}
