//! Any image, in the format that is detected.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|bytes: &[u8]| instar_fuzz::map_any(bytes));

fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    instar_fuzz::mutate(instar_fuzz::alter_image, bytes, size, max_size, seed)
});
