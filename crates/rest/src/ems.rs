//! `/support/ems`: events, and the catalogue of their messages.

use crate::field::{Field, Kind, Patch, Post, Show};
use crate::jobs::time;
use crate::request::{Answer, Request, links, svm};
use crate::resource::{Resource, get, put};
use crate::select::Selection;
use http::header;
use keystead_manager::events::{Event, MESSAGES, Message};
use keystead_manager::model::Role;
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json, json};

const EVENTS_PATH: &str = "/api/support/ems/events";
const MESSAGES_PATH: &str = "/api/support/ems/messages";
/// The process that has raised an event.
const SOURCE: &str = "keystead";

const fn shown(path: &'static str, show: Show, doc: &'static str) -> Field {
    Field { path, kind: Kind::Shown, post: Post::Unknown, patch: Patch::No, show, doc }
}

/// An event.
pub const EVENT: Resource = Resource {
    path: EVENTS_PATH,
    fields: &[
        shown("node.name", Show::Key, "Where it happened."),
        shown("node.uuid", Show::Key, "The node's identifier."),
        shown("index", Show::Key, "Its number on that node."),
        shown("time", Show::Key, "When."),
        shown("message.name", Show::Key, "The name of the message."),
        shown("message.severity", Show::Key, "emergency, alert, error, notice, informational or debug."),
        shown("log_message", Show::Key, "The whole in words."),
        shown("parameters", Show::Standard, "Names and values: SVM, reason, and what AWS said."),
        shown("source", Show::Standard, "The process that has raised it."),
        shown("svm.uuid", Show::Standard, "Keystead's own: the SVM that it is about."),
        shown("svm.name", Show::Standard, "Keystead's own: the name that the SVM had."),
    ],
};

/// A message of the catalogue.
pub const MESSAGE: Resource = Resource {
    path: MESSAGES_PATH,
    fields: &[
        shown("name", Show::Key, "The name."),
        shown("severity", Show::Standard, "emergency, alert, error, notice, informational or debug."),
        shown("description", Show::Standard, "When it is raised, and what it means."),
        shown("corrective_action", Show::Standard, "What to do."),
        shown("deprecated", Show::Standard, "Always false."),
    ],
};

/// The events, the newest first.
pub async fn events(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&EVENT, request.query.get("fields"), false)?;
    let own = match request.who.role {
        Role::Vsadmin { svm } => Some(svm),
        Role::Admin | Role::Readonly => None,
    };
    let events = request.manager.events(own).await;
    let records = events.events.iter().map(event_record).collect();
    let with_links = request.links();
    let answer = request.collection(&EVENT, records, |record| Json::Object(project_event(&selection, record, with_links)))?;
    if events.complete {
        return Ok(answer);
    }
    Ok(answer.header(header::WARNING, "299 keystead \"the store cannot be read; these are the events of this node that wait to be written\""))
}

/// One event.
pub async fn event(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&EVENT, request.query.get("fields"), true)?;
    let missing = || Error::new(Code::NotFound).target("index");
    let [node, index] = request.segments.as_slice() else { return Err(missing()) };
    let event = request.manager.event(node, index.parse().map_err(|_| missing())?).await?;
    let visible = match (&event.svm, request.who.role) {
        (Some(about), _) => request.sees(about.uuid),
        (None, role) => !matches!(role, Role::Vsadmin { .. }),
    };
    if !visible {
        return Err(missing());
    }
    Ok(Answer::ok(Json::Object(project_event(&selection, &event_record(&event), request.links()))))
}

/// The catalogue.
pub async fn messages(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&MESSAGE, request.query.get("fields"), false)?;
    let records = MESSAGES.iter().map(|message| message_record(message)).collect();
    let with_links = request.links();
    request.collection(&MESSAGE, records, |record| {
        let mut shown = selection.project(record);
        if let (true, Some(name)) = (with_links, record.get("name").and_then(Json::as_str)) {
            put(&mut shown, "_links", message_link(name));
        }
        Json::Object(shown)
    })
}

fn event_record(event: &Event) -> Map<String, Json> {
    let mut record = Map::new();
    // No field of the resource: the position of a page, in the order in which events are listed.
    let age = u64::MAX - u64::try_from(event.time.as_nanosecond()).unwrap_or_default();
    put(&mut record, "uuid", json!(format!("{age:020}{}{:020}", event.node.uuid.simple(), u64::MAX - event.index)));
    put(&mut record, "node", json!({ "name": event.node.name, "uuid": event.node.uuid }));
    put(&mut record, "index", json!(event.index));
    put(&mut record, "time", json!(time(event.time)));
    put(&mut record, "message", json!({ "name": event.message, "severity": event.severity.text() }));
    put(&mut record, "log_message", json!(event.log_message));
    let parameters: Vec<Json> = event.parameters.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    put(&mut record, "parameters", json!(parameters));
    put(&mut record, "source", json!(SOURCE));
    if let Some(about) = &event.svm {
        put(&mut record, "svm", svm(about, false));
    }
    record
}

fn project_event(selection: &Selection, record: &Map<String, Json>, with_links: bool) -> Map<String, Json> {
    let mut shown = selection.project(record);
    if with_links {
        let text = |path| get(record, path).and_then(Json::as_str).unwrap_or_default();
        let index = record.get("index").and_then(Json::as_u64).unwrap_or_default();
        let node = percent_encoding::utf8_percent_encode(text("node.name"), percent_encoding::NON_ALPHANUMERIC);
        put(&mut shown, "node._links", links(&format!("/api/cluster/nodes/{}", text("node.uuid"))));
        put(&mut shown, "message._links", message_link(text("message.name")));
        put(&mut shown, "_links", links(&format!("{EVENTS_PATH}/{node}/{index}")));
        if shown.contains_key("svm") {
            put(&mut shown, "svm._links", links(&format!("/api/svm/svms/{}", text("svm.uuid"))));
        }
    }
    shown
}

fn message_record(message: &Message) -> Map<String, Json> {
    let mut record = Map::new();
    // The position of a page.
    put(&mut record, "uuid", json!(message.name));
    put(&mut record, "name", json!(message.name));
    put(&mut record, "severity", json!(message.severity.text()));
    put(&mut record, "description", json!(message.description));
    put(&mut record, "corrective_action", json!(message.corrective_action));
    put(&mut record, "deprecated", json!(false));
    record
}

fn message_link(name: &str) -> Json {
    links(&format!("{MESSAGES_PATH}?name={name}"))
}
