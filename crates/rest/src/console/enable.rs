//! Enabling AWS KMS for an SVM: what it takes, a check of the way to AWS and of the key before anything is kept, and the call.
//!
//! The secret is never shown again. So "Check and enable" does both with what was typed once, and the script sends "Check" beside the page, which keeps what stands in it.

use super::form::{Field, How, Shown};
use super::parts::{AWS_KMS, crumbs, preflight, svm as svm_of};
use super::see_other;
use super::settings::{self, CHECKS, CREDENTIALS_SOURCE};
use super::visit::{Visit, flag, text};
use crate::aws_kms::AWS_KMS as DECLARED;
use crate::request::Answer;
use http::Method;
use keystead_manager::model::Role;
use keystead_manager::{Error, Result};
use maud::{Markup, html};
use serde_json::{Map, Value as Json, json};

const TITLE: &str = "Enable AWS KMS";
/// How long the page waits for the job: what fails at once stands in the form then, and not in a job.
const WAIT: &str = "8";
/// The fields that are sent as they are.
const FIELDS: &[&str] = &[
    "region",
    "key_id",
    "access_key_id",
    "secret_access_key",
    "encryption_context",
    "host",
    "port",
    "service",
    "default_domain",
    "timeout",
    "polling_period",
    "proxy_type",
    "proxy_host",
    "proxy_port",
    "proxy_username",
    "proxy_password",
    CREDENTIALS_SOURCE,
    "keystead.access_error_grace",
    "keystead.max_unverified",
    "keystead.ca_certificates",
];
const FURTHER: &[&str] = &[CREDENTIALS_SOURCE, "keystead.migrate_keys", "skip_verify"];

/// The form.
pub async fn show(visit: Visit<'_>) -> Result<Answer> {
    let svm = svm_of(&visit, "name,keystead.state").await?;
    Ok(visit.page(TITLE, &form(&visit, &svm, None, None)))
}

/// Checks, and enables where the check has passed and that was asked for.
pub async fn send(visit: Visit<'_>) -> Result<Answer> {
    let svm = svm_of(&visit, "name,keystead.state").await?;
    let body = body(&visit, text(&svm, "uuid"));
    let enables = visit.form.get("do") == "enable";
    let again = |error: &Error| visit.page_again(error, TITLE, &form(&visit, &svm, Some(error), None));
    // Who skips the proof skips the check too.
    if !enables || !visit.form.has("skip_verify") {
        match visit.send(Method::POST, "/api/security/ekmip/preflight", &[], &body).await {
            Err(error) => return Ok(again(&error)),
            Ok(reply) if !enables || !flag(&reply.body, "passed") => return Ok(visit.page(TITLE, &form(&visit, &svm, None, Some(&reply.body)))),
            Ok(_) => {}
        }
    }
    match visit.send(Method::POST, AWS_KMS, &[("return_timeout", WAIT)], &body).await {
        Ok(_) => Ok(see_other(&format!("/console/svms/{}", text(&svm, "uuid")))),
        Err(error) => Ok(again(&error)),
    }
}

fn body(visit: &Visit<'_>, svm: &str) -> Json {
    let form = &visit.form;
    let mut body = form.body(&DECLARED, FIELDS);
    let Some(all) = body.as_object_mut() else { return body };
    all.insert("svm".to_owned(), json!({ "uuid": svm }));
    for name in CHECKS.iter().filter(|name| !form.has(name)) {
        all.insert((*name).to_owned(), Json::Bool(false));
    }
    if form.has("skip_verify") {
        all.insert("skip_verify".to_owned(), Json::Bool(true));
    }
    if form.has("keystead.migrate_keys")
        && let Json::Object(own) = all.entry("keystead").or_insert_with(|| Json::Object(Map::new()))
    {
        own.insert("migrate_keys".to_owned(), Json::Bool(true));
    }
    body
}

fn form(visit: &Visit<'_>, svm: &Json, error: Option<&Error>, report: Option<&Json>) -> Markup {
    let known: Vec<&'static str> = [FIELDS, CHECKS, FURTHER].concat();
    let fields = Shown::new(&visit.form, error, &known);
    let (uuid, name, is_admin) = (text(svm, "uuid"), text(svm, "name"), visit.who.role == Role::Admin);
    let is_new = visit.form.is_new();
    html! {
        (crumbs(svm, TITLE))
        h1 { "Enable AWS KMS for " (name) }
        p { "A KEK is made for " strong { (name) } ", wrapped by the customer key in AWS, and proven to unwrap. From then on, who cannot use that key in AWS gets no key here." }
        div #check {
            (fields.trouble("AWS KMS was not enabled."))
            @if let Some(report) = report { div tabindex="-1" autofocus { (preflight(report)) } }
        }
        form.stack method="post" action={ "/console/svms/" (uuid) "/enable" } data-check="check" {
            (visit.token())
            @if !is_new { p.notice { "Secrets are not shown again: type them once more." } }
            fieldset {
                legend { "Customer key" }
                (settings::region(&fields, None))
                (fields.field(&Field::new("key_id", "Key", How::Code).required().hint("Its id, ARN, alias/… or alias ARN.")))
                (settings::encryption_context(&fields, None))
            }
            fieldset {
                legend { "Access" }
                (settings::access(&fields, None))
            }
            (settings::endpoint(&fields, None))
            (settings::proxy(&fields, None))
            (settings::promise(&fields, None))
            details open[fields.uses(FURTHER)] {
                summary { "Further" }
                @if is_admin {
                    (settings::credentials_source(&fields, None))
                    (fields.tick("keystead.migrate_keys", "Move the keys of the onboard key manager", "Keys that it keeps for this SVM come under the customer key in the same job.", text(svm, "keystead.state") == "onboard"))
                }
                (fields.tick("skip_verify", "Skip the check", "The round trip of the KEK is made nevertheless.", false))
            }
            div.buttons {
                button.primary type="submit" name="do" value="enable" { "Check and enable" }
                button type="submit" name="do" value="check" { "Check only" }
                a href={ "/console/svms/" (uuid) } { "Cancel" }
            }
        }
    }
}
