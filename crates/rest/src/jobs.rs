//! `/cluster/jobs`: the jobs.

use crate::field::{Field, Kind, Patch, Post, Show};
use crate::request::{Answer, Request, job_path, links, svm};
use crate::resource::{Resource, put};
use crate::select::Selection;
use keystead_manager::model::{Job, JobState};
use keystead_manager::{Code, Error, JobAction, Result};
use serde_json::{Map, Value as Json, json};

const fn shown(path: &'static str, show: Show, doc: &'static str) -> Field {
    Field { path, kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show, doc }
}

/// The `job` object.
pub const JOB: Resource = Resource {
    path: "/api/cluster/jobs",
    fields: &[
        shown("uuid", Show::Key, "The identifier."),
        shown("description", Show::Standard, "The call that started it."),
        shown("state", Show::Standard, "queued, running, paused, success or failure."),
        shown("message", Show::Standard, "What it does now, or how it ended."),
        shown("code", Show::Standard, "0, or the code of the failure."),
        shown("error.message", Show::Standard, "On failure alone."),
        shown("error.code", Show::Standard, "On failure alone."),
        shown("error.target", Show::Standard, "On failure alone."),
        shown("start_time", Show::Standard, "When it was accepted."),
        shown("end_time", Show::Standard, "When it ended."),
        shown("node.uuid", Show::Standard, "The node that works, or worked, on it."),
        shown("node.name", Show::Standard, "Its name."),
        shown("svm.uuid", Show::Standard, "The SVM that it is about."),
        shown("svm.name", Show::Standard, "Its name."),
    ],
};

pub async fn list(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&JOB, request.query.get("fields"), false)?;
    let records = request.manager.jobs().into_iter().filter(|job| visible(&request, job)).map(|job| record(&job)).collect();
    let with_links = request.links();
    request.collection(&JOB, records, |record| Json::Object(project(&selection, record, with_links)))
}

pub async fn show(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&JOB, request.query.get("fields"), true)?;
    let job = request.manager.job(request.uuid()?).await?;
    if !visible(&request, &job) {
        return Err(Error::new(Code::NotFound).target("uuid"));
    }
    // Clients poll for the message, whatever fields they ask for.
    let mut shown = project(&selection, &record(&job), request.links());
    put(&mut shown, "message", json!(job.message));
    Ok(Answer::ok(Json::Object(shown)))
}

pub async fn control(request: Request) -> Result<Answer> {
    request.query.check_change(&JOB, &["action"])?;
    let mut action = request.query.get("action").map(str::to_owned);
    for (name, value) in request.object()? {
        match (name.as_str(), value) {
            ("action", Json::String(text)) => action = Some(text),
            _ => return Err(Error::with(Code::UnknownField, &name).target(name)),
        }
    }
    let action = match action.as_deref() {
        Some("pause") => JobAction::Pause,
        Some("resume") => JobAction::Resume,
        Some("cancel") => JobAction::Cancel,
        Some(_) => return Err(Error::with(Code::InvalidValue, "it must be pause, resume or cancel").target("action")),
        None => return Err(Error::with(Code::MissingField, "action").target("action")),
    };
    let uuid = request.uuid()?;
    if !visible(&request, &request.manager.job(uuid).await?) {
        return Err(Error::new(Code::NotFound).target("uuid"));
    }
    request.manager.control_job(&request.who, uuid, action).await?;
    Ok(Answer::ok(json!({})))
}

fn visible(request: &Request, job: &Job) -> bool {
    match &job.svm {
        Some(svm) => request.sees(svm.uuid),
        None => !matches!(request.who.role, keystead_manager::model::Role::Vsadmin { .. }),
    }
}

fn record(job: &Job) -> Map<String, Json> {
    let mut record = Map::new();
    put(&mut record, "uuid", json!(job.uuid));
    put(&mut record, "description", json!(job.description));
    put(&mut record, "state", json!(state(job.state)));
    put(&mut record, "message", json!(job.message));
    put(&mut record, "code", json!(job.error.as_ref().map_or(0, |error| error.code.number())));
    if let Some(error) = &job.error {
        put(&mut record, "error.message", json!(error.message));
        put(&mut record, "error.code", json!(error.code.to_string()));
        if let Some(target) = &error.target {
            put(&mut record, "error.target", json!(target));
        }
    }
    put(&mut record, "start_time", json!(time(job.start_time)));
    if let Some(end) = job.end_time {
        put(&mut record, "end_time", json!(time(end)));
    }
    if let Some(node) = &job.node {
        put(&mut record, "node", json!({ "uuid": node.uuid, "name": node.name }));
    }
    if let Some(reference) = &job.svm {
        put(&mut record, "svm", svm(reference, false));
    }
    record
}

fn project(selection: &Selection, record: &Map<String, Json>, with_links: bool) -> Map<String, Json> {
    let mut shown = selection.project(record);
    if with_links && let Some(uuid) = record.get("uuid").and_then(Json::as_str).and_then(|uuid| uuid.parse().ok()) {
        put(&mut shown, "_links", links(&job_path(uuid)));
    }
    shown
}

fn state(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Paused => "paused",
        JobState::Success => "success",
        JobState::Failure => "failure",
    }
}

/// ISO 8601 with an offset, to the second, as ONTAP writes it.
pub fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}
