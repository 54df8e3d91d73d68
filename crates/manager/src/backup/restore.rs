//! Writing a backup into an empty store.

use super::{Backup, Inventory};
use crate::records::{EkmipCertificateRecord, JobRecord, NodeRecord, NodeStandingRecord, PresenceRecord, Record as _};
use keystead_store::copy::MARK;
use keystead_store::{MAX_TXN_BYTES, MAX_TXN_OPS, Range, Store, Txn};

/// What belongs to the nodes of that time. Those that come now announce themselves.
const OF_NODES: [&str; 4] = [NodeRecord::PREFIX, NodeStandingRecord::PREFIX, PresenceRecord::PREFIX, EkmipCertificateRecord::PREFIX];

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
    is_begun(inventory, store).await.map(drop)
}

/// Writes all records into an empty store. While it goes on, the mark of a copy stands in it, so that no node starts on half of it; a restore that was ended is begun again with the same arguments.
///
/// # Errors
/// A line for the operator: the store is not empty, or refuses; the file cannot be read.
pub async fn restore(backup: &Backup, inventory: &Inventory, store: &dyn Store, mut progress: impl FnMut(u64)) -> Result<Restored, String> {
    if !is_begun(inventory, store).await? {
        store.transact(Txn::new().put(MARK, mark(inventory))).await.map_err(text)?;
    }
    let failed = |error: std::io::Error| format!("the backup cannot be read: {error}");
    let (_, mut reader) = backup.read().map_err(failed)?;
    let (mut txn, mut bytes, mut records) = (Txn::new(), 0, 0);
    while let Some(kept) = reader.next().map_err(failed)? {
        if OF_NODES.iter().any(|prefix| kept.key.starts_with(prefix)) {
            continue;
        }
        let size = kept.key.len() + kept.value.len();
        if txn.writes.len() == MAX_TXN_OPS || bytes + size > MAX_TXN_BYTES {
            store.transact(std::mem::take(&mut txn)).await.map_err(text)?;
            bytes = 0;
            progress(records);
        }
        bytes += size;
        records += 1;
        txn = txn.put(kept.key, kept.value);
    }
    if !txn.writes.is_empty() {
        store.transact(txn).await.map_err(text)?;
    }
    store.transact(Txn::new().delete(MARK)).await.map_err(text)?;
    let open = |job: &JobRecord| !job.state.is_final();
    let open_jobs = inventory.all::<JobRecord>().filter_map(|job| job.ok().map(|job| job.record)).filter(open);
    Ok(Restored { records, open_jobs: open_jobs.map(|job| format!("{} ({})", job.description, job.uuid)).collect() })
}

/// Whether this restore was begun in a store; if not, it is empty.
async fn is_begun(inventory: &Inventory, store: &dyn Store) -> Result<bool, String> {
    match store.get(MARK).await.map_err(text)? {
        Some(found) if found.value != mark(inventory).as_bytes() => {
            Err(format!("{} has half a copy of {}; end that, or empty it", store.describe(), String::from_utf8_lossy(&found.value)))
        }
        Some(_) => Ok(true),
        None if store.range(Range::prefix("/", 1)).await.map_err(text)?.entries.is_empty() => Ok(false),
        None => Err(format!("{} has records already: a backup is restored into an empty store", store.describe())),
    }
}

/// What stands in a store while this backup is written into it.
fn mark(inventory: &Inventory) -> String {
    format!("the backup of {}", inventory.header.made)
}

fn text(error: keystead_store::Error) -> String {
    error.to_string()
}
