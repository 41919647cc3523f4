//! `instar detect` and `instar formats`: what they print and with which exit status.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use tempfile::TempDir;

use common::all_enabled;
use common::binary::{Run, command, instar};
use common::polyglot::{qcow2, vhd_footer};
use common::terminal::on_terminal;

/// A folder with a file of each kind.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let image = qcow2(1 << 20);
    write("a.qcow2", &image);
    let mut broken = image.clone();
    broken[20..24].fill(0xff); // cluster bits
    write("broken.qcow2", &broken);
    write("both", &[image.as_slice(), &vhd_footer(16384)].concat());
    write("fixed.vhd", &[[1; 4096].as_slice(), &vhd_footer(4096)].concat());
    write("text", b"neither");
    // In a format for which there is no plugin, so that raw does not take it.
    write("foreign", b"QFI\xfb\0\0\0\x04");
    write("empty", b"");
    folder
}

fn detect(args: &[&str]) -> Run {
    instar(folder().path(), &[&["detect"], args].concat())
}

/// The formats that are compiled in, but for these.
fn others(but: &[&str]) -> String {
    let formats = common::enabled_formats().into_iter().filter(|name| !but.contains(name));
    formats.collect::<Vec<_>>().join(", ")
}

#[test]
fn the_winner_is_told_with_every_answer_and_why_it_won() {
    if !all_enabled() {
        eprintln!("skipped: not all formats are compiled in");
        return;
    }
    let cases = [
        (
            "a.qcow2",
            "qcow2, the only format that claims the file",
            format!("  verified  qcow2\n  no        {}\n", others(&["qcow2"])),
            0,
        ),
        (
            "broken.qcow2",
            "qcow2, the only format that claims the file",
            format!("  magic     qcow2\n  no        {}\n", others(&["qcow2"])),
            0,
        ),
        (
            "fixed.vhd",
            "vhd, surer than any other format",
            format!("  verified  vhd\n  fallback  raw\n  no        {}\n", others(&["raw", "vhd"])),
            0,
        ),
        (
            "text",
            "raw, as no format claims the file",
            format!("  fallback  raw\n  no        {}\n", others(&["raw"])),
            1,
        ),
        (
            "empty",
            "raw, as no format claims the file",
            format!("  fallback  raw\n  no        {}\n", others(&["raw"])),
            1,
        ),
    ];
    for (name, line, answers, status) in cases {
        let ran = detect(&[name]);
        assert_eq!(ran.text(), format!("{name}: {line}\n{answers}"));
        assert_eq!((ran.status, ran.stderr.as_str()), (status, ""), "{name}");
    }
}

#[test]
fn a_file_that_two_formats_claim_is_an_error_with_their_answers() {
    if !all_enabled() {
        eprintln!("skipped: not all formats are compiled in");
        return;
    }
    let ran = detect(&["both"]);
    let others = others(&["qcow2", "vhd"]);
    assert_eq!(
        ran.text(),
        format!("both: unknown\n  verified  qcow2, vhd\n  no        {others}\n")
    );
    let error = "both: could be any of qcow2, vhd";
    let tip = "  tip: 'instar map --format=NAME FILE' says which it is\n";
    assert_eq!((ran.status, ran.stderr), (1, format!("instar: {error}\n{tip}")));

    let object = array(&detect(&["--output=json", "both"])).remove(0);
    assert_eq!((&object["format"], &object["confidence"]), (&Value::Null, &Value::Null));
    assert_eq!(object["error"], error);
    assert_eq!(object["answers"].as_array().unwrap().len(), common::enabled_formats().len());
}

#[test]
fn without_a_format_there_is_an_error() {
    if common::enabled("qcow2") || common::enabled("raw") {
        eprintln!("skipped: a format claims the file");
        return;
    }
    let ran = detect(&["a.qcow2"]);
    let answers = match common::enabled_formats().as_slice() {
        [] => String::new(),
        some => format!("  no        {}\n", some.join(", ")),
    };
    assert_eq!(ran.text(), format!("a.qcow2: unknown\n{answers}"));
    assert!(ran.stderr.starts_with("instar: a.qcow2: not in any of the formats"), "{}", ran.stderr);
    assert_eq!(ran.status, 1);
}

#[test]
fn every_file_is_examined_whatever_is_wrong_with_others() {
    if !common::enabled("qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let ran = detect(&["a.qcow2", "nosuch", ".", "file:broken.qcow2", "nbd:x"]);
    let text = ran.text();
    let told: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
    let won = "qcow2, the only format that claims the file";
    assert_eq!(told, [format!("a.qcow2: {won}"), format!("file:broken.qcow2: {won}")]);
    let errors: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].starts_with("instar: nosuch: cannot open the file: "), "{}", errors[0]);
    assert!(errors[1].starts_with("instar: .: "), "{}", errors[1]);
    assert!(errors[2].starts_with("instar: nbd:x: no such file, and protocols"), "{}", errors[2]);
    assert_eq!(ran.status, 1);
    assert_eq!(detect(&["a.qcow2", "broken.qcow2"]).status, 0);
    detect(&[]).assert_fails_with(&["<FILE>", "see 'instar detect --help'"]);
    detect(&["-x", "a.qcow2"]).assert_fails_with(&["'-x'", "see 'instar detect --help'"]);
}

/// The elements of what was printed.
fn array(ran: &Run) -> Vec<Value> {
    let text = ran.text();
    assert!(text.ends_with("]\n"), "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    list.as_array().unwrap().clone()
}

#[test]
fn json_has_an_object_for_each_file() {
    if !common::enabled("qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let ran = detect(&["--output", "json", "a.qcow2", "nosuch"]);
    assert_eq!(ran.text().lines().count(), 2);
    let objects = array(&ran);
    let answers: Vec<Value> = common::enabled_formats()
        .iter()
        .map(|name| (name, if *name == "qcow2" { "verified" } else { "no" }))
        .map(|(name, answer)| json!({ "format": name, "confidence": answer }))
        .collect();
    assert_eq!(
        objects[0],
        json!({
            "file": "a.qcow2",
            "format": "qcow2",
            "confidence": "verified",
            "reason": "the only format that claims the file",
            "answers": answers,
        })
    );
    let error = "nosuch: cannot open the file: No such file or directory (os error 2)";
    assert_eq!(
        objects[1],
        json!({
            "file": "nosuch", "format": null, "confidence": null, "answers": [], "error": error,
        })
    );
    assert_eq!((ran.status, ran.stderr), (1, format!("instar: {error}\n")));
}

#[test]
fn names_are_escaped_on_terminals_only() {
    if !common::enabled("qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = b"a\x1b[31m\xff.qcow2";
    let path = folder.path().join(std::ffi::OsStr::from_bytes(name));
    fs::write(path, qcow2(1 << 20)).unwrap();
    let shown = on_terminal(folder.path(), &[b"detect", name]);
    let first = shown.lines().next().unwrap();
    assert_eq!(first, "a\\u{1b}[31m\\xff.qcow2: qcow2, the only format that claims the file");
    let plain = command(folder.path())
        .arg("detect")
        .arg(std::ffi::OsStr::from_bytes(name))
        .output()
        .unwrap();
    assert!(plain.stdout.starts_with(&[name.as_slice(), b": qcow2"].concat()));
}

#[test]
fn formats_as_json_say_what_each_format_says_of_itself() {
    let registry = instar::registry().unwrap();
    let expected: Vec<Value> = registry
        .entries()
        .iter()
        .map(|entry| {
            json!({
                "name": entry.format.name(),
                "aliases": entry.format.aliases(),
                "extensions": entry.format.extensions(),
                "package": entry.package,
                "version": entry.version,
                "covers": entry.format.about(),
                "divergences": entry.format.divergences(),
            })
        })
        .collect();
    let ran = instar(Path::new("."), &["formats", "--output=json"]);
    assert_eq!(array(&ran), expected);
    assert_eq!(ran.text().lines().count(), expected.len().max(1));
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
}

#[test]
fn formats_for_people_end_with_the_differences_from_qemu() {
    let text = instar(Path::new("."), &["formats", "--output=human"]).assert_succeeds();
    let registry = instar::registry().unwrap();
    let differing: Vec<String> = registry
        .entries()
        .iter()
        .map(|entry| (entry.format.name(), entry.format.divergences().join(", ")))
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name} {list}"))
        .collect();
    let Some((_, rest)) = text.split_once("\nOn purpose not as in qemu-img:\n") else {
        assert_eq!(differing, [""; 0]);
        return;
    };
    // A line that starts with spaces goes on with the one before.
    let joined = rest.replace("\n ", " ");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(joined.lines().map(words).collect::<Vec<_>>(), differing);
    assert!(!differing.is_empty());
}

#[test]
fn formats_for_people_fit_80_columns_and_leave_nothing_out() {
    let text = instar(Path::new("."), &["formats"]).assert_succeeds();
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 80, "{widest} columns");
    let (table, _) = text.split_once("\n\n").unwrap_or((&text, ""));
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let list = |names: &[&str]| if names.is_empty() { "-".into() } else { names.join(",") };
    let mut expected = words("Name Aliases Extensions Covers");
    for entry in instar::registry().unwrap().entries() {
        let format = entry.format;
        let (aliases, extensions) = (list(format.aliases()), list(format.extensions()));
        expected.extend([format.name().to_owned(), aliases, extensions]);
        expected.extend(words(format.about()));
    }
    assert_eq!(words(table), expected);
}

/// A file that raw takes but that is rather something else.
#[test]
fn what_a_file_looks_like_is_told() {
    if !common::enabled("raw") {
        eprintln!("skipped: raw is not compiled in");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.gz"), b"\x1f\x8b\x08\0packed").unwrap();
    let ran = instar(folder.path(), &["detect", "a.gz"]);
    let first = "a.gz: raw, as no format claims the file; it looks like gzip data";
    assert_eq!(ran.text().lines().next(), Some(first));
    assert_eq!((ran.status, ran.stderr.as_str()), (1, ""));
    let object = array(&instar(folder.path(), &["detect", "--output=json", "a.gz"])).remove(0);
    assert_eq!((&object["format"], &object["looks-like"]), (&json!("raw"), &json!("gzip data")));
    let plain = array(&detect(&["--output=json", "text"])).remove(0);
    assert_eq!((&plain["format"], plain.get("looks-like")), (&json!("raw"), None));
}
