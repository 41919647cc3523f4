//! What is compiled in, and what another crate adds.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use instar::core::{
    Advice, Confidence, ErrorKind, ExtentSource, Image, ImageFormat, Probe, Registration, Registry,
    Result,
};
use pretty_assertions::assert_eq;

use common::binary::{instar, run};

#[test]
fn the_list_is_that_of_the_features() {
    let registry = instar::registry().unwrap();
    let text = instar(Path::new("."), &["formats"]).assert_succeeds();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["Name", "Aliases", "Extensions", "Covers"]);
    // Lines that go on with what is covered start with spaces.
    let lines = lines.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with(' '));
    let rows: Vec<Vec<&str>> = lines.map(|l| l.split_whitespace().collect()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, common::enabled_formats());
    for row in &rows {
        let alias = match row[0] {
            "raw" => "file",
            "vhd" => "vpc",
            _ => "-",
        };
        assert_eq!(row[1], alias);
        let extensions = registry.find(row[0]).unwrap().extensions().join(",");
        assert_eq!(row[2], if extensions.is_empty() { "-" } else { &extensions });
        assert!(row.len() > 3, "what it covers: {row:?}");
    }
    for entry in registry.entries() {
        assert_eq!(entry.package, format!("instar-plugin-{}", entry.format.name()));
        assert_eq!(entry.version.split('.').count(), 3, "a version: {}", entry.version);
    }
}

/// A format that does nothing but have names.
struct Named(&'static str, &'static [&'static str]);

impl ImageFormat for Named {
    fn name(&self) -> &'static str {
        self.0
    }

    fn aliases(&self) -> &'static [&'static str] {
        self.1
    }

    fn about(&self) -> &'static str {
        "nothing"
    }

    fn probe(&self, _: &Probe<'_>) -> Confidence {
        Confidence::No
    }

    fn open(&self, _: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        unreachable!("nobody opens it")
    }
}

const fn registration(format: &'static Named, package: &'static str) -> Registration {
    Registration { format, package, version: "1.2.3" }
}

#[test]
fn a_name_claimed_twice_is_an_error_that_names_both_packages() {
    static ONE: Named = Named("one", &["uno", "eins"]);
    static SAME_NAME: Named = Named("one", &[]);
    static SAME_ALIAS: Named = Named("two", &["uno"]);
    static ALIAS_IS_NAME: Named = Named("three", &["one"]);
    static NAME_IS_ALIAS: Named = Named("eins", &[]);
    let clashes = [
        (&SAME_NAME, "one"),
        (&SAME_ALIAS, "uno"),
        (&ALIAS_IS_NAME, "one"),
        (&NAME_IS_ALIAS, "eins"),
    ];
    for (other, name) in clashes {
        for order in [[0, 1], [1, 0]] {
            let both = [registration(&ONE, "first"), registration(other, "second")];
            let error = Registry::new(order.iter().map(|i| &both[*i])).err();
            let error = error.expect("a name claimed twice");
            assert_eq!(error.kind(), ErrorKind::Usage);
            let text = error.to_string();
            for piece in [name, "first", "second"] {
                assert!(text.contains(piece), "{text:?} is to say {piece:?}");
            }
        }
    }
}

#[test]
fn names_and_aliases_are_found_and_the_order_means_nothing() {
    static ONE: Named = Named("one", &["uno"]);
    static TWO: Named = Named("two", &[]);
    for order in [[0, 1], [1, 0]] {
        let both = [registration(&ONE, "first"), registration(&TWO, "second")];
        let registry = Registry::new(order.iter().map(|i| &both[*i])).unwrap();
        let names: Vec<_> = registry.entries().iter().map(|e| e.format.name()).collect();
        assert_eq!(names, ["one", "two"]);
        assert_eq!(registry.find("uno").unwrap().name(), "one");
        let unknown = registry.find("One").err().unwrap();
        assert_eq!(unknown.to_string(), "unknown format \"One\"");
        assert_eq!(unknown.advice(), Some(Advice::ListFormats));
        assert_eq!(registry.names().collect::<Vec<_>>(), ["one", "uno", "two"]);
    }
}

#[test]
fn a_plugin_outside_the_tree_is_linked_and_maps_its_format() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("out-of-tree");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // What the build of this test set is not meant for another workspace.
    let built = Command::new(cargo)
        .args(["build", "--offline", "--quiet", "--bin", "instar-with-foo"])
        .current_dir(here.join("tests/out-of-tree"))
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
    let program: PathBuf = target.join("debug/instar-with-foo");
    let ask = |args: &[&str]| {
        let mut command = Command::new(&program);
        run(command.current_dir(here.join("tests/out-of-tree")).args(args))
    };

    let list = ask(&["formats"]).assert_succeeds();
    let names: Vec<&str> = list
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Lines that go on with what is covered start with spaces.
        .filter_map(|line| line.split(' ').next().filter(|name| !name.is_empty()))
        .collect();
    assert!(names.contains(&"foo"), "{list}");
    assert!(names.is_sorted(), "{list}");

    // The rest of the disk is encrypted: the table would end there.
    for format in ["auto", "foo"] {
        let table = ask(&["map", "-l", "2k", "-f", format, "sample.foo"]).assert_succeeds();
        let rows = common::rows::human_rows(&table).unwrap();
        assert!(!rows.is_empty(), "{table}");
        assert!(rows.iter().all(|row| row.file == "sample.foo"), "{table}");
    }
    let json = ask(&["map", "--output=json", "sample.foo"]).assert_succeeds();
    let rows = common::rows::json_rows(&json).unwrap();
    assert!(rows.len() > 1, "{json}");
    common::rows::check_tiling(&rows, 0, None).unwrap();

    // The program without the plugin takes the same file for something else.
    let without = instar(&here.join("tests/out-of-tree"), &["map", "-f", "foo", "sample.foo"]);
    without.assert_fails_with(&["unknown format \"foo\"\n  tip: known formats: auto"]);
}
