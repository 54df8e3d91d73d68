//! Races and load: a Create at the moment of an enable, and clients that read, make and destroy keys while these move. `SOAK=1` makes it many more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Credentials, Kmip, uid};
use common::onboard::{Scene, scene, scene_in_real_time};
use common::{code, enable_body};
use keystead_kmip::enumeration::Operation;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

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

/// Keys move to AWS KMS with an enable, and to and fro, while clients read, make and destroy: no Get fails. With `SOAK`, 100,000 keys, and at least as many Gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_get_fails_while_keys_move() {
    let (count, wanted, there_and_back) = if std::env::var_os("SOAK").is_some() { (100_000, 100_000, 2) } else { (1_000, 5_000, 4) };
    let scene = scene_in_real_time().await;
    let keys = tokio::task::block_in_place(|| made(&scene, count));
    let (stop, gets) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (made, moves) = std::thread::scope(|scope| {
        let (endpoint, stop, gets, keys) = (scene.client.endpoint(scene.node.ekmip), &stop, &gets, &keys);
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let endpoint = endpoint.clone();
                scope.spawn(move || {
                    let mut kmip = Kmip::connect(&endpoint);
                    for (id, material) in keys.iter().cycle().skip(reader * keys.len() / 2) {
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
        let _stops = Stops(stop);
        let failed = || readers.iter().any(std::thread::ScopedJoinHandle::is_finished);
        let moves = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let (status, headers, answer) = scene.node.call("POST", "/security/aws-kms", Some(scene.body(true))).await;
                assert_eq!(status, 202, "{answer}");
                let config = headers["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned();
                ended(&scene, &answer).await;
                let mut moves = 1;
                while !failed() && (gets.load(Ordering::SeqCst) < wanted || moves < there_and_back) {
                    let (from, to) = if moves % 2 == 1 { (&config, &scene.onboard) } else { (&scene.onboard, &config) };
                    let (status, answer) = scene.node.ask("POST", &format!("/security/key-managers/{from}/migrate"), Some(json!({ "uuid": to }))).await;
                    assert_eq!(status, 202, "{answer}");
                    ended(&scene, &answer).await;
                    moves += 1;
                }
                moves
            })
        });
        stop.store(true, Ordering::SeqCst);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        (writer.join().unwrap(), moves)
    });
    println!("{} Gets during {moves} moves of {count} keys, and {} keys made meanwhile", gets.load(Ordering::SeqCst), made.len());
    assert!(!made.is_empty());
    scene.check(&keys);
    scene.check(&made);
    let [of_keys, aws, onboard] = scene.versions().await;
    assert_eq!((of_keys.len(), aws.len() + onboard.len()), (1, 1));
}

/// Ends the clients also where the test fails: it would wait for them.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// That many keys, made over eight connections.
fn made(scene: &Scene, count: usize) -> HashMap<String, Vec<u8>> {
    let endpoint = scene.client.endpoint(scene.node.ekmip);
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8)
            .map(|maker| {
                let endpoint = &endpoint;
                scope.spawn(move || {
                    let mut kmip = Kmip::connect(endpoint);
                    let one = |_| {
                        let id = kmip.created(vec![]);
                        let material = kmip.get(&id).material();
                        (id, material)
                    };
                    (maker..count).step_by(8).map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect()
    })
}

/// Waits for a job's success, however long that takes.
async fn ended(scene: &Scene, accepted: &Value) {
    let path = format!("/cluster/jobs/{}?fields=*", accepted["job"]["uuid"].as_str().unwrap());
    loop {
        let job = scene.node.get(&path).await;
        match job["state"].as_str().unwrap() {
            "success" => return,
            "failure" => panic!("{job}"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
