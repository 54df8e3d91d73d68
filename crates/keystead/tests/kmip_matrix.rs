//! Every operation on every type of object in every state at every version: what comes of it stands in a table, with the place in the specification that says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Kmip, held, own, template, uid};
use common::objects::{ELSEWHERE, der, is_listed, object, offered};
use common::scene::scene;
use keystead_kmip::attribute::{Attribute, Identity, reference_to_node};
use keystead_kmip::enumeration::{
    AdjustmentType, BatchErrorContinuationOption, BlockCipherMode, Enumeration, ObjectType, Operation, PaddingMethod, ResultReason as R, RevocationReasonCode,
    State,
};
use keystead_kmip::ttlv::{Node as Item, Value};
use keystead_kmip::{Tag, Version};
use std::collections::{BTreeMap, BTreeSet};

/// What is tried: an operation, and of Revoke each of its two effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Get,
    Export,
    GetAttributes,
    GetAttributeList,
    Check,
    ObtainLease,
    Encrypt,
    Decrypt,
    GetUsageAllocation,
    AddAttribute,
    ModifyAttribute,
    SetAttribute,
    AdjustAttribute,
    DeleteAttribute,
    ReKey,
    Activate,
    RevokeForGood,
    RevokeForCompromise,
    Destroy,
}

use Act::*;

const ACTS: [Act; 19] = [
    Get,
    Export,
    GetAttributes,
    GetAttributeList,
    Check,
    ObtainLease,
    Encrypt,
    Decrypt,
    GetUsageAllocation,
    AddAttribute,
    ModifyAttribute,
    SetAttribute,
    AdjustAttribute,
    DeleteAttribute,
    ReKey,
    Activate,
    RevokeForGood,
    RevokeForCompromise,
    Destroy,
];

/// What an object is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Being {
    PreActive,
    Active,
    Deactivated,
    Compromised,
    Destroyed,
    DestroyedCompromised,
    /// An object without states: it is there.
    There,
    /// And it is not there any more.
    Gone,
}

use Being::*;

const STATES: [Being; 6] = [PreActive, Active, Deactivated, Compromised, Destroyed, DestroyedCompromised];
const STATELESS: [Being; 2] = [There, Gone];
const LIVING: &[Being] = &[PreActive, Active, Deactivated, Compromised, There];
const ENDED: &[Being] = &[Destroyed, DestroyedCompromised, Gone];
const ANY: &[Being] = &[PreActive, Active, Deactivated, Compromised, Destroyed, DestroyedCompromised, There, Gone];

const KINDS: [ObjectType; 7] = [
    ObjectType::SymmetricKey,
    ObjectType::SecretData,
    ObjectType::OpaqueObject,
    ObjectType::Certificate,
    ObjectType::PublicKey,
    ObjectType::PrivateKey,
    ObjectType::Template,
];
const ALL: &[ObjectType] = &KINDS;
const KEY: &[ObjectType] = &[ObjectType::SymmetricKey];
const WITHOUT_STATE: &[ObjectType] = &[ObjectType::OpaqueObject, ObjectType::Template];
const TEMPLATE: &[ObjectType] = &[ObjectType::Template];

/// A line of the table: the first that fits counts.
struct Line {
    acts: &'static [Act],
    kinds: &'static [ObjectType],
    beings: &'static [Being],
    /// The versions for which it holds, both ends included.
    versions: (Version, Version),
    /// The reasons of 1.x and of 2.x; none where it works.
    outcome: Option<(R, R)>,
    /// Where that stands: sections of the specification 1.4 and 2.1, or of this project's decisions.
    source: &'static str,
}

const fn line(
    acts: &'static [Act],
    kinds: &'static [ObjectType],
    beings: &'static [Being],
    versions: (Version, Version),
    outcome: Option<(R, R)>,
    source: &'static str,
) -> Line {
    Line { acts, kinds, beings, versions, outcome, source }
}

const EVER: (Version, Version) = (Version::V1_0, Version::V2_1);
const TO_1_1: (Version, Version) = (Version::V1_0, Version::V1_1);
const TO_1_3: (Version, Version) = (Version::V1_0, Version::V1_3);
const TO_1_4: (Version, Version) = (Version::V1_0, Version::V1_4);
const FROM_2: (Version, Version) = (Version::V2_0, Version::V2_1);
const WORKS: Option<(R, R)> = None;

const fn fails(first: R, second: R) -> Option<(R, R)> {
    Some((first, second))
}

#[rustfmt::skip] // A table.
const TABLE: &[Line] = &[
    line(&[Encrypt, Decrypt], ALL, ANY, TO_1_1, fails(R::OperationNotSupported, R::OperationNotSupported), "1.2 brought them: 1.2 §4.29, §4.30"),
    line(&[Export], ALL, ANY, TO_1_3, fails(R::OperationNotSupported, R::OperationNotSupported), "1.4 brought it: 1.4 §4.41"),
    line(&[SetAttribute, AdjustAttribute], ALL, ANY, TO_1_4, fails(R::OperationNotSupported, R::OperationNotSupported), "2.0 brought them: 2.1 §6.1.3, §6.1.51"),
    line(&ACTS, TEMPLATE, ANY, FROM_2, fails(R::ItemNotFound, R::ObjectNotFound), "2.1 §11.34: Template is reserved; decision 17"),

    line(&ACTS, TEMPLATE, &[Gone], EVER, fails(R::ItemNotFound, R::ObjectNotFound), "1.4 §4.21: destroyed with all meta-data"),

    line(&[Get], ALL, LIVING, EVER, WORKS, "1.4 §4.11, §3.22; 2.1 §6.1.19"),
    line(&[Get], ALL, ENDED, EVER, fails(R::ItemNotFound, R::ObjectDestroyed), "1.4 §11.12, decision 11; 2.1 §11.46"),
    line(&[Export], ALL, ANY, EVER, WORKS, "1.4 §4.41; 2.1 §6.1.18: of a destroyed object, without the key"),
    line(&[GetAttributes, GetAttributeList], ALL, ANY, EVER, WORKS, "1.4 §4.12, §4.13, §4.21: attributes outlive the object; 2.1 §6.1.20, §6.1.21"),

    line(&[Check, ObtainLease], ALL, ENDED, EVER, fails(R::ItemNotFound, R::ObjectDestroyed), "1.4 §11.11, §11.18; 2.1 §11.46"),
    line(&[Check], WITHOUT_STATE, LIVING, EVER, fails(R::IllegalOperation, R::IllegalObjectType), "1.4 §11.11; 2.1 §6.1.7.1"),
    line(&[ObtainLease], WITHOUT_STATE, LIVING, EVER, fails(R::IllegalOperation, R::InvalidField), "1.4 §11.18; 2.1 §6.1.35.1"),
    line(&[Check, ObtainLease], ALL, LIVING, EVER, WORKS, "1.4 §4.10, §4.17; 2.1 §6.1.7, §6.1.35"),

    line(&[Encrypt, Decrypt], ALL, ENDED, EVER, fails(R::ItemNotFound, R::ObjectDestroyed), "1.4 §11.30, §11.31; 2.1 §11.46"),
    line(&[Encrypt, Decrypt], KEY, &[Active], EVER, WORKS, "1.4 §4.29, §4.30, §3.22"),
    line(&[Encrypt, Decrypt], KEY, LIVING, EVER, fails(R::PermissionDenied, R::WrongKeyLifecycleState), "1.4 §3.22; 2.1 §6.1.11.1, §6.1.17.1; decision 17"),
    line(&[Encrypt, Decrypt], ALL, LIVING, EVER, fails(R::IllegalOperation, R::InvalidObjectType), "1.4 §11.30; 2.1 §6.1.17.1; decision 17: AES keys alone"),

    line(&[GetUsageAllocation], ALL, ENDED, EVER, fails(R::ItemNotFound, R::ObjectDestroyed), "1.4 §11.19; 2.1 §11.46"),
    line(&[GetUsageAllocation], TEMPLATE, LIVING, EVER, fails(R::IllegalOperation, R::AttributeNotFound), "1.4 §11.19: it has no Usage Limits"),
    line(&[GetUsageAllocation], ALL, &[Active], EVER, WORKS, "1.4 §4.18; 2.1 §6.1.23"),
    line(&[GetUsageAllocation], ALL, LIVING, EVER, fails(R::IllegalOperation, R::PermissionDenied), "1.4 §11.19: it cannot protect anything now; 2.1 §6.1.23.1"),

    line(&[AddAttribute, ModifyAttribute, SetAttribute, AdjustAttribute, DeleteAttribute], ALL, ANY, EVER, WORKS, "1.4 §3.39, §4.14 to §4.16; 2.1 §4.60: in every state"),

    line(&[ReKey], ALL, ENDED, EVER, fails(R::ItemNotFound, R::ObjectDestroyed), "1.4 §11.4; 2.1 §11.46"),
    line(&[ReKey], KEY, LIVING, EVER, WORKS, "1.4 §4.4; 2.1 §6.1.46"),
    line(&[ReKey], ALL, LIVING, EVER, fails(R::PermissionDenied, R::InvalidObjectType), "1.4 §4.4; 2.1 §6.1.46.1"),

    line(&[Activate, RevokeForGood, RevokeForCompromise], WITHOUT_STATE, ANY, EVER, fails(R::IllegalOperation, R::InvalidObjectType), "1.4 §11.20, §11.21, §3.22; 2.1 §6.1.1.1"),
    line(&[Activate], ALL, &[PreActive], EVER, WORKS, "1.4 §4.19; 2.1 §6.1.1"),
    line(&[Activate], ALL, ANY, EVER, fails(R::PermissionDenied, R::WrongKeyLifecycleState), "1.4 §11.20; 2.1 §6.1.1.1"),
    line(&[RevokeForGood], ALL, &[Active], EVER, WORKS, "1.4 §4.20, §3.22 transition 6"),
    line(&[RevokeForGood], ALL, ANY, EVER, fails(R::IllegalOperation, R::WrongKeyLifecycleState), "1.4 §3.22: no transition; 2.1 §6.1.44.1"),
    line(&[RevokeForCompromise], ALL, ANY, EVER, WORKS, "1.4 §3.22 transitions 3, 5, 8 and 10"),
    line(&[Destroy], ALL, ENDED, EVER, fails(R::PermissionDenied, R::ObjectDestroyed), "1.4 §11.22; 2.1 §11.46"),
    line(&[Destroy], ALL, &[Active], EVER, fails(R::PermissionDenied, R::WrongKeyLifecycleState), "1.4 §11.22, §3.22; 2.1 §6.1.15.1"),
    line(&[Destroy], ALL, LIVING, EVER, WORKS, "1.4 §4.21, §3.22 transitions 2, 7 and 9"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_on_every_object_in_every_state_at_every_version() {
    let scene = scene().await;
    let certificate = der(&scene);
    let mut maker = scene.at(4);
    let (mut tried, mut wrong, mut used) = (0, Vec::new(), BTreeSet::new());
    // Objects that nothing has happened to yet, by what they are.
    let mut at_hand: BTreeMap<(ObjectType, Being), String> = BTreeMap::new();
    for version in Version::SUPPORTED {
        let mut kmip = scene.speaking(version.major.into(), version.minor.into());
        is_complete(&mut kmip, *version);
        for kind in KINDS {
            let beings: &[Being] = if WITHOUT_STATE.contains(&kind) { &STATELESS } else { &STATES };
            for being in beings {
                for act in ACTS {
                    let fits = |line: &Line| {
                        let (first, last) = line.versions;
                        line.acts.contains(&act) && line.kinds.contains(&kind) && line.beings.contains(being) && (first..=last).contains(version)
                    };
                    let at = TABLE.iter().position(fits).unwrap_or_else(|| panic!("no line says what {act:?} of a {kind:?} {being:?} does"));
                    used.insert(at);
                    let line = &TABLE[at];
                    let id = at_hand.remove(&(kind, *being)).unwrap_or_else(|| make(&mut maker, &certificate, kind, *being));
                    let (operation, payload) = request(act, &id, *version);
                    let answer = kmip.call(operation, payload);
                    tried += 1;
                    let expected = line.outcome.map(|(first, second)| if *version < Version::V2_0 { first } else { second });
                    if answer.reason() != expected {
                        wrong.push(format!(
                            "{act:?} of a {kind:?} {being:?} at {version}: expected {expected:?} ({}), got {:?} {}",
                            line.source,
                            answer.reason(),
                            answer.message()
                        ));
                    }
                    if let Some(reason) = answer.reason().filter(|reason| *version >= Version::V2_0 && !is_listed(operation, *reason)) {
                        wrong.push(format!("{act:?} of a {kind:?} {being:?} at {version}: {reason:?} is no reason of this operation (2.1 §6.1)"));
                    }
                    // What failed, or only read, has changed nothing.
                    if answer.reason().is_some() || act <= Decrypt {
                        at_hand.insert((kind, *being), id);
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
    let idle: Vec<&str> = TABLE.iter().enumerate().filter(|(at, _)| !used.contains(at)).map(|(_, line)| line.source).collect();
    assert!(idle.is_empty(), "lines that nothing fits: {idle:?}");
    assert_eq!(tried, ACTS.len() * Version::SUPPORTED.len() * (5 * STATES.len() + 2 * STATELESS.len()));
}

/// Whatever Query offers is tried, here or where objects are made and looked for (`kmip_operations.rs`).
fn is_complete(kmip: &mut Kmip, version: Version) {
    let any = "11111111-1111-4111-8111-111111111111";
    let here: BTreeSet<u32> = ACTS.iter().map(|act| request(*act, any, version).0.number()).collect();
    let there: BTreeSet<u32> = ELSEWHERE.iter().map(|operation| operation.number()).collect();
    for offered in offered(kmip) {
        assert!(here.contains(&offered) || there.contains(&offered), "operation {offered} is offered at {version}, and no line says what it does");
    }
}

/// Makes an object as 1.4 does, and brings it where it shall be.
fn make(kmip: &mut Kmip, certificate: &[u8], kind: ObjectType, being: Being) -> String {
    let mut given = vec![custom("x-m", "1"), custom("x-m", "2")];
    if kind != ObjectType::Template {
        let limits = vec![Item::new(Tag::UsageLimitsTotal, Value::LongInteger(1_000)), Item::new(Tag::UsageLimitsUnit, Value::Enumeration(1))];
        given.push(Attribute::new(Tag::UsageLimits, Value::Structure(limits)));
        given.push(Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)));
    }
    let attributes = if kind == ObjectType::Template { template(&[]) } else { template(&given) };
    let inside = || given.iter().map(|attribute| own(attribute.to_node())).collect();
    let object = if kind == ObjectType::Template { Item::structure(Tag::Template, inside()) } else { object(kind, certificate) };
    let register = (Operation::Register, vec![Item::enumeration(Tag::ObjectType, kind), attributes, object]);
    let revoke = |code| (Operation::Revoke, vec![Item::structure(Tag::RevocationReason, vec![Item::enumeration(Tag::RevocationReasonCode, code)])]);
    let activate = || (Operation::Activate, vec![]);
    let (good, bad) = (RevocationReasonCode::CessationOfOperation, RevocationReasonCode::KeyCompromise);
    let further = match being {
        PreActive | Destroyed | There | Gone => vec![],
        Active => vec![activate()],
        Deactivated => vec![activate(), revoke(good)],
        Compromised | DestroyedCompromised => vec![revoke(bad)],
    };
    // All of it in one transaction: the quickest way.
    let undo = Item::enumeration(Tag::BatchErrorContinuationOption, BatchErrorContinuationOption::Undo);
    let answers = kmip.try_batch(std::iter::once(register).chain(further).collect(), &[undo]).unwrap();
    let id = answers[0].id();
    if matches!(being, Destroyed | DestroyedCompromised | Gone) {
        kmip.with_id(Operation::Destroy, &id).id();
    }
    let state = match being {
        PreActive => Some(State::PreActive),
        Active => Some(State::Active),
        Deactivated => Some(State::Deactivated),
        Compromised => Some(State::Compromised),
        Destroyed => Some(State::Destroyed),
        DestroyedCompromised => Some(State::DestroyedCompromised),
        There | Gone => None,
    };
    // Of a Template that is destroyed, nothing is left to ask for.
    if kind == ObjectType::Template && being == Gone {
        return id;
    }
    assert_eq!(kmip.attribute(&id, "State"), state.map(|state| Value::Enumeration(state.number())), "{kind:?} {being:?}");
    id
}

fn custom(name: &'static str, value: &'static str) -> Attribute<'static> {
    Attribute { identity: Identity::Custom(name.into()), index: 0, value: Value::TextString(value.into()) }
}

fn request(act: Act, id: &str, version: Version) -> (Operation, Vec<Item<'static>>) {
    let later = version >= Version::V2_0;
    let with = |operation, items: Vec<Item<'static>>| (operation, std::iter::once(uid(id)).chain(items).collect());
    let new = |attribute: Attribute<'static>| if later { held(Tag::NewAttribute, &[attribute]) } else { own(attribute.to_node()) };
    let reference = |identity: Identity<'static>| own(reference_to_node(&identity));
    let revoke = |code| with(Operation::Revoke, vec![Item::structure(Tag::RevocationReason, vec![Item::enumeration(Tag::RevocationReasonCode, code)])]);
    let cipher = |operation| {
        let padding = PaddingMethod::None;
        let parameters = vec![Item::enumeration(Tag::BlockCipherMode, BlockCipherMode::CBC), Item::enumeration(Tag::PaddingMethod, padding)];
        let (data, iv) = (Item::bytes(Tag::Data, vec![7; 16]), Item::bytes(Tag::IVCounterNonce, vec![1; 16]));
        with(operation, vec![Item::structure(Tag::CryptographicParameters, parameters), data, iv])
    };
    match act {
        Get => with(Operation::Get, vec![]),
        Export => with(Operation::Export, vec![]),
        GetAttributes => with(Operation::GetAttributes, vec![]),
        GetAttributeList => with(Operation::GetAttributeList, vec![]),
        Check => with(Operation::Check, vec![Item::integer(Tag::CryptographicUsageMask, 4)]),
        ObtainLease => with(Operation::ObtainLease, vec![]),
        Encrypt => cipher(Operation::Encrypt),
        Decrypt => cipher(Operation::Decrypt),
        GetUsageAllocation => with(Operation::GetUsageAllocation, vec![Item::new(Tag::UsageLimitsCount, Value::LongInteger(1))]),
        AddAttribute => with(Operation::AddAttribute, vec![new(custom("x-n", "1"))]),
        ModifyAttribute if later => with(Operation::ModifyAttribute, vec![held(Tag::CurrentAttribute, &[custom("x-m", "1")]), new(custom("x-m", "3"))]),
        ModifyAttribute => with(Operation::ModifyAttribute, vec![new(custom("x-m", "3"))]),
        SetAttribute => with(Operation::SetAttribute, vec![new(custom("x-o", "1"))]),
        AdjustAttribute => {
            let kind = Item::enumeration(Tag::AdjustmentType, AdjustmentType::Increment);
            with(Operation::AdjustAttribute, vec![reference(Identity::Known(Tag::ProtectionPeriod)), kind])
        }
        DeleteAttribute if later => with(Operation::DeleteAttribute, vec![reference(Identity::Custom("x-m".into()))]),
        DeleteAttribute => with(Operation::DeleteAttribute, vec![Item::text(Tag::AttributeName, "x-m")]),
        ReKey => with(Operation::ReKey, vec![]),
        Activate => with(Operation::Activate, vec![]),
        RevokeForGood => revoke(RevocationReasonCode::CessationOfOperation),
        RevokeForCompromise => revoke(RevocationReasonCode::KeyCompromise),
        Destroy => with(Operation::Destroy, vec![]),
    }
}
