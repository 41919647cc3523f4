//! Whose output is asked for.

use std::process::Command;
use std::str::FromStr;

use instar_core::QemuVersion;

/// The argument of `--qemu-version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionChoice {
    /// This version.
    Of(QemuVersion),
    /// That of the installed qemu-img.
    Host,
}

impl FromStr for VersionChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "host" => Ok(Self::Host),
            _ => text.parse().map(Self::Of).map_err(|_| "expected X.Y, X.Y.Z or host"),
        }
    }
}

impl VersionChoice {
    /// The version that is meant.
    ///
    /// # Errors
    /// A message if the installed qemu-img cannot be run.
    pub(crate) fn resolve(self) -> Result<QemuVersion, String> {
        match self {
            Self::Of(version) => Ok(version),
            Self::Host => {
                let output = Command::new("qemu-img")
                    .arg("--version")
                    .output()
                    .map_err(|error| format!("cannot ask qemu-img for its version: {error}"))?;
                let text = String::from_utf8_lossy(&output.stdout);
                // An unknown way to state a version is likely that of a newer one.
                Ok(stated_version(&text).unwrap_or(QemuVersion::NEWEST))
            }
        }
    }
}

/// The version in a text like `qemu-img version 10.0.2 (Debian 1:10.0.2+ds-2)`.
fn stated_version(text: &str) -> Option<QemuVersion> {
    let after = text.split_once("version ")?.1;
    let mut numbers = after.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some(QemuVersion::new(major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn versions_as_binaries_state_them() {
        let stated = |text| stated_version(text).map(|v| v.to_string());
        let long = "qemu-img version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright";
        assert_eq!(stated(long).as_deref(), Some("10.0"));
        assert_eq!(stated("qemu-img version 5.2.0").as_deref(), Some("5.2"));
        assert_eq!(stated("qemu-img version v12-rc1"), None);
        assert_eq!(stated("something else"), None);
    }
}
