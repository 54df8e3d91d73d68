//! Accounts: who may log in, and as what.

use super::form::{Field, How, Shown};
use super::html::{Tone, pager, state, table};
use super::login::new_password;
use super::see_other;
use super::visit::{ROWS, Visit, address, encoded, flag, list as entries, text};
use crate::accounts::ACCOUNT;
use crate::request::Answer;
use http::Method;
use keystead_manager::{Code, Error, Result};
use maud::{Markup, html};
use serde_json::{Value as Json, json};

const ACCOUNTS: &str = "/api/security/accounts";
const ONE: &str = "/api/security/accounts/{}/{}";
const PATH: &str = "/console/accounts";

/// The page of all of them.
pub async fn list(visit: Visit<'_>) -> Result<Answer> {
    let start = visit.parameter("start");
    let mut query = vec![("fields", "*"), ("order_by", "owner.name,name"), ("max_records", ROWS)];
    query.extend((!start.is_empty()).then_some(("start", start)));
    let (accounts, next) = visit.list(ACCOUNTS, &query).await?;
    let with = |start: &str| address(PATH, &[("start", start)]);
    let content = html! {
        div.title {
            h1 { "Accounts" }
            @if visit.may(&Method::POST, ACCOUNTS) { a.button href={ (PATH) "/new" } { "New account" } }
        }
        section id="list" data-live {
            (table("Accounts", &["Name", "Role", "Of", "Logs in with", "State", "Action"], &accounts.iter().map(|account| row(account, &visit)).collect::<Vec<_>>(), "There are no accounts to be seen."))
        }
        (pager(PATH, next.map(|next| with(&next)).as_deref(), start.is_empty()))
    };
    Ok(visit.live_page("Accounts", 15, &content))
}

/// The form of a new one.
pub async fn new(visit: Visit<'_>) -> Result<Answer> {
    Ok(visit.page("New account", &form(&visit, None)))
}

/// Makes it.
pub async fn create(visit: Visit<'_>) -> Result<Answer> {
    let body = visit.form.body(&ACCOUNT, &["name", "password", "role.name", "owner.name", "comment"]);
    match visit.send(Method::POST, ACCOUNTS, &[], &body).await {
        Ok(_) => Ok(see_other(PATH)),
        Err(error) => Ok(visit.page_again(&error, "New account", &form(&visit, Some(&error)))),
    }
}

/// Asks whether to lock one.
pub async fn ask_lock(visit: Visit<'_>) -> Result<Answer> {
    ask(&visit, true, None).await
}

/// Locks it.
pub async fn lock(visit: Visit<'_>) -> Result<Answer> {
    match visit.send(Method::PATCH, &path(&visit), &[], &json!({ "locked": true })).await {
        Ok(_) => Ok(see_other(PATH)),
        Err(error) => ask(&visit, true, Some(&error)).await,
    }
}

/// Lets it log in again.
pub async fn unlock(visit: Visit<'_>) -> Result<Answer> {
    visit.send(Method::PATCH, &path(&visit), &[], &json!({ "locked": false })).await?;
    Ok(see_other(PATH))
}

/// Asks whether to delete one.
pub async fn ask_delete(visit: Visit<'_>) -> Result<Answer> {
    ask(&visit, false, None).await
}

/// Deletes it.
pub async fn delete(visit: Visit<'_>) -> Result<Answer> {
    match visit.send(Method::DELETE, &path(&visit), &[], &json!({})).await {
        Ok(_) => Ok(see_other(PATH)),
        Err(error) => ask(&visit, false, Some(&error)).await,
    }
}

/// Asks for a new password of one.
pub async fn ask_password(visit: Visit<'_>) -> Result<Answer> {
    let account = visit.get(&path(&visit), &[("fields", "*")]).await?;
    if is_own(&visit, &account) {
        return Ok(see_other(OWN_PASSWORD));
    }
    Ok(visit.page(PASSWORD, &password_form(&visit, &account, None)))
}

/// Gives it one.
pub async fn set_password(visit: Visit<'_>) -> Result<Answer> {
    let account = visit.get(&path(&visit), &[("fields", "*")]).await?;
    if is_own(&visit, &account) {
        return Ok(see_other(OWN_PASSWORD));
    }
    let new = visit.form.get("password");
    let sent = if new == visit.form.get("repeated") {
        visit.send(Method::PATCH, &path(&visit), &[], &json!({ "password": new })).await.map(drop)
    } else {
        Err(Error { message: "It is not the same as the one above.".to_owned(), ..Error::new(Code::InvalidValue) }.target("repeated"))
    };
    match sent {
        Ok(()) => Ok(see_other(PATH)),
        Err(error) => Ok(visit.page_again(&error, PASSWORD, &password_form(&visit, &account, Some(&error)))),
    }
}

const PASSWORD: &str = "New password";
/// Where one's own is changed: it takes the one in use.
const OWN_PASSWORD: &str = "/console/password";

fn is_own(visit: &Visit<'_>, account: &Json) -> bool {
    text(account, "name") == visit.who.name
}

fn password_form(visit: &Visit<'_>, account: &Json, error: Option<&Error>) -> Markup {
    let fields = Shown::new(&visit.form, error, &["password", "repeated"]);
    let name = text(account, "name");
    html! {
        p.crumbs { a href=(PATH) { "Accounts" } " / " (PASSWORD) }
        h1 { "New password of " (name) }
        p { "The password of now is not valid any more, and all sessions of " strong { (name) } " end. Whoever uses the account should change it again." }
        (fields.trouble("The password is the one that it was."))
        form.stack method="post" action={ (own(account)) "/password" } {
            (visit.token())
            input type="hidden" name="username" autocomplete="username" value=(name);
            (fields.field(&new_password("password", "New password").hint("8 to 128 characters.")))
            (fields.field(&new_password("repeated", "New password once more")))
            div.buttons { button.primary type="submit" { "Set the password" } a href=(PATH) { "Cancel" } }
        }
    }
}

async fn ask(visit: &Visit<'_>, locks: bool, error: Option<&Error>) -> Result<Answer> {
    let account = visit.get(&path(visit), &[("fields", "*")]).await?;
    let (name, owner) = (text(&account, "name"), text(&account, "owner.name"));
    let (title, button, last) = if locks { ("Lock an account", "Lock", "lock") } else { ("Delete an account", "Delete", "delete") };
    let content = html! {
        p.crumbs { a href=(PATH) { "Accounts" } " / " (button) }
        h1 { (button) " " (name) "?" }
        (Shown::new(&visit.form, error, &[]).trouble("That was not done."))
        ul {
            li { "From the next request on, " strong { (name) } " (" (text(&account, "role.name")) " of " (owner) ") does nothing more here, and its sessions end." }
            @if locks { li { "It can be unlocked, and then has its password again." } }
            @else { li { strong { "It cannot be undone." } " What it has done stays in the audit log, under its name." } }
            @if name == visit.who.name { li { strong { "It is your own account." } } }
        }
        form.buttons method="post" action={ (own(&account)) "/" (last) } {
            (visit.token())
            button.danger type="submit" { (button) " " (name) }
            a href=(PATH) { "Cancel" }
        }
    };
    Ok(match error {
        Some(error) => visit.page_again(error, title, &content),
        None => visit.page(title, &content),
    })
}

fn row(account: &Json, visit: &Visit<'_>) -> Vec<Markup> {
    let (name, locked) = (text(account, "name"), flag(account, "locked"));
    let methods: Vec<&str> = entries(account, "applications").iter().flat_map(|one| entries(one, "authentication_methods")).filter_map(Json::as_str).collect();
    vec![
        html! { strong { (name) } @let comment = text(account, "comment"); @if !comment.is_empty() { span.small.block { (comment) } } },
        html! { (text(account, "role.name")) },
        html! { (text(account, "owner.name")) @if text(account, "scope") == "cluster" { span.small.block.quiet { "the cluster" } } },
        html! { (methods.join(", ")) },
        if locked { state("locked", Tone::Warn) } else { state("open", Tone::Good) },
        html! {
            @if visit.may(&Method::PATCH, ONE) {
                div.buttons {
                    @if locked {
                        form method="post" action={ (own(account)) "/unlock" } { (visit.token()) button.link type="submit" { "Unlock" span.unseen { " " (name) } } }
                    } @else {
                        a href={ (own(account)) "/lock" } { "Lock" span.unseen { " " (name) } }
                    }
                    @if methods.contains(&"password") { a href={ (own(account)) "/password" } { "Password" span.unseen { " of " (name) } } }
                    a href={ (own(account)) "/delete" } { "Delete" span.unseen { " " (name) } }
                }
            } @else { "–" }
        },
    ]
}

fn form(visit: &Visit<'_>, error: Option<&Error>) -> Markup {
    let fields = Shown::new(&visit.form, error, &["name", "password", "role.name", "owner.name", "comment"]);
    let roles =
        [("admin", "admin – everything in the cluster"), ("readonly", "readonly – reads everything"), ("vsadmin", "vsadmin – everything within one SVM")];
    html! {
        p.crumbs { a href=(PATH) { "Accounts" } " / New account" }
        h1 { "New account" }
        (fields.trouble("The account was not made."))
        form.stack method="post" action={ (PATH) "/new" } {
            (visit.token())
            (fields.field(&Field::new("name", "Name", How::Code).required().hint("3 to 64 letters, digits, “.”, “_”, “-” and “@”; unique in the cluster.")))
            (fields.field(&Field::new("role.name", "Role", How::Choice(&roles)).required().value("readonly")))
            (fields.field(&Field::new("owner.name", "SVM", How::Code).hint("For a vsadmin: the one SVM that it administers. For others, none.")))
            (fields.field(&new_password("password", "Password").hint("8 to 128 characters. Whoever uses the account should change it.")))
            (fields.field(&Field::new("comment", "Comment", How::Line)))
            div.buttons { button.primary type="submit" { "Make the account" } a href=(PATH) { "Cancel" } }
        }
    }
}

/// The account of the path, at the API.
fn path(visit: &Visit<'_>) -> String {
    format!("{ACCOUNTS}/{}/{}", encoded(visit.segment(0)), encoded(visit.segment(1)))
}

/// Its pages.
fn own(account: &Json) -> String {
    format!("{PATH}/{}/{}", encoded(text(account, "owner.uuid")), encoded(text(account, "name")))
}
