//! `/svm/svms`: the SVMs.

use crate::collection::cell::Cell;
use crate::field::{ANY, As, Field, Kind, Patch, Post, Show, Spec};
use crate::request::{Answer, Done, Request, links, svm_path};
use crate::resource::{Link, Resource};
use crate::values::Values;
use keystead_manager::model::{Svm, SvmKind};
use keystead_manager::{Code, Error, Result};
use serde_json::json;
use uuid::Uuid;

const PATH: &str = "/api/svm/svms";

/// A protocol that serves data: there is none here.
const fn protocol(path: &'static str) -> Field<Svm> {
    Field::shown(path, As::Bool, Show::Named, |_| Cell::Bool(false), "Always false: an SVM serves keys here, and no data.")
}

/// A field of ONTAP's that says nothing here.
const fn absent(path: &'static str, of: As) -> Field<Svm> {
    Field::shown(path, of, Show::Named, |_| Cell::Null, "Never there: an SVM has no storage here.")
}

/// The `svm` object, as far as Keystead serves it.
pub const SVM: Resource<Svm> = Resource {
    name: "svm",
    path: PATH,
    fields: &[
        Field::shown("uuid", As::Uuid, Show::Key, |svm| Cell::Uuid(svm.uuid), "The identifier."),
        Field::given(Spec { path: "name", kind: Kind::Text(1, 256, ANY), post: Post::Required, patch: Patch::Yes, show: Show::Key, doc: "The name." }, |svm| {
            Cell::text(&svm.name)
        }),
        Field::given(
            Spec { path: "comment", kind: Kind::Text(0, 254, ANY), post: Post::Optional, patch: Patch::Clearable, show: Show::Standard, doc: "A free text." },
            |svm| Cell::text(&svm.comment),
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
    ],
    order: &[("uuid", false)],
    links: &[Link { at: "", href: |svm| Some(svm_path(svm.uuid)) }],
};

pub async fn list(request: Request) -> Result<Answer> {
    request.list(&SVM, visible(&request))
}

pub async fn show(request: Request) -> Result<Answer> {
    let svm = request.manager.svm(seen(&request)?)?;
    if svm.kind != SvmKind::Data {
        return Err(Error::new(Code::NotFound).target("uuid"));
    }
    request.one(&SVM, &svm)
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

fn visible(request: &Request) -> impl Iterator<Item = Svm> {
    request.manager.svms().into_iter().filter(|svm| is_visible(request, svm))
}

/// Data SVMs. The admin SVM is the cluster's own, and ONTAP's collection does not show it either.
fn is_visible(request: &Request, svm: &Svm) -> bool {
    svm.kind == SvmKind::Data && request.sees(svm.uuid)
}
