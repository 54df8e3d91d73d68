//! What a job's body gets: the key manager, and a way to say how far it is.

use crate::inner::Inner;
use crate::records::{ConfigClaimRecord, JobRecord, Record, Stored, key};
use keystead_store::{Compare, Error as StoreError, Revision, Txn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// A running job.
pub(crate) struct JobContext {
    /// The key manager.
    pub manager: Arc<Inner>,
    /// The claim, as every transaction of this job must find it.
    pub(super) claim: (String, Revision),
    /// The claim of the configuration, made and ended with that.
    config_claim: Option<String>,
    /// The job's name in the names of its steps.
    pub(super) name: &'static str,
    record: Mutex<Stored<JobRecord>>,
}

impl JobContext {
    pub(super) fn new(manager: Arc<Inner>, claim: (String, Revision), record: Stored<JobRecord>) -> Self {
        let config_claim = record.record.kind.config().map(key::<ConfigClaimRecord>);
        Self { manager, claim, config_claim, name: record.record.kind.name(), record: Mutex::new(record) }
    }

    /// The job.
    pub fn job(&self) -> Uuid {
        self.stored().record.uuid
    }

    /// Says what the job does now. It is written for users and for resumption by others, so a failure to write it is no failure of the job; the last transaction
    /// finds out whether the claim still stands.
    pub async fn progress(&self, message: impl Into<String>) {
        let mut record = self.stored().record.clone();
        record.message = message.into();
        tracing::info!(job = %record.uuid, step = record.message, "job progress");
        let Ok(value) = record.encode() else { return };
        let key = self.key();
        let txn = self.fenced(Txn::new().put(key, value));
        match self.manager.store.transact(txn).await {
            Ok(revision) => {
                let mut stored = self.stored();
                stored.revision = revision;
                stored.record = record;
            }
            Err(StoreError::Conflict { .. }) => tracing::info!(job = %record.uuid, "the job was taken over or cancelled"),
            Err(error) => tracing::warn!(job = %record.uuid, %error, "the progress of the job could not be written"),
        }
    }

    /// Makes a call to AWS, between two named steps: `{job}.{call}.before` and `{job}.{call}.after`.
    pub async fn aws<T>(&self, call: &str, future: impl Future<Output = T>) -> T {
        self.step(call, "before");
        let result = future.await;
        self.step(call, "after");
        result
    }

    /// Passes a named step.
    pub fn step(&self, what: &str, when: &str) {
        self.manager.steps.reached(&format!("{}.{what}.{when}", self.name));
    }

    /// Adds the comparisons without which no transaction of a job may happen: its claim stands, and nobody has touched its record.
    pub fn fenced(&self, txn: Txn) -> Txn {
        let stored = self.stored();
        txn.when(Compare::Unchanged(self.claim.0.clone(), self.claim.1)).when(Compare::Unchanged(stored.key.clone(), stored.revision))
    }

    /// Adds the end of the claims.
    pub(super) fn released(&self, txn: Txn) -> Txn {
        let txn = txn.delete(self.claim.0.clone());
        self.config_claim.iter().fold(txn, |txn, claim| txn.delete(claim.clone()))
    }

    /// Whether a failed comparison on `key` means that this node has lost the job.
    pub fn is_fence(&self, key: &str) -> bool {
        key == self.claim.0 || key == self.stored().key
    }

    pub(super) fn record(&self) -> JobRecord {
        self.stored().record.clone()
    }

    pub(super) fn key(&self) -> String {
        self.stored().key.clone()
    }

    fn stored(&self) -> MutexGuard<'_, Stored<JobRecord>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
