//! `instar formats`.

use std::fmt::Write;
use std::process::ExitCode;

use instar_core::Registry;

use crate::output;

/// Lists what is compiled in.
pub(crate) fn run() -> ExitCode {
    match crate::registry() {
        Ok(registry) => output::print(table(&registry).as_bytes()),
        Err(error) => output::fail(&error),
    }
}

fn table(registry: &Registry) -> String {
    let mut text = String::new();
    line(&mut text, ["Name", "Aliases", "Package", "Version"], "Covers");
    for entry in registry.entries() {
        let aliases = entry.format.aliases().join(",");
        let aliases = if aliases.is_empty() { "-" } else { &aliases };
        let columns = [entry.format.name(), aliases, entry.package, entry.version];
        line(&mut text, columns, entry.format.about());
    }
    text
}

fn line(text: &mut String, [name, aliases, package, version]: [&str; 4], about: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{name:<8}{aliases:<10}{package:<22}{version:<9}{about}");
}
