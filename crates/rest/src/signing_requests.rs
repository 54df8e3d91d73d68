//! `POST /security/certificate-signing-request`: a key, and the request to have it certified elsewhere (ONTAP's call).

use crate::certificates::{DEFAULT_HASH, names};
use crate::field::{ANY, Field, Kind, Patch, Post};
use crate::request::{Answer, Request};
use crate::resource::Resource;
use crate::values::Values;
use keystead_manager::signing_requests::WantedSigningRequest;
use keystead_manager::{Code, Error, Result};
use secrecy::ExposeSecret as _;
use serde_json::json;

const fn given(path: &'static str, kind: Kind, doc: &'static str) -> Field<()> {
    Field::hidden(path, kind, Post::Optional, Patch::No, doc)
}

/// The body. ONTAP's own examples spell the usages in two ways.
pub const REQUEST: Resource<()> = Resource {
    name: "security_certificate_signing_request",
    path: "/api/security/certificate-signing-request",
    fields: &[
        given("subject_name", Kind::Text(1, 512, ANY), "Such as `C=US,O=NTAP,CN=test.domain.com`."),
        given("algorithm", Kind::Word(&["rsa", "ec"]), "rsa (the default) or ec."),
        given("hash_function", Kind::Text(1, 32, ANY), "sha256 (the default), sha384 or sha512."),
        given("security_strength", Kind::Word(&["112", "128", "192"]), "Bits of security: 112 (the default) or 128; with ec 192 as well."),
        given("key_usage", Kind::Texts, "digitalsignature."),
        given("key_usages", Kind::Texts, "The same."),
        given("extended_key_usage", Kind::Texts, "serverauth, clientauth."),
        given("extended_key_usages", Kind::Texts, "The same."),
        given("subject_alternatives.dns", Kind::Texts, "DNS names."),
        given("subject_alternatives.email", Kind::Texts, "Mail addresses."),
        given("subject_alternatives.ip", Kind::Texts, "Addresses."),
        given("subject_alternatives.uri", Kind::Texts, "URIs."),
    ],
    order: &[],
    links: &[],
};

pub async fn create(request: Request) -> Result<Answer> {
    let mut values = request.read_post(&REQUEST)?;
    words(&mut values, ["key_usage", "key_usages"], &["digitalsignature"])?;
    let usages = words(&mut values, ["extended_key_usage", "extended_key_usages"], &["serverauth", "clientauth"])?;
    let wanted = WantedSigningRequest {
        subject_name: values.text("subject_name").unwrap_or_default(),
        algorithm: values.text("algorithm").unwrap_or_else(|| "rsa".to_owned()),
        hash_function: values.text("hash_function").unwrap_or_else(|| DEFAULT_HASH.to_owned()),
        security_strength: values.text("security_strength").and_then(|text| text.parse().ok()).unwrap_or(112),
        usages: (usages.iter().any(|usage| usage == "serverauth"), usages.iter().any(|usage| usage == "clientauth")),
        names: names(&mut values)?,
    };
    let (csr, private_key) = request.manager.make_signing_request(wanted).await?;
    Ok(Answer::ok(json!({ "csr": csr, "generated_private_key": private_key.expose_secret() })))
}

/// A list of words, under either spelling.
fn words(values: &mut Values, paths: [&str; 2], known: &[&str]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for path in paths {
        for word in values.texts(path).unwrap_or_default() {
            let word = word.to_lowercase();
            if !known.contains(&word.as_str()) {
                return Err(Error::with(Code::InvalidValue, format!("one of: {}", known.join(", "))).target(path));
            }
            all.push(word);
        }
    }
    Ok(all)
}
