//! Makes the images of `benches/bombs` in a folder and lists them, as JSON.
#![allow(clippy::indexing_slicing)]

#[path = "../../tests/common/bombs.rs"]
mod bombs;

use std::error::Error;
use std::path::PathBuf;

use bombs::{BOMBS, End};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: bombs FOLDER")?);
    let mut list = Vec::new();
    for bomb in BOMBS {
        // Some bring files whose names are those of others.
        let folder = folder.join(bomb.name);
        std::fs::create_dir(&folder)?;
        bomb.make(&folder).map_err(|error| format!("{}: {error}", bomb.name))?;
        let end = match bomb.end {
            End::Rows(rows) => format!("{rows} ranges"),
            End::Error(_) => "an error".into(),
        };
        let length = folder.join(bomb.path()).metadata()?.len();
        list.push(json!({
            "name": bomb.name,
            "path": bomb.path(),
            "format": bomb.format,
            "about": bomb.about,
            "args": bomb.args,
            "end": end,
            "length": length,
        }));
    }
    println!("{}", serde_json::to_string_pretty(&list)?);
    Ok(())
}
