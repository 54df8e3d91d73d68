//! Nobody re-roots a revoked tenant, nobody lifts a block but AWS, and nobody blocks an SVM that is well: the ways round the promise that were looked for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::faulty::Mood;
use common::relay::Relay;
use common::scene::{Scene, enabled, scene, scene_with};
use common::steps::PauseAt;
use common::{SECRET, code, enable_body, eventually};
use keystead::serve::Hooks;
use keystead_kmip::enumeration::ResultReason;
use keystead_store::Txn;
use keystead_testkit::{Denial, Fault, FaultRule, KeyState, KmsStandIn, NewKey, Options};
use serde_json::{Value, json};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

async fn ask(scene: &Scene, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    scene.node.ask(method, &format!("{}{path}?return_timeout=60", scene.config), body).await
}

async fn ended(scene: &Scene, job: &str) -> Value {
    eventually("the job must end", async || {
        let job = scene.node.get(&format!("/cluster/jobs/{job}?fields=*")).await;
        ["success", "failure"].contains(&job["state"].as_str().unwrap()).then_some(job)
    })
    .await
}

fn get(scene: &Scene, id: &str) -> Option<ResultReason> {
    tokio::task::block_in_place(|| scene.connect().get(id).reason())
}

async fn state(scene: &Scene) -> String {
    scene.node.get(&format!("{}?fields=state", scene.config)).await["state"]["message"].as_str().unwrap().to_owned()
}

/// The new version of a KEK is wrapped by what the configuration names now. That must be what unwraps the old one now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rekey_internal_needs_the_old_key() {
    let mut scene = scene().await;
    let (old, new) = (scene.kms.create_key(NewKey::default()).unwrap().key_id, scene.kms.create_key(NewKey::default()).unwrap().key_id);
    scene.kms.set_alias("alias/tenant", &old).unwrap();
    scene.node.svm("svm2").await;
    scene.config = enabled(&scene.node, &scene.kms, "alias/tenant", "svm2").await;
    scene.client = common::kmip::Credentials::issue(&scene.node, "svm2").await;
    let id = tokio::task::block_in_place(|| scene.connect().created(Vec::new()));

    // The alias is pointed elsewhere and the old key is disabled; no poll has seen it yet.
    scene.kms.set_alias("alias/tenant", &new).unwrap();
    scene.kms.set_key_state(&old, KeyState::Disabled).unwrap();
    let answer = ask(&scene, "POST", "/rekey-internal", None).await;
    assert_eq!((answer.0, code(&answer).as_str()), (400, "65537538"), "{answer:?}");

    // Credentials of somebody else's, which nobody has tried, with a key of their own behind the same alias.
    scene.kms.set_key_state(&old, KeyState::Enabled).unwrap();
    scene.kms.add_access_key("AKIAOTHEROTHEROTHER0", SECRET);
    scene.kms.deny(&old, Denial { access_key_id: Some("AKIAOTHEROTHEROTHER0".to_owned()), ..Denial::default() }).unwrap();
    let patch = json!({ "access_key_id": "AKIAOTHEROTHEROTHER0", "secret_access_key": SECRET, "skip_verify": true });
    assert_eq!(ask(&scene, "PATCH", "", Some(patch)).await.0, 200);
    let answer = ask(&scene, "POST", "/rekey-internal", None).await;
    assert_eq!((answer.0, code(&answer).as_str()), (400, "65537538"), "{answer:?}");
    assert!(!scene.kms.calls().iter().any(|call| call.operation == "Encrypt" && call.access_key_id.as_deref() == Some("AKIAOTHEROTHEROTHER0")));
    assert_eq!(get(&scene, &id), None, "nothing is lost by it");
}

/// A replica in another region is another key: it is enabled and disabled by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_is_changed_with_the_old_keys_ok_alone() {
    let mut scene = scene().await;
    let regions = vec!["us-east-1".to_owned(), "eu-west-1".to_owned()];
    let key = scene.kms.create_key(NewKey { multi_region: true, regions, ..NewKey::default() }).unwrap();
    scene.node.svm("svm2").await;
    scene.config = enabled(&scene.node, &scene.kms, &key.arn, "svm2").await;
    scene.client = common::kmip::Credentials::issue(&scene.node, "svm2").await;
    let id = tokio::task::block_in_place(|| scene.connect().created(Vec::new()));
    let disabled = Fault::Error { code: "DisabledException".to_owned(), status: 400, message: "the primary".to_owned() };
    scene.kms.add_fault(FaultRule::next("Decrypt", disabled));
    let answer = ask(&scene, "PATCH", "", Some(json!({ "region": "eu-west-1" }))).await;
    assert_eq!((answer.0, code(&answer).as_str()), (400, "65537538"), "{answer:?}");
    assert_eq!(scene.node.get(&scene.config).await["region"], "us-east-1");

    let answer = ask(&scene, "PATCH", "", Some(json!({ "region": "eu-west-1" }))).await;
    assert_eq!(answer.0, 200, "{answer:?}");
    let config = scene.node.get(&format!("{}?fields=*,amazon_reachability,keystead.check", scene.config)).await;
    let moved = key.arn.replace("us-east-1", "eu-west-1");
    assert_eq!((&config["key_id"], &config["keystead"]["check"]["passed"]), (&json!(moved), &json!(true)), "{config}");
    for (path, body) in [("/rekey-internal", None), ("/rekey-external", Some(json!({ "key_id": moved }))), ("/restore", None)] {
        let answer = ask(&scene, "POST", path, body).await;
        assert_eq!(answer.0, 201, "{path}: {answer:?}");
    }
    assert_eq!(get(&scene, &id), None);
}

/// A job that has proven the key and cannot commit: what AWS has denied since counts more, and the block stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_proof_that_is_older_than_a_denial() {
    for (path, body) in [("/restore", None), ("/rekey-external", Some(()))] {
        let pause = PauseAt::new(if body.is_some() { "rekey_external.commit.before" } else { "restore.commit.before" });
        let scene = scene_with("", Hooks { steps: pause.clone(), ..Hooks::default() }).await;
        let other = scene.kms.create_key(NewKey::default()).unwrap().key_id;
        let id = tokio::task::block_in_place(|| scene.connect().created(Vec::new()));
        let body = body.map(|()| json!({ "key_id": other }));
        let (status, answer) = scene.node.ask("POST", &format!("{}{path}", scene.config), body).await;
        assert_eq!(status, 202, "{answer}");
        pause.reached().await;
        scene.block().await;
        pause.go();
        let job = ended(&scene, answer["job"]["uuid"].as_str().unwrap()).await;
        assert_eq!(job["state"], "failure", "{path}: {job}");
        assert!(job["message"].as_str().unwrap().contains("DisabledException"), "it has asked again: {job}");
        assert!(state(&scene).await.contains("blocked"), "{path}");
        assert_eq!(get(&scene, &id), Some(ResultReason::PermissionDenied), "{path}");
        assert_eq!(scene.node.get(&scene.config).await["key_id"], scene.key.as_str());
    }
}

/// The same where it is the store that keeps the job from its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_is_away_while_the_key_is_revoked() {
    let pause = PauseAt::new("restore.commit.before");
    let scene = scene_with("access_error_grace = \"0s\"\n", Hooks { steps: pause.clone(), ..Hooks::default() }).await;
    let id = tokio::task::block_in_place(|| scene.connect().created(Vec::new()));
    let (_, answer) = scene.node.ask("POST", &format!("{}/restore", scene.config), None).await;
    pause.reached().await;
    scene.store.set(Mood::Unavailable);
    pause.go();
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    // Blocking needs no store.
    eventually("the SVM must be blocked", async || {
        scene.clock.advance(10 * MINUTE);
        (get(&scene, &id) == Some(ResultReason::PermissionDenied)).then_some(())
    })
    .await;
    scene.store.set(Mood::Good);
    let job = ended(&scene, answer["job"]["uuid"].as_str().unwrap()).await;
    assert_eq!(job["state"], "failure", "{job}");
    assert_eq!(get(&scene, &id), Some(ResultReason::PermissionDenied));
}

/// A rekey-internal that was cancelled while AWS took its time puts nothing over the KEK that another one has made meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_rekey_leaves_nothing_in_memory() {
    let pause = PauseAt::new("rekey_internal.decrypt.after");
    let scene = scene_with("", Hooks { steps: pause.clone(), ..Hooks::default() }).await;
    let mut kmip = scene.connect();
    let before = kmip.created(Vec::new());
    let material = kmip.get(&before).material();
    let (_, first) = scene.node.ask("POST", &format!("{}/rekey-internal", scene.config), None).await;
    pause.reached().await;
    let first = first["job"]["uuid"].as_str().unwrap().to_owned();
    assert_eq!(scene.node.ask("PATCH", &format!("/cluster/jobs/{first}?action=cancel"), None).await.0, 200);
    let (_, second) = scene.node.ask("POST", &format!("{}/rekey-internal", scene.config), None).await;
    let between = kmip.created(Vec::new());
    pause.go();
    let second = ended(&scene, second["job"]["uuid"].as_str().unwrap()).await;
    assert_eq!(second["state"], "success", "{second}");
    assert_eq!(ended(&scene, &first).await["state"], "failure");
    let after = kmip.created(Vec::new());
    assert_eq!(kmip.get(&before).material(), material);
    assert!(kmip.get(&between).reason().is_none() && kmip.get(&after).reason().is_none());
    // And after a restart, from what is stored alone.
    assert_eq!(ask(&scene, "POST", "/restore", None).await.0, 201);
    assert_eq!(kmip.get(&before).material(), material);
}

/// A record that cannot be read is no DELETE: its keys are served, and AWS cannot be asked. What was to end them ends them all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_cannot_be_read_is_refused_in_its_time() {
    let scene = scene().await;
    let id = tokio::task::block_in_place(|| scene.connect().created(Vec::new()));
    assert_eq!(ask(&scene, "PATCH", "", Some(json!({ "keystead": { "max_unverified": "3h" } }))).await.0, 200);
    let store = scene.store.inner();
    let [config] = &store.range(keystead_store::Range::prefix("/aws-kms/", 10)).await.unwrap().entries[..] else { panic!("one configuration") };
    let revision = store.transact(Txn::new().put(config.key.clone(), b"{}".to_vec())).await.unwrap();
    assert!(revision > config.revision);
    eventually("the node must see it", async || (scene.node.get("/security/aws-kms").await["num_records"] == 0).then_some(())).await;
    assert_eq!(get(&scene, &id), None, "{}", state(&scene).await);
    eventually("keys must be refused when three hours are over", async || {
        scene.clock.advance(10 * MINUTE);
        (get(&scene, &id) == Some(ResultReason::PermissionDenied)).then_some(())
    })
    .await;
    assert!(scene.clock.now() < 8 * 60 * MINUTE, "{:?}", scene.clock.now());
}

/// A job writes how far it is; who cancels it has read it a moment before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_changes_at_this_moment_is_cancelled_all_the_same() {
    let pause = PauseAt::new("rekey_internal.decrypt.after");
    let scene = scene_with("", Hooks { steps: pause.clone(), ..Hooks::default() }).await;
    scene.connect().created(Vec::new());
    let (_, job) = scene.node.ask("POST", &format!("{}/rekey-internal", scene.config), None).await;
    pause.reached().await;
    let job = job["job"]["uuid"].as_str().unwrap().to_owned();
    let store = scene.store.inner();
    let stored = store.range(keystead_store::Range::prefix("/jobs/", 100)).await.unwrap().entries;
    let stored = stored.into_iter().find(|entry| entry.key.ends_with(&job)).unwrap();
    // The node sees what is written from here on half a second later.
    scene.store.lag(Duration::from_millis(500));
    store.transact(Txn::new().put(stored.key, stored.value)).await.unwrap();
    let (status, answer) = scene.node.ask("PATCH", &format!("/cluster/jobs/{job}?action=cancel"), None).await;
    assert_eq!(status, 200, "{answer}");
    pause.go();
    assert_eq!(ended(&scene, &job).await["state"], "failure");
}

/// An access key that was mistyped, or is so new that AWS does not know it everywhere, is no revocation: it has never worked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_never_worked_are_no_revocation() {
    let scene = scene().await;
    let id = tokio::task::block_in_place(|| scene.connect().created(Vec::new()));
    let settings = json!({ "aws_kms": { "access_error_grace": "0s" } });
    assert_eq!(scene.node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await.0, 200);
    let patch = json!({ "access_key_id": "AKIANOBODYKNOWSTHIS0", "secret_access_key": SECRET, "skip_verify": true });
    assert_eq!(ask(&scene, "PATCH", "", Some(patch.clone())).await.0, 200);
    for _ in 0..50 {
        scene.clock.advance(MINUTE);
        let polls = scene.kms.calls().len();
        eventually("a poll must come, or none is due", async || (scene.kms.calls().len() > polls || !state(&scene).await.is_empty()).then_some(())).await;
        assert_eq!(get(&scene, &id), None, "{}", state(&scene).await);
    }
    assert!(state(&scene).await.contains("UnrecognizedClientException"), "{}", state(&scene).await);
    // The same again is no new hour.
    assert_eq!(ask(&scene, "PATCH", "", Some(patch)).await.0, 200);
    eventually("the hour must end", async || {
        scene.clock.advance(MINUTE);
        (get(&scene, &id) == Some(ResultReason::PermissionDenied)).then_some(())
    })
    .await;
    assert!(scene.clock.now() < 75 * MINUTE, "{:?}", scene.clock.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_set() {
    let scene = scene().await;
    let credentials = |more: Value| {
        let mut body = json!({ "access_key_id": "AKIANOBODYKNOWSTHIS0", "secret_access_key": SECRET, "skip_verify": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (body, expected, target) in [
        // What would go along unproven, and take the evidence out of every denial.
        (credentials(json!({ "verify": false })), "262186", "skip_verify"),
        (credentials(json!({ "verify_ip": false })), "262186", "skip_verify"),
        (credentials(json!({ "keystead": { "ca_certificates": "-----BEGIN CERTIFICATE-----" } })), "262186", "skip_verify"),
        // What would be over before the next poll can have come.
        (json!({ "keystead": { "max_unverified": "60m" } }), "262245", "keystead.max_unverified"),
        (json!({ "polling_period": 60, "keystead": { "max_unverified": "65m" } }), "262245", "keystead.max_unverified"),
    ] {
        let answer = ask(&scene, "PATCH", "", Some(body.clone())).await;
        assert_eq!((code(&answer).as_str(), answer.1["error"]["target"].as_str()), (expected, Some(target)), "{body}: {answer:?}");
    }
    assert_eq!(ask(&scene, "PATCH", "", Some(json!({ "polling_period": 5, "keystead": { "max_unverified": "10m" } }))).await.0, 200);
    let answer = ask(&scene, "PATCH", "", Some(json!({ "polling_period": 30 }))).await;
    assert_eq!(code(&answer), "262245", "{answer:?}");
}

/// Somebody on the path, with a certificate that nobody trusts, denies in AWS's own words for hours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forger_on_the_path() {
    let mut scene = scene().await;
    let relay = Relay::to(scene.kms.addr()).await;
    scene.node.svm("svm2").await;
    let mut body = enable_body("svm2", &scene.kms, &scene.key);
    body["port"] = json!(relay.address.port());
    let (status, answer) = scene.node.enable(body).await;
    assert_eq!(status, 201, "{answer}");
    scene.config = format!("/security/aws-kms/{}", answer["records"][0]["uuid"].as_str().unwrap());
    scene.client = common::kmip::Credentials::issue(&scene.node, "svm2").await;
    let id = tokio::task::block_in_place(|| scene.connect().created(Vec::new()));
    let settings = json!({ "aws_kms": { "access_error_grace": "0s" } });
    assert_eq!(scene.node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await.0, 200);

    let forger = KmsStandIn::start(Options::default()).await.unwrap();
    forger.add_fault(FaultRule::always(Fault::Error { code: "DisabledException".to_owned(), status: 400, message: "forged".to_owned() }));
    relay.lead(Some(forger.addr()));
    let mut tries = 0;
    while tries < 12 {
        // The relay closes what stands a moment later: a poll before that still meets the true AWS, and the next comes after its whole period.
        eventually("the forger must be met", async || {
            scene.clock.advance(20 * MINUTE);
            (forger.connections() > tries).then_some(())
        })
        .await;
        tries = forger.connections();
        assert_eq!(get(&scene, &id), None, "{}", state(&scene).await);
    }
    assert!(forger.calls().is_empty(), "nothing was said to it: {:?}", forger.calls());
    assert!(state(&scene).await.contains("degraded") && state(&scene).await.contains("(TLS)"), "{}", state(&scene).await);
    relay.lead(Some(scene.kms.addr()));
    eventually("the true AWS must be found again", async || {
        scene.clock.advance(20 * MINUTE);
        state(&scene).await.is_empty().then_some(())
    })
    .await;
}

/// To the administrator of an SVM, the way to AWS is AWS's own, or one that the cluster's administrator allows; and there are no other SVMs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svm_administrator_looks_for_nothing_inside() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    let tenant = scene.tenant("svm1").await;
    let ask = async |method: &str, path: &str, body: Value| tenant.ask(method, path, body).await;
    for body in [
        json!({ "host": "", "service": "ip-10-0-0-5", "default_domain": "compute.internal" }),
        json!({ "host": "", "default_domain": "tenant.example" }),
        json!({ "host": "10.0.0.5" }),
        json!({ "host": "", "port": 22 }),
        json!({ "proxy_type": "http", "proxy_host": "10.0.0.5", "proxy_port": 3128 }),
    ] {
        let answer = ask("PATCH", &format!("{}?return_timeout=60", scene.config), body.clone()).await;
        assert_eq!(code(&answer), "262245", "{body}: {answer:?}");
        assert!(answer.1["error"]["message"].as_str().unwrap().contains("not among the endpoints"), "{answer:?}");
    }
    // What the administrator of the cluster has set may stay.
    assert_eq!(ask("PATCH", &format!("{}?return_timeout=60", scene.config), json!({ "polling_period": 7 })).await.0, 200);
    for svm in ["svm2", "nobody"] {
        let answer = ask("POST", "/security/aws-kms", enable_body(svm, &scene.kms, &scene.key)).await;
        assert_eq!((answer.0, code(&answer).as_str()), (400, "2621462"), "{svm}: {answer:?}");
    }
    let other = enabled(&scene.node, &scene.kms, &scene.key, "svm2").await;
    for (method, path) in [
        ("GET", other.clone()),
        ("PATCH", other.clone()),
        ("DELETE", other.clone()),
        ("POST", format!("{other}/restore")),
        ("POST", format!("{other}/rekey-internal")),
    ] {
        let body = if method == "PATCH" { json!({ "polling_period": 5 }) } else { json!({}) };
        let answer = ask(method, &path, body).await;
        assert_eq!((answer.0, code(&answer).as_str()), (404, "4"), "{method} {path}: {answer:?}");
    }
}
