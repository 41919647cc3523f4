//! What both versions have in common.

use instar_core::quoted;

/// Which version the first bytes of a file speak of (both specifications: `magic`, `version`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Magic {
    Version1,
    Version2,
    /// A version that is not specified.
    Other(u16),
}

impl Magic {
    /// Without the version.
    pub(crate) const BYTES: &[u8; 6] = b"LUKS\xba\xbe";
    /// Bytes of magic and version.
    pub(crate) const LENGTH: usize = 8;

    /// The magic and version at the start of `head`, if they are there.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        let version = head.strip_prefix(Self::BYTES)?.first_chunk()?;
        Some(match u16::from_be_bytes(*version) {
            1 => Self::Version1,
            2 => Self::Version2,
            other => Self::Other(other),
        })
    }
}

/// A text field up to its first NUL, quoted for messages.
pub(crate) fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    quoted(field.get(..end).unwrap_or_default()).to_string()
}
