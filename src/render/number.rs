//! Decimal numbers as text, fast: there may be three to a row and sixteen million rows.

/// Room for the most decimal digits of a 64-bit number.
pub(crate) const MAX_DECIMAL: usize = 20;

const EIGHT_DIGITS: u64 = 100_000_000;

/// Writes numbers of which each is likely close to the one before: the digits above the last
/// eight are kept as text from one number to the next.
#[derive(Debug, Default)]
pub(crate) struct Decimal {
    high: u64,
    text: [u8; 12],
    // Narrow, so that the compiler knows that what follows has room.
    length: u8,
}

impl Decimal {
    /// Puts the digits of `value` at the start of `out` and returns how many they are.
    #[inline(always)]
    pub(crate) fn write(&mut self, value: u64, out: &mut [u8; MAX_DECIMAL]) -> u8 {
        let high = value / EIGHT_DIGITS;
        let low = eight(value % EIGHT_DIGITS);
        if high == 0 {
            let (digits, length) = shortened(low);
            if let Some(front) = out.first_chunk_mut() {
                *front = digits;
            }
            return length;
        }
        if high != self.high {
            self.remember(high);
        }
        if let Some(front) = out.first_chunk_mut() {
            *front = self.text;
        }
        let length = self.length.min(12);
        if let Some(back) =
            out.get_mut(usize::from(length)..).and_then(|rest| rest.first_chunk_mut())
        {
            *back = low;
        }
        length + 8
    }

    #[inline]
    fn remember(&mut self, high: u64) {
        self.high = high;
        if high < EIGHT_DIGITS {
            let (digits, length) = shortened(eight(high));
            if let Some(front) = self.text.first_chunk_mut() {
                *front = digits;
            }
            self.length = length;
        } else {
            self.remember_long(high);
        }
    }

    #[cold]
    fn remember_long(&mut self, high: u64) {
        let text = high.to_string();
        // At most 12.
        self.length = u8::try_from(text.len()).unwrap_or(0);
        for (to, from) in self.text.iter_mut().zip(text.bytes()) {
            *to = from;
        }
    }
}

/// Eight digits with their leading zeros moved out, and how many are left; at least one.
#[inline]
fn shortened(digits: [u8; 8]) -> ([u8; 8], u8) {
    // The first digit is the least significant byte.
    let word = u64::from_le_bytes(digits);
    let zeros = ((word ^ u64::from_le_bytes([b'0'; 8])).trailing_zeros() / 8).min(7);
    // Below 8, so it is the first byte alone.
    ((word >> (8 * zeros)).to_le_bytes(), 8 - zeros.to_le_bytes()[0])
}

/// The text of 0 to 9999, four digits each.
static FOUR: [[u8; 4]; 10_000] = four_digits();

// Runs at compile time only, where an index out of bounds would not compile.
#[allow(clippy::indexing_slicing)]
const fn four_digits() -> [[u8; 4]; 10_000] {
    let mut table = [[b'0'; 4]; 10_000];
    let mut number = 0_usize;
    while number < 10_000 {
        let mut rest = number;
        let mut place = 4;
        while place > 0 {
            place -= 1;
            // A digit is below 10.
            table[number][place] = b'0' + (rest % 10).to_le_bytes()[0];
            rest /= 10;
        }
        number += 1;
    }
    table
}

/// Eight digits of a number below 10^8, leading zeros included.
#[inline]
fn eight(value: u64) -> [u8; 8] {
    let four = |part: u64| {
        usize::try_from(part).ok().and_then(|index| FOUR.get(index)).copied().unwrap_or([b'0'; 4])
    };
    let high = u32::from_le_bytes(four(value / 10_000));
    let low = u32::from_le_bytes(four(value % 10_000));
    (u64::from(high) | u64::from(low) << 32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn digits_are_those_of_the_standard_library() {
        let mut decimal = Decimal::default();
        let mut count = 0;
        let mut check = |value: u64| {
            let mut out = [b'x'; MAX_DECIMAL];
            let length = usize::from(decimal.write(value, &mut out));
            assert_eq!(std::str::from_utf8(&out[..length]).unwrap(), value.to_string());
            count += 1;
        };
        for exponent in 0..20 {
            let power = 10_u64.pow(exponent);
            for value in [power - 1, power, power + 1, power / 7 * 9] {
                check(value);
            }
        }
        for value in (0..100_000_000).step_by(9_973) {
            check(value);
        }
        for value in [0, 7, u64::MAX, u64::MAX - 1, 99_999_999, 1 << 63, 123_456_789_012] {
            check(value);
        }
        assert_eq!(count, 87 + 10_028);
    }
}
