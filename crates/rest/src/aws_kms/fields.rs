//! The `aws_kms` object (`contract/rest.md`, section 1): its fields, and how they are shown.

use super::live::{self, Live};
use crate::collection::cell::Cell;
use crate::field::{ANY, As, Field, Kind, Patch, Post, Rule, Show, Spec};
use crate::request::svm_path;
use crate::resource::{Link, Resource};
use keystead_awskms::{CredentialsSource, EncryptionContext, Endpoint};
use keystead_manager::model::{AwsKms, CheckReport, StoredProxy};
use std::net::IpAddr;

/// Where the collection stands.
pub const PATH: &str = "/api/security/aws-kms";
/// The least and the most of a duration that an SVM may set, in seconds.
const DURATION: Kind = Kind::Duration(0, 30 * 24 * 3600);
/// Credentials are an access key, or the node's own.
const UNLESS_A_SOURCE: Post = Post::RequiredUnless("keystead.credentials_source");

const REGION: Rule = Rule { text: "a region looks like us-east-1", holds: is_region };
const ACCESS_KEY_ID: Rule =
    Rule { text: "letters, digits and underscores alone", holds: |text| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') };
const HOST: Rule = Rule { text: "a host name or an address, without a scheme and a port", holds: is_host };
const CONTEXT: Rule =
    Rule { text: "\"key=value[,key=value…]\" or a JSON object of strings, no key twice", holds: |text| EncryptionContext::parse(text).is_ok() };
const SOURCE: Rule = Rule { text: "chain, instance_role, web_identity, process, or profile:NAME", holds: |text| text.parse::<CredentialsSource>().is_ok() };
const PEM: Rule = Rule { text: "certificates in PEM", holds: |text| text.contains("-----BEGIN CERTIFICATE-----") };

/// A record: what is stored, and what was looked at live where that was asked for.
pub struct Record {
    /// The configuration.
    pub config: AwsKms,
    /// What was looked at, if anything.
    pub live: Option<Box<Live>>,
}

type Get = for<'a> fn(&'a Record) -> Cell<'a>;

const fn shown(path: &'static str, of: As, show: Show, get: Get, doc: &'static str) -> Field<Record> {
    Field::shown(path, of, show, get, doc)
}

const fn required(path: &'static str, kind: Kind, patch: Patch, get: Get, doc: &'static str) -> Field<Record> {
    Field::given(Spec { path, kind, post: Post::Required, patch, show: Show::Standard, doc }, get)
}

const fn optional(path: &'static str, kind: Kind, patch: Patch, get: Get, doc: &'static str) -> Field<Record> {
    Field::given(Spec { path, kind, post: Post::Optional, patch, show: Show::Standard, doc }, get)
}

const fn key(path: &'static str, kind: Kind, get: Get, doc: &'static str) -> Field<Record> {
    Field::given(Spec { path, kind, post: Post::Optional, patch: Patch::No, show: Show::Key, doc }, get)
}

/// One of Keystead's own members.
const fn own(path: &'static str, kind: Kind, get: Get, doc: &'static str) -> Field<Record> {
    Field::given(Spec { path, kind, post: Post::Optional, patch: Patch::Clearable, show: Show::Named, doc }, get)
}

/// The members of an entry of `ekmip_reachability`.
const EKMIP: As = As::Objects(&[("node.uuid", As::Uuid), ("node.name", As::Text), ("reachable", As::Bool), ("code", As::Text), ("message", As::Text)]);

/// The resource.
pub const AWS_KMS: Resource<Record> = Resource {
    name: "aws_kms",
    path: PATH,
    fields: &[
        shown("uuid", As::Uuid, Show::Key, |r| Cell::Uuid(r.config.uuid()), "The identifier of the configuration."),
        key("svm.uuid", Kind::Uuid, |r| Cell::Uuid(r.config.svm()), "The SVM, by identifier."),
        key("svm.name", Kind::Text(1, 256, ANY), |r| Cell::text(r.config.svm_name()), "The SVM, by name."),
        shown("scope", As::Word(&["svm", "cluster"]), Show::Standard, |_| Cell::text("svm"), "Always svm."),
        required("region", Kind::Text(1, 64, REGION), Patch::Yes, |r| Cell::text(&r.config.settings().region), "The AWS region."),
        required("key_id", Kind::Text(1, 2048, ANY), Patch::No, |r| Cell::text(&r.config.settings().key_id), "The customer key: id, ARN, alias or alias ARN."),
        Field::given(
            Spec {
                path: "access_key_id",
                kind: Kind::Text(16, 128, ACCESS_KEY_ID),
                post: UNLESS_A_SOURCE,
                patch: Patch::Yes,
                show: Show::Standard,
                doc: "The AWS access key id.",
            },
            |r| Cell::maybe(r.config.settings().access_key_id.as_ref()),
        ),
        Field::hidden("secret_access_key", Kind::Secret(1024), UNLESS_A_SOURCE, Patch::Yes, "The AWS secret access key."),
        optional(
            "encryption_context",
            Kind::Text(1, 8192, CONTEXT),
            Patch::Clearable,
            |r| Cell::maybe(r.config.settings().encryption_context.as_ref()),
            "The encryption context of every Encrypt and Decrypt.",
        ),
        optional("service", Kind::Text(1, 253, ANY), Patch::Yes, |r| Cell::text(&r.config.settings().service), "The first label of the derived host name."),
        optional(
            "default_domain",
            Kind::Text(1, 253, ANY),
            Patch::Yes,
            |r| Cell::text(&r.config.settings().default_domain),
            "The last labels of the derived host name.",
        ),
        optional("host", Kind::Text(1, 253, HOST), Patch::Clearable, |r| Cell::maybe(r.config.settings().host.as_ref()), "A host in place of the derived one."),
        optional("port", Kind::Integer(1, 65_535), Patch::Yes, |r| Cell::number(r.config.settings().port), "The port of AWS KMS."),
        optional("polling_period", Kind::Integer(1, 1_440), Patch::Yes, |r| Cell::number(r.config.settings().polling_period), "Minutes between two polls."),
        optional("timeout", Kind::Integer(1, 60), Patch::Yes, |r| Cell::number(r.config.settings().timeout), "Seconds for connecting, and for each attempt."),
        optional(
            "verify",
            Kind::Bool,
            Patch::Yes,
            |r| Cell::Bool(r.config.settings().verify),
            "Whether AWS's certificate is checked at all. Off: no denial counts as a revocation.",
        ),
        optional(
            "verify_host",
            Kind::Bool,
            Patch::Yes,
            |r| Cell::Bool(r.config.settings().verify_host),
            "Whether a DNS name must match the certificate. Off: no denial counts as a revocation.",
        ),
        optional(
            "verify_ip",
            Kind::Bool,
            Patch::Yes,
            |r| Cell::Bool(r.config.settings().verify_ip),
            "Whether an IP host must stand in the certificate. Off, with such a host: no denial counts as a revocation.",
        ),
        Field::hidden("skip_verify", Kind::Bool, Post::Optional, Patch::Yes, "Store the credentials without trying them."),
        optional(
            "proxy_type",
            Kind::Word(&["http", "https"]),
            Patch::Clearable,
            |r| proxy(r, |proxy| Cell::text(if proxy.https { "https" } else { "http" })),
            "How the proxy is spoken to.",
        ),
        optional("proxy_host", Kind::Text(1, 253, HOST), Patch::Clearable, |r| proxy(r, |proxy| Cell::text(&proxy.host)), "The proxy."),
        optional("proxy_port", Kind::Integer(1, 65_535), Patch::Clearable, |r| proxy(r, |proxy| Cell::number(proxy.port)), "The proxy's port."),
        optional(
            "proxy_username",
            Kind::Text(1, 256, ANY),
            Patch::Clearable,
            |r| proxy(r, |proxy| Cell::maybe(proxy.username.as_ref())),
            "The login at the proxy.",
        ),
        Field::hidden("proxy_password", Kind::Secret(1024), Post::Optional, Patch::Clearable, "The password at the proxy."),
        shown(
            "state.cluster_state",
            As::Bool,
            Show::Advanced,
            |r| live::good(live::of(r, |live| &live.state)),
            "Whether the SVM's KEK is usable on every node.",
        ),
        shown("state.code", As::Text, Show::Advanced, |r| live::code(live::of(r, |live| &live.state)), "0 where all is well."),
        shown(
            "state.message",
            As::Text,
            Show::Advanced,
            |r| live::message(live::of(r, |live| &live.state)),
            "What is wrong, where, and how much time is left.",
        ),
        shown(
            "amazon_reachability.reachable",
            As::Bool,
            Show::Advanced,
            |r| live::good(live::of(r, |live| &live.amazon)),
            "Whether every node reaches AWS KMS.",
        ),
        shown("amazon_reachability.code", As::Text, Show::Advanced, |r| live::code(live::of(r, |live| &live.amazon)), "0 where all is well."),
        shown("amazon_reachability.message", As::Text, Show::Advanced, |r| live::message(live::of(r, |live| &live.amazon)), "What is wrong, and where."),
        shown(
            "ekmip_reachability",
            EKMIP,
            Show::Advanced,
            |r| live::ekmip(live::of(r, |live| &live.ekmip)),
            "For each node, whether it reaches the EKMIP servers of all nodes, as this SVM.",
        ),
        own("keystead.access_error_grace", DURATION, |r| r.config.settings().access_error_grace.map_or(Cell::Null, Cell::Duration), "The SVM's own grace."),
        own(
            "keystead.max_unverified",
            Kind::Duration(60, 30 * 24 * 3600),
            |r| r.config.settings().max_unverified.map_or(Cell::Null, Cell::Duration),
            "How long keys are served without a good poll.",
        ),
        own(
            "keystead.ca_certificates",
            Kind::Text(1, 65_536, PEM),
            |r| Cell::maybe(r.config.settings().ca_certificates.as_ref()),
            "CA certificates for this SVM's AWS endpoint alone.",
        ),
        own(
            "keystead.credentials_source",
            Kind::Text(1, 160, SOURCE),
            |r| Cell::maybe(r.config.settings().credentials_source.as_ref().map(|granted| &granted.source)),
            "Credentials of the node's own in place of an access key.",
        ),
        Field::hidden(
            "keystead.migrate_keys",
            Kind::Bool,
            Post::Optional,
            Patch::No,
            "Move the keys that the onboard key manager keeps for the SVM, in the same job.",
        ),
        shown(
            "keystead.bound",
            As::Integer,
            Show::Named,
            |r| r.config.bound().map_or(Cell::Null, |bound| Cell::number(bound.as_secs())),
            "Seconds from a revocation in AWS to the last key that is handed out; null where nothing bounds it: AWS's certificate is not checked in full, and max_unverified is not set.",
        ),
        shown(
            "keystead.check",
            As::Object,
            Show::Exact,
            |r| live::check(live::of(r, |live| &live.check)),
            "A preflight, taken now: each step of the way to AWS and of the use of the key, and what to do where one fails.",
        ),
        shown(
            "keystead.nodes",
            As::Object,
            Show::Exact,
            |r| live::nodes(live::of(r, |live| &live.nodes)),
            "For each node, as it was within the last 5 s: whether it is up, can use the KEK, reaches AWS KMS and the EKMIP servers of all nodes, why not, and when its last good poll was.",
        ),
    ],
    order: &[("uuid", false)],
    links: &[Link { at: "", href: |r| Some(format!("{PATH}/{}", r.config.uuid())) }, Link { at: "svm", href: |r| Some(svm_path(r.config.svm())) }],
};

/// What a preflight of a configuration that is not there yet answers.
pub const PREFLIGHT: Resource<CheckReport> = Resource {
    name: "aws_kms_preflight",
    path: "/api/security/ekmip/preflight",
    fields: &[
        Field::shown("passed", As::Bool, Show::Key, |report| Cell::Bool(report.passed), "Whether no step has failed."),
        Field::shown("summary", As::Text, Show::Key, |report| Cell::text(&report.summary), "The steps that were tried, in one line."),
        Field::shown(
            "steps",
            As::Objects(STEP),
            Show::Key,
            |report| Cell::Json(live::steps(report)),
            "All steps, in their order, and what to do about one that has failed.",
        ),
    ],
    order: &[],
    links: &[],
};

/// The members of an entry of `steps`.
const STEP: &[(&str, As)] =
    &[("name", As::Text), ("state", As::Word(&["passed", "failed", "skipped"])), ("duration_ms", As::Integer), ("message", As::Text), ("advice", As::Text)];

/// A member of the body of rekey-external.
const fn new(path: &'static str, kind: Kind, patch: Patch) -> Field<()> {
    Field::hidden(path, kind, Post::Optional, patch, "As in PATCH.")
}

/// The body of rekey-external: the customer key, and what else of the configuration changes with it, in the members that PATCH has.
pub const REKEY_EXTERNAL: Resource<()> = Resource {
    name: "aws_kms_rekey_external",
    path: PATH,
    fields: &[
        Field::hidden("key_id", Kind::Text(1, 2048, ANY), Post::Required, Patch::Yes, "The customer key to wrap the KEK under: id, ARN, alias or alias ARN."),
        new("keystead.new.region", Kind::Text(1, 64, REGION), Patch::Yes),
        new("keystead.new.access_key_id", Kind::Text(16, 128, ACCESS_KEY_ID), Patch::Yes),
        new("keystead.new.secret_access_key", Kind::Secret(1024), Patch::Yes),
        new("keystead.new.credentials_source", Kind::Text(1, 160, SOURCE), Patch::Clearable),
        new("keystead.new.encryption_context", Kind::Text(1, 8192, CONTEXT), Patch::Clearable),
        new("keystead.new.service", Kind::Text(1, 253, ANY), Patch::Yes),
        new("keystead.new.default_domain", Kind::Text(1, 253, ANY), Patch::Yes),
        new("keystead.new.host", Kind::Text(1, 253, HOST), Patch::Clearable),
        new("keystead.new.port", Kind::Integer(1, 65_535), Patch::Yes),
        new("keystead.new.timeout", Kind::Integer(1, 60), Patch::Yes),
        new("keystead.new.verify", Kind::Bool, Patch::Yes),
        new("keystead.new.verify_host", Kind::Bool, Patch::Yes),
        new("keystead.new.verify_ip", Kind::Bool, Patch::Yes),
        new("keystead.new.proxy_type", Kind::Word(&["http", "https"]), Patch::Clearable),
        new("keystead.new.proxy_host", Kind::Text(1, 253, HOST), Patch::Clearable),
        new("keystead.new.proxy_port", Kind::Integer(1, 65_535), Patch::Clearable),
        new("keystead.new.proxy_username", Kind::Text(1, 256, ANY), Patch::Clearable),
        new("keystead.new.proxy_password", Kind::Secret(1024), Patch::Clearable),
        new("keystead.new.ca_certificates", Kind::Text(1, 65_536, PEM), Patch::Clearable),
    ],
    order: &[],
    links: &[],
};

fn proxy<'a>(record: &'a Record, of: impl FnOnce(&'a StoredProxy) -> Cell<'a>) -> Cell<'a> {
    record.config.settings().proxy.as_ref().map_or(Cell::Null, of)
}

/// `^[a-z]{2,}(-[a-z0-9]+)+$`: not a closed list, as AWS opens new ones.
fn is_region(text: &str) -> bool {
    let mut parts = text.split('-');
    let first = parts.next().is_some_and(|part| part.len() >= 2 && part.bytes().all(|byte| byte.is_ascii_lowercase()));
    let mut count = 0;
    let rest = parts.all(|part| {
        count += 1;
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    });
    first && rest && count > 0
}

fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() {
        return true;
    }
    let endpoint = Endpoint { region: String::new(), service: String::new(), default_domain: String::new(), host: Some(text.to_owned()), port: 443 };
    endpoint.host_name().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_follow_their_pattern() {
        for good in ["us-east-1", "eu-west-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1"] {
            assert!(is_region(good), "{good}");
        }
        for bad in ["", "us", "u-east-1", "US-east-1", "us--1", "us-east-1/", "us_east_1", "1us-east"] {
            assert!(!is_region(bad), "{bad}");
        }
    }

    #[test]
    fn hosts_are_names_and_addresses_without_more() {
        for good in ["aws-host.host.com", "10.0.0.1", "::1", "[::1]", "localhost"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["https://x", "x:443", "x/y", "a b", "user@x", "-x", ".."] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        for field in AWS_KMS.fields.iter().map(|field| &field.spec) {
            let secret = matches!(field.kind, Kind::Secret(_));
            let spent = ["skip_verify", "keystead.migrate_keys"].contains(&field.path);
            assert_eq!(secret || spent, field.show == Show::Never, "{}", field.path);
        }
    }
}
