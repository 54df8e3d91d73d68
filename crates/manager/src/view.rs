//! The view: this node's copy of the small records, kept by the store's watch.
//!
//! Reads are answered from it, without the store: they go on when the store does not. A caller that has just written waits with [`View::reached`] until its own
//! write is in the view, so that everybody reads their own writes.

use crate::events::record::PREFIXES as EVENTS;
use crate::jobs::index::JobIndex;
use crate::keys::Indexer;
use crate::keys::cache::KeyCache;
use crate::keys::record::BULK;
use crate::records::{AwsKmsRecord, JobRecord, KekRecord, KeyStoreRecord, OnboardKekRecord, OnboardRecord, Record, Stored, SvmRecord, key};
use crate::settings::Settings;
use crate::{Error, Result};
use jiff::Timestamp;
use keystead_store::{Entry, Event, EventBatch, Range, Revision, Store};
use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many records are read from the store at a time.
const PAGE: usize = 1_000;
/// How long to wait before the store is asked again after it failed.
const RETRY: Duration = Duration::from_millis(500);
/// How long a writer waits until its own write shows in the view.
const READ_YOUR_WRITES: Duration = Duration::from_secs(5);

/// A node's copy of the records; and, where they were needed, of the keys of SVMs.
pub struct View {
    store: Arc<dyn Store>,
    /// One lock for all of it. Nobody calls back while it is held: what looks at two things takes each out in turn.
    state: RwLock<State>,
    keys: KeyCache,
    /// Up to where the view follows the store.
    revision: watch::Sender<Revision>,
    /// The last revision that changed a record: changes of keys, which may be thousands a second, wake nobody.
    changed: watch::Sender<Revision>,
}

/// The records, and what is kept of them to be found faster. They change together.
#[derive(Default)]
struct State {
    records: BTreeMap<String, Kept>,
    jobs: JobIndex,
    /// The last revision that changed what configurations show.
    configs: Revision,
    /// The last revision that changed a wrapped KEK.
    keks: Revision,
    /// The last revision that changed what polls are planned by.
    polls: Revision,
}

/// A record as the store has it, and as it was read the first time that somebody wanted it.
struct Kept {
    entry: Entry,
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Kept {
    fn new(entry: Entry) -> Self {
        Self { entry, decoded: OnceLock::new() }
    }

    /// The record. What is damaged is read again each time, so that each reader hears of it.
    fn decode<R: Record>(&self) -> Result<Arc<Stored<R>>> {
        let known = self.decoded.get().and_then(|known| Arc::downcast::<Stored<R>>(Arc::clone(known)).ok());
        if let Some(known) = known {
            return Ok(known);
        }
        let decoded = Arc::new(Stored::<R>::decode(&self.entry)?);
        let _ = self.decoded.set(Arc::<Stored<R>>::clone(&decoded));
        Ok(decoded)
    }
}

impl View {
    /// Reads everything once. Start [`View::follow`] afterwards.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn load(store: Arc<dyn Store>, indexer: Indexer) -> Result<Arc<Self>> {
        let channel = || watch::channel(Revision(0)).0;
        let view = Arc::new(Self { store, state: RwLock::default(), keys: KeyCache::new(indexer), revision: channel(), changed: channel() });
        // Where this machine has a copy, from there: the watch brings what has changed since.
        view.read_all(true).await?;
        Ok(view)
    }

    /// Keeps the view up to date until it is cancelled. After a failure of the store the view stays as it was, and is read anew when the store is back.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.follow_once() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// One record, with its revision.
    ///
    /// # Errors
    /// The record is damaged.
    pub fn get<R: Record>(&self, id: impl std::fmt::Display) -> Result<Option<Stored<R>>> {
        Ok(self.shared(id)?.map(Arc::unwrap_or_clone))
    }

    /// The same, without a copy.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn shared<R: Record>(&self, id: impl std::fmt::Display) -> Result<Option<Arc<Stored<R>>>> {
        self.read().records.get(&key::<R>(id)).map(Kept::decode).transpose()
    }

    /// The record of a kind that has only one.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn only<R: Record>(&self) -> Result<Stored<R>> {
        self.get::<R>("")?.ok_or_else(|| Error::unexpected(format!("the record {} is missing from the store", R::PREFIX)))
    }

    /// All records of a kind, in the order of their keys. Damaged ones are logged and left out, so that one of them does not hide the others.
    pub fn all<R: Record>(&self) -> Vec<Stored<R>> {
        self.under::<R>(R::PREFIX)
    }

    /// The same, without copies.
    pub fn shared_all<R: Record>(&self) -> Vec<Arc<Stored<R>>> {
        self.shared_under(R::PREFIX)
    }

    /// All records of a kind whose key starts with `prefix`.
    pub fn under<R: Record>(&self, prefix: &str) -> Vec<Stored<R>> {
        self.shared_under(prefix).into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// The jobs that have not ended, in the order of acceptance.
    pub fn open_jobs(&self) -> Vec<Arc<Stored<JobRecord>>> {
        self.read().jobs.open().map(Arc::clone).collect()
    }

    /// The keys of jobs that ended at a moment or before it, the oldest first, so many at the most, but for those of some nodes.
    pub fn jobs_ended_by(&self, moment: Timestamp, most: usize, but: &HashSet<Uuid>) -> Vec<String> {
        self.read().jobs.ended_by(moment, most, but)
    }

    /// The largest place in the order of acceptance that any job has had.
    pub fn last_job_order(&self) -> u64 {
        self.read().jobs.last_order()
    }

    fn shared_under<R: Record>(&self, prefix: &str) -> Vec<Arc<Stored<R>>> {
        self.read()
            .records
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(_, kept)| {
                kept.decode().inspect_err(|error| tracing::error!(detail = error.detail.as_deref(), "a record of the store cannot be read")).ok()
            })
            .collect()
    }

    /// Whether there is a record under this key, whether it can be read or not.
    pub fn contains(&self, key: &str) -> bool {
        self.read().records.contains_key(key)
    }

    /// Whether any key starts with `prefix`.
    pub fn any_under(&self, prefix: &str) -> bool {
        self.read().records.range(prefix.to_owned()..).next().is_some_and(|(key, _)| key.starts_with(prefix))
    }

    /// The keys of SVMs.
    pub fn keys(&self) -> &KeyCache {
        &self.keys
    }

    /// The last revision that changed a configuration, an SVM, or the settings.
    pub fn configs_revision(&self) -> Revision {
        self.read().configs
    }

    /// The last revision that changed a KEK that AWS has wrapped.
    pub fn keks_revision(&self) -> Revision {
        self.read().keks
    }

    /// The last revision that changed what polls are planned by: configurations, settings, KEKs, key stores, the onboard key manager.
    pub fn polls_revision(&self) -> Revision {
        self.read().polls
    }

    /// Signals each revision that changes a record.
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    /// Waits until the view shows `revision`, at most a few seconds. Answers whether it does.
    pub async fn shows(&self, revision: Revision) -> bool {
        let mut changes = self.revision.subscribe();
        tokio::time::timeout(READ_YOUR_WRITES, changes.wait_for(|at| *at >= revision)).await.is_ok()
    }

    /// The same for a write of this node: a view that lags is behind, but no reason to fail what has been written already.
    pub async fn reached(&self, revision: Revision) {
        if !self.shows(revision).await {
            tracing::warn!(revision = revision.0, "the view has not caught up with a write of this node; reads may be old for a moment");
        }
    }

    async fn follow_once(&self) {
        let from = *self.revision.borrow();
        let mut watch = match self.store.watch("/", from).await {
            Ok(watch) => watch,
            Err(error) => {
                tracing::warn!(%error, "the store cannot be watched; the view stays as it is until it can");
                if matches!(error, keystead_store::Error::Compacted { .. }) {
                    self.reload_or_log().await;
                }
                return;
            }
        };
        while let Some(batch) = watch.next().await {
            match batch {
                Ok(batch) => self.apply(batch),
                Err(error) => {
                    tracing::warn!(%error, "the watch of the store ended; reading it anew");
                    self.reload_or_log().await;
                    return;
                }
            }
        }
    }

    async fn reload_or_log(&self) {
        if let Err(error) = self.reload().await {
            tracing::warn!(detail = error.detail.as_deref(), "the store cannot be read; the view stays as it is");
        }
    }

    /// Pages of different revisions do not fit together by themselves. The watch, which starts at the first page's revision, makes them do so: it brings every
    /// change since, and applying one twice does no harm.
    /// Reads everything from the store itself. To be used before [`View::follow`], which does so by itself where it must.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn reload(&self) -> Result<()> {
        self.read_all(false).await
    }

    async fn read_all(&self, recent: bool) -> Result<()> {
        let mut fresh = State::default();
        let mut range = Range::prefix("/", PAGE);
        let mut revision = None;
        loop {
            let page = if recent { self.store.range_recent(range.clone()).await? } else { self.store.range(range.clone()).await? };
            revision.get_or_insert(page.revision);
            range.after = page.entries.last().map(|entry| past_bulk(&entry.key));
            fresh.records.extend(page.entries.into_iter().filter(|entry| is_kept(&entry.key)).map(|entry| (entry.key.clone(), Kept::new(entry))));
            if !page.more {
                break;
            }
        }
        let of_jobs = fresh.records.range(JobRecord::PREFIX.to_owned()..).take_while(|(key, _)| JobIndex::is_job(key));
        of_jobs.filter_map(|(_, kept)| kept.decode().ok()).for_each(|job| fresh.jobs.put(job));
        fresh.configs = revision.unwrap_or_default();
        (fresh.keks, fresh.polls) = (fresh.configs, fresh.configs);
        // What was there may be large: it is given back when nobody waits for the lock.
        let before = std::mem::replace(&mut *self.write(), fresh);
        drop(before);
        // The changes between what was followed and what was read now are unknown: keys are loaded anew when they are needed.
        self.keys.clear();
        self.changed.send_replace(revision.unwrap_or_default());
        self.revision.send_replace(revision.unwrap_or_default());
        Ok(())
    }

    fn apply(&self, batch: EventBatch) {
        self.keys.apply(&batch.events, batch.revision);
        let touches_records = batch.events.iter().any(|event| match event {
            Event::Put(entry) => is_kept(&entry.key),
            Event::Delete { key } => is_kept(key),
        });
        if !touches_records {
            self.revision.send_replace(batch.revision);
            return;
        }
        let mut state = self.write();
        let State { records, jobs, configs, keks, polls } = &mut *state;
        for event in batch.events {
            if shows_in_configs(&event) {
                *configs = batch.revision;
            }
            if key_of(&event).starts_with(KekRecord::PREFIX) {
                *keks = batch.revision;
            }
            if POLLS.iter().any(|prefix| key_of(&event).starts_with(prefix)) {
                *polls = batch.revision;
            }
            match event {
                Event::Put(entry) if is_kept(&entry.key) => {
                    let kept = Kept::new(entry);
                    if JobIndex::is_job(&kept.entry.key) {
                        match kept.decode() {
                            Ok(job) => jobs.put(job),
                            Err(_) => jobs.delete(&kept.entry.key),
                        }
                    }
                    records.insert(kept.entry.key.clone(), kept);
                }
                Event::Put(_) => {}
                Event::Delete { key } => {
                    jobs.delete(&key);
                    records.remove(&key);
                }
            }
        }
        drop(state);
        // In this order: who has waited for a revision finds that the change was signalled.
        self.changed.send_replace(batch.revision);
        self.revision.send_replace(batch.revision);
    }

    // A panic while the lock is held cannot leave the state half changed, so a poisoned lock is as good as any.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What polls are planned by.
const POLLS: [&str; 6] = [AwsKmsRecord::PREFIX, Settings::PREFIX, KekRecord::PREFIX, KeyStoreRecord::PREFIX, OnboardRecord::PREFIX, OnboardKekRecord::PREFIX];

/// Whether a change may be one of what configurations show.
fn shows_in_configs(event: &Event) -> bool {
    [AwsKmsRecord::PREFIX, SvmRecord::PREFIX, Settings::PREFIX].iter().any(|prefix| key_of(event).starts_with(prefix))
}

fn key_of(event: &Event) -> &str {
    let (Event::Put(Entry { key, .. }) | Event::Delete { key }) = event;
    key
}

/// Keys of SVMs are many, and are loaded when they are needed. Events are read from the store by those who ask.
fn is_kept(key: &str) -> bool {
    bulk_of(key).is_none()
}

fn bulk_of(key: &str) -> Option<&'static str> {
    BULK.into_iter().chain(EVENTS).find(|prefix| key.starts_with(prefix))
}

/// Where to read on after a key: past all of its kind, where that is not kept here.
fn past_bulk(key: &str) -> String {
    match bulk_of(key) {
        // '0' follows '/'.
        Some(prefix) => format!("{}0", prefix.trim_end_matches('/')),
        None => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_events_are_not_kept_and_read_past() {
        for (key, next) in [("/events/n/00000000000000000001", "/events0"), ("/event-heads/n", "/event-heads0"), ("/keys/s/k", "/keys0")] {
            assert!(!is_kept(key));
            assert_eq!(past_bulk(key), next);
        }
        assert!(is_kept("/ekmip/clients/c"));
        assert_eq!(past_bulk("/ekmip/clients/c"), "/ekmip/clients/c");
    }
}
