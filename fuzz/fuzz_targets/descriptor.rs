//! Text descriptors of VMDK disks.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| instar_fuzz::descriptor(text));
