//! Calls that change configurations.

use super::fields::{AWS_KMS, PATH, PREFLIGHT, REKEY_EXTERNAL};
use super::{known, visible};
use crate::collection::One;
use crate::field::duration_text;
use crate::request::{Answer, Done, Request, links};
use crate::resource::put;
use crate::values::Values;
use keystead_awskms::{Endpoint, ProxyKind};
use keystead_manager::model::{AwsKmsChange, AwsKmsSettings, EnableRequest, Proxy, ProxyChange, RekeyExternalRequest};
use keystead_manager::{Code, Error, Result};
use serde_json::{Map, Value as Json, json};

pub async fn create(request: Request) -> Result<Answer> {
    let (enable, ignored) = enable_request(&request)?;
    let mut record = supplied(&enable.settings);
    let selector = enable.svm.clone();
    let accepted = request.manager.enable_aws_kms(&request.who, enable).await?;
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

/// A preflight of what a POST of the same body would configure. Nothing is kept.
pub async fn preflight(request: Request) -> Result<Answer> {
    let (enable, ignored) = enable_request(&request)?;
    let report = request.manager.preflight_aws_kms(&request.who, &enable).await?;
    Ok(request.show(&One::whole(&PREFLIGHT), &report).warn_of(&ignored))
}

/// The body of a POST, which is the same for the preflight of it.
fn enable_request(request: &Request) -> Result<(EnableRequest, Vec<&'static str>)> {
    let mut values = request.read_post(&AWS_KMS)?;
    let ignored = std::mem::take(&mut values.ignored);
    let svm = request.selector(values.uuid("svm.uuid"), values.text("svm.name"), "svm")?;
    let svm = svm.ok_or_else(|| Error::with(Code::MissingField, "svm.name or svm.uuid").target("svm.name"))?;
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
    let enable = EnableRequest {
        svm,
        settings,
        secret_access_key: values.secret("secret_access_key"),
        proxy_password: values.secret("proxy_password"),
        skip_verify: values.flag("skip_verify").unwrap_or(false),
        migrate_keys: values.flag("keystead.migrate_keys").unwrap_or(false),
    };
    Ok((enable, ignored))
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
    let mut values = request.given(&AWS_KMS, AWS_KMS.read_patch(body, request.query.unknown())?);
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
    let accepted = request.manager.modify_aws_kms(&request.who, config.uuid(), change).await?;
    request.accepted(accepted, Done::ok()).await
}

pub async fn delete(request: Request) -> Result<Answer> {
    request.no_body(&AWS_KMS)?;
    let accepted = request.manager.delete_aws_kms(&request.who, known(&request)?).await?;
    request.accepted(accepted, Done::ok()).await
}

pub async fn restore(request: Request) -> Result<Answer> {
    let uuid = bare_action(&request)?;
    let accepted = request.manager.restore_aws_kms(&request.who, uuid).await?;
    request.accepted(accepted, Done::created(PATH, identity(&request, uuid))).await
}

pub async fn rekey_internal(request: Request) -> Result<Answer> {
    let uuid = bare_action(&request)?;
    let accepted = request.manager.rekey_internal(&request.who, uuid).await?;
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
    let mut values = request.given(&REKEY_EXTERNAL, REKEY_EXTERNAL.read_patch(body, request.query.unknown())?);
    let key_id = values.text("key_id").ok_or_else(|| Error::with(Code::MissingField, "key_id").target("key_id"))?;
    let uuid = known(&request)?;
    let new = AwsKmsChange {
        ca_certificates: values.clearable("keystead.new.ca_certificates", Values::text),
        credentials_source: values.clearable("keystead.new.credentials_source", Values::text),
        ..change(&mut values, "keystead.new.")?
    };
    let rekey = RekeyExternalRequest { key_id, new };
    let accepted = request.manager.rekey_external(&request.who, uuid, rekey).await?;
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

/// An action without a body.
fn bare_action(request: &Request) -> Result<uuid::Uuid> {
    request.query.check_change(&AWS_KMS, &[])?;
    match request.object()?.keys().next() {
        Some(name) if !request.query.ignores_unknown() => Err(Error::with(Code::UnknownField, name).target(name.as_str())),
        _ => known(request),
    }
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
        put(&mut record, "svm", json!({ "uuid": config.svm(), "name": config.svm_name() }));
    }
    put(&mut record, "_links", links(&format!("{PATH}/{uuid}")));
    Json::Object(record)
}

/// What was supplied, without the secrets.
fn supplied(settings: &AwsKmsSettings) -> Map<String, Json> {
    let mut supplied = Map::new();
    let record = &mut supplied;
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
    let durations = [("access_error_grace", settings.access_error_grace), ("max_unverified", settings.max_unverified)];
    for (name, duration) in durations.into_iter().filter_map(|(name, duration)| Some((name, duration?))) {
        put(record, &format!("keystead.{name}"), json!(duration_text(duration)));
    }
    for (name, text) in [("ca_certificates", &settings.ca_certificates), ("credentials_source", &settings.credentials_source)] {
        if let Some(text) = text {
            put(record, &format!("keystead.{name}"), json!(text));
        }
    }
    supplied
}
