//! What still works while the keys of an SVM are not served: blocked by the tenant, or not yet loaded since AWS is down.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::Kmip;
use common::scene::{Scene, scene};
use common::{ManualClock, Node, code, eventually, toml_for};
use keystead::serve::Hooks;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{Operation, ResultReason};
use keystead_testkit::{Fault, FaultRule};
use serde_json::{Value as Json, json};
use std::time::Duration;

/// A tenant who has taken the key away for good can still clean up: keys are destroyed, and the last one gone, so is the configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_svm_can_be_cleaned_up() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let keys: Vec<String> = (0..3).map(|n| kmip.created(vec![Attribute::name(format!("k{n}"))])).collect();
    scene.block().await;
    let ask = async |method: &str, path: &str, body: Option<Json>| scene.node.ask(method, &format!("{}{path}?return_timeout=60", scene.config), body).await;
    let patch = ask("PATCH", "", Some(json!({ "polling_period": 5 }))).await;
    assert_eq!(patch.0, 200, "what AWS does not see can be changed: {patch:?}");
    for (answer, expected) in [
        (ask("PATCH", "", Some(json!({ "encryption_context": "a=b" }))).await, "65537538"),
        (ask("POST", "/restore", None).await, "65536082"),
        (ask("POST", "/rekey-external", Some(json!({ "key_id": scene.key }))).await, "65537538"),
        (ask("DELETE", "", None).await, "65537106"),
    ] {
        assert_eq!(code(&answer), expected, "{answer:?}");
    }
    for (n, id) in keys.iter().enumerate() {
        assert_eq!(kmip.locate(&[Attribute::name(format!("k{n}"))]), [id.as_str()]);
        kmip.with_id(Operation::Destroy, id).id();
    }
    let answer = ask("DELETE", "", None).await;
    assert_eq!(answer.0, 200, "only keys that are not destroyed count: {answer:?}");
    assert_eq!(scene.node.get("/security/aws-kms").await["num_records"], 0);
}

/// The start waits for nobody: the API and the EKMIP server are up, the state says why keys are refused, and they come by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_while_aws_is_down() {
    let Scene { kms, node, client, config, .. } = scene().await;
    let mut kmip = Kmip::connect(&client.endpoint(node.ekmip));
    let id = kmip.created(vec![Attribute::name("k")]);
    let material = kmip.get(&id).material();
    let folder = node.stop().await;
    kms.add_fault(FaultRule::always(Fault::Drop));
    let clock = ManualClock::new();
    let toml = toml_for(&kms, folder.path());
    let node = Node::start_in(folder, &toml, Hooks { clock: clock.clone(), ..Hooks::default() }).await.unwrap();
    assert_eq!(node.client.get(format!("https://{}/healthz", node.address)).send().await.unwrap().status(), 200);
    let state = eventually("the state must say why", async || {
        let state = node.get(&format!("{config}?fields=state")).await["state"].clone();
        state["message"].as_str().unwrap().contains("(HTTP)").then_some(state)
    })
    .await;
    assert_eq!((&state["cluster_state"], &state["code"]), (&json!(false), &json!("65537551")), "{state}");
    assert!(state["message"].as_str().unwrap().contains("unavailable"), "{state}");
    let mut kmip = Kmip::connect(&client.endpoint(node.ekmip));
    let answer = kmip.get(&id);
    assert_eq!(answer.reason(), Some(ResultReason::PermissionDenied));
    assert!(answer.message().contains("unavailable"), "{}", answer.message());
    assert_eq!(kmip.locate(&[Attribute::name("k")]), [id.as_str()]);
    let patch = node.ask("PATCH", &format!("{config}?return_timeout=60"), Some(json!({ "polling_period": 5 }))).await;
    assert_eq!(patch.0, 200, "{patch:?}");

    kms.clear_faults();
    eventually("the keys must come by themselves", async || {
        clock.advance(Duration::from_secs(5));
        kmip.get(&id).reason().is_none().then_some(())
    })
    .await;
    assert_eq!(kmip.get(&id).material(), material);
    assert_eq!(node.get(&format!("{config}?fields=state")).await["state"]["code"], "0");
}
