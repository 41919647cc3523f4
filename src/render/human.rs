//! qemu's table of the ranges that hold data, byte for byte.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use instar_core::{ImageFile, Row, escaped};

use super::{BUFFER, RenderError, Renderer};

const HEADER: &[u8] = b"Offset          Length          Mapped to       File\n";

/// A number takes at least this many bytes, filled up with spaces.
const WIDTH: usize = 16;

/// The table renderer.
pub(crate) struct Human<W> {
    out: W,
    buffer: Vec<u8>,
    /// By [`Row::file`].
    files: Arc<[ImageFile]>,
    escape: bool,
    /// The name of the file of the last row, with the line end: most rows are in the same one.
    name: Vec<u8>,
    named: Option<u32>,
}

impl<W: Write> Human<W> {
    /// Writes a table to `out`; `files` are the names for the File column, escaped for a terminal.
    pub(crate) fn new(out: W, files: &Arc<[ImageFile]>, escape: bool) -> Self {
        let mut buffer = Vec::with_capacity(BUFFER + 4096);
        buffer.extend_from_slice(HEADER);
        let files = Arc::clone(files);
        Self { out, buffer, files, escape, name: Vec::new(), named: None }
    }

    /// Makes the name of a file the one that is at hand.
    #[inline(never)]
    fn look_up(&mut self, file: u32) {
        self.name.clear();
        let found = usize::try_from(file).ok().and_then(|file| self.files.get(file));
        match found.map(|file| &file.name) {
            Some(name) if self.escape => {
                self.name = escaped(name.to_path().as_os_str().as_bytes()).into_bytes();
            }
            Some(name) => {
                name.parts().iter().for_each(|part| self.name.extend_from_slice(part.as_bytes()));
            }
            None => {}
        }
        self.name.push(b'\n');
        self.named = Some(file);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Appends `value` as C's `%#-16lx` prints it: 0 has no prefix, a long number no space behind.
#[inline]
fn push_hex(buffer: &mut Vec<u8>, value: u64) {
    let mut column = [b' '; WIDTH + 2];
    let digits = (u64::BITS - value.leading_zeros()).div_ceil(4) as usize;
    if digits == 0 {
        column[0] = b'0';
        buffer.extend_from_slice(&column[..WIDTH]);
        return;
    }
    column[0] = b'0';
    column[1] = b'x';
    let mut rest = value;
    for place in column.iter_mut().skip(2).take(digits).rev() {
        let digit = rest.to_le_bytes()[0] & 15;
        *place = if digit < 10 { b'0' + digit } else { b'a' - 10 + digit };
        rest >>= 4;
    }
    let length = WIDTH.max(digits + 2);
    buffer.extend_from_slice(column.get(..length).unwrap_or(&column));
}

impl<W: Write> Renderer for Human<W> {
    fn rows(&mut self, rows: &[Row]) -> Result<(), RenderError> {
        for row in rows.iter().filter(|row| row.flags.data() && !row.flags.zero()) {
            let Some(offset) = row.offset() else {
                return Err(RenderError::NoOffset);
            };
            if self.buffer.len() >= BUFFER {
                self.flush()?;
            }
            push_hex(&mut self.buffer, row.start);
            push_hex(&mut self.buffer, row.length);
            push_hex(&mut self.buffer, offset);
            if self.named != Some(row.file) {
                self.look_up(row.file);
            }
            self.buffer.extend_from_slice(&self.name);
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.flush()
    }

    fn abandon(self: Box<Self>) -> io::Result<()> {
        self.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use instar_core::{Flags, Place, Status};
    use pretty_assertions::assert_eq;

    fn row(start: u64, length: u64, status: Status) -> Row {
        let offset = status.place().map_or(0, |place| place.offset);
        Row { start, length, offset, file: 0, depth: 0, flags: Flags::of(status) }
    }

    fn render(rows: &[Row], name: &str, escape: bool) -> (String, bool) {
        let mut out = Vec::new();
        let files = [name, "dir/other"].map(|name| ImageFile { name: name.into(), storage: None });
        let mut human = Box::new(Human::new(&mut out, &files.into(), escape));
        let good = human.rows(rows).is_ok();
        human.finish().unwrap();
        (String::from_utf8(out).unwrap(), good)
    }

    #[test]
    fn numbers_fill_or_overflow_their_columns() {
        let rows = [
            row(0, 0x10000, Status::Data(Place::at(0x10_0000))),
            row(0x10000, 5, Status::ZeroAt(Place::at(7))),
            row(0x0100_0000_0000_0000, 0x1000, Status::Data(Place::at(0x0100_0000_0000_0000))),
        ];
        let expected = "Offset          Length          Mapped to       File\n\
                        0               0x10000         0x100000        big.raw\n\
                        0x1000000000000000x1000          0x100000000000000big.raw\n";
        assert_eq!(render(&rows, "big.raw", false), (expected.into(), true));
    }

    #[test]
    fn data_without_offset_ends_the_table() {
        let rows = [row(0, 1, Status::Data(Place::at(1))), row(1, 1, Status::Opaque)];
        let (text, good) = render(&rows, "x", false);
        assert!(!good);
        assert!(text.ends_with("0               0x1             0x1             x\n"));
    }

    #[test]
    fn each_row_has_the_name_of_its_file() {
        let in_file = |file| Row { file, ..row(0, 1, Status::Data(Place::at(0))) };
        let (text, _) = render(&[0, 1, 1, 0, 2, 0].map(in_file), "a/b", false);
        let names: Vec<_> = text.lines().skip(1).map(|line| &line[48..]).collect();
        assert_eq!(names, ["a/b", "dir/other", "dir/other", "a/b", "", "a/b"]);
    }

    #[test]
    fn names_are_escaped_for_terminals_only() {
        let rows = [row(0, 1, Status::Data(Place::at(1)))];
        assert!(render(&rows, "a\u{1b}[2J\nb", false).0.ends_with("a\u{1b}[2J\nb\n"));
        assert!(render(&rows, "a\u{1b}[2J\nb", true).0.ends_with("a\\u{1b}[2J\\nb\n"));
        let name = "\u{9b}\u{202e}\u{2028}\u{feff}x";
        assert!(render(&rows, name, false).0.ends_with(&format!("{name}\n")));
        assert!(render(&rows, name, true).0.ends_with("\\u{9b}\\u{202e}\\u{2028}\\u{feff}x\n"));
    }
}
