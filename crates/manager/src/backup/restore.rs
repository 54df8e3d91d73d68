//! Writing a backup into an empty store.

use super::{Backup, Inventory};
use crate::accounts::SYSTEM;
use crate::events::catalogue::RESTORED;
use crate::inner::Inner;
use crate::records::{EkmipCertificateRecord, JobRecord, NodeRecord, NodeStandingRecord, PresenceRecord, Record as _, RestoredRecord};
use jiff::Timestamp;
use keystead_audit::{Application, Record as Audited, State};
use keystead_store::copy::{MARK, OF_BACKUP, begin, half, write};
use keystead_store::{Compare, Error as StoreError, MAX_TXN_BYTES, MAX_TXN_OPS, Range, Store, Txn};
use std::sync::Arc;

/// What belongs to the nodes of that time. Those that come now announce themselves.
const OF_NODES: [&str; 4] = [NodeRecord::PREFIX, NodeStandingRecord::PREFIX, PresenceRecord::PREFIX, EkmipCertificateRecord::PREFIX];

/// What a restore is called in the audit log.
pub(super) const TOLD: &str = "keystead restore";

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// How many records.
    pub records: u64,
    /// Jobs that had not ended at that moment, and go on when a node starts.
    pub open_jobs: Vec<String>,
}

/// Looks whether a backup can be restored into a store: it is empty, or has a part of the same restore, which was ended.
///
/// # Errors
/// A line for the operator: it is not, or cannot be read.
pub async fn check_empty(inventory: &Inventory, store: &dyn Store) -> Result<(), String> {
    match store.get(MARK).await.map_err(text)? {
        Some(found) if found.value != mark(inventory).as_bytes() => Err(half(&store.describe(), &found.value)),
        Some(_) => Ok(()),
        None if store.range(Range::prefix("/", 1)).await.map_err(text)?.entries.is_empty() => Ok(()),
        None => Err(format!("{} has records already: a backup is restored into an empty store", store.describe())),
    }
}

/// Writes all records into an empty store. While it goes on, the mark of a copy stands in it, so that no node starts on half of it; a restore that was ended is begun again with the same arguments.
///
/// # Errors
/// A line for the operator: the store is not empty, or refuses; the file cannot be read.
pub async fn restore(backup: &Backup, inventory: &Inventory, store: &dyn Store, now: Timestamp, mut progress: impl FnMut(u64)) -> Result<Restored, String> {
    check_empty(inventory, store).await?;
    // Whoever fills the same store at the same time, a copy or another restore, is kept out by it, or keeps this one out.
    let begun = begin(store, &mark(inventory)).await.map_err(text)?;
    let failed = |error: std::io::Error| format!("the backup cannot be read: {error}");
    let (_, mut reader) = backup.read().map_err(failed)?;
    let (mut txn, mut bytes, mut records) = (Txn::new(), 0, 0);
    while let Some(kept) = reader.next().map_err(failed)? {
        if OF_NODES.iter().any(|prefix| kept.key.starts_with(prefix)) {
            continue;
        }
        let size = kept.key.len() + kept.value.len();
        if txn.writes.len() == MAX_TXN_OPS || bytes + size > MAX_TXN_BYTES {
            write(store, &begun, std::mem::take(&mut txn)).await.map_err(text)?;
            bytes = 0;
            progress(records);
        }
        bytes += size;
        records += 1;
        txn = txn.put(kept.key, kept.value);
    }
    if !txn.writes.is_empty() {
        write(store, &begun, txn).await.map_err(text)?;
    }
    let restored = RestoredRecord { backup: inventory.header.made, restored: now }.encode().map_err(crate::Error::for_operator)?;
    write(store, &begun, Txn::new().delete(MARK).put(RestoredRecord::PREFIX, restored)).await.map_err(text)?;
    let open = |job: &JobRecord| !job.state.is_final();
    let open_jobs = inventory.all::<JobRecord>().filter_map(|job| job.ok().map(|job| job.record)).filter(open);
    Ok(Restored { records, open_jobs: open_jobs.map(|job| format!("{} ({})", job.description, job.uuid)).collect() })
}

/// Tells, on the first node that starts, that the cluster was restored: who looks at it later must not wonder why keys are there that were destroyed.
pub(crate) async fn tell(manager: Arc<Inner>) {
    let Ok(stored) = manager.view.only::<RestoredRecord>() else { return };
    let RestoredRecord { backup, restored } = stored.record;
    let reason = format!("of {backup:.0}, at {restored:.0}");
    manager.raise(&RESTORED, None, vec![("reason", reason.clone()), ("backup", backup.to_string()), ("restored", restored.to_string())]);
    let mut record = Audited::new(Application::Job, State::Success, TOLD);
    (record.user, record.message) = (Some(SYSTEM.to_owned()), Some(format!("the cluster was restored from the backup {reason}")));
    manager.audit.end_durably(vec![record]).await;
    // Where this fails, it is told once more at the next start.
    match manager.store.transact(Txn::new().when(Compare::Unchanged(stored.key.clone(), stored.revision)).delete(stored.key)).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => {}
        Err(error) => tracing::warn!(%error, "the record that the cluster was restored stays, and is told of again"),
    }
}

/// What stands in a store while this backup is written into it.
fn mark(inventory: &Inventory) -> String {
    format!("{OF_BACKUP}{}", inventory.header.made)
}

fn text(error: keystead_store::Error) -> String {
    error.to_string()
}
