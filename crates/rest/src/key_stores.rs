//! `/security/key-stores` and `/security/key-managers/{uuid}/keys/{node}/key-ids`: where keys are, and which.

use crate::field::{Field, Kind, Patch, Post, Show};
use crate::request::{Answer, Request, links, svm};
use crate::resource::{Resource, put};
use crate::select::Selection;
use keystead_manager::model::{KeyId, KeyStore};
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

const PATH: &str = "/api/security/key-stores";

const fn shown(path: &'static str, show: Show, doc: &'static str) -> Field {
    Field { path, kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show, doc }
}

/// The `security_keystore` object.
pub const KEY_STORE: Resource = Resource {
    path: PATH,
    fields: &[
        shown("uuid", Show::Key, "The identifier: that of the key manager."),
        shown("type", Show::Standard, "okm: the onboard key manager; aws: an AWS KMS configuration."),
        shown("location", Show::Standard, "onboard or external."),
        shown("scope", Show::Standard, "cluster or svm."),
        shown("svm.uuid", Show::Standard, "The SVM, of an AWS KMS configuration."),
        shown("svm.name", Show::Standard, "Its name."),
        shown("enabled", Show::Standard, "Whether new keys go there, or will when a move is done."),
        shown("state", Show::Standard, "active, mixed, svm_kek_rekey, blocked, switching, initializing or disabling."),
        shown("configuration.uuid", Show::Standard, "The key manager."),
    ],
};

/// The `key_manager_keys` object.
pub const KEY_ID: Resource = Resource {
    path: "/api/security/key-managers",
    fields: &[
        shown("key_id", Show::Key, "The key's identifier; of an SVM's KEK: the SVM's, and the version."),
        shown("key_type", Show::Standard, "vek: a key of the data plane; svm_kek: the KEK of an SVM."),
        shown("restored", Show::Standard, "Whether the node can open it now."),
        shown("svm.uuid", Show::Standard, "The SVM."),
        shown("svm.name", Show::Standard, "Its name."),
        shown("encryption_algorithm", Show::Standard, "What the key is for, with its length, where that is known."),
        shown("key_store", Show::Standard, "onboard or external."),
        shown("key_manager", Show::Standard, "The key manager."),
        shown("node.uuid", Show::Standard, "The node."),
    ],
};

pub async fn list(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&KEY_STORE, request.query.get("fields"), false)?;
    let records = visible(&request)?.iter().map(record).collect();
    let with_links = request.links();
    request.collection(&KEY_STORE, records, |record| Json::Object(project(&selection, record, with_links)))
}

pub async fn show(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&KEY_STORE, request.query.get("fields"), true)?;
    let uuid = request.uuid()?;
    let store = visible(&request)?.into_iter().find(|store| store.uuid == uuid).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
    Ok(Answer::ok(Json::Object(project(&selection, &record(&store), request.links()))))
}

pub async fn key_ids(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&KEY_ID, request.query.get("fields"), false)?;
    let (manager, node) = (request.uuid()?, request.segments.get(1).and_then(|segment| segment.parse::<Uuid>().ok()));
    let node = node.ok_or_else(|| Error::new(Code::NotFound).target("node.uuid"))?;
    let onboard = request.manager.onboard_key_manager()?.is_some_and(|onboard| onboard.uuid == manager);
    let ids = request.manager.key_ids(manager, node, |svm| request.sees(svm)).await?;
    let records = ids.iter().map(|id| key_record(id, manager, node, onboard)).collect();
    request.collection(&KEY_ID, records, |record| Json::Object(selection.project(record)))
}

/// The cluster's key store is not an SVM's to see.
fn visible(request: &Request) -> Result<Vec<KeyStore>> {
    let all_svms = request.sees(Uuid::nil());
    let mut stores = request.manager.key_stores()?;
    stores.retain(|store| store.svm.as_ref().map_or(all_svms, |svm| request.sees(svm.uuid)));
    Ok(stores)
}

fn record(store: &KeyStore) -> Map<String, Json> {
    let mut record = Map::new();
    put(&mut record, "uuid", json!(store.uuid));
    put(&mut record, "type", json!(if store.onboard { "okm" } else { "aws" }));
    put(&mut record, "location", json!(location(store.onboard)));
    put(&mut record, "scope", json!(if store.svm.is_some() { "svm" } else { "cluster" }));
    if let Some(owner) = &store.svm {
        put(&mut record, "svm", svm(owner, false));
    }
    put(&mut record, "enabled", json!(store.enabled));
    put(&mut record, "state", json!(store.state));
    put(&mut record, "configuration.uuid", json!(store.uuid));
    record
}

fn key_record(id: &KeyId, manager: Uuid, node: Uuid, onboard: bool) -> Map<String, Json> {
    let mut record = Map::new();
    // Not a field: what pages go on by.
    put(&mut record, "uuid", json!(id.uuid));
    put(&mut record, "key_id", json!(id.key_id));
    put(&mut record, "key_type", json!(if id.is_kek { "svm_kek" } else { "vek" }));
    put(&mut record, "restored", json!(id.restored));
    put(&mut record, "svm", svm(&id.svm, false));
    if let Some(algorithm) = &id.algorithm {
        put(&mut record, "encryption_algorithm", json!(algorithm));
    }
    put(&mut record, "key_store", json!(location(onboard)));
    put(&mut record, "key_manager", json!(manager));
    put(&mut record, "node.uuid", json!(node));
    record
}

fn location(onboard: bool) -> &'static str {
    if onboard { "onboard" } else { "external" }
}

fn project(selection: &Selection, record: &Map<String, Json>, with_links: bool) -> Map<String, Json> {
    let mut shown = selection.project(record);
    if with_links {
        let uuid = record.get("uuid").and_then(Json::as_str).unwrap_or_default();
        put(&mut shown, "_links", links(&format!("{PATH}/{uuid}")));
    }
    shown
}
