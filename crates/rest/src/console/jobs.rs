//! Jobs: those that there are, and one, with what can be done to it.

use super::form::Shown;
use super::html::{facts, pager, stamp, table, word};
use super::parts::{JOB_COLUMNS, OPEN, job_row, progress, title};
use super::see_other;
use super::visit::{ROWS, Visit, address, missing, text};
use crate::request::Answer;
use http::Method;
use keystead_manager::{Error, Result};
use maud::{Markup, html};
use serde_json::{Value as Json, json};

const PATH: &str = "/console/jobs";
const JOBS: &str = "/api/cluster/jobs";

/// The page of all of them.
pub async fn list(visit: Visit<'_>) -> Result<Answer> {
    let start = visit.parameter("start");
    let mut query = vec![("fields", "*"), ("order_by", "start_time desc"), ("max_records", ROWS)];
    query.extend((!start.is_empty()).then_some(("start", start)));
    let (jobs, next) = visit.list("/api/cluster/jobs", &query).await?;
    let with = |start: &str| address(PATH, &[("start", start)]);
    let content = html! {
        h1 { "Jobs" }
        p.quiet { "A job that has ended is kept for a while, and then stands in the audit log alone." }
        section id="list" data-live { (table("Jobs, the newest first", JOB_COLUMNS, &jobs.iter().map(|job| job_row(job, &visit, true)).collect::<Vec<_>>(), "There are no jobs now.")) }
        (pager(PATH, next.map(|next| with(&next)).as_deref(), start.is_empty()))
    };
    Ok(visit.live_page("Jobs", 3, &content))
}

/// The page of one.
pub async fn show(visit: Visit<'_>) -> Result<Answer> {
    let job = job(&visit).await?;
    let uuid = text(&job, "uuid");
    let (state, svm) = (text(&job, "state"), text(&job, "svm.name"));
    let content = html! {
        p.crumbs { a href=(PATH) { "Jobs" } " / " (title(&job)) }
        div #job data-live {
            h1 { (title(&job)) " " span data-say={ (title(&job)) ": " (state) } { (word(state)) } }
            div.wide { (progress(&job)) }
            (actions(&visit, uuid, state))
            (facts(&[
                ("SVM", html! { @if svm.is_empty() { span.quiet { "none" } } @else { a href={ "/console/svms/" (text(&job, "svm.uuid")) } { (svm) } } }),
                ("Call", html! { span.code { (text(&job, "description")) } }),
                ("Node", html! { (text(&job, "node.name")) }),
                ("Begun", stamp(text(&job, "start_time"))),
                ("Ended", stamp(text(&job, "end_time"))),
                ("Identifier", html! { span.code { (uuid) } }),
            ]))
        }
    };
    Ok(visit.live_page(&title(&job), if OPEN.split('|').any(|open| open == state) { 2 } else { 15 }, &content))
}

/// Pauses it.
pub async fn pause(visit: Visit<'_>) -> Result<Answer> {
    act(&visit, "pause").await
}

/// Lets it go on.
pub async fn resume(visit: Visit<'_>) -> Result<Answer> {
    act(&visit, "resume").await
}

/// Asks whether to cancel it.
pub async fn ask_cancel(visit: Visit<'_>) -> Result<Answer> {
    ask(&visit, None).await
}

/// Cancels it.
pub async fn cancel(visit: Visit<'_>) -> Result<Answer> {
    match act(&visit, "cancel").await {
        Err(error) => ask(&visit, Some(&error)).await,
        done => done,
    }
}

async fn act(visit: &Visit<'_>, action: &str) -> Result<Answer> {
    let uuid: uuid::Uuid = visit.segment(0).parse().map_err(|_| missing())?;
    visit.send(Method::PATCH, &format!("{JOBS}/{uuid}"), &[("action", action)], &json!({})).await?;
    Ok(see_other(&format!("{PATH}/{uuid}")))
}

async fn ask(visit: &Visit<'_>, error: Option<&Error>) -> Result<Answer> {
    let job = job(visit).await?;
    let (uuid, svm) = (text(&job, "uuid"), text(&job, "svm.name"));
    let title = "Cancel a job";
    let content = html! {
        p.crumbs { a href=(PATH) { "Jobs" } " / " a href={ (PATH) "/" (uuid) } { (self::title(&job)) } " / Cancel" }
        h1 { "Cancel “" (self::title(&job)) "”" @if !svm.is_empty() { " of " (svm) } "?" }
        (Shown::new(&visit.form, error, &[]).trouble("The job was not cancelled."))
        ul {
            li { "It ends at its next step, with an error." }
            li { "What has not been stored whole has no effect. Keys that a new KEK wraps already stay as they are, and a later job goes on from there." }
        }
        form.buttons method="post" action={ (PATH) "/" (uuid) "/cancel" } {
            (visit.token())
            button.danger type="submit" { "Cancel the job" }
            a href={ (PATH) "/" (uuid) } { "Let it go on" }
        }
    };
    Ok(match error {
        Some(error) => visit.page_again(error, title, &content),
        None => visit.page(title, &content),
    })
}

/// The job of the path.
async fn job(visit: &Visit<'_>) -> Result<Json> {
    let uuid: uuid::Uuid = visit.segment(0).parse().map_err(|_| missing())?;
    visit.get(&format!("{JOBS}/{uuid}"), &[("fields", "*")]).await
}

/// What can be done to a job in this state, by who looks.
fn actions(visit: &Visit<'_>, uuid: &str, state: &str) -> Markup {
    let is_open = OPEN.split('|').any(|open| open == state);
    html! {
        @if is_open && visit.may(&Method::PATCH, "/api/cluster/jobs/{}") {
            div.buttons {
                // One that runs is not paused.
                @for (action, label) in [("queued", "pause", "Pause"), ("paused", "resume", "Go on")].into_iter().filter(|(of, ..)| *of == state).map(|(_, action, label)| (action, label)) {
                    form method="post" action={ (PATH) "/" (uuid) "/" (action) } { (visit.token()) button type="submit" { (label) } }
                }
                a.button.danger href={ (PATH) "/" (uuid) "/cancel" } { "Cancel" }
            }
        }
    }
}
