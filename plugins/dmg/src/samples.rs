//! Images built byte by byte. What compressed chunks hold does not matter to the map.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // a wrong sample is to fail its test
#![cfg_attr(not(test), allow(dead_code))] // some of it is for tests of the plugin's own

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use instar_core::testkit::Sample;

pub(crate) const ZERO: u32 = 0;
pub(crate) const RAW: u32 = 1;
pub(crate) const IGNORE: u32 = 2;
pub(crate) const ZLIB: u32 = 0x8000_0005;
pub(crate) const COMMENT: u32 = 0x7fff_fffe;
pub(crate) const END: u32 = 0xffff_ffff;

/// A chunk as the table has it: type, sector, count, offset, length.
pub(crate) type Entry = (u32, u64, u64, u64, u64);

/// A block table.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) sector: u64,
    pub(crate) data_offset: u64,
    pub(crate) chunks: Vec<Entry>,
    /// What the header says; by default as many as there are.
    pub(crate) stated: Option<u32>,
}

impl Table {
    pub(crate) fn new(sector: u64, chunks: &[Entry]) -> Self {
        Self { sector, data_offset: 0, chunks: chunks.to_vec(), stated: None }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 204];
        put(&mut bytes, 0, b"mish\0\0\0\x01");
        put(&mut bytes, 8, &self.sector.to_be_bytes());
        let sectors: u64 = self.chunks.iter().map(|chunk| chunk.2).fold(0, u64::wrapping_add);
        put(&mut bytes, 16, &sectors.to_be_bytes());
        put(&mut bytes, 24, &self.data_offset.to_be_bytes());
        let count = u32::try_from(self.chunks.len()).unwrap();
        put(&mut bytes, 200, &self.stated.unwrap_or(count).to_be_bytes());
        for (kind, sector, count, offset, length) in &self.chunks {
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0; 4]);
            for number in [sector, count, offset, length] {
                bytes.extend(number.to_be_bytes());
            }
        }
        bytes
    }
}

/// Where the tables are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Fork,
    List,
    /// In a list in another style than Apple's, see [`Disk::other_list`].
    OtherList,
    /// In a list, followed by a resource fork that has no table.
    ListAndFork,
    Nowhere,
}

/// An image.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) kept: Kept,
    /// Bytes in front of the data fork.
    pub(crate) front: usize,
    /// Length of the data fork.
    pub(crate) data: usize,
    pub(crate) tables: Vec<Table>,
    pub(crate) sectors: u64,
    /// In front of the dictionary of resources in the property list.
    pub(crate) prologue: String,
    /// Bytes behind the trailer.
    pub(crate) behind: usize,
}

impl Disk {
    pub(crate) fn new(sectors: u64, tables: &[Table]) -> Self {
        Self {
            kept: Kept::List,
            front: 0,
            data: 65536,
            tables: tables.to_vec(),
            sectors,
            prologue: "<key>x</key><data>AAAA</data>".to_owned(),
            behind: 0,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = vec![0x11; self.front];
        file.resize(self.front + self.data, 0x5a);
        let fork = match self.kept {
            Kept::Fork => self.fork(),
            Kept::ListAndFork => fork_without_tables(),
            Kept::List | Kept::OtherList | Kept::Nowhere => Vec::new(),
        };
        let list = match self.kept {
            Kept::List | Kept::ListAndFork => self.list(),
            Kept::OtherList => self.other_list(),
            Kept::Fork | Kept::Nowhere => Vec::new(),
        };
        let mut append = |bytes: &[u8]| {
            let at = if bytes.is_empty() { 0 } else { file.len() as u64 };
            file.extend(bytes);
            [at.to_be_bytes(), (bytes.len() as u64).to_be_bytes()].concat()
        };
        let (list, fork) = (append(&list), append(&fork));
        let mut trailer = vec![0; 512];
        put(&mut trailer, 0, b"koly\0\0\0\x04\0\0\x02\0");
        put(&mut trailer, 24, &(self.front as u64).to_be_bytes());
        put(&mut trailer, 32, &(self.data as u64).to_be_bytes());
        put(&mut trailer, 40, &fork);
        put(&mut trailer, 216, &list);
        put(&mut trailer, 492, &self.sectors.to_be_bytes());
        file.extend(trailer);
        file.resize(file.len() + self.behind, 0);
        file
    }

    fn fork(&self) -> Vec<u8> {
        let mut data = b"\0\0\0\x03abc\0\0\0\0".to_vec();
        for table in &self.tables {
            let bytes = table.bytes();
            data.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
            data.extend(bytes);
        }
        let mut fork = vec![0; 256];
        put(&mut fork, 0, &256_u32.to_be_bytes());
        put(&mut fork, 8, &u32::try_from(data.len()).unwrap().to_be_bytes());
        fork.extend(data);
        fork.extend(b"the resource map");
        fork
    }

    /// As macOS writes it: lines of text, indented.
    fn list(&self) -> Vec<u8> {
        let mut list = format!(
            "<plist><dict>{}<key>resource-fork</key><dict><key>blkx</key>\n<array>",
            self.prologue
        );
        for table in &self.tables {
            list.push_str("<dict>\n\t<key>Data</key>\n\t<data>\n");
            let text = STANDARD.encode(table.bytes());
            for line in text.as_bytes().chunks(52) {
                list.push('\t');
                list.push_str(std::str::from_utf8(line).unwrap());
                list.push('\n');
            }
            list.push_str("\t</data>\n</dict>");
        }
        list.push_str("</array></dict></dict></plist>\n");
        list.into_bytes()
    }

    /// As another program might write it: all that XML allows and Apple does not use.
    fn other_list(&self) -> Vec<u8> {
        let mut list = "\u{feff}<?xml version='1.0'?><!-- <data>bWlzaA== --><!DOCTYPE plist SYSTEM \
                        \"x>y\" [<!ENTITY a \"&b;&b;\">]><plist version = '1.0'\n><dict \
                        note='>'><key>names</key><dict><key>blkx</key><array><dict><key>Data</key>\
                        <data>no base64</data></dict></array><key/><true/></dict><key>\
                        resource&#45;for<![CDATA[k]]></key ><dict><key>plst</key><array/><key>bl<!-- \
                        -->kx</key><array ><dict><key>Data</key><data/></dict>"
            .to_owned();
        for (index, table) in self.tables.iter().enumerate() {
            let text = STANDARD.encode(table.bytes());
            // The first table's in one line, or in all ways at once.
            let text = match (index, text.split_at_checked(text.len() / 3), text.split_at(1)) {
                (0, Some((one, other)), _) => {
                    format!("<?a ?>{one}<![CDATA[\n{other}\r\n]]>&#13;\n<!--x-->")
                }
                (_, _, (first, rest)) => format!("&#x{:x};{rest}", first.as_bytes()[0]),
            };
            list.push_str("<dict><key>Name</key><string>&lt;data&gt;&a;</string><key>Data</key>");
            list.push_str(&format!(
                "<data\t>{text}</data\n><key>ID</key><integer>0</integer></dict>"
            ));
        }
        list.push_str("</array></dict></dict></plist><data>bWlzaA== & </x>");
        list.into_bytes()
    }
}

/// With one resource, which is not a block table.
pub(crate) fn fork_without_tables() -> Vec<u8> {
    let mut fork: Vec<u8> = [256_u32, 271, 15, 50].map(u32::to_be_bytes).concat();
    fork.resize(256, 0);
    fork.extend(11_u32.to_be_bytes());
    fork.extend(b"not a table");
    fork.resize(fork.len() + 50, 0);
    fork
}

/// Puts `piece` at `at`, lengthening `bytes` if need be.
pub(crate) fn put(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = at + piece.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[at..end].copy_from_slice(piece);
}

/// Two partitions with every kind of chunk that matters.
pub(crate) fn mixed() -> Disk {
    let head = [(RAW, 0, 1, 0, 512), (END, 1, 0, 512, 0)];
    let rest = [
        (ZLIB, 0, 8, 512, 100),
        (ZLIB, 8, 8, 612, 300),
        (COMMENT, 16, 0, 912, 0),
        (ZERO, 16, 16, 912, 0),
        (RAW, 32, 4, 912, 2048),
        (RAW, 36, 4, 2960, 2048),
        (IGNORE, 40, 3, 5008, 0),
        (RAW, 43, 2, 6000, 1000),
        (0x8000_0004, 45, 1, 7000, 77),
        (0x8000_0006, 46, 1, 7100, 77),
        (0x8000_0007, 47, 1, 7200, 77),
        (0x8000_0008, 48, 1, 7300, 77),
        (END, 49, 0, 7400, 0),
    ];
    Disk::new(51, &[Table::new(0, &head), Table::new(1, &rest)])
}

/// A table of `count` chunks of one sector: compressed, then plain, in turn.
pub(crate) fn long(count: u64) -> Disk {
    let kind = |n: u64| if n % 2 == 0 { (ZLIB, 9) } else { (RAW, 512) };
    let entry = |n| (kind(n).0, n, 1, n % 100 * 600, kind(n).1);
    let chunks: Vec<Entry> = (0..count).map(entry).collect();
    Disk::new(count, &[Table::new(0, &chunks)])
}

/// All kinds of sound images.
pub(crate) fn all() -> Vec<Sample> {
    // Little data, so that what is damaged is mostly metadata.
    let small = Disk { data: 8192, ..mixed() };
    let plain = Disk { kept: Kept::Nowhere, front: 1024, ..Disk::new(100, &[]) };
    let many = Disk { data: 65536, ..long(1700) };
    vec![
        Sample::new("property list", small.bytes(), 9),
        Sample::new("resource fork", Disk { kept: Kept::Fork, ..small.clone() }.bytes(), 9),
        Sample::new(
            "property list in another style",
            Disk { kept: Kept::OtherList, ..small.clone() }.bytes(),
            9,
        ),
        Sample::new(
            "property list, and a resource fork without tables",
            Disk { kept: Kept::ListAndFork, ..small.clone() }.bytes(),
            9,
        ),
        Sample::new("padded behind its trailer", Disk { behind: 40, ..small }.bytes(), 9),
        Sample::new("a table of two windows", many.bytes(), 1700),
        Sample::new("no tables", plain.bytes(), 1),
    ]
}
