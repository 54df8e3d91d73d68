//! `/security/ekmip/sessions`: sessions of the console, Keystead's own.
//!
//! A POST with name and password begins one. Its token is in a cookie that scripts cannot read and that no other site's page can use; what changes something must also bring the `csrf_token` in the
//! header `X-CSRF-Token`.

use crate::collection::One;
use crate::collection::cell::Cell;
use crate::field::{As, Field, Show};
use crate::login::Proof;
use crate::request::{Answer, Request};
use crate::resource::{Link, Resource};
use http::{HeaderMap, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use keystead_manager::sessions::{LIFE, SessionInfo};
use keystead_manager::{Code, Error, Manager, Result};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

const PATH: &str = "/api/security/ekmip/sessions";
/// The cookie. With this prefix, browsers take it from this host over TLS alone (RFC 6265bis, section 4.1.3.2).
const COOKIE: &str = "__Host-keystead-session";
/// What the cookie may be used for.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";
/// The header of a request that changes something.
pub const CSRF_HEADER: &str = "x-csrf-token";

/// The header of a request that nobody has asked for, as of a page that keeps itself up to date: the session does not count as used, so that it ends when its person has gone.
pub const BACKGROUND_HEADER: &str = "x-keystead-background";

/// A session as it is shown.
pub struct Record {
    info: SessionInfo,
    now: Timestamp,
    current: bool,
    csrf_token: Option<SecretString>,
}

/// The `ekmip_session` object.
pub const SESSION: Resource<Record> = Resource {
    name: "ekmip_session",
    path: PATH,
    fields: &[
        Field::shown("uuid", As::Uuid, Show::Key, |r| Cell::Uuid(r.info.uuid), "The identifier; not what stands for it."),
        Field::shown("account.name", As::Text, Show::Standard, |r| Cell::text(&r.info.account), "The account."),
        Field::shown("begin_time", As::Time, Show::Standard, |r| Cell::time(r.began()), "When it began."),
        Field::shown("end_time", As::Time, Show::Standard, |r| Cell::time(r.ends()), "When it ends at the latest."),
        Field::shown("current", As::Bool, Show::Standard, |r| Cell::Bool(r.current), "Whether it is the one that asks."),
        Field::shown(
            "csrf_token",
            As::Text,
            // A filter, or an order, would write it into URLs.
            Show::Exact,
            |r| r.csrf_token.as_ref().map_or(Cell::Null, |token| Cell::text(token.expose_secret())),
            "What a changing request brings in X-CSRF-Token; of the session that asks.",
        ),
    ],
    order: &[("uuid", false)],
    links: &[Link { at: "", href: |r| Some(format!("{PATH}/{}", r.info.uuid)) }],
};

/// The body of a POST: nothing.
pub const NEW: Resource<()> = Resource { name: "ekmip_session", path: PATH, fields: &[], order: &[], links: &[] };

pub async fn list(request: Request) -> Result<Answer> {
    request.list(&SESSION, own(&request))
}

pub async fn show(request: Request) -> Result<Answer> {
    let uuid = request.uuid()?;
    let session = own(&request).into_iter().find(|session| session.info.uuid == uuid).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
    request.one(&SESSION, &session)
}

/// Begins a session. The token is in the cookie alone; `csrf_token` in the answer.
pub async fn create(request: Request) -> Result<Answer> {
    request.read_post(&NEW)?;
    if request.permit().proof() != Proof::Password {
        // What begins with a certificate would outlive it; and a session that makes sessions would never end.
        return Err(Error::with(Code::PermissionDenied, "a session begins with a name and a password"));
    }
    let new = request.manager.open_session(&request.who)?;
    let href = format!("{PATH}/{}", new.info.uuid);
    let record = Record { info: new.info, now: request.manager.now(), current: true, csrf_token: Some(new.csrf_token) };
    let body = json!({ "num_records": 1, "records": [One::whole(&SESSION).with("csrf_token").record(&record)] });
    let cookie = format!("{COOKIE}={}; {ATTRIBUTES}", new.token.expose_secret());
    Ok(Answer::new(StatusCode::CREATED, body).header(header::LOCATION, &href).header(header::SET_COOKIE, &cookie))
}

/// Ends a session of one's own.
pub async fn delete(request: Request) -> Result<Answer> {
    request.no_body(&SESSION)?;
    let uuid = request.uuid()?;
    let current = current(&request.manager, &request.headers) == Some(uuid);
    request.manager.close_session(&request.who, uuid)?;
    let answer = Answer::ok(json!({}));
    Ok(if current { answer.header(header::SET_COOKIE, &expired_cookie()) } else { answer })
}

/// Has a browser forget the cookie.
pub fn expired_cookie() -> String {
    format!("{COOKIE}=; Max-Age=0; {ATTRIBUTES}")
}

/// The token that a request brings.
pub fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    cookies.flat_map(|cookies| cookies.split(';')).find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

impl Record {
    fn began(&self) -> Timestamp {
        self.now - SignedDuration::try_from(self.info.age).unwrap_or_default()
    }

    fn ends(&self) -> Timestamp {
        self.began() + SignedDuration::try_from(LIFE).unwrap_or_default()
    }
}

fn own(request: &Request) -> Vec<Record> {
    let current = current(&request.manager, &request.headers);
    let csrf_token = |uuid| token(&request.headers).filter(|_| current == Some(uuid)).map(|token| request.manager.csrf_token(token));
    let sessions = request.manager.sessions(&request.who).into_iter();
    sessions.map(|info| Record { now: request.manager.now(), current: current == Some(info.uuid), csrf_token: csrf_token(info.uuid), info }).collect()
}

/// The session that asks.
fn current(manager: &Manager, headers: &HeaderMap) -> Option<uuid::Uuid> {
    manager.session_of(token(headers)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(token(&headers), None);
        headers.append(header::COOKIE, "a=b; __Host-keystead-sessions=x".parse().unwrap());
        assert_eq!(token(&headers), None);
        headers.append(header::COOKIE, "c=d;__Host-keystead-session=t0k-en_; e=f".parse().unwrap());
        assert_eq!(token(&headers), Some("t0k-en_"));
    }
}
