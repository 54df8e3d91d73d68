//! A store that refuses when a test says so, and through which a test can write records of its own.

use async_trait::async_trait;
use keystead_store::{Entry, Error, LeaseId, Page, Range, Result, Revision, Store, Txn, Watch};
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What the store does with transactions.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    Good = 0,
    /// As a full or read-only disk.
    Refuses = 1,
    /// As without quorum: reads fail too.
    Unavailable = 2,
    /// As a disk that hangs: transactions wait until the mood changes.
    Hangs = 3,
}

/// The test's handle. Give `wrap` to `Hooks::store`.
#[derive(Clone, Default)]
pub struct Faulty {
    mood: Arc<AtomicU8>,
    lag: Arc<AtomicU64>,
    /// How long each transaction takes, in milliseconds.
    slow: Arc<AtomicU64>,
    /// So many more transactions are good, then they hang.
    good: Arc<AtomicI64>,
    waiting: Arc<AtomicUsize>,
    inner: Arc<OnceLock<Arc<dyn Store>>>,
}

impl Faulty {
    pub fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// From now on each change reaches the watches this much later.
    pub fn lag(&self, lag: Duration) {
        self.lag.store(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// From now on each transaction takes so much longer.
    pub fn slow(&self, by: Duration) {
        self.slow.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// After so many transactions more, the store hangs.
    pub fn hang_after(&self, transactions: i64) {
        self.good.store(transactions + 1, Ordering::SeqCst);
    }

    /// How many transactions wait for the mood to change.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// A function for `Hooks::store`.
    pub fn hook(&self) -> keystead::serve::StoreWrapper {
        let this = self.clone();
        Box::new(move |store| {
            let _ = this.inner.set(store);
            Arc::new(this)
        })
    }

    /// The store itself, past all moods.
    pub fn inner(&self) -> &Arc<dyn Store> {
        self.inner.get().expect("the node has been started")
    }

    fn mood(&self) -> Result<()> {
        if self.mood.load(Ordering::SeqCst) == Mood::Unavailable as u8 { Err(Error::Unavailable("no quorum, says the test".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.mood()?;
        self.inner().get(key).await
    }

    async fn range(&self, range: Range) -> Result<Page> {
        self.mood()?;
        self.inner().range(range).await
    }

    async fn transact(&self, txn: Txn) -> Result<Revision> {
        if self.good.load(Ordering::SeqCst) > 0 && self.good.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.set(Mood::Hangs);
        }
        tokio::time::sleep(Duration::from_millis(self.slow.load(Ordering::SeqCst))).await;
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while self.mood.load(Ordering::SeqCst) == Mood::Hangs as u8 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.mood()?;
        if self.mood.load(Ordering::SeqCst) == Mood::Refuses as u8 && !txn.writes.is_empty() {
            return Err(Error::Refused("the disk is read-only, says the test".into()));
        }
        self.inner().transact(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        let mut watch = self.inner().watch(prefix, after).await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let lag = Arc::clone(&self.lag);
        tokio::spawn(async move {
            while let Some(batch) = watch.next().await {
                tokio::time::sleep(Duration::from_millis(lag.load(Ordering::SeqCst))).await;
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
        });
        Ok(Watch::new(receiver))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.mood()?;
        self.inner().grant_lease(ttl).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<()> {
        self.mood()?;
        self.inner().renew_lease(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.inner().revoke_lease(lease).await
    }

    fn describe(&self) -> String {
        self.inner().describe()
    }
}
