//! A row as a JSON object, in qemu's layout.

use instar_core::{Flags, Row, Shape};

use super::number::{Decimal, MAX_DECIMAL};

/// What every object starts with.
pub(crate) const OPENING: &[u8; 11] = b"{ \"start\": ";

/// Room for the longest object with what may be around it: five numbers and 220 bytes of keys.
pub(crate) const MAX_OBJECT: usize = 384;

/// Half the room for what stands between the digits of start and offset. Both halves are copied
/// whole and then cut: a copy of constant length is a few instructions, of variable length (or
/// of more than 128 bytes) a call.
const HALF: usize = 80;

/// Writes objects of one shape.
pub(crate) struct Objects {
    shape: Shape,
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
    text: [[u8; HALF]; 2],
    used: usize,
}

impl Objects {
    pub(crate) fn new(shape: Shape) -> Self {
        // A length of 0 comes at most once, and is then rendered.
        let unset = || Middle { length: 0, depth: 0, text: [[0; HALF]; 2], used: 0 };
        Self {
            shape,
            middles: std::iter::repeat_with(unset).take(Flags::VALUES).collect(),
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
                middle.render(row, self.shape);
            }
            let [first, second] = &middle.text;
            let half = put(room, at, first);
            put(room, half, second);
            at += middle.used;
        }
        if row.flags.has_offset() {
            at = number(room, at, &mut self.offset, row.offset);
        }
        at
    }
}

impl Middle {
    fn render(&mut self, row: &Row, shape: Shape) {
        // Rendered in the room of an object, which is larger than a middle can be.
        let mut room = [0; MAX_OBJECT];
        let mut at = put(&mut room, 0, b", \"length\": ");
        at = number(&mut room, at, &mut Decimal::default(), row.length);
        at = put(&mut room, at, b", \"depth\": ");
        at = number(&mut room, at, &mut Decimal::default(), row.depth.into());
        let flags = row.flags;
        if shape >= Shape::WithPresent {
            at = key(&mut room, at, b", \"present\": ", flags.present());
        }
        at = key(&mut room, at, b", \"zero\": ", flags.zero());
        at = key(&mut room, at, b", \"data\": ", flags.data());
        if shape >= Shape::WithCompressed {
            at = key(&mut room, at, b", \"compressed\": ", flags.compressed());
        }
        if flags.has_offset() {
            at = put(&mut room, at, b", \"offset\": ");
        }
        for (half, text) in self.text.iter_mut().zip(room.chunks_exact(HALF)) {
            half.copy_from_slice(text);
        }
        (self.length, self.depth, self.used) = (row.length, row.depth, at);
    }
}

/// Puts a key and its truth value.
#[inline]
fn key<const N: usize>(
    room: &mut [u8; MAX_OBJECT],
    at: usize,
    key: &[u8; N],
    value: bool,
) -> usize {
    let at = put(room, at, key);
    if value { put(room, at, b"true") } else { put(room, at, b"false") }
}

/// Copies `text` to `room[at..]` and returns where it ends.
#[inline]
pub(crate) fn put<const N: usize>(room: &mut [u8; MAX_OBJECT], at: usize, text: &[u8; N]) -> usize {
    if let Some(to) = room.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>()) {
        *to = *text;
    }
    at + N
}

// Twice a row: as a call it costs as much again.
#[inline(always)]
fn number(room: &mut [u8; MAX_OBJECT], at: usize, decimal: &mut Decimal, value: u64) -> usize {
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
        let used = objects.middles[usize::from(row.flags.bits())].used;
        assert!(used > 120 && used <= 2 * HALF, "{used}");
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
