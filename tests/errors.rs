//! One test for each refusal: status 1, nothing on stdout, one line that says why, and tips.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pretty_assertions::assert_eq;
use tempfile::TempDir;

use common::binary::{Run, instar};
use common::naming::overlay;
use common::polyglot::{qcow2, vhd_footer};
use common::{all_enabled, enabled_formats};

const SYNTAX: &str =
    "not a size: expected digits and at most one suffix: b, k, M, G, T, P, E, or KiB to EiB";
const RANGE: &str = "must be between 0 and 9223372036854775807";
const HELP: &str = "see 'instar map --help'";

/// A folder with one file, `a.raw`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.raw"), [b'x'; 4096]).unwrap();
    folder
}

/// Runs `instar map` in a fresh folder that has `a.raw`.
fn map(args: &[&str]) -> Run {
    instar(folder().path(), &[&["map"], args].concat())
}

fn known_formats() -> String {
    let mut names = vec!["auto"];
    for name in enabled_formats() {
        names.push(name);
        match name {
            "raw" => names.push("file"),
            "vhd" => names.push("vpc"),
            _ => {}
        }
    }
    names.join(" ")
}

#[test]
fn missing_file() {
    map(&["nope"])
        .assert_fails("nope: cannot open the file: No such file or directory (os error 2)");
    map(&["a.raw/x"]).assert_fails("a.raw/x: cannot open the file: Not a directory (os error 20)");
}

#[test]
fn dangling_link() {
    let folder = folder();
    std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
    let run = instar(folder.path(), &["map", "link"]);
    run.assert_fails("link: cannot open the file: No such file or directory (os error 2)");
}

#[test]
fn directory() {
    let line = ".: is a directory, expected a regular file or a block device";
    map(&["."]).assert_fails(line);
}

#[test]
fn fifo_does_not_hang() {
    let folder = folder();
    let made = Command::new("mkfifo").arg(folder.path().join("fifo")).status().unwrap();
    assert!(made.success());
    let run = instar(folder.path(), &["map", "fifo"]);
    run.assert_fails("fifo: is a FIFO, expected a regular file or a block device");
}

#[test]
fn socket() {
    let folder = folder();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
    let run = instar(folder.path(), &["map", "s"]);
    run.assert_fails_with(&["instar: s: cannot open the file: No such device or address"]);
}

#[test]
fn no_permission() {
    let folder = folder();
    let path = folder.path().join("a.raw");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let mut run = instar(folder.path(), &["map", "a.raw"]);
    if fs::File::open(&path).is_ok() {
        // Root may read everything: ask as nobody, if that can be done.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = folder.path().join("instar");
        fs::copy(env!("CARGO_BIN_EXE_instar"), &program).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(&program).args(["map", "a.raw"]).current_dir(folder.path());
        if command.output().is_err() {
            eprintln!("skipped: no permission: root reads everything and there is no setpriv");
            return;
        }
        run = common::binary::run(&mut command);
        if !run.stderr.starts_with("instar: ") {
            eprintln!("skipped: no permission: cannot become nobody: {}", run.stderr);
            return;
        }
    }
    run.assert_fails("a.raw: cannot open the file: Permission denied (os error 13)");
}

#[test]
fn empty_name() {
    let missing = "a value is required for '<FILE>' but none was supplied";
    map(&[""]).assert_fails_and_advises(missing, &[HELP]);
    map(&["file:"]).assert_fails_with(&[]);
}

/// Formats with a header say so for a file of no bytes; raw has nothing to miss.
#[test]
fn empty_file() {
    let folder = folder();
    fs::write(folder.path().join("empty"), []).unwrap();
    let mut asked = 0;
    for format in enabled_formats() {
        let run = instar(folder.path(), &["map", "-f", format, "empty"]);
        let line = match format {
            "raw" => {
                let header = "Offset          Length          Mapped to       File\n";
                assert_eq!(run.assert_succeeds(), header);
                asked += 1;
                continue;
            }
            "bochs" => "the file does not start with 'Bochs Virtual HD Image' (at file offset 0x0)",
            "cloop" => {
                "header is cut short: the file has 0 bytes, at least 15 are needed (at file offset \
                 0x0)"
            }
            "dmg" => "no trailer: 'koly' is not in the last two sectors of the file",
            "luks" => "no LUKS header: the magic is missing (at file offset 0x0)",
            "parallels" => {
                "header is cut short: the file has 0 bytes, at least 16 are needed (at file offset \
                 0x0)"
            }
            "vdi" => {
                "header is cut short: the file has 0 bytes, at least 68 are needed (at file offset \
                 0x40)"
            }
            "qcow" | "qcow2" | "qed" => {
                "header is cut short: the file has 0 bytes, at least 4 are needed (at file offset \
                 0x0)"
            }
            "vhd" => "the file is empty, a footer needs 512 bytes",
            "vhdx" => "the file does not start with the signature `vhdxfile`",
            "vmdk" => {
                "neither a sparse extent (KDMV, COWD, seSparse) nor a text descriptor: there is \
                 no createType"
            }
            other => panic!("what does {other} say?"),
        };
        run.assert_fails(&format!("empty: {format}: {line}"));
        asked += 1;
    }
    assert_eq!(asked, enabled_formats().len());
}

#[test]
fn wrong_format() {
    let mut asked = 0;
    for format in enabled_formats() {
        let line = match format {
            "raw" => continue,
            "bochs" => "the file does not start with 'Bochs Virtual HD Image' (at file offset 0x0)",
            "cloop" => "no preamble: 'V2.0' is not at byte 11 of the file (at file offset 0xb)",
            "dmg" => "no trailer: 'koly' is not in the last two sectors of the file",
            "luks" => "no LUKS header: the magic is missing (at file offset 0x0)",
            "parallels" => {
                "the magic is [78, 78, 78, 78, 78, 78, 78, 78, 78, 78, 78, 78, 78, 78, 78, 78], \
                 expected 'WithoutFreeSpace' or 'WithouFreSpacExt' (at file offset 0x0)"
            }
            "vdi" => "signature is 0x78787878, expected 0xbeda107f (at file offset 0x40)",
            "qcow" => "not a qcow image: the magic is [78, 78, 78, 78], expected [51, 46, 49, fb]",
            "qcow2" => {
                "not a qcow2 image: the magic is [78, 78, 78, 78], expected [51, 46, 49, fb]"
            }
            "qed" => "not a QED image: the magic is [78, 78, 78, 78], expected [51, 45, 44, 00]",
            "vhd" => "no footer: neither the first nor the last sector starts with 'conectix'",
            "vhdx" => "the file does not start with the signature `vhdxfile`",
            "vmdk" => {
                "neither a sparse extent (KDMV, COWD, seSparse) nor a text descriptor: there is \
                 no createType"
            }
            other => panic!("what does {other} say?"),
        };
        map(&["-f", format, "a.raw"]).assert_fails(&format!("a.raw: {format}: {line}"));
        asked += 1;
    }
    let picky = enabled_formats().iter().filter(|f| **f != "raw").count();
    assert_eq!(asked, picky);
}

/// What qemu calls a file that is not looked into.
#[test]
fn file_is_raw() {
    if !enabled_formats().contains(&"raw") {
        eprintln!("skipped: needs raw");
        return;
    }
    assert_eq!(
        map(&["-f", "file", "a.raw"]).assert_succeeds(),
        map(&["-f", "raw", "a.raw"]).assert_succeeds()
    );
}

#[test]
fn unknown_format_lists_the_known_ones() {
    let known = known_formats();
    for name in ["nosuch", "RAW", "Qcow2", ""] {
        let line = format!("a.raw: unknown format {name:?}");
        let tip = format!("known formats: {known}");
        map(&["-f", name, "a.raw"]).assert_fails_and_advises(&line, &[&tip]);
    }
    // Said before the file is looked for.
    map(&["-f", "nosuch", "nope"]).assert_fails_with(&["unknown format \"nosuch\""]);
}

#[test]
fn no_format_is_compiled_in_for_the_file() {
    if enabled_formats().contains(&"raw") {
        eprintln!("skipped: raw takes any file");
        return;
    }
    let line = "a.raw: not in any of the formats compiled in";
    map(&["a.raw"]).assert_fails_and_advises(
        line,
        &[
            "'instar map --format=NAME FILE' maps it as if it were in that format",
            "'instar formats' lists the formats that are compiled in",
        ],
    );

    if enabled_formats().contains(&"qcow2") {
        let folder = folder();
        fs::write(folder.path().join("top.qcow2"), overlay("a.raw", None)).unwrap();
        let run = instar(folder.path(), &["map", "--external=follow", "top.qcow2"]);
        run.assert_fails_and_advises(
            &format!("{line}, and the image that names it does not say which"),
            &["--external=ignore maps FILE alone"],
        );
    }
}

/// A right magic with a broken header is an error, never a raw image.
#[test]
fn truncated_header() {
    let mut heads: Vec<(&str, Vec<u8>)> = vec![
        ("bochs", b"Bochs Virtual HD Image".to_vec()),
        ("cloop", b"#!/bin/sh\n#V2.0 Format\n".to_vec()),
        ("dmg", [b"koly\0\0\0\x04\0\0\x02\0".as_slice(), &[0xff; 500]].concat()),
        ("luks", b"LUKS\xba\xbe\0\x01".to_vec()),
        ("parallels", b"WithouFreSpacExt\x02".to_vec()),
        ("vdi", [[0; 0x40].as_slice(), b"\x7f\x10\xda\xbe"].concat()),
        ("qcow", b"QFI\xfb\0\0\0\x01".to_vec()),
        ("qcow2", b"QFI\xfb\0\0\0\x03".to_vec()),
        ("qed", b"QED\0".to_vec()),
        ("vhd", b"conectix".to_vec()),
        ("vhdx", b"vhdxfile".to_vec()),
        ("vmdk", b"KDMV\x01\0\0\0".to_vec()),
    ];
    heads.retain(|(format, _)| enabled_formats().contains(format));
    for (format, bytes) in &heads {
        let folder = folder();
        fs::write(folder.path().join("short"), bytes).unwrap();
        let run = instar(folder.path(), &["map", "short"]);
        run.assert_fails_with(&[&format!("short: {format}: ")]);
    }
    assert_eq!(heads.len(), enabled_formats().iter().filter(|f| **f != "raw").count());
}

#[test]
fn impossible_size_is_named() {
    if !enabled_formats().contains(&"qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let folder = folder();
    fs::write(folder.path().join("huge"), qcow2(u64::MAX)).unwrap();
    instar(folder.path(), &["map", "huge"]).assert_fails_with(&["huge: qcow2: "]);
}

/// A file that two formats claim with equal right is an error that names both.
#[test]
fn two_formats_in_one_file() {
    if !all_enabled() {
        eprintln!("skipped: needs qcow2 and vhd");
        return;
    }
    let folder = folder();
    let head = qcow2(1 << 20);
    let size = head.len() as u64;
    let both = [head.as_slice(), &vhd_footer(size)].concat();
    fs::write(folder.path().join("both"), both).unwrap();
    let run = instar(folder.path(), &["map", "both"]);
    run.assert_fails_and_advises(
        "both: could be any of qcow2, vhd",
        &["'instar map --format=NAME FILE' says which it is"],
    );
    for format in ["qcow2", "vhd", "raw"] {
        instar(folder.path(), &["map", "-f", format, "both"]).assert_succeeds();
    }
}

#[test]
fn bad_sizes() {
    let mut asked = 0;
    for (option, name) in
        [("-s", "--start-offset"), ("-l", "--max-length"), ("--max-length", "--max-length")]
    {
        for (why, texts) in [
            (SYNTAX, ["", "x", "1x", "1.5", "0x", "1kB", "1e3", "1Ki", "-0.0"].as_slice()),
            (RANGE, &["-1", "-0", "8E", "9223372036854775808", "99999999999999999999"]),
        ] {
            for text in texts {
                let line = format!("invalid value '{text}' for '{name} <N>': {why}");
                map(&[option, text, "a.raw"]).assert_fails_and_advises(&line, &[HELP]);
                asked += 1;
            }
        }
    }
    assert_eq!(asked, 42);
}

#[test]
fn bad_sector_sizes() {
    for (text, why) in [
        ("0", "must be a power of two from 512 to 2097152, not 0"),
        ("256", "must be a power of two from 512 to 2097152, not 256"),
        ("768", "must be a power of two from 512 to 2097152, not 768"),
        ("4M", "must be a power of two from 512 to 2097152, not 4194304"),
        ("x", SYNTAX),
        ("-512", RANGE),
    ] {
        let argument = format!("--sector-size={text}");
        let line = format!("invalid value '{text}' for '--sector-size <N>': {why}");
        map(&[&argument, "a.raw"]).assert_fails_and_advises(&line, &[HELP]);
    }
}

#[test]
fn bad_counts() {
    let mut asked = 0;
    for option in ["--max-depth", "--max-extents"] {
        for text in ["", "x", "-1", "1.5", "1k", "0x10", "18446744073709551616"] {
            let line = format!(
                "invalid value '{text}' for '{option} <N>': expected a whole number from 0 to \
                 18446744073709551615"
            );
            map(&[&format!("{option}={text}"), "a.raw"]).assert_fails_and_advises(&line, &[HELP]);
            asked += 1;
        }
    }
    assert_eq!(asked, 14);
}

#[test]
fn bad_choices() {
    for (option, value) in [("--output", "xml"), ("--output", "JSON"), ("--external", "nonsense")] {
        let run = map(&[&format!("{option}={value}"), "a.raw"]);
        let known = if option == "--output" { "human" } else { "refuse" };
        let start = format!("instar: invalid value '{value}' for '{option} <");
        run.assert_fails_with(&[&start, known, HELP]);
    }
    for value in ["nonsense", "7", "7.", "7.2.1.0", "v7.2", ""] {
        let run = map(&[&format!("--qemu-version={value}"), "a.raw"]);
        let line = format!(
            "invalid value '{value}' for '--qemu-version <V>': expected X.Y, X.Y.Z or host"
        );
        run.assert_fails_and_advises(&line, &[HELP]);
    }
    map(&["--output=jsn", "a.raw"]).assert_fails_and_advises(
        "invalid value 'jsn' for '--output <KIND>' [possible values: human, json, jsonl]",
        &["a similar value exists: 'json'", HELP],
    );
}

#[test]
fn number_of_files() {
    map(&["a.raw", "b.raw"]).assert_fails_and_advises("unexpected argument 'b.raw' found", &[HELP]);
    let missing = "the following required arguments were not provided: <FILE>";
    map(&[]).assert_fails_and_advises(missing, &[HELP]);
    map(&["-f", "raw"]).assert_fails_with(&["required arguments were not provided: <FILE>"]);
}

#[test]
fn options_of_qemu_that_are_not_supported() {
    for args in [["--image-opts", "driver=raw,file.filename=a.raw"], ["--image-opts", "a.raw"]] {
        map(&args).assert_fails_and_advises(
            "--image-opts is not supported",
            &["give the image's file name, and its format with --format"],
        );
    }
    map(&["--object", "secret,id=s0,data=x", "a.raw"]).assert_fails_and_advises(
        "--object is not supported",
        &["an encrypted image is mapped without its secret"],
    );
    map(&["--allow-under=.", "a.raw"]).assert_fails("--allow-under goes with --external=follow");
}

#[test]
fn unknown_options_and_commands() {
    for (option, tip) in [
        ("--bogus", "to pass '--bogus' as a value, use '-- --bogus'"),
        ("-x", "to pass '-x' as a value, use '-- -x'"),
        ("--outptu=json", "a similar argument exists: '--output'"),
    ] {
        let (name, _) = option.split_once('=').unwrap_or((option, ""));
        let line = format!("unexpected argument '{name}' found");
        map(&[option, "a.raw"]).assert_fails_and_advises(&line, &[tip, HELP]);
    }
    // Could be --output or --object.
    map(&["--o=json", "a.raw"]).assert_fails_with(&["'--o'"]);
    for option in ["-f", "--start-offset", "-l"] {
        map(&["a.raw", option]).assert_fails_with(&["a value is required for"]);
    }
    let here = Path::new(".");
    let commands = "the commands are map, detect and formats";
    let see = "see 'instar --help'";
    for word in ["nosuch", "info", "mpa", "map2raw"] {
        let line = format!("unrecognized subcommand '{word}'");
        let run = instar(here, &[word]);
        match word {
            "map2raw" => {
                let similar = "a similar subcommand exists: 'map'";
                run.assert_fails_and_advises(&line, &[similar, see]);
            }
            _ => run.assert_fails_and_advises(&line, &[commands, see]),
        }
    }
    instar(here, &["--bogus"])
        .assert_fails_and_advises("unexpected argument '--bogus' found", &[see]);
    for (command, argument) in [("formats", "x"), ("detect", "-x")] {
        let run = instar(here, &[command, argument]);
        let help = format!("  tip: see 'instar {command} --help'\n");
        run.assert_fails_with(&[&format!("unexpected argument '{argument}' found\n"), &help]);
    }
}

/// A file in place of the command.
#[test]
fn a_file_without_a_command() {
    let folder = folder();
    fs::write(folder.path().join("my disk"), b"x").unwrap();
    fs::write(folder.path().join("maps"), b"x").unwrap();
    for (typed, shown) in [
        ("a.raw", "a.raw"),
        ("nosuch.qcow2", "nosuch.qcow2"),
        ("dir/image", "dir/image"),
        ("my disk", "'my disk'"),
        ("it's.raw", r"'it'\''s.raw'"),
        ("maps", "maps"),
    ] {
        instar(folder.path(), &[typed]).assert_fails_and_advises(
            &format!("unrecognized subcommand '{typed}'"),
            &[&format!("to map a file: instar map {shown}")],
        );
    }
}

/// Core and the formats speak to programs: their texts name no option and no command.
#[test]
fn texts_of_core_and_formats_name_no_option() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![top.join("src/core/src"), top.join("plugins")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("samples.rs")
                || path.strip_prefix(top).unwrap().iter().any(|part| part == "tests")
            {
                // Says nothing to anybody.
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                    let after = line.split("--").nth(1).unwrap_or_default();
                    let option = after.starts_with(|c: char| c.is_ascii_lowercase());
                    let command = line.contains("'instar ");
                    assert!(!option && !command, "{}: {line}", path.display());
                }
                files += 1;
            }
        }
    }
    assert!(files > 100, "{files} files");
}

/// Without arguments there is help, but on standard error, and a script notices.
#[test]
fn no_arguments() {
    let here = Path::new(".");
    let run = instar::<&str>(here, &[]);
    assert_eq!((run.status, run.text().as_str()), (1, ""));
    assert_eq!(run.stderr, instar(here, &["-h"]).assert_succeeds());
}

#[test]
fn protocols() {
    for name in ["nbd:localhost:10809", "json:{}", "nosuch:a.raw", "http://host/a.raw"] {
        map(&[name]).assert_fails(&format!(
            "{name}: no such file, and protocols and json: descriptions are not supported"
        ));
    }
}

#[test]
fn control_characters_in_a_name_stay_on_one_line() {
    let run = map(&["a\nb\x1b[31m"]);
    let name = "a\\nb\\u{1b}[31m";
    run.assert_fails(&format!(
        "{name}: cannot open the file: No such file or directory (os error 2)"
    ));
}
