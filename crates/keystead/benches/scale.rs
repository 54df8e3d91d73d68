//! What one of each thing costs: bytes of records, in etcd, in SQLite and in a node's copy; bytes of a watch; memory of a node; calls to AWS; what a node asks of etcd when nothing happens. From these,
//! `scripts/scale` computes a large cluster. `make scale` writes them to `docs/scale.json`; `OUT` names another file.
//!
//! The last part lets a small cluster work for two minutes, with polls and with keys that are made, and writes what that cost: the simulation of the same cluster has to come to the same
//! (`tests/e2e/test_scale.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common::cluster::{Cluster, store_of};
use crate::common::kmip::{Credentials, Kmip};
use crate::common::{enable_body, eventually};
use crate::measure::{adjustable, memory, serves};
use futures_util::StreamExt as _;
use keystead_conformance::client::Endpoint;
use keystead_kmip::enumeration::Operation;
use keystead_store::etcd::EtcdStore;
use keystead_store::mirror::MirroredStore;
use keystead_store::sqlite::SqliteStore;
use keystead_store::{Range, Store, Txn};
use keystead_testkit::etcd::Etcd;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

const NODES: usize = 3;
/// How long traffic is counted where nothing happens, and in the last part.
const IDLE: Duration = Duration::from_secs(30);
const CHECK: Duration = Duration::from_secs(120);
/// How many keys are made one by one, and how many a second in the last part.
const CREATES: usize = 2_000;
const RATE: u32 = 20;
/// How many records are written by one transaction, where many are.
const BATCH: usize = 100;
const WATCHERS: usize = 4;

#[tokio::main]
pub async fn main() {
    let (svms, keys) = (adjustable("SVMS", 100), adjustable("KEYS", 50_000));
    let mut units = Map::new();
    let value = nodes(&mut units, svms, keys).await;
    stores(&mut units, keys, value).await;
    let text = serde_json::to_string_pretty(&Value::Object(units)).unwrap() + "\n";
    print!("{text}");
    if let Some(path) = std::env::var_os("OUT") {
        std::fs::write(path, text).unwrap();
    }
}

/// What real nodes cost. Answers how long the record of a key is.
async fn nodes(units: &mut Map<String, Value>, svms: usize, keys: usize) -> usize {
    let mut cluster = Cluster::start(3, 1).await;
    let store = store_of(&cluster.etcd, "/keystead");
    cluster.shows(0, 0, "up").await;
    let alone = Traffic::during(&cluster.etcd, tokio::time::sleep(IDLE)).await;
    let floor = memory(cluster.node(0).child.id());
    let before = records(&store).await;
    for other in 1..NODES {
        cluster.add().await;
        cluster.shows(0, other, "up").await;
    }
    let each_node = kinds(&records(&store).await, &before, NODES - 1);
    let idle = Traffic::during(&cluster.etcd, tokio::time::sleep(IDLE)).await;
    let others = (NODES - 1) as f64;
    units.insert(
        "idle_node_each_second".to_owned(),
        json!({
            "sent_to_etcd_bytes": (idle.received - alone.received) / others,
            "sent_by_etcd_bytes": (idle.sent - alone.sent) / others,
            "messages": (idle.messages_in_all() - alone.messages_in_all()) / others,
            "messages_by_kind": idle.messages.iter().map(|(kind, count)| (kind.clone(), json!(count / NODES as f64))).collect::<Map<_, _>>(),
            "between_members_bytes_in_all": idle.peer,
        }),
    );

    // SVMs with AWS KMS. A quarter first: a node that is started with them has all in memory that it needs for any.
    let some = tenants(&cluster, 0..svms / 4).await.len();
    let with_some = started(&mut cluster, some).await.memory;
    let before = records(&store).await;
    cluster.kms.clear_calls();
    let start = Instant::now();
    let (configs, made) = measured(&cluster.etcd, tenants(&cluster, some..svms)).await;
    let more = configs.len() as f64;
    let calls = calls_by_kind(&cluster);
    units.insert(
        "svm".to_owned(),
        json!({
            "records": kinds(&records(&store).await, &before, configs.len()),
            "sent_to_etcd_bytes": (made.received - idle.received) * made.seconds / more,
            "sent_by_etcd_bytes": (made.sent - idle.sent) * made.seconds / more,
            "enabled_each_second": more / start.elapsed().as_secs_f64(),
        }),
    );
    // Each of the other nodes has loaded the KEK once.
    let enable = calls.values().sum::<usize>() as f64 / more - others;
    let before = records(&store).await;
    let client = Credentials::issue_by(cluster.node(0), &format!("svm{some}")).await;
    units.insert("client".to_owned(), json!({ "records": kinds(&records(&store).await, &before, 1) }));
    units.insert("node".to_owned(), json!({ "records": each_node }));

    // Keys, one by one.
    let endpoints: Vec<Endpoint> = (0..NODES).map(|node| client.endpoint(cluster.node(node).ekmip)).collect();
    let mut kmip = Kmip::connect_new(&endpoints[0]).await;
    let before = records(&store).await;
    let (ids, made) = measured(&cluster.etcd, async { block_in_place(|| (0..CREATES).map(|_| kmip.created(vec![])).collect::<Vec<_>>()) }).await;
    let after = records(&store).await;
    let key = kinds(&after, &before, CREATES);
    let value = *after.iter().find(|(key, _)| key.ends_with(&ids[0])).unwrap().1;
    let each = |rate: f64, idle: f64| (rate - idle) * made.seconds / CREATES as f64;
    units.insert(
        "create".to_owned(),
        json!({
            "records": key,
            "sent_to_etcd_bytes": each(made.received, idle.received),
            "sent_by_etcd_bytes": each(made.sent, idle.sent),
            "between_members_bytes": each(made.peer, idle.peer),
            "nodes": NODES,
        }),
    );
    let destroyed = block_in_place(|| ids[..100].iter().filter(|id| kmip.with_id(Operation::Destroy, id).reason().is_none()).count());
    assert_eq!(destroyed, 100);
    units.insert("destroyed".to_owned(), json!({ "records": kinds(&records(&store).await, &after, 100) }));

    // Many of them, in one SVM; a start with them, and what they are in memory.
    block_in_place(|| kmip.created_together(keys));
    eventually("the node must have all in its copy", async || cluster.log(2).contains("local copy of the store is complete").then_some(())).await;
    let Started { served, loaded, calls: starting, memory: with_svms } = started(&mut cluster, svms).await;
    let start = Instant::now();
    assert_eq!(block_in_place(|| Kmip::connect(&client.endpoint(cluster.node(2).ekmip)).get(&ids[200])).reason(), None);
    let reading = start.elapsed().as_secs_f64();
    let all = (keys + CREATES) as f64;
    let with_keys = memory(cluster.node(2).child.id());
    let bytes = |more: u64, less: u64, count: f64| (more.saturating_sub(less) * 1_024) as f64 / count;
    units.insert(
        "node_memory_bytes".to_owned(),
        json!({
            "with_nothing": floor * 1_024,
            "svm": bytes(with_svms, with_some, more),
            "loaded_key": bytes(with_keys, with_svms, all),
            "loaded_key_beyond_its_record": bytes(with_keys, with_svms, all) - value as f64,
        }),
    );
    units.insert(
        "start".to_owned(),
        json!({
            "seconds_to_the_first_answer": served, "svms": svms, "seconds_to_all_keks": loaded, "keys_loaded_each_second": all / reading,
        }),
    );
    units.insert(
        "aws_calls".to_owned(),
        json!({ "enable": enable, "enable_by_kind": calls.iter().map(|(kind, count)| (kind.clone(), json!(count))).collect::<Map<_, _>>(), "start": starting as f64 / svms as f64 }),
    );

    // All of them wrapped again.
    cluster.kms.clear_calls();
    let (took, rekeyed) = measured(&cluster.etcd, rekey(&cluster, &configs[0])).await;
    let each = |rate: f64, idle: f64| (rate - idle) * rekeyed.seconds / all;
    units.insert(
        "rekey_internal".to_owned(),
        json!({
            "keys_each_second": all / took,
            "aws_calls": calls_by_kind(&cluster).values().sum::<usize>(),
            "sent_to_etcd_bytes_a_key": each(rekeyed.received, idle.received),
            "sent_by_etcd_bytes_a_key": each(rekeyed.sent, idle.sent),
            "transactions_a_key": each(rekeyed.messages["Txn"], idle.messages["Txn"]),
            "nodes": NODES,
        }),
    );

    units.insert("measured".to_owned(), check(&cluster, &configs, &client.endpoint(cluster.node(0).ekmip)).await);
    value
}

/// A small cluster at work, for two minutes: each configuration is polled each minute, and keys are made.
async fn check(cluster: &Cluster, configs: &[String], client: &Endpoint) -> Value {
    for config in configs {
        let (status, body) = cluster.node(0).call("PATCH", &format!("{config}?return_timeout=60"), Some(json!({ "polling_period": 1 }))).await.unwrap();
        assert_eq!(status, 200, "{body}");
    }
    // So that the first polls, which come sooner, are over.
    tokio::time::sleep(Duration::from_secs(70)).await;
    let mut kmip = Kmip::connect(client);
    cluster.kms.clear_calls();
    let (made, traffic) = measured(&cluster.etcd, async {
        let mut due = tokio::time::interval(Duration::from_secs(1) / RATE);
        let (start, mut made) = (Instant::now(), 0);
        while start.elapsed() < CHECK {
            due.tick().await;
            block_in_place(|| kmip.created(vec![]));
            made += 1;
        }
        made
    })
    .await;
    let calls = calls_by_kind(cluster);
    json!({
        "nodes": NODES, "svms": configs.len(), "polling_period_seconds": 60, "seconds": traffic.seconds,
        "creates_each_second": f64::from(made) / traffic.seconds,
        "aws_calls_each_second": calls.values().sum::<usize>() as f64 / traffic.seconds,
        "aws_calls_by_kind": calls,
        "sent_to_etcd_bytes_each_second": traffic.received,
        "sent_by_etcd_bytes_each_second": traffic.sent,
        "messages_each_second": traffic.messages_in_all(),
    })
}

/// A start of the last node.
struct Started {
    /// Seconds until the first answer, and until it had all KEKs.
    served: f64,
    loaded: f64,
    /// How often it has called AWS.
    calls: usize,
    /// In KiB.
    memory: u64,
}

async fn started(cluster: &mut Cluster, svms: usize) -> Started {
    cluster.stop(NODES - 1);
    cluster.kms.clear_calls();
    let start = Instant::now();
    cluster.restart(NODES - 1).await;
    let served = start.elapsed().as_secs_f64();
    served_at(cluster, NODES - 1, svms).await;
    let loaded = start.elapsed().as_secs_f64();
    Started { served, loaded, calls: calls_by_kind(cluster).values().sum(), memory: memory(cluster.node(NODES - 1).child.id()) }
}

/// SVMs with AWS KMS, which every node serves; the paths of their configurations.
async fn tenants(cluster: &Cluster, numbers: std::ops::Range<usize>) -> Vec<String> {
    let node = cluster.node(0);
    let made = futures_util::stream::iter(numbers.clone()).map(|number| async move {
        let name = format!("svm{number}");
        assert_eq!(node.call("POST", "/svm/svms?return_timeout=60", Some(json!({ "name": name }))).await.unwrap().0, 201);
        let path = "/security/aws-kms?return_timeout=120&return_records=true";
        let (status, body) = node.call("POST", path, Some(enable_body(&name, &cluster.kms, &cluster.key))).await.unwrap();
        assert_eq!(status, 201, "{body}");
        format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap())
    });
    let configs = made.buffered(8).collect().await;
    for node in 0..NODES {
        served_at(cluster, node, numbers.end).await;
    }
    configs
}

/// Waits until a node has the KEKs of so many SVMs.
async fn served_at(cluster: &Cluster, node: usize, count: usize) {
    let node = cluster.node(node);
    eventually("the node must have all KEKs", async || serves(count, async |path| node.get(path).await).await.then_some(())).await;
}

/// One rekey-internal; in seconds.
async fn rekey(cluster: &Cluster, config: &str) -> f64 {
    let (node, start) = (cluster.node(0), Instant::now());
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

/// What records cost in each kind of store, with keys and values as long as those of keys.
async fn stores(units: &mut Map<String, Value>, count: usize, value: usize) {
    let etcd = Etcd::start(1).await.unwrap_or_else(|error| panic!("{error}"));
    let store = Arc::new(store_of(&etcd, "/keystead"));
    let svm = uuid::Uuid::new_v4();
    let all: Vec<(String, Vec<u8>)> = (0..count).map(|_| (format!("/keys/{svm}/{}", uuid::Uuid::new_v4()), random(value))).collect();
    let (size, resident) = (member(&etcd, SIZE).await, member(&etcd, RESIDENT).await);
    write(&*store, &all, BATCH).await;
    let (written, holding) = (member(&etcd, SIZE).await, member(&etcd, RESIDENT).await);
    write(&*store, &all, BATCH).await;
    let again = member(&etcd, SIZE).await;
    let some = &all[..CREATES.min(count)];
    write(&*store, some, 1).await;
    let singly = member(&etcd, SIZE).await;

    let sent = member(&etcd, SENT).await;
    write(&*store, some, 1).await;
    write(&*store, &all, BATCH).await;
    let unwatched = member(&etcd, SENT).await - sent;
    let from = store.transact(Txn::new()).await.unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    for _ in 0..WATCHERS {
        let (mut watch, seen) = (store.watch("/", from).await.unwrap(), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Some(Ok(batch)) = watch.next().await {
                seen.fetch_add(batch.events.len(), Ordering::SeqCst);
            }
        });
    }
    let mut watched = Vec::new();
    for (records, together) in [(some, 1), (&all[..], BATCH)] {
        let (sent, due) = (member(&etcd, SENT).await, seen.load(Ordering::SeqCst) + records.len() * WATCHERS);
        write(&*store, records, together).await;
        eventually("all watchers must have all", async || (seen.load(Ordering::SeqCst) == due).then_some(())).await;
        watched.push(member(&etcd, SENT).await - sent);
    }
    // What the transactions themselves are answered is the same without watchers.
    let answers = unwatched / (some.len() + all.len() / BATCH) as f64;
    let event = |sent: f64, transactions: usize, records: usize| (sent - answers * transactions as f64) / (records * WATCHERS) as f64;

    let folder = tempfile::tempdir().unwrap();
    let copy = MirroredStore::open(Arc::clone(&store) as Arc<dyn Store>, &folder.path().join("copy.db")).await.unwrap();
    let start = Instant::now();
    let watch = copy.watch("/", store.transact(Txn::new()).await.unwrap()).await.unwrap();
    eventually("the copy must be complete", async || copy.copied().await.unwrap()).await;
    let copied = start.elapsed().as_secs_f64();
    let (from_copy, from_etcd) = (read(&copy, true).await, read(&*store, false).await);
    drop((watch, copy));
    let sqlite = SqliteStore::open(&folder.path().join("store.db")).await.unwrap();
    write(&sqlite, &all, BATCH).await;
    let from_sqlite = read(&sqlite, false).await;
    sqlite.close().await;
    let each = |more: f64, less: f64| (more - less) / count as f64;
    units.insert(
        "record_of_a_key".to_owned(),
        json!({
            "key_and_value_bytes": all[0].0.len() + value,
            "etcd_bytes": each(written, size),
            "etcd_history_bytes_of_a_change_in_a_batch": each(again, written),
            "etcd_history_bytes_of_a_change_alone": (singly - again) / some.len() as f64,
            "etcd_memory_bytes": each(holding, resident),
            "watch_bytes_alone": event(watched[0], some.len(), some.len()),
            "watch_bytes_in_a_batch": event(watched[1], all.len() / BATCH, all.len()),
            "copy_db_bytes": size_of(&folder.path().join("copy.db")) / count as f64,
            "sqlite_bytes": size_of(&folder.path().join("store.db")) / count as f64,
        }),
    );
    let rate = |seconds: f64| count as f64 / seconds;
    units.insert(
        "records_each_second".to_owned(),
        json!({
            "read_from_etcd": rate(from_etcd), "read_from_the_copy": rate(from_copy), "read_from_sqlite": rate(from_sqlite), "copied": rate(copied),
        }),
    );
}

async fn write(store: &dyn Store, records: &[(String, Vec<u8>)], together: usize) {
    let txns = records.chunks(together).map(|some| some.iter().fold(Txn::new(), |txn, (key, value)| txn.put(key.clone(), value.clone())));
    let writing = futures_util::stream::iter(txns).map(|txn| store.transact(txn)).buffer_unordered(8);
    writing.for_each(async |written| assert!(written.is_ok(), "{written:?}")).await;
}

/// Reads everything once; in seconds.
async fn read(store: &dyn Store, recent: bool) -> f64 {
    let (start, mut range) = (Instant::now(), Range::prefix("/", 1_000));
    loop {
        let page = if recent { store.range_recent(range.clone()).await } else { store.range(range.clone()).await }.unwrap();
        range.after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            return start.elapsed().as_secs_f64();
        }
    }
}

fn random(length: usize) -> Vec<u8> {
    std::iter::repeat_with(|| uuid::Uuid::new_v4().into_bytes()).flatten().take(length).collect()
}

/// A SQLite file with what is beside it.
fn size_of(path: &Path) -> f64 {
    let name = path.file_name().unwrap().to_str().unwrap();
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(name));
    files.map(|entry| entry.metadata().unwrap().len()).sum::<u64>() as f64
}

const SIZE: &str = "etcd_mvcc_db_total_size_in_use_in_bytes";
const RESIDENT: &str = "process_resident_memory_bytes";
const SENT: &str = "etcd_network_client_grpc_sent_bytes_total";

/// What the first member says of itself, once it has written what it was given: it does so ten times a second.
async fn member(etcd: &Etcd, name: &str) -> f64 {
    tokio::time::sleep(Duration::from_millis(500)).await;
    etcd.metrics(0).await.unwrap()[name]
}

/// What etcd's members have to do with clients and each other, a second.
struct Traffic {
    seconds: f64,
    received: f64,
    sent: f64,
    peer: f64,
    /// What clients send, by kind: requests, and messages of streams.
    messages: BTreeMap<String, f64>,
}

impl Traffic {
    async fn during(etcd: &Etcd, work: impl Future<Output = ()>) -> Self {
        measured(etcd, work).await.1
    }

    fn messages_in_all(&self) -> f64 {
        self.messages.values().sum()
    }
}

async fn measured<T>(etcd: &Etcd, work: impl Future<Output = T>) -> (T, Traffic) {
    let (before, start) = (sums(etcd).await, Instant::now());
    let done = work.await;
    let (after, seconds) = (sums(etcd).await, start.elapsed().as_secs_f64());
    let rate = |name: &str| (after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0)) / seconds;
    let messages = after.keys().filter_map(|name| name.strip_prefix("message ")).map(|kind| (kind.to_owned(), rate(&format!("message {kind}")))).collect();
    (done, Traffic { seconds, received: rate("received"), sent: rate("sent"), peer: rate("peer"), messages })
}

/// Of all members together.
async fn sums(etcd: &Etcd) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for member in 0..etcd.endpoints().len() {
        for (name, value) in etcd.metrics(member).await.unwrap() {
            let label = |label: &str| name.split_once(&format!("{label}=\"")).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default().to_owned();
            let sum = match name.split('{').next().unwrap() {
                "etcd_network_client_grpc_received_bytes_total" => "received".to_owned(),
                SENT => "sent".to_owned(),
                "etcd_network_peer_sent_bytes_total" => "peer".to_owned(),
                "grpc_server_msg_received_total" if value > 0.0 => format!("message {}", label("grpc_method")),
                _ => continue,
            };
            *sums.entry(sum).or_default() += value;
        }
    }
    sums
}

fn calls_by_kind(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    cluster.kms.calls().into_iter().for_each(|call| *counts.entry(call.operation).or_default() += 1);
    counts
}

/// All keys of the store, with the length of key and value.
async fn records(store: &EtcdStore) -> BTreeMap<String, usize> {
    let (mut records, mut range) = (BTreeMap::new(), Range::prefix("/", 1_000));
    loop {
        let page = store.range(range.clone()).await.unwrap();
        range.after = page.entries.last().map(|entry| entry.key.clone());
        records.extend(page.entries.into_iter().map(|entry| (entry.key, entry.value.len())));
        if !page.more {
            return records;
        }
    }
}

/// The records that one has and the other has not, by the first part of their key: how many for each of `count` things, and how long key and value are together.
fn kinds(more: &BTreeMap<String, usize>, less: &BTreeMap<String, usize>, count: usize) -> Value {
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (key, value) in more.iter().filter(|(key, _)| !less.contains_key(*key)) {
        let kind = kinds.entry(key.split('/').nth(1).unwrap()).or_default();
        *kind = (kind.0 + 1, kind.1 + key.len() + value);
    }
    let each = kinds
        .into_iter()
        .map(|(kind, (number, bytes))| (kind.to_owned(), json!({ "each": number as f64 / count as f64, "bytes": bytes as f64 / number as f64 })));
    Value::Object(each.collect())
}
