//! `instar map` tells where the bytes of a disk image are, as `qemu-img map` does.
//!
//! This crate links the core and the format plugins. It is a library, [`Image`], and the command,
//! [`run`].
//!
//! # The library
//!
//! ```
//! # #[cfg(feature = "qcow2")] {
//! use instar::{ExternalPolicy, Image, Options};
//!
//! let follow = ExternalPolicy::Follow { allow_under: Vec::new() };
//! let mut image = Image::open("docs/overlay.qcow2", Options::new().external(follow))?;
//!
//! assert_eq!(image.virtual_size(), 1 << 20);
//! let layers: Vec<_> = image.layers().into_iter().map(|layer| layer.path).collect();
//! assert_eq!(layers, ["docs/overlay.qcow2", "docs/demo.qcow2"].map(std::path::PathBuf::from));
//!
//! let files = image.files().to_vec();
//! for extent in image.extents() {
//!     let extent = extent?;
//!     if let Some(offset) = extent.offset() {
//!         let file = &files[extent.file as usize];
//!         println!("{:#x} is at {offset:#x} of {}", extent.start, file.name);
//!     }
//! }
//! # }
//! # Ok::<(), instar::Error>(())
//! ```
//!
//! `examples/sum_data.rs` and `examples/copy_data.rs` are whole programs. Images are as hostile to a
//! library as they are to the command: other files are refused unless [`Options::external`] says
//! otherwise. But the process is not confined.
//!
//! # The command
//!
//! A program of your own adds a format to the command, or to the library, by linking its crate:
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
mod image;
mod input;
mod list;
mod map;
mod message;
mod output;
mod render;
pub mod sandbox;
mod size;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use formats::registry;
pub use image::{Extents, Image, LayerSummary, Options};
pub use instar_core as core;
pub use instar_core::{
    Advice, Error, ErrorKind, ExternalPolicy, FileName, Flags, ImageFile, Limits, Notice,
    QemuVersion, Result, Row, Severity, Window,
};

/// A size as the options take it, in bytes.
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub fn parse_size(text: &str) -> Option<u64> {
    size::parse_size(text).ok()
}

/// Runs the command with these arguments, the program's name first.
///
/// The map goes to standard output, problems to standard error: one line each, with tips on lines
/// of their own. The exit code is 0 for success (also if the reader of the output went away before
/// anything was found to be wrong) and 1 for any failure.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match cli::parse(arguments) {
        cli::Parsed::Command(cli::Command::Map(options)) => map::run(&options),
        cli::Parsed::Command(cli::Command::Detect(options)) => detect::run(&options),
        cli::Parsed::Command(cli::Command::Formats(options)) => list::run(&options),
        cli::Parsed::Help(text) => output::print(text.as_bytes()),
        cli::Parsed::NoCommand(text) => output::fail_with_text(&text),
        cli::Parsed::Wrong(message) => message.fail(),
    }
}
