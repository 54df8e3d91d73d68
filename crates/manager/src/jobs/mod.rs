//! Jobs: operations that outlive the call that started them.
//!
//! A job is a record. Whichever node holds its claim runs it: [`runner`] claims, runs, and commits. A job's body computes a [`Plan`], one last transaction; the runner
//! commits it **together with** the job's own end, under the comparison of the claim. So a job that says `success` has had its effect, one that says `failure` has had none, and
//! a node that was paused and wakes up late changes nothing.
//!
//! After a crash the job is claimed again and its body starts over. Bodies are written so that this does no harm: before the last transaction they only read, and ask AWS.
//!
//! To add a job: a variant of [`JobKind`] with its inputs (secrets sealed), a file here with `pub(crate) async fn run(…) -> Result<Plan>`, an arm in [`run`], and, where the call has left
//! something behind on acceptance, an arm in [`cleanup`].

pub(crate) mod bulk;
pub(crate) mod context;
pub(crate) mod delete;
pub(crate) mod enable;
mod everywhere;
pub(crate) mod index;
pub(crate) mod migrate;
pub(crate) mod modify;
pub(crate) mod queue;
pub(crate) mod rekey_external;
pub(crate) mod rekey_internal;
pub(crate) mod restore;
pub(crate) mod rewrap;
pub(crate) mod rotate_seal;
pub(crate) mod runner;
pub(crate) mod table;

use crate::Result;
use crate::events::moves::Route;
use crate::poll::Proof;
use crate::records::{Base64, KekRecord, StoredSettings};
use context::JobContext;
use jiff::Timestamp;
use keystead_store::Txn;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// What a job does, with its inputs. Secrets are sealed for the record that they will end in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum JobKind {
    /// Nothing is left to do: the call did it all in the transaction that wrote this record.
    Done,
    /// Seal every secret of the store with another seal key.
    RotateSeal,
    /// Waits for the jobs of a call with many records ([`bulk`]).
    Bulk,
    /// POST of a configuration.
    Enable {
        /// The configuration to make.
        config: Uuid,
        /// For which SVM.
        svm: Uuid,
        /// Its settings.
        settings: Box<StoredSettings>,
        /// Sealed for `records::secret_place`; none with a credentials source.
        secret_access_key: Option<Base64>,
        /// Sealed for `records::proxy_password_place`.
        proxy_password: Option<Base64>,
        /// Skip DescribeKey.
        skip_verify: bool,
        /// Move the keys that the onboard key manager keeps for the SVM.
        #[serde(default)]
        migrate: bool,
    },
    /// PATCH of a configuration.
    Modify {
        /// The configuration.
        config: Uuid,
        /// What shall change.
        change: Box<StoredChange>,
    },
    /// DELETE of a configuration.
    Delete {
        /// The configuration.
        config: Uuid,
    },
    /// Load the KEKs that the nodes lack.
    Restore {
        /// The configuration.
        config: Uuid,
    },
    /// Make the next version of the KEK, and wrap every key again.
    RekeyInternal {
        /// The configuration.
        config: Uuid,
    },
    /// Move the keys of the SVM between the onboard key manager and the configuration.
    Migrate {
        /// The configuration.
        config: Uuid,
        /// To the onboard key manager; else from it.
        to_onboard: bool,
        /// It gives up a move the other way: what AWS keeps may stay there.
        #[serde(default)]
        gives_up: bool,
    },
    /// Wrap the KEK under another customer key.
    RekeyExternal {
        /// The configuration.
        config: Uuid,
        /// The customer key.
        key_id: String,
        /// What else of the configuration changes with it.
        change: Box<StoredChange>,
        /// Where no operator has asked for it: when the KEK had been wrapped that was found to be out of date. One that was wrapped since is not wrapped again.
        #[serde(default)]
        outdated: Option<Timestamp>,
    },
}

impl JobKind {
    /// The job's name in the names of its steps, for example `enable` in `enable.encrypt.before`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Bulk => "bulk",
            Self::RotateSeal => "rotate_seal",
            Self::Enable { .. } => "enable",
            Self::Modify { .. } => "modify",
            Self::Delete { .. } => "delete",
            Self::Restore { .. } => "restore",
            Self::RekeyInternal { .. } => "rekey_internal",
            Self::Migrate { .. } => "migrate",
            Self::RekeyExternal { .. } => "rekey_external",
        }
    }

    /// Whether the job works, and so takes one of the node's places; else it only waits for others, which must not wait for its place.
    pub fn works(&self) -> bool {
        !matches!(self, Self::Bulk)
    }

    /// The configuration that the job works on. Jobs of one configuration run one after the other.
    pub fn config(&self) -> Option<Uuid> {
        match self {
            Self::Done | Self::Bulk | Self::RotateSeal => None,
            Self::Enable { config, .. }
            | Self::Modify { config, .. }
            | Self::Delete { config }
            | Self::Restore { config }
            | Self::RekeyInternal { config }
            | Self::Migrate { config, .. }
            | Self::RekeyExternal { config, .. } => Some(*config),
        }
    }
}

/// A change of a configuration as a job keeps it: the members as in `model::AwsKmsChange`, with the secrets sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct StoredChange {
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Base64>,
    #[serde(with = "cleared")]
    pub encryption_context: Option<Option<String>>,
    pub service: Option<String>,
    pub default_domain: Option<String>,
    #[serde(with = "cleared")]
    pub host: Option<Option<String>>,
    pub port: Option<u16>,
    pub polling_period: Option<u32>,
    pub timeout: Option<u32>,
    pub verify: Option<bool>,
    pub verify_host: Option<bool>,
    pub verify_ip: Option<bool>,
    pub skip_verify: bool,
    #[serde(deserialize_with = "or_default")]
    pub proxy: StoredProxyChange,
    #[serde(with = "cleared")]
    pub proxy_password: Option<Option<Base64>>,
    #[serde(with = "cleared")]
    pub access_error_grace: Option<Option<std::time::Duration>>,
    #[serde(with = "cleared")]
    pub max_unverified: Option<Option<std::time::Duration>>,
    #[serde(with = "cleared")]
    pub ca_certificates: Option<Option<String>>,
    #[serde(with = "cleared")]
    pub credentials_source: Option<Option<String>>,
    /// Who asks for the change may set credentials of the node's own.
    pub by_admin: bool,
}

/// A null stands for nothing.
fn or_default<'de, T: Default + Deserialize<'de>, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A change of the proxy, member by member. A cleared host takes the whole proxy away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct StoredProxyChange {
    #[serde(with = "cleared")]
    pub https: Option<Option<bool>>,
    #[serde(with = "cleared")]
    pub host: Option<Option<String>>,
    #[serde(with = "cleared")]
    pub port: Option<Option<u16>>,
    #[serde(with = "cleared")]
    pub username: Option<Option<String>>,
}

/// `Some(None)` ("clear it") and `None` ("leave it") are both null in plain JSON; a list of none or one element tells them apart.
mod cleared {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(value: &Option<Option<T>>, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|inner| inner.iter().collect::<Vec<_>>()).serialize(serializer)
    }

    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
        Ok(Option::<Vec<T>>::deserialize(deserializer)?.map(|mut list| list.pop()))
    }
}

/// What a job's body has worked out: the last transaction, and what follows in memory once it stands.
pub(crate) struct Plan {
    /// The effect. The runner adds the end of the job and the comparison of the claim.
    pub txn: Txn,
    /// How the job ended, for its `message`.
    pub message: String,
    /// The memory's part of the effect, after the transaction stands.
    pub afterwards: Afterwards,
}

/// What follows in memory after the last transaction.
pub(crate) enum Afterwards {
    /// Nothing.
    Nothing,
    /// These KEKs, the current version last, are proven under this configuration, and are served from now on.
    Serve(Proof),
    /// The same, and the KEK is wrapped anew: the record that was, and the one that is.
    Rewrapped(Proof, Box<(KekRecord, KekRecord)>),
    /// Every key of the SVM is wrapped by this version: the others leave memory.
    Retire(Uuid, u32, Option<Duration>),
    /// The same, and with it a move has ended; the number of keys that were wrapped again.
    Moved(Route, u32, Option<Duration>, usize),
    /// The SVM has no key manager any more: its KEKs leave memory.
    Forget(Uuid),
}

/// Runs a job's body.
pub(crate) async fn run(context: &JobContext, kind: &JobKind) -> Result<Plan> {
    match kind {
        JobKind::Done => Ok(Plan { txn: Txn::new(), message: String::from("success"), afterwards: Afterwards::Nothing }),
        JobKind::Bulk => bulk::run(context).await,
        JobKind::RotateSeal => rotate_seal::run(context).await,
        JobKind::Enable { .. } => enable::run(context, kind).await,
        JobKind::Modify { config, change } => modify::run(context, *config, change).await,
        JobKind::Delete { config } => delete::run(context, *config).await,
        JobKind::Restore { config } => restore::run(context, *config).await,
        JobKind::RekeyInternal { config } => rekey_internal::run(context, *config).await,
        JobKind::Migrate { config, to_onboard, gives_up } => migrate::run(context, *config, *to_onboard, *gives_up).await,
        JobKind::RekeyExternal { config, key_id, change, outdated } => rekey_external::run(context, *config, key_id, change, *outdated).await,
    }
}

/// What a failed job takes back, in the same transaction in which it fails.
pub(crate) fn cleanup(view: &crate::view::View, kind: &JobKind) -> Txn {
    match kind {
        JobKind::Enable { config, svm, .. } => enable::release(view, *svm, *config),
        JobKind::Delete { config } => delete::enable_again(view, *config),
        JobKind::Migrate { config, to_onboard, .. } => migrate::stay(view, *config, *to_onboard),
        _ => Txn::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_and_leaving_survive_the_store() {
        for host in [None, Some(None), Some(Some("kms.example".to_owned()))] {
            let change = StoredChange { host: host.clone(), ..StoredChange::default() };
            let kind = JobKind::Modify { config: Uuid::nil(), change: Box::new(change) };
            let back: JobKind = serde_json::from_str(&serde_json::to_string(&kind).unwrap()).unwrap();
            assert_eq!(back, kind);
        }
    }
}
