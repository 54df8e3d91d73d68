//! `/security/key-stores` and `/security/key-managers/{uuid}/keys/{node}/key-ids`: where keys are, and which.

use crate::collection::cell::Cell;
use crate::field::{As, Field, Show};
use crate::request::{Answer, Request, svm_path};
use crate::resource::{Link, Resource};
use keystead_manager::model::{KeyId, KeyStore};
use keystead_manager::{Code, Error, Result};
use uuid::Uuid;

const PATH: &str = "/api/security/key-stores";
/// The states of a key store.
const STATES: &[&str] = &["active", "mixed", "svm_kek_rekey", "blocked", "switching", "initializing", "disabling"];
const LOCATIONS: &[&str] = &["onboard", "external"];

/// The `security_keystore` object.
pub const KEY_STORE: Resource<KeyStore> = Resource {
    name: "security_keystore",
    path: PATH,
    fields: &[
        Field::shown("uuid", As::Uuid, Show::Key, |store| Cell::Uuid(store.uuid), "The identifier: that of the key manager."),
        Field::shown(
            "type",
            As::Word(&["okm", "aws"]),
            Show::Standard,
            |store| Cell::text(if store.onboard { "okm" } else { "aws" }),
            "okm: the onboard key manager; aws: an AWS KMS configuration.",
        ),
        Field::shown("location", As::Word(LOCATIONS), Show::Standard, |store| Cell::text(location(store.onboard)), "onboard or external."),
        Field::shown(
            "scope",
            As::Word(&["svm", "cluster"]),
            Show::Standard,
            |store| Cell::text(if store.svm.is_some() { "svm" } else { "cluster" }),
            "cluster or svm.",
        ),
        Field::shown(
            "svm.uuid",
            As::Uuid,
            Show::Standard,
            |store| store.svm.as_ref().map_or(Cell::Null, |svm| Cell::Uuid(svm.uuid)),
            "The SVM, of an AWS KMS configuration.",
        ),
        Field::shown("svm.name", As::Text, Show::Standard, |store| Cell::maybe(store.svm.as_ref().map(|svm| &svm.name)), "Its name."),
        Field::shown("enabled", As::Bool, Show::Standard, |store| Cell::Bool(store.enabled), "Whether new keys go there, or will when a move is done."),
        Field::shown(
            "state",
            As::Word(STATES),
            Show::Standard,
            |store| Cell::text(store.state),
            "active, mixed, svm_kek_rekey, blocked, switching, initializing or disabling.",
        ),
        Field::shown("configuration.uuid", As::Uuid, Show::Standard, |store| Cell::Uuid(store.uuid), "The key manager."),
    ],
    order: &[("uuid", false)],
    links: &[
        Link { at: "", href: |store| Some(format!("{PATH}/{}", store.uuid)) },
        Link { at: "svm", href: |store| store.svm.as_ref().map(|svm| svm_path(svm.uuid)) },
    ],
};

/// A key, with where it was asked for.
pub struct KeyRecord {
    id: KeyId,
    manager: Uuid,
    node: Uuid,
    onboard: bool,
}

/// The `key_manager_keys` object.
pub const KEY_ID: Resource<KeyRecord> = Resource {
    name: "key_manager_keys",
    path: "/api/security/key-managers",
    fields: &[
        Field::shown("key_id", As::Text, Show::Key, |r| Cell::text(&r.id.key_id), "The key's identifier; of an SVM's KEK: the SVM's, and the version."),
        Field::shown(
            "key_type",
            As::Word(&["vek", "svm_kek"]),
            Show::Standard,
            |r| Cell::text(if r.id.is_kek { "svm_kek" } else { "vek" }),
            "vek: a key of the data plane; svm_kek: the KEK of an SVM.",
        ),
        Field::shown("restored", As::Bool, Show::Standard, |r| Cell::Bool(r.id.restored), "Whether the node can open it now."),
        Field::shown("svm.uuid", As::Uuid, Show::Standard, |r| Cell::Uuid(r.id.svm.uuid), "The SVM."),
        Field::shown("svm.name", As::Text, Show::Standard, |r| Cell::text(&r.id.svm.name), "Its name."),
        Field::shown(
            "encryption_algorithm",
            As::Text,
            Show::Standard,
            |r| Cell::maybe(r.id.algorithm.as_ref()),
            "What the key is for, with its length, where that is known.",
        ),
        Field::shown("key_store", As::Word(LOCATIONS), Show::Standard, |r| Cell::text(location(r.onboard)), "onboard or external."),
        Field::shown("key_manager", As::Uuid, Show::Standard, |r| Cell::Uuid(r.manager), "The key manager."),
        Field::shown("node.uuid", As::Uuid, Show::Standard, |r| Cell::Uuid(r.node), "The node."),
    ],
    order: &[("svm.uuid", false), ("key_type", false), ("key_id", false)],
    links: &[],
};

pub async fn list(request: Request) -> Result<Answer> {
    request.list(&KEY_STORE, visible(&request)?)
}

pub async fn show(request: Request) -> Result<Answer> {
    let uuid = request.uuid()?;
    let store = visible(&request)?.into_iter().find(|store| store.uuid == uuid).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
    request.one(&KEY_STORE, &store)
}

pub async fn key_ids(request: Request) -> Result<Answer> {
    let (manager, node) = (request.uuid()?, request.segments.get(1).and_then(|segment| segment.parse::<Uuid>().ok()));
    let node = node.ok_or_else(|| Error::new(Code::NotFound).target("node.uuid"))?;
    let onboard = request.manager.onboard_key_manager()?.is_some_and(|onboard| onboard.uuid == manager);
    // The key manager of the cluster is not an SVM's to see: what is asked for then is one that does not exist.
    let asked = if onboard && !request.sees_cluster() { Uuid::nil() } else { manager };
    let ids = request.manager.key_ids(asked, node, |svm| request.sees(svm)).await?;
    let listed = move || request.list(&KEY_ID, ids.iter().map(|id| KeyRecord { id, manager, node, onboard }));
    tokio::task::spawn_blocking(listed).await.map_err(Error::unexpected)?
}

/// The cluster's key store is not an SVM's to see.
fn visible(request: &Request) -> Result<Vec<KeyStore>> {
    let all_svms = request.sees_cluster();
    let mut stores = request.manager.key_stores()?;
    stores.retain(|store| store.svm.as_ref().map_or(all_svms, |svm| request.sees(svm.uuid)));
    Ok(stores)
}

fn location(onboard: bool) -> &'static str {
    if onboard { "onboard" } else { "external" }
}
