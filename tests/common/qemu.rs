//! The installed qemu-img and qemu-io, if any.

use std::path::Path;
use std::process::Command;

use super::baseline::Theirs;
use super::binary::{Run, run};

/// Set to 1, it makes a missing qemu-img or qemu-io a failure.
const REQUIRE: &str = "INSTAR_REQUIRE_QEMU";

/// The version (major.minor) of the installed tools.
///
/// Says what is skipped and answers nothing if there are none.
///
/// # Panics
/// If there are none and they are required.
pub(crate) fn installed(skipped: &str) -> Option<String> {
    for tool in ["qemu-img", "qemu-io"] {
        if let Err(error) = Command::new(tool).arg("--version").output() {
            let required = std::env::var_os(REQUIRE).is_some_and(|value| value == "1");
            assert!(!required, "{REQUIRE}=1, but {tool} cannot be run: {error}");
            eprintln!("skipped: {skipped}: {tool} cannot be run: {error}");
            return None;
        }
    }
    let stated = run(Command::new("qemu-img").arg("--version")).text();
    let number = stated
        .split_once("version ")
        .map(|(_, after)| after)
        .unwrap_or_else(|| panic!("qemu-img states no version: {stated:?}"));
    let parts: Vec<&str> = number.split(|c: char| !c.is_ascii_digit()).collect();
    let (major, minor) = (parts.first(), parts.get(1));
    Some(format!("{}.{}", major.expect("a version"), minor.expect("a version")))
}

/// Runs qemu-img in a folder.
pub(crate) fn qemu_img(folder: &Path, args: &[String]) -> Run {
    run(Command::new("qemu-img").current_dir(folder).args(args))
}

/// Runs qemu-io in a folder.
pub(crate) fn qemu_io(folder: &Path, args: &[String]) -> Run {
    run(Command::new("qemu-io").current_dir(folder).args(args))
}

/// What `qemu-img map` answers.
pub(crate) fn map(folder: &Path, args: &[&[String]]) -> Theirs {
    let mut all = vec!["map".to_owned()];
    all.extend(args.iter().flat_map(|part| part.iter().cloned()));
    let run = qemu_img(folder, &all);
    Theirs { status: Some(run.status), stdout: run.text(), stderr: run.stderr, truncated: false }
}

/// A list of arguments.
pub(crate) fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}
