//! Jobs: those that there are, and one.

use super::html::{facts, pager, stamp, table, word};
use super::parts::{JOB_COLUMNS, OPEN, job_row, progress, title};
use super::visit::{ROWS, Visit, address, missing, text};
use crate::request::Answer;
use keystead_manager::Result;
use maud::html;

const PATH: &str = "/console/jobs";

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
    let uuid: uuid::Uuid = visit.segment(0).parse().map_err(|_| missing())?;
    let job = visit.get(&format!("/api/cluster/jobs/{uuid}"), &[("fields", "*")]).await?;
    let (state, svm) = (text(&job, "state"), text(&job, "svm.name"));
    let content = html! {
        p.crumbs { a href=(PATH) { "Jobs" } " / " (title(&job)) }
        div #job data-live {
            h1 { (title(&job)) " " span data-say={ (title(&job)) ": " (state) } { (word(state)) } }
            div.wide { (progress(&job)) }
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
