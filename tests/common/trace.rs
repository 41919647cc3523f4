//! Which files our program opens, as the system sees it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::binary::{Run, instar, run};

/// Set to 1, it makes a missing strace a failure.
const REQUIRE: &str = "INSTAR_REQUIRE_QEMU";
/// Everything that gives a descriptor of a file.
const CALLS: &str = "trace=open,openat,openat2,creat,open_by_handle_at,execve,socket,connect";

/// One call that opens a file, whether it succeeded or not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// What it opened; after a failure, what it was asked for.
    pub(crate) path: PathBuf,
    /// A handle that gives no right to read.
    pub(crate) is_handle_only: bool,
    /// The line of the trace.
    pub(crate) line: String,
}

/// Whether traces can be made; says so if not.
///
/// # Panics
/// If they cannot and are required.
pub(crate) fn available() -> bool {
    let tried = Command::new("strace").args(["-y", "-e", "trace=none", "true"]).output();
    let problem = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let required = std::env::var_os(REQUIRE).is_some_and(|value| value == "1");
    assert!(!required, "{REQUIRE}=1, but strace cannot be run: {problem}");
    eprintln!("skipped: traces of system calls: strace cannot be run: {problem}");
    false
}

/// Runs our program; with a trace, also what it opened from `image` on, which it opens first.
pub(crate) fn traced(
    folder: &Path,
    args: &[&str],
    image: &Path,
    with_trace: bool,
) -> (Run, Option<Vec<Opened>>) {
    if !with_trace {
        return (instar(folder, args), None);
    }
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut strace = Command::new("strace");
    strace.current_dir(folder).args(["-f", "-y", "-e", CALLS, "-o"]).arg(log.path());
    let run = run(strace.arg(env!("CARGO_BIN_EXE_instar")).args(args));
    let log = fs::read_to_string(log.path()).expect("a trace");
    assert!(!log.contains("unfinished"), "more than one thread:\n{log}");
    let lines = log.lines().filter(|line| !line.contains(" +++ ") && !line.contains(" --- "));
    let all: Vec<Opened> = lines.map(|line| opened(folder, line)).collect();
    let first = all.iter().position(|opened| opened.path == image);
    let first = first.unwrap_or_else(|| panic!("{image:?} is not opened:\n{log}"));
    (run, Some(all.into_iter().skip(first).collect()))
}

/// A line such as `12 openat(6</dir>, "name", O_RDONLY) = 7</dir/name>`.
fn opened(folder: &Path, line: &str) -> Opened {
    let asked = line.split('"').nth(1).unwrap_or(line);
    let (_, result) = line.rsplit_once(" = ").unwrap_or_else(|| panic!("no result: {line}"));
    let within = |text: &str| Some(text.split_once('<')?.1.rsplit_once('>')?.0.to_owned());
    let base = line.split(',').next().and_then(within);
    let path = match within(result) {
        Some(path) => PathBuf::from(path),
        None => folder.join(base.unwrap_or_default()).join(asked),
    };
    Opened { path, is_handle_only: line.contains("O_PATH"), line: line.to_owned() }
}
