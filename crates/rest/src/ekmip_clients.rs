//! `/security/ekmip/clients` and `/security/ekmip/client-cas`: which certificates speak for which SVM. Keystead's own resources.

use crate::collection::One;
use crate::collection::cell::Cell;
use crate::field::{ANY, As, Field, Kind, Patch, Post, Rule, Show, Spec};
use crate::request::{Answer, Request, svm_path};
use crate::resource::{Link, Resource, put};
use crate::values::Values;
use http::{StatusCode, header};
use keystead_manager::model::{EkmipClient, EkmipClientCa, SvmSelector};
use keystead_manager::{Code, Error, Result};
use secrecy::ExposeSecret as _;
use serde_json::json;

const CLIENTS: &str = "/api/security/ekmip/clients";
const CAS: &str = "/api/security/ekmip/client-cas";

/// PEM has line breaks.
const PEM: Rule = Rule { text: "PEM", holds: |text| text.contains("-----BEGIN ") };

const fn given<T>(path: &'static str, kind: Kind, post: Post, show: Show, get: for<'a> fn(&'a T) -> Cell<'a>, doc: &'static str) -> Field<T> {
    Field::given(Spec { path, kind, post, patch: Patch::No, show, doc }, get)
}

/// The `ekmip_client` object.
pub const CLIENT: Resource<EkmipClient> = Resource {
    name: "ekmip_client",
    path: CLIENTS,
    fields: &[
        Field::shown("uuid", As::Uuid, Show::Key, |client| Cell::Uuid(client.uuid), "The identifier."),
        given("svm.uuid", Kind::Uuid, Post::Optional, Show::Key, |client| Cell::Uuid(client.svm.uuid), "The SVM that the certificate speaks for."),
        given("svm.name", Kind::Text(1, 256, ANY), Post::Optional, Show::Key, |client| Cell::text(&client.svm.name), "Its name."),
        given("common_name", Kind::Text(1, 64, ANY), Post::Required, Show::Key, |client| Cell::text(&client.common_name), "The subject's common name."),
        Field::hidden("csr", Kind::Text(1, 16_384, PEM), Post::Optional, Patch::No, "A certificate signing request, PEM: no key is made then."),
        given(
            "expiry_time",
            Kind::Lifetime(32),
            Post::Optional,
            Show::Standard,
            |client| Cell::time(client.expiry),
            "How long it is valid (`P365DT`, the default); shown as the date of its end.",
        ),
        Field::shown("serial_number", As::Text, Show::Standard, |client| Cell::text(&client.serial_number), "Hexadecimal."),
        Field::shown(
            "state",
            As::Word(&["valid", "expiring", "expired", "revoked"]),
            Show::Standard,
            |client| Cell::text(client.state),
            "valid, expiring (within 30 days), expired or revoked.",
        ),
    ],
    order: &[("uuid", false)],
    links: &[Link { at: "", href: |client| Some(format!("{CLIENTS}/{}", client.uuid)) }, Link { at: "svm", href: |client| Some(svm_path(client.svm.uuid)) }],
};

/// The `ekmip_client_ca` object.
pub const CLIENT_CA: Resource<EkmipClientCa> = Resource {
    name: "ekmip_client_ca",
    path: CAS,
    fields: &[
        Field::shown("uuid", As::Uuid, Show::Key, |ca| Cell::Uuid(ca.uuid), "The identifier."),
        given("svm.uuid", Kind::Uuid, Post::Optional, Show::Key, |ca| Cell::Uuid(ca.svm.uuid), "The SVM that all certificates of the CA speak for."),
        given("svm.name", Kind::Text(1, 256, ANY), Post::Optional, Show::Key, |ca| Cell::text(&ca.svm.name), "Its name."),
        Field::hidden("certificate", Kind::Text(1, 16_384, PEM), Post::Required, Patch::No, "The CA's certificate, PEM."),
        Field::shown("subject", As::Text, Show::Standard, |ca| Cell::text(&ca.subject), "Its subject."),
        Field::shown("expiry_time", As::Time, Show::Standard, |ca| Cell::time(ca.expiry), "The date of its end."),
    ],
    order: &[("uuid", false)],
    links: &[Link { at: "", href: |ca| Some(format!("{CAS}/{}", ca.uuid)) }, Link { at: "svm", href: |ca| Some(svm_path(ca.svm.uuid)) }],
};

pub async fn list(request: Request) -> Result<Answer> {
    request.list(&CLIENT, request.manager.ekmip_clients().into_iter().filter(|client| request.sees(client.svm.uuid)))
}

pub async fn show(request: Request) -> Result<Answer> {
    request.one(&CLIENT, &visible_client(&request)?)
}

pub async fn create(request: Request) -> Result<Answer> {
    let mut values = request.read_post(&CLIENT)?;
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
        let mut record = One::whole(&CLIENT).record(&new.client);
        put(&mut record, "certificate", json!(new.certificate));
        put(&mut record, "ca_certificate", json!(new.ca_certificate));
        if let Some(key) = &new.private_key {
            put(&mut record, "private_key", json!(key.expose_secret()));
        }
        json!({ "num_records": 1, "records": [record] })
    } else {
        json!({})
    };
    Ok(Answer::new(StatusCode::CREATED, body).header(header::LOCATION, &href).warn_of(&ignored))
}

pub async fn delete(request: Request) -> Result<Answer> {
    request.no_body(&CLIENT)?;
    let client = visible_client(&request)?;
    request.manager.revoke_ekmip_client(&request.who, client.uuid).await?;
    Ok(Answer::ok(json!({})))
}

pub async fn list_cas(request: Request) -> Result<Answer> {
    request.list(&CLIENT_CA, request.manager.ekmip_client_cas().into_iter().filter(|ca| request.sees(ca.svm.uuid)))
}

pub async fn show_ca(request: Request) -> Result<Answer> {
    request.one(&CLIENT_CA, &visible_ca(&request)?)
}

pub async fn create_ca(request: Request) -> Result<Answer> {
    let mut values = request.read_post(&CLIENT_CA)?;
    let ignored = std::mem::take(&mut values.ignored);
    let svm = selector(&request, &mut values)?;
    let ca = request.manager.install_ekmip_client_ca(&request.who, &svm, &values.text("certificate").unwrap_or_default()).await?;
    let href = format!("{CAS}/{}", ca.uuid);
    let body = if request.query.flag("return_records", false)? {
        let record = One::whole(&CLIENT_CA).record(&ca);
        json!({ "num_records": 1, "records": [record] })
    } else {
        json!({})
    };
    Ok(Answer::new(StatusCode::CREATED, body).header(header::LOCATION, &href).warn_of(&ignored))
}

pub async fn delete_ca(request: Request) -> Result<Answer> {
    request.no_body(&CLIENT_CA)?;
    let ca = visible_ca(&request)?;
    request.manager.delete_ekmip_client_ca(&request.who, ca.uuid).await?;
    Ok(Answer::ok(json!({})))
}

fn selector(request: &Request, values: &mut Values) -> Result<SvmSelector> {
    let svm = request.selector(values.uuid("svm.uuid"), values.text("svm.name"), "svm")?;
    svm.ok_or_else(|| Error::with(Code::MissingField, "svm.uuid or svm.name").target("svm.name"))
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
