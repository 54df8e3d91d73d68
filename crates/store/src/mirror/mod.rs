//! A copy of a cluster's store on this machine's disk, so that a node starts and serves while the store is away.
//!
//! The copy is kept by the watch that the node follows anyway: a change is written into the copy before the node sees it, so the copy is never behind what the node has shown. It holds what the
//! store holds, and so nothing that is not wrapped or sealed. It is not the truth: every write goes to the store, and so does every read that must be current.
//!
//! Where the copy has a gap (it is new; the node was away for longer than the store remembers changes; it belongs to another store), everything is read anew, in the background, while changes
//! go on coming in. Until that is done, nothing is read from it.

mod copy;
mod file;

use crate::Store;
use crate::error::{Error, Result};
use crate::types::{Entry, EventBatch, LeaseId, Page, Range, Revision, Txn, Watch};
use async_trait::async_trait;
use file::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The prefix whose watch keeps the copy: all records.
const ALL: &str = "/";
/// How many changes may wait for the node.
const BACKLOG: usize = 1_024;
/// How many changes are written into the copy together.
const TOGETHER: usize = 256;
/// The pause before the store is asked again which one it is.
const PAUSE: Duration = Duration::from_millis(500);

/// A store with a copy of it in a file.
pub struct MirroredStore {
    store: Arc<dyn Store>,
    file: Arc<File>,
}

impl MirroredStore {
    /// Opens the copy in `path`, and makes it where there is none. One that is damaged is made anew.
    ///
    /// # Errors
    /// [`Error::Refused`]: the file system does not let us.
    pub async fn open(store: Arc<dyn Store>, path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let file = tokio::task::spawn_blocking(move || File::open(&path)).await.map_err(|error| Error::Unavailable(error.to_string()))??;
        Ok(Self { store, file: Arc::new(file) })
    }

    /// The revision that the copy shows; `None` while it is not complete.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn copied(&self) -> Result<Option<Revision>> {
        let meta = self.file.run(|file| file.meta()).await?;
        Ok(meta.complete.then_some(meta.revision))
    }
}

#[async_trait]
impl Store for MirroredStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.store.get(key).await
    }

    async fn range(&self, range: Range) -> Result<Page> {
        self.store.range(range).await
    }

    async fn range_recent(&self, range: Range) -> Result<Page> {
        let asked = range.clone();
        match self.file.run(move |file| file.range(&asked)).await {
            Ok(Some(page)) => return Ok(page),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the local copy of the store cannot be read"),
        }
        self.store.range(range).await
    }

    async fn transact(&self, txn: Txn) -> Result<Revision> {
        self.store.transact(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        if prefix != ALL {
            return self.store.watch(prefix, after).await;
        }
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let tee = Tee { store: Arc::clone(&self.store), file: Arc::clone(&self.file), sender: sender.clone() };
        tokio::spawn(async move {
            tokio::select! {
                () = tee.run(after) => {}
                () = sender.closed() => {}
            }
        });
        Ok(Watch::new(receiver))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        self.store.grant_lease(ttl).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<()> {
        self.store.renew_lease(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.store.revoke_lease(lease).await
    }

    async fn identity(&self) -> Result<String> {
        self.store.identity().await
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}

/// Hands the store's changes on, after they are in the copy.
struct Tee {
    store: Arc<dyn Store>,
    file: Arc<File>,
    sender: mpsc::Sender<Result<EventBatch>>,
}

impl Tee {
    async fn run(self, after: Revision) {
        if let Err(error) = self.follow(after).await {
            let _ = self.sender.send(Err(error)).await;
        }
    }

    async fn follow(&self, after: Revision) -> Result<()> {
        let identity = self.identity().await;
        let (known, of_another) = {
            let identity = identity.clone();
            self.file.run(move |file| file.belongs_to(&identity)).await?
        };
        if known && of_another {
            // What the node has shown may have come from the copy, whose revisions mean nothing here.
            return Err(Error::Compacted { oldest: 0 });
        }
        let mut watch = self.store.watch(ALL, after).await?;
        let gap = self.file.run(move |file| file.goes_on_after(after)).await?;
        let copying = gap.map(|copy| tokio::spawn(copy::run(Arc::clone(&self.store), Arc::clone(&self.file), copy)));
        // Ends with this watch: another one begins another.
        let _copying = copying.map(tokio_util::task::AbortOnDropHandle::new);
        while let Some(first) = watch.next().await {
            let mut batches = vec![first?];
            let mut end = None;
            while batches.len() < TOGETHER {
                match watch.try_next() {
                    Some(Ok(batch)) => batches.push(batch),
                    Some(Err(error)) => {
                        end = Some(error);
                        break;
                    }
                    None => break,
                }
            }
            let written = batches.clone();
            if let Err(error) = self.file.run(move |file| file.apply(&written)).await {
                tracing::error!(%error, "the local copy of the store cannot be written, and is given up until it is made anew: without the store, this node would not start");
                let _ = self.file.run(|file| file.give_up()).await;
            }
            for batch in batches {
                if self.sender.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
            if let Some(error) = end {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits until the store says which one it is.
    async fn identity(&self) -> String {
        loop {
            match self.store.identity().await {
                Ok(identity) => return identity,
                Err(error) => {
                    tracing::debug!(%error, "the store does not say which one it is yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
