//! `/security/roles`: the roles that there are (ONTAP's resource). They are built in, and nobody makes others.

use crate::collection::cell::Cell;
use crate::field::{As, Field, Show};
use crate::request::{Answer, Request, svm_path};
use crate::resource::{Link, Resource};
use keystead_manager::model::{RoleName, SvmKind, SvmRef};
use keystead_manager::{Code, Error, Result};
use serde_json::json;
use uuid::Uuid;

const PATH: &str = "/api/security/roles";

/// A role of an owner.
pub struct Record {
    owner: SvmRef,
    name: RoleName,
}

/// The `role` object.
pub const ROLE: Resource<Record> = Resource {
    name: "role",
    path: PATH,
    fields: &[
        Field::shown("owner.uuid", As::Uuid, Show::Key, |r| Cell::Uuid(r.owner.uuid), "The SVM that it is for; the admin SVM for a role of the cluster."),
        Field::shown("owner.name", As::Text, Show::Key, |r| Cell::text(&r.owner.name), "Its name."),
        Field::shown("name", As::Word(&["admin", "readonly", "vsadmin"]), Show::Key, |r| Cell::text(r.name.text()), "admin, readonly or vsadmin."),
        Field::shown("scope", As::Word(&["cluster", "svm"]), Show::Standard, |r| Cell::text(scope(r.name)), "cluster or svm."),
        Field::shown("builtin", As::Bool, Show::Standard, |_| Cell::Bool(true), "Always true."),
        Field::shown(
            "privileges",
            As::Objects(&[("path", As::Text), ("access", As::Word(&["all", "readonly"]))]),
            Show::Standard,
            |r| Cell::Json(json!([{ "path": "/api", "access": if r.name == RoleName::Readonly { "readonly" } else { "all" } }])),
            "What it may do: all, or all within its SVM, or reading.",
        ),
    ],
    order: &[("owner.uuid", false), ("name", false)],
    links: &[Link { at: "", href: |r| Some(role_path(r.owner.uuid, r.name)) }, Link { at: "owner", href: |r| Some(svm_path(r.owner.uuid)) }],
};

pub async fn list(request: Request) -> Result<Answer> {
    request.list(&ROLE, visible(&request))
}

pub async fn show(request: Request) -> Result<Answer> {
    let missing = || Error::new(Code::NotFound).target("name");
    let [owner, name] = request.segments.as_slice() else { return Err(missing()) };
    let owner: Uuid = owner.parse().map_err(|_| missing())?;
    let role = visible(&request).find(|role| role.owner.uuid == owner && role.name.text() == name).ok_or_else(missing)?;
    request.one(&ROLE, &role)
}

/// Where a role stands.
pub fn role_path(owner: Uuid, name: RoleName) -> String {
    format!("{PATH}/{owner}/{}", name.text())
}

fn visible(request: &Request) -> impl Iterator<Item = Record> {
    let svms = request.manager.svms().into_iter().filter(|svm| request.sees(svm.uuid));
    svms.flat_map(|svm| {
        let names: &[RoleName] = if svm.kind == SvmKind::Admin { &[RoleName::Admin, RoleName::Readonly] } else { &[RoleName::Vsadmin] };
        names.iter().map(move |name| Record { owner: SvmRef { uuid: svm.uuid, name: svm.name.clone() }, name: *name })
    })
}

fn scope(name: RoleName) -> &'static str {
    if name == RoleName::Vsadmin { "svm" } else { "cluster" }
}
