//! Faults of processes, nodes and members of etcd, while clients make, read and destroy keys at every node and an operator makes SVMs: what was acknowledged is there at the end, nothing comes back,
//! all nodes say the same, and each time everything heals by itself. What happens to networks, clocks and disks: `cluster_networks.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::{Cluster, Machines};
use common::load::Load;
use keystead_testkit::network::with_network;
use std::time::{Duration, Instant};

const NODES: usize = 3;

#[test]
fn nothing_acknowledged_is_lost_whatever_ends_or_hangs() {
    with_network("cluster_faults::nothing_acknowledged_is_lost_whatever_ends_or_hangs", async |network| {
        let mut cluster = Cluster::start_in(&network, Machines::default()).await;
        let (_, client) = cluster.tenant("svm1").await;
        let mut load = Load::start(&cluster, &client).await;
        let soak = std::env::var_os("SOAK").is_some();
        for _ in 0..if soak { 10 } else { 1 } {
            ends(&mut cluster, &mut load).await;
            if soak {
                hangs(&mut cluster, &mut load).await;
            }
        }
        load.check(&cluster, &client).await;
    })
    .unwrap_or_else(|error| panic!("{error}"));
}

/// `kill -9` of each node and each member in turn.
async fn ends(cluster: &mut Cluster, load: &mut Load) {
    for node in 0..NODES {
        let since = Instant::now();
        cluster.kill(node);
        pause(1).await;
        cluster.restart(node).await;
        load.moved(cluster, node);
        load.healed(&format!("kill -9 of node{node}"), since, []).await;
    }
    for member in 0..NODES {
        let since = Instant::now();
        cluster.etcd.kill(member).await.unwrap();
        pause(2).await;
        cluster.etcd.restart(member).unwrap();
        load.healed(&format!("kill -9 of the member m{member}"), since, []).await;
        cluster.etcd.ready().await.unwrap();
    }
}

/// SIGSTOP of each member in turn, of the majority, and of a node for longer than its leases last.
async fn hangs(cluster: &mut Cluster, load: &mut Load) {
    for member in 0..NODES {
        let since = Instant::now();
        cluster.etcd.pause(member).unwrap();
        pause(4).await;
        cluster.etcd.resume(member).unwrap();
        load.healed(&format!("the member m{member} hung"), since, 0..NODES).await;
    }
    let since = Instant::now();
    cluster.etcd.pause(0).unwrap();
    cluster.etcd.pause(1).unwrap();
    pause(6).await;
    cluster.etcd.resume(0).unwrap();
    cluster.etcd.resume(1).unwrap();
    load.healed("the majority hung", since, 0..NODES).await;
    let since = Instant::now();
    cluster.signal(2, "-STOP");
    cluster.shows(0, 2, "down").await;
    cluster.signal(2, "-CONT");
    load.healed("node2 hung until it was taken for dead", since, [2]).await;
    cluster.shows(0, 2, "up").await;
}

/// How long a fault lasts.
async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
