//! `/security/certificates`: certificates that are made here, signed here, or installed (ONTAP's resource).

use crate::collection::One;
use crate::collection::cell::Cell;
use crate::field::{ANY, As, Field, Kind, Patch, Post, Rule, Show, Spec};
use crate::request::{Answer, Request, svm_path};
use crate::resource::{Link, Resource, put};
use crate::values::Values;
use http::{StatusCode, header};
use keystead_manager::certificates::CertificateRequest;
use keystead_manager::model::{Role, SvmSelector};
use keystead_manager::security_certificates::{Certificate, InstalledCertificate};
use keystead_manager::{Code, Error, Result};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value as Json, json};
use std::borrow::Cow;
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

type Get = for<'a> fn(&'a Certificate) -> Cell<'a>;

const fn shown(path: &'static str, of: As, show: Show, get: Get, doc: &'static str) -> Field<Certificate> {
    Field::shown(path, of, show, get, doc)
}

const fn given(path: &'static str, kind: Kind, show: Show, get: Get, doc: &'static str) -> Field<Certificate> {
    Field::given(Spec { path, kind, post: Post::Optional, patch: Patch::No, show, doc }, get)
}

const fn hidden<T>(path: &'static str, kind: Kind, post: Post, doc: &'static str) -> Field<T> {
    Field::hidden(path, kind, post, Patch::No, doc)
}

/// The `security_certificate` object.
pub const CERTIFICATE: Resource<Certificate> = Resource {
    name: "security_certificate",
    path: PATH,
    fields: &[
        shown("uuid", As::Uuid, Show::Key, |c| Cell::Uuid(c.uuid), "The identifier."),
        given("name", Kind::Text(1, 256, ANY), Show::Key, |c| Cell::text(&c.name), "Unique in the SVM; made from common name and serial number by default."),
        given(
            "svm.uuid",
            Kind::Uuid,
            Show::Key,
            |c| c.svm.as_ref().map_or(Cell::Null, |svm| Cell::Uuid(svm.uuid)),
            "The SVM; none for a certificate of the cluster.",
        ),
        given("svm.name", Kind::Text(1, 256, ANY), Show::Key, |c| Cell::maybe(c.svm.as_ref().map(|svm| &svm.name)), "Its name."),
        given("scope", Kind::Word(&["svm", "cluster"]), Show::Standard, |c| Cell::text(if c.svm.is_some() { "svm" } else { "cluster" }), "svm or cluster."),
        Field::given(
            Spec {
                path: "type",
                kind: Kind::Text(1, 64, ANY),
                post: Post::Required,
                patch: Patch::No,
                show: Show::Standard,
                doc: "client, server, client_ca, server_ca or root_ca; client_ca and server_ca are only installed.",
            },
            |c| Cell::text(&c.kind),
        ),
        given(
            "common_name",
            Kind::Text(1, 64, ANY),
            Show::Standard,
            |c| Cell::text(&c.facts.common_name),
            "The subject's common name; required to make a certificate.",
        ),
        given("serial_number", Kind::Text(1, 128, ANY), Show::Standard, |c| Cell::text(&c.facts.serial_number), "Hexadecimal; made by the cluster."),
        hidden("subtype", Kind::Text(1, 64, ANY), Post::Optional, "No certificate with a subtype can be made."),
        shown("ca", As::Text, Show::Standard, |c| Cell::text(&c.facts.ca), "The issuer's common name."),
        given("algorithm", Kind::Text(1, 16, ANY), Show::Standard, |c| Cell::text(&c.facts.key_type), "rsa (the default) or ec."),
        given(
            "key_size",
            Kind::Integer(1, 100_000),
            Show::Standard,
            |c| Cell::number(c.facts.key_size),
            "Bits: RSA 2048 (the default), 3072 or 4096; EC 256 (the default) or 384.",
        ),
        given("hash_function", Kind::Text(1, 32, ANY), Show::Standard, |c| Cell::text(&c.facts.hash_function), "sha256 (the default), sha384 or sha512."),
        given(
            "expiry_time",
            Kind::Lifetime(64),
            Show::Standard,
            |c| Cell::time(c.facts.expiry),
            "How long it is valid (`P365DT`, the default), or its end; shown as the date of its end.",
        ),
        given("public_certificate", Kind::Text(1, MAX_PEM, PEM), Show::Standard, |c| Cell::text(&c.certificate), "PEM; given: it is installed, not made."),
        given("intermediate_certificates", Kind::Texts, Show::Standard, |c| Cell::texts(&c.intermediates), "PEM, those between it and its root."),
        hidden("private_key", Kind::Secret(MAX_PEM), Post::Optional, "PEM; shown once, where it is made here and return_records=true."),
        given("subject_alternatives.dns", Kind::Texts, Show::Standard, |c| Cell::texts(&c.facts.dns), "DNS names."),
        given("subject_alternatives.email", Kind::Texts, Show::Standard, |c| Cell::texts(&c.facts.emails), "Mail addresses."),
        given("subject_alternatives.ip", Kind::Texts, Show::Standard, addresses, "Addresses."),
        given("subject_alternatives.uri", Kind::Texts, Show::Standard, |c| Cell::texts(&c.facts.uris), "URIs."),
        shown("subject_key_identifier", As::Text, Show::Standard, |c| Cell::maybe(c.facts.subject_key_identifier.as_ref()), "The identifier of its key."),
        shown(
            "authority_key_identifier",
            As::Text,
            Show::Standard,
            |c| Cell::maybe(c.facts.authority_key_identifier.as_ref()),
            "The identifier of its issuer's key.",
        ),
        hidden("keystead.ca", Kind::Text(1, 256, ANY), Post::Optional, "The root_ca that signs it, by uuid or name; by default it is signed by itself."),
    ],
    order: &[("uuid", false)],
    links: &[Link { at: "", href: |c| Some(format!("{PATH}/{}", c.uuid)) }, Link { at: "svm", href: |c| c.svm.as_ref().map(|svm| svm_path(svm.uuid)) }],
};

/// The body of `sign`.
pub const SIGN: Resource<()> = Resource {
    name: "security_certificate_sign",
    path: PATH,
    fields: &[
        hidden("signing_request", Kind::Text(1, MAX_PEM, PEM), Post::Required, "PEM (PKCS#10)."),
        hidden("hash_function", Kind::Text(1, 32, ANY), Post::Optional, "sha256 (the default), sha384 or sha512."),
        hidden("expiry_time", Kind::Text(2, 64, ANY), Post::Optional, "How long it is valid; `P365DT` by default."),
        Field::shown("public_certificate", As::Text, Show::Standard, |()| Cell::Null, "The certificate, PEM."),
    ],
    order: &[],
    links: &[],
};

pub async fn list(request: Request) -> Result<Answer> {
    request.list(&CERTIFICATE, request.manager.certificates().into_iter().filter(|certificate| sees(&request, certificate)))
}

pub async fn show(request: Request) -> Result<Answer> {
    request.one(&CERTIFICATE, &visible(&request)?)
}

pub async fn create(request: Request) -> Result<Answer> {
    let mut values = request.read_post(&CERTIFICATE)?;
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
    let body = if request.query.flag("return_records", false)? { created(&certificate, private_key.as_ref()) } else { json!({}) };
    Ok(Answer::new(StatusCode::CREATED, body).header(header::LOCATION, &href).warn_of(&ignored))
}

pub async fn delete(request: Request) -> Result<Answer> {
    request.no_body(&CERTIFICATE)?;
    let certificate = visible(&request)?;
    request.manager.delete_certificate(&request.who, certificate.uuid).await?;
    Ok(Answer::ok(json!({})))
}

pub async fn sign(request: Request) -> Result<Answer> {
    let mut values = request.read_post(&SIGN)?;
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
    let svm = request.selector(values.uuid("svm.uuid"), values.text("svm.name"), "svm")?;
    let own = match request.who.role {
        Role::Vsadmin { svm } => Some(svm),
        Role::Admin | Role::Readonly => None,
    };
    match (svm, values.text("scope").as_deref()) {
        (None, Some("svm")) if own.is_none() => Err(Error::with(Code::MissingField, "svm.uuid or svm.name").target("svm.name")),
        (None, Some("cluster")) => Ok(None),
        (None, _) => Ok(own.map(|svm| SvmSelector { uuid: Some(svm), name: None })),
        (Some(_), Some("cluster")) => Err(Error::with(Code::FieldCombination, "a certificate of the cluster has no SVM").target("scope")),
        (svm, _) => Ok(svm),
    }
}

fn sees(request: &Request, certificate: &Certificate) -> bool {
    match &certificate.svm {
        Some(svm) => request.sees(svm.uuid),
        None => request.sees_cluster(),
    }
}

fn visible(request: &Request) -> Result<Certificate> {
    let uuid = request.uuid()?;
    request.manager.certificate(uuid).ok().filter(|certificate| sees(request, certificate)).ok_or_else(|| Error::new(Code::NotFound).target("uuid"))
}

/// The whole record, also where plain JSON is accepted: the key is shown this once.
fn created(certificate: &Certificate, private_key: Option<&SecretString>) -> Json {
    let mut record = One::whole(&CERTIFICATE).record(certificate);
    if let Some(key) = private_key {
        put(&mut record, "private_key", json!(key.expose_secret()));
    }
    json!({ "num_records": 1, "records": [record] })
}

fn addresses(certificate: &Certificate) -> Cell<'_> {
    let texts: Vec<String> = certificate.facts.addresses.iter().map(IpAddr::to_string).collect();
    if texts.is_empty() { Cell::Null } else { Cell::Texts(Cow::Owned(texts)) }
}
