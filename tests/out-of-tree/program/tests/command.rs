//! The program knows the format.

use std::process::Command;

use pretty_assertions::assert_eq;

/// Status, standard output and standard error of the program in the workspace's folder.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_instar-with-foo"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(arguments)
        .output()
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_sample_is_detected_and_mapped() {
    let (status, stdout, stderr) = run(&["map", "--output=json", "sample.foo"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert_eq!(
        stdout,
        r#"[{ "start": 0, "length": 512, "depth": 0, "present": true, "zero": false, "data": true, "compressed": false, "offset": 1024},
{ "start": 512, "length": 512, "depth": 0, "present": true, "zero": true, "data": false, "compressed": false},
{ "start": 1024, "length": 1024, "depth": 0, "present": false, "zero": true, "data": false, "compressed": false},
{ "start": 2048, "length": 512, "depth": 0, "present": true, "zero": false, "data": true, "compressed": true},
{ "start": 2560, "length": 512, "depth": 0, "present": true, "zero": false, "data": true, "compressed": false, "offset": 1536}]
"#
    );
}

#[test]
fn the_backing_file_is_asked_for_and_mapped_with_it() {
    let (status, stdout, stderr) = run(&["map", "overlay.foo"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("(backing file \"sample.foo\"), which is not opened\n"), "{stderr}");
    let (status, stdout, _) = run(&["map", "--external=follow", "-l", "2k", "overlay.foo"]);
    assert_eq!(status, Some(0));
    assert_eq!(
        stdout,
        "Offset          Length          Mapped to       File\n\
         0               0x200           0x400           sample.foo\n\
         0x200           0x200           0x400           overlay.foo\n"
    );
}

#[test]
fn the_format_is_listed_beside_the_others() {
    let (status, stdout, _) = run(&["formats"]);
    let names: Vec<&str> = stdout
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Lines that go on with what is covered start with spaces.
        .filter_map(|line| line.split(' ').next().filter(|name| !name.is_empty()))
        .collect();
    assert_eq!(status, Some(0));
    assert!(names.contains(&"foo") && names.len() > 1, "{names:?}");
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn the_format_can_be_named() {
    let (status, stdout, stderr) = run(&["map", "-f", "foo", "Cargo.toml"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.starts_with("instar: Cargo.toml: foo: not a foo image"), "{stderr}");
}
