//! qemu's JSON array, byte for byte.

use std::io::{self, Write};

use instar_core::{Flags, Row, Shape};

use super::number::{Decimal, MAX_DECIMAL};
use super::{BUFFER, RenderError, Renderer};

/// Room for the longest row: four numbers and 150 bytes of keys.
const MAX_ROW: usize = 256;

/// Room for the constant part of a row between depth and offset. Copied whole and then cut:
/// a copy of constant length is a few instructions, of variable length a call.
const MIDDLE: usize = 96;

/// The JSON renderer.
pub(crate) struct Json<W> {
    out: W,
    buffer: Box<[u8]>,
    filled: usize,
    /// By [`Flags::bits`].
    middles: Vec<Middle>,
    any: bool,
    start: Decimal,
    length: Decimal,
    depth: Decimal,
    offset: Decimal,
}

struct Middle {
    text: [u8; MIDDLE],
    length: usize,
}

impl<W: Write> Json<W> {
    /// Writes rows of this shape to `out`.
    pub(crate) fn new(out: W, shape: Shape) -> Self {
        let middles = (0..).take(Flags::VALUES).map(|bits| middle(Flags::from_bits(bits), shape));
        let mut json = Self {
            out,
            buffer: vec![0; BUFFER + MAX_ROW].into_boxed_slice(),
            filled: 0,
            middles: middles.collect(),
            any: false,
            start: Decimal::default(),
            length: Decimal::default(),
            depth: Decimal::default(),
            offset: Decimal::default(),
        };
        json.text(b"[");
        json
    }

    /// Appends a text that is known to fit.
    fn text(&mut self, text: &[u8]) {
        if let Some(to) = self.buffer.get_mut(self.filled..self.filled + text.len()) {
            to.copy_from_slice(text);
            self.filled += text.len();
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let filled = std::mem::take(&mut self.filled);
        self.out.write_all(self.buffer.get(..filled).unwrap_or_default())
    }

    #[inline]
    fn row(&mut self, row: &Row) {
        let Some(room) = self.buffer.get_mut(self.filled..).and_then(|b| b.first_chunk_mut())
        else {
            return;
        };
        let mut at = if self.any {
            put(room, 0, b",\n{ \"start\": ")
        } else {
            self.any = true;
            put(room, 0, b"{ \"start\": ")
        };
        at = number(room, at, &mut self.start, row.start);
        at = put(room, at, b", \"length\": ");
        at = number(room, at, &mut self.length, row.length);
        at = put(room, at, b", \"depth\": ");
        at = number(room, at, &mut self.depth, u64::from(row.depth));
        if let Some(middle) = self.middles.get(usize::from(row.flags.bits())) {
            put(room, at, &middle.text);
            at += middle.length;
        }
        if row.flags.has_offset() {
            at = number(room, at, &mut self.offset, row.offset);
        }
        self.filled += put(room, at, b"}");
    }
}

/// Copies `text` to `room[at..]` and returns where it ends.
#[inline]
fn put<const N: usize>(room: &mut [u8; MAX_ROW], at: usize, text: &[u8; N]) -> usize {
    if let Some(to) = room.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>()) {
        *to = *text;
    }
    at + N
}

#[inline]
fn number(room: &mut [u8; MAX_ROW], at: usize, decimal: &mut Decimal, value: u64) -> usize {
    match room.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<MAX_DECIMAL>()) {
        Some(to) => at + decimal.write(value, to),
        None => at,
    }
}

/// What stands between the depth and the offset's digits, or the closing brace.
fn middle(flags: Flags, shape: Shape) -> Middle {
    let mut keys = String::new();
    if shape >= Shape::WithPresent {
        keys += &format!(", \"present\": {}", flags.present());
    }
    keys += &format!(", \"zero\": {}, \"data\": {}", flags.zero(), flags.data());
    if shape >= Shape::WithCompressed {
        keys += &format!(", \"compressed\": {}", flags.compressed());
    }
    if flags.has_offset() {
        keys += ", \"offset\": ";
    }
    let mut text = [0; MIDDLE];
    for (to, from) in text.iter_mut().zip(keys.bytes()) {
        *to = from;
    }
    Middle { text, length: keys.len() }
}

impl<W: Write> Renderer for Json<W> {
    fn rows(&mut self, rows: &[Row]) -> Result<(), RenderError> {
        for row in rows {
            if self.filled >= BUFFER {
                self.flush()?;
            }
            self.row(row);
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        if self.filled >= BUFFER {
            self.flush()?;
        }
        self.text(b"]\n");
        self.flush()
    }

    fn abandon(mut self: Box<Self>) -> io::Result<()> {
        // qemu has written the separator of a row before it looks for the next one.
        if self.any {
            if self.filled >= BUFFER {
                self.flush()?;
            }
            self.text(b",\n");
        }
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use instar_core::{Place, Status};
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
    fn no_constant_part_is_longer_than_its_room() {
        for bits in 0..32 {
            for shape in [Shape::WithoutPresent, Shape::WithPresent, Shape::WithCompressed] {
                assert!(middle(Flags::from_bits(bits), shape).length <= MIDDLE);
            }
        }
    }
}
