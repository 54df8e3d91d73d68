//! The poll: asks AWS whether each SVM's KEK is still to be had, feeds the state machine, and does what that says.
//!
//! It also brings KEKs into memory: a machine that starts has none, and its first good poll loads it. The start of a node never waits for that.

mod plan;

use crate::aws::AwsDetail;
use crate::evidence::{Failure, Unwrapped};
use crate::held::{Begun, Held};
use crate::inner::Inner;
use crate::peers::What;
use crate::records::{AwsKmsRecord, Base64, KekRecord, Record, Stored, StoredSettings, keks_prefix, key};
use crate::revocation::{Action, Event, Machine, Outcome, Settings, State};
use crate::standing::Standing;
use keystead_keyring::Kek;
use keystead_metrics::trace;
use keystead_store::{Compare, Revision, Txn};
use plan::Plan;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

/// How long a job may take from its proof to its end.
const PROOF_LASTS: Duration = Duration::from_secs(5 * 60);
/// How often the poller looks at all SVMs when nothing has changed: whatever it was told of is looked at when it happens.
const IDLE: Duration = Duration::from_secs(60);
/// How long to wait before a KEK is wrapped again for the same reason as before.
const WRAP_AGAIN: Duration = Duration::from_secs(60 * 60);
/// `max_unverified` of credentials that were stored without a proof, where the SVM's own is not shorter.
const UNPROVEN_LIMIT: Duration = Duration::from_secs(60 * 60);

/// The machines of this node's SVMs.
#[derive(Default)]
pub(crate) struct Polls {
    machines: Mutex<HashMap<Uuid, Watched>>,
    /// SVMs for which a job of this node is committing: until the view shows that, their machines come and go by the job's word alone.
    settling: Mutex<HashSet<Uuid>>,
    /// The last change of a wrapped KEK that was looked at.
    keks: Mutex<Revision>,
    /// SVMs that this node has blocked, and has not told the others of yet.
    blocked: Mutex<Vec<Uuid>>,
    /// SVMs whose machines have changed, and polls that have ended, since the last look.
    touched: Mutex<Touched>,
    wake: Notify,
}

#[derive(Default)]
struct Touched {
    svms: HashSet<Uuid>,
    ended: Vec<Lane>,
}

type Unproven = (Option<String>, Option<Base64>);

struct Watched {
    machine: Machine,
    /// Whether a poll is under way.
    polling: bool,
    /// Why the last poll was not ok.
    reason: String,
    /// What AWS said, where it was asked.
    detail: AwsDetail,
    now: Duration,
    /// The credentials that are stored without a proof (access key and sealed secret), and since when.
    unproven: Option<(Unproven, Duration)>,
    /// Why the KEK was last to be wrapped again without an operator, and when.
    wrapped_for: Option<(String, Duration)>,
    /// The key of the configuration's record.
    config: String,
}

/// Where an SVM stands, for those who watch the node. Times are monotonic.
pub(crate) struct Watch {
    pub svm: Uuid,
    pub state: State,
    /// When the last poll that was ok was asked.
    pub verified_at: Option<Duration>,
    /// When keys will be refused if nothing changes.
    pub deadline: Option<Duration>,
}

/// What a good poll has seen.
struct Seen {
    client: keystead_awskms::Client,
    kek: Stored<KekRecord>,
    /// Whether it has brought a KEK into memory.
    loads: bool,
}

/// A job is committing. Ends when the view shows what it has committed, or when it has failed to.
pub(crate) struct Settling<'s> {
    polls: &'s Polls,
    svm: Uuid,
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        lock(&self.polls.settling).remove(&self.svm);
        self.polls.touch(self.svm);
    }
}

/// KEKs that a job has had AWS unwrap under a configuration, the current version last.
pub(crate) struct Proof {
    /// When AWS was asked, at the earliest.
    pub asked: Duration,
    pub keks: Vec<Kek>,
    pub config: Box<AwsKmsRecord>,
}

/// A poll under way. However it ends, the next one can come.
struct Polling<'p> {
    manager: &'p Inner,
    svm: Uuid,
    lane: Lane,
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        if let Some(watched) = self.manager.polls.lock().get_mut(&self.svm) {
            watched.polling = false;
        }
        lock(&self.manager.polls.touched).ended.push(self.lane.clone());
        self.manager.polls.touch(self.svm);
    }
}

/// What polls can delay each other by: an endpoint that hangs, a proxy that hangs, an account whose rate is used up. Other tenants have another lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lane {
    host: String,
    port: u16,
    proxy: Option<(String, u16)>,
    region: String,
    payer: String,
}

impl Lane {
    fn of(settings: &StoredSettings) -> Self {
        Self {
            host: settings.host.clone().unwrap_or_else(|| settings.default_domain.clone()),
            port: settings.port,
            proxy: settings.proxy.as_ref().map(|proxy| (proxy.host.clone(), proxy.port)),
            region: settings.region.clone(),
            payer: crate::credentials::payer(settings),
        }
    }
}

impl Watched {
    fn new(now: Duration, settings: Settings, config: String) -> Self {
        Self {
            machine: Machine::new(now, settings),
            polling: false,
            reason: String::new(),
            detail: AwsDetail::default(),
            now,
            unproven: None,
            wrapped_for: None,
            config,
        }
    }
}

/// What a poll, or a job that is as good as one, came to.
struct Answer {
    asked: Duration,
    outcome: Outcome,
    /// Why it is not ok.
    reason: String,
    /// What AWS said, where it was asked.
    detail: AwsDetail,
    /// What came back.
    keks: Vec<Kek>,
}

impl Polls {
    /// Where an SVM stands, seen from `now`.
    fn state(&self, svm: Uuid, now: Duration) -> Standing {
        match self.lock().get(&svm) {
            None => Standing { state: State::Unavailable, deadline: None, reason: "the KEK was not asked for yet".to_owned() },
            Some(watched) => Standing {
                state: watched.machine.state(),
                deadline: watched.machine.deadline().map(|(at, why)| (at.saturating_sub(now), why)),
                reason: watched.reason.clone(),
            },
        }
    }

    /// How long ago the last poll was asked that was ok, seen from `now`.
    pub fn verified_ago(&self, svm: Uuid, now: Duration) -> Option<Duration> {
        self.lock().get(&svm).and_then(|watched| watched.machine.verified_at()).map(|at| now.saturating_sub(at))
    }

    /// Where every SVM stands that has a machine.
    pub fn watches(&self) -> Vec<Watch> {
        let machines = self.lock();
        let watch = |(svm, Watched { machine, .. }): (&Uuid, &Watched)| Watch {
            svm: *svm,
            state: machine.state(),
            verified_at: machine.verified_at(),
            deadline: machine.deadline().map(|(at, _)| at),
        };
        machines.iter().map(watch).collect()
    }

    /// A job is about to commit a KEK that it has proven, or the end of a configuration. Until the answer is dropped, the view may still show what was before: a new machine would poll without
    /// need, or for a KEK that is no more, and one that seems to have lost its configuration would wipe what the job has just proven.
    pub fn settling(&self, svm: Uuid) -> Settling<'_> {
        lock(&self.settling).insert(svm);
        Settling { polls: self, svm }
    }

    /// An SVM has no key manager any more.
    pub fn forget(&self, svm: Uuid) {
        self.lock().remove(&svm);
        self.touch(svm);
    }

    /// The machine of an SVM has changed: the poller looks at it. To be called after the change.
    fn touch(&self, svm: Uuid) {
        lock(&self.touched).svms.insert(svm);
        self.wake.notify_one();
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
    let mut poller = Poller::default();
    loop {
        let wake_at = manager.look(&mut tasks, &mut poller);
        tokio::select! {
            () = stop.cancelled() => break,
            _ = changes.changed() => {}
            () = manager.polls.wake.notified() => {}
            () = manager.clock.sleep_until(wake_at) => {}
            Some(ended) = tasks.join_next() => report(ended),
        }
        while let Some(ended) = tasks.try_join_next() {
            report(ended);
        }
    }
    // Polls change nothing that must be finished.
    tasks.shutdown().await;
}

/// A poll that ends in a panic is a bug, and the next poll comes all the same.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a poll has ended in a panic");
    }
}

/// What the poller keeps from look to look.
#[derive(Default)]
struct Poller {
    /// The configurations as the view has shown them.
    configs: HashMap<Uuid, Arc<Stored<AwsKmsRecord>>>,
    /// Up to where that was read.
    read: Option<Revision>,
    /// When all are to be looked at again.
    all_at: Duration,
    plan: Plan,
}

impl Inner {
    /// Where an SVM stands.
    pub(crate) fn standing(&self, svm: Uuid) -> Standing {
        self.polls.state(svm, self.clock.monotonic())
    }

    /// The settings of an SVM's machine: its own where they are stricter, else the cluster's.
    pub(crate) fn poll_settings(&self, record: &AwsKmsRecord) -> Settings {
        poll_settings(&self.settings(), record)
    }

    /// A job has proven the SVM's KEKs against AWS: as good as a poll that was asked then.
    pub(crate) fn proven(&self, proof: Proof) {
        let Proof { asked, keks, config } = proof;
        let (now, settings) = (self.clock.monotonic(), self.poll_settings(&config));
        self.polls.lock().entry(config.svm).or_insert_with(|| Watched::new(now, settings, key::<AwsKmsRecord>(config.uuid)));
        self.take(&config, Answer { asked, outcome: Outcome::Ok, reason: String::new(), detail: AwsDetail::default(), keks });
    }

    /// The same before it is stored, where the configuration has held no KEK: keys may be made with it as soon as the transaction stands.
    ///
    /// # Errors
    /// 8 where another KEK of the same version is in memory.
    pub(crate) fn begin(&self, proof: Proof) -> crate::Result<Begun<'_>> {
        let svm = proof.config.svm;
        let in_use = || crate::Error::with(crate::Code::InUse, "another move of the SVM's keys is under way; start again when it has ended");
        let version = proof.keks.last().map_or(0, Kek::version);
        if self.keyring.get(svm, version).is_some() {
            return Err(in_use());
        }
        let _settling = self.polls.settling(svm);
        self.proven(proof);
        match self.keyring.get(svm, version) {
            Some(kek) => Ok(Begun { manager: self, kek: Some(kek), _settling }),
            None => Err(in_use()),
        }
    }

    /// Whether AWS has denied, or keys are refused, since it was asked then.
    pub(crate) fn denied_since(&self, svm: Uuid, asked: Duration) -> bool {
        self.polls.lock().get(&svm).is_some_and(|watched| watched.machine.outdates(asked))
    }

    /// Whether a proof is too old to act on: AWS has denied since, or it was long ago.
    pub(crate) fn is_outdated(&self, svm: Uuid, asked: Duration) -> bool {
        let is_old = self.clock.monotonic().saturating_sub(asked) > PROOF_LASTS;
        is_old || self.polls.lock().get(&svm).is_some_and(|watched| watched.machine.outdates(asked))
    }

    /// Brings the machines in line with the configurations, lets their time pass, and starts the polls that are due. Where nothing of that has changed in the view, only those are looked at whose time has come, or whose machine has
    /// changed. Returns when to look again.
    fn look(self: &Arc<Self>, tasks: &mut JoinSet<()>, poller: &mut Poller) -> Duration {
        let now = self.clock.monotonic();
        for svm in std::mem::take(&mut *lock(&self.polls.blocked)) {
            let manager = Arc::clone(self);
            // Who does not answer comes to it by its own polls.
            tasks.spawn(async move { drop(manager.ask_others(What::Blocked { svm }).await) });
        }
        // Before the machines are looked at: whoever changes one from here on is heard of with the next look.
        let Touched { mut svms, ended } = std::mem::take(&mut *lock(&self.polls.touched));
        ended.iter().for_each(|lane| poller.plan.ended(lane));
        let mut machines = self.polls.lock();
        // In this order: what has settled before it is read here shows in the view that is read next.
        let settling = lock(&self.polls.settling).clone();
        let revision = self.view.polls_revision();
        let looks_at_all = poller.read != Some(revision) || poller.all_at <= now;
        let mut new_keks = false;
        if looks_at_all {
            poller.all_at = now + IDLE;
            poller.read = Some(revision);
            poller.plan.clear();
            poller.configs = self.polled_configs();
            self.drop_strangers(&mut machines, &settling, poller);
            let keks = self.view.keks_revision();
            new_keks = std::mem::replace(&mut *lock(&self.polls.keks), keks) != keks;
            svms = poller.configs.keys().chain(machines.keys()).copied().collect();
        } else {
            svms.extend(poller.plan.ripe(now));
        }
        let cluster = self.settings();
        for svm in svms {
            poller.plan.forget(svm);
            let is_settling = settling.contains(&svm);
            let Some(config) = poller.configs.get(&svm) else {
                match machines.get_mut(&svm).filter(|_| !is_settling) {
                    // Its configuration is there and cannot be read: AWS cannot be asked, and what was to end its keys ends them all the same.
                    Some(watched) if self.view.contains(&watched.config) => {
                        watched.now = now;
                        let actions = watched.machine.on_tick(now);
                        self.act(svm, &actions, watched);
                        if let Some((at, _)) = watched.machine.deadline() {
                            poller.plan.look(svm, at.max(now));
                        }
                    }
                    // It is a stranger's, which the next look at all of them takes away.
                    Some(_) => poller.all_at = now,
                    None => {}
                }
                continue;
            };
            if is_settling && !machines.contains_key(&svm) {
                continue;
            }
            let watched = machines.entry(svm).or_insert_with(|| {
                // What the onboard key manager had in memory is from now on this configuration's to allow.
                self.keyring.forget(svm);
                Watched::new(now, poll_settings(&cluster, &config.record), config.key.clone())
            });
            self.pass_time(now, &cluster, config, watched);
            // Another node has made a version of the KEK: its keys are to be served here too, and now.
            if new_keks && !watched.polling && watched.machine.state().serves() && !is_settling && self.lacks_a_kek(svm) {
                watched.machine.on_hint(now);
            }
            let is_due = !watched.polling && watched.machine.next_poll_at() <= now;
            if is_due {
                poller.plan.poll(svm, Lane::of(&config.record.settings), (watched.machine.last() != Some(Outcome::Denied), watched.machine.next_poll_at()));
            }
            // What is due is started below, or waits for the end of another poll, which wakes the poller: to come back for it at once would be to spin.
            let waits = is_due || watched.polling;
            let next = if waits { watched.machine.deadline().map(|(at, _)| at) } else { Some(watched.machine.next_wakeup()) };
            if let Some(next) = next {
                poller.plan.look(svm, next.max(now));
            }
        }
        for (svm, lane) in poller.plan.begin() {
            let (Some(config), Some(watched)) = (poller.configs.get(&svm), machines.get_mut(&svm)) else {
                poller.plan.ended(&lane);
                continue;
            };
            watched.polling = true;
            let (manager, config) = (Arc::clone(self), Arc::clone(config));
            // The name is looked up where somebody wants the span.
            let span = tracing::info_span!(target: trace::TARGET, "poll", svm.name = self.svm_ref(svm).name, svm.uuid = %svm);
            tasks.spawn(async move { manager.poll(&config, lane).await }.instrument(span));
        }
        poller.plan.next_look().map_or(poller.all_at, |at| at.min(poller.all_at))
    }

    /// The configurations that AWS is asked for. One whose keys have moved to the onboard key manager holds no KEK, and AWS has nothing to be asked for.
    fn polled_configs(&self) -> HashMap<Uuid, Arc<Stored<AwsKmsRecord>>> {
        let all = self.view.shared_all::<AwsKmsRecord>().into_iter();
        all.filter(|config| self.has_aws_kek(config.record.svm)).map(|config| (config.record.svm, config)).collect()
    }

    /// Takes the KEKs of SVMs out of memory that have neither a configuration nor the onboard key manager any more, and their machines.
    fn drop_strangers(&self, machines: &mut HashMap<Uuid, Watched>, settling: &HashSet<Uuid>, poller: &Poller) {
        // What the onboard key manager has opened leaves memory with its record.
        for owner in self.keyring.svms() {
            if !machines.contains_key(&owner) && !settling.contains(&owner) && !poller.configs.contains_key(&owner) && !self.is_onboard(owner) {
                self.keyring.forget(owner);
            }
        }
        machines.retain(|svm, watched| {
            // A record that cannot be read is no DELETE.
            let kept = poller.configs.contains_key(svm) || settling.contains(svm) || (self.view.contains(&watched.config) && self.has_aws_kek(*svm));
            if !kept {
                self.keyring.forget(*svm);
            }
            kept
        });
    }

    /// Lets the time of a machine pass, under the settings of now, and does what it says.
    fn pass_time(&self, now: Duration, cluster: &crate::settings::Settings, config: &Stored<AwsKmsRecord>, watched: &mut Watched) {
        let mut settings = poll_settings(cluster, &config.record);
        watched.now = now;
        if !config.record.unproven {
            watched.unproven = None;
        } else {
            // The hour counts from the moment that the credentials were stored, not from the last good poll, which may be long ago; and a poll tries them at once.
            let credentials = (config.record.settings.access_key_id.clone(), config.record.secret_access_key.clone());
            let since = match &watched.unproven {
                Some((known, since)) if *known == credentials => *since,
                known => {
                    // Others in place of some that were never proven either get no new hour.
                    let since = known.as_ref().map(|(_, since)| *since).filter(|since| watched.machine.verified_at().is_none_or(|ok| ok <= *since));
                    let since = since.unwrap_or(now);
                    watched.machine.on_hint(now);
                    watched.unproven = Some((credentials, since));
                    since
                }
            };
            // Until the first ok, also where the store does not know of it yet.
            let hour = watched.machine.verified_at().filter(|ok| *ok <= since).map(|ok| since.saturating_sub(ok) + UNPROVEN_LIMIT);
            settings.max_unverified = [settings.max_unverified, hour].into_iter().flatten().min();
        }
        let actions = watched.machine.on_settings(now, settings);
        self.act(config.record.svm, &actions, watched);
    }

    /// One poll: Decrypt of the stored KEK, which alone decides. Then, no longer as a part of it, DescribeKey, for what the operator should know and for rotation. A KEK that is loaded after a start costs one call.
    async fn poll(self: &Arc<Self>, config: &Stored<AwsKmsRecord>, lane: Lane) {
        let seen = {
            let _polling = Polling { manager: self, svm: config.record.svm, lane };
            self.ask(config).await
        };
        let Some(seen) = seen else { return };
        // The store is waited for here, and nothing waits for this.
        if config.record.unproven {
            self.note_proof(config).await;
        }
        if !seen.loads {
            self.notice_rotation(config, &seen.client, &seen.kek).await;
        }
    }

    /// Asks now, whatever is due, and takes the answer. The machine of the SVM may not be there yet where its configuration has just come; then the poller is about to ask by itself.
    pub(crate) async fn poll_now(&self, config: &Stored<AwsKmsRecord>) {
        self.ask(config).await;
    }

    /// Asks, and takes the answer. A question that is not answered within `min_poll_interval` is asked again beside it: a denial must not come late because AWS takes its time over each of the two that it takes.
    async fn ask(&self, config: &Stored<AwsKmsRecord>) -> Option<Seen> {
        let client = match self.turn(config).await {
            Ok(client) => client,
            Err(failure) => return self.conclude(config, self.clock.monotonic(), Err(failure)),
        };
        let asked = self.clock.monotonic();
        let mut first = Box::pin(self.unwrap(config, client));
        let interval = self.settings().min_poll_interval;
        tokio::select! {
            biased;
            answer = &mut first => return self.conclude(config, asked, answer),
            () = self.clock.sleep_until(asked + interval) => {}
        }
        let mut second = Box::pin(async {
            let client = self.turn(config).await;
            let asked = self.clock.monotonic();
            match client {
                Ok(client) => (asked, self.unwrap(config, client).await),
                Err(failure) => (asked, Err(failure)),
            }
        });
        let mut again = None;
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut first => break answer,
                answer = &mut second, if again.is_none() => again = Some(answer),
            }
        };
        let is_ok = answer.is_ok();
        let seen = self.conclude(config, asked, answer);
        if is_ok {
            return seen;
        }
        let (asked, answer) = match again {
            Some(answer) => answer,
            None => second.await,
        };
        self.conclude(config, asked, answer)
    }

    /// Takes an answer, unless the configuration has changed since the question: then it says nothing about the one that counts.
    fn conclude(&self, config: &Stored<AwsKmsRecord>, asked: Duration, answer: Result<Unwrapped, Failure>) -> Option<Seen> {
        let svm = config.record.svm;
        self.counted.poll(answer.as_ref().map_or_else(|failure| failure.outcome, |_| Outcome::Ok));
        let current = self.view.get::<AwsKmsRecord>(config.record.uuid).ok().flatten();
        if current.is_some_and(|current| current.revision != config.revision) {
            return None;
        }
        match answer {
            Ok(Unwrapped { keks, client, seen }) => {
                let loads = keks.iter().any(|kek| self.keyring.get(svm, kek.version()).is_none());
                self.take(&config.record, Answer { asked, outcome: Outcome::Ok, reason: String::new(), detail: AwsDetail::default(), keks });
                self.look_for_missing(svm);
                Some(Seen { client, kek: seen, loads })
            }
            Err(Failure { outcome, reason, detail }) => {
                self.take(&config.record, Answer { asked, outcome, reason, detail, keks: Vec::new() });
                None
            }
        }
    }

    /// Another node has blocked an SVM.
    pub(crate) fn hear_of_block(&self, svm: Uuid) {
        let now = self.clock.monotonic();
        if self.polls.lock().get_mut(&svm).is_some_and(|watched| watched.machine.on_block_elsewhere(now)) {
            self.polls.touch(svm);
        }
    }

    /// Whether a version of the SVM's KEK is stored that is not in memory.
    fn lacks_a_kek(&self, svm: Uuid) -> bool {
        self.view.under::<KekRecord>(&keks_prefix(svm)).iter().any(|kek| self.keyring.get(svm, kek.record.version).is_none())
    }

    /// While a rekey-internal has not ended, keys are under two versions of the KEK. Where one is missing, the next poll comes soon.
    fn look_for_missing(&self, svm: Uuid) {
        if !self.lacks_a_kek(svm) {
            return;
        }
        let soon = self.clock.monotonic() + self.settings().min_poll_interval;
        if let Some(watched) = self.polls.lock().get_mut(&svm).filter(|watched| watched.machine.state().serves()) {
            watched.machine.on_hint(soon);
        }
        self.polls.touch(svm);
    }

    /// Whether an automatic wrapping for this reason may start now: at most one an hour, so that one that cannot succeed does not go on all day.
    pub(crate) fn may_wrap_again(&self, svm: Uuid, reason: &str) -> bool {
        let now = self.clock.monotonic();
        let mut machines = self.polls.lock();
        let Some(watched) = machines.get_mut(&svm) else { return false };
        if watched.wrapped_for.as_ref().is_some_and(|(known, at)| known == reason && now.saturating_sub(*at) < WRAP_AGAIN) {
            return false;
        }
        watched.wrapped_for = Some((reason.to_owned(), now));
        true
    }

    /// Puts a KEK into memory that a job has made, where keys of the SVM are served; not where they are blocked, or have become so a moment ago. Under the same lock as [`Inner::take`]. It leaves memory with
    /// the answer, unless that is told to keep it.
    ///
    /// # Errors
    /// 65537556; 8 where another one of the same version is in memory.
    pub(crate) fn hold_while_served(&self, kek: Kek) -> crate::Result<Held<'_>> {
        let svm = kek.svm();
        let held = {
            let machines = self.polls.lock();
            machines.get(&svm).is_some_and(|watched| watched.machine.state().serves()).then(|| self.keyring.insert_absent(kek))
        };
        match held {
            Some(Some(kek)) => Ok(Held { manager: self, kek: Some(kek) }),
            Some(None) => Err(crate::Error::with(crate::Code::InUse, "another rekey-internal of the SVM is under way; start again when it has ended")),
            None => {
                let standing = self.standing(svm).describe();
                Err(crate::Error::with(crate::Code::Blocked, format!("SVM {} on node {}: {standing}", self.svm_ref(svm).name, self.node.name)))
            }
        }
    }

    /// Puts a KEK into memory that the onboard key manager has opened, unless keys of the SVM are refused: it may have an AWS KMS configuration, too, while keys move. Under the same lock.
    pub(crate) fn hold_unless_refused(&self, kek: Kek) -> Option<Arc<Kek>> {
        let svm = kek.svm();
        let machines = self.polls.lock();
        let serves = match machines.get(&svm) {
            // A move to AWS KMS was given up before it came to the keys under this one.
            _ if self.key_store(svm).ok().flatten().is_some_and(|store| store.record.is_onboards_alone(kek.version())) => true,
            Some(watched) => watched.machine.state().serves(),
            None => !self.has_aws_kek(svm),
        };
        serves.then(|| self.keyring.insert(kek))
    }

    /// Gives an outcome to the machine and does what it says. KEKs are put into memory under the same lock under which the machine may wipe them, so the two never disagree.
    fn take(&self, record: &AwsKmsRecord, answer: Answer) {
        let now = self.clock.monotonic();
        let Answer { asked, outcome, reason, detail, keks } = answer;
        let mut machines = self.polls.lock();
        // Without a machine, the configuration was deleted while AWS was asked.
        let Some(watched) = machines.get_mut(&record.svm) else { return };
        watched.now = now;
        let actions = watched.machine.on_poll(asked, now, outcome, self.random.jitter());
        watched.reason = reason;
        let throttled_before = std::mem::replace(&mut watched.detail, detail).is_throttled();
        self.act(record.svm, &actions, watched);
        if watched.detail.is_throttled() && !throttled_before {
            self.tell_throttled(&self.svm_ref(record.svm), &watched.reason, &watched.detail);
        }
        for kek in keks.into_iter().filter(|_| watched.machine.state().serves()) {
            // One of the same version and another content is from a configuration that is no more.
            if self.keyring.get(record.svm, kek.version()).is_none_or(|known| !known.matches(kek.expose())) {
                self.keyring.insert(kek);
                crate::unlocked::warn();
            }
        }
        self.polls.touch(record.svm);
    }

    fn act(&self, svm: Uuid, actions: &[Action], watched: &Watched) {
        for action in actions {
            match action {
                Action::Zeroize => {
                    self.keyring.forget(svm);
                }
                Action::Emit(event) => {
                    if matches!(event, Event::Blocked(_)) {
                        lock(&self.polls.blocked).push(svm);
                        self.polls.wake.notify_one();
                    }
                    self.emit(svm, *event, watched);
                }
            }
        }
    }

    fn emit(&self, svm: Uuid, event: Event, watched: &Watched) {
        let left = watched.machine.deadline().map_or(Duration::ZERO, |(at, _)| at.saturating_sub(watched.now));
        self.tell(&self.svm_ref(svm), event, &watched.reason, &watched.detail, left);
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

/// The settings of an SVM's machine: its own where they are stricter, else the cluster's.
pub(crate) fn poll_settings(cluster: &crate::settings::Settings, record: &AwsKmsRecord) -> Settings {
    let grace = record.settings.access_error_grace.map_or(cluster.access_error_grace, |own| own.min(cluster.access_error_grace));
    Settings {
        polling_period: Duration::from_secs(u64::from(record.settings.polling_period) * 60),
        min_poll_interval: cluster.min_poll_interval,
        access_error_grace: grace,
        max_unverified: record.settings.max_unverified,
    }
}
