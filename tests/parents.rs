//! Differencing disks of VHD and VHDX with their parents, which qemu-img cannot map: what we say
//! of each sector, against a second reading of the image and the bytes of a flattened copy.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use common::all_enabled;
use common::binary::instar;
use common::differencing::{Holder, Part, flatten, padded, vhd, vhdx};
use common::lab::Lab;
use common::manifest::find;
use common::naming::{overlay, rename_utf16};
use common::qemu::{self, words};
use common::random::Plan;

/// Images of the manifest: id, and id of the base.
const CHILDREN: &[(&str, &str)] = &[
    ("vhd-differencing", "vhd-differencing-base"),
    ("vhd-differencing-2m-blocks", "vhd-differencing-base"),
    ("vhdx-child", "vhdx-base"),
    ("vhdx-child-all-bits", "vhdx-base"),
    ("vhdx-child-alternating", "vhdx-base"),
    ("vhdx-child-empty", "vhdx-base"),
    ("vhdx-child-names", "vhdx-base"),
    ("vhdx-child-second-chunk", "vhdx-base"),
    ("vhdx-child-sectors-4096", "vhdx-base"),
];

/// What was compared.
#[derive(Debug, Default)]
struct Compared {
    rows: usize,
    own: u64,
    parent: u64,
    zero: u64,
}

/// Whether the tests can be run at all.
fn runnable(what: &str) -> bool {
    if !all_enabled() {
        eprintln!("skipped: {what}: not every format is compiled in");
        return false;
    }
    qemu::installed(what).is_some()
}

/// The bytes of the guest of an image without a parent, as qemu-img reads them.
fn raw(folder: &Path, image: &str, driver: &str) -> File {
    let target = folder.join(format!("{}.flat", image.replace('/', "-")));
    let mut args = words(&["convert", "-f", driver, "-O", "raw", image]);
    args.push(target.display().to_string());
    let run = qemu::qemu_img(folder, &args);
    assert_eq!(run.status, 0, "{}\n{}", run.command, run.stderr);
    File::open(target).unwrap()
}

/// Compares our map of an image in `folder` with its parts and with the disk below it.
fn compare(
    folder: &Path,
    image: &str,
    parts: &[Part],
    below: &File,
    compared: &mut Compared,
) -> Result<(), String> {
    let run = instar(folder, &["map", "--external=follow", "--output=jsonl", image]);
    let text = run.assert_succeeds();
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let description = lines.next().unwrap();
    let rows: Vec<Value> = lines.collect();
    let files = description["files"].as_array().unwrap();
    let files: Vec<PathBuf> = files.iter().map(|f| folder.join(f.as_str().unwrap())).collect();
    let handles: Vec<File> = files.iter().map(|file| File::open(file).unwrap()).collect();
    let size = parts.last().map_or(0, |part| part.start + part.length);
    let below_size = below.metadata().unwrap().len();
    let mut parts = parts.iter();
    let mut part = parts.next();
    let mut at = 0;
    let mut last: Option<&Value> = None;
    for row in &rows {
        let number = |key: &str| row[key].as_u64().unwrap_or(0);
        if number("start") != at || last.is_some_and(|last| continues(last, row)) {
            return Err(format!("{}\nat {at}, after {last:?}: {row}", run.command));
        }
        last = Some(row);
        let end = at + number("length");
        while at < end {
            let now = *part.ok_or_else(|| format!("rows behind the disk's end: {row}"))?;
            let (inside, stop) = (at - now.start, end.min(now.start + now.length));
            let length = stop - at;
            let offset = number("offset") + (at - number("start"));
            let file = usize::try_from(number("file")).unwrap();
            let is_data = row["data"] == true;
            let is_zero = row["zero"] == true && !is_data;
            let is_right = match now.holder {
                Holder::Own(own) => {
                    compared.own += length;
                    let place = (number("depth"), offset, &files[file]);
                    is_data && place == (0, own + inside, &folder.join(image))
                }
                Holder::Zero => {
                    compared.zero += length;
                    is_zero && number("depth") == 0
                }
                Holder::Parent if at >= below_size => is_zero && row["state"] == "absent",
                Holder::Parent => {
                    compared.parent += length;
                    let expected = padded(below, at, length);
                    let found = match is_data {
                        true => padded(&handles[file], offset, length),
                        false => vec![0; expected.len()],
                    };
                    let differs = found.iter().zip(&expected).position(|(a, b)| a != b);
                    if let Some(differs) = differs {
                        let byte = at + differs as u64;
                        return Err(format!("{}\n{row}: guest byte {byte}", run.command));
                    }
                    number("depth") > 0 && (is_data || is_zero)
                }
            };
            if !is_right {
                return Err(format!("{}\n{row}, but {now:?}", run.command));
            }
            at = stop;
            if at == now.start + now.length {
                part = parts.next();
            }
        }
    }
    compared.rows += rows.len();
    match at == size && description["virtual-size"] == size {
        true => Ok(()),
        false => Err(format!("{}\nends at {at}, not at {size}: {description}", run.command)),
    }
}

/// Whether two rows should have been one.
fn continues(last: &Value, row: &Value) -> bool {
    let length = last["length"].as_u64().unwrap();
    let same = |key: &str| last[key] == row[key];
    ["depth", "state", "file"].into_iter().all(same)
        && last["offset"].as_u64().map(|offset| offset + length) == row["offset"].as_u64()
}

/// A reader of differencing disks for this image, and qemu's name of the format.
fn reader(image: &str) -> (fn(&Path) -> Vec<Part>, &'static str) {
    match image.ends_with(".vhd") {
        true => (vhd, "vpc"),
        false => (vhdx, "vhdx"),
    }
}

/// A folder of one's own with this image of the manifest and its base.
fn copy(id: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new();
    let unpacked = lab.unpack(find(id)).unwrap();
    for item in fs::read_dir(unpacked).unwrap() {
        let item = item.unwrap();
        fs::rename(item.path(), folder.path().join(item.file_name())).unwrap();
    }
    folder
}

fn patch(path: &Path, pieces: &[(u64, &[u8])]) {
    let file = File::options().write(true).open(path).unwrap();
    for (at, bytes) in pieces {
        file.write_all_at(bytes, *at).unwrap();
    }
}

#[test]
fn children_of_the_manifest() {
    if !runnable("children of the manifest") {
        return;
    }
    let lab = Lab::new();
    let mut compared = Compared::default();
    for (id, base) in CHILDREN {
        let (entry, base) = (find(id), find(base));
        let folder = lab.unpack(entry).unwrap();
        let (read, driver) = reader(&entry.name);
        let below = raw(&folder, &base.name, driver);
        let parts = read(&folder.join(&entry.name));
        compare(&folder, &entry.name, &parts, &below, &mut compared).unwrap();
    }
    eprintln!("{} children of the manifest: {compared:?}", CHILDREN.len());
    assert!(compared.rows > 1000 && compared.own > 1 << 20 && compared.parent > 1 << 20);
    assert!(compared.zero > 1 << 20);
}

/// Bitmaps of 4096 bits in which runs of all short lengths, and of some around words, start at
/// every bit of a byte and of a word.
fn bitmaps() -> Vec<Vec<bool>> {
    const BITS: usize = 4096;
    let lengths: Vec<usize> =
        (1..=18).chain([31, 32, 33, 63, 64, 65, 127, 128, 129, 700]).collect();
    let mut all = vec![Vec::new()];
    for start in (0..=8).chain(55..=64) {
        for length in &lengths {
            let mut bits: &mut Vec<bool> = all.last_mut().unwrap();
            // The gap before the run ends at every bit as well.
            let from = bits.len().next_multiple_of(64) + start;
            if from + length > BITS {
                all.push(Vec::new());
                bits = all.last_mut().unwrap();
            }
            let from = bits.len().next_multiple_of(64) + start;
            bits.resize(from, false);
            bits.resize(from + length, true);
        }
    }
    let mut seeded = Plan::from_environment().choices(0);
    for _ in 0..8 {
        let one_in = usize::try_from(seeded.between(2, 40)).unwrap();
        all.push((0..BITS).map(|_| seeded.one_in(one_in)).collect());
    }
    for bits in &mut all {
        bits.resize(BITS, false);
    }
    let opposite = |bits: &Vec<bool>| bits.iter().map(|bit| !bit).collect();
    let opposites: Vec<Vec<bool>> = all.iter().map(opposite).collect();
    all.extend(opposites);
    all.extend([vec![false; BITS], vec![true; BITS]]);
    all
}

/// Bits as bytes, the first bit being the lowest or the highest of its byte.
fn packed(bits: &[bool], is_highest_first: bool) -> Vec<u8> {
    let byte = |bits: &[bool]| {
        let value = bits.iter().rev().fold(0_u8, |value, bit| value << 1 | u8::from(*bit));
        if is_highest_first { value.reverse_bits() } else { value }
    };
    bits.chunks(8).map(byte).collect()
}

#[test]
fn bitmaps_of_every_alignment() {
    if !runnable("bitmaps of every alignment") {
        return;
    }
    let bitmaps = bitmaps();
    let mut compared = Compared::default();

    // Its block of 2 MiB is made the first one, of which the parent has a part.
    let vhd_folder = copy("vhd-differencing-2m-blocks");
    let vhd_child = vhd_folder.path().join("vhd-differencing-2m-blocks.vhd");
    patch(&vhd_child, &[(1536, &16_u32.to_be_bytes()), (1540, &[0xff; 4])]);
    let vhd_below = raw(vhd_folder.path(), "vhd-differencing-base.vhd", "vpc");

    // Two blocks of 1 MiB, both of which the parent has: filled with numbers here.
    let vhdx_folder = copy("vhdx-child-all-bits");
    let vhdx_child = vhdx_folder.path().join("vhdx-child-all-bits.vhdx");
    let numbers: Vec<u8> = (0_u32..2 << 18).flat_map(u32::to_le_bytes).collect();
    patch(&vhdx_folder.path().join("vhdx-base.vhdx"), &[(4 << 20, &numbers)]);
    let vhdx_below = raw(vhdx_folder.path(), "vhdx-base.vhdx", "vhdx");

    for bits in &bitmaps {
        let runs = 1 + bits.windows(2).filter(|pair| pair[0] != pair[1]).count();
        for (child, below, at, is_highest_first) in
            [(&vhd_child, &vhd_below, 16 * 512, true), (&vhdx_child, &vhdx_below, 4 << 20, false)]
        {
            patch(child, &[(at, &packed(bits, is_highest_first))]);
            let name = child.file_name().unwrap().to_str().unwrap();
            let parts = reader(name).0(child);
            assert!(parts.len() >= runs, "{} parts for {runs} runs", parts.len());
            compare(child.parent().unwrap(), name, &parts, below, &mut compared).unwrap();
        }
    }
    eprintln!("{} bitmaps of VHD and of VHDX: {compared:?}", bitmaps.len());
    assert!(bitmaps.len() > 30 && compared.rows > 5_000, "{compared:?}");
}

/// A footer, of which there are two, with another identifier.
fn set_vhd_identifier(path: &Path, identifier: [u8; 16]) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let end = file.metadata().unwrap().len();
    for at in [0, end - 512] {
        let mut footer = padded(&file, at, 512);
        footer[68..84].copy_from_slice(&identifier);
        footer[64..68].fill(0);
        let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
        footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
        file.write_all_at(&footer, at).unwrap();
    }
}

/// Both headers with another `DataWriteGuid`.
fn set_vhdx_identifier(path: &Path, identifier: [u8; 16]) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    for at in [64 << 10, 128 << 10] {
        let mut header = padded(&file, at, 4096);
        header[32..48].copy_from_slice(&identifier);
        header[4..8].fill(0);
        let sum = crc32c(&header);
        header[4..8].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&header, at).unwrap();
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[test]
fn another_parent_is_an_error() {
    if !all_enabled() {
        eprintln!("skipped: another parent: not every format is compiled in");
        return;
    }
    const OTHER: [u8; 16] = [0xab; 16];
    for (id, base, set) in [
        ("vhd-differencing", "vhd-differencing-base.vhd", set_vhd_identifier as fn(&Path, _)),
        ("vhdx-child", "vhdx-base.vhdx", set_vhdx_identifier),
    ] {
        let folder = copy(id);
        let name = find(id).name.as_str();
        let args = ["map", "--external=follow", "--output=json", name];
        let map = || instar(folder.path(), &args);
        let before = map().assert_succeeds();
        let path = folder.path().join(base);
        let bytes = fs::read(&path).unwrap();
        set(&path, OTHER);
        let wanted = "is not the parent that the image above was made from: its identifier is";
        map().assert_fails_with(&[base, wanted, &"ab".repeat(16)]);
        fs::write(&path, bytes).unwrap();
        assert_eq!(map().assert_succeeds(), before);
    }
}

/// Names of one parent may lead to different files, since folders were moved.
#[test]
fn of_several_names_the_one_that_leads_to_the_parent_counts() {
    if !all_enabled() {
        eprintln!("skipped: several names: not every format is compiled in");
        return;
    }
    let folder = copy("vhd-differencing");
    let at = |name: &str| folder.path().join(name);
    let (child, base) = ("vhd-differencing.vhd", "vhd-differencing-base.vhd");
    let map = |image: &str| instar(folder.path(), &["map", "--external=follow", image]);
    let expected = map(child).assert_succeeds();

    // By the relative name there is another disk. Of the absolute one only the file's own name
    // means something here.
    let elsewhere = format!("x/{base}");
    fs::create_dir(at("x")).unwrap();
    fs::copy(at(base), at(&elsewhere)).unwrap();
    set_vhd_identifier(&at(&elsewhere), [0xab; 16]);
    let mut bytes = fs::read(at(child)).unwrap();
    rename_utf16(&mut bytes, &format!(".\\{base}"), &format!("x\\{base}"));
    fs::write(at(child), &bytes).unwrap();
    assert_eq!(map(child).assert_succeeds(), expected);

    // Where no name leads to the parent, the first one tells why.
    let is_other = "is not the parent that the image above was made from";
    fs::rename(at(base), at("away")).unwrap();
    map(child).assert_fails_with(&[&format!("instar: {elsewhere}: "), is_other]);
    // Also if the others lead to the image itself, which is no circle.
    fs::rename(at(child), at(base)).unwrap();
    map(base).assert_fails_with(&[&format!("instar: {elsewhere}: "), is_other]);
    fs::remove_file(at(&elsewhere)).unwrap();
    map(base).assert_fails_with(&["cannot open the parent", &elsewhere]);
}

#[test]
fn a_parent_without_a_name_keeps_no_one_from_the_image_itself() {
    if !all_enabled() {
        eprintln!("skipped: parents without a name: not every format is compiled in");
        return;
    }
    for id in ["vdi-hostile-link", "vhd-hostile-parent-unnamed", "vhdx-locator-no-path"] {
        let folder = copy(id);
        let name = find(id).name.as_str();
        let map = |policy: &str| instar(folder.path(), &["map", policy, name]);
        map("--external=ignore").assert_succeeds();
        for policy in ["--external=refuse", "--external=follow"] {
            map(policy).assert_fails_with(&[
                "the image has a parent but no name for it\n  tip: --external=ignore maps FILE alone",
            ]);
        }
    }
}

#[test]
fn children_of_children() {
    if !runnable("children of children") {
        return;
    }
    let mut compared = Compared::default();
    // The base moves into a folder, and another child takes its place.
    let folder = copy("vhd-differencing-2m-blocks");
    let at = |name: &str| folder.path().join(name);
    let base = "vhd-differencing-base.vhd";
    fs::create_dir(at("s")).unwrap();
    fs::rename(at(base), at("s").join(base)).unwrap();
    let other = copy("vhd-differencing");
    let mut middle = fs::read(other.path().join("vhd-differencing.vhd")).unwrap();
    let identifier: [u8; 16] = fs::read(at("s").join(base)).unwrap()[68..84].try_into().unwrap();
    rename_utf16(&mut middle, &format!(".\\{base}"), &format!("s\\{base}"));
    fs::write(at(base), middle).unwrap();
    set_vhd_identifier(&at(base), identifier);

    let bottom = raw(folder.path(), &format!("s/{base}"), "vpc");
    let middle = vhd(&at(base));
    compare(folder.path(), base, &middle, &bottom, &mut compared).unwrap();
    let middle = flatten(&at(base), &middle, &bottom, &at("middle.flat"));
    let top = "vhd-differencing-2m-blocks.vhd";
    let parts = vhd(&at(top));
    compare(folder.path(), top, &parts, &middle, &mut compared).unwrap();

    // And all of it below an empty qcow2 image of 1 MiB.
    let flat = flatten(&at(top), &parts, &middle, &at("top.flat"));
    fs::write(at("over.qcow2"), overlay(top, Some("vpc"))).unwrap();
    let all = [Part { start: 0, length: 1 << 20, holder: Holder::Parent }];
    compare(folder.path(), "over.qcow2", &all, &flat, &mut compared).unwrap();
    eprintln!("children of children: {compared:?}");
    assert!(compared.rows > 20 && compared.own > 60_000 && compared.parent > 1 << 20);
}
