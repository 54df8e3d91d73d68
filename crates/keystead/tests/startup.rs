//! Starting and stopping: the first start, wrong starts with one clear line, SIGTERM, restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::program::{Program, fails, free_port, serve};
use common::{Node, PASSWORD, code, enable_body, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_testkit::{Fault, FaultRule};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A start that must fail with one line that holds all of `parts`.
fn refuses(command: Command, parts: &[&str]) {
    let output = fails(command);
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("keystead: ")).collect();
    assert!(!output.status.success() && lines.len() == 1, "{said}");
    for part in parts {
        assert!(lines[0].contains(part), "{part:?} is missing: {said}");
    }
}

async fn call(program: &Program, password: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request =
        program.client().request(method.parse().unwrap(), format!("https://127.0.0.1:{}/api{path}", program.port)).basic_auth("admin", Some(password));
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
}

#[tokio::test]
async fn the_first_start_makes_everything_and_the_password_file_goes_with_the_first_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), "", &[]).await;
    let data = folder.path().join("data");
    assert_eq!((mode(&data), mode(&data.join("seal.key")), mode(&data.join("admin-password")), mode(&data.join("store.db"))), (0o700, 0o600, 0o600, 0o600));
    let password = std::fs::read_to_string(data.join("admin-password")).unwrap().trim().to_owned();
    assert_eq!(password.len(), 24);
    assert!(!program.said().contains(&password));
    assert_eq!(call(&program, &password, "GET", "/cluster", None).await.0, 200);
    assert_eq!(call(&program, "wrong", "GET", "/cluster", None).await.0, 401);
    let change = json!({ "name": "admin", "password": "a new pass phrase" });
    assert_eq!(call(&program, &password, "POST", "/security/authentication/password", Some(change)).await.0, 200);
    eventually("the file must go", async || (!data.join("admin-password").exists()).then_some(())).await;
    assert_eq!(call(&program, &password, "GET", "/cluster", None).await.0, 401, "the old one is forgotten at once");
    assert_eq!(call(&program, "a new pass phrase", "GET", "/cluster", None).await.0, 200);
    let short = json!({ "name": "admin", "password": "short" });
    assert_eq!(call(&program, "a new pass phrase", "POST", "/security/authentication/password", Some(short)).await.1["error"]["code"], "262245");
    assert_eq!(program.stop(), Some(0), "SIGTERM ends it well: {}", program.said());
}

#[tokio::test]
async fn a_restart_keeps_everything_and_waits_for_no_aws() {
    let (kms, key) = stand_in().await;
    let folder = tempfile::tempdir().unwrap();
    let toml = toml_for(&kms, folder.path());
    let environment = [("KEYSTEAD_ADMIN_PASSWORD", PASSWORD)];
    let mut program = Program::start(folder.path(), &toml, &environment).await;
    assert_eq!(call(&program, PASSWORD, "POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await.0, 201);
    let (status, body) =
        call(&program, PASSWORD, "POST", "/security/aws-kms?return_timeout=60&return_records=true", Some(enable_body("svm1", &kms, &key))).await;
    assert_eq!(status, 201, "{body}");
    let path = format!("/security/aws-kms/{}", body["records"][0]["uuid"].as_str().unwrap());
    let before = call(&program, PASSWORD, "GET", &path, None).await;
    assert_eq!(program.stop(), Some(0));

    kms.add_fault(keystead_testkit::FaultRule::always(keystead_testkit::Fault::CaptivePortal));
    let mut program = Program::start(folder.path(), &toml, &environment).await;
    assert_eq!(call(&program, PASSWORD, "GET", &path, None).await, before);
    let state = async |program: &Program| call(program, PASSWORD, "GET", &format!("{path}?fields=state"), None).await.1["state"].clone();
    let unavailable = eventually("the first poll must fail", async || {
        let state = state(&program).await;
        state["message"].as_str().unwrap().contains("HTTP").then_some(state)
    })
    .await;
    assert_eq!((&unavailable["cluster_state"], &unavailable["code"]), (&json!(false), &json!("65537551")), "{unavailable}");
    kms.clear_faults();
    eventually("the KEK must come back by itself", async || (state(&program).await["code"] == "0").then_some(())).await;
    assert_eq!(program.stop(), Some(0));
}

#[tokio::test]
async fn wrong_starts_say_why_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let start = || serve(folder.path(), free_port(), free_port());
    let config = |text: &str| {
        let path = folder.path().join("wrong.toml");
        std::fs::write(&path, text).unwrap();
        let mut command = start();
        command.arg("--config").arg(path);
        command
    };
    let mut unknown = start();
    unknown.arg("--nonsense");
    refuses(unknown, &["--nonsense", "--help"]);
    refuses(Command::new(start().get_program()), &["a command is missing"]);
    refuses(config("[aws_kms]\n\nenable = true\n"), &["wrong.toml line 3", "enable"]);
    refuses(config("[jobs]\nretention = \"soon\"\n"), &["wrong.toml line 2", "soon"]);
    refuses(config("[aws_kms]\nrequests_per_second = 0\n"), &["aws_kms.requests_per_second"]);
    refuses(config("[aws_kms]\nallow_endpoints = [\"a b\"]\n"), &["allow_endpoints", "a b"]);
    refuses(config("[store]\nbackend = \"paper\"\n"), &["[store] backend", "paper"]);
    refuses(config("[seal]\nfile = \"x\"\ncommand = \"y\"\n"), &["[seal]"]);
    refuses(config("[seal]\ncredential = \"x\"\n"), &["[seal] credential", "CREDENTIALS_DIRECTORY"]);
    let pem = folder.path().join("bad.pem");
    std::fs::write(&pem, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    refuses(config(&format!("[aws_kms]\nextra_ca = {pem:?}\n")), &["extra_ca"]);
    let mut weak = start();
    weak.env("KEYSTEAD_ADMIN_PASSWORD", "short");
    refuses(weak, &["password of admin"]);
    let mut variable = start();
    variable.env("KEYSTEAD_AWS_KMS_NONSENSE", "1");
    refuses(variable, &["nonsense"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    refuses(serve(folder.path(), port, free_port()), &["--listen", "in use"]);
    refuses(serve(folder.path(), free_port(), port), &["--ekmip-listen", "in use"]);
    std::fs::write(folder.path().join("file"), "").unwrap();
    refuses(serve(&folder.path().join("file"), free_port(), free_port()), &["data folder"]);
}

#[tokio::test]
async fn damage_and_missing_keys_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), "", &[]).await;
    refuses(serve(folder.path(), free_port(), free_port()), &["in use by another keystead process"]);
    assert_eq!(program.stop(), Some(0));
    let data = folder.path().join("data");
    let start = || serve(folder.path(), free_port(), free_port());

    let seal = std::fs::read(data.join("seal.key")).unwrap();
    std::fs::write(data.join("seal.key"), "not a key").unwrap();
    refuses(start(), &["seal.key", "damaged"]);
    std::fs::write(data.join("seal.key"), "ab".repeat(32)).unwrap();
    refuses(start(), &["seal key is not the one"]);
    std::fs::remove_file(data.join("seal.key")).unwrap();
    refuses(start(), &["seal.key", "missing"]);
    std::fs::write(data.join("seal.key"), &seal).unwrap();
    std::fs::set_permissions(data.join("seal.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    refuses(start(), &["seal.key", "can be read by others"]);
    std::fs::set_permissions(data.join("seal.key"), std::fs::Permissions::from_mode(0o600)).unwrap();

    let store = std::fs::read(data.join("store.db")).unwrap();
    std::fs::write(data.join("store.db"), "this is no database, but it is long enough to be read as one".repeat(100)).unwrap();
    refuses(start(), &["store.db"]);
    std::fs::write(data.join("store.db"), &store[..store.len() / 2]).unwrap();
    refuses(start(), &["store.db"]);
    std::fs::write(data.join("store.db"), &store).unwrap();
    let mut program = Program::start(folder.path(), "", &[]).await;
    assert_eq!(program.stop(), Some(0), "with everything put back it starts again");
}

/// SIGTERM: what is running is finished, its caller is answered, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_running() {
    let (kms, key) = stand_in().await;
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &toml_for(&kms, folder.path()), &[("KEYSTEAD_ADMIN_PASSWORD", PASSWORD)]).await;
    assert_eq!(call(&program, PASSWORD, "POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await.0, 201);
    kms.add_fault(FaultRule::next("Decrypt", Fault::Hold));
    let (client, port) = (program.client(), program.port);
    let body = enable_body("svm1", &kms, &key).to_string();
    let asking = tokio::spawn(async move {
        let url = format!("https://127.0.0.1:{port}/api/security/aws-kms?return_timeout=60");
        client.post(url).basic_auth("admin", Some(PASSWORD)).body(body).send().await.map(|answer| answer.status().as_u16())
    });
    assert_eq!(kms.wait_held(1, std::time::Duration::from_secs(20)).await, 1);
    program.signal("-TERM");
    // It stops accepting, and waits for what is under way.
    eventually("no new connection is served", async || std::net::TcpStream::connect(("127.0.0.1", port)).err()).await;
    assert!(program.child.try_wait().unwrap().is_none(), "{}", program.said());
    kms.release();
    assert_eq!(asking.await.unwrap().unwrap(), 201, "the caller is answered: {}", program.said());
    assert_eq!(program.stop(), Some(0), "{}", program.said());
    let mut program = Program::start(folder.path(), &toml_for(&kms, folder.path()), &[("KEYSTEAD_ADMIN_PASSWORD", PASSWORD)]).await;
    let (_, list) = call(&program, PASSWORD, "GET", "/security/aws-kms?fields=svm", None).await;
    assert_eq!((list["num_records"].as_u64(), list["records"][0]["svm"]["name"].as_str()), (Some(1), Some("svm1")));
    assert_eq!(program.stop(), Some(0));
}

/// The operator is told of certificates that end soon.
#[tokio::test]
async fn certificates_that_end_soon_are_warned_about() {
    let (kms, key) = stand_in().await;
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &toml_for(&kms, folder.path()), &[("KEYSTEAD_ADMIN_PASSWORD", PASSWORD)]).await;
    assert_eq!(call(&program, PASSWORD, "POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await.0, 201);
    assert_eq!(call(&program, PASSWORD, "POST", "/security/aws-kms?return_timeout=60", Some(enable_body("svm1", &kms, &key))).await.0, 201);
    for (name, expiry) in [("short-lived", "P20D"), ("long-lived", "P200D")] {
        let body = json!({ "svm": { "name": "svm1" }, "common_name": name, "expiry_time": expiry });
        assert_eq!(call(&program, PASSWORD, "POST", "/security/ekmip/clients?return_records=true", Some(body)).await.0, 201);
    }
    assert_eq!(program.stop(), Some(0), "{}", program.said());
    let mut program = Program::start(folder.path(), &toml_for(&kms, folder.path()), &[("KEYSTEAD_ADMIN_PASSWORD", PASSWORD)]).await;
    let warned = eventually("the warning must come", async || program.said().lines().find(|line| line.contains("ends soon")).map(str::to_owned)).await;
    assert!(warned.contains("short-lived") && warned.contains("svm1") && warned.contains("ERROR"), "{warned}");
    assert!(!program.said().contains("long-lived"), "{}", program.said());
    assert_eq!(program.stop(), Some(0));
}

/// A node that listens on all addresses does not say how other nodes reach it, until its configuration does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wildcard_is_no_address_for_other_nodes() {
    let (kms, key) = stand_in().await;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let toml = format!("listen = \"0.0.0.0:0\"\n{}", toml_for(&kms, folder.path()));
    let start = async |toml: &str| {
        let mut node = Node::start_in(folder.clone(), toml, Hooks::default()).await.unwrap();
        node.address.set_ip([127, 0, 0, 1].into());
        node
    };
    let node = start(&toml).await;
    node.svm("svm1").await;
    let answer = node.enable(enable_body("svm1", &kms, &key)).await;
    assert_eq!((answer.0, code(&answer).as_str()), (500, "65537518"));
    assert!(answer.1["error"]["message"].as_str().unwrap().contains("set [cluster] address"), "{answer:?}");
    node.stop().await;
    let node = start(&format!("{toml}[cluster]\naddress = \"127.0.0.1:8443\"\n")).await;
    assert_eq!(node.enable(enable_body("svm1", &kms, &key)).await.0, 201);
}
