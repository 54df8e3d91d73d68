//! Copying all records of one store into another, empty one: from one machine to a cluster, and back.
//!
//! While it goes on, a record of its own stands in the destination, so that nobody takes half a copy for a whole. A copy that was ended is begun again with the same arguments: what is there
//! already is written over. Each write holds only as long as that record stands as this process has put or found it: two that fill the same store do not both go on. At its end everything is read back and compared. A record under a lease says that somebody is at work on a store, or was a moment ago: then nothing is copied.

use crate::Store;
use crate::error::{Error, Result};
use crate::types::{Compare, Entry, MAX_TXN_BYTES, MAX_TXN_OPS, Range, Txn};

/// The record that stands in a destination while the copy goes on, or while a backup is restored into it. Its value says what is copied.
pub const MARK: &str = "/copying";
/// What the mark of a restore begins with; the moment of the backup follows.
pub const OF_BACKUP: &str = "the backup of ";
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

/// What a store is that has a mark of this value, and how to go on.
pub fn half(store: &str, mark: &[u8]) -> String {
    let what = String::from_utf8_lossy(mark);
    if what.starts_with(OF_BACKUP) {
        format!("{store} has a part of {what}: its restore has not ended; run keystead restore again, with the same backup, or empty the store")
    } else {
        format!("{store} has a part of a copy of {what}, which has not ended; run keystead store copy again, with the same arguments, or empty the store")
    }
}

/// Puts the mark into a store, which must be empty, or have the same one already. Answers the condition that each further write must make: that this mark stands.
///
/// # Errors
/// [`Error::Refused`]: the store has records, or another mark. Those of the store.
pub async fn begin(to: &dyn Store, value: &str) -> Result<Compare> {
    let found = to.get(MARK).await?;
    let revision = match found {
        Some(found) if found.value == value.as_bytes() => found.revision,
        Some(found) => return Err(Error::Refused(half(&to.describe(), &found.value))),
        None => match to.transact(Txn::new().when(Compare::EmptyPrefix("/".to_owned())).put(MARK, value.to_owned())).await {
            Err(Error::Conflict { .. }) => return Err(Error::Refused(format!("{} has records already, and must be empty", to.describe()))),
            put => put?,
        },
    };
    Ok(Compare::Unchanged(MARK.to_owned(), revision))
}

/// Writes under the condition that the mark stands as it was put.
///
/// # Errors
/// [`Error::Refused`]: it does not. Those of the store.
pub async fn write(to: &dyn Store, mark: &Compare, txn: Txn) -> Result<()> {
    match to.transact(txn.when(mark.clone())).await {
        Err(Error::Conflict { .. }) => Err(Error::Refused(format!("somebody else has ended the copy into {}, or begun another one", to.describe()))),
        written => written.map(drop),
    }
}

/// Copies everything. Answers how many records there are. Nobody may write to either store meanwhile.
///
/// # Errors
/// [`Error::Refused`]: somebody is at work on one of them; the destination has records, or the source is itself half a copy; what was read back is not what was written. Those of the stores.
pub async fn copy(from: &dyn Store, to: &dyn Store, mut progress: impl FnMut(Progress)) -> Result<usize> {
    if let Some(mark) = from.get(MARK).await? {
        return Err(Error::Refused(half(&from.describe(), &mark.value)));
    }
    let mark = begin(to, &from.describe()).await?;
    let mut written = 0;
    let mut source = Records::new(from);
    while let Some(page) = source.next().await? {
        for txn in batches(&page) {
            write(to, &mark, txn).await?;
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
    write(to, &mark, Txn::new().delete(MARK)).await?;
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
