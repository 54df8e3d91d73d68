//! Connections that have not shown yet who they are.
//!
//! They may be anybody's. So there is a bound on them that does not touch those who are inside, the oldest makes room for the newest (a good client is through in milliseconds), and of one address
//! there are only so many.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How many there may be.
const MOST: usize = 256;
/// How many there may be from one address.
const MOST_OF_ONE: usize = 64;
/// Handshakes cost signatures; more at a time would only wait for each other.
const TURNS: usize = 64;

/// The door.
pub struct Door {
    waiting: Arc<Mutex<Waiting>>,
    turns: Arc<Semaphore>,
}

/// A connection at the door, until it is dropped.
pub struct Guest {
    waiting: Arc<Mutex<Waiting>>,
    turns: Arc<Semaphore>,
    number: u64,
    out: CancellationToken,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    guests: VecDeque<(u64, IpAddr, CancellationToken)>,
}

impl Door {
    pub fn new() -> Self {
        Self { waiting: Arc::default(), turns: Arc::new(Semaphore::new(TURNS)) }
    }

    /// Lets a connection wait, in place of the oldest where there are too many.
    pub fn enter(&self, address: IpAddr) -> Guest {
        let mut waiting = lock(&self.waiting);
        let of_one = waiting.guests.iter().filter(|(_, other, _)| *other == address).count();
        let oldest =
            if of_one >= MOST_OF_ONE { waiting.guests.iter().position(|(_, other, _)| *other == address) } else { (waiting.guests.len() >= MOST).then_some(0) };
        if let Some((_, _, out)) = oldest.and_then(|at| waiting.guests.remove(at)) {
            out.cancel();
        }
        let (number, out) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        waiting.guests.push_back((number, address, out.clone()));
        Guest { waiting: Arc::clone(&self.waiting), turns: Arc::clone(&self.turns), number, out }
    }
}

impl Guest {
    /// Waits for a turn to shake hands.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// Waits until it has to make room for others.
    pub async fn shown_out(&self) {
        self.out.cancelled().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        lock(&self.waiting).guests.retain(|(number, ..)| *number != self.number);
    }
}

// A panic while the lock is held cannot leave the queue half changed, so a poisoned lock is as good as any.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let door = Door::new();
        let one: IpAddr = [127, 0, 0, 1].into();
        let mut guests: Vec<Guest> = (0..MOST_OF_ONE).map(|_| door.enter(one)).collect();
        guests.push(door.enter(one));
        assert!(guests[0].out.is_cancelled() && !guests[1].out.is_cancelled(), "one address shows its own oldest out");
        let others: Vec<Guest> = (0..MOST - MOST_OF_ONE).map(|n| door.enter([10, 0, 0, n as u8].into())).collect();
        assert!(!guests[1].out.is_cancelled());
        let _last = door.enter([10, 1, 0, 1].into());
        assert!(guests[1].out.is_cancelled() && !guests[2].out.is_cancelled(), "then the oldest of all");
        drop(guests);
        drop(others);
        assert_eq!(lock(&door.waiting).guests.len(), 1);
    }
}
