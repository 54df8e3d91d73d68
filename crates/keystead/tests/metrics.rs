//! `/metrics`: who may read it, and that it changes as things happen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::faulty::Mood;
use common::metrics::{Metric, Page, fetch};
use common::program::free_port;
use common::scene::{enabled, scene, scene_with};
use common::{Node, PASSWORD, enable_body, eventually};
use keystead::serve::Hooks;
use keystead_kmip::enumeration::ResultReason;
use keystead_store::Txn;
use keystead_testkit::KeyState;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_read_the_cluster_may_read_its_metrics() {
    let node = Node::start("", Hooks::default()).await;
    node.svm("svm1").await;
    let (readonly, tenant) = (node.account("watcher", "readonly", None).await, node.account("tenant", "vsadmin", Some("svm1")).await);
    let url = format!("https://{}/metrics", node.address);
    let get = |name: &'static str| node.client.get(&url).basic_auth(name, Some(PASSWORD));
    drop((readonly, tenant));
    assert_eq!(fetch(node.client.get(&url)).await.0, 401);
    assert_eq!(fetch(node.client.get(&url).basic_auth("watcher", Some("wrong"))).await.0, 401);
    let (status, text) = fetch(get("tenant")).await;
    assert!(status == 403 && !text.contains("keystead_"), "{text}");
    for (accept, kind, end) in [
        (None, "text/plain; version=0.0.4; charset=utf-8", "\n"),
        (
            Some("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "\n# EOF\n",
        ),
    ] {
        let request = accept.into_iter().fold(get("watcher"), |request, accept| request.header("accept", accept));
        let answer = request.send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (200, kind));
        let text = answer.text().await.unwrap();
        assert!(text.contains("\nkeystead_view_age_seconds ") && text.ends_with(end) && !text.contains("# EOF\n#"), "{text}");
    }
    assert_eq!(fetch(node.client.post(&url).basic_auth("admin", Some(PASSWORD))).await.0, 405);
    let page = Page::of(&node).await;
    assert_eq!(page.value(r#"keystead_rest_requests_total{method="GET",route="/metrics",status="4xx"}"#), 3.0);
    assert!(page.value(r#"keystead_rest_requests_total{method="GET",route="/metrics",status="2xx"}"#) >= 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_login_there_is_the_page_and_nothing_else() {
    let port = free_port();
    let node = Node::start(&format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n"), Hooks::default()).await;
    let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(keystead_client_config()).build().unwrap();
    let at = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let (status, text) = fetch(client.get(at("/metrics"))).await;
    assert_eq!(status, 200);
    let [own, of_rest] = [Page::new(text).metrics(), Page::of(&node).await.metrics()];
    assert_eq!(own.keys().collect::<Vec<_>>(), of_rest.keys().collect::<Vec<_>>());
    for (method, path, expected) in
        [("GET", "/", 404), ("GET", "/api/cluster", 404), ("POST", "/metrics", 405), ("GET", "/metrics/x", 404), ("HEAD", "/metrics", 200)]
    {
        let answer = client.request(method.parse().unwrap(), at(path)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{method} {path}");
    }
    // Many that are silent keep nobody out for good, and cost no more than their places.
    let silent: Vec<_> = (0..40).map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    drop(silent);
    let fresh = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(keystead_client_config()).build().unwrap();
    eventually("the page must be served again", async || {
        let answer = fresh.get(at("/metrics")).send().await.ok()?;
        (answer.status() == 200).then_some(())
    })
    .await;
    node.stop().await;
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "the listener ends with its node");
}

/// No certificate is believed: these clients speak in the clear.
fn keystead_client_config() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_to_an_svm_shows() {
    let scene = scene().await;
    let (node, mut kmip) = (&scene.node, scene.connect());
    let key = kmip.created(vec![]);
    kmip.get(&key);
    assert_eq!(kmip.get(NOWHERE).reason(), Some(ResultReason::ItemNotFound));
    for (svm, days) in [(Some("svm1"), 20), (Some("svm1"), 10), (None, 40)] {
        let mut certificate = json!({ "type": "server", "common_name": format!("host{days}"), "expiry_time": format!("P{days}DT") });
        if let Some(svm) = svm {
            certificate["svm"] = json!({ "name": svm });
        }
        assert_eq!(node.ask("POST", "/security/certificates", Some(certificate)).await.0, 201);
    }
    let good = Page::of(node).await;
    for (sample, value) in [
        (r#"keystead_svm_kek_state{svm="svm1",state="available"}"#, 1.0),
        (r#"keystead_svms{state="available"}"#, 1.0),
        (r#"keystead_svms{state="blocked"}"#, 0.0),
        ("keystead_svms_left_out", 0.0),
        (r#"keystead_kmip_operations_total{operation="Create",result="success"}"#, 1.0),
        (r#"keystead_kmip_operations_total{operation="Get",result="success"}"#, 1.0),
        (r#"keystead_kmip_operations_total{operation="Get",result="not_found"}"#, 1.0),
        (r#"keystead_kmip_operations_total{operation="Get",result="denied"}"#, 0.0),
        (r#"keystead_kmip_operation_duration_seconds_count{operation="Get"}"#, 2.0),
        (r#"keystead_kmip_operation_duration_seconds_bucket{operation="Get",le="+Inf"}"#, 2.0),
        (r#"keystead_svm_kmip_connections{svm="svm1"}"#, 1.0),
        ("keystead_kmip_connections", 1.0),
        (r#"keystead_jobs_ended_total{kind="enable",result="success"}"#, 1.0),
        (r#"keystead_job_duration_seconds_count{kind="enable"}"#, 1.0),
        (r#"keystead_aws_calls_total{operation="Encrypt",result="ok"}"#, 1.0),
        (r#"keystead_aws_call_duration_seconds_count{operation="Encrypt"}"#, 1.0),
        (r#"keystead_ekmip_clients{state="valid"}"#, 1.0),
        ("keystead_audit_writable", 1.0),
        ("keystead_audit_lost_records_total", 0.0),
    ] {
        assert_eq!(good.value(sample), value, "{sample}");
    }
    assert!(good.value(r#"keystead_aws_calls_total{operation="Decrypt",result="ok"}"#) >= 1.0);
    assert!(good.value(r#"keystead_kmip_operation_duration_seconds_sum{operation="Create"}"#) > 0.0);
    assert_eq!(good.find(r#"keystead_svm_refusal_timestamp_seconds{svm="svm1"}"#), None, "nothing is to be feared");
    // By the clock of the test.
    let polled = good.value(r#"keystead_svm_last_good_poll_timestamp_seconds{svm="svm1"}"#);
    let now = keystead_manager::clock::Clock::utc(&*scene.clock).as_second() as f64;
    assert!((polled - now).abs() < 5.0, "{polled} {now}");
    let day = 24.0 * 3600.0;
    let certificates = [r#"{kind="cluster_ca"}"#, r#"{kind="ekmip_server"}"#, r#"{kind="rest_server"}"#]
        .map(|label| good.value(&format!("keystead_certificate_expiry_timestamp_seconds{label}")));
    for kind in ["ekmip_server", "rest_server"] {
        let [expiry, renewal] = ["expiry", "renewal"].map(|what| good.value(&format!("keystead_certificate_{what}_timestamp_seconds{{kind=\"{kind}\"}}")));
        assert!(now < renewal && renewal < expiry, "{kind}: {now} {renewal} {expiry}");
    }
    let client = good.value(r#"keystead_svm_certificate_expiry_timestamp_seconds{svm="svm1",kind="ekmip_client"}"#);
    assert!(certificates.into_iter().chain([client]).all(|expiry| expiry > now + 30.0 * day), "{certificates:?} {client}");
    // Of those of /security/certificates, the first to end.
    for (sample, days) in [
        (r#"keystead_svm_certificate_expiry_timestamp_seconds{svm="svm1",kind="certificate"}"#, 10.0),
        (r#"keystead_certificate_expiry_timestamp_seconds{kind="certificate"}"#, 40.0),
    ] {
        let left = (good.value(sample) - now) / day;
        assert!((left - days).abs() < 0.1, "{sample}: {left} days");
    }

    // The tenant disables the key. Denials are confirmed within the grace of an hour, and keys will be refused at its end.
    let settings = json!({ "aws_kms": { "access_error_grace": "60m", "min_poll_interval": "5s" } });
    assert_eq!(node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await.0, 200);
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    scene.clock.advance(Duration::from_secs(2 * 60 * 60));
    let denied = eventually("the denial must be confirmed", async || {
        scene.clock.advance(Duration::from_secs(6));
        let page = Page::of(node).await;
        page.find(r#"keystead_svm_kek_state{svm="svm1",state="revoking"}"#).map(|_| page)
    })
    .await;
    assert_eq!(denied.of_metric("keystead_svm_kek_state").count(), 1, "one state at a time");
    assert!(denied.value(r#"keystead_polls_total{outcome="denied"}"#) >= 2.0);
    assert!(denied.value(r#"keystead_aws_calls_total{operation="Decrypt",result="denied"}"#) >= 2.0);
    assert!(denied.value(r#"keystead_events_total{severity="alert"}"#) + denied.value(r#"keystead_events_total{severity="error"}"#) >= 1.0);
    let now = keystead_manager::clock::Clock::utc(&*scene.clock).as_second() as f64;
    let left = denied.value(r#"keystead_svm_refusal_timestamp_seconds{svm="svm1"}"#) - now;
    assert!((3000.0..=3600.0).contains(&left), "{left}");
    assert_eq!(denied.value(r#"keystead_svm_last_good_poll_timestamp_seconds{svm="svm1"}"#), polled, "as it was");

    scene.block().await;
    assert_eq!(kmip.get(&key).reason(), Some(ResultReason::PermissionDenied));
    let blocked = Page::of(node).await;
    assert_eq!(blocked.value(r#"keystead_svm_kek_state{svm="svm1",state="blocked"}"#), 1.0);
    assert_eq!(blocked.value(r#"keystead_kmip_operations_total{operation="Get",result="denied"}"#), 1.0);
    assert_eq!(blocked.find(r#"keystead_svm_refusal_timestamp_seconds{svm="svm1"}"#), None, "it has happened");

    // A job that fails.
    node.svm("svm2").await;
    let (status, answer) = node.enable(enable_body("svm2", &scene.kms, &scene.key)).await;
    assert!(status >= 400, "{answer}");
    drop(kmip);
    eventually("the failure and the end of the connection must show", async || {
        let page = Page::of(node).await;
        assert_eq!(page.value(r#"keystead_jobs_ended_total{kind="enable",result="failure"}"#), 1.0);
        (page.value("keystead_kmip_connections") == 0.0 && page.find(r#"keystead_svm_kmip_connections{svm="svm1"}"#).is_none()).then_some(())
    })
    .await;
}

/// The moment is always near where max_unverified is hardly more than the time between two polls: that is no news while polls are good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_unverified_is_no_reason_to_fear_while_polls_are_good() {
    let scene = scene().await;
    let node = &scene.node;
    let path = format!("{}?return_timeout=30", scene.config);
    assert_eq!(node.ask("PATCH", &path, Some(json!({ "polling_period": 5, "keystead": { "max_unverified": "10m" } }))).await.0, 200);
    let refusal = r#"keystead_svm_refusal_timestamp_seconds{svm="svm1"}"#;
    eventually("the SVM must be served", async || (node.get(&format!("{}?fields=state", scene.config)).await["state"]["code"] == "0").then_some(())).await;
    assert_eq!(Page::of(node).await.find(refusal), None);
    scene.kms.set_key_state(&scene.key, KeyState::Unavailable).unwrap();
    // To the next poll, and no further: after ten minutes it has happened.
    scene.clock.advance(Duration::from_secs(5 * 60 + 31));
    eventually("the failing poll must show", async || Page::of(node).await.find(refusal)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_one_name_are_one_series() {
    let scene = scene().await;
    let store = scene.store.inner();
    let own = store.range(keystead_store::Range::prefix("/nodes/", 10)).await.unwrap().entries.remove(0);
    let mut other: Value = serde_json::from_slice(&own.value).unwrap();
    let name = other["name"].as_str().unwrap().to_owned();
    other["uuid"] = json!(NOWHERE);
    store.transact(Txn::new().put(format!("/nodes/{NOWHERE}"), other.to_string())).await.unwrap();
    // A page with a series twice is refused by Prometheus as a whole, and by `Page`.
    eventually("the one that is down must show", async || {
        (Page::of(&scene.node).await.value(&format!("keystead_node_up{{node=\"{name}\"}}")) == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_was_cancelled_has_not_failed() {
    let scene = scene().await;
    let node = &scene.node;
    let record = json!({
        "uuid": NOWHERE, "kind": { "type": "restore", "config": NOWHERE }, "description": "POST /api/security/aws-kms/x/restore", "account": "admin", "state": "paused",
        "message": "", "error": null, "start_time": jiff::Timestamp::now(), "end_time": null, "node": null, "svm": null
    });
    scene.store.inner().transact(Txn::new().put(format!("/jobs/{NOWHERE}"), record.to_string())).await.unwrap();
    let path = format!("/cluster/jobs/{NOWHERE}?action=cancel");
    eventually("the job must be cancelled", async || (node.ask("PATCH", &path, None).await.0 == 200).then_some(())).await;
    let page = Page::of(node).await;
    for (result, count) in [("cancelled", 1.0), ("failure", 0.0), ("success", 0.0)] {
        assert_eq!(page.value(&format!("keystead_jobs_ended_total{{kind=\"restore\",result=\"{result}\"}}")), count, "{result}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_shows_in_the_age_of_the_view() {
    let scene = scene().await;
    let before = Page::of(&scene.node).await;
    assert!(before.value("keystead_view_age_seconds") < 10.0);
    assert_eq!(before.value(r#"keystead_store_calls_total{operation="compare",result="unavailable"}"#), 0.0);
    assert!(before.value(r#"keystead_store_calls_total{operation="transact",result="ok"}"#) > 0.0);
    scene.store.set(Mood::Unavailable);
    let away = eventually("the view must become old", async || {
        let page = Page::of(&scene.node).await;
        (page.value("keystead_view_age_seconds") > 3.0).then_some(page)
    })
    .await;
    assert!(away.value(r#"keystead_store_calls_total{operation="compare",result="unavailable"}"#) >= 1.0);
    scene.store.set(Mood::Good);
    eventually("the view must be young again", async || (Page::of(&scene.node).await.value("keystead_view_age_seconds") < 2.0).then_some(())).await;
}

/// More SVMs than there is room for: the page has those that are in trouble.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn svms_in_trouble_have_their_series_first() {
    let scene = scene_with("[metrics]\nmax_svms = 1\n", Hooks::default()).await;
    let node = &scene.node;
    node.svm("svm0").await;
    let other = scene.kms.create_key(keystead_testkit::NewKey::default()).unwrap().key_id;
    enabled(node, &scene.kms, &other, "svm0").await;
    let page = Page::of(node).await;
    assert_eq!(page.of_metric("keystead_svm_kek_state").collect::<Vec<_>>(), [(r#"keystead_svm_kek_state{svm="svm0",state="available"}"#, 1.0)]);
    assert_eq!((page.value("keystead_svms_left_out"), page.value(r#"keystead_svms{state="available"}"#)), (1.0, 2.0));
    scene.block().await;
    let page = Page::of(node).await;
    assert_eq!(page.of_metric("keystead_svm_kek_state").collect::<Vec<_>>(), [(r#"keystead_svm_kek_state{svm="svm1",state="blocked"}"#, 1.0)]);
    assert_eq!((page.value("keystead_svms_left_out"), page.value(r#"keystead_svms{state="blocked"}"#)), (1.0, 1.0));
}

/// The rows of the manual's table: name, type and labels.
fn manual() -> BTreeMap<String, Metric> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/manual/metrics.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `keystead_") || line.starts_with("| `process_"));
    let mut metrics = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, meaning, _alert] = cells[..] else { panic!("not five cells: {row}") };
        assert!(meaning.len() > 10, "{row}");
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(metrics.insert(name.trim_matches('`').to_owned(), Metric { kind: kind.to_owned(), labels }).is_none(), "{name} has two rows");
    }
    metrics
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manual_has_each_metric_and_no_other() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let key = kmip.created(vec![]);
    kmip.get(&key);
    let page = Page::of(&scene.node).await;
    let (manual, now) = (manual(), page.metrics());
    assert_eq!(manual.keys().collect::<Vec<_>>(), now.keys().collect::<Vec<_>>());
    for (name, metric) in &now {
        assert_eq!(manual[name].kind, metric.kind, "the type of {name}");
        // Where nothing has happened there is no sample, and so there are no labels to see.
        if page.of_metric(name).next().is_some() || metric.kind == "histogram" {
            assert_eq!(manual[name].labels, metric.labels, "the labels of {name}");
        }
        assert_eq!(metric.kind == "counter", name.ends_with("_total"), "{name}");
    }
}

/// What a scrape of many SVMs costs. The figures of the long form are in docs/decisions/0028-metrics-and-traces.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_stays_short_however_many_svms_there_are() {
    // With svm1, as many as `[metrics] max_svms` lets have series.
    let count: usize = if std::env::var_os("SOAK").is_some() { 9_999 } else { 300 };
    let scene = scene().await;
    let store = scene.store.inner();
    let svm = scene.svm_uuid("svm1").await;
    // Each as svm1 is, but for its identifiers: the records of the SVM, its configuration, its KEK, its key store and its client.
    let records: Vec<(String, Value)> = {
        let page = store.range(keystead_store::Range::prefix("/", 1_000)).await.unwrap();
        let of_svm = page.entries.iter().filter(|entry| entry.value.windows(svm.len()).any(|window| window == svm.as_bytes()));
        of_svm
            .filter_map(|entry| Some((entry.key.clone(), serde_json::from_slice(&entry.value).ok()?)))
            .filter(|(key, _)| ["/svms/", "/aws-kms/", "/keks/", "/key-stores/", "/ekmip/clients/"].iter().any(|prefix| key.starts_with(prefix)))
            .collect()
    };
    assert!(records.len() >= 5, "{:?}", records.iter().map(|(key, _)| key).collect::<Vec<_>>());
    for some in (0..count).collect::<Vec<_>>().chunks(20) {
        let mut txn = Txn::new();
        for number in some {
            let ids: BTreeMap<String, String> = records
                .iter()
                .flat_map(|(key, value)| key.split('/').map(str::to_owned).chain(value["uuid"].as_str().map(str::to_owned)).collect::<Vec<_>>())
                .filter(|part| part.parse::<uuid::Uuid>().is_ok())
                .map(|id| (id, uuid::Uuid::new_v4().to_string()))
                .collect();
            for (key, value) in &records {
                let (mut key, mut text) = (key.clone(), value.to_string().replace("\"svm1\"", &format!("\"svm-of-a-tenant-{number:05}\"")));
                for (old, new) in &ids {
                    (key, text) = (key.replace(old, new), text.replace(old, new));
                }
                txn = txn.put(key, text);
            }
        }
        store.transact(txn).await.unwrap();
    }
    // Longer than the usual minute: in the long form, the node has thousands of polls to make meanwhile.
    let deadline = Instant::now() + Duration::from_secs(600);
    let page = loop {
        let page = Page::of(&scene.node).await;
        let seen = page.of_metric("keystead_svm_kek_state").count();
        if seen == count + 1 {
            break page;
        }
        assert!(Instant::now() < deadline, "{seen} of {count} SVMs have their series");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        Page::of(&scene.node).await;
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "{}",
        json!({ "metrics": "scrape", "svms": count + 1, "bytes": page.text.len(), "median_ms": times[2].as_secs_f64() * 1e3, "samples": page.text.lines().filter(|line| !line.starts_with('#')).count() })
    );
    let of_one = page.text.lines().filter(|line| line.contains("svm-of-a-tenant-00007")).map(|line| line.len() + 1).sum::<usize>();
    assert!(of_one < 600, "{of_one} bytes of one SVM");
    assert!(times[2] < Duration::from_secs(5), "{times:?}");
}
