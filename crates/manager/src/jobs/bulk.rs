//! A call with many records: one job that stands for all of them.
//!
//! Each record is accepted by itself, as if it had come alone, and has a job of its own where it needs one. What came of each stands in one record beside the parent job; the parent waits for the
//! jobs and ends when all have ended: with success where all have succeeded. It works on nothing, and so takes no place of those that work.

use super::context::JobContext;
use super::{Afterwards, JobKind, Plan};
use crate::model::{Accepted, JobState, Principal};
use crate::records::{JobRecord, Record, StoredError, key};
use crate::{Code, Error, Manager, Result};
use keystead_store::Txn;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The least time between two reports of how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What came of the records of a call, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkRecord {
    /// Where the collection stands.
    pub path: String,
    /// The account that has called.
    pub account: String,
    /// One entry a record.
    pub items: Vec<BulkItem>,
}

/// What came of one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkItem {
    /// Where the resource stands, where there is one.
    pub href: Option<String>,
    job: Option<Uuid>,
    error: Option<StoredError>,
}

impl BulkItem {
    /// A record that was accepted: where its resource stands, and its job where it has one.
    pub fn accepted(href: Option<String>, job: Option<Uuid>) -> Self {
        Self { href, job, error: None }
    }

    /// A record that was refused.
    pub fn refused(error: &Error) -> Self {
        Self { href: None, job: None, error: Some(StoredError::from(error)) }
    }

    /// Why it was refused, or why its job has failed.
    pub fn error(&self) -> Option<Error> {
        self.error.as_ref().map(Error::from)
    }
}

impl Manager {
    /// Makes the job that stands for the records of a call.
    ///
    /// # Errors
    /// The store's.
    pub async fn start_bulk(&self, who: &Principal, description: &str, path: &str, items: Vec<BulkItem>) -> Result<Accepted> {
        let inner = self.inner();
        let job = inner.new_job(who, description, JobKind::Bulk, None);
        let uuid = job.uuid;
        let record = BulkRecord { path: path.to_owned(), account: who.name.clone(), items };
        let txn = Txn::new().put(key::<BulkRecord>(uuid), record.encode()?);
        inner.accept(job, uuid, txn, |key| Error::unexpected(format!("{key} exists already"))).await
    }

    /// What came of the records of a call, as long as its job is kept.
    ///
    /// # Errors
    /// 4: no such job, one of another collection, or of another account.
    pub fn bulk_results(&self, who: &Principal, job: Uuid, path: &str) -> Result<Vec<BulkItem>> {
        let missing = || Error::new(Code::NotFound).target("job_results_uuid");
        let record = self.inner().view.get::<BulkRecord>(job)?.ok_or_else(missing)?.record;
        if record.path == path && record.account == who.name { Ok(record.items) } else { Err(missing()) }
    }
}

/// Waits for all jobs, and writes what came of them together with its own end.
pub(crate) async fn run(context: &JobContext) -> Result<Plan> {
    let view = &context.manager.view;
    let results_key = key::<BulkRecord>(context.job());
    let mut record = view.get::<BulkRecord>(context.job())?.ok_or_else(|| Error::unexpected("the records of the call are missing"))?.record;
    let mut changes = view.changes();
    // A job ends for others a moment after its record: when this node is no longer at work on it.
    let mut ends = context.manager.runner.ends.subscribe();
    let mut reported = None;
    loop {
        changes.mark_unchanged();
        ends.mark_unchanged();
        let mut open = 0;
        for item in &mut record.items {
            open += usize::from(!is_done(context, item));
        }
        if open == 0 {
            break;
        }
        let now = context.manager.clock.monotonic();
        if reported.is_none_or(|at| now.saturating_sub(at) >= REPORT_EVERY) {
            reported = Some(now);
            context.progress(format!("{} of {} records are done", record.items.len() - open, record.items.len())).await;
        }
        let changed = tokio::select! {
            changed = changes.changed() => changed,
            changed = ends.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }
    let failed = record.items.iter().filter(|item| item.error.is_some()).count();
    let all = record.items.len();
    if failed > 0 {
        // The results are written even though the job fails: they say why.
        let txn = context.fenced(Txn::new().put(results_key, record.encode()?));
        context.manager.store.transact(txn).await.map_err(Error::from)?;
        let first = record.items.iter().find_map(|item| item.error.as_ref()).map(Error::from).unwrap_or_else(|| Error::unexpected("no error"));
        return Err(Error { message: format!("{failed} of {all} records have failed; the first: {}", first.message), ..first });
    }
    Ok(Plan { txn: Txn::new().put(results_key, record.encode()?), message: format!("{all} records are done"), afterwards: Afterwards::Nothing })
}

/// Whether an entry has come to its end. The job's error is kept with it, since the job itself may be gone before the results are asked for.
fn is_done(context: &JobContext, item: &mut BulkItem) -> bool {
    let Some(job) = item.job else { return true };
    let Ok(Some(found)) = context.manager.view.shared::<JobRecord>(job) else {
        // Swept already: it had ended, and nobody was there to see how. Only a restart that took longer than the retention does that.
        item.job = None;
        return true;
    };
    if !found.record.state.is_final() || context.manager.runner.is_at_work(job) {
        return false;
    }
    if found.record.state == JobState::Failure {
        item.error = found.record.error.clone().or_else(|| Some(StoredError::from(&Error::unexpected("the job has failed"))));
    }
    item.job = None;
    true
}
