//! Certificate signing requests (PKCS#10) that others bring.

use crate::approved::{curve, rsa_bits};
use crate::certificates::CertificateError;
use rcgen::{CertificateParams, CertificateSigningRequestParams, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use std::collections::HashSet;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

/// A request that can be certified.
pub(crate) struct Csr {
    /// What it says.
    pub params: CertificateParams,
    /// Its public key. It says itself what it is: the signature of the request may be of another kind than those of the key will be.
    pub key: SubjectPublicKeyInfo,
}

impl Csr {
    /// Reads a request: PEM, with a key of a kind and size that certificates are made with, and a good signature.
    ///
    /// # Errors
    /// 262247 with the target `csr`; 3735664, 3735700.
    pub fn read(pem: &str, fips: bool) -> Result<Self, CertificateError> {
        let wrong = |why: String| CertificateError::Csr(why);
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong("PEM (PKCS#10) is needed".to_owned()))?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|_| wrong("it cannot be read".to_owned()))?;
        let info = &parsed.certification_request_info;
        let key = &info.subject_pki;
        let key_type = key.algorithm.algorithm.to_id_string();
        match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => match rsa_bits(rsa.modulus) {
                2048 | 3072 | 4096 => {}
                small if small < 2048 && fips => return Err(CertificateError::FipsKeySize(small)),
                bits => return Err(CertificateError::KeySize("RSA".to_owned(), bits)),
            },
            Ok(PublicKey::EC(point)) if !matches!(curve(key).as_deref(), Some("1.2.840.10045.3.1.7" | "1.3.132.0.34")) => {
                return Err(CertificateError::KeySize("EC".to_owned(), u32::try_from(point.key_size()).unwrap_or_default()));
            }
            Ok(PublicKey::EC(_)) => {}
            Ok(other) => return Err(CertificateError::KeySize(key_type, u32::try_from(other.key_size()).unwrap_or_default())),
            Err(_) => return Err(wrong("its public key cannot be read".to_owned())),
        }
        let mut seen = HashSet::new();
        if let Some(twice) = info.subject.iter_attributes().find(|attribute| !seen.insert(attribute.attr_type().to_id_string())) {
            return Err(wrong(format!("its subject has the attribute {} twice, which is not supported", twice.attr_type())));
        }
        let read = CertificateSigningRequestParams::from_der(&der).map_err(|error| wrong(format!("a good signature is needed: {error}")))?;
        let key = SubjectPublicKeyInfo::from_der(key.raw).map_err(|error| wrong(format!("its public key is not supported: {error}")))?;
        Ok(Self { params: read.params, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::{CertificateAuthority, CertificateRequest, create};
    use crate::x509::Facts;
    use jiff::Timestamp;

    fn signed(csr: &str, fips: bool) -> Result<Facts, CertificateError> {
        let now = Timestamp::now();
        let request = CertificateRequest { csr: Some(csr.into()), common_name: "x".into(), ..CertificateRequest::default() };
        let created = create(&request.check(fips)?, Some(&CertificateAuthority::generate("a", now)?), now)?;
        Facts::of_der(&created.certificate_der).map_err(CertificateError::Failed)
    }

    #[test]
    fn the_key_says_what_it_is_and_not_the_signature() {
        for (csr, size) in [(include_str!("../tests/data/p256-sha384.csr"), 256), (include_str!("../tests/data/p384-sha256.csr"), 384)] {
            let facts = signed(csr, true).unwrap();
            assert_eq!((facts.key_type.as_str(), facts.key_size, facts.weakness()), ("ec", size, None));
        }
    }

    #[test]
    fn keys_that_are_not_made_here_are_not_certified_here() {
        let refused = |csr: &str, fips: bool| signed(csr, fips).unwrap_err().code();
        assert_eq!(refused(include_str!("../tests/data/ed25519.csr"), false), 3_735_700);
        assert_eq!(refused(include_str!("../tests/data/rsa2304.csr"), false), 3_735_700);
        let small = include_str!("../tests/data/rsa1024.csr");
        assert_eq!((refused(small, false), refused(small, true)), (3_735_700, 3_735_664));
        assert_eq!(refused(include_str!("../tests/data/two-ou.csr"), false), 262_247, "one attribute twice");
        assert_eq!(refused("-----BEGIN CERTIFICATE REQUEST-----\nx", false), 262_247);
        // A signature that is not the key's.
        let good = include_str!("../tests/data/p256-sha384.csr");
        let at = good.len() - 60;
        let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
        assert_eq!(refused(&format!("{}{other}{}", &good[..at], &good[at + 1..]), false), 262_247);
    }
}
