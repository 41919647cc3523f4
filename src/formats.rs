//! The only file that names plugins. A dependency that nobody names is not linked, and its
//! registration would vanish without a word: hence one `use` per format, and the root crate
//! denies `unused_crate_dependencies`.

#[cfg(feature = "bochs")]
use instar_plugin_bochs as _;
#[cfg(feature = "cloop")]
use instar_plugin_cloop as _;
#[cfg(feature = "dmg")]
use instar_plugin_dmg as _;
#[cfg(feature = "luks")]
use instar_plugin_luks as _;
#[cfg(feature = "parallels")]
use instar_plugin_parallels as _;
#[cfg(feature = "qcow")]
use instar_plugin_qcow as _;
#[cfg(feature = "qcow2")]
use instar_plugin_qcow2 as _;
#[cfg(feature = "qed")]
use instar_plugin_qed as _;
#[cfg(feature = "raw")]
use instar_plugin_raw as _;
#[cfg(feature = "vdi")]
use instar_plugin_vdi as _;
#[cfg(feature = "vhd")]
use instar_plugin_vhd as _;
#[cfg(feature = "vhdx")]
use instar_plugin_vhdx as _;
#[cfg(feature = "vmdk")]
use instar_plugin_vmdk as _;

use instar_core::{Registry, Result};

/// The formats that are linked into this program: those of the enabled features, and any that
/// the program links itself.
///
/// # Errors
/// If two packages claim one name or alias.
pub fn registry() -> Result<Registry> {
    Registry::linked()
}
