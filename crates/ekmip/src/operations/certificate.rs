//! What a certificate says of itself (KMIP Specification 2.1, sections 4.6 to 4.8, 4.22 and 4.61 to 4.63; 1.4, sections 3.8 to 3.16).

use crate::managed::Managed;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{CertificateType, DigitalSignatureAlgorithm, Enumeration as _, ResultReason};
use keystead_kmip::ttlv::{Node, Value};
use keystead_kmip::{Failure, Result, Tag};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::X509Name;

/// The parts of a name: the object identifier, the attribute of the subject, that of the issuer.
const PARTS: &[(&str, Tag, Tag)] = &[
    ("2.5.4.3", Tag::CertificateSubjectCN, Tag::CertificateIssuerCN),
    ("2.5.4.10", Tag::CertificateSubjectO, Tag::CertificateIssuerO),
    ("2.5.4.11", Tag::CertificateSubjectOU, Tag::CertificateIssuerOU),
    ("1.2.840.113549.1.9.1", Tag::CertificateSubjectEmail, Tag::CertificateIssuerEmail),
    ("2.5.4.6", Tag::CertificateSubjectC, Tag::CertificateIssuerC),
    ("2.5.4.8", Tag::CertificateSubjectST, Tag::CertificateIssuerST),
    ("2.5.4.7", Tag::CertificateSubjectL, Tag::CertificateIssuerL),
    ("0.9.2342.19200300.100.1.1", Tag::CertificateSubjectUID, Tag::CertificateIssuerUID),
    ("2.5.4.5", Tag::CertificateSubjectSerialNumber, Tag::CertificateIssuerSerialNumber),
    ("2.5.4.12", Tag::CertificateSubjectTitle, Tag::CertificateIssuerTitle),
    ("0.9.2342.19200300.100.1.25", Tag::CertificateSubjectDC, Tag::CertificateIssuerDC),
    ("2.5.4.46", Tag::CertificateSubjectDNQualifier, Tag::CertificateIssuerDNQualifier),
];

/// The signature algorithms that KMIP has names for.
const SIGNATURES: &[(&str, DigitalSignatureAlgorithm)] = &[
    ("1.2.840.113549.1.1.5", DigitalSignatureAlgorithm::SHA_1WithRSAEncryption),
    ("1.2.840.113549.1.1.14", DigitalSignatureAlgorithm::SHA_224WithRSAEncryption),
    ("1.2.840.113549.1.1.11", DigitalSignatureAlgorithm::SHA_256WithRSAEncryption),
    ("1.2.840.113549.1.1.12", DigitalSignatureAlgorithm::SHA_384WithRSAEncryption),
    ("1.2.840.113549.1.1.13", DigitalSignatureAlgorithm::SHA_512WithRSAEncryption),
    ("1.2.840.113549.1.1.10", DigitalSignatureAlgorithm::RSASSA_PSS),
    ("1.2.840.10040.4.3", DigitalSignatureAlgorithm::DSAWithSHA_1),
    ("1.2.840.10045.4.1", DigitalSignatureAlgorithm::ECDSAWithSHA_1),
    ("1.2.840.10045.4.3.1", DigitalSignatureAlgorithm::ECDSAWithSHA224),
    ("1.2.840.10045.4.3.2", DigitalSignatureAlgorithm::ECDSAWithSHA256),
    ("1.2.840.10045.4.3.3", DigitalSignatureAlgorithm::ECDSAWithSHA384),
    ("1.2.840.10045.4.3.4", DigitalSignatureAlgorithm::ECDSAWithSHA512),
];

/// Gives a new object the attributes of its certificate.
///
/// # Errors
/// Feature Not Supported for what is no X.509 certificate by its type; Invalid Field for what is none by its bytes.
pub fn describe(object: &mut Managed<'static>, kind: CertificateType, value: &[u8]) -> Result<()> {
    if kind != CertificateType::X_509 {
        return Err(Failure::new(ResultReason::FeatureNotSupported, format!("certificates of the type {} are not kept here", kind.name())));
    }
    let certificate = match X509Certificate::from_der(value) {
        Ok(([], certificate)) => certificate,
        _ => return Err(Failure::new(ResultReason::InvalidField, "CertificateValue is no X.509 certificate in DER")),
    };
    if object.enumeration::<CertificateType>(Tag::CertificateType).is_some_and(|given| given != kind) {
        let failure = Failure::new(ResultReason::InvalidField, "the attribute Certificate Type is not the certificate's");
        return Err(failure.since_2(ResultReason::InvalidAttributeValue));
    }
    object.set(Tag::CertificateType, Value::Enumeration(kind.number()));
    object.set(Tag::CertificateLength, Value::Integer(i32::try_from(value.len()).unwrap_or(i32::MAX)));
    let named = |tag, name: &X509Name<'_>| Node::bytes(tag, name.as_raw().to_vec());
    let serial = Node::bytes(Tag::CertificateSerialNumber, certificate.raw_serial().to_vec());
    object.set(Tag::X_509CertificateIdentifier, Value::Structure(vec![named(Tag::IssuerDistinguishedName, certificate.issuer()), serial]));
    object.set(Tag::X_509CertificateSubject, Value::Structure(vec![named(Tag::SubjectDistinguishedName, certificate.subject())]));
    object.set(Tag::X_509CertificateIssuer, Value::Structure(vec![named(Tag::IssuerDistinguishedName, certificate.issuer())]));
    let signed = certificate.signature_algorithm.algorithm.to_id_string();
    if let Some((_, algorithm)) = SIGNATURES.iter().find(|(id, _)| *id == signed) {
        object.set(Tag::DigitalSignatureAlgorithm, Value::Enumeration(algorithm.number()));
    }
    for (id, subject, issuer) in PARTS {
        for (tag, name) in [(subject, certificate.subject()), (issuer, certificate.issuer())] {
            for part in name.iter_attributes().filter(|part| part.attr_type().to_id_string() == *id) {
                // One that is no text (an ancient encoding) is left out: the whole name stands in the attribute of bytes.
                if let Ok(text) = part.as_str() {
                    object.add(Attribute::new(*tag, Value::TextString(text.to_owned().into())))?;
                }
            }
        }
    }
    Ok(())
}
