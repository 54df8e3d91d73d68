//! `kill -9` at every named step of the onboard key manager itself: made, its passphrase changed, brought back after the loss of the seal key, deleted. All or nothing, and no key is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::crash::{Call, PASSPHRASE, Scene, scene, stored};
use common::kmip::{Credentials, Kmip, uid};
use common::program::{fails, free_port, serve};
use common::run::{Run, stepnode};
use keystead_kmip::enumeration::{Operation, ResultReason};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Stdio;

const NEXT_PASSPHRASE: &str = "another cluster passphrase of the crash tests";

impl Scene {
    /// Whether this is the passphrase: a PATCH with twice the same one says so, and changes nothing.
    async fn is_passphrase(&self, node: &Run, passphrase: &str) -> bool {
        let body = json!({ "onboard": { "existing_passphrase": passphrase, "passphrase": passphrase } });
        let answer = node.call("PATCH", &format!("/security/key-managers/{}", self.onboard), Some(body)).await.unwrap();
        match answer.1["error"]["code"].as_str() {
            Some("65536150") => true,
            Some("65536139") => false,
            _ => panic!("{answer:?}"),
        }
    }

    fn patch(&self, from: &'static str, onboard: Json) -> Call<'static> {
        Call { from, method: "PATCH", path: format!("/security/key-managers/{}", self.onboard), body: json!({ "onboard": onboard }) }
    }
}

async fn again(node: &Run, call: &Call<'_>) -> (u16, Json) {
    node.call(call.method, &format!("{}?return_timeout=60", call.path), Some(call.body.clone())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_it_is_made_or_deleted() {
    let scene = scene(2).await;
    // Two SVMs and the admin SVM have had keys there, and have none any more.
    let folder = scene.folder("onboard", "empty");
    let mut node = Run::start(&folder, None, &[]).await;
    assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm2" }))).await.unwrap().0, 201);
    for svm in ["svm2", "keystead"] {
        let client = Credentials::issue_by(&node, svm).await;
        let mut kmip = Kmip::connect_new(&client.endpoint(node.ekmip)).await;
        let id = kmip.created(vec![]);
        assert!(kmip.call(Operation::Destroy, vec![uid(&id)]).reason().is_none());
    }
    let mut kmip = Kmip::connect(&scene.client.endpoint(node.ekmip));
    scene.keys.keys().for_each(|id| assert!(kmip.call(Operation::Destroy, vec![uid(id)]).reason().is_none()));
    node.kill();
    let delete = Call { from: "empty", method: "DELETE", path: format!("/security/key-managers/{}", scene.onboard), body: json!({}) };
    let steps = scene.steps_of(&delete).await;
    assert!(["onboard.release.after", "onboard.release.before#3", "accept.after"].iter().all(|step| steps.iter().any(|known| known == step)), "{steps:?}");
    for step in &steps {
        let (folder, mut node) = scene.crash(&delete, step).await;
        let done = step == "accept.after";
        let (status, answer) = again(&node, &delete).await;
        assert_eq!(status, if done { 404 } else { 200 }, "{step}: {answer}");
        node.kill();
        drop(node);
        for left in ["/onboard-keys/", "/key-stores/", "/onboard-key-manager", "/destroyed-keys/"] {
            assert!(stored(&folder, left).await.is_empty(), "{step}: {left}");
        }
        if done {
            std::fs::rename(&folder, scene.root.path().join("without")).unwrap();
        } else {
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }

    let make = Call { from: "without", method: "POST", path: "/security/key-managers".to_owned(), body: json!({ "onboard": { "passphrase": PASSPHRASE } }) };
    for step in scene.steps_of(&make).await {
        let (folder, node) = scene.crash(&make, &step).await;
        let (status, answer) = again(&node, &make).await;
        let expected = if step == "accept.after" { (409, json!("65536907")) } else { (201, Json::Null) };
        assert_eq!((status, answer["error"]["code"].clone()), expected, "{step}");
        let mut kmip = Kmip::connect(&scene.client.endpoint(node.ekmip));
        let id = kmip.created(vec![]);
        assert!(kmip.get(&id).reason().is_none(), "{step}");
        drop(node);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_its_passphrase_is_changed() {
    let scene = scene(3).await;
    let change = scene.patch("onboard", json!({ "existing_passphrase": PASSPHRASE, "passphrase": NEXT_PASSPHRASE }));
    let steps = scene.steps_of(&change).await;
    assert_eq!(steps, ["accept.before", "accept.after"]);
    for step in &steps {
        let (_, node) = scene.crash(&change, step).await;
        let changed = step == "accept.after";
        assert_eq!((scene.is_passphrase(&node, NEXT_PASSPHRASE).await, scene.is_passphrase(&node, PASSPHRASE).await), (changed, !changed), "{step}");
        scene.check(&node, step, &scene.keys);
        assert_eq!(again(&node, &change).await.0, if changed { 400 } else { 200 }, "{step}");
        assert!(scene.is_passphrase(&node, NEXT_PASSPHRASE).await, "{step}");
        scene.check(&node, step, &scene.keys);
    }
}

/// The seal key is lost: the store is given to a new one, and the passphrase brings the onboard key back. Whatever step of that the process dies at, it goes on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_it_is_brought_back() {
    let mut scene = scene(3).await;
    let folder = scene.folder("onboard", "lost");
    std::fs::write(folder.join("data/seal.key"), "5a".repeat(32)).unwrap();
    let adopt = adopt_code(&folder);
    let mut toml = std::fs::read_to_string(folder.join("keystead.toml")).unwrap();
    toml.push_str(&format!("[seal]\nadopt = \"{adopt}\"\n"));
    std::fs::write(folder.join("keystead.toml"), toml).unwrap();
    for step in ["seal.adopt.before", "seal.adopt.after"] {
        let folder = scene.folder("lost", &step.replace('.', "-"));
        let arguments = serve(&folder, free_port(), free_port());
        let mut command = std::process::Command::new(stepnode());
        command.args(arguments.get_args()).arg("--config").arg(folder.join("keystead.toml")).env("STEPNODE_STOP_AT", step);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{step}");
        if step == "seal.adopt.before" {
            assert_eq!(adopt_code(&folder), adopt, "the code is good until it was used");
            drop(Run::start(&folder, None, &[]).await);
        }
        // From now on, the new seal key is the one, and no code is needed.
        plain(&folder);
        std::fs::rename(folder.join("plain.toml"), folder.join("keystead.toml")).unwrap();
        drop(Run::start(&folder, None, &[]).await);
    }

    // With the new seal key, and without the onboard key yet.
    let mut node = Run::start(&folder, None, &[]).await;
    scene.client = Credentials::issue_by(&node, "svm1").await;
    let mut kmip = Kmip::connect_new(&scene.client.endpoint(node.ekmip)).await;
    assert_eq!(kmip.get(scene.keys.keys().next().unwrap()).reason(), Some(ResultReason::PermissionDenied));
    node.kill();
    let bring_back = scene.patch("lost", json!({ "synchronize": true, "existing_passphrase": PASSPHRASE }));
    let steps = scene.steps_of(&bring_back).await;
    assert_eq!(steps, ["accept.before", "accept.after"]);
    for step in &steps {
        let (_, node) = scene.crash(&bring_back, step).await;
        if step == "accept.before" {
            scene.refused(&node, step, &scene.keys);
            assert_eq!(again(&node, &bring_back).await.0, 200);
        }
        scene.check(&node, step, &scene.keys);
        assert!(scene.is_passphrase(&node, PASSPHRASE).await, "{step}");
    }
}

/// A start without `adopt`.
fn plain(folder: &Path) -> std::process::Command {
    let config = folder.join("plain.toml");
    let toml = std::fs::read_to_string(folder.join("keystead.toml")).unwrap();
    std::fs::write(&config, toml.split("[seal]").next().unwrap()).unwrap();
    let mut command = serve(folder, free_port(), free_port());
    command.arg("--config").arg(&config);
    command
}

/// The code that a start with another seal key names.
fn adopt_code(folder: &Path) -> String {
    let said = fails(plain(folder));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    said.split("adopt = \"").nth(1).unwrap_or_else(|| panic!("{said}")).split('"').next().unwrap().to_owned()
}
