//! Which version has what: tags, members of enumerations, bits of masks, items of structures. The one table by which a client is kept from what came after its version, or has gone before it.
//!
//! A value is shown to a version as that version can say it ([`shown`]): without later items, without later bits. A value with a member of an enumeration that the version does not have cannot be said
//! at all, and is not shown. What a client sends that its version does not have is found by [`foreign`], and refused. Vendors' extensions belong to every version.
//!
//! Source: the tables of KMIP Specification 1.0 to 1.4, sections 9.1.3.1 to 9.1.3.3, and of 2.0 and 2.1, sections 11 and 12. The members of an enumeration were only ever added at its end.

use crate::attribute::Identity;
use crate::enumeration::{ResultReason, mask_bits, member_name};
use crate::failure::{Failure, Result};
use crate::tag::Tag;
use crate::ttlv::{Node, Value};
use crate::version::Version;
use std::borrow::Cow;

/// From the first version that has something to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(Version, Version);

impl Span {
    /// Whether a version has it.
    pub fn contains(self, version: Version) -> bool {
        self.0 <= version && version <= self.1
    }
}

const fn from(first: Version) -> Span {
    Span(first, Version::V2_1)
}

const ALWAYS: Span = from(Version::V1_0);
/// Reserved in 2.0.
const TO_1_4: Span = Span(Version::V1_0, Version::V1_4);

/// Tags by their last bytes, both ends included. 1.0 ends with 0xa1.
const TAGS: &[(u32, u32, Span)] = &[
    (0x00a2, 0x00b7, from(Version::V1_1)),
    (0x00b8, 0x00d3, from(Version::V1_2)),
    (0x00d4, 0x00f7, from(Version::V1_3)),
    (0x00f8, 0x0124, from(Version::V1_4)),
    (0x0125, 0x0162, from(Version::V2_0)),
    (0x0163, 0x0176, from(Version::V2_1)),
    // Attribute Index; what certificates said in 1.0; templates; Custom Attribute; Operation Policy Name.
    (0x0009, 0x0009, TO_1_4),
    (0x0014, 0x0017, TO_1_4),
    (0x001a, 0x001c, TO_1_4),
    (0x001f, 0x001f, TO_1_4),
    (0x002d, 0x002d, TO_1_4),
    (0x003b, 0x003b, TO_1_4),
    (0x005d, 0x005d, TO_1_4),
    (0x0065, 0x0065, TO_1_4),
    (0x006e, 0x006e, TO_1_4),
    (0x0087, 0x0087, TO_1_4),
    (0x0090, 0x0091, TO_1_4),
];

/// Members that not all versions of their enumeration have: the tag, the first and the last number, the versions.
const MEMBERS: &[(Tag, u32, u32, Span)] = &[
    (Tag::BlockCipherMode, 0x12, 0x12, from(Version::V1_4)),
    (Tag::CredentialType, 2, 2, from(Version::V1_1)),
    (Tag::CredentialType, 3, 3, from(Version::V1_2)),
    (Tag::CredentialType, 4, 6, from(Version::V2_0)),
    (Tag::CryptographicAlgorithm, 0x1a, 0x1a, from(Version::V1_2)),
    (Tag::CryptographicAlgorithm, 0x1b, 0x1b, from(Version::V1_3)),
    (Tag::CryptographicAlgorithm, 0x1c, 0x28, from(Version::V1_4)),
    (Tag::CryptographicAlgorithm, 0x29, 0x38, from(Version::V2_0)),
    (Tag::DigitalSignatureAlgorithm, 0x11, 0x13, from(Version::V1_4)),
    (Tag::HashingAlgorithm, 0x0c, 0x0d, from(Version::V1_2)),
    (Tag::HashingAlgorithm, 0x0e, 0x11, from(Version::V1_4)),
    (Tag::MaskGeneratorHashingAlgorithm, 0x0c, 0x0d, from(Version::V1_2)),
    (Tag::MaskGeneratorHashingAlgorithm, 0x0e, 0x11, from(Version::V1_4)),
    // Transparent keys of ECDSA, ECDH and ECMQV, then those of EC that took their place.
    (Tag::KeyFormatType, 0x0e, 0x13, TO_1_4),
    (Tag::KeyFormatType, 0x14, 0x15, from(Version::V1_3)),
    (Tag::KeyFormatType, 0x16, 0x16, from(Version::V1_4)),
    (Tag::KeyFormatType, 0x17, 0x17, from(Version::V2_0)),
    (Tag::KeyRoleType, 0x16, 0x18, from(Version::V1_4)),
    (Tag::LinkType, 0x108, 0x10b, from(Version::V1_2)),
    (Tag::LinkType, 0x10c, 0x10d, from(Version::V1_4)),
    (Tag::LinkType, 0x10e, 0x10e, from(Version::V2_0)),
    // Template, PGP Key, Certificate Request.
    (Tag::ObjectType, 6, 6, TO_1_4),
    (Tag::ObjectType, 9, 9, from(Version::V1_2)),
    (Tag::ObjectType, 10, 10, from(Version::V2_0)),
    (Tag::Operation, 29, 30, from(Version::V1_1)),
    (Tag::Operation, 31, 41, from(Version::V1_2)),
    (Tag::Operation, 42, 43, from(Version::V1_4)),
    (Tag::Operation, 44, 53, from(Version::V2_0)),
    (Tag::Operation, 54, 59, from(Version::V2_1)),
    (Tag::QueryFunction, 5, 6, from(Version::V1_1)),
    (Tag::QueryFunction, 7, 7, from(Version::V1_2)),
    (Tag::QueryFunction, 8, 12, from(Version::V1_3)),
    (Tag::QueryFunction, 13, 14, from(Version::V2_0)),
    (Tag::RecommendedCurve, 0x10, 0x44, from(Version::V1_2)),
    (Tag::RecommendedCurve, 0x45, 0x46, from(Version::V2_0)),
    // Illegal Operation and Index Out Of Bounds end with 1.4.
    (Tag::ResultReason, 0x0b, 0x0b, TO_1_4),
    (Tag::ResultReason, 0x0e, 0x0e, TO_1_4),
    (Tag::ResultReason, 0x12, 0x12, from(Version::V1_1)),
    (Tag::ResultReason, 0x13, 0x15, from(Version::V1_2)),
    (Tag::ResultReason, 0x16, 0x18, from(Version::V1_4)),
    (Tag::ResultReason, 0x19, 0x49, from(Version::V2_0)),
    (Tag::ResultReason, 0x4a, 0x4c, from(Version::V2_1)),
];

/// Bits that not all versions of their mask have.
const BITS: &[(Tag, i32, Span)] = &[
    // Export, Content Commitment, Generate and Validate Cryptogram, Translate Encrypt to Translate Unwrap.
    (Tag::CryptographicUsageMask, 0x000f_c440, TO_1_4),
    // Authenticate, Unrestricted, FPE Encrypt and FPE Decrypt: in 1.x they were among the bits of vendors, and would grant there what nobody meant.
    (Tag::CryptographicUsageMask, 0x00f0_0000, from(Version::V2_0)),
    // Destroyed storage.
    (Tag::StorageStatusMask, 0x4, from(Version::V2_0)),
];

/// Items that came later than their structure and than their tag: the structure, the item, the versions.
const ITEMS: &[(Tag, Tag, Span)] = &[
    (Tag::CryptographicParameters, Tag::DigitalSignatureAlgorithm, from(Version::V1_2)),
    (Tag::CryptographicParameters, Tag::CryptographicAlgorithm, from(Version::V1_2)),
    (Tag::Digest, Tag::KeyFormatType, from(Version::V1_1)),
];

/// Whether a version has a tag. Tags that nobody knows are another's to refuse.
pub fn has_tag(tag: Tag, version: Version) -> bool {
    let number = tag.0.wrapping_sub(0x0042_0000);
    TAGS.iter().filter(|(first, last, _)| (*first..=*last).contains(&number)).all(|(.., span)| span.contains(version))
}

/// Whether a version has an item of a structure.
pub fn has_item(holder: Tag, item: Tag, version: Version) -> bool {
    let span = ITEMS.iter().find(|(structure, part, _)| *structure == holder && *part == item).map_or(ALWAYS, |(.., span)| *span);
    has_tag(item, version) && span.contains(version)
}

/// Whether a version has a member of an enumeration.
pub fn has_member(tag: Tag, number: u32, version: Version) -> bool {
    MEMBERS.iter().filter(|(kind, first, last, _)| *kind == tag && (*first..=*last).contains(&number)).all(|(.., span)| span.contains(version))
}

/// The bits of a mask that a version does not have; none for what is no mask.
pub fn foreign_bits(tag: Tag, version: Version) -> i32 {
    BITS.iter().filter(|(mask, _, span)| *mask == tag && !span.contains(version)).fold(0, |bits, (_, more, _)| bits | more)
}

/// Whether a value under a tag can be said at a version: every member of an enumeration in it is there. Items that the version does not have do not count, since they are left out.
pub fn can_be_said(tag: Tag, value: &Value<'_>, version: Version) -> bool {
    match value {
        Value::Enumeration(number) => has_member(tag, *number, version),
        Value::Structure(items) => items.iter().all(|item| !has_item(tag, item.tag, version) || can_be_said(item.tag, &item.value, version)),
        _ => true,
    }
}

/// A value under a tag as a version says it: without items, bits and types that it does not have.
pub fn shown<'v>(tag: Tag, value: &'v Value<'_>, version: Version) -> Value<'v> {
    match value {
        Value::Structure(items) => {
            let kept = items.iter().filter(|item| has_item(tag, item.tag, version));
            Value::Structure(kept.map(|item| Node::new(item.tag, shown(item.tag, &item.value, version))).collect())
        }
        Value::Integer(mask) => Value::Integer(mask & !foreign_bits(tag, version)),
        Value::DateTimeExtended(microseconds) if version < Version::V2_0 => Value::DateTime(microseconds.div_euclid(1_000_000)),
        other => borrowed(other),
    }
}

/// What there is first in a value that a version does not have, in words. Tags of vendors are not looked into.
pub fn foreign_value(tag: Tag, value: &Value<'_>, version: Version) -> Option<String> {
    match value {
        Value::Structure(items) => items.iter().find_map(|item| match has_item(tag, item.tag, version) {
            true => foreign_value(item.tag, &item.value, version),
            false => Some(format!("{} in {tag}", item.tag)),
        }),
        Value::Enumeration(number) if !has_member(tag, *number, version) => {
            Some(member_name(tag, *number).map_or_else(|| format!("{tag} 0x{number:x}"), |name| format!("{tag} {name}")))
        }
        Value::Integer(mask) => {
            let bits = mask & foreign_bits(tag, version);
            let named = mask_bits(tag).unwrap_or_default().iter().find(|(_, bit)| bits.cast_unsigned() & bit != 0);
            (bits != 0).then(|| named.map_or_else(|| format!("bit 0x{bits:x} of {tag}"), |(name, _)| format!("{tag} {name}")))
        }
        Value::DateTimeExtended(_) if version < Version::V2_0 => Some("DateTimeExtended".to_owned()),
        _ => None,
    }
}

/// The same for an item of a message, with the attributes of 1.x by their names. `skip`: items that another looks into.
pub fn foreign(node: &Node<'_>, version: Version, skip: &[Tag]) -> Option<String> {
    match &node.value {
        Value::Structure(items) if node.tag == Tag::Attribute => foreign_attribute(items, version),
        Value::Structure(items) => items.iter().filter(|item| !skip.contains(&item.tag)).find_map(|item| match has_item(node.tag, item.tag, version) {
            true => foreign(item, version, skip),
            false => Some(format!("{} in {}", item.tag, node.tag)),
        }),
        value => foreign_value(node.tag, value, version),
    }
}

/// Refuses what a client of that version cannot have meant.
///
/// # Errors
/// Invalid Field.
pub(crate) fn refuse_foreign(what: Option<String>, version: Version) -> Result<()> {
    match what {
        None => Ok(()),
        Some(what) => Err(Failure::new(ResultReason::InvalidField, format!("KMIP {version} has no {what}"))),
    }
}

/// A vendor's own attribute is shown as it came, so that only its types count.
fn foreign_attribute(items: &[Node<'_>], version: Version) -> Option<String> {
    let find = |tag: Tag| items.iter().find(|item| item.tag == tag).map(|item| &item.value);
    let value = find(Tag::AttributeValue)?;
    match find(Tag::AttributeName) {
        Some(Value::TextString(name)) if version < Version::V2_0 => match Identity::from_name(name, version) {
            Ok(Identity::Known(tag)) => foreign_value(tag, value, version),
            Ok(Identity::Custom(_)) => None,
            Err(_) => Some(format!("the attribute {name:?}")),
        },
        _ => None,
    }
}

fn borrowed<'v>(value: &'v Value<'_>) -> Value<'v> {
    match value {
        Value::TextString(text) => Value::TextString(Cow::Borrowed(text)),
        Value::ByteString(bytes) => Value::ByteString(Cow::Borrowed(bytes)),
        Value::BigInteger(bytes) => Value::BigInteger(Cow::Borrowed(bytes)),
        Value::LongInteger(value) => Value::LongInteger(*value),
        Value::Enumeration(value) => Value::Enumeration(*value),
        Value::Boolean(value) => Value::Boolean(*value),
        Value::DateTime(value) => Value::DateTime(*value),
        Value::Interval(value) => Value::Interval(*value),
        Value::DateTimeExtended(value) => Value::DateTimeExtended(*value),
        Value::Integer(value) => Value::Integer(*value),
        Value::Structure(items) => Value::Structure(items.iter().map(|item| Node::new(item.tag, borrowed(&item.value))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_nothing_twice() {
        for (at, (tag, first, last, _)) in MEMBERS.iter().enumerate() {
            assert!(first <= last);
            let again = MEMBERS.iter().skip(at + 1).find(|(other, from, to, _)| other == tag && from <= last && first <= to);
            assert_eq!(again, None, "{tag} {first}");
        }
        for (at, (first, last, _)) in TAGS.iter().enumerate() {
            assert_eq!(TAGS.iter().skip(at + 1).find(|(from, to, _)| from <= last && first <= to), None, "{first:x}");
        }
        assert!(
            BITS.iter().all(|(tag, bits, _)| mask_bits(*tag).unwrap().iter().fold(0, |all, (_, bit)| all | bit) & bits.cast_unsigned() == bits.cast_unsigned())
        );
    }

    #[test]
    fn a_value_is_said_as_far_as_a_version_has_words() {
        let mode = |number| Node::new(Tag::BlockCipherMode, Value::Enumeration(number));
        let value = Value::Structure(vec![mode(9), Node::integer(Tag::IVLength, 12), Node::integer(Tag::SaltLength, 8)]);
        for (version, count) in [(Version::V1_0, 1), (Version::V1_2, 2), (Version::V1_4, 3)] {
            let Value::Structure(items) = shown(Tag::CryptographicParameters, &value, version) else { panic!("a structure") };
            assert_eq!(items.len(), count, "{version}");
            assert!(can_be_said(Tag::CryptographicParameters, &value, version));
            assert_eq!(foreign_value(Tag::CryptographicParameters, &value, version).is_none(), version == Version::V1_4);
        }
        let later = Value::Structure(vec![mode(0x12)]);
        assert!(!can_be_said(Tag::CryptographicParameters, &later, Version::V1_3) && can_be_said(Tag::CryptographicParameters, &later, Version::V1_4));
        assert_eq!(foreign_value(Tag::BlockCipherMode, &Value::Enumeration(0x12), Version::V1_3).as_deref(), Some("BlockCipherMode AEAD"));
        // A member of an item that is left out hides nothing.
        let inside = Value::Structure(vec![Node::new(Tag::DigitalSignatureAlgorithm, Value::Enumeration(0x11))]);
        assert!(can_be_said(Tag::CryptographicParameters, &inside, Version::V1_1));
        assert_eq!(shown(Tag::CryptographicUsageMask, &Value::Integer(0x20_004c), Version::V1_4), Value::Integer(0x4c));
        assert_eq!(shown(Tag::CryptographicUsageMask, &Value::Integer(0x20_004c), Version::V2_0), Value::Integer(0x20_000c));
    }

    #[test]
    fn what_is_foreign_is_found_wherever_it_stands() {
        let named = |name: &'static str, value| {
            let items = vec![Node::text(Tag::AttributeName, name), Node::new(Tag::AttributeValue, value)];
            Node::structure(Tag::TemplateAttribute, vec![Node::structure(Tag::Attribute, items)])
        };
        let algorithm = || named("Cryptographic Algorithm", Value::Enumeration(0x1a));
        assert!(foreign(&algorithm(), Version::V1_1, &[]).is_some() && foreign(&algorithm(), Version::V1_2, &[]).is_none());
        assert_eq!(foreign(&algorithm(), Version::V1_1, &[Tag::Attribute]), None);
        assert!(foreign(&named("Fresh", Value::Boolean(true)), Version::V1_0, &[]).is_some());
        assert_eq!(foreign(&named("x-mine", Value::Structure(vec![Node::integer(Tag::IVLength, 1)])), Version::V1_0, &[]), None, "a client's own");
        let payload = Node::structure(Tag::RequestPayload, vec![Node::integer(Tag::OffsetItems, 1), Node::integer(Tag(0x54_0001), 1)]);
        assert!(foreign(&payload, Version::V1_2, &[]).is_some() && foreign(&payload, Version::V1_3, &[]).is_none());
    }
}
