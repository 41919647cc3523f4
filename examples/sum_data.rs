//! Sums the bytes of data of a disk image, file by file.
//!
//! ```console
//! $ cargo run --example sum_data -- --follow docs/overlay.qcow2
//! 12288 docs/overlay.qcow2
//! 24576 docs/demo.qcow2
//! 36864 in all
//! ```

use std::fmt::Write;
use std::process::ExitCode;

use instar::{ExternalPolicy, Image, Options};

const USAGE: &str = "usage: sum_data [--follow] IMAGE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sum_data: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the program prints.
///
/// # Errors
/// One of the image, or how the program is used.
pub fn run(arguments: &[String]) -> Result<String, Box<dyn std::error::Error>> {
    let (policy, path) = match arguments {
        [path] => (ExternalPolicy::Refuse, path),
        [option, path] if option == "--follow" => {
            (ExternalPolicy::Follow { allow_under: Vec::new() }, path)
        }
        _ => return Err(USAGE.into()),
    };
    let mut image = Image::open(path, Options::new().external(policy))?;
    let files = image.files().to_vec();
    let mut sums = vec![0; files.len()];
    // Encrypted and compressed data has no place in a file that means anything.
    let mut elsewhere = 0;
    let mut extents = image.extents();
    loop {
        let batch = extents.next_batch()?;
        if batch.is_empty() {
            break;
        }
        // Data that reads as zeros lies in a hole of the file: nothing is stored for it.
        for extent in batch.iter().filter(|extent| extent.flags.data() && !extent.flags.zero()) {
            let sum = match extent.offset() {
                Some(_) => sums.get_mut(usize::try_from(extent.file)?).ok_or("no such file")?,
                None => &mut elsewhere,
            };
            *sum += extent.length;
        }
    }
    let mut text = String::new();
    for (sum, file) in sums.iter().zip(&files) {
        writeln!(text, "{sum} {}", file.name)?;
    }
    if elsewhere > 0 {
        writeln!(text, "{elsewhere} compressed or encrypted")?;
    }
    writeln!(text, "{} in all", sums.iter().sum::<u64>() + elsewhere)?;
    Ok(text)
}
