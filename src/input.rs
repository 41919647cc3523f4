//! FILE as it is typed, and what is said about it.

use std::error::Error as StdError;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use instar_core::{Error, shown_path};

/// One line with the file, the error and its causes.
pub(crate) fn statement(path: &Path, error: &Error) -> String {
    let mut line = format!("{}: {error}", shown_path(error.path().unwrap_or(path)));
    let mut cause = error.source();
    while let Some(inner) = cause {
        line.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    line
}

/// The path that FILE stands for: `file:` in front is dropped, as qemu does.
pub(crate) fn local_path(typed: &Path) -> PathBuf {
    match typed.as_os_str().as_bytes().strip_prefix(b"file:") {
        Some(rest) if protocol(rest).is_some() => {
            PathBuf::from(OsString::from_vec([b"./", rest].concat()))
        }
        Some(rest) => PathBuf::from(OsStr::from_bytes(rest)),
        None => typed.to_owned(),
    }
}

/// The part before a `:` that stands before any `/`.
fn protocol(name: &[u8]) -> Option<&[u8]> {
    let end = name.iter().position(|byte| matches!(byte, b':' | b'/'))?;
    (name.get(end) == Some(&b':')).then(|| name.get(..end)).flatten()
}

/// A missing file whose name looks like a protocol's was likely not meant as a file.
pub(crate) fn with_hint(path: &Path, error: Error) -> Error {
    if protocol(path.as_os_str().as_bytes()).is_none() || path.exists() {
        return error;
    }
    Error::new(error.kind(), "no such file, and protocols and json: descriptions are not supported")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn file_in_front_is_dropped() {
        for (typed, meant) in [
            ("a.raw", "a.raw"),
            ("file:a.raw", "a.raw"),
            ("file:/dir/a.raw", "/dir/a.raw"),
            ("file:a:b.raw", "./a:b.raw"),
            ("./file:a.raw", "./file:a.raw"),
            ("file:dir/a:b", "dir/a:b"),
        ] {
            assert_eq!(local_path(Path::new(typed)), Path::new(meant), "{typed}");
        }
    }
}
