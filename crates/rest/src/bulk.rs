//! Calls on many records: a `records` array in a POST, PATCH or DELETE of a collection, and a PATCH or DELETE by query.
//!
//! Each record goes the way that it would go alone: through the call for one record, with the same checks. A `records` array becomes one job that stands for all; a call by query is answered with the
//! jobs that it has started.

use crate::audit;
use crate::body;
use crate::jobs;
use crate::openapi;
use crate::openapi::calls::{CALLS, Shape};
use crate::query::Query;
use crate::request::{Answer, Body, Done, Request, job_path, links};
use crate::resource::put;
use crate::routes::{self, Found, Route};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::{Method, StatusCode, header};
use keystead_manager::model::{Job, JobState};
use keystead_manager::{BulkItem, Code, Error, Result};
use serde_json::{Map, Value as Json, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// The most records of an array: what came of them stands in one record of the store.
const MAX_RECORDS: usize = 2_000;
/// How many records are accepted at a time, where none has to wait for another.
const AT_A_TIME: usize = 16;
/// The longest wait for one job where records go one after the other.
const SERIAL_WAIT: Duration = Duration::from_secs(120);
/// Parameters of a call by query that are not its filters. A filter that is not known is refused whatever `ignore_unknown_fields` says: without it, the call would be about all records.
const OF_THE_CALL: &[&str] = &["ignore_unknown_fields", "return_timeout", "return_records", "continue_on_failure", "serial_records", "fields", "pretty"];

/// What came of the call for one record.
struct Outcome {
    href: Option<String>,
    /// The job that it has started.
    job: Option<Uuid>,
    /// Why it was refused, or why its job has failed.
    error: Option<Error>,
    /// It was matched by a query, and somebody else has deleted it before it was its turn, or before its job was done.
    gone: bool,
}

impl Outcome {
    /// Notes how its job has ended, or how far it is.
    async fn ended(&mut self, request: &Request, named: Named, job: Job) {
        let error = failure_of(job);
        if error.is_some() && named == Named::ByQuery && is_gone(request, self.href.clone()).await {
            self.gone = true;
        } else {
            self.error = error;
        }
    }
}

/// Who has named the records of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    /// The caller: one that is not there is a failure.
    One,
    /// A query: one that is not there any more is none of those that were meant. Clients repeat a call whose answer takes long, and then both are at work.
    ByQuery,
}

/// Why a call has failed, and the jobs that it has started: they are not taken back.
pub struct Failure {
    /// Why.
    pub error: Error,
    /// The jobs.
    pub jobs: Vec<Uuid>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, jobs: Vec::new() }
    }
}

impl Failure {
    /// The answer. The jobs are its arguments: clients show those, or keep them with the error.
    pub fn answer(&self) -> Answer {
        let mut answer = Answer::error(&self.error);
        if let (Body::Json(Json::Object(body)), false) = (&mut answer.body, self.jobs.is_empty()) {
            let jobs: Vec<Json> = self.jobs.iter().map(|job| json!({ "code": "job", "message": job })).collect();
            put(body, "error.arguments", json!(jobs));
        }
        answer
    }
}

/// Whether the body of a call on a collection is an array of records.
pub fn has_records(request: &Request) -> bool {
    // A body that is no JSON is refused where it is read.
    request.object().is_ok_and(|body| body.contains_key("records"))
}

/// A POST, PATCH or DELETE with a `records` array. Each record of a POST goes the way of a single body.
///
/// # Errors
/// 262254 no array; 262245 none, or too many; 262179 another member; and what was said of the first record, where none was accepted.
pub async fn records(request: Request) -> std::result::Result<Answer, Failure> {
    let mut body = request.object()?;
    let records = match body.remove("records") {
        Some(Json::Array(records)) => records,
        _ => return Err(Error::new(Code::ArrayExpected).target("records").into()),
    };
    if let Some(name) = body.keys().find(|name| *name != "_links" && *name != "num_records") {
        return Err(Error::with(Code::UnknownField, name).target(name.as_str()).into());
    }
    if records.is_empty() || records.len() > MAX_RECORDS {
        return Err(Error::with(Code::OutOfBounds, format!("1 to {MAX_RECORDS} records")).target("records").into());
    }
    check_parameters(&request)?;
    let outcomes = run(&request, Named::One, records.into_iter().map(|record| single(&request, record))).await?;
    let accepted = outcomes.iter().any(|outcome| outcome.error.is_none());
    if let (false, Some(Outcome { error: Some(error), .. })) = (accepted, outcomes.first()) {
        return Err(Failure { error: at(0, error), jobs: jobs_of(&outcomes) });
    }
    let item = |(n, outcome): (usize, &Outcome)| match &outcome.error {
        None => BulkItem::accepted(outcome.href.clone(), outcome.job),
        Some(error) => BulkItem::refused(&at(n, error)),
    };
    let items: Vec<BulkItem> = outcomes.iter().enumerate().map(item).collect();
    let description = format!("{} {}", request.method, request.path);
    let started = request.manager.start_bulk(&request.who, &description, &request.path, items).await;
    let started = started.map_err(|error| Failure { error, jobs: jobs_of(&outcomes) })?;
    let results = format!("{}?job_results_uuid={}", request.path, started.job);
    let status = if request.method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
    let waited = request.accepted(started, Done { status, location: None, record: None }).await;
    let answer = waited.map_err(|error| Failure { error, jobs: vec![started.job] })?;
    Ok(match answer.body {
        Body::Json(Json::Object(mut body)) if answer.status == StatusCode::ACCEPTED => {
            put(&mut body, "job._links.results", json!({ "href": results }));
            Answer::new(StatusCode::ACCEPTED, Json::Object(body))
        }
        _ => Answer::new(answer.status, json!({ "_links": { "results": { "href": results } } })),
    })
}

/// Refuses parameters beside an array, as they are refused beside one record.
///
/// # Errors
/// Those of [`Query::check_change`]; for 262211 with anything but a POST, 262186.
fn check_parameters(request: &Request) -> Result<()> {
    let Found::Route(list, _) = routes::find(&Method::GET, &request.path)? else { return Ok(()) };
    let Some(Shape::List(listed)) = CALLS.iter().find(|call| call.method == Method::GET && call.path == list.path).map(|call| call.shape) else {
        return Ok(());
    };
    request.query.check_change(listed, &[]).map_err(|error| match &error.target {
        Some(name) if error.code == Code::FilterOnCreate && request.method != Method::POST => {
            Error::with(Code::FieldCombination, "records name themselves; a filter does not go with them").target(name.as_str())
        }
        _ => error,
    })
}

/// `?job_results_uuid=`: what came of the records of a call. While its job runs, that is what was refused alone, and the job.
///
/// # Errors
/// 4 no such job any more; 262247 no UUID.
pub async fn results(request: Request) -> Result<Answer> {
    let text = request.query.get("job_results_uuid").unwrap_or_default();
    let job = text.parse().map_err(|_| Error::with(Code::InvalidValue, "it must be a UUID").target("job_results_uuid"))?;
    // Looked at first: what came of the records is written no later than the end of the job.
    let open = request.manager.job(job).await.ok().filter(|job| !matches!(job.state, JobState::Success | JobState::Failure));
    let items = request.manager.bulk_results(&request.who, job, &request.path)?;
    let (mut records, mut errors) = (Vec::new(), Vec::new());
    for item in &items {
        match item.error() {
            Some(error) => errors.push(error_of(&error, item.href.as_deref())),
            None if open.is_some() => {}
            None => records.push(shown(&request, item.href.as_deref()).await),
        }
    }
    let mut body = Map::new();
    if let Some(open) = open {
        put(&mut body, "job", json!({ "uuid": job, "state": jobs::state(open.state), "_links": links(&job_path(job)) }));
    }
    put(&mut body, "num_records", json!(records.len()));
    put(&mut body, "records", Json::Array(records));
    if !errors.is_empty() {
        put(&mut body, "errors", Json::Array(errors));
    }
    Ok(Answer::ok(Json::Object(body)))
}

/// A PATCH or DELETE of all records that pass the filters, a page of them at a time.
///
/// # Errors
/// Those of the body; 262177 without a filter: a whole collection is changed by nobody by mistake; those of a list; and, unless `continue_on_failure`, why the first record was refused, or why its job
/// has failed where the caller has waited for it.
pub async fn by_query(request: Request, each: &Route) -> std::result::Result<Answer, Failure> {
    if request.query.filters().next().is_none() {
        let message = format!("{} of a collection needs at least one field to filter by", request.method);
        return Err(Error::with(Code::MissingValue, message).target("query").into());
    }
    check_body(&request, each, request.object()?)?;
    let (continues, wait) = (continues(&request)?, request.query.return_timeout()?);
    let (hrefs, next) = matching(&request).await?;
    // All have the one body.
    let mut outcomes = run(&request, Named::ByQuery, hrefs.clone().into_iter().map(|href| at_path(&request, &href, request.body()))).await?;
    let refused = outcomes.iter().any(|outcome| outcome.error.is_some());
    let ended = !wait.is_zero() && (continues || !refused) && ended(&request, &mut outcomes, wait).await;
    let jobs = jobs_of(&outcomes);
    let failed: Vec<(&String, &Error)> = hrefs.iter().zip(&outcomes).filter_map(|(href, outcome)| Some((href, outcome.error.as_ref()?))).collect();
    let accepted = outcomes.iter().filter(|outcome| outcome.error.is_none() && !outcome.gone).count();
    if let (false, Some((href, error))) = (continues, failed.first()) {
        let others = if jobs.is_empty() { "" } else { ", and `arguments` names the jobs that were started" };
        let message = format!("{} ({href}; {accepted} other records were accepted{others})", error.message);
        return Err(Failure { error: Error { message, ..(*error).clone() }, jobs });
    }
    let status = if jobs.is_empty() || ended { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut answer = Map::new();
    put(&mut answer, "num_records", json!(accepted));
    // Those too that have failed: clients look at each.
    let links_of = |job: &Uuid| json!({ "uuid": job, "_links": links(&job_path(*job)) });
    put(&mut answer, "jobs", jobs.iter().map(links_of).collect());
    if !failed.is_empty() {
        put(&mut answer, "errors", failed.iter().map(|(href, error)| error_of(error, Some(href))).collect());
    }
    if let Some(next) = next {
        put(&mut answer, "_links.next.href", json!(next));
    }
    Ok(Answer::new(status, Json::Object(answer)))
}

/// A body that no record can take is refused also where no record passes.
fn check_body(request: &Request, each: &Route, body: Map<String, Json>) -> Result<()> {
    match CALLS.iter().find(|call| call.method == each.method && call.path == each.path).map(|call| call.shape) {
        Some(Shape::Modify(resource, _) | Shape::Control(resource)) => {
            let values = body::read_patch(resource, body, request.query.unknown())?;
            if values.is_empty() { Err(Error::new(Code::NoInput)) } else { Ok(()) }
        }
        Some(Shape::Delete(_)) => match body.keys().next() {
            Some(name) => Err(Error::with(Code::BodyNotAllowed, name).target(name.as_str())),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The call for a record of an array.
fn single(request: &Request, record: Json) -> Result<Request> {
    let Json::Object(mut record) = record else { return Err(Error::with(Code::InvalidRecord, "it must be an object")) };
    let text = |record: Map<String, Json>| serde_json::to_vec(&record).unwrap_or_default().into();
    if request.method == Method::POST {
        return request.for_record(request.permit().route(), request.path.clone(), Vec::new(), text(record));
    }
    let path = path_of(request, &mut record)?;
    at_path(request, &path, text(record))
}

/// Where the record of an array stands: by its link, or by what its path is made of. What says so is taken out: the rest is the body.
///
/// # Errors
/// 262212 neither is there; 262186 they do not name the same record.
fn path_of(request: &Request, record: &mut Map<String, Json>) -> Result<String> {
    let link = record.remove("_links").and_then(|links| Some(links.get("self")?.get("href")?.as_str()?.to_owned()));
    let each = request.permit().route();
    let of_link = link.as_ref().and_then(|link| match routes::find(&request.method, link) {
        Ok(Found::Route(route, segments)) if std::ptr::eq(route, each) => Some(segments),
        _ => None,
    });
    let mut path = request.path.clone();
    let mut missing = None;
    for (n, name) in openapi::segments_of(each).iter().enumerate() {
        let Some(text) = take(record, name) else {
            missing = missing.or(Some(*name));
            continue;
        };
        let linked = of_link.as_ref().and_then(|segments| segments.get(n));
        if link.is_some() && linked.is_none_or(|linked| !linked.eq_ignore_ascii_case(&text)) {
            return Err(Error::with(Code::FieldCombination, format!("_links.self leads to another record than {name}")).target(*name));
        }
        path = format!("{path}/{}", percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC));
    }
    match (link.filter(|link| link.starts_with(&request.path)), missing) {
        (Some(link), _) => Ok(link),
        (None, None) => Ok(path),
        (None, Some(missing)) => Err(Error::with(Code::MissingField, missing).target(missing)),
    }
}

/// Takes a text out of a record, by its dotted path, as clients write that: nested, or in one.
fn take(record: &mut Map<String, Json>, path: &str) -> Option<String> {
    if let Some(value) = record.remove(path) {
        return value.as_str().map(str::to_owned);
    }
    let (name, rest) = path.split_once('.')?;
    let inner = record.get_mut(name)?.as_object_mut()?;
    let taken = take(inner, rest);
    if inner.is_empty() {
        record.remove(name);
    }
    taken
}

/// The call at the path of a record.
fn at_path(request: &Request, path: &str, body: Bytes) -> Result<Request> {
    match routes::find(&request.method, path)? {
        Found::Route(route, segments) => request.for_record(route, path.to_owned(), segments, body),
        _ => Err(Error::new(Code::NotFound).target("uuid")),
    }
}

/// Makes the calls, as `continue_on_failure` and `serial_records` want it. What comes behind a failure that ends them all is not there. Each call comes into being when its turn has come.
///
/// What a query has found has no order: some go at the same time, and after a failure no more are begun. The records of an array go one after the other where the first failure ends them.
async fn run(request: &Request, named: Named, calls: impl Iterator<Item = Result<Request>>) -> Result<Vec<Outcome>> {
    let (continues, serial) = (continues(request)?, request.query.flag("serial_records", false)?);
    if !serial && (continues || named == Named::ByQuery) {
        let failed = AtomicBool::new(false);
        let begun = calls.take_while(|_| continues || !failed.load(Ordering::Relaxed));
        let made = begun.map(|call| {
            make(request, named, call).inspect(|outcome| {
                failed.fetch_or(outcome.error.is_some(), Ordering::Relaxed);
            })
        });
        return Ok(futures_util::stream::iter(made).buffered(AT_A_TIME).collect().await);
    }
    let mut outcomes = Vec::new();
    for call in calls {
        let mut outcome = make(request, named, call).await;
        if let (true, Some(job)) = (serial, outcome.job) {
            // A job that cannot be looked at any more is named all the same.
            match request.manager.wait_job(job, SERIAL_WAIT).await {
                Ok(job) => outcome.ended(request, named, job).await,
                Err(error) => outcome.error = Some(error),
            }
        }
        let failed = outcome.error.is_some();
        outcomes.push(outcome);
        if failed && !continues {
            break;
        }
    }
    Ok(outcomes)
}

async fn make(request: &Request, named: Named, call: Result<Request>) -> Outcome {
    let path = call.as_ref().ok().map(|call| call.path.clone());
    let made = async {
        let request = call?;
        let path = (request.method != Method::POST).then(|| request.path.clone());
        let answer = recorded(request).await?;
        let location = answer.headers.get(header::LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
        let job = match &answer.body {
            Body::Json(body) => body.get("job").and_then(|job| job.get("uuid")?.as_str()?.parse().ok()),
            _ => None,
        };
        Ok(Outcome { href: location.or(path), job, error: None, gone: false })
    };
    match made.await {
        Ok(outcome) => outcome,
        Err(_) if named == Named::ByQuery && is_gone(request, path).await => Outcome { href: None, job: None, error: None, gone: true },
        Err(error) => Outcome { href: None, job: None, error: Some(error), gone: false },
    }
}

/// Whether there is nothing at the path of a record.
async fn is_gone(request: &Request, path: Option<String>) -> bool {
    let Some(path) = path else { return false };
    let Ok(Found::Route(route, segments)) = routes::find(&Method::GET, &path) else { return false };
    let Ok(one) = request.for_record(route, path, segments, Bytes::new()) else { return false };
    routes::answer(one).await.is_err_and(|error| error.code == Code::NotFound)
}

/// Each record's call stands in the audit log by itself.
async fn recorded(request: Request) -> Result<Answer> {
    let (manager, who, trail) = (request.manager.clone(), request.who.clone(), request.trail.clone());
    let (method, path, object) = (request.method.clone(), request.path.clone(), request.segments.first().and_then(|first| first.parse().ok()));
    let recorded = audit::Call { manager: &manager, source: request.source, who: &who, method: &method, path: &path, object }.begin(&trail).await?;
    let answer = routes::answer(request).await;
    recorded.end(&answer).await;
    answer
}

/// Where the records of a page of the list stand, and where the next page is.
async fn matching(request: &Request) -> Result<(Vec<String>, Option<String>)> {
    let parameters = request.query.all().filter(|(name, _)| !OF_THE_CALL.contains(name));
    let Found::Route(route, segments) = routes::find(&Method::GET, &request.path)? else { return Err(Error::new(Code::MethodNotAllowed)) };
    let list = request.for_record(route, request.path.clone(), segments, Bytes::new())?.with_query(Query::of(parameters));
    let answer = routes::answer(list.with_links()).await?;
    let read = |text: &[u8]| serde_json::from_slice(text).map_err(|error| Error::unexpected(format!("a list of our own cannot be read: {error}")));
    let page: Json = match answer.body {
        Body::Long(text, _) => read(&text.text())?,
        Body::Written(text, _) => read(&text)?,
        Body::Json(json) => json,
        Body::None | Body::Ready(..) => Json::Null,
    };
    let href = |json: &Json, link: &str| json.get("_links").and_then(|links| Some(links.get(link)?.get("href")?.as_str()?.to_owned()));
    let hrefs = page.get("records").and_then(Json::as_array).into_iter().flatten().filter_map(|record| href(record, "self")).collect();
    // The page after, with all that this call was given.
    let start = href(&page, "next").and_then(|next| Some(Query::parse(next.split_once('?')?.1).ok()?.get("start")?.to_owned()));
    Ok((hrefs, start.map(|start| request.next_page(&start))))
}

/// A record that a call has made or changed, as it is now.
async fn shown(request: &Request, href: Option<&str>) -> Json {
    let Some(href) = href else { return json!({}) };
    let found = routes::find(&Method::GET, href.split('?').next().unwrap_or_default());
    if let Ok(Found::Route(route, segments)) = found {
        let one = request.for_record(route, href.to_owned(), segments, Bytes::new());
        if let Ok(one) = one
            && let Ok(Answer { body: Body::Written(text, _), .. }) = routes::answer(one.with_links()).await
        {
            return serde_json::from_slice(&text).unwrap_or_default();
        }
    }
    // It is gone: it was deleted, by this call or since.
    json!({ "uuid": href.rsplit('/').next(), "_links": links(href) })
}

/// Waits for all jobs of a call by query, and notes which have failed. Whether all have ended in time.
async fn ended(request: &Request, outcomes: &mut [Outcome], limit: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + limit;
    let mut all = true;
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.error.is_none()) {
        let Some(job) = outcome.job else { continue };
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        match request.manager.wait_job(job, left).await {
            Ok(job) if matches!(job.state, JobState::Success | JobState::Failure) => outcome.ended(request, Named::ByQuery, job).await,
            _ => all = false,
        }
    }
    all
}

/// Why a job has failed, if it has.
fn failure_of(job: Job) -> Option<Error> {
    (job.state == JobState::Failure).then(|| job.error.unwrap_or_else(|| Error::unexpected("a job has failed without an error")))
}

/// The jobs that were started.
fn jobs_of(outcomes: &[Outcome]) -> Vec<Uuid> {
    outcomes.iter().filter_map(|outcome| outcome.job).collect()
}

/// An error in a list of errors, with the record that it is about.
fn error_of(error: &Error, href: Option<&str>) -> Json {
    let mut inner = crate::error::inner(error);
    if let Some(href) = href {
        put(&mut inner, "_links", links(href));
    }
    Json::Object(inner)
}

fn continues(request: &Request) -> Result<bool> {
    request.query.flag("continue_on_failure", false)
}

fn at(n: usize, error: &Error) -> Error {
    let target = error.target.as_ref().map_or_else(|| format!("records[{n}]"), |target| format!("records[{n}].{target}"));
    error.clone().target(target)
}
