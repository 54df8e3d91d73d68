//! Requests to have a key certified elsewhere. Nothing of them is kept.

use crate::certificates::{CertificateError, CertificateRequest, request};
use crate::security_certificates::refused;
use crate::{Code, Error, Manager, Result};
use rcgen::{DistinguishedName, DnType, ExtendedKeyUsagePurpose};
use secrecy::SecretString;

/// A request that is wanted, in ONTAP's terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedSigningRequest {
    /// The subject, such as `C=US,O=NTAP,CN=test.domain.com`; may be empty where there are other names.
    pub subject_name: String,
    /// `rsa` or `ec`.
    pub algorithm: String,
    /// `sha256`, `sha384` or `sha512`.
    pub hash_function: String,
    /// Bits of security: 112, 128 or 192.
    pub security_strength: u32,
    /// Whether it shall be for a TLS server, and for a TLS client.
    pub usages: (bool, bool),
    /// The names beside the subject; the other members are not looked at.
    pub names: CertificateRequest,
}

impl Manager {
    /// Makes a key and a request for it, PEM. Both are given out here, and kept nowhere.
    ///
    /// # Errors
    /// The codes of certificates; 262247 for a subject that cannot be read; 262212 without any name.
    pub async fn make_signing_request(&self, wanted: WantedSigningRequest) -> Result<(String, SecretString)> {
        if wanted.subject_name.is_empty() && wanted.names.dns_names.is_empty() && wanted.names.ip_addresses.is_empty() {
            return Err(Error::with(Code::MissingField, "subject_name or subject_alternatives").target("subject_name"));
        }
        let subject = subject(&wanted.subject_name).map_err(|why| Error::with(Code::InvalidValue, why).target("subject_name"))?;
        let key_size = key_size(&wanted.algorithm, wanted.security_strength)
            .ok_or_else(|| Error::with(Code::InvalidValue, "it must be 112 or 128; with ec 192 as well").target("security_strength"))?;
        let usages = [(wanted.usages.0, ExtendedKeyUsagePurpose::ServerAuth), (wanted.usages.1, ExtendedKeyUsagePurpose::ClientAuth)];
        let made = CertificateRequest {
            key_type: wanted.algorithm,
            key_size,
            hash_function: wanted.hash_function,
            subject: Some(subject),
            usages: usages.into_iter().filter(|(wanted, _)| *wanted).map(|(_, usage)| usage).collect(),
            ..wanted.names
        };
        let renamed = |error: CertificateError| {
            let error = refused(&error);
            if error.target.as_deref() == Some("key_type") { error.target("algorithm") } else { error }
        };
        let checked = made.check(self.fips()).map_err(renamed)?;
        self.inner().forge.requested(move || request(&checked)).await?.map_err(renamed)
    }
}

/// The key that has at least that many bits of security, and can be made (NIST SP 800-57, table 2). An unknown algorithm is another's to refuse.
fn key_size(algorithm: &str, strength: u32) -> Option<u32> {
    match (algorithm, strength) {
        ("ec", 112 | 128) => Some(256),
        ("ec", 192) => Some(384),
        ("ec", _) | (_, 192) => None,
        (_, 112) => Some(2048),
        (_, 128) => Some(3072),
        _ => None,
    }
}

/// Reads a subject: parts `NAME=value` with commas between them; `\` takes the next character as it is.
fn subject(text: &str) -> std::result::Result<DistinguishedName, String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(next) = characters.next() {
        match (next, parts.last_mut()) {
            (',', _) => parts.push(String::new()),
            ('\\', Some(part)) => part.extend(characters.next()),
            (other, Some(part)) => part.push(other),
            (_, None) => {}
        }
    }
    let mut name = DistinguishedName::new();
    for part in parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()) {
        let (kind, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is no NAME=value"))?;
        let kind = match kind.trim().to_uppercase().as_str() {
            "C" => DnType::CountryName,
            "ST" => DnType::StateOrProvinceName,
            "L" => DnType::LocalityName,
            "O" => DnType::OrganizationName,
            "OU" => DnType::OrganizationalUnitName,
            "CN" => DnType::CommonName,
            other => return Err(format!("{other} is not one of C, ST, L, O, OU and CN")),
        };
        let value = value.trim();
        if value.is_empty() || value.chars().count() > 64 || (kind == DnType::CountryName && value.chars().count() != 2) {
            return Err(format!("{part:?}: 1 to 64 characters are needed, 2 for a country"));
        }
        if name.get(&kind).is_some() {
            return Err(format!("{part:?}: each can be given once"));
        }
        name.push(kind, value);
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_read() {
        let name = subject(r"C=US, O=A\, B,cn=test.domain.com").unwrap();
        assert_eq!(name.get(&DnType::OrganizationName), Some(&"A, B".into()));
        assert_eq!(name.iter().count(), 3);
        assert_eq!(subject("").unwrap().iter().count(), 0);
        for bad in ["x", "CN=", "C=USA", "CN=a,CN=b", "X=y"] {
            assert!(subject(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_strength_makes_the_size() {
        assert_eq!((key_size("rsa", 112), key_size("rsa", 128), key_size("rsa", 192), key_size("ec", 192)), (Some(2048), Some(3072), None, Some(384)));
    }
}
