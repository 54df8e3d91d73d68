//! FIPS mode: what it refuses, what it says beforehand, and that it needs no restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::blind::{connect, provider};
use common::kmip::{Answer, Credentials, Kmip, template, uid};
use common::scene::{Scene, enabled, scene, scene_with};
use common::steps::PauseAt;
use common::{Node as Keystead, code, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_kmip::Tag;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{BlockCipherMode, CryptographicAlgorithm, Enumeration as _, KeyFormatType, ObjectType, Operation, ResultReason};
use keystead_kmip::ttlv::{Node, Value};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, HandshakeKind, NamedGroup};
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

fn create(kmip: &mut Kmip, algorithm: CryptographicAlgorithm, bits: i32) -> Answer {
    let attributes = [
        Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(algorithm.number())),
        Attribute::new(Tag::CryptographicLength, Value::Integer(bits)),
        Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)),
    ];
    kmip.call(Operation::Create, vec![Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), template(&attributes)])
}

fn register(kmip: &mut Kmip, algorithm: CryptographicAlgorithm, material: &[u8]) -> Answer {
    let attributes = [Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12))];
    kmip.call(Operation::Register, vec![Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), template(&attributes), key(algorithm, material)])
}

/// Imports a key of 1.4 under a number.
fn import(kmip: &mut Kmip, number: u128, algorithm: CryptographicAlgorithm, material: &[u8]) -> Answer {
    let mask = Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)).to_node().into_owned();
    let id = uid(&uuid::Uuid::from_u128(number).to_string());
    kmip.call(Operation::Import, vec![id, Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), mask, key(algorithm, material)])
}

fn key(algorithm: CryptographicAlgorithm, material: &[u8]) -> Node<'static> {
    let value = Node::structure(Tag::KeyValue, vec![Node::bytes(Tag::KeyMaterial, material.to_vec())]);
    let block = vec![
        Node::enumeration(Tag::KeyFormatType, KeyFormatType::Raw),
        value,
        Node::enumeration(Tag::CryptographicAlgorithm, algorithm),
        Node::integer(Tag::CryptographicLength, material.len() as i32 * 8),
    ];
    Node::structure(Tag::SymmetricKey, vec![Node::structure(Tag::KeyBlock, block)])
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

    let mut old_tls_1_2 = kmip(provider(&[CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384], &[NamedGroup::secp256r1])).await.unwrap();
    let endpoint = scene.client.endpoint(scene.node.ekmip);
    let resumed = || {
        tokio::task::block_in_place(|| {
            let mut kmip = Kmip::connect(&endpoint);
            kmip.try_call(Operation::Query, vec![]).unwrap();
            kmip.handshake_kind()
        })
    };
    assert_eq!((resumed(), resumed()), (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)));

    // Clients that could not come back are told beforehand.
    let answer = scene.node.ask("PATCH", "/security", Some(json!({ "fips": { "enabled": true } }))).await;
    let message = answer.1["error"]["message"].as_str().unwrap();
    assert!(code(&answer) == "52559974" && message.contains("KMIP connections of the SVM svm1") && message.contains("REST connections"), "{message}");
    let report = scene.node.get("/security?fields=keystead.fips_report").await["keystead"]["fips_report"].clone();
    assert!(report["clean"] == false && report["connections"].as_array().unwrap().iter().any(|found| found["svm"]["name"] == "svm1"), "{report}");
    let forced = json!({ "fips": { "enabled": true }, "keystead": { "force": true } });
    assert_eq!(scene.node.ask("PATCH", "/security", Some(forced)).await.0, 200);
    assert_ne!(resumed(), Some(HandshakeKind::Resumed), "a session of before is of other TLS");
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
    assert!(ended(&mut old_tls_1_2).await, "whether it has the Extended Master Secret cannot be seen");
    let (mut good, mut request) = (good, Vec::new());
    keystead_kmip::ttlv::encode(&common::kmip::message(4, vec![(Operation::Query, vec![])], &[]), &mut request);
    good.write_all(&request).await.unwrap();
    assert!(good.read(&mut bytes).await.unwrap() > 0, "what is good stays");
    eventually("they are gone", async || {
        let report = scene.node.get("/security?fields=keystead.fips_report").await["keystead"]["fips_report"].clone();
        (report["clean"] == true && report["connections"] == json!([])).then_some(())
    })
    .await;
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
    // This connection has what the mode does not allow: it ends, and its client is told so with the answer, before it sends more.
    let (status, headers, answer) = scene.node.call("PATCH", "/security", Some(json!({ "fips": { "enabled": true } }))).await;
    assert_eq!((status, headers.get("connection").and_then(|value| value.to_str().ok())), (200, Some("close")), "{answer}");
    assert_eq!(code(&scene.node.ask("POST", "/security/certificates", Some(install("new"))).await), "3735664");
    let speaks = json!({ "svm": { "name": "svm1" }, "certificate": weak });
    assert_eq!(code(&scene.node.ask("POST", "/security/ekmip/client-cas", Some(speaks)).await), "3735664");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_between_requests_and_the_template() {
    let scene = scene().await;
    let (weak, weak_csr) = (include_str!("data/weak-ca.pem"), include_str!("data/rsa1024.csr"));
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["leaf.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let install = |name: &str| json!({ "type": "server", "name": name, "public_certificate": leaf, "private_key": key.serialize_pem(), "intermediate_certificates": [weak] });
    let post = async |path: &str, body: serde_json::Value| scene.node.ask("POST", &format!("{path}?return_records=true"), Some(body)).await;
    let with_weak = post("/security/certificates", install("a")).await;
    assert_eq!(with_weak.0, 201, "{with_weak:?}");
    let template = json!({ "ekmip": { "certificate": { "key_type": "rsa", "key_size": 1024 } } });
    assert_eq!(scene.node.ask("PATCH", "/security/ekmip/settings", Some(template)).await.0, 200);
    let report = scene.node.get("/security?fields=keystead.fips_report").await["keystead"]["fips_report"].clone();
    let what: Vec<_> = report["certificates"].as_array().unwrap().iter().map(|found| found["what"].as_str().unwrap()).collect();
    assert!(what.len() == 2 && what[0].starts_with("/security/certificates/") && what[1].starts_with("ekmip.certificate"), "{report}");
    let ca = post("/security/certificates", json!({ "type": "root_ca", "common_name": "CA" })).await;
    let sign = format!("/security/certificates/{}/sign", ca.1["records"][0]["uuid"].as_str().unwrap());

    let forced = json!({ "fips": { "enabled": true }, "keystead": { "force": true } });
    assert_eq!(scene.node.ask("PATCH", "/security", Some(forced)).await.0, 200);
    let refused = async |path: &str, body: serde_json::Value| {
        let answer = scene.node.ask("POST", path, Some(body)).await;
        (code(&answer), answer.1["error"]["target"].as_str().unwrap_or_default().to_owned())
    };
    let of = |code: &str, target: &str| (code.to_owned(), target.to_owned());
    assert_eq!(refused("/security/certificates", install("b")).await, of("3735664", "intermediate_certificates"));
    assert_eq!(refused(&sign, json!({ "signing_request": weak_csr })).await, of("3735664", "signing_request"));
    let good_csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    assert_eq!(refused(&sign, json!({ "signing_request": good_csr, "hash_function": "sha1" })).await, of("3735665", "hash_function"));
    assert_eq!(scene.node.ask("POST", &sign, Some(json!({ "signing_request": good_csr }))).await.0, 200);
    let request = json!({ "subject_name": "CN=a", "hash_function": "sha1" });
    assert_eq!(refused("/security/certificate-signing-request", request).await, of("3735665", "hash_function"));
    let client = json!({ "svm": { "name": "svm1" }, "common_name": "c", "csr": weak_csr });
    assert_eq!(refused("/security/ekmip/clients", client).await, of("3735664", "csr"));
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

/// Import is a third door for keys: closed when Create and Register are, and open when they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_is_refused_as_create_and_register_are() {
    use CryptographicAlgorithm as A;
    let scene = scene().await;
    let mut kmip = scene.connect();
    let three = |kmip: &mut Kmip, number, algorithm, bits, material: &[u8]| {
        [create(kmip, algorithm, bits), register(kmip, algorithm, material), import(kmip, number, algorithm, material)]
            .map(|answer| (answer.reason(), answer.message()))
    };
    let all = |answers: &[(Option<ResultReason>, String); 3], reason| answers.iter().all(|answer| *answer == (reason, answers[0].1.clone()));
    let (aes, des) = ([7; 32], [7; 24]);
    for (number, algorithm, bits, material) in [(1, A::AES, 256, &aes[..]), (2, A::DES3, 168, &des)] {
        let answers = three(&mut kmip, number, algorithm, bits, material);
        assert!(all(&answers, None), "{answers:?}");
    }
    let forced = json!({ "fips": { "enabled": true }, "keystead": { "force": true } });
    assert_eq!(scene.node.ask("PATCH", "/security", Some(forced)).await.0, 200);
    let mut kmip = scene.connect();
    let answers = three(&mut kmip, 3, A::AES, 256, &aes);
    assert!(all(&answers, None), "{answers:?}");
    let answers = three(&mut kmip, 4, A::DES3, 168, &des);
    assert!(answers.iter().all(|(reason, message)| *reason == Some(ResultReason::FeatureNotSupported) && message.contains("FIPS")), "{answers:?}");
    assert_eq!(kmip.get(&uuid::Uuid::from_u128(4).to_string()).reason(), Some(ResultReason::ItemNotFound), "nothing came in");

    // Blocked, since the tenant has taken the customer key away.
    scene.block().await;
    let count = scene.connect().locate(&[]).len();
    let answers = three(&mut kmip, 5, A::AES, 256, &aes);
    assert!(all(&answers, Some(ResultReason::PermissionDenied)), "{answers:?}");
    assert_eq!(scene.connect().locate(&[]).len(), count, "nothing came in");
    scene.node.stop().await;
}

/// SP 800-38D, section 8.2: a nonce of GCM is made where data is encrypted. SP 800-38A, appendix C: an IV of CBC cannot be foreseen, and nobody here knows how a client makes his.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ivs_are_made_by_the_server() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let id = create(&mut kmip, CryptographicAlgorithm::AES, 256).id();
    assert_eq!(kmip.with_id(Operation::Activate, &id).reason(), None);
    let parameters = |mode: BlockCipherMode, random: bool| {
        let mut items = vec![Node::enumeration(Tag::BlockCipherMode, mode)];
        items.extend(random.then(|| Node::new(Tag::RandomIV, Value::Boolean(true))));
        Node::structure(Tag::CryptographicParameters, items)
    };
    let data = || Node::bytes(Tag::Data, vec![5; 32]);
    let modes = [(BlockCipherMode::GCM, 12), (BlockCipherMode::CBC, 16)];
    let before: Vec<_> = modes
        .iter()
        .map(|(mode, length)| {
            let iv = Node::bytes(Tag::IVCounterNonce, vec![9; *length]);
            kmip.call(Operation::Encrypt, vec![uid(&id), parameters(*mode, false), data(), iv.clone()])
                .payload()
                .clone()
                .items()
                .iter()
                .cloned()
                .chain([iv])
                .collect::<Vec<_>>()
        })
        .collect();
    fips(&scene, true).await;
    let mut kmip = scene.connect();
    for ((mode, length), before) in modes.iter().zip(before) {
        let iv = Node::bytes(Tag::IVCounterNonce, vec![9; *length]);
        let answer = kmip.call(Operation::Encrypt, vec![uid(&id), parameters(*mode, false), data(), iv]);
        assert_eq!(answer.reason(), Some(ResultReason::FeatureNotSupported), "{mode:?}: {}", answer.message());
        assert!(answer.message().contains("FIPS mode") && answer.message().contains("RandomIV"), "{}", answer.message());
        let answer = kmip.call(Operation::Encrypt, vec![uid(&id), parameters(*mode, true), data()]);
        let made = answer.payload().find(Tag::IVCounterNonce).expect("the IV that was made");
        assert!(matches!(&made.value, Value::ByteString(bytes) if bytes.len() == *length), "{mode:?}");
        // Decrypt takes whatever IV the data was encrypted with, in FIPS mode and before it.
        for encrypted in [answer.payload().items().to_vec(), before] {
            let mut payload: Vec<_> = encrypted.into_iter().filter(|item| item.tag != Tag::UniqueIdentifier).collect();
            payload.extend([uid(&id), parameters(*mode, false)]);
            assert_eq!(*kmip.call(Operation::Decrypt, payload).payload().find(Tag::Data).unwrap(), data(), "{mode:?}");
        }
    }
    scene.node.stop().await;
}

/// The report looks at all keys, whichever key manager keeps them: of an SVM without one of its own, of the admin SVM, and while they are on their way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_the_onboard_key_manager_are_in_the_report() {
    let (kms, customer_key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let pause = PauseAt::new("enable.batch.before");
    let node = Keystead::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks { steps: pause.clone(), ..Hooks::default() }).await.unwrap();
    let body = json!({ "onboard": { "passphrase": "a cluster passphrase that is long enough" } });
    assert_eq!(node.ask("POST", "/security/key-managers?return_timeout=30", Some(body)).await.0, 201);
    node.svm("svm1").await;
    let mut expected = Vec::new();
    let mut clients = Vec::new();
    for svm in ["svm1", "keystead"] {
        let client = Credentials::issue(&node, svm).await.endpoint(node.ekmip);
        let mut kmip = Kmip::connect_new(&client).await;
        expected.push((svm.to_owned(), create(&mut kmip, CryptographicAlgorithm::DES3, 168).id()));
        assert_eq!(create(&mut kmip, CryptographicAlgorithm::AES, 256).reason(), None);
        clients.push(client);
    }
    let reported = async || {
        let report = node.get("/security?fields=keystead.fips_report").await["keystead"]["fips_report"].clone();
        let keys = report["keys"].as_array().unwrap().iter().map(|key| {
            let id = key["what"].as_str().unwrap().split(' ').nth(1).unwrap().to_owned();
            (key["svm"]["name"].as_str().unwrap().to_owned(), id)
        });
        let mut keys: Vec<_> = keys.collect();
        keys.sort();
        assert_eq!(report["num_keys"].as_u64(), Some(keys.len() as u64), "{report}");
        keys
    };
    expected.sort();
    assert_eq!(reported().await, expected);

    // Half way to AWS: a key of before is with the onboard key manager still, a new one is with AWS.
    let mut enable = enable_body("svm1", &kms, &customer_key);
    enable["keystead"] = json!({ "migrate_keys": true });
    let (status, _, body) = node.call("POST", "/security/aws-kms", Some(enable)).await;
    assert_eq!(status, 202, "{body}");
    pause.reached().await;
    expected.push(("svm1".to_owned(), create(&mut Kmip::connect(&clients[0]), CryptographicAlgorithm::DES3, 168).id()));
    expected.sort();
    assert_eq!(reported().await, expected, "in the middle of a move");
    let refused = node.ask("PATCH", "/security", Some(json!({ "fips": { "enabled": true } }))).await;
    assert!(code(&refused) == "52559974" && refused.1["error"]["message"].as_str().unwrap().contains("3 keys ("), "{refused:?}");
    pause.go();
    node.stop().await;
}
