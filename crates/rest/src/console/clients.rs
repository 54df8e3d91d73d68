//! KMIP clients of an SVM: their certificates, making one, revoking one.

use super::form::{Field, How, Shown};
use super::html::{day, pager, table, word};
use super::parts::{crumbs, svm as svm_of};
use super::see_other;
use super::visit::{ROWS, Visit, address, encoded, list as entries, missing, object, text};
use crate::ekmip_clients::CLIENT;
use crate::request::{Answer, Body};
use http::{Method, StatusCode, header};
use keystead_manager::{Error, Result};
use maud::{Markup, html};
use serde_json::Value as Json;

const CLIENTS: &str = "/api/security/ekmip/clients";
/// How many stand on the page of an SVM.
const FEW: &str = "5";

/// What stands on the page of an SVM.
///
/// # Errors
/// Whatever the API refuses.
pub async fn of_svm(visit: &Visit<'_>, svm: &Json) -> Result<Markup> {
    let (uuid, name) = (text(svm, "uuid"), text(svm, "name"));
    let (clients, _) =
        visit.list(CLIENTS, &[("svm.uuid", uuid), ("state", "!revoked"), ("fields", "*"), ("order_by", "common_name"), ("max_records", FEW)]).await?;
    Ok(html! {
        div.title {
            h2 { "KMIP clients" }
            @if visit.may(&Method::POST, CLIENTS) { a.button href={ "/console/svms/" (uuid) "/clients/new" } { "New client certificate" } }
        }
        (table(&format!("KMIP clients of {name}"), &COLUMNS, &clients.iter().map(|client| row(client, visit)).collect::<Vec<_>>(), "No certificate speaks for this SVM."))
        p.more { a href={ "/console/svms/" (uuid) "/clients" } { "All client certificates, revoked ones too" } }
    })
}

/// The page of all of them.
pub async fn list(visit: Visit<'_>) -> Result<Answer> {
    let svm = svm_of(&visit, "name").await?;
    let (uuid, name, start) = (text(&svm, "uuid"), text(&svm, "name"), visit.parameter("start"));
    let mut query = vec![("svm.uuid", uuid), ("fields", "*"), ("order_by", "common_name"), ("max_records", ROWS)];
    query.extend((!start.is_empty()).then_some(("start", start)));
    let (clients, next) = visit.list(CLIENTS, &query).await?;
    let path = format!("/console/svms/{uuid}/clients");
    let with = |start: &str| address(&path, &[("start", start)]);
    let content = html! {
        (crumbs(&svm, "KMIP clients"))
        div.title {
            h1 { "KMIP clients of " (name) }
            @if visit.may(&Method::POST, CLIENTS) { a.button href={ (path) "/new" } { "New client certificate" } }
        }
        section id="list" data-live { (table("KMIP clients", &COLUMNS, &clients.iter().map(|client| row(client, &visit)).collect::<Vec<_>>(), "No certificate speaks for this SVM.")) }
        (pager(&path, next.map(|next| with(&next)).as_deref(), start.is_empty()))
    };
    Ok(visit.live_page(&format!("KMIP clients of {name}"), 15, &content))
}

/// Asks what the certificate is for.
pub async fn new(visit: Visit<'_>) -> Result<Answer> {
    let svm = svm_of(&visit, "name").await?;
    Ok(visit.page("New client certificate", &form(&visit, &svm, None)))
}

/// Makes it, and shows it this once; or sends it as a file.
pub async fn create(visit: Visit<'_>) -> Result<Answer> {
    let svm = svm_of(&visit, "name").await?;
    let mut body = visit.form.body(&CLIENT, &["common_name", "expiry_time", "csr"]);
    if let (Some(body), Json::Object(named)) = (body.as_object_mut(), object([("svm.uuid", Json::from(text(&svm, "uuid")))])) {
        body.extend(named);
    }
    let reply = match visit.send(Method::POST, CLIENTS, &[("return_records", "true")], &body).await {
        Ok(reply) => reply,
        Err(error) => return Ok(visit.page_again(&error, "New client certificate", &form(&visit, &svm, Some(&error)))),
    };
    let client = entries(&reply.body, "records").first().ok_or_else(|| Error::unexpected("the answer has no record"))?;
    if visit.form.get("as") == "file" {
        return Ok(file(client));
    }
    Ok(visit.page("New client certificate", &shown(&svm, client)))
}

/// Asks whether one is to be revoked.
pub async fn ask_revoke(visit: Visit<'_>) -> Result<Answer> {
    ask(&visit, None).await
}

/// Revokes it.
pub async fn revoke(visit: Visit<'_>) -> Result<Answer> {
    let uuid: uuid::Uuid = visit.segment(1).parse().map_err(|_| missing())?;
    match visit.send(Method::DELETE, &format!("{CLIENTS}/{uuid}"), &[], &Json::Object(serde_json::Map::new())).await {
        Ok(_) => Ok(see_other(&format!("/console/svms/{}/clients", encoded(visit.segment(0))))),
        Err(error) => ask(&visit, Some(&error)).await,
    }
}

async fn ask(visit: &Visit<'_>, error: Option<&Error>) -> Result<Answer> {
    let svm = svm_of(visit, "name").await?;
    let uuid: uuid::Uuid = visit.segment(1).parse().map_err(|_| missing())?;
    let client = visit.get(&format!("{CLIENTS}/{uuid}"), &[("fields", "*")]).await?;
    if text(&client, "svm.uuid") != text(&svm, "uuid") {
        return Err(missing());
    }
    let name = text(&client, "common_name");
    let content = html! {
        (crumbs(&svm, "Revoke"))
        h1 { "Revoke " (name) "?" }
        (Shown::new(&visit.form, error, &[]).trouble("The certificate was not revoked."))
        ul {
            li { "Within a second, whoever uses this certificate gets no key of " strong { (text(&svm, "name")) } " any more, and open connections end." }
            li { "Keys that the client already holds cannot be called back." }
            li { "It cannot be undone: the client needs a new certificate." }
        }
        p.small { "Serial number " span.code { (text(&client, "serial_number")) } ", valid until " (day(text(&client, "expiry_time"))) }
        form.buttons method="post" action={ "/console/svms/" (text(&svm, "uuid")) "/clients/" (uuid) "/revoke" } {
            (visit.token())
            button.danger type="submit" { "Revoke " (name) }
            a href={ "/console/svms/" (text(&svm, "uuid")) } { "Cancel" }
        }
    };
    Ok(match error {
        Some(error) => visit.page_again(error, "Revoke a client certificate", &content),
        None => visit.page("Revoke a client certificate", &content),
    })
}

const COLUMNS: [&str; 5] = ["Common name", "State", "Valid until", "Serial number", "Action"];

fn row(client: &Json, visit: &Visit<'_>) -> Vec<Markup> {
    let (uuid, svm, name, state) = (text(client, "uuid"), text(client, "svm.uuid"), text(client, "common_name"), text(client, "state"));
    vec![
        html! { (name) },
        html! { span data-key=(uuid) data-say={ "Certificate of " (name) ": " (state) } { (word(state)) } },
        day(text(client, "expiry_time")),
        html! { span.code.small { (text(client, "serial_number")) } },
        html! {
            @if state != "revoked" && visit.may(&Method::DELETE, "/api/security/ekmip/clients/{}") {
                a href={ "/console/svms/" (svm) "/clients/" (uuid) "/revoke" } { "Revoke" span.unseen { " " (name) } }
            } @else { "–" }
        },
    ]
}

fn form(visit: &Visit<'_>, svm: &Json, error: Option<&Error>) -> Markup {
    let known = ["common_name", "expiry_time", "csr"];
    let fields = Shown::new(&visit.form, error, &known);
    let name = text(svm, "name");
    html! {
        (crumbs(svm, "New client certificate"))
        h1 { "New client certificate for " (name) }
        p { "Whoever has the certificate and its private key speaks for " strong { (name) } " over KMIP: makes keys, reads them, destroys them. The private key is made here, shown once, and not kept." }
        (fields.trouble("No certificate was made."))
        form.stack method="post" action={ "/console/svms/" (text(svm, "uuid")) "/clients/new" } {
            (visit.token())
            (fields.field(&Field::new("common_name", "Common name", How::Code).required().hint("What the client is called, up to 64 characters: array-7.")))
            (fields.field(&Field::new("expiry_time", "Valid for", How::Code).hint("A length of time as P90DT. Left empty: a year, P365DT.")))
            details open[fields.uses(&["csr"])] {
                summary { "The client has a key of its own" }
                (fields.field(&Field::new("csr", "Certificate signing request", How::Lines).hint("PEM. No private key is made then.")))
            }
            div.buttons {
                button.primary type="submit" name="as" value="page" { "Make and show" }
                button type="submit" name="as" value="file" { "Make and download" }
                a href={ "/console/svms/" (text(svm, "uuid")) } { "Cancel" }
            }
        }
    }
}

/// What is shown this once.
fn shown(svm: &Json, client: &Json) -> Markup {
    let name = text(client, "common_name");
    let files = [("private_key", "Private key", "key.pem"), ("certificate", "Certificate", "cert.pem"), ("ca_certificate", "CA certificate", "ca.pem")];
    html! {
        (crumbs(svm, "New client certificate"))
        h1 { "The certificate of " (name) }
        @if !text(client, "private_key").is_empty() {
            p.notice.warn role="status" { strong { "Take the private key along now." } " It is not kept, and is not shown again: when this page is left, it is gone." }
        }
        @for (field, label, file) in files.iter().filter(|(field, ..)| !text(client, field).is_empty()) {
            section.pem {
                div.title {
                    h2 id={ (field) "-title" } { (label) }
                    button.download type="button" hidden data-download=(field) data-file={ (file_name(name)) "-" (file) } { "Download " (file) }
                }
                textarea.code id=(field) readonly rows="6" spellcheck="false" autocomplete="off" aria-labelledby={ (field) "-title" } { (text(client, field)) }
            }
        }
        p.buttons { a.button href={ "/console/svms/" (text(svm, "uuid")) } { "I have them; back to " (text(svm, "name")) } }
    }
}

/// All of it as one file, for those whose browser runs no script.
fn file(client: &Json) -> Answer {
    let parts = ["private_key", "certificate", "ca_certificate"].map(|field| text(client, field));
    let pem: String = parts.into_iter().filter(|part| !part.is_empty()).map(|part| format!("{}\n", part.trim_end())).collect();
    let name = file_name(text(client, "common_name"));
    let answer = Answer { body: Body::Ready(pem.into(), "application/x-pem-file"), ..Answer::empty(StatusCode::OK) };
    answer.header(header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}.pem\""))
}

/// A name that is one for a file everywhere.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' }).collect()
}
