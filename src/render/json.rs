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
    /// Always of the same length, so that a row finds room without asking for it.
    buffer: Vec<u8>,
    filled: usize,
    objects: Objects,
}

impl<W: Write> Json<W> {
    /// Writes rows of this shape to `out`.
    pub(crate) fn new(out: W, shape: Shape) -> Self {
        let mut buffer = vec![b'['];
        buffer.extend(OPENING);
        let filled = buffer.len();
        buffer.resize(BUFFER + MAX_OBJECT, 0);
        Self { out, buffer, filled, objects: Objects::new(shape) }
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
            let room = room.ok_or_else(|| io::Error::other("a row has no room"))?;
            let end = self.objects.put(room, row);
            self.filled += put(room, end, BETWEEN);
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        // The window of a map is never without a row, be it one of length 0.
        self.buffer.truncate(self.filled - (BETWEEN.len() - 1));
        self.buffer.extend(b"]\n");
        self.out.write_all(&self.buffer)
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

    /// A row that crossed the end of the buffer once left no room for the bracket behind it.
    #[test]
    fn the_array_is_closed_wherever_the_buffer_ends() {
        let longest = row(1 << 62, 1 << 62, u32::MAX, Status::Data(Place::at(1 << 63)));
        let rows_of = |first_offset, count| {
            let mut rows = vec![longest; count];
            rows[0] = row(0, 1, 0, Status::Data(Place::at(first_offset)));
            rows
        };
        let length_of = |count| render(&rows_of(0, count), Shape::WithCompressed).len();
        let around = (BUFFER - length_of(1)) / (length_of(2) - length_of(1));
        // From one offset to the next, what follows moves on by a digit.
        for digits in 0..19 {
            for count in around - 1..around + 4 {
                let rows = rows_of(10_u64.pow(digits), count);
                let text = render(&rows, Shape::WithCompressed);
                let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(parsed.as_array().map(Vec::len), Some(rows.len()));
                assert!(text.ends_with("}]\n"));
            }
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
