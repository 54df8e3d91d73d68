//! `keystead store copy`: what one machine has, a cluster has afterwards, and the other way about. Every record is the same, and every key is served from either. `SOAK=1` makes it 100,000 keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::{keystead, store_of, store_section};
use common::kmip::{Credentials, Kmip};
use common::run::Run;
use common::{enable_body, eventually, stand_in, toml_for};
use keystead_store::sqlite::SqliteStore;
use keystead_store::{Range, Store};
use keystead_testkit::etcd::Etcd;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// How many connections make and read the keys.
const CONNECTIONS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_keys_go_to_etcd_and_back() {
    let count = if std::env::var_os("SOAK").is_some() { 100_000 } else { 2_000 };
    let etcd = Etcd::start(3).await.unwrap_or_else(|error| panic!("{error}"));
    let (kms, key) = stand_in().await;
    let folder = tempfile::tempdir().unwrap();
    let (folder, database) = (folder.path(), folder.path().join("data/store.db"));
    let on_sqlite = toml_for(&kms, folder);
    let on_etcd = format!("{on_sqlite}{}", store_section(&etcd.endpoints(), etcd.tls(), folder));

    let node = start(folder, &on_sqlite).await;
    assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await.unwrap().0, 201);
    assert_eq!(node.call("POST", "/security/aws-kms?return_timeout=60", Some(enable_body("svm1", &kms, &key))).await.unwrap().0, 201);
    let client = Credentials::issue_by(&node, "svm1").await;
    served(&node, &client).await;
    let mut ids = made(&node, &client, count);
    let mut materials = read(&node, &client, &ids);
    node.stop();
    let before = dump(&database).await;
    let keys = |records: &Records| records.keys().filter(|key| key.starts_with("/keys/")).count();
    assert!(keys(&before) > count && materials.len() == count);

    // There. The same flags, with the seal key of this folder.
    std::fs::write(folder.join("keystead.toml"), &on_etcd).unwrap();
    assert_eq!(copy(folder, "etcd"), before.len());
    let store = store_of(&etcd, "/keystead");
    assert_same(&everything(&store).await, &before);
    let node = start(folder, &on_etcd).await;
    served(&node, &client).await;
    assert!(read(&node, &client, &ids) == materials, "each key must be what it was");
    let more = made(&node, &client, 10);
    materials.extend(read(&node, &client, &more));
    ids.extend(more);
    node.stop();
    let there = everything(&store).await;
    // A key that is handed out for the first time is written again, as one that is fresh no more; its secret stays wrapped as it was.
    for (key, value) in before.iter().filter(|(key, _)| key.starts_with("/keys/")) {
        assert_eq!(there.get(key).map(|value| wrapped(value)), Some(wrapped(value)), "{key}");
    }

    // And back, into a new file: that which was is as it was.
    std::fs::create_dir(folder.join("before")).unwrap();
    for entry in std::fs::read_dir(folder.join("data")).unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("store.db")) {
        std::fs::rename(entry.path(), folder.join("before").join(entry.file_name())).unwrap();
    }
    assert_same(&dump(&folder.join("before/store.db")).await, &before);
    assert_eq!(copy(folder, "sqlite"), there.len());
    assert_same(&dump(&database).await, &there);
    let node = start(folder, &on_sqlite).await;
    served(&node, &client).await;
    assert!(read(&node, &client, &ids) == materials, "each key must be what it was, also those that were made on etcd");
}

/// All records, by key.
type Records = BTreeMap<String, Vec<u8>>;

async fn start(folder: &Path, toml: &str) -> Run {
    std::fs::write(folder.join("keystead.toml"), toml).unwrap();
    Run::start_with(folder, &["--node-name", "node0"]).await
}

/// Waits until the node has the KEK and knows the client.
async fn served(node: &Run, client: &Credentials) {
    let endpoint = client.endpoint(node.ekmip);
    eventually("the node must serve the SVM", async || {
        Kmip::try_connect(&endpoint)?.try_register(b"the SVM is served", &[]).ok()?.reason().is_none().then_some(())
    })
    .await;
}

/// Makes so many keys, and says which.
fn made(node: &Run, client: &Credentials, count: usize) -> Vec<String> {
    let endpoint = client.endpoint(node.ekmip);
    let shares = (0..CONNECTIONS).map(|connection| (count + connection) / CONNECTIONS).collect::<Vec<_>>();
    each(shares, |share| Kmip::connect(&endpoint).created_together(share))
}

/// The materials of the keys, in their order.
fn read(node: &Run, client: &Credentials, ids: &[String]) -> Vec<Vec<u8>> {
    let endpoint = client.endpoint(node.ekmip);
    each(ids.chunks(ids.len().div_ceil(CONNECTIONS)).collect(), |some| Kmip::connect(&endpoint).materials(some))
}

/// Works on each of them in a thread of its own; the results in their order.
fn each<I: Send, T: Send>(inputs: Vec<I>, work: impl Fn(I) -> Vec<T> + Sync) -> Vec<T> {
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = inputs.into_iter().map(|input| scope.spawn(|| work(input))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    })
}

/// `keystead store copy`; how many records it says it has copied.
fn copy(folder: &Path, to: &str) -> usize {
    let start = Instant::now();
    let mut command = keystead(&["store", "copy", "--to", to, "--data-dir"]);
    let done = command.arg(folder.join("data")).arg("--config").arg(folder.join("keystead.toml")).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said} {}", String::from_utf8_lossy(&done.stderr));
    let count = said.trim().strip_suffix(" records copied, read back, and the same").unwrap_or_else(|| panic!("{said}")).parse().unwrap();
    println!("to {to}: {count} records copied and compared in {:.1} s", start.elapsed().as_secs_f64());
    count
}

/// The secret of a key's record as it is wrapped, with the version of the KEK before it (`manager::keys::record`).
fn wrapped(value: &[u8]) -> &[u8] {
    let length = u32::from_be_bytes(value[5..9].try_into().unwrap());
    assert!(length > 0, "a live key has a secret");
    &value[..9 + usize::try_from(length).unwrap()]
}

async fn dump(database: &Path) -> Records {
    let store = SqliteStore::open(database).await.unwrap();
    let records = everything(&store).await;
    store.close().await;
    records
}

async fn everything(store: &dyn Store) -> Records {
    let (mut records, mut range) = (Records::new(), Range::prefix("/", 1_000));
    loop {
        let page = store.range(range.clone()).await.unwrap();
        range.after = page.entries.last().map(|entry| entry.key.clone());
        records.extend(page.entries.into_iter().map(|entry| (entry.key, entry.value.to_vec())));
        if !page.more {
            return records;
        }
    }
}

/// A hundred thousand records are not printed: the first that differ are named.
fn assert_same(one: &Records, other: &Records) {
    let differing: Vec<&String> = one.keys().chain(other.keys()).filter(|key| one.get(*key) != other.get(*key)).take(10).collect();
    assert!(differing.is_empty(), "{differing:?}");
}
