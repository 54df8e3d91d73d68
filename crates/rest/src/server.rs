//! The HTTPS server: connections, limits, the way of a request from the socket to its handler and back.

use crate::login;
use crate::query::Query;
use crate::request::{Answer, Request};
use crate::routes::{self, Found};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use keystead_manager::fips::tls_is_fips;
use keystead_manager::{Code, Error, Manager, Result};
use serde_json::{Value as Json, json};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many connections are open at a time. Who comes later waits in the kernel's queue.
const MAX_CONNECTIONS: usize = 1_024;
/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a head may take, and how long a connection may idle between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a body may take.
const BODY_TIME_LIMIT: Duration = Duration::from_secs(30);
/// The longest body.
const BODY_LIMIT: usize = 1024 * 1024;
/// The most headers, and the longest head.
const MAX_HEADERS: usize = 100;
const MAX_HEAD: usize = 64 * 1024;
/// How long a stop waits for running requests.
const DRAIN: Duration = Duration::from_secs(20);

/// What TLS may agree upon.
pub struct Tls {
    /// Out of FIPS mode.
    pub all: Arc<rustls::ServerConfig>,
    /// In FIPS mode.
    pub fips: Arc<rustls::ServerConfig>,
}

/// Serves the REST API until `stop`, then finishes the requests that are running.
pub async fn serve(listener: TcpListener, tls: Tls, manager: Manager, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Looked at before the mode, and so never too late for a connection that it would not have agreed upon.
                let turned_on = manager.fips_turned_on();
                let acceptor = TlsAcceptor::from(Arc::clone(if manager.fips() { &tls.fips } else { &tls.all }));
                let (manager, stop) = (manager.clone(), stop.clone());
                connections.spawn(async move {
                    connection(stream, peer, acceptor, manager, stop, turned_on).await;
                    drop(slot);
                });
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

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, manager: Manager, stop: CancellationToken, turned_on: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "no TLS handshake"),
        Err(_) => return tracing::debug!(%peer, "the TLS handshake took too long"),
    };
    let (suite, group) = (stream.get_ref().1.negotiated_cipher_suite(), stream.get_ref().1.negotiated_key_exchange_group());
    let retired = if tls_is_fips(suite.map(|suite| suite.suite()), group.map(|group| group.name())) { CancellationToken::new() } else { turned_on };
    let service = service_fn(move |request| {
        let manager = manager.clone();
        async move { Ok::<_, Infallible>(answer(request, peer.ip(), manager).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { tokio::select! { () = stop.cancelled() => {} () = retired.cancelled() => {} } } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection has ended with an error");
    }
}

async fn answer(request: http::Request<Incoming>, peer: IpAddr, manager: Manager) -> Response<Full<Bytes>> {
    let head = request.method() == Method::HEAD;
    // In a task of its own, so that a panic ends this request and nothing else.
    let answer = match tokio::spawn(handle(request, peer, manager)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::error(&error),
        Err(error) => Answer::error(&Error::unexpected(format!("a handler has panicked: {error}"))),
    };
    render(answer, head)
}

async fn handle(request: http::Request<Incoming>, peer: IpAddr, manager: Manager) -> Result<Answer> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if path == "/healthz" && matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(Answer::ok(json!({ "status": "ok" })));
    }
    let method = if parts.method == Method::HEAD { Method::GET } else { parts.method };
    let (route, segments) = match routes::find(&method, &path)? {
        Found::Route(route, segments) => (route, segments),
        Found::OtherMethods(allow) if method == Method::OPTIONS => return Ok(Answer::new(StatusCode::OK, Json::Null).header(header::ALLOW, &allow)),
        Found::OtherMethods(allow) => {
            let error = Error::with(Code::MethodNotAllowed, format!("{method} on this path"));
            return Ok(Answer::error(&error).header(header::ALLOW, &allow));
        }
    };
    let who = login::authorize(&manager, &parts.headers, peer, route.access).await?;
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let body = read(body).await?;
    let path = path.strip_suffix('/').unwrap_or(&path).to_owned();
    (route.handler)(Request { manager, who, method, path, segments, query, headers: parts.headers, body }).await
}

async fn read(body: Incoming) -> Result<Bytes> {
    let read = tokio::time::timeout(BODY_TIME_LIMIT, Limited::new(body, BODY_LIMIT).collect());
    match read.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Error::with(Code::InvalidJson, format!("it is longer than {BODY_LIMIT} bytes")))
        }
        Ok(Err(_)) => Err(Error::with(Code::InvalidJson, "it ended early")),
        Err(_) => Err(Error::with(Code::InvalidJson, format!("it took longer than {} s", BODY_TIME_LIMIT.as_secs()))),
    }
}

fn render(answer: Answer, head: bool) -> Response<Full<Bytes>> {
    let mut text = if answer.body.is_null() { Vec::new() } else { serde_json::to_vec(&answer.body).unwrap_or_default() };
    let kind = if has_links(&answer.body) { "application/hal+json" } else { "application/json" };
    let length = text.len();
    if head {
        text.clear();
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache,no-store,must-revalidate"));
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
