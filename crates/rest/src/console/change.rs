//! Changing the configuration of an SVM: its access key, its endpoint, its proxy, its polls. What was not changed on the page is not sent, so that two who change different things do not undo each other.

use super::form::Shown;
use super::parts::{AWS_KMS, configuration, crumbs, svm as svm_of};
use super::settings::{self, CHECKS, CREDENTIALS_SOURCE, PROXY};
use super::visit::{Visit, missing, text};
use super::{ROOT, see_other};
use crate::aws_kms::AWS_KMS as DECLARED;
use crate::request::Answer;
use http::Method;
use keystead_manager::model::Role;
use keystead_manager::{Error, Result};
use maud::{Markup, html};
use serde_json::Value as Json;

const TITLE: &str = "Change AWS KMS";
/// How long the page waits for the job: what fails at once stands in the form then.
const WAIT: &str = "8";
/// The fields that can be changed, but for the boxes.
const FIELDS: &[&str] = &[
    "region",
    "encryption_context",
    "access_key_id",
    "secret_access_key",
    CREDENTIALS_SOURCE,
    "host",
    "port",
    "service",
    "default_domain",
    "timeout",
    "keystead.ca_certificates",
    "proxy_type",
    "proxy_host",
    "proxy_port",
    "proxy_username",
    "proxy_password",
    "polling_period",
    "keystead.access_error_grace",
    "keystead.max_unverified",
];

/// The form.
pub async fn show(visit: Visit<'_>) -> Result<Answer> {
    let (svm, config) = found(&visit).await?;
    Ok(visit.page(TITLE, &form(&visit, &svm, &config, None)))
}

/// Changes what was changed in the form.
pub async fn send(visit: Visit<'_>) -> Result<Answer> {
    let (svm, config) = found(&visit).await?;
    match visit.send(Method::PATCH, &format!("{AWS_KMS}/{}", text(&config, "uuid")), &[("return_timeout", WAIT)], &body(&visit)).await {
        Ok(_) => Ok(see_other(&format!("{ROOT}svms/{}", text(&svm, "uuid")))),
        Err(error) => Ok(visit.page_again(&error, TITLE, &form(&visit, &svm, &config, Some(&error)))),
    }
}

async fn found(visit: &Visit<'_>) -> Result<(Json, Json)> {
    let svm = svm_of(visit, "name").await?;
    let config = configuration(visit, text(&svm, "uuid")).await?.ok_or_else(missing)?;
    Ok((svm, config))
}

/// What an emptied field comes to that cannot be without a value.
const DEFAULTS: &[(&str, &str)] = &[("port", "443"), ("timeout", "10"), ("polling_period", "60"), ("service", "KMS"), ("default_domain", "amazonaws.com")];

fn body(visit: &Visit<'_>) -> Json {
    let mut body = visit.form.changes(&DECLARED, FIELDS, CHECKS);
    if let Some(all) = body.as_object_mut() {
        for (name, default) in DEFAULTS {
            if let Some(value) = all.get_mut(*name).filter(|value| value.is_null()) {
                *value = default.parse::<i64>().map_or_else(|_| Json::from(*default), Json::from);
            }
        }
    }
    if let Some(all) = body.as_object_mut() {
        let is_null = |all: &serde_json::Map<String, Json>, name: &str| all.get(name) == Some(&Json::Null);
        // Nobody logs in at the proxy any more: the password goes with the name.
        if is_null(all, "proxy_username") {
            all.insert("proxy_password".to_owned(), Json::Null);
        }
        // An access key that was emptied is refused, and not left as it was without a word; credentials of the node's own take its place.
        if is_null(all, "access_key_id") {
            if visit.form.get(CREDENTIALS_SOURCE).is_empty() {
                all.insert("access_key_id".to_owned(), Json::from(""));
            } else {
                all.remove("access_key_id");
            }
        }
    }
    // Without a type there is no proxy, whatever else stands there.
    if let Some(all) = body.as_object_mut().filter(|all| all.get("proxy_type") == Some(&Json::Null)) {
        all.extend(PROXY.iter().map(|name| ((*name).to_owned(), Json::Null)));
    }
    body
}

fn form(visit: &Visit<'_>, svm: &Json, config: &Json, error: Option<&Error>) -> Markup {
    let known: Vec<&'static str> = [FIELDS, CHECKS].concat();
    let fields = Shown::new(&visit.form, error, &known);
    let (uuid, name, config) = (text(svm, "uuid"), text(svm, "name"), Some(config));
    let source = config.map_or_else(String::new, |config| settings::value(config, CREDENTIALS_SOURCE));
    html! {
        (crumbs(svm, TITLE))
        h1 { "Change AWS KMS of " (name) }
        ul {
            li { "Whatever leads to the key in AWS is proven before it is stored: AWS must unwrap the KEK that way. Keys are served meanwhile." }
            li { "Another customer key is " a href={ (ROOT) "svms/" (uuid) "/rekey-external" } { "a page of its own" } "." }
        }
        (fields.trouble("Nothing was changed."))
        form.stack method="post" action={ (ROOT) "svms/" (uuid) "/change" } {
            (visit.token())
            @for name in FIELDS { (visit.form.before(name, || config.map_or_else(String::new, |config| settings::value(config, name)))) }
            @for name in CHECKS { (visit.form.before(name, || config.map_or_else(String::new, |config| settings::value(config, name)))) }
            @if !visit.form.is_new() { p.notice { "Secrets are not shown again: type them once more." } }
            fieldset {
                legend { "Access" }
                (settings::access(&fields, config))
                @if visit.who.role == Role::Admin || !source.is_empty() { (settings::credentials_source(&fields, config)) }
            }
            fieldset {
                legend { "Customer key" }
                (settings::region(&fields, config))
                (settings::encryption_context(&fields, config))
            }
            (settings::endpoint(&fields, config))
            (settings::proxy(&fields, config))
            (settings::promise(&fields, config))
            div.buttons { button.primary type="submit" { "Change" } a href={ (ROOT) "svms/" (uuid) } { "Cancel" } }
        }
    }
}
