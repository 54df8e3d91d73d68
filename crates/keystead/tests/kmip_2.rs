//! KMIP 2.0 and 2.1, and what tiers 2 and 3 add to all versions, through the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::kmip::{Answer, Kmip, held, own, template, text, uid};
use common::scene::{Scene, scene, scene_with};
use keystead::serve::Hooks;
use keystead_kmip::Tag;
use keystead_kmip::attribute::{Attribute, Identity, reference_to_node};
use keystead_kmip::enumeration::{
    AdjustmentType, BatchErrorContinuationOption, BlockCipherMode, CertificateType, CryptographicAlgorithm, Enumeration, InteropFunction, KeyFormatType,
    ObjectType, Operation, PaddingMethod, ProtectionLevel, QueryFunction, ResultReason, ResultStatus,
};
use keystead_kmip::ttlv::{Node as Item, Value};

fn custom(name: &'static str, value: &'static str) -> Attribute<'static> {
    Attribute { identity: Identity::Custom(name.into()), index: 0, value: Value::TextString(value.into()) }
}

fn new(attribute: Attribute<'static>) -> Item<'static> {
    held(Tag::NewAttribute, &[attribute])
}

fn current(attribute: Attribute<'static>) -> Item<'static> {
    held(Tag::CurrentAttribute, &[attribute])
}

fn reference(identity: &Identity<'static>) -> Item<'static> {
    own(reference_to_node(identity))
}

fn active() -> Attribute<'static> {
    Attribute::new(Tag::ActivationDate, Value::DateTime(1))
}

fn level(level: ProtectionLevel) -> Attribute<'static> {
    Attribute::new(Tag::ProtectionLevel, Value::Enumeration(level.number()))
}

/// All values of an attribute, as 2.1 has them.
fn values(kmip: &mut Kmip, id: &str, identity: &Identity<'static>) -> Vec<Value<'static>> {
    let answer = kmip.call(Operation::GetAttributes, vec![uid(id), reference(identity)]);
    let found = Attribute::all_from_node(answer.payload().find(Tag::Attributes).unwrap(), keystead_kmip::Version::V2_1).unwrap();
    found.into_iter().map(|attribute| attribute.value).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_one_version_is_read_at_the_other() {
    let scene = scene().await;
    let (mut first, mut last) = (scene.speaking(1, 0), scene.speaking(2, 1));
    let later = vec![Attribute::name("new"), custom("x-Barcode", "7"), custom("acme.com-Rack", "9"), level(ProtectionLevel::High)];
    let made_at_2 = last.created(later);
    let made_at_1 = first.created(vec![Attribute::name("old"), custom("x-Barcode", "8")]);
    for (id, name) in [(&made_at_2, "new"), (&made_at_1, "old")] {
        assert_eq!(first.get(id).material(), last.get(id).material());
        assert_eq!(first.locate(&[Attribute::name(name)]), [id.as_str()]);
        assert_eq!(last.locate(&[Attribute::name(name)]), [id.as_str()]);
    }
    assert_eq!(first.locate(&[custom("x-Barcode", "7")]), [made_at_2.as_str()], "a vendor attribute of the vendor x is a name of 1.x");
    assert_eq!(last.locate(&[custom("x-Barcode", "8")]), [made_at_1.as_str()]);
    let list = first.attribute_list(&made_at_2);
    for unseen in ["acme.com-Rack", "Protection Level", "Short Unique Identifier", "Key Format Type", "Protection Storage Mask", "Fresh"] {
        assert!(!list.iter().any(|name| name == unseen), "1.0 must not see {unseen}");
        assert_eq!(first.attribute(&made_at_2, unseen), None, "nor by its name");
    }
    let list = last.attribute_list(&made_at_2);
    for seen in ["x-Barcode", "acme.com-Rack", "Protection Level", "Short Unique Identifier", "Key Format Type", "Protection Storage Mask"] {
        assert!(list.iter().any(|name| name == seen), "2.1 sees {seen}: {list:?}");
    }
    let policy = first.created(vec![Attribute::new(Tag::OperationPolicyName, Value::TextString("default".into()))]);
    assert!(!last.attribute_list(&policy).iter().any(|name| name == "Operation Policy Name"), "2.0 has taken it away");
    let refused = last.create(vec![Attribute::new(Tag::OperationPolicyName, Value::TextString("default".into()))]);
    assert_eq!(refused.reason(), Some(ResultReason::UnsupportedAttribute));
    // What stays with a key stays with its successor, whatever version asks for it.
    let successor = scene.speaking(1, 4).with_id(Operation::ReKey, &made_at_2).id();
    assert_eq!(last.attribute(&successor, "Protection Level"), Some(Value::Enumeration(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_are_told_apart_by_their_values() {
    let scene = scene().await;
    let mut kmip = scene.speaking(2, 0);
    let id = kmip.created(vec![]);
    let call = |kmip: &mut Kmip, operation, items: Vec<Item<'static>>| kmip.call(operation, std::iter::once(uid(&id)).chain(items).collect());
    let rack = Identity::Custom("acme-rack".into());
    for value in ["1", "2"] {
        let answer = call(&mut kmip, Operation::AddAttribute, vec![new(custom("acme-rack", value))]);
        assert_eq!(answer.payload().items().len(), 1, "the identifier alone");
    }
    let modify = |items| (Operation::ModifyAttribute, items);
    let delete = |items| (Operation::DeleteAttribute, items);
    let set = |items| (Operation::SetAttribute, items);
    let adjust = |identity: &Identity<'static>, kind, by: Option<Value<'static>>| {
        let mut items = vec![reference(identity), Item::enumeration(Tag::AdjustmentType, kind)];
        items.extend(by.map(|by| Item::new(Tag::AdjustmentValue, by)));
        (Operation::AdjustAttribute, items)
    };
    let period = Identity::Known(Tag::ProtectionPeriod);
    let safe = Identity::Known(Tag::QuantumSafe);
    let state = Attribute::new(Tag::State, Value::Enumeration(2));
    use ResultReason as R;
    let steps = [
        (modify(vec![new(custom("acme-rack", "3"))]), Some(R::MultiValuedAttribute)),
        (modify(vec![current(custom("acme-rack", "9")), new(custom("acme-rack", "3"))]), Some(R::AttributeInstanceNotFound)),
        (modify(vec![current(custom("acme-row", "2")), new(custom("acme-rack", "3"))]), Some(R::InvalidAttribute)),
        (modify(vec![current(custom("acme-rack", "2")), new(custom("acme-rack", "3"))]), None),
        (modify(vec![new(custom("acme-row", "1"))]), Some(R::AttributeNotFound)),
        (modify(vec![new(state.clone())]), Some(R::AttributeReadOnly)),
        (set(vec![new(custom("acme-rack", "4"))]), Some(R::MultiValuedAttribute)),
        (set(vec![new(state)]), Some(R::ReadOnlyAttribute)),
        (set(vec![new(custom("acme-row", "1"))]), None),
        (set(vec![new(custom("acme-row", "2"))]), None),
        (delete(vec![reference(&rack), current(custom("acme-rack", "1"))]), Some(R::InvalidField)),
        (delete(vec![current(custom("acme-rack", "2"))]), Some(R::AttributeInstanceNotFound)),
        (delete(vec![current(custom("acme-rack", "1"))]), None),
        (delete(vec![reference(&Identity::Known(Tag::CryptographicLength))]), Some(R::AttributeReadOnly)),
        (adjust(&period, AdjustmentType::Increment, Some(Value::Interval(5))), None),
        (adjust(&period, AdjustmentType::Decrement, None), None),
        (adjust(&period, AdjustmentType::Decrement, Some(Value::Interval(5))), Some(R::NumericRange)),
        (adjust(&period, AdjustmentType::Negate, None), Some(R::InvalidDataType)),
        (adjust(&safe, AdjustmentType::Negate, None), None),
        (adjust(&Identity::Known(Tag::Name), AdjustmentType::Increment, None), Some(R::InvalidDataType)),
        (adjust(&Identity::Known(Tag::CryptographicLength), AdjustmentType::Increment, None), Some(R::ReadOnlyAttribute)),
        ((Operation::AddAttribute, vec![new(Attribute::new(Tag::ProtectionPeriod, Value::Interval(1)))]), Some(R::AttributeSingleValued)),
        ((Operation::AddAttribute, vec![new(Attribute::new(Tag::ProtectionPeriod, Value::Integer(1)))]), Some(R::InvalidAttributeValue)),
    ];
    for (at, ((operation, items), reason)) in steps.into_iter().enumerate() {
        let answer = call(&mut kmip, operation, items);
        assert_eq!(answer.reason(), reason, "step {at}, {operation:?}: {}", answer.message());
    }
    assert_eq!(values(&mut kmip, &id, &rack), [Value::TextString("3".into())]);
    assert_eq!(values(&mut kmip, &id, &Identity::Custom("acme-row".into())), [Value::TextString("2".into())]);
    assert_eq!(values(&mut kmip, &id, &period), [Value::Interval(4)]);
    assert_eq!(values(&mut kmip, &id, &safe), [Value::Boolean(true)]);
    call(&mut kmip, Operation::AddAttribute, vec![new(custom("acme-rack", "5"))]).id();
    call(&mut kmip, Operation::DeleteAttribute, vec![reference(&rack)]).id();
    assert_eq!(values(&mut kmip, &id, &rack), [], "without a value, all of them are deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_check_ends_a_batch_and_undo_takes_it_back() {
    let scene = scene().await;
    let mut kmip = scene.speaking(2, 1);
    let id = kmip.created(vec![]);
    let check = |tag, value| (Operation::Check, vec![uid(&id), Item::new(tag, value)]);
    let mask = |mask| check(Tag::CryptographicUsageMask, Value::Integer(mask));
    let undo = Item::enumeration(Tag::BatchErrorContinuationOption, BatchErrorContinuationOption::Undo);
    let batch = vec![(Operation::Activate, vec![uid(&id)]), mask(4), mask(16)];
    let answers = kmip.try_batch(batch.clone(), std::slice::from_ref(&undo)).unwrap();
    let status = |answer: &Answer| answer.0.find(Tag::ResultStatus).map(|status| status.value.clone());
    let undone = Some(Value::Enumeration(ResultStatus::OperationUndone.number()));
    assert_eq!((status(&answers[0]), status(&answers[1])), (undone.clone(), undone));
    assert_eq!(answers[0].id(), id, "2.x says what it would have answered");
    assert_eq!(answers[2].reason(), Some(ResultReason::IncompatibleCryptographicUsageMask));
    assert_eq!(kmip.attribute(&id, "State"), Some(Value::Enumeration(1)), "and it is as it was");
    let mut old = scene.at(4);
    let answers = old.try_batch(batch, &[undo]).unwrap();
    assert!(answers[0].0.find(Tag::ResponsePayload).is_none(), "1.x does not");
    assert_eq!(answers[2].reason(), Some(ResultReason::PermissionDenied));
    let cases = [
        (Tag::LeaseTime, Value::Interval(3_600), None),
        (Tag::LeaseTime, Value::Interval(3_601), Some(ResultReason::PermissionDenied)),
        (Tag::UsageLimitsCount, Value::LongInteger(i64::MAX), None),
    ];
    for (tag, value, reason) in cases {
        let (operation, payload) = check(tag, value);
        assert_eq!(kmip.call(operation, payload).reason(), reason, "{tag}");
    }
    let lease = kmip.with_id(Operation::ObtainLease, &id);
    assert_eq!(lease.payload().find(Tag::LeaseTime).unwrap().value, Value::Interval(3_600));
    // After a check that fails there is no ID Placeholder.
    let go_on = Item::enumeration(Tag::BatchErrorContinuationOption, BatchErrorContinuationOption::Continue);
    let find = vec![held(Tag::Attributes, &[Attribute::new(Tag::UniqueIdentifier, Value::TextString(id.clone().into()))])];
    let wrong = (Operation::Check, vec![Item::integer(Tag::CryptographicUsageMask, 16)]);
    let answers = kmip.try_batch(vec![(Operation::Locate, find), wrong, (Operation::Get, vec![])], &[go_on]).unwrap();
    assert_eq!(answers[2].reason(), Some(ResultReason::InvalidField));
}

fn parameters(mode: BlockCipherMode, padding: Option<PaddingMethod>, random: bool) -> Item<'static> {
    let mut items = vec![Item::enumeration(Tag::BlockCipherMode, mode)];
    items.extend(padding.map(|padding| Item::enumeration(Tag::PaddingMethod, padding)));
    items.push(Item::new(Tag::RandomIV, Value::Boolean(random)));
    Item::structure(Tag::CryptographicParameters, items)
}

fn bytes(answer: &Answer, tag: Tag) -> Vec<u8> {
    match &answer.payload().find(tag).unwrap_or_else(|| panic!("no {tag}")).value {
        Value::ByteString(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn data(data: &[u8]) -> Item<'static> {
    Item::bytes(Tag::Data, data.to_vec())
}

fn iv(iv: &[u8]) -> Item<'static> {
    Item::bytes(Tag::IVCounterNonce, iv.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_goes_both_ways() {
    let scene = scene().await;
    let mut kmip = scene.speaking(2, 1);
    let id = kmip.created(vec![active()]);
    let (plain, more) = (b"twenty-one bytes here".as_slice(), Item::bytes(Tag::AuthenticatedEncryptionAdditionalData, b"header".to_vec()));
    let gcm = || parameters(BlockCipherMode::GCM, None, true);
    let sealed = kmip.call(Operation::Encrypt, vec![uid(&id), gcm(), data(plain), more.clone()]);
    let (encrypted, nonce, tag) = (bytes(&sealed, Tag::Data), bytes(&sealed, Tag::IVCounterNonce), bytes(&sealed, Tag::AuthenticatedEncryptionTag));
    assert_eq!((encrypted.len(), nonce.len(), tag.len()), (plain.len(), 12, 16));
    let open = |kmip: &mut Kmip, tag: &[u8], more: Item<'static>| {
        let tag = Item::bytes(Tag::AuthenticatedEncryptionTag, tag.to_vec());
        kmip.call(Operation::Decrypt, vec![uid(&id), gcm(), data(&encrypted), iv(&nonce), more, tag])
    };
    assert_eq!(bytes(&open(&mut kmip, &tag, more.clone()), Tag::Data), plain);
    assert_eq!(open(&mut kmip, &[0; 16], more.clone()).reason(), Some(ResultReason::CryptographicFailure));
    assert_eq!(open(&mut kmip, &tag, Item::bytes(Tag::AuthenticatedEncryptionAdditionalData, vec![])).reason(), Some(ResultReason::CryptographicFailure));
    let cbc = || parameters(BlockCipherMode::CBC, Some(PaddingMethod::PKCS5), false);
    let encrypted = bytes(&kmip.call(Operation::Encrypt, vec![uid(&id), cbc(), data(plain), iv(&[1; 16])]), Tag::Data);
    let mut old = scene.at(2);
    assert_eq!(bytes(&old.call(Operation::Decrypt, vec![uid(&id), cbc(), data(&encrypted), iv(&[1; 16])]), Tag::Data), plain, "also at 1.2");
    use ResultReason as R;
    let wrong = [
        (vec![data(plain)], R::BadCryptographicParameters),
        (vec![cbc(), data(plain)], R::MissingInitializationVector),
        (vec![cbc(), data(plain), iv(&[1; 12])], R::UnsupportedCryptographicParameters),
        (vec![parameters(BlockCipherMode::ECB, None, true), data(plain)], R::UnsupportedCryptographicParameters),
        (vec![parameters(BlockCipherMode::CBC, Some(PaddingMethod::X9_31), true), data(plain)], R::UnsupportedCryptographicParameters),
        (vec![parameters(BlockCipherMode::CBC, None, true), data(plain)], R::InvalidField),
        (vec![cbc(), data(plain), iv(&[1; 16]), Item::new(Tag::InitIndicator, Value::Boolean(true))], R::FeatureNotSupported),
    ];
    for (at, (items, reason)) in wrong.into_iter().enumerate() {
        let answer = kmip.call(Operation::Encrypt, std::iter::once(uid(&id)).chain(items).collect());
        assert_eq!(answer.reason(), Some(reason), "{at}: {}", answer.message());
    }
    assert_eq!(old.call(Operation::Encrypt, vec![uid(&id), gcm(), data(plain)]).reason(), Some(R::FeatureNotSupported), "1.2 has no place for the tag");
    let own_parameters = Attribute::new(Tag::CryptographicParameters, parameters(BlockCipherMode::GCM, None, true).value);
    let described = kmip.created(vec![active(), own_parameters]);
    assert_eq!(bytes(&kmip.call(Operation::Encrypt, vec![uid(&described), data(plain)]), Tag::Data).len(), plain.len(), "the key itself says how");
    // A key that may not leave still encrypts.
    let kept = kmip.created(vec![active(), Attribute::new(Tag::Extractable, Value::Boolean(false))]);
    assert_eq!(kmip.get(&kept).reason(), Some(R::NotExtractable));
    assert!(kmip.call(Operation::Encrypt, vec![uid(&kept), gcm(), data(plain)]).reason().is_none());
    let random = |kmip: &mut Kmip, length| kmip.call(Operation::RNGRetrieve, vec![Item::integer(Tag::DataLength, length)]);
    assert_ne!(bytes(&random(&mut kmip, 32), Tag::Data), bytes(&random(&mut kmip, 32), Tag::Data));
    for length in [0, -1, i32::MAX] {
        assert_eq!(random(&mut kmip, length).reason(), Some(R::InvalidField), "{length}");
    }
}

fn limits(total: i64) -> Attribute<'static> {
    let items = vec![Item::new(Tag::UsageLimitsTotal, Value::LongInteger(total)), Item::new(Tag::UsageLimitsUnit, Value::Enumeration(1))];
    Attribute::new(Tag::UsageLimits, Value::Structure(items))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_counted_before_it_is_answered_and_never_twice_given() {
    let scene = scene().await;
    let mut kmip = scene.speaking(2, 1);
    let id = kmip.created(vec![active(), limits(100)]);
    let gcm = || parameters(BlockCipherMode::GCM, None, true);
    // Ten clients at once want 20 bytes each; five can have them.
    let granted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|_| {
                let (endpoint, id) = (scene.client.endpoint(scene.node.ekmip), id.clone());
                scope.spawn(move || {
                    let answer = Kmip::connect(&endpoint).call(Operation::Encrypt, vec![uid(&id), gcm(), data(&[7; 20])]);
                    assert!(matches!(answer.reason(), None | Some(ResultReason::PermissionDenied)), "{}", answer.message());
                    usize::from(answer.reason().is_none())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(granted, 5);
    let denied = kmip.call(Operation::Encrypt, vec![uid(&id), gcm(), data(&[7; 1])]);
    assert_eq!(denied.reason(), Some(ResultReason::UsageLimitExceeded));
    let count = |count| Item::new(Tag::UsageLimitsCount, Value::LongInteger(count));
    let id = kmip.created(vec![active(), limits(10)]);
    assert_eq!(kmip.call(Operation::GetUsageAllocation, vec![uid(&id), count(7)]).id(), id);
    assert_eq!(kmip.call(Operation::GetUsageAllocation, vec![uid(&id), count(4)]).reason(), Some(ResultReason::UsageLimitExceeded));
    assert_eq!(kmip.call(Operation::Check, vec![uid(&id), count(4)]).reason(), Some(ResultReason::UsageLimitExceeded));
    let Some(Value::Structure(left)) = kmip.attribute(&id, "Usage Limits") else { panic!() };
    assert!(left.contains(&count(3)), "{left:?}");
    // What is undone is not counted, and not given out.
    let undo = Item::enumeration(Tag::BatchErrorContinuationOption, BatchErrorContinuationOption::Undo);
    let batch = vec![
        (Operation::Encrypt, vec![uid(&id), gcm(), data(&[7; 3])]),
        (Operation::Get, vec![uid(&id)]),
        (Operation::RNGRetrieve, vec![Item::integer(Tag::DataLength, 16)]),
        (Operation::Destroy, vec![uid(&id)]),
    ];
    let answers = kmip.try_batch(batch, &[undo]).unwrap();
    let payloads: Vec<_> = answers[..3].iter().map(|answer| answer.payload().items().to_vec()).collect();
    assert_eq!(payloads, [vec![uid(&id)], vec![uid(&id)], vec![]]);
    // Nor does anybody give himself more once some is used; before, the count is the server's.
    let set = |operation, attribute| (operation, vec![uid(&id), new(attribute)]);
    let gone = || (Operation::DeleteAttribute, vec![uid(&id), reference(&Identity::Known(Tag::UsageLimits))]);
    for (operation, payload) in [set(Operation::ModifyAttribute, limits(50)), set(Operation::SetAttribute, limits(50)), gone()] {
        assert_eq!(kmip.call(operation, payload).reason(), Some(ResultReason::WrongKeyLifecycleState), "{operation:?}");
    }
    assert_eq!(kmip.call(Operation::GetUsageAllocation, vec![uid(&id), count(3)]).id(), id);
    let id = kmip.created(vec![active(), limits(10)]);
    let mut greedy = limits(20);
    if let Value::Structure(items) = &mut greedy.value {
        items.push(count(i64::MAX));
    }
    kmip.call(Operation::ModifyAttribute, vec![uid(&id), new(greedy)]).id();
    let Some(Value::Structure(left)) = kmip.attribute(&id, "Usage Limits") else { panic!() };
    assert!(left.contains(&count(20)), "{left:?}");
    kmip.call(Operation::DeleteAttribute, vec![uid(&id), reference(&Identity::Known(Tag::UsageLimits))]).id();
    kmip.call(Operation::AddAttribute, vec![uid(&id), new(limits(5))]).id();
    assert_eq!(kmip.call(Operation::GetUsageAllocation, vec![uid(&id), count(6)]).reason(), Some(ResultReason::UsageLimitExceeded));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_leave_does_not_leave_by_another_door() {
    use ResultReason as R;
    let scene = scene().await;
    let mut kmip = scene.speaking(2, 1);
    let flag = |tag, value| Attribute::new(tag, Value::Boolean(value));
    let kept = [(Tag::Sensitive, true, R::Sensitive, "Always Sensitive"), (Tag::Extractable, false, R::NotExtractable, "Never Extractable")];
    // Not as a successor.
    for (tag, value, reason, always) in kept {
        for (major, minor) in [(1, 0), (1, 4), (2, 1)] {
            let id = kmip.created(vec![flag(tag, value)]);
            let mut client = scene.speaking(major, minor);
            let successor = client.with_id(Operation::ReKey, &id).id();
            for id in [&id, &successor] {
                assert_eq!(kmip.get(id).reason(), Some(reason), "{tag} at {major}.{minor}");
                assert!(client.get(id).reason().is_some());
            }
            assert_eq!(kmip.attribute(&successor, always), Some(Value::Boolean(true)));
        }
        // What has become so later says of its successor alone that it always was.
        let id = kmip.created(vec![]);
        kmip.call(Operation::SetAttribute, vec![uid(&id), new(flag(tag, value))]).id();
        let successor = kmip.with_id(Operation::ReKey, &id).id();
        assert_eq!((kmip.attribute(&id, always), kmip.attribute(&successor, always)), (Some(Value::Boolean(false)), Some(Value::Boolean(true))));
        // Not as an opaque object.
        let opaque = Item::structure(
            Tag::OpaqueObject,
            vec![Item::new(Tag::OpaqueDataType, Value::Enumeration(0x8000_0001)), Item::bytes(Tag::OpaqueDataValue, vec![7])],
        );
        let payload = vec![Item::enumeration(Tag::ObjectType, ObjectType::OpaqueObject), held(Tag::Attributes, &[flag(tag, value)]), opaque];
        let id = kmip.call(Operation::Register, payload).id();
        for operation in [Operation::Get, Operation::Export] {
            assert_eq!(kmip.with_id(operation, &id).reason(), Some(reason), "{operation:?} of an opaque object");
        }
    }
    // Nor where a Template says so, which is itself no secret.
    let mut old = scene.at(4);
    let form = Item::structure(Tag::Template, vec![own(flag(Tag::Sensitive, true).to_node())]);
    let payload = vec![Item::enumeration(Tag::ObjectType, ObjectType::Template), template(&[Attribute::name("form")]), form];
    let form = old.call(Operation::Register, payload).id();
    assert_eq!(old.get(&form).reason(), None);
    let named = Item::structure(
        Tag::TemplateAttribute,
        [Attribute::name("form").value]
            .into_iter()
            .map(|value| Item::new(Tag::Name, value))
            .chain(
                [
                    Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(CryptographicAlgorithm::AES.number())),
                    Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)),
                ]
                .map(|attribute| own(attribute.to_node())),
            )
            .collect(),
    );
    let id = old.call(Operation::Create, vec![Item::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), named]).id();
    assert_eq!(old.get(&id).reason(), Some(R::Sensitive));
    // Nor wrapped by a key that may not protect anything, or whose use would have to be counted.
    let wrapper = |attributes: Vec<Attribute<'static>>| {
        let algorithm = Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(CryptographicAlgorithm::AES.number()));
        let all = [vec![algorithm, Attribute::new(Tag::CryptographicUsageMask, Value::Integer(0x10)), active()], attributes].concat();
        vec![Item::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), held(Tag::Attributes, &all)]
    };
    let id = kmip.created(vec![]);
    let stopped = Attribute::new(Tag::ProtectStopDate, Value::DateTime(2));
    for (attributes, reason) in [(vec![], None), (vec![stopped], Some(R::PermissionDenied)), (vec![limits(100)], Some(R::PermissionDenied))] {
        let by = kmip.call(Operation::Create, wrapper(attributes)).id();
        let wrapping = Item::structure(
            Tag::KeyWrappingSpecification,
            vec![
                Item::enumeration(Tag::WrappingMethod, keystead_kmip::enumeration::WrappingMethod::Encrypt),
                Item::structure(Tag::EncryptionKeyInformation, vec![uid(&by)]),
            ],
        );
        for operation in [Operation::Get, Operation::Export] {
            assert_eq!(kmip.call(operation, vec![uid(&id), wrapping.clone()]).reason(), reason, "{operation:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_is_under_the_rules_of_a_new_object() {
    let scene = scene().await;
    let mut kmip = scene.speaking(2, 1);
    let count = |count| Item::new(Tag::UsageLimitsCount, Value::LongInteger(count));
    let id = kmip.created(vec![]);
    let key = kmip.with_id(Operation::Export, &id).payload().find(Tag::SymmetricKey).unwrap().clone();
    let mut number = 0;
    let mut import = |kmip: &mut Kmip, attributes: &[Attribute<'static>], key: &Item<'static>| {
        number += 1;
        let kind = Item::enumeration(Tag::ObjectType, ObjectType::SymmetricKey);
        let id = format!("00000000-0000-4000-8000-{number:012}");
        kmip.call(Operation::Import, vec![uid(&id), kind, held(Tag::Attributes, attributes), key.clone()])
    };
    let of = |total, left: Option<i64>| {
        let mut limits = limits(total);
        if let Value::Structure(items) = &mut limits.value {
            items.splice(1..1, left.map(count));
        }
        vec![Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)), Attribute::new(Tag::State, Value::Enumeration(2)), limits]
    };
    for (total, left) in [(10, 11), (10, -1), (-1, -1)] {
        assert_eq!(import(&mut kmip, &of(total, Some(left)), &key).reason(), Some(ResultReason::InvalidAttributeValue), "{left} of {total}");
    }
    for (left, most) in [(None, 10), (Some(4), 4)] {
        let id = import(&mut kmip, &of(10, left), &key).id();
        assert_eq!(kmip.call(Operation::GetUsageAllocation, vec![uid(&id), count(most)]).id(), id);
        assert_eq!(kmip.call(Operation::GetUsageAllocation, vec![uid(&id), count(1)]).reason(), Some(ResultReason::UsageLimitExceeded));
    }
    // FIPS mode lets nothing in by this door either.
    let weak = [
        Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(CryptographicAlgorithm::DES3.number())),
        Attribute::new(Tag::CryptographicLength, Value::Integer(168)),
        Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)),
    ];
    let id = kmip.call(Operation::Create, vec![Item::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), held(Tag::Attributes, &weak)]).id();
    let des = kmip.with_id(Operation::Export, &id).payload().find(Tag::SymmetricKey).unwrap().clone();
    import(&mut kmip, &[], &des).id();
    let forced = serde_json::json!({ "fips": { "enabled": true }, "keystead": { "force": true } });
    assert_eq!(scene.node.ask("PATCH", "/security", Some(forced)).await.0, 200);
    let mut kmip = scene.speaking(2, 1);
    assert_eq!(import(&mut kmip, &[], &des).reason(), Some(ResultReason::FeatureNotSupported));
    import(&mut kmip, &[], &key).id();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_says_how_it_encrypts() {
    use ResultReason as R;
    let scene = scene().await;
    let mut kmip = scene.speaking(2, 1);
    let own = |mode, padding, random| Attribute::new(Tag::CryptographicParameters, parameters(mode, padding, random).value);
    let (gcm, cbc, pkcs5) = (BlockCipherMode::GCM, BlockCipherMode::CBC, Some(PaddingMethod::PKCS5));
    let free = kmip.created(vec![active()]);
    let bound = kmip.created(vec![active(), own(gcm, None, true), own(cbc, pkcs5, false)]);
    let steps = [
        (&free, vec![parameters(gcm, None, true), iv(&[1; 12])], Some(R::InvalidField)),
        (&free, vec![parameters(gcm, None, false), iv(&[1; 12])], None),
        (&bound, vec![], None),
        (&bound, vec![iv(&[1; 12])], Some(R::InvalidField)),
        (&bound, vec![parameters(gcm, None, true)], None),
        (&bound, vec![Item::structure(Tag::CryptographicParameters, vec![Item::enumeration(Tag::BlockCipherMode, gcm)])], None),
        (&bound, vec![parameters(gcm, None, false), iv(&[1; 12])], Some(R::BadCryptographicParameters)),
        (&bound, vec![parameters(cbc, None, false), iv(&[1; 16])], Some(R::BadCryptographicParameters)),
        (&bound, vec![parameters(cbc, pkcs5, false), iv(&[1; 16])], None),
    ];
    for (at, (id, items, reason)) in steps.into_iter().enumerate() {
        let payload = std::iter::once(uid(id)).chain(items).chain([data(&[7; 16])]).collect();
        let answer = kmip.call(Operation::Encrypt, payload);
        assert_eq!(answer.reason(), reason, "{at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_svm_refuses_encrypt_and_decrypt_like_get() {
    let scene: Scene = scene().await;
    let mut kmip = scene.speaking(2, 1);
    let id = kmip.created(vec![active()]);
    scene.block().await;
    let cbc = || parameters(BlockCipherMode::CBC, None, false);
    let calls = [
        (Operation::Get, vec![uid(&id)]),
        (Operation::Export, vec![uid(&id)]),
        (Operation::Encrypt, vec![uid(&id), cbc(), data(&[7; 16]), iv(&[1; 16])]),
        (Operation::Decrypt, vec![uid(&id), cbc(), data(&[7; 16]), iv(&[1; 16])]),
        (Operation::RNGRetrieve, vec![Item::integer(Tag::DataLength, 16)]),
    ];
    let refusal = kmip.get(&id).message();
    for (operation, payload) in calls {
        let answer = kmip.call(operation, payload);
        assert_eq!((answer.reason(), answer.message()), (Some(ResultReason::PermissionDenied), refusal.clone()), "{operation:?}");
    }
    assert_eq!(kmip.attribute(&id, "State"), Some(Value::Enumeration(2)), "what is no secret is still told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_moves_with_its_identifier_and_attributes() {
    let scene = scene().await;
    let mut kmip = scene.speaking(2, 1);
    let id = kmip.created(vec![Attribute::name("moved"), custom("acme-rack", "1"), active()]);
    let exported = kmip.with_id(Operation::Export, &id);
    let attributes = exported.payload().find(Tag::Attributes).unwrap().clone();
    let key = exported.payload().find(Tag::SymmetricKey).unwrap().clone();
    let kind = Item::enumeration(Tag::ObjectType, ObjectType::SymmetricKey);
    assert_eq!(kmip.call(Operation::Import, vec![uid(&id), kind.clone(), attributes.clone(), key.clone()]).reason(), Some(ResultReason::ObjectAlreadyExists));
    let replace = Item::new(Tag::ReplaceExisting, Value::Boolean(true));
    let replaced = kmip.call(Operation::Import, vec![uid(&id), kind.clone(), replace, attributes.clone(), key.clone()]);
    assert_eq!(replaced.reason(), Some(ResultReason::FeatureNotSupported));
    // Into another SVM, where nobody has this identifier.
    scene.node.svm("svm2").await;
    common::scene::enabled(&scene.node, &scene.kms, &scene.key, "svm2").await;
    let other = common::kmip::Credentials::issue(&scene.node, "svm2").await;
    let mut there = Kmip::connect(&other.endpoint(scene.node.ekmip));
    (there.major, there.minor) = (2, 1);
    assert_eq!(there.call(Operation::Import, vec![uid(&id), kind.clone(), attributes.clone(), key.clone()]).id(), id);
    assert_eq!(there.get(&id).material(), kmip.get(&id).material());
    for name in ["Name", "State", "Activation Date", "Initial Date", "acme-rack", "Random Number Generator", "Digest", "Original Creation Date"] {
        assert_eq!(there.attribute(&id, name), kmip.attribute(&id, name), "{name}");
    }
    assert_eq!(there.call(Operation::Import, vec![uid("no uuid"), kind, attributes, key]).reason(), Some(ResultReason::InvalidField));
    // What was not always sensitive does not become so by a journey.
    let later = kmip.created(vec![]);
    kmip.call(Operation::SetAttribute, vec![uid(&later), new(Attribute::new(Tag::Sensitive, Value::Boolean(true)))]).id();
    let (kind, key) = (Item::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), exported.payload().find(Tag::SymmetricKey).unwrap().clone());
    let told = kmip.call(Operation::GetAttributes, vec![uid(&later)]).payload().find(Tag::Attributes).unwrap().clone();
    assert_eq!(there.call(Operation::Import, vec![uid(&later), kind, told, key]).id(), later);
    assert_eq!((there.attribute(&later, "Sensitive"), there.attribute(&later, "Always Sensitive")), (Some(Value::Boolean(true)), Some(Value::Boolean(false))));
    assert_eq!(kmip.with_id(Operation::Export, &later).reason(), Some(ResultReason::Sensitive));
    // Of a destroyed object, the attributes are left.
    let gone = kmip.created(vec![]);
    kmip.with_id(Operation::Destroy, &gone).id();
    let exported = kmip.with_id(Operation::Export, &gone);
    assert!(exported.payload().find(Tag::Attributes).is_some() && exported.payload().find(Tag::SymmetricKey).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_keys_come_back_as_they_were_and_say_what_they_are() {
    let scene = scene().await;
    let mut kmip = scene.speaking(2, 1);
    let pem = scene.client.certificate.as_bytes();
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(pem).map(|der: rustls::pki_types::CertificateDer<'_>| der.to_vec()).unwrap();
    let kind = || Item::enumeration(Tag::CertificateType, CertificateType::X_509);
    let certificate = |value: Vec<u8>| Item::structure(Tag::Certificate, vec![kind(), Item::bytes(Tag::CertificateValue, value)]);
    let register = |kmip: &mut Kmip, kind, attributes: &[Attribute<'static>], object| {
        let given = kmip.given(attributes);
        kmip.call(Operation::Register, vec![Item::enumeration(Tag::ObjectType, kind), given, object])
    };
    let id = register(&mut kmip, ObjectType::Certificate, &[], certificate(der.clone())).id();
    assert_eq!(*kmip.get(&id).payload().items().last().unwrap(), certificate(der.clone()));
    assert_eq!(kmip.attribute(&id, "Certificate Length"), Some(Value::Integer(der.len() as i32)));
    assert_eq!(kmip.attribute(&id, "Certificate Subject CN"), Some(Value::TextString("client of svm1".into())));
    assert_eq!(kmip.locate(&[Attribute::new(Tag::CertificateSubjectCN, Value::TextString("client of svm1".into()))]), [id.as_str()]);
    let mut old = scene.at(1);
    assert!(
        old.attribute(&id, "X.509 Certificate Subject").is_some() && old.attribute(&id, "Certificate Subject CN").is_none(),
        "1.1 has the whole name alone"
    );
    assert!(scene.at(0).attribute(&id, "X.509 Certificate Subject").is_none());
    for value in [vec![], vec![0x30, 0x80], der[..der.len() - 1].to_vec(), [der.as_slice(), &[0]].concat()] {
        assert_eq!(register(&mut kmip, ObjectType::Certificate, &[], certificate(value)).reason(), Some(ResultReason::InvalidField));
    }
    let number = |tag| Item::new(tag, Value::BigInteger(vec![0, 0, 0, 0, 0, 1, 0, 1].into()));
    let block = |format, material| {
        let algorithm = [Item::enumeration(Tag::CryptographicAlgorithm, CryptographicAlgorithm::RSA), Item::integer(Tag::CryptographicLength, 1_024)];
        let mut items = vec![Item::enumeration(Tag::KeyFormatType, format), Item::structure(Tag::KeyValue, vec![material])];
        items.extend(algorithm);
        Item::structure(Tag::KeyBlock, items)
    };
    let raw = || Item::bytes(Tag::KeyMaterial, vec![7; 40]);
    let numbers = || Item::structure(Tag::KeyMaterial, vec![number(Tag::PublicExponent), number(Tag::Modulus)]);
    let good = [
        (ObjectType::PublicKey, Tag::PublicKey, block(KeyFormatType::PKCS_1, raw())),
        (ObjectType::PublicKey, Tag::PublicKey, block(KeyFormatType::X_509, raw())),
        (ObjectType::PublicKey, Tag::PublicKey, block(KeyFormatType::TransparentRSAPublicKey, numbers())),
        (ObjectType::PrivateKey, Tag::PrivateKey, block(KeyFormatType::PKCS_8, raw())),
        (ObjectType::PrivateKey, Tag::PrivateKey, block(KeyFormatType::TransparentRSAPrivateKey, numbers())),
    ];
    for (kind, tag, block) in good {
        let object = Item::structure(tag, vec![block]);
        let id = register(&mut kmip, kind, &[], object.clone()).id();
        for (major, minor) in [(1, 0), (2, 1)] {
            assert_eq!(*scene.speaking(major, minor).get(&id).payload().items().last().unwrap(), object, "{major}.{minor}");
        }
    }
    let wrong = [
        (ObjectType::PublicKey, Tag::PublicKey, block(KeyFormatType::PKCS_8, raw())),
        (ObjectType::PublicKey, Tag::PublicKey, block(KeyFormatType::TransparentRSAPublicKey, raw())),
        (ObjectType::PrivateKey, Tag::PrivateKey, block(KeyFormatType::PKCS_1, numbers())),
        (ObjectType::SymmetricKey, Tag::SymmetricKey, block(KeyFormatType::PKCS_1, raw())),
    ];
    for (kind, tag, block) in wrong {
        let answer = register(&mut kmip, kind, &[], Item::structure(tag, vec![block]));
        assert_eq!(answer.reason(), Some(ResultReason::KeyFormatTypeNotSupported), "{}", answer.message());
    }
    // A symmetric key is the same bytes as Raw and as a transparent key.
    let format = Attribute::new(Tag::KeyFormatType, Value::Enumeration(KeyFormatType::TransparentSymmetricKey.number()));
    let id = kmip.created(vec![format]);
    let transparent = kmip.get(&id);
    let raw = kmip.call(Operation::Get, vec![uid(&id), Item::enumeration(Tag::KeyFormatType, KeyFormatType::Raw)]).material();
    let key = transparent.payload().find(Tag::SymmetricKey).unwrap().find(Tag::KeyBlock).unwrap().find(Tag::KeyValue).unwrap().find(Tag::KeyMaterial).unwrap();
    assert_eq!(key.find(Tag::Key).unwrap().value, Value::ByteString(raw.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_version_does_not_have_does_not_exist_for_it() {
    let scene = scene().await;
    let (mut old, mut kmip) = (scene.at(4), scene.speaking(2, 0));
    let inside = Item::structure(Tag::Template, vec![own(custom("x-a", "1").to_node())]);
    let kind = || Item::enumeration(Tag::ObjectType, ObjectType::Template);
    let stencil = old.call(Operation::Register, vec![kind(), template(&[Attribute::name("t")]), inside.clone()]).id();
    for operation in [Operation::Get, Operation::GetAttributes, Operation::GetAttributeList, Operation::Destroy] {
        assert_eq!(kmip.with_id(operation, &stencil).reason(), Some(ResultReason::ObjectNotFound), "{operation:?}");
    }
    assert!(kmip.locate(&[Attribute::name("t")]).is_empty());
    // Its identifier is taken all the same.
    let key = kmip.created(vec![]);
    let exported = kmip.with_id(Operation::Export, &key);
    let [attributes, key] = [Tag::Attributes, Tag::SymmetricKey].map(|tag| exported.payload().find(tag).unwrap().clone());
    let import = vec![uid(&stencil), Item::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), attributes, key];
    assert_eq!(kmip.call(Operation::Import, import).reason(), Some(ResultReason::ObjectAlreadyExists));
    let given = kmip.given(&[Attribute::name("u")]);
    assert_eq!(kmip.call(Operation::Register, vec![kind(), given, inside]).reason(), Some(ResultReason::InvalidObjectType));
    let queried = |kmip: &mut Kmip| {
        let functions = [QueryFunction::QueryOperations, QueryFunction::QueryObjects].map(|function| Item::enumeration(Tag::QueryFunction, function));
        kmip.call(Operation::Query, functions.to_vec()).payload().clone()
    };
    let has = |payload: &Item<'_>, tag, number: u32| payload.items().iter().any(|item| item.tag == tag && item.value == Value::Enumeration(number));
    for (major, minor, since) in [(1, 0, 10), (1, 2, 12), (1, 4, 14), (2, 0, 20), (2, 1, 20)] {
        let payload = queried(&mut scene.speaking(major, minor));
        let there =
            [(Operation::Check, 10), (Operation::DiscoverVersions, 11), (Operation::Encrypt, 12), (Operation::Export, 14), (Operation::SetAttribute, 20)];
        for (operation, first) in there {
            assert_eq!(has(&payload, Tag::Operation, operation.number()), first <= since, "{operation:?} at {major}.{minor}");
        }
        assert_eq!(has(&payload, Tag::ObjectType, ObjectType::Template.number()), major == 1);
        assert!(!has(&payload, Tag::Operation, Operation::Interop.number()), "off by default");
    }
    let interop = |function| vec![Item::enumeration(Tag::InteropFunction, function), Item::text(Tag::InteropIdentifier, "t")];
    let log = || vec![Item::text(Tag::LogMessage, "a\nb")];
    assert_eq!(kmip.call(Operation::Interop, interop(InteropFunction::Begin)).reason(), Some(ResultReason::OperationNotSupported));
    assert_eq!(kmip.call(Operation::Log, log()).reason(), Some(ResultReason::OperationNotSupported));
    let with = scene_with("[ekmip]\ninterop = true\n", Hooks::default()).await;
    let mut kmip = with.speaking(2, 1);
    assert!(kmip.call(Operation::Interop, interop(InteropFunction::Begin)).reason().is_none());
    assert!(kmip.call(Operation::Log, log()).reason().is_none());
    assert_eq!(kmip.call(Operation::Interop, interop(InteropFunction::Reset)).reason(), Some(ResultReason::FeatureNotSupported), "keys stay");
    assert!(has(&queried(&mut kmip), Tag::Operation, Operation::Interop.number()));
    assert_eq!(with.at(4).call(Operation::Log, log()).reason(), Some(ResultReason::OperationNotSupported), "1.4 does not have it");
}

/// 2.0 names where an object may be kept; another place than the server's is an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_kept_where_their_client_permits_it() {
    let scene = scene().await;
    let mut kmip = scene.speaking(2, 1);
    let masks = |masks: &[i32]| {
        let masks = masks.iter().map(|mask| Item::integer(Tag::ProtectionStorageMask, *mask)).collect();
        Item::structure(Tag::ProtectionStorageMasks, masks)
    };
    for (permitted, reason) in [(vec![1], None), (vec![2, 1], None), (vec![], None), (vec![2], Some(ResultReason::ProtectionStorageUnavailable))] {
        let attributes = held(
            Tag::Attributes,
            &[
                Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(CryptographicAlgorithm::AES.number())),
                Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)),
            ],
        );
        let payload = vec![Item::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), attributes, masks(&permitted)];
        assert_eq!(kmip.call(Operation::Create, payload).reason(), reason, "{permitted:?}");
    }
    // They count without attributes too.
    let secret = kmip.register(b"s", &[]).id();
    let object = kmip.get(&secret).payload().find(Tag::SecretData).unwrap().clone();
    let payload = vec![Item::enumeration(Tag::ObjectType, ObjectType::SecretData), masks(&[2]), object];
    assert_eq!(kmip.call(Operation::Register, payload).reason(), Some(ResultReason::ProtectionStorageUnavailable));
    let key = kmip.created(vec![]);
    assert_eq!(kmip.call(Operation::ReKey, vec![uid(&key), masks(&[2])]).reason(), Some(ResultReason::ProtectionStorageUnavailable));
    let answer = kmip.call(Operation::Query, vec![Item::enumeration(Tag::QueryFunction, QueryFunction::QueryStorageProtectionMasks)]);
    assert_eq!(*answer.payload().find(Tag::ProtectionStorageMasks).unwrap(), masks(&[1]));
    let text_of = |answer: &Answer| text(&answer.payload().items()[0].value);
    let placeholder = Item::new(Tag::UniqueIdentifier, Value::Enumeration(1));
    let found = held(Tag::Attributes, &[Attribute::new(Tag::ObjectType, Value::Enumeration(2))]);
    let most = Item::integer(Tag::MaximumItems, 1);
    let answers = kmip.try_batch(vec![(Operation::Locate, vec![most, found]), (Operation::GetAttributeList, vec![placeholder])], &[]).unwrap();
    assert_eq!(text_of(&answers[0]), text_of(&answers[1]), "2.x can name the ID Placeholder");
}
