//! What nodes ask each other: live looks alone. What is kept travels through the store.
//!
//! A question goes to every other node at the same time. One that is down is told as such, and is not waited for; one that goes down while it is asked is given up. What a question needs is in it, or in
//! the store, so that a node answers for itself and changes nothing that is kept.

mod answer;

pub(crate) use answer::{late, listed};

use crate::certificates::Created;
use crate::clients::issue;
use crate::inner::Inner;
use crate::model::{NodeRef, NodeState};
use crate::records::{AuthorityRecord, AwsKmsRecord, Base64, KekRecord, NodeRecord, PresenceRecord, key};
use crate::{Manager, Result};
use async_trait::async_trait;
use keystead_metrics::trace;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tracing::{Instrument as _, field};
use uuid::Uuid;

/// What the URI of a node's own certificate starts with; the node's identifier follows.
pub const NODE_URI: &str = "urn:keystead:node:";
/// How long a look at another node may take.
const LOOK: Duration = Duration::from_secs(5);
/// How long it may take to ask AWS KMS there: two attempts of the longest timeout that a configuration can have, and a little.
const WORK: Duration = Duration::from_secs(130);

/// Carries questions to other nodes. The HTTP edge brings it: this room knows no HTTP.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Asks the node at `address` (`host:port`, its cluster-network address), and answers what it says. `identity` is asked where a connection is made: the other node must show a certificate of that CA for that address, and is
    /// shown the certificate.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    async fn ask(&self, address: &str, identity: &(dyn Fn() -> Result<NodeIdentity> + Sync), question: &Question) -> std::result::Result<Answer, String>;
}

/// What a node shows another, and believes.
pub struct NodeIdentity {
    /// A certificate that says that it is this node.
    pub certificate: Created,
    /// The CAs that nodes are known by, PEM.
    pub ca: String,
    /// Whether FIPS mode is on.
    pub fips: bool,
}

/// What one node asks another. On the wire: JSON, of the nodes' own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Question {
    /// The node that is asked: another that answers there says so.
    to: Uuid,
    #[serde(flatten)]
    what: What,
}

impl Question {
    /// What is asked, in a word.
    pub fn name(&self) -> &'static str {
        self.what.name()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub(crate) enum What {
    /// Whether the KEK of a configuration's SVM is usable.
    State { config: Uuid },
    /// Whether AWS KMS is reached for a configuration.
    Amazon { config: Uuid },
    /// Whether the EKMIP servers of all nodes are reached, as the SVM of a configuration.
    Ekmip { config: Uuid },
    /// Load the versions of the KEK that are not in memory.
    Restore { config: Uuid },
    /// Whether AWS KMS gives this KEK back, with a configuration as it would be. Its secrets are sealed.
    Prove { config: Box<AwsKmsRecord>, kek: Box<KekRecord> },
    /// Whether the onboard key can be had.
    Onboard,
    /// Whether the source of the seal key gives the one that has sealed this known text.
    SealKey { check: Base64 },
    /// Whether secrets are sealed with it.
    SealKeyInUse { check: Base64 },
    /// Which of these versions of SVMs' KEKs can be had.
    Loaded { keks: Vec<(Uuid, u32)> },
    /// The node that asks has blocked an SVM: ask AWS KMS now. A hint, which blocks nothing by itself.
    Blocked { svm: Uuid },
}

/// What a node says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The node that answers.
    node: Uuid,
    /// Whether it is as it should be.
    good: bool,
    /// What is to be said about it; empty where nothing is.
    message: String,
    /// SVMs, and versions of their KEKs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    loaded: Vec<(Uuid, u32)>,
    /// To [`What::State`]: how many seconds ago the last good poll was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verified: Option<u64>,
}

/// A node that was asked.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub node: NodeRef,
    pub said: Said,
    /// How long ago its last good poll was asked, where that was the question and it has said so.
    pub verified: Option<Duration>,
}

impl Heard {
    /// Which node, and what it says, in words.
    pub fn describe(&self) -> String {
        format!("node {}: {}", self.node.name, self.said.text())
    }
}

/// What it said.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// This.
    Fine(String),
    /// That something is not as it should be.
    Not(String),
    /// Nothing: it is down.
    Down(String),
    /// Nothing: why.
    Silent(String),
}

impl Said {
    /// What a node that can be asked says.
    pub fn of(good: bool, message: String) -> Self {
        if good { Self::Fine(message) } else { Self::Not(message) }
    }

    /// Why all is not well there, in words.
    pub fn trouble(&self) -> Option<&str> {
        match self {
            Self::Fine(_) => None,
            Self::Not(why) | Self::Down(why) | Self::Silent(why) => Some(why),
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Self::Fine(text) | Self::Not(text) | Self::Down(text) | Self::Silent(text) => text,
        }
    }
}

impl What {
    /// As on the wire.
    fn name(&self) -> &'static str {
        match self {
            Self::State { .. } => "state",
            Self::Amazon { .. } => "amazon",
            Self::Ekmip { .. } => "ekmip",
            Self::Restore { .. } => "restore",
            Self::Prove { .. } => "prove",
            Self::Onboard => "onboard",
            Self::SealKey { .. } => "seal_key",
            Self::SealKeyInUse { .. } => "seal_key_in_use",
            Self::Loaded { .. } => "loaded",
            Self::Blocked { .. } => "blocked",
        }
    }

    fn limit(&self) -> Duration {
        match self {
            Self::State { .. }
            | Self::Amazon { .. }
            | Self::Ekmip { .. }
            | Self::Onboard
            | Self::Loaded { .. }
            | Self::SealKeyInUse { .. }
            | Self::Blocked { .. } => LOOK,
            // The source may be a command.
            Self::Restore { .. } | Self::Prove { .. } | Self::SealKey { .. } => WORK,
        }
    }
}

impl Manager {
    /// Answers what another node asks.
    pub async fn answer(&self, question: Question) -> Answer {
        self.inner().answer(question).await
    }

    /// Whether a certificate's URI says that it is a node of this cluster.
    pub fn is_node(&self, uri: &str) -> bool {
        let node = uri.strip_prefix(NODE_URI).and_then(|uuid| uuid.parse::<Uuid>().ok());
        node.is_some_and(|node| self.inner().view.contains(&key::<NodeRecord>(node)))
    }
}

impl Inner {
    /// Asks every other node the same.
    pub(crate) async fn ask_others(&self, what: What) -> Vec<Heard> {
        let nodes = self.view.shared_all::<NodeRecord>();
        let others = nodes.iter().map(|node| &node.record).filter(|node| node.uuid != self.node.uuid);
        futures_util::future::join_all(others.map(|node| async { self.ask_one(node, what.clone()).await })).await
    }

    /// Which of these KEKs a node can use now.
    pub(crate) async fn loaded_at(&self, node: &NodeRecord, keks: Vec<(Uuid, u32)>) -> std::result::Result<Vec<(Uuid, u32)>, Said> {
        if node.uuid == self.node.uuid {
            return Ok(self.loaded_here(keks));
        }
        self.answer_of(node, What::Loaded { keks }).await.map(|answer| answer.loaded)
    }

    async fn ask_one(&self, node: &NodeRecord, what: What) -> Heard {
        let (said, verified) = match self.answer_of(node, what).await {
            Ok(answer) => (Said::of(answer.good, answer.message), answer.verified.map(Duration::from_secs)),
            Err(said) => (said, None),
        };
        Heard { node: NodeRef { uuid: node.uuid, name: node.name.clone() }, said, verified }
    }

    async fn answer_of(&self, node: &NodeRecord, what: What) -> std::result::Result<Answer, Said> {
        if let Some(down) = down(self, node) {
            return Err(Said::Down(down));
        }
        let Some(address) = &node.address else {
            return Err(Said::Silent("it has no cluster-network address: set [cluster] address in its configuration and restart it".to_owned()));
        };
        let limit = what.limit();
        let question = Question { to: node.uuid, what };
        let identity = || self.node_identity();
        let asking = tracing::info_span!(
            target: trace::TARGET,
            "ask",
            otel.name = format!("ask {}", question.name()),
            otel.kind = "client",
            otel.status_code = field::Empty,
            keystead.node = node.name,
        );
        let said = tokio::select! {
            answer = self.peers.ask(address, &identity, &question).instrument(asking.clone()) => answer.map_err(Said::Silent),
            () = tokio::time::sleep(limit) => Err(Said::Silent(format!("it does not answer at {address} within {} s", limit.as_secs()))),
            down = gone(self, node) => Err(Said::Down(down)),
        };
        if said.is_err() {
            asking.record("otel.status_code", "ERROR");
        }
        said
    }

    /// For ten minutes. Not recorded: nothing but nodes takes it.
    fn node_identity(&self) -> Result<NodeIdentity> {
        Ok(NodeIdentity {
            certificate: issue(self, &self.node.name, format!("{NODE_URI}{}", self.node.uuid), None, "PT10M")?,
            ca: self.view.only::<AuthorityRecord>()?.record.bundle(),
            fips: self.settings().fips,
        })
    }
}

/// Since when a node is down, in words.
pub(crate) fn down(inner: &Inner, node: &NodeRecord) -> Option<String> {
    let (state, since) = crate::presence::standing(inner, node);
    (state == NodeState::Down).then(|| format!("it is down since {since:.0}"))
}

/// Returns when a node is down.
async fn gone(inner: &Inner, node: &NodeRecord) -> String {
    let mut changes = inner.view.changes();
    let presence = key::<PresenceRecord>(node.uuid);
    loop {
        changes.mark_unchanged();
        if !inner.view.contains(&presence) {
            return down(inner, node).unwrap_or_default();
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_called_what_it_is_on_the_wire() {
        let (config, check) = (Uuid::nil(), Base64(Vec::new()));
        for what in [
            What::State { config },
            What::Amazon { config },
            What::Ekmip { config },
            What::Restore { config },
            What::Onboard,
            What::SealKey { check: check.clone() },
            What::SealKeyInUse { check },
            What::Loaded { keks: Vec::new() },
            What::Blocked { svm: config },
        ] {
            let question = Question { to: config, what };
            assert_eq!(serde_json::to_value(&question).unwrap()["question"], question.name());
        }
    }
}
