//! Giving up what a map does not need, before the first byte of an image is looked at.
//!
//! Two walls stand one behind the other. Landlock takes away the file system, the network and
//! signals to other processes, whatever call asks for them. A seccomp filter takes away every
//! system call that [`system_calls`] does not list, whatever it is for: there is none among them
//! that starts a program or a process, or that makes a socket.
//!
//! A call that is refused fails with `EPERM` and does not end the process. The call is as futile
//! either way, and a C library that tries something new and can do without it must not turn a map
//! into a crash. (A call in the numbering of another architecture does end it.)
//!
//! The command line confines itself ([`Confinement::apply`] with what its options need). A program
//! that uses instar as a library is not confined unless it calls that itself.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod elsewhere;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod linux;

use std::error::Error as StdError;
use std::fmt;
use std::os::fd::OwnedFd;

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
use elsewhere as system;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
use linux as system;

/// What a confined thread may still do besides reading, seeking and writing what is open already.
#[derive(Debug)]
pub enum Confinement {
    /// Nothing.
    OpenFiles,
    /// Open regular files below these directories, to read them.
    ReadBelow(Vec<OwnedFd>),
}

impl Confinement {
    /// Confines the calling thread, and every thread that it starts from now on. There is no way
    /// back.
    ///
    /// What the system lacks is left out, and the answer says so. Both walls are per thread:
    /// other threads that run already stay as they are.
    pub fn apply(&self) -> Applied {
        system::apply(self)
    }
}

/// The names of the system calls that the seccomp filter lets through, sorted; with
/// `may_open`, those of [`Confinement::ReadBelow`]. Some are let through with certain arguments
/// only. Empty where there is no filter.
pub fn system_calls(may_open: bool) -> Vec<&'static str> {
    system::system_calls(may_open)
}

/// Why one of the walls does not stand.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The system does not have it: it is too old, or has it not built in or not enabled.
    Missing(Box<dyn StdError + Send + Sync>),
    /// The system has it, but it could not be put up.
    Failed(Box<dyn StdError + Send + Sync>),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) | Self::Failed(why) => why.fmt(f),
        }
    }
}

/// Which of the walls stand.
#[derive(Debug)]
pub struct Applied {
    /// The outcome for Landlock.
    pub landlock: Result<(), Cause>,
    /// The outcome for the seccomp filter.
    pub seccomp: Result<(), Cause>,
    may_open: bool,
}

impl Applied {
    /// Whether a wall that the system has does not stand.
    pub fn has_failed(&self) -> bool {
        [&self.landlock, &self.seccomp].iter().any(|wall| matches!(wall, Err(Cause::Failed(_))))
    }

    /// Whether both walls stand.
    pub fn is_complete(&self) -> bool {
        self.landlock.is_ok() && self.seccomp.is_ok()
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.landlock {
            Ok(()) if self.may_open => {
                f.write_str("landlock (files below the allowed directories can be read)")?;
            }
            Ok(()) => f.write_str("landlock (no file can be opened)")?,
            Err(cause) => write!(f, "no landlock ({cause})")?,
        }
        match &self.seccomp {
            Ok(()) => {
                let count = system_calls(self.may_open).len();
                write!(f, ", seccomp ({count} system calls are left)")
            }
            Err(cause) => write!(f, ", no seccomp ({cause})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn what_was_applied_is_said() {
        let missing = || Err(Cause::Missing("not in this kernel".into()));
        let said = |landlock, seccomp, may_open| {
            let applied = Applied { landlock, seccomp, may_open };
            assert!(!applied.has_failed());
            (applied.to_string(), applied.is_complete())
        };
        let count = system_calls(false).len();
        assert_eq!(
            said(Ok(()), Ok(()), false),
            (
                format!(
                    "landlock (no file can be opened), seccomp ({count} system calls are left)"
                ),
                true
            )
        );
        assert_eq!(
            said(Ok(()), missing(), true),
            (
                "landlock (files below the allowed directories can be read), no seccomp (not in \
                 this kernel)"
                    .into(),
                false
            )
        );
        let (text, complete) = said(missing(), Ok(()), false);
        assert!(text.starts_with("no landlock (not in this kernel), seccomp ("), "{text}");
        assert!(!complete);
        let failed = || Err(Cause::Failed("no memory".into()));
        for (landlock, seccomp) in [(failed(), Ok(())), (Ok(()), failed()), (missing(), failed())] {
            let applied = Applied { landlock, seccomp, may_open: false };
            assert!(applied.has_failed() && !applied.is_complete(), "{applied}");
            assert!(applied.to_string().contains(" (no memory)"), "{applied}");
        }
    }
}
