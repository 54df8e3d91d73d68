//! The onboard key manager: keys of SVMs without one of their own, its place before AWS KMS is enabled, and the cluster passphrase.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Credentials, Kmip, uid};
use common::onboard::{PASSPHRASE, Scene, onboard, scene};
use common::{Node, code, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{Operation, ResultReason};
use keystead_store::Txn;
use keystead_testkit::{Fault, FaultRule, KeyState};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const NEXT_PASSPHRASE: &str = "another cluster passphrase, as long as that";

/// An SVM that had keys with the onboard key manager, and has none now, needs no move; one that is made meanwhile ends the enabling.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enable_without_a_move_where_no_key_is_left() {
    let scene = scene().await;
    let (old, _) = scene.make_more("gone").unwrap();
    assert!(scene.connect().call(Operation::Destroy, vec![uid(&old)]).reason().is_none());
    scene.kms.add_fault(FaultRule::next("Decrypt", Fault::Hold));
    let turn = async {
        assert_eq!(scene.kms.wait_held(1, Duration::from_secs(20)).await, 1);
        let made = scene.make_more("meanwhile").unwrap();
        scene.kms.release();
        made
    };
    let (answer, (id, material)) = tokio::join!(scene.node.enable(scene.body(false)), turn);
    assert_eq!((answer.0, code(&answer).as_str()), (409, "65537912"));
    assert_eq!(scene.connect().get(&id).material(), material);
    assert_eq!(scene.versions().await, [[1].into(), [].into(), [1].into()]);
    assert!(scene.connect().call(Operation::Destroy, vec![uid(&id)]).reason().is_none());
    let (status, body) = scene.node.enable(scene.body(false)).await;
    assert_eq!(status, 201, "{body}");
    let keys = scene.make(2);
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[2].into(), [2].into(), [].into()]);
    assert_eq!(
        scene.connect().locate(&[Attribute::new(keystead_kmip::Tag::State, keystead_kmip::ttlv::Value::Enumeration(5))]).len(),
        2,
        "what is known of destroyed keys stays"
    );
}

/// The enabling is deleted while AWS hangs: keys stay where they are, and go on being made there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_that_is_deleted_leaves_the_keys_alone() {
    let scene = scene().await;
    let mut keys = scene.make(3);
    scene.kms.add_fault(FaultRule::always(Fault::Hang));
    let (status, headers, body) = scene.node.call("POST", "/security/aws-kms", Some(scene.body(true))).await;
    assert_eq!(status, 202, "{body}");
    assert_eq!(scene.kms.wait_held(1, Duration::from_secs(20)).await, 1);
    let config = headers["location"].to_str().unwrap().strip_prefix("/api").unwrap();
    assert_eq!(scene.node.ask("DELETE", &format!("{config}?return_timeout=30"), None).await.0, 200);
    let job = body["job"]["_links"]["self"]["href"].as_str().unwrap().strip_prefix("/api").unwrap().to_owned();
    let end = eventually("the job must end", async || {
        let job = scene.node.get(&format!("{job}?fields=*")).await;
        (job["state"] == "failure").then_some(job)
    })
    .await;
    assert_eq!(end["code"], 65_537_926, "{end}");
    scene.kms.clear_faults();
    scene.kms.release();
    keys.extend(scene.make_more("afterwards"));
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[1].into(), [].into(), [1].into()]);

    // One that AWS refuses does the same.
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    assert_eq!(code(&scene.node.enable(scene.body(true)).await), "65537538");
    keys.extend(scene.make_more("after the failure"));
    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    scene.enabled().await;
    scene.check(&keys);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_passphrase_is_changed_and_brings_the_onboard_key_back() {
    let scene = scene().await;
    let keys = scene.make(3);
    scene.node.svm("svm2").await;
    let (status, body) = scene.node.enable(enable_body("svm2", &scene.kms, &scene.key)).await;
    assert_eq!(status, 201, "{body}");
    let other = body["records"][0]["uuid"].as_str().unwrap().to_owned();
    let path = format!("/security/key-managers/{}", scene.onboard);
    let patch = async |node: &Node, onboard: Value| node.ask("PATCH", &format!("{path}?return_timeout=30"), Some(json!({ "onboard": onboard }))).await;
    for (change, expected) in [
        (json!({}), "65537541"),
        (json!({ "passphrase": NEXT_PASSPHRASE }), "65536917"),
        (json!({ "passphrase": "too short", "existing_passphrase": PASSPHRASE }), "65536404"),
        (json!({ "passphrase": "x".repeat(257), "existing_passphrase": PASSPHRASE }), "65536404"),
        (json!({ "existing_passphrase": PASSPHRASE }), "65536917"),
        (json!({ "synchronize": true }), "65537242"),
        (json!({ "synchronize": true, "existing_passphrase": PASSPHRASE, "passphrase": NEXT_PASSPHRASE }), "65537243"),
        (json!({ "passphrase": PASSPHRASE, "existing_passphrase": PASSPHRASE }), "65536150"),
        // Clients find out by this which one is the cluster's: what is wrong is said first.
        (json!({ "passphrase": NEXT_PASSPHRASE, "existing_passphrase": NEXT_PASSPHRASE }), "65536139"),
        (json!({ "passphrase": NEXT_PASSPHRASE, "existing_passphrase": NEXT_PASSPHRASE.replace("as", "AS") }), "65536139"),
        (json!({ "synchronize": true, "existing_passphrase": NEXT_PASSPHRASE }), "65536139"),
    ] {
        assert_eq!(code(&patch(&scene.node, change.clone()).await), expected, "{change}");
    }
    for short in ["x".repeat(31), "ä".repeat(15)] {
        let answer = scene.node.ask("POST", "/security/key-managers", Some(json!({ "onboard": { "passphrase": short } }))).await;
        assert_eq!(code(&answer), "65536920");
    }
    for (body, expected) in [
        (json!({ "onboard": { "passphrase": PASSPHRASE } }), (409, "65536907")),
        (json!({ "onboard": { "passphrase": PASSPHRASE }, "svm": { "name": "keystead" } }), (409, "65536907")),
        (json!({ "onboard": { "passphrase": PASSPHRASE }, "svm": { "name": "svm1" } }), (400, "65536916")),
        (json!({ "onboard": { "passphrase": PASSPHRASE, "synchronize": true } }), (400, "65537246")),
        (json!({ "onboard": {} }), (400, "262212")),
    ] {
        let answer = scene.node.ask("POST", "/security/key-managers", Some(body.clone())).await;
        assert_eq!((answer.0, code(&answer).as_str()), expected, "{body}");
    }
    let backup = async |node: &Node| node.get(&format!("{path}?fields=onboard.key_backup")).await["onboard"]["key_backup"].as_str().unwrap().to_owned();
    let before = backup(&scene.node).await;
    let changed = patch(&scene.node, json!({ "passphrase": NEXT_PASSPHRASE, "existing_passphrase": PASSPHRASE })).await;
    assert_eq!(changed.0, 200, "{changed:?}");
    assert_ne!(backup(&scene.node).await, before);
    scene.check(&keys);

    // What the seal key has sealed does not open any more, as after the loss of the seal key: the passphrase alone brings it back.
    let stored = scene.stored("/onboard-key-manager").await.remove(0);
    let mut record: Value = serde_json::from_slice(&stored.value).unwrap();
    record["sealed"] = record["recovery"]["sealed"].clone();
    scene.store.inner().transact(Txn::new().put(stored.key, record.to_string())).await.unwrap();
    let scene = scene.restarted().await;
    let mut kmip = scene.connect();
    let refused = kmip.get(keys.keys().next().unwrap());
    assert_eq!(refused.reason(), Some(ResultReason::PermissionDenied));
    assert!(refused.message().contains("cluster passphrase"), "{}", refused.message());
    assert_eq!(kmip.create(vec![]).reason(), Some(ResultReason::PermissionDenied));
    let shown = scene.node.get(&format!("{path}?fields=status,volume_encryption")).await;
    assert_eq!((&shown["status"]["code"], &shown["volume_encryption"]["supported"]), (&json!("65537551"), &json!(false)), "{shown}");
    assert_eq!(scene.state_of(&scene.onboard).await, "blocked");
    assert!(scene.key_ids(&scene.onboard).await.iter().all(|id| id["restored"] == false));
    assert_eq!(code(&scene.node.enable(scene.body(true)).await), "65537551", "keys that do not open cannot be moved");
    assert_eq!(code(&scene.migrate(&other, &scene.onboard).await), "65537551", "nor can others come");
    assert_eq!(code(&patch(&scene.node, json!({ "synchronize": true, "existing_passphrase": PASSPHRASE })).await), "65536139", "the old one is gone");
    assert_eq!(patch(&scene.node, json!({ "synchronize": true, "existing_passphrase": NEXT_PASSPHRASE })).await.0, 200);
    scene.check(&keys);
    assert_eq!(scene.node.get(&format!("{path}?fields=status")).await["status"]["code"], "0");
}

/// The seal key is lost for good. What the passphrase opens comes back, byte for byte; what only the seal key could open is given anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seal_key_is_lost_and_the_passphrase_brings_the_keys_back() {
    let scene = scene().await;
    let keys = scene.make(3);
    scene.node.svm("svm2").await;
    let (status, body) = scene.node.enable(enable_body("svm2", &scene.kms, &scene.key)).await;
    assert_eq!(status, 201, "{body}");
    let config = format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap());
    let other = Credentials::issue(&scene.node, "svm2").await;
    let mut kmip = Kmip::connect_new(&other.endpoint(scene.node.ekmip)).await;
    let id = kmip.created(vec![]);
    let material = kmip.get(&id).material();
    let Scene { kms, node, onboard, client, .. } = scene;
    let folder = node.stop().await;
    let toml = toml_for(&kms, folder.path());
    std::fs::write(folder.path().join("data/seal.key"), "5a".repeat(32)).unwrap();
    // A start that has failed closes the store a moment later.
    let start = async |more: &str| {
        eventually("the store must be free", async || match Node::start_in(folder.clone(), &format!("{toml}{more}"), Hooks::default()).await {
            Err(why) if why.contains("in use") => None,
            started => Some(started),
        })
        .await
    };
    let why = start("").await.err().unwrap();
    let code = why.split("adopt = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let wrong = start("[seal]\nadopt = \"000000000000\"\n").await.err().unwrap();
    assert!(wrong.contains(&code), "{wrong}");
    let node = start(&format!("[seal]\nadopt = \"{code}\"\n")).await.unwrap();

    // Old certificates are of a CA that is no more.
    assert!(Kmip::connect(&client.endpoint(node.ekmip)).try_call(Operation::Locate, vec![]).is_err());
    let client = Credentials::issue(&node, "svm1").await;
    let mut kmip = Kmip::connect_new(&client.endpoint(node.ekmip)).await;
    assert_eq!(kmip.get(keys.keys().next().unwrap()).reason(), Some(ResultReason::PermissionDenied));
    let change = json!({ "onboard": { "synchronize": true, "existing_passphrase": PASSPHRASE } });
    assert_eq!(node.ask("PATCH", &format!("/security/key-managers/{onboard}?return_timeout=30"), Some(change)).await.0, 200);
    for (id, material) in &keys {
        assert_eq!(kmip.get(id).material(), *material);
    }
    // AWS's secret is given anew, and proven.
    let state = node.get(&format!("{config}?fields=state")).await;
    assert_eq!(state["state"]["cluster_state"], false, "{state}");
    let again = json!({ "access_key_id": common::ACCESS_KEY_ID, "secret_access_key": common::SECRET });
    let answer = node.ask("PATCH", &format!("{config}?return_timeout=30"), Some(again)).await;
    assert_eq!(answer.0, 200, "{answer:?}");
    let other = Credentials::issue(&node, "svm2").await;
    assert_eq!(Kmip::connect_new(&other.endpoint(node.ekmip)).await.get(&id).material(), material);

    // The code was good once, and the next start needs none.
    node.stop().await;
    let node = start("").await.unwrap();
    for (id, material) in &keys {
        assert_eq!(Kmip::connect(&client.endpoint(node.ekmip)).get(id).material(), *material);
    }
    node.stop().await;
    std::fs::write(folder.path().join("data/seal.key"), "a5".repeat(32)).unwrap();
    assert!(start(&format!("[seal]\nadopt = \"{code}\"\n")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_svm_keeps_its_keys_onboard_and_nothing_goes_while_keys_are_there() {
    let (kms, _) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
    let client = json!({ "svm": { "name": "keystead" }, "common_name": "c" });
    assert_eq!(code(&node.ask("POST", "/security/ekmip/clients?return_records=true", Some(client)).await), "65537908", "without an onboard key manager");
    let svm = node.svm("svm1").await;
    let early = Credentials::issue(&node, "svm1").await.endpoint(node.ekmip);
    assert_eq!(Kmip::connect_new(&early).await.create(vec![]).reason(), Some(ResultReason::PermissionDenied), "no key manager at all");
    let onboard = onboard(&node).await;
    let client = Credentials::issue(&node, "keystead").await;
    let (mut admin, mut tenant) = (Kmip::connect_new(&client.endpoint(node.ekmip)).await, Kmip::connect(&early));
    let (a, b) = (admin.created(vec![Attribute::name("same")]), tenant.created(vec![Attribute::name("same")]));
    assert_eq!((admin.get(&b).reason(), tenant.get(&a).reason()), (Some(ResultReason::ItemNotFound), Some(ResultReason::ItemNotFound)));
    let list = node.get("/security/key-managers?fields=*").await;
    assert_eq!((&list["num_records"], &list["records"][0]["onboard"]["enabled"], &list["records"][0]["scope"]), (&json!(1), &json!(true), &json!("cluster")));

    let path = format!("/security/key-managers/{onboard}");
    let delete = async |path: &str| node.ask("DELETE", &format!("{path}?return_timeout=30"), None).await;
    let answer = delete(&path).await;
    assert_eq!((answer.0, code(&answer).as_str()), (409, "65537106"));
    assert_eq!(code(&delete(&format!("/svm/svms/{svm}")).await), "8");
    assert!(tenant.call(Operation::Destroy, vec![uid(&b)]).reason().is_none());
    assert_eq!(delete(&format!("/svm/svms/{svm}")).await.0, 200, "an SVM without keys can go");
    assert_eq!(code(&delete(&path).await), "65537106", "the admin SVM has one");
    assert!(admin.get(&a).reason().is_none());
    assert!(admin.call(Operation::Destroy, vec![uid(&a)]).reason().is_none());
    assert_eq!(delete(&path).await.0, 200);
    assert_eq!(node.get("/security/key-managers").await["num_records"], 0);
    assert_eq!(code(&delete(&path).await), "4");
    assert_eq!(admin.create(vec![]).reason(), Some(ResultReason::PermissionDenied));

    // A new one has nothing of the old one, though it begins with the same versions.
    let next = self::onboard(&node).await;
    assert_ne!(next, onboard);
    let again = admin.created(vec![Attribute::name("same")]);
    let material = admin.get(&again).material();
    let toml = toml_for(&kms, node.folder.path());
    let node = Node::start_in(node.stop().await, &toml, Hooks::default()).await.unwrap();
    assert_eq!(Kmip::connect(&client.endpoint(node.ekmip)).get(&again).material(), material);
}

/// A KEK whose record is damaged opens nothing: the move does not begin, and the SVM is not turned away from what may still be restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_whose_kek_does_not_open_are_not_moved() {
    let scene = scene().await;
    let keys = scene.make(2);
    let good = scene.stored("/onboard-keys/").await.remove(0);
    let mut record: Value = serde_json::from_slice(&good.value).unwrap();
    record["wrapped"] = record["check_value"].clone();
    scene.store.inner().transact(Txn::new().put(good.key.clone(), record.to_string())).await.unwrap();
    let scene = scene.restarted().await;
    let answer = scene.node.enable(scene.body(true)).await;
    assert_eq!(code(&answer), "65537551", "{answer:?}");
    assert_eq!(scene.versions().await, [[1].into(), [].into(), [1].into()]);
    scene.store.inner().transact(Txn::new().put(good.key, good.value)).await.unwrap();
    eventually("the view must follow", async || scene.connect().get(keys.keys().next().unwrap()).reason().is_none().then_some(())).await;
    scene.enabled().await;
    scene.check(&keys);
}
