//! The keys of SVMs in memory: wrapped, with an index for searches. Kept by the store's watch, and by this node's own commits.
//!
//! An SVM is loaded when it is first needed. While it loads, changes arrive already; what counts is the revision: a change never replaces a later one, whichever way it came.

use super::record::{KeyObject, destroyed_prefix, parse};
use crate::records::keys_prefix;
use crate::{Error, Result};
use bytes::Bytes;
use keystead_store::{Event, Range, Revision, Store};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// How many records are read from the store at a time.
const PAGE: usize = 1_000;

/// Names the terms that a key is found by, from its attributes. A term is a hash: who searches compares again.
pub type Indexer = Arc<dyn Fn(&[u8]) -> Vec<u64> + Send + Sync>;

/// Says which algorithm a key is for, from its attributes; `None` where they do not say.
pub type Describer = Arc<dyn Fn(&[u8]) -> Option<String> + Send + Sync>;

/// The keys of all SVMs that were needed so far.
pub(crate) struct KeyCache {
    indexer: Indexer,
    svms: RwLock<HashMap<Uuid, Arc<SvmKeys>>>,
}

/// The keys of one SVM.
pub(crate) struct SvmKeys {
    loaded: OnceCell<()>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    objects: HashMap<Uuid, Arc<KeyObject>>,
    terms: HashMap<u64, Ids>,
    /// The bytes of all records.
    bytes: usize,
    /// While loading: what was deleted, and when, so that an older page cannot bring it back.
    deleted: Option<HashMap<Uuid, Revision>>,
}

/// The keys with a term. Most terms, as names, have one key; some, as groups, have nearly all.
enum Ids {
    One(Uuid),
    Many(HashSet<Uuid>),
}

impl KeyCache {
    pub fn new(indexer: Indexer) -> Self {
        Self { indexer, svms: RwLock::default() }
    }

    /// The keys of an SVM, loaded.
    ///
    /// # Errors
    /// The store cannot be read. The next call tries again.
    pub async fn svm(&self, store: &dyn Store, svm: Uuid) -> Result<Arc<SvmKeys>> {
        let known = self.read().get(&svm).cloned();
        let keys = match known {
            Some(keys) => keys,
            None => Arc::clone(self.svms.write().unwrap_or_else(PoisonError::into_inner).entry(svm).or_insert_with(|| Arc::new(SvmKeys::new()))),
        };
        keys.loaded.get_or_try_init(|| keys.load(store, svm, &self.indexer)).await?;
        Ok(keys)
    }

    /// One key, where it is in memory.
    pub fn peek(&self, svm: Uuid, id: Uuid) -> Option<Arc<KeyObject>> {
        self.read().get(&svm)?.get(id)
    }

    /// Takes changes of the store over. Those of SVMs that were never needed are left alone.
    pub fn apply(&self, events: &[Event], revision: Revision) {
        for event in events {
            let (key, value) = match event {
                Event::Put(entry) => (&entry.key, Some(&entry.value)),
                Event::Delete { key } => (key, None),
            };
            let Some((svm, id, destroyed)) = parse(key) else { continue };
            let Some(keys) = self.read().get(&svm).cloned() else { continue };
            match value {
                Some(value) => keys.put(id, destroyed, revision, value.clone(), &self.indexer),
                None => keys.delete(id, revision, &self.indexer),
            }
        }
    }

    /// Takes over what this node itself has just committed.
    pub fn put(&self, svm: Uuid, id: Uuid, destroyed: bool, revision: Revision, value: Bytes) {
        if let Some(keys) = self.read().get(&svm).cloned() {
            keys.put(id, destroyed, revision, value, &self.indexer);
        }
    }

    /// Forgets everything: the watch has a gap.
    pub fn clear(&self) {
        // Millions of keys may be given back here: not while others wait for the lock.
        let all = std::mem::take(&mut *self.svms.write().unwrap_or_else(PoisonError::into_inner));
        drop(all);
    }

    /// Forgets the keys of an SVM.
    pub fn forget(&self, svm: Uuid) {
        let keys = self.svms.write().unwrap_or_else(PoisonError::into_inner).remove(&svm);
        drop(keys);
    }

    // A panic while a lock is held cannot leave a map half changed, so a poisoned lock is as good as any.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Uuid, Arc<SvmKeys>>> {
        self.svms.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SvmKeys {
    fn new() -> Self {
        Self { loaded: OnceCell::new(), state: RwLock::new(State { deleted: Some(HashMap::new()), ..State::default() }) }
    }

    /// One key.
    pub fn get(&self, id: Uuid) -> Option<Arc<KeyObject>> {
        self.read().objects.get(&id).cloned()
    }

    /// The keys with a term, or all; in no order.
    pub fn find(&self, term: Option<u64>) -> Vec<Arc<KeyObject>> {
        let state = self.read();
        match term {
            None => state.objects.values().cloned().collect(),
            Some(term) => match state.terms.get(&term) {
                None => Vec::new(),
                Some(Ids::One(id)) => state.objects.get(id).cloned().into_iter().collect(),
                Some(Ids::Many(ids)) => ids.iter().filter_map(|id| state.objects.get(id).cloned()).collect(),
            },
        }
    }

    /// How many there are with a term, or in all.
    pub fn count(&self, term: Option<u64>) -> usize {
        let state = self.read();
        match term {
            None => state.objects.len(),
            Some(term) => match state.terms.get(&term) {
                None => 0,
                Some(Ids::One(_)) => 1,
                Some(Ids::Many(ids)) => ids.len(),
            },
        }
    }

    /// How many keys are wrapped by another version of the KEK than this one.
    pub fn not_under(&self, version: u32) -> usize {
        self.read().objects.values().filter(|object| object.kek_version != 0 && object.kek_version != version).count()
    }

    /// How many keys there are, destroyed ones too, and how many bytes their records have.
    pub fn size(&self) -> (usize, usize) {
        let state = self.read();
        (state.objects.len(), state.bytes)
    }

    async fn load(&self, store: &dyn Store, svm: Uuid, indexer: &Indexer) -> Result<()> {
        for prefix in [keys_prefix(svm), destroyed_prefix(svm)] {
            let mut range = Range::prefix(prefix, PAGE);
            loop {
                let page = store.range_recent(range.clone()).await.map_err(Error::from)?;
                range.after = page.entries.last().map(|entry| entry.key.clone());
                for entry in page.entries {
                    if let Some((_, id, destroyed)) = parse(&entry.key) {
                        self.put(id, destroyed, entry.revision, entry.value, indexer);
                    }
                }
                if !page.more {
                    break;
                }
            }
        }
        self.write().deleted = None;
        Ok(())
    }

    fn put(&self, id: Uuid, destroyed: bool, revision: Revision, value: Bytes, indexer: &Indexer) {
        let object = match KeyObject::decode(id, destroyed, revision, value) {
            Ok(object) => Arc::new(object),
            Err(error) => {
                tracing::error!(detail = error.detail.as_deref(), "a key cannot be read from the store, and is not served");
                return;
            }
        };
        let mut state = self.write();
        let later = |at: &Revision| *at > revision;
        if state.deleted.as_ref().and_then(|deleted| deleted.get(&id)).is_some_and(later) {
            return;
        }
        let known = state.objects.get(&id).cloned();
        if known.as_ref().is_some_and(|known| known.revision >= revision) {
            return;
        }
        // A key that is wrapped again has the same attributes: nothing to index.
        if known.as_ref().is_none_or(|known| known.attributes() != object.attributes()) {
            let old = known.as_ref().map(|known| indexer(known.attributes())).unwrap_or_default();
            let new = indexer(object.attributes());
            old.iter().filter(|term| !new.contains(term)).for_each(|term| state.unindex(*term, id));
            new.iter().filter(|term| !old.contains(term)).for_each(|term| state.index(*term, id));
        }
        state.bytes = state.bytes + object.size() - known.map_or(0, |known| known.size());
        state.objects.insert(id, object);
    }

    /// A deletion and a put of one transaction have the same revision: the key was destroyed, and its new record stays, whichever comes first.
    fn delete(&self, id: Uuid, revision: Revision, indexer: &Indexer) {
        let mut state = self.write();
        if let Some(deleted) = &mut state.deleted {
            deleted.insert(id, revision);
        }
        if state.objects.get(&id).is_some_and(|known| known.revision < revision)
            && let Some(known) = state.objects.remove(&id)
        {
            state.bytes -= known.size();
            indexer(known.attributes()).into_iter().for_each(|term| state.unindex(term, id));
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn index(&mut self, term: u64, id: Uuid) {
        match self.terms.entry(term) {
            Entry::Vacant(place) => drop(place.insert(Ids::One(id))),
            Entry::Occupied(place) => {
                let ids = place.into_mut();
                match ids {
                    Ids::One(other) if *other == id => {}
                    Ids::One(other) => *ids = Ids::Many(HashSet::from([*other, id])),
                    Ids::Many(ids) => drop(ids.insert(id)),
                }
            }
        }
    }

    fn unindex(&mut self, term: u64, id: Uuid) {
        let empty = match self.terms.get_mut(&term) {
            None => false,
            Some(Ids::One(only)) => *only == id,
            Some(Ids::Many(ids)) => {
                ids.remove(&id);
                ids.is_empty()
            }
        };
        if empty {
            self.terms.remove(&term);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::record::{destroyed_key, live_key};
    use keystead_store::Entry as StoredEntry;

    fn indexer() -> Indexer {
        Arc::new(|attributes| attributes.iter().map(|byte| u64::from(*byte)).collect())
    }

    fn keys() -> SvmKeys {
        SvmKeys::new()
    }

    fn value(attributes: &[u8]) -> Bytes {
        KeyObject::encode(1, b"w", attributes).into()
    }

    #[test]
    fn a_change_never_replaces_a_later_one() {
        let (keys, index, id) = (keys(), indexer(), Uuid::from_u128(1));
        keys.put(id, false, Revision(5), value(b"b"), &index);
        keys.put(id, false, Revision(4), value(b"a"), &index);
        assert_eq!(keys.get(id).unwrap().attributes(), b"b");
        keys.delete(id, Revision(5), &index);
        assert!(keys.get(id).is_some(), "deleted and put by one transaction: it stays");
        keys.delete(id, Revision(6), &index);
        assert!(keys.get(id).is_none() && keys.find(Some(u64::from(b'b'))).is_empty());
        keys.put(id, false, Revision(5), value(b"b"), &index);
        assert!(keys.get(id).is_none(), "an older page does not bring it back while loading");
    }

    #[test]
    fn terms_follow_the_attributes() {
        let (keys, index) = (keys(), indexer());
        for number in 1..=3u8 {
            keys.put(Uuid::from_u128(number.into()), false, Revision(1), value(&[number, 9]), &index);
        }
        assert_eq!((keys.find(Some(9)).len(), keys.find(Some(2)).len(), keys.find(None).len()), (3, 1, 3));
        keys.put(Uuid::from_u128(2), false, Revision(2), value(&[7]), &index);
        assert_eq!((keys.find(Some(9)).len(), keys.find(Some(2)).len(), keys.find(Some(7)).len()), (2, 0, 1));
    }

    #[test]
    fn events_go_to_the_svm_that_they_name() {
        let cache = KeyCache::new(indexer());
        let (svm, id) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let known = Arc::new(SvmKeys::new());
        cache.svms.write().unwrap().insert(svm, Arc::clone(&known));
        let entry = |key: String| StoredEntry { key, value: value(b"x"), created: Revision(3), revision: Revision(3), lease: None };
        cache.apply(&[Event::Put(entry(live_key(svm, id))), Event::Put(entry(live_key(Uuid::from_u128(9), id)))], Revision(3));
        assert!(!known.get(id).unwrap().destroyed && cache.read().len() == 1);
        cache.apply(
            &[Event::Delete { key: live_key(svm, id) }, Event::Put(StoredEntry { revision: Revision(4), ..entry(destroyed_key(svm, id)) })],
            Revision(4),
        );
        assert!(known.get(id).unwrap().destroyed);
    }
}
