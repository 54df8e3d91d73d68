//! What AWS is asked, counted: 3 calls to enable, 2 a poll, none for Gets; and many SVMs that start together, or whose AWS is away for an hour.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::Credentials;
use common::scene::{enabled, scene};
use common::{ManualClock, Node, eventually, stand_in, toml_for};
use futures_util::StreamExt as _;
use keystead::serve::Hooks;
use keystead_testkit::{Fault, FaultRule, KmsStandIn};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// A thousand with `make soak`, in release; else as many as a debug build does in seconds.
fn svms() -> usize {
    if std::env::var_os("SOAK").is_some() { 1_000 } else { 100 }
}

/// How many calls of each operation there were, and forgets them.
fn counted(kms: &KmsStandIn) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in kms.calls() {
        *counts.entry(call.operation).or_default() += 1;
    }
    kms.clear_calls();
    counts
}

fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter().map(|(operation, count)| ((*operation).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_to_enable_two_a_poll_and_none_for_ten_thousand_gets() {
    let scene = scene().await;
    assert_eq!(counted(&scene.kms), counts(&[("DescribeKey", 1), ("Encrypt", 1), ("Decrypt", 1)]), "to enable");
    scene.clock.advance(70 * MINUTE);
    eventually("the poll must come", async || (scene.kms.calls().len() == 2).then_some(())).await;
    assert_eq!(counted(&scene.kms), counts(&[("Decrypt", 1), ("DescribeKey", 1)]), "a poll");

    let scene = tokio::task::spawn_blocking(move || {
        let mut kmip = scene.connect();
        let id = kmip.created(Vec::new());
        let material = kmip.get(&id).material();
        for _ in 0..10_000 {
            assert_eq!(kmip.get(&id).material(), material);
        }
        scene
    })
    .await
    .unwrap();
    assert_eq!(counted(&scene.kms), counts(&[]), "a Create and 10,000 Gets");

    // A start unwraps the KEK, once; what the key is now is asked by the polls after it.
    let folder = scene.node.stop().await;
    let toml = toml_for(&scene.kms, folder.path());
    let node = Node::start_in(folder, &toml, Hooks { clock: ManualClock::new(), ..Hooks::default() }).await.unwrap();
    eventually("the KEK must be loaded", async || (node.get(&format!("{}?fields=state", scene.config)).await["state"]["code"] == "0").then_some(())).await;
    assert_eq!(counted(&scene.kms), counts(&[("Decrypt", 1)]), "a start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_svms_start_together_and_go_through_an_outage() {
    let svms = svms();
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    // They all are of one account, so one rate counts for all of them.
    let rate = svms / 2;
    let fast = format!("{}requests_per_second = 10000\n[jobs]\nconcurrency = 32\n", toml_for(&kms, folder.path()));
    let node = Node::start_in(folder.clone(), &fast, Hooks::default()).await.unwrap();
    futures_util::stream::iter(0..svms)
        .for_each_concurrent(16, async |n| {
            let svm = format!("svm{n}");
            node.svm(&svm).await;
            enabled(&node, &kms, &key, &svm).await;
        })
        .await;
    assert_eq!(counted(&kms), counts(&[("DescribeKey", svms), ("Encrypt", svms), ("Decrypt", svms)]));
    let settings = serde_json::json!({ "aws_kms": { "requests_per_second": rate } });
    assert_eq!(node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await.0, 200);
    node.stop().await;

    // The start. Nobody waits for all of them: the first SVM serves while the last ones wait for their turn.
    let clock = ManualClock::new();
    let node = Node::start_in(folder, &fast, Hooks { clock: clock.clone(), ..Hooks::default() }).await.unwrap();
    eventually("the KEKs must be loaded", async || (kms.calls().len() >= svms).then_some(())).await;
    let times: Vec<jiff::Timestamp> = kms.calls().iter().map(|call| call.time).collect();
    assert_eq!(counted(&kms), counts(&[("Decrypt", svms)]), "one call an SVM");
    let took = times.iter().max().unwrap().duration_since(*times.iter().min().unwrap());
    assert!(took.as_millis() >= 1_000 * (svms / rate - 1) as i128, "{svms} calls at {rate} a second came within {} ms", took.as_millis());
    eventually("all must be available", async || {
        let states = node.get("/security/aws-kms?fields=state&max_records=100").await;
        states["records"].as_array().unwrap().iter().all(|record| record["state"]["code"] == "0").then_some(())
    })
    .await;
    let client = Credentials::issue(&node, &format!("svm{}", svms - 1)).await;
    let id = tokio::task::block_in_place(|| common::kmip::Kmip::connect(&client.endpoint(node.ekmip)).created(Vec::new()));

    // More polls than run at a time: the rest waits for their end, and the poller does not turn round and round until then.
    let settings = serde_json::json!({ "aws_kms": { "requests_per_second": 10_000 } });
    assert_eq!(node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await.0, 200);
    kms.add_fault(FaultRule::always(Fault::Hold));
    clock.advance(66 * MINUTE);
    assert_eq!(kms.wait_held(64, Duration::from_secs(20)).await, 64);
    let spins = clock.spins();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(clock.spins() - spins < 20, "{} turns while all that is due waits", clock.spins() - spins);
    kms.clear_faults();
    kms.release();
    settled(&kms).await;
    kms.clear_calls();

    // An hour without AWS. The rate does not hold the test up: it was looked at above.
    let settings = serde_json::json!({ "aws_kms": { "requests_per_second": 10_000, "min_poll_interval": "60s" } });
    assert_eq!(node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await.0, 200);
    kms.add_fault(FaultRule::always(Fault::Error { code: "ServiceUnavailableException".to_owned(), status: 503, message: String::new() }));
    clock.advance(66 * MINUTE);
    settled(&kms).await;
    let first = kms.calls().len();
    // After about 1, 3, 7, 15, 30, 45 and 60 minutes; what lies between is quiet.
    for minutes in [1, 1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5] {
        clock.advance(minutes * MINUTE);
        settled(&kms).await;
    }
    let calls = counted(&kms);
    let polls = calls["Decrypt"];
    println!("an hour's outage of {svms} SVMs: {polls} calls, {first} of them at once");
    assert_eq!(calls.len(), 1, "no DescribeKey where Decrypt has failed: {calls:?}");
    // After 1, 2, 4, 8 and then each 15 minutes, each spread by a tenth: at the most 8 polls in an hour, of up to 3 attempts.
    assert!(polls <= 8 * 3 * svms, "{polls}");
    assert!(first <= 3 * svms, "{first}");
    let client = client.endpoint(node.ekmip);
    assert!(tokio::task::block_in_place(|| common::kmip::Kmip::connect(&client).get(&id)).reason().is_none(), "an outage takes no key away");

    kms.clear_faults();
    clock.advance(17 * MINUTE);
    eventually("all must be available again", async || {
        let states = node.get("/security/aws-kms?fields=state&max_records=100").await;
        states["records"].as_array().unwrap().iter().all(|record| record["state"]["code"] == "0").then_some(())
    })
    .await;
    assert!(counted(&kms).values().sum::<usize>() <= 2 * svms, "and each was asked once");
    node.stop().await;
}

/// Waits until no call has come for longer than the pause between two attempts.
async fn settled(kms: &KmsStandIn) {
    let mut before = usize::MAX;
    for _ in 0..120 {
        let now = kms.calls().len();
        if now == before {
            return;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    panic!("calls must come to an end");
}
