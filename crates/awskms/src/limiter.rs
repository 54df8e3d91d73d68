//! A token bucket for each AWS account and region, so that a mass start stays under a set rate.
//!
//! The account is known to us by its access key id only, so two keys of one account count apart; with a credentials source, by the source and the account of the key ARN.

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
        let rate = f64::from(self.per_second.load(Ordering::Relaxed));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() > MANY {
            buckets.retain(|_, bucket| bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * rate < rate);
        }
        let bucket = buckets.entry((payer.to_owned(), region.to_owned())).or_insert(Bucket { tokens: rate, at: now });
        bucket.tokens = (bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * rate).min(rate);
        bucket.at = now;
        let left = bucket.tokens - 1.0;
        let wait = if left >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-left / rate) };
        (wait <= patience).then(|| {
            bucket.tokens = left;
            wait
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_burst_of_one_second_is_free_and_the_rest_is_spread() {
        let limiter = Limiter::new(10);
        let now = Instant::now();
        let take = |region: &str, now| limiter.take("AKIA", region, now, LONG).unwrap();
        let waits: Vec<Duration> = (0..30).map(|_| take("r", now)).collect();
        assert!(waits[..10].iter().all(Duration::is_zero));
        assert_eq!(waits[29].as_millis(), 2_000);
        assert!(take("other region", now).is_zero());
        assert!(take("r", now + Duration::from_secs(10)).is_zero(), "tokens come back with time");
    }

    #[test]
    fn who_would_wait_too_long_takes_nothing() {
        let limiter = Limiter::new(10);
        let now = Instant::now();
        let patience = Duration::from_secs(1);
        let served = (0..1_000).filter(|_| limiter.take("AKIA", "r", now, patience).is_some()).count();
        assert_eq!(served, 20);
        assert_eq!(limiter.take("AKIA", "r", now + patience, LONG), Some(Duration::from_millis(100)), "the refused have left no debt");
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_are_served_at_the_rate() {
        let limiter = Limiter::new(10);
        let start = Instant::now();
        for _ in 0..40 {
            assert!(limiter.acquire("AKIA", "r", LONG).await);
        }
        let took = start.elapsed().as_millis();
        assert!((3_000..3_100).contains(&took), "paused time, so no clock is read: {took}");
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
