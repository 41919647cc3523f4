//! Several images, top first, composed as one disk.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|bytes: &[u8]| instar_fuzz::chain(bytes));

fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    instar_fuzz::mutate(instar_fuzz::alter_layer, bytes, size, max_size, seed)
});
