//! A call, from who asks to what is answered: login, the record of it, its body, its handler, its time. What comes in at the socket goes this way, and so does what a page of the console asks and does.

use crate::audit::{self, Call, Source, Trail};
use crate::bulk::{self, Failure};
use crate::login::{self, Locked, Permit, Sender};
use crate::openapi;
use crate::query::Query;
use crate::request::{Answer, Head, Request};
use crate::routes::{self, Found, Route};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use keystead_manager::{Code, Error, Manager, Result};
use std::time::Duration;

/// The longest body.
pub const BODY_LIMIT: usize = 1024 * 1024;
/// How long a call on many records may take: they may go one after the other.
const MANY_RECORDS_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Who calls, as far as the connection says it, and what of.
#[derive(Clone, Copy)]
pub struct Caller<'c> {
    /// The key manager.
    pub manager: &'c Manager,
    /// Where the call comes from.
    pub source: Source,
    /// What the connection has shown.
    pub sender: &'c Sender,
    /// For what a call does, beside what `return_timeout` asks to wait.
    pub request_timeout: Duration,
}

/// What is asked.
pub struct Asked<'c> {
    /// The method; HEAD is a GET.
    pub method: Method,
    /// The path, without what is after the `?`.
    pub path: &'c str,
    /// What is after the `?`, as it came.
    pub query: &'c str,
    /// The headers. They say who asks.
    pub headers: HeaderMap,
    /// What the path leads to, as [`routes::find`] says.
    pub found: Result<Found>,
}

/// The body of a call.
pub enum Given {
    /// What the connection will bring, within this time. It stays closed until the call was permitted.
    Stream(Box<Locked<Incoming>>, Duration),
    /// What is there already.
    Ready(Bytes),
}

impl Given {
    async fn read(self, permit: &Permit) -> Result<Bytes> {
        match self {
            Self::Stream(body, limit) => read(body.open(permit), BODY_LIMIT, limit).await,
            Self::Ready(body) => Ok(body),
        }
    }
}

/// Makes a call.
///
/// # Errors
/// Whatever keeps it from being made, or its handler has answered.
pub async fn perform(caller: Caller<'_>, asked: Asked<'_>, given: Given) -> Result<Answer> {
    let Caller { manager, source, sender, request_timeout } = caller;
    let Asked { method, path, query, headers, found } = asked;
    let (route, segments, of_collection) = match found? {
        Found::Route(route, segments) => (route, segments, false),
        Found::Collection(route) => (route, Vec::new(), true),
        Found::OtherMethods(allow) => return Ok(other_method(&method, &allow)),
    };
    let permit = match login::authorize(manager, &headers, sender, route).await {
        Ok(permit) => permit,
        Err(refused) => {
            let shown = login::shown(&headers, sender);
            return Err(audit::refused(manager, source, (&method, path), shown, refused));
        }
    };
    let who = permit.who().clone();
    audit::logged_in(manager, source, &who, permit.proof());
    let path = path.strip_suffix('/').unwrap_or(path).to_owned();
    let trail = Trail::default();
    let object = segments.first().and_then(|first| first.parse().ok());
    let call = Call { manager, source, who: &who, method: &method, path: &path, object };
    let recorded = if method == Method::GET { None } else { Some(call.begin(&trail).await?) };
    let answer = async {
        let query = Query::parse(query)?;
        query.check(method == Method::GET)?;
        let body = given.read(&permit).await?;
        let head = Head { method, path, segments, query, headers, source };
        let request = Request::new(permit, manager.clone(), head, body).with_trail(trail);
        within(request, route, of_collection, request_timeout).await
    };
    let (answer, jobs) = match answer.await {
        Ok(answer) => (Ok(answer), Vec::new()),
        Err(Failure { error, jobs }) => (Err(error), jobs),
    };
    if let Some(recorded) = recorded {
        recorded.end(&answer).await;
    }
    answer.or_else(|error| if jobs.is_empty() { Err(error) } else { Ok(Failure { error, jobs }.answer()) })
}

/// A method that a path does not have, or the question which it has.
pub fn other_method(method: &Method, allow: &str) -> Answer {
    let answer = if method == Method::OPTIONS {
        Answer::empty(StatusCode::OK)
    } else {
        Answer::error(&Error::with(Code::MethodNotAllowed, format!("{method} on this path")))
    };
    answer.header(header::ALLOW, allow)
}

/// Reads a body of at most so many bytes, within this time.
///
/// # Errors
/// 262201.
pub async fn read(body: Incoming, most: usize, limit: Duration) -> Result<Bytes> {
    let read = tokio::time::timeout(limit, Limited::new(body, most).collect());
    match read.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Error::with(Code::InvalidJson, format!("it is longer than {most} bytes"))),
        Ok(Err(_)) => Err(Error::with(Code::InvalidJson, "it ended early")),
        Err(_) => Err(Error::with(Code::InvalidJson, format!("it took longer than {} s", limit.as_secs_f32()))),
    }
}

/// The answer of a call, or of the many that it stands for, within its time.
async fn within(request: Request, route: &'static Route, of_collection: bool, request_timeout: Duration) -> std::result::Result<Answer, Failure> {
    let may_be_many = of_collection || (request.method == Method::POST && openapi::takes_records(route));
    let is_array = may_be_many && bulk::has_records(&request);
    let on_many = of_collection || is_array;
    let limit = if on_many { MANY_RECORDS_LIMIT } else { request_timeout } + request.query.return_timeout()?;
    let work = async {
        match request.method {
            _ if is_array => bulk::records(request).await,
            _ if of_collection => bulk::by_query(request, route).await,
            Method::GET if request.query.get("job_results_uuid").is_some() && routes::is_collection(route) => Ok(bulk::results(request).await?),
            _ => Ok(routes::answer(request).await?),
        }
    };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("the call took longer than {} s and was given up here; look whether it has had its effect", limit.as_secs_f32());
        Err(Error::with(Code::Unexpected, message).detail(format!("{} {}", route.method, route.path)).into())
    })
}
