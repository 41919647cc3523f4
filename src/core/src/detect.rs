//! Finding out which format a file is in.

use crate::{
    Advice, Entry, Error, ErrorKind, ImageFormat, Registry, Result, SECTOR, Storage, read_padded,
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

/// What a format may look at to answer [`ImageFormat::probe`].
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    length: u64,
}

impl<'a> Probe<'a> {
    /// A probe of a file of `length` bytes. `head` starts at byte 0, `tail` ends at the file's
    /// end; both are padded with zeros to whole sectors.
    pub fn new(head: &'a [u8], tail: &'a [u8], length: u64) -> Self {
        Self { head, tail, length }
    }

    /// The file's first bytes: 128 KiB, or the whole file rounded up to a sector.
    pub fn head(&self) -> &'a [u8] {
        self.head
    }

    /// The file's last bytes: 4 KiB, or the whole file, up to its length rounded up to a sector.
    pub fn tail(&self) -> &'a [u8] {
        self.tail
    }

    /// The 512 bytes that end at the file's length rounded up to a sector.
    pub fn last_sector(&self) -> Option<&'a [u8; 512]> {
        self.tail.last_chunk()
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
/// [`ErrorKind::Io`] if they cannot be read.
pub fn detect(registry: &Registry, storage: &dyn Storage) -> Result<Detection> {
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
