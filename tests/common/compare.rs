//! Our answer against qemu-img's: equal, or different on purpose.

use super::baseline::{Theirs, output_of};
use super::binary::{Run, can_follow, instar, instar_confined};
use super::divergences::{DIVERGENCES, Divergence};
use super::manifest::Entry;
use super::rows::{check_tiling, json_rows, window_of};
use super::{enabled, lab::Lab};

/// A question that both programs were asked.
pub(crate) struct Question<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) version: &'a str,
    pub(crate) extra: &'a [String],
    pub(crate) args: &'a [String],
}

/// How the answers compare.
pub(crate) enum Verdict {
    /// Same bytes and exit status.
    Same,
    /// Different, on purpose.
    OnPurpose(&'static Divergence),
    /// Both refused a hostile image, or we mapped soundly what qemu refused.
    Handled,
    /// Nothing to compare in this build.
    Skipped(&'static str),
}

impl Question<'_> {
    /// Our options besides the baseline's: images that name other files are followed where we
    /// can.
    pub(crate) fn options(&self) -> Vec<String> {
        let mut options = vec!["--qemu-version".to_owned(), self.version.to_owned()];
        if !self.entry.companions.is_empty() && can_follow() {
            options.push("--external=follow".to_owned());
        }
        options
    }

    /// Asks our program.
    pub(crate) fn ask(&self, lab: &Lab, options: &[String]) -> Result<Run, String> {
        let folder = lab.unpack(self.entry)?;
        let mut args = vec!["map".to_owned()];
        args.extend_from_slice(options);
        args.extend_from_slice(self.extra);
        args.extend_from_slice(self.args);
        args.push(self.entry.name.clone());
        Ok(match self.entry.safe {
            true => instar(&folder, &args),
            false => instar_confined(&folder, &args),
        })
    }

    /// Compares our answer with theirs.
    ///
    /// # Errors
    /// How they differ, if not on purpose.
    pub(crate) fn judge(&self, ours: &Run, theirs: &Theirs) -> Result<Verdict, String> {
        if same(ours, theirs) {
            return Ok(Verdict::Same);
        }
        if !enabled("raw") && ours.stderr.contains("not in any of the formats compiled in") {
            return Ok(Verdict::Skipped("needs the format raw"));
        }
        let covering: Vec<&Divergence> =
            DIVERGENCES.iter().filter(|divergence| divergence.covers(self, ours, theirs)).collect();
        match covering.as_slice() {
            [one] => {
                if ours.status == 0 {
                    self.sound(ours)?;
                } else {
                    ours.failed_properly()?;
                }
                Ok(Verdict::OnPurpose(one))
            }
            [] if !self.entry.safe && theirs.status != Some(0) => {
                self.handled(ours).map(|()| Verdict::Handled)
            }
            [] => Err(different(ours, theirs)),
            several => {
                let ids: Vec<_> = several.iter().map(|d| d.id).collect();
                Err(format!("one difference, several entries: {ids:?}"))
            }
        }
    }

    /// A hostile image that qemu refuses: we refuse too, or print a sound map.
    fn handled(&self, ours: &Run) -> Result<(), String> {
        if ours.status == 0 {
            return self.sound(ours);
        }
        ours.failed_properly()?;
        match output_of(self.args) == "json" && ours.text().ends_with("]\n") {
            true => Err(format!("{}\nfailed after a complete map", ours.command)),
            false => Ok(()),
        }
    }

    /// What we print with status 0 is sound in itself.
    fn sound(&self, ours: &Run) -> Result<(), String> {
        if output_of(self.args) == "human" {
            return super::rows::human_rows(&ours.text()).map(|_| ());
        }
        let (start, length) = window_of(self.args);
        json_rows(&ours.text())
            .and_then(|rows| check_tiling(&rows, start, length))
            .map(|_| ())
            .map_err(|e| format!("{}\n{e}", ours.command))
    }
}

/// Whether exit status and stdout are equal.
pub(crate) fn same(ours: &Run, theirs: &Theirs) -> bool {
    theirs.status == Some(ours.status)
        && match theirs.truncated {
            true => ours.stdout.starts_with(theirs.stdout.as_bytes()),
            false => ours.stdout == theirs.stdout.as_bytes(),
        }
}

/// The two answers, for a person.
pub(crate) fn different(ours: &Run, theirs: &Theirs) -> String {
    let mut text = format!(
        "{}\nexit status: ours {}, qemu's {:?}\n",
        ours.command, ours.status, theirs.status
    );
    if !ours.stderr.is_empty() {
        text.push_str(&format!("our stderr: {}", ours.stderr));
    }
    if !theirs.stderr.is_empty() {
        text.push_str(&format!("qemu's stderr: {}", theirs.stderr));
    }
    let mine = ours.text();
    if mine != theirs.stdout {
        let comparison = pretty_assertions::StrComparison::new(&theirs.stdout, &mine);
        let shown: String = comparison.to_string().chars().take(6000).collect();
        text.push_str(&format!("stdout, < qemu's, > ours:\n{shown}\n"));
    }
    text
}
