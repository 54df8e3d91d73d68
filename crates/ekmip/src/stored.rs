//! How the attributes of an object are stored: compactly, since there may be millions.
//!
//! A format byte, then one entry after the other: the tag's lower three bytes, the index, the value. A value is its TTLV type, then its bytes without padding; what has no fixed length is
//! preceded by it. Numbers of unknown size are written seven bits at a time, the lowest first. A client's own attribute has the tag Custom Attribute, and its name before the index.
//!
//! What belongs to an object but is no attribute in KMIP 1.x (the key format, the type of secret data) stands among the attributes under its tag.

use keystead_kmip::Tag;
use keystead_kmip::attribute::{Attribute, Identity};
use keystead_kmip::ttlv::{MAX_DEPTH, Node, Value};
use std::borrow::Cow;

const FORMAT: u8 = 1;

/// Writes attributes.
pub fn encode(attributes: &[Attribute<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 * attributes.len());
    out.push(FORMAT);
    for attribute in attributes {
        match &attribute.identity {
            Identity::Known(tag) => put_tag(*tag, &mut out),
            Identity::Custom(name) => {
                put_tag(Tag::CustomAttribute, &mut out);
                put_bytes(name.as_bytes(), &mut out);
            }
        }
        put_number(u64::from(attribute.index), &mut out);
        put_value(&attribute.value, &mut out);
    }
    out
}

/// Reads attributes back. `None` where the bytes are damaged.
pub fn decode(bytes: &[u8]) -> Option<Vec<Attribute<'_>>> {
    let mut rest = bytes.strip_prefix(&[FORMAT])?;
    let mut attributes = Vec::with_capacity(16);
    while !rest.is_empty() {
        let tag = take_tag(&mut rest)?;
        let identity = match tag {
            Tag::CustomAttribute => Identity::Custom(Cow::Borrowed(std::str::from_utf8(take_bytes(&mut rest)?).ok()?)),
            tag => Identity::Known(tag),
        };
        let index = u32::try_from(take_number(&mut rest)?).ok()?;
        attributes.push(Attribute { identity, index, value: take_value(&mut rest, 0)? });
    }
    Some(attributes)
}

/// Reads only the attributes under these tags, none of them a client's own.
pub fn decode_some<'a>(bytes: &'a [u8], wanted: &[Tag]) -> Option<Vec<Attribute<'a>>> {
    let mut rest = bytes.strip_prefix(&[FORMAT])?;
    let mut attributes = Vec::with_capacity(wanted.len());
    while !rest.is_empty() {
        let tag = take_tag(&mut rest)?;
        if tag == Tag::CustomAttribute {
            take_bytes(&mut rest)?;
        }
        let index = u32::try_from(take_number(&mut rest)?).ok()?;
        if wanted.contains(&tag) {
            attributes.push(Attribute { identity: Identity::Known(tag), index, value: take_value(&mut rest, 0)? });
        } else {
            skip_value(&mut rest, 0)?;
        }
    }
    Some(attributes)
}

fn put_tag(tag: Tag, out: &mut Vec<u8>) {
    let [_, a, b, c] = tag.0.to_be_bytes();
    out.extend_from_slice(&[a, b, c]);
}

fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_number(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_value(value: &Value<'_>, out: &mut Vec<u8>) {
    out.push(value.kind());
    match value {
        Value::Structure(items) => {
            put_number(items.len() as u64, out);
            for item in items {
                put_tag(item.tag, out);
                put_value(&item.value, out);
            }
        }
        Value::Integer(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::LongInteger(value) | Value::DateTime(value) | Value::DateTimeExtended(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Enumeration(value) | Value::Interval(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Boolean(value) => out.push(u8::from(*value)),
        Value::TextString(text) => put_bytes(text.as_bytes(), out),
        Value::ByteString(bytes) | Value::BigInteger(bytes) => put_bytes(bytes, out),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn take_tag(rest: &mut &[u8]) -> Option<Tag> {
    let [a, b, c] = take::<3>(rest)?;
    Some(Tag(u32::from_be_bytes([0, a, b, c])))
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let [byte] = take::<1>(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(rest)?).ok()?;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn take_value<'a>(rest: &mut &'a [u8], depth: usize) -> Option<Value<'a>> {
    let [kind] = take::<1>(rest)?;
    Some(match kind {
        1 if depth < MAX_DEPTH => {
            let count = take_number(rest)?;
            let mut items = Vec::new();
            for _ in 0..count {
                let tag = take_tag(rest)?;
                items.push(Node::new(tag, take_value(rest, depth + 1)?));
            }
            Value::Structure(items)
        }
        2 => Value::Integer(i32::from_be_bytes(take(rest)?)),
        3 => Value::LongInteger(i64::from_be_bytes(take(rest)?)),
        4 => Value::BigInteger(Cow::Borrowed(take_bytes(rest)?)),
        5 => Value::Enumeration(u32::from_be_bytes(take(rest)?)),
        6 => Value::Boolean(take::<1>(rest)? == [1]),
        7 => Value::TextString(Cow::Borrowed(std::str::from_utf8(take_bytes(rest)?).ok()?)),
        8 => Value::ByteString(Cow::Borrowed(take_bytes(rest)?)),
        9 => Value::DateTime(i64::from_be_bytes(take(rest)?)),
        10 => Value::Interval(u32::from_be_bytes(take(rest)?)),
        11 => Value::DateTimeExtended(i64::from_be_bytes(take(rest)?)),
        _ => return None,
    })
}

fn skip_value(rest: &mut &[u8], depth: usize) -> Option<()> {
    let [kind] = take::<1>(rest)?;
    match kind {
        1 if depth < MAX_DEPTH => {
            for _ in 0..take_number(rest)? {
                take_tag(rest)?;
                skip_value(rest, depth + 1)?;
            }
        }
        2 | 5 | 10 => drop(take::<4>(rest)?),
        3 | 9 | 11 => drop(take::<8>(rest)?),
        6 => drop(take::<1>(rest)?),
        4 | 7 | 8 => drop(take_bytes(rest)?),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value<'static>> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(Value::Integer),
            any::<i64>().prop_map(Value::LongInteger),
            any::<u32>().prop_map(Value::Enumeration),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,300}".prop_map(|text| Value::TextString(Cow::Owned(text))),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Value::ByteString(Cow::Owned(bytes))),
            any::<i64>().prop_map(Value::DateTime),
            any::<u32>().prop_map(Value::Interval),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop::collection::vec((0x42_0001u32..0x42_0200, inner), 0..6)
                .prop_map(|items| Value::Structure(items.into_iter().map(|(tag, value)| Node::new(Tag(tag), value)).collect()))
        })
    }

    fn any_attribute() -> impl Strategy<Value = Attribute<'static>> {
        let identity =
            prop_oneof![(0x42_0001u32..0x42_0020).prop_map(|tag| Identity::Known(Tag(tag))), "x-.{0,20}".prop_map(|name| Identity::Custom(Cow::Owned(name))),];
        (identity, any::<u32>(), any_value()).prop_map(|(identity, index, value)| Attribute { identity, index, value })
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(attributes in prop::collection::vec(any_attribute(), 0..12)) {
            let bytes = encode(&attributes);
            prop_assert_eq!(&decode(&bytes).unwrap(), &attributes);
            let wanted: Vec<Tag> = (0x42_0001..0x42_0010).map(Tag).collect();
            let some: Vec<_> = attributes.into_iter().filter(|one| matches!(one.identity, Identity::Known(tag) if wanted.contains(&tag))).collect();
            prop_assert_eq!(decode_some(&bytes, &wanted).unwrap(), some);
        }

        #[test]
        fn damage_is_an_answer(attributes in prop::collection::vec(any_attribute(), 0..4), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = encode(&attributes);
            let place = at.index(bytes.len());
            bytes[place] = byte;
            let _ = (decode(&bytes), decode_some(&bytes, &[Tag::ObjectType]));
            let _ = (decode(&bytes[..place]), decode_some(&bytes[..place], &[Tag::ObjectType]));
        }
    }

    #[test]
    fn a_usual_key_is_small() {
        let date = |tag| Attribute::new(tag, Value::DateTime(1));
        let attributes = [
            Attribute::new(Tag::ObjectType, Value::Enumeration(2)),
            Attribute::new(Tag::State, Value::Enumeration(2)),
            Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(3)),
            Attribute::new(Tag::CryptographicLength, Value::Integer(256)),
            Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)),
            date(Tag::InitialDate),
            date(Tag::LastChangeDate),
            date(Tag::OriginalCreationDate),
            date(Tag::ActivationDate),
            Attribute::new(Tag::Fresh, Value::Boolean(true)),
        ];
        assert!(encode(&attributes).len() < 120, "{}", encode(&attributes).len());
    }
}
