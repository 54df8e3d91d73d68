//! A store whose calls are counted, with their results and their time.

use crate::{Entry, Error, LeaseId, Page, Range, Result, Revision, Store, Txn, Watch};
use async_trait::async_trait;
use keystead_metrics::{Name, Page as MetricsPage, Source, Timings};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The upper bounds of the histogram, in seconds: a transaction costs a sync of a disk, or a round of etcd's members.
const BOUNDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A transaction without writes is one of its own: it syncs no disk, and each second comes one, so that it would hide how slow the others are.
const OPERATIONS: [&str; 7] = ["get", "range", "transact", "grant_lease", "renew_lease", "revoke_lease", "compare"];
/// What a call can come to. A conflict is no fault of the store: somebody else was faster.
const RESULTS: &[&str] = &["ok", "conflict", "unavailable", "refused", "indeterminate", "error"];

/// The places of the operations.
const GET: usize = 0;
const RANGE: usize = 1;
const TRANSACT: usize = 2;
const GRANT_LEASE: usize = 3;
const RENEW_LEASE: usize = 4;
const REVOKE_LEASE: usize = 5;
const COMPARE: usize = 6;

/// A store between the node and the backend. What a watch brings is not counted: how old the node's view is says whether it comes.
pub struct Measured {
    store: Arc<dyn Store>,
    calls: Arc<Calls>,
}

/// The calls of a store.
#[derive(Debug)]
pub struct Calls(Timings);

impl Measured {
    /// Counts the calls of a store from now on.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let operations = OPERATIONS.map(|operation| vec![("operation", operation)]);
        Self { store, calls: Arc::new(Calls(Timings::new(operations, RESULTS, BOUNDS))) }
    }

    /// What was counted.
    pub fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    async fn counted<T>(&self, operation: usize, call: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let answer = call.await;
        self.calls.ended(operation, answer.as_ref().err(), began.elapsed());
        answer
    }
}

impl Calls {
    fn ended(&self, operation: usize, error: Option<&Error>, took: Duration) {
        let result = match error {
            None => 0,
            Some(Error::Conflict { .. }) => 1,
            Some(Error::Unavailable(_)) => 2,
            Some(Error::Refused(_)) => 3,
            Some(Error::Indeterminate(_)) => 4,
            Some(_) => 5,
        };
        self.0.record(operation, result, took);
    }
}

impl Source for Calls {
    fn write(&self, page: &mut MetricsPage<'_>) -> std::fmt::Result {
        page.operations(Name::plain("keystead_store_calls", "Calls to the store that have ended, by what came of them"), &self.0)?;
        page.durations(Name::seconds("keystead_store_call_duration", "How long calls to the store take"), &self.0)
    }
}

#[async_trait]
impl Store for Measured {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.counted(GET, self.store.get(key)).await
    }

    async fn range(&self, range: Range) -> Result<Page> {
        self.counted(RANGE, self.store.range(range)).await
    }

    async fn range_recent(&self, range: Range) -> Result<Page> {
        self.counted(RANGE, self.store.range_recent(range)).await
    }

    async fn transact(&self, txn: Txn) -> Result<Revision> {
        self.counted(if txn.writes.is_empty() { COMPARE } else { TRANSACT }, self.store.transact(txn)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        self.store.watch(prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.counted(GRANT_LEASE, self.store.grant_lease(ttl)).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<()> {
        self.counted(RENEW_LEASE, self.store.renew_lease(lease)).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.counted(REVOKE_LEASE, self.store.revoke_lease(lease)).await
    }

    async fn identity(&self) -> Result<String> {
        self.store.identity().await
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::SqliteStore;

    #[tokio::test]
    async fn what_only_compares_is_no_write() {
        let folder = tempfile::tempdir().unwrap();
        let store = Measured::new(Arc::new(SqliteStore::open(&folder.path().join("store.db")).await.unwrap()));
        store.transact(Txn::new().put("/a", "")).await.unwrap();
        for _ in 0..3 {
            store.transact(Txn::new()).await.unwrap();
        }
        let metrics = keystead_metrics::Metrics::default();
        metrics.register(Arc::clone(store.calls()));
        let page = metrics.text(keystead_metrics::Format::Prometheus).unwrap();
        for line in ["keystead_store_calls_total{operation=\"transact\",result=\"ok\"} 1", "keystead_store_calls_total{operation=\"compare\",result=\"ok\"} 3"]
        {
            assert!(page.contains(line), "{page}");
        }
    }
}
