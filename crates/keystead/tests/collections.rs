//! Collections, links, jobs under an operator's hand, SVM tunnelling, SVMs and settings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::{Node, PASSWORD, code, enable_body, eventually, stand_in, toml_for};
use futures_util::StreamExt as _;
use keystead::serve::Hooks;
use keystead_testkit::{Fault, FaultRule, KmsStandIn};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

async fn node() -> (Node, KmsStandIn, String) {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
    (node, kms, key)
}

fn names(collection: &Value) -> Vec<String> {
    collection["records"].as_array().unwrap().iter().map(|record| record["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_was_shown_before_shows_what_has_changed_since() {
    let (node, kms, key) = node().await;
    let (one, other) = (node.svm("one").await, node.svm("other").await);
    let mut configs = Vec::new();
    for name in ["one", "other"] {
        let (status, body) = node.enable(enable_body(name, &kms, &key)).await;
        assert_eq!(status, 201, "{body}");
        configs.push(body["records"][0]["uuid"].as_str().unwrap().to_owned());
    }
    let list = async || node.get("/security/aws-kms?fields=*&order_by=svm.name").await["records"].as_array().unwrap().clone();
    // A record of a list is what a GET of it shows, each time.
    let shown = async || {
        let records = list().await;
        for record in &records {
            let whole = node.get(&format!("/security/aws-kms/{}?fields=*", record["uuid"].as_str().unwrap())).await;
            assert_eq!(record, &whole);
        }
        records
    };
    assert_eq!((shown().await.len(), shown().await), (2, list().await));
    assert_eq!(node.ask("PATCH", &format!("/security/aws-kms/{}?return_timeout=60", configs[0]), Some(json!({ "polling_period": 77 }))).await.0, 200);
    let records = shown().await;
    assert_eq!((&records[0]["polling_period"], &records[1]["polling_period"]), (&json!(77), &json!(60)));
    assert_eq!(node.ask("PATCH", &format!("/svm/svms/{other}?return_timeout=60"), Some(json!({ "name": "renamed" }))).await.0, 200);
    assert_eq!(shown().await[1]["svm"]["name"], "renamed");
    assert_eq!(node.ask("DELETE", &format!("/security/aws-kms/{}?return_timeout=60", configs[0]), None).await.0, 200);
    let records = shown().await;
    assert_eq!((records.len(), &records[0]["svm"]["uuid"]), (1, &json!(other)));
    let without = node.get(&format!("/security/aws-kms?svm.uuid={one}")).await;
    assert_eq!(without["num_records"], 0);
    // Fewer fields are no part of the text that is kept.
    let fewer = node.get("/security/aws-kms?fields=region").await["records"][0].clone();
    assert!(fewer["region"].is_string() && fewer["key_id"].is_null(), "{fewer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_lead_through_everything_once() {
    let (node, _kms, _) = node().await;
    for n in 0..7 {
        node.svm(&format!("svm{n}")).await;
    }
    let whole = node.get("/svm/svms").await;
    assert_eq!((whole["num_records"].as_u64(), whole["_links"]["self"]["href"].as_str()), (Some(7), Some("/api/svm/svms")));
    for order in ["", "&order_by=name%20desc"] {
        let mut seen = Vec::new();
        let mut path = format!("/svm/svms?max_records=3&fields=comment{order}");
        loop {
            let (_, headers, page) = node.call("GET", &path, None).await;
            assert!(page["num_records"].as_u64().unwrap() <= 3);
            seen.extend(names(&page));
            let Some(next) = page["_links"]["next"]["href"].as_str() else { break };
            assert_eq!(headers["link"].to_str().unwrap(), format!("<{next}>; rel=\"next\""));
            assert!(next.contains("fields="), "the next page repeats all parameters: {next}");
            path = next.strip_prefix("/api").unwrap().to_owned();
        }
        let mut sorted = seen.clone();
        sorted.sort();
        assert_eq!(sorted, (0..7).map(|n| format!("svm{n}")).collect::<Vec<_>>());
        if !order.is_empty() {
            assert!(seen.is_sorted_by(|one, other| one > other), "{seen:?}");
        }
    }
    let counted = node.get("/svm/svms?return_records=false").await;
    assert_eq!(counted, json!({ "num_records": 7 }), "nothing but the number");
    let (_, headers, counted) = node.call("GET", "/svm/svms?return_records=false&max_records=3", None).await;
    assert_eq!(counted, json!({ "num_records": 3 }));
    assert!(headers["link"].to_str().unwrap().contains("start=") && headers["content-type"] == "application/json", "the way on is in the header: {headers:?}");
    assert_eq!(names(&node.get("/svm/svms?name=svm3").await), ["svm3"]);
    assert_eq!(names(&node.get("/svm/svms?name=svm3&subtype=other").await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_are_left_out_for_clients_that_prefer_plain_json() {
    let (node, _kms, _) = node().await;
    node.svm("svm1").await;
    node.svm("svm2").await;
    let ask = async |accept: &str| {
        let request =
            node.client.get(format!("https://{}/api/svm/svms?max_records=1", node.address)).basic_auth("admin", Some(PASSWORD)).header("accept", accept);
        let answer = request.send().await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (kind, serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap())
    };
    let (kind, body) = ask("application/json").await;
    assert!(body["records"][0].get("_links").is_none() && body["_links"].get("self").is_none());
    let next = body["_links"]["next"]["href"].as_str().unwrap_or_else(|| panic!("the way to the next page is always there: {kind} {body}")).to_owned();
    let request = node.client.get(format!("https://{}{next}", node.address)).basic_auth("admin", Some(PASSWORD)).header("accept", "application/json");
    let last: Value = serde_json::from_slice(&request.send().await.unwrap().bytes().await.unwrap()).unwrap();
    assert!(
        last["_links"]["self"]["href"].is_string() && last["_links"].get("next").is_none(),
        "and links on the page that it leads to, also on the last: {last}"
    );
    for (accept, links) in [
        ("*/*", true),
        ("application/hal+json", true),
        ("application/json, application/hal+json", true),
        ("application/json;q=0.1, */*", true),
        ("application/hal+json;q=0.5, application/json;q=0.4", true),
        ("application/json, application/hal+json;q=0.1", false),
        ("application/json, */*;q=0.1", false),
        ("APPLICATION/JSON; charset=utf-8 ; Q=0.9, application/*; q=0.8", false),
    ] {
        let (_, body) = ask(accept).await;
        assert_eq!(body["records"][0]["_links"]["self"]["href"].is_string(), links, "{accept}");
    }
    // Several headers are as one.
    let request = node.client.get(format!("https://{}/api/svm/svms?max_records=10", node.address)).basic_auth("admin", Some(PASSWORD));
    let answer = request.header("accept", "application/hal+json;q=0.2").header("accept", "application/json").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    for accept in ["*/*", "application/hal+json", "application/json, application/hal+json"] {
        let (kind, body) = ask(accept).await;
        assert_eq!(kind, "application/hal+json");
        assert!(body["records"][0]["_links"]["self"]["href"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compared_is_of_one_kind() {
    let (node, _kms, _) = node().await;
    node.svm("svm1").await;
    for name in ["one", "two"] {
        let body = json!({ "svm": { "name": "svm1" }, "common_name": name });
        assert_eq!(node.ask("POST", "/security/ekmip/clients?return_records=true", Some(body)).await.0, 201);
    }
    let count = async |query: &str| node.get(&format!("{query}&return_records=false")).await["num_records"].as_u64().unwrap();
    // A moment is compared as a moment, though what is given is how long it is valid.
    assert_eq!(count("/security/ekmip/clients?expiry_time=%3C=2020-01-01").await, 0);
    assert_eq!(count("/security/ekmip/clients?expiry_time=%3E2020-01-01").await, 2);
    assert_eq!(code(&node.ask("GET", "/security/ekmip/clients?expiry_time=soon", None).await), "262247");
    let (status, answer) = node.ask("DELETE", "/security/ekmip/clients?expiry_time=%3C=2020-01-01", None).await;
    assert_eq!((status, answer["num_records"].as_u64()), (200, Some(0)), "{answer}");
    let page = node.get("/security/ekmip/clients?order_by=expiry_time&max_records=1").await;
    let next = page["_links"]["next"]["href"].as_str().unwrap().strip_prefix("/api").unwrap();
    assert_eq!(node.get(next).await["num_records"], 1, "a position among moments");
    // An object is no text.
    assert_eq!(count("/security/accounts?query=zzz&query_fields=*").await, 0);
    assert_eq!(count("/security/accounts?query=admin&query_fields=*,name,*,name").await, 1);
    for (query, expected) in [
        (format!("query={}&query_fields=*", "z|".repeat(600)), "262245"),
        (format!("query=z&query_fields={}", "*,".repeat(600)), "262245"),
        ("query=z&query_fields=,".to_owned(), "262275"),
        (format!("name={}", "*a|".repeat(65)), "262245"),
        ("offset=100001".to_owned(), "262245"),
    ] {
        assert_eq!(code(&node.ask("GET", &format!("/security/accounts?{query}"), None).await), expected, "{query}");
    }
    // What is another value each time has no place in an order.
    for field in ["date", "uptime"] {
        assert_eq!(code(&node.ask("GET", &format!("/cluster/nodes?order_by={field}"), None).await), "262268");
    }
}

/// At most 100 records of a request are looked at live; which ones, the filters and the page say, and not where they stand among all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_looks_go_to_what_is_shown_and_are_shared() {
    let (node, kms, key) = node().await;
    let wanted = 103;
    let tasks = futures_util::stream::iter(0..wanted).map(|n| {
        let (node, kms, key) = (&node, &kms, &key);
        async move {
            let name = format!("svm{n}");
            node.svm(&name).await;
            let (status, body) = node.ask("POST", "/security/aws-kms?return_timeout=60", Some(common::enable_body(&name, kms, key))).await;
            assert_eq!(status, 201, "{body}");
        }
    });
    tasks.buffer_unordered(8).collect::<Vec<_>>().await;
    let all = node.get("/security/aws-kms?fields=state").await;
    let codes =
        |page: &Value| page["records"].as_array().unwrap().iter().map(|record| record["state"]["code"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!((codes(&all).iter().filter(|code| *code == "0").count(), codes(&all).iter().filter(|code| *code == "262160").count()), (100, wanted - 100));
    let last = all["records"][wanted - 1]["svm"]["name"].as_str().unwrap().to_owned();
    assert_eq!(codes(&node.get(&format!("/security/aws-kms?svm.name={last}&fields=state")).await), ["0"]);
    let first_page = node.get("/security/aws-kms?max_records=100&fields=state").await;
    let next = first_page["_links"]["next"]["href"].as_str().unwrap().strip_prefix("/api").unwrap();
    assert_eq!(codes(&node.get(next).await), ["0"; 3], "the next page is looked at too");
    assert_eq!(codes(&node.get("/security/aws-kms?fields=state&offset=100").await), ["0"; 3], "what is passed over is not looked at");
    let first_page = node.get("/security/aws-kms?max_records=100&fields=state&state.code=!262160").await;
    let next = first_page["_links"]["next"]["href"].as_str();
    assert_eq!((codes(&first_page).len(), next), (100, None), "the others are not known, and so do not pass");
    let first_page = node.get("/security/aws-kms?max_records=100&fields=state&state.code=!nonsense").await;
    let next = first_page["_links"]["next"]["href"].as_str().unwrap().strip_prefix("/api").unwrap();
    assert_eq!(codes(&node.get(next).await), ["0"; 3], "each page has its own looks, also where a filter needs them");
    // Readers at the same time share one look at AWS.
    kms.clear_calls();
    let path = format!("/security/aws-kms?svm.name={last}&fields=amazon_reachability");
    for answer in futures_util::future::join_all((0..8).map(|_| node.get(&path))).await {
        assert_eq!(answer["records"][0]["amazon_reachability"]["reachable"], true);
    }
    assert_eq!(kms.calls().into_iter().filter(|call| call.operation == "DescribeKey").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_can_be_cancelled_and_leaves_nothing() {
    let (node, kms, key) = node().await;
    node.svm("svm1").await;
    kms.add_fault(FaultRule::always(Fault::Hang));
    let (status, _, body) = node.call("POST", "/security/aws-kms", Some(enable_body("svm1", &kms, &key))).await;
    assert_eq!(status, 202);
    kms.wait_held(1, Duration::from_secs(20)).await;
    let job = format!("/cluster/jobs/{}", body["job"]["uuid"].as_str().unwrap());
    for (action, expected) in [("resume", "458771"), ("pause", "458783"), ("nonsense", "262247")] {
        assert_eq!(code(&node.ask("PATCH", &format!("{job}?action={action}"), None).await), expected, "a running job");
    }
    assert_eq!(code(&node.ask("PATCH", &format!("{job}?action=cancel"), Some(json!({ "action": "pause" }))).await), "262186", "which of both?");
    assert_eq!(node.ask("PATCH", &format!("{job}?action=cancel"), Some(json!({ "action": "cancel" }))).await.0, 200);
    let ended = node.get(&job).await;
    assert_eq!(ended["state"], "failure");
    assert!(!ended["message"].as_str().unwrap().is_empty());
    for action in ["pause", "resume", "cancel"] {
        assert_eq!(code(&node.ask("PATCH", &format!("{job}?action={action}"), None).await), "458762", "an ended job");
    }
    kms.clear_faults();
    kms.release();
    let answer = node.enable(enable_body("svm1", &kms, &key)).await;
    assert_eq!(answer.0, 201, "the SVM is free: {answer:?}");
    assert_eq!(code(&node.ask("PATCH", "/cluster/jobs/00000000-0000-0000-0000-000000000000?action=cancel", None).await), "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_can_be_paused_and_goes_on() {
    let (node, kms, key) = node().await;
    node.svm("svm1").await;
    let (status, body) = node.enable(enable_body("svm1", &kms, &key)).await;
    assert_eq!(status, 201, "{body}");
    let config = format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap());
    // Jobs of one configuration go one after the other.
    kms.add_fault(FaultRule::always(Fault::Hang));
    let credentials = json!({ "access_key_id": common::ACCESS_KEY_ID, "secret_access_key": common::SECRET });
    assert_eq!(node.ask("PATCH", &config, Some(credentials)).await.0, 202);
    kms.wait_held(1, Duration::from_secs(20)).await;
    let (_, body) = node.ask("PATCH", &config, Some(json!({ "polling_period": 7 }))).await;
    let job = format!("/cluster/jobs/{}", body["job"]["uuid"].as_str().unwrap());
    for (action, wanted) in [("resume", Some("458776")), ("pause", None), ("pause", Some("458776")), ("resume", None), ("resume", Some("458776"))] {
        let answer = node.ask("PATCH", &format!("{job}?action={action}"), None).await;
        match wanted {
            None => assert_eq!(answer, (200, json!({})), "{action}"),
            Some(wanted) => assert_eq!(code(&answer), wanted, "{action}"),
        }
    }
    kms.clear_faults();
    kms.release();
    eventually("the job goes on", async || (node.get(&job).await["state"] == "success").then_some(())).await;
    let jobs = node.get("/cluster/jobs").await;
    assert!(jobs["num_records"].as_u64().unwrap() >= 3);
    for job in jobs["records"].as_array().unwrap() {
        assert!(job["message"].is_string(), "clients read it in lists as well: {job}");
    }
    assert!(node.get("/cluster/jobs?fields=uuid,!message").await["records"][0]["message"].is_string());
    for path in ["", "?fields=state", "?fields=!message"] {
        assert!(node.get(&format!("{job}{path}")).await["message"].is_string(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_read_past_wherever_that_is_asked_for() {
    let (node, kms, key) = node().await;
    node.svm("svm1").await;
    let (status, body) = node.enable(enable_body("svm1", &kms, &key)).await;
    assert_eq!(status, 201, "{body}");
    let config = format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap());
    for fields in ["svm.{name,nope}", "nope,svm.{nope},region", "!svm.{nope}", "nope.{a,b}", "{region,nope}"] {
        for path in [&config, "/security/aws-kms"] {
            let record = node.ask("GET", &format!("{path}?ignore_unknown_fields=true&fields={fields}"), None).await;
            assert_eq!(record.0, 200, "{fields}: {record:?}");
            assert_eq!(code(&node.ask("GET", &format!("{path}?fields={fields}"), None).await), "262197", "{fields}");
        }
    }
    assert_eq!(node.get(&format!("{config}?ignore_unknown_fields=true&fields=nope,region.{{nope}},port")).await["port"], kms.addr().port());
    for fields in ["svm.{name,nope", "svm.name}", "svm.{nope}x", "svm.{a,{b}}"] {
        let answer = node.ask("GET", &format!("{config}?ignore_unknown_fields=true&fields={fields}"), None).await;
        assert_eq!(code(&answer), "262286", "{fields}");
    }
    for action in ["restore", "rekey-internal"] {
        let answer = node.ask("POST", &format!("{config}/{action}?return_timeout=60"), Some(json!({ "nope": 1 }))).await;
        assert_eq!((code(&answer), answer.1["error"]["target"].as_str()), ("262179".to_owned(), Some("nope")), "{action}");
        let answer = node.ask("POST", &format!("{config}/{action}?ignore_unknown_fields=true"), Some(json!({ "nope": 1 }))).await;
        // The other has no keys to wrap again.
        assert!(answer.0 == 202 || code(&answer) == "65537559", "{action}: {answer:?}");
    }
    // A parameter that would be a filter elsewhere.
    for (method, body) in [("DELETE", json!({})), ("PATCH", json!({ "polling_period": 7 }))] {
        let answer = node.ask(method, &format!("{config}?region=x"), Some(body)).await;
        assert_eq!((answer.0, code(&answer)), (400, "262211".to_owned()));
        assert!(!answer.1["error"]["message"].as_str().unwrap().contains("POST"), "it is none: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_no_login_says_which_methods_it_has() {
    let (node, _, _) = node().await;
    let ask = async |method: &str, path: &str| {
        let answer = node.client.request(method.parse().unwrap(), format!("https://{}{path}", node.address)).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.text().await.unwrap())
    };
    for path in ["/healthz", "/api/openapi.json", "/docs/api", "/docs/api/"] {
        let (status, headers, body) = ask("OPTIONS", path).await;
        assert_eq!((status, body.as_str(), headers.get("allow").unwrap().to_str().unwrap()), (200, "", "GET, HEAD, OPTIONS"), "{path}");
        assert_eq!((headers.get("content-type"), headers["content-length"].to_str().unwrap()), (None, "0"), "{path}");
        let (status, headers, body) = ask("DELETE", path).await;
        assert_eq!((status, headers["allow"].to_str().unwrap()), (405, "GET, HEAD, OPTIONS"), "{path}: {body}");
        let (status, headers, body) = ask("GET", path).await;
        assert_eq!((status, headers["content-length"].to_str().unwrap()), (200, body.len().to_string().as_str()), "{path}");
        let (status, of_head, body) = ask("HEAD", path).await;
        assert_eq!(
            (status, &of_head["content-type"], &of_head["content-length"], body.as_str()),
            (200, &headers["content-type"], &headers["content-length"], "")
        );
    }
    let (plain, pretty) = (ask("GET", "/api/openapi.json").await.2, ask("GET", "/api/openapi.json?pretty=true").await.2);
    assert!(!plain.contains('\n') && pretty.contains("\n  \"openapi\": \"3.1.0\""));
    assert_eq!(serde_json::from_str::<Value>(&plain).unwrap(), serde_json::from_str::<Value>(&pretty).unwrap());
    let (status, headers, _) = ask("OPTIONS", "/api/svm/svms").await;
    assert_eq!((status, headers.get("content-type")), (200, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_made_is_answered_with_all_that_was_given() {
    let (node, kms, key) = node().await;
    node.svm("svm1").await;
    let mut body = enable_body("svm1", &kms, &key);
    let own = json!({ "access_error_grace": "30m", "max_unverified": "120m", "ca_certificates": kms.ca_pem() });
    body["keystead"] = own.clone();
    let (status, answer) = node.enable(body).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["records"][0]["keystead"], own);
    let shown = node.get(&format!("/security/aws-kms/{}?fields=keystead", answer["records"][0]["uuid"].as_str().unwrap())).await;
    for (member, value) in own.as_object().unwrap() {
        assert_eq!(&shown["keystead"][member], value, "as a GET shows it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_job_is_forgotten_after_its_retention() {
    let (node, _kms, _) = node().await;
    node.svm("svm1").await;
    assert_eq!(node.get("/cluster/jobs").await["num_records"], 1);
    let uuid = node.get("/cluster/jobs").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    assert_eq!(node.ask("PATCH", "/security/ekmip/settings", Some(json!({ "jobs": { "retention": "1s" } }))).await.0, 200);
    eventually("the job must be forgotten", async || (node.ask("GET", &format!("/cluster/jobs/{uuid}"), None).await.0 == 404).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnelling_names_the_svm_in_a_header() {
    let (node, kms, key) = node().await;
    let uuid = node.svm("svm1").await;
    let mut body = enable_body("svm1", &kms, &key);
    body.as_object_mut().unwrap().remove("svm");
    let post = async |header: &str, value: &str, body: &Value| {
        let request = node.client.post(format!("https://{}/api/security/aws-kms?return_timeout=60", node.address)).basic_auth("admin", Some(PASSWORD));
        let answer = request.header(header, value).body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap())
    };
    assert_eq!(code(&post("x-dot-svm-name", "svm1", &enable_body("svm2", &kms, &key)).await), "2621706");
    assert_eq!(code(&post("x-dot-svm-uuid", "no uuid", &body).await), "262247");
    assert_eq!(post("x-dot-svm-uuid", &uuid, &body).await.0, 201);
    assert_eq!(code(&post("x-dot-svm-name", "SVM1", &body).await), "65537910", "names do not go by case");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn svms_are_made_renamed_and_deleted() {
    let (node, _kms, _) = node().await;
    let uuid = node.svm("svm1").await;
    let path = format!("/svm/svms/{uuid}");
    assert_eq!(code(&node.ask("POST", "/svm/svms", Some(json!({ "name": "SVM1" }))).await), "1");
    assert_eq!(code(&node.ask("POST", "/svm/svms", Some(json!({ "name": "1svm" }))).await), "2621471");
    assert_eq!(node.ask("PATCH", &format!("{path}?return_timeout=30"), Some(json!({ "name": "renamed", "comment": "a tenant" }))).await.0, 200);
    let record = node.get(&path).await;
    assert_eq!((&record["name"], &record["comment"], &record["state"]), (&json!("renamed"), &json!("a tenant"), &json!("running")));
    node.svm("svm1").await;
    assert_eq!(code(&node.ask("PATCH", &path, Some(json!({ "name": "svm1" }))).await), "1");
    assert_eq!(node.ask("DELETE", &format!("{path}?return_timeout=30"), None).await.0, 200);
    assert_eq!(code(&node.ask("GET", &path, None).await), "4");
    assert_eq!(names(&node.get("/svm/svms").await), ["svm1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_tells_its_version_and_nodes() {
    let (node, _kms, _) = node().await;
    let cluster = node.get("/cluster?fields=version").await;
    assert_eq!((&cluster["version"]["generation"], &cluster["version"]["major"], &cluster["version"]["minor"]), (&json!(9), &json!(16), &json!(1)));
    let nodes = node.get("/cluster/nodes?fields=*").await;
    let record = &nodes["records"][0];
    assert_eq!((&nodes["num_records"], &record["state"]), (&json!(1), &json!("up")));
    assert_eq!(node.get(&format!("/cluster/nodes/{}", record["uuid"].as_str().unwrap())).await["name"], record["name"]);
    assert_eq!(node.ask("PATCH", "/security/ekmip/settings", Some(json!({ "cluster": { "name": "other" } }))).await.0, 200);
    assert_eq!(node.get("/cluster").await["name"], "other");
    assert_eq!(code(&node.ask("PATCH", "/security/ekmip/settings", Some(json!({ "aws_kms": { "min_poll_interval": "0s" } }))).await), "262245");
    assert_eq!(code(&node.ask("PATCH", "/security/ekmip/settings", Some(json!({}))).await), "65537541");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_list_comes_in_parts_and_is_the_same_list() {
    let (node, ..) = node().await;
    let records: Vec<Value> = (0..250).map(|n| json!({ "name": format!("svm{n:03}"), "comment": "x".repeat(200) })).collect();
    let (status, answer) = node.ask("POST", "/svm/svms?return_timeout=60", Some(json!({ "records": records }))).await;
    assert_eq!(status, 201, "{answer}");
    let ask = async |method: &str, query: &str| {
        let url = format!("https://{}/api/svm/svms?order_by=name&name=svm*&{query}", node.address);
        let answer = node.client.request(method.parse().unwrap(), url).basic_auth("admin", Some(PASSWORD)).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.text().await.unwrap())
    };
    let (status, headers, whole) = ask("GET", "fields=*").await;
    assert_eq!((status, headers.get("content-length"), headers["content-type"].to_str().unwrap()), (200, None, "application/hal+json"));
    assert!(whole.len() > 70_000, "{}", whole.len());
    let list: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!((list["num_records"].as_u64(), names(&list).len()), (Some(250), 250));
    assert!(names(&list).is_sorted());
    // As a whole, for the eye; in pages; and not at all.
    let (_, headers, pretty) = ask("GET", "fields=*&pretty=true").await;
    assert_eq!(headers["content-length"].to_str().unwrap(), pretty.len().to_string());
    assert_eq!(serde_json::from_str::<Value>(&pretty).unwrap()["records"], list["records"]);
    let (_, headers, page) = ask("GET", "fields=*&max_records=20").await;
    assert_eq!(headers["content-length"].to_str().unwrap(), page.len().to_string());
    assert_eq!(serde_json::from_str::<Value>(&page).unwrap()["records"].as_array().unwrap()[..], list["records"].as_array().unwrap()[..20]);
    let (status, headers, body) = ask("HEAD", "fields=*").await;
    assert_eq!((status, headers.get("content-length"), body.as_str()), (200, None, ""), "nobody knows how long it would be");
    // The connection goes on behind it, and behind one that is not read to its end.
    for _ in 0..3 {
        let url = format!("https://{}/api/svm/svms?fields=*", node.address);
        let mut answer = node.client.get(url).basic_auth("admin", Some(PASSWORD)).send().await.unwrap();
        assert!(answer.chunk().await.unwrap().is_some());
        drop(answer);
        assert_eq!(node.get("/svm/svms?name=svm*").await["num_records"], 250);
    }
}
