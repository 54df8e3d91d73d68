//! The nouns of the store: revisions, entries, transactions, events.

use crate::error::{Error, Result};
use bytes::Bytes;
use std::collections::HashSet;
use tokio::sync::mpsc;

/// The longest key, in bytes. Every key starts with a slash.
pub const MAX_KEY_BYTES: usize = 512;
/// The longest value, in bytes. Under etcd's default request limit of 1.5 MiB, with room for the rest of a transaction.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// The largest number of comparisons and of writes in one transaction, each. etcd's default `--max-txn-ops` is 128, and its backend adds a comparison and two writes.
pub const MAX_TXN_OPS: usize = 126;
/// The largest sum of key and value bytes in one transaction. Under etcd's default `--max-request-bytes` of 1.5 MiB.
pub const MAX_TXN_BYTES: usize = 1_400_000;

/// Whether a watch of this prefix is one of everything: keys start with a slash.
pub(crate) fn is_everything(prefix: &str) -> bool {
    matches!(prefix, "" | "/")
}

/// The number of a change: every transaction that writes makes the next one. 0 is before the first change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// The name of a lease; unique while the store is open, and on a cluster backend for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub u64);

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The transaction that created the key (since it was last absent).
    pub created: Revision,
    /// The transaction that last wrote the key.
    pub revision: Revision,
    /// The lease that the key was last written under.
    pub lease: Option<LeaseId>,
}

/// Which keys to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Only keys that start with this. Empty: all.
    pub prefix: String,
    /// Only keys after this one (itself not included), to read on from a page's last key.
    pub after: Option<String>,
    /// How many entries at the most; 0 is refused.
    pub limit: usize,
}

impl Range {
    /// The first `limit` keys under `prefix`.
    pub fn prefix(prefix: impl Into<String>, limit: usize) -> Self {
        Self { prefix: prefix.into(), after: None, limit }
    }
}

/// A part of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries, in ascending key order.
    pub entries: Vec<Entry>,
    /// The store's revision that all of them come from.
    pub revision: Revision,
    /// Whether keys of the range follow after the last entry.
    pub more: bool,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(String),
    /// The key exists.
    Present(String),
    /// The key exists and was last written by this revision: nobody has touched it since it was read.
    Unchanged(String, Revision),
    /// No key under this prefix exists.
    EmptyPrefix(String),
}

/// A change of a transaction. Two writes of one transaction must not name the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces a key. Without a lease the key is permanent, whatever it was before.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
        /// The lease that the key shall live under.
        lease: Option<LeaseId>,
    },
    /// Deletes a key; one that does not exist is no error.
    Delete {
        /// The key.
        key: String,
    },
}

/// Conditions and changes that stand or fall together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// All are applied.
    pub writes: Vec<Write>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds a permanent write.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.writes.push(Write::Put { key: key.into(), value: value.into(), lease: None });
        self
    }

    /// Adds a write under a lease.
    #[must_use]
    pub fn put_leased(mut self, key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.writes.push(Write::Put { key: key.into(), value: value.into(), lease: Some(lease) });
        self
    }

    /// Adds a deletion.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.writes.push(Write::Delete { key: key.into() });
        self
    }

    /// Adds all conditions and writes of another transaction after this one's.
    #[must_use]
    pub fn and(mut self, other: Txn) -> Self {
        self.compares.extend(other.compares);
        self.writes.extend(other.writes);
        self
    }

    /// Checks the bounds that hold on every backend, and that no key is written twice.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub(crate) fn check(&self) -> Result<()> {
        let too_large = |what: String| Err(Error::TooLarge(what));
        if self.compares.len() > MAX_TXN_OPS || self.writes.len() > MAX_TXN_OPS {
            return too_large(format!("{} comparisons and {} writes, of at most {MAX_TXN_OPS} each", self.compares.len(), self.writes.len()));
        }
        let mut keys = HashSet::new();
        let mut total = 0;
        for write in &self.writes {
            let (Write::Put { key, .. } | Write::Delete { key }) = write;
            let length = if let Write::Put { value, .. } = write { value.len() } else { 0 };
            if !key.starts_with('/') || key.len() > MAX_KEY_BYTES {
                return too_large(format!("a key of {} bytes, of 1 to {MAX_KEY_BYTES}, the first of them a slash", key.len()));
            }
            if length > MAX_VALUE_BYTES {
                return too_large(format!("a value of {length} bytes, of at most {MAX_VALUE_BYTES}"));
            }
            if !keys.insert(key) {
                return too_large(format!("the key {key} is written twice in one transaction"));
            }
            total += key.len() + length;
        }
        if total > MAX_TXN_BYTES {
            return too_large(format!("{total} bytes in one transaction, of at most {MAX_TXN_BYTES}"));
        }
        Ok(())
    }
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The key was created or replaced.
    Put(Entry),
    /// The key was deleted, by a transaction or by the end of its lease.
    Delete {
        /// The key.
        key: String,
    },
}

/// All changes of one revision under the watched prefix, in the order of the transaction's writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBatch {
    /// The revision that made them.
    pub revision: Revision,
    /// The changes; empty only where [`crate::Store::watch`] says so.
    pub events: Vec<Event>,
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    receiver: mpsc::Receiver<Result<EventBatch>>,
}

impl Watch {
    /// Makes a watch from the receiving end of a backend's queue.
    pub fn new(receiver: mpsc::Receiver<Result<EventBatch>>) -> Self {
        Self { receiver }
    }

    /// The next change, where it is there already.
    pub(crate) fn try_next(&mut self) -> Option<Result<EventBatch>> {
        self.receiver.try_recv().ok()
    }

    /// Waits for the next change. `None`: the store was closed. After an `Err` the watch has ended.
    pub async fn next(&mut self) -> Option<Result<EventBatch>> {
        self.receiver.recv().await
    }
}
