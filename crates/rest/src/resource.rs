//! A resource: its fields, how a body is read by them, and how a record is shown by them.

use crate::field::{Field, Patch, Post, Show, Value};
use keystead_manager::{Code, Error, Result};
use secrecy::SecretString;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// A resource with all its fields.
#[derive(Debug)]
pub struct Resource {
    /// Where its collection stands, for example `/api/security/aws-kms`.
    pub path: &'static str,
    /// The fields, in the order in which they are checked and shown.
    pub fields: &'static [Field],
}

/// The fields of a body that were given.
#[derive(Debug, Default)]
pub struct Values {
    values: BTreeMap<&'static str, Value>,
    /// Fields that were given but are only ever shown.
    pub ignored: Vec<&'static str>,
}

impl Resource {
    /// The declaration of a path.
    pub fn field(&self, path: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.path == path)
    }

    /// Whether fields stand under this path.
    pub fn is_object(&self, path: &str) -> bool {
        self.under(path).next().is_some()
    }

    /// The fields under a path.
    pub fn under(&self, path: &str) -> impl Iterator<Item = &'static Field> {
        let prefix = format!("{path}.");
        self.fields.iter().filter(move |field| field.path.starts_with(&prefix))
    }

    /// Reads the body of a POST.
    ///
    /// # Errors
    /// 262179 unknown; 262212 missing; and those of [`Field::read`].
    pub fn read_post(&self, body: Map<String, Json>) -> Result<Values> {
        let mut values = Values::default();
        self.walk(body, "", &mut |field, value| match field.post {
            Post::Unknown => Err(unknown(field.path)),
            Post::Ignored => {
                values.ignored.push(field.path);
                Ok(())
            }
            // Clients send empty text for what they do not set.
            Post::Optional if value == Json::String(String::new()) => Ok(()),
            Post::Required | Post::RequiredUnless(_) | Post::Optional => {
                if let Some(value) = field.read(value)? {
                    values.values.insert(field.path, value);
                }
                Ok(())
            }
        })?;
        let is_missing = |field: &&Field| match field.post {
            Post::Required => !values.has(field.path),
            Post::RequiredUnless(other) => !values.has(field.path) && !values.has(other),
            Post::Optional | Post::Ignored | Post::Unknown => false,
        };
        match self.fields.iter().find(is_missing) {
            Some(missing) => Err(Error::with(Code::MissingField, missing.path).target(missing.path)),
            None => Ok(values),
        }
    }

    /// Reads the body of a PATCH.
    ///
    /// # Errors
    /// 262179 unknown; 262203 not to be changed; and those of [`Field::read`].
    pub fn read_patch(&self, body: Map<String, Json>) -> Result<Values> {
        let mut values = Values::default();
        self.walk(body, "", &mut |field, value| {
            let empty = value == Json::Null || value == Json::String(String::new());
            let value = match field.patch {
                Patch::No => return Err(Error::with(Code::NotModifiable, field.path).target(field.path)),
                Patch::Clearable if empty => Some(Value::Clear),
                Patch::Yes | Patch::Clearable => field.read(value)?,
            };
            if let Some(value) = value {
                values.values.insert(field.path, value);
            }
            Ok(())
        })?;
        Ok(values)
    }

    fn walk(&self, object: Map<String, Json>, prefix: &str, take: &mut dyn FnMut(&'static Field, Json) -> Result<()>) -> Result<()> {
        for (name, value) in object {
            if name == "_links" {
                continue;
            }
            let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match (self.field(&path), value) {
                (Some(field), value) => take(field, value)?,
                (None, Json::Object(inner)) if self.is_object(&path) => self.walk(inner, &path, take)?,
                // An object that is left out in the spelling of some clients.
                (None, Json::Null) if self.is_object(&path) => {}
                (None, Json::Array(_)) if self.is_object(&path) => return Err(Error::new(Code::ArrayNotExpected).target(path)),
                (None, _) if self.is_object(&path) => return Err(Error::with(Code::InvalidValue, "it must be an object").target(path)),
                (None, _) => return Err(unknown(&path)),
            }
        }
        Ok(())
    }

    /// Whether a path may be filtered or sorted by.
    ///
    /// # Errors
    /// 262179 unknown; 262250 a secret, or what is only shown when it is named by itself.
    pub fn filterable(&self, path: &str) -> Result<()> {
        match self.field(path) {
            Some(field) if matches!(field.show, Show::Never | Show::Exact) => Err(Error::with(Code::NotFilterable, path).target(path)),
            Some(_) => Ok(()),
            None => Err(unknown(path)),
        }
    }
}

impl Values {
    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether the field was given.
    pub fn has(&self, path: &str) -> bool {
        self.values.contains_key(path)
    }

    /// Whether a field under one of these paths was given.
    pub fn has_any(&self, paths: &[&str]) -> bool {
        self.values.keys().any(|given| paths.iter().any(|path| given == path || given.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))))
    }

    /// Takes a text.
    pub fn text(&mut self, path: &str) -> Option<String> {
        match self.values.remove(path) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Takes a secret.
    pub fn secret(&mut self, path: &str) -> Option<SecretString> {
        match self.values.remove(path) {
            Some(Value::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    /// Takes a number. The declaration has checked its bounds; what does not fit the caller's type counts as not given.
    pub fn number<T: TryFrom<i64>>(&mut self, path: &str) -> Option<T> {
        match self.values.remove(path) {
            Some(Value::Integer(number)) => T::try_from(number).ok(),
            _ => None,
        }
    }

    /// Takes a boolean.
    pub fn flag(&mut self, path: &str) -> Option<bool> {
        match self.values.remove(path) {
            Some(Value::Bool(flag)) => Some(flag),
            _ => None,
        }
    }

    /// Takes a UUID.
    pub fn uuid(&mut self, path: &str) -> Option<Uuid> {
        match self.values.remove(path) {
            Some(Value::Uuid(uuid)) => Some(uuid),
            _ => None,
        }
    }

    /// Takes a duration.
    pub fn duration(&mut self, path: &str) -> Option<Duration> {
        match self.values.remove(path) {
            Some(Value::Duration(duration)) => Some(duration),
            _ => None,
        }
    }

    /// Takes a list of texts.
    pub fn texts(&mut self, path: &str) -> Option<Vec<String>> {
        match self.values.remove(path) {
            Some(Value::Texts(texts)) => Some(texts),
            _ => None,
        }
    }

    /// Takes a field that can be cleared: `Some(None)` where it is.
    pub fn clearable<T>(&mut self, path: &str, take: impl FnOnce(&mut Self, &str) -> Option<T>) -> Option<Option<T>> {
        match self.values.get(path) {
            Some(Value::Clear) => {
                self.values.remove(path);
                Some(None)
            }
            Some(_) => take(self, path).map(Some),
            None => None,
        }
    }
}

/// Puts a value at a dotted path of a record.
pub fn put(record: &mut Map<String, Json>, path: &str, value: Json) {
    match path.split_once('.') {
        None => {
            record.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = record.entry(first.to_owned()).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// The value at a dotted path of a record.
pub fn get<'a>(record: &'a Map<String, Json>, path: &str) -> Option<&'a Json> {
    match path.split_once('.') {
        None => record.get(path),
        Some((first, rest)) => record.get(first)?.as_object().and_then(|inner| get(inner, rest)),
    }
}

fn unknown(path: &str) -> Error {
    Error::with(Code::UnknownField, path).target(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{ANY, Kind};
    use serde_json::json;

    const THING: Resource = Resource {
        path: "/api/thing",
        fields: &[
            Field { path: "name", kind: Kind::Text(1, 9, ANY), post: Post::Required, patch: Patch::Yes, show: Show::Standard, doc: "" },
            Field { path: "a.x", kind: Kind::Integer(0, 9), post: Post::Optional, patch: Patch::Clearable, show: Show::Standard, doc: "" },
            Field { path: "state", kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show: Show::Advanced, doc: "" },
            Field { path: "either", kind: Kind::Bool, post: Post::RequiredUnless("a.x"), patch: Patch::Yes, show: Show::Standard, doc: "" },
            Field { path: "pass", kind: Kind::Secret(9), post: Post::Optional, patch: Patch::Yes, show: Show::Never, doc: "" },
        ],
    };

    fn body(value: Json) -> Map<String, Json> {
        value.as_object().unwrap().clone()
    }

    fn refused(result: Result<Values>) -> (Code, String) {
        let error = result.unwrap_err();
        (error.code, error.target.unwrap())
    }

    #[test]
    fn a_post_takes_what_is_declared() {
        let mut values = THING.read_post(body(json!({"name": "n", "a": {"x": 3}, "state": {"any": 1}, "_links": {}}))).unwrap();
        assert_eq!((values.text("name"), values.number::<u8>("a.x")), (Some("n".into()), Some(3)));
        assert_eq!(values.ignored, ["state"]);
        assert_eq!(refused(THING.read_post(body(json!({})))), (Code::MissingField, "name".into()));
        assert_eq!(refused(THING.read_post(body(json!({"name": "n"})))), (Code::MissingField, "either".into()));
        assert!(THING.read_post(body(json!({"name": "n", "either": true}))).is_ok());
        assert_eq!(refused(THING.read_post(body(json!({"name": "n", "a": {"y": 1}})))), (Code::UnknownField, "a.y".into()));
        assert_eq!(refused(THING.read_post(body(json!({"name": "n", "a": 1})))), (Code::InvalidValue, "a".into()));
    }

    #[test]
    fn a_patch_changes_and_clears() {
        let mut values = THING.read_patch(body(json!({"a": {"x": null}}))).unwrap();
        assert_eq!(values.clearable("a.x", Values::number::<u8>), Some(None));
        let mut values = THING.read_patch(body(json!({"a": {"x": 4}}))).unwrap();
        assert_eq!(values.clearable("a.x", Values::number::<u8>), Some(Some(4)));
        assert_eq!(refused(THING.read_patch(body(json!({"state": 1})))), (Code::NotModifiable, "state".into()));
    }

    #[test]
    fn secrets_cannot_be_filtered_by() {
        assert_eq!(THING.filterable("pass").unwrap_err().code, Code::NotFilterable);
        assert_eq!(THING.filterable("nope").unwrap_err().code, Code::UnknownField);
        assert!(THING.filterable("a.x").is_ok());
    }
}
