//! `/security`: FIPS mode.

use crate::collection::One;
use crate::collection::cell::Cell;
use crate::field::{As, Field, Kind, Patch, Post, Show, Spec};
use crate::request::{Answer, Request};
use crate::resource::{Link, Resource, put};
use keystead_manager::fips::{FipsFinding, FipsReport};
use keystead_manager::model::Role;
use keystead_manager::settings::SettingsChange;
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json, json};

const PATH: &str = "/api/security";

/// What is shown.
pub struct Record {
    fips: bool,
    report: Option<FipsReport>,
}

/// The `security` object, as far as Keystead serves it.
pub const SECURITY: Resource<Record> = Resource {
    name: "security",
    path: PATH,
    fields: &[
        Field::given(
            Spec {
                path: "fips.enabled",
                kind: Kind::Bool,
                post: Post::Unknown,
                patch: Patch::Yes,
                show: Show::Standard,
                doc: "FIPS mode; the same value as `cluster.fips` of the settings.",
            },
            |r| Cell::Bool(r.fips),
        ),
        Field::hidden("keystead.force", Kind::Bool, Post::Unknown, Patch::Yes, "Turns FIPS mode on even where things exist that it refuses."),
        Field::shown("keystead.fips_report", As::Object, Show::Exact, |r| r.report.as_ref().map_or(Cell::Null, report), "What exists that FIPS mode refuses."),
    ],
    order: &[],
    links: &[Link { at: "", href: |_| Some(PATH.to_owned()) }],
};

pub async fn show(request: Request) -> Result<Answer> {
    let one = One::parse(&SECURITY, &request.query)?;
    let mut record = Record { fips: request.manager.settings().fips, report: None };
    if one.wants("keystead.fips_report") {
        // It names things of all SVMs, and reads all keys.
        if matches!(request.who.role, Role::Vsadmin { .. }) {
            return Err(Error::with(Code::PermissionDenied, "keystead.fips_report is about the whole cluster").target("fields"));
        }
        record.report = Some(request.manager.fips_report().await?);
    }
    Ok(request.show(&one, &record))
}

pub async fn modify(request: Request) -> Result<Answer> {
    let mut values = request.read_patch(&SECURITY)?;
    let (fips, fips_force) = (values.flag("fips.enabled"), values.flag("keystead.force").unwrap_or(false));
    if fips.is_none() {
        return Err(Error::new(Code::NoInput).target("fips.enabled"));
    }
    request.manager.modify_settings(&request.who, SettingsChange { fips, fips_force, ..SettingsChange::default() }).await?;
    Ok(Answer::ok(json!({})))
}

fn report(report: &FipsReport) -> Cell<'_> {
    let list = |findings: &[FipsFinding]| findings.iter().map(finding).collect::<Vec<_>>();
    Cell::Json(json!({
        "clean": report.is_clean(),
        "certificates": list(&report.certificates),
        "keys": list(&report.keys),
        "num_keys": report.keys_in_all,
        "accounts": list(&report.accounts),
        "connections": list(&report.connections),
    }))
}

fn finding(finding: &FipsFinding) -> Json {
    let mut record = Map::new();
    put(&mut record, "what", json!(finding.what));
    if let Some(svm) = &finding.svm {
        put(&mut record, "svm", crate::request::svm(svm));
    }
    put(&mut record, "reason", json!(finding.reason));
    Json::Object(record)
}
