//! Which nodes are there, and how far this one's view is behind.
//!
//! A node is `up` while its presence record is there, which lives under a lease of ten seconds and goes with it. When it went, and when it came, stands in a record that outlives both; whichever
//! node sees first that another is gone writes it.
//!
//! Every second the node asks the store what its last change was, and waits until the view shows that: at that moment the view was as the store, and from then on it ages. What limits a node that is cut
//! off (`max_view_age`) goes by that age.

use crate::inner::Inner;
use crate::model::NodeState;
use crate::records::{NodeRecord, NodeStandingRecord, PresenceRecord, Record, Stored, key};
use crate::{Error, Result};
use keystead_store::{Compare, Error as StoreError, LeaseId, Revision, Txn};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a node that has died counts as there.
const TTL: Duration = Duration::from_secs(10);
/// How often it says that it is.
const RENEW: Duration = Duration::from_secs(3);
/// How often the view is compared with the store.
const COMPARE: Duration = Duration::from_secs(1);
/// How long a start waits for the store.
const FIRST: Duration = Duration::from_secs(5);

const NO_LIMIT: u64 = u64::MAX;

/// What this node knows of its own presence.
pub(crate) struct Presence {
    node: NodeRecord,
    /// `max_view_age` in milliseconds, looked at for every key that is handed out; [`NO_LIMIT`] where there is none.
    limit: AtomicU64,
    state: Mutex<State>,
}

struct State {
    lease: Option<LeaseId>,
    /// The last moment at which the view showed all that the store had.
    current_at: Instant,
}

impl Presence {
    /// A node that has just read the store, and is not announced yet.
    pub fn new(node: NodeRecord) -> Self {
        Self { node, limit: AtomicU64::new(NO_LIMIT), state: Mutex::new(State { lease: None, current_at: Instant::now() }) }
    }

    /// The version of this node's program.
    pub fn version(&self) -> &str {
        &self.node.version
    }

    /// How old the view may be: the time since it was as the store.
    pub fn view_age(&self) -> Duration {
        self.lock().current_at.elapsed()
    }

    /// From now on, a view that is older is too old.
    pub fn limit_view_age(&self, limit: Option<Duration>) {
        let limit = limit.map_or(NO_LIMIT, |limit| u64::try_from(limit.as_millis()).unwrap_or(NO_LIMIT));
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The age of the view, where that is over the limit.
    pub fn view_is_too_old(&self) -> Option<Duration> {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == NO_LIMIT {
            return None;
        }
        Some(self.view_age()).filter(|age| *age > Duration::from_millis(limit))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Announces this node for the first time. A start does not wait for a store that is away, or whose disk is full: the node is announced when that is over.
///
/// # Errors
/// The store is damaged.
pub(crate) async fn enter(inner: &Inner) -> Result<()> {
    let why = match tokio::time::timeout(FIRST, announce(inner)).await {
        Ok(Ok(revision)) => {
            // What was read at the start may be old, where it came from this machine's copy.
            inner.view.reached(revision).await;
            return Ok(());
        }
        Ok(Err(error @ (StoreError::Unavailable(_) | StoreError::Indeterminate(_) | StoreError::Refused(_) | StoreError::LeaseGone))) => error.to_string(),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => format!("no answer within {} s", FIRST.as_secs()),
    };
    tracing::warn!(why, "this node starts without the store, from what it knew; it says that it is there when the store takes that");
    Ok(())
}

/// Keeps this node's presence, notices who is gone, and compares the view with the store, until it is stopped; then says that the node leaves.
pub(crate) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = renew(&inner) => {}
        () = notice(&inner) => {}
        () = compare(&inner) => {}
    }
    leave(&inner).await;
}

/// The state of a node, and since when it is in it.
pub(crate) fn standing(inner: &Inner, node: &NodeRecord) -> (NodeState, jiff::Timestamp) {
    let state = if inner.view.contains(&key::<PresenceRecord>(node.uuid)) { NodeState::Up } else { NodeState::Down };
    let written = inner.view.shared::<NodeStandingRecord>(node.uuid).ok().flatten().filter(|written| written.record.state == state);
    // Between the end of its lease and the record of that, it has gone at this moment.
    let unwritten = || if state == NodeState::Up { node.started } else { inner.clock.utc() };
    (state, written.map_or_else(unwritten, |written| written.record.since))
}

/// The nodes that are down, with since when, in words; `None` where all are up.
pub(crate) fn absent(inner: &Inner) -> Option<String> {
    let nodes = inner.view.shared_all::<NodeRecord>();
    let down: Vec<String> = nodes
        .iter()
        .map(|node| (&node.record.name, standing(inner, &node.record)))
        .filter(|(_, (state, _))| *state == NodeState::Down)
        .map(|(name, (_, since))| format!("node {name} is down since {since:.0}"))
        .collect();
    (!down.is_empty()).then(|| down.join(", "))
}

/// The other nodes that are up.
pub(crate) fn others(inner: &Inner) -> HashSet<Uuid> {
    let nodes = inner.view.shared_all::<NodeRecord>();
    let is_there = |uuid: &Uuid| *uuid != inner.node.uuid && inner.view.contains(&key::<PresenceRecord>(*uuid));
    nodes.iter().map(|node| node.record.uuid).filter(is_there).collect()
}

async fn renew(inner: &Inner) {
    let mut due = tokio::time::interval(RENEW);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let lease = inner.presence.lock().lease;
        let renewed = match lease {
            Some(lease) => inner.store.renew_lease(lease).await,
            None => Err(StoreError::LeaseGone),
        };
        match renewed {
            Ok(()) => {}
            // The store was away, or this process was held up, for longer than the lease lasts.
            Err(StoreError::LeaseGone) => {
                inner.presence.lock().lease = None;
                match announce(inner).await {
                    Ok(_) => tracing::info!("this node is announced again: for more than {} s it could not say that it is there", TTL.as_secs()),
                    Err(error) => tracing::warn!(%error, "this node cannot say that it is there; it is tried again"),
                }
            }
            Err(error) => tracing::warn!(%error, "this node cannot say that it is there; it is tried again"),
        }
    }
}

/// Writes that nodes are down whose presence has gone.
async fn notice(inner: &Inner) {
    let mut changes = inner.view.changes();
    loop {
        for node in gone(inner) {
            if let Err(error) = write_down(inner, &node).await {
                tracing::debug!(%error, node = %node.key, "it could not be written that a node is down");
            }
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// The standings that say that a node is up whose presence is not there.
fn gone(inner: &Inner) -> Vec<Stored<NodeStandingRecord>> {
    let standings = inner.view.shared_all::<NodeStandingRecord>();
    let is_there = |uuid: &str| inner.view.contains(&key::<PresenceRecord>(uuid));
    let id = |standing: &Stored<NodeStandingRecord>| standing.key.strip_prefix(NodeStandingRecord::PREFIX).unwrap_or_default().to_owned();
    standings.iter().filter(|standing| standing.record.state == NodeState::Up && !is_there(&id(standing))).map(|standing| Stored::clone(standing)).collect()
}

async fn write_down(inner: &Inner, standing: &Stored<NodeStandingRecord>) -> keystead_store::Result<()> {
    let uuid = standing.key.strip_prefix(NodeStandingRecord::PREFIX).unwrap_or_default();
    let record = NodeStandingRecord { state: NodeState::Down, since: inner.clock.utc() };
    let Ok(value) = record.encode() else { return Ok(()) };
    let txn = Txn::new()
        .when(Compare::Unchanged(standing.key.clone(), standing.revision))
        .when(Compare::Absent(key::<PresenceRecord>(uuid)))
        .put(standing.key.clone(), value);
    match inner.store.transact(txn).await {
        Ok(_) => {
            let name = uuid.parse::<Uuid>().ok().and_then(|uuid| inner.view.shared::<NodeRecord>(uuid).ok().flatten()).map(|node| node.record.name.clone());
            tracing::warn!(node = name.as_deref().unwrap_or(uuid), "the node is down");
            Ok(())
        }
        // Another node has written it, or it is there again.
        Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn compare(inner: &Inner) {
    let mut due = tokio::time::interval(COMPARE);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let asked = Instant::now();
        if let Ok(revision) = inner.store.transact(Txn::new()).await
            && inner.view.shows(revision).await
        {
            inner.presence.lock().current_at = asked;
        }
    }
}

/// Writes this node's record, and that it is there.
async fn announce(inner: &Inner) -> keystead_store::Result<Revision> {
    let lease = inner.store.grant_lease(TTL).await?;
    let (node, since) = (&inner.presence.node, inner.clock.utc());
    let txn = Txn::new()
        .put(key::<NodeRecord>(node.uuid), bytes(node)?)
        .put_leased(key::<PresenceRecord>(node.uuid), bytes(&PresenceRecord { since })?, lease)
        .put(key::<NodeStandingRecord>(node.uuid), bytes(&NodeStandingRecord { state: NodeState::Up, since })?);
    let revision = inner.store.transact(txn).await?;
    inner.presence.lock().lease = Some(lease);
    Ok(revision)
}

fn bytes(record: &impl Record) -> keystead_store::Result<Vec<u8>> {
    record.encode().map_err(|error| StoreError::Refused(error.for_operator()))
}

/// A node that is stopped is down at once. Where the store does not take that, the others see it when the lease is over.
async fn leave(inner: &Inner) {
    let uuid = inner.node.uuid;
    let record = NodeStandingRecord { state: NodeState::Down, since: inner.clock.utc() };
    let left = async {
        let txn = Txn::new().put(key::<NodeStandingRecord>(uuid), record.encode()?).delete(key::<PresenceRecord>(uuid));
        inner.store.transact(txn).await.map_err(Error::from)
    };
    if let Err(error) = left.await {
        tracing::debug!(detail = error.detail.as_deref(), "it could not be written that this node stops");
    }
}
