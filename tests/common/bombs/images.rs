//! How the images of the bombs are made.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::symlink;
use std::path::Path;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;

/// Layers below the first one of a chain that is as long as is allowed.
const DEEP: u32 = 200;

// qcow2 ---------------------------------------------------------------------------------------

/// An L2 entry of a data cluster that is inside every image here: its own L2 table.
pub(super) const DATA: u64 = 1 << 63 | 4 << 16;
/// L1 entries of the largest L1 table that qemu reads.
pub(super) const JUMBO: u64 = 4 << 20;

/// A qcow2 header. The refcount table has one cluster, the L1 table the next one.
pub(super) struct Header {
    pub(super) cluster_bits: u32,
    pub(super) size: u64,
    pub(super) l1_entries: u64,
    /// In clusters.
    pub(super) l1_at: u64,
    pub(super) refcounts_at: u64,
    pub(super) backing: Option<String>,
}

impl Default for Header {
    fn default() -> Self {
        let (l1_at, refcounts_at) = (3, 1);
        Self { cluster_bits: 16, size: 1 << 20, l1_entries: 2, l1_at, refcounts_at, backing: None }
    }
}

impl Header {
    /// Makes a file of `length` bytes with this header.
    pub(super) fn write(&self, path: &Path, length: u64) -> io::Result<File> {
        let mut bytes = vec![0; 2048];
        let cluster = 1_u64 << self.cluster_bits;
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"QFI\xfb");
        put(4, &3_u32.to_be_bytes());
        if let Some(name) = &self.backing {
            put(8, &256_u64.to_be_bytes());
            put(16, &u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
            put(256, name.as_bytes());
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
pub(super) fn jumbo() -> Header {
    Header {
        cluster_bits: 21,
        size: JUMBO << 39,
        l1_entries: JUMBO,
        l1_at: 1,
        refcounts_at: 18,
        ..Header::default()
    }
}

pub(super) fn entries(count: u64, entry: impl Fn(u64) -> u64) -> Vec<u8> {
    (0..count).flat_map(|index| entry(index).to_be_bytes()).collect()
}

/// All L1 entries name one L2 table: header, refcount table, a cluster that is not used, L1 table,
/// L2 table.
pub(super) fn shared_table(
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
pub(super) fn layer(path: &Path, backing: Option<&str>, length: u64) -> io::Result<()> {
    let backing = backing.map(str::to_owned);
    Header { backing, ..Header::default() }.write(path, length.max(4 << 16)).map(drop)
}

/// 201 images of 512 GiB with one L2 table each, of 2 MiB. In the lowest one, every other of the first
/// clusters is marked as zero, in the others the last cluster. So every layer is asked about nearly
/// all of the disk, and reads all of its table.
pub(super) fn chain(path: &Path) -> io::Result<()> {
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

/// A chain of as many images as are allowed. `layer` makes one, over the one of the name that it is
/// given.
pub(super) fn deep(
    path: &Path,
    layer: impl Fn(&Path, Option<&str>) -> io::Result<()>,
) -> io::Result<()> {
    chain_of(path, DEEP, layer)
}

/// A chain with so many images below the first.
pub(super) fn chain_of(
    path: &Path,
    below: u32,
    layer: impl Fn(&Path, Option<&str>) -> io::Result<()>,
) -> io::Result<()> {
    let name = |depth: u32| format!("below-{depth}");
    for depth in 0..=below {
        let path = if depth == 0 { path.to_owned() } else { path.with_file_name(name(depth)) };
        layer(&path, Some(name(depth + 1).as_str()).filter(|_| depth < below))?;
    }
    Ok(())
}

/// 4096 L1 entries that name as many L2 tables of 512 bytes, all empty although the host stores them.
pub(super) fn uniform_layer(path: &Path, below: Option<&str>) -> io::Result<()> {
    const TABLES: u64 = 4096;
    let header = Header {
        cluster_bits: 9,
        size: TABLES * 64 * 512,
        l1_entries: TABLES,
        l1_at: 8,
        refcounts_at: 4,
        backing: below.map(str::to_owned),
    };
    let file = header.write(path, (128 + TABLES) * 512)?;
    file.write_all_at(&entries(TABLES, |index| (128 + index) * 512), 8 * 512)?;
    // Not a hole of the host.
    file.write_all_at(&vec![0; 512 * 4096], 128 * 512)
}

/// One L2 table of 64 KiB, in which the last cluster is data.
pub(super) fn qcow(path: &Path, below: Option<&str>) -> io::Result<()> {
    const CLUSTER: u64 = 4096;
    let mut bytes = vec![0; 4096];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb\0\0\0\x01");
    if let Some(name) = below {
        put(8, &1024_u64.to_be_bytes());
        put(16, &u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
        put(1024, name.as_bytes());
    }
    put(24, &(8192 * CLUSTER).to_be_bytes());
    put(32, &[12, 13]);
    put(40, &512_u64.to_be_bytes());
    put(512, &(64 * KIB).to_be_bytes());
    let file = File::create(path)?;
    file.set_len(256 * KIB)?;
    file.write_all_at(&bytes, 0)?;
    file.write_all_at(&(128 * KIB).to_be_bytes(), 128 * KIB - 8)
}

/// One L2 table of 1 MiB, in which the last cluster is data.
pub(super) fn qed_layer(path: &Path, below: Option<&str>) -> io::Result<()> {
    let mut bytes = vec![0; 4096];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QED\0");
    put(4, &(1_u32 << 16).to_le_bytes());
    put(8, &16_u32.to_le_bytes());
    put(12, &1_u32.to_le_bytes());
    put(40, &MIB.to_le_bytes());
    put(48, &(8_u64 << 30).to_le_bytes());
    if let Some(name) = below {
        put(16, &1_u64.to_le_bytes());
        put(56, &1024_u32.to_le_bytes());
        put(60, &u32::try_from(name.len()).unwrap_or(0).to_le_bytes());
        put(1024, name.as_bytes());
    }
    let file = File::create(path)?;
    file.set_len(4 * MIB)?;
    file.write_all_at(&bytes, 0)?;
    file.write_all_at(&(2 * MIB).to_le_bytes(), MIB)?;
    file.write_all_at(&(3 * MIB).to_le_bytes(), 3 * MIB - 8)
}

/// Makes the entries of a table extended ones: an image of the same table is half as long.
pub(super) fn extend(path: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(&(4096_u64 << 38).to_be_bytes(), 24)?;
    file.write_all_at(&(1_u64 << 4).to_be_bytes(), 72)
}

/// L1 entries that name tables of 64 KiB, each so many bytes from the first on, in entries that say
/// compressed.
pub(super) fn qcow_tables(path: &Path, count: u64, from: impl Fn(u64) -> u64) -> io::Result<()> {
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
pub(super) fn qed(path: &Path) -> io::Result<()> {
    let file = qed_header(path, 1 << 26, 16, 1 << 30, (1 << 63) - (1 << 30), 3 << 30)?;
    let table = (2_u64 << 30).to_le_bytes();
    (0..1024).try_for_each(|index| file.write_all_at(&table, (1 << 30) + index * 8))
}

/// A file of `length` bytes with the header of a disk of `size`, with tables of so many clusters.
pub(super) fn qed_header(
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

pub(super) fn longest(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    let lengths = (40..=62).rev().map(|bits| 1_u64 << bits);
    let mut lengths = lengths.flat_map(|length| [length, length - 4096]);
    lengths.find_map(|length| file.set_len(length).ok()).ok_or(io::ErrorKind::FileTooLarge.into())
}

/// A hosted sparse extent, the directory at 1 MiB.
pub(super) fn vmdk_header(sectors: u64, grain: u64) -> Vec<u8> {
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

/// A directory of 16,384 grain tables, of which only the last one is there; its last grain is data.
pub(super) fn vmdk_layer(path: &Path, below: Option<&str>) -> io::Result<()> {
    const TABLES: u64 = 16 << 10;
    let mut bytes = vmdk_header(TABLES * 512 * 128, 128);
    let hint = below.map(|name| format!("parentFileNameHint=\"{name}\"\n"));
    let text = format!(
        "CID=1\nparentCID={}\n{}createType=\"monolithicSparse\"\n",
        if below.is_some() { "1" } else { "ffffffff" },
        hint.unwrap_or_default()
    );
    bytes[512..512 + text.len()].copy_from_slice(text.as_bytes());
    let file = File::create(path)?;
    file.set_len(4 * MIB)?;
    file.write_all_at(&bytes, 0)?;
    // In sectors: the table at 2 MiB, the grain at 3 MiB.
    file.write_all_at(&4096_u32.to_le_bytes(), MIB + TABLES * 4 - 4)?;
    file.write_all_at(&6144_u32.to_le_bytes(), 2 * MIB + 511 * 4)
}

/// Extents of one sector, each in a file of its own.
pub(super) fn named_extents(count: u32) -> String {
    let lines: String = (0..count).map(|number| format!("RW 1 FLAT \"{number:x}\" 0\n")).collect();
    descriptor("", 0) + &lines
}

pub(super) fn descriptor_over(below: Option<&str>, line: &str, count: usize) -> String {
    let text = descriptor(line, count);
    match below {
        None => text,
        Some(name) => text
            .replace("parentCID=ffffffff", &format!("parentCID=1\nparentFileNameHint=\"{name}\"")),
    }
}

/// A file, and so many symbolic links to it, one over the other, with long targets.
pub(super) fn links(path: &Path, count: usize) -> io::Result<()> {
    fs::create_dir(path.with_file_name("d"))?;
    fs::write(path.with_file_name(format!("link{count}")), vec![1; 512])?;
    (0..count).try_for_each(|number| {
        let target = "d/../".repeat(810) + &format!("link{}", number + 1);
        symlink(target, path.with_file_name(format!("link{number}")))
    })
}

pub(super) fn descriptor(line: &str, count: usize) -> String {
    let head = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n";
    [head, &line.repeat(count)].concat()
}

// VHD -----------------------------------------------------------------------------------------

/// Bytes with the sum over them at `at`.
pub(super) fn summed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add((*byte).into()));
    bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
    bytes
}

/// A footer of this type of disk, 3 being dynamic and 4 differencing.
pub(super) fn vhd_footer(size: u64, kind: u32) -> Vec<u8> {
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
    put(60, &kind.to_be_bytes());
    put(68, &[7; 16]);
    summed(footer, 64)
}

/// A header of a disk of `count` blocks whose table is at `table`. `more` are other fields.
pub(super) fn vhd_header(count: u64, block: u32, table: u64, more: &[(usize, &[u8])]) -> Vec<u8> {
    let mut header = vec![0; 1024];
    let mut put = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
    put(0, b"cxsparse");
    put(8, &u64::MAX.to_be_bytes());
    put(16, &table.to_be_bytes());
    put(24, &0x1_0000_u32.to_be_bytes());
    put(28, &u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    put(32, &block.to_be_bytes());
    more.iter().for_each(|(at, value)| put(*at, value));
    summed(header, 36)
}

/// Entries of zero say that a block is at the start of the file.
pub(super) fn vhd(path: &Path) -> io::Result<()> {
    let (size, block) = (0xff00_0000_u64 * 512, 4096_u32);
    let count = size / u64::from(block);
    let file = File::create(path)?;
    let footer = vhd_footer(size, 3);
    let end = (1536 + count * 4).next_multiple_of(512);
    file.write_all_at(&footer, 0)?;
    file.write_all_at(&vhd_header(count, block, 1536, &[]), 512)?;
    file.write_all_at(&footer, end)
}

pub(super) fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

/// 16,384 blocks of 4 KiB, none of which is there.
pub(super) fn vhd_layer(path: &Path, below: Option<&str>) -> io::Result<()> {
    const COUNT: u64 = 16 << 10;
    let name = utf16(below.unwrap_or_default(), u16::to_be_bytes);
    let id: &[u8] = if below.is_some() { &[7; 16] } else { &[0; 16] };
    let footer = vhd_footer(COUNT * 4096, if below.is_some() { 4 } else { 3 });
    let file = File::create(path)?;
    file.write_all_at(&footer, 0)?;
    file.write_all_at(&vhd_header(COUNT, 4096, 1536, &[(40, id), (64, &name)]), 512)?;
    file.write_all_at(&vec![0xff; 64 << 10], 1536)?;
    file.write_all_at(&footer, 1536 + (64 << 10))
}

/// Eight locators of 1 MiB in an unknown code page.
pub(super) fn locators(path: &Path) -> io::Result<()> {
    let mut entries = Vec::new();
    for index in 0..8 {
        entries.extend(b"Wi2r");
        entries.extend(2048_u32.to_be_bytes());
        entries.extend((1_u32 << 20).to_be_bytes());
        entries.extend([0; 4]);
        entries.extend(((1 + index) * MIB).to_be_bytes());
    }
    let footer = vhd_footer(4096, 4);
    let file = File::create(path)?;
    file.write_all_at(&footer, 0)?;
    file.write_all_at(&vhd_header(1, 4096, 1536, &[(40, &[7; 16]), (576, &entries)]), 512)?;
    file.write_all_at(&[0xff; 512], 1536)?;
    for index in 0..8_u8 {
        file.write_all_at(&vec![0x1a + index; 1 << 20], (1 + u64::from(index)) * MIB)?;
    }
    file.write_all_at(&footer, 9 * MIB)
}

// VHDX ----------------------------------------------------------------------------------------

const LOG_AT: u64 = MIB;
const METADATA_AT: u64 = 68 * MIB;
const BAT_AT: u64 = 69 * MIB;

/// A dynamic disk of `size` bytes in blocks of 1 MiB, with this log, and no block.
pub(super) fn vhdx(path: &Path, size: u64, log: &[u8]) -> io::Result<()> {
    vhdx_over(path, size, log, None)
}

/// 8192 blocks, none of which is there.
pub(super) fn vhdx_layer(path: &Path, below: Option<&str>, log: &[u8]) -> io::Result<()> {
    vhdx_over(path, 8 << 30, log, below)?;
    // Not a hole of the host.
    let file = File::options().write(true).open(path)?;
    file.write_all_at(&vec![0; 64 << 10], BAT_AT)
}

/// What names the parent, whose data has the number of all images here.
pub(super) fn vhdx_locator(name: &str) -> Vec<u8> {
    let linkage = "{07070707-0707-0707-0707-070707070707}";
    let mut bytes = guid(0xb04a_efb7_d19e_4a81_b789_25b8_e944_5913).to_vec();
    bytes.extend([0, 0, 2, 0]);
    let (mut table, mut texts, mut at) = (Vec::new(), Vec::new(), 20 + 2 * 12_u32);
    for (key, value) in [("parent_linkage", linkage), ("relative_path", name)] {
        let [key, value] = [key, value].map(|text| utf16(text, u16::to_le_bytes));
        let [key_length, value_length] =
            [&key, &value].map(|text| u16::try_from(text.len()).unwrap_or(0));
        table.extend(at.to_le_bytes());
        table.extend((at + u32::from(key_length)).to_le_bytes());
        table.extend(key_length.to_le_bytes());
        table.extend(value_length.to_le_bytes());
        at += u32::from(key_length) + u32::from(value_length);
        texts.extend([key, value].concat());
    }
    [bytes, table, texts].concat()
}

pub(super) fn vhdx_over(path: &Path, size: u64, log: &[u8], below: Option<&str>) -> io::Result<()> {
    let crc = |mut bytes: Vec<u8>| {
        let sum = crc32c::crc32c(&bytes);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    };
    let blocks = size / MIB;
    let bat = ((blocks + blocks / 4096) * 8).next_multiple_of(MIB);
    let mut header = vec![0; 4096];
    let mut put = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
    put(0, b"head");
    put(8, &1_u64.to_le_bytes());
    put(32, &[7; 16]);
    if !log.is_empty() {
        put(48, &LOG_GUID);
    }
    put(66, &1_u16.to_le_bytes());
    put(68, &u32::try_from(64 * MIB).unwrap_or(0).to_le_bytes());
    put(72, &LOG_AT.to_le_bytes());
    let mut regions = vec![0; 64 << 10];
    let mut put = |at: usize, value: &[u8]| regions[at..at + value.len()].copy_from_slice(value);
    put(0, b"regi");
    put(8, &2_u32.to_le_bytes());
    for (at, name, offset, length) in [
        (16, 0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08, BAT_AT, bat),
        (48, 0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e, METADATA_AT, MIB),
    ] {
        put(at, &guid(name));
        put(at + 16, &offset.to_le_bytes());
        put(at + 24, &u32::try_from(length).unwrap_or(0).to_le_bytes());
        put(at + 28, &1_u32.to_le_bytes());
    }
    let parent_bit = if below.is_some() { 2 << 32 } else { 0 };
    let items: [(u128, u64, u32, u32); 5] = [
        (0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b, MIB | parent_bit, 8, 4),
        (0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8, size, 8, 6),
        (0xbeca_12ab_b2e6_4523_93ef_c309_e000_c746, 1, 16, 6),
        (0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f, 512, 4, 6),
        (0xcda3_48c7_445d_4471_9cc9_e988_5251_c556, 4096, 4, 6),
    ];
    let mut metadata = vec![0; 65 << 10];
    let mut put = |at: usize, value: &[u8]| metadata[at..at + value.len()].copy_from_slice(value);
    put(0, b"metadata");
    put(10, &5_u16.to_le_bytes());
    for (index, (name, value, length, flags)) in items.into_iter().enumerate() {
        let (slot, at) = (32 + index * 32, (64 << 10) + index * 16);
        put(slot, &guid(name));
        put(slot + 16, &u32::try_from(at).unwrap_or(0).to_le_bytes());
        put(slot + 20, &length.to_le_bytes());
        put(slot + 24, &flags.to_le_bytes());
        put(at, &value.to_le_bytes());
    }
    if let Some(locator) = below.map(vhdx_locator) {
        let (slot, at) = (32 + 5 * 32, (64 << 10) + 512);
        put(10, &6_u16.to_le_bytes());
        put(slot, &guid(0xa8d3_5f2d_b30b_454d_abf7_d3d8_4834_ab0c));
        put(slot + 16, &u32::try_from(at).unwrap_or(0).to_le_bytes());
        put(slot + 20, &u32::try_from(locator.len()).unwrap_or(0).to_le_bytes());
        put(slot + 24, &4_u32.to_le_bytes());
        put(at, &locator);
    }
    let file = File::create(path)?;
    file.set_len(BAT_AT + bat)?;
    let (header, regions) = (crc(header), crc(regions));
    for (at, bytes) in [
        (0, b"vhdxfile".as_slice()),
        (64 * KIB, &header),
        (128 * KIB, &header),
        (192 * KIB, &regions),
        (256 * KIB, &regions),
        (LOG_AT, log),
        (METADATA_AT, &metadata),
    ] {
        file.write_all_at(bytes, at)?;
    }
    Ok(())
}

const LOG_GUID: [u8; 16] = [7; 16];

/// One entry of as many updates as are allowed: every other 4 KiB behind the image become zeros.
pub(super) fn log() -> Vec<u8> {
    const UPDATES: u64 = 1 << 16;
    const SECTOR: u64 = 4096;
    let length = (64 + UPDATES * 32).next_multiple_of(SECTOR);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"loge");
    put(8, &u32::try_from(length).unwrap_or(0).to_le_bytes());
    put(16, &1_u64.to_le_bytes());
    put(24, &u32::try_from(UPDATES).unwrap_or(0).to_le_bytes());
    put(32, &LOG_GUID);
    for index in 0..UPDATES {
        let at = usize::try_from(64 + index * 32).unwrap_or(0);
        put(at, b"zero");
        put(at + 8, &SECTOR.to_le_bytes());
        put(at + 16, &(100 * MIB + index * 2 * SECTOR).to_le_bytes());
        put(at + 24, &1_u64.to_le_bytes());
    }
    let sum = crc32c::crc32c(&bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// A GUID as Microsoft stores it: the first three groups are little-endian.
pub(super) fn guid(text: u128) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = text.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}
