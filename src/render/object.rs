//! A row as a JSON object, in qemu's layout.

use instar_core::{Flags, Row, Shape};

use super::number::{Decimal, MAX_DECIMAL};

/// What every object starts with.
pub(crate) const OPENING: &[u8; 11] = b"{ \"start\": ";

/// Room for the longest object with what may be around it: five numbers and 220 bytes of keys.
pub(crate) const MAX_OBJECT: usize = 384;

/// Room for what stands between the digits of start and offset. Copied whole and then cut, in two
/// halves: a copy of constant length is a few instructions, of variable length (or of more than
/// 128 bytes) a call.
const MIDDLE: usize = 2 * HALF;
const HALF: usize = 80;

/// Room for the keys that do not change from row to row with the same flags.
const KEYS: usize = 96;

/// Writes objects of one shape.
pub(crate) struct Objects {
    /// By [`Flags::bits`].
    middles: Vec<Middle>,
    start: Decimal,
    offset: Decimal,
}

/// The part of an object between the digits of start and offset, or the closing brace. Rows of
/// the same flags mostly have the same depth and length too, so it is kept from row to row.
struct Middle {
    length: u64,
    depth: u32,
    text: [u8; MIDDLE],
    used: usize,
    keys: [u8; KEYS],
    keys_used: usize,
}

impl Objects {
    pub(crate) fn new(shape: Shape) -> Self {
        let middle = |bits| Middle::new(Flags::from_bits(bits), shape);
        Self {
            middles: (0..).take(Flags::VALUES).map(middle).collect(),
            start: Decimal::default(),
            offset: Decimal::default(),
        }
    }

    /// Puts the object behind [`OPENING`] without its closing brace at the start of `room` and
    /// returns where it ends.
    #[inline]
    pub(crate) fn put(&mut self, room: &mut [u8; MAX_OBJECT], row: &Row) -> usize {
        let mut at = number(room, 0, &mut self.start, row.start);
        if let Some(middle) = self.middles.get_mut(usize::from(row.flags.bits())) {
            if middle.length != row.length || middle.depth != row.depth || middle.used == 0 {
                middle.render(row.length, row.depth);
            }
            if let (Some(first), Some(second)) =
                (middle.text.first_chunk::<HALF>(), middle.text.last_chunk::<HALF>())
            {
                put(room, at, first);
                put(room, at + HALF, second);
            }
            at += middle.used;
        }
        if row.flags.has_offset() {
            at = number(room, at, &mut self.offset, row.offset);
        }
        at
    }
}

impl Middle {
    fn new(flags: Flags, shape: Shape) -> Self {
        let mut text = String::new();
        if shape >= Shape::WithPresent {
            text += &format!(", \"present\": {}", flags.present());
        }
        text += &format!(", \"zero\": {}, \"data\": {}", flags.zero(), flags.data());
        if shape >= Shape::WithCompressed {
            text += &format!(", \"compressed\": {}", flags.compressed());
        }
        if flags.has_offset() {
            text += ", \"offset\": ";
        }
        let mut keys = [0; KEYS];
        for (to, from) in keys.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        let keys_used = text.len();
        Self { length: 0, depth: 0, text: [0; MIDDLE], used: 0, keys, keys_used }
    }

    #[inline]
    fn render(&mut self, length: u64, depth: u32) {
        let mut at = put(&mut self.text, 0, b", \"length\": ");
        at = number(&mut self.text, at, &mut Decimal::default(), length);
        at = put(&mut self.text, at, b", \"depth\": ");
        at = number(&mut self.text, at, &mut Decimal::default(), depth.into());
        put(&mut self.text, at, &self.keys);
        (self.length, self.depth, self.used) = (length, depth, at + self.keys_used);
    }
}

/// Copies `text` to `room[at..]` and returns where it ends.
#[inline]
pub(crate) fn put<const R: usize, const N: usize>(
    room: &mut [u8; R],
    at: usize,
    text: &[u8; N],
) -> usize {
    if let Some(to) = room.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>()) {
        *to = *text;
    }
    at + N
}

// Twice a row: as a call it costs as much again.
#[inline(always)]
fn number<const R: usize>(
    room: &mut [u8; R],
    at: usize,
    decimal: &mut Decimal,
    value: u64,
) -> usize {
    match room.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<MAX_DECIMAL>()) {
        Some(to) => at + decimal.write(value, to),
        None => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use instar_core::{Place, Status};

    #[test]
    fn the_longest_middle_has_room() {
        let row = Row {
            start: 0,
            length: u64::MAX,
            offset: 0,
            file: 0,
            depth: u32::MAX,
            flags: Flags::of(Status::AbsentAt(Place::at(0))),
        };
        let mut objects = Objects::new(Shape::WithCompressed);
        objects.put(&mut [0; MAX_OBJECT], &row);
        let Middle { used, keys_used, .. } = objects.middles[usize::from(row.flags.bits())];
        assert!(keys_used > 70 && keys_used <= KEYS, "{keys_used}");
        // The keys are copied whole too.
        assert!(used > 120 && used - keys_used + KEYS <= MIDDLE, "{used}");
    }

    #[test]
    fn a_kept_middle_is_not_used_for_another_length_or_depth() {
        let mut objects = Objects::new(Shape::WithCompressed);
        let mut text = |length, depth| {
            let flags = Flags::of(Status::Zero);
            let row = Row { start: 1, length, offset: 0, file: 0, depth, flags };
            let mut room = [0; MAX_OBJECT];
            let end = objects.put(&mut room, &row);
            String::from_utf8(room[..end].to_vec()).unwrap()
        };
        for (length, depth) in [(5, 0), (5, 1), (6, 1), (6, 1), (0, 0), (5, 0)] {
            let start = format!("1, \"length\": {length}, \"depth\": {depth}, ");
            assert!(text(length, depth).starts_with(&start));
        }
    }
}
