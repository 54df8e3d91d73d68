//! The file of the SQLite backend: damaged, foreign, lost, in use, full, looked at from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use keystead_store::sqlite::SqliteStore;
use keystead_store::{Compare, Error, Range, Store, Txn};
use std::path::{Path, PathBuf};
use std::time::Duration;

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

/// A store with a hundred records, closed.
async fn made() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).await.unwrap();
    for n in 0..100 {
        store.transact(Txn::new().put(format!("/{n:03}"), vec![n as u8; 1_000])).await.unwrap();
    }
    store.close().await;
    Place { _folder: folder, path }
}

async fn damaged(path: &Path) -> String {
    match SqliteStore::open(path).await {
        Err(Error::Damaged(why)) => {
            assert!(why.contains("store.db") && !why.contains('\n'), "one line that names the file: {why}");
            why
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opens"),
    }
}

#[tokio::test]
async fn what_is_no_store_is_said_to_be_damaged() {
    for content in [b"".as_slice(), b"this is no database".repeat(500).as_slice(), &[0u8; 8_192]] {
        let place = made().await;
        std::fs::write(&place.path, content).unwrap();
        damaged(&place.path).await;
    }
    let place = made().await;
    let content = std::fs::read(&place.path).unwrap();
    std::fs::write(&place.path, &content[..content.len() / 2]).unwrap();
    damaged(&place.path).await;
    let mut flipped = content.clone();
    for byte in flipped.iter_mut().skip(4_096).step_by(97) {
        *byte ^= 0x55;
    }
    std::fs::write(&place.path, &flipped).unwrap();
    damaged(&place.path).await;
    std::fs::write(&place.path, &content).unwrap();
    assert!(SqliteStore::open(&place.path).await.is_ok(), "the file itself was good");
}

/// Who copies the file of a node that was stopped copies all of it.
#[tokio::test]
async fn a_closed_store_is_one_file() {
    let place = made().await;
    let store = std::sync::Arc::new(SqliteStore::open(&place.path).await.unwrap());
    // Those who read at that moment are waited for.
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move { while store.range(Range::prefix("/", 1_000)).await.is_ok() {} })
        })
        .collect();
    store.transact(Txn::new().put("/last", "1")).await.unwrap();
    store.close().await;
    for reader in readers {
        reader.await.unwrap();
    }
    let log = |suffix: &str| PathBuf::from(format!("{}{suffix}", place.path.display())).exists();
    assert!(!log("-wal") && !log("-shm"));
    let alone = place.path.with_file_name("alone.db");
    std::fs::copy(&place.path, &alone).unwrap();
    assert!(SqliteStore::open(&alone).await.unwrap().get("/last").await.unwrap().is_some());
}

#[tokio::test]
async fn foreign_and_newer_files_are_left_alone() {
    let place = made().await;
    std::fs::remove_file(&place.path).unwrap();
    let foreign = rusqlite::Connection::open(&place.path).unwrap();
    foreign.execute_batch("CREATE TABLE t (x); PRAGMA application_id = 7;").unwrap();
    drop(foreign);
    assert!(damaged(&place.path).await.contains("not a store of Keystead"));
    let place = made().await;
    rusqlite::Connection::open(&place.path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(damaged(&place.path).await.contains("version 99"));
}

#[tokio::test]
async fn one_process_at_a_time() {
    let place = made().await;
    let store = SqliteStore::open(&place.path).await.unwrap();
    assert!(matches!(SqliteStore::open(&place.path).await, Err(Error::InUse(_))));
    store.close().await;
    assert!(matches!(store.get("/001").await, Err(Error::Unavailable(_))));
    assert!(SqliteStore::open(&place.path).await.is_ok());
}

#[tokio::test]
async fn a_first_start_that_crashed_is_started_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    std::fs::write(folder.path().join("store.db.new"), "half of a file").unwrap();
    std::fs::write(folder.path().join("store.db.new-journal"), "half of a journal").unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    store.transact(Txn::new().put("/a", "1")).await.unwrap();
}

#[tokio::test]
async fn others_may_look_and_back_up_while_it_runs() {
    let place = made().await;
    let store = SqliteStore::open(&place.path).await.unwrap();
    let outside = rusqlite::Connection::open_with_flags(&place.path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let copy = place.path.with_file_name("backup.db");
    outside.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    store.transact(Txn::new().delete("/000")).await.unwrap();
    let count: i64 = outside.query_row("SELECT count(*) FROM record", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 99);
    let backup = SqliteStore::open(&copy).await.unwrap();
    assert_eq!(backup.range(Range::prefix("/", 1_000)).await.unwrap().entries.len(), 100);
}

#[tokio::test]
async fn a_writer_that_holds_the_file_for_long_is_waited_for_and_then_reported() {
    let place = made().await;
    let store = SqliteStore::open(&place.path).await.unwrap();
    let outside = rusqlite::Connection::open(&place.path).unwrap();
    outside.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(store.transact(Txn::new().put("/x", "1")).await, Err(Error::Unavailable(_))));
    assert!(store.get("/001").await.unwrap().is_some(), "reads go on");
    outside.execute_batch("ROLLBACK").unwrap();
    store.transact(Txn::new().when(Compare::Absent("/x".into())).put("/x", "1")).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_is_over_stays_over_while_its_keys_cannot_be_deleted() {
    let place = made().await;
    let store = SqliteStore::open(&place.path).await.unwrap();
    let lease = store.grant_lease(Duration::from_secs(1)).await.unwrap();
    let claim = store.transact(Txn::new().put_leased("/claim", "mine", lease)).await.unwrap();
    let outside = rusqlite::Connection::open(&place.path).unwrap();
    outside.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The writer waits for the file when the lease runs out, and cannot have it. What comes after that must not find the claim again.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while store.renew_lease(lease).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    outside.execute_batch("ROLLBACK").unwrap();
    assert!(matches!(store.transact(Txn::new().when(Compare::Unchanged("/claim".into(), claim)).put("/work", "1")).await, Err(Error::Conflict { .. })));
    assert_eq!(store.renew_lease(lease).await, Err(Error::LeaseGone));
}

#[tokio::test]
async fn a_write_that_fails_in_the_middle_is_refused_and_the_store_recovers() {
    let place = made().await;
    let store = SqliteStore::open(&place.path).await.unwrap();
    // A limit on pages belongs to a connection, and the writer's is not ours; a trigger fails in the same place, in the middle of a transaction.
    let outside = rusqlite::Connection::open(&place.path).unwrap();
    outside.execute_batch("CREATE TRIGGER full BEFORE INSERT ON record BEGIN SELECT RAISE(FAIL, 'the disk is full, says the test'); END").unwrap();
    assert!(matches!(store.transact(Txn::new().put("/new", "1")).await, Err(Error::Refused(_))));
    assert!(store.get("/new").await.unwrap().is_none() && store.get("/001").await.unwrap().is_some());
    outside.execute_batch("DROP TRIGGER full").unwrap();
    store.transact(Txn::new().put("/new", "1")).await.unwrap();
}

#[tokio::test]
async fn a_history_that_is_too_old_is_said_to_be_compacted() {
    let place = made().await;
    let store = SqliteStore::open(&place.path).await.unwrap();
    let now = store.range(Range::prefix("/", 1)).await.unwrap().revision;
    assert!(store.watch("/", now).await.is_ok());
    assert!(matches!(store.watch("/", keystead_store::Revision(now.0 - 1)).await, Err(Error::Compacted { .. })), "before this process");
    // A watcher that does not read is told that it has missed something, and nobody waits for it.
    let mut slow = store.watch("/", now).await.unwrap();
    for n in 0..9_000 {
        store.transact(Txn::new().put("/w", n.to_string())).await.unwrap();
    }
    let mut seen = 0;
    loop {
        match slow.next().await {
            Some(Ok(_)) => seen += 1,
            Some(Err(Error::Compacted { .. })) => break,
            other => panic!("after {seen}: {other:?}"),
        }
    }
    assert!(seen > 0 && slow.next().await.is_none());
}

/// A runtime that ends before the store does, as when a test fails, must not take the writer with it.
#[test]
fn the_writer_outlives_the_runtime_that_it_was_opened_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let store = first.block_on(async {
        let store = SqliteStore::open(&path).await.unwrap();
        store.grant_lease(Duration::from_secs(60)).await.unwrap();
        store
    });
    drop(first);
    runtime().block_on(async {
        store.transact(Txn::new().put("/a", "1")).await.unwrap();
        assert_eq!(store.get("/a").await.unwrap().unwrap().value, "1");
        store.close().await;
    });
}
