//! Chains of images made on the spot with qemu-img and qemu-io, by chance.
//!
//! A chain lies in three folders below a root: `vm`, in which both programs run, `vm/sub`, and
//! `other`. What docs/quirks.md lists is left out: no data file with a relative name where the
//! image is not in the current folder, no extent that is not whole grains but the last, no fixed
//! VHD whose format is not stored.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::fs::{self, OpenOptions};
use std::path::Path;

use super::qemu::{qemu_img, qemu_io, words};
use super::random::Choices;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Where qemu-img starts another extent of a split VMDK.
const EXTENT: u64 = 2 << 30;

/// The folders of a chain.
pub(crate) const FOLDERS: [&str; 3] = ["vm", "vm/sub", "other"];

/// How a chain is made, and how it is asked about.
pub(crate) struct Weave {
    /// The argument that names the top image, from `vm`.
    pub(crate) top: String,
    /// Folders, from the root, that must be allowed.
    pub(crate) allowed: BTreeSet<&'static str>,
    /// How many images are below the top.
    pub(crate) depth: usize,
    /// What is in it, for statistics.
    pub(crate) traits: BTreeSet<&'static str>,
    steps: Vec<Step>,
}

enum Step {
    Img(Vec<String>),
    /// qemu-io: a write or discard that the format cannot do is left out.
    Io(Vec<String>),
    /// Sets the file's length.
    Resize(String, u64),
    /// Makes a qcow2 image forget the format of its backing file.
    DropFormat(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Raw,
    Qcow,
    Qcow2,
    Qed,
    /// With an external data file; whether it is a raw one.
    DataFile(bool),
    /// A VMDK of this subformat.
    Vmdk(&'static str),
    VhdDynamic,
    VhdFixed,
}

impl Kind {
    fn driver(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow => "qcow",
            Self::Qcow2 | Self::DataFile(_) => "qcow2",
            Self::Qed => "qed",
            Self::Vmdk(_) => "vmdk",
            Self::VhdDynamic | Self::VhdFixed => "vpc",
        }
    }

    fn is_split(self) -> bool {
        matches!(self, Self::Vmdk(subformat) if subformat.starts_with("twoGb"))
    }

    /// Whether the format of what is below is not stored, unless it is raw.
    fn detects(self) -> bool {
        matches!(self, Self::Qcow | Self::Qed)
    }

    fn label(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow => "qcow",
            Self::Qcow2 => "qcow2",
            Self::Qed => "qed",
            Self::DataFile(false) => "data file",
            Self::DataFile(true) => "raw data file",
            Self::Vmdk(subformat) => subformat,
            Self::VhdDynamic => "vhd dynamic",
            Self::VhdFixed => "vhd fixed",
        }
    }
}

/// One image of the chain, before it is made.
struct Plan {
    kind: Kind,
    folder: &'static str,
    /// The name by which the image above, or the command line, calls it.
    called: String,
    /// The path under which it is then shown.
    shown: String,
    /// Its path from `vm`.
    path: String,
}

impl Weave {
    /// A random chain below `root`.
    pub(crate) fn random(root: &Path, choose: &mut Choices) -> Self {
        let kinds = kinds(choose);
        let mut weave = Self {
            top: String::new(),
            allowed: BTreeSet::new(),
            depth: kinds.len() - 1,
            traits: BTreeSet::new(),
            steps: Vec::new(),
        };
        let plans = weave.places(root, &kinds, choose);
        weave.top.clone_from(&plans.first().expect("a top").called);
        // qemu asks a qcow image cluster by cluster, and those of overlays have 512 bytes.
        let is_large = kinds.iter().any(|kind| kind.is_split())
            && !kinds.contains(&Kind::Qcow)
            && choose.one_in(2);
        let limit = if is_large { 2 * EXTENT + 8 * MIB } else { choose.of(&[MIB, 4 * MIB]) };
        let low = if is_large { EXTENT } else { 64 * KIB };
        let mut below: Option<(&Plan, u64)> = None;
        for plan in plans.iter().rev() {
            let size = choose.between(low, limit) / 512 * 512;
            let size = match below {
                Some((_, size)) => choose.of(&[size, size, size / 2 + 512, size + MIB]) / 512 * 512,
                None => size,
            };
            let size = weave.layer(root, plan, size, below, choose);
            below = Some((plan, size));
        }
        weave
    }

    /// Chooses where the images are and how they call each other, top first.
    fn places(&mut self, root: &Path, kinds: &[Kind], choose: &mut Choices) -> Vec<Plan> {
        let mut plans: Vec<Plan> = Vec::new();
        for (index, kind) in kinds.iter().enumerate() {
            let folder = choose.of(&["vm", "vm", "vm/sub", "other"]);
            let (from, above) = match plans.last() {
                Some(plan) => (plan.folder, plan.shown.as_str()),
                None => ("vm", ""),
            };
            let file = format!("{}{index}.{}", kind.driver(), kind.driver());
            let is_absolute = choose.one_in(4);
            let called = match is_absolute {
                true => root.join(folder).join(&file).display().to_string(),
                false => relative(from, folder, &file),
            };
            let beside = above.rfind('/').and_then(|slash| above.get(..=slash)).unwrap_or("");
            let shown = if is_absolute { called.clone() } else { format!("{beside}{called}") };
            if index > 0 {
                self.traits.insert(match (is_absolute, called.find('/')) {
                    (true, _) => "absolute name",
                    (_, None) => "same folder",
                    _ if called.starts_with("..") => "folder above",
                    _ => "folder below",
                });
                self.allow(from, folder);
            }
            self.traits.insert(kind.label());
            let path = relative("vm", folder, &file);
            plans.push(Plan { kind: *kind, folder, called, shown, path });
        }
        plans
    }

    /// A file in `to` is named by one in `from`.
    fn allow(&mut self, from: &str, to: &'static str) {
        if !Path::new(to).starts_with(from) {
            self.allowed.insert(to);
        }
    }

    /// Makes one image over the one below; returns its size.
    fn layer(
        &mut self,
        root: &Path,
        plan: &Plan,
        size: u64,
        below: Option<(&Plan, u64)>,
        choose: &mut Choices,
    ) -> u64 {
        let size = match plan.kind {
            Kind::Vmdk(_) => size.next_multiple_of(64 * KIB),
            Kind::VhdDynamic | Kind::VhdFixed => size.max(MIB),
            _ => size,
        };
        if let Some((_, lower)) = below.filter(|(_, lower)| *lower != size) {
            self.traits.insert(if lower < size { "shorter backing" } else { "longer backing" });
        }
        let mut compressed = None;
        let mut options = Vec::new();
        match plan.kind {
            Kind::Qcow2 | Kind::DataFile(_) => {
                compressed = self.qcow2_options(root, plan, &mut options, choose);
            }
            Kind::Vmdk(subformat) => {
                options.push(format!("subformat={subformat}"));
                if !subformat.contains("Flat") && choose.one_in(2) {
                    options.push("zeroed_grain=on".to_owned());
                }
            }
            Kind::VhdDynamic => options.push("subformat=dynamic,force_size=on".to_owned()),
            Kind::VhdFixed => options.push("subformat=fixed,force_size=on".to_owned()),
            // The size of its clusters cannot be chosen.
            Kind::Qcow => {
                let cluster = if below.is_some() { 512 } else { 4 * KIB };
                compressed = choose.one_in(2).then_some(cluster);
            }
            Kind::Qed => {
                options.push(format!("cluster_size={}", (4 * KIB) << choose.between(0, 6)));
                options.push(format!("table_size={}", choose.of(&[2, 4, 16])));
            }
            Kind::Raw => {}
        }
        let mut args = words(&["create", "-q", "-f", plan.kind.driver()]);
        if !options.is_empty() {
            args.extend(["-o".to_owned(), options.join(",")]);
        }
        if let Some((lower, _)) = below {
            args.extend(words(&["-b", &lower.called, "-F", lower.kind.driver()]));
        }
        if plan.kind == Kind::Vmdk("streamOptimized") {
            self.stream(plan, size, choose);
        } else {
            args.extend([plan.path.clone(), size.to_string()]);
            self.steps.push(Step::Img(args));
            self.write(plan, size, compressed, choose);
        }
        if plan.kind == Kind::Raw && choose.one_in(2) {
            let size = choose.between(1, size + 5000);
            self.steps.push(Step::Resize(plan.path.clone(), size));
            return size;
        }
        let over_unmarked = below.is_some_and(|(lower, _)| lower.kind == Kind::VhdFixed);
        if plan.kind.driver() == "qcow2" && below.is_some() && !over_unmarked && choose.one_in(4) {
            self.traits.insert("format not stored");
            self.steps.push(Step::DropFormat(plan.path.clone()));
        }
        size
    }

    /// Options of a qcow2 image; returns the cluster size if it can be written to compressed.
    fn qcow2_options(
        &mut self,
        root: &Path,
        plan: &Plan,
        options: &mut Vec<String>,
        choose: &mut Choices,
    ) -> Option<u64> {
        let has_data_file = matches!(plan.kind, Kind::DataFile(_));
        let is_old = !has_data_file && choose.one_in(6);
        let is_extended = !is_old && choose.one_in(3);
        let smallest = if is_extended { 14 } else { 9 };
        let cluster = 1_u64 << choose.between(smallest, 18);
        options.push(format!("compat={}", if is_old { "0.10" } else { "1.1" }));
        options.push(format!("cluster_size={cluster}"));
        if is_extended {
            self.traits.insert("extended L2");
            options.push("extended_l2=on".to_owned());
        }
        let Kind::DataFile(is_raw) = plan.kind else {
            return choose.one_in(4).then_some(cluster);
        };
        let file = plan.path.rsplit('/').next().unwrap_or_default().replace("qcow2", "data");
        // qemu starts a relative name from the current folder.
        let name = match plan.shown.contains('/') || choose.one_in(4) {
            true => {
                let folder = choose.of(&[plan.folder, plan.folder, "other"]);
                self.allow(plan.folder, folder);
                root.join(folder).join(&file).display().to_string()
            }
            false => file,
        };
        options.push(format!("data_file={name}"));
        options.push(format!("data_file_raw={}", if is_raw { "on" } else { "off" }));
        None
    }

    /// A compressed VMDK: these are converted, not written to.
    fn stream(&mut self, plan: &Plan, size: u64, choose: &mut Choices) {
        let source = Plan {
            kind: Kind::Raw,
            path: format!("{}.source", plan.path),
            called: String::new(),
            shown: String::new(),
            folder: plan.folder,
        };
        let create = ["create", "-q", "-f", "raw", &source.path, &size.to_string()];
        self.steps.push(Step::Img(words(&create)));
        self.write(&source, size, None, choose);
        let convert = ["convert", "-q", "-t", "unsafe", "-f", "raw", "-O", "vmdk", "-o"];
        let last = ["subformat=streamOptimized", &source.path, &plan.path];
        self.steps.push(Step::Img([words(&convert), words(&last)].concat()));
    }

    /// Random writes to an image of `size` bytes; compressed ones with this cluster size.
    fn write(&mut self, plan: &Plan, size: u64, compressed: Option<u64>, choose: &mut Choices) {
        let size = size / 512 * 512;
        if size == 0 {
            return;
        }
        let mut commands = Vec::new();
        for _ in 0..choose.between(0, 8) {
            let (offset, length) = range(size, choose);
            commands.push(match choose.between(0, 9) {
                0 => format!("write -z {offset} {length}"),
                1 => format!("write -z -u {offset} {length}"),
                2 => format!("discard {offset} {length}"),
                3 | 4 if compressed.is_some() => {
                    let cluster = compressed.unwrap_or(512);
                    let offset = offset / cluster * cluster;
                    format!("write -c -P 90 {offset} {}", cluster.min(size - offset))
                }
                _ => format!("write -P {} {offset} {length}", choose.between(1, 255)),
            });
        }
        for end in [EXTENT, 2 * EXTENT] {
            if size > end + 128 * KIB && choose.one_in(2) {
                self.traits.insert("over an extent's end");
                commands.push(format!("write -P 7 {} 131072", end - 64 * KIB));
            }
        }
        if commands.is_empty() {
            return;
        }
        let mut args = words(&["-t", "unsafe", "-f", plan.kind.driver(), "-d", "unmap"]);
        args.extend(commands.into_iter().flat_map(|command| ["-c".to_owned(), command]));
        args.push(plan.path.clone());
        self.steps.push(Step::Io(args));
    }

    /// Makes the images below a root.
    ///
    /// # Errors
    /// If a program fails.
    pub(crate) fn make(&self, root: &Path) -> Result<(), String> {
        for folder in FOLDERS {
            fs::create_dir_all(root.join(folder)).map_err(|e| format!("{folder}: {e}"))?;
        }
        let here = root.join("vm");
        for step in &self.steps {
            let (run, is_wrong) = match step {
                Step::Img(args) => {
                    let run = qemu_img(&here, args);
                    let is_wrong = run.status != 0;
                    (run, is_wrong)
                }
                Step::Io(args) => {
                    let run = qemu_io(&here, args);
                    let is_wrong = run.status > 1 || run.stderr.contains("can't open");
                    (run, is_wrong)
                }
                Step::Resize(name, size) => {
                    let file = OpenOptions::new().write(true).open(here.join(name));
                    let resized = file.and_then(|file| file.set_len(*size));
                    resized.map_err(|e| format!("{name}: {e}"))?;
                    continue;
                }
                Step::DropFormat(name) => {
                    drop_format(&here.join(name))?;
                    continue;
                }
            };
            if is_wrong {
                return Err(format!("{}\n{}", run.command, run.stderr));
            }
        }
        Ok(())
    }
}

impl Display for Weave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |args: &[String]| {
            let quote = |arg: &String| match arg.contains(' ') {
                true => format!("'{arg}'"),
                false => arg.clone(),
            };
            args.iter().map(quote).collect::<Vec<_>>().join(" ")
        };
        for step in &self.steps {
            match step {
                Step::Img(args) => writeln!(f, "qemu-img {}", line(args))?,
                Step::Io(args) => writeln!(f, "qemu-io {}", line(args))?,
                Step::Resize(name, size) => writeln!(f, "truncate -s {size} {name}")?,
                Step::DropFormat(name) => writeln!(f, "# no backing format in {name}")?,
            }
        }
        Ok(())
    }
}

/// The kinds of the images of a chain, top first: alone, or with one to five below.
fn kinds(choose: &mut Choices) -> Vec<Kind> {
    const FLAT: [Kind; 2] = [Kind::Vmdk("monolithicFlat"), Kind::Vmdk("twoGbMaxExtentFlat")];
    const OVERLAYS: [Kind; 5] = [Kind::Qcow2, Kind::Qcow2, Kind::Qcow2, Kind::Qcow, Kind::Qed];
    const SPARSE: [Kind; 2] = [Kind::Vmdk("monolithicSparse"), Kind::Vmdk("twoGbMaxExtentSparse")];
    let mut vmdk_bases = [FLAT, SPARSE].concat();
    if choose.one_in(6) {
        vmdk_bases.remove(2);
        vmdk_bases.push(Kind::DataFile(true));
        return vec![choose.of(&vmdk_bases)];
    }
    let below = choose.between(1, 5);
    let mut kinds = Vec::new();
    let mut needs_vmdk = false;
    for _ in 0..below {
        needs_vmdk = match needs_vmdk {
            true => choose.one_in(2),
            false => choose.one_in(8),
        };
        // The parent of a VMDK is one, too.
        let after_vmdk = matches!(kinds.last(), Some(Kind::Vmdk(_)));
        kinds.push(match needs_vmdk || after_vmdk {
            true => choose.of(&SPARSE),
            false if choose.one_in(5) => Kind::DataFile(false),
            false => choose.of(&OVERLAYS),
        });
    }
    vmdk_bases.push(Kind::Vmdk("streamOptimized"));
    let mut others = vec![
        Kind::Raw,
        Kind::Raw,
        Kind::Qcow,
        Kind::Qcow2,
        Kind::Qed,
        Kind::DataFile(true),
        Kind::DataFile(false),
        Kind::VhdDynamic,
    ];
    if !kinds.last().is_some_and(|kind| kind.detects()) {
        others.push(Kind::VhdFixed);
    }
    let is_vmdk = matches!(kinds.last(), Some(Kind::Vmdk(_))) || choose.one_in(4);
    kinds.push(if is_vmdk { choose.of(&vmdk_bases) } else { choose.of(&others) });
    kinds
}

/// A range of whole sectors, mostly short and often on borders.
fn range(size: u64, choose: &mut Choices) -> (u64, u64) {
    let unit = choose.of(&[512, 512, 4 * KIB, 64 * KIB]).min(size);
    let offset = choose.between(0, (size - unit) / unit) * unit;
    let sectors = choose.of(&[1, 8, 128, 1024]);
    let length = choose.between(1, sectors.min((size - offset) / 512)) * 512;
    (offset, length)
}

/// The path of a file in folder `to`, from folder `from`.
fn relative(from: &str, to: &str, file: &str) -> String {
    let (from, to): (Vec<&str>, Vec<&str>) = (from.split('/').collect(), to.split('/').collect());
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", from.len() - shared);
    let parts: Vec<&str> = up.chain(to.into_iter().skip(shared)).chain([file]).collect();
    parts.join("/")
}

/// Turns the record of the backing file's format into one of no meaning.
fn drop_format(path: &Path) -> Result<(), String> {
    let mut bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let number = |at: usize| {
        let four = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
        u32::from_be_bytes(*four.expect("a header")) as usize
    };
    let mut at = if number(4) == 2 { 72 } else { number(100) };
    while number(at) != 0xe279_2aca {
        if number(at) == 0 {
            return Err(format!("{}: no backing format", path.display()));
        }
        at += 8 + number(at + 4).next_multiple_of(8);
    }
    bytes.get_mut(at..at + 4).expect("a header").copy_from_slice(b"none");
    fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}
