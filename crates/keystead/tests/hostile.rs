//! Malformed requests, in their thousands: always a well-formed error, never a 5xx, never a panic, never a call to AWS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::{Node, PASSWORD, code, enable_body, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_rest::routes::ROUTES;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn node() -> (Node, keystead_testkit::KmsStandIn, String) {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
    node.svm("svm1").await;
    (node, kms, key)
}

/// How many malformed requests of each kind; many more in a soak.
fn many(normal: usize) -> usize {
    if std::env::var_os("SOAK").is_some() { normal * 20 } else { normal }
}

fn sample<S: Strategy>(runner: &mut TestRunner, strategy: &S) -> S::Value {
    strategy.new_tree(runner).unwrap().current()
}

/// Whether an answer is one that the contract knows.
fn check(what: &str, status: u16, text: &[u8]) {
    let body: Value =
        serde_json::from_slice(text).unwrap_or_else(|_| panic!("{what}: {status} with a body that is not JSON: {}", String::from_utf8_lossy(text)));
    if (200..300).contains(&status) {
        assert!(body.is_object() && body.get("error").is_none(), "{what}: {status} {body}");
        return;
    }
    assert!((400..500).contains(&status), "{what}: {status} {body}");
    let error = body["error"].as_object().unwrap_or_else(|| panic!("{what}: {status} {body}"));
    assert!(!error["message"].as_str().unwrap().is_empty(), "{what}: {body}");
    assert!(error["code"].as_str().unwrap().parse::<u64>().is_ok(), "{what}: {body}");
    assert!(error.get("target").is_none_or(|target| target.as_str().is_some_and(|target| !target.is_empty())), "{what}: {body}");
    assert!(error.keys().all(|key| ["message", "code", "target", "arguments"].contains(&key.as_str())), "{what}: {body}");
}

async fn send(node: &Node, what: &str, request: reqwest::RequestBuilder) -> u16 {
    let answer = request.basic_auth("admin", Some(PASSWORD)).send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["cache-control"], "no-cache,no-store,must-revalidate", "{what}");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff", "{what}");
    let text = answer.bytes().await.unwrap();
    check(what, status, &text);
    let _ = node;
    status
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|n| json!(n)),
        ".{0,40}".prop_map(Value::from),
        Just(json!("")),
        Just(json!("\u{0}\u{1}\n")),
        "[a-z]{3000}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((".{0,8}", inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A good body with one member made into something else, taken out, or added.
fn mutated(good: Value) -> impl Strategy<Value = Value> {
    let names: Vec<String> = good
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .chain(["svm.name", "state", "keystead", "proxy_host", "encryption_context", "timeout", "skip_verify"].map(String::from))
        .collect();
    (proptest::sample::select(names), any_json(), 0..3u8).prop_map(move |(name, value, how)| {
        let mut body: Map<String, Value> = good.as_object().unwrap().clone();
        match how {
            0 => drop(body.insert(name, value)),
            1 => drop(body.remove(&name)),
            _ => drop(body.insert(format!("{name}x"), value)),
        }
        // Whatever the change is, AWS must not be asked: this SVM does not exist.
        body.insert("svm".into(), json!({ "name": "nowhere" }));
        Value::Object(body)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies() {
    let (node, kms, key) = node().await;
    let mut runner = TestRunner::deterministic();
    let good = enable_body("svm1", &kms, &key);
    let shapes = mutated(good.clone());
    let text = good.to_string();
    let cuts = (0..text.len(), proptest::collection::vec(any::<u8>(), 0..6)).prop_map(move |(at, bytes)| [&text.as_bytes()[..at], &bytes].concat());
    let bytes = proptest::collection::vec(any::<u8>(), 0..300);
    let json = any_json();
    let targets = [
        ("POST", "/security/aws-kms"),
        ("POST", "/svm/svms?return_timeout=1"),
        ("PATCH", "/security/ekmip/settings"),
        ("POST", "/security/authentication/password"),
        ("PATCH", "/security/aws-kms/00000000-0000-0000-0000-000000000000"),
        ("DELETE", "/security/aws-kms/00000000-0000-0000-0000-000000000000"),
        ("POST", "/security/aws-kms/00000000-0000-0000-0000-000000000000/restore"),
        ("POST", "/security/aws-kms/x/rekey-external"),
        ("PATCH", "/cluster/jobs/x?action=cancel"),
    ];
    for n in 0..many(6_000) {
        let body = match n % 4 {
            0 => sample(&mut runner, &shapes).to_string().into_bytes(),
            1 => sample(&mut runner, &cuts),
            2 => sample(&mut runner, &bytes),
            _ => sample(&mut runner, &json).to_string().into_bytes(),
        };
        let (method, path) = targets[if n % 4 == 0 { 0 } else { n / 4 % targets.len() }];
        let what = format!("{method} {path} {:?}", String::from_utf8_lossy(&body));
        send(&node, &what, node.client.request(method.parse().unwrap(), format!("https://{}/api{path}", node.address)).body(body)).await;
    }
    assert_eq!(kms.calls().len(), 0);
    assert_eq!(node.enable(good).await.0, 201, "a good request still works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_and_headers() {
    let (node, kms, _) = node().await;
    let mut runner = TestRunner::deterministic();
    let piece = prop_oneof![
        "[a-z*{},!.|<>=+-]{0,12}",
        Just("%".to_owned()),
        Just("%zz".to_owned()),
        Just("%ff".to_owned()),
        Just("%00".to_owned()),
        Just("..".to_owned()),
        Just("".to_owned()),
        Just("fields".to_owned()),
        Just("return_timeout=0".to_owned()),
        Just("secret_access_key=x".to_owned()),
        Just("svm.name=x".to_owned()),
        Just("max_records=0".to_owned()),
        Just("order_by=nope".to_owned()),
        Just("fields=**,nope".to_owned()),
        Just("start=x".to_owned()),
        "[a-z]{2000}",
    ];
    let routes = proptest::sample::select(ROUTES.iter().map(|route| (route.method.clone(), route.path)).collect::<Vec<_>>());
    let request = (
        routes,
        proptest::collection::vec(piece, 0..5),
        any::<bool>(),
        proptest::sample::select(vec!["GET", "PUT", "PATCH", "DELETE", "POST", "OPTIONS", "TRACE"]),
    );
    let header = ("[ -~]{0,60}", proptest::sample::select(vec!["accept", "x-dot-svm-name", "x-dot-svm-uuid", "content-type", "if-match", "x-any"]));
    for n in 0..many(4_500) {
        let ((method, path), pieces, in_path, other) = sample(&mut runner, &request);
        let method = if n % 5 == 0 { other.parse().unwrap() } else { method };
        let mut url = format!("https://{}{}", node.address, path.replace("{}", &pieces.first().cloned().unwrap_or_default().replace(['?', '#'], "")));
        url.push_str(if in_path { "/" } else { "?" });
        url.push_str(&pieces.join(if in_path { "/" } else { "&" }));
        let (value, name) = sample(&mut runner, &header);
        let what = format!("{method} {url} {name}: {value}");
        let Ok(url) = reqwest::Url::parse(&url) else { continue };
        // Nothing here may delete what is there, or wait.
        let is_get = method == "GET" || method == "OPTIONS";
        let request = node.client.request(method.clone(), url).header(name, value);
        let request = if is_get { request } else { request.body("{\"nonsense\": 1}") };
        let answer = request.basic_auth("admin", Some(PASSWORD)).send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let (status, text) = (answer.status().as_u16(), answer.bytes().await.unwrap());
        if method == "OPTIONS" && status == 200 {
            assert!(text.is_empty());
        } else {
            check(&what, status, &text);
        }
    }
    assert_eq!(kms.calls().len(), 0);
    assert_eq!(node.get("/svm/svms").await["num_records"], 1);
}

async fn tls(node: &Node) -> tokio_rustls::client::TlsStream<TcpStream> {
    use rustls::pki_types::pem::PemObject as _;
    let ca = std::fs::read(node.folder.path().join("data/ca.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(node.address).await.unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_http_and_no_http() {
    let (node, _kms, _) = node().await;
    let mut runner = TestRunner::deterministic();
    let noise = proptest::collection::vec(any::<u8>(), 1..400);
    let lines = "[ -~]{0,80}";
    for n in 0..many(300) {
        let sent = match n % 6 {
            0 => sample(&mut runner, &noise),
            1 => format!("GET /api/cluster HTTP/1.1\r\n{}\r\n\r\n", sample(&mut runner, &lines)).into_bytes(),
            2 => format!("{} /api/cluster HTTP/1.1\r\nHost: x\r\n\r\n", sample(&mut runner, &lines)).into_bytes(),
            3 => b"POST /api/svm/svms HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}".to_vec(),
            4 => b"POST /api/svm/svms HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
            _ => format!("GET /api/cluster HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Any: y\r\n".repeat(200)).into_bytes(),
        };
        let mut stream = tls(&node).await;
        let _ = stream.write_all(&sent).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        // The connection ends; what came before that, if anything, is an answer and no 5xx.
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the connection stays open after {:?}", String::from_utf8_lossy(&sent));
        let head = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || (head.starts_with("HTTP/1.") && !head[9..].starts_with('5')), "{head}");
    }
    // Plain HTTP to the TLS port ends; nobody hangs.
    let mut plain = TcpStream::connect(node.address).await.unwrap();
    plain.write_all(b"GET /api/cluster HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(60), plain.read_to_end(&mut answer)).await.expect("the connection must end");
    assert!(!answer.starts_with(b"HTTP/1.1 200"));

    // Clients that send nothing, or stop in the middle, do not keep others out.
    let mut idle = Vec::new();
    for n in 0..50 {
        let mut stream = tls(&node).await;
        if n % 2 == 0 {
            stream.write_all(b"POST /api/svm/svms HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"na").await.unwrap();
        }
        idle.push(stream);
    }
    assert_eq!(node.get("/cluster").await["version"]["generation"], 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_long() {
    let (node, _kms, _) = node().await;
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(2 * 1024 * 1024));
    let request = node.client.post(format!("https://{}/api/svm/svms", node.address)).basic_auth("admin", Some(PASSWORD)).body(long);
    // The server may close while the client still sends; an answer that does arrive is an error.
    if let Ok(answer) = request.send().await {
        let (status, text) = (answer.status().as_u16(), answer.bytes().await.unwrap());
        check("a long body", status, &text);
        assert_eq!(status, 400);
    }
    assert_eq!(node.get("/svm/svms").await["num_records"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_wants_a_login_and_answers_its_methods() {
    let (node, _kms, _) = node().await;
    for (number, route) in ROUTES.iter().enumerate() {
        let url = format!("https://{}{}", node.address, route.path.replace("{}", "00000000-0000-0000-0000-000000000000"));
        for login in [None, Some("wrong password")] {
            let mut request = node.client.request(route.method.clone(), &url);
            if let Some(password) = login {
                // Each from an account of its own, so that failures do not add up to a pause.
                request = request.basic_auth(format!("nobody{number}"), Some(password));
            }
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 401, "{} {}", route.method, route.path);
            assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
            let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            assert_eq!(body["error"]["code"], "6691623");
        }
        let answer = node.client.request(reqwest::Method::OPTIONS, &url).send().await.unwrap();
        assert!(answer.headers()["allow"].to_str().unwrap().contains(route.method.as_str()), "{}", route.path);
        let answer = node.client.put(&url).basic_auth("admin", Some(PASSWORD)).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key("allow")), (405, true), "{}", route.path);
        if route.method == "GET" {
            let head = node.client.head(&url).basic_auth("admin", Some(PASSWORD)).send().await.unwrap();
            let get = node.client.get(&url).basic_auth("admin", Some(PASSWORD)).send().await.unwrap();
            assert_eq!((head.status(), head.headers()["content-type"].clone()), (get.status(), get.headers()["content-type"].clone()), "{}", route.path);
            assert!(head.bytes().await.unwrap().is_empty());
        }
    }
    let answer = node.client.get(format!("https://{}/healthz", node.address)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_field_of_the_table_has_its_code() {
    let (node, kms, key) = node().await;
    let good = enable_body("nowhere", &kms, &key);
    let post = async |changes: Value| {
        let mut body = good.clone();
        for (name, value) in changes.as_object().unwrap() {
            if value == "(gone)" { drop(body.as_object_mut().unwrap().remove(name)) } else { body[name] = value.clone() }
        }
        let answer = node.ask("POST", "/security/aws-kms", Some(body)).await;
        (code(&answer), answer.1["error"]["target"].as_str().unwrap_or_default().to_owned())
    };
    let expect = |code: &str, target: &str| (code.to_owned(), target.to_owned());
    for field in ["region", "key_id", "access_key_id", "secret_access_key"] {
        assert_eq!(post(json!({ field: "(gone)" })).await, expect("262212", field));
        assert_eq!(post(json!({ field: 5 })).await, expect("262247", field));
    }
    assert_eq!(post(json!({ "svm": {} })).await, expect("262212", "svm.name"));
    for (field, good, bad) in [("port", [1, 65_535], [0, 65_536]), ("polling_period", [1, 1_440], [0, 1_441]), ("timeout", [1, 60], [0, 61])] {
        for value in good {
            assert_eq!(post(json!({ field: value })).await, expect("2621462", "svm.name"), "{field} {value} is good, and the SVM is what is left to refuse");
        }
        for value in bad {
            assert_eq!(post(json!({ field: value })).await, expect("262245", field));
        }
        assert_eq!(post(json!({ field: "1" })).await, expect("262247", field));
        assert_eq!(post(json!({ field: [1] })).await, expect("262255", field));
    }
    for field in ["verify", "verify_host", "verify_ip", "skip_verify"] {
        assert_eq!(post(json!({ field: "perhaps" })).await, expect("262247", field));
    }
    for (changes, code, target) in [
        (json!({ "region": "US-EAST-1" }), "262247", "region"),
        (json!({ "key_id": "" }), "262245", "key_id"),
        (json!({ "key_id": "k".repeat(2_049) }), "262245", "key_id"),
        (json!({ "access_key_id": "short" }), "262245", "access_key_id"),
        (json!({ "access_key_id": "A".repeat(129) }), "262245", "access_key_id"),
        (json!({ "access_key_id": "with a space in it" }), "262247", "access_key_id"),
        (json!({ "access_key_id": "ASIAIOSFODNN7EXAMPLE" }), "262247", "access_key_id"),
        (json!({ "encryption_context": "novalue" }), "262247", "encryption_context"),
        (json!({ "host": "https://x" }), "262247", "host"),
        (json!({ "host": "(gone)", "service": "dynamodb.*.amazonaws.com" }), "262247", "service"),
        (json!({ "host": "(gone)", "default_domain": "a b" }), "262247", "default_domain"),
        (json!({ "proxy_type": "socks" }), "262247", "proxy_type"),
        (json!({ "proxy_type": "http" }), "262186", "proxy_host"),
        (json!({ "proxy_host": "p.example", "proxy_port": 1 }), "262186", "proxy_type"),
        (json!({ "proxy_type": "http", "proxy_host": "p.example" }), "262186", "proxy_port"),
        (json!({ "proxy_password": "x" }), "262186", "proxy_password"),
        (json!({ "proxy_type": "http", "proxy_host": "p.example", "proxy_port": 0 }), "262245", "proxy_port"),
        (json!({ "svm": { "uuid": "x" } }), "262247", "svm.uuid"),
        (json!({ "svm": { "uuid": "00000000-0000-0000-0000-000000000000" } }), "2621462", "svm.uuid"),
        (json!({ "keystead": { "access_error_grace": "soon" } }), "262247", "keystead.access_error_grace"),
        (json!({ "keystead": { "nonsense": 1 } }), "262179", "keystead.nonsense"),
        (json!({ "nonsense": 1 }), "262179", "nonsense"),
    ] {
        assert_eq!(post(changes.clone()).await, expect(code, target), "{changes}");
    }
    let svm = node.get("/svm/svms?name=svm1").await["records"][0]["uuid"].clone();
    assert_eq!(post(json!({ "svm": { "uuid": svm, "name": "nowhere" } })).await.0, "2621706");

    let (status, body) = node.enable(enable_body("svm1", &kms, &key)).await;
    assert_eq!(status, 201, "{body}");
    let path = format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap());
    let at = async |method: &str, path: &str, body: Option<Value>| code(&node.ask(method, path, body).await);
    for field in ["key_id", "uuid", "scope"] {
        assert_eq!(at("PATCH", &path, Some(json!({ field: "x" }))).await, "262203", "{field}");
    }
    for body in [json!({ "svm": { "name": "x" } }), json!({ "state": { "code": "0" } }), json!({ "amazon_reachability": { "reachable": true } })] {
        assert_eq!(at("PATCH", &path, Some(body)).await, "262203");
    }
    for (body, expected) in [
        (json!({}), "65537541"),
        (json!({ "secret_access_key": "" }), "65537920"),
        (json!({ "access_key_id": "" }), "65537924"),
        (json!({ "skip_verify": true }), "262186"),
        (json!({ "skip_verify": true, "access_key_id": "AKIAIOSFODNN7EXAMPLE", "host": "x.example" }), "262186"),
        (json!({ "proxy_type": "http" }), "262186"),
        (json!({ "proxy_password": "x" }), "262186"),
    ] {
        assert_eq!(at("PATCH", &path, Some(body.clone())).await, expected, "{body}");
    }
    for (method, path, body, expected) in [
        ("PATCH", format!("{path}?secret_access_key=x"), Some(json!({ "port": 1 })), "262202"),
        ("POST", "/security/aws-kms?region=x".to_owned(), Some(good.clone()), "262211"),
        ("POST", "/security/aws-kms?nonsense=x".to_owned(), Some(good.clone()), "262179"),
        ("DELETE", path.clone(), Some(json!({ "x": 1 })), "262198"),
        ("POST", format!("{path}/restore"), Some(json!({ "x": 1 })), "262179"),
        ("POST", format!("{path}/rekey-external"), Some(json!({})), "262212"),
        ("GET", "/security/aws-kms?fields=nonsense".to_owned(), None, "262197"),
        ("GET", "/security/aws-kms?fields=proxy_password".to_owned(), None, "262249"),
        ("GET", "/security/aws-kms?secret_access_key=x".to_owned(), None, "262250"),
        ("GET", "/security/aws-kms?nonsense=x".to_owned(), None, "262179"),
        ("GET", "/security/aws-kms?region=a&region=b".to_owned(), None, "262188"),
        ("GET", "/security/aws-kms?order_by=nonsense".to_owned(), None, "262268"),
        ("GET", "/security/aws-kms/no-uuid".to_owned(), None, "4"),
        ("GET", "/security//aws-kms".to_owned(), None, "3"),
        ("GET", "/nothing/here".to_owned(), None, "3"),
    ] {
        assert_eq!(at(method, &path, body).await, expected, "{method} {path}");
    }
}

/// What is wrong with the parameters of a URL, and with a body as JSON.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_urls_and_bodies_have_their_codes() {
    let (node, _kms, _) = node().await;
    for (method, parameters, expected) in [
        ("GET", "region", "262248"),
        ("GET", "region=%ff", "39387137"),
        ("GET", "port=<", "262177"),
        ("GET", "fields=svm.{name", "262286"),
        ("PATCH", "query=a", "262272"),
        ("GET", "query_fields=svm.name", "262273"),
        ("GET", "query=&query_fields=svm.name", "262274"),
        ("GET", "query=a&query_fields=", "262275"),
        ("GET", "query=a&query_fields=nonsense", "262276"),
        ("GET", "query=a", "262277"),
    ] {
        let answer = node.ask(method, &format!("/security/aws-kms?{parameters}"), None).await;
        assert_eq!((answer.0, code(&answer).as_str()), (400, expected), "{method} {parameters}");
    }
    for (text, expected) in
        [(r#"{"port": 1,}"#, "262199"), (r#"{"port": 1e999}"#, "262200"), ("[]", "262201"), (r#"{"svm": {"name": "a", "name": "b"}}"#, "262282")]
    {
        let request = node.client.post(format!("https://{}/api/security/aws-kms", node.address)).basic_auth("admin", Some(PASSWORD)).body(text);
        let answer = request.send().await.unwrap();
        let answer = (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap());
        assert_eq!((answer.0, code(&answer).as_str()), (400, expected), "{text}");
    }
}
