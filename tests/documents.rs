//! What the documents say, where the program can be asked.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use instar::core::{FileStorage, Storage};
use pretty_assertions::assert_eq;
use serde_json::Value;

use common::binary::{Run, instar};
use common::enabled;
use common::polyglot::qcow2;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository, with every run of white space and comment signs as one space.
fn words(relative: &str) -> String {
    let text = fs::read_to_string(here().join(relative)).unwrap();
    text.split_whitespace().filter(|word| *word != "///").collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn says(relative: &str, claim: &str) {
    assert!(words(relative).contains(claim), "{relative} does not say: {claim}");
}

/// Maps the image of the documents, of which `args` are the options.
fn demo(args: &[&str]) -> Run {
    instar(&here().join("docs"), &[&["map"], args, &["demo.qcow2"]].concat())
}

fn has_qcow2() -> bool {
    if !enabled("qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
    }
    enabled("qcow2")
}

#[test]
fn reads_are_of_the_unit_that_is_documented() {
    let storage = FileStorage::open(&here().join("docs/demo.qcow2")).unwrap();
    assert_eq!(storage.read_unit(), 4096);
    says("src/image.rs", "a power of two from 512 to 2 MiB; 4 KiB by default.");
    says("docs/map.md", "a power of two from 512 to 2 MiB; default 4096.");
}

#[test]
fn options_are_shortened_as_documented() {
    if !has_qcow2() {
        return;
    }
    says(
        "docs/map.md",
        "A beginning that several options share is an error, except for those that mean one option \
         to qemu-img: `--m`, `--ma`, `--max` and `--max-` are `--max-length`, `--s` and `--st` are \
         `--start-offset`.",
    );
    let length = demo(&["--max-length=1k"]).assert_succeeds();
    assert_eq!(length.lines().count(), 2);
    for option in ["--m", "--ma", "--max", "--max-", "--max-l"] {
        assert_eq!(demo(&[&format!("{option}=1k")]).assert_succeeds(), length, "{option}");
    }
    let start = demo(&["--start-offset=1k"]).assert_succeeds();
    for option in ["--s", "--st", "--sta"] {
        assert_eq!(demo(&[&format!("{option}=1k")]).assert_succeeds(), start, "{option}");
    }
    for option in ["--f=qcow2", "--o=json"] {
        demo(&[option]).assert_fails_with(&["instar: "]);
    }
}

#[test]
fn a_version_is_two_or_three_numbers() {
    if !has_qcow2() {
        return;
    }
    says(
        "docs/map.md",
        "A version is written X.Y or X.Y.Z, of which Z does not count; anything else is an error.",
    );
    let ask = |version: &str| demo(&["--output=json", &format!("--qemu-version={version}")]);
    assert_eq!(ask("6.1").assert_succeeds(), ask("6.1.99").assert_succeeds());
    for version in ["banana", "8", "v8.2", "8.2-rc1"] {
        ask(version).assert_fails_with(&[version]);
    }
}

/// The table shows neither what is absent nor what is zero; JSON lines tell them apart.
#[test]
fn zeros_of_an_overlay_are_in_json_lines_only() {
    if !has_qcow2() {
        return;
    }
    says("docs/map.md", "do not copy the ranges of an overlay's table onto a copy of its base");
    says(
        "README.md",
        "The table leaves out both what an overlay does not hold and what it marks as zeros.",
    );
    let mut image = qcow2(3 * 4096);
    let table = image.len() as u64;
    image[3 << 12..][..8].copy_from_slice(&table.to_be_bytes());
    let data = table + 4096;
    for entry in [0, 1, data | 1 << 63] {
        image.extend(u64::to_be_bytes(entry));
    }
    image.resize(usize::try_from(data).unwrap() + 4096, 0);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.qcow2"), image).unwrap();
    let table = instar(folder.path(), &["map", "x.qcow2"]).assert_succeeds();
    assert_eq!(
        table.lines().skip(1).collect::<Vec<_>>(),
        [format!("{:<16}{:<16}{:<16}x.qcow2", "0x2000", "0x1000", "0x5000")]
    );
    let lines = instar(folder.path(), &["map", "--output=jsonl", "x.qcow2"]).assert_succeeds();
    let rows = lines.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let states: Vec<Value> = rows.map(|row| row["state"].clone()).collect();
    assert_eq!(states, ["absent", "zero", "data"]);
}

/// `testdata` is as small as it says that it is.
#[test]
fn testdata_is_small() {
    says(
        "testdata/README.md",
        "All images together are below 2 MiB packed, the baselines below 12 MiB; a test checks both.",
    );
    for (folder, most) in [("images", 2 << 20), ("expected", 12 << 20)] {
        let mut bytes = 0;
        let mut folders = vec![here().join("testdata").join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => bytes += entry.metadata().unwrap().len(),
                }
            }
        }
        assert!((most / 8..most).contains(&bytes), "{folder}: {bytes} bytes");
    }
}
