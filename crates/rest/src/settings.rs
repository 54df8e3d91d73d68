//! `/security/ekmip/settings`: the settings of the cluster, Keystead's own (`contract/rest.md`, section 7).

use crate::field::{ANY, Field, Kind, Patch, Post, Show};
use crate::request::{Answer, Request, duration, links};
use crate::resource::{Resource, Values, put};
use crate::select::Selection;
use keystead_manager::settings::{CertificateTemplateChange, Settings, SettingsChange};
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json, json};

const PATH: &str = "/api/security/ekmip/settings";
const MONTH: u64 = 30 * 24 * 3600;

const fn setting(path: &'static str, kind: Kind, patch: Patch, doc: &'static str) -> Field {
    Field { path, kind, post: Post::Unknown, patch, show: Show::Standard, doc }
}

/// The settings, under the names that they have in the configuration file.
const SETTINGS: Resource = Resource {
    path: PATH,
    fields: &[
        setting("aws_kms.enabled", Kind::Bool, Patch::Yes, "Whether AWS KMS may be configured."),
        setting("aws_kms.access_error_grace", Kind::Duration(0, MONTH), Patch::Yes, "From the first confirmed denial to the block."),
        setting("aws_kms.min_poll_interval", Kind::Duration(1, 3600), Patch::Yes, "The re-poll after a failure."),
        setting("aws_kms.requests_per_second", Kind::Integer(1, 10_000), Patch::Yes, "The most requests a second to one account and region."),
        setting("aws_kms.allow_endpoints", Kind::Texts, Patch::Yes, "Addresses inside that AWS endpoints and proxies may resolve to."),
        setting("aws_kms.migrate_on_enable", Kind::Bool, Patch::Yes, "Whether enabling moves keys from the onboard key manager."),
        setting("cluster.name", Kind::Text(1, 64, ANY), Patch::Yes, "The cluster's name."),
        setting("cluster.metrocluster", Kind::Bool, Patch::Yes, "Whether the cluster is in a MetroCluster configuration."),
        setting("cluster.fips", Kind::Bool, Patch::Yes, "FIPS mode."),
        setting("cluster.max_view_age", Kind::Duration(1, MONTH), Patch::Clearable, "How long a node that is cut off may serve."),
        setting("ekmip.certificate.type", Kind::Text(1, 64, ANY), Patch::Yes, "The type of EKMIP certificates."),
        setting("ekmip.certificate.key_type", Kind::Text(1, 64, ANY), Patch::Yes, "rsa or ec."),
        setting("ekmip.certificate.key_size", Kind::Integer(1, 100_000), Patch::Yes, "Bits."),
        setting("ekmip.certificate.hash_function", Kind::Text(1, 64, ANY), Patch::Yes, "sha256, sha384 or sha512."),
        setting("ekmip.certificate.expiry_time", Kind::Text(1, 64, ANY), Patch::Yes, "ISO 8601 duration."),
        setting("ekmip.certificate.subtype", Kind::Text(1, 64, ANY), Patch::Clearable, "Must be unset when a certificate is made."),
        setting("ekmip.certificate.serial_number", Kind::Text(1, 64, ANY), Patch::Clearable, "Must be unset when a certificate is made."),
        setting("jobs.retention", Kind::Duration(1, 24 * 3600), Patch::Yes, "How long a finished job is kept."),
    ],
};

pub async fn show(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&SETTINGS, request.query.get("fields"), true)?;
    let mut shown = selection.project(&record(request.manager.settings()));
    if request.links() {
        put(&mut shown, "_links", links(PATH));
    }
    Ok(Answer::ok(Json::Object(shown)))
}

pub async fn modify(request: Request) -> Result<Answer> {
    request.query.check_change(&SETTINGS, &[])?;
    let mut values = SETTINGS.read_patch(request.object()?)?;
    if values.is_empty() {
        return Err(Error::new(Code::NoInput));
    }
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

fn record(settings: Settings) -> Map<String, Json> {
    let mut record = Map::new();
    let template = settings.certificate;
    put(&mut record, "aws_kms.enabled", json!(settings.aws_kms_enabled));
    put(&mut record, "aws_kms.access_error_grace", duration(settings.access_error_grace));
    put(&mut record, "aws_kms.min_poll_interval", duration(settings.min_poll_interval));
    put(&mut record, "aws_kms.requests_per_second", json!(settings.requests_per_second));
    put(&mut record, "aws_kms.allow_endpoints", json!(settings.allow_endpoints));
    put(&mut record, "aws_kms.migrate_on_enable", json!(settings.migrate_on_enable));
    put(&mut record, "cluster.name", json!(settings.cluster_name));
    put(&mut record, "cluster.metrocluster", json!(settings.metrocluster));
    put(&mut record, "cluster.fips", json!(settings.fips));
    put(&mut record, "cluster.max_view_age", settings.max_view_age.map_or(Json::Null, duration));
    put(&mut record, "ekmip.certificate.type", json!(template.kind));
    put(&mut record, "ekmip.certificate.key_type", json!(template.key_type));
    put(&mut record, "ekmip.certificate.key_size", json!(template.key_size));
    put(&mut record, "ekmip.certificate.hash_function", json!(template.hash_function));
    put(&mut record, "ekmip.certificate.expiry_time", json!(template.expiry_time));
    put(&mut record, "ekmip.certificate.subtype", json!(template.subtype));
    put(&mut record, "ekmip.certificate.serial_number", json!(template.serial_number));
    put(&mut record, "jobs.retention", duration(settings.job_retention));
    record
}

// Settings are shown to every account: none of them is a secret. A test keeps it so.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_declared_and_shown() {
        let record = record(Settings { max_view_age: Some(std::time::Duration::from_secs(60)), ..Settings::default() });
        for field in SETTINGS.fields {
            let optional = ["ekmip.certificate.subtype", "ekmip.certificate.serial_number"].contains(&field.path);
            let value = crate::resource::get(&record, field.path);
            assert!(value.is_some_and(|value| optional || !value.is_null()), "{}", field.path);
        }
    }

    #[test]
    fn no_filter_on_a_patch() {
        let query = crate::query::Query::parse("cluster.name=x").unwrap();
        assert_eq!(query.check_change(&SETTINGS, &[]).map_err(|error: Error| error.code), Err(Code::FilterOnCreate));
    }
}
