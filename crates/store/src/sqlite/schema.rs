//! The file: its layout, how it is made, and how a damaged one is told from a good one.

use super::connect;
use crate::error::{Error, Result};
use crate::types::Revision;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

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
    let refused = |error: std::io::Error| Error::Refused(format!("{}: {error}", path.display()));
    if !path.try_exists().map_err(refused)? {
        create(path)?;
    }
    // An older mode, or that of a backup that was put back.
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(refused)?;
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| classify(path, &error))?;
    prepare(&connection).map_err(|problem| problem.of(path))?;
    Ok(connection)
}

/// Refuses a file that is no store, or one of a layout that this program does not know.
pub(super) fn check(path: &Path, connection: &Connection) -> Result<()> {
    know(connection).map_err(|problem| problem.of(path))
}

/// Makes the file under another name and puts it in place when it is complete. So a file that is there but empty is a file that was lost, not one that a crash kept from being made.
fn create(path: &Path) -> Result<()> {
    let refused = |error: std::io::Error| Error::Refused(format!("{}: {error}", path.display()));
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut left = new.as_os_str().to_owned();
        left.push(suffix);
        match std::fs::remove_file(&left) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(refused(error)),
            _ => {}
        }
    }
    private_file(&new).map_err(refused)?;
    let connection = connect(&new, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| classify(&new, &error))?;
    let made = connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL; BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {LAYOUT}; COMMIT;"
    ));
    made.map_err(|error| classify(&new, &error))?;
    connection.close().map_err(|(_, error)| classify(&new, &error))?;
    std::fs::rename(&new, path).map_err(refused)?;
    // The name is only durable when the folder is.
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder).and_then(|folder| folder.sync_all()).map_err(refused),
        None => Ok(()),
    }
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
pub(crate) fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

enum Problem {
    Sqlite(rusqlite::Error),
    Other(String),
}

impl Problem {
    fn of(self, path: &Path) -> Error {
        match self {
            Self::Sqlite(error) => classify(path, &error),
            Self::Other(why) => Error::Damaged(format!("{}: {why}", path.display())),
        }
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn prepare(connection: &Connection) -> std::result::Result<(), Problem> {
    know(connection)?;
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

/// That it is a store, and of a layout that this program knows.
fn know(connection: &Connection) -> std::result::Result<(), Problem> {
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let layout: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match (application, layout) {
        (APPLICATION_ID, LAYOUT) => Ok(()),
        (APPLICATION_ID, newer) => Err(Problem::Other(format!("the layout is version {newer}, and this program knows version {LAYOUT}"))),
        (0, 0) => Err(Problem::Other("this is no store of Keystead; if it has lost its content, put the last backup back".to_owned())),
        _ => Err(Problem::Other("this is a SQLite file, but not a store of Keystead".to_owned())),
    }
}
