//! Standard output and standard error.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use instar_core::escaped;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Bytes that a pipe is asked to hold: with the default of 64 KiB, writer and reader take turns
/// and each turn wakes a sleeping CPU.
const PIPE_SIZE: usize = 1 << 20;

/// Bytes of a line on standard error (instar's own limit). What comes from an image is shortened
/// where it is quoted; this is for what somebody else's format may forget to.
const MAX_LINE: usize = 16 << 10;

/// Standard output without a buffer beneath the renderer's own.
pub(crate) struct Stdout {
    file: Patient<File>,
    is_terminal: bool,
    widened: bool,
}

impl Stdout {
    /// Takes hold of standard output.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn new() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { is_terminal: file.is_terminal(), file: Patient(file), widened: false })
    }

    /// Whether a person reads along.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not before there is much to write: a small map does not need it.
        if !self.widened && bytes.len() >= PIPE_SIZE / 16 {
            self.widened = true;
            widen(&self.file.0);
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that waits while its file cannot take more: whoever started the program may have made
/// a pipe non-blocking, for all who write to it.
struct Patient<W>(W);

impl<W: Write + AsFd> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Asks that a pipe hold more; fails on anything else, and where the user's limit is reached.
#[cfg(target_os = "linux")]
fn widen(file: &File) {
    let _ = rustix::pipe::fcntl_setpipe_size(file, PIPE_SIZE);
}

/// Elsewhere a pipe holds what it holds.
#[cfg(not(target_os = "linux"))]
fn widen(_: &File) {}

/// Prints a text to standard output.
pub(crate) fn print(text: &[u8]) -> ExitCode {
    finish(Stdout::new().and_then(|mut out| out.write_all(text)))
}

/// The exit code for a finished write: a reader that went away is not a failure.
pub(crate) fn finish(written: io::Result<()>) -> ExitCode {
    match written {
        Err(error) if !is_closed(&error) => {
            fail(&format!("cannot write to standard output: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Whether a write failed because nobody reads on.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    // A socket may say that its connection was reset where a pipe is broken.
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// A JSON array in the making, one element per line as in the map.
#[derive(Default)]
pub(crate) struct Array {
    started: bool,
}

impl Array {
    /// The text of one more element.
    pub(crate) fn next(&mut self, element: &impl Display) -> String {
        let before = if self.started { ",\n" } else { "[" };
        self.started = true;
        format!("{before}{element}")
    }

    /// The text of the end.
    pub(crate) fn end(self) -> &'static str {
        if self.started { "]\n" } else { "[]\n" }
    }
}

/// A whole JSON array, one element per line.
pub(crate) fn array(elements: impl Iterator<Item = impl Display>) -> String {
    let mut array = Array::default();
    let mut text: String = elements.map(|element| array.next(&element)).collect();
    text.push_str(array.end());
    text
}

/// Says why on standard error.
pub(crate) fn fail(message: &impl Display) -> ExitCode {
    say(message);
    ExitCode::FAILURE
}

/// Writes one line to standard error.
pub(crate) fn say(message: &impl Display) {
    say_after("instar: ", message);
}

/// Writes what can be done about the line before to standard error, as a line of its own.
pub(crate) fn tip(advice: &impl Display) {
    say_after("  tip: ", advice);
}

/// Prints a text of several lines to standard error, and fails.
pub(crate) fn fail_with_text(text: &str) -> ExitCode {
    // There is nobody to tell if standard error is gone.
    let _ = Patient(io::stderr()).write_all(text.as_bytes());
    ExitCode::FAILURE
}

fn say_after(start: &str, message: &impl Display) {
    let line = line(start, &message.to_string());
    // There is nobody to tell if standard error is gone.
    let _ = Patient(io::stderr()).write_all(line.as_bytes());
}

/// A message as one line that begins with `start`. What a terminal would act on, and what has no
/// shape, is escaped.
fn line(start: &str, message: &str) -> String {
    let mut line = format!("{start}{}", escaped(message));
    if line.len() > MAX_LINE {
        let end = (0..=MAX_LINE).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        line.truncate(end);
        line.push_str("...");
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn a_message_is_one_line_and_not_endless() {
        assert_eq!(
            line("instar: ", "a\nb\u{9b}\u{202e}\u{e9}"),
            "instar: a\\nb\\u{9b}\\u{202e}\u{e9}\n"
        );
        let most = "x".repeat(MAX_LINE - 8);
        assert_eq!(line("instar: ", &most), format!("instar: {most}\n"));
        // Two bytes each, and 8 of the name.
        let long = line("instar: ", &"\u{e9}".repeat(MAX_LINE));
        assert_eq!(long, format!("instar: {}...\n", "\u{e9}".repeat(MAX_LINE / 2 - 4)));
    }
}
