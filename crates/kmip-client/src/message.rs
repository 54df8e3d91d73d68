//! Messages of one operation, as a client writes and reads them (KMIP Specification 1.4, sections 6 and 7, and 2.1, sections 8 and 9).

use keystead_kmip::enumeration::{Enumeration as _, Operation, ResultReason, ResultStatus};
use keystead_kmip::fields::{integer, text};
use keystead_kmip::ttlv::{Node, Value, Writer};
use keystead_kmip::{Tag, Version};
use std::fmt;
use zeroize::Zeroizing;

/// What header and item of a request take at most, in bytes.
const FRAME: usize = 256;

/// A request of one operation. `payload_bytes`: at least what the payload will have, so that the buffer, which may hold a key, is never moved.
pub fn request(version: Version, operation: Operation, payload_bytes: usize, payload: impl FnOnce(&mut Writer<'_>)) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(FRAME + payload_bytes));
    Writer::new(&mut bytes).structure(Tag::RequestMessage, |out| {
        out.structure(Tag::RequestHeader, |out| {
            out.structure(Tag::ProtocolVersion, |out| {
                out.integer(Tag::ProtocolVersionMajor, i32::from(version.major));
                out.integer(Tag::ProtocolVersionMinor, i32::from(version.minor));
            });
            out.integer(Tag::BatchCount, 1);
        });
        out.structure(Tag::BatchItem, |out| {
            out.enumeration(Tag::Operation, operation);
            out.structure(Tag::RequestPayload, payload);
        });
    });
    bytes
}

/// Why an operation was not done, as the server says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason's number (1.4, section 9.1.3.2.29; 2.1, section 11.46); servers may have their own, and may leave it out.
    pub reason: Option<u32>,
    /// The server's text.
    pub message: String,
}

impl Refusal {
    /// The reason, where the specification has it.
    pub fn known(&self) -> Option<ResultReason> {
        self.reason.and_then(ResultReason::from_number)
    }

    /// The reason's name in the specification, or its number.
    pub fn name(&self) -> String {
        match (self.known(), self.reason) {
            (Some(reason), _) => reason.name().to_owned(),
            (None, Some(number)) => format!("0x{number:x}"),
            (None, None) => "without a reason".to_owned(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() { f.write_str(&self.name()) } else { write!(f, "{}: {}", self.name(), self.message) }
    }
}

/// Why there is no payload in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// The server has refused.
    Refused(Refusal),
    /// It is no answer to one operation.
    Malformed(String),
}

/// The payload of the answer to one operation.
///
/// # Errors
/// [`Failed`].
pub fn payload<'n, 'a>(message: &'n Node<'a>, operation: Operation) -> Result<&'n Node<'a>, Failed> {
    let malformed = |what: String| Failed::Malformed(what);
    if message.tag != Tag::ResponseMessage {
        return Err(malformed(format!("the answer is a {}, not a ResponseMessage", message.tag)));
    }
    let mut items = message.items().iter().filter(|item| item.tag == Tag::BatchItem);
    let (Some(item), None) = (items.next(), items.next()) else {
        return Err(malformed("the answer has not one item, as the request had".to_owned()));
    };
    let status = match item.find(Tag::ResultStatus).map(|status| &status.value) {
        Some(Value::Enumeration(status)) => *status,
        _ => return Err(malformed("the answer has no ResultStatus".to_owned())),
    };
    if status == ResultStatus::OperationPending.number() {
        return Err(malformed("the server would answer later, and that is not supported here".to_owned()));
    }
    if status != ResultStatus::Success.number() {
        let reason = match item.find(Tag::ResultReason).map(|reason| &reason.value) {
            Some(Value::Enumeration(reason)) => Some(*reason),
            _ => None,
        };
        let message = item.find(Tag::ResultMessage).and_then(|message| text(message).ok()).unwrap_or_default();
        return Err(Failed::Refused(Refusal { reason, message: message.to_owned() }));
    }
    match item.find(Tag::Operation).map(|operation| &operation.value) {
        Some(Value::Enumeration(number)) if *number == operation.number() => {}
        _ => return Err(malformed(format!("the answer is none to {}", operation.name()))),
    }
    item.find(Tag::ResponsePayload).ok_or_else(|| malformed("the answer has no ResponsePayload".to_owned()))
}

/// The versions of an answer to Discover Versions, in the server's order; those that are not known here are left out.
pub fn versions(payload: &Node<'_>) -> Vec<Version> {
    let number = |node: &Node<'_>, tag| node.find(tag).and_then(|node| integer(node).ok());
    let listed = payload.items().iter().filter(|item| item.tag == Tag::ProtocolVersion);
    listed.filter_map(|node| Version::supported(number(node, Tag::ProtocolVersionMajor)?, number(node, Tag::ProtocolVersionMinor)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystead_kmip::message::{Outcome, RequestMessage, ResponseItem, respond};
    use keystead_kmip::request::Request;
    use keystead_kmip::response::Response;
    use keystead_kmip::ttlv::decode;
    use keystead_kmip::{Failure, ttlv};

    fn answered(operation: Operation, outcome: Outcome<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        respond(Version::V1_2, 5, &[ResponseItem { operation: Some(operation.number()), id: None, outcome }], &mut out);
        out
    }

    #[test]
    fn a_request_is_what_a_server_reads() {
        let bytes = request(Version::V1_2, Operation::Get, 64, |out| out.text(Tag::UniqueIdentifier, "7"));
        let node = decode(&bytes).unwrap();
        let message = RequestMessage::from_node(&node).unwrap();
        assert_eq!(message.version, Version::V1_2);
        assert!(matches!(message.items[0].request(message.version).unwrap(), Request::Get { id: Some("7"), .. }));
    }

    #[test]
    fn an_answer_is_a_payload_a_refusal_or_none_at_all() {
        let good = answered(Operation::Activate, Outcome::Success(Response::Identifier { object_type: None, id: "7".to_owned() }));
        let node = decode(&good).unwrap();
        assert!(payload(&node, Operation::Activate).unwrap().find(Tag::UniqueIdentifier).is_some());
        assert!(matches!(payload(&node, Operation::Get), Err(Failed::Malformed(_))), "the answer to something else");
        let bad = answered(Operation::Get, Outcome::Failed(Failure::new(ResultReason::ItemNotFound, "there is none")));
        let Err(Failed::Refused(refusal)) = payload(&decode(&bad).unwrap(), Operation::Get) else { panic!() };
        assert_eq!((refusal.known(), refusal.to_string().as_str()), (Some(ResultReason::ItemNotFound), "ItemNotFound: there is none"));
        let pending = |status| {
            Node::structure(Tag::ResponseMessage, vec![Node::structure(Tag::BatchItem, vec![Node::new(Tag::ResultStatus, Value::Enumeration(status))])])
        };
        assert!(matches!(payload(&pending(2), Operation::Get), Err(Failed::Malformed(_))));
        assert_eq!(payload(&pending(1), Operation::Get), Err(Failed::Refused(Refusal { reason: None, message: String::new() })));
        assert!(matches!(payload(&pending(0), Operation::Get), Err(Failed::Malformed(_))), "no operation");
        assert!(matches!(payload(&Node::structure(Tag::ResponseMessage, vec![]), Operation::Get), Err(Failed::Malformed(_))));
        assert!(matches!(payload(&ttlv::Node::integer(Tag::BatchCount, 1), Operation::Get), Err(Failed::Malformed(_))));
    }

    #[test]
    fn versions_that_are_not_known_are_left_out() {
        let version = |major, minor| {
            Node::structure(Tag::ProtocolVersion, vec![Node::integer(Tag::ProtocolVersionMajor, major), Node::integer(Tag::ProtocolVersionMinor, minor)])
        };
        let listed = Node::structure(Tag::ResponsePayload, vec![version(9, 0), version(1, 2), version(2, 0), Node::integer(Tag::ProtocolVersion, 1)]);
        assert_eq!(versions(&listed), [Version::V1_2, Version::V2_0]);
    }
}
