//! `instar detect`: which format files are in, and why.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use instar_core::{
    Confidence, Detection, FileStorage, ImageFormat, Registry, Result, detect, escaped,
};
use serde_json::{Value, json};

use crate::cli::{DetectOptions, Report};
use crate::input::{local_path, with_hint};
use crate::message::Message;
use crate::output::{self, Array, Stdout};
use crate::render::visible_json;

/// Examines the files that the options name.
///
/// The exit code is 0 if each is in a format, 1 if one can at best be taken for raw.
pub(crate) fn run(options: &DetectOptions) -> ExitCode {
    let registry = match crate::registry() {
        Ok(registry) => registry,
        Err(error) => return output::fail(&error),
    };
    let mut all = true;
    match (output::finish(report(options, &registry, &mut all)), all) {
        (_, false) => ExitCode::FAILURE,
        (written, true) => written,
    }
}

/// Examines files until nobody reads the answers; `all` becomes false for one that is not in a
/// format.
fn report(options: &DetectOptions, registry: &Registry, all: &mut bool) -> io::Result<()> {
    let mut out = Stdout::new()?;
    let escape = out.is_terminal();
    let mut array = Array::default();
    for file in &options.files {
        let found = examine(registry, file);
        *all &= found.as_ref().is_ok_and(|found| found.is_sure());
        let failure = match &found {
            Ok(Found { winner: Ok(_), .. }) => None,
            Ok(Found { winner: Err(error), .. }) | Err(error) => {
                let message = Message::of(&local_path(file), error);
                message.say();
                Some(message.statement)
            }
        };
        let found = found.ok();
        let text = match options.output {
            Report::Human => found.map(|found| found.lines(file, escape)).unwrap_or_default(),
            Report::Json => {
                let object = object(file, found.as_ref(), failure).to_string();
                let object = if escape { visible_json(&object) } else { object };
                array.next(&object).into_bytes()
            }
        };
        out.write_all(&text)?;
    }
    if options.output == Report::Json {
        out.write_all(array.end().as_bytes())?;
    }
    Ok(())
}

/// What the formats said of a file.
struct Found {
    detection: Detection,
    winner: Result<Winner>,
}

struct Winner {
    format: &'static dyn ImageFormat,
    confidence: Confidence,
}

fn examine(registry: &Registry, file: &Path) -> Result<Found> {
    let path = local_path(file);
    let storage = FileStorage::open(&path).map_err(|error| with_hint(&path, error))?;
    let detection = detect(registry, &storage)?;
    let winner = detection.winner().map(|format| Winner {
        format,
        confidence: detection
            .answers
            .iter()
            .find(|(entry, _)| entry.format.name() == format.name())
            .map_or(Confidence::No, |(_, confidence)| *confidence),
    });
    Ok(Found { detection, winner })
}

impl Found {
    /// Whether a format has won that does not take just any file.
    fn is_sure(&self) -> bool {
        self.winner.as_ref().is_ok_and(|winner| winner.confidence > Confidence::Fallback)
    }

    /// Why the winner has won.
    fn reason(&self, winner: &Winner) -> &'static str {
        let claims = self.detection.answers.iter().filter(|(_, c)| *c != Confidence::No).count();
        match winner.confidence {
            Confidence::Fallback => "as no format claims the file",
            _ if claims == 1 => "the only format that claims the file",
            _ => "surer than any other format",
        }
    }

    /// The answers for people: the winner, then who gave which answer, the surest first.
    fn lines(&self, file: &Path, escape: bool) -> Vec<u8> {
        let name = file.as_os_str().as_bytes();
        let mut text = if escape { escaped(name).into_bytes() } else { name.to_vec() };
        // Writing to a Vec cannot fail.
        let _ = match &self.winner {
            Ok(winner) => {
                let looks = self.detection.resembles.map(|what| format!("; it looks like {what}"));
                let (name, reason) = (winner.format.name(), self.reason(winner));
                writeln!(text, ": {name}, {reason}{}", looks.unwrap_or_default())
            }
            Err(_) => writeln!(text, ": unknown"),
        };
        let mut answers: BTreeMap<Confidence, Vec<&str>> = BTreeMap::new();
        for (entry, confidence) in &self.detection.answers {
            answers.entry(*confidence).or_default().push(entry.format.name());
        }
        for (confidence, formats) in answers.iter().rev() {
            let _ = writeln!(text, "  {confidence:8}  {}", formats.join(", "));
        }
        text
    }
}

/// The same for programs. Bytes of the name that are no UTF-8 are replaced.
fn object(file: &Path, found: Option<&Found>, failure: Option<String>) -> Value {
    let winner = found.and_then(|found| found.winner.as_ref().ok());
    let answer = |(entry, confidence): &(instar_core::Entry, Confidence)| json!({ "format": entry.format.name(), "confidence": confidence.to_string() });
    let answers = found.map_or(&[][..], |found| found.detection.answers.as_slice());
    let mut object = json!({
        "file": file.to_string_lossy(),
        "format": winner.map(|winner| winner.format.name()),
        "confidence": winner.map(|winner| winner.confidence.to_string()),
        "answers": answers.iter().map(answer).collect::<Vec<_>>(),
    });
    if let Some(fields) = object.as_object_mut() {
        if let (Some(found), Some(winner)) = (found, winner) {
            fields.insert("reason".into(), found.reason(winner).into());
            if let Some(what) = found.detection.resembles {
                fields.insert("looks-like".into(), what.into());
            }
        }
        if let Some(failure) = failure {
            fields.insert("error".into(), failure.into());
        }
    }
    object
}
