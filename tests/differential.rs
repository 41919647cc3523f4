//! Images made and altered by chance, mapped by instar and by the installed qemu-img.
//!
//! Where both print a map, the maps are equal or differ as `docs/quirks.md` says. Where qemu-img
//! fails, instar fails or its map is sound. Where only instar fails, its message gives one of the
//! reasons in `common/reasons.rs`.
//!
//! `INSTAR_DIFFERENTIAL_CASES` says how many (default 600), `INSTAR_DIFFERENTIAL_SEED` from which
//! seed, and `INSTAR_DIFFERENTIAL_BASE` picks one of the images that are altered. An image about
//! which the programs disagree is kept.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;

use instar::core::testkit::Random;
use instar::core::{ImageFormat, Registry};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tempfile::TempDir;

use common::binary::{can_follow, command, statements};
use common::bounded::{Bounded, Ending, run_bounded};
use common::enabled;
use common::lab::Lab;
use common::manifest::{Entry, runnable};
use common::mutants::Original;
use common::qemu::{self, words};
use common::random::{Choices, Plan};
use common::reasons::reason;
use common::recipe::{FORMATS, Recipe};
use common::rows::{check_tiling, human_rows, json_rows};
use common::workers::in_parallel;

/// Times that one image is altered.
const MUTANTS: usize = 50;

/// Images about which the programs disagree that are shown.
const SHOWN: usize = 10;

/// Images of the manifest that are longer are left out.
const LONGEST: u64 = 64 << 20;

/// How the answers of both programs compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Both print the same map.
    Same,
    /// Both print a map, and ours is different on purpose.
    OnPurpose(&'static str),
    /// Both fail.
    BothFail,
    /// qemu-img fails, our map is sound.
    OnlyOursMaps,
    /// Ours fails, for this listed reason.
    OnlyTheirsMaps(&'static str),
    /// qemu-img crashes or does not end.
    TheirsCrashes,
}

/// An image that is altered again and again.
struct Base {
    folder: TempDir,
    name: String,
    format: &'static dyn ImageFormat,
    /// What tells qemu-img which image, in which format, and with which key.
    target: Vec<String>,
    original: Original,
    /// How it was made.
    made: String,
}

struct Campaign {
    registry: Registry,
    /// Our names of formats that qemu-img knows, and its own.
    drivers: BTreeMap<&'static str, String>,
    plan: Plan,
    lab: Lab,
    entries: Vec<&'static Entry>,
    counts: Mutex<BTreeMap<(&'static str, Class), usize>>,
    /// Of each image that is altered, about which mutants the programs disagree.
    failures: Mutex<BTreeMap<usize, Vec<String>>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trial = Trial::ignorable_test("differential::altered_images", || {
        let Some(version) = qemu::installed("differential") else {
            return Ok(Completion::ignored_with("qemu-img is not installed"));
        };
        let campaign = Campaign::new(&version);
        match campaign.drivers.is_empty() {
            true => Ok(Completion::ignored_with("no format that qemu-img knows is compiled in")),
            false => campaign.run().map(|()| Completion::Completed),
        }
    });
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

impl Campaign {
    fn new(version: &str) -> Self {
        let registry = instar::registry().expect("no name is claimed twice");
        let known = qemu_formats();
        let mut drivers = BTreeMap::new();
        for entry in registry.entries() {
            let format = entry.format;
            let names = [&[format.name()], format.aliases()].concat();
            match names.into_iter().find(|name| known.iter().any(|other| other == name)) {
                Some(driver) => _ = drivers.insert(format.name(), driver.to_owned()),
                None => eprintln!("skipped: {}: qemu-img does not know it", format.name()),
            }
        }
        let entries = runnable()
            .filter(|entry| drivers.contains_key(entry.format.as_str()))
            .filter(|entry| entry.size <= LONGEST)
            .filter(|entry| !entry.skipped_in(version))
            .collect();
        let plan = Plan::named("DIFFERENTIAL", "BASE", 600);
        let (counts, failures) = (Mutex::default(), Mutex::default());
        Self { registry, drivers, plan, lab: Lab::new(), entries, counts, failures }
    }

    fn run(&self) -> Result<(), Failed> {
        let bases: Vec<usize> = match self.plan.only {
            Some(base) => vec![base],
            None => (0..self.plan.cases.div_ceil(MUTANTS)).collect(),
        };
        eprintln!(
            "differential: INSTAR_DIFFERENTIAL_SEED={}, {} images, each altered {MUTANTS} times",
            self.plan.seed,
            bases.len()
        );
        let stopped = in_parallel(&bases, |base| self.alter_one(*base));
        assert!(stopped.is_empty(), "{stopped:?}");
        self.lab.check();
        let counts = self.counts.lock().expect("no worker panics with it");
        for ((format, class), count) in &*counts {
            eprintln!("differential: {format:9} {count:6} {class:?}");
        }
        let failures = self.failures.lock().expect("no worker panics with it");
        for of_one in failures.values().take(SHOWN) {
            eprintln!("\n{}and {} more of this image", of_one[0], of_one.len() - 1);
        }
        let unexplained = failures.values().map(Vec::len).sum::<usize>();
        let compared = counts.values().sum::<usize>() + unexplained;
        eprintln!("differential: {compared} compared, {unexplained} unexplained");
        assert_eq!(compared, bases.len() * MUTANTS);
        match unexplained {
            0 => Ok(()),
            count => Err(format!("{count} disagreements, see above").into()),
        }
    }

    /// Makes one image, alters it again and again, and compares.
    fn alter_one(&self, number: usize) -> Result<(), String> {
        let mut choose = self.plan.choices(number);
        let base = self.base(number, &mut choose);
        let mut random = Random::new(choose.between(0, u64::MAX - 1));
        for mutant in 0..MUTANTS {
            base.original.alter(&mut random);
            let is_table = random.below(4) == 0;
            let compared = self.compare(&base, is_table).or_else(|_| {
                // What was not on disk yet may have changed its allocation between two looks.
                base.original.flush();
                self.compare(&base, is_table)
            });
            match compared {
                Ok(class) => {
                    let mut counts = self.counts.lock().expect("no worker panics with it");
                    *counts.entry((base.format.name(), class)).or_default() += 1;
                }
                Err(what) => {
                    let (seed, kept) = (self.plan.seed, base.original.keep());
                    let failure = format!(
                        "{what}\nkept as {}: INSTAR_DIFFERENTIAL_SEED={seed} \
                         INSTAR_DIFFERENTIAL_BASE={number}, mutant {mutant} of\n{}",
                        kept.display(),
                        base.made
                    );
                    let mut failures = self.failures.lock().expect("no worker panics with it");
                    failures.entry(number).or_default().push(failure);
                }
            }
            base.original.restore();
        }
        Ok(())
    }

    /// An image that has metadata and that both programs are done with soon.
    fn base(&self, number: usize, choose: &mut Choices) -> Base {
        for _ in 0..100 {
            // Formats take turns; so do images made on the spot and those of the manifest.
            let names: Vec<&&str> = self.drivers.keys().collect();
            let name: &str = names[number % names.len()];
            // Mostly sound ones: what is refused to start with seldom says anything new.
            let hostile = choose.one_in(4);
            let fits = |entry: &&&Entry| entry.format == name && (entry.safe || hostile);
            let of_format: Vec<_> = self.entries.iter().filter(fits).collect();
            let made = match FORMATS.iter().find(|format| **format == name) {
                Some(format) if choose.one_in(2) || of_format.is_empty() => {
                    self.random_base(format, choose)
                }
                _ => of_format
                    .get(choose.index(of_format.len()))
                    .and_then(|entry| self.manifest_base(entry)),
            };
            let Some(base) = made else { continue };
            let is_quick =
                |run: Bounded| run.ending != Ending::Enough && run.ending != Ending::TimedOut;
            if (base.original.has_metadata() || name == "raw") && is_quick(base.theirs(false)) {
                return base;
            }
        }
        panic!("none of 100 images can be altered");
    }

    fn random_base(&self, format: &'static str, choose: &mut Choices) -> Option<Base> {
        let may_follow = can_follow() && enabled("raw") && enabled("qcow2");
        let recipe = Recipe::random(format, may_follow, choose);
        let folder = tempfile::tempdir().expect("a folder for an image");
        // Some options do not go together.
        recipe.make(folder.path()).ok()?;
        let target = recipe.target();
        Some(self.opened(folder, recipe.name.clone(), format, target, recipe.to_string()))
    }

    fn manifest_base(&self, entry: &'static Entry) -> Option<Base> {
        // A folder of its own: another worker may alter the same image.
        let unpacked = self.lab.unpack(entry).ok()?;
        let folder = tempfile::tempdir().expect("a folder for an image");
        let copied = Command::new("cp")
            .args(["-r", "--sparse=always", "--"])
            .arg(unpacked.join("."))
            .arg(folder.path())
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "{} is copied", entry.id);
        let made = format!("{} of the manifest\n", entry.id);
        let driver = &self.drivers[entry.format.as_str()];
        let target = entry.qemu_args.clone();
        let target = target.unwrap_or_else(|| words(&["-f", driver, &entry.name]));
        Some(self.opened(folder, entry.name.clone(), &entry.format, target, made))
    }

    fn opened(
        &self,
        folder: TempDir,
        name: String,
        format: &str,
        target: Vec<String>,
        made: String,
    ) -> Base {
        let format = self.registry.find(format).expect("a format of the registry");
        let original = Original::new(&folder.path().join(&name), format);
        Base { folder, name, format, target, original, made }
    }

    /// Asks both programs about the image as it is.
    fn compare(&self, base: &Base, is_table: bool) -> Result<Class, String> {
        let (ours, theirs) = (base.ours(is_table), base.theirs(is_table));
        let disagree = |why: &str| Err(base.disagreement(why, &ours, &theirs));
        let maps = ours.succeeded();
        if maps {
            if let Err(what) = sound(&ours, is_table) {
                return disagree(&what);
            }
        } else if !failed_properly(&ours) {
            return disagree("ours did not fail as it should");
        }
        match theirs.ending {
            Ending::Signal(_) | Ending::TimedOut => Ok(Class::TheirsCrashes),
            Ending::Status(0) | Ending::Enough if maps => {
                let length = match (ours.ending, theirs.ending) {
                    (Ending::Status(_), Ending::Status(_)) => {
                        ours.stdout.len().max(theirs.stdout.len())
                    }
                    _ => ours.stdout.len().min(theirs.stdout.len()),
                };
                if ours.stdout.get(..length) == theirs.stdout.get(..length) {
                    return Ok(Class::Same);
                }
                match self.on_purpose(base, &ours, &theirs, is_table) {
                    Some(id) => Ok(Class::OnPurpose(id)),
                    None => disagree("the maps differ"),
                }
            }
            Ending::Status(0) | Ending::Enough => match reason(base.format.name(), &ours.stderr) {
                Some(reason) => Ok(Class::OnlyTheirsMaps(reason.id)),
                None => disagree("ours fails without one of the listed reasons"),
            },
            Ending::Status(_) if maps => Ok(Class::OnlyOursMaps),
            Ending::Status(_) => Ok(Class::BothFail),
        }
    }

    /// The deliberate difference that two maps show.
    fn on_purpose(
        &self,
        base: &Base,
        ours: &Bounded,
        theirs: &Bounded,
        is_table: bool,
    ) -> Option<&'static str> {
        let end = |run: &Bounded| {
            let rows = json_rows(&text(run)).ok()?;
            check_tiling(&rows, 0, None).ok()
        };
        match base.format.name() {
            // The size of the disk is the same at least.
            "vhdx" if is_table || end(ours) == end(theirs) => Some("vhdx-allocation"),
            "dmg" if is_table || end(ours) == end(theirs) => Some("dmg-chunks"),
            "cloop" if end(ours) > Some(2 << 40) => Some("cloop-over-2-tib"),
            // The header's bytes in front of each block.
            "vdi" if base.original.read(0x17c, 4) != [0; 4] => Some("vdi-blocks"),
            "vhd" if base.is_differencing_vhd() => Some("vhd-differencing"),
            "vmdk" if base.is_split_vmdk() => Some("vmdk-split"),
            _ => None,
        }
    }
}

impl Base {
    fn ours(&self, is_table: bool) -> Bounded {
        let mut ours = command(self.folder.path());
        ours.args(["map", "--qemu-version=host", "--format", self.format.name()]);
        if can_follow() {
            ours.arg("--external=follow");
        }
        if !is_table {
            ours.arg("--output=json");
        }
        run_bounded(ours.arg(&self.name))
    }

    fn theirs(&self, is_table: bool) -> Bounded {
        let mut theirs = Command::new("qemu-img");
        theirs.current_dir(self.folder.path()).arg("map");
        if !is_table {
            theirs.arg("--output=json");
        }
        run_bounded(theirs.args(&self.target))
    }

    /// Whether the image is a text descriptor with several extents or one that qemu-img skips, as
    /// it is now.
    fn is_split_vmdk(&self) -> bool {
        let start = self.original.read(0, 64 << 10);
        let text = String::from_utf8_lossy(&start);
        let accesses = ["RW ", "RDONLY ", "NOACCESS "];
        let is_extent = |line: &&str| accesses.iter().any(|access| line.starts_with(access));
        let extents: Vec<&str> = text.lines().filter(is_extent).collect();
        let is_skipped = |line: &&str| !line.starts_with("RW ") || line.contains(" ZERO");
        let is_sparse = ["KDMV", "COWD"].iter().any(|magic| text.starts_with(magic));
        !is_sparse && (extents.len() > 1 || extents.iter().any(is_skipped))
    }

    /// Whether the image is a differencing disk, as it is now.
    fn is_differencing_vhd(&self) -> bool {
        let last = self.original.len().next_multiple_of(512).saturating_sub(512);
        let footers = [0, last].map(|at| self.original.read(at, 512));
        let found = footers.iter().find(|footer| footer.starts_with(b"conectix"));
        found.is_some_and(|footer| footer.get(60..64) == Some(&[0, 0, 0, 4]))
    }

    /// Both answers, for a person.
    fn disagreement(&self, why: &str, ours: &Bounded, theirs: &Bounded) -> String {
        let first = |text: &str| text.lines().take(4).collect::<Vec<_>>().join("\n    ");
        let (mine, other) = (text(ours), text(theirs));
        let lines = mine.lines().zip(other.lines());
        let same = lines.take_while(|(mine, other)| mine == other).count();
        let rest = |text: &str| {
            let shown = text.lines().skip(same).take(3).map(|line| format!("    {line}\n"));
            shown.collect::<String>()
        };
        format!(
            "{}: {why}\n  qemu's: {:?} {}\n  ours:   {:?} {}\n  after {same} lines, qemu's:\n{}  ours:\n{}",
            self.format.name(),
            theirs.ending,
            first(&theirs.stderr),
            ours.ending,
            first(&ours.stderr),
            rest(&other),
            rest(&mine)
        )
    }
}

fn text(run: &Bounded) -> String {
    String::from_utf8_lossy(&run.stdout).into_owned()
}

/// What is printed as a whole map is sound in itself.
fn sound(ours: &Bounded, is_table: bool) -> Result<(), String> {
    if ours.ending == Ending::Enough {
        return Ok(());
    }
    let text = text(ours);
    match is_table {
        true => human_rows(&text).map(|_| ()),
        false => json_rows(&text).and_then(|rows| check_tiling(&rows, 0, None)).map(|_| ()),
    }
}

/// Status 1, and one line that is neither a warning nor a note nor a tip.
fn failed_properly(ours: &Bounded) -> bool {
    let lines: Vec<&str> = ours.stderr.lines().collect();
    let (lines, _) = statements(&lines);
    let is_error = |line: &&&str| !line.contains(": warning: ") && !line.contains(": note: ");
    let errors = lines.iter().filter(is_error).count();
    let named = lines.iter().all(|line| line.starts_with("instar: ") && !line.contains("panicked"));
    ours.ending == Ending::Status(1) && errors == 1 && named
}

/// The formats that qemu-img says it knows.
fn qemu_formats() -> Vec<String> {
    let help = qemu::qemu_img(Path::new("."), &["--help".to_owned()]).text();
    let list = help.rsplit_once("formats:").map(|(_, list)| list).unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}
