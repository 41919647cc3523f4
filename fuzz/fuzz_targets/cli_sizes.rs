//! Sizes as options take them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| instar_fuzz::cli_sizes(text));
