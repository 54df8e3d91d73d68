//! Limits of the REST API: what a client may take of memory, time, connections and jobs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::faulty::{Faulty, Mood};
use common::scene::enabled;
use common::{Node, PASSWORD, code, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_testkit::{Fault, FaultRule, KmsStandIn};
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

/// Longer than any limit of these tests.
const LONG: Duration = Duration::from_secs(60);
/// `admin` with the password of nodes of this kind.
const LOGIN: &str = "Authorization: Basic YWRtaW46Y29ycmVjdCBob3JzZSBiYXR0ZXJ5";

async fn tcp(node: &Node, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::from(from), 0)).unwrap();
    socket.connect(node.address).await.unwrap()
}

async fn try_tls(node: &Node, from: [u8; 4]) -> std::io::Result<TlsStream<TcpStream>> {
    let ca = std::fs::read(node.folder.path().join("data/ca.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    tokio_rustls::TlsConnector::from(config).connect("127.0.0.1".try_into().unwrap(), tcp(node, from).await).await
}

async fn tls(node: &Node, from: [u8; 4]) -> TlsStream<TcpStream> {
    try_tls(node, from).await.unwrap()
}

/// Sends, and reads what comes until the connection ends.
async fn exchange(stream: &mut TlsStream<TcpStream>, sent: &str) -> String {
    let _ = stream.write_all(sent.as_bytes()).await;
    rest_of(stream).await
}

async fn rest_of(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the connection stays open: {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// One answer on a connection that stays open.
async fn one(stream: &mut TlsStream<TcpStream>, sent: &str) -> String {
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(LONG, stream.read(&mut answer)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_bodies_have_a_size() {
    let node = Node::start("", Hooks::default()).await;
    let get = |headers: &str| format!("GET /api/cluster HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{LOGIN}\r\n{headers}\r\n");
    let here = [127, 0, 0, 1];
    assert!(exchange(&mut tls(&node, here).await, &get(&"X-Any: y\r\n".repeat(90))).await.starts_with("HTTP/1.1 200"));
    assert!(exchange(&mut tls(&node, here).await, &get(&"X-Any: y\r\n".repeat(110))).await.starts_with("HTTP/1.1 431"));
    assert!(exchange(&mut tls(&node, here).await, &get(&format!("X-Any: {}\r\n", "y".repeat(30_000)))).await.starts_with("HTTP/1.1 200"));
    let long = exchange(&mut tls(&node, here).await, &get(&format!("X-Any: {}\r\n", "y".repeat(300_000)))).await;
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431"), "{long}");
    // A body that says its length, and one that does not.
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for (framing, body) in [("Content-Length: 1048577", "x".repeat(1_048_577)), ("Transfer-Encoding: chunked", chunk.repeat(17) + "0\r\n\r\n")] {
        let answer = exchange(
            &mut tls(&node, here).await,
            &format!("POST /api/svm/svms HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{LOGIN}\r\n{framing}\r\n\r\n{body}"),
        )
        .await;
        // The server may close while this side still sends.
        assert!(answer.is_empty() || (answer.starts_with("HTTP/1.1 400") && answer.contains("262201")), "{answer}");
    }
    // Nobody's body is read.
    let answer = exchange(&mut tls(&node, here).await, "POST /api/svm/svms HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_heads_and_bodies_have_their_time() {
    let node = Node::start("[rest]\nhandshake_timeout = \"2s\"\nhead_timeout = \"2s\"\nbody_timeout = \"300ms\"\n", Hooks::default()).await;
    let here = [127, 0, 0, 1];
    let mut silent = tcp(&node, here).await;
    let mut nothing = Vec::new();
    let ended = tokio::time::timeout(LONG, silent.read_to_end(&mut nothing)).await;
    assert!(ended.is_ok() && nothing.is_empty(), "a handshake that does not begin");
    for head in ["", "GET /api/cluster HTTP/1.1\r\nHost: x\r\nX-Any: "] {
        let answer = exchange(&mut tls(&node, here).await, head).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "a head that does not end: {answer}");
    }
    let head = format!("POST /api/svm/svms HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\nContent-Length: 100\r\n\r\n{{\"name\":");
    let answer = exchange(&mut tls(&node, here).await, &head).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("it took longer than 0.3 s"), "a body that does not end: {answer}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_takes_is_given_up() {
    let node = Node::start("[rest]\nanswer_timeout = \"300ms\"\n", Hooks::default()).await;
    let mut stream = tls(&node, [127, 0, 0, 1]).await;
    // More than what fits in the buffers between, asked for and never read.
    let asked = "GET /api/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
    stream.write_all(asked.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let (tcp, _) = stream.get_mut();
    eventually("the server must close", async || tcp.try_write(b"x").err().filter(|error| error.kind() != std::io::ErrorKind::WouldBlock)).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_source_takes_all_connections() {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let toml = format!("{}[rest]\nmax_connections = 8\nmax_connections_per_source = 4\n", toml_for(&kms, folder.path()));
    let node = Node::start_in(folder, &toml, Hooks::default()).await.unwrap();
    let node = &node;
    let get = format!("GET /api/cluster HTTP/1.1\r\nHost: x\r\n{LOGIN}\r\n\r\n");
    let crowd = [127, 0, 0, 50];
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut stream = tls(node, crowd).await;
        assert!(one(&mut stream, &get).await.starts_with("HTTP/1.1 200"));
        idle.push(stream);
    }
    // A fifth shows out the one that has waited longest; who is elsewhere notices nothing.
    let mut fifth = tls(node, crowd).await;
    assert!(one(&mut fifth, &get).await.starts_with("HTTP/1.1 200"));
    assert_eq!(rest_of(&mut idle.remove(0)).await, "");
    assert!(one(&mut idle[0], &get).await.starts_with("HTTP/1.1 200"), "the next one stays");
    assert_eq!(node.caller_from([127, 0, 0, 51].into(), "admin", PASSWORD).login().await, 200);
    // Silence from several sources takes all places, and none of them for good.
    let mut silent = Vec::new();
    for n in 0..20 {
        silent.push(tcp(node, [127, 0, 0, 60 + n / 4]).await);
    }
    for n in 0..5 {
        assert_eq!(node.caller_from([127, 0, 0, 80 + n].into(), "admin", PASSWORD).login().await, 200);
    }
    drop((idle, fifth, silent));

    // Who waits for an answer is not shown out: then the newcomer of that source is refused, and nobody else.
    node.svm("svm1").await;
    kms.add_fault(FaultRule::always(Fault::Hang));
    let (status, body) = node.ask("POST", "/security/aws-kms", Some(enable_body("svm1", &kms, &key))).await;
    assert_eq!(status, 202, "{body}");
    kms.wait_held(1, LONG).await;
    let mut callers = Vec::new();
    for n in 0..4 {
        let caller = node.caller_from(crowd.into(), "admin", PASSWORD);
        assert_eq!(caller.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": format!("waits{n}") }))).await.status, 201);
        callers.push(caller);
    }
    let calls: Vec<_> = callers
        .into_iter()
        .enumerate()
        .map(|(n, caller)| {
            let body = enable_body(&format!("waits{n}"), &kms, &key);
            tokio::spawn(async move { caller.call("POST", "/security/aws-kms?return_timeout=60", Some(body)).await.status })
        })
        .collect();
    kms.wait_held(5, LONG).await;
    assert!(try_tls(node, crowd).await.is_err(), "the fifth of a source whose four wait for answers");
    assert_eq!(node.caller_from([127, 0, 0, 90].into(), "admin", PASSWORD).login().await, 200);
    kms.release();
    for call in calls {
        assert_eq!(call.await.unwrap(), 201, "those who waited have their answers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_hangs_is_given_up_and_one_that_waits_is_not() {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let store = Faulty::default();
    let toml = format!("{}[rest]\nrequest_timeout = \"500ms\"\n", toml_for(&kms, folder.path()));
    let node = Node::start_in(folder, &toml, Hooks { store: store.hook(), ..Hooks::default() }).await.unwrap();
    node.svm("svm1").await;
    store.set(Mood::Hangs);
    let answer = node.ask("POST", "/svm/svms", Some(json!({ "name": "svm2" }))).await;
    assert_eq!((answer.0, code(&answer).as_str()), (500, "262145"));
    assert!(answer.1["error"]["message"].as_str().unwrap().contains("the call took longer than 0.5 s"), "{answer:?}");
    assert_eq!(node.get("/svm/svms").await["num_records"], 1, "others are answered");
    store.set(Mood::Good);
    // What it had begun may come about, and is there then; the name cannot be had twice.
    eventually("the store works again", async || {
        let names = node.get("/svm/svms?name=svm2").await["num_records"].as_u64();
        let again = node.ask("POST", "/svm/svms?return_timeout=5", Some(json!({ "name": "svm2" }))).await;
        assert!(again.0 == 201 || code(&again) == "1" || again.0 == 500, "{names:?} {again:?}");
        (again.0 == 201 || code(&again) == "1").then_some(())
    })
    .await;
    kms.add_fault(FaultRule::always(Fault::Hang));
    let (status, body) = node.ask("POST", "/security/aws-kms?return_timeout=2", Some(enable_body("svm1", &kms, &key))).await;
    assert_eq!(status, 202, "it has waited as long as it was asked to: {body}");
    kms.release();
    node.stop().await;
}

fn toml_of(kms: &KmsStandIn, folder: &std::path::Path, more: &str) -> String {
    format!("{}{more}", toml_for(kms, folder))
}

async fn state(node: &Node, job: &Value) -> String {
    node.get(&format!("/cluster/jobs/{}", job["job"]["uuid"].as_str().unwrap())).await["state"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_jobs_run_and_so_many_wait() {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_of(&kms, folder.path(), "[jobs]\nconcurrency = 2\nmax_open = 4\n"), Hooks::default()).await.unwrap();
    for n in 0..6 {
        node.svm(&format!("svm{n}")).await;
    }
    kms.add_fault(FaultRule::always(Fault::Hang));
    let mut jobs = Vec::new();
    for n in 0..4 {
        let (status, body) = node.ask("POST", "/security/aws-kms", Some(enable_body(&format!("svm{n}"), &kms, &key))).await;
        assert_eq!(status, 202, "{body}");
        jobs.push(body);
    }
    kms.wait_held(2, LONG).await;
    let mut states = Vec::new();
    for job in &jobs {
        states.push(state(&node, job).await);
    }
    assert_eq!(states, ["running", "running", "queued", "queued"]);
    let (status, headers, body) = node.call("POST", "/security/aws-kms", Some(enable_body("svm4", &kms, &key))).await;
    assert_eq!((status, body["error"]["code"].as_str()), (429, Some("7")), "{body}");
    assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(node.get("/security/key-stores?svm.name=svm4").await["num_records"], 0, "nothing is left of what was refused");
    assert_eq!(node.svm("done-at-once").await.len(), 36, "what needs no waiting is done");
    kms.release();
    for job in &jobs {
        eventually("all end well", async || (state(&node, job).await == "success").then_some(())).await;
    }
    assert_eq!(node.enable(enable_body("svm4", &kms, &key)).await.0, 201);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_jobs_wait_for_one_configuration() {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
    node.svm("svm1").await;
    node.svm("svm2").await;
    let config = enabled(&node, &kms, &key, "svm1").await;
    let other = enabled(&node, &kms, &key, "svm2").await;
    kms.add_fault(FaultRule::always(Fault::Hang));
    let change = |n: usize| Some(json!({ "polling_period": 61 + n }));
    let (status, body) = node.ask("POST", &format!("{config}/rekey-external"), Some(json!({ "key_id": key }))).await;
    assert_eq!(status, 202, "{body}");
    kms.wait_held(1, LONG).await;
    let mut jobs = vec![body];
    for n in 1..16 {
        let (status, body) = node.ask("PATCH", &config, change(n)).await;
        assert_eq!(status, 202, "{body}");
        jobs.push(body);
    }
    let (status, headers, body) = node.call("PATCH", &config, change(16)).await;
    assert_eq!((status, body["error"]["code"].as_str()), (429, Some("7")), "{body}");
    assert!(headers.contains_key("retry-after"));
    assert_eq!(node.ask("PATCH", &other, change(0)).await.0, 202, "another configuration's jobs are its own");
    kms.release();
    for job in &jobs {
        eventually("all end well", async || (state(&node, job).await == "success").then_some(())).await;
    }
    assert_eq!(node.get(&config).await["polling_period"], 76, "in their order");
    node.stop().await;
}
