//! Each error code of the contract, by its real condition.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::faulty::{Faulty, Mood};
use common::steps::PauseAt;
use common::{ManualClock, Node, code, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_store::{Range, Txn};
use keystead_testkit::{Fault, FaultRule, KeyState, KmsStandIn};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

struct Scene {
    kms: KmsStandIn,
    key: String,
    node: Node,
    store: Faulty,
    clock: Arc<ManualClock>,
}

/// A node with the SVM `svm1`, a stand-in with a key, a store that can fail, and time that stands still.
async fn scene(more: &str) -> Scene {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let (store, clock) = (Faulty::default(), ManualClock::new());
    let hooks = Hooks { store: store.hook(), clock: clock.clone(), ..Hooks::default() };
    let node = Node::start_in(folder.clone(), &format!("{}{more}", toml_for(&kms, folder.path())), hooks).await.unwrap();
    node.svm("svm1").await;
    Scene { kms, key, node, store, clock }
}

impl Scene {
    fn body(&self) -> Value {
        enable_body("svm1", &self.kms, &self.key)
    }

    async fn enabled(&self) -> String {
        let (status, body) = self.node.enable(self.body()).await;
        assert_eq!(status, 201, "{body}");
        format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap())
    }

    /// Starts an enable whose first call to AWS hangs. Answers the job's path and the configuration's.
    async fn hanging(&self) -> (String, String) {
        self.kms.add_fault(FaultRule::always(Fault::Hang));
        let (status, headers, body) = self.node.call("POST", "/security/aws-kms", Some(self.body())).await;
        assert_eq!(status, 202, "{body}");
        assert_eq!(self.kms.wait_held(1, Duration::from_secs(20)).await, 1);
        let job = body["job"]["_links"]["self"]["href"].as_str().unwrap().strip_prefix("/api").unwrap().to_owned();
        (job, headers["location"].to_str().unwrap().strip_prefix("/api").unwrap().to_owned())
    }

    async fn job_end(&self, path: &str) -> Value {
        eventually("the job must end", async || {
            let job = self.node.get(&format!("{path}?fields=*")).await;
            ["success", "failure"].contains(&job["state"].as_str().unwrap()).then_some(job)
        })
        .await
    }

    async fn change(&self, settings: Value) {
        let answer = self.node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await;
        assert_eq!(answer.0, 200, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_65537900_a_wrong_secret_and_an_unknown_access_key() {
    let scene = scene("").await;
    for (field, value) in [("secret_access_key", "not the secret"), ("access_key_id", "AKIAUNKNOWNUNKNOWN00")] {
        let mut body = scene.body();
        body[field] = json!(value);
        let answer = scene.node.enable(body).await;
        assert_eq!((answer.0, code(&answer).as_str()), (400, "65537900"));
        let message = answer.1["error"]["message"].as_str().unwrap();
        assert!(message.contains("svm1") && message.contains("(AWS)"), "the message names SVM and hop: {message}");
    }
    assert_eq!(scene.node.get("/security/aws-kms").await["num_records"], 0);
    scene.enabled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_failures_of_aws_while_enabling() {
    let scene = scene("").await;
    let mut body = scene.body();
    body["key_id"] = json!("11111111-2222-3333-4444-555555555555");
    assert_eq!(code(&scene.node.enable(body).await), "65537538", "a key that does not exist");
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    assert_eq!(code(&scene.node.enable(scene.body()).await), "65537538", "a key that is disabled");
    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    scene.kms.add_fault(FaultRule::always(Fault::WrongKek));
    assert_eq!(code(&scene.node.enable(scene.body()).await), "65537538", "another KEK came back");
    scene.kms.clear_faults();
    scene.kms.add_fault(FaultRule::always(Fault::CaptivePortal));
    assert_eq!(code(&scene.node.enable(scene.body()).await), "65537915", "a captive portal");
    scene.kms.clear_faults();
    scene.kms.add_fault(FaultRule::next("DescribeKey", Fault::Throttle));
    scene.kms.add_fault(FaultRule::next("Encrypt", Fault::DropAfter));
    scene.kms.add_fault(FaultRule::next("Decrypt", Fault::KeyUnavailable));
    scene.enabled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_65537906_a_store_that_refuses_after_the_job_was_accepted() {
    let scene = scene("").await;
    scene.kms.add_fault(FaultRule::next("Decrypt", Fault::Hold));
    let waiting = scene.node.enable(scene.body());
    let turn = async {
        assert_eq!(scene.kms.wait_held(1, Duration::from_secs(20)).await, 1);
        scene.store.set(Mood::Refuses);
        scene.kms.release();
    };
    let (answer, ()) = tokio::join!(waiting, turn);
    assert_eq!((answer.0, code(&answer).as_str()), (500, "65537906"));
    let jobs = scene.node.get("/cluster/jobs?fields=*&description=POST%20/api/security/aws-kms").await;
    assert_eq!((jobs["records"][0]["state"].as_str(), jobs["records"][0]["code"].as_u64()), (Some("failure"), Some(65_537_906)), "{jobs}");

    scene.store.set(Mood::Good);
    let path = format!("/cluster/jobs/{}", jobs["records"][0]["uuid"].as_str().unwrap());
    assert_eq!(scene.job_end(&path).await["state"], "failure");
    // The failure reaches the store, and takes the reservation with it.
    eventually("the reservation must go", async || scene.store.inner().range(Range::prefix("/key-stores/", 9)).await.unwrap().entries.is_empty().then_some(()))
        .await;
    scene.enabled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_65537906_a_seal_command_that_fails() {
    let flag = tempfile::tempdir().unwrap();
    let broken = flag.path().join("broken");
    let command = format!("[seal]\ncommand = \"test ! -e {} && echo {}\"\n", broken.display(), "ab".repeat(32));
    let scene = scene(&command).await;
    let path = scene.enabled().await;
    scene.node.svm("svm2").await;
    std::fs::write(&broken, "").unwrap();
    let answer = scene.node.enable(enable_body("svm2", &scene.kms, &scene.key)).await;
    assert_eq!((answer.0, code(&answer).as_str()), (500, "65537906"));
    let answer = scene.node.ask("PATCH", &format!("{path}?return_timeout=30"), Some(json!({ "secret_access_key": common::SECRET }))).await;
    assert_eq!((answer.0, code(&answer).as_str()), (500, "65537906"), "a PATCH of a secret too");
    std::fs::remove_file(&broken).unwrap();
    let answer = scene.node.enable(enable_body("svm2", &scene.kms, &scene.key)).await;
    assert_eq!(answer.0, 201, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_262145_a_store_that_cannot_even_take_the_job() {
    let scene = scene("").await;
    scene.store.set(Mood::Refuses);
    let answer = scene.node.enable(scene.body()).await;
    assert_eq!((answer.0, code(&answer).as_str()), (500, "262145"));
    assert_eq!(answer.1["error"]["message"], "An unexpected error happened", "the detail is for the log");
    scene.store.set(Mood::Good);
    assert_eq!(scene.kms.calls().len(), 0);
    scene.enabled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_65536600_no_quorum() {
    let scene = scene("").await;
    let path = scene.enabled().await;
    scene.node.svm("svm2").await;
    scene.store.set(Mood::Unavailable);
    let answer = scene.node.enable(enable_body("svm2", &scene.kms, &scene.key)).await;
    assert_eq!((answer.0, code(&answer).as_str()), (500, "65536600"));
    assert_eq!(scene.node.get(&format!("{path}?fields=state")).await["state"]["cluster_state"], true, "reads go on from the view");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_65537907_65537911_and_65537908() {
    let scene = scene("").await;
    scene.change(json!({ "aws_kms": { "enabled": false } })).await;
    assert_eq!(code(&scene.node.enable(scene.body()).await), "65537907");
    scene.change(json!({ "aws_kms": { "enabled": true }, "cluster": { "metrocluster": true } })).await;
    assert_eq!(code(&scene.node.enable(scene.body()).await), "65537911");
    let mut admin = scene.body();
    admin["svm"] = json!({ "name": "keystead" });
    assert_eq!(code(&scene.node.enable(admin).await), "65537908", "before 911");
    scene.change(json!({ "cluster": { "metrocluster": false } })).await;
    assert_eq!(scene.kms.calls().len(), 0, "none of them has asked AWS");
    scene.enabled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_65537910_two_posts_at_once_and_one_wins() {
    let scene = scene("[jobs]\nretention = \"24h\"\n").await;
    let calls_of_one = 3;
    for round in 0..200 {
        let svm = format!("race{round}");
        scene.node.svm(&svm).await;
        scene.kms.clear_calls();
        let barrier = tokio::sync::Barrier::new(2);
        let post = async || {
            barrier.wait().await;
            scene.node.enable(enable_body(&svm, &scene.kms, &scene.key)).await
        };
        let (one, other) = tokio::join!(post(), post());
        let (winner, loser) = if one.0 == 201 { (one, other) } else { (other, one) };
        assert_eq!(winner.0, 201, "round {round}: {winner:?} {loser:?}");
        assert_eq!((loser.0, code(&loser).as_str()), (409, "65537910"), "round {round}");
        let calls = scene.kms.calls();
        assert_eq!(calls.len(), calls_of_one, "round {round}: the loser has asked AWS: {calls:#?}");
    }
}

/// The poller sees the configurations through the view. While that lags, it must neither drop a KEK that a job has just proven nor poll for one that a job has just deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_lags_makes_no_poll_of_its_own() {
    let scene = scene("").await;
    scene.store.lag(Duration::from_millis(40));
    let path = scene.enabled().await;
    let answer = scene.node.ask("DELETE", &format!("{path}?return_timeout=30"), Some(json!({}))).await;
    assert_eq!(answer.0, 200, "{answer:?}");
    scene.node.svm("svm2").await;
    let calls: Vec<String> = scene.kms.calls().into_iter().map(|call| call.operation).collect();
    assert_eq!(calls, ["DescribeKey", "Encrypt", "Decrypt"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_65537926_the_reservation_is_deleted_while_aws_hangs() {
    let scene = scene("").await;
    let (job, config) = scene.hanging().await;
    assert_eq!(code(&scene.node.ask("POST", &format!("{config}/restore"), None).await), "65539436", "still initializing");
    assert_eq!(scene.node.ask("DELETE", &format!("{config}?return_timeout=30"), Some(json!({}))).await.0, 200);
    let end = scene.job_end(&job).await;
    assert_eq!((end["state"].as_str(), end["code"].as_u64(), end["error"]["code"].as_str()), (Some("failure"), Some(65_537_926), Some("65537926")), "{end}");
    scene.kms.clear_faults();
    scene.kms.release();
    scene.enabled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_65537926_the_svm_is_deleted_while_aws_hangs() {
    let scene = scene("").await;
    let (job, _) = scene.hanging().await;
    let svm = scene.node.get("/svm/svms?name=svm1").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    assert_eq!(scene.node.ask("DELETE", &format!("/svm/svms/{svm}?return_timeout=30"), None).await.0, 200);
    assert_eq!(scene.job_end(&job).await["code"], 65_537_926);
    assert!(scene.store.inner().range(Range::prefix("/key-stores/", 9)).await.unwrap().entries.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svm_with_a_key_manager_is_not_deleted() {
    let scene = scene("").await;
    scene.enabled().await;
    let svm = scene.node.get("/svm/svms?name=svm1").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    let answer = scene.node.ask("DELETE", &format!("/svm/svms/{svm}"), None).await;
    assert_eq!((answer.0, code(&answer).as_str()), (409, "8"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_65537901_and_65537912_and_65537106_by_what_is_in_the_store() {
    let scene = scene("").await;
    let svm = scene.node.get("/svm/svms?name=svm1").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    let store = scene.store.inner();
    let old_node = json!({ "uuid": uuid::Uuid::from_u128(7), "name": "old", "version": "0.0.1", "feature_level": 0, "address": "10.0.0.7:1", "ekmip_address": null, "started": "2026-01-01T00:00:00Z" });
    let node_key = format!("/nodes/{}", uuid::Uuid::from_u128(7));
    store.transact(Txn::new().put(node_key.clone(), old_node.to_string())).await.unwrap();
    eventually("the view must follow", async || (scene.node.get("/cluster/nodes").await["num_records"] == 2).then_some(())).await;
    let answer = scene.node.enable(scene.body()).await;
    assert_eq!((answer.0, code(&answer).as_str()), (400, "65537901"));
    let no_address = json!({ "uuid": uuid::Uuid::from_u128(7), "name": "lost", "version": "0.1.0", "feature_level": 1, "address": null, "ekmip_address": null, "started": "2026-01-01T00:00:00Z" });
    store.transact(Txn::new().put(node_key.clone(), no_address.to_string())).await.unwrap();
    let answer = eventually("the view must follow", async || {
        let answer = scene.node.enable(scene.body()).await;
        (code(&answer) != "65537901").then_some(answer)
    })
    .await;
    assert_eq!((answer.0, code(&answer).as_str()), (500, "65537518"));
    store.transact(Txn::new().delete(node_key)).await.unwrap();
    eventually("the view must follow", async || (scene.node.get("/cluster/nodes").await["num_records"] == 1).then_some(())).await;

    store.transact(Txn::new().put(format!("/onboard-keys/{svm}/1"), "{}")).await.unwrap();
    let answer = scene.node.enable(scene.body()).await;
    assert_eq!((answer.0, code(&answer).as_str()), (409, "65537912"));
    store.transact(Txn::new().delete(format!("/onboard-keys/{svm}/1"))).await.unwrap();

    // A key that appears while AWS answers is found by the last transaction.
    scene.kms.add_fault(FaultRule::next("Decrypt", Fault::Hold));
    let turn = async {
        assert_eq!(scene.kms.wait_held(1, Duration::from_secs(20)).await, 1);
        store.transact(Txn::new().put(format!("/onboard-keys/{svm}/2"), "{}")).await.unwrap();
        scene.kms.release();
    };
    let (answer, ()) = tokio::join!(scene.node.enable(scene.body()), turn);
    assert_eq!((answer.0, code(&answer).as_str()), (409, "65537912"));
    store.transact(Txn::new().delete(format!("/onboard-keys/{svm}/2"))).await.unwrap();

    let path = scene.enabled().await;
    store.transact(Txn::new().put(format!("/keys/{svm}/1"), "{}")).await.unwrap();
    let answer = scene.node.ask("DELETE", &path, None).await;
    assert_eq!((answer.0, code(&answer).as_str()), (409, "65537106"));
    store.transact(Txn::new().delete(format!("/keys/{svm}/1"))).await.unwrap();
    assert_eq!(scene.node.ask("DELETE", &format!("{path}?return_timeout=30"), None).await.0, 200);
    let left: Vec<String> = store.range(Range::prefix("/", 1_000)).await.unwrap().entries.into_iter().map(|entry| entry.key).collect();
    assert!(!left.iter().any(|key| key.starts_with("/aws-kms/") || key.starts_with("/keks/") || key.starts_with("/key-stores/")), "{left:?}");
}

/// The store goes away under a DELETE: before the key store is turned to `disabling`, and behind that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_65536834_and_65536827_of_a_delete_that_loses_the_store() {
    for (step, expected) in [("delete.disable.before", "65536834"), ("delete.disable.after", "65536827")] {
        let pause = PauseAt::new(step);
        let scene = common::scene::scene_with("", Hooks { steps: pause.clone(), ..Hooks::default() }).await;
        let delete = async || scene.node.ask("DELETE", &format!("{}?return_timeout=30", scene.config), None).await;
        let turn = async {
            pause.reached().await;
            scene.store.set(Mood::Unavailable);
            pause.go();
        };
        let (answer, ()) = tokio::join!(delete(), turn);
        assert_eq!((answer.0, code(&answer).as_str()), (500, expected), "{step}");
        scene.store.set(Mood::Good);
        eventually("it must go when the store is back", async || (delete().await.0 == 200).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_blocks_refuses_and_comes_back() {
    let scene = scene("").await;
    scene.change(json!({ "aws_kms": { "access_error_grace": "0s" } })).await;
    let mut body = scene.body();
    body["polling_period"] = json!(1);
    let (status, body) = scene.node.enable(body).await;
    assert_eq!(status, 201, "{body}");
    let path = format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap());
    let answer = scene.node.ask("POST", &format!("{path}/rekey-internal"), Some(json!({}))).await;
    assert_eq!((answer.0, code(&answer).as_str()), (400, "65537559"));

    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    let state = async || scene.node.get(&format!("{path}?fields=state")).await["state"].clone();
    // Time moves in small steps, and each step waits for the poll that it may have made due.
    let blocked = eventually("the SVM must be blocked", async || {
        scene.clock.advance(Duration::from_secs(1));
        let state = state().await;
        (state["cluster_state"] == false).then_some(state)
    })
    .await;
    assert_eq!(blocked["code"], "65537551");
    assert!(blocked["message"].as_str().unwrap().contains("DisabledException"), "{blocked}");
    assert_eq!(code(&scene.node.ask("POST", &format!("{path}/rekey-internal"), None).await), "65537556");
    let answer = scene.node.ask("POST", &format!("{path}/rekey-external?return_timeout=30"), Some(json!({ "key_id": scene.key }))).await;
    assert_eq!(code(&answer), "65537538", "nobody re-roots a revoked tenant");
    assert_eq!(scene.node.get(&format!("{path}?fields=amazon_reachability")).await["amazon_reachability"]["reachable"], true);

    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    eventually("the first good poll must bring it back", async || {
        scene.clock.advance(Duration::from_secs(5));
        (state().await == json!({ "cluster_state": true, "code": "0", "message": "" })).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_and_rekey_external_by_what_aws_says() {
    let scene = scene("").await;
    let path = scene.enabled().await;
    let restore = async || scene.node.ask("POST", &format!("{path}/restore?return_timeout=60"), Some(json!({}))).await;
    assert_eq!(restore().await.0, 201);
    scene.kms.add_fault(FaultRule::always(Fault::CaptivePortal));
    assert_eq!(code(&restore().await), "65536082");
    let health = scene.node.get(&format!("{path}?fields=amazon_reachability,state")).await;
    assert_eq!((&health["amazon_reachability"]["reachable"], &health["amazon_reachability"]["code"]), (&json!(false), &json!("65537915")), "{health}");
    assert_eq!(health["state"]["cluster_state"], true, "an AWS that cannot be reached takes nothing away");
    scene.kms.clear_faults();

    let other = scene.kms.create_key(keystead_testkit::NewKey::default()).unwrap().key_id;
    let rekey = async |key: &str| scene.node.ask("POST", &format!("{path}/rekey-external?return_timeout=60"), Some(json!({ "key_id": key }))).await;
    assert_eq!(rekey(&other).await.0, 201);
    assert_eq!(scene.node.get(&path).await["key_id"], other.as_str());
    scene.kms.delete_key(&scene.key).unwrap();
    assert_eq!(restore().await.0, 201, "the old key is not needed any more");
    let answer = rekey("alias/nowhere").await;
    assert_eq!(code(&answer), "65537919");
    assert_eq!(scene.node.get(&path).await["key_id"], other.as_str(), "nothing was changed");
    scene.kms.set_key_state(&other, KeyState::Disabled).unwrap();
    assert_eq!(code(&rekey(&other).await), "65537538", "the key in use does not unwrap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patch_proves_before_it_commits() {
    let scene = scene("").await;
    let path = scene.enabled().await;
    let patch = async |body: Value| scene.node.ask("PATCH", &format!("{path}?return_timeout=60"), Some(body)).await;
    let before = scene.node.get(&path).await;
    assert_eq!(code(&patch(json!({ "secret_access_key": "not the secret" })).await), "65537921");
    assert_eq!(code(&patch(json!({ "port": 1 })).await), "65537915");
    assert_eq!(scene.node.get(&path).await, before, "what was not proven was not stored");

    scene.kms.add_access_key("AKIASECONDSECONDSEC", "second secret");
    assert_eq!(patch(json!({ "access_key_id": "AKIASECONDSECONDSEC", "secret_access_key": "second secret" })).await.0, 200);
    scene.kms.clear_calls();
    assert_eq!(patch(json!({ "encryption_context": "tenant=1" })).await.0, 200);
    let calls: Vec<_> = scene.kms.calls().into_iter().map(|call| (call.operation, call.encryption_context.unwrap_or_default().len())).collect();
    assert_eq!(
        calls,
        [("Decrypt".to_owned(), 0), ("Encrypt".to_owned(), 1), ("Decrypt".to_owned(), 1)],
        "the old context is proven, then the KEK is wrapped under the new one"
    );
    assert_eq!(scene.node.get(&path).await["encryption_context"], "tenant=1");
    scene.kms.clear_calls();
    assert_eq!(patch(json!({ "polling_period": 30 })).await.0, 200);
    assert_eq!(scene.kms.calls().len(), 0, "nothing that AWS would see");

    // Without a proof: stored, but trusted for an hour at the most.
    assert_eq!(patch(json!({ "access_key_id": "AKIASECONDSECONDSEC", "secret_access_key": "wrong", "skip_verify": true })).await.0, 200);
    assert_eq!(scene.node.get(&path).await["access_key_id"], "AKIASECONDSECONDSEC");
    eventually("an hour without a good poll must block", async || {
        scene.clock.advance(Duration::from_secs(120));
        (scene.node.get(&format!("{path}?fields=state")).await["state"]["cluster_state"] == false).then_some(())
    })
    .await;
    assert_eq!(patch(json!({ "access_key_id": "AKIASECONDSECONDSEC", "secret_access_key": "second secret" })).await.0, 200, "works while blocked");
    assert_eq!(scene.node.get(&format!("{path}?fields=state")).await["state"]["code"], "0", "and its proof is as good as a poll");
}

/// A context that is not the one that the KEK was wrapped under: AWS refuses, and that is damage, not a revocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_that_does_not_match_is_refused_by_aws() {
    let scene = scene("").await;
    let mut body = scene.body();
    body["encryption_context"] = json!("tenant=1");
    let (status, answer) = scene.node.enable(body).await;
    assert_eq!(status, 201, "{answer}");
    let path = format!("/security/aws-kms/{}", answer["records"][0]["uuid"].as_str().unwrap());
    let stored = scene.store.inner().range(keystead_store::Range::prefix("/keks/", 2)).await.unwrap().entries.remove(0);
    let mut record: Value = serde_json::from_slice(&stored.value).unwrap();
    assert_eq!(record["encryption_context"], "tenant=1");
    record["encryption_context"] = json!("tenant=2");
    scene.store.inner().transact(keystead_store::Txn::new().put(stored.key, record.to_string())).await.unwrap();
    let answer = eventually("the view must follow", async || {
        let answer = scene.node.ask("POST", &format!("{path}/restore?return_timeout=30"), None).await;
        (answer.0 != 201).then_some(answer)
    })
    .await;
    assert_eq!(code(&answer), "65536082");
    assert!(answer.1["error"]["message"].as_str().unwrap().contains("InvalidCiphertextException"), "{answer:?}");
    let state = eventually("the poll must notice", async || {
        scene.clock.advance(Duration::from_secs(60 * 60));
        let state = scene.node.get(&format!("{path}?fields=state")).await["state"].clone();
        (state["code"] != "0").then_some(state)
    })
    .await;
    assert_eq!(state["cluster_state"], true, "damage blocks nobody");
    assert!(state["message"].as_str().unwrap().contains("InvalidCiphertextException"), "{state}");
}

/// The hour of credentials that were stored without a proof counts from that moment, however long ago the last good poll was, and a poll tries them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_without_a_proof_are_tried_at_once_and_have_an_hour() {
    let scene = scene("").await;
    let path = scene.enabled().await;
    let patch = async |body: Value| scene.node.ask("PATCH", &format!("{path}?return_timeout=60"), Some(body)).await;
    let state = async || scene.node.get(&format!("{path}?fields=state")).await["state"].clone();
    let decrypts = || scene.kms.calls().into_iter().filter(|call| call.operation == "Decrypt").count();
    assert_eq!(patch(json!({ "polling_period": 1440 })).await.0, 200);
    scene.clock.advance(Duration::from_secs(5 * 60 * 60));
    scene.kms.add_access_key("AKIASECONDSECONDSEC", "second secret");
    let before = decrypts();
    assert_eq!(patch(json!({ "access_key_id": "AKIASECONDSECONDSEC", "secret_access_key": "second secret", "skip_verify": true })).await.0, 200);
    eventually("they are tried at once", async || (decrypts() > before).then_some(())).await;
    eventually("and that they are good is noted", async || {
        let stored = scene.store.inner().range(keystead_store::Range::prefix("/aws-kms/", 2)).await.unwrap().entries.remove(0);
        (serde_json::from_slice::<Value>(&stored.value).unwrap()["unproven"] == false).then_some(())
    })
    .await;
    assert_eq!(state().await["code"], "0", "and were never at risk");

    scene.clock.advance(Duration::from_secs(5 * 60 * 60));
    // A wrong secret is a mistake and no revocation, so that only the hour can block.
    assert_eq!(patch(json!({ "secret_access_key": "wrong", "access_key_id": "AKIASECONDSECONDSEC", "skip_verify": true })).await.0, 200);
    eventually("the mistake shows", async || (state().await["code"] != "0").then_some(())).await;
    let before = decrypts();
    scene.clock.advance(Duration::from_secs(58 * 60));
    eventually("polls go on", async || (decrypts() > before).then_some(())).await;
    assert_eq!(state().await["cluster_state"], true, "not before the hour is over");
    scene.clock.advance(Duration::from_secs(3 * 60));
    eventually("then it is", async || (state().await["cluster_state"] == false).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_describe_the_key_is_no_revocation() {
    let scene = scene("[cluster]\nname = \"c\"\n").await;
    scene.change(json!({ "aws_kms": { "access_error_grace": "0s" } })).await;
    let mut body = scene.body();
    body["polling_period"] = json!(1);
    let (status, body) = scene.node.enable(body).await;
    assert_eq!(status, 201, "{body}");
    let path = format!("/security/aws-kms/{}?fields=state", body["records"][0]["uuid"].as_str().unwrap());
    scene.kms.add_fault(FaultRule {
        operation: Some("DescribeKey".into()),
        ..FaultRule::always(Fault::Error { code: "AccessDeniedException".into(), status: 400, message: String::new() })
    });
    scene.kms.clear_calls();
    eventually("some polls must have run", async || {
        scene.clock.advance(Duration::from_secs(5));
        (scene.kms.calls().iter().filter(|call| call.operation == "Decrypt").count() >= 3).then_some(())
    })
    .await;
    assert_eq!(scene.node.get(&path).await["state"], json!({ "cluster_state": true, "code": "0", "message": "" }));
}
