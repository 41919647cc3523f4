//! Names and texts from an image, safe to print: in messages, and on terminals.
//!
//! A terminal acts on control characters, and characters that have no shape of their own make a
//! text look like another one. All of them are printed as escapes: `\n`, `\r`, `\t`, or the number
//! as in `\u{202e}`; bytes that are not UTF-8 as `\xff`. In a message, only the start of a long
//! text is printed.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that a quotation in a message has at most, escapes included (instar's own limit).
const MAX_QUOTED: usize = 256;

/// Bytes that a path in a message has at most, escapes included (instar's own limit). Linux opens
/// no path that is longer.
const MAX_SHOWN: usize = 4096;

/// Whether a character has no shape of its own: control characters, and those of the Unicode
/// categories Cf (format, such as those that turn the direction of what follows), Zl and Zp
/// (separators of lines and paragraphs) or with the property Default_Ignorable_Code_Point.
pub fn is_invisible(c: char) -> bool {
    // Most names have none of them.
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(c,
            '\u{ad}'
            | '\u{34f}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A text of any length, escaped.
pub fn escaped(text: &(impl AsRef<[u8]> + ?Sized)) -> String {
    let mut all = String::new();
    for unit in units(text.as_ref()) {
        // Writing to a String cannot fail.
        let _ = unit.write(&mut all, false);
    }
    all
}

/// A text for a message: in double quotes, escaped (also `"` and `\`), and only the start of it if
/// it is long.
///
/// ```
/// use instar_core::quoted;
///
/// assert_eq!(quoted("a\n\"b").to_string(), r#""a\n\"b""#);
/// assert!(quoted(&[b'x'; 300]).to_string().ends_with("xxx\"... (300 bytes)"));
/// ```
pub fn quoted<T: AsRef<[u8]> + ?Sized>(text: &T) -> Shown<'_> {
    Shown { text: text.as_ref(), most: MAX_QUOTED, in_quotes: true }
}

/// The same without quotes, for a text that is a message itself.
pub fn shortened<T: AsRef<[u8]> + ?Sized>(text: &T) -> Shown<'_> {
    Shown { text: text.as_ref(), most: MAX_QUOTED, in_quotes: false }
}

/// A path for the start of a message: without quotes, escaped, and whole unless it is longer than
/// any path of a file that could be opened.
pub fn shown_path(path: &Path) -> Shown<'_> {
    Shown { text: path.as_os_str().as_bytes(), most: MAX_SHOWN, in_quotes: false }
}

/// A text as a message shows it.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    text: &'a [u8],
    /// Bytes, escapes included.
    most: usize,
    in_quotes: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Start { text, is_all } = start(self.text, self.most, self.in_quotes);
        let quote = if self.in_quotes { "\"" } else { "" };
        write!(f, "{quote}{text}{quote}")?;
        if is_all { Ok(()) } else { write!(f, "... ({} bytes)", self.text.len()) }
    }
}

/// The escaped start of a text, and whether it is all of it.
struct Start {
    text: String,
    is_all: bool,
}

/// As much of `bytes` as has at most `most` bytes when it is escaped; no escape is cut.
fn start(bytes: &[u8], most: usize, in_quotes: bool) -> Start {
    let mut text = String::new();
    for unit in units(bytes) {
        let before = text.len();
        // Writing to a String cannot fail.
        let _ = unit.write(&mut text, in_quotes);
        if text.len() > most {
            text.truncate(before);
            return Start { text, is_all: false };
        }
    }
    Start { text, is_all: true }
}

/// What is escaped or not as one piece.
#[derive(Clone, Copy)]
enum Unit {
    Char(char),
    /// Not part of a character.
    Byte(u8),
}

impl Unit {
    fn write(self, to: &mut impl fmt::Write, in_quotes: bool) -> fmt::Result {
        match self {
            Self::Char(c @ ('"' | '\\')) if in_quotes => write!(to, "\\{c}"),
            Self::Char(c) if is_invisible(c) => write!(to, "{}", c.escape_default()),
            Self::Char(c) => to.write_char(c),
            Self::Byte(byte) => write!(to, "\\x{byte:02x}"),
        }
    }
}

fn units(bytes: &[u8]) -> impl Iterator<Item = Unit> {
    bytes.utf8_chunks().flat_map(|chunk| {
        let bytes = chunk.invalid().iter().copied().map(Unit::Byte);
        chunk.valid().chars().map(Unit::Char).chain(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn what_has_no_shape_is_escaped_and_nothing_else() {
        for (text, expected) in [
            (&b"a b\\\"\xc3\xa9.vmdk"[..], "a b\\\"\u{e9}.vmdk"),
            (b"\x1b[2J\n\r\t\0\x7f", r"\u{1b}[2J\n\r\t\u{0}\u{7f}"),
            ("\u{9b}31m\u{85}".as_bytes(), r"\u{9b}31m\u{85}"),
            (
                "\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}".as_bytes(),
                r"\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}",
            ),
            (
                "\u{2028}\u{2029}\u{ad}\u{200b}\u{feff}\u{e0041}".as_bytes(),
                r"\u{2028}\u{2029}\u{ad}\u{200b}\u{feff}\u{e0041}",
            ),
            (b"\xff\xe2\x80", r"\xff\xe2\x80"),
            (
                "\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} e\u{301} \u{3000}\u{1f600}".as_bytes(),
                "\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} e\u{301} \u{3000}\u{1f600}",
            ),
        ] {
            assert_eq!(escaped(text), expected);
        }
        // 65 control characters, and what the list has: all that Unicode 15 has of Cf, Zl and Zp
        // (172), and what it says to ignore.
        assert_eq!((char::MIN..=char::MAX).filter(|c| is_invisible(*c)).count(), 65 + 4208);
    }

    #[test]
    fn a_long_text_is_quoted_in_part_with_its_length() {
        for (text, expected) in [
            ("".to_owned(), "\"\"".to_owned()),
            ("a\"\\\n".to_owned(), r#""a\"\\\n""#.to_owned()),
            ("x".repeat(256), format!("\"{}\"", "x".repeat(256))),
            ("x".repeat(257), format!("\"{}\"... (257 bytes)", "x".repeat(256))),
            // An escape of 6 bytes is whole or not there.
            ("\u{1b}".repeat(1 << 20), format!("\"{}\"... (1048576 bytes)", r"\u{1b}".repeat(42))),
        ] {
            assert_eq!(quoted(&text).to_string(), expected);
        }
        let path = format!("{}\n", "x".repeat(5000));
        assert_eq!(
            shown_path(Path::new(&path)).to_string(),
            format!("{}... (5001 bytes)", "x".repeat(4096))
        );
        assert_eq!(shown_path(Path::new("a\"\n")).to_string(), r#"a"\n"#);
        assert_eq!(shortened("a\"\n").to_string(), r#"a"\n"#);
        assert_eq!(
            shortened(&"x".repeat(5000)).to_string(),
            format!("{}... (5000 bytes)", "x".repeat(256))
        );
    }
}
