//! What a call on many records takes of memory. By itself in its process, whose peak is measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Node, stand_in, toml_for};
use keystead::serve::Hooks;
use serde_json::json;
use std::sync::Arc;

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// A body is there once, however many records it is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_is_not_kept_for_each_record() {
    let (kms, _) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
    let all: Vec<_> = (0..150).map(|n| json!({ "name": format!("svm{n}") })).collect();
    let (status, answer) = node.ask("POST", "/svm/svms?return_timeout=60", Some(json!({ "records": all }))).await;
    assert_eq!(status, 201, "{answer}");
    let body = json!({ "comment": "x", "not_known": "y".repeat(1_000_000) });
    let patch = async |name: &str| {
        let (status, answer) = node.ask("PATCH", &format!("/svm/svms?ignore_unknown_fields=true&return_timeout=60&name={name}"), Some(body.clone())).await;
        assert_eq!(status, 200, "{answer}");
        answer["num_records"].as_u64().unwrap()
    };
    assert_eq!(patch("svm0").await, 1);
    let before = peak();
    assert_eq!(patch("svm*").await, 150);
    let rise = peak() - before;
    assert!(rise < 60 * 1024, "150 records have taken {rise} kB more than one");
}
