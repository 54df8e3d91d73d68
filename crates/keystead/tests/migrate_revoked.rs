//! Moving keys while the tenant takes the customer key away: nothing is re-rooted, and a move whose customer key is lost can be given up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::uid;
use common::onboard::{Scene, scene};
use common::{code, eventually};
use keystead_kmip::enumeration::{Operation, ResultReason};
use keystead_testkit::{Fault, FaultRule, KeyState};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Moving keys away needs a fresh ok of the customer key, also while its KEK is in memory; and is refused while the SVM is blocked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_moves_the_keys_of_a_revoked_tenant_away() {
    let scene = scene().await;
    let keys = scene.make(5);
    let config = scene.enabled().await;
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    let answer = scene.migrate(&config, &scene.onboard).await;
    assert_eq!((answer.0, code(&answer).as_str()), (400, "65537538"));
    assert_eq!(scene.state_of(&config).await, "active");
    assert_eq!(scene.versions().await, [[2].into(), [2].into(), [].into()], "nothing has moved");
    scene.check(&keys);
    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    scene.block(&config).await;
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65537556");
    let id = keys.keys().next().unwrap();
    assert_eq!(scene.connect().get(id).reason(), Some(ResultReason::PermissionDenied));
    scene.unblock(&config).await;
    scene.check(&keys);
}

/// Revoked in the middle of the move: whatever is where, keys are refused, and nothing more moves until the customer key is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revocation_in_the_middle_of_a_move_away() {
    let scene = scene().await;
    let keys = scene.make(5);
    let config = scene.enabled().await;
    // A block needs a PATCH, which waits for the job: so it comes before.
    let path = format!("/security/aws-kms/{config}?return_timeout=30");
    assert_eq!(scene.node.ask("PATCH", &path, Some(json!({ "polling_period": 1 }))).await.0, 200);
    scene.stop.at("migrate.batch.before");
    let away = scene.node.ask("POST", &format!("/security/key-managers/{config}/migrate"), Some(json!({ "uuid": scene.onboard }))).await;
    assert_eq!(away.0, 202, "{away:?}");
    scene.stop.held().await;
    let late = scene.connect().created(vec![]);
    scene.revoke(&config).await;
    let mut kmip = scene.connect();
    for id in keys.keys().chain([&late]) {
        assert_eq!(kmip.get(id).reason(), Some(ResultReason::PermissionDenied));
    }
    scene.stop.go_on();
    eventually("the job must end", async || (scene.node.get("/cluster/jobs?state=running").await["num_records"] == 0).then_some(())).await;
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65537556");
    scene.unblock(&config).await;
    let answer = scene.migrate(&config, &scene.onboard).await;
    assert_eq!(answer.0, 201, "the move goes on when the key is back: {answer:?}");
    scene.check(&keys);
    assert!(kmip.get(&late).reason().is_none());
    assert_eq!(scene.versions().await, [[3].into(), [].into(), [3].into()]);
}

/// A denial that comes after the proof ends a move away, also while the grace still runs and keys are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_denial_during_a_move_away_ends_it() {
    let scene = scene().await;
    let keys = scene.make(250);
    let config = scene.enabled().await;
    let path = format!("/security/aws-kms/{config}");
    assert_eq!(scene.node.ask("PATCH", &format!("{path}?return_timeout=30"), Some(json!({ "polling_period": 1 }))).await.0, 200);
    scene.stop.at("migrate.batch.before");
    let away = scene.node.ask("POST", &format!("/security/key-managers/{config}/migrate"), Some(json!({ "uuid": scene.onboard }))).await;
    assert_eq!(away.0, 202, "{away:?}");
    scene.stop.held().await;
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    eventually("the denial must be seen", async || {
        scene.clock.advance(Duration::from_secs(1));
        (scene.node.get(&format!("{path}?fields=state")).await["state"]["code"] == "65537551").then_some(())
    })
    .await;
    scene.stop.go_on();
    let job = away.1["job"]["_links"]["self"]["href"].as_str().unwrap().strip_prefix("/api").unwrap().to_owned();
    let job = eventually("the job must end", async || {
        let job = scene.node.get(&format!("{job}?fields=*")).await;
        ["success", "failure"].contains(&job["state"].as_str().unwrap()).then_some(job)
    })
    .await;
    assert_eq!((&job["state"], &job["code"]), (&json!("failure"), &json!(65_537_538)), "{job}");
    let [of_keys, aws, onboard] = scene.versions().await;
    assert_eq!((of_keys, aws, onboard), ([2, 3].into(), [2].into(), [3].into()), "it has stopped on the way");
    scene.check(&keys);
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65537538", "and does not go on");
    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    let answer = scene.migrate(&config, &scene.onboard).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    scene.check(&keys);
}

/// So does one that comes during a move to AWS KMS: what has not been moved yet must not be rooted in a key that is on its way out.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_denial_during_a_move_to_aws_ends_it() {
    let scene = scene().await;
    let keys = scene.make(250);
    let mut body = scene.body(true);
    body["polling_period"] = json!(1);
    scene.stop.at("enable.batch.after");
    let (status, headers, answer) = scene.node.call("POST", "/security/aws-kms", Some(body)).await;
    assert_eq!(status, 202, "{answer}");
    let config = headers["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
    scene.stop.held().await;
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    eventually("the denial must be seen", async || {
        scene.clock.advance(Duration::from_secs(1));
        (scene.node.get(&format!("/security/aws-kms/{config}?fields=state")).await["state"]["code"] == "65537551").then_some(())
    })
    .await;
    scene.stop.go_on();
    eventually("the job must end", async || (scene.node.get("/cluster/jobs?state=running").await["num_records"] == 0).then_some(())).await;
    assert_eq!(scene.versions().await, [[1, 2].into(), [2].into(), [1].into()], "it has stopped on the way");
    scene.check(&keys);
    assert_eq!(code(&scene.migrate(&scene.onboard, &config).await), "65537538", "and does not go on");
    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
    eventually("the good poll must come", async || {
        scene.clock.advance(Duration::from_secs(1));
        (scene.node.get(&format!("/security/aws-kms/{config}?fields=state")).await["state"]["code"] == "0").then_some(())
    })
    .await;
    let answer = scene.migrate(&scene.onboard, &config).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    assert_eq!(scene.versions().await, [[2].into(), [2].into(), [].into()]);
    scene.check(&keys);
}

/// A move to AWS KMS that was stopped half way by the tenant, who has taken the customer key away for good.
struct Stuck {
    scene: Scene,
    config: String,
    /// Keys that were made before the move, by what has wrapped them when it stopped.
    onboard: HashMap<String, Vec<u8>>,
    aws: HashMap<String, Vec<u8>>,
}

/// `count` keys before the move, and one in the middle of it.
async fn stuck(count: usize) -> Stuck {
    let scene = scene().await;
    let keys = scene.make(count);
    let mut body = scene.body(true);
    body["polling_period"] = json!(1);
    scene.stop.at("enable.batch.after");
    let (status, headers, answer) = scene.node.call("POST", "/security/aws-kms", Some(body)).await;
    assert_eq!(status, 202, "{answer}");
    let config = headers["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
    scene.stop.held().await;
    let late = scene.make_more("in the middle of the move").unwrap();
    scene.revoke(&config).await;
    let mut kmip = scene.connect();
    for id in keys.keys().chain([&late.0]) {
        assert_eq!(kmip.get(id).reason(), Some(ResultReason::PermissionDenied), "until the move is given up, all is the tenant's to refuse");
    }
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65537611", "a job is still at work");
    scene.stop.go_on();
    eventually("the job must end", async || (scene.node.get("/cluster/jobs?state=running").await["num_records"] == 0).then_some(())).await;
    let moved: BTreeSet<String> = scene
        .stored("/keys/")
        .await
        .iter()
        .filter(|entry| entry.value[1..5] == [0, 0, 0, 2])
        .map(|entry| entry.key.rsplit('/').next().unwrap().to_owned())
        .collect();
    let (mut aws, onboard): (HashMap<_, _>, HashMap<_, _>) = keys.into_iter().partition(|(id, _)| moved.contains(id));
    aws.extend([late]);
    Stuck { scene, config, onboard, aws }
}

impl Stuck {
    async fn delete(&self, path: &str) -> (u16, Value) {
        self.scene.node.ask("DELETE", &format!("{path}?return_timeout=60"), None).await
    }

    fn destroy(&self, keys: &HashMap<String, Vec<u8>>) {
        let mut kmip = self.scene.connect();
        for id in keys.keys() {
            assert!(kmip.call(Operation::Destroy, vec![uid(id)]).reason().is_none());
        }
    }

    fn refused(&self, keys: &HashMap<String, Vec<u8>>) {
        let mut kmip = self.scene.connect();
        for id in keys.keys() {
            assert_eq!(kmip.get(id).reason(), Some(ResultReason::PermissionDenied), "{id} is rooted in the tenant's key");
        }
    }

    /// Gives the move up, and looks at what that has brought.
    async fn given_up(&self) {
        let scene = &self.scene;
        let answer = scene.migrate(&self.config, &scene.onboard).await;
        assert_eq!(answer.0, 201, "{answer:?}");
        let jobs = scene.node.get("/cluster/jobs?fields=*&state=success").await;
        let said = format!("given up: {} keys", self.aws.len());
        assert!(jobs["records"].as_array().unwrap().iter().any(|job| job["message"].as_str().unwrap().contains(&said)), "{jobs}");
        scene.check(&self.onboard);
        self.refused(&self.aws);
    }
}

/// What was not moved yet is served again, and new keys are made; what is rooted in the tenant's key stays refused until AWS allows it, and then comes back too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_to_aws_whose_customer_key_is_lost_is_given_up() {
    let stuck = stuck(250).await;
    let Stuck { scene, config, onboard, aws } = &stuck;
    assert_eq!((onboard.len(), aws.len()), (150, 101));
    assert_eq!(code(&scene.migrate(&scene.onboard, config).await), "65537556", "it cannot go on");
    assert_eq!(code(&stuck.delete(&format!("/security/aws-kms/{config}")).await), "65537106", "nor can the configuration go");
    stuck.given_up().await;
    let new = scene.make_more("after it was given up").unwrap();
    assert_eq!(scene.versions().await, [[1, 2].into(), [2].into(), [1].into()]);
    let ids = scene.key_ids(&scene.onboard).await;
    assert!(ids.len() == 152 && ids.iter().all(|id| id["restored"] == true), "the KEK, what was not moved, and the new one");
    assert!(scene.key_ids(config).await.iter().all(|id| id["restored"] == false));

    // It stays so, whatever is asked for.
    assert_eq!(scene.state_of(config).await, "blocked");
    for (from, to, expected) in [(config, &scene.onboard, "65537556"), (&scene.onboard, config, "65537611")] {
        assert_eq!(code(&scene.migrate(from, to).await), expected);
    }
    assert_eq!(code(&stuck.delete(&format!("/security/aws-kms/{config}")).await), "65537106");
    assert_eq!(code(&stuck.delete(&format!("/security/key-managers/{}", scene.onboard)).await), "65537106");
    scene.check(onboard);
    stuck.refused(aws);

    // The tenant gives the key back: all is served, and the rest comes over.
    scene.unblock(config).await;
    scene.check(onboard);
    scene.check(aws);
    let answer = scene.migrate(config, &scene.onboard).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    assert_eq!(scene.versions().await, [[3].into(), [].into(), [3].into()], "each version is a new one");
    scene.check(onboard);
    scene.check(aws);
    assert_eq!(scene.migrate(&scene.onboard, config).await.0, 201);
    assert_eq!(scene.versions().await, [[4].into(), [4].into(), [].into()]);
    scene.check(onboard);
    scene.check(aws);
    assert_eq!(scene.connect().get(&new.0).material(), new.1);
}

/// AWS KMS does not answer after a restart in the middle of a move: the move can be given up, and what that has brought outlives the next restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_is_given_up_while_aws_is_away() {
    let mut stuck = stuck(120).await;
    stuck.scene = stuck.scene.restarted().await;
    stuck.scene.kms.add_fault(FaultRule::always(Fault::Drop));
    stuck.refused(&stuck.onboard);
    stuck.given_up().await;
    let new = stuck.scene.make_more("after it was given up").unwrap();
    stuck.onboard.extend([new]);
    stuck.scene = stuck.scene.restarted().await;
    stuck.scene.check(&stuck.onboard);
    stuck.refused(&stuck.aws);
    assert!(stuck.scene.make_more("and after a restart").is_some());
    stuck.scene.kms.clear_faults();
    stuck.scene.unblock_from_start(&stuck.config).await;
    stuck.scene.check(&stuck.onboard);
    stuck.scene.check(&stuck.aws);
}

/// Keys that AWS KMS keeps, and that nobody wants any more, are destroyed: then nothing of AWS is left to wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_that_was_given_up_ends_without_aws_once_its_keys_are_destroyed() {
    for by_delete in [false, true] {
        let stuck = stuck(120).await;
        let Stuck { scene, config, onboard, aws } = &stuck;
        stuck.given_up().await;
        stuck.destroy(aws);
        if by_delete {
            let answer = stuck.delete(&format!("/security/aws-kms/{config}")).await;
            assert_eq!(answer.0, 200, "{answer:?}");
        } else {
            let answer = scene.migrate(config, &scene.onboard).await;
            assert_eq!(answer.0, 201, "{answer:?}");
            assert_eq!(scene.state_of(config).await, "active");
            assert_eq!(stuck.delete(&format!("/security/aws-kms/{config}")).await.0, 200);
        }
        scene.check(onboard);
        assert_eq!(scene.versions().await, [[1].into(), [].into(), [1].into()]);
        assert!(scene.stored("/aws-kms/").await.is_empty());
        // Elsewhere again, with a key of AWS that is there: no version is used twice.
        scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();
        scene.enabled().await;
        scene.check(onboard);
        assert_eq!(scene.versions().await, [[3].into(), [3].into(), [].into()]);
    }
}

/// The keys come back from AWS KMS, and the tenant revokes once more: what has come from there, and what is still there, is refused; what was never there is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revocation_while_the_keys_of_a_move_that_was_given_up_come_back() {
    let stuck = stuck(250).await;
    let Stuck { scene, config, onboard, aws } = &stuck;
    stuck.given_up().await;
    scene.unblock(config).await;
    scene.stop.at("migrate.batch.before");
    let (status, answer) = scene.node.ask("POST", &format!("/security/key-managers/{config}/migrate"), Some(json!({ "uuid": scene.onboard }))).await;
    assert_eq!(status, 202, "{answer}");
    scene.stop.held().await;
    assert_eq!(scene.versions().await, [[1, 2].into(), [2].into(), [1, 3].into()]);
    scene.revoke(config).await;
    scene.check(onboard);
    stuck.refused(aws);
    assert_eq!(scene.connect().create(vec![]).reason(), Some(ResultReason::PermissionDenied), "new keys go to where those of AWS KMS come to");
    scene.stop.go_on();
    eventually("the job must end", async || (scene.node.get("/cluster/jobs?state=running").await["num_records"] == 0).then_some(())).await;
    scene.check(onboard);
    stuck.refused(aws);
    scene.unblock(config).await;
    assert_eq!(scene.migrate(config, &scene.onboard).await.0, 201);
    scene.check(onboard);
    scene.check(aws);
    assert_eq!(scene.versions().await, [[3].into(), [].into(), [3].into()]);
}

/// Where no key is left, a configuration whose keys were on their way can be deleted, whichever way they went; and then nothing of it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_configuration_goes_in_the_middle_of_a_move_where_no_key_is_left() {
    for (away, given_up) in [(false, false), (false, true), (true, false)] {
        let stuck = if away { stuck_on_the_way_back().await } else { stuck(3).await };
        if given_up {
            stuck.given_up().await;
        }
        let path = format!("/security/aws-kms/{}", stuck.config);
        stuck.destroy(&stuck.onboard);
        assert_eq!(code(&stuck.delete(&path).await), "65537106", "one is left");
        stuck.destroy(&stuck.aws);
        let svm = stuck.scene.node.get("/svm/svms?name=svm1").await["records"][0]["uuid"].as_str().unwrap().to_owned();
        let svm_path = format!("/svm/svms/{svm}");
        let refused = stuck.delete(&svm_path).await;
        assert_eq!(code(&refused), "8");
        assert!(refused.1["error"]["message"].as_str().unwrap().contains(&stuck.config), "it says what to delete first: {refused:?}");
        let answer = stuck.delete(&path).await;
        assert_eq!(answer.0, 200, "{answer:?}");
        for left in ["/aws-kms/", "/keks/", "/onboard-keys/", "/key-stores/", "/keys/", "/destroyed-keys/"] {
            assert!(stuck.scene.stored(left).await.is_empty(), "{left}");
        }
        // As new: the next key gets a place at the onboard key manager again.
        let again = stuck.scene.make(2);
        stuck.scene.check(&again);
        stuck.destroy(&again);
        assert_eq!(stuck.delete(&svm_path).await.0, 200);
        assert_eq!(stuck.delete(&format!("/security/key-managers/{}", stuck.scene.onboard)).await.0, 200);
    }
}

/// The same from AWS KMS to the onboard key manager.
async fn stuck_on_the_way_back() -> Stuck {
    let scene = scene().await;
    let keys = scene.make(3);
    let config = scene.enabled().await;
    let path = format!("/security/aws-kms/{config}?return_timeout=30");
    assert_eq!(scene.node.ask("PATCH", &path, Some(json!({ "polling_period": 1 }))).await.0, 200);
    scene.stop.at("migrate.batch.before");
    let (status, answer) = scene.node.ask("POST", &format!("/security/key-managers/{config}/migrate"), Some(json!({ "uuid": scene.onboard }))).await;
    assert_eq!(status, 202, "{answer}");
    scene.stop.held().await;
    let late = scene.make_more("on the way back").unwrap();
    scene.revoke(&config).await;
    scene.stop.go_on();
    eventually("the job must end", async || (scene.node.get("/cluster/jobs?state=running").await["num_records"] == 0).then_some(())).await;
    Stuck { scene, config, onboard: [late].into(), aws: keys }
}
