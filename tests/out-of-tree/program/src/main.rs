//! instar with one more format.
#![cfg_attr(not(test), deny(unused_crate_dependencies))]

use instar_plugin_foo as _; // linked, therefore registered

fn main() -> std::process::ExitCode {
    instar::run(std::env::args_os())
}
