//! What can go wrong in a store, sorted by what the caller may conclude.

/// The result of every store call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a store call failed. Only [`Error::Indeterminate`] leaves open whether a transaction happened; all others mean that nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A comparison of the transaction did not hold.
    #[error("the record {key} is not as expected")]
    Conflict {
        /// The key (or the prefix) of the first comparison that failed, in the order of the transaction.
        key: String,
    },
    /// The store cannot take or serve anything now: no quorum, no connection, or it is shutting down.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store refused the write for good: read-only, disk full, or an I/O error before the commit.
    #[error("the store refuses to write: {0}")]
    Refused(String),
    /// The outcome of the transaction is unknown. Read back before repeating it.
    #[error("the store did not say whether the transaction happened: {0}")]
    Indeterminate(String),
    /// The position of a watch is older than what the store remembers.
    #[error("the change history before revision {oldest} is gone")]
    Compacted {
        /// The oldest revision after which a watch can still start.
        oldest: u64,
    },
    /// The lease ran out or was revoked.
    #[error("the lease is gone")]
    LeaseGone,
    /// The request is over a bound of the store; the text names it.
    #[error("the request is too large: {0}")]
    TooLarge(String),
    /// What was read is not what a store writes.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Another process has the store open.
    #[error("the store is in use: {0}")]
    InUse(String),
}
