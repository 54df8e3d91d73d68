//! The listener for Prometheus alone: `/metrics` in the clear and without a login, for a scraper on the same machine or in a network of the operator's own.
//!
//! Nothing but that page is served here. It shows the names of SVMs and nodes, and how they are; no secret, and nothing can be changed.

use crate::metrics::{format, text};
use crate::patience::Patient;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use keystead_metrics::Metrics;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How many connections there may be: scrapers are few.
const MOST: usize = 16;
/// How long a connection may wait between two requests, and take for one: scrapes come once a minute or so.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause after the system has no descriptors for another connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Serves the page until `stop`.
pub async fn serve(listener: TcpListener, metrics: Metrics, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MOST));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for /metrics could not be accepted");
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            }
        };
        // Who comes when there are too many is not served: an old connection is a scraper's, a new one may be anybody's.
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (metrics, stop) = (metrics.clone(), stop.clone());
        tokio::spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(stream, metrics) => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, metrics: Metrics) {
    let service = service_fn(move |request| {
        let metrics = metrics.clone();
        async move { Ok::<_, Infallible>(answer(&request, metrics).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // Who asks for pages and takes none keeps its place no longer than others.
    if let Err(error) = builder.serve_connection(TokioIo::new(Patient::new(stream, PATIENCE)), service).await {
        tracing::debug!(%error, "a connection for /metrics has ended with an error");
    }
}

async fn answer(request: &Request<Incoming>, metrics: Metrics) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET | &Method::HEAD) => {
            let format = format(request.headers());
            match tokio::time::timeout(PATIENCE, text(metrics, format)).await {
                Ok(Ok(text)) => (StatusCode::OK, format.content_type(), Bytes::from(text)),
                Ok(Err(error)) => failed(&error),
                Err(_) => failed("it takes too long"),
            }
        }
        ("/metrics", _) => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, Bytes::from_static(b"GET alone\n")),
        _ => (StatusCode::NOT_FOUND, PLAIN, Bytes::from_static(b"only /metrics is served here\n")),
    };
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn failed(error: &str) -> (StatusCode, &'static str, Bytes) {
    tracing::error!(error, "/metrics cannot be written");
    (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, Bytes::from_static(b"the page cannot be written; see the log of the node\n"))
}

const PLAIN: &str = "text/plain; charset=utf-8";
