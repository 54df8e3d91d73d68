//! A resource's fields, declared once: type, bounds, who may set them, how they are shown. Reading, errors, filters, output and the OpenAPI document follow from the declaration.

use crate::body::Unknown;
use crate::collection::cell::Cell;
use crate::resource::Resource;
use crate::values::Values;
use jiff::SignedDuration;
use keystead_manager::{Code, Error, Result};
use secrecy::SecretString;
use serde_json::Value as Json;
use std::time::Duration;
use uuid::Uuid;

/// One field of a record of type `T`.
#[derive(Debug)]
pub struct Field<T: 'static> {
    /// What is the same for whatever has fields: also for a body alone.
    pub spec: Spec,
    /// Its value in a record. Never called for what is never shown.
    pub get: for<'a> fn(&'a T) -> Cell<'a>,
}

/// The declaration of a field.
#[derive(Debug)]
pub struct Spec {
    /// The dotted path.
    pub path: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// What a POST may do with it.
    pub post: Post,
    /// What a PATCH may do with it.
    pub patch: Patch,
    /// When a GET shows it.
    pub show: Show,
    /// What it is, in one line.
    pub doc: &'static str,
}

/// What a field holds, for those who filter, sort and describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// Text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number.
    Integer,
    /// A boolean.
    Bool,
    /// A UUID.
    Uuid,
    /// A moment, ISO 8601 with an offset.
    Time,
    /// A duration as text (`60m`).
    Duration,
    /// A list of texts.
    Texts,
    /// A list of objects with these members, by dotted path.
    Objects(&'static [(&'static str, As)]),
    /// An object that is declared no further.
    Object,
}

impl<T> Field<T> {
    /// A field that is only ever shown. A POST reads past it, since clients send back what they were shown.
    pub const fn shown(path: &'static str, of: As, show: Show, get: for<'a> fn(&'a T) -> Cell<'a>, doc: &'static str) -> Self {
        Self { spec: Spec { path, kind: Kind::Shown(of), post: Post::Ignored, patch: Patch::No, show, doc }, get }
    }

    /// The same of what is another value each time that one looks.
    pub const fn moving(path: &'static str, of: As, show: Show, get: for<'a> fn(&'a T) -> Cell<'a>, doc: &'static str) -> Self {
        Self { spec: Spec { path, kind: Kind::Moving(of), post: Post::Ignored, patch: Patch::No, show, doc }, get }
    }

    /// A field that can be given.
    pub const fn given(spec: Spec, get: for<'a> fn(&'a T) -> Cell<'a>) -> Self {
        Self { spec, get }
    }

    /// A field that is taken in and never shown.
    pub const fn hidden(path: &'static str, kind: Kind, post: Post, patch: Patch, doc: &'static str) -> Self {
        Self { spec: Spec { path, kind, post, patch, show: Show::Never, doc }, get: |_| Cell::Null }
    }
}

impl Kind {
    /// What a value of this kind is shown as.
    pub const fn of(self) -> As {
        match self {
            Self::Text(..) | Self::Secret(_) => As::Text,
            Self::Lifetime(_) => As::Time,
            Self::Integer(..) => As::Integer,
            Self::Bool => As::Bool,
            Self::Word(words) => As::Word(words),
            Self::Uuid => As::Uuid,
            Self::Duration(..) => As::Duration,
            Self::Texts => As::Texts,
            Self::Objects(_, members) => As::Objects(members),
            Self::Shown(of) | Self::Moving(of) => of,
        }
    }
}

/// Type and bounds of a field.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Text, with the least and the largest number of characters, and a rule.
    Text(usize, usize, Rule),
    /// How long something is valid, or until when, as text of so many characters at the most: who is asked to make it reads it. Shown as the moment of its end.
    Lifetime(usize),
    /// Text that must never be seen again; not empty.
    Secret(usize),
    /// A whole number with its bounds.
    Integer(i64, i64),
    /// A boolean, in the spellings that clients use.
    Bool,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A UUID.
    Uuid,
    /// A duration as text (`"60m"`), with its bounds in seconds.
    Duration(u64, u64),
    /// A list of texts.
    Texts,
    /// A list of objects, each read by a declaration of its own, and what is shown of them.
    Objects(&'static Resource<()>, &'static [(&'static str, As)]),
    /// A field that is only ever shown, as this.
    Shown(As),
    /// The same of what is another value each time that one looks: no list is sorted by it.
    Moving(As),
}

/// A rule for a text beyond its length.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The rule in words.
    pub text: &'static str,
    /// Whether a text follows it.
    pub holds: fn(&str) -> bool,
}

/// Any text but one with control characters.
pub const ANY: Rule = Rule { text: "no control characters", holds: |text| !text.chars().any(char::is_control) };

/// What a POST may do with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Post {
    /// It must be there.
    Required,
    /// It must be there where the field of this path is not.
    RequiredUnless(&'static str),
    /// It may be there.
    Optional,
    /// It is accepted and ignored, with a `Warning`: clients send back what they were shown.
    Ignored,
    /// It is not known.
    Unknown,
}

/// What a PATCH may do with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// It may be there, but cannot be cleared.
    Yes,
    /// It may be there; null or empty text clears it.
    Clearable,
    /// 262203.
    No,
}

/// When a GET shows a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Always.
    Key,
    /// With `fields=*`, and in a GET of one record.
    Standard,
    /// When it is named, or with `fields=**`.
    Advanced,
    /// Only when it is named, by itself or with the object in which it stands.
    Named,
    /// Only when it is named by itself: it costs too much to be had by the way, or must not come into a URL. No filter, and not sortable.
    Exact,
    /// Never: 262249 when asked for, 262250 as a filter, 262202 in a URL.
    Never,
}

/// The value of a field in a body.
#[derive(Debug)]
pub enum Value {
    /// Text, or a word.
    Text(String),
    /// A secret.
    Secret(SecretString),
    /// A whole number.
    Integer(i64),
    /// A boolean.
    Bool(bool),
    /// A UUID.
    Uuid(Uuid),
    /// A duration.
    Duration(Duration),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of objects.
    Objects(Vec<Values>),
    /// The field is to be cleared.
    Clear,
}

impl Spec {
    /// Reads a value. `None`: as if the field had not been there.
    ///
    /// # Errors
    /// 262247 wrong type, 262245 out of bounds, 262254 and 262255 an array where none belongs or the other way round; each with the path as target. Of an object in a list, those of its own fields.
    pub fn read(&self, value: Json) -> Result<Option<Value>> {
        let wrong = |what: &str| Err(Error::with(Code::InvalidValue, what).target(self.path));
        let bounds = |what: String| Err(Error::with(Code::OutOfBounds, what).target(self.path));
        match (self.kind, value) {
            (Kind::Shown(_) | Kind::Moving(_), _) | (_, Json::Null) => Ok(None),
            (Kind::Texts, Json::Array(list)) => {
                let texts: Option<Vec<String>> = list.into_iter().map(|entry| if let Json::String(text) = entry { Some(text) } else { None }).collect();
                texts.map_or_else(|| wrong("it must be a list of texts"), |texts| Ok(Some(Value::Texts(texts))))
            }
            (Kind::Objects(of, _), Json::Array(list)) => {
                list.into_iter().map(|entry| self.read_object(of, entry)).collect::<Result<_>>().map(Value::Objects).map(Some)
            }
            (Kind::Texts | Kind::Objects(..), _) => Err(Error::new(Code::ArrayExpected).target(self.path)),
            (_, Json::Array(_)) => Err(Error::new(Code::ArrayNotExpected).target(self.path)),
            (Kind::Text(low, high, rule), Json::String(text)) => {
                let length = text.chars().count();
                if length < low || length > high {
                    return bounds(format!("it must have {low} to {high} characters, and has {length}"));
                }
                if (rule.holds)(&text) { Ok(Some(Value::Text(text))) } else { wrong(rule.text) }
            }
            (Kind::Lifetime(high), Json::String(text)) => {
                if (2..=high).contains(&text.chars().count()) {
                    Ok(Some(Value::Text(text)))
                } else {
                    bounds(format!("it must have 2 to {high} characters"))
                }
            }
            (Kind::Secret(high), Json::String(text)) => {
                let length = text.chars().count();
                if length == 0 || length > high {
                    return bounds(format!("it must have 1 to {high} characters"));
                }
                Ok(Some(Value::Secret(SecretString::from(text))))
            }
            (Kind::Text(..) | Kind::Lifetime(_) | Kind::Secret(_), _) => wrong("it must be text"),
            (Kind::Integer(low, high), Json::Number(number)) => match number.as_i64() {
                Some(value) if (low..=high).contains(&value) => Ok(Some(Value::Integer(value))),
                Some(_) => bounds(format!("it must be from {low} to {high}")),
                None if number.is_u64() => bounds(format!("it must be from {low} to {high}")),
                None => wrong("it must be a whole number"),
            },
            (Kind::Integer(..), _) => wrong("it must be a whole number"),
            (Kind::Bool, value) => read_bool(&value).map_or_else(|| wrong("it must be true or false"), |value| Ok(value.map(Value::Bool))),
            (Kind::Word(words), Json::String(text)) if words.contains(&text.as_str()) => Ok(Some(Value::Text(text))),
            (Kind::Word(words), _) => wrong(&format!("it must be one of: {}", words.join(", "))),
            (Kind::Uuid, Json::String(text)) => text.parse().map_or_else(|_| wrong("it must be a UUID"), |uuid| Ok(Some(Value::Uuid(uuid)))),
            (Kind::Uuid, _) => wrong("it must be a UUID"),
            (Kind::Duration(low, high), Json::String(text)) => {
                let parsed = text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
                match parsed {
                    Some(duration) if (Duration::from_secs(low)..=Duration::from_secs(high)).contains(&duration) => Ok(Some(Value::Duration(duration))),
                    Some(_) => bounds(format!("it must be from {low} s to {high} s")),
                    None => wrong("it must be a duration such as \"60m\" or \"3s\""),
                }
            }
            (Kind::Duration(..), _) => wrong("it must be a duration such as \"60m\" or \"3s\""),
        }
    }

    /// Reads an object of a list. Its fields are named as members of this one.
    fn read_object(&self, of: &Resource<()>, entry: Json) -> Result<Values> {
        let Json::Object(object) = entry else { return Err(Error::with(Code::InvalidValue, "it must be a list of objects").target(self.path)) };
        of.read_post(object, Unknown::Refused).map_err(|error| {
            let target = error.target.as_ref().map_or_else(|| self.path.to_owned(), |member| format!("{}.{member}", self.path));
            error.target(target)
        })
    }
}

/// Reads a boolean of a body: JSON's, `true` or `false` as text in any case, 1 or 0. Empty text: not given. `None`: no boolean.
fn read_bool(value: &Json) -> Option<Option<bool>> {
    match value {
        Json::Bool(value) => Some(Some(*value)),
        Json::String(text) if text.is_empty() => Some(None),
        Json::String(text) => bool_of_text(text).map(Some),
        Json::Number(number) => match number.as_i64() {
            Some(1) => Some(Some(true)),
            Some(0) => Some(Some(false)),
            _ => None,
        },
        _ => None,
    }
}

/// Reads a boolean of a URL: Python's clients write `True`.
pub fn bool_of_text(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Writes a duration as the settings do: whole minutes as `60m`, else seconds.
pub fn duration_text(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(60) && duration.subsec_nanos() == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(kind: Kind, value: Json) -> std::result::Result<Option<Value>, Code> {
        let field = Spec { path: "a.b", kind, post: Post::Optional, patch: Patch::Yes, show: Show::Standard, doc: "" };
        field.read(value).map_err(|error| {
            assert_eq!(error.target.as_deref(), Some("a.b"));
            error.code
        })
    }

    #[test]
    fn booleans_come_in_many_spellings() {
        for value in [json!(true), json!("true"), json!("True"), json!("TRUE"), json!(1), json!("1")] {
            assert!(matches!(read(Kind::Bool, value.clone()), Ok(Some(Value::Bool(true)))), "{value}");
        }
        for value in [json!(false), json!("False"), json!(0)] {
            assert!(matches!(read(Kind::Bool, value), Ok(Some(Value::Bool(false)))));
        }
        assert!(matches!(read(Kind::Bool, json!("")), Ok(None)));
        for value in [json!("yes"), json!(2), json!(1.5), json!({})] {
            assert!(matches!(read(Kind::Bool, value), Err(Code::InvalidValue)));
        }
    }

    #[test]
    fn numbers_are_whole_and_within_their_bounds() {
        let kind = Kind::Integer(1, 65_535);
        assert!(matches!(read(kind, json!(443)), Ok(Some(Value::Integer(443)))));
        for value in [json!(0), json!(65_536), json!(-1), json!(u64::MAX)] {
            assert!(matches!(read(kind, value), Err(Code::OutOfBounds)));
        }
        for value in [json!("443"), json!(1.5), json!(true), json!({})] {
            assert!(matches!(read(kind, value), Err(Code::InvalidValue)));
        }
        assert!(matches!(read(kind, json!([1])), Err(Code::ArrayNotExpected)));
    }

    #[test]
    fn texts_words_uuids_durations_and_lists() {
        assert!(matches!(read(Kind::Text(1, 3, ANY), json!("äöü")), Ok(Some(_))));
        assert!(matches!(read(Kind::Text(1, 3, ANY), json!("")), Err(Code::OutOfBounds)));
        assert!(matches!(read(Kind::Text(1, 3, ANY), json!("a\n")), Err(Code::InvalidValue)));
        assert!(matches!(read(Kind::Word(&["http", "https"]), json!("ftp")), Err(Code::InvalidValue)));
        assert!(matches!(read(Kind::Uuid, json!("x")), Err(Code::InvalidValue)));
        assert!(matches!(read(Kind::Duration(0, 60), json!("1m")), Ok(Some(Value::Duration(d))) if d.as_secs() == 60));
        assert!(matches!(read(Kind::Duration(0, 60), json!("61s")), Err(Code::OutOfBounds)));
        assert!(matches!(read(Kind::Duration(0, 60), json!(5)), Err(Code::InvalidValue)));
        assert!(matches!(read(Kind::Texts, json!(["a"])), Ok(Some(Value::Texts(_)))));
        assert!(matches!(read(Kind::Texts, json!("a")), Err(Code::ArrayExpected)));
    }

    #[test]
    fn objects_in_a_list_have_fields_of_their_own() {
        const THING: Resource<()> =
            Resource { name: "thing", path: "", fields: &[Field::hidden("x", Kind::Integer(1, 9), Post::Required, Patch::No, "")], order: &[], links: &[] };
        let field =
            Spec { path: "a.b", kind: Kind::Objects(&THING, &[("x", As::Integer)]), post: Post::Optional, patch: Patch::Yes, show: Show::Standard, doc: "" };
        let Ok(Some(Value::Objects(mut read))) = field.read(json!([{ "x": 3 }, { "x": 4 }])) else { panic!("two objects") };
        assert_eq!(read.iter_mut().map(|one| one.number::<u8>("x")).collect::<Vec<_>>(), [Some(3), Some(4)]);
        for (value, code, target) in [
            (json!([{ "x": 0 }]), Code::OutOfBounds, "a.b.x"),
            (json!([{}]), Code::MissingField, "a.b.x"),
            (json!([{ "x": 1, "y": 1 }]), Code::UnknownField, "a.b.y"),
            (json!([1]), Code::InvalidValue, "a.b"),
            (json!({ "x": 1 }), Code::ArrayExpected, "a.b"),
        ] {
            let error = field.read(value).unwrap_err();
            assert_eq!((error.code, error.target.as_deref()), (code, Some(target)));
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for (seconds, text) in [(3600, "60m"), (90, "90s"), (0, "0s"), (5, "5s")] {
            assert_eq!(duration_text(Duration::from_secs(seconds)), text);
        }
    }
}
