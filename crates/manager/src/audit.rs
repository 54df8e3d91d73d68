//! What the key manager itself brings to the audit log: how jobs have ended, whose an object is, and what operators are told of the log.

use crate::events::catalogue::{AUDIT_COLLECTOR_AWAY, AUDIT_COLLECTOR_BACK, AUDIT_NOT_WRITABLE, AUDIT_WRITABLE};
use crate::inner::Inner;
use crate::model::{JobState, SvmRef};
use crate::records::{AccountRecord, AwsKmsRecord, CertificateRecord, EkmipClientCaRecord, EkmipClientRecord, JobRecord, SvmRecord};
use crate::{Code, Error, Manager};
use keystead_audit::{Application, Named, Record, State, Unrecorded};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long the end of a job waits for its record: the job has ended, whatever the disk says.
const PATIENCE: Duration = Duration::from_secs(5);

impl Manager {
    /// Whose an object is: an SVM itself, a configuration, a certificate, a client, a client CA, a job.
    pub fn svm_of(&self, object: Uuid) -> Option<SvmRef> {
        let view = &self.inner().view;
        let found = |svm: Uuid| Some(self.inner().svm_ref(svm));
        if let Ok(Some(svm)) = view.get::<SvmRecord>(object) {
            return Some(SvmRef { uuid: object, name: svm.record.name });
        }
        if let Ok(Some(config)) = view.get::<AwsKmsRecord>(object) {
            return found(config.record.svm);
        }
        if let Ok(Some(certificate)) = view.get::<CertificateRecord>(object) {
            return certificate.record.svm.and_then(found);
        }
        if let Ok(Some(client)) = view.get::<EkmipClientRecord>(object) {
            return found(client.record.svm);
        }
        if let Ok(Some(ca)) = view.get::<EkmipClientCaRecord>(object) {
            return found(ca.record.svm);
        }
        let job = view.get::<JobRecord>(object).ok().flatten()?;
        job.record.svm.map(|(uuid, name)| SvmRef { uuid, name })
    }

    /// Whether there is an account of that name, as it is written.
    pub fn has_account(&self, name: &str) -> bool {
        matches!(self.inner().view.shared::<AccountRecord>(name.to_lowercase()), Ok(Some(account)) if account.record.name == name)
    }

    /// The error for what must not be done since it cannot be recorded.
    pub fn unrecorded(&self, why: &Unrecorded) -> Error {
        let particular = format!("on node {}; make room on the disk of its data folder, and it goes on by itself", self.inner().node.name);
        Error::with(Code::AuditUnwritable, particular).detail(why)
    }
}

/// Records how a job has ended, and counts it. Callers do not see the end before.
pub(crate) async fn job_ended(manager: &Inner, job: &JobRecord) {
    manager.counted.job(job);
    let record = job_record(job);
    if tokio::time::timeout(PATIENCE, manager.audit.end_durably(vec![record])).await.is_err() {
        tracing::warn!(job = %job.uuid, "the disk of the audit log does not answer; the record of the job's end waits");
    }
}

/// The record of a job that has ended.
pub(crate) fn job_record(job: &JobRecord) -> Record {
    let state = if job.state == JobState::Success { State::Success } else { State::Error };
    let mut record = Record::new(Application::Job, state, job.description.clone());
    record.user = Some(job.account.clone());
    record.message = Some(job.message.clone());
    record.code = job.error.as_ref().map(|error| error.code.to_string());
    record.svm = job.svm.clone().map(|(uuid, name)| Named { uuid, name });
    record.object = job.kind.config();
    record.job = Some(job.uuid);
    record.duration_ms = job.end_time.and_then(|end| u64::try_from(end.duration_since(job.start_time).as_millis()).ok());
    record
}

/// Has what was counted written, once an interval.
pub(crate) async fn write_sums(manager: Arc<Inner>, interval: Duration, stop: CancellationToken) {
    loop {
        let next = manager.clock.monotonic() + interval;
        tokio::select! {
            () = stop.cancelled() => return,
            () = manager.clock.sleep_until(next) => manager.audit.write_sums(),
        }
    }
}

/// Tells operators when the log cannot be written, when the collector is away, and when that has ended.
pub(crate) async fn tell(manager: Arc<Inner>, stop: CancellationToken) {
    let mut status = manager.audit.status();
    let (mut unwritable, mut away) = (false, false);
    loop {
        let now = status.borrow_and_update().clone();
        let reason = |why: &Option<String>| why.iter().map(|why| ("reason", why.clone())).collect();
        if now.unwritable.is_some() != unwritable {
            unwritable = !unwritable;
            manager.raise(if unwritable { &AUDIT_NOT_WRITABLE } else { &AUDIT_WRITABLE }, None, reason(&now.unwritable));
        }
        if now.collector_away.is_some() != away {
            away = !away;
            manager.raise(if away { &AUDIT_COLLECTOR_AWAY } else { &AUDIT_COLLECTOR_BACK }, None, reason(&now.collector_away));
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return },
        }
    }
}
