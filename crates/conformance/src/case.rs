//! Reading a transcript: the XML encoding of KMIP (KMIP Profiles 1.4, section 5.4, and 2.1, section 3) with placeholders.

use keystead_kmip::Tag;
use keystead_kmip::attribute::DEFINITIONS;
use keystead_kmip::enumeration::{mask_bits, member_number};
use keystead_kmip::ttlv::Value;
use roxmltree::{Document, Node as Element};

/// A transcript.
#[derive(Debug)]
pub struct Case {
    /// Its requests, each with the expected answer.
    pub exchanges: Vec<Exchange>,
}

/// A request and the expected answer.
#[derive(Debug)]
pub struct Exchange {
    /// The Request Message.
    pub request: Item,
    /// The Response Message.
    pub response: Item,
}

/// An item of a message.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its tag.
    pub tag: Tag,
    /// Its value.
    pub content: Content,
}

/// The value of an item.
#[derive(Debug, Clone)]
pub enum Content {
    /// Other items.
    Structure(Vec<Item>),
    /// A value.
    Value(Value<'static>),
    /// What stands for a value: the whole text, for example `$UNIQUE_IDENTIFIER_0` or `$NOW-3600`, and the type it stands for.
    Placeholder(String, String),
}

impl Case {
    /// Reads a transcript.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document = Document::parse(text).map_err(|error| format!("no XML: {error}"))?;
        let messages: Vec<Element<'_, '_>> = document.root_element().children().filter(Element::is_element).collect();
        let mut exchanges = Vec::new();
        for pair in messages.chunks(2) {
            let [request, response] = pair else { return Err("the last request has no response".to_owned()) };
            if request.tag_name().name() != "RequestMessage" || response.tag_name().name() != "ResponseMessage" {
                return Err(wrong(request, "requests and responses must take turns"));
            }
            exchanges.push(Exchange { request: item(request, None)?, response: item(response, None)? });
        }
        if exchanges.is_empty() {
            return Err("there is no request in it".to_owned());
        }
        Ok(Self { exchanges })
    }
}

/// Reads an element. `meaning`: the tag that says what the members of an Attribute Value are, since that stands beside it, as the attribute's name.
fn item(element: &Element<'_, '_>, meaning: Option<Tag>) -> Result<Item, String> {
    let name = element.tag_name().name();
    let tag = Tag::from_name(name).ok_or_else(|| wrong(element, &format!("there is no tag {name}")))?;
    let kind = element.attribute("type").unwrap_or("Structure");
    if kind == "Structure" {
        let children = element.children().filter(Element::is_element);
        let named = children.clone().find(|child| child.tag_name().name() == "AttributeName").and_then(|child| child.attribute("value"));
        let attribute = named.and_then(|name| DEFINITIONS.iter().find(|definition| definition.name == name)).map(|definition| definition.tag);
        let items = children.map(|child| item(&child, attribute.filter(|_| child.tag_name().name() == "AttributeValue"))).collect::<Result<_, _>>()?;
        return Ok(Item { tag, content: Content::Structure(items) });
    }
    let text = element.attribute("value").ok_or_else(|| wrong(element, &format!("{name} has no value")))?;
    let content = if text.starts_with('$') {
        Content::Placeholder(text.to_owned(), kind.to_owned())
    } else {
        Content::Value(value(kind, text, meaning.unwrap_or(tag)).ok_or_else(|| wrong(element, &format!("{text:?} is no {kind} of {name}")))?)
    };
    Ok(Item { tag, content })
}

fn value(kind: &str, text: &str, tag: Tag) -> Option<Value<'static>> {
    Some(match kind {
        "Integer" => Value::Integer(integer(text, tag)?),
        "LongInteger" => Value::LongInteger(text.parse().ok()?),
        "BigInteger" => Value::BigInteger(bytes(text)?.into()),
        "Enumeration" => Value::Enumeration(match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            // What it refers to is a tag (2.1, section 5.5).
            None if tag == Tag::AttributeReference => Tag::from_name(text)?.0,
            None => member_number(tag, text)?,
        }),
        "Boolean" => Value::Boolean(text.parse().ok()?),
        "TextString" => Value::TextString(text.to_owned().into()),
        "ByteString" => Value::ByteString(bytes(text)?.into()),
        "DateTime" => Value::DateTime(text.parse::<jiff::Timestamp>().ok()?.as_second()),
        "DateTimeExtended" => Value::DateTimeExtended(text.parse::<jiff::Timestamp>().ok()?.as_microsecond()),
        "Interval" => Value::Interval(text.parse().ok()?),
        _ => return None,
    })
}

/// A number, or the names of a mask's bits.
fn integer(text: &str, tag: Tag) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u32::from_str_radix(hex, 16).ok().map(u32::cast_signed);
    }
    let bits = mask_bits(tag)?;
    let mut mask = 0;
    for name in text.split([' ', '|']).filter(|name| !name.is_empty()) {
        mask |= bits.iter().find(|(known, _)| *known == name)?.1;
    }
    Some(mask.cast_signed())
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len() / 2).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect()
}

fn wrong(element: &Element<'_, '_>, what: &str) -> String {
    format!("line {}: {what}", element.document().text_pos_at(element.range().start).row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(request: &str) -> String {
        format!("<KMIP><RequestMessage>{request}</RequestMessage><ResponseMessage/></KMIP>")
    }

    #[test]
    fn values_are_read_by_the_meaning_of_their_attribute() {
        let text = exchange(
            "<Attribute><AttributeName type=\"TextString\" value=\"Cryptographic Usage Mask\"/><AttributeValue type=\"Integer\" value=\"Encrypt Decrypt\"/></Attribute>
             <Attribute><AttributeName type=\"TextString\" value=\"State\"/><AttributeValue type=\"Enumeration\" value=\"Active\"/></Attribute>
             <UniqueIdentifier type=\"TextString\" value=\"$UNIQUE_IDENTIFIER_0\"/><KeyMaterial type=\"ByteString\" value=\"0aff\"/>",
        );
        let case = Case::parse(&text).unwrap();
        let shown = format!("{:?}", case.exchanges[0].request);
        assert!(shown.contains("Value(12)") && shown.contains("Value(2)") && shown.contains("Placeholder(\"$UNIQUE_IDENTIFIER_0\""), "{shown}");
    }

    #[test]
    fn what_is_no_transcript_is_said_with_its_line() {
        assert!(Case::parse("").unwrap_err().contains("XML"));
        assert!(Case::parse("<KMIP/>").unwrap_err().contains("no request"));
        assert!(Case::parse("<KMIP><RequestMessage/></KMIP>").unwrap_err().contains("no response"));
        assert!(Case::parse(&exchange("\n<Nonsense/>")).unwrap_err().contains("line 2"));
        assert!(Case::parse(&exchange("<State type=\"Enumeration\" value=\"Nonsense\"/>")).unwrap_err().contains("State"));
    }
}
