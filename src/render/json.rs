//! qemu's JSON array, byte for byte.

use std::io::{self, Write};

use instar_core::{Row, Shape};

use super::object::{MAX_OBJECT, OPENING, Objects, put};
use super::{BUFFER, RenderError, Renderer};

/// What stands between the numbers of one row and those of the next. It is written behind every
/// row, in one piece, and taken back behind the last.
const BETWEEN: &[u8; 14] = b"},\n{ \"start\": ";

/// The JSON renderer.
pub(crate) struct Json<W> {
    out: W,
    buffer: Box<[u8]>,
    filled: usize,
    objects: Objects,
}

impl<W: Write> Json<W> {
    /// Writes rows of this shape to `out`.
    pub(crate) fn new(out: W, shape: Shape) -> Self {
        let buffer = vec![0; BUFFER + MAX_OBJECT].into_boxed_slice();
        let mut json = Self { out, buffer, filled: 0, objects: Objects::new(shape) };
        json.text(b"[");
        json.text(OPENING);
        json
    }

    /// Appends a short text.
    fn text<const N: usize>(&mut self, text: &[u8; N]) {
        if let Some(room) =
            self.buffer.get_mut(self.filled..).and_then(|b| b.first_chunk_mut::<MAX_OBJECT>())
        {
            self.filled += put(room, 0, text);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let filled = std::mem::take(&mut self.filled);
        self.out.write_all(self.buffer.get(..filled).unwrap_or_default())
    }
}

impl<W: Write> Renderer for Json<W> {
    fn rows(&mut self, rows: &[Row]) -> Result<(), RenderError> {
        for row in rows {
            // Only ever in front of a row, so that what is taken back at the end is still here.
            if self.filled >= BUFFER {
                self.flush()?;
            }
            let room = self.buffer.get_mut(self.filled..).and_then(|b| b.first_chunk_mut());
            let Some(room) = room else { continue };
            let end = self.objects.put(room, row);
            self.filled += put(room, end, BETWEEN);
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        // The window of a map is never without a row, be it one of length 0.
        self.filled -= BETWEEN.len() - 1;
        self.text(b"]\n");
        self.flush()
    }

    fn abandon(mut self: Box<Self>) -> io::Result<()> {
        // qemu has written the separator of a row before it looks for the next one.
        self.filled -= OPENING.len();
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use instar_core::{Flags, Place, Status};
    use pretty_assertions::assert_eq;

    fn render(rows: &[Row], shape: Shape) -> String {
        let mut out = Vec::new();
        let mut json = Box::new(Json::new(&mut out, shape));
        json.rows(rows).unwrap();
        json.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn row(start: u64, length: u64, depth: u32, status: Status) -> Row {
        let offset = status.place().map_or(0, |place| place.offset);
        Row { start, length, offset, file: 0, depth, flags: Flags::of(status) }
    }

    #[test]
    fn every_shape() {
        let rows = [
            row(0, 65536, 0, Status::Data(Place::at(u64::MAX))),
            row(65536, 1 << 62, 4_294_967_295, Status::Compressed),
        ];
        assert_eq!(
            render(&rows, Shape::WithCompressed),
            "[{ \"start\": 0, \"length\": 65536, \"depth\": 0, \"present\": true, \"zero\": false, \
             \"data\": true, \"compressed\": false, \"offset\": 18446744073709551615},\n\
             { \"start\": 65536, \"length\": 4611686018427387904, \"depth\": 4294967295, \
             \"present\": true, \"zero\": false, \"data\": true, \"compressed\": true}]\n"
        );
        assert_eq!(
            render(&rows[1..], Shape::WithPresent),
            "[{ \"start\": 65536, \"length\": 4611686018427387904, \"depth\": 4294967295, \
             \"present\": true, \"zero\": false, \"data\": true}]\n"
        );
        assert_eq!(
            render(&rows[..1], Shape::WithoutPresent),
            "[{ \"start\": 0, \"length\": 65536, \"depth\": 0, \"zero\": false, \"data\": true, \
             \"offset\": 18446744073709551615}]\n"
        );
    }

    #[test]
    fn all_rows_are_valid_json_also_across_many_buffers() {
        let rows: Vec<Row> = (0..20_000)
            .map(|i| row(i << 40, 1 << 40, 0, Status::ZeroAt(Place::at(i * 977))))
            .collect();
        let parsed: serde_json::Value =
            serde_json::from_str(&render(&rows, Shape::WithCompressed)).unwrap();
        let parsed = parsed.as_array().unwrap();
        assert_eq!(parsed.len(), rows.len());
        for (object, row) in parsed.iter().zip(&rows) {
            assert_eq!(object["start"].as_u64(), Some(row.start));
            assert_eq!(object["offset"].as_u64(), Some(row.offset));
        }
    }

    #[test]
    fn an_abandoned_map_is_visibly_incomplete() {
        let abandoned = |rows: &[Row]| {
            let mut out = Vec::new();
            let mut json = Box::new(Json::new(&mut out, Shape::WithoutPresent));
            json.rows(rows).unwrap();
            json.abandon().unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(abandoned(&[]), "[");
        assert!(abandoned(&[row(0, 1, 0, Status::Zero)]).ends_with("\"data\": false},\n"));
    }
}
