#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test suite, though it lives beside the code.

//! The contract suite: what every backend must do. A new backend writes a [`Fixture`] and one line, `keystead_store::contract_tests!(fixture)`.

use crate::{Compare, Error, Event, EventBatch, MAX_TXN_OPS, MAX_VALUE_BYTES, Range, Revision, Store, Txn, Watch};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// How long a case waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Gives the suite empty stores.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The store of this fixture. Calling it again, after the last store was closed with [`Fixture::close`], opens the same data anew.
    async fn open(&self) -> Arc<dyn Store>;

    /// Closes a store as a process that ends would.
    async fn close(&self, store: Arc<dyn Store>);
}

/// Makes one test of each case. `$fixture` is an expression that gives a new, empty [`Fixture`].
#[macro_export]
macro_rules! contract_tests {
    ($fixture:expr) => {
        $crate::contract_tests!(@cases $fixture;
            reads_its_own_writes, missing_keys_are_none, values_are_any_bytes, ranges_are_ordered_and_exact, ranges_go_on_after_a_key,
            a_transaction_is_all_or_nothing, comparisons_hold_and_fail, the_first_failed_comparison_is_named, a_check_without_writes_changes_nothing,
            created_and_revision_are_kept, concurrent_increments_lose_nothing, one_of_many_creates_wins, a_stale_claim_cannot_write, a_claim_is_gone_with_its_lease,
            a_renewed_lease_lives_on, a_revoked_lease_is_gone, a_put_without_lease_makes_a_key_permanent, watches_see_every_change_in_order, watches_resume_without_gaps,
            watches_keep_to_their_prefix, a_watch_of_everything_reaches_every_revision, watches_see_leases_end, bounds_are_enforced, data_outlives_the_process, revisions_grow_over_a_restart
        );
    };
    (@cases $fixture:expr; $($case:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::contract::$case(&$fixture).await;
            }
        )*
    };
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.transact(Txn::new().put(key, value.to_owned())).await.expect("a plain put")
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    store.get(key).await.expect("a get").map(|entry| String::from_utf8(entry.value.to_vec()).expect("text"))
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.range(Range::prefix(prefix, 1_000)).await.expect("a range").entries.into_iter().map(|entry| entry.key).collect()
}

async fn next(watch: &mut Watch) -> EventBatch {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a change in time").expect("an open watch").expect("no error")
}

fn conflict(key: &str) -> Result<Revision, Error> {
    Err(Error::Conflict { key: key.to_owned() })
}

#[allow(missing_docs)]
pub async fn reads_its_own_writes(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for n in 0..50 {
        let text = n.to_string();
        let revision = put(&*store, "/a", &text).await;
        let entry = store.get("/a").await.unwrap().unwrap();
        assert_eq!((entry.value.as_ref(), entry.revision), (text.as_bytes(), revision));
    }
}

#[allow(missing_docs)]
pub async fn missing_keys_are_none(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.get("/nothing").await, Ok(None));
    store.transact(Txn::new().delete("/nothing")).await.expect("deleting nothing is no error");
    put(&*store, "/x", "1").await;
    store.transact(Txn::new().delete("/x")).await.unwrap();
    assert_eq!(store.get("/x").await, Ok(None));
}

#[allow(missing_docs)]
pub async fn values_are_any_bytes(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let all: Vec<u8> = (0..=255).collect();
    store.transact(Txn::new().put("/bytes", all.clone()).put("/empty", Vec::new())).await.unwrap();
    assert_eq!(store.get("/bytes").await.unwrap().unwrap().value, all);
    assert_eq!(store.get("/empty").await.unwrap().unwrap().value.len(), 0);
}

#[allow(missing_docs)]
pub async fn ranges_are_ordered_and_exact(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for key in ["/b/2", "/b/10", "/b", "/b/ü", "/a/1", "/c", "/b/\u{10ffff}", "/b/~", "/bb"] {
        put(&*store, key, "v").await;
    }
    assert_eq!(keys(&*store, "/b/").await, ["/b/10", "/b/2", "/b/~", "/b/ü", "/b/\u{10ffff}"]);
    assert_eq!(keys(&*store, "/zzz").await, [""; 0]);
    assert_eq!(keys(&*store, "").await.len(), 9);
    assert!(matches!(store.range(Range::prefix("/", 0)).await, Err(Error::TooLarge(_))));
}

#[allow(missing_docs)]
pub async fn ranges_go_on_after_a_key(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let all: Vec<String> = (0..25).map(|n| format!("/p/{n:02}")).collect();
    for key in &all {
        put(&*store, key, "v").await;
    }
    put(&*store, "/q", "after the range").await;
    let mut seen = Vec::new();
    let mut range = Range::prefix("/p/", 10);
    loop {
        let page = store.range(range.clone()).await.unwrap();
        range.after = page.entries.last().map(|entry| entry.key.clone());
        seen.extend(page.entries.into_iter().map(|entry| entry.key));
        assert_eq!(page.more, seen.len() < 25, "more after {} keys", seen.len());
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, all);
}

#[allow(missing_docs)]
pub async fn a_transaction_is_all_or_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    put(&*store, "/there", "1").await;
    let txn = Txn::new().when(Compare::Absent("/there".into())).put("/new", "x").delete("/there");
    assert_eq!(store.transact(txn).await, conflict("/there"));
    assert_eq!((value(&*store, "/new").await, value(&*store, "/there").await), (None, Some("1".into())));
    let revision = store.transact(Txn::new().put("/new", "x").put("/more", "y").delete("/there")).await.unwrap();
    assert_eq!(keys(&*store, "/").await, ["/more", "/new"]);
    assert_eq!(store.get("/new").await.unwrap().unwrap().revision, revision);
    assert_eq!(store.get("/more").await.unwrap().unwrap().revision, revision);
}

#[allow(missing_docs)]
pub async fn comparisons_hold_and_fail(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let old = put(&*store, "/k", "1").await;
    let new = put(&*store, "/k", "2").await;
    let check = async |compare: Compare| store.transact(Txn::new().when(compare)).await.is_ok();
    assert!(check(Compare::Present("/k".into())).await);
    assert!(!check(Compare::Absent("/k".into())).await);
    assert!(check(Compare::Unchanged("/k".into(), new)).await);
    assert!(!check(Compare::Unchanged("/k".into(), old)).await);
    assert!(!check(Compare::EmptyPrefix("/k".into())).await);
    assert!(!check(Compare::EmptyPrefix("/".into())).await);
    assert!(check(Compare::EmptyPrefix("/k/".into())).await);
    assert!(check(Compare::EmptyPrefix("/j".into())).await, "a prefix before all keys");
    assert!(check(Compare::Absent("/none".into())).await);
    assert!(!check(Compare::Present("/none".into())).await);
    assert!(!check(Compare::Unchanged("/none".into(), new)).await);
}

#[allow(missing_docs)]
pub async fn the_first_failed_comparison_is_named(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    put(&*store, "/a", "1").await;
    let txn = Txn::new().when(Compare::Present("/a".into())).when(Compare::Present("/b".into())).when(Compare::Absent("/a".into())).put("/c", "1");
    assert_eq!(store.transact(txn).await, conflict("/b"));
    let txn = Txn::new().when(Compare::EmptyPrefix("/".into())).when(Compare::Present("/b".into()));
    assert_eq!(store.transact(txn).await, conflict("/"));
}

#[allow(missing_docs)]
pub async fn a_check_without_writes_changes_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let revision = put(&*store, "/a", "1").await;
    assert_eq!(store.transact(Txn::new().when(Compare::Present("/a".into()))).await, Ok(revision));
    // A store that others have a part in counts what they write as well.
    assert!(store.range(Range::prefix("/", 1)).await.unwrap().revision >= revision);
    assert_eq!(store.transact(Txn::new()).await, Ok(revision));
}

#[allow(missing_docs)]
pub async fn created_and_revision_are_kept(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let first = put(&*store, "/a", "1").await;
    let second = put(&*store, "/a", "2").await;
    assert!(second > first);
    let entry = store.get("/a").await.unwrap().unwrap();
    assert_eq!((entry.created, entry.revision), (first, second));
    store.transact(Txn::new().delete("/a")).await.unwrap();
    let third = put(&*store, "/a", "3").await;
    assert_eq!(store.get("/a").await.unwrap().unwrap().created, third);
}

#[allow(missing_docs)]
pub async fn concurrent_increments_lose_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let start = put(&*store, "/n", "0").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for _ in 0..25 {
                loop {
                    let entry = store.get("/n").await.unwrap().unwrap();
                    let n: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                    let txn = Txn::new().when(Compare::Unchanged("/n".into(), entry.revision)).put("/n", (n + 1).to_string());
                    match store.transact(txn).await {
                        Ok(_) => break,
                        Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    assert_eq!(value(&*store, "/n").await.as_deref(), Some("200"));
    assert!(store.get("/n").await.unwrap().unwrap().revision.0 >= start.0 + 200);
}

#[allow(missing_docs)]
pub async fn one_of_many_creates_wins(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for round in 0..20 {
        let key = format!("/only/{round}");
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..8 {
            let (store, key) = (Arc::clone(&store), key.clone());
            tasks.spawn(async move { (n, store.transact(Txn::new().when(Compare::Absent(key.clone())).put(key, n.to_string())).await) });
        }
        let mut winners = Vec::new();
        while let Some(result) = tasks.join_next().await {
            match result.unwrap() {
                (n, Ok(_)) => winners.push(n.to_string()),
                (_, result) => assert_eq!(result, conflict(&key)),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(value(&*store, &key).await.as_ref(), winners.first());
    }
}

#[allow(missing_docs)]
pub async fn a_stale_claim_cannot_write(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (first, second) = (store.grant_lease(Duration::from_secs(60)).await.unwrap(), store.grant_lease(Duration::from_secs(60)).await.unwrap());
    let mine = store.transact(Txn::new().when(Compare::Absent("/claim".into())).put_leased("/claim", "first", first)).await.unwrap();
    let fenced = |revision| Txn::new().when(Compare::Unchanged("/claim".into(), revision)).put("/work", "done by the holder");
    assert!(store.transact(fenced(mine)).await.is_ok());
    let theirs = store.transact(Txn::new().put_leased("/claim", "second", second)).await.unwrap();
    assert_eq!(store.transact(fenced(mine)).await, conflict("/claim"), "the holder that was paused");
    assert!(store.transact(fenced(theirs)).await.is_ok());
}

#[allow(missing_docs)]
pub async fn a_claim_is_gone_with_its_lease(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let mut watch = store.watch("/claim", Revision(store.range(Range::prefix("/", 1)).await.unwrap().revision.0)).await.unwrap();
    let lease = store.grant_lease(Duration::from_secs(1)).await.unwrap();
    let mine = store.transact(Txn::new().put_leased("/claim", "mine", lease)).await.unwrap();
    assert_eq!(store.get("/claim").await.unwrap().unwrap().lease, Some(lease));
    next(&mut watch).await;
    assert_eq!(next(&mut watch).await.events, [Event::Delete { key: "/claim".into() }]);
    assert_eq!(store.transact(Txn::new().when(Compare::Unchanged("/claim".into(), mine)).put("/work", "x")).await, conflict("/claim"));
    assert_eq!(store.renew_lease(lease).await, Err(Error::LeaseGone));
    assert_eq!(store.transact(Txn::new().put_leased("/claim", "again", lease)).await, Err(Error::LeaseGone));
    assert_eq!(keys(&*store, "/").await, [""; 0]);
}

#[allow(missing_docs)]
pub async fn a_renewed_lease_lives_on(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (kept, left) = (store.grant_lease(Duration::from_secs(2)).await.unwrap(), store.grant_lease(Duration::from_secs(2)).await.unwrap());
    store.transact(Txn::new().put_leased("/kept", "", kept).put_leased("/left", "", left)).await.unwrap();
    // The other lease, of the same age, tells when this one's first life is over.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while store.get("/left").await.unwrap().is_some() {
        assert!(tokio::time::Instant::now() < deadline, "the lease that nobody renews must end");
        store.renew_lease(kept).await.expect("a lease that is renewed lives");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(store.get("/kept").await.unwrap().is_some());
}

#[allow(missing_docs)]
pub async fn a_revoked_lease_is_gone(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    store.transact(Txn::new().put_leased("/a", "", lease).put_leased("/b", "", lease).put("/c", "")).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    store.revoke_lease(lease).await.expect("a lease that is gone is no error");
    assert_eq!(keys(&*store, "/").await, ["/c"]);
    assert_eq!(store.renew_lease(lease).await, Err(Error::LeaseGone));
}

#[allow(missing_docs)]
pub async fn a_put_without_lease_makes_a_key_permanent(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    store.transact(Txn::new().put_leased("/a", "1", lease)).await.unwrap();
    put(&*store, "/a", "2").await;
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(value(&*store, "/a").await.as_deref(), Some("2"));
}

#[allow(missing_docs)]
pub async fn watches_see_every_change_in_order(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let start = put(&*store, "/w/0", "before").await;
    let mut watch = store.watch("/w/", start).await.unwrap();
    let mut expected = Vec::new();
    for n in 0..100 {
        let txn = if n % 3 == 2 { Txn::new().delete("/w/a").put("/w/b", n.to_string()) } else { Txn::new().put("/w/a", n.to_string()) };
        expected.push((store.transact(txn).await.unwrap(), if n % 3 == 2 { 2 } else { 1 }));
    }
    for (revision, events) in expected {
        let batch = next(&mut watch).await;
        assert_eq!((batch.revision, batch.events.len()), (revision, events), "one batch a transaction, none left out");
    }
}

#[allow(missing_docs)]
pub async fn watches_resume_without_gaps(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let mut revisions = vec![put(&*store, "/r", "0").await];
    for n in 1..40 {
        revisions.push(put(&*store, "/r", &n.to_string()).await);
    }
    for from in [0, 7, 38] {
        let mut watch = store.watch("/r", revisions[from]).await.unwrap();
        for expected in &revisions[from + 1..] {
            assert_eq!(next(&mut watch).await.revision, *expected);
        }
        let new = put(&*store, "/r", "live").await;
        assert_eq!(next(&mut watch).await.revision, new, "what comes later follows what was before");
        revisions.push(new);
    }
}

#[allow(missing_docs)]
pub async fn watches_keep_to_their_prefix(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let start = put(&*store, "/z", "").await;
    let mut watch = store.watch("/in/", start).await.unwrap();
    store.transact(Txn::new().put("/out", "").put("/in/1", "").put("/inn", "")).await.unwrap();
    put(&*store, "/out", "").await;
    put(&*store, "/in/2", "").await;
    for key in ["/in/1", "/in/2"] {
        let batch = next(&mut watch).await;
        assert!(matches!(batch.events.as_slice(), [Event::Put(entry)] if entry.key == key), "{batch:?}");
    }
}

#[allow(missing_docs)]
pub async fn a_watch_of_everything_reaches_every_revision(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let start = put(&*store, "/a", "").await;
    let mut watch = store.watch("/", start).await.unwrap();
    let nothing = store.transact(Txn::new().delete("/not-there")).await.unwrap();
    assert_eq!(next(&mut watch).await, EventBatch { revision: nothing, events: vec![] }, "whoever waits for it gets there");
    let something = put(&*store, "/b", "").await;
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, batch.events.len()), (something, 1));
    let recent = store.range_recent(Range::prefix("/", 10)).await.unwrap();
    assert_eq!(recent.entries.len(), 2, "nothing that a watch has shown is missing");
}

#[allow(missing_docs)]
pub async fn watches_see_leases_end(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let revision = store.transact(Txn::new().put_leased("/l/1", "", lease).put_leased("/l/2", "", lease)).await.unwrap();
    let mut watch = store.watch("/l/", revision).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    let batch = next(&mut watch).await;
    assert!(batch.revision > revision);
    assert_eq!(batch.events.len(), 2, "the end of a lease is one change: {batch:?}");
}

#[allow(missing_docs)]
pub async fn bounds_are_enforced(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let many = |n: usize| (0..n).fold(Txn::new(), |txn, n| txn.put(format!("/{n}"), ""));
    assert!(store.transact(many(MAX_TXN_OPS)).await.is_ok());
    let too_large = async |txn: Txn| matches!(store.transact(txn).await, Err(Error::TooLarge(_)));
    assert!(too_large(many(MAX_TXN_OPS + 1)).await);
    assert!(store.transact(Txn::new().put("/large", vec![1; MAX_VALUE_BYTES])).await.is_ok());
    assert!(too_large(Txn::new().put("/large", vec![1; MAX_VALUE_BYTES + 1])).await);
    assert!(too_large(Txn::new().put("/1", vec![1; MAX_VALUE_BYTES]).put("/2", vec![1; MAX_VALUE_BYTES])).await);
    assert!(too_large(Txn::new().put("/twice", "").delete("/twice")).await);
    assert!(too_large(Txn::new().put("", "")).await);
    assert!(too_large(Txn::new().put("no-slash", "")).await);
    assert!(store.grant_lease(Duration::from_millis(10)).await.is_err());
}

#[allow(missing_docs)]
pub async fn data_outlives_the_process(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let revision = store.transact(Txn::new().put("/kept", "1").put_leased("/claim", "", lease)).await.unwrap();
    fixture.close(store).await;
    let store = fixture.open().await;
    let entry = store.get("/kept").await.unwrap().unwrap();
    assert_eq!((entry.value.as_ref(), entry.revision, entry.created), (b"1".as_slice(), revision, revision));
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(store.get("/claim").await, Ok(None), "no claim outlives its lease, whoever ends it");
}

#[allow(missing_docs)]
pub async fn revisions_grow_over_a_restart(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    put(&*store, "/a", "1").await;
    let last = put(&*store, "/a", "2").await;
    fixture.close(store).await;
    let store = fixture.open().await;
    assert!(put(&*store, "/b", "3").await > last);
    assert!(store.transact(Txn::new().when(Compare::Unchanged("/a".into(), last))).await.is_ok(), "a revision that was read before still compares");
}
