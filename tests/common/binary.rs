//! Running programs: ours and qemu's.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pretty_assertions::assert_eq;

/// After so long a program is taken to hang, and killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// KiB of address space in which even a hostile image must be answered.
const ADDRESS_SPACE: u64 = 512 << 10;

/// How a line starts that says what can be done.
const TIP: &str = "  tip: ";

/// The lines up to the first that is no statement, and the rest.
pub(crate) fn statements<'a>(lines: &'a [&'a str]) -> (&'a [&'a str], &'a [&'a str]) {
    let count = lines.iter().take_while(|line| !line.starts_with(TIP)).count();
    lines.split_at(count)
}

/// How a program ended and what it printed.
pub(crate) struct Run {
    /// The command, to be pasted into a shell.
    pub(crate) command: String,
    /// Exit status; 128 and the signal's number if one ended it.
    pub(crate) status: i64,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    /// What is on stdout; bytes that are no UTF-8 replaced.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Whether the program failed as it should: status 1 and one line that starts with its name,
    /// after warnings and notes at most, then tips at most.
    ///
    /// # Errors
    /// What it did instead.
    pub(crate) fn failed_properly(&self) -> Result<(), String> {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let named = |line: &&str| line.starts_with("instar: ") && !line.contains("panicked");
        let is_error = |line: &&&str| !line.contains(": warning: ") && !line.contains(": note: ");
        let (statements, tips) = statements(&lines);
        let proper = self.status == 1
            && statements.iter().all(named)
            && statements.iter().filter(is_error).count() == 1
            && statements.last().is_some_and(|last| is_error(&last))
            && tips.iter().all(|line| line.starts_with(TIP));
        match proper && self.stderr.ends_with('\n') {
            true => Ok(()),
            false => Err(format!(
                "{}\nwas to fail with status 1 and one line, but: status {}, stderr {:?}",
                self.command, self.status, self.stderr
            )),
        }
    }

    /// Asserts a proper failure: status 1, nothing on stdout, and this line.
    #[track_caller]
    pub(crate) fn assert_fails(&self, line: &str) {
        assert_eq!(self.stderr, format!("instar: {line}\n"), "{}", self.command);
        assert_eq!(self.text(), "", "{}", self.command);
        assert_eq!(self.status, 1, "{}", self.command);
    }

    /// Asserts a proper failure: status 1, nothing on stdout, this line and these tips.
    #[track_caller]
    pub(crate) fn assert_fails_and_advises(&self, line: &str, tips: &[&str]) {
        let tips: String = tips.iter().map(|tip| format!("{TIP}{tip}\n")).collect();
        assert_eq!(self.stderr, format!("instar: {line}\n{tips}"), "{}", self.command);
        assert_eq!(self.text(), "", "{}", self.command);
        assert_eq!(self.status, 1, "{}", self.command);
    }

    /// Asserts a proper failure whose lines hold all these pieces.
    #[track_caller]
    pub(crate) fn assert_fails_with(&self, pieces: &[&str]) {
        self.failed_properly().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(self.text(), "", "{}", self.command);
        for piece in pieces {
            assert!(
                self.stderr.contains(piece),
                "{}\n{:?} is to say {piece:?}",
                self.command,
                self.stderr
            );
        }
    }

    /// Asserts success without a word on stderr, and returns stdout.
    #[track_caller]
    pub(crate) fn assert_succeeds(&self) -> String {
        assert_eq!(self.stderr, "", "{}", self.command);
        assert_eq!(self.status, 0, "{}", self.command);
        self.text()
    }
}

/// Our program, about to run in `folder`.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_instar"));
    command.current_dir(folder);
    command
}

/// Runs our program.
pub(crate) fn instar<A: AsRef<OsStr>>(folder: &Path, args: &[A]) -> Run {
    run(command(folder).args(args))
}

/// Runs our program with little memory, so that it fails instead of taking all of the host's.
pub(crate) fn instar_confined(folder: &Path, args: &[String]) -> Run {
    let script = format!("ulimit -v {ADDRESS_SPACE} && exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.current_dir(folder).arg("-c").arg(script);
    run(shell.arg(env!("CARGO_BIN_EXE_instar")).args(args))
}

/// Runs a program to its end, with nothing to read.
pub(crate) fn run(command: &mut Command) -> Run {
    let shown = shown(command);
    let child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{shown}: {e}"));
    let id = child.id().to_string();
    let (done, waiting) = channel::<()>();
    let watch = std::thread::spawn(move || {
        if waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            // By signal: the status then shows it.
            let _ = Command::new("kill").args(["-9", &id]).status();
        }
    });
    let output = child.wait_with_output().expect("output can be read");
    drop(done);
    watch.join().expect("the watch ends");
    let signal = output.status.signal().map(|signal| 128 + signal);
    Run {
        command: shown,
        status: output.status.code().or(signal).map_or(-1, i64::from),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn shown(command: &Command) -> String {
    let quoted = |word: &OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_alphanumeric() || "-_=./,:+".contains(c);
        match !word.is_empty() && word.chars().all(plain) {
            true => word.into_owned(),
            false => format!("'{}'", word.replace('\'', r"'\''")),
        }
    };
    let mut words = vec![quoted(command.get_program())];
    words.extend(command.get_args().map(quoted));
    let line = words.join(" ");
    match command.get_current_dir() {
        Some(folder) => format!("(cd {} && {line})", folder.display()),
        None => line,
    }
}

/// Whether the program knows `--external=follow`.
pub(crate) fn can_follow() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let help = instar(Path::new("."), &["map", "--help"]);
        help.assert_succeeds().contains("follow")
    })
}
