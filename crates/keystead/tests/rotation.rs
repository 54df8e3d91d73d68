//! A customer key that is rotated, and an alias that is pointed at another key: noticed by the poll, and the KEK is wrapped again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::kmip::Credentials;
use common::scene::{Scene, enabled, scene};
use common::{code, eventually};
use keystead_testkit::{Fault, FaultRule, KeyState, NewKey};
use serde_json::{Value, json};
use std::time::Duration;

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
    let id = tokio::task::block_in_place(|| common::kmip::Kmip::connect(&client).created(Vec::new()));

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
    assert!(tokio::task::block_in_place(|| common::kmip::Kmip::connect(&client).get(&id)).reason().is_none());
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
