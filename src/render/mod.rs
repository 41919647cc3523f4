//! Rows in, bytes out. A renderer knows no format.

mod human;
mod json;
mod jsonl;
mod number;
mod object;

use std::io;

use instar_core::{Row, is_invisible};

pub(crate) use human::Human;
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

/// A JSON text in which a terminal finds nothing to act on: what has no shape stands as a number,
/// so that it is the same JSON.
pub(crate) fn visible_json(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        if is_invisible(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                visible.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            visible.push(c);
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn visible_json_is_the_same_json() {
        let text = "\"a\u{7f}\u{9b}\u{202e}\u{e0041}\\\"\\n\u{e9}\u{1f600}\"";
        let visible = visible_json(text);
        assert_eq!(visible, "\"a\\u007f\\u009b\\u202e\\udb40\\udc41\\\"\\n\u{e9}\u{1f600}\"");
        let parsed = |text| serde_json::from_str::<String>(text).unwrap();
        assert_eq!(parsed(&visible), parsed(text));
    }
}
