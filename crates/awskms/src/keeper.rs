//! Keeps the credentials of one source for all clients of the process, and renews them before they end.
//!
//! The SDK has a cache of its own, which is not used: it renews in the last seconds and within a caller's call, so that the call fails with the source although the old credentials are still good; and
//! it cannot be told that AWS refuses what it holds.

use crate::error::{Class, Failure, Hop};
use crate::source::CredentialsSource;
use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_smithy_async::time::SharedTimeSource;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long a source may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How long before their end credentials are renewed, where they last long enough: the metadata service has new ones from then on (Amazon EC2 User Guide, "Retrieve security credentials").
const EARLY: Duration = Duration::from_secs(5 * 60);
/// The pause after an attempt to renew that brought nothing new.
const PAUSE: Duration = Duration::from_secs(30);
/// How long a source that has failed twice in a row is left alone; it doubles.
const FIRST_REST: Duration = Duration::from_secs(5);
/// The longest such rest.
const MOST_REST: Duration = Duration::from_secs(60);
/// How long credentials without an end are believed before they are looked up again: an access key in a file may be replaced.
const ENDLESS: Duration = Duration::from_secs(15 * 60);

/// Asks a source.
#[async_trait]
pub(crate) trait Load: Send + Sync + 'static {
    async fn load(&self, source: &CredentialsSource) -> Result<Credentials, Failure>;
}

/// The credentials of one source.
pub(crate) struct Keeper {
    source: CredentialsSource,
    load: Arc<dyn Load>,
    time: SharedTimeSource,
    held: RwLock<Option<Held>>,
    /// One asks at a time. Inside: the last failure, which all share who waited for it.
    turn: tokio::sync::Mutex<Option<Failed>>,
}

/// What is held, or was when a call was signed.
#[derive(Clone)]
pub(crate) struct Held {
    credentials: Credentials,
    generation: u64,
    renew_at: SystemTime,
}

/// How it went the last times.
struct Failed {
    at: Instant,
    failure: Failure,
    /// How often in a row.
    times: u32,
}

impl Failed {
    /// Until when the source is left alone. The first failure may be an accident; from the second on, not every one of many SVMs that poll asks again.
    fn until(&self) -> Instant {
        match self.times {
            0 | 1 => self.at,
            times => self.at + (FIRST_REST * 2u32.saturating_pow(times - 2)).min(MOST_REST),
        }
    }
}

impl Held {
    fn is_good(&self, now: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|end| now < end)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.credentials.access_key_id() == other.credentials.access_key_id() && self.credentials.session_token() == other.credentials.session_token()
    }
}

impl Keeper {
    pub fn new(source: CredentialsSource, load: Arc<dyn Load>, time: SharedTimeSource) -> Arc<Self> {
        Arc::new(Self { source, load, time, held: RwLock::default(), turn: tokio::sync::Mutex::default() })
    }

    /// Good credentials. They are renewed behind the caller's back, so a caller waits only where there are none.
    pub async fn ready(self: &Arc<Self>) -> Result<Held, Failure> {
        let now = self.time.now();
        match self.held().filter(|held| held.is_good(now)) {
            Some(held) => {
                if now >= held.renew_at && self.postpone(held.generation, now) {
                    let generation = held.generation;
                    drop(self.start(move |held| held.generation != generation));
                }
                Ok(held)
            }
            None => self.wait(move |held| held.is_good(now)).await,
        }
    }

    /// AWS refuses what was held: asks the source at once, unless that has happened since. Whether there are others now.
    pub async fn renew(self: &Arc<Self>, refused: &Held) -> Result<bool, Failure> {
        let generation = refused.generation;
        let now = self.wait(move |held| held.generation != generation).await?;
        Ok(!now.is_same(refused))
    }

    /// It has not answered within the time of a call.
    pub fn late(&self) -> Failure {
        self.failure(Class::Unreachable, "it has not answered in time")
    }

    async fn wait(self: &Arc<Self>, is_enough: impl Fn(&Held) -> bool + Send + Sync + 'static) -> Result<Held, Failure> {
        self.start(is_enough).await.unwrap_or_else(|_| Err(self.failure(Class::Transient, "this process is being stopped")))
    }

    /// In a task of its own: a caller whose time is up leaves, and the next one finds what the source has answered since. Otherwise a slow source would never come to an end.
    fn start(self: &Arc<Self>, is_enough: impl Fn(&Held) -> bool + Send + Sync + 'static) -> JoinHandle<Result<Held, Failure>> {
        let (keeper, since) = (Arc::clone(self), Instant::now());
        tokio::spawn(async move { keeper.load(since, is_enough).await })
    }

    async fn load(&self, since: Instant, is_enough: impl Fn(&Held) -> bool) -> Result<Held, Failure> {
        let mut last = self.turn.lock().await;
        if let Some(held) = self.held().filter(&is_enough) {
            return Ok(held);
        }
        if let Some(failed) = last.as_ref().filter(|failed| failed.at >= since || Instant::now() < failed.until()) {
            return Err(failed.failure.clone());
        }
        let loaded = match tokio::time::timeout(LIMIT, self.load.load(&self.source)).await {
            Ok(loaded) => loaded.and_then(|credentials| self.take(credentials)),
            Err(_) => Err(self.failure(Class::Unreachable, &format!("it has not answered within {} s", LIMIT.as_secs()))),
        };
        match &loaded {
            Ok(_) => *last = None,
            Err(failure) => {
                tracing::warn!(source = %self.source, reason = failure.text, "a credentials source gives no credentials");
                let times = last.as_ref().map_or(0, |failed| failed.times).saturating_add(1);
                *last = Some(Failed { at: Instant::now(), failure: failure.clone(), times });
            }
        }
        loaded
    }

    fn take(&self, credentials: Credentials) -> Result<Held, Failure> {
        let now = self.time.now();
        let left = credentials.expiry().map(|end| end.duration_since(now).unwrap_or_default());
        if left == Some(Duration::ZERO) {
            return Err(self.failure(Class::Unreachable, "it gives credentials that have ended already; look also at this node's clock"));
        }
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = Held { credentials, generation: held.as_ref().map_or(0, |held| held.generation + 1), renew_at: now + ENDLESS };
        if let Some(left) = left {
            // A source may give the old ones again until it has new ones.
            let again = held.as_ref().is_some_and(|held| held.is_same(&new));
            let wait = if again { PAUSE.min(left / 4) } else { left - EARLY.min(left / 4) };
            new.renew_at = now + wait;
        }
        *held = Some(new.clone());
        Ok(new)
    }

    /// Takes the task of renewing, so that nobody else does for a while.
    fn postpone(&self, generation: u64, now: SystemTime) -> bool {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut().filter(|held| held.generation == generation && now >= held.renew_at) {
            Some(held) => {
                let left = held.credentials.expiry().and_then(|end| end.duration_since(now).ok());
                held.renew_at = now + left.map_or(PAUSE, |left| PAUSE.min(left / 4));
                true
            }
            None => false,
        }
    }

    fn held(&self) -> Option<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failure(&self, class: Class, what: &str) -> Failure {
        Failure { class, hop: Hop::Credentials, text: format!("the credentials source {}: {what}; {}", self.source, self.source.hint()) }
    }
}

/// Gives the SDK what is held. Whoever sends a request has made sure that there is something.
pub(crate) struct Current(pub Arc<Keeper>);

impl ProvideCredentials for Current {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(self.0.held().map(|held| held.credentials).ok_or_else(CredentialsError::not_loaded_no_source))
    }
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Current({})", self.0.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_async::time::TimeSource;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    #[derive(Debug, Default)]
    struct Clock(AtomicU64);

    impl TimeSource for Clock {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
        }
    }

    /// Gives numbered credentials that last as long as told, or fails.
    #[derive(Default)]
    struct Numbered {
        clock: Arc<Clock>,
        asked: AtomicUsize,
        lasts: Mutex<Option<Duration>>,
        down: Mutex<bool>,
    }

    #[async_trait]
    impl Load for Numbered {
        async fn load(&self, _source: &CredentialsSource) -> Result<Credentials, Failure> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            if *self.down.lock().unwrap() {
                return Err(Failure { class: Class::Unreachable, hop: Hop::Credentials, text: "down".into() });
            }
            let end = self.lasts.lock().unwrap().map(|lasts| self.clock.now() + lasts);
            Ok(Credentials::new(format!("ASIA{number}"), "secret", None, end, "test"))
        }
    }

    fn setup(lasts: Option<u64>) -> (Arc<Numbered>, Arc<Keeper>) {
        let load = Arc::new(Numbered { lasts: Mutex::new(lasts.map(Duration::from_secs)), ..Numbered::default() });
        let time = SharedTimeSource::new(Shared(Arc::clone(&load.clock)));
        let keeper = Keeper::new(CredentialsSource::Chain, Arc::clone(&load) as Arc<dyn Load>, time);
        (load, keeper)
    }

    #[derive(Debug)]
    struct Shared(Arc<Clock>);

    impl TimeSource for Shared {
        fn now(&self) -> SystemTime {
            self.0.now()
        }
    }

    fn id(held: &Held) -> String {
        held.credentials.access_key_id().to_owned()
    }

    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn many_callers_ask_once() {
        let (load, keeper) = setup(Some(3_600));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let keeper = Arc::clone(&keeper);
            all.spawn(async move { keeper.ready().await.map(|held| id(&held)) });
        }
        for found in all.join_all().await {
            assert_eq!(found.unwrap(), "ASIA0");
        }
        assert_eq!(load.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn many_callers_share_one_failure_and_the_next_asks_again() {
        let (load, keeper) = setup(None);
        *load.down.lock().unwrap() = true;
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            let keeper = Arc::clone(&keeper);
            all.spawn(async move { keeper.ready().await.map(|held| id(&held)) });
        }
        assert!(all.join_all().await.iter().all(Result::is_err));
        assert_eq!(load.asked.load(Ordering::SeqCst), 1);
        *load.down.lock().unwrap() = false;
        assert_eq!(id(&keeper.ready().await.unwrap()), "ASIA1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_keeps_failing_is_left_alone_for_a_while() {
        let (load, keeper) = setup(None);
        *load.down.lock().unwrap() = true;
        for (after, asked) in [(1, 1), (1, 2), (4, 2), (2, 3), (9, 3), (2, 4)] {
            tokio::time::advance(Duration::from_secs(after)).await;
            assert!(keeper.ready().await.is_err());
            assert_eq!(load.asked.load(Ordering::SeqCst), asked, "after {after} s more");
        }
        *load.down.lock().unwrap() = false;
        tokio::time::advance(MOST_REST).await;
        assert!(keeper.ready().await.is_ok());
    }

    #[tokio::test]
    async fn they_are_renewed_early_and_nobody_waits_for_it() {
        let (load, keeper) = setup(Some(3_600));
        assert_eq!(id(&keeper.ready().await.unwrap()), "ASIA0");
        load.clock.0.store(3_299, Ordering::SeqCst);
        keeper.ready().await.unwrap();
        settle().await;
        assert_eq!(load.asked.load(Ordering::SeqCst), 1);
        // A source that is down harms nobody as long as the old ones are good, and is not asked by each caller.
        *load.down.lock().unwrap() = true;
        load.clock.0.store(3_301, Ordering::SeqCst);
        for _ in 0..100 {
            assert_eq!(id(&keeper.ready().await.unwrap()), "ASIA0");
            settle().await;
        }
        assert_eq!(load.asked.load(Ordering::SeqCst), 2);
        *load.down.lock().unwrap() = false;
        load.clock.0.store(3_340, Ordering::SeqCst);
        assert_eq!(id(&keeper.ready().await.unwrap()), "ASIA0");
        settle().await;
        assert_eq!(id(&keeper.ready().await.unwrap()), "ASIA2");
        // Once they have ended, there is nothing to serve with.
        *load.down.lock().unwrap() = true;
        load.clock.0.store(9_000, Ordering::SeqCst);
        assert!(keeper.ready().await.is_err());
    }

    #[tokio::test]
    async fn what_is_refused_is_renewed_once() {
        let (load, keeper) = setup(None);
        let used = keeper.ready().await.unwrap();
        assert!(keeper.renew(&used).await.unwrap());
        assert!(keeper.renew(&used).await.unwrap(), "somebody has renewed since");
        assert_eq!(load.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn who_leaves_does_not_take_the_answer_along() {
        let (load, keeper) = setup(Some(3_600));
        let mut caller = Box::pin(keeper.ready());
        assert!(std::future::poll_fn(|context| std::task::Poll::Ready(caller.as_mut().poll(context).is_pending())).await);
        drop(caller);
        settle().await;
        assert_eq!(load.asked.load(Ordering::SeqCst), 1);
        assert_eq!(id(&keeper.ready().await.unwrap()), "ASIA0");
    }

    #[tokio::test]
    async fn what_has_ended_is_not_taken() {
        let (_, keeper) = setup(Some(0));
        let failure = keeper.ready().await.err().unwrap();
        assert!(failure.text.contains("chain") && failure.text.contains("clock"), "{failure}");
    }

    #[tokio::test]
    async fn what_has_no_end_is_looked_up_again_after_a_while() {
        let (load, keeper) = setup(None);
        keeper.ready().await.unwrap();
        load.clock.0.store(901, Ordering::SeqCst);
        assert_eq!(id(&keeper.ready().await.unwrap()), "ASIA0");
        settle().await;
        assert_eq!(id(&keeper.ready().await.unwrap()), "ASIA1");
    }
}
