//! The attributes of an object, as far as they can be carried over.

use crate::identity::{here, is_mark, mark};
use crate::report::{Note, short};
use keystead_kmip::attribute::{Attribute, Identity, definition, name_value};
use keystead_kmip::enumeration::{Enumeration as _, ObjectType, State};
use keystead_kmip::fields::text;
use keystead_kmip::ttlv::{Node, Value};
use keystead_kmip::{Tag, Version};

/// What follows from the object itself, or is the server's: Keystead computes it, and nothing is lost.
const FOLLOWS: &[Tag] = &[
    Tag::UniqueIdentifier,
    Tag::ShortUniqueIdentifier,
    Tag::ObjectType,
    Tag::Digest,
    Tag::KeyFormatType,
    Tag::LeaseTime,
    Tag::CertificateType,
    Tag::CertificateLength,
    Tag::X_509CertificateIdentifier,
    Tag::X_509CertificateSubject,
    Tag::X_509CertificateIssuer,
    Tag::DigitalSignatureAlgorithm,
    Tag::OpaqueDataType,
    Tag::KeyValuePresent,
    Tag::ProtectionStorageMask,
];
/// The same under names that 1.0 has alone.
const FOLLOWS_IN_1_0: &[&str] = &["Certificate Identifier", "Certificate Subject", "Certificate Issuer"];
/// What is of this place and has no meaning at another.
const OF_A_PLACE: &[Tag] = &[Tag::KeyValueLocation, Tag::ArchiveDate];
/// How many notes are made on one object.
const MOST_NOTES: usize = 50;

/// What the source says of an object.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What is carried over, with the mark.
    pub attributes: Vec<Attribute<'static>>,
    /// The names among them.
    pub names: Vec<String>,
    /// The type's number.
    pub object_type: Option<u32>,
    /// The state.
    pub state: Option<State>,
    /// What is not carried over, and why.
    pub notes: Vec<Note>,
}

/// Reads the payload of Get Attributes. `version`: that of the source.
pub fn gather(payload: &Node<'_>, version: Version, source_name: &str, id: &str) -> Gathered {
    let mut gathered = Gathered::default();
    let nodes: Vec<&Node<'_>> = match version < Version::V2_0 {
        true => payload.items().iter().filter(|item| item.tag == Tag::Attribute).collect(),
        false => payload.find(Tag::Attributes).map(Node::items).unwrap_or_default().iter().collect(),
    };
    for node in nodes {
        gathered.take(node, version, source_name);
    }
    gathered.attributes.extend(mark(source_name, id));
    gathered
}

impl Gathered {
    fn take(&mut self, node: &Node<'_>, version: Version, source_name: &str) {
        if FOLLOWS_IN_1_0.contains(&name(node).as_str()) {
            return;
        }
        let mut attribute = match Attribute::from_node(node, version) {
            Ok(attribute) => attribute,
            Err(failure) => {
                if !follows(node) {
                    self.note(&name(node), &failure.message);
                }
                return;
            }
        };
        match (&attribute.identity, &mut attribute.value) {
            (identity, _) if is_mark(identity) => return,
            (Identity::Known(Tag::ObjectType), Value::Enumeration(number)) => {
                self.object_type = Some(*number);
                return;
            }
            (Identity::Known(tag), _) if FOLLOWS.contains(tag) || certificate_name(*tag) => return,
            (Identity::Known(tag), _) if OF_A_PLACE.contains(tag) => return self.note(&name(node), "it says something of the source, not of the object"),
            (Identity::Known(Tag::State), Value::Enumeration(number)) => self.state = State::from_number(*number),
            (Identity::Known(Tag::Link), Value::Structure(items)) => turn(items, source_name),
            (Identity::Known(Tag::Name), value) => match name_value(value) {
                None | Some("") => return self.note("Name", "it is empty"),
                Some(name) if self.names.iter().any(|known| known == name) => return self.note("Name", "the object has it twice"),
                Some(name) => self.names.push(name.to_owned()),
            },
            _ => {}
        }
        if !attribute.identity.is_multiple() && self.attributes.iter().any(|known| known.identity == attribute.identity) {
            return self.note(&name(node), "the source gives it twice, and there can be only one: the first is taken");
        }
        self.attributes.push(attribute);
    }

    /// Takes a name away, since another object has it here.
    pub fn drop_name(&mut self, name: &str) {
        self.names.retain(|known| known != name);
        self.attributes.retain(|known| known.identity != Identity::Known(Tag::Name) || name_value(&known.value) != Some(name));
        self.note("Name", &format!("{name:?} is not carried over: another object has it here"));
    }

    /// Notes that an attribute is not carried over.
    pub fn note(&mut self, attribute: &str, message: &str) {
        if self.notes.len() < MOST_NOTES {
            self.notes.push(Note { attribute: Some(short(attribute)), message: short(message) });
        } else if self.notes.len() == MOST_NOTES {
            self.notes.push(Note { attribute: None, message: "more attributes than are listed here could not be carried over".to_owned() });
        }
    }

    /// The name of the type, as it is in the specification.
    pub fn type_name(&self) -> Option<String> {
        self.object_type.map(type_name)
    }
}

/// The name of a type, or its number.
pub fn type_name(number: u32) -> String {
    ObjectType::from_number(number).map_or_else(|| format!("0x{number:x}"), |kind| kind.name().to_owned())
}

/// A Link leads to an identifier, which may be another one here.
fn turn(items: &mut [Node<'static>], source_name: &str) {
    for item in items.iter_mut().filter(|item| item.tag == Tag::LinkedObjectIdentifier) {
        if let Value::TextString(id) = &mut item.value {
            *id = here(source_name, id).to_string().into();
        }
    }
}

/// What an attribute is called in the report: in 1.x its name, in 2.x that which 1.x has for it, or the tag's.
fn name(node: &Node<'_>) -> String {
    let part = |tag| node.find(tag).and_then(|node| text(node).ok()).unwrap_or_default();
    match node.tag {
        Tag::Attribute if node.find(Tag::VendorIdentification).is_some() => format!("{}-{}", part(Tag::VendorIdentification), part(Tag::AttributeName)),
        Tag::Attribute => part(Tag::AttributeName).to_owned(),
        tag => definition(tag).map_or_else(|| tag.to_string(), |definition| definition.name.to_owned()),
    }
}

/// Whether an attribute that cannot be read is one of those that follow from the object.
fn follows(node: &Node<'_>) -> bool {
    let name = name(node);
    FOLLOWS.iter().filter_map(|tag| definition(*tag)).any(|definition| definition.name == name)
}

/// Whether it is a part of a certificate's name.
fn certificate_name(tag: Tag) -> bool {
    (Tag::CertificateSubjectCN..=Tag::CertificateIssuerDNQualifier).contains(&tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: &'static str, value: Value<'static>) -> Node<'static> {
        Node::structure(Tag::Attribute, vec![Node::text(Tag::AttributeName, name), Node::new(Tag::AttributeValue, value)])
    }

    fn text(value: &'static str) -> Value<'static> {
        Value::TextString(value.into())
    }

    #[test]
    fn what_can_be_carried_over_is_and_the_rest_is_noted() {
        let name = |name: &'static str| attribute("Name", Attribute::name(name).value);
        let link = vec![Node::new(Tag::LinkType, Value::Enumeration(0x101)), Node::text(Tag::LinkedObjectIdentifier, "7")];
        let payload = Node::structure(
            Tag::ResponsePayload,
            vec![
                Node::text(Tag::UniqueIdentifier, "1"),
                attribute("Object Type", Value::Enumeration(2)),
                attribute("State", Value::Enumeration(4)),
                name("a"),
                name("b"),
                name("a"),
                name(""),
                attribute("x-Barcode", text("8")),
                attribute("x-Keystead-Import-Source", text("another")),
                attribute("Contact Information", text("one")),
                attribute("Contact Information", text("two")),
                attribute("Digest", Value::Integer(1)),
                attribute("Certificate Issuer", text("c")),
                attribute("Vendor's Own", text("d")),
                attribute("Cryptographic Length", text("long")),
                attribute("Link", Value::Structure(link)),
            ],
        );
        let gathered = gather(&payload, Version::V1_2, "s", "1");
        assert_eq!((gathered.object_type, gathered.state), (Some(2), Some(State::Compromised)));
        assert_eq!(gathered.names, ["a", "b"]);
        let carried: Vec<&str> = gathered.attributes.iter().map(|attribute| attribute.identity.name()).collect();
        let marks = ["x-Keystead-Import-Source", "x-Keystead-Import-ID"];
        assert_eq!(carried, [["State", "Name", "Name", "x-Barcode", "Contact Information", "Link"].as_slice(), &marks].concat());
        let noted: Vec<&str> = gathered.notes.iter().filter_map(|note| note.attribute.as_deref()).collect();
        assert_eq!(noted, ["Name", "Name", "Contact Information", "Vendor's Own", "Cryptographic Length"]);
        let Value::Structure(link) = &gathered.attributes[5].value else { panic!() };
        assert_eq!(link[1].value, Value::TextString(here("s", "7").to_string().into()));
    }

    #[test]
    fn notes_are_bounded() {
        let many = (0..500).map(|_| attribute("Nonsense", text("a"))).collect();
        assert_eq!(gather(&Node::structure(Tag::ResponsePayload, many), Version::V1_2, "s", "1").notes.len(), MOST_NOTES + 1);
        let none = gather(&Node::structure(Tag::ResponsePayload, vec![Node::integer(Tag::Attributes, 1)]), Version::V2_0, "s", "1");
        assert_eq!(none.attributes.len(), 2, "the mark alone");
    }
}
