//! What a caller can do about an error.

/// What a caller can do about an [`Error`](crate::Error), in the terms of this library.
///
/// The error's text says what is wrong and names no option of any program. A program puts the advice
/// into words of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// Choose [`ExternalPolicy::Follow`](crate::ExternalPolicy::Follow) or
    /// [`ExternalPolicy::Ignore`](crate::ExternalPolicy::Ignore).
    ChooseExternalPolicy,
    /// [`ExternalPolicy::Ignore`](crate::ExternalPolicy::Ignore) maps the image alone.
    IgnoreExternal,
    /// Add the file's directory to those of
    /// [`ExternalPolicy::Follow`](crate::ExternalPolicy::Follow).
    AllowDirectory,
    /// The same, for absolute names: the image is a descriptor or a device, so relative ones start
    /// nowhere.
    AllowDirectoryForAbsolute,
    /// State which of the formats that claim the file it is in.
    ChooseFormat,
    /// State a format, although none claims the file.
    StateFormat,
    /// Take one of the formats that the [`Registry`](crate::Registry) has.
    ListFormats,
    /// Raise [`Limits::depth`](crate::Limits::depth).
    RaiseDepth,
}
