//! Requests, made of items.

use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{
    BatchErrorContinuationOption, CryptographicAlgorithm, Enumeration as _, KeyFormatType, ObjectType, Operation, RevocationReasonCode, SecretDataType,
};
use keystead_kmip::ttlv::{Node, Value};
use keystead_kmip::{Tag, Version};
use uuid::Uuid;

/// An item of a batch.
pub type Item = (Operation, Vec<Node<'static>>);

/// The identifier that stands in an input for the object that it has made as the `number`th; for 255, for an object of another SVM. The session writes the real one in its place.
pub fn id(number: u8) -> Node<'static> {
    Node::text(Tag::UniqueIdentifier, Uuid::from_u128(u128::from(number)).to_string())
}

/// A request with one item.
pub fn one(version: Version, operation: Operation, payload: Vec<Node<'static>>) -> Node<'static> {
    batch(version, None, vec![(operation, payload)])
}

/// A request.
pub fn batch(version: Version, on_error: Option<BatchErrorContinuationOption>, items: Vec<Item>) -> Node<'static> {
    with_header(version, on_error.map(|option| Node::enumeration(Tag::BatchErrorContinuationOption, option)).into_iter().collect(), items)
}

/// A request with further items of the header.
pub fn with_header(version: Version, further: Vec<Node<'static>>, items: Vec<Item>) -> Node<'static> {
    let mut header = vec![protocol_version(version.major.into(), version.minor.into())];
    header.extend(further);
    header.push(Node::integer(Tag::BatchCount, i32::try_from(items.len()).unwrap()));
    let mut message = vec![Node::structure(Tag::RequestHeader, header)];
    for (at, (operation, payload)) in items.into_iter().enumerate() {
        let id = Node::bytes(Tag::UniqueBatchItemID, vec![u8::try_from(at).unwrap()]);
        message.push(Node::structure(Tag::BatchItem, vec![Node::enumeration(Tag::Operation, operation), id, Node::structure(Tag::RequestPayload, payload)]));
    }
    Node::structure(Tag::RequestMessage, message)
}

pub fn protocol_version(major: i32, minor: i32) -> Node<'static> {
    Node::structure(Tag::ProtocolVersion, vec![Node::integer(Tag::ProtocolVersionMajor, major), Node::integer(Tag::ProtocolVersionMinor, minor)])
}

/// An AES-256 key for encrypting, with further attributes.
pub fn create(further: Vec<Attribute<'static>>) -> Item {
    create_for(12, further)
}

/// The same with a usage mask.
pub fn create_for(usage: i32, further: Vec<Attribute<'static>>) -> Item {
    let mut attributes = vec![
        Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(CryptographicAlgorithm::AES.number())),
        Attribute::new(Tag::CryptographicLength, Value::Integer(256)),
        Attribute::new(Tag::CryptographicUsageMask, Value::Integer(usage)),
    ];
    attributes.extend(further);
    (Operation::Create, vec![Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), template(&attributes)])
}

/// Registers an object of a type.
pub fn register(object_type: ObjectType, object: Node<'static>, attributes: &[Attribute<'static>]) -> Item {
    (Operation::Register, vec![Node::enumeration(Tag::ObjectType, object_type), template(attributes), object])
}

/// Registers a password.
pub fn register_password(password: &[u8], attributes: &[Attribute<'static>]) -> Item {
    let items = vec![Node::enumeration(Tag::SecretDataType, SecretDataType::Password), key_block(KeyFormatType::Opaque, password, &[])];
    register(ObjectType::SecretData, Node::structure(Tag::SecretData, items), attributes)
}

pub fn key_block(format: KeyFormatType, material: &[u8], further: &[Node<'static>]) -> Node<'static> {
    let value = Node::structure(Tag::KeyValue, vec![Node::bytes(Tag::KeyMaterial, material.to_vec())]);
    let mut items = vec![Node::enumeration(Tag::KeyFormatType, format), value];
    items.extend_from_slice(further);
    Node::structure(Tag::KeyBlock, items)
}

pub fn template(attributes: &[Attribute<'static>]) -> Node<'static> {
    Node::structure(Tag::TemplateAttribute, attributes.iter().map(|attribute| attribute.to_node().into_owned()).collect())
}

pub fn revoke(object: Node<'static>, code: RevocationReasonCode) -> Item {
    let reason = vec![Node::enumeration(Tag::RevocationReasonCode, code), Node::text(Tag::RevocationMessage, "no longer needed")];
    (Operation::Revoke, vec![object, Node::structure(Tag::RevocationReason, reason)])
}

/// A client's own attribute.
pub fn custom(name: &'static str, value: Value<'static>) -> Attribute<'static> {
    Attribute { identity: keystead_kmip::attribute::Identity::Custom(name.into()), index: 0, value }
}

pub fn text(tag: Tag, text: &'static str) -> Attribute<'static> {
    Attribute::new(tag, Value::TextString(text.into()))
}

pub fn date(tag: Tag, seconds: i64) -> Attribute<'static> {
    Attribute::new(tag, Value::DateTime(seconds))
}
