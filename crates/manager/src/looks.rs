//! Live looks that are shared: many readers make one look a configuration.

use crate::clock::Clock;
use crate::records::{AwsKmsRecord, Stored};
use keystead_store::Revision;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// How long a look is shared.
const SHARED_FOR: Duration = Duration::from_secs(5);
/// How many looks are kept at the most.
const MOST: usize = 10_000;

/// How fresh a look must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Ended since it was asked for: now. Who asks while a look is under way waits for it, so that there is one at a time however many ask.
    Now,
    /// At most 5 s old, for lists.
    Recent,
}

/// The last look at each configuration.
pub(crate) struct Looks<T>(Mutex<HashMap<Uuid, Slot<T>>>);

type Slot<T> = Arc<tokio::sync::Mutex<Option<Look<T>>>>;

struct Look<T> {
    at: Duration,
    /// What was looked at: another state of the configuration needs another look.
    revision: Revision,
    seen: T,
}

impl<T> Default for Looks<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Looks<T> {
    /// Looks now. Who asks while a look is under way waits for it and takes what it saw.
    pub async fn joined(&self, clock: &dyn Clock, config: &Stored<AwsKmsRecord>, look: impl Future<Output = T>) -> T {
        self.look(Freshness::Now, clock, config, look).await
    }

    /// What a look sees that is as fresh as that: one that was made, or this one.
    pub async fn look(&self, freshness: Freshness, clock: &dyn Clock, config: &Stored<AwsKmsRecord>, look: impl Future<Output = T>) -> T {
        let arrival = clock.monotonic();
        let is_enough = |at: Duration, now: Duration| match freshness {
            Freshness::Now => at > arrival,
            Freshness::Recent => now.saturating_sub(at) <= SHARED_FOR,
        };
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if slots.len() > MOST {
                slots.clear();
            }
            Arc::clone(slots.entry(config.record.uuid).or_default())
        };
        let mut last = slot.lock().await;
        let now = clock.monotonic();
        if let Some(look) = last.as_ref().filter(|look| look.revision == config.revision && is_enough(look.at, now)) {
            return look.seen.clone();
        }
        let seen = look.await;
        *last = Some(Look { at: clock.monotonic(), revision: config.revision, seen: seen.clone() });
        seen
    }
}
