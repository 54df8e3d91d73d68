//! `/security/certificates`: certificates that are made here, signed here, or installed (ONTAP's resource).

use crate::field::{ANY, Field, Kind, Patch, Post, Rule, Show};
use crate::jobs::time;
use crate::request::{Answer, Request, links, svm};
use crate::resource::{Resource, Values, put};
use crate::select::Selection;
use http::{StatusCode, header};
use keystead_manager::certificates::CertificateRequest;
use keystead_manager::model::{Role, SvmSelector};
use keystead_manager::security_certificates::{Certificate, InstalledCertificate};
use keystead_manager::{Code, Error, Result};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value as Json, json};
use std::net::IpAddr;

const PATH: &str = "/api/security/certificates";
/// The longest certificate, request or key, in characters.
const MAX_PEM: usize = 32_768;
/// How many alternative names of a kind a certificate can have.
const MAX_NAMES: usize = 100;
pub(crate) const DEFAULT_HASH: &str = "sha256";
const DEFAULT_EXPIRY: &str = "P365DT";

/// PEM has line breaks.
const PEM: Rule = Rule { text: "PEM", holds: |text| text.contains("-----BEGIN ") };

const fn shown(path: &'static str, show: Show, doc: &'static str) -> Field {
    Field { path, kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show, doc }
}

const fn given(path: &'static str, kind: Kind, post: Post, show: Show, doc: &'static str) -> Field {
    Field { path, kind, post, patch: Patch::No, show, doc }
}

/// The `security_certificate` object.
pub const CERTIFICATE: Resource = Resource {
    path: PATH,
    fields: &[
        shown("uuid", Show::Key, "The identifier."),
        given("name", Kind::Text(1, 256, ANY), Post::Optional, Show::Key, "Unique in the SVM; made from common name and serial number by default."),
        given("svm.uuid", Kind::Uuid, Post::Optional, Show::Key, "The SVM; none for a certificate of the cluster."),
        given("svm.name", Kind::Text(1, 256, ANY), Post::Optional, Show::Key, "Its name."),
        given("scope", Kind::Word(&["svm", "cluster"]), Post::Optional, Show::Standard, "svm or cluster."),
        given(
            "type",
            Kind::Text(1, 64, ANY),
            Post::Required,
            Show::Standard,
            "client, server, client_ca, server_ca or root_ca; client_ca and server_ca are only installed.",
        ),
        given("common_name", Kind::Text(1, 64, ANY), Post::Optional, Show::Standard, "The subject's common name; required to make a certificate."),
        given("serial_number", Kind::Text(1, 128, ANY), Post::Optional, Show::Standard, "Hexadecimal; made by the cluster."),
        given("subtype", Kind::Text(1, 64, ANY), Post::Optional, Show::Never, "No certificate with a subtype can be made."),
        shown("ca", Show::Standard, "The issuer's common name."),
        given("algorithm", Kind::Text(1, 16, ANY), Post::Optional, Show::Standard, "rsa (the default) or ec."),
        given(
            "key_size",
            Kind::Integer(1, 100_000),
            Post::Optional,
            Show::Standard,
            "Bits: RSA 2048 (the default), 3072 or 4096; EC 256 (the default) or 384.",
        ),
        given("hash_function", Kind::Text(1, 32, ANY), Post::Optional, Show::Standard, "sha256 (the default), sha384 or sha512."),
        given(
            "expiry_time",
            Kind::Text(2, 64, ANY),
            Post::Optional,
            Show::Standard,
            "How long it is valid (`P365DT`, the default), or its end; shown as the date of its end.",
        ),
        given("public_certificate", Kind::Text(1, MAX_PEM, PEM), Post::Optional, Show::Standard, "PEM; given: it is installed, not made."),
        given("intermediate_certificates", Kind::Texts, Post::Optional, Show::Standard, "PEM, those between it and its root."),
        given("private_key", Kind::Secret(MAX_PEM), Post::Optional, Show::Never, "PEM; shown once, where it is made here and return_records=true."),
        given("subject_alternatives.dns", Kind::Texts, Post::Optional, Show::Standard, "DNS names."),
        given("subject_alternatives.email", Kind::Texts, Post::Optional, Show::Standard, "Mail addresses."),
        given("subject_alternatives.ip", Kind::Texts, Post::Optional, Show::Standard, "Addresses."),
        given("subject_alternatives.uri", Kind::Texts, Post::Optional, Show::Standard, "URIs."),
        shown("subject_key_identifier", Show::Standard, "The identifier of its key."),
        shown("authority_key_identifier", Show::Standard, "The identifier of its issuer's key."),
        given(
            "keystead.ca",
            Kind::Text(1, 256, ANY),
            Post::Optional,
            Show::Never,
            "The root_ca that signs it, by uuid or name; by default it is signed by itself.",
        ),
    ],
};

/// The body of `sign`.
const SIGN: Resource = Resource {
    path: PATH,
    fields: &[
        given("signing_request", Kind::Text(1, MAX_PEM, PEM), Post::Required, Show::Never, "PEM (PKCS#10)."),
        given("hash_function", Kind::Text(1, 32, ANY), Post::Optional, Show::Never, "sha256 (the default), sha384 or sha512."),
        given("expiry_time", Kind::Text(2, 64, ANY), Post::Optional, Show::Never, "How long it is valid; `P365DT` by default."),
        shown("public_certificate", Show::Standard, "The certificate, PEM."),
    ],
};

pub async fn list(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&CERTIFICATE, request.query.get("fields"), false)?;
    let records = request.manager.certificates().iter().filter(|certificate| sees(&request, certificate)).map(record).collect();
    let with_links = request.links();
    request.collection(&CERTIFICATE, records, |record| Json::Object(project(&selection, record, with_links)))
}

pub async fn show(request: Request) -> Result<Answer> {
    let selection = Selection::parse(&CERTIFICATE, request.query.get("fields"), true)?;
    let certificate = visible(&request)?;
    Ok(Answer::ok(Json::Object(project(&selection, &record(&certificate), request.links()))))
}

pub async fn create(request: Request) -> Result<Answer> {
    request.query.check_change(&CERTIFICATE, &[])?;
    let mut values = CERTIFICATE.read_post(request.object()?)?;
    let mut ignored = std::mem::take(&mut values.ignored);
    let svm = owner(&request, &mut values)?;
    let (name, kind) = (values.text("name"), values.text("type").unwrap_or_default());
    let (certificate, private_key) = match values.text("public_certificate") {
        Some(public_certificate) => {
            let new = InstalledCertificate {
                kind,
                certificate: public_certificate,
                intermediates: values.texts("intermediate_certificates").unwrap_or_default(),
                private_key: values.secret("private_key"),
            };
            // What the certificate says by itself, and says otherwise, perhaps.
            let said = ["common_name", "serial_number", "subtype", "algorithm", "key_size", "hash_function", "expiry_time", "subject_alternatives", "keystead"];
            ignored.extend(said.into_iter().filter(|field| values.has_any(&[field])));
            (request.manager.install_certificate(&request.who, svm.as_ref(), name, new).await?, None)
        }
        None => {
            for path in ["private_key", "intermediate_certificates"] {
                if values.has(path) {
                    return Err(Error::with(Code::MissingField, format!("public_certificate, to which {path} belongs")).target("public_certificate"));
                }
            }
            let ca = values.text("keystead.ca");
            let wanted = wanted(kind, &mut values)?;
            let made = request.manager.create_certificate(&request.who, svm.as_ref(), name, wanted, ca.as_deref()).await.map_err(renamed)?;
            (made.certificate, made.private_key)
        }
    };
    let href = format!("{PATH}/{}", certificate.uuid);
    let body = if request.query.flag("return_records", false)? { created(&certificate, private_key.as_ref(), &href) } else { json!({}) };
    Ok(Answer::new(StatusCode::CREATED, body).header(header::LOCATION, &href).warn_of(&ignored))
}

pub async fn delete(request: Request) -> Result<Answer> {
    request.query.check_change(&CERTIFICATE, &[])?;
    if let Some(name) = request.object()?.keys().next() {
        return Err(Error::with(Code::BodyNotAllowed, name).target(name.as_str()));
    }
    let certificate = visible(&request)?;
    request.manager.delete_certificate(&request.who, certificate.uuid).await?;
    Ok(Answer::ok(json!({})))
}

pub async fn sign(request: Request) -> Result<Answer> {
    request.query.check_change(&SIGN, &[])?;
    let mut values = SIGN.read_post(request.object()?)?;
    let ignored = std::mem::take(&mut values.ignored);
    let ca = visible(&request)?;
    let hash = values.text("hash_function").unwrap_or_else(|| DEFAULT_HASH.to_owned());
    let expiry = values.text("expiry_time").unwrap_or_else(|| DEFAULT_EXPIRY.to_owned());
    let csr = values.text("signing_request").unwrap_or_default();
    let certificate = request.manager.sign_certificate(&request.who, ca.uuid, &csr, &hash, &expiry).await?;
    Ok(Answer::ok(json!({ "public_certificate": certificate })).warn_of(&ignored))
}

/// What a POST asks to be made. Nothing of it is checked here: the function that makes certificates does that, for everybody.
fn wanted(kind: String, values: &mut Values) -> Result<CertificateRequest> {
    let default = CertificateRequest::default();
    let key_type = values.text("algorithm").map_or(default.key_type, |text| text.to_lowercase());
    let key_size = values.number("key_size").unwrap_or(if key_type == "ec" { 256 } else { default.key_size });
    let wanted = CertificateRequest {
        kind,
        common_name: values.text("common_name").unwrap_or_default(),
        key_type,
        key_size,
        hash_function: values.text("hash_function").unwrap_or(default.hash_function),
        expiry_time: values.text("expiry_time").unwrap_or(default.expiry_time),
        subtype: values.text("subtype"),
        serial_number: values.text("serial_number"),
        ..names(values)?
    };
    if wanted.common_name.is_empty() {
        return Err(Error::with(Code::MissingField, "common_name").target("common_name"));
    }
    Ok(wanted)
}

/// A request with the alternative names of a body, and nothing else.
pub(crate) fn names(values: &mut Values) -> Result<CertificateRequest> {
    let mut names = |path: &str| -> Result<Vec<String>> {
        let names = values.texts(path).unwrap_or_default();
        if names.len() > MAX_NAMES {
            return Err(Error::with(Code::OutOfBounds, format!("at most {MAX_NAMES}")).target(path));
        }
        Ok(names)
    };
    let (dns_names, emails, uris) = (names("subject_alternatives.dns")?, names("subject_alternatives.email")?, names("subject_alternatives.uri")?);
    let addresses = names("subject_alternatives.ip")?.iter().map(|text| text.parse()).collect::<std::result::Result<Vec<IpAddr>, _>>();
    let ip_addresses = addresses.map_err(|_| Error::with(Code::InvalidValue, "IP addresses are needed").target("subject_alternatives.ip"))?;
    Ok(CertificateRequest { dns_names, ip_addresses, uris, emails, ..CertificateRequest::default() })
}

/// ONTAP has another name for the kind of key than the template of EKMIP certificates.
fn renamed(error: Error) -> Error {
    if error.target.as_deref() == Some("key_type") { error.target("algorithm") } else { error }
}

/// Whose the certificate shall be. Without a word of it: an SVM administrator's own SVM's, else the cluster's.
fn owner(request: &Request, values: &mut Values) -> Result<Option<SvmSelector>> {
    let (uuid, name, scope) = (values.uuid("svm.uuid"), values.text("svm.name"), values.text("scope"));
    let (header_uuid, header_name) = request.tunnel()?;
    let own = match request.who.role {
        Role::Vsadmin { svm } => Some(svm),
        Role::Admin | Role::Readonly => None,
    };
    let (uuid, name) = (uuid.or(header_uuid), name.or(header_name));
    match (uuid.is_none() && name.is_none(), scope.as_deref()) {
        (true, Some("svm")) if own.is_none() => Err(Error::with(Code::MissingField, "svm.uuid or svm.name").target("svm.name")),
        (true, Some("cluster")) => Ok(None),
        (true, _) => Ok(own.map(|svm| SvmSelector { uuid: Some(svm), name: None })),
        (false, Some("cluster")) => Err(Error::with(Code::FieldCombination, "a certificate of the cluster has no SVM").target("scope")),
        (false, _) => Ok(Some(SvmSelector { uuid, name })),
    }
}

fn sees(request: &Request, certificate: &Certificate) -> bool {
    match &certificate.svm {
        Some(svm) => request.sees(svm.uuid),
        None => !matches!(request.who.role, Role::Vsadmin { .. }),
    }
}

fn visible(request: &Request) -> Result<Certificate> {
    let uuid = request.uuid()?;
    let found = request.manager.certificates().into_iter().find(|certificate| certificate.uuid == uuid && sees(request, certificate));
    found.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))
}

fn created(certificate: &Certificate, private_key: Option<&SecretString>, href: &str) -> Json {
    let mut record = record(certificate);
    if let Some(key) = private_key {
        put(&mut record, "private_key", json!(key.expose_secret()));
    }
    put(&mut record, "_links", links(href));
    json!({ "num_records": 1, "records": [record] })
}

fn record(certificate: &Certificate) -> Map<String, Json> {
    let facts = &certificate.facts;
    let mut record = Map::new();
    put(&mut record, "uuid", json!(certificate.uuid));
    put(&mut record, "name", json!(certificate.name));
    if let Some(owner) = &certificate.svm {
        put(&mut record, "svm", svm(owner, false));
    }
    put(&mut record, "scope", json!(if certificate.svm.is_some() { "svm" } else { "cluster" }));
    put(&mut record, "type", json!(certificate.kind));
    put(&mut record, "common_name", json!(facts.common_name));
    put(&mut record, "serial_number", json!(facts.serial_number));
    put(&mut record, "ca", json!(facts.ca));
    put(&mut record, "algorithm", json!(facts.key_type));
    put(&mut record, "key_size", json!(facts.key_size));
    put(&mut record, "hash_function", json!(facts.hash_function));
    put(&mut record, "expiry_time", json!(time(facts.expiry)));
    put(&mut record, "public_certificate", json!(certificate.certificate));
    let addresses: Vec<String> = facts.addresses.iter().map(IpAddr::to_string).collect();
    let lists = [
        ("intermediate_certificates", &certificate.intermediates),
        ("subject_alternatives.dns", &facts.dns),
        ("subject_alternatives.email", &facts.emails),
        ("subject_alternatives.ip", &addresses),
        ("subject_alternatives.uri", &facts.uris),
    ];
    for (path, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        put(&mut record, path, json!(list));
    }
    for (path, id) in [("subject_key_identifier", &facts.subject_key_identifier), ("authority_key_identifier", &facts.authority_key_identifier)] {
        if let Some(id) = id {
            put(&mut record, path, json!(id));
        }
    }
    record
}

fn project(selection: &Selection, record: &Map<String, Json>, with_links: bool) -> Map<String, Json> {
    let mut shown = selection.project(record);
    if with_links {
        let uuid = record.get("uuid").and_then(Json::as_str).unwrap_or_default();
        put(&mut shown, "_links", links(&format!("{PATH}/{uuid}")));
    }
    shown
}
