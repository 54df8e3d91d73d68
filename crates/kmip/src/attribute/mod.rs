//! The one attribute model: what attributes there are, since which version, of which shape, and who may set, change and delete them.
//!
//! The versions differ in how an attribute stands in a message (1.x: its name as a text, an index, a value; 2.x: its tag), not in what it is. So there is one table, and a mapping for each way
//! of writing: [`Attribute::to_node_at`] and [`Attribute::from_node`] take the one of the version.
//!
//! Source: KMIP Specification 1.4, section 3, and 2.1, section 4, the "attribute rules" of each attribute.

mod table;
mod wire;

pub use table::{Change, DEFINITIONS, Definition, Shape, definition};
pub use wire::{parts, reference_to_node};

use crate::enumeration::{NameType, ResultReason, has_table, member_name};
use crate::failure::{Failure, Result};
use crate::fields::text;
use crate::tag::Tag;
use crate::ttlv::{Node, Value};
use crate::version::Version;
use std::borrow::Cow;

/// Which attribute it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity<'a> {
    /// One of the table, by its tag.
    Known(Tag),
    /// A vendor's own: its Vendor Identification, a dash, its Attribute Name (2.1, section 4.60). The vendor `x` is the client, and `y` the server, as in the names `x-…` and `y-…` of 1.x (1.4,
    /// section 3.39). The identification of a vendor has no dash, so the first one ends it.
    Custom(Cow<'a, str>),
}

impl<'a> Identity<'a> {
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
            Identity::Known(tag) => definition(*tag).is_some_and(|definition| definition.exists_in(version)),
            // 1.x has no way to name the attributes of other vendors.
            Identity::Custom(name) => version >= Version::V2_0 || name.starts_with("x-") || name.starts_with("y-"),
        }
    }

    /// Vendor Identification and Attribute Name of a vendor's own attribute.
    pub fn vendor(&self) -> Option<(&str, &str)> {
        match self {
            Identity::Known(_) => None,
            Identity::Custom(name) => name.split_once('-'),
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
            Identity::Custom(name) if name.starts_with("y-") => Change::Never,
            Identity::Custom(_) => Change::Free,
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

/// How much of a structure must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
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

pub(crate) fn check_part(identity: &Identity<'_>, value: &Value<'_>, part: Part) -> Result<()> {
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
