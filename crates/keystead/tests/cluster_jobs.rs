//! A job whose node is paused (SIGSTOP) for longer than its claim lasts, while clients are at work: another node takes it over and ends it, once; and the paused one, which wakes while the other is at
//! work, changes nothing any more. (Without the comparison of the claim, it goes on as well, and the test sees that.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use bytes::Bytes;
use common::cluster::{Cluster, Machines};
use common::eventually;
use common::kmip::{Credentials, Kmip};
use common::load::Load;
use keystead_store::etcd::{EtcdOptions, EtcdStore, EtcdTls};
use keystead_store::{Event, EventBatch, Range, Store as _, Txn};
use keystead_testkit::network::with_network;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// So many that a job takes long enough to be met at work: each batch has 100. The program that is made to be fast is.
const KEYS: usize = if cfg!(debug_assertions) { 2_000 } else { 10_000 };
/// Clients that make them.
const MAKERS: usize = 4;
/// How often a job may end before it is met at work.
const TRIES: usize = 10;

#[test]
fn a_job_of_a_paused_node_is_ended_once_by_another() {
    let run = with_network("cluster_jobs::a_job_of_a_paused_node_is_ended_once_by_another", async |network| {
        let cluster = Cluster::start_in(&network, Machines::default()).await;
        let (config, client) = cluster.tenant("svm1").await;
        make_keys(&cluster, &client).await;
        let mut load = Load::start(&cluster, &client).await;
        the_holder_is_paused(&cluster, &mut load, &rekey(&config)).await;
        if std::env::var_os("SOAK").is_some() {
            let (there, back) = moves(&cluster, &config).await;
            for work in [&there, &back, &rekey(&config), &there, &back] {
                the_holder_is_paused(&cluster, &mut load, work).await;
            }
        }
        load.check(&cluster, &client).await;
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

/// A call that starts a job which wraps every key again.
struct Work {
    path: String,
    body: Option<Value>,
    /// The call that brings everything back where it was, for a job that ended too soon.
    undo: Option<Box<Work>>,
}

fn rekey(config: &str) -> Work {
    Work { path: format!("{config}/rekey-internal?return_timeout=0"), body: None, undo: None }
}

/// The keys go to the onboard key manager, and back.
async fn moves(cluster: &Cluster, config: &str) -> (Work, Work) {
    let body = json!({ "onboard": { "passphrase": "a passphrase of more than 32 bytes, for the cluster" } });
    let (status, body) = cluster.node(0).call("POST", "/security/key-managers?return_timeout=60&return_records=true", Some(body)).await.unwrap();
    assert_eq!(status, 201, "{body}");
    let (onboard, config) = (body["records"][0]["uuid"].as_str().unwrap().to_owned(), config.rsplit('/').next().unwrap().to_owned());
    let work =
        |from: &str, to: &str| Work { path: format!("/security/key-managers/{from}/migrate?return_timeout=0"), body: Some(json!({ "uuid": to })), undo: None };
    let with_undo = |from: &str, to: &str| Work { undo: Some(Box::new(work(to, from))), ..work(from, to) };
    (with_undo(&config, &onboard), with_undo(&onboard, &config))
}

async fn the_holder_is_paused(cluster: &Cluster, load: &mut Load, work: &Work) {
    let store = store(cluster);
    let Paused { job, node: holder, uuid, since } = paused_at_work(cluster, &store, work).await;
    println!("{}:", work.path);
    let other = (holder + 1) % cluster.nodes.len();
    eventually("another node must take the job over", async || (record_of(&store, &job).await["node"] != uuid).then_some(())).await;
    println!("the job was taken over {:.1} s after node{holder} was paused", since.elapsed().as_secs_f64());
    // It wakes while the other is at work, and goes on where it was: what either writes is seen from here.
    let from = store.transact(Txn::new()).await.unwrap();
    let mut watch = store.watch("/", from).await.unwrap();
    let mut wrapped: HashMap<String, Bytes> = all(&store, "/keys/").await.into_iter().map(|entry| (entry.key, wrapping(&entry.value))).collect();
    cluster.signal(holder, "-CONT");
    let ended = eventually("another node must end the job", async || {
        let job = cluster.node(other).get(&format!("/cluster/jobs/{job}")).await;
        (job["state"] == "success").then_some(job)
    })
    .await;
    println!("{} has ended it {:.1} s after node{holder} was paused: {}", ended["node"]["name"], since.elapsed().as_secs_f64(), ended["message"]);
    assert_ne!(ended["node"]["name"], format!("node{holder}"), "{ended}");
    // Until it has given the job up, it says that it runs.
    eventually("the woken node must see that the job has ended", async || {
        // A connection from before may have ended meanwhile.
        let (_, seen) = cluster.node(holder).call("GET", &format!("/cluster/jobs/{job}"), None).await?;
        (seen["state"] == "success").then_some(())
    })
    .await;
    load.healed(&format!("node{holder} paused over its lease, at work on a job"), since, [holder]).await;
    cluster.shows(other, holder, "up").await;

    let until = store.transact(Txn::new()).await.unwrap();
    let (mut at, mut is_over) = (from, false);
    while at < until {
        let batch: EventBatch = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap().unwrap();
        at = batch.revision;
        let mut ends = false;
        for event in batch.events {
            let key = match &event {
                Event::Put(entry) => &entry.key,
                Event::Delete { key } => key,
            };
            assert!(!is_over || !key.contains(&job), "the job has ended, and {key} was changed afterwards");
            let of_rekey = ["/keks/", "/onboard-keys/", "/key-stores/", "/config-claims/"].iter().any(|kind| key.starts_with(kind));
            assert!(!is_over || !of_rekey, "the job has ended, and {key} was changed afterwards");
            let Event::Put(entry) = event else { continue };
            if entry.key == format!("/jobs/{job}") {
                let record: Value = serde_json::from_slice(&entry.value).unwrap();
                assert_ne!(record["node"], uuid, "another node has the job, and the woken one has written: {record}");
                ends = record["state"] == "success";
            } else if entry.key.starts_with("/keys/") {
                // Clients make keys, and the first Get of a key is written down.
                let now = wrapping(&entry.value);
                let before = wrapped.insert(entry.key.clone(), now.clone());
                assert!(!is_over || before.is_none_or(|before| before == now), "all keys were wrapped again, and {} was once more", entry.key);
            }
        }
        is_over |= ends;
    }
    assert!(is_over, "the end of the job was seen");
    for node in 0..cluster.nodes.len() {
        let seen = cluster.node(node).get(&format!("/cluster/jobs/{job}")).await;
        assert_eq!(["state", "end_time", "node", "message"].map(|member| &seen[member]), ["state", "end_time", "node", "message"].map(|member| &ended[member]));
    }
    // One version is left, and wraps every key.
    let versions = |entries: Vec<keystead_store::Entry>| -> BTreeSet<u32> {
        entries.iter().map(|entry| u32::from_be_bytes(entry.value[1..5].try_into().unwrap())).collect()
    };
    // AWS wraps it, or the onboard key manager.
    let keks = [all(&store, "/keks/").await, all(&store, "/onboard-keys/").await].concat();
    assert_eq!(keks.len(), 1, "{:?}", keks.iter().map(|entry| &entry.key).collect::<Vec<_>>());
    let version: u32 = keks[0].key.rsplit('/').next().unwrap().parse().unwrap();
    assert_eq!(versions(all(&store, "/keys/").await), [version].into());
}

/// A job whose node is paused.
struct Paused {
    job: String,
    node: usize,
    /// That node's identifier.
    uuid: Value,
    since: Instant,
}

/// Starts a job and pauses the node that works on it, somewhere in the middle.
async fn paused_at_work(cluster: &Cluster, store: &EtcdStore, work: &Work) -> Paused {
    for _ in 0..TRIES {
        let job = started(cluster, work).await;
        let shown = eventually("the job must be at work", async || {
            let shown = cluster.node(0).get(&format!("/cluster/jobs/{job}")).await;
            let at_work = shown["message"].as_str().is_some_and(|message| message.contains(" keys are wrapped by version"));
            (at_work || shown["state"] == "success").then_some(shown)
        })
        .await;
        let node: usize = shown["node"]["name"].as_str().unwrap().trim_start_matches("node").parse().unwrap();
        cluster.signal(node, "-STOP");
        let record = record_of(store, &job).await;
        if record["state"] == "running" {
            println!("node{node} is paused: {}", record["message"]);
            return Paused { job, node, uuid: record["node"].clone(), since: Instant::now() };
        }
        cluster.signal(node, "-CONT");
        if let Some(undo) = &work.undo {
            let undone = started(cluster, undo).await;
            eventually("all must be as it was", async || (cluster.node(0).get(&format!("/cluster/jobs/{undone}")).await["state"] == "success").then_some(()))
                .await;
        }
    }
    panic!("{TRIES} jobs with {KEYS} keys have all ended before they were met at work");
}

/// Starts a job; answers its identifier. Until the one before has let its configuration go, it may be refused.
async fn started(cluster: &Cluster, work: &Work) -> String {
    eventually("the job must be taken", async || {
        let (status, body) = cluster.node(0).call("POST", &work.path, work.body.clone()).await?;
        assert!(matches!(status, 202 | 400 | 409), "{body}");
        Some(body["job"]["uuid"].as_str()?.to_owned())
    })
    .await
}

/// A job's record.
async fn record_of(store: &EtcdStore, job: &str) -> Value {
    serde_json::from_slice(&store.get(&format!("/jobs/{job}")).await.unwrap().unwrap().value).unwrap()
}

/// Of a key's record what wrapping it again changes: all but its attributes.
fn wrapping(record: &Bytes) -> Bytes {
    let length = u32::from_be_bytes(record[5..9].try_into().unwrap());
    record.slice(..9 + usize::try_from(length).unwrap())
}

/// All that stands under a prefix.
async fn all(store: &EtcdStore, prefix: &str) -> Vec<keystead_store::Entry> {
    let (mut range, mut entries) = (Range::prefix(prefix, 1_000), Vec::new());
    loop {
        let page = store.range(range.clone()).await.unwrap();
        range.after = page.entries.last().map(|entry| entry.key.clone());
        entries.extend(page.entries);
        if !page.more {
            return entries;
        }
    }
}

/// The cluster's store, as nobody but the test sees it.
fn store(cluster: &Cluster) -> EtcdStore {
    let tls = cluster.etcd.tls();
    let tls = EtcdTls { ca: tls.ca.clone().into(), certificate: tls.certificate.clone().into(), key: tls.key.clone().into_bytes().into() };
    EtcdStore::new(&EtcdOptions { endpoints: cluster.etcd.endpoints(), prefix: "/keystead".to_owned(), tls: Some(tls) }).unwrap()
}

async fn make_keys(cluster: &Cluster, client: &Credentials) {
    let makers: Vec<_> = (0..MAKERS)
        .map(|maker| {
            let endpoint = client.endpoint(cluster.node(maker % cluster.nodes.len()).ekmip);
            tokio::task::spawn_blocking(move || {
                let mut kmip = Kmip::connect(&endpoint);
                (0..KEYS / MAKERS).for_each(|_| drop(kmip.created(vec![])));
            })
        })
        .collect();
    for maker in makers {
        maker.await.unwrap();
    }
}
