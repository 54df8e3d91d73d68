//! A customer key that is rotated, and an alias that is pointed at another key: noticed by the poll, and the KEK is wrapped again. And all that an operator can change with the key at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Credentials, Kmip};
use common::scene::{Scene, enabled, scene};
use common::{Node, code, eventually, toml_for};
use keystead::serve::Hooks;
use keystead_testkit::{Fault, FaultRule, KeyState, KmsStandIn, NewKey, Options};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PERIOD: Duration = Duration::from_secs(66 * 60);

/// The jobs that nobody has asked for.
async fn wrappings(scene: &Scene) -> Vec<Value> {
    let jobs = scene.node.get("/cluster/jobs?fields=*").await;
    jobs["records"].as_array().unwrap().iter().filter(|job| job["description"].as_str().unwrap().starts_with("Wrapping the KEK")).cloned().collect()
}

/// The end of the only such job.
async fn wrapped(scene: &Scene) -> Value {
    eventually("the KEK must be wrapped again", async || {
        let jobs = wrappings(scene).await;
        assert!(jobs.len() <= 1, "{jobs:?}");
        jobs.into_iter().find(|job| ["success", "failure"].contains(&job["state"].as_str().unwrap()))
    })
    .await
}

/// The events of an SVM by this name, newest first.
async fn told(scene: &Scene, svm: &str, name: &str) -> Vec<Value> {
    scene.node.get(&format!("/support/ems/events?svm.name={svm}&message.name={name}&fields=*")).await["records"].as_array().unwrap().clone()
}

fn parameter(event: &Value, name: &str) -> String {
    let parameters = event["parameters"].as_array().unwrap();
    parameters.iter().find(|parameter| parameter["name"] == name).unwrap()["value"].as_str().unwrap().to_owned()
}

/// Lets a poll pass, and answers what AWS was asked.
async fn poll(scene: &Scene) -> Vec<String> {
    scene.kms.clear_calls();
    scene.clock.advance(PERIOD);
    let operations = || scene.kms.calls().into_iter().map(|call| call.operation).collect::<Vec<_>>();
    eventually("the poll must come", async || operations().contains(&"DescribeKey".to_owned()).then_some(())).await;
    // What a notice would start has started when the API shows its job; a poll later is soon enough to see that there is none.
    scene.clock.advance(PERIOD);
    eventually("the next poll must come", async || (operations().iter().filter(|operation| *operation == "DescribeKey").count() >= 2).then_some(())).await;
    operations()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key() {
    let scene = scene().await;
    let id = tokio::task::block_in_place(|| scene.connect().created(Vec::new()));
    scene.kms.rotate(&scene.key).unwrap();
    scene.clock.advance(PERIOD);
    let job = wrapped(&scene).await;
    assert_eq!(job["state"], "success", "{job}");
    let material = scene.kms.key(&scene.key).unwrap().key_material_id;
    assert!(job["description"].as_str().unwrap().contains(&material), "{job}");
    assert_eq!(job["svm"]["name"], "svm1");

    let events = told(&scene, "svm1", "ekmip.awskms.keyVersionChg").await;
    assert_eq!((events.len(), parameter(&events[0], "new_material")), (1, material), "{events:?}");

    // Once: the polls after it find nothing to do.
    let asked = poll(&scene).await;
    assert!(!asked.contains(&"Encrypt".to_owned()), "{asked:?}");
    assert_eq!(scene.node.get("/cluster/jobs?description=POST*").await["num_records"], 0, "no other job has run meanwhile");
    assert!(tokio::task::block_in_place(|| scene.connect().get(&id)).reason().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_that_moves() {
    let scene = scene().await;
    let old = scene.kms.create_key(NewKey::default()).unwrap();
    let new = scene.kms.create_key(NewKey::default()).unwrap();
    scene.kms.set_alias("alias/tenant", &old.key_id).unwrap();
    scene.node.svm("svm2").await;
    let config = enabled(&scene.node, &scene.kms, "alias/tenant", "svm2").await;
    let client = Credentials::issue(&scene.node, "svm2").await.endpoint(scene.node.ekmip);
    let id = tokio::task::block_in_place(|| Kmip::connect(&client).created(Vec::new()));

    scene.kms.set_alias("alias/tenant", &new.key_id).unwrap();
    scene.clock.advance(PERIOD);
    let job = wrapped(&scene).await;
    assert_eq!((&job["state"], &job["svm"]["name"]), (&json!("success"), &json!("svm2")), "{job}");
    assert!(job["message"].as_str().unwrap().contains(&new.arn), "{job}");

    let events = told(&scene, "svm2", "ekmip.awskms.keyChg").await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((parameter(&events[0], "old_key"), parameter(&events[0], "new_key")), (old.arn.clone(), new.arn.clone()));

    // From now on the new key alone counts: the old one can go.
    scene.kms.delete_key(&old.key_id).unwrap();
    scene.clock.advance(PERIOD);
    assert_eq!(scene.node.ask("POST", &format!("{config}/restore?return_timeout=60"), None).await.0, 201);
    let state = scene.node.get(&format!("{config}?fields=key_id,state")).await;
    assert_eq!((&state["key_id"], &state["state"]["code"]), (&json!("alias/tenant"), &json!("0")), "{state}");
    assert!(tokio::task::block_in_place(|| Kmip::connect(&client).get(&id)).reason().is_none());
}

/// Where AWS names no key material, rotation cannot be seen: the KEK is wrapped again each 30 days.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_material_ids_each_thirty_days() {
    let scene = scene().await;
    let silent = scene.kms.create_key(NewKey { without_material_id: true, ..NewKey::default() }).unwrap();
    scene.node.svm("svm2").await;
    enabled(&scene.node, &scene.kms, &silent.key_id, "svm2").await;
    scene.clock.advance(Duration::from_secs(29 * 24 * 3600));
    poll(&scene).await;
    assert_eq!(wrappings(&scene).await, Vec::<Value>::new());
    scene.clock.advance(Duration::from_secs(24 * 3600));
    let job = wrapped(&scene).await;
    assert_eq!((&job["state"], &job["svm"]["name"]), (&json!("success"), &json!("svm2")), "{job}");
    assert_eq!(told(&scene, "svm2", "ekmip.awskms.keyVersionChg").await.len(), 1);
}

/// Nobody re-roots a revoked tenant: the old key must be good inside the job, also where the poll that has noticed the change was good a moment ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_between_the_notice_and_the_wrapping() {
    let scene = scene().await;
    let old = scene.kms.create_key(NewKey::default()).unwrap();
    let new = scene.kms.create_key(NewKey::default()).unwrap();
    scene.kms.set_alias("alias/tenant", &old.key_id).unwrap();
    scene.node.svm("svm2").await;
    let config = enabled(&scene.node, &scene.kms, "alias/tenant", "svm2").await;
    // Only svm2 polls.
    assert_eq!(scene.node.ask("DELETE", &format!("{}?return_timeout=60", scene.config), None).await.0, 200);
    scene.kms.set_alias("alias/tenant", &new.key_id).unwrap();
    scene.kms.add_fault(FaultRule { from: 2, ..FaultRule::next("Decrypt", Fault::Revoke { after: false }) });
    scene.clock.advance(PERIOD);
    let job = wrapped(&scene).await;
    assert_eq!((&job["state"], &job["code"]), (&json!("failure"), &json!(65537538)), "{job}");
    assert!(job["message"].as_str().unwrap().contains("DisabledException"), "{job}");
    assert!(!scene.kms.calls().iter().any(|call| call.operation == "Encrypt" && call.key_id.as_deref() == Some(&new.key_id)));

    let events = told(&scene, "svm2", "keystead.awskms.rewrapFailed").await;
    assert_eq!((events.len(), parameter(&events[0], "code")), (1, "65537538".to_owned()), "{events:?}");
    assert_eq!(told(&scene, "svm2", "ekmip.awskms.keyChg").await, Vec::<Value>::new());

    // The same by hand, and with the context; and nothing of it is left behind once the key is back.
    let answer = scene.node.ask("POST", &format!("{config}/rekey-external?return_timeout=60"), Some(json!({ "key_id": new.key_id }))).await;
    assert_eq!((answer.0, code(&answer).as_str()), (400, "65537538"), "{answer:?}");
    let answer = scene.node.ask("PATCH", &format!("{config}?return_timeout=60"), Some(json!({ "encryption_context": "tenant=2" }))).await;
    assert_eq!((answer.0, code(&answer).as_str()), (400, "65537538"), "{answer:?}");
    scene.kms.set_key_state(&old.key_id, KeyState::Enabled).unwrap();
    assert_eq!(scene.node.ask("POST", &format!("{config}/restore?return_timeout=60"), None).await.0, 201);
}

/// To another account, in another region, behind another endpoint with a CA of its own: old and new are both proven, then all is swapped at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_new_at_once() {
    let scene = scene().await;
    let id = tokio::task::block_in_place(|| scene.connect().created(Vec::new()));
    let there = KmsStandIn::start(Options { region: "eu-west-1".to_owned(), account: "444455556666".to_owned(), ..Options::default() }).await.unwrap();
    there.add_access_key("AKIATHERETHERETHERE0", "the secret there");
    let key = there.create_key(NewKey { regions: vec!["eu-west-1".to_owned()], ..NewKey::default() }).unwrap();
    let new = json!({
        "region": "eu-west-1", "access_key_id": "AKIATHERETHERETHERE0", "secret_access_key": "the secret there", "port": there.addr().port(),
        "encryption_context": "tenant=1", "ca_certificates": there.ca_pem().unwrap(),
    });
    let path = format!("{}/rekey-external?return_timeout=60", scene.config);
    let ask = async |key_id: &str, change: &[(&str, Value)]| {
        let mut new = new.clone();
        change.iter().for_each(|(name, value)| new[*name] = value.clone());
        scene.node.ask("POST", &path, Some(json!({ "key_id": key_id, "keystead": { "new": new } }))).await
    };
    let before = scene.node.get(&format!("{}?fields=**", scene.config)).await;
    for (change, expected) in [
        ((key.arn.as_str(), ("secret_access_key", json!("not the secret"))), "65537921"),
        ((key.arn.as_str(), ("port", json!(1))), "65537915"),
        (("arn:aws:kms:eu-west-1:444455556666:key/unknown", ("port", new["port"].clone())), "65537919"),
        ((key.arn.as_str(), ("ca_certificates", Value::Null)), "65537915"),
        ((key.arn.as_str(), ("secret_access_key", json!(""))), "65537920"),
        ((key.arn.as_str(), ("polling_period", json!(1))), "262179"),
        ((key.arn.as_str(), ("proxy_host", json!("127.0.0.1"))), "262186"),
        ((key.arn.as_str(), ("host", json!("169.254.169.254"))), "262245"),
    ] {
        let answer = ask(change.0, &[change.1]).await;
        assert_eq!(code(&answer), expected, "{answer:?}");
    }
    let answer = scene.node.ask("POST", &path, Some(json!({ "keystead": { "new": {} } }))).await;
    assert_eq!((code(&answer).as_str(), answer.1["error"]["target"].as_str()), ("262212", Some("key_id")), "{answer:?}");
    assert_eq!(scene.node.get(&format!("{}?fields=**", scene.config)).await, before, "what was refused has changed nothing");

    scene.kms.clear_calls();
    there.clear_calls();
    let answer = ask(&key.arn, &[]).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    let operations = |kms: &KmsStandIn| kms.calls().into_iter().map(|call| call.operation).collect::<Vec<_>>();
    assert_eq!((operations(&scene.kms), operations(&there)), (vec!["Decrypt".to_owned()], vec!["Encrypt".to_owned(), "Decrypt".to_owned()]));
    let after = scene.node.get(&scene.config).await;
    for (name, value) in new.as_object().unwrap().iter().filter(|(name, _)| !["secret_access_key", "ca_certificates"].contains(&name.as_str())) {
        assert_eq!(&after[name], value, "{name}");
    }
    assert_eq!(after["key_id"], key.arn.as_str());
    assert_eq!(told(&scene, "svm1", "ekmip.awskms.keyChg").await.len(), 1);

    // The old account is not needed any more, and the node comes back with the new one alone.
    scene.kms.delete_key(&scene.key).unwrap();
    let folder = scene.node.stop().await;
    let toml = toml_for(&scene.kms, folder.path());
    let node = Node::start_in(folder, &toml, Hooks { clock: scene.clock.clone(), ..Hooks::default() }).await.unwrap();
    eventually("the KEK must be loaded from the new account", async || {
        (node.get(&format!("{}?fields=state", scene.config)).await["state"]["code"] == "0").then_some(())
    })
    .await;
    let client = scene.client.endpoint(node.ekmip);
    assert!(tokio::task::block_in_place(|| Kmip::connect(&client).get(&id)).reason().is_none());
}

/// Two changes of a proxy that wait for each other: the second builds on the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_changes_of_a_proxy_that_wait() {
    let scene = scene().await;
    let proxy = relay_proxy(scene.kms.addr()).await;
    let port = proxy.port();
    let first = json!({ "proxy_type": "http", "proxy_host": "127.0.0.1", "proxy_port": port });
    let answer = scene.node.ask("PATCH", &format!("{}?return_timeout=60", scene.config), Some(first)).await;
    assert_eq!(answer.0, 200, "{answer:?}");
    scene.kms.add_fault(FaultRule { times: Some(1), ..FaultRule::always(Fault::Hold) });
    let job = async |change: Value| {
        let (status, body) = scene.node.ask("PATCH", &scene.config, Some(change)).await;
        assert_eq!(status, 202, "{body}");
        body["job"]["_links"]["self"]["href"].as_str().unwrap().strip_prefix("/api").unwrap().to_owned()
    };
    // The first one hangs at AWS, and the second is accepted meanwhile.
    let jobs = [job(json!({ "proxy_host": "localhost" })).await, job(json!({ "proxy_username": "somebody" })).await];
    assert_eq!(scene.kms.wait_held(1, Duration::from_secs(20)).await, 1);
    scene.kms.release();
    for job in jobs {
        let ended = eventually("the job must end", async || {
            let job = scene.node.get(&format!("{job}?fields=*")).await;
            ["success", "failure"].contains(&job["state"].as_str().unwrap()).then_some(job)
        })
        .await;
        assert_eq!(ended["state"], "success", "{ended}");
    }
    let config = scene.node.get(&scene.config).await;
    assert_eq!((&config["proxy_host"], &config["proxy_username"], &config["proxy_port"]), (&json!("localhost"), &json!("somebody"), &json!(port)));
}

/// A proxy that connects to one place, whatever it is asked.
async fn relay_proxy(to: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(near.read_u8().await?);
                }
                near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                let mut far = tokio::net::TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    address
}
