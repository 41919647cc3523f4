//! The library: the same map as the command's, and the programs in `examples/`.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;
#[path = "../examples/copy_data.rs"]
#[allow(dead_code, unreachable_pub)] // its `main`
mod copy_data;
#[path = "../examples/sum_data.rs"]
#[allow(dead_code, unreachable_pub)] // its `main`
mod sum_data;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use instar::core::MemoryStorage;
use instar::{ErrorKind, ExternalPolicy, Image, Limits, Options, QemuVersion, Row, Window};
use pretty_assertions::assert_eq;
use serde_json::Value;

use common::binary::instar;
use common::lab::Lab;
use common::manifest::{Entry, runnable};
use common::naming::overlay;
use common::oracle::is_misread;
use common::polyglot::vhd_footer;
use common::qemu::{self, qemu_img};
use common::{all_enabled, enabled};

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn follow() -> Options {
    Options::new().external(ExternalPolicy::Follow { allow_under: Vec::new() })
}

fn rows(image: &mut Image) -> Vec<Row> {
    image.extents().map(Result::unwrap).collect()
}

/// A line of `--output=jsonl`.
fn shown(row: &Row) -> Value {
    let mut object = serde_json::json!({
        "start": row.start,
        "length": row.length,
        "depth": row.depth,
        "present": row.flags.present(),
        "zero": row.flags.zero(),
        "data": row.flags.data(),
        "compressed": row.flags.compressed(),
        "state": row.flags.state(),
    });
    if let Some(offset) = row.offset() {
        object["offset"] = offset.into();
        object["file"] = row.file.into();
    }
    object
}

/// Of every image: extents, layers and files are what the command prints, and errors too.
#[test]
fn the_library_says_what_the_command_says() {
    let lab = Lab::new();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failed = 0;
    for entry in runnable() {
        let Ok(folder) = lab.unpack(entry) else { continue };
        // The full name: tests run in parallel, and there is one current directory.
        let path = folder.join(&entry.name);
        let typed = path.display().to_string();
        let ran = instar(&folder, &["map", "--external=follow", "--output=jsonl", &typed]);
        let text = ran.text();
        let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut image = match Image::open(&path, follow()) {
            Ok(image) => image,
            Err(error) => {
                assert_eq!((ran.status, text.as_str()), (1, ""), "{}", entry.id);
                assert!(ran.stderr.contains(&error.to_string()), "{error}: {}", ran.stderr);
                failed += 1;
                continue;
            }
        };
        let about: Value = lines.next().unwrap();
        assert_eq!(about["virtual-size"], image.virtual_size(), "{}", entry.id);
        let layers = image.layers();
        assert_eq!(about["layers"].as_array().unwrap().len(), layers.len(), "{}", entry.id);
        for (told, layer) in about["layers"].as_array().unwrap().iter().zip(&layers) {
            assert_eq!(told["format"], layer.format, "{}", entry.id);
            assert_eq!(told["virtual-size"], layer.virtual_size, "{}", entry.id);
            assert_eq!(told["image"], layer.path.to_str().unwrap(), "{}", entry.id);
        }
        let names: Vec<_> = image.files().iter().map(|f| f.name.to_string()).collect();
        assert_eq!(about["files"], serde_json::json!(names), "{}", entry.id);
        let mut extents = image.extents();
        for line in lines {
            let row = extents.next().unwrap().unwrap();
            assert_eq!(shown(&row), line, "{}", entry.id);
        }
        match extents.next() {
            None => assert_eq!(ran.status, 0, "{}: {}", entry.id, ran.stderr),
            Some(Ok(row)) => panic!("{}: {row:?} is not printed", entry.id),
            Some(Err(error)) => {
                assert_eq!(ran.status, 1, "{}: {error}", entry.id);
                assert!(ran.stderr.contains(&error.to_string()), "{error}: {}", ran.stderr);
                failed += 1;
            }
        }
        assert!(extents.next().is_none(), "{}", entry.id);
        *seen.entry(&entry.format).or_default() += 1;
    }
    lab.check();
    eprintln!("images: {seen:?}; {failed} errors");
    for format in common::enabled_formats() {
        let count = seen.get(format).copied().unwrap_or(0);
        assert!(count >= 5, "{count} images of {format}");
    }
}

#[test]
fn batches_and_the_iterator_take_turns() {
    if !enabled("qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let mut image = Image::open(docs("demo.qcow2"), Options::new()).unwrap();
    let all = rows(&mut image);
    assert!(all.len() > 4, "{all:?}");
    assert_eq!(rows(&mut image), all, "the map can be read again");
    let mut extents = image.extents();
    assert_eq!(extents.next().unwrap().unwrap(), all[0]);
    assert_eq!(extents.next_batch().unwrap(), &all[1..]);
    assert!(extents.next_batch().unwrap().is_empty());
    assert!(extents.next().is_none());
}

#[test]
fn windows_cut_and_can_be_empty() {
    if !enabled("qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let window = |start, length| Window { start, length: Some(length) };
    let options = Options::new().window(window(0x20000, 0x600));
    let mut image = Image::open(docs("demo.qcow2"), options).unwrap();
    let told: Vec<_> = rows(&mut image).iter().map(|r| (r.start, r.length, r.offset())).collect();
    assert_eq!(told, [(0x20000, 0x600, Some(0x9000))]);
    for empty in [window(0, 0), window(1 << 40, 1)] {
        assert!(image.extents_of(empty).next().is_none());
        assert!(image.extents_of(empty).next_batch().unwrap().is_empty());
    }
    let back = image.extents_of(window(0x1000, 0x1000)).next().unwrap().unwrap();
    assert_eq!((back.start, back.length, back.offset()), (0x1000, 0x1000, Some(0x6000)));
}

#[test]
fn what_an_image_names_is_refused_ignored_or_followed() {
    if !enabled("qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let path = docs("overlay.qcow2");
    let error = Image::open(&path, Options::new()).err().unwrap();
    assert_eq!((error.kind(), error.format()), (ErrorKind::External, Some("qcow2")));
    assert_eq!(error.path(), Some(path.as_path()));
    let image = Image::open(&path, Options::new().external(ExternalPolicy::Ignore)).unwrap();
    assert_eq!(image.layers().len(), 1);
    let image = Image::open(&path, follow()).unwrap();
    assert_eq!(image.layers().len(), 2);
    assert!(image.files().iter().all(|file| file.storage.is_some()));
    let mut limits = Limits::default();
    limits.depth = 0;
    let error = Image::open(&path, follow().limits(limits)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Limit);
}

#[test]
fn wrong_options_are_said_before_the_file_is_touched() {
    let kind = |options: Options| Image::open("nosuch", options).err().unwrap().kind();
    assert_eq!(kind(Options::new()), ErrorKind::Io);
    assert_eq!(kind(Options::new().format("nosuch")), ErrorKind::Usage);
    for unit in [0, 511, 513, 4 << 20] {
        assert_eq!(kind(Options::new().read_unit(unit)), ErrorKind::Usage, "{unit}");
    }
    assert_eq!(kind(Options::new().read_unit(4096)), ErrorKind::Io);
}

#[test]
fn options_reach_the_format() {
    if !all_enabled() {
        eprintln!("skipped: not all formats are compiled in");
        return;
    }
    // A notice, and the same as an error: data behind the end of the file.
    let mut cut = fs::read(docs("demo.qcow2")).unwrap();
    cut.truncate(cut.len() - 512);
    let open = |options: Options| {
        Image::from_storage(Arc::new(MemoryStorage::from_bytes(cut.clone())), "cut", options)
    };
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&heard);
    let options = Options::new().on_notice(move |n| sink.lock().unwrap().push(n.text.clone()));
    assert!(open(options).unwrap().extents().all(|row| row.is_ok()));
    assert!(heard.lock().unwrap()[0].starts_with("data past the end of cut: "), "{heard:?}");
    let mut strict = open(Options::new().strict(true)).unwrap();
    let errors: Vec<_> = strict.extents().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].kind(), ErrorKind::Strict);

    // The format, and the version of qemu whose rules count.
    let raw = Image::open(docs("demo.qcow2"), Options::new().format("raw")).unwrap();
    assert_eq!(raw.layers()[0].format, "raw");
    assert_eq!(raw.virtual_size(), fs::metadata(docs("demo.qcow2")).unwrap().len());
    let version = QemuVersion::new(5, 2);
    let mut image = Image::open(docs("demo.qcow2"), Options::new().qemu_version(version)).unwrap();
    assert!(rows(&mut image).iter().any(|row| row.flags.present()));
}

/// As the command does, at the end of the map.
#[test]
fn an_image_that_is_written_to_while_it_is_read_is_noticed() {
    if !enabled("raw") {
        eprintln!("skipped: raw is not compiled in");
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), [1; 4096]).unwrap();
    let mut image = Image::open(file.path(), Options::new().strict(true)).unwrap();
    assert!(image.extents().all(|row| row.is_ok()));
    fs::write(file.path(), [2; 8192]).unwrap();
    let told: Vec<_> = image.extents().map(|row| row.map_err(|error| error.kind())).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].is_ok(), "{told:?}");
    assert_eq!(told[1].unwrap_err(), ErrorKind::Strict);
    let mut extents = image.extents();
    assert_eq!(extents.next_batch().unwrap().len(), 1);
    assert_eq!(extents.next_batch().unwrap_err().kind(), ErrorKind::Strict);
    assert!(extents.next_batch().unwrap().is_empty());
}

fn words(list: &[&Path]) -> Vec<String> {
    list.iter().map(|path| path.display().to_string()).collect()
}

#[test]
fn sum_data_sums_the_rows_of_each_file() {
    let option = || "--follow".to_owned();
    if enabled("qcow2") {
        let text = sum_data::run(&words(&[&docs("demo.qcow2")])).unwrap();
        // 0x4000 + 0x2000 + 0x1000, as the README shows.
        let path = docs("demo.qcow2");
        assert_eq!(text, format!("28672 {}\n28672 in all\n", path.display()));
        let overlay = docs("overlay.qcow2");
        let args = [vec![option()], words(&[&overlay])].concat();
        let (above, below) = (overlay.display(), path.display());
        let expected = format!("12288 {above}\n24576 {below}\n36864 in all\n");
        assert_eq!(sum_data::run(&args).unwrap(), expected);
        let error = sum_data::run(&words(&[&overlay])).unwrap_err().to_string();
        assert!(error.contains("names another file"), "{error}");
    }
    if enabled("vhd") {
        // Data in a hole of the file is not stored.
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&[1; 4096], 0).unwrap();
        file.as_file().write_all_at(&vhd_footer(65536), 65536).unwrap();
        file.as_file().sync_all().unwrap();
        let text = sum_data::run(&words(&[file.path()])).unwrap();
        assert_eq!(text, format!("4096 {}\n4096 in all\n", file.path().display()));
    }
    assert!(sum_data::run(&[]).unwrap_err().to_string().starts_with("usage: "));
    let Some((folder, entry, _lab)) = compressed() else { return };
    let args = [vec![option()], words(&[&folder.join(&entry.name)])].concat();
    let text = sum_data::run(&args).unwrap();
    let line = text.lines().find_map(|line| line.strip_suffix(" compressed or encrypted"));
    assert!(line.unwrap().parse::<u64>().unwrap() > 0, "{text}");
}

/// An image with compressed clusters.
fn compressed() -> Option<(PathBuf, &'static Entry, Lab)> {
    let lab = Lab::new();
    let Some(entry) = runnable().find(|entry| entry.id == "qcow2-v2-compressed") else {
        eprintln!("skipped: qcow2 is not compiled in");
        return None;
    };
    let folder = lab.unpack(entry).ok()?;
    Some((folder, entry, lab))
}

#[test]
fn copy_data_copies_data_across_files_and_leaves_holes() {
    if !enabled("qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("copy.raw");
    let args = words(&[Path::new("--follow"), &docs("overlay.qcow2"), &target]);
    assert_eq!(copy_data::run(&args).unwrap(), 36864);
    // The rows that the README shows: guest offset, length, file offset, file.
    let mut expected = vec![0; 1 << 20];
    for (at, length, offset, name) in [
        (0, 0x2000, 0x5000, "demo.qcow2"),
        (0x2000, 0x1000, 0x5000, "overlay.qcow2"),
        (0x3000, 0x1000, 0x8000, "demo.qcow2"),
        (0x20000, 0x2000, 0x9000, "demo.qcow2"),
        (0x80000, 0x2000, 0x6000, "overlay.qcow2"),
        (0xff000, 0x1000, 0xb000, "demo.qcow2"),
    ] {
        let file = fs::File::open(docs(name)).unwrap();
        file.read_exact_at(&mut expected[at..at + length], offset).unwrap();
    }
    assert!(fs::read(&target).unwrap() == expected, "the bytes are those of the README's rows");
    let blocks = fs::metadata(&target).unwrap().blocks();
    assert!(blocks * 512 <= 36864 + 65536, "{blocks} blocks are taken");
    // What is there is not overwritten.
    assert!(copy_data::run(&args).is_err());
    assert!(fs::read(&target).unwrap() == expected);
}

#[test]
fn copy_data_refuses_what_it_cannot_copy() {
    assert!(copy_data::run(&[]).unwrap_err().to_string().starts_with("usage: "));
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("copy.raw");
    if enabled("qcow2") {
        let image = folder.path().join("naming.qcow2");
        fs::write(&image, overlay("/etc/passwd", None)).unwrap();
        for option in ["", "--follow"] {
            let args = [words(&[&image, &target])].concat();
            let option = Vec::from_iter((!option.is_empty()).then(|| option.to_owned()));
            let error = copy_data::run(&[option, args].concat()).unwrap_err().to_string();
            assert!(error.contains("/etc/passwd"), "{error}");
        }
    }
    if let Some((unpacked, entry, _lab)) = compressed() {
        let error = copy_data::run(&words(&[&unpacked.join(&entry.name), &target]));
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("is compressed, which is not copied"), "{error}");
    }
    assert!(!target.exists(), "nothing was written");
}

/// The copy has the disk's bytes, as qemu-img reads them.
#[test]
fn copies_are_what_qemu_img_converts() {
    if qemu::installed("copies").is_none() {
        return;
    }
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    let mut copied: BTreeMap<&str, usize> = BTreeMap::new();
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in runnable().filter(|entry| entry.safe && entry.qemu_args.is_none()) {
        // A fixed VHD is raw to qemu-img if nobody says otherwise.
        if is_misread(&entry.id) || entry.id.starts_with("vhd-fixed") {
            continue;
        }
        let plain = entry.variants.iter().any(Vec::is_empty) && entry.size <= 16 << 20;
        if !plain || copied.get(entry.format.as_str()).is_some_and(|count| *count >= 8) {
            continue;
        }
        let Ok(unpacked) = lab.unpack(entry) else { continue };
        let path = unpacked.join(&entry.name);
        if Image::open(&path, follow()).is_ok_and(|image| image.virtual_size() > 256 << 20) {
            continue;
        }
        let target = folder.path().join(format!("{}.ours", entry.id));
        let args = words(&[Path::new("--follow"), &path, &target]);
        if let Err(error) = copy_data::run(&args) {
            let error = error.to_string();
            assert!(error.ends_with("which is not copied"), "{}: {error}", entry.id);
            *refused.entry(&entry.format).or_default() += 1;
            continue;
        }
        let theirs = folder.path().join(format!("{}.theirs", entry.id));
        let convert = words(&[Path::new("convert"), Path::new("-O"), Path::new("raw")]);
        let converted = qemu_img(&unpacked, &[convert, words(&[&path, &theirs])].concat());
        if converted.status != 0 {
            continue;
        }
        let (ours, theirs) = (fs::read(&target).unwrap(), fs::read(&theirs).unwrap());
        assert!(ours == theirs, "{}: other bytes than qemu-img's", entry.id);
        *copied.entry(&entry.format).or_default() += 1;
    }
    lab.check();
    eprintln!("copied and compared: {copied:?}; compressed or encrypted: {refused:?}");
    for format in common::enabled_formats() {
        let tried = copied.contains_key(format) || refused.contains_key(format);
        assert!(tried, "{format}: {copied:?} {refused:?}");
    }
    assert!(!enabled("qcow2") || copied["qcow2"] >= 5, "{copied:?}");
}
