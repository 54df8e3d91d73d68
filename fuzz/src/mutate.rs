//! Changes an input and keeps it TTLV: a change of single bytes would mostly break a length, and end at the codec.
//!
//! An input is a row of messages. A change is one of an item (its value, its tag, its type), of a structure (items taken away, doubled, moved, brought in from a seed), or of the row. Some are
//! changes of bytes as libFuzzer makes them, since that too must be tried.

use crate::frames::{join, split};
use crate::messages::id;
use crate::{scene, seeds};
use keystead_kmip::attribute::DEFINITIONS;
use keystead_kmip::enumeration::{BatchErrorContinuationOption, Enumeration as _, Operation};
use keystead_kmip::ttlv::{Node, Value, decode};
use keystead_kmip::{Tag, Version};
use std::sync::LazyLock;

/// libFuzzer's own change of bytes: the buffer, how many of it count, how many may; answers how many count now.
pub type Bytes = fn(&mut [u8], usize, usize) -> usize;

/// What is brought in from elsewhere: the messages of all seeds.
static LIBRARY: LazyLock<Vec<Node<'static>>> = LazyLock::new(|| seeds::all().into_iter().flat_map(|seed| seed.messages).collect());

/// Changes an input in place; answers its new size. The same arguments make the same change.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32, bytes: Bytes) -> usize {
    let mut change = Change { dice: Dice(u64::from(seed) << 1 | 1), bytes };
    let read: Option<Vec<_>> = split(&data[..size]).into_iter().map(|frame| decode(frame).ok().map(Node::into_owned)).collect();
    let Some(mut messages) = read.filter(|_| !change.dice.one_in(10)) else { return bytes(data, size, max_size) };
    for _ in 0..=change.dice.below(4) {
        change.row(&mut messages);
    }
    if !change.dice.one_in(16) {
        messages.iter_mut().for_each(count_items);
    }
    let mut changed = join(&messages);
    while changed.len() > max_size && messages.pop().is_some() {
        changed = join(&messages);
    }
    if changed.is_empty() {
        return bytes(data, size, max_size);
    }
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
}

/// A message whose count of items is wrong is refused as a whole, and says nothing of them.
fn count_items(message: &mut Node<'static>) {
    let count = message.items().iter().filter(|item| item.tag == Tag::BatchItem).count();
    let Value::Structure(items) = &mut message.value else { return };
    let header = items.iter_mut().find(|item| item.tag == Tag::RequestHeader);
    let Some(Node { value: Value::Structure(header), .. }) = header else { return };
    if let Some(known) = header.iter_mut().find(|item| item.tag == Tag::BatchCount) {
        known.value = Value::Integer(i32::try_from(count).unwrap_or(i32::MAX));
    }
}

/// Numbers that follow from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below another, which is above 0.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap_or(u64::MAX)).unwrap_or(0)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.below(all.len())]
    }
}

struct Change {
    dice: Dice,
    bytes: Bytes,
}

impl Change {
    fn row(&mut self, messages: &mut Vec<Node<'static>>) {
        let at = self.dice.below(messages.len() + 1);
        if at == messages.len() || self.dice.one_in(12) {
            return messages.insert(at, self.message());
        }
        match self.dice.below(24) {
            0 => drop(messages.remove(at)),
            1 => messages.insert(at, messages[at].clone()),
            2 => {
                let other = self.dice.below(messages.len());
                messages.swap(at, other);
            }
            3 => self.add_item(&mut messages[at]),
            4 => self.set_header(&mut messages[at]),
            _ => {
                // Values rather than structures: there is more to try in them.
                let tries = self.dice.below(4);
                let message = &mut messages[at];
                let mut number = self.dice.below(size(message));
                for _ in 0..tries {
                    if nth(message, &mut { number }).is_some_and(|node| node.items().is_empty()) {
                        break;
                    }
                    number = self.dice.below(size(message));
                }
                if let Some(node) = nth(message, &mut { number }) {
                    self.node(node);
                }
            }
        }
    }

    fn message(&mut self) -> Node<'static> {
        if self.dice.one_in(8) {
            let seconds = *self.dice.pick(&[1, 10, 60, 100, 3_600, u32::MAX]);
            return crate::frames::wait(seconds);
        }
        self.dice.pick(&LIBRARY).clone()
    }

    /// Brings an item of a batch in.
    fn add_item(&mut self, message: &mut Node<'static>) {
        let other = self.dice.pick(&LIBRARY);
        let items: Vec<&Node<'static>> = other.items().iter().filter(|item| item.tag == Tag::BatchItem).collect();
        if let (Value::Structure(known), false) = (&mut message.value, items.is_empty()) {
            let at = self.dice.below(known.len() + 1);
            known.insert(at, (*self.dice.pick(&items)).clone());
        }
    }

    /// Another version, or another way to go on after a failure.
    fn set_header(&mut self, message: &mut Node<'static>) {
        let Value::Structure(items) = &mut message.value else { return };
        let Some(Node { value: Value::Structure(header), .. }) = items.iter_mut().find(|item| item.tag == Tag::RequestHeader) else { return };
        if self.dice.one_in(2) {
            let version = *self.dice.pick(Version::SUPPORTED);
            header.retain(|item| item.tag != Tag::ProtocolVersion);
            header.insert(0, crate::messages::protocol_version(version.major.into(), version.minor.into()));
        } else {
            header.retain(|item| item.tag != Tag::BatchErrorContinuationOption);
            let option = BatchErrorContinuationOption::from_number(1 + u32::try_from(self.dice.below(3)).unwrap_or(0));
            header.extend(option.map(|option| Node::enumeration(Tag::BatchErrorContinuationOption, option)));
        }
    }

    fn node(&mut self, node: &mut Node<'static>) {
        if self.dice.one_in(6) {
            return self.graft(node);
        }
        if self.dice.one_in(24) {
            node.tag = *self.dice.pick(&[
                Tag::Attribute,
                Tag::AttributeValue,
                Tag::UniqueIdentifier,
                Tag::Name,
                Tag::KeyBlock,
                Tag(0x54_0001),
                Tag::TemplateAttribute,
            ]);
        }
        let tag = node.tag;
        match &mut node.value {
            Value::Structure(items) if !items.is_empty() => self.structure(items),
            value if self.dice.one_in(24) => self.other_type(value),
            value => self.leaf(tag, value),
        }
    }

    /// Puts something with the same tag in its place.
    fn graft(&mut self, node: &mut Node<'static>) {
        for _ in 0..8 {
            let mut same = Vec::new();
            with_tag(self.dice.pick(&LIBRARY), node.tag, &mut same);
            if !same.is_empty() {
                *node = self.dice.pick(&same).clone();
                return;
            }
        }
    }

    fn structure(&mut self, items: &mut Vec<Node<'static>>) {
        let (one, other) = (self.dice.below(items.len()), self.dice.below(items.len()));
        match self.dice.below(4) {
            0 => drop(items.remove(one)),
            1 => items.insert(other, items[one].clone()),
            2 => items.swap(one, other),
            _ => {
                let mut from = self.dice.pick(&LIBRARY).clone();
                let number = self.dice.below(size(&from));
                items.extend(nth(&mut from, &mut { number }).cloned());
            }
        }
    }

    fn leaf(&mut self, tag: Tag, value: &mut Value<'static>) {
        let usual = !self.dice.one_in(3);
        match value {
            Value::Structure(items) => items.push(id(1)),
            Value::Integer(integer) if usual => {
                *integer = *self.dice.pick(&[0, 1, 2, 4, 5, 8, 12, 16, 56, 64, 112, 128, 168, 192, 256, 512, -1, i32::MAX, i32::MIN])
            }
            Value::Enumeration(member) if usual && tag == Tag::Operation => *member = self.dice.pick(&OPERATIONS).number(),
            Value::Enumeration(member) if usual => {
                *member = if self.dice.one_in(8) {
                    *self.dice.pick(&[0, 0x101, 0x106, 0x107, 0x8000_0001, u32::MAX])
                } else {
                    1 + u32::try_from(self.dice.below(46)).unwrap_or(0)
                };
            }
            Value::Boolean(boolean) => *boolean = !*boolean,
            Value::DateTime(date) | Value::LongInteger(date) | Value::DateTimeExtended(date) if usual => {
                *date = *self.dice.pick(&[0, -1, 1, i64::MIN, i64::MAX, scene::NOW, scene::NOW - 1, scene::NOW + 10, scene::NOW + 50, scene::NOW + 100]);
            }
            Value::Interval(seconds) if usual => *seconds = *self.dice.pick(&[0, 1, 60, u32::MAX]),
            Value::TextString(text) if usual => *text = self.text(tag).into(),
            other => self.raw(other),
        }
    }

    fn text(&mut self, tag: Tag) -> String {
        let usual = match tag {
            Tag::AttributeName => *self.dice.pick(&["x-a", "x-n", "x-", "y-a", "", "State", "Unique Identifier"]),
            _ => *self.dice.pick(&["a", "b", "group", "template", "text", ""]),
        };
        match tag {
            Tag::AttributeName if !self.dice.one_in(4) => self.dice.pick(DEFINITIONS).name.to_owned(),
            Tag::UniqueIdentifier | Tag::LinkedObjectIdentifier if !self.dice.one_in(8) => {
                let number = if self.dice.one_in(10) { scene::FOREIGN } else { 1 + u8::try_from(self.dice.below(5)).unwrap_or(0) };
                match id(number).value {
                    Value::TextString(text) => text.into_owned(),
                    _ => String::new(),
                }
            }
            _ => usual.to_owned(),
        }
    }

    /// Changes the bytes of a value; its length stays one that the type has.
    fn raw(&mut self, value: &mut Value<'static>) {
        match value {
            Value::Structure(_) | Value::Boolean(_) => {}
            Value::Integer(number) => *number = i32::from_be_bytes(self.fixed(number.to_be_bytes())),
            Value::Enumeration(number) | Value::Interval(number) => *number = u32::from_be_bytes(self.fixed(number.to_be_bytes())),
            Value::LongInteger(number) | Value::DateTime(number) | Value::DateTimeExtended(number) => {
                *number = i64::from_be_bytes(self.fixed(number.to_be_bytes()));
            }
            Value::TextString(text) => {
                let changed = self.grown(text.as_bytes());
                *text = String::from_utf8_lossy(&changed).into_owned().into();
            }
            Value::ByteString(bytes) => *bytes = self.grown(bytes).into(),
            Value::BigInteger(bytes) => {
                let mut changed = self.grown(bytes);
                changed.resize(changed.len().next_multiple_of(8).max(8), 0);
                *bytes = changed.into();
            }
        }
    }

    fn fixed<const N: usize>(&mut self, mut bytes: [u8; N]) -> [u8; N] {
        (self.bytes)(&mut bytes, N, N);
        bytes
    }

    fn grown(&mut self, bytes: &[u8]) -> Vec<u8> {
        let room = bytes.len() + if self.dice.one_in(32) { 2_000 } else { 32 };
        let mut changed = bytes.to_vec();
        changed.resize(room, 0);
        let size = (self.bytes)(&mut changed, bytes.len(), room);
        changed.truncate(size);
        changed
    }

    fn other_type(&mut self, value: &mut Value<'static>) {
        *value = match self.dice.below(11) {
            0 => Value::Structure(Vec::new()),
            1 => Value::Integer(1),
            2 => Value::LongInteger(1),
            3 => Value::BigInteger(vec![0; 8].into()),
            4 => Value::Enumeration(1),
            5 => Value::Boolean(true),
            6 => Value::TextString("a".into()),
            7 => Value::ByteString(vec![1].into()),
            8 => Value::DateTime(scene::NOW),
            9 => Value::Interval(1),
            // As deep as it may be, and deeper.
            _ => (0..self.dice.below(34)).fold(Value::Integer(1), |inner, _| Value::Structure(vec![Node::new(Tag::AttributeValue, inner)])),
        };
    }
}

const OPERATIONS: [Operation; 15] = [
    Operation::Create,
    Operation::Register,
    Operation::ReKey,
    Operation::Locate,
    Operation::Get,
    Operation::GetAttributes,
    Operation::GetAttributeList,
    Operation::AddAttribute,
    Operation::ModifyAttribute,
    Operation::DeleteAttribute,
    Operation::Activate,
    Operation::Revoke,
    Operation::Destroy,
    Operation::Query,
    Operation::DiscoverVersions,
];

/// How many items there are, with the one itself.
fn size(node: &Node<'_>) -> usize {
    1 + node.items().iter().map(size).sum::<usize>()
}

/// The item of that number, counted from the outermost, which is 0.
fn nth<'n>(node: &'n mut Node<'static>, left: &mut usize) -> Option<&'n mut Node<'static>> {
    if *left == 0 {
        return Some(node);
    }
    *left -= 1;
    match &mut node.value {
        Value::Structure(items) => items.iter_mut().find_map(|item| nth(item, left)),
        _ => None,
    }
}

fn with_tag(node: &Node<'static>, tag: Tag, found: &mut Vec<Node<'static>>) {
    if node.tag == tag {
        found.push(node.clone());
    }
    node.items().iter().for_each(|item| with_tag(item, tag, found));
}
