//! A session: whatever messages a client sends, one after the other, to a key manager with keys of its own.
#![no_main]
#![allow(missing_docs)] // What the macros make.

use keystead_fuzz::{Session, mutate, seeds};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use std::cell::RefCell;

thread_local! {
    // libFuzzer runs all inputs on one thread.
    static SESSION: RefCell<Session> = RefCell::new(Session::start());
}

/// Writes the seeds where `scripts/fuzz` wants them, each after a look at whether it still does what it is for.
fn write_seeds() {
    let Some(folder) = std::env::var_os("KEYSTEAD_FUZZ_SEEDS") else { return };
    for seed in seeds::all() {
        let outcome = SESSION.with_borrow_mut(|session| session.run(&seeds::bytes(&seed)));
        // An older version refuses what came later; the newest of 1.x and of 2.x have it all.
        let has_all = seed.name.ends_with("-1.4") || seed.name.ends_with("-2.1");
        let as_expected = if has_all { outcome.failures == seed.failures } else { outcome.failures >= seed.failures };
        assert!(as_expected, "items that fail in the seed {}: {}, expected {}; done: {}", seed.name, outcome.failures, seed.failures, outcome.successes);
    }
    seeds::write(folder.as_ref(), seeds::all().into_iter().map(|seed| (seed.name.clone(), seeds::bytes(&seed))));
}

fuzz_target!(init: write_seeds(), |data: &[u8]| {
    SESSION.with_borrow_mut(|session| session.run(data));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate::mutate(data, size, max_size, seed, fuzzer_mutate) });
