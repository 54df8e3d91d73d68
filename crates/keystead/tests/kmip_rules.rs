//! Rules of the KMIP specification that clients notice when they are broken: one test a rule, over the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::faulty::Mood;
use common::kmip::{Answer, Kmip, own, template, text, uid};
use common::scene::{Scene, scene};
use keystead_kmip::Tag;
use keystead_kmip::attribute::{Attribute, Identity};
use keystead_kmip::enumeration::{
    BatchErrorContinuationOption, BlockCipherMode, LinkType, NameType, ObjectType, Operation, ResultReason, RevocationReasonCode, UsageLimitsUnit,
};
use keystead_kmip::ttlv::{Node as Item, Value};

type Call = (Operation, Vec<Item<'static>>);

fn usual(more: Vec<Attribute<'static>>) -> Item<'static> {
    let mut all = vec![
        Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(3)),
        Attribute::new(Tag::CryptographicLength, Value::Integer(256)),
        Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)),
    ];
    all.extend(more);
    template(&all)
}

fn create(more: Vec<Attribute<'static>>) -> Call {
    (Operation::Create, vec![Item::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), usual(more)])
}

fn batch(kmip: &mut Kmip, calls: Vec<Call>, option: BatchErrorContinuationOption) -> Vec<Answer> {
    kmip.try_batch(calls, &[Item::enumeration(Tag::BatchErrorContinuationOption, option)]).unwrap()
}

fn custom(name: &'static str, value: &'static str) -> Attribute<'static> {
    Attribute { identity: Identity::Custom(name.into()), index: 0, value: Value::TextString(value.into()) }
}

fn attribute(attribute: Attribute<'_>) -> Item<'static> {
    own(attribute.to_node())
}

fn exists(kmip: &mut Kmip, id: &str) -> bool {
    kmip.get(id).reason().is_none()
}

async fn at_1_4() -> (Scene, Kmip) {
    let scene = scene().await;
    let kmip = scene.connect();
    (scene, kmip)
}

/// Section 4: the placeholder is set by what makes an object and by Locate; a Get in between must not turn it to another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_id_placeholder_stays_with_what_was_made() {
    let (_scene, mut kmip) = at_1_4().await;
    let other = kmip.created(vec![]);
    for between in [(Operation::Get, vec![uid(&other)]), (Operation::GetAttributes, vec![uid(&other)])] {
        let answers = batch(&mut kmip, vec![create(vec![]), between, (Operation::Destroy, vec![])], BatchErrorContinuationOption::Continue);
        assert_eq!(answers[2].id(), answers[0].id());
        assert!(exists(&mut kmip, &other));
    }
    // A Locate with more than one match leaves none (section 4.9).
    let group = || Attribute::new(Tag::ObjectGroup, Value::TextString("g".into()));
    let ids = [kmip.created(vec![group()]), kmip.created(vec![group()])];
    let answers = batch(
        &mut kmip,
        vec![create(vec![]), (Operation::Locate, vec![attribute(group())]), (Operation::Destroy, vec![])],
        BatchErrorContinuationOption::Continue,
    );
    assert_eq!(answers[2].reason(), Some(ResultReason::InvalidField));
    assert!(ids.iter().all(|id| exists(&mut kmip, id)) && exists(&mut kmip, &answers[0].id()));
    let only = vec![(Operation::Locate, vec![Item::integer(Tag::MaximumItems, 1), attribute(group())]), (Operation::Destroy, vec![])];
    assert_eq!(batch(&mut kmip, only, BatchErrorContinuationOption::Stop)[1].id(), ids.iter().find(|id| !exists(&mut kmip, id)).unwrap().as_str());
}

/// Sections 4.15 and 4.16: without an index, index 0 is meant, and no other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_index_the_first_instance_is_meant_and_no_other() {
    let (_scene, mut kmip) = at_1_4().await;
    let id = kmip.created(vec![custom("x-a", "0"), custom("x-a", "1")]);
    let delete = |kmip: &mut Kmip| kmip.call(Operation::DeleteAttribute, vec![uid(&id), Item::text(Tag::AttributeName, "x-a")]);
    delete(&mut kmip).id();
    assert_eq!(delete(&mut kmip).reason(), Some(ResultReason::ItemNotFound), "said again, it must not take the next one");
    assert_eq!(kmip.attribute(&id, "x-a"), Some(Value::TextString("1".into())));
    let modify = kmip.call(Operation::ModifyAttribute, vec![uid(&id), attribute(custom("x-a", "2"))]);
    assert_eq!(modify.reason(), Some(ResultReason::ItemNotFound));
    assert_eq!(
        kmip.call(Operation::ModifyAttribute, vec![uid(&id), attribute(custom("x-b", "2"))]).reason(),
        Some(ResultReason::InvalidField),
        "it was never set"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_name_for_one_object_within_a_batch_too() {
    let (_scene, mut kmip) = at_1_4().await;
    let name = || vec![Attribute::name("n")];
    let answers = batch(&mut kmip, vec![create(name()), create(name()), create(vec![])], BatchErrorContinuationOption::Undo);
    assert_eq!((answers.len(), answers[1].reason()), (2, Some(ResultReason::InvalidField)), "the second item is at fault");
    assert!(kmip.locate(&[]).is_empty(), "and all is undone");
    let id = kmip.created(name());
    let other = kmip.created(vec![]);
    let taken = kmip.call(Operation::AddAttribute, vec![uid(&other), attribute(Attribute::name("n"))]);
    assert_eq!(taken.reason(), Some(ResultReason::IllegalOperation));
    // Given up and taken in one batch.
    let hand_over = vec![
        (Operation::DeleteAttribute, vec![uid(&id), Item::text(Tag::AttributeName, "Name")]),
        (Operation::AddAttribute, vec![uid(&other), attribute(Attribute::name("n"))]),
    ];
    assert!(batch(&mut kmip, hand_over, BatchErrorContinuationOption::Undo).iter().all(|answer| answer.reason().is_none()));
    assert_eq!(kmip.locate(&[Attribute::name("n")]), [other]);
}

/// Dates can come out of order by themselves; that must not make other attributes unchangeable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_revoke_and_activate_attributes_can_still_be_changed() {
    let (scene, mut kmip) = at_1_4().await;
    let now = keystead_manager::clock::Clock::utc(&*scene.clock).as_second();
    let date = |tag, at| Attribute::new(tag, Value::DateTime(at));
    let revoked = kmip.created(vec![date(Tag::ActivationDate, now - 10), date(Tag::ProtectStopDate, now + 100_000)]);
    let reason = Item::structure(Tag::RevocationReason, vec![Item::enumeration(Tag::RevocationReasonCode, RevocationReasonCode::CessationOfOperation)]);
    kmip.call(Operation::Revoke, vec![uid(&revoked), reason]).id();
    let activated = kmip.created(vec![date(Tag::ProcessStartDate, now - 1_000)]);
    kmip.with_id(Operation::Activate, &activated).id();
    for id in [revoked, activated] {
        kmip.call(Operation::AddAttribute, vec![uid(&id), attribute(custom("x-a", "0"))]).id();
        kmip.call(Operation::ModifyAttribute, vec![uid(&id), attribute(custom("x-a", "1"))]).id();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_has_so_many_names_that_it_can_still_be_destroyed() {
    let (_scene, mut kmip) = at_1_4().await;
    let id = kmip.created((0..32).map(|n| Attribute::name(format!("n{n}"))).collect());
    let more = kmip.call(Operation::AddAttribute, vec![uid(&id), attribute(Attribute::name("one more"))]);
    assert_eq!(more.reason(), Some(ResultReason::IndexOutOfBounds));
    let next = kmip.with_id(Operation::ReKey, &id).id();
    assert_eq!(kmip.locate(&[Attribute::name("n31")]), [next.as_str()], "Re-key hands all of them over");
    kmip.with_id(Operation::Destroy, &next).id();
    assert_eq!(kmip.with_id(Operation::Destroy, &next).reason(), Some(ResultReason::PermissionDenied));
    kmip.created(vec![Attribute::name("n31")]);
    let large = kmip.create(vec![custom("x-large", Box::leak("v".repeat(70_000).into_boxed_str()))]);
    assert_eq!(large.reason(), Some(ResultReason::InvalidField), "{}", large.message());
    assert_eq!(kmip.register(&vec![7; 300 * 1024], &[]).reason(), Some(ResultReason::InvalidField), "more than is kept");
    let kept = kmip.register(&vec![7; 256 * 1024], &[]).id();
    assert_eq!(kmip.get(&kept).material().len(), 256 * 1024);
}

/// Section 6.3: an answer that is too long says so. What was done is said all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maximum_response_size_hides_nothing_that_was_done() {
    let (_scene, mut kmip) = at_1_4().await;
    let id = kmip.created(vec![]);
    let limit = |bytes| [Item::integer(Tag::MaximumResponseSize, bytes)];
    let answers = kmip.try_batch(vec![create(vec![]), (Operation::Get, vec![uid(&id)])], &limit(350)).unwrap();
    assert!(exists(&mut kmip, &answers[0].id()), "the key was made, and the client knows it");
    assert_eq!(answers[1].reason(), Some(ResultReason::ResponseTooLarge));
    assert!(answers.iter().all(|answer| answer.0.find(Tag::UniqueBatchItemID).is_some()));
    let count = kmip.locate(&[]).len();
    let answers = kmip.try_batch(vec![create(vec![]), create(vec![])], &limit(200)).unwrap();
    assert!(answers.iter().all(|answer| answer.reason() == Some(ResultReason::ResponseTooLarge)));
    assert_eq!(kmip.locate(&[]).len(), count, "where not even identifiers fit, nothing is done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_and_parameters_show_an_older_client_only_what_it_knows() {
    let (scene, mut kmip) = at_1_4().await;
    let parts = vec![Item::enumeration(Tag::BlockCipherMode, BlockCipherMode::GCM), Item::integer(Tag::IVLength, 12), Item::integer(Tag::SaltLength, 8)];
    let id = kmip.created(vec![Attribute::new(Tag::CryptographicParameters, Value::Structure(parts))]);
    let inside = Item::structure(Tag::Template, vec![attribute(Attribute::new(Tag::Sensitive, Value::Boolean(true))), attribute(custom("x-a", "1"))]);
    let register = vec![Item::enumeration(Tag::ObjectType, ObjectType::Template), template(&[Attribute::name("t")]), inside];
    let stencil = kmip.call(Operation::Register, register).id();
    for (minor, members, attributes) in [(0, 1, 1), (2, 2, 1), (3, 2, 1), (4, 3, 2)] {
        let mut kmip = scene.at(minor);
        let Some(Value::Structure(shown)) = kmip.attribute(&id, "Cryptographic Parameters") else { panic!("1.{minor}") };
        assert_eq!(shown.len(), members, "1.{minor}");
        let answer = kmip.get(&stencil);
        let shown = answer.payload().find(Tag::Template).unwrap().items();
        let given = shown.iter().filter(|item| item.find(Tag::AttributeName).is_none_or(|name| text(&name.value) != "Name")).count();
        assert_eq!(given, attributes, "1.{minor}");
    }
    let named = Item::structure(Tag::Template, vec![attribute(Attribute::name("inside"))]);
    let register = vec![Item::enumeration(Tag::ObjectType, ObjectType::Template), template(&[Attribute::name("u")]), named];
    assert_eq!(kmip.call(Operation::Register, register).reason(), Some(ResultReason::InvalidField));
}

/// Section 4.9: of a structure, a part can be looked for, in whatever order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locate_finds_structures_by_their_parts() {
    let (_scene, mut kmip) = at_1_4().await;
    let first = kmip.created(vec![Attribute::name("n")]);
    let second = kmip.with_id(Operation::ReKey, &first).id();
    let link = |items| Attribute::new(Tag::Link, Value::Structure(items));
    let target = |id: &str| Item::text(Tag::LinkedObjectIdentifier, id.to_owned());
    assert_eq!(kmip.locate(&[link(vec![target(&first)])]), [second.as_str()]);
    assert_eq!(kmip.locate(&[link(vec![target(&second), Item::enumeration(Tag::LinkType, LinkType::ReplacementObjectLink)])]), [first.as_str()]);
    let turned = vec![Item::enumeration(Tag::NameType, NameType::UninterpretedTextString), Item::text(Tag::NameValue, "n")];
    assert_eq!(kmip.locate(&[Attribute::new(Tag::Name, Value::Structure(turned))]), [second.as_str()]);
    assert_eq!(kmip.locate(&[Attribute::new(Tag::Name, Value::Structure(vec![Item::text(Tag::NameValue, "n")]))]), [second.as_str()]);
    // Usage Limits: as much is left, at least.
    let limits = |total, count: Option<i64>| {
        let mut items = vec![Item::new(Tag::UsageLimitsTotal, Value::LongInteger(total))];
        items.extend(count.map(|count| Item::new(Tag::UsageLimitsCount, Value::LongInteger(count))));
        items.push(Item::enumeration(Tag::UsageLimitsUnit, UsageLimitsUnit::Byte));
        Attribute::new(Tag::UsageLimits, Value::Structure(items))
    };
    let limited = kmip.created(vec![limits(1_000, None)]);
    assert_eq!(kmip.attribute(&limited, "Usage Limits"), Some(limits(1_000, Some(1_000)).value), "all of it is there still");
    assert_eq!(kmip.locate(&[limits(1_000, None)]), [limited.as_str()]);
    assert_eq!(kmip.locate(&[limits(1, Some(999))]), [limited.as_str()]);
    assert!(kmip.locate(&[limits(1_001, None)]).is_empty());
    let many = (0..33).map(|_| attribute(Attribute::name("n"))).collect();
    assert_eq!(kmip.call(Operation::Locate, many).reason(), Some(ResultReason::InvalidField));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rekey_with_dates_and_get_with_a_wrap_type() {
    let (scene, mut kmip) = at_1_4().await;
    let date = |tag, at| Attribute::new(tag, Value::DateTime(at));
    let offset = || Item::new(Tag::Offset, Value::Interval(60));
    let id = kmip.created(vec![date(Tag::DeactivationDate, 4_000_000_000)]);
    assert_eq!(kmip.call(Operation::ReKey, vec![uid(&id), offset()]).reason(), Some(ResultReason::IllegalOperation), "no Activation Date to move from");
    let id = kmip.created(vec![date(Tag::ActivationDate, 1_000), date(Tag::DeactivationDate, 2_000)]);
    let both = vec![uid(&id), offset(), template(&[date(Tag::DeactivationDate, 4_000_000_000)])];
    assert_eq!(kmip.call(Operation::ReKey, both).reason(), Some(ResultReason::InvalidMessage));
    let next = kmip.call(Operation::ReKey, vec![uid(&id), offset()]).id();
    let now = keystead_manager::clock::Clock::utc(&*scene.clock).as_second();
    assert!(matches!(kmip.attribute(&next, "Activation Date"), Some(Value::DateTime(at)) if (now..=now + 120).contains(&at)));
    assert_eq!(kmip.with_id(Operation::ReKey, &id).reason(), Some(ResultReason::PermissionDenied), "it has been replaced");
    for (kind, reason) in [(1, None), (2, None), (3, Some(ResultReason::InvalidField))] {
        let answer = kmip.call(Operation::Get, vec![uid(&next), Item::new(Tag::KeyWrapType, Value::Enumeration(kind))]);
        assert_eq!(answer.reason(), reason, "KeyWrapType {kind}");
    }
}

/// Section 4.10: a Check that fails says which of what was asked for is denied, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_check_says_what_was_denied() {
    let (_scene, mut kmip) = at_1_4().await;
    let limits = vec![Item::new(Tag::UsageLimitsTotal, Value::LongInteger(5)), Item::enumeration(Tag::UsageLimitsUnit, UsageLimitsUnit::Object)];
    let id = kmip.created(vec![Attribute::new(Tag::UsageLimits, Value::Structure(limits))]);
    let count = |count| Item::new(Tag::UsageLimitsCount, Value::LongInteger(count));
    let mask = |mask| Item::integer(Tag::CryptographicUsageMask, mask);
    let lease = |seconds| Item::new(Tag::LeaseTime, Value::Interval(seconds));
    let rows = [
        (vec![count(6), mask(4), lease(1)], vec![count(6)]),
        (vec![count(5), mask(16), lease(1)], vec![mask(16)]),
        (vec![mask(4), lease(1_000_000)], vec![lease(1_000_000)]),
        (vec![count(6), mask(16), lease(1_000_000)], vec![count(6), mask(16), lease(1_000_000)]),
    ];
    for (asked, denied) in rows {
        let answer = kmip.call(Operation::Check, std::iter::once(uid(&id)).chain(asked).collect());
        assert_eq!(answer.reason(), Some(ResultReason::PermissionDenied));
        assert_eq!(answer.0.find(Tag::ResponsePayload).map(Item::items), Some(denied.as_slice()));
    }
    let answer = kmip.call(Operation::Check, vec![uid(&id), count(5), mask(12), lease(1)]);
    assert_eq!(answer.payload().items(), [uid(&id)]);
    (kmip.major, kmip.minor) = (2, 1);
    let answer = kmip.call(Operation::Check, vec![uid(&id), mask(16)]);
    assert_eq!((answer.reason(), answer.0.find(Tag::ResponsePayload)), (Some(ResultReason::IncompatibleCryptographicUsageMask), None), "as OASIS has it");
}

/// Section 4: the placeholder is what an operation has made that succeeded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_made_is_no_placeholder() {
    let (_scene, mut kmip) = at_1_4().await;
    kmip.created(vec![Attribute::name("taken")]);
    let calls = vec![create(vec![]), create(vec![Attribute::name("taken")]), (Operation::Get, vec![])];
    let answers = batch(&mut kmip, calls, BatchErrorContinuationOption::Continue);
    assert_eq!(answers[1].reason(), Some(ResultReason::InvalidField));
    assert_eq!(answers[2].id(), answers[0].id(), "the last that was made is meant");
}

/// Section 4.21: a Template that is destroyed is gone, with all that was said of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_template_is_gone() {
    let (scene, mut kmip) = at_1_4().await;
    let register = |kmip: &mut Kmip| {
        let inside = Item::structure(Tag::Template, vec![attribute(custom("x-a", "1"))]);
        kmip.call(Operation::Register, vec![Item::enumeration(Tag::ObjectType, ObjectType::Template), template(&[Attribute::name("t")]), inside]).id()
    };
    let id = register(&mut kmip);
    assert_eq!(kmip.with_id(Operation::Destroy, &id).reason(), None);
    for operation in [Operation::Get, Operation::GetAttributes, Operation::GetAttributeList, Operation::Export, Operation::Destroy] {
        assert_eq!(kmip.with_id(operation, &id).reason(), Some(ResultReason::ItemNotFound), "{operation:?}");
    }
    kmip.major = 2;
    kmip.minor = 1;
    let everything = kmip.call(Operation::Locate, vec![Item::integer(Tag::StorageStatusMask, 7)]);
    assert!(everything.payload().items().is_empty());
    let kept = scene.store.inner().range(keystead_store::Range::prefix("/", 9_999)).await.unwrap().entries;
    let bytes: Vec<_> = kept.into_iter().filter(|entry| entry.key.contains(&id)).flat_map(|entry| entry.value.to_vec()).collect();
    assert!(!bytes.is_empty() && !bytes.windows(3).any(|part| part == b"x-a"), "nor does the store keep it");
    register(&mut scene.connect());
}

/// Sections 3.36 and 3.21: what a client leaves to the server that the server does not do, and less usage than none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_mean_nothing_are_refused() {
    let (_scene, mut kmip) = at_1_4().await;
    let space = || Attribute::new(Tag::ApplicationSpecificInformation, Value::Structure(vec![Item::text(Tag::ApplicationNamespace, "a")]));
    let limits = || {
        let items = vec![Item::new(Tag::UsageLimitsTotal, Value::LongInteger(-1)), Item::enumeration(Tag::UsageLimitsUnit, UsageLimitsUnit::Byte)];
        Attribute::new(Tag::UsageLimits, Value::Structure(items))
    };
    let id = kmip.created(vec![]);
    for (value, reason) in [(space(), ResultReason::ApplicationNamespaceNotSupported), (limits(), ResultReason::InvalidField)] {
        assert_eq!(kmip.create(vec![value.clone()]).reason(), Some(reason));
        assert_eq!(kmip.call(Operation::AddAttribute, vec![uid(&id), attribute(value)]).reason(), Some(reason));
    }
    assert!(kmip.locate(&[space()]).is_empty(), "to look for a namespace is another thing");
}

/// Sections 3.29 to 3.31: when and why an object was compromised is set once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compromise_is_told_once() {
    let (scene, mut kmip) = at_1_4().await;
    let id = kmip.created(vec![]);
    let revoke = |kmip: &mut Kmip, code, at| {
        let reason = Item::structure(Tag::RevocationReason, vec![Item::enumeration(Tag::RevocationReasonCode, code)]);
        let answer = kmip.call(Operation::Revoke, vec![uid(&id), reason, Item::new(Tag::CompromiseOccurrenceDate, Value::DateTime(at))]);
        assert_eq!(answer.reason(), None);
    };
    let told =
        |kmip: &mut Kmip| ["Compromise Date", "Compromise Occurrence Date", "Revocation Reason", "Last Change Date"].map(|name| kmip.attribute(&id, name));
    revoke(&mut kmip, RevocationReasonCode::KeyCompromise, 100);
    let first = told(&mut kmip);
    assert_eq!(first[1], Some(Value::DateTime(100)));
    scene.clock.advance(std::time::Duration::from_secs(60));
    revoke(&mut kmip, RevocationReasonCode::CACompromise, 200);
    assert_eq!(told(&mut kmip), first);
}

/// 2.1, section 11.3: a client that insists on answers that come later gets none at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_insists_on_asynchronous_answers_is_refused() {
    let (scene, _) = at_1_4().await;
    let mut kmip = scene.speaking(2, 1);
    for (indicator, reason) in [(1, Some(ResultReason::FeatureNotSupported)), (2, None), (3, None)] {
        let header = [Item::new(Tag::AsynchronousIndicator, Value::Enumeration(indicator))];
        assert_eq!(kmip.try_batch(vec![(Operation::Locate, vec![])], &header).unwrap()[0].reason(), reason, "{indicator}");
    }
}

/// Who is told that an object is not there makes another one: a store that does not answer is no such answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locate_does_not_take_an_outage_for_nothing() {
    let (scene, mut kmip) = at_1_4().await;
    let never = || Attribute::new(Tag::UniqueIdentifier, Value::TextString("11111111-1111-4111-8111-111111111111".into()));
    assert!(kmip.locate(&[never()]).is_empty());
    scene.store.set(Mood::Unavailable);
    assert_eq!(kmip.call(Operation::Locate, vec![attribute(never())]).reason(), Some(ResultReason::GeneralFailure));
    scene.store.set(Mood::Good);
    assert!(kmip.locate(&[never()]).is_empty());
}

/// Section 3.34: an object is fresh until it was given out, and what a batch undoes was given to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undone_get_leaves_an_object_fresh() {
    let (_scene, mut kmip) = at_1_4().await;
    let id = kmip.created(vec![]);
    let calls = || vec![(Operation::Get, vec![uid(&id)]), (Operation::Activate, vec![uid("no such object")])];
    assert_eq!(batch(&mut kmip, calls(), BatchErrorContinuationOption::Undo)[1].reason(), Some(ResultReason::ItemNotFound));
    // Of the objects that a session has handed out, it knows itself; so this cannot be a matter of time.
    assert_eq!(kmip.attribute(&id, "Fresh"), Some(Value::Boolean(true)));
    batch(&mut kmip, calls(), BatchErrorContinuationOption::Stop);
    assert_eq!(kmip.attribute(&id, "Fresh"), Some(Value::Boolean(false)));
}
