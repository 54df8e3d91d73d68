//! The attributes of the protocol with the versions that have them, as the specifications say it, and how each version writes and reads them.

use super::kmip::{Answer, Kmip, text};
use super::scene::Scene;
use keystead_kmip::enumeration::Operation;
use keystead_kmip::ttlv::{Node as Item, Value};
use keystead_kmip::{Tag, Version};

pub type Span = (Version, Version);

pub const EVER: Span = (Version::V1_0, Version::V2_1);
pub const TO_1_4: Span = (Version::V1_0, Version::V1_4);
pub const FROM_1_1: Span = (Version::V1_1, Version::V2_1);
pub const FROM_1_2: Span = (Version::V1_2, Version::V2_1);
pub const FROM_1_3: Span = (Version::V1_3, Version::V2_1);
pub const FROM_1_4: Span = (Version::V1_4, Version::V2_1);
pub const FROM_2_0: Span = (Version::V2_0, Version::V2_1);

pub fn has(span: Span, version: Version) -> bool {
    (span.0..=span.1).contains(&version)
}

/// Each attribute with the versions that have it, and its sections in the specifications 1.2, 1.4 and 2.1.
#[rustfmt::skip] // A table.
pub const ATTRIBUTES: &[(Tag, &str, Span, &str)] = &[
    (Tag::UniqueIdentifier, "Unique Identifier", EVER, "1.2 §3.1; 1.4 §3.1; 2.1 §4.58"),
    (Tag::Name, "Name", EVER, "1.2 §3.2; 1.4 §3.2; 2.1 §4.32"),
    (Tag::ObjectType, "Object Type", EVER, "1.2 §3.3; 1.4 §3.3; 2.1 §4.36"),
    (Tag::CryptographicAlgorithm, "Cryptographic Algorithm", EVER, "1.2 §3.4; 1.4 §3.4; 2.1 §4.13"),
    (Tag::CryptographicLength, "Cryptographic Length", EVER, "1.2 §3.5; 1.4 §3.5; 2.1 §4.15"),
    (Tag::CryptographicParameters, "Cryptographic Parameters", EVER, "1.2 §3.6; 1.4 §3.6; 2.1 §4.16"),
    (Tag::CryptographicDomainParameters, "Cryptographic Domain Parameters", EVER, "1.2 §3.7; 1.4 §3.7; 2.1 §4.14"),
    (Tag::CertificateType, "Certificate Type", EVER, "1.2 §3.8; 1.4 §3.8; 2.1 §4.7"),
    (Tag::CertificateLength, "Certificate Length", FROM_1_1, "1.2 §3.9; 1.4 §3.9; 2.1 §4.8"),
    (Tag::X_509CertificateIdentifier, "X.509 Certificate Identifier", FROM_1_1, "1.2 §3.10; 1.4 §3.10; 2.1 §4.61"),
    (Tag::X_509CertificateSubject, "X.509 Certificate Subject", FROM_1_1, "1.2 §3.11; 1.4 §3.11; 2.1 §4.63"),
    (Tag::X_509CertificateIssuer, "X.509 Certificate Issuer", FROM_1_1, "1.2 §3.12; 1.4 §3.12; 2.1 §4.62"),
    (Tag::DigitalSignatureAlgorithm, "Digital Signature Algorithm", FROM_1_1, "1.2 §3.16; 1.4 §3.16; 2.1 §4.22"),
    (Tag::Digest, "Digest", EVER, "1.2 §3.17; 1.4 §3.17; 2.1 §4.21"),
    (Tag::OperationPolicyName, "Operation Policy Name", TO_1_4, "1.2 §3.18; 1.4 §3.18"),
    (Tag::CryptographicUsageMask, "Cryptographic Usage Mask", EVER, "1.2 §3.19; 1.4 §3.19; 2.1 §4.17"),
    (Tag::LeaseTime, "Lease Time", EVER, "1.2 §3.20; 1.4 §3.20; 2.1 §4.30"),
    (Tag::UsageLimits, "Usage Limits", EVER, "1.2 §3.21; 1.4 §3.21; 2.1 §4.59"),
    (Tag::State, "State", EVER, "1.2 §3.22; 1.4 §3.22; 2.1 §4.57"),
    (Tag::InitialDate, "Initial Date", EVER, "1.2 §3.23; 1.4 §3.23; 2.1 §4.25"),
    (Tag::ActivationDate, "Activation Date", EVER, "1.2 §3.24; 1.4 §3.24; 2.1 §4.1"),
    (Tag::ProcessStartDate, "Process Start Date", EVER, "1.2 §3.25; 1.4 §3.25; 2.1 §4.40"),
    (Tag::ProtectStopDate, "Protect Stop Date", EVER, "1.2 §3.26; 1.4 §3.26; 2.1 §4.41"),
    (Tag::DeactivationDate, "Deactivation Date", EVER, "1.2 §3.27; 1.4 §3.27; 2.1 §4.18"),
    (Tag::DestroyDate, "Destroy Date", EVER, "1.2 §3.28; 1.4 §3.28; 2.1 §4.20"),
    (Tag::CompromiseOccurrenceDate, "Compromise Occurrence Date", EVER, "1.2 §3.29; 1.4 §3.29; 2.1 §4.11"),
    (Tag::CompromiseDate, "Compromise Date", EVER, "1.2 §3.30; 1.4 §3.30; 2.1 §4.10"),
    (Tag::RevocationReason, "Revocation Reason", EVER, "1.2 §3.31; 1.4 §3.31; 2.1 §4.47"),
    (Tag::ArchiveDate, "Archive Date", EVER, "1.2 §3.32; 1.4 §3.32; 2.1 §4.5"),
    (Tag::ObjectGroup, "Object Group", EVER, "1.2 §3.33; 1.4 §3.33; 2.1 §4.35"),
    (Tag::Link, "Link", EVER, "1.2 §3.35; 1.4 §3.35; 2.1 §4.31"),
    (Tag::ApplicationSpecificInformation, "Application Specific Information", EVER, "1.2 §3.36; 1.4 §3.36; 2.1 §4.4"),
    (Tag::ContactInformation, "Contact Information", EVER, "1.2 §3.37; 1.4 §3.37; 2.1 §4.12"),
    (Tag::LastChangeDate, "Last Change Date", EVER, "1.2 §3.38; 1.4 §3.38; 2.1 §4.29"),
    (Tag::Fresh, "Fresh", FROM_1_1, "1.2 §3.34; 1.4 §3.34; 2.1 §4.24"),
    (Tag::AlternativeName, "Alternative Name", FROM_1_2, "1.2 §3.40; 1.4 §3.40; 2.1 §4.2"),
    (Tag::KeyValuePresent, "Key Value Present", FROM_1_2, "1.2 §3.41; 1.4 §3.41; 2.1 §4.28"),
    (Tag::KeyValueLocation, "Key Value Location", FROM_1_2, "1.2 §3.42; 1.4 §3.42; 2.1 §4.27"),
    (Tag::OriginalCreationDate, "Original Creation Date", FROM_1_2, "1.2 §3.43; 1.4 §3.43; 2.1 §4.38"),
    (Tag::RandomNumberGenerator, "Random Number Generator", FROM_1_3, "1.4 §3.44; 2.1 §4.46"),
    (Tag::PKCS_12FriendlyName, "PKCS#12 Friendly Name", FROM_1_4, "1.4 §3.45; 2.1 §4.39"),
    (Tag::Description, "Description", FROM_1_4, "1.4 §3.46; 2.1 §4.19"),
    (Tag::Comment, "Comment", FROM_1_4, "1.4 §3.47; 2.1 §4.9"),
    (Tag::Sensitive, "Sensitive", FROM_1_4, "1.4 §3.48; 2.1 §4.55"),
    (Tag::AlwaysSensitive, "Always Sensitive", FROM_1_4, "1.4 §3.49; 2.1 §4.3"),
    (Tag::Extractable, "Extractable", FROM_1_4, "1.4 §3.50; 2.1 §4.23"),
    (Tag::NeverExtractable, "Never Extractable", FROM_1_4, "1.4 §3.51; 2.1 §4.33"),
    (Tag::ShortUniqueIdentifier, "Short Unique Identifier", FROM_2_0, "2.1 §4.56"),
    (Tag::KeyFormatType, "Key Format Type", FROM_2_0, "2.1 §4.26"),
    (Tag::OpaqueDataType, "Opaque Data Type", FROM_2_0, "2.1 §4.37"),
    (Tag::NISTKeyType, "NIST Key Type", FROM_2_0, "2.1 §4.34"),
    (Tag::ProtectionLevel, "Protection Level", FROM_2_0, "2.1 §4.42"),
    (Tag::ProtectionPeriod, "Protection Period", FROM_2_0, "2.1 §4.43"),
    (Tag::ProtectionStorageMask, "Protection Storage Mask", FROM_2_0, "2.1 §4.44"),
    (Tag::QuantumSafe, "Quantum Safe", FROM_2_0, "2.1 §4.45"),
    (Tag::CertificateSubjectCN, "Certificate Subject CN", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateSubjectO, "Certificate Subject O", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateSubjectOU, "Certificate Subject OU", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateSubjectEmail, "Certificate Subject Email", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateSubjectC, "Certificate Subject C", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateSubjectST, "Certificate Subject ST", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateSubjectL, "Certificate Subject L", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateSubjectUID, "Certificate Subject UID", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateSubjectSerialNumber, "Certificate Subject Serial Number", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateSubjectTitle, "Certificate Subject Title", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateSubjectDC, "Certificate Subject DC", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateSubjectDNQualifier, "Certificate Subject DN Qualifier", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerCN, "Certificate Issuer CN", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerO, "Certificate Issuer O", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerOU, "Certificate Issuer OU", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerEmail, "Certificate Issuer Email", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerC, "Certificate Issuer C", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerST, "Certificate Issuer ST", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerL, "Certificate Issuer L", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerUID, "Certificate Issuer UID", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerSerialNumber, "Certificate Issuer Serial Number", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerTitle, "Certificate Issuer Title", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerDC, "Certificate Issuer DC", FROM_2_0, "2.1 §4.6"),
    (Tag::CertificateIssuerDNQualifier, "Certificate Issuer DN Qualifier", FROM_2_0, "2.1 §4.6"),
];

/// An attribute with a value as a client writes it, whatever the version has.
pub fn written(version: Version, tag: Tag, value: Value<'static>) -> Item<'static> {
    if version >= Version::V2_0 {
        return Item::new(tag, value);
    }
    let name = ATTRIBUTES.iter().find(|(known, ..)| *known == tag).unwrap().1;
    Item::structure(Tag::Attribute, vec![Item::text(Tag::AttributeName, name), Item::new(Tag::AttributeValue, value)])
}

pub fn holder(version: Version, attributes: Vec<Item<'static>>) -> Item<'static> {
    Item::structure(if version < Version::V2_0 { Tag::TemplateAttribute } else { Tag::Attributes }, attributes)
}

pub fn speaking(scene: &Scene, version: Version) -> Kmip {
    scene.speaking(version.major.into(), version.minor.into())
}

/// What a version is shown of an object: tags and values, of all attributes.
pub fn shown(kmip: &mut Kmip, version: Version, id: &str) -> Vec<(Tag, Value<'static>)> {
    read(version, &kmip.with_id(Operation::GetAttributes, id))
}

pub fn read(version: Version, answer: &Answer) -> Vec<(Tag, Value<'static>)> {
    if version >= Version::V2_0 {
        return answer.payload().find(Tag::Attributes).unwrap().items().iter().map(|item| (item.tag, item.value.clone())).collect();
    }
    let attributes = answer.payload().items().iter().filter(|item| item.tag == Tag::Attribute);
    let parts = attributes.map(|attribute| {
        let name = text(&attribute.find(Tag::AttributeName).unwrap().value);
        let (tag, ..) = ATTRIBUTES.iter().find(|(_, known, ..)| *known == name).unwrap_or_else(|| panic!("{version} is shown {name:?}"));
        (*tag, attribute.find(Tag::AttributeValue).unwrap().value.clone())
    });
    parts.collect()
}
