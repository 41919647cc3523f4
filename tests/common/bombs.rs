//! Images that ask for more time or memory than they have any right to. Each is a few blocks on
//! disk; lengths are mostly holes. Some bring other files with them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

#[path = "bombs/images.rs"]
mod images;

use images::*;

/// One image, or one folder of images.
pub(crate) struct Bomb {
    /// Also the name of its file.
    pub(crate) name: &'static str,
    /// Folders with long names that it is in.
    pub(crate) depth: usize,
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
        let path = folder.join(self.path());
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        (self.make)(&path)
    }

    /// Its path in the folder.
    pub(crate) fn path(&self) -> String {
        format!("{}/", "d".repeat(250)).repeat(self.depth) + self.name
    }
}

const JSON: &[&str] = &["--output=json"];
const FOLLOW: &[&str] = &["--output=json", "--external=follow"];
const IGNORE: &[&str] = &["--output=json", "--external=ignore"];

/// All of them.
pub(crate) const BOMBS: &[Bomb] = &[
    Bomb {
        name: "shared-l2.qcow2",
        depth: 0,
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
        depth: 0,
        format: "qcow2",
        about: "an image that is its own backing file",
        args: FOLLOW,
        end: End::Error("the images name each other in a circle"),
        make: |path| layer(path, path.file_name().and_then(|name| name.to_str()), 1 << 16),
    },
    Bomb {
        name: "truncated.qcow2",
        depth: 0,
        format: "qcow2",
        about: "cut off before its tables",
        args: JSON,
        end: End::Error("is outside the file"),
        make: |path| Header { size: 1 << 30, ..Header::default() }.write(path, 1 << 16).map(drop),
    },
    Bomb {
        name: "largest.qcow2",
        depth: 0,
        format: "qcow2",
        about: "the largest disk, 2 EiB, and empty: an L1 table of 32 MiB in a hole",
        args: JSON,
        end: End::Rows(1),
        make: |path| jumbo().write(path, 64 * MIB).map(drop),
    },
    Bomb {
        name: "one-l2.qcow2",
        depth: 0,
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
        depth: 0,
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
        depth: 0,
        format: "qcow2",
        about: "10 MiB, most of it holes, in which 8192 L1 entries name one L2 table of 2 MiB, every other entry of which is absent in another way",
        args: JSON,
        end: End::Rows(1),
        make: |path| shared_table(path, 21, 8192, |cluster| (cluster % 2) << 63),
    },
    Bomb {
        name: "unlike-zeros.qcow2",
        depth: 0,
        format: "qcow2",
        about: "the same where every other entry is zero in another way",
        args: JSON,
        end: End::Rows(1),
        make: |path| shared_table(path, 21, 8192, |cluster| (cluster % 2) << 63 | 1),
    },
    Bomb {
        name: "unlike-64k.qcow2",
        depth: 0,
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
        depth: 0,
        format: "qcow2",
        about: "4096 L1 entries that name such a table of 2 MiB of extended entries",
        args: JSON,
        end: End::Rows(1),
        make: |path| {
            shared_table(path, 21, 4096, |word| u64::from(word % 4 == 2) << 63)?;
            extend(path)
        },
    },
    Bomb {
        name: "hidden.qcow2",
        depth: 0,
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
        depth: 0,
        format: "qcow2",
        about: "8192 L1 entries that name a table of which half is absent and half zero, both in two ways",
        args: JSON,
        end: End::Rows(2 * 8192),
        make: |path| shared_table(path, 21, 8192, |cluster| (cluster % 2) << 63 | cluster >> 17),
    },
    Bomb {
        name: "rotation.qcow2",
        depth: 0,
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
        depth: 0,
        format: "qcow",
        about: "100,000 L1 entries that name one L2 table of 64 KiB of compressed clusters",
        args: JSON,
        end: End::Rows(1),
        make: |path| qcow_tables(path, 100_000, |_| 0),
    },
    Bomb {
        name: "overlapping.qcow",
        depth: 0,
        format: "qcow",
        about: "1,048,576 L1 entries that name as many tables, each 8 bytes after the last, in 8 MiB",
        args: JSON,
        end: End::Rows(1),
        make: |path| qcow_tables(path, 1 << 20, |index| index % (1 << 19) * 8),
    },
    Bomb {
        name: "zeros.qed",
        depth: 0,
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
        depth: 0,
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
        depth: 0,
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
        name: "windows.vmdk",
        depth: 0,
        format: "vmdk",
        about: "a descriptor that names one sparse extent 2400 times, whose directory is 2 MiB of hole with 4 KiB of zeros in each 256 KiB",
        args: FOLLOW,
        end: End::Error("the number of table entries walked, many of them more than once, is"),
        make: |path| {
            let file = File::create(path.with_extension("extent.vmdk"))?;
            file.write_all_at(&vmdk_header(1 << 29, 2), 0)?;
            file.set_len(4 * MIB)?;
            for window in 1..=8 {
                file.write_all_at(&[0; 4096], MIB + window * 256 * KIB - 4096)?;
            }
            let text = descriptor("RW 536870912 SPARSE \"windows.extent.vmdk\"\n", 2400);
            fs::write(path, text.replace("twoGbMaxExtentFlat", "twoGbMaxExtentSparse"))
        },
    },
    Bomb {
        name: "deep-200.qcow2",
        depth: 0,
        format: "qcow2",
        about: "a chain of 201 images, in each of which a table of 2 MiB is read",
        args: FOLLOW,
        end: End::Rows(8194),
        make: chain,
    },
    Bomb {
        name: "shared-l2.qed",
        depth: 0,
        format: "qed",
        about: "8 EiB whose 1024 L1 entries name one L2 table, of 1 GiB and in a hole",
        args: JSON,
        end: End::Rows(1),
        make: qed,
    },
    Bomb {
        name: "largest.raw",
        depth: 0,
        format: "raw",
        about: "the longest sparse file that the host can make, 2^62 bytes at most",
        args: &["--output=json", "-f", "raw"],
        end: End::Rows(1),
        make: longest,
    },
    Bomb {
        name: "largest.vmdk",
        depth: 0,
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
        depth: 0,
        format: "vmdk",
        about: "a descriptor of a million extents, 11 MB",
        args: IGNORE,
        end: End::Error("the descriptor is longer than 1048576 bytes"),
        make: |path| fs::write(path, descriptor("RW 1 ZERO\n", 1_000_000)),
    },
    Bomb {
        name: "flat-extents.vmdk",
        depth: 0,
        format: "vmdk",
        about: "a descriptor of as many extents as are allowed, in one file",
        args: IGNORE,
        end: End::Rows(65_530),
        make: |path| fs::write(path, descriptor("RW 1 FLAT \"f\" 0\n", 65_530)),
    },
    Bomb {
        name: "largest.vhd",
        depth: 0,
        format: "vhd",
        about: "2040 GiB in blocks of 4 KiB: a block allocation table of 2 GiB",
        args: &["--output=json", "-l", "1G"],
        end: End::Rows(262_144),
        make: vhd,
    },
    Bomb {
        name: "largest.vhdx",
        depth: 0,
        format: "vhdx",
        about: "64 TiB in blocks of 1 MiB: a block allocation table of 512 MiB in a hole",
        args: JSON,
        end: End::Rows(1),
        make: |path| vhdx(path, 64 << 40, &[]),
    },
    Bomb {
        name: "log.vhdx",
        depth: 0,
        format: "vhdx",
        about: "a log of 65,536 updates that was not written back",
        args: JSON,
        end: End::Rows(1),
        make: |path| vhdx(path, 1 << 30, &log()),
    },
    Bomb {
        name: "deep-200.qcow",
        depth: 0,
        format: "qcow",
        about: "a chain of 201 images, in each of which a table of 64 KiB is read",
        args: FOLLOW,
        end: End::Rows(2),
        make: |path| deep(path, qcow),
    },
    Bomb {
        name: "deep-200.qed",
        depth: 0,
        format: "qed",
        about: "a chain of 201 images, in each of which a table of 1 MiB is read",
        args: FOLLOW,
        end: End::Rows(2),
        make: |path| deep(path, qed_layer),
    },
    Bomb {
        name: "deep-200.vmdk",
        depth: 0,
        format: "vmdk",
        about: "a chain of 201 images of one file each, in each of which a directory of 64 KiB is read",
        args: FOLLOW,
        end: End::Rows(2),
        make: |path| deep(path, vmdk_layer),
    },
    Bomb {
        name: "deep-200-texts.vmdk",
        depth: 0,
        format: "vmdk",
        about: "a chain of 201 descriptors in files of their own, 100 extents each",
        args: FOLLOW,
        end: End::Rows(100),
        make: |path| {
            let file = File::create(path.with_file_name("grains"))?;
            file.write_all_at(&vmdk_header(1 << 10, 128), 0)?;
            file.set_len(2 * MIB)?;
            let line = "RW 1 SPARSE \"grains\"\nRW 1 ZERO\n";
            deep(path, |path, below| fs::write(path, descriptor_over(below, line, 50)))
        },
    },
    Bomb {
        name: "deep-200.vhd",
        depth: 0,
        format: "vhd",
        about: "a chain of 201 images, in each of which a table of 64 KiB is read",
        args: FOLLOW,
        end: End::Rows(1),
        make: |path| deep(path, vhd_layer),
    },
    Bomb {
        name: "deep-200.vhdx",
        depth: 0,
        format: "vhdx",
        about: "a chain of 201 images, in each of which a table of 64 KiB is read",
        args: FOLLOW,
        end: End::Rows(1),
        make: |path| deep(path, |path, below| vhdx_layer(path, below, &[])),
    },
    Bomb {
        name: "uniform.qcow2",
        depth: 0,
        format: "qcow2",
        about: "a chain of 101 images, in each of which 4096 tables are seen to be empty",
        args: FOLLOW,
        end: End::Rows(1),
        make: |path| chain_of(path, 100, uniform_layer),
    },
    Bomb {
        name: "long-path.vmdk",
        depth: 15,
        format: "vmdk",
        about: "a descriptor of 45,000 extents, each in another file, in a folder whose path has 3.8 kB",
        args: &["--output=jsonl", "--external=ignore"],
        end: End::Rows(45_001),
        make: |path| fs::write(path, named_extents(45_000)),
    },
    Bomb {
        name: "long-path-table.vmdk",
        depth: 15,
        format: "vmdk",
        about: "the same as a table, the files being names of one",
        args: &["--external=follow"],
        end: End::Rows(45_001),
        make: |path| {
            fs::write(path, named_extents(45_000))?;
            fs::write(path.with_file_name("data"), vec![1; 512])?;
            let data = path.with_file_name("data");
            (0..45_000).try_for_each(|number| {
                fs::hard_link(&data, path.with_file_name(format!("{number:x}")))
            })
        },
    },
    Bomb {
        name: "sparse-extents.vmdk",
        depth: 0,
        format: "vmdk",
        about: "a descriptor of as many sparse extents as are allowed, in one file",
        args: FOLLOW,
        end: End::Rows(1),
        make: |path| {
            let file = File::create(path.with_file_name("f"))?;
            file.write_all_at(&vmdk_header(1 << 10, 128), 0)?;
            file.set_len(2 * MIB)?;
            fs::write(path, descriptor("RW 1 SPARSE \"f\"\n", 61_000))
        },
    },
    Bomb {
        name: "extents-chain.vmdk",
        depth: 0,
        format: "vmdk",
        about: "a chain of 15 descriptors of as many extents as are allowed",
        args: FOLLOW,
        end: End::Error("the list of the disk's extents would take"),
        make: |path| {
            chain_of(path, 14, |path, below| {
                fs::write(path, descriptor_over(below, "RW 1 ZERO\n", 65_536))
            })
        },
    },
    Bomb {
        name: "links.vmdk",
        depth: 0,
        format: "vmdk",
        about: "a descriptor of 2000 extents in one file, which is reached over 5 symbolic links, each \
                with a target of 4 kB",
        args: FOLLOW,
        end: End::Rows(2000),
        make: |path| {
            links(path, 5)?;
            fs::write(path, descriptor("RW 1 FLAT \"link0\" 0\n", 2000))
        },
    },
    Bomb {
        name: "many-links.vmdk",
        depth: 0,
        format: "vmdk",
        about: "a descriptor of 2000 names of a file, each over 38 symbolic links",
        args: FOLLOW,
        end: End::Error("more than 262144 in all"),
        make: |path| {
            links(path, 38)?;
            let lines = (0..2000).map(|number| {
                format!(
                    "RW 1 FLAT \"{}link0\" 0\n",
                    "./".repeat(number % 200) + &"d/../".repeat(number / 200)
                )
            });
            fs::write(path, [descriptor("", 0), lines.collect()].concat())
        },
    },
    Bomb {
        name: "logs.vhdx",
        depth: 0,
        format: "vhdx",
        about: "a chain of 10 images, each with a log of 65,536 updates that was not written back",
        args: FOLLOW,
        end: End::Error("the list of the log's updates would take"),
        make: |path| chain_of(path, 9, |path, below| vhdx_layer(path, below, &log())),
    },
    Bomb {
        name: "locators.vhd",
        depth: 0,
        format: "vhd",
        about: "a parent locator of 1 MiB, eight times",
        args: &["--output=json", "--external=refuse"],
        end: End::Error("the image names another file (parent"),
        make: locators,
    },
];
