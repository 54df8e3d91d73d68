//! Certificates for the stand-in: a CA and a leaf, since rustls refuses a CA certificate as a leaf.

use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// PEM texts of a server's identity and, when made here, of the CA that signed it.
#[derive(Clone)]
pub struct Identity {
    /// The chain, leaf first.
    pub cert_pem: String,
    /// The leaf's private key.
    pub key_pem: String,
    /// What a client must trust.
    pub ca_pem: Option<String>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

impl Identity {
    /// Makes a CA and a leaf for `names` (DNS names and IP addresses).
    ///
    /// # Errors
    /// A name that is neither, or a failing random source.
    pub fn generate(names: &[String]) -> io::Result<Self> {
        generate(names).map_err(io::Error::other)
    }

    /// The TLS configuration of a server with this identity: TLS 1.2 and 1.3, HTTP/1.1.
    ///
    /// # Errors
    /// PEM texts that hold no certificate or no key, or that do not fit together.
    pub fn server_config(&self) -> io::Result<Arc<ServerConfig>> {
        let certs = CertificateDer::pem_slice_iter(self.cert_pem.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let mut config = builder.with_no_client_auth().with_single_cert(certs, key).map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn generate(names: &[String]) -> Result<Identity, rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "AWS KMS stand-in CA");
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(names.to_vec())?;
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.distinguished_name.push(DnType::CommonName, "AWS KMS stand-in");
    let cert = leaf.signed_by(&key, &issuer)?;
    Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem(), ca_pem: Some(ca_pem) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_identity_serves() {
        let identity = Identity::generate(&["127.0.0.1".into(), "localhost".into()]).unwrap();
        assert!(identity.server_config().is_ok());
        assert!(!format!("{identity:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, other) = (Identity::generate(&["localhost".into()]).unwrap(), Identity::generate(&["localhost".into()]).unwrap());
        assert!(Identity { key_pem: other.key_pem, ..one.clone() }.server_config().is_err());
        assert!(Identity { cert_pem: String::new(), ..one }.server_config().is_err());
    }
}
