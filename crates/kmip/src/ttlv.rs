//! TTLV: tag, type, length, value (KMIP Specification 1.4, section 9.1).
//!
//! A message is read as a tree that borrows texts and bytes from the message, so nothing is copied, and a secret stays where it came in. [`decode`] checks everything that framing can get
//! wrong; [`encode`] cannot fail.

use crate::tag::Tag;
use std::borrow::Cow;
use std::fmt;

/// How deep structures may nest. The deepest message of the specification has 11 levels.
pub const MAX_DEPTH: usize = 32;
/// How many items a message may have: what a peer sends is at most this many times the size of a [`Node`].
pub const MAX_ITEMS: usize = 20_000;
/// Tag, type and length, in bytes.
pub const HEADER_BYTES: usize = 8;

/// One item of a message.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Node<'a> {
    /// What it is.
    pub tag: Tag,
    /// Type and value.
    pub value: Value<'a>,
}

/// A value with its type (section 9.1.1.2; the comment gives the type's number).
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Value<'a> {
    /// 01: other items.
    Structure(Vec<Node<'a>>),
    /// 02: 32 bits, signed.
    Integer(i32),
    /// 03: 64 bits, signed.
    LongInteger(i64),
    /// 04: big-endian two's complement, a multiple of 8 bytes.
    BigInteger(Cow<'a, [u8]>),
    /// 05.
    Enumeration(u32),
    /// 06.
    Boolean(bool),
    /// 07: UTF-8.
    TextString(Cow<'a, str>),
    /// 08.
    ByteString(Cow<'a, [u8]>),
    /// 09: seconds since 1970, UTC.
    DateTime(i64),
    /// 0A: seconds.
    Interval(u32),
    /// 0B: microseconds since 1970, UTC (KMIP 2.0).
    DateTimeExtended(i64),
}

/// What is wrong with the encoding of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// An item says that it is longer than what holds it.
    #[error("an item ends after the structure that holds it")]
    Truncated,
    /// Something follows after the item.
    #[error("bytes follow after the end of the message")]
    Trailing,
    /// A type that the specification does not have.
    #[error("{0} has the type 0x{1:02x}, which does not exist")]
    Type(Tag, u8),
    /// A length that the type does not have.
    #[error("{0} has a length that its type does not have")]
    Length(Tag),
    /// Padding that is not zero (section 9.1.1.4).
    #[error("the padding of {0} is not zero")]
    Padding(Tag),
    /// A text that is not UTF-8.
    #[error("{0} is not UTF-8")]
    Utf8(Tag),
    /// A boolean that is neither 0 nor 1.
    #[error("{0} is neither true nor false")]
    Boolean(Tag),
    /// A tag outside 0x42…… and 0x54…… (section 9.1.1.1).
    #[error("there is no tag {0}")]
    Tag(Tag),
    /// [`MAX_DEPTH`].
    #[error("structures nest deeper than {MAX_DEPTH} levels")]
    Depth,
    /// [`MAX_ITEMS`], or as many as [`decode_within`] was given.
    #[error("the message has more items than are read")]
    Items,
}

impl<'a> Node<'a> {
    /// An item.
    pub fn new(tag: Tag, value: Value<'a>) -> Self {
        Self { tag, value }
    }

    /// A structure.
    pub fn structure(tag: Tag, items: Vec<Node<'a>>) -> Self {
        Self::new(tag, Value::Structure(items))
    }

    /// A text.
    pub fn text(tag: Tag, text: impl Into<Cow<'a, str>>) -> Self {
        Self::new(tag, Value::TextString(text.into()))
    }

    /// Bytes.
    pub fn bytes(tag: Tag, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        Self::new(tag, Value::ByteString(bytes.into()))
    }

    /// An integer.
    pub fn integer(tag: Tag, integer: i32) -> Self {
        Self::new(tag, Value::Integer(integer))
    }

    /// A member of an enumeration.
    pub fn enumeration(tag: Tag, member: impl crate::enumeration::Enumeration) -> Self {
        Self::new(tag, Value::Enumeration(member.number()))
    }

    /// The items of a structure; none for another type.
    pub fn items(&self) -> &[Node<'a>] {
        match &self.value {
            Value::Structure(items) => items,
            _ => &[],
        }
    }

    /// The first item with that tag.
    pub fn find(&self, tag: Tag) -> Option<&Node<'a>> {
        self.items().iter().find(|item| item.tag == tag)
    }

    /// A copy that borrows nothing.
    pub fn into_owned(self) -> Node<'static> {
        Node { tag: self.tag, value: self.value.into_owned() }
    }
}

impl Value<'_> {
    /// The type's number.
    pub fn kind(&self) -> u8 {
        match self {
            Value::Structure(_) => 1,
            Value::Integer(_) => 2,
            Value::LongInteger(_) => 3,
            Value::BigInteger(_) => 4,
            Value::Enumeration(_) => 5,
            Value::Boolean(_) => 6,
            Value::TextString(_) => 7,
            Value::ByteString(_) => 8,
            Value::DateTime(_) => 9,
            Value::Interval(_) => 10,
            Value::DateTimeExtended(_) => 11,
        }
    }

    /// The type's name.
    pub fn kind_name(&self) -> &'static str {
        match self {
            Value::Structure(_) => "Structure",
            Value::Integer(_) => "Integer",
            Value::LongInteger(_) => "LongInteger",
            Value::BigInteger(_) => "BigInteger",
            Value::Enumeration(_) => "Enumeration",
            Value::Boolean(_) => "Boolean",
            Value::TextString(_) => "TextString",
            Value::ByteString(_) => "ByteString",
            Value::DateTime(_) => "DateTime",
            Value::Interval(_) => "Interval",
            Value::DateTimeExtended(_) => "DateTimeExtended",
        }
    }

    /// A copy that borrows nothing.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Structure(items) => Value::Structure(items.into_iter().map(Node::into_owned).collect()),
            Value::Integer(value) => Value::Integer(value),
            Value::LongInteger(value) => Value::LongInteger(value),
            Value::BigInteger(value) => Value::BigInteger(Cow::Owned(value.into_owned())),
            Value::Enumeration(value) => Value::Enumeration(value),
            Value::Boolean(value) => Value::Boolean(value),
            Value::TextString(value) => Value::TextString(Cow::Owned(value.into_owned())),
            Value::ByteString(value) => Value::ByteString(Cow::Owned(value.into_owned())),
            Value::DateTime(value) => Value::DateTime(value),
            Value::Interval(value) => Value::Interval(value),
            Value::DateTimeExtended(value) => Value::DateTimeExtended(value),
        }
    }
}

// Texts and bytes may be secrets, so only their length shows.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Structure(items) => f.debug_list().entries(items).finish(),
            Value::Integer(value) => write!(f, "{value}"),
            Value::LongInteger(value) | Value::DateTime(value) | Value::DateTimeExtended(value) => write!(f, "{value}"),
            Value::Enumeration(value) | Value::Interval(value) => write!(f, "{value}"),
            Value::Boolean(value) => write!(f, "{value}"),
            Value::TextString(text) => write!(f, "TextString({} bytes)", text.len()),
            Value::ByteString(bytes) | Value::BigInteger(bytes) => write!(f, "{}({} bytes)", self.kind_name(), bytes.len()),
        }
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.tag, self.value)
    }
}

/// Reads one item that fills `bytes`.
///
/// # Errors
/// [`DecodeError`]. Whatever the bytes are, memory stays within [`MAX_ITEMS`] nodes and the call returns after one pass.
pub fn decode(bytes: &[u8]) -> Result<Node<'_>, DecodeError> {
    decode_within(bytes, MAX_ITEMS)
}

/// The same for a message that may have another number of items: a list of identifiers that a client reads is longer than what a server takes.
///
/// # Errors
/// As [`decode`].
pub fn decode_within(bytes: &[u8], most_items: usize) -> Result<Node<'_>, DecodeError> {
    let mut left = most_items;
    let (node, rest) = item(bytes, 0, &mut left)?;
    if rest.is_empty() { Ok(node) } else { Err(DecodeError::Trailing) }
}

/// How many bytes an item has when it is encoded.
pub fn encoded_length(node: &Node<'_>) -> usize {
    let value = match &node.value {
        Value::Structure(items) => items.iter().map(encoded_length).sum(),
        Value::TextString(text) => text.len(),
        Value::ByteString(bytes) | Value::BigInteger(bytes) => bytes.len(),
        _ => 8,
    };
    HEADER_BYTES + value.next_multiple_of(8)
}

/// Appends an item.
pub fn encode(node: &Node<'_>, out: &mut Vec<u8>) {
    Writer::new(out).node(node);
}

/// Writes items without a tree of them: an answer is made of many, and a tree costs more than its encoding.
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Writer<'o> {
    /// Appends to `out`.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// A structure; `items` writes what is in it.
    pub fn structure(&mut self, tag: Tag, items: impl FnOnce(&mut Writer<'_>)) {
        self.item(tag, 1, |out| items(&mut Writer::new(out)));
    }

    /// A text.
    pub fn text(&mut self, tag: Tag, text: &str) {
        self.item(tag, 7, |out| out.extend_from_slice(text.as_bytes()));
    }

    /// Bytes.
    pub fn bytes(&mut self, tag: Tag, bytes: &[u8]) {
        self.item(tag, 8, |out| out.extend_from_slice(bytes));
    }

    /// An integer.
    pub fn integer(&mut self, tag: Tag, integer: i32) {
        self.item(tag, 2, |out| out.extend_from_slice(&integer.to_be_bytes()));
    }

    /// A member of an enumeration.
    pub fn enumeration(&mut self, tag: Tag, member: impl crate::enumeration::Enumeration) {
        self.value(tag, &Value::Enumeration(member.number()));
    }

    /// An item of any type.
    pub fn value(&mut self, tag: Tag, value: &Value<'_>) {
        self.item(tag, value.kind(), |out| match value {
            Value::Structure(items) => items.iter().for_each(|item| Writer::new(out).node(item)),
            Value::Integer(value) => out.extend_from_slice(&value.to_be_bytes()),
            Value::LongInteger(value) | Value::DateTime(value) | Value::DateTimeExtended(value) => out.extend_from_slice(&value.to_be_bytes()),
            Value::Enumeration(value) | Value::Interval(value) => out.extend_from_slice(&value.to_be_bytes()),
            Value::Boolean(value) => out.extend_from_slice(&u64::from(*value).to_be_bytes()),
            Value::TextString(text) => out.extend_from_slice(text.as_bytes()),
            Value::ByteString(bytes) | Value::BigInteger(bytes) => out.extend_from_slice(bytes),
        });
    }

    /// An item of a tree.
    pub fn node(&mut self, node: &Node<'_>) {
        self.value(node.tag, &node.value);
    }

    fn item(&mut self, tag: Tag, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let out = &mut *self.out;
        let head = out.len();
        out.extend_from_slice(&(tag.0 << 8 | u32::from(kind)).to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let start = out.len();
        write(out);
        let length = out.len() - start;
        let length_bytes = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(place) = out.get_mut(head + 4..head + HEADER_BYTES) {
            place.copy_from_slice(&length_bytes);
        }
        out.resize(start + length.next_multiple_of(8), 0);
    }
}

fn item<'a>(bytes: &'a [u8], depth: usize, left: &mut usize) -> Result<(Node<'a>, &'a [u8]), DecodeError> {
    if depth >= MAX_DEPTH {
        return Err(DecodeError::Depth);
    }
    *left = left.checked_sub(1).ok_or(DecodeError::Items)?;
    let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(DecodeError::Truncated)?;
    let [t0, t1, t2, kind, l0, l1, l2, l3] = *head;
    let tag = Tag(u32::from_be_bytes([0, t0, t1, t2]));
    if !matches!(t0, 0x42 | 0x54) {
        return Err(DecodeError::Tag(tag));
    }
    let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).map_err(|_| DecodeError::Truncated)?;
    let padded = length.checked_next_multiple_of(8).ok_or(DecodeError::Truncated)?;
    let (body, rest) = rest.split_at_checked(padded).ok_or(DecodeError::Truncated)?;
    let (body, padding) = body.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    let value = value(tag, kind, body, depth, left)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(DecodeError::Padding(tag));
    }
    Ok((Node { tag, value }, rest))
}

fn value<'a>(tag: Tag, kind: u8, body: &'a [u8], depth: usize, left: &mut usize) -> Result<Value<'a>, DecodeError> {
    let four = || <[u8; 4]>::try_from(body).map_err(|_| DecodeError::Length(tag));
    let eight = || <[u8; 8]>::try_from(body).map_err(|_| DecodeError::Length(tag));
    Ok(match kind {
        1 => {
            if !body.len().is_multiple_of(8) {
                return Err(DecodeError::Length(tag));
            }
            let mut items = Vec::new();
            let mut rest = body;
            while !rest.is_empty() {
                let (node, after) = item(rest, depth + 1, left)?;
                items.push(node);
                rest = after;
            }
            Value::Structure(items)
        }
        2 => Value::Integer(i32::from_be_bytes(four()?)),
        3 => Value::LongInteger(i64::from_be_bytes(eight()?)),
        4 if !body.is_empty() && body.len().is_multiple_of(8) => Value::BigInteger(Cow::Borrowed(body)),
        4 => return Err(DecodeError::Length(tag)),
        5 => Value::Enumeration(u32::from_be_bytes(four()?)),
        6 => match u64::from_be_bytes(eight()?) {
            0 => Value::Boolean(false),
            1 => Value::Boolean(true),
            _ => return Err(DecodeError::Boolean(tag)),
        },
        7 => Value::TextString(Cow::Borrowed(std::str::from_utf8(body).map_err(|_| DecodeError::Utf8(tag))?)),
        8 => Value::ByteString(Cow::Borrowed(body)),
        9 => Value::DateTime(i64::from_be_bytes(eight()?)),
        10 => Value::Interval(u32::from_be_bytes(four()?)),
        11 => Value::DateTimeExtended(i64::from_be_bytes(eight()?)),
        _ => return Err(DecodeError::Type(tag, kind)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// The examples of KMIP Specification 1.4, section 9.1.2.
    #[test]
    fn the_examples_of_the_specification() {
        let tag = Tag::CompromiseDate;
        let cases = [
            ("42 00 20 | 02 | 00 00 00 04 | 00 00 00 08 00 00 00 00", Value::Integer(8)),
            ("42 00 20 | 03 | 00 00 00 08 | 01 B6 9B 4B A5 74 92 00", Value::LongInteger(123_456_789_000_000_000)),
            (
                "42 00 20 | 04 | 00 00 00 10 | 00 00 00 00 03 FD 35 EB 6B C2 DF 46 18 08 00 00",
                Value::BigInteger(Cow::Owned(hex("00 00 00 00 03 FD 35 EB 6B C2 DF 46 18 08 00 00"))),
            ),
            ("42 00 20 | 05 | 00 00 00 04 | 00 00 00 FF 00 00 00 00", Value::Enumeration(255)),
            ("42 00 20 | 06 | 00 00 00 08 | 00 00 00 00 00 00 00 01", Value::Boolean(true)),
            ("42 00 20 | 07 | 00 00 00 0B | 48 65 6C 6C 6F 20 57 6F 72 6C 64 00 00 00 00 00", Value::TextString("Hello World".into())),
            ("42 00 20 | 08 | 00 00 00 03 | 01 02 03 00 00 00 00 00", Value::ByteString(Cow::Owned(vec![1, 2, 3]))),
            ("42 00 20 | 09 | 00 00 00 08 | 00 00 00 00 47 DA 67 F8", Value::DateTime(1_205_495_800)),
            ("42 00 20 | 0A | 00 00 00 04 | 00 0D 2F 00 00 00 00 00", Value::Interval(864_000)),
        ];
        for (text, value) in cases {
            let bytes = hex(text);
            let node = Node::new(tag, value);
            assert_eq!(decode(&bytes).unwrap(), node, "{text}");
            let mut out = Vec::new();
            encode(&node, &mut out);
            assert_eq!(out, bytes, "{text}");
        }
        let bytes =
            hex("42 00 20 | 01 | 00 00 00 20 | 42 00 04 | 05 | 00 00 00 04 | 00 00 00 FE 00 00 00 00 | 42 00 05 | 02 | 00 00 00 04 | 00 00 00 FF 00 00 00 00");
        let node = decode(&bytes).unwrap();
        assert_eq!(node.find(Tag(0x42_0005)).unwrap().value, Value::Integer(255));
    }

    #[test]
    fn what_framing_can_get_wrong() {
        let cases = [
            ("42 00 20 02 00 00 00 04 00 00 00 08", DecodeError::Truncated),
            ("42 00 20 02 00 00", DecodeError::Truncated),
            ("42 00 20 08 ff ff ff ff 00 00 00 00 00 00 00 00", DecodeError::Truncated),
            ("42 00 20 02 00 00 00 04 00 00 00 08 00 00 00 01", DecodeError::Padding(Tag::CompromiseDate)),
            ("42 00 20 02 00 00 00 08 00 00 00 08 00 00 00 00", DecodeError::Length(Tag::CompromiseDate)),
            ("42 00 20 0c 00 00 00 08 00 00 00 08 00 00 00 00", DecodeError::Type(Tag::CompromiseDate, 12)),
            ("42 00 20 07 00 00 00 01 ff 00 00 00 00 00 00 00", DecodeError::Utf8(Tag::CompromiseDate)),
            ("42 00 20 06 00 00 00 08 00 00 00 00 00 00 00 02", DecodeError::Boolean(Tag::CompromiseDate)),
            ("41 00 20 06 00 00 00 08 00 00 00 00 00 00 00 01", DecodeError::Tag(Tag(0x41_0020))),
            ("42 00 20 01 00 00 00 00 00", DecodeError::Trailing),
            ("42 00 20 04 00 00 00 04 00 00 00 00 00 00 00 00", DecodeError::Length(Tag::CompromiseDate)),
        ];
        for (text, error) in cases {
            assert_eq!(decode(&hex(text)).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn depth_and_number_of_items_are_bounded() {
        let mut node = Node::structure(Tag::Attribute, Vec::new());
        for _ in 0..MAX_DEPTH {
            node = Node::structure(Tag::Attribute, vec![node]);
        }
        let mut bytes = Vec::new();
        encode(&node, &mut bytes);
        assert_eq!(decode(&bytes).unwrap_err(), DecodeError::Depth);
        let many = Node::structure(Tag::Attribute, (0..MAX_ITEMS).map(|_| Node::structure(Tag::Attribute, Vec::new())).collect());
        bytes.clear();
        encode(&many, &mut bytes);
        assert_eq!(decode(&bytes).unwrap_err(), DecodeError::Items);
    }

    #[test]
    fn debug_shows_no_bytes() {
        let node = Node::structure(Tag::KeyValue, vec![Node::bytes(Tag::KeyMaterial, b"secret".as_slice()), Node::text(Tag::Password, "hidden")]);
        assert_eq!(format!("{node:?}"), "KeyValue: [KeyMaterial: ByteString(6 bytes), Password: TextString(6 bytes)]");
    }

    fn any_node() -> impl Strategy<Value = Node<'static>> {
        let tag = (0x42_0001u32..0x42_0200).prop_map(Tag);
        let leaf = prop_oneof![
            any::<i32>().prop_map(Value::Integer),
            any::<i64>().prop_map(Value::LongInteger),
            any::<u32>().prop_map(Value::Enumeration),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,20}".prop_map(|text| Value::TextString(Cow::Owned(text))),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Value::ByteString(Cow::Owned(bytes))),
            any::<i64>().prop_map(Value::DateTime),
            any::<u32>().prop_map(Value::Interval),
        ];
        let leaf = (tag.clone(), leaf).prop_map(|(tag, value)| Node { tag, value });
        leaf.prop_recursive(6, 64, 8, move |inner| (tag.clone(), prop::collection::vec(inner, 0..8)).prop_map(|(tag, items)| Node::structure(tag, items)))
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(node in any_node()) {
            let mut bytes = Vec::new();
            encode(&node, &mut bytes);
            prop_assert_eq!(bytes.len() % 8, 0);
            prop_assert_eq!(bytes.len(), encoded_length(&node));
            prop_assert_eq!(decode(&bytes).unwrap(), node);
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(node in any_node(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = Vec::new();
            encode(&node, &mut bytes);
            let place = at.index(bytes.len());
            bytes[place] = byte;
            if let Ok(node) = decode(&bytes) {
                let mut again = Vec::new();
                encode(&node, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
