//! The preflight: on demand (`keystead.check`), and by itself where enabling fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::scene::{Scene, scene};
use common::{SECRET, code, enable_body};
use keystead_testkit::{Denial, Fault, FaultRule, KeyState};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpListener;

const STEPS: [&str; 10] = ["dns", "egress", "route", "proxy", "tls", "clock_skew", "credentials", "describe_key", "encrypt", "decrypt"];

async fn check(scene: &Scene) -> Value {
    // Past what is shared.
    scene.clock.advance(Duration::from_secs(6));
    let record = scene.node.get(&format!("{}?fields=keystead.check", scene.config)).await;
    assert_eq!(record["keystead"].as_object().unwrap().len(), 1, "what was not named is not shown: {record}");
    let check = record["keystead"]["check"].clone();
    let names: Vec<&str> = check["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(names, STEPS);
    assert!(!check.to_string().contains(SECRET));
    for step in check["steps"].as_array().unwrap() {
        assert!(step["duration_ms"].is_u64() && step["message"].is_string(), "{step}");
        assert_eq!(step["state"] == "failed", step["advice"] != "", "{step}");
    }
    check
}

fn step<'a>(check: &'a Value, name: &str) -> &'a Value {
    check["steps"].as_array().unwrap().iter().find(|step| step["name"] == name).unwrap()
}

fn operations(scene: &Scene) -> Vec<String> {
    scene.kms.calls().into_iter().map(|call| call.operation).filter(|operation| !operation.is_empty()).collect()
}

fn message(answer: &(u16, Value)) -> String {
    answer.1["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_passes_and_checks_that_name_the_step() {
    let scene = scene().await;
    scene.kms.clear_calls();
    let good = check(&scene).await;
    assert_eq!(good["passed"], true, "{good}");
    assert!(good["summary"].as_str().unwrap().starts_with("dns passed"), "{good}");
    assert_eq!(operations(&scene), ["DescribeKey", "Encrypt", "Decrypt"]);

    scene.kms.deny(&scene.key, Denial { operation: Some("Encrypt".to_owned()), access_key_id: None }).unwrap();
    let bad = check(&scene).await;
    assert_eq!((&bad["passed"], &step(&bad, "describe_key")["state"], &step(&bad, "encrypt")["state"]), (&json!(false), &json!("passed"), &json!("failed")));
    assert!(step(&bad, "encrypt")["advice"].as_str().unwrap().contains("kms:Encrypt"), "{bad}");
    assert!(bad["summary"].as_str().unwrap().contains("encrypt failed"), "{bad}");
    assert_eq!(step(&bad, "decrypt")["state"], "skipped");
    scene.kms.restore_access(&scene.key).unwrap();

    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    assert_eq!(step(&check(&scene).await, "describe_key")["state"], "failed");
    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();

    let settings = json!({ "aws_kms": { "allow_endpoints": [] } });
    assert_eq!(scene.node.ask("PATCH", "/security/ekmip/settings", Some(settings)).await.0, 200);
    let connections = scene.kms.connections();
    let refused = check(&scene).await;
    assert_eq!(step(&refused, "egress")["state"], "failed", "{refused}");
    assert_eq!(scene.kms.connections(), connections, "nothing was connected to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_names_it_starts_one_and_many_share_it() {
    let scene = scene().await;
    scene.kms.clear_calls();
    let connections = scene.kms.connections();
    let fields = ["", "?fields=*", "?fields=keystead", "?fields=keystead.*", "?fields=keystead.bound", "?fields=*,keystead,keystead.check,!keystead.check"];
    for fields in fields {
        for path in [scene.config.as_str(), "/security/aws-kms"] {
            let shown = scene.node.get(&format!("{path}{fields}")).await;
            assert!(!shown.to_string().contains("\"check\""), "{fields}: {shown}");
        }
    }
    // Who filters or sorts by it would start one for each record.
    for (query, expected) in [("keystead.check=x", "262250"), ("order_by=keystead.check", "262268"), ("fields=keystead.check.passed", "262197")] {
        assert_eq!(code(&scene.node.ask("GET", &format!("/security/aws-kms?{query}"), None).await), expected, "{query}");
    }
    let answer = scene.node.ask("PATCH", &scene.config, Some(json!({ "keystead": { "check": {} } }))).await;
    assert_eq!(code(&answer), "262203", "{answer:?}");
    assert_eq!((scene.kms.calls().len(), scene.kms.connections()), (0, connections), "none of them has asked AWS");
    for path in [scene.config.as_str(), "/security/aws-kms"] {
        let shown = scene.node.get(&format!("{path}?fields=**,keystead")).await;
        assert!(!shown.to_string().contains("\"check\""), "{shown}");
    }
    assert!(scene.kms.calls().iter().all(|call| call.operation == "DescribeKey"), "that is amazon_reachability");
    scene.kms.clear_calls();

    let one = format!("{}?fields=keystead.check", scene.config);
    let (a, b, c) = tokio::join!(scene.node.get(&one), scene.node.get(&one), scene.node.get("/security/aws-kms?fields=keystead.check,keystead.bound"));
    assert_eq!((&a["keystead"], &a["keystead"]["check"]), (&b["keystead"], &c["records"][0]["keystead"]["check"]));
    assert!(c["records"][0]["keystead"]["bound"].is_u64());
    assert_eq!(operations(&scene), ["DescribeKey", "Encrypt", "Decrypt"], "they share one run");
    // A changed configuration is looked at anew, however young the last look is.
    let answer = scene.node.ask("PATCH", &format!("{}?return_timeout=30", scene.config), Some(json!({ "polling_period": 30 }))).await;
    assert_eq!(answer.0, 200, "{answer:?}");
    scene.kms.clear_calls();
    scene.node.get(&one).await;
    assert_eq!(operations(&scene).len(), 3);
}

/// What is not there yet can be tried, and nothing of it stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_not_there_yet_is_checked() {
    let scene = scene().await;
    let node = &scene.node;
    node.svm("svm2").await;
    let body = enable_body("svm2", &scene.kms, &scene.key);
    let changed = |name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        body
    };
    let path = "/security/ekmip/preflight";
    let before = (node.get("/security/aws-kms?fields=*").await, node.get("/security/key-stores?fields=*").await);
    scene.kms.clear_calls();
    let (status, good) = node.ask("POST", path, Some(body.clone())).await;
    assert_eq!((status, &good["passed"]), (200, &json!(true)), "{good}");
    assert_eq!(good["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect::<Vec<_>>(), STEPS);
    assert_eq!(operations(&scene), ["DescribeKey", "Encrypt", "Decrypt"]);
    let (status, bad) = node.ask("POST", path, Some(changed("secret_access_key", json!("wrong-secret-access-key")))).await;
    assert_eq!((status, &bad["passed"], &step(&bad, "credentials")["state"]), (200, &json!(false), &json!("failed")), "{bad}");
    assert!(!bad.to_string().contains("wrong-secret"), "{bad}");
    // What an enable would refuse at once is refused here, with the same code.
    for (body, expected) in [
        (changed("svm", json!({ "name": "svm1" })), "65537910"),
        (changed("svm", json!({ "name": "svm9" })), "2621462"),
        (changed("region", json!("nowhere")), "262247"),
        (changed("host", json!("169.254.169.254")), "262245"),
    ] {
        let (preflight, enable) = (node.ask("POST", path, Some(body.clone())).await, node.ask("POST", "/security/aws-kms", Some(body)).await);
        assert_eq!((code(&preflight).as_str(), &preflight.1), (expected, &enable.1));
    }
    assert_eq!((node.get("/security/aws-kms?fields=*").await, node.get("/security/key-stores?fields=*").await), before, "nothing is kept");
    assert_eq!(node.enable(body).await.0, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_message_of_a_failed_enabling_names_the_hop_and_what_to_do() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    let body = |changes: Value| {
        let mut body = enable_body("svm2", &scene.kms, &scene.key);
        body["timeout"] = json!(2);
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    scene.kms.clear_calls();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let portal = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let portal_port = portal.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = portal.accept().await {
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 407 Authenticate\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
    });
    let proxy = json!({ "proxy_type": "http", "proxy_host": "127.0.0.1", "proxy_port": portal_port, "proxy_username": "u", "proxy_password": "pr0xy-p4ss" });
    for (changes, expected, hop, advice) in [
        (json!({ "port": closed }), "65537915", "route failed", "look at host and port"),
        (json!({ "port": silent.local_addr().unwrap().port() }), "65537915", "tls failed after ", "look at host and port"),
        (proxy, "65537915", "proxy failed", "proxy_password again"),
        (json!({ "secret_access_key": "wrong-secret-access-key" }), "65537900", "credentials failed", "secret_access_key again"),
        (json!({ "key_id": "alias/nowhere" }), "65537538", "describe_key failed", "look at key_id and region"),
    ] {
        let answer = scene.node.enable(body(changes)).await;
        assert_eq!(code(&answer), expected, "{answer:?}");
        let message = message(&answer);
        let (told, checked) = message.split_once("; checked: ").unwrap_or_else(|| panic!("{message}"));
        assert!(told.contains("svm2") && checked.starts_with("dns passed") && checked.contains(hop) && checked.contains(advice), "{message}");
        for secret in [SECRET, "wrong-secret-access-key", "pr0xy-p4ss"] {
            assert!(!message.contains(secret), "{message}");
        }
    }
    let describes = operations(&scene);
    assert_eq!(describes, ["DescribeKey", "DescribeKey"], "what has failed is not asked again");

    for (operation, hop) in [("Encrypt", "encrypt failed"), ("Decrypt", "decrypt failed")] {
        scene.kms.deny(&scene.key, Denial { operation: Some(operation.to_owned()), access_key_id: None }).unwrap();
        let answer = scene.node.enable(body(json!({}))).await;
        assert!(message(&answer).contains(hop) && message(&answer).ends_with("must fit encryption_context"), "{answer:?}");
        let answer = scene.node.enable(body(json!({ "skip_verify": true }))).await;
        assert!(!message(&answer).contains("checked:"), "who skips the proof skips the preflight: {answer:?}");
        scene.kms.restore_access(&scene.key).unwrap();
    }
    scene.kms.add_fault(FaultRule { operation: Some("Decrypt".to_owned()), ..FaultRule::always(Fault::WrongKek) });
    let answer = scene.node.enable(body(json!({}))).await;
    assert!(message(&answer).contains("decrypt failed"), "{answer:?}");
    scene.kms.clear_faults();
    scene.kms.set_key_state(&scene.key, KeyState::Disabled).unwrap();
    let answer = scene.node.enable(body(json!({}))).await;
    assert!(message(&answer).contains("must be Enabled; checked: dns passed") && message(&answer).contains("enable the customer key"), "{answer:?}");
    scene.kms.set_key_state(&scene.key, KeyState::Enabled).unwrap();

    scene.kms.clear_calls();
    assert_eq!(scene.node.enable(body(json!({}))).await.0, 201);
    let calls: Vec<String> = scene.kms.calls().into_iter().map(|call| call.operation).collect();
    assert_eq!(calls, ["DescribeKey", "Encrypt", "Decrypt"], "a good enabling takes no preflight");
}
