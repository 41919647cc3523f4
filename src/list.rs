//! `instar formats`.

use std::fmt::Write;
use std::process::ExitCode;

use instar_core::{Entry, Registry};
use serde_json::{Value, json};

use crate::cli::{FormatsOptions, Report};
use crate::output;

const HEADER: [&str; 6] = ["Name", "Aliases", "Extensions", "Package", "Version", "Covers"];

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
        [
            format.name().to_owned(),
            list(format.aliases()),
            list(format.extensions()),
            entry.package.to_owned(),
            entry.version.to_owned(),
            format.about().to_owned(),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(HEADER.map(String::from))
        .chain(registry.entries().iter().map(row))
        .collect();
    let mut widths = [0; HEADER.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    let differing =
        registry.entries().iter().filter(|entry| !entry.format.divergences().is_empty());
    for (index, Entry { format, .. }) in differing.enumerate() {
        if index == 0 {
            text.push_str("\nOn purpose not as in qemu-img:\n");
        }
        let [width, ..] = widths;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:width$}  {}", format.name(), format.divergences().join(", "));
    }
    text
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
