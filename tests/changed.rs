//! An image that is written to while it is read.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use pretty_assertions::assert_eq;

/// Data extents of the image: enough that its map does not fit in a pipe and a buffer, so that
/// the reader can be made to wait.
const EXTENTS: u64 = 16_000;
const BLOCK: u64 = 4096;
const DATA: [u8; 4096] = [1; 4096];

/// Maps a raw image that grows when the map has begun; returns status, output and messages.
fn map_while_growing(options: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("growing.raw");
    let image = File::create(&path).unwrap();
    for extent in 0..EXTENTS {
        image.write_all_at(&DATA, extent * 2 * BLOCK).unwrap();
    }
    image.sync_all().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_instar"))
        .args(["map", "--output=json"])
        .args(options)
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut text = vec![0; 100];
    stdout.read_exact(&mut text).unwrap();
    (&image).write_all(b"x").unwrap();
    image.set_len(EXTENTS * 2 * BLOCK).unwrap();
    stdout.read_to_end(&mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), String::from_utf8(text).unwrap(), stderr)
}

#[test]
#[cfg_attr(not(feature = "raw"), ignore = "needs the raw format")]
fn is_a_warning() {
    let (status, stdout, stderr) = map_while_growing(&[]);
    assert_eq!(status, Some(0));
    assert!(stdout.ends_with("}]\n"));
    assert!(
        stderr.ends_with("growing.raw: warning: the file was written to while it was read\n"),
        "{stderr}"
    );
}

#[test]
#[cfg_attr(not(feature = "raw"), ignore = "needs the raw format")]
fn is_an_error_if_asked_for_and_the_map_is_not_ended() {
    let (status, stdout, stderr) = map_while_growing(&["--strict"]);
    assert_eq!(status, Some(1));
    assert!(stdout.ends_with("},\n"));
    assert!(
        stderr.ends_with("growing.raw: the file was written to while it was read\n"),
        "{stderr}"
    );
}
