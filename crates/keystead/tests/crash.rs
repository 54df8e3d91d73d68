//! `kill -9` at every named step and at random moments: nothing acknowledged is lost, nothing half made is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::run::{Api, Run, copy, pauses, stepnode};
use common::{enable_body, eventually, stand_in, toml_for};
use keystead_testkit::{KmsStandIn, NewKey};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SECOND_KEY_ID: &str = "AKIASECONDSECONDSEC";
const SECOND_SECRET: &str = "the second secret";

/// Whether a configuration, or that there is none, shows the whole effect.
type Effect = Box<dyn Fn(Option<&Value>) -> bool + Send + Sync>;

/// An operation, from the state that it starts from.
struct Operation {
    name: &'static str,
    /// Whether `svm1` has a configuration before.
    configured: bool,
    method: &'static str,
    path: fn(&str) -> String,
    body: Value,
    /// Whether the configuration shows the whole effect; `None`: there is no configuration.
    done: Effect,
    /// The steps that must be there, in this order.
    steps: &'static [&'static str],
}

fn operations(kms: &KmsStandIn, key: &str, other: &str) -> Vec<Operation> {
    let at = |uuid: &str| format!("/security/aws-kms/{uuid}");
    let other = other.to_owned();
    vec![
        Operation {
            name: "enable",
            configured: false,
            method: "POST",
            path: |_| "/security/aws-kms".into(),
            body: enable_body("svm1", kms, key),
            done: Box::new(|config| config.is_some()),
            steps: &[
                "accept.before",
                "accept.after",
                "enable.describe_key.before",
                "enable.describe_key.after",
                "enable.encrypt.before",
                "enable.encrypt.after",
                "enable.decrypt.before",
                "enable.decrypt.after",
                "enable.commit.before",
                "enable.commit.after",
            ],
        },
        Operation {
            name: "PATCH of credentials",
            configured: true,
            method: "PATCH",
            path: at,
            body: json!({ "access_key_id": SECOND_KEY_ID, "secret_access_key": SECOND_SECRET }),
            done: Box::new(|config| config.unwrap()["access_key_id"] == SECOND_KEY_ID),
            steps: &[
                "accept.before",
                "accept.after",
                "modify.unwrap.before",
                "modify.unwrap.after",
                "modify.describe_key.before",
                "modify.describe_key.after",
                "modify.commit.before",
                "modify.commit.after",
            ],
        },
        Operation {
            name: "PATCH of the context",
            configured: true,
            method: "PATCH",
            path: at,
            body: json!({ "encryption_context": "tenant=2" }),
            done: Box::new(|config| config.unwrap()["encryption_context"] == "tenant=2"),
            steps: &[
                "accept.before",
                "accept.after",
                "modify.unwrap.before",
                "modify.unwrap.after",
                "modify.encrypt.before",
                "modify.encrypt.after",
                "modify.decrypt.before",
                "modify.decrypt.after",
                "modify.commit.before",
                "modify.commit.after",
            ],
        },
        Operation {
            name: "rekey-external",
            configured: true,
            method: "POST",
            path: |uuid| format!("/security/aws-kms/{uuid}/rekey-external"),
            body: json!({ "key_id": &other }),
            done: Box::new(move |config| config.unwrap()["key_id"] == other.as_str()),
            steps: &[
                "accept.before",
                "accept.after",
                "rekey_external.unwrap.before",
                "rekey_external.unwrap.after",
                "rekey_external.encrypt.before",
                "rekey_external.encrypt.after",
                "rekey_external.decrypt.before",
                "rekey_external.decrypt.after",
                "rekey_external.commit.before",
                "rekey_external.commit.after",
            ],
        },
        Operation {
            name: "restore",
            configured: true,
            method: "POST",
            path: |uuid| format!("/security/aws-kms/{uuid}/restore"),
            body: json!({}),
            done: Box::new(|config| config.is_some()),
            steps: &["accept.before", "accept.after", "restore.unwrap.before", "restore.unwrap.after", "restore.commit.before", "restore.commit.after"],
        },
        Operation {
            name: "DELETE",
            configured: true,
            method: "DELETE",
            path: at,
            body: json!({}),
            done: Box::new(|config| config.is_none()),
            steps: &["accept.before", "accept.after", "delete.disable.before", "delete.disable.after", "delete.commit.before", "delete.commit.after"],
        },
    ]
}

/// Folders to start from: one with an SVM, one with its configuration too. Answers the configuration's uuid.
async fn prepare(root: &Path, kms: &KmsStandIn, key: &str) -> String {
    let base = root.join("configured");
    std::fs::create_dir_all(&base).unwrap();
    std::fs::write(base.join("keystead.toml"), toml_for(kms, &base)).unwrap();
    let mut node = Run::start(&base, None, &[]).await;
    assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await.unwrap().0, 201);
    node.kill();
    copy(&base, &root.join("plain"));
    let mut node = Run::start(&base, None, &[]).await;
    let (status, body) = node.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", Some(enable_body("svm1", kms, key))).await.unwrap();
    assert_eq!(status, 201, "{body}");
    node.kill();
    body["records"][0]["uuid"].as_str().unwrap().to_owned()
}

/// After a restart: all jobs end, and what they say is what there is.
async fn settled(node: &Api) -> (Option<Value>, Vec<Value>) {
    let jobs = eventually("all jobs must end", async || {
        let jobs = node.get("/cluster/jobs?fields=*").await["records"].as_array().unwrap().clone();
        jobs.iter().all(|job| ["success", "failure"].contains(&job["state"].as_str().unwrap())).then_some(jobs)
    })
    .await;
    let configs = node.get("/security/aws-kms?fields=*").await;
    (configs["records"].get(0).cloned(), jobs)
}

/// A configuration that is there works; one that is not has left nothing behind.
async fn whole(what: &str, node: &Api, config: Option<&Value>, kms: &KmsStandIn, key: &str) {
    match config {
        Some(config) => {
            let path = format!("/security/aws-kms/{}", config["uuid"].as_str().unwrap());
            eventually(&format!("{what}: the KEK must unwrap"), async || {
                (node.get(&format!("{path}?fields=state")).await["state"]["code"] == "0").then_some(())
            })
            .await;
            let answer = node.call("POST", "/security/aws-kms", Some(enable_body("svm1", kms, key))).await.unwrap();
            assert_eq!(answer.1["error"]["code"], "65537910", "{what}");
            assert_eq!(node.call("POST", &format!("{path}/restore?return_timeout=60"), None).await.unwrap().0, 201, "{what}");
        }
        None => {
            let answer = node.call("POST", "/security/aws-kms?return_timeout=60", Some(enable_body("svm1", kms, key))).await.unwrap();
            assert_eq!(answer.0, 201, "{what}: the SVM must be free: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_step_leaves_all_or_nothing() {
    let (kms, key) = stand_in().await;
    kms.add_access_key(SECOND_KEY_ID, SECOND_SECRET);
    let other = kms.create_key(NewKey::default()).unwrap().key_id;
    let root = tempfile::tempdir().unwrap();
    let uuid = prepare(root.path(), &kms, &key).await;
    let mut cases = 0;
    for operation in operations(&kms, &key, &other) {
        let from = root.path().join(if operation.configured { "configured" } else { "plain" });
        for step in operation.steps {
            cases += 1;
            let what = format!("{} at {step}", operation.name);
            let folder = root.path().join(format!("case{cases}"));
            copy(&from, &folder);
            let log = folder.join("steps");
            let mut node = Run::start(&folder, Some(&stepnode()), &[("STEPNODE_STOP_AT", step), ("STEPNODE_LOG", log.to_str().unwrap())]).await;
            let path = format!("{}?return_timeout=60", (operation.path)(&uuid));
            let answer = node.call(operation.method, &path, Some(operation.body.clone())).await;
            assert!(answer.is_none(), "{what}: the process should have died, but has answered {answer:?}");
            let died = eventually("the process must have died", async || node.child.try_wait().unwrap()).await;
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&died), Some(9), "{what}");
            let passed: Vec<String> = std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
            let at = operation.steps.iter().position(|other| other == step).unwrap();
            assert_eq!(passed, operation.steps[..=at], "{what}: the named steps, all of them and in this order");

            let mut node = Run::start(&folder, None, &[]).await;
            let (config, jobs) = settled(&node).await;
            let done = (operation.done)(config.as_ref());
            let job = jobs.iter().find(|job| {
                job["description"].as_str().unwrap().starts_with(operation.method)
                    && job["description"].as_str().unwrap().contains("aws-kms")
                    && (operation.configured != (job["description"] == "POST /api/security/aws-kms"))
            });
            match job {
                Some(job) => assert_eq!(job["state"] == "success", done, "{what}: the job says {job}"),
                None => assert!(*step == "accept.before" && (operation.name == "restore" || !done), "{what}: no job, and yet the effect is there"),
            }
            // Once it is accepted it is carried through, whatever happens; before, nothing has happened.
            assert!(*step == "accept.before" || done, "{what}: accepted, but not carried through: {jobs:?}");
            whole(&what, &node, config.as_ref(), &kms, &key).await;
            node.kill();
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
    println!("{cases} crashes, each at a named step");
}

/// An enable that AWS refuses, and a crash at each step of its failing: no configuration, no reservation, and a job that says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_an_enable_fails_leaves_nothing() {
    let (kms, key) = stand_in().await;
    let root = tempfile::tempdir().unwrap();
    prepare(root.path(), &kms, &key).await;
    let mut body = enable_body("svm1", &kms, &key);
    body["secret_access_key"] = json!("not the secret");
    for step in ["enable.describe_key.after", "enable.fail.before", "enable.fail.after"] {
        let folder = root.path().join(step);
        copy(&root.path().join("plain"), &folder);
        let mut node = Run::start(&folder, Some(&stepnode()), &[("STEPNODE_STOP_AT", step)]).await;
        let answer = node.call("POST", "/security/aws-kms?return_timeout=60", Some(body.clone())).await;
        // Once the failure stands in the store, the caller may get it before the process dies.
        let told = answer.as_ref().is_some_and(|(status, body)| *status == 400 && body["error"]["code"] == "65537900");
        assert!(answer.is_none() || (told && step == "enable.fail.after"), "{step}: the process should have died, but has answered {answer:?}");
        eventually("the process must have died", async || node.child.try_wait().unwrap()).await;
        let mut node = Run::start(&folder, None, &[]).await;
        let (config, jobs) = settled(&node).await;
        assert_eq!(config, None, "{step}");
        let job = jobs.iter().find(|job| job["description"] == "POST /api/security/aws-kms").unwrap();
        assert_eq!((&job["state"], &job["code"]), (&json!("failure"), &json!(65537900)), "{step}: {job}");
        whole(step, &node, None, &kms, &key).await;
        node.kill();
    }
}

/// What callers were told, under load.
#[derive(Default, Clone)]
struct Told {
    svms: Vec<String>,
    /// By SVM: the members that were acknowledged last, or `None` after a DELETE.
    configs: BTreeMap<String, Option<Value>>,
    /// SVMs of calls that nobody answered: what they meant to change may have happened or not.
    unclear: BTreeSet<String>,
}

/// Makes SVMs and enables AWS KMS for them, changes, moves and deletes configurations, until the node dies. Answers what was acknowledged.
async fn load(node: &Api, kms: &KmsStandIn, (key, other): (&str, &str), round: usize, worker: usize) -> Told {
    let mut told = Told::default();
    for n in 0.. {
        let svm = format!("r{round}w{worker}n{n}");
        match node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": svm }))).await {
            Some((201, _)) => told.svms.push(svm.clone()),
            Some(answer) => panic!("{answer:?}"),
            None => break,
        }
        let Some(enabled) = node.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", Some(enable_body(&svm, kms, key))).await else {
            break;
        };
        assert_eq!(enabled.0, 201, "{enabled:?}");
        let path = format!("/security/aws-kms/{}", enabled.1["records"][0]["uuid"].as_str().unwrap());
        let mut known = json!({ "polling_period": 60, "key_id": key });
        told.configs.insert(svm.clone(), Some(known.clone()));
        let period = 1 + (round + n) % 1_440;
        let calls = [
            ("PATCH", path.clone(), json!({ "polling_period": period }), json!({ "polling_period": period })),
            ("PATCH", path.clone(), json!({ "access_key_id": SECOND_KEY_ID, "secret_access_key": SECOND_SECRET }), json!({ "access_key_id": SECOND_KEY_ID })),
            ("POST", format!("{path}/rekey-external"), json!({ "key_id": other }), json!({ "key_id": other })),
            ("DELETE", path.clone(), json!({}), Value::Null),
        ];
        // Each SVM gets as far as its number says, so that all states are there when the node dies.
        for (method, path, body, effect) in calls.into_iter().take((round + worker + n) % 5) {
            told.unclear.insert(svm.clone());
            let Some(answer) = node.call(method, &format!("{path}?return_timeout=60"), Some(body)).await else { return told };
            assert!([200, 201].contains(&answer.0), "{method}: {answer:?}");
            told.unclear.remove(&svm);
            let last = match effect.as_object() {
                None => None,
                Some(members) => {
                    members.iter().for_each(|(name, value)| known[name] = value.clone());
                    Some(known.clone())
                }
            };
            told.configs.insert(svm.clone(), last);
        }
    }
    told
}

/// One round: load, `kill -9` after a random pause, restart. Answers how many acknowledged things are gone.
async fn round(folder: &Path, kms: &KmsStandIn, keys: (&str, &str), number: usize, pause: Duration, all: &mut Told) -> usize {
    let node = Run::start(folder, None, &[]).await;
    let pid = node.child.id();
    let killer = async {
        tokio::time::sleep(pause).await;
        assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    };
    let ((), one, two, three) = tokio::join!(killer, load(&node, kms, keys, number, 1), load(&node, kms, keys, number, 2), load(&node, kms, keys, number, 3));
    drop(node);
    for told in [one, two, three] {
        all.svms.extend(told.svms);
        all.configs.extend(told.configs);
        all.unclear.extend(told.unclear);
    }

    let node = Run::start(folder, None, &[]).await;
    let (_, jobs) = settled(&node).await;
    let svms = names(&node.get("/svm/svms?max_records=10000").await, |record| &record["name"]);
    let list = node.get("/security/aws-kms?max_records=10000&fields=*").await;
    let configs: BTreeMap<&str, &Value> = list["records"].as_array().unwrap().iter().map(|record| (record["svm"]["name"].as_str().unwrap(), record)).collect();
    // No job that has ended well without its effect, none that has failed: AWS was there all the time.
    for job in jobs.iter().filter(|job| job["description"] == "POST /api/security/aws-kms") {
        assert_eq!(job["state"], "success", "{job}");
    }
    let wrong = |(svm, wanted): (&String, &Option<Value>)| match (wanted, configs.get(svm.as_str())) {
        _ if all.unclear.contains(svm) => None,
        (None, None) => None,
        (Some(wanted), Some(config)) if wanted.as_object().unwrap().iter().all(|(name, value)| config[name] == *value) => None,
        (wanted, there) => Some(format!("{svm}: {wanted:?} was acknowledged, and there is {there:?}")),
    };
    let wrong: Vec<String> = all.configs.iter().filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    all.svms.iter().filter(|name| !svms.contains(name)).count()
}

fn names(collection: &Value, name: impl Fn(&Value) -> &Value) -> Vec<String> {
    collection["records"].as_array().unwrap().iter().map(|record| name(record).as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_crashes_under_load_lose_nothing_that_was_acknowledged() {
    let (kms, key) = stand_in().await;
    kms.add_access_key(SECOND_KEY_ID, SECOND_SECRET);
    let other = kms.create_key(NewKey::default()).unwrap().key_id;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keystead.toml"), toml_for(&kms, folder.path())).unwrap();
    let rounds = if std::env::var_os("SOAK").is_some() { 500 } else { 50 };
    let mut all = Told::default();
    for (number, pause) in pauses(rounds).into_iter().enumerate() {
        let lost = round(folder.path(), &kms, (&key, &other), number, 2 * pause, &mut all).await;
        assert_eq!(lost, 0, "round {number}");
    }
    let deleted = all.configs.values().filter(|config| config.is_none()).count();
    println!(
        "{rounds} crashes; {} SVMs and {} configurations were acknowledged, of which {deleted} were deleted; {} were in the middle of a change; none is lost, none is another than the last that was acknowledged",
        all.svms.len(),
        all.configs.len(),
        all.unclear.len()
    );
    assert!(all.svms.len() > rounds && !all.configs.is_empty(), "there was load");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_early_acknowledgement_is_caught() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keystead.toml"), "").unwrap();
    drop(Run::start(folder.path(), None, &[]).await);
    let mut lost = 0;
    for number in 0..20 {
        let node = Run::start(folder.path(), Some(&stepnode()), &[("STEPNODE_PLANT", "early-ack")]).await;
        let svm = format!("early{number}");
        let told = node.call("POST", "/svm/svms", Some(json!({ "name": svm }))).await;
        drop(node);
        let node = Run::start(folder.path(), None, &[]).await;
        let there = names(&node.get("/svm/svms").await, |record| &record["name"]).contains(&svm);
        lost += usize::from(matches!(told, Some((202, _))) && !there);
        if lost > 0 {
            break;
        }
    }
    assert!(lost > 0, "the planted mistake went unnoticed");
}
