//! Node to node: the questions that nodes ask each other (`keystead_manager::Peers`), over the address of the REST API, with TLS in which both sides show a certificate of the cluster's CA.
//!
//! A connection for that says so in its handshake (ALPN, RFC 7301), so that nothing else is asked for a certificate, and nothing but nodes gets here. Within it: HTTP/2, since many questions to one node go at
//! the same time, and one path.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use keystead_manager::x509::Facts;
use keystead_manager::{Answer, Manager, NodeIdentity, Peers, Question};
use keystead_metrics::trace;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use secrecy::ExposeSecret as _;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// How a connection between nodes says what it is.
const PROTOCOL: &[u8] = b"keystead-node/1";
const PATH: &str = "/question";
/// The longest question, and the longest answer: both may name a version of the KEK of each of 10,000 SVMs.
const LONGEST: usize = 2 * 1024 * 1024;
/// How many questions of one node are answered at a time.
const AT_A_TIME: u32 = 256;
/// How long a connection whose other side says nothing is believed in.
const ALIVE: Duration = Duration::from_secs(5);
/// More addresses than nodes have.
const MOST: usize = 256;

/// Asks other nodes. One connection to each is kept.
#[derive(Default)]
pub struct NodeClient {
    connections: Mutex<HashMap<String, Connection>>,
}

type Sender = SendRequest<Full<Bytes>>;
type Connection = Arc<tokio::sync::Mutex<Option<Sender>>>;

#[async_trait]
impl Peers for NodeClient {
    async fn ask(&self, address: &str, identity: &(dyn Fn() -> keystead_manager::Result<NodeIdentity> + Sync), question: &Question) -> Result<Answer, String> {
        let text = Bytes::from(serde_json::to_vec(question).map_err(|error| error.to_string())?);
        let connection = self.connection(address);
        loop {
            let (sender, is_new) = sender(&connection, address, identity).await?;
            match exchange(sender, text.clone()).await {
                // It has ended while nobody used it.
                Err(_) if !is_new => *connection.lock().await = None,
                answer => return answer.map_err(|why| format!("{address}: {why}")),
            }
        }
    }
}

impl NodeClient {
    fn connection(&self, address: &str) -> Connection {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.len() > MOST {
            connections.clear();
        }
        Arc::clone(connections.entry(address.to_owned()).or_default())
    }
}

/// Whether a connection is one between nodes.
pub fn is_between_nodes(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == PROTOCOL))
}

/// TLS of such a connection, as it is now: the CA may change.
///
/// # Errors
/// The CA's record is damaged.
pub fn server_config(manager: &Manager, certificate: &Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(keystead_manager::fips::tls_provider(manager.fips()));
    let roots = Arc::new(roots(&manager.ca_certificate().map_err(|error| error.message)?)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().map_err(|error| error.to_string())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(certificate));
    config.require_ems = manager.fips();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// Whether the other side has shown that it is a node of this cluster.
pub fn is_node(manager: &Manager, chain: Option<&[CertificateDer<'_>]>) -> bool {
    let facts = chain.and_then(|chain| chain.first()).and_then(|leaf| Facts::of_der(leaf).ok());
    facts.is_some_and(|facts| facts.uris.iter().any(|uri| manager.is_node(uri)))
}

/// Answers the questions of a node until it goes, or `stop`.
pub async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, manager: Manager, stop: CancellationToken) {
    let service = service_fn(move |request| {
        let manager = manager.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&manager, request).await) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_concurrent_streams(AT_A_TIME).keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of another node has ended with an error");
    }
}

async fn answer(manager: &Manager, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let says = |status, text: Vec<u8>| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    };
    if request.method() != Method::POST || request.uri().path() != PATH {
        return says(StatusCode::NOT_FOUND, b"nodes ask each other nothing else".to_vec());
    }
    let parent = request.headers().get(trace::HEADER).and_then(|parent| parent.to_str().ok()).map(str::to_owned);
    let Ok(text) = Limited::new(request.into_body(), LONGEST).collect().await else {
        return says(StatusCode::BAD_REQUEST, b"the question cannot be read".to_vec());
    };
    // A newer node may ask what this one does not know.
    let Ok(question) = serde_json::from_slice::<Question>(&text.to_bytes()) else {
        return says(StatusCode::BAD_REQUEST, b"the question is unknown to this version".to_vec());
    };
    let span = tracing::info_span!(target: trace::TARGET, "answer", otel.name = format!("answer {}", question.name()), otel.kind = "server");
    if let Some(parent) = parent {
        trace::continue_from(&span, &parent);
    }
    match serde_json::to_vec(&manager.answer(question).instrument(span).await) {
        Ok(text) => says(StatusCode::OK, text),
        Err(error) => says(StatusCode::INTERNAL_SERVER_ERROR, error.to_string().into_bytes()),
    }
}

/// A connection to a node, and whether it is new.
async fn sender(
    connection: &Connection,
    address: &str,
    identity: &(dyn Fn() -> keystead_manager::Result<NodeIdentity> + Sync),
) -> Result<(Sender, bool), String> {
    let mut kept = connection.lock().await;
    if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
        return Ok((sender.clone(), false));
    }
    let new = connect(address, &identity().map_err(|error| error.detail.unwrap_or(error.message))?).await?;
    *kept = Some(new.clone());
    Ok((new, true))
}

async fn connect(address: &str, identity: &NodeIdentity) -> Result<Sender, String> {
    let config = client_config(identity).map_err(|why| format!("this node's own certificate cannot be used: {why}"))?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|_| format!("{address} is no address"))?;
    let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
    let _ = stream.set_nodelay(true);
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| format!("{address}: TLS: {error}"))?;
    if stream.get_ref().1.alpn_protocol() != Some(PROTOCOL) {
        return Err(format!("{address}: what answers there is no node of this cluster"));
    }
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE);
    let (sender, driver) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| format!("{address}: {error}"))?;
    // It ends with the last sender, or with the connection.
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a connection to another node has ended with an error");
        }
    });
    Ok(sender)
}

async fn exchange(mut sender: Sender, text: Bytes) -> Result<Answer, String> {
    let mut request = Request::post(format!("https://node{PATH}"));
    if let Some(parent) = trace::traceparent() {
        request = request.header(trace::HEADER, parent);
    }
    let request = request.body(Full::new(text)).map_err(|error| error.to_string())?;
    sender.ready().await.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let text = Limited::new(response.into_body(), LONGEST).collect().await.map_err(|error| error.to_string())?.to_bytes();
    if status != StatusCode::OK {
        return Err(format!("{status}: {}", String::from_utf8_lossy(text.get(..200).unwrap_or(&text))));
    }
    serde_json::from_slice(&text).map_err(|error| format!("its answer cannot be read: {error}"))
}

fn client_config(identity: &NodeIdentity) -> Result<ClientConfig, String> {
    let key = PrivateKeyDer::from_pem_slice(identity.certificate.private_key_pem.expose_secret().as_bytes()).map_err(|error| error.to_string())?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(keystead_manager::fips::tls_provider(identity.fips)))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(&identity.ca)?)
        .with_client_auth_cert(vec![CertificateDer::from(identity.certificate.certificate_der.clone())], key)
        .map_err(|error| error.to_string())?;
    config.require_ems = identity.fips;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

fn roots(ca: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}
