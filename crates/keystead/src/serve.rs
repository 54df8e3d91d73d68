//! `keystead serve`: one node.

use crate::cli::ServeArguments;
use crate::config::Config;
use crate::folder::Folder;
use crate::otlp::Traces;
use crate::{logging, process, seal_source, store_source};
use keystead_audit::disk::{Disk, RealDisk};
use keystead_awskms::{Egress, Environment, EnvironmentOptions, Resolver, SystemResolver};
use keystead_manager::clock::{Clock, SystemClock};
use keystead_manager::passwords::{self, Gate};
use keystead_manager::random::{Random, SystemRandom};
use keystead_manager::steps::{NoSteps, Steps};
use keystead_manager::{FEATURE_LEVEL, Manager, NodeOptions, Options};
use keystead_metrics::{Metrics, Process};
use keystead_store::Store;
use keystead_store::measured::Measured;
use sd_notify::NotifyState;
use secrecy::{ExposeSecret as _, SecretString};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where the REST API listens when nothing is said.
const LISTEN: &str = "127.0.0.1:8443";
/// Where the EKMIP server listens when nothing is said. 5696 is KMIP's port (IANA).
const EKMIP_LISTEN: &str = "127.0.0.1:5696";
/// Open files beside EKMIP connections: connections in their handshake, the REST API, AWS, the store.
const FILES_BESIDE: u64 = 6_000;
/// How many jobs run at a time when nothing is said.
const JOBS: usize = 16;
/// How many jobs may be open when nothing is said: twice what one call can bring.
const OPEN_JOBS: usize = 20_000;

/// What a test can put in place of the real thing. In production all of it is the default.
pub struct Hooks {
    /// Is told of named steps.
    pub steps: Arc<dyn Steps>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers and jitter.
    pub random: Arc<dyn Random>,
    /// Names.
    pub resolver: Arc<dyn Resolver>,
    /// Wraps the store, to make it fail.
    pub store: StoreWrapper,
    /// The disk of the audit log.
    pub audit_disk: Arc<dyn Disk>,
    /// What the node says that it can do, as one of another version would.
    pub feature_level: u32,
}

/// Puts something between the node and its store.
pub type StoreWrapper = Box<dyn FnOnce(Arc<dyn Store>) -> Arc<dyn Store> + Send>;

impl Default for Hooks {
    fn default() -> Self {
        Self {
            steps: Arc::new(NoSteps),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            resolver: Arc::new(SystemResolver),
            store: Box::new(|store| store),
            audit_disk: Arc::new(RealDisk),
            feature_level: FEATURE_LEVEL,
        }
    }
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// One line for the operator.
pub fn run(arguments: Box<ServeArguments>, hooks: Hooks) -> Result<(), String> {
    process::no_core_dumps()?;
    keystead_keyring::give_back_large_allocations();
    let config = Config::load(&arguments, process::variables()?.into_iter())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| format!("no runtime: {error}"))?;
    let name = config.node_name.clone().unwrap_or_else(process::machine_name);
    let traces = Traces::start(&config.tracing, &name, runtime.handle())?;
    logging::start(&config.log, traces.as_ref())?;
    let (files, wanted) = (process::open_files(), u64::try_from(config.ekmip_limits()?.max_connections).unwrap_or(u64::MAX).saturating_add(FILES_BESIDE));
    if files < wanted {
        tracing::warn!(
            files,
            wanted,
            "the system allows fewer open files than [ekmip] max_connections needs; raise the hard limit (LimitNOFILE of systemd, ulimit -Hn)"
        );
    }
    let stop = CancellationToken::new();
    let result = runtime.block_on(async {
        tokio::spawn(stop_on_signal(stop.clone())?);
        process::no_end_by_file_size()?;
        node(config, hooks, stop, |_, _| {}).await
    });
    if let Some(traces) = traces {
        traces.end();
    }
    // What blocks in a thread of its own (a resolver, say) must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Runs a node until `stop`. `ready` gets the addresses of the REST API and of the EKMIP server, once requests are served.
///
/// # Errors
/// One line for the operator.
pub async fn node(config: Config, hooks: Hooks, stop: CancellationToken, ready: impl FnOnce(SocketAddr, SocketAddr)) -> Result<(), String> {
    let path = config.data_dir.clone().ok_or("--data-dir is missing (also data_dir of the configuration file, or KEYSTEAD_DATA_DIR)")?;
    let folder = Folder::open(&path)?;
    let listener = listen("--listen", config.listen.as_deref().unwrap_or(LISTEN)).await?;
    let listen_address = listener.local_addr().map_err(|error| error.to_string())?;
    let ekmip = listen("--ekmip-listen", config.ekmip_listen.as_deref().unwrap_or(EKMIP_LISTEN)).await?;
    let ekmip_address = ekmip.local_addr().map_err(|error| error.to_string())?;
    let metrics = Metrics::new(config.metrics_max_svms()?);
    metrics.register(Process::new(Duration::try_from(hooks.clock.utc().as_duration()).unwrap_or_default()));
    metrics.register(crate::last_backup::LastBackup::of(&path));
    let metrics_listener = match config.metrics_listen()? {
        Some(address) => Some(listen("[metrics] listen", &address.to_string()).await?),
        None => None,
    };
    let (limits, rest_limits) = (config.ekmip_limits()?, config.rest_limits()?);

    if let Some(join) = &config.join {
        crate::invite::join(join, &config, &folder).await?;
    }
    let store_section = store_source::section(&config.store, &path)?;
    let opened = store_source::open(&store_section, &folder).await?;
    let seal = seal_source::open(&config.seal, &path, opened.existed)?;
    let store = Measured::new((hooks.store)(Arc::clone(&opened.store)));
    metrics.register(Arc::clone(store.calls()));

    let settings = config.settings();
    let extra_ca = config.aws_kms.extra_ca.as_deref().map(read_ca).transpose()?;
    let aws = Environment::new(EnvironmentOptions {
        extra_ca,
        egress: Egress::parse(&settings.allow_endpoints).map_err(|error| format!("[aws_kms] allow_endpoints: {error}"))?,
        requests_per_second: settings.requests_per_second,
        resolver: hooks.resolver,
    })
    .map_err(|error| format!("[aws_kms] extra_ca: {error}"))?;
    keystead_manager::check_settings(&settings).map_err(|error| format!("{}: {error}", error.target.as_deref().unwrap_or("configuration")))?;

    let name = config.node_name.clone().unwrap_or_else(process::machine_name);
    let node_uuid = folder.node_uuid()?;
    let audit_interval = crate::audit::interval(&config.audit)?;
    let collector = crate::audit::target(&config.audit.syslog)?;
    let of_node = keystead_audit::Named { uuid: node_uuid, name: name.clone() };
    let audit = crate::audit::open(&config.audit, &folder, of_node, Arc::clone(&hooks.clock), hooks.audit_disk)?;
    let (ekmip_names, ekmip_addresses) = own_names(&name, ekmip_address.ip(), config.ekmip.address.as_deref());
    let options = Options {
        store: Arc::new(store),
        seal,
        adopt_seal: config.seal.adopt.clone(),
        aws,
        clock: hooks.clock,
        random: hooks.random,
        steps: hooks.steps,
        gate: Gate::new(),
        node: NodeOptions {
            uuid: node_uuid,
            name: name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: config.cluster.address.clone().or_else(|| reachable(listen_address)),
            ekmip_address: config.ekmip.address.clone().or_else(|| reachable(ekmip_address)),
            ekmip_names,
            ekmip_addresses,
        },
        settings,
        job_concurrency: config.jobs.concurrency.unwrap_or(JOBS),
        max_open_jobs: config.jobs.max_open.unwrap_or(OPEN_JOBS),
        indexer: Arc::new(keystead_ekmip::index),
        fips_check: Arc::new(keystead_ekmip::fips_refusal),
        algorithm: Arc::new(keystead_ekmip::algorithm),
        ekmip_probe: Arc::new(keystead_ekmip::Probe),
        peers: Arc::new(keystead_rest::NodeClient::default()),
        feature_level: hooks.feature_level,
        audit: audit.clone(),
        audit_interval,
        metrics: metrics.clone(),
    };
    let given = config.admin_password.clone();
    let manager = Manager::start(options, async |gate: &Gate| first_password(given, config.admin_password_file.as_deref(), &folder, gate).await).await?;
    let text = keystead_manager::Error::for_operator;
    let of_store = store_source::client_certificate(&store_section);
    if let Some(Err(why)) = of_store.map(|der| manager.shows_own_certificate(keystead_manager::OwnCertificate::StoreClient, &der)) {
        tracing::warn!(why, "the metrics do not tell when the certificate for etcd ends");
    }
    folder.write("ca.pem", 0o644, manager.ca_certificate().map_err(text)?.as_bytes())?;
    tokio::spawn(keep_ca_file(manager.clone(), path.clone(), stop.clone()));

    let (dns_names, addresses) = own_names(&name, listen_address.ip(), config.cluster.address.as_deref());
    let own = crate::tls::OwnFiles::of(&config.rest)?;
    let tls = crate::tls::of_rest(&manager, dns_names, addresses, own, hangups()?, stop.clone())?;
    tokio::spawn(remove_first_password(manager.clone(), path.clone(), stop.clone()));
    tracing::info!(%listen_address, %ekmip_address, node = name, store = opened.store.describe(), "the REST API and the EKMIP server are served");
    if let Some(listener) = &metrics_listener {
        tracing::info!(address = %listener.local_addr().map_err(|error| error.to_string())?, "/metrics is served without a login");
    }
    ready(listen_address, ekmip_address);
    tell_systemd(NotifyState::Ready);
    // The collector gets the end of the log as well: the records of the jobs' ends, and that it was closed.
    let stop_forwarding = CancellationToken::new();
    let _stop_forwarding = stop_forwarding.clone().drop_guard();
    let forwarding = collector.map(|target| tokio::spawn(keystead_audit::forward::run(audit, target, stop_forwarding.clone())));
    let rest = keystead_rest::serve(listener, tls, manager.clone(), rest_limits, stop.clone());
    let data_plane = async {
        // One without the other is no node.
        keystead_ekmip::serve(ekmip, manager.clone(), limits, stop.clone()).await.inspect_err(|_| stop.cancel())
    };
    // The last: by then the others have registered what they count, and no page is without it.
    let page = async {
        if let Some(listener) = metrics_listener {
            keystead_rest::scrape::serve(listener, metrics, stop.clone()).await;
        }
    };
    let (_, data_plane, ()) = tokio::join!(rest, data_plane, page);
    tracing::info!("stopping");
    tell_systemd(NotifyState::Stopping);
    manager.stop().await;
    stop_forwarding.cancel();
    if let Some(forwarding) = forwarding {
        let _ = forwarding.await;
    }
    opened.close().await;
    data_plane.map_err(text)
}

async fn listen(flag: &str, address: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("{flag} {address}: {error}"))
}

/// The address as others reach it: none, where it is a wildcard.
fn reachable(address: SocketAddr) -> Option<String> {
    (!address.ip().is_unspecified()).then(|| address.to_string())
}

/// The CAs of `extra_ca`, PEM.
///
/// # Errors
/// One line.
pub(crate) fn read_ca(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("[aws_kms] extra_ca {} cannot be read: {error}", path.display()))
}

/// The names and addresses that this node's certificate is for.
fn own_names(name: &str, listen: IpAddr, address: Option<&str>) -> (Vec<String>, Vec<IpAddr>) {
    let mut names = vec!["localhost".to_owned()];
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    let host = address.and_then(|address| address.rsplit_once(':')).map(|(host, _)| host.trim_matches(['[', ']']).to_owned());
    for candidate in [Some(name.to_owned()), host].into_iter().flatten() {
        match candidate.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(candidate),
        }
    }
    if !listen.is_unspecified() {
        addresses.push(listen);
    }
    names.dedup();
    addresses.sort_unstable();
    addresses.dedup();
    (names, addresses)
}

/// The password of `admin` at the first start, hashed: the one that was given, or a new one in `admin-password`.
async fn first_password(given: Option<SecretString>, file: Option<&Path>, folder: &Folder, gate: &Gate) -> Result<String, String> {
    let from_file = |path: &Path| {
        let text = std::fs::read_to_string(path).map_err(|error| format!("admin_password_file {}: {error}", path.display()))?;
        Ok::<_, String>(SecretString::from(text.lines().next().unwrap_or_default()))
    };
    let given = match given {
        Some(password) => Some(password),
        None => file.map(from_file).transpose()?,
    };
    let password = match given {
        Some(password) => {
            passwords::check_policy(&password).map_err(|error| format!("the password of admin: {error}"))?;
            password
        }
        None => {
            let password = passwords::generate();
            folder.write("admin-password", 0o600, format!("{}\n", password.expose_secret()).as_bytes())?;
            tracing::info!(file = %folder.file("admin-password").display(), "made a password for the account admin");
            password
        }
    };
    gate.hash(password).await.map_err(|error| format!("the password of admin cannot be hashed: {error}"))
}

/// `ca.pem` says what is trusted also while the CA is being replaced.
async fn keep_ca_file(manager: Manager, path: std::path::PathBuf, stop: CancellationToken) {
    let mut changes = manager.changes();
    let mut written = manager.ca_certificate().ok();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        let Some(now) = manager.ca_certificate().ok().filter(|now| written.as_ref() != Some(now)) else { continue };
        match crate::folder::write_whole(&path.join("ca.pem"), 0o644, now.as_bytes()) {
            Ok(()) => written = Some(now),
            Err(error) => tracing::error!(%error, "ca.pem cannot be written; it is tried again with the next change"),
        }
    }
}

/// A generated password is no longer true when it was changed.
async fn remove_first_password(manager: Manager, folder: std::path::PathBuf, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = manager.admin_password_changed() => {}
        }
        let path = folder.join("admin-password");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!(%error, file = %path.display(), "the old password's file cannot be removed; remove it")
            }
            _ => {}
        }
    }
}

/// Changes with each SIGHUP: what the configuration names is to be read again.
fn hangups() -> Result<watch::Receiver<()>, String> {
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| format!("signals cannot be caught: {error}"))?;
    let (sender, receiver) = watch::channel(());
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = async { while hangup.recv().await.is_some() { sender.send_replace(()); } } => {}
        }
    });
    Ok(receiver)
}

/// Tells systemd, where it has started this process and waits for that.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told how far this node is");
    }
}

fn stop_on_signal(stop: CancellationToken) -> Result<impl Future<Output = ()> + Send, String> {
    let failed = |error: std::io::Error| format!("signals cannot be caught: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    })
}
