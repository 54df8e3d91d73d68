//! The server: accepts connections within its limits, and shakes hands off the accept loop.

use crate::audit;
use crate::clients::Clients;
use crate::door::{Door, Guest};
use crate::identity::{Identities, follow};
use crate::metrics::{Counted, Metrics, Refused};
use crate::session::{Session, Shared};
use keystead_manager::fips::{tls_can_be_fips, tls_is_fips, tls_provider};
use keystead_manager::{Error, Manager, Revision, ServerIdentity};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use secrecy::ExposeSecret as _;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// How long a stop waits for requests that are being served.
const DRAIN: Duration = Duration::from_secs(10);
/// The pause after the system has no descriptors or memory for another connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The pause after a certificate of the server's own could not be used.
const UNUSABLE: Duration = Duration::from_secs(60);

/// What clients may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, in bytes.
    pub max_message_size: usize,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections of one SVM's clients together.
    pub max_connections_per_svm: usize,
    /// Connections with one certificate.
    pub max_connections_per_client: usize,
    /// From the connection to the end of the handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a message to its last, and as long for the client to take the answer.
    pub message_timeout: Duration,
    /// Without a request.
    pub idle_timeout: Duration,
    /// Whether clients may use Interop and Log, which tests of conformance ask for: no limit, but as the limits it is the same for all clients.
    pub interop: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_size: 1024 * 1024,
            max_connections: 1_024,
            max_connections_per_svm: 512,
            max_connections_per_client: 256,
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
            // Storage keeps its connection open and asks once a day.
            idle_timeout: Duration::from_secs(24 * 60 * 60),
            interop: false,
        }
    }
}

/// Serves until `stop`; then lets running requests end, within a limit.
///
/// # Errors
/// The list of clients or this node's certificate cannot be had.
pub async fn serve(listener: TcpListener, manager: Manager, limits: Limits, stop: CancellationToken) -> Result<(), Error> {
    let identities = follow(&manager, stop.clone())?;
    // Read before the certificate: one that is made meanwhile is then taken over, and not missed.
    let known = manager.ekmip_certificate_revision();
    let certificate = Arc::new(Certificate(RwLock::new(certified(&manager.ekmip_identity()?)?)));
    let configs = Configs { all: tls(&identities, &certificate, false)?, fips: tls(&identities, &certificate, true)? };
    let (fresh, shown) = mpsc::channel(1_024);
    let sessions = TaskTracker::new();
    sessions.spawn(renew(manager.clone(), Arc::clone(&certificate), known, stop.clone()));
    sessions.spawn(crate::session::note_shown(manager.clone(), shown, stop.clone()));
    let (clients, counted) = (Arc::new(Clients::new()), Arc::new(Counted::default()));
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    manager.metrics().register(Metrics {
        counted: Arc::clone(&counted),
        slots: Arc::clone(&slots),
        most: limits.max_connections,
        clients: Arc::clone(&clients),
        identities: identities.clone(),
        max_svms: manager.metrics().max_svms(),
    });
    let shared = Arc::new(Shared { manager, identities, limits: limits.clone(), fresh, stop: stop.clone(), clients, counted });
    let door = Arc::new(Door::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "an EKMIP connection could not be accepted");
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            }
        };
        // Looked at before the mode, and so never too late for a connection that it would not have agreed upon.
        let turned_on = shared.manager.fips_turned_on();
        let (config, turned_on) = if shared.manager.fips() { (&configs.fips, None) } else { (&configs.all, Some(turned_on)) };
        let config = Arc::clone(config);
        let (shared, slots) = (Arc::clone(&shared), Arc::clone(&slots));
        let guest = door.enter(peer.ip(), Instant::now());
        sessions.spawn(async move {
            connection((stream, peer), config, shared, guest, slots, turned_on)
                .await
                .unwrap_or_else(|why| tracing::debug!(%peer, why, "an EKMIP connection has ended"));
        });
    }
    drop(shared);
    sessions.close();
    if tokio::time::timeout(DRAIN, sessions.wait()).await.is_err() {
        tracing::warn!(connections = sessions.len(), "EKMIP connections are still open at the stop");
    }
    Ok(())
}

/// What TLS may agree upon, in FIPS mode and out of it.
struct Configs {
    all: Arc<ServerConfig>,
    fips: Arc<ServerConfig>,
}

async fn connection(
    (stream, peer): (TcpStream, SocketAddr),
    config: Arc<ServerConfig>,
    shared: Arc<Shared>,
    guest: Guest,
    slots: Arc<Semaphore>,
    turned_on: Option<CancellationToken>,
) -> Result<(), String> {
    // Without it an answer waits for the client's acknowledgement of the one before: 40 ms.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (stream, able) = tokio::select! {
        shaken = tokio::time::timeout(shared.limits.handshake_timeout, shaken(stream, config)) => {
            let shaken = shaken.map_err(|_| "the handshake took too long".to_owned()).and_then(|shaken| shaken.map_err(|error| {
                audit::no_handshake(&shared.manager, peer, &error);
                format!("handshake: {error}")
            }));
            shaken.inspect_err(|_| shared.counted.refused(Refused::Handshake))?
        }
        () = guest.shown_out() => {
            shared.counted.refused(Refused::Handshake);
            return Err("too many connections are in their handshake".to_owned());
        }
    };
    drop(guest);
    let Ok(_slot) = slots.try_acquire() else {
        audit::refused(&shared.manager, None, peer, "max_connections is reached");
        shared.counted.refused(Refused::Limit);
        tracing::warn!(limit = shared.limits.max_connections, "an EKMIP connection was refused: max_connections is reached");
        return Err("too many connections".to_owned());
    };
    let tls = stream.get_ref().1;
    let (suite, group) = (tls.negotiated_cipher_suite(), tls.negotiated_key_exchange_group());
    let good = tls_is_fips(tls.protocol_version(), suite.map(|suite| suite.suite()), group.map(|group| group.name()));
    Session::run(stream, peer, shared, turned_on.filter(|_| !good), able).await
}

/// Shakes hands. Answers as well whether the client could agree with FIPS mode.
async fn shaken(stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<(TlsStream<TcpStream>, bool)> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let able = tls_can_be_fips(start.client_hello().cipher_suites(), start.client_hello().named_groups());
    Ok((start.into_stream(config).await?, able))
}

fn tls(identities: &watch::Receiver<Arc<Identities>>, certificate: &Arc<Certificate>, fips: bool) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(tls_provider(fips));
    let verifier = Arc::new(Verifier { identities: identities.clone(), provider: Arc::clone(&provider) });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::unexpected)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(certificate) as Arc<dyn ResolvesServerCert>);
    // A ticket holds the session with the client's certificate, so that the server keeps none; who it is is decided anew each time.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(Error::unexpected)?;
    config.require_ems = fips;
    Ok(Arc::new(config))
}

/// Checks clients against the CAs of the moment.
#[derive(Debug)]
struct Verifier {
    identities: watch::Receiver<Arc<Identities>>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identities")
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // The list changes while the server runs, and a client has one certificate for it anyway.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let identities = Arc::clone(&self.identities.borrow());
        identities.admit(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// This node's certificate, which is replaced while the server runs.
#[derive(Debug)]
struct Certificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Takes a renewed certificate over. `known`: that of the one which is shown.
async fn renew(manager: Manager, certificate: Arc<Certificate>, mut known: Option<Revision>, stop: CancellationToken) {
    let mut changes = manager.changes();
    let mut failed = false;
    loop {
        let now = manager.ekmip_certificate_revision();
        if now != known || failed {
            known = now;
            let new = manager.ekmip_identity().and_then(|identity| certified(&identity));
            failed = new.is_err();
            match new {
                Ok(new) => {
                    *certificate.0.write().unwrap_or_else(PoisonError::into_inner) = new;
                    tracing::info!("the EKMIP server has a new certificate");
                }
                Err(error) => {
                    tracing::error!(%error, detail = error.detail.as_deref(), "the new certificate of the EKMIP server cannot be used; it is tried again")
                }
            }
        }
        // One that cannot be used is tried again after a pause, and not at each change of whatever record.
        let changed = async {
            while changes.changed().await.is_ok() {
                if manager.ekmip_certificate_revision() != known {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed => {}
            () = tokio::time::sleep(UNUSABLE), if failed => {}
        }
    }
}

fn certified(identity: &ServerIdentity) -> Result<Arc<CertifiedKey>, Error> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate_chain.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(Error::unexpected)?;
    let key = PrivateKeyDer::from_pem_slice(identity.private_key.expose_secret().as_bytes()).map_err(Error::unexpected)?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(Error::unexpected)?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

/// An object that was handed out while it was fresh.
pub(crate) type Shown = (Uuid, Uuid);
