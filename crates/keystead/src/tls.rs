//! TLS of the REST API: this node's certificate, which is made anew while the node runs, and what may be agreed upon.

use keystead_manager::fips::tls_provider;
use keystead_manager::{Manager, ServerIdentity};
use keystead_rest::Vouchers;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use secrecy::ExposeSecret as _;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;

/// TLS of the REST API, with a certificate of the cluster's CA for these names and addresses.
///
/// # Errors
/// One line for the operator.
pub fn of_rest(manager: &Manager, names: Vec<String>, addresses: Vec<IpAddr>, stop: CancellationToken) -> Result<keystead_rest::Tls, String> {
    let first = manager.server_identity(names.clone(), addresses.clone()).map_err(|error| error.detail.unwrap_or(error.message))?;
    let certificate = Arc::new(Certificate(RwLock::new(certified(&first)?)));
    let vouchers = Vouchers::new(manager.clone());
    let tls = keystead_rest::Tls {
        all: config(&certificate, &vouchers, false)?,
        fips: config(&certificate, &vouchers, true)?,
        certificate: Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>,
        vouchers,
    };
    let manager = manager.clone();
    tokio::spawn(async move {
        let take_over = |new: &ServerIdentity| {
            *certificate.0.write().unwrap_or_else(PoisonError::into_inner) = certified(new)?;
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

/// The certificate of the moment.
#[derive(Debug)]
struct Certificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}
