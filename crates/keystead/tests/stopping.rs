//! How a node stops, and what must not stop because much else is to be done: the lease of a node's jobs is renewed while old jobs are deleted, and while the node waits for its last jobs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::faulty::{Faulty, Mood};
use common::steps::PauseAt;
use common::{Node, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_store::{Range, Txn};
use keystead_testkit::KmsStandIn;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long the claim of a node on its jobs lasts without being renewed; and a little.
const PAST_THE_LEASE: Duration = Duration::from_secs(17);

async fn node(hooks: Hooks) -> (Node, KmsStandIn, String) {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), hooks).await.unwrap();
    node.svm("svm1").await;
    (node, kms, key)
}

/// Records of jobs under the prefix.
async fn jobs(store: &Faulty) -> Vec<(String, Value)> {
    let page = store.inner().range(Range::prefix("/jobs/", 9_999)).await.unwrap();
    page.entries.iter().map(|entry| (entry.key.clone(), serde_json::from_slice(&entry.value).unwrap())).collect()
}

/// An enable that is held within its work, before it writes its end.
async fn held(node: &Node, kms: &KmsStandIn, key: &str, step: &PauseAt) -> String {
    let (status, answer) = node.ask("POST", "/security/aws-kms", Some(enable_body("svm1", kms, key))).await;
    assert_eq!(status, 202, "{answer}");
    step.reached().await;
    answer["job"]["uuid"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_old_jobs_do_not_cost_a_job_its_claim() {
    let (store, step) = (Faulty::default(), PauseAt::new("enable.commit.before"));
    let (node, kms, key) = node(Hooks { store: store.hook(), steps: step.clone(), ..Hooks::default() }).await;
    // Copies of a job that has ended, long ago.
    let (sample, record) = jobs(&store).await.pop().unwrap();
    let old = |n: usize| {
        let mut record = record.clone();
        let uuid = format!("00000000-0000-4000-8000-{n:012}");
        record["uuid"] = json!(uuid);
        (record["start_time"], record["end_time"]) = (json!("2020-01-01T00:00:00Z"), json!("2020-01-01T00:00:00Z"));
        (sample.replace(record_uuid(&sample), &uuid), record)
    };
    let started = held(&node, &kms, &key, &step).await;
    store.slow(Duration::from_millis(10));
    for chunk in (0..3_000).collect::<Vec<_>>().chunks(100) {
        let txn = chunk.iter().map(|n| old(*n)).fold(Txn::new(), |txn, (key, record)| txn.put(key, record.to_string()));
        store.inner().transact(txn).await.unwrap();
    }
    eventually("the old jobs are deleted", async || {
        // Each change of a record is a turn of the runner.
        assert!(node.ask("PATCH", "/security/ekmip/settings", Some(json!({ "jobs": { "retention": "299s" } }))).await.0 == 200);
        (jobs(&store).await.len() <= 2).then_some(())
    })
    .await;
    store.slow(Duration::ZERO);
    step.go();
    let job = eventually("the job ends", async || {
        let job = node.get(&format!("/cluster/jobs/{started}")).await;
        (job["state"] != "running").then_some(job)
    })
    .await;
    assert_eq!(job["state"], "success", "{job}");
    let asked = kms.calls().into_iter().filter(|call| call.operation == "Encrypt").count();
    assert_eq!(asked, 1, "it was done once");
    node.stop().await;
}

fn record_uuid(key: &str) -> &str {
    key.rsplit('/').next().unwrap()
}

/// Its name is known to scripts/unit: it waits for real time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_that_ends_while_the_node_stops_is_done_once() {
    let (store, step) = (Faulty::default(), PauseAt::new("enable.commit.before"));
    let (node, kms, key) = node(Hooks { store: store.hook(), steps: step.clone(), ..Hooks::default() }).await;
    let job = held(&node, &kms, &key, &step).await;
    let stopping = tokio::spawn(node.stop());
    tokio::time::sleep(PAST_THE_LEASE).await;
    assert!(!stopping.is_finished(), "it waits for the job");
    let claim = store.inner().range(Range::prefix("/job-claims/", 9)).await.unwrap();
    assert_eq!(claim.entries.len(), 1, "the job is still this node's");
    step.go();
    let folder = stopping.await.unwrap();
    let store = keystead_store::sqlite::SqliteStore::open(&folder.path().join("data/store.db")).await.unwrap();
    let entry = keystead_store::Store::get(&store, &format!("/jobs/{job}")).await.unwrap().unwrap();
    let record: Value = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!(record["state"], "success", "{record}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_hangs_does_not_keep_a_node_from_stopping() {
    let store = Faulty::default();
    let (node, ..) = node(Hooks { store: store.hook(), ..Hooks::default() }).await;
    assert_eq!(node.ask("POST", "/security/ekmip/clients?return_records=true", Some(json!({ "svm": { "name": "svm1" }, "common_name": "c" }))).await.0, 201);
    // What an SVM has left behind is cleaned up in the background: that hangs now.
    let page = store.inner().range(Range::prefix("/ekmip/clients/", 9)).await.unwrap();
    let mut record: Value = serde_json::from_slice(&page.entries[0].value).unwrap();
    let gone = "00000000-0000-4000-8000-000000000001";
    (record["uuid"], record["svm"]) = (json!(gone), json!(gone));
    store.inner().transact(Txn::new().put(format!("/ekmip/clients/{gone}"), record.to_string())).await.unwrap();
    let svm = node.get("/svm/svms?name=svm1").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    store.hang_after(1);
    let answer = node.ask("DELETE", &format!("/svm/svms/{svm}"), None).await;
    assert_eq!(answer.0, 202, "{answer:?}");
    eventually("something waits for the store", async || (store.waiting() > 0).then_some(())).await;
    let stopped = tokio::time::timeout(Duration::from_secs(90), node.stop()).await;
    store.set(Mood::Good);
    assert!(stopped.is_ok(), "the node must stop");
}
