//! The one main path: open, detect, compose, window, render.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use instar_core::{
    Chain, Context, Error, ErrorKind, ExternalPolicy, FileStorage, Limits, Notice, Opener,
    QemuVersion, Result, Row, RowReader, Severity, Shape, Storage, Window, open_chain, shown_path,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::{External, MapOptions, Output, Sandbox};
use crate::image::Options;
use crate::input::{local_path, with_hint};
use crate::message::Message;
use crate::output::{self, Stdout};
use crate::render::{Human, Json, JsonLines, RenderError, Renderer};
use crate::sandbox::Confinement;

/// Rows that are still read, to find what is wrong with the image, when nobody reads the output any
/// more: a fraction of a second.
const ROWS_AFTER_CLOSE: usize = 16 << 20;

/// Maps the image that the options name.
pub(crate) fn run(options: &MapOptions) -> ExitCode {
    let version = match options.qemu_version.map_or(Ok(QemuVersion::NEWEST), |v| v.resolve()) {
        Ok(version) => version,
        Err(message) => return output::fail(&message),
    };
    if options.file.as_os_str().is_empty() {
        return output::fail(&"the file name is empty");
    }
    let path = local_path(&options.file);
    // Examined now: a confined process cannot ask whether it writes to a terminal.
    let stdout = Stdout::new();
    match open(options, &path, version) {
        Ok(chain) => print(options, chain, &path, version, stdout),
        Err(error) => Message::of(&path, &error).fail(),
    }
}

/// Opens the image and composes its layers.
fn open(options: &MapOptions, path: &Path, version: QemuVersion) -> Result<Chain> {
    let registry = crate::registry()?;
    // A wrong --format is said before the file is touched.
    let chosen = match options.format.as_str() {
        "auto" => None,
        name => Some(registry.find(name)?),
    };
    let storage = FileStorage::open(path).map_err(|error| with_hint(path, error))?;
    let storage: Arc<dyn Storage> = Arc::new(storage.with_read_unit(options.sector_size));
    let context = context(options, path, version)?;
    // Nothing of the image has been looked at yet.
    confine(options, path, &context.opener)?;
    open_chain(&registry, chosen, storage, path, &Arc::new(context))
}

/// Gives up what is not needed from here on.
fn confine(options: &MapOptions, path: &Path, opener: &Opener) -> Result<()> {
    if options.sandbox == Sandbox::Off {
        if options.verbose {
            output::say(&format!("{}: sandbox: off", shown_path(path)));
        }
        return Ok(());
    }
    let confinement = match opener.directories(path) {
        Some(directories) => Confinement::ReadBelow(directories),
        None => Confinement::OpenFiles,
    };
    let applied = confinement.apply();
    if options.sandbox == Sandbox::Require && !applied.is_complete() {
        let text = format!("--sandbox=require cannot be met: {applied}");
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    if options.verbose {
        output::say(&format!("{}: sandbox: {applied}", shown_path(path)));
    } else if applied.has_failed() {
        output::say(&format!("{}: note: the sandbox is not complete: {applied}", shown_path(path)));
    }
    Ok(())
}

fn context(options: &MapOptions, path: &Path, version: QemuVersion) -> Result<Context> {
    let policy = match options.external {
        External::Refuse => ExternalPolicy::Refuse,
        External::Ignore => ExternalPolicy::Ignore,
        External::Follow => {
            allow_many_files();
            ExternalPolicy::Follow { allow_under: options.allow_under.clone() }
        }
    };
    let mut limits = Limits::default();
    limits.depth = options.max_depth.unwrap_or(limits.depth);
    let top = path.to_owned();
    let warn = move |notice: &Notice| {
        let path = shown_path(notice.path.as_ref().unwrap_or(&top));
        let severity = match notice.severity {
            Severity::Note => "note",
            _ => "warning",
        };
        output::say(&format!("{path}: {severity}: {}", notice.text));
    };
    Options::new()
        .external(policy)
        .limits(limits)
        .qemu_version(version)
        .read_unit(options.sector_size)
        .strict(options.strict)
        .on_notice(warn)
        .into_context()
}

/// Lets as many files be open at a time as the system allows at all: the extents of a large split
/// disk are more than the thousand that shells start programs with.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Should it fail, the file that cannot be opened says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Renders the window of the chain to standard output.
fn print(
    options: &MapOptions,
    chain: Chain,
    path: &Path,
    version: QemuVersion,
    stdout: io::Result<Stdout>,
) -> ExitCode {
    let shape = match options.output {
        // Not qemu's output, so not bound to one of its versions.
        Output::Jsonl => Shape::WithCompressed,
        Output::Human | Output::Json => version.shape(),
    };
    let stdout = match stdout {
        Ok(stdout) => stdout,
        Err(error) => return output::finish(Err(error)),
    };
    let escape_names = stdout.is_terminal();
    let mut renderer: Box<dyn Renderer> = match options.output {
        Output::Human => Box::new(Human::new(stdout, chain.files(), escape_names)),
        Output::Json => Box::new(Json::new(stdout, shape)),
        Output::Jsonl => match JsonLines::new(stdout, &chain, escape_names) {
            Ok(renderer) => Box::new(renderer),
            Err(error) => return output::finish(Err(error)),
        },
    };
    let window = Window { start: options.start_offset, length: options.max_length };
    let mut rows = RowReader::new(chain, window, shape);
    let mut left = options.max_extents.unwrap_or(u64::MAX);
    let mut unread = ROWS_AFTER_CLOSE;
    let mut written = Ok(());
    let failure = loop {
        break match rows.next_rows() {
            Ok([]) => None,
            Ok(batch) => {
                let (allowed, are_all) = within(batch, &mut left);
                match written {
                    Ok(()) => match renderer.rows(allowed) {
                        Ok(()) => {}
                        // As qemu words it: scripts look for this line.
                        Err(error @ RenderError::NoOffset) => {
                            let tip = format!("--output=json maps all of {}", shown_path(path));
                            break Some(Message::new(error.to_string()).with_tip(tip));
                        }
                        Err(RenderError::Output(error)) => written = Err(error),
                    },
                    // Nobody reads on. What is wrong with the image is still looked for.
                    Err(ref error) if output::is_closed(error) && unread > 0 => {
                        unread = unread.saturating_sub(batch.len());
                    }
                    Err(_) => break None,
                }
                match are_all {
                    true => continue,
                    false => Some(Message::of(path, &too_many(options))),
                }
            }
            Err(error) => Some(Message::of(path, &error)),
        };
    };
    let Some(failure) = failure else {
        return output::finish(written.and_then(|()| renderer.finish()));
    };
    // What came before the failure is printed, as qemu does, and is visibly incomplete. Whether
    // somebody reads it or not, the failure is one.
    output::finish(written.and_then(|()| renderer.abandon()));
    failure.fail()
}

/// As many of `rows` as are `left` of the allowed ones, and whether those are all.
fn within<'a>(rows: &'a [Row], left: &mut u64) -> (&'a [Row], bool) {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rows.len());
    *left -= count as u64;
    (rows.get(..count).unwrap_or_default(), count == rows.len())
}

fn too_many(options: &MapOptions) -> Error {
    let allowed = options.max_extents.unwrap_or(u64::MAX);
    let text = format!("the map has more ranges than --max-extents allows, {allowed}");
    Error::new(ErrorKind::Limit, text)
}
