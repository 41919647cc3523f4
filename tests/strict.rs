//! What warns fails with `--strict`: every image of testdata, and images altered by chance.
//!
//! `INSTAR_STRICT_CASES` says how many altered images of each format (default 2000),
//! `INSTAR_STRICT_SEED` from which seed.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::{Arc, Mutex};

use instar::core::testkit::{Mutator, Random, seal};
use instar::core::{MemoryStorage, Severity};
use instar::{ErrorKind, ExternalPolicy, Image, Options, Result};

use common::lab::Lab;
use common::manifest::{asked_format, runnable};
use common::seeds::{Seed, seeds};

/// Rows after which a map is given up.
const MOST_ROWS: usize = 20_000;

/// How a map ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    /// Given up, without an error so far.
    Cut,
    Failed(ErrorKind),
}

/// Maps an image, and returns what it warned about too.
fn map(strict: bool, open: &dyn Fn(Options) -> Result<Image>) -> (End, Vec<String>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    let options = Options::new().strict(strict).on_notice(move |notice| {
        if notice.severity == Severity::Warning {
            sink.lock().unwrap().push(notice.text.clone());
        }
    });
    let end = match open(options) {
        Err(error) => End::Failed(error.kind()),
        Ok(mut image) => {
            let mut extents = image.extents();
            match extents.by_ref().take(MOST_ROWS).find_map(Result::err) {
                Some(error) => End::Failed(error.kind()),
                None => match extents.next() {
                    None => End::Whole,
                    Some(_) => End::Cut,
                },
            }
        }
    };
    let warnings = heard.lock().unwrap().clone();
    (end, warnings)
}

/// How many maps there were of each kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    maps: usize,
    /// Of these, such as warn and are not errors.
    warn: usize,
    /// Of these, such as are not errors with `--strict` either.
    pass: usize,
}

impl Counts {
    fn add(&mut self, about: &str, open: &dyn Fn(Options) -> Result<Image>) {
        let (end, warnings) = map(false, open);
        self.maps += 1;
        if warnings.is_empty() || matches!(end, End::Failed(_)) {
            return;
        }
        self.warn += 1;
        let (strict, said) = map(true, open);
        assert_eq!(said, [""; 0], "{about}: warnings are errors");
        match strict {
            End::Failed(kind) => assert_eq!(kind, ErrorKind::Strict, "{about}: {warnings:?}"),
            End::Cut if end == End::Cut => {}
            End::Cut | End::Whole => {
                eprintln!("{about} warns and passes: {warnings:?}");
                self.pass += 1;
            }
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn no_image_of_testdata_warns_and_passes() {
    let lab = Lab::new();
    let mut counts = Counts::default();
    for entry in runnable() {
        let Ok(folder) = lab.unpack(entry) else { continue };
        let path = folder.join(&entry.name);
        for variant in entry.variants.iter().filter(|variant| entry.runnable_as(variant)) {
            for follow in [false, true] {
                let about = format!("{} {variant:?}", entry.id);
                counts.add(&about, &|options| {
                    let policy = match follow {
                        true => ExternalPolicy::Follow { allow_under: Vec::new() },
                        false => ExternalPolicy::Ignore,
                    };
                    let options = options.external(policy);
                    let options = match asked_format(variant) {
                        Some(format) => options.format(format),
                        None => options,
                    };
                    Image::open(&path, options)
                });
            }
        }
    }
    lab.check();
    eprintln!("strict: testdata: {counts:?}");
    assert_eq!(counts.pass, 0, "{counts:?}");
    let formats = common::enabled_formats().len();
    assert!(counts.maps >= 40 * formats, "{counts:?}");
    assert!(!common::all_enabled() || counts.warn >= 50, "{counts:?}");
}

#[test]
fn no_altered_image_warns_and_passes() {
    let cases = number("INSTAR_STRICT_CASES", 2000);
    let seed = number("INSTAR_STRICT_SEED", 1);
    let registry = instar::registry().unwrap();
    let mut warn = 0;
    for entry in registry.entries() {
        let format = entry.format;
        let seeds: Vec<Seed> = seeds(format);
        let mut counts = Counts::default();
        for case in 0..cases {
            let mut random = Random::new(seed << 32 | case);
            let mut image: MemoryStorage = seeds[random.below(seeds.len())].image.clone();
            Mutator::new(random.next()).mutate(&mut image);
            if random.below(8) != 0 {
                seal(format.name(), &mut image);
            }
            let storage = Arc::new(image);
            let about = format!("{} {case} of seed {seed}", format.name());
            counts.add(&about, &|options| {
                let options = options.external(ExternalPolicy::Ignore).format(format.name());
                Image::from_storage(storage.clone(), "image", options)
            });
        }
        eprintln!("strict: {}: {counts:?}", format.name());
        assert_eq!((counts.maps as u64, counts.pass), (cases, 0), "{counts:?}");
        warn += counts.warn;
    }
    assert!(!common::all_enabled() || warn >= 100, "{warn} altered images warn");
}
