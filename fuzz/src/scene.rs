//! Where sessions happen: a key manager on a store in a temporary folder, with two SVMs whose KEKs AWS KMS (the stand-in) has wrapped.
//!
//! Time and identifiers are the scene's own, so that an input does the same each time.

use crate::messages::{Item, one};
use async_trait::async_trait;
use keystead_audit::disk::RealDisk;
use keystead_audit::{Audit, Named};
use keystead_awskms::{Egress, Environment, EnvironmentOptions, SystemResolver};
use keystead_kmip::attribute::Attribute;
use keystead_kmip::ttlv::{Node, Value, decode};
use keystead_kmip::{Tag, Version};
use keystead_manager::clock::Clock;
use keystead_manager::model::{AwsKmsSettings, EnableRequest, JobState, Principal, Role, SvmSelector};
use keystead_manager::passwords::Gate;
use keystead_manager::random::Random;
use keystead_manager::settings::Settings;
use keystead_manager::steps::NoSteps;
use keystead_manager::{Answer, Manager, NodeIdentity, NodeOptions, Options, Peers, Question, SealSource};
use keystead_store::sqlite::SqliteStore;
use keystead_testkit::{KmsStandIn, NewKey};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use uuid::Uuid;
use zeroize::Zeroizing;

/// The time at which every session starts: 1 January 2026, in seconds since 1970.
pub const NOW: i64 = 1_767_225_600;
/// The number of the identifier that stands for the other SVM's object.
pub const FOREIGN: u8 = 255;
/// Its secret and its name, which no answer may show.
pub const FOREIGN_MARKS: [&str; 2] = ["the secret of the other SVM", "the name in the other SVM"];

const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// AWS KMS, for all scenes of a process.
pub struct Aws {
    kms: KmsStandIn,
    key: String,
}

impl Aws {
    pub async fn start() -> Self {
        let kms = KmsStandIn::start(keystead_testkit::Options::default()).await.unwrap();
        kms.add_access_key(ACCESS_KEY_ID, SECRET);
        let key = kms.create_key(NewKey::default()).unwrap().key_id;
        Self { kms, key }
    }
}

/// The clocks: the wall clock goes as sessions say. Nothing is polled, since what polls count on stands still.
#[derive(Default)]
pub struct OwnClock {
    passed: AtomicI64,
}

impl OwnClock {
    pub fn start_again(&self) {
        self.passed.store(0, Ordering::SeqCst);
    }

    pub fn pass(&self, seconds: u32) {
        self.passed.fetch_add(seconds.into(), Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for OwnClock {
    fn utc(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(NOW + self.passed.load(Ordering::SeqCst)).unwrap_or(jiff::Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep_until(&self, moment: Duration) {
        if !moment.is_zero() {
            std::future::pending::<()>().await;
        }
    }
}

/// Identifiers: the number of the session in the first group, and which one of it in the last.
#[derive(Default)]
pub struct OwnRandom {
    session: AtomicU64,
    next: AtomicU64,
}

impl OwnRandom {
    /// The prefix of the identifiers of the next session.
    pub fn next_session(&self) -> String {
        self.next.store(0, Ordering::SeqCst);
        format!("{:08x}", self.session.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

impl Random for OwnRandom {
    fn uuid(&self) -> Uuid {
        let next = self.next.fetch_add(1, Ordering::SeqCst) + 1;
        Uuid::from_u128((u128::from(self.session.load(Ordering::SeqCst)) << 96) | u128::from(next))
    }

    fn jitter(&self) -> f64 {
        0.5
    }
}

struct SealKey;

#[async_trait]
impl SealSource for SealKey {
    async fn fetch(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        Ok(Zeroizing::new(vec![1; 32]))
    }

    fn describe(&self) -> String {
        "the seal key of the fuzz target".to_owned()
    }
}

/// The scene has one node.
struct Alone;

#[async_trait]
impl Peers for Alone {
    async fn ask(&self, address: &str, _: &(dyn Fn() -> keystead_manager::Result<NodeIdentity> + Sync), _: &Question) -> Result<Answer, String> {
        Err(format!("nobody is at {address}"))
    }
}

/// A running key manager.
pub struct Scene {
    pub manager: Manager,
    pub clock: Arc<OwnClock>,
    pub random: Arc<OwnRandom>,
    /// The SVM of the client.
    pub svm: Uuid,
    /// The identifier of an object of another SVM.
    pub foreign: String,
    store: Arc<SqliteStore>,
    _folder: tempfile::TempDir,
}

impl Scene {
    pub async fn start(aws: &Aws) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&folder.path().join("store.db")).await.unwrap());
        let (clock, random) = (Arc::new(OwnClock::default()), Arc::new(OwnRandom::default()));
        let settings = Settings { allow_endpoints: vec!["127.0.0.0/8".to_owned()], ..Settings::default() };
        let environment = EnvironmentOptions {
            extra_ca: aws.kms.ca_pem().map(str::to_owned),
            egress: Egress::parse(&settings.allow_endpoints).unwrap(),
            requests_per_second: settings.requests_per_second,
            resolver: Arc::new(SystemResolver),
        };
        let options = Options {
            store: store.clone(),
            seal: Arc::new(SealKey),
            adopt_seal: None,
            aws: Environment::new(environment).unwrap(),
            clock: clock.clone(),
            random: random.clone(),
            steps: Arc::new(NoSteps),
            gate: Gate::new(),
            node: NodeOptions {
                uuid: Uuid::from_u128(1 << 64),
                name: "fuzz".to_owned(),
                version: "0".to_owned(),
                address: Some("127.0.0.1:1".to_owned()),
                ekmip_address: Some("127.0.0.1:2".to_owned()),
                ekmip_names: vec!["localhost".to_owned()],
                ekmip_addresses: vec![IpAddr::from(Ipv4Addr::LOCALHOST)],
            },
            settings,
            job_concurrency: 1,
            max_open_jobs: 1_000,
            indexer: Arc::new(keystead_ekmip::index),
            fips_check: Arc::new(keystead_ekmip::fips_refusal),
            algorithm: Arc::new(keystead_ekmip::algorithm),
            ekmip_probe: Arc::new(keystead_ekmip::Probe),
            peers: Arc::new(Alone),
            feature_level: keystead_manager::FEATURE_LEVEL,
            audit: audit_log(folder.path(), clock.clone()),
            audit_interval: Duration::from_secs(60),
            metrics: keystead_metrics::Metrics::default(),
        };
        // Nobody logs in.
        let manager = Manager::start(options, async |_: &Gate| Ok("no password".to_owned())).await.unwrap();
        let svm = enabled(&manager, aws, "svm1").await;
        let other = enabled(&manager, aws, "svm2").await;
        let [secret, name] = FOREIGN_MARKS;
        let foreign = made(&manager, other, crate::messages::register_password(secret.as_bytes(), &[Attribute::name(name)])).await;
        Self { manager, clock, random, svm, foreign, store, _folder: folder }
    }

    pub async fn stop(self) {
        self.manager.stop().await;
        self.store.close().await;
    }
}

/// What clients do is recorded, as on a node.
fn audit_log(folder: &Path, clock: Arc<OwnClock>) -> Audit {
    let options = keystead_audit::Options {
        folder: folder.join("audit"),
        node: Named { uuid: Uuid::from_u128(1 << 64), name: "fuzz".to_owned() },
        version: "0".to_owned(),
        max_file_size: 1 << 24,
        files: 2,
        strict: false,
        now: Arc::new(move || clock.utc()),
        disk: Arc::new(RealDisk),
    };
    Audit::open(options).unwrap()
}

/// A new SVM with AWS KMS enabled.
async fn enabled(manager: &Manager, aws: &Aws, name: &str) -> Uuid {
    let admin = Principal { name: "admin".to_owned(), role: Role::Admin };
    let svm = manager.create_svm(&admin, name, "").await.unwrap().resource;
    let settings = AwsKmsSettings {
        region: "us-east-1".to_owned(),
        key_id: aws.key.clone(),
        access_key_id: Some(ACCESS_KEY_ID.to_owned()),
        encryption_context: None,
        service: "kms".to_owned(),
        default_domain: "amazonaws.com".to_owned(),
        host: Some("127.0.0.1".to_owned()),
        port: aws.kms.addr().port(),
        polling_period: 55,
        timeout: 20,
        verify: true,
        verify_host: true,
        verify_ip: true,
        proxy: None,
        access_error_grace: None,
        max_unverified: None,
        ca_certificates: None,
        credentials_source: None,
    };
    let request = EnableRequest {
        svm: SvmSelector { uuid: Some(svm), name: None },
        settings,
        secret_access_key: Some(SECRET.to_owned().into()),
        proxy_password: None,
        skip_verify: false,
        migrate_keys: false,
    };
    let accepted = manager.enable_aws_kms(&admin, request).await.unwrap();
    let job = manager.wait_job(accepted.job, Duration::from_secs(60)).await.unwrap();
    assert_eq!(job.state, JobState::Success, "{job:?}");
    manager.keys(svm).usable().unwrap();
    aws.kms.clear_calls();
    svm
}

/// The identifier of a new object.
async fn made(manager: &Manager, svm: Uuid, (operation, payload): Item) -> String {
    let request = crate::frames::join(&[one(Version::V1_4, operation, payload)]);
    let answer = keystead_ekmip::answer_bytes(manager, svm, &request).await;
    let answer = decode(&answer).unwrap();
    let id = answer.find(Tag::BatchItem).and_then(|item| item.find(Tag::ResponsePayload)).and_then(|payload| payload.find(Tag::UniqueIdentifier));
    match id {
        Some(Node { value: Value::TextString(id), .. }) => id.to_string(),
        _ => panic!("the object was not made: {answer:?}"),
    }
}
