//! Warnings and notes: what a user should know about an image although it has a map.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, ErrorKind, Result};

/// At most this many different notices are passed on (instar's own limit): a hostile image
/// must not fill a log.
const MAX_NOTICES: usize = 20;

/// Bytes of one warning: what is longer is cut (our own limit). Names in an image may be a MiB long.
const MAX_TEXT: usize = 16 << 10;

/// How serious a [`Notice`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// The image is sound, but its map may not be what the user wants. Never an error.
    Note,
    /// Something about the image is odd. An error if warnings are errors.
    Warning,
}

/// One warning or note.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Notice {
    /// How serious it is.
    pub severity: Severity,
    /// The image that was read when it came up.
    pub path: Option<PathBuf>,
    /// What there is to say, in one line without a full stop.
    pub text: String,
}

type Sink = Box<dyn Fn(&Notice) + Send + Sync>;

/// Where warnings and notes go, and whether warnings are errors.
pub struct Notices {
    strict: bool,
    state: Mutex<State>,
    sink: Sink,
}

#[derive(Default)]
struct State {
    seen: HashSet<Notice>,
    path: Option<PathBuf>,
    /// The first warning that was made an error.
    raised: Option<Notice>,
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notices").field("strict", &self.strict).finish_non_exhaustive()
    }
}

impl Default for Notices {
    /// All of them are dropped.
    fn default() -> Self {
        Self::new(false, |_| {})
    }
}

impl Notices {
    /// Passes every new notice to `sink`; makes each warning an error if `strict`.
    pub fn new(strict: bool, sink: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        Self { strict, state: Mutex::default(), sink: Box::new(sink) }
    }

    /// Warns once about `text`.
    ///
    /// # Errors
    /// [`ErrorKind::Strict`] if warnings are errors.
    pub fn warn(&self, text: impl Into<String>) -> Result<()> {
        let mut text = text.into();
        cut(&mut text);
        if self.strict {
            let error = Error::new(ErrorKind::Strict, text.clone());
            let mut state = self.state();
            let path = state.path.clone();
            state.raised.get_or_insert(Notice { severity: Severity::Warning, path, text });
            return Err(error);
        }
        self.pass_on(Severity::Warning, text);
        Ok(())
    }

    /// Says `text` once, as a note.
    pub fn note(&self, text: impl Into<String>) {
        self.pass_on(Severity::Note, text.into());
    }

    fn pass_on(&self, severity: Severity, text: String) {
        let mut state = self.state();
        let notice = Notice { severity, path: state.path.clone(), text };
        if state.seen.len() < MAX_NOTICES && state.seen.insert(notice.clone()) {
            (self.sink)(&notice);
        }
    }

    /// Fails if a warning was made an error, even if that error was not passed on: a map that warns
    /// never succeeds if warnings are errors.
    ///
    /// # Errors
    /// [`ErrorKind::Strict`], with the first such warning.
    pub(crate) fn outstanding(&self) -> Result<()> {
        let Some(Notice { path, text, .. }) = self.state().raised.clone() else { return Ok(()) };
        let error = Error::new(ErrorKind::Strict, text);
        Err(match path {
            Some(path) => error.in_file(&path),
            None => error,
        })
    }

    /// Says which image the notices that follow are about.
    pub(crate) fn concern(&self, path: &Path) {
        let mut state = self.state();
        if state.path.as_deref() != Some(path) {
            state.path = Some(path.to_owned());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts a text that is too long for a warning.
fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.shrink_to_fit();
        text.push_str("...");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn a_warning_is_passed_on_once_for_each_image_and_not_without_end() {
        let got = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&got);
        let notices = Notices::new(false, move |notice| sink.lock().unwrap().push(notice.clone()));
        for name in ["a", "b", "a"] {
            notices.concern(Path::new(name));
            notices.warn("odd").unwrap();
        }
        let names: Vec<_> = got.lock().unwrap().iter().map(|n| n.path.clone().unwrap()).collect();
        assert_eq!(names, [Path::new("a"), Path::new("b")]);
        for i in 0..100 {
            notices.warn(i.to_string()).unwrap();
        }
        assert_eq!(got.lock().unwrap().len(), MAX_NOTICES);
    }

    #[test]
    fn a_long_warning_is_cut() {
        let error = |text: String| Notices::new(true, |_| {}).warn(text).unwrap_err().to_string();
        assert_eq!(error("x".repeat(MAX_TEXT)), "x".repeat(MAX_TEXT));
        assert_eq!(error("x".repeat(MAX_TEXT + 1)), "x".repeat(MAX_TEXT) + "...");
        // Not within a character.
        let text = "x".to_owned() + &"ü".repeat(MAX_TEXT);
        assert_eq!(error(text), "x".to_owned() + &"ü".repeat(MAX_TEXT / 2 - 1) + "...");
    }

    #[test]
    fn a_strict_warning_is_an_error() {
        let error = Notices::new(true, |_| {}).warn("odd").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Strict, "odd"));
    }

    #[test]
    fn a_note_is_never_an_error_and_is_passed_on_once() {
        let got = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&got);
        let notices = Notices::new(true, move |notice| sink.lock().unwrap().push(notice.clone()));
        notices.concern(Path::new("a"));
        notices.note("plain");
        notices.note("plain");
        let got = got.lock().unwrap();
        let said: Vec<_> = got.iter().map(|n| (n.severity, n.path.as_deref(), &*n.text)).collect();
        assert_eq!(said, [(Severity::Note, Some(Path::new("a")), "plain")]);
    }
}
