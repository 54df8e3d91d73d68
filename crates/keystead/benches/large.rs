//! One machine with much on it: `SVMS` SVMs (1,000 where nothing is said) and `KEYS` keys (1,000,000), in the embedded store.
//!
//! * How long a start takes, and the first Get of the SVM that has all the keys.
//! * What the process has in memory with nothing, with the SVMs, and with the keys loaded.
//! * rekey-internal of all keys, against one rewrite of the same rows of the same file in the same batches, by the store alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common::kmip::{Credentials, Kmip};
use crate::common::run::{Run, copy};
use crate::common::{enable_body, eventually, stand_in, toml_for};
use crate::measure::{adjustable, at_most, memory, serves};
use futures_util::StreamExt as _;
use keystead_kmip::enumeration::Operation;
use keystead_store::sqlite::SqliteStore;
use keystead_store::{Compare, Entry, Range, Store as _, Txn};
use keystead_testkit::KmsStandIn;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// How many connections make the keys.
const MAKERS: usize = 8;
/// How many SVMs are made at a time.
const AT_A_TIME: usize = 32;
/// How many keys are wrapped again by one transaction, as the rekey does it.
const BATCH: usize = 100;

#[tokio::main]
pub async fn main() {
    let (svms, keys) = (adjustable("SVMS", 1_000), adjustable("KEYS", 1_000_000));
    let (kms, key) = stand_in().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // All SVMs are of one account here, which 100 requests a second would hold up.
    std::fs::write(folder.join("keystead.toml"), toml_for(&kms, folder) + "requests_per_second = 10000\n[jobs]\nconcurrency = 32\n").unwrap();
    let node = Run::start(folder, None, &[]).await;
    let floor = memory(node.child.id());
    let config = tenants(&node, &kms, &key, svms).await;
    let client = Credentials::issue_by(&node, "svm0").await;
    let start = Instant::now();
    let ids: Vec<String> = block_in_place(|| {
        std::thread::scope(|scope| {
            let make = |_| scope.spawn(|| Kmip::connect(&client.endpoint(node.ekmip)).created_together(keys.div_ceil(MAKERS)));
            (0..MAKERS).map(make).collect::<Vec<_>>().into_iter().flat_map(|maker| maker.join().unwrap()).collect()
        })
    });
    println!("{svms} SVMs and {} keys, made {:.0} a second", ids.len(), ids.len() as f64 / start.elapsed().as_secs_f64());
    node.stop();

    let start = Instant::now();
    let node = Run::start(folder, None, &[]).await;
    println!("a start, until the first answer of the REST API:");
    at_most(start.elapsed().as_secs_f64(), 10.0, "s");
    eventually("all KEKs must be there", async || serves(svms, async |path| node.get(path).await).await.then_some(())).await;
    println!("all {svms} KEKs were there {:.1} s after the start", start.elapsed().as_secs_f64());
    let with_svms = memory(node.child.id());
    let start = Instant::now();
    // A client that waits for half a minute gives up, and comes again; the keys go on being loaded.
    let first = || Kmip::connect(&client.endpoint(node.ekmip)).try_with_id(Operation::Get, &ids[0]).is_ok_and(|answer| answer.reason().is_none());
    while !block_in_place(first) {}
    let loaded = memory(node.child.id());
    println!("the first Get, which loads {} keys: {:.1} s", ids.len(), start.elapsed().as_secs_f64());

    let rekeyed = rekey(&node, &config).await;
    node.stop();
    let rows = rewritten(folder).await;
    println!("memory: {} MiB with nothing, {:.1} KiB more for each SVM", floor / 1_024, with_svms.saturating_sub(floor) as f64 / svms as f64);
    at_most(floor as f64 / 1_024.0, 40.0, "MiB with nothing");
    let each = (loaded.saturating_sub(with_svms) * 1_024) as f64 / ids.len() as f64;
    println!("a loaded key: {each:.0} bytes, of which its record {:.0}", rows.bytes);
    at_most(each - rows.bytes, 500.0, "bytes a key beyond its record");
    println!("rekey-internal of {} keys: {rekeyed:.1} s; one rewrite of the same rows: {:.1} s", rows.count, rows.seconds);
    at_most(rekeyed / rows.seconds, 2.0, "times the rewrite");
}

/// SVMs with AWS KMS; the path of the first one's configuration.
async fn tenants(node: &Run, kms: &KmsStandIn, key: &str, count: usize) -> String {
    let made = futures_util::stream::iter(0..count).map(|number| async move {
        let name = format!("svm{number}");
        assert_eq!(node.call("POST", "/svm/svms?return_timeout=60", Some(json!({ "name": name }))).await.unwrap().0, 201);
        let path = "/security/aws-kms?return_timeout=120&return_records=true";
        let (status, body) = node.call("POST", path, Some(enable_body(&name, kms, key))).await.unwrap();
        assert_eq!(status, 201, "{body}");
        format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap())
    });
    made.buffered(AT_A_TIME).collect::<Vec<_>>().await.swap_remove(0)
}

/// One rekey-internal; in seconds.
async fn rekey(node: &Run, config: &str) -> f64 {
    let start = Instant::now();
    let (status, body) = node.call("POST", &format!("{config}/rekey-internal"), None).await.unwrap();
    assert_eq!(status, 202, "{body}");
    let path = format!("/cluster/jobs/{}?fields=*", body["job"]["uuid"].as_str().unwrap());
    loop {
        let job = node.get(&path).await;
        match job["state"].as_str().unwrap() {
            "success" => return start.elapsed().as_secs_f64(),
            "failure" => panic!("{job}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A rewrite of all rows of keys.
struct Rewrite {
    count: usize,
    /// The mean length of their values.
    bytes: f64,
    seconds: f64,
}

/// Reads all rows of a copy of the node's store, and writes them again in batches as a rekey does; only the writing counts.
async fn rewritten(folder: &Path) -> Rewrite {
    copy(&folder.join("data"), &folder.join("copy"));
    let store = SqliteStore::open(&folder.join("copy/store.db")).await.unwrap();
    let (mut rewrite, mut range, mut bytes) = (Rewrite { count: 0, bytes: 0.0, seconds: 0.0 }, Range::prefix("/keys/", BATCH), 0);
    loop {
        let page = store.range(range.clone()).await.unwrap();
        range.after = page.entries.last().map(|entry| entry.key.clone());
        rewrite.count += page.entries.len();
        bytes += page.entries.iter().map(|entry| entry.value.len()).sum::<usize>();
        let unchanged = |txn: Txn, entry: &Entry| txn.when(Compare::Unchanged(entry.key.clone(), entry.revision)).put(entry.key.clone(), entry.value.clone());
        let txn = page.entries.iter().fold(Txn::new(), unchanged);
        let start = Instant::now();
        store.transact(txn).await.unwrap();
        rewrite.seconds += start.elapsed().as_secs_f64();
        if !page.more {
            break;
        }
    }
    store.close().await;
    rewrite.bytes = bytes as f64 / rewrite.count as f64;
    rewrite
}
