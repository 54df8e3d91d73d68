//! One mutual-TLS connection to a KMIP server.

use keystead_kmip::ttlv::{HEADER_BYTES, Node, decode, encode};
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const MOST: usize = 16 * 1024 * 1024;

/// Where the server is, and who we are.
#[derive(Clone)]
pub struct Endpoint {
    address: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Endpoint {
    /// From PEM files.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub fn from_files(address: &str, ca: &Path, certificate: &Path, key: &Path) -> Result<Self, String> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()));
        Self::from_pem(address, &read(ca)?, &read(certificate)?, &read(key)?)
    }

    /// From PEM.
    ///
    /// # Errors
    /// What is not what it should be.
    pub fn from_pem(address: &str, ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, String> {
        Self::from_pem_at(address, ca, certificate, key, rustls::DEFAULT_VERSIONS)
    }

    /// From PEM, with these versions of TLS alone.
    ///
    /// # Errors
    /// What is not what it should be.
    pub fn from_pem_at(address: &str, ca: &[u8], certificate: &[u8], key: &[u8], versions: &[&'static SupportedProtocolVersion]) -> Result<Self, String> {
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| error.to_string())?;
        let config = trusting(ca, versions)?.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?;
        Self::new(address, config)
    }

    /// Without a certificate, as a stranger comes.
    ///
    /// # Errors
    /// What is not what it should be.
    pub fn anonymous(address: &str, ca: &[u8]) -> Result<Self, String> {
        Self::new(address, trusting(ca, rustls::DEFAULT_VERSIONS)?.with_no_client_auth())
    }

    fn new(address: &str, config: ClientConfig) -> Result<Self, String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        Ok(Self { address: address.to_owned(), name, config: Arc::new(config) })
    }

    /// The same, for tests that look at whatever certificate the server shows.
    #[must_use]
    pub fn trusting_any_server(mut self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        let provider = Arc::clone(config.crypto_provider());
        config.dangerous().set_certificate_verifier(Arc::new(AnyServer(provider)));
        config.resumption = rustls::client::Resumption::disabled();
        self.config = Arc::new(config);
        self
    }

    /// The same, with a whole handshake for each connection.
    #[must_use]
    pub fn without_resumption(mut self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = rustls::client::Resumption::disabled();
        self.config = Arc::new(config);
        self
    }

    /// Opens a connection, and leaves all that is sent to the caller.
    ///
    /// # Errors
    /// Why not.
    pub fn open(&self) -> Result<(ClientConnection, TcpStream), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = TcpStream::connect(&self.address).map_err(|error| format!("{}: {error}", self.address))?;
        stream.set_nodelay(true).map_err(|error| text(&error))?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| text(&error))?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(|error| text(&error))?;
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(|error| text(&error))?;
        Ok((connection, stream))
    }
}

/// A connection.
pub struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Why not. The handshake itself happens with the first call.
    pub fn connect(endpoint: &Endpoint) -> Result<Self, String> {
        let (connection, stream) = endpoint.open()?;
        Ok(Self { stream: StreamOwned::new(connection, stream) })
    }

    /// Whether the session was a new one or an old one; `None` before the first call.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.stream.conn.handshake_kind()
    }

    /// Sends a message and reads the answer.
    ///
    /// # Errors
    /// The connection ends, or what comes is no TTLV.
    pub fn call(&mut self, request: &Node<'_>) -> Result<Node<'static>, String> {
        let mut bytes = Vec::new();
        encode(request, &mut bytes);
        let answer = self.call_bytes(&bytes)?;
        decode(&answer).map(Node::into_owned).map_err(|error| format!("the answer is no TTLV: {error}"))
    }

    /// Sends bytes and reads one answer.
    ///
    /// # Errors
    /// The connection ends, or the answer is too long.
    pub fn call_bytes(&mut self, request: &[u8]) -> Result<Vec<u8>, String> {
        self.send_bytes(request)?;
        self.read_answer()
    }

    /// Sends bytes and waits for nothing.
    ///
    /// # Errors
    /// The connection ends.
    pub fn send_bytes(&mut self, request: &[u8]) -> Result<(), String> {
        self.stream.write_all(request).and_then(|()| self.stream.flush()).map_err(lost)
    }

    /// Reads one answer.
    ///
    /// # Errors
    /// The connection ends, or the answer is too long.
    pub fn read_answer(&mut self) -> Result<Vec<u8>, String> {
        let mut answer = vec![0; HEADER_BYTES];
        self.stream.read_exact(&mut answer).map_err(lost)?;
        let length = answer.get(4..8).and_then(|length| <[u8; 4]>::try_from(length).ok()).map_or(0, u32::from_be_bytes);
        let length = usize::try_from(length).ok().filter(|length| *length <= MOST).ok_or("the answer is too long")?;
        answer.resize(HEADER_BYTES + length, 0);
        self.stream.read_exact(answer.get_mut(HEADER_BYTES..).unwrap_or_default()).map_err(lost)?;
        Ok(answer)
    }
}

fn trusting(ca: &[u8], versions: &[&'static SupportedProtocolVersion]) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Ok(builder.with_protocol_versions(versions).map_err(|error| error.to_string())?.with_root_certificates(roots))
}

fn lost(error: std::io::Error) -> String {
    format!("the connection was lost: {error}")
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
