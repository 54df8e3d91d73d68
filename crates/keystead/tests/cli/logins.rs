//! Who asks, where several logins are named, and sessions that cannot be kept or ended.

use super::common::{PASSWORD, eventually};
use super::{Hooks, Node, Shell, toml_for};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};

/// A profile file at its place, which nobody else can read.
fn profile(shell: &Shell, text: &str) {
    let file = shell.file("home/.config/keystead/config.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

async fn sessions(shell: &Shell) -> u64 {
    shell.node.get("/security/ekmip/sessions").await["num_records"].as_u64().unwrap()
}

/// A command as a process of its own, so that it can be interrupted. What it says on standard error stands in the file `said`.
fn begin(shell: &Shell, line: &str) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {line} 2> said")]).env_clear().envs(&shell.variables).current_dir(shell.folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_most_clearly_logs_in() {
    let shell = Shell::start().await;
    shell.node.account("reader", "readonly", None).await;
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(shell.file("me.pem"), rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(shell.file("me.key"), key.serialize_pem()).unwrap();
    let create = "keystead vserver create --vserver x";
    let certificate = "client_certificate = \"../../../me.pem\"\nclient_key = \"../../../me.key\"\n";
    profile(&shell, certificate);
    // Nobody vouches for the certificate.
    shell.says(create, 3, &["does not take the client certificate"]).await;
    shell.says(&format!("{create} --user reader --password-file password"), 1, &["code: 6"]).await;
    shell.says(&format!("KEYSTEAD_USER=reader KEYSTEAD_PASSWORD_FILE=password {create}"), 1, &["code: 6"]).await;
    shell.says("keystead vserver show --password-file password", 0, &["There are none."]).await;
    shell.says(&format!("{create} --user reader"), 3, &["the password is missing"]).await;
    let both = format!("{create} --password-file password --client-certificate me.pem --client-key me.key");
    shell.says(&both, 2, &["the options name a client certificate and an account or a password", "next: leave one of them out"]).await;
    shell.says("keystead login --client-certificate me.pem --client-key me.key", 2, &["a session is begun with a password"]).await;
    shell.says("keystead login --password-file password", 0, &["admin is logged in"]).await;
    shell.says("keystead logout", 0, &["logged out"]).await;

    // The password of a profile goes where the profile says, for whom it says.
    let address = shell.node.address;
    profile(&shell, &format!("endpoint = \"{address}\"\nuser = \"reader\"\npassword = \"{PASSWORD}\"\n"));
    shell.says(create, 1, &["code: 6"]).await;
    shell.says(&format!("{create} --user admin"), 3, &["the password is missing", &format!("the password of the profile is reader's at {address}")]).await;
    shell.says("keystead vserver show --endpoint 127.0.0.1:1", 3, &["the password is missing"]).await;
    profile(&shell, &format!("password = \"{PASSWORD}\"\n{certificate}"));
    shell.says(create, 2, &["the profile names a client certificate and an account or a password"]).await;
    shell.has_printed_no_secret(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_is_lost() {
    let shell = Shell::start().await;
    let login = "keystead login --password-file password";
    let state = shell.file("home/.local/state/keystead");
    // There is no place for it: none is begun.
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("sessions"), "").unwrap();
    shell.says(login, 1, &["the session cannot be kept"]).await;
    assert_eq!(sessions(&shell).await, 0);
    // It cannot be put at its place: it is ended again.
    std::fs::remove_file(state.join("sessions")).unwrap();
    shell.says(login, 0, &[]).await;
    assert_eq!(sessions(&shell).await, 1);
    let kept = state.join("sessions").read_dir().unwrap().next().unwrap().unwrap().path();
    shell.says("keystead logout", 0, &["logged out"]).await;
    std::fs::create_dir(&kept).unwrap();
    shell.says(login, 1, &["the session cannot be kept"]).await;
    assert_eq!(sessions(&shell).await, 0);
    assert_eq!(state.join("sessions").read_dir().unwrap().count(), 1, "a part of a session stays");
    std::fs::remove_dir(&kept).unwrap();

    // One that the node has ended by itself is forgotten; one that it cannot be asked about is kept.
    shell.says(login, 0, &[]).await;
    let change = json!({ "name": "admin", "password": "a new pass phrase" });
    assert_eq!(shell.node.ask("POST", "/security/authentication/password", Some(change)).await.0, 200);
    shell.says("keystead logout", 3, &["has ended"]).await;
    assert!(!kept.exists());
    std::fs::write(shell.file("new"), "a new pass phrase").unwrap();
    shell.says("keystead login --password-file new", 0, &[]).await;
    let Shell { node, folder, variables, printed, kms, key } = shell;
    node.stop().await;
    let node = Node::start_in(Arc::new(tempfile::tempdir().unwrap()), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
    let shell = Shell { node, folder, variables, printed, kms, key };
    shell.says("keystead logout", 4, &["cannot be reached", "next: the session is still there"]).await;
    assert!(kept.exists());
    shell.has_printed_no_secret(&["a new pass phrase"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_is_read_to_the_end_of_its_line_and_can_be_interrupted() {
    let shell = Shell::start().await;
    // Who writes into it keeps it open.
    let line =
        "mkfifo pipe; (cat password; echo; exec sleep 60) > pipe 2> /dev/null & keystead vserver show --password-file pipe; code=$?; kill $!; exit $code";
    let ran = tokio::time::timeout(Duration::from_secs(30), shell.run(line)).await.expect("it waits for the end of the pipe");
    assert_eq!(ran.code, 0, "{ran:?}");
    let line = "(cat password; echo; exec sleep 60) 2> /dev/null > pipe & keystead vserver show --password-file - < pipe; code=$?; kill $!; exit $code";
    let ran = tokio::time::timeout(Duration::from_secs(30), shell.run(line)).await.expect("it waits for the end of standard input");
    assert_eq!(ran.code, 0, "{ran:?}");
    // Nobody writes into it.
    let mut child = begin(&shell, "keystead ekmip client create --vserver svm1 --common-name c --out made --password-file pipe");
    eventually("the files must be made", async || shell.file("made/ca.pem").exists().then_some(())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().unwrap().to_string()]).status().unwrap().success());
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.expect("Ctrl-C is swallowed").unwrap();
    assert_eq!(ended.code(), Some(130));
    assert!(!shell.file("made").exists(), "files of a certificate that was not made stay");

    // A node that says nothing may have made it.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let line = format!("keystead ekmip client create --vserver svm1 --common-name c --out made --password-file password --endpoint {address}");
    let mut child = begin(&shell, &line);
    let _connection = silent.accept().await.unwrap();
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().unwrap().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    let said = std::fs::read_to_string(shell.file("said")).unwrap();
    assert!(said.contains("stopped before the node has answered") && said.contains("keystead ekmip client revoke"), "{said}");
    assert!(!shell.file("made").exists());
}
