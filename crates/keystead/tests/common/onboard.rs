//! A node with an onboard key manager, an SVM that has no key manager of its own, and what tests of moving keys do with them.

use super::faulty::Faulty;
use super::kmip::{Credentials, Kmip};
use super::{ManualClock, Node, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_kmip::attribute::Attribute;
use keystead_manager::steps::Steps;
use keystead_store::Range;
use keystead_testkit::{KeyState, KmsStandIn};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub const PASSPHRASE: &str = "the first cluster passphrase, long enough";

pub struct Scene {
    pub kms: KmsStandIn,
    pub key: String,
    pub node: Node,
    pub store: Faulty,
    pub clock: Arc<ManualClock>,
    /// The identifier of the onboard key manager.
    pub onboard: String,
    /// A client of `svm1`.
    pub client: Credentials,
    pub stop: Arc<StopAt>,
}

/// Holds a job at a named step until the test lets it go on.
#[derive(Default)]
pub struct StopAt {
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
                // A test that has failed says go to nobody.
                drop(self.changed.wait_timeout_while(guard, Duration::from_secs(60), |stop| stop.is_some_and(|stop| stop == step)).unwrap());
            });
            self.held.store(false, Ordering::SeqCst);
        }
    }
}

impl StopAt {
    pub fn at(&self, step: &'static str) {
        *self.step.lock().unwrap() = Some(step);
    }

    pub async fn held(&self) {
        eventually("the job must come to the step", async || self.held.load(Ordering::SeqCst).then_some(())).await;
    }

    pub fn go_on(&self) {
        *self.step.lock().unwrap() = None;
        self.changed.notify_all();
    }
}

/// A node with an onboard key manager, and `svm1`, which has no key manager of its own.
pub async fn scene() -> Scene {
    let clock = ManualClock::new();
    scene_with(clock.clone(), Hooks { clock, ..Hooks::default() }).await
}

/// The same in real time, for what takes so long that certificates end meanwhile.
pub async fn scene_in_real_time() -> Scene {
    scene_with(ManualClock::new(), Hooks::default()).await
}

async fn scene_with(clock: Arc<ManualClock>, with: Hooks) -> Scene {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let (store, stop) = (Faulty::default(), Arc::new(StopAt::default()));
    let hooks = Hooks { store: store.hook(), steps: stop.clone(), ..with };
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), hooks).await.unwrap();
    node.svm("svm1").await;
    let onboard = onboard(&node).await;
    let client = Credentials::issue(&node, "svm1").await;
    Kmip::connect_new(&client.endpoint(node.ekmip)).await;
    Scene { kms, key, node, store, clock, onboard, client, stop }
}

pub async fn onboard(node: &Node) -> String {
    let body = json!({ "onboard": { "passphrase": PASSPHRASE } });
    let (status, body) = node.ask("POST", "/security/key-managers?return_timeout=30&return_records=true", Some(body)).await;
    assert_eq!(status, 201, "{body}");
    body["records"][0]["uuid"].as_str().unwrap().to_owned()
}

impl Scene {
    /// The same after a restart of the node.
    pub async fn restarted(self) -> Self {
        let Self { kms, key, node, onboard, client, .. } = self;
        let toml = toml_for(&kms, node.folder.path());
        let (store, clock, stop) = (Faulty::default(), ManualClock::new(), Arc::new(StopAt::default()));
        let hooks = Hooks { store: store.hook(), clock: clock.clone(), steps: stop.clone(), ..Hooks::default() };
        let node = Node::start_in(node.stop().await, &toml, hooks).await.unwrap();
        Self { kms, key, node, store, clock, onboard, client, stop }
    }

    pub fn connect(&self) -> Kmip {
        Kmip::connect(&self.client.endpoint(self.node.ekmip))
    }

    pub fn make(&self, count: usize) -> HashMap<String, Vec<u8>> {
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
    pub fn check(&self, keys: &HashMap<String, Vec<u8>>) {
        let mut kmip = self.connect();
        for (id, material) in keys {
            assert_eq!(kmip.get(id).material(), *material);
        }
    }

    pub fn body(&self, migrate: bool) -> Value {
        let mut body = enable_body("svm1", &self.kms, &self.key);
        if migrate {
            body["keystead"] = json!({ "migrate_keys": true });
        }
        body
    }

    /// Enables AWS KMS with a move of the keys. Answers the configuration's identifier.
    pub async fn enabled(&self) -> String {
        let (status, body) = self.node.enable(self.body(true)).await;
        assert_eq!(status, 201, "{body}");
        body["records"][0]["uuid"].as_str().unwrap().to_owned()
    }

    pub async fn migrate(&self, from: &str, to: &str) -> (u16, Value) {
        self.node.ask("POST", &format!("/security/key-managers/{from}/migrate?return_timeout=60"), Some(json!({ "uuid": to }))).await
    }

    /// What stands under a prefix of the store.
    pub async fn stored(&self, prefix: &str) -> Vec<keystead_store::Entry> {
        let (mut range, mut entries) = (Range::prefix(prefix, 1_000), Vec::new());
        loop {
            let page = self.store.inner().range(range.clone()).await.unwrap();
            range.after = page.entries.last().map(|entry| entry.key.clone());
            entries.extend(page.entries);
            if !page.more {
                return entries;
            }
        }
    }

    /// The versions of the KEK that wrap keys; that AWS wraps; that the onboard key manager wraps.
    pub async fn versions(&self) -> [BTreeSet<u32>; 3] {
        let of_keys = self.stored("/keys/").await.iter().map(|entry| u32::from_be_bytes(entry.value[1..5].try_into().unwrap())).collect();
        let of = |entries: Vec<keystead_store::Entry>| entries.iter().map(|entry| entry.key.rsplit('/').next().unwrap().parse().unwrap()).collect();
        [of_keys, of(self.stored("/keks/").await), of(self.stored("/onboard-keys/").await)]
    }

    pub async fn state_of(&self, key_store: &str) -> String {
        self.node.get(&format!("/security/key-stores/{key_store}")).await["state"].as_str().unwrap().to_owned()
    }

    pub async fn key_ids(&self, manager: &str) -> Vec<Value> {
        let node = self.node.get("/cluster/nodes").await["records"][0]["uuid"].as_str().unwrap().to_owned();
        self.node.get(&format!("/security/key-managers/{manager}/keys/{node}/key-ids?fields=*")).await["records"].as_array().unwrap().clone()
    }

    /// Blocks `svm1`. Time moves in small steps: the probes of EKMIP servers need certificates that are valid in real time, too.
    pub async fn block(&self, config: &str) {
        let path = format!("/security/aws-kms/{config}?return_timeout=30");
        assert_eq!(self.node.ask("PATCH", &path, Some(json!({ "polling_period": 1 }))).await.0, 200);
        self.revoke(config).await;
    }

    pub async fn revoke(&self, config: &str) {
        let settings = json!({ "aws_kms": { "access_error_grace": "0s", "min_poll_interval": "5s" } });
        assert_eq!(self.node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await.0, 200);
        self.kms.set_key_state(&self.key, KeyState::Disabled).unwrap();
        eventually("the SVM must be blocked", async || {
            self.clock.advance(Duration::from_secs(1));
            (self.state_of(config).await == "blocked").then_some(())
        })
        .await;
    }

    /// The same on a node that has not had the KEK since its start.
    pub async fn unblock_from_start(&self, config: &str) {
        self.kms.set_key_state(&self.key, KeyState::Enabled).unwrap();
        eventually("it must come back", async || {
            self.clock.advance(Duration::from_secs(1));
            (self.node.get(&format!("/security/aws-kms/{config}?fields=state")).await["state"]["code"] == "0").then_some(())
        })
        .await;
    }

    pub async fn unblock(&self, config: &str) {
        self.kms.set_key_state(&self.key, KeyState::Enabled).unwrap();
        eventually("it must come back", async || {
            self.clock.advance(Duration::from_secs(1));
            (self.state_of(config).await != "blocked").then_some(())
        })
        .await;
    }

    pub fn make_more(&self, what: &str) -> Option<(String, Vec<u8>)> {
        let mut kmip = self.connect();
        let group = Attribute::new(keystead_kmip::Tag::ObjectGroup, keystead_kmip::ttlv::Value::TextString(what.to_owned().into()));
        let id = kmip.created(vec![group]);
        let material = kmip.get(&id).material();
        Some((id, material))
    }
}
