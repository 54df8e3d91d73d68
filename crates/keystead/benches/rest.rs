//! The REST budgets, over kept TLS connections: a GET of one configuration against a static answer of the same server; and the same GET by a client that sends its password with each request
//! against one with a session. Each pair is measured in turn, in one run, and only their ratio means something.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common::{Node, PASSWORD, enable_body, stand_in, toml_for};
use crate::measure::median;
use keystead::serve::Hooks;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(400);
const BUDGET: f64 = 0.5;
/// A password on each request costs a fifth at most.
const BASIC_BUDGET: f64 = 0.8;

#[tokio::main]
pub async fn main() {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
    node.svm("svm1").await;
    let (status, body) = node.enable(enable_body("svm1", &kms, &key)).await;
    assert_eq!(status, 201, "{body}");
    let config = format!("https://{}/api/security/aws-kms/{}", node.address, body["records"][0]["uuid"].as_str().unwrap());
    let fixed = format!("https://{}/healthz", node.address);
    let session = node.client.post(format!("https://{}/api/security/ekmip/sessions", node.address)).basic_auth("admin", Some(PASSWORD)).send().await.unwrap();
    let cookie = session.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let basic = |request: reqwest::RequestBuilder| request.basic_auth("admin", Some(PASSWORD));
    let by_session = |request: reqwest::RequestBuilder| request.header("cookie", &cookie);
    let (mut gets, mut answers, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        answers.push(rate(&node, &fixed, basic).await);
        gets.push(rate(&node, &config, basic).await);
        sessions.push(rate(&node, &config, by_session).await);
    }
    let (get, answer, session) = (median(gets), median(answers), median(sessions));
    println!(
        "REST GET of one configuration, one kept TLS connection: {get:.0}/s; a static answer of the same server: {answer:.0}/s; with a session: {session:.0}/s"
    );
    for (what, ratio, budget) in [("static answer", get / answer, BUDGET), ("Basic on each request against a session", get / session, BASIC_BUDGET)] {
        println!("{what}: ratio {ratio:.2}, budget {budget}: {}", if ratio >= budget { "met" } else { "MISSED" });
    }
    node.stop().await;
}

/// Requests a second, one after the other.
async fn rate(node: &Node, url: &str, login: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> f64 {
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed() < ROUND {
        let answer = login(node.client.get(url)).send().await.unwrap();
        assert!(answer.status().is_success());
        answer.bytes().await.unwrap();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}
