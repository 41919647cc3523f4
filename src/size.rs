//! Sizes as qemu parses them: `512`, `0x200`, `1k`, `1.5M`, `2G` …
//!
//! The grammar is that of qemu 10.0 and later, oddities included. What qemu does not take are the
//! suffixes `KiB` to `EiB`, which mean the same as `k` to `E`.

/// Why a text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSize {
    #[error(
        "not a size: expected digits and at most one suffix: b, k, M, G, T, P, E, or KiB to EiB"
    )]
    Syntax,
    #[error("must be between 0 and 9223372036854775807")]
    Range,
}

/// Parses a size in bytes, 0 to 2^63 − 1.
pub(crate) fn parse_size(text: &str) -> Result<u64, BadSize> {
    let (outcome, rest) = scan(text);
    // A text that goes on after what could be read is wrong, whatever was read.
    if !rest.is_empty() {
        return Err(BadSize::Syntax);
    }
    outcome.and_then(
        |value| {
            if i64::try_from(value).is_ok() { Ok(value) } else { Err(BadSize::Range) }
        },
    )
}

/// Reads as far as possible and returns what is left over.
fn scan(text: &str) -> (Result<u64, BadSize>, &str) {
    let unsigned = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, digits) = match unsigned.as_bytes().first() {
        Some(b'-') => (true, unsigned.get(1..).unwrap_or_default()),
        Some(b'+') => (false, unsigned.get(1..).unwrap_or_default()),
        _ => (false, unsigned),
    };
    let (whole, rest) = split_digits(digits, 10);
    if whole.is_empty() && !rest.starts_with('.') {
        return (Err(BadSize::Syntax), text);
    }
    if !whole.is_empty() {
        let value = if negative { None } else { whole.parse::<u64>().ok() };
        let Some(value) = value else {
            return (Err(BadSize::Range), rest);
        };
        if whole == "0" && rest.starts_with(['x', 'X']) {
            return scan_hex(rest.get(1..).unwrap_or_default());
        }
        let Some(after_point) = rest.strip_prefix('.') else {
            return scale(value, 0, rest);
        };
        let (fraction, rest) = split_digits(after_point, 10);
        return with_fraction(value, fraction, rest);
    }
    let (fraction, rest) = split_digits(rest.get(1..).unwrap_or_default(), 10);
    if fraction.is_empty() {
        return (Err(BadSize::Syntax), text);
    }
    if negative {
        return (Err(BadSize::Range), rest);
    }
    with_fraction(0, fraction, rest)
}

fn split_digits(text: &str, radix: u32) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_digit(radix)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Hexadecimal numbers take neither fraction nor suffix.
fn scan_hex(text: &str) -> (Result<u64, BadSize>, &str) {
    let (digits, rest) = split_digits(text, 16);
    if digits.is_empty() {
        return (Err(BadSize::Syntax), text);
    }
    (u64::from_str_radix(digits, 16).map_err(|_| BadSize::Range), rest)
}

/// `whole`.`fraction`, the fraction taken through an IEEE double as qemu does.
fn with_fraction<'a>(whole: u64, fraction: &str, rest: &'a str) -> (Result<u64, BadSize>, &'a str) {
    let value: f64 = format!("0.{fraction}").parse().unwrap_or(0.0);
    if value >= 1.0 {
        return match whole.checked_add(1) {
            Some(whole) => scale(whole, 0, rest),
            None => (Err(BadSize::Range), rest),
        };
    }
    // Exact: a double below 1 times 2^64 is an integer plus what is truncated.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let fixed = (value * 2_f64.powi(64)) as u64;
    let non_zero = fraction.bytes().any(|digit| digit != b'0');
    scale(whole, fixed.max(u64::from(non_zero)), rest)
}

/// Applies the suffix, if any, to `whole` + `fraction` / 2^64.
fn scale(whole: u64, fraction: u64, rest: &str) -> (Result<u64, BadSize>, &str) {
    let exponent = match rest.as_bytes().first().map(u8::to_ascii_lowercase) {
        Some(b'b') => Some(0),
        Some(b'k') => Some(10),
        Some(b'm') => Some(20),
        Some(b'g') => Some(30),
        Some(b't') => Some(40),
        Some(b'p') => Some(50),
        Some(b'e') => Some(60),
        _ => None,
    };
    let after = |length: usize| rest.get(length..).unwrap_or_default();
    let has_unit = rest.get(1..3).is_some_and(|unit| unit.eq_ignore_ascii_case("ib"));
    let rest = match exponent {
        None => rest,
        Some(10..) if has_unit => after(3),
        Some(_) => after(1),
    };
    let exponent = exponent.unwrap_or(0);
    if exponent == 0 && fraction != 0 {
        return (Err(BadSize::Syntax), rest);
    }
    let scaled_fraction = u128::from(fraction) << exponent;
    let rounded = (scaled_fraction + (1 << 63)) >> 64;
    let value = (u128::from(whole) << exponent) + rounded;
    (u64::try_from(value).map_err(|_| BadSize::Range), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    /// The table of observed results, value by value.
    #[test]
    fn as_qemu_parses_them() {
        let good: &[(&str, u64)] = &[
            ("0", 0),
            ("00512", 512),
            ("+512", 512),
            (" 512", 512),
            ("08", 8),
            ("0777", 777),
            ("0x200", 512),
            ("+0x10", 16),
            (" 0x10", 16),
            ("0x1b", 27),
            ("0x10b", 267),
            ("1b", 1),
            ("1k", 1 << 10),
            ("1m", 1 << 20),
            ("1g", 1 << 30),
            ("1T", 1 << 40),
            ("1p", 1 << 50),
            ("1e", 1 << 60),
            (".5M", 524_288),
            ("+.5k", 512),
            (".5e", 1 << 59),
            ("1.", 1),
            ("1.0", 1),
            ("0.0b", 0),
            (".0", 0),
            ("1.k", 1024),
            ("1.5k", 1536),
            ("007.5k", 7680),
            ("0.001k", 1),
            ("0.00048828125k", 1),
            ("0.00048828124k", 0),
            ("1023.9999999999k", 1_048_576),
            ("1.00048828125k", 1025),
            ("0.9999999999999999999999k", 1024),
            ("1.9999999999999999999b", 2),
            ("9223372036854775807", i64::MAX.unsigned_abs()),
            ("7E", 7 << 60),
        ];
        for (text, value) in good {
            assert_eq!(parse_size(text), Ok(*value), "{text:?}");
        }
        let syntax = [
            "512 ",
            "512abc",
            "1 k",
            "0b100",
            "0x",
            "0xg",
            "00x10",
            "0x200k",
            "0x1.8",
            "0x1.",
            "1kB",
            "1Ki",
            "1KiBs",
            "1KiB ",
            "1 KiB",
            "1bib",
            "1iB",
            "KiB",
            "1.5ib",
            "0x1KiB",
            "1.MiBk",
            "1kKiB",
            "1Kk",
            "1z",
            "k",
            "",
            ".",
            ".k",
            ".5",
            ".5b",
            "0.5",
            "1.5",
            "1.5b",
            "1e3",
            "1E3",
            "1e+3",
            "1.1e1",
            "1e.5",
            "1..5k",
            "1.2.3k",
            "1.5.k",
            "nan",
            "inf",
            "-1x",
            "-.5k",
            "-0.0",
            "--5",
            "+-5",
            "1000000000000000000000E",
            "16Ex",
            "+ .5k",
        ];
        for text in syntax {
            assert_eq!(parse_size(text), Err(BadSize::Syntax), "{text:?}");
        }
        let range = [
            "-0",
            "-1",
            "-512",
            "-.5",
            "-.0",
            "8E",
            "16E",
            "9007199254740993k",
            "99999999999999999999",
            "9223372036854775808",
            "18446744073709551615b",
            "0xffffffffffffffff",
            "0x10000000000000000",
        ];
        for text in range {
            assert_eq!(parse_size(text), Err(BadSize::Range), "{text:?}");
        }
    }

    /// What qemu does not take: each unit is the same as its first letter.
    #[test]
    fn units_are_their_first_letters() {
        let mut good = 0;
        for unit in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
            let (letter, _) = unit.split_at(1);
            for number in ["1", "0", "+7", " 3", "1.5", ".25", "2.", "0.001", "9", "-1", "99"] {
                let expected = parse_size(&format!("{number}{letter}"));
                for unit in [unit.to_owned(), unit.to_lowercase(), unit.to_uppercase()] {
                    assert_eq!(parse_size(&format!("{number}{unit}")), expected, "{number}{unit}");
                    good += usize::from(expected.is_ok());
                }
            }
        }
        // All but the negative number, and 9 EiB and 99 EiB, which are over the limit.
        assert_eq!(good, 3 * (6 * 10 - 2));
        assert_eq!(parse_size("1.5MiB"), Ok(1_572_864));
        assert_eq!(parse_size("8EiB"), Err(BadSize::Range));
    }
}
