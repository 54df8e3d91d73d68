//! Copying all records of one store into another, empty one: from one machine to a cluster, and back.
//!
//! While it goes on, a record of its own stands in the destination, so that nobody takes half a copy for a whole. A copy that was ended is begun again with the same arguments: what is there
//! already is written over. At its end everything is read back and compared. A record under a lease says that somebody is at work on a store, or was a moment ago: then nothing is copied.

use crate::Store;
use crate::error::{Error, Result};
use crate::types::{Entry, MAX_TXN_BYTES, MAX_TXN_OPS, Range, Txn};

/// The record that stands in a destination while the copy goes on.
pub const MARK: &str = "/copying";
/// How many records are read at a time.
const PAGE: usize = 1_000;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many records are written.
    Written(usize),
    /// So many are read back, and the same.
    Compared(usize),
}

/// Copies everything. Answers how many records there are. Nobody may write to either store meanwhile.
///
/// # Errors
/// [`Error::Refused`]: somebody is at work on one of them; the destination has records, or the source is itself half a copy; what was read back is not what was written. Those of the stores.
pub async fn copy(from: &dyn Store, to: &dyn Store, mut progress: impl FnMut(Progress)) -> Result<usize> {
    if from.get(MARK).await?.is_some() {
        return Err(Error::Refused(format!("{} is itself a copy that has not ended", from.describe())));
    }
    if to.get(MARK).await?.is_none() {
        if !to.range(Range::prefix("/", 1)).await?.entries.is_empty() {
            return Err(Error::Refused(format!("{} has records already: a copy needs an empty store", to.describe())));
        }
        to.transact(Txn::new().put(MARK, from.describe())).await?;
    }
    let mut written = 0;
    let mut source = Records::new(from);
    while let Some(page) = source.next().await? {
        for txn in batches(&page) {
            to.transact(txn).await?;
        }
        written += page.len();
        progress(Progress::Written(written));
    }
    let (mut compared, mut source, mut destination) = (0, Records::new(from), Records::new(to));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    loop {
        // Pages of the two need not be alike.
        if ours.is_empty() {
            ours = source.next().await?.unwrap_or_default();
        }
        if theirs.is_empty() {
            theirs = destination.next().await?.unwrap_or_default();
        }
        let count = ours.len().min(theirs.len());
        if count == 0 {
            break;
        }
        let differs = ours.drain(..count).zip(theirs.drain(..count)).find(|(one, other)| one.key != other.key || one.value != other.value);
        if let Some((one, other)) = differs {
            return Err(Error::Refused(format!("the copy differs at {} (there: {}): is a node at work on one of the stores?", one.key, other.key)));
        }
        compared += count;
        progress(Progress::Compared(compared));
    }
    if let Some(extra) = ours.first().or(theirs.first()) {
        return Err(Error::Refused(format!("the copy differs at {}, which one side has alone: is a node at work on one of the stores?", extra.key)));
    }
    to.transact(Txn::new().delete(MARK)).await?;
    Ok(compared)
}

/// All records that are copied, in their order.
struct Records<'s> {
    store: &'s dyn Store,
    range: Option<Range>,
}

impl<'s> Records<'s> {
    fn new(store: &'s dyn Store) -> Self {
        Self { store, range: Some(Range::prefix("/", PAGE)) }
    }

    /// The next of them; `None`: that was all.
    async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        while let Some(range) = self.range.take() {
            let page = self.store.range(range.clone()).await?;
            if page.more {
                let after = page.entries.last().map(|entry| entry.key.clone());
                self.range = Some(Range { after, ..range });
            }
            if let Some(leased) = page.entries.iter().find(|entry| entry.lease.is_some()) {
                let (store, key) = (self.store.describe(), &leased.key);
                return Err(Error::Refused(format!("a node is at work on {store}, or was some seconds ago ({key} lives under a lease): stop all nodes first")));
            }
            let records: Vec<Entry> = page.entries.into_iter().filter(|entry| entry.key != MARK).collect();
            if !records.is_empty() {
                return Ok(Some(records));
            }
        }
        Ok(None)
    }
}

/// Transactions within the bounds of a store.
fn batches(records: &[Entry]) -> Vec<Txn> {
    let mut batches = vec![Txn::new()];
    let mut bytes = 0;
    for record in records {
        let size = record.key.len() + record.value.len();
        let full = batches.last().is_some_and(|txn| txn.writes.len() == MAX_TXN_OPS || bytes + size > MAX_TXN_BYTES);
        if full {
            batches.push(Txn::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = batches.last_mut() {
            *last = std::mem::take(last).put(record.key.clone(), record.value.clone());
        }
    }
    batches.retain(|txn| !txn.writes.is_empty());
    batches
}
