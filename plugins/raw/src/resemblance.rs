//! Files that are mapped as raw but look like something else.
//!
//! qemu maps such a file as raw without a message, and so does instar: its map is right if the file
//! really is a disk. A user who packed an image, or has one in a format that nobody here reads, gets a
//! note. Disks with a partition table, a file system or nothing but zeros resemble nothing.
//!
//! A signature of two or three bytes alone could be the start of a boot loader's code, so those are
//! checked together with other fields.

use instar_core::Probe;

/// What a file may resemble.
struct Kind {
    /// Completes "it looks like".
    name: &'static str,
    test: Test,
}

enum Test {
    /// Bytes at an offset in the file.
    Signature(usize, &'static [u8]),
    /// Bytes at the start of the last sector.
    Trailer(&'static [u8]),
    /// A rule on the first 128 KiB.
    Head(fn(&[u8]) -> bool),
}

const fn starts(name: &'static str, bytes: &'static [u8]) -> Kind {
    Kind { name, test: Test::Signature(0, bytes) }
}

const fn head(name: &'static str, rule: fn(&[u8]) -> bool) -> Kind {
    Kind { name, test: Test::Head(rule) }
}

/// Each with the source of its signature. The first that fits counts.
const KINDS: &[Kind] = &[
    // RFC 1952, 2.3.1.
    head("gzip data", is_gzip),
    // The .xz File Format 1.2.1, 2.1.1.1.
    starts("xz data", b"\xfd7zXZ\0"),
    // RFC 8878, 3.1.1: magic number 0xFD2FB528, little-endian.
    starts("zstd data", b"\x28\xb5\x2f\xfd"),
    // bzip2 1.0.8, compress.c.
    head("bzip2 data", is_bzip2),
    // LZ4 Frame Format 1.6.4: magic number 0x184D2204, little-endian.
    starts("LZ4 data", b"\x04\x22\x4d\x18"),
    // lzop 1.04, lzop.c: lzop_magic. Proxmox VE packs backups with it.
    starts("lzop data", b"\x89LZO\0\r\n\x1a\n"),
    // APPNOTE.TXT 6.3.10, 4.3.7: local file header.
    starts("a zip archive", b"PK\x03\x04"),
    // 7zFormat.txt of 7-Zip: kSignature.
    starts("a 7z archive", b"7z\xbc\xaf\x27\x1c"),
    // DSP0243 (OVF) 2.1.1, 5.3: a tar file whose first member is the descriptor, *.ovf.
    head("an OVA archive", is_ova),
    // POSIX.1-2017, pax, "ustar Interchange Format".
    head("a tar archive", is_tar),
    // libewf, "Expert Witness Compression Format" 3.1 and its version 2, 3.1.
    starts("an EWF image (E01)", b"EVF\x09\r\n\xff\0"),
    starts("an EWF image (Ex01)", b"EVF2\r\n\x81\0"),
    starts("an EWF logical image (L01)", b"LVF\x09\r\n\xff\0"),
    starts("an EWF logical image (Lx01)", b"LEF2\r\n\x81\0"),
    // AFFLIB, afflib_i.h: AF_HEADER.
    starts("an AFF image", b"AFF10\r\n\0"),
    // Proxmox VE, vma_spec.txt.
    starts("a VMA backup archive", b"VMA\0"),
    // Microsoft, "Windows Imaging File Format (WIM)": ImageTag.
    starts("a WIM archive", b"MSWIM\0\0\0"),
    // partclone, partclone.h: IMAGE_MAGIC; ntfsclone.c: IMAGE_MAGIC.
    starts("a partclone image", b"partclone-image"),
    starts("an ntfsclone image", b"\0ntfsclone-image"),
    // AOSP, libsparse, sparse_format.h: SPARSE_HEADER_MAGIC 0xed26ff3a, little-endian.
    starts("an Android sparse image", b"\x3a\xff\x26\xed"),
    // Apple's sparse images: signature, then the version, big-endian. No published specification;
    // seen in images of macOS 26 (version 1) and of hdiutil (version 3).
    starts("an Apple sparse image (ASIF)", b"shdw\0\0\0\x01"),
    starts("an Apple sparse disk image (sparseimage)", b"sprs\0\0\0\x03"),
    // Encrypted images of hdiutil; libmodi, "Mac OS disk image types".
    starts("an encrypted Apple disk image", b"encrcdsa"),
    // Ceph, doc/dev/rbd-diff.rst and rbd-export.rst.
    starts("an RBD diff", b"rbd diff v1\n"),
    starts("an RBD diff", b"rbd diff v2\n"),
    starts("an RBD export", b"rbd image v1\n"),
    starts("an RBD export", b"rbd image v2\n"),
    // FreeBSD, geom_uzip, and cloop: a script whose second line names the format.
    head("a cloop or uzip image", is_uzip),
    // qemu, block/vmdk.c: SESPARSE_CONST_HEADER_MAGIC 0xcafebabe, 64 bits little-endian.
    starts("a VMDK seSparse extent", b"\xbe\xba\xfe\xca\0\0\0\0"),
    // VMware, "Virtual Disk Format 5.0", The Text Descriptor File.
    head("a VMDK descriptor", is_descriptor),
    // The formats of `foreign.rs` in versions that nobody knows, and those with a trailer: of use if
    // their plugins are not compiled in.
    starts("a qcow image", b"QFI\xfb"),
    starts("a LUKS volume", b"LUKS\xba\xbe"),
    starts("a Parallels image", b"WithoutFreeSpace"),
    starts("a Parallels image", b"WithouFreSpacExt"),
    Kind { name: "a fixed VHD image", test: Test::Trailer(b"conectix") },
    Kind { name: "an Apple disk image (UDIF)", test: Test::Trailer(b"koly\0\0\0\x04") },
    // ECMA-119, 8.1: sector 16 of 2048 bytes starts with a type and `CD001`. Last: a hybrid image for
    // USB sticks is a disk as well.
    Kind { name: "an ISO 9660 image", test: Test::Signature(0x8001, b"CD001") },
];

/// What the file looks like, if it is one of [`KINDS`].
pub(crate) fn resembles(probe: &Probe<'_>) -> Option<&'static str> {
    let fits = |kind: &&Kind| match kind.test {
        Test::Signature(at, bytes) => has(probe.head(), at, bytes),
        Test::Trailer(bytes) => has(probe.last_sector(), 0, bytes),
        Test::Head(rule) => rule(probe.head()),
    };
    KINDS.iter().find(fits).map(|kind| kind.name)
}

fn has(bytes: &[u8], at: usize, wanted: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(wanted))
}

/// ID1, ID2, method 8 (deflate, the only one), and no reserved flag.
fn is_gzip(head: &[u8]) -> bool {
    has(head, 0, b"\x1f\x8b\x08") && head.get(3).is_some_and(|flags| flags & 0xe0 == 0)
}

/// `BZh`, the block size as a digit, then a block or, in an empty file, the end of the stream.
fn is_bzip2(head: &[u8]) -> bool {
    const BLOCK: &[u8] = b"\x31\x41\x59\x26\x53\x59";
    const END: &[u8] = b"\x17\x72\x45\x38\x50\x90";
    has(head, 0, b"BZh")
        && head.get(3).is_some_and(|digit| (b'1'..=b'9').contains(digit))
        && (has(head, 4, BLOCK) || has(head, 4, END))
}

/// Whether the first sector is the header of a tar member: its checksum is right. Old tars have no
/// signature.
fn is_tar(head: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let Some(header) = head.first_chunk::<512>() else { return false };
    let stored = header.get(CHECKSUM).unwrap_or_default();
    let digits = stored.trim_ascii_start().split(|byte| matches!(byte, 0 | b' ')).next();
    let stored = digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u32::from_str_radix(digits, 8).ok());
    // The sum of all bytes, those of the checksum taken as spaces.
    let byte = |(at, byte): (usize, &u8)| match CHECKSUM.contains(&at) {
        true => u32::from(b' '),
        false => u32::from(*byte),
    };
    header[0] != 0 && stored == Some(header.iter().enumerate().map(byte).sum())
}

fn is_ova(head: &[u8]) -> bool {
    let name = head.get(..100).unwrap_or_default().split(|byte| *byte == 0).next();
    let is_ovf = name.is_some_and(|name| name.to_ascii_lowercase().ends_with(b".ovf"));
    is_ovf && is_tar(head)
}

/// `#V2.0`, `#L3.0` and `#Z4.0` are zlib, LZMA and zstd.
fn is_uzip(head: &[u8]) -> bool {
    let Some(line) = head.strip_prefix(b"#!/bin/sh\n#") else { return false };
    matches!(line, [b'V' | b'L' | b'Z', major, b'.', minor, ..]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Whether the text has the comment with which descriptors start, or a line for `createType`.
/// Here are those that do not start as qemu wants it: after a byte order mark or an empty line, with
/// `encoding` before `version`, or of another version.
fn is_descriptor(head: &[u8]) -> bool {
    /// Where what all descriptors have must be (instar's own limit).
    const TEXT: usize = 4096;
    const CREATE_TYPE: &[u8] = b"createType";
    let text = head.get(..TEXT).unwrap_or(head);
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii_start();
    let starts = |line: &[u8], with: &[u8]| {
        line.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    starts(text, b"# Disk DescriptorFile")
        || text.split(|byte| *byte == b'\n').any(|line| {
            let line = line.trim_ascii_start();
            let value = line.get(CREATE_TYPE.len()..).unwrap_or_default().trim_ascii_start();
            starts(line, CREATE_TYPE) && value.starts_with(b"=")
        })
}

#[cfg(test)]
mod tests {
    use instar_core::MemoryStorage;
    use instar_core::testkit::resembles;
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::Raw;

    fn of(bytes: impl Into<Vec<u8>>) -> Option<&'static str> {
        resembles(&Raw, &MemoryStorage::from_bytes(bytes))
    }

    #[test]
    fn signatures_count_with_all_their_bytes() {
        let mut signatures = 0;
        for Kind { name, test } in KINDS {
            let (at, bytes) = match test {
                Test::Signature(at, bytes) => (*at, *bytes),
                Test::Trailer(bytes) => (65536 - 512, *bytes),
                Test::Head(_) => continue,
            };
            let file = |bytes: &[u8]| {
                let mut file = vec![0; 65536];
                file[at..at + bytes.len()].copy_from_slice(bytes);
                file
            };
            assert_eq!(of(file(bytes)), Some(*name), "{bytes:?}");
            for index in 0..bytes.len() {
                let mut other = bytes.to_vec();
                other[index] ^= 0x80;
                assert_eq!(of(file(&other)), None, "{name}: byte {index}");
            }
            let moved = MemoryStorage::new(65536).with_data(at as u64 - u64::from(at > 0), bytes);
            assert_eq!(resembles(&Raw, &moved).is_none(), at > 0, "{name}");
            signatures += 1;
        }
        assert_eq!(signatures, 31);
    }

    #[test]
    fn gzip_and_bzip2_need_more_than_two_bytes() {
        let gzip = Some("gzip data");
        assert_eq!(of(*b"\x1f\x8b\x08\x00"), gzip);
        assert_eq!(of(*b"\x1f\x8b\x08\x1f"), gzip);
        for other in [*b"\x1f\x8b\x08\x20", *b"\x1f\x8b\x08\x80", *b"\x1f\x8b\x07\x00"] {
            assert_eq!(of(other), None, "{other:?}");
        }
        let bzip2 = Some("bzip2 data");
        assert_eq!(of(*b"BZh9\x31\x41\x59\x26\x53\x59"), bzip2);
        assert_eq!(of(*b"BZh1\x17\x72\x45\x38\x50\x90"), bzip2);
        for other in [*b"BZh9\x31\x41\x59\x26\x53\x58", *b"BZh0\x31\x41\x59\x26\x53\x59"] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    /// The header of a member with this name, as ustar or as an old tar.
    fn tar(name: &str, magic: &[u8], checksum: impl Fn(u32) -> String) -> Vec<u8> {
        let mut header = vec![0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(b"00000001000");
        header[148..156].fill(b' ');
        header[257..257 + magic.len()].copy_from_slice(magic);
        let sum = checksum(header.iter().map(|byte| u32::from(*byte)).sum());
        header[148..148 + sum.len()].copy_from_slice(sum.as_bytes());
        header
    }

    #[test]
    fn archives_are_known_by_the_checksum_of_their_first_member() {
        let usual = |sum| format!("{sum:06o}\0 ");
        for magic in [b"ustar\x0000".as_slice(), b"ustar  \0", b""] {
            assert_eq!(of(tar("vm.ovf", magic, usual)), Some("an OVA archive"));
            assert_eq!(of(tar("./VM.OVF", magic, usual)), Some("an OVA archive"));
            assert_eq!(of(tar("disk.vmdk", magic, usual)), Some("a tar archive"));
            assert_eq!(
                of(tar("disk.vmdk", magic, |sum| format!(" {sum:o}\0"))),
                Some("a tar archive")
            );
            let wrong = |sum: u32| format!("{:06o}\0 ", sum + 1);
            assert_eq!(of(tar("vm.ovf", magic, wrong)), None);
            assert_eq!(of(tar("vm.ovf", magic, |_| String::new())), None);
            assert_eq!(of(tar("", magic, usual)), None);
        }
    }

    #[test]
    fn scripts_of_cloop_and_uzip() {
        for line in ["V2.0 Format", "L3.0", "Z4.0 Format"] {
            let script = format!("#!/bin/sh\n#{line}\nm=geom_uzip\n");
            assert_eq!(of(script), Some("a cloop or uzip image"), "{line}");
        }
        for script in ["#!/bin/sh\n#X2.0 Format\n", "#!/bin/sh\n# V2.0\n", "#!/bin/sh\necho\n"] {
            assert_eq!(of(script), None, "{script:?}");
        }
    }

    #[test]
    fn descriptors_that_qemu_does_not_know() {
        let kind = Some("a VMDK descriptor");
        for text in [
            "\u{feff}# Disk DescriptorFile\nversion=1\n",
            "\n# Disk DescriptorFile\nversion=1\n",
            "# disk descriptorfile\r\nversion=4\r\n",
            "encoding=\"UTF-8\"\nversion=1\ncreateType=\"monolithicFlat\"\n",
            "version = 1\n createType = \"vmfs\"\n",
        ] {
            assert_eq!(of(text), kind, "{text:?}");
        }
        for text in [
            "",
            "version=1\n",
            "# createType\n",
            "createType\n=x",
            "createTypes of disks = 2\n",
            "\0# Disk DescriptorFile\n",
        ] {
            assert_eq!(of(text), None, "{text:?}");
        }
        let far = |spaces: usize| format!("{}\ncreateType=\n", " x\n".repeat(spaces));
        assert_eq!((of(far(1000)), of(far(2000))), (kind, None));
    }

    /// What disks start with.
    #[test]
    fn disks_resemble_nothing() {
        let mut bootable = vec![0; 1 << 20];
        bootable[..4].copy_from_slice(b"\xeb\x63\x90\x10");
        bootable[510..512].copy_from_slice(b"\x55\xaa");
        let mut partitioned = bootable.clone();
        partitioned[512..520].copy_from_slice(b"EFI PART");
        let mut ntfs = bootable.clone();
        ntfs[..11].copy_from_slice(b"\xeb\x52\x90NTFS    ");
        let mut ext = vec![0; 1 << 20];
        ext[1080..1082].copy_from_slice(b"\x53\xef");
        for disk in [vec![], vec![0; 512], vec![0; 1 << 20], vec![0xff; 1 << 20]] {
            assert_eq!(of(disk), None);
        }
        for disk in [bootable, partitioned, ntfs, ext, b"hsqs".to_vec(), b"XFSB".to_vec()] {
            assert_eq!(of(disk), None);
        }
    }
}
