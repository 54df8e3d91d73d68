//! Objects of every type as a client sends them, and the reasons that 2.1 lists for each operation.

use super::kmip::Kmip;
use super::scene::Scene;
use keystead_kmip::Tag;
use keystead_kmip::enumeration::{
    CertificateType, CryptographicAlgorithm, KeyFormatType, ObjectType, Operation, QueryFunction, ResultReason as R, SecretDataType,
};
use keystead_kmip::ttlv::{Node as Item, Value};

/// An object of a type.
pub fn object(kind: ObjectType, certificate: &[u8]) -> Item<'static> {
    let number = |tag| Item::new(tag, Value::BigInteger(vec![0, 0, 0, 0, 0, 1, 0, 1].into()));
    let numbers = Item::structure(Tag::KeyMaterial, vec![number(Tag::Modulus), number(Tag::PublicExponent)]);
    let bytes = |length| Item::bytes(Tag::KeyMaterial, vec![7; length]);
    let (aes, rsa) = (CryptographicAlgorithm::AES, CryptographicAlgorithm::RSA);
    match kind {
        ObjectType::SymmetricKey => Item::structure(Tag::SymmetricKey, vec![block(KeyFormatType::Raw, bytes(32), Some((aes, 256)))]),
        ObjectType::SecretData => {
            let kind = Item::enumeration(Tag::SecretDataType, SecretDataType::Password);
            Item::structure(Tag::SecretData, vec![kind, block(KeyFormatType::Opaque, bytes(9), None)])
        }
        ObjectType::OpaqueObject => {
            let kind = Item::new(Tag::OpaqueDataType, Value::Enumeration(0x8000_0001));
            Item::structure(Tag::OpaqueObject, vec![kind, Item::bytes(Tag::OpaqueDataValue, vec![7; 9])])
        }
        ObjectType::Certificate => {
            let kind = Item::enumeration(Tag::CertificateType, CertificateType::X_509);
            Item::structure(Tag::Certificate, vec![kind, Item::bytes(Tag::CertificateValue, certificate.to_vec())])
        }
        ObjectType::PublicKey => Item::structure(Tag::PublicKey, vec![block(KeyFormatType::TransparentRSAPublicKey, numbers, Some((rsa, 1_024)))]),
        ObjectType::PrivateKey => Item::structure(Tag::PrivateKey, vec![block(KeyFormatType::PKCS_8, bytes(99), Some((rsa, 1_024)))]),
        ObjectType::Template => Item::structure(Tag::Template, vec![]),
        other => panic!("{other:?} is no object that is kept here"),
    }
}

/// A certificate in DER.
pub fn der(scene: &Scene) -> Vec<u8> {
    let pem = scene.client.certificate.as_bytes();
    rustls::pki_types::pem::PemObject::from_pem_slice(pem).map(|der: rustls::pki_types::CertificateDer<'_>| der.to_vec()).unwrap()
}

fn block(format: KeyFormatType, material: Item<'static>, algorithm: Option<(CryptographicAlgorithm, i32)>) -> Item<'static> {
    let mut items = vec![Item::enumeration(Tag::KeyFormatType, format), Item::structure(Tag::KeyValue, vec![material])];
    items.extend(
        algorithm
            .into_iter()
            .flat_map(|(algorithm, length)| [Item::enumeration(Tag::CryptographicAlgorithm, algorithm), Item::integer(Tag::CryptographicLength, length)]),
    );
    Item::structure(Tag::KeyBlock, items)
}

/// Operations that are not asked of an object that is there: `kmip_operations.rs` has their table.
pub const ELSEWHERE: [Operation; 7] =
    [Operation::Create, Operation::Register, Operation::Import, Operation::Locate, Operation::Query, Operation::DiscoverVersions, Operation::RNGRetrieve];

/// The numbers of the operations that Query offers.
pub fn offered(kmip: &mut Kmip) -> Vec<u32> {
    let answer = kmip.call(Operation::Query, vec![Item::enumeration(Tag::QueryFunction, QueryFunction::QueryOperations)]);
    let numbers = answer.payload().items().iter().map(|item| if let Value::Enumeration(number) = item.value { number } else { panic!("{item:?}") });
    numbers.collect()
}

/// What every operation may say, and what none lists: that something was destroyed, as the OASIS case BL-M-8-21 has it of Get.
const ANY: &[R] =
    &[R::FeatureNotSupported, R::InvalidField, R::InvalidMessage, R::OperationNotSupported, R::PermissionDenied, R::ResponseTooLarge, R::ObjectDestroyed];

/// The reasons of each operation's own, as its section "Error Handling" in 2.1 lists them.
#[rustfmt::skip] // A table.
const LISTED: &[(Operation, &[R])] = &[
    (Operation::Activate, &[R::InvalidObjectType, R::ObjectNotFound, R::WrongKeyLifecycleState]),
    (Operation::AddAttribute, &[R::AttributeSingleValued, R::InvalidAttribute, R::NonUniqueNameAttribute, R::ObjectNotFound, R::ReadOnlyAttribute, R::ServerLimitExceeded, R::WrongKeyLifecycleState]),
    // It lists Item Not Found, which 2.x has not for objects that are not there; all others say Object Not Found.
    (Operation::AdjustAttribute, &[R::InvalidDataType, R::ObjectNotFound, R::MultiValuedAttribute, R::NumericRange, R::ReadOnlyAttribute, R::UnsupportedAttribute, R::WrongKeyLifecycleState]),
    (Operation::Check, &[R::IllegalObjectType, R::IncompatibleCryptographicUsageMask, R::ObjectNotFound, R::UsageLimitExceeded]),
    (Operation::Create, &[R::AttributeReadOnly, R::AttributeSingleValued, R::CryptographicFailure, R::InvalidAttribute, R::InvalidAttributeValue, R::InvalidObjectType, R::NonUniqueNameAttribute, R::ReadOnlyAttribute, R::ServerLimitExceeded, R::UnsupportedAttribute, R::ProtectionStorageUnavailable]),
    (Operation::Decrypt, &[R::BadCryptographicParameters, R::CryptographicFailure, R::IncompatibleCryptographicUsageMask, R::InvalidCorrelationValue, R::InvalidObjectType, R::KeyValueNotPresent, R::MissingInitializationVector, R::ObjectNotFound, R::UnsupportedCryptographicParameters, R::WrongKeyLifecycleState]),
    (Operation::DeleteAttribute, &[R::AttributeInstanceNotFound, R::AttributeNotFound, R::AttributeReadOnly, R::InvalidAttribute, R::ObjectNotFound, R::WrongKeyLifecycleState]),
    (Operation::Destroy, &[R::ObjectNotFound, R::WrongKeyLifecycleState]),
    (Operation::Encrypt, &[R::BadCryptographicParameters, R::CryptographicFailure, R::IncompatibleCryptographicUsageMask, R::InvalidCorrelationValue, R::InvalidObjectType, R::KeyValueNotPresent, R::MissingInitializationVector, R::ObjectNotFound, R::UnsupportedCryptographicParameters, R::UsageLimitExceeded, R::WrongKeyLifecycleState]),
    (Operation::Export, &[R::BadCryptographicParameters, R::EncodingOptionError, R::IncompatibleCryptographicUsageMask, R::InvalidObjectType, R::KeyCompressionTypeNotSupported, R::KeyFormatTypeNotSupported, R::KeyValueNotPresent, R::KeyWrapTypeNotSupported, R::ObjectNotFound, R::WrappingObjectArchived, R::WrappingObjectDestroyed, R::WrappingObjectNotFound]),
    (Operation::Get, &[R::BadCryptographicParameters, R::EncodingOptionError, R::IncompatibleCryptographicUsageMask, R::InvalidObjectType, R::KeyCompressionTypeNotSupported, R::KeyFormatTypeNotSupported, R::KeyValueNotPresent, R::KeyWrapTypeNotSupported, R::NotExtractable, R::ObjectNotFound, R::Sensitive, R::WrappingObjectArchived, R::WrappingObjectDestroyed, R::WrappingObjectNotFound]),
    (Operation::GetAttributes, &[R::InvalidAttribute, R::ObjectNotFound]),
    (Operation::GetAttributeList, &[R::ObjectNotFound]),
    (Operation::GetUsageAllocation, &[R::AttributeNotFound, R::InvalidObjectType, R::ObjectNotFound, R::UsageLimitExceeded]),
    (Operation::Import, &[R::AttributeReadOnly, R::AttributeSingleValued, R::EncodingOptionError, R::InvalidAttribute, R::InvalidAttributeValue, R::NonUniqueNameAttribute, R::ObjectAlreadyExists, R::ServerLimitExceeded, R::ProtectionStorageUnavailable]),
    (Operation::Locate, &[R::InvalidAttribute]),
    (Operation::ModifyAttribute, &[R::AttributeInstanceNotFound, R::AttributeNotFound, R::AttributeReadOnly, R::NonUniqueNameAttribute, R::ObjectNotFound, R::WrongKeyLifecycleState]),
    (Operation::ObtainLease, &[R::ObjectNotFound, R::UsageLimitExceeded]),
    (Operation::ReKey, &[R::CryptographicFailure, R::InvalidObjectType, R::KeyValueNotPresent, R::ObjectNotFound, R::ProtectionStorageUnavailable]),
    (Operation::Register, &[R::AttributeReadOnly, R::AttributeSingleValued, R::BadPassword, R::EncodingOptionError, R::InvalidAttribute, R::InvalidAttributeValue, R::InvalidObjectType, R::NonUniqueNameAttribute, R::ServerLimitExceeded, R::ProtectionStorageUnavailable]),
    (Operation::Revoke, &[R::InvalidObjectType, R::ObjectNotFound, R::WrongKeyLifecycleState]),
    (Operation::RNGRetrieve, &[R::CryptographicFailure]),
    (Operation::SetAttribute, &[R::InvalidAttributeValue, R::MultiValuedAttribute, R::NonUniqueNameAttribute, R::ObjectNotFound, R::ReadOnlyAttribute, R::WrongKeyLifecycleState]),
];

/// Whether 2.1 has a reason among those of an operation.
pub fn is_listed(operation: Operation, reason: R) -> bool {
    ANY.contains(&reason) || LISTED.iter().any(|(known, reasons)| *known == operation && reasons.contains(&reason))
}
