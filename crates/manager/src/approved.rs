//! What FIPS mode lets certificates be made of: a list of what is allowed, so that what is unknown is not.

use crate::certificates::CertificateError;
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";
const PSS: &str = "1.2.840.113549.1.1.10";
/// P-256, P-384 and P-521 (RFC 5480).
const CURVES: [&str; 3] = ["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];
/// RSA (PKCS#1 v1.5) and ECDSA with SHA-224, SHA-256, SHA-384 and SHA-512 (RFC 8017, RFC 5758).
const SIGNATURES: [&str; 8] = [
    "1.2.840.113549.1.1.14",
    "1.2.840.113549.1.1.11",
    "1.2.840.113549.1.1.12",
    "1.2.840.113549.1.1.13",
    "1.2.840.10045.4.3.1",
    "1.2.840.10045.4.3.2",
    "1.2.840.10045.4.3.3",
    "1.2.840.10045.4.3.4",
];
/// SHA-256, SHA-384, SHA-512 and SHA-224 (NIST's arc of hashes).
const HASHES: [&str; 4] = ["2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2", "2.16.840.1.101.3.4.2.3", "2.16.840.1.101.3.4.2.4"];
/// The fewest bits of an RSA key (SP 800-131A).
const RSA_BITS: u32 = 2048;

/// What FIPS mode has against a certificate: 3735664 for its key, else 3735665 for its signature.
pub(crate) fn weakness(certificate: &X509Certificate<'_>, hash: &str) -> Option<CertificateError> {
    key_weakness(certificate.public_key())
        .or_else(|| (!is_signature_good(&certificate.signature_algorithm)).then(|| CertificateError::FipsHash(hash.to_owned())))
}

/// The bits of an RSA key: those of its modulus.
pub(crate) fn rsa_bits(modulus: &[u8]) -> u32 {
    let mut bytes = modulus.iter().skip_while(|byte| **byte == 0);
    let first = bytes.next().map_or(0, |first| 8 - first.leading_zeros());
    u32::try_from(bytes.count()).unwrap_or(u32::MAX / 8).saturating_mul(8).saturating_add(first)
}

/// The curve of an EC key, as an object identifier.
pub(crate) fn curve(key: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    key.algorithm.parameters.as_ref()?.as_oid().ok().map(|curve| curve.to_id_string())
}

fn key_weakness(key: &SubjectPublicKeyInfo<'_>) -> Option<CertificateError> {
    let kind = key.algorithm.algorithm.to_id_string();
    match (kind.as_str(), key.parsed()) {
        (RSA, Ok(PublicKey::RSA(rsa))) => match rsa_bits(rsa.modulus) {
            bits if bits >= RSA_BITS => None,
            bits => Some(CertificateError::FipsKeySize(bits)),
        },
        (EC, Ok(PublicKey::EC(_))) => match curve(key) {
            Some(curve) if CURVES.contains(&curve.as_str()) => None,
            curve => Some(CertificateError::FipsKey(format!("EC key of the curve {}", curve.unwrap_or_else(|| "without a name".to_owned())))),
        },
        _ => Some(CertificateError::FipsKey(format!("key of the kind {kind}"))),
    }
}

fn is_signature_good(signature: &AlgorithmIdentifier<'_>) -> bool {
    let kind = signature.algorithm.to_id_string();
    if kind != PSS {
        return SIGNATURES.contains(&kind.as_str());
    }
    let Some(Ok(parameters)) = signature.parameters.as_ref().map(RsaSsaPssParams::try_from) else { return false };
    let good = |hash: String| HASHES.contains(&hash.as_str());
    good(parameters.hash_algorithm_oid().to_id_string()) && parameters.mask_gen_algorithm().is_ok_and(|mask| good(mask.hash.to_id_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::Facts;

    #[test]
    fn what_is_not_on_the_list_is_weak() {
        let fixtures = include_str!("../tests/data/algorithms.pem");
        let mut seen = 0;
        for fixture in fixtures.split("# ").skip(1) {
            let (title, pem) = fixture.split_once('\n').unwrap();
            let (_, facts) = Facts::of_pem(pem).unwrap();
            assert_eq!(facts.weakness().map_or(0, |weak| weak.code()).to_string(), title.split(' ').next().unwrap(), "{title}");
            seen += 1;
        }
        assert_eq!(seen, 12);
    }

    #[test]
    fn bits_are_counted_from_the_first_that_is_set() {
        assert_eq!((rsa_bits(&[0, 0x80, 0]), rsa_bits(&[0x7f, 0xff]), rsa_bits(&[1]), rsa_bits(&[0]), rsa_bits(&[])), (16, 15, 1, 0, 0));
    }
}
