//! What the integration tests share.
#![allow(dead_code)] // every test binary uses its own part of it

pub(crate) mod baseline;
pub(crate) mod binary;
pub(crate) mod bombs;
pub(crate) mod bounded;
pub(crate) mod compare;
pub(crate) mod differencing;
pub(crate) mod divergences;
pub(crate) mod handmade;
pub(crate) mod lab;
pub(crate) mod manifest;
pub(crate) mod mutants;
pub(crate) mod naming;
pub(crate) mod oracle;
pub(crate) mod polyglot;
pub(crate) mod qemu;
pub(crate) mod random;
pub(crate) mod reasons;
pub(crate) mod recipe;
pub(crate) mod rows;
pub(crate) mod seeds;
pub(crate) mod terminal;
pub(crate) mod trace;
pub(crate) mod weave;
pub(crate) mod workers;

/// Every format that comes with instar, sorted, and whether its feature is enabled.
const FORMATS: &[(&str, bool)] = &[
    ("bochs", cfg!(feature = "bochs")),
    ("cloop", cfg!(feature = "cloop")),
    ("dmg", cfg!(feature = "dmg")),
    ("luks", cfg!(feature = "luks")),
    ("parallels", cfg!(feature = "parallels")),
    ("qcow", cfg!(feature = "qcow")),
    ("qcow2", cfg!(feature = "qcow2")),
    ("qed", cfg!(feature = "qed")),
    ("raw", cfg!(feature = "raw")),
    ("vdi", cfg!(feature = "vdi")),
    ("vhd", cfg!(feature = "vhd")),
    ("vhdx", cfg!(feature = "vhdx")),
    ("vmdk", cfg!(feature = "vmdk")),
];

/// The formats whose features are enabled, sorted.
pub(crate) fn enabled_formats() -> Vec<&'static str> {
    FORMATS.iter().filter_map(|(name, on)| on.then_some(*name)).collect()
}

/// Whether the format of this name (ours or qemu's) is compiled in.
pub(crate) fn enabled(format: &str) -> bool {
    let format = if format == "vpc" { "vhd" } else { format };
    enabled_formats().contains(&format)
}

/// Whether every format is compiled in.
pub(crate) fn all_enabled() -> bool {
    FORMATS.iter().all(|(_, on)| *on)
}
