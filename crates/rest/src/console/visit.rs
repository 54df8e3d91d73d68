//! A visit of a page: who it is, what was asked for, and the calls of the API that the page makes for it.

use super::form::{CSRF, Form};
use super::html;
use crate::audit::Source;
use crate::login::Sender;
use crate::perform::{Asked, Caller, Given, perform};
use crate::query::Query;
use crate::request::{Answer, Body};
use crate::resource::get;
use crate::routes::{Found, find};
use crate::sessions;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use jiff::Timestamp;
use keystead_manager::model::Principal;
use keystead_manager::{Code, Error, Manager, Result};
use maud::{Markup, html as markup};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value as Json};
use std::time::Duration;

/// What does not stand for itself in a URL (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// How many rows a page of a list has.
pub const ROWS: &str = "50";

/// A visit.
pub struct Visit<'v> {
    manager: &'v Manager,
    source: Source,
    sender: &'v Sender,
    request_timeout: Duration,
    /// What a call is made with: the session, and what it must bring to change something.
    headers: HeaderMap,
    csrf_token: SecretString,
    /// Who it is.
    pub who: Principal,
    /// The variable parts of the path.
    pub segments: Vec<String>,
    /// The parameters.
    pub query: Query,
    /// The path with its parameters.
    pub address: String,
    /// What was filled in.
    pub form: Form,
    /// Whether nobody has asked for it but the page itself, to be up to date. What takes long is left out then.
    pub is_background: bool,
}

/// What a call has answered.
pub struct Reply {
    /// The body.
    pub body: Json,
    /// The last part of `Location`.
    pub made: Option<String>,
}

impl<'v> Visit<'v> {
    /// A visit of somebody who has a session.
    ///
    /// # Errors
    /// Those of the parameters.
    pub fn new(caller: Caller<'v>, parts: &Parts, who: Principal, form: Form, token: &str, is_background: bool) -> Result<Self> {
        let csrf_token = caller.manager.csrf_token(token);
        let mut headers = HeaderMap::new();
        // What the browser says of the request itself counts for the calls too; its password or its preferences do not.
        for name in [header::COOKIE.as_str(), "sec-fetch-site", sessions::BACKGROUND_HEADER] {
            for value in parts.headers.get_all(name) {
                headers.append(http::HeaderName::from_bytes(name.as_bytes()).map_err(Error::unexpected)?, value.clone());
            }
        }
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Ok(token) = HeaderValue::from_str(form.get(CSRF)) {
            headers.insert(sessions::CSRF_HEADER, token);
        }
        Ok(Self {
            manager: caller.manager,
            source: caller.source,
            sender: caller.sender,
            request_timeout: caller.request_timeout,
            headers,
            csrf_token,
            who,
            segments: Vec::new(),
            query: Query::parse(parts.uri.query().unwrap_or_default())?,
            address: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            form,
            is_background,
        })
    }

    /// Reads something.
    ///
    /// # Errors
    /// Whatever the API refuses.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Json> {
        Ok(self.call(Method::GET, path, query, Bytes::new()).await?.body)
    }

    /// Reads a list: its records, and where the next page begins.
    ///
    /// # Errors
    /// Whatever the API refuses.
    pub async fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<(Vec<Json>, Option<String>)> {
        let mut page = self.get(path, query).await?;
        let next = text(&page, "_links.next.href").split_once("start=").map(|(_, start)| start.split('&').next().unwrap_or_default());
        let next = next.map(crate::query::decode).transpose()?;
        match page.get_mut("records").map(Json::take) {
            Some(Json::Array(records)) => Ok((records, next)),
            _ => Ok((Vec::new(), next)),
        }
    }

    /// Changes something.
    ///
    /// # Errors
    /// Whatever the API refuses.
    pub async fn send(&self, method: Method, path: &str, query: &[(&str, &str)], body: &Json) -> Result<Reply> {
        let body = serde_json::to_vec(body).map_err(Error::unexpected)?;
        self.call(method, path, query, body.into()).await
    }

    /// The same with another way to show who it is.
    ///
    /// # Errors
    /// Whatever the API refuses.
    pub async fn send_as(&self, authorization: HeaderValue, path: &str, body: &Json) -> Result<Reply> {
        let mut headers = self.headers.clone();
        headers.insert(header::AUTHORIZATION, authorization);
        let body = serde_json::to_vec(body).map_err(Error::unexpected)?;
        called(self.caller(), headers, Method::POST, path, &[], body.into()).await.map(|(reply, _)| reply)
    }

    async fn call(&self, method: Method, path: &str, query: &[(&str, &str)], body: Bytes) -> Result<Reply> {
        called(self.caller(), self.headers.clone(), method, path, query, body).await.map(|(reply, _)| reply)
    }

    /// Who calls.
    pub fn caller(&self) -> Caller<'_> {
        Caller { manager: self.manager, source: self.source, sender: self.sender, request_timeout: self.request_timeout }
    }

    /// Whether this account's role may make a call, as the table of calls says. `path` as it stands there.
    pub fn may(&self, method: &Method, path: &str) -> bool {
        matches!(find(method, path), Ok(Found::Route(route, _)) if route.access.allows(self.who.role))
    }

    /// The variable part of the path with this number.
    pub fn segment(&self, number: usize) -> &str {
        self.segments.get(number).map_or("", String::as_str)
    }

    /// A parameter; empty where it is not there.
    pub fn parameter(&self, name: &str) -> &str {
        self.query.get(name).unwrap_or_default()
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.manager.now()
    }

    /// What each form holds.
    pub fn token(&self) -> Markup {
        markup! { input type="hidden" name=(CSRF) value=(self.csrf_token.expose_secret()); }
    }

    /// A page.
    pub fn page(&self, title: &str, content: &Markup) -> Answer {
        super::page(StatusCode::OK, html::layout(self, title, None, content))
    }

    /// A page that keeps itself up to date, looking again after so many seconds.
    pub fn live_page(&self, title: &str, seconds: u32, content: &Markup) -> Answer {
        super::page(StatusCode::OK, html::layout(self, title, Some(seconds), content))
    }

    /// A form again, with what is wrong in it.
    pub fn page_again(&self, error: &Error, title: &str, content: &Markup) -> Answer {
        super::page(crate::error::status(error.code), html::layout(self, title, None, content))
    }
}

/// Makes a call of the API. What is no success is an error; also answers its headers.
///
/// # Errors
/// Whatever the API refuses.
pub async fn called(caller: Caller<'_>, headers: HeaderMap, method: Method, path: &str, query: &[(&str, &str)], body: Bytes) -> Result<(Reply, HeaderMap)> {
    let query = parameters(query);
    // Boxed: it is the whole of a call, within that of a page.
    let answer = Box::pin(perform(caller, Asked { found: find(&method, path), method, path, query: &query, headers }, Given::Ready(body))).await?;
    let body = match answer.body {
        Body::None | Body::Ready(..) => Json::Null,
        Body::Json(json) => json,
        Body::Written(text, _) => serde_json::from_slice(&text).map_err(Error::unexpected)?,
        Body::Long(long, _) => serde_json::from_slice(&long.text()).map_err(Error::unexpected)?,
    };
    if answer.status.as_u16() >= 400 {
        return Err(Error::unexpected(format!("{path}: {body}")));
    }
    let made = answer.headers.get(header::LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| to.rsplit('/').next()).map(str::to_owned);
    Ok((Reply { body, made }, answer.headers))
}

/// The text at a dotted path; empty where there is none.
pub fn text<'a>(record: &'a Json, path: &str) -> &'a str {
    at(record, path).and_then(Json::as_str).unwrap_or_default()
}

/// The flag at a dotted path.
pub fn flag(record: &Json, path: &str) -> bool {
    at(record, path).and_then(Json::as_bool).unwrap_or_default()
}

/// The number at a dotted path.
pub fn number(record: &Json, path: &str) -> Option<i64> {
    at(record, path).and_then(Json::as_i64)
}

/// The list at a dotted path.
pub fn list<'a>(record: &'a Json, path: &str) -> &'a [Json] {
    at(record, path).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

/// What is at a dotted path.
pub fn at<'a>(record: &'a Json, path: &str) -> Option<&'a Json> {
    get(record.as_object()?, path)
}

/// An object with one value at a dotted path for each pair.
pub fn object(pairs: impl IntoIterator<Item = (impl AsRef<str>, Json)>) -> Json {
    let mut object = Map::new();
    for (path, value) in pairs {
        crate::resource::put(&mut object, path.as_ref(), value);
    }
    Json::Object(object)
}

/// A path with parameters, empty ones left out.
pub fn address(path: &str, pairs: &[(&str, &str)]) -> String {
    let given: Vec<(&str, &str)> = pairs.iter().copied().filter(|(_, value)| !value.is_empty()).collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", parameters(&given)) }
}

/// A text that stands for itself within a path or a parameter.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A text that stands for itself within a filter of the API.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn parameters(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect::<Vec<_>>().join("&")
}

/// 4: there is no such page, or nothing to be shown on it.
pub fn missing() -> Error {
    Error::new(Code::NotFound)
}
