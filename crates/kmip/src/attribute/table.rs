//! The table of attributes: what each is, since which version, and what clients may do with it.
//!
//! Source: KMIP Specification 1.4, section 3, and 2.1, section 4: the "attribute rules" of each attribute.

use crate::tag::Tag;
use crate::version::Version;

/// What a kind of attribute is, and what clients may do with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// The tag: its identity.
    pub tag: Tag,
    /// The name in messages of 1.x.
    pub name: &'static str,
    /// The first version that has it. Clients of earlier ones never see it.
    pub since: Version,
    /// The last version that has it. Clients of later ones never see it either.
    pub until: Version,
    /// The type and, for a structure, its items.
    pub shape: Shape,
    /// Whether an object may have several.
    pub multiple: bool,
    /// Whether a client may give it when it makes an object.
    pub create: bool,
    /// Whether a client may add it later, change it, and take it away.
    pub change: Change,
}

/// What clients may do with an attribute of an existing object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The server keeps it.
    Never,
    /// Add and modify, within the limits of the object's state, but never delete.
    Modify,
    /// Add where it is missing, but neither modify nor delete.
    Add,
    /// All of it.
    Free,
}

/// The type of an attribute's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// [`Value::TextString`].
    Text,
    /// [`Value::Integer`].
    Integer,
    /// [`Value::Enumeration`].
    Enumeration,
    /// [`Value::Boolean`].
    Boolean,
    /// [`Value::DateTime`].
    DateTime,
    /// [`Value::Interval`].
    Interval,
    /// [`Value::Structure`] of these items; `true` marks one that must be there.
    Structure(&'static [(Tag, Shape, bool)]),
    /// [`Value::LongInteger`].
    LongInteger,
    /// [`Value::ByteString`].
    Bytes,
}

const CRYPTOGRAPHIC_PARAMETERS: Shape = Shape::Structure(&[
    (Tag::BlockCipherMode, Shape::Enumeration, false),
    (Tag::PaddingMethod, Shape::Enumeration, false),
    (Tag::HashingAlgorithm, Shape::Enumeration, false),
    (Tag::KeyRoleType, Shape::Enumeration, false),
    (Tag::DigitalSignatureAlgorithm, Shape::Enumeration, false),
    (Tag::CryptographicAlgorithm, Shape::Enumeration, false),
    (Tag::RandomIV, Shape::Boolean, false),
    (Tag::IVLength, Shape::Integer, false),
    (Tag::TagLength, Shape::Integer, false),
    (Tag::FixedFieldLength, Shape::Integer, false),
    (Tag::InvocationFieldLength, Shape::Integer, false),
    (Tag::CounterLength, Shape::Integer, false),
    (Tag::InitialCounterValue, Shape::Integer, false),
    (Tag::SaltLength, Shape::Integer, false),
    (Tag::MaskGenerator, Shape::Enumeration, false),
    (Tag::MaskGeneratorHashingAlgorithm, Shape::Enumeration, false),
    (Tag::PSource, Shape::Bytes, false),
    (Tag::TrailerField, Shape::Integer, false),
]);

const RANDOM_NUMBER_GENERATOR: Shape = Shape::Structure(&[
    (Tag::RNGAlgorithm, Shape::Enumeration, true),
    (Tag::CryptographicAlgorithm, Shape::Enumeration, false),
    (Tag::CryptographicLength, Shape::Integer, false),
    (Tag::HashingAlgorithm, Shape::Enumeration, false),
    (Tag::DRBGAlgorithm, Shape::Enumeration, false),
    (Tag::RecommendedCurve, Shape::Enumeration, false),
    (Tag::FIPS186Variation, Shape::Enumeration, false),
    (Tag::PredictionResistance, Shape::Boolean, false),
]);

macro_rules! definitions {
    ($($tag:ident $name:literal $since:ident $until:ident $shape:expr, $multiple:literal $create:literal $change:ident;)*) => {
        /// All attributes of the specification that are known here.
        pub static DEFINITIONS: &[Definition] = &[$(
            Definition {
                tag: Tag::$tag, name: $name, since: Version::$since, until: Version::$until, shape: $shape, multiple: $multiple, create: $create, change: Change::$change,
            },
        )*];
    };
}

// tag, name, since, until, shape, several?, given at creation?, later by clients
definitions! {
    UniqueIdentifier "Unique Identifier" V1_0 V2_1 Shape::Text, false false Never;
    Name "Name" V1_0 V2_1 Shape::Structure(&[(Tag::NameValue, Shape::Text, true), (Tag::NameType, Shape::Enumeration, true)]), true true Free;
    ObjectType "Object Type" V1_0 V2_1 Shape::Enumeration, false false Never;
    CryptographicAlgorithm "Cryptographic Algorithm" V1_0 V2_1 Shape::Enumeration, false true Add;
    CryptographicLength "Cryptographic Length" V1_0 V2_1 Shape::Integer, false true Add;
    CryptographicParameters "Cryptographic Parameters" V1_0 V2_1 CRYPTOGRAPHIC_PARAMETERS, true true Free;
    CryptographicDomainParameters "Cryptographic Domain Parameters" V1_0 V2_1 Shape::Structure(&[
        (Tag::Qlength, Shape::Integer, false), (Tag::RecommendedCurve, Shape::Enumeration, false)]), false true Never;
    Digest "Digest" V1_0 V2_1 Shape::Structure(&[
        (Tag::HashingAlgorithm, Shape::Enumeration, true), (Tag::DigestValue, Shape::Bytes, true), (Tag::KeyFormatType, Shape::Enumeration, false)]), true false Never;
    OperationPolicyName "Operation Policy Name" V1_0 V1_4 Shape::Text, false true Never;
    CryptographicUsageMask "Cryptographic Usage Mask" V1_0 V2_1 Shape::Integer, false true Add;
    LeaseTime "Lease Time" V1_0 V2_1 Shape::Interval, false false Never;
    UsageLimits "Usage Limits" V1_0 V2_1 Shape::Structure(&[
        (Tag::UsageLimitsTotal, Shape::LongInteger, true), (Tag::UsageLimitsCount, Shape::LongInteger, false), (Tag::UsageLimitsUnit, Shape::Enumeration, true)]), false true Free;
    State "State" V1_0 V2_1 Shape::Enumeration, false false Never;
    InitialDate "Initial Date" V1_0 V2_1 Shape::DateTime, false false Never;
    ActivationDate "Activation Date" V1_0 V2_1 Shape::DateTime, false true Modify;
    ProcessStartDate "Process Start Date" V1_0 V2_1 Shape::DateTime, false true Modify;
    ProtectStopDate "Protect Stop Date" V1_0 V2_1 Shape::DateTime, false true Modify;
    DeactivationDate "Deactivation Date" V1_0 V2_1 Shape::DateTime, false true Modify;
    DestroyDate "Destroy Date" V1_0 V2_1 Shape::DateTime, false false Never;
    CompromiseOccurrenceDate "Compromise Occurrence Date" V1_0 V2_1 Shape::DateTime, false false Never;
    CompromiseDate "Compromise Date" V1_0 V2_1 Shape::DateTime, false false Never;
    RevocationReason "Revocation Reason" V1_0 V2_1 Shape::Structure(&[
        (Tag::RevocationReasonCode, Shape::Enumeration, true), (Tag::RevocationMessage, Shape::Text, false)]), false false Never;
    ArchiveDate "Archive Date" V1_0 V2_1 Shape::DateTime, false false Never;
    ObjectGroup "Object Group" V1_0 V2_1 Shape::Text, true true Free;
    Fresh "Fresh" V1_1 V2_1 Shape::Boolean, false true Never;
    Link "Link" V1_0 V2_1 Shape::Structure(&[(Tag::LinkType, Shape::Enumeration, true), (Tag::LinkedObjectIdentifier, Shape::Text, true)]), true true Free;
    ApplicationSpecificInformation "Application Specific Information" V1_0 V2_1 Shape::Structure(&[
        (Tag::ApplicationNamespace, Shape::Text, true), (Tag::ApplicationData, Shape::Text, false)]), true true Free;
    ContactInformation "Contact Information" V1_0 V2_1 Shape::Text, false true Free;
    LastChangeDate "Last Change Date" V1_0 V2_1 Shape::DateTime, false false Never;
    AlternativeName "Alternative Name" V1_2 V2_1 Shape::Structure(&[
        (Tag::AlternativeNameValue, Shape::Text, true), (Tag::AlternativeNameType, Shape::Enumeration, true)]), true true Free;
    KeyValuePresent "Key Value Present" V1_2 V2_1 Shape::Boolean, false false Never;
    KeyValueLocation "Key Value Location" V1_2 V2_1 Shape::Structure(&[
        (Tag::KeyValueLocationValue, Shape::Text, true), (Tag::KeyValueLocationType, Shape::Enumeration, true)]), true true Free;
    OriginalCreationDate "Original Creation Date" V1_2 V2_1 Shape::DateTime, false true Never;
    RandomNumberGenerator "Random Number Generator" V1_3 V2_1 RANDOM_NUMBER_GENERATOR, false true Never;
    PKCS_12FriendlyName "PKCS#12 Friendly Name" V1_4 V2_1 Shape::Text, false true Free;
    Description "Description" V1_4 V2_1 Shape::Text, false true Free;
    Comment "Comment" V1_4 V2_1 Shape::Text, false true Free;
    Sensitive "Sensitive" V1_4 V2_1 Shape::Boolean, false true Modify;
    AlwaysSensitive "Always Sensitive" V1_4 V2_1 Shape::Boolean, false false Never;
    Extractable "Extractable" V1_4 V2_1 Shape::Boolean, false true Modify;
    NeverExtractable "Never Extractable" V1_4 V2_1 Shape::Boolean, false false Never;
    CertificateType "Certificate Type" V1_0 V2_1 Shape::Enumeration, false true Never;
    CertificateLength "Certificate Length" V1_1 V2_1 Shape::Integer, false false Never;
    X_509CertificateIdentifier "X.509 Certificate Identifier" V1_1 V2_1 Shape::Structure(&[
        (Tag::IssuerDistinguishedName, Shape::Bytes, true), (Tag::CertificateSerialNumber, Shape::Bytes, true)]), false false Never;
    X_509CertificateSubject "X.509 Certificate Subject" V1_1 V2_1 Shape::Structure(&[(Tag::SubjectDistinguishedName, Shape::Bytes, true)]), false false Never;
    X_509CertificateIssuer "X.509 Certificate Issuer" V1_1 V2_1 Shape::Structure(&[(Tag::IssuerDistinguishedName, Shape::Bytes, true)]), false false Never;
    DigitalSignatureAlgorithm "Digital Signature Algorithm" V1_1 V2_1 Shape::Enumeration, false false Never;
    ShortUniqueIdentifier "Short Unique Identifier" V2_0 V2_1 Shape::Bytes, false false Never;
    KeyFormatType "Key Format Type" V2_0 V2_1 Shape::Enumeration, false true Never;
    OpaqueDataType "Opaque Data Type" V2_0 V2_1 Shape::Enumeration, false false Never;
    NISTKeyType "NIST Key Type" V2_0 V2_1 Shape::Enumeration, true true Never;
    ProtectionLevel "Protection Level" V2_0 V2_1 Shape::Enumeration, false true Free;
    ProtectionPeriod "Protection Period" V2_0 V2_1 Shape::Interval, false true Free;
    ProtectionStorageMask "Protection Storage Mask" V2_0 V2_1 Shape::Integer, false false Never;
    QuantumSafe "Quantum Safe" V2_0 V2_1 Shape::Boolean, false true Free;
    CertificateSubjectCN "Certificate Subject CN" V2_0 V2_1 Shape::Text, true false Never;
    CertificateSubjectO "Certificate Subject O" V2_0 V2_1 Shape::Text, true false Never;
    CertificateSubjectOU "Certificate Subject OU" V2_0 V2_1 Shape::Text, true false Never;
    CertificateSubjectEmail "Certificate Subject Email" V2_0 V2_1 Shape::Text, true false Never;
    CertificateSubjectC "Certificate Subject C" V2_0 V2_1 Shape::Text, true false Never;
    CertificateSubjectST "Certificate Subject ST" V2_0 V2_1 Shape::Text, true false Never;
    CertificateSubjectL "Certificate Subject L" V2_0 V2_1 Shape::Text, true false Never;
    CertificateSubjectUID "Certificate Subject UID" V2_0 V2_1 Shape::Text, true false Never;
    CertificateSubjectSerialNumber "Certificate Subject Serial Number" V2_0 V2_1 Shape::Text, true false Never;
    CertificateSubjectTitle "Certificate Subject Title" V2_0 V2_1 Shape::Text, true false Never;
    CertificateSubjectDC "Certificate Subject DC" V2_0 V2_1 Shape::Text, true false Never;
    CertificateSubjectDNQualifier "Certificate Subject DN Qualifier" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerCN "Certificate Issuer CN" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerO "Certificate Issuer O" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerOU "Certificate Issuer OU" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerEmail "Certificate Issuer Email" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerC "Certificate Issuer C" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerST "Certificate Issuer ST" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerL "Certificate Issuer L" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerUID "Certificate Issuer UID" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerSerialNumber "Certificate Issuer Serial Number" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerTitle "Certificate Issuer Title" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerDC "Certificate Issuer DC" V2_0 V2_1 Shape::Text, true false Never;
    CertificateIssuerDNQualifier "Certificate Issuer DN Qualifier" V2_0 V2_1 Shape::Text, true false Never;
}

impl Definition {
    /// Whether clients of that version have it.
    pub fn exists_in(&self, version: Version) -> bool {
        self.since <= version && version <= self.until
    }
}

/// The definition of a tag.
pub fn definition(tag: Tag) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.tag == tag)
}
