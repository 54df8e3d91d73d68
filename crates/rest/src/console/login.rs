//! Logging in and out. A login is a POST of `/security/ekmip/sessions` with the name and the password of the form, so that the API's slowness to guessers, its records and its sessions count here too.

use super::form::{Field, Form, How, Shown};
use super::html::plain;
use super::visit::{Visit, called, encoded, flag, text};
use super::{ROOT, see_other};
use crate::perform::Caller;
use crate::query::Query;
use crate::request::Answer;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use keystead_manager::{Code, Error, Result};
use maud::html;
use zeroize::Zeroizing;

const SESSIONS: &str = "/api/security/ekmip/sessions";

/// Where one logs in, to go on to an address of the console.
pub fn address(next: &str, ended: bool) -> String {
    let mut parameters = Vec::new();
    if is_own(next) && next != ROOT {
        parameters.push(format!("next={}", encoded(next)));
    }
    if ended {
        parameters.push("ended=true".to_owned());
    }
    if parameters.is_empty() { format!("{ROOT}login") } else { format!("{ROOT}login?{}", parameters.join("&")) }
}

/// The page that logs in, and its form.
pub async fn answer(caller: Caller<'_>, parts: &Parts, method: &Method, form: &Form) -> Result<Answer> {
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let next = if *method == Method::POST { form.get("next") } else { query.get("next").unwrap_or_default() };
    if *method == Method::GET {
        let notice = match () {
            () if query.get("changed").is_some() => Some("The password is changed. Log in with the new one."),
            () if query.get("ended").is_some() => {
                Some("Your session has ended, as it was not used for a while or your account has changed. Nothing that you had begun was sent.")
            }
            () => None,
        };
        return Ok(shown(StatusCode::OK, form, next, None, notice));
    }
    let begun = async {
        if parts.headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
            return Err(Error::with(Code::PermissionDenied, "the form comes from a page of another site"));
        }
        begun(caller, authorization(form.get("name"), form.get("password"))?).await
    };
    match begun.await {
        Ok(cookie) => Ok(see_other(if is_own(next) { next } else { ROOT }).header(header::SET_COOKIE, &cookie)),
        Err(error) => {
            let error = match error.retry_after {
                _ if error.code == Code::NotLoggedIn => Error { message: "Name or password is wrong, or the account is locked.".to_owned(), ..error },
                Some(wait) => {
                    let seconds = wait.as_secs_f64().ceil();
                    Error { message: format!("Too many logins have failed, or there are too many at a time. Try again in {seconds} s."), ..error }
                }
                None => error,
            };
            let status = crate::error::status(error.code);
            Ok(shown(status, form, next, Some(&error), None))
        }
    }
}

/// Begins a session, and answers the cookie that stands for it.
///
/// # Errors
/// 6691623; 262160; 7.
pub async fn begun(caller: Caller<'_>, authorization: HeaderValue) -> Result<String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, authorization);
    let (_, headers) = called(caller, headers, Method::POST, SESSIONS, &[], b"{}"[..].into()).await?;
    let cookie = headers.get(header::SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
    cookie.map(str::to_owned).ok_or_else(|| Error::unexpected("a session has begun without a cookie"))
}

/// Ends the session.
pub async fn end(visit: Visit<'_>) -> Result<Answer> {
    let (sessions, _) = visit.list(SESSIONS, &[("fields", "current")]).await?;
    for session in sessions.iter().filter(|session| flag(session, "current")) {
        visit.send(Method::DELETE, &format!("{SESSIONS}/{}", text(session, "uuid")), &[], &serde_json::json!({})).await?;
    }
    // The cookie stands for nothing any more; the browser need not keep it either.
    Ok(see_other(&format!("{ROOT}login")).header(header::SET_COOKIE, &crate::sessions::expired_cookie()))
}

/// What shows a name and a password (RFC 7617).
///
/// # Errors
/// 6691623 they cannot be said that way.
pub fn authorization(name: &str, password: &str) -> Result<HeaderValue> {
    let refused = || Error::new(Code::NotLoggedIn);
    if name.contains(':') {
        return Err(refused());
    }
    let plain = Zeroizing::new(format!("{name}:{password}"));
    let encoded = Zeroizing::new(format!("Basic {}", BASE64.encode(plain.as_bytes())));
    let mut value = HeaderValue::from_str(&encoded).map_err(|_| refused())?;
    value.set_sensitive(true);
    Ok(value)
}

fn shown(status: StatusCode, form: &Form, next: &str, error: Option<&Error>, notice: Option<&str>) -> Answer {
    let fields = Shown::new(form, error, &[]);
    let content = html! {
        h1 { "Log in" }
        @if let Some(notice) = notice { p.notice role="status" { (notice) } }
        (fields.trouble("You are not logged in."))
        form.stack method="post" action="/console/login" {
            input type="hidden" name="next" value=(if is_own(next) { next } else { "" });
            div.field {
                label for="name" { "Name" }
                input type="text" id="name" name="name" value=(form.get("name")) required autocomplete="username" autocapitalize="none" spellcheck="false" autofocus[error.is_none()];
            }
            div.field {
                label for="password" { "Password" }
                input type="password" id="password" name="password" required autocomplete="current-password";
            }
            button.primary type="submit" { "Log in" }
        }
        p.small { "Accounts that log in with a certificate alone have no session; they use the API. " a href="/docs/api" { "The API" } }
    };
    super::page(status, plain("Log in", &content))
}

/// Whether an address is one of the console's own: a login leads nowhere else.
fn is_own(address: &str) -> bool {
    address.starts_with(ROOT) && !address.contains(['\\', '\n', '\r']) && !address.contains("//") && !address.starts_with("/console/log")
}

/// A field for a new password.
pub const fn new_password<'h>(name: &'static str, label: &'h str) -> Field<'h> {
    Field::new(name, label, How::Secret("new-password")).required()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_the_console_alone() {
        for own in ["/console/", "/console/svms/1?x=y"] {
            assert!(is_own(own), "{own}");
        }
        for other in ["", "/", "//evil.example/console/", "https://evil.example/console/", "/console//evil.example", "/console\\@evil", "/console/login"] {
            assert!(!is_own(other), "{other}");
        }
        assert_eq!(address("/console/svms/1", true), "/console/login?next=%2Fconsole%2Fsvms%2F1&ended=true");
        assert_eq!(address("https://evil.example", false), "/console/login");
    }
}
