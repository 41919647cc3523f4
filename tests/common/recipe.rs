//! Images made on the spot with qemu-img and qemu-io, by chance.

use std::fmt::{self, Display};
use std::fs::OpenOptions;
use std::path::Path;

use super::handmade;
use super::qemu::{qemu_img, qemu_io, words};
use super::random::Choices;

/// How an image is made.
pub(crate) struct Recipe {
    /// Our name of its format.
    pub(crate) format: &'static str,
    /// The image's file name.
    pub(crate) name: String,
    steps: Vec<Step>,
}

enum Step {
    Img(Vec<String>),
    /// qemu-io: a write or discard that the format cannot do is left out.
    Io(Vec<String>),
    /// Sets the file's length.
    Resize(String, u64),
    /// A file made byte by byte, and what is in it.
    Bytes(String, handmade::Image),
}

impl Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            match step {
                Step::Img(args) => writeln!(f, "qemu-img {}", quoted(args))?,
                Step::Io(args) => writeln!(f, "qemu-io {}", quoted(args))?,
                Step::Resize(name, size) => writeln!(f, "truncate -s {size} {name}")?,
                Step::Bytes(name, image) => writeln!(f, "{name}: {}", image.about)?,
            }
        }
        Ok(())
    }
}

fn quoted(args: &[String]) -> String {
    let quote = |arg: &String| match arg.contains(' ') {
        true => format!("'{arg}'"),
        false => arg.clone(),
    };
    args.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The passphrase of encrypted images, as qemu-img wants it.
const SECRET: &str = "secret,id=s0,data=instar";

/// Every format that we map: qemu-img creates the images, or they are made byte by byte.
pub(crate) const FORMATS: &[&str] = &[
    "raw",
    "qcow2",
    "vmdk",
    "vhd",
    "vhdx",
    "vdi",
    "parallels",
    "qcow",
    "qed",
    "bochs",
    "cloop",
    "luks",
    "dmg",
];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

impl Recipe {
    /// A random image of this format.
    pub(crate) fn random(format: &'static str, may_follow: bool, choose: &mut Choices) -> Self {
        let mut recipe = Self { format, name: format!("image.{format}"), steps: Vec::new() };
        match format {
            "raw" => recipe.raw(choose),
            "qcow" => recipe.qcow(may_follow, choose),
            "qcow2" => recipe.qcow2(may_follow, choose),
            "qed" => recipe.qed(may_follow, choose),
            "vmdk" => recipe.vmdk(may_follow, choose),
            "vhd" => recipe.vhd(choose),
            "vhdx" => recipe.vhdx(choose),
            "vdi" => recipe.vdi(choose),
            "parallels" => recipe.parallels(choose),
            "bochs" => recipe.bytes(handmade::bochs(choose)),
            "cloop" => recipe.bytes(handmade::cloop(choose)),
            "luks" => recipe.luks(choose),
            "dmg" => recipe.bytes(handmade::dmg(choose)),
            other => panic!("no recipe for {other}"),
        }
        recipe
    }

    /// qemu's name of the format.
    pub(crate) fn driver(&self) -> &'static str {
        match self.format {
            "vhd" => "vpc",
            other => other,
        }
    }

    /// The arguments for qemu-img that name the image and its format.
    pub(crate) fn target(&self) -> Vec<String> {
        let name = &self.name;
        match self.format {
            "luks" => {
                let options = format!("driver=luks,file.filename={name},key-secret=s0");
                words(&["--object", SECRET, "--image-opts", &options])
            }
            _ => words(&["-f", self.driver(), name]),
        }
    }

    /// Makes the image in a folder.
    ///
    /// # Errors
    /// If qemu-img cannot create it.
    pub(crate) fn make(&self, folder: &Path) -> Result<(), String> {
        for step in &self.steps {
            match step {
                Step::Img(args) => {
                    let run = qemu_img(folder, args);
                    if run.status != 0 {
                        return Err(format!("{}\n{}", run.command, run.stderr));
                    }
                }
                Step::Io(args) => {
                    let run = qemu_io(folder, args);
                    if run.status > 1 {
                        return Err(format!("{}\n{}", run.command, run.stderr));
                    }
                }
                Step::Resize(name, size) => {
                    let file = OpenOptions::new().write(true).open(folder.join(name));
                    let resized = file.and_then(|file| file.set_len(*size));
                    resized.map_err(|e| format!("{name}: {e}"))?;
                }
                Step::Bytes(name, image) => {
                    let written = std::fs::write(folder.join(name), &image.bytes);
                    written.map_err(|e| format!("{name}: {e}"))?;
                }
            }
        }
        Ok(())
    }

    fn create(&mut self, driver: &str, name: &str, size: u64, options: &[String], more: &[&str]) {
        let mut args = words(&["create", "-q", "-f", driver]);
        if !options.is_empty() {
            args.extend(["-o".to_owned(), options.join(",")]);
        }
        args.extend(words(more));
        args.extend([name.to_owned(), size.to_string()]);
        self.steps.push(Step::Img(args));
    }

    /// Random writes to `name`, within `size` bytes; compressed ones with this cluster size.
    fn write(
        &mut self,
        driver: &str,
        name: &str,
        size: u64,
        compressed: Option<u64>,
        choose: &mut Choices,
    ) {
        if size < 512 {
            return;
        }
        let mut args = words(&["-t", "unsafe", "-f", driver, "-d", "unmap"]);
        for _ in 0..choose.between(0, 14) {
            let (offset, length) = range(size, choose);
            let command = match choose.between(0, 9) {
                0 => format!("write -z {offset} {length}"),
                1 => format!("write -z -u {offset} {length}"),
                2 => format!("discard {offset} {length}"),
                3 | 4 if compressed.is_some() => {
                    let cluster = compressed.unwrap_or(512);
                    let offset = offset - offset % cluster;
                    let length = cluster.min(size - offset);
                    format!("write -c -P 90 {offset} {length}")
                }
                _ => format!("write -P {} {offset} {length}", choose.between(1, 255)),
            };
            args.extend(["-c".to_owned(), command]);
        }
        args.push(name.to_owned());
        if args.len() > 7 {
            self.steps.push(Step::Io(args));
        }
    }

    /// The image, as a copy of a raw one of this size.
    fn convert(&mut self, driver: &str, options: &str, size: u64, choose: &mut Choices) {
        self.create("raw", "source.raw", size, &[], &[]);
        self.write("raw", "source.raw", size, None, choose);
        let mut args = words(&["convert", "-q", "-t", "unsafe", "-f", "raw", "-O", driver]);
        args.extend(words(&["-o", options, "source.raw", &self.name]));
        self.steps.push(Step::Img(args));
    }

    /// A stretch of compressed clusters. `convert -c` to qcow makes them too, but ends with status 1.
    fn compress(
        &mut self,
        driver: &str,
        name: &str,
        size: u64,
        cluster: u64,
        choose: &mut Choices,
    ) {
        let clusters = size / cluster;
        if clusters == 0 {
            return;
        }
        let first = choose.between(0, clusters - 1);
        let mut args = words(&["-t", "unsafe", "-f", driver]);
        for index in first..(first + choose.between(1, 50)).min(clusters) {
            args.extend(["-c".to_owned(), format!("write -c -P 91 {} {cluster}", index * cluster)]);
        }
        args.push(name.to_owned());
        self.steps.push(Step::Io(args));
    }

    fn bytes(&mut self, image: handmade::Image) {
        self.steps.push(Step::Bytes(self.name.clone(), image));
    }

    /// What is encrypted does not show, so nothing is written; the file's end may be anywhere.
    fn luks(&mut self, choose: &mut Choices) {
        let name = self.name.clone();
        let cipher = choose.of(&["aes-128", "aes-256", "serpent-256", "twofish-256"]);
        let mode = choose.of(&["xts", "cbc"]);
        let options = [
            "key-secret=s0".to_owned(),
            "iter-time=10".to_owned(),
            format!("cipher-alg={cipher}"),
            format!("cipher-mode={mode}"),
            format!("hash-alg={}", choose.of(&["sha1", "sha256", "sha512"])),
        ];
        let size = size(choose);
        self.create("luks", &name, size, &options, &["--object", SECRET]);
        if choose.one_in(2) {
            // Behind the largest header there is.
            self.steps.push(Step::Resize(name, choose.between(5 << 20, 9 << 20)));
        }
    }

    fn raw(&mut self, choose: &mut Choices) {
        let name = self.name.clone();
        let size = size(choose);
        let mut options = Vec::new();
        if choose.one_in(4) {
            options.push(format!("preallocation={}", choose.of(&["falloc", "full"])));
        }
        self.create("raw", &name, size, &options, &[]);
        self.write("raw", &name, size, None, choose);
        if choose.one_in(2) {
            self.steps.push(Step::Resize(name, choose.between(1, size + 5000)));
        }
    }

    /// The size of clusters cannot be chosen: 4 KiB, or 512 bytes over a backing file.
    fn qcow(&mut self, may_follow: bool, choose: &mut Choices) {
        let size = size(choose);
        let name = self.name.clone();
        let mut more = Vec::new();
        let mut cluster = 4 * KIB;
        if may_follow && choose.one_in(2) {
            let (driver, file) = self.backing_file(size, choose);
            more.extend(["-b", file, "-F", driver]);
            cluster = 512;
        }
        self.create("qcow", &name, size, &[], &more);
        if choose.one_in(3) {
            self.compress("qcow", &name, size, cluster, choose);
        }
        self.write("qcow", &name, size, Some(cluster), choose);
    }

    fn qcow2(&mut self, may_follow: bool, choose: &mut Choices) {
        let size = size(choose);
        let mut backing = None;
        if may_follow && choose.one_in(4) {
            backing = Some(self.backing_file(size, choose));
        }
        let name = self.name.clone();
        let v2 = choose.one_in(5);
        let extended = !v2 && choose.one_in(3);
        let smallest = if extended { 14 } else { 9 };
        let cluster = 1_u64 << choose.between(smallest, 21);
        let mut options = vec![
            format!("compat={}", if v2 { "0.10" } else { "1.1" }),
            format!("cluster_size={cluster}"),
        ];
        // A snapshot doubles refcounts, and those of compressed clusters may be large before.
        let mut has_room = true;
        if !v2 {
            let bits = choose.of(&[1, 2, 4, 8, 16, 32, 64]);
            has_room = bits >= 16;
            options.push(format!("refcount_bits={bits}"));
            options.push(format!("extended_l2={}", if extended { "on" } else { "off" }));
            options.push(format!("compression_type={}", choose.of(&["zlib", "zstd"])));
            options.push(format!("lazy_refcounts={}", choose.of(&["on", "off"])));
        }
        if backing.is_none() || extended {
            let modes: &[&str] = &["off", "off", "metadata", "falloc", "full"];
            let mode = if backing.is_some() { "off" } else { choose.of(modes) };
            options.push(format!("preallocation={mode}"));
        }
        let data_file = may_follow && backing.is_none() && !v2 && choose.one_in(8);
        if data_file {
            options.push("data_file=data.bin".to_owned());
        }
        let mut more = Vec::new();
        if let Some((driver, file)) = backing {
            more.extend(["-b", file, "-F", driver]);
        }
        self.create("qcow2", &name, size, &options, &more);
        let compressed = (!data_file).then_some(cluster);
        self.write("qcow2", &name, size, compressed, choose);
        if choose.one_in(8) && !data_file && has_room {
            let snapshot = words(&["snapshot", "-c", "one", &name]);
            self.steps.push(Step::Img(snapshot));
            self.write("qcow2", &name, size, compressed, choose);
        }
    }

    /// A backing file, shorter, longer or as long; its driver and name.
    fn backing_file(&mut self, size: u64, choose: &mut Choices) -> (&'static str, &'static str) {
        let size = choose.of(&[size, size, size / 2 + 512, size + MIB]);
        let (driver, name) = choose.of(&[("raw", "base.raw"), ("qcow2", "base.qcow2")]);
        self.create(driver, name, size, &[], &[]);
        self.write(driver, name, size, None, choose);
        (driver, name)
    }

    fn qed(&mut self, may_follow: bool, choose: &mut Choices) {
        let size = size(choose);
        let name = self.name.clone();
        let mut more = Vec::new();
        if may_follow && choose.one_in(2) {
            let (driver, file) = self.backing_file(size, choose);
            more.extend(["-b", file, "-F", driver]);
        }
        // qemu does not open an image with tables of one cluster.
        let options = [
            format!("cluster_size={}", (4 * KIB) << choose.between(0, 6)),
            format!("table_size={}", choose.of(&[2, 4, 8, 16])),
        ];
        self.create("qed", &name, size, &options, &more);
        self.write("qed", &name, size, None, choose);
    }

    fn vmdk(&mut self, may_follow: bool, choose: &mut Choices) {
        let size = size(choose).next_multiple_of(64 * KIB);
        let name = self.name.clone();
        if choose.one_in(4) {
            self.convert("vmdk", "subformat=streamOptimized", size, choose);
            return;
        }
        let mut options = Vec::new();
        let mut subformat = "monolithicSparse";
        if may_follow && choose.one_in(3) {
            let several = ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"];
            subformat = choose.of(&several);
        }
        options.push(format!("subformat={subformat}"));
        if !subformat.contains("Flat") && choose.one_in(2) {
            options.push("zeroed_grain=on".to_owned());
        }
        if choose.one_in(3) {
            options.push("compat6=on".to_owned());
        } else {
            options.push(format!("adapter_type={}", choose.of(&["ide", "lsilogic"])));
        }
        self.create("vmdk", &name, size, &options, &[]);
        self.write("vmdk", &name, size, None, choose);
    }

    fn vhd(&mut self, choose: &mut Choices) {
        // Sizes are rounded to a geometry without force_size.
        let size = size(choose).next_multiple_of(512).max(MIB);
        let name = self.name.clone();
        let options = [
            format!("subformat={}", choose.of(&["dynamic", "dynamic", "fixed"])),
            format!("force_size={}", choose.of(&["on", "off"])),
        ];
        self.create("vpc", &name, size, &options, &[]);
        self.write("vpc", &name, size, None, choose);
    }

    fn vhdx(&mut self, choose: &mut Choices) {
        let size = size(choose).next_multiple_of(MIB);
        let name = self.name.clone();
        let options = [
            format!("subformat={}", choose.of(&["dynamic", "dynamic", "fixed"])),
            format!("block_size={}", MIB << choose.between(0, 5)),
            format!("log_size={}", choose.of(&[1, 2, 4]) * MIB),
            format!("block_state_zero={}", choose.of(&["on", "off"])),
        ];
        self.create("vhdx", &name, size, &options, &[]);
        self.write("vhdx", &name, size, None, choose);
    }

    fn parallels(&mut self, choose: &mut Choices) {
        // Only whole sectors can be made.
        let size = size(choose).next_multiple_of(512);
        let name = self.name.clone();
        let cluster = choose.of(&[512, 4 * KIB, 64 * KIB, 63 * 512, MIB, MIB]);
        let options = format!("cluster_size={cluster}");
        if choose.one_in(3) {
            self.convert("parallels", &options, size, choose);
        } else {
            self.create("parallels", &name, size, &[options], &[]);
            self.write("parallels", &name, size, None, choose);
        }
    }

    fn vdi(&mut self, choose: &mut Choices) {
        let size = size(choose);
        let name = self.name.clone();
        let options = format!("static={}", choose.of(&["on", "off", "off"]));
        if choose.one_in(3) {
            self.convert("vdi", &options, size, choose);
        } else {
            self.create("vdi", &name, size, &[options], &[]);
            self.write("vdi", &name, size, None, choose);
        }
    }
}

/// A disk's size: mostly small, rarely up to 64 MiB, often odd.
fn size(choose: &mut Choices) -> u64 {
    let limit = choose.of(&[16 * KIB, MIB, 4 * MIB, 4 * MIB, 8 * MIB, 64 * MIB]);
    let size = choose.between(512, limit);
    match choose.between(0, 2) {
        0 => size,
        1 => size.next_multiple_of(512),
        _ => size.next_multiple_of(64 * KIB),
    }
}

/// A range of whole sectors, mostly short and often on borders.
fn range(size: u64, choose: &mut Choices) -> (u64, u64) {
    let unit = choose.of(&[512, 512, 4 * KIB, 64 * KIB, MIB]).min(size - size % 512);
    let offset = choose.between(0, (size - unit) / unit) * unit;
    let most = (size - offset) / 512;
    let sectors = choose.of(&[1, 8, 128, 2048, 8192]);
    let length = choose.between(1, sectors.min(most)) * 512;
    (offset, length)
}
