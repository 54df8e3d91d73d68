//! The file of the copy: a SQLite database of its own.
//!
//! A commit is not synced: after a loss of power the file is what it was at some commit before, and says which. While it is made anew, what was deleted stays as a row without a value, so
//! that an older page does not bring it back; rows that the new copy has not seen are deleted at its end.

use crate::error::{Error, Result};
use crate::types::{Entry, Event, EventBatch, Page, Range, Revision};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// `PRAGMA user_version`: another layout is made anew.
const LAYOUT: i32 = 1;

const TABLES: &str = "
    CREATE TABLE record (
        key      TEXT PRIMARY KEY NOT NULL,
        value    BLOB,
        created  INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        lease    INTEGER,
        copy     INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE meta (
        one      INTEGER PRIMARY KEY CHECK (one = 1),
        identity TEXT,
        revision INTEGER NOT NULL,
        complete INTEGER NOT NULL,
        copy     INTEGER NOT NULL
    );
    INSERT INTO meta (one, identity, revision, complete, copy) VALUES (1, NULL, 0, 0, 0);
";

pub(super) struct File {
    inner: Arc<Mutex<Inner>>,
}

pub(super) struct Inner {
    path: PathBuf,
    connection: Connection,
}

/// What the copy is of.
pub(super) struct Meta {
    pub identity: Option<String>,
    /// Up to where changes are in it.
    pub revision: Revision,
    /// Whether it has all records.
    pub complete: bool,
    /// Which time it was made.
    pub copy: u64,
}

impl File {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let connection = match open(path) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "the local copy of the store is made anew");
                remove(path)?;
                open(path).map_err(|error| refused(path, &error))?
            }
        };
        Ok(Self { inner: Arc::new(Mutex::new(Inner { path: path.to_owned(), connection })) })
    }

    /// Works on the file, away from the threads of the runtime.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce(&mut Inner) -> rusqlite::Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || {
            let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut inner).map_err(|error| refused(&inner.path, &error))
        });
        done.await.unwrap_or_else(|error| Err(Error::Unavailable(format!("a task of the store failed: {error}"))))
    }
}

impl Inner {
    pub(super) fn meta(&self) -> rusqlite::Result<Meta> {
        self.connection
            .prepare_cached("SELECT identity, revision, complete, copy FROM meta")?
            .query_row([], |row| Ok(Meta { identity: row.get(0)?, revision: Revision(row.get(1)?), complete: row.get(2)?, copy: row.get(3)? }))
    }

    /// Makes the copy one of this store. Answers whether it was one of any, and whether that was another.
    pub(super) fn belongs_to(&mut self, identity: &str) -> rusqlite::Result<(bool, bool)> {
        let known = self.meta()?.identity;
        let of_another = known.as_deref() != Some(identity);
        if of_another {
            let transaction = self.connection.transaction()?;
            transaction.execute("DELETE FROM record", [])?;
            transaction.execute("UPDATE meta SET identity = ?1, revision = 0, complete = 0", [identity])?;
            transaction.commit()?;
        }
        Ok((known.is_some(), of_another))
    }

    /// Changes after `after` will come. Where the copy does not show all up to it, it must be made anew: answers the number of the new one.
    pub(super) fn goes_on_after(&mut self, after: Revision) -> rusqlite::Result<Option<u64>> {
        let meta = self.meta()?;
        if meta.complete && meta.revision >= after {
            return Ok(None);
        }
        let copy = meta.copy + 1;
        self.connection.execute("UPDATE meta SET complete = 0, copy = ?1, revision = ?2", (copy, after.0))?;
        Ok(Some(copy))
    }

    /// Takes changes over.
    pub(super) fn apply(&mut self, batches: &[EventBatch]) -> rusqlite::Result<()> {
        let meta = self.meta()?;
        let transaction = self.connection.transaction()?;
        for batch in batches {
            for event in &batch.events {
                match event {
                    Event::Put(entry) => put(&transaction, entry, meta.copy)?,
                    Event::Delete { key } if meta.complete => {
                        transaction.prepare_cached("DELETE FROM record WHERE key = ?1 AND revision <= ?2")?.execute((key, batch.revision.0))?;
                    }
                    Event::Delete { key } => {
                        transaction
                            .prepare_cached(
                                "INSERT INTO record (key, value, created, revision, copy) VALUES (?1, NULL, 0, ?2, ?3)
                                 ON CONFLICT (key) DO UPDATE SET value = NULL, lease = NULL, revision = excluded.revision, copy = excluded.copy
                                 WHERE excluded.revision >= revision",
                            )?
                            .execute((key, batch.revision.0, meta.copy))?;
                    }
                }
            }
        }
        if let Some(last) = batches.last() {
            transaction.execute("UPDATE meta SET revision = ?1 WHERE revision < ?1", [last.revision.0])?;
        }
        transaction.commit()
    }

    /// Takes records of a new copy over. Answers whether that is still the one that is made.
    pub(super) fn add(&mut self, entries: &[Entry], copy: u64) -> rusqlite::Result<bool> {
        if self.meta()?.copy != copy {
            return Ok(false);
        }
        let transaction = self.connection.transaction()?;
        for entry in entries {
            put(&transaction, entry, copy)?;
        }
        transaction.commit()?;
        Ok(true)
    }

    /// All records have been read: from now on they can be read here, once the changes up to `revision` have come in. Answers whether they have.
    pub(super) fn finish(&mut self, copy: u64, revision: Revision) -> rusqlite::Result<bool> {
        let meta = self.meta()?;
        if meta.copy != copy || meta.revision < revision {
            return Ok(false);
        }
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM record WHERE copy <> ?1 OR value IS NULL", [copy])?;
        transaction.execute("UPDATE meta SET complete = 1", [])?;
        transaction.commit()?;
        Ok(true)
    }

    /// The copy has a gap from now on.
    pub(super) fn give_up(&mut self) -> rusqlite::Result<()> {
        self.connection.execute("UPDATE meta SET complete = 0, copy = copy + 1", []).map(drop)
    }

    /// A part of a range; `None` while the copy is not complete.
    pub(super) fn range(&mut self, range: &Range) -> rusqlite::Result<Option<Page>> {
        let meta = self.meta()?;
        if !meta.complete {
            return Ok(None);
        }
        let (entries, more) = crate::sqlite::entries(&self.connection, range)?;
        Ok(Some(Page { entries, revision: meta.revision, more }))
    }
}

/// A later version of a record is not replaced by an earlier one.
fn put(connection: &Connection, entry: &Entry, copy: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO record (key, value, created, revision, lease, copy) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (key) DO UPDATE SET
                 value = CASE WHEN excluded.revision >= revision THEN excluded.value ELSE value END,
                 created = CASE WHEN excluded.revision >= revision THEN excluded.created ELSE created END,
                 lease = CASE WHEN excluded.revision >= revision THEN excluded.lease ELSE lease END,
                 revision = max(excluded.revision, revision),
                 copy = excluded.copy",
        )?
        .execute((&entry.key, entry.value.as_ref(), entry.created.0, entry.revision.0, entry.lease.map(|lease| lease.0), copy))
        .map(drop)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    if !path.exists() {
        crate::sqlite::private_file(path).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    }
    let connection = crate::sqlite::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // A copy that is lost is made anew; what must not happen is that it is wrong, and a commit is whole or not there without a sync too.
    let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA trusted_schema = OFF;")?;
    let layout: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: Option<i64> = connection.query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |row| row.get(0)).optional()?;
    match (layout, tables) {
        (LAYOUT, _) => {
            let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if check != "ok" {
                return Err(rusqlite::Error::InvalidParameterName(check));
            }
        }
        (0, None) => connection.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {LAYOUT}; COMMIT;"))?,
        _ => return Err(rusqlite::Error::InvalidParameterName(format!("the layout is version {layout}"))),
    }
    Ok(connection)
}

fn remove(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::Refused(format!("{}: {error}", path.display()))),
            _ => {}
        }
    }
    Ok(())
}

fn refused(path: &Path, error: &rusqlite::Error) -> Error {
    Error::Refused(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn at(key: &str, value: &str, revision: u64) -> Entry {
        Entry { key: key.to_owned(), value: Bytes::from(value.to_owned()), created: Revision(revision), revision: Revision(revision), lease: None }
    }

    fn change(revision: u64, event: Event) -> EventBatch {
        EventBatch { revision: Revision(revision), events: vec![event] }
    }

    fn keys(file: &mut Inner) -> Vec<(String, String)> {
        let page = file.range(&Range::prefix("/", 100)).unwrap().unwrap();
        page.entries.into_iter().map(|entry| (entry.key, String::from_utf8(entry.value.to_vec()).unwrap())).collect()
    }

    fn new() -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let file = File::open(&folder.path().join("copy.db")).unwrap();
        (folder, file)
    }

    #[test]
    fn changes_and_pages_may_come_in_any_order() {
        let (_folder, file) = new();
        let mut file = file.inner.lock().unwrap();
        assert_eq!(file.belongs_to("a").unwrap(), (false, true));
        let copy = file.goes_on_after(Revision(10)).unwrap().unwrap();
        assert!(file.range(&Range::prefix("/", 1)).unwrap().is_none(), "nothing is read before all is there");
        // A later change, then the page that is older; a deletion, then the page that still has it.
        file.apply(&[change(12, Event::Put(at("/a", "new", 12))), change(13, Event::Delete { key: "/b".to_owned() })]).unwrap();
        assert!(file.add(&[at("/a", "old", 5), at("/b", "gone", 6), at("/c", "kept", 7)], copy).unwrap());
        assert!(!file.finish(copy, Revision(14)).unwrap(), "a page has shown what has not come in yet");
        file.apply(&[change(14, Event::Put(at("/d", "last", 14)))]).unwrap();
        assert!(file.finish(copy, Revision(14)).unwrap());
        let expected = [("/a", "new"), ("/c", "kept"), ("/d", "last")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(keys(&mut file), expected);
        assert_eq!(file.goes_on_after(Revision(14)).unwrap(), None);
        file.apply(&[change(15, Event::Delete { key: "/a".to_owned() })]).unwrap();
        assert_eq!(keys(&mut file), expected[1..]);
    }

    #[test]
    fn a_new_copy_has_nothing_of_the_one_before() {
        let (_folder, file) = new();
        let mut file = file.inner.lock().unwrap();
        file.belongs_to("a").unwrap();
        let first = file.goes_on_after(Revision(1)).unwrap().unwrap();
        file.add(&[at("/gone", "", 1), at("/stays", "", 1)], first).unwrap();
        assert!(file.finish(first, Revision(1)).unwrap());
        // The node was away: what happened up to revision 9 is not known.
        let second = file.goes_on_after(Revision(9)).unwrap().unwrap();
        assert!(!file.add(&[at("/late", "", 1)], first).unwrap(), "who still makes the first one is told to stop");
        file.add(&[at("/stays", "", 1)], second).unwrap();
        assert!(file.finish(second, Revision(9)).unwrap());
        assert_eq!(keys(&mut file), [("/stays".to_owned(), String::new())]);
        assert_eq!(file.belongs_to("b").unwrap(), (true, true));
        assert!(file.range(&Range::prefix("/", 1)).unwrap().is_none(), "the copy of another store is none");
    }

    #[test]
    fn a_damaged_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy.db");
        std::fs::write(&path, vec![7; 10_000]).unwrap();
        let file = File::open(&path).unwrap();
        assert!(!file.inner.lock().unwrap().meta().unwrap().complete);
    }
}
