//! Replacing the seal key: on every node, while the service goes on; after it, the old key opens nothing and is needed for nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::Cluster;
use common::crash::{Call, Scene, scene};
use common::kmip::Kmip;
use common::program::{fails, free_port, serve};
use common::run::Run;
use common::{SECRET, enable_body, eventually};
use keystead_kmip::attribute::Attribute;
use serde_json::{Value, json};
use std::path::Path;

const PATH: &str = "/security/ekmip/seal/rotate";

/// A line of a key's file.
fn line(digits: &str) -> String {
    digits.repeat(32) + "\n"
}

fn add(folder: &Path, key: &str) {
    let path = folder.join("data/seal.key");
    let keys = std::fs::read_to_string(&path).unwrap() + key;
    std::fs::write(path, keys).unwrap();
}

fn keep_only(folder: &Path, key: &str) {
    std::fs::write(folder.join("data/seal.key"), key).unwrap();
}

async fn rotate(node: &Run) -> (u16, Value) {
    node.call("POST", &format!("{PATH}?return_timeout=60"), None).await.unwrap()
}

fn refused(answer: &(u16, Value)) -> (&str, &str) {
    (answer.1["error"]["code"].as_str().unwrap_or_else(|| panic!("{answer:?}")), answer.1["error"]["message"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_takes_the_new_key_over() {
    let mut cluster = Cluster::start(1, 2).await;
    let (config, client) = cluster.tenant("svm1").await;
    let id = Kmip::connect(&client.endpoint(cluster.node(0).ekmip)).created(vec![Attribute::name("kept")]);
    let ca = json!({ "type": "root_ca", "common_name": "a CA", "name": "own" });
    let (status, body) = cluster.node(0).call("POST", "/security/certificates?return_timeout=30&return_records=true", Some(ca)).await.unwrap();
    assert_eq!(status, 201, "{body}");
    let new = line("5a");

    let answer = rotate(cluster.node(0)).await;
    assert_eq!((answer.0, refused(&answer).0), (409, "8"));
    assert!(refused(&answer).1.contains("gives no key beside that"), "{answer:?}");
    // Not on every node yet.
    add(&cluster.folder(0), &new);
    let answer = rotate(cluster.node(0)).await;
    assert_eq!(refused(&answer).0, "65537566");
    assert!(refused(&answer).1.contains("node1: the source of its seal key does not give the new one"), "{answer:?}");
    add(&cluster.folder(1), &new);
    cluster.stop(1);
    cluster.shows(0, 1, "down").await;
    let answer = rotate(cluster.node(0)).await;
    assert!(refused(&answer).0 == "65537566" && refused(&answer).1.contains("node1"), "{answer:?}");
    cluster.restart(1).await;
    cluster.shows(0, 1, "up").await;
    let answer = rotate(cluster.node(1)).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    let jobs = cluster.node(0).get("/cluster/jobs?fields=*&state=success").await;
    let ended = jobs["records"].as_array().unwrap().iter().find(|job| job["description"] == format!("POST /api{PATH}")).unwrap_or_else(|| panic!("{jobs}"));
    assert!(ended["message"].as_str().unwrap().contains("in use on nodes node1, node0"), "{ended}");

    // Sealed with the new one since, on both, without a restart.
    for node in 0..2 {
        let change = json!({ "access_key_id": common::ACCESS_KEY_ID, "secret_access_key": SECRET, "polling_period": 40 + node });
        let (status, body) = cluster.node(node).call("PATCH", &format!("{config}?return_timeout=60"), Some(change)).await.unwrap();
        assert_eq!(status, 200, "{body}");
    }
    // Again does nothing, and takes nothing back.
    assert_eq!(rotate(cluster.node(0)).await.0, 201);

    for node in 0..2 {
        cluster.kill(node);
        keep_only(&cluster.folder(node), &new);
        cluster.restart(node).await;
    }
    for node in 0..2 {
        let endpoint = client.endpoint(cluster.node(node).ekmip);
        eventually("the key must be served", async || Kmip::try_connect(&endpoint)?.get(&id).reason().is_none().then_some(())).await;
        assert_eq!(cluster.node(node).get(&format!("{config}?fields=amazon_reachability")).await["amazon_reachability"]["reachable"], true);
    }
    assert_eq!(cluster.node(0).call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm2" }))).await.unwrap().0, 201);
    let body = enable_body("svm2", &cluster.kms, &cluster.key);
    let (status, body) = cluster.node(1).call("POST", "/security/aws-kms?return_timeout=60", Some(body)).await.unwrap();
    assert_eq!(status, 201, "{body}");
    // A certificate needs the key of the cluster's CA.
    common::kmip::Credentials::issue_by(cluster.node(1), "svm2").await;
}

impl Scene {
    /// A folder with keys of both key managers, and a seal key beside the one in use.
    async fn with_two_keys(&self) -> (std::path::PathBuf, String) {
        let folder = self.folder("onboard", "two-keys");
        let mut node = Run::start(&folder, None, &[]).await;
        assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm2" }))).await.unwrap().0, 201);
        let body = enable_body("svm2", &self.kms, &self.key);
        let (status, body) = node.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", Some(body)).await.unwrap();
        assert_eq!(status, 201, "{body}");
        node.kill();
        add(&folder, &line("5a"));
        (folder, format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_loses_no_secret() {
    let scene = scene(2).await;
    let (folder, config) = scene.with_two_keys().await;
    let old = std::fs::read_to_string(folder.join("data/seal.key")).unwrap().lines().next().unwrap().to_owned() + "\n";
    let call = Call { from: "two-keys", method: "POST", path: PATH.to_owned(), body: json!({}) };
    let steps = scene.steps_of(&call).await;
    assert!(["rotate_seal.turn.after", "rotate_seal.record.after"].iter().all(|step| steps.iter().any(|known| known == step)), "{steps:?}");
    for step in &steps {
        let (folder, mut node) = scene.crash(&call, step).await;
        eventually("it must come to its end", async || (rotate(&node).await.0 == 201).then_some(())).await;
        node.kill();
        drop(node);
        keep_only(&folder, &line("5a"));
        let mut node = Run::start(&folder, None, &[]).await;
        scene.check(&node, step, &scene.keys);
        eventually("the secret for AWS must open", async || (node.get(&format!("{config}?fields=state")).await["state"]["code"] == "0").then_some(())).await;
        node.kill();
        drop(node);
        // The old one is of no use any more.
        keep_only(&folder, &old);
        let output = fails(serve(&folder, free_port(), free_port()));
        assert!(String::from_utf8_lossy(&output.stderr).contains("the seal key is not the one that this store was sealed with"), "{step}: {output:?}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
