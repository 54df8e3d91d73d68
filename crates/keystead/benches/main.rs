//! What is measured: one program, so that what all share is compiled and linked once. Each bench runs in a process of its own, since some look at their memory, and processors remember what ran before.
//!
//! `cargo bench -p keystead --bench budgets -- NAME…` runs those that are named, else all but `scale`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/common/mod.rs"]
mod common;
mod measure;

mod cluster;
mod kmip;
mod large;
mod lists;
mod rest;
mod scale;

/// Each with its name.
const BENCHES: [(&str, fn()); 6] =
    [("rest", rest::main), ("lists", lists::main), ("kmip", kmip::main), ("cluster", cluster::main), ("large", large::main), ("scale", scale::main)];

fn main() {
    // Cargo adds a flag.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [first, rest @ ..] = arguments.as_slice()
        && first == "echo"
    {
        return kmip::echo_main(rest);
    }
    let known = |name: &str| BENCHES.iter().find(|(known, _)| *known == name);
    if let Some(name) = arguments.iter().find(|name| known(name).is_none()) {
        panic!("there is no bench {name}; there are {}", BENCHES.map(|(name, _)| name).join(", "));
    }
    if let ([name], Some("1")) = (arguments.as_slice(), std::env::var("KEYSTEAD_BENCH_HERE").ok().as_deref()) {
        return known(name).unwrap().1();
    }
    let wanted = BENCHES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| if arguments.is_empty() { *name != "scale" } else { arguments.iter().any(|wanted| wanted == name) });
    for name in wanted {
        let status = std::process::Command::new(std::env::current_exe().unwrap()).arg(name).env("KEYSTEAD_BENCH_HERE", "1").status().unwrap();
        assert!(status.success(), "{name}: {status}");
    }
}
