//! What makes objects, what finds them, and what needs none: every such operation by type of object, state and version. What is done with objects that are there stands in `kmip_matrix.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Answer, Kmip, text, uid};
use common::objects::{ELSEWHERE, der, is_listed, object, offered};
use common::scene::{Scene, scene};
use common::versions::{EVER, FROM_1_1, FROM_1_2, FROM_1_4, FROM_2_0, Span, TO_1_4, has, holder, speaking, written};
use keystead_kmip::enumeration::{Enumeration as _, ObjectType, Operation, QueryFunction, ResultReason as R, RevocationReasonCode, State};
use keystead_kmip::ttlv::{Node as Item, Value};
use keystead_kmip::{Tag, Version};
use std::collections::BTreeSet;

const KEPT: &[ObjectType] =
    &[ObjectType::SymmetricKey, ObjectType::SecretData, ObjectType::OpaqueObject, ObjectType::Certificate, ObjectType::PublicKey, ObjectType::PrivateKey];
const TEMPLATE: &[ObjectType] = &[ObjectType::Template];
const KEY: &[ObjectType] = &[ObjectType::SymmetricKey];
const NOT_KEPT: &[ObjectType] = &[ObjectType::SplitKey, ObjectType::PGPKey, ObjectType::CertificateRequest];
const ALL: &[ObjectType] = &[
    ObjectType::SymmetricKey,
    ObjectType::SecretData,
    ObjectType::OpaqueObject,
    ObjectType::Certificate,
    ObjectType::PublicKey,
    ObjectType::PrivateKey,
    ObjectType::Template,
    ObjectType::SplitKey,
    ObjectType::PGPKey,
    ObjectType::CertificateRequest,
];
const TO_1_3: Span = (Version::V1_0, Version::V1_3);

/// An operation that makes an object, of which types, at which versions, the reason in 1.x and in 2.x or none, and where that stands.
type Line = (Operation, &'static [ObjectType], Span, Option<(R, R)>, &'static str);

#[rustfmt::skip] // A table; the first line that fits counts.
const MAKING: &[Line] = &[
    (Operation::Create, KEY, EVER, None, "1.4 §4.1; 2.1 §6.1.8"),
    (Operation::Create, ALL, EVER, Some((R::InvalidField, R::InvalidObjectType)), "1.4 §4.1, §11.1: symmetric keys alone; 2.1 §6.1.8.1"),
    (Operation::Register, KEPT, EVER, None, "1.4 §4.3; 2.1 §6.1.42"),
    (Operation::Register, TEMPLATE, TO_1_4, None, "1.4 §2.2.6, §4.3"),
    (Operation::Register, TEMPLATE, FROM_2_0, Some((R::InvalidField, R::InvalidObjectType)), "2.1 §11.34: reserved; §6.1.42.1"),
    (Operation::Register, NOT_KEPT, EVER, Some((R::InvalidField, R::InvalidObjectType)), "1.4 §11.3; 2.1 §6.1.42.1; decision 17"),
    (Operation::Import, ALL, TO_1_3, Some((R::OperationNotSupported, R::OperationNotSupported)), "1.4 brought it"),
    (Operation::Import, KEPT, FROM_1_4, None, "1.4 §4.42; 2.1 §6.1.25"),
    (Operation::Import, ALL, FROM_1_4, Some((R::InvalidField, R::InvalidField)), "1.4 §4.42; 2.1 §6.1.25.1"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_make_every_object_at_every_version() {
    let scene = scene().await;
    let certificate = der(&scene);
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    let mut number = 0;
    for version in Version::SUPPORTED {
        let mut kmip = speaking(&scene, *version);
        for operation in [Operation::Create, Operation::Register, Operation::Import] {
            for kind in ALL {
                let fits = |(known, kinds, span, ..): &Line| *known == operation && kinds.contains(kind) && has(*span, *version);
                let at = MAKING.iter().position(fits).unwrap_or_else(|| panic!("no line says what {operation:?} of a {kind:?} does at {version}"));
                used.insert(at);
                let (.., expected, source) = &MAKING[at];
                number += 1;
                let id = uuid::Uuid::from_u128(number).to_string();
                let answer = kmip.call(operation, making(operation, *kind, *version, &certificate, &id));
                let expected = expected.map(|(first, second)| if *version < Version::V2_0 { first } else { second });
                if answer.reason() != expected {
                    wrong.push(format!(
                        "{operation:?} of a {kind:?} at {version}: expected {expected:?} ({source}), got {:?} {}",
                        answer.reason(),
                        answer.message()
                    ));
                }
                if let Some(reason) = answer.reason().filter(|reason| *version >= Version::V2_0 && !is_listed(operation, *reason)) {
                    wrong.push(format!("{operation:?} of a {kind:?} at {version}: {reason:?} is no reason of this operation (2.1 §6.1)"));
                }
                if answer.reason().is_none() {
                    let named = kmip.call(Operation::GetAttributes, vec![uid(&answer.id())]);
                    assert!(named.reason().is_none() && (operation != Operation::Import || answer.id() == id), "it is there, under its identifier");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(used.len(), MAKING.len(), "a line that nothing fits");
}

fn making(operation: Operation, kind: ObjectType, version: Version, certificate: &[u8], id: &str) -> Vec<Item<'static>> {
    let usual = [
        (Tag::CryptographicAlgorithm, Value::Enumeration(3)),
        (Tag::CryptographicLength, Value::Integer(256)),
        (Tag::CryptographicUsageMask, Value::Integer(12)),
    ];
    let all: Vec<_> = usual.into_iter().filter(|_| operation == Operation::Create).map(|(tag, value)| written(version, tag, value)).collect();
    let mut payload = vec![Item::enumeration(Tag::ObjectType, kind)];
    payload.extend((operation == Operation::Import).then(|| uid(id)));
    payload.extend((operation != Operation::Import || version >= Version::V2_0).then(|| holder(version, all)));
    // What no type here is sent as: the server looks at the type first.
    let sent = if KEPT.contains(&kind) || kind == ObjectType::Template { kind } else { ObjectType::OpaqueObject };
    payload.extend((operation != Operation::Create).then(|| object(sent, certificate)));
    payload
}

/// What is found by default, by its state, and by the mask of 2.x: 1.4 §4.9 and 2.1 §6.1.27; what is destroyed is not on-line (decision 11).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_by_type_state_and_version() {
    let scene = scene().await;
    let certificate = der(&scene);
    let mut maker = scene.connect();
    let mut wrong = Vec::new();
    for kind in KEPT.iter().chain(TEMPLATE) {
        let stateless = [ObjectType::OpaqueObject, ObjectType::Template].contains(kind);
        let states: &[Option<State>] = match stateless {
            true => &[None],
            false => &[State::PreActive, State::Active, State::Deactivated, State::Compromised, State::Destroyed, State::DestroyedCompromised].map(Some),
        };
        for (state, destroyed) in
            states.iter().map(|state| (*state, matches!(state, Some(State::Destroyed | State::DestroyedCompromised)))).chain(stateless.then_some((None, true)))
        {
            let id = maker.call(Operation::Register, making(Operation::Register, *kind, Version::V1_4, &certificate, "")).id();
            bring(&mut maker, &id, state);
            if destroyed {
                maker.with_id(Operation::Destroy, &id).id();
            }
            for version in Version::SUPPORTED {
                let mut kmip = speaking(&scene, *version);
                if *kind == ObjectType::Template && *version >= Version::V2_0 {
                    let of = |attribute| vec![Item::structure(Tag::Attributes, vec![attribute])];
                    let by_type = kmip.call(Operation::Locate, of(Item::enumeration(Tag::ObjectType, *kind)));
                    assert_eq!(by_type.reason(), Some(R::InvalidAttribute), "2.1 §11.34: reserved; §6.1.27.1");
                    assert!(ids(&kmip.call(Operation::Locate, of(uid(&id)))).is_empty());
                    continue;
                }
                let known = *kind != ObjectType::Template || !destroyed;
                let by = |more: Vec<(Tag, Value<'static>)>, field: Option<Item<'static>>| {
                    let attributes = std::iter::once((Tag::ObjectType, Value::Enumeration(kind.number()))).chain(more);
                    let attributes: Vec<_> = attributes.map(|(tag, value)| written(*version, tag, value)).collect();
                    let wanted = if *version < Version::V2_0 { attributes } else { vec![Item::structure(Tag::Attributes, attributes)] };
                    field.into_iter().chain(wanted).collect::<Vec<_>>()
                };
                let name = |value: &str| (Tag::UniqueIdentifier, Value::TextString(value.to_owned().into()));
                let mut rows = vec![("all", by(vec![], None), known && !destroyed), ("its identifier", by(vec![name(&id)], None), known && !destroyed)];
                if let Some(state) = state {
                    let other = if state == State::Active { State::PreActive } else { State::Active };
                    let of = |state: State| (Tag::State, Value::Enumeration(state.number()));
                    rows.push(("its state", by(vec![of(state)], None), known));
                    rows.push(("another state", by(vec![of(other)], None), false));
                }
                if *version >= Version::V2_0 {
                    rows.push(("on-line and destroyed", by(vec![], Some(Item::integer(Tag::StorageStatusMask, 5))), known));
                    rows.push(("destroyed", by(vec![], Some(Item::integer(Tag::StorageStatusMask, 4))), known && destroyed));
                }
                for (what, payload, expected) in rows {
                    let found = ids(&kmip.call(Operation::Locate, payload)).contains(&id);
                    if found != expected {
                        wrong.push(format!("a {kind:?} {state:?} (destroyed: {destroyed}) at {version}, looked for by {what}: found {found}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn bring(kmip: &mut Kmip, id: &str, state: Option<State>) {
    let revoke = |kmip: &mut Kmip, code| {
        let reason = Item::structure(Tag::RevocationReason, vec![Item::enumeration(Tag::RevocationReasonCode, code)]);
        kmip.call(Operation::Revoke, vec![uid(id), reason]).id();
    };
    if let Some(State::Active | State::Deactivated) = state {
        kmip.with_id(Operation::Activate, id).id();
    }
    match state {
        Some(State::Deactivated) => revoke(kmip, RevocationReasonCode::CessationOfOperation),
        Some(State::Compromised | State::DestroyedCompromised) => revoke(kmip, RevocationReasonCode::KeyCompromise),
        _ => {}
    }
}

fn ids(answer: &Answer) -> Vec<String> {
    answer.payload().items().iter().map(|item| text(&item.value)).collect()
}

/// Query, Discover Versions and RNG Retrieve: 1.4 §4.25, §4.26 and §4.35; 2.1 §6.1.39, §6.1.16 and §6.1.50.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_no_object_by_version() {
    let scene: Scene = scene().await;
    for version in Version::SUPPORTED {
        let mut kmip = speaking(&scene, *version);
        let calls = [
            (Operation::Query, vec![Item::enumeration(Tag::QueryFunction, QueryFunction::QueryObjects)], EVER),
            (Operation::DiscoverVersions, vec![], FROM_1_1),
            (Operation::RNGRetrieve, vec![Item::integer(Tag::DataLength, 32)], FROM_1_2),
        ];
        for (operation, payload, span) in calls {
            let reason = kmip.call(operation, payload).reason();
            assert_eq!(reason, (!has(span, *version)).then_some(R::OperationNotSupported), "{operation:?} at {version}");
        }
        let offered: BTreeSet<u32> = offered(&mut kmip).into_iter().collect();
        let first = |operation| match operation {
            Operation::DiscoverVersions => FROM_1_1,
            Operation::RNGRetrieve => FROM_1_2,
            Operation::Import => FROM_1_4,
            _ => EVER,
        };
        for operation in ELSEWHERE {
            assert_eq!(offered.contains(&operation.number()), has(first(operation), *version), "{operation:?} at {version}");
        }
    }
}
