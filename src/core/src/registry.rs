//! Which formats are linked into the program.

use std::collections::HashMap;

use crate::{Advice, Error, ErrorKind, ImageFormat, Result, quoted};

/// What a plugin submits with [`register!`](crate::register!).
pub struct Registration {
    /// The format.
    pub format: &'static dyn ImageFormat,
    /// Name of the package that registers it.
    pub package: &'static str,
    /// Version of that package.
    pub version: &'static str,
}

inventory::collect!(Registration);

/// Registers a format, given as the expression of a constant that implements
/// [`ImageFormat`]: `register!(Qcow2);` at the top level of the plugin's `lib.rs`.
#[macro_export]
macro_rules! register {
    ($format:expr) => {
        $crate::__inventory::submit! {
            $crate::Registration {
                format: &$format,
                package: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
            }
        }
    };
}

/// One registered format.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The format.
    pub format: &'static dyn ImageFormat,
    /// Name of the package that registered it.
    pub package: &'static str,
    /// Version of that package.
    pub version: &'static str,
}

/// All registered formats, sorted by name. Link order means nothing.
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// The formats that are linked into this program.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if two packages claim one name or alias.
    pub fn linked() -> Result<Self> {
        Self::new(inventory::iter::<Registration>.into_iter())
    }

    /// A registry of these formats.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if two of them claim one name or alias.
    pub fn new<'a>(registrations: impl Iterator<Item = &'a Registration>) -> Result<Self> {
        let mut entries: Vec<Entry> = registrations
            .map(|r| Entry { format: r.format, package: r.package, version: r.version })
            .collect();
        entries.sort_by_key(|entry| (entry.format.name(), entry.package));
        let mut claimed: HashMap<&str, &str> = HashMap::new();
        for entry in &entries {
            for name in names(entry.format) {
                if let Some(other) = claimed.insert(name, entry.package) {
                    return Err(Error::new(
                        ErrorKind::Usage,
                        format!(
                            "two formats are called '{name}': one of package {other}, one of {}",
                            entry.package
                        ),
                    ));
                }
            }
        }
        Ok(Self { entries })
    }

    /// All formats, sorted by name.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The format with this name or alias (case-sensitive, as qemu).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`], with [`Advice::ListFormats`].
    pub fn find(&self, name: &str) -> Result<&'static dyn ImageFormat> {
        self.entries
            .iter()
            .map(|entry| entry.format)
            .find(|format| names(*format).any(|known| known == name))
            .ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("unknown format {}", quoted(name)))
                    .with_advice(Advice::ListFormats)
            })
    }

    /// The names and aliases that [`Self::find`] takes, sorted by the formats' names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.entries.iter().flat_map(|entry| names(entry.format))
    }
}

fn names(format: &'static dyn ImageFormat) -> impl Iterator<Item = &'static str> {
    std::iter::once(format.name()).chain(format.aliases().iter().copied())
}
