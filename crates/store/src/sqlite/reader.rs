//! Reading: a few connections, each used by one caller at a time.
//!
//! In WAL mode a read that starts after a commit sees that commit, and readers never wait for the writer.

use super::{blocking, closed, connect, schema};
use crate::error::{Error, Result};
use crate::types::{Entry, LeaseId, Page, Range, Revision};
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, Row};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// How many reads run at a time. A small machine has no use for more.
const CONNECTIONS: usize = 4;

pub(super) struct Readers {
    path: PathBuf,
    slots: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let connections: rusqlite::Result<Vec<Connection>> = (0..CONNECTIONS).map(|_| connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)).collect();
        let connections = connections.map_err(|error| schema::classify(path, &error))?;
        Ok(Self { path: path.to_owned(), slots: Arc::new(Semaphore::new(CONNECTIONS)), idle: Arc::new(Mutex::new(connections)) })
    }

    /// Runs a read on a connection of its own.
    pub(super) async fn run<T: Send + 'static>(&self, read: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static) -> Result<T> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| closed())?;
        let idle = Arc::clone(&self.idle);
        let path = self.path.clone();
        blocking(move || {
            let mut connection = idle.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or_else(closed)?;
            let result = read(&mut connection);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            drop(slot);
            result.map_err(|error| match schema::classify(&path, &error) {
                // A read writes nothing that could be refused.
                Error::Refused(why) => Error::Unavailable(why),
                other => other,
            })
        })
        .await
    }

    /// Closes all connections, after those that are at work.
    pub(super) async fn close(&self) {
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        if let Ok(_all) = self.slots.acquire_many(all).await {
            self.slots.close();
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

pub(super) fn get(connection: &Connection, key: &str) -> rusqlite::Result<Option<Entry>> {
    let mut statement = connection.prepare_cached("SELECT key, value, created, revision, lease FROM record WHERE key = ?1")?;
    let mut rows = statement.query([key])?;
    rows.next()?.map(entry).transpose()
}

pub(super) fn range(connection: &mut Connection, range: &Range) -> rusqlite::Result<Page> {
    // One transaction, so that the revision and the entries are of one moment.
    let transaction = connection.transaction()?;
    let revision = Revision(schema::counter(&transaction, "revision")?);
    let (entries, more) = entries(&transaction, range)?;
    transaction.commit()?;
    Ok(Page { entries, revision, more })
}

/// The entries of a range, and whether more follow. Any table `record` with these columns will do.
pub(crate) fn entries(connection: &Connection, range: &Range) -> rusqlite::Result<(Vec<Entry>, bool)> {
    let (query, from) = query(range);
    let mut statement = connection.prepare_cached(query)?;
    let limit = i64::try_from(range.limit.saturating_add(1)).unwrap_or(i64::MAX);
    let mut rows = statement.query((from, limit))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let found = entry(row)?;
        if !found.key.starts_with(&range.prefix) {
            break;
        }
        if entries.len() == range.limit {
            return Ok((entries, true));
        }
        entries.push(found);
    }
    Ok((entries, false))
}

/// The query of a range, and the key that it starts at. With two lower bounds, SQLite would look for the first of them, and step over all that is in between: each page would cost as much as all before it.
///
/// Keys are compared byte by byte (BINARY collation of UTF-8), which is the order of Rust's strings.
fn query(range: &Range) -> (&'static str, &str) {
    match range.after.as_deref() {
        Some(after) if after >= range.prefix.as_str() => {
            ("SELECT key, value, created, revision, lease FROM record WHERE key > ?1 ORDER BY key LIMIT ?2", after)
        }
        _ => ("SELECT key, value, created, revision, lease FROM record WHERE key >= ?1 ORDER BY key LIMIT ?2", &range.prefix),
    }
}

pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        value: Bytes::from(row.get::<_, Vec<u8>>(1)?),
        created: Revision(row.get(2)?),
        revision: Revision(row.get(3)?),
        lease: row.get::<_, Option<u64>>(4)?.map(LeaseId),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::StatementStatus;

    #[test]
    fn the_last_page_costs_no_more_than_the_first() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE record (key TEXT PRIMARY KEY, value BLOB, created, revision, lease) WITHOUT ROWID").unwrap();
        for number in 0..5_000 {
            connection.execute("INSERT INTO record VALUES (?1, x'', 1, 1, NULL)", [format!("/keys/{number:04}")]).unwrap();
        }
        let steps = |after: Option<&str>| {
            let range = Range { after: after.map(str::to_owned), ..Range::prefix("/keys/", 10) };
            let (query, from) = query(&range);
            let mut statement = connection.prepare(query).unwrap();
            let found = statement.query_map((from, 10), |row| row.get::<_, String>(0)).unwrap().count();
            (found, statement.get_status(StatementStatus::VmStep))
        };
        let (first, last) = (steps(None), steps(Some("/keys/4989")));
        assert_eq!((first.0, last.0), (10, 10));
        assert!(last.1 <= first.1 * 2, "{first:?} {last:?}");
        assert_eq!(steps(Some("/a")).0, 10, "before the prefix");
    }
}
