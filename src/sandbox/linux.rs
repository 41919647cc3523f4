//! Landlock and seccomp.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::os::fd::{AsFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{Applied, Cause, Confinement};

type Failure = Box<dyn StdError + Send + Sync>;

/// The newest kernel interface of Landlock that is asked for. An older kernel gives what it has:
/// what is added later than version 1 is about calls that the filter lets nobody make.
const LANDLOCK: ABI = ABI::V7;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

pub(super) fn apply(confinement: &Confinement) -> Applied {
    let (directories, may_open) = match confinement {
        Confinement::OpenFiles => (&[][..], false),
        Confinement::ReadBelow(directories) => (directories.as_slice(), true),
    };
    // The filter does not let the calls of Landlock through, so it comes last.
    Applied { landlock: landlock(directories), seccomp: seccomp(may_open), may_open }
}

/// Refuses all that Landlock knows of, but for reading files below `directories`.
fn landlock(directories: &[OwnedFd]) -> Result<(), Cause> {
    match restrict(directories).map_err(|error| Cause::Failed(error.into()))? {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => {
            Err(Cause::Missing("not in this kernel, or not enabled".into()))
        }
    }
}

fn restrict(directories: &[OwnedFd]) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    for directory in directories {
        ruleset = ruleset.add_rule(PathBeneath::new(directory.as_fd(), AccessFs::ReadFile))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// Refuses all system calls but those of [`CALLS`] and, with `may_open`, [`OPENING`].
fn seccomp(may_open: bool) -> Result<(), Cause> {
    let program = compile(may_open).map_err(Cause::Failed)?;
    seccompiler::apply_filter(&program).map_err(|error| {
        let number = match &error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
                error.raw_os_error()
            }
            _ => None,
        };
        match number {
            // The call is not known, or not this use of it.
            Some(libc::ENOSYS | libc::EINVAL) => Cause::Missing(error.into()),
            _ => Cause::Failed(error.into()),
        }
    })
}

fn compile(may_open: bool) -> Result<BpfProgram, Failure> {
    let mut rules = BTreeMap::new();
    for call in allowed(may_open) {
        rules.insert(call.number, call.condition.rules(may_open)?);
    }
    let eperm = u32::try_from(libc::EPERM)?;
    let refuse = SeccompAction::Errno(eperm);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, ARCHITECTURE)?;
    Ok(BpfProgram::try_from(filter)?)
}

pub(super) fn system_calls(may_open: bool) -> Vec<&'static str> {
    let mut names: Vec<_> = allowed(may_open).map(|call| call.name).collect();
    names.sort_unstable();
    names
}

fn allowed(may_open: bool) -> impl Iterator<Item = &'static Call> {
    let opening: &[Call] = if may_open { OPENING } else { &[] };
    CALLS.iter().chain(opening)
}

/// A system call that is let through.
struct Call {
    name: &'static str,
    number: libc::c_long,
    condition: Condition,
}

/// With which arguments.
enum Condition {
    Any,
    /// Memory that can be executed is refused: the protection is the third argument.
    NoExecution,
    /// Of fcntl, the command is the second argument.
    FileControl,
    /// Only the process itself, which is how it aborts.
    Itself,
    /// What would write or create is refused: the flags are this argument, from 0.
    ReadOnly(u8),
}

impl Condition {
    /// Rules of which one must hold; none: any arguments will do.
    fn rules(&self, may_open: bool) -> Result<Vec<SeccompRule>, Failure> {
        let dword = |argument, operator, value| {
            let condition =
                SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
            SeccompRule::new(vec![condition])
        };
        // Flags and commands are small and not negative.
        let number = |flags: libc::c_int| u64::try_from(flags);
        let clear = |argument, flags| {
            Ok::<_, Failure>(vec![dword(argument, SeccompCmpOp::MaskedEq(number(flags)?), 0)?])
        };
        match *self {
            Self::Any => Ok(Vec::new()),
            Self::NoExecution => clear(2, libc::PROT_EXEC),
            Self::ReadOnly(argument) => {
                clear(argument, libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC)
            }
            Self::FileControl => {
                // Widen a pipe; ask whether a descriptor is open, as debug builds do before they
                // close it; copy the handle of a directory.
                let copy = may_open.then_some(libc::F_DUPFD_CLOEXEC);
                let commands = [libc::F_SETPIPE_SZ, libc::F_GETFD].into_iter().chain(copy);
                let equal = |command| Ok(dword(1, SeccompCmpOp::Eq, number(command)?)?);
                commands.map(equal).collect()
            }
            Self::Itself => Ok(vec![dword(0, SeccompCmpOp::Eq, std::process::id().into())?]),
        }
    }
}

macro_rules! calls {
    ($($(#[$attribute:meta])* $name:ident $number:ident $condition:expr;)*) => {
        &[$($(#[$attribute])* Call {
            name: stringify!($name),
            number: libc::$number,
            condition: $condition,
        },)*]
    };
}

use Condition::{Any, FileControl, Itself, NoExecution, ReadOnly};

/// What reading and printing need, and what a Rust program does to allocate, to end and to abort.
const CALLS: &[Call] = calls! {
    // The image and the output.
    pread64 SYS_pread64 Any;
    preadv2 SYS_preadv2 Any;
    fadvise64 SYS_fadvise64 Any;
    lseek SYS_lseek Any;
    fstat SYS_fstat Any;
    close SYS_close Any;
    write SYS_write Any;
    writev SYS_writev Any;
    fcntl SYS_fcntl FileControl;
    // Until an output that is non-blocking can take more.
    ppoll SYS_ppoll Any;
    // Memory.
    brk SYS_brk Any;
    mmap SYS_mmap NoExecution;
    mprotect SYS_mprotect NoExecution;
    mremap SYS_mremap Any;
    munmap SYS_munmap Any;
    madvise SYS_madvise Any;
    // Locks, and the seed of hash maps.
    futex SYS_futex Any;
    getrandom SYS_getrandom Any;
    // Signals that come in: a stack that is too small, a terminal that stops the process.
    rt_sigaction SYS_rt_sigaction Any;
    rt_sigprocmask SYS_rt_sigprocmask Any;
    rt_sigreturn SYS_rt_sigreturn Any;
    sigaltstack SYS_sigaltstack Any;
    restart_syscall SYS_restart_syscall Any;
    // The end.
    exit SYS_exit Any;
    exit_group SYS_exit_group Any;
    getpid SYS_getpid Any;
    gettid SYS_gettid Any;
    tgkill SYS_tgkill Itself;
};

/// What the gate to other files needs besides: resolving names, and opening to read.
const OPENING: &[Call] = calls! {
    openat SYS_openat ReadOnly(2);
    newfstatat SYS_newfstatat Any;
    statx SYS_statx Any;
    readlinkat SYS_readlinkat Any;
    faccessat SYS_faccessat Any;
    faccessat2 SYS_faccessat2 Any;
    getcwd SYS_getcwd Any;
    #[cfg(target_arch = "x86_64")]
    open SYS_open ReadOnly(1);
    #[cfg(target_arch = "x86_64")]
    stat SYS_stat Any;
    #[cfg(target_arch = "x86_64")]
    lstat SYS_lstat Any;
    #[cfg(target_arch = "x86_64")]
    readlink SYS_readlink Any;
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_listed_twice() {
        let mut names = system_calls(true);
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
