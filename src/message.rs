//! What is said on standard error: a statement, and tips on lines of their own.

use std::path::Path;
use std::process::ExitCode;

use instar_core::{Advice, Error};

use crate::input::statement;
use crate::output;

/// What is wrong, and what can be done about it.
pub(crate) struct Message {
    /// One line, without the program's name.
    pub(crate) statement: String,
    /// One line each.
    pub(crate) tips: Vec<String>,
}

impl Message {
    /// A message without tips.
    pub(crate) fn new(statement: impl Into<String>) -> Self {
        Self { statement: statement.into(), tips: Vec::new() }
    }

    /// The message about an error with the file `path`, unless the error names another.
    pub(crate) fn of(path: &Path, error: &Error) -> Self {
        let tips = error.advice().map(tips).unwrap_or_default();
        Self { statement: statement(path, error), tips }
    }

    /// Adds a tip.
    pub(crate) fn with_tip(mut self, tip: impl Into<String>) -> Self {
        self.tips.push(tip.into());
        self
    }

    /// Writes the message to standard error.
    pub(crate) fn say(&self) {
        output::say(&self.statement);
        for tip in &self.tips {
            output::tip(tip);
        }
    }

    /// Writes the message to standard error, and fails.
    pub(crate) fn fail(&self) -> ExitCode {
        self.say();
        ExitCode::FAILURE
    }
}

/// The advice in terms of the command line.
fn tips(advice: Advice) -> Vec<String> {
    const IGNORE: &str = "--external=ignore maps FILE alone";
    let known = || {
        let registry = crate::registry().ok()?;
        let names: Vec<&str> = std::iter::once("auto").chain(registry.names()).collect();
        Some(format!("known formats: {}", names.join(" ")))
    };
    let fixed: &[&str] = match advice {
        Advice::ChooseExternalPolicy => {
            &["--external=follow opens it if it is below the image's directory", IGNORE]
        }
        Advice::IgnoreExternal => &[IGNORE],
        Advice::AllowDirectory => &["--allow-under=DIR also opens files below DIR", IGNORE],
        Advice::AllowDirectoryForAbsolute => {
            &["--allow-under=DIR opens absolute names below DIR", IGNORE]
        }
        Advice::ChooseFormat => &["'instar map --format=NAME FILE' says which it is"],
        Advice::StateFormat => &[
            "'instar map --format=NAME FILE' maps it as if it were in that format",
            "'instar formats' lists the formats that are compiled in",
        ],
        Advice::ListFormats => return known().into_iter().collect(),
        Advice::RaiseDepth => &["--max-depth=N allows more backing files"],
        // Advice that is newer than this program's words for it.
        _ => &[],
    };
    fixed.iter().map(|tip| (*tip).to_owned()).collect()
}
