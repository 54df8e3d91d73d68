//! `/security/ekmip/clients` and `/security/ekmip/client-cas`: which certificates speak for which SVM. Keystead's own resources.

use crate::field::{ANY, Field, Kind, Patch, Post, Rule, Show};
use crate::jobs::time;
use crate::request::{Answer, Request, links, svm};
use crate::resource::{Resource, Values, put};
use crate::select::Selection;
use http::{StatusCode, header};
use keystead_manager::model::{EkmipClient, EkmipClientCa, SvmSelector};
use keystead_manager::{Code, Error, Result};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value as Json, json};

const CLIENTS: &str = "/api/security/ekmip/clients";
const CAS: &str = "/api/security/ekmip/client-cas";

/// PEM has line breaks.
const PEM: Rule = Rule { text: "PEM", holds: |text| text.contains("-----BEGIN ") };

const fn shown(path: &'static str, show: Show, doc: &'static str) -> Field {
    Field { path, kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show, doc }
}

const fn given(path: &'static str, kind: Kind, post: Post, show: Show, doc: &'static str) -> Field {
    Field { path, kind, post, patch: Patch::No, show, doc }
}

/// The `ekmip_client` object.
pub const CLIENT: Resource = Resource {
    path: CLIENTS,
    fields: &[
        shown("uuid", Show::Key, "The identifier."),
        given("svm.uuid", Kind::Uuid, Post::Optional, Show::Key, "The SVM that the certificate speaks for."),
        given("svm.name", Kind::Text(1, 256, ANY), Post::Optional, Show::Key, "Its name."),
        given("common_name", Kind::Text(1, 64, ANY), Post::Required, Show::Key, "The subject's common name."),
        given("csr", Kind::Text(1, 16_384, PEM), Post::Optional, Show::Never, "A certificate signing request, PEM: no key is made then."),
        given(
            "expiry_time",
            Kind::Text(2, 32, ANY),
            Post::Optional,
            Show::Standard,
            "How long it is valid (`P365DT`, the default); shown as the date of its end.",
        ),
        shown("serial_number", Show::Standard, "Hexadecimal."),
        shown("state", Show::Standard, "valid, expiring (within 30 days), expired or revoked."),
    ],
};

/// The `ekmip_client_ca` object.
pub const CLIENT_CA: Resource = Resource {
    path: CAS,
    fields: &[
        shown("uuid", Show::Key, "The identifier."),
        given("svm.uuid", Kind::Uuid, Post::Optional, Show::Key, "The SVM that all certificates of the CA speak for."),
        given("svm.name", Kind::Text(1, 256, ANY), Post::Optional, Show::Key, "Its name."),
        given("certificate", Kind::Text(1, 16_384, PEM), Post::Required, Show::Never, "The CA's certificate, PEM."),
        shown("subject", Show::Standard, "Its subject."),
        shown("expiry_time", Show::Standard, "The date of its end."),
    ],
};

pub async fn list(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&CLIENT, request.query.get("fields"), false)?;
    let records = request.manager.ekmip_clients().iter().filter(|client| request.sees(client.svm.uuid)).map(client_record).collect();
    let with_links = request.links();
    request.collection(&CLIENT, records, |record| Json::Object(project(&selection, CLIENTS, record, with_links)))
}

pub async fn show(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&CLIENT, request.query.get("fields"), true)?;
    let client = visible_client(&request)?;
    Ok(Answer::ok(Json::Object(project(&selection, CLIENTS, &client_record(&client), request.links()))))
}

pub async fn create(request: Request) -> Result<Answer> {
    request.query.check_change(&CLIENT, &[])?;
    let mut values = CLIENT.read_post(request.object()?)?;
    let ignored = std::mem::take(&mut values.ignored);
    let svm = selector(&request, &mut values)?;
    let (common_name, csr, expiry_time) = (values.text("common_name").unwrap_or_default(), values.text("csr"), values.text("expiry_time"));
    let return_records = request.query.flag("return_records", false)?;
    if csr.is_none() && !return_records {
        return Err(Error::with(Code::FieldCombination, "without a csr the private key is made here and shown once: ask for it with return_records=true")
            .target("return_records"));
    }
    let new = request.manager.create_ekmip_client(&request.who, &svm, &common_name, csr, expiry_time).await?;
    let href = format!("{CLIENTS}/{}", new.client.uuid);
    let body = if return_records {
        let mut record = client_record(&new.client);
        put(&mut record, "certificate", json!(new.certificate));
        put(&mut record, "ca_certificate", json!(new.ca_certificate));
        if let Some(key) = &new.private_key {
            put(&mut record, "private_key", json!(key.expose_secret()));
        }
        put(&mut record, "_links", links(&href));
        json!({ "num_records": 1, "records": [record] })
    } else {
        json!({})
    };
    Ok(Answer::new(StatusCode::CREATED, body).header(header::LOCATION, &href).warn_of(&ignored))
}

pub async fn delete(request: Request) -> Result<Answer> {
    request.query.check_change(&CLIENT, &[])?;
    no_body(&request)?;
    let client = visible_client(&request)?;
    request.manager.revoke_ekmip_client(&request.who, client.uuid).await?;
    Ok(Answer::ok(json!({})))
}

pub async fn list_cas(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&CLIENT_CA, request.query.get("fields"), false)?;
    let records = request.manager.ekmip_client_cas().iter().filter(|ca| request.sees(ca.svm.uuid)).map(ca_record).collect();
    let with_links = request.links();
    request.collection(&CLIENT_CA, records, |record| Json::Object(project(&selection, CAS, record, with_links)))
}

pub async fn show_ca(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&CLIENT_CA, request.query.get("fields"), true)?;
    let ca = visible_ca(&request)?;
    Ok(Answer::ok(Json::Object(project(&selection, CAS, &ca_record(&ca), request.links()))))
}

pub async fn create_ca(request: Request) -> Result<Answer> {
    request.query.check_change(&CLIENT_CA, &[])?;
    let mut values = CLIENT_CA.read_post(request.object()?)?;
    let ignored = std::mem::take(&mut values.ignored);
    let svm = selector(&request, &mut values)?;
    let ca = request.manager.install_ekmip_client_ca(&request.who, &svm, &values.text("certificate").unwrap_or_default()).await?;
    let href = format!("{CAS}/{}", ca.uuid);
    let body = if request.query.flag("return_records", false)? {
        let mut record = ca_record(&ca);
        put(&mut record, "_links", links(&href));
        json!({ "num_records": 1, "records": [record] })
    } else {
        json!({})
    };
    Ok(Answer::new(StatusCode::CREATED, body).header(header::LOCATION, &href).warn_of(&ignored))
}

pub async fn delete_ca(request: Request) -> Result<Answer> {
    request.query.check_change(&CLIENT_CA, &[])?;
    no_body(&request)?;
    let ca = visible_ca(&request)?;
    request.manager.delete_ekmip_client_ca(&request.who, ca.uuid).await?;
    Ok(Answer::ok(json!({})))
}

fn selector(request: &Request, values: &mut Values) -> Result<SvmSelector> {
    let (uuid, name) = (values.uuid("svm.uuid"), values.text("svm.name"));
    let (header_uuid, header_name) = request.tunnel()?;
    if uuid.is_none() && name.is_none() && header_uuid.is_none() && header_name.is_none() {
        return Err(Error::with(Code::MissingField, "svm.uuid or svm.name").target("svm.name"));
    }
    Ok(SvmSelector { uuid: uuid.or(header_uuid), name: name.or(header_name) })
}

fn no_body(request: &Request) -> Result<()> {
    match request.object()?.keys().next() {
        Some(name) => Err(Error::with(Code::BodyNotAllowed, name).target(name.as_str())),
        None => Ok(()),
    }
}

fn visible_client(request: &Request) -> Result<EkmipClient> {
    let uuid = request.uuid()?;
    let found = request.manager.ekmip_clients().into_iter().find(|client| client.uuid == uuid && request.sees(client.svm.uuid));
    found.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))
}

fn visible_ca(request: &Request) -> Result<EkmipClientCa> {
    let uuid = request.uuid()?;
    let found = request.manager.ekmip_client_cas().into_iter().find(|ca| ca.uuid == uuid && request.sees(ca.svm.uuid));
    found.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))
}

fn client_record(client: &EkmipClient) -> Map<String, Json> {
    let mut record = Map::new();
    put(&mut record, "uuid", json!(client.uuid));
    put(&mut record, "svm", svm(&client.svm, false));
    put(&mut record, "common_name", json!(client.common_name));
    put(&mut record, "serial_number", json!(client.serial_number));
    put(&mut record, "expiry_time", json!(time(client.expiry)));
    put(&mut record, "state", json!(client.state));
    record
}

fn ca_record(ca: &EkmipClientCa) -> Map<String, Json> {
    let mut record = Map::new();
    put(&mut record, "uuid", json!(ca.uuid));
    put(&mut record, "svm", svm(&ca.svm, false));
    put(&mut record, "subject", json!(ca.subject));
    put(&mut record, "expiry_time", json!(time(ca.expiry)));
    record
}

fn project(selection: &Selection, path: &str, record: &Map<String, Json>, with_links: bool) -> Map<String, Json> {
    let mut shown = selection.project(record);
    if with_links {
        let uuid = record.get("uuid").and_then(Json::as_str).unwrap_or_default();
        put(&mut shown, "_links", links(&format!("{path}/{uuid}")));
    }
    shown
}
