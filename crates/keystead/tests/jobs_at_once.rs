//! Many jobs at the same time: what follows the store and what looks for the next job must not wait for each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::run::Run;
use common::{enable_body, stand_in, toml_for};
use serde_json::json;
use std::time::Duration;

/// So many that the runner is looking at them whenever a record changes.
const CONFIGURATIONS: usize = 24;
const ROUNDS: usize = 12;
/// Far more than any of the calls needs: a node that does not answer for so long does not answer at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// The node is a process of its own, since one that hangs would take the test with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_many_configurations_end() {
    let (kms, key) = stand_in().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keystead.toml"), toml_for(&kms, folder.path())).unwrap();
    let node = Run::start(folder.path(), None, &[]).await;
    let mut enables = tokio::task::JoinSet::new();
    for number in 0..CONFIGURATIONS {
        let (api, name) = ((*node).clone(), format!("svm{number:02}"));
        let body = enable_body(&name, &kms, &key);
        enables.spawn(async move {
            assert_eq!(api.call("POST", "/svm/svms?return_timeout=60", Some(json!({ "name": name }))).await.unwrap().0, 201);
            let (status, answer) = api.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", Some(body)).await.unwrap();
            assert_eq!(status, 201, "{answer}");
            answer["records"][0]["uuid"].as_str().unwrap().to_owned()
        });
    }
    let uuids = tokio::time::timeout(PATIENCE, enables.join_all()).await.expect("the enables must end");
    for round in 0..ROUNDS {
        let mut changes = tokio::task::JoinSet::new();
        for uuid in &uuids {
            let (api, path) = ((*node).clone(), format!("/security/aws-kms/{uuid}?return_timeout=60"));
            changes.spawn(async move {
                let (status, answer) = api.call("PATCH", &path, Some(json!({ "polling_period": 5 + round }))).await.unwrap();
                assert_eq!(status, 200, "{answer}");
            });
        }
        tokio::time::timeout(PATIENCE, changes.join_all()).await.unwrap_or_else(|_| panic!("round {round}: the changes must end"));
    }
    assert_eq!(node.get(&format!("/security/aws-kms?polling_period={}&return_records=false", 5 + ROUNDS - 1)).await["num_records"], CONFIGURATIONS);
}
