//! Several nodes on one etcd: who is there, how one joins, and that they are alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::{Cluster, keystead};
use common::kmip::Kmip;
use common::{enable_body, eventually};
use keystead_kmip::attribute::Attribute;
use serde_json::json;
use std::sync::Arc;

/// How often what races is repeated: more in the long form.
fn times(short: usize, long: usize) -> usize {
    if std::env::var_os("SOAK").is_some() { long } else { short }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_go_and_come_back() {
    let mut cluster = Cluster::start(3, 3).await;
    for node in 0..3 {
        for other in 0..3 {
            cluster.shows(node, other, "up").await;
        }
    }
    // One CA, one seal key, and one cluster.
    let ca = |node: usize| std::fs::read_to_string(cluster.folder(node).join("data/ca.pem")).unwrap();
    let seal = |node: usize| std::fs::read_to_string(cluster.folder(node).join("data/seal.key")).unwrap();
    assert!(ca(0) == ca(1) && ca(1) == ca(2) && seal(0) == seal(1) && seal(1) == seal(2));
    assert_eq!(cluster.node(0).get("/cluster").await["uuid"], cluster.node(2).get("/cluster").await["uuid"]);

    let (config, client) = cluster.tenant("svm1").await;
    let mut kmip = Kmip::connect(&client.endpoint(cluster.node(1).ekmip));
    kmip.created(vec![Attribute::name("a key")]);
    let rekey = format!("{config}/rekey-internal?return_timeout=60");

    // One that dies is down when its lease is over, with the moment; one that is stopped, at once.
    let before = jiff::Timestamp::now();
    cluster.kill(2);
    let record = cluster.shows(0, 2, "down").await;
    let since: jiff::Timestamp = record["keystead"]["since"].as_str().unwrap().parse().unwrap();
    assert!(since >= before - jiff::SignedDuration::from_secs(1) && since <= jiff::Timestamp::now(), "{record}");
    eventually("all nodes must say the same", async || {
        let [one, other] = [cluster.shows(0, 2, "down").await, cluster.shows(1, 2, "down").await].map(|record| record["keystead"]["since"].clone());
        (one == other).then_some(())
    })
    .await;
    let (status, body) = cluster.node(1).call("POST", &rekey, None).await.unwrap();
    assert_eq!((status, body["error"]["code"].as_str()), (400, Some("65537566")), "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("node2"), "{body}");
    cluster.restart(2).await;
    cluster.shows(0, 2, "up").await;
    let (status, body) = cluster.node(1).call("POST", &rekey, None).await.unwrap();
    assert_eq!(status, 201, "{body}");
    cluster.stop(2);
    let record = cluster.shows(0, 2, "down").await;

    // One that is down can be taken out, and comes back when it is started again, wherever it is then.
    let path = |record: &serde_json::Value| format!("/cluster/nodes/{}", record["uuid"].as_str().unwrap());
    let up = cluster.shows(0, 1, "up").await;
    let (status, body) = cluster.node(0).call("DELETE", &path(&up), None).await.unwrap();
    assert_eq!((status, body["error"]["code"].as_str()), (409, Some("8")), "{body}");
    assert_eq!(cluster.node(0).call("DELETE", &path(&record), None).await.unwrap().0, 200);
    eventually("the node must be gone", async || (cluster.node(1).get("/cluster/nodes").await["num_records"] == 2).then_some(())).await;
    let (status, body) = cluster.node(1).call("POST", &rekey, None).await.unwrap();
    assert_eq!(status, 201, "nobody waits for it: {body}; {}; {} {}", cluster.node(1).get("/cluster/jobs?fields=*").await, cluster.log(0), cluster.log(1));
    cluster.restart(2).await;
    assert_eq!(cluster.shows(1, 2, "up").await["uuid"], record["uuid"]);
    eventually("it must serve the SVM", async || {
        Kmip::try_connect(&client.endpoint(cluster.node(2).ekmip))?.try_register(b"x", &[]).ok()?.reason().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_is_good_for_a_new_node_with_its_passphrase() {
    let cluster = Cluster::start(1, 1).await;
    let (invitation, passphrase) = cluster.invite();
    let text = std::fs::read_to_string(&invitation).unwrap();
    let seal = std::fs::read_to_string(cluster.folder(0).join("data/seal.key")).unwrap();
    assert!(!text.contains(seal.trim()) && !text.contains("PRIVATE KEY"), "what is secret is sealed");
    let root = tempfile::tempdir().unwrap();
    let wrong = root.path().join("wrong");
    std::fs::write(&wrong, "another passphrase, as long\n").unwrap();
    let join = |data: &std::path::Path, passphrase: &std::path::Path| {
        keystead(&["serve", "--listen", "127.0.0.1:0", "--ekmip-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .arg("--join")
            .arg(&invitation)
            .arg("--passphrase-file")
            .arg(passphrase)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let refused = |data: &std::path::Path, passphrase: &std::path::Path, why: &str| {
        let output = join(data, passphrase).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said}");
    };
    let data = root.path().join("data");
    refused(&data, &wrong, "passphrase");
    assert!(!data.join("seal.key").exists() && !data.join("store.toml").exists(), "nothing is left of it");
    // One that has been a node already does not become another's.
    let used = cluster.folder(0).join("used");
    std::fs::create_dir_all(&used).unwrap();
    std::fs::write(used.join("seal.key"), "5a".repeat(32) + "\n").unwrap();
    std::fs::set_permissions(used.join("seal.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    refused(&used, &passphrase, "seal.key gives another seal key than the cluster has");
    assert!(!used.join("store.toml").exists());
    // A joining that was ended half-way goes on.
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("seal.key"), &seal).unwrap();
    std::fs::set_permissions(data.join("seal.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut joined = join(&data, &passphrase);
    eventually("it must be a node of the cluster", async || {
        assert!(joined.try_wait().unwrap().is_none(), "it must not end");
        (cluster.node(0).get("/cluster/nodes?state=up").await["num_records"] == 2).then_some(())
    })
    .await;
    joined.kill().unwrap();
    joined.wait().unwrap();
    // An invitation is not written over a file.
    let again = keystead(&["cluster", "invite", "--data-dir"])
        .arg(cluster.folder(0).join("data"))
        .arg("--config")
        .arg(cluster.folder(0).join("keystead.toml"))
        .arg("--out")
        .arg(&invitation)
        .arg("--passphrase-file")
        .arg(&wrong)
        .output()
        .unwrap();
    assert!(!again.status.success() && std::fs::read_to_string(&invitation).unwrap() == text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_makes_another_has_at_once() {
    let cluster = Cluster::start(3, 2).await;
    let (_, client) = cluster.tenant("svm1").await;
    let connect = |node: usize| Kmip::connect(&client.endpoint(cluster.node(node).ekmip));
    let (mut one, mut other) = (connect(0), connect(1));
    for n in 0..times(200, 1_000) {
        let (from, to) = if n % 2 == 0 { (&mut one, &mut other) } else { (&mut other, &mut one) };
        let id = from.created(vec![Attribute::name(format!("key {n}"))]);
        let there = to.get(&id);
        assert_eq!(there.reason(), None, "key {n}: {}", there.message());
        assert_eq!(there.material(), from.get(&id).material());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_nodes_enables_an_svm() {
    let cluster = Cluster::start(3, 2).await;
    for n in 0..times(20, 200) {
        let svm = format!("svm{n}");
        assert_eq!(cluster.node(0).call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": svm }))).await.unwrap().0, 201);
        eventually("the other node must know the SVM", async || {
            let found = cluster.node(1).get(&format!("/svm/svms?name={svm}")).await;
            (found["num_records"] == 1).then_some(())
        })
        .await;
        let (gate, body) = (Arc::new(tokio::sync::Barrier::new(2)), enable_body(&svm, &cluster.kms, &cluster.key));
        let calls = [0, 1].map(|node| {
            let (api, gate, body) = (std::ops::Deref::deref(cluster.node(node)).clone(), Arc::clone(&gate), body.clone());
            tokio::spawn(async move {
                gate.wait().await;
                api.call("POST", "/security/aws-kms?return_timeout=60", Some(body)).await.unwrap()
            })
        });
        let [one, other] = calls;
        let answers = [one.await.unwrap(), other.await.unwrap()];
        let (made, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| *status == 201);
        assert_eq!((made.len(), refused.len()), (1, 1), "{answers:?}");
        assert_eq!(refused[0].1["error"]["code"], "65537910", "{answers:?}");
    }
}
