//! Options that the manual has no line for, and what operators of ONTAP type by habit.

use super::{Shell, common};
use common::cluster::{Cluster, keystead};
use common::kmip::{Credentials, Kmip};
use common::{ACCESS_KEY_ID, PASSWORD};
use keystead_testkit::{Fault, FaultRule};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

fn aws(rest: &str) -> String {
    format!("keystead security key-manager external aws {rest}")
}

fn enable(more: &str) -> String {
    let key = format!("--region us-east-1 --key-id alias/tenant1 --access-key-id {ACCESS_KEY_ID} --secret-access-key-file secret");
    aws(&format!("enable --vserver svm1 {key} --host $AWS_HOST --port $AWS_PORT {more}"))
}

/// A shell that is logged in, with `svm1`.
async fn shell() -> Shell {
    let shell = Shell::start().await.with("KEYSTEAD_PASSWORD_FILE", "password");
    shell.node.svm("svm1").await;
    shell
}

impl Shell {
    async fn record(&self) -> Value {
        self.node.get("/security/aws-kms?fields=*,keystead").await["records"][0].clone()
    }
}

/// A proxy for the web; counts the tunnels that it has made.
async fn proxy() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, tunnels) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&tunnels);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = near.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let mut far = TcpStream::connect(head.split(' ').nth(1).unwrap()).await.unwrap();
                near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, tunnels)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_changed_and_taken_away() {
    let shell = shell().await;
    let (proxy, tunnels) = proxy().await;
    shell.says(&enable("--service kms-fips --access-error-grace 20m --max-unverified 4h --skip-verify"), 0, &[]).await;
    let proxy = format!("--proxy-type http --proxy-host {} --proxy-port {} --ca-certificates-file aws-ca.pem", proxy.ip(), proxy.port());
    shell.says(&aws(&format!("update-config --vserver svm1 {proxy} --encryption-context a=b --default-domain example.com")), 0, &[]).await;
    let set = shell.record().await;
    assert!(tunnels.load(Ordering::SeqCst) > 0 && set["proxy_host"] == "127.0.0.1" && set["keystead"]["ca_certificates"].is_string(), "{set}");
    assert_eq!((&set["service"], &set["default_domain"], &set["encryption_context"]), (&json!("kms-fips"), &json!("example.com"), &json!("a=b")));
    assert_eq!((&set["keystead"]["access_error_grace"], &set["keystead"]["max_unverified"]), (&json!("20m"), &json!("240m")));

    let empty =
        "--no-proxy --service '' --default-domain '' --encryption-context '' --access-error-grace '' --max-unverified '' --ca-certificates-file /dev/null";
    shell.says(&aws(&format!("update-config --vserver svm1 {empty}")), 0, &[]).await;
    let gone = shell.record().await;
    assert_eq!((&gone["service"], &gone["default_domain"]), (&json!("KMS"), &json!("amazonaws.com")), "{gone}");
    for name in ["proxy_type", "proxy_host", "proxy_port", "encryption_context"] {
        assert_eq!(gone.get(name), None, "{name}: {gone}");
    }
    for name in ["ca_certificates", "access_error_grace", "max_unverified"] {
        assert_eq!(gone["keystead"].get(name), None, "{name}: {gone}");
    }
    shell.says(&aws("update-config --vserver svm1 --region ''"), 2, &["--region"]).await;
    shell.says(&aws("update-config --vserver svm1 --no-proxy --proxy-port 1"), 2, &["cannot be used with"]).await;

    // Another key, and everything about the way to it.
    let new = format!(
        "--region us-east-1 --access-key-id {ACCESS_KEY_ID} --secret-access-key-file secret --host $AWS_HOST --port $AWS_PORT --timeout 20 --verify --verify-host true --verify-ip true"
    );
    let new = format!("{new} --encryption-context tenant=2 --no-proxy --ca-certificates-file aws-ca.pem --service '' --default-domain ''");
    shell.says(&aws(&format!("rekey-external --vserver svm1 --key-id alias/tenant1-new {new}")), 0, &["the KEK is wrapped again"]).await;
    let moved = shell.record().await;
    assert_eq!((&moved["key_id"], &moved["timeout"], &moved["encryption_context"]), (&json!("alias/tenant1-new"), &json!(20), &json!("tenant=2")), "{moved}");
    assert!(moved["keystead"]["ca_certificates"].is_string());

    shell.says(&aws(&format!("update-credentials --vserver svm1 --access-key-id {ACCESS_KEY_ID} --secret-access-key-file secret --skip-verify")), 0, &[]).await;

    // Credentials of the node's own do not go with a host, and that is how one sees that the option arrives.
    let refused = ["code: 262186", "target: keystead.credentials_source"];
    shell.says(&aws("update-credentials --vserver svm1 --credentials-source chain"), 1, &refused).await;
    let other = "rekey-external --vserver svm1 --key-id arn:aws:kms:us-east-1:111122223333:key/1 --credentials-source instance_role --host $AWS_HOST";
    shell.says(&aws(other), 1, &refused).await;
    shell.node.svm("svm2").await;
    let other = "enable --vserver svm2 --region us-east-1 --key-id alias/tenant1 --credentials-source process --host $AWS_HOST --port $AWS_PORT";
    shell.says(&aws(other), 1, &["target: "]).await;
    shell.has_printed_no_secret(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_the_onboard_key_manager_move_in_the_same_job() {
    let shell = shell().await;
    common::onboard::onboard(&shell.node).await;
    let client = Credentials::issue(&shell.node, "svm1").await;
    let key = Kmip::connect_new(&client.endpoint(shell.node.ekmip)).await.created(vec![]);
    shell.says("keystead vserver show --vserver svm1", 0, &["State: onboard"]).await;
    shell.says(&enable(""), 1, &["code: 65537912", "next: move them in the same job: --migrate-keys"]).await;
    shell.says(&enable("--migrate-keys"), 0, &["SVM svm1: AWS KMS is enabled"]).await;
    assert!(Kmip::connect(&client.endpoint(shell.node.ekmip)).get(&key).material().len() > 1);
    shell.says("keystead vserver show", 0, &["svm1     available"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_a_key_that_is_elsewhere() {
    let shell = shell().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::new(Vec::new()).unwrap().serialize_request(&key).unwrap().pem().unwrap();
    std::fs::write(shell.file("request.pem"), request).unwrap();
    let line = "keystead ekmip client create --vserver SVM1 --common-name storage1 --csr-file request.pem --out made";
    shell.says(line, 0, &["made/client.pem, made/ca.pem"]).await;
    assert!(!shell.file("made/client.key").exists());
    let read = |name: &str| std::fs::read_to_string(shell.file(name)).unwrap();
    assert!(read("made/client.pem").contains("BEGIN CERTIFICATE") && read("made/ca.pem").contains("BEGIN CERTIFICATE"));
    shell.says("keystead ekmip client show --vserver 'svm*'", 0, &["svm1     storage1"]).await;
    shell.says("keystead ekmip client create --vserver nowhere --common-name x --out other", 5, &["code: 2621462", "keystead vserver show"]).await;
    assert!(!shell.file("other").exists(), "what was not written stays in the way");
    shell.says("keystead ekmip client create --vserver svm1 --common-name x --csr-file nowhere --out other", 2, &["--csr-file nowhere"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_of_ontap_type() {
    let shell = shell().await;
    shell.node.svm("Other").await;
    shell.says(&enable(""), 0, &[]).await;
    // Names without regard to case, and with stars.
    shell.says("keystead vserver show --vserver SVM1", 0, &["Vserver: svm1", "State: available"]).await;
    let some = shell.says("keystead vserver show --vserver 'sv*'", 0, &["svm1     available", "1 entry."]).await;
    assert!(!some.out.contains("Other"), "{some:?}");
    shell.says("keystead vserver show --vserver 'x*'", 0, &["There are none."]).await;
    shell.says(&aws("update-config --vserver Svm1 --timeout 7"), 0, &[]).await;
    shell.says(&aws("show --vserver 'sv*'"), 0, &["svm1     us-east-1", "1 entry."]).await;
    shell.says(&aws("show --vserver 'x*'"), 0, &["There are none."]).await;
    shell.says(&aws("show --vserver 'sv*' --instance"), 0, &["Vserver: svm1", "Timeout (s): 7"]).await;
    shell.says(&aws("check --vserver 'sv*'"), 0, &["Vserver svm1: passed"]).await;
    // Fields as ONTAP has them, and as its REST API has them.
    shell.says(&aws("show --fields key-id,access-key-id"), 0, &["Vserver  key_id         access_key_id", "svm1     alias/tenant1  AKIA"]).await;
    shell
        .says(&aws("show --vserver svm1 --fields 'state.{code,cluster-state}'"), 0, &["Vserver  state.code  state.cluster_state", "svm1     0           true"])
        .await;
    shell.says(&aws("show --fields '*'"), 0, &["Key ID: alias/tenant1", "State: the keys are usable on every node"]).await;
    shell.says(&aws("show --fields nothing"), 1, &["code: 262197"]).await;
    // One dash.
    shell.says("keystead vserver show -vserver svm1", 2, &["options have two dashes here: --vserver", "see keystead vserver show --help"]).await;
    shell.says(&aws("rekey-internal -vserver svm1"), 2, &["options have two dashes here: --vserver"]).await;
    let jobs = shell.says("keystead job show --vserver SVM1", 0, &["PATCH /api/security/aws-kms/"]).await;
    assert!(!jobs.out.contains("Other"), "{jobs:?}");
    shell.says("keystead job show --vserver nowhere", 5, &["there is no SVM nowhere"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_being_enabled_can_be_disabled() {
    let shell = shell().await;
    shell.kms.add_fault(FaultRule::next("Encrypt", Fault::Hold));
    let started = shell.says(&enable("--timeout 60 --no-wait -o json"), 0, &[]).await.json();
    let job = started["job"]["uuid"].as_str().unwrap().to_owned();
    assert_eq!(shell.kms.wait_held(1, Duration::from_secs(60)).await, 1);
    shell.says("keystead vserver show", 0, &["svm1     initializing"]).await;
    shell
        .says(&aws("show --vserver svm1"), 5, &["AWS KMS is being enabled for the SVM svm1", "next: see how far that is: keystead job show --vserver svm1"])
        .await;
    shell.says(&aws("disable --vserver svm1"), 0, &["AWS KMS is disabled"]).await;
    shell.kms.release();
    shell.says(&format!("keystead job watch {job}"), 1, &["code: 65537926"]).await;
    shell.says(&aws("show --vserver svm1"), 5, &["AWS KMS is not enabled for the SVM svm1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_node_looks_at_at_once_are_looked_at() {
    const MANY: usize = 17;
    let shell = Shell::start().await.with("KEYSTEAD_PASSWORD_FILE", "password");
    for n in 0..MANY {
        shell.node.svm(&format!("t{n}")).await;
        let (status, body) = shell.node.enable(common::enable_body(&format!("t{n}"), &shell.kms, &shell.key)).await;
        assert_eq!(status, 201, "{body}");
    }
    let checked = shell.says(&aws("check"), 0, &["Vserver t0: passed", "Vserver t16: passed"]).await;
    assert_eq!(checked.out.matches(": passed\nStep ").count(), MANY, "{checked:?}");
    assert_eq!(checked.out.matches("\n\nVserver ").count(), MANY - 1, "an empty line stands between two, also of two pages");
    assert_eq!(shell.says(&aws("check -o json"), 0, &[]).await.json()["records"].as_array().unwrap().len(), MANY);
    let shown = shell.says(&aws("show --instance"), 0, &[]).await;
    assert_eq!(shown.out.matches("AWS KMS: reached by every node").count(), MANY, "{shown:?}");
    shell.says(&aws("show --fields state.code"), 0, &["t16      0", &format!("{MANY} entries.")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_cannot_be_written_is_a_failure() {
    let shell = shell().await;
    let full = shell.says("keystead vserver show > /dev/full", 1, &["the outcome cannot be written: No space left"]).await;
    assert_eq!(full.out, "");
    shell.says("keystead completions bash > /dev/full", 1, &["the outcome cannot be written"]).await;
    // Nobody who reads what goes wrong, or what comes of it.
    assert_eq!(shell.run("keystead vserver show --vserver nowhere 2> /dev/full").await.code, 5);
    assert_eq!(shell.run("{ sleep 0.3; keystead completions bash; echo $? > ended; } | true; exit $(cat ended)").await.code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_is_removed() {
    let mut cluster = Cluster::start(1, 2).await;
    let password = cluster.folder(0).join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let (endpoint, ca) = (cluster.node(0).address.to_string(), cluster.folder(0).join("data/ca.pem"));
    let run = |words: &[&str]| {
        let ran = keystead(words).env("KEYSTEAD_ENDPOINT", &endpoint).env("KEYSTEAD_CA", &ca).env("KEYSTEAD_PASSWORD_FILE", &password).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stdout).unwrap() + &String::from_utf8(ran.stderr).unwrap())
    };
    let remove = ["cluster", "node", "remove", "--node", "node1"];
    cluster.shows(0, 1, "up").await;
    let (code, said) = run(&remove);
    assert!(code == Some(1) && said.contains("code: 8"), "{code:?}: {said}");
    cluster.stop(1);
    cluster.shows(0, 1, "down").await;
    let (code, said) = run(&remove);
    assert!(code == Some(0) && said.contains("the node node1 is no node of the cluster any more; it has the seal key"), "{code:?}: {said}");
    let (code, said) = run(&["cluster", "node", "show", "--node", "node1"]);
    assert!(code == Some(5) && said.contains("there is no node node1"), "{code:?}: {said}");
    // Without those that are left, it is a matter of where one asks.
    cluster.stop(0);
    let (code, said) = run(&["cluster", "show"]);
    assert!(code == Some(4) && said.contains("cannot be reached"), "{code:?}: {said}");
}
