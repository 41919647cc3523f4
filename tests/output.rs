//! Standard output that is closed, gone, or cannot take more at the moment.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use pretty_assertions::assert_eq;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::pipe;
use tempfile::TempDir;

use common::binary::{command, instar};
use common::enabled;
use common::polyglot::qcow2;

/// A folder with `x.qcow2`: `good` tables of 512 ranges, and, if `is_broken`, one more that is
/// outside the file.
fn folder(good: u32, is_broken: bool) -> TempDir {
    let tables = good + u32::from(is_broken);
    let mut image = qcow2(u64::from(tables) << 21);
    let first = image.len() as u64;
    image[36..40].copy_from_slice(&tables.to_be_bytes());
    for (index, entry) in (0..tables).zip(image[3 << 12..].chunks_exact_mut(8)) {
        let place = if index < good { first + (u64::from(index) << 12) } else { 1 << 40 };
        entry.copy_from_slice(&place.to_be_bytes());
    }
    // Every other cluster reads as zeros.
    image.extend((0..u64::from(good) << 9).flat_map(|index| (index % 2).to_be_bytes()));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.qcow2"), image).unwrap();
    folder
}

fn has_qcow2() -> bool {
    if !enabled("qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
    }
    enabled("qcow2")
}

/// Runs the program with a standard output whose reader has gone; its status and messages.
fn unread(folder: &TempDir, args: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let ran = command(folder.path()).args(args).stdout(writer).output().unwrap();
    (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
}

#[test]
fn what_is_wrong_with_an_image_is_said_though_nobody_reads_the_map() {
    if !has_qcow2() {
        return;
    }
    let broken = (Some(1), "is outside the file");
    let fine = (Some(0), "");
    for (good, is_broken, args, (status, text)) in [
        // Before anything was printed.
        (1, true, ["--output=json"].as_slice(), broken),
        (1, true, &["--output=jsonl"], broken),
        (1, true, &["--output=human"], broken),
        // Known when the first of the rows before it are printed, which take more than a buffer.
        (7, true, &["--output=json"], broken),
        (7, true, &["--output=jsonl"], broken),
        // Found when nobody reads any more.
        (40, true, &["--output=json"], broken),
        (40, false, &["--output=json"], fine),
        (7, false, &["--output=json"], fine),
        (1, false, &["--output=json"], fine),
        (1, false, &["--output=json", "--max-extents=511"], (Some(1), "--max-extents allows, 511")),
        (
            7,
            true,
            &["--output=json", "--max-extents=3000"],
            (Some(1), "--max-extents allows, 3000"),
        ),
        (1, true, &["--output=json", "--max-extents=512"], (Some(1), "is outside the file")),
    ] {
        let folder = folder(good, is_broken);
        let args = [&["map"], args, &["x.qcow2"]].concat();
        let (ended, said) = unread(&folder, &args);
        assert_eq!(ended, status, "{good} {args:?}: {said}");
        assert!(said.contains(text), "{good} {args:?}: {said}");
        let lines = usize::from(!text.is_empty());
        assert_eq!(said.lines().count(), lines, "{good} {args:?}: {said}");
    }
}

/// What ends a table is a failure, and so is a warning with `--strict`.
#[test]
fn other_failures_are_said_though_nobody_reads() {
    if !has_qcow2() {
        return;
    }
    let folder = folder(1, false);
    let mut image = fs::read(folder.path().join("x.qcow2")).unwrap();
    let table = image.len() - 4096;
    let compressed = "File contains external, encrypted or";
    for (entry, args, said, lines) in [
        // With a tip.
        (1 << 62 | 1 << 30, ["map", "x.qcow2"].as_slice(), compressed, 2),
        (1 << 63 | 1 << 30, &["map", "--strict", "x.qcow2"], "data past the end of ", 1),
    ] {
        image[table..table + 8].copy_from_slice(&u64::to_be_bytes(entry));
        fs::write(folder.path().join("x.qcow2"), &image).unwrap();
        let (status, text) = unread(&folder, args);
        assert_eq!(status, Some(1), "{text}");
        assert!(text.contains(said) && text.lines().count() == lines, "{text}");
    }
    // The files that were examined count, those after them are not.
    let missing = "instar: nosuch: cannot open the file: No such file or directory (os error 2)\n";
    for (args, expected) in [
        (["nosuch", "x.qcow2"].as_slice(), (Some(1), missing)),
        (&["nosuch"], (Some(1), missing)),
        (&["x.qcow2", "nosuch"], (Some(0), "")),
        (&["--output=json", "nosuch", "x.qcow2"], (Some(1), missing)),
    ] {
        let (status, text) = unread(&folder, &[&["detect"], args].concat());
        assert_eq!((status, text.as_str()), expected, "{args:?}");
    }
    for args in [["formats"].as_slice(), &["formats", "--output=json"], &["--help"]] {
        assert_eq!(unread(&folder, args), (Some(0), String::new()), "{args:?}");
    }
}

/// A full disk does not hide what is wrong with the image.
#[test]
fn a_full_disk_and_a_broken_image_are_both_said() {
    if !has_qcow2() {
        return;
    }
    let folder = folder(1, true);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ran = command(folder.path()).args(["map", "x.qcow2"]).stdout(full).output().unwrap();
    let text = String::from_utf8(ran.stderr).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("instar: cannot write to standard output: No space"), "{text}");
    assert!(lines[1].contains("is outside the file"), "{text}");
    assert_eq!(ran.status.code(), Some(1));
}

/// The other end of a socket that goes away with something unread resets the connection.
#[test]
fn a_socket_whose_reader_goes_away_is_a_quiet_success() {
    if !has_qcow2() {
        return;
    }
    let folder = folder(100, false);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    // It is full, so that the program waits before anything of its own is in it.
    theirs.set_nonblocking(true).unwrap();
    while theirs.write(&[b'.'; 4096]).is_ok() {}
    theirs.set_nonblocking(false).unwrap();
    let child = command(folder.path())
        .args(["map", "--output=json", "x.qcow2"])
        .stdout(OwnedFd::from(theirs))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(150));
    drop(ours);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}

/// A pipe whose writing end does not block, filled to the brim, and how much is in it.
fn full_pipe() -> (File, OwnedFd, usize) {
    let (reader, writer) = pipe().unwrap();
    fcntl_setfl(&writer, OFlags::WRONLY | OFlags::NONBLOCK).unwrap();
    let mut file = File::from(writer);
    let mut filled = 0;
    loop {
        match file.write(&[b'.'; 4096]) {
            Ok(count) => filled += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return (reader.into(), file.into(), filled);
            }
        }
    }
}

/// Reads to the end, slowly at first, after the program was seen to wait.
fn read_late(child: &mut Child, mut reader: File, filled: usize) -> String {
    thread::sleep(Duration::from_millis(150));
    assert_eq!(child.try_wait().unwrap(), None, "it waits until it can write");
    let mut bytes = vec![0; 3 * 4096];
    reader.read_exact(&mut bytes).unwrap();
    thread::sleep(Duration::from_millis(50));
    reader.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes.split_off(filled)).unwrap()
}

#[test]
fn a_non_blocking_pipe_is_waited_for() {
    if !has_qcow2() {
        return;
    }
    let mut asked = 0;
    for (good, args) in [
        (1, ["map", "--sandbox=off", "x.qcow2"].as_slice()),
        (1, &["map", "x.qcow2"]),
        (100, &["map", "--sandbox=off", "--output=json", "x.qcow2"]),
        (100, &["map", "--sandbox=auto", "--output=json", "x.qcow2"]),
        (100, &["map", "--external=follow", "--output=jsonl", "x.qcow2"]),
        (1, &["detect", "x.qcow2"]),
        (1, &["formats"]),
        (1, &["map", "--help"]),
    ] {
        let folder = folder(good, false);
        let expected = instar(folder.path(), args).assert_succeeds();
        let (reader, writer, filled) = full_pipe();
        let mut child = command(folder.path())
            .args(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = read_late(&mut child, reader, filled);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{args:?}");
        assert_eq!(ended.status.code(), Some(0), "{args:?}");
        assert!(text == expected, "{args:?}: {} bytes, not {}", text.len(), expected.len());
        asked += 1;
    }
    assert_eq!(asked, 8);
}

/// The same for messages.
#[test]
fn a_non_blocking_standard_error_is_waited_for() {
    if !has_qcow2() {
        return;
    }
    for args in [
        ["map", "--output=json", "x.qcow2"].as_slice(),
        &["map", "--sandbox=off", "--output=json", "x.qcow2"],
        &["map", "nosuch"],
        &["detect", "nosuch"],
        &["map", "--nosuch"],
    ] {
        let folder = folder(1, true);
        let expected = instar(folder.path(), args);
        expected.failed_properly().unwrap();
        let (reader, writer, filled) = full_pipe();
        let mut child =
            command(folder.path()).args(args).stdout(Stdio::null()).stderr(writer).spawn().unwrap();
        let text = read_late(&mut child, reader, filled);
        assert_eq!(text, expected.stderr, "{args:?}");
        assert_eq!(child.wait().unwrap().code(), Some(1), "{args:?}");
    }
}
