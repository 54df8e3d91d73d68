//! The audit log of the program as a process: killed, out of room, checked from outside, and forwarded to a collector that comes and goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Credentials, Kmip, template};
use common::program::{Program, free_port};
use common::run::pauses;
use common::{PASSWORD, eventually};
use keystead_audit::disk::RealDisk;
use keystead_audit::{Application, Audit, Named, Options, Record, State};
use keystead_kmip::Tag;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{Operation, ResultReason};
use keystead_kmip::ttlv::{Node as Item, Value as Of};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const ADMIN: &[(&str, &str)] = &[("KEYSTEAD_ADMIN_PASSWORD", PASSWORD)];
const MESSAGES: &str = "/security/audit/messages";

/// Calls the REST API. `None`: the program has died before it answered.
async fn call(client: &reqwest::Client, port: u16, method: &str, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
    let mut request = client.request(method.parse().unwrap(), format!("https://127.0.0.1:{port}/api{path}")).basic_auth("admin", Some(PASSWORD));
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    Some((status, serde_json::from_slice(&answer.bytes().await.ok()?).ok()?))
}

/// `keystead audit verify`: the exit code, and what it says.
fn verify(folder: &Path) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_keystead")).args(["audit", "verify", "--data-dir"]).arg(folder.join("data")).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

fn log_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder.join("data/audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    files
}

/// The records of the log as they lie on disk.
fn on_disk(folder: &Path) -> Vec<Value> {
    let whole: Vec<u8> = log_files(folder).iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// A node with the onboard key manager, an SVM, and a client of it.
async fn served(program: &Program) -> (reqwest::Client, Credentials) {
    let client = program.client();
    let ask = async |path: &str, body: Value| call(&client, program.port, "POST", path, Some(body)).await.unwrap();
    let passphrase = "a passphrase of thirty-two bytes and more";
    assert_eq!(ask("/security/key-managers?return_timeout=60", json!({ "onboard": { "passphrase": passphrase } })).await.0, 201);
    assert_eq!(ask("/svm/svms?return_timeout=30", json!({ "name": "svm1" })).await.0, 201);
    let (status, issued) = ask("/security/ekmip/clients?return_records=true", json!({ "svm": { "name": "svm1" }, "common_name": "c" })).await;
    assert_eq!(status, 201, "{issued}");
    (client, Credentials::from_record(&issued["records"][0]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_says_what_it_has_found_and_its_exit_code_too() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(verify(folder.path()).0, 2, "no log");
    let mut program = Program::start(folder.path(), "", ADMIN).await;
    served(&program).await;
    let (exit, said) = verify(folder.path());
    assert_eq!(exit, 0, "while the node runs: {said}");
    assert_eq!(program.stop(), Some(0));
    let (exit, said) = verify(folder.path());
    assert!(exit == 0 && said.contains("the chain is whole") && said.contains("first: 1 at ") && !said.contains("note:"), "{said}");
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o777;
    for entry in std::fs::read_dir(folder.path().join("data/audit")).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let file = &log_files(folder.path())[0];
    let mut bytes = std::fs::read(file).unwrap();
    let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 40;
    bytes[second] ^= 1;
    std::fs::write(file, bytes).unwrap();
    let (exit, said) = verify(folder.path());
    assert!(exit == 1 && said.contains(&format!("{}:2: ", file.display())), "{said}");
}

/// A real disk without room: the system refuses what would make a file longer than a limit. The log is made so long before that it meets the limit first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_changes_are_refused_gets_are_not_and_it_goes_on_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let audit = Audit::open(Options {
        folder: folder.path().join("data/audit"),
        node: Named::default(),
        version: "0".to_owned(),
        max_file_size: 1 << 30,
        files: 2,
        strict: false,
        now: Arc::new(jiff::Timestamp::now),
        disk: Arc::new(RealDisk),
    })
    .unwrap();
    let long = Record { message: Some("x".repeat(1_000)), ..Record::new(Application::Http, State::Success, "filler") };
    for _ in 0..9 {
        audit.end(vec![long.clone(); 1_000]).await;
    }
    audit.close().await;
    let mut program = Program::start(folder.path(), "", ADMIN).await;
    let (client, credentials) = served(&program).await;
    let mut kmip = Kmip::connect_new(&credentials.endpoint(program.ekmip)).await;
    let key = kmip.created(vec![]);

    let pid = Pid::from_raw(program.child.id().try_into().unwrap());
    let room = |bytes: Option<u64>| prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    let length = std::fs::metadata(&log_files(folder.path())[0]).unwrap().len();
    assert!(length > 8 << 20, "the store's files are shorter");
    let before = room(Some(length + 100));
    for _ in 0..3 {
        let (status, answer) = call(&client, program.port, "POST", "/svm/svms", Some(json!({ "name": "no" }))).await.unwrap();
        assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("13114500")), "{answer}");
    }
    let refused = kmip.create(vec![]);
    assert_eq!(refused.reason(), Some(ResultReason::GeneralFailure), "{}", refused.message());
    assert!(kmip.get(&key).reason().is_none(), "Gets go on");
    assert_eq!(call(&client, program.port, "GET", "/svm/svms?name=no", None).await.unwrap().1["num_records"], 0);
    assert_eq!(verify(folder.path()).0, 0, "what had room in part is taken back");

    room(before.current);
    eventually("changes go on by themselves", async || {
        let (status, _) = call(&client, program.port, "POST", "/svm/svms?return_timeout=30", Some(json!({ "name": "yes" }))).await.unwrap();
        (status == 201).then_some(())
    })
    .await;
    kmip.created(vec![]);
    let (_, lost) = call(&client, program.port, "GET", &format!("{MESSAGES}?fields=*&input=audit%20records%20lost"), None).await.unwrap();
    assert!(lost["records"][0]["keystead"]["count"].as_u64().unwrap() >= 4, "{lost}");
    assert_eq!(program.stop(), Some(0));
    let (exit, said) = verify(folder.path());
    assert!(exit == 0 && said.contains("audit records lost"), "{said}");
}

/// Killed at any moment, the log is whole afterwards, and every key that there is has its record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_the_log_is_whole_and_no_key_is_without_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), "[audit]\nmax_file_size = 40000\nfiles = 1000\n", ADMIN).await;
    let (_, credentials) = served(&program).await;
    let mut answered: Vec<String> = Vec::new();
    for pause in pauses(5) {
        Kmip::connect_new(&credentials.endpoint(program.ekmip)).await;
        let made: Arc<Mutex<Vec<String>>> = Arc::default();
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let (endpoint, made) = (credentials.endpoint(program.ekmip), made.clone());
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
                    runtime.block_on(async {
                        let mut kmip = Kmip::connect(&endpoint);
                        let usual = [
                            (Tag::CryptographicAlgorithm, Of::Enumeration(3)),
                            (Tag::CryptographicLength, Of::Integer(256)),
                            (Tag::CryptographicUsageMask, Of::Integer(12)),
                        ];
                        let attributes: Vec<_> = usual.into_iter().map(|(tag, value)| Attribute::new(tag, value)).collect();
                        let payload = || vec![Item::new(Tag::ObjectType, Of::Enumeration(2)), template(&attributes)];
                        while let Ok(answer) = kmip.try_call(Operation::Create, payload()) {
                            made.lock().unwrap().push(answer.id());
                        }
                    });
                })
            })
            .collect();
        tokio::time::sleep(pause).await;
        program.signal("-KILL");
        program.child.wait().unwrap();
        clients.into_iter().for_each(|client| client.join().unwrap());
        answered.append(&mut made.lock().unwrap());
        let (exit, said) = verify(folder.path());
        assert_eq!(exit, 0, "{said}");
        program = Program::start(folder.path(), "[audit]\nmax_file_size = 40000\nfiles = 1000\n", ADMIN).await;
        let (exit, said) = verify(folder.path());
        assert_eq!(exit, 0, "healed: {said}");
    }
    let mut kmip = Kmip::connect_new(&credentials.endpoint(program.ekmip)).await;
    let kept = kmip.locate(&[]);
    let mut states: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in on_disk(folder.path()).iter().filter(|record| record["input"] == "Create") {
        states.entry(record["object"].as_str().unwrap().to_owned()).or_default().push(record["state"].as_str().unwrap().to_owned());
    }
    assert!(kept.len() >= answered.len() && !answered.is_empty(), "{} {}", kept.len(), answered.len());
    for key in &kept {
        assert!(states.contains_key(key), "the key {key} has no record");
    }
    for key in &answered {
        assert_eq!(states[key], ["pending", "success"], "{key}");
    }
}

/// A collector of syslog messages, which comes and goes.
#[derive(Default, Clone)]
struct Collector {
    messages: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    /// Listens until the task is aborted; then its connections are closed.
    async fn listen(&self, port: u16, tls: Option<Arc<rustls::ServerConfig>>) -> JoinHandle<()> {
        let listener = eventually("the port must be free again", async || {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(([127, 0, 0, 1], port).into()).ok()?;
            socket.listen(16).ok()
        })
        .await;
        tokio::spawn(self.clone().accept(listener, tls))
    }

    async fn accept(self, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            match &tls {
                None => self.read(stream).await,
                Some(config) => {
                    if let Ok(stream) = tokio_rustls::TlsAcceptor::from(config.clone()).accept(stream).await {
                        self.read(stream).await;
                    }
                }
            }
        }
    }

    /// Octet counting (RFC 6587): the length in digits, a space, and so many bytes.
    async fn read(&self, mut stream: impl AsyncRead + Unpin) {
        loop {
            let mut length = 0usize;
            loop {
                match stream.read_u8().await {
                    Ok(b' ') => break,
                    Ok(digit) => length = length * 10 + usize::from(digit.checked_sub(b'0').unwrap()),
                    Err(_) => return,
                }
            }
            let mut message = vec![0; length];
            if stream.read_exact(&mut message).await.is_err() {
                return;
            }
            self.messages.lock().unwrap().push(String::from_utf8(message).unwrap());
        }
    }

    /// The numbers of the records that have come.
    fn numbers(&self) -> Vec<u64> {
        self.records().iter().map(|record| record["index"].as_u64().unwrap()).collect()
    }

    fn records(&self) -> Vec<Value> {
        self.messages.lock().unwrap().iter().map(|message| serde_json::from_str(&message[message.find('{').unwrap()..]).unwrap()).collect()
    }
}

/// Waits until the collector has all that is in the log.
async fn caught_up(collector: &Collector, folder: &Path) {
    eventually("the collector must get everything", async || {
        let last = on_disk(folder).last().unwrap()["index"].as_u64().unwrap();
        (collector.numbers().last() == Some(&last)).then_some(())
    })
    .await;
}

/// Waits until what has come counts as delivered.
async fn settled(folder: &Path) {
    eventually("what was sent must settle", async || {
        let last = on_disk(folder).last().unwrap()["index"].as_u64().unwrap();
        (std::fs::read_to_string(folder.join("data/audit/forwarded")).ok()?.trim() == last.to_string()).then_some(())
    })
    .await;
}

async fn comes_and_goes(protocol: &str, ca: Option<&str>, tls: Option<Arc<rustls::ServerConfig>>) {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut toml = format!("[audit]\nmax_file_size = 5000\n[audit.syslog]\naddress = \"127.0.0.1:{port}\"\nprotocol = \"{protocol}\"\n");
    if let Some(ca) = ca {
        let path = folder.path().join("collector-ca.pem");
        std::fs::write(&path, ca).unwrap();
        toml.push_str(&format!("ca = {path:?}\n"));
    }
    let collector = Collector::default();
    // Absent from the beginning.
    let mut program = Program::start(folder.path(), &toml, ADMIN).await;
    let (client, _) = served(&program).await;
    let change = async |n: usize, port| {
        let (status, _) = call(&client, port, "POST", "/svm/svms?return_timeout=30", Some(json!({ "name": format!("svm-{n}") }))).await.unwrap();
        assert_eq!(status, 201);
    };
    change(1, program.port).await;
    eventually("operators are told", async || {
        let path = "/support/ems/events?message.name=keystead.audit.collectorAway";
        (call(&client, program.port, "GET", path, None).await.unwrap().1["num_records"] == 1).then_some(())
    })
    .await;
    let listening = collector.listen(port, tls.clone()).await;
    caught_up(&collector, folder.path()).await;
    change(2, program.port).await;
    caught_up(&collector, folder.path()).await;
    settled(folder.path()).await;
    // Away, and back.
    listening.abort();
    let _ = listening.await;
    change(3, program.port).await;
    change(4, program.port).await;
    let listening = collector.listen(port, tls.clone()).await;
    caught_up(&collector, folder.path()).await;
    settled(folder.path()).await;
    // Over a restart of the node, and a kill, without the collector meanwhile.
    listening.abort();
    let _ = listening.await;
    change(5, program.port).await;
    program.signal("-KILL");
    program.child.wait().unwrap();
    drop(program);
    let mut program = Program::start(folder.path(), &toml, ADMIN).await;
    let _listening = collector.listen(port, tls).await;
    caught_up(&collector, folder.path()).await;
    settled(folder.path()).await;

    let numbers = collector.numbers();
    assert_eq!(numbers, (1..=*numbers.last().unwrap()).collect::<Vec<_>>(), "all of it, in order, once");
    let first = collector.messages.lock().unwrap()[0].clone();
    let host = on_disk(folder.path())[0]["node"]["name"].as_str().unwrap().to_owned();
    let head: Vec<&str> = first.splitn(8, ' ').collect();
    assert_eq!((head[0], head[2], head[3], head[4], head[5]), ("<110>1", host.as_str(), "keystead", program_id(&first).as_str(), "audit"), "{first}");
    assert!(head[1].parse::<jiff::Timestamp>().is_ok() && first.contains("[meta sequenceId=\"1\"]"), "{first}");
    for (sent, kept) in collector.records().iter().zip(on_disk(folder.path())) {
        assert_eq!(*sent, kept, "with its hashes: the collector can check the chain by itself");
    }
    assert_eq!(program.stop(), Some(0));
    // What the end itself brings is forwarded too.
    caught_up(&collector, folder.path()).await;
    assert_eq!(collector.records().last().unwrap()["input"], "audit log closed");
}

/// The number of the process, which is digits.
fn program_id(message: &str) -> String {
    let id = message.split(' ').nth(4).unwrap();
    assert!(id.bytes().all(|byte| byte.is_ascii_digit()));
    id.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_comes_and_goes_gets_everything_in_order_once_over_tcp() {
    comes_and_goes("tcp", None, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_comes_and_goes_gets_everything_in_order_once_over_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    comes_and_goes("tls", Some(&made.cert.pem()), Some(Arc::new(config))).await;
}

/// A collector whose certificate nobody vouches for gets nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_another_one_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (real, other) =
        (rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap(), rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap());
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, real.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(other.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![other.cert.der().clone()], key)
        .unwrap();
    let (port, collector) = (free_port(), Collector::default());
    let _listening = collector.listen(port, Some(Arc::new(config))).await;
    let program = Program::start(folder.path(), &format!("[audit.syslog]\naddress = \"127.0.0.1:{port}\"\nca = {ca:?}\n"), ADMIN).await;
    eventually("the certificate is refused", async || program.said().contains("does not take audit records").then_some(())).await;
    assert!(program.said().contains("certificate") && collector.messages.lock().unwrap().is_empty(), "{}", program.said());
}
