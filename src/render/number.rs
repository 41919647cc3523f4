//! Numbers as text, fast: there may be three to a row and sixteen million rows.

/// Most decimal digits of a 64-bit number.
pub(crate) const MAX_DECIMAL: usize = 20;

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

/// Writes decimal numbers of which each is likely close to the one before: the digits above the
/// last eight are kept as text from one number to the next.
#[derive(Debug, Default)]
pub(crate) struct Decimal {
    high: u64,
    text: [u8; 12],
    length: usize,
}

const EIGHT_DIGITS: u64 = 100_000_000;

impl Decimal {
    /// Puts the digits of `value` at the start of `out` and returns how many they are.
    #[inline]
    pub(crate) fn write(&mut self, value: u64, out: &mut [u8; MAX_DECIMAL]) -> usize {
        let high = value / EIGHT_DIGITS;
        let low = eight(value % EIGHT_DIGITS);
        if high == 0 {
            let zeros = low.iter().take(7).take_while(|digit| **digit == b'0').count();
            for (to, from) in out.iter_mut().zip(low.iter().skip(zeros)) {
                *to = *from;
            }
            return 8 - zeros;
        }
        if high != self.high {
            self.remember(high);
        }
        let length = self.length;
        if let Some(front) = out.first_chunk_mut() {
            *front = self.text;
        }
        if let Some(back) = out.get_mut(length..).and_then(|rest| rest.first_chunk_mut()) {
            *back = low;
        }
        length + 8
    }

    #[cold]
    fn remember(&mut self, high: u64) {
        let text = high.to_string();
        self.high = high;
        self.length = text.len();
        for (to, from) in self.text.iter_mut().zip(text.bytes()) {
            *to = from;
        }
    }
}

/// Eight digits of a number below 10^8, leading zeros included.
#[inline]
fn eight(value: u64) -> [u8; 8] {
    let four = |part: u64| {
        usize::try_from(part).ok().and_then(|index| FOUR.get(index)).copied().unwrap_or([b'0'; 4])
    };
    let [a, b, c, d] = four(value / 10_000);
    let [e, f, g, h] = four(value % 10_000);
    [a, b, c, d, e, f, g, h]
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
            let length = decimal.write(value, &mut out);
            assert_eq!(std::str::from_utf8(&out[..length]).unwrap(), value.to_string());
            count += 1;
        };
        for exponent in 0..20 {
            let power = 10_u64.pow(exponent);
            for value in [power - 1, power, power + 1, power * 9 / 7] {
                check(value);
            }
        }
        for value in [0, 7, u64::MAX, u64::MAX - 1, 99_999_999, 1 << 63, 123_456_789_012] {
            check(value);
        }
        assert_eq!(count, 87);
    }
}
