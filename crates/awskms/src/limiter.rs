//! A token bucket for each AWS account and region, so that a mass start stays under a set rate.
//!
//! The account is known to us by its access key id only, so two keys of one account count apart; with a credentials source, by the source and the account of the key ARN.
//!
//! A bucket holds a tenth of a second's requests, and is filled at what is left of the rate: so in no second are there more than the rate allows, not even in the first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How many buckets are kept before the full ones are dropped; a full bucket says nothing that a new one would not.
const MANY: usize = 10_000;

pub(crate) struct Limiter {
    per_second: AtomicU32,
    buckets: Mutex<HashMap<(String, String), Bucket>>,
}

struct Bucket {
    /// May be negative: those who wait have taken their tokens already.
    tokens: f64,
    at: Instant,
}

impl Limiter {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: AtomicU32::new(per_second.max(1)), buckets: Mutex::default() }
    }

    pub(crate) fn set(&self, per_second: u32) {
        self.per_second.store(per_second.max(1), Ordering::Relaxed);
    }

    /// Waits for a token. The queue is fair: who comes later waits longer. `false`, at once: it would take longer than `patience`, and no token is taken. Otherwise those who give up
    /// would leave a debt behind them that nobody ever pays, and in the end nobody would be served.
    #[must_use]
    pub(crate) async fn acquire(&self, payer: &str, region: &str, patience: Duration) -> bool {
        let Some(wait) = self.take(payer, region, Instant::now(), patience) else { return false };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        true
    }

    fn take(&self, payer: &str, region: &str, now: Instant, patience: Duration) -> Option<Duration> {
        let (capacity, rate) = split(self.per_second.load(Ordering::Relaxed));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() > MANY {
            buckets.retain(|_, bucket| bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * rate < capacity);
        }
        let bucket = buckets.entry((payer.to_owned(), region.to_owned())).or_insert(Bucket { tokens: capacity, at: now });
        bucket.tokens = (bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * rate).min(capacity);
        bucket.at = now;
        let left = bucket.tokens - 1.0;
        let wait = if left >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-left / rate) };
        (wait <= patience).then(|| {
            bucket.tokens = left;
            wait
        })
    }
}

/// What a bucket holds, and how fast it is filled. Of a rate that is too small to be split, a bucket holds one request more.
fn split(per_second: u32) -> (f64, f64) {
    let rate = f64::from(per_second);
    let capacity = (rate / 10.0).max(1.0).floor();
    if per_second >= 10 { (capacity, rate - capacity) } else { (capacity, rate) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_small_burst_is_free_and_the_rest_is_spread() {
        let limiter = Limiter::new(100);
        let now = Instant::now();
        let take = |region: &str, now| limiter.take("AKIA", region, now, LONG).unwrap();
        let waits: Vec<Duration> = (0..100).map(|_| take("r", now)).collect();
        assert!(waits[..10].iter().all(Duration::is_zero) && !waits[10].is_zero());
        assert_eq!(waits[99].as_millis(), 1_000);
        assert!(take("other region", now).is_zero());
        assert!(take("r", now + Duration::from_secs(10)).is_zero(), "tokens come back with time");
    }

    #[test]
    fn who_would_wait_too_long_takes_nothing() {
        let limiter = Limiter::new(100);
        let now = Instant::now();
        let patience = Duration::from_secs(1);
        let served = (0..1_000).filter(|_| limiter.take("AKIA", "r", now, patience).is_some()).count();
        assert_eq!(served, 100);
        assert_eq!(limiter.take("AKIA", "r", now + patience, LONG).unwrap().as_millis(), 11, "the refused have left no debt");
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_than_the_rate() {
        for rate in [1, 9, 10, 55, 1_000] {
            let limiter = Limiter::new(rate);
            let start = Instant::now();
            let mut sent = Vec::new();
            for _ in 0..5 * rate {
                assert!(limiter.acquire("AKIA", "r", LONG).await);
                sent.push(start.elapsed());
            }
            // Times of one tick of the paused clock are the same, so a millisecond on each side is not looked at.
            let second = Duration::from_millis(998);
            let most = sent.iter().map(|at| sent.iter().filter(|other| *other >= at && **other < *at + second).count()).max().unwrap();
            assert!(most <= rate as usize + usize::from(rate < 10), "{most} in a second, of {rate}");
            assert!(start.elapsed() <= Duration::from_secs(7), "and not much less: {:?}", start.elapsed());
        }
    }

    #[test]
    fn full_buckets_do_not_pile_up() {
        let limiter = Limiter::new(10);
        let now = Instant::now();
        for number in 0..=MANY {
            let _ = limiter.take(&number.to_string(), "r", now, LONG);
        }
        let _ = limiter.take("one more", "r", now + Duration::from_secs(1), LONG);
        assert_eq!(limiter.buckets.lock().unwrap().len(), 1);
    }
}
