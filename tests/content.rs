//! What the map says about the guest's bytes is true of them: the content oracle over every
//! image that qemu-img can read. It needs no agreement about extents, so it holds for VHDX and UDIF
//! too.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use common::binary::can_follow;
use common::lab::Lab;
use common::manifest::{Entry, asked_format, runnable};
use common::oracle::{Compared, Failure, Subject, is_misread};
use common::qemu;

#[derive(Default)]
struct Totals {
    images: AtomicUsize,
    unreadable: AtomicUsize,
    compared: Mutex<Compared>,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let lab = Arc::new(Lab::new());
    let totals = Arc::new(Totals::default());
    let installed = qemu::installed("content").is_some();
    let mut trials = Vec::new();
    for entry in runnable() {
        for variant in entry.variants.iter().filter(|v| entry.runnable_as(v)) {
            let (lab, totals) = (Arc::clone(&lab), Arc::clone(&totals));
            let name = format!("content::{}", entry.label(variant));
            trials.push(Trial::ignorable_test(name, move || match installed {
                true => check(entry, variant, &lab, &totals),
                false => Ok(Completion::ignored_with("qemu-img is not installed")),
            }));
        }
    }
    let filtered = arguments.filter.is_some() || arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    lab.check();
    let compared = *totals.compared.lock().expect("no test panics with it");
    let images = totals.images.load(Ordering::Relaxed);
    eprintln!(
        "content: {images} images agree, {} cannot be read; {} rows, {} bytes of data, {} of zero",
        totals.unreadable.load(Ordering::Relaxed),
        compared.rows,
        compared.data,
        compared.zero
    );
    if installed && !filtered {
        let formats = common::enabled_formats().len();
        assert!(images >= 5 * formats, "{images} images compared");
        assert!(formats == 0 || compared.data > 0, "no data compared");
    }
    drop(lab);
    conclusion.exit_code()
}

fn check(
    entry: &'static Entry,
    variant: &[String],
    lab: &Lab,
    totals: &Totals,
) -> Result<Completion, Failed> {
    if is_misread(&entry.id) {
        return Ok(Completion::ignored_with("qemu-img does not read all of it"));
    }
    let folder = match lab.unpack(entry) {
        Ok(folder) => folder,
        Err(reason) => return Ok(Completion::ignored_with(reason)),
    };
    let mut ours = vec!["map".to_owned(), "--qemu-version=host".to_owned()];
    if can_follow() && !entry.companions.is_empty() {
        ours.push("--external=follow".to_owned());
    }
    ours.extend_from_slice(variant);
    ours.push(entry.name.clone());
    let subject = Subject {
        folder: &folder,
        ours,
        theirs: target(entry, variant),
        lower_layer_ignored: false,
    };
    match subject.compare() {
        Ok(compared) => {
            totals.images.fetch_add(1, Ordering::Relaxed);
            let mut sum = totals.compared.lock().expect("no test panics with it");
            sum.rows += compared.rows;
            sum.data += compared.data;
            sum.zero += compared.zero;
            Ok(Completion::Completed)
        }
        Err(Failure::Unreadable(why)) => {
            let ours = why.starts_with("instar: ") && !why.contains("--external=");
            if ours && entry.safe {
                return Err(format!("a sound image: {why}").into());
            }
            totals.unreadable.fetch_add(1, Ordering::Relaxed);
            Ok(Completion::ignored_with(why.trim()))
        }
        Err(Failure::Wrong(what)) => Err(what.into()),
    }
}

/// How qemu-img is told to read the image as what we take it for.
fn target(entry: &Entry, variant: &[String]) -> Vec<String> {
    let as_ours = match asked_format(variant) {
        Some(asked) => Some(asked),
        // A fixed VHD, a cloop image with other commands and a UDIF image with another name,
        // which qemu-img would take for raw.
        None if entry.format == "vhd" && entry.safe => Some("vpc"),
        None if entry.format == "cloop" && entry.safe => Some("cloop"),
        None if entry.format == "dmg" && entry.safe => Some("dmg"),
        None => None,
    };
    match (as_ours, &entry.qemu_args) {
        (Some(format), None) => qemu::words(&["-f", format, &entry.name]),
        _ => entry.qemu_target(),
    }
}
