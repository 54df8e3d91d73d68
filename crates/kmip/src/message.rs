//! Messages: a header and a batch of items (KMIP Specification 1.4, sections 6 and 7, and 2.1, sections 8 and 9).

use crate::enumeration::{BatchErrorContinuationOption, Enumeration as _, Operation, ResultReason, ResultStatus};
use crate::failure::{Failure, Result};
use crate::fields::{Fields, integer};
use crate::request::{Request, batch_id, numbers};
use crate::response::{Response, write_version};
use crate::tag::Tag;
use crate::ttlv::{Node, Value, Writer};
use crate::version::Version;

/// How many items a batch may have.
pub const MAX_BATCH: usize = 1_000;

/// The Asynchronous Indicator of a client that takes no other answer.
const MANDATORY: u32 = 1;

/// A request message.
#[derive(Debug)]
pub struct RequestMessage<'n, 'a> {
    /// The version that the client speaks.
    pub version: Version,
    /// At most so many bytes may be answered (6.3).
    pub maximum_response_size: Option<usize>,
    /// For the log; the answer does not repeat it (since 1.4, 6.18).
    pub client_correlation_value: Option<&'n str>,
    /// What happens to the rest when an item fails (6.13); Stop by default.
    pub on_error: BatchErrorContinuationOption,
    /// The items, in the order in which they run.
    pub items: Vec<RequestItem<'n, 'a>>,
}

/// An item of a batch. Its payload is read later, so that a wrong one fails alone.
#[derive(Debug)]
pub struct RequestItem<'n, 'a> {
    /// The operation's number.
    pub operation: u32,
    /// To be sent back.
    pub id: Option<&'n [u8]>,
    payload: Option<&'n Node<'a>>,
    /// A critical message extension that nobody here knows (6.16).
    unknown_extension: bool,
}

/// An answer to an item.
#[derive(Debug)]
pub struct ResponseItem<'a> {
    /// The operation's number; none where the message could not be read so far.
    pub operation: Option<u32>,
    /// As it was sent.
    pub id: Option<&'a [u8]>,
    /// What came of it.
    pub outcome: Outcome<'a>,
}

/// What came of an item.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// It was done.
    Success(Response<'a>),
    /// It failed, and changed nothing.
    Failed(Failure),
    /// It had been done, and was undone since a later one failed. 2.x answers what it would have answered.
    Undone(Option<Response<'a>>),
}

/// A message that cannot be read so far that its items could be answered one by one.
#[derive(Debug)]
pub struct Unreadable {
    /// The version to answer in.
    pub version: Version,
    /// Why.
    pub failure: Failure,
}

impl<'n, 'a> RequestMessage<'n, 'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// [`Unreadable`], which [`refusal`] makes an answer from.
    pub fn from_node(node: &'n Node<'a>) -> std::result::Result<Self, Unreadable> {
        let unreadable = |failure| Unreadable { version: Version::V1_4, failure };
        if node.tag != Tag::RequestMessage {
            return Err(unreadable(Failure::new(ResultReason::InvalidMessage, format!("the message is a {}, not a RequestMessage", node.tag))));
        }
        let mut fields = Fields::of(node).map_err(unreadable)?;
        let header = fields.required(Tag::RequestHeader).map_err(unreadable)?;
        let (major, minor) = Fields::of(header).and_then(|mut header| numbers(header.required(Tag::ProtocolVersion)?)).map_err(unreadable)?;
        let Some(version) = Version::supported(major, minor) else {
            let (oldest, newest) = (Version::V1_0, Version::V2_1);
            let failure = Failure::new(ResultReason::InvalidMessage, format!("KMIP {major}.{minor} is not spoken here; {oldest} to {newest} are"));
            // A client of a later version can read what came before it, most likely: the newest of its kind.
            let version = if major >= i32::from(newest.major) { newest } else { Version::V1_4 };
            return Err(Unreadable { version, failure: failure.since_2(ResultReason::UnsupportedProtocolVersion) });
        };
        Self::read(version, header, &mut fields).and_then(|message| fields.finish().map(|()| message)).map_err(|failure| Unreadable { version, failure })
    }

    fn read(version: Version, header: &'n Node<'a>, fields: &mut Fields<'n, 'a>) -> Result<Self> {
        let mut header = Fields::of(header)?;
        header.required(Tag::ProtocolVersion)?;
        let maximum_response_size = header.integer(Tag::MaximumResponseSize)?.map(|size| usize::try_from(size).unwrap_or(0));
        let client_correlation_value = header.text(Tag::ClientCorrelationValue)?;
        let on_error = header.enumeration(Tag::BatchErrorContinuationOption)?.unwrap_or(BatchErrorContinuationOption::Stop);
        // 2.x can insist on answers that come later (2.1, section 11.3); here they come at once.
        if header.optional(Tag::AsynchronousIndicator)?.is_some_and(|node| node.value == Value::Enumeration(MANDATORY)) {
            return Err(Failure::new(ResultReason::FeatureNotSupported, "AsynchronousIndicator is Mandatory, and nothing is done asynchronously here"));
        }
        // Items always run in order, and answers always come at once, so these change nothing. The certificate says who the client is; a credential beside it is not looked at.
        for known in [Tag::BatchOrderOption, Tag::TimeStamp, Tag::Authentication, Tag::AttestationCapableIndicator, Tag::ServerCorrelationValue] {
            header.optional(known)?;
        }
        header.all(Tag::AttestationType).for_each(drop);
        let count = integer(header.required(Tag::BatchCount)?)?;
        header.finish()?;
        let nodes: Vec<_> = fields.all(Tag::BatchItem).take(MAX_BATCH + 1).collect();
        if nodes.len() > MAX_BATCH {
            return Err(Failure::new(ResultReason::InvalidMessage, format!("a batch may have at most {MAX_BATCH} items")));
        }
        if usize::try_from(count) != Ok(nodes.len()) || nodes.is_empty() {
            return Err(Failure::new(ResultReason::InvalidMessage, format!("BatchCount is {count}, and there are {} items", nodes.len())));
        }
        let items = nodes.into_iter().map(RequestItem::from_node).collect::<Result<_>>()?;
        Ok(Self { version, maximum_response_size, client_correlation_value, on_error, items })
    }
}

impl<'n, 'a> RequestItem<'n, 'a> {
    fn from_node(node: &'n Node<'a>) -> Result<Self> {
        let mut fields = Fields::of(node)?;
        let operation = match &fields.required(Tag::Operation)?.value {
            Value::Enumeration(operation) => *operation,
            other => return Err(crate::fields::wrong_type(Tag::Operation, "Enumeration", other)),
        };
        let id = fields.optional(Tag::UniqueBatchItemID)?.map(batch_id).transpose()?;
        let payload = fields.optional(Tag::RequestPayload)?;
        // Nothing here keeps the output of an operation for a later one of the batch (2.1, section 8.3).
        let ephemeral = fields.boolean(Tag::Ephemeral)?.unwrap_or(false);
        let unknown_extension = ephemeral
            | fields
                .all(Tag::MessageExtension)
                .any(|extension| extension.find(Tag::CriticalityIndicator).is_some_and(|critical| critical.value == Value::Boolean(true)));
        fields.finish()?;
        Ok(Self { operation, id, payload, unknown_extension })
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Operation Not Supported, and whatever [`Request::from_node`] says.
    pub fn request(&self, version: Version) -> Result<Request<'n>> {
        let operation = Operation::from_number(self.operation)
            .ok_or_else(|| Failure::new(ResultReason::OperationNotSupported, format!("there is no operation 0x{:x}", self.operation)))?;
        if self.unknown_extension {
            return Err(Failure::new(
                ResultReason::FeatureNotSupported,
                "the item is ephemeral or has a critical message extension, and neither is known here",
            ));
        }
        let payload = self.payload.ok_or_else(|| Failure::new(ResultReason::InvalidMessage, "RequestPayload is missing in BatchItem"))?;
        Request::from_node(operation, payload, version)
    }
}

/// Writes a response message. `time`: seconds since 1970.
pub fn respond(version: Version, time: i64, items: &[ResponseItem<'_>], out: &mut Vec<u8>) {
    Writer::new(out).structure(Tag::ResponseMessage, |out| {
        out.structure(Tag::ResponseHeader, |out| {
            write_version(version, out);
            out.value(Tag::TimeStamp, &Value::DateTime(time));
            out.integer(Tag::BatchCount, i32::try_from(items.len()).unwrap_or(i32::MAX));
        });
        items.iter().for_each(|item| item.write(version, out));
    });
}

/// The answer to a message that cannot be read: one failed item without an operation (section 7.2).
pub fn refusal(unreadable: &Unreadable, time: i64, out: &mut Vec<u8>) {
    let item = ResponseItem { operation: None, id: None, outcome: Outcome::Failed(unreadable.failure.clone()) };
    respond(unreadable.version, time, &[item], out);
}

impl ResponseItem<'_> {
    fn write(&self, version: Version, out: &mut Writer<'_>) {
        out.structure(Tag::BatchItem, |out| {
            if let Some(operation) = self.operation {
                out.value(Tag::Operation, &Value::Enumeration(operation));
            }
            if let Some(id) = self.id {
                out.bytes(Tag::UniqueBatchItemID, id);
            }
            match &self.outcome {
                Outcome::Success(response) => {
                    out.enumeration(Tag::ResultStatus, ResultStatus::Success);
                    response.write(version, out);
                }
                Outcome::Failed(failure) => {
                    out.enumeration(Tag::ResultStatus, ResultStatus::OperationFailed);
                    out.enumeration(Tag::ResultReason, failure.reason_in(version));
                    out.text(Tag::ResultMessage, &failure.message);
                    // Of 2.x, the OASIS case BL-M-2-21 has no payload here.
                    if !failure.denied.is_empty() && version < Version::V2_0 {
                        out.structure(Tag::ResponsePayload, |out| failure.denied.iter().for_each(|field| out.node(field)));
                    }
                }
                Outcome::Undone(response) => {
                    out.enumeration(Tag::ResultStatus, ResultStatus::OperationUndone);
                    if let Some(response) = response.as_ref().filter(|_| version >= Version::V2_0) {
                        response.write(version, out);
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ttlv::decode;

    fn header(major: i32, minor: i32, count: i32) -> Node<'static> {
        let version =
            Node::structure(Tag::ProtocolVersion, vec![Node::integer(Tag::ProtocolVersionMajor, major), Node::integer(Tag::ProtocolVersionMinor, minor)]);
        Node::structure(Tag::RequestHeader, vec![version, Node::integer(Tag::BatchCount, count)])
    }

    fn item(operation: u32, payload: Vec<Node<'static>>) -> Node<'static> {
        Node::structure(Tag::BatchItem, vec![Node::new(Tag::Operation, Value::Enumeration(operation)), Node::structure(Tag::RequestPayload, payload)])
    }

    #[test]
    fn a_get_is_read() {
        let get = item(10, vec![Node::text(Tag::UniqueIdentifier, "7")]);
        let node = Node::structure(Tag::RequestMessage, vec![header(1, 2, 1), get]);
        let message = RequestMessage::from_node(&node).unwrap();
        assert_eq!((message.version, message.on_error), (Version::V1_2, BatchErrorContinuationOption::Stop));
        assert!(matches!(message.items[0].request(message.version).unwrap(), Request::Get { id: Some("7"), format: None, wrapping: None }));
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_a_version_that_the_client_may_know() {
        let wrong = [
            (Node::structure(Tag::ResponseMessage, vec![]), Version::V1_4),
            (Node::structure(Tag::RequestMessage, vec![]), Version::V1_4),
            (Node::structure(Tag::RequestMessage, vec![header(9, 0, 1), item(10, vec![])]), Version::V2_1),
            (Node::structure(Tag::RequestMessage, vec![header(1, 9, 1), item(10, vec![])]), Version::V1_4),
            (Node::structure(Tag::RequestMessage, vec![header(1, 1, 2), item(10, vec![])]), Version::V1_1),
            (Node::structure(Tag::RequestMessage, vec![header(1, 1, 0)]), Version::V1_1),
            (Node::structure(Tag::RequestMessage, vec![header(1, 1, 1), item(10, vec![]), Node::integer(Tag::BatchCount, 1)]), Version::V1_1),
        ];
        for (node, version) in wrong {
            let unreadable = RequestMessage::from_node(&node).unwrap_err();
            assert_eq!(unreadable.version, version, "{node:?}");
            let mut out = Vec::new();
            refusal(&unreadable, 5, &mut out);
            let answer = decode(&out).unwrap();
            let status = answer.find(Tag::BatchItem).unwrap().find(Tag::ResultStatus).unwrap().value.clone();
            assert_eq!(status, Value::Enumeration(1), "{node:?}");
        }
        let many: Vec<_> = std::iter::once(header(1, 1, 10_000)).chain((0..10_000).map(|_| item(10, vec![]))).collect();
        assert!(RequestMessage::from_node(&Node::structure(Tag::RequestMessage, many)).unwrap_err().failure.message.contains("1000"));
    }

    #[test]
    fn an_unknown_operation_or_field_fails_its_item_alone() {
        let node = Node::structure(
            Tag::RequestMessage,
            vec![
                header(1, 4, 3),
                item(0x99, vec![]),
                item(10, vec![Node::text(Tag::UniqueIdentifier, "7"), Node::integer(Tag::BatchCount, 1)]),
                item(10, vec![Node::text(Tag::UniqueIdentifier, "7"), Node::integer(Tag(0x54_0001), 1)]),
            ],
        );
        let message = RequestMessage::from_node(&node).unwrap();
        let reasons: Vec<_> = message.items.iter().map(|item| item.request(message.version).map_err(|failure| failure.reason).err()).collect();
        assert_eq!(reasons, [Some(ResultReason::OperationNotSupported), Some(ResultReason::InvalidField), None], "a vendor's extension may be ignored");
    }

    #[test]
    fn discover_versions_came_with_1_1() {
        for (minor, there) in [(0, false), (1, true)] {
            let node = Node::structure(Tag::RequestMessage, vec![header(1, minor, 1), item(30, vec![])]);
            let message = RequestMessage::from_node(&node).unwrap();
            assert_eq!(message.items[0].request(message.version).is_ok(), there);
        }
    }

    #[test]
    fn an_older_client_sees_no_newer_attribute_and_no_newer_reason() {
        use crate::attribute::Attribute;
        let attributes = vec![Attribute::name("n"), Attribute::new(Tag::Fresh, Value::Boolean(true)), Attribute::new(Tag::Sensitive, Value::Boolean(false))];
        let response = Response::Attributes { id: "7".to_owned(), attributes };
        for (version, count) in [(Version::V1_0, 1), (Version::V1_1, 2), (Version::V1_3, 2), (Version::V1_4, 3)] {
            let mut out = Vec::new();
            response.write(version, &mut Writer::new(&mut out));
            let shown = decode(&out).unwrap().items().iter().filter(|item| item.tag == Tag::Attribute).count();
            assert_eq!(shown, count, "{version}");
        }
        let sensitive = Failure::new(ResultReason::Sensitive, "");
        assert_eq!(sensitive.reason_in(Version::V1_3), ResultReason::PermissionDenied);
        assert_eq!(sensitive.reason_in(Version::V1_4), ResultReason::Sensitive);
        let missing = Failure::new(ResultReason::ItemNotFound, "");
        assert_eq!((missing.reason_in(Version::V1_4), missing.reason_in(Version::V2_0)), (ResultReason::ItemNotFound, ResultReason::ObjectNotFound));
    }
}
