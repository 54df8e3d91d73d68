//! Replacing the cluster's CA, while clients of the old one and of the new one are served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::Cluster;
use common::eventually;
use common::kmip::{Credentials, Kmip};
use keystead_kmip::attribute::Attribute;
use serde_json::Value;

const PATH: &str = "/security/ekmip/ca";

fn certificates(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

async fn step(cluster: &Cluster, node: usize, step: &str) -> (u16, Value) {
    cluster.node(node).call("POST", &format!("{PATH}/{step}"), None).await.unwrap()
}

/// What is trusted, as each node tells it and as its file says.
async fn trusted(cluster: &Cluster, state: &str, count: usize) {
    for node in 0..2 {
        eventually(&format!("node{node} must be {state}, with {count} in ca.pem"), async || {
            let ca = cluster.node(node).get(PATH).await;
            let file = std::fs::read_to_string(cluster.folder(node).join("data/ca.pem")).unwrap();
            (ca["state"] == state && certificates(&file) == count).then_some(())
        })
        .await;
    }
}

/// A client that believes this CA alone.
fn believing(client: &Credentials, ca: &str) -> Credentials {
    Credentials { ca_certificate: ca.to_owned(), ..client.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_move_from_the_old_ca_to_the_new_one() {
    let mut cluster = Cluster::start(1, 2).await;
    let (config, old) = cluster.tenant("svm1").await;
    let id = Kmip::connect(&old.endpoint(cluster.node(0).ekmip)).created(vec![Attribute::name("kept")]);
    let serves = |cluster: &Cluster, node: usize, client: &Credentials| {
        Kmip::try_connect(&client.endpoint(cluster.node(node).ekmip))
            .is_some_and(|mut kmip| kmip.try_with_id(keystead_kmip::enumeration::Operation::Get, &id).is_ok_and(|answer| answer.reason().is_none()))
    };
    let looks = async |cluster: &Cluster| {
        eventually("nodes must know each other", async || {
            let body = cluster.node(0).get(&format!("{config}?fields=state,ekmip_reachability")).await;
            let all = body["ekmip_reachability"].as_array().unwrap().iter().all(|entry| entry["reachable"] == true);
            (all && body["state"]["code"] == "0").then_some(())
        })
        .await;
    };
    let first = cluster.node(0).get(PATH).await;
    assert_eq!((&first["state"], certificates(first["certificate"].as_str().unwrap())), (&Value::from("active"), 1), "{first}");
    for early in ["switch", "finish"] {
        let (status, body) = step(&cluster, 0, early).await;
        assert_eq!((status, body["error"]["code"].as_str()), (409, Some("8")), "{body}");
    }

    // The next one is made known, and signs nothing.
    assert_eq!(step(&cluster, 0, "prepare").await.0, 201);
    trusted(&cluster, "prepared", 2).await;
    assert_eq!(step(&cluster, 1, "prepare").await.0, 409);
    let known = Credentials::issue_by(cluster.node(1), "svm1").await;
    assert_eq!(certificates(&known.ca_certificate), 2, "clients get both");
    let prepared = cluster.node(1).get(PATH).await;
    let (old_ca, new_ca) = (prepared["certificate"].as_str().unwrap().to_owned(), prepared["other"]["certificate"].as_str().unwrap().to_owned());
    assert!(prepared["certificate"] == first["certificate"] && old_ca != new_ca && prepared["common_name"] != prepared["other"]["common_name"], "{prepared}");
    assert!(serves(&cluster, 0, &believing(&known, &old_ca)), "servers show the old one's");
    looks(&cluster).await;

    // It signs, on every node, without a restart.
    assert_eq!(step(&cluster, 1, "switch").await.0, 201);
    trusted(&cluster, "switched", 2).await;
    for node in 0..2 {
        eventually("the EKMIP server must show the new one's", async || serves(&cluster, node, &believing(&known, &new_ca)).then_some(())).await;
        eventually("the REST API must show the new one's", async || {
            let answer = common::client(new_ca.as_bytes()).get(format!("https://{}/healthz", cluster.node(node).address)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        assert!(!serves(&cluster, node, &believing(&known, &old_ca)), "who has not learned it in time is left behind");
    }
    let new = Credentials::issue_by(cluster.node(0), "svm1").await;
    eventually("it must be known", async || (serves(&cluster, 0, &new) && serves(&cluster, 1, &new)).then_some(())).await;
    assert!(serves(&cluster, 1, &known), "certificates of the old one are good still");
    looks(&cluster).await;
    assert_eq!(step(&cluster, 0, "prepare").await.0, 409);

    // The old one is forgotten.
    assert_eq!(step(&cluster, 0, "finish").await.0, 201);
    trusted(&cluster, "active", 1).await;
    for node in 0..2 {
        let known = believing(&known, &new_ca);
        eventually("the old one's certificates must be refused", async || (!serves(&cluster, node, &known)).then_some(())).await;
        assert!(serves(&cluster, node, &believing(&new, &new_ca)));
    }
    looks(&cluster).await;
    let last = cluster.node(0).get(PATH).await;
    assert!(last["certificate"] == new_ca.as_str() && last.get("other").is_none(), "{last}");
    for node in 0..2 {
        cluster.kill(node);
        cluster.restart(node).await;
    }
    eventually("it must be so after a restart", async || (serves(&cluster, 0, &new) && serves(&cluster, 1, &new)).then_some(())).await;
    // And once more.
    assert_eq!((step(&cluster, 0, "prepare").await.0, step(&cluster, 0, "switch").await.0, step(&cluster, 0, "finish").await.0), (201, 201, 201));
}
