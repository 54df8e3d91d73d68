//! A moment of an etcd: what it has kept of a revision, until that is compacted.

use super::{EtcdStore, range};
use crate::error::Result;
use crate::snapshot::{PAGE, Snapshot};
use crate::types::{Entry, Range, Revision};
use async_trait::async_trait;

/// A moment of the cluster's store.
pub struct EtcdSnapshot<'s> {
    store: &'s EtcdStore,
    revision: Revision,
    after: Option<String>,
    is_over: bool,
}

impl EtcdStore {
    /// Takes a snapshot now: all that was acknowledged before.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`]: no member answers.
    pub async fn snapshot(&self) -> Result<EtcdSnapshot<'_>> {
        let page = range::range(&self.members, &self.names, &Range::prefix("/", 1), None).await?;
        Ok(EtcdSnapshot { store: self, revision: page.revision, after: None, is_over: false })
    }
}

#[async_trait]
impl Snapshot for EtcdSnapshot<'_> {
    fn revision(&self) -> Revision {
        self.revision
    }

    async fn get(&mut self, key: &str) -> Result<Option<Entry>> {
        let page = range::range(&self.store.members, &self.store.names, &Range::prefix(key, 1), Some(self.revision)).await?;
        // The first of all that start with it.
        Ok(page.entries.into_iter().find(|entry| entry.key == key))
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        if self.is_over {
            return Ok(None);
        }
        let wanted = Range { after: self.after.clone(), ..Range::prefix("/", PAGE) };
        let page = range::range(&self.store.members, &self.store.names, &wanted, Some(self.revision)).await?;
        self.is_over = !page.more;
        self.after = page.entries.last().map(|entry| entry.key.clone());
        Ok((!page.entries.is_empty()).then_some(page.entries))
    }
}
