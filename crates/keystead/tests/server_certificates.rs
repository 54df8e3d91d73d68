//! The certificate of the EKMIP server where AWS KMS was never enabled, and what making keys leaves to others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::blind::shown_certificate;
use common::metrics::Page;
use common::program::{fails, free_port, serve};
use common::scene::scene;
use common::{ManualClock, Node, code, enable_body, eventually};
use keystead::serve::Hooks;
use keystead_kmip::enumeration::Operation;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

async fn start(folder: &Arc<tempfile::TempDir>, toml: &str, clock: &Arc<ManualClock>) -> Result<Node, String> {
    // A start that has failed closes the store a moment later.
    eventually("the store must be free", async || match Node::start_in(folder.clone(), toml, Hooks { clock: clock.clone(), ..Hooks::default() }).await {
        Err(why) if why.contains("in use") => None,
        started => Some(started),
    })
    .await
}

async fn events(node: &Node, name: &str) -> Vec<Value> {
    node.get(&format!("/support/ems/events?fields=*&message.name=keystead.{name}")).await["records"].as_array().unwrap().clone()
}

/// The serial number of the EKMIP server's certificate as it is stored.
async fn stored(node: &Node) -> Value {
    let all = node.get("/security/certificates?type=server&fields=serial_number,key_size").await;
    let found = all["records"].as_array().unwrap().iter().find(|record| record["name"].as_str().unwrap().starts_with("keystead_ekmip_"));
    found.unwrap_or_else(|| panic!("{all}")).clone()
}

/// Advances the clock by hours until the server shows another certificate.
async fn renewed(node: &Node, clock: &ManualClock, old: &[u8]) -> Vec<u8> {
    eventually("it must be renewed", async || {
        clock.advance(HOUR);
        let shown = shown_certificate(node.ekmip).await;
        (shown != old).then_some(shown)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_kept_and_renewed_where_aws_kms_was_never_enabled_and_after_another_seal_key() {
    let (folder, clock) = (Arc::new(tempfile::tempdir().unwrap()), ManualClock::new());
    let node = start(&folder, "", &clock).await.unwrap();
    let (first, serial) = (shown_certificate(node.ekmip).await, stored(&node).await);
    clock.advance(DAY * 340);
    let second = renewed(&node, &clock, &first).await;
    assert_ne!(stored(&node).await, serial);
    assert_eq!((events(&node, "ekmip.certificateRenewed").await.len(), events(&node, "ekmip.certificateExpiring").await.len()), (1, 0));
    // A restart shows the same one.
    node.stop().await;
    let node = start(&folder, "", &clock).await.unwrap();
    assert_eq!(shown_certificate(node.ekmip).await, second);
    node.stop().await;

    // With a clock that goes right again, as clients of REST do; what a clock that was ahead has made is made anew.
    let clock = ManualClock::new();
    let node = start(&folder, "", &clock).await.unwrap();
    eventually("it must be made anew", async || (shown_certificate(node.ekmip).await != second).then_some(())).await;
    node.stop().await;

    std::fs::write(folder.path().join("data/seal.key"), "5a".repeat(32)).unwrap();
    let why = start(&folder, "", &clock).await.err().unwrap();
    let adopt = why.split("adopt = \"").nth(1).unwrap().split('"').next().unwrap();
    let node = start(&folder, &format!("[seal]\nadopt = \"{adopt}\"\n"), &clock).await.unwrap();
    let third = shown_certificate(node.ekmip).await;
    assert_ne!(third, second);
    stored(&node).await;
    clock.advance(DAY * 340);
    renewed(&node, &clock, &third).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_is_refused_leaves_no_server_without_one() {
    let (folder, clock) = (Arc::new(tempfile::tempdir().unwrap()), ManualClock::new());
    let template = "[ekmip]\ncertificate = { key_size = 521 }\n";
    let node = start(&folder, template, &clock).await.unwrap();
    assert_eq!(stored(&node).await["key_size"], 256);
    let told = events(&node, "ekmip.certificateExpiring").await;
    assert!(told.len() == 1 && told[0]["parameters"].to_string().contains("521"), "{told:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_template_is_a_length_that_can_be_renewed() {
    let scene = scene().await;
    scene.node.svm("svm2").await;
    for bad in ["PT1S", "PT59M", "2090-01-01T00:00:00Z"] {
        let template = json!({ "ekmip": { "certificate": { "expiry_time": bad } } });
        assert_eq!(scene.node.ask("PATCH", "/security/ekmip/settings", Some(template)).await.0, 200);
        let answer = scene.node.enable(enable_body("svm2", &scene.kms, &scene.key)).await;
        assert_eq!((code(&answer).as_str(), answer.1["error"]["target"].as_str()), ("262247", Some("ekmip.certificate.expiry_time")), "{bad}");
    }
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_of_the_rest_api_goes_by_the_same_clock_and_the_end_of_the_ca_is_told() {
    let (folder, clock) = (Arc::new(tempfile::tempdir().unwrap()), ManualClock::new());
    let node = start(&folder, "", &clock).await.unwrap();
    let first = shown_certificate(node.address).await;
    clock.advance(DAY * 29);
    assert_eq!(shown_certificate(node.address).await, first);
    clock.advance(DAY * 2);
    eventually("it must be made anew", async || (shown_certificate(node.address).await != first).then_some(())).await;
    let told = eventually("that is told", async || events(&node, "rest.certificateRenewed").await.first().cloned()).await;
    assert!(told.to_string().contains("valid until"), "{told}");

    clock.advance(DAY * (20 * 365 - 45));
    let told = eventually("the end of the CA is told", async || events(&node, "security.certificateExpiring").await.first().cloned()).await;
    assert!(told.to_string().contains("keystead_cluster_ca"), "{told}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_wants_keys_made_leaves_the_node_to_others() {
    let scene = scene().await;
    let mut kmip = scene.connect();
    let key = kmip.created(vec![]);
    let (made, refused, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let crowd = async {
        let ask = async || {
            let wanted = json!({ "subject_name": "CN=a", "algorithm": "rsa", "security_strength": "128" });
            let answer = scene.node.ask("POST", "/security/certificate-signing-request", Some(wanted)).await;
            match answer.0 {
                200 | 201 => made.fetch_add(1, Ordering::SeqCst),
                _ => {
                    assert_eq!((answer.0, code(&answer).as_str()), (429, "262160"));
                    refused.fetch_add(1, Ordering::SeqCst)
                }
            };
        };
        futures_util::future::join_all((0..200).map(|_| ask())).await;
        all.store(true, Ordering::SeqCst);
    };
    let others = async {
        eventually("the crowd is there", async || (refused.load(Ordering::SeqCst) > 0).then_some(())).await;
        assert_eq!(scene.node.ask("GET", "/cluster", None).await.0, 200);
        assert!(tokio::task::block_in_place(|| kmip.try_call(Operation::Get, vec![common::kmip::uid(&key)])).is_ok());
        assert!(!all.load(Ordering::SeqCst), "they must not wait for the crowd");
    };
    tokio::join!(crowd, others);
    let (made, refused) = (made.load(Ordering::SeqCst), refused.load(Ordering::SeqCst));
    assert!(made > 0 && refused > 0 && made + refused == 200, "{made} {refused}");
    scene.node.stop().await;
}

/// Writes a certificate of an own CA for `localhost`, which is valid until the beginning of this year, and its key; answers the certificate.
fn own_certificate(folder: &std::path::Path, year: i32) -> Vec<u8> {
    let (mut parameters, signing_key) = (rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap(), rcgen::KeyPair::generate().unwrap());
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    let cert = parameters.self_signed(&signing_key).unwrap();
    // The key first, as tools that renew certificates may do it.
    std::fs::write(folder.join("own.key"), signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(folder.join("own.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(folder.join("own.pem"), cert.pem()).unwrap();
    cert.der().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_own_certificate_is_shown_and_read_again_when_it_changes() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let first = own_certificate(folder, 2100);
    let metrics = free_port();
    let toml = format!("[rest]\ncertificate = {:?}\nkey = {:?}\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"\n", folder.join("own.pem"), folder.join("own.key"));
    // What the metrics tell is the end of what is shown.
    let told = async |end: &str| {
        let page = Page::plain(metrics).await;
        let end = end.parse::<jiff::Timestamp>().unwrap().as_second() as f64;
        assert_eq!(page.value(r#"keystead_certificate_expiry_timestamp_seconds{kind="rest_server"}"#), end);
        assert_eq!(page.find(r#"keystead_certificate_renewal_timestamp_seconds{kind="rest_server"}"#), None, "nobody renews it");
    };
    let command = |toml: &str, port: u16| {
        std::fs::write(folder.join("keystead.toml"), toml).unwrap();
        let mut command = serve(folder, port, free_port());
        command.arg("--config").arg(folder.join("keystead.toml"));
        command
    };
    let port = free_port();
    let (address, log) = (([127, 0, 0, 1], port).into(), folder.join("log"));
    let mut child = command(&toml, port).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    eventually("the node must listen", async || tokio::net::TcpStream::connect(address).await.ok()).await;
    assert!(shown_certificate(address).await == first);
    told("2100-01-01T00:00:00Z").await;
    let second = own_certificate(folder, 2200);
    let hangup = || assert!(std::process::Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    hangup();
    eventually("the new one must be shown", async || (shown_certificate(address).await == second).then_some(())).await;
    told("2200-01-01T00:00:00Z").await;
    // Half of a change is none.
    std::fs::write(folder.join("own.pem"), "nonsense").unwrap();
    hangup();
    eventually("it must be told", async || std::fs::read_to_string(&log).unwrap().contains("the certificate of the REST API stays as it was").then_some(()))
        .await;
    assert!(shown_certificate(address).await == second);
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success() && child.wait().unwrap().success());

    let refused = |toml: &str| String::from_utf8_lossy(&fails(command(toml, free_port())).stderr).into_owned();
    assert!(refused(&toml).contains("[rest] certificate"));
    assert!(refused("[rest]\ncertificate = \"/own.pem\"\n").contains("belong together"));
}
