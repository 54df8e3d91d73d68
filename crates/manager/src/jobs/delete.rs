//! DELETE of a configuration: only where no key would be lost with it.
//!
//! First the key store is turned to `disabling`, which no transaction that makes a key gets past; then what is known of destroyed keys is deleted; then the configuration. So nothing is deleted before
//! it is certain that no key is left. A DELETE that fails turns the key store back.

use super::context::JobContext;
use super::{Afterwards, Plan};
use crate::inner::Inner;
use crate::jobs::restore::configuration;
use crate::keys::record::destroyed_prefix;
use crate::records::{AwsKmsRecord, KekRecord, KeyStoreRecord, KeyStoreState, Record as _, Stored, keks_prefix, keys_prefix};
use crate::view::View;
use crate::{Code, Error, Result};
use keystead_store::{Compare, Error as StoreError, Range, Txn};
use uuid::Uuid;

/// How many records go in one transaction.
const BATCH: usize = 100;

pub(crate) async fn run(job: &JobContext, config: Uuid) -> Result<Plan> {
    let manager = &job.manager;
    let config = configuration(manager, config).await?;
    let svm = config.record.svm;
    if let Some(elsewhere) = kept_elsewhere(manager, &config.record).await? {
        // It holds nothing: keys, and what is known of destroyed ones, are the onboard key manager's.
        manager.aws.forget(config.record.uuid);
        let txn = Txn::new()
            .when(Compare::Unchanged(config.key.clone(), config.revision))
            .when(elsewhere)
            .when(Compare::EmptyPrefix(keks_prefix(svm)))
            .delete(config.key);
        return Ok(Plan { txn, message: "the configuration is deleted".to_owned(), afterwards: Afterwards::Nothing });
    }
    let store = disable(job, &config).await?;
    job.progress("deleting what is known of destroyed keys").await;
    forget_destroyed(job, svm).await?;
    job.progress("deleting the configuration, its secrets and the wrapped KEK").await;
    let mut txn = Txn::new()
        .when(Compare::Unchanged(config.key.clone(), config.revision))
        .when(Compare::Unchanged(store.key.clone(), store.revision))
        .when(Compare::EmptyPrefix(keys_prefix(svm)))
        .when(Compare::EmptyPrefix(destroyed_prefix(svm)))
        .delete(config.key)
        .delete(store.key);
    for kek in manager.view.under::<KekRecord>(&keks_prefix(svm)) {
        txn = txn.delete(kek.key);
    }
    manager.aws.forget(config.record.uuid);
    Ok(Plan { txn, message: "the configuration is deleted".to_owned(), afterwards: Afterwards::Forget(svm) })
}

/// Where all keys of the SVM are with the onboard key manager: the comparison that says so.
async fn kept_elsewhere(manager: &Inner, config: &AwsKmsRecord) -> Result<Option<Compare>> {
    let Some(store) = manager.fresh::<KeyStoreRecord>(config.svm).await? else { return Ok(None) };
    match store.record.state {
        KeyStoreState::Switching | KeyStoreState::Mixed => Err(Error::with(
            Code::KeysStillStored,
            format!("keys of the SVM {} are being moved; wait, or migrate again, first", manager.svm_ref(config.svm).name),
        )),
        KeyStoreState::Active if store.record.onboard => Ok(Some(Compare::Unchanged(store.key, store.revision))),
        _ => Ok(None),
    }
}

/// Turns the key store to `disabling`.
async fn disable(job: &JobContext, config: &Stored<AwsKmsRecord>) -> Result<Stored<KeyStoreRecord>> {
    let manager = &job.manager;
    let svm = config.record.svm;
    let store = manager.fresh::<KeyStoreRecord>(svm).await?.ok_or_else(|| Error::new(Code::NotConfigured))?;
    if store.record.state == KeyStoreState::Disabling {
        return Ok(store);
    }
    refuse_live_keys(manager, svm).await?;
    let disabling = KeyStoreRecord { state: KeyStoreState::Disabling, ..store.record };
    let txn = Txn::new()
        .when(Compare::Unchanged(config.key.clone(), config.revision))
        .when(Compare::Unchanged(store.key.clone(), store.revision))
        .when(Compare::EmptyPrefix(keys_prefix(svm)))
        .put(store.key.clone(), disabling.encode()?);
    job.step("disable", "before");
    match manager.store.transact(job.fenced(txn)).await {
        Ok(revision) => {
            job.step("disable", "after");
            manager.view.reached(revision).await;
            Ok(Stored { revision, record: disabling, ..store })
        }
        Err(StoreError::Conflict { .. }) => {
            refuse_live_keys(manager, svm).await?;
            Err(Error::with(Code::InUse, "the configuration was changed at this moment; start again"))
        }
        Err(error) => Err(Error::new(Code::DeleteStoreTimeout).detail(error)),
    }
}

/// What a DELETE that failed takes back.
pub(crate) fn enable_again(view: &View, config: Uuid) -> Txn {
    let stores = view.all::<KeyStoreRecord>().into_iter();
    let Some(store) = stores.into_iter().find(|store| store.record.manager == config && store.record.state == KeyStoreState::Disabling) else {
        return Txn::new();
    };
    // More than one version of the KEK: a rekey-internal was under way, and still is.
    let rekeying = view.under::<KekRecord>(&keks_prefix(store.record.svm)).len() > 1;
    let record = KeyStoreRecord { state: if rekeying { KeyStoreState::SvmKekRekey } else { KeyStoreState::Active }, ..store.record };
    match record.encode() {
        Ok(value) => Txn::new().when(Compare::Unchanged(store.key.clone(), store.revision)).put(store.key, value),
        Err(_) => Txn::new(),
    }
}

/// Destroyed keys have no secret any more; what is left of them goes with the configuration.
async fn forget_destroyed(job: &JobContext, svm: Uuid) -> Result<()> {
    loop {
        let page =
            job.manager.store.range(Range::prefix(destroyed_prefix(svm), BATCH)).await.map_err(|error| Error::new(Code::DeleteRangeFailed).detail(error))?;
        if page.entries.is_empty() {
            return Ok(());
        }
        let txn = page.entries.into_iter().fold(Txn::new(), |txn, entry| txn.delete(entry.key));
        match job.manager.store.transact(job.fenced(txn)).await {
            Ok(_) | Err(StoreError::Indeterminate(_)) => {}
            Err(error) => return Err(Error::new(Code::DeleteStoreTimeout).detail(error)),
        }
    }
}

/// 65537106 where this configuration has keys, and the internal failures of counting.
pub(crate) async fn refuse_live_keys_of(manager: &Inner, config: &AwsKmsRecord) -> Result<()> {
    match kept_elsewhere(manager, config).await? {
        Some(_) => Ok(()),
        None => refuse_live_keys(manager, config.svm).await,
    }
}

async fn refuse_live_keys(manager: &Inner, svm: Uuid) -> Result<()> {
    let page = manager.store.range(Range::prefix(keys_prefix(svm), 1)).await.map_err(|error| match error {
        StoreError::Unavailable(_) => Error::new(Code::DeleteStoreTimeout).detail(error),
        _ => Error::new(Code::DeleteRangeFailed).detail(error),
    })?;
    if page.entries.is_empty() {
        return Ok(());
    }
    Err(Error::with(Code::KeysStillStored, format!("destroy the keys of the SVM {}, or move them to another key manager, first", manager.svm_ref(svm).name)))
}
