//! Why instar may refuse an altered image that qemu-img maps.

/// One reason.
pub(crate) struct Reason {
    /// The heading in `docs/quirks.md` that explains it.
    pub(crate) id: &'static str,
    /// Formats concerned; all of them if empty.
    pub(crate) formats: &'static [&'static str],
    /// A part of the message.
    pub(crate) says: &'static str,
}

const CLOOP: &[&str] = &["cloop"];
const DMG: &[&str] = &["dmg"];
const PARALLELS: &[&str] = &["parallels"];
const VDI: &[&str] = &["vdi"];
const VHD: &[&str] = &["vhd"];
const VMDK: &[&str] = &["vmdk"];
const VHDX: &[&str] = &["vhdx"];

pub(crate) const REASONS: &[Reason] = &[
    Reason { id: "external-refused", formats: &[], says: "--external=" },
    Reason { id: "parallels-entry-outside", formats: PARALLELS, says: "parallels: entry " },
    Reason { id: "metadata-outside-file", formats: &[], says: " is outside the file" },
    Reason { id: "metadata-outside-file", formats: &[], says: ", outside the file of " },
    Reason { id: "metadata-outside-file", formats: VHDX, says: " runs past the end of the file" },
    Reason { id: "metadata-outside-file", formats: &[], says: " is cut short: the file has " },
    // What qemu-img skips, and what `map` there never looks at.
    Reason { id: "broken-parts-skipped", formats: VMDK, says: "vmdk: createType " },
    Reason { id: "broken-parts-skipped", formats: VMDK, says: "vmdk: grain size is 0 sectors" },
    Reason { id: "broken-parts-skipped", formats: VMDK, says: "vmdk: extent line " },
    Reason { id: "broken-parts-skipped", formats: VMDK, says: "vmdk: parentFileNameHint " },
    Reason { id: "broken-parts-skipped", formats: VMDK, says: "vmdk: extent type " },
    Reason { id: "broken-parts-skipped", formats: VHDX, says: " is marked as required, but " },
    Reason { id: "broken-parts-skipped", formats: VHDX, says: " is misplaced: " },
    Reason { id: "broken-parts-skipped", formats: VHDX, says: " is not in the metadata table" },
    Reason { id: "broken-parts-skipped", formats: VHDX, says: "the header's version is " },
    Reason { id: "broken-parts-skipped", formats: VHDX, says: "no valid sequence of such entries" },
    Reason { id: "broken-parts-skipped", formats: VHDX, says: " table twice" },
    Reason { id: "vhdx-allocation", formats: VHDX, says: "vhdx: BAT entry " },
    Reason { id: "vdi-blocks", formats: VDI, says: "vdi: extra data of a block is " },
    Reason { id: "cloop-detected", formats: CLOOP, says: "cloop: no preamble: " },
    Reason { id: "cloop-detected", formats: CLOOP, says: "cloop: the format is V4.0" },
    Reason { id: "dmg-chunks", formats: DMG, says: "dmg: a block table is no valid base64" },
    Reason { id: "dmg-chunks", formats: DMG, says: "dmg: block table should have " },
    Reason { id: "dmg-chunks", formats: DMG, says: "dmg: block table is too short: " },
    Reason { id: "dmg-chunks", formats: DMG, says: "dmg: resource of " },
    Reason { id: "dmg-chunks", formats: DMG, says: "dmg: property list " },
    Reason { id: "dmg-detected", formats: DMG, says: " bytes ends in the trailer, which has " },
    Reason { id: "dmg-chunks", formats: DMG, says: "dmg: the image is split into " },
    Reason { id: "dmg-chunks", formats: DMG, says: "dmg: data offset of a block table is " },
    Reason { id: "dmg-chunks", formats: DMG, says: "dmg: no block table has a chunk" },
    Reason { id: "dmg-chunks", formats: DMG, says: "dmg: chunk of " },
    Reason { id: "dmg-chunks", formats: DMG, says: "dmg: plain chunk at sector " },
    Reason { id: "dmg-chunks", formats: DMG, says: "chunks overlap or are out of order" },
    Reason { id: "vhd-differencing", formats: VHD, says: " parent" },
];

/// The reason that an error message gives.
pub(crate) fn reason(format: &str, message: &str) -> Option<&'static Reason> {
    REASONS.iter().find(|reason| {
        (reason.formats.is_empty() || reason.formats.contains(&format))
            && message.contains(reason.says)
    })
}
