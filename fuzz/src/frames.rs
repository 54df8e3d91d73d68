//! How an input is cut into the messages of a session: by the lengths that they announce, as the server reads a connection.

use keystead_kmip::Tag;
use keystead_kmip::ttlv::{HEADER_BYTES, Node, Value, encode};

/// An item with this tag (one of those that vendors may use) is no message: so many seconds pass.
const WAIT: Tag = Tag(0x54_ffff);

/// The type of a structure.
const STRUCTURE: u8 = 1;

/// The messages of an input. What announces more than there is ends where the input ends.
pub fn split(mut input: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while !input.is_empty() {
        let announced = input.get(4..HEADER_BYTES).and_then(|length| length.try_into().ok()).map_or(0, u32::from_be_bytes);
        let mut end = usize::try_from(announced).unwrap_or(usize::MAX).saturating_add(HEADER_BYTES);
        // A message's length is taken as it is, also a wrong one; other items are padded.
        if input.get(3) != Some(&STRUCTURE) {
            end = end.checked_next_multiple_of(8).unwrap_or(usize::MAX);
        }
        let (frame, rest) = input.split_at(end.min(input.len()));
        frames.push(frame);
        input = rest;
    }
    frames
}

/// An item that lets time pass.
pub fn wait(seconds: u32) -> Node<'static> {
    Node::new(WAIT, Value::Interval(seconds))
}

/// How many seconds pass, where the frame says so.
pub fn waited(frame: &Node<'_>) -> Option<u32> {
    match frame.value {
        Value::Interval(seconds) if frame.tag == WAIT => Some(seconds),
        _ => None,
    }
}

/// The bytes of messages, one after the other.
pub fn join(messages: &[Node<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| encode(message, &mut bytes));
    bytes
}
