//! The README's commands are run, and print what it shows.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;

use pretty_assertions::assert_eq;

use common::all_enabled;
use common::binary::instar as run_instar;

/// A command as the README shows it, and what it prints.
struct Shown {
    command: String,
    output: String,
}

/// The commands in the README's blocks marked `console`.
fn shown() -> Vec<Shown> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut found: Vec<Shown> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            found.push(Shown { command: command.to_owned(), output: String::new() });
        } else if inside {
            let last = found.last_mut().expect("a command before its output");
            last.output.push_str(line);
            last.output.push('\n');
        }
    }
    found
}

#[test]
fn commands_print_what_the_readme_shows() {
    let commands = shown();
    let first = &commands.first().expect("a command").command;
    assert!(first.starts_with("cargo run --release -- map "), "{first}");
    if !all_enabled() {
        eprintln!("skipped: the README is about a build with all formats");
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut run = 0;
    for Shown { command, output } in &commands {
        let ours = command
            .strip_prefix("cargo run --release -- ")
            .or_else(|| command.strip_prefix("instar "))
            .unwrap_or_else(|| panic!("a command of another program: {command}"));
        let args: Vec<&str> = ours.split_whitespace().collect();
        let done = run_instar(here, &args);
        assert_eq!(format!("{}{}", done.text(), done.stderr), *output, "{command}");
        run += 1;
    }
    assert!(run >= 2, "{run} commands in the README");
}

/// The table of formats and what is compiled in are the same list.
#[test]
fn the_table_lists_the_formats() {
    if !all_enabled() {
        eprintln!("skipped: not all formats are compiled in");
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().skip_while(|line| *line != "| Format | Covers |").skip(2);
    let listed: Vec<&str> =
        rows.map_while(|row| row.strip_prefix("| ")?.split(" | ").next()).collect();
    let registry = instar::registry().unwrap();
    let compiled: Vec<&str> = registry.entries().iter().map(|entry| entry.format.name()).collect();
    assert_eq!(listed, compiled);
}
