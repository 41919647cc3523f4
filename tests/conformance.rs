//! Laws that hold for every registered format, checked on the manifest's images.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use instar::core::{
    Confidence, Entry as Registered, ExtentSource, FileStorage, Image, ImageFormat, Location,
    Result, Storage, detect, open_layer, testkit,
};
use pretty_assertions::{assert_eq, assert_ne};

use common::binary::instar;
use common::lab::Lab;
use common::manifest::{Entry, asked_format, runnable};

/// Images up to this size are truncated and mutated.
const MUTATED: u64 = 8 << 20;

fn formats() -> Vec<Registered> {
    let registry = instar::registry().expect("no name is claimed twice");
    registry.entries().to_vec()
}

/// The sound images of one format: those that are in it without being told so.
fn samples(format: &str) -> Vec<&'static Entry> {
    runnable()
        .filter(|entry| entry.safe && entry.format == format)
        .filter(|entry| entry.variants.iter().any(|v| asked_format(v) != Some("raw")))
        .collect()
}

fn storage(lab: &Lab, entry: &Entry) -> Option<Arc<dyn Storage>> {
    let folder = lab.unpack(entry).ok()?;
    let file = FileStorage::open(&folder.join(&entry.name)).expect("the image opens");
    Some(Arc::new(file))
}

fn open(format: &dyn ImageFormat, storage: &Arc<dyn Storage>) -> Result<Box<dyn ExtentSource>> {
    let location = Location::new(Path::new("image"));
    let context = testkit::context();
    let image = Image { storage: Arc::clone(storage), location: &location, context: &context };
    open_layer(format, image)
}

#[test]
fn the_formats_are_those_of_the_features() {
    let names: Vec<&str> = formats().iter().map(|entry| entry.format.name()).collect();
    assert_eq!(names, common::enabled_formats());
}

/// What the formats bring along themselves, in whatever package they are.
#[test]
fn registered_samples_obey_the_laws() {
    let checked = testkit::check_registry(&instar::registry().unwrap());
    eprintln!("{checked:?}");
    assert_eq!(Vec::from_iter(checked.keys().copied()), common::enabled_formats());
    for (name, checked) in checked {
        assert!(checked.samples > 0 && checked.damaged >= 1000, "{name}: {checked:?}");
        assert!(checked.faults > 0, "{name}: {checked:?}");
        assert!(checked.cut >= 600, "{name}: {checked:?}");
    }
}

#[test]
fn sources_obey_the_laws() {
    let lab = Lab::new();
    let mut checked: BTreeMap<&str, usize> = BTreeMap::new();
    let mut past_end = 0;
    for registered in formats() {
        let name = registered.format.name();
        for entry in samples(name) {
            let Some(storage) = storage(&lab, entry) else {
                continue;
            };
            // Data behind the end of its file breaks the last law; that is said with a warning.
            let folder = lab.unpack(entry).unwrap();
            let options = ["map", "--format", name, "--external=ignore", "--output=json"];
            let run = instar(&folder, &[options.as_slice(), &[&entry.name]].concat());
            if run.stderr.contains("data past the end of ") {
                past_end += 1;
                continue;
            }
            eprintln!("{}", entry.id);
            testkit::check_source(|| open(registered.format, &storage));
            *checked.entry(name).or_default() += 1;
        }
    }
    lab.check();
    eprintln!("sources that obey the laws: {checked:?}; {past_end} with data past the end");
    for name in common::enabled_formats() {
        let count = checked.get(name).copied().unwrap_or(0);
        assert!(count >= 10, "{count} images of {name} checked");
    }
    assert!(past_end <= 10, "{past_end} images with data past the end");
}

#[test]
fn damaged_images_are_maps_or_errors() {
    let lab = Lab::new();
    let mut tried: BTreeMap<&str, usize> = BTreeMap::new();
    for registered in formats() {
        let name = registered.format.name();
        for entry in samples(name).iter().filter(|entry| entry.size <= MUTATED) {
            let Ok(folder) = lab.unpack(entry) else {
                continue;
            };
            let bytes = std::fs::read(folder.join(&entry.name)).unwrap();
            eprintln!("{}", entry.id);
            // Large images cost more: fewer mutations.
            let mutations = if bytes.len() > 1 << 20 { 60 } else { 300 };
            *tried.entry(name).or_default() +=
                testkit::check_hostile(registered.format, &bytes, mutations);
        }
    }
    lab.check();
    eprintln!("damaged images tried: {tried:?}");
    for name in common::enabled_formats() {
        let count = tried.get(name).copied().unwrap_or(0);
        assert!(count >= 1000, "{count} damaged images of {name}");
    }
}

/// Each image is claimed by its own format, and by no other with the same right.
#[test]
fn probe_matrix() {
    let lab = Lab::new();
    let registry = instar::registry().unwrap();
    let mut probed = 0;
    for name in common::enabled_formats() {
        for entry in samples(name) {
            // Asked for with -f only: its mark was not there to be found.
            if !entry.variants.iter().any(|v| asked_format(v).is_none()) {
                continue;
            }
            let Some(storage) = storage(&lab, entry) else {
                continue;
            };
            let detection = detect(&registry, storage.as_ref()).unwrap();
            assert_eq!(detection.answers.len(), common::enabled_formats().len());
            let winner = detection.winner().map(|format| format.name());
            assert_eq!(winner.ok(), Some(name), "{}", entry.id);
            for (other, confidence) in &detection.answers {
                let other = other.format.name();
                // Raw takes any file that is not known to be something else.
                let most = match other {
                    _ if other == name => continue,
                    "raw" => Confidence::Fallback,
                    // The disk of a fixed VHD may be a volume.
                    "luks" if name == "vhd" => Confidence::Magic,
                    _ => Confidence::No,
                };
                assert!(*confidence <= most, "{} as {other}: {confidence:?}", entry.id);
            }
            probed += 1;
        }
    }
    lab.check();
    let formats = common::enabled_formats().len();
    assert!(probed >= 10 * formats, "{probed} images probed");
}

/// Of how many bytes a file is known to be in a format: its magic, and what else nothing but the
/// format has. A zero at the end of a magic need not be there. What has its mark at the end of the
/// file is not known without.
const KNOWN_FROM: [(&str, u64); 11] = [
    ("bochs", 22),
    ("cloop", 23),
    ("luks", 6),
    ("parallels", 16),
    ("qcow", 8),
    ("qcow2", 4),
    ("qed", 3),
    ("vdi", 68),
    ("vhd", 8),
    ("vhdx", 8),
    ("vmdk", 4),
];

/// An image that is cut short is never taken for raw, nor for anything else, as long as its magic is
/// there.
#[test]
fn what_is_cut_short_stays_in_its_format() {
    let registry = instar::registry().unwrap();
    for (name, least) in KNOWN_FROM {
        if !common::enabled_formats().contains(&name) {
            eprintln!("skipped: {name} is not compiled in");
            continue;
        }
        let sample = testkit::registered_samples(name).remove(0);
        let winner = |length: u64| {
            let mut cut = sample.image().clone();
            cut.set_len(length);
            let detection = detect(&registry, &cut).unwrap();
            detection.winner().map(|format| format.name()).unwrap_or("none")
        };
        assert_ne!(winner(least - 1), name, "{name} cut to {} bytes", least - 1);
        for length in (least..600).chain([4096, 5000]) {
            assert_eq!(
                winner(length),
                name,
                "{sample:?} cut to {length} bytes",
                sample = sample.name()
            );
        }
    }
}

/// An image of one format is an error in every other, but for raw.
#[test]
fn wrong_format_matrix() {
    let lab = Lab::new();
    let mut refused = 0;
    for registered in formats() {
        let format = registered.format;
        if format.name() == "raw" {
            continue;
        }
        for other in common::enabled_formats() {
            if other == format.name() {
                continue;
            }
            for entry in samples(other) {
                let Some(storage) = storage(&lab, entry) else {
                    continue;
                };
                let opened = open(format, &storage);
                assert!(opened.is_err(), "{} as {}", entry.id, format.name());
                refused += 1;
            }
        }
    }
    lab.check();
    let formats = common::enabled_formats();
    let others = formats.len().saturating_sub(1);
    let picky = formats.len() - usize::from(formats.contains(&"raw"));
    assert!(refused >= 10 * picky * others, "{refused} refused");
}
