//! A session: the messages of an input go to the server one after the other, as a client's would, and each answer must be a proper one.

use crate::frames::{split, waited};
use crate::messages::{batch, revoke};
use crate::scene::{Aws, FOREIGN, FOREIGN_MARKS, Scene};
use keystead_kmip::enumeration::{BatchErrorContinuationOption as OnError, Enumeration as _, Operation, ResultReason, ResultStatus, RevocationReasonCode};
use keystead_kmip::message::RequestMessage;
use keystead_kmip::ttlv::{Node, Value, decode, encode};
use keystead_kmip::{Tag, Version};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// The messages that are sent of an input. Were there no bound, a few bytes each would make a slow input that tries nothing new.
const MOST_MESSAGES: usize = 32;
/// The objects, destroyed ones, with which a scene ends: a search looks at all of them.
const MOST_OBJECTS: usize = 400;
/// What stands before the last two digits of an identifier that [`crate::messages::id`] has made.
const STANDS_FOR: &[u8] = b"00000000-0000-0000-0000-0000000000";
/// What stands for an object of another SVM, as it is in an input.
const STANDS_FOR_FOREIGN: &str = "00000000-0000-0000-0000-0000000000ff";
/// The operation Import, as an item of a message.
const IMPORT: &[u8] = &[0x42, 0x00, 0x5c, 5, 0, 0, 0, 4, 0, 0, 0, 42];

/// What came of the items of a session.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How many were done.
    pub successes: usize,
    /// How many failed or were undone.
    pub failures: usize,
}

/// A server, and all that it needs.
pub struct Session {
    runtime: Runtime,
    aws: Aws,
    scene: Option<Scene>,
    /// How many inputs there were.
    count: usize,
}

impl Session {
    /// Starts AWS KMS and a key manager.
    pub fn start() -> Self {
        // One thread: what the same input does, it does in the same order.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let aws = runtime.block_on(Aws::start());
        Self { runtime, aws, scene: None, count: 0 }
    }

    /// Sends what an input holds, and takes away what it has made.
    pub fn run(&mut self, input: &[u8]) -> Outcome {
        let Self { runtime, aws, scene, count } = self;
        *count += 1;
        runtime.block_on(async {
            let current = match scene.take() {
                Some(scene) => scene,
                None => Scene::start(aws).await,
            };
            let outcome = serve(&current, input).await;
            let version = Version::SUPPORTED[*count % Version::SUPPORTED.len()];
            if tidy_up(&current, version).await > MOST_OBJECTS {
                current.stop().await;
            } else {
                *scene = Some(current);
            }
            outcome
        })
    }
}

async fn serve(scene: &Scene, input: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    // libFuzzer learns texts from comparisons, so that in time an input may itself say what no answer may show.
    let marks: Vec<&str> = FOREIGN_MARKS.into_iter().filter(|mark| !contains(input, mark)).collect();
    let prefix = scene.random.next_session();
    scene.clock.start_again();
    for frame in split(input).into_iter().take(MOST_MESSAGES) {
        let mut request = frame.to_vec();
        // Who imports under another SVM's identifier has an object of its own there, which could not be told from the other's.
        let foreign = if contains_bytes(&request, IMPORT) { STANDS_FOR_FOREIGN } else { &scene.foreign };
        put_identifiers(&mut request, &prefix, foreign);
        match decode(&request).ok().as_ref().and_then(waited) {
            Some(seconds) => scene.clock.pass(seconds),
            None => {
                let answer = keystead_ekmip::answer_bytes(&scene.manager, scene.svm, &request).await;
                assert!(!marks.iter().any(|mark| contains(&answer, mark)), "an answer shows what belongs to another SVM");
                check(&request, &answer, &scene.foreign, &mut outcome);
            }
        }
    }
    outcome
}

fn contains_bytes(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Whether a text stands in bytes. The first byte is looked at first: libFuzzer follows each comparison of texts, which takes time, and learns from it, which is not wanted here.
fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part[0] == text.as_bytes()[0] && part == text.as_bytes())
}

/// Writes the session's identifiers where those stand that stand for them. They have the same length, so no other byte changes.
fn put_identifiers(request: &mut [u8], prefix: &str, foreign: &str) {
    let length = foreign.len();
    let last = format!("{FOREIGN:02x}");
    for at in 0..(request.len() + 1).saturating_sub(length) {
        let place = &mut request[at..at + length];
        if place[0] != STANDS_FOR[0] || !place.starts_with(STANDS_FOR) {
            continue;
        }
        if place.ends_with(last.as_bytes()) {
            place.copy_from_slice(foreign.as_bytes());
        } else {
            place[..prefix.len()].copy_from_slice(prefix.as_bytes());
        }
    }
}

/// What every answer must be.
fn check(request: &[u8], answer: &[u8], foreign: &str, outcome: &mut Outcome) {
    let node = decode(answer).expect("an answer is TTLV");
    let mut again = Vec::with_capacity(answer.len());
    encode(&node, &mut again);
    assert_eq!(again, answer, "an answer has one encoding");
    assert_eq!(node.tag, Tag::ResponseMessage);
    let (header, items) = node.items().split_first().expect("an answer has a header");
    assert_eq!(header.tag, Tag::ResponseHeader);
    let version = version(header);
    assert!(!items.is_empty(), "an answer has an item");
    assert_eq!(header.find(Tag::BatchCount).map(|count| &count.value), Some(&Value::Integer(i32::try_from(items.len()).unwrap())));
    let statuses: Vec<ResultStatus> = items.iter().map(|item| check_item(item, version, foreign)).collect();
    let successes = statuses.iter().filter(|status| **status == ResultStatus::Success).count();
    outcome.successes += successes;
    outcome.failures += statuses.len() - successes;

    let Ok(request) = decode(request) else {
        assert_eq!(statuses, [ResultStatus::OperationFailed]);
        return;
    };
    let Ok(message) = RequestMessage::from_node(&request) else {
        assert_eq!(statuses, [ResultStatus::OperationFailed]);
        return;
    };
    assert_eq!(version, message.version, "an answer has the version of its request");
    assert!(items.len() <= message.items.len());
    for (asked, answered) in message.items.iter().zip(items) {
        assert_eq!(answered.find(Tag::Operation).map(|operation| &operation.value), Some(&Value::Enumeration(asked.operation)));
        let id = answered.find(Tag::UniqueBatchItemID).map(|id| id.value.clone());
        assert_eq!(id, asked.id.map(|id| Value::ByteString(id.into())));
    }
    // Answers that are left out for want of space count as failures, and have other causes.
    if message.maximum_response_size.is_some() {
        return;
    }
    let failed = statuses.iter().position(|status| *status == ResultStatus::OperationFailed);
    match (message.on_error, failed) {
        (OnError::Continue, _) | (_, None) => assert_eq!(items.len(), message.items.len(), "each item is answered"),
        (OnError::Stop, Some(at)) => assert_eq!(at + 1, items.len(), "nothing runs after a failure"),
        (OnError::Undo, Some(_)) => assert_eq!(successes, 0, "a batch is undone as a whole"),
    }
}

fn version(header: &Node<'_>) -> Version {
    let version = header.find(Tag::ProtocolVersion).expect("an answer has a version");
    let number = |tag| match version.find(tag).map(|number| &number.value) {
        Some(Value::Integer(number)) => *number,
        _ => panic!("the version has no {tag}"),
    };
    Version::supported(number(Tag::ProtocolVersionMajor), number(Tag::ProtocolVersionMinor)).expect("the version is one that is spoken")
}

fn check_item(item: &Node<'_>, version: Version, foreign: &str) -> ResultStatus {
    assert_eq!(item.tag, Tag::BatchItem);
    let enumeration = |tag| match item.find(tag).map(|member| &member.value) {
        Some(Value::Enumeration(number)) => Some(*number),
        _ => None,
    };
    let status = enumeration(Tag::ResultStatus).and_then(ResultStatus::from_number).expect("an item has a status");
    let payload = item.find(Tag::ResponsePayload);
    // A Check that is denied says in 1.x what was denied (1.4, section 4.10), and what was undone says in 2.x what it would have answered.
    let may_have_payload = match status {
        ResultStatus::OperationFailed => version < Version::V2_0 && enumeration(Tag::Operation) == Some(Operation::Check.number()),
        ResultStatus::OperationUndone => version >= Version::V2_0,
        _ => true,
    };
    assert!(payload.is_none() || may_have_payload, "what fails has no payload");
    assert!(payload.is_some() || status != ResultStatus::Success, "what succeeds has a payload");
    if status == ResultStatus::OperationFailed {
        let reason = enumeration(Tag::ResultReason).and_then(ResultReason::from_number).expect("a failure has a reason");
        let message = item.find(Tag::ResultMessage).map(|message| &message.value);
        assert!(matches!(message, Some(Value::TextString(text)) if !text.is_empty()), "a failure says why");
        // Only the store, or a mistake of ours, could be the reason.
        assert_ne!(reason, ResultReason::GeneralFailure, "{message:?}");
    }
    let ids = payload.iter().flat_map(|payload| payload.items()).filter(|item| item.tag == Tag::UniqueIdentifier);
    for id in ids {
        assert!(!matches!(&id.value, Value::TextString(id) if id == foreign), "an operation reached an object of another SVM");
    }
    status
}

/// Destroys what a session has left, after a look at it: whatever clients have given an object, it can be shown and destroyed. Says how many objects there are, destroyed ones.
async fn tidy_up(scene: &Scene, version: Version) -> usize {
    let objects = scene.manager.keys(scene.svm).find(None).await.unwrap();
    for object in objects.iter().filter(|object| !object.destroyed) {
        tidy_away(scene, version, object.id).await;
    }
    objects.len()
}

async fn tidy_away(scene: &Scene, version: Version, id: Uuid) {
    let id = || Node::text(Tag::UniqueIdentifier, id.to_string());
    let ask = async |version, items| {
        let request = crate::frames::join(&[batch(version, Some(OnError::Continue), items)]);
        let answer = keystead_ekmip::answer_bytes(&scene.manager, scene.svm, &request).await;
        let node = decode(&answer).expect("what is stored can be shown").into_owned();
        let success = Value::Enumeration(ResultStatus::Success.number());
        node.items().iter().skip(1).map(|item| item.find(Tag::ResultStatus).is_some_and(|status| status.value == success)).collect::<Vec<_>>()
    };
    // Templates do not exist for 2.x, so that only 1.x can show and end them all.
    let shown = ask(version, vec![(Operation::GetAttributes, vec![id()])]).await;
    assert!(shown == [true] || version >= Version::V2_0);
    // Objects without a state, as templates, cannot be revoked.
    let items = vec![(Operation::GetAttributes, vec![id()]), revoke(id(), RevocationReasonCode::KeyCompromise), (Operation::Destroy, vec![id()])];
    let done = ask(Version::V1_4, items).await;
    assert!(matches!(done[..], [true, _, true]), "{done:?}");
}
