//! The command line as qemu-img's users know it, and what it does besides printing a map.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use pretty_assertions::assert_eq;
use tempfile::TempDir;

use common::binary::{Run, command, instar, run};
use common::lab::Lab;
use common::manifest::runnable;
use common::naming::overlay;
use common::polyglot::qcow2;

const HEADER: &str = "Offset          Length          Mapped to       File\n";

/// A folder with images that are maps of one row.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.raw", "a:b.raw", "-l"] {
        fs::write(folder.path().join(name), [b'x'; 8192]).unwrap();
    }
    folder
}

/// Runs `instar map` in a folder of its own.
fn map(args: &[&str]) -> Run {
    instar(folder().path(), &[&["map"], args].concat())
}

fn row(length: &str, file: &str) -> String {
    format!("{HEADER}0               {length:<16}0               {file}\n")
}

/// Whether raw, of which these tests make their images, is there.
fn has_raw() -> bool {
    if !cfg!(feature = "raw") {
        eprintln!("skipped: raw is not compiled in");
    }
    cfg!(feature = "raw")
}

#[test]
fn options_are_read_as_getopt_reads_them() {
    if !has_raw() {
        return;
    }
    let mut asked = 0;
    for (args, length) in [
        (["-fraw", "-l4k", "a.raw"].as_slice(), "0x1000"),
        (&["a.raw", "-l", "4k"], "0x1000"),
        (&["--max-length=4k", "--format=raw", "a.raw"], "0x1000"),
        (&["--max-length", "4k", "--format", "raw", "a.raw"], "0x1000"),
        (&["--max-l=4k", "--form=raw", "a.raw"], "0x1000"),
        (&["-l", "1k", "-l", "4k", "a.raw"], "0x1000"),
        (&["--output=json", "--output=human", "a.raw"], "0x2000"),
        (&["-f", "nosuch", "-f", "raw", "a.raw"], "0x2000"),
        (&["-f", "auto", "a.raw"], "0x2000"),
        (&["-l", "4k", "--", "a.raw"], "0x1000"),
        (&["-U", "a.raw"], "0x2000"),
        (&["--force-share", "a.raw"], "0x2000"),
        (&["--strict", "a.raw"], "0x2000"),
        (&["-l", "9223372036854775807", "a.raw"], "0x2000"),
        (&["--external=ignore", "a.raw"], "0x2000"),
        (&["--external=refuse", "a.raw"], "0x2000"),
    ] {
        assert_eq!(map(args).assert_succeeds(), row(length, "a.raw"), "{args:?}");
        asked += 1;
    }
    assert_eq!(asked, 16);
    for args in [["--outp=json", "a.raw"].as_slice(), &["--output", "json", "a.raw"]] {
        assert!(map(args).assert_succeeds().starts_with("[{ \"start\": 0, \"length\": 8192,"));
    }
}

#[test]
fn names_are_read_as_qemu_reads_them() {
    if !has_raw() {
        return;
    }
    for (typed, shown) in [
        ("file:a.raw", "a.raw"),
        ("./a.raw", "./a.raw"),
        (".//a.raw", ".//a.raw"),
        ("file:a:b.raw", "./a:b.raw"),
        ("./a:b.raw", "./a:b.raw"),
    ] {
        assert_eq!(map(&[typed]).assert_succeeds(), row("0x2000", shown));
    }
    assert_eq!(map(&["--", "-l"]).assert_succeeds(), row("0x2000", "-l"));
}

#[test]
fn symbolic_links_are_followed_but_not_resolved() {
    if !has_raw() {
        return;
    }
    let folder = folder();
    std::os::unix::fs::symlink("a.raw", folder.path().join("link")).unwrap();
    let run = instar(folder.path(), &["map", "link"]);
    assert_eq!(run.assert_succeeds(), row("0x2000", "link"));
}

#[test]
fn help_and_version() {
    let here = Path::new(".");
    for args in [["--help"].as_slice(), &["-h"], &["map", "--help"], &["map", "-h"], &["help"]] {
        let text = instar(here, args).assert_succeeds();
        assert!(text.contains("Usage: instar"), "{args:?}: {text}");
    }
    let text = instar(here, &["map", "--help"]).assert_succeeds();
    for option in [
        "--format",
        "--output",
        "--start-offset",
        "--max-length",
        "--external",
        "--qemu-version",
        "--sector-size",
        "--strict",
        "--force-share",
    ] {
        assert!(text.contains(option), "{option} in {text}");
    }
    for args in [["--version"], ["-V"]] {
        let expected = concat!("instar ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(instar(here, &args).assert_succeeds(), expected);
    }
}

const COMMANDS: [&[&str]; 4] = [&[], &["map"], &["detect"], &["formats"]];

/// `-h` is one screen, `--help` explains more, and both fit 80 columns.
#[test]
fn short_help_fits_a_screen_and_long_help_has_examples() {
    let here = Path::new(".");
    for command in COMMANDS {
        let ask = |option| instar(here, &[command, &[option]].concat()).assert_succeeds();
        let (short, long) = (ask("-h"), ask("--help"));
        for text in [&short, &long] {
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= 80, "{command:?}: {widest} columns:\n{text}");
            assert!(text.lines().all(|line| line.trim_end() == line), "{command:?}: {text:?}");
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{text:?}");
        }
        assert!(short.lines().count() <= 24, "{command:?}: {} lines", short.lines().count());
        assert!(long.lines().count() > short.lines().count(), "{command:?}");
        assert!(!short.contains("Examples:") && long.contains("\nExamples:\n"), "{command:?}");
    }
}

/// The examples in the help work.
#[test]
fn examples_of_the_help() {
    if !(common::enabled("raw") && common::enabled("qcow2")) {
        eprintln!("skipped: needs raw and qcow2");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let copy = |from: &str, to: &str| fs::copy(docs.join(from), folder.path().join(to)).unwrap();
    copy("demo.qcow2", "disk.qcow2");
    copy("demo.qcow2", "demo.qcow2");
    copy("overlay.qcow2", "overlay.qcow2");
    fs::write(folder.path().join("disk.raw"), vec![b'x'; 2 << 20]).unwrap();
    let mut run = 0;
    for command in COMMANDS {
        let help = instar(folder.path(), &[command, &["--help"]].concat()).assert_succeeds();
        for line in help.lines().filter_map(|line| line.strip_prefix("  instar ")) {
            let args: Vec<&str> = line.split(' ').collect();
            let done = instar(folder.path(), &args);
            // To detect says 1 for a file that only raw takes.
            let status = i64::from(args == ["detect", "disk.qcow2", "disk.raw"]);
            assert_eq!((done.status, done.stderr.as_str()), (status, ""), "{line}");
            assert!(!done.stdout.is_empty(), "{line}");
            run += 1;
        }
    }
    assert_eq!(run, 12);
}

/// Sizes with units, which qemu does not take.
#[test]
fn sizes_have_units() {
    if !has_raw() {
        return;
    }
    for (size, length) in [("4KiB", "0x1000"), ("1.5KiB", "0x600"), ("1MiB", "0x2000")] {
        assert_eq!(map(&["-l", size, "a.raw"]).assert_succeeds(), row(length, "a.raw"), "{size}");
    }
}

/// A file that is mapped as raw for want of a format, but looks like something else: one note, and
/// qemu's map.
#[test]
fn a_file_that_looks_like_something_else_is_noted() {
    if !has_raw() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut iso = vec![0; 64 << 10];
    iso[0x8000..0x8006].copy_from_slice(b"\x01CD001");
    let files: [(&str, &[u8], &str); 3] = [
        ("a.gz", b"\x1f\x8b\x08\0", "gzip data"),
        ("a.E01", b"EVF\x09\r\n\xff\0", "an EWF image (E01)"),
        ("a.iso", &iso, "an ISO 9660 image"),
    ];
    for (name, head, what) in files {
        let mut bytes = head.to_vec();
        bytes.resize(64 << 10, b'x');
        fs::write(folder.path().join(name), bytes).unwrap();
        let note = format!(
            "instar: {name}: note: no image format found, mapped as raw; it looks like {what}\n"
        );
        for options in [&[][..], &["--strict"], &["--output=json"], &["-f", "auto"]] {
            let run = instar(folder.path(), &[&["map"], options, &[name]].concat());
            assert_eq!((run.status, &run.stderr), (0, &note), "{name} {options:?}");
            let stated = [&["map", "-f", "raw"], options, &[name]].concat();
            if options != ["-f", "auto"] {
                let told = instar(folder.path(), &stated);
                assert_eq!(told.assert_succeeds(), run.text(), "{name} {options:?}");
            }
        }
    }
    // The format of a layer below may be detected as well.
    if !common::enabled("qcow2") {
        return;
    }
    for (format, noted) in [(None, true), (Some("raw"), false)] {
        fs::write(folder.path().join("top.qcow2"), overlay("a.gz", format)).unwrap();
        let run = instar(folder.path(), &["map", "--external=follow", "top.qcow2"]);
        assert_eq!(run.status, 0, "{}", run.stderr);
        let note =
            "instar: a.gz: note: no image format found, mapped as raw; it looks like gzip data\n";
        assert_eq!(run.stderr, if noted { note } else { "" });
    }
}

/// qemu's line, and what to do about it.
#[test]
fn the_table_of_a_compressed_image_ends_with_advice() {
    if !common::enabled("qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut image = qcow2(4096);
    let entries = image.len();
    image[3 << 12..(3 << 12) + 8].copy_from_slice(&(entries as u64 | 1 << 63).to_be_bytes());
    image.resize(entries + 4096, 0);
    // One sector of compressed data, in the header.
    image[entries..entries + 8].copy_from_slice(&(1_u64 << 62).to_be_bytes());
    fs::write(folder.path().join("small.qcow2"), image).unwrap();
    let run = instar(folder.path(), &["map", "small.qcow2"]);
    assert_eq!((run.status, run.text().as_str()), (1, HEADER));
    assert_eq!(
        run.stderr,
        "instar: File contains external, encrypted or compressed clusters.\n  \
         tip: --output=json maps all of small.qcow2\n"
    );
    let json = instar(folder.path(), &["map", "--output=json", "small.qcow2"]).assert_succeeds();
    assert!(json.contains("\"compressed\": true"), "{json}");
}

#[test]
fn every_profile_has_its_keys() {
    if !has_raw() {
        return;
    }
    let common = "\"start\": 0, \"length\": 8192, \"depth\": 0, ";
    for (version, keys) in [
        ("5.2", "\"zero\": false, \"data\": true, "),
        ("6.0.99", "\"zero\": false, \"data\": true, "),
        ("6.1", "\"present\": true, \"zero\": false, \"data\": true, "),
        ("8.1", "\"present\": true, \"zero\": false, \"data\": true, "),
        ("8.2", "\"present\": true, \"zero\": false, \"data\": true, \"compressed\": false, "),
        ("99.0", "\"present\": true, \"zero\": false, \"data\": true, \"compressed\": false, "),
    ] {
        let run = map(&["--output=json", "--qemu-version", version, "a.raw"]);
        let expected = format!("[{{ {common}{keys}\"offset\": 0}}]\n");
        assert_eq!(run.assert_succeeds(), expected, "{version}");
    }
}

#[test]
fn a_host_without_qemu_img_cannot_be_asked() {
    let folder = folder();
    let mut without = command(folder.path());
    without.args(["map", "--qemu-version=host", "a.raw"]).env("PATH", folder.path());
    run(&mut without).assert_fails_with(&["cannot ask qemu-img for its version: "]);
}

#[test]
fn a_closed_pipe_is_a_quiet_success() {
    if !has_raw() {
        return;
    }
    // More rows than any pipe holds, so that the program writes after the reader has gone.
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("many.raw")).unwrap();
    let holes = 20_000;
    for i in 0..holes {
        file.write_all_at(b"x", i * 8192).unwrap();
    }
    file.set_len(holes * 8192).unwrap();
    file.sync_all().unwrap();
    let mut child = command(folder.path())
        .args(["map", "--output=json", "many.raw"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = child.stdout.take().unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    drop(reader);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn a_full_disk_is_an_error() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let folder = folder();
    for args in
        [["map", "a.raw"].as_slice(), &["map", "--output=json", "a.raw"], &["formats"], &["--help"]]
    {
        if args[0] == "map" && !has_raw() {
            continue;
        }
        let ended = command(folder.path()).args(args).stdout(full()).output().unwrap();
        let line = String::from_utf8_lossy(&ended.stderr);
        let expected =
            "instar: cannot write to standard output: No space left on device (os error 28)\n";
        assert_eq!(line, expected, "{args:?}");
        assert_eq!(ended.status.code(), Some(1), "{args:?}");
    }
}

/// Data past the end of the file: a warning that leaves the map as it is, or an error.
#[test]
fn strict_makes_warnings_errors() {
    if !cfg!(feature = "qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut image = qcow2(4096);
    let entries = image.len();
    // The L2 table follows; its one cluster would be far behind the end of the file.
    image[3 << 12..(3 << 12) + 8].copy_from_slice(&(entries as u64 | 1 << 63).to_be_bytes());
    image.resize(entries + 4096, 0);
    image[entries..entries + 8].copy_from_slice(&(1_u64 << 63 | 1 << 30).to_be_bytes());
    let mut file = File::create(folder.path().join("cut.qcow2")).unwrap();
    file.write_all(&image).unwrap();

    let lax = instar(folder.path(), &["map", "cut.qcow2"]);
    let table = format!("{HEADER}0               0x1000          0x40000000      cut.qcow2\n");
    assert_eq!((lax.status, lax.text()), (0, table));
    let warning = "instar: cut.qcow2: warning: ";
    assert!(lax.stderr.starts_with(warning), "{}", lax.stderr);
    assert!(lax.stderr.contains("data past the end of "), "{}", lax.stderr);
    assert_eq!(lax.stderr.lines().count(), 1, "{}", lax.stderr);

    let strict = instar(folder.path(), &["map", "--strict", "cut.qcow2"]);
    strict.failed_properly().unwrap();
    assert!(strict.stderr.contains("data past the end of "), "{}", strict.stderr);
    assert_eq!(strict.text(), HEADER, "the row that was warned of is not printed");
}

/// What the zero flag hides: the map is qemu's, but a table that was overwritten, here by refcounts
/// of 1, is noticed.
#[test]
fn space_of_zeros_past_the_end_is_a_warning() {
    if !cfg!(feature = "qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut image = qcow2(2 * 4096);
    let entries = image.len();
    image[3 << 12..(3 << 12) + 8].copy_from_slice(&(entries as u64 | 1 << 63).to_be_bytes());
    image.resize(entries + 4096, 0);
    let refcounts = 0x0001_0001_0001_0001_u64;
    for entry in image[entries..].chunks_exact_mut(8) {
        entry.copy_from_slice(&refcounts.to_be_bytes());
    }
    std::fs::write(folder.path().join("zeros.qcow2"), image).unwrap();

    let offset = refcounts & !0x1ff;
    let row = |start: u64| {
        format!(
            "{{ \"start\": {start}, \"length\": 4096, \"depth\": 0, \"present\": true, \
             \"zero\": true, \"data\": false, \"compressed\": false, \"offset\": {offset}}}"
        )
    };
    let lax = instar(folder.path(), &["map", "--output=json", "zeros.qcow2"]);
    assert_eq!((lax.status, lax.text()), (0, format!("[{},\n{}]\n", row(0), row(4096))));
    let text = "instar: zeros.qcow2: warning: space of zeros past the end of zeros.qcow2: 0x1000 \
                bytes at 0x1000100010000, but the file ends at 0x5000\n";
    assert_eq!(lax.stderr, text);
    let strict = instar(folder.path(), &["map", "--strict", "zeros.qcow2"]);
    strict.failed_properly().unwrap();
    assert!(strict.stderr.contains("space of zeros past the end of "), "{}", strict.stderr);
}

/// `--max-extents` prints as many ranges and then fails, visibly.
#[test]
fn a_map_ends_after_so_many_ranges() {
    if !cfg!(feature = "qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let ask = |output: &str, most: &str| {
        let (output, most) = (format!("--output={output}"), format!("--max-extents={most}"));
        instar(&docs, &["map", &output, &most, "demo.qcow2"])
    };
    let whole = ask("json", "18446744073709551615").assert_succeeds();
    let all = whole.lines().count();
    assert!(all > 4, "{whole}");
    for most in 0..=all {
        let run = ask("json", &most.to_string());
        if most == all {
            assert_eq!(run.assert_succeeds(), whole);
            continue;
        }
        run.failed_properly().unwrap();
        let end = format!("the map has more ranges than --max-extents allows, {most}\n");
        assert!(run.stderr.ends_with(&end), "{}", run.stderr);
        // The array is open: every range ends with a comma.
        let expected: String = whole.lines().take(most).map(|line| format!("{line}\n")).collect();
        let expected = if most == 0 { "[".to_owned() } else { expected };
        assert_eq!(run.text(), expected, "{most}");
    }
    // What the table does not show counts too.
    let table = ask("human", "2");
    table.failed_properly().unwrap();
    assert_eq!(table.text().lines().count(), 2, "{}", table.text());
}

/// `--max-extents` counts across the batches in which rows come.
#[test]
fn many_ranges_are_counted() {
    if !cfg!(feature = "qcow2") {
        eprintln!("skipped: qcow2 is not compiled in");
        return;
    }
    // 20 L1 entries name one L2 table, in which every other cluster is marked as zero.
    let mut image = qcow2(20 << 21);
    image[36..40].copy_from_slice(&20_u32.to_be_bytes());
    let table = image.len();
    image[3 << 12..].chunks_exact_mut(8).take(20).for_each(|entry| {
        entry.copy_from_slice(&(table as u64).to_be_bytes());
    });
    image.extend((0..512_u64).flat_map(|index| (index % 2).to_be_bytes()));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("many.qcow2"), image).unwrap();
    let ask = |most: u32| {
        let most = format!("--max-extents={most}");
        let run = instar(folder.path(), &["map", "--output=json", &most, "many.qcow2"]);
        (run.status, run.text().lines().count())
    };
    for most in [4095, 4096, 4097, 8192, 10_239] {
        assert_eq!(ask(most), (1, usize::try_from(most).unwrap()));
    }
    assert_eq!(ask(10_240), (0, 10_240));
}

/// `--sector-size` changes how the image is read, never what is printed.
#[test]
fn sector_size_does_not_change_the_map() {
    let lab = Lab::new();
    let mut asked = 0;
    for entry in runnable().filter(|entry| entry.safe) {
        let Ok(folder) = lab.unpack(entry) else {
            continue;
        };
        let ask = |size: &str| {
            let option = format!("--sector-size={size}");
            let args = ["map", "--output=json", "--external=ignore", &option, &entry.name];
            let run = instar(&folder, &args);
            (run.status, run.text(), run.stderr)
        };
        let usual = ask("4096");
        for size in ["512", "64k", "2M"] {
            assert_eq!(ask(size), usual, "{} with {size}", entry.id);
        }
        asked += 1;
    }
    lab.check();
    assert!(asked >= 10 * common::enabled_formats().len(), "{asked} images");
}

#[test]
fn reads_are_aligned_to_the_sector_size() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: aligned reads: strace is not installed");
        return;
    }
    let lab = Lab::new();
    let mut reads = 0;
    let asked = || runnable().filter(|entry| entry.safe && entry.format != "raw");
    // A few images of each format: tracing is slow.
    for entry in asked().step_by((asked().count() / 30).max(1)) {
        let Ok(folder) = lab.unpack(entry) else {
            continue;
        };
        for unit in [512, 4096, 2 << 20] {
            reads += aligned_reads(&folder, &entry.name, unit);
        }
    }
    let picky = common::enabled_formats().iter().filter(|f| **f != "raw").count();
    assert!(reads >= 20 * picky, "{reads} reads seen");
}

/// Asserts that all reads of an image are aligned, and returns how many there were.
fn aligned_reads(folder: &Path, name: &str, unit: u64) -> usize {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.current_dir(folder).args(["-f", "-q", "-y", "-s", "1"]);
    strace.args(["-e", "trace=read,pread64,preadv2"]);
    strace.arg("-o").arg(trace.path()).arg(env!("CARGO_BIN_EXE_instar"));
    strace.args(["map", "--external=ignore", &format!("--sector-size={unit}"), name]);
    run(&mut strace);
    let text = fs::read_to_string(trace.path()).unwrap();
    let mut reads = 0;
    for line in text.lines().filter(|line| line.contains(&format!("/{name}>"))) {
        let arguments = line.rsplit_once(") =").unwrap().0;
        let mut numbers = arguments.rsplit(", ").map(|n| n.parse::<u64>().unwrap_or(1));
        // preadv2(3</dir/name>, [{iov_base=""..., iov_len=length}], 1, offset, RWF_NOWAIT) = got
        // pread64(3</dir/name>, ""..., length, offset) = got
        let (offset, length) = if line.contains("preadv2(") {
            assert_eq!(numbers.next(), Some(1), "flags: {line}");
            let (offset, _) = (numbers.next().unwrap(), numbers.next());
            let length = line.split("iov_len=").nth(1).and_then(|rest| rest.split('}').next());
            let length = length.and_then(|digits| digits.parse().ok());
            (offset, length.unwrap_or_else(|| panic!("no length: {line}")))
        } else {
            assert!(line.contains("pread64("), "a read without an offset: {line}");
            (numbers.next().unwrap(), numbers.next().unwrap())
        };
        assert_eq!((offset % unit, length % unit), (0, 0), "{unit}: {line}");
        reads += 1;
    }
    reads
}

#[test]
fn a_null_device_is_an_empty_window() {
    if !has_raw() {
        return;
    }
    assert_eq!(map(&["-f", "raw", "/dev/null"]).assert_succeeds(), HEADER);
    let json = map(&["-f", "raw", "--output=json", "/dev/null"]).assert_succeeds();
    let rows = common::rows::json_rows(&json).unwrap();
    assert_eq!((rows.len(), rows[0].length), (1, 0));
}

/// A block device is one range of data, however many zeros it has.
#[test]
fn a_block_device_has_no_holes() {
    if !has_raw() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let attached =
        Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(&image).output();
    let device = match &attached {
        Ok(done) if done.status.success() => {
            String::from_utf8_lossy(&done.stdout).trim().to_owned()
        }
        other => {
            eprintln!("skipped: block device: no loop device can be made: {other:?}");
            return;
        }
    };
    let asked = instar(folder.path(), &["map", "-f", "raw", &device]);
    let detached = Command::new("losetup").args(["--detach", &device]).status().unwrap();
    assert!(detached.success());
    assert_eq!(asked.assert_succeeds(), row("0x100000", &device));
}
