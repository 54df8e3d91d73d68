//! Faults of networks, clocks and disks, while clients make, read and destroy keys at every node and an operator makes SVMs: what goes on meanwhile, what was acknowledged is there at the end, all
//! nodes say the same, and each time everything heals by itself. Three nodes and three members of a real etcd, each on a host of its own; of processes that end or hang: `cluster_faults.rs`, of
//! jobs: `cluster_jobs.rs`.
//!
//! The short form has each fault once; with SOAK set, each node and each member in turn has it, and that some times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::{Cluster, Machines};
use common::eventually;
use common::kmip::{Credentials, Kmip};
use common::load::Load;
use keystead_testkit::network::{Rate, with_network};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NODES: usize = 3;
/// The longest time without a Get where nothing but etcd is away: clients are answered from what the node has.
const GET_GOES_ON: Duration = Duration::from_secs(3);
/// A link that all traffic of a node or a member hardly gets through. What waits there must not wait for so long that the node takes etcd for away: an answer has 2 s.
const SLOW: Rate = Rate { bits: 512_000, wait: 300 };
/// Of a member: etcd takes 64 MB at once for its log, and now and then the same once more.
const DISK: u64 = 192 << 20;

#[test]
fn nothing_is_lost_whatever_is_cut_off_or_slow() {
    let test = "cluster_networks::nothing_is_lost_whatever_is_cut_off_or_slow";
    let run = with_network(test, async |network| {
        let cluster = Cluster::start_in(&network, Machines::default()).await;
        let (_, client) = cluster.tenant("svm1").await;
        let mut load = Load::start(&cluster, &client).await;
        for _ in 0..rounds() {
            for node in each(2) {
                a_node_is_cut_off(&cluster, &mut load, node).await;
            }
            let leader = leader(&cluster).await;
            for member in each(leader) {
                a_member_is_cut_off(&cluster, &mut load, member).await;
            }
            the_majority_is_cut_off(&cluster, &mut load).await;
            for node in each(1) {
                a_link_is_slow(&cluster, &mut load, &format!("node{node}"), node).await;
            }
            for member in each(leader) {
                a_link_is_slow(&cluster, &mut load, &format!("m{member}"), member).await;
            }
        }
        load.check(&cluster, &client).await;
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn nothing_is_lost_with_a_clock_that_is_off() {
    let run = with_network("cluster_networks::nothing_is_lost_with_a_clock_that_is_off", async |network| {
        let cluster = Cluster::start_in(&network, Machines { clocks: true, ..Machines::default() }).await;
        let (config, client) = cluster.tenant("svm1").await;
        let mut load = Load::start(&cluster, &client).await;
        for _ in 0..rounds() {
            for node in each(2) {
                for minutes in [10, -10] {
                    a_clock_is_off(&cluster, &mut load, (&config, &client), node, minutes).await;
                }
            }
        }
        load.check(&cluster, &client).await;
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn nothing_is_lost_with_a_full_disk_under_etcd() {
    let run = with_network("cluster_networks::nothing_is_lost_with_a_full_disk_under_etcd", async |network| {
        let mut cluster = Cluster::start_in(&network, Machines { disk: Some(DISK), ..Machines::default() }).await;
        let (_, client) = cluster.tenant("svm1").await;
        let mut load = Load::start(&cluster, &client).await;
        for _ in 0..rounds() {
            let leader = leader(&cluster).await;
            for member in each(leader) {
                disks_are_full(&mut cluster, &mut load, &[member]).await;
            }
            disks_are_full(&mut cluster, &mut load, &[0, 1]).await;
        }
        load.check(&cluster, &client).await;
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

fn is_soak() -> bool {
    std::env::var_os("SOAK").is_some()
}

fn rounds() -> usize {
    if is_soak() { 3 } else { 1 }
}

/// One of three; in the long form all, this one first.
fn each(first: usize) -> impl Iterator<Item = usize> {
    (first..first + NODES).map(|n| n % NODES).take(if is_soak() { NODES } else { 1 })
}

async fn leader(cluster: &Cluster) -> usize {
    eventually("a member of etcd must lead", async || cluster.etcd.leader().await).await
}

/// How long a fault lasts, at the least.
async fn lasts(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn others(node: usize) -> impl Iterator<Item = usize> {
    (0..NODES).filter(move |other| *other != node)
}

/// A node that sees neither etcd nor AWS refuses what would have to be kept, hands out keys that it knows, and is shown as down by the others, which go on.
async fn a_node_is_cut_off(cluster: &Cluster, load: &mut Load, node: usize) {
    let since = Instant::now();
    cluster.hosts[node].cut_off().unwrap();
    let other = others(node).next().unwrap();
    tokio::join!(writes_are_refused(cluster, [node], since), cluster.shows(other, node, "down"));
    load.works(others(node), "another node is cut off").await;
    load.reads([node], "it is cut off").await;
    let (reads, _) = load.gaps(node, since);
    assert!(reads < GET_GOES_ON, "node{node} is cut off and has handed out no key for {reads:?}");
    cluster.hosts[node].join_again().unwrap();
    load.healed(&format!("node{node} cut off"), since, [node]).await;
    for seen_by in 0..NODES {
        cluster.shows(seen_by, node, "up").await;
    }
}

/// A member is cut off that leads: another one does soon, and nodes turn to others.
async fn a_member_is_cut_off(cluster: &Cluster, load: &mut Load, member: usize) {
    let since = Instant::now();
    cluster.member_hosts[member].cut_off().unwrap();
    load.works(0..NODES, "a member of etcd is cut off").await;
    lasts(5).await;
    reads_went_on(load, since, "a member of etcd is cut off");
    cluster.member_hosts[member].join_again().unwrap();
    load.healed(&format!("the member m{member} cut off"), since, 0..NODES).await;
}

/// Without the majority nothing is taken, and keys are handed out.
async fn the_majority_is_cut_off(cluster: &Cluster, load: &mut Load) {
    let since = Instant::now();
    for member in [0, 1] {
        cluster.member_hosts[member].cut_off().unwrap();
    }
    writes_are_refused(cluster, 0..NODES, since).await;
    load.reads(0..NODES, "the majority of etcd is cut off").await;
    reads_went_on(load, since, "the majority of etcd is cut off");
    for member in [0, 1] {
        cluster.member_hosts[member].join_again().unwrap();
    }
    load.healed("the majority of members cut off", since, 0..NODES).await;
    for node in 0..NODES {
        cluster.shows(0, node, "up").await;
    }
}

/// All goes on, slower; also at a node whose own link is slow.
async fn a_link_is_slow(cluster: &Cluster, load: &mut Load, name: &str, number: usize) {
    let host = if name.starts_with("node") { &cluster.hosts[number] } else { &cluster.member_hosts[number] };
    let since = Instant::now();
    host.slow_down(SLOW).unwrap();
    lasts(5).await;
    load.works(0..NODES, &format!("the link of {name} is slow")).await;
    reads_went_on(load, since, &format!("the link of {name} is slow"));
    host.speed_up().unwrap();
    load.healed(&format!("the link of {name} slow"), since, 0..NODES).await;
}

/// The node stays there, and takes and hands out keys; its jobs and certificates are good elsewhere, and those of others are good there. AWS refuses what it signs, and the node says why.
async fn a_clock_is_off(cluster: &Cluster, load: &mut Load, (config, client): (&str, &Credentials), node: usize, minutes: i64) {
    let (since, other) = (Instant::now(), (node + 1) % NODES);
    let before = svm_made(cluster, other).await;
    cluster.clocks[node].set(minutes * 60).unwrap();
    let off = eventually("the node must see its clock", async || {
        let off = clock(cluster, node).await.duration_since(jiff::Timestamp::now()).as_secs();
        ((off - minutes * 60).abs() < 5).then_some(off)
    })
    .await;
    let there = svm_made(cluster, node).await;
    // For longer than leases last, and than it takes until old jobs are looked for.
    lasts(12).await;
    load.works(0..NODES, &format!("the clock of node{node} is {off} s off")).await;
    reads_went_on(load, since, "a clock is off");
    for seen_by in 0..NODES {
        cluster.shows(seen_by, node, "up").await;
        for job in [&before, &there] {
            let (status, body) = cluster.node(seen_by).call("GET", &format!("/cluster/jobs/{job}"), None).await.unwrap();
            assert_eq!((status, body["state"].as_str()), (200, Some("success")), "node{seen_by}: a job that has just ended is there: {body}");
        }
    }
    let check = async |node: usize| cluster.node(node).get(&format!("{config}?fields=keystead.check")).await["keystead"]["check"].clone();
    let refused = check(node).await;
    let step = refused["steps"].as_array().unwrap().iter().find(|step| step["name"] == "clock_skew").unwrap();
    assert!(refused["passed"] == false && step["state"] == "failed", "AWS refuses what this clock has signed: {refused}");
    assert_eq!(check(other).await["passed"], true);
    // A certificate of either is good at the other at once.
    for (issuer, server) in [(node, other), (other, node)] {
        let new = Credentials::issue_by(cluster.node(issuer), "svm1").await;
        let made = eventually("the client must be known", async || {
            let mut kmip = Kmip::try_connect(&new.endpoint(cluster.node(server).ekmip))?;
            kmip.try_register(b"made by a new client", &[]).ok()
        })
        .await;
        assert_eq!(made.reason(), None, "{}", made.message());
    }
    cluster.clocks[node].set(0).unwrap();
    load.healed(&format!("the clock of node{node} {minutes} min off"), since, []).await;
    let mut kmip = Kmip::try_connect(&client.endpoint(cluster.node(node).ekmip)).unwrap();
    assert_eq!(kmip.try_register(b"made afterwards", &[]).unwrap().reason(), None);
}

/// Members of etcd whose disk is full end, and are started again when there is room, as who runs them would.
async fn disks_are_full(cluster: &mut Cluster, load: &mut Load, members: &[usize]) {
    let since = Instant::now();
    for member in members {
        cluster.etcd.disk(*member).unwrap().fill().unwrap();
    }
    for member in members {
        // It needs more room soon, as long as something is written.
        eventually("etcd must end for want of room", async || cluster.etcd.has_ended(*member).unwrap().then_some(())).await;
        println!("m{member} has ended, {:.1} s after its disk was full", since.elapsed().as_secs_f64());
    }
    if members.len() > NODES / 2 {
        writes_are_refused(cluster, 0..NODES, since).await;
        load.reads(0..NODES, "the disks of the majority are full").await;
    } else {
        load.works(0..NODES, "a member's disk is full").await;
    }
    reads_went_on(load, since, "disks are full");
    for member in members {
        cluster.etcd.disk(*member).unwrap().free().unwrap();
        cluster.etcd.restart(*member).unwrap();
    }
    load.healed(&format!("the disks of {members:?} full"), since, 0..NODES).await;
    cluster.etcd.ready().await.unwrap();
}

/// What cannot be kept is refused by each of some nodes: when the time of a call of the store is over.
async fn writes_are_refused(cluster: &Cluster, nodes: impl IntoIterator<Item = usize>, since: Instant) {
    let refused = nodes.into_iter().map(async |node| {
        let (status, body) = make_svm(cluster, node, "refused-", 30).await;
        assert_eq!((status, body["error"]["code"].as_str()), (500, Some("65536600")), "node{node}: {body}");
        println!("node{node} has refused a write {:.1} s after the fault", since.elapsed().as_secs_f64());
    });
    futures_util::future::join_all(refused).await;
}

fn reads_went_on(load: &Load, since: Instant, when: &str) {
    for node in 0..NODES {
        let (reads, _) = load.gaps(node, since);
        assert!(reads < GET_GOES_ON, "{when}: node{node} has handed out no key for {reads:?}");
    }
}

/// Asks a node to make an SVM with a new name, and waits so many seconds for it.
async fn make_svm(cluster: &Cluster, node: usize, name: &str, seconds: u8) -> (u16, Value) {
    let name = format!("{name}{}", uuid::Uuid::new_v4().simple());
    cluster.node(node).call("POST", &format!("/svm/svms?return_timeout={seconds}"), Some(json!({ "name": name }))).await.unwrap()
}

/// Makes an SVM; answers the job that does it.
async fn svm_made(cluster: &Cluster, node: usize) -> String {
    let (status, body) = make_svm(cluster, node, "made-", 0).await;
    assert_eq!(status, 202, "{body}");
    body["job"]["uuid"].as_str().unwrap().to_owned()
}

/// The time that a node has, as it says.
async fn clock(cluster: &Cluster, node: usize) -> jiff::Timestamp {
    let nodes = cluster.node(node).get("/cluster/nodes?fields=date").await;
    nodes["records"][0]["date"].as_str().unwrap().parse().unwrap()
}
