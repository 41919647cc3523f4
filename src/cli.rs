//! The command line: clap's types, and what is wrong with arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::image::READ_UNITS;
use crate::message::Message;
use crate::size::parse_size;
use crate::version::VersionChoice;

/// Width to which help is wrapped, or less on a narrower terminal.
const WIDTH: usize = 80;

/// Maps disk images: where the bytes of a virtual disk are in its image file
#[derive(Debug, Parser)]
#[command(
    name = "instar",
    version,
    args_override_self = true,
    infer_long_args = true,
    max_term_width = WIDTH,
    after_help = "'instar COMMAND -h' lists the options of a command.",
    after_long_help = "\
Examples:
  instar map disk.qcow2
  instar detect disk.qcow2
  instar formats

'instar COMMAND --help' explains a command, with examples."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print which ranges of a disk hold data, and where
    ///
    /// Prints which ranges of the disk in FILE hold data, and where that data is: the same bytes
    /// as 'qemu-img map'. With --output=json also the ranges that read as zeros or are not in the
    /// image.
    #[command(
        infer_long_args = true,
        args_override_self = true,
        max_term_width = WIDTH,
        after_help = "'instar map --help' has all options, and examples.",
        after_long_help = "\
Examples:
  instar map disk.qcow2
          The ranges that hold data, as a table.
  instar map --output=json disk.qcow2
          All ranges, also of compressed and encrypted images.
  instar map --external=follow overlay.qcow2
          The disk with what is in the backing file.
  instar map --external=ignore overlay.qcow2
          Only what is in this file.
  instar map -s 1MiB -l 64k --format=raw disk.raw
          64 KiB of a raw disk, from 1 MiB on.

Exit status: 0 for success, 1 for any failure."
    )]
    Map(Box<MapOptions>),
    /// Say in which format files are
    ///
    /// Says in which format each FILE is, and what every format answered. Only the first 128 KiB
    /// and the last 4 KiB of a file are read.
    #[command(
        infer_long_args = true,
        args_override_self = true,
        max_term_width = WIDTH,
        after_help = "'instar detect --help' has examples.",
        after_long_help = "\
Examples:
  instar detect disk.qcow2 disk.raw
          Which format won, and the answers of all.
  instar detect --output=json disk.qcow2
          The same for programs.

Exit status: 0 if each FILE is in a format, 1 if one is not, or only raw takes it."
    )]
    Detect(DetectOptions),
    /// List the formats that are compiled in
    #[command(
        infer_long_args = true,
        args_override_self = true,
        max_term_width = WIDTH,
        after_help = "'instar formats --help' has examples.",
        after_long_help = "\
Examples:
  instar formats
          Names, aliases, usual file names, and what is covered.
  instar formats --output=json
          The same for programs, with the package of each format."
    )]
    Formats(FormatsOptions),
}

/// What `instar detect` and `instar formats` print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Report {
    /// For people
    Human,
    /// A JSON array
    Json,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DetectOptions {
    /// Regular files or block devices
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// What to print: human or json
    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        default_value = "human",
        hide_possible_values = true
    )]
    pub(crate) output: Report,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FormatsOptions {
    /// What to print: human or json
    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        default_value = "human",
        hide_possible_values = true
    )]
    pub(crate) output: Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table of the ranges that hold data
    Human,
    /// All ranges, as a JSON array
    Json,
    /// A description of the image and its files, then a range per line, with its file
    Jsonl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum External {
    /// Such an image is an error; nothing else is opened
    Refuse,
    /// Map FILE alone; nothing else is opened
    Ignore,
    /// Open regular files below the directory of the file that names them, or below an allowed one
    Follow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sandbox {
    /// As far as the system can
    Auto,
    /// Completely, or else it is an error
    Require,
    /// Not at all
    Off,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MapOptions {
    /// The image: a regular file or a block device
    ///
    /// 'file:' in front of the name is dropped. Protocols, such as nbd: and http:, and json:
    /// descriptions are not supported.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// auto, or one of 'instar formats'
    ///
    /// Format of FILE: auto, or a name or alias from 'instar formats'.
    #[arg(short, long, value_name = "FMT", default_value = "auto")]
    pub(crate) format: String,

    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        default_value = "human",
        hide_possible_values = true,
        help = "human, json or jsonl",
        long_help = "\
What to print:
  human  a table of the ranges that hold data
  json   all ranges, as a JSON array
  jsonl  a line about the image and its files, then a line per range"
    )]
    pub(crate) output: Output,

    // qemu-img takes any prefix of its options: those that other options of ours share are here.
    /// First byte of the disk to map
    ///
    /// N is a number of bytes: 512, 0x200, 64k, 1.5M, 2GiB. Suffixes are powers of 1024.
    #[arg(short, long, aliases = ["s", "st"], value_name = "N", default_value = "0", value_parser = parse_size, allow_hyphen_values = true)]
    pub(crate) start_offset: u64,

    /// Map at most N bytes [default: to the end]
    #[arg(short = 'l', long, aliases = ["m", "ma", "max", "max-"], value_name = "N", value_parser = parse_size, allow_hyphen_values = true)]
    pub(crate) max_length: Option<u64>,

    #[arg(
        long,
        value_enum,
        value_name = "POLICY",
        default_value = "refuse",
        hide_possible_values = true,
        help = "Other files: refuse, ignore, follow",
        long_help = "\
What to do about other files that FILE names, such as a backing file:
  refuse  such an image is an error
  ignore  FILE is mapped alone
  follow  they are mapped too; --allow-under says where they may be
With refuse and ignore, nothing but FILE is opened."
    )]
    pub(crate) external: External,

    /// With follow: files may also be below DIR
    ///
    /// With --external=follow, a file must be below the directory of the file that names it, or
    /// below a DIR. May be given several times.
    #[arg(long, value_name = "DIR", action = clap::ArgAction::Append)]
    pub(crate) allow_under: Vec<PathBuf>,

    /// With follow: at most N backing files [default: 200]
    #[arg(long, value_name = "N", value_parser = parse_depth)]
    pub(crate) max_depth: Option<usize>,

    #[arg(
        long,
        value_name = "V",
        help = "Print as qemu X.Y, or as the host's [default: newest]",
        long_help = "\
Version of qemu-img whose output is printed: X.Y, X.Y.Z, or host to ask the installed one.

[default: newest]"
    )]
    pub(crate) qemu_version: Option<VersionChoice>,

    /// Alignment and granularity of reads, in bytes
    ///
    /// A power of two from 512 to 2M. It does not change the output.
    #[arg(long, value_name = "N", default_value = "4096", value_parser = parse_read_unit, hide_short_help = true)]
    pub(crate) sector_size: u64,

    /// End with an error after N ranges
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub(crate) max_extents: Option<u64>,

    /// Treat warnings as errors
    #[arg(long)]
    pub(crate) strict: bool,

    #[arg(
        long,
        value_enum,
        value_name = "MODE",
        default_value = "auto",
        hide_possible_values = true,
        hide_short_help = true,
        help = "Confine the process: auto, require or off",
        long_help = "\
Whether the process is confined once FILE is open, before it is read:
  auto     as far as the system can
  require  completely, or else it is an error
  off      not at all"
    )]
    pub(crate) sandbox: Sandbox,

    /// Say on standard error how the process was confined
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Accepted for compatibility; instar takes no lock
    #[arg(short = 'U', long, hide_short_help = true)]
    pub(crate) force_share: bool,

    /// Not supported
    #[arg(long, hide = true)]
    pub(crate) image_opts: bool,

    /// Not supported
    #[arg(long, hide = true, value_name = "OBJDEF")]
    pub(crate) object: Option<OsString>,
}

fn parse_read_unit(text: &str) -> Result<u64, String> {
    let unit = parse_size(text).map_err(|error| error.to_string())?;
    if unit.is_power_of_two() && READ_UNITS.contains(&unit) {
        Ok(unit)
    } else {
        Err(format!("must be a power of two from 512 to 2097152, not {unit}"))
    }
}

/// A whole number, for people who get no other words for it than those of Rust.
fn parse_count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

fn parse_depth(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", usize::MAX))
}

/// What the arguments amount to.
pub(crate) enum Parsed {
    Command(Command),
    /// Text for standard output: help or version.
    Help(String),
    /// Help for standard error, as there is nothing to do.
    NoCommand(String),
    /// What is wrong with the arguments.
    Wrong(Message),
}

/// Reads the arguments, the program's name first.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match Cli::try_parse_from(&arguments) {
        Ok(Cli { command: Command::Map(options) }) => match unusable(&options) {
            Some(message) => Parsed::Wrong(message),
            None => Parsed::Command(Command::Map(options)),
        },
        Ok(Cli { command }) => Parsed::Command(command),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Parsed::Help(page(&error)),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Parsed::NoCommand(page(&error)),
            _ => Parsed::Wrong(message(&error, arguments.get(1).map(OsString::as_os_str))),
        },
    }
}

/// Help, without spaces at the ends of lines, and with one line end at its end.
fn page(help: &clap::Error) -> String {
    let text = help.to_string();
    text.trim_end().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// What is wrong with options that are right one by one.
fn unusable(options: &MapOptions) -> Option<Message> {
    if options.image_opts {
        let tip = "give the image's file name, and its format with --format";
        return Some(Message::new("--image-opts is not supported").with_tip(tip));
    }
    if options.object.is_some() {
        let tip = "an encrypted image is mapped without its secret";
        return Some(Message::new("--object is not supported").with_tip(tip));
    }
    if !options.allow_under.is_empty() && options.external != External::Follow {
        return Some(Message::new("--allow-under goes with --external=follow"));
    }
    None
}

/// The statement of a clap error and its tips, without its usage.
fn message(error: &clap::Error, first: Option<&OsStr>) -> Message {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).skip_while(|line| line.is_empty());
    let statement: Vec<&str> =
        lines.by_ref().take_while(|line| !line.is_empty() && !line.starts_with("Usage:")).collect();
    let statement = statement.join(" ");
    let message = Message::new(statement.strip_prefix("error: ").unwrap_or(&statement));
    if let Some(file) = first.filter(|_| error.kind() == ErrorKind::InvalidSubcommand) {
        if is_likely_file(file) {
            return message.with_tip(format!("to map a file: instar map {}", quoted(file)));
        }
    }
    let mut tips: Vec<&str> = lines.filter_map(|line| line.strip_prefix("tip: ")).collect();
    if tips.is_empty() && error.kind() == ErrorKind::InvalidSubcommand {
        tips.push("the commands are map, detect and formats");
    }
    let message = tips.into_iter().fold(message, Message::with_tip);
    let is_command =
        |name: &&str| Cli::command().get_subcommands().any(|command| command.get_name() == *name);
    message.with_tip(match first.and_then(OsStr::to_str).filter(is_command) {
        Some(command) => format!("see 'instar {command} --help'"),
        None => "see 'instar --help'".to_owned(),
    })
}

/// Whether what was typed in place of a command is rather a file.
fn is_likely_file(typed: &OsStr) -> bool {
    typed.as_bytes().iter().any(|byte| matches!(byte, b'.' | b'/')) || Path::new(typed).exists()
}

/// A name as a shell takes it.
fn quoted(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "-_=./,:+@%".contains(c);
    match name.chars().all(is_plain) {
        true => name.into_owned(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}
