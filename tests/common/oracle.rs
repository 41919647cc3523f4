//! The content oracle: what the map says about the guest's bytes is true of them.
//!
//! qemu-img gives the guest's bytes (`dd`, `convert -O raw`). Where the map says zero, they are zero;
//! where it says data at an offset, they are the bytes of the file there; rows tile the disk.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use super::binary::{Run, instar};
use super::differencing::padded;
use super::divergences::matches;
use super::lab::data_runs;
use super::qemu::{qemu_img, words};
use super::rows::{HumanRow, JsonRow, check_tiling, human_rows, json_rows};

/// Images whose content qemu-img reads otherwise: it ignores the parent of a VHD, takes one that
/// lacks its first footer and LUKS of version 2 for raw, leaves out some kinds of VMDK extents, and
/// takes what a VDI has in front of a block for a part of it. The plugins' own tests check them.
const QEMU_READS_OTHERWISE: &[&str] = &[
    "luks-2-*",
    "luks-bad-2-*",
    "luks-bad-version-3-probed",
    "vdi-blocks-extra",
    "vhd-differencing",
    "vhd-differencing-2m-blocks",
    "vhd-differencing-missing-parent",
    "vhd-hostile-headless-dynamic",
    "vmdk-flat-behind-blanks",
    "vmdk-rdonly-extent",
    "vmdk-zero-*",
];

/// Disks up to this size are read sector by sector.
const SECTORS: u64 = 4 << 20;
/// Disks up to this size are read whole.
const READ: u64 = 64 << 20;
/// Disks up to this size are compared whole; of larger ones, the ends of (some) rows.
const WHOLE: u64 = 4 << 40;
/// Rows of a larger disk that are looked at, and bytes at each end of them.
const SAMPLED_ROWS: usize = 24;
const SAMPLE: u64 = 64 << 10;
/// Bytes compared at a time.
const CHUNK: u64 = 1 << 20;

/// Whether qemu-img does not read what is in the image of this id.
pub(crate) fn is_misread(id: &str) -> bool {
    QEMU_READS_OTHERWISE.iter().any(|pattern| matches(pattern, id))
}

/// An image and how both programs are asked about it.
pub(crate) struct Subject<'a> {
    pub(crate) folder: &'a Path,
    /// Arguments for `instar map`, FILE last.
    pub(crate) ours: Vec<String>,
    /// Arguments for qemu-img that name the image and its format.
    pub(crate) theirs: Vec<String>,
    /// Whether what is not present may be anything: the layer below was ignored.
    pub(crate) lower_layer_ignored: bool,
}

/// What was compared.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) rows: usize,
    /// Bytes that had to be, and were, zero.
    pub(crate) zero: u64,
    /// Bytes that had to be, and were, those of a file.
    pub(crate) data: u64,
}

/// Why nothing was compared.
pub(crate) enum Failure {
    /// One of the programs cannot read the image.
    Unreadable(String),
    /// The map is wrong.
    Wrong(String),
}

impl Subject<'_> {
    /// Compares our map of the whole disk with its content.
    pub(crate) fn compare(&self) -> Result<Compared, Failure> {
        let rows = self.rows()?;
        let end = check_tiling(&rows, 0, None).map_err(Failure::Wrong)?;
        if end > WHOLE {
            return self.compare_samples(&rows);
        }
        let guest = self.guest(end)?;
        let length = guest.metadata().expect("the guest's size").len();
        if length != end {
            return Err(Failure::Wrong(format!(
                "{}\nrows end at {end}, the disk at {length}",
                self.ours.join(" ")
            )));
        }
        let nonzero = data_runs(&guest, length);
        let mut files = Files::of(self);
        let mut compared = Compared::default();
        for row in rows.iter().filter(|row| row.length > 0) {
            self.compare_row(row, &guest, &nonzero, &mut files, &mut compared)
                .map_err(|e| Failure::Wrong(format!("{}\n{row:?}: {e}", self.ours.join(" "))))?;
            compared.rows += 1;
        }
        Ok(compared)
    }

    fn rows(&self) -> Result<Vec<JsonRow>, Failure> {
        let mut args = self.ours.clone();
        args.insert(1, "--output=json".to_owned());
        let run = instar(self.folder, &args);
        match run.status {
            0 => {
                json_rows(&run.text()).map_err(|e| Failure::Wrong(format!("{}\n{e}", run.command)))
            }
            _ => Err(Failure::Unreadable(run.stderr)),
        }
    }

    /// The guest's bytes as a file.
    fn guest(&self, size: u64) -> Result<File, Failure> {
        if size <= READ && self.plain_target().is_some() {
            // By sectors, if that does not take too long: in a split VMDK, a longer read of qemu's
            // that goes over the end of an extent gets bytes of the wrong one.
            let block = if size <= SECTORS { "bs=512" } else { "bs=1M" };
            return self.dd(&words(&[block]));
        }
        let target = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut args = words(&["convert", "-t", "unsafe", "-O", "raw"]);
        args.extend_from_slice(&self.theirs);
        args.push(target.path().display().to_string());
        read_back(&target, &qemu_img(self.folder, &args))
    }

    fn compare_row(
        &self,
        row: &JsonRow,
        guest: &File,
        nonzero: &[(u64, u64)],
        files: &mut Files<'_>,
        compared: &mut Compared,
    ) -> Result<(), String> {
        if row.zero && (row.present || !self.lower_layer_ignored) {
            let first = nonzero.partition_point(|(at, length)| at + length <= row.start);
            for (at, length) in nonzero.iter().skip(first) {
                if *at >= row.end() {
                    break;
                }
                let (from, to) = ((*at).max(row.start), (at + length).min(row.end()));
                if let Some(at) = first_difference(guest, from, None, to - from) {
                    return Err(format!("guest byte {} is not zero", from + at));
                }
            }
            compared.zero += row.length;
        }
        if let Some(offset) = row.offset.filter(|_| row.data) {
            let Some(file) = files.of_row(row)? else {
                return Ok(());
            };
            if let Some(at) = first_difference(guest, row.start, Some((&file, offset)), row.length)
            {
                return Err(format!(
                    "guest byte {} is not byte {} of the file",
                    row.start + at,
                    offset + at
                ));
            }
            compared.data += row.length;
        }
        Ok(())
    }

    /// Compares the ends of some rows of a disk that is too large for a file.
    fn compare_samples(&self, rows: &[JsonRow]) -> Result<Compared, Failure> {
        let mut compared = Compared::default();
        let mut files = Files::of(self);
        let step = rows.len().div_ceil(SAMPLED_ROWS).max(1);
        for row in rows.iter().step_by(step) {
            let last = row.end().saturating_sub(SAMPLE).max(row.start);
            for start in [row.start, last] {
                let part = JsonRow {
                    start,
                    length: SAMPLE.min(row.end() - start),
                    offset: row.offset.map(|offset| offset + (start - row.start)),
                    ..*row
                };
                let shifted = JsonRow { start: 0, ..part };
                let guest = self.part_of_guest(&part)?;
                let nonzero = data_runs(&guest, part.length);
                let file = files.of_row(&part).map_err(Failure::Wrong)?;
                let mut known = Files::just(self, file);
                self.compare_row(&shifted, &guest, &nonzero, &mut known, &mut compared)
                    .map_err(|e| Failure::Wrong(format!("{part:?}: {e}")))?;
            }
            compared.rows += 1;
        }
        Ok(compared)
    }

    /// The guest's bytes of a row that starts on a sector.
    fn part_of_guest(&self, row: &JsonRow) -> Result<File, Failure> {
        self.dd(&[
            "bs=512".to_owned(),
            format!("skip={}", row.start / 512),
            format!("count={}", (row.start + row.length).div_ceil(512)),
        ])
    }

    /// The guest's bytes by `qemu-img dd`, which reads every one of them, where `convert` relies
    /// on what `map` would say.
    fn dd(&self, part: &[String]) -> Result<File, Failure> {
        let target = tempfile::NamedTempFile::new().expect("a temporary file");
        let Some((format, name)) = self.plain_target() else {
            let reason = format!("no part of {:?} can be read", self.theirs);
            return Err(Failure::Unreadable(reason));
        };
        let mut args = words(&["dd", "-O", "raw"]);
        args.extend(format.into_iter().flat_map(|f| ["-f".to_owned(), f.to_owned()]));
        args.extend_from_slice(part);
        args.extend([format!("if={name}"), format!("of={}", target.path().display())]);
        read_back(&target, &qemu_img(self.folder, &args))
    }

    /// The format and name that qemu is given, if no other options.
    fn plain_target(&self) -> Option<(Option<&str>, &str)> {
        match self.theirs.as_slice() {
            [name] => Some((None, name)),
            [option, format, name] if option == "-f" => Some((Some(format), name)),
            _ => None,
        }
    }
}

/// What qemu-img wrote, if it did not fail.
fn read_back(target: &tempfile::NamedTempFile, run: &Run) -> Result<File, Failure> {
    match run.status {
        0 => Ok(File::open(target.path()).expect("what qemu-img wrote")),
        // A signal: qemu-img crashed, or took too long.
        status if status > 128 && run.stderr.is_empty() => {
            Err(Failure::Wrong(format!("{}\nended with status {status}", run.command)))
        }
        _ => Err(Failure::Unreadable(run.stderr.clone())),
    }
}

/// The files in which rows lie: the table says it, the JSON output does not.
struct Files<'a> {
    subject: &'a Subject<'a>,
    table: Vec<HumanRow>,
    open: HashMap<String, File>,
    /// The file of every row, if that was found out before.
    only: Option<Option<File>>,
}

impl<'a> Files<'a> {
    fn of(subject: &'a Subject<'a>) -> Self {
        let run = instar(subject.folder, &subject.ours);
        Self {
            subject,
            // Ends early at the first cluster that is compressed or encrypted.
            table: human_rows(&run.text()).unwrap_or_default(),
            open: HashMap::new(),
            only: None,
        }
    }

    fn just(subject: &'a Subject<'a>, file: Option<File>) -> Self {
        Self { subject, table: Vec::new(), open: HashMap::new(), only: Some(file) }
    }

    /// The file of a data row; none for data in a hole, which the table leaves out.
    fn of_row(&mut self, row: &JsonRow) -> Result<Option<File>, String> {
        let again = |file: &File| file.try_clone().expect("a second handle");
        if let Some(only) = &self.only {
            return Ok(only.as_ref().map(again));
        }
        let Some(offset) = row.offset.filter(|_| row.data && !row.zero) else {
            return Ok(None);
        };
        let in_table = |known: &&HumanRow| {
            known.start <= row.start
                && row.end() <= known.start + known.length
                && known.offset + (row.start - known.start) == offset
        };
        let name = match self.table.iter().find(in_table) {
            Some(known) => known.file.clone(),
            None => self.ask_about(row, offset)?,
        };
        if let Some(file) = self.open.get(&name) {
            return Ok(Some(again(file)));
        }
        let path = self.subject.folder.join(&name);
        let file = File::open(&path).map_err(|e| format!("{name:?} in the File column: {e}"))?;
        let handle = again(&file);
        self.open.insert(name, file);
        Ok(Some(handle))
    }

    /// The file of a row behind the point where the table ended.
    fn ask_about(&self, row: &JsonRow, offset: u64) -> Result<String, String> {
        let mut args = self.subject.ours.clone();
        let window =
            ["-s", &row.start.to_string(), "-l", &row.length.to_string()].map(String::from);
        args.splice(1..1, window);
        let run = instar(self.subject.folder, &args);
        let table = human_rows(&run.text())?;
        match table.as_slice() {
            [one] if (one.start, one.length, one.offset) == (row.start, row.length, offset) => {
                Ok(one.file.clone())
            }
            other => Err(format!("the table has {other:?} for it")),
        }
    }
}

/// The first byte, counted from `at`, in which the guest differs from the file at its offset, or
/// from zero. What is behind the end of either reads as zero.
fn first_difference(guest: &File, at: u64, file: Option<(&File, u64)>, length: u64) -> Option<u64> {
    let mut done = 0;
    while done < length {
        let count = CHUNK.min(length - done);
        let theirs = padded(guest, at + done, count);
        let ours = match file {
            Some((file, offset)) => padded(file, offset + done, count),
            None => vec![0; theirs.len()],
        };
        if theirs != ours {
            let same = theirs.iter().zip(&ours).take_while(|(a, b)| a == b);
            return Some(done + same.count() as u64);
        }
        done += count;
    }
    None
}
