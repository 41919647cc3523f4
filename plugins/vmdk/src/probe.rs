//! Whether a file is a VMDK.

use instar_core::{Confidence, Fields, Probe};

use crate::disk::{CowdHeader, SparseHeader};
use crate::sparse::Kind;

/// A text descriptor is looked for in so many bytes, as in qemu.
const TEXT: usize = 512;

/// The bytes at 73 to 76 of a `KDMV` header: they would change if the file had been transferred
/// as text (5.0, Hosted Sparse Extents).
const LINE_END_CHECK: (usize, &[u8; 4]) = (73, b"\n \r\n");

pub(crate) fn probe(probe: &Probe<'_>) -> Confidence {
    let head = probe.head();
    let fields = Fields::new("header", 0, head);
    let verified = match Kind::of(head) {
        Some(Kind::Hosted) => is_sound_hosted(&fields),
        Some(Kind::Cowd) => is_sound_cowd(&fields),
        // Two halfwords that mean something to others too; qemu does not look for them either.
        Some(Kind::SeSparse) => return Confidence::No,
        None => return probe_text(head.get(..TEXT).unwrap_or(head)),
    };
    if verified { Confidence::Verified } else { Confidence::Magic }
}

fn is_sound_hosted(fields: &Fields<'_>) -> bool {
    let (at, expected) = LINE_END_CHECK;
    fields.slice(at, expected.len()).is_ok_and(|bytes| bytes == expected)
        && SparseHeader::decode(fields).is_ok_and(|header| header.geometry().is_ok())
}

fn is_sound_cowd(fields: &Fields<'_>) -> bool {
    CowdHeader::decode(fields).is_ok_and(|header| {
        let needed = header.geometry().map(|geometry| geometry.directory_entries());
        header.version == 1
            && needed.is_ok_and(|needed| needed <= u64::from(header.directory_entries))
    })
}

/// Comments, lines of spaces, then the line that gives the version: qemu's rule to the letter,
/// so that the same files are raw.
fn probe_text(head: &[u8]) -> Confidence {
    let mut rest = head;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let Some((line, after)) = rest.split_at_checked(end) else {
            break;
        };
        rest = after.get(1..).unwrap_or_default();
        match line {
            [b'#', ..] => {}
            [b' ', ..] => {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if line.iter().any(|byte| *byte != b' ') {
                    return Confidence::No;
                }
            }
            _ => {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                return match line {
                    b"version=1" | b"version=2" | b"version=3" => Confidence::Magic,
                    _ => Confidence::No,
                };
            }
        }
    }
    Confidence::No
}

#[cfg(test)]
mod tests {
    use instar_core::testkit::probe;
    use instar_core::{Confidence, MemoryStorage};
    use pretty_assertions::assert_eq;

    use crate::Vmdk;
    use crate::samples::{self, Cowd, Hosted};

    fn answer(bytes: impl Into<Vec<u8>>) -> Confidence {
        probe(&Vmdk, &MemoryStorage::from_bytes(bytes))
    }

    #[test]
    fn magic_and_cross_checks() {
        assert_eq!(answer(Hosted::default().build()), Confidence::Verified);
        assert_eq!(answer(Cowd::default().build()), Confidence::Verified);
        assert_eq!(
            answer(Hosted { line_ends: *b"\n \n\n", ..Default::default() }.build()),
            Confidence::Magic
        );
        assert_eq!(answer(Hosted { version: 4, ..Default::default() }.build()), Confidence::Magic);
        assert_eq!(
            answer(Cowd { directory_entries: 0, ..Default::default() }.build()),
            Confidence::Magic
        );
        let mut other_version = Cowd::default().build();
        other_version[4] = 2;
        assert_eq!(answer(other_version), Confidence::Magic);
        assert_eq!(answer(*b"KDMV"), Confidence::Magic);
        assert_eq!(answer(*b"COWD"), Confidence::Magic);
        assert_eq!(answer(*b"KDM"), Confidence::No);
        assert_eq!(answer(*b"kdmv"), Confidence::No);
        assert_eq!(answer(samples::SeSparse::default().build()), Confidence::No);
        assert_eq!(answer(Vec::new()), Confidence::No);
    }

    #[test]
    fn the_text_rule_is_qemus() {
        for text in [
            "version=1\n",
            "version=2\r\n",
            "version=3\nanything",
            "# Disk DescriptorFile\nversion=1\n",
            "#\r\n   \n  \r\n#x\nversion=1\r\n",
        ] {
            assert_eq!(answer(text.as_bytes()), Confidence::Magic, "{text:?}");
        }
        for text in [
            "",
            "\nversion=1\n",
            "\r\nversion=1\n",
            "\tversion=1\n",
            " x\nversion=1\n",
            " \r\r\nversion=1\n",
            "\u{feff}version=1\n",
            "version = 1\n",
            "Version=1\n",
            "version=1 \n",
            "version=4\n",
            "version=1",
            "version=1\r",
            "version=1\r\r\n",
            "encoding=\"UTF-8\"\nversion=1\n",
            "#version=1\n",
        ] {
            assert_eq!(answer(text.as_bytes()), Confidence::No, "{text:?}");
        }
    }

    #[test]
    fn the_version_line_ends_within_512_bytes() {
        let text = |comment: usize| format!("#{}\nversion=1\n", "x".repeat(comment));
        assert_eq!(answer(text(500).as_bytes()), Confidence::Magic);
        assert_eq!(answer(text(501).as_bytes()), Confidence::No);
    }
}
