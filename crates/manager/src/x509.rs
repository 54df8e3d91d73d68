//! What a certificate says, read for people and for rules.

use crate::certificates::CertificateError;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::net::IpAddr;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The subject's common name, or the whole subject where it has none.
    pub common_name: String,
    /// The same of the issuer.
    pub ca: String,
    /// Hexadecimal digits.
    pub serial_number: String,
    /// `rsa`, `ec`, or the identifier of another kind.
    pub key_type: String,
    /// Bits; 0 where unknown.
    pub key_size: u32,
    /// The hash of its signature, such as `sha256`; the identifier of the signature where it is none of the usual ones.
    pub hash_function: String,
    /// Up to when it is valid.
    pub expiry: Timestamp,
    /// Whether it is one of a CA.
    pub is_ca: bool,
    /// DNS names.
    pub dns: Vec<String>,
    /// Mail addresses.
    pub emails: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// URIs.
    pub uris: Vec<String>,
    /// The identifier of its key, as openssl prints it.
    pub subject_key_identifier: Option<String>,
    /// The identifier of its issuer's key.
    pub authority_key_identifier: Option<String>,
    /// Subject and issuer as they stand there.
    subject: Vec<u8>,
    issuer: Vec<u8>,
}

impl Facts {
    /// Reads one certificate in PEM.
    ///
    /// # Errors
    /// A text for the user.
    pub fn of_pem(pem: &str) -> Result<(CertificateDer<'static>, Self), String> {
        let mut ders = CertificateDer::pem_slice_iter(pem.as_bytes());
        let der = match (ders.next(), ders.next()) {
            (Some(Ok(der)), None) => der,
            (Some(Ok(_)), Some(_)) => return Err("it holds more than one certificate".to_owned()),
            _ => return Err("one certificate in PEM is needed".to_owned()),
        };
        let facts = Self::of_der(&der)?;
        Ok((der, facts))
    }

    /// Reads a certificate.
    ///
    /// # Errors
    /// A text for the user.
    pub fn of_der(der: &[u8]) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| "the certificate cannot be read".to_owned())?;
        let expiry = Timestamp::from_second(parsed.validity().not_after.timestamp()).map_err(|_| "the end of the certificate cannot be read".to_owned())?;
        let name = |name: &x509_parser::x509::X509Name<'_>| {
            let common = name.iter_common_name().next().and_then(|common| common.as_str().ok()).map(str::to_owned);
            common.unwrap_or_else(|| name.to_string())
        };
        let key = parsed.public_key();
        let (key_type, key_size) = match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => ("rsa".to_owned(), rsa.key_size()),
            Ok(PublicKey::EC(point)) => ("ec".to_owned(), point.key_size()),
            Ok(other) => (key.algorithm.algorithm.to_id_string(), other.key_size()),
            Err(_) => (key.algorithm.algorithm.to_id_string(), 0),
        };
        let mut facts = Self {
            common_name: name(parsed.subject()),
            ca: name(parsed.issuer()),
            serial_number: parsed.raw_serial().iter().skip_while(|byte| **byte == 0).map(|byte| format!("{byte:02X}")).collect(),
            key_type,
            key_size: u32::try_from(key_size).unwrap_or(u32::MAX),
            hash_function: hash(&parsed.signature_algorithm.algorithm.to_id_string()),
            expiry,
            is_ca: parsed.is_ca(),
            dns: Vec::new(),
            emails: Vec::new(),
            addresses: Vec::new(),
            uris: Vec::new(),
            subject_key_identifier: None,
            authority_key_identifier: None,
            subject: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
        };
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => names.general_names.iter().for_each(|name| facts.add(name)),
                ParsedExtension::SubjectKeyIdentifier(id) => facts.subject_key_identifier = Some(colons(id.0)),
                ParsedExtension::AuthorityKeyIdentifier(id) => facts.authority_key_identifier = id.key_identifier.as_ref().map(|id| colons(id.0)),
                _ => {}
            }
        }
        Ok(facts)
    }

    /// Whether the other certificate names this one as its issuer.
    pub fn issued(&self, other: &Self) -> bool {
        let ids = (&self.subject_key_identifier, &other.authority_key_identifier);
        self.is_ca && self.subject == other.issuer && !matches!(ids, (Some(own), Some(named)) if own != named)
    }

    /// Whether it is its own issuer.
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
    }

    /// What FIPS mode has against it.
    pub fn weakness(&self) -> Option<CertificateError> {
        match (self.key_type.as_str(), self.hash_function.as_str()) {
            ("rsa", _) if self.key_size < 2048 => Some(CertificateError::FipsKeySize(self.key_size)),
            (_, "md5" | "sha1") => Some(CertificateError::FipsHash(self.hash_function.clone())),
            _ => None,
        }
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                self.addresses.extend(v4.or_else(|_| v6()).ok());
            }
            _ => {}
        }
    }
}

/// The hash of a signature (RFC 8017, RFC 5758, RFC 8410).
fn hash(signature: &str) -> String {
    let hash = match signature {
        "1.2.840.113549.1.1.4" => "md5",
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => "sha1",
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => "sha224",
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => "sha256",
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => "sha384",
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "1.3.101.112" => "sha512",
        other => other,
    };
    hash.to_owned()
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::{CertificateAuthority, CertificateRequest, create};

    #[test]
    fn a_certificate_says_what_it_was_made_from() {
        let now = Timestamp::now();
        let ca = CertificateAuthority::generate("the CA", now).unwrap();
        let request = CertificateRequest {
            common_name: "leaf".into(),
            key_size: 3072,
            dns_names: vec!["a.example".into()],
            ip_addresses: vec!["::1".parse().unwrap(), "10.0.0.1".parse().unwrap()],
            emails: vec!["a@b.example".into()],
            uris: vec!["http://b.example".into()],
            ..CertificateRequest::default()
        };
        let created = create(&request.check(true).unwrap(), Some(&ca), now).unwrap();
        let (_, facts) = Facts::of_pem(&created.certificate_pem).unwrap();
        assert_eq!((facts.common_name.as_str(), facts.ca.as_str(), facts.key_type.as_str(), facts.key_size), ("leaf", "the CA", "rsa", 3072));
        assert_eq!((facts.serial_number.as_str(), facts.hash_function.as_str()), (created.serial_number.as_str(), "sha256"));
        assert_eq!((facts.dns.len(), facts.addresses.len(), facts.emails.len(), facts.uris.len()), (1, 2, 1, 1));
        assert!(!facts.is_ca && !facts.is_self_signed() && facts.weakness().is_none());
        let (_, issuer) = Facts::of_pem(ca.certificate_pem()).unwrap();
        assert!(issuer.issued(&facts) && issuer.is_ca && issuer.is_self_signed() && !facts.issued(&issuer));
        let (_, other) = Facts::of_pem(CertificateAuthority::generate("the CA", now).unwrap().certificate_pem()).unwrap();
        assert!(!other.issued(&facts), "the same name, another key");
    }

    #[test]
    fn small_keys_and_old_hashes_are_weak() {
        let (_, mut facts) = Facts::of_pem(CertificateAuthority::generate("a", Timestamp::now()).unwrap().certificate_pem()).unwrap();
        (facts.key_type, facts.key_size) = ("rsa".into(), 1024);
        assert_eq!(facts.weakness().map(|weak| weak.code()), Some(3_735_664));
        (facts.key_size, facts.hash_function) = (2048, hash("1.2.840.113549.1.1.5"));
        assert_eq!(facts.weakness().map(|weak| weak.code()), Some(3_735_665));
    }
}
