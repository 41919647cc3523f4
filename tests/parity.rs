//! What `instar map` prints is what `qemu-img map` printed, byte for byte: one test for each
//! image, output and recorded version, once for the whole image and once for its windows.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use common::baseline::{cases, versions};
use common::compare::{Question, Verdict};
use common::lab::Lab;
use common::manifest::{Entry, runnable};

/// One test: a part of what is recorded about an image.
#[derive(Clone)]
struct Part {
    entry: &'static Entry,
    variant: Vec<String>,
    output: &'static str,
    version: String,
    whole: bool,
}

#[derive(Default)]
struct Counts {
    same: AtomicUsize,
    on_purpose: AtomicUsize,
    handled: AtomicUsize,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let lab = Arc::new(Lab::new());
    let counts = Arc::new(Counts::default());
    let parts = parts();
    let trials: Vec<Trial> = parts
        .into_iter()
        .map(|part| {
            let (lab, counts) = (Arc::clone(&lab), Arc::clone(&counts));
            Trial::ignorable_test(part.name(), move || part.check(&lab, &counts))
        })
        .collect();
    let tested = trials.len();
    let conclusion = libtest_mimic::run(&arguments, trials);
    lab.check();
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    eprintln!(
        "parity: {} answers equal, {} different on purpose, {} hostile images handled",
        count(&counts.same),
        count(&counts.on_purpose),
        count(&counts.handled)
    );
    let formats = common::enabled_formats().len();
    assert!(tested >= formats * 40, "{tested} tests for {formats} formats");
    drop(lab);
    conclusion.exit_code()
}

fn parts() -> Vec<Part> {
    let versions = versions();
    let mut parts = Vec::new();
    for entry in runnable() {
        for variant in &entry.variants {
            if !entry.runnable_as(variant) {
                continue;
            }
            for version in versions.iter().filter(|v| !entry.skipped_in(v)) {
                for output in ["human", "json"] {
                    let part = |whole| Part {
                        entry,
                        variant: variant.clone(),
                        output,
                        version: version.clone(),
                        whole,
                    };
                    parts.push(part(true));
                    if !entry.windows.is_empty() {
                        parts.push(part(false));
                    }
                }
            }
        }
    }
    parts
}

impl Part {
    fn name(&self) -> String {
        let what = if self.whole { "parity" } else { "windows" };
        let label = self.entry.label(&self.variant);
        format!("{what}::{label}::{}::{}", self.output, self.version)
    }

    fn check(&self, lab: &Lab, counts: &Counts) -> Result<Completion, Failed> {
        if let Err(reason) = lab.unpack(self.entry) {
            return Ok(Completion::ignored_with(reason));
        }
        let recorded = cases(self.entry, &self.version)?;
        let mut compared = 0;
        for case in &recorded {
            let mine = case.extra == self.variant
                && case.output() == self.output
                && case.is_whole() == self.whole;
            if !mine {
                continue;
            }
            let question = Question {
                entry: self.entry,
                version: &self.version,
                extra: &case.extra,
                args: &case.args,
            };
            let ours = question.ask(lab, &question.options())?;
            let counter = match question.judge(&ours, &case.theirs)? {
                Verdict::Same => &counts.same,
                Verdict::OnPurpose(_) => &counts.on_purpose,
                Verdict::Handled => &counts.handled,
                Verdict::Skipped(reason) => return Ok(Completion::ignored_with(reason)),
            };
            counter.fetch_add(1, Ordering::Relaxed);
            compared += 1;
        }
        let expected = if self.whole { 1 } else { self.entry.windows.len() };
        match compared == expected {
            true => Ok(Completion::Completed),
            false => Err(format!("{compared} cases compared, not {expected}").into()),
        }
    }
}
