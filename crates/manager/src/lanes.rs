//! Turns for checks of passwords: a few at a time, and who has logged in before goes first.
//!
//! Checks are slow on purpose, so that guesses from many sources fill whatever queue there is. Those that are likely good do not stand in it: a source that this account has logged in from before,
//! then one that has made no mistake yet, and only then the others.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// How many may wait in each lane. More are told to come later, at once.
const WAITING: [usize; LANES] = [256, 256, 64];
const LANES: usize = 3;

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The account has logged in from there before.
    Known = 0,
    /// The source has not failed, and has no other check under way.
    Fresh = 1,
    /// All others.
    Others = 2,
}

/// The lanes.
pub struct Lanes {
    state: Mutex<State>,
}

struct State {
    free: usize,
    most: [usize; LANES],
    waiting: [VecDeque<oneshot::Sender<Turn>>; LANES],
}

/// A turn, until it is dropped.
pub struct Turn(Option<Arc<Lanes>>);

impl Lanes {
    /// Lanes to so many turns at a time.
    pub fn new(at_a_time: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { free: at_a_time, most: WAITING, waiting: Default::default() }) })
    }

    /// Waits for a turn. `None`: too many wait in this lane already.
    pub async fn enter(self: &Arc<Self>, lane: Lane) -> Option<Turn> {
        let called = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return Some(Turn(Some(Arc::clone(self))));
            }
            let index = lane as usize;
            let most = *state.most.get(index)?;
            let waiting = state.waiting.get_mut(index)?;
            waiting.retain(|one| !one.is_closed());
            if waiting.len() >= most {
                return None;
            }
            let (call, called) = oneshot::channel();
            waiting.push_back(call);
            called
        };
        called.await.ok()
    }

    /// Hands a turn on, to the first who still waits.
    fn release(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                let next = state.waiting.iter_mut().find_map(VecDeque::pop_front);
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn(Some(Arc::clone(self)))) {
                Ok(()) => return,
                // Nobody waits there any more. This loop hands the turn on, and not the turn itself.
                Err(mut turn) => turn.0 = None,
            }
        }
    }

    // A panic while the lock is held cannot leave the queues half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all turns away, for good: nobody is checked any more.
    #[cfg(test)]
    pub fn close(&self) {
        let mut state = self.lock();
        (state.free, state.most) = (0, [0; LANES]);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(lanes) = self.0.take() {
            lanes.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits(lanes: &Arc<Lanes>, lane: Lane, of: usize) -> usize {
        while lanes.lock().waiting[lane as usize].len() < of {
            tokio::task::yield_now().await;
        }
        of
    }

    #[tokio::test]
    async fn the_known_go_first_and_who_has_left_is_passed_over() {
        let lanes = Lanes::new(1);
        let first = lanes.enter(Lane::Others).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for lane in [Lane::Others, Lane::Fresh, Lane::Known] {
            let (order, entering) = (Arc::clone(&order), Arc::clone(&lanes));
            tasks.push(tokio::spawn(async move {
                let turn = entering.enter(lane).await;
                order.lock().unwrap().push(lane);
                drop(turn);
            }));
            waits(&lanes, lane, 1).await;
        }
        let entering = Arc::clone(&lanes);
        let left = tokio::spawn(async move { entering.enter(Lane::Known).await.is_some() });
        waits(&lanes, Lane::Known, 2).await;
        left.abort();
        let _ = left.await;
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [Lane::Known, Lane::Fresh, Lane::Others]);
        assert_eq!(lanes.lock().free, 1);
    }

    #[tokio::test]
    async fn a_lane_that_is_full_leaves_the_others_open() {
        let lanes = Lanes::new(1);
        let turn = lanes.enter(Lane::Known).await.unwrap();
        let crowd: Vec<_> = (0..WAITING[2])
            .map(|_| {
                let entering = Arc::clone(&lanes);
                tokio::spawn(async move { entering.enter(Lane::Others).await.is_some() })
            })
            .collect();
        waits(&lanes, Lane::Others, WAITING[2]).await;
        assert!(lanes.enter(Lane::Others).await.is_none());
        let entering = Arc::clone(&lanes);
        let good = tokio::spawn(async move { entering.enter(Lane::Fresh).await.is_some() });
        waits(&lanes, Lane::Fresh, 1).await;
        drop(turn);
        assert!(good.await.unwrap());
        for one in crowd {
            assert!(one.await.unwrap());
        }
    }
}
