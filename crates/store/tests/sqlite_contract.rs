//! The contract suite on the SQLite backend.

use async_trait::async_trait;
use keystead_store::Store;
use keystead_store::contract::Fixture;
use keystead_store::sqlite::SqliteStore;
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
        Arc::new(SqliteStore::open(&self.folder.path().join("store.db")).await.unwrap())
    }

    async fn close(&self, store: Arc<dyn Store>) {
        // The last reference closes the store, as the end of a process does; the lock is free when the writer has let go of it.
        drop(store);
    }
}

keystead_store::contract_tests!(Sqlite::new());
