//! Nodes that are not alike: of another version, or without an address.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::{Cluster, store_of};
use common::kmip::Kmip;
use common::{code, enable_body, eventually};
use keystead::serve::Hooks;
use keystead_kmip::attribute::Attribute;
use keystead_store::{Compare, Range, Store as _, Txn};
use serde_json::{Value, json};
use std::sync::Arc;

async fn shown(cluster: &Cluster, state: &str) {
    eventually(&format!("the other node must be {state}"), async || {
        let nodes = cluster.node(0).get("/cluster/nodes?name=other&fields=state").await;
        (nodes["records"][0]["state"] == state).then_some(())
    })
    .await;
}

async fn enable(cluster: &Cluster, svm: &str) -> (u16, Value) {
    let body = enable_body(svm, &cluster.kms, &cluster.key);
    cluster.node(0).call("POST", "/security/aws-kms?return_timeout=60", Some(body)).await.unwrap()
}

fn message(answer: &(u16, Value)) -> &str {
    answer.1["error"]["message"].as_str().unwrap()
}

/// A rolling upgrade: what the older nodes cannot do waits until there is none, and what they can do goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_can_do_what_its_oldest_node_can() {
    let cluster = Cluster::start(1, 1).await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    for svm in ["svm1", "svm2"] {
        assert_eq!(cluster.node(0).call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": svm }))).await.unwrap().0, 201);
    }
    let onboard = json!({ "onboard": { "passphrase": "a passphrase of more than 32 bytes, for the cluster" } });
    let make_onboard = async || cluster.node(0).call("POST", "/security/key-managers?return_timeout=30", Some(onboard.clone())).await.unwrap();

    let oldest = cluster.beside(&folder, "", Hooks { feature_level: 0, ..Hooks::default() }).await;
    shown(&cluster, "up").await;
    let refused = enable(&cluster, "svm1").await;
    assert_eq!((refused.0, code(&refused).as_str()), (400, "65537901"), "{refused:?}");
    assert!(message(&refused).contains("node other") && message(&refused).contains("feature level 0"), "{refused:?}");
    oldest.stop().await;
    // It counts as long as it belongs to the cluster, also while it is down.
    shown(&cluster, "down").await;
    assert_eq!(code(&enable(&cluster, "svm1").await), "65537901");

    let older = cluster.beside(&folder, "", Hooks { feature_level: 1, ..Hooks::default() }).await;
    eventually("AWS KMS can be enabled", async || (enable(&cluster, "svm1").await.0 == 201).then_some(())).await;
    let refused = make_onboard().await;
    assert_eq!(code(&refused), "65536968", "{refused:?}");
    assert!(message(&refused).contains("node other") && message(&refused).contains("feature level 1"), "{refused:?}");
    // The older one takes part: it takes jobs, and shows what the newer one has.
    assert_eq!(older.enable(enable_body("svm2", &cluster.kms, &cluster.key)).await.0, 201);
    assert_eq!(older.get("/security/aws-kms").await["num_records"], 2);
    older.stop().await;

    let upgraded = cluster.beside(&folder, "", Hooks::default()).await;
    eventually("the onboard key manager can be made", async || (make_onboard().await.0 == 201).then_some(())).await;
    upgraded.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_an_address_is_in_the_way() {
    let cluster = Cluster::start(1, 1).await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    assert_eq!(cluster.node(0).call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await.unwrap().0, 201);
    let other = cluster.beside(&folder, "listen = \"0.0.0.0:0\"\n", Hooks::default()).await;
    shown(&cluster, "up").await;
    let refused = enable(&cluster, "svm1").await;
    assert_eq!((refused.0, code(&refused).as_str()), (500, "65537518"), "{refused:?}");
    assert!(message(&refused).contains("node other") && message(&refused).contains("set [cluster] address"), "{refused:?}");
    other.stop().await;
    // Elsewhere, and with an address.
    let other = cluster.beside(&folder, "", Hooks::default()).await;
    eventually("AWS KMS can be enabled", async || (enable(&cluster, "svm1").await.0 == 201).then_some(())).await;
    other.stop().await;
}

/// What a newer version has written, an older one reads as far as it knows it, and leaves the rest alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_newer_version_do_no_harm() {
    let mut cluster = Cluster::start(1, 2).await;
    let (config, client) = cluster.tenant("svm1").await;
    let id = Kmip::connect(&client.endpoint(cluster.node(0).ekmip)).created(vec![Attribute::name("kept")]);
    let before = cluster.node(0).get(&format!("{config}?fields=*")).await;
    let store = store_of(&cluster.etcd, "/keystead");
    let all = store.range(Range::prefix("/", 1_000)).await.unwrap().entries;
    let records = || all.iter().filter_map(|entry| Some((entry, serde_json::from_slice::<Value>(&entry.value).ok().filter(Value::is_object)?)));
    // Every record has a member more, and there are records of a kind that nobody knows.
    let more = records().filter(|(entry, _)| !["/presence", "/jobs", "/claims"].iter().any(|volatile| entry.key.starts_with(volatile)));
    let mut count = 0;
    for (entry, mut record) in more {
        record["of_a_newer_version"] = json!({ "a": [1, 2] });
        let txn = Txn::new().when(Compare::Unchanged(entry.key.clone(), entry.revision)).put(entry.key.clone(), record.to_string().into_bytes());
        count += usize::from(store.transact(txn).await.is_ok());
    }
    assert!(count >= 10, "{count} of {}", all.len());
    store.transact(Txn::new().put("/of-a-newer-version/1".to_owned(), b"no JSON".to_vec())).await.unwrap();
    // A job of a kind that nobody knows waits for one who does.
    let (_, mut job) = records().find(|(entry, record)| entry.key.starts_with("/jobs/") && record["kind"]["type"] == "enable").unwrap();
    let uuid = uuid::Uuid::new_v4().to_string();
    job["uuid"] = json!(uuid);
    job["state"] = json!("queued");
    job["kind"] = json!({ "type": "of_a_newer_version", "config": uuid });
    job.as_object_mut().unwrap().remove("end_time");
    store.transact(Txn::new().put(format!("/jobs/{uuid}"), job.to_string().into_bytes())).await.unwrap();

    for node in 0..2 {
        eventually("the view must have it", async || {
            cluster.node(node).get("/cluster/jobs").await;
            cluster.log(node).contains("a record of the store cannot be read").then_some(())
        })
        .await;
        cluster.kill(node);
        cluster.restart(node).await;
    }
    for node in 0..2 {
        assert_eq!(cluster.node(node).get(&format!("{config}?fields=*")).await, before);
    }
    for node in 0..2 {
        let endpoint = client.endpoint(cluster.node(node).ekmip);
        eventually("the key must be served", async || Kmip::try_connect(&endpoint)?.get(&id).reason().is_none().then_some(())).await;
        let (status, body) =
            cluster.node(node).call("PATCH", &format!("{config}?return_timeout=60"), Some(json!({ "polling_period": 30 + node }))).await.unwrap();
        assert_eq!(status, 200, "jobs go on: {body}");
    }
    let rekey = format!("{config}/rekey-internal?return_timeout=60");
    eventually("a job of all nodes must go on", async || (cluster.node(0).call("POST", &rekey, None).await?.0 == 201).then_some(())).await;
    assert!(
        store.get(&format!("/jobs/{uuid}")).await.unwrap().is_some() && store.get("/of-a-newer-version/1").await.unwrap().is_some(),
        "and both are left alone"
    );
}
