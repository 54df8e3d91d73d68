//! The HTTPS server: connections, limits, the way of a request from the socket to its handler and back.

use crate::audit::{self, Source};
use crate::client_certificates::{Certificate, Vouchers};
use crate::connections::{Connections, Place};
use crate::console;
use crate::login::{Locked, Sender};
use crate::long::Sent;
use crate::metrics::{self, Counted, Refused, Served};
use crate::nodes;
use crate::openapi;
use crate::patience::Patient;
use crate::perform::{Asked, Caller, Given, other_method, perform};
use crate::request::{Answer, Body};
use crate::routes::{self, Found};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use keystead_manager::fips::{tls_can_be_fips, tls_is_fips};
use keystead_manager::passwords::network_of;
use keystead_manager::{Error, Manager, Result};
use rustls::server::ResolvesServerCert;
use serde_json::{Value as Json, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// The most headers, and the longest head.
const MAX_HEADERS: usize = 100;
const MAX_HEAD: usize = 64 * 1024;
/// The content type of JSON without links.
const JSON: &str = "application/json";
/// How long a stop waits for running requests.
const DRAIN: Duration = Duration::from_secs(20);

/// What clients may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub max_connections: usize,
    /// Connections of one source: an IPv4 address, or a /64 of IPv6.
    pub max_connections_per_source: usize,
    /// From the connection to the end of the handshake.
    pub handshake_timeout: Duration,
    /// For a head; and how long a connection may wait between two requests.
    pub head_timeout: Duration,
    /// For a body.
    pub body_timeout: Duration,
    /// How long a client may take nothing of its answer.
    pub answer_timeout: Duration,
    /// For what a call does, beside what `return_timeout` asks to wait. Longer than one look at AWS KMS by way of a proxy that hangs.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1_024,
            max_connections_per_source: 256,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(180),
        }
    }
}

/// What TLS may agree upon.
pub struct Tls {
    /// Out of FIPS mode.
    pub all: Arc<rustls::ServerConfig>,
    /// In FIPS mode.
    pub fips: Arc<rustls::ServerConfig>,
    /// This node's certificate, for connections between nodes.
    pub certificate: Arc<dyn ResolvesServerCert>,
    /// Who vouches for client certificates.
    pub vouchers: Arc<Vouchers>,
}

/// What all connections share.
struct Shared {
    manager: Manager,
    certificate: Arc<dyn ResolvesServerCert>,
    vouchers: Arc<Vouchers>,
    limits: Limits,
    stop: CancellationToken,
    counted: Arc<Counted>,
}

/// Serves the REST API until `stop`, then finishes the requests that are running.
pub async fn serve(listener: TcpListener, tls: Tls, manager: Manager, limits: Limits, stop: CancellationToken) {
    let places = Connections::new(limits.max_connections, limits.max_connections_per_source);
    let counted = Arc::new(Counted::default());
    manager.metrics().register(Served { counted: Arc::clone(&counted), connections: Arc::clone(&places) });
    let shared = Arc::new(Shared { manager, certificate: tls.certificate, vouchers: tls.vouchers, limits, stop: stop.clone(), counted });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = places.enter(network_of(peer.ip())) else {
                    shared.counted.refused(Refused::Limit);
                    tracing::debug!(%peer, "a connection was refused: there are too many");
                    continue;
                };
                // Looked at before the mode, and so never too late for a connection that it would not have agreed upon.
                let turned_on = shared.manager.fips_turned_on();
                let (config, turned_on) = if shared.manager.fips() { (&tls.fips, None) } else { (&tls.all, Some(turned_on)) };
                connections.spawn(connection(stream, peer, Arc::clone(config), Arc::clone(&shared), Arc::new(place), turned_on));
            }
            Err(error) => {
                // Out of descriptors, most likely; give the open connections time to end.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("requests are still running at the stop; their connections are closed");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    config: Arc<rustls::ServerConfig>,
    shared: Arc<Shared>,
    place: Arc<Place>,
    turned_on: Option<CancellationToken>,
) {
    let _ = stream.set_nodelay(true);
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(shared.limits.handshake_timeout, shaken(Patient::new(stream, shared.limits.answer_timeout), config, &shared)) => shaken,
        () = place.shown_out() => {
            shared.counted.refused(Refused::Handshake);
            return tracing::debug!(%peer, "a connection in its handshake has made room for another");
        }
    };
    if !matches!(shaken, Ok(Ok(_))) {
        shared.counted.refused(Refused::Handshake);
    }
    let (stream, able) = match shaken {
        Ok(Ok(Shaken::Node(stream))) => {
            if !nodes::is_node(&shared.manager, stream.get_ref().1.peer_certificates()) {
                return tracing::warn!(%peer, "a connection as between nodes was refused: its certificate is none of a node of this cluster");
            }
            let stop = shared.stop.child_token();
            let _ended = stop.clone().drop_guard();
            return tokio::select! {
                () = nodes::serve(stream, shared.manager.clone(), stop) => {}
                () = async { match turned_on { Some(turned_on) => turned_on.cancelled().await, None => std::future::pending().await } } => {}
            };
        }
        Ok(Ok(Shaken::Client(stream, able))) => (stream, able),
        Ok(Err(error)) => {
            audit::no_handshake(&shared.manager, peer, &error);
            return tracing::debug!(%peer, %error, "no TLS handshake");
        }
        Err(_) => return tracing::debug!(%peer, "the TLS handshake took too long"),
    };
    let session = stream.get_ref().1;
    let (suite, group) = (session.negotiated_cipher_suite(), session.negotiated_key_exchange_group());
    let good = tls_is_fips(session.protocol_version(), suite.map(|suite| suite.suite()), group.map(|group| group.name()));
    let retired = turned_on.filter(|_| !good).unwrap_or_default();
    let _unable = (!able).then(|| shared.manager.fips_unable(None));
    let sender = Arc::new(Sender::new(peer.ip(), Certificate::of(session.peer_certificates()), Arc::clone(&shared.vouchers)));
    let source = Source { peer, session: keystead_audit::new_id() };
    let (stop, head_timeout) = (shared.stop.clone(), shared.limits.head_timeout);
    let (busy, ends) = (Arc::clone(&place), [stop.clone(), retired.clone()]);
    let service = service_fn(move |request| {
        let (shared, sender, busy, ends) = (Arc::clone(&shared), Arc::clone(&sender), busy.busy(), ends.clone());
        async move {
            // A call that has no one to answer to is not begun.
            let busy = busy.ok_or_else(|| std::io::Error::other("the connection has made room for another"))?;
            let mut answer = answer(request, source, sender, shared).await;
            // The call itself may be why the connection ends, as the one that turns FIPS mode on: its client must not send another one meanwhile.
            if ends.iter().any(CancellationToken::is_cancelled) {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            drop(busy);
            Ok::<_, std::io::Error>(answer)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // It has waited for a request, or for the rest of one: nothing is lost.
        () = place.shown_out() => return tracing::debug!(%peer, "a connection that waited has made room for another"),
        () = async { tokio::select! { () = stop.cancelled() => {} () = retired.cancelled() => {} } } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection has ended with an error");
    }
}

/// Who has connected.
enum Shaken {
    /// A client; and whether it could agree with FIPS mode.
    Client(TlsStream<Patient>, bool),
    /// One that says that it is a node.
    Node(TlsStream<Patient>),
}

async fn shaken(stream: Patient, config: Arc<rustls::ServerConfig>, shared: &Shared) -> std::io::Result<Shaken> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    if nodes::is_between_nodes(&start.client_hello()) {
        let config = nodes::server_config(&shared.manager, &shared.certificate).map_err(std::io::Error::other)?;
        return Ok(Shaken::Node(start.into_stream(config).await?));
    }
    let able = tls_can_be_fips(start.client_hello().cipher_suites(), start.client_hello().named_groups());
    Ok(Shaken::Client(start.into_stream(config).await?, able))
}

async fn answer(request: http::Request<Incoming>, source: Source, sender: Arc<Sender>, shared: Arc<Shared>) -> Response<Sent> {
    let head = request.method() == Method::HEAD;
    let pretty = is_pretty(request.uri());
    let began = Instant::now();
    let found = find(request.method(), request.uri().path());
    let route = match &found {
        Ok(Found::Route(route, _) | Found::Collection(route)) => Some(*route),
        Ok(Found::OtherMethods(_)) | Err(_) => None,
    };
    let span = metrics::span(request.method(), route, request.headers());
    let counted = Arc::clone(&shared.counted);
    // In a task of its own, so that a panic ends this request and nothing else.
    let answer = match tokio::spawn(handle(request.map(Locked::new), found, source, sender, shared).instrument(span.clone())).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::error(&error),
        Err(error) => Answer::error(&Error::unexpected(format!("a handler has panicked: {error}"))),
    };
    counted.request(route, answer.status, began.elapsed());
    metrics::answered(&span, answer.status);
    render(answer, head, pretty)
}

/// The call that a request is; HEAD is a GET.
fn find(method: &Method, path: &str) -> Result<Found> {
    routes::find(if method == Method::HEAD { &Method::GET } else { method }, path)
}

async fn handle(request: http::Request<Locked<Incoming>>, found: Result<Found>, source: Source, sender: Arc<Sender>, shared: Arc<Shared>) -> Result<Answer> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if let Some(answer) = open_to_all(path, is_pretty(&parts.uri)) {
        return Ok(if matches!(parts.method, Method::GET | Method::HEAD) { answer } else { other_method(&parts.method, "GET, HEAD, OPTIONS") });
    }
    let caller = Caller { manager: &shared.manager, source, sender: &sender, request_timeout: shared.limits.request_timeout };
    if console::is_there(path, &parts.headers) {
        return Ok(console::answer(caller, &parts, body, shared.limits.body_timeout).await);
    }
    let method = if parts.method == Method::HEAD { Method::GET } else { parts.method };
    let asked = Asked { method, path, query: parts.uri.query().unwrap_or_default(), headers: parts.headers, found };
    perform(caller, asked, Given::Stream(Box::new(body), shared.limits.body_timeout)).await
}

/// What needs no login: it says nothing of the cluster.
fn open_to_all(path: &str, pretty: bool) -> Option<Answer> {
    let ready = |text: Bytes, kind: &'static str| Answer { body: Body::Ready(text, kind), ..Answer::empty(StatusCode::OK) };
    match path {
        "/healthz" => Some(Answer::ok(json!({ "status": "ok" }))),
        "/api/openapi.json" => {
            let [short, long] = &*openapi::TEXTS;
            Some(ready(if pretty { long } else { short }.clone(), JSON))
        }
        "/docs/api" | "/docs/api/" => {
            let page = ready(Bytes::from_static(openapi::PAGE.as_bytes()), "text/html; charset=utf-8");
            Some(page.header(header::CONTENT_SECURITY_POLICY, openapi::PAGE_POLICY))
        }
        _ => None,
    }
}

/// Whether an answer is written for the eye.
fn is_pretty(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair.eq_ignore_ascii_case("pretty=true") || pair == "pretty=1"))
}

fn render(answer: Answer, head: bool, pretty: bool) -> Response<Sent> {
    let kind = |links: bool| if links { "application/hal+json" } else { JSON };
    let written = |text: Vec<u8>| {
        let long = if pretty { serde_json::from_slice::<Json>(&text).ok().and_then(|json| serde_json::to_vec_pretty(&json).ok()) } else { None };
        Bytes::from(long.unwrap_or(text))
    };
    let mut rest = None;
    let (text, kind) = match answer.body {
        Body::None => (Bytes::new(), None),
        Body::Json(json) => (written(serde_json::to_vec(&json).unwrap_or_default()), Some(kind(has_links(&json)))),
        Body::Written(text, links) => (written(text), Some(kind(links))),
        Body::Long(long, links) if pretty => (written(long.text()), Some(kind(links))),
        Body::Long(mut long, links) => {
            let first = long.part().unwrap_or_default();
            rest = Some(long).filter(|long| !long.is_done());
            (first, Some(kind(links)))
        }
        Body::Ready(text, kind) => (text, Some(kind)),
    };
    let length = rest.is_none().then_some(text.len());
    let mut response = Response::new(match rest {
        // A HEAD is not asked for parts.
        Some(rest) => Sent::Parts(Some(text), rest),
        None => Sent::Whole(Full::new(if head { Bytes::new() } else { text })),
    });
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    let headers = response.headers_mut();
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    // What never changes under its name says so itself.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache,no-store,must-revalidate"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn has_links(body: &Json) -> bool {
    match body {
        Json::Object(object) => object.contains_key("_links") || object.values().any(has_links),
        Json::Array(list) => list.first().is_some_and(has_links),
        _ => false,
    }
}
