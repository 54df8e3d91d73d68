//! `polling_period`, counted under time that the test owns.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::{ManualClock, Node, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_testkit::KmsStandIn;
use serde_json::json;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn polls(kms: &KmsStandIn) -> usize {
    kms.calls().iter().filter(|call| call.operation == "Decrypt").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_come_once_a_period_and_a_shorter_period_acts_at_once() {
    let (kms, key) = stand_in().await;
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let clock = ManualClock::new();
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks { clock: clock.clone(), ..Hooks::default() }).await.unwrap();
    node.svm("svm1").await;
    let mut body = enable_body("svm1", &kms, &key);
    body["polling_period"] = json!(10);
    let (status, enabled) = node.enable(body).await;
    assert_eq!(status, 201, "{enabled}");
    assert_eq!(kms.calls().len(), 3, "DescribeKey, Encrypt, Decrypt, and no poll on top of the proof: {:?}", kms.calls());
    kms.clear_calls();

    // Ten periods, minute by minute. A period is spread by a tenth, so ten polls take from 90 to 110 minutes.
    for _ in 0..100 {
        clock.advance(MINUTE);
        settled(&kms).await;
    }
    let counted = polls(&kms);
    assert!((9..=11).contains(&counted), "{counted} polls in ten periods");
    assert_eq!(kms.calls().len(), 2 * counted, "two calls a poll");

    let uuid = enabled["records"][0]["uuid"].as_str().unwrap();
    let (status, _, answer) = node.call("PATCH", &format!("/security/aws-kms/{uuid}?return_timeout=30"), Some(json!({ "polling_period": 1 }))).await;
    assert_eq!(status, 200, "{answer}");
    kms.clear_calls();
    // Half a minute at a time, for ten minutes: the next poll is due within 1.1 minutes, not at the end of the old period.
    for _ in 0..20 {
        clock.advance(MINUTE / 2);
        settled(&kms).await;
    }
    let counted = polls(&kms);
    assert!((6..=11).contains(&counted), "{counted} polls in ten periods of a minute");
    node.stop().await;
}

/// Waits until no call has come for a moment: the poller has done what was due.
async fn settled(kms: &KmsStandIn) {
    let (mut before, mut quiet) = (usize::MAX, 0);
    eventually("calls must come to an end", async || {
        let now = kms.calls().len();
        quiet = if now == before && now.is_multiple_of(2) { quiet + 1 } else { 0 };
        before = now;
        (quiet >= 5).then_some(())
    })
    .await;
}
