//! What fuzzing starts from: sessions that get deep, each at every version. They are made by code, so that they cannot fall behind the protocol's tables.

use crate::frames::{join, wait};
use crate::messages::{
    Item, batch, create, create_for, custom, date, id, key_block, one, protocol_version, register, register_password, revoke, template, text, with_header,
};
use crate::{examples, scene};
use keystead_kmip::attribute::{Attribute, Change};
use keystead_kmip::enumeration::{
    BatchErrorContinuationOption as OnError, BlockCipherMode, CredentialType, CryptographicAlgorithm, EncodingOption, Enumeration as _, KeyFormatType,
    ObjectGroupMember, ObjectType, Operation, QueryFunction, RevocationReasonCode, State, WRAP_KEY, WrappingMethod,
};
use keystead_kmip::ttlv::{MAX_DEPTH, Node, Value};
use keystead_kmip::{Tag, Version};
use std::collections::BTreeMap;
use std::path::Path;

/// A session to start from.
pub struct Seed {
    /// Its name, with the version.
    pub name: String,
    /// Its messages.
    pub messages: Vec<Node<'static>>,
    /// How many items must fail in it: a seed that fails earlier than it should is a poor start, and says so.
    pub failures: usize,
}

/// All of them.
pub fn all() -> Vec<Seed> {
    let (later, first): (Vec<Version>, Vec<Version>) = Version::SUPPORTED.iter().partition(|version| **version >= Version::V2_0);
    first.into_iter().flat_map(at).chain(later.into_iter().flat_map(crate::later::at)).collect()
}

/// What the codec starts from: each message of a session, each payload, attribute and object in it, and a record of the store.
pub fn parts() -> Vec<(String, Vec<u8>)> {
    let mut parts = BTreeMap::new();
    for seed in all() {
        seed.messages.iter().for_each(|message| take_apart(message, &mut parts));
    }
    // The type of an object, as the store has it: format, tag, index, type and value.
    let record = vec![1, 0x42, 0x00, 0x57, 0, 5, 0, 0, 0, 2];
    let named = parts.into_values().chain([record]).enumerate().map(|(at, bytes)| (at.to_string(), bytes));
    named.collect()
}

fn take_apart(node: &Node<'static>, parts: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let bytes = join(std::slice::from_ref(node));
    let whole = [
        Tag::RequestMessage,
        Tag::RequestPayload,
        Tag::Attribute,
        Tag::Name,
        Tag::SymmetricKey,
        Tag::PublicKey,
        Tag::SecretData,
        Tag::OpaqueObject,
        Tag::Template,
    ];
    if whole.contains(&node.tag) {
        // One of a kind is enough: the same tags with other values are what the fuzzer makes by itself.
        parts.entry(shape(node)).or_insert(bytes);
    }
    node.items().iter().for_each(|item| take_apart(item, parts));
}

/// The tags and types of an item and of all within it.
fn shape(node: &Node<'_>) -> Vec<u8> {
    let mut shape = vec![node.value.kind()];
    shape.extend_from_slice(&node.tag.0.to_be_bytes());
    node.items().iter().for_each(|item| shape.extend(self::shape(item)));
    shape
}

/// Writes the seeds into a folder, a file each.
pub fn write(folder: &Path, seeds: impl IntoIterator<Item = (String, Vec<u8>)>) {
    std::fs::create_dir_all(folder).unwrap();
    seeds.into_iter().for_each(|(name, bytes)| std::fs::write(folder.join(format!("seed-{name}")), bytes).unwrap());
}

fn at(version: Version) -> Vec<Seed> {
    let since = |since, messages: Vec<Node<'static>>| if version >= since { messages } else { Vec::new() };
    let seed = |name: &str, messages, failures| Seed { name: format!("{name}-{version}"), messages, failures };
    vec![
        seed("life", life(version), 3),
        seed("objects", objects(version), 0),
        seed("attributes", attributes(version), 0),
        seed("deep", deep(version), 1),
        seed("locate", locate(version), 0),
        seed("rekey", rekey(version), 1),
        seed("wrap", wrap(version), 0),
        seed("dates", dates(version), 1),
        seed("batches", batches(version), 7),
        seed("header", vec![header(version)], 0),
        seed("others", others(version), 13),
        seed("query", query(version), 0),
        seed("discover", since(Version::V1_1, discover(version)), 0),
    ]
}

fn name(name: &'static str) -> Attribute<'static> {
    Attribute::name(name)
}

fn life(version: Version) -> Vec<Node<'static>> {
    let call = |operation, payload| one(version, operation, payload);
    let x = |value: &'static str| custom("x-a", Value::TextString(value.into())).to_node().into_owned();
    let (operation, payload) = create(vec![name("a"), text(Tag::ObjectGroup, "group")]);
    let (revoking, reason) = revoke(id(1), RevocationReasonCode::CessationOfOperation);
    vec![
        call(operation, payload),
        call(Operation::Get, vec![id(1)]),
        call(Operation::GetAttributes, vec![id(1)]),
        call(Operation::GetAttributes, vec![id(1), Node::text(Tag::AttributeName, "State"), Node::text(Tag::AttributeName, "x-a")]),
        call(Operation::GetAttributeList, vec![id(1)]),
        call(Operation::AddAttribute, vec![id(1), x("1")]),
        call(Operation::ModifyAttribute, vec![id(1), x("2")]),
        call(Operation::DeleteAttribute, vec![id(1), Node::text(Tag::AttributeName, "x-a"), Node::integer(Tag::AttributeIndex, 0)]),
        call(Operation::Activate, vec![id(1)]),
        // A Check that is denied says what.
        call(Operation::Check, vec![id(1), Node::integer(Tag::CryptographicUsageMask, 0x30)]),
        // An active object cannot be destroyed.
        call(Operation::Destroy, vec![id(1)]),
        call(revoking, reason),
        call(Operation::Destroy, vec![id(1)]),
        call(Operation::Get, vec![id(1)]),
        call(Operation::GetAttributes, vec![id(1)]),
    ]
}

fn objects(version: Version) -> Vec<Node<'static>> {
    let call = |(operation, payload): Item| one(version, operation, payload);
    let algorithm = [Node::enumeration(Tag::CryptographicAlgorithm, CryptographicAlgorithm::AES), Node::integer(Tag::CryptographicLength, 128)];
    let key = Node::structure(Tag::SymmetricKey, vec![key_block(KeyFormatType::Raw, &[9; 16], &algorithm)]);
    let opaque =
        Node::structure(Tag::OpaqueObject, vec![Node::new(Tag::OpaqueDataType, Value::Enumeration(1)), Node::bytes(Tag::OpaqueDataValue, vec![5; 20])]);
    let held = [Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(CryptographicAlgorithm::AES.number())), text(Tag::ObjectGroup, "group")];
    let items = held.iter().map(|attribute| attribute.to_node().into_owned()).collect();
    let (create, payload) = create(vec![]);
    let mut payload: Vec<_> = payload.into_iter().take(1).collect();
    let mut by_template = template(&[Attribute::new(Tag::CryptographicUsageMask, Value::Integer(4))]);
    if let Value::Structure(items) = &mut by_template.value {
        items.insert(0, Node::new(Tag::Name, name("template").value));
    }
    payload.push(by_template);
    vec![
        call(register(ObjectType::SymmetricKey, key, &[name("key")])),
        call(register_password(b"secret", &[name("password")])),
        call(register(ObjectType::OpaqueObject, opaque, &[name("opaque")])),
        call(register(ObjectType::Template, Node::structure(Tag::Template, items), &[name("template")])),
        call((create, payload)),
        batch(version, Some(OnError::Continue), (1..=5).map(|number| (Operation::Get, vec![id(number)])).collect()),
        batch(version, Some(OnError::Continue), (1..=5).map(|number| (Operation::Destroy, vec![id(number)])).collect()),
    ]
}

/// Every attribute of the version: given at creation, added later, changed, deleted.
fn attributes(version: Version) -> Vec<Node<'static>> {
    let own = |tag| [Tag::CryptographicAlgorithm, Tag::CryptographicLength, Tag::CryptographicUsageMask].contains(&tag);
    // A key that must not leave, or with a date in its life, could not show the rest.
    let kept = |tag| [Tag::Extractable, Tag::ActivationDate, Tag::ProcessStartDate, Tag::ProtectStopDate, Tag::DeactivationDate].contains(&tag);
    let given = examples::attributes(version, |definition| definition.create && !own(definition.tag) && !kept(definition.tag));
    let free = examples::attributes(version, |definition| definition.change == Change::Free && definition.tag != Tag::Name);
    let node = |attribute: &Attribute<'_>| attribute.to_node().into_owned();
    let named = |attribute: &Attribute<'_>| Node::text(Tag::AttributeName, attribute.identity.name().to_owned());
    let (operation, payload) = create(given);
    let each = |operation: Operation, item: &dyn Fn(&Attribute<'_>) -> Node<'static>| -> Node<'static> {
        batch(version, Some(OnError::Continue), free.iter().map(|attribute| (operation, vec![id(2), item(attribute)])).collect())
    };
    let (bare, empty) = create(vec![]);
    vec![
        one(version, operation, payload),
        one(version, Operation::GetAttributes, vec![id(1)]),
        one(version, bare, empty),
        each(Operation::AddAttribute, &node),
        each(Operation::ModifyAttribute, &node),
        one(version, Operation::GetAttributes, vec![id(2)]),
        each(Operation::DeleteAttribute, &named),
        one(version, Operation::GetAttributeList, vec![id(2)]),
    ]
}

/// An attribute that is as deep as a message can bring it in: in the answer to Get it would stand one level deeper. It is refused.
fn deep(version: Version) -> Vec<Node<'static>> {
    let value = (0..MAX_DEPTH - 5).fold(Value::Integer(1), |inner, _| Value::Structure(vec![Node::new(Tag::AttributeValue, inner)]));
    let (operation, payload) = register(ObjectType::Template, Node::structure(Tag::Template, vec![]), &[name("template")]);
    vec![
        one(version, operation, payload),
        one(version, Operation::AddAttribute, vec![id(1), custom("x-a", value).to_node().into_owned()]),
        one(version, Operation::Get, vec![id(1)]),
    ]
}

fn locate(version: Version) -> Vec<Node<'static>> {
    let wanted = |attributes: &[Attribute<'static>], further: Vec<Node<'static>>| {
        let mut payload = further;
        payload.extend(attributes.iter().map(|attribute| attribute.to_node().into_owned()));
        one(version, Operation::Locate, payload)
    };
    let group = || text(Tag::ObjectGroup, "group");
    let part = Attribute::new(Tag::Name, Value::Structure(vec![Node::text(Tag::NameValue, "b")]));
    let limits = vec![
        Node::new(Tag::UsageLimitsTotal, Value::LongInteger(100)),
        Node::enumeration(Tag::UsageLimitsUnit, keystead_kmip::enumeration::UsageLimitsUnit::Object),
    ];
    let mut found = vec![
        batch(
            version,
            None,
            vec![
                create(vec![name("a"), group(), custom("x-n", Value::Integer(1))]),
                create(vec![name("b"), group(), Attribute::new(Tag::UsageLimits, Value::Structure(limits.clone()))]),
            ],
        ),
        wanted(&[], vec![]),
        wanted(&[name("a")], vec![]),
        wanted(&[part], vec![]),
        wanted(&[group()], vec![Node::integer(Tag::MaximumItems, 1)]),
        wanted(&[group()], vec![Node::enumeration(Tag::ObjectGroupMember, ObjectGroupMember::GroupMemberFresh)]),
        wanted(&[custom("x-n", Value::Integer(1))], vec![Node::integer(Tag::StorageStatusMask, if version < Version::V2_0 { 3 } else { 5 })]),
        wanted(&[Attribute::new(Tag::State, Value::Enumeration(State::PreActive.number()))], vec![]),
        wanted(&[Attribute::new(Tag::CryptographicUsageMask, Value::Integer(4))], vec![]),
        wanted(&[Attribute::new(Tag::UsageLimits, Value::Structure(limits))], vec![]),
        wanted(&[date(Tag::InitialDate, scene::NOW), date(Tag::InitialDate, scene::NOW + 60)], vec![]),
        // What is found alone is what later items of the batch mean.
        batch(version, None, vec![(Operation::Locate, vec![name("b").to_node().into_owned()]), (Operation::Get, vec![])]),
    ];
    if version >= Version::V1_3 {
        found.push(wanted(&[group()], vec![Node::integer(Tag::OffsetItems, 1)]));
    }
    found
}

fn rekey(version: Version) -> Vec<Node<'static>> {
    let (operation, payload) = create(vec![name("a"), date(Tag::ActivationDate, scene::NOW), date(Tag::DeactivationDate, scene::NOW + 1_000)]);
    vec![
        one(version, operation, payload),
        one(version, Operation::ReKey, vec![id(1), Node::new(Tag::Offset, Value::Interval(60))]),
        one(version, Operation::ReKey, vec![id(2), template(&[text(Tag::ContactInformation, "me")])]),
        // It has been replaced already.
        one(version, Operation::ReKey, vec![id(1)]),
        batch(version, None, (1..=3).map(|number| (Operation::GetAttributes, vec![id(number)])).collect()),
        one(version, Operation::Get, vec![id(3)]),
    ]
}

fn wrap(version: Version) -> Vec<Node<'static>> {
    let parameters = |mode| Node::structure(Tag::CryptographicParameters, vec![Node::enumeration(Tag::BlockCipherMode, mode)]);
    let get = |key: Vec<Node<'static>>, further: Vec<Node<'static>>| {
        let mut items = vec![Node::enumeration(Tag::WrappingMethod, WrappingMethod::Encrypt), Node::structure(Tag::EncryptionKeyInformation, key)];
        items.extend(further);
        one(version, Operation::Get, vec![id(2), Node::structure(Tag::KeyWrappingSpecification, items)])
    };
    let plain = if version >= Version::V1_1 { vec![Node::enumeration(Tag::EncodingOption, EncodingOption::NoEncoding)] } else { Vec::new() };
    vec![
        batch(version, None, vec![create_for(WRAP_KEY, vec![]), (Operation::Activate, vec![]), create(vec![name("a")])]),
        get(vec![id(1)], plain),
        get(vec![id(1), parameters(BlockCipherMode::NISTKeyWrap)], vec![]),
        get(vec![id(1), parameters(BlockCipherMode::AESKeyWrapPadding)], vec![]),
    ]
}

/// Dates that pass.
fn dates(version: Version) -> Vec<Node<'static>> {
    let now = scene::NOW;
    let state = || one(version, Operation::GetAttributes, vec![id(1), Node::text(Tag::AttributeName, "State")]);
    let set = |operation, tag, seconds| one(version, operation, vec![id(1), date(tag, seconds).to_node().into_owned()]);
    let (operation, payload) = create(vec![date(Tag::ActivationDate, now + 10), date(Tag::ProtectStopDate, now + 100)]);
    let (revoking, reason) = revoke(id(1), RevocationReasonCode::KeyCompromise);
    vec![
        one(version, operation, payload),
        state(),
        set(Operation::ModifyAttribute, Tag::ActivationDate, now + 20),
        set(Operation::AddAttribute, Tag::DeactivationDate, now + 200),
        wait(50),
        state(),
        wait(100),
        // The Protect Stop Date has passed, and stays.
        set(Operation::ModifyAttribute, Tag::ProtectStopDate, now + 300),
        wait(100),
        state(),
        one(version, revoking, reason),
        one(version, Operation::Destroy, vec![id(1)]),
        state(),
    ]
}

fn batches(version: Version) -> Vec<Node<'static>> {
    let add = |object: Vec<Node<'static>>, value| {
        let mut payload = object;
        payload.push(custom("x-a", Value::Integer(value)).to_node().into_owned());
        (Operation::AddAttribute, payload)
    };
    let missing = || (Operation::Get, vec![Node::text(Tag::UniqueIdentifier, "missing")]);
    vec![
        batch(version, Some(OnError::Undo), vec![create(vec![name("a")]), add(vec![], 1), missing()]),
        batch(version, Some(OnError::Undo), vec![create(vec![name("a")]), add(vec![], 1), add(vec![], 2), (Operation::GetAttributes, vec![])]),
        batch(version, Some(OnError::Continue), vec![missing(), add(vec![id(2)], 3), (Operation::Destroy, vec![id(2)])]),
        batch(version, Some(OnError::Stop), vec![create(vec![name("a")]), missing(), (Operation::Destroy, vec![id(3)])]),
        batch(version, None, vec![(Operation::Destroy, vec![id(3)]), (Operation::Query, vec![])]),
        // Made and destroyed by the same unit.
        batch(version, Some(OnError::Undo), vec![create(vec![name("b")]), (Operation::Destroy, vec![])]),
        one(version, Operation::Locate, vec![]),
        batch(version, Some(OnError::Undo), vec![create(vec![name("b")]), create(vec![name("b")])]),
    ]
}

/// All that a header may hold.
fn header(version: Version) -> Node<'static> {
    let credential = Node::structure(
        Tag::Credential,
        vec![
            Node::enumeration(Tag::CredentialType, CredentialType::UsernameAndPassword),
            Node::structure(Tag::CredentialValue, vec![Node::text(Tag::Username, "user"), Node::text(Tag::Password, "word")]),
        ],
    );
    let mut further = vec![
        Node::integer(Tag::MaximumResponseSize, 4_096),
        Node::new(Tag::AsynchronousIndicator, Value::Boolean(false)),
        Node::structure(Tag::Authentication, vec![credential]),
        Node::enumeration(Tag::BatchErrorContinuationOption, OnError::Continue),
        Node::new(Tag::BatchOrderOption, Value::Boolean(true)),
        Node::new(Tag::TimeStamp, Value::DateTime(scene::NOW)),
    ];
    if version >= Version::V1_4 {
        further.insert(1, Node::text(Tag::ClientCorrelationValue, "correlation"));
    }
    let mut message = with_header(version, further, vec![create(vec![])]);
    if let Value::Structure(items) = &mut message.value
        && let Some(Node { value: Value::Structure(item), .. }) = items.last_mut()
    {
        let extension = vec![
            Node::text(Tag::VendorIdentification, "vendor"),
            Node::new(Tag::CriticalityIndicator, Value::Boolean(false)),
            Node::structure(Tag::VendorExtension, vec![]),
        ];
        item.push(Node::structure(Tag::MessageExtension, extension));
    }
    message
}

/// Every operation on an object of another SVM. Nothing of it may work.
fn others(version: Version) -> Vec<Node<'static>> {
    let x = || custom("x-a", Value::Integer(1)).to_node().into_owned();
    let id = || id(scene::FOREIGN);
    let items = vec![
        (Operation::Get, vec![id()]),
        (Operation::GetAttributes, vec![id()]),
        (Operation::GetAttributeList, vec![id()]),
        (Operation::AddAttribute, vec![id(), x()]),
        (Operation::ModifyAttribute, vec![id(), x()]),
        (Operation::DeleteAttribute, vec![id(), Node::text(Tag::AttributeName, "x-a")]),
        (Operation::ReKey, vec![id()]),
        (Operation::Activate, vec![id()]),
        revoke(id(), RevocationReasonCode::KeyCompromise),
        (Operation::Destroy, vec![id()]),
        (Operation::ObtainLease, vec![id()]),
        (Operation::Archive, vec![id()]),
        (Operation::Check, vec![id()]),
        (Operation::Locate, vec![]),
    ];
    vec![batch(version, Some(OnError::Continue), items)]
}

fn query(version: Version) -> Vec<Node<'static>> {
    let functions = (1..=12).filter_map(QueryFunction::from_number).map(|function| Node::enumeration(Tag::QueryFunction, function));
    vec![one(version, Operation::Query, functions.collect())]
}

fn discover(version: Version) -> Vec<Node<'static>> {
    vec![
        one(version, Operation::DiscoverVersions, vec![]),
        one(version, Operation::DiscoverVersions, vec![protocol_version(1, 2), protocol_version(9, 0), protocol_version(1, 0)]),
    ]
}

/// The bytes of a seed.
pub fn bytes(seed: &Seed) -> Vec<u8> {
    join(&seed.messages)
}
