//! One's own password. The one in use is asked for, and proven by the API's own login: the call is made with it, and not with the session.

use super::ROOT;
use super::form::{Field, How, Shown};
use super::login::{authorization, new_password};
use super::visit::Visit;
use super::{login, see_other};
use crate::request::Answer;
use http::header;
use keystead_manager::{Code, Error, Result};
use maud::{Markup, html};
use serde_json::json;

const TITLE: &str = "Change the password";

/// The form.
pub async fn show(visit: Visit<'_>) -> Result<Answer> {
    Ok(visit.page(TITLE, &form(&visit, None)))
}

/// Changes it. Every session of the account ends with the old password; this browser gets a new one.
pub async fn change(visit: Visit<'_>) -> Result<Answer> {
    let (name, current, new) = (visit.who.name.as_str(), visit.form.get("current"), visit.form.get("password"));
    let again = |error: Error| visit.page_again(&error, TITLE, &form(&visit, Some(&error)));
    if new != visit.form.get("repeated") {
        return Ok(again(Error { message: "It is not the same as the one above.".to_owned(), ..Error::new(Code::InvalidValue) }.target("repeated")));
    }
    let body = json!({ "name": name, "password": new });
    match visit.send_as(authorization(name, current)?, "/api/security/authentication/password", &body).await {
        Ok(_) => {}
        Err(error) if error.code == Code::NotLoggedIn => {
            return Ok(again(Error { message: "It is wrong.".to_owned(), ..Error::new(Code::InvalidValue) }.target("current")));
        }
        Err(error) => return Ok(again(error)),
    }
    // It is changed, whatever comes of the new login.
    Ok(match login::begun(visit.caller(), authorization(name, new)?).await {
        Ok(cookie) => see_other(ROOT).header(header::SET_COOKIE, &cookie),
        Err(_) => see_other(&format!("{ROOT}login?changed=true")),
    })
}

fn form(visit: &Visit<'_>, error: Option<&Error>) -> Markup {
    let fields = Shown::new(&visit.form, error, &["current", "password", "repeated"]);
    html! {
        h1 { (TITLE) " of " (visit.who.name) }
        (fields.trouble("The password is the one that it was."))
        form.stack method="post" action="/console/password" {
            (visit.token())
            // For password managers, which want to know whose it is.
            input type="hidden" name="username" autocomplete="username" value=(visit.who.name);
            (fields.field(&Field::new("current", "Password in use", How::Secret("current-password")).required()))
            (fields.field(&new_password("password", "New password").hint("8 to 128 characters.")))
            (fields.field(&new_password("repeated", "New password once more")))
            p.small { "All other sessions of this account end." }
            div.buttons { button.primary type="submit" { (TITLE) } a href=(ROOT) { "Cancel" } }
        }
    }
}
