//! A value for each attribute of the table, so that seeds have them all, also those that are added later.

use keystead_kmip::attribute::{Attribute, DEFINITIONS, Definition, Shape};
use keystead_kmip::enumeration::{CryptographicAlgorithm, Enumeration as _, LinkType};
use keystead_kmip::ttlv::{Node, Value};
use keystead_kmip::versions::{can_be_said, shown};
use keystead_kmip::{Tag, Version};

/// The attributes of a version that `which` picks, each with a value.
pub fn attributes(version: Version, which: impl Fn(&Definition) -> bool) -> Vec<Attribute<'static>> {
    let there = DEFINITIONS.iter().filter(|definition| definition.since <= version && which(definition));
    let given = there.map(|definition| (definition.tag, value(definition.tag, definition.shape)));
    // Without the items that came later.
    let known = given.filter(|(tag, value)| can_be_said(*tag, value, version));
    known.map(|(tag, value)| Attribute::new(tag, shown(tag, &value, version).into_owned())).collect()
}

/// A value of that shape, with all its items.
fn value(tag: Tag, shape: Shape) -> Value<'static> {
    match (tag, shape) {
        (Tag::CryptographicAlgorithm, _) => Value::Enumeration(CryptographicAlgorithm::AES.number()),
        (Tag::CryptographicLength, _) => Value::Integer(256),
        (Tag::LinkType, _) => Value::Enumeration(LinkType::ParentLink.number()),
        // Long past: dates in the future would keep the object from being used.
        (_, Shape::DateTime) => Value::DateTime(86_400),
        (_, Shape::Text) => Value::TextString("text".into()),
        (_, Shape::Integer) => Value::Integer(8),
        (_, Shape::Enumeration) => Value::Enumeration(1),
        (_, Shape::Boolean) => Value::Boolean(false),
        (_, Shape::Interval) => Value::Interval(60),
        (_, Shape::LongInteger) => Value::LongInteger(1_000),
        (_, Shape::Bytes) => Value::ByteString(vec![7; 8].into()),
        (_, Shape::Structure(items)) => Value::Structure(items.iter().map(|(tag, shape, _)| Node::new(*tag, value(*tag, *shape))).collect()),
    }
}
