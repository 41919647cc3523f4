//! The images of `testdata/manifest.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use super::{all_enabled, enabled};

/// One image, as `testdata/README.md` describes its fields.
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) format: String,
    pub(crate) safe: bool,
    pub(crate) size: u64,
    pub(crate) runs: Vec<(u64, u64)>,
    /// `-f` that qemu needs.
    pub(crate) qemu_format: Option<String>,
    /// What takes the place of FILE for qemu.
    pub(crate) qemu_args: Option<Vec<String>>,
    pub(crate) variants: Vec<Vec<String>>,
    pub(crate) companions: Vec<String>,
    pub(crate) windows: Vec<Vec<String>>,
    pub(crate) skip_versions: BTreeMap<String, String>,
    pub(crate) needs_blocks: Option<u64>,
}

/// Images that make sense only if every format is there to claim its part of them.
const NEEDS_ALL_FORMATS: &[&str] = &["vdi-hostile-polyglot", "vhd-hostile-polyglot"];

impl Entry {
    /// Whether nothing is recorded for this version, because of what the manifest says.
    pub(crate) fn skipped_in(&self, version: &str) -> bool {
        self.skip_versions.contains_key(version) || self.skip_versions.contains_key("*")
    }

    /// Whether the formats of the image and of those beside it are compiled in.
    pub(crate) fn runnable(&self) -> bool {
        with_companions(&self.id).iter().all(|e| enabled(&e.format))
            && (all_enabled() || !NEEDS_ALL_FORMATS.contains(&self.id.as_str()))
    }

    /// Whether a variant of the image asks for no format that is not compiled in.
    pub(crate) fn runnable_as(&self, variant: &[String]) -> bool {
        self.runnable() && asked_format(variant).is_none_or(enabled)
    }

    /// A name for a variant, for tests' names.
    pub(crate) fn label(&self, variant: &[String]) -> String {
        match (self.variants.len(), asked_format(variant)) {
            (1, _) => self.id.clone(),
            (_, Some(format)) => format!("{}::as-{format}", self.id),
            (_, None) => format!("{}::probed", self.id),
        }
    }

    /// The arguments for qemu-img that name the image.
    pub(crate) fn qemu_target(&self) -> Vec<String> {
        if let Some(args) = &self.qemu_args {
            return args.clone();
        }
        let mut args = Vec::new();
        if let Some(format) = &self.qemu_format {
            args.extend(["-f".to_owned(), format.clone()]);
        }
        args.push(self.name.clone());
        args
    }
}

/// The format that `-f X` in the arguments asks for.
pub(crate) fn asked_format(args: &[String]) -> Option<&str> {
    let at = args.iter().position(|arg| arg == "-f")?;
    args.get(at + 1).map(String::as_str)
}

/// The path of something in `testdata`.
pub(crate) fn testdata(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(relative)
}

/// All images, whatever is compiled in.
pub(crate) fn manifest() -> &'static [Entry] {
    static ENTRIES: OnceLock<Vec<Entry>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let text = std::fs::read_to_string(testdata("manifest.json")).expect("a manifest");
        let value: Value = serde_json::from_str(&text).expect("a manifest in JSON");
        let images = value["images"].as_array().expect("a list of images");
        assert!(images.len() >= 60, "the manifest has {}", images.len());
        images.iter().map(entry).collect()
    })
}

/// The images whose formats are compiled in.
pub(crate) fn runnable() -> impl Iterator<Item = &'static Entry> {
    manifest().iter().filter(|entry| entry.runnable())
}

/// The image of this id.
pub(crate) fn find(id: &str) -> &'static Entry {
    manifest()
        .iter()
        .find(|entry| entry.id == id)
        .unwrap_or_else(|| panic!("the manifest has no image {id}"))
}

/// The image and everything that lies beside it, the image first.
pub(crate) fn with_companions(id: &str) -> Vec<&'static Entry> {
    let mut found: Vec<&Entry> = vec![find(id)];
    let mut at = 0;
    while let Some(entry) = found.get(at) {
        for next in &entry.companions {
            if found.iter().all(|known| known.id != *next) {
                found.push(find(next));
            }
        }
        at += 1;
    }
    found
}

fn entry(value: &Value) -> Entry {
    let text = |key: &str| {
        let text = value[key].as_str();
        text.unwrap_or_else(|| panic!("{key} in {value}")).to_owned()
    };
    let qemu = &value["qemu"];
    Entry {
        id: text("id"),
        name: text("name"),
        format: text("format"),
        safe: match text("kind").as_str() {
            "safe" => true,
            "hostile" => false,
            other => panic!("kind {other:?}"),
        },
        size: value["size"].as_u64().expect("a size"),
        runs: value["runs"]
            .as_array()
            .expect("runs")
            .iter()
            .map(|run| {
                let number = |i: usize| run[i].as_u64().expect("offset and length");
                (number(0), number(1))
            })
            .collect(),
        qemu_format: qemu["format"].as_str().map(str::to_owned),
        qemu_args: qemu["args"].is_array().then(|| strings(&qemu["args"])),
        variants: match &value["variants"] {
            Value::Array(list) => list.iter().map(strings).collect(),
            _ => vec![Vec::new()],
        },
        companions: strings(&value["companions"]),
        windows: value["windows"]
            .as_array()
            .map(|list| list.iter().map(strings).collect())
            .unwrap_or_default(),
        skip_versions: value["skip_versions"]
            .as_object()
            .map(|skips| {
                let pair = |(k, v): (&String, &Value)| (k.clone(), v.to_string());
                skips.iter().map(pair).collect()
            })
            .unwrap_or_default(),
        needs_blocks: value["needs_blocks"].as_u64(),
    }
}

/// A JSON array of strings; what is absent has none.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|item| item.as_str().expect("a string").to_owned()).collect()
}
