//! `instar formats`.

use std::process::ExitCode;

use instar_core::{Entry, Registry};
use serde_json::{Value, json};

use crate::cli::{FormatsOptions, Report};
use crate::output;

/// Columns of a line for people, if words allow it.
const WIDTH: usize = 80;
/// The column that is wrapped takes at least this many.
const LEAST: usize = 24;
const HEADER: [&str; 3] = ["Name", "Aliases", "Extensions"];

/// Lists what is compiled in.
pub(crate) fn run(options: &FormatsOptions) -> ExitCode {
    let registry = match crate::registry() {
        Ok(registry) => registry,
        Err(error) => return output::fail(&error),
    };
    let text = match options.output {
        Report::Human => table(&registry),
        Report::Json => output::array(registry.entries().iter().map(object)),
    };
    output::print(text.as_bytes())
}

fn table(registry: &Registry) -> String {
    let row = |entry: &Entry| {
        let list = |names: &[&str]| if names.is_empty() { "-".into() } else { names.join(",") };
        let format = entry.format;
        [format.name().to_owned(), list(format.aliases()), list(format.extensions())]
    };
    let rows = std::iter::once(HEADER.map(String::from)).chain(registry.entries().iter().map(row));
    let rows: Vec<[String; 3]> = rows.collect();
    let mut widths = [0; HEADER.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let about = registry.entries().iter().map(|entry| entry.format.about());
    let mut text = String::new();
    for (row, about) in rows.iter().zip(std::iter::once("Covers").chain(about)) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        push_wrapped(&mut text, &cells.collect::<String>(), about);
    }
    let differing =
        registry.entries().iter().filter(|entry| !entry.format.divergences().is_empty());
    for (index, Entry { format, .. }) in differing.enumerate() {
        if index == 0 {
            text.push_str("\nOn purpose not as in qemu-img:\n");
        }
        let [width, ..] = widths;
        let start = format!("{:width$}  ", format.name());
        push_wrapped(&mut text, &start, &format.divergences().join(", "));
    }
    text
}

/// Appends `start` and the words behind it, in as many lines as they need.
fn push_wrapped(text: &mut String, start: &str, words: &str) {
    let indent = start.chars().count();
    let room = WIDTH.saturating_sub(indent).max(LEAST);
    let mut line = start.to_owned();
    let mut used = 0;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > room {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(indent);
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += length;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn object(entry: &Entry) -> Value {
    json!({
        "name": entry.format.name(),
        "aliases": entry.format.aliases(),
        "extensions": entry.format.extensions(),
        "package": entry.package,
        "version": entry.version,
        "covers": entry.format.about(),
        "divergences": entry.format.divergences(),
    })
}
