//! Faults of every kind while clients make, read and destroy keys at every node and an operator makes SVMs: what was acknowledged is there at the end, nothing comes back, all nodes say the same, and
//! each time everything heals by itself. What clients were told is checked by `keystead_testkit::history`, which has found a planted bug of each kind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::Cluster;
use common::eventually;
use common::kmip::{Answer, Credentials, Kmip};
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{Operation, ResultReason};
use keystead_testkit::history::{Asked, Call, Disturbed, History, Told};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NODES: usize = 3;
/// How long a node may go on handing out what another has destroyed, where both see etcd.
const STALE: Duration = Duration::from_secs(1);
/// How long it takes a node to follow another member of etcd than one that hangs, and to catch up.
const RECOVERS: Duration = Duration::from_secs(4);

/// Clients at work, until they are stopped.
struct Load {
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    operator: tokio::task::JoinHandle<()>,
}

/// What is known to be made: its name, and its identifier.
type Known = Arc<Mutex<Vec<(String, String)>>>;

impl Load {
    fn start(cluster: &Cluster, client: &Credentials) -> Self {
        let history = Arc::new(History::default());
        let stop = Arc::new(AtomicBool::new(false));
        let addresses = Arc::new(Mutex::new((0..NODES).map(|node| cluster.node(node).ekmip).collect::<Vec<_>>()));
        let known = Known::default();
        let threads = (0..NODES).map(|node| {
            let (history, stop, addresses, known, client) =
                (Arc::clone(&history), Arc::clone(&stop), Arc::clone(&addresses), Arc::clone(&known), client.clone());
            std::thread::spawn(move || Client { node, history, known, client, made: 0, turn: 0 }.run(&stop, &addresses))
        });
        let operator = tokio::spawn(make_svms(
            (0..NODES).map(|node| std::ops::Deref::deref(cluster.node(node)).clone()).collect(),
            Arc::clone(&history),
            Arc::clone(&stop),
        ));
        Self { threads: threads.collect(), history, stop, addresses, operator }
    }

    /// A node listens elsewhere since it was started again.
    fn moved(&self, cluster: &Cluster, node: usize) {
        self.addresses.lock().unwrap()[node] = cluster.node(node).ekmip;
    }

    /// Waits until each node that runs has made a key, and read one, since now.
    async fn healed(&self, after: &str) {
        let since = Instant::now();
        eventually(&format!("keys must be made and read at every node after: {after}"), async || {
            let calls = self.history.calls();
            let fine =
                |node: usize, make: bool| {
                    calls.iter().rev().take_while(|call| call.ended > since).any(|call| {
                        call.node == node && call.sent > since && matches!(call.told, Told::Done(_)) && matches!(call.asked, Asked::Make(_)) == make
                    })
                };
            (0..NODES).all(|node| fine(node, true) && fine(node, false)).then_some(())
        })
        .await;
        println!("{after}: healed {:.1} s later", since.elapsed().as_secs_f64());
    }

    /// The longest time in which a node answered no read, since a moment, and in which it took no key.
    fn gaps(&self, node: usize, since: Instant) -> (f64, f64) {
        let longest = |make: bool| {
            self.history.longest_gap(node, |call| {
                call.ended > since && matches!(call.asked, Asked::Make(_)) == make && matches!(call.told, Told::Done(_) | Told::Absent)
            })
        };
        (longest(false).as_secs_f64(), longest(true).as_secs_f64())
    }

    async fn stop(self) -> Arc<History> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
        }
        self.operator.await.unwrap();
        self.history
    }
}

/// A KMIP client of one node.
struct Client {
    node: usize,
    history: Arc<History>,
    known: Known,
    client: Credentials,
    made: usize,
    turn: usize,
}

impl Client {
    fn run(mut self, stop: &AtomicBool, addresses: &Mutex<Vec<SocketAddr>>) {
        let mut connection: Option<Kmip> = None;
        while !stop.load(Ordering::SeqCst) {
            let address = addresses.lock().unwrap()[self.node];
            let Some(kmip) = connection.as_mut() else {
                connection = Kmip::try_connect(&self.client.endpoint(address));
                std::thread::park_timeout(Duration::from_millis(20));
                continue;
            };
            self.turn += 1;
            let answered = match self.turn % 8 {
                0 | 4 => self.make(kmip),
                7 => self.destroy(kmip),
                _ => self.read(kmip),
            };
            if !answered {
                connection = None;
            }
            // A pace that leaves the machine to those who are tested.
            std::thread::park_timeout(Duration::from_millis(8));
        }
    }

    fn make(&mut self, kmip: &mut Kmip) -> bool {
        self.made += 1;
        let name = format!("key {} of node {}", self.made, self.node);
        let secret = secret_of(&name);
        let sent = Instant::now();
        let answer = kmip.try_register(&secret, &[Attribute::name(name.clone())]);
        let told = match &answer {
            Ok(answer) if answer.reason().is_none() => Told::Done(secret.to_vec()),
            // What the store could not say may have happened.
            Ok(_) | Err(_) => Told::Nothing,
        };
        self.record(Asked::Make(name.clone()), sent, told);
        if let Ok(answer) = &answer
            && answer.reason().is_none()
        {
            self.known.lock().unwrap().push((name, answer.id()));
        }
        answer.is_ok()
    }

    fn read(&self, kmip: &mut Kmip) -> bool {
        // A new one, which another node may just have made, or any.
        let picked = {
            let known = self.known.lock().unwrap();
            let at = if self.turn.is_multiple_of(2) { known.len().saturating_sub(1) } else { (self.turn * 7919) % known.len().max(1) };
            known.get(at).cloned()
        };
        let Some((name, id)) = picked else { return true };
        let sent = Instant::now();
        let answer = kmip.try_with_id(Operation::Get, &id);
        self.record(Asked::Read(name), sent, told(&answer, |answer| answer.material()));
        answer.is_ok()
    }

    fn destroy(&self, kmip: &mut Kmip) -> bool {
        let picked = {
            let known = self.known.lock().unwrap();
            let at = (self.turn * 104_729) % known.len().max(1);
            if known.len() > 20 { Some(known[at].clone()) } else { None }
        };
        let Some((name, id)) = picked else { return true };
        let sent = Instant::now();
        let answer = kmip.try_with_id(Operation::Destroy, &id);
        let told = match told(&answer, |_| Vec::new()) {
            // Somebody else has destroyed it, or the store could not say.
            Told::Absent | Told::Refused => Told::Nothing,
            other => other,
        };
        self.record(Asked::Destroy(name), sent, told);
        answer.is_ok()
    }

    fn record(&self, asked: Asked, sent: Instant, told: Told) {
        self.history.record(Call { node: self.node, asked, sent, told, ended: Instant::now() });
    }
}

fn told(answer: &Result<Answer, String>, bytes: impl FnOnce(&Answer) -> Vec<u8>) -> Told {
    match answer {
        Err(_) => Told::Nothing,
        Ok(answer) => match answer.reason() {
            None => Told::Done(bytes(answer)),
            Some(ResultReason::ItemNotFound | ResultReason::ObjectDestroyed) => Told::Absent,
            Some(_) => Told::Refused,
        },
    }
}

/// The bytes of a key, from its name.
fn secret_of(name: &str) -> [u8; 32] {
    let mut secret = [0x5a; 32];
    for (at, byte) in name.bytes().enumerate() {
        secret[at % 32] ^= byte.rotate_left(u32::try_from(at / 32).unwrap());
    }
    secret
}

/// An operator who makes SVMs, at one node after the other.
async fn make_svms(nodes: Vec<common::run::Api>, history: Arc<History>, stop: Arc<AtomicBool>) {
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let (node, name) = (n % NODES, format!("svm-{n}"));
        let sent = Instant::now();
        let call = nodes[node].call("POST", "/svm/svms?return_timeout=10", Some(json!({ "name": name })));
        let told = match tokio::time::timeout(Duration::from_secs(15), call).await {
            Ok(Some((201, _))) => Told::Done(Vec::new()),
            _ => Told::Nothing,
        };
        history.record(Call { node, asked: Asked::Make(name), sent, told, ended: Instant::now() });
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What every node has at the end.
async fn end_of(cluster: &Cluster, client: &Credentials, history: &History) -> Vec<BTreeMap<String, Option<Vec<u8>>>> {
    let mut end = Vec::new();
    for node in 0..NODES {
        let mut has = BTreeMap::new();
        let svms = cluster.node(node).get("/svm/svms?max_records=10000").await;
        let svms: Vec<&str> = svms["records"].as_array().unwrap().iter().map(|svm| svm["name"].as_str().unwrap()).collect();
        let mut kmip = Kmip::connect_new(&client.endpoint(cluster.node(node).ekmip)).await;
        for name in history.names() {
            let bytes = if name.starts_with("svm-") {
                svms.contains(&name.as_str()).then(Vec::new)
            } else {
                let found = kmip.locate(&[Attribute::name(name.clone())]);
                found.first().map(|id| kmip.get(id)).filter(|answer| answer.reason().is_none()).map(|answer| answer.material())
            };
            has.insert(name, bytes);
        }
        end.push(has);
    }
    end
}

/// Takes minutes: `make soak` runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make soak runs it"]
async fn nothing_acknowledged_is_lost_whatever_ends_or_hangs() {
    let mut cluster = Cluster::start(3, NODES).await;
    let (_, client) = cluster.tenant("svm1").await;
    let load = Load::start(&cluster, &client);
    let mut disturbed: Vec<Disturbed> = Vec::new();
    let all_disturbed = |since: Instant| (0..NODES).map(move |node| (node, since, Instant::now() + RECOVERS));
    load.healed("nothing").await;
    let rounds = if std::env::var_os("SOAK").is_some() { 10 } else { 1 };
    let pause = async |seconds: u64| tokio::time::sleep(Duration::from_secs(seconds)).await;
    for _ in 0..rounds {
        for node in 0..NODES {
            let since = Instant::now();
            cluster.kill(node);
            pause(1).await;
            cluster.restart(node).await;
            load.moved(&cluster, node);
            load.healed(&format!("kill -9 of node{node}")).await;
            let other = (node + 1) % NODES;
            println!("  node{other} meanwhile: {:.1} s without a Get, {:.1} s without a key made", load.gaps(other, since).0, load.gaps(other, since).1);
        }
        for member in 0..3 {
            let since = Instant::now();
            cluster.etcd.kill(member).await.unwrap();
            pause(2).await;
            cluster.etcd.restart(member).unwrap();
            load.healed(&format!("kill -9 of the member m{member}")).await;
            cluster.etcd.ready().await.unwrap();
            println!("  node0 meanwhile: {:.1} s without a Get, {:.1} s without a key made", load.gaps(0, since).0, load.gaps(0, since).1);
        }
        for member in 0..3 {
            let since = Instant::now();
            cluster.etcd.pause(member).unwrap();
            pause(4).await;
            cluster.etcd.resume(member).unwrap();
            disturbed.extend(all_disturbed(since));
            load.healed(&format!("the member m{member} hung for 4 s")).await;
            println!("  node0 meanwhile: {:.1} s without a Get, {:.1} s without a key made", load.gaps(0, since).0, load.gaps(0, since).1);
        }
        let since = Instant::now();
        cluster.etcd.pause(0).unwrap();
        cluster.etcd.pause(1).unwrap();
        pause(6).await;
        cluster.etcd.resume(0).unwrap();
        cluster.etcd.resume(1).unwrap();
        disturbed.extend(all_disturbed(since));
        load.healed("the majority hung for 6 s").await;
        let (reads, writes) = load.gaps(0, since);
        println!("  node0 meanwhile: {reads:.1} s without a Get, {writes:.1} s without a key made");
        // For longer than its leases last.
        let since = Instant::now();
        cluster.signal(2, "-STOP");
        cluster.shows(0, 2, "down").await;
        cluster.signal(2, "-CONT");
        disturbed.push((2, since, Instant::now() + RECOVERS));
        load.healed("node2 hung until it was taken for dead").await;
        cluster.shows(0, 2, "up").await;
    }
    let history = load.stop().await;
    let end = end_of(&cluster, &client, &history).await;
    let violations = history.check(&end, STALE, &disturbed);
    let calls = history.calls();
    let done = calls.iter().filter(|call| matches!(call.told, Told::Done(_))).count();
    println!("{} calls, {done} of them done, {} names", calls.len(), history.names().len());
    assert!(violations.is_empty(), "{violations:?}");
    assert!(done > 500, "clients were at work all the while: {done}");
}
