//! `--output=jsonl`: the description, and rows that agree with the other two outputs.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pretty_assertions::assert_eq;
use serde_json::Value;

use common::binary::{Run, instar};
use common::lab::Lab;
use common::manifest::{Entry, runnable};
use common::naming::overlay;
use common::rows::{HumanRow, human_rows};
use common::workers::{in_parallel, report};
use common::{all_enabled, enabled};

/// What `state` can be, and present, zero, data, compressed and offset that go with it.
const STATES: &[(&str, [bool; 5])] = &[
    ("data", [true, false, true, false, true]),
    ("data-in-hole", [true, true, true, false, true]),
    ("opaque", [true, false, true, false, false]),
    ("compressed", [true, false, true, true, false]),
    ("zero", [true, true, false, false, false]),
    ("zero-at", [true, true, false, false, true]),
    ("absent", [false, true, false, false, false]),
    ("absent-at", [false, true, false, false, true]),
];

/// The lines of the output.
fn lines(run: &Run) -> Result<(Value, Vec<Value>), String> {
    let text = run.text();
    let wrong = |why: String| format!("{}\n{why}\n{text}", run.command);
    if !text.ends_with('\n') {
        return Err(wrong("the last line is not complete".to_owned()));
    }
    let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    let mut lines = lines.map_err(|e| wrong(e.to_string()))?;
    Ok((lines.remove(0), lines))
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

/// The sorted keys of an object.
fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// What was seen in all images.
#[derive(Default)]
struct Seen {
    images: AtomicUsize,
    rows: AtomicUsize,
    in_table: AtomicUsize,
    states: Mutex<BTreeMap<String, usize>>,
}

/// Whether the description is sound in itself.
fn check_description(entry: &Entry, description: &Value) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{}: {what}: {description}", entry.id));
    if keys(description) != ["files", "format", "image", "layers", "virtual-size"] {
        return wrong("keys");
    }
    if description["image"] != entry.name.as_str() {
        return wrong("image");
    }
    let layers = description["layers"].as_array().unwrap();
    for (depth, layer) in layers.iter().enumerate() {
        if keys(layer) != ["depth", "format", "image", "virtual-size"] || layer["depth"] != depth {
            return wrong("a layer");
        }
    }
    for key in ["image", "format", "virtual-size"] {
        if layers.first().is_none_or(|top| top[key] != description[key]) {
            return wrong("the first layer");
        }
    }
    Ok(())
}

/// Checks a row's own keys, takes them away, and returns its file.
fn strip(row: &mut Value, files: &[&str], seen: &Seen) -> Result<Option<String>, String> {
    let wrong = |what: &str, row: &Value| Err(format!("{what}: {row}"));
    let object = row.as_object_mut().ok_or("no object")?;
    let (state, file) = (object.remove("state"), object.remove("file"));
    let state = state.as_ref().and_then(Value::as_str).unwrap_or("").to_owned();
    let has = |key: &str| row[key] == true;
    let has_offset = row.get("offset").is_some();
    let flags = [has("present"), has("zero"), has("data"), has("compressed"), has_offset];
    if STATES.iter().find(|(word, _)| *word == state).is_none_or(|(_, its)| *its != flags) {
        return wrong(&format!("state {state:?}"), row);
    }
    *seen.states.lock().unwrap().entry(state).or_default() += 1;
    if file.is_some() != has_offset {
        return wrong("file without offset or offset without file", row);
    }
    let Some(file) = file else { return Ok(None) };
    let name = file.as_u64().and_then(|index| files.get(usize::try_from(index).ok()?));
    match name {
        Some(name) => Ok(Some((*name).to_owned())),
        None => wrong(&format!("file {file}, but files are {files:?}"), row),
    }
}

fn check(lab: &Lab, entry: &Entry, seen: &Seen) -> Result<(), String> {
    let Ok(folder) = lab.unpack(entry) else {
        return Ok(());
    };
    for external in ["follow", "ignore"] {
        let map = |output: &str| {
            let external = format!("--external={external}");
            instar(&folder, &["map", &external, output, &entry.name])
        };
        let (jsonl, json) = (map("--output=jsonl"), map("--output=json"));
        if (jsonl.status, &jsonl.stderr) != (json.status, &json.stderr) {
            return Err(format!("{}\nends otherwise than JSON: {}", jsonl.command, jsonl.stderr));
        }
        if json.status != 0 {
            // A parent that is not there.
            jsonl.failed_properly()?;
            continue;
        }
        let (description, mut rows) = lines(&jsonl)?;
        check_description(entry, &description)?;
        let files = texts(&description["files"]);
        let human = human_rows(&map("--output=human").text())?;
        let names: Result<Vec<Option<String>>, String> =
            rows.iter_mut().map(|row| strip(row, &files, seen)).collect();
        let names = names.map_err(|e| format!("{}\n{e}", jsonl.command))?;

        let expected: Vec<Value> = serde_json::from_str(&json.text()).map_err(|e| e.to_string())?;
        let is_empty = matches!(expected.as_slice(), [only] if only["length"] == 0);
        // The array has an empty row where there is nothing; lines have none.
        if rows != expected && !(is_empty && rows.is_empty()) {
            return Err(format!("{}\nrows differ from JSON's", jsonl.command));
        }
        let end: u64 = rows.iter().map(|row| row["length"].as_u64().unwrap()).sum();
        if description["virtual-size"] != end {
            return Err(format!("{}\nrows end at {end}: {description}", jsonl.command));
        }
        let table_end = human.last().map_or(0, |row| row.start + row.length);
        for (row, name) in rows.iter().zip(names) {
            let number = |key: &str| row[key].as_u64().unwrap();
            // The table has data that is not in a hole, and may end early.
            let is_in_table = row["data"] == true && row["zero"] == false;
            let Some(name) = name.filter(|_| is_in_table) else { continue };
            let (start, length, offset) = (number("start"), number("length"), number("offset"));
            let is_it = |known: &&HumanRow| {
                known.start <= start && start + length <= known.start + known.length
            };
            match human.iter().find(is_it) {
                Some(known)
                    if (&known.file, known.offset + (start - known.start)) == (&name, offset) =>
                {
                    seen.in_table.fetch_add(1, Ordering::Relaxed);
                }
                None if start >= table_end => {}
                other => {
                    return Err(format!("{}\n{row} in {name}: table has {other:?}", jsonl.command));
                }
            }
        }
        seen.rows.fetch_add(rows.len(), Ordering::Relaxed);
        seen.images.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn agrees_with_the_other_outputs() {
    let lab = Lab::new();
    let entries: Vec<&Entry> = runnable().filter(|entry| entry.safe).collect();
    let seen = Seen::default();
    let failures = in_parallel(&entries, |entry| check(&lab, entry, &seen));
    lab.check();
    report(&failures, entries.len());
    let Seen { images, rows, in_table, states } = seen;
    let (images, rows, in_table) = (images.into_inner(), rows.into_inner(), in_table.into_inner());
    let states = states.into_inner().unwrap();
    eprintln!("jsonl: {images} maps, {rows} rows, {in_table} found in the table: {states:?}");
    let formats = common::enabled_formats().len();
    assert!(images >= 5 * formats && rows >= images && in_table >= 5 * formats);
    if all_enabled() {
        let known: Vec<&str> = STATES.iter().map(|(word, _)| *word).collect();
        let mut known = known;
        known.sort_unstable();
        assert_eq!(states.keys().map(String::as_str).collect::<Vec<_>>(), known);
    }
}

/// The description, key by key.
#[test]
fn description_of_a_chain() {
    if !enabled("qcow2") || !enabled("raw") {
        eprintln!("skipped: description of a chain: needs the formats qcow2 and raw");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("base \"1\".raw"), [7; 4096]).unwrap();
    std::fs::write(folder.path().join("top.qcow2"), overlay("base \"1\".raw", Some("raw")))
        .unwrap();
    let args = ["map", "--external=follow", "--output=jsonl", "./top.qcow2"];
    let (description, rows) = lines(&instar(folder.path(), &args)).unwrap();
    let expected = serde_json::json!({
        "image": "./top.qcow2",
        "format": "qcow2",
        "virtual-size": 1 << 20,
        "layers": [
            { "depth": 0, "image": "./top.qcow2", "format": "qcow2", "virtual-size": 1 << 20 },
            { "depth": 1, "image": "./base \"1\".raw", "format": "raw", "virtual-size": 4096 },
        ],
        "files": ["./top.qcow2", "./base \"1\".raw"],
    });
    assert_eq!(description, expected);
    let row = |start: u64, length: u64, depth: u64, more: Value| {
        let mut row = serde_json::json!({
            "start": start, "length": length, "depth": depth, "compressed": false,
        });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let data = serde_json::json!({
        "present": true, "zero": false, "data": true, "offset": 0, "file": 1, "state": "data",
    });
    let absent =
        serde_json::json!({ "present": false, "zero": true, "data": false, "state": "absent" });
    assert_eq!(rows, [row(0, 4096, 1, data), row(4096, (1 << 20) - 4096, 0, absent)]);

    // An empty window has a description and no row.
    let (again, rows) = lines(&instar(folder.path(), &[&args[..], &["-l", "0"]].concat())).unwrap();
    assert_eq!((again, rows), (expected, Vec::new()));
    // The version of qemu has no say in it.
    let old = [&args[..], &["--qemu-version=5.2"]].concat();
    let (new, old) = (instar(folder.path(), &args), instar(folder.path(), &old));
    assert_eq!(new.assert_succeeds(), old.assert_succeeds());
}
