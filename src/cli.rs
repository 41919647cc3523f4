//! The command line: clap's types, and nothing that does anything.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand, ValueEnum};

use crate::image::READ_UNITS;
use crate::size::parse_size;
use crate::version::VersionChoice;

/// Where the bytes of a disk image are.
#[derive(Debug, Parser)]
#[command(name = "instar", version, args_override_self = true, infer_long_args = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print which ranges of the disk hold data, read as zero or are absent, and where
    #[command(infer_long_args = true, args_override_self = true)]
    Map(Box<MapOptions>),
    /// Say in which format files are, and what each format answered
    #[command(infer_long_args = true, args_override_self = true)]
    Detect(DetectOptions),
    /// List the formats that are compiled in
    #[command(infer_long_args = true, args_override_self = true)]
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

    /// What to print
    #[arg(
        long,
        value_enum,
        value_name = "human|json",
        default_value = "human",
        hide_possible_values = true
    )]
    pub(crate) output: Report,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FormatsOptions {
    /// What to print
    #[arg(
        long,
        value_enum,
        value_name = "human|json",
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
    /// Such an image is an error
    Refuse,
    /// Map this file alone; nothing else is opened
    Ignore,
    /// Open them, below the directory of the file that names them or an allowed one
    Follow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sandbox {
    /// As far as the system can
    Auto,
    /// Or it is an error
    Require,
    /// Not at all
    Off,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MapOptions {
    /// The image, a regular file or a block device
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Format of the image: auto, or a name that `instar formats` lists
    #[arg(short, long, value_name = "FMT", default_value = "auto")]
    pub(crate) format: String,

    /// What to print
    #[arg(
        long,
        value_enum,
        value_name = "human|json|jsonl",
        default_value = "human",
        hide_possible_values = true
    )]
    pub(crate) output: Output,

    // qemu-img takes any prefix of its options: those that other options of ours share are here.
    /// First byte of the disk to map (512, 0x200, 64k, 1.5M, 2G ...)
    #[arg(short, long, aliases = ["s", "st"], value_name = "N", default_value = "0", value_parser = parse_size, allow_hyphen_values = true)]
    pub(crate) start_offset: u64,

    /// Map at most this many bytes [default: to the end]
    #[arg(short = 'l', long, aliases = ["m", "ma", "max", "max-"], value_name = "N", value_parser = parse_size, allow_hyphen_values = true)]
    pub(crate) max_length: Option<u64>,

    /// What to do about other files that the image names (backing file, data file, extent,
    /// parent): refuse the image, ignore them and map this file alone, or follow the names to
    /// files below the directory of the file that names them
    #[arg(
        long,
        value_enum,
        value_name = "refuse|ignore|follow",
        default_value = "refuse",
        hide_possible_values = true
    )]
    pub(crate) external: External,

    /// With --external=follow: files may also be opened below DIR (repeatable)
    #[arg(long, value_name = "DIR", action = clap::ArgAction::Append)]
    pub(crate) allow_under: Vec<PathBuf>,

    /// Follow at most so many backing files [default: 200]
    #[arg(long, value_name = "N")]
    pub(crate) max_depth: Option<usize>,

    /// Whose output to print: X.Y[.Z], or host to ask the installed qemu-img [default: newest]
    #[arg(long, value_name = "VERSION")]
    pub(crate) qemu_version: Option<VersionChoice>,

    /// Alignment and granularity of every read from the image, in bytes: a power of two from
    /// 512 to 2M
    #[arg(long, value_name = "N", default_value = "4096", value_parser = parse_read_unit)]
    pub(crate) sector_size: u64,

    /// End with an error after so many ranges
    #[arg(long, value_name = "N")]
    pub(crate) max_extents: Option<u64>,

    /// Treat warnings as errors
    #[arg(long)]
    pub(crate) strict: bool,

    /// Confine the process once FILE is open: as far as the system can (auto), or else fail
    /// (require), or not at all (off)
    #[arg(
        long,
        value_enum,
        value_name = "auto|require|off",
        default_value = "auto",
        hide_possible_values = true
    )]
    pub(crate) sandbox: Sandbox,

    /// Say on standard error how the process was confined
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Accepted for compatibility; instar takes no lock
    #[arg(short = 'U', long)]
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

/// What the arguments amount to.
pub(crate) enum Parsed {
    Command(Command),
    /// Text for standard output: help or version.
    Help(String),
    /// One line for standard error.
    Wrong(String),
}

/// Reads the arguments, the program's name first.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = arguments.get(1).and_then(|first| first.to_str()).unwrap_or_default();
    match Cli::try_parse_from(&arguments) {
        Ok(Cli { command: Command::Map(options) }) if options.image_opts => {
            drop(options);
            Parsed::Wrong(
                "--image-opts is not supported: give the image's file name, and its format with \
                 --format"
                    .into(),
            )
        }
        Ok(Cli { command: Command::Map(options) }) if options.object.is_some() => Parsed::Wrong(
            "--object is not supported: an encrypted image is mapped without its secret".into(),
        ),
        Ok(Cli { command: Command::Map(options) })
            if !options.allow_under.is_empty() && options.external != External::Follow =>
        {
            Parsed::Wrong("--allow-under goes with --external=follow".into())
        }
        Ok(Cli { command }) => Parsed::Command(command),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Parsed::Help(error.to_string()),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Parsed::Wrong(
                "a command is missing: map, detect or formats; see 'instar --help'".into(),
            ),
            _ => Parsed::Wrong(one_line(&error.to_string(), command)),
        },
    }
}

/// The statement of a clap error without its usage and tips.
fn one_line(text: &str, command: &str) -> String {
    let statement: Vec<&str> = text
        .lines()
        .map(str::trim)
        .skip_while(|line| line.is_empty())
        .take_while(|line| !line.is_empty() && !line.starts_with("Usage:"))
        .collect();
    let joined = statement.join(" ");
    let message = joined.strip_prefix("error: ").unwrap_or(&joined);
    let help = match command {
        "detect" | "formats" => command,
        // Who knows qemu-img mostly means this one.
        _ => "map",
    };
    format!("{message}; see 'instar {help} --help'")
}
