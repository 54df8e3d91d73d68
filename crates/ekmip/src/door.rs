//! Connections that have not shown yet who they are.
//!
//! They may be anybody's. So there is a bound on them that does not touch those who are inside, and of one address there are only so many. Where there are too many, the oldest that has had its time
//! makes room for the newest: a good client is through in milliseconds, and many good ones that come at once are not silent, only waiting for the processor.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How many there may be.
const MOST: usize = 1_024;
/// How many there may be from one address.
const MOST_OF_ONE: usize = 256;
/// What each is left, unless there are many more than that.
const TIME: Duration = Duration::from_secs(1);
/// How many more.
const MANY_MORE: usize = 4;

/// The door.
pub struct Door {
    waiting: Arc<Mutex<Waiting>>,
}

/// A connection at the door, until it is dropped.
pub struct Guest {
    waiting: Arc<Mutex<Waiting>>,
    number: u64,
    out: CancellationToken,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    guests: VecDeque<Entry>,
}

struct Entry {
    number: u64,
    address: IpAddr,
    since: Instant,
    out: CancellationToken,
}

impl Door {
    pub fn new() -> Self {
        Self { waiting: Arc::default() }
    }

    /// Lets a connection wait, in place of an older one where there are too many.
    pub fn enter(&self, address: IpAddr, now: Instant) -> Guest {
        let mut waiting = lock(&self.waiting);
        let of_one = waiting.guests.iter().filter(|guest| guest.address == address).count();
        // The oldest of the address, or of all, stands first.
        let of_address = (of_one >= MOST_OF_ONE).then(|| (of_one >= MANY_MORE * MOST_OF_ONE, waiting.guests.iter().position(|guest| guest.address == address)));
        let of_all = (waiting.guests.len() >= MOST).then_some((waiting.guests.len() >= MANY_MORE * MOST, Some(0)));
        if let Some((many_more, Some(oldest))) = of_address.or(of_all)
            && waiting.guests.get(oldest).is_some_and(|guest| many_more || now.saturating_duration_since(guest.since) >= TIME)
            && let Some(guest) = waiting.guests.remove(oldest)
        {
            guest.out.cancel();
        }
        let (number, out) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        waiting.guests.push_back(Entry { number, address, since: now, out: out.clone() });
        Guest { waiting: Arc::clone(&self.waiting), number, out }
    }
}

impl Guest {
    /// Waits until it has to make room for others.
    pub async fn shown_out(&self) {
        self.out.cancelled().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting);
        // Numbers ascend.
        if let Ok(at) = waiting.guests.binary_search_by_key(&self.number, |guest| guest.number) {
            waiting.guests.remove(at);
        }
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
    fn the_oldest_makes_room_when_it_has_had_its_time() {
        let (door, start) = (Door::new(), Instant::now());
        let (one, late) = (IpAddr::from([127, 0, 0, 1]), start + TIME);
        let mut guests: Vec<Guest> = (0..MOST_OF_ONE).map(|_| door.enter(one, start)).collect();
        guests.push(door.enter(one, start));
        assert!(!guests[0].out.is_cancelled(), "many that come at once are left their time");
        guests.push(door.enter(one, late));
        assert!(guests[0].out.is_cancelled() && !guests[1].out.is_cancelled(), "one address shows its own oldest out");
        let others: Vec<Guest> = (0..MOST - MOST_OF_ONE - 1).map(|n| door.enter([10, 0, (n / 256) as u8, n as u8].into(), late)).collect();
        assert!(!guests[1].out.is_cancelled());
        let _last = door.enter([10, 9, 0, 1].into(), late);
        assert!(guests[1].out.is_cancelled() && !guests[2].out.is_cancelled(), "then the oldest of all");
        drop((guests, others));
        assert_eq!(lock(&door.waiting).guests.len(), 1);
    }

    #[test]
    fn there_is_an_end_to_patience() {
        let (door, start) = (Door::new(), Instant::now());
        let guests: Vec<Guest> = (0..=MANY_MORE * MOST_OF_ONE).map(|_| door.enter([127, 0, 0, 1].into(), start)).collect();
        assert!(guests[0].out.is_cancelled() && !guests[1].out.is_cancelled());
        assert_eq!(lock(&door.waiting).guests.len(), MANY_MORE * MOST_OF_ONE);
    }
}
