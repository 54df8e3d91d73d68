//! The hostile list of the KMIP contract, against one running program: each gets an error or a closed connection, a good client is served all the while and afterwards, and memory stays bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::kmip::{Credentials, Kmip, message, uid};
use common::run::Run;
use common::{enable_body, eventually, stand_in, toml_for};
use keystead_conformance::client::Client;
use keystead_kmip::Tag;
use keystead_kmip::enumeration::{Operation, ResultReason};
use keystead_kmip::ttlv::{Node as Item, Value, encode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How much more resident memory the node may have than idle.
const MORE_KIB: usize = 64 * 1024;

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

    fn resident_kib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.node.child.id())).unwrap();
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").trim().parse().unwrap()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_messages_are_answered_and_the_connection_lives_on() {
    let scene = scene("").await;
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
        ("a response in place of a request", {
            let mut node = bytes(&Item::structure(Tag::RequestMessage, vec![Item::structure(Tag::ResponseHeader, vec![])]));
            node.extend_from_slice(&[]);
            node
        }),
        ("many small items", bytes(&Item::structure(Tag::RequestMessage, (0..30_000).map(|_| Item::structure(Tag::BatchItem, vec![])).collect()))),
    ];
    let mut kmip = scene.connect();
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
    for (operation, payload, expected) in item_errors {
        assert_eq!(kmip.call(operation, payload).reason(), Some(expected), "{operation:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_frame_is_closed() {
    let scene = scene("[ekmip]\nmax_message_size = 65536\nhandshake_timeout = \"2s\"\nidle_timeout = \"3s\"\nmax_connections_per_client = 8\n").await;
    let good = scene.get();
    // Over the limit, and 2^32-1: said, then closed, whatever follows.
    for length in [65_537u32, u32::MAX] {
        let mut kmip = scene.connect();
        let answer = kmip.raw(&changed(good.clone(), 4, &length.to_be_bytes())).unwrap();
        assert!(reason(&answer).is_some());
        assert!(kmip.raw(&good).is_err(), "the connection is closed");
    }
    // No KMIP at all, inside TLS.
    let mut kmip = scene.connect();
    let _ = kmip.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(kmip.raw(&good).is_err());
    // No TLS at all: plain text, and silence. The server hangs up within its handshake time.
    for first in [b"\x42\x00\x78\x01\x00\x00\x00\x10".as_slice(), b""] {
        let started = Instant::now();
        let mut plain = TcpStream::connect(scene.node.ekmip).unwrap();
        plain.write_all(first).unwrap();
        plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut rest = Vec::new();
        let _ = plain.read_to_end(&mut rest);
        assert!(started.elapsed() < Duration::from_secs(19), "the server hangs up by itself");
    }
    // An idle connection ends after its time, and not before.
    let mut idle = scene.connect();
    idle.get(&scene.key);
    std::thread::park_timeout(Duration::from_millis(500));
    assert_eq!(idle.get(&scene.key).material().len(), 32);
    eventually("the idle connection must end", async || {
        tokio::time::sleep(Duration::from_secs(4)).await;
        idle.raw(&good).err()
    })
    .await;
    // More connections than a certificate may have.
    let mut held: Vec<Kmip> = (0..8).map(|_| scene.connect()).collect();
    held.iter_mut().for_each(|kmip| assert_eq!(kmip.get(&scene.key).material().len(), 32));
    assert!(scene.connect().raw(&good).is_err(), "the ninth is refused");
    drop(held);
    eventually("then there is room again", async || scene.connect().raw(&good).ok()).await;
    // Certificates: none, expired and foreign ones are for the handshake to refuse.
    let strangers = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).unwrap();
    let stranger = Credentials { certificate: strangers.cert.pem(), private_key: strangers.signing_key.serialize_pem(), ..scene.client.clone() };
    assert!(Kmip::connect(&stranger.endpoint(scene.node.ekmip)).raw(&good).is_err(), "a foreign certificate");
    assert_eq!(scene.connect().get(&scene.key).material().len(), 32);
}

/// Slow and greedy clients by the hundred, and a good one that is served all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_greedy_clients_cost_bounded_memory() {
    let scene = scene("[ekmip]\nmax_connections = 400\nmax_connections_per_client = 400\n").await;
    scene.connect().get(&scene.key);
    let idle = scene.resident_kib();
    let (stop, served, most) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(idle));
    let endpoint = scene.client.endpoint(scene.node.ekmip);
    let good = scene.get();
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let (stop, served, most, scene, endpoint, good) = (&stop, &served, &most, &scene, &endpoint, &good);
            scope.spawn(move || {
                let mut client = Client::connect(endpoint).unwrap();
                while !stop.load(Ordering::SeqCst) {
                    client.call_bytes(good).unwrap();
                    served.fetch_add(1, Ordering::SeqCst);
                    most.fetch_max(scene.resident_kib(), Ordering::SeqCst);
                    std::thread::park_timeout(Duration::from_millis(2));
                }
            });
            let hostile: Vec<_> = (0..8)
                .map(|worker| {
                    scope.spawn(move || {
                        let mut connections: Vec<RawTls> = (0..25).map(|_| RawTls::connect(endpoint)).collect();
                        for (n, connection) in connections.iter_mut().enumerate() {
                            match (worker + n) % 3 {
                                // One byte a time.
                                0 => good.iter().take(20).for_each(|byte| connection.send(&[*byte])),
                                // A message of the largest size that never ends.
                                1 => {
                                    connection.send(&[0x42, 0x00, 0x78, 0x01, 0x00, 0x0f, 0xff, 0xf0]);
                                    for _ in 0..60 {
                                        connection.send(&[0u8; 16 * 1024]);
                                    }
                                }
                                // Requests without end, and no answer is ever read.
                                _ => {
                                    for _ in 0..2_000 {
                                        connection.send(good);
                                    }
                                }
                            }
                        }
                        std::thread::park_timeout(Duration::from_millis(1_500));
                    })
                })
                .collect();
            hostile.into_iter().for_each(|thread| thread.join().unwrap());
            stop.store(true, Ordering::SeqCst);
        });
    });
    let more = most.load(Ordering::SeqCst) - idle;
    println!("{} Gets of the good client were served meanwhile; resident memory: idle {idle} KiB, {more} KiB more at the most", served.load(Ordering::SeqCst));
    assert!(more <= MORE_KIB, "{more} KiB more than idle");
    assert!(served.load(Ordering::SeqCst) > 10);
    assert_eq!(scene.connect().get(&scene.key).material().len(), 32, "and afterwards");
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
