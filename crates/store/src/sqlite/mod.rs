//! The store of one machine: a SQLite file.
//!
//! One file, `store.db`, that the `sqlite3` program opens and `VACUUM INTO` backs up while we run. One writer thread with group commit, a few reading connections.
//!
//! # Durability
//!
//! `journal_mode=WAL` with `synchronous=FULL` syncs the log at every commit, so a committed transaction survives a power loss (SQLite, "PRAGMA synchronous": in WAL mode FULL
//! adds the sync after each transaction that NORMAL leaves out). A caller is answered after the commit, never before.
//!
//! # One process
//!
//! An advisory lock on `store.db.lock` keeps a second process out. Since the holder of every lease was a process that is gone, opening the store ends all leases and deletes their keys.

mod lock;
mod reader;
mod schema;
mod snapshot;
mod watches;
mod writer;

use crate::Store;
use crate::error::{Error, Result};
use crate::types::{Entry, LeaseId, Page, Range, Revision, Txn, Watch};
use async_trait::async_trait;
use lock::Lock;
use reader::Readers;
pub(crate) use reader::entries;
use rusqlite::Connection;
pub(crate) use schema::private_file;
pub use snapshot::SqliteSnapshot;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use watches::Watches;
use writer::{Command, Writer};

/// How many commands may wait for the writer before callers have to.
const QUEUE: usize = 4_096;
/// The shortest and the longest lease.
const LEASE_BOUNDS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);

/// A store in a SQLite file. Dropping it closes it; [`SqliteStore::close`] also waits until that is done.
pub struct SqliteStore {
    path: PathBuf,
    commands: mpsc::Sender<Command>,
    readers: Readers,
    watches: Arc<Watches>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the store in `path`, and makes it where there is none.
    ///
    /// # Errors
    /// [`Error::InUse`]: another process has it. [`Error::Damaged`]: the file is not a store, of a newer version, or damaged. [`Error::Refused`]: the file system does not let us.
    pub async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        blocking(move || Self::open_now(&path)).await
    }

    fn open_now(path: &Path) -> Result<Self> {
        let lock = Lock::take(path)?;
        let mut connection = schema::open(path)?;
        let revision = schema::end_leases(&mut connection).map_err(|error| schema::classify(path, &error))?;
        let watches = Arc::new(Watches::new(revision));
        let readers = Readers::open(path)?;
        let (commands, queue) = mpsc::channel(QUEUE);
        let writer =
            Writer::new(connection, revision, Arc::clone(&watches), lock).map_err(|error| Error::Refused(format!("the writer has no timer: {error}")))?;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| Error::Unavailable(format!("no thread for the writer: {error}")))?;
        Ok(Self { path: path.to_owned(), commands, readers, watches, writer: Mutex::new(Some(thread)) })
    }

    /// Finishes what is queued and closes the file. Later calls answer [`Error::Unavailable`].
    pub async fn close(&self) {
        // First those that only read: the last connection brings what stands in the log into the file, and they may not.
        self.readers.close().await;
        let (answer, done) = oneshot::channel();
        if self.commands.send(Command::Close(answer)).await.is_ok() {
            let _ = done.await;
        }
        self.watches.end();
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let (answer, reply) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| closed())?;
        // The writer answers everything that it took. A lost answer means that its thread died, and nobody knows how far it came.
        reply.await.unwrap_or_else(|_| Err(Error::Indeterminate("the writer of the store has stopped".to_owned())))
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        let key = key.to_owned();
        self.readers.run(move |connection| reader::get(connection, &key)).await
    }

    async fn range(&self, range: Range) -> Result<Page> {
        if range.limit == 0 {
            return Err(Error::TooLarge("a range needs a limit of at least 1".to_owned()));
        }
        self.readers.run(move |connection| reader::range(connection, &range)).await
    }

    async fn transact(&self, txn: Txn) -> Result<Revision> {
        txn.check()?;
        self.ask(|answer| Command::Transact(txn, answer)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        self.watches.start(prefix, after)
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId> {
        if !LEASE_BOUNDS.contains(&ttl) {
            return Err(Error::TooLarge("a lease lasts from 1 s to 1 h".to_owned()));
        }
        self.ask(|answer| Command::Grant(ttl, answer)).await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<()> {
        self.ask(|answer| Command::Renew(lease, answer)).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<()> {
        self.ask(|answer| Command::Revoke(lease, answer)).await
    }

    fn describe(&self) -> String {
        format!("sqlite {}", self.path.display())
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".to_owned())
}

/// Runs what blocks, away from the threads of the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::Unavailable(format!("a task of the store failed: {error}"))))
}

/// Opens a connection of our own kind. Shared by the writer and the readers.
pub(crate) fn connect(path: &Path, flags: rusqlite::OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // Somebody who looks with `sqlite3` may hold a lock for a moment.
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}
