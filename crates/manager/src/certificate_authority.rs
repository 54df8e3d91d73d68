//! A CA whose key is here, and which signs.

use crate::certificates::{CertificateError, CertificateRequest, create, make_ca, params};
use crate::x509::{Facts, may_be_signed_by};
use jiff::{SignedDuration, Timestamp};
use rcgen::{Issuer, KeyPair, SignatureAlgorithm};
use rustls_pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};

/// How long a CA of our own is valid.
const AUTHORITY_YEARS: i64 = 20;

/// A CA that signs.
pub struct CertificateAuthority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    certificate: String,
    private_key: SecretString,
    der: CertificateDer<'static>,
    facts: Facts,
}

impl CertificateAuthority {
    /// Makes a CA: EC P-256, 20 years. Each connection of a client checks two of its signatures, and those of P-384 take several times as long (docs/decisions/0009-client-cas.md).
    ///
    /// # Errors
    /// [`CertificateError::Failed`].
    pub fn generate(common_name: &str, now: Timestamp) -> Result<Self, CertificateError> {
        let failed = |error: rcgen::Error| CertificateError::Failed(error.to_string());
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let expiry = now.checked_add(SignedDuration::from_hours(AUTHORITY_YEARS * 365 * 24)).map_err(|error| CertificateError::Failed(error.to_string()))?;
        let mut params = params(common_name, now, expiry)?;
        make_ca(&mut params);
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        let private_key = SecretString::from(key.serialize_pem());
        Self::from_pem(&certificate, &private_key)
    }

    /// Reads a CA back.
    ///
    /// # Errors
    /// [`CertificateError::Issuer`].
    pub fn from_pem(certificate: &str, private_key: &SecretString) -> Result<Self, CertificateError> {
        Self::signing_with(certificate, private_key, "sha256")
    }

    /// Reads a CA back, to sign with this hash. Only RSA keys leave a choice: the hash of an ECDSA signature goes with the curve.
    ///
    /// # Errors
    /// [`CertificateError::Issuer`].
    pub fn signing_with(certificate: &str, private_key: &SecretString, hash: &str) -> Result<Self, CertificateError> {
        let unusable = |error: rcgen::Error| CertificateError::Issuer(error.to_string());
        let key = KeyPair::from_pem(private_key.expose_secret()).map_err(unusable)?;
        let rsa: Option<&'static SignatureAlgorithm> = match hash {
            _ if key.algorithm() != &rcgen::PKCS_RSA_SHA256 => None,
            "sha384" => Some(&rcgen::PKCS_RSA_SHA384),
            "sha512" => Some(&rcgen::PKCS_RSA_SHA512),
            _ => None,
        };
        let key = match rsa {
            Some(algorithm) => KeyPair::from_pem_and_sign_algo(private_key.expose_secret(), algorithm).map_err(unusable)?,
            None => key,
        };
        let (der, facts) = Facts::of_pem(certificate).map_err(CertificateError::Issuer)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(unusable)?;
        Ok(Self { issuer, certificate: certificate.to_owned(), private_key: private_key.clone(), der, facts })
    }

    /// Signs something, and looks at it as those who will check it do.
    ///
    /// # Errors
    /// [`CertificateError::Issuer`]: nothing that this CA signs would be believed.
    pub fn prove(&self, now: Timestamp) -> Result<(), CertificateError> {
        let proof = CertificateRequest {
            common_name: "proof".to_owned(),
            key_type: "ec".to_owned(),
            key_size: 256,
            expiry_time: "PT1H".to_owned(),
            ..CertificateRequest::default()
        };
        create(&proof.check(false)?, Some(self), now).map(|_| ())
    }

    /// Checks what was just signed: its issuer must be this CA, byte for byte, and the signature must hold. What wrote it does not keep each name as it stands in the CA's certificate.
    ///
    /// # Errors
    /// [`CertificateError::Issuer`].
    pub(crate) fn check(&self, signed: &[u8]) -> Result<(), CertificateError> {
        let facts = Facts::of_der(signed).map_err(CertificateError::Failed)?;
        if !self.facts.names_issuer_of(&facts) {
            return Err(CertificateError::Issuer("its name is written in a way that cannot be repeated, such as with one attribute twice".to_owned()));
        }
        if !may_be_signed_by(signed, &self.der) {
            return Err(CertificateError::Issuer("its private key does not belong to its certificate".to_owned()));
        }
        Ok(())
    }

    /// Up to when it is valid.
    pub fn expiry(&self) -> Timestamp {
        self.facts.expiry
    }

    /// The CA's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The CA's key, PEM.
    pub fn private_key_pem(&self) -> &SecretString {
        &self.private_key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_that_nobody_would_believe_is_refused() {
        let (now, key) = (Timestamp::now(), SecretString::from(include_str!("../tests/data/two-dc.key")));
        let two = CertificateAuthority::from_pem(include_str!("../tests/data/two-dc.pem"), &key).unwrap();
        let error = two.prove(now).unwrap_err();
        assert_eq!((error.code(), error.target()), (262_247, "keystead.ca"), "{error}");
        let (one, other) = (CertificateAuthority::generate("a", now).unwrap(), CertificateAuthority::generate("a", now).unwrap());
        assert!(one.prove(now).is_ok());
        let mixed = CertificateAuthority::from_pem(one.certificate_pem(), other.private_key_pem()).unwrap();
        assert_eq!(mixed.prove(now).unwrap_err().code(), 262_247);
    }

    #[test]
    fn nothing_outlives_its_ca() {
        let (now, day) = (Timestamp::now(), SignedDuration::from_hours(24));
        let ca = CertificateAuthority::generate("a", now).unwrap();
        let near_the_end = ca.expiry() - day;
        let made = |expiry: String, at| {
            let request = CertificateRequest { expiry_time: expiry, key_type: "ec".into(), key_size: 256, ..CertificateRequest::default() };
            create(&request.check(false).unwrap(), Some(&ca), at)
        };
        assert_eq!(made("P365D".into(), near_the_end).unwrap().expiry, ca.expiry());
        assert_eq!(made("PT1H".into(), near_the_end).unwrap().expiry, near_the_end + SignedDuration::from_hours(1));
        let error = made((ca.expiry() + day).to_string(), now).err().unwrap();
        assert_eq!((error.code(), error.target()), (262_247, "expiry_time"), "{error}");
    }
}
