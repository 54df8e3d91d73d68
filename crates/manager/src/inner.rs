//! What all parts of the key manager share.

use crate::clock::Clock;
use crate::jobs::runner::Runner;
use crate::model::{NodeRef, Principal, Role, SvmRef};
use crate::passwords::Gate;
use crate::poll::Polls;
use crate::random::Random;
use crate::records::{KeyStoreRecord, Record, Stored, SvmRecord};
use crate::seal::Seal;
use crate::settings::Settings;
use crate::steps::Steps;
use crate::view::View;
use crate::{Code, Error, Result};
use keystead_keyring::Keyring;
use keystead_store::{Error as StoreError, Store, Txn};
use std::sync::Arc;
use uuid::Uuid;

pub(crate) struct Inner {
    pub store: Arc<dyn Store>,
    pub view: Arc<View>,
    pub keyring: Keyring,
    pub seal: Seal,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub steps: Arc<dyn Steps>,
    pub node: NodeRef,
    pub aws: crate::aws::Aws,
    pub runner: Runner,
    pub polls: Polls,
    pub presence: crate::presence::Presence,
    /// The configurations as lists show them.
    pub configs: crate::configs::Configs,
    pub events: crate::events::queue::EventQueue,
    pub gate: Gate,
    pub sessions: crate::sessions::Sessions,
    /// Whether FIPS mode is on.
    pub fips: crate::fips::FipsMode,
    /// Says what FIPS mode would refuse of a key, from its attributes.
    pub fips_check: crate::fips::KeyCheck,
    pub ekmip_probe: Arc<dyn crate::EkmipProbe>,
    /// What the certificate of this node's EKMIP server is for.
    pub ekmip_names: Vec<String>,
    pub ekmip_addresses: Vec<std::net::IpAddr>,
    /// Carries questions to other nodes.
    pub peers: Arc<dyn crate::Peers>,
    /// What the other nodes have last said of each SVM's KEK.
    pub state_looks: crate::looks::Looks<Vec<crate::peers::Heard>>,
    /// What the last looks of all nodes at AWS were, and those of this one for another.
    pub amazon_looks: crate::looks::Looks<Vec<crate::peers::Heard>>,
    pub own_amazon_looks: crate::looks::Looks<(bool, String)>,
    /// What the last looks at EKMIP servers were.
    pub ekmip_looks: crate::looks::Looks<Result<Vec<crate::model::EkmipReachability>>>,
    /// What the last preflights were.
    pub check_looks: crate::looks::Looks<Result<crate::model::CheckReport>>,
    /// Slots for reads of keys that are not in memory.
    pub misses: tokio::sync::Semaphore,
    /// Turns for searches through all keys of an SVM.
    pub scans: Arc<tokio::sync::Semaphore>,
    /// A turn for deriving a key from a passphrase.
    pub passphrases: tokio::sync::Semaphore,
    /// Where keys of certificates are made.
    pub forge: crate::forge::Forge,
    /// Says which algorithm a key is for.
    pub algorithm: crate::keys::Describer,
    /// An SVM was deleted, and may have left records behind.
    pub left_behind: tokio::sync::Notify,
    /// Tells the program that the password of `admin` is no longer the one of the first start.
    pub admin_password_changed: tokio::sync::Notify,
    /// Where it is recorded who did what.
    pub audit: keystead_audit::Audit,
    /// What is counted, for those who watch the node.
    pub counted: crate::metrics::Counted,
    /// The metrics of the node.
    pub metrics: keystead_metrics::Metrics,
}

impl Inner {
    /// The cluster's settings as they are now.
    pub fn settings(&self) -> Settings {
        // The record is written when the cluster is made, and was read at the start: it cannot be missing later but by damage, and then the safe defaults stand.
        self.view.only::<Settings>().map(|stored| stored.record).unwrap_or_default()
    }

    /// Makes a change, and shows it in the view. `conflict` says what a failed comparison means to the user, by its key.
    pub async fn commit(&self, txn: Txn, conflict: impl FnOnce(&str) -> Error) -> Result<()> {
        match self.store.transact(txn).await {
            Ok(revision) => {
                self.view.reached(revision).await;
                Ok(())
            }
            Err(StoreError::Conflict { key }) => {
                self.catch_up().await;
                Err(conflict(&key))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the view shows what the store has now. Whoever was refused because of another's change, and looks again, must see that change.
    pub async fn catch_up(&self) {
        if let Ok(revision) = self.store.transact(Txn::new()).await {
            self.view.reached(revision).await;
        }
    }

    /// An SVM by its identifier.
    pub fn svm(&self, uuid: Uuid) -> Result<Stored<SvmRecord>> {
        self.view.get::<SvmRecord>(uuid)?.ok_or_else(|| Error::new(Code::NotFound).target("uuid"))
    }

    /// An SVM as others refer to it; a name that is gone shows as empty.
    pub fn svm_ref(&self, uuid: Uuid) -> SvmRef {
        let name = self.svm(uuid).map_or_else(|_| String::new(), |svm| svm.record.name);
        SvmRef { uuid, name }
    }

    /// Which key manager an SVM has, as the view shows it.
    pub fn key_store(&self, svm: Uuid) -> Result<Option<Stored<KeyStoreRecord>>> {
        self.view.get::<KeyStoreRecord>(svm)
    }

    /// Reads one record from the store itself: linearizable, unlike the view.
    pub async fn fresh<R: Record>(&self, id: impl std::fmt::Display) -> Result<Option<Stored<R>>> {
        let entry = self.store.get(&crate::records::key::<R>(id)).await.map_err(Error::from)?;
        entry.as_ref().map(Stored::decode).transpose()
    }
}

/// Refuses an account that may not change anything in that SVM (or, without one, in the cluster).
///
/// # Errors
/// 6.
pub(crate) fn may_change(who: &Principal, svm: Option<Uuid>) -> Result<()> {
    match (who.role, svm) {
        (Role::Admin, _) => Ok(()),
        (Role::Vsadmin { svm: own }, Some(svm)) if own == svm => Ok(()),
        (Role::Vsadmin { .. } | Role::Readonly, _) => Err(Error::with(Code::PermissionDenied, format!("the role of {} does not allow it", who.name))),
    }
}
