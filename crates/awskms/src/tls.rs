//! How much of AWS's certificate is believed.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, NamedGroup, ProtocolVersion, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// How many TLS sessions a client keeps to resume: eight tickets for each of two hosts.
const SESSIONS: usize = 16;

/// Which checks of AWS's certificate are on. A proxy's certificate is always checked in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsPolicy {
    /// Off: any certificate is accepted.
    pub verify: bool,
    /// Off: a certificate for another DNS name is accepted, where the host is a DNS name.
    pub verify_host: bool,
    /// Off: a certificate without the address is accepted, where the host is an IP address.
    pub verify_ip: bool,
}

impl TlsPolicy {
    /// Everything is checked.
    pub const STRICT: Self = Self { verify: true, verify_host: true, verify_ip: true };

    /// Whether chain and name of this host's certificate are really checked: without that, who sits on the path could forge an answer.
    pub fn proves(self, host_is_address: bool) -> bool {
        self.verify && if host_is_address { self.verify_ip } else { self.verify_host }
    }
}

/// What TLS may agree upon. In FIPS mode: TLS 1.2 and 1.3 with AES-GCM over ECDHE on P-256 or P-384, which NIST SP 800-52r2 allows; no ChaCha20, no X25519. That restricts, and makes no validated module.
pub fn provider(fips: bool) -> CryptoProvider {
    let all = aws_lc_rs::default_provider();
    if !fips {
        return all;
    }
    CryptoProvider {
        cipher_suites: all.cipher_suites.into_iter().filter(|suite| FIPS_SUITES.contains(&suite.suite())).collect(),
        kx_groups: vec![aws_lc_rs::kx_group::SECP256R1, aws_lc_rs::kx_group::SECP384R1],
        ..all
    }
}

/// Whether FIPS mode would have agreed upon this. A group that is not known was none of the forbidden. TLS 1.2 is none of it: whether the Extended Master Secret was agreed upon, which FIPS mode requires
/// (SP 800-52r2; RFC 7627), cannot be seen afterwards.
pub fn is_fips(version: Option<ProtocolVersion>, suite: Option<CipherSuite>, group: Option<NamedGroup>) -> bool {
    version == Some(ProtocolVersion::TLSv1_3)
        && suite.is_some_and(|suite| FIPS_SUITES.contains(&suite))
        && group.is_none_or(|group| FIPS_GROUPS.contains(&group))
}

/// Whether a client that offers this could agree with FIPS mode, as far as its first message says.
pub fn can_be_fips(suites: &[CipherSuite], groups: Option<&[NamedGroup]>) -> bool {
    suites.iter().any(|suite| FIPS_SUITES.contains(suite)) && groups.is_none_or(|groups| groups.iter().any(|group| FIPS_GROUPS.contains(group)))
}

const FIPS_GROUPS: [NamedGroup; 2] = [NamedGroup::secp256r1, NamedGroup::secp384r1];
const FIPS_SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];

/// The roots of trust of the machine, and further ones in PEM. Those of a machine are some hundred kilobytes, which all clients share that need no others.
///
/// # Errors
/// A text for the operator: the PEM holds no certificate, or one that cannot be read.
pub(crate) fn roots(machine: &Arc<RootCertStore>, further: Option<&str>) -> Result<Arc<RootCertStore>, String> {
    let Some(pem) = further else { return Ok(Arc::clone(machine)) };
    let mut roots = RootCertStore::clone(machine);
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("the PEM of the CA certificates cannot be read: {error}"))?;
        roots.add(certificate).map_err(|error| format!("CA certificate {} cannot be used: {error}", count + 1))?;
        count += 1;
    }
    if count == 0 {
        return Err("the PEM of the CA certificates holds no certificate".to_owned());
    }
    Ok(Arc::new(roots))
}

/// The machine's own roots. What cannot be read is logged; without any root every handshake fails with a clear reason.
pub(crate) fn machine_roots() -> Arc<RootCertStore> {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "a root certificate of this machine cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    Arc::new(roots)
}

/// The TLS configuration of a client: `roots` vouch for AWS under `policy`, `proxy_roots` for the proxy of this name, if any.
///
/// # Errors
/// A text for the operator: no root at all.
pub(crate) fn client_config(
    policy: TlsPolicy,
    roots: Arc<RootCertStore>,
    proxy: Option<(ServerName<'static>, Arc<RootCertStore>)>,
    fips: bool,
) -> Result<ClientConfig, String> {
    config_of(verifier_of(policy, roots, proxy)?, fips)
}

/// What checks the certificates of AWS and of the proxy, as [`client_config`] says.
///
/// # Errors
/// As [`client_config`].
pub(crate) fn verifier_of(
    policy: TlsPolicy,
    roots: Arc<RootCertStore>,
    proxy: Option<(ServerName<'static>, Arc<RootCertStore>)>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let target = verifier(roots, &provider)?;
    let proxy = proxy.map(|(name, roots)| verifier(roots, &provider).map(|verifier| (name, verifier))).transpose()?;
    Ok(Arc::new(PolicyVerifier { policy, target, proxy }))
}

/// A configuration with these checks.
///
/// # Errors
/// A text for the operator.
pub(crate) fn config_of(verifier: Arc<dyn ServerCertVerifier>, fips: bool) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider(fips)))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.require_ems = fips;
    // A client speaks to one host, and to a proxy; for more, room is held for each of a thousand clients.
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

fn verifier(roots: Arc<RootCertStore>, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|_| "this machine has no root certificates; install ca-certificates, or set [aws_kms] extra_ca".to_owned())
}

/// Checks as the policy says. Everything but the checks that the policy names stays an error.
#[derive(Debug)]
struct PolicyVerifier {
    policy: TlsPolicy,
    target: Arc<WebPkiServerVerifier>,
    /// Where a proxy has the same name as AWS's host, that name is checked strictly for both: it cannot be told which of them speaks.
    proxy: Option<(ServerName<'static>, Arc<WebPkiServerVerifier>)>,
}

impl ServerCertVerifier for PolicyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some((_, proxy)) = self.proxy.as_ref().filter(|(name, _)| name == server_name) {
            return proxy.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        if !self.policy.verify {
            return Ok(ServerCertVerified::assertion());
        }
        let forgiven = match server_name {
            ServerName::IpAddress(_) => !self.policy.verify_ip,
            _ => !self.policy.verify_host,
        };
        match self.target.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) if forgiven => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.target.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.target.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.target.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fips_mode_leaves_aes_gcm_and_the_curves_of_nist() {
        let fips = provider(true);
        assert_eq!(fips.cipher_suites.len(), FIPS_SUITES.len());
        assert_eq!(fips.kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>(), [NamedGroup::secp256r1, NamedGroup::secp384r1]);
        let (tls_1_3, p256) = (Some(ProtocolVersion::TLSv1_3), Some(NamedGroup::secp256r1));
        assert!(fips.cipher_suites.iter().all(|suite| is_fips(tls_1_3, Some(suite.suite()), p256)));
        assert!(!is_fips(tls_1_3, Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256), p256));
        assert!(!is_fips(tls_1_3, Some(CipherSuite::TLS13_AES_128_GCM_SHA256), Some(NamedGroup::X25519)));
        assert!(!is_fips(Some(ProtocolVersion::TLSv1_2), Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), p256));
        let both = [CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, CipherSuite::TLS13_AES_128_GCM_SHA256];
        assert!(can_be_fips(&both, None) && can_be_fips(&both, Some(&[NamedGroup::X25519, NamedGroup::secp384r1])));
        assert!(!can_be_fips(&both[..1], None) && !can_be_fips(&both, Some(&[NamedGroup::X25519])));
        let verifier = || verifier_of(TlsPolicy { verify: false, ..TlsPolicy::STRICT }, machine_roots(), None);
        for (fips, verifier) in [true, false].map(|fips| (fips, verifier())) {
            // A machine without roots cannot make one.
            assert!(verifier.is_err() || config_of(verifier.unwrap(), fips).unwrap().require_ems == fips);
        }
        assert!(provider(false).kx_groups.len() > 2);
    }
}
