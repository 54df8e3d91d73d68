//! Syslog messages (RFC 5424), and how they are cut apart on a stream (RFC 6587, section 3.4.1: octet counting; RFC 5425 has the same over TLS).

use crate::chain;
use crate::record::{Record, State};
use std::fmt::Write as _;

/// Facility 13, log audit (RFC 5424, section 6.2.1).
const FACILITY: u32 = 13;
/// `sequenceId` goes up to here and begins again at 1 (section 7.3.1).
const MOST_SEQUENCE: u64 = 2_147_483_647;

/// What stands in the message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// The line as it stands in the log: JSON, with its place in the chain.
    #[default]
    Json,
    /// A line for people.
    Text,
}

/// The message of a line of the log, with its length before it.
pub fn frame(line: &[u8], format: Format, version: &str, process: u32) -> Vec<u8> {
    let message = message(line, format, version, process);
    let mut framed = format!("{} ", message.len()).into_bytes();
    framed.extend_from_slice(&message);
    framed
}

fn message(line: &[u8], format: Format, version: &str, process: u32) -> Vec<u8> {
    let record = chain::parse(line);
    let (state, index) = record.as_ref().map_or((State::Error, 0), |record| (record.state, record.index));
    let severity = match state {
        State::Pending => 7,
        State::Success => 6,
        State::Error => 4,
    };
    let time = record.as_ref().map_or_else(|| "-".to_owned(), |record| record.time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string());
    let host = record.as_ref().map_or_else(String::new, |record| printable(&record.node.name, 255));
    let kind = record.as_ref().map_or("-", |record| record.application.text());
    let mut head = format!("<{}>1 {time} {} keystead {process} {kind} ", FACILITY * 8 + severity, if host.is_empty() { "-" } else { &host });
    let sequence = (index.max(1) - 1) % MOST_SEQUENCE + 1;
    let _ = write!(head, "[meta sequenceId=\"{sequence}\"][origin software=\"keystead\" swVersion=\"{}\"] ", printable(version, 32));
    let mut message = head.into_bytes();
    match (format, record) {
        (Format::Text, Some(record)) => message.extend_from_slice(text(&record).as_bytes()),
        (Format::Json, _) | (_, None) => message.extend_from_slice(line),
    }
    message
}

/// A line for people. Control characters, which a peer may have sent, are no part of it.
fn text(record: &Record) -> String {
    let mut text = format!("{} {}: {}", record.application.text(), record.state.text(), record.input);
    // What others have chosen is quoted: else a name could look like further fields.
    let quoted = |text: &String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(text, ", {name} {value}");
        }
    };
    add("user", record.user.as_ref().map(quoted));
    add("from", record.location.map(|location| location.to_string()));
    add("SVM", record.svm.as_ref().map(|svm| quoted(&svm.name)));
    add("object", record.object.map(|object| object.to_string()));
    add("job", record.job.map(|job| job.to_string()));
    add("count", record.count.map(|count| count.to_string()));
    add("code", record.code.clone());
    add("message", record.message.as_ref().map(quoted));
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// As PRINTUSASCII wants it (section 6), also inside a parameter's quotes.
fn printable(text: &str, most: usize) -> String {
    text.chars().filter(|character| character.is_ascii_graphic() && !matches!(character, '"' | '\\' | ']')).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Link;
    use crate::record::{Application, Named};

    fn line() -> Vec<u8> {
        let mut record = Record::new(Application::Http, State::Error, "POST /api/svm/svms");
        record.time = "2026-11-24T10:00:00.123456789Z".parse().unwrap();
        record.node = Named { uuid: uuid::Uuid::nil(), name: "no de\"1".to_owned() };
        record.message = Some("two\nlines".to_owned());
        let mut out = Vec::new();
        chain::append(&Link { index: 6, hash: String::new() }, &mut record, &mut out).unwrap();
        out.pop();
        out
    }

    #[test]
    fn a_message_is_what_rfc_5424_says() {
        let line = line();
        let framed = String::from_utf8(frame(&line, Format::Json, "0.1.0", 42)).unwrap();
        let (length, message) = framed.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), message.len());
        let head = "<108>1 2026-11-24T10:00:00.123456Z node1 keystead 42 http [meta sequenceId=\"7\"][origin software=\"keystead\" swVersion=\"0.1.0\"] ";
        assert_eq!(message.strip_prefix(head).unwrap().as_bytes(), line);
        let framed = String::from_utf8(frame(&line, Format::Text, "0.1.0", 42)).unwrap();
        assert!(framed.ends_with("] http error: POST /api/svm/svms, message \"two lines\""), "{framed}");
    }

    #[test]
    fn a_name_does_not_look_like_further_fields() {
        let mut record = Record::new(Application::Kmip, State::Success, "Get");
        record.user = Some(r#"x", from 1.2.3.4, SVM "svm2\"#.to_owned());
        assert_eq!(text(&record), r#"kmip success: Get, user "x\", from 1.2.3.4, SVM \"svm2\\""#);
    }

    #[test]
    fn the_sequence_begins_again_at_one() {
        let mut record = Record::new(Application::Http, State::Success, "x");
        for (index, sequence) in [(MOST_SEQUENCE, MOST_SEQUENCE), (MOST_SEQUENCE + 1, 1)] {
            let mut out = Vec::new();
            chain::append(&Link { index: index - 1, hash: String::new() }, &mut record, &mut out).unwrap();
            let framed = String::from_utf8(frame(&out, Format::Json, "1", 1)).unwrap();
            assert!(framed.contains(&format!("sequenceId=\"{sequence}\"")), "{framed}");
        }
    }
}
