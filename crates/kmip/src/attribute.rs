//! The one attribute model: what attributes there are, since which version, of which shape, and who may set, change and delete them.
//!
//! The versions differ in how an attribute stands in a message (1.x: its name as a text, an index, a value; 2.x: its tag), not in what it is. So there is one table, and a mapping for each way
//! of writing. [`Attribute::to_node`] and [`Attribute::from_node`] are the mapping of 1.x.
//!
//! Source: KMIP Specification 1.4, section 3, the "attribute rules" of each attribute.

use crate::enumeration::{NameType, ResultReason, has_table, member_name};
use crate::failure::{Failure, Result};
use crate::fields::{Fields, integer, text};
use crate::tag::Tag;
use crate::ttlv::{Node, Value};
use crate::version::Version;
use std::borrow::Cow;

/// What a kind of attribute is, and what clients may do with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// The tag: its identity.
    pub tag: Tag,
    /// The name in messages of 1.x.
    pub name: &'static str,
    /// The first version that has it. Clients of earlier ones never see it.
    pub since: Version,
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
    ($($tag:ident $name:literal $since:ident $shape:expr, $multiple:literal $create:literal $change:ident;)*) => {
        /// All attributes of the specification that are known here.
        pub static DEFINITIONS: &[Definition] = &[$(
            Definition { tag: Tag::$tag, name: $name, since: Version::$since, shape: $shape, multiple: $multiple, create: $create, change: Change::$change },
        )*];
    };
}

// tag, name, since, shape, several?, given at creation?, later by clients
definitions! {
    UniqueIdentifier "Unique Identifier" V1_0 Shape::Text, false false Never;
    Name "Name" V1_0 Shape::Structure(&[(Tag::NameValue, Shape::Text, true), (Tag::NameType, Shape::Enumeration, true)]), true true Free;
    ObjectType "Object Type" V1_0 Shape::Enumeration, false false Never;
    CryptographicAlgorithm "Cryptographic Algorithm" V1_0 Shape::Enumeration, false true Add;
    CryptographicLength "Cryptographic Length" V1_0 Shape::Integer, false true Add;
    CryptographicParameters "Cryptographic Parameters" V1_0 CRYPTOGRAPHIC_PARAMETERS, true true Free;
    CryptographicDomainParameters "Cryptographic Domain Parameters" V1_0 Shape::Structure(&[
        (Tag::Qlength, Shape::Integer, false), (Tag::RecommendedCurve, Shape::Enumeration, false)]), false true Never;
    Digest "Digest" V1_0 Shape::Structure(&[
        (Tag::HashingAlgorithm, Shape::Enumeration, true), (Tag::DigestValue, Shape::Bytes, true), (Tag::KeyFormatType, Shape::Enumeration, false)]), true false Never;
    OperationPolicyName "Operation Policy Name" V1_0 Shape::Text, false true Never;
    CryptographicUsageMask "Cryptographic Usage Mask" V1_0 Shape::Integer, false true Add;
    LeaseTime "Lease Time" V1_0 Shape::Interval, false false Never;
    UsageLimits "Usage Limits" V1_0 Shape::Structure(&[
        (Tag::UsageLimitsTotal, Shape::LongInteger, true), (Tag::UsageLimitsCount, Shape::LongInteger, false), (Tag::UsageLimitsUnit, Shape::Enumeration, true)]), false true Free;
    State "State" V1_0 Shape::Enumeration, false false Never;
    InitialDate "Initial Date" V1_0 Shape::DateTime, false false Never;
    ActivationDate "Activation Date" V1_0 Shape::DateTime, false true Modify;
    ProcessStartDate "Process Start Date" V1_0 Shape::DateTime, false true Modify;
    ProtectStopDate "Protect Stop Date" V1_0 Shape::DateTime, false true Modify;
    DeactivationDate "Deactivation Date" V1_0 Shape::DateTime, false true Modify;
    DestroyDate "Destroy Date" V1_0 Shape::DateTime, false false Never;
    CompromiseOccurrenceDate "Compromise Occurrence Date" V1_0 Shape::DateTime, false false Never;
    CompromiseDate "Compromise Date" V1_0 Shape::DateTime, false false Never;
    RevocationReason "Revocation Reason" V1_0 Shape::Structure(&[
        (Tag::RevocationReasonCode, Shape::Enumeration, true), (Tag::RevocationMessage, Shape::Text, false)]), false false Never;
    ArchiveDate "Archive Date" V1_0 Shape::DateTime, false false Never;
    ObjectGroup "Object Group" V1_0 Shape::Text, true true Free;
    Fresh "Fresh" V1_1 Shape::Boolean, false true Never;
    Link "Link" V1_0 Shape::Structure(&[(Tag::LinkType, Shape::Enumeration, true), (Tag::LinkedObjectIdentifier, Shape::Text, true)]), true true Free;
    ApplicationSpecificInformation "Application Specific Information" V1_0 Shape::Structure(&[
        (Tag::ApplicationNamespace, Shape::Text, true), (Tag::ApplicationData, Shape::Text, false)]), true true Free;
    ContactInformation "Contact Information" V1_0 Shape::Text, false true Free;
    LastChangeDate "Last Change Date" V1_0 Shape::DateTime, false false Never;
    AlternativeName "Alternative Name" V1_2 Shape::Structure(&[
        (Tag::AlternativeNameValue, Shape::Text, true), (Tag::AlternativeNameType, Shape::Enumeration, true)]), true true Free;
    KeyValuePresent "Key Value Present" V1_2 Shape::Boolean, false false Never;
    KeyValueLocation "Key Value Location" V1_2 Shape::Structure(&[
        (Tag::KeyValueLocationValue, Shape::Text, true), (Tag::KeyValueLocationType, Shape::Enumeration, true)]), true true Free;
    OriginalCreationDate "Original Creation Date" V1_2 Shape::DateTime, false true Never;
    RandomNumberGenerator "Random Number Generator" V1_3 RANDOM_NUMBER_GENERATOR, false true Never;
    PKCS_12FriendlyName "PKCS#12 Friendly Name" V1_4 Shape::Text, false true Free;
    Description "Description" V1_4 Shape::Text, false true Free;
    Comment "Comment" V1_4 Shape::Text, false true Free;
    Sensitive "Sensitive" V1_4 Shape::Boolean, false true Modify;
    AlwaysSensitive "Always Sensitive" V1_4 Shape::Boolean, false false Never;
    Extractable "Extractable" V1_4 Shape::Boolean, false true Modify;
    NeverExtractable "Never Extractable" V1_4 Shape::Boolean, false false Never;
}

/// The definition of a tag.
pub fn definition(tag: Tag) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.tag == tag)
}

/// Which attribute it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity<'a> {
    /// One of the table, by its tag.
    Known(Tag),
    /// A client's own: its name starts with `x-`. (`y-` is for servers: section 3.39.)
    Custom(Cow<'a, str>),
}

impl<'a> Identity<'a> {
    /// The attribute of a name of 1.x.
    ///
    /// # Errors
    /// Invalid Field for a name that this version does not have.
    pub fn from_name(name: &'a str, version: Version) -> Result<Self> {
        if name.starts_with("x-") || name.starts_with("y-") {
            return Ok(Identity::Custom(Cow::Borrowed(name)));
        }
        match DEFINITIONS.iter().find(|definition| definition.name == name) {
            Some(definition) if definition.since <= version => Ok(Identity::Known(definition.tag)),
            _ => Err(Failure::new(ResultReason::InvalidField, format!("KMIP {version} has no attribute {name:?} that this server knows"))),
        }
    }

    /// The name in 1.x.
    pub fn name(&self) -> &str {
        match self {
            Identity::Known(tag) => definition(*tag).map_or("", |definition| definition.name),
            Identity::Custom(name) => name,
        }
    }

    /// Whether a client of that version may see it.
    pub fn exists_in(&self, version: Version) -> bool {
        match self {
            Identity::Known(tag) => definition(*tag).is_some_and(|definition| definition.since <= version),
            Identity::Custom(_) => true,
        }
    }

    /// Whether an object may have several.
    pub fn is_multiple(&self) -> bool {
        match self {
            Identity::Known(tag) => definition(*tag).is_some_and(|definition| definition.multiple),
            Identity::Custom(_) => true,
        }
    }

    /// What clients may do with it.
    pub fn change(&self) -> Change {
        match self {
            Identity::Known(tag) => definition(*tag).map_or(Change::Never, |definition| definition.change),
            Identity::Custom(name) if name.starts_with("x-") => Change::Free,
            Identity::Custom(_) => Change::Never,
        }
    }

    /// A copy that borrows nothing.
    pub fn into_owned(self) -> Identity<'static> {
        match self {
            Identity::Known(tag) => Identity::Known(tag),
            Identity::Custom(name) => Identity::Custom(Cow::Owned(name.into_owned())),
        }
    }
}

/// One attribute with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Which.
    pub identity: Identity<'a>,
    /// Which of several, from 0. It stays the same when others are deleted (section 2.1.1).
    pub index: u32,
    /// The value.
    pub value: Value<'a>,
}

impl<'a> Attribute<'a> {
    /// The first attribute of a kind.
    pub fn new(tag: Tag, value: Value<'a>) -> Self {
        Self { identity: Identity::Known(tag), index: 0, value }
    }

    /// A name.
    pub fn name(name: impl Into<Cow<'a, str>>) -> Self {
        let items = vec![Node::text(Tag::NameValue, name), Node::enumeration(Tag::NameType, NameType::UninterpretedTextString)];
        Self::new(Tag::Name, Value::Structure(items))
    }

    /// Reads an attribute of 1.x (section 2.1.1). The value is checked against its shape.
    ///
    /// # Errors
    /// Invalid Field or Invalid Message.
    pub fn from_node(node: &Node<'a>, version: Version) -> Result<Attribute<'static>> {
        Self::read(node, version, Part::Whole)
    }

    /// Reads an attribute that is looked for: of a structure, any part can be named (section 4.9).
    ///
    /// # Errors
    /// As [`Attribute::from_node`].
    pub fn wanted_from_node(node: &Node<'a>, version: Version) -> Result<Attribute<'static>> {
        Self::read(node, version, Part::Any)
    }

    fn read(node: &Node<'a>, version: Version, part: Part) -> Result<Attribute<'static>> {
        let (name, index, value) = parts(node)?;
        let value = value.ok_or_else(|| Failure::new(ResultReason::MissingData, format!("the attribute {name:?} has no value")))?;
        let identity = Identity::from_name(name, version)?;
        check_part(&identity, &value.value, part)?;
        Ok(Attribute { identity: identity.into_owned(), index: index.unwrap_or(0), value: value.value.clone().into_owned() })
    }

    /// Writes it as the newest version of 1.x does. The index 0 is left out.
    pub fn to_node(&self) -> Node<'_> {
        self.to_node_at(Version::V1_4)
    }

    /// Writes it as a version of 1.x does: without the items of a structure that came later.
    pub fn to_node_at(&self, version: Version) -> Node<'_> {
        let mut items = vec![Node::text(Tag::AttributeName, self.identity.name())];
        if self.index > 0 {
            items.push(Node::integer(Tag::AttributeIndex, i32::try_from(self.index).unwrap_or(i32::MAX)));
        }
        let mut value = self.value.clone();
        if let (Identity::Known(_), Value::Structure(parts)) = (&self.identity, &mut value) {
            parts.retain(|part| since(part.tag) <= version);
        }
        items.push(Node::new(Tag::AttributeValue, value));
        Node::structure(Tag::Attribute, items)
    }
}

/// The name, index and value of an attribute of 1.x, unchecked: Modify and Delete Attribute tell an index of 0 from none.
///
/// # Errors
/// Invalid Message.
pub fn parts<'n, 'a>(node: &'n Node<'a>) -> Result<(&'n str, Option<u32>, Option<&'n Node<'a>>)> {
    let mut fields = Fields::of(node)?;
    let name = text(fields.required(Tag::AttributeName)?)?;
    let index = fields.optional(Tag::AttributeIndex)?.map(integer).transpose()?;
    let index = index.map(u32::try_from).transpose().map_err(|_| Failure::new(ResultReason::InvalidField, "AttributeIndex is negative"))?;
    let value = fields.optional(Tag::AttributeValue)?;
    fields.finish()?;
    Ok((name, index, value))
}

/// The same value with the items of a structure in one order, where all items that it can have are there; `None` for a part of a structure. Equal values are equal in this form.
pub fn canonical<'v>(identity: &Identity<'_>, value: &'v Value<'v>) -> Option<Cow<'v, Value<'v>>> {
    let Value::Structure(items) = value else { return Some(Cow::Borrowed(value)) };
    if let Identity::Known(tag) = identity
        && let Some(Definition { shape: Shape::Structure(parts), .. }) = definition(*tag)
        && !parts.iter().all(|(part, ..)| items.iter().any(|item| item.tag == *part))
    {
        return None;
    }
    let mut items = items.clone();
    items.sort_by_key(|item| item.tag.0);
    Some(Cow::Owned(Value::Structure(items)))
}

/// Whether a value is what is looked for: of a structure, the items that are named, in whatever order.
pub fn matches(wanted: &Value<'_>, known: &Value<'_>) -> bool {
    match (wanted, known) {
        (Value::Structure(wanted), Value::Structure(known)) => {
            wanted.iter().all(|want| known.iter().any(|item| item.tag == want.tag && matches(&want.value, &item.value)))
        }
        (wanted, known) => wanted == known,
    }
}

/// The first version that has an item of a structure; only those of Cryptographic Parameters came later than their attribute (section 3.6).
fn since(part: Tag) -> Version {
    match part {
        Tag::DigitalSignatureAlgorithm
        | Tag::CryptographicAlgorithm
        | Tag::RandomIV
        | Tag::IVLength
        | Tag::TagLength
        | Tag::FixedFieldLength
        | Tag::InvocationFieldLength
        | Tag::CounterLength
        | Tag::InitialCounterValue => Version::V1_2,
        Tag::SaltLength | Tag::MaskGenerator | Tag::MaskGeneratorHashingAlgorithm | Tag::PSource | Tag::TrailerField => Version::V1_4,
        _ => Version::V1_0,
    }
}

/// How much of a structure must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All that the specification requires.
    Whole,
    /// Anything of it.
    Any,
}

/// Checks a value against the shape of its attribute. A client's own attribute may have any value, but for structures within a structure (section 3.39): without that bound, what came in at the
/// greatest depth would go out deeper, as a part of an object.
///
/// # Errors
/// Invalid Field.
pub fn check(identity: &Identity<'_>, value: &Value<'_>) -> Result<()> {
    check_part(identity, value, Part::Whole)
}

fn check_part(identity: &Identity<'_>, value: &Value<'_>, part: Part) -> Result<()> {
    match (identity, value) {
        (Identity::Known(tag), value) => definition(*tag).map_or(Ok(()), |definition| check_shape(*tag, definition.shape, value, part)),
        (Identity::Custom(name), Value::Structure(items)) if items.iter().any(|item| matches!(item.value, Value::Structure(_))) => {
            Err(Failure::new(ResultReason::InvalidField, format!("the structure of the attribute {name:?} holds another one")))
        }
        (Identity::Custom(_), _) => Ok(()),
    }
}

fn check_shape(tag: Tag, shape: Shape, value: &Value<'_>, part: Part) -> Result<()> {
    let invalid = |message: String| Err(Failure::new(ResultReason::InvalidField, message));
    match (shape, value) {
        (Shape::Enumeration, Value::Enumeration(number)) => {
            if has_table(tag) && member_name(tag, *number).is_none() {
                return invalid(format!("{tag} has no member 0x{number:x}"));
            }
            Ok(())
        }
        (Shape::Text, Value::TextString(_))
        | (Shape::Integer, Value::Integer(_))
        | (Shape::Boolean, Value::Boolean(_))
        | (Shape::DateTime, Value::DateTime(_))
        | (Shape::Interval, Value::Interval(_))
        | (Shape::LongInteger, Value::LongInteger(_))
        | (Shape::Bytes, Value::ByteString(_)) => Ok(()),
        (Shape::Structure(parts), Value::Structure(items)) => {
            for item in items {
                let Some((tag, shape, _)) = parts.iter().find(|(tag, ..)| *tag == item.tag) else {
                    return invalid(format!("{} does not belong in {tag}", item.tag));
                };
                check_shape(*tag, *shape, &item.value, part)?;
            }
            for (inner, _, required) in parts {
                let count = items.iter().filter(|item| item.tag == *inner).count();
                if count > 1 || (count == 0 && *required && part == Part::Whole) {
                    return invalid(format!("{tag} has {count} of {inner}"));
                }
            }
            Ok(())
        }
        (_, other) => invalid(format!("{tag} cannot be a {}", other.kind_name())),
    }
}

/// The text of a name.
pub fn name_value<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    let Value::Structure(items) = value else { return None };
    items.iter().find(|item| item.tag == Tag::NameValue).and_then(|item| text(item).ok())
}

/// A member of an enumeration as a value.
pub fn enumeration(member: impl crate::enumeration::Enumeration) -> Value<'static> {
    Value::Enumeration(member.number())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enumeration::State;

    #[test]
    fn an_attribute_of_1_x_goes_both_ways() {
        let attribute = Attribute { index: 2, ..Attribute::name("volume") };
        assert_eq!(Attribute::from_node(&attribute.to_node(), Version::V1_0).unwrap(), attribute);
        let custom = Attribute { identity: Identity::Custom("x-ID".into()), index: 0, value: Value::TextString("1".into()) };
        assert_eq!(Attribute::from_node(&custom.to_node(), Version::V1_0).unwrap(), custom);
    }

    #[test]
    fn an_attribute_of_a_clients_own_is_flat_and_shown_as_it_came() {
        let own = |value| Attribute { identity: Identity::Custom("x-a".into()), index: 0, value };
        // The same tag in Cryptographic Parameters came with 1.2.
        let flat = own(Value::Structure(vec![Node::enumeration(Tag::CryptographicAlgorithm, State::Active)]));
        assert_eq!(Attribute::from_node(&flat.to_node_at(Version::V1_0), Version::V1_0).unwrap(), flat);
        let nested = own(Value::Structure(vec![Node::structure(Tag::Attribute, vec![])]));
        assert_eq!(Attribute::from_node(&nested.to_node(), Version::V1_4).unwrap_err().reason, ResultReason::InvalidField);
        assert!(check(&nested.identity, &nested.value).is_err());
    }

    #[test]
    fn an_attribute_of_a_later_version_does_not_exist() {
        assert_eq!(Identity::from_name("Sensitive", Version::V1_3).unwrap_err().reason, ResultReason::InvalidField);
        assert!(Identity::from_name("Sensitive", Version::V1_4).is_ok());
        assert!(!Identity::Known(Tag::Fresh).exists_in(Version::V1_0));
        assert_eq!(Identity::from_name("Nonsense", Version::V1_4).unwrap_err().reason, ResultReason::InvalidField);
    }

    #[test]
    fn values_are_checked_against_the_shape() {
        let known = |tag| Identity::Known(tag);
        assert!(check(&known(Tag::State), &enumeration(State::Active)).is_ok());
        assert!(check(&known(Tag::State), &Value::Enumeration(77)).is_err());
        assert!(check(&known(Tag::State), &Value::Integer(1)).is_err());
        assert!(check(&known(Tag::Name), &Attribute::name("a").value).is_ok());
        assert!(check(&known(Tag::Name), &Value::Structure(vec![Node::text(Tag::NameValue, "a")])).is_err(), "the type is missing");
        let twice = Value::Structure(vec![Node::text(Tag::NameValue, "a"), Node::text(Tag::NameValue, "b"), Node::enumeration(Tag::NameType, NameType::URI)]);
        assert!(check(&known(Tag::Name), &twice).is_err());
        assert!(check(&known(Tag::Link), &Value::Structure(vec![Node::text(Tag::NameValue, "a")])).is_err());
    }

    #[test]
    fn a_part_of_a_structure_can_be_looked_for() {
        let link = |items| Value::Structure(items);
        let id = || Node::text(Tag::LinkedObjectIdentifier, "7");
        let kind = || Node::enumeration(Tag::LinkType, crate::enumeration::LinkType::NextLink);
        let (whole, turned, part) = (link(vec![kind(), id()]), link(vec![id(), kind()]), link(vec![id()]));
        assert!(matches(&part, &whole) && matches(&turned, &whole) && !matches(&whole, &part));
        let identity = Identity::Known(Tag::Link);
        assert_eq!(canonical(&identity, &whole), canonical(&identity, &turned));
        assert_eq!(canonical(&identity, &part), None);
        let node = Attribute::new(Tag::Link, part).to_node().into_owned();
        assert!(Attribute::wanted_from_node(&node, Version::V1_0).is_ok() && Attribute::from_node(&node, Version::V1_0).is_err());
    }

    #[test]
    fn later_items_of_a_structure_are_not_shown_to_older_clients() {
        let value = Value::Structure(vec![
            Node::enumeration(Tag::BlockCipherMode, crate::enumeration::BlockCipherMode::GCM),
            Node::integer(Tag::IVLength, 12),
            Node::integer(Tag::SaltLength, 8),
        ]);
        let attribute = Attribute::new(Tag::CryptographicParameters, value);
        for (version, count) in [(Version::V1_0, 1), (Version::V1_1, 1), (Version::V1_2, 2), (Version::V1_3, 2), (Version::V1_4, 3)] {
            assert_eq!(attribute.to_node_at(version).find(Tag::AttributeValue).unwrap().items().len(), count, "{version}");
        }
    }

    #[test]
    fn tags_and_names_are_unique() {
        for (at, one) in DEFINITIONS.iter().enumerate() {
            for other in DEFINITIONS.iter().skip(at + 1) {
                assert!(one.tag != other.tag && one.name != other.name, "{}", one.name);
            }
        }
    }
}
