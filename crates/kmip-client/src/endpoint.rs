//! Where a server is, and who we are.

use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a server may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time to connect, and the time to an answer, from the request to its last byte.
    pub time: Duration,
    /// The longest answer, in bytes without its header of eight.
    pub answer: usize,
}

impl Default for Limits {
    /// 30 seconds, 16 MiB.
    fn default() -> Self {
        Self { time: Duration::from_secs(30), answer: 16 * 1024 * 1024 }
    }
}

/// Where a server is, and who we are.
#[derive(Clone)]
pub struct Endpoint {
    address: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    pub(crate) limits: Limits,
}

impl Endpoint {
    /// From PEM files: the CA of the server's certificate, our certificate (chain), its private key.
    ///
    /// # Errors
    /// One line: which file cannot be read, or is not what it should be.
    pub fn from_files(address: &str, ca: &Path, certificate: &Path, key: &Path) -> Result<Self, String> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()));
        let (ca_pem, certificate_pem, key_pem) = (read(ca)?, read(certificate)?, zeroize::Zeroizing::new(read(key)?));
        let files = || format!("{}, {}, {}", ca.display(), certificate.display(), key.display());
        Self::from_pem(address, &ca_pem, &certificate_pem, &key_pem).map_err(|error| format!("{error} (of {})", files()))
    }

    /// From PEM.
    ///
    /// # Errors
    /// What is not what it should be.
    pub fn from_pem(address: &str, ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, String> {
        Self::new(address, client_config(ca, Some((certificate, key)), rustls::DEFAULT_VERSIONS)?)
    }

    /// With a configuration of TLS. `address`: host:port; the host is also the name that the server's certificate must have.
    ///
    /// # Errors
    /// The host is no name.
    pub fn new(address: &str, config: ClientConfig) -> Result<Self, String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        Ok(Self { address: address.to_owned(), name: server_name(host)?, config: Arc::new(config), limits: Limits::default() })
    }

    /// The same, with another name that the server's certificate must have.
    ///
    /// # Errors
    /// It is no name.
    pub fn named(self, name: &str) -> Result<Self, String> {
        Ok(Self { name: server_name(name)?, ..self })
    }

    /// The same within other limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same with another configuration of TLS, made of this one.
    #[must_use]
    pub fn with_config(self, change: impl FnOnce(ClientConfig) -> ClientConfig) -> Self {
        Self { config: Arc::new(change(ClientConfig::clone(&self.config))), ..self }
    }

    /// host:port, as it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Opens a connection, and leaves all that is sent to the caller.
    ///
    /// # Errors
    /// Why no address of the host takes it.
    pub fn open(&self) -> std::io::Result<(ClientConnection, TcpStream)> {
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.limits.time) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(self.limits.time))?;
                    stream.set_write_timeout(Some(self.limits.time))?;
                    let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(std::io::Error::other)?;
                    return Ok((connection, stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// A configuration of TLS: PEM of the CAs that vouch for the server, certificate and key of ours, versions of TLS.
///
/// # Errors
/// What is not what it should be.
pub fn client_config(ca: &[u8], identity: Option<(&[u8], &[u8])>, versions: &[&'static SupportedProtocolVersion]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|error| format!("the CA is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("the CA cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("there is no CA certificate in PEM".to_owned());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(versions).map_err(|error| error.to_string())?.with_root_certificates(roots);
    let Some((certificate, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("the client's certificate is no PEM: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the client's private key is no PEM of an unencrypted key: {error}"))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| format!("the client's certificate and key cannot be used: {error}"))
}

fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|error| format!("{host:?} is no host: {error}"))
}
