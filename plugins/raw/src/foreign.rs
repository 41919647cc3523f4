//! Files that are plainly in some other format.
//!
//! Raw can read anything, so a container for which no plugin is compiled in would be mapped as if
//! its bytes were the disk's: a map that looks right and is wrong. So raw does not claim such a
//! file; with `--format raw` it still maps it.

use instar_core::Probe;

/// What a format's files start with, by which qemu knows them.
struct Signature {
    /// Byte offset in the file.
    at: usize,
    bytes: &'static [u8],
}

const fn signature(at: usize, bytes: &'static [u8]) -> Signature {
    Signature { at, bytes }
}

/// Each by the specification or documentation of its format.
const SIGNATURES: [Signature; 14] = [
    // qcow, version 1; qcow2.
    signature(0, b"QFI\xfb\0\0\0\x01"),
    signature(0, b"QFI\xfb\0\0\0\x02"),
    signature(0, b"QFI\xfb\0\0\0\x03"),
    // VMDK: hosted sparse and ESX sparse extents.
    signature(0, b"KDMV"),
    signature(0, b"COWD"),
    // VHD with a copy of its footer in front, VHDX.
    signature(0, b"conectix"),
    signature(0, b"vhdxfile"),
    // VDI.
    signature(0x40, b"\x7f\x10\xda\xbe"),
    // QED.
    signature(0, b"QED\0"),
    // Parallels, both kinds, version 2.
    signature(0, b"WithoutFreeSpace\x02\0\0\0"),
    signature(0, b"WithouFreSpacExt\x02\0\0\0"),
    // Bochs.
    signature(0, b"Bochs Virtual HD Image\0"),
    // LUKS, version 1.
    signature(0, b"LUKS\xba\xbe\0\x01"),
    // cloop.
    signature(
        0,
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n",
    ),
];

/// Whether the file starts as one of another format.
pub(crate) fn is_foreign(probe: &Probe<'_>) -> bool {
    SIGNATURES.iter().any(|signature| probe.has_magic(signature.at, signature.bytes))
}

#[cfg(test)]
mod tests {
    use instar_core::testkit::probe;
    use instar_core::{Confidence, MemoryStorage};
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::Raw;

    #[test]
    fn raw_does_not_claim_what_is_plainly_another_format() {
        for Signature { at, bytes } in SIGNATURES {
            let storage = MemoryStorage::new(4096).with_data(at as u64, bytes);
            assert_eq!(probe(&Raw, &storage), Confidence::No, "{bytes:?}");
            let mut other = bytes.to_vec();
            *other.last_mut().unwrap() ^= 0x80;
            let storage = MemoryStorage::new(4096).with_data(at as u64, other);
            assert_eq!(probe(&Raw, &storage), Confidence::Fallback, "{bytes:?}");
        }
        assert_eq!(probe(&Raw, &MemoryStorage::new(0)), Confidence::Fallback);
    }
}
