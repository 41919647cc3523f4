//! FILE as a descriptor or a device: an image that has no directory in which other files could be.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use common::binary::{instar, run};
use common::naming::overlay;

/// What is said about names in an image that has no directory of its own.
const NOWHERE: &str = "which is not followed from a descriptor or device in ";

/// Descriptors are in `/dev` and `/proc`, however they are spelled: what is beside them has nothing
/// to do with the image.
#[test]
fn an_image_that_is_a_descriptor_has_no_directory() {
    if !common::enabled("qcow2") || !common::enabled("raw") {
        eprintln!("skipped: descriptors: needs the formats qcow2 and raw");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let vm = folder.path().canonicalize().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(vm.join(name), bytes).unwrap();
    write("base.raw", &[1; 4096]);
    for (target, name) in [
        ("/dev/stdin", "stdin"),
        ("stdin", "again"),
        ("/dev", "devices"),
        ("/proc/self", "process"),
        ("top.qcow2", "plain"),
    ] {
        symlink(target, vm.join(name)).unwrap();
    }
    let follow = |file: &str, more: &[&str]| {
        let script = "exec \"$0\" map --external=follow \"$@\" < top.qcow2 3< top.qcow2";
        let mut shell = Command::new("sh");
        shell.current_dir(&vm).args(["-c", script, env!("CARGO_BIN_EXE_instar")]);
        run(shell.args(more).arg(file))
    };
    let descriptors = [
        "/dev/stdin",
        "/dev/fd/0",
        "/dev/fd/3",
        "/dev/./fd/../fd/0",
        "/proc/self/fd/0",
        "/proc/self/fd/3",
        "/proc/thread-self/fd/0",
        "file:/dev/stdin",
        "stdin",
        "again",
        "devices/stdin",
        "devices/fd/3",
        "process/fd/3",
    ];
    let inside = vm.join("base.raw").display().to_string();
    for file in descriptors {
        for (name, allowed, opens) in [
            ("base.raw", "", false),
            ("null", "", false),
            ("shm/x", "", false),
            (inside.as_str(), "", false),
            ("/dev/null", "", false),
            // A relative name starts nowhere, whatever is allowed.
            ("base.raw", ".", false),
            ("null", "/dev", false),
            ("/etc/passwd", ".", false),
            (inside.as_str(), ".", true),
            (inside.as_str(), "/", true),
        ] {
            write("top.qcow2", &overlay(name, Some("raw")));
            let allow = ["--allow-under", allowed];
            let run = follow(file, if allowed.is_empty() { &[] } else { &allow });
            if opens {
                assert!(run.assert_succeeds().contains("base.raw"), "{file} {name} {allowed}");
            } else {
                let says =
                    [NOWHERE, name, "  tip: --allow-under=DIR opens absolute names below DIR\n"];
                run.assert_fails_with(&says);
            }
        }
    }
    // These have one.
    write("top.qcow2", &overlay("base.raw", Some("raw")));
    for file in ["top.qcow2", "plain", "/proc/self/cwd/top.qcow2", "process/cwd/plain"] {
        assert!(follow(file, &[]).assert_succeeds().contains("base.raw"), "{file}");
    }
    let memory = Path::new("/dev/shm");
    match tempfile::tempdir_in(memory) {
        Ok(folder) => {
            fs::write(folder.path().join("base.raw"), [1; 4096]).unwrap();
            let image = folder.path().join("top.qcow2");
            fs::write(&image, overlay("base.raw", Some("raw"))).unwrap();
            let run = instar(&vm, &["map", "--external=follow", image.to_str().unwrap()]);
            assert!(run.assert_succeeds().contains("base.raw"));
        }
        Err(error) => eprintln!("skipped: {memory:?}: {error}"),
    }
}
