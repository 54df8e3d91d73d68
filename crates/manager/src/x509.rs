//! What a certificate says, read for people and for rules.

use crate::approved;
use crate::certificates::CertificateError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::net::IpAddr;
use x509_parser::error::X509Error;
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
    /// What FIPS mode has against it.
    weakness: Option<CertificateError>,
    /// Subject and issuer as they stand there.
    subject: Vec<u8>,
    issuer: Vec<u8>,
}

/// Reads a text that holds one certificate in PEM and nothing else that looks like PEM: a private key that comes along must not be kept with what everybody may see. Answers it in the one form in
/// which certificates are kept, without the text around it.
///
/// # Errors
/// A text for the user.
pub fn alone(text: &str) -> Result<(CertificateDer<'static>, Facts, String), String> {
    if text.matches("-----BEGIN ").count() > 1 {
        return Err("one certificate in PEM is needed, and nothing beside it".to_owned());
    }
    let (der, facts) = Facts::of_pem(text)?;
    let pem = pem_of(&der);
    Ok((der, facts, pem))
}

/// The one form of a certificate that was kept, perhaps as it came; empty where it cannot be read.
pub fn kept(pem: &str) -> String {
    CertificateDer::from_pem_slice(pem.as_bytes()).map(|der| pem_of(&der)).unwrap_or_default()
}

/// A certificate as PEM (RFC 7468).
pub fn pem_of(der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// Whether the key of `issuer` has signed a certificate. A signature of a kind that cannot be checked here may be its.
pub fn may_be_signed_by(certificate: &[u8], issuer: &[u8]) -> bool {
    let (Ok((_, certificate)), Ok((_, issuer))) = (X509Certificate::from_der(certificate), X509Certificate::from_der(issuer)) else { return false };
    let unchecked = matches!(issuer.public_key().parsed(), Ok(PublicKey::RSA(rsa)) if approved::rsa_bits(rsa.modulus) < 2048);
    unchecked || matches!(certificate.verify_signature(Some(issuer.public_key())), Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm))
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
            Ok(PublicKey::RSA(rsa)) => ("rsa".to_owned(), approved::rsa_bits(rsa.modulus)),
            Ok(PublicKey::EC(point)) => ("ec".to_owned(), u32::try_from(point.key_size()).unwrap_or_default()),
            Ok(other) => (key.algorithm.algorithm.to_id_string(), u32::try_from(other.key_size()).unwrap_or_default()),
            Err(_) => (key.algorithm.algorithm.to_id_string(), 0),
        };
        let hash_function = hash(&parsed.signature_algorithm.algorithm.to_id_string());
        let mut facts = Self {
            common_name: name(parsed.subject()),
            ca: name(parsed.issuer()),
            serial_number: parsed.raw_serial().iter().skip_while(|byte| **byte == 0).map(|byte| format!("{byte:02X}")).collect(),
            key_type,
            key_size,
            weakness: approved::weakness(&parsed, &hash_function),
            hash_function,
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
        self.is_ca && self.names_issuer_of(other) && !matches!(ids, (Some(own), Some(named)) if own != named)
    }

    /// Whether the name of this one is that of the other's issuer, byte for byte.
    pub fn names_issuer_of(&self, other: &Self) -> bool {
        self.subject == other.issuer
    }

    /// Whether it is its own issuer.
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
    }

    /// What FIPS mode has against it.
    pub fn weakness(&self) -> Option<CertificateError> {
        self.weakness.clone()
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
    fn a_certificate_stands_alone_and_is_kept_in_one_form() {
        let now = Timestamp::now();
        let (ca, other) = (CertificateAuthority::generate("the CA", now).unwrap(), CertificateAuthority::generate("the CA", now).unwrap());
        let pem = ca.certificate_pem();
        let (der, _, kept) = alone(&format!("text\n{}\nmore", pem.replace('\n', "\r\n"))).unwrap();
        assert_eq!((kept.trim(), alone(&kept).unwrap().0), (pem.replace('\r', "").trim(), der.clone()));
        let key = secrecy::ExposeSecret::expose_secret(ca.private_key_pem()).to_owned();
        for beside in [key, pem.to_owned(), "-----BEGIN X KEY-----\nAAAA\n-----END X KEY-----\n".to_owned()] {
            assert!(alone(&format!("{pem}{beside}")).is_err() && alone(&format!("{beside}{pem}")).is_err());
        }
        let (other_der, _) = Facts::of_pem(other.certificate_pem()).unwrap();
        assert!(may_be_signed_by(&der, &der) && !may_be_signed_by(&der, &other_der));
    }
}
