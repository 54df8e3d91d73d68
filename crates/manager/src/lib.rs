//! The key manager: SVMs, AWS KMS configurations, jobs, and what keeps them true.
//!
//! One file a resource ([`svms`](Manager::create_svm), [`aws_kms`](Manager::enable_aws_kms), cluster, accounts), one file a job (`jobs/`), one file a reconciler (`poll`). Nothing
//! here knows HTTP, KMIP or SQL.
//!
//! [`Manager`] is a cheap handle. [`Manager::start`] makes or opens the cluster and starts the background tasks; [`Manager::stop`] ends them.

pub mod account_reset;
mod accounts;
mod approved;
mod audit;
mod aws;
mod aws_kms;
pub mod backup;
mod ca_rotation;
mod certificate_authority;
mod certificate_signing;
pub mod certificates;
pub mod clients;
pub mod clock;
mod cluster;
mod configs;
mod credentials;
mod csr;
mod endpoints;
mod error;
pub mod events;
mod evidence;
pub mod fips;
mod forge;
mod glance;
mod held;
mod inner;
pub mod invitation;
mod jobs;
mod key_managers;
pub mod keys;
mod lanes;
pub mod login_cas;
mod looks;
mod metrics;
pub mod model;
pub mod onboard;
mod passphrase;
pub mod passwords;
mod peers;
mod poll;
mod preflight;
mod presence;
mod proxies;
pub mod random;
mod reachability;
mod records;
pub mod revocation;
mod rotation;
mod seal;
pub mod security_certificates;
mod server_certificates;
pub mod sessions;
pub mod settings;
pub mod signing_requests;
mod standing;
pub mod steps;
mod svms;
mod unlocked;
mod view;
pub mod x509;

pub use accounts::{ADMIN, Login, SYSTEM};
pub use ca_rotation::{CaCertificate, CaStep, ClusterCa};
pub use cluster::{AWS_KMS_FEATURE_LEVEL, FEATURE_LEVEL, Founding, ONBOARD_FEATURE_LEVEL, check as check_settings};
pub use error::{Code, Error, Result};
pub use jobs::bulk::BulkItem;
pub use jobs::table::JobAction;
pub use keystead_store::Revision;
pub use looks::Freshness;
pub use peers::{Answer, NODE_URI, NodeIdentity, Peers, Question};
pub use reachability::EkmipProbe;
pub use seal::{MOST_SEAL_KEYS, Seal, SealSource};
pub use server_certificates::ServerIdentity;

use crate::clock::Clock;
use crate::events::queue::EventQueue;
use crate::inner::Inner;
use crate::jobs::runner::{self, Runner};
use crate::model::NodeRef;
use crate::passwords::Gate;
use crate::poll::Polls;
use crate::random::Random;
use crate::records::{ClusterRecord, NodeRecord};
use crate::settings::Settings;
use crate::steps::Steps;
use crate::view::View;
use keystead_audit::Audit;
use keystead_awskms::Environment;
use keystead_keyring::Keyring;
use keystead_metrics::Metrics;
use keystead_store::Store;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// What a key manager is made from.
pub struct Options {
    /// Where records live.
    pub store: Arc<dyn Store>,
    /// Where the seal key comes from.
    pub seal: Arc<dyn SealSource>,
    /// The operator's word that the seal key of the store is lost: the code that the start has given.
    pub adopt_seal: Option<String>,
    /// The way to AWS.
    pub aws: Environment,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers and jitter.
    pub random: Arc<dyn Random>,
    /// Who is told of named steps.
    pub steps: Arc<dyn Steps>,
    /// Checks and makes passwords.
    pub gate: Gate,
    /// This node.
    pub node: NodeOptions,
    /// The settings of the configuration file: they count when the cluster is made.
    pub settings: Settings,
    /// How many jobs run at a time on this node.
    pub job_concurrency: usize,
    /// How many jobs may be open, queued and running together.
    pub max_open_jobs: usize,
    /// Names the terms that keys are found by, from their attributes.
    pub indexer: keys::Indexer,
    /// Says what FIPS mode would refuse of a key, from its attributes.
    pub fips_check: fips::KeyCheck,
    /// Says which algorithm a key is for, from its attributes.
    pub algorithm: keys::Describer,
    /// Speaks KMIP to the EKMIP servers of the cluster.
    pub ekmip_probe: Arc<dyn EkmipProbe>,
    /// Carries questions to other nodes.
    pub peers: Arc<dyn Peers>,
    /// What this node can do: [`FEATURE_LEVEL`], or less in tests of clusters whose nodes are not all of one version.
    pub feature_level: u32,
    /// Where it is recorded who did what.
    pub audit: Audit,
    /// How often what was counted is recorded.
    pub audit_interval: std::time::Duration,
    /// Where the key manager, and what it is made from, puts its metrics.
    pub metrics: Metrics,
}

/// What a node says of itself.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The identifier, the same at every start.
    pub uuid: Uuid,
    /// The name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// The cluster-network address, `host:port`.
    pub address: Option<String>,
    /// Where EKMIP clients reach it, `host:port`.
    pub ekmip_address: Option<String>,
    /// The names that the certificate of the EKMIP server is for.
    pub ekmip_names: Vec<String>,
    /// The addresses that it is for.
    pub ekmip_addresses: Vec<std::net::IpAddr>,
}

/// How long a stop waits for the background tasks at the most: a little longer than for jobs.
const STOP: std::time::Duration = std::time::Duration::from_secs(30);

/// The key manager of this node. Cheap to clone.
#[derive(Clone)]
pub struct Manager {
    inner: Arc<Inner>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Ends the writer of events, after all those who raise them.
    stop_writer: CancellationToken,
    writer: TaskTracker,
}

impl Manager {
    /// Opens the cluster of the store, or makes it in an empty one; then starts to run jobs and to poll AWS. AWS is not waited for.
    ///
    /// `admin_password_hash` is called once, when the cluster is made, for the account `admin`.
    ///
    /// # Errors
    /// A text for the operator: the seal key cannot be had or is another one, the store is damaged or refuses.
    pub async fn start(
        options: Options,
        admin_password_hash: impl AsyncFnOnce(&Gate) -> std::result::Result<String, String>,
    ) -> std::result::Result<Self, String> {
        let text = |error: Error| error.detail.unwrap_or(error.message);
        let seal = Seal::open(Arc::clone(&options.seal)).await?;
        let founding = async || {
            cluster::check(&options.settings)?;
            let admin_password_hash = admin_password_hash(&options.gate).await.map_err(Error::unexpected)?;
            Ok(Founding { settings: options.settings.clone(), admin_password_hash })
        };
        let view = View::load(Arc::clone(&options.store), options.indexer).await.map_err(text)?;
        let known = view.contains(&records::key::<ClusterRecord>(""));
        let made = !known && cluster::found(&*options.store, &seal, options.clock.utc(), founding).await.map_err(text)?;
        if !known {
            view.reload().await.map_err(text)?;
        }
        if cluster::check_seal(&view, &*options.store, &seal, options.clock.utc(), options.adopt_seal.as_deref(), &*options.steps).await? {
            view.reload().await.map_err(text)?;
        }
        let cluster = view.only::<ClusterRecord>().map_err(text)?;
        let stored = view.only::<Settings>().map_err(text)?.record;
        for name in stored.differences(&options.settings) {
            tracing::warn!(
                setting = name,
                "the configuration file differs from the cluster; the cluster's value counts (PATCH /security/ekmip/settings changes it)"
            );
        }
        if made {
            tracing::info!(cluster = %cluster.record.uuid, name = stored.cluster_name, "made a new cluster");
        }

        let node = NodeRecord {
            uuid: options.node.uuid,
            name: options.node.name.clone(),
            version: options.node.version,
            feature_level: options.feature_level,
            address: options.node.address,
            ekmip_address: options.node.ekmip_address,
            started: options.clock.utc(),
        };
        let events = EventQueue::load(&*options.store, node.uuid).await.map_err(text)?;
        let inner = Arc::new(Inner {
            store: options.store,
            view,
            keyring: Keyring::new(),
            seal,
            clock: options.clock,
            random: options.random,
            steps: options.steps,
            node: NodeRef { uuid: node.uuid, name: options.node.name },
            aws: aws::Aws::new(options.aws),
            runner: Runner::new(options.job_concurrency, options.max_open_jobs),
            polls: Polls::default(),
            presence: presence::Presence::new(node),
            configs: configs::Configs::default(),
            events,
            gate: options.gate,
            sessions: sessions::Sessions::new(),
            fips: fips::FipsMode::default(),
            fips_check: options.fips_check,
            ekmip_probe: options.ekmip_probe,
            ekmip_names: options.node.ekmip_names,
            ekmip_addresses: options.node.ekmip_addresses,
            peers: options.peers,
            state_looks: Default::default(),
            amazon_looks: Default::default(),
            own_amazon_looks: Default::default(),
            ekmip_looks: Default::default(),
            check_looks: Default::default(),
            misses: tokio::sync::Semaphore::new(keys::MISSES_AT_A_TIME),
            scans: Arc::new(tokio::sync::Semaphore::new(keys::SCANS_AT_A_TIME)),
            passphrases: tokio::sync::Semaphore::new(1),
            forge: forge::Forge::new(),
            algorithm: options.algorithm,
            left_behind: tokio::sync::Notify::new(),
            admin_password_changed: tokio::sync::Notify::new(),
            audit: options.audit,
            counted: metrics::Counted::new(),
            metrics: options.metrics,
        });
        metrics::register(&inner.metrics, &inner);
        let manager = Self {
            inner: Arc::clone(&inner),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            stop_writer: CancellationToken::new(),
            writer: TaskTracker::new(),
        };
        manager.tasks.spawn(Arc::clone(&inner.view).follow(manager.stop.clone()));
        presence::enter(&inner).await.map_err(text)?;
        inner.apply_settings();
        server_certificates::begin(&inner).await;
        manager.writer.spawn(events::writer::run(Arc::clone(&inner), manager.stop_writer.clone()));
        manager.tasks.spawn(presence::run(Arc::clone(&inner), manager.stop.clone()));
        manager.tasks.spawn(runner::run(Arc::clone(&inner), manager.stop.clone()));
        manager.tasks.spawn(poll::run(Arc::clone(&inner), manager.stop.clone()));
        manager.tasks.spawn(audit::write_sums(Arc::clone(&inner), options.audit_interval, manager.stop.clone()));
        manager.tasks.spawn(audit::tell(Arc::clone(&inner), manager.stop.clone()));
        manager.tasks.spawn(clients::watch_expiry(Arc::clone(&inner), manager.stop.clone()));
        manager.tasks.spawn(server_certificates::renew_ekmip_certificates(Arc::clone(&inner), manager.stop.clone()));
        manager.tasks.spawn(seal::follow(Arc::clone(&inner), manager.stop.clone()));
        manager.tasks.spawn(fips::follow(inner, manager.stop.clone()));
        Ok(manager)
    }

    /// Ends the background tasks: running jobs are waited for, within a limit. What they have not finished goes on after the next start.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!("the node stops although some of its work has not ended: the store or the network does not answer");
        }
        self.stop_writer.cancel();
        self.writer.close();
        self.writer.wait().await;
        for owner in self.inner.keyring.svms() {
            self.inner.keyring.forget(owner);
        }
        self.inner.audit.close().await;
    }

    /// This node.
    pub fn node(&self) -> &NodeRef {
        &self.inner.node
    }

    /// Where it is recorded who did what.
    pub fn audit(&self) -> &Audit {
        &self.inner.audit
    }

    /// The metrics of this node.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The wall clock of this node.
    pub fn now(&self) -> jiff::Timestamp {
        self.inner.clock.utc()
    }

    /// Time since some fixed moment of this process, for durations.
    pub fn monotonic(&self) -> std::time::Duration {
        self.inner.clock.monotonic()
    }

    /// Returns when the password of `admin` has been changed.
    pub async fn admin_password_changed(&self) {
        self.inner.admin_password_changed.notified().await;
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}
