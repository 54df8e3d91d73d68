//! The codec: whatever bytes, as a message, as a part of one, as a stored record.
#![no_main]
#![allow(missing_docs)] // What the macros make.

use keystead_fuzz::{codec, mutate, seeds};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

/// Writes the seeds where `scripts/fuzz` wants them.
fn write_seeds() {
    if let Some(folder) = std::env::var_os("KEYSTEAD_FUZZ_SEEDS") {
        seeds::write(folder.as_ref(), seeds::parts());
    }
}

fuzz_target!(init: write_seeds(), |data: &[u8]| codec::check(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate::mutate(data, size, max_size, seed, fuzzer_mutate) });
