//! `/security/ekmip/settings`: the settings of the cluster, Keystead's own (`contract/rest.md`, section 7).

use crate::collection::cell::Cell;
use crate::field::{ANY, Field, Kind, Patch, Post, Show, Spec};
use crate::request::{Answer, Done, Request};
use crate::resource::{Link, Resource};
use crate::values::Values;
use http::StatusCode;
use keystead_manager::settings::{CertificateTemplateChange, Settings, SettingsChange};
use keystead_manager::{Code, Error, Result};
use serde_json::json;
use std::borrow::Cow;

const PATH: &str = "/api/security/ekmip/settings";
const MONTH: u64 = 30 * 24 * 3600;

const fn setting(path: &'static str, kind: Kind, patch: Patch, get: for<'a> fn(&'a Settings) -> Cell<'a>, doc: &'static str) -> Field<Settings> {
    Field::given(Spec { path, kind, post: Post::Unknown, patch, show: Show::Standard, doc }, get)
}

/// The settings of the cluster.
pub const SETTINGS: Resource<Settings> = Resource {
    name: "ekmip_settings",
    path: PATH,
    fields: &[
        setting("aws_kms.enabled", Kind::Bool, Patch::Yes, |s| Cell::Bool(s.aws_kms_enabled), "Whether AWS KMS may be configured."),
        setting(
            "aws_kms.access_error_grace",
            Kind::Duration(0, MONTH),
            Patch::Yes,
            |s| Cell::Duration(s.access_error_grace),
            "From the first of the two denials to the block.",
        ),
        setting("aws_kms.min_poll_interval", Kind::Duration(1, 3600), Patch::Yes, |s| Cell::Duration(s.min_poll_interval), "The re-poll after a failure."),
        setting(
            "aws_kms.requests_per_second",
            Kind::Integer(1, 10_000),
            Patch::Yes,
            |s| Cell::number(s.requests_per_second),
            "The most requests a second to one account and region.",
        ),
        setting(
            "aws_kms.allow_endpoints",
            Kind::Texts,
            Patch::Yes,
            |s| Cell::Texts(Cow::Borrowed(&s.allow_endpoints)),
            "Addresses inside that AWS endpoints and proxies may resolve to.",
        ),
        setting(
            "aws_kms.migrate_on_enable",
            Kind::Bool,
            Patch::Yes,
            |s| Cell::Bool(s.migrate_on_enable),
            "Whether enabling moves keys from the onboard key manager.",
        ),
        setting("cluster.name", Kind::Text(1, 64, ANY), Patch::Yes, |s| Cell::text(&s.cluster_name), "The cluster's name."),
        setting("cluster.metrocluster", Kind::Bool, Patch::Yes, |s| Cell::Bool(s.metrocluster), "Whether the cluster is in a MetroCluster configuration."),
        setting("cluster.fips", Kind::Bool, Patch::Yes, |s| Cell::Bool(s.fips), "FIPS mode."),
        setting(
            "cluster.max_view_age",
            Kind::Duration(1, MONTH),
            Patch::Clearable,
            |s| s.max_view_age.map_or(Cell::Null, Cell::Duration),
            "How long a node that is cut off may serve.",
        ),
        setting("ekmip.certificate.type", Kind::Text(1, 64, ANY), Patch::Yes, |s| Cell::text(&s.certificate.kind), "The type of EKMIP certificates."),
        setting("ekmip.certificate.key_type", Kind::Text(1, 64, ANY), Patch::Yes, |s| Cell::text(&s.certificate.key_type), "rsa or ec."),
        setting("ekmip.certificate.key_size", Kind::Integer(1, 100_000), Patch::Yes, |s| Cell::number(s.certificate.key_size), "Bits."),
        setting(
            "ekmip.certificate.hash_function",
            Kind::Text(1, 64, ANY),
            Patch::Yes,
            |s| Cell::text(&s.certificate.hash_function),
            "sha256, sha384 or sha512.",
        ),
        setting("ekmip.certificate.expiry_time", Kind::Text(1, 64, ANY), Patch::Yes, |s| Cell::text(&s.certificate.expiry_time), "ISO 8601 duration."),
        setting(
            "ekmip.certificate.subtype",
            Kind::Text(1, 64, ANY),
            Patch::Clearable,
            |s| Cell::maybe(s.certificate.subtype.as_ref()),
            "Must be unset when a certificate is made.",
        ),
        setting(
            "ekmip.certificate.serial_number",
            Kind::Text(1, 64, ANY),
            Patch::Clearable,
            |s| Cell::maybe(s.certificate.serial_number.as_ref()),
            "Must be unset when a certificate is made.",
        ),
        setting("jobs.retention", Kind::Duration(1, 24 * 3600), Patch::Yes, |s| Cell::Duration(s.job_retention), "How long a finished job is kept."),
    ],
    order: &[],
    links: &[Link { at: "", href: |_| Some(PATH.to_owned()) }],
};

pub async fn show(request: Request) -> Result<Answer> {
    request.one(&SETTINGS, &request.manager.settings())
}

pub async fn modify(request: Request) -> Result<Answer> {
    let mut values = request.read_patch(&SETTINGS)?;
    let change = SettingsChange {
        cluster_name: values.text("cluster.name"),
        metrocluster: values.flag("cluster.metrocluster"),
        fips: values.flag("cluster.fips"),
        fips_force: false,
        max_view_age: values.clearable("cluster.max_view_age", Values::duration),
        aws_kms_enabled: values.flag("aws_kms.enabled"),
        access_error_grace: values.duration("aws_kms.access_error_grace"),
        min_poll_interval: values.duration("aws_kms.min_poll_interval"),
        requests_per_second: values.number("aws_kms.requests_per_second"),
        allow_endpoints: values.texts("aws_kms.allow_endpoints"),
        migrate_on_enable: values.flag("aws_kms.migrate_on_enable"),
        certificate: CertificateTemplateChange {
            kind: values.text("ekmip.certificate.type"),
            key_type: values.text("ekmip.certificate.key_type"),
            key_size: values.number("ekmip.certificate.key_size"),
            hash_function: values.text("ekmip.certificate.hash_function"),
            expiry_time: values.text("ekmip.certificate.expiry_time"),
            subtype: values.clearable("ekmip.certificate.subtype", Values::text),
            serial_number: values.clearable("ekmip.certificate.serial_number", Values::text),
        },
        job_retention: values.duration("jobs.retention"),
    };
    request.manager.modify_settings(&request.who, change).await?;
    Ok(Answer::ok(json!({})))
}

/// The action on the seal key.
pub async fn rotate_seal(request: Request) -> Result<Answer> {
    request.query.check_change(&SETTINGS, &[])?;
    if let Some(name) = request.object()?.keys().next().filter(|_| !request.query.ignores_unknown()) {
        return Err(Error::with(Code::UnknownField, name).target(name.as_str()));
    }
    let accepted = request.manager.rotate_seal(&request.who).await?;
    request.accepted(accepted, Done { status: StatusCode::CREATED, location: None, record: None }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_shown() {
        let settings = Settings { max_view_age: Some(std::time::Duration::from_secs(60)), ..Settings::default() };
        for field in SETTINGS.fields {
            let optional = ["ekmip.certificate.subtype", "ekmip.certificate.serial_number"].contains(&field.spec.path);
            assert!(optional || !(field.get)(&settings).is_null(), "{}", field.spec.path);
        }
    }

    #[test]
    fn no_filter_on_a_patch() {
        let query = crate::query::Query::parse("cluster.name=x").unwrap();
        assert_eq!(query.check_change(&SETTINGS, &[]).map_err(|error: Error| error.code), Err(Code::FilterOnCreate));
    }
}
