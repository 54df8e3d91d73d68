//! `kill -9` at every named step of moving keys between the onboard key manager and AWS KMS, and of giving such a move up: once accepted, it is carried through, no key is lost, and nothing of the source is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::crash::{Call, Scene, scene, stored, versions};
use common::eventually;
use common::kmip::{Kmip, template, uid};
use common::run::{Run, stepnode};
use keystead_kmip::Tag;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{ObjectType, Operation};
use keystead_kmip::ttlv::{Node, Value};
use keystead_testkit::KeyState;
use serde_json::json;
use std::collections::BTreeMap;

/// More than two batches.
const KEYS: usize = 250;

/// Dies at each step of a call that moves all keys, and looks.
async fn crash_at_each(scene: &Scene, call: Call<'_>, to_aws: bool, must: &[&str]) {
    let steps = scene.steps_of(&call).await;
    for expected in must {
        assert!(steps.iter().any(|step| step == expected), "{expected} is none of {steps:?}");
    }
    for step in &steps {
        let (folder, mut node) = scene.crash(&call, step).await;
        if step == "accept.before" {
            scene.ready(&node).await;
            let (status, answer) = node.call(call.method, &format!("{}?return_timeout=60", call.path), Some(call.body.clone())).await.unwrap();
            assert!([200, 201].contains(&status), "nothing was begun, so it begins now: {answer}");
        }
        scene.check(&node, step, &scene.keys);
        // A new key goes where the others are.
        Kmip::connect(&scene.client.endpoint(node.ekmip)).created(vec![]);
        node.kill();
        drop(node);
        let [keys, aws, onboard] = versions(&folder).await;
        let (holds, empty) = if to_aws { (aws, onboard) } else { (onboard, aws) };
        assert_eq!((&keys, holds.len(), empty.len()), (&holds, 1, 0), "{step}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
    println!("{} crashes from {}, each at a named step: {steps:?}", steps.len(), call.from);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_step_of_a_move() {
    let scene = scene(KEYS).await;
    let enable = || Call { from: "onboard", method: "POST", path: "/security/aws-kms".to_owned(), body: scene.body() };
    let must = ["accept.before", "enable.encrypt.after", "enable.turn.before", "enable.turn.after", "enable.batch.after#3", "enable.commit.after"];
    crash_at_each(&scene, enable(), true, &must).await;

    // From AWS to the onboard key manager.
    let folder = scene.folder("onboard", "aws");
    let mut node = Run::start(&folder, None, &[]).await;
    let (status, body) = node.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", Some(scene.body())).await.unwrap();
    assert_eq!(status, 201, "{body}");
    let config = body["records"][0]["uuid"].as_str().unwrap().to_owned();
    node.kill();
    let away = Call { from: "aws", method: "POST", path: format!("/security/key-managers/{config}/migrate"), body: json!({ "uuid": scene.onboard }) };
    let must = ["migrate.unwrap.after", "migrate.unwrap.after#2", "migrate.turn.after", "migrate.batch.after#3", "migrate.commit.before"];
    let path = away.path.clone();
    crash_at_each(&scene, away, false, &must).await;

    // And to a configuration that is there already.
    let folder = scene.folder("aws", "back");
    let mut node = Run::start(&folder, None, &[]).await;
    scene.ready(&node).await;
    let (status, body) = node.call("POST", &format!("{path}?return_timeout=60"), Some(json!({ "uuid": scene.onboard }))).await.unwrap();
    assert_eq!(status, 201, "{body}");
    node.kill();
    let there = Call { from: "back", method: "POST", path: format!("/security/key-managers/{}/migrate", scene.onboard), body: json!({ "uuid": config }) };
    crash_at_each(&scene, there, true, &["migrate.describe_key.before", "migrate.decrypt.after", "migrate.turn.after", "migrate.batch.after#3"]).await;
}

/// The customer key is lost in the middle of a move to AWS KMS: giving that up, and deleting the configuration once nobody wants what AWS keeps, are carried through as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_step_of_giving_a_move_up() {
    let scene = scene(KEYS).await;
    let folder = scene.folder("onboard", "stuck");
    let mut node = Run::start(&folder, Some(&stepnode()), &[("STEPNODE_STOP_AT", "enable.batch.after")]).await;
    assert!(node.call("POST", "/security/aws-kms?return_timeout=60", Some(scene.body())).await.is_none());
    eventually("the process must have died", async || node.child.try_wait().unwrap()).await;
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    let mut node = Run::start(&folder, None, &[]).await;
    let job = eventually("the job must start over", async || node.get("/cluster/jobs?state=running").await["records"].get(0).cloned()).await;
    let cancel = format!("/cluster/jobs/{}?action=cancel", job["uuid"].as_str().unwrap());
    assert_eq!(node.call("PATCH", &cancel, Some(json!({}))).await.unwrap().0, 200);
    let config = node.get("/security/aws-kms").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    node.kill();
    let moved: Vec<String> = stored(&folder, "/keys/")
        .await
        .iter()
        .filter(|entry| entry.value[1..5] == [0, 0, 0, 2])
        .map(|entry| entry.key.rsplit('/').next().unwrap().to_owned())
        .collect();
    let (aws, onboard): (BTreeMap<_, _>, BTreeMap<_, _>) = scene.keys.clone().into_iter().partition(|(id, _)| moved.contains(id));
    assert_eq!((aws.len(), onboard.len()), (100, 150));

    let path = format!("/security/key-managers/{config}/migrate");
    let give_up = Call { from: "stuck", method: "POST", path: path.clone(), body: json!({ "uuid": scene.onboard }) };
    let steps = scene.steps_of(&give_up).await;
    assert!(
        ["migrate.turn_back.before", "migrate.turn_back.after", "migrate.commit.after"].iter().all(|step| steps.iter().any(|known| known == step)),
        "{steps:?}"
    );
    for step in &steps {
        let (folder, mut node) = scene.crash(&give_up, step).await;
        if step == "accept.before" {
            scene.refused(&node, step, &scene.keys);
            eventually("it can be given up once the start has ended", async || {
                (node.call("POST", &format!("{path}?return_timeout=60"), Some(give_up.body.clone())).await.unwrap().0 == 201).then_some(())
            })
            .await;
        }
        scene.check(&node, step, &onboard);
        scene.refused(&node, step, &aws);
        Kmip::connect(&scene.client.endpoint(node.ekmip)).created(vec![]);
        node.kill();
        drop(node);
        assert_eq!(versions(&folder).await, [[1, 2].into(), [2].into(), [1].into()], "{step}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
    println!("{} crashes while a move was given up: {steps:?}", steps.len());

    // Nobody wants what AWS keeps: it is destroyed, and the configuration deleted, with the keys that are left or without any.
    for (from, keep, must) in [("part", true, "delete.commit.after"), ("none", false, "delete.disable.after")] {
        let folder = scene.folder("stuck", from);
        let mut node = Run::start(&folder, None, &[]).await;
        scene.ready(&node).await;
        if keep {
            assert_eq!(node.call("POST", &format!("{path}?return_timeout=60"), Some(give_up.body.clone())).await.unwrap().0, 201);
        }
        let mut kmip = Kmip::connect(&scene.client.endpoint(node.ekmip));
        for id in aws.keys().chain(onboard.keys().filter(|_| !keep)) {
            assert!(kmip.call(Operation::Destroy, vec![uid(id)]).reason().is_none());
        }
        node.kill();
        let delete = Call { from, method: "DELETE", path: format!("/security/aws-kms/{config}"), body: json!({}) };
        let steps = scene.steps_of(&delete).await;
        assert!(steps.iter().any(|step| step == must), "{steps:?}");
        for step in &steps {
            let (folder, mut node) = scene.crash(&delete, step).await;
            if step == "accept.before" {
                assert_eq!(node.call("DELETE", &format!("{}?return_timeout=60", delete.path), Some(json!({}))).await.unwrap().0, 200);
            }
            assert_eq!(node.get("/security/aws-kms").await["num_records"], 0, "{step}");
            if keep {
                scene.check(&node, step, &onboard);
            }
            node.kill();
            drop(node);
            let left = versions(&folder).await;
            assert_eq!(left, if keep { [[1].into(), [].into(), [1].into()] } else { Default::default() }, "{step}");
            assert_eq!(stored(&folder, "/key-stores/").await.len(), usize::from(keep), "{step}");
            std::fs::remove_dir_all(&folder).unwrap();
        }
        println!("{} crashes of a DELETE in the middle of a move: {steps:?}", steps.len());
    }
}

/// The first key of an SVM makes its place at the onboard key manager: all of that or nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_step_of_the_first_key() {
    let scene = scene(3).await;
    for step in ["keys.adopt.before", "keys.adopt.after", "keys.commit.before", "keys.commit.after"] {
        let folder = scene.folder("onboard", &step.replace('.', "-"));
        let mut node = Run::start(&folder, Some(&stepnode()), &[("STEPNODE_STOP_AT", step)]).await;
        assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm2" }))).await.unwrap().0, 201);
        let client = common::kmip::Credentials::issue_by(&node, "svm2").await;
        let mut kmip = Kmip::connect_new(&client.endpoint(node.ekmip)).await;
        let kind = Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey);
        let attributes =
            template(&[Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(3)), Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12))]);
        assert!(kmip.try_call(Operation::Create, vec![kind, attributes]).is_err(), "{step}: nothing may be acknowledged");
        eventually(&format!("{step}: the process must have died"), async || node.child.try_wait().unwrap()).await;
        let mut node = Run::start(&folder, None, &[]).await;
        let mut kmip = Kmip::connect(&client.endpoint(node.ekmip));
        assert_eq!(kmip.locate(&[]).len(), usize::from(step == "keys.commit.after"), "{step}");
        let id = kmip.created(vec![]);
        assert!(kmip.get(&id).reason().is_none(), "{step}");
        scene.check(&node, step, &scene.keys);
        node.kill();
    }
}
