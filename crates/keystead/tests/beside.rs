//! What an operator does beside a node's unit: the commands that need the seal key, which systemd gives to the service alone; joining before the first start; and a password that is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::{Cluster, keystead};
use common::program::{Program, free_port, serve};
use common::run::Run;
use common::{PASSWORD, eventually};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

const PASSPHRASE: &str = "a passphrase for the backup";
const NEW_PASSWORD: &str = "a password of after the reset";

/// Runs a command; answers its exit code, and what it has said.
fn run(arguments: &[&str], more: &[(&str, &Path)]) -> (i32, String) {
    let mut command = keystead(arguments);
    for (flag, path) in more {
        command.arg(flag).arg(path);
    }
    let done = command.env_remove("CREDENTIALS_DIRECTORY").output().unwrap();
    (done.status.code().unwrap(), format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)))
}

/// The last line that says why a command has failed.
fn refused(said: (i32, String), parts: &[&str]) {
    assert_eq!(said.0, 1, "{}", said.1);
    let line = said.1.lines().rfind(|line| line.starts_with("keystead: ")).unwrap_or_else(|| panic!("{}", said.1));
    assert!(parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
}

fn good(said: (i32, String)) -> String {
    assert_eq!(said.0, 0, "{}", said.1);
    said.1
}

/// A folder with a configuration as the package has it: the seal key is a credential, which is loaded from a file.
fn packaged(folder: &Path, more: &str) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let seal = folder.join("etc-seal.key");
    std::fs::write(folder.join("keystead.toml"), format!("[seal]\ncredential = \"seal.key\"\nfile = \"{}\"\n{more}", seal.display())).unwrap();
    seal
}

fn write_key(path: &Path, byte: u8) {
    std::fs::write(path, format!("{byte:02x}").repeat(32) + "\n").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// What systemd gives to the service: its own copy.
fn credentials(folder: &Path, seal: &Path) -> PathBuf {
    let credentials = folder.join("credentials");
    std::fs::create_dir_all(&credentials).unwrap();
    std::fs::copy(seal, credentials.join("seal.key")).unwrap();
    credentials
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_taken_and_restored_beside_the_unit() {
    let temporary = tempfile::tempdir().unwrap();
    let (here, there) = (temporary.path().join("here"), temporary.path().join("there"));
    let (seal, other) = (packaged(&here, ""), packaged(&there, ""));
    write_key(&seal, 0x5a);
    // As the package's installation makes it.
    write_key(&other, 0x77);
    let environment = credentials(&here, &seal);
    let environment = [("CREDENTIALS_DIRECTORY", environment.to_str().unwrap())];
    // What the service reads is its credential, whatever the file has become.
    write_key(&seal, 0x11);
    let node = Run::start(&here, None, &environment).await;
    assert_eq!(node.call("POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "svm1" }))).await.unwrap().0, 201);
    let (passphrase, file) = (temporary.path().join("passphrase"), temporary.path().join("backup"));
    std::fs::write(&passphrase, PASSPHRASE).unwrap();
    let (data, config) = (here.join("data"), here.join("keystead.toml"));
    let take = || run(&["backup"], &[("--data-dir", &data), ("--config", &config), ("--out", &file), ("--passphrase-file", &passphrase)]);
    refused(take(), &["not the one that this store was sealed with"]);
    std::fs::remove_file(&seal).unwrap();
    refused(take(), &["etc-seal.key is missing"]);
    write_key(&seal, 0x5a);
    good(take());
    node.stop();

    let (to, config, out) = (there.join("data"), there.join("keystead.toml"), there.join("key-of-the-backup"));
    let arguments = ["restore", file.to_str().unwrap()];
    let restore = || run(&arguments, &[("--data-dir", &to), ("--config", &config), ("--passphrase-file", &passphrase), ("--seal-key-out", &out)]);
    for _ in 0..2 {
        refused(restore(), &["etc-seal.key gives another seal key than the backup has", "move it away"]);
    }
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "5a".repeat(32) + "\n");
    std::fs::remove_file(&other).unwrap();
    // A machine whose service has a user of its own.
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root {
        std::os::unix::fs::chown(&to, Some(12_345), Some(12_345)).unwrap();
    }
    good(restore());
    assert_eq!(std::fs::read(&other).unwrap(), std::fs::read(&out).unwrap());
    assert!(std::fs::read_dir(&to).unwrap().all(|entry| !is_root || entry.unwrap().metadata().unwrap().uid() == 12_345), "the service owns what it is to read");
    let environment = credentials(&there, &other);
    let restored = Run::start(&there, None, &[("CREDENTIALS_DIRECTORY", environment.to_str().unwrap())]).await;
    assert_eq!(restored.get("/svm/svms?name=svm1").await["num_records"], 1);
    restored.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_joins_before_its_first_start() {
    let cluster = Cluster::start(1, 1).await;
    let (invitation, passphrase) = cluster.invite();
    let temporary = tempfile::tempdir().unwrap();
    let seal = packaged(temporary.path(), &common::toml_for(&cluster.kms, temporary.path()));
    write_key(&seal, 0x77);
    let (data, config) = (temporary.path().join("data"), temporary.path().join("keystead.toml"));
    let arguments = ["cluster", "join", invitation.to_str().unwrap()];
    let join = || run(&arguments, &[("--data-dir", &data), ("--config", &config), ("--passphrase-file", &passphrase)]);
    refused(join(), &["etc-seal.key gives another seal key than the cluster has", "move it away"]);
    assert!(!data.join("store.toml").exists(), "it has not joined");
    std::fs::remove_file(&seal).unwrap();
    let said = good(join());
    assert!(said.contains("the node belongs to the cluster keystead ("), "{said}");
    refused(join(), &["has joined already"]);
    let environment = credentials(temporary.path(), &seal);
    let node = Run::start(temporary.path(), None, &[("CREDENTIALS_DIRECTORY", environment.to_str().unwrap())]).await;
    eventually("both nodes must be there", async || (node.get("/cluster/nodes?state=up").await["num_records"] == 2).then_some(())).await;
    node.stop();
}

async fn status(program: &Program, password: &str, path: &str) -> (u16, Value) {
    let answer = program.client().get(format!("https://127.0.0.1:{}/api{path}", program.port)).basic_auth("admin", Some(password)).send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_password_is_replaced_and_that_is_recorded() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let (data, file) = (folder.join("data"), folder.join("new-password"));
    std::fs::write(&file, format!("{NEW_PASSWORD}\n")).unwrap();
    let environment = [("KEYSTEAD_ADMIN_PASSWORD", PASSWORD)];
    let mut program = Program::start(folder, "", &environment).await;
    let reset = |name: &str, file: &Path| run(&["account", "reset", name], &[("--data-dir", &data), ("--password-file", file)]);
    refused(reset("admin", &file), &["in use by another keystead process"]);
    assert_eq!(program.stop(), Some(0));
    refused(reset("nobody", &file), &["there is no account nobody"]);
    let short = folder.join("short");
    std::fs::write(&short, "short").unwrap();
    refused(reset("admin", &short), &["the new password: "]);
    refused(run(&["account", "reset"], &[("--data-dir", &folder.join("elsewhere")), ("--password-file", &file)]), &["there is no node in the data folder"]);
    let seal = std::fs::read(data.join("seal.key")).unwrap();
    write_key(&data.join("seal.key"), 0x11);
    refused(reset("admin", &file), &["the seal key is not the one"]);
    std::fs::write(data.join("seal.key"), seal).unwrap();
    let said = good(reset("ADMIN", &file));
    assert!(said.contains("the account admin logs in with the new password") && !said.contains(NEW_PASSWORD), "{said}");

    let mut program = Program::start(folder, "", &environment).await;
    assert_eq!(status(&program, PASSWORD, "/cluster").await.0, 401, "the old one is gone");
    assert_eq!(status(&program, NEW_PASSWORD, "/cluster").await.0, 200);
    let recorded = status(&program, NEW_PASSWORD, "/security/audit/messages?input=keystead*&fields=*").await.1;
    let states: Vec<(&str, &str)> =
        recorded["records"].as_array().unwrap().iter().map(|one| (one["input"].as_str().unwrap(), one["state"].as_str().unwrap())).collect();
    assert_eq!(states.iter().filter(|one| **one == ("keystead account reset ADMIN", "success")).count(), 1, "{recorded}");
    assert_eq!(states.iter().filter(|one| one.1 == "error").count(), 3, "no such account, a short password, and a wrong seal key: {recorded}");
    assert!(!recorded.to_string().contains(NEW_PASSWORD));
    assert_eq!(program.stop(), Some(0));
    assert!(good(run(&["audit", "verify"], &[("--data-dir", &data)])).contains("the chain is whole"));
}

#[test]
fn keys_that_can_be_swapped_are_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let (port, ekmip) = (free_port(), free_port());
    let limited = |program: Command| {
        // Who may lock whatever there is, as root, loses that first.
        let mut command = Command::new("prlimit");
        command.args(["--memlock=0:0", "setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]).arg(program.get_program()).args(program.get_args());
        command.env("KEYSTEAD_ADMIN_PASSWORD", PASSWORD).stderr(std::process::Stdio::piped());
        command
    };
    let mut child = limited(serve(folder.path(), port, ekmip)).spawn().unwrap();
    let mut said = String::new();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    // The line that says that all is served comes last.
    while let Some(Ok(line)) = lines.next() {
        said.push_str(&line);
        said.push('\n');
        if line.contains("are served") {
            break;
        }
    }
    let _ = child.kill();
    child.wait().unwrap();
    assert_eq!(said.matches("keys may be swapped to disk").count(), 1, "{said}");
    assert!(said.contains("LimitMEMLOCK"), "{said}");
}
