//! Seeds of KMIP 2.0 and 2.1: what those versions write in another way, and the operations that they have alone.

use crate::messages::{Item, batch, id, key_block, one, revoke};
use crate::seeds::Seed;
use keystead_kmip::attribute::{Attribute, reference_to_node};
use keystead_kmip::enumeration::{
    AdjustmentType, BatchErrorContinuationOption as OnError, BlockCipherMode, CryptographicAlgorithm, Enumeration as _, InteropFunction, KeyFormatType,
    ObjectType, Operation, QueryFunction, RevocationReasonCode,
};
use keystead_kmip::ttlv::{Node, Value};
use keystead_kmip::{Tag, Version};

/// The seeds of one of these versions.
pub fn at(version: Version) -> Vec<Seed> {
    let seed = |name: &str, messages, failures| Seed { name: format!("{name}-{version}"), messages, failures };
    vec![
        seed("life", life(version), 2),
        seed("objects", objects(version), 0),
        seed("attributes", attributes(version), 2),
        seed("ciphers", ciphers(version), 1),
        seed("batches", batches(version), 3),
        seed("transfer", transfer(version), 1),
        seed("tests", tests(version), 1),
    ]
}

fn held(tag: Tag, attributes: &[Attribute<'static>]) -> Node<'static> {
    Node::structure(tag, attributes.iter().map(|attribute| attribute.to_node_at(Version::V2_1).into_owned()).collect())
}

fn custom(value: &'static str) -> Attribute<'static> {
    crate::messages::custom("acme-a", Value::TextString(value.into()))
}

fn create(usage: i32, further: Vec<Attribute<'static>>) -> Item {
    let mut attributes = vec![
        Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(CryptographicAlgorithm::AES.number())),
        Attribute::new(Tag::CryptographicLength, Value::Integer(256)),
        Attribute::new(Tag::CryptographicUsageMask, Value::Integer(usage)),
    ];
    attributes.extend(further);
    (Operation::Create, vec![Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), held(Tag::Attributes, &attributes)])
}

fn reference(attribute: &Attribute<'static>) -> Node<'static> {
    reference_to_node(&attribute.identity).into_owned()
}

fn life(version: Version) -> Vec<Node<'static>> {
    let call = |(operation, payload): Item| one(version, operation, payload);
    let state = Attribute::new(Tag::State, Value::Enumeration(1));
    vec![
        call(create(12, vec![Attribute::name("a"), custom("1")])),
        call((Operation::Locate, vec![held(Tag::Attributes, &[Attribute::name("a")])])),
        call((Operation::Get, vec![id(1)])),
        call((Operation::GetAttributes, vec![id(1), reference(&state), reference(&custom("1"))])),
        call((Operation::GetAttributeList, vec![id(1)])),
        call((Operation::Activate, vec![id(1)])),
        call((Operation::Destroy, vec![id(1)])),
        call((Operation::Check, vec![id(1), Node::integer(Tag::CryptographicUsageMask, 4)])),
        call((Operation::ObtainLease, vec![id(1)])),
        call(revoke(id(1), RevocationReasonCode::CessationOfOperation)),
        call((Operation::Destroy, vec![id(1)])),
        call((Operation::Get, vec![id(1)])),
    ]
}

fn objects(version: Version) -> Vec<Node<'static>> {
    let number = |tag| Node::new(tag, Value::BigInteger(vec![0, 0, 0, 0, 0, 1, 0, 1].into()));
    let material = Node::structure(Tag::KeyMaterial, vec![number(Tag::Modulus), number(Tag::PublicExponent)]);
    let block = vec![
        Node::enumeration(Tag::KeyFormatType, KeyFormatType::TransparentRSAPublicKey),
        Node::structure(Tag::KeyValue, vec![material]),
        Node::enumeration(Tag::CryptographicAlgorithm, CryptographicAlgorithm::RSA),
        Node::integer(Tag::CryptographicLength, 1_024),
    ];
    let key = Node::structure(Tag::PublicKey, vec![Node::structure(Tag::KeyBlock, block)]);
    let private = [Node::enumeration(Tag::CryptographicAlgorithm, CryptographicAlgorithm::RSA), Node::integer(Tag::CryptographicLength, 1_024)];
    let private = Node::structure(Tag::PrivateKey, vec![key_block(KeyFormatType::PKCS_8, &[7; 40], &private)]);
    let register = |kind, object| {
        let attributes = held(Tag::Attributes, &[Attribute::new(Tag::ProtectionPeriod, Value::Interval(9))]);
        one(version, Operation::Register, vec![Node::enumeration(Tag::ObjectType, kind), attributes, object])
    };
    vec![
        register(ObjectType::PublicKey, key),
        register(ObjectType::PrivateKey, private),
        one(version, Operation::Get, vec![id(1)]),
        one(version, Operation::Get, vec![id(2)]),
    ]
}

fn attributes(version: Version) -> Vec<Node<'static>> {
    let call = |operation, further: Vec<Node<'static>>| one(version, operation, std::iter::once(id(1)).chain(further).collect());
    let new = |attribute: Attribute<'static>| held(Tag::NewAttribute, &[attribute]);
    let current = |attribute: Attribute<'static>| held(Tag::CurrentAttribute, &[attribute]);
    let period = |seconds| Attribute::new(Tag::ProtectionPeriod, Value::Interval(seconds));
    let adjustment =
        vec![reference(&period(0)), Node::enumeration(Tag::AdjustmentType, AdjustmentType::Increment), Node::new(Tag::AdjustmentValue, Value::Interval(5))];
    let (operation, payload) = create(12, vec![]);
    vec![
        one(version, operation, payload),
        call(Operation::AddAttribute, vec![new(custom("1"))]),
        call(Operation::AddAttribute, vec![new(custom("2"))]),
        // Which of the two?
        call(Operation::ModifyAttribute, vec![new(custom("3"))]),
        call(Operation::ModifyAttribute, vec![current(custom("2")), new(custom("3"))]),
        call(Operation::DeleteAttribute, vec![current(custom("3"))]),
        call(Operation::DeleteAttribute, vec![reference(&custom("1"))]),
        call(Operation::DeleteAttribute, vec![reference(&custom("1"))]),
        call(Operation::SetAttribute, vec![new(period(1))]),
        call(Operation::AdjustAttribute, adjustment),
    ]
}

fn ciphers(version: Version) -> Vec<Node<'static>> {
    let parameters = |mode, random| {
        Node::structure(Tag::CryptographicParameters, vec![Node::enumeration(Tag::BlockCipherMode, mode), Node::new(Tag::RandomIV, Value::Boolean(random))])
    };
    let limits = Value::Structure(vec![Node::new(Tag::UsageLimitsTotal, Value::LongInteger(64)), Node::new(Tag::UsageLimitsUnit, Value::Enumeration(1))]);
    let data = || Node::bytes(Tag::Data, vec![7; 32]);
    let iv = || Node::bytes(Tag::IVCounterNonce, vec![8; 16]);
    let (operation, payload) = create(12, vec![Attribute::new(Tag::ActivationDate, Value::DateTime(1)), Attribute::new(Tag::UsageLimits, limits)]);
    vec![
        one(version, operation, payload),
        one(version, Operation::Encrypt, vec![id(1), parameters(BlockCipherMode::GCM, true), data()]),
        one(version, Operation::Encrypt, vec![id(1), parameters(BlockCipherMode::CBC, false), data(), iv()]),
        one(version, Operation::Decrypt, vec![id(1), parameters(BlockCipherMode::CBC, false), data(), iv()]),
        // The limits are used up.
        one(version, Operation::GetUsageAllocation, vec![id(1), Node::new(Tag::UsageLimitsCount, Value::LongInteger(1))]),
        one(version, Operation::RNGRetrieve, vec![Node::integer(Tag::DataLength, 16)]),
    ]
}

fn batches(version: Version) -> Vec<Node<'static>> {
    let check = |mask| (Operation::Check, vec![Node::integer(Tag::CryptographicUsageMask, mask)]);
    vec![
        batch(version, None, vec![create(4, vec![]), check(4), (Operation::Get, vec![])]),
        batch(version, Some(OnError::Undo), vec![create(4, vec![]), check(4), check(8)]),
    ]
}

fn transfer(version: Version) -> Vec<Node<'static>> {
    let algorithm = [Node::enumeration(Tag::CryptographicAlgorithm, CryptographicAlgorithm::AES), Node::integer(Tag::CryptographicLength, 128)];
    let key = Node::structure(Tag::SymmetricKey, vec![key_block(KeyFormatType::Raw, &[9; 16], &algorithm)]);
    let attributes = held(Tag::Attributes, &[Attribute::new(Tag::State, Value::Enumeration(2)), Attribute::new(Tag::ActivationDate, Value::DateTime(1))]);
    let import = || vec![id(200), Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), attributes.clone(), key.clone()];
    vec![one(version, Operation::Import, import()), one(version, Operation::Import, import()), one(version, Operation::Export, vec![id(200)])]
}

fn tests(version: Version) -> Vec<Node<'static>> {
    let interop = |function| vec![Node::enumeration(Tag::InteropFunction, function), Node::text(Tag::InteropIdentifier, "t")];
    let functions = (1..=14).filter_map(QueryFunction::from_number).map(|function| Node::enumeration(Tag::QueryFunction, function));
    vec![
        one(version, Operation::Interop, interop(InteropFunction::Begin)),
        one(version, Operation::Interop, interop(InteropFunction::Reset)),
        one(version, Operation::Log, vec![Node::text(Tag::LogMessage, "a")]),
        one(version, Operation::Query, functions.collect()),
        one(version, Operation::DiscoverVersions, vec![]),
    ]
}
