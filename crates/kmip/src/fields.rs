//! Taking a structure apart: each field by its tag, with its type, and nothing left over.

use crate::enumeration::{Enumeration, ResultReason};
use crate::failure::{Failure, Result};
use crate::tag::Tag;
use crate::ttlv::{Node, Value};

/// The items of a structure that is being read. Order is not looked at: clients differ, and no structure needs it.
pub struct Fields<'n, 'a> {
    holder: Tag,
    items: &'n [Node<'a>],
    known: Known,
}

/// The tags that were asked for. Few, so that they stand in place: a list on the heap for each structure of each message costs more than reading it.
struct Known {
    first: [Tag; 16],
    count: usize,
    more: Vec<Tag>,
}

impl Known {
    fn new() -> Self {
        Self { first: [Tag(0); 16], count: 0, more: Vec::new() }
    }

    fn push(&mut self, tag: Tag) {
        match self.first.get_mut(self.count) {
            Some(place) => *place = tag,
            None => self.more.push(tag),
        }
        self.count += 1;
    }

    fn contains(&self, tag: Tag) -> bool {
        self.first.iter().take(self.count).chain(&self.more).any(|known| *known == tag)
    }
}

impl<'n, 'a> Fields<'n, 'a> {
    /// The items of a structure.
    ///
    /// # Errors
    /// Invalid Message where it is none.
    pub fn of(node: &'n Node<'a>) -> Result<Self> {
        match &node.value {
            Value::Structure(items) => Ok(Self { holder: node.tag, items, known: Known::new() }),
            other => Err(wrong_type(node.tag, "Structure", other)),
        }
    }

    /// An item that may be there once.
    pub fn optional(&mut self, tag: Tag) -> Result<Option<&'n Node<'a>>> {
        self.known.push(tag);
        let mut found = self.items.iter().filter(|item| item.tag == tag);
        let first = found.next();
        if found.next().is_some() {
            return Err(Failure::new(ResultReason::InvalidMessage, format!("{tag} stands twice in {}", self.holder)));
        }
        Ok(first)
    }

    /// An item that must be there.
    pub fn required(&mut self, tag: Tag) -> Result<&'n Node<'a>> {
        let holder = self.holder;
        self.optional(tag)?.ok_or_else(|| Failure::new(ResultReason::MissingData, format!("{tag} is missing in {holder}")))
    }

    /// All items with a tag.
    pub fn all(&mut self, tag: Tag) -> impl Iterator<Item = &'n Node<'a>> + use<'n, 'a> {
        self.known.push(tag);
        self.items.iter().filter(move |item| item.tag == tag)
    }

    /// A text.
    pub fn text(&mut self, tag: Tag) -> Result<Option<&'n str>> {
        self.optional(tag)?.map(text).transpose()
    }

    /// Bytes.
    pub fn bytes(&mut self, tag: Tag) -> Result<Option<&'n [u8]>> {
        self.optional(tag)?.map(bytes).transpose()
    }

    /// An integer.
    pub fn integer(&mut self, tag: Tag) -> Result<Option<i32>> {
        self.optional(tag)?.map(integer).transpose()
    }

    /// A long integer.
    pub fn long_integer(&mut self, tag: Tag) -> Result<Option<i64>> {
        let read = |node: &Node<'_>| match &node.value {
            Value::LongInteger(value) => Ok(*value),
            other => Err(wrong_type(node.tag, "LongInteger", other)),
        };
        self.optional(tag)?.map(read).transpose()
    }

    /// A boolean.
    pub fn boolean(&mut self, tag: Tag) -> Result<Option<bool>> {
        let read = |node: &Node<'_>| match &node.value {
            Value::Boolean(value) => Ok(*value),
            other => Err(wrong_type(node.tag, "Boolean", other)),
        };
        self.optional(tag)?.map(read).transpose()
    }

    /// A point in time.
    pub fn date_time(&mut self, tag: Tag) -> Result<Option<i64>> {
        let read = |node: &Node<'_>| match &node.value {
            Value::DateTime(value) => Ok(*value),
            other => Err(wrong_type(node.tag, "DateTime", other)),
        };
        self.optional(tag)?.map(read).transpose()
    }

    /// A span of seconds.
    pub fn interval(&mut self, tag: Tag) -> Result<Option<u32>> {
        let read = |node: &Node<'_>| match &node.value {
            Value::Interval(value) => Ok(*value),
            other => Err(wrong_type(node.tag, "Interval", other)),
        };
        self.optional(tag)?.map(read).transpose()
    }

    /// A member of an enumeration.
    pub fn enumeration<E: Enumeration>(&mut self, tag: Tag) -> Result<Option<E>> {
        self.optional(tag)?.map(enumeration).transpose()
    }

    /// Refuses what nobody has asked for (section 4: an unknown field is an error), but for vendors' extensions, which may be ignored.
    pub fn finish(&self) -> Result<()> {
        match self.items.iter().find(|item| !self.known.contains(item.tag) && item.tag.0 >> 16 == 0x42) {
            None => Ok(()),
            Some(unknown) => Err(Failure::new(ResultReason::InvalidField, format!("{} does not belong in {}", unknown.tag, self.holder))),
        }
    }
}

/// The text of an item.
pub fn text<'n>(node: &'n Node<'_>) -> Result<&'n str> {
    match &node.value {
        Value::TextString(value) => Ok(value),
        other => Err(wrong_type(node.tag, "TextString", other)),
    }
}

/// The bytes of an item.
pub fn bytes<'n>(node: &'n Node<'_>) -> Result<&'n [u8]> {
    match &node.value {
        Value::ByteString(value) => Ok(value),
        other => Err(wrong_type(node.tag, "ByteString", other)),
    }
}

/// The integer of an item.
pub fn integer(node: &Node<'_>) -> Result<i32> {
    match &node.value {
        Value::Integer(value) => Ok(*value),
        other => Err(wrong_type(node.tag, "Integer", other)),
    }
}

/// The member of an enumeration.
pub fn enumeration<E: Enumeration>(node: &Node<'_>) -> Result<E> {
    match &node.value {
        Value::Enumeration(value) => {
            E::from_number(*value).ok_or_else(|| Failure::new(ResultReason::InvalidField, format!("{} has no member 0x{value:x}", E::KIND)))
        }
        other => Err(wrong_type(node.tag, "Enumeration", other)),
    }
}

/// An item has another type than its tag asks for.
pub fn wrong_type(tag: Tag, wanted: &str, got: &Value<'_>) -> Failure {
    Failure::new(ResultReason::InvalidMessage, format!("{tag} is a {}, not a {wanted}", got.kind_name()))
}
