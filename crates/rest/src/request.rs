//! A request after login, and the answer to it.

use crate::audit::{Source, Trail};
use crate::collection::{Found, Listing, One, Texts};
use crate::login::Permit;
use crate::long::Long;
use crate::query::Query;
use crate::resource::Resource;
use crate::routes::Route;
use crate::values::Values;
use crate::{accept, error, json};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use keystead_manager::model::{Accepted, Job, JobState, Principal, Role, SvmKind, SvmRef, SvmSelector};
use keystead_manager::{Code, Error, Manager, Result};
use serde_json::{Map, Value as Json, json as object};
use uuid::Uuid;

/// A request that its sender may make: there is none without a [`Permit`] for its call. Handlers get nothing but this, so what they read and change is behind that check.
///
/// ```compile_fail
/// # fn head() -> keystead_rest::Head { unimplemented!() }
/// # fn manager() -> keystead_manager::Manager { unimplemented!() }
/// // Without a permit there is no request.
/// keystead_rest::Request::new(manager(), head(), bytes::Bytes::new());
/// ```
/// ```compile_fail
/// // The permit of one request makes no other one.
/// fn swapped(request: keystead_rest::Request, other: keystead_rest::Request) -> keystead_rest::Request {
///     keystead_rest::Request { permit: other.permit, ..request }
/// }
/// ```
/// What those two leave out is all that keeps them from being compiled:
/// ```
/// fn permitted(permit: keystead_rest::Permit, manager: keystead_manager::Manager, head: keystead_rest::Head) -> keystead_rest::Request {
///     keystead_rest::Request::new(permit, manager, head, bytes::Bytes::new())
/// }
/// ```
pub struct Request {
    permit: Permit,
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
    /// Where it comes from.
    pub source: Source,
    /// What the record of the call will say beside what every record says.
    pub(crate) trail: Trail,
    /// The one SVM that the headers make the call about.
    through: Option<Uuid>,
    body: Bytes,
}

/// A request without its body, as its line and headers say.
pub struct Head {
    /// The method; HEAD is a GET.
    pub method: Method,
    /// The path, without what is after the `?`.
    pub path: String,
    /// The variable parts of the path, in their order.
    pub segments: Vec<String>,
    /// The parameters.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    /// Where it comes from.
    pub source: Source,
}

impl Request {
    /// A request that was permitted.
    pub fn new(permit: Permit, manager: Manager, head: Head, body: Bytes) -> Self {
        let Head { method, path, segments, query, headers, source } = head;
        Self { manager, who: permit.who().clone(), method, path, segments, query, headers, source, trail: Trail::default(), through: None, body, permit }
    }

    /// The same, whose record this is.
    #[must_use]
    pub(crate) fn with_trail(mut self, trail: Trail) -> Self {
        self.trail = trail;
        self
    }

    /// What its sender may do.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The body as an object.
    ///
    /// # Errors
    /// See [`json::object`].
    pub fn object(&self) -> Result<Map<String, Json>> {
        json::object(&self.body)
    }

    /// The body as it came.
    pub fn body(&self) -> Bytes {
        self.body.clone()
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
        // Pages that `next` has led to have them whatever is accepted: Ansible looks there for the page after.
        self.query.get("start").is_some() || !accept::prefers_plain(&self.headers)
    }

    /// The one SVM that the call is about: its account's own, or the one that the headers name. None: all of them, and what is the cluster's.
    pub fn only(&self) -> Option<Uuid> {
        match self.who.role {
            Role::Vsadmin { svm } => Some(svm),
            Role::Admin | Role::Readonly => self.through,
        }
    }

    /// Whether the call sees what belongs to that SVM.
    pub fn sees(&self, svm: Uuid) -> bool {
        self.only().is_none_or(|only| only == svm)
    }

    /// Whether the call sees what belongs to the cluster.
    pub fn sees_cluster(&self) -> bool {
        self.only().is_none()
    }

    /// Makes the call one about the SVM that its headers name, if they do. The admin SVM is the cluster.
    ///
    /// # Errors
    /// 262247; 2621462 there is none, or this account does not see it; 2621706 the headers name two.
    pub(crate) fn enter_svm(&mut self) -> Result<()> {
        self.through = self.svm_of_headers()?;
        Ok(())
    }

    /// The data SVM that the headers name.
    fn svm_of_headers(&self) -> Result<Option<Uuid>> {
        let (uuid, name) = self.tunnel()?;
        if uuid.is_none() && name.is_none() {
            return Ok(None);
        }
        let svm = self.manager.svm_named(&self.who, &SvmSelector { uuid, name })?;
        Ok((svm.kind == SvmKind::Data).then_some(svm.uuid))
    }

    /// The SVM that body and headers name together; none where neither does. `at`: what it is called in the body.
    ///
    /// # Errors
    /// 262247; 2621706 they name two.
    pub fn selector(&self, uuid: Option<Uuid>, name: Option<String>, at: &str) -> Result<Option<SvmSelector>> {
        let (header_uuid, header_name) = self.tunnel()?;
        let differs = header_uuid.is_some_and(|header| uuid.is_some_and(|uuid| uuid != header))
            || header_name.as_ref().is_some_and(|header| name.as_ref().is_some_and(|name| !name.eq_ignore_ascii_case(header)));
        if differs {
            return Err(Error::with(Code::SvmMismatch, "the headers X-Dot-SVM-… name another one than the body").target(at));
        }
        let selector = SvmSelector { uuid: uuid.or(header_uuid), name: name.or(header_name) };
        self.trail.names(&selector);
        Ok((selector != SvmSelector::default()).then_some(selector))
    }

    /// The SVM that the headers name (`X-Dot-SVM-Name`, `X-Dot-SVM-UUID`).
    fn tunnel(&self) -> Result<(Option<Uuid>, Option<String>)> {
        let text = |name: &str| -> Result<Option<String>> {
            let wrong = |_| Error::with(Code::InvalidValue, "the header is not text").target(name);
            self.headers.get(name).map(|value| value.to_str().map(str::to_owned)).transpose().map_err(wrong)
        };
        let uuid = text("x-dot-svm-uuid")?.map(|text| text.parse()).transpose();
        let uuid = uuid.map_err(|_| Error::with(Code::InvalidValue, "it must be a UUID").target("X-Dot-SVM-UUID"))?;
        let name = text("x-dot-svm-name")?;
        self.trail.tunnel(uuid, name.as_deref());
        Ok((uuid, name))
    }

    /// Answers a call that goes on as a job: 202, or the end of the job if the caller waits and it comes in time.
    ///
    /// # Errors
    /// The job's own, where the caller has waited for it.
    pub async fn accepted(&self, accepted: Accepted, done: Done) -> Result<Answer> {
        self.trail.job(&self.manager, accepted);
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

    /// A list of records, as the query wants it. `records` may come in any order.
    ///
    /// # Errors
    /// Those of [`Listing::parse`].
    pub fn list<T: Send + Sync + 'static>(&self, resource: &'static Resource<T>, records: impl IntoIterator<Item = T>) -> Result<Answer> {
        let listing = Listing::parse(resource, &self.query)?;
        self.page(listing, records)
    }

    /// A page of a list that was asked for.
    ///
    /// # Errors
    /// 262247.
    pub fn page<T: Send + Sync + 'static>(&self, listing: Listing<T>, records: impl IntoIterator<Item = T>) -> Result<Answer> {
        self.found(listing.page(records.into_iter(), self.links()))
    }

    /// The same, of records whose texts are kept.
    ///
    /// # Errors
    /// 262247.
    pub fn page_keeping<T: Send + Sync + 'static>(&self, listing: Listing<T>, records: impl IntoIterator<Item = T>, texts: Texts<T>) -> Result<Answer> {
        self.found(listing.page(records.into_iter(), self.links()).keeping(texts))
    }

    fn found<T: Send + Sync + 'static>(&self, found: Found<T>) -> Result<Answer> {
        let with_records = self.query.flag("return_records", true)?;
        let links = with_records && self.links();
        let mut tail = format!(r#""num_records":{}"#, found.count());
        let mut all = Map::new();
        let mut link = None;
        if links {
            all.insert("self".to_owned(), object!({ "href": self.href(None) }));
        }
        if let Some(next) = &found.next {
            let next = self.href(Some(next));
            link = Some(format!("<{next}>; rel=\"next\""));
            // A number alone is nothing but the number: the way on is in the header.
            if with_records {
                all.insert("next".to_owned(), object!({ "href": next }));
            }
        }
        if !all.is_empty() {
            tail.push_str(r#","_links":"#);
            tail.push_str(&Json::Object(all).to_string());
        }
        tail.push('}');
        let has_links = links || (with_records && link.is_some());
        let body = if with_records {
            Body::Long(Long::new(r#"{"records":["#, found.writing(), format!("],{tail}")), has_links)
        } else {
            Body::Written(format!("{{{tail}").into_bytes(), has_links)
        };
        let answer = Answer { body, ..Answer::empty(StatusCode::OK) };
        Ok(match link {
            Some(link) => answer.header(header::LINK, &link),
            None => answer,
        })
    }

    /// One record, as the query wants it.
    ///
    /// # Errors
    /// Those of [`One::parse`].
    pub fn one<T>(&self, resource: &'static Resource<T>, record: &T) -> Result<Answer> {
        Ok(self.show(&One::parse(resource, &self.query)?, record))
    }

    /// One record that was asked for.
    pub fn show<T>(&self, one: &One<T>, record: &T) -> Answer {
        Answer::written(one.write(record, self.links()), self.links())
    }

    /// Reads the body of a POST.
    ///
    /// # Errors
    /// Those of the parameters, of JSON, and of [`Resource::read_post`]; then those of the SVM in the headers.
    pub fn read_post<T>(&self, resource: &'static Resource<T>) -> Result<Values> {
        self.query.check_change(resource, &[])?;
        let values = self.given(resource, resource.read_post(self.object()?, self.query.unknown())?);
        self.svm_of_headers()?;
        Ok(values)
    }

    /// Reads the body of a PATCH, which must change something.
    ///
    /// # Errors
    /// Those of the parameters, of JSON, and of [`Resource::read_patch`]; 65537541 nothing was given.
    pub fn read_patch<T>(&self, resource: &'static Resource<T>) -> Result<Values> {
        self.query.check_change(resource, &[])?;
        let values = self.given(resource, resource.read_patch(self.object()?, self.query.unknown())?);
        if values.is_empty() { Err(Error::new(Code::NoInput)) } else { Ok(values) }
    }

    /// Notes for the record of the call which fields were given. For those who read a body by themselves.
    pub fn given<T>(&self, resource: &'static Resource<T>, values: Values) -> Values {
        self.trail.given(resource, &values);
        values
    }

    /// For calls that take no body: DELETE.
    ///
    /// # Errors
    /// Those of the parameters and of JSON; 262198 a member.
    pub fn no_body<T>(&self, resource: &'static Resource<T>) -> Result<()> {
        self.query.check_change(resource, &[])?;
        match self.object()?.keys().next() {
            Some(name) => Err(Error::with(Code::BodyNotAllowed, name).target(name.as_str())),
            None => Ok(()),
        }
    }

    /// The same caller's request for one record. It waits for nothing, and has no parameters but what concerns every body.
    ///
    /// # Errors
    /// 6 this caller may not make that call.
    pub fn for_record(&self, route: &'static Route, path: String, segments: Vec<String>, body: Bytes) -> Result<Self> {
        let query = Query::of(self.query.all().filter(|(name, _)| *name == "ignore_unknown_fields"));
        let head = Head { method: route.method.clone(), path, segments, query, headers: self.headers.clone(), source: self.source };
        Ok(Self::new(self.permit.for_call(route)?, self.manager.clone(), head, body))
    }

    /// The same, with other parameters.
    #[must_use]
    pub fn with_query(mut self, query: Query) -> Self {
        self.query = query;
        self
    }

    /// The same, with links in the answer.
    #[must_use]
    pub fn with_links(mut self) -> Self {
        self.headers.insert(header::ACCEPT, HeaderValue::from_static("application/hal+json"));
        self
    }

    /// The address of the next page.
    pub fn next_page(&self, start: &str) -> String {
        self.href(Some(start))
    }

    /// This request's own address, or that of the next page.
    fn href(&self, next: Option<&str>) -> String {
        let moved = |name: &str| next.is_some() && (name == "start" || name == "offset");
        let mut parameters: Vec<String> = Vec::new();
        for (name, value) in self.query.all().filter(|(name, _)| !moved(name)) {
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
    /// The body.
    pub body: Body,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// None.
    None,
    /// JSON.
    Json(Json),
    /// JSON that is written already, and whether there are links in it.
    Written(Vec<u8>, bool),
    /// JSON that is written while it is sent, and whether there are links in it.
    Long(Long, bool),
    /// What is sent as it is, whatever the parameters, and its content type.
    Ready(Bytes, &'static str),
}

impl Answer {
    /// An answer with a body.
    pub fn new(status: StatusCode, body: Json) -> Self {
        Self { status, headers: HeaderMap::new(), body: Body::Json(body) }
    }

    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Body::None }
    }

    /// 200 with a body that is written already.
    pub fn written(body: Vec<u8>, links: bool) -> Self {
        Self { status: StatusCode::OK, headers: HeaderMap::new(), body: Body::Written(body, links) }
    }

    /// 200 with a body.
    pub fn ok(body: Json) -> Self {
        Self::new(StatusCode::OK, body)
    }

    /// An error.
    pub fn error(error: &Error) -> Self {
        if let Some(detail) = &error.detail {
            tracing::error!(code = error.code.number(), error = error.message, detail, "a request has failed");
        }
        let answer = Self::new(error::status(error.code), error::body(error));
        match error.code {
            Code::NotLoggedIn => answer.header(header::WWW_AUTHENTICATE, "Basic realm=\"Keystead\", charset=\"UTF-8\""),
            Code::TooManyRequests | Code::LimitReached | Code::AuditUnwritable => {
                // Up to the second that has the moment in it: earlier would be too early.
                let wait = error.retry_after.unwrap_or_default();
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                answer.header(header::RETRY_AFTER, &seconds.max(1).to_string())
            }
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
pub fn svm(reference: &SvmRef) -> Json {
    object!({ "uuid": reference.uuid, "name": reference.name })
}

/// Where an SVM stands.
pub fn svm_path(svm: Uuid) -> String {
    format!("/api/svm/svms/{svm}")
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
