//! What the benches share: load of threads, medians and percentiles, verdicts, the memory of a process.
#![allow(dead_code)] // Each bench uses a part of it.

use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs one thread for each state until the round is over; calls a second.
pub fn load<T: Send>(states: Vec<T>, round: Duration, call: impl Fn(&mut T) + Sync) -> f64 {
    let start = Instant::now();
    load_while(states, || start.elapsed() < round, call)
}

/// The same for as long as it is wanted.
pub fn load_while<T: Send>(states: Vec<T>, wanted: impl Fn() -> bool + Sync, call: impl Fn(&mut T) + Sync) -> f64 {
    let count = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for mut state in states {
            let (count, call, wanted) = (&count, &call, &wanted);
            scope.spawn(move || {
                while wanted() {
                    call(&mut state);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

/// The value in the middle.
pub fn median(values: Vec<f64>) -> f64 {
    percentile(values, 50)
}

/// The value that so many of a hundred are not above.
pub fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

/// Says whether a ratio that must not be lower is met.
pub fn at_least(ratio: f64, budget: f64, of: &str) {
    println!("  ratio {ratio:.2} {of}, budget {budget}: {}", if ratio >= budget { "met" } else { "MISSED" });
}

/// Says whether a number that must not be higher is met.
pub fn at_most(number: f64, budget: f64, of: &str) {
    println!("  {number:.2} {of}, budget {budget}: {}", if number <= budget { "met" } else { "MISSED" });
}

/// A number that whoever runs the bench may set.
pub fn adjustable(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Whether a node has the KEKs of so many SVMs. `get` calls its REST API, which looks at 100 of them at the most in one request.
pub async fn serves(count: usize, get: impl AsyncFn(&str) -> Value) -> bool {
    let (mut path, mut served) = ("/security/aws-kms?fields=state&max_records=100".to_owned(), 0);
    loop {
        let page = get(&path).await;
        let Some(records) = page["records"].as_array() else { return false };
        served += records.iter().filter(|record| record["state"]["code"] == "0").count();
        match page["_links"]["next"]["href"].as_str().and_then(|next| next.strip_prefix("/api")) {
            Some(next) => next.clone_into(&mut path),
            None => return served == count,
        }
    }
}

/// The memory that a process has, in KiB (VmRSS of proc(5)).
pub fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").trim().parse().unwrap()
}
