//! Time, passed in so that tests own it.

use async_trait::async_trait;
use jiff::Timestamp;
use std::time::Duration;

/// The two clocks that the key manager reads, and the one way in which it waits for a time to come.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, for what users see: start and end of jobs, expiry of certificates. It may jump.
    fn utc(&self) -> Timestamp;

    /// Time since some fixed moment of this process. It never goes back; polls, graces and back-offs are counted on it.
    fn monotonic(&self) -> Duration;

    /// Returns when [`Clock::monotonic`] has reached `moment`.
    async fn sleep_until(&self, moment: Duration);
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    /// Starts counting now.
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn utc(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep_until(&self, moment: Duration) {
        tokio::time::sleep_until(self.start + moment).await;
    }
}
