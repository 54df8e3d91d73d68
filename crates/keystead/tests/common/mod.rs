//! A node inside the test's own process, with the stand-in for AWS KMS, over the wire.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // Each test file uses a part of it.

pub mod blind;
pub mod caller;
pub mod cluster;
pub mod crash;
pub mod faulty;
pub mod import;
pub mod kmip;
pub mod leaks;
pub mod load;
pub mod metrics;
pub mod objects;
pub mod onboard;
pub mod program;
pub mod relay;
pub mod run;
pub mod scene;
pub mod steps;
pub mod versions;

use async_trait::async_trait;
use keystead::config::Config;
use keystead::serve::{Hooks, node};
use keystead_manager::clock::Clock;
use keystead_testkit::{KmsStandIn, NewKey};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The password of `admin` in nodes of this kind.
pub const PASSWORD: &str = "correct horse battery";
/// The AWS access key that the stand-in knows.
pub const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
/// Its secret.
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// Time that only moves when a test says so. The wall clock follows.
pub struct ManualClock {
    now: watch::Sender<Duration>,
    start: jiff::Timestamp,
    spins: AtomicUsize,
}

impl ManualClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { now: watch::channel(Duration::ZERO).0, start: jiff::Timestamp::now(), spins: AtomicUsize::new(0) })
    }

    /// How often somebody has waited for a moment that had come already.
    pub fn spins(&self) -> usize {
        self.spins.load(Ordering::SeqCst)
    }

    pub fn now(&self) -> Duration {
        *self.now.borrow()
    }

    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now += by);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn utc(&self) -> jiff::Timestamp {
        self.start + jiff::SignedDuration::try_from(self.monotonic()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        *self.now.borrow()
    }

    async fn sleep_until(&self, moment: Duration) {
        if moment <= self.now() {
            self.spins.fetch_add(1, Ordering::SeqCst);
        }
        let _ = self.now.subscribe().wait_for(|now| *now >= moment).await;
    }
}

/// A running node.
pub struct Node {
    pub address: SocketAddr,
    pub ekmip: SocketAddr,
    pub folder: Arc<tempfile::TempDir>,
    pub client: reqwest::Client,
    stop: CancellationToken,
    task: JoinHandle<Result<(), String>>,
}

impl Node {
    /// Starts a node on free ports with a new data folder. `toml` is its configuration file.
    pub async fn start(toml: &str, hooks: Hooks) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), toml, hooks).await.unwrap()
    }

    /// Starts a node in a folder that may have been used before.
    pub async fn start_in(folder: Arc<tempfile::TempDir>, toml: &str, hooks: Hooks) -> Result<Self, String> {
        let mut config: Config = toml::from_str(toml).unwrap();
        config.data_dir = Some(folder.path().join("data"));
        config.listen.get_or_insert_with(|| "127.0.0.1:0".into());
        config.ekmip_listen = Some("127.0.0.1:0".into());
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        config.admin_password_file = Some(password);
        let stop = CancellationToken::new();
        let (ready, address) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(node(config, hooks, stop.clone(), move |address, ekmip| {
            let _ = ready.send((address, ekmip));
        }));
        let Ok((address, ekmip)) = address.await else { return Err(task.await.unwrap().unwrap_err()) };
        let ca = std::fs::read(folder.path().join("data/ca.pem")).unwrap();
        let client = client(&ca);
        Ok(Self { address, ekmip, folder, client, stop, task })
    }

    /// Calls the REST API as `admin`. Answers status, headers and body.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, reqwest::header::HeaderMap, Value) {
        let mut request = self.client.request(method.parse().unwrap(), format!("https://{}/api{path}", self.address)).basic_auth("admin", Some(PASSWORD));
        if let Some(body) = body {
            request = request.body(body.to_string()).header("content-type", "application/json");
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.unwrap();
        (status, headers, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, _, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Makes an SVM, returns its uuid.
    pub async fn svm(&self, name: &str) -> String {
        let (status, _, body) = self.call("POST", "/svm/svms?return_timeout=30&return_records=true", Some(json!({ "name": name }))).await;
        assert_eq!(status, 201, "{body}");
        body["records"][0]["uuid"].as_str().unwrap().to_owned()
    }

    /// Enables AWS KMS and waits for it. Answers status and body.
    pub async fn enable(&self, body: Value) -> (u16, Value) {
        let (status, _, body) = self.call("POST", "/security/aws-kms?return_timeout=60&return_records=true", Some(body)).await;
        (status, body)
    }

    /// A call that answers status and body.
    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let (status, _, body) = self.call(method, path, body).await;
        (status, body)
    }

    /// Stops the node as SIGTERM would.
    pub async fn stop(self) -> Arc<tempfile::TempDir> {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.folder
    }
}

/// A client that believes one CA alone, and leaves the time to the clock of the test.
pub fn client(ca: &[u8]) -> reqwest::Client {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let checks = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(blind::Timeless(checks)))
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(config).no_proxy().build().unwrap()
}

/// The configuration of a node that may speak to a stand-in on the loopback interface, or where else it listens.
pub fn toml_for(kms: &KmsStandIn, folder: &Path) -> String {
    let ca = folder.join("aws-ca.pem");
    std::fs::write(&ca, kms.ca_pem().unwrap()).unwrap();
    let allowed = if kms.addr().ip().is_loopback() { "127.0.0.0/8".to_owned() } else { format!("{}/32", kms.addr().ip()) };
    format!("[aws_kms]\nallow_endpoints = [\"{allowed}\"]\nmin_poll_interval = \"5s\"\nextra_ca = {ca:?}\n")
}

/// The body of an enable with a key of the stand-in.
pub fn enable_body(svm: &str, kms: &KmsStandIn, key_id: &str) -> Value {
    json!({
        "svm": { "name": svm }, "region": "us-east-1", "key_id": key_id, "access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET,
        "host": kms.addr().ip(), "port": kms.addr().port(),
    })
}

/// A stand-in with the access key, and a key.
pub async fn stand_in() -> (KmsStandIn, String) {
    stand_in_with(keystead_testkit::Options::default()).await
}

/// The same with options.
pub async fn stand_in_with(options: keystead_testkit::Options) -> (KmsStandIn, String) {
    let kms = KmsStandIn::start(options).await.unwrap();
    kms.add_access_key(ACCESS_KEY_ID, SECRET);
    let key = kms.create_key(NewKey::default()).unwrap().key_id;
    (kms, key)
}

/// The code of an answer that is an error.
pub fn code(answer: &(u16, Value)) -> String {
    answer.1["error"]["code"].as_str().unwrap_or_else(|| panic!("no error: {answer:?}")).to_owned()
}

/// Waits for a condition, at most a minute: slow machines take their time.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Collects what a test is told from elsewhere.
pub type Log<T> = Arc<Mutex<Vec<T>>>;
