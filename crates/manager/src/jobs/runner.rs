//! Claims jobs, runs them, and commits how they end.

use super::bulk::BulkRecord;
use super::context::JobContext;
use super::{Afterwards, JobKind, Plan, queue};
use crate::inner::Inner;
use crate::model::{JobState, SvmRef};
use crate::records::{ClaimRecord, ConfigClaimRecord, JobRecord, KeyStoreRecord, PresenceRecord, Record, Stored, StoredError, key};
use crate::{Code, Error, Result};
use keystead_metrics::trace;
use keystead_store::{Compare, Error as StoreError, LeaseId, Txn};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span, field};
use uuid::Uuid;

/// How long a job is left to the node that has accepted it: that one has looked whether it can do it, and who asked may look there. A node that is busy, or gone, does not hold it up.
const OTHERS_FIRST: Duration = Duration::from_secs(2);
/// How long a claim outlives a node that dies.
const CLAIM_TTL: Duration = Duration::from_secs(15);
/// How often finished jobs are looked through for old ones, at the least.
const SWEEP: Duration = Duration::from_secs(10);
/// How many of them at a time: each is a comparison and up to two deletions, and etcd takes 128 of each kind in a transaction.
const SWEPT_TOGETHER: usize = 60;
/// How long a stop waits for running jobs. What is not done by then goes on after the next start.
const DRAIN: Duration = Duration::from_secs(20);
/// How often a body is run again since what it read had changed under it.
const REPEATS: u32 = 5;
/// The pause between two tries to write how a job ended.
const WRITE_RETRY: Duration = Duration::from_millis(500);

/// What this node knows of the jobs it runs.
pub(crate) struct Runner {
    /// Wakes the runner.
    pub wake: Notify,
    /// Counts ends of jobs, for those who wait.
    pub ends: watch::Sender<u64>,
    /// How many jobs may be open.
    pub max_open: usize,
    slots: Arc<Semaphore>,
    /// With the configuration that each works on.
    running: Mutex<HashMap<Uuid, Option<Uuid>>>,
    /// Since when jobs could start that other nodes have accepted.
    others: Mutex<HashMap<Uuid, Duration>>,
    /// Failures that callers must see although the store has not taken them yet.
    unsaved: Mutex<HashMap<Uuid, Error>>,
}

impl Runner {
    /// A runner of at most `concurrency` jobs at a time, with `max_open` queued and running together.
    pub fn new(concurrency: usize, max_open: usize) -> Self {
        Self {
            max_open: max_open.max(1),
            wake: Notify::new(),
            ends: watch::channel(0).0,
            slots: Arc::new(Semaphore::new(concurrency.max(1))),
            running: Mutex::default(),
            others: Mutex::default(),
            unsaved: Mutex::default(),
        }
    }

    /// The failure of a job that the store has not taken yet.
    pub fn unsaved(&self, job: Uuid) -> Option<Error> {
        lock(&self.unsaved).get(&job).cloned()
    }

    /// Whether this node is still at work on a job. Its end may stand in the store already, while the KEK is just being put into memory: to callers it has not ended before that is done.
    pub fn is_at_work(&self, job: Uuid) -> bool {
        lock(&self.running).contains_key(&job)
    }

    /// How many jobs this node is at work on.
    pub fn count_at_work(&self) -> usize {
        lock(&self.running).len()
    }

    fn ended(&self) {
        self.ends.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Runs jobs until it is told to stop; then waits, within a limit, for those that are running.
pub(crate) async fn run(manager: Arc<Inner>, stop: CancellationToken) {
    let mut changes = manager.view.changes();
    let mut tasks = JoinSet::new();
    let lease = Lease::default();
    // A task of its own: what this one waits for ends with each of its turns, and a renewal may take longer than that while the store is in trouble.
    let _renewal = AbortOnDropHandle::new(tokio::spawn(lease.clone().keep(Arc::clone(&manager))));
    let mut next_sweep = manager.clock.monotonic();
    loop {
        let (jobs, look_again) = runnable(&manager, manager.runner.slots.available_permits());
        for job in jobs {
            let slot = if job.record.kind.works() { Arc::clone(&manager.runner.slots).try_acquire_owned().ok() } else { None };
            if slot.is_none() && job.record.kind.works() {
                break;
            }
            lock(&manager.runner.running).insert(job.record.uuid, job.record.kind.config());
            tasks.spawn(execute(Arc::clone(&manager), job, lease.clone(), slot));
        }
        let pause = SWEEP.min(manager.settings().job_retention);
        next_sweep = next_sweep.min(manager.clock.monotonic() + pause);
        let swept = async {
            manager.clock.sleep_until(next_sweep).await;
            sweep(&manager).await
        };
        tokio::select! {
            () = stop.cancelled() => break,
            _ = changes.changed() => {}
            () = manager.runner.wake.notified() => {}
            () = async { match look_again { Some(at) => manager.clock.sleep_until(at).await, None => std::future::pending().await } } => {}
            more = swept => next_sweep = manager.clock.monotonic() + if more { Duration::ZERO } else { pause },
            Some(_) = tasks.join_next() => {}
        }
    }
    // Those that still run keep their claims until they have ended.
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!(jobs = tasks.len(), "jobs are still running at the stop; they go on after the next start");
    }
}

/// Jobs that may start now, at most `places` of those that work; and when to look again at those that are left to other nodes for now.
fn runnable(manager: &Inner, places: usize) -> (Vec<Stored<JobRecord>>, Option<Duration>) {
    let running = lock(&manager.runner.running).clone();
    let claimed = |job| manager.view.any_under(&key::<ClaimRecord>(job));
    let startable = queue::startable(manager.view.open_jobs(), &running, claimed, places);
    let now = manager.clock.monotonic();
    let mut others = lock(&manager.runner.others);
    let (left, free): (Vec<_>, Vec<_>) = startable.into_iter().partition(|job| {
        let is_anothers = job.record.state == JobState::Queued && job.record.node.is_some_and(|node| node != manager.node.uuid && is_up(manager, node));
        is_anothers && now < *others.entry(job.record.uuid).or_insert(now) + OTHERS_FIRST
    });
    let look_again = left.iter().filter_map(|job| others.get(&job.record.uuid)).min().map(|since| *since + OTHERS_FIRST);
    others.retain(|uuid, _| left.iter().chain(&free).any(|job| job.record.uuid == *uuid));
    (free.into_iter().map(Arc::unwrap_or_clone).collect(), look_again)
}

fn is_up(manager: &Inner, node: Uuid) -> bool {
    manager.view.contains(&key::<PresenceRecord>(node))
}

/// A job that has not ended.
fn open_job(manager: &Inner, job: Uuid) -> Option<Stored<JobRecord>> {
    manager.view.get::<JobRecord>(job).ok().flatten().filter(|job| !job.record.state.is_final())
}

/// A job at work on this node. However it ends, others of its configuration can come.
struct AtWork {
    manager: Arc<Inner>,
    job: Uuid,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        lock(&self.manager.runner.unsaved).remove(&self.job);
        lock(&self.manager.runner.running).remove(&self.job);
        self.manager.runner.ended();
        self.manager.runner.wake.notify_one();
    }
}

async fn execute(manager: Arc<Inner>, job: Stored<JobRecord>, lease: Lease, slot: Option<OwnedSemaphorePermit>) {
    let uuid = job.record.uuid;
    let _at_work = AtWork { manager: Arc::clone(&manager), job: uuid };
    match claim(&manager, job, &lease).await {
        Ok(Some(context)) => conclude(&context).instrument(span_of(&context.record())).await,
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(job = %uuid, %error, "the job could not be claimed; it is tried again");
            tokio::time::sleep(WRITE_RETRY).await;
        }
    }
    drop(slot);
}

/// The span of a job at work, in the trace of the call that started it.
fn span_of(job: &JobRecord) -> Span {
    let span = tracing::info_span!(
        target: trace::TARGET,
        "job",
        otel.name = format!("job {}", job.kind.name()),
        otel.status_code = field::Empty,
        keystead.job = %job.uuid,
        keystead.code = field::Empty,
        svm.name = job.svm.as_ref().map(|(_, name)| name.as_str()),
    );
    if let Some(traceparent) = &job.traceparent {
        trace::continue_from(&span, traceparent);
    }
    span
}

/// Takes the job for this node. `None`: somebody else was faster.
async fn claim(manager: &Arc<Inner>, job: Stored<JobRecord>, leases: &Lease) -> keystead_store::Result<Option<JobContext>> {
    let claim_key = key::<ClaimRecord>(job.record.uuid);
    let mut record = job.record.clone();
    if record.state == JobState::Running {
        tracing::info!(job = %record.uuid, "the job was interrupted and starts over");
    }
    record.state = JobState::Running;
    record.node = Some(manager.node.uuid);
    let lease = leases.get(manager).await?;
    let encoded = |result: Result<Vec<u8>>| result.map_err(|error| StoreError::Refused(error.detail.unwrap_or_default()));
    let txn = Txn::new()
        .when(Compare::Unchanged(job.key.clone(), job.revision))
        .when(Compare::Absent(claim_key.clone()))
        .put_leased(claim_key.clone(), encoded(ClaimRecord { node: manager.node.uuid }.encode())?, lease)
        .put(job.key.clone(), encoded(record.encode())?);
    // Two nodes may come to two jobs of one configuration in the same moment.
    let txn = match record.kind.config().map(key::<ConfigClaimRecord>) {
        None => txn,
        Some(config_claim) => {
            let claim = ConfigClaimRecord { job: record.uuid };
            txn.when(Compare::Absent(config_claim.clone())).put_leased(config_claim, encoded(claim.encode())?, lease)
        }
    };
    match manager.store.transact(txn).await {
        Ok(revision) => {
            let stored = Stored { key: job.key, revision, record };
            Ok(Some(JobContext::new(Arc::clone(manager), (claim_key, revision), stored)))
        }
        Err(StoreError::Conflict { .. }) => Ok(None),
        Err(StoreError::LeaseGone) => {
            leases.forget();
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Runs the body and commits its end. Returns when the end stands in the store, or when the job is no longer this node's.
async fn conclude(context: &JobContext) {
    let kind = context.record().kind;
    for _ in 0..REPEATS {
        let outcome = tokio::select! {
            outcome = super::run(context, &kind) => outcome,
            error = vanished(context, &kind) => Err(error),
            () = cancelled(context) => return,
        };
        match outcome {
            Ok(plan) => match commit(context, &kind, plan).await {
                Committed::Done | Committed::Lost => return,
                Committed::Failed(error) => return fail(context, &kind, error).await,
                Committed::Outdated => tracing::info!(job = %context.job(), "what the job had read has changed; it starts over"),
            },
            Err(error) => return fail(context, &kind, error).await,
        }
    }
    fail(
        context,
        &kind,
        Error::unexpected("the configuration kept changing while the job ran, or the store did not take its end before the proof of AWS was too old"),
    )
    .await;
}

/// Ends when what the job works on is gone, so that a DELETE need not wait for an AWS that hangs.
async fn vanished(context: &JobContext, kind: &JobKind) -> Error {
    let mut changes = context.manager.view.changes();
    while !is_gone(context, kind) {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
    Error::with(Code::NotConfigured, "the configuration was deleted while this operation ran")
}

/// Returns when the job has ended without this node: it was cancelled. What its body holds in memory goes with it.
async fn cancelled(context: &JobContext) {
    let mut changes = context.manager.view.changes();
    while open_job(&context.manager, context.job()).is_some() {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn is_gone(context: &JobContext, kind: &JobKind) -> bool {
    let JobKind::Enable { config, svm, .. } = kind else { return false };
    let store = context.manager.view.get::<KeyStoreRecord>(svm).ok().flatten();
    !store.is_some_and(|store| store.record.is_for(*config))
}

enum Committed {
    /// The effect stands.
    Done,
    /// The job is another node's now, or was cancelled.
    Lost,
    /// What the body had read has changed.
    Outdated,
    /// The store refused.
    Failed(Error),
}

async fn commit(context: &JobContext, kind: &JobKind, plan: Plan) -> Committed {
    let svm = match &plan.afterwards {
        Afterwards::Serve(proof) | Afterwards::Rewrapped(proof, _) => Some(proof.config.svm),
        Afterwards::Forget(svm) => Some(*svm),
        Afterwards::Nothing | Afterwards::Retire(..) | Afterwards::Moved(..) => None,
    };
    let _settling = svm.map(|svm| context.manager.polls.settling(svm));
    transact(context, kind, plan).await
}

async fn transact(context: &JobContext, kind: &JobKind, plan: Plan) -> Committed {
    let mut record = context.record();
    record.state = JobState::Success;
    record.message = plan.message;
    record.end_time = Some(context.manager.clock.utc());
    let Ok(value) = record.encode() else { return Committed::Failed(Error::unexpected("the job's record cannot be written as JSON")) };
    let txn = context.released(context.fenced(plan.txn).put(context.key(), value));
    context.step("commit", "before");
    let proven = match &plan.afterwards {
        Afterwards::Serve(proof) | Afterwards::Rewrapped(proof, _) => Some((proof.config.svm, proof.asked)),
        // Keys that leave AWS may do so only as long as AWS has not said otherwise.
        Afterwards::Retire(svm, _, asked) => asked.map(|asked| (*svm, asked)),
        Afterwards::Moved(route, _, asked, _) => asked.map(|asked| (route.svm, asked)),
        Afterwards::Nothing | Afterwards::Forget(_) => None,
    };
    loop {
        // The store may be away for long, and AWS may have denied the key meanwhile: then the proof is none any more, and its KEKs leave memory with the plan.
        if proven.is_some_and(|(svm, asked)| context.manager.is_outdated(svm, asked)) {
            return if ended_here(context, JobState::Success).await { Committed::Lost } else { Committed::Outdated };
        }
        match context.manager.store.transact(txn.clone()).await {
            Ok(revision) => {
                context.step("commit", "after");
                if matches!(plan.afterwards, Afterwards::Retire(..) | Afterwards::Moved(..)) {
                    // What the view still shows of the onboard key manager's could be opened into memory again.
                    context.manager.view.reached(revision).await;
                }
                after(context, plan.afterwards);
                context.manager.view.reached(revision).await;
                crate::audit::job_ended(&context.manager, &record).await;
                return Committed::Done;
            }
            Err(StoreError::Conflict { key }) if context.is_fence(&key) => {
                if ended_here(context, JobState::Success).await {
                    after(context, plan.afterwards);
                    crate::audit::job_ended(&context.manager, &record).await;
                    return Committed::Done;
                }
                tracing::info!(job = %context.job(), "the job is no longer this node's");
                return Committed::Lost;
            }
            Err(StoreError::Conflict { .. }) => return Committed::Outdated,
            Err(error @ (StoreError::Indeterminate(_) | StoreError::Unavailable(_))) => {
                // The same transaction cannot happen twice: it compares the job's record, which it changes.
                tracing::warn!(job = %context.job(), %error, "the end of the job is not written yet");
                tokio::time::sleep(WRITE_RETRY).await;
            }
            Err(error) => return Committed::Failed(refused(kind, &error)),
        }
    }
}

/// After an unclear answer: did our own transaction happen after all?
async fn ended_here(context: &JobContext, state: JobState) -> bool {
    let Ok(Some(entry)) = context.manager.store.get(&context.key()).await else { return false };
    Stored::<JobRecord>::decode(&entry).is_ok_and(|job| job.record.state == state && job.record.node == Some(context.manager.node.uuid))
}

/// What the user sees where the store refuses the last transaction of a job.
fn refused(kind: &JobKind, error: &StoreError) -> Error {
    match kind {
        JobKind::Enable { .. } | JobKind::Modify { .. } => {
            Error::with(Code::StoreSecretFailed, "the store of the cluster refuses to write; nothing was changed").detail(error)
        }
        _ => Error::unexpected(error),
    }
}

fn after(context: &JobContext, afterwards: Afterwards) {
    let manager = &context.manager;
    match afterwards {
        Afterwards::Nothing => {}
        Afterwards::Serve(proof) => manager.proven(proof),
        Afterwards::Rewrapped(proof, wrapped) => {
            let svm = manager.svm_ref(proof.config.svm);
            manager.proven(proof);
            let (old, new) = *wrapped;
            manager.tell_rewrapped(&svm, &old, &new);
        }
        Afterwards::Retire(svm, version, _) => manager.keyring.retain(svm, &[version]),
        Afterwards::Moved(route, version, _, keys) => {
            manager.keyring.retain(route.svm, &[version]);
            manager.tell_move_finished(&route, keys);
        }
        Afterwards::Forget(svm) => {
            manager.keyring.forget(svm);
            manager.polls.forget(svm);
            manager.view.keys().forget(svm);
        }
    }
}

/// Writes that the job failed and takes back what its acceptance left behind, in one transaction. If the store does not take that, callers see the failure all the same; the store gets it
/// as soon as it takes anything again.
async fn fail(context: &JobContext, kind: &JobKind, error: Error) {
    let job = context.job();
    Span::current().record("otel.status_code", "ERROR").record("keystead.code", error.code.number());
    tracing::warn!(%job, code = error.code.number(), error = error.message, detail = error.detail.as_deref(), "the job failed");
    let mut record = context.record();
    record.state = JobState::Failure;
    record.message.clone_from(&error.message);
    record.error = Some(StoredError::from(&error));
    record.end_time = Some(context.manager.clock.utc());
    let Ok(value) = record.encode() else { return };
    // While the key store still shows it.
    let route = context.manager.route_of(kind);
    loop {
        context.step("fail", "before");
        let txn = context.released(context.fenced(super::cleanup(&context.manager.view, kind)).put(context.key(), value.clone()));
        match context.manager.store.transact(txn).await {
            Ok(revision) => {
                context.step("fail", "after");
                if let (JobKind::RekeyExternal { outdated: Some(_), .. }, Some((uuid, name))) = (kind, &record.svm) {
                    context.manager.tell_wrap_failed(&SvmRef { uuid: *uuid, name: name.clone() }, &error);
                }
                if let Some(route) = route {
                    context.manager.tell_move_failed(&route, &error);
                }
                context.manager.view.reached(revision).await;
                crate::audit::job_ended(&context.manager, &record).await;
                return;
            }
            Err(StoreError::Conflict { key }) if context.is_fence(&key) => {
                // An answer that did not come: it was written all the same.
                if ended_here(context, JobState::Failure).await {
                    crate::audit::job_ended(&context.manager, &record).await;
                }
                return;
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(why) => {
                tracing::warn!(%job, error = %why, "the failure of the job is not written yet");
                lock(&context.manager.runner.unsaved).insert(job, error.clone());
                context.manager.runner.ended();
            }
        }
        tokio::time::sleep(WRITE_RETRY).await;
    }
}

/// Deletes the oldest of the finished jobs that are older than the retention, and what else is kept of them: so many as one transaction takes. Answers whether more are left.
///
/// A node that is up does that for its own jobs, by the clock that wrote when they ended: one whose clock is off must not take the jobs of others for old.
async fn sweep(manager: &Inner) -> bool {
    let Ok(old) = manager.clock.utc().checked_sub(manager.settings().job_retention) else { return false };
    let keys = manager.view.jobs_ended_by(old, SWEPT_TOGETHER + 1, &crate::presence::others(manager));
    let mut txn = Txn::new();
    for job_key in keys.iter().take(SWEPT_TOGETHER) {
        let uuid = job_key.strip_prefix(JobRecord::PREFIX).unwrap_or_default();
        let Ok(Some(job)) = manager.view.shared::<JobRecord>(uuid) else { continue };
        txn = txn.when(Compare::Unchanged(job.key.clone(), job.revision)).delete(job.key.clone());
        if job.record.kind == JobKind::Bulk {
            txn = txn.delete(key::<BulkRecord>(uuid));
        }
    }
    if txn.writes.is_empty() {
        return false;
    }
    match manager.store.transact(txn).await {
        Ok(revision) => {
            manager.view.reached(revision).await;
            keys.len() > SWEPT_TOGETHER
        }
        Err(error) => {
            tracing::debug!(%error, "old jobs could not be deleted; it is tried again");
            false
        }
    }
}

/// The lease that this node's claims stand under; renewed while the runner lives. It goes by the store's time, which is real time, not by the clock of the settings.
#[derive(Clone, Default)]
struct Lease(Arc<Mutex<Option<(LeaseId, Instant)>>>);

impl Lease {
    async fn get(&self, manager: &Inner) -> keystead_store::Result<LeaseId> {
        let held = *lock(&self.0);
        if let Some((id, _)) = held {
            return Ok(id);
        }
        let id = manager.store.grant_lease(CLAIM_TTL).await?;
        // Two tasks may come here at once; the lease that is not kept runs out by itself, and nothing stands under it.
        let (kept, _) = *lock(&self.0).get_or_insert((id, Instant::now()));
        Ok(kept)
    }

    fn forget(&self) {
        *lock(&self.0) = None;
    }

    /// Renews the lease, where one is held, whenever a third of its life has passed.
    async fn keep(self, manager: Arc<Inner>) {
        loop {
            tokio::time::sleep(CLAIM_TTL / 12).await;
            let due = lock(&self.0).filter(|(_, at)| at.elapsed() >= CLAIM_TTL / 4);
            let Some((id, _)) = due else { continue };
            let asked = Instant::now();
            let renewed = manager.store.renew_lease(id).await;
            let mut held = lock(&self.0);
            let Some((_, at)) = held.as_mut().filter(|(held, _)| *held == id) else { continue };
            match renewed {
                Ok(()) => *at = asked,
                Err(StoreError::LeaseGone) => *held = None,
                // It may live on, and is tried again.
                Err(error) => tracing::warn!(%error, "the lease of this node's jobs could not be renewed"),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
