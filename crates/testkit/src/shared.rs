//! What the server's connections, the control interface and the handle share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::account::Account;
use crate::calls::Call;
use crate::fault::FaultRules;

/// The longest a call is held: a test that forgets the release fails instead of hanging.
pub const HOLD_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(crate) struct State {
    pub account: Account,
    pub rules: FaultRules,
    pub calls: Vec<Call>,
    /// Calls seen since the start; forgetting the record does not reset it.
    pub call_count: u64,
    /// How far AWS's clock is ahead of the machine's.
    pub skew: SignedDuration,
    pub connections: u64,
    pub handshake_failures: u64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Counts releases; a held call waits for it to change.
    releases: watch::Sender<u64>,
    held: watch::Sender<usize>,
}

impl Shared {
    pub fn new(account: Account) -> Arc<Self> {
        let state = State {
            account,
            rules: FaultRules::default(),
            calls: Vec::new(),
            call_count: 0,
            skew: SignedDuration::ZERO,
            connections: 0,
            handshake_failures: 0,
        };
        Arc::new(Self { state: Mutex::new(state), releases: watch::Sender::new(0), held: watch::Sender::new(0) })
    }

    /// The state. Never hold it across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ticket for [`Self::hold`]. Take it under the lock of [`Self::state`] under which the rule struck, so that no release falls between the two.
    pub fn ticket(&self) -> watch::Receiver<u64> {
        self.releases.subscribe()
    }

    /// Waits for a release after the ticket was taken; false when [`HOLD_LIMIT`] was over first.
    pub async fn hold(&self, mut ticket: watch::Receiver<u64>) -> bool {
        let _counted = Held::enter(&self.held);
        matches!(timeout(HOLD_LIMIT, ticket.changed()).await, Ok(Ok(())))
    }

    /// Opens the gates: removes the rules that hold calls and lets the held ones go. Returns how many were held.
    pub fn release(&self) -> usize {
        let mut state = self.state();
        state.rules.open_gates();
        self.releases.send_modify(|n| *n += 1);
        *self.held.borrow()
    }

    /// Waits until at least `count` calls are held, at most `limit`; the number held then.
    pub async fn wait_held(&self, count: usize, limit: Duration) -> usize {
        let mut held = self.held.subscribe();
        let reached = timeout(limit, held.wait_for(|n| *n >= count)).await.ok().and_then(|r| r.ok().map(|n| *n));
        reached.unwrap_or_else(|| *self.held.borrow())
    }

    /// Notes the outcome of call `number`, if its record was not forgotten meanwhile.
    pub fn conclude(&self, number: u64, outcome: &str) {
        if let Some(call) = self.state().calls.iter_mut().rev().find(|c| c.number == number) {
            call.outcome = Some(outcome.into());
        }
    }
}

/// Counts a held call while it lives, so that a client that goes away is not counted on.
struct Held<'a>(&'a watch::Sender<usize>);

impl<'a> Held<'a> {
    fn enter(held: &'a watch::Sender<usize>) -> Self {
        held.send_modify(|n| *n += 1);
        Self(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}
