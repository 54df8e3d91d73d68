//! What concerns every node: the live objects are of all of them, whichever is asked, and jobs act on each and name it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::Cluster;
use common::kmip::Kmip;
use common::metrics::{Page, fetch};
use common::{ACCESS_KEY_ID, ManualClock, PASSWORD, SECRET, eventually};
use keystead::serve::Hooks;
use keystead_kmip::attribute::Attribute;
use keystead_manager::clock::Clock;
use keystead_testkit::{Fault, FaultRule, KeyState, KmsStandIn, NewKey, Options};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LIVE: &str = "fields=state,amazon_reachability,ekmip_reachability";

/// The entries of `ekmip_reachability` by the name of the node.
fn entry<'b>(body: &'b Value, node: &str) -> &'b Value {
    body["ekmip_reachability"].as_array().unwrap().iter().find(|entry| entry["node"]["name"] == node).unwrap_or_else(|| panic!("{body}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_tells_of_all_nodes() {
    let mut cluster = Cluster::start(1, 3).await;
    let (config, _) = cluster.tenant("svm1").await;
    let look = async |cluster: &Cluster, node: usize| cluster.node(node).get(&format!("{config}?{LIVE}")).await;
    for node in 0..3 {
        let body = look(&cluster, node).await;
        assert_eq!(body["state"], json!({ "cluster_state": true, "code": "0", "message": "" }), "{body}");
        assert_eq!(body["amazon_reachability"], json!({ "reachable": true, "code": "0", "message": "" }), "{body}");
        let entries = body["ekmip_reachability"].as_array().unwrap();
        assert_eq!(entries.len(), 3, "{body}");
        assert!(entries.iter().all(|entry| entry["reachable"] == true && entry["code"] == "0"), "{body}");
        let listed = cluster.node(node).get(&format!("/security/aws-kms?{LIVE}")).await;
        assert_eq!(listed["records"][0]["ekmip_reachability"].as_array().unwrap().len(), 3, "{listed}");
    }
    // The same node by node, with when each has last had a good answer of AWS.
    let nodes = async |cluster: &Cluster| cluster.node(0).get(&format!("{config}?fields=keystead.nodes")).await["keystead"]["nodes"].clone();
    let seen = nodes(&cluster).await;
    for (node, name) in seen.as_array().unwrap().iter().zip(["node0", "node1", "node2"]) {
        assert!(node["node"]["name"] == name && node["state"] == "up" && node["last_good_poll"].is_string(), "{seen}");
        assert!(node["kek"]["usable"] == true && node["amazon"]["reachable"] == true && node["ekmip"]["reachable"] == true, "{seen}");
    }
    let path = config.strip_prefix("/security/aws-kms/").unwrap();
    let restored = async |cluster: &Cluster, asked: usize, of: usize| {
        let record = cluster.shows(asked, of, "up").await;
        let ids = cluster.node(asked).get(&format!("/security/key-managers/{path}/keys/{}/key-ids?fields=*", text(&record["uuid"]))).await;
        let keks: Vec<bool> = ids["records"].as_array().unwrap().iter().filter(|id| id["key_type"] == "svm_kek").map(|id| id["restored"] == true).collect();
        keks
    };
    assert_eq!(restored(&cluster, 0, 2).await, [true]);

    // One that hangs is said to be silent; nobody knows yet that it is gone.
    cluster.signal(2, "-STOP");
    let body = look(&cluster, 0).await;
    assert_eq!((&body["state"]["cluster_state"], &body["state"]["code"]), (&json!(false), &json!("65537551")), "{body}");
    assert!(text(&body["state"]["message"]).contains("node2 - it does not answer"), "{body}");
    assert_eq!((&body["amazon_reachability"]["reachable"], &body["amazon_reachability"]["code"]), (&json!(false), &json!("65537915")), "{body}");
    assert!(text(&body["amazon_reachability"]["message"]).contains("node2: it does not answer"), "{body}");
    for node in ["node0", "node1", "node2"] {
        assert_eq!((&entry(&body, node)["reachable"], &entry(&body, node)["code"]), (&json!(false), &json!("65537552")), "{body}");
        assert!(text(&entry(&body, node)["message"]).contains("node2"), "{body}");
    }
    cluster.signal(2, "-CONT");
    eventually("it must be heard again", async || (look(&cluster, 0).await["state"]["code"] == "0").then_some(())).await;

    // One that is down is not asked.
    cluster.kill(2);
    let record = cluster.shows(0, 2, "down").await;
    let page = cluster.node(0).client.get(format!("https://{}/metrics", cluster.node(0).address)).basic_auth("admin", Some(PASSWORD));
    let page = Page::new(fetch(page).await.1);
    let up = ["node0", "node1", "node2"].map(|node| page.value(&format!("keystead_node_up{{node=\"{node}\"}}")));
    assert_eq!(up, [1.0, 1.0, 0.0]);
    let body = look(&cluster, 0).await;
    assert_eq!(body["state"]["cluster_state"], false, "{body}");
    assert!(text(&body["state"]["message"]).contains("node2 - it is down since"), "{body}");
    assert!(text(&body["amazon_reachability"]["message"]).contains("node2: it is down since"), "{body}");
    assert!(text(&entry(&body, "node1")["message"]).contains("node2: it is down since"), "{body}");
    assert!(text(&entry(&body, "node2")["message"]).contains("node2 cannot be asked: it is down since"), "{body}");
    eventually("its part must be shown as not to be had", async || {
        let seen = nodes(&cluster).await;
        let parts = [&seen[2]["kek"], &seen[2]["amazon"], &seen[2]["ekmip"]];
        (seen[2]["state"] == "down" && parts.iter().all(|part| text(&part["message"]).contains("it is down since"))).then_some(())
    })
    .await;
    let ids = format!("/security/key-managers/{path}/keys/{}/key-ids", text(&record["uuid"]));
    let (status, body) = cluster.node(0).call("GET", &ids, None).await.unwrap();
    assert_eq!((status, text(&body["error"]["code"])), (400, "65537566"), "{body}");

    // One that does not reach AWS KMS says so itself: it believes another CA.
    std::fs::copy(cluster.folder(2).join("data/ca.pem"), cluster.folder(2).join("aws-ca.pem")).unwrap();
    cluster.restart(2).await;
    cluster.shows(0, 2, "up").await;
    let body = eventually("it must have tried", async || {
        let body = look(&cluster, 0).await;
        text(&body["state"]["message"]).contains("node2 - unavailable (").then_some(body)
    })
    .await;
    assert_eq!((&body["state"]["cluster_state"], &body["amazon_reachability"]["reachable"]), (&json!(false), &json!(false)), "{body}");
    assert!(text(&body["amazon_reachability"]["message"]).contains("node2: ") && !text(&body["amazon_reachability"]["message"]).contains("node1"), "{body}");
    assert!(text(&body["state"]["message"]).starts_with("AWS KMS key protection is unavailable on the following nodes: node2"), "{body}");
    assert_eq!((restored(&cluster, 0, 2).await, restored(&cluster, 2, 1).await), (vec![false], vec![true]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_act_on_every_node_and_name_it() {
    let mut cluster = Cluster::start(1, 3).await;
    let (config, client) = cluster.tenant("svm1").await;
    let id = Kmip::connect(&client.endpoint(cluster.node(0).ekmip)).created(vec![Attribute::name("kept")]);
    let action = async |cluster: &Cluster, name: &str, body: Option<Value>| {
        let (status, answer) = cluster.node(0).call("POST", &format!("{config}/{name}?return_timeout=0"), body).await.unwrap();
        assert_eq!(status, 202, "{answer}");
        let job = format!("/cluster/jobs/{}?fields=*", text(&answer["job"]["uuid"]));
        eventually("the job must end", async || {
            let job = cluster.node(1).get(&job).await;
            ["success", "failure"].contains(&text(&job["state"])).then_some(job)
        })
        .await
    };
    let before = cluster.node(0).get(&format!("{config}?fields=*")).await;
    let versions = async |cluster: &Cluster| {
        let stores = cluster.node(0).get("/security/key-stores?fields=*").await;
        stores["records"].as_array().unwrap().iter().map(|store| text(&store["state"]).to_owned()).collect::<Vec<_>>()
    };

    let job = action(&cluster, "restore", None).await;
    assert_eq!(job["state"], "success", "{job}");
    for node in 0..3 {
        assert!(text(&job["message"]).contains(&format!("node node{node}: version 1 of the KEK is loaded")), "{job}");
    }
    let job = action(&cluster, "rekey-internal", None).await;
    assert_eq!(job["state"], "success", "{job}");
    assert!(text(&job["message"]).contains("loaded on nodes node"), "{job}");

    // A node that AWS KMS cannot be reached from is without the KEK. Nothing is done that would need it there.
    cluster.kill(2);
    let (aws_ca, own_ca) = (cluster.folder(2).join("aws-ca.pem"), std::fs::read(cluster.folder(2).join("data/ca.pem")).unwrap());
    let right_ca = std::fs::read(&aws_ca).unwrap();
    std::fs::write(&aws_ca, own_ca).unwrap();
    cluster.restart(2).await;
    cluster.shows(0, 2, "up").await;
    let other = cluster.kms.create_key(NewKey::default()).unwrap().key_id;
    for (name, body, code) in
        [("restore", None, "65536082"), ("rekey-internal", None, "65537566"), ("rekey-external", Some(json!({ "key_id": other })), "65537543")]
    {
        let job = action(&cluster, name, body).await;
        assert_eq!((text(&job["state"]), job["code"].to_string().as_str()), ("failure", code), "{job}");
        assert!(text(&job["message"]).contains("node2"), "{job}");
        assert_eq!(cluster.node(0).get(&format!("{config}?fields=*")).await, before, "nothing has changed");
        assert_eq!(versions(&cluster).await, ["active"]);
    }
    cluster.kill(2);
    std::fs::write(&aws_ca, &right_ca).unwrap();
    cluster.restart(2).await;
    let fine = async |cluster: &Cluster| {
        eventually("all nodes must serve the SVM", async || {
            (cluster.node(0).get(&format!("{config}?fields=state")).await["state"]["code"] == "0").then_some(())
        })
        .await;
    };
    fine(&cluster).await;

    // It has the KEK, and could not get it back from the new account: two of the nodes believe its CA.
    let there = KmsStandIn::start(Options { account: "444455556666".to_owned(), ..Options::default() }).await.unwrap();
    there.add_access_key(ACCESS_KEY_ID, SECRET);
    let new_key = there.create_key(NewKey::default()).unwrap().arn;
    for node in 0..2 {
        cluster.kill(node);
        let both = [right_ca.clone(), there.ca_pem().unwrap().as_bytes().to_vec()].concat();
        std::fs::write(cluster.folder(node).join("aws-ca.pem"), both).unwrap();
        cluster.restart(node).await;
    }
    cluster.shows(0, 1, "up").await;
    cluster.shows(0, 2, "up").await;
    fine(&cluster).await;
    let rekey =
        json!({ "key_id": new_key, "keystead": { "new": { "port": there.addr().port(), "access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET } } });
    let job = action(&cluster, "rekey-external", Some(rekey.clone())).await;
    assert_eq!((text(&job["state"]), job["code"].to_string().as_str()), ("failure", "65537919"), "{job}");
    assert!(text(&job["message"]).contains("node2: ") && !text(&job["message"]).contains("node1"), "{job}");
    assert_eq!(cluster.node(0).get(&format!("{config}?fields=*")).await, before, "nothing has changed");

    // One that is down is named, and loads what is stored when it starts.
    cluster.kill(2);
    cluster.shows(0, 2, "down").await;
    let job = action(&cluster, "rekey-external", Some(rekey)).await;
    assert_eq!(job["state"], "success", "{job}");
    assert!(text(&job["message"]).contains("node node2 was not asked, it is down since"), "{job}");
    std::fs::write(&aws_ca, there.ca_pem().unwrap()).unwrap();
    cluster.restart(2).await;
    fine(&cluster).await;
    let kept = Kmip::connect(&client.endpoint(cluster.node(2).ekmip)).get(&id);
    assert_eq!(kept.reason(), None, "{}", kept.message());
}

/// Nothing else would have node0 ask AWS within the half hour. It decides by its own two polls, not by what it was told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_node_blocks_the_others_ask_at_once() {
    let cluster = Cluster::start(1, 1).await;
    let (config, client) = cluster.tenant("svm1").await;
    // Of nodes whose clocks differ by more than an hour, one takes the other's certificate for one of the future.
    let body = json!({ "polling_period": 30, "keystead": { "access_error_grace": "0s" } });
    assert_eq!(cluster.node(0).call("PATCH", &format!("{config}?return_timeout=60"), Some(body)).await.unwrap().0, 200);
    let (folder, clock) = (Arc::new(tempfile::tempdir().unwrap()), ManualClock::new());
    let other = cluster.beside(&folder, "", Hooks { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..Hooks::default() }).await;
    let mut here = Kmip::connect(&client.endpoint(cluster.node(0).ekmip));
    let id = here.created(vec![]);
    let there = client.endpoint(other.ekmip);
    let at_other = async |serves: bool| {
        eventually("the other node must serve the key, or not", async || {
            clock.advance(Duration::from_secs(1));
            (Kmip::try_connect(&there)?.get(&id).reason().is_none() == serves).then_some(())
        })
        .await;
    };
    at_other(true).await;
    cluster.kms.set_key_state(&cluster.key, KeyState::Disabled).unwrap();
    assert_eq!(here.get(&id).reason(), None, "nobody has noticed");
    clock.advance(Duration::from_secs(34 * 60));
    at_other(false).await;
    let blocked = Instant::now();
    eventually("node0 must come to it by itself", async || here.get(&id).reason().is_some().then_some(())).await;
    println!("node0 has blocked {:.1} s after the other", blocked.elapsed().as_secs_f64());
    assert!(here.get(&id).message().contains("blocked"), "{}", here.get(&id).message());
    other.stop().await;
}

/// As many nodes as the live objects are made for: each is asked, and asks all others, and one that is gone is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "32 nodes take their time: make soak runs it"]
async fn thirty_two_nodes_tell_of_each_other() {
    let cluster = Cluster::start(1, 1).await;
    let (config, _) = cluster.tenant("svm1").await;
    let mut others = Vec::new();
    for number in 1..32 {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        others.push(cluster.beside_as(&format!("node{number}"), &folder, "", Hooks::default()).await);
    }
    let look = async || {
        let start = Instant::now();
        let body = cluster.node(0).get(&format!("{config}?{LIVE}")).await;
        (start.elapsed(), body)
    };
    let mut last = Value::Null;
    for _ in 0..100 {
        let (elapsed, body) = look().await;
        let entries = body["ekmip_reachability"].as_array().unwrap();
        println!("{elapsed:.1?}: {} of {} nodes reach all EKMIP servers", entries.iter().filter(|entry| entry["reachable"] == true).count(), entries.len());
        let good = entries.len() == 32 && entries.iter().all(|entry| entry["reachable"] == true) && body["state"]["code"] == "0";
        last = body;
        if good && last["amazon_reachability"]["reachable"] == true {
            break;
        }
        // Each look is new: what is told is of the last moments.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((&last["state"]["code"], &last["amazon_reachability"]["reachable"]), (&json!("0"), &json!(true)), "{last}");
    assert!(last["ekmip_reachability"].as_array().unwrap().iter().all(|entry| entry["reachable"] == true), "{last}");
    let mut took: Vec<_> = Vec::new();
    for _ in 0..5 {
        let (elapsed, body) = look().await;
        assert_eq!(body["state"]["code"], "0", "{body}");
        took.push(elapsed.as_secs_f64());
    }
    println!("32 nodes, all live fields: {took:.2?} s");
    for gone in others.drain(..3).collect::<Vec<_>>() {
        gone.stop().await;
    }
    for number in 1..4 {
        cluster.shows(0, number, "down").await;
    }
    let (elapsed, body) = look().await;
    println!("three of them down: {:.2} s", elapsed.as_secs_f64());
    assert_eq!(body["ekmip_reachability"].as_array().unwrap().len(), 32, "{body}");
    for number in 1..4 {
        assert!(text(&entry(&body, &format!("node{number}"))["message"]).contains("is down since"), "{body}");
        assert!(text(&body["state"]["message"]).contains(&format!("node{number} - it is down since")), "{body}");
    }
    for node in others {
        node.stop().await;
    }
}

/// Jobs are paused, let go on and cancelled from a node that does not have them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_controls_a_job() {
    let cluster = Cluster::start(1, 2).await;
    let (config, _) = cluster.tenant("svm1").await;
    let start = async |path: &str, method: &str, body: Option<Value>| {
        let (status, answer) = cluster.node(0).call(method, &format!("{config}{path}"), body).await.unwrap();
        assert_eq!(status, 202, "{answer}");
        format!("/cluster/jobs/{}", text(&answer["job"]["uuid"]))
    };
    let control = async |job: &str, action: &str| cluster.node(1).call("PATCH", &format!("{job}?action={action}"), None).await.unwrap();
    let shown = async |job: &str, state: &str| {
        for node in 0..2 {
            eventually(&format!("node{node} must show that {job} is {state}"), async || (cluster.node(node).get(job).await["state"] == state).then_some(()))
                .await;
        }
    };
    cluster.kms.add_fault(FaultRule::always(Fault::Hang));
    // One job of a configuration at a time: the second waits for the first, which waits for AWS.
    let first = start("/rekey-internal", "POST", None).await;
    cluster.kms.wait_held(1, Duration::from_secs(20)).await;
    let second = start("", "PATCH", Some(json!({ "polling_period": 30 }))).await;
    shown(&first, "running").await;
    assert_eq!(control(&second, "pause").await.0, 200);
    shown(&second, "paused").await;
    assert_eq!(control(&first, "cancel").await.0, 200);
    shown(&first, "failure").await;
    cluster.kms.clear_faults();
    cluster.kms.release();
    // It keeps its turn, and who comes after it waits.
    let third = start("", "PATCH", Some(json!({ "timeout": 11 }))).await;
    assert_eq!(control(&third, "cancel").await.0, 200);
    shown(&third, "failure").await;
    shown(&second, "paused").await;
    assert_eq!(cluster.node(1).get(&format!("{config}?fields=polling_period")).await["polling_period"], 60);
    assert_eq!(control(&second, "resume").await.0, 200);
    shown(&second, "success").await;
    assert_eq!(cluster.node(0).get(&format!("{config}?fields=polling_period")).await["polling_period"], 30);
}

/// Whoever has a certificate of the cluster's CA is no node by that, and nobody gets there without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_nodes_asks_what_nodes_ask() {
    let cluster = Cluster::start(1, 1).await;
    let (_, client) = cluster.tenant("svm1").await;
    let address = cluster.node(0).address;
    let certificate = CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap();
    let key = || PrivateKeyDer::from_pem_slice(client.private_key.as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(client.ca_certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    for shown in [None, Some(certificate)] {
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots.clone());
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some(certificate) => config.with_client_auth_cert(vec![certificate], key()).unwrap(),
        };
        config.alpn_protocols = vec![b"keystead-node/1".to_vec()];
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect("127.0.0.1".try_into().unwrap(), stream).await;
        // In TLS 1.3 a client hears of a refusal when it reads.
        let Ok(mut stream) = connected else { continue };
        let mut said = Vec::new();
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
        let _ = stream.read_to_end(&mut said).await;
        assert!(said.is_empty(), "nothing is said to it: {said:?}");
    }
    eventually("the refusal must be told", async || cluster.log(0).contains("its certificate is none of a node of this cluster").then_some(())).await;
}
