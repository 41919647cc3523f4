//! What a confined thread can still do, alone and as the command line is, and which system calls
//! a map makes.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use instar::sandbox::{Applied, Confinement, system_calls};
use pretty_assertions::assert_eq;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tempfile::TempDir;

use common::binary::{instar, run};
use common::lab::Lab;
use common::manifest::runnable;
use common::trace;

/// A part of the kernel that can be made to be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Landlock,
    Seccomp,
}

impl Part {
    /// The first call that it needs.
    fn call(self) -> libc::c_long {
        match self {
            Self::Landlock => libc::SYS_landlock_create_ruleset,
            Self::Seccomp => libc::SYS_seccomp,
        }
    }
}

/// Runs `work` on a thread of its own, for which, and for whose children, the kernel lacks
/// `missing`.
fn without<T: Send + 'static>(
    missing: Option<Part>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    answering(missing.map(|part| (part.call(), libc::ENOSYS)), work)
}

/// Runs `work` on a thread of its own, for which, and for whose children, a system call fails with
/// an error.
fn answering<T: Send + 'static>(
    failing: Option<(libc::c_long, libc::c_int)>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let work = move || {
        if let Some((call, error)) = failing {
            let answer = SeccompAction::Errno(error.unsigned_abs());
            let architecture = std::env::consts::ARCH.try_into().unwrap();
            let rules = BTreeMap::from([(call, Vec::new())]);
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture);
            let program: BpfProgram = filter.unwrap().try_into().unwrap();
            seccompiler::apply_filter(&program).unwrap();
        }
        work()
    };
    thread::spawn(work).join().unwrap()
}

/// What may be tried by a confined thread.
struct Place {
    folder: TempDir,
    port: SocketAddr,
    _listener: TcpListener,
    _socket: UnixListener,
    file: File,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("open")).unwrap();
        fs::write(folder.path().join("open/file"), b"below").unwrap();
        fs::write(folder.path().join("file"), b"image").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            port: listener.local_addr().unwrap(),
            _listener: listener,
            _socket: UnixListener::bind(folder.path().join("socket")).unwrap(),
            file: File::open(folder.path().join("file")).unwrap(),
            folder,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn confinement(&self, may_open: bool) -> Confinement {
        match may_open {
            true => Confinement::ReadBelow(vec![File::open(self.path("open")).unwrap().into()]),
            false => Confinement::OpenFiles,
        }
    }

    /// Everything that no map needs, with the number of the error that it ends with.
    fn misdeeds(&self) -> BTreeMap<&'static str, Option<i32>> {
        BTreeMap::from([
            ("open a file", outcome(File::open(self.path("file")))),
            ("list a folder", outcome(fs::read_dir(self.path("open")))),
            ("create a file", outcome(File::create_new(self.path("open/new")))),
            ("write to a file", outcome(OpenOptions::new().append(true).open(self.path("file")))),
            ("remove a file", outcome(fs::remove_file(self.path("open/file")))),
            ("connect by TCP", outcome(TcpStream::connect(self.port))),
            ("listen by TCP", outcome(TcpListener::bind("127.0.0.1:0"))),
            ("connect to a socket file", outcome(UnixStream::connect(self.path("socket")))),
            ("make a pair of sockets", outcome(UnixStream::pair())),
            ("start a program", outcome(Command::new("false").spawn())),
            // If this worked, the tests would end here, with a failure.
            ("become a program", Command::new("false").exec().raw_os_error()),
            ("start a thread", outcome(thread::Builder::new().spawn(|| {}))),
        ])
    }

    /// Whether what a map needs still works: it reads, allocates, seeds a hash map and prints.
    fn works(&self) {
        let mut buffer = vec![0; 4 << 20];
        assert_eq!(self.file.read_at(&mut buffer, 1).unwrap(), 4);
        assert_eq!(&buffer[..4], b"mage");
        assert_eq!(rustix::fs::fstat(&self.file).unwrap().st_size, 5);
        let map = std::collections::HashMap::from([(1, 2)]);
        let line = format!("a confined thread goes on: {map:?}\n");
        io::stderr().write_all(line.as_bytes()).unwrap();
    }
}

/// The error's number; `None` for success.
fn outcome<T>(result: io::Result<T>) -> Option<i32> {
    result.err().map(|error| error.raw_os_error().expect("an error of the system"))
}

/// What comes of misdeeds in a confined thread for which the kernel lacks a part.
fn attempts(
    missing: Option<Part>,
    may_open: bool,
) -> (Applied, BTreeMap<&'static str, Option<i32>>) {
    let place = Arc::new(Place::new());
    let there = Arc::clone(&place);
    without(missing, move || {
        let place = there;
        let applied = place.confinement(may_open).apply();
        place.works();
        let below = File::open(place.path("open/file"));
        assert_eq!(below.is_ok(), may_open, "{below:?}");
        if let Ok(below) = below {
            let mut bytes = [0; 5];
            below.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(&bytes, b"below");
        }
        (applied, place.misdeeds())
    })
}

#[test]
fn both_walls_refuse_everything() {
    for may_open in [false, true] {
        let (applied, misdeeds) = attempts(None, may_open);
        assert!(applied.is_complete(), "{applied}");
        for (what, error) in misdeeds {
            let refused = matches!(error, Some(libc::EPERM | libc::EACCES));
            assert!(refused, "{what}, may_open {may_open}: {error:?}");
        }
    }
}

#[test]
fn the_filter_alone_refuses_all_but_reading() {
    for may_open in [false, true] {
        let (applied, misdeeds) = attempts(Some(Part::Landlock), may_open);
        assert!(applied.landlock.is_err() && applied.seccomp.is_ok(), "{applied}");
        for (what, error) in misdeeds {
            // Which files may be opened, only Landlock can tell; which calls, the filter.
            let expected = match (what, may_open) {
                ("open a file", true) => None,
                _ => Some(libc::EPERM),
            };
            let listing = (what, may_open) == ("list a folder", true);
            assert!(error == expected || listing, "{what}, may_open {may_open}: {error:?}");
        }
    }
}

#[test]
fn landlock_alone_refuses_files_and_network() {
    for may_open in [false, true] {
        let (applied, misdeeds) = attempts(Some(Part::Seccomp), may_open);
        assert!(applied.landlock.is_ok() && applied.seccomp.is_err(), "{applied}");
        for what in [
            "open a file",
            "list a folder",
            "create a file",
            "write to a file",
            "remove a file",
            "connect by TCP",
            "become a program",
        ] {
            assert_eq!(misdeeds[what], Some(libc::EACCES), "{what}, may_open {may_open}");
        }
        // That a thread can be started shows that the filter was really missing.
        assert_eq!(misdeeds["start a thread"], None);
    }
}

/// An image of the first format that is compiled in.
fn image() -> Option<(Lab, &'static common::manifest::Entry)> {
    let entry = runnable().find(|entry| entry.safe && entry.qemu_target().len() == 1);
    if entry.is_none() {
        eprintln!("skipped: no format is compiled in");
    }
    entry.map(|entry| (Lab::new(), entry))
}

#[test]
fn the_command_says_how_it_is_confined_and_can_insist_on_it() {
    let Some((lab, entry)) = image() else { return };
    let folder = lab.unpack(entry).unwrap();
    let name = &entry.name;
    let json = "--output=json";
    let mapped = instar(&folder, &["map", json, "--external=ignore", name]);
    for missing in [None, Some(Part::Landlock), Some(Part::Seccomp)] {
        for mode in ["auto", "require", "off"] {
            let (folder, asked) = (folder.clone(), name.clone());
            let option = format!("--sandbox={mode}");
            let args = ["map", json, "--external=ignore", "-v", &option, &asked].map(str::to_owned);
            let run = without(missing, move || instar(&folder, &args));
            let left = system_calls(false).len();
            let landlock = match missing {
                Some(Part::Landlock) => "no landlock (not in this kernel, or not enabled)",
                _ => "landlock (no file can be opened)",
            };
            let seccomp = match missing {
                Some(Part::Seccomp) => "no seccomp (".to_owned(),
                _ => format!("seccomp ({left} system calls are left)"),
            };
            let said = match mode {
                "off" => format!("instar: {name}: sandbox: off\n"),
                "require" if missing.is_some() => format!(
                    "instar: {name}: --sandbox=require cannot be met: {landlock}, {seccomp}"
                ),
                _ => format!("instar: {name}: sandbox: {landlock}, {seccomp}"),
            };
            assert!(run.stderr.starts_with(&said), "{missing:?}: {said:?}: {:?}", run.stderr);
            assert_eq!(run.stderr.lines().count(), 1, "{:?}", run.stderr);
            if mode == "require" && missing.is_some() {
                assert_eq!((run.status, run.text()), (1, String::new()), "{missing:?}");
            } else {
                assert_eq!((run.status, run.text()), (0, mapped.text()), "{missing:?} {mode}");
            }
        }
    }
}

/// A wall that the kernel has and that cannot be put up is noted; one that it does not have is not.
#[test]
fn a_wall_that_fails_is_noted() {
    let Some((lab, entry)) = image() else { return };
    let folder = lab.unpack(entry).unwrap();
    let name = entry.name.clone();
    let ask = |failing: Option<(libc::c_long, libc::c_int)>, option: &str| {
        let args = ["map", "--output=json", "--external=ignore", option, &name];
        let (folder, args) = (folder.clone(), args.map(str::to_owned));
        answering(failing, move || instar(&folder, &args))
    };
    let mapped = ask(None, "--sandbox=auto").assert_succeeds();
    let left = system_calls(false).len();
    let seccomp = format!("seccomp ({left} system calls are left)");
    let landlock = "landlock (no file can be opened)";
    let restrict = libc::SYS_landlock_restrict_self;
    for (failing, said) in [
        ((libc::SYS_landlock_create_ruleset, libc::ENOSYS), None),
        ((libc::SYS_landlock_create_ruleset, libc::EOPNOTSUPP), None),
        ((restrict, libc::EPERM), Some(("Operation not permitted (os error 1)", true))),
        ((restrict, libc::E2BIG), Some(("Argument list too long (os error 7)", true))),
        ((libc::SYS_seccomp, libc::ENOSYS), None),
        ((libc::SYS_seccomp, libc::EINVAL), None),
        ((libc::SYS_seccomp, libc::ENOMEM), Some(("Cannot allocate memory (os error 12)", false))),
        ((libc::SYS_seccomp, libc::EACCES), Some(("Permission denied (os error 13)", false))),
    ] {
        let run = ask(Some(failing), "--sandbox=auto");
        assert_eq!((run.status, run.text()), (0, mapped.clone()), "{failing:?}");
        let Some((why, is_landlock)) = said else {
            assert_eq!(run.stderr, "", "{failing:?}");
            continue;
        };
        let (start, end) = match is_landlock {
            true => ("no landlock (".to_owned(), format!("{why}), {seccomp}\n")),
            false => (format!("{landlock}, no seccomp ("), format!("{why})\n")),
        };
        let start = format!("instar: {name}: note: the sandbox is not complete: {start}");
        assert!(run.stderr.starts_with(&start), "{failing:?}: {}", run.stderr);
        assert!(run.stderr.ends_with(&end), "{failing:?}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{failing:?}: {}", run.stderr);
        // Once is enough, and who wants none is told nothing.
        let verbose = ask(Some(failing), "-v");
        assert!(verbose.stderr.starts_with(&format!("instar: {name}: sandbox: ")));
        assert_eq!(verbose.stderr.lines().count(), 1, "{}", verbose.stderr);
        assert_eq!(ask(Some(failing), "--sandbox=off").assert_succeeds(), mapped);
        let required = ask(Some(failing), "--sandbox=require");
        required.assert_fails_with(&["--sandbox=require cannot be met: ", why]);
    }
}

/// The ruleset of Landlock is a file descriptor, of which there may be none left.
#[test]
fn too_few_open_files_for_landlock_are_noted() {
    let Some((lab, entry)) = image() else { return };
    let folder = lab.unpack(entry).unwrap();
    let ask = |limit: u32| {
        let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        shell.current_dir(&folder).arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_instar"));
        run(shell.args(["map", "--external=ignore", "--output=json", &entry.name]))
    };
    let enough = ask(6).assert_succeeds();
    // Three at the start, another one for standard output, and FILE.
    let run = ask(5);
    let left = system_calls(false).len();
    assert_eq!(
        run.stderr,
        format!(
            "instar: {}: note: the sandbox is not complete: no landlock (failed to create a \
             ruleset: Too many open files (os error 24)), seccomp ({left} system calls are left)\n",
            entry.name
        )
    );
    assert_eq!((run.status, run.text()), (0, enough));
}

/// The system calls of one map from the moment on when it is confined: names and lines.
fn calls(folder: &Path, args: &[&str]) -> Vec<(String, String)> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.current_dir(folder).args(["-f", "-s", "8", "-o"]).arg(log.path());
    run(strace.arg(env!("CARGO_BIN_EXE_instar")).args(args));
    let log = fs::read_to_string(log.path()).unwrap();
    let filter = |line: &&str| line.contains(" seccomp(SECCOMP_SET_MODE_FILTER, ");
    let applied = log.lines().find(filter).unwrap_or_else(|| panic!("no filter:\n{log}"));
    assert!(applied.ends_with(" = 0"), "{applied}");
    let after = log.lines().skip_while(|line| *line != applied).skip(1);
    let named = |line: &str| {
        let (_, call) = line.split_once(' ').unwrap();
        let (name, _) = call.trim_start().split_once('(')?;
        Some((name.to_owned(), line.to_owned()))
    };
    // What is no call is a signal or the end.
    after.filter_map(named).collect()
}

#[test]
fn a_map_of_each_format_makes_only_calls_of_the_list() {
    if !trace::available() {
        return;
    }
    let lab = Lab::new();
    let mut traced: BTreeMap<&str, usize> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for format in common::enabled_formats() {
        let images: Vec<_> = runnable().filter(|entry| entry.format == format).collect();
        for entry in images.iter().step_by((images.len() / 8).max(1)) {
            let Ok(folder) = lab.unpack(entry) else { continue };
            for (policy, may_open) in [("ignore", false), ("follow", true)] {
                let allowed = system_calls(may_open);
                let external = format!("--external={policy}");
                for (name, line) in calls(&folder, &["map", &external, "-f", format, &entry.name]) {
                    assert!(allowed.contains(&name.as_str()), "{}: {line}", entry.id);
                    let refused = line.contains(" EPERM ") || line.contains(" EACCES ");
                    assert!(!refused, "{}: {line}", entry.id);
                    seen.insert(name);
                }
            }
            *traced.entry(format).or_default() += 1;
        }
    }
    lab.check();
    eprintln!("{traced:?} images; calls: {seen:?}");
    for format in common::enabled_formats() {
        assert!(traced.get(format).is_some_and(|images| *images >= 3), "{format}: {traced:?}");
    }
    if common::all_enabled() {
        for name in ["preadv2", "write", "fstat", "openat", "exit_group"] {
            assert!(seen.contains(name), "{name} is not seen: {seen:?}");
        }
    }
}

/// What the README says of `instar map` does not hold for `instar detect`.
#[test]
fn detect_is_not_confined() {
    let Some((lab, entry)) = image() else { return };
    if !trace::available() {
        return;
    }
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains("`instar detect` and the library do not."));
    let folder = lab.unpack(entry).unwrap();
    let filters = |command: &str| {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut strace = Command::new("strace");
        strace.current_dir(&folder).args(["-f", "-e", "trace=seccomp", "-o"]).arg(log.path());
        run(strace.arg(env!("CARGO_BIN_EXE_instar")).args([command, &entry.name]));
        fs::read_to_string(log.path()).unwrap().matches("SECCOMP_SET_MODE_FILTER").count()
    };
    assert_eq!((filters("map"), filters("detect")), (1, 0));
}

/// What docs/security.md says is left, is.
#[test]
fn the_document_lists_the_calls() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md"));
    let text = text.unwrap();
    let listed = |start: &str| -> BTreeSet<&str> {
        let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
        let block = rest.split("```").nth(1).unwrap();
        block.split_whitespace().skip_while(|word| *word == "text").collect()
    };
    let always = listed("These system calls are left");
    let opening = listed("these too:");
    // The other architecture has fewer, and no others.
    let always_here: BTreeSet<&str> = system_calls(false).into_iter().collect();
    let opening_here: BTreeSet<&str> =
        system_calls(true).into_iter().filter(|name| !always_here.contains(name)).collect();
    assert_eq!(always, always_here);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(opening, opening_here);
    } else {
        assert!(opening_here.is_subset(&opening), "{opening_here:?}");
    }
}
