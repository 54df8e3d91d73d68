//! Copying one store into another, and the local copy of a cluster's store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use keystead_store::copy::{MARK, OF_BACKUP, begin, copy, write};
use keystead_store::mirror::MirroredStore;
use keystead_store::sqlite::SqliteStore;
use keystead_store::{Error, Event, Range, Revision, Store, Txn};
use std::sync::Arc;
use std::time::Duration;

async fn sqlite(folder: &tempfile::TempDir, name: &str) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&folder.path().join(name)).await.unwrap())
}

async fn all(store: &dyn Store) -> Vec<(String, Vec<u8>)> {
    let page = store.range(Range::prefix("/", 100_000)).await.unwrap();
    page.entries.into_iter().map(|entry| (entry.key, entry.value.to_vec())).collect()
}

async fn fill(store: &dyn Store, count: usize) {
    for batch in (0..count).collect::<Vec<_>>().chunks(100) {
        let txn = batch.iter().fold(Txn::new(), |txn, n| txn.put(format!("/records/{n:06}"), format!("value {n}")));
        store.transact(txn).await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_is_the_same_and_needs_an_empty_store() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (sqlite(&folder, "from.db").await, sqlite(&folder, "to.db").await);
    fill(&*from, 2_500).await;
    from.transact(Txn::new().put("/large/1", vec![1; 1_000_000]).put("/large/0", vec![0; 300_000])).await.unwrap();
    from.transact(Txn::new().put("/large/2", vec![2; 1_000_000])).await.unwrap();
    let expected = all(&*from).await;
    let lease = from.grant_lease(Duration::from_secs(60)).await.unwrap();
    from.transact(Txn::new().put_leased("/claim", "", lease)).await.unwrap();
    assert!(matches!(copy(&*from, &*sqlite(&folder, "other.db").await, |_| {}).await, Err(Error::Refused(why)) if why.contains("/claim")));
    from.revoke_lease(lease).await.unwrap();
    let mut told = Vec::new();
    assert_eq!(copy(&*from, &*to, |progress| told.push(progress)).await, Ok(2_503));
    assert!(told.len() >= 6, "{told:?}");
    assert_eq!(all(&*to).await, expected);
    assert!(matches!(copy(&*from, &*to, |_| {}).await, Err(Error::Refused(_))), "nothing is written over");
}

#[tokio::test]
async fn a_copy_that_was_ended_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (sqlite(&folder, "from.db").await, sqlite(&folder, "to.db").await);
    fill(&*from, 300).await;
    // As a process leaves it that dies in the middle.
    to.transact(Txn::new().put(MARK, from.describe()).put("/records/000000", "value 0")).await.unwrap();
    assert!(matches!(copy(&*to, &*sqlite(&folder, "third.db").await, |_| {}).await, Err(Error::Refused(_))), "half a copy is no source");
    assert_eq!(copy(&*from, &*to, |_| {}).await, Ok(300));
    assert_eq!(all(&*to).await, all(&*from).await);
    assert_eq!(to.get(MARK).await, Ok(None));
}

#[tokio::test]
async fn what_is_half_something_else_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (sqlite(&folder, "from.db").await, sqlite(&folder, "to.db").await);
    fill(&*from, 3).await;
    for (value, advice) in [("another store", "keystead store copy again"), (&format!("{OF_BACKUP}Monday"), "keystead restore again")] {
        to.transact(Txn::new().put(MARK, value.to_owned()).put("/records/000009", "of something else")).await.unwrap();
        for refused in [copy(&*from, &*to, |_| {}).await, copy(&*to, &*from, |_| {}).await] {
            assert!(matches!(&refused, Err(Error::Refused(why)) if why.contains(value) && why.contains(advice)), "{refused:?}");
        }
        assert_eq!(all(&*to).await.len(), 2, "nothing was written");
    }
}

#[tokio::test]
async fn who_is_overtaken_writes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let to = sqlite(&folder, "to.db").await;
    let (one, other) = (begin(&*to, "one").await.unwrap(), begin(&*to, "one").await.unwrap());
    assert_eq!(one, other, "the same is gone on with");
    write(&*to, &one, Txn::new().put("/a", "")).await.unwrap();
    write(&*to, &one, Txn::new().delete(MARK)).await.unwrap();
    for txn in [Txn::new().put("/b", ""), Txn::new().delete(MARK)] {
        assert!(matches!(write(&*to, &other, txn.clone()).await, Err(Error::Refused(_))), "the mark is gone");
        to.transact(Txn::new().put(MARK, "one")).await.unwrap();
        assert!(matches!(write(&*to, &other, txn).await, Err(Error::Refused(_))), "another mark of the same words");
        to.transact(Txn::new().delete(MARK)).await.unwrap();
    }
    assert!(matches!(begin(&*to, "one").await, Err(Error::Refused(why)) if why.contains("has records already")));
    assert_eq!(all(&*to).await.len(), 1);
}

#[tokio::test]
async fn a_record_that_only_the_destination_has_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (sqlite(&folder, "from.db").await, sqlite(&folder, "to.db").await);
    fill(&*from, 5).await;
    to.transact(Txn::new().put(MARK, from.describe()).put("/zzz", "")).await.unwrap();
    assert!(matches!(copy(&*from, &*to, |_| {}).await, Err(Error::Refused(why)) if why.contains("/zzz")));
    assert!(to.get(MARK).await.unwrap().is_some(), "it is no whole copy");
}

/// A local copy of a store that is here a SQLite file as well.
async fn mirrored(store: &Arc<dyn Store>, folder: &tempfile::TempDir) -> MirroredStore {
    MirroredStore::open(Arc::clone(store), &folder.path().join("copy.db")).await.unwrap()
}

async fn complete(store: &MirroredStore) -> Revision {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(revision) = store.copied().await.unwrap() {
            return revision;
        }
        assert!(tokio::time::Instant::now() < deadline, "the copy must become complete");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_local_copy_has_all_and_follows() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(&folder, "store.db").await;
    fill(&*store, 2_500).await;
    let copy = mirrored(&store, &folder).await;
    assert_eq!(copy.copied().await, Ok(None));
    let start = copy.range_recent(Range::prefix("/", 1)).await.unwrap().revision;
    let mut watch = copy.watch("/", start).await.unwrap();
    // Changes come while it is made.
    for n in 0..200 {
        store.transact(Txn::new().put(format!("/records/{n:06}"), "changed").delete(format!("/records/{:06}", 2_400 + n % 100))).await.unwrap();
    }
    for _ in 0..200 {
        let batch = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap().unwrap();
        assert!(!batch.events.is_empty());
    }
    complete(&copy).await;
    let page = copy.range_recent(Range::prefix("/", 100_000)).await.unwrap();
    let copied: Vec<(String, Vec<u8>)> = page.entries.into_iter().map(|entry| (entry.key, entry.value.to_vec())).collect();
    assert_eq!(copied, all(&*store).await);
    // What the node has been shown is in the copy.
    let last = store.transact(Txn::new().put("/last", "1")).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert!(batch.revision == last && matches!(&batch.events[..], [Event::Put(entry)] if entry.key == "/last"));
    assert_eq!(copy.copied().await, Ok(Some(last)));
    drop((watch, copy));

    // A process that starts again goes on from there, and reads nothing twice.
    let missed = store.transact(Txn::new().put("/missed", "1")).await.unwrap();
    let again = mirrored(&store, &folder).await;
    let page = again.range_recent(Range::prefix("/last", 10)).await.unwrap();
    assert_eq!((page.revision, page.entries.len()), (last, 1));
    let mut watch = again.watch("/", page.revision).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, missed);
    assert_eq!(again.copied().await, Ok(Some(missed)));
}

#[tokio::test]
async fn the_copy_of_another_store_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (sqlite(&folder, "one.db").await, sqlite(&folder, "other.db").await);
    fill(&*one, 10).await;
    let copy = mirrored(&one, &folder).await;
    let start = copy.range(Range::prefix("/", 1)).await.unwrap().revision;
    let watch = copy.watch("/", start).await.unwrap();
    complete(&copy).await;
    drop((watch, copy));
    let moved = mirrored(&other, &folder).await;
    let page = moved.range_recent(Range::prefix("/", 100)).await.unwrap();
    assert_eq!(page.entries.len(), 10, "without the store, nobody can know");
    let mut watch = moved.watch("/", page.revision).await.unwrap();
    assert!(matches!(watch.next().await, Some(Err(Error::Compacted { .. }))), "who has read it is told to read anew");
    assert_eq!(moved.range_recent(Range::prefix("/", 100)).await.unwrap().entries.len(), 0);
}
