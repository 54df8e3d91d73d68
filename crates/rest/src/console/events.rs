//! The events of the cluster.

use super::html::{pager, table};
use super::parts::{EVENT_COLUMNS, event_row};
use super::visit::{ROWS, Visit, address, quoted};
use crate::request::Answer;
use keystead_manager::Result;
use maud::html;

const PATH: &str = "/console/events";
const SEVERITIES: &[&str] = &["emergency", "alert", "error", "notice", "informational", "debug"];

/// The page.
pub async fn list(visit: Visit<'_>) -> Result<Answer> {
    let (svm, severity, start) = (visit.parameter("svm").trim(), visit.parameter("severity"), visit.parameter("start"));
    let severity = if SEVERITIES.contains(&severity) { severity } else { "" };
    let by_svm = if svm.is_empty() { String::new() } else { quoted(svm) };
    let mut query = vec![("fields", "*"), ("max_records", ROWS)];
    let filters = [("svm.name", by_svm.as_str()), ("message.severity", severity), ("start", start)];
    query.extend(filters.into_iter().filter(|(_, value)| !value.is_empty()));
    let (events, next) = visit.list("/api/support/ems/events", &query).await?;
    let with = |start: &str| address(PATH, &[("svm", svm), ("severity", severity), ("start", start)]);
    let content = html! {
        h1 { "Events" }
        form.filter method="get" action=(PATH) role="search" {
            div.field { label for="svm" { "SVM" } input type="search" id="svm" name="svm" value=(svm) autocomplete="off"; }
            div.field {
                label for="severity" { "Severity" }
                select id="severity" name="severity" {
                    option value="" { "all" }
                    @for each in SEVERITIES { option value=(each) selected[*each == severity] { (each) } }
                }
            }
            button type="submit" { "Show" }
        }
        section id="list" data-live { (table("Events, the newest first", EVENT_COLUMNS, &events.iter().map(event_row).collect::<Vec<_>>(), "Nothing has happened that is told as an event.")) }
        (pager(&with(""), next.map(|next| with(&next)).as_deref(), start.is_empty()))
    };
    Ok(if start.is_empty() { visit.live_page("Events", 10, &content) } else { visit.page("Events", &content) })
}
