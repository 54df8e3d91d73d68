//! The poll: asks AWS whether each SVM's KEK is still to be had, feeds the state machine, and does what that says.
//!
//! It also brings KEKs into memory: a machine that starts has none, and its first good poll loads it. The start of a node never waits for that.

use crate::aws::{context, kek_from};
use crate::inner::Inner;
use crate::records::{AwsKmsRecord, Base64, KekRecord, KeyStoreRecord, KeyStoreState, Record, Stored, kek_key, keks_prefix};
use crate::revocation::{Action, Event, Machine, Outcome, Settings, State, Why};
use keystead_awskms::{Class, Hop};
use keystead_keyring::Kek;
use keystead_store::{Compare, Txn};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many polls run at a time.
const AT_A_TIME: usize = 32;
/// How long the poller sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(60);
/// `max_unverified` of credentials that were stored without a proof, where the SVM has none of its own.
const UNPROVEN_LIMIT: Duration = Duration::from_secs(60 * 60);

/// The machines of this node's SVMs.
#[derive(Default)]
pub(crate) struct Polls {
    machines: Mutex<HashMap<Uuid, Watched>>,
    /// SVMs for which a job of this node is committing: until the view shows that, their machines come and go by the job's word alone.
    settling: Mutex<HashSet<Uuid>>,
    wake: Notify,
}

type Unproven = (Option<String>, Option<Base64>);

struct Watched {
    machine: Machine,
    polling: bool,
    /// Why the last poll was not ok.
    reason: String,
    now: Duration,
    /// The credentials that are stored without a proof (access key and sealed secret), and since when.
    unproven: Option<(Unproven, Duration)>,
}

impl Watched {
    fn new(now: Duration, settings: Settings) -> Self {
        Self { machine: Machine::new(now, settings), polling: false, reason: String::new(), now, unproven: None }
    }
}

/// Where an SVM stands on this node, for others to read.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    state: State,
    deadline: Option<(Duration, Why)>,
    reason: String,
}

impl Standing {
    /// Whether keys are served.
    pub fn serves(&self) -> bool {
        self.state.serves()
    }

    /// Whether the KEK was taken away.
    pub fn is_blocked(&self) -> bool {
        self.state == State::Blocked
    }

    /// Whether all is well.
    pub fn is_available(&self) -> bool {
        self.state == State::Available
    }

    /// State, reason and the time that is left, in words.
    pub fn describe(&self) -> String {
        let state = match self.state {
            State::Unavailable => "unavailable",
            State::Available => "available",
            State::Degraded => "degraded",
            State::Revoking => "revoking",
            State::Blocked => "blocked",
        };
        let left = match self.deadline {
            None => String::new(),
            Some((left, Why::Denied)) => format!("; keys are refused in {} s, when the grace is over", left.as_secs()),
            Some((left, Why::Unverified)) => format!("; keys are refused in {} s, when max_unverified is over", left.as_secs()),
        };
        if self.reason.is_empty() { format!("{state}{left}") } else { format!("{state} ({}){left}", self.reason) }
    }
}

impl Polls {
    /// Where an SVM stands.
    pub fn state(&self, svm: Uuid) -> Standing {
        match self.lock().get(&svm) {
            None => Standing { state: State::Unavailable, deadline: None, reason: "the KEK was not asked for yet".to_owned() },
            Some(watched) => Standing {
                state: watched.machine.state(),
                deadline: watched.machine.deadline().map(|(at, why)| (at.saturating_sub(watched.now), why)),
                reason: watched.reason.clone(),
            },
        }
    }

    /// A job is about to commit a KEK that it has proven, or the end of a configuration. Until [`Polls::settled`] the view may still show what was before: a new machine would poll without
    /// need, or for a KEK that is no more, and one that seems to have lost its configuration would wipe what the job has just proven.
    pub fn settling(&self, svm: Uuid) {
        lock(&self.settling).insert(svm);
    }

    /// The view shows what the job has committed, or the job has failed to commit.
    pub fn settled(&self, svm: Uuid) {
        lock(&self.settling).remove(&svm);
        self.wake.notify_one();
    }

    /// An SVM has no key manager any more.
    pub fn forget(&self, svm: Uuid) {
        self.lock().remove(&svm);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Watched>> {
        lock(&self.machines)
    }
}

// A panic while a lock is held cannot leave a map half changed, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Polls until it is told to stop.
pub(crate) async fn run(manager: Arc<Inner>, stop: CancellationToken) {
    let mut changes = manager.view.changes();
    let mut tasks = JoinSet::new();
    let slots = Arc::new(Semaphore::new(AT_A_TIME));
    loop {
        changes.mark_unchanged();
        let wake_at = manager.look(&mut tasks, &slots);
        tokio::select! {
            () = stop.cancelled() => break,
            _ = changes.changed() => {}
            () = manager.polls.wake.notified() => {}
            () = manager.clock.sleep_until(wake_at) => {}
            Some(_) = tasks.join_next() => {}
        }
    }
    // Polls change nothing that must be finished.
    tasks.shutdown().await;
}

impl Inner {
    /// The settings of an SVM's machine: its own where they are stricter, else the cluster's.
    pub(crate) fn poll_settings(&self, record: &AwsKmsRecord) -> Settings {
        let cluster = self.settings();
        let grace = record.settings.access_error_grace.map_or(cluster.access_error_grace, |own| own.min(cluster.access_error_grace));
        Settings {
            polling_period: Duration::from_secs(u64::from(record.settings.polling_period) * 60),
            min_poll_interval: cluster.min_poll_interval,
            access_error_grace: grace,
            max_unverified: record.settings.max_unverified,
        }
    }

    /// A job has just proven the SVM's KEKs against AWS: as good as a poll.
    pub(crate) fn proven(&self, config: &AwsKmsRecord, keks: Vec<Kek>) {
        let (now, settings) = (self.clock.monotonic(), self.poll_settings(config));
        self.polls.lock().entry(config.svm).or_insert_with(|| Watched::new(now, settings));
        self.take(config, Outcome::Ok, String::new(), keks);
    }

    /// Brings the machines in line with the configurations, lets their time pass, and starts the polls that are due. Returns when to look again.
    fn look(self: &Arc<Self>, tasks: &mut JoinSet<()>, slots: &Arc<Semaphore>) -> Duration {
        let now = self.clock.monotonic();
        let mut machines = self.polls.lock();
        // In this order: what has settled before it is read here shows in the view that is read next.
        let settling = lock(&self.polls.settling).clone();
        let configs: HashMap<Uuid, Stored<AwsKmsRecord>> = self.view.all::<AwsKmsRecord>().into_iter().map(|config| (config.record.svm, config)).collect();
        machines.retain(|svm, _| {
            let kept = configs.contains_key(svm) || settling.contains(svm);
            if !kept {
                self.keyring.forget(*svm);
            }
            kept
        });
        let mut wake_at = now + IDLE;
        for (svm, config) in configs {
            if settling.contains(&svm) && !machines.contains_key(&svm) {
                continue;
            }
            let mut settings = self.poll_settings(&config.record);
            let watched = machines.entry(svm).or_insert_with(|| Watched::new(now, settings));
            watched.now = now;
            if !config.record.unproven {
                watched.unproven = None;
            } else if settings.max_unverified.is_none() {
                // The hour counts from the moment that the credentials were stored, not from the last good poll, which may be long ago; and a poll tries them at once.
                let credentials = (config.record.settings.access_key_id.clone(), config.record.secret_access_key.clone());
                let since = match &watched.unproven {
                    Some((known, since)) if *known == credentials => *since,
                    _ => {
                        watched.machine.on_hint(now);
                        watched.unproven = Some((credentials, now));
                        now
                    }
                };
                // Until the first ok, also where the store does not know of it yet.
                settings.max_unverified = watched.machine.verified_at().filter(|ok| *ok <= since).map(|ok| since.saturating_sub(ok) + UNPROVEN_LIMIT);
            }
            let actions = watched.machine.on_settings(now, settings);
            self.act(svm, &actions, &watched.reason);
            if !watched.polling && watched.machine.next_poll_at() <= now {
                let Ok(slot) = Arc::clone(slots).try_acquire_owned() else { continue };
                watched.polling = true;
                let manager = Arc::clone(self);
                tasks.spawn(async move {
                    manager.poll(&config).await;
                    drop(slot);
                });
            }
            let next = if watched.polling { watched.machine.deadline().map_or(wake_at, |(at, _)| at) } else { watched.machine.next_wakeup() };
            wake_at = wake_at.min(next.max(now));
        }
        wake_at
    }

    /// One poll: two calls to AWS.
    async fn poll(self: &Arc<Self>, config: &Stored<AwsKmsRecord>) {
        let (outcome, reason, keks) = match self.ask(config).await {
            Ok(keks) => (Outcome::Ok, String::new(), keks),
            Err((outcome, reason)) => (outcome, reason, Vec::new()),
        };
        let was_ok = outcome == Outcome::Ok;
        self.take(&config.record, outcome, reason, keks);
        if let Some(watched) = self.polls.lock().get_mut(&config.record.svm) {
            watched.polling = false;
        }
        self.polls.wake.notify_one();
        if was_ok && config.record.unproven {
            self.note_proof(config).await;
        }
    }

    /// Puts a KEK into memory that a job has made, where keys of the SVM are served; not where they are blocked, or have become so a moment ago. Under the same lock as [`Inner::take`].
    ///
    /// # Errors
    /// 65537556.
    pub(crate) fn hold_while_served(&self, kek: Kek) -> crate::Result<()> {
        let svm = kek.svm();
        {
            let machines = self.polls.lock();
            if machines.get(&svm).is_some_and(|watched| watched.machine.state().serves()) {
                self.keyring.insert(kek);
                return Ok(());
            }
        }
        let standing = self.polls.state(svm).describe();
        Err(crate::Error::with(crate::Code::Blocked, format!("SVM {} on node {}: {standing}", self.svm_ref(svm).name, self.node.name)))
    }

    /// Gives an outcome to the machine and does what it says. KEKs are put into memory under the same lock under which the machine may wipe them, so the two never disagree.
    fn take(&self, record: &AwsKmsRecord, outcome: Outcome, reason: String, keks: Vec<Kek>) {
        let now = self.clock.monotonic();
        let mut machines = self.polls.lock();
        // Without a machine, the configuration was deleted while AWS was asked.
        let Some(watched) = machines.get_mut(&record.svm) else { return };
        watched.now = now;
        let actions = watched.machine.on_poll(now, outcome, self.random.jitter());
        watched.reason = reason;
        self.act(record.svm, &actions, &watched.reason);
        for kek in keks.into_iter().filter(|_| watched.machine.state().serves()) {
            if self.keyring.get(record.svm, kek.version()).is_none() {
                self.keyring.insert(kek);
            }
        }
    }

    fn act(&self, svm: Uuid, actions: &[Action], reason: &str) {
        for action in actions {
            match action {
                Action::Zeroize => {
                    self.keyring.forget(svm);
                }
                Action::Emit(event) => emit(&self.svm_ref(svm).name, &self.node.name, *event, reason),
            }
        }
    }

    /// Answers the KEKs that came back: the current one, and older ones that memory lacks.
    async fn ask(&self, config: &Stored<AwsKmsRecord>) -> Result<Vec<Kek>, (Outcome, String)> {
        let svm = config.record.svm;
        let inside = |error: crate::Error| (Outcome::Unreachable, error.detail.unwrap_or(error.message));
        let store = self.view.get::<KeyStoreRecord>(svm).map_err(inside)?;
        let version = store.filter(|store| store.record.state != KeyStoreState::Initializing).map_or(0, |store| store.record.kek_version);
        let key = kek_key(svm, version);
        let id = key.strip_prefix(KekRecord::PREFIX).unwrap_or(&key).to_owned();
        let record = self.view.get::<KekRecord>(id).map_err(inside)?;
        let record = record.ok_or((Outcome::Integrity, format!("version {version} of the wrapped KEK is missing from the store")))?.record;
        let client = self.client(config).map_err(|error| (Outcome::Misconfigured, error.detail.unwrap_or(error.message)))?;
        let context = context(record.encryption_context.as_deref()).map_err(inside)?;
        let judge = |error: keystead_awskms::Error| (judge(&error), error.to_string());
        let mut decrypted = client.decrypt(&record.key_arn, &record.blob.0, &context).await.map_err(judge)?;
        let wrong = || (Outcome::Integrity, format!("{} has unwrapped to another KEK than the one that is in use", record.key_arn));
        let kek = kek_from(&record, &mut decrypted.plaintext).ok_or_else(wrong)?;
        if self.keyring.get(svm, version).is_some_and(|known| !known.matches(kek.expose())) {
            return Err(wrong());
        }
        // The right KEK came back, and that is what counts. What DescribeKey says beside it is for the operator.
        let mut keks = self.older(&client, svm, version).await.map_err(judge)?;
        match client.describe_key(&record.key_arn).await {
            Ok(described) if described.enabled => {}
            Ok(described) => tracing::warn!(svm = %svm, key = described.arn, state = described.state, "the customer key is not Enabled"),
            Err(error) => tracing::warn!(svm = %svm, %error, "the KEK unwraps, but DescribeKey fails; the IAM user needs kms:DescribeKey too"),
        }
        keks.push(kek);
        Ok(keks)
    }

    /// While a rekey-internal has not ended, older versions of the KEK still wrap keys. A machine that starts in between needs them too.
    async fn older(&self, client: &keystead_awskms::Client, svm: uuid::Uuid, current: u32) -> Result<Vec<Kek>, keystead_awskms::Error> {
        let mut keks = Vec::new();
        for older in self.view.under::<KekRecord>(&keks_prefix(svm)).into_iter().map(|kek| kek.record) {
            if older.version == current || self.keyring.get(svm, older.version).is_some() {
                continue;
            }
            let Ok(context) = context(older.encryption_context.as_deref()) else { continue };
            let mut decrypted = client.decrypt(&older.key_arn, &older.blob.0, &context).await?;
            match kek_from(&older, &mut decrypted.plaintext) {
                Some(kek) => keks.push(kek),
                None => {
                    tracing::error!(%svm, version = older.version, "AWS KMS has answered with another KEK than the one that is stored; keys under it are not served")
                }
            }
        }
        Ok(keks)
    }

    /// The first good poll of credentials that were stored without a proof.
    async fn note_proof(&self, config: &Stored<AwsKmsRecord>) {
        let record = AwsKmsRecord { unproven: false, ..config.record.clone() };
        let Ok(value) = record.encode() else { return };
        let txn = Txn::new().when(Compare::Unchanged(config.key.clone(), config.revision)).put(config.key.clone(), value);
        if let Err(error) = self.store.transact(txn).await {
            tracing::debug!(%error, "the proof of the new credentials is noted with the next good poll");
        }
    }
}

/// What an error of AWS proves (`contract/revocation.md`, "What a poll is").
fn judge(error: &keystead_awskms::Error) -> Outcome {
    match error.class() {
        Class::Revoked if error.evidence() => Outcome::Denied,
        // Who sits on the path could forge it.
        Class::Revoked => Outcome::Unreachable,
        Class::Misconfigured if error.came_from_aws() || matches!(error.hop(), Hop::Settings | Hop::Credentials) => Outcome::Misconfigured,
        Class::Integrity if error.came_from_aws() => Outcome::Integrity,
        Class::Misconfigured | Class::Integrity | Class::Transient | Class::Unreachable => Outcome::Unreachable,
    }
}

fn emit(svm: &str, node: &str, event: Event, reason: &str) {
    let name = event.name();
    if event.is_alarm() {
        tracing::error!(event = name, svm, node, reason, "AWS KMS key protection: {event:?}");
    } else {
        tracing::warn!(event = name, svm, node, reason, "AWS KMS key protection: {event:?}");
    }
}
