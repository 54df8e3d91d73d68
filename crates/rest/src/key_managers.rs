//! `/security/key-managers`: the onboard key manager, and moving keys. AWS KMS configurations have a resource of their own, and are named here only as source or destination of a move.

use crate::field::{Field, Kind, Patch, Post, Show};
use crate::request::{Answer, Done, Request, links};
use crate::resource::{Resource, put};
use crate::select::Selection;
use http::StatusCode;
use keystead_manager::model::{OnboardKeyManager, Role};
use keystead_manager::onboard::OnboardChange;
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json, json};

const PATH: &str = "/api/security/key-managers";
/// More than any passphrase that is allowed; its own rule is a length in bytes.
const PASSPHRASE: Kind = Kind::Secret(1024);

const fn shown(path: &'static str, show: Show, doc: &'static str) -> Field {
    Field { path, kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show, doc }
}

const fn secret(path: &'static str, post: Post, doc: &'static str) -> Field {
    Field { path, kind: PASSPHRASE, post, patch: Patch::Yes, show: Show::Never, doc }
}

/// The `security_key_manager` object, as far as it is about the onboard key manager.
pub const KEY_MANAGER: Resource = Resource {
    path: PATH,
    fields: &[
        shown("uuid", Show::Key, "The identifier."),
        shown("scope", Show::Standard, "Always cluster."),
        shown("svm.uuid", Show::Standard, "Never there: it belongs to the cluster."),
        shown("svm.name", Show::Standard, "Never there: it belongs to the cluster."),
        shown("onboard.enabled", Show::Standard, "Always true."),
        secret("onboard.passphrase", Post::Required, "The cluster passphrase: 32 to 256 bytes."),
        secret("onboard.existing_passphrase", Post::Unknown, "The passphrase as it is."),
        Field {
            path: "onboard.synchronize",
            kind: Kind::Bool,
            post: Post::Ignored,
            patch: Patch::Yes,
            show: Show::Never,
            doc: "Bring the onboard key back with the existing passphrase, and seal it by the seal key of now.",
        },
        shown("onboard.key_backup", Show::Advanced, "The onboard key as the passphrase has sealed it, for administrators alone: keep it in a safe place."),
        shown("external.servers", Show::Standard, "Never there: it has no servers."),
        shown("is_default_data_at_rest_encryption_disabled", Show::Advanced, "Always false."),
        shown("volume_encryption.supported", Show::Advanced, "Whether keys can be made now."),
        shown("volume_encryption.code", Show::Advanced, "0 where they can."),
        shown("volume_encryption.message", Show::Advanced, "Why not."),
        shown("status.code", Show::Advanced, "0 where all is well."),
        shown("status.message", Show::Advanced, "What is wrong, and what to do."),
    ],
};

/// The body of migrate.
const MIGRATE: Resource = Resource {
    path: PATH,
    fields: &[Field { path: "uuid", kind: Kind::Uuid, post: Post::Required, patch: Patch::No, show: Show::Key, doc: "The destination." }],
};

pub async fn list(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&KEY_MANAGER, request.query.get("fields"), false)?;
    let records = visible(&request)?.iter().map(|onboard| record(&request, onboard)).collect();
    let with_links = request.links();
    request.collection(&KEY_MANAGER, records, |record| Json::Object(project(&selection, record, with_links)))
}

pub async fn show(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&KEY_MANAGER, request.query.get("fields"), true)?;
    let uuid = request.uuid()?;
    let onboard = visible(&request)?.filter(|onboard| onboard.uuid == uuid).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
    Ok(Answer::ok(Json::Object(project(&selection, &record(&request, &onboard), request.links()))))
}

pub async fn create(request: Request) -> Result<Answer> {
    request.query.check_change(&KEY_MANAGER, &[])?;
    let mut values = KEY_MANAGER.read_post(request.object()?)?;
    let ignored = std::mem::take(&mut values.ignored);
    let passphrase = values.secret("onboard.passphrase").unwrap_or_default();
    let accepted = request.manager.create_onboard(&request.who, passphrase).await?;
    let record = json!({ "uuid": accepted.resource, "scope": "cluster", "_links": links(&format!("{PATH}/{}", accepted.resource)) });
    Ok(request.accepted(accepted, Done::created(PATH, record)).await?.warn_of(&ignored))
}

pub async fn modify(request: Request) -> Result<Answer> {
    request.query.check_change(&KEY_MANAGER, &[])?;
    let mut values = KEY_MANAGER.read_patch(request.object()?)?;
    let change = OnboardChange {
        existing_passphrase: values.secret("onboard.existing_passphrase"),
        passphrase: values.secret("onboard.passphrase"),
        synchronize: values.flag("onboard.synchronize").unwrap_or(false),
    };
    let accepted = request.manager.modify_onboard(&request.who, request.uuid()?, change).await?;
    request.accepted(accepted, Done::ok()).await
}

pub async fn delete(request: Request) -> Result<Answer> {
    request.query.check_change(&KEY_MANAGER, &[])?;
    if let Some(name) = request.object()?.keys().next() {
        return Err(Error::with(Code::BodyNotAllowed, name).target(name.as_str()));
    }
    let accepted = request.manager.delete_onboard(&request.who, request.uuid()?).await?;
    request.accepted(accepted, Done::ok()).await
}

pub async fn migrate(request: Request) -> Result<Answer> {
    request.query.check_change(&KEY_MANAGER, &["uuid"])?;
    let mut body = request.object()?;
    // As with rekey-external: clients that put the arguments of an action into the URL.
    if let Some(uuid) = request.query.get("uuid") {
        body.entry("uuid").or_insert_with(|| json!(uuid));
    }
    let destination = MIGRATE.read_post(body)?.uuid("uuid").unwrap_or_default();
    let source = request.uuid().map_err(|_| Error::new(Code::KeyManagerNotFound))?;
    let accepted = request.manager.migrate(&request.who, source, destination).await.map_err(|error| hidden(&request, error))?;
    request.accepted(accepted, Done { status: StatusCode::CREATED, location: None, record: Some(json!({ "uuid": destination })) }).await
}

/// The key manager of the cluster is not an SVM's to see.
fn visible(request: &Request) -> Result<Option<OnboardKeyManager>> {
    match request.who.role {
        Role::Admin | Role::Readonly => request.manager.onboard_key_manager(),
        Role::Vsadmin { .. } => Ok(None),
    }
}

/// To an account of an SVM, what belongs to another SVM does not exist.
fn hidden(request: &Request, error: Error) -> Error {
    match (request.who.role, error.code) {
        (Role::Vsadmin { .. }, Code::PermissionDenied) => Error::new(Code::KeyManagerNotFound).target("uuid"),
        _ => error,
    }
}

fn record(request: &Request, onboard: &OnboardKeyManager) -> Map<String, Json> {
    let mut record = Map::new();
    put(&mut record, "uuid", json!(onboard.uuid));
    put(&mut record, "scope", json!("cluster"));
    put(&mut record, "onboard.enabled", json!(true));
    if let Ok(backup) = request.manager.onboard_backup(&request.who) {
        put(&mut record, "onboard.key_backup", json!(backup));
    }
    put(&mut record, "is_default_data_at_rest_encryption_disabled", json!(false));
    put(&mut record, "volume_encryption.supported", json!(onboard.problem.is_none()));
    for object in ["volume_encryption", "status"] {
        let code = onboard.problem.as_ref().map_or_else(|| "0".to_owned(), |_| Code::KeyProtectionUnavailable.to_string());
        put(&mut record, &format!("{object}.code"), json!(code));
        put(&mut record, &format!("{object}.message"), json!(onboard.problem.clone().unwrap_or_default()));
    }
    record
}

fn project(selection: &Selection, record: &Map<String, Json>, with_links: bool) -> Map<String, Json> {
    let mut shown = selection.project(record);
    if with_links {
        let uuid = record.get("uuid").and_then(Json::as_str).unwrap_or_default();
        put(&mut shown, "_links", links(&format!("{PATH}/{uuid}")));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passphrases_are_never_shown() {
        for field in KEY_MANAGER.fields.iter().filter(|field| matches!(field.kind, Kind::Secret(_))) {
            assert_eq!(field.show, Show::Never, "{}", field.path);
        }
    }
}
