//! Copies the data of a disk image, and nothing else, into a new raw file with holes.
//!
//! ```console
//! $ cargo run --example copy_data -- --follow docs/overlay.qcow2 overlay.raw
//! ```

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;

use instar::core::read_padded;
use instar::{ExternalPolicy, Image, Options, Row};

const USAGE: &str = "usage: copy_data [--follow] IMAGE TARGET";

/// Bytes that are copied at a time.
const PIECE: u64 = 1 << 20;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(copied) => {
            println!("{copied} bytes copied");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("copy_data: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Copies, and returns how many bytes.
///
/// # Errors
/// One of the image or of the target, or how the program is used.
pub fn run(arguments: &[String]) -> Result<u64, Failure> {
    let (policy, source, target) = match arguments {
        [source, target] => (ExternalPolicy::Refuse, source, target),
        [option, source, target] if option == "--follow" => {
            (ExternalPolicy::Follow { allow_under: Vec::new() }, source, target)
        }
        _ => return Err(USAGE.into()),
    };
    let options = Options::new().external(policy).on_notice(|notice| {
        eprintln!("copy_data: warning: {}", notice.text);
    });
    let mut image = Image::open(source, options)?;
    // Nothing is written before it is known that all of it can be.
    for extent in image.extents() {
        check(&extent?)?;
    }
    let file = OpenOptions::new().write(true).create_new(true).open(target)?;
    copy(&mut image, &file).inspect_err(|_| {
        // Half a disk must not look like a whole one.
        let _ = std::fs::remove_file(Path::new(target));
    })
}

/// Refuses data whose bytes cannot be had from a file as they are.
fn check(extent: &Row) -> Result<(), Failure> {
    let at = extent.start;
    match extent.flags.state() {
        "compressed" => {
            Err(format!("the data at {at:#x} is compressed, which is not copied").into())
        }
        "opaque" => Err(format!("the data at {at:#x} is encrypted, which is not copied").into()),
        _ => Ok(()),
    }
}

fn copy(image: &mut Image, target: &File) -> Result<u64, Failure> {
    target.set_len(image.virtual_size())?;
    let files = image.files().to_vec();
    let mut buffer = vec![0; usize::try_from(PIECE)?];
    let mut copied = 0;
    for extent in image.extents() {
        let extent = extent?;
        check(&extent)?;
        // What reads as zeros stays a hole.
        let (Some(offset), false) = (extent.offset(), extent.flags.zero()) else { continue };
        let file = files.get(usize::try_from(extent.file)?).ok_or("no such file")?;
        let storage = file.storage.as_ref().ok_or("the file with the data was not opened")?;
        let mut done = 0;
        while done < extent.length {
            let length = PIECE.min(extent.length - done);
            let piece = buffer.get_mut(..usize::try_from(length)?).ok_or("a piece is too long")?;
            read_padded(storage.as_ref(), offset + done, piece)?;
            target.write_all_at(piece, extent.start + done)?;
            done += length;
        }
        copied += done;
    }
    Ok(copied)
}
