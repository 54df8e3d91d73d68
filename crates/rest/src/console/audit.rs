//! The audit log of this node.

use super::html::{Tone, pager, stamp, state, table, word};
use super::visit::{ROWS, Visit, address, list as entries, number, quoted, text};
use crate::request::Answer;
use keystead_manager::Result;
use maud::{Markup, html};
use serde_json::Value as Json;

/// The columns of [`row`].
pub const COLUMNS: &[&str] = &["Time (UTC)", "Who", "What", "Outcome"];
const PATH: &str = "/console/audit";

/// The page.
pub async fn list(visit: Visit<'_>) -> Result<Answer> {
    let (svm, user, outcome, start) = (visit.parameter("svm").trim(), visit.parameter("user").trim(), visit.parameter("state"), visit.parameter("start"));
    let outcome = if ["success", "error", "pending"].contains(&outcome) { outcome } else { "" };
    let (by_svm, by_user) = (if svm.is_empty() { String::new() } else { quoted(svm) }, if user.is_empty() { String::new() } else { quoted(user) });
    let mut query = vec![("fields", "*"), ("max_records", ROWS)];
    let filters = [("svm.name", by_svm.as_str()), ("user", by_user.as_str()), ("state", outcome), ("start", start)];
    query.extend(filters.into_iter().filter(|(_, value)| !value.is_empty()));
    let (records, next) = visit.list("/api/security/audit/messages", &query).await?;
    let with = |start: &str| address(PATH, &[("svm", svm), ("user", user), ("state", outcome), ("start", start)]);
    let content = html! {
        h1 { "Audit" }
        p.quiet { "Who did what on this node, the newest first. What a node records stands in its own log; each node shows its own." }
        form.filter method="get" action=(PATH) role="search" {
            div.field { label for="svm" { "SVM" } input type="search" id="svm" name="svm" value=(svm) autocomplete="off"; }
            div.field { label for="user" { "Account or client" } input type="search" id="user" name="user" value=(user) autocomplete="off"; }
            div.field {
                label for="state" { "Outcome" }
                select id="state" name="state" {
                    @for (value, name) in [("", "all"), ("success", "success"), ("error", "error"), ("pending", "begun")] { option value=(value) selected[value == outcome] { (name) } }
                }
            }
            button type="submit" { "Show" }
        }
        section id="records" data-live { (table("Audit", COLUMNS, &records.iter().map(|record| row(record, true)).collect::<Vec<_>>(), "Nothing like that is recorded.")) }
        (pager(&with(""), next.map(|next| with(&next)).as_deref(), start.is_empty()))
    };
    // With a filter, all of a long log is read: nobody wants that every few seconds. And what is old stays as it is.
    let is_plain = svm.is_empty() && user.is_empty() && outcome.is_empty() && start.is_empty();
    Ok(if is_plain { visit.live_page("Audit", 15, &content) } else { visit.page("Audit", &content) })
}

/// A record as a row; with its SVM, where the page is not about that alone.
pub fn row(record: &Json, with_svm: bool) -> Vec<Markup> {
    let (outcome, message, count) = (text(record, "state"), text(record, "message"), number(record, "keystead.count"));
    let given = entries(record, "keystead.fields").iter().map(|field| match text(field, "value") {
        "" => text(field, "name").to_owned(),
        value => format!("{}={value}", text(field, "name")),
    });
    let given = given.collect::<Vec<_>>().join(", ");
    let from = ["location", "role", "application"].map(|name| text(record, name));
    let from = from.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ");
    vec![
        stamp(text(record, "timestamp")),
        html! {
            @let user = text(record, "user");
            @if user.is_empty() { span.quiet { "nobody" } } @else { (user) }
            span.small.block { (from) }
        },
        html! {
            span.code { (text(record, "input")) }
            @let svm = text(record, "svm.name");
            @if with_svm && !svm.is_empty() { span.small.block { "SVM " (svm) } }
            @if !given.is_empty() { span.small.block.quiet { (given) } }
        },
        html! {
            @if outcome == "pending" { (state("begun", Tone::Busy)) } @else { (word(outcome)) }
            @if let Some(count) = count { span.small.block { (count) " times" } }
            @if !message.is_empty() { span.small.block { (message) } }
        },
    ]
}
