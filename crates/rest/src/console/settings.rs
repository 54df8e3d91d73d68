//! The fields of a configuration, as the pages have them that enable AWS KMS and that change it. `config`: what stands there before anything was typed.

use super::form::{Field, How, Shown};
use super::visit::{at, flag};
use maud::{Markup, html};
use serde_json::Value as Json;

/// Boxes that are ticked from the beginning.
pub const CHECKS: &[&str] = &["verify", "verify_host", "verify_ip"];
/// Credentials that are the node's own.
pub const CREDENTIALS_SOURCE: &str = "keystead.credentials_source";
/// All of a proxy.
pub const PROXY: &[&str] = &["proxy_type", "proxy_host", "proxy_port", "proxy_username", "proxy_password"];
const ENDPOINT: &[&str] = &["host", "port", "service", "default_domain", "timeout", "keystead.ca_certificates", "verify", "verify_host", "verify_ip"];
const PROMISE: &[&str] = &["polling_period", "keystead.access_error_grace", "keystead.max_unverified"];

/// The region.
pub fn region(fields: &Shown<'_>, config: Option<&Json>) -> Markup {
    one(fields, config, Field::new("region", "Region", How::Code).required().hint("As us-east-1."))
}

/// The encryption context.
pub fn encryption_context(fields: &Shown<'_>, config: Option<&Json>) -> Markup {
    let hint = "key=value, more of them behind commas. AWS records it with every use of the key.";
    // A field of one line would lose the ends of lines, and with them be another context.
    let how = if config.is_some_and(|config| value(config, "encryption_context").contains('\n')) { How::Lines } else { How::Code };
    one(fields, config, Field::new("encryption_context", "Encryption context", how).hint(hint))
}

/// The access key.
pub fn access(fields: &Shown<'_>, config: Option<&Json>) -> Markup {
    let secret = Field::new("secret_access_key", "Secret access key", How::Secret("off")).depends();
    html! {
        p.hint { "Of an IAM user that may kms:DescribeKey, kms:Encrypt and kms:Decrypt with this key, and nothing else." }
        (one(fields, config, Field::new("access_key_id", "Access key id", How::Code).depends()))
        (one(fields, config, if config.is_some() { secret.hint("Of a new access key. It is not shown.") } else { secret }))
    }
}

/// What stands in the place of an access key.
pub fn credentials_source(fields: &Shown<'_>, config: Option<&Json>) -> Markup {
    let hint = "In place of an access key: instance_role, web_identity, process, chain or profile:NAME.";
    one(fields, config, Field::new(CREDENTIALS_SOURCE, "Credentials of the node's own", How::Code).hint(hint))
}

/// Where AWS KMS is, and how its certificate is checked.
pub fn endpoint(fields: &Shown<'_>, config: Option<&Json>) -> Markup {
    let ticked = |name| config.is_none_or(|config| flag(config, name));
    html! {
        details open[fields.uses(ENDPOINT)] {
            summary { "Endpoint and its certificate" }
            (one(fields, config, Field::new("host", "Host", How::Code).hint("A private endpoint in place of AWS's own. Addresses inside must be allowed by the cluster's settings.")))
            (one(fields, config, Field::new("port", "Port", How::Number(1, 65_535)).hint("443 where empty.")))
            (one(fields, config, Field::new("service", "Service", How::Code).hint("The first label of AWS's own name: KMS where empty.")))
            (one(fields, config, Field::new("default_domain", "Domain", How::Code).hint("The last labels: amazonaws.com where empty.")))
            (one(fields, config, Field::new("timeout", "Timeout", How::Number(1, 60)).hint("Seconds for each attempt: 10 where empty.")))
            (one(fields, config, Field::new("keystead.ca_certificates", "CA certificates", How::Lines).hint("PEM. For this SVM's endpoint alone.")))
            (fields.tick("verify", "Check the certificate", "Without it, no denial by AWS counts as one.", ticked("verify")))
            (fields.tick("verify_host", "Check its name", "The host's name must stand in it.", ticked("verify_host")))
            (fields.tick("verify_ip", "Check its address", "Where the host is an address, it must stand in it.", ticked("verify_ip")))
        }
    }
}

/// The proxy on the way there.
pub fn proxy(fields: &Shown<'_>, config: Option<&Json>) -> Markup {
    html! {
        details open[fields.uses(PROXY)] {
            summary { "Proxy" }
            (one(fields, config, Field::new("proxy_type", "Type", How::Choice(&[("", "none"), ("http", "http"), ("https", "https")]))))
            (one(fields, config, Field::new("proxy_host", "Host", How::Code)))
            (one(fields, config, Field::new("proxy_port", "Port", How::Number(1, 65_535))))
            (one(fields, config, Field::new("proxy_username", "Login", How::Code)))
            (one(fields, config, Field::new("proxy_password", "Password", How::Secret("off"))))
        }
    }
}

/// How soon a revocation counts.
pub fn promise(fields: &Shown<'_>, config: Option<&Json>) -> Markup {
    html! {
        details open[fields.uses(PROMISE)] {
            summary { "How soon a revocation counts" }
            (one(fields, config, Field::new("polling_period", "Poll every … minutes", How::Number(1, 1_440)).hint("60 where empty.")))
            (one(fields, config, Field::new("keystead.access_error_grace", "Grace", How::Code).hint("From the first of the two denials to the refusal of keys, as 0s or 30m. The cluster's where empty; it may be shorter, not longer.")))
            (one(fields, config, Field::new("keystead.max_unverified", "Refuse keys without a good poll for", How::Code).hint("As 4h. Where empty, an outage of AWS never takes keys away.")))
        }
    }
}

/// What a field of a configuration shows; empty where there is nothing.
pub fn value(config: &Json, name: &str) -> String {
    match at(config, name) {
        Some(Json::String(text)) => text.clone(),
        Some(Json::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn one(fields: &Shown<'_>, config: Option<&Json>, field: Field<'_>) -> Markup {
    let value = config.map_or_else(String::new, |config| value(config, field.name));
    fields.field(&field.value(&value))
}
