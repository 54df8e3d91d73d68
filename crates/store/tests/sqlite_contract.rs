//! The contract suite on the SQLite backend.
#![allow(clippy::unwrap_used, clippy::panic)]

use async_trait::async_trait;
use keystead_store::contract::Fixture;
use keystead_store::sqlite::SqliteStore;
use keystead_store::{Error, Store};
use std::sync::Arc;

struct Sqlite {
    folder: tempfile::TempDir,
}

impl Sqlite {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }
}

#[async_trait]
impl Fixture for Sqlite {
    async fn open(&self) -> Arc<dyn Store> {
        // After the last reference is gone, the lock is free as soon as the writer has ended.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            match SqliteStore::open(&self.folder.path().join("store.db")).await {
                Ok(store) => return Arc::new(store),
                Err(Error::InUse(_)) if std::time::Instant::now() < deadline => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn close(&self, store: Arc<dyn Store>) {
        // The last reference closes the store, as the end of a process does.
        drop(store);
    }
}

keystead_store::contract_tests!(Sqlite::new());
