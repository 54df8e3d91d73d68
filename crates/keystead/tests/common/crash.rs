//! Folders of nodes that have keys with the onboard key manager, and processes on copies of them that die at named steps.

use super::kmip::{Credentials, Kmip};
use super::run::{Run, copy, stepnode};
use super::{enable_body, eventually, stand_in, toml_for};
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::ResultReason;
use keystead_store::sqlite::SqliteStore;
use keystead_store::{Range, Store as _};
use keystead_testkit::KmsStandIn;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub const PASSPHRASE: &str = "a cluster passphrase of the crash tests";

pub struct Scene {
    pub kms: KmsStandIn,
    pub key: String,
    pub root: tempfile::TempDir,
    /// The onboard key manager.
    pub onboard: String,
    /// A client of `svm1`.
    pub client: Credentials,
    /// Keys of `svm1`, made before all else.
    pub keys: BTreeMap<String, Vec<u8>>,
}

/// A call, and the folder that it is made in.
pub struct Call<'c> {
    pub from: &'c str,
    pub method: &'c str,
    pub path: String,
    pub body: Json,
}

/// A folder `onboard` with `count` keys that the onboard key manager keeps.
pub async fn scene(count: usize) -> Scene {
    let (kms, key) = stand_in().await;
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("onboard");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("keystead.toml"), toml_for(&kms, &folder)).unwrap();
    let mut node = Run::start(&folder, None, &[]).await;
    assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await.unwrap().0, 201);
    let body = json!({ "onboard": { "passphrase": PASSPHRASE } });
    let (status, body) = node.call("POST", "/security/key-managers?return_timeout=30&return_records=true", Some(body)).await.unwrap();
    assert_eq!(status, 201, "{body}");
    let onboard = body["records"][0]["uuid"].as_str().unwrap().to_owned();
    let client = Credentials::issue_by(&node, "svm1").await;
    let mut kmip = Kmip::connect_new(&client.endpoint(node.ekmip)).await;
    let keys = (0..count)
        .map(|n| {
            let id = kmip.created(vec![Attribute::name(format!("base {n}"))]);
            let material = kmip.get(&id).material();
            (id, material)
        })
        .collect();
    node.kill();
    Scene { kms, key, root, onboard, client, keys }
}

impl Scene {
    /// A copy of a folder.
    pub fn folder(&self, from: &str, name: &str) -> PathBuf {
        let folder = self.root.path().join(name);
        copy(&self.root.path().join(from), &folder);
        folder
    }

    /// The body of an enable that moves keys.
    pub fn body(&self) -> Json {
        let mut body = enable_body("svm1", &self.kms, &self.key);
        body["keystead"] = json!({ "migrate_keys": true });
        body
    }

    /// Every step that a call passes, in a folder of its own: each for its first time and for its last.
    pub async fn steps_of(&self, call: &Call<'_>) -> Vec<String> {
        let folder = self.folder(call.from, &format!("{}-log", call.from));
        let log = folder.join("steps");
        let mut node = Run::start(&folder, Some(&stepnode()), &[("STEPNODE_LOG", log.to_str().unwrap())]).await;
        self.ready(&node).await;
        let answer = node.call(call.method, &format!("{}?return_timeout=60", call.path), Some(call.body.clone())).await.unwrap();
        assert!([200, 201].contains(&answer.0), "{answer:?}");
        node.kill();
        let text = std::fs::read_to_string(&log).unwrap();
        let (mut counts, mut steps) = (BTreeMap::<&str, usize>::new(), Vec::new());
        for step in text.lines() {
            let count = counts.entry(step).or_default();
            *count += 1;
            if *count == 1 {
                steps.push(step.to_owned());
            }
        }
        let last = counts.iter().filter(|(_, count)| **count > 1).map(|(step, count)| format!("{step}#{count}"));
        steps.extend(last);
        std::fs::remove_dir_all(&folder).unwrap();
        steps
    }

    /// Makes a call in a copy of its folder, dies at a step of it, starts again, and waits until all jobs have ended.
    pub async fn crash(&self, call: &Call<'_>, step: &str) -> (PathBuf, Run) {
        let folder = self.folder(call.from, &format!("{}-{}", call.from, step.replace('#', "-")));
        let mut node = Run::start(&folder, Some(&stepnode()), &[("STEPNODE_STOP_AT", step)]).await;
        self.ready(&node).await;
        let answer = node.call(call.method, &format!("{}?return_timeout=60", call.path), Some(call.body.clone())).await;
        assert!(answer.is_none(), "{step}: {answer:?}");
        let status = eventually(&format!("{step}: the process must have died"), async || node.child.try_wait().unwrap()).await;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{step}");
        let node = Run::start(&folder, None, &[]).await;
        let jobs = eventually(&format!("{step}: all jobs must end"), async || {
            let jobs = node.get("/cluster/jobs?fields=*").await["records"].as_array().unwrap().clone();
            jobs.iter().all(|job| ["success", "failure"].contains(&job["state"].as_str().unwrap())).then_some(jobs)
        })
        .await;
        // One that was cancelled to make the folder is no failure of this call.
        let failed: Vec<&Json> = jobs.iter().filter(|job| job["state"] == "failure" && !job["message"].as_str().unwrap().contains("cancelled")).collect();
        assert!(failed.is_empty(), "{step}: {failed:?}");
        (folder, node)
    }

    /// All these keys are there, byte for byte.
    pub fn check(&self, node: &Run, what: &str, keys: &BTreeMap<String, Vec<u8>>) {
        let mut kmip = Kmip::connect(&self.client.endpoint(node.ekmip));
        for (id, material) in keys {
            let answer = kmip.get(id);
            assert_eq!((answer.reason(), answer.material()), (None, material.clone()), "{what}: {}", answer.message());
        }
    }

    /// All these keys are refused.
    pub fn refused(&self, node: &Run, what: &str, keys: &BTreeMap<String, Vec<u8>>) {
        let mut kmip = Kmip::connect(&self.client.endpoint(node.ekmip));
        for id in keys.keys() {
            assert_eq!(kmip.get(id).reason(), Some(ResultReason::PermissionDenied), "{what}");
        }
    }

    /// A start has asked AWS for the KEK, where it can be had.
    pub async fn ready(&self, node: &Run) {
        if let Some(config) = node.get("/security/aws-kms").await["records"].get(0) {
            let state = format!("/security/aws-kms/{}?fields=state", config["uuid"].as_str().unwrap());
            eventually("AWS must have been asked", async || {
                let state = node.get(&state).await["state"].clone();
                (state["code"] == "0" || !state["message"].as_str().unwrap().contains("not asked for yet")).then_some(())
            })
            .await;
        }
    }
}

/// The versions of the KEK that wrap keys; that AWS wraps; that the onboard key manager wraps. Read from the file itself once nobody has it open.
pub async fn versions(folder: &Path) -> [BTreeSet<u32>; 3] {
    let keys = stored(folder, "/keys/").await.iter().map(|entry| u32::from_be_bytes(entry.value[1..5].try_into().unwrap())).collect();
    let number = |entry: &keystead_store::Entry| entry.key.rsplit('/').next().unwrap().parse().unwrap();
    [keys, stored(folder, "/keks/").await.iter().map(number).collect(), stored(folder, "/onboard-keys/").await.iter().map(number).collect()]
}

/// What stands under a prefix in the store of a node that does not run.
pub async fn stored(folder: &Path, prefix: &str) -> Vec<keystead_store::Entry> {
    let store = SqliteStore::open(&folder.join("data/store.db")).await.unwrap();
    let entries = store.range(Range::prefix(prefix, 9_999)).await.unwrap().entries;
    store.close().await;
    entries
}
