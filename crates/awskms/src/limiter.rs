//! A token bucket for each AWS account and region, so that a mass start stays under a set rate.
//!
//! The account is known to us by its access key id only; two keys of one account count apart.

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

    /// Waits for a token. The queue is fair: who comes later waits longer.
    pub(crate) async fn acquire(&self, access_key_id: &str, region: &str) {
        let wait = self.take(access_key_id, region, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn take(&self, access_key_id: &str, region: &str, now: Instant) -> Duration {
        let rate = f64::from(self.per_second.load(Ordering::Relaxed));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() > MANY {
            buckets.retain(|_, bucket| bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * rate < rate);
        }
        let bucket = buckets.entry((access_key_id.to_owned(), region.to_owned())).or_insert(Bucket { tokens: rate, at: now });
        bucket.tokens = (bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * rate).min(rate);
        bucket.at = now;
        bucket.tokens -= 1.0;
        if bucket.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-bucket.tokens / rate) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_is_free_and_the_rest_is_spread() {
        let limiter = Limiter::new(10);
        let now = Instant::now();
        let waits: Vec<Duration> = (0..30).map(|_| limiter.take("AKIA", "r", now)).collect();
        assert!(waits[..10].iter().all(Duration::is_zero));
        assert_eq!(waits[29].as_millis(), 2_000);
        assert!(limiter.take("AKIA", "other region", now).is_zero());
        assert!(limiter.take("AKIA", "r", now + Duration::from_secs(10)).is_zero(), "tokens come back with time");
    }
}
