//! FIPS mode: what it refuses, what it says beforehand, and that it needs no restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::blind::{connect, provider};
use common::kmip::{Kmip, template, uid};
use common::scene::{Scene, enabled, scene, scene_with};
use common::{code, enable_body, eventually};
use keystead::serve::Hooks;
use keystead_kmip::Tag;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{CryptographicAlgorithm, Enumeration as _, ObjectType, Operation, ResultReason};
use keystead_kmip::ttlv::{Node, Value};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, NamedGroup};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const CHACHA: &[CipherSuite] = &[
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];
const OTHER_GROUPS: &[NamedGroup] = &[NamedGroup::X25519, NamedGroup::X25519MLKEM768];

async fn fips(scene: &Scene, enabled: bool) {
    let answer = scene.node.ask("PATCH", "/security", Some(json!({ "fips": { "enabled": enabled } }))).await;
    assert_eq!(answer.0, 200, "{answer:?}");
}

fn create(kmip: &mut Kmip, algorithm: CryptographicAlgorithm, bits: i32) -> common::kmip::Answer {
    let attributes = [
        Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(algorithm.number())),
        Attribute::new(Tag::CryptographicLength, Value::Integer(bits)),
        Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)),
    ];
    kmip.call(Operation::Create, vec![Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), template(&attributes)])
}

fn register(kmip: &mut Kmip, algorithm: CryptographicAlgorithm, material: &[u8]) -> common::kmip::Answer {
    let value = Node::structure(Tag::KeyValue, vec![Node::bytes(Tag::KeyMaterial, material.to_vec())]);
    let block = vec![
        Node::enumeration(Tag::KeyFormatType, keystead_kmip::enumeration::KeyFormatType::Raw),
        value,
        Node::enumeration(Tag::CryptographicAlgorithm, algorithm),
        Node::integer(Tag::CryptographicLength, material.len() as i32 * 8),
    ];
    let key = Node::structure(Tag::SymmetricKey, vec![Node::structure(Tag::KeyBlock, block)]);
    let attributes = [Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12))];
    kmip.call(Operation::Register, vec![Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), template(&attributes), key])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kmip_algorithms() {
    use CryptographicAlgorithm as A;
    let scene = scene().await;
    let mut kmip = scene.connect();
    let weak = [(A::DES3, 168), (A::ChaCha20, 256), (A::HMAC_SHA256, 64), (A::RC4, 128)];
    let before: Vec<String> = weak.iter().map(|(algorithm, bits)| create(&mut kmip, *algorithm, *bits).id()).collect();

    // What exists is said beforehand, and nothing has happened.
    let answer = scene.node.ask("PATCH", "/security", Some(json!({ "fips": { "enabled": true } }))).await;
    assert_eq!((answer.0, code(&answer).as_str(), answer.1["error"]["target"].as_str()), (400, "52559974", Some("fips.enabled")));
    let message = answer.1["error"]["message"].as_str().unwrap();
    assert!(message.contains("4 keys (") && before.iter().all(|id| message.contains(id)) && message.contains("DES3 with 168 bits"), "{message}");
    assert_eq!(
        code(&scene.node.ask("PATCH", "/security/ekmip/settings", Some(json!({ "cluster": { "fips": true } }))).await),
        "52559974",
        "the same by its other name"
    );
    assert_eq!(scene.node.get("/security").await["fips"]["enabled"], false);
    assert!(scene.node.get("/security?fields=*").await.get("keystead").is_none(), "the report is not had by the way");
    let report = scene.node.get("/security?fields=keystead.fips_report").await["keystead"]["fips_report"].clone();
    assert_eq!(
        (report["clean"].as_bool(), report["num_keys"].as_u64(), report["keys"][0]["svm"]["name"].as_str()),
        (Some(false), Some(4), Some("svm1")),
        "{report}"
    );

    // By force.
    let forced = json!({ "fips": { "enabled": true }, "keystead": { "force": true } });
    assert_eq!(scene.node.ask("PATCH", "/security", Some(forced)).await.0, 200);
    assert_eq!(scene.node.get("/security/ekmip/settings?fields=cluster.fips").await["cluster"]["fips"], true);
    let mut kmip = scene.connect();
    for ((algorithm, bits), id) in weak.into_iter().zip(&before) {
        for answer in [create(&mut kmip, algorithm, bits), register(&mut kmip, algorithm, &vec![7; (bits as usize).next_multiple_of(64) / 8])] {
            assert_eq!(answer.reason(), Some(ResultReason::FeatureNotSupported), "{algorithm:?} {}", answer.message());
            assert!(answer.message().contains("FIPS"), "{}", answer.message());
        }
        assert!(!kmip.get(id).material().is_empty(), "data under it must stay readable");
        assert_eq!(kmip.with_id(Operation::ReKey, id).reason(), Some(ResultReason::FeatureNotSupported), "but it gets no successor");
    }
    assert_eq!(create(&mut kmip, A::AES, 256).reason(), None);
    assert_eq!(register(&mut kmip, A::AES, &[7; 32]).reason(), None);
    assert_eq!(kmip.register(b"a password", &[]).reason(), None, "secret data is nobody's key");

    // What is destroyed does not count; and off again.
    for id in &before {
        assert_eq!(kmip.with_id(Operation::Destroy, id).reason(), None);
    }
    assert_eq!(scene.node.get("/security?fields=keystead.fips_report").await["keystead"]["fips_report"]["clean"], true);
    fips(&scene, false).await;
    fips(&scene, true).await;
    fips(&scene, false).await;
    assert_eq!(create(&mut scene.connect(), A::DES3, 168).reason(), None);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_of_both_servers() {
    let scene = scene().await;
    let client = || {
        let chain = vec![CertificateDer::from_pem_slice(scene.client.certificate.as_bytes()).unwrap()];
        Some((chain, PrivateKeyDer::from_pem_slice(scene.client.private_key.as_bytes()).unwrap()))
    };
    let kmip = |provider| connect(scene.node.ekmip, provider, client());
    let rest = |provider| connect(scene.node.address, provider, None);
    let others = || [provider(CHACHA, &[]), provider(&[], OTHER_GROUPS)];
    for provider in others() {
        kmip(provider.clone()).await.unwrap();
        rest(provider).await.unwrap();
    }
    // Connections of before: one that FIPS mode would not have agreed upon, one that it would have.
    let (mut old_kmip, mut old_rest) = (kmip(provider(CHACHA, &[])).await.unwrap(), rest(provider(&[], OTHER_GROUPS)).await.unwrap());
    let good = kmip(provider(&[CipherSuite::TLS13_AES_256_GCM_SHA384], &[NamedGroup::secp256r1])).await.unwrap();
    let mut bytes = [0; 1024];
    old_rest.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(old_rest.read(&mut bytes).await.unwrap() > 0);

    fips(&scene, true).await;
    for provider in others() {
        assert!(kmip(provider.clone()).await.is_err() && rest(provider).await.is_err());
    }
    for suite in [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384] {
        for group in [NamedGroup::secp256r1, NamedGroup::secp384r1] {
            kmip(provider(&[suite], &[group])).await.unwrap();
            rest(provider(&[suite], &[group])).await.unwrap();
        }
    }
    let ended = async |stream: &mut tokio_rustls::client::TlsStream<tokio::net::TcpStream>| {
        let mut bytes = [0; 64];
        matches!(tokio::time::timeout(Duration::from_secs(5), stream.read(&mut bytes)).await, Ok(Ok(0) | Err(_)))
    };
    assert!(ended(&mut old_kmip).await && ended(&mut old_rest).await, "what was agreed upon before ends");
    let mut good = good;
    let mut bytes = [0; 64];
    assert!(tokio::time::timeout(Duration::from_millis(300), good.read(&mut bytes)).await.is_err(), "what is good stays");
    // The reachability of the EKMIP servers is looked at with the same TLS.
    assert_eq!(scene.node.get(&format!("{}?fields=ekmip_reachability", scene.config)).await["ekmip_reachability"][0]["reachable"], true);
    fips(&scene, false).await;
    for provider in others() {
        kmip(provider.clone()).await.unwrap();
        rest(provider).await.unwrap();
    }
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_aws() {
    let scene = scene().await;
    // A server that can do X25519 alone, and counts who comes to terms with it.
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider(&[], &[NamedGroup::X25519])))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap())
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (came, agreed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&came), Arc::clone(&agreed));
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            counts.0.fetch_add(1, Ordering::SeqCst);
            if acceptor.accept(stream).await.is_ok() {
                counts.1.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    scene.node.svm("svm2").await;
    let mut body = enable_body("svm2", &scene.kms, &scene.key);
    (body["port"], body["verify"]) = (json!(port), json!(false));
    assert_eq!(code(&scene.node.enable(body.clone()).await), "65537915");
    assert!(agreed.load(Ordering::SeqCst) > 0);
    fips(&scene, true).await;
    let (came_before, agreed_before) = (came.load(Ordering::SeqCst), agreed.load(Ordering::SeqCst));
    assert_eq!(code(&scene.node.enable(body).await), "65537915");
    assert!(came.load(Ordering::SeqCst) > came_before);
    assert_eq!(agreed.load(Ordering::SeqCst), agreed_before);
    // With a server that can do more, all goes on: the client that was in use, and a new one.
    let state = scene.node.get(&format!("{}?fields=amazon_reachability", scene.config)).await;
    assert_eq!(state["amazon_reachability"]["reachable"], true, "{state}");
    enabled(&scene.node, &scene.kms, &scene.key, "svm2").await;
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weak_certificates_are_named_and_kept_out() {
    let scene = scene().await;
    let weak = include_str!("data/weak-ca.pem");
    let install = |name: &str| json!({ "type": "server_ca", "name": name, "public_certificate": weak });
    let answer = scene.node.ask("POST", "/security/certificates?return_records=true", Some(install("old"))).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    assert_eq!((answer.1["records"][0]["key_size"].as_u64(), answer.1["records"][0]["hash_function"].as_str()), (Some(1024), Some("sha1")));
    let answer = scene.node.ask("PATCH", "/security", Some(json!({ "fips": { "enabled": true } }))).await;
    assert!(code(&answer) == "52559974" && answer.1["error"]["message"].as_str().unwrap().contains("1 certificates (/security/certificates/"), "{answer:?}");
    let report = scene.node.get("/security?fields=keystead.fips_report").await["keystead"]["fips_report"].clone();
    assert!(report["certificates"][0]["reason"].as_str().unwrap().contains("1024"), "{report}");
    let uuid = scene.node.get("/security/certificates?name=old").await["records"][0]["uuid"].as_str().unwrap().to_owned();
    assert_eq!(scene.node.ask("DELETE", &format!("/security/certificates/{uuid}"), None).await.0, 200);
    fips(&scene, true).await;
    assert_eq!(code(&scene.node.ask("POST", "/security/certificates", Some(install("new"))).await), "3735664");
    let speaks = json!({ "svm": { "name": "svm1" }, "certificate": weak });
    assert_eq!(code(&scene.node.ask("POST", "/security/ekmip/client-cas", Some(speaks)).await), "3735664");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_configuration_file() {
    let scene = scene_with("[cluster]\nfips = true\n", Hooks::default()).await;
    assert_eq!(scene.node.get("/security").await["fips"]["enabled"], true);
    assert!(connect(scene.node.address, provider(CHACHA, &[]), None).await.is_err());
    let id = scene.connect().created(vec![]);
    eventually("keys are served", async || scene.connect().try_call(Operation::Get, vec![uid(&id)]).ok()).await;
    for (body, expected) in [(json!({}), "65537541"), (json!({ "fips": { "enabled": "x" } }), "262247"), (json!({ "nonsense": 1 }), "262179")] {
        assert_eq!(code(&scene.node.ask("PATCH", "/security", Some(body)).await), expected);
    }
    scene.node.stop().await;
}
