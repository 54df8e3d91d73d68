//! TLS of the REST API: this node's certificate, which is made anew while the node runs, or the operator's own, which is read again when its files change; and what may be agreed upon.

use keystead_manager::fips::tls_provider;
use keystead_manager::{Manager, OwnCertificate, ServerIdentity};
use keystead_rest::Vouchers;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use secrecy::ExposeSecret as _;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// How often the files of an own certificate are looked at; a SIGHUP has them looked at at once.
const LOOK: Duration = Duration::from_secs(10);

/// The files of a certificate of the operator's own: `[rest] certificate` and `key`.
pub struct OwnFiles {
    certificate: PathBuf,
    key: PathBuf,
}

impl OwnFiles {
    /// Those that the configuration names.
    ///
    /// # Errors
    /// One line: one of the two is missing.
    pub fn of(rest: &crate::config::Rest) -> Result<Option<Self>, String> {
        match (&rest.certificate, &rest.key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(Self { certificate: certificate.clone(), key: key.clone() })),
            _ => Err("[rest] certificate and key belong together".to_owned()),
        }
    }

    /// What stands in them now.
    fn read(&self) -> Result<Arc<CertifiedKey>, String> {
        let failed = |name: &str, path: &Path, error: std::io::Error| format!("[rest] {name} {} cannot be read: {error}", path.display());
        let mode = std::fs::metadata(&self.key).map_err(|error| failed("key", &self.key, error))?.mode();
        if mode & 0o007 != 0 {
            return Err(format!("[rest] key {} can be read by everybody (mode {:o}); set it to 600", self.key.display(), mode & 0o777));
        }
        let certificate = std::fs::read(&self.certificate).map_err(|error| failed("certificate", &self.certificate, error))?;
        let key = Zeroizing::new(std::fs::read(&self.key).map_err(|error| failed("key", &self.key, error))?);
        let wrong = |why: &dyn std::fmt::Display| format!("[rest] certificate {} with key {}: {why}", self.certificate.display(), self.key.display());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
        let chain = chain.map_err(|error| wrong(&error))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong(&error))?;
        CertifiedKey::from_der(chain, key, &tls_provider(false)).map(Arc::new).map_err(|error| wrong(&error))
    }

    /// What changes with them.
    fn mark(&self) -> Option<[(u64, u64, i64, i64); 2]> {
        let of = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec()));
        Some([of(&self.certificate)?, of(&self.key)?])
    }

    /// Reads them again when they change, until `stop`. What cannot be used is told, and the certificate before stays.
    async fn follow(self, manager: Manager, shown: Arc<Certificate>, mut again: watch::Receiver<()>, stop: CancellationToken) {
        let (mut mark, mut told) = (None, None);
        loop {
            // First of all: they may have changed since they were read.
            let now = self.mark();
            if now.is_none() || now != mark {
                match self.read() {
                    Ok(certified) => {
                        if mark.is_some() {
                            tracing::info!(certificate = %self.certificate.display(), "the REST API has a new certificate");
                        }
                        shown.show(&manager, certified);
                        (mark, told) = (now, None);
                    }
                    // One of the two may be written a moment before the other.
                    Err(why) if told.as_ref() != Some(&why) => {
                        tracing::warn!(why, "the certificate of the REST API stays as it was");
                        told = Some(why);
                    }
                    Err(_) => {}
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = again.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

/// TLS of the REST API, with a certificate of the cluster's CA for these names and addresses, or the operator's own. `again` changes when the files of that are to be looked at.
///
/// # Errors
/// One line for the operator.
pub fn of_rest(
    manager: &Manager,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    own: Option<OwnFiles>,
    again: watch::Receiver<()>,
    stop: CancellationToken,
) -> Result<keystead_rest::Tls, String> {
    let first = manager.server_identity(names.clone(), addresses.clone()).map_err(keystead_manager::Error::for_operator)?;
    let certificate = Arc::new(Certificate { of_cluster: RwLock::new(certified(&first)?), own: RwLock::new(None) });
    if let Some(own) = own {
        certificate.show(manager, own.read()?);
        tokio::spawn(own.follow(manager.clone(), Arc::clone(&certificate), again, stop.clone()));
    }
    let vouchers = Vouchers::new(manager.clone());
    let tls = keystead_rest::Tls {
        all: config(&certificate, &vouchers, false)?,
        fips: config(&certificate, &vouchers, true)?,
        certificate: Arc::new(OfCluster(Arc::clone(&certificate))),
        vouchers,
    };
    let manager = manager.clone();
    tokio::spawn(async move {
        let take_over = |new: &ServerIdentity| {
            *certificate.of_cluster.write().unwrap_or_else(PoisonError::into_inner) = certified(new)?;
            Ok(())
        };
        manager.renew_server_identity(first, names, addresses, take_over, stop).await;
    });
    Ok(tls)
}

fn config(certificate: &Arc<Certificate>, vouchers: &Arc<Vouchers>, fips: bool) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(tls_provider(fips));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_client_cert_verifier(vouchers.verifier(provider))
        .with_cert_resolver(Arc::clone(certificate) as Arc<dyn ResolvesServerCert>);
    config.require_ems = fips;
    Ok(Arc::new(config))
}

fn certified(identity: &ServerIdentity) -> Result<Arc<CertifiedKey>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate_chain.as_bytes()).collect();
    let chain = chain.map_err(|error| format!("this node's own certificate cannot be read: {error}"))?;
    let unusable = |error: &dyn std::fmt::Display| format!("this node's own key cannot be used: {error}");
    let key = PrivateKeyDer::from_pem_slice(identity.private_key.expose_secret().as_bytes()).map_err(|error| unusable(&error))?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|error| unusable(&error))?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

/// The certificates of the moment.
#[derive(Debug)]
struct Certificate {
    of_cluster: RwLock<Arc<CertifiedKey>>,
    own: RwLock<Option<Arc<CertifiedKey>>>,
}

impl Certificate {
    fn show(&self, manager: &Manager, own: Arc<CertifiedKey>) {
        if let Some(Err(why)) = own.cert.first().map(|leaf| manager.shows_own_certificate(OwnCertificate::Rest, leaf)) {
            tracing::warn!(why, "the metrics do not tell when the certificate of the REST API ends");
        }
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = Some(own);
    }

    fn of_cluster(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.of_cluster.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner).clone();
        Some(own.unwrap_or_else(|| self.of_cluster()))
    }
}

/// The one of the cluster's CA alone, by which nodes know each other.
#[derive(Debug)]
struct OfCluster(Arc<Certificate>);

impl ResolvesServerCert for OfCluster {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.of_cluster())
    }
}
