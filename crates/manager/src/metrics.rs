//! The metrics of the key manager: where each SVM stands on this node, polls, jobs, nodes, the view, certificates and events.
//!
//! Most of it is gathered when it is asked for, from the state machines and the view. Of SVMs and of clients there may be many thousands: an SVM has four series at the most, no more than
//! [`Metrics::max_svms`] have them, and those that are not well come first. What is worth a histogram is not told by SVM.

use crate::inner::Inner;
use crate::model::{JobState, NodeState};
use crate::poll::Watch;
use crate::records::{AuthorityRecord, CertificateRecord, EkmipCertificateRecord, EkmipClientCaRecord, EkmipClientRecord, JobRecord, NodeRecord, SvmRecord};
use crate::revocation::{Outcome, State};
use crate::x509::Facts;
use jiff::Timestamp;
use keystead_metrics::{Counts, GaugeSamples, Metrics, Name, Page, Source, Timings};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Result;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use uuid::Uuid;

/// The upper bounds of the histogram of jobs, in seconds: from three calls to AWS to a million keys that are wrapped again.
const JOB_BOUNDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0];
/// The kinds of jobs that work, or wait for others.
const JOB_KINDS: [&str; 9] = ["enable", "modify", "delete", "restore", "rekey_internal", "rekey_external", "migrate", "rotate_seal", "bulk"];
/// The states of jobs that have not ended.
const OPEN_STATES: [(&str, JobState); 3] = [("queued", JobState::Queued), ("running", JobState::Running), ("paused", JobState::Paused)];
/// What a poll can come to, in the order of [`outcome_place`].
const OUTCOMES: &[&str] = &["ok", "denied", "unreachable", "misconfigured", "integrity"];
/// How grave an event is, in the order of `events::catalogue::Severity`.
const SEVERITIES: &[&str] = &["emergency", "alert", "error", "notice", "informational", "debug"];
/// What an EKMIP client's certificate can be.
const CLIENT_STATES: [&str; 4] = ["valid", "expiring", "expired", "revoked"];

/// What is counted, where nothing else keeps it.
pub(crate) struct Counted {
    polls: Counts,
    jobs: Timings,
    events: Counts,
    /// Up to when the certificate of the REST API is valid, in seconds since 1970; 0: there is none yet.
    rest_certificate: AtomicI64,
}

impl Counted {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            polls: Counts::new("outcome", OUTCOMES),
            jobs: Timings::new(JOB_KINDS.map(|kind| vec![("kind", kind)]), &["success", "failure"], JOB_BOUNDS),
            events: Counts::new("severity", SEVERITIES),
            rest_certificate: AtomicI64::new(0),
        }
    }

    /// Counts a poll.
    pub fn poll(&self, outcome: Outcome) {
        self.polls.add(outcome_place(outcome));
    }

    /// Counts an event.
    pub fn event(&self, severity: crate::events::Severity) {
        self.events.add(severity as usize);
    }

    /// Counts a job that has ended, from its acceptance on.
    pub fn job(&self, job: &JobRecord) {
        let took = job.end_time.and_then(|end| Duration::try_from(end.duration_since(job.start_time)).ok()).unwrap_or_default();
        if let Some(kind) = JOB_KINDS.iter().position(|kind| *kind == job.kind.name()) {
            self.jobs.record(kind, usize::from(job.state != JobState::Success), took);
        }
    }

    /// Notes up to when the certificate is valid that the REST API shows.
    pub fn rest_certificate(&self, expiry: Timestamp) {
        self.rest_certificate.store(expiry.as_second(), Ordering::Relaxed);
    }
}

/// Has the metrics of a node's key manager, and of what it is made from, written at each scrape.
pub(crate) fn register(metrics: &Metrics, inner: &Arc<Inner>) {
    metrics.register(Arc::clone(inner.aws.environment().calls()));
    metrics.register(inner.audit.clone());
    // Not a strong one: the list of sources is known to the key manager.
    metrics.register(Gathered { inner: Arc::downgrade(inner), max_svms: metrics.max_svms() });
}

struct Gathered {
    inner: Weak<Inner>,
    max_svms: usize,
}

impl Source for Gathered {
    fn write(&self, page: &mut Page<'_>) -> Result {
        // Else the node has stopped.
        let Some(inner) = self.inner.upgrade() else { return Ok(()) };
        nodes(&inner, page)?;
        let names = Names::of(&inner);
        svms(&inner, page, &names, self.max_svms)?;
        jobs(&inner, page)?;
        let listed = listed(&inner);
        certificates(&inner, page, listed.get(&None).copied())?;
        clients(&inner, page, &names, self.max_svms, &listed)?;
        page.counts(Name::plain("keystead_events", "Events that this node has raised since its start, by severity"), &inner.counted.events)?;
        page.gauge(Name::plain("keystead_events_waiting", "Events of this node that are not in the store yet"), |samples| {
            samples.count(&[], inner.events.count_waiting())
        })
    }
}

/// The names of SVMs.
struct Names(HashMap<Uuid, String>);

impl Names {
    fn of(inner: &Inner) -> Self {
        Self(inner.view.shared_all::<SvmRecord>().into_iter().map(|svm| (svm.record.uuid, svm.record.name.clone())).collect())
    }

    /// One that was deleted at this moment has its identifier.
    fn get(&self, svm: Uuid) -> String {
        self.0.get(&svm).cloned().unwrap_or_else(|| svm.to_string())
    }
}

fn nodes(inner: &Inner, page: &mut Page<'_>) -> Result {
    let (version, node, cluster) = (inner.presence.version(), inner.node.name.as_str(), inner.settings().cluster_name);
    page.info(
        Name::plain("keystead_build", "The version of the program, with the names of the node and of its cluster"),
        &[("version", version), ("node", node), ("cluster", &cluster)],
    )?;
    let nodes = inner.view.shared_all::<NodeRecord>();
    page.gauge(Name::plain("keystead_node_up", "Whether a node of the cluster is there, as this node sees it: 1 or 0"), |samples| {
        nodes.iter().try_for_each(|node| {
            let (state, _) = crate::presence::standing(inner, &node.record);
            samples.flag(&[("node", &node.record.name)], state == NodeState::Up)
        })
    })?;
    page.gauge(
        Name::seconds("keystead_view_age", "How long ago what this node knows of the cluster was as the store; the store is away, or slow, where it grows"),
        |samples| samples.put(&[], inner.presence.view_age().as_secs_f64()),
    )
}

fn svms(inner: &Inner, page: &mut Page<'_>, names: &Names, most: usize) -> Result {
    let (utc, now) = (inner.clock.utc(), inner.clock.monotonic());
    let mut watched: Vec<(String, Watch)> = inner.polls.watches().into_iter().map(|watch| (names.get(watch.svm), watch)).collect();
    page.gauge(Name::plain("keystead_svms", "SVMs with a KEK that AWS KMS has wrapped, by its state on this node"), |samples| {
        State::ALL.iter().try_for_each(|state| {
            let count = watched.iter().filter(|(_, watch)| watch.state == *state).count();
            samples.count(&[("state", state.name())], count)
        })
    })?;
    page.gauge(
        Name::plain(
            "keystead_svms_left_out",
            "SVMs that have no series of their own, since there are more than [metrics] max_svms; all of them are available, or the figure is too small",
        ),
        |samples| samples.count(&[], watched.len().saturating_sub(most)),
    )?;
    // Those that are not well come first.
    watched.sort_by(|(one, watch), (other, of_other)| (watch.state == State::Available, one).cmp(&(of_other.state == State::Available, other)));
    watched.truncate(most);
    page.gauge(
        Name::plain("keystead_svm_kek_state", "The state of an SVM's KEK on this node: 1 in the series of that state, and no series of the others"),
        |samples| watched.iter().try_for_each(|(svm, watch)| samples.count(&[("svm", svm), ("state", watch.state.name())], 1)),
    )?;
    // Moments are told in whole seconds, so that they stay the same from scrape to scrape.
    page.gauge(
        Name::seconds(
            "keystead_svm_last_good_poll_timestamp",
            "When AWS was last asked for an SVM's KEK with success, in seconds since 1970; absent before that",
        ),
        |samples| {
            watched.iter().try_for_each(|(svm, watch)| match watch.verified_at {
                Some(at) => samples.put(&[("svm", svm)], (since_1970(utc) - now.saturating_sub(at).as_secs_f64()).round()),
                None => Ok(()),
            })
        },
    )?;
    page.gauge(
        Name::seconds(
            "keystead_svm_refusal_timestamp",
            "When the keys of an SVM will be refused if nothing changes, in seconds since 1970; absent where nothing is to be feared",
        ),
        |samples| {
            watched.iter().try_for_each(|(svm, watch)| match watch.deadline {
                Some(at) => samples.put(&[("svm", svm)], (since_1970(utc) + at.saturating_sub(now).as_secs_f64()).round()),
                None => Ok(()),
            })
        },
    )?;
    page.counts(Name::plain("keystead_polls", "Polls of AWS for SVMs' KEKs, by what came of them"), &inner.counted.polls)
}

fn jobs(inner: &Inner, page: &mut Page<'_>) -> Result {
    let open = inner.view.open_jobs();
    page.gauge(Name::plain("keystead_jobs_open", "Jobs of the cluster that have not ended, by kind and state; the same on every node"), |samples| {
        JOB_KINDS.iter().try_for_each(|kind| {
            OPEN_STATES.iter().try_for_each(|(name, state)| {
                let count = open.iter().filter(|job| job.record.kind.name() == *kind && job.record.state == *state).count();
                samples.count(&[("kind", kind), ("state", name)], count)
            })
        })
    })?;
    page.gauge(
        Name::seconds("keystead_jobs_oldest_start_timestamp", "When the oldest job that has not ended was accepted, in seconds since 1970; absent without one"),
        |samples| match open.iter().map(|job| job.record.start_time).min() {
            Some(oldest) => samples.put(&[], since_1970(oldest)),
            None => Ok(()),
        },
    )?;
    page.gauge(Name::plain("keystead_jobs_at_work", "Jobs that this node is at work on"), |samples| samples.count(&[], inner.runner.count_at_work()))?;
    page.operations(
        Name::plain("keystead_jobs_ended", "Jobs that have ended on this node since its start, or were cancelled there, by kind and result"),
        &inner.counted.jobs,
    )?;
    page.durations(Name::seconds("keystead_job_duration", "How long jobs take, from their acceptance to their end"), &inner.counted.jobs)
}

/// When the first certificate of `/security/certificates` ends of those that have not ended, of the cluster and of each SVM.
fn listed(inner: &Inner) -> HashMap<Option<Uuid>, Timestamp> {
    let now = inner.clock.utc();
    let mut first = HashMap::new();
    for stored in inner.view.shared_all::<CertificateRecord>() {
        let record = &stored.record;
        let expiry = record.expiry.or_else(|| Facts::of_pem(&record.certificate).ok().map(|(_, facts)| facts.expiry));
        if let Some(expiry) = expiry.filter(|expiry| *expiry > now) {
            let known = first.entry(record.svm).or_insert(expiry);
            *known = expiry.min(*known);
        }
    }
    first
}

fn certificates(inner: &Inner, page: &mut Page<'_>, listed: Option<Timestamp>) -> Result {
    let ca = inner.view.only::<AuthorityRecord>().ok().and_then(|record| Facts::of_pem(&record.record.certificate).ok()).map(|(_, facts)| facts.expiry);
    let ekmip = inner.view.shared::<EkmipCertificateRecord>(inner.node.uuid).ok().flatten().map(|stored| stored.record.expiry);
    let rest = Timestamp::from_second(inner.counted.rest_certificate.load(Ordering::Relaxed)).ok().filter(|expiry| *expiry > Timestamp::UNIX_EPOCH);
    page.gauge(
        Name::seconds(
            "keystead_certificate_expiry_timestamp",
            "When a certificate ends, in seconds since 1970: of this node's servers, the cluster's CA, or the first of the cluster's other certificates",
        ),
        |samples| {
            let all = [("cluster_ca", ca), ("ekmip_server", ekmip), ("rest_server", rest), ("certificate", listed)];
            all.into_iter().try_for_each(|(kind, expiry)| expiry.map_or(Ok(()), |expiry| samples.put(&[("kind", kind)], since_1970(expiry))))
        },
    )
}

fn clients(inner: &Inner, page: &mut Page<'_>, names: &Names, most: usize, listed: &HashMap<Option<Uuid>, Timestamp>) -> Result {
    let now = inner.clock.utc();
    let mut states: BTreeMap<&str, usize> = CLIENT_STATES.into_iter().map(|state| (state, 0)).collect();
    let mut soonest: HashMap<(Uuid, &str), Timestamp> = HashMap::new();
    let mut ends = |svm: Uuid, kind: &'static str, expiry: Timestamp| {
        let known = soonest.entry((svm, kind)).or_insert(expiry);
        *known = expiry.min(*known);
    };
    for client in inner.view.shared_all::<EkmipClientRecord>() {
        let state = crate::clients::state_of(&client.record, now);
        *states.entry(state).or_default() += 1;
        if matches!(state, "valid" | "expiring") {
            ends(client.record.svm, "ekmip_client", client.record.expiry);
        }
    }
    for ca in inner.view.shared_all::<EkmipClientCaRecord>().iter().filter(|ca| ca.record.expiry > now) {
        ends(ca.record.svm, "client_ca", ca.record.expiry);
    }
    for (svm, expiry) in listed.iter().filter_map(|(svm, expiry)| svm.map(|svm| (svm, *expiry))) {
        ends(svm, "certificate", expiry);
    }
    page.gauge(
        Name::plain("keystead_ekmip_clients", "Certificates of EKMIP clients that the cluster's CA has issued, by state; the same on every node"),
        |samples| states.iter().try_for_each(|(state, count)| samples.count(&[("state", state)], *count)),
    )?;
    let mut soonest: Vec<_> = soonest.into_iter().collect();
    soonest.sort_by_key(|((svm, kind), expiry)| (*expiry, *svm, *kind));
    soonest.truncate(most);
    page.gauge(
        Name::seconds(
            "keystead_svm_certificate_expiry_timestamp",
            "When the first of an SVM's client certificates, of its own CAs, or of its other certificates, ends of those that have not ended, in seconds since 1970",
        ),
        |samples: &mut GaugeSamples<'_>| {
            soonest.iter().try_for_each(|((svm, kind), expiry)| samples.put(&[("svm", &names.get(*svm)), ("kind", kind)], since_1970(*expiry)))
        },
    )
}

fn since_1970(moment: Timestamp) -> f64 {
    moment.as_duration().as_secs_f64()
}

fn outcome_place(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Ok => 0,
        Outcome::Denied => 1,
        Outcome::Unreachable => 2,
        Outcome::Misconfigured => 3,
        Outcome::Integrity => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Severity;

    #[test]
    fn severities_stand_in_their_order() {
        let all = [Severity::Emergency, Severity::Alert, Severity::Error, Severity::Notice, Severity::Informational, Severity::Debug];
        for severity in all {
            assert_eq!(SEVERITIES[severity as usize], severity.text());
        }
        assert_eq!(SEVERITIES.len(), all.len());
    }
}
