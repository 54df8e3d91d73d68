//! The console: what a key administrator looks at, served by every node under `/console/`.
//!
//! Pages are made here, on the server, and whatever they show and do they get and do by calls of the REST API, as the account whose session they are visited with: the same login, the same permits, the same checks, the same record in
//! the audit log. Nothing in this folder decides who may do what; `pages` says which call a page stands for, so that a page that somebody cannot use is neither shown nor linked.
//!
//! `visit` is a visit of a page, `form` what a form brings and how it is shown again, `html` what pages are made of, `assets` the style and the one script. Every other file is a page, or a few that belong together.

mod accounts;
mod actions;
mod assets;
mod audit;
mod change;
mod clients;
mod enable;
mod events;
mod form;
mod html;
mod jobs;
mod login;
mod nodes;
mod overview;
mod pages;
mod parts;
mod password;
mod settings;
mod svm;
mod visit;

use crate::error::status;
use crate::login::Locked;
use crate::perform::{Caller, other_method, read};
use crate::request::{Answer, Body};
use crate::sessions;
use form::Form;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use keystead_manager::{Code, Error, Result};
use std::time::Duration;
use visit::Visit;

/// Where the console stands.
pub const ROOT: &str = "/console/";
/// The longest form of somebody who has not logged in; and of somebody who has.
const LOGIN_LIMIT: usize = 8 * 1024;
const FORM_LIMIT: usize = 256 * 1024;
/// What pages may do: the style, the script and the icon are this node's own, and so is whatever the script asks. Nothing stands in the page itself, nothing comes from elsewhere, and nobody frames it.
const POLICY: &str =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Whether a request is the console's: its pages, and the node's own address where a browser asks for it.
pub fn is_there(path: &str, headers: &HeaderMap) -> bool {
    let is_browser = || headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html"));
    path == "/console" || path.starts_with(ROOT) || (path == "/" && is_browser())
}

/// Answers a request for a page. There is always an answer: what has failed is a page too.
pub async fn answer(caller: Caller<'_>, parts: &Parts, body: Locked<Incoming>, body_timeout: Duration) -> Answer {
    let answer = match visited(caller, parts, body, body_timeout).await {
        Ok(answer) => answer,
        Err(error) => failed(caller, parts, &error),
    };
    guarded(answer)
}

async fn visited(caller: Caller<'_>, parts: &Parts, body: Locked<Incoming>, body_timeout: Duration) -> Result<Answer> {
    let path = parts.uri.path();
    let method = if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() };
    let Some(inner) = path.strip_prefix(ROOT) else {
        return Ok(if method == Method::GET { see_other(ROOT) } else { other_method(&method, "GET, HEAD, OPTIONS") });
    };
    if let Some(file) = inner.strip_prefix("static/") {
        return if method == Method::GET { assets::answer(file, &parts.headers) } else { Ok(other_method(&method, "GET, HEAD, OPTIONS")) };
    }
    if method != Method::GET && method != Method::POST {
        return Ok(other_method(&method, "GET, HEAD, POST, OPTIONS"));
    }
    if inner == "login" {
        let form = if method == Method::POST { form_of(body, LOGIN_LIMIT, body_timeout).await? } else { Form::default() };
        return login::answer(caller, parts, &method, &form).await;
    }
    let token = sessions::token(&parts.headers).ok_or_else(|| Error::new(Code::NotLoggedIn))?;
    let is_background = parts.headers.contains_key(sessions::BACKGROUND_HEADER);
    let who = if is_background { caller.manager.session_unused(token) } else { caller.manager.session(token) };
    let who = who.ok_or_else(|| Error::new(Code::NotLoggedIn))?;
    let form = if method == Method::POST { form_of(body, FORM_LIMIT, body_timeout).await? } else { Form::default() };
    let visit = Visit::new(caller, parts, who, form, token, is_background)?;
    if method == Method::POST && !caller.manager.is_csrf_token(token, visit.form.get(form::CSRF)) {
        return Err(Error::with(
            Code::PermissionDenied,
            "the form does not come from a page of this session; go back, load the page again, and send it once more",
        ));
    }
    pages::answer(visit, &method, inner).await
}

/// A form. Only what browsers send without asking first is one.
async fn form_of(body: Locked<Incoming>, most: usize, limit: Duration) -> Result<Form> {
    Form::parse(&read(body.open_form(), most, limit).await?)
}

/// The page for what has failed; or the way to the login, where that is missing.
fn failed(caller: Caller<'_>, parts: &Parts, error: &Error) -> Answer {
    if let Some(detail) = &error.detail {
        tracing::error!(code = error.code.number(), error = error.message, detail, path = parts.uri.path(), "a page of the console has failed");
    }
    if error.code == Code::NotLoggedIn {
        // The script is told as such: it would follow the way to the login, and see no difference.
        if parts.headers.contains_key(sessions::BACKGROUND_HEADER) {
            return Answer::empty(StatusCode::UNAUTHORIZED);
        }
        let next = if parts.method == Method::POST { "" } else { parts.uri.path_and_query().map_or("", |path| path.as_str()) };
        let ended = sessions::token(&parts.headers).is_some();
        return see_other(&login::address(next, ended));
    }
    let status = match error.code {
        // There is no such page; the API answers that it does not support the path.
        Code::MethodNotAllowed => StatusCode::NOT_FOUND,
        code => status(code),
    };
    let who = sessions::token(&parts.headers).and_then(|token| caller.manager.session_unused(token));
    Answer { status, ..html::failure(who.as_ref(), status, error) }
}

/// Sends a browser on, by a GET.
pub fn see_other(to: &str) -> Answer {
    Answer::empty(StatusCode::SEE_OTHER).header(header::LOCATION, to)
}

/// A page.
pub fn page(status: StatusCode, markup: maud::Markup) -> Answer {
    Answer { status, headers: HeaderMap::new(), body: Body::Ready(markup.into_string().into(), "text/html; charset=utf-8") }
}

/// The headers that every answer of the console has.
fn guarded(mut answer: Answer) -> Answer {
    let own = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in own {
        answer.headers.insert(name, HeaderValue::from_static(value));
    }
    // A browser would ask for a password by itself, past the page.
    answer.headers.remove(header::WWW_AUTHENTICATE);
    answer
}
