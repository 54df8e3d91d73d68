//! The file: its layout, how it is made, and how a damaged one is told from a good one.

use super::connect;
use crate::error::{Error, Result};
use crate::types::Revision;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `PRAGMA application_id` of our files: "KEYS".
const APPLICATION_ID: i32 = 0x4b45_5953;
/// `PRAGMA user_version`: the version of the layout.
const LAYOUT: i32 = 1;

const TABLES: &str = "
    CREATE TABLE record (
        key      TEXT PRIMARY KEY NOT NULL,
        value    BLOB NOT NULL,
        created  INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        lease    INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX record_lease ON record (lease) WHERE lease IS NOT NULL;
    CREATE TABLE counter (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO counter (name, value) VALUES ('revision', 0);
";

/// Opens the file for writing, and makes it where there is none.
pub(super) fn open(path: &Path) -> Result<Connection> {
    // Made before SQLite would, with its mode from the first moment on.
    private_file(path).map_err(|error| Error::Refused(format!("{}: {error}", path.display())))?;
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| classify(path, &error))?;
    prepare(&connection).map_err(|error| match error {
        Problem::Sqlite(error) => classify(path, &error),
        Problem::Other(why) => Error::Damaged(format!("{}: {why}", path.display())),
    })?;
    Ok(connection)
}

/// Ends the leases of the processes before this one. Returns the revision.
pub(super) fn end_leases(connection: &mut Connection) -> rusqlite::Result<Revision> {
    let transaction = connection.transaction()?;
    let deleted = transaction.execute("DELETE FROM record WHERE lease IS NOT NULL", [])?;
    if deleted > 0 {
        transaction.execute("UPDATE counter SET value = value + 1 WHERE name = 'revision'", [])?;
    }
    let revision = counter(&transaction, "revision")?;
    transaction.commit()?;
    Ok(Revision(revision))
}

/// A counter of the store.
pub(super) fn counter(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT value FROM counter WHERE name = ?1")?.query_row([name], |row| row.get(0))
}

/// What an error of SQLite means to a caller whose transaction was rolled back, or who only read.
pub(super) fn classify(path: &Path, error: &rusqlite::Error) -> Error {
    let text = format!("{}: {error}", path.display());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Damaged(text),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OperationInterrupted) => Error::Unavailable(text),
        _ => Error::Refused(text),
    }
}

/// A file that only its owner may read, made where there is none.
pub(super) fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

enum Problem {
    Sqlite(rusqlite::Error),
    Other(String),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn prepare(connection: &Connection) -> std::result::Result<(), Problem> {
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let layout: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, layout, tables) {
        (0, 0, 0) => {
            connection
                .execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {LAYOUT}; COMMIT;"))?;
        }
        (APPLICATION_ID, LAYOUT, _) => {}
        (APPLICATION_ID, newer, _) => return Err(Problem::Other(format!("the layout is version {newer}, and this program knows version {LAYOUT}"))),
        _ => return Err(Problem::Other("this is a SQLite file, but not a store of Keystead".to_owned())),
    }
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(Problem::Other(check.lines().next_back().unwrap_or_default().to_owned()));
    }
    // Also the answer to what a backup with another journal mode would bring along.
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Problem::Other(format!("the journal mode is {mode}, and WAL cannot be had")));
    }
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA trusted_schema = OFF;")?;
    Ok(())
}
