//! How a node answers the others.

use super::{Answer, Question, What};
use crate::aws::{context, kek_from};
use crate::aws_kms::{own_reachability, own_state, stored};
use crate::inner::Inner;
use crate::records::{AwsKmsRecord, KekRecord, Stored, keks_prefix};
use crate::{Error, Result};
use std::time::Duration;
use uuid::Uuid;

/// How long this node looks for another: shorter than that waits, so that it hears why.
const LOOK: Duration = Duration::from_secs(4);

impl Inner {
    /// Answers what another node asks.
    pub(super) async fn answer(&self, question: Question) -> Answer {
        let node = self.node.uuid;
        let says = |good, message| Answer { node, good, message, loaded: Vec::new(), verified: None };
        if question.to != node {
            return says(false, format!("node {} answers there: look at the [cluster] address of both", self.node.name));
        }
        match self.look_here(question.what).await {
            Ok(Looked::Said(good, message)) => says(good, message),
            Ok(Looked::State(svm, good, message)) => Answer { verified: self.verified_ago(svm).map(|ago| ago.as_secs()), ..says(good, message) },
            Ok(Looked::Loaded(loaded)) => Answer { loaded, ..says(true, String::new()) },
            Err(error) => says(false, error.message),
        }
    }

    async fn look_here(&self, what: What) -> Result<Looked> {
        let (good, message) = match what {
            What::State { config } => {
                let config = self.stored_config(config).await?;
                let (good, message) = own_state(self, &config);
                return Ok(Looked::State(config.record.svm, good, message));
            }
            What::Amazon { config } => {
                let config = self.stored_config(config).await?;
                let look = self.own_amazon_looks.joined(&*self.clock, &config, own_reachability(self, &config));
                tokio::time::timeout(LOOK, look).await.unwrap_or_else(|_| late("AWS KMS", LOOK))
            }
            What::Ekmip { config } => {
                let config = self.stored_config(config).await?;
                tokio::time::timeout(LOOK, self.own_ekmip_reachability(&config)).await.unwrap_or_else(|_| Ok(late("an EKMIP server", LOOK)))?
            }
            What::Restore { config } => self.restore_here(config).await?,
            What::Prove { config, kek } => prove_here(self, &config, &kek).await,
            What::Onboard => self.onboard_key_for_moving().map(|_| (true, String::new()))?,
            What::SealKey { check } => match self.seal.read_again().await {
                Ok(()) if self.seal.has(&check) => (true, String::new()),
                Ok(()) => (false, "the source of its seal key does not give the new one: add it there".to_owned()),
                Err(why) => (false, why),
            },
            What::SealKeyInUse { check } => {
                self.catch_up().await;
                if self.seal.choose(&check) { (true, String::new()) } else { (false, "it does not have the new seal key".to_owned()) }
            }
            What::Loaded { keks } => return Ok(Looked::Loaded(self.loaded_here(keks))),
            What::Blocked { svm } => {
                self.hear_of_block(svm);
                (true, String::new())
            }
        };
        Ok(Looked::Said(good, message))
    }

    pub(super) fn loaded_here(&self, mut keks: Vec<(Uuid, u32)>) -> Vec<(Uuid, u32)> {
        keks.retain(|(svm, version)| self.kek(*svm, *version).is_some());
        keks
    }

    /// A configuration, also one that another node has stored a moment ago.
    async fn stored_config(&self, uuid: Uuid) -> Result<Stored<AwsKmsRecord>> {
        if let Ok(config) = stored(self, uuid) {
            return Ok(config);
        }
        self.catch_up().await;
        stored(self, uuid)
    }

    /// Loads what this node lacks: by a poll, which also says why it cannot be had.
    async fn restore_here(&self, config: Uuid) -> Result<(bool, String)> {
        // Another node may have made it a moment ago.
        self.catch_up().await;
        let config = stored(self, config)?;
        let svm = config.record.svm;
        if !self.has_aws_kek(svm) {
            return Ok((true, "its keys are with the onboard key manager".to_owned()));
        }
        self.poll_now(&config).await;
        let versions: Vec<u32> = self.view.under::<KekRecord>(&keks_prefix(svm)).into_iter().map(|kek| kek.record.version).collect();
        let (there, missing): (Vec<u32>, Vec<u32>) = versions.into_iter().partition(|version| self.kek(svm, *version).is_some());
        if missing.is_empty() {
            return Ok((true, format!("version {} of the KEK is loaded", listed(&there))));
        }
        let state = self.standing(svm).describe();
        Ok((false, format!("version {} of the KEK is not loaded: {state}", listed(&missing))))
    }
}

enum Looked {
    /// Whether all is well, and what is to be said.
    Said(bool, String),
    /// The same of an SVM's KEK.
    State(Uuid, bool, String),
    /// Versions of KEKs.
    Loaded(Vec<(Uuid, u32)>),
}

/// Versions in words.
pub(crate) fn listed(versions: &[u32]) -> String {
    versions.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ")
}

/// What a look comes to that nobody has answered.
pub(crate) fn late(who: &str, limit: Duration) -> (bool, String) {
    (false, format!("{who} has not answered within {} s", limit.as_secs()))
}

/// Has AWS KMS unwrap a KEK as a configuration would, and looks whether it is that KEK. It leaves memory at once.
async fn prove_here(inner: &Inner, config: &AwsKmsRecord, kek: &KekRecord) -> (bool, String) {
    let proven = async {
        let client = inner.client_for(config)?;
        let context = context(kek.encryption_context.as_deref())?;
        let mut decrypted = client.decrypt(&kek.key_arn, &kek.blob.0, &context).await.map_err(Error::unexpected)?;
        kek_from(kek, &mut decrypted.plaintext).map(drop).ok_or_else(|| Error::unexpected("AWS KMS has answered with another KEK"))
    };
    match proven.await {
        Ok(()) => (true, format!("version {} of the KEK is proven", kek.version)),
        Err(error) => (false, error.for_operator()),
    }
}
