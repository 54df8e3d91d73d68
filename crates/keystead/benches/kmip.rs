//! The KMIP budgets: Get over one connection and over 64, connect + Get + close, and durable Create, against a bare rustls server that echoes the same sizes, against raw group commits of the same
//! records, and against PyKMIP's server. All are measured in turn, in one run, and only the ratios mean something. Load and servers share the machine.
//!
//! Servers are processes of their own: Keystead's program, this program again as the echo (`echo` as first argument), and PyKMIP's server from `.venv`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common::kmip::{Credentials, Kmip, message, template, uid};
use crate::common::program::free_port;
use crate::common::run::Run;
use crate::common::{enable_body, eventually, stand_in, toml_for};
use crate::measure::{at_least, load, median};
use keystead_conformance::client::{Client, Endpoint, TestEndpoint as _};
use keystead_kmip::Tag;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{ObjectType, Operation};
use keystead_kmip::ttlv::{Node, Value, encode};
use keystead_store::sqlite::SqliteStore;
use keystead_store::{Store as _, Txn};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const ROUNDS: usize = 7;
/// Requests on their way on each connection: enough that the server always has one to work on. Each is sent for itself, in a TLS record of its own, as clients do.
const WINDOW: usize = 16;
/// Threads of the load, which shares the cores with the server: more would only take turns.
const THREADS: usize = 4;
const ROUND: Duration = Duration::from_millis(1_000);
/// PyKMIP is slow and steady: shorter.
const ROUND_OF_PYKMIP: Duration = Duration::from_millis(700);

/// The echo, in a process of its own: its folder, port, and the sizes of a request and of an answer.
#[tokio::main]
pub async fn echo_main(arguments: &[String]) {
    let [folder, port, request, answer] = arguments else { panic!("echo FOLDER PORT REQUEST ANSWER") };
    echo(Path::new(folder), port.parse().unwrap(), request.parse().unwrap(), answer.parse().unwrap()).await;
}

/// A server with what to ask of it.
struct Target {
    name: &'static str,
    endpoint: Endpoint,
    get: Vec<u8>,
    create: Option<Vec<u8>>,
    pid: u32,
    round: Duration,
}

#[tokio::main]
pub async fn main() {
    let (kms, key) = stand_in().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keystead.toml"), toml_for(&kms, folder.path())).unwrap();
    let node = Run::start(folder.path(), None, &[]).await;
    assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await.unwrap().0, 201);
    assert_eq!(node.call("POST", "/security/aws-kms?return_timeout=60", Some(enable_body("svm1", &kms, &key))).await.unwrap().0, 201);
    let client = Credentials::issue_by(&node, "svm1").await;
    let create = || bytes(&message(2, vec![(Operation::Create, vec![Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), usual()])], &[]));
    let get = |id: &str| bytes(&message(2, vec![(Operation::Get, vec![uid(id)])], &[]));

    let endpoint = client.endpoint(node.ekmip).without_resumption();
    let id = Kmip::connect(&endpoint).created(vec![]);
    let keystead = Target { name: "Keystead", get: get(&id), create: Some(create()), pid: node.child.id(), endpoint, round: ROUND };
    let answer = Client::connect(&keystead.endpoint).unwrap().call_bytes(&keystead.get).unwrap().len();

    let pki = Pki::make(folder.path());
    let echo_port = free_port();
    let echo_child = Guard(
        Command::new(std::env::current_exe().unwrap())
            .args(["echo", folder.path().to_str().unwrap(), &echo_port.to_string(), &keystead.get.len().to_string(), &answer.to_string()])
            .spawn()
            .unwrap(),
    );
    let echo = Target { name: "echo", endpoint: pki.endpoint(echo_port), get: keystead.get.clone(), create: None, pid: echo_child.0.id(), round: ROUND };
    let (pykmip_child, pykmip_port) = pykmip(folder.path());
    let endpoint = pki.endpoint(pykmip_port);
    for target in [&echo.endpoint, &endpoint] {
        eventually("the server must listen", async || target.open().ok()).await;
    }
    let id = Kmip::connect(&endpoint).created(vec![]);
    let pykmip = Target { name: "PyKMIP", get: get(&id), create: Some(create()), pid: pykmip_child.0.id(), endpoint, round: ROUND_OF_PYKMIP };

    println!("requests of {} bytes, answers of {answer}", keystead.get.len());
    for target in [&keystead, &echo, &pykmip] {
        pin(target.pid, Some(0));
    }
    compare("KMIP Get, one connection, server on one core", &keystead, &echo, &pykmip, (0.7, 100.0), |target| gets(target, 1, WINDOW));
    compare(
        "the same, each request after the answer before (what it mostly measures is how long the machine takes to wake a process)",
        &keystead,
        &echo,
        &pykmip,
        (0.7, 1.0),
        |target| gets(target, 1, 1),
    );
    for target in [&keystead, &echo, &pykmip] {
        pin(target.pid, None);
    }
    compare("KMIP Get, 64 connections", &keystead, &echo, &pykmip, (0.5, 200.0), |target| gets(target, 64, WINDOW));
    compare("connect (full mTLS) + Get + close, 8 at once", &keystead, &echo, &pykmip, (0.8, 10.0), |target| connects(target, 8));

    let record = 9 + 32 + 28 + 170;
    let store = Arc::new(SqliteStore::open(&folder.path().join("raw.db")).await.unwrap());
    let (mut raw, mut made, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.push(commits(&store, record).await);
        made.push(tokio::task::block_in_place(|| creates(&keystead, 64)));
        peer.push(tokio::task::block_in_place(|| creates(&pykmip, 64)));
    }
    let (raw, made, peer) = (median(raw), median(made), median(peer));
    println!("KMIP Create, durable, 64 connections: Keystead {made:.0}/s, raw group commits of the same records {raw:.0}/s, PyKMIP {peer:.0}/s");
    at_least(made / raw, 0.5, "of raw group commits");
    at_least(made / peer, 20.0, "times PyKMIP");
    store.close().await;
    drop((echo_child, pykmip_child));
}

fn compare(what: &str, keystead: &Target, echo: &Target, pykmip: &Target, (of_echo, of_pykmip): (f64, f64), measure: impl Fn(&Target) -> f64) {
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (target, rates) in [echo, keystead, pykmip].into_iter().zip(&mut rates) {
            rates.push(tokio::task::block_in_place(|| measure(target)));
        }
    }
    let [echoed, own, peer] = rates.map(median);
    println!("{what}: {} {own:.0}/s, {} {echoed:.0}/s, {} {peer:.0}/s", keystead.name, echo.name, pykmip.name);
    at_least(own / echoed, of_echo, "of the echo");
    at_least(own / peer, of_pykmip, "times PyKMIP");
}

/// Gets a second over so many connections, each with so many requests on their way at a time.
fn gets(target: &Target, connections: usize, window: usize) -> f64 {
    let mut clients = connected(target, connections);
    for client in &mut clients {
        (1..window).for_each(|_| client.send_bytes(&target.get).unwrap());
    }
    let threads = THREADS.min(connections);
    let mut shared: Vec<Vec<Client>> = (0..threads).map(|_| Vec::new()).collect();
    clients.into_iter().enumerate().for_each(|(number, client)| shared[number % threads].push(client));
    let each = connections / threads;
    let turns = load(shared, target.round, |clients| {
        for client in clients {
            client.send_bytes(&target.get).unwrap_or_else(|error| panic!("{}: {error}", target.name));
            client.read_answer().unwrap_or_else(|error| panic!("{}: {error}", target.name));
        }
    });
    turns * each as f64
}

fn creates(target: &Target, connections: usize) -> f64 {
    let create = target.create.as_ref().unwrap();
    load(connected(target, connections), target.round, |client| {
        client.call_bytes(create).unwrap_or_else(|error| panic!("{}: {error}", target.name));
    })
}

/// Connections after their handshake. One after the other, and again where the server hangs up: PyKMIP's does when many come at once.
fn connected(target: &Target, count: usize) -> Vec<Client> {
    let connect = || {
        let mut client = Client::connect(&target.endpoint)?;
        client.call_bytes(&target.get).map(|_| client)
    };
    let mut tries = 5 * count;
    std::iter::from_fn(|| {
        loop {
            match connect() {
                Ok(client) => return Some(client),
                Err(error) if tries == 0 => panic!("{}: {error}", target.name),
                Err(_) => tries -= 1,
            }
        }
    })
    .take(count)
    .collect()
}

fn connects(target: &Target, at_once: usize) -> f64 {
    load(vec![(); at_once], target.round, |()| {
        Client::connect(&target.endpoint).unwrap().call_bytes(&target.get).unwrap_or_else(|error| panic!("{}: {error}", target.name));
    })
}

/// Durable writes a second of records of that size, 64 at once.
async fn commits(store: &Arc<SqliteStore>, size: usize) -> f64 {
    let count = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (store, count) = (Arc::clone(store), Arc::clone(&count));
            tokio::spawn(async move {
                while start.elapsed() < ROUND {
                    store.transact(Txn::new().put(format!("/keys/{}", uuid::Uuid::new_v4()), vec![7u8; size])).await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

fn usual() -> Node<'static> {
    template(&[
        Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(3)),
        Attribute::new(Tag::CryptographicLength, Value::Integer(256)),
        Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)),
    ])
}

fn bytes(node: &Node<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(node, &mut out);
    out
}

/// Puts all threads of a process on one core, or on all.
fn pin(pid: u32, core: Option<usize>) {
    let cores = core.map_or_else(|| format!("0-{}", std::thread::available_parallelism().unwrap().get() - 1), |core| core.to_string());
    let done = Command::new("taskset").args(["-acp", &cores, &pid.to_string()]).stdout(Stdio::null()).status();
    assert!(done.is_ok_and(|status| status.success()), "taskset (util-linux) pins the servers");
}

struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Certificates for the echo and for PyKMIP: EC P-256 as Keystead's own.
struct Pki {
    ca: String,
    certificate: String,
    key: String,
}

impl Pki {
    fn make(folder: &Path) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::default();
        ca.distinguished_name.push(rcgen::DnType::CommonName, "bench CA");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let leaf = |name: &str, usage| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.extended_key_usages = vec![usage];
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let server = leaf("server", rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        let (certificate, key) = leaf("client", rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        for (name, text) in [("bench-ca.pem", &ca_pem), ("bench-server.pem", &server.0), ("bench-server.key", &server.1)] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        Self { ca: ca_pem, certificate, key }
    }

    fn endpoint(&self, port: u16) -> Endpoint {
        Endpoint::from_pem(&format!("127.0.0.1:{port}"), self.ca.as_bytes(), self.certificate.as_bytes(), self.key.as_bytes()).unwrap().without_resumption()
    }
}

/// A bare rustls server: reads so many bytes, answers so many, over mutual TLS.
async fn echo(folder: &Path, port: u16, request: usize, answer: usize) {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&read("bench-ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(&read("bench-server.pem")).unwrap()],
            PrivateKeyDer::from_pem_slice(&read("bench-server.key")).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let (mut input, mut output) = (vec![0; request], vec![0; answer]);
            // So that a client that reads a length finds one.
            output[4..8].copy_from_slice(&u32::try_from(answer - 8).unwrap().to_be_bytes());
            while stream.read_exact(&mut input).await.is_ok() {
                if stream.write_all(&output).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        });
    }
}

/// PyKMIP's own server.
fn pykmip(folder: &Path) -> (Guard, u16) {
    let port = free_port();
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::create_dir_all(folder.join("policies")).unwrap();
    let configuration = format!(
        "[server]\nhostname=127.0.0.1\nport={port}\ncertificate_path={}\nkey_path={}\nca_path={}\nauth_suite=TLS1.2\npolicy_path={}\nenable_tls_client_auth=True\nlogging_level=ERROR\ndatabase_path={}\n",
        path("bench-server.pem"),
        path("bench-server.key"),
        path("bench-ca.pem"),
        path("policies"),
        path("pykmip.db"),
    );
    std::fs::write(folder.join("pykmip.conf"), configuration).unwrap();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let server = top.join(".venv/bin/pykmip-server");
    assert!(server.exists(), "{} is missing: scripts/test-env makes it", server.display());
    let log = std::fs::File::create(folder.join("pykmip.out")).unwrap();
    let child = Command::new(server)
        .args(["-f", &path("pykmip.conf"), "-l", &path("pykmip.log")])
        .current_dir(folder)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    (Guard(child), port)
}
