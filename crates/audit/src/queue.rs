//! What waits to be written, and who waits for it.

use crate::record::Record;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How many records wait at the most that nobody waits for.
const MOST_KEPT: usize = 10_000;
/// How many entries are written together.
const TOGETHER: usize = 2_000;

/// Why something was not recorded: the disk's own words.
pub type Why = String;
/// Tells how a write, or a sync, went.
pub type Tell = oneshot::Sender<Result<(), Why>>;

/// Records that are written together or not at all.
#[derive(Debug)]
pub struct Entry {
    /// The records.
    pub records: Vec<Record>,
    /// Whether they wait for a better time where the disk takes nothing. Else they are refused then, and what they would have said does not happen.
    pub kept: bool,
    /// Who waits for them to be written: they survive the process.
    pub written: Option<Tell>,
    /// Who waits for them to be synced: they survive the machine.
    pub synced: Option<Tell>,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    /// How many records of them are kept.
    kept: usize,
    sums: bool,
    stop: bool,
}

/// What the writer has to do.
#[derive(Debug, Default)]
pub struct Work {
    /// To be written, in this order.
    pub entries: Vec<Entry>,
    /// Whether the sums are to be written.
    pub sums: bool,
    /// Whether there will be no more entries.
    pub stopping: bool,
    /// Whether it is the last work.
    pub stop: bool,
}

impl Queue {
    /// Adds an entry. `false`: there are too many that nobody waits for.
    pub fn push(&self, entry: Entry) -> bool {
        let mut state = self.lock();
        if state.stop {
            return false;
        }
        if entry.kept {
            if state.kept + entry.records.len() > MOST_KEPT {
                return false;
            }
            state.kept += entry.records.len();
        }
        state.entries.push_back(entry);
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Puts back what could not be written and is kept. Answers how many records had no room.
    pub fn put_back(&self, entries: Vec<Entry>) -> usize {
        let mut state = self.lock();
        let mut lost = 0;
        for entry in entries.into_iter().rev() {
            if state.kept + entry.records.len() > MOST_KEPT {
                lost += entry.records.len();
                continue;
            }
            state.kept += entry.records.len();
            state.entries.push_front(entry);
        }
        lost
    }

    /// How many records wait.
    pub fn waiting(&self) -> usize {
        self.lock().entries.iter().map(|entry| entry.records.len()).sum()
    }

    /// Has the sums written.
    pub fn want_sums(&self) {
        self.lock().sums = true;
        self.wake.notify_one();
    }

    /// Has all written, and nothing after it.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    /// Waits for work; with a `pause`, no longer than that, and no entries that were put back wake it before.
    pub fn next(&self, pause: Option<Duration>) -> Work {
        // Taken once: being woken for nothing does not make the pause longer.
        let until = pause.map(|pause| Instant::now() + pause);
        let mut state = self.lock();
        let fresh = |state: &State| {
            state.stop || if pause.is_some() { state.entries.iter().any(|entry| entry.written.is_some()) } else { !state.entries.is_empty() || state.sums }
        };
        while !fresh(&state) {
            state = match until {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    let (state, waited) = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
                    if waited.timed_out() {
                        return Self::take(state);
                    }
                    state
                }
            };
        }
        Self::take(state)
    }

    /// Takes what there is still, for those who cannot write it.
    pub fn drain(&self) -> Vec<Entry> {
        let mut state = self.lock();
        state.kept = 0;
        state.entries.drain(..).collect()
    }

    fn take(mut state: MutexGuard<'_, State>) -> Work {
        let count = state.entries.len().min(TOGETHER);
        let entries: Vec<Entry> = state.entries.drain(..count).collect();
        state.kept = state.kept.saturating_sub(entries.iter().filter(|entry| entry.kept).map(|entry| entry.records.len()).sum());
        let sums = std::mem::take(&mut state.sums) || state.stop;
        Work { entries, sums, stopping: state.stop, stop: state.stop && state.entries.is_empty() }
    }

    // A panic while the lock is held cannot leave the state half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Application, State as Outcome};

    fn entry(count: usize, kept: bool) -> Entry {
        let record = Record::new(Application::Http, Outcome::Success, "x");
        Entry { records: vec![record; count], kept, written: None, synced: None }
    }

    #[test]
    fn what_nobody_waits_for_is_bounded_and_keeps_its_order() {
        let queue = Queue::default();
        assert!(queue.push(entry(1, true)) && queue.push(entry(MOST_KEPT - 2, true)) && !queue.push(entry(2, true)));
        assert!(queue.push(entry(1, false)), "who waits finds room");
        let work = queue.next(None);
        assert_eq!(work.entries.iter().map(|entry| entry.records.len()).collect::<Vec<_>>(), [1, MOST_KEPT - 2, 1]);
        assert!(queue.push(entry(2, true)), "what was taken makes room");
        let kept = work.entries.into_iter().filter(|entry| entry.kept).collect();
        assert_eq!(queue.put_back(kept), 1, "the oldest goes");
        queue.stop();
        let work = queue.next(None);
        assert!(work.stop && work.sums && !queue.push(entry(1, true)));
        assert_eq!(work.entries.iter().map(|entry| entry.records.len()).collect::<Vec<_>>(), [MOST_KEPT - 2, 2]);
    }

    #[test]
    fn a_pause_ends_however_often_it_is_woken() {
        let queue = std::sync::Arc::new(Queue::default());
        let waiting = std::sync::Arc::clone(&queue);
        let (done, told) = std::sync::mpsc::channel();
        let start = Instant::now();
        let thread = std::thread::spawn(move || {
            waiting.next(Some(Duration::from_millis(200)));
            done.send(()).unwrap();
        });
        while told.recv_timeout(Duration::from_millis(50)).is_err() && start.elapsed() < Duration::from_secs(5) {
            queue.want_sums();
        }
        thread.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}
