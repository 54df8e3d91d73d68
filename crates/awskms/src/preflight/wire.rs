//! The single acts of a probe: connect, shake hands, ask a proxy, read a date.

use super::advice;
use crate::error::shortened;
use crate::tls;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// The longest head of an answer.
const MAX_HEAD: usize = 16 * 1024;
/// What the probe calls itself.
const AGENT: HeaderValue = HeaderValue::from_static("keystead-preflight");

/// A connection, whatever it goes through.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, whatever it goes through.
pub(super) type Stream = Box<dyn Io>;

/// Why an act has failed: what was seen, and what to do.
#[derive(Debug)]
pub(super) struct Trouble {
    pub detail: String,
    pub advice: &'static str,
}

impl Trouble {
    pub fn new(detail: impl Into<String>, advice: &'static str) -> Self {
        Self { detail: detail.into(), advice }
    }
}

/// Connects to the first of the addresses that answers. Each gets its share of the time that is left, so that one that is silent does not hide the others.
pub(super) async fn connect(addresses: &[SocketAddr], limit: Duration) -> Result<(TcpStream, SocketAddr), String> {
    let until = Instant::now() + limit;
    let mut failed = Vec::new();
    for (n, address) in addresses.iter().enumerate() {
        let share = until.saturating_duration_since(Instant::now()) / u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, *address)),
            Ok(Err(error)) => failed.push(format!("{address}: {error}")),
            Err(_) => failed.push(format!("{address}: no answer in time")),
        }
    }
    Err(failed.join("; "))
}

/// A TLS handshake under this verifier. Answers the connection, and what was agreed upon and shown.
pub(super) async fn handshake(
    verifier: &Arc<dyn ServerCertVerifier>,
    name: ServerName<'static>,
    stream: Stream,
    proxy: bool,
    fips: bool,
) -> Result<(Stream, String), Trouble> {
    let watching = Arc::new(Watching { inner: Arc::clone(verifier), leaf: Mutex::default() });
    let config = tls::config_of(Arc::clone(&watching) as Arc<dyn ServerCertVerifier>, fips).map_err(|text| Trouble::new(text, advice::tls(None, proxy)))?;
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(stream) => {
            let session = stream.get_ref().1;
            let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or_default();
            let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
            let detail = format!("{version}, {suite}, {}", watching.seen().unwrap_or_default());
            Ok((Box::new(stream), detail))
        }
        Err(error) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let seen = watching.seen().map_or_else(String::new, |seen| format!("; {seen}"));
            let what = tls.map_or_else(|| error.to_string(), ToString::to_string);
            // Neither text may push the other one out: the certificate may have thousands of names.
            Err(Trouble::new(format!("{}{seen}", shortened(&what).chars().take(160).collect::<String>()), advice::tls(tls, proxy)))
        }
    }
}

/// Has a proxy connect to `target` (`host:port`). Answers the connection through it, and the proxy's status.
pub(super) async fn tunnel(stream: Stream, target: &str, login: Option<&HeaderValue>, tasks: &mut JoinSet<()>) -> Result<(Stream, String), Trouble> {
    let silent = |error: &dyn StdError| Trouble::new(format!("the proxy does not answer CONNECT: {}", words(error)), advice::PROXY_SILENT);
    let mut request = Request::connect(target).header(HOST, target).header(USER_AGENT, AGENT);
    if let Some(login) = login {
        request = request.header(PROXY_AUTHORIZATION, login);
    }
    let request = request.body(Empty::new()).map_err(|error| silent(&error))?;
    let mut sender = speak(stream, tasks).await.map_err(|error| silent(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| silent(&error))?;
    let status = status(&answer);
    match answer.status() {
        code if code.is_success() => {
            let upgraded = hyper::upgrade::on(answer).await.map_err(|error| silent(&error))?;
            Ok((Box::new(TokioIo::new(upgraded)), format!("the proxy answers {status}")))
        }
        StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            Err(Trouble::new(format!("the proxy refuses the login ({status})"), advice::PROXY_LOGIN))
        }
        _ => Err(Trouble::new(format!("the proxy refuses to connect to {target} ({status})"), advice::PROXY_REFUSES)),
    }
}

/// The `Date` header of the answer to a request that asks for nothing and is not signed: every web server sends one, whatever it answers (RFC 9110, section 6.6.1).
pub(super) async fn date(stream: Stream, host: &str, tasks: &mut JoinSet<()>) -> Result<String, String> {
    let request = Request::get("/").header(HOST, host).header(USER_AGENT, AGENT).body(Empty::new()).map_err(|error| words(&error))?;
    let mut sender = speak(stream, tasks).await.map_err(|error| words(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| words(&error))?;
    let date = answer.headers().get(hyper::header::DATE).and_then(|date| date.to_str().ok());
    date.map(str::to_owned).ok_or_else(|| format!("the answer {} bears no date", status(&answer)))
}

/// An error with its cause: the HTTP library's own texts alone say little.
fn words(error: &dyn StdError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

async fn speak(stream: Stream, tasks: &mut JoinSet<()>) -> hyper::Result<SendRequest<Empty<Bytes>>> {
    let (sender, connection) = Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    tasks.spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

fn status<T>(answer: &Response<T>) -> String {
    let phrase = answer.extensions().get::<hyper::ext::ReasonPhrase>().map(|phrase| String::from_utf8_lossy(phrase.as_bytes()).into_owned());
    let phrase = phrase.or_else(|| answer.status().canonical_reason().map(str::to_owned)).unwrap_or_default();
    format!("{} {}", answer.status().as_u16(), phrase.chars().take(80).collect::<String>()).trim_end().to_owned()
}

/// Keeps the certificate that was shown, whether it is accepted or not.
#[derive(Debug)]
struct Watching {
    inner: Arc<dyn ServerCertVerifier>,
    leaf: Mutex<Option<CertificateDer<'static>>>,
}

impl Watching {
    /// Subject, issuer and end of the certificate that was shown.
    fn seen(&self) -> Option<String> {
        let leaf = self.leaf.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&leaf) else { return Some("a certificate that cannot be read".to_owned()) };
        let cut = |text: String| text.chars().take(80).collect::<String>();
        let until =
            jiff::Timestamp::from_second(certificate.validity().not_after.timestamp()).map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string());
        Some(format!("certificate {:?} issued by {:?}, valid until {until}", cut(certificate.subject().to_string()), cut(certificate.issuer().to_string())))
    }
}

impl ServerCertVerifier for Watching {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.leaf.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.clone().into_owned());
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
