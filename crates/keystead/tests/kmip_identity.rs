//! Who may connect to the EKMIP server, and for which SVM: certificates, CAs, revocation, resumption.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Credentials, Kmip, uid};
use common::scene::scene;
use common::{code, eventually};
use keystead_conformance::client::TestEndpoint as _;
use keystead_kmip::enumeration::Operation;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_certificate_ends_open_connections() {
    let scene = scene().await;
    let mut open = scene.connect();
    let id = open.created(vec![]);
    let list = scene.node.get("/security/ekmip/clients?fields=*").await;
    assert_eq!((list["num_records"].as_u64(), list["records"][0]["state"].as_str()), (Some(1), Some("valid")), "{list}");
    assert_eq!(list["records"][0].get("private_key"), None, "it was shown once");
    let started = std::time::Instant::now();
    assert_eq!(scene.node.ask("DELETE", &format!("/security/ekmip/clients/{}", scene.client.uuid), None).await.0, 200);
    eventually("the open connection must end", async || open.try_call(Operation::Get, vec![uid(&id)]).err()).await;
    println!("an open connection ended {} ms after the revocation", started.elapsed().as_millis());
    assert!(Kmip::connect(&scene.client.endpoint(scene.node.ekmip)).try_call(Operation::Get, vec![uid(&id)]).is_err(), "and no new one works");
    assert_eq!(scene.node.get("/security/ekmip/clients?fields=state").await["records"][0]["state"], "revoked");
    let again = Credentials::issue(&scene.node, "svm1").await;
    assert_eq!(Kmip::connect(&again.endpoint(scene.node.ekmip)).get(&id).material().len(), 32, "another certificate of the SVM works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_has_an_end() {
    let scene = scene().await;
    let body = json!({ "svm": { "name": "svm1" }, "common_name": "short", "expiry_time": "P7D" });
    let (status, body) = scene.node.ask("POST", "/security/ekmip/clients?return_records=true", Some(body)).await;
    assert_eq!(status, 201, "{body}");
    let short = Credentials::from_record(&body["records"][0]);
    assert_eq!(body["records"][0]["state"], "expiring", "within thirty days");
    let mut open = Kmip::connect(&short.endpoint(scene.node.ekmip));
    let id = open.created(vec![]);
    scene.clock.advance(Duration::from_secs(8 * 24 * 60 * 60));
    assert!(open.try_call(Operation::Get, vec![uid(&id)]).is_err(), "the open connection ends with the certificate");
    let shown = scene.node.get(&format!("/security/ekmip/clients/{}", short.uuid)).await;
    assert_eq!(shown["state"], "expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_bring_their_own_keys_and_cas() {
    let scene = scene().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let body = json!({ "svm": { "name": "svm1" }, "common_name": "own key", "csr": csr });
    let (status, body) = scene.node.ask("POST", "/security/ekmip/clients?return_records=true", Some(body)).await;
    assert_eq!((status, body["records"][0].get("private_key")), (201, None), "{body}");
    let own_key = Credentials { private_key: key.serialize_pem(), ..Credentials::from_record(&body["records"][0]) };
    let id = Kmip::connect(&own_key.endpoint(scene.node.ekmip)).created(vec![]);

    // A CA of the SVM's own, and a client under it.
    let (ca, issuer) = authority("tenant CA");
    let leaf = client_of(&issuer);
    let tenant = Credentials { certificate: leaf.0, private_key: leaf.1, ..scene.client.clone() };
    let try_it = |who: &Credentials| Kmip::connect(&who.endpoint(scene.node.ekmip)).try_call(Operation::Get, vec![uid(&id)]).map(|answer| answer.material());
    assert!(try_it(&tenant).is_err(), "nobody vouches for it yet");
    let install = |svm: &str| json!({ "svm": { "name": svm }, "certificate": ca });
    let (status, body) = scene.node.ask("POST", "/security/ekmip/client-cas?return_records=true", Some(install("svm1"))).await;
    assert_eq!(status, 201, "{body}");
    let uuid = body["records"][0]["uuid"].as_str().unwrap().to_owned();
    eventually("the CA's certificates speak for the SVM", async || try_it(&tenant).ok()).await;

    // No certificate may speak for two: not by installing the same CA again, and not by a chain that two SVMs vouch for.
    scene.node.svm("svm2").await;
    assert_eq!(code(&scene.node.ask("POST", "/security/ekmip/client-cas", Some(install("svm2"))).await), "1");
    assert_eq!(scene.node.get("/security/ekmip/client-cas?fields=*").await["num_records"], 1);
    let own_ca = json!({ "svm": { "name": "svm2" }, "certificate": scene.client.ca_certificate });
    assert_eq!(code(&scene.node.ask("POST", "/security/ekmip/client-cas", Some(own_ca)).await), "1", "the cluster's own CA neither");
    assert_eq!(scene.node.ask("DELETE", &format!("/security/ekmip/client-cas/{uuid}"), None).await.0, 200);
    eventually("without the CA the certificate is nothing", async || try_it(&tenant).err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_two_svms_vouch_for_is_refused() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    let (root_pem, root) = authority("root");
    let below = |name: &str, issuer: &rcgen::Issuer<'_, rcgen::KeyPair>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        (params.signed_by(&key, issuer).unwrap().pem(), rcgen::Issuer::new(params, key))
    };
    let (middle_pem, middle) = below("middle", &root);
    let (intermediate_pem, intermediate) = below("intermediate", &middle);
    let leaf = client_of(&intermediate);
    let tenant = Credentials { certificate: format!("{}{intermediate_pem}{middle_pem}", leaf.0), private_key: leaf.1, ..scene.client.clone() };
    let try_it = || Kmip::connect(&tenant.endpoint(scene.node.ekmip)).try_call(Operation::Query, vec![]).map(|_| ());
    let install = async |svm: &str, pem: &str| {
        let (status, body) =
            scene.node.ask("POST", "/security/ekmip/client-cas?return_records=true", Some(json!({ "svm": { "name": svm }, "certificate": pem }))).await;
        assert_eq!(status, 201, "{body}");
        body["records"][0]["uuid"].as_str().unwrap().to_owned()
    };
    install("svm1", &root_pem).await;
    eventually("svm1 vouches for it", async || try_it().ok()).await;
    // What stands directly above or below another SVM's CA is not even installed; further away, the chain that a client sends tells.
    let body = json!({ "svm": { "name": "svm2" }, "certificate": middle_pem });
    assert_eq!(code(&scene.node.ask("POST", "/security/ekmip/client-cas", Some(body)).await), "1");
    let second = install("svm2", &intermediate_pem).await;
    eventually("both vouch for it", async || try_it().err()).await;
    assert_eq!(scene.node.ask("DELETE", &format!("/security/ekmip/client-cas/{second}"), None).await.0, 200);
    eventually("svm1 alone again", async || try_it().ok()).await;
}

fn authority(name: &str) -> (String, rcgen::Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, rcgen::Issuer::new(params, key))
}

fn client_of(issuer: &rcgen::Issuer<'_, rcgen::KeyPair>) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "tenant client");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_resource_of_clients() {
    let scene = scene().await;
    let post = async |query: &str, body| scene.node.ask("POST", &format!("/security/ekmip/clients{query}"), Some(body)).await;
    let good = || json!({ "svm": { "name": "svm1" }, "common_name": "c" });
    let no_key = post("", good()).await;
    assert_eq!((no_key.0, code(&no_key).as_str(), no_key.1["error"]["target"].as_str()), (400, "262186", Some("return_records")), "the key would be lost");
    for (field, value, expected, target) in [
        ("common_name", json!(""), "262245", "common_name"),
        ("csr", json!("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"), "262247", "csr"),
        ("expiry_time", json!("soon"), "262247", "expiry_time"),
        ("expiry_time", json!("P200Y"), "262247", "expiry_time"),
        ("nonsense", json!(1), "262179", "nonsense"),
        ("svm", json!({ "name": "nobody" }), "2621462", "svm.name"),
        ("svm", json!({ "name": "keystead" }), "65537908", "svm"),
    ] {
        let mut body = good();
        body[field] = value;
        let answer = post("?return_records=true", body).await;
        assert_eq!((code(&answer).as_str(), answer.1["error"]["target"].as_str()), (expected, Some(target)), "{field}");
    }
    assert_eq!(code(&scene.node.ask("DELETE", "/security/ekmip/clients/11111111-1111-4111-8111-111111111111", None).await), "4");
    assert_eq!(code(&scene.node.ask("GET", "/security/ekmip/clients?fields=csr", None).await), "262249");
    let not_a_ca = json!({ "svm": { "name": "svm1" }, "certificate": scene.client.certificate });
    assert_eq!(code(&scene.node.ask("POST", "/security/ekmip/client-cas", Some(not_a_ca)).await), "262247");
}

/// Storage opens a connection for a single operation: what was negotiated once is used again, and still it is looked at who comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_resumed_and_revocation_counts_for_them_too() {
    let scene = scene().await;
    let id = scene.connect().created(vec![]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Credentials::issue(&scene.node, "svm1").await;
        let endpoint = client.endpoint_at(scene.node.ekmip, version);
        let connect = || {
            tokio::task::block_in_place(|| {
                let mut kmip = Kmip::connect(&endpoint);
                let answer = kmip.try_call(Operation::Get, vec![uid(&id)])?;
                Ok::<_, String>((answer.material().len(), kmip.handshake_kind()))
            })
        };
        assert_eq!(connect().unwrap(), (32, Some(rustls::HandshakeKind::Full)));
        assert_eq!(connect().unwrap(), (32, Some(rustls::HandshakeKind::Resumed)), "{version:?}");
        assert_eq!(scene.node.ask("DELETE", &format!("/security/ekmip/clients/{}", client.uuid), None).await.0, 200);
        eventually("a resumed session is refused too", async || connect().err()).await;
    }
}

/// The server's certificate is renewed while it runs: new connections see the new one, old ones live on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_certificate_is_renewed_without_a_restart() {
    let scene = scene().await;
    let mut open = scene.connect();
    let id = open.created(vec![]);
    let endpoint = scene.client.endpoint(scene.node.ekmip).trusting_any_server();
    let seen = || {
        tokio::task::block_in_place(|| {
            let (mut connection, mut stream) = endpoint.open().unwrap();
            while connection.is_handshaking() {
                connection.complete_io(&mut stream).unwrap();
            }
            connection.peer_certificates().unwrap()[0].to_vec()
        })
    };
    let before = seen();
    assert_eq!(seen(), before);
    scene.clock.advance(Duration::from_secs(340 * 24 * 60 * 60));
    eventually("new connections see the new certificate", async || (seen() != before).then_some(())).await;
    assert_eq!(open.get(&id).material().len(), 32, "the old connection lives on");
}

/// Who says nothing, or only begins, keeps nobody out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_keep_nobody_out() {
    let scene = scene().await;
    let id = scene.connect().created(vec![]);
    let silent: Vec<_> = (0..400).map(|_| std::net::TcpStream::connect(scene.node.ekmip).unwrap()).collect();
    let mut begun: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(scene.node.ekmip).unwrap()).collect();
    begun.iter_mut().for_each(|stream| std::io::Write::write_all(stream, &[0x16, 0x03, 0x01]).unwrap());
    for _ in 0..50 {
        assert_eq!(scene.connect().get(&id).material().len(), 32);
    }
    drop((silent, begun));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_ends_with_its_certificate_too() {
    let scene = scene().await;
    let idle = scene.client.endpoint(scene.node.ekmip);
    let (mut connection, mut stream) = idle.open().unwrap();
    tokio::task::block_in_place(|| {
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map(|_| ()).unwrap()
        }
    });
    let started = std::time::Instant::now();
    assert_eq!(scene.node.ask("DELETE", &format!("/security/ekmip/clients/{}", scene.client.uuid), None).await.0, 200);
    // It says goodbye by itself: nothing is asked.
    let mut rest = Vec::new();
    let ended = tokio::task::block_in_place(|| std::io::Read::read_to_end(&mut rustls::StreamOwned::new(connection, stream), &mut rest));
    println!("an idle connection ended {} ms after the revocation: {ended:?}", started.elapsed().as_millis());
    assert!(rest.is_empty());
}

/// One SVM's certificates together have their own places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_certificates_is_bounded() {
    let scene = scene().await;
    let (mut chain, mut issuer) = (Vec::new(), authority("top").1);
    for n in 0..8 {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("ca {n}"));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        chain.push(params.signed_by(&key, &issuer).unwrap().pem());
        issuer = rcgen::Issuer::new(params, key);
    }
    let long = Credentials { certificate: format!("{}{}", scene.client.certificate, chain.concat()), ..scene.client.clone() };
    assert!(Kmip::connect(&long.endpoint(scene.node.ekmip)).try_call(Operation::Query, vec![]).is_err());
    let short = Credentials { certificate: format!("{}{}", scene.client.certificate, chain[..4].concat()), ..scene.client.clone() };
    assert!(Kmip::connect(&short.endpoint(scene.node.ekmip)).try_call(Operation::Query, vec![]).is_ok(), "a few that nobody needs do no harm");
}
