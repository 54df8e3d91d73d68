//! `/security/audit/messages`: the audit log.

use crate::collection::Listing;
use crate::collection::cell::Cell;
use crate::field::{As, Field, Show};
use crate::request::{Answer, Request, svm_path};
use crate::resource::{Link, Resource};
use keystead_audit::{Application, Record, State, read};
use keystead_manager::{Error, Result};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use uuid::Uuid;

/// A record of the log: ONTAP's fields, and under `keystead` what it has no field for.
pub const MESSAGE: Resource<Record> = Resource {
    name: "security_audit_log",
    path: "/api/security/audit/messages",
    fields: &[
        Field::shown("timestamp", As::Time, Show::Key, |record| Cell::time(record.time), "When it was recorded."),
        Field::shown("node.name", As::Text, Show::Key, |record| Cell::text(&record.node.name), "The node that it happened on."),
        Field::shown("node.uuid", As::Uuid, Show::Key, |record| Cell::Uuid(record.node.uuid), "Its identifier."),
        Field::shown("index", As::Integer, Show::Key, |record| Cell::number(record.index), "Its number on that node: each is one more than the one before."),
        Field::shown("application", As::Word(Application::WORDS), Show::Key, |record| Cell::text(record.application.text()), "http, kmip, job or audit."),
        Field::shown("location", As::Text, Show::Key, |record| made(record.location), "The address that it came from."),
        Field::shown("user", As::Text, Show::Key, |record| Cell::maybe(record.user.as_ref()), "The account, or the common name of the client's certificate."),
        Field::shown("role", As::Text, Show::Standard, |record| Cell::maybe(record.role.as_ref()), "The role of the account."),
        Field::shown("input", As::Text, Show::Key, |record| Cell::text(&record.input), "The call, or the KMIP operation."),
        Field::shown(
            "state",
            As::Word(State::WORDS),
            Show::Key,
            |record| Cell::text(record.state.text()),
            "pending: it begins; success or error: it has ended.",
        ),
        Field::shown("message", As::Text, Show::Key, |record| Cell::maybe(record.message.as_ref()), "What came of it, or what is to be known."),
        Field::shown(
            "scope",
            As::Word(&["svm", "cluster"]),
            Show::Key,
            |record| Cell::text(if record.svm.is_some() { "svm" } else { "cluster" }),
            "Whether it is about an SVM.",
        ),
        Field::shown("svm.name", As::Text, Show::Key, |record| Cell::maybe(record.svm.as_ref().map(|svm| &svm.name)), "The name that the SVM had."),
        Field::shown(
            "svm.uuid",
            As::Uuid,
            Show::Key,
            |record| record.svm.as_ref().map_or(Cell::Null, |svm| Cell::Uuid(svm.uuid)),
            "Keystead's own: its identifier.",
        ),
        Field::shown("session_id", As::Text, Show::Standard, |record| made(record.session_id), "The connection."),
        Field::shown(
            "command_id",
            As::Text,
            Show::Standard,
            |record| made(record.command_id),
            "The same in the record that a call begins and in the one that it has ended.",
        ),
        Field::shown("keystead.port", As::Integer, Show::Standard, |record| number(record.port.map(u64::from)), "The port that it came from."),
        Field::shown("keystead.code", As::Text, Show::Standard, |record| Cell::maybe(record.code.as_ref()), "Of a failure: the code, or KMIP's reason."),
        Field::shown("keystead.object", As::Uuid, Show::Standard, |record| uuid(record.object), "The object: its UUID, or its Unique Identifier."),
        Field::shown("keystead.job", As::Uuid, Show::Standard, |record| uuid(record.job), "The job that goes on with it, or that has ended."),
        Field::shown("keystead.duration", As::Integer, Show::Standard, |record| number(record.duration_ms), "How long it took, in milliseconds."),
        Field::shown(
            "keystead.count",
            As::Integer,
            Show::Standard,
            |record| number(record.count),
            "How often it was done from `since` to `until`; or how many records are meant.",
        ),
        Field::shown("keystead.since", As::Time, Show::Standard, |record| record.since.map_or(Cell::Null, Cell::time), "The first of them."),
        Field::shown("keystead.until", As::Time, Show::Standard, |record| record.until.map_or(Cell::Null, Cell::time), "The last of them."),
        Field::shown(
            "keystead.certificate.fingerprint",
            As::Text,
            Show::Standard,
            |record| Cell::maybe(record.certificate.as_ref().map(|one| &one.fingerprint)),
            "SHA-256 of the client's certificate.",
        ),
        Field::shown(
            "keystead.certificate.serial_number",
            As::Text,
            Show::Standard,
            |record| Cell::maybe(record.certificate.as_ref().map(|one| &one.serial_number)),
            "Its serial number, hexadecimal.",
        ),
        Field::shown(
            "keystead.fields",
            As::Objects(&[("name", As::Text), ("value", As::Text)]),
            Show::Standard,
            fields,
            "The fields that were given; values of those alone that may be shown.",
        ),
        Field::shown("keystead.previous_hash", As::Text, Show::Advanced, |record| Cell::text(&record.prev), "The hash of the record before, SHA-256."),
    ],
    // The newest first. By number, since a clock may be set back.
    order: &[("node.uuid", false), ("index", true)],
    links: &[
        Link { at: "node", href: |record| Some(format!("/api/cluster/nodes/{}", record.node.uuid)) },
        Link { at: "svm", href: |record| record.svm.as_ref().map(|svm| svm_path(svm.uuid)) },
    ],
};

/// The records of this node, the newest first. An account of an SVM sees those about its SVM.
pub async fn list(request: Request) -> Result<Answer> {
    let mut listing = Listing::parse(&MESSAGE, &request.query)?;
    let own = request.only();
    let audit = request.manager.audit().clone();
    // What is written and may be withdrawn, since the disk takes no more, is no record yet.
    let newest = audit.newest().borrow().saturating_add(1);
    let before = match listing.begins_behind("index").filter(|_| listing.is_in_own_order()) {
        Some(Cell::Integer(index)) => newest.min(u64::try_from(*index).unwrap_or_default()),
        _ => newest,
    };
    let turn = audit.turn().await;
    let folder = audit.folder().to_owned();
    // Where the call is given up, its reading ends too, and only then is it another's turn.
    let wanted = Arc::new(());
    let still_wanted = Arc::downgrade(&wanted);
    let looked = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let records = read::newest_first(&folder, Some(before))?.take_while(|_| still_wanted.strong_count() > 0);
        let seen = records.filter(|record| own.is_none_or(|own| record.svm.as_ref().is_some_and(|svm| svm.uuid == own)));
        let found = if listing.is_in_own_order() { listing.few(seen) } else { listing.first(seen) };
        Ok::<_, std::io::Error>((listing, found))
    });
    let (listing, found) = looked.await.map_err(Error::unexpected)?.map_err(Error::unexpected)?;
    drop(wanted);
    request.page(listing, found)
}

fn made(value: Option<impl ToString>) -> Cell<'static> {
    value.map_or(Cell::Null, |value| Cell::made(value.to_string()))
}

fn number(value: Option<u64>) -> Cell<'static> {
    value.map_or(Cell::Null, Cell::number)
}

fn uuid(value: Option<Uuid>) -> Cell<'static> {
    value.map_or(Cell::Null, Cell::Uuid)
}

fn fields(record: &Record) -> Cell<'_> {
    if record.fields.is_empty() {
        return Cell::Null;
    }
    Cell::Json(Json::Array(record.fields.iter().map(|field| json!({ "name": field.name, "value": field.value })).collect()))
}
