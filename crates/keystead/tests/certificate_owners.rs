//! `/security/certificates` of several owners: what each sees, signs, keeps and deletes; and what comes at the same time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::code;
use common::scene::{Scene, scene, scene_with};
use common::steps::PauseAt;
use keystead::serve::Hooks;
use serde_json::{Value, json};

const PATH: &str = "/security/certificates";

async fn post(scene: &Scene, body: Value) -> (u16, Value) {
    scene.node.ask("POST", &format!("{PATH}?return_records=true"), Some(body)).await
}

async fn made(scene: &Scene, body: Value) -> Value {
    let answer = post(scene, body).await;
    assert_eq!(answer.0, 201, "{answer:?}");
    answer.1["records"][0].clone()
}

async fn refused(scene: &Scene, body: Value) -> (u16, String, String) {
    let answer = post(scene, body).await;
    (answer.0, code(&answer), answer.1["error"]["target"].as_str().unwrap_or_default().to_owned())
}

fn path(record: &Value) -> String {
    format!("{PATH}/{}", record["uuid"].as_str().unwrap())
}

fn ca(svm: Option<&str>, name: &str) -> Value {
    let mut body = json!({ "type": "root_ca", "common_name": name, "name": name, "algorithm": "ec" });
    if let Some(svm) = svm {
        body["svm"] = json!({ "name": svm });
    }
    body
}

fn leaf(svm: Option<&str>, ca: &str) -> Value {
    let mut body = json!({ "type": "server", "common_name": "leaf", "algorithm": "ec", "keystead": { "ca": ca } });
    if let Some(svm) = svm {
        body["svm"] = json!({ "name": svm });
    }
    body
}

/// A CA of somebody's own, and a leaf that it has signed or, with another key, only pretends to have.
struct Foreign {
    ca: String,
    ca_key: String,
    leaf: String,
    fake: String,
    leaf_key: String,
}

impl Foreign {
    fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let (key, other, leaf_key) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let ca = params.self_signed(&key).unwrap().pem();
        let leaf = rcgen::CertificateParams::new(vec!["leaf.example".to_owned()]).unwrap();
        let signed_with = |key: &rcgen::KeyPair| leaf.signed_by(&leaf_key, &rcgen::Issuer::from_params(&params, key)).unwrap().pem();
        let (leaf, fake) = (signed_with(&key), signed_with(&other));
        Self { ca, ca_key: key.serialize_pem(), leaf, fake, leaf_key: leaf_key.serialize_pem() }
    }
}

fn install(svm: Option<&str>, kind: &str, certificate: &str, key: Option<&str>) -> Value {
    let mut body = json!({ "type": kind, "public_certificate": certificate, "private_key": key });
    if let Some(svm) = svm {
        body["svm"] = json!({ "name": svm });
    }
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_means_a_ca_of_the_owner_and_never_another_svms() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    let cluster = made(&scene, ca(None, "corp")).await;
    let by_cluster = made(&scene, leaf(None, "corp")).await;
    // What a tenant calls his own CA changes nothing: neither with the name of the cluster's, nor with its identifier or the cluster's prefix.
    let tenant = scene.tenant("svm2").await;
    let plant = async |name: &str| tenant.ask("POST", PATH, json!({ "type": "root_ca", "common_name": "evil", "name": name, "algorithm": "ec" })).await;
    assert_eq!(plant("corp").await.0, 201);
    for reserved in [cluster["uuid"].as_str().unwrap(), "keystead_cluster_ca", "KEYSTEAD_x"] {
        let answer = plant(reserved).await;
        assert_eq!((answer.0, code(&answer).as_str(), answer.1["error"]["target"].as_str()), (400, "262247", Some("name")), "{reserved}");
    }
    for named in ["CORP", cluster["uuid"].as_str().unwrap()] {
        let again = made(&scene, leaf(None, named)).await;
        assert_eq!(again["authority_key_identifier"], by_cluster["authority_key_identifier"], "{named}");
        assert_eq!(again["authority_key_identifier"], cluster["subject_key_identifier"]);
        // Another SVM without such a CA gets the cluster's.
        let of_svm = made(&scene, leaf(Some("svm1"), named)).await;
        assert_eq!(of_svm["authority_key_identifier"], cluster["subject_key_identifier"], "{named}");
    }
    // For its owner, its own.
    let of_tenant = made(&scene, leaf(Some("svm2"), "corp")).await;
    assert_ne!(of_tenant["authority_key_identifier"], cluster["subject_key_identifier"]);
    made(&scene, ca(Some("svm1"), "only of svm1")).await;
    assert_eq!(refused(&scene, leaf(Some("svm2"), "only of svm1")).await, (404, "4".into(), "keystead.ca".into()));
    // A name that the store could not hold is refused as such.
    assert_eq!(refused(&scene, ca(None, &"ß".repeat(200))).await.1, "262245");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_bounded_and_one_certificate_alone() {
    let scene = scene().await;
    let foreign = Foreign::new("foreign");
    let padded = format!("a note\n{}\nand a tail", foreign.ca.replace('\n', "\r\n"));
    let record = made(&scene, install(None, "server_ca", &padded, None)).await;
    assert_eq!(record["public_certificate"].as_str().unwrap().trim(), foreign.ca.replace('\r', "").trim());
    assert_eq!(refused(&scene, install(None, "server_ca", &foreign.ca, None)).await.1, "1", "the same, however it is written");

    // A private key beside a certificate is not kept, wherever it stands.
    let with_key = |pem: &str| format!("{pem}{}", foreign.leaf_key);
    let wrong = |target: &str| (400, "262247".to_owned(), target.to_owned());
    let leaf = |certificate: &str| install(None, "server", certificate, Some(&foreign.leaf_key));
    assert_eq!(refused(&scene, leaf(&with_key(&foreign.leaf))).await, wrong("public_certificate"));
    let between = |pem: String| {
        let mut body = leaf(&foreign.leaf);
        body["intermediate_certificates"] = json!([pem]);
        body
    };
    assert_eq!(refused(&scene, between(with_key(&foreign.ca))).await, wrong("intermediate_certificates"));
    let long = format!("{}{}", " ".repeat(40 * 1024), foreign.ca);
    assert_eq!(refused(&scene, between(long)).await, (400, "262245".into(), "intermediate_certificates".into()));
    let clients = json!({ "svm": { "name": "svm1" }, "certificate": format!("{}{}", foreign.ca, foreign.ca_key) });
    assert_eq!(code(&scene.node.ask("POST", "/security/ekmip/client-cas", Some(clients)).await), "262247");
    let record = made(&scene, between(format!("x\n{}", foreign.ca))).await;
    assert_eq!(record["intermediate_certificates"][0].as_str().unwrap().trim(), foreign.ca.replace('\r', "").trim());

    common::leaks::no_private_key(&scene.node.folder.path().join("data"));
    // A CA whose name cannot be repeated in what it signs is not taken to sign.
    let (two, key) = (include_str!("data/two-dc.pem"), include_str!("data/two-dc.key"));
    assert_eq!(refused(&scene, install(None, "root_ca", two, Some(key))).await, wrong("public_certificate"));
    made(&scene, install(None, "root_ca", two, None)).await;
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svm_can_have_a_hundred() {
    let scene = scene().await;
    let first = made(&scene, ca(Some("svm1"), "0")).await;
    // The others beside it, as they are stored.
    let stored = scene.store.inner().get(&format!("/certificates/{}", first["uuid"].as_str().unwrap())).await.unwrap().unwrap();
    let mut record: Value = serde_json::from_slice(&stored.value).unwrap();
    for number in 1..100u128 {
        let uuid = uuid::Uuid::from_u128(number);
        (record["uuid"], record["name"]) = (json!(uuid), json!(number.to_string()));
        scene.store.inner().transact(keystead_store::Txn::new().put(format!("/certificates/{uuid}"), record.to_string())).await.unwrap();
    }
    common::eventually("the view must see them", async || {
        (scene.node.get(&format!("{PATH}?svm.name=svm1&max_records=1000")).await["num_records"] == 100).then_some(())
    })
    .await;
    assert_eq!(refused(&scene, ca(Some("svm1"), "x")).await.1, "7");
    made(&scene, ca(None, "x")).await;
    // All of them go with the SVM.
    let config = scene.config.clone();
    assert_eq!(scene.node.ask("DELETE", &format!("{config}?return_timeout=60"), None).await.0, 200);
    let svm = scene.svm_uuid("svm1").await;
    assert_eq!(scene.node.ask("DELETE", &format!("/svm/svms/{svm}?return_timeout=60"), None).await.0, 200);
    common::eventually("they must go", async || {
        let left = scene.store.inner().range(keystead_store::Range::prefix("/certificates/", 1_000)).await.unwrap().entries;
        (left.len() == 1).then_some(())
    })
    .await;
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_keeps_a_ca_from_being_deleted_or_lets_it_be() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    let foreign = Foreign::new("shared");
    let delete = async |record: &Value| scene.node.ask("DELETE", &path(record), None).await;
    let ca_record = made(&scene, install(Some("svm1"), "root_ca", &foreign.ca, Some(&foreign.ca_key))).await;
    // Another SVM installs a certificate of that CA, and one that only looks so.
    made(&scene, install(Some("svm2"), "server", &foreign.leaf, Some(&foreign.leaf_key))).await;
    let mut fake = install(Some("svm1"), "server", &foreign.fake, Some(&foreign.leaf_key));
    fake["name"] = json!("fake");
    made(&scene, fake).await;
    assert_eq!(delete(&ca_record).await.0, 200, "neither is a reason");

    let ca_record = made(&scene, install(Some("svm1"), "root_ca", &foreign.ca, Some(&foreign.ca_key))).await;
    let child = made(&scene, install(Some("svm1"), "server", &foreign.leaf, Some(&foreign.leaf_key))).await;
    // The same CA elsewhere takes nothing away from the protection.
    made(&scene, install(Some("svm2"), "root_ca", &foreign.ca, None)).await;
    let answer = delete(&ca_record).await;
    assert!(code(&answer) == "8" && answer.1["error"]["message"].as_str().unwrap().contains(child["uuid"].as_str().unwrap()), "{answer:?}");
    assert_eq!(delete(&child).await.0, 200);
    // Made here, it counts whoever it belongs to; but names stay with those who see them.
    let child = made(&scene, leaf(Some("svm2"), ca_record["uuid"].as_str().unwrap())).await;
    let tenant = scene.tenant("svm1").await;
    let answer = tenant.ask("DELETE", &path(&ca_record), Value::Null).await;
    let message = answer.1["error"]["message"].as_str().unwrap();
    assert!(code(&answer) == "8" && !message.contains(child["uuid"].as_str().unwrap()) && message.contains("another owner"), "{answer:?}");
    assert_eq!(delete(&child).await.0, 200);
    assert_eq!(tenant.ask("DELETE", &path(&ca_record), Value::Null).await.0, 200);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_has_its_own_certificates_and_no_others() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    let (cluster, other) = (made(&scene, ca(None, "cluster")).await, made(&scene, ca(Some("svm2"), "other")).await);
    let tenant = scene.tenant("svm1").await;
    let own = tenant.ask("POST", &format!("{PATH}?return_records=true"), json!({ "type": "root_ca", "common_name": "own", "algorithm": "ec" })).await;
    assert_eq!((own.0, own.1["records"][0]["svm"]["name"].as_str()), (201, Some("svm1")), "{own:?}");
    let own = own.1["records"][0].clone();
    let list = tenant.ask("GET", PATH, Value::Null).await.1;
    assert!(list["num_records"] == 1 && list["records"][0]["uuid"] == own["uuid"], "{list}");
    let csr = rcgen::CertificateParams::new(vec!["d.example".to_owned()]).unwrap().serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let csr = json!({ "signing_request": csr.pem().unwrap() });
    let cluster_ca = scene.node.get(&format!("{PATH}?name=keystead_cluster_ca")).await["records"][0].clone();
    for foreign in [&cluster, &other, &cluster_ca] {
        assert_eq!(code(&tenant.ask("GET", &path(foreign), Value::Null).await), "4");
        assert_eq!(code(&tenant.ask("DELETE", &path(foreign), Value::Null).await), "4");
        assert_eq!(code(&tenant.ask("POST", &format!("{}/sign", path(foreign)), csr.clone()).await), "4");
        for named in [foreign["uuid"].as_str().unwrap(), foreign["name"].as_str().unwrap()] {
            assert_eq!(code(&tenant.ask("POST", PATH, leaf(None, named)).await), "4", "{named}");
        }
    }
    assert_eq!(tenant.ask("POST", &format!("{}/sign", path(&own)), csr.clone()).await.0, 200);
    assert_ne!(tenant.ask("POST", PATH, ca(Some("svm2"), "x")).await.0, 201);
    assert_eq!(code(&tenant.ask("POST", PATH, json!({ "type": "root_ca", "common_name": "x", "scope": "cluster" })).await), "6");
    assert_eq!(code(&tenant.ask("GET", "/security?fields=keystead.fips_report", Value::Null).await), "6");
    assert_eq!(tenant.ask("DELETE", &path(&own), Value::Null).await.0, 200);

    // Who reads only changes nothing.
    let mut account: Value = serde_json::from_slice(&scene.store.inner().get("/accounts/tenant").await.unwrap().unwrap().value).unwrap();
    account["role"] = json!({ "name": "readonly" });
    scene.store.inner().transact(keystead_store::Txn::new().put("/accounts/tenant", account.to_string())).await.unwrap();
    common::eventually("the role must be known", async || (tenant.ask("GET", &path(&cluster), Value::Null).await.0 == 200).then_some(())).await;
    assert_eq!(code(&tenant.ask("POST", PATH, ca(None, "x")).await), "6");
    assert_eq!(code(&tenant.ask("DELETE", &path(&cluster), Value::Null).await), "6");
    assert_eq!(code(&tenant.ask("POST", &format!("{}/sign", path(&cluster)), csr).await), "6");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_a_time() {
    let scene = scene().await;
    made(&scene, ca(None, "the CA")).await;
    let answers = futures_util::future::join_all((0..8).map(|_| post(&scene, leaf(None, "the CA")))).await;
    assert!(answers.iter().all(|answer| answer.0 == 201), "{answers:?}");
    // Of several with one name, one.
    let answers = futures_util::future::join_all((0..4).map(|_| post(&scene, ca(None, "once")))).await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.0 == 201);
    assert!(good.len() == 1 && bad.iter().all(|answer| code(answer) == "1"), "{good:?} {bad:?}");
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ca_or_the_svm_goes_before_the_certificate_is_stored() {
    for svm in [false, true] {
        let pause = PauseAt::new("certificate.server.store.before");
        let scene = scene_with("", Hooks { steps: pause.clone(), ..Hooks::default() }).await;
        let owner = scene.node.svm("svm2").await;
        let ca = made(&scene, ca(None, "the CA")).await;
        let late = async { post(&scene, leaf(Some("svm2"), "the CA")).await };
        let first = async {
            pause.reached().await;
            let gone = if svm { format!("/svm/svms/{owner}?return_timeout=60") } else { path(&ca) };
            assert_eq!(scene.node.ask("DELETE", &gone, None).await.0, 200);
            pause.go();
        };
        let (answer, ()) = tokio::join!(late, first);
        assert_eq!((answer.0, code(&answer).as_str()), (409, "8"), "{answer:?}");
        let stored = scene.store.inner().range(keystead_store::Range::prefix("/certificates/", 10)).await.unwrap().entries;
        assert_eq!(stored.len(), usize::from(svm), "nothing is left of it");
        scene.node.stop().await;
    }
}
