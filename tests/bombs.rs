//! Images that ask for more time or memory than they have any right to: what comes of them, in
//! little memory.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pretty_assertions::assert_eq;

use common::binary::{Run, run};
use common::bombs::{BOMBS, Bomb, End};

/// KiB of address space, and so more than what is resident: 32 MiB.
const ADDRESS_SPACE: u64 = 32 << 10;

/// A bomb that is not defused runs for minutes or hours. Tests are slow programs, and others run
/// beside them.
const PATIENCE: Duration = Duration::from_secs(20);

/// Maps in 32 MiB, everything included, and not for long.
fn map(folder: &Path, args: &[&str]) -> Run {
    let script = format!("ulimit -v {ADDRESS_SPACE} && exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.current_dir(folder).arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_instar"));
    let start = Instant::now();
    let run = run(shell.arg("map").args(args));
    let took = start.elapsed();
    assert!(took < PATIENCE, "{}\ntook {took:?}", run.command);
    run
}

/// Puts a bomb into a folder of its own, if its format is compiled in and the host can.
fn made(bomb: &Bomb) -> Option<tempfile::TempDir> {
    if !common::enabled(bomb.format) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    match bomb.make(folder.path()) {
        Ok(()) => Some(folder),
        Err(error) => {
            eprintln!("skipped: {}: cannot be made here: {error}", bomb.name);
            None
        }
    }
}

#[test]
fn every_bomb_is_a_map_or_an_error_in_little_memory() {
    let mut tried = 0;
    for bomb in BOMBS {
        let Some(folder) = made(bomb) else { continue };
        tried += 1;
        let path = bomb.path();
        let args = [bomb.args, &[path.as_str()]].concat();
        match bomb.end {
            // More than a test has time for: see below.
            End::Rows(rows) if rows > 1_000_000 => continue,
            End::Rows(rows) => {
                let run = map(folder.path(), &args);
                let lines = run.stdout.iter().filter(|byte| **byte == b'\n').count() as u64;
                assert_eq!((run.status, lines), (0, rows), "{}: {}", bomb.name, run.stderr);
            }
            End::Error(text) => {
                let run = map(folder.path(), &args);
                assert_eq!(run.status, 1, "{}: {}", bomb.name, run.stderr);
                assert!(run.stderr.contains(text), "{}: {}", bomb.name, run.stderr);
                // A map that has begun is left open.
                assert!(matches!(run.stdout.as_slice(), b"" | b"["), "{}", bomb.name);
            }
        }
    }
    let most = BOMBS.iter().filter(|bomb| common::enabled(bomb.format)).count();
    assert!(tried + 1 >= most, "{tried} of {most} bombs could be made");
}

/// A file of 327,680 bytes whose map has 67 million ranges.
#[test]
fn a_map_without_end_is_warned_of_bounded_and_refused() {
    let bomb = BOMBS.iter().find(|bomb| bomb.name == "shared-l2.qcow2").unwrap();
    let Some(folder) = made(bomb) else { return };
    let length = folder.path().join(bomb.name).metadata().unwrap().len();
    assert_eq!(length, 327_680);
    let warning = "more L2 tables are named than the file has room for, 5";

    let bounded = map(folder.path(), &["--output=json", "--max-extents=100000", bomb.name]);
    bounded.failed_properly().unwrap();
    assert_eq!(bounded.text().lines().count(), 100_000);
    assert!(bounded.stderr.contains(warning), "{}", bounded.stderr);
    assert!(bounded.stderr.contains("--max-extents"), "{}", bounded.stderr);

    let strict = map(folder.path(), &["--output=json", "--strict", bomb.name]);
    strict.failed_properly().unwrap();
    assert!(strict.stderr.contains(warning), "{}", strict.stderr);
    // The tables that fit are mapped before the one that does not.
    assert!(strict.text().lines().count() <= 5 * 8192, "{}", strict.text().lines().count());
}
