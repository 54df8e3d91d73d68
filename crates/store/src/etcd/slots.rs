//! Slots: how it is found out whether a transaction happened whose answer did not come.
//!
//! Every transaction that writes also writes a slot: a key of this process, with the transaction's number as its value, on the condition that the slot is as this process left it. One transaction
//! has a slot at a time. So, when no answer came, the same transaction can be sent again: where it did happen, its slot is no more as it was, and says which transaction that was and at which
//! revision; where it did not, it happens now, once. And who must be sure that it never happens writes the slot: after that, the condition of a straggler fails.
//!
//! Slots live under a lease of ten minutes, which is renewed while they are used: those of a process that is gone go by themselves.

use super::Names;
use super::members::{CALL, Members};
use crate::error::{Error, Result};
use crate::types::LeaseId;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How many transactions may be on their way at a time; more wait.
const SLOTS: usize = 256;
/// How long slots outlive the last use. Longer than anybody waits for a transaction, by far.
pub(super) const OWNER_TTL: Duration = Duration::from_secs(600);

pub(super) struct Slots {
    members: Arc<Members>,
    names: Names,
    permits: Arc<Semaphore>,
    free: Mutex<Vec<State>>,
    next_slot: AtomicUsize,
    next_transaction: AtomicU64,
    owner: tokio::sync::Mutex<Option<Owner>>,
}

#[derive(Clone, Copy)]
struct Owner {
    lease: LeaseId,
    renewed: Instant,
}

#[derive(Clone, Copy)]
struct State {
    number: usize,
    owner: LeaseId,
    known: i64,
}

/// A slot that one transaction has for itself.
pub(super) struct Slot {
    state: State,
    /// The slot's key.
    pub(super) name: String,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    /// The revision that the slot was last written at; 0 where it was not yet.
    pub(super) fn known(&self) -> i64 {
        self.state.known
    }

    /// The lease that the slot lives under.
    pub(super) fn owner(&self) -> LeaseId {
        self.state.owner
    }

    pub(super) fn set_known(&mut self, revision: i64) {
        self.state.known = revision;
    }
}

impl Slots {
    pub(super) fn new(members: Arc<Members>, names: Names) -> Self {
        Self {
            members,
            names,
            permits: Arc::new(Semaphore::new(SLOTS)),
            free: Mutex::default(),
            next_slot: AtomicUsize::new(0),
            next_transaction: AtomicU64::new(1),
            owner: tokio::sync::Mutex::new(None),
        }
    }

    /// A number that no other transaction of this process has.
    pub(super) fn number(&self) -> u64 {
        self.next_transaction.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a free slot, and waits for one.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: none became free, or etcd does not answer.
    pub(super) async fn take(&self) -> Result<Slot> {
        let taking = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Error::Unavailable("the store is closed".to_owned()))?;
            let owner = self.owner(None).await?;
            let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut state = free.unwrap_or_else(|| State { number: self.next_slot.fetch_add(1, Ordering::Relaxed), owner, known: 0 });
            if state.owner != owner {
                state = State { number: state.number, owner, known: 0 };
            }
            Ok(Slot { state, name: self.names.slot(super::number(owner.0), state.number), _permit: permit })
        };
        tokio::time::timeout(CALL, taking).await.unwrap_or_else(|_| {
            Err(Error::Unavailable(format!("{SLOTS} transactions are on their way, and etcd has answered none of them within {} s", CALL.as_secs())))
        })
    }

    /// Gives a slot back whose state is known.
    pub(super) fn give_back(&self, slot: Slot) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(slot.state);
    }

    /// Whether the lease of slots is there still.
    pub(super) async fn is_alive(&self, owner: LeaseId) -> Result<bool> {
        match self.members.keep_alive(owner).await {
            Ok(()) => Ok(true),
            Err(Error::LeaseGone) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a slot new, under another lease than the one that is gone.
    pub(super) async fn renew(&self, slot: &mut Slot) -> Result<()> {
        let owner = self.owner(Some(slot.state.owner)).await?;
        slot.state = State { number: slot.state.number, owner, known: 0 };
        slot.name = self.names.slot(super::number(owner.0), slot.state.number);
        Ok(())
    }

    /// The lease that slots live under, which is not `gone`; granted where there is none, renewed where a third of its time is over.
    async fn owner(&self, gone: Option<LeaseId>) -> Result<LeaseId> {
        let mut owner = self.owner.lock().await;
        if let Some(mut living) = owner.filter(|owner| Some(owner.lease) != gone) {
            if living.renewed.elapsed() < OWNER_TTL / 3 {
                return Ok(living.lease);
            }
            let now = Instant::now();
            if self.is_alive(living.lease).await? {
                living.renewed = now;
                *owner = Some(living);
                return Ok(living.lease);
            }
        }
        let renewed = Instant::now();
        let lease = self.members.grant(OWNER_TTL).await?;
        *owner = Some(Owner { lease, renewed });
        Ok(lease)
    }
}
