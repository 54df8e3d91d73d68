//! How an event stands in the store: under `/events/{node}/{index}`, and for each node `/event-heads/{node}` with what it must know after a restart.

use super::{Event, Severity};
use crate::model::{NodeRef, SvmRef};
use crate::records::Record;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What the records of events start with: the view leaves them out, since they are many and seldom read.
pub(crate) const PREFIXES: [&str; 2] = [EventRecord::PREFIX, HeadRecord::PREFIX];

/// An event. Its text and severity are those of the version that has raised it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventRecord {
    pub time: Timestamp,
    /// The node's name at that time; its identifier stands in the key.
    pub node: String,
    pub message: String,
    pub severity: Severity,
    pub text: String,
    #[serde(default)]
    pub parameters: Vec<(String, String)>,
    /// With the name that it had.
    pub svm: Option<(Uuid, String)>,
}

/// What a node goes on with after a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeadRecord {
    /// The index of the node's newest event.
    pub last: u64,
    /// SVMs in trouble, of which the end of it must be told.
    #[serde(default)]
    pub open: BTreeMap<Uuid, Trouble>,
    /// When certificates were last looked through.
    #[serde(default)]
    pub looked: Option<Timestamp>,
}

/// What was told of an SVM and has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trouble {
    /// `ekmip.awskms.notAvailable`.
    NotAvailable,
    /// `ekmip.awskms.volOffline`.
    Offline,
}

impl Record for EventRecord {
    const PREFIX: &'static str = "/events/";
}

impl Record for HeadRecord {
    const PREFIX: &'static str = "/event-heads/";
}

impl EventRecord {
    /// The event of a record, where its key is one.
    pub fn event(self, key: &str) -> Option<Event> {
        let (node, index) = key.strip_prefix(Self::PREFIX)?.split_once('/')?;
        Some(Event {
            index: index.parse().ok()?,
            time: self.time,
            node: NodeRef { uuid: node.parse().ok()?, name: self.node },
            message: self.message,
            severity: self.severity,
            log_message: self.text,
            parameters: self.parameters,
            svm: self.svm.map(|(uuid, name)| SvmRef { uuid, name }),
        })
    }
}

impl From<&Event> for EventRecord {
    fn from(event: &Event) -> Self {
        Self {
            time: event.time,
            node: event.node.name.clone(),
            message: event.message.clone(),
            severity: event.severity,
            text: event.log_message.clone(),
            parameters: event.parameters.clone(),
            svm: event.svm.as_ref().map(|svm| (svm.uuid, svm.name.clone())),
        }
    }
}

/// What all events of a node start with.
pub(crate) fn events_prefix(node: Uuid) -> String {
    format!("{}{node}/", EventRecord::PREFIX)
}

/// The key of an event: the keys of a node stand in the order of its events.
pub(crate) fn event_key(node: Uuid, index: u64) -> String {
    format!("{}{index:020}", events_prefix(node))
}

/// The index in a key of an event.
pub(crate) fn index_of(key: &str) -> Option<u64> {
    key.rsplit_once('/')?.1.parse().ok()
}
