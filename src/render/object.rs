//! A row as a JSON object, in qemu's layout.

use instar_core::{Flags, Row, Shape};

use super::number::{Decimal, MAX_DECIMAL};

/// What every object starts with.
pub(crate) const OPENING: &[u8; 11] = b"{ \"start\": ";

/// Room for the longest object with what may be around it. Far more than the five numbers and
/// 220 bytes of keys that there can be: lengths are counted in bytes (`u8`), so the compiler sees
/// that three pieces and a short text always fit.
pub(crate) const MAX_OBJECT: usize = 1024;

/// Room for what stands between the digits of start and offset. Nearly always the first part is
/// all of it, and is copied whole and then cut: a copy of constant length is a few
/// instructions, of variable length (or of more than 128 bytes) a call.
const MIDDLE: usize = FIRST + REST;
const FIRST: usize = 112;
const REST: usize = 96;

/// Room for the keys that do not change from row to row with the same flags.
const KEYS: usize = 96;

/// Writes objects of one shape.
pub(crate) struct Objects {
    /// By [`Flags::bits`].
    middles: Box<[Middle; Flags::VALUES]>,
    shape: Shape,
    start: Decimal,
    offset: Decimal,
}

/// The part of an object between the digits of start and offset, or the closing brace. Rows of
/// the same flags mostly have the same depth and length too, so it is kept from row to row.
struct Middle {
    length: u64,
    depth: u32,
    used: u8,
    keys_used: u8,
    text: [u8; MIDDLE],
    keys: [u8; KEYS],
}

impl Objects {
    pub(crate) fn new(shape: Shape) -> Self {
        Self {
            middles: Box::new([Middle::UNUSED; Flags::VALUES]),
            shape,
            start: Decimal::default(),
            offset: Decimal::default(),
        }
    }

    /// Puts the object behind [`OPENING`] without its closing brace at the start of `room` and
    /// returns where it ends.
    // A call for each of millions of rows would be a tenth of the time.
    #[inline(always)]
    pub(crate) fn put(&mut self, room: &mut [u8; MAX_OBJECT], row: &Row) -> usize {
        let mut at = number(room, 0, &mut self.start, row.start);
        if let Some(middle) = self.middles.get_mut(usize::from(row.flags.bits())) {
            if middle.length != row.length || middle.depth != row.depth {
                middle.render(row, self.shape);
            }
            if let Some((first, rest)) = middle.text.split_first_chunk::<FIRST>() {
                put(room, at, first);
                if usize::from(middle.used) > FIRST {
                    put(room, at + FIRST, rest.first_chunk::<REST>().unwrap_or(&[0; REST]));
                }
            }
            at += usize::from(middle.used);
        }
        if row.flags.has_offset() {
            at = number(room, at, &mut self.offset, row.offset);
        }
        at
    }
}

impl Middle {
    /// Of no row: extents are shorter. Most maps have rows of few kinds, so what the others would
    /// need is not made.
    const UNUSED: Self = Self {
        length: u64::MAX,
        depth: u32::MAX,
        used: 0,
        keys_used: 0,
        text: [0; MIDDLE],
        keys: [0; KEYS],
    };

    #[inline]
    fn render(&mut self, row: &Row, shape: Shape) {
        if self.keys_used == 0 {
            self.render_keys(row.flags, shape);
        }
        let mut at = put(&mut self.text, 0, b", \"length\": ");
        at = number(&mut self.text, at, &mut Decimal::default(), row.length);
        at = put(&mut self.text, at, b", \"depth\": ");
        at = number(&mut self.text, at, &mut Decimal::default(), row.depth.into());
        put(&mut self.text, at, &self.keys);
        self.used = u8::try_from(at).unwrap_or(0).saturating_add(self.keys_used);
        (self.length, self.depth) = (row.length, row.depth);
    }

    #[cold]
    fn render_keys(&mut self, flags: Flags, shape: Shape) {
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
        for (to, from) in self.keys.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        self.keys_used = u8::try_from(text.len()).unwrap_or(0);
    }
}

/// Copies `text` to `room[at..]` and returns where it ends.
#[inline(always)]
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
        Some(to) => at + usize::from(decimal.write(value, to)),
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
            depth: u32::MAX - 1,
            flags: Flags::of(Status::AbsentAt(Place::at(0))),
        };
        let mut objects = Objects::new(Shape::WithCompressed);
        objects.put(&mut [0; MAX_OBJECT], &row);
        let middle = &objects.middles[usize::from(row.flags.bits())];
        let (used, keys_used) = (usize::from(middle.used), usize::from(middle.keys_used));
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
        for (length, depth) in [(5, 0), (5, 1), (6, 1), (6, 1), (0, 0), (5, 0), (u64::MAX, 9)] {
            let start = format!("1, \"length\": {length}, \"depth\": {depth}, ");
            assert!(text(length, depth).starts_with(&start));
        }
    }
}
