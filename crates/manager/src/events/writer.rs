//! Brings events from the queue into the store, and deletes old ones.

use super::catalogue::EVENTS_LOST;
use super::record::{EventRecord, HeadRecord, events_prefix, index_of};
use crate::inner::Inner;
use crate::records::{NodeRecord, Stored, key};
use crate::{Error, Result};
use jiff::SignedDuration;
use keystead_store::{Compare, Error as StoreError, Range, Txn};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many events of a node are kept: its newest.
pub(crate) const KEPT: usize = 10_000;
/// How long an event is kept.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How many old events are deleted at a time. After as many new ones they are looked for; until then there are so many more.
const SWEEP: usize = 100;
/// How often old events are looked for where no new ones come.
const SWEEP_PERIOD: Duration = Duration::from_secs(60 * 60);
/// The pause before the store is tried again after it failed.
const RETRY: Duration = Duration::from_millis(500);
/// How long a stop waits for the last events to be written.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// Writes until it is told to stop, and then once more.
pub(crate) async fn run(manager: Arc<Inner>, stop: CancellationToken) {
    let mut sweeps = Sweeps { at: manager.clock.monotonic(), after: manager.events.last() };
    let mut fails = false;
    loop {
        let outcome = tokio::select! {
            // What is cut off here may have happened or not; writing it again does no harm.
            () = stop.cancelled() => break,
            outcome = work(&manager, &mut sweeps) => outcome,
        };
        match &outcome {
            Err(error) if !fails => tracing::warn!(detail = error.detail.as_deref(), error = error.message, "the store takes no events; they wait"),
            Ok(()) if fails => tracing::info!("the store takes events again"),
            _ => {}
        }
        fails = outcome.is_err();
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(RETRY), if fails => {}
            () = manager.events.wake.notified(), if !fails => {}
            () = manager.clock.sleep_until(sweeps.at), if !fails => {}
        }
    }
    if !matches!(tokio::time::timeout(LAST_FLUSH, flush(&manager)).await, Ok(Ok(()))) {
        let events = manager.events.waiting().len();
        tracing::warn!(events, "events were not written before the stop; they stand in the log alone");
    }
}

/// When old events are looked for next: at a time, or after an index.
struct Sweeps {
    at: Duration,
    after: u64,
}

async fn work(manager: &Inner, sweeps: &mut Sweeps) -> Result<()> {
    flush(manager).await?;
    let (now, last) = (manager.clock.monotonic(), manager.events.last());
    if now >= sweeps.at || last >= sweeps.after {
        manager.events.retain(|svm| !matches!(manager.key_store(svm), Ok(None)));
        sweep(manager, manager.node.uuid, last).await?;
        sweep_gone(manager).await?;
        *sweeps = Sweeps { at: now + SWEEP_PERIOD, after: last.saturating_add(SWEEP as u64) };
    }
    Ok(())
}

async fn flush(manager: &Inner) -> Result<()> {
    while let Some(batch) = manager.events.batch()? {
        manager.store.transact(batch.txn.clone()).await.map_err(Error::from)?;
        let lost = manager.events.written(&batch);
        if lost > 0 {
            let reason = format!("the store took none for too long; {lost} were let go");
            manager.raise(&EVENTS_LOST, None, vec![("count", lost.to_string()), ("reason", reason)]);
        }
    }
    Ok(())
}

/// Deletes what is too old of nodes that the cluster has no more: else nobody would.
async fn sweep_gone(manager: &Inner) -> Result<()> {
    for node in super::nodes_with_events(manager).await? {
        if manager.view.contains(&key::<NodeRecord>(node)) || node == manager.node.uuid {
            continue;
        }
        sweep(manager, node, 0).await?;
        // Without events there is nothing that it would go on with, should it come back.
        let head = key::<HeadRecord>(node);
        let Some(entry) = manager.store.get(&head).await.map_err(Error::from)? else { continue };
        let txn = Txn::new().when(Compare::EmptyPrefix(events_prefix(node))).when(Compare::Unchanged(head.clone(), entry.revision)).delete(head);
        match manager.store.transact(txn).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Deletes events of a node that are too old, or too many up to its newest.
async fn sweep(manager: &Inner, node: Uuid, last: u64) -> Result<()> {
    let first_kept = (last + 1).saturating_sub(KEPT as u64);
    let now = manager.clock.utc();
    let is_old = |entry: &keystead_store::Entry| {
        index_of(&entry.key).is_some_and(|index| index < first_kept)
            || Stored::<EventRecord>::decode(entry).is_ok_and(|event| now.duration_since(event.record.time) > KEPT_FOR)
    };
    loop {
        let page = manager.store.range(Range::prefix(events_prefix(node), SWEEP)).await.map_err(Error::from)?;
        let old: Vec<_> = page.entries.iter().take_while(|entry| is_old(entry)).map(|entry| entry.key.clone()).collect();
        if old.is_empty() {
            return Ok(());
        }
        let all_old = old.len() == page.entries.len();
        let txn = old.into_iter().fold(Txn::new(), Txn::delete);
        manager.store.transact(txn).await.map_err(Error::from)?;
        if !all_old || !page.more {
            return Ok(());
        }
    }
}
