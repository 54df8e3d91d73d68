//! The operator's commands: the program itself, as a process, against a node. Every command is the manual's: `docs/manual/command-line.md` is run from top to bottom.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod logins;
mod options;

use crate::common;

use common::kmip::{Credentials, Kmip};
use common::{ACCESS_KEY_ID, Node, PASSWORD, SECRET, eventually, stand_in, toml_for};
use keystead::serve::Hooks;
use keystead_testkit::{Fault, FaultRule, KmsStandIn, NewKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::process::Command;

/// A node, and what a shell has to speak with it.
struct Shell {
    node: Node,
    kms: KmsStandIn,
    /// The key of `alias/tenant1`.
    key: String,
    folder: Arc<tempfile::TempDir>,
    variables: BTreeMap<&'static str, String>,
    /// All that was ever printed.
    printed: Mutex<String>,
}

/// What came of a command.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Shell {
    async fn start() -> Self {
        let (kms, key) = stand_in().await;
        kms.set_alias("alias/tenant1", &key).unwrap();
        kms.set_alias("alias/tenant1-new", &kms.create_key(NewKey::default()).unwrap().key_id).unwrap();
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let node = Node::start_in(folder.clone(), &toml_for(&kms, folder.path()), Hooks::default()).await.unwrap();
        std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        let variables = BTreeMap::from([
            ("HOME", place("home")),
            ("PATH", format!("{}:{}", Path::new(env!("CARGO_BIN_EXE_keystead")).parent().unwrap().display(), std::env::var("PATH").unwrap())),
            ("KEYSTEAD_ENDPOINT", node.address.to_string()),
            ("KEYSTEAD_CA", place("data/ca.pem")),
            ("AWS_HOST", kms.addr().ip().to_string()),
            ("AWS_PORT", kms.addr().port().to_string()),
        ]);
        Self { node, kms, key, folder, variables, printed: Mutex::default() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.insert(name, value.to_owned());
        self
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of a shell without a terminal, in the folder that has the password and the secret in files.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("setsid");
        command.args(["--wait", "sh", "-c", line]).env_clear().envs(&self.variables).current_dir(self.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn run(&self, line: &str) -> Ran {
        let output = self.command(line).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) };
        self.printed.lock().unwrap().push_str(&format!("$ {line}\n{}{}", ran.out, ran.err));
        ran
    }

    /// Runs a command that ends with this code, and says all of that: on standard output if it is done, else on standard error.
    async fn says(&self, line: &str, code: i32, parts: &[&str]) -> Ran {
        let ran = self.run(line).await;
        assert_eq!(ran.code, code, "{line}: {ran:?}");
        for part in parts {
            assert!(if code == 0 { &ran.out } else { &ran.err }.contains(part), "{line}: {part:?} is missing: {ran:?}");
        }
        if code != 0 {
            assert!(ran.err.starts_with("keystead: ") || ran.err.contains("\nkeystead: "), "{ran:?}");
        }
        ran
    }

    fn has_printed_no_secret(&self, secrets: &[&str]) {
        let printed = self.printed.lock().unwrap();
        for secret in secrets.iter().chain(&[SECRET, PASSWORD, "PRIVATE KEY"]) {
            assert!(!printed.contains(secret), "{secret}: {printed}");
        }
    }

    async fn first(&self, path: &str, field: &str) -> String {
        self.node.get(path).await["records"][0][field].as_str().unwrap_or_else(|| panic!("{path}: nothing")).to_owned()
    }

    async fn ends_well(&self, job: &str) {
        eventually("the job must end", async || (self.node.get(&format!("/cluster/jobs/{job}")).await["state"] == "success").then_some(())).await;
    }
}

/// The commands of the manual, with the exit codes that it gives.
fn manual() -> Vec<(String, i32)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/manual/command-line.md")).unwrap();
    let lines = text.split("```sh\n").skip(1).flat_map(|block| block.split("```").next().unwrap().lines());
    lines.map(|line| line.split_once(" # exit code ").map_or((line.to_owned(), 0), |(line, code)| (line.to_owned(), code.parse().unwrap()))).collect()
}

/// What a command of the manual prints, by its first words; the last that fits counts.
const PRINTED: &[(&str, &[&str])] = &[
    ("keystead login", &["admin is logged in at https://127.0.0.1"]),
    ("keystead logout", &["logged out"]),
    ("keystead cluster show", &["Cluster: ", "Node ", " up ", "1 entry."]),
    ("keystead vserver create --vserver svm1", &["the SVM svm1 is made"]),
    ("keystead vserver show", &["Vserver  State  Reason  Comment", "svm1     none   -       first tenant", "2 entries."]),
    ("keystead vserver show --vserver", &["State: none", "Comment: first tenant"]),
    ("keystead vserver show --vserver 'svm*'", &["svm1     none   -       first tenant", "2 entries."]),
    ("keystead vserver delete", &["the SVM svm2 is deleted"]),
    ("keystead security key-manager external aws enable", &["SVM svm1: AWS KMS is enabled"]),
    ("keystead security key-manager external aws show", &["Vserver  Region", "svm1     us-east-1  alias/tenant1  AKIAIOSFODNN7EXAMPLE  60", "1 entry."]),
    (
        "keystead security key-manager external aws show --",
        &[
            "Encryption context: tenant=1",
            "State: the keys are usable on every node",
            "AWS KMS: reached by every node",
            "reaches the servers of all nodes",
            "Revocation bound (s): ",
        ],
    ),
    ("keystead security key-manager external aws show --fields", &["region     state.cluster_state  keystead.bound", "svm1     us-east-1  true"]),
    ("keystead security key-manager external aws show -o", &["\"key_id\": \"alias/tenant1\""]),
    ("keystead security key-manager external aws check", &["Vserver svm1: passed", "dns ", "decrypt       passed"]),
    ("keystead security key-manager external aws update-config", &["SVM svm1: the configuration is changed"]),
    ("keystead security key-manager external aws update-credentials", &["SVM svm1: the credentials are changed"]),
    ("keystead security key-manager external aws restore", &["SVM svm1: the keys are restored"]),
    ("keystead security key-manager external aws rekey-internal", &["SVM svm1: the KEK is replaced: version 2 of the KEK is in use"]),
    ("keystead security key-manager external aws rekey-external", &["SVM svm1: the KEK is wrapped again: "]),
    ("keystead security key-manager external aws rekey-external --vserver svm1 --key-id alias/tenant1 --no-wait", &["to watch it: keystead job watch "]),
    ("keystead security key-manager external aws disable", &["code: 65537106", "next: destroy the keys"]),
    ("keystead ekmip client create", &["storage1/client.pem, storage1/client.key, storage1/ca.pem"]),
    ("keystead ekmip client show", &["svm1     storage1", "valid"]),
    ("keystead ekmip client revoke", &["is revoked"]),
    ("keystead job show", &["svm1     success", "POST /api/security/aws-kms"]),
    ("keystead job show --vserver", &["svm1     success", "/rekey-external"]),
    ("keystead job show \"", &["State: success", "Code: 0"]),
    ("keystead job watch", &["has ended well"]),
    ("keystead job pause", &["code: 4587"]),
    ("keystead cluster node show", &["Node ", "1 entry."]),
    ("keystead cluster node show --node", &["State: up"]),
    ("keystead cluster node remove", &["code: "]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_manual_do_what_it_says() {
    let mut shell = Shell::start().await;
    std::fs::write(shell.file("password"), PASSWORD).unwrap();
    for (line, code) in manual() {
        // What the manual's reader has by then.
        if line.contains("vserver create") {
            shell = shell.with("KEYSTEAD_PASSWORD_FILE", "password");
        }
        if line.contains("rekey-internal") {
            let client = Credentials::issue(&shell.node, "svm1").await;
            Kmip::connect_new(&client.endpoint(shell.node.ekmip)).await.created(vec![]);
        }
        if line.contains("$JOB") || line.contains(" disable ") {
            let job =
                shell.node.get("/cluster/jobs?order_by=start_time%20desc&description=*rekey-external").await["records"][0]["uuid"].as_str().unwrap().to_owned();
            shell.ends_well(&job).await;
            shell = shell.with("JOB", &job);
        }
        if line.contains("$CLIENT") {
            let client = shell.first("/security/ekmip/clients?common_name=storage1", "uuid").await;
            shell = shell.with("CLIENT", &client);
        }
        if line.contains("$NODE") {
            let name = shell.first("/cluster/nodes", "name").await;
            shell = shell.with("NODE", &name);
        }
        let parts = PRINTED.iter().rfind(|(words, _)| line.starts_with(words)).map_or(&[][..], |(_, parts)| parts);
        assert!(
            !parts.is_empty() || line.contains(" > ") || line.starts_with("keystead man ") || line.ends_with("svm2") || line.contains(" job "),
            "nothing is known of {line}"
        );
        shell.says(&line, code, parts).await;
    }
    let mode = |name: &str| std::fs::metadata(shell.file(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("storage1"), mode("storage1/client.key"), mode("storage1/client.pem")), (0o700, 0o600, 0o644));
    let read = |name: &str| std::fs::read_to_string(shell.file(name)).unwrap();
    assert!(read("storage1/client.key").contains("PRIVATE KEY") && read("storage1/ca.pem").contains("BEGIN CERTIFICATE"));
    for completions in ["keystead.bash", "_keystead", "keystead.fish"] {
        assert!(read(completions).contains("rekey-internal") && read(completions).contains("proxy-username"), "{completions}");
    }
    let page = read("man1/keystead-security-key-manager-external-aws-enable.1");
    assert!(page.contains("access\\-key\\-id") && read("man1/keystead.1").contains("Exit codes"), "{page}");
    assert!(!shell.file("home/.local/state/keystead/sessions").read_dir().unwrap().any(|_| true), "a session stays after its end");
    shell.has_printed_no_secret(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_the_apis_and_refusals_say_what_to_do() {
    let shell = Shell::start().await.with("KEYSTEAD_PASSWORD_FILE", "password");
    std::fs::write(shell.file("password"), PASSWORD).unwrap();
    let made = shell.says("keystead vserver create --vserver svm.2-x -o json", 0, &[]).await.json();
    assert_eq!((&made["state"], &made["description"]), (&json!("success"), &json!("POST /api/svm/svms")));
    assert_eq!(shell.says("keystead vserver show --vserver svm.2-x -o json", 0, &[]).await.json()["name"], "svm.2-x");
    shell.says("keystead vserver create --vserver svm1", 0, &[]).await;
    let (all, api) = (shell.run("keystead vserver show -o json").await.json(), shell.node.get("/svm/svms?fields=*&order_by=name").await);
    assert_eq!(all["records"].as_array().unwrap().len(), 2);
    assert_eq!((&all["records"][1]["uuid"], &all["records"][1]["name"]), (&api["records"][1]["uuid"], &api["records"][1]["name"]));

    let aws = |rest: &str| format!("keystead security key-manager external aws {rest}");
    let enable = |more: &str| {
        let key = "--region us-east-1 --key-id alias/tenant1 --access-key-id AKIAIOSFODNN7EXAMPLE --secret-access-key-file -";
        aws(&format!("enable --vserver svm1 {key} --host $AWS_HOST --port $AWS_PORT {more}"))
    };
    // A job that fails: its JSON on standard output, the words on standard error.
    let failed = shell
        .says(&format!("echo wr0ng-secret-key | {}", enable("-o json")), 1, &["code: 65537900", "credentials failed", "next: put right what the message names"])
        .await;
    assert_eq!((&failed.json()["state"], &failed.json()["error"]["code"]), (&json!("failure"), &json!("65537900")));
    let started = shell.says(&format!("{} < secret", enable("--background -o json")), 0, &[]).await.json();
    let job = started["job"]["uuid"].as_str().unwrap().to_owned();
    assert_eq!(shell.says(&format!("keystead job watch {job} -o json"), 0, &[]).await.json()["uuid"], job.as_str());
    shell.says(&format!("{} < secret", enable("")), 1, &["code: 65537910", "target: svm", "next: see what it is: keystead security"]).await;
    assert_eq!(shell.says(&aws("check --vserver svm1 -o json"), 0, &[]).await.json()["keystead"]["check"]["passed"], true);
    shell.says(&aws("update-config --vserver svm1 --timeout 7"), 0, &[]).await;
    shell.kms.deny(&shell.key, keystead_testkit::Denial { operation: Some("Encrypt".to_owned()), access_key_id: None }).unwrap();
    let checked = shell.says(&aws("check"), 1, &["the check has not passed: svm1"]).await;
    assert!(checked.out.contains("encrypt       failed") && checked.out.contains("encrypt: ") && checked.out.contains("kms:Encrypt"), "{checked:?}");
    shell
        .says(
            &aws("update-config --vserver svm1 --encryption-context a=b"),
            1,
            &["next: see which step fails: keystead security key-manager external aws check --vserver svm1"],
        )
        .await;
    shell.kms.restore_access(&shell.key).unwrap();
    shell.says(&aws("update-config --vserver svm1 --polling-period 2000"), 1, &["target: polling_period"]).await;
    shell.says(&aws("update-config --vserver svm1"), 2, &["nothing to change"]).await;
    let proxy = "update-config --vserver svm1 --proxy-type http --proxy-host 127.0.0.1 --proxy-port 1 --proxy-username u --proxy-password-file pr";
    std::fs::write(shell.file("pr"), "pr0xy-p4ss").unwrap();
    shell.says(&aws(proxy), 1, &["code: "]).await;
    shell.says(&aws("disable --vserver svm1 -o json"), 0, &[]).await;

    // What is not there, what is not allowed, and what is written wrong.
    shell.says(&aws("show --vserver svm1"), 5, &["AWS KMS is not enabled for the SVM svm1", "next: enable it"]).await;
    shell.says(&aws("restore --vserver nowhere"), 5, &["there is no SVM nowhere", "keystead vserver show"]).await;
    shell.says("keystead job watch 00000000-0000-4000-8000-000000000000", 5, &["there is no job"]).await;
    shell.says("keystead ekmip client show --vserver nowhere", 5, &["there is no SVM nowhere"]).await;
    shell.says("keystead cluster node show --node nobody", 5, &["there is no node nobody"]).await;
    shell.says("keystead vserver show --vserve svm1", 2, &["--vserve", "see keystead vserver show --help", "--vserver"]).await;
    shell.says(&aws("enable --vserver svm1"), 2, &["--region <REGION>", "see keystead security key-manager external aws enable --help"]).await;
    shell.says(&aws("enable --vserver svm1 --region us-east-1 --key-id x"), 2, &["--access-key-id is missing"]).await;
    shell.says(&enable("--password-file -"), 2, &["both name standard input"]).await;
    shell.says(&enable("--secret-access-key s3cret-argument"), 2, &["unexpected argument"]).await;
    shell.node.account("reader", "readonly", None).await;
    shell.says("keystead vserver create --vserver x --user reader", 1, &["code: 6", "next: log in with an account"]).await;
    shell.says("keystead ekmip client create --vserver svm1 --common-name c --out home/o --expiry-time soon", 1, &["target: expiry_time"]).await;
    shell.says("keystead ekmip client create --vserver svm1 --common-name c --out home/o -o json", 0, &["\"serial_number\""]).await;
    shell.says("keystead ekmip client create --vserver svm1 --common-name c --out home/o", 2, &["home/o/client.pem", "name a folder without"]).await;
    shell.has_printed_no_secret(&["pr0xy-p4ss"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_and_which_node_is_told_apart_when_it_is_wrong() {
    let shell = Shell::start().await;
    let show = "keystead vserver show";
    shell.says(show, 3, &["the password is missing", "next: keystead login"]).await;
    shell.says("echo wrong | keystead vserver show --password-file -", 3, &["refuses the login of admin", "next: look at --user"]).await;
    shell.says("keystead vserver show --password-file nowhere", 2, &["--password-file nowhere"]).await;
    let good = format!("echo '{PASSWORD}' |");
    let hide = |line: String| line.replace(PASSWORD, "…");
    for (line, code, parts) in [
        (format!("{good} keystead vserver show --password-file -"), 0, vec![]),
        (format!("{good} keystead vserver show --password-file - --endpoint 127.0.0.1:1"), 4, vec!["cannot be reached", "refused", "next: look at --endpoint"]),
        (format!("{good} keystead vserver show --password-file - --ca aws-ca.pem"), 4, vec!["is not of a CA that is believed here", "--ca, ca.pem"]),
        (format!("{good} keystead vserver show --password-file - --endpoint localhost.localdomain.invalid:1"), 4, vec!["cannot be reached"]),
        (format!("{good} keystead vserver show --password-file - --endpoint http://x:1"), 2, vec!["a node speaks nothing else"]),
        (format!("{good} keystead vserver show --password-file - --ca nowhere"), 2, vec!["--ca nowhere"]),
        (format!("{good} env -u KEYSTEAD_CA keystead vserver show --password-file -"), 4, vec!["is not of a CA that is believed here"]),
    ] {
        let ran = shell.command(&line).output().await.unwrap();
        let err = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(code), "{}: {err}", hide(line.clone()));
        assert!(parts.iter().all(|part| err.contains(part)), "{}: {err}", hide(line));
        shell.printed.lock().unwrap().push_str(&err);
    }

    // A session ends when the password changes; the next command says so, and how to go on.
    std::fs::write(shell.file("password"), PASSWORD).unwrap();
    let begun = shell.says("keystead login --password-file password -o json", 0, &[]).await.json();
    assert!(begun["uuid"].is_string() && !begun.to_string().contains("csrf"));
    shell.says(show, 0, &["There are none."]).await;
    shell.says("keystead vserver create --vserver svm1", 0, &[]).await;
    let change = json!({ "name": "admin", "password": "a new pass phrase" });
    assert_eq!(shell.node.ask("POST", "/security/authentication/password", Some(change)).await.0, 200);
    shell.says(show, 3, &["the session of admin at https://", "has ended", "next: log in again: keystead login"]).await;
    shell.says(show, 3, &["the password is missing"]).await;
    shell.says("keystead logout", 3, &["nobody is logged in"]).await;

    // The profile file.
    let profile = shell.file("home/.config/keystead/config.toml");
    std::fs::create_dir_all(profile.parent().unwrap()).unwrap();
    let address = shell.node.address;
    std::fs::write(&profile, format!("endpoint = \"{address}\"\nca = \"../../../data/ca.pem\"\npassword = \"a new pass phrase\"\n[profile.down]\nendpoint = \"127.0.0.1:1\"\npassword_file = \"p\"\n")).unwrap();
    std::fs::write(shell.file("home/.config/keystead/p"), "x").unwrap();
    std::fs::set_permissions(&profile, std::fs::Permissions::from_mode(0o644)).unwrap();
    let shell = Shell {
        variables: shell.variables.iter().filter(|(name, _)| !name.starts_with("KEYSTEAD_")).map(|(name, value)| (*name, value.clone())).collect(),
        ..shell
    };
    shell.says(show, 2, &["others can read it", "chmod 600"]).await;
    std::fs::set_permissions(&profile, std::fs::Permissions::from_mode(0o600)).unwrap();
    shell.says(show, 0, &["svm1"]).await;
    shell.says("KEYSTEAD_PROFILE=down keystead vserver show", 4, &["127.0.0.1:1 cannot be reached"]).await;
    shell.says("keystead vserver show --profile up", 2, &["no [profile.up], but down"]).await;
    std::fs::write(&profile, "").unwrap();
    shell.says(show, 2, &["no node is named", "KEYSTEAD_ENDPOINT"]).await;

    by_certificate(&shell).await;
    shell.has_printed_no_secret(&["a new pass phrase"]);
}

/// A client certificate logs in, and one that nobody vouches for does not.
async fn by_certificate(shell: &Shell) {
    use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    let named = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = named("login CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let mut leaf = named("admin");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    std::fs::write(shell.file("me.pem"), leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap().pem()).unwrap();
    std::fs::write(shell.file("me.key"), key.serialize_pem()).unwrap();
    let admin = shell.node.caller("admin", "a new pass phrase");
    let installed = admin.call("POST", "/security/certificates", Some(json!({ "type": "client_ca", "public_certificate": pem }))).await;
    assert_eq!(installed.status, 201, "{}", installed.body);
    let methods = json!({ "applications": [{ "application": "http", "authentication_methods": ["password", "certificate"] }] });
    let account = admin.call("GET", "/security/accounts?name=admin", None).await.body["records"][0]["_links"]["self"]["href"].as_str().unwrap().to_owned();
    let line = format!("keystead vserver show --endpoint {} --ca data/ca.pem --client-certificate me.pem --client-key me.key", shell.node.address);
    shell.says(&line, 3, &["does not take the client certificate"]).await;
    assert_eq!(admin.call("PATCH", account.strip_prefix("/api").unwrap(), Some(methods)).await.status, 200);
    eventually("the certificate must log in", async || (shell.run(&line).await.code == 0).then_some(())).await;
    shell.says(&line.replace(" --client-key me.key", ""), 2, &["--client-key"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_watching_leaves_the_job_running() {
    let shell = Shell::start().await.with("KEYSTEAD_PASSWORD_FILE", "password");
    std::fs::write(shell.file("password"), PASSWORD).unwrap();
    shell.node.svm("svm1").await;
    shell.kms.add_fault(FaultRule::next("Encrypt", Fault::Hold));
    let line = format!(
        "exec keystead security key-manager external aws enable --vserver svm1 --region us-east-1 --key-id alias/tenant1 --access-key-id {ACCESS_KEY_ID} --secret-access-key-file secret --host $AWS_HOST --port $AWS_PORT --timeout 60 2>said"
    );
    let mut child = Command::new("sh")
        .args(["-c", &line])
        .env_clear()
        .envs(&shell.variables)
        .current_dir(shell.folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(shell.file("said")).unwrap_or_default();
    eventually("the job must be told", async || said().contains("wrapping the KEK with the customer key (2 of 3)").then_some(())).await;
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().unwrap().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().await.unwrap().code(), Some(130), "{}", said());
    let job = said().split("keystead job watch ").nth(1).unwrap_or_else(|| panic!("it must say how to go on: {}", said())).trim().to_owned();
    assert!(said().contains(&format!("stopped watching; job {job} goes on")), "{}", said());
    let running = shell.says(&format!("keystead job show {job}"), 0, &["running"]).await;
    assert!(running.out.contains("wrapping the KEK"), "{running:?}");
    shell.kms.release();
    shell.says(&format!("keystead job watch {job}"), 0, &["has ended well: AWS KMS is enabled"]).await;
}
