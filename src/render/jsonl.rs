//! JSON lines: a description of the chain, then an extent per line, with what qemu's JSON lacks:
//! which file an offset is in, and the name of the state.

use std::io::{self, Write};

use instar_core::{Chain, Row, Shape};
use serde_json::json;

use super::object::{MAX_OBJECT, OPENING, Objects};
use super::{BUFFER, RenderError, Renderer, visible_json};

/// The JSON lines renderer.
pub(crate) struct JsonLines<W> {
    out: W,
    buffer: Vec<u8>,
    objects: Objects,
}

impl<W: Write> JsonLines<W> {
    /// Writes a description of `chain` and then rows to `out`; names are escaped for a terminal.
    pub(crate) fn new(out: W, chain: &Chain, escape: bool) -> Self {
        let mut buffer = Vec::with_capacity(BUFFER + MAX_OBJECT);
        let description = description(chain).to_string();
        let description = if escape { visible_json(&description) } else { description };
        buffer.extend_from_slice(description.as_bytes());
        buffer.push(b'\n');
        Self { out, buffer, objects: Objects::new(Shape::WithCompressed) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// The first line. Names that are no UTF-8 have their wrong bytes replaced.
fn description(chain: &Chain) -> serde_json::Value {
    let layer = |(depth, layer): (usize, &instar_core::Layer)| {
        json!({
            "depth": depth,
            "image": layer.path().to_string_lossy(),
            "format": layer.format(),
            "virtual-size": layer.source().virtual_size(),
        })
    };
    let layers: Vec<_> = chain.layers().iter().enumerate().map(layer).collect();
    let files: Vec<_> = chain.files().iter().map(|file| file.to_string_lossy()).collect();
    let top = chain.layers().first();
    json!({
        "image": top.map(|layer| layer.path().to_string_lossy()),
        "format": top.map(instar_core::Layer::format),
        "virtual-size": chain.virtual_size(),
        "layers": layers,
        "files": files,
    })
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
