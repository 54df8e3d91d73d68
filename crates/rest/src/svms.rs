//! `/svm/svms`: the SVMs.

use crate::field::{ANY, Field, Kind, Patch, Post, Show};
use crate::request::{Answer, Done, Request, links};
use crate::resource::{Resource, put};
use crate::select::Selection;
use keystead_manager::model::{Svm, SvmKind};
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json, json};

const PATH: &str = "/api/svm/svms";

/// The `svm` object, as far as Keystead serves it.
pub const SVM: Resource = Resource {
    path: PATH,
    fields: &[
        Field { path: "uuid", kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show: Show::Key, doc: "The identifier." },
        Field { path: "name", kind: Kind::Text(1, 256, ANY), post: Post::Required, patch: Patch::Yes, show: Show::Key, doc: "The name." },
        Field { path: "comment", kind: Kind::Text(0, 254, ANY), post: Post::Optional, patch: Patch::Clearable, show: Show::Standard, doc: "A free text." },
        Field { path: "state", kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show: Show::Standard, doc: "Always running." },
        Field { path: "subtype", kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show: Show::Standard, doc: "Always default." },
    ],
};

pub async fn list(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&SVM, request.query.get("fields"), false)?;
    let records = visible(&request).map(|svm| record(&svm)).collect();
    let with_links = request.links();
    request.collection(&SVM, records, |record| Json::Object(project(&selection, record, with_links)))
}

pub async fn show(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&SVM, request.query.get("fields"), true)?;
    let uuid = request.uuid()?;
    let svm = visible(&request).find(|svm| svm.uuid == uuid).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))?;
    Ok(Answer::ok(Json::Object(project(&selection, &record(&svm), request.links()))))
}

pub async fn create(request: Request) -> Result<Answer> {
    request.query.check_change(&SVM, &[])?;
    let mut values = SVM.read_post(request.object()?)?;
    let (name, comment) = (values.text("name").unwrap_or_default(), values.text("comment").unwrap_or_default());
    let accepted = request.manager.create_svm(&request.who, &name, &comment).await?;
    let record = json!({ "uuid": accepted.resource, "name": name, "comment": comment, "_links": links(&format!("{PATH}/{}", accepted.resource)) });
    Ok(request.accepted(accepted, Done::created(PATH, record)).await?.warn_of(&values.ignored))
}

pub async fn modify(request: Request) -> Result<Answer> {
    request.query.check_change(&SVM, &[])?;
    let mut values = SVM.read_patch(request.object()?)?;
    if values.is_empty() {
        return Err(Error::new(Code::NoInput));
    }
    let comment = values.clearable("comment", crate::resource::Values::text).map(Option::unwrap_or_default);
    let accepted = request.manager.modify_svm(&request.who, request.uuid()?, values.text("name"), comment).await?;
    request.accepted(accepted, Done::ok()).await
}

pub async fn delete(request: Request) -> Result<Answer> {
    request.query.check_change(&SVM, &[])?;
    if let Some(name) = request.object()?.keys().next() {
        return Err(Error::with(Code::BodyNotAllowed, name).target(name.as_str()));
    }
    let accepted = request.manager.delete_svm(&request.who, request.uuid()?).await?;
    request.accepted(accepted, Done::ok()).await
}

/// Data SVMs. The admin SVM is the cluster's own, and ONTAP's collection does not show it either.
fn visible(request: &Request) -> impl Iterator<Item = Svm> {
    request.manager.svms().into_iter().filter(|svm| svm.kind == SvmKind::Data && request.sees(svm.uuid))
}

fn record(svm: &Svm) -> Map<String, Json> {
    let mut record = Map::new();
    put(&mut record, "uuid", json!(svm.uuid));
    put(&mut record, "name", json!(svm.name));
    put(&mut record, "comment", json!(svm.comment));
    put(&mut record, "state", json!("running"));
    put(&mut record, "subtype", json!("default"));
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
