//! Every law is broken once, and that is noticed.

use std::panic::catch_unwind;
use std::sync::Arc;

use pretty_assertions::assert_eq;

use super::{Checked, Sample, check_format, check_registry};
use crate::{
    Backing, Batch, Confidence, Error, ErrorKind, ExtentSource, Flow, Image, ImageFile,
    ImageFormat, Place, Probe, Reference, Registration, Registry, Result, Role, Status, Storage,
    read_padded,
};

/// A mistake that the author of a format can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    NameInUpperCase,
    NamedAuto,
    EndingWithDot,
    SaysNothing,
    ClaimsZeros,
    OpensZeros,
    CallsZerosCorrupt,
    ClaimsNothing,
    OpensFiles,
    NamelessBacking,
    DependsOnUnit,
    IgnoresFaults,
    TakesOneRead,
    CountsForItself,
    PanicsOnDamage,
    StandsStill,
    BlamesPadding,
    BlamesThePastEnd,
}

/// Four bytes of magic, then a byte for each sector of the disk: 0 absent, 1 data behind them.
struct Toy(Mistake);

const MAGIC: &[u8] = b"TOY!";
const SECTORS: u64 = 8;
const LENGTH: usize = 8192;

struct ToySource {
    mistake: Mistake,
    storage: Arc<dyn Storage>,
    files: [ImageFile; 1],
    backing: Option<Backing>,
    counter: u64,
}

impl ImageFormat for Toy {
    fn name(&self) -> &'static str {
        match self.0 {
            Mistake::NameInUpperCase => "Toy",
            Mistake::NamedAuto => "auto",
            _ => "toy",
        }
    }

    fn about(&self) -> &'static str {
        if self.0 == Mistake::SaysNothing { " " } else { "for tests" }
    }

    fn extensions(&self) -> &'static [&'static str] {
        if self.0 == Mistake::EndingWithDot { &[".toy"] } else { &["toy"] }
    }

    fn probe(&self, probe: &Probe<'_>) -> Confidence {
        match self.0 {
            Mistake::ClaimsNothing => Confidence::No,
            Mistake::ClaimsZeros => Confidence::Hint,
            _ if probe.head().starts_with(MAGIC) => Confidence::Magic,
            _ => Confidence::No,
        }
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        let mut magic = [0; 4];
        let outcome = read_padded(image.storage.as_ref(), 0, &mut magic);
        outcome.map_err(|error| Error::io("cannot read the magic", error))?;
        if magic != MAGIC && self.0 != Mistake::OpensZeros {
            let wrong = self.0 == Mistake::CallsZerosCorrupt;
            let kind = if wrong { ErrorKind::Corrupt } else { ErrorKind::WrongFormat };
            return Err(Error::new(kind, "no magic"));
        }
        if self.0 == Mistake::OpensFiles {
            let reference = Reference { role: Role::Extent, name: "other".into() };
            image.members(&[reference]).map_err(|_| Error::new(ErrorKind::Corrupt, "no data"))?;
        }
        if matches!(self.0, Mistake::BlamesPadding | Mistake::BlamesThePastEnd) {
            let mut last = [0];
            let outcome = read_padded(image.storage.as_ref(), 11, &mut last);
            outcome.map_err(|error| Error::io("cannot read the table", error))?;
            let error = match self.0 {
                Mistake::BlamesPadding => {
                    Error::new(ErrorKind::Corrupt, format!("the last kind is {last:?}"))
                }
                _ => Error::new(ErrorKind::Corrupt, "the last sector is absent").at(11),
            };
            if last != [1] {
                return Err(error);
            }
        }
        let nameless = Backing {
            role: Role::Backing,
            names: vec!["".into()],
            format: None,
            identifiers: Vec::new(),
        };
        Ok(Box::new(ToySource {
            mistake: self.0,
            storage: Arc::clone(&image.storage),
            files: [image.file()],
            backing: (self.0 == Mistake::NamelessBacking).then_some(nameless),
            counter: 0,
        }))
    }
}

impl ExtentSource for ToySource {
    fn virtual_size(&self) -> u64 {
        SECTORS * 512
    }

    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    fn extents(&mut self, out: &mut Batch) -> Result<()> {
        if self.mistake == Mistake::CountsForItself {
            self.counter += 1;
        }
        while out.cursor() < out.end() {
            let inside = out.cursor() % 512;
            let sector = out.cursor() / 512 + self.counter;
            let mut kind = [0];
            if self.mistake == Mistake::TakesOneRead {
                let mut table = [0; 8];
                let outcome = self.storage.read_at(4, &mut table);
                outcome.map_err(|error| Error::io("cannot read the table", error))?;
                kind = [table[usize::try_from(sector).expect("a few sectors")]];
            } else {
                match read_padded(self.storage.as_ref(), 4 + sector, &mut kind) {
                    Err(error) if self.mistake != Mistake::IgnoresFaults => {
                        return Err(Error::io("cannot read the table", error));
                    }
                    _ => {}
                }
            }
            let place = Place::at(1024 + sector * 512 + inside);
            let status = match kind[0] {
                0 if self.mistake == Mistake::DependsOnUnit && self.storage.read_unit() > 512 => {
                    Status::Zero
                }
                0 => Status::Absent,
                1 => Status::Data(place),
                _ if self.mistake == Mistake::PanicsOnDamage => panic!("an impossible kind"),
                _ if self.mistake == Mistake::StandsStill => return Ok(()),
                _ => return Err(Error::new(ErrorKind::Corrupt, "no such kind")),
            };
            if out.push(512 - inside, status) == Flow::Stop {
                break;
            }
        }
        Ok(())
    }
}

fn image() -> Vec<u8> {
    let mut bytes = [MAGIC, &[1, 0, 1, 1, 0, 0, 0, 1]].concat();
    bytes.resize(LENGTH, 0);
    bytes
}

fn samples() -> Vec<Sample> {
    vec![Sample::new("mixed", image(), 5)]
}

/// What is said of the mistake.
fn complaint(check: impl Fn() + std::panic::UnwindSafe) -> String {
    let panic = catch_unwind(check).expect_err("the mistake is noticed");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).expect("a text")
}

#[test]
fn a_format_without_mistakes_obeys_every_law() {
    let checked = check_format(&Toy(Mistake::None), &samples());
    // Once for the magic, once for each sector; an odd answer may be empty or too long. The five
    // extents come in five, two or one batches.
    let (damaged, cut, faults) = (1070, 604, 9);
    let expected = Checked { samples: 1, cut, damaged, faults, oddities: 18, errors: 8 };
    assert_eq!(checked, expected);
}

#[test]
fn every_mistake_is_noticed() {
    for (mistake, text) in [
        (Mistake::NameInUpperCase, "a name is up to 16 lower-case letters"),
        (Mistake::NamedAuto, "is not auto"),
        (Mistake::EndingWithDot, "an ending is lower case and has no dot"),
        (Mistake::SaysNothing, "toy says what it covers"),
        (Mistake::ClaimsZeros, "0 zeros are in no format"),
        (Mistake::OpensZeros, "zeros are not opened"),
        (Mistake::CallsZerosCorrupt, "4096 zeros are the wrong format: Corrupt"),
        (Mistake::ClaimsNothing, "sample \"mixed\" is claimed"),
        (Mistake::OpensFiles, "with other files refused: toy: no data"),
        (Mistake::NamelessBacking, "has no empty name"),
        (Mistake::DependsOnUnit, "read in units of 4096 has the same map"),
        (Mistake::IgnoresFaults, "call 1 of the storage fails"),
        (Mistake::TakesOneRead, "ShortReads: the same map"),
        (Mistake::CountsForItself, "batches of 1 agree"),
        (Mistake::PanicsOnDamage, "an impossible kind"),
        (Mistake::StandsStill, "made no progress"),
        (Mistake::BlamesPadding, "does not depend on zeros past the end"),
        (Mistake::BlamesThePastEnd, "is about what is not in the file"),
    ] {
        let said = complaint(move || {
            check_format(&Toy(mistake), &samples());
        });
        assert!(said.contains(text), "{mistake:?}: {said:?} is to say {text:?}");
    }
}

#[test]
fn samples_without_sense_are_noticed() {
    let twice = || [samples(), samples()].concat();
    let wrong_count = || vec![Sample::new("mixed", image(), 4)];
    let hidden = || vec![samples().remove(0).not_detected()];
    type Samples = fn() -> Vec<Sample>;
    let cases: [(Samples, &str); 4] = [
        (Vec::new, "toy has samples"),
        (twice, "every sample has a name of its own"),
        (wrong_count, "as many extents as it says"),
        (hidden, "is claimed if it is to be"),
    ];
    for (samples, text) in cases {
        let said = complaint(move || {
            check_format(&Toy(Mistake::None), &samples());
        });
        assert!(said.contains(text), "{said:?} is to say {text:?}");
    }
}

static TOY: Toy = Toy(Mistake::None);
crate::register_samples!(TOY, samples);

/// The same image in two formats.
struct Twin;

impl ImageFormat for Twin {
    fn name(&self) -> &'static str {
        "twin"
    }

    fn about(&self) -> &'static str {
        "opens what Toy opens"
    }

    fn probe(&self, _: &Probe<'_>) -> Confidence {
        Confidence::No
    }

    fn open(&self, image: Image<'_>) -> Result<Box<dyn ExtentSource>> {
        TOY.open(image)
    }
}

#[test]
fn the_formats_of_a_program_are_checked_against_each_other() {
    let toy = Registration { format: &TOY, package: "toys", version: "1.0.0" };
    let twin = Registration { format: &Twin, package: "twins", version: "1.0.0" };
    let registry = |list: &[&Registration]| {
        // What is only borrowed here is not kept.
        Registry::new(list.iter().copied()).expect("no name is claimed twice")
    };
    let checked = check_registry(&registry(&[&toy]));
    assert_eq!(checked.keys().copied().collect::<Vec<_>>(), ["toy"]);
    assert_eq!(checked["toy"].samples, 1);

    let panics = |list: &[&Registration]| {
        let registry = std::panic::AssertUnwindSafe(registry(list));
        complaint(move || {
            check_registry(&registry);
        })
    };
    let said = panics(&[&toy, &twin]);
    assert!(said.contains("is opened by twin too"), "{said}");
    let said = panics(&[&twin]);
    assert!(said.contains("has samples of toy, which is not registered"), "{said}");
}
