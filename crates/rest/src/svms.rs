//! `/svm/svms`: the SVMs.

use crate::collection::One;
use crate::collection::cell::{self, Cell};
use crate::field::{ANY, As, Field, Kind, Patch, Post, Show, Spec};
use crate::request::{Answer, Done, Request, links, svm_path};
use crate::resource::{Link, Resource};
use crate::values::Values;
use keystead_manager::model::{KeyCounts, Svm, SvmKek, SvmKind};
use keystead_manager::{Code, Error, Manager, Result};
use serde_json::{Value as Json, json};
use uuid::Uuid;

const PATH: &str = "/api/svm/svms";

/// Where an SVM can stand.
const STATES: &[&str] = &["none", "initializing", "onboard", "available", "degraded", "revoking", "blocked", "unavailable", "disabling"];

/// An SVM, and who can say more of it.
pub struct Record {
    svm: Svm,
    manager: Manager,
    /// How many keys it has, where that was asked for.
    keys: Option<KeyCounts>,
}

/// A protocol that serves data: there is none here.
const fn protocol(path: &'static str) -> Field<Record> {
    Field::shown(path, As::Bool, Show::Named, |_| Cell::Bool(false), "Always false: an SVM serves keys here, and no data.")
}

/// A field of ONTAP's that says nothing here.
const fn absent(path: &'static str, of: As) -> Field<Record> {
    Field::shown(path, of, Show::Named, |_| Cell::Null, "Never there: an SVM has no storage here.")
}

/// The members of an entry of `keystead.keks`.
const KEK: &[(&str, As)] = &[("version", As::Integer), ("current", As::Bool), ("loaded", As::Bool), ("key_arn", As::Text), ("wrapped_time", As::Time)];

/// The `svm` object, as far as Keystead serves it.
pub const SVM: Resource<Record> = Resource {
    name: "svm",
    path: PATH,
    fields: &[
        Field::shown("uuid", As::Uuid, Show::Key, |r| Cell::Uuid(r.svm.uuid), "The identifier."),
        Field::given(Spec { path: "name", kind: Kind::Text(1, 256, ANY), post: Post::Required, patch: Patch::Yes, show: Show::Key, doc: "The name." }, |r| {
            Cell::text(&r.svm.name)
        }),
        Field::given(
            Spec { path: "comment", kind: Kind::Text(0, 254, ANY), post: Post::Optional, patch: Patch::Clearable, show: Show::Standard, doc: "A free text." },
            |r| Cell::text(&r.svm.comment),
        ),
        Field::shown("state", As::Word(&["running"]), Show::Standard, |_| Cell::text("running"), "Always running."),
        Field::shown("subtype", As::Word(&["default"]), Show::Standard, |_| Cell::text("default"), "Always default."),
        // What clients of ONTAP ask for by name, whatever they want. An SVM here has no storage of its own.
        protocol("nfs.allowed"),
        protocol("nfs.enabled"),
        protocol("cifs.allowed"),
        protocol("cifs.enabled"),
        protocol("fcp.allowed"),
        protocol("fcp.enabled"),
        protocol("iscsi.allowed"),
        protocol("iscsi.enabled"),
        protocol("nvme.allowed"),
        protocol("nvme.enabled"),
        protocol("s3.allowed"),
        protocol("s3.enabled"),
        protocol("ndmp.allowed"),
        Field::shown(
            "aggregates",
            As::Objects(&[("name", As::Text), ("uuid", As::Uuid)]),
            Show::Named,
            |_| Cell::Json(json!([])),
            "Always empty: an SVM has no storage here.",
        ),
        Field::shown("language", As::Text, Show::Named, |_| Cell::text("c.utf_8"), "Always c.utf_8."),
        Field::shown("snapshot_policy.name", As::Text, Show::Named, |_| Cell::text("none"), "Always none."),
        Field::shown("ipspace.name", As::Text, Show::Named, |_| Cell::text("Default"), "Always Default."),
        absent("max_volumes", As::Text),
        absent("certificate.name", As::Text),
        absent("auto_enable_analytics", As::Bool),
        absent("auto_enable_activity_tracking", As::Bool),
        absent("storage.limit", As::Integer),
        Field::moving(
            "keystead.state",
            As::Word(STATES),
            Show::Named,
            |r| Cell::text(r.manager.svm_standing(r.svm.uuid).state),
            "Where its keys stand on the node that answers: none (no key manager), initializing, onboard, available, degraded, revoking, blocked, unavailable or disabling.",
        ),
        Field::moving(
            "keystead.reason",
            As::Text,
            Show::Named,
            |r| Cell::made(r.manager.svm_standing(r.svm.uuid).reason),
            "Why they are not available, and how much time is left; empty where there is nothing to be said.",
        ),
        Field::moving(
            "keystead.keks",
            As::Objects(KEK),
            Show::Named,
            |r| Cell::Json(r.manager.svm_keks(r.svm.uuid).iter().map(kek).collect()),
            "The versions of its KEK, the newest first; loaded: on the node that answers.",
        ),
        Field::moving(
            "keystead.keys",
            As::Object,
            Show::Exact,
            |r| r.keys.as_ref().map_or(Cell::Null, |keys| Cell::Json(counts(keys))),
            "How many keys it has, and of which types. Of one SVM alone: all its keys are gone through.",
        ),
    ],
    order: &[("uuid", false)],
    links: &[Link { at: "", href: |r| Some(svm_path(r.svm.uuid)) }],
};

pub async fn list(request: Request) -> Result<Answer> {
    request.list(&SVM, visible(&request))
}

pub async fn show(request: Request) -> Result<Answer> {
    let svm = request.manager.svm(seen(&request)?)?;
    if svm.kind != SvmKind::Data {
        return Err(Error::new(Code::NotFound).target("uuid"));
    }
    let one = One::parse(&SVM, &request.query)?;
    let keys = if one.wants("keystead.keys") { Some(request.manager.svm_key_counts(svm.uuid).await?) } else { None };
    Ok(request.show(&one, &Record { svm, manager: request.manager.clone(), keys }))
}

pub async fn create(request: Request) -> Result<Answer> {
    let mut values = request.read_post(&SVM)?;
    let (name, comment) = (values.text("name").unwrap_or_default(), values.text("comment").unwrap_or_default());
    let accepted = request.manager.create_svm(&request.who, &name, &comment).await?;
    let record = json!({ "uuid": accepted.resource, "name": name, "comment": comment, "_links": links(&svm_path(accepted.resource)) });
    Ok(request.accepted(accepted, Done::created(PATH, record)).await?.warn_of(&values.ignored))
}

pub async fn modify(request: Request) -> Result<Answer> {
    let mut values = request.read_patch(&SVM)?;
    let comment = values.clearable("comment", Values::text).map(Option::unwrap_or_default);
    let accepted = request.manager.modify_svm(&request.who, seen(&request)?, values.text("name"), comment).await?;
    request.accepted(accepted, Done::ok()).await
}

pub async fn delete(request: Request) -> Result<Answer> {
    request.no_body(&SVM)?;
    let accepted = request.manager.delete_svm(&request.who, seen(&request)?).await?;
    request.accepted(accepted, Done::ok()).await
}

/// The UUID of the path, where the call sees that SVM.
fn seen(request: &Request) -> Result<Uuid> {
    let uuid = request.uuid()?;
    if request.sees(uuid) { Ok(uuid) } else { Err(Error::new(Code::NotFound).target("uuid")) }
}

fn visible(request: &Request) -> impl Iterator<Item = Record> {
    let svms = request.manager.svms().into_iter().filter(|svm| is_visible(request, svm));
    svms.map(|svm| Record { svm, manager: request.manager.clone(), keys: None })
}

fn kek(kek: &SvmKek) -> Json {
    let wrapped = cell::time_text(kek.wrapped_at).to_string();
    let mut shown = json!({ "version": kek.version, "current": kek.is_current, "loaded": kek.is_loaded, "wrapped_time": wrapped });
    if let (Some(arn), Some(shown)) = (&kek.key_arn, shown.as_object_mut()) {
        shown.insert("key_arn".to_owned(), json!(arn));
    }
    shown
}

fn counts(keys: &KeyCounts) -> Json {
    let types = keys.types.iter().map(|(name, count)| json!({ "type": if name.is_empty() { Json::Null } else { json!(name) }, "count": count }));
    json!({ "count": keys.all, "types": types.collect::<Vec<_>>() })
}

/// Data SVMs. The admin SVM is the cluster's own, and ONTAP's collection does not show it either.
fn is_visible(request: &Request, svm: &Svm) -> bool {
    svm.kind == SvmKind::Data && request.sees(svm.uuid)
}
