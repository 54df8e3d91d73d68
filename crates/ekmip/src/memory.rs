//! A bound on what all messages together may take, and on how much of it one client may take.
//!
//! Small messages and small answers cost nothing here. What is larger takes a part of two pools: one for bytes that are still arriving, which a slow client may hold for a while, and one for
//! messages that are worked on and answers that are being sent. Of each, one certificate can hold a quarter at most, so that no client can keep the others waiting.

use crate::session::at_once;
use keystead_kmip::enumeration::ResultReason;
use keystead_kmip::{Failure, Result};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// What each message, and each answer, may use without asking, in bytes.
pub const OWN: usize = 4 * 1024;
/// What a message takes while it is worked on, as a multiple of its length: its items as a tree, what is made of them, and the record that goes to the store.
const WORK: usize = 8;
/// Bytes that are arriving, of all clients, in KiB.
const ARRIVING: usize = 8 * 1024;
/// Messages that are worked on and answers, of all clients, in KiB.
const WORKING: usize = 32 * 1024;
/// The part of one client.
const SHARE: usize = 4;
/// How long an answer waits for room.
const PATIENCE: Duration = Duration::from_secs(10);

/// The room that is left for all clients.
#[derive(Clone)]
pub struct Memory {
    arriving: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

/// The room that is left for one client, with all of its connections.
pub struct Share {
    arriving: Pool,
    working: Pool,
}

/// Room that is held until it is dropped.
pub struct Room {
    share: Arc<Share>,
    kind: Kind,
    kib: usize,
    /// What came without asking, in bytes.
    own: usize,
    held: Vec<[OwnedSemaphorePermit; 2]>,
    /// Until when the parts of the answer wait for room, once one of them has had to: all of them together, since they hold what others wait for.
    until: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Kind {
    Arriving,
    Working,
}

struct Pool {
    all: Arc<Semaphore>,
    share: Arc<Semaphore>,
    most: usize,
}

impl Memory {
    pub fn new() -> Self {
        Self { arriving: Arc::new(Semaphore::new(ARRIVING)), working: Arc::new(Semaphore::new(WORKING)) }
    }

    /// A share for a client that has none yet.
    pub fn share(&self) -> Arc<Share> {
        let pool = |all: &Arc<Semaphore>, size: usize| Pool { all: Arc::clone(all), share: Arc::new(Semaphore::new(size / SHARE)), most: size / SHARE };
        Arc::new(Share { arriving: pool(&self.arriving, ARRIVING), working: pool(&self.working, WORKING) })
    }
}

impl Share {
    fn pool(&self, kind: Kind) -> &Pool {
        match kind {
            Kind::Arriving => &self.arriving,
            Kind::Working => &self.working,
        }
    }
}

impl Room {
    /// Waits for room for a message of that many bytes that is still to come. The caller limits the time.
    pub async fn arriving(share: &Arc<Share>, bytes: usize) -> Self {
        let mut room = Self::new(share, Kind::Arriving);
        room.take(bytes).await;
        room
    }

    /// Waits for room for the work on a message that is there. The caller limits the time.
    pub async fn working(share: &Arc<Share>, bytes: usize) -> Self {
        let mut room = Self::new(share, Kind::Working);
        // A small message has a small tree, of as many messages as there are connections.
        if bytes > OWN {
            room.take(bytes.saturating_mul(WORK)).await;
        }
        room
    }

    fn new(share: &Arc<Share>, kind: Kind) -> Self {
        Self { share: Arc::clone(share), kind, kib: 0, own: OWN, held: Vec::new(), until: None }
    }

    /// Room for so many bytes of an answer.
    ///
    /// # Errors
    /// Response Too Large for what one client can never have; General Failure where there is none for a while.
    pub async fn reserve(&mut self, bytes: usize) -> Result<()> {
        let kib = bytes.saturating_sub(self.own).div_ceil(1024);
        if kib > 0 && self.kib + kib > self.share.pool(self.kind).most {
            let text = "the answer is too large; ask for fewer objects at a time (Maximum Items and Offset of Locate, smaller batches)";
            return Err(Failure::new(ResultReason::ResponseTooLarge, text));
        }
        if at_once(pin!(self.take(bytes))).await.is_some() {
            return Ok(());
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + PATIENCE);
        timeout_at(until, self.take(bytes))
            .await
            .map_err(|_| Failure::new(ResultReason::GeneralFailure, "the server has no room for the answer now; try again"))
    }

    /// Takes what can be had at most, so that a message of the largest size is served too.
    async fn take(&mut self, bytes: usize) {
        let pool = self.share.pool(self.kind);
        let kib = bytes.saturating_sub(self.own).div_ceil(1024).min(pool.most - self.kib);
        let own = self.own.saturating_sub(bytes);
        let Some(permits) = u32::try_from(kib).ok().filter(|permits| *permits > 0) else {
            self.own = own;
            return;
        };
        // The client's share first: who has used it up waits for itself, and not among the others. The semaphores are never closed.
        if let Ok(share) = Arc::clone(&pool.share).acquire_many_owned(permits).await
            && let Ok(all) = Arc::clone(&pool.all).acquire_many_owned(permits).await
        {
            // All or nothing: it may be given up before.
            self.own = own;
            self.kib += kib;
            self.held.push([share, all]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn one_client_has_a_quarter_and_small_things_are_free() {
        let memory = Memory::new();
        let (a, b) = (memory.share(), memory.share());
        let mut held = Vec::new();
        for _ in 0..1_000 {
            held.push(Room::arriving(&a, OWN).await);
        }
        let quarter = ARRIVING * 1024 / SHARE;
        let whole = Room::arriving(&a, quarter + OWN).await;
        assert!(timeout(Duration::from_millis(20), Room::arriving(&a, OWN + 1)).await.is_err(), "its share is used up");
        assert_eq!(Room::arriving(&b, quarter).await.kib, quarter / 1024 - OWN / 1024, "others have theirs");
        drop(whole);
        assert_eq!(Room::arriving(&a, usize::MAX).await.kib, quarter / 1024, "more than there is: all of it");
    }

    /// Two answers that have each half of what there is for a client, and want more: each part of them waits for the other.
    #[tokio::test(start_paused = true)]
    async fn answers_that_wait_for_each_other_wait_once() {
        let memory = Memory::new();
        let share = memory.share();
        let half = WORKING * 1024 / SHARE / 2;
        let (mut one, mut other) = (Room::working(&share, 0).await, Room::working(&share, 0).await);
        one.reserve(half + OWN).await.unwrap();
        other.reserve(half + OWN).await.unwrap();
        let begun = Instant::now();
        let rest = async |room: &mut Room| {
            for _ in 0..5 {
                assert_eq!(room.reserve(64 * 1024).await.unwrap_err().reason, ResultReason::GeneralFailure);
            }
        };
        tokio::join!(rest(&mut one), rest(&mut other));
        assert!(begun.elapsed() < PATIENCE * 2, "{:?}", begun.elapsed());
        drop(other);
        one.reserve(64 * 1024).await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_grows_until_its_client_has_no_more() {
        let memory = Memory::new();
        let share = memory.share();
        let mut room = Room::working(&share, 100).await;
        let quarter = WORKING * 1024 / SHARE;
        room.reserve(OWN).await.unwrap();
        assert_eq!(room.kib, 0);
        room.reserve(quarter / 2).await.unwrap();
        assert_eq!(room.reserve(quarter / 2 + 1).await.unwrap_err().reason, ResultReason::ResponseTooLarge);
        room.reserve(quarter / 2).await.unwrap();
        assert_eq!(room.kib, quarter / 1024);
        drop(room);
        assert_eq!(Room::working(&share, quarter).await.kib, quarter / 1024);
    }
}
