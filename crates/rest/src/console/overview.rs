//! All SVMs, and where each stands; and making one.

use super::form::{Field, How, Shown};
use super::html::{Tone, pager, state, table, word};
use super::visit::{ROWS, Visit, address, flag, quoted, text};
use super::{ROOT, see_other};
use crate::request::Answer;
use crate::svms::SVM;
use http::Method;
use keystead_manager::{Error, Result};
use maud::{Markup, html};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::time::Duration;

const SVMS: &str = "/api/svm/svms";
/// The states that there are, the gravest first, and what each means.
const STATES: &[(&str, &str)] = &[
    ("blocked", "keys refused"),
    ("unavailable", "no KEK in memory"),
    ("revoking", "denied, grace runs"),
    ("degraded", "last poll failed"),
    ("initializing", "being enabled"),
    ("disabling", "being disabled"),
    ("available", "keys served"),
    ("onboard", "onboard key manager"),
    ("none", "no key manager, no keys"),
];
/// How many SVMs are counted at the most, in pages of the API.
const COUNTED_PAGES: usize = 5;
/// How long a page that somebody waits for waits for what other nodes say.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The page.
pub async fn show(visit: Visit<'_>) -> Result<Answer> {
    let (name, wanted, start) = (visit.parameter("name").trim().to_owned(), visit.parameter("state").to_owned(), visit.parameter("start").to_owned());
    let wanted = if STATES.iter().any(|(state, _)| *state == wanted) { wanted } else { String::new() };
    let (counts, counted_all) = counts(&visit).await?;
    let pattern = pattern(&name);
    let mut query = vec![("fields", "name,comment,keystead.state,keystead.reason"), ("order_by", "name"), ("max_records", ROWS)];
    query.extend(
        [("name", pattern.as_str()), ("keystead.state", wanted.as_str()), ("start", start.as_str())].into_iter().filter(|(_, value)| !value.is_empty()),
    );
    let (svms, next) = visit.list(SVMS, &query).await?;
    // A page that somebody waits for does not wait for nodes that say nothing; it hears of them when it looks again.
    let look = elsewhere(&visit, &svms);
    let elsewhere = if visit.is_background { look.await? } else { tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| Ok(HashMap::new()))? };
    let with = |state: &str, start: &str| address(ROOT, &[("name", name.as_str()), ("state", state), ("start", start)]);
    let all: usize = counts.values().sum();
    let content = html! {
        div.title {
            h1 { "SVMs" }
            @if visit.may(&Method::POST, SVMS) { a.button href="/console/svms/new" { "New SVM" } }
        }
        section.chips id="counts" data-live aria-label="States" {
            a.chip href=(with("", "")) aria-current=[wanted.is_empty().then_some("true")] { strong { (all) @if !counted_all { "+" } } " all" }
            @for (each, _) in STATES.iter().filter(|(each, _)| counts.contains_key(*each)) {
                a.chip href=(with(each, "")) aria-current=[(*each == wanted).then_some("true")] { strong { (counts.get(*each).copied().unwrap_or_default()) } " " (shown(each, "")) }
            }
        }
        form.filter method="get" action=(ROOT) role="search" {
            div.field {
                label for="name" { "Name" }
                input type="search" id="name" name="name" value=(name) autocomplete="off" spellcheck="false" placeholder="part of the name, or *";
            }
            div.field {
                label for="state" { "State" }
                select id="state" name="state" {
                    option value="" { "all" }
                    @for (each, meaning) in STATES { option value=(each) selected[*each == wanted] { (each) " – " (meaning) } }
                }
            }
            button type="submit" { "Show" }
        }
        section id="svms" data-live {
            (table("SVMs", &["SVM", "State", "Reason"], &svms.iter().map(|svm| row(svm, &elsewhere)).collect::<Vec<_>>(), if name.is_empty() && wanted.is_empty() { "There are no SVMs yet." } else { "No SVM is like that." }))
        }
        (pager(&with(&wanted, ""), next.map(|next| with(&wanted, &next)).as_deref(), start.is_empty()))
    };
    Ok(visit.live_page("SVMs", 10, &content))
}

/// Asks for the name of a new one.
pub async fn new(visit: Visit<'_>) -> Result<Answer> {
    Ok(visit.page("New SVM", &form(&visit, None)))
}

/// Makes it.
pub async fn create(visit: Visit<'_>) -> Result<Answer> {
    let body = visit.form.body(&SVM, &["name", "comment"]);
    match visit.send(Method::POST, SVMS, &[("return_timeout", "15")], &body).await {
        Ok(reply) => Ok(see_other(&format!("{ROOT}svms/{}", reply.made.unwrap_or_default()))),
        Err(error) => Ok(visit.page_again(&error, "New SVM", &form(&visit, Some(&error)))),
    }
}

fn form(visit: &Visit<'_>, error: Option<&Error>) -> Markup {
    let fields = Shown::new(&visit.form, error, &["name", "comment"]);
    html! {
        h1 { "New SVM" }
        p { "An SVM is one tenant: its keys, its KEK, its certificates. It has no key manager before one is enabled." }
        (fields.trouble("The SVM was not made."))
        form.stack method="post" action="/console/svms/new" {
            (visit.token())
            (fields.field(&Field::new("name", "Name", How::Code).required().hint("Up to 47 letters, digits, “_”, “-” and “.”.")))
            (fields.field(&Field::new("comment", "Comment", How::Line)))
            div.buttons { button.primary type="submit" { "Make the SVM" } a href=(ROOT) { "Cancel" } }
        }
    }
}

/// How many SVMs are in each state, and whether all were counted.
async fn counts(visit: &Visit<'_>) -> Result<(HashMap<String, usize>, bool)> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut start = None;
    for _ in 0..COUNTED_PAGES {
        let mut query = vec![("fields", "keystead.state")];
        query.extend(start.as_deref().map(|start| ("start", start)));
        let (svms, next) = visit.list(SVMS, &query).await?;
        for svm in &svms {
            *counts.entry(text(svm, "keystead.state").to_owned()).or_default() += 1;
        }
        start = next;
        if start.is_none() {
            return Ok((counts, true));
        }
    }
    Ok((counts, false))
}

/// What other nodes say of the SVMs of a page, by SVM: the state in the list is that of this node.
async fn elsewhere(visit: &Visit<'_>, svms: &[Json]) -> Result<HashMap<String, String>> {
    let uuids: Vec<&str> = svms.iter().filter(|svm| !["none", "initializing"].contains(&text(svm, "keystead.state"))).map(|svm| text(svm, "uuid")).collect();
    if uuids.is_empty() {
        return Ok(HashMap::new());
    }
    let (configs, _) = visit.list("/api/security/aws-kms", &[("svm.uuid", &uuids.join("|")), ("fields", "svm,state")]).await?;
    let bad = configs.iter().filter(|config| !flag(config, "state.cluster_state"));
    Ok(bad.map(|config| (text(config, "svm.uuid").to_owned(), text(config, "state.message").to_owned())).collect())
}

fn row(svm: &Json, elsewhere: &HashMap<String, String>) -> Vec<Markup> {
    let (name, uuid, state, reason) = (text(svm, "name"), text(svm, "uuid"), text(svm, "keystead.state"), text(svm, "keystead.reason"));
    let other = elsewhere.get(uuid).filter(|_| ["available", "degraded", "revoking"].contains(&state));
    vec![
        html! { a href={ (ROOT) "svms/" (uuid) } { (name) } @let comment = text(svm, "comment"); @if !comment.is_empty() { span.small.block { (comment) } } },
        html! { span data-say={ (name) ": " (state) } { (shown(state, if other.is_some() { " here" } else { "" })) } },
        html! {
            @if let Some(why) = other { (super::html::state("not on all nodes", Tone::Bad)) span.small.block { (why) } }
            @else if !reason.is_empty() { span.small { (reason) } }
            @else { span.small.quiet { (STATES.iter().find(|(each, _)| *each == state).map_or("", |(_, meaning)| meaning)) } }
        },
    ]
}

/// A state as it is called here: that there is no key manager is none.
fn shown(each: &str, behind: &str) -> Markup {
    match each {
        "none" => state("no key manager", Tone::Plain),
        _ if behind.is_empty() => word(each),
        _ => state(&format!("{each}{behind}"), Tone::of(each)),
    }
}

/// What is searched for, in the language of filters: a part of the name, where nothing stands for more.
fn pattern(name: &str) -> String {
    match name {
        "" => String::new(),
        name if name.contains('*') => name.split('*').map(|part| if part.is_empty() { String::new() } else { quoted(part) }).collect::<Vec<_>>().join("*"),
        name => format!("*{}*", quoted(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_searched_for_stands_for_itself() {
        assert_eq!(pattern(""), "");
        assert_eq!(pattern("a|b!"), r#"*"a|b!"*"#);
        assert_eq!(pattern("ten*1"), r#""ten"*"1""#);
        assert_eq!(pattern("*"), "*");
    }
}
