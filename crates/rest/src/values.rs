//! The fields of a body that were given, and taking them out.

use crate::field::Value;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// The fields of a body that were given.
#[derive(Debug, Default)]
pub struct Values {
    pub(crate) values: BTreeMap<&'static str, Value>,
    /// Fields that were given but are only ever shown.
    pub ignored: Vec<&'static str>,
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

    /// Takes a list of objects.
    pub fn objects(&mut self, path: &str) -> Option<Vec<Self>> {
        match self.values.remove(path) {
            Some(Value::Objects(objects)) => Some(objects),
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
