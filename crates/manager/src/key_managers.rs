//! What key managers have in common: moving keys between them, where keys are, and which.

use crate::aws_kms::reservation;
use crate::inner::{Inner, may_change};
use crate::jobs::JobKind;
use crate::keys::KeyObject;
use crate::looks::Freshness;
use crate::model::{Accepted, KeyId, KeyStore, Principal, SvmRef};
use crate::peers::Said;
use crate::records::{AwsKmsRecord, KekRecord, KeyStoreRecord, KeyStoreState, NodeRecord, OnboardKekRecord, OnboardRecord, Record, keks_prefix};
use crate::{Code, Error, Manager, Result};
use keystead_store::{Compare, Txn};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

impl Manager {
    /// Starts to move the keys of an SVM from one key manager to another: from the onboard one to the SVM's AWS KMS configuration, or back. A move that was interrupted goes on; one to AWS KMS is
    /// given up by migrating back.
    ///
    /// # Errors
    /// 6: it takes an administrator of the cluster; 65536959 the same; 65537117 one of them does not exist, or they are not one of each kind; 65539434 and 65539435 while the configuration is enabled or deleted; 65537611 while the SVM's
    /// key store is turned elsewhere; 65537559 where the source has no keys; 65536968; 65537551 the onboard key is not to be had; 65537556 while keys of the SVM are refused; 65537552.
    pub async fn migrate(&self, who: &Principal, source: Uuid, destination: Uuid) -> Result<Accepted> {
        let inner = self.inner();
        // Where the keys of an SVM are rooted, and the key manager of the cluster, are not an SVM's to decide.
        may_change(who, None)?;
        if source == destination {
            return Err(Error::new(Code::SameKeyManager).target("uuid"));
        }
        let onboard = inner.fresh::<OnboardRecord>("").await?.ok_or_else(|| Error::with(Code::KeyManagerNotFound, "the cluster has no onboard key manager"))?;
        let to_onboard = destination == onboard.record.uuid;
        if to_onboard == (source == onboard.record.uuid) {
            return Err(
                Error::with(Code::KeyManagerNotFound, "one of the two must be the onboard key manager, and the other an AWS KMS configuration").target("uuid")
            );
        }
        let config_uuid = if to_onboard { source } else { destination };
        let Some(config) = inner.fresh::<AwsKmsRecord>(config_uuid).await? else {
            return Err(match reservation(inner, config_uuid) {
                Some(_) => Error::new(Code::MigrateInitializing),
                None => Error::with(Code::KeyManagerNotFound, config_uuid).target("uuid"),
            });
        };
        let svm = inner.svm_ref(config.record.svm);
        let store = inner.fresh::<KeyStoreRecord>(svm.uuid).await?.ok_or_else(|| Error::with(Code::NoKeys, &svm.name))?;
        let moving =
            || Error::with(Code::MigrateSwitching, format!("the SVM {}; a move that was interrupted goes on by migrating the same way again", svm.name));
        let begins = match store.record.state {
            KeyStoreState::Initializing => return Err(Error::new(Code::MigrateInitializing)),
            KeyStoreState::Disabling => return Err(Error::new(Code::MigrateDisabling)),
            KeyStoreState::Active if store.record.manager == source => true,
            KeyStoreState::Active => return Err(Error::with(Code::NoKeys, format!("all keys of the SVM {} are at the destination", svm.name))),
            KeyStoreState::Mixed if store.record.manager == destination && !self.is_moved(config_uuid) => false,
            // The other way: the move to AWS KMS is given up. Nothing of AWS is needed for what it has not come to.
            KeyStoreState::Mixed if to_onboard && store.record.manager == source && !self.is_moved(config_uuid) => false,
            KeyStoreState::Mixed | KeyStoreState::Switching | KeyStoreState::SvmKekRekey => return Err(moving()),
        };
        inner.every_node_can_move_keys()?;
        inner.onboard_key_for_moving()?;
        let gives_up = to_onboard && store.record.state == KeyStoreState::Mixed && store.record.manager == source;
        let state = inner.standing(svm.uuid);
        // Where a move was given up, all that AWS has kept may be destroyed by now.
        let needs_aws = inner.has_aws_kek(svm.uuid) && !gives_up && !(to_onboard && store.record.is_given_up());
        if needs_aws && !state.serves() {
            return Err(Error::with(Code::Blocked, format!("SVM {} on node {}: {}", svm.name, inner.node.name, state.describe())));
        }
        if let Some(unreachable) = self.ekmip_reachability(config_uuid, Freshness::Now).await?.into_iter().find(|entry| !entry.reachable) {
            return Err(Error { message: unreachable.message, ..Error::new(Code::EkmipUnreachable) });
        }

        let mut txn = Txn::new()
            .when(Compare::Unchanged(store.key.clone(), store.revision))
            .when(Compare::Present(config.key))
            .when(Compare::Unchanged(onboard.key, onboard.revision));
        if begins {
            let switching = KeyStoreRecord { state: KeyStoreState::Switching, other: Some(destination), ..store.record };
            txn = txn.put(store.key, switching.encode()?);
        }
        let kind = JobKind::Migrate { config: config_uuid, to_onboard, gives_up };
        let job = inner.new_job(who, format!("POST /api/security/key-managers/{source}/migrate"), kind, Some((svm.uuid, svm.name.clone())));
        inner.accept(job, destination, txn, |_| moving()).await
    }

    /// The key stores of the cluster: one for each AWS KMS configuration, also for one that is being enabled, and the onboard one.
    ///
    /// # Errors
    /// A record is damaged.
    pub fn key_stores(&self) -> Result<Vec<KeyStore>> {
        let inner = self.inner();
        let mut all = Vec::new();
        if let Some(onboard) = inner.onboard()? {
            let state = if inner.onboard_key().is_ok() { "active" } else { "blocked" };
            all.push(KeyStore { uuid: onboard.record.uuid, onboard: true, svm: None, enabled: true, state });
        }
        for config in inner.view.all::<AwsKmsRecord>() {
            let svm = config.record.svm;
            let store = inner.key_store(svm)?;
            let enabled = store.as_ref().is_some_and(|store| store.record.is_for(config.record.uuid));
            let state = match store {
                _ if inner.has_aws_kek(svm) && inner.standing(svm).is_blocked() => "blocked",
                Some(store) => state_name(store.record.state),
                None => "active",
            };
            all.push(KeyStore { uuid: config.record.uuid, onboard: false, svm: Some(inner.svm_ref(svm)), enabled, state });
        }
        let reserved = inner.view.all::<KeyStoreRecord>().into_iter().filter_map(|store| Some((store.record.reserved_for()?, store.record.svm)));
        for (uuid, svm) in reserved {
            // A move between key managers that exist has both in the list already.
            if !all.iter().any(|known| known.uuid == uuid) {
                all.push(KeyStore { uuid, onboard: false, svm: Some(inner.svm_ref(svm)), enabled: false, state: "initializing" });
            }
        }
        all.sort_by_key(|store| store.uuid);
        Ok(all)
    }

    /// The keys of a key manager: those of the data plane, and the KEKs of SVMs, and whether a node can open them. `sees` says which SVMs the caller may see. There may be millions of them.
    ///
    /// # Errors
    /// 4 an unknown key manager or node; 65537566 where that node is down or does not answer. The store cannot be read.
    pub async fn key_ids(&self, manager: Uuid, node: Uuid, sees: impl Fn(Uuid) -> bool) -> Result<KeyIds> {
        let inner = self.inner();
        let unknown = |target: &str| Error::new(Code::NotFound).target(target);
        let node = inner.view.get::<NodeRecord>(node)?.ok_or_else(|| unknown("node.uuid"))?.record;
        let keks: Vec<(Uuid, u32)> = match inner.onboard()?.filter(|onboard| onboard.record.uuid == manager) {
            Some(_) => inner.view.all::<OnboardKekRecord>().into_iter().map(|kek| (kek.record.svm, kek.record.version)).collect(),
            None => {
                let config = inner.view.get::<AwsKmsRecord>(manager)?.filter(|config| sees(config.record.svm)).ok_or_else(|| unknown("uuid"))?;
                let keks = inner.view.under::<KekRecord>(&keks_prefix(config.record.svm));
                keks.into_iter().map(|kek| (kek.record.svm, kek.record.version)).collect()
            }
        };
        let keks: Vec<(Uuid, u32)> = keks.into_iter().filter(|(svm, _)| sees(*svm)).collect();
        let silent = |said: Said| Error::with(Code::NotAllNodesOnline, format!("node {}: {}", node.name, said.text()));
        let loaded: HashSet<(Uuid, u32)> = inner.loaded_at(&node, keks.clone()).await.map_err(silent)?.into_iter().collect();
        let _turn = Arc::clone(&inner.scans).acquire_owned().await.map_err(Error::unexpected)?;
        let mut ids = KeyIds { inner: Arc::clone(inner), keks: Vec::new(), rows: Vec::new(), _turn };
        for (svm, version) in keks {
            let place = ids.keks.len();
            ids.keks.push(ShownKek { svm: inner.svm_ref(svm), version, restored: loaded.contains(&(svm, version)) });
            ids.rows.push((Uuid::from_u128(svm.as_u128() ^ u128::from(version)), place, None));
            let objects = self.keys(svm).find(None).await?.into_iter().filter(|object| !object.destroyed && object.kek_version == version);
            ids.rows.extend(objects.map(|object| (object.id, place, Some(object))));
        }
        Ok(ids)
    }

    /// Whether a job is at work on the keys of a configuration, so that a second one would only wait for it.
    fn is_moved(&self, config: Uuid) -> bool {
        let moves = |kind: &JobKind| matches!(kind, JobKind::Migrate { .. } | JobKind::Enable { .. }) && kind.config() == Some(config);
        self.inner().view.open_jobs().iter().any(|job| moves(&job.record.kind))
    }
}

/// The keys of a key manager. Few searches through all keys go on at a time; this is one, until it is dropped. To go through it may take long: not on a thread that others wait for.
pub struct KeyIds {
    inner: Arc<Inner>,
    keks: Vec<ShownKek>,
    /// Its place in the order, which KEK, and the key that it wraps, unless it is itself.
    rows: Vec<(Uuid, usize, Option<Arc<KeyObject>>)>,
    _turn: OwnedSemaphorePermit,
}

struct ShownKek {
    svm: SvmRef,
    version: u32,
    restored: bool,
}

impl KeyIds {
    /// One after the other, in no order.
    pub fn iter(&self) -> impl Iterator<Item = KeyId> {
        self.rows.iter().filter_map(|(uuid, place, object)| {
            let kek = self.keks.get(*place)?;
            let (key_id, algorithm) = match object {
                None => (format!("{}/{}", kek.svm.uuid, kek.version), Some("AES-256".to_owned())),
                Some(object) => (object.id.to_string(), (self.inner.algorithm)(object.attributes())),
            };
            Some(KeyId { uuid: *uuid, key_id, is_kek: object.is_none(), svm: kek.svm.clone(), algorithm, restored: kek.restored })
        })
    }
}

/// As `/security/key-stores` names it.
fn state_name(state: KeyStoreState) -> &'static str {
    match state {
        KeyStoreState::Initializing => "initializing",
        KeyStoreState::Active => "active",
        KeyStoreState::SvmKekRekey => "svm_kek_rekey",
        KeyStoreState::Switching => "switching",
        KeyStoreState::Mixed => "mixed",
        KeyStoreState::Disabling => "disabling",
    }
}
