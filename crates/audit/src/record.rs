//! A record: who did what, from where, to what, and what came of it. There is no member for a secret, and no way from one of the key manager's secret types into one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use uuid::Uuid;

/// The longest text of a record, in bytes; a longer one is cut.
const MOST_TEXT: usize = 1_024;
/// The longest value of a field, in bytes.
const MOST_VALUE: usize = 256;
/// The most fields.
const MOST_FIELDS: usize = 100;

/// What has been done, or tried. `index`, `time`, `node` and `prev` are the log's to fill in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number on its node: each is one more than the one before.
    pub index: u64,
    /// When it was handed to the log.
    pub time: Timestamp,
    /// The node that it happened on.
    pub node: Named,
    /// Through what it came.
    pub application: Application,
    /// How far it is.
    pub state: State,
    /// The call (`POST /api/svm/svms`), the KMIP operation (`Destroy`), or what the node did by itself.
    pub input: String,
    /// The account, or the common name of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The role of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The address that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<IpAddr>,
    /// The port there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Uuid>,
    /// The same in the record that something begins and in the one that it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<Uuid>,
    /// What came of it in words, or what is to be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of a failure: ONTAP's code, or KMIP's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The SVM that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svm: Option<Named>,
    /// The object: a UUID, or a Unique Identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Uuid>,
    /// The certificate of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// The job that goes on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Uuid>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How often it was done from `since` to `until`: one record for many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The fields that were given; values of those alone that may be shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Given>,
    /// The hash of the record before, in hexadecimal digits; of the very first, nothing.
    pub prev: String,
}

/// Through what something came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Application {
    /// The REST API.
    Http,
    /// The EKMIP server.
    Kmip,
    /// A job of the cluster.
    Job,
    /// The log itself.
    Audit,
}

impl Application {
    /// Every one, in words.
    pub const WORDS: &'static [&'static str] = &["http", "kmip", "job", "audit"];

    /// In a word.
    pub fn text(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Kmip => "kmip",
            Self::Job => "job",
            Self::Audit => "audit",
        }
    }
}

/// How far something is, in ONTAP's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It begins. A record with the same `command_id` says how it ended; where there is none, the node died in between.
    Pending,
    /// It was done.
    Success,
    /// It was refused, or has failed.
    Error,
}

impl State {
    /// Every one, in words.
    pub const WORDS: &'static [&'static str] = &["pending", "success", "error"];

    /// In a word.
    pub fn text(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Error => "error",
        }
    }
}

/// Something that has an identifier and a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Named {
    /// The identifier.
    pub uuid: Uuid,
    /// The name that it had.
    pub name: String,
}

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Certificate {
    /// SHA-256 of it, in hexadecimal digits.
    pub fingerprint: String,
    /// Its serial number, in hexadecimal digits.
    pub serial_number: String,
}

/// A field that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Its dotted path.
    pub name: String,
    /// What was given, where anybody may see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Record {
    /// A record of something.
    pub fn new(application: Application, state: State, input: impl Into<String>) -> Self {
        Self {
            index: 0,
            time: Timestamp::UNIX_EPOCH,
            node: Named::default(),
            application,
            state,
            input: input.into(),
            user: None,
            role: None,
            location: None,
            port: None,
            session_id: None,
            command_id: None,
            message: None,
            code: None,
            svm: None,
            object: None,
            certificate: None,
            job: None,
            duration_ms: None,
            count: None,
            since: None,
            until: None,
            fields: Vec::new(),
            prev: String::new(),
        }
    }

    /// The same with texts cut to what a record may hold: callers pass on what a peer has sent.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        cut(&mut self.input, MOST_TEXT);
        for text in [&mut self.user, &mut self.role, &mut self.message, &mut self.code].into_iter().flatten() {
            cut(text, MOST_TEXT);
        }
        self.fields.truncate(MOST_FIELDS);
        for field in &mut self.fields {
            cut(&mut field.name, MOST_VALUE);
            if let Some(value) = &mut field.value {
                cut(value, MOST_VALUE);
            }
        }
        self
    }
}

fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_has_sent_is_cut() {
        let mut record = Record::new(Application::Http, State::Pending, "é".repeat(MOST_TEXT));
        record.user = Some("x".repeat(10_000));
        record.fields = (0..1_000).map(|n| Given { name: format!("f{n}"), value: Some("v".repeat(1_000)) }).collect();
        let record = record.bounded();
        assert!(record.input.len() <= MOST_TEXT && record.user.as_ref().is_some_and(|user| user.len() == MOST_TEXT));
        assert!(record.fields.len() == MOST_FIELDS && record.fields[0].value.as_ref().is_some_and(|value| value.len() == MOST_VALUE));
    }

    #[test]
    fn words_are_those_of_the_json() {
        for (value, word) in [Application::Http, Application::Kmip, Application::Job, Application::Audit].into_iter().zip(Application::WORDS) {
            assert_eq!((serde_json::to_string(&value).unwrap(), value.text()), (format!("\"{word}\""), *word));
        }
        for (value, word) in [State::Pending, State::Success, State::Error].into_iter().zip(State::WORDS) {
            assert_eq!((serde_json::to_string(&value).unwrap(), value.text()), (format!("\"{word}\""), *word));
        }
    }
}
