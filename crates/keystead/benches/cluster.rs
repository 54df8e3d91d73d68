//! The budgets of a cluster: three nodes of the real program on an etcd of three members, all on this machine, with the load.
//!
//! * Create, with 64 connections shared by the nodes, against transactions of the same records by 64 writers of the store's client on the same etcd (the bound).
//! * How long another node goes on handing out a key that was destroyed, and serving a client that was revoked.
//! * rekey-internal of `KEYS` keys (20,000 where nothing is said, which takes about a minute with all around it) against the same rows in the same batches, written by the store's client alone; and Gets meanwhile against Gets before and after.
//!
//! What is compared is measured in turn, in one run, and only the ratios mean something. Rows that are written as the bound of rekey-internal belong to an SVM that there is not: nodes take them
//! into their copies, as they take those of the rekey.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common::cluster::{Cluster, store_of};
use crate::common::kmip::{Credentials, Kmip, message, template, uid};
use crate::common::run::Api;
use crate::measure::{adjustable, at_least, at_most, load, load_while, median, percentile};
use keystead_conformance::client::{Client, Endpoint};
use keystead_kmip::Tag;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{ObjectType, Operation};
use keystead_kmip::ttlv::{Node, Value, encode};
use keystead_store::etcd::EtcdStore;
use keystead_store::{Compare, Range, Revision, Store as _, Txn};
use serde_json::Value as Json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::block_in_place;
use uuid::Uuid;

const NODES: usize = 3;
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(2_000);
/// How many keys are wrapped again by one transaction, as the rekey does it.
const BATCH: usize = 100;
/// How many connections read keys while others are wrapped again, and for how long without that.
const READERS: usize = 8;
const NORMAL: Duration = Duration::from_secs(5);

#[tokio::main]
pub async fn main() {
    let cluster = Cluster::start(3, NODES).await;
    let store = Arc::new(store_of(&cluster.etcd, "/keystead"));
    let bench = Bench { cluster, store };
    let one = bench.tenant("svm1").await;
    bench.creates(&one).await;
    bench.staleness(&one).await;
    bench.rekey(&bench.tenant("svm2").await).await;
}

struct Bench {
    cluster: Cluster,
    /// The nodes' own store, through a client of its own.
    store: Arc<EtcdStore>,
}

/// An SVM.
struct Tenant {
    name: String,
    /// The path of its configuration.
    config: String,
    /// What its keys start with in the store.
    keys: String,
    /// Where its client reaches each node.
    endpoints: Vec<Endpoint>,
}

/// A record of a key.
#[derive(Clone)]
struct Row {
    key: String,
    value: Vec<u8>,
    revision: Revision,
}

impl Bench {
    async fn tenant(&self, name: &str) -> Tenant {
        let (config, client) = self.cluster.tenant(name).await;
        let found = self.cluster.node(0).get(&format!("/svm/svms?name={name}")).await;
        let keys = format!("/keys/{}/", found["records"][0]["uuid"].as_str().unwrap());
        Tenant { name: name.to_owned(), config, keys, endpoints: (0..NODES).map(|node| client.endpoint(self.cluster.node(node).ekmip)).collect() }
    }

    async fn creates(&self, tenant: &Tenant) {
        let id = block_in_place(|| Kmip::connect(&tenant.endpoints[0]).created(vec![]));
        let rows = self.rows(&tenant.keys).await;
        let row = rows.iter().find(|row| row.key.ends_with(&id)).unwrap();
        let raw = Arc::new(store_of(&self.cluster.etcd, "/bound"));
        let fence = raw.transact(Txn::new().put("/key-store", "")).await.unwrap();
        let (mut bound, mut made) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bound.push(transactions(&raw, fence, row).await);
            let clients = block_in_place(|| tenant.connected(CONNECTIONS));
            made.push(block_in_place(|| load(clients, ROUND, create)));
        }
        let (bound, made) = (median(bound), median(made));
        println!(
            "KMIP Create, durable, {CONNECTIONS} connections on {NODES} nodes: {made:.0}/s; transactions of the same records by {CONNECTIONS} writers: {bound:.0}/s"
        );
        println!("  ratio {:.2} of the transactions", made / bound);
    }

    async fn staleness(&self, tenant: &Tenant) {
        let quiet = block_in_place(|| tenant.destroyed(300));
        told("a key that another node has destroyed", quiet);
        let stop = AtomicBool::new(false);
        let (busy, rate) = block_in_place(|| {
            std::thread::scope(|scope| {
                let clients = tenant.connected(CONNECTIONS);
                let creating = scope.spawn(|| load_while(clients, || !stop.load(Ordering::Relaxed), create));
                let busy = tenant.destroyed(300);
                stop.store(true, Ordering::Relaxed);
                (busy, creating.join().unwrap())
            })
        });
        told(&format!("the same, while {rate:.0} keys a second are made"), busy);
        let mut revoked = Vec::new();
        for turn in 0..60 {
            revoked.push(self.revoked(&tenant.name, turn % NODES, (turn + 1) % NODES).await);
        }
        told("a client that another node has revoked, on its open connection", revoked);
    }

    /// How long a client is served by a node, counted from when another has answered that its certificate is revoked.
    async fn revoked(&self, svm: &str, from: usize, to: usize) -> f64 {
        let from = self.cluster.node(from);
        let client = Credentials::issue_by(from, svm).await;
        let mut kmip = Kmip::connect_new(&client.endpoint(self.cluster.node(to).ekmip)).await;
        let (status, body) = from.call("DELETE", &format!("/security/ekmip/clients/{}", client.uuid), None).await.unwrap();
        let told = Instant::now();
        assert_eq!(status, 200, "{body}");
        block_in_place(|| while kmip.try_call(Operation::Locate, vec![]).is_ok_and(|answer| answer.reason().is_none()) {});
        told.elapsed().as_secs_f64()
    }

    async fn rekey(&self, tenant: &Tenant) {
        let count = adjustable("KEYS", 20_000);
        block_in_place(|| {
            std::thread::scope(|scope| {
                for endpoint in &tenant.endpoints {
                    scope.spawn(|| Kmip::connect(endpoint).created_together(count.div_ceil(NODES)));
                }
            });
        });
        let real = self.rows(&tenant.keys).await;
        // The same rows, of an SVM that nobody serves.
        let other = Uuid::new_v4();
        let key = |row: &Row| format!("/keys/{other}/{}", row.key.rsplit('/').next().unwrap());
        let mut rows: Vec<Row> = real.iter().map(|row| Row { key: key(row), ..row.clone() }).collect();
        for rows in rows.chunks_mut(BATCH) {
            let txn = rows.iter().fold(Txn::new(), |txn, row| txn.put(row.key.clone(), row.value.clone()));
            let revision = self.store.transact(txn).await.unwrap();
            rows.iter_mut().for_each(|row| row.revision = revision);
        }
        let (mut bound, mut took) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            bound.push(self.written(&mut rows).await);
            took.push(self.rekeyed(tenant).await);
        }
        bound.push(self.written(&mut rows).await);
        let (bound, took) = (bound.iter().sum::<f64>() / 3.0, took.iter().sum::<f64>() / 2.0);
        println!("rekey-internal of {} keys: {took:.1} s; the same rows in the same batches: {bound:.1} s", real.len());
        at_most(took / bound, 1.3, "times the batches");

        let id = real[0].key.rsplit('/').next().unwrap();
        let before = self.gets(tenant, id, async { tokio::time::sleep(NORMAL).await }).await;
        let meanwhile = self.gets(tenant, id, async { self.rekeyed(tenant).await }).await;
        // What etcd and its members take of this machine for the same rows, whoever writes them.
        let batches = self.gets(tenant, id, async { self.written(&mut rows).await }).await;
        let after = self.gets(tenant, id, async { tokio::time::sleep(NORMAL).await }).await;
        println!(
            "KMIP Get, {READERS} connections on {NODES} nodes: {before:.0}/s before, {meanwhile:.0}/s during a rekey-internal, {batches:.0}/s during the same batches, {after:.0}/s after"
        );
        println!("  ratio {:.2} of those during the same batches", meanwhile / batches);
        at_least(meanwhile / f64::midpoint(before, after), 0.7, "of normal");
    }

    /// Writes the rows again, in batches as a rekey does; in seconds.
    async fn written(&self, rows: &mut [Row]) -> f64 {
        let start = Instant::now();
        for rows in rows.chunks_mut(BATCH) {
            let txn =
                rows.iter().fold(Txn::new(), |txn, row| txn.when(Compare::Unchanged(row.key.clone(), row.revision)).put(row.key.clone(), row.value.clone()));
            let revision = self.store.transact(txn).await.unwrap();
            rows.iter_mut().for_each(|row| row.revision = revision);
        }
        start.elapsed().as_secs_f64()
    }

    /// One rekey-internal; in seconds.
    async fn rekeyed(&self, tenant: &Tenant) -> f64 {
        let (node, start) = (self.cluster.node(0), Instant::now());
        let (status, body) = node.call("POST", &format!("{}/rekey-internal", tenant.config), None).await.unwrap();
        assert_eq!(status, 202, "{body}");
        let path = format!("/cluster/jobs/{}?fields=*", body["job"]["uuid"].as_str().unwrap());
        ended(node, &path).await;
        start.elapsed().as_secs_f64()
    }

    /// Gets a second of one key, at all nodes, while something else goes on.
    async fn gets(&self, tenant: &Tenant, id: &str, meanwhile: impl Future) -> f64 {
        let get = Arc::new(bytes(&message(2, vec![(Operation::Get, vec![uid(id)])], &[])));
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = block_in_place(|| tenant.connected(READERS));
        let expected = block_in_place(|| Client::connect(&tenant.endpoints[0]).unwrap().call_bytes(&get).unwrap().len());
        let start = Instant::now();
        let threads: Vec<_> = clients
            .into_iter()
            .map(|(mut client, _)| {
                let (get, stop, count) = (Arc::clone(&get), Arc::clone(&stop), Arc::clone(&count));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let answer = client.call_bytes(&get).unwrap();
                        assert_eq!(answer.len(), expected, "an answer that refuses has no key");
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        meanwhile.await;
        let rate = count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        block_in_place(|| threads.into_iter().for_each(|thread| thread.join().unwrap()));
        rate
    }

    async fn rows(&self, prefix: &str) -> Vec<Row> {
        let (mut rows, mut range) = (Vec::new(), Range::prefix(prefix, 1_000));
        loop {
            let page = self.store.range(range.clone()).await.unwrap();
            range.after = page.entries.last().map(|entry| entry.key.clone());
            rows.extend(page.entries.into_iter().map(|entry| Row { key: entry.key, value: entry.value.to_vec(), revision: entry.revision }));
            if !page.more {
                return rows;
            }
        }
    }
}

impl Tenant {
    /// How long keys are handed out by a node, counted from when another has answered that they are destroyed.
    fn destroyed(&self, count: usize) -> Vec<f64> {
        let mut clients: Vec<Kmip> = self.endpoints.iter().map(Kmip::connect).collect();
        let one = |turn: usize| {
            let (from, to) = (turn % NODES, (turn + 1) % NODES);
            let id = clients[from].created(vec![]);
            assert_eq!(clients[to].get(&id).reason(), None);
            clients[from].with_id(Operation::Destroy, &id).payload();
            let told = Instant::now();
            while clients[to].get(&id).reason().is_none() {}
            told.elapsed().as_secs_f64()
        };
        (0..count).map(one).collect()
    }

    /// So many connections, spread over the nodes, with the bytes of a Create.
    fn connected(&self, count: usize) -> Vec<(Client, Vec<u8>)> {
        let request = bytes(&message(2, vec![(Operation::Create, vec![Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), usual()])], &[]));
        (0..count).map(|number| (Client::connect(&self.endpoints[number % NODES]).unwrap(), request.clone())).collect()
    }
}

fn create((client, request): &mut (Client, Vec<u8>)) {
    client.call_bytes(request).unwrap();
}

/// Transactions a second as a Create makes them.
async fn transactions(store: &Arc<EtcdStore>, fence: Revision, row: &Row) -> f64 {
    let (svm, count, start) = (Uuid::new_v4(), Arc::new(AtomicU64::new(0)), Instant::now());
    let writers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (store, value, count) = (Arc::clone(store), row.value.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                while start.elapsed() < ROUND {
                    let key = format!("/keys/{svm}/{}", Uuid::new_v4());
                    let txn = Txn::new().when(Compare::Absent(key.clone())).when(Compare::Unchanged("/key-store".to_owned(), fence));
                    store.transact(txn.put(key, value.clone())).await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

/// Waits for a job's success.
async fn ended(node: &Api, path: &str) {
    loop {
        let job: Json = node.get(path).await;
        match job["state"].as_str().unwrap() {
            "success" => return,
            "failure" => panic!("{job}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Says how stale a node was, and whether that is within a second.
fn told(what: &str, seconds: Vec<f64>) {
    let [half, most, longest] = [50, 99, 100].map(|percent| percentile(seconds.clone(), percent));
    println!(
        "{what}, {} times: until it is refused, half within {:.1} ms, 99 of 100 within {:.1} ms, all within {:.1} ms",
        seconds.len(),
        half * 1e3,
        most * 1e3,
        longest * 1e3
    );
    at_most(most, 1.0, "s for 99 of 100");
}

fn usual() -> Node<'static> {
    template(&[
        Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(3)),
        Attribute::new(Tag::CryptographicLength, Value::Integer(256)),
        Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)),
    ])
}

fn bytes(node: &Node<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(node, &mut out);
    out
}
