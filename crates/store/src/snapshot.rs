//! All records of a store as they were at one moment, read page by page while the store is in use.

use crate::error::Result;
use crate::types::{Entry, Revision};
use async_trait::async_trait;

/// How many records a page has at the most.
pub(crate) const PAGE: usize = 1_000;

/// A moment of a store. What is written after it does not show.
#[async_trait]
pub trait Snapshot: Send {
    /// The revision of that moment.
    fn revision(&self) -> Revision;

    /// One record; `None` where it did not exist then.
    ///
    /// # Errors
    /// As [`Snapshot::next`].
    async fn get(&mut self, key: &str) -> Result<Option<Entry>>;

    /// The next records, in ascending byte order of their keys; `None`: that was all.
    ///
    /// # Errors
    /// Those of the store. [`crate::Error::Compacted`]: the store has forgotten the moment, since reading took too long.
    async fn next(&mut self) -> Result<Option<Vec<Entry>>>;
}
