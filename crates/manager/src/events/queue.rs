//! The queue: events that are not in the store yet, and what this node remembers of those that are.

use super::Event;
use super::record::{EventRecord, HeadRecord, Trouble, event_key, events_prefix, index_of};
use crate::records::{Record as _, Stored, key};
use crate::{Error, Result};
use jiff::Timestamp;
use keystead_store::{Error as StoreError, Range, Store, Txn};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

/// How many events wait at the most. As many as a node keeps in the store: the oldest of more would be deleted there too.
const MOST_WAITING: usize = super::writer::KEPT;
/// How many SVMs in trouble are remembered over a restart, so that the record stays small.
const MOST_OPEN: usize = 5_000;
/// How many events go into one transaction, and how many bytes of them.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 500_000;
/// How many indexes are left out after a start without the store.
const SKIPPED: u64 = 10_000;

/// The events of this node that wait to be written.
pub(crate) struct EventQueue {
    state: Mutex<State>,
    /// Wakes the writer.
    pub wake: Notify,
    /// Turns for reading the events of the store.
    pub reads: Semaphore,
}

#[derive(Default)]
struct State {
    last: u64,
    waiting: VecDeque<Arc<Event>>,
    /// How many were let go since the store has last taken some.
    lost: u64,
    open: BTreeMap<Uuid, Trouble>,
    /// The SVMs whose trouble this process has told, and not the one before it.
    told: BTreeSet<Uuid>,
    looked: Option<Timestamp>,
}

/// Events in the form in which they are written.
pub(crate) struct Batch {
    /// The transaction.
    pub txn: Txn,
    /// The newest of them.
    pub last: u64,
    count: usize,
}

impl EventQueue {
    /// The queue of a node that has been here before, or not.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn load(store: &dyn Store, node: Uuid) -> Result<Self> {
        let (entry, skipped) = match store.get(&key::<HeadRecord>(node)).await {
            Ok(entry) => (entry, 0),
            // What this machine has may not have the last ones: no index is given twice.
            Err(StoreError::Unavailable(_)) => {
                (store.range_recent(Range::prefix(key::<HeadRecord>(node), 1)).await.map_err(Error::from)?.entries.into_iter().next(), SKIPPED)
            }
            Err(error) => return Err(error.into()),
        };
        let head = entry.as_ref().map(Stored::<HeadRecord>::decode).transpose();
        let head = match head.inspect_err(|error| tracing::error!(detail = error.detail.as_deref(), "events are numbered on from what is stored")) {
            Ok(Some(head)) => head.record,
            Ok(None) | Err(_) => HeadRecord { last: last_index(store, node).await?, ..HeadRecord::default() },
        };
        let state = State { last: head.last + skipped, open: head.open, looked: head.looked, ..State::default() };
        Ok(Self { state: Mutex::new(state), wake: Notify::new(), reads: Semaphore::new(1) })
    }

    /// Adds an event; it is made with its index.
    pub fn push(&self, make: impl FnOnce(u64) -> Arc<Event>) {
        let mut state = self.lock();
        state.last += 1;
        let event = make(state.last);
        state.waiting.push_back(event);
        if state.waiting.len() > MOST_WAITING {
            state.waiting.pop_front();
            state.lost += 1;
        }
        drop(state);
        self.wake.notify_one();
    }

    /// The events that wait.
    pub fn waiting(&self) -> Vec<Arc<Event>> {
        self.lock().waiting.iter().cloned().collect()
    }

    /// How many events wait.
    pub fn count_waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// The index of the newest event.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// The oldest events that wait, to be written. Repeating a batch does no harm: it writes the same again.
    ///
    /// # Errors
    /// An event cannot be written as JSON.
    pub fn batch(&self) -> Result<Option<Batch>> {
        let (events, mut head) = {
            let state = self.lock();
            let events: Vec<_> = state.waiting.iter().take(BATCH).cloned().collect();
            let open = state.open.iter().take(MOST_OPEN).map(|(svm, trouble)| (*svm, *trouble)).collect();
            (events, HeadRecord { last: 0, open, looked: state.looked })
        };
        let (mut txn, mut bytes, mut count) = (Txn::new(), 0, 0);
        let Some(node) = events.first().map(|event| event.node.uuid) else { return Ok(None) };
        for event in events {
            let value = EventRecord::from(event.as_ref()).encode()?;
            bytes += value.len();
            if count > 0 && bytes > BATCH_BYTES {
                break;
            }
            txn = txn.put(event_key(node, event.index), value);
            head.last = event.index;
            count += 1;
        }
        Ok(Some(Batch { txn: txn.put(key::<HeadRecord>(node), head.encode()?), last: head.last, count }))
    }

    /// A batch stands in the store. Answers how many events were let go before it could be written.
    pub fn written(&self, batch: &Batch) -> u64 {
        let mut state = self.lock();
        let before = state.waiting.len();
        state.waiting.retain(|event| event.index > batch.last);
        // Those that were let go while the batch was on its way have arrived with it.
        let arrived = batch.count.saturating_sub(before - state.waiting.len());
        let lost = std::mem::take(&mut state.lost);
        lost.saturating_sub(u64::try_from(arrived).unwrap_or(u64::MAX))
    }

    /// Notes that an SVM is in trouble. Answers whether this process has not told of it, or of less.
    pub fn open(&self, svm: Uuid, trouble: Trouble) -> bool {
        let mut state = self.lock();
        let known = state.open.get(&svm).copied();
        let told = !state.told.insert(svm) && known >= Some(trouble);
        state.open.insert(svm, known.map_or(trouble, |known| known.max(trouble)));
        !told
    }

    /// Notes that an SVM is well. Answers what was told of it.
    pub fn close(&self, svm: Uuid) -> Option<Trouble> {
        let mut state = self.lock();
        state.told.remove(&svm);
        state.open.remove(&svm)
    }

    /// Forgets the trouble of SVMs that are gone.
    pub fn retain(&self, exists: impl Fn(Uuid) -> bool) {
        let mut state = self.lock();
        state.open.retain(|svm, _| exists(*svm));
        state.told.retain(|svm| exists(*svm));
    }

    /// Notes that certificates are looked through now. Answers when they were before.
    pub fn looked(&self, now: Timestamp) -> Option<Timestamp> {
        self.lock().looked.replace(now)
    }

    // A panic while the lock is held cannot leave the state half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn last_index(store: &dyn Store, node: Uuid) -> Result<u64> {
    let mut range = Range::prefix(events_prefix(node), super::PAGE);
    let mut last = 0;
    loop {
        let page = store.range_recent(range.clone()).await.map_err(Error::from)?;
        range.after = page.entries.last().map(|entry| entry.key.clone());
        last = range.after.as_deref().and_then(index_of).unwrap_or(last);
        if !page.more {
            return Ok(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;
    use crate::model::NodeRef;
    use keystead_store::sqlite::SqliteStore;

    const NODE: Uuid = Uuid::from_u128(7);
    const SVM: Uuid = Uuid::from_u128(8);

    fn event(index: u64) -> Arc<Event> {
        Arc::new(Event {
            index,
            time: Timestamp::UNIX_EPOCH,
            node: NodeRef { uuid: NODE, name: "n1".to_owned() },
            message: "keystead.test".to_owned(),
            severity: Severity::Notice,
            log_message: "keystead.test: a test".to_owned(),
            parameters: vec![("reason".to_owned(), "none".to_owned())],
            svm: None,
        })
    }

    fn empty() -> EventQueue {
        EventQueue { state: Mutex::default(), wake: Notify::new(), reads: Semaphore::new(1) }
    }

    fn indexes(queue: &EventQueue) -> (u64, u64) {
        let waiting = queue.waiting();
        (waiting.first().unwrap().index, waiting.last().unwrap().index)
    }

    #[test]
    fn the_queue_lets_the_oldest_go_and_counts_them() {
        let queue = empty();
        let full = u64::try_from(MOST_WAITING).unwrap();
        for _ in 0..full + 3 {
            queue.push(event);
        }
        assert_eq!((queue.waiting().len(), indexes(&queue)), (MOST_WAITING, (4, full + 3)));
        // Two more go while a batch is on its way: they have arrived with it.
        let batch = queue.batch().unwrap().unwrap();
        queue.push(event);
        queue.push(event);
        assert_eq!(queue.written(&batch), 3);
        assert_eq!(indexes(&queue), (batch.last + 1, full + 5));
        assert_eq!(queue.written(&queue.batch().unwrap().unwrap()), 0, "told once");
    }

    #[test]
    fn a_batch_is_bounded() {
        let queue = empty();
        assert!(queue.batch().unwrap().is_none());
        for _ in 0..BATCH + 1 {
            queue.push(event);
        }
        assert_eq!(queue.batch().unwrap().unwrap().txn.writes.len(), BATCH + 1, "the events and the head");
        let queue = empty();
        for _ in 0..9 {
            queue.push(|index| Arc::new(Event { log_message: "x".repeat(BATCH_BYTES / 4), ..event(index).as_ref().clone() }));
        }
        assert_eq!(queue.batch().unwrap().unwrap().txn.writes.len(), 3 + 1);
    }

    #[test]
    fn trouble_is_told_once_and_ends_once() {
        let queue = empty();
        assert!(queue.open(SVM, Trouble::NotAvailable) && !queue.open(SVM, Trouble::NotAvailable));
        assert!(queue.open(SVM, Trouble::Offline) && !queue.open(SVM, Trouble::NotAvailable));
        assert_eq!((queue.close(SVM), queue.close(SVM)), (Some(Trouble::Offline), None));
        queue.open(SVM, Trouble::Offline);
        queue.retain(|_| false);
        assert_eq!(queue.close(SVM), None);
    }

    #[tokio::test]
    async fn the_index_and_the_trouble_go_on_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("store.db")).await.unwrap();
        let queue = EventQueue::load(&store, NODE).await.unwrap();
        for _ in 0..3 {
            queue.push(event);
        }
        queue.open(SVM, Trouble::Offline);
        let batch = queue.batch().unwrap().unwrap();
        store.transact(batch.txn.clone()).await.unwrap();
        // An unclear answer is followed by the same transaction again.
        store.transact(batch.txn.clone()).await.unwrap();
        queue.written(&batch);
        assert!(queue.waiting().is_empty());

        let again = EventQueue::load(&store, NODE).await.unwrap();
        assert!(again.open(SVM, Trouble::NotAvailable), "the process before has told of it, this one has not");
        assert_eq!(again.close(SVM), Some(Trouble::Offline));
        again.push(event);
        assert_eq!(again.last(), 4);
        // Also where the head is damaged.
        store.transact(Txn::new().put(key::<HeadRecord>(NODE), "{")).await.unwrap();
        assert_eq!(EventQueue::load(&store, NODE).await.unwrap().last(), 3);
        store.close().await;
    }
}
