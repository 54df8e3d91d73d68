//! `/metrics`: what this node tells Prometheus; and what the REST API itself counts.

use crate::connections::Connections;
use crate::request::{Answer, Body, Request};
use crate::routes::{METRICS, ROUTES, Route};
use http::{HeaderMap, StatusCode, header};
use keystead_manager::{Error, Result};
use keystead_metrics::{Counts, Format, Metrics, Name, Page, Source, Timings, trace};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::{Span, field};

/// The upper bounds of the histogram, in seconds: from a GET of one record to a call that waits for its job.
const BOUNDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// The classes of status codes.
const STATUSES: &[&str] = &["2xx", "3xx", "4xx", "5xx"];
/// Why a connection was refused.
const REFUSALS: &[&str] = &["handshake", "limit"];
/// The methods that HTTP has (RFC 9110, section 9; PATCH: RFC 5789).
const KNOWN_METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// The labels of what is no call: what is open to all, and paths that there are not.
const OTHER: &str = "other";

/// Why a connection was refused.
#[derive(Debug, Clone, Copy)]
pub enum Refused {
    /// The handshake has failed, has taken too long, or has made room for others.
    Handshake,
    /// There are too many.
    Limit,
}

/// What the REST API counts.
pub struct Counted {
    /// By the place of a call in the table of routes; then `/metrics`, and all else.
    requests: Timings,
    refused: Counts,
}

impl Default for Counted {
    fn default() -> Self {
        let routes = ROUTES.iter().chain([&METRICS]).map(|route| vec![("method", route.method.as_str()), ("route", route.path)]);
        let all = routes.chain([vec![("method", OTHER), ("route", OTHER)]]);
        Self { requests: Timings::new(all, STATUSES, BOUNDS).by("status").only_used(), refused: Counts::new("reason", REFUSALS) }
    }
}

impl Counted {
    /// Counts a request that was answered. A call on a collection counts as one on its records.
    pub fn request(&self, route: Option<&'static Route>, status: StatusCode, took: Duration) {
        let place = match route {
            Some(route) if std::ptr::eq(route, &METRICS) => ROUTES.len(),
            Some(route) => ROUTES.iter().position(|other| std::ptr::eq(other, route)).unwrap_or(ROUTES.len() + 1),
            None => ROUTES.len() + 1,
        };
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        self.requests.record(place, class, took);
    }

    /// Counts a connection that was refused.
    pub fn refused(&self, why: Refused) {
        self.refused.add(why as usize);
    }
}

/// The metrics of a running server.
pub struct Served {
    /// What it counts.
    pub counted: Arc<Counted>,
    /// Its connections.
    pub connections: Arc<Connections>,
}

impl Source for Served {
    fn write(&self, page: &mut Page<'_>) -> std::fmt::Result {
        page.operations(
            Name::plain("keystead_rest_requests", "Requests to the REST API that were answered, by call and class of the status"),
            &self.counted.requests,
        )?;
        page.durations(
            Name::seconds("keystead_rest_request_duration", "How long requests to the REST API take until the answer begins"),
            &self.counted.requests,
        )?;
        let (open, most) = self.connections.count();
        page.gauge(Name::plain("keystead_rest_connections", "Connections to the REST API, those of other nodes among them"), |samples| {
            samples.count(&[], open)
        })?;
        page.gauge(Name::plain("keystead_rest_connections_max", "How many there may be"), |samples| samples.count(&[], most))?;
        page.counts(Name::plain("keystead_rest_connections_refused", "Connections to the REST API that were refused, by why"), &self.counted.refused)
    }
}

/// The page, for who may read what is the cluster's own: an SVM's administrator would see the others in it.
pub async fn show(request: Request) -> Result<Answer> {
    let format = format(&request.headers);
    let text = text(request.manager.metrics().clone(), format).await.map_err(Error::unexpected)?;
    Ok(Answer { body: Body::Ready(text.into(), format.content_type()), ..Answer::empty(StatusCode::OK) })
}

/// In which format a client wants the page.
pub fn format(headers: &HeaderMap) -> Format {
    Format::of_accept(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()))
}

/// A turn to write a page. There is one at a time, and who waits for it must not hold one of the threads that block.
static TURN: Semaphore = Semaphore::const_new(1);

/// The page, written away from the threads of the runtime.
///
/// # Errors
/// A source has refused, or has panicked.
pub async fn text(metrics: Metrics, format: Format) -> std::result::Result<String, String> {
    let turn = TURN.acquire().await.map_err(|error| error.to_string())?;
    let written = tokio::task::spawn_blocking(move || {
        // It ends with the page, and not when who has asked goes away.
        let _turn = turn;
        metrics.text(format)
    })
    .await;
    written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// The span of a request, in the trace that it names where it names one. Neither the path as it came nor anything of the body stands in it.
pub fn span(method: &http::Method, route: Option<&'static Route>, headers: &HeaderMap) -> Span {
    let path = route.map_or(OTHER, |route| route.path);
    let (name, method) = names(method);
    let span = tracing::info_span!(
        target: trace::TARGET,
        "http",
        otel.name = format!("{name} {path}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = path,
        http.response.status_code = field::Empty,
    );
    if !span.is_disabled()
        && let Some(parent) = headers.get(trace::HEADER).and_then(|parent| parent.to_str().ok())
    {
        trace::continue_from(&span, parent);
    }
    span
}

/// A method in the name of a span, and as its attribute. What a client has made up is no name of anything (OpenTelemetry's conventions for HTTP spans).
fn names(method: &http::Method) -> (&str, &str) {
    if KNOWN_METHODS.contains(&method.as_str()) { (method.as_str(), method.as_str()) } else { ("HTTP", "_OTHER") }
}

/// Says in the span of a request what was answered.
pub fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    // What a client has done wrong is no error of the server (OpenTelemetry's conventions for HTTP spans).
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_take_one_thread_however_many_ask() {
        use std::sync::Mutex;
        use std::sync::mpsc::{Receiver, Sender, channel};
        struct Slow(Sender<()>, Mutex<Receiver<()>>);
        impl Source for Slow {
            fn write(&self, _page: &mut Page<'_>) -> std::fmt::Result {
                self.0.send(()).map_err(|_| std::fmt::Error)?;
                self.1.lock().map_err(|_| std::fmt::Error)?.recv().map_err(|_| std::fmt::Error)
            }
        }
        // Two threads that block: the second is for others.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).max_blocking_threads(2).enable_all().build().unwrap();
        let ((begun, begins), (go, goes)) = (channel(), channel());
        let metrics = Metrics::default();
        metrics.register(Slow(begun, Mutex::new(goes)));
        let pages: Vec<_> = (0..5).map(|_| runtime.spawn(text(metrics.clone(), Format::Prometheus))).collect();
        begins.recv().unwrap();
        let other = async { tokio::time::timeout(Duration::from_secs(20), tokio::task::spawn_blocking(|| ())).await };
        let other = runtime.block_on(other);
        pages.iter().for_each(|_| go.send(()).unwrap());
        assert!(other.is_ok(), "no thread was left");
        for page in pages {
            assert!(runtime.block_on(page).unwrap().is_ok());
        }
    }

    #[test]
    fn a_method_that_a_client_has_made_up_names_no_span() {
        assert_eq!(names(&http::Method::PATCH), ("PATCH", "PATCH"));
        assert_eq!(names(&http::Method::from_bytes(b"SECRET-IN-A-METHOD").unwrap()), ("HTTP", "_OTHER"));
    }

    #[test]
    fn each_call_is_counted_under_its_route_and_what_was_never_called_is_left_out() {
        struct Room(Counted);
        impl Source for Room {
            fn write(&self, page: &mut Page<'_>) -> std::fmt::Result {
                page.operations(Name::plain("r", "Requests"), &self.0.requests)
            }
        }
        let counted = Counted::default();
        for (route, status) in [(Some(&ROUTES[0]), StatusCode::OK), (Some(&METRICS), StatusCode::UNAUTHORIZED), (None, StatusCode::INTERNAL_SERVER_ERROR)] {
            counted.request(route, status, Duration::from_millis(1));
        }
        let metrics = Metrics::default();
        metrics.register(Room(counted));
        let page = metrics.text(Format::Prometheus).unwrap();
        let samples: Vec<&str> = page.lines().filter(|line| line.ends_with(" 1")).collect();
        assert_eq!(
            samples,
            [
                format!("r_total{{method=\"GET\",route=\"{}\",status=\"2xx\"}} 1", ROUTES[0].path),
                "r_total{method=\"GET\",route=\"/metrics\",status=\"4xx\"} 1".to_owned(),
                "r_total{method=\"other\",route=\"other\",status=\"5xx\"} 1".to_owned(),
            ]
        );
        assert_eq!(page.lines().count(), 2 + 3 * STATUSES.len(), "{page}");
    }
}
