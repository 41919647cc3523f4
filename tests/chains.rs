//! Images that name other files, against the installed qemu-img: random chains of mixed formats,
//! and chains as deep as the limit.
//!
//! `INSTAR_RANDOM_CHAINS` says how many (default 12), `INSTAR_RANDOM_SEED` from which seed, and
//! `INSTAR_RANDOM_CASE` picks one of them.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::all_enabled;
use common::binary::{Run, instar, run};
use common::compare::{different, same};
use common::qemu::{self, words};
use common::random::{Choices, Plan};
use common::weave::{FOLDERS, Weave};
use common::workers::{in_parallel, report};

/// Cases from which on every kind of image and name is expected to have had its turn.
const MANY: usize = 200;

#[test]
fn random_chains() {
    if qemu::installed("random chains").is_none() {
        return;
    }
    if !all_enabled() {
        eprintln!("skipped: random chains: not every format is compiled in");
        return;
    }
    let mut plan = Plan::from_environment();
    plan.cases = number("INSTAR_RANDOM_CHAINS", 12);
    eprintln!("INSTAR_RANDOM_SEED={} INSTAR_RANDOM_CHAINS={}", plan.seed, plan.cases);
    let cases: Vec<usize> = match plan.only {
        Some(case) => vec![case],
        None => (0..plan.cases).collect(),
    };
    let counts: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let answers = AtomicUsize::new(0);
    let failures = in_parallel(&cases, |case| {
        let mut choose = plan.choices(*case);
        let root = tempfile::tempdir().unwrap();
        // As both programs will show it.
        let root_path = root.path().canonicalize().unwrap();
        let weave = Weave::random(&root_path, &mut choose);
        let windows = windows(&mut choose);
        weave
            .make(&root_path)
            .and_then(|()| {
                check(&root_path, &weave, &windows, &answers).or_else(|_| {
                    // What was not on disk yet may have changed its allocation between two looks.
                    flush(&root_path);
                    check(&root_path, &weave, &windows, &answers)
                })
            })
            .map_err(|what| {
                let seed = plan.seed;
                format!("INSTAR_RANDOM_SEED={seed} INSTAR_RANDOM_CASE={case}\n{weave}{what}")
            })?;
        let mut counts = counts.lock().unwrap();
        for label in &weave.traits {
            *counts.entry((*label).to_owned()).or_default() += 1;
        }
        *counts.entry(format!("depth {}", weave.depth)).or_default() += 1;
        Ok(())
    });
    report(&failures, cases.len());
    let counts = counts.into_inner().unwrap();
    let answers = answers.into_inner();
    eprintln!("random chains: {} agree, {answers} answers compared: {counts:?}", cases.len());
    let depths = counts.iter().filter(|(label, _)| label.starts_with("depth "));
    assert_eq!(depths.map(|(_, count)| count).sum::<usize>(), cases.len());
    assert!(answers >= 6 * cases.len(), "{answers} answers compared");
    if plan.only.is_none() && plan.cases >= MANY {
        assert_eq!(counts.len(), KINDS, "every kind had its turn: {counts:?}");
    }
}

/// What a chain can have: six depths, thirteen kinds of images, and what names and sizes can be.
const KINDS: usize = 6 + 13 + 9;

fn number(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

/// Arguments for the whole disk and for two windows.
fn windows(choose: &mut Choices) -> Vec<Vec<String>> {
    let mut windows = vec![Vec::new()];
    for _ in 0..2 {
        let start = choose.between(0, 5 << 20);
        let length = choose.of(&[1, 511, 4096, 65_537, 3 << 20]);
        windows.push(words(&["-s", &start.to_string(), "-l", &length.to_string()]));
    }
    windows
}

fn flush(root: &Path) {
    for folder in FOLDERS {
        for item in fs::read_dir(root.join(folder)).unwrap() {
            File::open(item.unwrap().path()).unwrap().sync_all().unwrap();
        }
    }
}

/// Compares both outputs, whole and in windows.
fn check(
    root: &Path,
    weave: &Weave,
    windows: &[Vec<String>],
    answers: &AtomicUsize,
) -> Result<(), String> {
    let here = root.join("vm");
    let mut options = words(&["map", "--qemu-version=host", "--external=follow"]);
    if !weave.allowed.is_empty() {
        refused(&instar(&here, &[&options[..], std::slice::from_ref(&weave.top)].concat()))?;
    }
    for folder in &weave.allowed {
        options.extend(["--allow-under".to_owned(), root.join(folder).display().to_string()]);
    }
    for window in windows {
        for output in [words(&[]), words(&["--output=json"])] {
            let target = std::slice::from_ref(&weave.top);
            let ours = instar(&here, &[&options[..], &output, window, target].concat());
            let theirs = qemu::map(&here, &[&output, window, target]);
            if !same(&ours, &theirs) {
                return Err(different(&ours, &theirs));
            }
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }
    refused(&instar(&here, &["map", &weave.top]))
}

/// A file that is not allowed is refused, and the option is named.
fn refused(run: &Run) -> Result<(), String> {
    run.failed_properly()?;
    match run.stdout.is_empty() && run.stderr.contains("--") {
        true => Ok(()),
        false => Err(format!("{}\nwas to be refused: {}", run.command, run.stderr)),
    }
}

/// As many backing files as are allowed by default.
const DEEPEST: usize = 200;
/// KiB of memory that no chain needs.
const MUCH: u64 = 128 << 10;

/// Makes `layer-000.qcow2` and 201 overlays, each over the one before: a disk of 1 GiB, to which
/// every image adds a few clusters.
fn deep_chain(folder: &Path) {
    const GIB: u64 = 1 << 30;
    let make = |name: &str, below: Option<&str>, salt: u64| {
        let mut args = words(&["create", "-q", "-f", "qcow2"]);
        if let Some(below) = below {
            args.extend(words(&["-b", below, "-F", "qcow2"]));
        }
        args.extend([name.to_owned(), GIB.to_string()]);
        let run = qemu::qemu_img(folder, &args);
        assert_eq!(run.status, 0, "{}\n{}", run.command, run.stderr);
        let mut args = words(&["-t", "unsafe", "-f", "qcow2"]);
        for index in 0..8 {
            let at = ((index * 128 + salt * 5 + index * salt) % 1023) << 20;
            args.extend(["-c".to_owned(), format!("write -P {} {at} 64k", salt + 1)]);
        }
        args.push(name.to_owned());
        let run = qemu::qemu_io(folder, &args);
        assert_eq!(run.status, 0, "{}\n{}", run.command, run.stderr);
    };
    const TEMPLATES: usize = 16;
    let name = |number: usize| format!("layer-{number:03}.qcow2");
    make(&name(0), None, 0);
    let templates: Vec<Vec<u8>> = (1..=TEMPLATES)
        .map(|salt| {
            make("template", Some(&name(0)), salt as u64);
            fs::read(folder.join("template")).unwrap()
        })
        .collect();
    for number in 1..=DEEPEST + 1 {
        let mut image = templates[number % TEMPLATES].clone();
        let below = name(0);
        let at = image.windows(below.len()).position(|bytes| bytes == below.as_bytes()).unwrap();
        image[at..at + below.len()].copy_from_slice(name(number - 1).as_bytes());
        fs::write(folder.join(name(number)), image).unwrap();
    }
}

#[test]
fn deep_chains() {
    if !common::enabled("qcow2") {
        eprintln!("skipped: deep chains: needs the format qcow2");
        return;
    }
    if qemu::installed("deep chains").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    deep_chain(folder.path());
    let map =
        |args: &[&str]| instar(folder.path(), &[&["map", "--external=follow"], args].concat());

    for output in [words(&[]), words(&["--output=json"])] {
        let target = "layer-200.qcow2".to_owned();
        let theirs = qemu::map(folder.path(), &[&output, std::slice::from_ref(&target)]);
        let options = words(&["map", "--external=follow", "--qemu-version=host"]);
        let ours = instar(folder.path(), &[options, output, vec![target]].concat());
        assert!(same(&ours, &theirs), "{}", different(&ours, &theirs));
        assert!(ours.stdout.len() > 1000, "{}", ours.text());
    }

    let chain = ["layer-201.qcow2\" -> \"layer-200.qcow2\"", "--max-depth"];
    map(&["layer-201.qcow2"]).assert_fails_with(&[
        chain[0],
        chain[1],
        "more than 200 backing files",
    ]);
    map(&["--max-depth=201", "layer-201.qcow2"]).assert_succeeds();
    map(&["--max-depth=0", "layer-000.qcow2"]).assert_succeeds();
    map(&["--max-depth=0", "layer-001.qcow2"])
        .assert_fails_with(&["--max-depth", "more than 0 backing files"]);
    map(&["--max-depth=1", "layer-001.qcow2"]).assert_succeeds();
    map(&["--max-depth=1", "layer-002.qcow2"])
        .assert_fails_with(&["--max-depth", "more than 1 backing files"]);

    let top = "layer-200.qcow2";
    let program = env!("CARGO_BIN_EXE_instar");
    let ours = cost(folder.path(), &[program, "map", "--external=follow", top]);
    let theirs = cost(folder.path(), &["qemu-img", "map", top]);
    if let (Some((seconds, kib)), Some((their_seconds, their_kib))) = (ours, theirs) {
        eprintln!(
            "200 overlays of 1 GiB: instar {seconds} s and {kib} KiB, qemu-img {their_seconds} s \
             and {their_kib} KiB"
        );
        assert!(kib < MUCH && kib < their_kib, "{kib} KiB, qemu-img {their_kib} KiB");
    }
}

/// Seconds and KiB that a command takes, at the best of three; printed as skipped without `time`.
fn cost(folder: &Path, command: &[&str]) -> Option<(f64, u64)> {
    let mut best: Option<(f64, u64)> = None;
    for _ in 0..3 {
        let mut time = Command::new("/usr/bin/time");
        time.current_dir(folder).args(["-f", "%e %M"]).args(command);
        if !Path::new("/usr/bin/time").exists() {
            eprintln!("skipped: time and memory of a deep chain: there is no /usr/bin/time");
            return None;
        }
        let run = run(&mut time);
        assert_eq!(run.status, 0, "{}\n{}", run.command, run.stderr);
        let (seconds, kib) = run.stderr.trim().split_once(' ').unwrap();
        let now = (seconds.parse().unwrap(), kib.parse().unwrap());
        best = Some(best.map_or(now, |best| (best.0.min(now.0), best.1.min(now.1))));
    }
    best
}
