//! `/security/key-managers`: the onboard key manager, and moving keys. AWS KMS configurations have a resource of their own, and are named here only as source or destination of a move.

use crate::collection::cell::Cell;
use crate::field::{ANY, As, Field, Kind, Patch, Post, Show, Spec};
use crate::request::{Answer, Done, Request, links};
use crate::resource::{Link, Resource};
use http::StatusCode;
use keystead_manager::model::{OnboardKeyManager, Role};
use keystead_manager::onboard::OnboardChange;
use keystead_manager::{Code, Error, Result};
use serde_json::json;
use uuid::Uuid;

const PATH: &str = "/api/security/key-managers";
/// More than any passphrase that is allowed; its own rule is a length in bytes.
const PASSPHRASE: Kind = Kind::Secret(1024);

/// What is shown of the onboard key manager.
pub struct Record {
    onboard: OnboardKeyManager,
    /// For administrators alone.
    key_backup: Option<String>,
}

type Get = for<'a> fn(&'a Record) -> Cell<'a>;

const fn shown(path: &'static str, of: As, show: Show, get: Get, doc: &'static str) -> Field<Record> {
    Field::shown(path, of, show, get, doc)
}

const fn secret(path: &'static str, post: Post, doc: &'static str) -> Field<Record> {
    Field::hidden(path, PASSPHRASE, post, Patch::Yes, doc)
}

const fn svm(path: &'static str, kind: Kind) -> Field<Record> {
    let doc = "In a POST, the admin SVM or none. Never shown: it belongs to the cluster.";
    Field::given(Spec { path, kind, post: Post::Optional, patch: Patch::No, show: Show::Standard, doc }, |_| Cell::Null)
}

/// The `security_key_manager` object, as far as it is about the onboard key manager.
pub const KEY_MANAGER: Resource<Record> = Resource {
    name: "security_key_manager",
    path: PATH,
    fields: &[
        shown("uuid", As::Uuid, Show::Key, |r| Cell::Uuid(r.onboard.uuid), "The identifier."),
        shown("scope", As::Word(&["svm", "cluster"]), Show::Standard, |_| Cell::text("cluster"), "Always cluster."),
        svm("svm.uuid", Kind::Uuid),
        svm("svm.name", Kind::Text(1, 256, ANY)),
        shown("onboard.enabled", As::Bool, Show::Standard, |_| Cell::Bool(true), "Always true."),
        secret("onboard.passphrase", Post::Required, "The cluster passphrase: 32 to 256 bytes."),
        secret("onboard.existing_passphrase", Post::Unknown, "The passphrase as it is."),
        Field::hidden(
            "onboard.synchronize",
            Kind::Bool,
            Post::Optional,
            Patch::Yes,
            "Bring the onboard key back with the existing passphrase, and seal it by the seal key of now. In a POST: for MetroCluster, which this is none of.",
        ),
        shown(
            "onboard.key_backup",
            As::Text,
            Show::Advanced,
            |r| Cell::maybe(r.key_backup.as_ref()),
            "The onboard key as the passphrase has sealed it, for administrators alone: keep it in a safe place.",
        ),
        shown("external.servers", As::Objects(&[("server", As::Text)]), Show::Standard, |_| Cell::Null, "Never there: it has no servers."),
        shown("is_default_data_at_rest_encryption_disabled", As::Bool, Show::Advanced, |_| Cell::Bool(false), "Always false."),
        shown("volume_encryption.supported", As::Bool, Show::Advanced, |r| Cell::Bool(r.onboard.problem.is_none()), "Whether keys can be made now."),
        shown("volume_encryption.code", As::Text, Show::Advanced, code, "0 where they can."),
        shown("volume_encryption.message", As::Text, Show::Advanced, message, "Why not."),
        shown("status.code", As::Text, Show::Advanced, code, "0 where all is well."),
        shown("status.message", As::Text, Show::Advanced, message, "What is wrong, and what to do."),
    ],
    order: &[("uuid", false)],
    links: &[Link { at: "", href: |r| Some(format!("{PATH}/{}", r.onboard.uuid)) }],
};

/// The body of migrate.
pub const MIGRATE: Resource<()> = Resource {
    name: "security_key_manager_migrate",
    path: PATH,
    fields: &[Field::hidden("uuid", Kind::Uuid, Post::Required, Patch::No, "The destination.")],
    order: &[],
    links: &[],
};

pub async fn list(request: Request) -> Result<Answer> {
    request.list(&KEY_MANAGER, visible(&request)?)
}

pub async fn show(request: Request) -> Result<Answer> {
    let uuid = request.uuid()?;
    let record = visible(&request)?.filter(|record| record.onboard.uuid == uuid).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
    request.one(&KEY_MANAGER, &record)
}

pub async fn create(request: Request) -> Result<Answer> {
    let mut values = request.read_post(&KEY_MANAGER)?;
    let ignored = std::mem::take(&mut values.ignored);
    let passphrase = values.secret("onboard.passphrase").unwrap_or_default();
    if values.flag("onboard.synchronize").unwrap_or(false) {
        return Err(Error::new(Code::SynchronizeNoMetroCluster).target("onboard.synchronize"));
    }
    let svm = request.selector(values.uuid("svm.uuid"), values.text("svm.name"), "svm")?;
    let accepted = request.manager.create_onboard(&request.who, svm.as_ref(), passphrase).await?;
    let record = json!({ "uuid": accepted.resource, "scope": "cluster", "_links": links(&format!("{PATH}/{}", accepted.resource)) });
    Ok(request.accepted(accepted, Done::created(PATH, record)).await?.warn_of(&ignored))
}

pub async fn modify(request: Request) -> Result<Answer> {
    let mut values = request.read_patch(&KEY_MANAGER)?;
    let change = OnboardChange {
        existing_passphrase: values.secret("onboard.existing_passphrase"),
        passphrase: values.secret("onboard.passphrase"),
        synchronize: values.flag("onboard.synchronize").unwrap_or(false),
    };
    let accepted = request.manager.modify_onboard(&request.who, of_cluster(&request)?, change).await?;
    request.accepted(accepted, Done::ok()).await
}

pub async fn delete(request: Request) -> Result<Answer> {
    request.no_body(&KEY_MANAGER)?;
    let accepted = request.manager.delete_onboard(&request.who, of_cluster(&request)?).await?;
    request.accepted(accepted, Done::ok()).await
}

pub async fn migrate(request: Request) -> Result<Answer> {
    request.query.check_change(&KEY_MANAGER, &["uuid"])?;
    let mut body = request.object()?;
    // As with rekey-external: clients that put the arguments of an action into the URL.
    if let Some(uuid) = request.query.get("uuid") {
        body.entry("uuid").or_insert_with(|| json!(uuid));
    }
    let destination = request.given(&MIGRATE, MIGRATE.read_post(body, request.query.unknown())?).uuid("uuid").unwrap_or_default();
    let source = request.uuid().map_err(|_| Error::new(Code::KeyManagerNotFound))?;
    // To who may migrate at all, what the call does not see does not exist. The onboard key manager is no SVM's, and one of the two.
    let unseen = |uuid: &Uuid| request.manager.aws_kms_svm(*uuid).is_ok_and(|svm| !request.sees(svm));
    if let (Role::Admin, Some(uuid)) = (request.who.role, [source, destination].into_iter().find(unseen)) {
        return Err(Error::with(Code::KeyManagerNotFound, uuid).target("uuid"));
    }
    let accepted = request.manager.migrate(&request.who, source, destination).await?;
    request.accepted(accepted, Done { status: StatusCode::CREATED, location: None, record: Some(json!({ "uuid": destination })) }).await
}

/// The key manager of the cluster is not an SVM's to see.
fn visible(request: &Request) -> Result<Option<Record>> {
    if !request.sees_cluster() {
        return Ok(None);
    }
    let onboard = request.manager.onboard_key_manager()?;
    Ok(onboard.map(|onboard| Record { onboard, key_backup: request.manager.onboard_backup(&request.who).ok() }))
}

/// The UUID of the path, where the call sees the key manager of the cluster.
fn of_cluster(request: &Request) -> Result<Uuid> {
    if request.sees_cluster() { request.uuid() } else { Err(Error::new(Code::NotFound).target("uuid")) }
}

fn code(record: &Record) -> Cell<'_> {
    Cell::made(record.onboard.problem.as_ref().map_or_else(|| "0".to_owned(), |_| Code::KeyProtectionUnavailable.to_string()))
}

fn message(record: &Record) -> Cell<'_> {
    record.onboard.problem.as_ref().map_or(Cell::text(""), |problem| Cell::text(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passphrases_are_never_shown() {
        for field in KEY_MANAGER.fields.iter().map(|field| &field.spec).filter(|field| matches!(field.kind, Kind::Secret(_))) {
            assert_eq!(field.show, Show::Never, "{}", field.path);
        }
    }
}
