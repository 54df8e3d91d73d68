//! Events: what operators are told, kept where they can ask for it (ONTAP's EMS), and in the log at once.
//!
//! `Inner::raise` never waits and needs no store: an event goes to the log and into a queue (`queue`), and `writer` brings it into the store when that takes it. Until then it is seen on this node alone.
//! What kinds there are stands in [`catalogue`], when the poll raises which in `awskms`, and what moves of keys tell in `moves`.

pub(crate) mod awskms;
pub mod catalogue;
pub(crate) mod moves;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod writer;

pub use catalogue::{MESSAGES, Message, Severity};

use crate::inner::Inner;
use crate::model::{NodeRef, SvmRef};
use crate::records::{NodeRecord, Record, Stored};
use crate::{Code, Error, Manager, Result};
use jiff::Timestamp;
use keystead_store::Range;
use record::{EventRecord, HeadRecord, event_key};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// How many events are read from the store at a time.
const PAGE: usize = 1_000;
/// The longest value of a parameter, in characters.
const MAX_VALUE: usize = 1_000;
/// The longest text of an event, in characters.
const MAX_LOG_MESSAGE: usize = 2_000;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number on its node: each is one more than the one before.
    pub index: u64,
    /// When.
    pub time: Timestamp,
    /// Where.
    pub node: NodeRef,
    /// The name of its message, see [`MESSAGES`].
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
    /// The whole in words, with the name of the message first.
    pub log_message: String,
    /// Names and values.
    pub parameters: Vec<(String, String)>,
    /// The SVM that it is about, with the name that it had.
    pub svm: Option<SvmRef>,
}

/// Events, as far as they could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// The newest first.
    pub events: Vec<Event>,
    /// Whether the store could be read. If not, these are the events of this node alone that wait to be written.
    pub complete: bool,
}

impl Manager {
    /// The events of all nodes, or those about one SVM.
    pub async fn events(&self, svm: Option<Uuid>) -> Events {
        let inner = self.inner();
        // Reading costs time and memory: one at a time, however many ask.
        let _turn = inner.events.reads.acquire().await;
        let wanted = |event: &Event| svm.is_none_or(|svm| event.svm.as_ref().is_some_and(|about| about.uuid == svm));
        // In this order: what is written in between is found twice, and not missed.
        let waiting = inner.events.waiting();
        let mut found: BTreeMap<(Uuid, u64), Event> = BTreeMap::new();
        let mut range = Range::prefix(EventRecord::PREFIX, PAGE);
        let complete = loop {
            let page = match inner.store.range(range.clone()).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "events cannot be read from the store; those that wait to be written are shown");
                    break false;
                }
            };
            range.after = page.entries.last().map(|entry| entry.key.clone());
            let events = page.entries.iter().filter_map(|entry| {
                let stored = Stored::<EventRecord>::decode(entry);
                let stored = stored.inspect_err(|error| tracing::error!(detail = error.detail.as_deref(), "an event cannot be read")).ok()?;
                stored.record.event(&stored.key)
            });
            found.extend(events.filter(wanted).map(|event| ((event.node.uuid, event.index), event)));
            if !page.more {
                break true;
            }
        };
        found.extend(waiting.iter().filter(|event| wanted(event)).map(|event| ((event.node.uuid, event.index), event.as_ref().clone())));
        let mut events: Vec<Event> = found.into_values().collect();
        events.sort_by_key(|event| (Reverse(event.time), event.node.uuid, Reverse(event.index)));
        Events { events, complete }
    }

    /// One event, by its node's name or identifier and its index.
    ///
    /// # Errors
    /// 4; the store cannot be read.
    pub async fn event(&self, node: &str, index: u64) -> Result<Event> {
        let inner = self.inner();
        let named = |uuid: Uuid, name: &str| name == node || uuid.to_string().eq_ignore_ascii_case(node);
        let waiting = inner.events.waiting();
        if let Some(event) = waiting.iter().find(|event| event.index == index && named(event.node.uuid, &event.node.name)) {
            return Ok(event.as_ref().clone());
        }
        // Nodes that are there come first: of two with one name, theirs is meant.
        let known = inner.view.all::<NodeRecord>().into_iter().map(|node| node.record);
        let known: Vec<(Uuid, bool)> = known.map(|of| (of.uuid, named(of.uuid, &of.name))).collect();
        let gone = nodes_with_events(inner).await?.into_iter().filter(|uuid| !known.iter().any(|(of, _)| of == uuid));
        for (uuid, is_named) in known.iter().copied().filter(|(_, is_named)| *is_named).chain(gone.map(|uuid| (uuid, false))) {
            let entry = inner.store.get(&event_key(uuid, index)).await.map_err(Error::from)?;
            let Some(stored) = entry.as_ref().map(Stored::<EventRecord>::decode).transpose()? else { continue };
            // A node that is gone is known by its events alone.
            if is_named || named(uuid, &stored.record.node) {
                return stored.record.event(&stored.key).ok_or_else(|| Error::unexpected(format!("{} is no key of an event", stored.key)));
            }
        }
        Err(Error::new(Code::NotFound).target("index"))
    }
}

/// The nodes that have raised events which are kept, also those that the cluster has no more.
pub(crate) async fn nodes_with_events(inner: &Inner) -> Result<Vec<Uuid>> {
    let mut range = Range::prefix(HeadRecord::PREFIX, PAGE);
    let mut nodes = Vec::new();
    loop {
        let page = inner.store.range(range.clone()).await.map_err(Error::from)?;
        nodes.extend(page.entries.iter().filter_map(|entry| entry.key.strip_prefix(HeadRecord::PREFIX)?.parse::<Uuid>().ok()));
        range.after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            return Ok(nodes);
        }
    }
}

impl Inner {
    /// Tells operators: in the log now, in the store soon. Never waits and never fails; may be called under any lock but the queue's own.
    pub(crate) fn raise(&self, message: &'static Message, svm: Option<&SvmRef>, parameters: Vec<(&'static str, String)>) {
        let of_svm = svm.into_iter().flat_map(|svm| [("svm_name", svm.name.clone()), ("svm_uuid", svm.uuid.to_string())]);
        let parameters: Vec<(String, String)> =
            of_svm.chain(parameters).map(|(name, value)| (name.to_owned(), value.chars().take(MAX_VALUE).collect())).collect();
        let text = text(message, svm, &self.node.name, &parameters);
        self.counted.event(message.severity);
        log(message, svm.map(|svm| svm.name.as_str()), &self.node.name, &text);
        self.events.push(|index| {
            Arc::new(Event {
                index,
                time: self.clock.utc(),
                node: self.node.clone(),
                message: message.name.to_owned(),
                severity: message.severity,
                log_message: format!("{}: {text}", message.name).chars().take(MAX_LOG_MESSAGE).collect(),
                parameters,
                svm: svm.cloned(),
            })
        });
    }
}

/// What has happened, where, and why: the parameter `reason` is the why.
fn text(message: &Message, svm: Option<&SvmRef>, node: &str, parameters: &[(String, String)]) -> String {
    let svm = svm.map_or_else(String::new, |svm| format!("SVM {} on ", svm.name));
    let reason = parameters.iter().find(|(name, value)| name == "reason" && !value.is_empty()).map_or_else(String::new, |(_, reason)| format!(": {reason}"));
    format!("{} ({svm}node {node}){reason}", message.summary)
}

fn log(message: &Message, svm: Option<&str>, node: &str, text: &str) {
    let event = message.name;
    match message.severity {
        Severity::Emergency | Severity::Alert | Severity::Error => tracing::error!(event, svm, node, "{text}"),
        Severity::Notice => tracing::warn!(event, svm, node, "{text}"),
        Severity::Informational => tracing::info!(event, svm, node, "{text}"),
        Severity::Debug => tracing::debug!(event, svm, node, "{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_where_and_why() {
        let svm = SvmRef { uuid: Uuid::nil(), name: "svm1".to_owned() };
        let parameters = vec![("reason".to_owned(), "it is disabled".to_owned())];
        assert_eq!(text(&catalogue::OFFLINE, Some(&svm), "n1", &parameters), "the keys of the SVM are refused (SVM svm1 on node n1): it is disabled");
        assert_eq!(text(&catalogue::EVENTS_LOST, None, "n1", &[]), "events could not be kept (node n1)");
    }
}
