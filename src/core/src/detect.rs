//! Finding out which format a file is in.

use crate::{
    Advice, Entry, Error, ErrorKind, ImageFormat, Registry, Result, SECTOR, Storage, check_length,
    read_padded,
};

/// Bytes of the file's head that a format may look at.
const HEAD: u64 = 128 << 10;
/// Bytes of the file's tail that a format may look at.
const TAIL: u64 = 4 << 10;

/// How sure a format is that a file is in it, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// It is not.
    No,
    /// Any file can be read this way (raw), or a mark is there that speaks of another file, such
    /// as one that is stored in this one.
    Fallback,
    /// Something looks like it.
    Hint,
    /// The magic is there, but what should agree with it does not, which opening will tell, or
    /// there is nothing to tell the file from the disk of another container.
    Magic,
    /// The magic is there, and a checksum or cross-check agrees.
    Verified,
}

impl std::fmt::Display for Confidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::No => "no",
            Self::Fallback => "fallback",
            Self::Hint => "hint",
            Self::Magic => "magic",
            Self::Verified => "verified",
        })
    }
}

/// What a format may look at to answer [`ImageFormat::probe`]: bytes of the file, and nothing else.
/// A structure that the file ends in is not completed by zeros.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    length: u64,
}

impl<'a> Probe<'a> {
    /// A probe of a file of `length` bytes. `head` starts at byte 0. `tail` ends at `length`
    /// rounded up to a sector. Bytes past `length` are left out.
    pub fn new(head: &'a [u8], tail: &'a [u8], length: u64) -> Self {
        let in_file = usize::try_from(length).map_or(head.len(), |length| length.min(head.len()));
        let padding = usize::try_from(length.next_multiple_of(SECTOR) - length).unwrap_or(0);
        Self {
            head: head.get(..in_file).unwrap_or_default(),
            tail: tail.get(..tail.len().saturating_sub(padding)).unwrap_or_default(),
            length,
        }
    }

    /// The file's first bytes: 128 KiB, or the whole file.
    pub fn head(&self) -> &'a [u8] {
        self.head
    }

    /// The file's last bytes, from at least 3.5 KiB before its end on, or the whole file.
    pub fn tail(&self) -> &'a [u8] {
        self.tail
    }

    /// The file's last sector, of which the file may have only a part: 1 to 512 bytes, none of an
    /// empty file.
    pub fn last_sector(&self) -> &'a [u8] {
        let length = match usize::try_from(self.length % SECTOR) {
            Ok(part) if part > 0 => part,
            _ => 512,
        };
        let start = self.tail.len().saturating_sub(length);
        self.tail.get(start..).unwrap_or_default()
    }

    /// Whether `magic` is at byte `at`, at most 128 KiB. Zeros at the end of the magic may be past
    /// the end of the file, as in qemu, so that a file cut off there is still recognised.
    pub fn has_magic(&self, at: usize, magic: &[u8]) -> bool {
        let found = self.head.get(at..).unwrap_or_default();
        let (present, missing) = magic.split_at(found.len().min(magic.len()));
        found.starts_with(present)
            && (missing.is_empty() || self.head.len() as u64 == self.length)
            && missing.iter().all(|byte| *byte == 0)
    }

    /// The file's length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// What each format said about a file.
pub struct Detection {
    /// All formats and their answers, in the registry's order.
    pub answers: Vec<(Entry, Confidence)>,
    /// What the file seems to hold, such as "gzip data", if the winner takes any file and knows
    /// ([`ImageFormat::resembles`]).
    pub resembles: Option<&'static str>,
}

impl Detection {
    /// The format that is surest.
    ///
    /// # Errors
    /// [`ErrorKind::Ambiguous`] if two are equally sure, [`ErrorKind::WrongFormat`] if none is.
    pub fn winner(&self) -> Result<&'static dyn ImageFormat> {
        self.winner_of("").map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::Ambiguous => Advice::ChooseFormat,
                _ => Advice::StateFormat,
            };
            error.with_advice(advice)
        })
    }

    /// The winner of a file that another image names: the caller cannot state its format.
    ///
    /// # Errors
    /// As [`Self::winner`].
    pub(crate) fn winner_below(&self) -> Result<&'static dyn ImageFormat> {
        self.winner_of(", and the image that names it does not say which")
            .map_err(|error| error.with_advice(Advice::IgnoreExternal))
    }

    fn winner_of(&self, addition: &str) -> Result<&'static dyn ImageFormat> {
        match surest(&self.answers).as_slice() {
            [] => {
                let text = format!("not in any of the formats compiled in{addition}");
                Err(Error::new(ErrorKind::WrongFormat, text))
            }
            [(only, _)] => Ok(only.format),
            several => {
                let names: Vec<&str> = several.iter().map(|(e, _)| e.format.name()).collect();
                let text = format!("could be any of {}{addition}", names.join(", "));
                Err(Error::new(ErrorKind::Ambiguous, text))
            }
        }
    }
}

/// The entries with the surest of the answers, if any of them claims the file.
fn surest(answers: &[(Entry, Confidence)]) -> Vec<(Entry, Confidence)> {
    let best = answers.iter().map(|(_, c)| *c).max().filter(|best| *best > Confidence::No);
    answers.iter().filter(|(_, c)| Some(*c) == best).copied().collect()
}

/// Shows the file's head and tail to every format.
///
/// # Errors
/// [`ErrorKind::Io`] if they cannot be read; [`ErrorKind::Limit`] as [`check_length`].
pub fn detect(registry: &Registry, storage: &dyn Storage) -> Result<Detection> {
    check_length(storage)?;
    let padded = storage.len().next_multiple_of(SECTOR);
    let read = |start: u64, end: u64| {
        // Both differ by at most HEAD.
        let length = usize::try_from(end - start).unwrap_or(0);
        let mut bytes = vec![0; length];
        read_padded(storage, start, &mut bytes)
            .map_err(|e| Error::io("cannot read the file to determine its format", e))?;
        Ok(bytes)
    };
    let head = read(0, padded.min(HEAD))?;
    let tail = read(padded.saturating_sub(TAIL), padded)?;
    let probe = Probe::new(&head, &tail, storage.len());
    let answers: Vec<(Entry, Confidence)> =
        registry.entries().iter().map(|entry| (*entry, entry.format.probe(&probe))).collect();
    let resembles = match surest(&answers).as_slice() {
        [(only, Confidence::Fallback)] => only.format.resembles(&probe),
        _ => None,
    };
    Ok(Detection { answers, resembles })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn zeros_at_the_end_of_a_magic_may_be_missing() {
        let has = |file: &[u8], at, magic: &[u8]| {
            Probe::new(file, file, file.len() as u64).has_magic(at, magic)
        };
        for file in [b"QED\0\0x".as_slice(), b"QED\0\0", b"QED\0", b"QED"] {
            assert!(has(file, 0, b"QED\0\0"), "{file:?}");
            assert!(has(&[b"xx", file].concat(), 2, b"QED\0\0"), "{file:?}");
            assert!(!has(file, 0, b"QED\0\x01"), "{file:?}");
            assert!(!has(file, 1, b"QED\0\0"), "{file:?}");
        }
        for file in [b"QE".as_slice(), b"", b"QED\0x", b"QEDx"] {
            assert!(!has(file, 0, b"QED\0\0"), "{file:?}");
        }
        // The head is not all of this file.
        assert!(!Probe::new(b"QED", b"", 4).has_magic(0, b"QED\0"));
    }

    #[test]
    fn a_probe_shows_bytes_of_the_file_and_no_padding() {
        const KIB: usize = 1024;
        for (length, head, tail, last) in [
            (0, 0, 0, 0),
            (1, 1, 1, 1),
            (511, 511, 511, 511),
            (512, 512, 512, 512),
            (513, 513, 513, 1),
            (4 * KIB, 4 * KIB, 4 * KIB, 512),
            (4 * KIB + 1, 4 * KIB + 1, 3585, 1),
            (128 * KIB - 1, 128 * KIB - 1, 4095, 511),
            (128 * KIB + 10, 128 * KIB, 3594, 10),
            (200 * KIB, 128 * KIB, 4 * KIB, 512),
        ] {
            let file: Vec<u8> = (0..length).map(|at| (at % 251 + 1).to_le_bytes()[0]).collect();
            let padded = file.len().next_multiple_of(512);
            let mut bytes = file.clone();
            bytes.resize(padded, 0);
            let probe = Probe::new(
                &bytes[..padded.min(128 * KIB)],
                &bytes[padded.saturating_sub(4 * KIB)..],
                file.len() as u64,
            );
            assert_eq!(probe.head(), &file[..head], "{length}");
            assert_eq!(probe.tail(), &file[length - tail..], "{length}");
            assert_eq!(probe.last_sector(), &file[length - last..], "{length}");
        }
    }
}
