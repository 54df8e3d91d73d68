//! Where Keystead looks for AWS, what it believes there, and where it refuses to go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use async_trait::async_trait;
use common::{ACCESS_KEY_ID, Node, SECRET, code, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_awskms::Resolver;
use keystead_testkit::{KmsStandIn, NewKey, Options, Tls};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// A resolver of the test: each name has a list of answers; the last one stays.
#[derive(Clone, Default)]
struct Names {
    answers: Arc<Mutex<HashMap<String, Vec<Vec<IpAddr>>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Names {
    fn set(&self, name: &str, answers: &[&[&str]]) {
        let answers = answers.iter().map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect()).collect();
        self.answers.lock().unwrap().insert(name.to_owned(), answers);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        self.asked.lock().unwrap().push(name.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let list = answers.get_mut(name).ok_or("no such name, says the test")?;
        Ok(if list.len() > 1 { list.remove(0) } else { list[0].clone() })
    }
}

async fn node(kms: &KmsStandIn, allow: &str, names: &Names) -> Node {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let toml = toml_for(kms, folder.path()).replace("\"127.0.0.0/8\"", allow);
    let node = Node::start_in(folder, &toml, Hooks { resolver: Arc::new(names.clone()), ..Hooks::default() }).await.unwrap();
    node.svm("svm1").await;
    node
}

/// A stand-in whose certificate is for these names alone.
async fn stand_in_named(names: &[&str]) -> (KmsStandIn, String) {
    let tls = Tls::SelfSigned(names.iter().map(|name| (*name).to_owned()).collect());
    let kms = KmsStandIn::start(Options { tls, ..Options::default() }).await.unwrap();
    kms.add_access_key(ACCESS_KEY_ID, SECRET);
    let key = kms.create_key(NewKey::default()).unwrap().key_id;
    (kms, key)
}

fn with(mut body: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            body.as_object_mut().unwrap().remove(name);
        } else {
            body[name] = value.clone();
        }
    }
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_region_and_default_domain_make_the_name() {
    let name = "kms-fips.us-east-1.example.test";
    let (kms, key) = stand_in_named(&[name]).await;
    let names = Names::default();
    names.set(name, &[&["127.0.0.1"]]);
    let node = node(&kms, "\"127.0.0.0/8\"", &names).await;
    let body = with(enable_body("svm1", &kms, &key), json!({ "host": null, "service": "KMS-FIPS", "default_domain": "example.test" }));
    let answer = node.enable(body).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    assert!(names.asked().iter().all(|asked| asked == name));
    let call = &kms.calls()[0];
    assert_eq!((call.service.as_deref(), call.region.as_deref()), (Some("kms"), Some("us-east-1")), "signed for kms, whatever the host is called");
    let path = format!("/security/aws-kms/{}", answer.1["records"][0]["uuid"].as_str().unwrap());
    let record = node.get(&path).await;
    assert_eq!((&record["service"], &record["default_domain"]), (&json!("KMS-FIPS"), &json!("example.test")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checks_of_the_certificate_one_by_one() {
    let names = Names::default();
    names.set("aws.example.test", &[&["127.0.0.1"]]);
    let other = node_with_wrong_certificates(&names).await;
    let (node, kms, key) = (&other.node, &other.kms, &other.key);
    let try_it = async |changes: Value| {
        let answer = node.enable(with(enable_body("svm1", kms, key), changes)).await;
        if answer.0 == 201 {
            let uuid = answer.1["records"][0]["uuid"].as_str().unwrap();
            assert_eq!(node.ask("DELETE", &format!("/security/aws-kms/{uuid}?return_timeout=30"), None).await.0, 200);
            return "201".to_owned();
        }
        let message = answer.1["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("(TLS)"), "the message names the hop: {message}");
        code(&answer)
    };
    // The certificate is for another name, and its CA is known.
    for (changes, expected) in [
        (json!({ "host": "aws.example.test" }), "65537915"),
        (json!({ "host": "aws.example.test", "verify_ip": false }), "65537915"),
        (json!({ "host": "aws.example.test", "verify_host": false }), "201"),
        (json!({ "host": "aws.example.test", "verify": "false" }), "201"),
        (json!({ "host": "127.0.0.1" }), "65537915"),
        (json!({ "host": "127.0.0.1", "verify_host": false }), "65537915"),
        (json!({ "host": "127.0.0.1", "verify_ip": 0 }), "201"),
        (json!({ "host": "127.0.0.1", "verify": false }), "201"),
    ] {
        assert_eq!(try_it(changes.clone()).await, expected, "{changes}");
    }
    // The right name, but nobody knows the CA: forgiving the name forgives nothing else.
    let (stranger, stranger_key) = stand_in().await;
    let port = stranger.addr().port();
    for (changes, expected) in [
        (json!({ "verify_host": false, "verify_ip": false }), "65537915"),
        (json!({ "verify": false }), "201"),
        (json!({ "keystead": { "ca_certificates": stranger.ca_pem() } }), "201"),
    ] {
        let changes = with(changes, json!({ "port": port, "key_id": stranger_key }));
        assert_eq!(try_it(changes.clone()).await, expected, "{changes}");
    }
}

struct Wrong {
    node: Node,
    kms: KmsStandIn,
    key: String,
}

async fn node_with_wrong_certificates(names: &Names) -> Wrong {
    let (kms, key) = stand_in_named(&["somebody.else.test"]).await;
    Wrong { node: node(&kms, "\"127.0.0.0/8\"", names).await, kms, key }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_against_a_listener_that_never_answers() {
    let (kms, key) = stand_in().await;
    let node = node(&kms, "\"127.0.0.0/8\"", &Names::default()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let answer = node.enable(with(enable_body("svm1", &kms, &key), json!({ "port": silent.local_addr().unwrap().port(), "timeout": 1 }))).await;
    assert_eq!((answer.0, code(&answer).as_str()), (400, "65537915"));
    assert!(answer.1["error"]["message"].as_str().unwrap().contains("no answer in time"), "{answer:?}");
    assert_eq!(node.get("/security/aws-kms").await["num_records"], 0);

    // Started together, the one with the short timeout gives up while the one with the long one still waits.
    node.svm("svm2").await;
    let mut jobs = Vec::new();
    for (svm, timeout) in [("svm2", 30), ("svm1", 1)] {
        let body = with(enable_body(svm, &kms, &key), json!({ "port": silent.local_addr().unwrap().port(), "timeout": timeout }));
        let (status, body) = node.ask("POST", "/security/aws-kms", Some(body)).await;
        assert_eq!(status, 202, "{body}");
        jobs.push(body["job"]["uuid"].as_str().unwrap().to_owned());
    }
    let job = async |n: usize| node.get(&format!("/cluster/jobs/{}?fields=*", jobs[n])).await;
    eventually("the short one gives up", async || (job(1).await["state"] == "failure").then_some(())).await;
    assert_eq!(job(0).await["state"], "running");
    // And it is kept as it was given.
    let (status, body) = node.enable(with(enable_body("svm1", &kms, &key), json!({ "timeout": 7 }))).await;
    assert_eq!(status, 201, "{body}");
    let path = format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap());
    assert_eq!(node.get(&path).await["timeout"], 7);
    assert_eq!(node.ask("PATCH", &format!("{path}?return_timeout=60"), Some(json!({ "timeout": 60, "verify_host": false, "verify_ip": false }))).await.0, 200);
    let record = node.get(&path).await;
    assert_eq!((&record["timeout"], &record["verify"], &record["verify_host"], &record["verify_ip"]), (&json!(60), &json!(true), &json!(false), &json!(false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skip_verify_skips_the_preflight_and_never_the_round_trip() {
    let (kms, key) = stand_in().await;
    let node = node(&kms, "\"127.0.0.0/8\"", &Names::default()).await;
    assert_eq!(node.enable(with(enable_body("svm1", &kms, &key), json!({ "skip_verify": true }))).await.0, 201);
    let operations: Vec<String> = kms.calls().into_iter().map(|call| call.operation).collect();
    assert_eq!(operations, ["Encrypt", "Decrypt"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leads_inside_is_refused_before_anything_connects() {
    let (kms, key) = stand_in().await;
    let names = Names::default();
    for (name, address) in
        [("loop.test", "127.0.0.1"), ("meta.test", "169.254.169.254"), ("mapped.test", "::ffff:127.0.0.1"), ("kms.us-east-1.inside.test", "127.0.0.1")]
    {
        names.set(name, &[&[address]]);
    }
    names.set("mixed.test", &[&["52.94.5.1", "127.0.0.1"]]);
    let node = node(&kms, "", &names).await;
    let proxy = |host: &str| json!({ "host": "52.94.5.1", "proxy_type": "http", "proxy_host": host, "proxy_port": kms.addr().port() });
    let cases = [
        (json!({ "host": "127.0.0.1" }), "host"),
        (json!({ "host": "::1" }), "host"),
        (json!({ "host": "[::ffff:127.0.0.1]" }), "host"),
        (json!({ "host": "0.0.0.0" }), "host"),
        (json!({ "host": "169.254.169.254" }), "host"),
        (json!({ "host": "fd00:ec2::254" }), "host"),
        (json!({ "host": "loop.test" }), "host"),
        (json!({ "host": "meta.test" }), "host"),
        (json!({ "host": "mapped.test" }), "host"),
        (json!({ "host": "mixed.test" }), "host"),
        (json!({ "host": null, "default_domain": "inside.test" }), "default_domain"),
        (proxy("127.0.0.1"), "proxy_host"),
        (proxy("loop.test"), "proxy_host"),
    ];
    for (changes, target) in cases {
        let answer = node.enable(with(enable_body("svm1", &kms, &key), changes.clone())).await;
        assert_eq!((answer.0, code(&answer).as_str(), answer.1["error"]["target"].as_str()), (400, "262245", Some(target)), "{changes}: {answer:?}");
    }
    assert_eq!(kms.connections(), 0, "nothing has connected");
    assert_eq!(node.get("/cluster/jobs?description=POST%20/api/security/aws-kms").await["num_records"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_turns_inside_after_the_check_is_caught_at_the_connection() {
    let (kms, key) = stand_in().await;
    let names = Names::default();
    names.set("rebind.test", &[&["52.94.5.1"], &["127.0.0.1"]]);
    let node = node(&kms, "", &names).await;
    let answer = node.enable(with(enable_body("svm1", &kms, &key), json!({ "host": "rebind.test" }))).await;
    assert_eq!((answer.0, code(&answer).as_str(), answer.1["error"]["target"].as_str()), (400, "262245", Some("host")), "{answer:?}");
    assert_eq!(kms.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_allows_a_port_and_changes_at_run_time() {
    let (kms, key) = stand_in().await;
    let port = kms.addr().port();
    let node = node(&kms, &format!("\"127.0.0.1:{port}\""), &Names::default()).await;
    let refused = node.enable(with(enable_body("svm1", &kms, &key), json!({ "port": port ^ 1 }))).await;
    assert_eq!(code(&refused), "262245");
    let answer = node.enable(enable_body("svm1", &kms, &key)).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    let path = format!("/security/aws-kms/{}", answer.1["records"][0]["uuid"].as_str().unwrap());

    assert_eq!(node.ask("PATCH", "/security/ekmip/settings", Some(json!({ "aws_kms": { "allow_endpoints": [] } }))).await.0, 200);
    let answer = node.ask("PATCH", &format!("{path}?return_timeout=30"), Some(json!({ "secret_access_key": SECRET }))).await;
    assert_eq!((code(&answer).as_str(), answer.1["error"]["target"].as_str()), ("262245", Some("host")));
    let reach = node.get(&format!("{path}?fields=amazon_reachability")).await;
    assert_eq!(reach["amazon_reachability"]["reachable"], false, "open connections too: {reach}");
    let answer = node.ask("PATCH", "/security/ekmip/settings", Some(json!({ "aws_kms": { "allow_endpoints": ["not an entry"] } }))).await;
    assert_eq!((code(&answer).as_str(), answer.1["error"]["target"].as_str()), ("262247", Some("aws_kms.allow_endpoints")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_six_codes_of_certificates_fail_an_enable() {
    let (kms, key) = stand_in().await;
    let node = node(&kms, "\"127.0.0.0/8\"", &Names::default()).await;
    let good = json!({ "type": "server", "key_type": "ec", "key_size": 256, "hash_function": "sha256", "subtype": null, "serial_number": null });
    for (fips, changes, expected) in [
        (false, json!({ "type": "client_ca" }), "3735622"),
        (false, json!({ "serial_number": "17" }), "3735645"),
        (false, json!({ "subtype": "kmip_cert" }), "3735657"),
        (true, json!({ "key_type": "rsa", "key_size": 1024 }), "3735664"),
        (true, json!({ "hash_function": "sha1" }), "3735665"),
        (false, json!({ "key_type": "ec", "key_size": 521 }), "3735700"),
    ] {
        let template = with(good.clone(), changes.clone());
        let change = json!({ "cluster": { "fips": fips }, "ekmip": { "certificate": template } });
        let answer = node.ask("PATCH", "/security/ekmip/settings", Some(change)).await;
        assert_eq!(answer.0, 200, "{answer:?}");
        let answer = node.enable(enable_body("svm1", &kms, &key)).await;
        assert_eq!((answer.0, code(&answer).as_str()), (400, expected), "{changes}");
    }
    assert_eq!(kms.calls().len(), 0);
    let change = json!({ "cluster": { "fips": false }, "ekmip": { "certificate": good } });
    assert_eq!(node.ask("PATCH", "/security/ekmip/settings", Some(change)).await.0, 200);
    assert_eq!(node.enable(enable_body("svm1", &kms, &key)).await.0, 201);
}
