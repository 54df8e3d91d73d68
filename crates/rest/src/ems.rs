//! `/support/ems`: events, and the catalogue of their messages.

use crate::collection::cell::Cell;
use crate::field::{As, Field, Show};
use crate::request::{Answer, Request, svm_path};
use crate::resource::{Link, Resource};
use http::header;
use keystead_manager::events::{Event, MESSAGES, Message};
use keystead_manager::{Code, Error, Result};
use serde_json::{Value as Json, json};

const EVENTS_PATH: &str = "/api/support/ems/events";
const MESSAGES_PATH: &str = "/api/support/ems/messages";
/// The process that has raised an event.
const SOURCE: &str = "keystead";
const SEVERITIES: As = As::Word(&["emergency", "alert", "error", "notice", "informational", "debug"]);

/// An event.
pub const EVENT: Resource<Event> = Resource {
    name: "ems_event",
    path: EVENTS_PATH,
    fields: &[
        Field::shown("node.name", As::Text, Show::Key, |event| Cell::text(&event.node.name), "Where it happened."),
        Field::shown("node.uuid", As::Uuid, Show::Key, |event| Cell::Uuid(event.node.uuid), "The node's identifier."),
        Field::shown("index", As::Integer, Show::Key, |event| Cell::number(event.index), "Its number on that node."),
        Field::shown("time", As::Time, Show::Key, |event| Cell::time(event.time), "When."),
        Field::shown("message.name", As::Text, Show::Key, |event| Cell::text(&event.message), "The name of the message."),
        Field::shown(
            "message.severity",
            SEVERITIES,
            Show::Key,
            |event| Cell::text(event.severity.text()),
            "emergency, alert, error, notice, informational or debug.",
        ),
        Field::shown("log_message", As::Text, Show::Key, |event| Cell::text(&event.log_message), "The whole in words."),
        Field::shown(
            "parameters",
            As::Objects(&[("name", As::Text), ("value", As::Text)]),
            Show::Standard,
            parameters,
            "Names and values: SVM, reason, and what AWS said.",
        ),
        Field::shown("source", As::Text, Show::Standard, |_| Cell::text(SOURCE), "The process that has raised it."),
        Field::shown(
            "svm.uuid",
            As::Uuid,
            Show::Standard,
            |event| event.svm.as_ref().map_or(Cell::Null, |svm| Cell::Uuid(svm.uuid)),
            "Keystead's own: the SVM that it is about.",
        ),
        Field::shown(
            "svm.name",
            As::Text,
            Show::Standard,
            |event| Cell::maybe(event.svm.as_ref().map(|svm| &svm.name)),
            "Keystead's own: the name that the SVM had.",
        ),
    ],
    // The newest first.
    order: &[("time", true), ("node.uuid", false), ("index", true)],
    links: &[
        Link { at: "", href: |event| Some(event_path(event)) },
        Link { at: "node", href: |event| Some(format!("/api/cluster/nodes/{}", event.node.uuid)) },
        Link { at: "message", href: |event| Some(message_path(&event.message)) },
        Link { at: "svm", href: |event| event.svm.as_ref().map(|svm| svm_path(svm.uuid)) },
    ],
};

/// A message of the catalogue.
pub const MESSAGE: Resource<&'static Message> = Resource {
    name: "ems_message",
    path: MESSAGES_PATH,
    fields: &[
        Field::shown("name", As::Text, Show::Key, |message| Cell::text(message.name), "The name."),
        Field::shown(
            "severity",
            SEVERITIES,
            Show::Standard,
            |message| Cell::text(message.severity.text()),
            "emergency, alert, error, notice, informational or debug.",
        ),
        Field::shown("description", As::Text, Show::Standard, |message| Cell::text(message.description), "When it is raised, and what it means."),
        Field::shown("corrective_action", As::Text, Show::Standard, |message| Cell::text(message.corrective_action), "What to do."),
        Field::shown("deprecated", As::Bool, Show::Standard, |_| Cell::Bool(false), "Always false."),
    ],
    order: &[("name", false)],
    links: &[Link { at: "", href: |message| Some(message_path(message.name)) }],
};

/// The events, the newest first.
pub async fn events(request: Request) -> Result<Answer> {
    let events = request.manager.events(request.only()).await;
    let answer = request.list(&EVENT, events.events)?;
    if events.complete {
        return Ok(answer);
    }
    Ok(answer.header(header::WARNING, "299 keystead \"the store cannot be read; these are the events of this node that wait to be written\""))
}

/// One event.
pub async fn event(request: Request) -> Result<Answer> {
    let missing = || Error::new(Code::NotFound).target("index");
    let [node, index] = request.segments.as_slice() else { return Err(missing()) };
    let event = request.manager.event(node, index.parse().map_err(|_| missing())?).await?;
    let visible = event.svm.as_ref().map_or_else(|| request.sees_cluster(), |about| request.sees(about.uuid));
    if visible { request.one(&EVENT, &event) } else { Err(missing()) }
}

/// The catalogue.
pub async fn messages(request: Request) -> Result<Answer> {
    request.list(&MESSAGE, MESSAGES.iter().copied())
}

fn parameters(event: &Event) -> Cell<'_> {
    let parameters: Vec<Json> = event.parameters.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    Cell::Json(json!(parameters))
}

fn event_path(event: &Event) -> String {
    let node = percent_encoding::utf8_percent_encode(&event.node.name, percent_encoding::NON_ALPHANUMERIC);
    format!("{EVENTS_PATH}/{node}/{}", event.index)
}

fn message_path(name: &str) -> String {
    format!("{MESSAGES_PATH}?name={name}")
}
