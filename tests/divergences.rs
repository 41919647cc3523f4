//! The table of deliberate differences: each is still there, and the documentation has the same
//! list. That no other difference exists is what `parity.rs` and `live.rs` check.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;

use pretty_assertions::assert_eq;

use common::all_enabled;
use common::baseline::{cases, versions};
use common::binary::{can_follow, command};
use common::compare::{Question, Verdict};
use common::divergences::{DIVERGENCES, Divergence, Kind, matches};
use common::lab::Lab;
use common::manifest::{Entry, find, manifest, runnable};
use common::qemu::{self, words};
use common::reasons::REASONS;

#[test]
fn the_documentation_has_the_same_list() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/quirks.md");
    let text = std::fs::read_to_string(path).unwrap();
    let headings: BTreeSet<&str> = text.lines().filter_map(|l| l.strip_prefix("## ")).collect();
    let ids: BTreeSet<&str> = DIVERGENCES.iter().map(|d| d.id).collect();
    let kinds: BTreeSet<_> = DIVERGENCES.iter().map(|d| (d.id, format!("{:?}", d.kind))).collect();
    assert_eq!(kinds.len(), DIVERGENCES.len(), "every id and kind once");
    assert_eq!(headings, ids);
    for divergence in DIVERGENCES {
        assert!(!divergence.reason.is_empty(), "{}", divergence.id);
    }
}

/// Differences in options and output, which no format knows of.
const OF_THE_PROGRAM: [&str; 3] = ["size-syntax-of-newest", "size-units", "write-errors"];

/// What a format says of itself is what the table says of it.
#[test]
fn every_format_knows_its_differences() {
    let registry = instar::registry().unwrap();
    for entry in registry.entries() {
        let name = entry.format.name();
        let listed: BTreeSet<&str> = DIVERGENCES
            .iter()
            .filter(|divergence| divergence.formats.contains(&name))
            .map(|divergence| divergence.id)
            .filter(|id| !OF_THE_PROGRAM.contains(id))
            .collect();
        let said = entry.format.divergences();
        assert!(said.is_sorted(), "{name}: {said:?}");
        assert_eq!(said, Vec::from_iter(listed), "{name}");
    }
    for id in OF_THE_PROGRAM {
        assert!(DIVERGENCES.iter().any(|divergence| divergence.id == id), "{id}");
    }
}

#[test]
fn every_pattern_matches_an_image() {
    let mut patterns = 0;
    for divergence in DIVERGENCES {
        for pattern in divergence.images {
            let known = manifest().iter().any(|entry| {
                matches(pattern, &entry.id) && divergence.formats.contains(&entry.format.as_str())
            });
            assert!(known, "{}: no image {pattern}", divergence.id);
            patterns += 1;
        }
    }
    assert!(patterns >= 10, "{patterns} patterns");
}

/// A difference that went away by accident is noticed.
#[test]
fn each_is_still_different() {
    let lab = Lab::new();
    let mut checked = 0;
    for divergence in DIVERGENCES {
        for pattern in divergence.images {
            if !all_enabled() && concerned(divergence, pattern).next().is_none() {
                eprintln!("skipped: {}: {pattern}: not compiled in", divergence.id);
                continue;
            }
            assert!(
                still_different(divergence, pattern, &lab),
                "{}: {pattern} is as qemu-img has it; the table and docs/quirks.md are to forget it",
                divergence.id
            );
            checked += 1;
        }
    }
    lab.check();
    if all_enabled() {
        assert!(checked >= 10, "{checked} patterns checked");
    }
}

/// The images that a pattern of an entry is about, as far as they are compiled in.
fn concerned<'a>(
    divergence: &'a Divergence,
    pattern: &'a str,
) -> impl Iterator<Item = &'static Entry> + 'a {
    runnable().filter(move |entry| {
        matches(pattern, &entry.id) && divergence.formats.contains(&entry.format.as_str())
    })
}

fn still_different(divergence: &Divergence, pattern: &str, lab: &Lab) -> bool {
    let external: &[&str] = match divergence.kind {
        Kind::ExternalRefused => &["refuse"],
        _ if can_follow() => &["refuse", "follow"],
        _ => &["refuse"],
    };
    for entry in concerned(divergence, pattern) {
        for version in versions() {
            let Ok(recorded) = cases(entry, &version) else {
                continue;
            };
            for case in &recorded {
                for policy in external {
                    let question =
                        Question { entry, version: &version, extra: &case.extra, args: &case.args };
                    let options =
                        [format!("--qemu-version={version}"), format!("--external={policy}")];
                    let Ok(ours) = question.ask(lab, &options) else {
                        continue;
                    };
                    if let Ok(Verdict::OnPurpose(found)) = question.judge(&ours, &case.theirs) {
                        if found.id == divergence.id {
                            return true;
                        }
                    }
                }
            }
        }
    }
    false
}

#[test]
fn those_not_in_baselines_have_a_test_here() {
    let elsewhere: Vec<&str> = DIVERGENCES
        .iter()
        .filter(|divergence| divergence.images.is_empty())
        .map(|divergence| divergence.id)
        .collect();
    assert_eq!(
        elsewhere,
        ["size-units", "broken-parts-skipped", "data-file-folder", "write-errors"]
    );
    let pinned = DIVERGENCES.iter().filter(|d| d.kind == Kind::NotInBaselines);
    assert_eq!(pinned.count(), elsewhere.len());
}

/// Every reason for which an altered image may be refused (`differential.rs`) is documented.
#[test]
fn reasons_are_in_the_table() {
    for reason in REASONS {
        let known = DIVERGENCES.iter().any(|divergence| {
            divergence.id == reason.id
                && reason.formats.iter().all(|format| divergence.formats.contains(format))
        });
        assert!(known, "{}: {}", reason.id, reason.says);
    }
}

/// `broken-parts-skipped`: a line of a descriptor that means nothing is an error, and so is one
/// that lies too far behind.
#[test]
fn broken_parts_skipped() {
    let head = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n";
    let unknown = "createType=\"twoGbMaxExtentSparse\"\nRW 2048 SPARSEX \"a-s001.vmdk\"\n";
    let extent = "RW 8 FLAT \"a-f001.vmdk\" 0\n";
    let comment = format!("#{}\n", "-".repeat(1 << 20));
    let far = format!("createType=\"twoGbMaxExtentFlat\"\n{extent}{comment}{extent}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a-f001.vmdk"), [1; 4096]).unwrap();
    for (text, error, sectors) in [
        (unknown, "a.vmdk: vmdk: extent type \"SPARSEX\" is not known", 0),
        (&far, "a.vmdk: vmdk: the descriptor is longer than 1048576 bytes", 8),
    ] {
        std::fs::write(folder.path().join("a.vmdk"), format!("{head}{text}")).unwrap();
        if cfg!(feature = "vmdk") {
            let ours = common::binary::instar(folder.path(), &["map", "a.vmdk"]);
            ours.assert_fails(error);
        }
        if qemu::installed("broken-parts-skipped").is_some() {
            let arguments = words(&["--output=json", "a.vmdk"]);
            let theirs = qemu::map(folder.path(), &[&arguments]);
            assert_eq!(theirs.status, Some(0), "{}", theirs.stderr);
            let size = 512 * sectors;
            let size = format!("\"length\": {size},");
            assert!(theirs.stdout.contains(&size), "{}", theirs.stdout);
        }
    }
}

/// `broken-parts-skipped`: a parent counts wherever in the descriptor it is named.
#[test]
fn late_parent() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=00000002\n\
         createType=\"monolithicFlat\"\nRW 8 FLAT \"a-f001.vmdk\" 0\n#{}\n\
         parentFileNameHint=\"nope.vmdk\"\n",
        "-".repeat(11 << 10)
    );
    std::fs::write(folder.path().join("a-f001.vmdk"), [1; 4096]).unwrap();
    std::fs::write(folder.path().join("a.vmdk"), text).unwrap();
    if cfg!(feature = "vmdk") {
        let ours = common::binary::instar(folder.path(), &["map", "--external=follow", "a.vmdk"]);
        ours.assert_fails_with(&["cannot open the backing file \"nope.vmdk\""]);
    }
    if qemu::installed("broken-parts-skipped").is_some() {
        let theirs = qemu::map(folder.path(), &[&words(&["--output=json", "a.vmdk"])]);
        assert_eq!(theirs.status, Some(0), "{}", theirs.stderr);
    }
}

/// `data-file-folder`: the data file lies beside the image, wherever the program is started.
#[test]
fn data_file_folder() {
    let entry = find("qcow2-data-file");
    if !entry.runnable() || !can_follow() {
        eprintln!("skipped: data-file-folder: not compiled in");
        return;
    }
    let lab = Lab::new();
    let Ok(folder) = lab.unpack(entry) else {
        return;
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let image = folder.join(&entry.name).display().to_string();
    let ours = common::binary::instar(elsewhere.path(), &["map", "--external=follow", &image]);
    assert_eq!((ours.status, ours.stderr.as_str()), (0, ""));
    assert!(ours.text().contains("raw-qcow2-data.raw"));
    if qemu::installed("data-file-folder").is_some() {
        let theirs = qemu::map(elsewhere.path(), &[&[image]]);
        assert_eq!(theirs.status, Some(1), "{}", theirs.stderr);
    }
}

/// `size-units`: `1KiB` is a size.
#[test]
fn size_units() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.raw"), [1; 4096]).unwrap();
    if cfg!(feature = "raw") {
        let ours = common::binary::instar(folder.path(), &["map", "-l", "1KiB", "a.raw"]);
        assert!(ours.assert_succeeds().contains("0x400 "), "{}", ours.text());
    }
    if qemu::installed("size-units").is_some() {
        let theirs = qemu::map(folder.path(), &[&words(&["-f", "raw", "-l", "1KiB", "a.raw"])]);
        assert_eq!(theirs.status, Some(1), "{}", theirs.stderr);
        let said =
            theirs.stderr.contains("Invalid maximum length") || theirs.stderr.contains("'1KiB'");
        assert!(said, "{}", theirs.stderr);
    }
}

/// `write-errors`: a full disk is not a success.
#[test]
fn write_errors() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("a.raw");
    std::fs::write(&image, [1; 4096]).unwrap();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    if cfg!(feature = "raw") {
        let mut ours = command(folder.path());
        let ours = ours.args(["map", "a.raw"]).stdout(full()).output().unwrap();
        assert_eq!(ours.status.code(), Some(1));
        let text = String::from_utf8_lossy(&ours.stderr).into_owned();
        assert!(text.starts_with("instar: cannot write to standard output: "), "{text}");
        // A standard output that was closed beforehand cannot be told from the null device.
        let mut shell = Command::new("sh");
        shell.current_dir(folder.path()).args(["-c", "exec \"$0\" map a.raw >&-"]);
        let closed = shell.arg(command(folder.path()).get_program()).output().unwrap();
        assert_eq!(closed.status.code(), Some(0), "{}", String::from_utf8_lossy(&closed.stderr));
    }
    if qemu::installed("write-errors").is_some() {
        let mut theirs = Command::new("qemu-img");
        let theirs = theirs.args(["map", "-f", "raw"]).arg(&image).stdout(full());
        let theirs = theirs.output().unwrap();
        assert_eq!(theirs.status.code(), Some(0));
    }
}
