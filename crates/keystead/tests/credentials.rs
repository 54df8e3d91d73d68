//! Credentials of the node's own (`keystead.credentials_source`): who may have them, for what, and that they are swapped without a gap.
//!
//! The sources read the process's variables, which cannot be changed safely within a process. So what needs some runs once more in a child of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use async_trait::async_trait;
use common::kmip::{Credentials, Kmip};
use common::{ACCESS_KEY_ID, ManualClock, Node, SECRET, code, eventually, toml_for};
use keystead::serve::Hooks;
use keystead_awskms::Resolver;
use keystead_testkit::{KmsStandIn, NewKey, Options, Tls};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MARK: &str = "KEYSTEAD_TEST_CHILD";
/// AWS's name in these tests: a source never goes with a `host`.
const DOMAIN: &str = "example.test";
const SESSION_SECRET: &str = "the-secret-of-the-n0de";
const SESSION_TOKEN: &str = "the-t0ken-of-the-n0de";

/// Every name is here.
struct Here;

#[async_trait]
impl Resolver for Here {
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, String> {
        Ok(vec![[127, 0, 0, 1].into()])
    }
}

struct Scene {
    node: Node,
    kms: KmsStandIn,
    clock: Arc<ManualClock>,
    /// ARNs of two customer keys.
    keys: [String; 2],
}

async fn scene() -> Scene {
    let tls = Tls::SelfSigned(vec![format!("kms.us-east-1.{DOMAIN}")]);
    let kms = KmsStandIn::start(Options { tls, ..Options::default() }).await.unwrap();
    kms.add_access_key(ACCESS_KEY_ID, SECRET);
    let keys = [(), ()].map(|()| kms.create_key(NewKey::default()).unwrap().arn);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let clock = ManualClock::new();
    let hooks = Hooks { resolver: Arc::new(Here), clock: clock.clone(), ..Hooks::default() };
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), hooks).await.unwrap();
    node.svm("svm1").await;
    Scene { node, kms, clock, keys }
}

impl Scene {
    /// An enable without any credentials, changed.
    async fn enable(&self, changes: Value) -> (u16, Value) {
        let mut body =
            json!({ "svm": { "name": "svm1" }, "region": "us-east-1", "key_id": self.keys[0], "default_domain": DOMAIN, "port": self.kms.addr().port() });
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.node.enable(body).await
    }

    async fn enabled(&self, changes: Value) -> String {
        let (status, body) = self.enable(changes).await;
        assert_eq!(status, 201, "{body}");
        format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap())
    }

    async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        self.node.ask("PATCH", &format!("{path}?return_timeout=60"), Some(body)).await
    }

    async fn rekey(&self, path: &str, body: Value) -> (u16, Value) {
        self.node.ask("POST", &format!("{path}/rekey-external?return_timeout=60"), Some(body)).await
    }

    /// The access keys that AWS was asked with since the last look.
    fn callers(&self) -> Vec<String> {
        let mut callers: Vec<String> = self.kms.calls().into_iter().filter_map(|call| call.access_key_id).collect();
        self.kms.clear_calls();
        callers.dedup();
        callers
    }
}

fn source(text: &str) -> Value {
    json!({ "keystead": { "credentials_source": text } })
}

fn key() -> Value {
    json!({ "access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET })
}

/// Members of several objects in one.
fn and(one: Value, other: Value) -> Value {
    let mut one = one;
    one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    one
}

fn refused(answer: &(u16, Value)) -> (String, String) {
    (code(answer), answer.1["error"]["target"].as_str().unwrap_or_default().to_owned())
}

fn expected(code: &str, target: &str) -> (String, String) {
    (code.to_owned(), target.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_with_a_source() {
    let scene = scene().await;
    let field = "keystead.credentials_source";
    let id = scene.keys[0].rsplit('/').next().unwrap().to_owned();
    for (changes, code, target) in [
        (json!({}), "262212", "access_key_id"),
        (json!({ "access_key_id": ACCESS_KEY_ID }), "262212", "secret_access_key"),
        (json!({ "secret_access_key": SECRET }), "262212", "access_key_id"),
        (source(""), "262212", "access_key_id"),
        (and(source("chain"), key()), "262186", "access_key_id"),
        (and(source("chain"), json!({ "secret_access_key": SECRET })), "262186", "secret_access_key"),
        (and(source("chain"), json!({ "host": "127.0.0.1" })), "262186", field),
        (and(source("chain"), json!({ "key_id": id })), "262247", "key_id"),
        (and(source("chain"), json!({ "key_id": "alias/a" })), "262247", "key_id"),
        (and(source("chain"), json!({ "key_id": "arn:aws:kms:us-east-1:111122223333:alias/a" })), "262247", "key_id"),
        (and(source("chain"), json!({ "region": "eu-west-1" })), "262186", "region"),
        (source("/bin/sh -c id"), "262247", field),
        (source("process:/bin/sh"), "262247", field),
        (source("profile:a\nb"), "262247", field),
        (json!({ "keystead": { "credentials_source": 1 } }), "262247", field),
    ] {
        assert_eq!(refused(&scene.enable(changes.clone()).await), expected(code, target), "{changes}");
    }
    let path = scene.enabled(key()).await;
    for (change, code, target) in [
        (and(source("chain"), key()), "262186", "access_key_id"),
        (and(source("chain"), json!({ "secret_access_key": SECRET })), "262186", "secret_access_key"),
        (and(source("chain"), json!({ "host": "127.0.0.1" })), "262186", field),
        (and(source("chain"), json!({ "region": "eu-west-1" })), "262186", "region"),
        (and(source("chain"), json!({ "skip_verify": true })), "262186", "skip_verify"),
        (source("nothing"), "262247", field),
    ] {
        assert_eq!(refused(&scene.patch(&path, change.clone()).await), expected(code, target), "{change}");
    }
    for (new, code, target) in [
        (json!({ "key_id": "alias/a", "keystead": { "new": { "credentials_source": "chain" } } }), "262247", "key_id"),
        (
            json!({ "key_id": scene.keys[1], "keystead": { "new": { "credentials_source": "chain", "access_key_id": ACCESS_KEY_ID } } }),
            "262186",
            "access_key_id",
        ),
        (json!({ "key_id": scene.keys[1], "keystead": { "new": { "credentials_source": "x" } } }), "262247", "keystead.new.credentials_source"),
    ] {
        assert_eq!(refused(&scene.rekey(&path, new.clone()).await), expected(code, target), "{new}");
    }
    let record = scene.node.get(&format!("{path}?fields=*,keystead")).await;
    assert_eq!((&record["access_key_id"], &record["keystead"]["credentials_source"]), (&json!(ACCESS_KEY_ID), &Value::Null));
}

/// A command of the node's administrator that prints what stands in a file; without the file, it fails.
struct Command {
    file: PathBuf,
}

impl Command {
    /// Writes the AWS configuration file of the node: `[profile kms]` and the default one.
    fn install(folder: &Path) -> (Self, PathBuf) {
        let command = folder.join("credentials.sh");
        let file = folder.join("credentials.json");
        std::fs::write(&command, format!("#!/bin/sh\necho run >> {0}.runs\nexec cat {0}\n", file.display())).unwrap();
        std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o700)).unwrap();
        let config = folder.join("aws-config");
        let line = format!("credential_process = {}\n", command.display());
        std::fs::write(&config, format!("[profile kms]\n{line}[default]\n{line}")).unwrap();
        (Self { file }, config)
    }

    /// The next call gives these, for so long.
    fn gives(&self, kms: &KmsStandIn, id: &str, seconds: i64) {
        kms.add_session(id, SESSION_SECRET, SESSION_TOKEN);
        let end = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string();
        let json = json!({ "Version": 1, "AccessKeyId": id, "SecretAccessKey": SESSION_SECRET, "SessionToken": SESSION_TOKEN, "Expiration": end });
        let new = self.file.with_extension("new");
        std::fs::write(&new, json.to_string()).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// How often it was run.
    fn runs(&self) -> usize {
        std::fs::read_to_string(format!("{}.runs", self.file.display())).map_or(0, |runs| runs.lines().count())
    }

    fn breaks(&self) {
        std::fs::remove_file(&self.file).unwrap();
    }
}

/// Where the tests of this file stand in the program of tests.
fn module() -> &'static str {
    module_path!().split_once("::").map_or("", |(_, module)| module)
}

/// Runs a test of this file in a child with the node's AWS configuration in a folder of its own. In the child: that folder.
fn in_child(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(MARK) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        child.env_remove(name);
    }
    child.args(["--exact", &format!("{}::{test}", module()), "--nocapture"]).env(MARK, folder.path()).env("HOME", folder.path());
    child.env("AWS_CONFIG_FILE", folder.path().join("aws-config")).env("AWS_SHARED_CREDENTIALS_FILE", folder.path().join("none"));
    child.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_REGION", "us-east-1");
    let output = child.output().unwrap();
    let text = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(!text.contains(SESSION_SECRET) && !text.contains(SESSION_TOKEN), "{text}");
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn from_a_key_to_a_source_and_back_without_a_gap() {
    let Some(folder) = in_child("from_a_key_to_a_source_and_back_without_a_gap") else { return };
    let (command, _) = Command::install(&folder);
    let scene = Arc::new(scene().await);
    let path = scene.enabled(and(key(), json!({ "polling_period": 1 }))).await;
    let client = Credentials::issue(&scene.node, "svm1").await;
    let endpoint = client.endpoint(scene.node.ekmip);
    command.gives(&scene.kms, "ASIANODEFIRST000", 3_600);

    // Keys are handed out, and polls run, all the time.
    let stop = Arc::new(AtomicBool::new(false));
    let gets = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut kmip = Kmip::connect(&endpoint);
            let id = kmip.created(Vec::new());
            let mut count = 0;
            while !stop.load(Ordering::SeqCst) {
                let answer = kmip.get(&id);
                assert_eq!(answer.reason(), None, "{}", answer.message());
                count += 1;
            }
            count
        })
    };
    let polls = {
        let (stop, scene, path) = (Arc::clone(&stop), Arc::clone(&scene), path.clone());
        tokio::spawn(async move {
            let mut count = 0;
            while !stop.load(Ordering::SeqCst) {
                scene.clock.advance(Duration::from_secs(20));
                let state = scene.node.get(&format!("{path}?fields=state")).await["state"].clone();
                assert_eq!(state, json!({ "cluster_state": true, "code": "0", "message": "" }));
                count += 1;
            }
            count
        })
    };
    scene.callers();
    assert_eq!(scene.patch(&path, source("profile:kms")).await.0, 200);
    eventually("polls with the source", async || scene.callers().ends_with(&["ASIANODEFIRST000".to_owned()]).then_some(())).await;
    let record = scene.node.get(&format!("{path}?fields=*,keystead")).await;
    assert_eq!((&record["access_key_id"], &record["keystead"]["credentials_source"]), (&Value::Null, &json!("profile:kms")));
    let mut files = 0;
    for entry in std::fs::read_dir(scene.node.folder.path().join("data")).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        let bytes = std::fs::read(entry.path()).unwrap();
        assert!(!bytes.windows(SESSION_SECRET.len()).any(|part| part == SESSION_SECRET.as_bytes()), "{entry:?}");
        files += usize::from(bytes.windows(12).any(|part| part == b"profile:kms\""));
    }
    assert!(files > 0, "the source stands in the store, and its credentials do not");

    // What does not work replaces nothing.
    let answer = scene.patch(&path, source("profile:nobody")).await;
    assert_eq!(code(&answer), "65537921", "{answer:?}");
    assert!(answer.1["error"]["message"].as_str().unwrap().contains("credentials source profile:nobody"), "{answer:?}");
    let wrong = and(source(""), json!({ "access_key_id": ACCESS_KEY_ID, "secret_access_key": "wrong" }));
    assert_eq!(code(&scene.patch(&path, wrong).await), "65537921");
    assert_eq!(refused(&scene.patch(&path, source("")).await), expected("262212", "access_key_id"));
    assert_eq!(refused(&scene.patch(&path, key()).await), expected("262186", "access_key_id"));
    assert_eq!(refused(&scene.patch(&path, json!({ "host": "127.0.0.1" })).await), expected("262186", "keystead.credentials_source"));
    assert_eq!(scene.node.get(&format!("{path}?fields=keystead")).await["keystead"]["credentials_source"], "profile:kms");

    // The role's new credentials come in time, and those that AWS ends early are replaced at once.
    command.gives(&scene.kms, "ASIANODESECOND00", 3_600);
    scene.kms.deactivate_access_key("ASIANODEFIRST000").unwrap();
    eventually("the second credentials", async || scene.callers().ends_with(&["ASIANODESECOND00".to_owned()]).then_some(())).await;

    // A rotated key is noticed, and the KEK is wrapped again, with nobody's help.
    scene.kms.rotate(scene.keys[0].rsplit('/').next().unwrap()).unwrap();
    eventually("wrapped again", async || scene.kms.calls().iter().any(|call| call.operation == "Encrypt").then_some(())).await;
    eventually("the job has ended well", async || {
        let jobs = scene.node.get("/cluster/jobs?fields=*").await;
        let job = jobs["records"].as_array().unwrap().iter().find(|job| job["description"].as_str().unwrap().contains("again"))?.clone();
        assert_ne!(job["state"], "failure", "{job}");
        (job["state"] == "success").then_some(())
    })
    .await;

    // Another key, by an administrator; an alias never.
    assert_eq!(refused(&scene.rekey(&path, json!({ "key_id": "alias/a" })).await), expected("262247", "key_id"));
    let answer = scene.rekey(&path, json!({ "key_id": scene.keys[1] })).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    eventually("polls with the new key", async || {
        let calls = scene.kms.calls();
        (calls.last()?.key_id.as_deref() == Some(scene.keys[1].as_str())).then_some(())
    })
    .await;

    scene.callers();
    assert_eq!(scene.patch(&path, and(source(""), key())).await.0, 200);
    scene.callers();
    eventually("polls with the key", async || (scene.callers() == [ACCESS_KEY_ID.to_owned()]).then_some(())).await;
    let record = scene.node.get(&format!("{path}?fields=*,keystead")).await;
    assert_eq!((&record["access_key_id"], &record["keystead"]["credentials_source"]), (&json!(ACCESS_KEY_ID), &Value::Null));

    // And back to a source, with the key in the same request of a rekey-external.
    let new = json!({ "key_id": scene.keys[0], "keystead": { "new": { "credentials_source": "process" } } });
    assert_eq!(scene.rekey(&path, new).await.0, 201);
    let new = json!({ "key_id": scene.keys[1], "keystead": { "new": { "access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET } } });
    assert_eq!(scene.rekey(&path, new).await.0, 201);

    stop.store(true, Ordering::SeqCst);
    let (gets, polls) = (tokio::task::block_in_place(|| gets.join().unwrap()), polls.await.unwrap());
    assert!(gets > 10 && polls > 10, "{gets} Gets, {polls} looks");
}

/// Only AWS KMS itself can deny a key: without credentials nothing is known, and nobody is blocked, not even without a grace.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_source_that_fails_is_no_revocation() {
    let Some(folder) = in_child("a_source_that_fails_is_no_revocation") else { return };
    let (command, _) = Command::install(&folder);
    let scene = scene().await;
    let grace = json!({ "aws_kms": { "access_error_grace": "0s" } });
    assert_eq!(scene.node.ask("PATCH", "/security/ekmip/settings", Some(grace)).await.0, 200);
    // Nothing is stored without a proof.
    let answer = scene.enable(source("process")).await;
    assert_eq!(code(&answer), "65537900", "{answer:?}");
    assert!(answer.1["error"]["message"].as_str().unwrap().contains("keystead.credentials_source"), "with the preflight's advice: {answer:?}");
    assert!(scene.kms.calls().iter().all(|call| call.access_key_id.is_none()), "AWS KMS is not asked without credentials");
    assert_eq!(scene.node.get("/security/aws-kms").await["num_records"], 0);

    command.gives(&scene.kms, "ASIANODEFIRST000", 10);
    let path = scene.enabled(source("process")).await;
    let record = scene.node.get(&format!("{path}?fields=*,keystead")).await;
    assert_eq!((&record["access_key_id"], &record["keystead"]["credentials_source"]), (&Value::Null, &json!("process")));
    command.breaks();
    let state = eventually("the failure shows", async || {
        scene.clock.advance(Duration::from_secs(60 * 60));
        let state = scene.node.get(&format!("{path}?fields=state")).await["state"].clone();
        (state["code"] != "0").then_some(state)
    })
    .await;
    assert!(state["message"].as_str().unwrap().contains("credentials source process"), "{state}");
    scene.kms.clear_calls();
    // Two polls whose failure counted as a denial would block. The source itself is left alone for a while after each failure.
    let before = command.runs();
    eventually("polls must ask the source again and again", async || {
        scene.clock.advance(Duration::from_secs(60 * 60));
        let state = scene.node.get(&format!("{path}?fields=state")).await["state"].clone();
        assert_eq!(state["cluster_state"], true, "{state}");
        (command.runs() >= before + 2).then_some(())
    })
    .await;
    assert_eq!(scene.kms.calls().len(), 0, "AWS KMS is not asked without credentials");
    let check = scene.node.get(&format!("{path}?fields=keystead.check")).await["keystead"]["check"].to_string();
    assert!(check.contains("credentials source process") && !check.contains("AWS accepts"), "{check}");
    let reach = scene.node.get(&format!("{path}?fields=amazon_reachability")).await["amazon_reachability"].clone();
    assert_eq!(reach["reachable"], false, "{reach}");

    command.gives(&scene.kms, "ASIANODESECOND00", 3_600);
    eventually("it comes back by itself", async || {
        scene.clock.advance(Duration::from_secs(60 * 60));
        (scene.node.get(&format!("{path}?fields=state")).await["state"]["code"] == "0").then_some(())
    })
    .await;
}
