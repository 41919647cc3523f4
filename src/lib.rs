//! `instar map` tells where the bytes of a disk image are, as `qemu-img map` does.
//!
//! This crate links the core and the format plugins, and is the command. A program of your own
//! adds a format by linking its crate and calling [`run`]:
//!
//! ```
//! // use instar_plugin_foo as _;
//! let status = instar::run(["instar", "formats"].map(Into::into));
//! assert_eq!(format!("{status:?}"), format!("{:?}", std::process::ExitCode::SUCCESS));
//! ```
#![cfg_attr(not(test), deny(unused_crate_dependencies))]

mod cli;
mod detect;
mod formats;
mod input;
mod list;
mod map;
mod output;
mod render;
mod size;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

pub use formats::registry;
pub use instar_core as core;

/// Runs the command with these arguments, the program's name first.
///
/// The map goes to standard output, one line per problem to standard error. The exit code is 0
/// for success (also if the reader of the output went away) and 1 for any failure.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match cli::parse(arguments) {
        cli::Parsed::Command(cli::Command::Map(options)) => map::run(&options),
        cli::Parsed::Command(cli::Command::Detect(options)) => detect::run(&options),
        cli::Parsed::Command(cli::Command::Formats(options)) => list::run(&options),
        cli::Parsed::Help(text) => output::print(text.as_bytes()),
        cli::Parsed::Wrong(message) => output::fail(&message),
    }
}
