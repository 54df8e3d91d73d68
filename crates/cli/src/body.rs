//! The body of a call, put together from what was given.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

/// A body that is being put together.
#[derive(Default)]
pub struct Body {
    members: Map<String, Value>,
    own: Map<String, Value>,
}

impl Body {
    /// A member, if it was given.
    pub fn put(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.members.insert(name.to_owned(), value.into());
        }
    }

    /// A text that may be taken away: given empty, it is `null`.
    pub fn put_text(&mut self, name: &str, value: Option<&String>) {
        self.put(name, value.map(|text| if text.is_empty() { Value::Null } else { json!(text) }));
    }

    /// A secret.
    pub fn put_secret(&mut self, name: &str, value: Option<&SecretString>) {
        self.put(name, value.map(|secret| secret.expose_secret()));
    }

    /// One of Keystead's own members.
    pub fn put_own(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.own.insert(name.to_owned(), value.into());
        }
    }

    /// One of Keystead's own texts that may be taken away.
    pub fn put_own_text(&mut self, name: &str, value: Option<&String>) {
        self.put_own(name, value.map(|text| if text.is_empty() { Value::Null } else { json!(text) }));
    }

    /// Whether nothing stands in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.own.is_empty()
    }

    /// The body, with Keystead's own members in their place.
    pub fn whole(self) -> Value {
        let mut members = self.members;
        if !self.own.is_empty() {
            members.insert("keystead".to_owned(), Value::Object(self.own));
        }
        Value::Object(members)
    }

    /// The members, with Keystead's own beside the others: what `keystead.new` of rekey-external has.
    pub fn flat(self) -> Value {
        Value::Object(self.members.into_iter().chain(self.own).collect())
    }
}
