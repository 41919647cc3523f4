//! The gate to other files: images that name what they should not, with every policy, and a
//! trace of system calls that shows what was opened.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pretty_assertions::assert_eq;
use tempfile::TempDir;

use common::all_enabled;
use common::binary::{Run, instar, run};
use common::lab::Lab;
use common::manifest::find;
use common::naming::{
    data_file, descriptor, descriptor_over, overlay, qcow_overlay, qed_overlay, rename_utf16,
};
use common::polyglot::{qcow2, vhd_footer};
use common::trace::{self, traced};

/// What images say is not below their directory.
const OUTSIDE: &str = "which is not below the image's directory";
const ALLOW: &str = "--allow-under DIR allows files below DIR";
const IGNORE: &str = "--external=ignore maps this file alone";
const PROTOCOL: &str = "which looks like a protocol and is never followed";

/// A hostile image in `vm`, and what `--external=follow` says about it.
struct Case {
    /// The image's file.
    image: &'static str,
    bytes: Vec<u8>,
    /// The name that is not followed.
    reference: &'static str,
    /// The name that the image itself holds, if that is another.
    named: &'static str,
    /// The image that the message is about, if not the first.
    about: &'static str,
    /// What else is in the message.
    says: Vec<&'static str>,
    /// Other files that are opened before the end, below `vm`.
    opens: &'static [&'static str],
}

impl Case {
    fn new(
        image: &'static str,
        bytes: Vec<u8>,
        reference: &'static str,
        says: &[&'static str],
    ) -> Self {
        let says = says.to_vec();
        Self { image, bytes, reference, named: reference, about: image, says, opens: &[] }
    }

    /// A qcow2 image with this backing file, called raw.
    fn over(reference: &'static str, says: &[&'static str]) -> Self {
        Self::new("top.qcow2", overlay(reference, Some("raw")), reference, says)
    }

    /// Opens these before it fails, the first of which the image names itself.
    fn opening(self, opens: &'static [&'static str]) -> Self {
        Self { named: opens[0], opens, ..self }
    }

    /// The message is about this one.
    fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }
}

/// `root/a/vm` with good and bad neighbours; `root/x` and `root/a/outside` are out of bounds.
struct Place {
    root: TempDir,
    _socket: UnixListener,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join("a").join(name);
        for folder in ["vm/sub", "outside", "outsider"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let secret = [b's'; 4096];
        for name in ["vm/base.raw", "../x", "secret.vhdx", "outside/secret", "outsider/secret"] {
            fs::write(at(name), secret).unwrap();
        }
        let mut both = qcow2(4096);
        both.extend(vhd_footer(both.len() as u64));
        fs::write(at("vm/both"), both).unwrap();
        symlink("../outside/secret", at("vm/link")).unwrap();
        symlink("../outside", at("vm/linked")).unwrap();
        symlink("/dev/zero", at("vm/device")).unwrap();
        symlink("link", at("vm/sub/base")).unwrap();
        symlink("../../../x", at("vm/sub/link")).unwrap();
        symlink("/etc/passwd", at("outside/passwd")).unwrap();
        for (name, over) in [
            ("sub/mid.qcow2", "../base.raw"),
            ("passwd.qcow2", "/etc/passwd"),
            ("b.qcow2", "c.qcow2"),
            ("c.qcow2", "top.qcow2"),
        ] {
            fs::write(at("vm").join(name), overlay(over, None)).unwrap();
        }
        let made = Command::new("mkfifo").arg(at("vm/fifo")).status().unwrap();
        assert!(made.success());
        let socket = UnixListener::bind(at("vm/socket")).unwrap();
        Self { root, _socket: socket }
    }

    fn vm(&self) -> PathBuf {
        self.root.path().canonicalize().unwrap().join("a/vm")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.vm().join(name), bytes).unwrap();
    }
}

/// An image of the manifest with another name of its parent.
fn child(id: &str, old: &str, new: &str) -> Vec<u8> {
    let lab = Lab::new();
    let entry = find(id);
    let folder = lab.unpack(entry).unwrap();
    let mut bytes = fs::read(folder.join(&entry.name)).unwrap();
    rename_utf16(&mut bytes, old, new);
    bytes
}

/// Names that lead elsewhere, with the reason for which they are not followed.
fn cases() -> Vec<Case> {
    let out = &[OUTSIDE, ALLOW];
    let mut cases = vec![
        Case::over("/etc/passwd", out),
        Case::over("../../x", out),
        Case::over("sub/../../../x", out),
        Case::over("link", out),
        Case::over("linked/secret", out),
        Case::over("sub/link", out),
        Case::over("sub/base", out),
        Case::over("/dev/zero", out),
        Case::over("device", out),
        Case::over("..", out),
        Case::over("fifo", &["which is a FIFO", IGNORE]),
        Case::over("socket", &["which is no file", IGNORE]),
        Case::over("sub", &["which is a directory", IGNORE]),
        Case::over(".", &["which is a directory", IGNORE]),
        Case::over("nope.raw", &["No such file or directory"]),
        Case::over("base.raw/x", &["Not a directory"]),
        Case::new("top.qcow2", overlay("/etc/passwd", None), "/etc/passwd", out),
        Case::new("top.qcow", qcow_overlay("/etc/passwd"), "/etc/passwd", out),
        Case::new("top.qcow", qcow_overlay("sub/../../../x"), "sub/../../../x", out),
        Case::new("top.qcow", qcow_overlay("link"), "link", out),
        Case::new("top.qcow", qcow_overlay("device"), "device", out),
        Case::new("top.qcow", qcow_overlay("fifo"), "fifo", &["which is a FIFO", IGNORE]),
        Case::new("top.qcow", qcow_overlay("nbd:x:1"), "nbd:x:1", &[PROTOCOL, IGNORE]),
        Case::new("top.qed", qed_overlay("/etc/passwd"), "/etc/passwd", out),
        Case::new("top.qed", qed_overlay("sub/../../../x"), "sub/../../../x", out),
        Case::new("top.qed", qed_overlay("linked/secret"), "linked/secret", out),
        Case::new("top.qed", qed_overlay("device"), "device", out),
        Case::new("top.qed", qed_overlay("fifo"), "fifo", &["which is a FIFO", IGNORE]),
        Case::new("top.qed", qed_overlay("nbd:x:1"), "nbd:x:1", &[PROTOCOL, IGNORE]),
        Case::new("flat.vmdk", descriptor("FLAT", "/etc/passwd"), "/etc/passwd", out),
        Case::new("flat.vmdk", descriptor("FLAT", "../../x"), "../../x", out),
        Case::new("flat.vmdk", descriptor("FLAT", "/dev/zero"), "/dev/zero", out),
        Case::new("flat.vmdk", descriptor("FLAT", "device"), "device", out),
        Case::new("vmfs.vmdk", descriptor("VMFS", "link"), "link", out),
        Case::new(
            "sparse.vmdk",
            descriptor("SPARSE", "../outside/secret"),
            "../outside/secret",
            out,
        ),
        Case::new("flat.vmdk", descriptor("FLAT", "fifo"), "fifo", &["which is a FIFO", IGNORE]),
        Case::new("flat.vmdk", descriptor("FLAT", "nbd:x:1"), "nbd:x:1", &[PROTOCOL, IGNORE]),
        Case::new("data.qcow2", data_file("/etc/passwd"), "/etc/passwd", out),
        Case::new("data.qcow2", data_file("../outside/secret"), "../outside/secret", out),
        Case::new("data.qcow2", data_file("device"), "device", out),
        Case::new("data.qcow2", data_file("nbd://h/x"), "nbd://h/x", &[PROTOCOL, IGNORE]),
        Case::new(
            "child.vhd",
            child("vhd-differencing", ".\\vhd-differencing-base.vhd", "..\\outside\\secret"),
            "../outside/secret",
            out,
        ),
        Case::new(
            "child.vhd",
            child("vhd-differencing", ".\\vhd-differencing-base.vhd", "..\\..\\..\\../../x"),
            "x",
            &["cannot open the parent"],
        ),
        Case::new(
            "child.vhdx",
            child("vhdx-child-empty", "vhdx-base.vhdx", "..\\secret.vhdx"),
            "../secret.vhdx",
            out,
        ),
    ];
    cases.extend(deeper());
    for name in [
        "nbd://localhost/x",
        "nbd:unix:/run/x",
        "http://localhost/x",
        "fd:0",
        "file:base.raw",
        "host_device:/dev/zero",
        "json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}",
    ] {
        cases.push(Case::over(name, &[PROTOCOL, IGNORE]));
    }
    cases
}

/// The same behind files that are followed, and what is wrong with those.
fn deeper() -> Vec<Case> {
    const CIRCLE: &str = "the images name each other in a circle: ";
    let over = |reference, format: &str, says: &[&'static str]| {
        Case::new("top.qcow2", overlay(reference, Some(format)), reference, says)
    };
    vec![
        // Not below the folder of the image that names it, although below the first one's.
        Case {
            bytes: overlay("sub/mid.qcow2", None),
            ..Case::over("../base.raw", &[OUTSIDE, ALLOW])
        }
        .opening(&["sub/mid.qcow2"])
        .about("sub/mid.qcow2"),
        Case {
            bytes: overlay("passwd.qcow2", None),
            ..Case::over("/etc/passwd", &[OUTSIDE, ALLOW])
        }
        .opening(&["passwd.qcow2"])
        .about("passwd.qcow2"),
        Case::new(
            "child.vmdk",
            descriptor_over("base.raw", "../outside/secret"),
            "../outside/secret",
            &[OUTSIDE, ALLOW],
        )
        .opening(&["base.raw"]),
        Case::new(
            "top.qcow",
            qcow_overlay("both"),
            "both",
            &["could be any of qcow2, vhd; the image that names it does not say which; --external=ignore"],
        )
        .opening(&["both"])
        .about("both"),
        over("base.raw", "qcow2", &["not a qcow2 image"]).opening(&["base.raw"]).about("base.raw"),
        Case { reference: "nosuch", ..over("base.raw", "nosuch", &["unknown format"]) }
            .opening(&["base.raw"]),
        over("top.qcow2", "qcow2", &[CIRCLE, "\"top.qcow2\" -> \"top.qcow2\""]),
        Case::new(
            "top.qcow",
            qcow_overlay("top.qcow"),
            "top.qcow",
            &[CIRCLE, "\"top.qcow\" -> \"top.qcow\""],
        ),
        Case::new("top.qcow", qcow_overlay("passwd.qcow2"), "/etc/passwd", &[OUTSIDE, ALLOW])
            .opening(&["passwd.qcow2"])
            .about("passwd.qcow2"),
        Case::new(
            "top.qed",
            qed_overlay("top.qed"),
            "top.qed",
            &[CIRCLE, "\"top.qed\" -> \"top.qed\""],
        ),
        Case::new("top.qed", qed_overlay("passwd.qcow2"), "/etc/passwd", &[OUTSIDE, ALLOW])
            .opening(&["passwd.qcow2"])
            .about("passwd.qcow2"),
        over("./top.qcow2", "qcow2", &[CIRCLE, "-> \"./top.qcow2\""]),
        over("b.qcow2", "qcow2", &[CIRCLE, "\"b.qcow2\" -> \"c.qcow2\" -> \"top.qcow2\""])
            .opening(&["b.qcow2", "c.qcow2"]),
    ]
}

/// As a message shows a name: quotes in it are escaped.
fn shown(reference: &str) -> String {
    reference.replace('"', "\\\"")
}

/// Runs all policies on a case, and looks at what was opened.
fn check(place: &Place, case: &Case, with_trace: bool) {
    let vm = place.vm();
    place.write(case.image, &case.bytes);
    let image = vm.join(case.image);
    let (reference, named) = (shown(case.reference), shown(case.named));
    for policy in ["", "--external=refuse", "--external=ignore", "--external=follow"] {
        let args: Vec<&str> =
            ["map", policy, case.image].into_iter().filter(|a| !a.is_empty()).collect();
        let (run, opened) = traced(&vm, &args, &image, with_trace);
        let mut allowed = vec![image.clone()];
        match policy {
            "--external=ignore" => {
                assert_eq!(
                    (run.status, run.stderr.contains("names")),
                    (0, false),
                    "{}",
                    run.stderr
                );
            }
            "--external=follow" => {
                run.assert_fails_with(&[&format!("instar: {}: ", case.about), &reference]);
                run.assert_fails_with(&case.says);
                allowed.extend(case.opens.iter().map(|name| vm.join(name)));
            }
            _ => run.assert_fails_with(&[
                &format!("instar: {}: ", case.image),
                "the image names another file (",
                // Names of Windows are shown as they are stored.
                named.rsplit('/').next().unwrap(),
                "which is not opened; --external=follow opens it",
                IGNORE,
            ]),
        }
        for opened in opened.into_iter().flatten().filter(|opened| !opened.is_handle_only) {
            assert!(
                allowed.contains(&opened.path),
                "{}\nopened {:?}: {}",
                run.command,
                opened.path,
                opened.line
            );
        }
    }
}

#[test]
fn hostile_names() {
    if !all_enabled() {
        eprintln!("skipped: hostile names: not every format is compiled in");
        return;
    }
    let with_trace = trace::available();
    let cases = cases();
    let place = Place::new();
    for case in &cases {
        check(&place, case, with_trace);
    }
    eprintln!("gate: {} hostile images, each with four policies", cases.len());
    assert!(cases.len() >= 35);
}

/// qemu-img never ends with these.
#[test]
fn circles_end_at_once() {
    if !common::enabled("qcow2") {
        eprintln!("skipped: circles: needs the format qcow2");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, over) in [
        ("self.qcow2", "self.qcow2"),
        ("a.qcow2", "b.qcow2"),
        ("b.qcow2", "c.qcow2"),
        ("c.qcow2", "a.qcow2"),
    ] {
        fs::write(folder.path().join(name), overlay(over, Some("qcow2"))).unwrap();
    }
    for (name, circle) in [
        ("self.qcow2", "\"self.qcow2\" -> \"self.qcow2\""),
        ("a.qcow2", "\"a.qcow2\" -> \"b.qcow2\" -> \"c.qcow2\" -> \"a.qcow2\""),
    ] {
        let start = Instant::now();
        let run = instar(folder.path(), &["map", "--external=follow", name]);
        let took = start.elapsed();
        run.assert_fails_with(&["the images name each other in a circle: ", circle]);
        eprintln!("{name}: a circle noticed after {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[test]
fn allowed_folders_and_nothing_else() {
    if !common::enabled("qcow2") || !common::enabled("raw") {
        eprintln!("skipped: allowed folders: needs the formats qcow2 and raw");
        return;
    }
    let with_trace = trace::available();
    let place = Place::new();
    let vm = place.vm();
    let follow = |name: &str, allowed: &[&str]| -> (Run, Vec<PathBuf>) {
        place.write("top.qcow2", &overlay(name, Some("raw")));
        let mut args = vec!["map", "--external=follow", "--output=jsonl"];
        args.extend(allowed.iter().flat_map(|folder| ["--allow-under", folder]));
        args.push("top.qcow2");
        let image = vm.join("top.qcow2");
        let (run, opened) = traced(&vm, &args, &image, with_trace);
        let opened = opened.into_iter().flatten().filter(|opened| !opened.is_handle_only);
        (run, opened.map(|opened| opened.path).filter(|path| *path != image).collect())
    };
    let outside = vm.join("../outside").display().to_string();
    let secret = format!("{outside}/secret");
    let found = vm.parent().unwrap().join("outside/secret");
    // Name, allowed folders: opened.
    let opening: &[(&str, &[&str])] = &[
        ("../outside/secret", &["../outside"]),
        ("../outside/secret", &["/dev", "../outsider", "../outside/"]),
        ("../outside/secret", &[&outside]),
        ("../outside/secret", &["linked"]),
        (&secret, &["../outside"]),
        ("link", &["../outside"]),
        ("linked/secret", &["../outside"]),
        ("linked/../../a/outside/secret", &["../outside"]),
        ("../outside/secret", &[".."]),
        ("../outside/secret", &["/"]),
    ];
    for (name, allowed) in opening {
        let (run, opened) = follow(name, allowed);
        assert!(run.assert_succeeds().contains("\"depth\": 1"), "{name} {allowed:?}");
        if with_trace {
            assert_eq!(opened, [found.as_path()], "{name} {allowed:?}");
        }
    }
    // Name, allowed folders, what is said: not opened.
    let refused: &[(&str, &[&str], &str)] = &[
        ("../outsider/secret", &["../outside"], OUTSIDE),
        ("../outside/secret", &["../outsider"], OUTSIDE),
        ("../outside/secret", &["../outside/nope"], "cannot open the allowed directory"),
        ("../outside/secret", &["../outside/secret"], "cannot open the allowed directory"),
        ("../outside/secret", &["."], OUTSIDE),
        ("../outside/secret", &["sub"], OUTSIDE),
        ("../outside/passwd", &["../outside"], OUTSIDE),
        ("../../x", &["../outside", "sub"], OUTSIDE),
        ("/etc/passwd", &[".."], OUTSIDE),
        ("/dev/zero", &["/dev"], "which is a device"),
        ("device", &["/dev"], "which is a device"),
        ("nbd://h/x", &["/"], PROTOCOL),
        ("../outside", &["../outside"], "which is a directory"),
    ];
    for (name, allowed, says) in refused {
        let (run, opened) = follow(name, allowed);
        run.assert_fails_with(&[says]);
        assert_eq!(opened, [] as [PathBuf; 0], "{name} {allowed:?}");
    }
    // What one image of a chain may name, another may too.
    place.write("sub/mid.qcow2", &overlay("../../outside/secret", Some("raw")));
    place.write("top.qcow2", &overlay("sub/mid.qcow2", Some("qcow2")));
    let deep = ["map", "--external=follow", "--allow-under=../outside", "top.qcow2"];
    assert!(instar(&vm, &deep).assert_succeeds().contains("outside/secret"));
    eprintln!("allowed folders: {} opened, {} refused", opening.len(), refused.len());
}

/// Shells let programs open a thousand files; a disk of pieces of 2 GB may have more.
#[test]
fn a_disk_in_more_files_than_may_usually_be_open() {
    if !common::enabled("vmdk") {
        eprintln!("skipped: many files: needs the format vmdk");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = |number: usize| format!("f{number:03}.vmdk");
    // Of 2048 sectors.
    let mut text = descriptor("FLAT", &name(0));
    for number in 0..100 {
        fs::write(folder.path().join(name(number)), vec![1; 1 << 20]).unwrap();
        if number > 0 {
            text.extend(format!("RW 2048 FLAT \"{}\" 0\n", name(number)).bytes());
        }
    }
    fs::write(folder.path().join("disk.vmdk"), text).unwrap();
    let script = "ulimit -S -n 32 && exec \"$0\" map --external=follow disk.vmdk";
    let mut shell = Command::new("sh");
    shell.current_dir(&folder).args(["-c", script, env!("CARGO_BIN_EXE_instar")]);
    let run = run(&mut shell);
    assert_eq!(run.assert_succeeds().lines().count(), 101);
}

/// How often the program runs while files are swapped beneath it.
const SWAPPED_RUNS: usize = 150;

/// Says so when the work is over, be it by a failed assertion.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Swaps `name` between `choices` until the work is done; returns how often.
fn swapping(name: &Path, choices: &[PathBuf], work: impl FnOnce()) -> usize {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0;
            while !done.load(Ordering::Relaxed) {
                // A name that is away for a moment is as good as another file.
                let next = &choices[swaps % choices.len()];
                fs::rename(next, name).unwrap();
                // Long enough to be found, short enough to be gone when it is opened.
                std::thread::sleep(Duration::from_micros(150 * (swaps as u64 % 5)));
                fs::rename(name, next).unwrap();
                swaps += 1;
            }
            swaps
        });
        {
            let _end = Ended(&done);
            work();
        }
        swapper.join().unwrap()
    })
}

/// Whatever is swapped for what, only content from inside is mapped.
#[test]
fn swapped_files() {
    if !common::enabled("qcow2") || !common::enabled("raw") {
        eprintln!("skipped: swapped files: needs the formats qcow2 and raw");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for folder in ["vm/kept", "outside"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    // They differ in where their data ends.
    fs::write(at("vm/kept/disk"), [1; 8192]).unwrap();
    fs::write(at("vm/inside"), [1; 8192]).unwrap();
    fs::write(at("outside/disk"), [2; 4096]).unwrap();
    symlink("../outside/disk", at("vm/to-outside")).unwrap();
    symlink("inside", at("vm/to-inside")).unwrap();
    symlink("../outside", at("vm/folder-outside")).unwrap();
    symlink("kept", at("vm/folder-inside")).unwrap();
    symlink("/dev/zero", at("vm/to-device")).unwrap();
    let made = Command::new("mkfifo").arg(at("vm/pipe")).status().unwrap();
    assert!(made.success());
    fs::write(at("vm/file.qcow2"), overlay("swapped", Some("raw"))).unwrap();
    fs::write(at("vm/folder.qcow2"), overlay("swapped/disk", Some("raw"))).unwrap();

    let swaps: [(&str, &[&str]); 4] = [
        ("file.qcow2", &["to-outside", "to-inside"]),
        ("file.qcow2", &["inside", "to-outside", "pipe", "to-device"]),
        ("folder.qcow2", &["folder-outside", "folder-inside"]),
        ("folder.qcow2", &["kept", "folder-outside"]),
    ];
    for (image, names) in swaps {
        let choices: Vec<PathBuf> = names.iter().map(|name| at("vm").join(name)).collect();
        let (mut mapped, mut refused) = (0, 0);
        let swapped = swapping(&at("vm/swapped"), &choices, || {
            while mapped + refused < SWAPPED_RUNS || (mapped == 0 && refused < 100 * SWAPPED_RUNS) {
                let args = ["map", "--external=follow", "--output=json", image];
                let run = instar(&at("vm"), &args);
                if run.status == 0 {
                    mapped += 1;
                    let text = run.text();
                    let first = "[{ \"start\": 0, \"length\": 8192, \"depth\": 1, ";
                    assert!(text.starts_with(first), "{names:?}: from outside:\n{text}");
                } else {
                    refused += 1;
                    run.assert_fails_with(
                        &["file.qcow2: qcow2: ", "swapped"][usize::from(image != "file.qcow2")..],
                    );
                }
            }
        });
        eprintln!(
            "swapped {names:?}: {swapped} swaps, {mapped} maps of what is inside, {refused} refused"
        );
        assert!(swapped > SWAPPED_RUNS && mapped > 0 && refused > 0);
    }
}
