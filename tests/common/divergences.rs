//! Where the output differs from qemu-img's on purpose. `docs/quirks.md` has the same list, and
//! `tests/divergences.rs` checks that each entry is still different.

use super::baseline::{Theirs, output_of};
use super::binary::Run;
use super::compare::Question;

/// One deliberate difference.
pub(crate) struct Divergence {
    /// Its heading in `docs/quirks.md`; two entries with different kinds may share one.
    pub(crate) id: &'static str,
    /// Formats of the images concerned.
    pub(crate) formats: &'static [&'static str],
    /// Ids of the images concerned; a `*` at the end stands for any rest.
    pub(crate) images: &'static [&'static str],
    /// `human`, `json` or both.
    pub(crate) outputs: &'static [&'static str],
    /// Versions of qemu concerned; all of them if empty.
    pub(crate) versions: &'static [&'static str],
    /// In which way the answers differ.
    pub(crate) kind: Kind,
    /// Why ours is what it is.
    pub(crate) reason: &'static str,
}

/// In which way two answers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// We refuse because the image names another file; qemu opens that.
    ExternalRefused,
    /// We map, or refuse a hostile image; qemu prints something else, or less.
    MapsOtherwise,
    /// The same, if the format is detected rather than asked for.
    DetectsOtherwise,
    /// We fail; qemu prints a map.
    Fails,
    /// We map; qemu ends by a signal.
    QemuCrashes,
    /// We accept a size on the command line that qemu does not.
    AcceptsSize,
    /// No recorded run shows it; `tests/divergences.rs` has a test of its own.
    NotInBaselines,
}

const BOTH: &[&str] = &["human", "json"];
const ALL: &[&str] = &[];

pub(crate) const DIVERGENCES: &[Divergence] = &[
    Divergence {
        id: "external-refused",
        formats: &["qcow", "qcow2", "qed", "vmdk", "vhd"],
        images: &["qcow-*", "qcow2-*", "qed-*", "vmdk-*", "vhd-*"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::ExternalRefused,
        reason: "an image decides which files are read only if the user says so",
    },
    Divergence {
        id: "external-refused",
        formats: &["vmdk"],
        images: &["vmdk-bad-text-device"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::Fails,
        reason: "an image decides on no account that a device is read",
    },
    Divergence {
        id: "metadata-outside-file",
        formats: &["parallels", "qcow", "qcow2", "vdi", "vhd", "vhdx", "vmdk", "bochs", "cloop"],
        images: &[
            "bochs-bad-catalog-cut",
            "bochs-bad-catalog-far",
            "bochs-bad-header-cut",
            "cloop-bad-table-far",
            "parallels-hostile-extension-cut",
            "parallels-hostile-table-cut",
            "parallels-hostile-table-outside",
            "qcow-bad-cut-before-l1",
            "qcow-bad-cut-header",
            "qcow-bad-l1-beyond-file",
            "qcow-bad-l1-far",
            "qcow-bad-l1-is-header",
            "qcow-bad-l1-past-end",
            "qcow-bad-l2-beyond-file",
            "qcow-bad-l2-far",
            "qcow-bad-l2-past-end",
            "qcow-bad-name-cut",
            "qcow-bad-name-outside",
            "qcow2-bad-cut-before-l1",
            "qcow2-bad-l1-beyond-file",
            "qcow2-bad-l1-far",
            "qcow2-bad-l2-beyond-file",
            "qcow2-bad-l2-far",
            "qcow2-bad-snapshots-beyond-file",
            "vdi-hostile-map-outside",
            "vdi-hostile-map-past-end",
            "vdi-hostile-truncated-map",
            "vhd-hostile-header-cut",
            "vmdk-bad-cowd-directory-outside",
            "vmdk-bad-directory-outside",
            "vmdk-bad-table-far",
            "vmdk-bad-table-outside",
            "vmdk-bad-text-flat-far",
        ],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::Fails,
        reason: "a truncated image is not an empty disk",
    },
    Divergence {
        id: "magic-cut",
        formats: &["parallels", "qcow2"],
        images: &["qcow2-bad-magic-only"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::DetectsOtherwise,
        reason: "a truncated image is not a raw disk",
    },
    Divergence {
        id: "qemu-crash",
        formats: &["parallels", "qcow2", "qed", "vmdk", "vhd"],
        images: &["parallels-2-tib", "qcow2-aes-long-run", "qed-long-run"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::QemuCrashes,
        reason: "qemu-img aborts; the map is what it prints for shorter runs",
    },
    Divergence {
        id: "size-syntax-of-newest",
        formats: &["raw"],
        images: &["raw-data-and-holes"],
        outputs: BOTH,
        versions: &["5.2"],
        kind: Kind::AcceptsSize,
        reason: "sizes are read as the newest qemu-img reads them, whatever --qemu-version says",
    },
    Divergence {
        id: "size-units",
        formats: super::recipe::FORMATS,
        images: &[],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::NotInBaselines,
        reason: "other tools write KiB and MiB, and nobody means something else by it",
    },
    Divergence {
        id: "qcow-unaligned",
        formats: &["qcow"],
        images: &["qcow-bad-cluster-unaligned-*"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::MapsOtherwise,
        reason: "what qemu-img prints is not where qemu reads",
    },
    Divergence {
        id: "vhdx-allocation",
        formats: &["vhdx"],
        images: &["vhdx-*"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::MapsOtherwise,
        reason: "qemu-img says one range of data for any VHDX; the image knows better",
    },
    Divergence {
        id: "vhd-fixed-detected",
        formats: &["vhd"],
        images: &[
            "vhd-fixed*",
            "vhd-hostile-fixed-checksum",
            "vhd-hostile-fixed-other-size",
            "vhd-hostile-fixed-size-all-ones",
            "vhd-hostile-fixed-too-large",
            "vhd-hostile-fixed-type",
            "vhd-hostile-headless-dynamic",
            "vhd-hostile-polyglot",
        ],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::DetectsOtherwise,
        reason: "the footer of a fixed VHD is no part of its disk",
    },
    Divergence {
        id: "vhd-fixed-large",
        formats: &["vhd"],
        images: &["vhd-large-fixed"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::MapsOtherwise,
        reason: "a fixed disk has no table that could be too small",
    },
    Divergence {
        id: "vhd-spare-entries",
        formats: &["vhd"],
        images: &["vhd-hostile-spare-block-outside"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::MapsOtherwise,
        reason: "no byte of the disk is in the block of a spare entry",
    },
    Divergence {
        id: "bochs-detected",
        formats: &["bochs"],
        images: &["bochs-bad-type", "bochs-bad-undoable", "bochs-bad-version"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::DetectsOtherwise,
        reason: "a Bochs image of another kind is no raw disk",
    },
    Divergence {
        id: "cloop-detected",
        formats: &["cloop"],
        images: &["cloop-other-preamble", "cloop-bad-other-preamble-size", "cloop-bad-version-4"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::DetectsOtherwise,
        reason: "the commands in front of a cloop image are up to whoever made it",
    },
    Divergence {
        id: "cloop-detected",
        formats: &["cloop"],
        images: &["cloop-bad-no-preamble"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::Fails,
        reason: "a file without a mark of the format is not in it",
    },
    Divergence {
        id: "cloop-over-2-tib",
        formats: &["cloop"],
        images: &["cloop-3-tib"],
        outputs: BOTH,
        // Up to some 10.0.x, which the version alone does not tell.
        versions: ALL,
        kind: Kind::MapsOtherwise,
        reason: "old qemu-img counts the sectors of the disk in 32 bits",
    },
    Divergence {
        id: "dmg-chunks",
        formats: &["dmg"],
        images: &["dmg-udif-*", "dmg-bad-*"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::MapsOtherwise,
        reason: "qemu-img says one range of data for any UDIF image; its tables know better",
    },
    Divergence {
        id: "dmg-detected",
        formats: &["dmg"],
        images: &["dmg-named-img", "dmg-encrypted", "dmg-trailer-in-front"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::DetectsOtherwise,
        reason: "what a file is does not depend on its name",
    },
    Divergence {
        id: "luks-without-key",
        formats: &["luks"],
        images: &["luks-no-key"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::MapsOtherwise,
        reason: "where the encrypted bytes are is told without the key",
    },
    Divergence {
        id: "luks-version-2",
        formats: &["luks"],
        images: &["luks-2-*", "luks-bad-2-*", "luks-bad-version-3-probed"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::DetectsOtherwise,
        reason: "an encrypted volume is no raw disk",
    },
    Divergence {
        id: "vhd-differencing",
        formats: &["vhd"],
        images: &["vhd-differencing*", "vhd-hostile-parent-*"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::MapsOtherwise,
        reason: "what a parent has is not zero",
    },
    Divergence {
        id: "vdi-blocks",
        formats: &["vdi"],
        images: &["vdi-blocks-*", "vdi-hostile-extra"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::MapsOtherwise,
        reason: "the header says how large blocks are and what is between them",
    },
    Divergence {
        id: "parallels-odd-clusters",
        formats: &["parallels"],
        images: &["parallels-extended-63"],
        outputs: BOTH,
        versions: &["11.1"],
        kind: Kind::MapsOtherwise,
        reason: "the first cluster behind the table holds data",
    },
    Divergence {
        id: "parallels-entry-outside",
        formats: &["parallels"],
        images: &[
            "parallels-hostile-data-start-at-end",
            "parallels-hostile-data-start-unaligned",
            "parallels-hostile-entry-*",
            "parallels-hostile-truncated",
            "parallels-hostile-truncated-early",
        ],
        outputs: BOTH,
        versions: &["11.1"],
        kind: Kind::Fails,
        reason: "an image that was cut is not an empty disk",
    },
    Divergence {
        id: "two-formats",
        formats: &["vdi"],
        images: &["vdi-hostile-polyglot"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::Fails,
        reason: "a file in two formats has no one map",
    },
    Divergence {
        id: "vmdk-blank-lines",
        formats: &["vmdk"],
        images: &["vmdk-flat-behind-blanks"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::MapsOtherwise,
        reason: "a line of a descriptor is one extent",
    },
    Divergence {
        id: "vmdk-split",
        formats: &["vmdk"],
        images: &["vmdk-split*", "vmdk-rdonly-extent", "vmdk-zero-extent", "vmdk-zero-only"],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::MapsOtherwise,
        reason: "the offsets that qemu-img prints are of other bytes",
    },
    Divergence {
        id: "broken-parts-skipped",
        formats: &["vmdk", "vhdx"],
        images: &[],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::NotInBaselines,
        reason: "a disk without one of its pieces is not the disk",
    },
    Divergence {
        id: "data-file-folder",
        formats: &["qcow2"],
        images: &[],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::NotInBaselines,
        reason: "where a file is must not depend on where the program is started",
    },
    Divergence {
        id: "write-errors",
        formats: super::recipe::FORMATS,
        images: &[],
        outputs: BOTH,
        versions: ALL,
        kind: Kind::NotInBaselines,
        reason: "half a map must not look like a whole one",
    },
];

impl Divergence {
    /// Whether the entry is about this image.
    pub(crate) fn concerns(&self, id: &str) -> bool {
        self.images.iter().any(|pattern| matches(pattern, id))
    }

    /// Whether the entry explains that these two answers differ.
    pub(crate) fn covers(&self, question: &Question<'_>, ours: &Run, theirs: &Theirs) -> bool {
        let hostile = !question.entry.safe;
        let refused = ours.status == 1 && ours.stdout.is_empty();
        let names_option = refused && ours.stderr.contains("--external=");
        // The table cannot show some ranges: then it ends there, on purpose.
        let unshown = "external, encrypted or compressed clusters";
        let mapped = ours.status == 0 || (ours.status == 1 && ours.stderr.contains(unshown));
        let crashed = theirs.status.is_some_and(|status| status >= 128);
        self.formats.contains(&question.entry.format.as_str())
            && self.concerns(&question.entry.id)
            && self.outputs.contains(&output_of(question.args))
            && (self.versions.is_empty() || self.versions.contains(&question.version))
            && match self.kind {
                Kind::ExternalRefused => names_option,
                Kind::MapsOtherwise if mapped => !crashed,
                Kind::MapsOtherwise => hostile && !names_option && theirs.status == Some(0),
                Kind::DetectsOtherwise => question.extra.is_empty() && !names_option,
                Kind::Fails => ours.status == 1 && !names_option && theirs.status == Some(0),
                Kind::QemuCrashes => ours.status == 0 && crashed,
                Kind::NotInBaselines => false,
                Kind::AcceptsSize => ours.status == 0 && theirs.stderr.contains("Invalid m"),
            }
    }
}

/// Whether a pattern, with or without a `*` at its end, matches.
pub(crate) fn matches(pattern: &str, id: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => id.starts_with(start),
        None => id == pattern,
    }
}
