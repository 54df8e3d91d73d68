//! Watches: the recent past in memory, and everybody who follows it.

use crate::error::{Error, Result};
use crate::types::{Event, EventBatch, Revision, Watch, is_everything};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// How many changes are remembered.
const HISTORY: usize = 4_096;
/// How many bytes of keys and values are remembered.
const HISTORY_BYTES: usize = 32 * 1024 * 1024;
/// How far a watcher may fall behind.
const BACKLOG: usize = 8_192;

pub(super) struct Watches {
    state: Mutex<State>,
}

struct State {
    history: VecDeque<(EventBatch, usize)>,
    bytes: usize,
    /// The oldest revision after which a watch can start.
    oldest: Revision,
    watchers: Vec<Watcher>,
    ended: bool,
}

struct Watcher {
    prefix: String,
    sender: mpsc::Sender<Result<EventBatch>>,
}

impl Watches {
    pub(super) fn new(revision: Revision) -> Self {
        Self { state: Mutex::new(State { history: VecDeque::new(), bytes: 0, oldest: revision, watchers: Vec::new(), ended: false }) }
    }

    pub(super) fn start(&self, prefix: &str, after: Revision) -> Result<Watch> {
        let mut state = self.lock();
        if state.ended {
            return Err(super::closed());
        }
        if after < state.oldest {
            return Err(Error::Compacted { oldest: state.oldest.0 });
        }
        let past: Vec<EventBatch> = state.history.iter().filter(|(batch, _)| batch.revision > after).filter_map(|(batch, _)| under(batch, prefix)).collect();
        let (sender, receiver) = mpsc::channel(BACKLOG.max(past.len() + 1));
        for batch in past {
            // The queue was made large enough for all of them.
            let _ = sender.try_send(Ok(batch));
        }
        state.watchers.push(Watcher { prefix: prefix.to_owned(), sender });
        Ok(Watch::new(receiver))
    }

    /// Tells everybody of a change. Called by the writer, in the order of the revisions, after the commit.
    pub(super) fn publish(&self, batch: EventBatch) {
        let mut state = self.lock();
        let oldest = state.oldest.0;
        state.watchers.retain(|watcher| {
            let Some(batch) = under(&batch, &watcher.prefix) else { return !watcher.sender.is_closed() };
            // A watcher that cannot keep up must start over: it may not miss a change, and the writer may not wait for it. The last place of its queue is kept for telling it so.
            if watcher.sender.capacity() <= 1 {
                let _ = watcher.sender.try_send(Err(Error::Compacted { oldest }));
                return false;
            }
            watcher.sender.try_send(Ok(batch)).is_ok()
        });
        let size = batch.events.iter().map(size).sum();
        state.bytes += size;
        state.history.push_back((batch, size));
        while state.history.len() > HISTORY || state.bytes > HISTORY_BYTES {
            let Some((gone, size)) = state.history.pop_front() else { break };
            state.bytes -= size;
            state.oldest = gone.revision;
        }
    }

    /// Something may have happened that nobody was told of: all watches end with [`Error::Compacted`], and new ones start after `revision` at the earliest.
    pub(super) fn forget(&self, revision: Revision) {
        let mut state = self.lock();
        state.history.clear();
        state.bytes = 0;
        state.oldest = revision;
        for watcher in std::mem::take(&mut state.watchers) {
            let _ = watcher.sender.try_send(Err(Error::Compacted { oldest: revision.0 }));
        }
    }

    /// Ends all watches.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.watchers.clear();
    }

    // A panic while the lock is held cannot leave the state half changed in a way that matters, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn under(batch: &EventBatch, prefix: &str) -> Option<EventBatch> {
    let key = |event: &Event| match event {
        Event::Put(entry) => entry.key.starts_with(prefix),
        Event::Delete { key } => key.starts_with(prefix),
    };
    let events: Vec<Event> = batch.events.iter().filter(|event| key(event)).cloned().collect();
    (!events.is_empty() || is_everything(prefix)).then_some(EventBatch { revision: batch.revision, events })
}

fn size(event: &Event) -> usize {
    match event {
        Event::Put(entry) => entry.key.len() + entry.value.len(),
        Event::Delete { key } => key.len(),
    }
}
