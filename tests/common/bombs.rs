//! Images that ask for more time or memory than they have any right to. Each is a few blocks on
//! disk; lengths are mostly holes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

#[path = "bombs_vhdx.rs"]
mod bombs_vhdx;

use bombs_vhdx::{log, vhdx};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// One image, or one folder of images.
pub(crate) struct Bomb {
    /// Also the name of its file.
    pub(crate) name: &'static str,
    /// The format that must be compiled in for it.
    pub(crate) format: &'static str,
    /// What it is, for the table in docs/security.md.
    pub(crate) about: &'static str,
    /// Arguments besides `map` and the name.
    pub(crate) args: &'static [&'static str],
    /// How a map ends.
    pub(crate) end: End,
    make: fn(&Path) -> io::Result<()>,
}

/// How a map of a bomb ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With so many lines of JSON.
    Rows(u64),
    /// With an error that says this.
    Error(&'static str),
}

impl Bomb {
    /// Puts it into `folder`. Not every file system can hold files of every length.
    pub(crate) fn make(&self, folder: &Path) -> io::Result<()> {
        (self.make)(&folder.join(self.name))
    }
}

const JSON: &[&str] = &["--output=json"];
const FOLLOW: &[&str] = &["--output=json", "--external=follow"];

/// All of them.
pub(crate) const BOMBS: &[Bomb] = &[
    Bomb {
        name: "shared-l2.qcow2",
        format: "qcow2",
        about: "327,680 bytes in which 8192 L1 entries name one L2 table: 67 million ranges",
        args: JSON,
        end: End::Rows(8192 * 8192),
        make: |path| {
            shared_table(path, 16, 8192, |cluster| if cluster % 2 == 0 { DATA } else { 0 })
        },
    },
    Bomb {
        name: "self-backed.qcow2",
        format: "qcow2",
        about: "an image that is its own backing file",
        args: FOLLOW,
        end: End::Error("the images name each other in a circle"),
        make: |path| layer(path, path.file_name().and_then(|name| name.to_str()), 1 << 16),
    },
    Bomb {
        name: "truncated.qcow2",
        format: "qcow2",
        about: "cut off before its tables",
        args: JSON,
        end: End::Error("is outside the file"),
        make: |path| Header { size: 1 << 30, ..Header::default() }.write(path, 1 << 16).map(drop),
    },
    Bomb {
        name: "largest.qcow2",
        format: "qcow2",
        about: "the largest disk, 2 EiB, and empty: an L1 table of 32 MiB in a hole",
        args: JSON,
        end: End::Rows(1),
        make: |path| jumbo().write(path, 64 * MIB).map(drop),
    },
    Bomb {
        name: "one-l2.qcow2",
        format: "qcow2",
        about: "2 EiB whose 4 million L1 entries name one L2 table without clusters",
        args: JSON,
        end: End::Rows(1),
        make: |path| {
            // One entry is not zero, so that it is not a hole.
            let file = jumbo().write(path, 64 * MIB)?;
            file.write_all_at(&entries(JUMBO, |_| 40 * MIB), 2 * MIB)?;
            file.write_all_at(&vec![0; 2 << 20], 40 * MIB)
        },
    },
    Bomb {
        name: "l2-in-holes.qcow2",
        format: "qcow2",
        about: "2 EiB whose 4 million L1 entries name 4 million L2 tables in a hole of 8 TiB",
        args: JSON,
        end: End::Rows(1),
        make: |path| {
            let file = jumbo().write(path, (64 + 2 * JUMBO) * MIB)?;
            file.write_all_at(&entries(JUMBO, |index| (64 + 2 * index) * MIB), 2 * MIB)
        },
    },
    Bomb {
        name: "unlike.qcow2",
        format: "qcow2",
        about: "10 MiB, most of it holes, in which 8192 L1 entries name one L2 table of 2 MiB, every other entry of which is absent in another way",
        args: JSON,
        end: End::Rows(1),
        make: |path| shared_table(path, 21, 8192, |cluster| (cluster % 2) << 63),
    },
    Bomb {
        name: "unlike-zeros.qcow2",
        format: "qcow2",
        about: "the same where every other entry is zero in another way",
        args: JSON,
        end: End::Rows(1),
        make: |path| shared_table(path, 21, 8192, |cluster| (cluster % 2) << 63 | 1),
    },
    Bomb {
        name: "unlike-64k.qcow2",
        format: "qcow2",
        about: "100,000 L1 entries that name such a table of 64 KiB",
        args: JSON,
        end: End::Rows(1),
        make: |path| {
            let header =
                Header { size: 100_000 << 29, l1_entries: 100_000, l1_at: 5, ..Header::default() };
            let file = header.write(path, 20 << 16)?;
            file.write_all_at(&entries(100_000, |_| 4 << 16), 5 << 16)?;
            file.write_all_at(&entries(8192, |cluster| (cluster % 2) << 63), 4 << 16)
        },
    },
    Bomb {
        name: "unlike-extended.qcow2",
        format: "qcow2",
        about: "4096 L1 entries that name such a table of 2 MiB of extended entries",
        args: JSON,
        end: End::Rows(1),
        make: |path| {
            shared_table(path, 21, 4096, |word| (word % 4 / 2) << 63)?;
            extend(path)
        },
    },
    Bomb {
        name: "hidden.qcow2",
        format: "qcow2",
        about: "4096 L1 entries that name a table in which every other cluster has a place but no subcluster, over an empty image",
        args: FOLLOW,
        end: End::Rows(1),
        make: |path| {
            shared_table(path, 21, 4096, |word| if word % 4 == 0 { 8 * MIB } else { 0 })?;
            extend(path)?;
            let below = path.with_extension("below.qcow2");
            let name = below.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let file = File::options().write(true).open(path)?;
            file.write_all_at(&1024_u64.to_be_bytes(), 8)?;
            file.write_all_at(&u32::try_from(name.len()).unwrap_or(0).to_be_bytes(), 16)?;
            file.write_all_at(name.as_bytes(), 1024)?;
            Header { cluster_bits: 21, size: 4096 << 39, l1_entries: 4096, ..Header::default() }
                .write(&below, 10 * MIB)
                .map(drop)
        },
    },
    Bomb {
        name: "halves.qcow2",
        format: "qcow2",
        about: "8192 L1 entries that name a table of which half is absent and half zero, both in two ways",
        args: JSON,
        end: End::Rows(2 * 8192),
        make: |path| shared_table(path, 21, 8192, |cluster| (cluster % 2) << 63 | cluster >> 17),
    },
    Bomb {
        name: "rotation.qcow2",
        format: "qcow2",
        about: "1,048,576 L1 entries that name 32 such tables in turn, 64 MiB, absent in two ways",
        args: JSON,
        end: End::Rows(1),
        make: |path| {
            let count = 1_u64 << 20;
            let header =
                Header { size: count << 39, l1_entries: count, refcounts_at: 45, ..jumbo() };
            let file = header.write(path, 104 * MIB)?;
            file.write_all_at(&entries(count, |index| (20 + index % 32 * 2) * MIB), 2 * MIB)?;
            file.write_all_at(&entries(32 << 18, |cluster| (cluster % 2) << 63), 20 * MIB)
        },
    },
    Bomb {
        name: "unlike.qcow",
        format: "qcow",
        about: "100,000 L1 entries that name one L2 table of 64 KiB of compressed clusters",
        args: JSON,
        end: End::Rows(1),
        make: |path| qcow(path, 100_000, |_| 0),
    },
    Bomb {
        name: "overlapping.qcow",
        format: "qcow",
        about: "1,048,576 L1 entries that name as many tables, each 8 bytes after the last, in 8 MiB",
        args: JSON,
        end: End::Rows(1),
        make: |path| qcow(path, 1 << 20, |index| index % (1 << 19) * 8),
    },
    Bomb {
        name: "zeros.qed",
        format: "qed",
        about: "8192 L1 entries that name one L2 table of 2 MiB of zero clusters",
        args: JSON,
        end: End::Rows(1),
        make: |path| {
            let file = qed_header(path, 1 << 21, 1, 2 * MIB, 8192 << 39, 6 * MIB)?;
            let table = (4 * MIB).to_le_bytes().repeat(8192);
            file.write_all_at(&table, 2 * MIB)?;
            file.write_all_at(&1_u64.to_le_bytes().repeat(1 << 18), 4 * MIB)
        },
    },
    Bomb {
        name: "zeros.vmdk",
        format: "vmdk",
        about: "4,194,304 directory entries that name one grain table of zero grains",
        args: JSON,
        end: End::Rows(1),
        make: |path| {
            let mut header = vmdk_header(4 << 30, 2);
            header[4..12].copy_from_slice(&[2, 0, 0, 0, 5, 0, 0, 0]);
            let file = File::create(path)?;
            file.write_all_at(&header, 0)?;
            file.write_all_at(&1_u32.to_le_bytes().repeat(512), 64 * KIB)?;
            file.write_all_at(&128_u32.to_le_bytes().repeat(4 << 20), MIB)
        },
    },
    Bomb {
        name: "again.vmdk",
        format: "vmdk",
        about: "a descriptor that names one sparse extent 400 times, with a directory of 256 KiB that names one grain table",
        args: FOLLOW,
        end: End::Error("the number of table entries walked, many of them more than once, is"),
        make: |path| {
            let mut header = vmdk_header(1 << 26, 2);
            header[4..12].copy_from_slice(&[2, 0, 0, 0, 5, 0, 0, 0]);
            let file = File::create(path.with_extension("extent.vmdk"))?;
            file.write_all_at(&header, 0)?;
            file.write_all_at(&1_u32.to_le_bytes().repeat(512), 64 * KIB)?;
            file.write_all_at(&128_u32.to_le_bytes().repeat(1 << 16), MIB)?;
            let text = descriptor("RW 67108864 SPARSE \"again.extent.vmdk\"\n", 400);
            fs::write(path, text.replace("twoGbMaxExtentFlat", "twoGbMaxExtentSparse"))
        },
    },
    Bomb {
        name: "deep-200.qcow2",
        format: "qcow2",
        about: "a chain of 201 images, in each of which a table of 2 MiB is read",
        args: FOLLOW,
        end: End::Rows(8194),
        make: chain,
    },
    Bomb {
        name: "shared-l2.qed",
        format: "qed",
        about: "8 EiB whose 1024 L1 entries name one L2 table, of 1 GiB and in a hole",
        args: JSON,
        end: End::Rows(1),
        make: qed,
    },
    Bomb {
        name: "largest.raw",
        format: "raw",
        about: "the longest sparse file that the host can make, 2^62 bytes at most",
        args: &["--output=json", "-f", "raw"],
        end: End::Rows(1),
        make: longest,
    },
    Bomb {
        name: "largest.vmdk",
        format: "vmdk",
        about: "2^62 bytes in grains of 1 GiB: a grain directory of 32 MiB in a hole",
        args: JSON,
        end: End::Rows(1),
        make: |path| {
            let file = File::create(path)?;
            file.set_len(64 * MIB)?;
            file.write_all_at(&vmdk_header(1 << 53, 1 << 21), 0)
        },
    },
    Bomb {
        name: "extents.vmdk",
        format: "vmdk",
        about: "a descriptor of a million extents, 11 MB",
        args: &["--output=json", "--external=ignore"],
        end: End::Error("the descriptor is longer than 1048576 bytes"),
        make: |path| fs::write(path, descriptor("RW 1 ZERO\n", 1_000_000)),
    },
    Bomb {
        name: "flat-extents.vmdk",
        format: "vmdk",
        about: "a descriptor of as many extents as are allowed, in one file",
        args: &["--output=json", "--external=ignore"],
        end: End::Rows(65_530),
        make: |path| fs::write(path, descriptor("RW 1 FLAT \"f\" 0\n", 65_530)),
    },
    Bomb {
        name: "largest.vhd",
        format: "vhd",
        about: "2040 GiB in blocks of 4 KiB: a block allocation table of 2 GiB",
        args: &["--output=json", "-l", "1G"],
        end: End::Rows(262_144),
        make: vhd,
    },
    Bomb {
        name: "largest.vhdx",
        format: "vhdx",
        about: "64 TiB in blocks of 1 MiB: a block allocation table of 512 MiB in a hole",
        args: JSON,
        end: End::Rows(1),
        make: |path| vhdx(path, 64 << 40, &[]),
    },
    Bomb {
        name: "log.vhdx",
        format: "vhdx",
        about: "a log of 65,536 updates that was not written back",
        args: JSON,
        end: End::Rows(1),
        make: |path| vhdx(path, 1 << 30, &log()),
    },
];

// qcow2 ---------------------------------------------------------------------------------------

/// An L2 entry of a data cluster that is inside every image here: its own L2 table.
const DATA: u64 = 1 << 63 | 4 << 16;
/// L1 entries of the largest L1 table that qemu reads.
const JUMBO: u64 = 4 << 20;

/// A qcow2 header. The refcount table has one cluster, the L1 table the next one.
struct Header {
    cluster_bits: u32,
    size: u64,
    l1_entries: u64,
    /// In clusters.
    l1_at: u64,
    refcounts_at: u64,
    backing: Option<String>,
}

impl Default for Header {
    fn default() -> Self {
        let (l1_at, refcounts_at) = (3, 1);
        Self { cluster_bits: 16, size: 1 << 20, l1_entries: 2, l1_at, refcounts_at, backing: None }
    }
}

impl Header {
    /// Makes a file of `length` bytes with this header.
    fn write(&self, path: &Path, length: u64) -> io::Result<File> {
        let mut bytes = vec![0; 2048];
        let cluster = 1_u64 << self.cluster_bits;
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"QFI\xfb");
        put(4, &3_u32.to_be_bytes());
        if let Some(name) = &self.backing {
            put(8, &1024_u64.to_be_bytes());
            put(16, &u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
            put(1024, name.as_bytes());
        }
        put(20, &self.cluster_bits.to_be_bytes());
        put(24, &self.size.to_be_bytes());
        put(36, &u32::try_from(self.l1_entries).unwrap_or(u32::MAX).to_be_bytes());
        put(40, &(self.l1_at * cluster).to_be_bytes());
        put(48, &(self.refcounts_at * cluster).to_be_bytes());
        put(56, &1_u32.to_be_bytes());
        put(96, &4_u32.to_be_bytes());
        put(100, &104_u32.to_be_bytes());
        let file = File::create(path)?;
        file.write_all_at(&bytes, 0)?;
        file.set_len(length)?;
        Ok(file)
    }
}

/// 2 EiB: clusters of 2 MiB, the L1 table at 2 MiB.
fn jumbo() -> Header {
    Header {
        cluster_bits: 21,
        size: JUMBO << 39,
        l1_entries: JUMBO,
        l1_at: 1,
        refcounts_at: 18,
        ..Header::default()
    }
}

fn entries(count: u64, entry: impl Fn(u64) -> u64) -> Vec<u8> {
    (0..count).flat_map(|index| entry(index).to_be_bytes()).collect()
}

/// All L1 entries name one L2 table: header, refcount table, a cluster that is not used, L1 table,
/// L2 table.
fn shared_table(
    path: &Path,
    cluster_bits: u32,
    count: u64,
    entry: impl Fn(u64) -> u64,
) -> io::Result<()> {
    let cluster = 1_u64 << cluster_bits;
    let size = count * (cluster / 8) * cluster;
    let header = Header { cluster_bits, size, l1_entries: count, ..Header::default() };
    let file = header.write(path, 5 * cluster)?;
    file.write_all_at(&entries(count, |_| 4 * cluster), 3 * cluster)?;
    file.write_all_at(&entries(cluster / 8, entry), 4 * cluster)
}

/// An empty image over another one.
fn layer(path: &Path, backing: Option<&str>, length: u64) -> io::Result<()> {
    let backing = backing.map(str::to_owned);
    Header { backing, ..Header::default() }.write(path, length.max(4 << 16)).map(drop)
}

/// 201 images of 512 GiB with one L2 table each, of 2 MiB. In the lowest one, every other of the first
/// clusters is marked as zero, in the others the last cluster. So every layer is asked about nearly
/// all of the disk, and reads all of its table.
fn chain(path: &Path) -> io::Result<()> {
    const PER_TABLE: u64 = 2 * MIB / 8;
    let name = |depth: u32| match depth {
        0 => path.to_owned(),
        depth => path.with_extension(format!("{depth}.qcow2")),
    };
    for depth in 0..=200_u32 {
        let below = name(depth + 1);
        let below = below.file_name().and_then(|name| name.to_str());
        let backing = below.filter(|_| depth < 200).map(str::to_owned);
        let size = PER_TABLE * 2 * MIB;
        let header = Header { cluster_bits: 21, size, l1_entries: 1, backing, ..Header::default() };
        let file = header.write(&name(depth), 10 * MIB)?;
        file.write_all_at(&(8 * MIB).to_be_bytes(), 6 * MIB)?;
        match depth {
            200 => file.write_all_at(&entries(8192, |index| index % 2), 8 * MIB)?,
            _ => file.write_all_at(&1_u64.to_be_bytes(), 10 * MIB - 8)?,
        }
    }
    Ok(())
}

/// Makes the entries of a table extended ones: an image of the same table is half as long.
fn extend(path: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(&(4096_u64 << 38).to_be_bytes(), 24)?;
    file.write_all_at(&(1_u64 << 4).to_be_bytes(), 72)
}

/// L1 entries that name tables of 64 KiB, each so many bytes from the first on, in entries that say
/// compressed.
fn qcow(path: &Path, count: u64, from: impl Fn(u64) -> u64) -> io::Result<()> {
    let mut bytes = vec![0; 48];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb");
    put(4, &1_u32.to_be_bytes());
    put(24, &(count << 22).to_be_bytes());
    put(32, &[9, 13]);
    put(40, &512_u64.to_be_bytes());
    let tables = 16 * MIB;
    let file = File::create(path)?;
    file.write_all_at(&bytes, 0)?;
    file.write_all_at(&entries(count, |index| tables + from(index)), 512)?;
    let length = (0..count).map(from).max().unwrap_or(0) / 8 + (64 << 10) / 8;
    file.write_all_at(&entries(length, |index| 1 << 63 | index), tables)
}

/// Clusters of 64 MiB, tables of 16 of them.
fn qed(path: &Path) -> io::Result<()> {
    let file = qed_header(path, 1 << 26, 16, 1 << 30, (1 << 63) - (1 << 30), 3 << 30)?;
    let table = (2_u64 << 30).to_le_bytes();
    (0..1024).try_for_each(|index| file.write_all_at(&table, (1 << 30) + index * 8))
}

/// A file of `length` bytes with the header of a disk of `size`, with tables of so many clusters.
fn qed_header(
    path: &Path,
    cluster: u32,
    table: u32,
    l1: u64,
    size: u64,
    length: u64,
) -> io::Result<File> {
    let mut bytes = vec![0; 64];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QED\0");
    put(4, &cluster.to_le_bytes());
    put(8, &table.to_le_bytes());
    put(12, &1_u32.to_le_bytes());
    put(40, &l1.to_le_bytes());
    put(48, &size.to_le_bytes());
    let file = File::create(path)?;
    file.set_len(length)?;
    file.write_all_at(&bytes, 0)?;
    Ok(file)
}

// raw, VMDK -----------------------------------------------------------------------------------

fn longest(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    let lengths = (40..=62).rev().map(|bits| 1_u64 << bits);
    let mut lengths = lengths.flat_map(|length| [length, length - 4096]);
    lengths.find_map(|length| file.set_len(length).ok()).ok_or(io::ErrorKind::FileTooLarge.into())
}

/// A hosted sparse extent, the directory at 1 MiB.
fn vmdk_header(sectors: u64, grain: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"KDMV");
    put(4, &1_u32.to_le_bytes());
    put(8, &1_u32.to_le_bytes());
    put(12, &sectors.to_le_bytes());
    put(20, &grain.to_le_bytes());
    put(28, &1_u64.to_le_bytes());
    put(36, &7_u64.to_le_bytes());
    put(44, &512_u32.to_le_bytes());
    put(56, &2048_u64.to_le_bytes());
    put(64, &128_u64.to_le_bytes());
    put(73, b"\n \r\n");
    put(512, b"CID=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n");
    bytes
}

fn descriptor(line: &str, count: usize) -> String {
    let head = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n";
    [head, &line.repeat(count)].concat()
}

// VHD -----------------------------------------------------------------------------------------

/// Entries of zero say that a block is at the start of the file.
fn vhd(path: &Path) -> io::Result<()> {
    let (size, block) = (0xff00_0000_u64 * 512, 4096_u64);
    let count = size / block;
    let sum = |mut bytes: Vec<u8>, at: usize| {
        let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add((*byte).into()));
        bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
        bytes
    };
    let mut footer = vec![0; 512];
    let mut put = |at: usize, value: &[u8]| footer[at..at + value.len()].copy_from_slice(value);
    put(0, b"conectix");
    put(8, &2_u32.to_be_bytes());
    put(12, &0x1_0000_u32.to_be_bytes());
    put(16, &512_u64.to_be_bytes());
    put(28, b"qem2");
    put(40, &size.to_be_bytes());
    put(48, &size.to_be_bytes());
    put(56, &[0xff, 0xff, 16, 255]);
    put(60, &3_u32.to_be_bytes());
    let mut header = vec![0; 1024];
    let mut put = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
    put(0, b"cxsparse");
    put(8, &u64::MAX.to_be_bytes());
    put(16, &1536_u64.to_be_bytes());
    put(24, &0x1_0000_u32.to_be_bytes());
    put(28, &u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    put(32, &4096_u32.to_be_bytes());
    let file = File::create(path)?;
    let footer = sum(footer, 64);
    let end = (1536 + count * 4).next_multiple_of(512);
    file.write_all_at(&footer, 0)?;
    file.write_all_at(&sum(header, 36), 512)?;
    file.write_all_at(&footer, end)
}
