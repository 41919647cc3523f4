//! Images that end too early: what is missing must not be taken for what is wrong.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{context, extents, open_storage};
use crate::{Error, ErrorKind, ImageFormat, MemoryStorage, Result, SECTOR, Storage};

/// Each of these first lengths is tried: the headers of most formats.
const EACH: u64 = 600;
/// How many lengths are tried in each piece of the image.
const IN_PIECE: u64 = 5;
/// Pieces in which lengths are tried, from the first on.
const PIECES: usize = 24;

/// Checks that an image which is cut short is a map or an error that does not blame what is not in
/// the file, and returns how many lengths were tried.
///
/// - An error about something at or past the end of the file says how long the file is.
/// - An error that is also that of a file with zeros in its last sector does not depend on them:
///   it is that of a file with anything else there. (A text ends where its file does, and may be
///   wrong where it ends.)
///
/// # Panics
/// If a law is broken.
pub(super) fn check_cut(format: &dyn ImageFormat, image: &MemoryStorage, about: &str) -> usize {
    let lengths = lengths(image);
    for length in &lengths {
        let mut cut = image.clone();
        cut.set_len(*length);
        let Err(error) = map(format, &cut) else { continue };
        let text = error.to_string();
        let about = format!("{about}: cut to {length} bytes: {text:?}");
        let is_of_format = !matches!(error.kind(), ErrorKind::Io | ErrorKind::Bug);
        assert!(is_of_format, "{about} is about the image: {:?}", error.kind());
        if error.offset().is_some_and(|offset| offset >= *length) {
            let says_length = text.contains(&format!(" {length} bytes"));
            assert!(
                says_length,
                "{about} is about what is not in the file, and says how long it is"
            );
        }
        if is_text(&cut) {
            continue;
        }
        let with = |byte: u8| map(format, &filled(&cut, byte)).err().map(|error| error.to_string());
        if with(0).as_ref() == Some(&text) {
            assert_eq!(with(0xff), Some(text), "{about} does not depend on zeros past the end");
        }
    }
    lengths.len()
}

/// The lengths that are tried: less than the image's.
fn lengths(image: &MemoryStorage) -> BTreeSet<u64> {
    let mut lengths: BTreeSet<u64> = (1..=EACH).collect();
    for (at, piece) in image.pieces().take(PIECES) {
        let length = piece.len() as u64;
        // Not only where sectors and fields start.
        lengths.extend((0..IN_PIECE).map(|part| at + length * part / IN_PIECE + part));
        lengths.extend([at + 3, at + 70]);
    }
    lengths.retain(|length| (1..image.len()).contains(length));
    lengths
}

fn map(format: &dyn ImageFormat, image: &MemoryStorage) -> std::result::Result<(), Error> {
    let opened: Result<_> = open_storage(format, Arc::new(image.clone()), &context());
    opened.and_then(|mut source| extents(source.as_mut())).map(|_| ())
}

/// The image with `byte` up to the end of its last sector.
fn filled(image: &MemoryStorage, byte: u8) -> MemoryStorage {
    let (length, end) = (image.len(), image.len().next_multiple_of(SECTOR));
    let more = usize::try_from(end - length).expect("less than a sector");
    image.clone().with_data(length, vec![byte; more])
}

fn is_text(image: &MemoryStorage) -> bool {
    let mut pieces = image.pieces();
    let first = pieces.next();
    first
        .is_some_and(|(at, text)| at == 0 && text.len() as u64 == image.len() && !text.contains(&0))
}
