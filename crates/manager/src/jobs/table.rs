//! Jobs as users see and steer them.

use super::{JobKind, cleanup};
use crate::inner::{Inner, may_change};
use crate::model::{Accepted, Job, JobState, NodeRef, Principal, SvmRef};
use crate::records::{ClaimRecord, ConfigClaimRecord, JobRecord, KeyStoreRecord, KeyStoreState, NodeRecord, Record, Stored, StoredError, key};
use crate::{Code, Error, Manager, Result};
use keystead_store::{Compare, Txn};
use std::time::Duration;
use uuid::Uuid;

/// How many jobs of one configuration can be open: they run one after the other.
const MOST_OF_CONFIG: usize = 16;
/// When it is worth to ask again where there are too many.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// How often an action on a job is tried that changes at the same moment.
const ATTEMPTS: usize = 8;

/// What an operator can do with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAction {
    /// Hold it before it starts.
    Pause,
    /// Let a held one go on.
    Resume,
    /// End it without its effect.
    Cancel,
}

impl Manager {
    /// All jobs that are not yet forgotten, by uuid.
    pub fn jobs(&self) -> Vec<Job> {
        self.inner().view.all::<JobRecord>().into_iter().map(|job| shown(self.inner(), job.record)).collect()
    }

    /// One job.
    ///
    /// # Errors
    /// 4 where it does not exist (any more): a finished job is kept for the retention of the settings.
    pub async fn job(&self, uuid: Uuid) -> Result<Job> {
        if let Some(job) = self.inner().view.get::<JobRecord>(uuid)? {
            return Ok(shown(self.inner(), job.record));
        }
        // Made on another node a moment ago, or gone.
        let entry = self.inner().store.get(&key::<JobRecord>(uuid)).await.map_err(Error::from)?;
        let entry = entry.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
        Ok(shown(self.inner(), Stored::<JobRecord>::decode(&entry)?.record))
    }

    /// Waits until the job has ended, at most `limit`, and returns it as it is then.
    ///
    /// # Errors
    /// As [`Manager::job`].
    pub async fn wait_job(&self, uuid: Uuid, limit: Duration) -> Result<Job> {
        let mut changes = self.inner().view.changes();
        let mut ends = self.inner().runner.ends.subscribe();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            changes.mark_unchanged();
            ends.mark_unchanged();
            let job = self.job(uuid).await?;
            if job.state.is_final() {
                return Ok(job);
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = ends.changed() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(job),
            }
        }
    }

    /// Pauses, resumes or cancels a job.
    ///
    /// # Errors
    /// 4 where it does not exist; 6 for an account that could not start it; 458762, 458771, 458776, 458783 where its state does not allow it.
    pub async fn control_job(&self, who: &Principal, uuid: Uuid, action: JobAction) -> Result<()> {
        // A job that runs writes how far it is: what was read of it a moment ago may be old, and its state the same.
        for _ in 0..ATTEMPTS {
            if self.try_control_job(who, uuid, action).await? {
                return Ok(());
            }
            self.inner().catch_up().await;
        }
        Err(Error::with(Code::JobNotPausable, "its state has just changed; look again").target("action"))
    }

    /// Answers whether it was done; else the job has changed meanwhile.
    async fn try_control_job(&self, who: &Principal, uuid: Uuid, action: JobAction) -> Result<bool> {
        let inner = self.inner();
        let job = inner.view.get::<JobRecord>(uuid)?.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
        may_control(who, &job.record)?;
        let mut record = job.record;
        let mut txn = Txn::new().when(Compare::Unchanged(job.key.clone(), job.revision));
        let mut stopped = None;
        match (action, record.state) {
            (JobAction::Pause, JobState::Queued) => record.state = JobState::Paused,
            (JobAction::Resume, JobState::Paused) => record.state = JobState::Queued,
            (JobAction::Cancel, JobState::Queued | JobState::Paused | JobState::Running) => {
                // What commits only at its end has changed nothing; a rekey-internal goes on with the keys that it has wrapped already when it is started again.
                let left = match record.kind {
                    JobKind::RekeyInternal { .. } if record.state == JobState::Running => "; start rekey-internal again, and it goes on where it was",
                    JobKind::Migrate { .. } | JobKind::Enable { .. } if inner.is_moving(&record.kind) => "; migrate again, and it goes on where it was",
                    _ => "; it has changed nothing",
                };
                let error = Error { message: format!("The job was cancelled{left}"), ..Error::new(Code::JobNotPausable) };
                stopped = inner.route_of(&record.kind).map(|route| (route, error.clone()));
                record.state = JobState::Failure;
                record.message.clone_from(&error.message);
                record.error = Some(StoredError::from(&error));
                record.end_time = Some(inner.clock.utc());
                txn = txn.and(cleanup(&inner.view, &record.kind)).delete(key::<ClaimRecord>(uuid));
                txn = txn.and(inner.release_config(&record));
            }
            // Every job that has not ended can be cancelled: 458784 is never raised.
            (_, JobState::Success | JobState::Failure) => return Err(Error::new(Code::JobEnded).target("action")),
            (JobAction::Pause, JobState::Running) => return Err(Error::new(Code::JobNotPausableWhileRunning).target("action")),
            (JobAction::Resume, JobState::Running) => return Err(Error::new(Code::JobRunning).target("action")),
            (_, state) => return Err(Error::with(Code::JobNotPausable, format!("it is {}", state_name(state))).target("action")),
        }
        let txn = txn.put(job.key, record.encode()?);
        match inner.store.transact(txn).await {
            Ok(revision) => {
                if let Some((route, error)) = stopped {
                    inner.tell_move_failed(&route, &error);
                }
                if record.state.is_final() {
                    crate::audit::job_ended(inner, &record).await;
                }
                inner.view.reached(revision).await;
                inner.runner.wake.notify_one();
                Ok(true)
            }
            Err(keystead_store::Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Inner {
    /// Whether a job has begun to move keys.
    fn is_moving(&self, kind: &JobKind) -> bool {
        let of_config = |store: &KeyStoreRecord| kind.config().is_some_and(|config| store.manager == config || store.other == Some(config));
        self.view.all::<KeyStoreRecord>().iter().any(|store| store.record.state == KeyStoreState::Mixed && of_config(&store.record))
    }

    /// Ends the claim that a job has on its configuration, if it is this job's.
    fn release_config(&self, job: &JobRecord) -> Txn {
        let claim = job.kind.config().and_then(|config| self.view.get::<ConfigClaimRecord>(config).ok().flatten());
        match claim.filter(|claim| claim.record.job == job.uuid) {
            Some(claim) => Txn::new().when(Compare::Unchanged(claim.key.clone(), claim.revision)).delete(claim.key),
            None => Txn::new(),
        }
    }

    /// A new job record.
    pub(crate) fn new_job(&self, who: &Principal, description: impl Into<String>, kind: JobKind, svm: Option<(Uuid, String)>) -> JobRecord {
        let now = self.clock.utc();
        let done = kind == JobKind::Done;
        JobRecord {
            uuid: self.random.uuid(),
            kind,
            description: description.into(),
            account: who.name.clone(),
            state: if done { JobState::Success } else { JobState::Queued },
            message: if done { "success".to_owned() } else { "queued".to_owned() },
            error: None,
            start_time: now,
            order: 1 + self.view.last_job_order(),
            end_time: done.then_some(now),
            node: Some(self.node.uuid),
            svm,
            traceparent: keystead_metrics::trace::traceparent(),
        }
    }

    /// Refuses a job where too many are open already. What other nodes accept at this moment is not seen: the bounds are for memory and patience, and need not be exact.
    fn room_for(&self, job: &JobRecord) -> Result<()> {
        if job.state.is_final() {
            return Ok(());
        }
        let config = job.kind.config();
        let open = self.view.open_jobs();
        let (all, of_config) = (open.len(), open.iter().filter(|open| config.is_some() && open.record.kind.config() == config).count());
        if all >= self.runner.max_open {
            // Without a number: how much others do is not an SVM's to know.
            return Err(Error::with(Code::LimitReached, "as many jobs are queued or running as `[jobs] max_open` allows").retry_after(TRY_AGAIN));
        }
        if of_config >= MOST_OF_CONFIG {
            let message = format!("{of_config} jobs of this configuration are queued or running, one after the other");
            return Err(Error::with(Code::LimitReached, message).retry_after(TRY_AGAIN));
        }
        Ok(())
    }

    /// Writes a job with what its acceptance changes, in one transaction, and wakes the runner. `conflict` says what a failed comparison means to the user.
    pub(crate) async fn accept(&self, job: JobRecord, resource: Uuid, txn: Txn, conflict: impl Fn(&str) -> Error) -> Result<Accepted> {
        self.room_for(&job)?;
        let job_key = key::<JobRecord>(job.uuid);
        let txn = txn.when(Compare::Absent(job_key.clone())).put(job_key.clone(), job.encode()?);
        self.steps.reached("accept.before");
        let revision = match self.store.transact(txn).await {
            Ok(revision) => revision,
            Err(keystead_store::Error::Conflict { key }) => {
                self.catch_up().await;
                return Err(conflict(&key));
            }
            Err(keystead_store::Error::Indeterminate(why)) => match self.store.get(&job_key).await {
                Ok(Some(entry)) => entry.revision,
                Ok(None) => return Err(Error::unexpected(format!("the store did not take the job: {why}"))),
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        };
        self.steps.reached("accept.after");
        self.view.reached(revision).await;
        self.runner.wake.notify_one();
        Ok(Accepted { job: job.uuid, resource })
    }
}

/// Refuses an account that could not start such a job. A move of keys is the cluster's to start, and so to hold and to end, also where the setting `migrate_on_enable` lets it begin with an SVM's enable.
fn may_control(who: &Principal, job: &JobRecord) -> Result<()> {
    match &job.kind {
        JobKind::Migrate { .. } | JobKind::Enable { migrate: true, .. } => may_change(who, None),
        // One for many records is its account's.
        JobKind::Bulk if job.account == who.name => Ok(()),
        _ => may_change(who, job.svm.as_ref().map(|(svm, _)| *svm)),
    }
}

fn shown(inner: &Inner, record: JobRecord) -> Job {
    let node = record.node.map(|uuid| {
        let name = inner.view.get::<NodeRecord>(uuid).ok().flatten().map_or_else(String::new, |node| node.record.name);
        NodeRef { uuid, name }
    });
    let mut job = Job {
        account: record.account,
        uuid: record.uuid,
        description: record.description,
        state: record.state,
        message: record.message,
        error: record.error.as_ref().map(Error::from),
        start_time: record.start_time,
        end_time: record.end_time,
        node,
        svm: record.svm.map(|(uuid, name)| SvmRef { uuid, name }),
    };
    if record.state == JobState::Success && inner.runner.is_at_work(record.uuid) {
        job.state = JobState::Running;
        job.end_time = None;
    }
    if let Some(error) = inner.runner.unsaved(record.uuid).filter(|_| !record.state.is_final()) {
        job.state = JobState::Failure;
        job.message.clone_from(&error.message);
        job.error = Some(error);
        job.end_time = Some(inner.clock.utc());
    }
    job
}

fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Paused => "paused",
        JobState::Success => "ended with success",
        JobState::Failure => "ended with a failure",
    }
}
