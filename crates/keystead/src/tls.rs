//! TLS of the REST API: this node's certificate, which is made anew while the node runs, and what may be agreed upon.

use keystead_manager::fips::tls_provider;
use keystead_manager::{Manager, ServerIdentity};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use secrecy::ExposeSecret as _;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The certificate is valid for a year; it is made anew each month, and tried again each day after that has failed.
const RENEW: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const RETRY: Duration = Duration::from_secs(24 * 60 * 60);

/// TLS of the REST API, with a certificate of the cluster's CA for these names and addresses.
///
/// # Errors
/// One line for the operator.
pub fn of_rest(manager: &Manager, names: Vec<String>, addresses: Vec<IpAddr>, stop: CancellationToken) -> Result<keystead_rest::Tls, String> {
    let certificate = Arc::new(Certificate(RwLock::new(made(manager, &names, &addresses)?)));
    let tls = keystead_rest::Tls { all: config(&certificate, false)?, fips: config(&certificate, true)? };
    tokio::spawn(renew(manager.clone(), certificate, names, addresses, stop));
    Ok(tls)
}

fn config(certificate: &Arc<Certificate>, fips: bool) -> Result<Arc<ServerConfig>, String> {
    let config = ServerConfig::builder_with_provider(Arc::new(tls_provider(fips)))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(certificate) as Arc<dyn ResolvesServerCert>);
    Ok(Arc::new(config))
}

fn made(manager: &Manager, names: &[String], addresses: &[IpAddr]) -> Result<Arc<CertifiedKey>, String> {
    let identity = manager.server_identity(names.to_vec(), addresses.to_vec()).map_err(|error| error.detail.unwrap_or(error.message))?;
    certified(&identity)
}

fn certified(identity: &ServerIdentity) -> Result<Arc<CertifiedKey>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate_chain.as_bytes()).collect();
    let chain = chain.map_err(|error| format!("this node's own certificate cannot be read: {error}"))?;
    let unusable = |error: &dyn std::fmt::Display| format!("this node's own key cannot be used: {error}");
    let key = PrivateKeyDer::from_pem_slice(identity.private_key.expose_secret().as_bytes()).map_err(|error| unusable(&error))?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|error| unusable(&error))?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

/// The certificate of the moment.
#[derive(Debug)]
struct Certificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

async fn renew(manager: Manager, certificate: Arc<Certificate>, names: Vec<String>, addresses: Vec<IpAddr>, stop: CancellationToken) {
    let mut pause = RENEW;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = match made(&manager, &names, &addresses) {
            Ok(new) => {
                *certificate.0.write().unwrap_or_else(PoisonError::into_inner) = new;
                RENEW
            }
            Err(error) => {
                tracing::error!(error, "the certificate of the REST API could not be made anew; the old one is shown, and it is tried again");
                RETRY
            }
        };
    }
}
