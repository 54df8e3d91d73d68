//! `kill -9` at every named step of moving keys between the onboard key manager and AWS KMS: once accepted, the move is carried through, no key is lost, and nothing of the source is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::kmip::{Credentials, Kmip};
use common::run::{Run, copy, stepnode};
use common::{enable_body, eventually, stand_in, toml_for};
use keystead_kmip::attribute::Attribute;
use keystead_store::sqlite::SqliteStore;
use keystead_store::{Range, Store as _};
use keystead_testkit::KmsStandIn;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const PASSPHRASE: &str = "a cluster passphrase of the crash tests";

struct Scene {
    kms: KmsStandIn,
    key: String,
    root: tempfile::TempDir,
    onboard: String,
    client: Credentials,
    keys: BTreeMap<String, Vec<u8>>,
}

/// A folder `onboard` with keys that the onboard key manager keeps: more than two batches.
async fn scene() -> Scene {
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
    let keys = (0..250)
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
    fn folder(&self, from: &str, name: &str) -> PathBuf {
        let folder = self.root.path().join(name);
        copy(&self.root.path().join(from), &folder);
        folder
    }

    fn body(&self) -> Json {
        let mut body = enable_body("svm1", &self.kms, &self.key);
        body["keystead"] = json!({ "migrate_keys": true });
        body
    }

    /// Dies at each step of a call, starts again, and looks.
    async fn crash_at_each(&self, from: &str, path: &str, body: Json, steps: &[&str], to_aws: bool) {
        for step in steps {
            let folder = self.folder(from, &format!("{from}-{}", step.replace('#', "-")));
            let mut node = Run::start(&folder, Some(&stepnode()), &[("STEPNODE_STOP_AT", step)]).await;
            if let Some(config) = node.get("/security/aws-kms").await["records"].get(0) {
                let state = format!("/security/aws-kms/{}?fields=state", config["uuid"].as_str().unwrap());
                eventually("the KEK must unwrap", async || (node.get(&state).await["state"]["code"] == "0").then_some(())).await;
            }
            let answer = node.call("POST", &format!("{path}?return_timeout=60"), Some(body.clone())).await;
            assert!(answer.is_none(), "{step}: {answer:?}");
            let status = eventually(&format!("{step}: the process must have died"), async || node.child.try_wait().unwrap()).await;
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{step}");

            let mut node = Run::start(&folder, None, &[]).await;
            let jobs = eventually(&format!("{step}: all jobs must end"), async || {
                let jobs = node.get("/cluster/jobs?fields=*").await["records"].as_array().unwrap().clone();
                jobs.iter().all(|job| ["success", "failure"].contains(&job["state"].as_str().unwrap())).then_some(jobs)
            })
            .await;
            assert!(jobs.iter().all(|job| job["state"] == "success"), "{step}: {jobs:?}");
            let mut kmip = Kmip::connect(&self.client.endpoint(node.ekmip));
            for (id, material) in &self.keys {
                assert_eq!(kmip.get(id).material(), *material, "{step}");
            }
            // A new key goes where the others are.
            kmip.created(vec![]);
            node.kill();
            drop(node);
            let (keys, aws, onboard) = versions(&folder).await;
            let (holds, empty) = if to_aws { (aws, onboard) } else { (onboard, aws) };
            assert_eq!((&keys, holds.len(), empty.len()), (&holds, 1, 0), "{step}");
            std::fs::remove_dir_all(&folder).unwrap();
        }
        println!("{} crashes from {from}, each at a named step", steps.len());
    }
}

/// The versions of the KEK that wrap keys; that AWS wraps; that the onboard key manager wraps. Read from the file itself once nobody has it open.
async fn versions(folder: &Path) -> (BTreeSet<u32>, BTreeSet<u32>, BTreeSet<u32>) {
    let store = SqliteStore::open(&folder.join("data/store.db")).await.unwrap();
    let of = async |prefix: &str| store.range(Range::prefix(prefix, 9_999)).await.unwrap().entries;
    let keys = of("/keys/").await.iter().map(|entry| u32::from_be_bytes(entry.value[1..5].try_into().unwrap())).collect();
    let number = |entry: &keystead_store::Entry| entry.key.rsplit('/').next().unwrap().parse().unwrap();
    let (aws, onboard) = (of("/keks/").await.iter().map(number).collect(), of("/onboard-keys/").await.iter().map(number).collect());
    store.close().await;
    (keys, aws, onboard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_step_of_a_move() {
    let scene = scene().await;
    let steps = [
        "accept.after",
        "enable.describe_key.before",
        "enable.describe_key.after",
        "enable.encrypt.before",
        "enable.encrypt.after",
        "enable.decrypt.before",
        "enable.decrypt.after",
        "enable.turn.before",
        "enable.turn.after",
        "enable.batch.before",
        "enable.batch.after",
        "enable.batch.before#3",
        "enable.batch.after#3",
        "enable.commit.before",
        "enable.commit.after",
    ];
    scene.crash_at_each("onboard", "/security/aws-kms", scene.body(), &steps, true).await;

    // From AWS to the onboard key manager.
    let folder = scene.folder("onboard", "aws");
    let mut node = Run::start(&folder, None, &[]).await;
    let (status, body) = node.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", Some(scene.body())).await.unwrap();
    assert_eq!(status, 201, "{body}");
    let config = body["records"][0]["uuid"].as_str().unwrap().to_owned();
    node.kill();
    let steps = [
        "accept.after",
        "migrate.unwrap.before",
        "migrate.unwrap.after",
        "migrate.turn.before",
        "migrate.turn.after",
        "migrate.batch.before",
        "migrate.batch.after",
        "migrate.batch.before#3",
        "migrate.batch.after#3",
        "migrate.commit.before",
        "migrate.commit.after",
    ];
    let path = format!("/security/key-managers/{config}/migrate");
    scene.crash_at_each("aws", &path, json!({ "uuid": scene.onboard }), &steps, false).await;

    // And to a configuration that is there already.
    let folder = scene.folder("aws", "back");
    let mut node = Run::start(&folder, None, &[]).await;
    let state = format!("/security/aws-kms/{config}?fields=state");
    eventually("the KEK must unwrap", async || (node.get(&state).await["state"]["code"] == "0").then_some(())).await;
    let (status, body) = node.call("POST", &format!("{path}?return_timeout=60"), Some(json!({ "uuid": scene.onboard }))).await.unwrap();
    assert_eq!(status, 201, "{body}");
    node.kill();
    let steps = [
        "accept.after",
        "migrate.describe_key.before",
        "migrate.describe_key.after",
        "migrate.encrypt.before",
        "migrate.encrypt.after",
        "migrate.decrypt.before",
        "migrate.decrypt.after",
        "migrate.turn.before",
        "migrate.turn.after",
        "migrate.batch.before#2",
        "migrate.batch.after#2",
        "migrate.commit.before",
        "migrate.commit.after",
    ];
    let path = format!("/security/key-managers/{}/migrate", scene.onboard);
    scene.crash_at_each("back", &path, json!({ "uuid": config }), &steps, true).await;
}

/// The first key of an SVM makes its place at the onboard key manager: all of that or nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_step_of_the_first_key() {
    let scene = scene().await;
    for step in ["keys.adopt.before", "keys.adopt.after", "keys.commit.before", "keys.commit.after"] {
        let folder = scene.folder("onboard", &step.replace('.', "-"));
        let mut node = Run::start(&folder, Some(&stepnode()), &[("STEPNODE_STOP_AT", step)]).await;
        assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm2" }))).await.unwrap().0, 201);
        let client = Credentials::issue_by(&node, "svm2").await;
        let mut kmip = Kmip::connect_new(&client.endpoint(node.ekmip)).await;
        let kind = keystead_kmip::ttlv::Node::enumeration(keystead_kmip::Tag::ObjectType, keystead_kmip::enumeration::ObjectType::SymmetricKey);
        let attributes = common::kmip::template(&[
            Attribute::new(keystead_kmip::Tag::CryptographicAlgorithm, keystead_kmip::ttlv::Value::Enumeration(3)),
            Attribute::new(keystead_kmip::Tag::CryptographicUsageMask, keystead_kmip::ttlv::Value::Integer(12)),
        ]);
        assert!(kmip.try_call(keystead_kmip::enumeration::Operation::Create, vec![kind, attributes]).is_err(), "{step}: nothing may be acknowledged");
        eventually(&format!("{step}: the process must have died"), async || node.child.try_wait().unwrap()).await;
        let mut node = Run::start(&folder, None, &[]).await;
        let mut kmip = Kmip::connect(&client.endpoint(node.ekmip));
        assert_eq!(kmip.locate(&[]).len(), usize::from(step == "keys.commit.after"), "{step}");
        let id = kmip.created(vec![]);
        assert!(kmip.get(&id).reason().is_none(), "{step}");
        for (id, material) in scene.keys.iter().take(3) {
            assert_eq!(Kmip::connect(&scene.client.endpoint(node.ekmip)).get(id).material(), *material, "{step}");
        }
        node.kill();
    }
}
