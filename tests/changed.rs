//! An image that is written to while it is read.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use pretty_assertions::assert_eq;

/// Data extents of the image: enough that its map does not fit in a pipe and a buffer, so that
/// the reader can be made to wait.
const EXTENTS: u64 = 16_000;
const BLOCK: u64 = 4096;
const DATA: [u8; 4096] = [1; 4096];

/// Maps `file` and calls `change` when the map has begun and its writer waits for a reader; returns
/// status, output and messages.
fn map_while(
    file: &Path,
    options: &[&str],
    change: impl FnOnce(),
) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_instar"))
        .args(["map", "--output=json"])
        .args(options)
        .arg(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut text = vec![0; 100];
    stdout.read_exact(&mut text).unwrap();
    change();
    stdout.read_to_end(&mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), String::from_utf8(text).unwrap(), stderr)
}

/// Maps a raw image that grows when the map has begun.
fn map_while_growing(options: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("growing.raw");
    let image = File::create(&path).unwrap();
    for extent in 0..EXTENTS {
        image.write_all_at(&DATA, extent * 2 * BLOCK).unwrap();
    }
    image.sync_all().unwrap();
    map_while(&path, options, || {
        (&image).write_all(b"x").unwrap();
        image.set_len(EXTENTS * 2 * BLOCK).unwrap();
    })
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

/// A VMDK of two flat extents, the second of which is cut when the map has begun.
#[test]
#[cfg_attr(not(feature = "vmdk"), ignore = "needs the vmdk format")]
fn an_extent_of_an_image_is_watched_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split.vmdk");
    let file = |name| File::create(folder.path().join(name)).unwrap();
    let (first, second) = (file("split-f1.vmdk"), file("split-f2.vmdk"));
    for extent in 0..EXTENTS {
        first.write_all_at(&DATA, extent * 2 * BLOCK).unwrap();
    }
    first.sync_all().unwrap();
    let sectors = (EXTENTS * 2 - 1) * BLOCK / 512;
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n\
         createType=\"twoGbMaxExtentFlat\"\nRW {sectors} FLAT \"split-f1.vmdk\" 0\n\
         RW 8192 FLAT \"split-f2.vmdk\" 0\n"
    );
    std::fs::write(&path, descriptor).unwrap();
    let map_while_cut = |options: &[&str]| {
        second.set_len(8192 * 512).unwrap();
        map_while(&path, options, || second.set_len(65536).unwrap())
    };

    let (status, stdout, stderr) = map_while_cut(&["--external=follow"]);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stdout.ends_with("}]\n"));
    assert!(
        stderr.ends_with("split-f2.vmdk: warning: the file was written to while it was read\n"),
        "{stderr}"
    );
    let (status, stdout, stderr) = map_while_cut(&["--external=follow", "--strict"]);
    assert_eq!(status, Some(1));
    assert!(stdout.ends_with("},\n"));
    assert!(
        stderr.ends_with("split-f2.vmdk: the file was written to while it was read\n"),
        "{stderr}"
    );
}
