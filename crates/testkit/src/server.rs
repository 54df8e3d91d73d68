//! The wire: connections, TLS, one call's way through signature check, faults and execution, and answers that look like those of AWS.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderValue, LOCATION};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::account::KeyState;
use crate::calls::Call;
use crate::control;
use crate::error::KmsError;
use crate::fault::Fault;
use crate::operations::{Operation, context, swap_plaintext};
use crate::shared::Shared;
use crate::sigv4::{Authorization, SignedRequest};

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
const MAX_BODY: usize = 1 << 20;
const MAX_BIG_BODY: usize = 64 << 20;
const MAX_SLOW_MS: u64 = 60_000;
const AMZ_JSON: &str = "application/x-amz-json-1.1";

/// Accepts connections until the task is aborted; all connections end with it.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    shared.state().connections += 1;
                    connections.spawn(connection(stream, peer, tls.clone(), shared.clone()));
                }
                // The machine is out of descriptors, or the peer went away in between: neither ends the server, and a pause keeps the first from spinning.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    // A second handle on the socket, for the fault that resets it.
    let Ok(socket) = stream.as_fd().try_clone_to_owned().map(Arc::new) else { return };
    let Some(acceptor) = tls else {
        return http(stream, peer, shared, socket).await;
    };
    match timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => http(stream, peer, shared, socket).await,
        _ => shared.state().handshake_failures += 1,
    }
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr, shared: Arc<Shared>, socket: Arc<OwnedFd>) {
    let service = service_fn(|request| answer(shared.clone(), peer, request, Arc::clone(&socket)));
    let mut builder = hyper::server::conn::http1::Builder::new();
    // What a peer does wrong, and what a fault breaks off on purpose, ends this connection only.
    let _ = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// Returned in place of an answer: hyper closes the connection.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is closed on purpose")
    }
}

impl std::error::Error for Dropped {}

async fn answer(shared: Arc<Shared>, peer: SocketAddr, request: Request<Incoming>, socket: Arc<OwnedFd>) -> Result<Response<Payload>, Dropped> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Dropped)?.to_bytes();
    if let Some(path) = head.uri.path().strip_prefix("/_control/") {
        let (status, value) = control::handle(&shared, &head.method, path, head.uri.query().unwrap_or_default(), &body).await;
        return Ok(respond(status, "application/json", Bytes::from(value.to_string())));
    }
    let headers: Vec<(String, String)> =
        head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect();
    let signed =
        SignedRequest { method: head.method.as_str(), path: head.uri.path(), query: head.uri.query().unwrap_or_default(), headers: &headers, body: &body };
    let arrived = Arrived::record(&shared, &signed, peer);
    let outcome = arrived.finish(&shared).await;
    shared.conclude(arrived.number, &outcome.noted);
    if matches!(arrived.fault, Some(Fault::Reset)) {
        // With nothing left to linger for, closing is a reset (tcp(7), SO_LINGER of 0 s).
        let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    }
    outcome.response.ok_or(Dropped)
}

/// A call whose signature was checked and whose fault was drawn.
struct Arrived {
    number: u64,
    request_id: String,
    operation: String,
    input: Value,
    authorization: Option<Authorization>,
    verdict: Result<(), KmsError>,
    fault: Option<Fault>,
    skew: SignedDuration,
    ticket: tokio::sync::watch::Receiver<u64>,
}

/// What is noted in the record, and the answer; without one the connection is closed.
struct Outcome {
    noted: String,
    response: Option<Response<Payload>>,
}

impl Arrived {
    fn record(shared: &Shared, request: &SignedRequest<'_>, peer: SocketAddr) -> Self {
        let target = request.header("x-amz-target").unwrap_or_default();
        let operation = target.strip_prefix("TrentService.").unwrap_or_default().to_owned();
        let input: Value = serde_json::from_slice(request.body).unwrap_or_default();
        let claimed = request.header("authorization").and_then(|h| Authorization::parse(&h).ok()).map(|a| a.credential.access_key_id);
        let request_id = Uuid::new_v4().to_string();

        let mut state = shared.state();
        let fault = state.rules.strike(&operation, claimed.as_deref());
        let skew = match fault {
            Some(Fault::ClockSkew { seconds }) => SignedDuration::from_secs(seconds),
            _ => state.skew,
        };
        let caller = state.account.authenticate(request, shifted(skew));
        state.call_count += 1;
        let number = state.call_count;
        let credential = caller.authorization.as_ref().map(|a| &a.credential);
        let call = Call {
            number,
            time: Timestamp::now(),
            operation: operation.clone(),
            key_id: input.get("KeyId").and_then(Value::as_str).map(str::to_owned),
            encryption_context: input.get("EncryptionContext").and_then(|_| context(&input).ok()),
            access_key_id: credential.map(|c| c.access_key_id.clone()),
            region: credential.map(|c| c.region.clone()),
            service: credential.map(|c| c.service.clone()),
            authenticated: caller.verdict.is_ok(),
            peer,
            host: request.header("host"),
            user_agent: request.header("user-agent"),
            request_id: request_id.clone(),
            fault: fault.as_ref().map(|f| f.name().to_owned()),
            outcome: None,
        };
        state.calls.push(call);
        let ticket = shared.ticket();
        drop(state);
        Self { number, request_id, operation, input, authorization: caller.authorization, verdict: caller.verdict, fault, skew, ticket }
    }

    async fn finish(&self, shared: &Shared) -> Outcome {
        let instead = match &self.fault {
            Some(fault @ (Fault::Hang | Fault::Hold)) => {
                let released = shared.hold(self.ticket.clone()).await;
                (matches!(fault, Fault::Hang) || !released).then(|| self.closed())
            }
            Some(Fault::Drop | Fault::Reset) => Some(self.closed()),
            Some(Fault::Revoke { after: false }) => {
                self.revoke(shared);
                None
            }
            Some(fault) => self.instead_of_executing(fault),
            None => None,
        };
        match instead {
            Some(outcome) => outcome,
            None => self.execute(shared).await,
        }
    }

    /// The answers that come without executing anything.
    fn instead_of_executing(&self, fault: &Fault) -> Option<Outcome> {
        let error = match fault {
            Fault::Throttle => {
                KmsError::client("ThrottlingException", "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.")
            }
            Fault::InternalFailure => KmsError::server("InternalFailure", 500, ""),
            Fault::KmsInternal => KmsError::server("KMSInternalException", 503, "An internal error occurred. Try again."),
            Fault::KeyUnavailable => KmsError::server("KeyUnavailableException", 500, "The key is not available. Try again."),
            Fault::DependencyTimeout => KmsError::server("DependencyTimeoutException", 503, "The system timed out while trying to fulfill the request."),
            Fault::Error { code, status, message } => KmsError { code: code.clone(), status: *status, message: message.clone() },
            Fault::NotJson => return Some(self.odd(200, AMZ_JSON, "upstream connect error or disconnect/reset before headers".into(), true)),
            Fault::CaptivePortal => {
                let page = "<!DOCTYPE html><html><head><title>403 Forbidden</title></head><body><h1>Sign in to the network</h1></body></html>";
                return Some(self.odd(403, "text/html; charset=utf-8", page.into(), false));
            }
            Fault::Redirect { location } => {
                let mut outcome = self.odd(302, "text/html", String::new(), false);
                if let (Some(response), Ok(value)) = (outcome.response.as_mut(), HeaderValue::from_str(location)) {
                    response.headers_mut().insert(LOCATION, value);
                }
                return Some(outcome);
            }
            Fault::Xml { code, status } => {
                let xml = format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>The request was refused.</Message></Error><RequestId>{}</RequestId></ErrorResponse>",
                    self.request_id
                );
                return Some(self.odd(*status, "text/xml", xml, true));
            }
            Fault::Big { bytes } => {
                let body = format!("{{\"padding\":\"{}\"}}", "x".repeat((*bytes).min(MAX_BIG_BODY)));
                return Some(self.odd(200, AMZ_JSON, body, true));
            }
            _ => return None,
        };
        Some(Outcome { noted: error.code.clone(), response: Some(self.json(error.status, error.body())) })
    }

    async fn execute(&self, shared: &Shared) -> Outcome {
        let (status, body, noted) = match self.result(shared) {
            Ok(value) => (200, value.to_string().into_bytes(), "ok".to_owned()),
            Err(error) => (error.status, error.body(), error.code),
        };
        match &self.fault {
            Some(Fault::DropAfter) => return self.closed(),
            Some(Fault::Revoke { after: true }) => self.revoke(shared),
            Some(Fault::HoldAfter) if !shared.hold(self.ticket.clone()).await => return self.closed(),
            Some(Fault::Slow { ms }) => sleep(Duration::from_millis((*ms).min(MAX_SLOW_MS))).await,
            Some(Fault::Half) => {
                let length = body.len();
                let first = Bytes::from(body).slice(..length / 2);
                let mut response = self.json(status, Vec::new());
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
                *response.body_mut() = Payload::Half { first: Some(first), paused: false };
                return Outcome { noted: "half".into(), response: Some(response) };
            }
            _ => {}
        }
        Outcome { noted, response: Some(self.json(status, body)) }
    }

    fn result(&self, shared: &Shared) -> Result<Value, KmsError> {
        self.verdict.clone()?;
        let credential = self.authorization.as_ref().map(|a| &a.credential);
        let (region, access_key_id) = credential.map_or(("", ""), |c| (&c.region, &c.access_key_id));
        if !self.input.is_object() {
            return Err(KmsError::client("SerializationException", ""));
        }
        let operation = Operation { name: &self.operation, region, access_key_id, input: &self.input };
        let mut value = shared.state().account.execute(&operation)?;
        if matches!(self.fault, Some(Fault::WrongKek)) {
            swap_plaintext(&mut value);
        }
        Ok(value)
    }

    fn revoke(&self, shared: &Shared) {
        let key_id = self.input.get("KeyId").and_then(Value::as_str).unwrap_or_default();
        let region = self.authorization.as_ref().map_or("", |a| a.credential.region.as_str());
        let account = &mut shared.state().account;
        // A key that is not there needs no revocation.
        if let Ok(id) = account.resolve(region, key_id).map(|key| key.id.clone()) {
            let _ = account.set_state(&id, KeyState::Disabled);
        }
    }

    fn closed(&self) -> Outcome {
        Outcome { noted: self.fault.as_ref().map_or("closed", Fault::name).into(), response: None }
    }

    /// An answer in the shape that AWS KMS gives it.
    fn json(&self, status: u16, body: Vec<u8>) -> Response<Payload> {
        let mut response = respond(status, AMZ_JSON, Bytes::from(body));
        self.add_amz_headers(&mut response);
        response
    }

    fn odd(&self, status: u16, content_type: &'static str, body: String, from_aws: bool) -> Outcome {
        let mut response = respond(status, content_type, Bytes::from(body));
        if from_aws {
            self.add_amz_headers(&mut response);
        }
        Outcome { noted: self.fault.as_ref().map_or("", Fault::name).into(), response: Some(response) }
    }

    fn add_amz_headers(&self, response: &mut Response<Payload>) {
        let date = shifted(self.skew).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let headers = response.headers_mut();
        for (name, value) in [("x-amzn-requestid", self.request_id.as_str()), (DATE.as_str(), &date)] {
            if let (Ok(name), Ok(value)) = (hyper::header::HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        for (name, value) in [("cache-control", "no-cache, no-store, must-revalidate, private"), ("expires", "0"), ("pragma", "no-cache")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

fn respond(status: u16, content_type: &'static str, body: Bytes) -> Response<Payload> {
    let mut response = Response::new(Payload::Whole(Some(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn shifted(skew: SignedDuration) -> Timestamp {
    let now = Timestamp::now();
    now.checked_add(skew).unwrap_or(now)
}

/// The body of an answer.
enum Payload {
    Whole(Option<Bytes>),
    /// Gives the first part, lets it be written, then fails, which closes the connection.
    Half {
        first: Option<Bytes>,
        paused: bool,
    },
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(body) => Poll::Ready(body.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            Self::Half { first, paused } => {
                if let Some(part) = first.take() {
                    return Poll::Ready(Some(Ok(Frame::data(part))));
                }
                // One round in between, in which hyper writes out what it has.
                if !std::mem::replace(paused, true) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(io::Error::other("the rest is withheld on purpose"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Half { .. } => SizeHint::default(),
        }
    }
}
