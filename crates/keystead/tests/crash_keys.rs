//! `kill -9` while keys are made, destroyed and wrapped again: every acknowledged key reads back byte for byte, every acknowledged Destroy stays, and no key is left under a retired KEK.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Credentials, Kmip};
use common::run::{Run, copy, pauses, stepnode};
use common::{enable_body, eventually, stand_in, toml_for};
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{Operation, ResultReason};
use keystead_store::sqlite::SqliteStore;
use keystead_store::{Range, Store as _};
use keystead_testkit::KmsStandIn;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What clients were told.
#[derive(Default)]
struct Told {
    /// Keys that were made, with their material.
    made: BTreeMap<String, Vec<u8>>,
    /// Keys whose end was acknowledged.
    destroyed: BTreeSet<String>,
    /// Keys whose end was asked for without an answer: either is right.
    unclear: BTreeSet<String>,
}

struct Scene {
    kms: KmsStandIn,
    root: tempfile::TempDir,
    config: String,
    client: Credentials,
    told: Told,
}

/// A folder with an SVM that has AWS KMS, a client and some keys.
async fn scene(keys: usize) -> Scene {
    let (kms, key) = stand_in().await;
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("base");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("keystead.toml"), toml_for(&kms, &folder)).unwrap();
    let mut node = Run::start(&folder, None, &[]).await;
    assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await.unwrap().0, 201);
    let (status, body) = node.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", Some(enable_body("svm1", &kms, &key))).await.unwrap();
    assert_eq!(status, 201, "{body}");
    let config = format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap());
    let client = Credentials::issue_by(&node, "svm1").await;
    let mut told = Told::default();
    let mut kmip = Kmip::connect(&client.endpoint(node.ekmip));
    for n in 0..keys {
        let id = kmip.created(vec![Attribute::name(format!("base {n}"))]);
        told.made.insert(id.clone(), kmip.get(&id).material());
    }
    node.kill();
    Scene { kms, root, config, client, told }
}

impl Scene {
    fn folder(&self, name: &str) -> std::path::PathBuf {
        let folder = self.root.path().join(name);
        copy(&self.root.path().join("base"), &folder);
        folder
    }

    /// After a restart: the KEK unwraps, all jobs end, and what was told is true. Answers how many told things are not.
    async fn check(&self, what: &str, node: &Run, told: &Told) -> usize {
        eventually(&format!("{what}: the KEK must unwrap"), async || {
            (node.get(&format!("{}?fields=state", self.config)).await["state"]["code"] == "0").then_some(())
        })
        .await;
        let jobs = eventually(&format!("{what}: all jobs must end"), async || {
            let jobs = node.get("/cluster/jobs?fields=*").await["records"].as_array().unwrap().clone();
            jobs.iter().all(|job| ["success", "failure"].contains(&job["state"].as_str().unwrap())).then_some(jobs)
        })
        .await;
        assert!(jobs.iter().all(|job| job["state"] == "success"), "{what}: {jobs:?}");
        let mut kmip = Kmip::connect(&self.client.endpoint(node.ekmip));
        let mut wrong = 0;
        for (id, material) in &told.made {
            let answer = kmip.get(id);
            let right = match answer.reason() {
                None => !told.destroyed.contains(id) && answer.material() == *material,
                Some(ResultReason::ItemNotFound) => told.destroyed.contains(id) || told.unclear.contains(id),
                Some(_) => false,
            };
            wrong += usize::from(!right);
        }
        wrong
    }
}

/// Which versions of the KEK wrap keys, and which are stored, read from the file itself once nobody has it open.
async fn versions(folder: &Path) -> (BTreeSet<u32>, usize) {
    let store = SqliteStore::open(&folder.join("data/store.db")).await.unwrap();
    let keks = store.range(Range::prefix("/keks/", 9)).await.unwrap().entries.len();
    let mut versions = BTreeSet::new();
    let mut range = Range::prefix("/keys/", 1_000);
    loop {
        let page = store.range(range.clone()).await.unwrap();
        versions.extend(page.entries.iter().map(|entry| u32::from_be_bytes(entry.value[1..5].try_into().unwrap())));
        range.after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            break;
        }
    }
    store.close().await;
    (versions, keks)
}

async fn died(what: &str, node: &mut Run) {
    let status = eventually(&format!("{what}: the process must have died"), async || node.child.try_wait().unwrap()).await;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_step_of_create_and_destroy() {
    let scene = scene(3).await;
    let victim = scene.told.made.keys().next().unwrap().clone();
    for step in ["keys.commit.before", "keys.commit.after"] {
        for operation in ["create", "destroy"] {
            let what = format!("{operation} at {step}");
            let folder = scene.folder(&what.replace(' ', "-"));
            let mut node = Run::start(&folder, Some(&stepnode()), &[("STEPNODE_STOP_AT", step)]).await;
            eventually("the KEK must unwrap", async || (node.get(&format!("{}?fields=state", scene.config)).await["state"]["code"] == "0").then_some(())).await;
            let mut kmip = Kmip::connect(&scene.client.endpoint(node.ekmip));
            let payload = match operation {
                "create" => {
                    let attributes = common::kmip::template(&[
                        Attribute::new(keystead_kmip::Tag::CryptographicAlgorithm, keystead_kmip::ttlv::Value::Enumeration(3)),
                        Attribute::new(keystead_kmip::Tag::CryptographicUsageMask, keystead_kmip::ttlv::Value::Integer(12)),
                        Attribute::name("interrupted"),
                    ]);
                    let kind = keystead_kmip::ttlv::Node::enumeration(keystead_kmip::Tag::ObjectType, keystead_kmip::enumeration::ObjectType::SymmetricKey);
                    (Operation::Create, vec![kind, attributes])
                }
                _ => (Operation::Destroy, vec![common::kmip::uid(&victim)]),
            };
            assert!(kmip.try_call(payload.0, payload.1).is_err(), "{what}: nothing may be acknowledged");
            died(&what, &mut node).await;
            let mut node = Run::start(&folder, None, &[]).await;
            let mut told = Told { made: scene.told.made.clone(), ..Told::default() };
            if operation == "destroy" {
                told.unclear.insert(victim.clone());
            }
            assert_eq!(scene.check(&what, &node, &told).await, 0, "{what}");
            // All or nothing: after the commit the whole effect stands, before it nothing does.
            let mut kmip = Kmip::connect(&scene.client.endpoint(node.ekmip));
            let done = match operation {
                "create" => kmip.locate(&[Attribute::name("interrupted")]).len() == 1,
                _ => kmip.get(&victim).reason() == Some(ResultReason::ItemNotFound),
            };
            assert_eq!(done, step.ends_with("after"), "{what}");
            // The name is free exactly where the key is not there.
            let again = kmip.create(vec![Attribute::name(if operation == "create" { "interrupted" } else { "base 0" })]);
            if operation == "create" {
                assert_eq!(again.reason().is_none(), !done, "{what}: {}", again.message());
            }
            node.kill();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_step_of_rekey_internal() {
    // More than two batches.
    let scene = scene(250).await;
    let steps = [
        "rekey_internal.unwrap.before",
        "rekey_internal.unwrap.after",
        "rekey_internal.encrypt.before",
        "rekey_internal.encrypt.after",
        "rekey_internal.decrypt.before",
        "rekey_internal.decrypt.after",
        "rekey_internal.turn.before",
        "rekey_internal.turn.after",
        "rekey_internal.batch.before",
        "rekey_internal.batch.after",
        "rekey_internal.batch.before#2",
        "rekey_internal.batch.after#2",
        "rekey_internal.batch.before#3",
        "rekey_internal.batch.after#3",
        "rekey_internal.commit.before",
        "rekey_internal.commit.after",
    ];
    for step in steps {
        let folder = scene.folder(&step.replace('#', "-"));
        let mut node = Run::start(&folder, Some(&stepnode()), &[("STEPNODE_STOP_AT", step)]).await;
        eventually("the KEK must unwrap", async || (node.get(&format!("{}?fields=state", scene.config)).await["state"]["code"] == "0").then_some(())).await;
        let answer = node.call("POST", &format!("{}/rekey-internal?return_timeout=60", scene.config), None).await;
        assert!(answer.is_none(), "{step}: {answer:?}");
        died(step, &mut node).await;
        let mut node = Run::start(&folder, None, &[]).await;
        assert_eq!(scene.check(step, &node, &scene.told).await, 0, "{step}");
        let job = node.get("/cluster/jobs?fields=*").await["records"]
            .as_array()
            .unwrap()
            .iter()
            .find(|job| job["description"].as_str().unwrap().contains("rekey-internal"))
            .cloned();
        assert_eq!(job.as_ref().map(|job| &job["state"]), Some(&Json::from("success")), "{step}: once accepted it is carried through: {job:?}");
        node.kill();
        let (versions, keks) = versions(&folder).await;
        assert_eq!((versions.len(), keks), (1, 1), "{step}: one version, and only that one is stored: {versions:?}");
        assert!(versions.iter().all(|version| *version > 1), "{step}: no key is under the retired KEK");
    }
    println!("{} crashes of rekey-internal, each at a named step", steps.len());
    drop(scene.kms);
}

/// Makes and destroys keys until the node dies.
fn load(endpoint: &keystead_conformance::client::Endpoint, old: Vec<(String, Vec<u8>)>) -> Told {
    let mut told = Told::default();
    let mut kmip = Kmip::connect(endpoint);
    let mut call = |operation, payload| kmip.try_call(operation, payload);
    for n in 0.. {
        let attributes = common::kmip::template(&[
            Attribute::new(keystead_kmip::Tag::CryptographicAlgorithm, keystead_kmip::ttlv::Value::Enumeration(3)),
            Attribute::new(keystead_kmip::Tag::CryptographicUsageMask, keystead_kmip::ttlv::Value::Integer(12)),
        ]);
        let kind = keystead_kmip::ttlv::Node::enumeration(keystead_kmip::Tag::ObjectType, keystead_kmip::enumeration::ObjectType::SymmetricKey);
        // The KEK may not have arrived yet: then the answer is a refusal, and nothing was promised.
        let Ok(answer) = call(Operation::Create, vec![kind, attributes]) else { break };
        if answer.reason().is_some() {
            continue;
        }
        let id = answer.id();
        let Ok(answer) = call(Operation::Get, vec![common::kmip::uid(&id)]) else { break };
        told.made.insert(id, answer.material());
        if let Some((victim, _)) = old.get(n).filter(|_| n % 3 == 0) {
            match call(Operation::Destroy, vec![common::kmip::uid(victim)]) {
                Ok(answer) if answer.reason().is_none() => drop(told.destroyed.insert(victim.clone())),
                Ok(_) => {}
                Err(_) => {
                    told.unclear.insert(victim.clone());
                    break;
                }
            }
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_crashes_under_load_lose_no_key() {
    let scene = scene(60).await;
    let folder = scene.folder("load");
    let rounds = if std::env::var_os("SOAK").is_some() { 500 } else { 50 };
    let mut all = Told { made: scene.told.made.clone(), ..Told::default() };
    let mut rekeys = 0;
    for (number, pause) in pauses(rounds).into_iter().enumerate() {
        let node = Run::start(&folder, None, &[]).await;
        eventually("the KEK must unwrap", async || (node.get(&format!("{}?fields=state", scene.config)).await["state"]["code"] == "0").then_some(())).await;
        let before: BTreeSet<String> = all.made.keys().cloned().collect();
        let pid = node.child.id();
        let endpoint = scene.client.endpoint(node.ekmip);
        let live: Vec<(String, Vec<u8>)> = all
            .made
            .iter()
            .filter(|(id, _)| !all.destroyed.contains(*id) && !all.unclear.contains(*id))
            .map(|(id, material)| (id.clone(), material.clone()))
            .collect();
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let endpoint = endpoint.clone();
                let old = live.iter().skip(worker).step_by(3).cloned().collect();
                tokio::task::spawn_blocking(move || load(&endpoint, old))
            })
            .collect();
        let rekey = async { node.call("POST", &format!("{}/rekey-internal?return_timeout=60", scene.config), None).await };
        let killer = async {
            tokio::time::sleep(pause).await;
            assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
        };
        let (rekeyed, ()) = tokio::join!(rekey, killer);
        rekeys += usize::from(matches!(rekeyed, Some((201, _))));
        for worker in workers {
            let told = tokio::time::timeout(Duration::from_secs(60), worker).await.unwrap().unwrap();
            all.made.extend(told.made);
            all.destroyed.extend(told.destroyed);
            all.unclear.extend(told.unclear);
        }
        drop(node);
        let mut node = Run::start(&folder, None, &[]).await;
        // What this round has touched, and some of what was there; at the end, all of it.
        let last = number + 1 == rounds;
        let looked_at = all.made.iter().enumerate().filter(|(n, (id, _))| last || !before.contains(*id) || n % 20 == number % 20 || all.unclear.contains(*id));
        let told = Told {
            made: looked_at.map(|(_, (id, material))| (id.clone(), material.clone())).collect(),
            destroyed: all.destroyed.clone(),
            unclear: all.unclear.clone(),
        };
        assert_eq!(scene.check(&format!("round {number}"), &node, &told).await, 0, "round {number}");
        node.kill();
        drop(node);
        let (versions, keks) = versions(&folder).await;
        assert!(versions.len() <= 1 && keks == 1, "round {number}: {versions:?}, {keks} KEKs");
    }
    println!("{rounds} crashes; {} keys were made, {} destroyed, {rekeys} rekeys ended before the crash; none is lost", all.made.len(), all.destroyed.len());
    assert!(all.made.len() > rounds && !all.destroyed.is_empty(), "there was load");
}
