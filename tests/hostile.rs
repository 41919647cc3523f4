//! Images altered by chance, in memory, in every registered format: no panic, rows that tile the
//! disk, bounded reading, the same answer for batches of any size.
//!
//! `INSTAR_HOSTILE_CASES` says how many (default 400,000), `INSTAR_HOSTILE_SEED` from which seed.
//! An image that breaks a law is kept in a file, and `INSTAR_HOSTILE_IMAGE` looks at such a file
//! once more, as `INSTAR_HOSTILE_TARGET`. `INSTAR_HOSTILE_SEEDS` writes what is altered to a folder, for `fuzz/run`.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use instar::core::testkit::{self, Budget, Mutator, Outcome, Random};
use instar::core::{MemoryStorage, Registry, detect};
use libtest_mimic::{Arguments, Failed, Trial};

use common::seeds::{Seed, seeds};

/// Trials that share the cases of a format, so that processors share them.
const PARTS: u64 = 4;

/// One in so many is also asked about in batches of other sizes and from other places.
const THOROUGH: u64 = 8;

/// What is done with the altered images.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// Opened in this format.
    Format(&'static str),
    /// Opened in the format that is detected.
    Any,
    /// Composed as layers, each in the format that is detected.
    Chain,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Format(name) => name,
            Self::Any => "any",
            Self::Chain => "chain",
        }
    }
}

/// How the images of a target fared.
#[derive(Default)]
struct Counts {
    outcomes: BTreeMap<Outcome, usize>,
    slowest: Duration,
}

struct Campaign {
    registry: Registry,
    /// The seeds of each format, in the registry's order.
    seeds: Vec<(&'static str, Vec<Seed>)>,
    seed: u64,
    counts: Mutex<BTreeMap<Target, Counts>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let campaign = Arc::new(Campaign::new());
    if let Some(folder) = std::env::var_os("INSTAR_HOSTILE_SEEDS") {
        campaign.write_seeds(Path::new(&folder));
        return ExitCode::SUCCESS;
    }
    if let Some(file) = std::env::var_os("INSTAR_HOSTILE_IMAGE") {
        campaign.look_at(Path::new(&file));
        return ExitCode::SUCCESS;
    }
    let cases = number("INSTAR_HOSTILE_CASES").unwrap_or(400_000);
    let mut targets: Vec<Target> =
        campaign.seeds.iter().map(|(format, _)| Target::Format(format)).collect();
    if !targets.is_empty() {
        targets.extend([Target::Any, Target::Chain]);
    }
    let each = cases.div_ceil((targets.len() as u64 * PARTS).max(1));
    let mut trials = Vec::new();
    for part in 0..PARTS {
        for target in targets.clone() {
            let campaign = Arc::clone(&campaign);
            let name = format!("hostile::{}::{part}", target.name());
            let first = part * each;
            trials.push(Trial::test(name, move || campaign.run(target, first..first + each)));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let counts = campaign.counts.lock().expect("no trial panics with it");
    let mut altered = 0;
    for (target, Counts { outcomes, slowest }) in &*counts {
        let tried: usize = outcomes.values().sum();
        altered += tried;
        eprintln!("hostile: {:8} {tried} images: {outcomes:?}, slowest {slowest:?}", target.name());
    }
    eprintln!("hostile: {altered} images from INSTAR_HOSTILE_SEED={}", campaign.seed);
    let is_whole = arguments.filter.is_none() && !arguments.list && !conclusion.has_failed();
    assert!(!is_whole || targets.is_empty() || altered as u64 >= cases, "{altered} images");
    conclusion.exit_code()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

impl Campaign {
    fn new() -> Self {
        let registry = instar::registry().expect("no name is claimed twice");
        let seeds: Vec<(&'static str, Vec<Seed>)> = registry
            .entries()
            .iter()
            .map(|entry| (entry.format.name(), seeds(entry.format)))
            .collect();
        for (format, seeds) in &seeds {
            let sound = seeds.iter().filter(|seed| seed.safe).count();
            assert!(sound >= 3, "{sound} sound images of {format} in testdata");
        }
        let seed = number("INSTAR_HOSTILE_SEED").unwrap_or(1);
        Self { registry, seeds, seed, counts: Mutex::default() }
    }

    /// Alters and checks the images of these numbers.
    fn run(&self, target: Target, cases: Range<u64>) -> Result<(), Failed> {
        let mut counts = Counts::default();
        for case in cases {
            let images = self.images(target, case);
            let began = Instant::now();
            let checked = catch_unwind(AssertUnwindSafe(|| {
                self.check(target, &images, case % THOROUGH == 0)
            }));
            let outcome = checked.map_err(|_| {
                let file = keep(&images);
                let (seed, target) = (self.seed, target.name());
                format!(
                    "INSTAR_HOSTILE_SEED={seed}, image {case} of {target}, broke the law that is \
                     printed above; again with INSTAR_HOSTILE_TARGET={target} \
                     INSTAR_HOSTILE_IMAGE={}",
                    file.display()
                )
            })?;
            *counts.outcomes.entry(outcome).or_default() += 1;
            counts.slowest = counts.slowest.max(began.elapsed());
        }
        let mut all = self.counts.lock().expect("no trial panics with it");
        let sum = all.entry(target).or_default();
        for (outcome, count) in counts.outcomes {
            *sum.outcomes.entry(outcome).or_default() += count;
        }
        sum.slowest = sum.slowest.max(counts.slowest);
        Ok(())
    }

    /// The altered images of a case, top first.
    fn images(&self, target: Target, case: u64) -> Vec<MemoryStorage> {
        let salt: u64 = target.name().bytes().map(u64::from).sum();
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(salt).wrapping_add(case << 16);
        let mut random = Random::new(seed);
        let count = match target {
            Target::Chain => 2 + random.below(3),
            Target::Format(_) | Target::Any => 1,
        };
        let mut image = |index: usize| {
            let (format, seeds) = match target {
                Target::Format(name) if name != "raw" => {
                    self.seeds.iter().find(|(format, _)| *format == name).expect("a target")
                }
                // Raw takes, or refuses to take, whatever there is.
                _ => &self.seeds[random.below(self.seeds.len())],
            };
            // The layers of a chain are rather to be sound, so that all of them are reached.
            let fits = |seed: &&Seed| target != Target::Chain || seed.safe;
            let fitting: Vec<&Seed> = seeds.iter().filter(fits).collect();
            let mut image = fitting[random.below(fitting.len())].image.clone();
            if index == 0 || random.below(2) == 0 {
                Mutator::new(random.next()).mutate(&mut image);
                if random.below(8) != 0 {
                    testkit::seal(format, &mut image);
                }
            }
            image
        };
        (0..count).map(&mut image).collect()
    }

    fn check(&self, target: Target, images: &[MemoryStorage], is_thorough: bool) -> Outcome {
        let budget = Budget::default();
        match target {
            Target::Format(name) => {
                let format = self.registry.find(name).expect("a format of the registry");
                testkit::check_image(format, &images[0], budget, is_thorough)
            }
            Target::Any | Target::Chain => testkit::check_chain(images, budget, |storage| {
                detect(&self.registry, storage)?.winner()
            }),
        }
    }

    /// Checks an image that was kept, here or by a fuzz target.
    fn look_at(&self, file: &Path) {
        let bytes = fs::read(file).expect("the kept image");
        let name = std::env::var("INSTAR_HOSTILE_TARGET").unwrap_or_else(|_| "any".into());
        let target = match name.as_str() {
            "any" => Target::Any,
            "chain" => Target::Chain,
            name => Target::Format(self.registry.find(name).expect("a format").name()),
        };
        let parts = match target {
            Target::Chain => testkit::split(&bytes),
            Target::Format(_) | Target::Any => vec![bytes.as_slice()],
        };
        let image = |part| {
            let (mut image, is_sealed) = testkit::decode(part);
            let found = detect(&self.registry, &image).and_then(|found| found.winner());
            let format = match target {
                Target::Format(name) => Some(name),
                Target::Any | Target::Chain => found.ok().map(|format| format.name()),
            };
            if let (true, Some(format)) = (is_sealed, format) {
                testkit::seal(format, &mut image);
            }
            image
        };
        let images: Vec<_> = parts.into_iter().map(image).collect();
        eprintln!("hostile: {:?}", self.check(target, &images, true));
    }

    /// Writes the seeds for the fuzz targets: a folder for each.
    fn write_seeds(&self, folder: &Path) {
        let mut written = 0;
        let mut write = |target: &str, id: &str, bytes: &[u8]| {
            let folder = folder.join(target);
            fs::create_dir_all(&folder).expect("a folder for seeds");
            fs::write(folder.join(id), bytes).expect("room for a seed");
            written += 1;
        };
        let mut all: Vec<&Seed> = self.seeds.iter().flat_map(|(_, seeds)| seeds).collect();
        for (format, seeds) in &self.seeds {
            for Seed { id, image, .. } in seeds {
                write(format, id, &testkit::encode(image, true));
                write("map_any", id, &testkit::encode(image, true));
                // A text descriptor, but for its first line.
                let first = image.pieces().next().map_or(&[][..], |(_, piece)| piece);
                if let Some(text) = first.strip_prefix(b"# Disk DescriptorFile\n") {
                    write("descriptor", id, text);
                }
            }
        }
        let mut random = Random::new(self.seed);
        all.retain(|seed| seed.safe);
        for number in 0..200 {
            let layers: Vec<_> = (0..2 + random.below(3))
                .map(|_| testkit::encode(&all[random.below(all.len())].image, true))
                .collect();
            write("chain", &format!("layers-{number}"), &testkit::join(&layers));
        }
        for text in ["0", "512", "0x200", "64k", "1.5M", "007.5k", ".5e", "9223372036854775807"] {
            write("cli_sizes", text, text.as_bytes());
        }
        eprintln!("hostile: {written} seeds in {}", folder.display());
    }
}

/// Keeps images that broke a law, in the form that the fuzz targets read.
fn keep(images: &[MemoryStorage]) -> PathBuf {
    let parts: Vec<_> = images.iter().map(|image| testkit::encode(image, false)).collect();
    let file = tempfile::Builder::new().prefix("instar-hostile-").tempfile().expect("a file");
    let (_, path) = file.keep().expect("a file that stays");
    let bytes = match parts.as_slice() {
        [only] => only.clone(),
        parts => testkit::join(parts),
    };
    fs::write(&path, bytes).expect("room for the image");
    path
}
