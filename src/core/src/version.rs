//! Whose output is printed: the qemu version and what it changes.

use std::fmt;
use std::str::FromStr;

/// A qemu version, as far as behaviour depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

/// Which keys an output row has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Before 6.1: no `present`, no `compressed`.
    WithoutPresent,
    /// 6.1 to 8.1: `present`, no `compressed`.
    WithPresent,
    /// 8.2 and later: both.
    WithCompressed,
}

impl QemuVersion {
    /// The newest version whose behaviour was checked; the default.
    pub const NEWEST: Self = Self::new(11, 1);

    /// The version `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The keys that this version prints.
    pub fn shape(self) -> Shape {
        if self < Self::new(6, 1) {
            Shape::WithoutPresent
        } else if self < Self::new(8, 2) {
            Shape::WithPresent
        } else {
            Shape::WithCompressed
        }
    }
}

impl Default for QemuVersion {
    fn default() -> Self {
        Self::NEWEST
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The text was no version.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a version: expected X.Y or X.Y.Z")]
pub struct BadVersion(String);

impl FromStr for QemuVersion {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.to_owned());
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse::<u32>().ok()).flatten()
        };
        let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
        match parts.ok_or_else(bad)?.as_slice() {
            [major, minor] | [major, minor, _] => Ok(Self::new(*major, *minor)),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn shapes_change_at_6_1_and_8_2() {
        for (text, shape) in [
            ("5.2", Shape::WithoutPresent),
            ("6.0.1", Shape::WithoutPresent),
            ("6.1", Shape::WithPresent),
            ("8.1.99", Shape::WithPresent),
            ("8.2", Shape::WithCompressed),
            ("10.0", Shape::WithCompressed),
        ] {
            assert_eq!(text.parse::<QemuVersion>().unwrap().shape(), shape, "{text}");
        }
        for text in ["", "7", "7.", "7.x", "+7.2", "7.2.1.0", "99999999999.1"] {
            assert!(text.parse::<QemuVersion>().is_err(), "{text}");
        }
    }
}
