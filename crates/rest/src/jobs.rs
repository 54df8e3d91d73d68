//! `/cluster/jobs`: the jobs.

use crate::collection::One;
use crate::collection::cell::Cell;
use crate::field::{As, Field, Kind, Patch, Post, Show};
use crate::request::{Answer, Request, job_path};
use crate::resource::{Link, Resource};
use keystead_manager::model::{Job, JobState};
use keystead_manager::{Code, Error, JobAction, Result};
use serde_json::json;

/// The `job` object.
pub const JOB: Resource<Job> = Resource {
    name: "job",
    path: "/api/cluster/jobs",
    fields: &[
        Field::shown("uuid", As::Uuid, Show::Key, |job| Cell::Uuid(job.uuid), "The identifier."),
        Field::shown("description", As::Text, Show::Standard, |job| Cell::text(&job.description), "The call that started it."),
        Field::shown("state", As::Word(STATES), Show::Standard, |job| Cell::text(state(job.state)), "queued, running, paused, success or failure."),
        // Clients read it in every answer, whatever fields they ask for.
        Field::shown("message", As::Text, Show::Key, |job| Cell::text(&job.message), "What it does now, or how it ended."),
        Field::shown(
            "code",
            As::Integer,
            Show::Standard,
            |job| Cell::number(job.error.as_ref().map_or(0, |error| error.code.number())),
            "0, or the code of the failure.",
        ),
        Field::shown(
            "error.message",
            As::Text,
            Show::Standard,
            |job| job.error.as_ref().map_or(Cell::Null, |error| Cell::text(&error.message)),
            "On failure alone.",
        ),
        Field::shown(
            "error.code",
            As::Text,
            Show::Standard,
            |job| job.error.as_ref().map_or(Cell::Null, |error| Cell::made(error.code.to_string())),
            "On failure alone.",
        ),
        Field::shown(
            "error.target",
            As::Text,
            Show::Standard,
            |job| Cell::maybe(job.error.as_ref().and_then(|error| error.target.as_ref())),
            "On failure alone.",
        ),
        Field::shown("start_time", As::Time, Show::Standard, |job| Cell::time(job.start_time), "When it was accepted."),
        Field::shown("end_time", As::Time, Show::Standard, |job| job.end_time.map_or(Cell::Null, Cell::time), "When it ended."),
        Field::shown(
            "node.uuid",
            As::Uuid,
            Show::Standard,
            |job| job.node.as_ref().map_or(Cell::Null, |node| Cell::Uuid(node.uuid)),
            "The node that works, or worked, on it.",
        ),
        Field::shown("node.name", As::Text, Show::Standard, |job| Cell::maybe(job.node.as_ref().map(|node| &node.name)), "Its name."),
        Field::shown("svm.uuid", As::Uuid, Show::Standard, |job| job.svm.as_ref().map_or(Cell::Null, |svm| Cell::Uuid(svm.uuid)), "The SVM that it is about."),
        Field::shown("svm.name", As::Text, Show::Standard, |job| Cell::maybe(job.svm.as_ref().map(|svm| &svm.name)), "Its name."),
    ],
    order: &[("uuid", false)],
    links: &[Link { at: "", href: |job| Some(job_path(job.uuid)) }],
};

const STATES: &[&str] = &["queued", "running", "paused", "success", "failure"];

pub async fn list(request: Request) -> Result<Answer> {
    request.list(&JOB, request.manager.jobs().into_iter().filter(|job| visible(&request, job)))
}

pub async fn show(request: Request) -> Result<Answer> {
    let one = One::parse(&JOB, &request.query)?;
    let job = request.manager.job(request.uuid()?).await?;
    if !visible(&request, &job) {
        return Err(Error::new(Code::NotFound).target("uuid"));
    }
    Ok(request.show(&one, &job))
}

/// The body of a PATCH. Clients send `action` in the URL as well.
pub const CONTROL: Resource<()> = Resource {
    name: "job",
    path: "/api/cluster/jobs",
    fields: &[Field::hidden("action", Kind::Word(&["pause", "resume", "cancel"]), Post::Unknown, Patch::Yes, "What to do with it.")],
    order: &[],
    links: &[],
};

pub async fn control(request: Request) -> Result<Answer> {
    request.query.check_change(&JOB, &["action"])?;
    let mut body = request.object()?;
    if let Some(action) = request.query.get("action").map(|action| json!(action))
        && *body.entry("action").or_insert_with(|| action.clone()) != action
    {
        return Err(Error::with(Code::FieldCombination, "URL and body have different actions").target("action"));
    }
    let action = match request.given(&CONTROL, CONTROL.read_patch(body, request.query.unknown())?).text("action").as_deref() {
        Some("pause") => JobAction::Pause,
        Some("resume") => JobAction::Resume,
        Some(_) => JobAction::Cancel,
        None => return Err(Error::with(Code::MissingField, "action").target("action")),
    };
    let uuid = request.uuid()?;
    let job = request.manager.job(uuid).await?;
    if !visible(&request, &job) {
        return Err(Error::new(Code::NotFound).target("uuid"));
    }
    request.manager.control_job(&request.who, uuid, action).await?;
    Ok(Answer::ok(json!({})))
}

fn visible(request: &Request, job: &Job) -> bool {
    match &job.svm {
        Some(svm) => request.sees(svm.uuid),
        // One for many records is its account's.
        None => request.sees_cluster() || job.account == request.who.name,
    }
}

/// How a state is written.
pub fn state(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Paused => "paused",
        JobState::Success => "success",
        JobState::Failure => "failure",
    }
}
