//! Clients that make, read and destroy keys at every node of a cluster, and an operator who makes SVMs, while a test disturbs the cluster: what they were told is recorded, and checked at the end by
//! `keystead_testkit::history`, which has found a planted bug of each kind.

use super::cluster::Cluster;
use super::eventually;
use super::kmip::{Answer, Credentials, Kmip};
use super::run::Api;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{Operation, ResultReason};
use keystead_testkit::history::{Asked, Call, Disturbed, End, History, Told};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a node may go on handing out what another has destroyed, where both see etcd.
const STALE: Duration = Duration::from_secs(1);
/// How long it takes a node to follow another member of etcd than one that hangs, and to catch up.
const RECOVERS: Duration = Duration::from_secs(4);
/// A pace that leaves the machine to those who are tested.
const PACE: Duration = Duration::from_millis(12);

/// Clients at work, until they are stopped: two of each node, one that reads what the node is known to have, and one that makes, destroys, and reads what others have made.
pub struct Load {
    pub history: Arc<History>,
    nodes: usize,
    stop: Arc<AtomicBool>,
    addresses: Arc<Mutex<Vec<(SocketAddr, Api)>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    operator: tokio::task::JoinHandle<()>,
    disturbed: Vec<Disturbed>,
}

/// What is known to be made: its name, and its identifier.
type Known = Arc<Mutex<Vec<(String, String)>>>;

impl Load {
    /// Begins at all nodes of a cluster, and waits until each has made a key and read one.
    pub async fn start(cluster: &Cluster, client: &Credentials) -> Self {
        let history = Arc::new(History::default());
        let stop = Arc::new(AtomicBool::new(false));
        let nodes = cluster.nodes.len();
        let addresses = (0..nodes).map(|node| (cluster.node(node).ekmip, cluster.node(node).deref().clone())).collect::<Vec<_>>();
        let addresses = Arc::new(Mutex::new(addresses));
        let known = Known::default();
        let seen: Vec<Known> = (0..nodes).map(|_| Known::default()).collect();
        let threads = (0..nodes).flat_map(|node| [(node, true), (node, false)]).map(|(node, writes)| {
            let seen = Arc::clone(&seen[node]);
            let (history, stop, addresses, known, client) =
                (Arc::clone(&history), Arc::clone(&stop), Arc::clone(&addresses), Arc::clone(&known), client.clone());
            std::thread::spawn(move || Client { node, writes, history, known, seen, client, made: 0, turn: 0 }.run(&stop, &addresses))
        });
        let threads = threads.collect();
        let operator = tokio::spawn(make_svms(Arc::clone(&addresses), Arc::clone(&history), Arc::clone(&stop)));
        let load = Self { history, nodes, stop, addresses, threads, operator, disturbed: Vec::new() };
        load.works(0..nodes, "the start").await;
        load
    }

    /// A node listens elsewhere since it was started again.
    pub fn moved(&self, cluster: &Cluster, node: usize) {
        self.addresses.lock().unwrap()[node] = (cluster.node(node).ekmip, cluster.node(node).deref().clone());
    }

    /// Waits until each of some nodes has made a key, and read one, since now. Answers how long that took.
    pub async fn works(&self, nodes: impl IntoIterator<Item = usize>, when: &str) -> Duration {
        let since = Instant::now();
        for node in nodes {
            self.done(node, since, true, when).await;
            self.done(node, since, false, when).await;
        }
        since.elapsed()
    }

    /// Waits until each of some nodes has handed out a key since now.
    pub async fn reads(&self, nodes: impl IntoIterator<Item = usize>, when: &str) {
        let since = Instant::now();
        for node in nodes {
            self.done(node, since, false, when).await;
        }
    }

    async fn done(&self, node: usize, since: Instant, make: bool, when: &str) {
        let what = if make { "make" } else { "hand out" };
        let found = |call: &&Call| {
            call.node == node && call.sent > since && matches!(call.told, Told::Done(_)) && is_make_of_key(&call.asked) == make && is_of_key(&call.asked)
        };
        eventually(&format!("node{node} must {what} keys: {when}"), async || self.history.calls().iter().rev().find(found).map(drop)).await;
    }

    /// A fault is over that began at `since`: waits until all nodes work, and prints how long what was not to be had, and how long it took until all was well. `disturbed`: the nodes that may have
    /// handed out what was old.
    pub async fn healed(&mut self, after: &str, since: Instant, disturbed: impl IntoIterator<Item = usize>) {
        let lasted = since.elapsed();
        let healed = self.works(0..self.nodes, after).await;
        println!("{after}: {:.1} s; healed {:.1} s later", lasted.as_secs_f64(), healed.as_secs_f64());
        for node in 0..self.nodes {
            let (reads, makes) = self.gaps(node, since);
            println!("  node{node} meanwhile: at most {:.1} s without a Get, {:.1} s without a key made", reads.as_secs_f64(), makes.as_secs_f64());
        }
        self.disturbed.extend(disturbed.into_iter().map(|node| (node, since, Instant::now() + RECOVERS)));
    }

    /// The longest time in which a node answered no read, since a moment, and in which it made no key.
    pub fn gaps(&self, node: usize, since: Instant) -> (Duration, Duration) {
        let reads = self.history.longest_gap(node, since, |call| matches!(call.asked, Asked::Read(_)) && matches!(call.told, Told::Done(_) | Told::Absent));
        let makes = self.history.longest_gap(node, since, |call| is_make_of_key(&call.asked) && matches!(call.told, Told::Done(_)));
        (reads, makes)
    }

    /// Stops the clients, and checks what they were told against what every node has then.
    pub async fn check(self, cluster: &Cluster, client: &Credentials) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
        }
        self.operator.await.unwrap();
        let end = end_of(cluster, client, &self.history).await;
        let violations = self.history.check(&end, STALE, &self.disturbed);
        let calls = self.history.calls();
        let done = calls.iter().filter(|call| matches!(call.told, Told::Done(_))).count();
        println!("{} calls, {done} of them done, {} names", calls.len(), self.history.names().len());
        let told: Vec<&Call> = calls.iter().filter(|call| violations.iter().any(|violation| call.asked.name() == violation.name())).collect();
        assert!(violations.is_empty(), "{violations:?}: {told:#?}");
        assert!(done > 500, "clients were at work all the while: {done}");
    }
}

fn is_of_key(asked: &Asked) -> bool {
    !asked.name().starts_with("svm-")
}

fn is_make_of_key(asked: &Asked) -> bool {
    matches!(asked, Asked::Make(_)) && is_of_key(asked)
}

/// A KMIP client of one node.
struct Client {
    node: usize,
    writes: bool,
    history: Arc<History>,
    known: Known,
    /// What this node has made or handed out.
    seen: Known,
    client: Credentials,
    made: usize,
    turn: usize,
}

impl Client {
    fn run(mut self, stop: &AtomicBool, addresses: &Mutex<Vec<(SocketAddr, Api)>>) {
        let mut connection: Option<Kmip> = None;
        while !stop.load(Ordering::SeqCst) {
            let (address, _) = addresses.lock().unwrap()[self.node];
            let Some(kmip) = connection.as_mut() else {
                connection = Kmip::try_connect(&self.client.endpoint(address));
                std::thread::park_timeout(Duration::from_millis(20));
                continue;
            };
            self.turn += 1;
            let answered = match self.turn % 8 {
                0 | 4 if self.writes => self.make(kmip),
                7 if self.writes => self.destroy(kmip),
                _ => self.read(kmip),
            };
            if !answered {
                connection = None;
            }
            std::thread::park_timeout(PACE);
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
            self.known.lock().unwrap().push((name.clone(), answer.id()));
            self.seen.lock().unwrap().push((name, answer.id()));
        }
        answer.is_ok()
    }

    fn read(&self, kmip: &mut Kmip) -> bool {
        let picked = {
            let known = if self.writes { self.known.lock().unwrap() } else { self.seen.lock().unwrap() };
            // A new one, which another node may just have made, or any.
            let is_new = self.writes && self.turn.is_multiple_of(2);
            let at = if is_new { known.len().saturating_sub(1) } else { (self.turn * 7919) % known.len().max(1) };
            known.get(at).cloned()
        };
        let Some((name, id)) = picked else { return true };
        let sent = Instant::now();
        let answer = kmip.try_with_id(Operation::Get, &id);
        let told = told(&answer, |answer| answer.material());
        if self.writes && matches!(told, Told::Done(_)) {
            self.seen.lock().unwrap().push((name.clone(), id));
        }
        self.record(Asked::Read(name), sent, told);
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
async fn make_svms(addresses: Arc<Mutex<Vec<(SocketAddr, Api)>>>, history: Arc<History>, stop: Arc<AtomicBool>) {
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let name = format!("svm-{n}");
        let (node, (_, api)) = {
            let addresses = addresses.lock().unwrap();
            (n % addresses.len(), addresses[n % addresses.len()].clone())
        };
        let sent = Instant::now();
        let call = api.call("POST", "/svm/svms?return_timeout=10", Some(json!({ "name": name })));
        let told = match tokio::time::timeout(Duration::from_secs(15), call).await {
            Ok(Some((201, _))) => Told::Done(Vec::new()),
            _ => Told::Nothing,
        };
        history.record(Call { node, asked: Asked::Make(name), sent, told, ended: Instant::now() });
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What every node has at the end.
async fn end_of(cluster: &Cluster, client: &Credentials, history: &History) -> End {
    let mut end = Vec::new();
    for node in 0..cluster.nodes.len() {
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
