//! A moment of a store in a file, which another process may have open and go on writing: in WAL mode, a transaction that reads sees what was there when it began.

use super::{blocking, connect, reader, schema};
use crate::error::{Error, Result};
use crate::snapshot::{PAGE, Snapshot};
use crate::types::{Entry, Range, Revision};
use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A moment of the store in a file.
pub struct SqliteSnapshot {
    path: PathBuf,
    // With a transaction open, which ends with the connection.
    connection: Arc<Mutex<Connection>>,
    revision: Revision,
    after: Option<String>,
    is_over: bool,
}

impl SqliteSnapshot {
    /// Takes it now.
    ///
    /// # Errors
    /// [`Error::Refused`]: there is no such file, or it cannot be read. [`Error::Damaged`]: it is no store of this version.
    pub async fn take(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        blocking(move || {
            if !path.exists() {
                return Err(Error::Refused(format!("there is no store {}", path.display())));
            }
            let classify = |error: rusqlite::Error| schema::classify(&path, &error);
            // Not for reading alone: where no node runs, the last connection brings the log into the file again, as it found it.
            let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(classify)?;
            schema::check(&path, &connection)?;
            connection.execute_batch("PRAGMA query_only = ON; BEGIN").map_err(classify)?;
            let revision = Revision(schema::counter(&connection, "revision").map_err(classify)?);
            Ok(Self { path, connection: Arc::new(Mutex::new(connection)), revision, after: None, is_over: false })
        })
        .await
    }
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    fn revision(&self) -> Revision {
        self.revision
    }

    async fn get(&mut self, key: &str) -> Result<Option<Entry>> {
        let (connection, path, key) = (Arc::clone(&self.connection), self.path.clone(), key.to_owned());
        blocking(move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            reader::get(&connection, &key).map_err(|error| schema::classify(&path, &error))
        })
        .await
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        if self.is_over {
            return Ok(None);
        }
        let range = Range { after: self.after.clone(), ..Range::prefix("/", PAGE) };
        let (connection, path) = (Arc::clone(&self.connection), self.path.clone());
        let (entries, more) = blocking(move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            reader::entries(&connection, &range).map_err(|error| schema::classify(&path, &error))
        })
        .await?;
        self.is_over = !more;
        self.after = entries.last().map(|entry| entry.key.clone());
        Ok((!entries.is_empty()).then_some(entries))
    }
}
