//! Names and texts from images: what a terminal gets of them, and how much a message repeats.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use instar::core::is_invisible;
use pretty_assertions::assert_eq;
use serde_json::Value;

use common::binary::{command, instar};
use common::enabled;
use common::polyglot::qcow2;
use common::terminal::on_terminal;

/// Names of which a terminal must not get every character.
const NAMES: &[(&str, &str)] = &[
    ("a\u{1b}[2J\n\r\t\u{7f}b", r"a\u{1b}[2J\n\r\t\u{7f}b"),
    ("\u{9b}31m\u{90}\u{9c}\u{85}", r"\u{9b}31m\u{90}\u{9c}\u{85}"),
    ("\u{202e}wocq\u{202c}.\u{2066}x\u{2069}", r"\u{202e}wocq\u{202c}.\u{2066}x\u{2069}"),
    ("\u{200e}a\u{200f}\u{2028}b\u{2029}", r"\u{200e}a\u{200f}\u{2028}b\u{2029}"),
    ("\u{200b}a\u{ad}\u{feff}\u{e0041}", r"\u{200b}a\u{ad}\u{feff}\u{e0041}"),
    ("plain \u{e9}\u{6f22}\u{1f600}\\", "plain \u{e9}\u{6f22}\u{1f600}\\"),
];

/// A qcow2 image with one cluster of data, so that the table has a row.
fn image() -> Vec<u8> {
    let mut image = qcow2(4096);
    let table = image.len() as u64;
    image[3 << 12..][..8].copy_from_slice(&(table | 1 << 63).to_be_bytes());
    image.resize(image.len() + 2 * 4096, 0);
    let (at, data) = (usize::try_from(table).unwrap(), table + 4096);
    image[at..at + 8].copy_from_slice(&(data | 1 << 63).to_be_bytes());
    image
}

#[test]
fn a_terminal_gets_names_that_it_does_not_act_on_and_others_get_them_as_they_are() {
    if !enabled("qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, shown) in NAMES {
        fs::write(folder.path().join(name), image()).unwrap();
        let ask = |args: &[&str]| {
            let args: Vec<&[u8]> = args.iter().chain([name]).map(|arg| arg.as_bytes()).collect();
            let on_terminal = on_terminal(folder.path(), &args);
            let raw = |c: &char| is_invisible(*c) && *c != '\n';
            assert_eq!(on_terminal.chars().filter(raw).collect::<String>(), "", "{shown}");
            let plain = command(folder.path())
                .args(args.iter().map(|arg| OsStr::from_bytes(arg)))
                .output()
                .unwrap();
            (on_terminal, String::from_utf8(plain.stdout).unwrap())
        };
        let (table, plain) = ask(&["map"]);
        assert!(table.ends_with(&format!("0x5000          {shown}\n")), "{table:?}");
        assert!(plain.ends_with(&format!("0x5000          {name}\n")), "{plain:?}");
        let (answer, plain) = ask(&["detect"]);
        assert!(answer.starts_with(&format!("{shown}: qcow2, ")), "{answer:?}");
        assert!(plain.starts_with(&format!("{name}: qcow2, ")), "{plain:?}");
        // JSON is the same JSON, and what is not for a terminal is as serde_json writes it.
        let (lines, plain) = ask(&["map", "--output=jsonl"]);
        assert_eq!(lines.lines().count(), 2, "{lines:?}");
        let (first, rest) = lines.split_once('\n').unwrap();
        let (plain_first, plain_rest) = plain.split_once('\n').unwrap();
        let description: Value = serde_json::from_str(first).unwrap();
        assert_eq!(description, serde_json::from_str::<Value>(plain_first).unwrap());
        assert_eq!((description["image"].as_str(), rest), (Some(*name), plain_rest));
        assert_eq!(plain_first, description.to_string());
        let (array, plain) = ask(&["detect", "--output=json"]);
        let list: Value = serde_json::from_str(&array).unwrap();
        assert_eq!(list[0]["file"].as_str(), Some(*name));
        assert_eq!(plain, format!("[{}]\n", list[0]));
    }
}

#[test]
fn messages_escape_the_name_in_front() {
    let folder = tempfile::tempdir().unwrap();
    for (name, shown) in NAMES {
        let error = "cannot open the file: No such file or directory (os error 2)";
        instar(folder.path(), &["map", name]).assert_fails(&format!("{shown}: {error}"));
        instar(folder.path(), &["detect", name]).assert_fails(&format!("{shown}: {error}"));
    }
    let name = OsStr::from_bytes(b"a\xffb");
    let run = instar(folder.path(), &[OsStr::new("map"), name]);
    run.assert_fails("a\\xffb: cannot open the file: No such file or directory (os error 2)");
    // More than a path can have.
    let run = instar(folder.path(), &["map", &"x".repeat(100_000)]);
    let shown = "x".repeat(4096);
    let error = "cannot open the file: File name too long (os error 36)";
    run.assert_fails(&format!("{shown}... (100000 bytes): {error}"));
}

/// Texts of a megabyte, of a character that takes six to show.
#[test]
fn a_message_repeats_the_start_of_a_long_text_and_says_how_long_it_is() {
    if !enabled("vmdk") {
        eprintln!("skipped: vmdk is not compiled in");
        return;
    }
    let long = "\u{1b}".repeat(1_000_000);
    let start = r"\u{1b}".repeat(42);
    let quoted = format!("\"{start}\"... (1000000 bytes)");
    let descriptor = |create_type: &str, line: &str, more: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n{more}\
                 createType=\"{create_type}\"\n{line}\n"
        )
    };
    let kind = "twoGbMaxExtentFlat";
    let named = format!("RW 8 FLAT \"{long}\" 0");
    let cases = [
        ("refuse", descriptor(kind, &named, ""), format!("(extent file {quoted})")),
        ("follow", descriptor(kind, &named, ""), format!("cannot open the extent file {quoted}")),
        ("refuse", descriptor(&long, "", ""), format!("createType {quoted} is ")),
        (
            "refuse",
            descriptor(kind, &format!("RW 8 {long}"), ""),
            format!("extent type {quoted} is "),
        ),
        (
            "refuse",
            descriptor(kind, &format!("RW {long}"), ""),
            format!("extent line \"RW {}\"... (1000003 bytes) is not ", r"\u{1b}".repeat(42)),
        ),
        (
            "ignore",
            descriptor(kind, "RW 8 FLAT \"x\" 0", &format!("parentFileNameHint=\"{long}\"\n")),
            format!("but parentFileNameHint names {quoted}\n"),
        ),
    ];
    for (policy, text, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.vmdk"), text).unwrap();
        let external = format!("--external={policy}");
        let run = instar(folder.path(), &["map", &external, "x.vmdk"]);
        assert_eq!(run.status, if policy == "ignore" { 0 } else { 1 }, "{}", run.stderr);
        assert!(run.stderr.contains(&expected), "{expected:?}: {:?}", run.stderr);
        assert!(run.stderr.len() < 800, "{policy}: {} bytes", run.stderr.len());
        let lines = run.stderr.lines().filter(|line| !line.starts_with("  tip: "));
        assert_eq!(lines.count(), 1, "{policy}: {:?}", run.stderr);
    }
    // What is the answer is not cut.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.vmdk"), descriptor(kind, &named, "")).unwrap();
    let run = instar(folder.path(), &["map", "--external=ignore", "x.vmdk"]);
    assert!(run.assert_succeeds().ends_with(&format!(" {long}\n")));
    let shown = on_terminal(folder.path(), &[b"map", b"--external=ignore", b"x.vmdk"]);
    assert!(shown.ends_with(&format!(" {}\n", r"\u{1b}".repeat(1_000_000))));
}
