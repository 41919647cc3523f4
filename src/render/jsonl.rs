//! JSON lines: a description of the chain, then an extent per line, with what qemu's JSON lacks:
//! which file an offset is in, and the name of the state.

use std::io::{self, Write};

use instar_core::{Chain, Layer, Row, Shape};

use super::object::{MAX_OBJECT, OPENING, Objects};
use super::{BUFFER, RenderError, Renderer, visible_json};

/// The JSON lines renderer.
pub(crate) struct JsonLines<W> {
    out: W,
    buffer: Vec<u8>,
    escape: bool,
    objects: Objects,
}

impl<W: Write> JsonLines<W> {
    /// Writes a description of `chain` and then rows to `out`; names are escaped for a terminal.
    pub(crate) fn new(out: W, chain: &Chain, escape: bool) -> io::Result<Self> {
        let buffer = Vec::with_capacity(BUFFER + MAX_OBJECT);
        let mut lines = Self { out, buffer, escape, objects: Objects::new(Shape::WithCompressed) };
        lines.describe(chain)?;
        Ok(lines)
    }

    /// Writes the first line, name by name: there may be tens of thousands of files whose names are
    /// 4 KiB long. Bytes of names that are not UTF-8 are replaced.
    fn describe(&mut self, chain: &Chain) -> io::Result<()> {
        self.put("{\"files\":[")?;
        for (index, file) in chain.files().iter().enumerate() {
            self.put(if index > 0 { "," } else { "" })?;
            self.put_text(&file.name.to_string())?;
        }
        self.put("],")?;
        if let Some(top) = chain.layers().first() {
            self.put_layer(top)?;
        }
        self.put(",\"layers\":[")?;
        for (depth, layer) in chain.layers().iter().enumerate() {
            self.put(if depth > 0 { "," } else { "" })?;
            self.put(&format!("{{\"depth\":{depth},"))?;
            self.put_layer(layer)?;
            self.put(&format!(",\"virtual-size\":{}}}", layer.source().virtual_size()))?;
        }
        self.put(&format!("],\"virtual-size\":{}}}\n", chain.virtual_size()))
    }

    fn put_layer(&mut self, layer: &Layer) -> io::Result<()> {
        self.put("\"format\":")?;
        self.put_text(layer.format())?;
        self.put(",\"image\":")?;
        self.put_text(&layer.path().to_string_lossy())
    }

    /// Appends a string in JSON.
    fn put_text(&mut self, text: &str) -> io::Result<()> {
        match self.escape {
            true => self.put(&visible_json(&serde_json::to_string(text)?)),
            false => {
                serde_json::to_writer(&mut self.buffer, text)?;
                self.put("")
            }
        }
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.buffer.extend_from_slice(text.as_bytes());
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Renderer for JsonLines<W> {
    fn rows(&mut self, rows: &[Row]) -> Result<(), RenderError> {
        for row in rows.iter().filter(|row| row.length > 0) {
            if self.buffer.len() >= BUFFER {
                self.flush()?;
            }
            let mut room = [0; MAX_OBJECT];
            let end = self.objects.put(&mut room, row);
            self.buffer.extend_from_slice(OPENING);
            self.buffer.extend_from_slice(room.get(..end).unwrap_or_default());
            if row.flags.has_offset() {
                // Writing to a Vec cannot fail.
                let _ = write!(self.buffer, ", \"file\": {}", row.file);
            }
            let _ = writeln!(self.buffer, ", \"state\": \"{}\"}}", row.flags.state());
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
