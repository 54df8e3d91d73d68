//! `/security`: FIPS mode.

use crate::field::{Field, Kind, Patch, Post, Show};
use crate::request::{Answer, Request, links};
use crate::resource::{Resource, put};
use crate::select::Selection;
use keystead_manager::fips::{FipsFinding, FipsReport};
use keystead_manager::model::Role;
use keystead_manager::settings::SettingsChange;
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json, json};

const PATH: &str = "/api/security";

/// The `security` object, as far as Keystead serves it.
pub const SECURITY: Resource = Resource {
    path: PATH,
    fields: &[
        Field {
            path: "fips.enabled",
            kind: Kind::Bool,
            post: Post::Unknown,
            patch: Patch::Yes,
            show: Show::Standard,
            doc: "FIPS mode; the same value as `cluster.fips` of the settings.",
        },
        Field {
            path: "keystead.force",
            kind: Kind::Bool,
            post: Post::Unknown,
            patch: Patch::Yes,
            show: Show::Never,
            doc: "Turns FIPS mode on even where things exist that it refuses.",
        },
        Field {
            path: "keystead.fips_report",
            kind: Kind::Shown,
            post: Post::Unknown,
            patch: Patch::No,
            show: Show::Exact,
            doc: "What exists that FIPS mode refuses.",
        },
    ],
};

pub async fn show(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&SECURITY, request.query.get("fields"), true)?;
    let mut record = Map::new();
    put(&mut record, "fips.enabled", json!(request.manager.settings().fips));
    if selection.has("keystead.fips_report") {
        // It names things of all SVMs, and reads all keys.
        if matches!(request.who.role, Role::Vsadmin { .. }) {
            return Err(Error::with(Code::PermissionDenied, "keystead.fips_report is about the whole cluster").target("fields"));
        }
        put(&mut record, "keystead.fips_report", report(&request.manager.fips_report().await?));
    }
    let mut shown = selection.project(&record);
    if request.links() {
        put(&mut shown, "_links", links(PATH));
    }
    Ok(Answer::ok(Json::Object(shown)))
}

pub async fn modify(request: Request) -> Result<Answer> {
    request.query.check_change(&SECURITY, &[])?;
    let mut values = SECURITY.read_patch(request.object()?)?;
    let (fips, fips_force) = (values.flag("fips.enabled"), values.flag("keystead.force").unwrap_or(false));
    if fips.is_none() {
        return Err(Error::new(Code::NoInput).target("fips.enabled"));
    }
    request.manager.modify_settings(&request.who, SettingsChange { fips, fips_force, ..SettingsChange::default() }).await?;
    Ok(Answer::ok(json!({})))
}

fn report(report: &FipsReport) -> Json {
    let list = |findings: &[FipsFinding]| findings.iter().map(finding).collect::<Vec<_>>();
    json!({
        "clean": report.is_clean(),
        "certificates": list(&report.certificates),
        "keys": list(&report.keys),
        "num_keys": report.keys_in_all,
        "accounts": list(&report.accounts),
    })
}

fn finding(finding: &FipsFinding) -> Json {
    let mut record = Map::new();
    put(&mut record, "what", json!(finding.what));
    if let Some(svm) = &finding.svm {
        put(&mut record, "svm", crate::request::svm(svm, false));
    }
    put(&mut record, "reason", json!(finding.reason));
    Json::Object(record)
}
