//! DELETE of a configuration: only where no key would be lost with it.
//!
//! First the key store is turned to `disabling`, which no transaction that makes a key gets past; then what is known of destroyed keys is deleted; then the configuration. So nothing is deleted before
//! it is certain that no key is left. A DELETE that fails turns the key store back. So it goes in the middle of a move, too, where the last key was destroyed on its way: what both key managers hold is deleted.

use super::context::JobContext;
use super::{Afterwards, Plan, migrate, rewrap};
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
/// How often it is begun again since another has changed what was read.
const REPEATS: usize = 5;

pub(crate) async fn run(job: &JobContext, config: Uuid) -> Result<Plan> {
    for _ in 0..REPEATS {
        if let Some(plan) = attempt(job, config).await? {
            return Ok(plan);
        }
    }
    Err(Error::with(Code::InUse, "the configuration was changed at this moment; start again"))
}

/// `None` where what was read has changed meanwhile.
async fn attempt(job: &JobContext, config: Uuid) -> Result<Option<Plan>> {
    let manager = &job.manager;
    let config = configuration(manager, config).await?;
    let svm = config.record.svm;
    let message = "the configuration is deleted".to_owned();
    let store = match held(manager, &config.record).await? {
        Held::Nothing(store) => {
            // Keys, and what is known of destroyed ones, are the onboard key manager's.
            manager.aws.forget(config.record.uuid);
            let txn = Txn::new()
                .when(Compare::Unchanged(config.key.clone(), config.revision))
                .when(Compare::Unchanged(store.key, store.revision))
                .when(Compare::EmptyPrefix(keks_prefix(svm)))
                .delete(config.key);
            return Ok(Some(Plan { txn, message, afterwards: Afterwards::Nothing }));
        }
        Held::GivenUp(store) if has_live_keys(manager, svm).await? => {
            let version = store.record.kek_version;
            if rewrap::count_not_under(manager, svm, version).await? > 0 {
                return Err(still_with_aws(manager, svm));
            }
            manager.aws.forget(config.record.uuid);
            let txn = migrate::without_aws(manager, store)?.when(Compare::Unchanged(config.key.clone(), config.revision)).delete(config.key);
            return Ok(Some(Plan { txn, message, afterwards: Afterwards::Retire(svm, version, None) }));
        }
        Held::GivenUp(store) | Held::Keys(store) => store,
    };
    let Some(store) = disable(job, &config, store).await? else { return Ok(None) };
    job.progress("deleting what is known of destroyed keys").await;
    forget_destroyed(job, svm).await?;
    job.progress("deleting the configuration, its secrets and the wrapped KEK").await;
    let mut txn = Txn::new()
        .when(Compare::Unchanged(config.key.clone(), config.revision))
        .when(Compare::Unchanged(store.key.clone(), store.revision))
        .when(Compare::EmptyPrefix(keys_prefix(svm)))
        .when(Compare::EmptyPrefix(destroyed_prefix(svm)))
        .delete(config.key)
        .delete(store.key)
        // In the middle of a move, the onboard key manager has a version too.
        .and(manager.without_onboard(svm));
    for kek in manager.view.under::<KekRecord>(&keks_prefix(svm)) {
        txn = txn.delete(kek.key);
    }
    manager.aws.forget(config.record.uuid);
    Ok(Some(Plan { txn, message, afterwards: Afterwards::Forget(svm) }))
}

/// What a configuration holds of its SVM's keys.
enum Held {
    /// None: they are all with the onboard key manager.
    Nothing(Stored<KeyStoreRecord>),
    /// Some, perhaps: a move to it was given up, and new keys are the onboard key manager's.
    GivenUp(Stored<KeyStoreRecord>),
    /// All, or those that have come so far, or have not gone yet.
    Keys(Stored<KeyStoreRecord>),
}

async fn held(manager: &Inner, config: &AwsKmsRecord) -> Result<Held> {
    let store = manager.fresh::<KeyStoreRecord>(config.svm).await?.ok_or_else(|| Error::new(Code::NotConfigured))?;
    match store.record.state {
        KeyStoreState::Switching => Err(Error::with(
            Code::KeysStillStored,
            format!("keys of the SVM {} are about to be moved; wait for the job, or cancel it, first", manager.svm_ref(config.svm).name),
        )),
        KeyStoreState::Active if store.record.onboard => Ok(Held::Nothing(store)),
        _ if store.record.is_given_up() => Ok(Held::GivenUp(store)),
        _ => Ok(Held::Keys(store)),
    }
}

fn still_with_aws(manager: &Inner, svm: Uuid) -> Error {
    let name = manager.svm_ref(svm).name;
    Error::with(
        Code::KeysStillStored,
        format!("destroy the keys of the SVM {name} that AWS KMS keeps, or migrate once more when it allows their customer key, first"),
    )
}

/// Turns the key store to `disabling`. `None`: it, or the configuration, has changed since it was read, or a key has come.
async fn disable(job: &JobContext, config: &Stored<AwsKmsRecord>, store: Stored<KeyStoreRecord>) -> Result<Option<Stored<KeyStoreRecord>>> {
    let manager = &job.manager;
    let svm = config.record.svm;
    if store.record.state == KeyStoreState::Disabling {
        return Ok(Some(store));
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
            Ok(Some(Stored { revision, record: disabling, ..store }))
        }
        Err(StoreError::Conflict { .. }) => Ok(None),
        Err(error) => Err(Error::new(Code::DeleteStoreTimeout).detail(error)),
    }
}

/// What a DELETE that failed takes back.
pub(crate) fn enable_again(view: &View, config: Uuid) -> Txn {
    let stores = view.all::<KeyStoreRecord>().into_iter();
    let is_of = |store: &KeyStoreRecord| store.state == KeyStoreState::Disabling && (store.manager == config || store.other == Some(config));
    let Some(store) = stores.into_iter().find(|store| is_of(&store.record)) else {
        return Txn::new();
    };
    let state = match store.record.other {
        // Keys were on their way.
        Some(_) => KeyStoreState::Mixed,
        // More than one version of the KEK: a rekey-internal was under way, and still is.
        None if view.under::<KekRecord>(&keks_prefix(store.record.svm)).len() > 1 => KeyStoreState::SvmKekRekey,
        None => KeyStoreState::Active,
    };
    let record = KeyStoreRecord { state, ..store.record };
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
    let svm = config.svm;
    match held(manager, config).await {
        Ok(Held::Nothing(_)) => Ok(()),
        Ok(Held::Keys(_)) => refuse_live_keys(manager, svm).await,
        // It has just been deleted, and so has the configuration: whoever goes on finds that out.
        Err(error) if error.code == Code::NotConfigured => Ok(()),
        Err(error) => Err(error),
        // As this node sees it now; the job counts in the store.
        Ok(Held::GivenUp(store)) => match manager.view.keys().svm(&*manager.store, svm).await?.not_under(store.record.kek_version) {
            0 => Ok(()),
            _ => Err(still_with_aws(manager, svm)),
        },
    }
}

async fn refuse_live_keys(manager: &Inner, svm: Uuid) -> Result<()> {
    if !has_live_keys(manager, svm).await? {
        return Ok(());
    }
    Err(Error::with(Code::KeysStillStored, format!("destroy the keys of the SVM {}, or move them to another key manager, first", manager.svm_ref(svm).name)))
}

async fn has_live_keys(manager: &Inner, svm: Uuid) -> Result<bool> {
    let page = manager.store.range(Range::prefix(keys_prefix(svm), 1)).await.map_err(|error| match error {
        StoreError::Unavailable(_) => Error::new(Code::DeleteStoreTimeout).detail(error),
        _ => Error::new(Code::DeleteRangeFailed).detail(error),
    })?;
    Ok(!page.entries.is_empty())
}
