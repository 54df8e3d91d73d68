//! What each version of the protocol has: every attribute, values, operations and types of objects, read back over the wire at every version. The tables are those of the specifications.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Answer, Kmip, uid};
use common::scene::{Scene, scene};
use common::versions::{ATTRIBUTES, EVER, FROM_1_1, FROM_1_2, FROM_1_3, FROM_1_4, FROM_2_0, Span, TO_1_4, has, holder, read, shown, speaking, written};
use keystead_kmip::attribute::{DEFINITIONS, Identity, reference_to_node};
use keystead_kmip::enumeration::{Enumeration as _, KeyFormatType, ObjectType, Operation, QueryFunction, ResultReason, SecretDataType};
use keystead_kmip::ttlv::{Node as Item, Value};
use keystead_kmip::{Tag, Version};
use std::collections::BTreeSet;

/// No object here has it: a key without its value cannot be registered.
const NOBODY_HAS: [Tag; 1] = [Tag::KeyValuePresent];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attribute_at_every_version() {
    let scene = scene().await;
    let known: BTreeSet<Tag> = DEFINITIONS.iter().map(|definition| definition.tag).collect();
    assert_eq!(known, ATTRIBUTES.iter().map(|(tag, ..)| *tag).collect(), "the table has all that the server knows");
    let ids = objects(&scene);
    let clients = || Version::SUPPORTED.iter().map(|version| (*version, speaking(&scene, *version)));
    let mut wrong = Vec::new();
    let mut had = BTreeSet::new();
    for (what, id) in &ids {
        let all: Vec<(Version, BTreeSet<Tag>)> =
            clients().map(|(version, mut kmip)| (version, shown(&mut kmip, version, id).into_iter().map(|(tag, _)| tag).collect())).collect();
        let object_has: BTreeSet<Tag> = all.iter().flat_map(|(_, tags)| tags).copied().collect();
        had.extend(object_has.iter().copied());
        for (version, mut kmip) in clients() {
            let (_, tags) = all.iter().find(|(of, _)| *of == version).unwrap();
            let listed: BTreeSet<String> = kmip.attribute_list(id).into_iter().collect();
            for (tag, name, span, source) in ATTRIBUTES {
                let expected = object_has.contains(tag) && has(*span, version);
                let asked = match version >= Version::V2_0 {
                    true => reference_to_node(&Identity::Known(*tag)).into_owned(),
                    false => Item::text(Tag::AttributeName, *name),
                };
                let by_name = read(version, &kmip.call(Operation::GetAttributes, vec![uid(id), asked]));
                let seen = [tags.contains(tag), listed.contains(*name), by_name.iter().any(|(one, _)| one == tag)];
                if seen != [expected; 3] {
                    wrong.push(format!("{name} of {what} at {version}: {seen:?} ({source})"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let idle: Vec<&str> = ATTRIBUTES.iter().filter(|(tag, ..)| !had.contains(tag) && !NOBODY_HAS.contains(tag)).map(|(_, name, ..)| *name).collect();
    assert!(idle.is_empty(), "no object has {idle:?}");
}

/// Objects that have all attributes together: one made by 1.4, others by 2.1.
fn objects(scene: &Scene) -> Vec<(&'static str, String)> {
    let (mut old, mut new) = (speaking(scene, Version::V1_4), speaking(scene, Version::V2_1));
    let of_1_4 = [(Tag::OperationPolicyName, Value::TextString("default".into()))];
    let policy = registered(&mut old, Version::V1_4, &of_1_4).id();
    let make = |number: u128, kind: ObjectType, attributes: Vec<(Tag, Value<'static>)>, object: Item<'static>| {
        let attributes = attributes.into_iter().map(|(tag, value)| Item::new(tag, value)).collect();
        let id = uuid::Uuid::from_u128(number).to_string();
        vec![uid(&id), Item::enumeration(Tag::ObjectType, kind), Item::structure(Tag::Attributes, attributes), object]
    };
    let mut import = |payload| new.call(Operation::Import, payload).id();
    let key =
        import(make(1, ObjectType::SymmetricKey, of_a_key(), Item::structure(Tag::SymmetricKey, vec![block(KeyFormatType::Raw, &[7; 32], Some((3, 256)))])));
    let opaque =
        Item::structure(Tag::OpaqueObject, vec![Item::new(Tag::OpaqueDataType, Value::Enumeration(0x8000_0001)), Item::bytes(Tag::OpaqueDataValue, vec![7])]);
    let opaque = import(make(2, ObjectType::OpaqueObject, vec![], opaque));
    let certificate =
        Item::structure(Tag::Certificate, vec![Item::new(Tag::CertificateType, Value::Enumeration(1)), Item::bytes(Tag::CertificateValue, certificate())]);
    let certificate = import(make(3, ObjectType::Certificate, vec![], certificate));
    let location = [(Tag::KeyValueLocationValue, Value::TextString("there".into())), (Tag::KeyValueLocationType, Value::Enumeration(1))];
    let location = Item::new(Tag::KeyValueLocation, structure(&location));
    assert_eq!(new.call(Operation::AddAttribute, vec![uid(&key), Item::structure(Tag::NewAttribute, vec![location])]).reason(), None);
    vec![("a policy", policy), ("a key", key), ("an opaque object", opaque), ("a certificate", certificate)]
}

fn of_a_key() -> Vec<(Tag, Value<'static>)> {
    let words = |text: &'static str| Value::TextString(text.into());
    let two = |first: (Tag, Value<'static>), second: (Tag, Value<'static>)| structure(&[first, second]);
    let mut all = vec![
        (Tag::Name, two((Tag::NameValue, words("n")), (Tag::NameType, Value::Enumeration(1)))),
        (Tag::CryptographicParameters, structure(&[(Tag::BlockCipherMode, Value::Enumeration(1))])),
        (Tag::CryptographicDomainParameters, structure(&[(Tag::RecommendedCurve, Value::Enumeration(1))])),
        (Tag::CryptographicUsageMask, Value::Integer(12)),
        (Tag::UsageLimits, two((Tag::UsageLimitsTotal, Value::LongInteger(9)), (Tag::UsageLimitsUnit, Value::Enumeration(1)))),
        (Tag::State, Value::Enumeration(4)),
        (Tag::RevocationReason, structure(&[(Tag::RevocationReasonCode, Value::Enumeration(2))])),
        (Tag::Link, two((Tag::LinkType, Value::Enumeration(0x101)), (Tag::LinkedObjectIdentifier, words("1")))),
        (Tag::ApplicationSpecificInformation, two((Tag::ApplicationNamespace, words("a")), (Tag::ApplicationData, words("b")))),
        (Tag::AlternativeName, two((Tag::AlternativeNameValue, words("a")), (Tag::AlternativeNameType, Value::Enumeration(1)))),
        (Tag::RandomNumberGenerator, structure(&[(Tag::RNGAlgorithm, Value::Enumeration(1))])),
        (Tag::NISTKeyType, Value::Enumeration(6)),
        (Tag::ProtectionLevel, Value::Enumeration(1)),
        (Tag::ProtectionPeriod, Value::Interval(7)),
        (Tag::QuantumSafe, Value::Boolean(true)),
    ];
    let dates = [
        Tag::ActivationDate,
        Tag::ProcessStartDate,
        Tag::ProtectStopDate,
        Tag::DeactivationDate,
        Tag::DestroyDate,
        Tag::CompromiseOccurrenceDate,
        Tag::CompromiseDate,
        Tag::ArchiveDate,
        Tag::OriginalCreationDate,
    ];
    all.extend(dates.map(|tag| (tag, Value::DateTime(1_000))));
    let texts = [Tag::ObjectGroup, Tag::ContactInformation, Tag::PKCS_12FriendlyName, Tag::Description, Tag::Comment];
    all.extend(texts.map(|tag| (tag, words("t"))));
    all
}

fn structure(items: &[(Tag, Value<'static>)]) -> Value<'static> {
    Value::Structure(items.iter().map(|(tag, value)| Item::new(*tag, value.clone())).collect())
}

fn block(format: KeyFormatType, material: &[u8], algorithm: Option<(u32, i32)>) -> Item<'static> {
    let mut items = vec![Item::enumeration(Tag::KeyFormatType, format), Item::structure(Tag::KeyValue, vec![Item::bytes(Tag::KeyMaterial, material.to_vec())])];
    if let Some((algorithm, length)) = algorithm {
        items.extend([Item::new(Tag::CryptographicAlgorithm, Value::Enumeration(algorithm)), Item::integer(Tag::CryptographicLength, length)]);
    }
    Item::structure(Tag::KeyBlock, items)
}

/// A certificate whose names have all the parts that KMIP knows.
fn certificate() -> Vec<u8> {
    let mut parameters = rcgen::CertificateParams::default();
    let parts: [&[u64]; 12] = [
        &[2, 5, 4, 3],
        &[2, 5, 4, 10],
        &[2, 5, 4, 11],
        &[1, 2, 840, 113_549, 1, 9, 1],
        &[2, 5, 4, 6],
        &[2, 5, 4, 8],
        &[2, 5, 4, 7],
        &[0, 9, 2342, 19_200_300, 100, 1, 1],
        &[2, 5, 4, 5],
        &[2, 5, 4, 12],
        &[0, 9, 2342, 19_200_300, 100, 1, 25],
        &[2, 5, 4, 46],
    ];
    parts.iter().for_each(|part| parameters.distinguished_name.push(rcgen::DnType::from_oid(part), "part"));
    parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

/// Registers secret data with attributes as they are.
fn registered(kmip: &mut Kmip, version: Version, attributes: &[(Tag, Value<'static>)]) -> Answer {
    let attributes = attributes.iter().map(|(tag, value)| written(version, *tag, value.clone())).collect();
    let data =
        Item::structure(Tag::SecretData, vec![Item::enumeration(Tag::SecretDataType, SecretDataType::Password), block(KeyFormatType::Opaque, b"secret", None)]);
    kmip.call(Operation::Register, vec![Item::enumeration(Tag::ObjectType, ObjectType::SecretData), holder(version, attributes), data])
}

/// Members of enumerations: where they stand, the number, the versions that have it.
#[rustfmt::skip] // A table.
const MEMBERS: &[(&[Tag], u32, Span, &str)] = &[
    (&[Tag::CryptographicAlgorithm], 0x19, EVER, "1.2 §9.1.3.2.13: Twofish"),
    (&[Tag::CryptographicAlgorithm], 0x1a, FROM_1_2, "1.2 §9.1.3.2.13: EC"),
    (&[Tag::CryptographicAlgorithm], 0x1b, FROM_1_3, "1.4 §9.1.3.2.13, since 1.3: One Time Pad"),
    (&[Tag::CryptographicAlgorithm], 0x1c, FROM_1_4, "1.4 §9.1.3.2.13: ChaCha20"),
    (&[Tag::CryptographicAlgorithm], 0x28, FROM_1_4, "1.4 §9.1.3.2.13: SHAKE-256"),
    (&[Tag::CryptographicAlgorithm], 0x29, FROM_2_0, "2.1 §11.12: ARIA"),
    (&[Tag::CryptographicAlgorithm], 0x38, FROM_2_0, "2.1 §11.12: Ed448"),
    (&[Tag::CryptographicParameters, Tag::BlockCipherMode], 0x11, EVER, "1.2 §9.1.3.2.14: X9.102 AKW2"),
    (&[Tag::CryptographicParameters, Tag::BlockCipherMode], 0x12, FROM_1_4, "1.4 §9.1.3.2.14: AEAD"),
    (&[Tag::CryptographicParameters, Tag::HashingAlgorithm], 0x0b, EVER, "1.2 §9.1.3.2.16: Whirlpool"),
    (&[Tag::CryptographicParameters, Tag::HashingAlgorithm], 0x0c, FROM_1_2, "1.2 §9.1.3.2.16: SHA-512/224"),
    (&[Tag::CryptographicParameters, Tag::HashingAlgorithm], 0x0e, FROM_1_4, "1.4 §9.1.3.2.16: SHA3-224"),
    (&[Tag::CryptographicParameters, Tag::KeyRoleType], 0x15, EVER, "1.2 §9.1.3.2.17: PVKOTH"),
    (&[Tag::CryptographicParameters, Tag::KeyRoleType], 0x16, FROM_1_4, "1.4 §9.1.3.2.17: DUKPT"),
    (&[Tag::CryptographicParameters, Tag::PaddingMethod], 0x0a, EVER, "1.2 §9.1.3.2.15: PSS"),
    (&[Tag::CryptographicDomainParameters, Tag::RecommendedCurve], 0x0f, EVER, "1.2 §9.1.3.2.5: B-571"),
    (&[Tag::CryptographicDomainParameters, Tag::RecommendedCurve], 0x10, FROM_1_2, "1.2 §9.1.3.2.5: SECP112R1"),
    (&[Tag::CryptographicDomainParameters, Tag::RecommendedCurve], 0x45, FROM_2_0, "2.1 §11.45: CURVE25519"),
    (&[Tag::Link, Tag::LinkType], 0x107, EVER, "1.2 §9.1.3.2.20: Replaced Object Link"),
    (&[Tag::Link, Tag::LinkType], 0x108, FROM_1_2, "1.2 §9.1.3.2.20: Parent Link"),
    (&[Tag::Link, Tag::LinkType], 0x10c, FROM_1_4, "1.4 §9.1.3.2.20: PKCS#12 Certificate Link"),
    (&[Tag::Link, Tag::LinkType], 0x10e, FROM_2_0, "2.1 §11.28: Wrapping Key Link"),
];

/// A client can send what its version has, and is shown what it has: the attribute as a whole, or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_enumerations_by_version() {
    let scene = scene().await;
    let value = |place: &[Tag], number: u32| match place {
        [_, item] => {
            let mut items = vec![Item::new(*item, Value::Enumeration(number))];
            items.extend((*item == Tag::LinkType).then(|| Item::text(Tag::LinkedObjectIdentifier, "1")));
            Value::Structure(items)
        }
        _ => Value::Enumeration(number),
    };
    let mut wrong = Vec::new();
    let mut clients: Vec<(Version, Kmip)> = Version::SUPPORTED.iter().map(|version| (*version, speaking(&scene, *version))).collect();
    for (place, number, span, source) in MEMBERS {
        let attribute = [(place[0], value(place, *number))];
        let mut id = None;
        for (version, kmip) in &mut clients {
            let answer = registered(kmip, *version, &attribute);
            let later = if *version < Version::V2_0 { ResultReason::InvalidField } else { ResultReason::InvalidAttributeValue };
            let expected = (!has(*span, *version)).then_some(later);
            if answer.reason() != expected {
                wrong.push(format!("{source} sent at {version}: {:?} {}", answer.reason(), answer.message()));
            }
            id = id.or_else(|| answer.reason().is_none().then(|| answer.id()));
        }
        let id = id.unwrap_or_else(|| panic!("no version could send {source}"));
        for (version, kmip) in &mut clients {
            let seen: Vec<_> = shown(kmip, *version, &id).into_iter().filter(|(tag, _)| *tag == place[0]).collect();
            let listed = kmip.attribute_list(&id).iter().any(|name| ATTRIBUTES.iter().any(|(tag, known, ..)| *tag == place[0] && known == name));
            let expected: &[_] = if has(*span, *version) { &attribute } else { &[] };
            if seen != expected || listed != has(*span, *version) {
                wrong.push(format!("{source} shown at {version}: {seen:?}, listed {listed}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A hidden instance is not there for who cannot see it: neither to change nor to take away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_shown_cannot_be_touched() {
    let scene = scene().await;
    let (mut new, mut old) = (speaking(&scene, Version::V1_4), speaking(&scene, Version::V1_0));
    let link = |kind| structure(&[(Tag::LinkType, Value::Enumeration(kind)), (Tag::LinkedObjectIdentifier, Value::TextString("1".into()))]);
    let id = registered(&mut new, Version::V1_4, &[(Tag::Link, link(0x10c)), (Tag::Link, link(0x101))]).id();
    let delete = |kmip: &mut Kmip| kmip.call(Operation::DeleteAttribute, vec![uid(&id), Item::text(Tag::AttributeName, "Link")]).reason();
    assert_eq!(delete(&mut old), Some(ResultReason::ItemNotFound), "the instance 0 came with 1.4");
    let modify = old.call(Operation::ModifyAttribute, vec![uid(&id), written(Version::V1_0, Tag::Link, link(0x102))]);
    assert_eq!(modify.reason(), Some(ResultReason::ItemNotFound));
    assert_eq!(shown(&mut old, Version::V1_0, &id).into_iter().filter(|(tag, _)| *tag == Tag::Link).collect::<Vec<_>>(), [(Tag::Link, link(0x101))]);
    assert_eq!(delete(&mut new), None);
}

/// Bits of masks: what a client is shown, and whether it can send them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bits_of_masks_by_version() {
    let scene = scene().await;
    let mut wrong = Vec::new();
    let rows: &[(i32, Span, &str)] = &[
        (0x20, EVER, "1.2 §9.1.3.3.1: Unwrap Key"),
        (0x40, TO_1_4, "1.2 §9.1.3.3.1: Export; reserved in 2.1 §12.1"),
        (0x400, TO_1_4, "1.2 §9.1.3.3.1: Content Commitment; reserved in 2.1 §12.1"),
        (0x800, EVER, "1.2 §9.1.3.3.1: Key Agreement"),
        (0x2000, EVER, "1.2 §9.1.3.3.1: CRL Sign"),
        (0x4000, TO_1_4, "1.2 §9.1.3.3.1: Generate Cryptogram; reserved in 2.1 §12.1"),
        (0x8_0000, TO_1_4, "1.2 §9.1.3.3.1: Translate Unwrap; reserved in 2.1 §12.1"),
        (0x10_0000, FROM_2_0, "2.1 §12.1: Authenticate"),
        (0x20_0000, FROM_2_0, "2.1 §12.1: Unrestricted"),
        (0x80_0000, FROM_2_0, "2.1 §12.1: FPE Decrypt"),
    ];
    let mut clients: Vec<(Version, Kmip)> = Version::SUPPORTED.iter().map(|version| (*version, speaking(&scene, *version))).collect();
    for (bit, span, source) in rows {
        let mut id = None;
        for (version, kmip) in &mut clients {
            let answer = registered(kmip, *version, &[(Tag::CryptographicUsageMask, Value::Integer(4 | bit))]);
            if answer.reason().is_none() != has(*span, *version) {
                wrong.push(format!("{source} sent at {version}: {:?}", answer.reason()));
            }
            id = id.or_else(|| answer.reason().is_none().then(|| answer.id()));
        }
        let id = id.unwrap();
        for (version, kmip) in &mut clients {
            let expected = if has(*span, *version) { 4 | bit } else { 4 };
            if !shown(kmip, *version, &id).contains(&(Tag::CryptographicUsageMask, Value::Integer(expected))) {
                wrong.push(format!("{source} shown at {version}"));
            }
            let check = kmip.call(Operation::Check, vec![uid(&id), Item::integer(Tag::CryptographicUsageMask, *bit)]);
            let reason = (!has(*span, *version)).then_some(ResultReason::InvalidField);
            if check.reason() != reason {
                wrong.push(format!("{source} checked at {version}: {:?}", check.reason()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Get gives out a key that the version has words for, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_by_version() {
    let scene = scene().await;
    let key = |format: KeyFormatType, algorithm: u32| {
        let items = match format {
            KeyFormatType::Raw => return Item::structure(Tag::SymmetricKey, vec![block(format, &[7; 16], Some((algorithm, 128)))]),
            KeyFormatType::PKCS_8 => return Item::structure(Tag::PrivateKey, vec![block(format, &[7; 16], Some((algorithm, 128)))]),
            _ => vec![Item::new(Tag::RecommendedCurve, Value::Enumeration(7)), Item::new(Tag::D, Value::BigInteger(vec![7; 8].into()))],
        };
        let value = Item::structure(Tag::KeyValue, vec![Item::structure(Tag::KeyMaterial, items)]);
        let length = [Item::new(Tag::CryptographicAlgorithm, Value::Enumeration(algorithm)), Item::integer(Tag::CryptographicLength, 256)];
        let items = [Item::enumeration(Tag::KeyFormatType, format), value].into_iter().chain(length).collect();
        Item::structure(Tag::PrivateKey, vec![Item::structure(Tag::KeyBlock, items)])
    };
    let (format, algorithm) = (ResultReason::KeyFormatTypeNotSupported, ResultReason::FeatureNotSupported);
    let rows = [
        (KeyFormatType::Raw, 3, EVER, format, "1.0: AES"),
        (KeyFormatType::Raw, 0x29, FROM_2_0, algorithm, "2.1 §11.12: ARIA"),
        (KeyFormatType::PKCS_8, 0x1a, FROM_1_2, algorithm, "1.2 §9.1.3.2.13: EC"),
        (KeyFormatType::TransparentECDSAPrivateKey, 6, TO_1_4, format, "1.2 §9.1.3.2.3, reserved in 2.1 §11.25: Transparent ECDSA Private Key"),
        (KeyFormatType::TransparentECPrivateKey, 6, FROM_1_3, format, "1.4 §9.1.3.2.3, since 1.3: Transparent EC Private Key"),
    ];
    for (of, named, span, reason, source) in rows {
        let mut id = None;
        for version in Version::SUPPORTED {
            let object = key(of, named);
            let kind = if object.tag == Tag::SymmetricKey { ObjectType::SymmetricKey } else { ObjectType::PrivateKey };
            let payload = vec![Item::enumeration(Tag::ObjectType, kind), holder(*version, vec![]), object];
            let answer = speaking(&scene, *version).call(Operation::Register, payload);
            assert_eq!(answer.reason(), (!has(span, *version)).then_some(ResultReason::InvalidField), "{source} sent at {version}: {}", answer.message());
            id = id.or_else(|| answer.reason().is_none().then(|| answer.id()));
        }
        let id = id.unwrap();
        for version in Version::SUPPORTED {
            let answer = speaking(&scene, *version).get(&id);
            assert_eq!(answer.reason(), (!has(span, *version)).then_some(reason), "{source} at {version}: {}", answer.message());
        }
    }
}

/// Fields of requests that came later are no fields of earlier versions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_requests_by_version() {
    let scene = scene().await;
    let id = scene.connect().created(vec![]);
    let wrapping = |item| {
        let key = Item::structure(Tag::EncryptionKeyInformation, vec![uid(&id)]);
        Item::structure(Tag::KeyWrappingSpecification, vec![Item::new(Tag::WrappingMethod, Value::Enumeration(1)), key, item])
    };
    let rows = [
        (Operation::Locate, Item::integer(Tag::MaximumItems, 1), EVER, "1.2 §4.9"),
        (Operation::Locate, Item::new(Tag::ObjectGroupMember, Value::Enumeration(1)), FROM_1_1, "1.2 §4.9, since 1.1"),
        (Operation::Locate, Item::integer(Tag::OffsetItems, 0), FROM_1_3, "1.4 §4.9, since 1.3"),
        (Operation::Locate, Item::integer(Tag::StorageStatusMask, 2), EVER, "1.2 §9.1.3.3.2: archival storage"),
        (Operation::Locate, Item::integer(Tag::StorageStatusMask, 4), FROM_2_0, "2.1 §12.3: destroyed storage"),
        (Operation::Get, Item::new(Tag::KeyWrapType, Value::Enumeration(1)), FROM_1_4, "1.4 §4.11"),
        (Operation::Get, wrapping(Item::new(Tag::EncodingOption, Value::Enumeration(1))), FROM_1_1, "1.2 §2.1.6, since 1.1"),
    ];
    for version in Version::SUPPORTED {
        let mut kmip = speaking(&scene, *version);
        for (operation, field, span, source) in &rows {
            let mut payload = vec![field.clone()];
            payload.extend((*operation == Operation::Get).then(|| uid(&id)));
            let reason = kmip.call(*operation, payload).reason();
            let refused = reason == Some(ResultReason::InvalidField);
            assert_eq!(refused, !has(*span, *version), "{source} at {version}: {reason:?}");
        }
    }
}

/// What Query says, and what Discover Versions says, at each version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_and_types_by_version() {
    let scene = scene().await;
    let operations = [
        (EVER, vec![Operation::Query, Operation::Create, Operation::Register, Operation::ReKey, Operation::Locate, Operation::Check, Operation::Get]),
        (EVER, vec![Operation::GetAttributes, Operation::GetAttributeList, Operation::AddAttribute, Operation::ModifyAttribute, Operation::DeleteAttribute]),
        (EVER, vec![Operation::ObtainLease, Operation::GetUsageAllocation, Operation::Activate, Operation::Revoke, Operation::Destroy]),
        (FROM_1_1, vec![Operation::DiscoverVersions]),
        (FROM_1_2, vec![Operation::Encrypt, Operation::Decrypt, Operation::RNGRetrieve]),
        (FROM_1_4, vec![Operation::Import, Operation::Export]),
        (FROM_2_0, vec![Operation::SetAttribute, Operation::AdjustAttribute]),
    ];
    let types = [
        (
            EVER,
            vec![
                ObjectType::Certificate,
                ObjectType::SymmetricKey,
                ObjectType::PublicKey,
                ObjectType::PrivateKey,
                ObjectType::SecretData,
                ObjectType::OpaqueObject,
            ],
        ),
        (TO_1_4, vec![ObjectType::Template]),
    ];
    for version in Version::SUPPORTED {
        let mut kmip = speaking(&scene, *version);
        // A client may ask for what came later, before it knows what is spoken: that has no answer.
        let functions = (1..=14).map(|number| Item::enumeration(Tag::QueryFunction, QueryFunction::from_number(number).unwrap())).collect();
        let answer = kmip.call(Operation::Query, functions);
        let numbers = |tag: Tag| -> BTreeSet<u32> {
            let items = answer.payload().items().iter().filter(|item| item.tag == tag);
            items.map(|item| if let Value::Enumeration(number) = item.value { number } else { panic!("{item:?}") }).collect()
        };
        let expected: BTreeSet<u32> =
            operations.iter().filter(|(span, _)| has(*span, *version)).flat_map(|(_, all)| all).map(|operation| operation.number()).collect();
        assert_eq!(numbers(Tag::Operation), expected, "operations at {version}");
        let expected: BTreeSet<u32> = types.iter().filter(|(span, _)| has(*span, *version)).flat_map(|(_, all)| all).map(|kind| kind.number()).collect();
        assert_eq!(numbers(Tag::ObjectType), expected, "types at {version}");
        for (tag, span) in [(Tag::VendorIdentification, EVER), (Tag::RNGParameters, FROM_1_3), (Tag::ProtectionStorageMasks, FROM_2_0)] {
            assert_eq!(answer.payload().find(tag).is_some(), has(span, *version), "{tag} at {version}");
        }
        let discovered = kmip.call(Operation::DiscoverVersions, vec![]);
        assert_eq!(discovered.reason().is_none(), has(FROM_1_1, *version), "1.1 §4.26 at {version}");
    }
}
