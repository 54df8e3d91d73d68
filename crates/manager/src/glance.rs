//! An SVM at a glance: where it stands, the versions of its KEK, how many keys it has, and how each node is doing with it. For those who look; nothing here decides.

use crate::aws_kms::stored;
use crate::inner::Inner;
use crate::looks::Freshness;
use crate::model::{KeyCounts, NodeHealth, Part, SvmKek, SvmStanding};
use crate::peers::{Heard, down};
use crate::records::{KekRecord, KeyStoreState, NodeRecord, OnboardKekRecord, keks_prefix, onboard_keys_prefix};
use crate::{Error, Manager, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

impl Manager {
    /// Where an SVM stands on this node. From memory alone: a list may ask it of ten thousand.
    pub fn svm_standing(&self, svm: Uuid) -> SvmStanding {
        let inner = self.inner();
        let is = |state| SvmStanding { state, reason: String::new() };
        // A record that cannot be read is told of elsewhere.
        let Some(store) = inner.key_store(svm).ok().flatten() else { return is("none") };
        match store.record.state {
            KeyStoreState::Initializing => return is("initializing"),
            KeyStoreState::Disabling => return is("disabling"),
            KeyStoreState::Active | KeyStoreState::SvmKekRekey | KeyStoreState::Switching | KeyStoreState::Mixed => {}
        }
        if inner.has_aws_kek(svm) {
            let standing = inner.standing(svm);
            return SvmStanding { state: standing.word(), reason: if standing.is_available() { String::new() } else { standing.describe() } };
        }
        match inner.onboard_key() {
            Ok(_) => is("onboard"),
            Err(error) => SvmStanding { state: "unavailable", reason: error.message },
        }
    }

    /// The versions of an SVM's KEK, the newest first.
    pub fn svm_keks(&self, svm: Uuid) -> Vec<SvmKek> {
        let inner = self.inner();
        let current = inner.key_store(svm).ok().flatten().map(|store| store.record.kek_version);
        let of_aws = inner.view.under::<KekRecord>(&keks_prefix(svm)).into_iter().map(|kek| kek.record).map(|kek| SvmKek {
            version: kek.version,
            is_current: current == Some(kek.version),
            is_loaded: inner.kek(svm, kek.version).is_some(),
            key_arn: Some(kek.key_arn),
            wrapped_at: kek.wrapped_at,
        });
        let of_onboard = inner.view.under::<OnboardKekRecord>(&onboard_keys_prefix(svm)).into_iter().map(|kek| kek.record).map(|kek| SvmKek {
            version: kek.version,
            is_current: current == Some(kek.version),
            is_loaded: inner.kek(svm, kek.version).is_some(),
            key_arn: None,
            wrapped_at: kek.wrapped_at,
        });
        let mut all: Vec<SvmKek> = of_aws.chain(of_onboard).collect();
        all.sort_by_key(|kek| std::cmp::Reverse(kek.version));
        all
    }

    /// How many keys an SVM has, by what they are for; destroyed ones are none any more. It goes through all of them, so few of these go on at a time.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn svm_key_counts(&self, svm: Uuid) -> Result<KeyCounts> {
        let keys = self.keys(svm);
        let turn = Arc::clone(&self.inner().scans).acquire_owned().await.map_err(Error::unexpected)?;
        let objects = keys.find(None).await?;
        let inner = Arc::clone(self.inner());
        let counted = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut types: BTreeMap<String, usize> = BTreeMap::new();
            for object in objects.iter().filter(|object| !object.destroyed) {
                *types.entry((inner.algorithm)(object.attributes()).unwrap_or_default()).or_default() += 1;
            }
            KeyCounts { all: types.values().sum(), types: types.into_iter().collect() }
        });
        counted.await.map_err(Error::unexpected)
    }

    /// How each node is doing with a configuration, by name: whether it can use the KEK, reaches AWS KMS, and reaches the EKMIP servers of all nodes.
    ///
    /// # Errors
    /// 4.
    pub async fn node_health(&self, uuid: Uuid, freshness: Freshness) -> Result<Vec<NodeHealth>> {
        let inner = self.inner();
        let config = stored(inner, uuid)?;
        let (states, amazon, ekmip) =
            tokio::join!(inner.states(&config, freshness), inner.reachabilities(&config, freshness), self.ekmip_reachability(uuid, freshness));
        let ekmip = ekmip?;
        let now = inner.clock.utc();
        let nodes = inner.view.all::<NodeRecord>().into_iter().map(|node| {
            let node = node.record;
            let (state, since) = crate::presence::standing(inner, &node);
            let entry = ekmip.iter().find(|entry| entry.node.uuid == node.uuid);
            let heard = states.iter().find(|heard| heard.node.uuid == node.uuid);
            NodeHealth {
                kek: part(inner, &node, &states),
                amazon: part(inner, &node, &amazon),
                ekmip: entry.map_or_else(|| unasked(inner, &node), |entry| Part { good: entry.reachable, message: entry.message.clone() }),
                last_good_poll: heard.and_then(|heard| heard.verified).and_then(|ago| now.checked_sub(ago).ok()),
                node: crate::model::NodeRef { uuid: node.uuid, name: node.name },
                state,
                since,
            }
        });
        let mut nodes: Vec<NodeHealth> = nodes.collect();
        nodes.sort_by(|one, other| one.node.name.cmp(&other.node.name));
        Ok(nodes)
    }
}

fn part(inner: &Inner, node: &NodeRecord, all: &[Heard]) -> Part {
    match all.iter().find(|heard| heard.node.uuid == node.uuid) {
        Some(heard) => Part { good: heard.said.trouble().is_none(), message: heard.said.text().to_owned() },
        None => unasked(inner, node),
    }
}

/// Of a node that has come since the others were asked.
fn unasked(inner: &Inner, node: &NodeRecord) -> Part {
    Part { good: false, message: down(inner, node).unwrap_or_else(|| "it has just come, and was not asked yet".to_owned()) }
}
