//! What docs/security.md says about limits is what the code says.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use instar::core::Limits;
use pretty_assertions::assert_eq;

/// A file of the repository.
fn read(relative: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(relative);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The rows of the limits table: what, at most, constant.
fn rows(text: &str) -> Vec<[String; 3]> {
    let (_, table) = text.split_once("| What | At most | Constant |").unwrap();
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells =
        |line: &str| line.trim_matches('|').split(" | ").map(|c| c.trim().to_owned()).collect();
    lines.map(|line| Vec::<String>::try_into(cells(line)).unwrap()).collect()
}

/// The number that starts a cell, in units of its own: `4 MiB, or more` is 4194304.
fn number(cell: &str) -> u64 {
    let mut words = cell.split([' ', ',']);
    let number: u64 = words.next().unwrap().parse().unwrap_or_else(|_| panic!("{cell:?}"));
    let unit = match words.next() {
        Some("MiB") => 1 << 20,
        Some("TiB") => 1 << 40,
        _ => 1,
    };
    number * unit
}

/// The value of `const NAME: … = …;` in the sources below `folder`, in files whose path holds
/// `part`.
fn constant(folder: &str, part: &str, name: &str) -> u64 {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().contains(part) {
                let text = fs::read_to_string(&path).unwrap();
                let marker = format!("const {name}: ");
                if let Some((_, rest)) = text.split_once(&marker) {
                    let (_, rest) = rest.split_once(" = ").unwrap();
                    found.push(value(rest.split_once(';').unwrap().0, folder_of(&path)));
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 1, "{folder}: {name}: {found:?}");
    found[0]
}

fn folder_of(path: &Path) -> &str {
    let root = env!("CARGO_MANIFEST_DIR");
    path.parent().unwrap().strip_prefix(root).unwrap().to_str().unwrap()
}

/// An expression of numbers and other constants of the package, with `*` or `<<`.
fn value(expression: &str, folder: &str) -> u64 {
    if let Some((one, other)) = expression.split_once(" << ") {
        return value(one, folder) << value(other, folder);
    }
    if let Some((one, other)) = expression.split_once(" * ") {
        return value(one, folder) * value(other, folder);
    }
    let plain = expression.replace('_', "");
    match plain.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
        None => plain.parse().unwrap_or_else(|_| constant(folder, "", expression)),
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let rows = rows(&read("docs/security.md"));
    let limits = Limits::default();
    let mut fields = BTreeSet::new();
    for [what, most, place] in &rows {
        let (place, name) = match place.trim_matches('`').split_once(" `") {
            Some((place, name)) => (place, name),
            None => ("", place.trim_matches('`')),
        };
        let actual = match (place, name) {
            ("", "Limits::depth") => limits.depth as u64,
            ("", "Limits::table_window") => limits.table_window,
            ("", "Limits::description") => limits.description,
            ("", "Limits::log") => limits.log,
            ("", "Limits::held") => limits.held,
            (place, name) => match place.split_once(' ').unwrap_or((place, "")) {
                ("core", part) => constant("src/core/src", part, name),
                (plugin, part) => constant(&format!("plugins/{plugin}/src"), part, name),
            },
        };
        assert_eq!(number(most), actual, "{what}: {place} {name}");
        fields.extend(name.strip_prefix("Limits::"));
    }
    assert!(rows.len() > 20, "{} limits", rows.len());
    // A limit that is added to the code is added to the table.
    let shown = format!("{limits:?}");
    let named = shown.split_once('{').unwrap().1.split(", ");
    let named: BTreeSet<&str> = named.map(|f| f.split_once(": ").unwrap().0.trim()).collect();
    assert_eq!(fields, named);
}
