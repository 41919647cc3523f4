//! The same comparison as in `parity.rs`, with the installed qemu-img: on the manifest's images,
//! and on random images that are made on the spot.
//!
//! `INSTAR_RANDOM_CASES` says how many (default 40), `INSTAR_RANDOM_SEED` from which seed, and
//! `INSTAR_RANDOM_CASE` picks one of them.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::binary::{can_follow, instar};
use common::compare::{Question, Verdict, different, same};
use common::enabled;
use common::lab::Lab;
use common::manifest::{Entry, runnable};
use common::oracle::{Failure, Subject};
use common::qemu::{self, words};
use common::random::{Choices, Plan};
use common::recipe::{FORMATS, Recipe};
use common::workers::{in_parallel, report};

#[test]
fn images_of_the_manifest() {
    let Some(version) = qemu::installed("live parity on the manifest's images") else {
        return;
    };
    let lab = Lab::new();
    let entries: Vec<&Entry> = runnable()
        // What no version is asked, because it does not end or eats all file descriptors.
        .filter(|entry| !entry.skipped_in(&version))
        .collect();
    let compared = AtomicUsize::new(0);
    let failures = in_parallel(&entries, |entry| {
        let Ok(folder) = lab.unpack(entry) else {
            return Ok(());
        };
        for variant in entry.variants.iter().filter(|v| entry.runnable_as(v)) {
            for output in [words(&[]), words(&["--output=json"])] {
                let question = Question { entry, version: &version, extra: variant, args: &output };
                let mut options = question.options();
                options[1] = "host".to_owned();
                let ours = question.ask(&lab, &options)?;
                let theirs = qemu::map(&folder, &[variant, &output, &entry.qemu_target()]);
                match question.judge(&ours, &theirs)? {
                    Verdict::Skipped(reason) => eprintln!("skipped: {}: {reason}", entry.id),
                    _ => _ = compared.fetch_add(1, Ordering::Relaxed),
                }
            }
        }
        Ok(())
    });
    lab.check();
    report(&failures, entries.len());
    let compared = compared.into_inner();
    eprintln!("live: {compared} answers compared with qemu-img {version}");
    let formats = common::enabled_formats().len();
    assert!(compared >= 40 * formats, "{compared} answers compared");
}

#[test]
fn random_images() {
    if qemu::installed("random images").is_none() {
        return;
    }
    let formats: Vec<&'static str> = FORMATS.iter().copied().filter(|f| enabled(f)).collect();
    if formats.is_empty() {
        eprintln!("skipped: random images: no format is compiled in");
        return;
    }
    let plan = Plan::from_environment();
    eprintln!("INSTAR_RANDOM_SEED={} ({} cases)", plan.seed, plan.cases);
    let counts: Mutex<BTreeMap<&str, usize>> = Mutex::default();
    let numbers: Vec<usize> = match plan.only {
        Some(case) => vec![case],
        None => (0..plan.cases).collect(),
    };
    let failures = in_parallel(&numbers, |case| {
        let case = *case;
        let mut choose = plan.choices(case);
        let format = formats[case % formats.len()];
        let may_follow = can_follow() && enabled("raw") && enabled("qcow2");
        let recipe = Recipe::random(format, may_follow, &mut choose);
        let folder = tempfile::tempdir().unwrap();
        let windows = windows(&mut choose);
        recipe
            .make(folder.path())
            .and_then(|()| {
                check(folder.path(), &recipe, &windows).or_else(|_| {
                    // What was not on disk yet may have changed its allocation between two looks.
                    flush(folder.path());
                    check(folder.path(), &recipe, &windows)
                })
            })
            .map_err(|what| {
                let seed = plan.seed;
                format!("INSTAR_RANDOM_SEED={seed} INSTAR_RANDOM_CASE={case}\n{recipe}{what}")
            })?;
        *counts.lock().unwrap().entry(format).or_default() += 1;
        Ok(())
    });
    report(&failures, numbers.len());
    let counts = counts.into_inner().unwrap();
    eprintln!("random images that agree: {counts:?}");
    assert_eq!(counts.values().sum::<usize>(), numbers.len());
    if plan.only.is_none() && plan.cases >= formats.len() {
        assert_eq!(counts.len(), formats.len(), "every format had its turn");
    }
}

/// Arguments for the whole image and for some windows.
fn windows(choose: &mut Choices) -> Vec<Vec<String>> {
    let mut windows = vec![Vec::new()];
    for _ in 0..3 {
        let start = choose.between(0, 9 << 20);
        let length = choose.of(&[1, 511, 4096, 65_537, 3 << 20]);
        windows.push(words(&["-s", &start.to_string(), "-l", &length.to_string()]));
    }
    windows
}

fn flush(folder: &Path) {
    for item in std::fs::read_dir(folder).unwrap() {
        File::open(item.unwrap().path()).unwrap().sync_all().unwrap();
    }
}

/// Compares both outputs, whole and in windows, and the content.
fn check(folder: &Path, recipe: &Recipe, windows: &[Vec<String>]) -> Result<(), String> {
    let target = recipe.target();
    let mut options = words(&["map", "--qemu-version=host"]);
    if can_follow() {
        options.push("--external=follow".to_owned());
    }
    // qemu-img has nothing to say about where these keep their blocks.
    if !["vhdx", "dmg"].contains(&recipe.format) {
        for window in windows {
            for output in [words(&[]), words(&["--output=json"])] {
                let args = [options.clone(), output.clone(), window.clone()].concat();
                let ours = instar(folder, &[args, vec![recipe.name.clone()]].concat());
                let theirs = qemu::map(folder, &[&output, window, &target]);
                if !same(&ours, &theirs) {
                    return Err(different(&ours, &theirs));
                }
            }
        }
    }
    options.push(recipe.name.clone());
    let subject = Subject { folder, ours: options, theirs: target, lower_layer_ignored: false };
    match subject.compare() {
        Ok(compared) if compared.rows > 0 || compared.zero + compared.data == 0 => Ok(()),
        Ok(compared) => Err(format!("nothing was compared: {compared:?}")),
        Err(Failure::Unreadable(why) | Failure::Wrong(why)) => Err(why),
    }
}
