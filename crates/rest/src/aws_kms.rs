//! `/security/aws-kms`: the AWS KMS configurations of SVMs.

use crate::field::{ANY, Field, Kind, Patch, Post, Rule, Show};
use crate::request::{Answer, Done, Request, duration, links, svm};
use crate::resource::{Resource, Values, put};
use crate::select::Selection;
use futures_util::StreamExt as _;
use keystead_awskms::{CredentialsSource, EncryptionContext, Endpoint, ProxyKind};
use keystead_manager::model::{
    AwsKms, AwsKmsChange, AwsKmsSettings, CheckReport, EkmipReachability, EnableRequest, Health, Proxy, ProxyChange, RekeyExternalRequest, Role, SvmSelector,
};
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json, json};
use std::net::IpAddr;

/// Where the collection stands.
const PATH: &str = "/api/security/aws-kms";
/// How many records one request may look at live.
const LIVE_RECORDS: usize = 100;
/// How many of them at a time.
const LIVE_AT_A_TIME: usize = 16;
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

const fn shown(path: &'static str, show: Show, doc: &'static str) -> Field {
    Field { path, kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show, doc }
}

const fn required(path: &'static str, kind: Kind, patch: Patch, doc: &'static str) -> Field {
    Field { path, kind, post: Post::Required, patch, show: Show::Standard, doc }
}

const fn optional(path: &'static str, kind: Kind, patch: Patch, doc: &'static str) -> Field {
    Field { path, kind, post: Post::Optional, patch, show: Show::Standard, doc }
}

/// The `aws_kms` object (`contract/rest.md`, section 1).
pub const AWS_KMS: Resource = Resource {
    path: PATH,
    fields: &[
        shown("uuid", Show::Key, "The identifier of the configuration."),
        Field { path: "svm.uuid", kind: Kind::Uuid, post: Post::Optional, patch: Patch::No, show: Show::Key, doc: "The SVM, by identifier." },
        Field { path: "svm.name", kind: Kind::Text(1, 256, ANY), post: Post::Optional, patch: Patch::No, show: Show::Key, doc: "The SVM, by name." },
        shown("scope", Show::Standard, "Always svm."),
        required("region", Kind::Text(1, 64, REGION), Patch::Yes, "The AWS region."),
        required("key_id", Kind::Text(1, 2048, ANY), Patch::No, "The customer key: id, ARN, alias or alias ARN."),
        Field {
            path: "access_key_id",
            kind: Kind::Text(16, 128, ACCESS_KEY_ID),
            post: UNLESS_A_SOURCE,
            patch: Patch::Yes,
            show: Show::Standard,
            doc: "The AWS access key id.",
        },
        Field {
            path: "secret_access_key",
            kind: Kind::Secret(1024),
            post: UNLESS_A_SOURCE,
            patch: Patch::Yes,
            show: Show::Never,
            doc: "The AWS secret access key.",
        },
        optional("encryption_context", Kind::Text(1, 8192, CONTEXT), Patch::Clearable, "The encryption context of every Encrypt and Decrypt."),
        optional("service", Kind::Text(1, 253, ANY), Patch::Yes, "The first label of the derived host name."),
        optional("default_domain", Kind::Text(1, 253, ANY), Patch::Yes, "The last labels of the derived host name."),
        optional("host", Kind::Text(1, 253, HOST), Patch::Clearable, "A host in place of the derived one."),
        optional("port", Kind::Integer(1, 65_535), Patch::Yes, "The port of AWS KMS."),
        optional("polling_period", Kind::Integer(1, 1_440), Patch::Yes, "Minutes between two polls."),
        optional("timeout", Kind::Integer(1, 60), Patch::Yes, "Seconds for connecting, and for each attempt."),
        optional("verify", Kind::Bool, Patch::Yes, "Whether AWS's certificate is checked at all."),
        optional("verify_host", Kind::Bool, Patch::Yes, "Whether a DNS name must match the certificate."),
        optional("verify_ip", Kind::Bool, Patch::Yes, "Whether an IP host must stand in the certificate."),
        Field {
            path: "skip_verify",
            kind: Kind::Bool,
            post: Post::Optional,
            patch: Patch::Yes,
            show: Show::Never,
            doc: "Store the credentials without trying them.",
        },
        optional("proxy_type", Kind::Word(&["http", "https"]), Patch::Clearable, "How the proxy is spoken to."),
        optional("proxy_host", Kind::Text(1, 253, HOST), Patch::Clearable, "The proxy."),
        optional("proxy_port", Kind::Integer(1, 65_535), Patch::Clearable, "The proxy's port."),
        optional("proxy_username", Kind::Text(1, 256, ANY), Patch::Clearable, "The login at the proxy."),
        Field {
            path: "proxy_password",
            kind: Kind::Secret(1024),
            post: Post::Optional,
            patch: Patch::Clearable,
            show: Show::Never,
            doc: "The password at the proxy.",
        },
        shown("state.cluster_state", Show::Advanced, "Whether the SVM's KEK is usable on every node."),
        shown("state.code", Show::Advanced, "0 where all is well."),
        shown("state.message", Show::Advanced, "What is wrong, where, and how much time is left."),
        shown("amazon_reachability.reachable", Show::Advanced, "Whether every node reaches AWS KMS."),
        shown("amazon_reachability.code", Show::Advanced, "0 where all is well."),
        shown("amazon_reachability.message", Show::Advanced, "What is wrong, and where."),
        shown("ekmip_reachability", Show::Advanced, "For each node, whether it reaches the EKMIP servers of all nodes, as this SVM."),
        Field {
            path: "keystead.access_error_grace",
            kind: DURATION,
            post: Post::Optional,
            patch: Patch::Clearable,
            show: Show::Named,
            doc: "The SVM's own grace.",
        },
        Field {
            path: "keystead.max_unverified",
            kind: Kind::Duration(60, 30 * 24 * 3600),
            post: Post::Optional,
            patch: Patch::Clearable,
            show: Show::Named,
            doc: "How long keys are served without a good poll.",
        },
        Field {
            path: "keystead.ca_certificates",
            kind: Kind::Text(1, 65_536, PEM),
            post: Post::Optional,
            patch: Patch::Clearable,
            show: Show::Named,
            doc: "CA certificates for this SVM's AWS endpoint alone.",
        },
        Field {
            path: "keystead.credentials_source",
            kind: Kind::Text(1, 160, SOURCE),
            post: Post::Optional,
            patch: Patch::Clearable,
            show: Show::Named,
            doc: "Credentials of the node's own in place of an access key.",
        },
        Field {
            path: "keystead.migrate_keys",
            kind: Kind::Bool,
            post: Post::Optional,
            patch: Patch::No,
            show: Show::Never,
            doc: "Move the keys that the onboard key manager keeps for the SVM, in the same job.",
        },
        shown("keystead.bound", Show::Named, "Seconds from a revocation in AWS to the last key that is handed out."),
        shown("keystead.check", Show::Exact, "A preflight, taken now: each step of the way to AWS and of the use of the key, and what to do where one fails."),
    ],
};

/// A member of the body of rekey-external.
const fn new(path: &'static str, kind: Kind, patch: Patch) -> Field {
    Field { path, kind, post: Post::Optional, patch, show: Show::Never, doc: "" }
}

/// The body of rekey-external: the customer key, and what else of the configuration changes with it, in the members that PATCH has.
const REKEY_EXTERNAL: Resource = Resource {
    path: PATH,
    fields: &[
        new("key_id", Kind::Text(1, 2048, ANY), Patch::Yes),
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
};

pub async fn list(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&AWS_KMS, request.query.get("fields"), false)?;
    let wanted = |path: &str| selection.has(path) || request.query.all().any(|(name, _)| name == path || name.starts_with(&format!("{path}.")));
    let ordered = |path: &str| request.query.get("order_by").is_some_and(|order| order.contains(path));
    let (state, amazon) = (wanted("state") || ordered("state."), wanted("amazon_reachability") || ordered("amazon_reachability."));
    let ekmip = wanted("ekmip_reachability") || ordered("ekmip_reachability");
    let checked = selection.has("keystead.check");
    // Only what the answer can show is looked at live: what other filters leave out, and other pages, cost no probe.
    let live_order = ["state", "amazon_reachability", "ekmip_reachability"].iter().any(|path| ordered(path));
    let filters = request.query.filters(&AWS_KMS)?;
    let cheap = |path: &str| !["state", "amazon_reachability", "ekmip_reachability"].iter().any(|live| path.starts_with(live));
    let kept = |record: &Map<String, Json>| filters.iter().filter(|(path, _)| cheap(path)).all(|(path, value)| crate::query::matches(record, path, value));
    let seen = request.manager.aws_kms_list().into_iter().filter(|config| request.sees(config.svm.uuid)).map(|config| (record(&config), config));
    let mut candidates: Vec<_> = seen.filter(|(record, _)| kept(record)).map(|(_, config)| config).collect();
    if let Some(start) = request.query.get("start").filter(|_| request.query.get("order_by").is_none()) {
        candidates.retain(|config| config.uuid.to_string().as_str() > start);
    }
    let shown = if live_order || filters.iter().any(|(path, _)| !cheap(path)) || request.query.get("order_by").is_some() {
        usize::MAX
    } else {
        // One more, so that it shows that there is a next page.
        request.query.max_records()?.saturating_add(1)
    };
    let records = futures_util::stream::iter(candidates.into_iter().take(shown).enumerate())
        .map(|(n, config)| {
            let request = &request;
            async move {
                let live = n < LIVE_RECORDS;
                let mut record = record(&config);
                if state {
                    live_object(&mut record, "state", "cluster_state", if live { Some(request.manager.state(config.uuid).await) } else { None });
                }
                if amazon {
                    let looked = if live { Some(request.manager.amazon_reachability_shared(config.uuid).await) } else { None };
                    live_object(&mut record, "amazon_reachability", "reachable", looked);
                }
                if ekmip {
                    let looked = if live { Some(request.manager.ekmip_reachability(config.uuid).await) } else { None };
                    put(&mut record, "ekmip_reachability", ekmip_reachability(looked));
                }
                if checked {
                    put(&mut record, "keystead.check", check(if live { Some(request.manager.check(config.uuid).await) } else { None }));
                }
                record
            }
        })
        .buffered(LIVE_AT_A_TIME)
        .collect::<Vec<_>>()
        .await;
    let with_links = request.links();
    request.collection(&AWS_KMS, records, |record| Json::Object(project(&selection, record, with_links)))
}

pub async fn show(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&AWS_KMS, request.query.get("fields"), true)?;
    let config = visible(&request)?;
    let mut record = record(&config);
    if selection.has("state") {
        live_object(&mut record, "state", "cluster_state", Some(request.manager.state(config.uuid).await));
    }
    if selection.has("amazon_reachability") {
        live_object(&mut record, "amazon_reachability", "reachable", Some(request.manager.amazon_reachability(config.uuid).await));
    }
    if selection.has("ekmip_reachability") {
        put(&mut record, "ekmip_reachability", ekmip_reachability(Some(request.manager.ekmip_reachability(config.uuid).await)));
    }
    if selection.has("keystead.check") {
        put(&mut record, "keystead.check", check(Some(request.manager.check(config.uuid).await)));
    }
    Ok(Answer::ok(Json::Object(project(&selection, &record, request.links()))))
}

pub async fn create(request: Request) -> Result<Answer> {
    request.query.check_change(&AWS_KMS, &[])?;
    let mut values = AWS_KMS.read_post(request.object()?)?;
    let ignored = std::mem::take(&mut values.ignored);
    let svm = selector(&request, &mut values)?;
    let proxy = proxy(&mut values)?;
    let host = values.text("host");
    let settings = AwsKmsSettings {
        region: values.text("region").unwrap_or_default(),
        key_id: values.text("key_id").unwrap_or_default(),
        access_key_id: values.text("access_key_id").map(|id| long_lived(id, "access_key_id")).transpose()?,
        encryption_context: values.text("encryption_context"),
        service: values.text("service").unwrap_or_else(|| "KMS".to_owned()),
        default_domain: values.text("default_domain").unwrap_or_else(|| "amazonaws.com".to_owned()),
        host,
        port: values.number("port").unwrap_or(443),
        polling_period: values.number("polling_period").unwrap_or(60),
        timeout: values.number("timeout").unwrap_or(10),
        verify: values.flag("verify").unwrap_or(true),
        verify_host: values.flag("verify_host").unwrap_or(true),
        verify_ip: values.flag("verify_ip").unwrap_or(true),
        proxy,
        access_error_grace: values.duration("keystead.access_error_grace"),
        max_unverified: values.duration("keystead.max_unverified"),
        ca_certificates: values.text("keystead.ca_certificates"),
        credentials_source: values.text("keystead.credentials_source"),
    };
    check_endpoint(&settings)?;
    let supplied = supplied(&settings);
    let enable = EnableRequest {
        svm,
        settings,
        secret_access_key: values.secret("secret_access_key"),
        proxy_password: values.secret("proxy_password"),
        skip_verify: values.flag("skip_verify").unwrap_or(false),
        migrate_keys: values.flag("keystead.migrate_keys").unwrap_or(false),
    };
    let selector = enable.svm.clone();
    let accepted = request.manager.enable_aws_kms(&request.who, enable).await?;
    let mut record = supplied;
    put(&mut record, "uuid", json!(accepted.resource));
    let found = request
        .manager
        .svms()
        .into_iter()
        .find(|svm| selector.uuid == Some(svm.uuid) || selector.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(&svm.name)));
    if let Some(found) = found {
        put(&mut record, "svm", json!({ "uuid": found.uuid, "name": found.name }));
    }
    put(&mut record, "_links", links(&format!("{PATH}/{}", accepted.resource)));
    let answer = request.accepted(accepted, Done::created(PATH, Json::Object(record))).await?;
    Ok(answer.warn_of(&ignored))
}

pub async fn modify(request: Request) -> Result<Answer> {
    request.query.check_change(&AWS_KMS, &[])?;
    let body = request.object()?;
    let empty = |name: &str| body.get(name) == Some(&json!(""));
    if empty("access_key_id") {
        return Err(Error::new(Code::EmptyAccessKeyId).target("access_key_id"));
    }
    if empty("secret_access_key") {
        return Err(Error::new(Code::EmptySecret).target("secret_access_key"));
    }
    let mut values = AWS_KMS.read_patch(body)?;
    if values.is_empty() {
        return Err(Error::new(Code::NoInput));
    }
    if values.has("skip_verify") && !values.has("access_key_id") {
        return Err(Error::with(Code::FieldCombination, "skip_verify is for new credentials: access_key_id belongs with it").target("skip_verify"));
    }
    let config = visible(&request)?;
    let reroutes = [
        "region",
        "host",
        "port",
        "service",
        "default_domain",
        "encryption_context",
        "proxy_type",
        "proxy_host",
        "proxy_port",
        "proxy_username",
        "proxy_password",
        // What would be stored unproven with the credentials, and would take the evidence out of every denial.
        "verify",
        "verify_host",
        "verify_ip",
        "keystead.ca_certificates",
        "keystead.credentials_source",
    ];
    let rerouted = values.has_any(&reroutes);
    let skip_verify = values.flag("skip_verify");
    if skip_verify == Some(true) && rerouted {
        return Err(Error::with(
            Code::FieldCombination,
            "skip_verify skips the proof of credentials alone; change the endpoint, its certificates, the proxy or the context by itself",
        )
        .target("skip_verify"));
    }
    let change = AwsKmsChange {
        polling_period: values.number("polling_period"),
        skip_verify,
        access_error_grace: values.clearable("keystead.access_error_grace", Values::duration),
        max_unverified: values.clearable("keystead.max_unverified", Values::duration),
        ca_certificates: values.clearable("keystead.ca_certificates", Values::text),
        credentials_source: values.clearable("keystead.credentials_source", Values::text),
        ..change(&mut values, "")?
    };
    let accepted = request.manager.modify_aws_kms(&request.who, config.uuid, change).await?;
    request.accepted(accepted, Done::ok()).await
}

pub async fn delete(request: Request) -> Result<Answer> {
    request.query.check_change(&AWS_KMS, &[])?;
    if let Some(name) = request.object()?.keys().next() {
        return Err(Error::with(Code::BodyNotAllowed, name).target(name.as_str()));
    }
    let uuid = request.uuid()?;
    let accepted = request.manager.delete_aws_kms(&request.who, uuid).await.map_err(|error| hidden(&request, error))?;
    request.accepted(accepted, Done::ok()).await
}

pub async fn restore(request: Request) -> Result<Answer> {
    let uuid = bare_action(&request)?;
    let accepted = request.manager.restore_aws_kms(&request.who, uuid).await.map_err(|error| hidden(&request, error))?;
    request.accepted(accepted, Done::created(PATH, identity(&request, uuid))).await
}

pub async fn rekey_internal(request: Request) -> Result<Answer> {
    let uuid = bare_action(&request)?;
    let accepted = request.manager.rekey_internal(&request.who, uuid).await.map_err(|error| hidden(&request, error))?;
    request.accepted(accepted, Done::created(PATH, identity(&request, uuid))).await
}

pub async fn rekey_external(request: Request) -> Result<Answer> {
    request.query.check_change(&AWS_KMS, &["key_id"])?;
    let mut body = request.object()?;
    // netapp-ontap's rekey_external(key_id=…) puts it into the URL; its rekey_external(body=…) into the body, which counts first.
    if let Some(key_id) = request.query.get("key_id") {
        body.entry("key_id").or_insert_with(|| json!(key_id));
    }
    let new = body.get("keystead").and_then(|keystead| keystead.get("new"));
    let empty = |name: &str| new.and_then(|new| new.get(name)) == Some(&json!(""));
    if empty("access_key_id") {
        return Err(Error::new(Code::EmptyAccessKeyId).target("keystead.new.access_key_id"));
    }
    if empty("secret_access_key") {
        return Err(Error::new(Code::EmptySecret).target("keystead.new.secret_access_key"));
    }
    let mut values = REKEY_EXTERNAL.read_patch(body)?;
    let key_id = values.text("key_id").ok_or_else(|| Error::with(Code::MissingField, "key_id").target("key_id"))?;
    let uuid = request.uuid()?;
    let new = AwsKmsChange {
        ca_certificates: values.clearable("keystead.new.ca_certificates", Values::text),
        credentials_source: values.clearable("keystead.new.credentials_source", Values::text),
        ..change(&mut values, "keystead.new.")?
    };
    let rekey = RekeyExternalRequest { key_id, new };
    let accepted = request.manager.rekey_external(&request.who, uuid, rekey).await.map_err(|error| hidden(&request, error))?;
    let mut done = Done::created(PATH, identity(&request, uuid));
    done.location = None;
    request.accepted(accepted, done).await
}

/// What PATCH and the `new` of rekey-external have in common. `under`: what the paths begin with.
fn change(values: &mut Values, under: &str) -> Result<AwsKmsChange> {
    let at = |name: &str| format!("{under}{name}");
    Ok(AwsKmsChange {
        region: values.text(&at("region")),
        access_key_id: values.text(&at("access_key_id")).map(|id| long_lived(id, &at("access_key_id"))).transpose()?,
        secret_access_key: values.secret(&at("secret_access_key")),
        encryption_context: values.clearable(&at("encryption_context"), Values::text),
        service: values.text(&at("service")),
        default_domain: values.text(&at("default_domain")),
        host: values.clearable(&at("host"), Values::text),
        port: values.number(&at("port")),
        timeout: values.number(&at("timeout")),
        verify: values.flag(&at("verify")),
        verify_host: values.flag(&at("verify_host")),
        verify_ip: values.flag(&at("verify_ip")),
        proxy: ProxyChange {
            kind: values.clearable(&at("proxy_type"), Values::text).map(|kind| kind.map(|word| proxy_kind(&word))),
            host: values.clearable(&at("proxy_host"), Values::text),
            port: values.clearable(&at("proxy_port"), Values::number),
            username: values.clearable(&at("proxy_username"), Values::text),
            password: values.clearable(&at("proxy_password"), Values::secret),
        },
        ..AwsKmsChange::default()
    })
}

/// The configuration of the path, if this account may see it.
fn visible(request: &Request) -> Result<AwsKms> {
    let config = request.manager.aws_kms(request.uuid()?)?;
    if request.sees(config.svm.uuid) { Ok(config) } else { Err(Error::new(Code::NotFound).target("uuid")) }
}

/// To an account of an SVM, what belongs to another SVM does not exist. What it may see but not do is said.
fn hidden(request: &Request, error: Error) -> Error {
    match (request.who.role, error.code) {
        (Role::Vsadmin { .. }, Code::PermissionDenied) if visible(request).is_err() => Error::new(Code::NotFound).target("uuid"),
        _ => error,
    }
}

/// An action without a body.
fn bare_action(request: &Request) -> Result<uuid::Uuid> {
    request.query.check_change(&AWS_KMS, &[])?;
    if let Some(name) = request.object()?.keys().next() {
        return Err(Error::with(Code::UnknownField, name).target(name.as_str()));
    }
    request.uuid()
}

/// The SVM of body and headers.
fn selector(request: &Request, values: &mut Values) -> Result<SvmSelector> {
    let (tunnel_uuid, tunnel_name) = request.tunnel()?;
    let (uuid, name) = (values.uuid("svm.uuid"), values.text("svm.name"));
    let differs = tunnel_uuid.is_some_and(|tunnel| uuid.is_some_and(|uuid| uuid != tunnel))
        || tunnel_name.as_ref().is_some_and(|tunnel| name.as_ref().is_some_and(|name| !name.eq_ignore_ascii_case(tunnel)));
    if differs {
        return Err(Error::with(Code::SvmMismatch, "the headers X-Dot-SVM-… name another one than the body").target("svm"));
    }
    let selector = SvmSelector { uuid: uuid.or(tunnel_uuid), name: name.or(tunnel_name) };
    if selector.uuid.is_none() && selector.name.is_none() {
        return Err(Error::with(Code::MissingField, "svm.name or svm.uuid").target("svm.name"));
    }
    Ok(selector)
}

/// Type, host and port of a proxy come together.
fn proxy(values: &mut Values) -> Result<Option<Proxy>> {
    let incomplete = |target: &str| Err(Error::with(Code::FieldCombination, "proxy_type, proxy_host and proxy_port come together").target(target));
    let further = ["proxy_username", "proxy_password"].into_iter().find(|name| values.has(name));
    match (values.text("proxy_type"), values.text("proxy_host"), values.number("proxy_port")) {
        (Some(kind), Some(host), Some(port)) => Ok(Some(Proxy { kind: proxy_kind(&kind), host, port, username: values.text("proxy_username") })),
        (None, None, None) => match further {
            None => Ok(None),
            Some(name) => incomplete(name),
        },
        (None, _, _) => incomplete("proxy_type"),
        (_, None, _) => incomplete("proxy_host"),
        (_, _, None) => incomplete("proxy_port"),
    }
}

fn proxy_kind(word: &str) -> ProxyKind {
    if word == "https" { ProxyKind::Https } else { ProxyKind::Http }
}

/// Temporary credentials would need their session token, and end by themselves.
fn long_lived(access_key_id: String, target: &str) -> Result<String> {
    if access_key_id.starts_with("ASIA") {
        return Err(
            Error::with(Code::InvalidValue, "it belongs to temporary credentials, which need a session token; use the key of an IAM user").target(target)
        );
    }
    Ok(access_key_id)
}

/// The host name that the settings come to. What is wrong is the member that is not a label.
fn check_endpoint(settings: &AwsKmsSettings) -> Result<()> {
    let endpoint = |service: &str, default_domain: &str| Endpoint {
        region: settings.region.clone(),
        service: service.to_owned(),
        default_domain: default_domain.to_owned(),
        host: settings.host.clone(),
        port: settings.port,
    };
    endpoint(&settings.service, &settings.default_domain).host_name().map(|_| ()).map_err(|error| {
        let target = match (&settings.host, endpoint("kms", &settings.default_domain).host_name()) {
            (Some(_), _) => "host",
            (None, Ok(_)) => "service",
            (None, Err(_)) => "default_domain",
        };
        Error::with(Code::InvalidValue, error).target(target)
    })
}

fn identity(request: &Request, uuid: uuid::Uuid) -> Json {
    let mut record = Map::new();
    put(&mut record, "uuid", json!(uuid));
    if let Ok(config) = request.manager.aws_kms(uuid) {
        put(&mut record, "svm", svm(&config.svm, false));
    }
    put(&mut record, "_links", links(&format!("{PATH}/{uuid}")));
    Json::Object(record)
}

/// What was supplied, without the secrets.
fn supplied(settings: &AwsKmsSettings) -> Map<String, Json> {
    let mut record = Map::new();
    common(&mut record, settings);
    record
}

fn common(record: &mut Map<String, Json>, settings: &AwsKmsSettings) {
    put(record, "region", json!(settings.region));
    put(record, "key_id", json!(settings.key_id));
    if let Some(access_key_id) = &settings.access_key_id {
        put(record, "access_key_id", json!(access_key_id));
    }
    put(record, "service", json!(settings.service));
    put(record, "default_domain", json!(settings.default_domain));
    put(record, "port", json!(settings.port));
    put(record, "polling_period", json!(settings.polling_period));
    put(record, "timeout", json!(settings.timeout));
    put(record, "verify", json!(settings.verify));
    put(record, "verify_host", json!(settings.verify_host));
    put(record, "verify_ip", json!(settings.verify_ip));
    if let Some(context) = &settings.encryption_context {
        put(record, "encryption_context", json!(context));
    }
    if let Some(host) = &settings.host {
        put(record, "host", json!(host));
    }
    if let Some(proxy) = &settings.proxy {
        put(record, "proxy_type", json!(if proxy.kind == ProxyKind::Https { "https" } else { "http" }));
        put(record, "proxy_host", json!(proxy.host));
        put(record, "proxy_port", json!(proxy.port));
        if let Some(username) = &proxy.username {
            put(record, "proxy_username", json!(username));
        }
    }
}

/// A whole record, but for what costs a live look.
fn record(config: &AwsKms) -> Map<String, Json> {
    let mut record = Map::new();
    put(&mut record, "uuid", json!(config.uuid));
    put(&mut record, "svm", svm(&config.svm, false));
    put(&mut record, "scope", json!("svm"));
    let config = config.clone();
    let members = config.keystead;
    let settings = AwsKmsSettings {
        region: config.region,
        key_id: config.key_id,
        access_key_id: config.access_key_id,
        encryption_context: config.encryption_context,
        service: config.service,
        default_domain: config.default_domain,
        host: config.host,
        port: config.port,
        polling_period: config.polling_period,
        timeout: config.timeout,
        verify: config.verify,
        verify_host: config.verify_host,
        verify_ip: config.verify_ip,
        proxy: config.proxy,
        access_error_grace: members.access_error_grace,
        max_unverified: members.max_unverified,
        ca_certificates: members.ca_certificates,
        credentials_source: members.credentials_source,
    };
    common(&mut record, &settings);
    put(&mut record, "keystead.bound", json!(members.bound.as_secs()));
    if let Some(grace) = settings.access_error_grace {
        put(&mut record, "keystead.access_error_grace", duration(grace));
    }
    if let Some(limit) = settings.max_unverified {
        put(&mut record, "keystead.max_unverified", duration(limit));
    }
    if let Some(pem) = settings.ca_certificates {
        put(&mut record, "keystead.ca_certificates", json!(pem));
    }
    if let Some(source) = settings.credentials_source {
        put(&mut record, "keystead.credentials_source", json!(source));
    }
    record
}

fn project(selection: &Selection, record: &Map<String, Json>, with_links: bool) -> Map<String, Json> {
    let mut shown = selection.project(record);
    if with_links {
        let uuid = record.get("uuid").and_then(Json::as_str).unwrap_or_default();
        put(&mut shown, "_links", links(&format!("{PATH}/{uuid}")));
        let svm = crate::resource::get(record, "svm.uuid").and_then(Json::as_str).unwrap_or_default();
        put(&mut shown, "svm._links", links(&format!("/api/svm/svms/{svm}")));
    }
    shown
}

/// One entry a node. `None`: the request has looked at as many as it may.
fn ekmip_reachability(looked: Option<Result<Vec<EkmipReachability>>>) -> Json {
    match looked {
        Some(Ok(entries)) => entries
            .into_iter()
            .map(|entry| {
                json!({
                    "node": { "uuid": entry.node.uuid, "name": entry.node.name },
                    "reachable": entry.reachable,
                    "code": entry.code.map_or_else(|| "0".to_owned(), |code| code.to_string()),
                    "message": entry.message,
                })
            })
            .collect(),
        Some(Err(error)) => json!([{ "reachable": false, "code": error.code.to_string(), "message": error.message }]),
        None => json!([{ "code": Code::TooManyRequests.to_string(), "message": format!("one request looks at {LIVE_RECORDS} records at the most") }]),
    }
}

/// A preflight. `None`: the request has taken as many as it may.
fn check(looked: Option<Result<CheckReport>>) -> Json {
    match looked {
        Some(Ok(report)) => {
            let steps = report.steps.into_iter().map(|step| {
                let duration = u64::try_from(step.took.as_millis()).unwrap_or(u64::MAX);
                json!({ "name": step.name, "state": step.state, "duration_ms": duration, "message": step.message, "advice": step.advice })
            });
            json!({ "passed": report.passed, "summary": report.summary, "steps": steps.collect::<Vec<_>>() })
        }
        Some(Err(error)) => json!({ "passed": false, "summary": error.message, "steps": [] }),
        None => live_limit(),
    }
}

/// What stands in place of a live object where the request has looked at as many as it may.
fn live_limit() -> Json {
    json!({ "code": Code::TooManyRequests.to_string(), "message": format!("one request looks at {LIVE_RECORDS} records at the most; ask for this one by itself") })
}

/// Puts a live object into a record. `None`: the request has looked at as many as it may.
fn live_object(record: &mut Map<String, Json>, object: &str, flag: &str, health: Option<Result<Health>>) {
    let value = match health {
        Some(Ok(health)) => {
            json!({ flag: health.good, "code": health.code.map_or_else(|| "0".to_owned(), |code| code.to_string()), "message": health.message })
        }
        // Deleted at this moment.
        Some(Err(_)) => return,
        None => live_limit(),
    };
    put(record, object, value);
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
        for field in AWS_KMS.fields {
            let secret = matches!(field.kind, Kind::Secret(_));
            let spent = ["skip_verify", "keystead.migrate_keys"].contains(&field.path);
            assert_eq!(secret || spent, field.show == Show::Never, "{}", field.path);
        }
    }
}
