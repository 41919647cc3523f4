//! Running programs on images that may make them print, or run, without end.

use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Bytes of output after which a program is ended.
const ENOUGH: u64 = 1 << 20;

/// Time after which a program is ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this exit status.
    Status(i32),
    /// By this signal, not of our sending.
    Signal(i32),
    /// It had printed enough.
    Enough,
    /// It took too long.
    TimedOut,
}

/// What a program printed until it ended or was ended.
pub(crate) struct Bounded {
    pub(crate) ending: Ending,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Bounded {
    /// Whether it succeeded, as far as it went.
    pub(crate) fn succeeded(&self) -> bool {
        matches!(self.ending, Ending::Status(0) | Ending::Enough)
    }
}

/// Runs a program to its end, or until it has printed or taken enough.
pub(crate) fn run_bounded(command: &mut Command) -> Bounded {
    let mut errors = tempfile::tempfile().expect("a file for standard error");
    let mut child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors.try_clone().expect("a second handle"))
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let output = child.stdout.take().expect("a pipe");
    let id = child.id().to_string();
    let (done, waiting) = channel::<()>();
    let watch = std::thread::spawn(move || {
        let is_late = waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        if is_late {
            let _ = Command::new("kill").args(["-9", &id]).status();
        }
        is_late
    });
    let mut stdout = Vec::new();
    output.take(ENOUGH).read_to_end(&mut stdout).expect("output can be read");
    let is_enough = stdout.len() as u64 >= ENOUGH;
    if is_enough {
        let _ = child.kill();
    }
    let status = child.wait().expect("the program ends");
    drop(done);
    let is_late = watch.join().expect("the watch ends");
    let mut stderr = Vec::new();
    errors.rewind().expect("a rewind");
    errors.read_to_end(&mut stderr).expect("standard error can be read");
    let ending = match (status.code(), status.signal()) {
        _ if is_enough => Ending::Enough,
        _ if is_late => Ending::TimedOut,
        (Some(code), _) => Ending::Status(code),
        (None, signal) => Ending::Signal(signal.unwrap_or(0)),
    };
    Bounded { ending, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}
