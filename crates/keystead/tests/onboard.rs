//! The onboard key manager: keys of SVMs without one of their own, moving them to AWS KMS and back, and the cluster passphrase.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::faulty::{Faulty, Mood};
use common::kmip::{Credentials, Kmip, uid};
use common::{ManualClock, Node, code, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{Operation, ResultReason};
use keystead_manager::steps::Steps;
use keystead_store::{Range, Txn};
use keystead_testkit::{Fault, FaultRule, KeyState, KmsStandIn};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const PASSPHRASE: &str = "the first cluster passphrase, long enough";
const NEXT_PASSPHRASE: &str = "another cluster passphrase, as long as that";

struct Scene {
    kms: KmsStandIn,
    key: String,
    node: Node,
    store: Faulty,
    clock: Arc<ManualClock>,
    /// The identifier of the onboard key manager.
    onboard: String,
    /// A client of `svm1`.
    client: Credentials,
    stop: Arc<StopAt>,
}

/// Holds a job at a named step until the test lets it go on.
#[derive(Default)]
struct StopAt {
    step: Mutex<Option<&'static str>>,
    held: AtomicBool,
    changed: Condvar,
}

impl Steps for StopAt {
    fn reached(&self, step: &str) {
        if self.step.lock().unwrap().is_some_and(|stop| stop == step) {
            self.held.store(true, Ordering::SeqCst);
            tokio::task::block_in_place(|| {
                let guard = self.step.lock().unwrap();
                drop(self.changed.wait_while(guard, |stop| stop.is_some_and(|stop| stop == step)).unwrap());
            });
            self.held.store(false, Ordering::SeqCst);
        }
    }
}

impl StopAt {
    fn at(&self, step: &'static str) {
        *self.step.lock().unwrap() = Some(step);
    }

    async fn held(&self) {
        eventually("the job must come to the step", async || self.held.load(Ordering::SeqCst).then_some(())).await;
    }

    fn go_on(&self) {
        *self.step.lock().unwrap() = None;
        self.changed.notify_all();
    }
}

/// A node with an onboard key manager, and `svm1`, which has no key manager of its own.
async fn scene() -> Scene {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let (store, clock, stop) = (Faulty::default(), ManualClock::new(), Arc::new(StopAt::default()));
    let hooks = Hooks { store: store.hook(), clock: clock.clone(), steps: stop.clone(), ..Hooks::default() };
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), hooks).await.unwrap();
    node.svm("svm1").await;
    let onboard = onboard(&node).await;
    let client = Credentials::issue(&node, "svm1").await;
    Kmip::connect_new(&client.endpoint(node.ekmip)).await;
    Scene { kms, key, node, store, clock, onboard, client, stop }
}

async fn onboard(node: &Node) -> String {
    let body = json!({ "onboard": { "passphrase": PASSPHRASE } });
    let (status, body) = node.ask("POST", "/security/key-managers?return_timeout=30&return_records=true", Some(body)).await;
    assert_eq!(status, 201, "{body}");
    body["records"][0]["uuid"].as_str().unwrap().to_owned()
}

impl Scene {
    fn connect(&self) -> Kmip {
        Kmip::connect(&self.client.endpoint(self.node.ekmip))
    }

    fn make(&self, count: usize) -> HashMap<String, Vec<u8>> {
        let mut kmip = self.connect();
        (0..count)
            .map(|n| {
                let id = kmip.created(vec![Attribute::name(format!("key {n}"))]);
                let material = kmip.get(&id).material();
                (id, material)
            })
            .collect()
    }

    /// All keys are there, byte for byte, over KMIP.
    fn check(&self, keys: &HashMap<String, Vec<u8>>) {
        let mut kmip = self.connect();
        for (id, material) in keys {
            assert_eq!(kmip.get(id).material(), *material);
        }
    }

    fn body(&self, migrate: bool) -> Value {
        let mut body = enable_body("svm1", &self.kms, &self.key);
        if migrate {
            body["keystead"] = json!({ "migrate_keys": true });
        }
        body
    }

    /// Enables AWS KMS with a move of the keys. Answers the configuration's identifier.
    async fn enabled(&self) -> String {
        let (status, body) = self.node.enable(self.body(true)).await;
        assert_eq!(status, 201, "{body}");
        body["records"][0]["uuid"].as_str().unwrap().to_owned()
    }

    async fn migrate(&self, from: &str, to: &str) -> (u16, Value) {
        self.node.ask("POST", &format!("/security/key-managers/{from}/migrate?return_timeout=60"), Some(json!({ "uuid": to }))).await
    }

    /// What stands under a prefix of the store.
    async fn stored(&self, prefix: &str) -> Vec<keystead_store::Entry> {
        self.store.inner().range(Range::prefix(prefix, 9_999)).await.unwrap().entries
    }

    /// The versions of the KEK that wrap keys; that AWS wraps; that the onboard key manager wraps.
    async fn versions(&self) -> [BTreeSet<u32>; 3] {
        let of_keys = self.stored("/keys/").await.iter().map(|entry| u32::from_be_bytes(entry.value[1..5].try_into().unwrap())).collect();
        let of = |entries: Vec<keystead_store::Entry>| entries.iter().map(|entry| entry.key.rsplit('/').next().unwrap().parse().unwrap()).collect();
        [of_keys, of(self.stored("/keks/").await), of(self.stored("/onboard-keys/").await)]
    }

    async fn state_of(&self, key_store: &str) -> String {
        self.node.get(&format!("/security/key-stores/{key_store}")).await["state"].as_str().unwrap().to_owned()
    }

    async fn key_ids(&self, manager: &str) -> Vec<Value> {
        let node = self.node.get("/cluster/nodes").await["records"][0]["uuid"].as_str().unwrap().to_owned();
        self.node.get(&format!("/security/key-managers/{manager}/keys/{node}/key-ids?fields=*")).await["records"].as_array().unwrap().clone()
    }

    /// Blocks `svm1`. Time moves in small steps: the probes of EKMIP servers need certificates that are valid in real time, too.
    async fn block(&self, config: &str) {
        let path = format!("/security/aws-kms/{config}?return_timeout=30");
        assert_eq!(self.node.ask("PATCH", &path, Some(json!({ "polling_period": 1 }))).await.0, 200);
        self.revoke(config).await;
    }

    async fn revoke(&self, config: &str) {
        let settings = json!({ "aws_kms": { "access_error_grace": "0s", "min_poll_interval": "5s" } });
        assert_eq!(self.node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await.0, 200);
        self.kms.set_key_state(&self.key, KeyState::Disabled).unwrap();
        eventually("the SVM must be blocked", async || {
            self.clock.advance(Duration::from_secs(1));
            (self.state_of(config).await == "blocked").then_some(())
        })
        .await;
    }

    async fn unblock(&self, config: &str) {
        self.kms.set_key_state(&self.key, KeyState::Enabled).unwrap();
        eventually("it must come back", async || {
            self.clock.advance(Duration::from_secs(1));
            (self.state_of(config).await != "blocked").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_move_to_aws_and_back_and_again() {
    let scene = scene().await;
    let mut keys = scene.make(250);
    assert_eq!(scene.versions().await, [[1].into(), [].into(), [1].into()]);
    assert_eq!(scene.key_ids(&scene.onboard).await.len(), 251);

    let refused = scene.node.enable(scene.body(false)).await;
    assert_eq!((refused.0, code(&refused).as_str()), (409, "65537912"));
    assert_eq!(scene.kms.calls().len(), 0, "AWS was not asked");

    let config = scene.enabled().await;
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[2].into(), [2].into(), [].into()], "nothing is left that could open them without AWS");
    let jobs = scene.node.get("/cluster/jobs?fields=*&description=POST%20/api/security/aws-kms").await;
    assert!(jobs["records"].as_array().unwrap().iter().any(|job| job["message"].as_str().unwrap().contains("250 keys were moved")), "{jobs}");
    let ids = scene.key_ids(&config).await;
    assert_eq!((ids.len(), scene.key_ids(&scene.onboard).await.len()), (251, 0));
    let (keks, veks): (Vec<_>, Vec<_>) = ids.iter().partition(|id| id["key_type"] == "svm_kek");
    assert_eq!((keks.len(), veks.len()), (1, 250));
    assert!(ids.iter().all(|id| id["restored"] == true && id["svm"]["name"] == "svm1" && id["encryption_algorithm"] == "AES-256"), "{:?}", ids[0]);
    assert!(veks.iter().all(|id| keys.contains_key(id["key_id"].as_str().unwrap())));
    let state = scene.node.get(&format!("/security/aws-kms/{config}?fields=state")).await;
    assert_eq!(state["state"]["code"], "0");

    // Back: the configuration stays, and holds nothing.
    let answer = scene.migrate(&config, &scene.onboard).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[3].into(), [].into(), [3].into()]);
    let store = scene.node.get(&format!("/security/key-stores/{config}")).await;
    assert_eq!((&store["enabled"], &store["type"], &store["location"]), (&json!(false), &json!("aws"), &json!("external")), "{store}");
    let path = format!("/security/aws-kms/{config}");
    assert_eq!(scene.node.get(&format!("{path}?fields=state")).await["state"]["code"], "0", "nothing depends on AWS");
    for action in ["rekey-internal", "rekey-external"] {
        let body = (action == "rekey-external").then(|| json!({ "key_id": scene.key }));
        assert_eq!(code(&scene.node.ask("POST", &format!("{path}/{action}?return_timeout=30"), body).await), "65537547", "{action}");
    }
    assert_eq!(code(&scene.node.ask("POST", &format!("{path}/restore?return_timeout=30"), None).await), "65537544");
    assert_eq!(scene.node.ask("PATCH", &format!("{path}?return_timeout=30"), Some(json!({ "timeout": 5 }))).await.0, 200);
    assert_eq!(code(&scene.node.enable(scene.body(true)).await), "65537910", "it has a configuration");
    assert_eq!(scene.node.ask("PATCH", &format!("{path}?return_timeout=30"), Some(json!({ "polling_period": 1 }))).await.0, 200);
    scene.kms.clear_calls();
    for _ in 0..3 {
        scene.clock.advance(Duration::from_secs(67));
        keys.extend(scene.make_more("while with the onboard key manager"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(scene.kms.calls().is_empty(), "AWS is asked for nothing: {:?}", scene.kms.calls());

    // There again, and once more after a restart.
    assert_eq!(scene.migrate(&scene.onboard, &config).await.0, 201);
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[4].into(), [4].into(), [].into()]);
    assert_eq!(scene.migrate(&config, &scene.onboard).await.0, 201);
    assert_eq!(scene.migrate(&scene.onboard, &config).await.0, 201);
    let Scene { kms, key, node, onboard, client, .. } = scene;
    let toml = toml_for(&kms, node.folder.path());
    let (store, clock, stop) = (Faulty::default(), ManualClock::new(), Arc::new(StopAt::default()));
    let hooks = Hooks { store: store.hook(), clock: clock.clone(), steps: stop.clone(), ..Hooks::default() };
    let node = Node::start_in(node.stop().await, &toml, hooks).await.unwrap();
    let scene = Scene { kms, key, node, store, clock, onboard, client, stop };
    eventually("the KEK must arrive", async || (scene.node.get(&format!("{path}?fields=state")).await["state"]["code"] == "0").then_some(())).await;
    scene.check(&keys);
    assert_eq!(scene.migrate(&config, &scene.onboard).await.0, 201);

    // The configuration can go while the keys stay; and the setting moves them as the member does.
    assert_eq!(scene.node.ask("DELETE", &format!("{path}?return_timeout=30"), None).await.0, 200);
    scene.check(&keys);
    assert_eq!(scene.node.ask("PATCH", "/security/ekmip/settings", Some(json!({ "aws_kms": { "migrate_on_enable": true } }))).await.0, 200);
    let (status, body) = scene.node.enable(scene.body(false)).await;
    assert_eq!(status, 201, "{body}");
    scene.check(&keys);
    let [of_keys, aws, onboard] = scene.versions().await;
    assert_eq!((&of_keys, onboard.len()), (&aws, 0));
}

impl Scene {
    fn make_more(&self, what: &str) -> Option<(String, Vec<u8>)> {
        let mut kmip = self.connect();
        let group = Attribute::new(keystead_kmip::Tag::ObjectGroup, keystead_kmip::ttlv::Value::TextString(what.to_owned().into()));
        let id = kmip.created(vec![group]);
        let material = kmip.get(&id).material();
        Some((id, material))
    }
}

/// What the states show, and what is refused, while keys are on their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_from_its_beginning_to_its_end() {
    let scene = scene().await;
    let mut keys = scene.make(120);
    let ask = async |method: &str, path: &str| scene.node.ask(method, path, Some(json!({}))).await;

    // Reserved: new keys still go to the onboard key manager.
    scene.kms.add_fault(FaultRule::next("Encrypt", Fault::Hold));
    let (status, headers, body) = scene.node.call("POST", "/security/aws-kms", Some(scene.body(true))).await;
    assert_eq!(status, 202, "{body}");
    let config = headers["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert_eq!(scene.kms.wait_held(1, Duration::from_secs(20)).await, 1);
    assert_eq!(scene.state_of(&config).await, "initializing");
    keys.extend(scene.make_more("while it is reserved"));
    assert_eq!(code(&scene.node.enable(scene.body(true)).await), "65537910");
    assert_eq!(code(&scene.migrate(&scene.onboard, &config).await), "65539434");
    assert_eq!(code(&ask("POST", &format!("/security/aws-kms/{config}/rekey-internal")).await), "65539436");

    // Turned: new keys go to AWS's.
    scene.stop.at("enable.batch.before");
    scene.kms.release();
    scene.stop.held().await;
    assert_eq!(scene.state_of(&config).await, "mixed");
    scene.check(&keys);
    keys.extend(scene.make_more("while keys move"));
    assert_eq!(scene.versions().await, [[1, 2].into(), [2].into(), [1].into()]);
    assert_eq!(code(&ask("POST", &format!("/security/aws-kms/{config}/rekey-internal")).await), "65537547", "keys are still on the admin SVM");
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65537611", "not back before it has ended");
    assert_eq!(code(&ask("DELETE", &format!("/security/aws-kms/{config}")).await), "65537106");
    assert_eq!(code(&ask("DELETE", &format!("/security/key-managers/{}", scene.onboard)).await), "65537106");
    assert_eq!(code(&scene.node.enable(scene.body(true)).await), "65537910");
    scene.stop.go_on();
    eventually("the move must end", async || (scene.state_of(&config).await == "active").then_some(())).await;
    scene.check(&keys);

    // Away from AWS: first switching, then mixed.
    scene.kms.add_fault(FaultRule::next("Decrypt", Fault::Hold));
    let away = scene.node.ask("POST", &format!("/security/key-managers/{config}/migrate"), Some(json!({ "uuid": scene.onboard }))).await;
    assert_eq!(away.0, 202, "{away:?}");
    assert_eq!(scene.kms.wait_held(1, Duration::from_secs(20)).await, 1);
    assert_eq!(scene.state_of(&config).await, "switching");
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65537611");
    assert_eq!(code(&ask("POST", &format!("/security/aws-kms/{config}/rekey-internal")).await), "65537610");
    scene.stop.at("migrate.batch.before");
    scene.kms.release();
    scene.stop.held().await;
    assert_eq!(scene.state_of(&config).await, "mixed");
    assert_eq!(code(&ask("POST", &format!("/security/aws-kms/{config}/rekey-internal")).await), "65537610");
    let rekey = json!({ "key_id": scene.key });
    assert_eq!(code(&scene.node.ask("POST", &format!("/security/aws-kms/{config}/rekey-external"), Some(rekey)).await), "65537610");
    let job = scene.node.get("/cluster/jobs?fields=*&state=running").await["records"][0].clone();
    assert!(job["description"].as_str().unwrap().ends_with("/migrate"), "{job}");

    // Cancelled in the middle: it goes on with the next migrate, and keys were served all the time.
    let path = format!("/cluster/jobs/{}?action=cancel", job["uuid"].as_str().unwrap());
    assert_eq!(ask("PATCH", &path).await.0, 200);
    scene.stop.go_on();
    scene.check(&keys);
    let answer = eventually("it must go on", async || {
        let answer = scene.migrate(&config, &scene.onboard).await;
        (answer.0 == 201).then_some(answer)
    })
    .await;
    assert_eq!(answer.0, 201);
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[3].into(), [].into(), [3].into()]);
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65537559", "there is nothing left to move");
}

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

/// The store goes away in the middle of a move, and AWS after a turn: keys are served meanwhile, and the move goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn outages_in_the_middle_of_a_move() {
    let scene = scene().await;
    let keys = scene.make(250);
    scene.stop.at("enable.batch.before");
    let (status, headers, body) = scene.node.call("POST", "/security/aws-kms", Some(scene.body(true))).await;
    assert_eq!(status, 202, "{body}");
    let config = headers["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
    scene.stop.held().await;
    scene.store.set(Mood::Unavailable);
    scene.stop.go_on();
    scene.check(&keys);
    assert_eq!(scene.state_of(&config).await, "mixed");
    scene.store.set(Mood::Good);
    eventually("the move must end", async || (scene.state_of(&config).await == "active").then_some(())).await;
    scene.check(&keys);
    assert_eq!(scene.versions().await, [[2].into(), [2].into(), [].into()]);

    // Away: AWS must allow it at the beginning and at the end. Whoever cuts the way to it in between does not get the keys away.
    scene.stop.at("migrate.batch.before");
    let away = scene.node.ask("POST", &format!("/security/key-managers/{config}/migrate"), Some(json!({ "uuid": scene.onboard }))).await;
    assert_eq!(away.0, 202, "{away:?}");
    scene.stop.held().await;
    scene.kms.add_fault(FaultRule::always(Fault::CaptivePortal));
    scene.stop.go_on();
    let job = away.1["job"]["uuid"].as_str().unwrap().to_owned();
    let ended = eventually("the move must stop", async || {
        let job = scene.node.get(&format!("/cluster/jobs/{job}?fields=*")).await;
        (job["state"] == "failure").then_some(job)
    })
    .await;
    assert_eq!(ended["code"], 65_537_538, "{ended}");
    assert_eq!(scene.state_of(&config).await, "mixed");
    scene.check(&keys);
    scene.kms.clear_faults();
    assert_eq!(scene.migrate(&config, &scene.onboard).await.0, 201);
    assert_eq!(scene.versions().await, [[3].into(), [].into(), [3].into()]);
    scene.check(&keys);
    scene.kms.add_fault(FaultRule::always(Fault::CaptivePortal));

    // And one that cannot begin leaves all as it is.
    let answer = scene.migrate(&scene.onboard, &config).await;
    assert_eq!(code(&answer), "65537915", "{answer:?}");
    assert_eq!(scene.versions().await, [[3].into(), [].into(), [3].into()]);
    scene.check(&keys);
    scene.kms.clear_faults();
    assert_eq!(scene.migrate(&scene.onboard, &config).await.0, 201);
    scene.check(&keys);
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
async fn the_codes_of_migrate_by_their_conditions() {
    let scene = scene().await;
    scene.make(2);
    let nobody = uuid::Uuid::from_u128(7).to_string();
    assert_eq!(code(&scene.migrate(&scene.onboard, &scene.onboard).await), "65536959");
    let answer = scene.migrate(&scene.onboard, &nobody).await;
    assert_eq!((answer.0, code(&answer).as_str()), (404, "65537117"));
    assert_eq!(code(&scene.migrate(&nobody, &scene.onboard).await), "65537117");
    let config = scene.enabled().await;
    assert_eq!(code(&scene.migrate(&config, &nobody).await), "65537117", "neither is the onboard key manager");
    let missing = scene.node.ask("POST", &format!("/security/key-managers/{config}/migrate"), Some(json!({}))).await;
    assert_eq!(code(&missing), "262212");

    let store = scene.store.inner();
    let node_key = format!("/nodes/{}", uuid::Uuid::from_u128(7));
    let node = |level: u32, address: Value, ekmip: &str| json!({ "uuid": uuid::Uuid::from_u128(7), "name": format!("other{level}{address}"), "version": "0.0.1", "feature_level": level, "address": address, "ekmip_address": ekmip, "started": "2026-01-01T00:00:00Z" });
    for (record, expected) in [
        (node(1, json!("127.0.0.1:1"), "127.0.0.1:1"), "65536968"),
        (node(2, Value::Null, "127.0.0.1:1"), "65536968"),
        (node(2, json!("127.0.0.1:1"), "127.0.0.1:1"), "65537552"),
    ] {
        store.transact(Txn::new().put(node_key.clone(), record.to_string())).await.unwrap();
        let seen = async || scene.node.get("/cluster/nodes").await["records"].as_array().unwrap().iter().any(|node| node["name"] == record["name"]);
        eventually("the view must follow", async || seen().await.then_some(())).await;
        assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), expected);
        assert_eq!(scene.state_of(&config).await, "active", "nothing was begun");
    }
    store.transact(Txn::new().delete(node_key)).await.unwrap();
    eventually("the view must follow", async || (scene.node.get("/cluster/nodes").await["num_records"] == 1).then_some(())).await;

    // Disabling, as a DELETE shows it.
    let svm = scene.node.get("/svm/svms?name=svm1").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    let store_key = format!("/key-stores/{svm}");
    let good = scene.stored(&store_key).await.remove(0).value;
    let mut record: Value = serde_json::from_slice(&good).unwrap();
    record["state"] = json!("disabling");
    store.transact(Txn::new().put(store_key.clone(), record.to_string())).await.unwrap();
    assert_eq!(code(&scene.migrate(&config, &scene.onboard).await), "65539435");
    let rekey = scene.node.ask("POST", &format!("/security/aws-kms/{config}/rekey-internal"), None).await;
    assert_eq!(code(&rekey), "65539437");
    store.transact(Txn::new().put(store_key, good)).await.unwrap();
    eventually("the view must follow", async || (scene.state_of(&config).await == "active").then_some(())).await;
    let answer = scene.migrate(&config, &scene.onboard).await;
    assert_eq!(answer.0, 201, "{answer:?}");
}

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

/// A first key and an enable without a move, at the same moment: whatever wins, no key is under a key manager that the SVM has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_create_that_races_the_enable() {
    let scene = scene().await;
    let (mut enabled, mut refused) = (0, 0);
    for round in 0..60 {
        let svm = format!("race{round}");
        let uuid = scene.node.svm(&svm).await;
        let client = Credentials::issue(&scene.node, &svm).await.endpoint(scene.node.ekmip);
        let mut kmip = Kmip::connect_new(&client).await;
        let creates = tokio::spawn(async move {
            // Sooner and later than the enable, and at any moment of it.
            tokio::time::sleep(Duration::from_micros(700 * round * (round % 4))).await;
            let made: Vec<_> = (0..8).map(|_| kmip.create(vec![])).filter(|answer| answer.reason().is_none()).map(|answer| answer.id()).collect();
            (kmip, made)
        });
        if round % 4 == 0 {
            tokio::time::sleep(Duration::from_micros(700 * round)).await;
        }
        let answer = scene.node.enable(enable_body(&svm, &scene.kms, &scene.key)).await;
        let (mut kmip, made) = creates.await.unwrap();
        let store: Value = serde_json::from_slice(&scene.stored(&format!("/key-stores/{uuid}")).await[0].value).unwrap();
        let keys = scene.stored(&format!("/keys/{uuid}/")).await;
        let (aws, onboard) = (scene.stored(&format!("/keks/{uuid}/")).await, scene.stored(&format!("/onboard-keys/{uuid}/")).await);
        assert_eq!((store["state"].as_str(), keys.len()), (Some("active"), made.len()), "round {round}");
        match answer.0 {
            201 => {
                enabled += 1;
                assert_eq!((store["onboard"].as_bool(), aws.len(), onboard.len()), (Some(false), 1, 0), "round {round}");
            }
            _ => {
                refused += 1;
                assert_eq!(code(&answer), "65537912", "round {round}");
                assert_eq!((store["onboard"].as_bool(), aws.len(), onboard.len()), (Some(true), 0, 1), "round {round}");
            }
        }
        let version = store["kek_version"].as_u64().unwrap();
        assert!(keys.iter().all(|entry| u64::from(u32::from_be_bytes(entry.value[1..5].try_into().unwrap())) == version), "round {round}");
        for id in made {
            assert!(kmip.get(&id).reason().is_none(), "round {round}");
        }
    }
    println!("{enabled} enables won, {refused} were refused");
    assert!(enabled > 0 && refused > 0);
}

/// Keys move to and fro while clients read, make and destroy: no Get fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_get_fails_while_keys_move() {
    let wanted = if std::env::var_os("SOAK").is_some() { 100_000 } else { 5_000 };
    let scene = scene().await;
    let keys = scene.make(250);
    let config = scene.enabled().await;
    let (stop, gets) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (made, moves) = std::thread::scope(|scope| {
        let (endpoint, stop, gets, keys) = (scene.client.endpoint(scene.node.ekmip), &stop, &gets, &keys);
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let endpoint = endpoint.clone();
                scope.spawn(move || {
                    let mut kmip = Kmip::connect(&endpoint);
                    for (id, material) in keys.iter().cycle().skip(reader * 100) {
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        let answer = kmip.get(id);
                        assert_eq!((answer.reason(), answer.material()), (None, material.clone()), "{}", answer.message());
                        gets.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let writer = scope.spawn(move || {
            let mut kmip = Kmip::connect(&endpoint);
            let mut made = HashMap::new();
            while !stop.load(Ordering::SeqCst) && made.len() < 20_000 {
                let (id, victim) = (kmip.created(vec![]), kmip.created(vec![]));
                assert!(kmip.call(Operation::Destroy, vec![uid(&victim)]).reason().is_none());
                let material = kmip.get(&id).material();
                made.insert(id, material);
            }
            made
        });
        let moves = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let mut moves = 0;
                while gets.load(Ordering::SeqCst) < wanted || moves < 4 {
                    let (from, to) = if moves % 2 == 0 { (&config, &scene.onboard) } else { (&scene.onboard, &config) };
                    let answer = scene.migrate(from, to).await;
                    assert_eq!(answer.0, 201, "{answer:?}");
                    moves += 1;
                    if readers.iter().any(std::thread::ScopedJoinHandle::is_finished) {
                        break;
                    }
                }
                moves
            })
        });
        stop.store(true, Ordering::SeqCst);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        (writer.join().unwrap(), moves)
    });
    println!("{} Gets during {moves} moves, and {} keys made meanwhile", gets.load(Ordering::SeqCst), made.len());
    assert!(!made.is_empty());
    scene.check(&keys);
    scene.check(&made);
    let [of_keys, aws, onboard] = scene.versions().await;
    assert_eq!((of_keys.len(), aws.len() + onboard.len()), (1, 1));
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
        (json!({ "passphrase": PASSPHRASE, "existing_passphrase": PASSPHRASE }), "65536150"),
        (json!({ "passphrase": NEXT_PASSPHRASE, "existing_passphrase": NEXT_PASSPHRASE.replace("as", "AS") }), "65536139"),
        (json!({ "synchronize": true, "existing_passphrase": NEXT_PASSPHRASE }), "65536139"),
    ] {
        assert_eq!(code(&patch(&scene.node, change.clone()).await), expected, "{change}");
    }
    for short in ["x".repeat(31), "ä".repeat(15)] {
        let answer = scene.node.ask("POST", "/security/key-managers", Some(json!({ "onboard": { "passphrase": short } }))).await;
        assert_eq!(code(&answer), "65536404");
    }
    let again = scene.node.ask("POST", "/security/key-managers", Some(json!({ "onboard": { "passphrase": PASSPHRASE } }))).await;
    assert_eq!((again.0, code(&again).as_str()), (409, "1"));
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
    let Scene { kms, key, node, onboard, client, .. } = scene;
    let toml = toml_for(&kms, node.folder.path());
    let (store, clock, stop) = (Faulty::default(), ManualClock::new(), Arc::new(StopAt::default()));
    let hooks = Hooks { store: store.hook(), clock: clock.clone(), ..Hooks::default() };
    let node = Node::start_in(node.stop().await, &toml, hooks).await.unwrap();
    let scene = Scene { kms, key, node, store, clock, onboard, client, stop };
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
