//! The keys of SVMs: wrapped by the SVM's KEK, stored durably, served from memory.
//!
//! This room knows neither names nor states of keys: attributes are bytes that the data plane gives and gets back. What it answers for: that a secret is wrapped by the current KEK, that a
//! change is acknowledged only when it is durable, that two changes of one key never overwrite each other, that names are unique in an SVM, and that nothing is handed out while the SVM is
//! blocked.
//!
//! Every change that brings in a secret compares the SVM's key-store record: once a rekey, or a move to another key manager, has made version n + 1, nothing is wrapped by version n any more, on
//! whichever node. An SVM without a key manager gets a place at the onboard one with its first key, under the comparison that it has none: so a key never ends under a key manager that the SVM has not.

pub(crate) mod cache;
pub(crate) mod record;

pub use cache::{Describer, Indexer};
pub use record::KeyObject;

use crate::inner::Inner;
use crate::records::{KeyStoreRecord, KeyStoreState, Stored, key};
use crate::{Code, Error, Manager, Result};
use bytes::Bytes;
use cache::SvmKeys;
use keystead_store::{Compare, Error as StoreError, Txn};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How many reads of the store go on at a time for keys that are not in memory: who guesses identifiers must not load the store.
pub(crate) const MISSES_AT_A_TIME: usize = 8;
/// How long such a read waits for its turn and for the store.
const MISS_TIME: Duration = Duration::from_secs(10);
/// How many searches through all keys of an SVM go on at a time: each holds a list of them.
pub(crate) const SCANS_AT_A_TIME: usize = 4;
/// How many keys an SVM may have, destroyed ones too, and how many bytes: all nodes hold them in memory.
const MOST_KEYS: usize = 4_000_000;
const MOST_BYTES: usize = 2 << 30;

/// The keys of one SVM. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
    svm: Uuid,
}

/// A change of one key. Several are committed together or not at all.
pub enum Change {
    /// A new key.
    Create {
        /// Its identifier, never used before.
        id: Uuid,
        /// What is to be wrapped; none for an object without a secret.
        secret: Option<Arc<Zeroizing<Vec<u8>>>>,
        /// Its attributes.
        attributes: Vec<u8>,
        /// Its names.
        names: Vec<String>,
    },
    /// New attributes for a key.
    Update {
        /// The key as it was read; the commit fails with [`CommitError::Outdated`] if it has changed since.
        base: Arc<KeyObject>,
        /// All its attributes.
        attributes: Vec<u8>,
        /// Names that it has from now on.
        taken: Vec<String>,
        /// Names that it has no longer.
        given_up: Vec<String>,
    },
    /// The end of a key's secret.
    Destroy {
        /// The key as it was read.
        base: Arc<KeyObject>,
        /// What is still known of it.
        attributes: Vec<u8>,
        /// Its names, which others may take from now on.
        given_up: Vec<String>,
    },
}

/// Why changes were not committed. Nothing of them has happened.
#[derive(Debug)]
pub enum CommitError {
    /// A key, or the SVM's KEK, has changed since it was read. Read again and repeat.
    Outdated,
    /// Another key has one of the names.
    NameTaken,
    /// The store refuses, or the SVM's keys cannot be used now.
    Failed(Error),
}

impl Manager {
    /// The keys of an SVM.
    pub fn keys(&self, svm: Uuid) -> Keys {
        Keys { inner: Arc::clone(self.inner()), svm }
    }

    /// A new identifier.
    pub fn new_uuid(&self) -> Uuid {
        self.inner().random.uuid()
    }
}

impl Keys {
    /// The SVM.
    pub fn svm(&self) -> Uuid {
        self.svm
    }

    /// One key. One that is not in memory is looked for in the store: it may have been made on another node a moment ago.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn get(&self, id: Uuid) -> Result<Option<Arc<KeyObject>>> {
        if let Some(object) = self.loaded().await?.get(id) {
            return Ok(Some(object));
        }
        tokio::time::timeout(MISS_TIME, self.read_from_store(id)).await.map_err(|_| Error::unexpected("the store does not answer in time"))??;
        Ok(self.loaded().await?.get(id))
    }

    async fn read_from_store(&self, id: Uuid) -> Result<()> {
        let inner = &self.inner;
        let _slot = inner.misses.acquire().await.map_err(Error::unexpected)?;
        for (key, destroyed) in [(record::live_key(self.svm, id), false), (record::destroyed_key(self.svm, id), true)] {
            if let Some(entry) = inner.store.get(&key).await.map_err(Error::from)? {
                inner.view.keys().put(self.svm, id, destroyed, entry.revision, entry.value);
                break;
            }
        }
        Ok(())
    }

    /// A turn for a search through all keys; hold it until the search is over.
    ///
    /// # Errors
    /// None that can happen while the node runs.
    pub async fn scan(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        self.inner.scans.acquire().await.map_err(Error::unexpected)
    }

    /// The keys with a term, or all, destroyed ones too; in no order. Terms are hashes, so compare again.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn find(&self, term: Option<u64>) -> Result<Vec<Arc<KeyObject>>> {
        Ok(self.loaded().await?.find(term))
    }

    /// How many there are that [`Keys::find`] would answer.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn count(&self, term: Option<u64>) -> Result<usize> {
        Ok(self.loaded().await?.count(term))
    }

    /// Whether keys of the SVM may be handed out and made now.
    ///
    /// # Errors
    /// 65536600 where this node is cut off for longer than `max_view_age`; 65537556 with the reason: blocked, or the KEK is not in memory yet; 65539437 while the configuration is being deleted; 65537926 where there is none, and no onboard key manager.
    pub fn usable(&self) -> Result<()> {
        if let Some(age) = self.inner.presence.view_is_too_old() {
            return Err(Error::with(
                Code::OutOfQuorum,
                format!(
                    "node {} has not seen the store for {} s, and [cluster] max_view_age lets it serve keys no longer",
                    self.inner.node.name,
                    age.as_secs()
                ),
            ));
        }
        match self.key_store()? {
            Some(store) if self.inner.kek(self.svm, store.record.kek_version).is_none() => Err(self.blocked()),
            Some(_) => Ok(()),
            None => self.inner.onboard_key().map(drop),
        }
    }

    /// The secret of a key; `None` for an object that has none.
    ///
    /// # Errors
    /// 65537556; 65536884 where the record fails its tag.
    pub fn open(&self, object: &KeyObject) -> Result<Option<Zeroizing<Vec<u8>>>> {
        if object.kek_version == 0 {
            return Ok(None);
        }
        let Some(kek) = self.inner.kek(self.svm, object.kek_version) else {
            // The last key may have been wrapped again, and the older KEK retired, since this one was looked up.
            let newer = self.inner.view.keys().peek(self.svm, object.id).filter(|newer| newer.kek_version != object.kek_version);
            return newer.map_or_else(|| Err(self.blocked()), |newer| self.open(&newer));
        };
        let secret = kek.unwrap_key(object.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()), object.wrapped()).map_err(|error| {
            tracing::error!(svm = %self.svm, key = %object.id, %error, "a key's record fails its tag");
            Error::with(Code::KeyRecordDamaged, format!("key {}", object.id))
        })?;
        Ok(Some(secret))
    }

    /// Commits changes, all of them or none. On return they are durable, and this node serves them.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn commit(&self, changes: Vec<Change>) -> std::result::Result<(), CommitError> {
        let failed = CommitError::Failed;
        let keys = self.loaded().await.map_err(failed)?;
        let store = match self.key_store().map_err(failed)? {
            Some(store) => store,
            None => self.inner.adopt(self.svm).await.map_err(failed)?.ok_or(CommitError::Outdated)?,
        };
        if changes.iter().any(|change| matches!(change, Change::Create { .. })) {
            let (count, bytes) = keys.size();
            if count >= MOST_KEYS || bytes >= MOST_BYTES {
                let svm = self.inner.svm_ref(self.svm).name;
                return Err(failed(Error::with(
                    Code::LimitReached,
                    format!("the SVM {svm} has {count} keys with {bytes} bytes; at most {MOST_KEYS} with {MOST_BYTES} are kept"),
                )));
            }
        }
        let mut plan = CommitPlan::default();
        for change in changes {
            self.plan(change, &store, &mut plan).map_err(failed)?;
        }
        let (txn, puts) = plan.into_txn(self.svm, &store);
        let names: HashSet<String> =
            txn.compares.iter().filter_map(|compare| if let Compare::Absent(key) = compare { Some(key.clone()) } else { None }).collect();
        self.inner.steps.reached("keys.commit.before");
        let revision = match self.inner.store.transact(txn).await {
            Ok(revision) => {
                self.inner.steps.reached("keys.commit.after");
                revision
            }
            Err(StoreError::Conflict { key }) if names.contains(&key) && key.starts_with("/key-names/") => return Err(CommitError::NameTaken),
            Err(StoreError::Conflict { .. }) => {
                // What conflicts may still be on its way to the view: without a wait the repetition would read the same again.
                self.refresh(&puts).await.map_err(failed)?;
                return Err(CommitError::Outdated);
            }
            // Perhaps it happened. What is stored now says so; if it does not, the caller is told that it failed, and may find later that it did not.
            Err(error @ StoreError::Indeterminate(_)) => match self.happened(&puts).await {
                Some(revision) => revision,
                None => return Err(failed(error.into())),
            },
            Err(error) => return Err(failed(error.into())),
        };
        for (id, destroyed, value) in puts {
            self.inner.view.keys().put(self.svm, id, destroyed, revision, value);
        }
        Ok(())
    }

    fn plan(&self, change: Change, store: &Stored<KeyStoreRecord>, plan: &mut CommitPlan) -> Result<()> {
        match change {
            Change::Create { id, secret, attributes, names } => {
                let (version, wrapped) = match secret {
                    None => (0, Vec::new()),
                    Some(secret) => {
                        let version = store.record.kek_version;
                        let kek = self.inner.kek_for_new_keys(self.svm, version).ok_or_else(|| self.blocked())?;
                        (version, kek.wrap(&id.to_string(), &secret).0)
                    }
                };
                plan.compares.push(Compare::Absent(record::live_key(self.svm, id)));
                plan.new_secret = true;
                plan.taken.extend(names);
                plan.puts.push((id, false, KeyObject::encode(version, &wrapped, &attributes).into()));
            }
            Change::Update { base, attributes, taken, given_up } => {
                let key = if base.destroyed { record::destroyed_key(self.svm, base.id) } else { record::live_key(self.svm, base.id) };
                plan.compares.push(Compare::Unchanged(key, base.revision));
                plan.taken.extend(taken);
                plan.given_up.extend(given_up);
                plan.puts.push((base.id, base.destroyed, KeyObject::encode(base.kek_version, base.wrapped(), &attributes).into()));
            }
            Change::Destroy { base, attributes, given_up } => {
                plan.compares.push(Compare::Unchanged(record::live_key(self.svm, base.id), base.revision));
                plan.given_up.extend(given_up);
                plan.deletes.push(record::live_key(self.svm, base.id));
                plan.puts.push((base.id, true, KeyObject::encode(0, &[], &attributes).into()));
            }
        }
        Ok(())
    }

    /// Whether a commit with an unclear answer has happened: it has where its first record stands in the store.
    async fn happened(&self, puts: &[(Uuid, bool, Bytes)]) -> Option<keystead_store::Revision> {
        let (id, destroyed, value) = puts.first()?;
        let key = if *destroyed { record::destroyed_key(self.svm, *id) } else { record::live_key(self.svm, *id) };
        let entry = self.inner.store.get(&key).await.ok()??;
        (entry.value == *value).then_some(entry.revision)
    }

    async fn refresh(&self, puts: &[(Uuid, bool, Bytes)]) -> Result<()> {
        for (id, ..) in puts {
            for (key, destroyed) in [(record::live_key(self.svm, *id), false), (record::destroyed_key(self.svm, *id), true)] {
                if let Some(entry) = self.inner.store.get(&key).await.map_err(Error::from)? {
                    self.inner.view.keys().put(self.svm, *id, destroyed, entry.revision, entry.value);
                }
            }
        }
        // The key store's record is small and its view is short behind.
        if let Some(store) = self.inner.fresh::<KeyStoreRecord>(self.svm).await? {
            self.inner.view.reached(store.revision).await;
        }
        Ok(())
    }

    async fn loaded(&self) -> Result<Arc<SvmKeys>> {
        self.inner.view.keys().svm(&*self.inner.store, self.svm).await
    }

    /// Which key manager the SVM has. `None`: none yet, and the onboard one would take its keys.
    fn key_store(&self) -> Result<Option<Stored<KeyStoreRecord>>> {
        let Some(store) = self.inner.key_store(self.svm)? else {
            return self.inner.onboard()?.map(|_| None).ok_or_else(|| Error::new(Code::NotConfigured));
        };
        match store.record.state {
            KeyStoreState::Active | KeyStoreState::SvmKekRekey | KeyStoreState::Switching | KeyStoreState::Mixed => Ok(Some(store)),
            KeyStoreState::Initializing => Err(Error::new(Code::Initializing)),
            KeyStoreState::Disabling => Err(Error::new(Code::Disabling)),
        }
    }

    fn blocked(&self) -> Error {
        if !self.inner.has_aws_kek(self.svm)
            && let Err(error) = self.inner.onboard_key()
        {
            return error;
        }
        Error::with(
            Code::Blocked,
            format!("SVM {} on node {}: {}", self.inner.svm_ref(self.svm).name, self.inner.node.name, self.inner.standing(self.svm).describe()),
        )
    }
}

#[derive(Default)]
struct CommitPlan {
    compares: Vec<Compare>,
    puts: Vec<(Uuid, bool, Bytes)>,
    deletes: Vec<String>,
    taken: Vec<String>,
    given_up: Vec<String>,
    new_secret: bool,
}

impl CommitPlan {
    fn into_txn(self, svm: Uuid, store: &Stored<KeyStoreRecord>) -> (Txn, Vec<(Uuid, bool, Bytes)>) {
        let mut txn = Txn { compares: self.compares, ..Txn::new() };
        let store_key = key::<KeyStoreRecord>(svm);
        txn = if self.new_secret { txn.when(Compare::Unchanged(store_key, store.revision)) } else { txn.when(Compare::Present(store_key)) };
        let given_up: HashSet<String> = self.given_up.iter().map(|name| record::name_key(svm, name)).collect();
        let taken: HashSet<String> = self.taken.iter().map(|name| record::name_key(svm, name)).collect();
        for name in &taken {
            // A name that one key of this commit hands to another is not free for a moment.
            if !given_up.contains(name) {
                txn = txn.when(Compare::Absent(name.clone()));
            }
            txn = txn.put(name.clone(), Bytes::new());
        }
        for name in given_up.difference(&taken) {
            txn = txn.delete(name.clone());
        }
        for delete in self.deletes {
            txn = txn.delete(delete);
        }
        for (id, destroyed, value) in &self.puts {
            let key = if *destroyed { record::destroyed_key(svm, *id) } else { record::live_key(svm, *id) };
            txn = txn.put(key, value.clone());
        }
        (txn, self.puts)
    }
}
