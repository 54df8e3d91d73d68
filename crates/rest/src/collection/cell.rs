//! One value of a record, as it lies in the record: what filters compare, what lists are sorted by, and what is written into an answer. Nothing is copied for it.

use crate::field::{As, duration_text};
use jiff::Timestamp;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;
use uuid::Uuid;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// The record has no such value.
    Null,
    /// Text, or a word.
    Text(Cow<'a, str>),
    /// A whole number.
    Integer(i64),
    /// A boolean.
    Bool(bool),
    /// A UUID.
    Uuid(Uuid),
    /// A moment, to the second: finer than what is shown, nothing is compared.
    Time(Timestamp),
    /// A duration.
    Duration(Duration),
    /// A list of texts.
    Texts(Cow<'a, [String]>),
    /// An object, or a list of objects, whose members are declared with [`As::Objects`] or not at all.
    Json(Json),
}

impl<'a> Cell<'a> {
    /// A text.
    pub fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// A text that is made for the moment.
    pub fn made(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    /// A text that may not be there.
    pub fn maybe(text: Option<&'a String>) -> Self {
        text.map_or(Self::Null, |text| Self::text(text))
    }

    /// A number that fits every unsigned type in use; what does not is cut to the largest.
    pub fn number(number: impl TryInto<i64>) -> Self {
        Self::Integer(number.try_into().unwrap_or(i64::MAX))
    }

    /// A moment, cut to the second.
    pub fn time(at: Timestamp) -> Self {
        Self::Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
    }

    /// A list of texts; an empty one is not there.
    pub fn texts(texts: &'a [String]) -> Self {
        if texts.is_empty() { Self::Null } else { Self::Texts(Cow::Borrowed(texts)) }
    }

    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::Json(Json::Null))
    }

    /// Writes the value as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Writing to memory does not fail.
        let _ = match self {
            Self::Null => out.write_all(b"null"),
            // Most texts are names and words, which need no escapes.
            Self::Text(text) if is_plain(text) => {
                out.push(b'"');
                out.extend_from_slice(text.as_bytes());
                out.push(b'"');
                Ok(())
            }
            Self::Text(text) => serde_json::to_writer(&mut *out, text).map_err(Into::into),
            Self::Integer(number) => serde_json::to_writer(&mut *out, number).map_err(Into::into),
            Self::Bool(value) => out.write_all(if *value { b"true" } else { b"false" }),
            Self::Uuid(uuid) => {
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                out.push(b'"');
                out.extend_from_slice(uuid.hyphenated().encode_lower(&mut text).as_bytes());
                out.push(b'"');
                Ok(())
            }
            Self::Time(at) => write!(out, "\"{}\"", time_text(*at)),
            Self::Duration(duration) => write!(out, "\"{}\"", duration_text(*duration)),
            Self::Texts(texts) => serde_json::to_writer(&mut *out, texts).map_err(Into::into),
            Self::Json(json) => serde_json::to_writer(&mut *out, json).map_err(Into::into),
        };
    }

    /// The value as text, for patterns. Lists and objects have none: their members are looked at.
    pub fn with_text<R>(&self, look: impl FnOnce(&str) -> R) -> Option<R> {
        let mut made = String::new();
        let _ = match self {
            Self::Text(text) => return Some(look(text)),
            Self::Null | Self::Texts(_) | Self::Json(_) => return None,
            Self::Integer(number) => write!(made, "{number}"),
            Self::Bool(value) => write!(made, "{value}"),
            Self::Uuid(uuid) => write!(made, "{uuid}"),
            Self::Time(at) => write!(made, "{}", time_text(*at)),
            Self::Duration(duration) => write!(made, "{}", duration_text(*duration)),
        };
        Some(look(&made))
    }

    /// The order of two values of one field: what is not there comes first.
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            (Self::Integer(one), Self::Integer(other)) => one.cmp(other),
            (Self::Bool(one), Self::Bool(other)) => one.cmp(other),
            (Self::Uuid(one), Self::Uuid(other)) => one.cmp(other),
            (Self::Time(one), Self::Time(other)) => one.cmp(other),
            (Self::Duration(one), Self::Duration(other)) => one.cmp(other),
            (Self::Texts(one), Self::Texts(other)) => one.cmp(other),
            _ => self.is_null().cmp(&other.is_null()).reverse(),
        }
    }

    /// The value as a part of a position, from which [`Cell::of_position`] makes it again. Lists and objects are no part of one.
    pub fn position(&self) -> Json {
        match self {
            Self::Null | Self::Texts(_) | Self::Json(_) => Json::Null,
            Self::Text(text) => Json::String(text.to_string()),
            Self::Integer(number) => (*number).into(),
            Self::Bool(value) => (*value).into(),
            Self::Uuid(uuid) => Json::String(uuid.to_string()),
            Self::Time(at) => at.as_second().into(),
            Self::Duration(duration) => u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into(),
        }
    }

    /// Reads a part of a position. `None`: it is none of this kind.
    pub fn of_position(of: As, json: &Json) -> Option<Cell<'static>> {
        Some(match (of, json) {
            (_, Json::Null) => Cell::Null,
            (As::Text | As::Word(_), Json::String(text)) => Cell::made(text.clone()),
            (As::Uuid, Json::String(text)) => Cell::Uuid(text.parse().ok()?),
            (As::Integer, number) => Cell::Integer(number.as_i64()?),
            (As::Bool, value) => Cell::Bool(value.as_bool()?),
            (As::Time, number) => Cell::Time(Timestamp::from_second(number.as_i64()?).ok()?),
            (As::Duration, number) => Cell::Duration(Duration::from_millis(number.as_u64()?)),
            _ => return None,
        })
    }
}

/// Whether a text stands in JSON as it is (RFC 8259, section 7).
fn is_plain(text: &str) -> bool {
    // All bytes are looked at, many at a time: most texts are plain to their end.
    !text.bytes().fold(false, |other, byte| other | (byte < b' ') | (byte == b'"') | (byte == b'\\'))
}

/// ISO 8601 with an offset, to the second, as ONTAP writes it.
pub fn time_text(at: Timestamp) -> impl std::fmt::Display {
    at.strftime("%Y-%m-%dT%H:%M:%S+00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> Vec<(As, Cell<'static>, &'static str)> {
        vec![
            (As::Text, Cell::text("a\"b\n"), r#""a\"b\n""#),
            (As::Text, Cell::text("a\\b"), r#""a\\b""#),
            (As::Text, Cell::text("plain \u{fc}\u{7f}/"), "\"plain \u{fc}\u{7f}/\""),
            (As::Integer, Cell::Integer(-3), "-3"),
            (As::Bool, Cell::Bool(true), "true"),
            (As::Uuid, Cell::Uuid(Uuid::from_u128(1)), r#""00000000-0000-0000-0000-000000000001""#),
            (As::Time, Cell::time("2026-11-24T10:00:00.9Z".parse().unwrap()), r#""2026-11-24T10:00:00+00:00""#),
            (As::Duration, Cell::Duration(Duration::from_secs(3_600)), r#""60m""#),
        ]
    }

    #[test]
    fn what_is_written_is_json_and_a_position_brings_it_back() {
        for (of, cell, json) in cells() {
            let mut out = Vec::new();
            cell.write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), json);
            assert_eq!(Cell::of_position(of, &cell.position()).as_ref(), Some(&cell));
            assert_eq!(cell.order(&cell), Ordering::Equal);
            assert_eq!(Cell::Null.order(&cell), Ordering::Less);
            assert_eq!(cell.order(&Cell::Null), Ordering::Greater);
        }
        assert_eq!(Cell::of_position(As::Uuid, &Json::String("x".to_owned())), None);
        assert_eq!(Cell::of_position(As::Integer, &Json::String("1".to_owned())), None);
    }
}
