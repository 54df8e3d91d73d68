//! A request after login, and the answer to it.

use crate::error;
use crate::query::Query;
use crate::resource::Resource;
use crate::{field, json};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use keystead_manager::model::{Accepted, Job, JobState, Principal, Role};
use keystead_manager::{Code, Error, Manager, Result};
use serde_json::{Map, Value as Json, json as object};
use uuid::Uuid;

/// A request whose sender is known. The body is only reachable through it, so that nothing can be read before the login.
pub struct Request {
    /// The key manager.
    pub manager: Manager,
    /// Who asks.
    pub who: Principal,
    /// The method; HEAD is a GET.
    pub method: Method,
    /// The path as it was asked for, without what is after the `?`.
    pub path: String,
    /// The variable parts of the path, in their order.
    pub segments: Vec<String>,
    /// The parameters.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// The body as an object.
    ///
    /// # Errors
    /// See [`json::object`].
    pub fn object(&self) -> Result<Map<String, Json>> {
        json::object(&self.body)
    }

    /// The UUID in the path.
    ///
    /// # Errors
    /// 4: what is no UUID does not exist.
    pub fn uuid(&self) -> Result<Uuid> {
        self.segments.first().and_then(|segment| segment.parse().ok()).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))
    }

    /// Whether `_links` are sent: unless the client prefers plain JSON.
    pub fn links(&self) -> bool {
        let accept = self.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
        let named = |kind: &str| accept.split(',').any(|part| part.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind));
        // Pages that `next` has led to have them whatever is accepted: Ansible looks there for the page after.
        named("application/hal+json") || !named("application/json") || self.query.get("start").is_some()
    }

    /// Whether this account may see what belongs to that SVM.
    pub fn sees(&self, svm: Uuid) -> bool {
        match self.who.role {
            Role::Admin | Role::Readonly => true,
            Role::Vsadmin { svm: own } => own == svm,
        }
    }

    /// The SVM that the headers name (`X-Dot-SVM-Name`, `X-Dot-SVM-UUID`).
    ///
    /// # Errors
    /// 262247.
    pub fn tunnel(&self) -> Result<(Option<Uuid>, Option<String>)> {
        let text = |name: &str| -> Result<Option<String>> {
            let wrong = |_| Error::with(Code::InvalidValue, "the header is not text").target(name);
            self.headers.get(name).map(|value| value.to_str().map(str::to_owned)).transpose().map_err(wrong)
        };
        let uuid = text("x-dot-svm-uuid")?.map(|text| text.parse()).transpose();
        let uuid = uuid.map_err(|_| Error::with(Code::InvalidValue, "it must be a UUID").target("X-Dot-SVM-UUID"))?;
        Ok((uuid, text("x-dot-svm-name")?))
    }

    /// Answers a call that goes on as a job: 202, or the end of the job if the caller waits and it comes in time.
    ///
    /// # Errors
    /// The job's own, where the caller has waited for it.
    pub async fn accepted(&self, accepted: Accepted, done: Done) -> Result<Answer> {
        let wait = self.query.return_timeout()?;
        let job = if wait.is_zero() { None } else { Some(self.manager.wait_job(accepted.job, wait).await?) };
        let location = |answer: Answer| match done.location {
            Some(path) => answer.header(header::LOCATION, &format!("{path}/{}", accepted.resource)),
            None => answer,
        };
        match job {
            Some(Job { state: JobState::Failure, error, .. }) => Err(error.unwrap_or_else(|| Error::unexpected("a job has failed without an error"))),
            Some(Job { state: JobState::Success, .. }) => {
                let body = match done.record {
                    Some(record) if self.query.flag("return_records", false)? => object!({ "num_records": 1, "records": [record] }),
                    _ => object!({}),
                };
                Ok(location(Answer::new(done.status, body)))
            }
            // Clients look for the job whatever they say they accept.
            _ => Ok(location(Answer::new(StatusCode::ACCEPTED, object!({ "job": { "uuid": accepted.job, "_links": links(&job_path(accepted.job)) } })))),
        }
    }

    /// A collection of records, as the query wants it. `records` are whole and come in the order of their keys.
    ///
    /// # Errors
    /// Those of [`Query`].
    pub fn collection(&self, resource: &Resource, records: Vec<Map<String, Json>>, show: impl Fn(&Map<String, Json>) -> Json) -> Result<Answer> {
        let filters = self.query.filters(resource)?;
        let order = self.query.order_by(resource)?;
        let limit = self.query.max_records()?;
        let mut records: Vec<_> = records.into_iter().filter(|record| filters.iter().all(|(path, value)| crate::query::matches(record, path, value))).collect();
        if !order.is_empty() {
            records.sort_by(|one, other| crate::query::compare(one, other, &order));
        }
        // The position is the key of the last record that was shown; if that is gone, the next in the order of the keys.
        if let Some(start) = self.query.get("start") {
            let key = |record: &Map<String, Json>| record.get("uuid").and_then(Json::as_str).unwrap_or_default().to_owned();
            let at = records.iter().position(|record| key(record) == start).map(|at| at + 1);
            // In the order of the keys, what was shown may be left out here already.
            let at = at.or_else(|| records.iter().position(|record| order.is_empty() && key(record).as_str() > start)).unwrap_or(records.len());
            records.drain(..at);
        }
        let more = records.len() > limit;
        records.truncate(limit);
        let mut body = Map::new();
        if self.query.flag("return_records", true)? {
            body.insert("records".to_owned(), Json::Array(records.iter().map(show).collect()));
        }
        body.insert("num_records".to_owned(), records.len().into());
        let mut all = Map::new();
        let mut link = None;
        if self.links() {
            all.insert("self".to_owned(), object!({ "href": self.href(None) }));
        }
        if more {
            let last = records.last().and_then(|record| record.get("uuid")).and_then(Json::as_str).unwrap_or_default();
            let next = self.href(Some(last));
            link = Some(format!("<{next}>; rel=\"next\""));
            all.insert("next".to_owned(), object!({ "href": next }));
        }
        if !all.is_empty() {
            body.insert("_links".to_owned(), Json::Object(all));
        }
        let answer = Answer::new(StatusCode::OK, Json::Object(body));
        Ok(match link {
            Some(link) => answer.header(header::LINK, &link),
            None => answer,
        })
    }

    /// This request's own address, or that of the next page.
    fn href(&self, next: Option<&str>) -> String {
        let mut parameters: Vec<String> = Vec::new();
        for (name, value) in self.query.all().filter(|(name, _)| *name != "start" || next.is_none()) {
            parameters.push(format!("{}={}", encode(name), encode(value)));
        }
        if let Some(next) = next {
            parameters.push(format!("start={}", encode(next)));
        }
        if parameters.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, parameters.join("&")) }
    }
}

/// What a finished job is answered with.
pub struct Done {
    /// 201 for what was created, else 200.
    pub status: StatusCode,
    /// The collection of the resource, where a `Location` belongs in the answer.
    pub location: Option<&'static str>,
    /// The record for `return_records=true`.
    pub record: Option<Json>,
}

impl Done {
    /// 200 and nothing else.
    pub fn ok() -> Self {
        Self { status: StatusCode::OK, location: None, record: None }
    }

    /// 201 with a `Location`.
    pub fn created(location: &'static str, record: Json) -> Self {
        Self { status: StatusCode::CREATED, location: Some(location), record: Some(record) }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Further headers.
    pub headers: HeaderMap,
    /// The body; null for none.
    pub body: Json,
}

impl Answer {
    /// An answer with a body.
    pub fn new(status: StatusCode, body: Json) -> Self {
        Self { status, headers: HeaderMap::new(), body }
    }

    /// 200 with a body.
    pub fn ok(body: Json) -> Self {
        Self::new(StatusCode::OK, body)
    }

    /// An error.
    pub fn error(error: &Error) -> Self {
        if let Some(detail) = &error.detail {
            tracing::error!(code = error.code.number(), message = error.message, detail, "a request has failed");
        }
        let answer = Self::new(error::status(error.code), error::body(error));
        match error.code {
            Code::NotLoggedIn => answer.header(header::WWW_AUTHENTICATE, "Basic realm=\"Keystead\", charset=\"UTF-8\""),
            Code::TooManyRequests | Code::LimitReached => answer.header(header::RETRY_AFTER, "1"),
            _ => answer,
        }
    }

    /// Adds a header. What cannot stand in a header is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Names the fields of a body that were read past.
    #[must_use]
    pub fn warn_of(self, ignored: &[&str]) -> Self {
        if ignored.is_empty() {
            return self;
        }
        let text = format!("299 keystead \"read-only fields ignored: {}\"", ignored.join(", "));
        self.header(header::WARNING, &text)
    }
}

/// `_links` with a `self`.
pub fn links(href: &str) -> Json {
    object!({ "self": { "href": href } })
}

/// Where a job stands.
pub fn job_path(job: Uuid) -> String {
    format!("/api/cluster/jobs/{job}")
}

/// An SVM in a record.
pub fn svm(reference: &keystead_manager::model::SvmRef, with_links: bool) -> Json {
    let mut json = object!({ "uuid": reference.uuid, "name": reference.name });
    if let (true, Some(object)) = (with_links, json.as_object_mut()) {
        object.insert("_links".to_owned(), links(&format!("/api/svm/svms/{}", reference.uuid)));
    }
    json
}

/// A duration in a record.
pub fn duration(duration: std::time::Duration) -> Json {
    Json::String(field::duration_text(duration))
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
