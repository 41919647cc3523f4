//! Rows in, bytes out. A renderer knows no format.

mod human;
mod json;
mod jsonl;
mod number;
mod object;

use std::io;

use instar_core::Row;

pub(crate) use human::{Human, escaped};
pub(crate) use json::Json;
pub(crate) use jsonl::JsonLines;

/// Bytes collected before they are written. Twice this much would not be faster, and it is well
/// over what a pipe takes at once.
const BUFFER: usize = 256 << 10;

/// Why rows could not be rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// The text is qemu's.
    #[error("File contains external, encrypted or compressed clusters.")]
    NoOffset,
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Writes a map, row by row.
pub(crate) trait Renderer {
    /// Writes these rows; they follow those of earlier calls.
    fn rows(&mut self, rows: &[Row]) -> Result<(), RenderError>;

    /// Ends the map.
    fn finish(self: Box<Self>) -> io::Result<()>;

    /// Writes out what there is without ending the map: an error came.
    fn abandon(self: Box<Self>) -> io::Result<()>;
}
