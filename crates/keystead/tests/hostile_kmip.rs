//! The hostile list of the KMIP contract, against one running program: each gets an error or a closed connection, a good client is served all the while and afterwards, and memory stays bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Credentials, Kmip, message, uid};
use common::run::Run;
use common::{enable_body, eventually, stand_in, toml_for};
use keystead_conformance::client::Client;
use keystead_kmip::Tag;
use keystead_kmip::enumeration::{BatchErrorContinuationOption, Operation, ResultReason};
use keystead_kmip::ttlv::{Node as Item, Value, encode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How much more resident memory the node may have than idle.
const MORE_KIB: usize = 64 * 1024;

/// Does what a hostile client does, and says what came of it.
type Look<'l> = &'l dyn Fn(&Scene) -> String;

struct Scene {
    node: Run,
    client: Credentials,
    _kms: keystead_testkit::KmsStandIn,
    _folder: tempfile::TempDir,
    key: String,
}

async fn scene(more: &str) -> Scene {
    let (kms, key) = stand_in().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keystead.toml"), format!("{}{more}", toml_for(&kms, folder.path()))).unwrap();
    let node = Run::start(folder.path(), None, &[]).await;
    assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await.unwrap().0, 201);
    assert_eq!(node.call("POST", "/security/aws-kms?return_timeout=60", Some(enable_body("svm1", &kms, &key))).await.unwrap().0, 201);
    let client = Credentials::issue_by(&node, "svm1").await;
    let key = Kmip::connect(&client.endpoint(node.ekmip)).created(vec![]);
    Scene { node, client, _kms: kms, _folder: folder, key }
}

impl Scene {
    fn connect(&self) -> Kmip {
        Kmip::connect(&self.client.endpoint(self.node.ekmip))
    }

    fn get(&self) -> Vec<u8> {
        bytes(&message(2, vec![(Operation::Get, vec![uid(&self.key)])], &[]))
    }
}

fn bytes(node: &Item<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(node, &mut out);
    out
}

/// The reason of a failed answer.
fn reason(answer: &Item<'_>) -> Option<u32> {
    match answer.find(Tag::BatchItem)?.find(Tag::ResultReason)?.value {
        Value::Enumeration(reason) => Some(reason),
        _ => None,
    }
}

/// Puts `with` at `at` of a good message.
fn changed(mut good: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    good[at..at + with.len()].copy_from_slice(with);
    good
}

/// All of the list, one after the other, on one server with the limits as they are by default but for the times. A good client asks on an old connection and on new ones all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hostile_list() {
    let scene = scene("[ekmip]\nhandshake_timeout = \"5s\"\nmessage_timeout = \"3s\"\nidle_timeout = \"6s\"\n").await;
    let large = scene.connect().register(&vec![7; 256 * 1024], &[]).id();
    let revoked = Credentials::issue_by(&scene.node, "svm1").await;
    assert_eq!(scene.node.call("DELETE", &format!("/security/ekmip/clients/{}", revoked.uuid), None).await.unwrap().0, 200);
    let good = Good::start(&scene);
    tokio::task::block_in_place(|| {
        let looked_at: [(&str, Look<'_>); 11] = [
            ("malformed messages inside a frame", &malformed_messages_are_answered),
            ("a length over the limit, and of 2^32-1", &too_long_is_said_and_closed),
            ("no KMIP at all, inside TLS", &other_protocols_are_closed),
            ("plain text, silence, and half a handshake", &without_tls_it_is_closed),
            ("no certificate, a foreign one, a revoked one", &|scene| strangers_stay_outside(scene, &revoked)),
            ("a client that renegotiates", &renegotiation_is_refused),
            ("one byte at a time", &slow_senders_are_closed),
            ("an idle connection", &idle_connections_are_closed),
            ("messages of the largest size that never end, 200 at once", &|scene| {
                greedy(scene, |connection, _| {
                    connection.send(&[0x42, 0x00, 0x78, 0x01, 0x00, 0x0f, 0xff, 0xf0]);
                    (0..60).for_each(|_| connection.send(&[0u8; 16 * 1024]));
                })
            }),
            ("requests without end, and no answer is read, 200 at once", &|scene| {
                greedy(scene, |connection, good| (0..500).for_each(|_| connection.send(good)))
            }),
            ("batches of large keys, lists and attributes, and no answer is read, 200 at once", &|scene| {
                greedy(scene, |connection, _| {
                    let get = || (Operation::Get, vec![uid(&large)]);
                    let batch = bytes(&message(
                        2,
                        (0..300).map(|_| get()).chain([(Operation::Locate, vec![])]).collect(),
                        &[Item::enumeration(Tag::BatchErrorContinuationOption, BatchErrorContinuationOption::Continue)],
                    ));
                    (0..5).for_each(|_| connection.send(&batch));
                    let attributes = bytes(&message(4, (0..1_000).map(|_| (Operation::GetAttributes, vec![uid(&scene.key)])).collect(), &[]));
                    (0..5).for_each(|_| connection.send(&attributes));
                })
            }),
        ];
        for (what, look) in looked_at {
            let served = good.served();
            let outcome = look(&scene);
            println!("{what}: {outcome}; {} more KiB at the most so far, {} Gets of the good client meanwhile", good.more_kib(), good.served() - served);
        }
    });
    let (served, more) = good.stop();
    println!("{served} Gets of the good client in all; resident memory {more} KiB above idle at the most");
    assert!(served > 200);
    assert!(more <= MORE_KIB, "{more} KiB more than idle");
    assert_eq!(scene.connect().get(&scene.key).material().len(), 32, "and afterwards");
}

/// A client that does nothing wrong: a Get on its own connection, then one on a new connection, and so on; it panics where one fails.
struct Good {
    thread: std::thread::JoinHandle<()>,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    stop: AtomicBool,
    served: AtomicUsize,
    idle: usize,
    most: AtomicUsize,
}

impl Good {
    fn start(scene: &Scene) -> Self {
        scene.connect().get(&scene.key);
        let (pid, get, endpoint) = (scene.node.child.id(), scene.get(), scene.client.endpoint(scene.node.ekmip));
        let idle = resident_kib(pid);
        let watch = Arc::new(Watch { idle, most: AtomicUsize::new(idle), ..Watch::default() });
        let seen = Arc::clone(&watch);
        let thread = std::thread::spawn(move || {
            let mut old = Client::connect(&endpoint).unwrap();
            while !seen.stop.load(Ordering::SeqCst) {
                old.call_bytes(&get).unwrap();
                Client::connect(&endpoint).unwrap().call_bytes(&get).unwrap();
                seen.served.fetch_add(2, Ordering::SeqCst);
                seen.most.fetch_max(resident_kib(pid), Ordering::SeqCst);
                std::thread::park_timeout(Duration::from_millis(2));
            }
        });
        Self { thread, watch }
    }

    fn served(&self) -> usize {
        self.watch.served.load(Ordering::SeqCst)
    }

    fn more_kib(&self) -> usize {
        self.watch.most.load(Ordering::SeqCst) - self.watch.idle
    }

    fn stop(self) -> (usize, usize) {
        self.watch.stop.store(true, Ordering::SeqCst);
        let (served, more) = (self.served(), self.more_kib());
        self.thread.join().expect("the good client is served all the while");
        (served, more)
    }
}

fn resident_kib(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").trim().parse().unwrap()
}

fn malformed_messages_are_answered(scene: &Scene) -> String {
    let good = scene.get();
    let nested = |depth: usize| {
        let mut node = uid("x");
        for _ in 0..depth {
            node = Item::structure(Tag::Attribute, vec![node]);
        }
        bytes(&message(2, vec![(Operation::Get, vec![node])], &[]))
    };
    let batch = |count: usize| bytes(&message(2, (0..count).map(|_| (Operation::Get, vec![uid("x")])).collect(), &[]));
    // The first item inside the header is Protocol Version: where its tag, type, length and value stand.
    let header = 8;
    let minor = 8 + 8 + 8 + 16 + 8;
    let framed: Vec<(&str, Vec<u8>)> = vec![
        ("an inner length past the end", changed(good.clone(), header + 4, &[0, 0, 0xff, 0xf8])),
        ("an inner length of 2^32-1", changed(good.clone(), header + 4, &[0xff; 4])),
        ("padding that is not zero", changed(good.clone(), minor + 4, &[1])),
        ("an unknown type", changed(good.clone(), header + 3, &[0x0f])),
        ("an unknown tag", changed(good.clone(), header + 1, &[0x7f, 0xff])),
        ("no tag of KMIP", changed(good.clone(), header, &[0x11])),
        ("an unknown version", changed(good.clone(), minor, &[0, 0, 0, 99])),
        ("a negative version", changed(good.clone(), minor, &[0xff; 4])),
        ("text that is not UTF-8", {
            let at = good.windows(36).position(|window| window == scene.key.as_bytes()).unwrap();
            changed(good.clone(), at, &[0xff, 0xfe])
        }),
        ("nesting over 32", nested(40)),
        ("10,000 batch items", batch(10_000)),
        ("an empty batch", batch(0)),
        ("a response in place of a request", bytes(&Item::structure(Tag::RequestMessage, vec![Item::structure(Tag::ResponseHeader, vec![])]))),
        ("many small items", bytes(&Item::structure(Tag::RequestMessage, (0..30_000).map(|_| Item::structure(Tag::BatchItem, vec![])).collect()))),
    ];
    let mut kmip = scene.connect();
    let count = framed.len();
    for (what, message) in framed {
        let answer = kmip.raw(&message).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(reason(&answer).is_some(), "{what}: {answer:?}");
        assert_eq!(kmip.get(&scene.key).material().len(), 32, "{what}: the connection lives on");
    }
    // In items alone: the others of the batch are answered.
    let item_errors = [
        (Operation::Get, vec![Item::new(Tag::KeyFormatType, Value::Enumeration(0x7777)), uid(&scene.key)], ResultReason::InvalidField),
        (Operation::Get, vec![Item::integer(Tag::UniqueIdentifier, 1)], ResultReason::InvalidMessage),
        (Operation::Get, vec![uid(&scene.key), uid(&scene.key)], ResultReason::InvalidMessage),
        (Operation::Sign, vec![], ResultReason::OperationNotSupported),
        (Operation::Create, vec![], ResultReason::MissingData),
        (Operation::Locate, vec![Item::integer(Tag::MaximumItems, -1)], ResultReason::InvalidField),
        (Operation::Query, vec![Item::new(Tag::QueryFunction, Value::Enumeration(99))], ResultReason::InvalidField),
    ];
    for (operation, payload, expected) in &item_errors {
        assert_eq!(kmip.call(*operation, payload.clone()).reason(), Some(*expected), "{operation:?}");
    }
    format!("{count} messages and {} items are refused with a reason, and the connection lives on", item_errors.len())
}

fn too_long_is_said_and_closed(scene: &Scene) -> String {
    let good = scene.get();
    for length in [1024 * 1024 + 1, u32::MAX] {
        let mut kmip = scene.connect();
        let answer = kmip.raw(&changed(good.clone(), 4, &length.to_be_bytes())).unwrap();
        assert!(reason(&answer).is_some());
        assert!(kmip.raw(&good).is_err(), "the connection is closed");
    }
    "said, and closed".to_owned()
}

fn other_protocols_are_closed(scene: &Scene) -> String {
    let mut kmip = scene.connect();
    let _ = kmip.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(kmip.raw(&scene.get()).is_err());
    "closed".to_owned()
}

fn without_tls_it_is_closed(scene: &Scene) -> String {
    for first in [b"\x42\x00\x78\x01\x00\x00\x00\x10".as_slice(), b"", b"\x16\x03\x01\x02\x00\x01"] {
        closes(|| {
            let mut plain = TcpStream::connect(scene.node.ekmip).unwrap();
            plain.write_all(first).unwrap();
            plain
        });
    }
    "closed within the time of a handshake".to_owned()
}

fn strangers_stay_outside(scene: &Scene, revoked: &Credentials) -> String {
    let foreign = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).unwrap();
    let foreign = Credentials { certificate: foreign.cert.pem(), private_key: foreign.signing_key.serialize_pem(), ..scene.client.clone() };
    for stranger in [&foreign, revoked] {
        assert!(Kmip::connect(&stranger.endpoint(scene.node.ekmip)).raw(&scene.get()).is_err());
    }
    let nobody = common::kmip::without_certificate(&scene.client, scene.node.ekmip);
    assert!(tokio::task::block_in_place(|| nobody.and_then(|mut client| Ok(client.call_bytes(&scene.get())?))).is_err());
    "refused by the handshake".to_owned()
}

/// With OpenSSL's client, since rustls has no way to ask for it.
fn renegotiation_is_refused(scene: &Scene) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("ca.pem", &scene.client.ca_certificate), ("cert.pem", &scene.client.certificate), ("key.pem", &scene.client.private_key)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut client = std::process::Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &scene.node.ekmip.to_string(), "-CAfile", "ca.pem", "-cert", "cert.pem", "-key", "key.pem"])
        .current_dir(folder.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("openssl (Debian package openssl) plays the client that renegotiates");
    // The line R asks for it, once the handshake is over; the server's refusal or the closed connection ends the client.
    client.stdin.take().unwrap().write_all(b"R\n").unwrap();
    let output = client.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation") || said.contains("alert") || said.contains("handshake failure"), "{said}");
    "refused".to_owned()
}

fn slow_senders_are_closed(scene: &Scene) -> String {
    let good = scene.get();
    let mut slow = RawTls::connect(&scene.client.endpoint(scene.node.ekmip));
    let (mut sent, mut rest) = (0, Vec::new());
    // A byte each 200 ms: the whole message would take half a minute.
    for byte in &good {
        if slow.0.write_all(&[*byte]).and_then(|()| slow.0.flush()).is_err() {
            break;
        }
        sent += 1;
        slow.0.sock.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        match slow.0.read_to_end(&mut rest) {
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    assert!(sent < good.len() && rest.is_empty(), "{sent} bytes were taken");
    format!("closed after {sent} bytes")
}

fn idle_connections_are_closed(scene: &Scene) -> String {
    let mut idle = RawTls::connect(&scene.client.endpoint(scene.node.ekmip));
    idle.send(&scene.get());
    let mut rest = Vec::new();
    let _ = idle.0.read_to_end(&mut rest);
    assert!(rest.len() > 100, "it was answered first, then closed");
    "answered first, and closed after its time".to_owned()
}

/// Many clients of one certificate that take what they can.
fn greedy(scene: &Scene, what: impl Fn(&mut RawTls, &[u8]) + Sync) -> String {
    let endpoint = scene.client.endpoint(scene.node.ekmip);
    let good = scene.get();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connections: Vec<RawTls> = (0..25).map(|_| RawTls::connect(&endpoint)).collect();
                connections.iter_mut().for_each(|connection| what(connection, &good));
                // They are open at once, for a while.
                std::thread::park_timeout(Duration::from_millis(1_000));
            });
        }
    });
    "bounded".to_owned()
}

/// The server hangs up by itself.
fn closes(open: impl FnOnce() -> TcpStream) {
    let mut stream = open();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert!(!matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "the server does not hang up");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_counted_by_certificate_and_by_svm() {
    let scene = scene("[ekmip]\nmax_connections = 20\nmax_connections_per_svm = 12\nmax_connections_per_client = 8\n").await;
    let good = scene.get();
    let hold = |who: &Credentials, count: usize| {
        let mut held: Vec<Kmip> = (0..count).map(|_| Kmip::connect(&who.endpoint(scene.node.ekmip))).collect();
        held.iter_mut().for_each(|kmip| assert_eq!(kmip.get(&scene.key).material().len(), 32));
        held
    };
    let held = hold(&scene.client, 8);
    assert!(scene.connect().raw(&good).is_err(), "the ninth with this certificate is refused");
    let other = Credentials::issue_by(&scene.node, "svm1").await;
    let more = hold(&other, 4);
    assert!(Kmip::connect(&other.endpoint(scene.node.ekmip)).raw(&good).is_err(), "the thirteenth of this SVM is refused");
    drop((held, more));
    eventually("then there is room again", async || scene.connect().raw(&good).ok()).await;
}

/// A TLS connection on which anything can be sent without waiting for an answer.
struct RawTls(rustls::StreamOwned<rustls::ClientConnection, TcpStream>);

impl RawTls {
    fn connect(endpoint: &keystead_conformance::client::Endpoint) -> Self {
        let (connection, stream) = endpoint.open().unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        Self(rustls::StreamOwned::new(connection, stream))
    }

    /// What the server does not take is left.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }
}

/// Mutations of good messages: always a well-formed answer, and the node lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_mutated_messages() {
    let scene = scene("").await;
    let attributes = common::kmip::template(&[keystead_kmip::attribute::Attribute::name("m")]);
    let kind = Item::enumeration(Tag::ObjectType, keystead_kmip::enumeration::ObjectType::SymmetricKey);
    let seeds = [
        scene.get(),
        bytes(&message(4, vec![(Operation::Create, vec![kind, attributes])], &[])),
        bytes(&message(4, vec![(Operation::Locate, vec![]), (Operation::Query, vec![]), (Operation::GetAttributes, vec![uid(&scene.key)])], &[])),
        bytes(&message(1, vec![(Operation::DiscoverVersions, vec![])], &[])),
    ];
    let cases = if std::env::var_os("SOAK").is_some() { 200_000 } else { 10_000 };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let strategy = (0..seeds.len(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6));
    let connection = std::cell::RefCell::new(scene.connect());
    runner
        .run(&strategy, |(seed, changes)| {
            let mut message = seeds[seed].clone();
            for (at, byte) in changes {
                // The frame itself stays: what has none ends the connection, which another test looks at.
                let at = 8 + at.index(message.len() - 8);
                message[at] = byte;
            }
            let answer = connection.borrow_mut().raw(&message);
            match answer {
                Ok(answer) => {
                    prop_assert_eq!(answer.tag, Tag::ResponseMessage);
                    prop_assert!(answer.find(Tag::BatchItem).is_some());
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(scene.connect().get(&scene.key).material().len(), 32);
    println!("{cases} mutated messages");
}
