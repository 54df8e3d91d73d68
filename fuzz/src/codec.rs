//! The codec: whatever the bytes are, reading them is an answer, and what was read is written as it was.

use keystead_kmip::Version;
use keystead_kmip::attribute::{Attribute, Identity};
use keystead_kmip::enumeration::{Enumeration as _, Operation};
use keystead_kmip::message::{Outcome, RequestMessage, ResponseItem, refusal, respond};
use keystead_kmip::object::Object;
use keystead_kmip::request::Request;
use keystead_kmip::ttlv::{Node, Writer, decode, encode};
use keystead_kmip::{Failure, Tag};

/// Tries all that reads bytes of a peer or of the store.
pub fn check(bytes: &[u8]) {
    let _ = keystead_ekmip::reads_as_attributes(bytes);
    let Ok(node) = decode(bytes) else { return };
    assert_eq!(encoded(&node), bytes, "a tree has one encoding");
    // The text goes to logs: no secret, and no panic.
    let _ = format!("{node:?}");
    message(&node);
    for version in [Version::V1_0, Version::V1_2, Version::V1_4, Version::V2_1] {
        attribute(&node, version);
        object(&node, version);
        for operation in (1..=60).filter_map(Operation::from_number) {
            let _ = Request::from_node(operation, &node, version);
        }
    }
}

/// A message is read item by item, or refused in words that a client can read.
fn message(node: &Node<'_>) {
    let mut out = Vec::new();
    match RequestMessage::from_node(node) {
        Err(unreadable) => refusal(&unreadable, 0, &mut out),
        Ok(message) => {
            let failed = |item: &keystead_kmip::message::RequestItem<'_, '_>| item.request(message.version).err();
            let outcome = |failure: Option<Failure>| failure.map_or(Outcome::Undone(None), Outcome::Failed);
            let items: Vec<ResponseItem<'_>> =
                message.items.iter().map(|item| ResponseItem { operation: Some(item.operation), id: item.id, outcome: outcome(failed(item)) }).collect();
            respond(message.version, 0, &items, &mut out);
        }
    }
    let answer = decode(&out).expect("an answer is TTLV");
    assert_eq!(answer.tag, Tag::ResponseMessage);
    assert!(answer.find(Tag::BatchItem).is_some(), "an answer has an item");
}

/// An attribute that was accepted is the same after it was written.
fn attribute(node: &Node<'_>, version: Version) {
    let _ = Attribute::wanted_from_node(node, version);
    let Ok(attribute) = Attribute::from_node(node, version) else { return };
    let newest = |version| if version < Version::V2_0 { Version::V1_4 } else { Version::V2_1 };
    let again = Attribute::from_node(&attribute.to_node_at(newest(version)), newest(version));
    assert_eq!(again.as_ref(), Ok(&attribute));
    for shown in Version::SUPPORTED {
        let node = attribute.to_node_at(*shown);
        // What came later is left out, but never of what is a client's own.
        assert!(matches!(attribute.identity, Identity::Known(_)) || node == attribute.to_node_at(newest(*shown)));
    }
}

/// So is an object.
fn object(node: &Node<'_>, version: Version) {
    let Ok(object) = Object::from_node(node, version) else { return };
    let written = |object: &Object<'_>| {
        let mut out = Vec::new();
        object.write(version, &mut Writer::new(&mut out));
        out
    };
    let bytes = written(&object);
    let again = decode(&bytes).expect("an object is TTLV");
    let again = Object::from_node(&again, version).expect("what was written can be read");
    assert_eq!(written(&again), bytes);
}

fn encoded(node: &Node<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(node, &mut out);
    out
}
