//! `/security/certificates`, the six codes of certificates, and the renewal of the EKMIP server's certificate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::blind::shown_certificate;
use common::scene::{Scene, enabled, scene};
use common::{code, enable_body, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const PATH: &str = "/security/certificates";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes or installs a certificate, and answers its record.
async fn post(scene: &Scene, body: Value) -> Value {
    let answer = scene.node.ask("POST", &format!("{PATH}?return_records=true"), Some(body)).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    answer.1["records"][0].clone()
}

async fn refused(scene: &Scene, body: Value) -> (u16, String, String) {
    let answer = scene.node.ask("POST", PATH, Some(body)).await;
    (answer.0, code(&answer), answer.1["error"]["target"].as_str().unwrap_or_default().to_owned())
}

async fn template(scene: &Scene, template: Value) {
    let answer = scene.node.ask("PATCH", "/security/ekmip/settings", Some(json!({ "ekmip": { "certificate": template } }))).await;
    assert_eq!(answer.0, 200, "the template is checked when it is used: {answer:?}");
}

/// The record of the EKMIP server's own certificate.
async fn of_server(scene: &Scene) -> Value {
    let all = scene.node.get(&format!("{PATH}?type=server&fields=*")).await;
    let found = all["records"].as_array().unwrap().iter().find(|record| record["name"].as_str().unwrap().starts_with("keystead_ekmip_"));
    found.unwrap_or_else(|| panic!("{all}")).clone()
}

fn parsed(pem: &str) -> (Vec<u8>, rustls::pki_types::CertificateDer<'static>) {
    use rustls::pki_types::pem::PemObject as _;
    let der = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    (der.to_vec(), der)
}

/// Whether a CA vouches for a certificate, as a TLS client sees it.
fn vouches(ca: &str, leaf: &str, name: &str) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(parsed(ca).1).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(std::sync::Arc::new(roots), provider).build().unwrap();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    rustls::client::danger::ServerCertVerifier::verify_server_cert(&*verifier, &parsed(leaf).1, &[], &name, &[], rustls::pki_types::UnixTime::now()).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_the_six_codes_by_a_post_and_by_an_enable() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    let cases = [
        (false, "3735622", "type", json!({ "type": "client_ca" })),
        (false, "3735645", "serial_number", json!({ "serial_number": "1234" })),
        (false, "3735657", "subtype", json!({ "subtype": "kmip_cert" })),
        (false, "3735700", "key_size", json!({ "key_type": "rsa", "key_size": 1024 })),
        (false, "3735700", "key_size", json!({ "key_type": "ec", "key_size": 521 })),
        (false, "262247", "hash_function", json!({ "hash_function": "sha1" })),
        (true, "3735664", "key_size", json!({ "key_type": "rsa", "key_size": 1024 })),
        (true, "3735665", "hash_function", json!({ "hash_function": "sha1" })),
        (true, "3735665", "hash_function", json!({ "hash_function": "md5" })),
        (true, "3735700", "key_size", json!({ "key_type": "rsa", "key_size": 5000 })),
    ];
    let good = json!({ "type": "server", "key_type": "ec", "key_size": 256, "hash_function": "sha256", "serial_number": null, "subtype": null });
    for (fips, expected, target, case) in cases {
        template(&scene, good.clone()).await;
        assert_eq!(scene.node.ask("PATCH", "/security", Some(json!({ "fips": { "enabled": fips } }))).await.0, 200);
        // By a POST.
        let mut body = json!({ "type": "server", "common_name": "node.example" });
        for (member, value) in case.as_object().unwrap() {
            body[if member == "key_type" { "algorithm" } else { member }] = value.clone();
        }
        assert_eq!(refused(&scene, body).await, (400, expected.to_owned(), target.to_owned()), "{case}");
        // By an enable, with the same as the template.
        template(&scene, case.clone()).await;
        let answer = scene.node.enable(enable_body("svm2", &scene.kms, &scene.key)).await;
        assert_eq!((answer.0, code(&answer).as_str()), (400, expected), "{case}");
        assert_eq!(answer.1["error"]["target"], format!("ekmip.certificate.{target}"));
        assert_eq!(scene.node.get("/security/aws-kms?svm.name=svm2").await["num_records"], 0, "nothing is left of it");
    }
    template(&scene, good).await;
    enabled(&scene.node, &scene.kms, &scene.key, "svm2").await;
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_by_itself_and_by_a_ca() {
    let scene = scene().await;
    let alone = post(
        &scene,
        json!({ "type": "server", "common_name": "a.example", "name": "alone", "subject_alternatives": { "dns": ["a.example"], "ip": ["10.0.0.1"] } }),
    )
    .await;
    assert_eq!(
        (alone["key_size"].as_u64(), alone["hash_function"].as_str(), alone["algorithm"].as_str(), alone["ca"].as_str(), alone["scope"].as_str()),
        (Some(2048), Some("sha256"), Some("rsa"), Some("a.example"), Some("cluster")),
        "ONTAP's defaults: {alone}"
    );
    let end: jiff::Timestamp = alone["expiry_time"].as_str().unwrap().parse().unwrap();
    let days = end.duration_since(jiff::Timestamp::now()).as_hours() / 24;
    assert!((364..=365).contains(&days), "{days}");
    let private_key = alone["private_key"].as_str().unwrap();
    let public = alone["public_certificate"].as_str().unwrap();
    assert!(private_key.contains("PRIVATE KEY") && vouches(public, public, "10.0.0.1"));

    // The key was shown once, and stands nowhere in the clear.
    let path = format!("{PATH}/{}", alone["uuid"].as_str().unwrap());
    let shown = scene.node.get(&format!("{path}?fields=**")).await;
    assert_eq!((shown["public_certificate"].as_str(), shown.get("private_key")), (Some(public), None), "{shown}");
    assert_eq!(code(&scene.node.ask("GET", &format!("{path}?fields=private_key"), None).await), "262249");
    assert_eq!(code(&scene.node.ask("GET", &format!("{PATH}?private_key=x"), None).await), "262250");
    assert_eq!(scene.node.get(&format!("{PATH}?common_name=a.example&type=server&fields=name")).await["records"][0]["name"], "alone");
    assert_eq!(refused(&scene, json!({ "type": "server", "common_name": "b", "name": "ALONE" })).await.1, "1", "names are unique");
    common::leaks::no_private_key(&scene.node.folder.path().join("data"));

    // A CA of an SVM signs; the cluster's CA signs.
    let ca = post(&scene, json!({ "type": "root_ca", "common_name": "tenant CA", "svm": { "name": "svm1" }, "algorithm": "ec", "key_size": 384 })).await;
    assert_eq!((ca.get("private_key"), ca["scope"].as_str(), ca["svm"]["name"].as_str()), (None, Some("svm"), Some("svm1")), "a CA's key stays here: {ca}");
    let child = json!({ "type": "client", "common_name": "child", "svm": { "name": "svm1" }, "algorithm": "ec", "keystead": { "ca": ca["uuid"] } });
    let child = post(&scene, child).await;
    assert_eq!((child["ca"].as_str(), child["authority_key_identifier"].as_str()), (Some("tenant CA"), ca["subject_key_identifier"].as_str()));
    let cluster = scene.node.get(&format!("{PATH}?name=keystead_cluster_ca&fields=*")).await["records"][0].clone();
    let server = json!({ "type": "server", "common_name": "c", "subject_alternatives": { "dns": ["c.example"] }, "keystead": { "ca": "keystead_cluster_ca" } });
    let server = post(&scene, server).await;
    assert!(vouches(cluster["public_certificate"].as_str().unwrap(), server["public_certificate"].as_str().unwrap(), "c.example"));
    assert_eq!(refused(&scene, json!({ "type": "server", "common_name": "c", "keystead": { "ca": "nobody" } })).await.1, "4");
    let own = json!({ "type": "client", "common_name": "c", "subject_alternatives": { "uri": ["URN:keystead:ekmip-probe:x"] }, "keystead": { "ca": "keystead_cluster_ca" } });
    assert_eq!(refused(&scene, own).await, (400, "262247".to_owned(), "subject_alternatives.uri".to_owned()), "such a URI means something to the cluster");

    // What is in use is not deleted.
    let delete = async |record: &Value| scene.node.ask("DELETE", &format!("{PATH}/{}", record["uuid"].as_str().unwrap()), None).await;
    for used in [&ca, &cluster, &of_server(&scene).await] {
        let answer = delete(used).await;
        assert_eq!((answer.0, code(&answer).as_str()), (409, "8"), "{used}");
    }
    for unused in [&child, &ca, &server, &alone] {
        assert_eq!(delete(unused).await.0, 200, "{unused}");
    }
    assert_eq!(code(&delete(&alone).await), "4");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installed_from_elsewhere() {
    let scene = scene().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["b.example".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "b.example");
    let leaf = params.self_signed(&key).unwrap().pem();
    let install = |kind: &str, certificate: &str, key: Option<&str>| json!({ "type": kind, "public_certificate": certificate, "private_key": key });
    assert_eq!(refused(&scene, install("server", &leaf, None)).await, (400, "262212".into(), "private_key".into()));
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(refused(&scene, install("server", &leaf, Some(&other))).await, (400, "262247".into(), "private_key".into()));
    assert_eq!(refused(&scene, install("client_ca", &leaf, None)).await, (400, "262247".into(), "public_certificate".into()), "it is no CA");
    assert_eq!(refused(&scene, install("nonsense", &leaf, None)).await, (400, "262247".into(), "type".into()));
    assert_eq!(refused(&scene, install("server", "-----BEGIN CERTIFICATE-----\nx", None)).await.1, "262247");
    let record = post(&scene, install("server", &leaf, Some(&key.serialize_pem()))).await;
    assert_eq!((record["common_name"].as_str(), record.get("private_key")), (Some("b.example"), None), "{record}");
    assert_eq!(refused(&scene, install("server", &leaf, Some(&key.serialize_pem()))).await.1, "1", "it is there");

    // A client CA is installed, and is in use once it speaks for an SVM's clients.
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "clients of svm1");
    let ca = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    let mut body = install("client_ca", &ca, None);
    body["svm"] = json!({ "name": "svm1" });
    let path = format!("{PATH}/{}", post(&scene, body).await["uuid"].as_str().unwrap());
    let speaks = json!({ "svm": { "name": "svm1" }, "certificate": ca });
    let (status, body) = scene.node.ask("POST", "/security/ekmip/client-cas?return_records=true", Some(speaks)).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(code(&scene.node.ask("DELETE", &path, None).await), "8");
    let speaking = format!("/security/ekmip/client-cas/{}", body["records"][0]["uuid"].as_str().unwrap());
    assert_eq!(scene.node.ask("DELETE", &speaking, None).await.0, 200);
    assert_eq!(scene.node.ask("DELETE", &path, None).await.0, 200);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_signed() {
    let scene = scene().await;
    let ca = post(&scene, json!({ "type": "root_ca", "common_name": "the CA", "key_size": 3072 })).await;
    let path = format!("{PATH}/{}/sign", ca["uuid"].as_str().unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["d.example".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "Tenant");
    params.distinguished_name.push(rcgen::DnType::CommonName, "d.example");
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let (status, body) = scene.node.ask("POST", &path, Some(json!({ "signing_request": csr, "hash_function": "sha512", "expiry_time": "P30DT" }))).await;
    assert_eq!(status, 200, "{body}");
    let signed = body["public_certificate"].as_str().unwrap();
    assert!(vouches(ca["public_certificate"].as_str().unwrap(), signed, "d.example"));
    // What it says, read by installing it.
    let record = post(&scene, json!({ "type": "server", "public_certificate": signed, "private_key": key.serialize_pem() })).await;
    assert_eq!((record["common_name"].as_str(), record["hash_function"].as_str(), record["ca"].as_str()), (Some("d.example"), Some("sha512"), Some("the CA")));
    assert!(parsed(signed).0.windows(6).any(|window| window == b"Tenant"), "the whole subject is taken over");

    for (body, expected) in [
        (json!({ "signing_request": csr, "hash_function": "md5" }), "262247"),
        (json!({ "signing_request": "-----BEGIN CERTIFICATE REQUEST-----\nx" }), "262247"),
        (json!({}), "262212"),
    ] {
        assert_eq!(code(&scene.node.ask("POST", &path, Some(body)).await), expected);
    }
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_csr = params.serialize_request(&key).unwrap().pem().unwrap();
    assert_eq!(code(&scene.node.ask("POST", &path, Some(json!({ "signing_request": ca_csr }))).await), "262247", "nobody becomes a CA");
    let no_ca = format!("{PATH}/{}/sign", record["uuid"].as_str().unwrap());
    assert_eq!(code(&scene.node.ask("POST", &no_ca, Some(json!({ "signing_request": csr }))).await), "262247");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_of_the_ekmip_server_is_renewed_without_a_restart() {
    let scene = scene().await;
    let first = shown_certificate(scene.node.ekmip).await;
    let stored = async || of_server(&scene).await["serial_number"].clone();
    let serial = stored().await;
    let newest =
        async |name: &str| scene.node.get(&format!("/support/ems/events?fields=*&message.name=keystead.ekmip.{name}")).await["records"][0]["index"].clone();
    let events = async |name: &str| {
        scene.node.get(&format!("/support/ems/events?fields=*&message.name=keystead.ekmip.{name}")).await["records"].as_array().unwrap().len()
    };
    scene.clock.advance(DAY * 330);

    // Where it cannot be renewed, that is told, by the days that are left; the server goes on with the old one.
    template(&scene, json!({ "key_size": 521 })).await;
    for (days, count) in [(6, 1), (23, 2), (5, 3)] {
        scene.clock.advance(DAY * days);
        eventually("it must be told", async || (events("certificateExpiring").await == count).then_some(())).await;
        assert_eq!((stored().await, events("certificateRenewed").await), (serial.clone(), 0), "it was not due before, and cannot be made now");
    }
    assert_eq!(shown_certificate(scene.node.ekmip).await, first);
    template(&scene, json!({ "key_size": 384 })).await;
    let renewed = eventually("it must be renewed", async || {
        scene.clock.advance(Duration::from_secs(60));
        let shown = shown_certificate(scene.node.ekmip).await;
        (shown != first).then_some(shown)
    })
    .await;
    assert_ne!(stored().await, serial);
    assert_eq!(events("certificateRenewed").await, 1);
    let alarm = newest("certificateExpiring").await;

    // Short lives are renewed when a third is left.
    template(&scene, json!({ "expiry_time": "P3D" })).await;
    scene.node.svm("svm2").await;
    enabled(&scene.node, &scene.kms, &scene.key, "svm2").await;
    let short = eventually("an enable uses the template", async || {
        let shown = shown_certificate(scene.node.ekmip).await;
        (shown != renewed).then_some(shown)
    })
    .await;
    // The clock goes on only when the renewal waits for it.
    eventually("it must be renewed", async || {
        scene.clock.advance(Duration::from_secs(60 * 60));
        (shown_certificate(scene.node.ekmip).await != short).then_some(())
    })
    .await;
    assert_eq!(newest("certificateExpiring").await, alarm, "and nobody was alarmed");
    scene.node.stop().await;
}
