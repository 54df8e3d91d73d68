//! How attributes stand in messages: one mapping for 1.x (KMIP Specification 1.4, section 2.1.1), one for 2.x (2.1, sections 4, 4.60 and 5).
//!
//! 1.x: a structure Attribute of a name, an index and a value. 2.x: the value itself under the attribute's tag; a vendor's own in a structure Attribute of Vendor Identification, Attribute Name and
//! Attribute Value. 2.x has no index: what tells several apart is their value.

use super::table::{DEFINITIONS, definition};
use super::{Attribute, Identity, Part, check_part};
use crate::enumeration::ResultReason;
use crate::failure::{Failure, Result};
use crate::fields::{Fields, integer, text};
use crate::tag::Tag;
use crate::ttlv::{Node, Value};
use crate::version::Version;
use crate::versions::{can_be_said, foreign_value, refuse_foreign, shown};
use std::borrow::Cow;

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
            Some(definition) if definition.exists_in(version) => Ok(Identity::Known(definition.tag)),
            _ => Err(Failure::new(ResultReason::InvalidField, format!("KMIP {version} has no attribute {name:?} that this server knows"))),
        }
    }

    /// The attribute of an Attribute Reference (2.1, section 5.5).
    ///
    /// # Errors
    /// Unsupported Attribute for a tag that this version does not have as an attribute; Invalid Field for the name of a vendor that is none.
    pub fn from_reference(node: &Node<'a>, version: Version) -> Result<Identity<'static>> {
        match &node.value {
            Value::Enumeration(number) => known(Tag(*number), version),
            Value::Structure(_) => {
                let mut fields = Fields::of(node)?;
                let identity = vendors(&mut fields)?;
                fields.finish()?;
                Ok(identity)
            }
            other => Err(crate::fields::wrong_type(node.tag, "Structure or an Enumeration", other)),
        }
    }
}

/// Writes an Attribute Reference (2.1, section 5.5).
pub fn reference_to_node<'i>(identity: &'i Identity<'_>) -> Node<'i> {
    match identity {
        Identity::Known(tag) => Node::new(Tag::AttributeReference, Value::Enumeration(tag.0)),
        Identity::Custom(_) => {
            let (vendor, name) = identity.vendor().unwrap_or_default();
            Node::structure(Tag::AttributeReference, vec![Node::text(Tag::VendorIdentification, vendor), Node::text(Tag::AttributeName, name)])
        }
    }
}

impl<'a> Attribute<'a> {
    /// Reads an attribute: of 1.x the structure Attribute, of 2.x the item under the attribute's tag. The value is checked against its shape.
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

    /// Reads the attributes of a structure of 2.x that holds some: Attributes, Common Attributes and their like (2.1, sections 5.1 to 5.4).
    ///
    /// # Errors
    /// As [`Attribute::from_node`].
    pub fn all_from_node(node: &Node<'a>, version: Version) -> Result<Vec<Attribute<'static>>> {
        items(node)?.iter().map(|item| Self::read(item, version, Part::Whole)).collect()
    }

    /// The same for attributes that are looked for.
    ///
    /// # Errors
    /// As [`Attribute::from_node`].
    pub fn all_wanted_from_node(node: &Node<'a>, version: Version) -> Result<Vec<Attribute<'static>>> {
        items(node)?.iter().map(|item| Self::read(item, version, Part::Any)).collect()
    }

    /// Reads the one attribute of New Attribute or Current Attribute (2.1, sections 5.6 and 5.7).
    ///
    /// # Errors
    /// As [`Attribute::from_node`]; Invalid Message where there is none, or more than one.
    pub fn one_from_node(node: &Node<'a>, version: Version) -> Result<Attribute<'static>> {
        match items(node)? {
            [item] => Self::read(item, version, Part::Whole),
            other => Err(Failure::new(ResultReason::InvalidMessage, format!("{} holds {} attributes, not one", node.tag, other.len()))),
        }
    }

    fn read(node: &Node<'a>, version: Version, part: Part) -> Result<Attribute<'static>> {
        let owned = |value: &Value<'a>| value.clone().into_owned();
        if version < Version::V2_0 {
            let (name, index, value) = parts(node)?;
            let value = value.ok_or_else(|| Failure::new(ResultReason::MissingData, format!("the attribute {name:?} has no value")))?;
            let identity = Identity::from_name(name, version)?;
            if has_later_types(&value.value) {
                return Err(Failure::new(ResultReason::InvalidField, format!("KMIP {version} has no DateTimeExtended")));
            }
            check_value(&identity, &value.value, part, version)?;
            return Ok(Attribute { identity: identity.into_owned(), index: index.unwrap_or(0), value: owned(&value.value) });
        }
        let (identity, value) = if node.tag == Tag::Attribute {
            let mut fields = Fields::of(node)?;
            let identity = vendors(&mut fields)?;
            let value = fields.required(Tag::AttributeValue)?;
            fields.finish()?;
            (identity, value)
        } else {
            (known(node.tag, version)?, node)
        };
        check_value(&identity, &value.value, part, version).map_err(|failure| failure.since_2(ResultReason::InvalidAttributeValue))?;
        Ok(Attribute { identity, index: 0, value: owned(&value.value) })
    }

    /// Writes it as the newest version of 1.x does.
    pub fn to_node(&self) -> Node<'_> {
        self.to_node_at(Version::V1_4)
    }

    /// Whether a client of that version may see it: the version has the attribute, and can say its value.
    pub fn exists_in(&self, version: Version) -> bool {
        self.identity.exists_in(version) && !matches!(&self.identity, Identity::Known(tag) if !can_be_said(*tag, &self.value, version))
    }

    /// Writes it as a version does: without items and bits that the version does not have. In 1.x, the index 0 is left out.
    pub fn to_node_at(&self, version: Version) -> Node<'_> {
        let value = match &self.identity {
            Identity::Known(tag) => shown(*tag, &self.value, version),
            Identity::Custom(_) => self.value.clone(),
        };
        if version < Version::V2_0 {
            let mut items = vec![Node::text(Tag::AttributeName, self.identity.name())];
            if self.index > 0 {
                items.push(Node::integer(Tag::AttributeIndex, i32::try_from(self.index).unwrap_or(i32::MAX)));
            }
            items.push(Node::new(Tag::AttributeValue, without_later_types(value)));
            return Node::structure(Tag::Attribute, items);
        }
        match (&self.identity, self.identity.vendor()) {
            (Identity::Known(tag), _) => Node::new(*tag, value),
            (Identity::Custom(_), named) => {
                let (vendor, name) = named.unwrap_or_default();
                let items = vec![Node::text(Tag::VendorIdentification, vendor), Node::text(Tag::AttributeName, name), Node::new(Tag::AttributeValue, value)];
                Node::structure(Tag::Attribute, items)
            }
        }
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

fn items<'n, 'a>(node: &'n Node<'a>) -> Result<&'n [Node<'a>]> {
    match &node.value {
        Value::Structure(items) => Ok(items),
        other => Err(crate::fields::wrong_type(node.tag, "Structure", other)),
    }
}

/// Checks a value that a client of that version sends.
fn check_value(identity: &Identity<'_>, value: &Value<'_>, part: Part, version: Version) -> Result<()> {
    check_part(identity, value, part)?;
    match identity {
        Identity::Known(tag) => refuse_foreign(foreign_value(*tag, value, version), version),
        Identity::Custom(_) => Ok(()),
    }
}

/// The attribute of a tag.
fn known(tag: Tag, version: Version) -> Result<Identity<'static>> {
    match definition(tag) {
        Some(definition) if definition.exists_in(version) => Ok(Identity::Known(tag)),
        _ => {
            let message = format!("KMIP {version} has no attribute {tag} that this server knows");
            Err(Failure::new(ResultReason::InvalidField, message).since_2(ResultReason::UnsupportedAttribute))
        }
    }
}

/// A vendor's own attribute, by its two names.
fn vendors(fields: &mut Fields<'_, '_>) -> Result<Identity<'static>> {
    let vendor = text(fields.required(Tag::VendorIdentification)?)?;
    let name = text(fields.required(Tag::AttributeName)?)?;
    let good = !vendor.is_empty() && vendor.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
    if !good || name.is_empty() {
        let message = format!("VendorIdentification {vendor:?} and AttributeName {name:?} name no attribute");
        return Err(Failure::new(ResultReason::InvalidField, message).since_2(ResultReason::InvalidAttribute));
    }
    Ok(Identity::Custom(Cow::Owned(format!("{vendor}-{name}"))))
}

/// Whether there is a type in it that came with 2.0.
fn has_later_types(value: &Value<'_>) -> bool {
    match value {
        Value::DateTimeExtended(_) => true,
        Value::Structure(items) => items.iter().any(|item| has_later_types(&item.value)),
        _ => false,
    }
}

/// A value as 1.x can have it: Date Time Extended came with 2.0.
fn without_later_types(value: Value<'_>) -> Value<'_> {
    match value {
        Value::DateTimeExtended(microseconds) => Value::DateTime(microseconds.div_euclid(1_000_000)),
        Value::Structure(items) => Value::Structure(items.into_iter().map(|item| Node::new(item.tag, without_later_types(item.value))).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_of_2_x_goes_both_ways() {
        let custom = Attribute { identity: Identity::Custom("acme.com-a-b".into()), index: 0, value: Value::Integer(1) };
        for attribute in [Attribute::name("volume"), Attribute::new(Tag::ProtectionPeriod, Value::Interval(7)), custom] {
            let node = attribute.to_node_at(Version::V2_1);
            assert_eq!(Attribute::from_node(&node, Version::V2_0).unwrap(), attribute);
            let reference = reference_to_node(&attribute.identity);
            assert_eq!(Identity::from_reference(&reference, Version::V2_0).unwrap(), attribute.identity);
        }
        assert_eq!(Attribute::name("volume").to_node_at(Version::V2_0).tag, Tag::Name);
    }

    #[test]
    fn names_of_1_x_and_vendors_of_2_x_are_the_same_attributes() {
        let one = Attribute { identity: Identity::Custom("x-Barcode".into()), index: 3, value: Value::TextString("7".into()) };
        let node = one.to_node_at(Version::V2_1);
        assert_eq!(node.find(Tag::VendorIdentification).unwrap().value, Value::TextString("x".into()));
        assert_eq!(node.find(Tag::AttributeName).unwrap().value, Value::TextString("Barcode".into()));
        assert_eq!(node.find(Tag::AttributeIndex), None, "2.x has no index");
        assert_eq!(Attribute::from_node(&node, Version::V2_1).unwrap().identity, one.identity);
        let foreign = Identity::Custom("acme-Barcode".into());
        assert!(foreign.exists_in(Version::V2_0) && !foreign.exists_in(Version::V1_4), "1.x cannot name it");
    }

    #[test]
    fn what_a_version_does_not_have_is_refused() {
        let reference = |tag: Tag| Node::new(Tag::AttributeReference, Value::Enumeration(tag.0));
        for tag in [Tag::OperationPolicyName, Tag::RequestHeader, Tag(7)] {
            let failure = Identity::from_reference(&reference(tag), Version::V2_1).unwrap_err();
            assert_eq!(failure.reason_in(Version::V2_1), ResultReason::UnsupportedAttribute, "{tag}");
        }
        let wrong = Node::structure(Tag::Name, vec![Node::text(Tag::NameValue, "a")]);
        assert_eq!(Attribute::from_node(&wrong, Version::V2_1).unwrap_err().reason_in(Version::V2_1), ResultReason::InvalidAttributeValue);
        for (vendor, name) in [("", "a"), ("x", ""), ("a-b", "c"), ("ü", "c")] {
            let node = Node::structure(Tag::AttributeReference, vec![Node::text(Tag::VendorIdentification, vendor), Node::text(Tag::AttributeName, name)]);
            assert!(Identity::from_reference(&node, Version::V2_1).is_err(), "{vendor} {name}");
        }
        assert!(Identity::from_name("Short Unique Identifier", Version::V1_4).is_err());
        assert!(!Identity::Known(Tag::ShortUniqueIdentifier).exists_in(Version::V1_4));
    }

    #[test]
    fn a_type_of_2_x_is_not_shown_to_1_x() {
        let value = Value::Structure(vec![Node::new(Tag::Comment, Value::DateTimeExtended(-1))]);
        let attribute = Attribute { identity: Identity::Custom("x-then".into()), index: 0, value };
        let node = attribute.to_node_at(Version::V1_4);
        assert_eq!(node.find(Tag::AttributeValue).unwrap().items()[0].value, Value::DateTime(-1));
    }
}
