//! An answer against the expected one.
//!
//! Whole answers are compared, item by item, in order. What may differ is what the profiles allow ("Permitted Test Case Variations"; KMIP Profiles 1.4, section 4.1, numbered as in Profiles 3.0,
//! section 4.1.1), and nothing else:
//!
//! * Unique Identifiers, by binding their placeholders; the same placeholder must stand for the same value ever after (items 1 to 3);
//! * Time Stamp (6) and dates that the client did not fix (9), which must be about now all the same; Digest of a key that the server made (10);
//! * key material, where the server made the key, and wrapped keys (7); what RNG Retrieve answers, but for its length (8);
//! * Result Message (response variation 3), Vendor Identification (5), the members of Random Number Generator (6) and of Server Information (8);
//! * the Server Correlation Value of a header, which is the server's own to give or not (KMIP Specification 2.1, section 9.10);
//! * more operations and object types in Query than expected (15, 16), more attributes in Get Attributes and Get Attribute List (20), and those in another order (4.1.2, item 5).

use crate::case::{Content, Item};
use keystead_kmip::Tag;
use keystead_kmip::enumeration::{Enumeration as _, Operation};
use keystead_kmip::ttlv::{Node, Value};
use std::collections::{HashMap, HashSet};

/// How far a date that means "now" may be off, in seconds.
const NOW_SLACK: i64 = 120;

/// What placeholders stand for.
#[derive(Debug, Default)]
pub struct Bindings {
    values: HashMap<String, Value<'static>>,
    /// Key material that the client itself has sent: it must come back as it was.
    sent: HashSet<Vec<u8>>,
    /// Dates that the client itself has fixed, in seconds: they too.
    fixed: HashSet<i64>,
}

impl Bindings {
    /// Puts values in the place of a request's placeholders.
    ///
    /// # Errors
    /// One that nothing has bound.
    pub fn fill(&mut self, item: &Item) -> Result<Node<'static>, String> {
        let value = match &item.content {
            Content::Structure(items) => Value::Structure(items.iter().map(|item| self.fill(item)).collect::<Result<_, _>>()?),
            Content::Value(value) => {
                if let (Tag::KeyMaterial | Tag::OpaqueDataValue, Value::ByteString(bytes)) = (item.tag, value) {
                    self.sent.insert(bytes.to_vec());
                }
                if let Value::DateTime(date) = value {
                    self.fixed.insert(*date);
                }
                value.clone()
            }
            Content::Placeholder(name, _) => match (moment(name), self.values.get(name)) {
                (Some(at), _) => Value::DateTime(at),
                (None, Some(value)) => value.clone(),
                (None, None) => return Err(format!("nothing has bound {name} of {}", item.tag)),
            },
        };
        Ok(Node::new(item.tag, value))
    }
}

/// Compares, and binds what is new.
///
/// # Errors
/// The first difference, with the path to it.
pub fn compare(expected: &Item, actual: &Node<'_>, bindings: &mut Bindings) -> Result<(), String> {
    compare_in(expected, actual, bindings, None)
}

fn compare_in(expected: &Item, actual: &Node<'_>, bindings: &mut Bindings, operation: Option<Operation>) -> Result<(), String> {
    if expected.tag != actual.tag {
        return Err(format!("expected {}, got {}", expected.tag, actual.tag));
    }
    match &expected.content {
        Content::Structure(items) => {
            compare_structure(expected.tag, items, actual, bindings, operation).map_err(|difference| format!("{}/{difference}", expected.tag))
        }
        Content::Value(value) => compare_value(expected.tag, value, &actual.value, bindings, operation),
        Content::Placeholder(name, kind) => {
            if kind != actual.value.kind_name() {
                return Err(format!("{}: expected a {kind}, got a {}", expected.tag, actual.value.kind_name()));
            }
            if let Some(at) = moment(name) {
                return match actual.value {
                    Value::DateTime(got) if (got - at).abs() <= NOW_SLACK => Ok(()),
                    _ => Err(format!("{}: expected {name}, got {}", expected.tag, show(&actual.value))),
                };
            }
            match bindings.values.get(name) {
                Some(bound) if *bound != actual.value => Err(format!("{}: expected {} ({name}), got {}", expected.tag, show(bound), show(&actual.value))),
                Some(_) => Ok(()),
                None => {
                    bindings.values.insert(name.clone(), actual.value.clone().into_owned());
                    Ok(())
                }
            }
        }
    }
}

fn compare_structure(tag: Tag, items: &[Item], actual: &Node<'_>, bindings: &mut Bindings, operation: Option<Operation>) -> Result<(), String> {
    let Value::Structure(got) = &actual.value else { return Err(format!("expected a Structure, got a {}", actual.value.kind_name())) };
    let got: Vec<&Node<'_>> = got.iter().collect();
    match (tag, operation) {
        // Their presence is compared, their members are the server's.
        (Tag::ServerInformation | Tag::Digest | Tag::RandomNumberGenerator, _) => Ok(()),
        (Tag::ResponseHeader, _) => {
            let compared = |tag: Tag| tag != Tag::ServerCorrelationValue;
            let expected: Vec<&Item> = items.iter().filter(|item| compared(item.tag)).collect();
            in_order(&expected, &got.into_iter().filter(|item| compared(item.tag)).collect::<Vec<_>>(), bindings, operation)
        }
        // More attributes than expected, and in another order, as in 1.x.
        (Tag::Attributes, _) => contained(items.iter(), got, bindings),
        (Tag::BatchItem, _) => {
            let operation = actual.find(Tag::Operation).and_then(|operation| match operation.value {
                Value::Enumeration(number) => Operation::from_number(number),
                _ => None,
            });
            let expected: Vec<&Item> = items.iter().filter(|item| item.tag != Tag::ResultMessage).collect();
            let got: Vec<&Node<'_>> = got.into_iter().filter(|item| item.tag != Tag::ResultMessage).collect();
            in_order(&expected, &got, bindings, operation)
        }
        (Tag::ResponsePayload, Some(Operation::Query)) => {
            let lists = [Tag::Operation, Tag::ObjectType];
            contained(items.iter().filter(|item| lists.contains(&item.tag)), got.iter().filter(|item| lists.contains(&item.tag)).copied().collect(), bindings)?;
            let expected: Vec<&Item> = items.iter().filter(|item| !lists.contains(&item.tag)).collect();
            let got: Vec<&Node<'_>> = got.into_iter().filter(|item| !lists.contains(&item.tag)).collect();
            in_order(&expected, &got, bindings, operation)
        }
        (Tag::ResponsePayload, Some(Operation::GetAttributes | Operation::GetAttributeList)) => {
            let lists = [Tag::Attribute, Tag::AttributeName, Tag::AttributeReference];
            let expected: Vec<&Item> = items.iter().filter(|item| !lists.contains(&item.tag)).collect();
            let others: Vec<&Node<'_>> = got.iter().filter(|item| !lists.contains(&item.tag)).copied().collect();
            in_order(&expected, &others, bindings, operation)?;
            contained(items.iter().filter(|item| lists.contains(&item.tag)), got.into_iter().filter(|item| lists.contains(&item.tag)).collect(), bindings)
        }
        (Tag::Attribute, _) => compare_attribute(items, &got, bindings, operation),
        _ => in_order(&items.iter().collect::<Vec<_>>(), &got, bindings, operation),
    }
}

fn in_order(expected: &[&Item], got: &[&Node<'_>], bindings: &mut Bindings, operation: Option<Operation>) -> Result<(), String> {
    for (at, item) in expected.iter().enumerate() {
        match got.get(at) {
            Some(node) => compare_in(item, node, bindings, operation)?,
            None => return Err(format!("{} is missing", item.tag)),
        }
    }
    match got.get(expected.len()) {
        None => Ok(()),
        Some(more) => Err(format!("{} was not expected", more.tag)),
    }
}

/// Each expected item must be met by one of its own; more may be there, in any order.
fn contained<'i>(expected: impl Iterator<Item = &'i Item>, mut got: Vec<&Node<'_>>, bindings: &mut Bindings) -> Result<(), String> {
    for item in expected {
        let mut first = None;
        let found = got.iter().position(|node| match compare_in(item, node, bindings, None) {
            Ok(()) => true,
            Err(difference) => {
                if same_name(item, node) {
                    first.get_or_insert(difference);
                }
                false
            }
        });
        match found {
            Some(at) => drop(got.swap_remove(at)),
            None => return Err(first.unwrap_or_else(|| format!("{} is missing", describe(item)))),
        }
    }
    Ok(())
}

/// Name, index, value. The values of dates that the server sets, of Digest and of Random Number Generator may differ, but not their type.
fn compare_attribute(items: &[Item], got: &[&Node<'_>], bindings: &mut Bindings, operation: Option<Operation>) -> Result<(), String> {
    const FREE: &[&str] = &["Digest", "Random Number Generator", "Lease Time"];
    let name = items.iter().find_map(|item| match (&item.tag, &item.content) {
        (&Tag::AttributeName, Content::Value(Value::TextString(name))) => Some(name.as_ref()),
        _ => None,
    });
    let free = name.is_some_and(|name| FREE.contains(&name));
    if !free {
        return in_order(&items.iter().collect::<Vec<_>>(), got, bindings, operation)
            .map_err(|difference| format!("{}: {difference}", name.unwrap_or_default()));
    }
    let [expected_name, expected_value] = items else { return Err(format!("{}: the case gives it an index", name.unwrap_or_default())) };
    let [got_name, got_value] = got else { return Err(format!("{}: expected a name and a value", name.unwrap_or_default())) };
    compare_in(expected_name, got_name, bindings, operation)?;
    let structure = matches!(expected_value.content, Content::Structure(_));
    if got_value.tag == Tag::AttributeValue && structure == matches!(got_value.value, Value::Structure(_)) {
        return Ok(());
    }
    Err(format!("{}: the value has another type", name.unwrap_or_default()))
}

fn compare_value(tag: Tag, expected: &Value<'_>, got: &Value<'_>, bindings: &Bindings, operation: Option<Operation>) -> Result<(), String> {
    if expected.kind() != got.kind() {
        return Err(format!("{tag}: expected a {}, got a {}", expected.kind_name(), got.kind_name()));
    }
    let free = match (tag, expected, got) {
        (Tag::VendorIdentification, ..) => operation == Some(Operation::Query),
        (Tag::LeaseTime, ..) => true,
        // Made by the server, so only its length can be known before.
        (Tag::KeyMaterial, Value::ByteString(expected), Value::ByteString(got)) => {
            let brought = bindings.sent.contains(expected.as_ref()) || bindings.sent.contains(got.as_ref());
            !brought && expected.len() == got.len()
        }
        (Tag::Data, Value::ByteString(expected), Value::ByteString(got)) if operation == Some(Operation::RNGRetrieve) => expected.len() == got.len(),
        // The day on which the transcript was made; the server's own clock says today's.
        (_, Value::DateTime(expected), Value::DateTime(got)) if !bindings.fixed.contains(expected) => {
            moment("$NOW").is_some_and(|now| (got - now).abs() <= NOW_SLACK)
        }
        _ => false,
    };
    if free || expected == got { Ok(()) } else { Err(format!("{tag}: expected {}, got {}", show(expected), show(got))) }
}

/// `$NOW`, `$NOW-3600`, `$NOW+60`.
fn moment(name: &str) -> Option<i64> {
    let rest = name.strip_prefix("$NOW")?;
    let offset = if rest.is_empty() { 0 } else { rest.parse::<i64>().ok()? };
    // The server's own clock is compared with this machine's.
    #[allow(clippy::disallowed_methods)]
    Some(jiff::Timestamp::now().as_second() + offset)
}

fn same_name(item: &Item, node: &Node<'_>) -> bool {
    let expected = match &item.content {
        Content::Structure(items) => items.iter().find(|item| item.tag == Tag::AttributeName).map(describe),
        _ => None,
    };
    let got = node.find(Tag::AttributeName).map(|name| format!("{} {}", name.tag, show(&name.value)));
    let by_tag = ![Tag::Attribute, Tag::AttributeName, Tag::AttributeReference].contains(&item.tag) && item.tag == node.tag;
    by_tag || (expected.is_some() && expected == got)
}

fn describe(item: &Item) -> String {
    match &item.content {
        Content::Value(value) => format!("{} {}", item.tag, show(value)),
        Content::Placeholder(name, _) => format!("{} {name}", item.tag),
        Content::Structure(items) => match items.first() {
            Some(first) => format!("{} ({})", item.tag, describe(first)),
            None => item.tag.to_string(),
        },
    }
}

fn show(value: &Value<'_>) -> String {
    match value {
        Value::TextString(text) => format!("{text:?}"),
        Value::ByteString(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        other => format!("{other:?}"),
    }
}
