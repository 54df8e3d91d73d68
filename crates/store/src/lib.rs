//! Durable records for Keystead.
//!
//! [`Store`] is an ordered map from text keys to byte values with a single, cluster-wide [`Revision`] counter. It offers what a control
//! plane needs and nothing more: point reads, ordered ranges, a compare-and-write transaction, a watch and leases. It does not know what
//! a record means; that is the business of the `manager` room.
//!
//! Every backend passes the same contract suite, [`contract`]. What the suite does not check, callers must not rely on.
//!
//! # Durability
//!
//! A transaction that returned `Ok` survives `kill -9` and power loss (and, on a cluster backend, the loss of a minority of its members).
//! A transaction that returned [`Error::Indeterminate`] may or may not have happened: read back before repeating it. Every other error means that
//! nothing was changed.
//!
//! # Fencing
//!
//! A holder of a lease that was paused and wakes up late must not be able to write. So every transaction of a job compares the revision of
//! its claim ([`Compare::Unchanged`]): once the claim was taken over or its lease ran out, the comparison fails and the late write changes nothing.

mod error;
mod types;

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod copy;
pub mod etcd;
pub mod measured;
pub mod mirror;
pub mod snapshot;
pub mod sqlite;

pub use error::{Error, Result};
pub use types::{
    Compare, Entry, Event, EventBatch, LeaseId, MAX_KEY_BYTES, MAX_TXN_BYTES, MAX_TXN_OPS, MAX_VALUE_BYTES, Page, Range, Revision, Txn, Watch, Write,
};

use async_trait::async_trait;
use std::time::Duration;

/// A durable, ordered, watchable map with compare-and-write transactions. See the crate documentation for what `Ok` promises.
///
/// All methods are safe to call from many tasks at once. None of them blocks the caller's thread.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one key. `None` where it does not exist. The answer is linearizable: it reflects every transaction acknowledged before the call.
    async fn get(&self, key: &str) -> Result<Option<Entry>>;

    /// Reads keys in ascending byte order. All entries of one page come from one revision, [`Page::revision`].
    async fn range(&self, range: Range) -> Result<Page>;

    /// As [`Store::range`], of a moment that may be past: from a copy on this machine where there is one, also while the store is away. Everything after [`Page::revision`] comes by a
    /// [`Store::watch`] from there, and nothing that a running watch has shown is missing.
    async fn range_recent(&self, range: Range) -> Result<Page> {
        self.range(range).await
    }

    /// Checks all comparisons and, if every one holds, applies all writes as one atomic, durable step.
    ///
    /// Returns the revision of that step; every entry written by it carries it as `revision`. A failed comparison is [`Error::Conflict`].
    /// A transaction without writes only checks, and returns the revision of the last transaction that wrote. Bounds: [`MAX_TXN_OPS`], [`MAX_TXN_BYTES`].
    async fn transact(&self, txn: Txn) -> Result<Revision>;

    /// Follows every change under `prefix` that is later than `after`, in order, without gaps.
    ///
    /// All changes of one transaction arrive in one [`EventBatch`]. A watch of everything (`/`, or the empty prefix) also has one for a transaction that came to change nothing, without
    /// events, so that whoever waits for its revision gets there. A position that is too old to follow gives [`Error::Compacted`],
    /// at once or as an item of the watch: read the range again and watch from its revision.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch>;

    /// Grants a lease that runs out `ttl` after its last renewal (bounds: 1 s to 1 h). Keys written under it are deleted when it does, as one
    /// watched change.
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId>;

    /// Renews a lease for its whole `ttl`. [`Error::LeaseGone`] where it ran out or was revoked.
    async fn renew_lease(&self, lease: LeaseId) -> Result<()>;

    /// Ends a lease now and deletes its keys. A lease that is already gone is no error.
    async fn revoke_lease(&self, lease: LeaseId) -> Result<()>;

    /// Which store this is: revisions of another one mean something else.
    async fn identity(&self) -> Result<String> {
        Ok(self.describe())
    }

    /// A word on the backend for operators, for example `sqlite /var/lib/keystead/store.db`. No secrets.
    fn describe(&self) -> String;
}
