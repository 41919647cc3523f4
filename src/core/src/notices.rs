//! Warnings: what is odd about an image without stopping its map.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, ErrorKind, Result};

/// At most this many different warnings are passed on (instar's own limit): a hostile image
/// must not fill a log.
const MAX_NOTICES: usize = 20;

/// One warning.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notice {
    /// The image that was read when it came up.
    pub path: Option<PathBuf>,
    /// What is odd, in one line without a full stop.
    pub text: String,
}

type Sink = Box<dyn Fn(&Notice) + Send + Sync>;

/// Where warnings go, and whether they are errors.
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
    /// Warnings are dropped.
    fn default() -> Self {
        Self::new(false, |_| {})
    }
}

impl Notices {
    /// Passes every new warning to `sink`, or makes each an error if `strict`.
    pub fn new(strict: bool, sink: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        Self { strict, state: Mutex::default(), sink: Box::new(sink) }
    }

    /// Warns once about `text`.
    ///
    /// # Errors
    /// [`ErrorKind::Strict`] if warnings are errors.
    pub fn warn(&self, text: impl Into<String>) -> Result<()> {
        let mut state = self.state();
        let notice = Notice { path: state.path.clone(), text: text.into() };
        if self.strict {
            let error = Error::new(ErrorKind::Strict, notice.text.clone());
            state.raised.get_or_insert(notice);
            return Err(error);
        }
        if state.seen.len() < MAX_NOTICES && state.seen.insert(notice.clone()) {
            (self.sink)(&notice);
        }
        Ok(())
    }

    /// Fails if a warning was made an error, whoever did not pass that error on: a map that warns
    /// never succeeds if warnings are errors.
    ///
    /// # Errors
    /// [`ErrorKind::Strict`], with the first such warning.
    pub(crate) fn outstanding(&self) -> Result<()> {
        let Some(Notice { path, text }) = self.state().raised.clone() else { return Ok(()) };
        let error = Error::new(ErrorKind::Strict, text);
        Err(match path {
            Some(path) => error.in_file(&path),
            None => error,
        })
    }

    /// Says which image the warnings that follow are about.
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
    fn a_strict_warning_is_an_error() {
        let error = Notices::new(true, |_| {}).warn("odd").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Strict, "odd"));
    }
}
