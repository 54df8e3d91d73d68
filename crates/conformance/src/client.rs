//! The KMIP client as tests need it: without a certificate, with one version of TLS alone, with any server.

pub use keystead_kmip_client::{Client, Endpoint};

use keystead_kmip_client::client_config;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Endpoints that only tests want.
pub trait TestEndpoint: Sized {
    /// From PEM, with these versions of TLS alone.
    ///
    /// # Errors
    /// What is not what it should be.
    fn from_pem_at(address: &str, ca: &[u8], certificate: &[u8], key: &[u8], versions: &[&'static SupportedProtocolVersion]) -> Result<Self, String>;

    /// Without a certificate, as a stranger comes.
    ///
    /// # Errors
    /// What is not what it should be.
    fn anonymous(address: &str, ca: &[u8]) -> Result<Self, String>;

    /// The same, for tests that look at whatever certificate the server shows.
    #[must_use]
    fn trusting_any_server(self) -> Self;

    /// The same, with a whole handshake for each connection.
    #[must_use]
    fn without_resumption(self) -> Self;
}

impl TestEndpoint for Endpoint {
    fn from_pem_at(address: &str, ca: &[u8], certificate: &[u8], key: &[u8], versions: &[&'static SupportedProtocolVersion]) -> Result<Self, String> {
        Self::new(address, client_config(ca, Some((certificate, key)), versions)?)
    }

    fn anonymous(address: &str, ca: &[u8]) -> Result<Self, String> {
        Self::new(address, client_config(ca, None, rustls::DEFAULT_VERSIONS)?)
    }

    fn trusting_any_server(self) -> Self {
        self.without_resumption().with_config(|mut config| {
            let provider = Arc::clone(config.crypto_provider());
            config.dangerous().set_certificate_verifier(Arc::new(AnyServer(provider)));
            config
        })
    }

    fn without_resumption(self) -> Self {
        self.with_config(|mut config| {
            config.resumption = rustls::client::Resumption::disabled();
            config
        })
    }
}

/// Takes whatever certificate comes. Signatures of the handshake are checked all the same.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
