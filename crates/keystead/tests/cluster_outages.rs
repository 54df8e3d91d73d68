//! What goes on while etcd, or a part of it, is away; and that it heals by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::Cluster;
use common::eventually;
use common::kmip::Kmip;
use keystead_kmip::attribute::Attribute;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_served_while_etcd_is_away_and_over_a_restart() {
    let mut cluster = Cluster::start(3, 2).await;
    let (_, client) = cluster.tenant("svm1").await;
    let endpoint = client.endpoint(cluster.node(0).ekmip);
    let mut kmip = Kmip::connect(&endpoint);
    let id = kmip.created(vec![Attribute::name("kept")]);
    let material = kmip.get(&id).material();
    // The other node has shown it, and so has it.
    let served = async |cluster: &Cluster, node: usize| {
        let endpoint = client.endpoint(cluster.node(node).ekmip);
        eventually(&format!("node{node} must hand the key out"), async || {
            let answer = Kmip::try_connect(&endpoint)?.get(&id);
            answer.reason().is_none().then(|| answer.material())
        })
        .await
    };
    assert_eq!(served(&cluster, 1).await, material);
    eventually("the copies must be complete", async || (0..2).all(|node| cluster.log(node).contains("local copy of the store is complete")).then_some(()))
        .await;

    // A minority: nothing stops.
    cluster.etcd.kill(0).await.unwrap();
    let (status, body) = cluster.node(0).call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "by-the-majority" }))).await.unwrap();
    assert_eq!(status, 201, "{body}");
    // The majority: what would have to be kept is refused, in time, and keys are served.
    cluster.etcd.kill(1).await.unwrap();
    let (status, body) = cluster.node(1).call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "lost" }))).await.unwrap();
    assert_eq!((status, body["error"]["code"].as_str()), (500, Some("65536600")), "{body}");
    for node in 0..2 {
        assert_eq!(served(&cluster, node).await, material);
    }
    // A node that starts now knows what it knew.
    cluster.kill(1);
    cluster.restart(1).await;
    assert_eq!(served(&cluster, 1).await, material);
    assert_eq!(cluster.node(1).get("/svm/svms?name=by-the-majority").await["num_records"], 1);
    let refused = Kmip::connect(&client.endpoint(cluster.node(1).ekmip)).create(vec![Attribute::name("refused")]);
    assert!(refused.reason().is_some(), "what cannot be kept is not acknowledged");

    cluster.etcd.restart(0).unwrap();
    cluster.etcd.restart(1).unwrap();
    let made = eventually("writes must go on by themselves", async || {
        let (status, _) = cluster.node(1).call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "healed" }))).await?;
        (status == 201).then_some(())
    });
    made.await;
    eventually("the other node must see it", async || (cluster.node(0).get("/svm/svms?name=healed").await["num_records"] == 1).then_some(())).await;
    for node in 0..2 {
        cluster.shows(0, node, "up").await;
    }
}
